/* region_caps.c: VU-REG: the capabilities of regions: sparse areas and types. */
#include "access.h"

/* Calls `check` for each region that has capabilities, with its complete reply. */
static void each_with_caps(struct judge *j,
                           void (*check)(struct judge *j, uint32_t index, const struct ob_raw_message *m))
{
    bool any = false;

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);

        if (field32(j, m, 0) <= 32 && !(field32(j, m, 4) & VFIO_REGION_INFO_FLAG_CAPS))
            continue;
        check(j, i, m);
        any = true;
    }
    if (!any)
        judge_skip(j, "no region has capabilities");
}

static void caps_flag(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(
        j, field32(j, m, 4) & VFIO_REGION_INFO_FLAG_CAPS,
        "region %u: argsz is %u, so that there are capabilities, but flags are %#x, without VFIO_REGION_INFO_FLAG_CAPS",
        index, field32(j, m, 0), field32(j, m, 4));
}

static void region_caps_flag(struct judge *j)
{
    each_with_caps(j, caps_flag);
}

static void caps_offset(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    const uint32_t at = field32(j, m, 12);

    if (!(field32(j, m, 4) & VFIO_REGION_INFO_FLAG_CAPS))
        return;
    want(j, at >= 32 && at <= m->size - 8,
         "region %u: cap_offset is %u; the reply has capabilities from 32 on and a payload of %u bytes", index, at,
         m->size);
    want(j, field16(j, m, at) != 0, "region %u: at cap_offset, %u, there is a capability with id 0", index, at);
}

static void region_caps_offset(struct judge *j)
{
    each_with_caps(j, caps_offset);
}

/* How many bytes a capability has, by what it says. */
static uint64_t capability_size(struct judge *j, const struct ob_raw_message *m, const struct capability *c)
{
    switch (c->id) {
    case VFIO_REGION_INFO_CAP_SPARSE_MMAP:
        return 16 + (c->at + 12 <= m->size ? field32(j, m, c->at + 8) : 0) * 16ull;
    case VFIO_REGION_INFO_CAP_TYPE:
        return 16;
    default:
        return 8;
    }
}

static void caps_inside(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    struct capability list[MAX_CAPABILITIES];
    const char *wrong;
    unsigned n = capabilities(m, list, &wrong);

    for (unsigned i = 0; i < n; i++) {
        uint64_t size = capability_size(j, m, &list[i]);

        want(j, size <= m->size - list[i].at,
             "region %u: the capability at %u, of id %u, has %llu bytes, and the payload ends at %u", index, list[i].at,
             list[i].id, (unsigned long long)size, m->size);
    }
}

static void region_caps_inside(struct judge *j)
{
    each_with_caps(j, caps_inside);
}

static void caps_end(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    struct capability list[MAX_CAPABILITIES];
    const char *wrong;
    unsigned n = capabilities(m, list, &wrong);

    want(j, wrong == NULL, "region %u: the list of capabilities %s after %u, at cap_offset %u or next %u", index, wrong,
         n, field32(j, m, 12), n > 0 ? list[n - 1].next : 0);
}

static void region_caps_end(struct judge *j)
{
    each_with_caps(j, caps_end);
}

/* --- Sparse areas ------------------------------------------------------------------------------------------------ */

/* Calls `check` with each sparse capability; without one the check is skipped. */
static void each_sparse(struct judge *j, void (*check)(struct judge *j, uint32_t index, const struct ob_raw_message *m,
                                                       const struct capability *c))
{
    bool any = false;

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);
        struct capability list[MAX_CAPABILITIES];
        const char *wrong;

        for (unsigned k = 0, n = capabilities(m, list, &wrong); k < n; k++) {
            if (list[k].id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
                continue;
            check(j, i, m, &list[k]);
            any = true;
        }
    }
    if (!any)
        judge_skip(j, "no region has sparse areas");
}

static void sparse_version(struct judge *j, uint32_t index, const struct ob_raw_message *m, const struct capability *c)
{
    want(j, c->version == 1, "region %u: the sparse capability is of version %u, wanted 1", index, c->version);
}

static void region_sparse_version(struct judge *j)
{
    each_sparse(j, sparse_version);
}

static void region_sparse_one(struct judge *j)
{
    bool any = false;

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);
        struct capability list[MAX_CAPABILITIES];
        const char *wrong;
        unsigned found = 0;

        for (unsigned k = 0, n = capabilities(m, list, &wrong); k < n; k++)
            found += list[k].id == VFIO_REGION_INFO_CAP_SPARSE_MMAP;
        want(j, found <= 1, "region %u has %u sparse capabilities, wanted one with all areas", i, found);
        any |= found > 0;
    }
    if (!any)
        judge_skip(j, "no region has sparse areas");
}

static void sparse_reserved(struct judge *j, uint32_t index, const struct ob_raw_message *m, const struct capability *c)
{
    want(j, field32(j, m, c->at + 12) == 0, "region %u: the reserved field of the sparse capability is %#x", index,
         field32(j, m, c->at + 12));
}

static void region_sparse_reserved(struct judge *j)
{
    each_sparse(j, sparse_reserved);
}

