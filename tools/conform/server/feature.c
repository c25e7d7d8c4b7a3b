/* feature.c: VU-FEAT: DEVICE_FEATURE: its methods, its replies, and what it refuses. */
#include "migrate.h"

/* No server has these: they are beyond what <linux/vfio.h> defines, or are ours cut to 8 bits. */
static const uint16_t lacking[] = { 63, 0x7fff, 0xffff };
static const uint16_t aliases[] = { 0x0101, 0x0102, 0x0202, 0x8001 };

#define N(array) (sizeof(array) / sizeof(*(array)))

static const char *method_name(uint32_t flags)
{
    static const char *const names[] = { "no method", "GET",         "SET",         "GET and SET",
                                         "PROBE",     "PROBE (GET)", "PROBE (SET)", "PROBE (GET and SET)" };

    return names[flags >> 16 & 7];
}

/* "SET of feature 2" */
static const char *name(struct judge *j, uint32_t flags)
{
    char *text = judge_alloc(j, 64);

    snprintf(text, 64, "%s of feature %u%s", method_name(flags), flags & 0xffff, flags >> 19 ? ", more flags" : "");
    return text;
}

static void refused(struct judge *j, uint32_t flags, uint32_t argsz, const void *data, size_t size)
{
    want_refused(j, feature(j, flags, argsz, data, size, NULL), name(j, flags));
}

static void fails(struct judge *j, uint32_t flags, uint32_t argsz, const void *data, size_t size)
{
    want_error(j, feature(j, flags, argsz, data, size, NULL), EINVAL, name(j, flags));
}

static bool probe(struct judge *j, uint32_t flags)
{
    return feature(j, FEATURE_PROBE | flags, 8, NULL, 0, NULL) == 0;
}

/* That the state can be set to what it is is for other checks to say (VU-MIG-32). */
static void running(struct judge *j)
{
    if (state_get(j) != RUNNING)
        state_go(j, RUNNING);
}

/* --- Methods ----------------------------------------------------------------------------------------------------- */

static void check_get_and_set(struct judge *j)
{
    const uint32_t data[2] = { RUNNING, 0 };

    fails(j, FEATURE_GET | FEATURE_SET | DEVICE_STATE, 16, data, sizeof(data));
}

static void check_no_method(struct judge *j)
{
    fails(j, MIGRATION, 16, NULL, 0);
    fails(j, DEVICE_STATE, 16, NULL, 0);
}

static void unknown_flags(struct judge *j, uint32_t flags)
{
    for (unsigned bit = 19; bit < 32; bit++)
        fails(j, flags | 1u << bit, 16, NULL, 0);
}

static void check_unknown_flags_get(struct judge *j)
{
    unknown_flags(j, FEATURE_GET | MIGRATION);
}

static void check_unknown_flags_probe(struct judge *j)
{
    unknown_flags(j, FEATURE_PROBE | FEATURE_GET | MIGRATION);
}

static void check_unknown_flags_set(struct judge *j)
{
    running(j);
    for (unsigned bit = 19; bit < 32; bit++) {
        const uint32_t data[2] = { STOP, 0 };

        fails(j, FEATURE_SET | DEVICE_STATE | 1u << bit, 16, data, sizeof(data));
        want_state(j, RUNNING, "after a SET with an unknown flag");
    }
}

/* --- PROBE ------------------------------------------------------------------------------------------------------- */

static void probed(struct judge *j, uint32_t flags)
{
    want_ok(j, feature(j, FEATURE_PROBE | flags, 8, NULL, 0, NULL), name(j, FEATURE_PROBE | flags));
}

static void not_probed(struct judge *j, uint32_t flags)
{
    refused(j, FEATURE_PROBE | flags, 8, NULL, 0);
}

static void check_probe_methods(struct judge *j)
{
    probed(j, FEATURE_GET | MIGRATION);
    probed(j, FEATURE_GET | DEVICE_STATE);
    probed(j, FEATURE_SET | DEVICE_STATE);
    probed(j, FEATURE_GET | FEATURE_SET | DEVICE_STATE);
}

