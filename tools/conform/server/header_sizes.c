/* header_sizes.c: VU-HDR: payloads that are too short or too long, headers that announce nonsense. */
#include "check.h"

#include <sys/socket.h>

#include "../transcript.h"

static const uint32_t get_info[4] = { 16 };

/* Whether the server knows an optional command: one that it does not may refuse any form of it with any errno, and be
 * out of step then (VU-HDR-31). */
static bool knows(const struct judge *j, uint16_t command)
{
    bool io_fds = false;

    for (uint32_t i = 0; i < MAX_REGIONS; i++)
        io_fds |= j->facts.region[i].io_fds;
    switch (command) {
    case OB_RAW_GET_REGION_IO_FDS:
        return io_fds;
    case OB_RAW_WRITE_MULTI:
        return j->facts.multi;
    case OB_RAW_FEATURE:
        return j->facts.has & (NEED_MIGRATION | NEED_LOGGING);
    case OB_RAW_MIG_READ:
    case OB_RAW_MIG_WRITE:
        return j->facts.has & NEED_MIGRATION;
    default:
        return true;
    }
}

/* One check for each command, so that the report tells them apart. */
static void check_truncated(struct judge *j, uint16_t command, uint8_t fixed)
{
    const bool known = knows(j, command);
    uint8_t payload[32] = { fixed }; /* argsz, where there is one, is right */

    for (size_t size = 0; size < fixed; size++) {
        call_refused(j, command, payload, size, known ? EINVAL : 0);
        if (!known)
            judge_reconnect(j);
    }
    want_alive(j, "afterwards");
}

#define TRUNCATED(name, command, fixed)                 \
    static void check_truncated_##name(struct judge *j) \
    {                                                   \
        check_truncated(j, command, fixed);             \
    }
TRUNCATED(map, OB_RAW_DMA_MAP, 32)
TRUNCATED(unmap, OB_RAW_DMA_UNMAP, 24)
TRUNCATED(info, OB_RAW_GET_INFO, 16)
TRUNCATED(region_info, OB_RAW_GET_REGION_INFO, 32)
TRUNCATED(io_fds, OB_RAW_GET_REGION_IO_FDS, 16)
TRUNCATED(irq_info, OB_RAW_GET_IRQ_INFO, 16)
TRUNCATED(set_irqs, OB_RAW_SET_IRQS, 20)
TRUNCATED(read, OB_RAW_REGION_READ, 16)
TRUNCATED(write, OB_RAW_REGION_WRITE, 16)
TRUNCATED(multi, OB_RAW_WRITE_MULTI, 8)
TRUNCATED(feature, OB_RAW_FEATURE, 8)
TRUNCATED(data_read, OB_RAW_MIG_READ, 8)
TRUNCATED(data_write, OB_RAW_MIG_WRITE, 8)

/* A VERSION that is wrong may end the connection as well (VU-VER-11). */
static void check_truncated_version(struct judge *j)
{
    for (size_t size = 0; size < sizeof(struct ob_raw_version); size++) {
        judge_reconnect_bare(j);

        int r = call(j, OB_RAW_VERSION, "\0\0\0", size, NULL, 0, NULL);

        want(j, r == -ENOTCONN || r > 0, "VERSION with %zu bytes of payload succeeded, wanted to be refused", size);
    }
    judge_reconnect(j);
}

static void check_longer(struct judge *j)
{
    struct {
        struct ob_raw_dma_map map;
        uint8_t more[8];
    } longer = { { 32, 3, 0, 0x10000000, j->facts.page }, { 0 } };
    const struct ob_raw_region read[2] = { { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 }, { 0, 0, 0 } };

    call_refused(j, OB_RAW_DMA_MAP, &longer, sizeof(longer), EINVAL);
    call_refused(j, OB_RAW_DMA_MAP, &longer, sizeof(longer.map) + 1, EINVAL);
    call_refused(j, OB_RAW_REGION_READ, read, sizeof(read), EINVAL);
    call_refused(j, OB_RAW_RESET, read, 4, EINVAL);
}

