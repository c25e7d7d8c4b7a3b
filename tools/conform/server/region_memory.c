/* region_memory.c: VU-REG: the descriptors that come with region information, and the memory behind them. */
#include "access.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Calls `check` with the complete reply of each region that can be mapped. */
static void each_mappable(struct judge *j,
                          void (*check)(struct judge *j, uint32_t index, const struct ob_raw_message *m))
{
    bool any = false;

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = region_info(j, i);

        if (!(field32(j, m, 4) & VFIO_REGION_INFO_FLAG_MMAP))
            continue;
        check(j, i, m);
        any = true;
    }
    if (!any)
        judge_skip(j, "no region can be mapped");
}

static void comes(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(j, m->nfds > 0, "region %u: flags are %#x, with VFIO_REGION_INFO_FLAG_MMAP, and no descriptor came", index,
         field32(j, m, 4));
}

static void region_descriptor(struct judge *j)
{
    each_mappable(j, comes);
}

static void comes_alone(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(j, m->nfds <= 1, "region %u: %u descriptors came, wanted one, from which all its areas are mapped", index,
         m->nfds);
}

static void region_one_descriptor(struct judge *j)
{
    each_mappable(j, comes_alone);
}

static void region_no_descriptor(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        struct ob_raw_message *m = region_info(j, i);

        for (int turn = 0; turn < 2; turn++) {
            want(j, m->nfds == 0 || field32(j, m, 4) & VFIO_REGION_INFO_FLAG_MMAP,
                 "region %u: flags are %#x, without VFIO_REGION_INFO_FLAG_MMAP, and %u descriptors came", i,
                 field32(j, m, 4), m->nfds);
            want_ok(j, ask_region(j, i, 32, &m), "GET_REGION_INFO with argsz 32");
        }
    }
}

/* --- Where the memory is ----------------------------------------------------------------------------------------- */

/* Of these areas, mapped, those of regions with or without sparse areas; skips if there are none. */
static struct areas *map_areas(struct judge *j, struct areas *areas, bool sparse, bool whole)
{
    unsigned n = 0;

    reset(j);
    for (unsigned i = 0; i < areas->n; i++) {
        if (!(areas->at[i].sparse ? sparse : whole))
            continue;
        areas->at[n] = areas->at[i];
        area_map(j, &areas->at[n++]);
    }
    areas->n = n;
    if (n == 0)
        judge_skip(j, sparse ? "no region has areas that can be mapped" : "no region can be mapped as a whole");
    return areas;
}

/* Of those that messages reach too. */
static struct areas *mapped_memory(struct judge *j, bool sparse, bool whole)
{
    return map_areas(j, find_memory(j), sparse, whole);
}

/* The first and the last byte, that a file which is too short would not have. */
static void touch(struct judge *j, const struct areas *areas)
{
    uint8_t byte;

    for (unsigned i = 0; i < areas->n; i++) {
        area_load(j, &areas->at[i], 0, &byte, 1);
        area_load(j, &areas->at[i], areas->at[i].size - 1, &byte, 1);
    }
}

static void region_maps(struct judge *j)
{
    touch(j, map_areas(j, find_areas(j), false, true));
}

static void region_sparse_touch(struct judge *j)
{
    touch(j, map_areas(j, find_areas(j), true, false));
}

/* Whether what is written by message is in the memory of an area. */
static bool message_reaches(struct judge *j, const struct area *a)
{
    uint8_t was[8], other[8], is[8];
    int r;

    area_load(j, a, 0, was, 8);
    for (unsigned i = 0; i < 8; i++)
        other[i] = (uint8_t)(was[i] ^ (0xa5 + i));
    r = region_write(j, a->region, a->offset, other, 8);
    area_load(j, a, 0, is, 8);
    area_store(j, a, 0, was, 8);
    return r == 0 && memcmp(is, other, 8) == 0;
}

/* Each area gets bytes of its own through memory before the first is read by message, so that areas that are not where
 * they are said to be are told apart. If reads or writes by message show that an area is there, it is: whether both do
 * is VU-REG-14's affair. */
