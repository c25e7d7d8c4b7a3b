/* log.c: VU-LOG: the commands of DMA logging, by what a server answers. */
#include "log.h"

#define SET VFIO_DEVICE_FEATURE_SET
#define GET VFIO_DEVICE_FEATURE_GET

#define HEAD   8u  /* of DEVICE_FEATURE: argsz, flags */
#define REPORT 24u /* of DMA_LOGGING_REPORT, before the bitmap */

/* --- The commands ------------------------------------------------------------------------------------------------ */

static int feature(struct judge *j, uint32_t flags, uint32_t argsz, const void *data, size_t size,
                   struct ob_raw_message **reply)
{
    const uint32_t head[2] = { argsz, flags };
    uint8_t *payload = judge_alloc(j, HEAD + size);

    memcpy(payload, head, HEAD);
    if (size > 0)
        memcpy(payload + HEAD, data, size);
    return call(j, OB_RAW_FEATURE, payload, HEAD + size, NULL, 0, reply);
}

int log_start_as(struct judge *j, uint64_t page_size, uint32_t says, const struct log_range *ranges, uint32_t n,
                 struct ob_raw_message **reply)
{
    const size_t size = 16 + n * sizeof(*ranges);
    uint8_t *data = judge_alloc(j, size);

    memcpy(data, &page_size, sizeof(page_size));
    memcpy(data + 8, &says, sizeof(says));
    if (n > 0)
        memcpy(data + 16, ranges, n * sizeof(*ranges));
    return feature(j, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, HEAD + (uint32_t)size, data, size, reply);
}

uint64_t log_start(struct judge *j, uint64_t page_size, const struct log_range *ranges, uint32_t n)
{
    struct ob_raw_message *reply;
    uint64_t used;

    want_ok(j, log_start_as(j, page_size, n, ranges, n, &reply), "DMA_LOGGING_START");
    used = field64(j, reply, HEAD);
    want(j, used != 0 && (used & (used - 1)) == 0, "DMA_LOGGING_START: the device logs with pages of %#llx bytes",
         (unsigned long long)used);
    return used;
}

int log_stop(struct judge *j)
{
    return feature(j, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, HEAD, NULL, 0, NULL);
}

int log_report_as(struct judge *j, struct log_range range, uint64_t page_size, uint32_t room,
                  struct ob_raw_message **reply)
{
    const uint64_t data[3] = { range.iova, range.length, page_size };

    return feature(j, GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, HEAD + REPORT + room, data, sizeof(data), reply);
}

static uint32_t log_words(struct log_range range, uint64_t page_size)
{
    const uint64_t pages = (range.length - 1) / page_size + 1;

    return (uint32_t)((pages + 63) / 64);
}

const uint64_t *log_report(struct judge *j, struct log_range range, uint64_t page_size)
{
    const uint32_t size = log_words(range, page_size) * 8;
    uint64_t *bitmap = judge_alloc(j, size);
    struct ob_raw_message *reply;
    char what[128];

    snprintf(what, sizeof(what), "DMA_LOGGING_REPORT of %#llx bytes at %#llx by %#llx",
             (unsigned long long)range.length, (unsigned long long)range.iova, (unsigned long long)page_size);
    want_ok(j, log_report_as(j, range, page_size, size, &reply), what);
    want(j, reply->size == HEAD + REPORT + size, "%s: a payload of %u bytes, wanted %u and %u of bitmap", what,
         reply->size, HEAD + REPORT, size);
    want(j,
         field64(j, reply, 8) == range.iova && field64(j, reply, 16) == range.length &&
             field64(j, reply, 24) == page_size,
         "%s: the reply has %#llx bytes at %#llx by %#llx", what, (unsigned long long)field64(j, reply, 16),
         (unsigned long long)field64(j, reply, 8), (unsigned long long)field64(j, reply, 24));
    memcpy(bitmap, reply->payload + HEAD + REPORT, size);
    return bitmap;
}

void log_needs_parts(struct judge *j, uint64_t page_size)
{
    if (log_report_as(j, (struct log_range){ GUEST_TO + page_size, page_size }, page_size, 8, NULL) != 0)
        judge_skip(j, "reports that begin within a map are refused");
}

uint64_t log_word(struct judge *j, struct log_range range, uint64_t page_size)
{
    return log_report(j, range, page_size)[0];
}

/* --- What is answered -------------------------------------------------------------------------------------------- */

static struct log_range pages(struct judge *j, uint64_t number)
{
    return (struct log_range){ GUEST_TO, number * j->facts.page };
}

