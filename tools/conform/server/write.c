/* write.c: VU-WR: REGION_WRITE: what is answered, what is refused, and that it then writes nothing. */
#include "access.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

static const char *name(char text[96], uint32_t region, uint64_t offset, uint32_t count)
{
    snprintf(text, 96, "writing %u bytes of region %u at %#llx", count, region, (unsigned long long)offset);
    return text;
}

static struct ob_raw_message *replied(struct judge *j, const struct place *p)
{
    struct ob_raw_message *m;
    uint8_t bytes[8];
    char what[96];

    place_bytes(p, 1, bytes);
    want_ok(j, write_sized(j, p->region, p->offset, p->size, bytes, p->size, &m),
            name(what, p->region, p->offset, p->size));
    return m;
}

static void echo(struct judge *j, const struct place *p)
{
    const struct ob_raw_message *m = replied(j, p);
    char what[96];

    want(j, field64(j, m, 0) == p->offset && field32(j, m, 8) == p->region,
         "%s: the reply says offset %#llx and region %u", name(what, p->region, p->offset, p->size),
         (unsigned long long)field64(j, m, 0), field32(j, m, 8));
}

static void write_echo(struct judge *j)
{
    each_place(j, echo);
}

static void no_data(struct judge *j, const struct place *p)
{
    const struct ob_raw_message *m = replied(j, p);
    char what[96];

    want(j, m->size == 16, "%s: the reply has a payload of %u bytes, wanted 16",
         name(what, p->region, p->offset, p->size), m->size);
}

static void write_no_data(struct judge *j)
{
    each_place(j, no_data);
}

static void whole(struct judge *j, const struct place *p)
{
    const struct ob_raw_message *m = replied(j, p);
    char what[96];

    want(j, field32(j, m, 12) == p->size, "%s: the reply's count is %u", name(what, p->region, p->offset, p->size),
         field32(j, m, 12));
    want_place(j, p, 1, "after a write that succeeded");
}

static void write_count(struct judge *j)
{
    each_place(j, whole);
}

/* A page of each area is written, and is in the memory; to doorbells, what is there. */
static void write_mapped(struct judge *j)
{
    const bool doorbells = has_doorbells(j);
    struct areas *areas = find_areas(j);
    uint8_t was[4096], other[4096], is[4096];

    reset(j);
    for (unsigned i = 0; i < areas->n; i++) {
        struct area *a = &areas->at[i];
        const uint32_t count = a->size < 4096 ? (uint32_t)a->size : 4096;
        char what[96];
        int r;

        if (!(a->flags & VFIO_REGION_INFO_FLAG_WRITE) || a->size < 8)
            continue;
        area_map(j, a);
        area_load(j, a, 0, was, count);
        for (uint32_t k = 0; k < count; k++)
            other[k] = (uint8_t)(was[k] ^ (doorbells ? 0 : k % 255 + 1));
        r = region_write(j, a->region, a->offset, other, count);
        area_load(j, a, 0, is, count);
        if (a->flags & VFIO_REGION_INFO_FLAG_READ && !doorbells)
            area_store(j, a, 0, was, count);
        want_ok(j, r, name(what, a->region, a->offset, count));
        if (!doorbells && area_keeps(j, a, 0, 8) && area_keeps(j, a, count - 8, 8))
            want(j, memcmp(other, is, count) == 0, "%s: mapped memory does not hold all of them", what);
    }
}

/* Areas that fit a message, from their first byte to their last, with what is there. */
static void write_whole(struct judge *j)
{
    const struct areas *areas = find_memory(j);
    char what[96];

    reset(j);
    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];
        const uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        const uint32_t count = (uint32_t)a->size;
        uint8_t *data;

        if (a->size > j->facts.max_data || (a->flags & both) != both)
            continue;
        data = judge_alloc(j, count);
        want_ok(j, region_read(j, a->region, a->offset, data, count), "reading a whole area");
        want_ok(j, region_write(j, a->region, a->offset, data, count), name(what, a->region, a->offset, count));
    }
}

/* --- Data of another size ---------------------------------------------------------------------------------------- */

