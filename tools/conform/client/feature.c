/* feature.c: VU-RESET, VU-FEAT, VU-MIG, VU-LOG, VU-DATA: reset, features, migration. */
#include "check.h"

#define HEAD    8 /* argsz and flags; argsz and size of data */
#define METHODS (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PROBE)

/* --- What is sent ------------------------------------------------------------------------------------------------- */

static bool reset_layout(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_RESET)
        return false;
    if (m->size != 0)
        trial_wrong(t, "DEVICE_RESET should have no payload, and has %u bytes", m->size);
    return true;
}

static bool feature_layout(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t flags = get32(m, 4), methods = flags & METHODS;

    if (m->header.command != OB_RAW_FEATURE)
        return false;
    if (get32(m, 0) < HEAD || ((flags & VFIO_DEVICE_FEATURE_SET) && get32(m, 0) < m->size))
        trial_wrong(t, "argsz should be the largest reply payload, which has at least %u bytes here, and is %u",
                    flags & VFIO_DEVICE_FEATURE_SET ? m->size : HEAD, get32(m, 0));
    if ((flags & ~(METHODS | VFIO_DEVICE_FEATURE_MASK)) != 0 || methods == 0 ||
        (!(methods & VFIO_DEVICE_FEATURE_PROBE) && __builtin_popcount(methods) != 1))
        trial_wrong(t, "flags should be a feature and GET, SET, or PROBE with any of them, and are %#x", flags);
    return true;
}

/* Whether the message is that method of that feature. */
static bool is_feature(const struct ob_raw_message *m, uint32_t method, uint32_t feature)
{
    return m->header.command == OB_RAW_FEATURE && get32(m, 4) == (method | feature);
}

static bool sets_state(const struct ob_raw_message *m)
{
    return is_feature(m, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
}

static bool states_offered(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t state = get32(m, HEAD);

    if (!sets_state(m))
        return false;
    if (m->size != HEAD + 8)
        trial_wrong(t, "the data of MIG_DEVICE_STATE should have 8 bytes, and has %u", m->size - HEAD);
    if (state == VFIO_DEVICE_STATE_ERROR || state > MODEL_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_RUNNING_P2P ||
        (state == MODEL_STATE_PRE_COPY && !(t->model.migration & MODEL_PRE_COPY)))
        trial_wrong(t, "a state should be set that MIGRATION's flags, %#llx, offer, and %u was",
                    (unsigned long long)t->model.migration, state);
    if (state == MODEL_STATE_PRE_COPY && t->model.state == VFIO_DEVICE_STATE_STOP_COPY)
        trial_wrong(t, "PRE_COPY should not be asked for in STOP_COPY");
    return true;
}

static bool start_layout(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t ranges = get32(m, HEAD + 8);

    if (!is_feature(m, VFIO_DEVICE_FEATURE_SET, VFIO_DEVICE_FEATURE_DMA_LOGGING_START))
        return false;
    if (m->size < HEAD + 16 || (m->size - HEAD - 16) / 16 != ranges || (m->size - HEAD) % 16 != 0)
        trial_wrong(t,
                    "DMA_LOGGING_START should have 16 bytes of data and 16 for each of its num_ranges, %u, and has %u",
                    ranges, m->size - HEAD);
    else if (get32(m, HEAD + 12) != 0)
        trial_wrong(t, "the reserved field of DMA_LOGGING_START should be 0, and is %#x", get32(m, HEAD + 12));
    return true;
}

static bool report_layout(struct trial *t, const struct ob_raw_message *m)
{
    uint64_t page = get64(m, HEAD + 16);

    if (!is_feature(m, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT))
        return false;
    if (m->size != HEAD + 24)
        trial_wrong(t, "DMA_LOGGING_REPORT should have 24 bytes of data, and has %u", m->size - HEAD);
    else if (page == 0 || (page & (page - 1)) != 0)
        trial_wrong(t, "page_size (8 bytes at 16) should be a power of two, and is %#llx", (unsigned long long)page);
    return true;
}

static bool data_read_layout(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_MIG_READ)
        return false;
    if (m->size != HEAD)
        trial_wrong(t, "MIG_DATA_READ should have %d bytes of payload, and has %u", HEAD, m->size);
    else if (get32(m, 0) < HEAD || get32(m, 0) - HEAD < get32(m, 4))
        trial_wrong(t, "the argsz of MIG_DATA_READ should be at least %d and its size, %u, and is %u", HEAD,
                    get32(m, 4), get32(m, 0));
    return true;
}

static bool data_write_layout(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_MIG_WRITE)
        return false;
    if (m->size < HEAD || m->size - HEAD != get32(m, 4))
        trial_wrong(t, "MIG_DATA_WRITE of %u bytes should have as many behind %d, and has %u bytes of payload",
                    get32(m, 4), HEAD, m->size);
    return true;
}

