/* reset_migration.c: VU-RESET: a reset in each state of migration, and while DMA is logged. */
#include "irqs.h"

#define GET         VFIO_DEVICE_FEATURE_GET
#define SET         VFIO_DEVICE_FEATURE_SET
#define PRE_COPY    6u /* VFIO_DEVICE_STATE_PRE_COPY, which older headers lack */
#define AT          UINT64_C(0x100000)
#define PROT        3
#define BITMAP_ROOM 64

static const char *const states[] = { "ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY" };

static int feature(struct judge *j, uint32_t flags, const void *data, uint32_t size, uint32_t room,
                   struct ob_raw_message **reply)
{
    const uint32_t head[2] = { 8 + (size > room ? size : room), flags };
    uint8_t *payload = judge_alloc(j, sizeof(head) + size);

    memcpy(payload, head, sizeof(head));
    if (size > 0)
        memcpy(payload + sizeof(head), data, size);
    return call(j, OB_RAW_FEATURE, payload, sizeof(head) + size, NULL, 0, reply);
}

/* --- States ------------------------------------------------------------------------------------------------------ */

static int set_state(struct judge *j, uint32_t state)
{
    const uint32_t data[2] = { state, 0xffffffff };

    return feature(j, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | SET, data, sizeof(data), sizeof(data), NULL);
}

static uint32_t state_of(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, feature(j, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | GET, NULL, 0, 8, &m), "GET of MIG_DEVICE_STATE");
    return field32(j, m, 8);
}

static void enter(struct judge *j, uint32_t state)
{
    char what[64];

    reset(j);
    snprintf(what, sizeof(what), "SET of MIG_DEVICE_STATE to %s", states[state]);
    want_ok(j, set_state(j, state), what);
}

static void want_running(struct judge *j, uint32_t before)
{
    uint32_t state;

    reset(j);
    state = state_of(j);
    want(j, state == VFIO_DEVICE_STATE_RUNNING, "the state is %u after a reset in %s, wanted RUNNING (2)", state,
         states[before]);
}

static void from(struct judge *j, uint32_t state)
{
    enter(j, state);
    want_running(j, state);
}

static void reset_stop(struct judge *j)
{
    from(j, VFIO_DEVICE_STATE_STOP);
}

static void reset_stop_copy(struct judge *j)
{
    from(j, VFIO_DEVICE_STATE_STOP_COPY);
}

static void reset_resuming(struct judge *j)
{
    from(j, VFIO_DEVICE_STATE_RESUMING);
}

static void reset_pre_copy(struct judge *j)
{
    from(j, PRE_COPY);
}

static int write_stream(struct judge *j, const void *data, uint32_t size)
{
    const struct ob_raw_mig_data head = { 8 + size, size };
    uint8_t *payload = judge_alloc(j, sizeof(head) + size);

    memcpy(payload, &head, sizeof(head));
    memcpy(payload + sizeof(head), data, size);
    return call(j, OB_RAW_MIG_WRITE, payload, sizeof(head) + size, NULL, 0, NULL);
}

static int read_stream(struct judge *j, uint32_t size)
{
    const struct ob_raw_mig_data request = { 8 + size, size };

    return call(j, OB_RAW_MIG_READ, &request, sizeof(request), NULL, 0, NULL);
}

/* A stream that is none leads to ERROR, or is refused before. */
static void reset_error(struct judge *j)
{
    static const char nonsense[64] = "this is no device's state";

    enter(j, VFIO_DEVICE_STATE_RESUMING);
    write_stream(j, nonsense, sizeof(nonsense));
    set_state(j, VFIO_DEVICE_STATE_STOP);
    if (state_of(j) != VFIO_DEVICE_STATE_ERROR)
        judge_skip(j, "a stream that makes no sense does not lead to ERROR");
    want_running(j, VFIO_DEVICE_STATE_ERROR);
}

static void reset_runs(struct judge *j)
{
    const uint32_t index = device_irq(j);
    const int fd = irqs_ready(j, index)[0];

    want_ok(j, set_state(j, VFIO_DEVICE_STATE_STOP), "SET of MIG_DEVICE_STATE to STOP");
    irqs_on(j, index);
    device_raise(j, index, 0);
    want_one(j, fd, "the device raised an interrupt after a reset in STOP");
    device_lower(j, index, 0);
}

static void reset_saving(struct judge *j)
{
    enter(j, VFIO_DEVICE_STATE_STOP_COPY);
    want_ok(j, read_stream(j, 16), "MIG_DATA_READ in STOP_COPY");
    reset(j);
    want_refused(j, read_stream(j, 16), "MIG_DATA_READ after a reset in STOP_COPY");
}

