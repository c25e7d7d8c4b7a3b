/* migration_arcs.c: VU-MIG: every transition of the table in docs/protocol.md, and those that are refused. */
#include "migrate.h"

/* How a transition is tried. The device was marked, and its state went as far as `from`; read and written is what has
 * come of the stream meanwhile. In the end the device, back in RUNNING, has to look as it was marked, but for
 * configuration space: it stood still, or ran on, or was loaded with a stream that says so. */
struct trial {
    struct image found, marked;
    struct stream own;  /* of the marked device, for RESUMING */
    size_t written;     /* of it */
    struct stream read; /* in the saving states */
};

static bool is_saving(uint32_t state)
{
    return state == STOP_COPY || state == PRE_COPY;
}

static void write_until(struct judge *j, struct trial *trial, size_t end)
{
    const struct stream part = { trial->own.bytes + trial->written, end - trial->written };

    want_ok(j, stream_write(j, UINT32_MAX, &part), "MIG_DATA_WRITE of the device's own stream");
    trial->written = end;
}

/* By the shortest way; in RESUMING a device that looks different has been sent the first half of the stream. */
static struct trial enter(struct judge *j, uint32_t from, uint32_t to)
{
    struct trial trial = { .found = device_begin_arc(j, from, to) };

    image_mark(j, 1);
    trial.marked = image_take(j);
    if (from == RESUMING || to == RESUMING) {
        trial.own = stream_save(j);
        state_go(j, RUNNING);
    }
    if (from == RESUMING)
        image_mark(j, 2);
    if (from == STOP || from == STOP_COPY || from == RESUMING)
        state_go(j, STOP);
    if (is_saving(from) || from == RESUMING)
        state_go(j, from);
    if (is_saving(from))
        stream_read_some(j, 64, &trial.read);
    if (from == RESUMING)
        write_until(j, &trial, trial.own.size / 2);
    return trial;
}

static void want_read_refused(struct judge *j, uint32_t state)
{
    uint8_t *bytes;
    uint32_t count;
    char what[64];

    snprintf(what, sizeof(what), "MIG_DATA_READ in %s", state_name(state));
    want_refused(j, data_read(j, 16, &bytes, &count), what);
}

static void want_write_refused(struct judge *j, uint32_t state)
{
    const uint8_t none = 0;
    char what[64];

    snprintf(what, sizeof(what), "MIG_DATA_WRITE in %s", state_name(state));
    want_refused(j, data_write(j, &none, 1), what);
}

/* The stream goes on in the states that have one; that of the state before is over. */
static void want_session(struct judge *j, uint32_t from, uint32_t state, struct trial *trial)
{
    if (is_saving(state))
        stream_read_some(j, 64, &trial->read);
    else if (is_saving(from))
        want_read_refused(j, state);
    if (state == RESUMING)
        write_until(j, trial, trial->own.size);
    else if (from == RESUMING)
        want_write_refused(j, state);
}

static void back(struct judge *j, uint32_t state, struct trial *trial)
{
    if (state == PRE_COPY)
        state_go(j, STOP_COPY);
    if (is_saving(state)) { /* what was read has to be a stream */
        stream_read(j, UINT32_MAX, &trial->read);
        state_go(j, STOP);
        state_go(j, RUNNING);
        image_mark(j, 2);
        state_go(j, STOP);
        stream_load(j, &trial->read);
    }
    if (is_saving(state) || state == RESUMING)
        state_go(j, STOP);
    if (state != RUNNING)
        state_go(j, RUNNING);
    want_device(j, &trial->marked, "back in RUNNING");
    device_end(j, &trial->found);
}

static void taken(struct judge *j, uint32_t from, uint32_t to)
{
    struct trial trial = enter(j, from, to);

    if (from == RESUMING)
        write_until(j, &trial, trial.own.size);
    else
        trial.written = 0;
    if (from != PRE_COPY || to != STOP_COPY)
        trial.read.size = 0;
    state_go(j, to);
    want_session(j, from, to, &trial);
    back(j, to, &trial);
}

static void stays(struct judge *j, uint32_t state, struct trial *trial)
{
    want_state(j, state, "afterwards");
    want_session(j, state, state, trial);
    back(j, state, trial);
}

