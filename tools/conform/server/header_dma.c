/* header_dma.c: VU-HDR: the headers of the server's own commands, and ids of both directions. */
#include "exerciser.h"

#define FROM UINT64_C(0x100000)
#define LEN  64u

static const uint32_t get_info[4] = { 16 };

/* A DMA_READ of the device's that waits for its reply. */
static struct ob_raw_header asks(struct judge *j, struct guest_memory **guest)
{
    device_on(j, true);
    *guest = guest_memory(j, FROM, 2 * j->facts.page);
    memset((*guest)->bytes, 0x5a, LEN);
    return device_copy_asks(j, *guest, FROM + j->facts.page, LEN);
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
    const struct ob_raw_header asked = asks(j, &guest);

    send_with_header(j, (struct ob_raw_header){ asked.id, OB_RAW_GET_INFO, 32, 0, 0 }, get_info, 16);
    device_copy_answer(j);
    want_ok(j, ob_raw_reply(&j->raw, asked.id, OB_RAW_GET_INFO, NULL), "GET_INFO with the id of a DMA_READ");
    copied(j, guest);
}

static void check_ids_apart_same_command(struct judge *j)
{
    struct guest_memory *guest;
    const struct ob_raw_header asked = asks(j, &guest);
    const struct ob_raw_dma dma = { FROM, LEN };
    uint8_t payload[sizeof(dma) + LEN] = { 0 };

    memcpy(payload, &dma, sizeof(dma));
    send_with_header(j, (struct ob_raw_header){ asked.id, OB_RAW_DMA_READ, sizeof(payload) + 16, 0, 0 }, payload,
                     sizeof(payload));
    device_copy_answer(j);
    want_refused(j, ob_raw_reply(&j->raw, asked.id, OB_RAW_DMA_READ, NULL),
                 "a command DMA_READ with the id of the server's");
    copied(j, guest);
}

static void check_flags(struct judge *j)
{
    struct guest_memory *guest;
    const struct ob_raw_header asked = asks(j, &guest);

    want(j, (asked.flags & ~OB_RAW_NO_REPLY) == 0, "DMA_READ with flags %#x, wanted none", asked.flags);
    device_copy_answer(j);
    copied(j, guest);
}

static void check_error_field(struct judge *j)
{
    struct guest_memory *guest;
    const struct ob_raw_header asked = asks(j, &guest);

    want(j, asked.error == 0, "DMA_READ with %u in the error field of its header, wanted 0", asked.error);
    device_copy_answer(j);
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
