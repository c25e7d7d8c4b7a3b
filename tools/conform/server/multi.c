/* multi.c: VU-MULTI: REGION_WRITE_MULTI: order, counts, and failures among several writes. */
#include "access.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX
#define MOST   256

/* The writes of a message. */
struct writes {
    unsigned n;
    struct ob_raw_one_write at[MOST];
};

static struct writes *none(struct judge *j)
{
    return judge_alloc(j, sizeof(struct writes));
}

static void add(struct writes *w, uint32_t region, uint64_t offset, const uint8_t data[8], uint32_t count)
{
    struct ob_raw_one_write *one = &w->at[w->n++];

    *one = (struct ob_raw_one_write){ .offset = offset, .region = region, .count = count };
    memcpy(one->data, data, 8);
}

static void add_place(struct writes *w, const struct place *p, unsigned seed)
{
    uint8_t bytes[8];

    place_bytes(p, seed, bytes);
    add(w, p->region, p->offset, bytes, p->size);
}

static uint8_t *payload(struct judge *j, const struct writes *w, uint64_t wr_cnt)
{
    uint8_t *bytes = judge_alloc(j, 8 + sizeof(w->at));

    memcpy(bytes, &wr_cnt, 8);
    memcpy(bytes + 8, w->at, w->n * sizeof(w->at[0]));
    return bytes;
}

/* 0 or the errno. */
static int send(struct judge *j, const struct writes *w, struct ob_raw_message **reply)
{
    return call(j, OB_RAW_WRITE_MULTI, payload(j, w, w->n), 8 + w->n * sizeof(w->at[0]), NULL, 0, reply);
}

static void send_ok(struct judge *j, const struct writes *w)
{
    struct ob_raw_message *m;
    char what[64];

    snprintf(what, sizeof(what), "REGION_WRITE_MULTI of %u writes", w->n);
    want_ok(j, send(j, w, &m), what);
    want(j, field64(j, m, 0) == w->n, "%s: the reply says that %llu were completed", what,
         (unsigned long long)field64(j, m, 0));
}

static void send_posted(struct judge *j, const struct writes *w, uint64_t wr_cnt)
{
    post(j, OB_RAW_WRITE_MULTI, payload(j, w, wr_cnt), 8 + w->n * sizeof(w->at[0]), NULL, 0);
}

/* --- Writes that succeed ----------------------------------------------------------------------------------------- */

static void last_counts(struct judge *j, const struct place *p)
{
    struct writes *w = none(j);

    for (unsigned seed = 1; seed <= 16; seed++)
        add_place(w, p, seed);
    send_ok(j, w);
    want_place(j, p, 16, "after 16 writes in one message");
}

static void multi_last(struct judge *j)
{
    each_place(j, last_counts);
}

/* Each overwrites all but the first byte of the last. */
static void overlap(struct judge *j, const struct place *p)
{
    struct writes *w = none(j);
    uint8_t bytes[8], is[8];

    if (!p->memory)
        return;
    for (unsigned i = 0; i < 8; i++) {
        place_bytes(p, 1 + i, bytes);
        memmove(bytes, bytes + i, 8 - i);
        add(w, p->region, p->offset + i, bytes, 8 - i);
    }
    send_ok(j, w);
    want_ok(j, region_read(j, p->region, p->offset, is, 8), "reading memory");
    for (unsigned i = 0; i < 8; i++)
        want(j, is[i] == (uint8_t)(p->was[i] ^ (1 + i + i)),
             "%s: byte %u is %#x after 8 writes that overlap, wanted %#x: they were not executed in order", p->name, i,
             is[i], (uint8_t)(p->was[i] ^ (1 + i + i)));
}

static void multi_overlap(struct judge *j)
{
    each_place(j, overlap);
}