static const uint32_t small[] = { 0, 1, 8, 15 };

/* DEVICE_RESET is the command that has no payload. */
static void check_framing(struct judge *j)
{
    static const uint16_t commands[] = { OB_RAW_GET_INFO, OB_RAW_RESET };
    char what[64];

    for (size_t i = 0; i < 2 * sizeof(small) / sizeof(*small); i++) {
        send_with_header(j, (struct ob_raw_header){ 3, commands[i % 2], small[i / 2], 0, 0 }, NULL, 0);
        snprintf(what, sizeof(what), "a header of size %u, of %s", small[i / 2], command_name(commands[i % 2]));
        want_refused_or_closed(j, ob_raw_reply(&j->raw, 3, commands[i % 2], NULL), what);
        judge_reconnect(j);
    }
}

static void check_framing_ends(struct judge *j)
{
    for (size_t i = 0; i < sizeof(small) / sizeof(*small); i++) {
        unsigned answers = 0;

        send_with_header(j, (struct ob_raw_header){ 3, OB_RAW_GET_INFO, small[i], 0, 0 }, NULL, 0);
        got(j, ob_raw_wait_closed(&j->raw, &answers), "after a header of a size below 16");
        want(j, answers <= 1, "%u answers to a header of size %u", answers, small[i]);
        judge_reconnect(j);
    }
}

static void check_framing_answers(struct judge *j)
{
    const struct ob_raw_header bad = { 3, OB_RAW_GET_INFO, 0, 0, 0 };
    uint8_t bytes[2 * 32 + 16];

    ob_raw_build(bytes, 1, OB_RAW_GET_INFO, 0, get_info, 16);
    ob_raw_build(bytes + 32, 2, OB_RAW_GET_INFO, 0, get_info, 16);
    memcpy(bytes + 64, &bad, sizeof(bad));
    send_bytes(j, bytes, sizeof(bytes), NULL, 0);
    want_ok(j, ob_raw_reply(&j->raw, 1, OB_RAW_GET_INFO, NULL), "the first command before a header of size 0");
    want_ok(j, ob_raw_reply(&j->raw, 2, OB_RAW_GET_INFO, NULL), "the second command before a header of size 0");
}

/* The beginning of a REGION_WRITE that announces so much. */
static void announce(struct judge *j, uint32_t size)
{
    const struct ob_raw_region access = { 0, VFIO_PCI_CONFIG_REGION_INDEX, size - 32 };

    send_with_header(j, (struct ob_raw_header){ 3, OB_RAW_REGION_WRITE, size, 0, 0 }, &access, sizeof(access));
    wait_taken(j);
}

/* The announced bytes never come. A server may refuse, end the connection, or wait for them until the client ends it.
 */
static void check_huge(struct judge *j)
{
    static const uint32_t sizes[] = { 64u << 20, 0x7fffffff, 0x80000000, 0xffffffff };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        if (sizes[i] <= j->facts.max_data + UINT64_C(4096))
            continue; /* it may take that much */
        announce(j, sizes[i]);
        want(j, shutdown(j->raw.fd, SHUT_WR) == 0 || errno == ENOTCONN, "the judge cannot end the connection");
        want_refused_or_closed(j, ob_raw_reply(&j->raw, 3, OB_RAW_REGION_WRITE, NULL),
                               "a header that announces too much, and the end of the connection");
        judge_reconnect(j);
    }
}

static void check_huge_memory(struct judge *j)
{
    long before, after;

    if (j->facts.max_data >= 0x3ffff000)
        judge_skip(j, "the server takes transfers of 1 GiB");
    before = server_memory(j);
    announce(j, 0x40000000);
    (void)server_rests(j, 1000); /* one that polls never does */
    after = server_memory(j);
    want(j, after - before < 65536, "the server's memory grew by %ld KiB after a header that announces 1 GiB",
         after - before);
}

