/* migration_ends.c: VU-MIG: streams that are not whole, ERROR, clients that go, and resets. */
#include "migrate.h"

/* --- Streams that are not whole ---------------------------------------------------------------------------------- */

/* The device's own stream, which has bytes to leave out; the device is in STOP. */
static struct stream save_some(struct judge *j)
{
    const struct stream own = stream_save(j);

    if (own.size < 2)
        judge_skip(j, "the device's stream has %zu bytes", own.size);
    return own;
}

/* Whatever happened, after a reset the device's registers are as after the one at the start. */
static void recover(struct judge *j, const struct image *found)
{
    if (!device_rescue(j))
        return; /* what comes next finds a new process */
    want_registers(j, found, "after a reset in the end");
    device_end(j, found);
}

/* All but the last `missing` bytes of the device's own stream are written; 0: the first half. */
static void not_whole(struct judge *j, size_t missing, uint32_t to)
{
    const struct image found = device_begin(j);
    struct stream part = save_some(j);
    const size_t whole = part.size;
    char what[96];
    int r;

    part.size = missing == 0 ? whole / 2 : missing > whole ? 0 : whole - missing;
    state_go(j, RESUMING);
    r = stream_write(j, UINT32_MAX, &part);
    if (r == 0) {
        snprintf(what, sizeof(what), "RESUMING to %s with %zu of %zu bytes of the stream", state_name(to), part.size,
                 whole);
        want_refused(j, state_set(j, to), what);
    }
    want_refused_stream(j, &found, "a stream that is not whole");
    recover(j, &found);
}

static void check_empty(struct judge *j)
{
    not_whole(j, SIZE_MAX, STOP);
}

static void check_half(struct judge *j)
{
    not_whole(j, 0, STOP);
}

static void check_last_byte(struct judge *j)
{
    not_whole(j, 1, STOP);
}

static void check_half_running(struct judge *j)
{
    not_whole(j, 0, RUNNING);
}

static void check_half_stop_copy(struct judge *j)
{
    not_whole(j, 0, STOP_COPY);
}

static void check_half_pre_copy(struct judge *j)
{
    not_whole(j, 0, PRE_COPY);
}

/* --- Failures, and ERROR ----------------------------------------------------------------------------------------- */

static void check_failed_named(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct stream own = save_some(j), half = stream_head(&own, own.size / 2);
    uint32_t state;

    (void)state_set(j, ERROR);
    state = state_get(j);
    want(j, state < STATES, "after a SET of ERROR the state is %u, which is none", state);
    if (state != STOP)
        judge_skip(j, "a SET of ERROR leads from STOP to %s", state_name(state));
    state_go(j, RESUMING);
    if (stream_write(j, UINT32_MAX, &half) == 0)
        (void)state_set(j, STOP);
    state = state_get(j);
    want(j, state < STATES, "after RESUMING to STOP with half a stream the state is %u, which is none", state);
    recover(j, &found);
}

/* Brings the device into ERROR, if a stream that is not whole does. */
static struct image enter_error(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct stream own = save_some(j), half = stream_head(&own, own.size / 2);

    state_go(j, RESUMING);
    if (stream_write(j, UINT32_MAX, &half) == 0)
        (void)state_set(j, STOP);
    if (state_get(j) != ERROR) {
        recover(j, &found);
        judge_skip(j, "a stream that is not whole does not lead to ERROR here");
    }
    return found;
}

static void error_to(struct judge *j, uint32_t to)
{
    const struct image found = enter_error(j);
    char what[64];

    snprintf(what, sizeof(what), "ERROR to %s", state_name(to));
    want_refused(j, state_set(j, to), what);
    want_state(j, ERROR, what);
    recover(j, &found);
}

static void check_error_to_stop(struct judge *j)
{
    error_to(j, STOP);
}

static void check_error_to_running(struct judge *j)
{
    error_to(j, RUNNING);
}

static void check_error_to_stop_copy(struct judge *j)
{
    error_to(j, STOP_COPY);
}

static void check_error_to_resuming(struct judge *j)
{
    error_to(j, RESUMING);
}

static void check_error_to_pre_copy(struct judge *j)
{
    error_to(j, PRE_COPY);
}

static void check_error_to_error(struct judge *j)
{
    error_to(j, ERROR);
}

static void check_error_data(struct judge *j)
{
    const struct image found = enter_error(j);
    uint8_t *bytes, none = 0;
    uint32_t count;

    want_refused(j, data_read(j, 64, &bytes, &count), "MIG_DATA_READ in ERROR");
    want_refused(j, data_write(j, &none, 1), "MIG_DATA_WRITE in ERROR");
    recover(j, &found);
}