/* Of the 8 bytes of data, the first count are written. */
static void first_bytes(struct judge *j, const struct place *p)
{
    uint8_t bytes[8], is[8];

    if (!p->memory)
        return;
    place_bytes(p, 1, bytes);
    for (uint32_t count = 1; count <= 8; count++) {
        struct writes *w = none(j);

        place_write(j, p, 0);
        add(w, p->region, p->offset, bytes, count);
        send_ok(j, w);
        want_ok(j, region_read(j, p->region, p->offset, is, 8), "reading memory");
        for (uint32_t i = 0; i < 8; i++)
            want(j, is[i] == (i < count ? bytes[i] : p->was[i]),
                 "%s: byte %u is %#x after a write of %u bytes, wanted %#x", p->name, i, is[i], count,
                 i < count ? bytes[i] : p->was[i]);
    }
}

static void multi_first_bytes(struct judge *j)
{
    each_place(j, first_bytes);
}

/* As many to each place, by turns. */
static void multi_regions(struct judge *j)
{
    struct places *places = find_places(j);
    struct writes *w = none(j);

    if (places->n == 1)
        judge_skip(j, "only one place of this device is known to keep what is written to it");
    for (unsigned seed = 1; seed <= 2; seed++) {
        for (unsigned i = 0; i < places->n; i++)
            add_place(w, &places->at[i], seed + i % 64);
    }
    send_ok(j, w);
    for (unsigned i = 0; i < places->n; i++)
        want_place(j, &places->at[i], 2 + i % 64, "after writes to several regions in one message");
    restore_places(j, places);
}

static void multi_reply(struct judge *j)
{
    struct places *places = find_places(j);

    for (unsigned n = 1; n <= 8; n++) {
        struct writes *w = none(j);
        struct ob_raw_message *m;

        for (unsigned i = 0; i < n; i++)
            add_place(w, &places->at[0], i + 1);
        want_ok(j, send(j, w, &m), "REGION_WRITE_MULTI");
        want(j, m->size == 8 && m->nfds == 0,
             "a reply with a payload of %u bytes and %u descriptors, wanted 8 and none", m->size, m->nfds);
        want(j, field64(j, m, 0) == n, "%u writes succeeded, and the reply says %llu", n,
             (unsigned long long)field64(j, m, 0));
    }
    restore_places(j, places);
}

static void multi_two_hundred(struct judge *j)
{
    struct places *places = find_places(j);
    struct writes *w = none(j);

    for (unsigned i = 0; i < 200; i++)
        add_place(w, &places->at[i % places->n], 1 + i / places->n);
    send_ok(j, w);
    for (unsigned i = 200 - (places->n < 200 ? places->n : 200); i < 200; i++)
        want_place(j, &places->at[i % places->n], 1 + i / places->n, "after 200 writes in one message");
    restore_places(j, places);
}

static void multi_zero(struct judge *j)
{
    struct ob_raw_message *m;
    int r = send(j, none(j), &m);

    if (r != 0)
        want_error(j, r, EINVAL, "REGION_WRITE_MULTI with wr_cnt 0");
    else
        want(j, field64(j, m, 0) == 0, "wr_cnt 0: the reply says that %llu writes were completed",
             (unsigned long long)field64(j, m, 0));
}

/* --- Counts that lie --------------------------------------------------------------------------------------------- */

/* Two writes to each place with another wr_cnt and `more` bytes behind: EINVAL, and nothing is written. */
static void lies(struct judge *j, uint64_t wr_cnt, int more)
{
    struct places *places = find_places(j);

    for (unsigned i = 0; i < places->n; i++) {
        const struct place *p = &places->at[i];
        struct writes *w = none(j);
        char what[160];

        add_place(w, p, 1);
        add_place(w, p, 2);
        snprintf(what, sizeof(what), "wr_cnt %#llx with a payload for 2 writes%s", (unsigned long long)wr_cnt,
                 more == 0  ? ""
                 : more > 0 ? " and more"
                            : ", cut short");
        want_error(j,
                   call(j, OB_RAW_WRITE_MULTI, payload(j, w, wr_cnt), (size_t)(8 + 2 * (int)sizeof(w->at[0]) + more),
                        NULL, 0, NULL),
                   EINVAL, what);
        want_place(j, p, 0, what);
    }
}

static void multi_more(struct judge *j)
{
    lies(j, 3, 0);
    lies(j, 0x7fffffff, 0);
    lies(j, UINT64_MAX, 0);
}

static void multi_fewer(struct judge *j)
{
    lies(j, 1, 0);
    lies(j, 0, 0);
}