static void check_drained(struct judge *j)
{
    const size_t size = (size_t)(j->facts.max_data < 4u << 20 ? j->facts.max_data : 4u << 20);
    struct ob_raw_region access = { 0, VFIO_PCI_CONFIG_REGION_INDEX, (uint32_t)(size + (1 << 20)) };
    uint8_t *payload = judge_alloc(j, sizeof(access) + access.count);

    memcpy(payload, &access, sizeof(access));
    call_refused(j, OB_RAW_REGION_WRITE, payload, sizeof(access) + access.count, 0);
    want_alive(j, "after a message that is too large");
}

const struct check server_header_sizes_checks[] = {
    { { "header-truncated-map", "VU-HDR-19", "every truncation of DMA_MAP fails with EINVAL" },
      0,
      check_truncated_map },
    { { "header-truncated-unmap", "VU-HDR-19", "every truncation of DMA_UNMAP fails with EINVAL" },
      0,
      check_truncated_unmap },
    { { "header-truncated-info", "VU-HDR-19", "every truncation of GET_INFO fails with EINVAL" },
      0,
      check_truncated_info },
    { { "header-truncated-region-info", "VU-HDR-19", "every truncation of GET_REGION_INFO fails with EINVAL" },
      0,
      check_truncated_region_info },
    { { "header-truncated-io-fds", "VU-HDR-19", "every truncation of GET_REGION_IO_FDS fails with EINVAL" },
      0,
      check_truncated_io_fds },
    { { "header-truncated-irq-info", "VU-HDR-19", "every truncation of GET_IRQ_INFO fails with EINVAL" },
      0,
      check_truncated_irq_info },
    { { "header-truncated-set-irqs", "VU-HDR-19", "every truncation of SET_IRQS fails with EINVAL" },
      0,
      check_truncated_set_irqs },
    { { "header-truncated-read", "VU-HDR-19", "every truncation of REGION_READ fails with EINVAL" },
      0,
      check_truncated_read },
    { { "header-truncated-write", "VU-HDR-19", "every truncation of REGION_WRITE fails with EINVAL" },
      0,
      check_truncated_write },
    { { "header-truncated-multi", "VU-HDR-19", "every truncation of REGION_WRITE_MULTI fails with EINVAL" },
      0,
      check_truncated_multi },
    { { "header-truncated-feature", "VU-HDR-19", "every truncation of DEVICE_FEATURE fails with EINVAL" },
      0,
      check_truncated_feature },
    { { "header-truncated-data-read", "VU-HDR-19", "every truncation of MIG_DATA_READ fails with EINVAL" },
      0,
      check_truncated_data_read },
    { { "header-truncated-data-write", "VU-HDR-19", "every truncation of MIG_DATA_WRITE fails with EINVAL" },
      0,
      check_truncated_data_write },
    { { "header-truncated-version", "VU-HDR-19", "no truncation of VERSION succeeds" },
      CHECK_UNCONNECTED,
      check_truncated_version },
    { { "header-longer", "VU-HDR-20", "a payload longer than its fields say fails with EINVAL" }, 0, check_longer },
    { { "header-framing-lost", "VU-HDR-21", "a size below 16 is refused, or ends the connection" }, 0, check_framing },
    { { "header-framing-ends", "VU-HDR-32", "it ends the connection" }, 0, check_framing_ends },
    { { "header-framing-answers", "VU-HDR-21", "commands before a size below 16 are answered" },
      0,
      check_framing_answers },
    { { "header-huge", "VU-HDR-22", "a header that announces up to 4 GiB does no harm" }, 0, check_huge },
    { { "header-huge-memory", "VU-HDR-22", "a header that announces 1 GiB takes no memory" },
      NEED_SPAWN,
      check_huge_memory },
    { { "header-drained", "VU-HDR-23", "a message that is too large is refused, discarded, and the session goes on" },
      0,
      check_drained },
    { { NULL, NULL, NULL }, 0, NULL },
};