static void check_probe_one_lacking(struct judge *j)
{
    not_probed(j, FEATURE_SET | MIGRATION);
    not_probed(j, FEATURE_GET | FEATURE_SET | MIGRATION);
}

static void check_probe_logging(struct judge *j)
{
    not_probed(j, FEATURE_GET | LOG_START);
    not_probed(j, FEATURE_GET | FEATURE_SET | LOG_START);
    not_probed(j, FEATURE_GET | LOG_STOP);
    not_probed(j, FEATURE_SET | LOG_REPORT);
}

static void check_probe_lacking(struct judge *j)
{
    for (size_t i = 0; i < N(lacking); i++)
        not_probed(j, lacking[i]);
}

/* What can be probed has to work, if trying it does no harm. */
static void check_probe_agrees(struct judge *j)
{
    const bool get = probe(j, FEATURE_GET | MIGRATION), state = probe(j, FEATURE_GET | DEVICE_STATE);

    want(j, get == (feature(j, FEATURE_GET | MIGRATION, 16, NULL, 0, NULL) == 0),
         "PROBE (GET) of MIGRATION %s, but GET does not", get ? "succeeds" : "is refused");
    want(j, state == (feature(j, FEATURE_GET | DEVICE_STATE, 16, NULL, 0, NULL) == 0),
         "PROBE (GET) of MIG_DEVICE_STATE %s, but GET does not", state ? "succeeds" : "is refused");
}

static void check_probe_no_effect(struct judge *j)
{
    const uint32_t data[2] = { STOP, 0 };

    running(j);
    (void)feature(j, FEATURE_PROBE | FEATURE_SET | DEVICE_STATE, 16, data, sizeof(data), NULL);
    want_state(j, RUNNING, "after PROBE (SET) of MIG_DEVICE_STATE with STOP");
}

static void check_probe_no_effect_logging(struct judge *j)
{
    const uint64_t start[2] = { 4096, 0 }, report[3] = { 0, 4096, 4096 };

    (void)feature(j, FEATURE_PROBE | FEATURE_SET | LOG_START, 24, start, sizeof(start), NULL);
    want_refused(j, feature(j, FEATURE_GET | LOG_REPORT, 40, report, sizeof(report), NULL),
                 "GET of DMA_LOGGING_REPORT after PROBE (SET) of DMA_LOGGING_START");
}

/* --- Replies ----------------------------------------------------------------------------------------------------- */

/* The reply has the request's payload. */
static void same(struct judge *j, uint32_t flags, const void *data, size_t size)
{
    const uint32_t argsz = (uint32_t)(8 + size);
    struct ob_raw_message *m;

    want_ok(j, feature(j, flags, argsz, data, size, &m), name(j, flags));
    want(j, m->size == argsz, "%s: a payload of %u bytes, wanted the request's %u", name(j, flags), m->size, argsz);
    want(j, field32(j, m, 0) == argsz, "%s: argsz %u, wanted %u", name(j, flags), field32(j, m, 0), argsz);
    want(j, field32(j, m, 4) == flags, "%s: flags %#x, wanted %#x", name(j, flags), field32(j, m, 4), flags);
    want(j, size == 0 || memcmp(m->payload + 8, data, size) == 0, "%s: other data than the request's", name(j, flags));
}

static void check_set_reply(struct judge *j)
{
    const uint32_t stop[2] = { STOP, UINT32_MAX }, run[2] = { RUNNING, UINT32_MAX };

    device_begin(j);
    same(j, FEATURE_SET | DEVICE_STATE, stop, sizeof(stop));
    same(j, FEATURE_SET | DEVICE_STATE, run, sizeof(run));
}

static void check_probe_reply(struct judge *j)
{
    same(j, FEATURE_PROBE | FEATURE_GET | MIGRATION, NULL, 0);
    same(j, FEATURE_PROBE | FEATURE_GET | FEATURE_SET | DEVICE_STATE, NULL, 0);
}

