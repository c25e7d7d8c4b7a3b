/* map.c: VU-MAP: DMA_MAP, by what a server answers. */
#include "check.h"

#include <fcntl.h>
#include <unistd.h>

#define PROT 3u
#define BASE 0x10000000ull

static struct ob_raw_dma_map entry(uint64_t address, uint64_t size)
{
    return (struct ob_raw_dma_map){ .argsz = 32, .flags = PROT, .address = address, .size = size };
}

static void mapped(struct judge *j, uint64_t address, uint64_t size)
{
    want_ok(j, map(j, address, size, PROT, -1, 0), "DMA_MAP");
}

static void unmapped(struct judge *j, uint64_t address, uint64_t size)
{
    want_ok(j, unmap(j, address, size), "DMA_UNMAP");
}

static void refused(struct judge *j, const struct ob_raw_dma_map *m, int fd, int wanted)
{
    int r = call(j, OB_RAW_DMA_MAP, m, sizeof(*m), &fd, fd >= 0, NULL);
    char what[128];

    snprintf(what, sizeof(what), "DMA_MAP of %#llx bytes at %#llx, offset %#llx, flags %#x, argsz %u",
             (unsigned long long)m->size, (unsigned long long)m->address, (unsigned long long)m->offset, m->flags,
             m->argsz);
    if (wanted == 0)
        want_refused(j, r, what);
    else
        want_error(j, r, wanted, what);
}

static void check_overlap(struct judge *j)
{
    mapped(j, BASE, 4 * j->facts.page);
    want_error(j, map(j, BASE, 4 * j->facts.page, PROT, -1, 0), EEXIST, "DMA_MAP of the same range");
}

static void check_overlap_fd(struct judge *j)
{
    int fd = judge_memfd(j, 4 * j->facts.page);

    want_ok(j, map(j, BASE, 4 * j->facts.page, PROT, fd, 0), "DMA_MAP");
    want_error(j, map(j, BASE, 4 * j->facts.page, PROT, fd, 0), EEXIST, "DMA_MAP of the same range and file");
}

/* In pages from BASE; what is there is [0, 4). */
static void overlap(struct judge *j, int start, unsigned count, const char *what)
{
    const uint64_t page = j->facts.page;

    mapped(j, BASE, 4 * page);
    want_error(j, map(j, BASE + (uint64_t)(int64_t)start * page, count * page, PROT, -1, 0), EEXIST, what);
}

static void check_overlap_part(struct judge *j)
{
    overlap(j, 1, 2, "DMA_MAP of a part");
}

static void check_overlap_head(struct judge *j)
{
    overlap(j, 0, 1, "DMA_MAP of the first page");
}

static void check_overlap_tail(struct judge *j)
{
    overlap(j, 3, 1, "DMA_MAP of the last page");
}

static void check_overlap_around(struct judge *j)
{
    overlap(j, -1, 6, "DMA_MAP of a range around");
}

static void check_overlap_start(struct judge *j)
{
    overlap(j, -1, 2, "DMA_MAP across the start");
}

static void check_overlap_end(struct judge *j)
{
    overlap(j, 3, 2, "DMA_MAP across the end");
}

static void check_overlap_two(struct judge *j)
{
    const uint64_t page = j->facts.page;

    mapped(j, BASE, page);
    mapped(j, BASE + 2 * page, page);
    want_error(j, map(j, BASE, 3 * page, PROT, -1, 0), EEXIST, "DMA_MAP over two maps and a gap");
    mapped(j, BASE + page, page);
}

static void check_touching(struct judge *j)
{
    const uint64_t page = j->facts.page;

    mapped(j, BASE, page);
    mapped(j, BASE + page, page);
    mapped(j, BASE - page, page);
}

static void check_no_payload(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);
    struct ob_raw_message *reply;

    want_ok(j, call(j, OB_RAW_DMA_MAP, &m, sizeof(m), NULL, 0, &reply), "DMA_MAP");
    want(j, reply->size == 0 && reply->nfds == 0, "a reply with a payload of %u bytes and %u descriptors, wanted none",
         reply->size, reply->nfds);
}

