/* reset_migration.c: VU-RESET: a reset while the device is migrated: in STOP, and while DMA is logged. What becomes of
 * the state and of streams is in migration_ends.c. */
#include "irqs.h"
#include "migrate.h"

#define AT          UINT64_C(0x100000)
#define PROT        3
#define BITMAP_ROOM 64

static void reset_runs(struct judge *j)
{
    const uint32_t index = device_irq(j);
    const int fd = irqs_ready(j, index)[0];

    want_ok(j, state_set(j, STOP), "SET of MIG_DEVICE_STATE to STOP");
    irqs_on(j, index);
    device_raise(j, index, 0);
    want_one(j, fd, "the device raised an interrupt after a reset in STOP");
    device_lower(j, index, 0);
}

/* --- Logging ----------------------------------------------------------------------------------------------------- */

static void log_start(struct judge *j)
{
    const struct {
        uint64_t page_size;
        uint32_t num_ranges, reserved;
    } start = { j->facts.page, 0, 0 };

    want_ok(j, feature(j, FEATURE_SET | LOG_START, 8 + sizeof(start), &start, sizeof(start), NULL),
            "DMA_LOGGING_START");
}

/* Bit n: page n from AT was written. */
static uint64_t log_report(struct judge *j, const char *what)
{
    const uint64_t report[3] = { AT, 4 * j->facts.page, j->facts.page };
    struct ob_raw_message *m;

    want_ok(j, feature(j, FEATURE_GET | LOG_REPORT, 8 + sizeof(report) + BITMAP_ROOM, report, sizeof(report), &m),
            what);
    return field64(j, m, 8 + sizeof(report));
}

static void log_stop(struct judge *j)
{
    want_ok(j, feature(j, FEATURE_SET | LOG_STOP, 8, NULL, 0, NULL), "DMA_LOGGING_STOP");
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
    { { "reset-runs", "VU-RESET-7", "the device interrupts after a reset in STOP" },
      NEED_RESET | NEED_MIGRATION | NEED_INTERRUPT,
      reset_runs },
    { { "reset-logging", "VU-RESET-9", "DMA can be reported after a reset" },
      NEED_RESET | NEED_LOGGING,
      reset_logging },
    { { "reset-logging-writes", "VU-RESET-9", "writes before and after a reset are reported" },
      NEED_RESET | NEED_LOGGING | NEED_DMA,
      reset_logging_writes },
    { { NULL, NULL, NULL }, 0, NULL },
};
