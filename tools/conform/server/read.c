/* read.c: VU-RD: REGION_READ: what is answered, what is refused, configuration space in every way. */
#include "access.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

static int ask(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, struct ob_raw_message **reply)
{
    struct ob_raw_region request = { .offset = offset, .region = region, .count = count };

    return call(j, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, reply);
}

static const char *name(char text[96], uint32_t region, uint64_t offset, uint32_t count)
{
    snprintf(text, 96, "reading %u bytes of region %u at %#llx", count, region, (unsigned long long)offset);
    return text;
}

static void fails(struct judge *j, uint32_t region, uint64_t offset, uint32_t count)
{
    char what[96];

    want_error(j, ask(j, region, offset, count, NULL), EINVAL, name(what, region, offset, count));
}

typedef void check_reply(struct judge *j, uint32_t region, uint64_t offset, uint32_t count,
                         const struct ob_raw_message *m);

static void good(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, check_reply *check)
{
    struct ob_raw_message *m;
    char what[96];

    want_ok(j, ask(j, region, offset, count, &m), name(what, region, offset, count));
    check(j, region, offset, count, m);
}

/* Some reads that every server answers: of configuration space, as guests and QEMU read it, and of memory that can be
 * mapped. */
static void each_good(struct judge *j, check_reply *check)
{
    static const uint16_t of_config[] = { 1, 2, 4, 256 }, of_memory[] = { 1, 2, 4, 8, 3, 64, 256 };
    const struct areas *areas = find_memory(j);

    reset(j);
    for (unsigned i = 0; i < sizeof(of_config) / sizeof(*of_config); i++)
        good(j, CONFIG, 256 - of_config[i], of_config[i], check);
    for (unsigned k = 0; k < areas->n; k++) {
        const struct area *a = &areas->at[k];

        if (!(a->flags & VFIO_REGION_INFO_FLAG_READ))
            continue;
        for (unsigned i = 0; i < sizeof(of_memory) / sizeof(*of_memory); i++) {
            if (a->size >= of_memory[i])
                good(j, a->region, a->offset + a->size - of_memory[i], of_memory[i], check);
        }
    }
}

static void echo(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, const struct ob_raw_message *m)
{
    char what[96];

    want(j, field64(j, m, 0) == offset && field32(j, m, 8) == region, "%s: the reply says offset %#llx and region %u",
         name(what, region, offset, count), (unsigned long long)field64(j, m, 0), field32(j, m, 8));
}

static void read_echo(struct judge *j)
{
    each_good(j, echo);
}

static void size(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, const struct ob_raw_message *m)
{
    char what[96];

    want(j, m->size == 16ull + field32(j, m, 12), "%s: the reply has a payload of %u bytes, and count is %u",
         name(what, region, offset, count), m->size, field32(j, m, 12));
}

static void read_size(struct judge *j)
{
    each_good(j, size);
}

static void whole(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, const struct ob_raw_message *m)
{
    char what[96];

    want(j, field32(j, m, 12) == count, "%s: the reply's count is %u", name(what, region, offset, count),
         field32(j, m, 12));
}

static void read_count(struct judge *j)
{
    each_good(j, whole);
}

/* A page of each area, as far as it stays the same meanwhile. */
static void read_mapped(struct judge *j)
{
    struct areas *areas = find_areas(j);
    uint8_t before[4096], after[4096], is[4096];

    reset(j);
    for (unsigned i = 0; i < areas->n; i++) {
        struct area *a = &areas->at[i];
        const uint32_t count = a->size < 4096 ? (uint32_t)a->size : 4096;
        char what[96];

        if (!(a->flags & VFIO_REGION_INFO_FLAG_READ))
            continue;
        area_map(j, a);
        area_load(j, a, 0, before, count);
        want_ok(j, region_read(j, a->region, a->offset, is, count), name(what, a->region, a->offset, count));
        area_load(j, a, 0, after, count);
        for (uint32_t k = 0; k < count; k++)
            want(j, before[k] != after[k] || is[k] == before[k], "%s: byte %u is %#x, and %#x in mapped memory", what,
                 k, is[k], before[k]);
    }
}

/* Areas that fit a message, from their first byte to their last. */
static void read_whole(struct judge *j)
{
    const struct areas *areas = find_memory(j);
    char what[96];

    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];
        const uint32_t count = (uint32_t)a->size;

        if (a->size <= j->facts.max_data && a->flags & VFIO_REGION_INFO_FLAG_READ)
            want_ok(j, region_read(j, a->region, a->offset, judge_alloc(j, count), count),
                    name(what, a->region, a->offset, count));
    }
}

/* --- What is refused --------------------------------------------------------------------------------------------- */

