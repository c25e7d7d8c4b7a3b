/* write_posted.c: VU-WR: posted writes: their order, in every region, and those that fail. */
#include "access.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

/* Of several to one place, the last counts. */
static void last_counts(struct judge *j, const struct place *p)
{
    for (unsigned seed = 1; seed <= 32; seed++)
        place_post(j, p, seed);
    want_place(j, p, 32, "after 32 posted writes");
}

static void posted_last(struct judge *j)
{
    each_place(j, last_counts);
}

/* Each is executed: a read between two of them sees the first. */
static void seen(struct judge *j, const struct place *p)
{
    for (unsigned seed = 1; seed <= 4; seed++) {
        place_post(j, p, seed);
        want_place(j, p, seed, "behind a posted write");
    }
}

static void posted_seen(struct judge *j)
{
    each_place(j, seen);
}

/* To all places by turns, without waiting. */
static void posted_regions(struct judge *j)
{
    struct places *places = find_places(j);

    for (unsigned seed = 1; seed <= 8; seed++) {
        for (unsigned i = 0; i < places->n; i++)
            place_post(j, &places->at[i], seed + i % 64);
    }
    for (unsigned i = 0; i < places->n; i++)
        want_place(j, &places->at[i], 8 + i % 64, "after posted writes to several regions by turns");
    restore_places(j, places);
}

/* Order between posted writes and others. */
static void mixed(struct judge *j, const struct place *p)
{
    place_post(j, p, 1);
    place_write(j, p, 2);
    want_place(j, p, 2, "after a posted write and another");
    place_write(j, p, 3);
    place_post(j, p, 4);
    want_place(j, p, 4, "after a write and a posted one");
}

static void posted_mixed(struct judge *j)
{
    each_place(j, mixed);
}

/* Nothing comes before the reply to what is sent behind it. */
static void unanswered(struct judge *j, const struct place *p)
{
    place_post(j, p, 1);
    want_alive(j, "behind a posted write");
}

static void posted_unanswered(struct judge *j)
{
    each_place(j, unanswered);
}

/* Some places have several bytes, which different writes may reach. */
static void neighbours(struct judge *j, const struct place *p)
{
    uint8_t bytes[8];

    if (!p->memory)
        return;
    for (unsigned i = 0; i < 8; i++) {
        place_bytes(p, 1 + i, bytes);
        region_post(j, p->region, p->offset + i, bytes + i, 8 - i); /* each overwrites all but one of the last */
    }
    place_bytes(p, 0, bytes);
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(bytes[i] ^ (1 + i + i));

    uint8_t is[8];

    want_ok(j, region_read(j, p->region, p->offset, is, 8), "reading memory");
    want(j, memcmp(is, bytes, 8) == 0, "%s: posted writes that overlap were not executed in order", p->name);
}

static void posted_overlap(struct judge *j)
{
    each_place(j, neighbours);
}

/* --- Failures ---------------------------------------------------------------------------------------------------- */

/* Posts what must fail before writes to every place: no reply comes, and they are executed. */
static void behind(struct judge *j, void (*fail)(struct judge *j), const char *what)
{
    struct places *places = find_places(j);

    for (unsigned i = 0; i < places->n; i++) {
        fail(j);
        place_post(j, &places->at[i], 1);
    }
    fail(j);
    want_alive(j, what);
    for (unsigned i = 0; i < places->n; i++)
        want_place(j, &places->at[i], 1, what);
    restore_places(j, places);
}

static void fail_config(struct judge *j)
{
    const uint64_t end = j->facts.region[CONFIG].size;
    static const uint8_t data[8];

    region_post(j, CONFIG, end, data, 4);
    region_post(j, CONFIG, end - 1, data, 2);
    region_post(j, CONFIG, UINT64_MAX - 1, data, 4);
}

static void posted_fail_config(struct judge *j)
{
    behind(j, fail_config, "behind posted writes beyond configuration space");
}

static void fail_beyond(struct judge *j)
{
    static const uint8_t data[8];

    for (uint32_t i = 0; i < regions(j); i++) {
        if (i == CONFIG || j->facts.region[i].size == 0)
            continue;
        region_post(j, i, j->facts.region[i].size, data, 4);
        region_post(j, i, UINT64_MAX - 1, data, 4);
    }
}

