/* header_errors.c: VU-HDR: what error replies look like, of every command that can be made to fail. */
#include "migrate.h"

#include "../transcript.h"

#define BASE    0x10000000ull
#define NOWHERE 0xffffu /* no device has so many regions or interrupt types */

/* --- Commands that should fail ----------------------------------------------------------------------------------- */

/* They are whole, so that a server that does not look at a message's size answers them, too. */
struct failing {
    uint16_t command;
    uint8_t size;
    uint8_t payload[40];
};

#define MOST 16u

struct list {
    unsigned count;
    struct failing commands[MOST];
};

static void add(struct list *list, uint16_t command, const void *payload, size_t size)
{
    struct failing *f = &list->commands[list->count++];

    f->command = command;
    f->size = (uint8_t)size;
    if (size > 0)
        memcpy(f->payload, payload, size);
}

static void failing_map(struct judge *j, struct list *list)
{
    const uint64_t page = j->facts.page;
    const struct ob_raw_dma_map maps[] = {
        { 32, 3, 0, BASE, 2 * page },           { 32, 3, 0, BASE, page }, /* over the one before */
        { 32, 3, 0, BASE + 4 * page, 0 },       { 0, 3, 0, BASE + 4 * page, page },
        { 32, 0x80, 0, BASE + 4 * page, page }, { 32, 3, 0, -page, 2 * page }
    };
    const struct ob_raw_dma_unmap unmaps[] = { { 24, 0, BASE + 64 * page, page }, { 0, 0, BASE, 2 * page } };

    for (size_t i = 0; i < sizeof(maps) / sizeof(*maps); i++)
        add(list, OB_RAW_DMA_MAP, &maps[i], sizeof(maps[i]));
    for (size_t i = 0; i < sizeof(unmaps) / sizeof(*unmaps); i++)
        add(list, OB_RAW_DMA_UNMAP, &unmaps[i], sizeof(unmaps[i]));
}

static void failing_info(struct judge *j, struct list *list)
{
    const uint32_t info[4] = { 0 };
    const struct vfio_region_info regions[] = { { .argsz = 32, .index = NOWHERE }, { .argsz = 0 } };
    const struct vfio_irq_info irqs[] = { { .argsz = 16, .index = NOWHERE }, { .argsz = 0 } };
    const struct ob_raw_io_fds io_fds[] = { { .argsz = 16, .index = NOWHERE }, { .argsz = 0 } };

    (void)j;
    add(list, OB_RAW_GET_INFO, info, sizeof(info));
    for (size_t i = 0; i < 2; i++) {
        add(list, OB_RAW_GET_REGION_INFO, &regions[i], 32);
        add(list, OB_RAW_GET_IRQ_INFO, &irqs[i], 16);
        add(list, OB_RAW_GET_REGION_IO_FDS, &io_fds[i], sizeof(io_fds[i]));
    }
}

static void failing_irqs(struct judge *j, struct list *list)
{
    const struct vfio_irq_set sets[] = {
        { .argsz = 20, .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, .index = NOWHERE, .count = 1 },
        { .argsz = 20, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .start = NOWHERE, .count = 2 },
        { .argsz = 20, .flags = 0, .count = 1 },
        { .argsz = 0, .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK, .count = 1 },
    };

    (void)j;
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++)
        add(list, OB_RAW_SET_IRQS, &sets[i], sizeof(sets[i]));
}

/* Of no region, and behind the ends of some. */
static void failing_access(struct judge *j, struct list *list, uint16_t command, size_t size)
{
    struct {
        struct ob_raw_region access;
        uint32_t data;
    } request = { { 0, NOWHERE, 4 }, 0 };

    add(list, command, &request, size);
    for (uint32_t i = 0; i < j->facts.regions && i < VFIO_PCI_NUM_REGIONS; i++) {
        if (j->facts.region[i].size == 0)
            continue;
        request.access = (struct ob_raw_region){ j->facts.region[i].size, i, 4 };
        add(list, command, &request, size);
    }
}