/* At the transition that leaves STOP_COPY. */
static bool stream_complete(struct trial *t, const struct ob_raw_message *m)
{
    if (!sets_state(m) || t->model.state != VFIO_DEVICE_STATE_STOP_COPY ||
        get32(m, HEAD) == VFIO_DEVICE_STATE_STOP_COPY)
        return false;
    if (t->model.streamed < MODEL_STREAM)
        trial_wrong(t, "a client should read until a short answer, and left STOP_COPY after %zu of %d bytes",
                    t->model.streamed, MODEL_STREAM);
    return true;
}

/* --- Reset -------------------------------------------------------------------------------------------------------- */

static void slow_reset(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);
    struct ob_raw_message *m = trial_await(t, OB_RAW_RESET);

    trial_dma(t, OB_RAW_DMA_READ, 0, map.address, 16, NULL, 0);
    trial_dma_reply_now(t, "DMA_READ during a reset");
    trial_answer(t, m);
    trial_want_same(t, 0);
}

/* --- Features that there are not ---------------------------------------------------------------------------------- */

static void want_features(struct trial *t)
{
    if (!kinds_has_command(&t->usual_kinds, OB_RAW_FEATURE))
        trial_skip(t, "the client sends no DEVICE_FEATURE");
}

static void no_features(struct trial *t)
{
    want_features(t);
    t->model.migration = 0;
    t->model.can_log = false;
    trial_want_same(t, BIT(OB_RAW_FEATURE) | BIT(OB_RAW_MIG_READ) | BIT(OB_RAW_MIG_WRITE));
}

static void no_logging(struct trial *t)
{
    want_features(t);
    t->model.can_log = false;
    trial_want_same(t, BIT(OB_RAW_FEATURE));
}

static void no_pre_copy(struct trial *t)
{
    want_features(t);
    t->model.migration = VFIO_MIGRATION_STOP_COPY;
    trial_want_same(t, BIT(OB_RAW_FEATURE));
}

/* --- Migration ---------------------------------------------------------------------------------------------------- */

static bool is_set_state(struct trial *t, const struct ob_raw_message *m)
{
    return sets_state(m);
}

/* What a failed transition stands in the way of: all that concerns states and their data. */
static bool about_state(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_MIG_READ || m->header.command == OB_RAW_MIG_WRITE ||
           m->header.command == OB_RAW_RESET ||
           (m->header.command == OB_RAW_FEATURE &&
            (get32(m, 4) & VFIO_DEVICE_FEATURE_MASK) == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE);
}

static void failed_transition(struct trial *t)
{
    struct ob_raw_message *m = trial_await_where(t, is_set_state, "SET of MIG_DEVICE_STATE");

    trial_refuse(t, m, EIO);
    t->model.state = VFIO_DEVICE_STATE_ERROR;
    m = trial_await_where(t, about_state, "command after a transition that failed");
    if (m->header.command != OB_RAW_RESET) { /* which leads out of any state */
        trial_want(t, is_feature(m, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE),
                   "after a transition that failed the client should ask for the state, and sent %s with flags %#x",
                   command_name(m->header.command), get32(m, 4));
        trial_answer(t, m);
        m = trial_await_where(t, about_state, "command after it was told that the state is ERROR");
    }
    trial_want(t, m->header.command == OB_RAW_RESET, "from ERROR the client should reset the device, and sent %s",
               command_name(m->header.command));
    trial_answer(t, m);
    trial_want_survived(t, "a transition that failed");
}

static bool reads_data(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_MIG_READ && get32(m, 4) > 0 && get32(m, 4) <= t->model.max_data;
}

/* Every reply has as many bytes as were asked for, whatever its size says. */
static void padded_data(struct trial *t)
{
    struct ob_raw_message *m;
    bool padded = false;

    while ((m = trial_next(t)) != NULL) {
        struct reply *reply = trial_reply(t, m);

        if (reads_data(t, m) && reply->size >= HEAD) {
            padded |= reply->size < HEAD + get32(m, 4);
            reply_resize(reply, HEAD + get32(m, 4));
            reply_put32(reply, 0, (uint32_t)reply->size);
        }
        trial_send(t, reply);
    }
    if (!padded)
        trial_skip(t, "the client sends no MIG_DATA_READ that gets a short answer");
    trial_want_same(t, 0);
}

static void too_much_data(struct trial *t)
{
    struct ob_raw_message *m = trial_await_where(t, reads_data, "MIG_DATA_READ");
    struct reply *reply = trial_success(t, m);

    reply_resize(reply, HEAD + get32(m, 4) + 8);
    reply_put32(reply, 0, (uint32_t)reply->size);
    reply_put32(reply, 4, get32(m, 4) + 8);
    trial_send(t, reply);
    trial_want_refused(t, "a reply to MIG_DATA_READ with 8 bytes more than were asked for");
}

