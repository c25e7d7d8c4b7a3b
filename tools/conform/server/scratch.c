/* scratch.c: bits of COMMAND as a register to write to. I/O, memory and bus master decoding, and the INTx disable bit,
 * have no effect on a device that does nothing. */
#include "scratch.h"

#define COMMAND 0x04u
#define BITS    0x0407u

/* Value n: its bits spread over the register's. The lowest changes from each to the next. */
static uint16_t value(struct judge *j, unsigned n)
{
    uint16_t v = 0;

    for (unsigned bit = 0; bit < 16; bit++) {
        if (j->scratch & 1u << bit) {
            v |= (uint16_t)((n & 1) << bit);
            n >>= 1;
        }
    }
    return v;
}

void scratch_begin(struct judge *j)
{
    config_write(j, COMMAND, 2, BITS);
    j->scratch = (uint16_t)(config_read(j, COMMAND, 2) & BITS);
    if (j->scratch == 0)
        judge_skip(j, "no bit of COMMAND can be set");
    config_write(j, COMMAND, 2, 0);
}

size_t scratch_write(struct judge *j, void *to, uint16_t id, uint32_t flags, unsigned n)
{
    struct {
        struct ob_raw_region access;
        uint16_t value;
    } OB_RAW_PACKED request = { { COMMAND, VFIO_PCI_CONFIG_REGION_INDEX, 2 }, value(j, n) };

    return ob_raw_build(to, id, OB_RAW_REGION_WRITE, flags, &request, sizeof(request));
}

size_t scratch_read(void *to, uint16_t id)
{
    const struct ob_raw_region request = { COMMAND, VFIO_PCI_CONFIG_REGION_INDEX, 2 };

    return ob_raw_build(to, id, OB_RAW_REGION_READ, 0, &request, sizeof(request));
}

static void compare(struct judge *j, uint32_t is, unsigned n, const char *what)
{
    want(j, (is & j->scratch) == value(j, n), "%s: COMMAND is %#x, wanted %#x (of the bits %#x)", what, is, value(j, n),
         j->scratch);
}

void want_scratch_reply(struct judge *j, uint16_t id, unsigned n, const char *what)
{
    struct ob_raw_message *reply = NULL;
    uint32_t is;

    want_ok(j, ob_raw_reply(&j->raw, id, OB_RAW_REGION_READ, &reply), what);
    is = reply->size >= 18 ? (uint32_t)reply->payload[16] | (uint32_t)reply->payload[17] << 8 : UINT32_MAX;
    ob_raw_message_free(reply);
    want(j, is != UINT32_MAX, "%s: the reply to a read of 2 bytes has less than 18 bytes of payload", what);
    compare(j, is, n, what);
}

void scratch_set(struct judge *j, unsigned n)
{
    config_write(j, COMMAND, 2, value(j, n));
}

void want_scratch(struct judge *j, unsigned n, const char *what)
{
    compare(j, config_read(j, COMMAND, 2), n, what);
}