/* `size` bytes of data for a count of `count`: EINVAL, and the place keeps what it has. */
static void lies(struct judge *j, const struct place *p, uint32_t count, size_t size)
{
    uint8_t data[64] = { 0 };
    char what[128];

    snprintf(what, sizeof(what), "writing %s with count %u and %zu bytes of data", p->name, count, size);
    place_bytes(p, 1, data);
    want_error(j, write_sized(j, p->region, p->offset, count, data, size, NULL), EINVAL, what);
    want_place(j, p, 0, what);
}

static void data_short(struct judge *j, const struct place *p)
{
    lies(j, p, p->size, p->size - 1);
    lies(j, p, p->size + 1, p->size);
}

static void write_data_short(struct judge *j)
{
    each_place(j, data_short);
}

static void data_none(struct judge *j, const struct place *p)
{
    lies(j, p, p->size, 0);
}

static void write_data_none(struct judge *j)
{
    each_place(j, data_none);
}

static void data_long(struct judge *j, const struct place *p)
{
    lies(j, p, p->size, p->size + 1);
    lies(j, p, p->size, 64);
    lies(j, p, 0, p->size);
}

static void write_data_long(struct judge *j)
{
    each_place(j, data_long);
}

/* --- Ranges ------------------------------------------------------------------------------------------------------ */

static void fails(struct judge *j, uint32_t region, uint64_t offset, const void *data, uint32_t count)
{
    char what[96];

    want_error(j, region_write(j, region, offset, data, count), EINVAL, name(what, region, offset, count));
}

/* What is there, all but its first 8 bytes, with one more than the largest count. Such a message may be larger than any
 * that the server takes, and VU-HDR-22 lets it end the connection then. */
static void too_large(struct judge *j, struct area *a)
{
    const uint32_t most = j->facts.max_data, count = most + 1;
    uint8_t *data = judge_alloc(j, count), was[8], other[8], is[8];
    char what[96];
    int r;

    want_ok(j, region_read(j, a->region, a->offset, data, most), name(what, a->region, a->offset, most));
    want_ok(j, region_read(j, a->region, a->offset + most, data + most, 1), "reading the byte behind");
    memcpy(was, data, 8);
    for (unsigned i = 0; i < 8; i++)
        other[i] = data[i] = (uint8_t)~was[i];
    r = region_write(j, a->region, a->offset, data, count);
    area_load(j, a, 0, is, 8);
    area_store(j, a, 0, was, 8);
    want_refused_or_closed(j, r, name(what, a->region, a->offset, count));
    want(j, memcmp(is, other, 8) != 0, "%s: it was refused, and done", what);
}

static void write_too_large(struct judge *j)
{
    struct areas *areas = find_memory(j);

    reset(j);
    for (unsigned i = 0; i < areas->n; i++) {
        struct area *a = &areas->at[i];

        if (a->size <= j->facts.max_data || j->facts.max_data > 64u << 20 || j->facts.max_data < 8)
            continue;
        area_map(j, a);
        if (!area_keeps(j, a, 0, 8) || !area_shows(j, a, 0, 8))
            continue;
        too_large(j, a);
        return;
    }
    judge_skip(j, "no region has more than max_data_xfer_size, %u, bytes of memory", j->facts.max_data);
}

static void count_too_large(struct judge *j, const struct place *p)
{
    lies(j, p, j->facts.max_data + 1, p->size);
    lies(j, p, UINT32_MAX, p->size);
}

static void write_count_too_large(struct judge *j)
{
    each_place(j, count_too_large);
}

static void write_largest(struct judge *j)
{
    struct areas *areas = find_memory(j);
    const uint32_t count = j->facts.max_data;
    char what[96];

    reset(j);
    for (unsigned i = 0; i < areas->n; i++) {
        struct area *a = &areas->at[i];
        uint8_t *data, last;

        if (a->size < count || count > 64u << 20 || count < 8)
            continue;
        area_map(j, a);
        if (!area_keeps(j, a, 0, 8) || !area_keeps(j, a, count - 8, 8))
            continue;
        data = judge_alloc(j, count);
        want_ok(j, region_read(j, a->region, a->offset, data, count), name(what, a->region, a->offset, count));
        data[count - 1] ^= 0x55;
        want_ok(j, region_write(j, a->region, a->offset, data, count), name(what, a->region, a->offset, count));
        area_load(j, a, count - 1, &last, 1);
        data[count - 1] ^= 0x55;
        area_store(j, a, count - 1, &data[count - 1], 1);
        want(j, last == (data[count - 1] ^ 0x55), "%s: the last byte was not written", what);
        return;
    }
    judge_skip(j, "no region has max_data_xfer_size, %u, bytes of memory", count);
}

