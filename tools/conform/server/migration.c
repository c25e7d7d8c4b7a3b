/* migration.c: VU-MIG: what a device offers, how its state is asked for and set, and what cannot be set. */
#include "migrate.h"

/* MIGRATION's flags. */
#define OFFERS_STOP_COPY 1u
#define OFFERS_P2P       2u
#define OFFERS_PRE_COPY  4u

/* --- What is offered --------------------------------------------------------------------------------------------- */

static void check_flags(struct judge *j)
{
    want(j, j->facts.migration_flags & OFFERS_STOP_COPY, "MIGRATION's flags are %#llx, without STOP_COPY",
         (unsigned long long)j->facts.migration_flags);
}

static void offered(struct judge *j, uint32_t flag, uint32_t state)
{
    const bool offers = j->facts.migration_flags & flag;
    const struct image found = device_begin(j);
    const bool works = state_set(j, state) == 0;

    want(j, works == offers, "MIGRATION's flags are %#llx, but setting the state to %s %s",
         (unsigned long long)j->facts.migration_flags, state_name(state), works ? "succeeds" : "is refused");
    want_state(j, offers ? state : RUNNING, "then");
    device_end(j, &found);
}

static void check_flag_pre_copy(struct judge *j)
{
    offered(j, OFFERS_PRE_COPY, PRE_COPY);
}

static void check_flag_p2p(struct judge *j)
{
    offered(j, OFFERS_P2P, RUNNING_P2P);
}

/* --- GET and SET ------------------------------------------------------------------------------------------------- */

static void check_layout(struct judge *j)
{
    struct ob_raw_message *m;
    uint32_t state;

    want_ok(j, feature(j, FEATURE_GET | DEVICE_STATE, 16, NULL, 0, &m), "GET of MIG_DEVICE_STATE");
    want(j, m->size == 16, "GET of MIG_DEVICE_STATE: a payload of %u bytes, wanted 16", m->size);
    state = field32(j, m, 8);
    want(j, state > ERROR && state < STATES, "the state is %u, wanted 1 to 7", state);
}

static void check_get_follows(struct judge *j)
{
    static const uint32_t path[] = { STOP, STOP_COPY, STOP, RUNNING };
    const struct image found = device_begin_get(j);

    for (size_t i = 0; i < sizeof(path) / sizeof(*path); i++) {
        want_ok(j, state_set(j, path[i]), "setting a state");
        for (unsigned turn = 0; turn < 2; turn++)
            want_state(j, path[i], "after it was set");
    }
    device_end(j, &found);
}

static void check_get_resuming(struct judge *j)
{
    const struct image found = device_begin_get(j);
    const struct stream own = stream_save(j);

    want_ok(j, state_set(j, RESUMING), "setting the state to RESUMING");
    want_state(j, RESUMING, "after it was set");
    want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE");
    want_state(j, RESUMING, "after the stream was written");
    want_ok(j, state_set(j, STOP), "setting the state to STOP");
    want_state(j, STOP, "after the stream was loaded");
    device_end(j, &found);
}

static void check_starts_running(struct judge *j)
{
    judge_second(j);
    want_state(j, RUNNING, "in a process that was just started");
}

static void check_starts_without_stream(struct judge *j)
{
    uint8_t *bytes;
    uint32_t count;

    judge_second(j);
    want_refused(j, data_read(j, 64, &bytes, &count), "MIG_DATA_READ in a process that was just started");
}

/* SET and GET in one segment: the second is executed when the first is complete. */
static void set_and_get(struct judge *j, uint32_t state)
{
    const uint32_t set[4] = { 16, FEATURE_SET | DEVICE_STATE, state, 0 };
    const uint32_t get[2] = { 16, FEATURE_GET | DEVICE_STATE };
    uint8_t bytes[32 + 24];
    struct ob_raw_message *m;

    ob_raw_build(bytes, 1, OB_RAW_FEATURE, 0, set, sizeof(set));
    ob_raw_build(bytes + 32, 2, OB_RAW_FEATURE, 0, get, sizeof(get));
    send_bytes(j, bytes, sizeof(bytes), NULL, 0);
    want_ok(j, ob_raw_reply(&j->raw, 1, OB_RAW_FEATURE, NULL), "setting a state");
    m = receive(j, "GET behind SET");
    want(j, m->header.id == 2 && !(m->header.flags & OB_RAW_ERROR), "GET behind SET is refused");
    want(j, field32(j, m, 8) == state, "GET behind SET of %s: the state is %u (%s)", state_name(state),
         field32(j, m, 8), state_name(field32(j, m, 8)));
}

static void check_set_complete(struct judge *j)
{
    const struct image found = device_begin(j);

    set_and_get(j, STOP);
    set_and_get(j, STOP_COPY);
    set_and_get(j, RUNNING);
    device_end(j, &found);
}

static void check_data_fd(struct judge *j)
{
    static const uint32_t values[] = { 0, 1, 77, 0x7fffffff, UINT32_MAX };
    const struct image found = device_begin(j);

    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        const uint32_t data[2] = { i % 2 ? RUNNING : STOP, values[i] };

        want_ok(j, feature(j, FEATURE_SET | DEVICE_STATE, 16, data, sizeof(data), NULL), "a SET with some data_fd");
        want_state(j, data[0], "after a SET with some data_fd");
    }
    device_end(j, &found);
}

