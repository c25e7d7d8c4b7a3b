/* header_dma.c: VU-HDR: the headers of the server's own commands, and ids of both directions. */
#include "guest.h"

static const uint32_t get_info[4] = { 16 };

static void check_ids_apart(struct judge *j)
{
    struct guest_pair pair;
    const struct ob_raw_message *asked = guest_read_waits(j, &pair);

    send_with_header(j, (struct ob_raw_header){ asked->header.id, OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);
    guest_read_answer(j, asked);
    want_ok(j, ob_raw_reply(&j->raw, asked->header.id, OB_RAW_GET_INFO, NULL), "GET_INFO with the id of a DMA_READ");
    guest_read_done(j, &pair, "a command with the id of its DMA_READ");
}

static void check_ids_apart_same_command(struct judge *j)
{
    struct guest_pair pair;
    const struct ob_raw_message *asked = guest_read_waits(j, &pair);
    const struct ob_raw_dma range = guest_range(j, asked);
    uint8_t payload[sizeof(range) + GUEST_LEN] = { 0 };

    memcpy(payload, &range, sizeof(range));
    send_with_header(j, (struct ob_raw_header){ asked->header.id, OB_RAW_DMA_READ, 16 + sizeof(payload), 0, 0 },
                     payload, sizeof(payload));
    guest_read_answer(j, asked);
    want_refused(j, ob_raw_reply(&j->raw, asked->header.id, OB_RAW_DMA_READ, NULL),
                 "a command DMA_READ with the id of the server's");
    guest_read_done(j, &pair, "a command with the id of its DMA_READ");
}

static void check_flags(struct judge *j)
{
    struct guest_pair pair;
    const uint32_t flags = guest_read_waits(j, &pair)->header.flags;

    want(j, (flags & ~OB_RAW_NO_REPLY) == 0, "DMA_READ with flags %#x, wanted none", flags);
}

static void check_error_field(struct judge *j)
{
    struct guest_pair pair;
    const uint32_t error = guest_read_waits(j, &pair)->header.error;

    want(j, error == 0, "DMA_READ with %u in the error field of its header, wanted 0", error);
}

const struct check server_header_dma_checks[] = {
    { { "header-ids-apart", "VU-HDR-15", "a command with the id of an outstanding DMA_READ is not its reply" },
      NEED_DMA,
      check_ids_apart },
    { { "header-ids-apart-command", "VU-HDR-15", "so is one with its command number, which is refused" },
      NEED_DMA,
      check_ids_apart_same_command },
    { { "header-dma-flags", "VU-HDR-13", "DMA_READ has no flags" }, NEED_DMA, check_flags },
    { { "header-dma-error-zero", "VU-HDR-30", "the error field of DMA_READ is 0" }, NEED_DMA, check_error_field },
    { { NULL, NULL, NULL }, 0, NULL },
};
