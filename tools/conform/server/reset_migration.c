/* reset_migration.c: VU-RESET: a reset while the device is migrated: in STOP, and while DMA is logged. What becomes of
 * the state and of streams is in migration_ends.c. */
#include "irqs.h"
#include "log.h"
#include "migrate.h"

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

static void reset_logging(struct judge *j)
{
    const struct log_range range = { GUEST_TO, j->facts.page };

    want_ok(j, map(j, range.iova, range.length, GUEST_BOTH, judge_memfd(j, range.length), 0), "DMA_MAP");
    log_start(j, j->facts.page, NULL, 0);
    reset(j);
    log_report(j, range, j->facts.page);
    want_ok(j, log_stop(j), "DMA_LOGGING_STOP after a reset");
}

static void reset_logging_writes(struct judge *j)
{
    struct log l = log_begin(j, true);

    log_write(j, &l, 1, 0, GUEST_LEN);
    device_on(j, true);
    log_write(j, &l, 3, 0, GUEST_LEN);
    log_want(j, &l, log_bit(1) | log_bit(3), "after writes to page 1, a reset and writes to page 3");
}

const struct check server_reset_migration_checks[] = {
    { { "reset-runs", "VU-RESET-8", "the device interrupts after a reset in STOP" },
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
