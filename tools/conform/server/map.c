/* map.c: VU-MAP: DMA_MAP, by what a server answers. */
#include "guest.h"

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

/* 0 or the errno. */
static int sent(struct judge *j, const struct ob_raw_dma_map *m, int fd)
{
    return call(j, OB_RAW_DMA_MAP, m, sizeof(*m), &fd, fd >= 0, NULL);
}

static const char *described(const struct ob_raw_dma_map *m, char *text, size_t room)
{
    snprintf(text, room, "DMA_MAP of %#llx bytes at %#llx, offset %#llx, flags %#x, argsz %u",
             (unsigned long long)m->size, (unsigned long long)m->address, (unsigned long long)m->offset, m->flags,
             m->argsz);
    return text;
}

static void refused(struct judge *j, const struct ob_raw_dma_map *m, int fd, int wanted)
{
    int r = sent(j, m, fd);
    char what[128];

    if (wanted == 0)
        want_refused(j, r, described(m, what, sizeof(what)));
    else
        want_error(j, r, wanted, described(m, what, sizeof(what)));
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
static int overlapping(struct judge *j, int start, unsigned count)
{
    const uint64_t page = j->facts.page;

    mapped(j, BASE, 4 * page);
    return map(j, BASE + (uint64_t)(int64_t)start * page, count * page, PROT, -1, 0);
}

static void overlap(struct judge *j, int start, unsigned count, const char *what)
{
    want_refused(j, overlapping(j, start, count), what);
}

static void check_overlap_errno(struct judge *j)
{
    int r = overlapping(j, 1, 2);

    if (r == 0)
        judge_skip(j, "the server takes a map of a part of another");
    want_error(j, r, EEXIST, "DMA_MAP of a part");
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
    want_refused(j, map(j, BASE, 3 * page, PROT, -1, 0), "DMA_MAP over two maps and a gap");
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
}

static void check_empty_file(struct judge *j)
{
    const struct ob_raw_dma_map m = entry(BASE, j->facts.page);

    refused(j, &m, judge_memfd(j, 0), 0);
}

/* Refused; or the server does not map memory, and reaches it by messages. */
static void unmappable(struct judge *j, int fd)
{
    const struct ob_raw_dma_map m = entry(GUEST_TO, j->facts.page);
    char what[128];

    if (j->facts.has & NEED_DMA)
        device_on(j, true);
    if (sent(j, &m, fd) != 0)
        return;
    described(&m, what, sizeof(what));
    if (!(j->facts.has & NEED_DMA)) {
        judge_advise(j, "%s: succeeded with a descriptor that cannot be mapped", what);
        return;
    }
    guest_mapped(j, guest_memory(j, m.size), GUEST_TO);
    guest_map(j, GUEST_FROM, m.size, GUEST_BOTH, true);
    transfer_ok(j, GUEST_FROM, GUEST_TO, GUEST_LEN, "to memory whose descriptor cannot be mapped, but was taken");
    want(j, j->guest->writes > 0, "%s: succeeded, and the device does not ask for the memory by messages", what);
}

static void check_socket(struct judge *j)
{
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    unmappable(j, theirs);
}

static void check_eventfd(struct judge *j)
{
    unmappable(j, judge_eventfd(j));
}

static void check_folder(struct judge *j)
{
    unmappable(j, judge_open_file(j, "/", O_RDONLY));
}

static int read_only(struct judge *j)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", judge_memfd(j, j->facts.page));
    return judge_open_file(j, path, O_RDONLY);
}

static void check_read_only(struct judge *j)
{
    unmappable(j, read_only(j));
}

static void check_read_only_taken(struct judge *j)
{
    want_ok(j, map(j, BASE, j->facts.page, GUEST_READ, read_only(j), 0),
            "DMA_MAP, readable only, of a file open for reading");
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

    for (unsigned turn = 0; turn < 2; turn++) {
        mapped(j, BASE, 2 * page);
        if (sent(j, &m, turn == 0 ? -1 : judge_memfd(j, 2 * page)) == 0)
            judge_skip(j, "the server takes a map across the end of another");
        unmapped(j, BASE, 2 * page);
    }
}

