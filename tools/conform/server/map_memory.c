/* map_memory.c: VU-MAP: what a device does with mapped memory, and maps in numbers. */
#include "guest.h"

#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define LEN GUEST_LEN

static void check_shared(struct judge *j)
{
    struct guest_map *m;

    device_on(j, true);
    m = guest_map(j, GUEST_FROM, 2 * j->facts.page, GUEST_BOTH, true);
    for (unsigned turn = 1; turn <= 2; turn++) {
        guest_fill(m->bytes, LEN, turn);
        transfer_ok(j, GUEST_FROM, GUEST_FROM + j->facts.page, LEN, "within a map with a descriptor");
        want(j, guest_filled(m->bytes + j->facts.page, LEN, turn),
             "what the device copied, for the %s time, is not in the file", turn == 1 ? "first" : "second");
    }
}

/* The last two of a file's four pages; the device's pages are the third and the fourth. */
static void check_offset(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *file = guest_memory(j, 4 * page);
    const struct guest_map as = { .address = GUEST_FROM, .size = 2 * page, .prot = GUEST_BOTH };

    device_on(j, true);
    guest_map_part(j, file, 2 * page, &as, true);
    guest_fill(file->bytes + 2 * page, LEN, 1);
    transfer_ok(j, GUEST_FROM, GUEST_FROM + page, LEN, "within a part of a file");
    want(j, guest_filled(file->bytes + 3 * page, LEN, 1), "what the device copied is not at its place in the file");
    want(j, guest_all(file->bytes, 2 * page, 0), "the device wrote to pages of the file that are not mapped");
}

/* One page of a file at two addresses, another at a third. */
static void check_same_file_memory(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *file = guest_memory(j, 2 * page);
    struct guest_map as = { .address = GUEST_FROM, .size = page, .prot = GUEST_BOTH };

    device_on(j, true);
    guest_map_part(j, file, page, &as, true);
    as.address = GUEST_TO;
    guest_map_part(j, file, page, &as, true);
    as.address = GUEST_TO + page;
    guest_map_part(j, file, 0, &as, true);
    guest_fill(file->bytes + page, LEN, 1);
    transfer_ok(j, GUEST_FROM, GUEST_TO + 2 * LEN, LEN, "between two addresses of one page");
    want(j, guest_filled(file->bytes + page + 2 * LEN, LEN, 1), "what the device copied is not in the page");
    transfer_ok(j, GUEST_TO + 2 * LEN, GUEST_TO + page, LEN, "between two pages of one file");
    want(j, guest_filled(file->bytes, LEN, 1), "what the device copied is not in the other page");
}

/* Unmapping one of two addresses of a page leaves the other. */
static void check_same_file_unmapped(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *file = guest_memory(j, 2 * page);
    struct guest_map as = { .address = GUEST_FROM, .size = 2 * page, .prot = GUEST_BOTH }, *other;

    device_on(j, true);
    guest_map_part(j, file, 0, &as, true);
    as.address = GUEST_TO;
    other = guest_map_part(j, file, 0, &as, true);
    guest_unmap(j, other);
    guest_fill(file->bytes, LEN, 1);
    transfer_ok(j, GUEST_FROM, GUEST_FROM + page, LEN, "after another map of the file was unmapped");
    want(j, guest_filled(file->bytes + page, LEN, 1), "what the device copied is not in the file");
}

static void check_not_writeable(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *from, *to;

    device_on(j, true);
    from = guest_map(j, GUEST_FROM, page, GUEST_BOTH, true);
    to = guest_map(j, GUEST_TO, page, GUEST_READ, true);
    memset(from->bytes, 0x11, page);
    memset(to->bytes, 0x22, page);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "to memory that is not writeable");
    want(j, guest_all(to->bytes, page, 0x22), "the device wrote to memory that is not writeable");
}

static void check_not_readable(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *from, *to;

    device_on(j, true);
    from = guest_map(j, GUEST_FROM, page, GUEST_WRITE, true);
    to = guest_map(j, GUEST_TO, page, GUEST_BOTH, true);
    guest_fill(from->bytes, LEN, 1);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "from memory that is not readable");
    want(j, !guest_filled(to->bytes, LEN, 1), "the device read memory that is not readable");
}