static void check_argsz(struct judge *j)
{
    static const uint32_t small[] = { 0, 1, 24, 31 };
    struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    for (size_t i = 0; i < sizeof(small) / sizeof(*small); i++) {
        m.argsz = small[i];
        refused(j, &m, -1, EINVAL);
    }
    mapped(j, BASE, j->facts.page);
}

static void check_size_zero(struct judge *j)
{
    struct ob_raw_dma_map m = entry(BASE, 0);

    refused(j, &m, -1, EINVAL);
    refused(j, &m, judge_memfd(j, j->facts.page), EINVAL);
}

static void check_wrap(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(-page, 2 * page);

    refused(j, &m, -1, EINVAL);
    m = entry(2 * page, -page);
    refused(j, &m, -1, EINVAL);
    m = entry(-page, -page);
    refused(j, &m, -1, EINVAL);
}

static void check_wrap_file(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(BASE, 2 * page);
    int fd = judge_memfd(j, 4 * page);

    m.offset = -page;
    refused(j, &m, fd, EINVAL);
    mapped(j, BASE, page);
}

/* Bits 2 and 3 mean something to the reference library, so others may know them too. */
static void check_flags(struct judge *j)
{
    struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    for (unsigned bit = 4; bit < 32; bit++) {
        m.flags = PROT | 1u << bit;
        refused(j, &m, -1, EINVAL);
    }
    mapped(j, BASE, j->facts.page);
}

static void check_no_access(struct judge *j)
{
    struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    m.flags = 0;
    refused(j, &m, -1, EINVAL);
}

static void check_address_aligned(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(BASE + 1, page);

    refused(j, &m, -1, EINVAL);
    m.address = BASE + page / 2;
    refused(j, &m, -1, EINVAL);
    refused(j, &m, judge_memfd(j, page), EINVAL);
}

static void check_size_aligned(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(BASE, page - 1);

    refused(j, &m, -1, EINVAL);
    m.size = page + 512;
    refused(j, &m, -1, EINVAL);
    refused(j, &m, judge_memfd(j, 2 * page), EINVAL);
}

static void check_offset_aligned(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(BASE, page);

    m.offset = 512;
    refused(j, &m, judge_memfd(j, 4 * page), EINVAL);
}

static void check_beyond_file(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int fd = judge_memfd(j, 4 * page);
    struct ob_raw_dma_map m = entry(BASE, 5 * page);

    refused(j, &m, fd, 0);
    m.size = page;
    m.offset = 4 * page;
    refused(j, &m, fd, 0);
    m.offset = 1ull << 40;
    refused(j, &m, fd, 0);
    m.offset = 3 * page;
    m.size = 2 * page;
    refused(j, &m, fd, 0);
    want_ok(j, map(j, BASE, page, PROT, fd, 3 * page), "DMA_MAP of the file's last page");
}

static void check_empty_file(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    refused(j, &m, judge_memfd(j, 0), 0);
}

static void check_socket(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    refused(j, &m, theirs, 0);
}

static void check_eventfd(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    refused(j, &m, judge_eventfd(j), 0);
}

static void check_folder(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    refused(j, &m, judge_open_file(j, "/", O_RDONLY), 0);
}

static void check_read_only(struct judge *j)
{
    const uint64_t page = j->facts.page;
    const struct ob_raw_dma_map m = entry(BASE, page);
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", judge_memfd(j, page));
    fd = judge_open_file(j, path, O_RDONLY);
    refused(j, &m, fd, 0);
    want_ok(j, map(j, BASE, page, 1, fd, 0), "DMA_MAP, readable only, of a file open for reading");
}

static void check_two_descriptors(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);
    const int fds[2] = { judge_memfd(j, j->facts.page), judge_memfd(j, j->facts.page) };

    if (j->facts.max_msg_fds < 2) {
        judge_skip(j, "the server takes one descriptor a message");
    }
    want_error(j, call(j, OB_RAW_DMA_MAP, &m, sizeof(m), fds, 2, NULL), EINVAL, "DMA_MAP with two descriptors");
    mapped(j, BASE, j->facts.page);
}