static void region_sparse_maps(struct judge *j)
{
    struct areas *areas = mapped_memory(j, true, false);
    uint8_t was[MAX_AREAS][8], mine[8], is[8];
    bool same = true;
    unsigned bad = 0;

    for (unsigned i = 0; i < areas->n; i++) {
        area_load(j, &areas->at[i], 0, was[i], 8);
        if (!area_keeps(j, &areas->at[i], 0, 8))
            judge_skip(j, "the memory of region %u does not keep what is stored", areas->at[i].region);
    }
    for (unsigned i = 0; i < areas->n; i++) {
        memset(mine, (int)(0x40 + i), 8);
        area_store(j, &areas->at[i], 0, mine, 8);
    }
    for (unsigned i = 0; i < areas->n && same; i++) {
        memset(mine, (int)(0x40 + i), 8);
        want_ok(j, region_read(j, areas->at[i].region, areas->at[i].offset, is, 8), "reading a sparse area");
        same = memcmp(mine, is, 8) == 0 || message_reaches(j, &areas->at[i]);
        bad = i;
    }
    for (unsigned i = 0; i < areas->n; i++)
        area_store(j, &areas->at[i], 0, was[i], 8);
    want(j, same,
         "region %u: what was stored at %#llx of the file, the reply's offset plus the area's, is not at %#llx of the "
         "region",
         areas->at[bad].region, (unsigned long long)areas->at[bad].in_file, (unsigned long long)areas->at[bad].offset);
}

/* --- The same bytes ---------------------------------------------------------------------------------------------- */

/* Calls `check` for the first 8 bytes of each area, for the last, and for 8 across pages, if they keep what is stored,
 * and puts back what was there. */
static void each_spot(struct judge *j,
                      void (*check)(struct judge *j, const struct area *a, uint64_t offset, const uint8_t other[8]))
{
    struct areas *areas = mapped_memory(j, true, true);
    bool any = false;

    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];
        const uint64_t spots[] = { 0, a->size - 8, 4096 - 4 };

        for (unsigned k = 0; k < 3; k++) {
            uint8_t was[8], other[8];

            if (a->size < 8 || spots[k] > a->size - 8 || !area_keeps(j, a, spots[k], 8))
                continue;
            area_load(j, a, spots[k], was, 8);
            for (unsigned b = 0; b < 8; b++)
                other[b] = (uint8_t)(was[b] ^ (b + 1 + 16 * k));
            check(j, a, spots[k], other);
            area_store(j, a, spots[k], was, 8);
            any = true;
        }
    }
    if (!any)
        judge_skip(j, "no mapped memory keeps what is stored");
}

static void read_stored(struct judge *j, const struct area *a, uint64_t offset, const uint8_t other[8])
{
    uint8_t is[8];

    area_store(j, a, offset, other, 8);
    want_ok(j, region_read(j, a->region, a->offset + offset, is, 8), "reading memory that is mapped");
    want(j, memcmp(is, other, 8) == 0, "region %u: what was stored in mapped memory at %#llx is not what is read there",
         a->region, (unsigned long long)(a->offset + offset));
}

static void region_memory_read(struct judge *j)
{
    each_spot(j, read_stored);
}

static void load_written(struct judge *j, const struct area *a, uint64_t offset, const uint8_t other[8])
{
    uint8_t is[8];

    want_ok(j, region_write(j, a->region, a->offset + offset, other, 8), "writing memory that is mapped");
    area_load(j, a, offset, is, 8);
    want(j, memcmp(is, other, 8) == 0, "region %u: what was written at %#llx is not in the mapped memory", a->region,
         (unsigned long long)(a->offset + offset));
}

static void region_memory_write(struct judge *j)
{
    each_spot(j, load_written);
}

/* 8 bytes over an edge of an area, whose other half the device may refuse, if it is registers. */
static bool edge_shown(struct judge *j, const struct area *a, uint64_t at, uint64_t in_area, unsigned skip)
{
    uint8_t was[4], other[4], read[8];
    int r;

    if (!area_keeps(j, a, in_area, 4) || !area_shows(j, a, in_area, 4))
        return false;
    area_load(j, a, in_area, was, 4);
    for (unsigned i = 0; i < 4; i++)
        other[i] = (uint8_t)(was[i] ^ (0x5a + i));
    area_store(j, a, in_area, other, 4);
    r = region_read(j, a->region, at, read, 8);
    area_store(j, a, in_area, was, 4);
    want(j, r != 0 || memcmp(read + skip, other, 4) == 0,
         "region %u: a read of 8 bytes at %#llx, across the edge of an area, does not show the memory's bytes",
         a->region, (unsigned long long)at);
    return r == 0;
}