static void refused(struct judge *j, uint32_t from, uint32_t to)
{
    struct trial trial = enter(j, from, to);
    char what[80];

    snprintf(what, sizeof(what), "setting the state from %s to %u (%s)", state_name(from), to, state_name(to));
    want_refused(j, state_set(j, to), what);
    stays(j, from, &trial);
}

static void same(struct judge *j, uint32_t state)
{
    struct trial trial = enter(j, state, state);
    char what[64];

    snprintf(what, sizeof(what), "setting the state from %s to the same", state_name(state));
    want_ok(j, state_set(j, state), what);
    stays(j, state, &trial);
}

/* Clause, from, to, name, title. */
/* clang-format off: tables. */
#define TAKEN(X)                                                                                              \
    X(9, RUNNING, STOP, "running-to-stop", "RUNNING to STOP")                                                 \
    X(10, STOP, RUNNING, "stop-to-running", "STOP to RUNNING, where the device is as it was")                 \
    X(11, STOP, STOP_COPY, "stop-to-stop-copy", "STOP to STOP_COPY, where a stream is read")                  \
    X(12, STOP_COPY, STOP, "stop-copy-to-stop", "STOP_COPY to STOP, where the stream is over")                \
    X(13, STOP, RESUMING, "stop-to-resuming", "STOP to RESUMING, where a stream is written")                  \
    X(14, RESUMING, STOP, "resuming-to-stop", "RESUMING to STOP, where the stream is in force")               \
    X(15, RUNNING, PRE_COPY, "running-to-pre-copy", "RUNNING to PRE_COPY, where a stream is read")            \
    X(16, PRE_COPY, RUNNING, "pre-copy-to-running", "PRE_COPY to RUNNING, where the stream is over")          \
    X(17, PRE_COPY, STOP_COPY, "pre-copy-to-stop-copy", "PRE_COPY to STOP_COPY, where the stream goes on")    \
    X(18, RUNNING, STOP_COPY, "running-to-stop-copy", "RUNNING to STOP_COPY, where a stream is read")         \
    X(19, RUNNING, RESUMING, "running-to-resuming", "RUNNING to RESUMING, where a stream is written")         \
    X(20, STOP, PRE_COPY, "stop-to-pre-copy", "STOP to PRE_COPY, where a stream is read")                     \
    X(21, STOP_COPY, RUNNING, "stop-copy-to-running", "STOP_COPY to RUNNING, where the stream is over")       \
    X(22, STOP_COPY, RESUMING, "stop-copy-to-resuming", "STOP_COPY to RESUMING, where a stream is written")   \
    X(23, RESUMING, RUNNING, "resuming-to-running", "RESUMING to RUNNING, where the stream is in force")      \
    X(24, RESUMING, STOP_COPY, "resuming-to-stop-copy", "RESUMING to STOP_COPY, where the new state is read") \
    X(25, RESUMING, PRE_COPY, "resuming-to-pre-copy", "RESUMING to PRE_COPY, where the new state is read")    \
    X(26, PRE_COPY, STOP, "pre-copy-to-stop", "PRE_COPY to STOP, where the stream is over")                   \
    X(27, PRE_COPY, RESUMING, "pre-copy-to-resuming", "PRE_COPY to RESUMING, where a stream is written")

#define REFUSED(X)                                                                                         \
    X(28, STOP_COPY, PRE_COPY, "stop-copy-to-pre-copy", "STOP_COPY to PRE_COPY is refused")                \
    X(29, RUNNING, ERROR, "running-to-error", "RUNNING to ERROR is refused")                               \
    X(29, STOP, ERROR, "stop-to-error", "STOP to ERROR is refused")                                        \
    X(29, STOP_COPY, ERROR, "stop-copy-to-error", "STOP_COPY to ERROR is refused, and the stream goes on") \
    X(29, RESUMING, ERROR, "resuming-to-error", "RESUMING to ERROR is refused, and the stream goes on")    \
    X(29, PRE_COPY, ERROR, "pre-copy-to-error", "PRE_COPY to ERROR is refused, and the stream goes on")
/* clang-format on */

#define FUNCTION(clause, from, to, name, title)         \
    static void check_##from##_to_##to(struct judge *j) \
    {                                                   \
        taken(j, from, to);                             \
    }