static void posted_fail_beyond(struct judge *j)
{
    behind(j, fail_beyond, "behind posted writes beyond the end of every region");
}

static void fail_empty(struct judge *j)
{
    static const uint8_t data[4];

    for (uint32_t i = 0; i < regions(j); i++) {
        if (j->facts.region[i].size == 0)
            region_post(j, i, 0, data, 4);
    }
}

static void posted_fail_empty(struct judge *j)
{
    behind(j, fail_empty, "behind posted writes to regions that are empty");
}

static void fail_no_region(struct judge *j)
{
    static const uint8_t data[4];

    region_post(j, j->facts.regions, 0, data, 4);
    region_post(j, 0xffffffff, 0, data, 4);
}

static void posted_fail_no_region(struct judge *j)
{
    behind(j, fail_no_region, "behind posted writes to regions that are not there");
}

static void fail_read_only(struct judge *j)
{
    static const uint8_t data[4];

    for (uint32_t i = 0; i < regions(j); i++) {
        if (j->facts.region[i].size >= 4 && !(j->facts.region[i].flags & VFIO_REGION_INFO_FLAG_WRITE))
            region_post(j, i, 0, data, 4);
    }
}

static void posted_fail_read_only(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        if (j->facts.region[i].size >= 4 && !(j->facts.region[i].flags & VFIO_REGION_INFO_FLAG_WRITE)) {
            behind(j, fail_read_only, "behind posted writes to regions without the flag WRITE");
            return;
        }
    }
    judge_skip(j, "every region can be written");
}

static void fail_size(struct judge *j)
{
    const struct ob_raw_region lies[] = { { 0, CONFIG, 4 }, { 0, CONFIG, 0xffffffff } };

    post(j, OB_RAW_REGION_WRITE, &lies[0], sizeof(lies[0]), NULL, 0);
    post(j, OB_RAW_REGION_WRITE, &lies[1], sizeof(lies[1]), NULL, 0);
    post(j, OB_RAW_REGION_WRITE, &lies[0], 15, NULL, 0);
}

/* A server that waits for the data takes it from the messages behind: that is for write-data-none to say. */
static void posted_fail_size(struct judge *j)
{
    const struct ob_raw_region lie = { 0, CONFIG, 4 };
    int r = ob_raw_call(&j->raw, OB_RAW_REGION_WRITE, &lie, sizeof(lie), NULL, 0, NULL);

    if (r < 0)
        judge_reconnect(j);
    if (r <= 0)
        judge_skip(j, "a write whose data is not there is not refused, if it is not posted");
    behind(j, fail_size, "behind posted writes whose data is not there");
}

const struct check server_write_posted_checks[] = {
    { { "write-posted-last", "VU-WR-9", "of posted writes to one place the last counts, in every region" },
      0,
      posted_last },
    { { "write-posted-seen", "VU-WR-9", "a read behind a posted write sees it, in every region" }, 0, posted_seen },
    { { "write-posted-overlap", "VU-WR-9", "posted writes that overlap are executed in order" },
      NEED_MAPPABLE,
      posted_overlap },
    { { "write-posted-regions", "VU-WR-9", "posted writes to several regions by turns are all executed" },
      0,
      posted_regions },
    { { "write-posted-mixed", "VU-WR-9", "posted writes and others are executed in order" }, 0, posted_mixed },
    { { "write-posted-unanswered", "VU-HDR-7", "posted writes are not answered, in any region" },
      0,
      posted_unanswered },
    { { "write-posted-config", "VU-WR-10", "posted writes beyond configuration space are not answered" },
      0,
      posted_fail_config },
    { { "write-posted-beyond", "VU-WR-10", "posted writes beyond any other region's end are not answered" },
      0,
      posted_fail_beyond },
    { { "write-posted-empty-region", "VU-WR-10", "posted writes of empty regions are not answered" },
      0,
      posted_fail_empty },
    { { "write-posted-no-region", "VU-WR-10", "posted writes of regions that are not there are not answered" },
      0,
      posted_fail_no_region },
    { { "write-posted-read-only", "VU-WR-10", "posted writes of regions without the flag WRITE are not answered" },
      0,
      posted_fail_read_only },
    { { "write-posted-size", "VU-WR-10", "posted writes whose data is not there are not answered" },
      0,
      posted_fail_size },
    { { NULL, NULL, NULL }, 0, NULL },
};