static void check_failure_keeps_memory(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *m;
    int other = judge_memfd(j, 2 * page);

    device_on(j, true);
    m = guest_map(j, GUEST_FROM, 2 * page, GUEST_BOTH, true);
    if (map(j, GUEST_FROM + page, 2 * page, GUEST_BOTH, other, 0) == 0 ||
        map(j, GUEST_FROM, 2 * page, GUEST_READ, other, 0) == 0)
        judge_skip(j, "the server takes maps that overlap");
    guest_fill(m->bytes, LEN, 1);
    transfer_ok(j, GUEST_FROM, GUEST_FROM + page, LEN, "after a DMA_MAP of the same range failed");
    want(j, guest_filled(m->bytes + page, LEN, 1), "what the device copied is not in the memory that was mapped first");
}

/* The device waits for memory while more is mapped, and then uses that. */
static void check_while_running(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct ob_raw_message *asked;
    struct guest_map *more;

    guest_needs_crossing(j);
    device_on(j, true);
    memset(guest_map(j, GUEST_FROM, page, GUEST_BOTH, false)->bytes, 0x33, LEN);
    guest_map(j, GUEST_TO, page, GUEST_BOTH, true);
    j->guest->later = GUEST_READ;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    asked = guest_asked(j, OB_RAW_DMA_READ);
    more = guest_map(j, GUEST_TO + page, page, GUEST_BOTH, true);
    guest_answer_well(j, asked, 0x33);
    j->guest->later = 0;
    want(j, device_copy_end(j) == 0, "the transfer during which memory was mapped failed");
    transfer_ok(j, GUEST_TO, GUEST_TO + page, LEN, "to memory that was mapped during a transfer");
    want(j, guest_all(more->bytes, LEN, 0x33), "what the device copied is not in the memory mapped last");
}

/* The judge must not touch the memory itself where it is not there. */
static void use_missing(struct judge *j, uint64_t from, const char *what)
{
    j->guest->error = EFAULT;
    judge_may_close(j);
    transfer(j, from, from + j->facts.page, LEN);
    want_alive(j, what);
}

static void check_beyond_file_used(struct judge *j)
{
    const uint64_t page = j->facts.page;

    device_on(j, true);
    if (map(j, GUEST_FROM, 4 * page, GUEST_BOTH, judge_memfd(j, page), 0) != 0)
        return;
    guest_mapped(j, guest_memory(j, 4 * page), GUEST_FROM);
    use_missing(j, GUEST_FROM + 2 * page, "after the device used memory beyond the end of a file");
}

static void check_cut_short_used(struct judge *j)
{
    const uint64_t page = j->facts.page;
    struct guest_map *m;

    device_on(j, true);
    m = guest_map(j, GUEST_FROM, 4 * page, GUEST_BOTH, true);
    transfer_ok(j, GUEST_FROM, GUEST_FROM + page, LEN, "before the file is cut short");
    want(j, ftruncate(m->fd, (off_t)page) == 0, "cannot cut the file: %s", strerror(errno));
    use_missing(j, GUEST_FROM + 2 * page, "after the device used memory that had been cut off its file");
}

/* --- Numbers ----------------------------------------------------------------------------------------------------- */

/* A descriptor of the same file whose lock lasts until the last copy of it, and the last mapping made with it, are
 * gone. */
static int locked(struct judge *j, int fd)
{
    char path[32];
    int theirs;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    theirs = judge_open_file(j, path, O_RDWR);
    want(j, flock(theirs, LOCK_EX) == 0, "the judge cannot lock its memory: %s", strerror(errno));
    return theirs;
}