static void read_too_large(struct judge *j)
{
    const struct areas *areas = find_memory(j);

    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];

        if (a->size <= j->facts.max_data || j->facts.max_data == UINT32_MAX || !(a->flags & VFIO_REGION_INFO_FLAG_READ))
            continue;
        fails(j, a->region, a->offset, j->facts.max_data + 1);
        return;
    }
    judge_skip(j, "no region has more than max_data_xfer_size, %u, bytes of memory", j->facts.max_data);
}

static void read_largest(struct judge *j)
{
    const struct areas *areas = find_memory(j);
    const uint32_t count = j->facts.max_data;
    char what[96];

    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];

        if (a->size < count || count > 64u << 20 || !(a->flags & VFIO_REGION_INFO_FLAG_READ))
            continue;
        want_ok(j, region_read(j, a->region, a->offset, judge_alloc(j, count), count),
                name(what, a->region, a->offset, count));
        return;
    }
    judge_skip(j, "no region has max_data_xfer_size, %u, bytes of memory", count);
}

/* Calls `check` for each region that is there and can be read. */
static void each_readable(struct judge *j, void (*check)(struct judge *j, uint32_t region, uint64_t size))
{
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];

        if (r->size > 0 && r->flags & VFIO_REGION_INFO_FLAG_READ)
            check(j, i, r->size);
    }
}

static void beyond(struct judge *j, uint32_t region, uint64_t end)
{
    fails(j, region, end, 1);
    fails(j, region, end, 4);
    fails(j, region, end + 4096, 4);
    fails(j, region, 1ull << 63, 8);
}

static void read_beyond(struct judge *j)
{
    each_readable(j, beyond);
}

static void across(struct judge *j, uint32_t region, uint64_t end)
{
    fails(j, region, end - 1, 2);
    if (end >= 4)
        fails(j, region, end - 4, 8);
    if (end < j->facts.max_data)
        fails(j, region, 0, (uint32_t)end + 1);
    if (end < UINT32_MAX)
        fails(j, region, 0, UINT32_MAX);
}

static void read_across(struct judge *j)
{
    each_readable(j, across);
}

static void wraps(struct judge *j, uint32_t region, uint64_t end)
{
    fails(j, region, UINT64_MAX, 1);
    fails(j, region, UINT64_MAX, 2);
    fails(j, region, UINT64_MAX - 3, 8);
    fails(j, region, UINT64_MAX - 63, 128);
}

static void read_wraps(struct judge *j)
{
    each_readable(j, wraps);
}

static void read_no_region(struct judge *j)
{
    const uint32_t n = j->facts.regions, indexes[] = { n, n + 1, 0x7fffffff, 0xffffffff };
    char what[96];

    for (size_t i = 0; i < sizeof(indexes) / sizeof(*indexes); i++)
        want_refused(j, ask(j, indexes[i], 0, 4, NULL), name(what, indexes[i], 0, 4));
}

static void read_empty(struct judge *j)
{
    bool any = false;
    char what[96];

    for (uint32_t i = 0; i < regions(j); i++) {
        if (j->facts.region[i].size > 0)
            continue;
        any = true;
        want_refused(j, ask(j, i, 0, 1, NULL), name(what, i, 0, 1));
        want_refused(j, ask(j, i, 0, 4, NULL), name(what, i, 0, 4));
    }
    if (!any)
        judge_skip(j, "no region is empty");
}

/* --- Nothing ----------------------------------------------------------------------------------------------------- */

static void zero(struct judge *j, uint32_t region, uint64_t end)
{
    const uint64_t offsets[] = { 0, end / 2, end };
    struct ob_raw_message *m;
    char what[96];

    for (unsigned i = 0; i < 3; i++) {
        int r = ask(j, region, offsets[i], 0, &m);

        if (r != 0)
            want_error(j, r, EINVAL, name(what, region, offsets[i], 0));
        else
            want(j, m->size == 0 || (m->size == 16 && field32(j, m, 12) == 0),
                 "%s: a payload of %u bytes, wanted none or 16 with a count of 0", name(what, region, offsets[i], 0),
                 m->size);
    }
}

static void read_zero(struct judge *j)
{
    each_readable(j, zero);
}

static void zero_succeeds(struct judge *j, uint32_t region, uint64_t end)
{
    struct ob_raw_message *m;
    char what[96];

    want_ok(j, ask(j, region, 0, 0, &m), name(what, region, 0, 0));
    want(j, m->size == 16, "%s: a payload of %u bytes, wanted 16", what, m->size);
}

static void read_zero_succeeds(struct judge *j)
{
    each_readable(j, zero_succeeds);
}

/* --- Configuration space ----------------------------------------------------------------------------------------- */

struct config {
    uint32_t size;
    uint8_t bytes[4096];
};

/* From `from` on, by aligned reads of 4 bytes, which nobody gets wrong. */
static const struct config *config_bytes(struct judge *j, uint32_t from, uint32_t size)
{
    struct config *c = judge_alloc(j, sizeof(*c));

    reset(j);
    c->size = size;
    for (uint32_t i = from; i + 4 <= size; i += 4) {
        uint32_t value = config_read(j, i, 4);

        memcpy(c->bytes + i, &value, 4);
    }
    return c;
}