static void got_8_bytes(struct judge *j, uint32_t flags, uint32_t argsz)
{
    struct ob_raw_message *m;

    want_ok(j, feature(j, flags, argsz, NULL, 0, &m), name(j, flags));
    want(j, m->size == 16, "%s: a payload of %u bytes, wanted 16", name(j, flags), m->size);
    want(j, field32(j, m, 0) == 16, "%s: argsz %u, wanted 16", name(j, flags), field32(j, m, 0));
    want(j, field32(j, m, 4) == flags, "%s: flags %#x, wanted %#x", name(j, flags), field32(j, m, 4), flags);
}

static void check_get_reply(struct judge *j)
{
    got_8_bytes(j, FEATURE_GET | MIGRATION, 16);
}

static void check_get_reply_state(struct judge *j)
{
    got_8_bytes(j, FEATURE_GET | DEVICE_STATE, 16);
}

static void check_get_large_argsz(struct judge *j)
{
    got_8_bytes(j, FEATURE_GET | MIGRATION, 4096);
    got_8_bytes(j, FEATURE_GET | DEVICE_STATE, 17);
    got_8_bytes(j, FEATURE_GET | DEVICE_STATE, UINT32_MAX);
}

/* --- What is lacking --------------------------------------------------------------------------------------------- */

static void check_lacking_get(struct judge *j)
{
    for (size_t i = 0; i < N(lacking); i++)
        refused(j, FEATURE_GET | lacking[i], 4096, NULL, 0);
}

static void check_lacking_set(struct judge *j)
{
    const uint64_t data[4] = { 0 };

    for (size_t i = 0; i < N(lacking); i++) {
        refused(j, FEATURE_SET | lacking[i], 8, NULL, 0);
        refused(j, FEATURE_SET | lacking[i], 8 + sizeof(data), data, sizeof(data));
    }
}

static void check_index_16_bits(struct judge *j)
{
    for (size_t i = 0; i < N(aliases); i++)
        refused(j, FEATURE_GET | aliases[i], 16, NULL, 0);
}

static void check_lacking_enotty(struct judge *j)
{
    const uint64_t data = 0;

    for (size_t i = 0; i < N(lacking); i++) {
        want_error(j, feature(j, FEATURE_GET | lacking[i], 16, NULL, 0, NULL), ENOTTY, "GET of what the device lacks");
        want_error(j, feature(j, FEATURE_SET | lacking[i], 16, &data, sizeof(data), NULL), ENOTTY,
                   "SET of what the device lacks");
        want_error(j, feature(j, FEATURE_PROBE | lacking[i], 8, NULL, 0, NULL), ENOTTY, "PROBE of what it lacks");
    }
}

static void check_set_migration(struct judge *j)
{
    const uint64_t flags = 1;

    refused(j, FEATURE_SET | MIGRATION, 16, &flags, sizeof(flags));
    refused(j, FEATURE_SET | MIGRATION, 8, NULL, 0);
}

static void check_get_start(struct judge *j)
{
    const uint64_t data[2] = { 4096, 0 };

    refused(j, FEATURE_GET | LOG_START, 24, NULL, 0);
    refused(j, FEATURE_GET | LOG_START, 24, data, sizeof(data));
}

static void check_get_stop(struct judge *j)
{
    refused(j, FEATURE_GET | LOG_STOP, 8, NULL, 0);
}

static void check_set_report(struct judge *j)
{
    const uint64_t data[4] = { 0, 4096, 4096, 0 };

    refused(j, FEATURE_SET | LOG_REPORT, 32, data, 24);
    refused(j, FEATURE_SET | LOG_REPORT, 40, data, 32);
}

/* --- Sizes ------------------------------------------------------------------------------------------------------- */

static void check_short_payload(struct judge *j)
{
    const uint32_t request[2] = { 16, FEATURE_GET | MIGRATION };

    for (size_t size = 0; size < sizeof(request); size++)
        want_error(j, optional_call(j, OB_RAW_FEATURE, request, size, NULL), EINVAL, "DEVICE_FEATURE of below 8 bytes");
}

static void check_argsz_get(struct judge *j)
{
    refused(j, FEATURE_GET | MIGRATION, 0, NULL, 0);
    refused(j, FEATURE_GET | MIGRATION, 7, NULL, 0);
}

