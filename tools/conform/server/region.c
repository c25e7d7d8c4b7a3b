/* region.c: VU-REG: what GET_REGION_INFO answers, and whether its flags are true. */
#include "access.h"

/* Of each region, asked for everything, and asked for the structure alone. */
static void each_reply(struct judge *j,
                       void (*check)(struct judge *j, uint32_t index, const struct ob_raw_message *m, const char *what))
{
    char what[80];

    for (uint32_t i = 0; i < regions(j); i++) {
        struct ob_raw_message *m;

        snprintf(what, sizeof(what), "GET_REGION_INFO of region %u with room for everything", i);
        check(j, i, region_info(j, i), what);
        snprintf(what, sizeof(what), "GET_REGION_INFO of region %u with argsz 32", i);
        want_ok(j, ask_region(j, i, 32, &m), what);
        check(j, i, m, what);
    }
}

static void reply_index(struct judge *j, uint32_t index, const struct ob_raw_message *m, const char *what)
{
    want(j, field32(j, m, 8) == index, "%s: the answer's index is %u", what, field32(j, m, 8));
}

static void region_index(struct judge *j)
{
    each_reply(j, reply_index);
}

static void reply_size(struct judge *j, uint32_t index, const struct ob_raw_message *m, const char *what)
{
    want(j, m->size >= 32, "%s: a payload of %u bytes, wanted 32 or more", what, m->size);
}

static void region_size(struct judge *j)
{
    each_reply(j, reply_size);
}

static void region_argsz(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);

        want(j, field32(j, m, 0) == m->size, "region %u: argsz is %u in a complete reply with a payload of %u bytes", i,
             field32(j, m, 0), m->size);
    }
}

/* --- Too little room --------------------------------------------------------------------------------------------- */

/* Of each region that has capabilities, the reply to every argsz that has no room for them. */
static void each_short(struct judge *j,
                       void (*check)(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m))
{
    bool any = false;

    for (uint32_t i = 0; i < regions(j); i++) {
        const uint32_t full = field32(j, region_info(j, i), 0);

        for (uint32_t argsz = 32; argsz < full && argsz<4096; argsz += full - argsz> 64 ? 16 : 1) {
            struct ob_raw_message *m;

            want_ok(j, ask_region(j, i, argsz, &m), "GET_REGION_INFO with too small an argsz");
            check(j, i, argsz, m);
            any = true;
        }
    }
    if (!any)
        judge_skip(j, "no region has capabilities");
}

static void short_argsz(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m)
{
    const struct ob_raw_message *full = region_info(j, index);

    want(j, field32(j, m, 0) == field32(j, full, 0), "region %u: asked with argsz %u, the reply's is %u, wanted %u",
         index, argsz, field32(j, m, 0), field32(j, full, 0));
}

static void region_short_argsz(struct judge *j)
{
    each_short(j, short_argsz);
}

/* The reference library's reply is as long as argsz, with zeroes for capabilities. */
static void short_empty(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m)
{
    for (uint32_t i = 32; i < m->size; i++)
        want(j, m->payload[i] == 0,
             "region %u: asked with argsz %u, which has no room for the capabilities, the reply has a part of them: "
             "byte "
             "%u is %#x",
             index, argsz, i, m->payload[i]);
}

static void region_short_empty(struct judge *j)
{
    each_short(j, short_empty);
}

static void short_same(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m)
{
    const struct ob_raw_message *full = region_info(j, index);
    const uint32_t known = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;

    want(j, field64(j, m, 16) == field64(j, full, 16) && (field32(j, m, 4) & known) == (field32(j, full, 4) & known),
         "region %u: asked with argsz %u, its size is %#llx and its flags are %#x; asked with %u, %#llx and %#x", index,
         argsz, (unsigned long long)field64(j, m, 16), field32(j, m, 4), field32(j, full, 0),
         (unsigned long long)field64(j, full, 16), field32(j, full, 4));
}

static void region_short_same(struct judge *j)
{
    each_short(j, short_same);
}

static void short_flag(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m)
{
    want(j, !(field32(j, m, 4) & VFIO_REGION_INFO_FLAG_CAPS),
         "region %u: asked with argsz %u, flags are %#x, with VFIO_REGION_INFO_FLAG_CAPS, in a reply without them",
         index, argsz, field32(j, m, 4));
}

static void region_short_flag(struct judge *j)
{
    each_short(j, short_flag);
}

static void short_offset(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m)
{
    want(j, field32(j, m, 12) == 0, "region %u: asked with argsz %u, cap_offset is %u in a reply without capabilities",
         index, argsz, field32(j, m, 12));
}

static void region_short_offset(struct judge *j)
{
    each_short(j, short_offset);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static void region_beyond(struct judge *j)
{
    const uint32_t n = j->facts.regions, indexes[] = { n, n + 1, 0x7fffffff, 0x80000000, 0xffffffff };
    char what[64];

    for (size_t i = 0; i < sizeof(indexes) / sizeof(*indexes); i++) {
        snprintf(what, sizeof(what), "GET_REGION_INFO of region %u of %u", indexes[i], n);
        want_error(j, ask_region(j, indexes[i], 32, NULL), EINVAL, what);
    }
}

static void region_every(struct judge *j)
{
    char what[64];

    for (uint32_t i = 0; i < j->facts.regions && i < 4096; i++) {
        snprintf(what, sizeof(what), "GET_REGION_INFO of region %u", i);
        want_ok(j, ask_region(j, i, 32, NULL), what);
    }
}

static void region_empty(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);

        want(j, field64(j, m, 16) > 0 || field32(j, m, 4) == 0, "region %u has size 0 and flags %#x, wanted none", i,
             field32(j, m, 4));
    }
}

