/* judge.c: one check after the other: its connections, what it wants, how it ends. */
#include "judge.h"

#include <stdarg.h>
#include <sys/wait.h>

#include "../transcript.h"
#include "migrate.h"

const char judge_capabilities[] =
    "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\"pgsizes\":4096,"
    "\"write_multiple\":true}}";

/* --- Ends -------------------------------------------------------------------------------------------------------- */

void judge_fail(struct judge *j, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(j->text, sizeof(j->text), format, args);
    va_end(args);
    for (char *c = j->text; *c != '\0'; c++) /* a peer's bytes may be quoted */
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    j->verdict = FAILED;
    longjmp(j->out, 1);
}

void judge_advise(struct judge *j, const char *format, ...)
{
    va_list args;

    if (j->verdict == ADVISED)
        return; /* the first will do */
    va_start(args, format);
    vsnprintf(j->text, sizeof(j->text), format, args);
    va_end(args);
    j->verdict = ADVISED;
}

void judge_skip(struct judge *j, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(j->text, sizeof(j->text), format, args);
    va_end(args);
    j->verdict = SKIPPED;
    longjmp(j->out, 1);
}

void judge_may_close(struct judge *j)
{
    j->may_close = true;
}

/* --- Results ----------------------------------------------------------------------------------------------------- */

int got(struct judge *j, int result, const char *what)
{
    if (result == -ENOTCONN && j->may_close) {
        j->may_close = false;
        judge_reconnect(j);
        longjmp(j->out, 1);
    }
    if (result == -ENOTCONN) {
        j->target->broke_off = true;
        judge_fail(j, "%s: the connection was closed", what);
    }
    if (result == -ETIMEDOUT)
        judge_fail(j, "%s: no answer for %d ms", what, j->raw.timeout_ms);
    if (result < 0)
        judge_fail(j, "%s: %s", what, j->raw.why[0] != '\0' ? j->raw.why : strerror(-result));
    return result;
}

static const char *errno_text(int error)
{
    return error == OB_RAW_NO_ERRNO ? "no errno" : strerror(error);
}

void want_ok(struct judge *j, int result, const char *what)
{
    result = got(j, result, what);
    want(j, result == 0, "%s: refused (%s), wanted to succeed", what, errno_text(result));
}

void want_refused(struct judge *j, int result, const char *what)
{
    want(j, got(j, result, what) != 0, "%s: succeeded, wanted to be refused", what);
}

void want_error(struct judge *j, int result, int error, const char *what)
{
    result = got(j, result, what);
    want(j, result != 0, "%s: succeeded, wanted to be refused with error %d (%s)", what, error, strerror(error));
    if (result == error)
        return;
    want(j, error != EEXIST, "%s: refused with %d (%s), wanted error %d (%s)", what, result, errno_text(result), error,
         strerror(error));
    judge_advise(j, "%s: refused with %d (%s); error %d (%s) would tell why", what, result, errno_text(result), error,
                 strerror(error));
}

void want_no_more(struct judge *j, int result, const struct ob_raw_message *reply, uint32_t argsz, const char *what)
{
    if (got(j, result, what) != 0)
        want_error(j, result, EINVAL, what);
    else
        want(j, reply->size <= argsz, "%s: a payload of %u bytes, wanted at most %u or a refusal", what, reply->size,
             argsz);
}

void want_refused_or_closed(struct judge *j, int result, const char *what)
{
    if (result == -ENOTCONN) {
        judge_reconnect(j);
        return;
    }
    want_refused(j, result, what);
}

void want_closed(struct judge *j, const char *what)
{
    int r = ob_raw_wait_closed(&j->raw, NULL);

    want(j, r == 0, "%s: the connection was not closed: %s", what, r == -ETIMEDOUT ? "nothing happened" : j->raw.why);
}

void want_alive(struct judge *j, const char *what)
{
    uint32_t info[4] = { sizeof(info) };

    want_ok(j, call(j, OB_RAW_GET_INFO, info, sizeof(info), NULL, 0, NULL), what);
}

/* --- Connections ------------------------------------------------------------------------------------------------- */

static void use_connection(struct judge *j, struct ob_raw *raw, int fd)
{
    ob_raw_init(raw, fd);
    raw->timeout_ms = j->timeout_ms;
    raw->lenient = true; /* how error replies look is for the checks of VU-HDR to say */
    raw->trace = transcript_add;
    raw->trace_ctx = j->transcript;
}