/* The kernel's VFIO sends the stream's descriptor with these. */
static void no_descriptor(struct judge *j, uint32_t state)
{
    const uint32_t data[2] = { state, UINT32_MAX };
    struct ob_raw_message *m;

    want_ok(j, feature(j, FEATURE_SET | DEVICE_STATE, 16, data, sizeof(data), &m), "setting a state");
    want(j, m->nfds == 0, "SET of %s: %u descriptors with the reply", state_name(state), m->nfds);
    want_ok(j, feature(j, FEATURE_GET | DEVICE_STATE, 16, NULL, 0, &m), "GET of MIG_DEVICE_STATE");
    want(j, m->nfds == 0, "GET in %s: %u descriptors with the reply", state_name(state), m->nfds);
}

static void check_no_descriptor(struct judge *j)
{
    const struct image found = device_begin(j);

    no_descriptor(j, STOP);
    no_descriptor(j, STOP_COPY);
    device_end(j, &found);
}

static void check_no_descriptor_resuming(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct stream own = stream_save(j);

    no_descriptor(j, RESUMING);
    want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE");
    device_end(j, &found);
}

static void check_no_descriptor_pre_copy(struct judge *j)
{
    const struct image found = device_begin(j);

    no_descriptor(j, PRE_COPY);
    device_end(j, &found);
}

/* --- Devices that cannot migrate --------------------------------------------------------------------------------- */

static void cannot(struct judge *j)
{
    if (j->facts.has & NEED_MIGRATION)
        judge_skip(j, "the device can migrate");
}

static void check_lacking_get(struct judge *j)
{
    cannot(j);
    want_refused(j, feature(j, FEATURE_GET | DEVICE_STATE, 16, NULL, 0, NULL),
                 "GET of MIG_DEVICE_STATE of a device without MIGRATION");
}

static void check_lacking_set(struct judge *j)
{
    cannot(j);
    want_refused(j, state_set(j, STOP), "setting the state to STOP of a device without MIGRATION");
    want_refused(j, state_set(j, RUNNING), "setting the state to RUNNING of a device without MIGRATION");
}

static void check_lacking_read(struct judge *j)
{
    uint8_t *bytes;
    uint32_t count;

    cannot(j);
    want_refused(j, data_read(j, 64, &bytes, &count), "MIG_DATA_READ of a device without MIGRATION");
}

static void check_lacking_write(struct judge *j)
{
    const uint8_t bytes[64] = { 0 };

    cannot(j);
    want_refused(j, data_write(j, bytes, sizeof(bytes)), "MIG_DATA_WRITE of a device without MIGRATION");
}

/* clang-format off: a line or two for each check. */
#define M NEED_MIGRATION
const struct check server_migration_checks[] = {
    { { "migration-flags", "VU-MIG-1", "MIGRATION's flags have STOP_COPY" }, M, check_flags },
    { { "migration-flag-pre-copy", "VU-MIG-2", "PRE_COPY can be entered if and only if the flags offer it" },
      M,
      check_flag_pre_copy },
    { { "migration-flag-p2p", "VU-MIG-3", "RUNNING_P2P can be entered if and only if the flags offer it" },
      M,
      check_flag_p2p },
    { { "migration-layout", "VU-MIG-4", "GET of MIG_DEVICE_STATE answers 8 bytes and a number that is a state" },
      M,
      check_layout },
    { { "migration-get-follows", "VU-MIG-5", "GET names STOP, STOP_COPY and RUNNING after they were set" },
      M,
      check_get_follows },
    { { "migration-get-resuming", "VU-MIG-5", "GET names RESUMING until it is left" }, M, check_get_resuming },
    { { "migration-starts-running", "VU-MIG-6", "a new server's device is in RUNNING" },
      M | NEED_SPAWN,
      check_starts_running },
    { { "migration-starts-without-stream", "VU-MIG-6", "a new server's device has no stream" },
      M | NEED_SPAWN,
      check_starts_without_stream },
    { { "migration-set-complete", "VU-MIG-7", "GET right behind a SET finds the new state" }, M, check_set_complete },
    { { "migration-data-fd", "VU-MIG-8", "data_fd is ignored" }, M, check_data_fd },
    { { "migration-no-descriptor", "VU-MIG-8", "no descriptor comes with STOP_COPY" }, M, check_no_descriptor },
    { { "migration-no-descriptor-resuming", "VU-MIG-8", "no descriptor comes with RESUMING" },
      M,
      check_no_descriptor_resuming },
    { { "migration-no-descriptor-pre-copy", "VU-MIG-8", "no descriptor comes with PRE_COPY" },
      M | NEED_PRE_COPY,
      check_no_descriptor_pre_copy },
    { { "migration-lacking-get", "VU-MIG-39", "without MIGRATION, GET of the state is refused" },
      0,
      check_lacking_get },
    { { "migration-lacking-set", "VU-MIG-39", "without MIGRATION, SET of the state is refused" },
      0,
      check_lacking_set },
    { { "migration-lacking-read", "VU-MIG-39", "without MIGRATION, MIG_DATA_READ is refused" }, 0, check_lacking_read },
    { { "migration-lacking-write", "VU-MIG-39", "without MIGRATION, MIG_DATA_WRITE is refused" },
      0,
      check_lacking_write },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