/* The areas themselves, as they are said. */
static uint64_t area_offset(struct judge *j, const struct ob_raw_message *m, const struct capability *c, uint32_t n)
{
    return field64(j, m, c->at + 16 + (size_t)n * 16);
}

static uint64_t area_size(struct judge *j, const struct ob_raw_message *m, const struct capability *c, uint32_t n)
{
    return field64(j, m, c->at + 24 + (size_t)n * 16);
}

static uint32_t n_areas(struct judge *j, const struct ob_raw_message *m, const struct capability *c)
{
    return field32(j, m, c->at + 8);
}

static void sparse_inside(struct judge *j, uint32_t index, const struct ob_raw_message *m, const struct capability *c)
{
    const uint64_t region = field64(j, m, 16);

    for (uint32_t i = 0; i < n_areas(j, m, c); i++) {
        uint64_t offset = area_offset(j, m, c, i), size = area_size(j, m, c, i);

        want(j, offset <= region && size <= region - offset,
             "region %u: area %u, %#llx bytes at %#llx, leaves the region of %#llx", index, i, (unsigned long long)size,
             (unsigned long long)offset, (unsigned long long)region);
    }
}

static void region_sparse_inside(struct judge *j)
{
    each_sparse(j, sparse_inside);
}

static void sparse_empty(struct judge *j, uint32_t index, const struct ob_raw_message *m, const struct capability *c)
{
    for (uint32_t i = 0; i < n_areas(j, m, c); i++)
        want(j, area_size(j, m, c, i) > 0, "region %u: area %u of %u is empty", index, i, n_areas(j, m, c));
}

static void region_sparse_empty(struct judge *j)
{
    each_sparse(j, sparse_empty);
}

static void sparse_aligned(struct judge *j, uint32_t index, const struct ob_raw_message *m, const struct capability *c)
{
    for (uint32_t i = 0; i < n_areas(j, m, c); i++) {
        uint64_t offset = area_offset(j, m, c, i), size = area_size(j, m, c, i);

        want(j, offset % 4096 == 0 && size % 4096 == 0,
             "region %u: area %u, %#llx bytes at %#llx, is not in whole pages of 4096", index, i,
             (unsigned long long)size, (unsigned long long)offset);
    }
}

static void region_sparse_aligned(struct judge *j)
{
    each_sparse(j, sparse_aligned);
}

static void sparse_apart(struct judge *j, uint32_t index, const struct ob_raw_message *m, const struct capability *c)
{
    const uint32_t n = n_areas(j, m, c) < 256 ? n_areas(j, m, c) : 256;

    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = i + 1; k < n; k++) {
            uint64_t a = area_offset(j, m, c, i), b = area_offset(j, m, c, k);

            want(j, a < b ? area_size(j, m, c, i) <= b - a : area_size(j, m, c, k) <= a - b && a != b,
                 "region %u: areas %u, at %#llx, and %u, at %#llx, overlap", index, i, (unsigned long long)a, k,
                 (unsigned long long)b);
        }
    }
}

static void region_sparse_apart(struct judge *j)
{
    each_sparse(j, sparse_apart);
}

/* --- Types ------------------------------------------------------------------------------------------------------- */

static void region_type(struct judge *j)
{
    for (uint32_t i = VFIO_PCI_NUM_REGIONS; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);
        struct capability list[MAX_CAPABILITIES];
        const char *wrong;
        unsigned found = 0;

        for (unsigned k = 0, n = capabilities(m, list, &wrong); k < n; k++)
            found += list[k].id == VFIO_REGION_INFO_CAP_TYPE;
        want(j, found == 1 || field64(j, m, 16) == 0, "region %u has %u type capabilities, wanted one", i, found);
    }
}

const struct check server_region_caps_checks[] = {
    { { "region-caps-flag", "VU-REG-8", "a reply with capabilities has the flag CAPS" }, 0, region_caps_flag },
    { { "region-caps-offset", "VU-REG-8", "cap_offset points at the first capability" }, 0, region_caps_offset },
    { { "region-caps-inside", "VU-REG-9", "every capability lies wholly in the reply" }, 0, region_caps_inside },
    { { "region-caps-end", "VU-REG-9", "the list of capabilities stays in the reply and ends" }, 0, region_caps_end },
    { { "region-sparse-version", "VU-REG-10", "sparse capabilities are of version 1" }, 0, region_sparse_version },
    { { "region-sparse-one", "VU-REG-10", "one sparse capability has all areas of a mappable region" },
      0,
      region_sparse_one },
    { { "region-sparse-inside", "VU-REG-11", "sparse areas lie in their region" }, 0, region_sparse_inside },
    { { "region-sparse-empty", "VU-REG-12", "no sparse area is empty" }, 0, region_sparse_empty },
    { { "region-sparse-aligned", "VU-REG-12", "sparse areas are whole pages" }, 0, region_sparse_aligned },
    { { "region-sparse-apart", "VU-REG-12", "sparse areas do not overlap" }, 0, region_sparse_apart },
    { { "region-type", "VU-REG-19", "regions of the device's own have a type" }, NEED_EXTRA_REGION, region_type },
    { { "region-sparse-reserved", "VU-HDR-30", "the reserved field of a sparse capability is 0" },
      0,
      region_sparse_reserved },
    { { NULL, NULL, NULL }, 0, NULL },
};