static void check_argsz_probe(struct judge *j)
{
    refused(j, FEATURE_PROBE | FEATURE_GET | MIGRATION, 0, NULL, 0);
    refused(j, FEATURE_PROBE | FEATURE_GET | MIGRATION, 7, NULL, 0);
}

static void check_argsz_set(struct judge *j)
{
    const uint32_t data[2] = { STOP, 0 };

    running(j);
    refused(j, FEATURE_SET | DEVICE_STATE, 0, data, sizeof(data));
    refused(j, FEATURE_SET | DEVICE_STATE, 7, data, sizeof(data));
    want_state(j, RUNNING, "after a SET that was refused");
}

static void check_set_short(struct judge *j)
{
    const uint32_t data[2] = { STOP, 0 };

    running(j);
    for (size_t size = 0; size < sizeof(data); size++) {
        refused(j, FEATURE_SET | DEVICE_STATE, 16, data, size);
        want_state(j, RUNNING, "after a SET whose data was cut short");
    }
}

static void check_start_short(struct judge *j)
{
    const uint64_t start[2] = { 4096, 0 }, report[3] = { 0, 4096, 4096 };

    for (size_t size = 0; size < sizeof(start); size++)
        refused(j, FEATURE_SET | LOG_START, 24, start, size);
    want_refused(j, feature(j, FEATURE_GET | LOG_REPORT, 40, report, sizeof(report), NULL),
                 "GET of DMA_LOGGING_REPORT after a DMA_LOGGING_START that was cut short");
}

static void check_report_short(struct judge *j)
{
    const uint64_t start[2] = { 4096, 0 }, report[3] = { 0, 4096, 4096 };

    want_ok(j, feature(j, FEATURE_SET | LOG_START, 24, start, sizeof(start), NULL), "DMA_LOGGING_START");
    for (size_t size = 0; size < sizeof(report); size++)
        refused(j, FEATURE_GET | LOG_REPORT, 40, report, size);
    want_ok(j, feature(j, FEATURE_SET | LOG_STOP, 8, NULL, 0, NULL), "DMA_LOGGING_STOP");
}

/* Either the size that it takes, without the whole data, or EINVAL. */
static void no_room(struct judge *j, uint32_t flags)
{
    for (uint32_t argsz = 8; argsz < 16; argsz++) {
        struct ob_raw_message *m = NULL;
        const int r = feature(j, flags, argsz, NULL, 0, &m);

        if (r != 0) {
            want_error(j, r, EINVAL, name(j, flags));
            continue;
        }
        want(j, m->size <= argsz, "%s with argsz %u: a payload of %u bytes", name(j, flags), argsz, m->size);
        want(j, field32(j, m, 0) == 16, "%s with argsz %u: the reply's argsz is %u, wanted 16", name(j, flags), argsz,
             field32(j, m, 0));
    }
}

static void check_no_room(struct judge *j)
{
    no_room(j, FEATURE_GET | MIGRATION);
}

static void check_no_room_state(struct judge *j)
{
    no_room(j, FEATURE_GET | DEVICE_STATE);
}