struct ob_raw *judge_beside(struct judge *j)
{
    struct ob_raw *raw = judge_alloc(j, sizeof(*raw));
    int fd;

    if (j->target->once)
        judge_skip(j, "the server serves one client");
    fd = target_connect(j->target, 0);
    if (fd < 0)
        return NULL;
    use_connection(j, raw, fd);
    judge_held(j, HELD_CONNECTION)->memory = raw;
    return raw;
}

/* A server that finds its client gone while it answers may be stuck for good, which is for connection-next-unread to
 * say; one that does not close its end gets no more time than this. */
#define LEAVE_MS 250

void judge_close(struct judge *j)
{
    ob_raw_leave(&j->raw, LEAVE_MS);
}

void judge_abandon(struct judge *j)
{
    ob_raw_close(&j->raw);
}

void judge_reconnect_bare(struct judge *j)
{
    int fd;

    judge_close(j);
    (void)target_leave(j->target, j->timeout_ms);
    j->guest = NULL;
    j->copying = false;
    j->copy_ring = NULL;
    j->copy_signal = 0;
    fd = target_connect(j->target, j->timeout_ms);
    want(j, fd >= 0, "connecting failed: %s", strerror(-fd));
    j->target->session = false;
    use_connection(j, &j->raw, fd);
}

void judge_reconnect(struct judge *j)
{
    judge_reconnect_bare(j);
    want_ok(j, judge_version(j, 0, 0, judge_capabilities, NULL), "VERSION");
}

void judge_restart(struct judge *j)
{
    judge_close(j);
    target_stop(j->target);
    judge_reconnect(j);
}

/* A queue that is empty ends in the structure itself. */
static void move(struct ob_raw *to, const struct ob_raw *from)
{
    *to = *from;
    if (to->queue == NULL)
        to->queue_tail = &to->queue;
}

static void swap_processes(struct judge *j)
{
    struct ob_raw now = j->raw;

    move(&j->raw, &j->aside);
    move(&j->aside, &now);
    j->target = j->target == j->first ? &j->second : j->first;
}

void judge_second(struct judge *j)
{
    int err;

    if (j->target == &j->second)
        return;
    if (j->second.command == NULL) {
        err = target_again(&j->second, j->first);
        want(j, err == 0, "the judge cannot start the server a second time: %s", strerror(-err));
        ob_raw_init(&j->aside, -1);
    }
    swap_processes(j);
    if (j->raw.fd < 0)
        judge_reconnect(j);
}

void judge_first(struct judge *j)
{
    if (j->target == &j->second)
        swap_processes(j);
}

/* --- A run ------------------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t need;
    const char *what;
} needs[] = {
    { NEED_RESET, "the device cannot be reset" },
    { NEED_MAPPABLE, "no region can be mapped" },
    { NEED_MEMORY, "no region can be mapped, or messages do not reach it" },
    { NEED_SPARSE, "no region has sparse areas" },
    { NEED_MULTI, "write_multiple was not announced" },
    { NEED_TWIN, "twin_socket was not offered" },
    { NEED_IO_FDS, "no region has I/O descriptors" },
    { NEED_INTX, "the device has no INTx" },
    { NEED_MSI, "the device has no MSI" },
    { NEED_MSIX, "the device has no MSI-X" },
    { NEED_IRQ, "the device has no interrupts" },
    { NEED_VECTORS, "no interrupt type has two vectors" },
    { NEED_DMA, "no known way to make this device do DMA" },
    { NEED_INTERRUPT, "no known way to make this device interrupt" },
    { NEED_MIGRATION, "the device cannot migrate" },
    { NEED_PRE_COPY, "PRE_COPY is not supported" },
    { NEED_LOGGING, "DMA logging is not supported" },
    { NEED_EXTRA_REGION, "the device has no region beyond PCI's" },
    { NEED_EXPRESS, "configuration space has 256 bytes" },
    { NEED_SPAWN, "the server's process is not ours" },
    { NEED_NEXT, "the server's process serves one client" },
    { NEED_MAPS, "the server does not keep track of maps" },
    { NEED_EARLY, "the server's process ends with a client that has no session" },
};

static void note_death(struct judge *j, struct target *target, const char *who)
{
    size_t used = strlen(j->text);

    if (!target_died(target))
        return;
    snprintf(j->text + used, sizeof(j->text) - used, "%s%s died (%s %d)", used > 0 ? "; " : "", who,
             WIFSIGNALED(target->status) ? "signal" : "status",
             WIFSIGNALED(target->status) ? WTERMSIG(target->status) : WEXITSTATUS(target->status));
    j->verdict = FAILED;
    j->harmed = true;
    target->died = false; /* one death, one check; it is started again when it is connected to */
}

