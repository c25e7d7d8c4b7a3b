/* header_dma.c: VU-HDR: the headers of the server's own commands, and ids of both directions. */
#include "exerciser.h"

#define FROM UINT64_C(0x100000)
#define LEN  64u

static const uint32_t get_info[4] = { 16 };

/* A DMA_READ of the device's that waits for its reply. */
static struct ob_raw_message *asks(struct judge *j, struct guest_memory **guest)
{
    device_on(j, true);
    *guest = guest_memory(j, FROM, 2 * j->facts.page);
    memset((*guest)->bytes, 0x5a, LEN);
    return device_copy_asks(j, FROM, FROM + j->facts.page, LEN);
}

static void copied(struct judge *j, const struct guest_memory *guest)
{
    int error = device_copy_end(j);

    want(j, error == 0 && memcmp(guest->bytes, guest->bytes + j->facts.page, LEN) == 0,
         "the device's copy failed (%s), after a command with the id of its DMA_READ", strerror(error));
}

static void check_ids_apart(struct judge *j)
{
    struct guest_memory *guest;
    struct ob_raw_message *asked = asks(j, &guest);

    send_with_header(j, (struct ob_raw_header){ asked->header.id, OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);
    device_copy_answer(j, asked);
    want_ok(j, ob_raw_reply(&j->raw, asked->header.id, OB_RAW_GET_INFO, NULL), "GET_INFO with the id of a DMA_READ");
    copied(j, guest);
}

static void check_ids_apart_same_command(struct judge *j)
{
    struct guest_memory *guest;
    struct ob_raw_message *asked = asks(j, &guest);
    uint8_t payload[16 + LEN] = { 0 };

    memcpy(payload, asked->payload, 16);
    send_with_header(j, (struct ob_raw_header){ asked->header.id, OB_RAW_DMA_READ, sizeof(payload) + 16, 0, 0 },
                     payload, sizeof(payload));
    device_copy_answer(j, asked);
    want_refused(j, ob_raw_reply(&j->raw, asked->header.id, OB_RAW_DMA_READ, NULL),
                 "a command DMA_READ with the id of the server's");
    copied(j, guest);
}

static void check_flags(struct judge *j)
{
    struct guest_memory *guest;
    struct ob_raw_message *asked = asks(j, &guest);

    want(j, (asked->header.flags & ~OB_RAW_NO_REPLY) == 0, "DMA_READ with flags %#x, wanted none", asked->header.flags);
    device_copy_answer(j, asked);
    copied(j, guest);
}

static void check_error_field(struct judge *j)
{
    struct guest_memory *guest;
    struct ob_raw_message *asked = asks(j, &guest);

    want(j, asked->header.error == 0, "DMA_READ with %u in the error field of its header, wanted 0",
         asked->header.error);
    device_copy_answer(j, asked);
    copied(j, guest);
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