static void reset_loading(struct judge *j)
{
    static const char bytes[16];

    enter(j, VFIO_DEVICE_STATE_RESUMING);
    reset(j);
    want_refused(j, write_stream(j, bytes, sizeof(bytes)), "MIG_DATA_WRITE after a reset in RESUMING");
}

/* --- Logging ----------------------------------------------------------------------------------------------------- */

static void log_start(struct judge *j)
{
    const struct {
        uint64_t page_size;
        uint32_t num_ranges, reserved;
    } start = { j->facts.page, 0, 0 };

    want_ok(j, feature(j, VFIO_DEVICE_FEATURE_DMA_LOGGING_START | SET, &start, sizeof(start), sizeof(start), NULL),
            "DMA_LOGGING_START");
}

/* Bit n: page n from AT was written. */
static uint64_t log_report(struct judge *j, const char *what)
{
    const uint64_t report[3] = { AT, 4 * j->facts.page, j->facts.page };
    struct ob_raw_message *m;

    want_ok(j,
            feature(j, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | GET, report, sizeof(report),
                    sizeof(report) + BITMAP_ROOM, &m),
            what);
    return field64(j, m, 8 + sizeof(report));
}

static void log_stop(struct judge *j)
{
    want_ok(j, feature(j, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP | SET, NULL, 0, 0, NULL), "DMA_LOGGING_STOP");
}

static void reset_logging(struct judge *j)
{
    want_ok(j, map(j, AT, 4 * j->facts.page, PROT, judge_memfd(j, 4 * j->facts.page), 0), "DMA_MAP");
    log_start(j);
    reset(j);
    log_report(j, "DMA_LOGGING_REPORT after a reset");
    log_stop(j);
}

static void reset_logging_writes(struct judge *j)
{
    const uint64_t page = j->facts.page;
    const int fd = judge_memfd(j, 4 * page);
    uint64_t dirty;

    device_on(j, true);
    want_ok(j, map(j, AT, 4 * page, PROT, fd, 0), "DMA_MAP");
    log_start(j);
    want(j, device_copy(j, AT, AT + page, 16) == 0, "the device failed to copy");
    device_on(j, true);
    want(j, device_copy(j, AT, AT + 3 * page, 16) == 0, "the device failed to copy after a reset");
    dirty = log_report(j, "DMA_LOGGING_REPORT after a reset");
    log_stop(j);
    want(j, dirty & 2, "page 1, written before a reset, is missing in the report %#llx", (unsigned long long)dirty);
    want(j, dirty & 8, "page 3, written after a reset, is missing in the report %#llx", (unsigned long long)dirty);
}

const struct check server_reset_migration_checks[] = {
    { { "reset-stop", "VU-RESET-7", "a reset in STOP leads to RUNNING" }, NEED_RESET | NEED_MIGRATION, reset_stop },
    { { "reset-stop-copy", "VU-RESET-7", "a reset in STOP_COPY leads to RUNNING" },
      NEED_RESET | NEED_MIGRATION,
      reset_stop_copy },
    { { "reset-resuming", "VU-RESET-7", "a reset in RESUMING leads to RUNNING" },
      NEED_RESET | NEED_MIGRATION,
      reset_resuming },
    { { "reset-pre-copy", "VU-RESET-7", "a reset in PRE_COPY leads to RUNNING" },
      NEED_RESET | NEED_MIGRATION | NEED_PRE_COPY,
      reset_pre_copy },
    { { "reset-error", "VU-RESET-7", "a reset in ERROR leads to RUNNING" }, NEED_RESET | NEED_MIGRATION, reset_error },
    { { "reset-runs", "VU-RESET-7", "the device interrupts after a reset in STOP" },
      NEED_RESET | NEED_MIGRATION | NEED_INTERRUPT,
      reset_runs },
    { { "reset-saving", "VU-RESET-8", "a reset in STOP_COPY ends the stream" },
      NEED_RESET | NEED_MIGRATION,
      reset_saving },
    { { "reset-loading", "VU-RESET-8", "a reset in RESUMING ends the stream" },
      NEED_RESET | NEED_MIGRATION,
      reset_loading },
    { { "reset-logging", "VU-RESET-9", "DMA can be reported after a reset" },
      NEED_RESET | NEED_LOGGING,
      reset_logging },
    { { "reset-logging-writes", "VU-RESET-9", "writes before and after a reset are reported" },
      NEED_RESET | NEED_LOGGING | NEED_DMA,
      reset_logging_writes },
    { { NULL, NULL, NULL }, 0, NULL },
};