/* So many pages that a server may have to find mapped. */
#define MAPPED 1024

static void mapped(struct judge *j, uint64_t number)
{
    const uint64_t size = number * j->facts.page;

    want_ok(j, map(j, GUEST_TO, size, GUEST_BOTH, judge_memfd(j, size), 0), "DMA_MAP");
}

static void check_reply(struct judge *j)
{
    const struct log_range ranges[] = { { GUEST_TO, 16 * j->facts.page }, { GUEST_FROM, j->facts.page } };
    struct ob_raw_message *reply;

    want_ok(j, log_start_as(j, j->facts.page, 2, ranges, 2, &reply), "DMA_LOGGING_START with two ranges");
    want(j, reply->size == HEAD + 16 + sizeof(ranges), "a payload of %u bytes, wanted the request's %zu", reply->size,
         HEAD + 16 + sizeof(ranges));
    want(j, field32(j, reply, 4) == (SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START), "the reply's flags are %#x",
         field32(j, reply, 4));
    want(j, field32(j, reply, HEAD + 8) == 2 && memcmp(reply->payload + HEAD + 16, ranges, sizeof(ranges)) == 0,
         "the reply does not repeat num_ranges and the ranges");
}

static void hinted(struct judge *j, const uint64_t *hints, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        log_start(j, hints[i], NULL, 0);
        want_ok(j, log_stop(j), "DMA_LOGGING_STOP");
    }
}

/* Page sizes nobody could log with are hints like others. */
static void check_hints(struct judge *j)
{
    static const uint64_t hints[] = { 1, 512, 4096, 8192, 65536, 1 << 21, 1 << 30, 1ull << 63 };

    hinted(j, hints, sizeof(hints) / sizeof(*hints));
}

static void check_hint_large(struct judge *j)
{
    static const uint64_t hints[] = { 1 << 21, 1 << 30, 1ull << 63 };

    mapped(j, 1);
    hinted(j, hints, sizeof(hints) / sizeof(*hints));
}

static void check_hint_odd(struct judge *j)
{
    static const uint64_t hints[] = { 0, 3, 12288, UINT64_MAX };

    hinted(j, hints, sizeof(hints) / sizeof(*hints));
}

static void check_layout(struct judge *j)
{
    static const uint64_t numbers[] = { 1, 63, 64, 65, 128, 1000 };

    mapped(j, MAPPED);
    log_start(j, j->facts.page, NULL, 0);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        log_report(j, pages(j, numbers[i]), j->facts.page);
}

static void check_part(struct judge *j)
{
    const uint64_t page = j->facts.page;

    mapped(j, MAPPED);
    log_start(j, page, NULL, 0);
    log_report(j, (struct log_range){ GUEST_TO + 5 * page, 64 * page }, page);
    log_report(j, (struct log_range){ GUEST_TO + 64 * page, 128 * page }, page);
}

static void check_not_started(struct judge *j)
{
    mapped(j, MAPPED);
    want_refused(j, log_report_as(j, pages(j, 1), j->facts.page, 8, NULL), "DMA_LOGGING_REPORT without a start");
}

static void check_stopped(struct judge *j)
{
    mapped(j, MAPPED);
    log_start(j, j->facts.page, NULL, 0);
    want_ok(j, log_stop(j), "DMA_LOGGING_STOP");
    want_refused(j, log_report_as(j, pages(j, 1), j->facts.page, 8, NULL), "DMA_LOGGING_REPORT after a stop");
}

static void check_stop(struct judge *j)
{
    mapped(j, MAPPED);
    log_start(j, j->facts.page, NULL, 0);
    want_ok(j, log_stop(j), "DMA_LOGGING_STOP");
    log_start(j, j->facts.page, NULL, 0);
    log_report(j, pages(j, 1), j->facts.page);
}

static void report_refused(struct judge *j, struct log_range range, uint64_t page_size)
{
    char what[128];

    snprintf(what, sizeof(what), "DMA_LOGGING_REPORT of %#llx bytes at %#llx by %#llx",
             (unsigned long long)range.length, (unsigned long long)range.iova, (unsigned long long)page_size);
    want_error(j, log_report_as(j, range, page_size, 64, NULL), EINVAL, what);
}