static void region_argsz_small(struct judge *j)
{
    static const uint32_t small[] = { 0, 1, 16, 31 };
    char what[64];

    for (uint32_t i = 0; i < regions(j); i++) {
        for (size_t k = 0; k < sizeof(small) / sizeof(*small); k++) {
            struct ob_raw_message *m = NULL;
            int r = ask_region(j, i, small[k], &m);

            snprintf(what, sizeof(what), "GET_REGION_INFO of region %u with argsz %u", i, small[k]);
            want_no_more(j, r, m, small[k], what);
        }
    }
}

/* --- Whether READ and WRITE are true ----------------------------------------------------------------------------- */

/* The device decides which widths a register takes, so one that works is enough. */
static bool readable(struct judge *j, uint32_t region)
{
    static const uint8_t widths[] = { 4, 2, 1, 8 };
    uint8_t data[8];

    for (size_t i = 0; i < sizeof(widths); i++) {
        if (widths[i] <= j->facts.region[region].size && region_read(j, region, 0, data, widths[i]) == 0)
            return true;
    }
    return false;
}

static void region_readable(struct judge *j)
{
    reset(j);
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];

        want(j, r->size == 0 || !(r->flags & VFIO_REGION_INFO_FLAG_READ) || readable(j, i),
             "region %u has VFIO_REGION_INFO_FLAG_READ, but reads at 0 of 1, 2, 4 and 8 bytes are refused", i);
    }
}

static void region_unreadable(struct judge *j)
{
    bool any = false;
    uint8_t data[4];
    char what[96];

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];

        if (r->size < 4 || r->flags & VFIO_REGION_INFO_FLAG_READ)
            continue;
        snprintf(what, sizeof(what), "reading region %u, which has no VFIO_REGION_INFO_FLAG_READ", i);
        want_refused(j, region_read(j, i, 0, data, 4), what);
        want_refused(j, region_read(j, i, r->size - 1, data, 1), what);
        any = true;
    }
    if (!any)
        judge_skip(j, "every region can be read");
}

/* What is written is what is there, so that a server that takes it has not been changed. */
static void region_unwritable(struct judge *j)
{
    bool any = false;
    char what[96];

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];
        uint8_t data[4] = { 0 };

        if (r->size < 4 || r->flags & VFIO_REGION_INFO_FLAG_WRITE)
            continue;
        snprintf(what, sizeof(what), "writing region %u, which has no VFIO_REGION_INFO_FLAG_WRITE", i);
        if (r->flags & VFIO_REGION_INFO_FLAG_READ)
            (void)region_read(j, i, 0, data, 4);
        want_refused(j, region_write(j, i, 0, data, 4), what);
        want_refused(j, region_write(j, i, 0, data, 1), what);
        any = true;
    }
    if (!any)
        judge_skip(j, "every region can be written");
}

static void place_taken(struct judge *j, const struct place *p)
{
    place_write(j, p, 0);
}

static void region_writable(struct judge *j)
{
    each_place(j, place_taken);
}

const struct check server_region_checks[] = {
    { { "region-size", "VU-REG-2", "every reply has the 32 bytes of the structure" }, 0, region_size },
    { { "region-index", "VU-REG-2", "every reply has the index that was asked for" }, 0, region_index },
    { { "region-argsz", "VU-REG-2", "argsz of a complete reply is the size of its payload" }, 0, region_argsz },
    { { "region-short-argsz", "VU-REG-2", "argsz does not depend on the room that the request has" },
      0,
      region_short_argsz },
    { { "region-short-empty", "VU-REG-3", "without room for the capabilities, the reply has no part of them" },
      0,
      region_short_empty },
    { { "region-short-same", "VU-INFO-11", "size, READ and WRITE do not depend on the room" }, 0, region_short_same },
    { { "region-short-flag", "VU-REG-4", "a reply without its capabilities has the flag CAPS clear" },
      0,
      region_short_flag },
    { { "region-short-cap-offset", "VU-REG-4", "a reply without its capabilities has cap_offset 0" },
      0,
      region_short_offset },
    { { "region-readable", "VU-REG-15", "regions with the flag READ can be read" }, 0, region_readable },
    { { "region-unreadable", "VU-REG-15", "regions without the flag READ refuse reads" }, 0, region_unreadable },
    { { "region-writable", "VU-REG-15", "what is known to keep what is written can be written" }, 0, region_writable },
    { { "region-unwritable", "VU-REG-15", "regions without the flag WRITE refuse writes" }, 0, region_unwritable },
    { { "region-index-beyond", "VU-REG-16", "an index at or above num_regions fails with EINVAL" }, 0, region_beyond },
    { { "region-every-index", "VU-REG-17", "every index below num_regions succeeds" }, 0, region_every },
    { { "region-empty", "VU-REG-17", "a region of size 0 has no flags" }, 0, region_empty },
    { { "region-argsz-small", "VU-REG-18", "an argsz below 32 is refused, or answered with no more" },
      0,
      region_argsz_small },
    { { NULL, NULL, NULL }, 0, NULL },
};