/* Times 24 this is 48, modulo 2^64 or 2^32. */
static void multi_wraps(struct judge *j)
{
    lies(j, (1ull << 61) + 2, 0);
    lies(j, (1ull << 32) + 2, 0);
    lies(j, (1ull << 29) + 2, 0);
}

static void multi_cut(struct judge *j)
{
    lies(j, 2, -1);
    lies(j, 2, -8);
    lies(j, 2, -23);
}

static void multi_longer(struct judge *j)
{
    lies(j, 2, 1);
    lies(j, 2, 8);
    lies(j, 2, 23);
}

static void multi_truncated(struct judge *j)
{
    const uint64_t zero = 0;
    char what[64];

    for (size_t n = 0; n < 8; n++) {
        snprintf(what, sizeof(what), "REGION_WRITE_MULTI with %zu bytes of payload", n);
        want_error(j, call(j, OB_RAW_WRITE_MULTI, &zero, n, NULL, 0, NULL), EINVAL, what);
    }
}

static const uint32_t wide[] = { 9, 16, 0x80000008, 0xffffffff };

/* Two writes, one of them with a count above 8: 0 or the errno. */
static int send_wide(struct judge *j, const struct place *p, uint32_t count, bool first, struct ob_raw_message **reply,
                     char what[96])
{
    struct writes *w = none(j);

    add_place(w, p, 1);
    add_place(w, p, 2);
    w->at[first ? 0 : 1].count = count;
    snprintf(what, 96, "two writes of %s, the %s with count %u", p->name, first ? "first" : "second", count);
    return send(j, w, reply);
}

/* The other write may be done, and then counts. */
static void too_wide(struct judge *j, const struct place *p)
{
    struct ob_raw_message *m;
    char what[96];

    for (size_t i = 0; i < sizeof(wide) / sizeof(*wide); i++) {
        for (unsigned first = 0; first < 2; first++) {
            int r = send_wide(j, p, wide[i], first != 0, &m, what);

            want(j, r != 0 || field64(j, m, 0) <= 1, "%s: the reply says that %llu were completed", what,
                 (unsigned long long)field64(j, m, 0));
            want(j, !place_holds(j, p, first != 0 ? 1 : 2), "%s: it was done", what);
            place_write(j, p, 0);
        }
    }
}

static void multi_too_wide(struct judge *j)
{
    each_place(j, too_wide);
}

static void too_wide_refused(struct judge *j, const struct place *p)
{
    char what[96];

    for (unsigned first = 0; first < 2; first++) {
        int r = send_wide(j, p, wide[0], first != 0, NULL, what);

        want_error(j, r, EINVAL, what);
        want_place(j, p, 0, what);
    }
}

static void multi_too_wide_refused(struct judge *j)
{
    each_place(j, too_wide_refused);
}

/* --- Failures ---------------------------------------------------------------------------------------------------- */

/* A write that every server refuses. */
static struct ob_raw_one_write no_region(const struct judge *j)
{
    return (struct ob_raw_one_write){ .region = j->facts.regions, .count = 4 };
}

static struct ob_raw_one_write beyond_config(const struct judge *j)
{
    return (struct ob_raw_one_write){ .offset = j->facts.region[CONFIG].size, .region = CONFIG, .count = 4 };
}

static struct ob_raw_one_write wraps(const struct judge *j)
{
    return (struct ob_raw_one_write){ .offset = UINT64_MAX - 1, .region = CONFIG, .count = 4 };
}

/* Two writes, one that fails, and a third, to one place after the other: the third is not executed. The reply, if it is
 * none of failure, says 2, and they were. */
static void stops(struct judge *j, struct ob_raw_one_write bad)
{
    struct places *places = find_places(j);

    for (unsigned i = 0; i < places->n; i++) {
        const struct place *p = &places->at[i];
        struct ob_raw_message *m;
        struct writes *w = none(j);
        int r;

        add_place(w, p, 1);
        add_place(w, p, 2);
        w->at[w->n++] = bad;
        add_place(w, p, 3);
        r = send(j, w, &m);
        want(j, !place_holds(j, p, 3), "%s: the write behind one that failed, of region %u at %#llx, was executed",
             p->name, bad.region, (unsigned long long)bad.offset);
        if (r == 0) {
            want(j, field64(j, m, 0) == 2,
                 "%s: the third of 4 writes fails, and the reply says that %llu were completed", p->name,
                 (unsigned long long)field64(j, m, 0));
            want_place(j, p, 2, "after a message that says that 2 writes were completed");
        }
        place_write(j, p, 0);
    }
}