/* Calls `check` for each region that is there and can be written. */
static void each_writable(struct judge *j, void (*check)(struct judge *j, uint32_t region, uint64_t size))
{
    reset(j);
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];

        if (r->size > 0 && r->flags & VFIO_REGION_INFO_FLAG_WRITE)
            check(j, i, r->size);
    }
}

static void beyond(struct judge *j, uint32_t region, uint64_t end)
{
    static const uint8_t data[8];

    fails(j, region, end, data, 1);
    fails(j, region, end, data, 4);
    fails(j, region, end + 4096, data, 4);
    fails(j, region, 1ull << 63, data, 8);
}

static void write_beyond(struct judge *j)
{
    each_writable(j, beyond);
}

/* The bytes inside are those that are there, where they can be read. */
static void across(struct judge *j, uint32_t region, uint64_t end)
{
    uint8_t data[8] = { 0 };

    if (j->facts.region[region].flags & VFIO_REGION_INFO_FLAG_READ)
        (void)region_read(j, region, end - 1, data, 1);
    fails(j, region, end - 1, data, 2);
    fails(j, region, end - 1, data, 8);
}

static void write_across(struct judge *j)
{
    each_writable(j, across);
}

static void wraps(struct judge *j, uint32_t region, uint64_t end)
{
    static const uint8_t data[128];

    fails(j, region, UINT64_MAX, data, 1);
    fails(j, region, UINT64_MAX, data, 2);
    fails(j, region, UINT64_MAX - 3, data, 8);
    fails(j, region, UINT64_MAX - 63, data, 128);
}

static void write_wraps(struct judge *j)
{
    each_writable(j, wraps);
}

/* From the config place over the end, with what is there behind it. */
static void config_keeps(struct judge *j, const struct place *p)
{
    const uint64_t count = j->facts.region[CONFIG].size - p->offset + 1;
    uint8_t *data, bytes[8];

    if (p->region != CONFIG || count > 4096)
        return;
    data = judge_alloc(j, count);
    want_ok(j, region_read(j, CONFIG, p->offset, data, (uint32_t)count - 1), "reading configuration space to its end");
    place_bytes(p, 1, bytes);
    data[0] = bytes[0];
    if (region_write(j, CONFIG, p->offset, data, (uint32_t)count) == 0)
        judge_skip(j, "a write across the end of configuration space is not refused");
    want_place(j, p, 0, "after a write across the end, which was refused");
}

static void write_across_keeps(struct judge *j)
{
    struct areas *areas;
    uint8_t was[8], other[9], is[8];

    each_place(j, config_keeps);
    areas = find_memory(j);
    for (unsigned i = 0; i < areas->n; i++) {
        struct area *a = &areas->at[i];
        const uint64_t last = a->size - 8;
        int r;

        if (a->offset + a->size != j->facts.region[a->region].size || a->size < 8)
            continue;
        area_map(j, a);
        if (!area_keeps(j, a, last, 8))
            continue;
        area_load(j, a, last, was, 8);
        for (unsigned k = 0; k < 9; k++)
            other[k] = (uint8_t)~was[k % 8];
        r = region_write(j, a->region, a->offset + last, other, 9);
        area_load(j, a, last, is, 8);
        area_store(j, a, last, was, 8);
        if (r == 0)
            judge_skip(j, "a write across the end of region %u is not refused", a->region);
        want(j, memcmp(was, is, 8) == 0, "region %u: a write across its end was refused and done", a->region);
    }
}

static void write_no_region(struct judge *j)
{
    const uint32_t n = j->facts.regions, indexes[] = { n, n + 1, 0x7fffffff, 0xffffffff };
    static const uint8_t data[4];
    char what[96];

    for (size_t i = 0; i < sizeof(indexes) / sizeof(*indexes); i++) {
        want_refused(j, region_write(j, indexes[i], 0, data, 4), name(what, indexes[i], 0, 4));
        judge_reconnect(j); /* whether the data of what is refused is skipped is for others to say */
    }
}