static void failing_read(struct judge *j, struct list *list)
{
    failing_access(j, list, OB_RAW_REGION_READ, sizeof(struct ob_raw_region));
}

/* The ids in configuration space are written as they are: some refuse that. */
static void failing_write(struct judge *j, struct list *list)
{
    const struct {
        struct ob_raw_region access;
        uint32_t data;
    } ids = { { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 }, config_read(j, 0, 4) };

    failing_access(j, list, OB_RAW_REGION_WRITE, sizeof(struct ob_raw_region) + 4);
    add(list, OB_RAW_REGION_WRITE, &ids, sizeof(ids.access) + 4);
}

static void failing_multi(struct judge *j, struct list *list)
{
    const struct {
        uint64_t count;
        struct ob_raw_one_write write;
    } OB_RAW_PACKED multi = { UINT64_MAX, { 0, NOWHERE, 4, { 0 } } };

    (void)j;
    add(list, OB_RAW_WRITE_MULTI, &multi, sizeof(multi));
}

/* A state that is none, a report without a start, and features that nobody has. */
static void failing_feature(struct judge *j, struct list *list)
{
    const uint32_t state[4] = { 16, FEATURE_SET | DEVICE_STATE, 99 };
    const uint32_t get[2] = { 64, FEATURE_GET | 0xfff0 }, set[2] = { 8, FEATURE_SET | 0xfff0 };
    const uint32_t probe[2] = { 8, FEATURE_PROBE | FEATURE_GET | 0xfff0 }, none[2] = { 8, MIGRATION };
    const struct {
        uint32_t argsz, flags;
        uint64_t iova, length, page;
    } report = { 40, FEATURE_GET | LOG_REPORT, BASE, j->facts.page, 4096 };

    add(list, OB_RAW_FEATURE, state, sizeof(state));
    add(list, OB_RAW_FEATURE, get, sizeof(get));
    add(list, OB_RAW_FEATURE, set, sizeof(set));
    add(list, OB_RAW_FEATURE, probe, sizeof(probe));
    add(list, OB_RAW_FEATURE, none, sizeof(none));
    add(list, OB_RAW_FEATURE, &report, sizeof(report));
}

/* The device is in RUNNING. */
static void failing_data(struct judge *j, struct list *list)
{
    const struct ob_raw_mig_data read = { 16, 8 };
    const struct {
        struct ob_raw_mig_data head;
        uint64_t data;
    } write = { { 16, 8 }, 0 };

    (void)j;
    add(list, OB_RAW_MIG_READ, &read, sizeof(read));
    add(list, OB_RAW_MIG_WRITE, &write, sizeof(write));
}

static void failing_unknown(struct judge *j, struct list *list)
{
    static const uint16_t unknown[] = { 0, 14, 19, 0x0104, 0xffff };
    const struct {
        struct ob_raw_dma dma;
        uint64_t data;
    } dma = { { BASE, 8 }, 0 };

    (void)j;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++)
        add(list, unknown[i], NULL, 0);
    add(list, OB_RAW_DMA_READ, &dma, sizeof(dma.dma));
    add(list, OB_RAW_DMA_WRITE, &dma, sizeof(dma));
}

/* Behind another. */
static void failing_version(struct judge *j, struct list *list)
{
    struct {
        struct ob_raw_version version;
        char text[20];
    } again = { { 0, 0 }, "{\"capabilities\":{}}" };

    (void)j;
    add(list, OB_RAW_VERSION, &again, sizeof(again));
    again.version.major = 1;
    add(list, OB_RAW_VERSION, &again, sizeof(again));
}

/* --- Their replies ----------------------------------------------------------------------------------------------- */

typedef void list_fn(struct judge *j, struct list *list);

/* Judges the refusals among the replies; whether all are refused is for others to judge. The payload of a command that
 * was may put the server out of step (VU-HDR-31). Returns how many there were. */