static void multi_stops_region(struct judge *j)
{
    stops(j, no_region(j));
}

static void multi_stops_range(struct judge *j)
{
    stops(j, beyond_config(j));
    stops(j, wraps(j));
}

static void multi_stops_read_only(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];

        if (r->size >= 4 && !(r->flags & VFIO_REGION_INFO_FLAG_WRITE)) {
            stops(j, (struct ob_raw_one_write){ .region = i, .count = 4 });
            return;
        }
    }
    judge_skip(j, "every region can be written");
}

/* Whatever is done behind one that fails: it is not counted itself. */
static void multi_failure_counts(struct judge *j)
{
    struct places *places = find_places(j);

    for (unsigned at = 0; at < 3; at++) {
        struct ob_raw_message *m;
        struct writes *w = none(j);

        add_place(w, &places->at[0], 1);
        add_place(w, &places->at[0], 2);
        w->at[w->n++] = w->at[at < 2 ? at : 0];
        w->at[at] = no_region(j);
        want(j, send(j, w, &m) != 0 || field64(j, m, 0) <= 2,
             "3 writes, of which the one at %u fails: the reply says that %llu were completed", at,
             (unsigned long long)field64(j, m, 0));
    }
    restore_places(j, places);
}

static void multi_first_fails(struct judge *j)
{
    struct places *places = find_places(j);
    struct ob_raw_message *m;
    struct writes *w = none(j);
    int r;

    w->at[w->n++] = no_region(j);
    add_place(w, &places->at[0], 1);
    r = send(j, w, &m);
    want(j, r != 0 || field64(j, m, 0) == 0, "the first of 2 writes fails, and the reply says that %llu were completed",
         (unsigned long long)field64(j, m, 0));
    want_place(j, &places->at[0], 0, "behind a first write that failed");
}

static void multi_error_first(struct judge *j)
{
    struct places *places = find_places(j);
    struct writes *w = none(j);

    add_place(w, &places->at[0], 1);
    w->at[w->n++] = no_region(j);
    want_ok(j, send(j, w, NULL), "a message whose second write fails");
    restore_places(j, places);
    w = none(j);
    w->at[w->n++] = no_region(j);
    add_place(w, &places->at[0], 1);
    want_refused(j, send(j, w, NULL), "a message whose first write fails");
}

/* --- Posted ------------------------------------------------------------------------------------------------------ */

static void posted(struct judge *j, const struct place *p)
{
    struct writes *w = none(j);

    add_place(w, p, 1);
    add_place(w, p, 2);
    send_posted(j, w, 2);
    want_alive(j, "behind a posted REGION_WRITE_MULTI");
    want_place(j, p, 2, "after a posted REGION_WRITE_MULTI");
}

static void multi_posted(struct judge *j)
{
    each_place(j, posted);
}

static void multi_posted_fails(struct judge *j)
{
    struct places *places = find_places(j);
    struct writes *w = none(j);

    add_place(w, &places->at[0], 1);
    w->at[w->n++] = no_region(j);
    add_place(w, &places->at[0], 2);
    send_posted(j, w, 3);
    want_alive(j, "behind a posted REGION_WRITE_MULTI whose second write fails");
    w = none(j);
    w->at[w->n++] = no_region(j);
    send_posted(j, w, 1);
    want_alive(j, "behind a posted REGION_WRITE_MULTI whose only write fails");
    restore_places(j, places);
}

static void multi_posted_lies(struct judge *j)
{
    struct places *places = find_places(j);
    struct writes *w = none(j);

    add_place(w, &places->at[0], 1);
    send_posted(j, w, 2);
    send_posted(j, w, UINT64_MAX);
    w->at[0].count = 9;
    send_posted(j, w, 1);
    want_alive(j, "behind posted REGION_WRITE_MULTI that are malformed");
    want_place(j, &places->at[0], 0, "after posted REGION_WRITE_MULTI that are malformed");
}