/* clang-format off: a line or two for each check. */
#define M NEED_MIGRATION
#define L NEED_LOGGING
const struct check server_feature_checks[] = {
    { { "feature-get-and-set", "VU-FEAT-2", "GET and SET together fail with EINVAL" }, M, check_get_and_set },
    { { "feature-no-method", "VU-FEAT-3", "no method at all fails with EINVAL" }, M, check_no_method },
    { { "feature-unknown-flags-get", "VU-FEAT-3", "GET with any unknown flag fails with EINVAL" },
      M,
      check_unknown_flags_get },
    { { "feature-unknown-flags-set", "VU-FEAT-3", "SET with any unknown flag fails with EINVAL, and sets nothing" },
      M,
      check_unknown_flags_set },
    { { "feature-unknown-flags-probe", "VU-FEAT-3", "PROBE with any unknown flag fails with EINVAL" },
      M,
      check_unknown_flags_probe },
    { { "feature-probe-methods", "VU-FEAT-4", "PROBE finds the methods that migration has" }, M, check_probe_methods },
    { { "feature-probe-one-lacking", "VU-FEAT-4", "PROBE of two methods is refused if one is lacking" },
      M,
      check_probe_one_lacking },
    { { "feature-probe-logging", "VU-FEAT-4", "PROBE of methods that logging lacks is refused" },
      L,
      check_probe_logging },
    { { "feature-probe-lacking", "VU-FEAT-4", "PROBE of features that nobody has is refused" },
      0,
      check_probe_lacking },
    { { "feature-probe-agrees", "VU-FEAT-4", "what PROBE says is true, for devices that cannot migrate too" },
      0,
      check_probe_agrees },
    { { "feature-probe-no-effect", "VU-FEAT-4", "PROBE (SET) of a state does not set it" }, M, check_probe_no_effect },
    { { "feature-probe-no-effect-logging", "VU-FEAT-4", "PROBE (SET) of DMA_LOGGING_START does not start it" },
      L,
      check_probe_no_effect_logging },
    { { "feature-set-reply", "VU-FEAT-5", "the reply to SET has the request's payload" }, M, check_set_reply },
    { { "feature-probe-reply", "VU-FEAT-5", "the reply to PROBE has the request's payload" }, M, check_probe_reply },
    { { "feature-get-reply", "VU-FEAT-6", "GET of MIGRATION answers flags, data and their size" }, M, check_get_reply },
    { { "feature-get-reply-state", "VU-FEAT-6", "so does GET of MIG_DEVICE_STATE" }, M, check_get_reply_state },
    { { "feature-get-large-argsz", "VU-FEAT-6", "GET with more room answers no more" }, M, check_get_large_argsz },
    { { "feature-lacking-get", "VU-FEAT-7", "GET of features that nobody has is refused" }, 0, check_lacking_get },
    { { "feature-lacking-set", "VU-FEAT-7", "SET of features that nobody has is refused" }, 0, check_lacking_set },
    { { "feature-index-16-bits", "VU-FEAT-7", "all 16 bits of a feature's number count" }, 0, check_index_16_bits },
    { { "feature-lacking-enotty", "VU-FEAT-8", "features that nobody has fail with ENOTTY" }, 0, check_lacking_enotty },
    { { "feature-set-migration", "VU-FEAT-9", "SET of MIGRATION is refused" }, M, check_set_migration },
    { { "feature-get-start", "VU-FEAT-9", "GET of DMA_LOGGING_START is refused" }, L, check_get_start },
    { { "feature-get-stop", "VU-FEAT-9", "GET of DMA_LOGGING_STOP is refused" }, L, check_get_stop },
    { { "feature-set-report", "VU-FEAT-9", "SET of DMA_LOGGING_REPORT is refused" }, L, check_set_report },
    { { "feature-short-payload", "VU-HDR-19", "every truncation of DEVICE_FEATURE fails with EINVAL" },
      0,
      check_short_payload },
    { { "feature-argsz-get", "VU-FEAT-10", "GET with argsz below 8 is refused" }, M, check_argsz_get },
    { { "feature-argsz-probe", "VU-FEAT-10", "PROBE with argsz below 8 is refused" }, M, check_argsz_probe },
    { { "feature-argsz-set", "VU-FEAT-10", "SET with argsz below 8 is refused, and sets nothing" },
      M,
      check_argsz_set },
    { { "feature-set-short", "VU-FEAT-10", "SET of a state whose data is cut short is refused, and sets nothing" },
      M,
      check_set_short },
    { { "feature-start-short", "VU-FEAT-10", "DMA_LOGGING_START whose data is cut short is refused" },
      L,
      check_start_short },
    { { "feature-report-short", "VU-FEAT-10", "DMA_LOGGING_REPORT whose data is cut short is refused" },
      L,
      check_report_short },
    { { "feature-no-room", "VU-FEAT-11", "GET of MIGRATION with an argsz from 8 to 15 does not answer it whole" },
      M,
      check_no_room },
    { { "feature-no-room-state", "VU-FEAT-11", "so does GET of MIG_DEVICE_STATE" }, M, check_no_room_state },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