static void check_failure_leaves_nothing(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_dma_map m = entry(BASE, 4 * page);

    if (sent(j, &m, judge_eventfd(j)) == 0)
        judge_skip(j, "the server takes an eventfd for memory");
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

static int took(struct judge *j, int result)
{
    if (result == -ENOTCONN)
        judge_skip(j, "the server ends the connection before it has as many maps as it announced");
    return got(j, result, "DMA_MAP");
}

/* Maps every other page from 0 on, up to that number, by streams. How many the server takes, without a gap. */
static uint32_t fill(struct judge *j, uint32_t number)
{
    const uint64_t page = j->facts.page;
    uint32_t taken = 0;

    for (uint32_t done = 0; taken == done && done < number;) {
        uint32_t step = number - done < 1024 ? number - done : 1024;
        uint16_t id = 0;

        for (uint32_t i = 0; i < step; i++) {
            const struct ob_raw_dma_map m = entry((done + i) * 2 * page, page);

            took(j, ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &m, sizeof(m), NULL, 0, &id));
        }
        id = (uint16_t)(id - step);
        for (uint32_t i = 0; i < step; i++) {
            if (took(j, ob_raw_reply(&j->raw, ++id, OB_RAW_DMA_MAP, NULL)) == 0 && taken == done + i)
                taken++;
        }
        done += step;
    }
    return taken;
}

static uint32_t announced(struct judge *j)
{
    if (j->facts.max_maps > 65535)
        judge_skip(j, "the server takes more than 65535 maps");
    return j->facts.max_maps;
}

static void check_too_many(struct judge *j)
{
    const uint32_t most = announced(j), taken = fill(j, most);

    if (taken < most)
        judge_skip(j, "the server takes %u maps, fewer than it announced", taken);
    want_error(j, map(j, UINT64_C(2) * most * j->facts.page, j->facts.page, PROT, -1, 0), ENOSPC,
               "DMA_MAP beyond the announced number");
}