const struct check server_multi_checks[] = {
    { { "multi-last", "VU-MULTI-2", "of writes to one place the last counts" }, NEED_MULTI, multi_last },
    { { "multi-overlap", "VU-MULTI-2", "writes that overlap are executed in order" },
      NEED_MULTI | NEED_MAPPABLE,
      multi_overlap },
    { { "multi-first-bytes", "VU-MULTI-2", "of the data of a write, the first count bytes are written" },
      NEED_MULTI | NEED_MAPPABLE,
      multi_first_bytes },
    { { "multi-reply", "VU-MULTI-3", "the reply is the number of writes completed" }, NEED_MULTI, multi_reply },
    { { "multi-count-more", "VU-MULTI-4", "a wr_cnt beyond the payload fails with EINVAL and writes nothing" },
      NEED_MULTI,
      multi_more },
    { { "multi-count-fewer", "VU-HDR-20", "a wr_cnt below the payload's fails with EINVAL and writes nothing" },
      NEED_MULTI,
      multi_fewer },
    { { "multi-count-wraps", "VU-MULTI-4", "a wr_cnt that wraps to the payload's size fails with EINVAL" },
      NEED_MULTI,
      multi_wraps },
    { { "multi-cut", "VU-MULTI-4", "a payload that ends in a write fails with EINVAL and writes nothing" },
      NEED_MULTI,
      multi_cut },
    { { "multi-longer", "VU-HDR-20", "a payload with a part of a further write fails with EINVAL" },
      NEED_MULTI,
      multi_longer },
    { { "multi-too-wide", "VU-MULTI-5", "a write of more than 8 bytes is not done" }, NEED_MULTI, multi_too_wide },
    { { "multi-too-wide-refused", "VU-MULTI-13",
        "a message with a write of more than 8 bytes fails with EINVAL, and none is done" },
      NEED_MULTI,
      multi_too_wide_refused },
    { { "multi-failure-counts", "VU-MULTI-3", "a write that fails is not counted" }, NEED_MULTI, multi_failure_counts },
    { { "multi-stops-region", "VU-MULTI-6",
        "a write of no region ends the command, and the reply counts those before" },
      NEED_MULTI,
      multi_stops_region },
    { { "multi-stops-range", "VU-MULTI-6", "a write beyond a region's end ends the command" },
      NEED_MULTI,
      multi_stops_range },
    { { "multi-stops-read-only", "VU-MULTI-6", "a write of a region without the flag WRITE ends the command" },
      NEED_MULTI,
      multi_stops_read_only },
    { { "multi-first-fails", "VU-MULTI-6", "if the first write fails, none is executed" },
      NEED_MULTI,
      multi_first_fails },
    { { "multi-error-first", "VU-MULTI-7", "the reply is an error only if the first write failed" },
      NEED_MULTI,
      multi_error_first },
    { { "multi-regions", "VU-MULTI-8", "writes of one message may go to several regions" }, NEED_MULTI, multi_regions },
    { { "multi-zero", "VU-MULTI-9", "wr_cnt 0 succeeds with 0 or is refused" }, NEED_MULTI, multi_zero },
    { { "multi-two-hundred", "VU-MULTI-10", "200 writes fit a message" }, NEED_MULTI, multi_two_hundred },
    { { "multi-posted", "VU-MULTI-11", "a posted message is executed and not answered" }, NEED_MULTI, multi_posted },
    { { "multi-posted-fails", "VU-MULTI-11", "a posted message with a write that fails is not answered" },
      NEED_MULTI,
      multi_posted_fails },
    { { "multi-posted-malformed", "VU-MULTI-11", "a posted message that is malformed is not answered" },
      NEED_MULTI,
      multi_posted_lies },
    { { "multi-truncated", "VU-HDR-19", "a payload without a whole wr_cnt fails with EINVAL" },
      NEED_MULTI,
      multi_truncated },
    { { NULL, NULL, NULL }, 0, NULL },
};