TAKEN(FUNCTION)
#undef FUNCTION
#define FUNCTION(clause, from, to, name, title)         \
    static void check_##from##_to_##to(struct judge *j) \
    {                                                   \
        refused(j, from, to);                           \
    }
REFUSED(FUNCTION)
#undef FUNCTION
#define FUNCTION(state)                                \
    static void check_##state##_again(struct judge *j) \
    {                                                  \
        same(j, state);                                \
    }
FUNCTION(RUNNING)
FUNCTION(STOP)
FUNCTION(STOP_COPY)
FUNCTION(RESUMING)
FUNCTION(PRE_COPY)
#undef FUNCTION

/* --- States that are not offered --------------------------------------------------------------------------------- */

static void not_offered(struct judge *j, uint32_t state, uint64_t flags)
{
    if ((j->facts.migration_flags & flags) == flags)
        judge_skip(j, "%s is offered", state_name(state));
    refused(j, RUNNING, state);
}

static void check_no_pre_copy(struct judge *j)
{
    not_offered(j, PRE_COPY, 4);
}

static void check_no_p2p(struct judge *j)
{
    not_offered(j, RUNNING_P2P, 2);
}

static void check_no_pre_copy_p2p(struct judge *j)
{
    not_offered(j, PRE_COPY_P2P, 6);
}

/* The number of states is what a check off by one lets pass. */
static void check_eight(struct judge *j)
{
    refused(j, RUNNING, STATES);
}

static void check_eight_stopped(struct judge *j)
{
    refused(j, STOP_COPY, STATES);
}

static void check_numbers(struct judge *j)
{
    static const uint32_t numbers[] = { 9,          15,         31,         32,         255,       256 + STOP,
                                        0x00010001, 0x7fffffff, 0x80000001, 0x80000002, UINT32_MAX };
    struct trial trial = enter(j, RUNNING, RUNNING);

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        char what[64];

        snprintf(what, sizeof(what), "setting the state to %#x", numbers[i]);
        want_refused(j, state_set(j, numbers[i]), what);
        want_state(j, RUNNING, what);
    }
    back(j, RUNNING, &trial);
}

/* clang-format off: a line or two for each check. */
#define M NEED_MIGRATION
#define ENTRY(clause, from, to, name, title)                        \
    { { "migration-" name, "VU-MIG-" #clause, title },              \
      M | (from == PRE_COPY || to == PRE_COPY ? NEED_PRE_COPY : 0), \
      check_##from##_to_##to },
const struct check server_migration_arcs_checks[] = {
    TAKEN(ENTRY) REFUSED(ENTRY){
        { "migration-no-pre-copy", "VU-MIG-31", "PRE_COPY is refused if it is not offered" }, M, check_no_pre_copy },
    { { "migration-no-p2p", "VU-MIG-31", "RUNNING_P2P is refused if it is not offered" }, M, check_no_p2p },
    { { "migration-no-pre-copy-p2p", "VU-MIG-31", "PRE_COPY_P2P is refused if it is not offered" },
      M,
      check_no_pre_copy_p2p },
    { { "migration-eight", "VU-MIG-31", "8, which is no state, is refused" }, M, check_eight },
    { { "migration-eight-stop-copy", "VU-MIG-31", "8 is refused in STOP_COPY, and the stream goes on" },
      M,
      check_eight_stopped },
    { { "migration-numbers", "VU-MIG-31", "other numbers that are no state are refused" }, M, check_numbers },
    { { "migration-same-running", "VU-MIG-32", "RUNNING to RUNNING has no effect" }, M, check_RUNNING_again },
    { { "migration-same-stop", "VU-MIG-32", "STOP to STOP has no effect" }, M, check_STOP_again },
    { { "migration-same-stop-copy", "VU-MIG-32", "STOP_COPY to STOP_COPY has no effect: the stream goes on" },
      M,
      check_STOP_COPY_again },
    { { "migration-same-resuming", "VU-MIG-32", "RESUMING to RESUMING has no effect: the stream goes on" },
      M,
      check_RESUMING_again },
    { { "migration-same-pre-copy", "VU-MIG-32", "PRE_COPY to PRE_COPY has no effect: the stream goes on" },
      M | NEED_PRE_COPY,
      check_PRE_COPY_again },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