static void want_unlocked(struct judge *j, int fd, const char *what)
{
    /* Nothing tells when the last reference goes. */
    for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited++) {
        want(j, waited < j->timeout_ms, "%s: the server still has the descriptor, or its memory mapped, after %d ms",
             what, j->timeout_ms);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

/* Every page of the address space's first part in turn, all of them the same page of a file; by streams, which are
 * short so that few descriptors are on the way at a time. How many the server takes, before it refuses one or ends the
 * connection. */
static uint32_t map_many(struct judge *j, int fd, uint32_t number, bool *ended)
{
    const uint64_t page = j->facts.page;
    uint32_t taken = 0;

    *ended = false;
    for (uint32_t done = 0; taken == done && done < number;) {
        const uint32_t step = number - done < 64 ? number - done : 64;
        uint16_t id = 0;
        int r = 0;

        for (uint32_t i = 0; i < step && r >= 0; i++) {
            const struct ob_raw_dma_map m = { sizeof(m), GUEST_BOTH, 0, (done + i) * page, page };

            r = ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &m, sizeof(m), &fd, fd >= 0, &id);
        }
        id = (uint16_t)(id - step);
        for (uint32_t i = 0; i < step && r >= 0; i++) {
            r = ob_raw_reply(&j->raw, ++id, OB_RAW_DMA_MAP, NULL);
            taken += r == 0;
        }
        done += step;
        *ended = r == -ENOTCONN;
        if (!*ended)
            got(j, r, "DMA_MAP");
    }
    return taken;
}

/* A server may have a mapping for each, and Linux does not give a process more than 65,530 (vm.max_map_count). */
#define MOST_MAPPED 60000u

/* Whether that are as many as were announced is for VU-VER-27: there are as many with a descriptor as without. */
static void check_many_files(struct judge *j)
{
    const uint32_t most = j->facts.max_maps < MOST_MAPPED ? j->facts.max_maps : MOST_MAPPED;
    const int fd = judge_memfd(j, j->facts.page), theirs = locked(j, fd);
    bool ended;
    const uint32_t taken = map_many(j, theirs, most, &ended);

    judge_give(j, theirs);
    if (!ended) {
        want_alive(j, "with many maps");
        want_ok(j, unmap(j, 0, j->facts.page), "DMA_UNMAP of the first of many maps");
        want_ok(j, map(j, 0, j->facts.page, GUEST_BOTH, fd, 0), "DMA_MAP of the first of many maps again");
    }
    judge_reconnect(j);
    want_unlocked(j, fd, "after the client with many maps left");
    want(j, taken == most || map_many(j, -1, taken + 1, &ended) <= taken,
         "no more than %u maps with a descriptor are taken, of the %u that were announced, and more without", taken,
         most);
}

const struct check server_map_memory_checks[] = {
    { { "map-shared", "VU-MAP-17", "the device and the file's owner see each other's writes" },
      NEED_DMA,
      check_shared },
    { { "map-offset", "VU-MAP-17", "the device uses the part of the file that offset says" }, NEED_DMA, check_offset },
    { { "map-not-writeable", "VU-MAP-18", "the device does not write to a map that is not writeable" },
      NEED_DMA,
      check_not_writeable },
    { { "map-not-readable", "VU-MAP-18", "the device does not read a map that is not readable" },
      NEED_DMA,
      check_not_readable },
    { { "map-failure-keeps-memory", "VU-MAP-19", "the device uses the first map after one over it failed" },
      NEED_DMA,
      check_failure_keeps_memory },
    { { "map-same-file-memory", "VU-MAP-20", "a page that is mapped at two addresses is one page" },
      NEED_DMA,
      check_same_file_memory },
    { { "map-same-file-unmapped", "VU-MAP-20", "unmapping one of a file's two maps leaves the other" },
      NEED_DMA,
      check_same_file_unmapped },
    { { "map-many-files", "VU-MAP-20", "one file is mapped as often as maps are taken, up to 60000, and let go of" },
      0,
      check_many_files },
    { { "map-while-running", "VU-MAP-21", "memory is mapped while the device is in a transfer, and then used" },
      NEED_DMA,
      check_while_running },
    { { "map-beyond-file-used", "VU-MAP-12", "a device that uses what is beyond the end of a file does no harm" },
      NEED_DMA,
      check_beyond_file_used },
    { { "map-cut-short-used", "VU-MAP-23", "a device that uses memory cut off its file does not kill the server" },
      NEED_DMA,
      check_cut_short_used },
    { { NULL, NULL, NULL }, 0, NULL },
};