static void check_without_fd(struct judge *j)
{
    mapped(j, BASE, j->facts.page);
    unmapped(j, BASE, j->facts.page);
    want_ok(j, map(j, BASE, j->facts.page, 1, -1, 0), "DMA_MAP, readable only, without a descriptor");
}

static void check_large(struct judge *j)
{
    mapped(j, 1ull << 40, 1ull << 40);
    unmapped(j, 1ull << 40, 1ull << 40);
}

static void check_failure_keeps(struct judge *j)
{
    const uint64_t page = j->facts.page;
    const struct ob_raw_dma_map m = entry(BASE + page, 2 * page);

    mapped(j, BASE, 2 * page);
    refused(j, &m, -1, 0);
    refused(j, &m, judge_memfd(j, 2 * page), 0);
    unmapped(j, BASE, 2 * page);
}

static void check_failure_leaves_nothing(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(BASE, 4 * page);

    refused(j, &m, judge_eventfd(j), 0);
    want_refused(j, unmap(j, BASE, 4 * page), "DMA_UNMAP of what could not be mapped");
    mapped(j, BASE, 4 * page);
}

static void check_same_file(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int fd = judge_memfd(j, 4 * page);

    for (unsigned i = 0; i < 16; i++) {
        want_ok(j, map(j, BASE + i * 8 * page, (1 + i % 4) * page, PROT, fd, 0), "DMA_MAP of the same file");
    }
    want_ok(j, map(j, BASE + 5 * page, page, PROT, fd, 3 * page), "DMA_MAP of the same file's last page");
    for (unsigned i = 0; i < 16; i++) {
        unmapped(j, BASE + i * 8 * page, (1 + i % 4) * page);
    }
}

static void check_any_time(struct judge *j)
{
    want_alive(j, "GET_INFO");
    reset(j);
    mapped(j, BASE, j->facts.page);
}

/* Fills the table to the announced number by one stream, and goes one too far. */
static void check_too_many(struct judge *j)
{
    const uint32_t most = j->facts.max_maps;
    const uint64_t page = j->facts.page;

    if (most > 65535) {
        judge_skip(j, "the server takes more than 65535 maps");
    }
    for (uint32_t done = 0; done < most;) {
        uint32_t step = most - done < 1024 ? most - done : 1024;
        uint16_t id = 0;

        for (uint32_t i = 0; i < step; i++) {
            const struct ob_raw_dma_map m = entry((done + i) * 2 * page, page);

            got(j, ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &m, sizeof(m), NULL, 0, &id), "sending");
        }
        id = (uint16_t)(id - step);
        for (uint32_t i = 0; i < step; i++) {
            want_ok(j, ob_raw_reply(&j->raw, ++id, OB_RAW_DMA_MAP, NULL), "DMA_MAP below the announced number");
        }
        done += step;
    }
    want_refused(j, map(j, most * 2 * page, page, PROT, -1, 0), "DMA_MAP beyond the announced number");
    unmapped(j, 0, page);
    want_ok(j, map(j, most * 2 * page, page, PROT, -1, 0), "DMA_MAP after one was unmapped");
}

static void check_cut_short(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int fd = judge_memfd(j, 4 * page);

    want_ok(j, map(j, BASE, 4 * page, PROT, fd, 0), "DMA_MAP");
    want(j, ftruncate(fd, (off_t)page) == 0, "cannot cut the file: %s", strerror(errno));
    want_alive(j, "after the file was cut short");
    unmapped(j, BASE, 4 * page);
}