static void write_empty(struct judge *j)
{
    static const uint8_t data[4];
    bool any = false;
    char what[96];

    for (uint32_t i = 0; i < regions(j); i++) {
        if (j->facts.region[i].size > 0)
            continue;
        any = true;
        want_refused(j, region_write(j, i, 0, data, 1), name(what, i, 0, 1));
        want_refused(j, region_write(j, i, 0, data, 4), name(what, i, 0, 4));
    }
    if (!any)
        judge_skip(j, "no region is empty");
}

/* --- Nothing ----------------------------------------------------------------------------------------------------- */

static void zero(struct judge *j, const struct place *p)
{
    int r = region_write(j, p->region, p->offset, NULL, 0);

    if (r != 0)
        want_error(j, r, EINVAL, "writing 0 bytes");
    want_place(j, p, 0, "after a write of 0 bytes");
}

static void write_zero(struct judge *j)
{
    each_place(j, zero);
}

static void zero_succeeds(struct judge *j, uint32_t region, uint64_t end)
{
    char what[96];

    want_ok(j, region_write(j, region, 0, NULL, 0), name(what, region, 0, 0));
    want_ok(j, region_write(j, region, end - 1, NULL, 0), name(what, region, end - 1, 0));
}

static void write_zero_succeeds(struct judge *j)
{
    each_writable(j, zero_succeeds);
}

const struct check server_write_checks[] = {
    { { "write-echo", "VU-WR-2", "the reply repeats offset and region" }, 0, write_echo },
    { { "write-no-data", "VU-WR-2", "the reply has 16 bytes and no data" }, 0, write_no_data },
    { { "write-count", "VU-WR-3", "the reply's count is the request's, and all is written" }, 0, write_count },
    { { "write-mapped", "VU-WR-4", "a page of each mappable area can be written by message" },
      NEED_MAPPABLE,
      write_mapped },
    { { "write-whole", "VU-WR-4", "each mappable area can be written at once, to its last byte" },
      NEED_MAPPABLE,
      write_whole },
    { { "write-data-short", "VU-WR-5", "less data than count says fails with EINVAL and writes nothing" },
      0,
      write_data_short },
    { { "write-data-none", "VU-WR-5", "no data at all fails with EINVAL and writes nothing" }, 0, write_data_none },
    { { "write-data-long", "VU-HDR-20", "more data than count says fails with EINVAL and writes nothing" },
      0,
      write_data_long },
    { { "write-too-large", "VU-WR-15", "a write of more than max_data_xfer_size is refused and writes nothing" },
      NEED_MAPPABLE,
      write_too_large },
    { { "write-count-too-large", "VU-WR-5", "a count above max_data_xfer_size with little data fails with EINVAL" },
      0,
      write_count_too_large },
    { { "write-largest", "VU-VER-24", "max_data_xfer_size bytes can be written at once" },
      NEED_MAPPABLE,
      write_largest },
    { { "write-beyond", "VU-WR-6", "writes beyond any region's end fail with EINVAL" }, 0, write_beyond },
    { { "write-across-end", "VU-WR-6", "writes across any region's end fail with EINVAL" }, 0, write_across },
    { { "write-across-end-keeps", "VU-WR-6", "writes across the end write nothing before it" }, 0, write_across_keeps },
    { { "write-wraps", "VU-WR-6", "writes that wrap around fail with EINVAL" }, 0, write_wraps },
    { { "write-no-region", "VU-WR-7", "writes of a region at or above num_regions are refused" }, 0, write_no_region },
    { { "write-empty-region", "VU-WR-7", "writes of regions of size 0 are refused" }, 0, write_empty },
    { { "write-zero", "VU-WR-8", "a write of 0 bytes succeeds or is refused, and changes nothing" }, 0, write_zero },
    { { "write-zero-succeeds", "VU-WR-13", "a write of 0 bytes succeeds" }, 0, write_zero_succeeds },
    { { NULL, NULL, NULL }, 0, NULL },
};