static void check_page_size(struct judge *j)
{
    static const uint64_t wrong[] = { 0, 3, 4095, 4097, 12288, (1ull << 63) + 4096, UINT64_MAX };

    mapped(j, MAPPED);
    log_start(j, j->facts.page, NULL, 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        report_refused(j, pages(j, 3), wrong[i]);
    log_report(j, pages(j, 3), j->facts.page);
}

static void check_length_zero(struct judge *j)
{
    mapped(j, MAPPED);
    log_start(j, j->facts.page, NULL, 0);
    report_refused(j, pages(j, 0), j->facts.page);
    report_refused(j, (struct log_range){ 0, 0 }, j->facts.page);
}

static void check_report_wrap(struct judge *j)
{
    const uint64_t page = j->facts.page;

    mapped(j, MAPPED);
    log_start(j, page, NULL, 0);
    report_refused(j, (struct log_range){ -page, 2 * page }, page);
    report_refused(j, (struct log_range){ 2 * page, -page }, page);
    report_refused(j, (struct log_range){ -page, -page }, 1ull << 63);
}

/* None of the refused starts has begun to log. */
static void start_refused(struct judge *j, uint32_t says, const struct log_range *ranges, uint32_t n)
{
    char what[160];

    snprintf(what, sizeof(what),
             "DMA_LOGGING_START with num_ranges %u and %u ranges, of which the first has %#llx "
             "bytes at %#llx",
             says, n, (unsigned long long)(n > 0 ? ranges[0].length : 0),
             (unsigned long long)(n > 0 ? ranges[0].iova : 0));
    want_error(j, log_start_as(j, j->facts.page, says, ranges, n, NULL), EINVAL, what);
    want_refused(j, log_report_as(j, pages(j, 1), j->facts.page, 8, NULL),
                 "DMA_LOGGING_REPORT after DMA_LOGGING_START failed");
}

static void check_start_wrap(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct log_range ranges[] = { { -page, 2 * page }, { GUEST_TO, page } };

    start_refused(j, 1, ranges, 1);
    start_refused(j, 2, ranges, 2);
    ranges[0] = (struct log_range){ 2 * page, -page };
    start_refused(j, 1, ranges, 1);
}

static void check_start_length_zero(struct judge *j)
{
    const struct log_range ranges[] = { { GUEST_TO, 0 }, { GUEST_FROM, j->facts.page } };

    start_refused(j, 1, ranges, 1);
    start_refused(j, 2, ranges, 2);
}

/* 2^28 ranges have 2^32 bytes. */
static void check_more_ranges(struct judge *j)
{
    static const uint32_t says[] = { 2, 3, 0x10000000, 0x10000001, 0x80000001, UINT32_MAX };
    const struct log_range range = pages(j, 1);

    for (size_t i = 0; i < sizeof(says) / sizeof(*says); i++)
        start_refused(j, says[i], &range, 1);
    start_refused(j, 1, NULL, 0);
}

static void check_fewer_ranges(struct judge *j)
{
    const struct log_range ranges[] = { pages(j, 1), { GUEST_FROM, j->facts.page } };

    start_refused(j, 0, ranges, 1);
    start_refused(j, 1, ranges, 2);
}

/* Refused, or answered with what it takes; the whole is never there. */
static void want_no_room(struct judge *j, struct log_range range, uint64_t page_size, uint32_t room)
{
    struct ob_raw_message *reply;
    int r = log_report_as(j, range, page_size, room, &reply);
    char what[128];

    snprintf(what, sizeof(what), "DMA_LOGGING_REPORT of %#llx bytes with room for %u of bitmap",
             (unsigned long long)range.length, room);
    if (got(j, r, what) != 0)
        return;
    want(j, field32(j, reply, 0) > HEAD + REPORT + room, "%s: succeeded with an argsz of %u, wanted more, or an error",
         what, field32(j, reply, 0));
    want(j, reply->size <= HEAD + REPORT + room, "%s: a payload of %u bytes", what, reply->size);
}

static void check_too_large(struct judge *j)
{
    static const uint64_t lengths[] = { 1ull << 36, 1ull << 46, 1ull << 63, UINT64_MAX - 4095 };

    log_start(j, j->facts.page, NULL, 0);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        /* At 2^63 bytes by 4096 the bitmap has 2^48. */
        if (lengths[i] / j->facts.page / 8 > 1 << 20)
            want_no_room(j, (struct log_range){ 0, lengths[i] }, j->facts.page, 1 << 20);
    }
    want_alive(j, "after reports that no message has room for");
}

/* Whatever a device says of its DMA: where nothing was written nothing is dirty. A server that does not know the
 * command may not know where its message ends either, which is for others to judge: each refusal ends a connection. */