const struct check server_map_checks[] = {
    { { "map-overlap-same", "VU-MAP-3", "a second map of the same range fails with EEXIST" }, 0, check_overlap },
    { { "map-overlap-same-file", "VU-MAP-3", "so it does with a descriptor, of the same file" }, 0, check_overlap_fd },
    { { "map-overlap-part", "VU-MAP-4", "a map of a part fails with EEXIST" }, 0, check_overlap_part },
    { { "map-overlap-head", "VU-MAP-4", "a map of the first page fails with EEXIST" }, 0, check_overlap_head },
    { { "map-overlap-tail", "VU-MAP-4", "a map of the last page fails with EEXIST" }, 0, check_overlap_tail },
    { { "map-overlap-around", "VU-MAP-4", "a map around fails with EEXIST" }, 0, check_overlap_around },
    { { "map-overlap-start", "VU-MAP-4", "a map across the start fails with EEXIST" }, 0, check_overlap_start },
    { { "map-overlap-end", "VU-MAP-4", "a map across the end fails with EEXIST" }, 0, check_overlap_end },
    { { "map-overlap-two", "VU-MAP-4", "a map over two with a gap fails with EEXIST, and the gap can be mapped" },
      0,
      check_overlap_two },
    { { "map-touching", "VU-MAP-4", "maps that touch do not overlap" }, 0, check_touching },
    { { "map-no-payload", "VU-MAP-5", "the reply has no payload" }, 0, check_no_payload },
    { { "map-argsz-small", "VU-MAP-6", "argsz below 32 fails with EINVAL" }, 0, check_argsz },
    { { "map-size-zero", "VU-MAP-7", "size 0 fails with EINVAL" }, 0, check_size_zero },
    { { "map-wrap", "VU-MAP-8", "a range that wraps around fails with EINVAL" }, 0, check_wrap },
    { { "map-wrap-file", "VU-MAP-8", "a range that wraps around in the file fails with EINVAL" }, 0, check_wrap_file },
    { { "map-unknown-flags", "VU-MAP-9", "each unknown flag fails with EINVAL" }, 0, check_flags },
    { { "map-no-access", "VU-MAP-10", "neither readable nor writeable fails with EINVAL" }, 0, check_no_access },
    { { "map-address-aligned", "VU-MAP-11", "an unaligned address fails with EINVAL" }, 0, check_address_aligned },
    { { "map-size-aligned", "VU-MAP-11", "an unaligned size fails with EINVAL" }, 0, check_size_aligned },
    { { "map-offset-aligned", "VU-MAP-11", "an unaligned offset of a file fails with EINVAL" },
      0,
      check_offset_aligned },
    { { "map-beyond-file", "VU-MAP-12", "a range beyond the end of the file is refused" }, 0, check_beyond_file },
    { { "map-empty-file", "VU-MAP-12", "an empty file is refused" }, 0, check_empty_file },
    { { "map-socket", "VU-MAP-13", "a socket is refused" }, 0, check_socket },
    { { "map-eventfd", "VU-MAP-13", "an eventfd is refused" }, 0, check_eventfd },
    { { "map-folder", "VU-MAP-13", "a folder is refused" }, 0, check_folder },
    { { "map-read-only", "VU-MAP-13", "a file open for reading is refused as writeable, and taken as readable" },
      0,
      check_read_only },
    { { "map-two-descriptors", "VU-MAP-14", "two descriptors fail with EINVAL" }, 0, check_two_descriptors },
    { { "map-without-descriptor", "VU-MAP-15", "a map without a descriptor is accepted" }, 0, check_without_fd },
    { { "map-large", "VU-MAP-15", "a map of 1 TiB without a descriptor is accepted" }, 0, check_large },
    { { "map-failure-keeps", "VU-MAP-19", "what was mapped before a failure is still mapped" },
      0,
      check_failure_keeps },
    { { "map-failure-leaves-nothing", "VU-MAP-19", "a map that fails leaves no part of itself" },
      0,
      check_failure_leaves_nothing },
    { { "map-same-file", "VU-MAP-20", "one file can be mapped at many addresses" }, 0, check_same_file },
    { { "map-any-time", "VU-MAP-21", "DMA_MAP is accepted after other commands and a reset" }, 0, check_any_time },
    { { "map-too-many", "VU-MAP-22", "a map beyond the announced number is refused until another is gone" },
      0,
      check_too_many },
    { { "map-cut-short", "VU-MAP-23", "a file that is cut short does not kill the server" }, 0, check_cut_short },
    { { NULL, NULL, NULL }, 0, NULL },
};