static void run(struct judge *j)
{
    uint32_t missing = j->check->needs & ~j->facts.has & ~(uint32_t)(CHECK_BARE | CHECK_UNCONNECTED);

    if (j->lost)
        judge_skip(j, "the server did not recover from an earlier check, and is not the judge's to start anew");
    for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        if (missing & needs[i].need)
            judge_skip(j, "%s", needs[i].what);
    }
    if (j->check->needs & CHECK_BARE)
        judge_reconnect_bare(j);
    else if (!(j->check->needs & CHECK_UNCONNECTED))
        judge_reconnect(j);
    j->ran = true;
    j->check->run(j);
}

/* Whatever the check did, the next client is served, and finds no log and RUNNING: what some servers keep when a client
 * goes is for other checks to say. A program for one client ends. */
static void put_in_order(struct judge *j)
{
    if (j->target->once) {
        want(j, target_leave(j->target, j->timeout_ms) == 0, "the server has not ended with its client for %d ms",
             j->timeout_ms);
        return;
    }
    judge_reconnect(j);
    if (j->facts.has & NEED_LOGGING)
        (void)feature(j, FEATURE_SET | LOG_STOP, 8, NULL, 0, NULL);
    if (!(j->facts.has & NEED_MIGRATION) || state_get(j) == RUNNING || device_rescue(j))
        return;
    want(j, j->facts.has & NEED_SPAWN, "the device is in migration state %s, and cannot be brought to RUNNING",
         state_name(state_get(j)));
    target_stop(j->target);
}

/* A server that does not get so far failed this check, and not all that follow: ours is started anew; somebody else's
 * is not judged any further. */
static void settle(struct judge *j)
{
    const int verdict = j->verdict;
    char text[sizeof(j->text)], after[sizeof(j->text)];

    memcpy(text, j->text, sizeof(text));
    transcript_stop(j->transcript, true);
    if (setjmp(j->out) == 0) {
        put_in_order(j);
        j->verdict = verdict;
        memcpy(j->text, text, sizeof(j->text));
    } else {
        memcpy(after, j->text, sizeof(after));
        snprintf(j->text, sizeof(j->text), "%.250s%safterwards: %.250s", text, text[0] != '\0' ? "; " : "", after);
        j->harmed = true;
        j->lost = !(j->facts.has & NEED_SPAWN);
        if (!target_died(j->target))
            target_stop(j->target);
    }
    transcript_stop(j->transcript, false);
    judge_close(j);
    judge_release(j);
}

enum verdict judge_run(struct judge *j, const struct check *check)
{
    bool touched;

    j->check = check;
    j->verdict = PASSED;
    j->text[0] = '\0';
    j->posting = false;
    j->may_close = false;
    j->ran = false;
    j->harmed = false;
    transcript_clear(j->transcript);
    if (setjmp(j->out) == 0)
        run(j);
    judge_first(j);
    judge_close(j);
    ob_raw_close(&j->twin);
    ob_raw_close(&j->aside);
    judge_release(j);
    touched = j->ran || j->verdict != SKIPPED; /* some are skipped half-way */
    if (touched)
        settle(j);
    note_death(j, &j->second, "the second server");
    target_free(&j->second);
    if (touched)
        note_death(j, j->first, "the server");
    return (enum verdict)j->verdict;
}

void judge_transcript(struct judge *j, FILE *to, const char *indent)
{
    transcript_print(j->transcript, to, indent);
}

int judge_init(struct judge *j, struct target *target, int timeout_ms)
{
    *j = (struct judge){
        .target = target, .first = target, .second.pid = -1, .timeout_ms = timeout_ms, .transcript = transcript_new()
    };
    ob_raw_init(&j->raw, -1);
    ob_raw_init(&j->twin, -1);
    ob_raw_init(&j->aside, -1);
    return j->transcript == NULL ? -ENOMEM : 0;
}

void judge_free(struct judge *j)
{
    ob_raw_close(&j->raw);
    ob_raw_close(&j->twin);
    judge_release(j);
    transcript_free(j->transcript);
}