static void check_nothing(struct judge *j)
{
    const struct log_range range = pages(j, 64);

    device_on(j, false);
    mapped(j, 64);
    if (got(j, log_start_as(j, j->facts.page, 0, NULL, 0, NULL), "DMA_LOGGING_START") == 0) {
        uint64_t bits = log_word(j, range, j->facts.page);

        want(j, bits == 0, "bits %#llx of 64 pages that nobody wrote to", (unsigned long long)bits);
        want_ok(j, log_stop(j), "DMA_LOGGING_STOP");
    } else {
        judge_reconnect(j);
        want_refused(j, log_report_as(j, range, j->facts.page, 8, NULL),
                     "DMA_LOGGING_REPORT where DMA_LOGGING_START was refused");
        judge_reconnect(j);
        if (got(j, log_stop(j), "DMA_LOGGING_STOP") != 0)
            judge_reconnect(j);
    }
    want_alive(j, "after commands of DMA logging");
}

static void check_probe(struct judge *j)
{
    static const struct {
        uint32_t flags;
        const char *name;
    } parts[] = { { SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, "DMA_LOGGING_START" },
                  { SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, "DMA_LOGGING_STOP" },
                  { GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, "DMA_LOGGING_REPORT" } };
    const bool can = j->facts.has & NEED_LOGGING;

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        int r = got(j, feature(j, parts[i].flags | VFIO_DEVICE_FEATURE_PROBE, HEAD, NULL, 0, NULL), parts[i].name);

        if (r != 0)
            judge_reconnect(j); /* as above */
        want(j, (r == 0) == can, "PROBE of %s %s, and that of DMA_LOGGING_START %s", parts[i].name,
             r == 0 ? "succeeds" : "fails", can ? "succeeds" : "fails");
    }
}

const struct check server_log_checks[] = {
    { { "log-start-reply", "VU-LOG-3", "the reply to DMA_LOGGING_START repeats the ranges" },
      NEED_LOGGING,
      check_reply },
    { { "log-hints", "VU-LOG-3", "any power of two is taken as a hint" }, NEED_LOGGING, check_hints },
    { { "log-hint-large", "VU-LOG-3", "so it is if it is larger than what is mapped" },
      NEED_LOGGING,
      check_hint_large },
    { { "log-hint-odd", "VU-LOG-24", "so are 0 and what is no power of two" }, NEED_LOGGING, check_hint_odd },
    { { "log-report-layout", "VU-LOG-6", "a report has whole words, and as many as it takes" },
      NEED_LOGGING,
      check_layout },
    { { "log-part", "VU-LOG-6", "a report begins and ends anywhere within a map" }, NEED_LOGGING, check_part },
    { { "log-not-started", "VU-LOG-12", "a report without a start is refused" }, NEED_LOGGING, check_not_started },
    { { "log-stopped", "VU-LOG-12", "a report after a stop is refused" }, NEED_LOGGING, check_stopped },
    { { "log-stop", "VU-LOG-13", "logging is stopped, and started again" }, NEED_LOGGING, check_stop },
    { { "log-page-size", "VU-LOG-14", "a report's page_size that is no power of two fails with EINVAL" },
      NEED_LOGGING,
      check_page_size },
    { { "log-length-zero", "VU-LOG-14", "a report of length 0 fails with EINVAL" }, NEED_LOGGING, check_length_zero },
    { { "log-report-wrap", "VU-LOG-14", "a report whose range wraps around fails with EINVAL" },
      NEED_LOGGING,
      check_report_wrap },
    { { "log-start-wrap", "VU-LOG-23", "a start with a range that wraps around fails with EINVAL" },
      NEED_LOGGING,
      check_start_wrap },
    { { "log-start-length-zero", "VU-LOG-23", "a start with a range of length 0 fails with EINVAL" },
      NEED_LOGGING,
      check_start_length_zero },
    { { "log-more-ranges", "VU-LOG-15", "a num_ranges above what is there fails with EINVAL" },
      NEED_LOGGING,
      check_more_ranges },
    { { "log-fewer-ranges", "VU-LOG-15", "a num_ranges below what is there fails with EINVAL" },
      NEED_LOGGING,
      check_fewer_ranges },
    { { "log-too-large", "VU-LOG-19", "a report that no message has room for is not given" },
      NEED_LOGGING,
      check_too_large },
    { { "log-nothing", "VU-LOG-20", "logging where nothing is written is refused, or finds nothing" },
      0,
      check_nothing },
    { { "log-probe", "VU-LOG-21", "PROBE says that all three features are there, or none" }, 0, check_probe },
    { { NULL, NULL, NULL }, 0, NULL },
};