/* A device that was in ERROR is as good as any other. */
static void check_error_reset(struct judge *j)
{
    const struct image found = enter_error(j);
    struct stream own;

    reset(j);
    want_state(j, RUNNING, "after a reset in ERROR");
    own = stream_save(j);
    stream_load(j, &own);
    recover(j, &found);
}

/* --- States to disturb ------------------------------------------------------------------------------------------- */

/* Brings the device, which is in RUNNING, into the middle of a state. */
static void enter(struct judge *j, uint32_t state)
{
    struct stream read = { NULL, 0 };

    if (state == RESUMING) {
        const struct stream own = stream_save(j), half = stream_head(&own, own.size / 2);

        state_go(j, RESUMING);
        want_ok(j, stream_write(j, UINT32_MAX, &half), "MIG_DATA_WRITE of the first half of the stream");
        return;
    }
    if (state != PRE_COPY)
        state_go(j, STOP);
    if (state != STOP)
        state_go(j, state);
    if (state == STOP_COPY || state == PRE_COPY)
        stream_read_some(j, 16, &read);
}

static void want_no_session(struct judge *j, const char *when)
{
    uint8_t *bytes, none = 0;
    uint32_t count;
    char what[80];

    snprintf(what, sizeof(what), "MIG_DATA_READ %s", when);
    want_refused(j, data_read(j, 64, &bytes, &count), what);
    snprintf(what, sizeof(what), "MIG_DATA_WRITE %s", when);
    want_refused(j, data_write(j, &none, 1), what);
}

/* A whole stream can be read, and taken: nothing of one before is left. */
static void want_new_stream(struct judge *j, const char *when)
{
    const struct stream own = stream_save(j);

    state_go(j, RESUMING);
    want_ok(j, stream_write(j, UINT32_MAX, &own), when);
    want_ok(j, state_set(j, STOP), when);
}

/* --- Clients that go --------------------------------------------------------------------------------------------- */

static struct image gone(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);

    enter(j, state);
    judge_reconnect(j);
    return found;
}

static void disconnect(struct judge *j, uint32_t state)
{
    const struct image found = gone(j, state);
    const uint32_t is = state_get(j);

    want(j, is != PRE_COPY && is != PRE_COPY_P2P && is != STOP_COPY && is != RESUMING,
         "the client in %s is gone, and the next finds %s", state_name(state), state_name(is));
    recover(j, &found);
}

static void check_gone_stop_copy(struct judge *j)
{
    disconnect(j, STOP_COPY);
}

static void check_gone_resuming(struct judge *j)
{
    disconnect(j, RESUMING);
}

static void check_gone_pre_copy(struct judge *j)
{
    disconnect(j, PRE_COPY);
}

static void session_gone(struct judge *j, uint32_t state)
{
    const struct image found = gone(j, state);

    want_no_session(j, "of the next client");
    if (device_rescue(j))
        want_new_stream(j, "the next client's stream");
    recover(j, &found);
}

static void check_session_stop_copy(struct judge *j)
{
    session_gone(j, STOP_COPY);
}

static void check_session_resuming(struct judge *j)
{
    session_gone(j, RESUMING);
}

static void check_session_pre_copy(struct judge *j)
{
    session_gone(j, PRE_COPY);
}

/* --- Resets ------------------------------------------------------------------------------------------------------ */

static void reset_in(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);
    char what[64];

    enter(j, state);
    snprintf(what, sizeof(what), "after a reset in %s", state_name(state));
    reset(j);
    want_state(j, RUNNING, what);
    recover(j, &found);
}

/* The device runs, so its guest may want it. */
static void check_reset_running(struct judge *j)
{
    const struct image found = device_begin(j);
    uint32_t state;

    enter(j, PRE_COPY);
    reset(j);
    state = state_get(j);
    want(j, state == PRE_COPY || state == RUNNING, "after a reset in PRE_COPY the state is %u (%s)", state,
         state_name(state));
    recover(j, &found);
}

static void check_reset_stop(struct judge *j)
{
    reset_in(j, STOP);
}

static void check_reset_stop_copy(struct judge *j)
{
    reset_in(j, STOP_COPY);
}

static void check_reset_resuming(struct judge *j)
{
    reset_in(j, RESUMING);
}

static void check_reset_pre_copy(struct judge *j)
{
    reset_in(j, PRE_COPY);
}

static void check_reset_error(struct judge *j)
{
    const struct image found = enter_error(j);

    reset(j);
    want_state(j, RUNNING, "after a reset in ERROR");
    recover(j, &found);
}

static void reset_session(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);

    enter(j, state);
    reset(j);
    want_no_session(j, "after a reset");
    want_new_stream(j, "a stream after a reset");
    recover(j, &found);
}

static void check_reset_session_stop_copy(struct judge *j)
{
    reset_session(j, STOP_COPY);
}

static void check_reset_session_resuming(struct judge *j)
{
    reset_session(j, RESUMING);
}

