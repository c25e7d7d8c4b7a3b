/* header_skips.c: VU-HDR-31: what lies in a message, by its size, is not taken for messages of its own.
 *
 * The payloads are made of commands GET_INFO with an id of their own, behind the fields that a message should have: one
 * that is answered shows that the server has not skipped them. */
#include "check.h"

#include "../transcript.h"

enum { ITSELF = 1, INSIDE = 0x6d6b, BEHIND = 2 }; /* ids */

#define GET_INFO_SIZE 32u

static void build_get_info(uint8_t *to, uint16_t id)
{
    const uint32_t get_info[4] = { 16 };

    ob_raw_build(to, id, OB_RAW_GET_INFO, 0, get_info, sizeof(get_info));
}

/* A message with `fields` and `inside` commands behind them, and a command behind that. The connection ends, or the
 * last is answered, and nothing in between; then there is another connection. */
static void skips(struct judge *j, uint16_t command, uint32_t flags, const void *fields, size_t size, unsigned inside)
{
    const struct ob_raw_header header = { ITSELF, command, (uint32_t)(16 + size + inside * GET_INFO_SIZE), flags, 0 };
    uint8_t *bytes = judge_alloc(j, header.size + GET_INFO_SIZE), *at = bytes + 16;
    struct ob_raw_message *m;
    char what[120];
    int r;

    memcpy(bytes, &header, sizeof(header));
    if (size > 0)
        memcpy(at, fields, size);
    at += size;
    for (unsigned i = 0; i < inside; i++, at += GET_INFO_SIZE)
        build_get_info(at, INSIDE);
    build_get_info(at, BEHIND);
    snprintf(what, sizeof(what), "GET_INFO behind %s of %u bytes, flags %#x", command_name(command), header.size,
             flags);
    r = ob_raw_send(&j->raw, bytes, header.size + GET_INFO_SIZE, NULL, 0);
    while (r == 0 && (r = ob_raw_receive(&j->raw, &m)) == 0) {
        judge_keep(j, m);
        want(j, m->header.id != INSIDE, "%s of %u bytes, flags %#x: what is behind its fields was taken for messages",
             command_name(command), header.size, flags);
        if (m->header.id == BEHIND && m->header.command == OB_RAW_GET_INFO)
            break;
        want(j, m->header.id == ITSELF && m->header.command == command, "%s: a reply to id %u, command %u comes first",
             what, m->header.id, m->header.command);
    }
    if (r != -ENOTCONN)
        got(j, r, what);
    judge_reconnect(j);
}

static void skips_unknown(struct judge *j)
{
    static const uint16_t unknown[] = { 0, 14, 19, 0x0104, 0xffff };

    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++)
        skips(j, unknown[i], 0, NULL, 0, 2);
}

/* Whether the server has them or not. None has this form. */
static void skips_optional(struct judge *j)
{
    const struct ob_raw_io_fds io_fds = { .argsz = 16 };
    const uint64_t none = 0;
    const uint32_t probe[2] = { 8, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | 0xfff0 };
    const struct ob_raw_mig_data data = { 16, 8 };

    skips(j, OB_RAW_GET_REGION_IO_FDS, 0, &io_fds, sizeof(io_fds), 2);
    skips(j, OB_RAW_WRITE_MULTI, 0, &none, sizeof(none), 2);
    skips(j, OB_RAW_FEATURE, 0, probe, sizeof(probe), 2);
    skips(j, OB_RAW_MIG_READ, 0, &data, sizeof(data), 2);
    skips(j, OB_RAW_MIG_WRITE, 0, &data, sizeof(data), 2);
}

static void skips_server_commands(struct judge *j)
{
    const struct ob_raw_dma dma = { 0x10000000, 2 * GET_INFO_SIZE };

    skips(j, OB_RAW_DMA_READ, 0, &dma, sizeof(dma), 2);
    skips(j, OB_RAW_DMA_WRITE, 0, &dma, sizeof(dma), 2);
}

/* As long as its count says. */
static void skips_no_region(struct judge *j)
{
    const struct ob_raw_region access = { 0, 0xffff, 2 * GET_INFO_SIZE };

    skips(j, OB_RAW_REGION_WRITE, 0, &access, sizeof(access), 2);
    skips(j, OB_RAW_REGION_WRITE, OB_RAW_NO_REPLY, &access, sizeof(access), 2);
}

/* More than their fields say. */
static void skips_longer(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, 0x10000000, j->facts.page };
    const struct ob_raw_dma_unmap unmap = { 24, 0, 0x20000000, j->facts.page };
    const uint32_t get_info[4] = { 16 };
    const struct vfio_region_info region = { .argsz = 32 };
    const struct vfio_irq_info irq = { .argsz = 16 };
    const struct vfio_irq_set set = { .argsz = 20, .index = 0xffff };
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 };

    skips(j, OB_RAW_DMA_MAP, 0, &map, sizeof(map), 2);
    skips(j, OB_RAW_DMA_UNMAP, 0, &unmap, sizeof(unmap), 2);
    skips(j, OB_RAW_GET_INFO, 0, get_info, sizeof(get_info), 2);
    skips(j, OB_RAW_GET_REGION_INFO, 0, &region, 32, 2);
    skips(j, OB_RAW_GET_IRQ_INFO, 0, &irq, 16, 2);
    skips(j, OB_RAW_SET_IRQS, 0, &set, sizeof(set), 2);
    skips(j, OB_RAW_REGION_READ, 0, &read, sizeof(read), 2);
    if (j->facts.has & NEED_RESET)
        skips(j, OB_RAW_RESET, 0, NULL, 0, 2);
}

/* A reply to nothing, and what is neither command nor reply. */
static void skips_types(struct judge *j)
{
    for (uint32_t type = OB_RAW_REPLY; type <= 15; type++)
        skips(j, 14, type, NULL, 0, 2);
}

/* Larger than the server takes, and larger than what has come when it begins to read. */
static void skips_large(struct judge *j)
{
    const uint32_t size = (j->facts.max_data < 4u << 20 ? j->facts.max_data : 4u << 20) + (1u << 20);
    const struct ob_raw_region access = { 0, VFIO_PCI_CONFIG_REGION_INDEX, size };

    skips(j, OB_RAW_REGION_WRITE, 0, &access, sizeof(access), size / GET_INFO_SIZE);
}

const struct check server_header_skips_checks[] = {
    { { "header-skips-unknown", "VU-HDR-31", "the payload of an unknown command is skipped" }, 0, skips_unknown },
    { { "header-skips-optional", "VU-HDR-31", "so is that of an optional command, known or not" }, 0, skips_optional },
    { { "header-skips-server", "VU-HDR-31", "and of DMA_READ and DMA_WRITE from a client" }, 0, skips_server_commands },
    { { "header-skips-no-region", "VU-HDR-31", "the data of a REGION_WRITE to no region is skipped" },
      0,
      skips_no_region },
    { { "header-skips-longer", "VU-HDR-31", "what a command has behind its fields is skipped" }, 0, skips_longer },
    { { "header-skips-types", "VU-HDR-31", "the payload of what is no command is skipped" }, 0, skips_types },
    { { "header-skips-large", "VU-HDR-31", "a message that is too large is skipped, or ends the connection" },
      0,
      skips_large },
    { { NULL, NULL, NULL }, 0, NULL },
};