static void data_size_lies(struct trial *t)
{
    struct ob_raw_message *m = trial_await_where(t, reads_data, "MIG_DATA_READ");
    struct reply *reply = trial_success(t, m);

    reply_resize(reply, HEAD);
    reply_put32(reply, 4, get32(m, 4));
    trial_send(t, reply);
    trial_want_refused(t, "a reply to MIG_DATA_READ without the data that its size says");
}

/* --- Logging ------------------------------------------------------------------------------------------------------ */

static bool asks_report(struct trial *t, const struct ob_raw_message *m)
{
    return is_feature(m, VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT);
}

static struct reply *report_reply(struct trial *t)
{
    return trial_success(t, trial_await_where(t, asks_report, "GET of DMA_LOGGING_REPORT"));
}

static void short_bitmap(struct trial *t)
{
    struct reply *reply = report_reply(t);

    reply_resize(reply, HEAD + 24);
    reply_put32(reply, 0, (uint32_t)reply->size);
    trial_send(t, reply);
    trial_want_refused(t, "a report without its bitmap");
}

static void long_bitmap(struct trial *t)
{
    struct reply *reply = report_reply(t);

    reply_resize(reply, reply->size + 64);
    reply_put32(reply, 0, (uint32_t)reply->size);
    trial_send(t, reply);
    trial_want_survived(t, "a report with 64 bytes of bitmap more than its range has");
}

/* A client that believes them would copy memory that there is not; the bits of the range itself stay. */
static void bits_beyond(struct trial *t)
{
    struct ob_raw_message *m = trial_await_where(t, asks_report, "GET of DMA_LOGGING_REPORT");
    struct reply *reply = trial_success(t, m);
    uint64_t pages = get64(m, HEAD + 8) / get64(m, HEAD + 16);

    if (pages % 64 == 0)
        trial_skip(t, "the client's report ends at the end of a word");
    for (uint64_t bit = pages; bit < (reply->size - HEAD - 24) * 8; bit++)
        reply->payload[HEAD + 24 + bit / 8] |= (uint8_t)(1u << bit % 8);
    trial_send(t, reply);
    trial_want_same(t, 0);
}

#define NO_FEATURE "the client sent no DEVICE_FEATURE"

const struct client_check client_feature_checks[] = {
    RULE("reset-layout", "VU-RESET-1", "DEVICE_RESET has no payload", reset_layout, "the client sent no DEVICE_RESET"),
    RULE("feature-layout", "VU-FEAT-1", "DEVICE_FEATURE has argsz, and a feature with methods", feature_layout,
         NO_FEATURE),
    RULE("migration-states", "VU-MIG-40", "only states are set that are offered", states_offered,
         "the client set no state of migration"),
    RULE("logging-start-layout", "VU-LOG-1", "DMA_LOGGING_START has its ranges", start_layout,
         "the client started no logging"),
    RULE("logging-report-layout", "VU-LOG-5", "DMA_LOGGING_REPORT has a range and a page size", report_layout,
         "the client asked for no report"),
    RULE("data-read-layout", "VU-DATA-1", "MIG_DATA_READ has 8 bytes, and room for the data", data_read_layout,
         "the client sent no MIG_DATA_READ"),
    RULE("data-write-layout", "VU-DATA-9", "MIG_DATA_WRITE has size bytes behind 8", data_write_layout,
         "the client sent no MIG_DATA_WRITE"),
    RULE("data-complete", "VU-DATA-15", "the stream is read to its end", stream_complete,
         "the client left STOP_COPY nowhere"),
    VARIATION("reset-slow", "VU-RESET-11", "the client serves the device while it is reset", slow_reset),
    VARIATION("feature-none", "VU-FEAT-12", "a device without features will do", no_features),
    VARIATION("feature-no-logging", "VU-FEAT-12", "a device without logging will do", no_logging),
    VARIATION("migration-no-pre-copy", "VU-MIG-40", "PRE_COPY is not set if it is not offered", no_pre_copy),
    VARIATION("migration-fails", "VU-MIG-41", "after a failure the state is asked for, and ERROR is reset",
              failed_transition),
    VARIATION("data-padded", "VU-DATA-16", "bytes behind the data are dropped", padded_data),
    FAULT("data-too-much", "VU-DATA-16", "more data than was asked for is an error", too_much_data),
    FAULT("data-missing", "VU-DATA-16", "a size above that of the data is an error", data_size_lies),
    FAULT("logging-short-bitmap", "VU-LOG-22", "a bitmap that is too short is an error", short_bitmap),
    FAULT("logging-long-bitmap", "VU-LOG-22", "a bitmap that is too long does no harm", long_bitmap),
    FAULT("logging-bits-beyond", "VU-LOG-22", "bits beyond the range are not believed", bits_beyond),
    { .is = { NULL, NULL, NULL } },
};