static unsigned judge_refusals(struct judge *j, list_fn *make, bool (*right)(const struct ob_raw_message *reply),
                               const char *wanted)
{
    struct list *list = judge_alloc(j, sizeof(*list));
    unsigned refusals = 0;

    make(j, list);
    for (unsigned i = 0; i < list->count; i++) {
        const struct failing *f = &list->commands[i];
        const struct ob_raw_message *reply;

        send_command(j, f->command, 0, f->payload, f->size);
        reply = receive(j, command_name(f->command));
        if (!(reply->header.flags & OB_RAW_ERROR))
            continue;
        refusals++;
        want(j, right(reply), "%s: an error reply of %u bytes with %u descriptors and error %u, wanted %s",
             command_name(f->command), reply->header.size, reply->nfds, reply->header.error, wanted);
        judge_reconnect(j);
    }
    return refusals;
}

static bool is_alone(const struct ob_raw_message *reply)
{
    return reply->header.size == 16 && reply->nfds == 0;
}

static void want_alone(struct judge *j, list_fn *make)
{
    if (judge_refusals(j, make, is_alone, "16 and none") == 0)
        judge_skip(j, "none of the commands was refused");
}

#define ALONE(name)                           \
    static void alone_##name(struct judge *j) \
    {                                         \
        want_alone(j, failing_##name);        \
    }
ALONE(map)
ALONE(info)
ALONE(irqs)
ALONE(read)
ALONE(write)
ALONE(multi)
ALONE(feature)
ALONE(data)
ALONE(unknown)
ALONE(version)

/* The first of its connection. */
static void alone_first(struct judge *j)
{
    static const uint8_t malformed[] = "\0\0\0\0{\"capabilities\":";
    struct ob_raw_message *reply;
    int r;

    send_command(j, OB_RAW_VERSION, 0, malformed, sizeof(malformed));
    r = ob_raw_receive(&j->raw, &reply);
    if (r == -ENOTCONN)
        judge_skip(j, "a malformed VERSION is not refused, it ends the connection");
    got(j, r, "a malformed VERSION");
    judge_keep(j, reply);
    if (!(reply->header.flags & OB_RAW_ERROR))
        judge_skip(j, "a malformed VERSION is not refused");
    want(j, is_alone(reply), "a malformed VERSION: an error reply of %u bytes with %u descriptors, wanted 16 and none",
         reply->header.size, reply->nfds);
}

static bool is_errno(const struct ob_raw_message *reply)
{
    return reply->header.error > 0 && reply->header.error < 4096;
}

static void check_errno(struct judge *j)
{
    static list_fn *const all[] = { failing_map,   failing_info,    failing_irqs, failing_read,    failing_write,
                                    failing_multi, failing_feature, failing_data, failing_unknown, failing_version };

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        judge_refusals(j, all[i], is_errno, "an errno of 1 to 4095");
}

#define CHECK(name, title, run)                              \
    {                                                        \
        { "header-error-" name, "VU-HDR-10", title }, 0, run \
    }

const struct check server_header_errors_checks[] = {
    CHECK("alone-map", "an error reply of DMA_MAP or DMA_UNMAP is a header alone", alone_map),
    CHECK("alone-info", "an error reply of a command for information is", alone_info),
    CHECK("alone-irqs", "an error reply of SET_IRQS is", alone_irqs),
    CHECK("alone-read", "an error reply of REGION_READ is", alone_read),
    CHECK("alone-write", "an error reply of REGION_WRITE is", alone_write),
    CHECK("alone-multi", "an error reply of REGION_WRITE_MULTI is", alone_multi),
    CHECK("alone-feature", "an error reply of DEVICE_FEATURE is", alone_feature),
    CHECK("alone-data", "an error reply of MIG_DATA_READ or MIG_DATA_WRITE is", alone_data),
    CHECK("alone-unknown", "an error reply of an unknown command, or one that only a server sends, is", alone_unknown),
    CHECK("alone-version", "an error reply of a second VERSION is", alone_version),
    { { "header-error-alone-first", "VU-HDR-10", "an error reply of a malformed VERSION is" },
      CHECK_BARE,
      alone_first },
    { { "header-errno", "VU-HDR-11", "the error of an error reply is an errno" }, 0, check_errno },
    { { NULL, NULL, NULL }, 0, NULL },
};