static void compare(struct judge *j, const struct config *c, uint32_t offset, uint32_t count)
{
    uint8_t is[4096];
    char what[96];
    uint32_t dword;

    want_ok(j, region_read(j, CONFIG, offset, is, count), name(what, CONFIG, offset, count));
    for (uint32_t at = offset; at < offset + count; at++) {
        if (is[at - offset] == c->bytes[at])
            continue;
        /* What the device changes by itself is no fault: it is asked again. */
        dword = config_read(j, at & ~3u, 4);
        want(j, (uint8_t)(dword >> 8 * (at % 4)) != c->bytes[at], "%s: byte %u is %#x, and its dword is %#x", what,
             at - offset, is[at - offset], dword);
    }
}

static uint32_t config_size(const struct judge *j, uint32_t at_most)
{
    const uint64_t size = j->facts.region[CONFIG].size;

    return size < at_most ? (uint32_t)size : at_most;
}

static void read_config_whole(struct judge *j)
{
    const uint32_t size = config_size(j, 4096);

    compare(j, config_bytes(j, 0, size), 0, size);
}

static void read_config_aligned(struct judge *j)
{
    const struct config *c = config_bytes(j, 0, config_size(j, 256));

    for (uint32_t width = 1; width <= 4; width *= 2) {
        for (uint32_t at = 0; at + width <= c->size; at += width)
            compare(j, c, at, width);
    }
}

static void read_config_odd(struct judge *j)
{
    const struct config *c = config_bytes(j, 0, config_size(j, 256));

    for (uint32_t at = 0; at + 8 <= c->size; at++)
        compare(j, c, at, 2 + at % 7);
}

/* From the middle of each capability, over the next. */
static void read_config_long(struct judge *j)
{
    const struct config *c = config_bytes(j, 0, config_size(j, 256));

    for (uint32_t at = 0x3a; at < c->size; at += 11)
        compare(j, c, at, c->size - at);
}

static void read_config_end(struct judge *j)
{
    const uint32_t size = config_size(j, 4096);
    const struct config *c = config_bytes(j, size - 16, size);

    for (uint32_t count = 1; count <= 4; count *= 2)
        compare(j, c, size - count, count);
}

const struct check server_read_checks[] = {
    { { "read-echo", "VU-RD-2", "the reply repeats offset and region" }, 0, read_echo },
    { { "read-size", "VU-RD-2", "the reply has as many bytes from 16 on as its count says" }, 0, read_size },
    { { "read-count", "VU-RD-3", "the reply's count is the request's" }, 0, read_count },
    { { "read-mapped", "VU-RD-4", "a page of each mappable area can be read by message" }, NEED_MAPPABLE, read_mapped },
    { { "read-whole", "VU-RD-4", "each mappable area can be read at once, to its last byte" },
      NEED_MAPPABLE,
      read_whole },
    { { "read-too-large", "VU-RD-5", "a count above max_data_xfer_size fails with EINVAL" },
      NEED_MAPPABLE,
      read_too_large },
    { { "read-largest", "VU-VER-24", "max_data_xfer_size bytes can be read at once" }, NEED_MAPPABLE, read_largest },
    { { "read-beyond", "VU-RD-6", "reads beyond any region's end fail with EINVAL" }, 0, read_beyond },
    { { "read-across-end", "VU-RD-6", "reads across any region's end fail with EINVAL" }, 0, read_across },
    { { "read-wraps", "VU-RD-6", "reads that wrap around fail with EINVAL" }, 0, read_wraps },
    { { "read-no-region", "VU-RD-7", "reads of a region at or above num_regions are refused" }, 0, read_no_region },
    { { "read-empty-region", "VU-RD-7", "reads of regions of size 0 are refused" }, 0, read_empty },
    { { "read-zero", "VU-RD-8", "a read of 0 bytes succeeds without data, or is refused" }, 0, read_zero },
    { { "read-zero-succeeds", "VU-RD-10", "a read of 0 bytes succeeds, with 16 bytes of payload" },
      0,
      read_zero_succeeds },
    { { "read-config-whole", "VU-RD-9", "configuration space is read as a whole" }, 0, read_config_whole },
    { { "read-config-aligned", "VU-RD-9", "configuration space is read by 1, 2 and 4 bytes" }, 0, read_config_aligned },
    { { "read-config-odd", "VU-RD-13", "configuration space is read at any offset with any width" },
      0,
      read_config_odd },
    { { "read-config-long", "VU-RD-13", "reads of configuration space may begin in one capability and end in others" },
      0,
      read_config_long },
    { { "read-config-end", "VU-RD-9", "the last bytes of configuration space can be read" }, 0, read_config_end },
    { { NULL, NULL, NULL }, 0, NULL },
};