static void check_room_again(struct judge *j)
{
    const uint32_t most = announced(j), taken = fill(j, most);
    const uint64_t next = UINT64_C(2) * taken * j->facts.page;

    if (taken == 0 || map(j, next, j->facts.page, PROT, -1, 0) == 0)
        judge_skip(j, "the server takes more maps than it announced");
    unmapped(j, 0, j->facts.page);
    want_ok(j, map(j, next, j->facts.page, PROT, -1, 0), "DMA_MAP after one of as many as are taken was unmapped");
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
    { { "map-overlap-same-file", "VU-MAP-3", "so it does with a descriptor, of the same file" },
      NEED_MAPS,
      check_overlap_fd },
    { { "map-overlap-errno", "VU-MAP-3", "a map of a part, which is refused, fails with EEXIST" },
      NEED_MAPS,
      check_overlap_errno },
    { { "map-overlap-part", "VU-MAP-4", "a map of a part is refused" }, NEED_MAPS, check_overlap_part },
    { { "map-overlap-head", "VU-MAP-4", "a map of the first page is refused" }, NEED_MAPS, check_overlap_head },
    { { "map-overlap-tail", "VU-MAP-4", "a map of the last page is refused" }, NEED_MAPS, check_overlap_tail },
    { { "map-overlap-around", "VU-MAP-4", "a map around is refused" }, NEED_MAPS, check_overlap_around },
    { { "map-overlap-start", "VU-MAP-4", "a map across the start is refused" }, NEED_MAPS, check_overlap_start },
    { { "map-overlap-end", "VU-MAP-4", "a map across the end is refused" }, NEED_MAPS, check_overlap_end },
    { { "map-overlap-two", "VU-MAP-4", "a map over two with a gap is refused, and the gap can be mapped" },
      NEED_MAPS,
      check_overlap_two },
    { { "map-touching", "VU-MAP-4", "maps that touch do not overlap" }, 0, check_touching },
    { { "map-no-payload", "VU-MAP-5", "the reply has no payload" }, 0, check_no_payload },
    { { "map-argsz-small", "VU-MAP-6", "argsz below 32 fails with EINVAL" }, NEED_MAPS, check_argsz },
    { { "map-size-zero", "VU-MAP-7", "size 0 fails with EINVAL" }, NEED_MAPS, check_size_zero },
    { { "map-wrap", "VU-MAP-8", "a range that wraps around fails with EINVAL" }, NEED_MAPS, check_wrap },
    { { "map-wrap-file", "VU-MAP-8", "a range that wraps around in the file fails with EINVAL" },
      NEED_MAPS,
      check_wrap_file },
    { { "map-unknown-flags", "VU-MAP-9", "each unknown flag fails with EINVAL" }, NEED_MAPS, check_flags },
    { { "map-no-access", "VU-MAP-10", "neither readable nor writeable fails with EINVAL" },
      NEED_MAPS,
      check_no_access },
    { { "map-address-aligned", "VU-MAP-11", "an unaligned address fails with EINVAL" },
      NEED_MAPS,
      check_address_aligned },
    { { "map-size-aligned", "VU-MAP-11", "an unaligned size fails with EINVAL" }, NEED_MAPS, check_size_aligned },
    { { "map-offset-aligned", "VU-MAP-11", "an unaligned offset of a file fails with EINVAL" },
      NEED_MAPS,
      check_offset_aligned },
    { { "map-beyond-file", "VU-MAP-25", "a range beyond the end of the file is refused" },
      NEED_MAPS,
      check_beyond_file },
    { { "map-empty-file", "VU-MAP-25", "an empty file is refused" }, NEED_MAPS, check_empty_file },
    { { "map-socket", "VU-MAP-13", "a socket is refused" }, NEED_MAPS, check_socket },
    { { "map-eventfd", "VU-MAP-13", "an eventfd is refused" }, NEED_MAPS, check_eventfd },
    { { "map-folder", "VU-MAP-13", "a folder is refused" }, NEED_MAPS, check_folder },
    { { "map-read-only", "VU-MAP-13", "a file open for reading is refused as writeable" }, NEED_MAPS, check_read_only },
    { { "map-read-only-taken", "VU-MAP-13", "a file open for reading is taken as readable" },
      0,
      check_read_only_taken },
    { { "map-two-descriptors", "VU-MAP-14", "two descriptors fail with EINVAL" }, NEED_MAPS, check_two_descriptors },
    { { "map-without-descriptor", "VU-MAP-15", "a map without a descriptor is accepted" }, 0, check_without_fd },
    { { "map-large", "VU-MAP-15", "a map of 1 TiB without a descriptor is accepted" }, 0, check_large },
    { { "map-failure-keeps", "VU-MAP-19", "what was mapped before a failure is still mapped" },
      NEED_MAPS,
      check_failure_keeps },
    { { "map-failure-leaves-nothing", "VU-MAP-19", "a map that fails leaves no part of itself" },
      NEED_MAPS,
      check_failure_leaves_nothing },
    { { "map-same-file", "VU-MAP-20", "one file can be mapped at many addresses" }, 0, check_same_file },
    { { "map-any-time", "VU-MAP-21", "DMA_MAP is accepted after other commands and a reset" }, 0, check_any_time },
    { { "map-too-many", "VU-MAP-26", "a map beyond the announced number fails with ENOSPC" },
      NEED_MAPS,
      check_too_many },
    { { "map-room-again", "VU-MAP-22", "where no more maps are taken, one is once another is unmapped" },
      NEED_MAPS,
      check_room_again },
    { { "map-cut-short", "VU-MAP-23", "a file that is cut short does not kill the server" }, 0, check_cut_short },
    { { NULL, NULL, NULL }, 0, NULL },
};