static void check_reset_session_pre_copy(struct judge *j)
{
    reset_session(j, PRE_COPY);
}

/* clang-format off: a line or two for each check. */
#define M (NEED_MIGRATION | NEED_RESET)
#define P (NEED_MIGRATION | NEED_RESET | NEED_PRE_COPY)
#define N NEED_NEXT
const struct check server_migration_ends_checks[] = {
    { { "migration-failed-named", "VU-MIG-33", "after transitions that failed GET names a state" },
      M,
      check_failed_named },
    { { "migration-empty", "VU-MIG-34", "without a stream RESUMING is not left for STOP" }, M, check_empty },
    { { "migration-half", "VU-MIG-34", "with half a stream RESUMING is not left for STOP" }, M, check_half },
    { { "migration-last-byte", "VU-MIG-34", "without a stream's last byte RESUMING is not left for STOP" },
      M,
      check_last_byte },
    { { "migration-half-to-running", "VU-MIG-34", "with half a stream RESUMING is not left for RUNNING" },
      M,
      check_half_running },
    { { "migration-half-to-stop-copy", "VU-MIG-34", "with half a stream RESUMING is not left for STOP_COPY" },
      M,
      check_half_stop_copy },
    { { "migration-half-to-pre-copy", "VU-MIG-34", "with half a stream RESUMING is not left for PRE_COPY" },
      P,
      check_half_pre_copy },
    { { "migration-error-to-stop", "VU-MIG-30", "ERROR to STOP is refused" }, M, check_error_to_stop },
    { { "migration-error-to-running", "VU-MIG-30", "ERROR to RUNNING is refused" }, M, check_error_to_running },
    { { "migration-error-to-stop-copy", "VU-MIG-30", "ERROR to STOP_COPY is refused" }, M, check_error_to_stop_copy },
    { { "migration-error-to-resuming", "VU-MIG-30", "ERROR to RESUMING is refused" }, M, check_error_to_resuming },
    { { "migration-error-to-pre-copy", "VU-MIG-30", "ERROR to PRE_COPY is refused" }, P, check_error_to_pre_copy },
    { { "migration-error-to-error", "VU-MIG-29", "ERROR to ERROR is refused, too" }, M, check_error_to_error },
    { { "migration-error-data", "VU-DATA-4", "in ERROR neither read nor write of data succeeds" },
      M,
      check_error_data },
    { { "migration-error-reset", "VU-MIG-30", "a reset leads out of ERROR, to a device that migrates again" },
      M,
      check_error_reset },
    { { "migration-gone-stop-copy", "VU-MIG-38", "the next client does not find STOP_COPY" },
      M | N,
      check_gone_stop_copy },
    { { "migration-gone-resuming", "VU-MIG-38", "the next client does not find RESUMING" },
      M | N,
      check_gone_resuming },
    { { "migration-gone-pre-copy", "VU-MIG-38", "the next client does not find PRE_COPY" },
      P | N,
      check_gone_pre_copy },
    { { "migration-session-stop-copy", "VU-MIG-38", "the stream in STOP_COPY ends with its client" },
      M | N,
      check_session_stop_copy },
    { { "migration-session-resuming", "VU-MIG-38", "the stream in RESUMING ends with its client" },
      M | N,
      check_session_resuming },
    { { "migration-session-pre-copy", "VU-MIG-38", "the stream in PRE_COPY ends with its client" },
      P | N,
      check_session_pre_copy },
    { { "migration-reset-stop", "VU-RESET-8", "a reset leads from STOP to RUNNING" }, M, check_reset_stop },
    { { "migration-reset-stop-copy", "VU-RESET-8", "a reset leads from STOP_COPY to RUNNING" },
      M,
      check_reset_stop_copy },
    { { "migration-reset-resuming", "VU-RESET-8", "a reset leads from RESUMING to RUNNING" }, M, check_reset_resuming },
    { { "migration-reset-pre-copy", "VU-RESET-8", "a reset leads from PRE_COPY to RUNNING" }, P, check_reset_pre_copy },
    { { "migration-reset-running", "VU-RESET-12", "a reset in PRE_COPY is done, and the device runs on" },
      P,
      check_reset_running },
    { { "migration-reset-error", "VU-RESET-7", "a reset leads from ERROR to RUNNING" }, M, check_reset_error },
    { { "migration-reset-session-stop-copy", "VU-RESET-8", "a reset in STOP_COPY ends the stream" },
      M,
      check_reset_session_stop_copy },
    { { "migration-reset-session-resuming", "VU-RESET-8", "a reset in RESUMING ends the stream" },
      M,
      check_reset_session_resuming },
    { { "migration-reset-session-pre-copy", "VU-RESET-8", "a reset in PRE_COPY ends the stream" },
      P,
      check_reset_session_pre_copy },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