static void region_memory_edge(struct judge *j)
{
    struct areas *areas = mapped_memory(j, true, false);
    unsigned shown = 0;

    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];
        const uint64_t end = a->offset + a->size;

        if (a->size < 4)
            continue;
        if (a->offset >= 4)
            shown += edge_shown(j, a, a->offset - 4, 0, 4);
        if (j->facts.region[a->region].size - end >= 4)
            shown += edge_shown(j, a, end - 4, a->size - 4, 0);
    }
    if (shown == 0)
        judge_skip(j, "no read across the edge of an area is answered");
}

/* --- What is in the file ----------------------------------------------------------------------------------------- */

static void is_sealed(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    int seals;

    if (m->nfds == 0)
        return;
    seals = fcntl(m->fds[0], F_GET_SEALS);
    want(j, seals >= 0, "region %u: the descriptor is of a file that cannot be sealed", index);
    want(j, (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW),
         "region %u: the file's seals are %#x, wanted F_SEAL_SHRINK and F_SEAL_GROW", index, seals);
}

static void region_sealed(struct judge *j)
{
    each_mappable(j, is_sealed);
}

static bool same_file(int a, int b)
{
    struct stat sa, sb;

    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* Whether the file's page at `at` belongs to an area, of any region. */
static bool page_of_area(const struct areas *areas, int fd, uint64_t at)
{
    for (unsigned i = 0; i < areas->n; i++) {
        const struct area *a = &areas->at[i];

        if (at + 4096 > a->in_file && at < a->in_file + a->size && same_file(a->fd, fd))
            return true;
    }
    return false;
}

static void region_file_alone(struct judge *j)
{
    const struct areas *areas = map_areas(j, find_areas(j), true, true);

    for (unsigned i = 0; i < areas->n; i++) {
        int fd = areas->at[i].fd;
        off_t at = 0;

        /* Only pages that exist can hold anything. */
        while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
            off_t end = lseek(fd, at, SEEK_HOLE);

            for (; at < end; at += 4096)
                want(j, page_of_area(areas, fd, (uint64_t)at),
                     "region %u: the descriptor's file has contents at %#llx, where no area of any region is",
                     areas->at[i].region, (unsigned long long)at);
        }
        want(j, errno == ENXIO, "region %u: the descriptor is of no regular file: %s", areas->at[i].region,
             strerror(errno));
    }
}

const struct check server_region_memory_checks[] = {
    { { "region-descriptor", "VU-REG-5", "regions with the flag MMAP come with a descriptor" }, 0, region_descriptor },
    { { "region-maps", "VU-REG-5", "regions can be mapped as a whole, at the offset of the reply" }, 0, region_maps },
    { { "region-one-descriptor", "VU-REG-6", "one descriptor comes for all areas" }, 0, region_one_descriptor },
    { { "region-no-descriptor", "VU-REG-7", "without the flag MMAP no descriptor comes" }, 0, region_no_descriptor },
    { { "region-sparse-touch", "VU-REG-5", "sparse areas can be mapped, to their last byte" },
      NEED_SPARSE,
      region_sparse_touch },
    { { "region-sparse-maps", "VU-REG-13", "sparse areas are at the reply's offset plus their own" },
      NEED_SPARSE,
      region_sparse_maps },
    { { "region-memory-read", "VU-REG-14", "what is stored in mapped memory is read by message" },
      0,
      region_memory_read },
    { { "region-memory-write", "VU-REG-14", "what is written by message is in mapped memory" },
      0,
      region_memory_write },
    { { "region-memory-edge", "VU-REG-14", "a read across the edge of an area shows the memory's bytes" },
      NEED_SPARSE,
      region_memory_edge },
    { { "region-sealed", "VU-REG-20", "the descriptor's file is sealed against resizing" }, 0, region_sealed },
    { { "region-file-alone", "VU-REG-20", "the descriptor's file holds nothing but mappable memory" },
      0,
      region_file_alone },
    { { NULL, NULL, NULL }, 0, NULL },
};
