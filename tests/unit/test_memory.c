/* The guest's memory, by one thread: every error, overlaps, limits, reuse of files, pins, windows. */
#include "memory/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define RW   (PROT_READ | PROT_WRITE)

struct fixture {
    struct ob_memory *memory;
    struct ob_reader reader;
    int fd; /* a file of 64 pages; page n begins with the 32-bit number n */
    int fds;
};

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* Mappings of memfds with this name. */
static int count_mappings(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], wanted[64];
    int n = 0;

    assert_non_null(maps);
    snprintf(wanted, sizeof(wanted), "/memfd:%s ", name);
    while (fgets(line, sizeof(line), maps))
        n += strstr(line, wanted) != NULL;
    fclose(maps);
    return n;
}

static int make_file(const char *name, unsigned pages)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(pages * PAGE)), 0);
    for (uint32_t i = 0; i < pages; i++)
        assert_int_equal(pwrite(fd, &i, sizeof(i), (off_t)(i * PAGE)), sizeof(i));
    return fd;
}

static int set_up(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    f.fds = count_fds();
    f.fd = make_file("guest", 64);
    assert_int_equal(ob_memory_new(&f.memory, 16), 0);
    assert_int_equal(ob_reader_add(ob_memory_epoch(f.memory), &f.reader), 0);
    ob_reader_online(&f.reader);
    *state = &f;
    return 0;
}

/* Nothing may be left, whatever the test did. */
static int tear_down(void **state)
{
    struct fixture *f = *state;

    ob_reader_offline(&f->reader);
    assert_int_equal(ob_reader_remove(&f->reader), 0);
    ob_memory_free(f->memory);
    close(f->fd);
    assert_int_equal(count_fds(), f->fds);
    assert_int_equal(count_mappings("guest"), 0);
    return 0;
}

static void map_ok(struct fixture *f, uint64_t iova, uint64_t size, int prot, uint64_t offset)
{
    assert_int_equal(ob_memory_map(f->memory, iova, size, prot, dup(f->fd), offset), 0);
}

/* Tries a map that must fail, and that the descriptor is still ours after. */
static void map_fails(struct fixture *f, uint64_t iova, uint64_t size, int prot, uint64_t offset, int err)
{
    unsigned maps = ob_memory_maps(f->memory);

    assert_int_equal(ob_memory_map(f->memory, iova, size, prot, f->fd, offset), err);
    assert_true(fcntl(f->fd, F_GETFD) >= 0);
    assert_int_equal(ob_memory_maps(f->memory), maps);
}

static void unmap_ok(struct fixture *f, uint64_t iova, uint64_t size)
{
    struct ob_retired *retired;

    assert_int_equal(ob_memory_unmap(f->memory, iova, size, &retired), 0);
    assert_false(ob_memory_retired_done(retired));
    ob_reader_quiescent(&f->reader);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
}

static bool woken(struct fixture *f)
{
    struct ob_epoch *epoch = ob_memory_epoch(f->memory);
    uint64_t count;
    bool is = read(ob_epoch_wake_fd(epoch), &count, sizeof(count)) == sizeof(count);

    ob_epoch_clear(epoch);
    return is;
}

static void creation(void **state)
{
    struct ob_memory *memory = NULL;

    assert_int_equal(ob_memory_new(&memory, 0), -EINVAL);
    assert_int_equal(ob_memory_new(&memory, 65536), -EINVAL);
    assert_null(memory);
    ob_memory_free(NULL);
}

static void map_arguments(void **state)
{
    struct fixture *f = *state;

    map_fails(f, 0, 0, RW, 0, -EINVAL);
    map_fails(f, 1, PAGE, RW, 0, -EINVAL);
    map_fails(f, 2048, PAGE, RW, 0, -EINVAL);
    map_fails(f, 0, PAGE - 1, RW, 0, -EINVAL);
    map_fails(f, 0, PAGE, RW, 512, -EINVAL);
    map_fails(f, 0, PAGE, 0, 0, -EINVAL);
    map_fails(f, 0, PAGE, RW | PROT_EXEC, 0, -EINVAL);
    map_fails(f, UINT64_MAX - PAGE + 1, 2 * PAGE, RW, 0, -EINVAL);
    map_fails(f, PAGE, UINT64_MAX - PAGE + 1, RW, 0, -EINVAL);
    /* the file has 64 pages */
    map_fails(f, 0, 65 * PAGE, RW, 0, -EINVAL);
    map_fails(f, 0, PAGE, RW, 64 * PAGE, -EINVAL);
    map_fails(f, 0, 2 * PAGE, RW, 63 * PAGE, -EINVAL);
    map_fails(f, 0, PAGE, RW, UINT64_MAX - PAGE + 1, -EINVAL);
    map_fails(f, 0, PAGE, RW, (uint64_t)INT64_MAX - PAGE + 1, -EINVAL);
    map_fails(f, 0, UINT64_C(1) << 63, RW, 0, -EINVAL);
    map_ok(f, 0, PAGE, RW, 63 * PAGE);
}

static void map_descriptors(void **state)
{
    struct fixture *f = *state;
    int closed = dup(f->fd), pipes[2], fd;
    char path[64];

    close(closed);
    assert_int_equal(ob_memory_map(f->memory, 0, PAGE, RW, closed, 0), -EBADF);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(ob_memory_map(f->memory, 0, PAGE, PROT_READ, pipes[0], 0), -ENODEV);
    close(pipes[0]);
    close(pipes[1]);
    /* what mmap would refuse is refused, though the same file is mapped already */
    map_ok(f, 0, PAGE, RW, 0);
    map_ok(f, PAGE, PAGE, PROT_READ, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ob_memory_map(f->memory, 2 * PAGE, PAGE, RW, fd, 0), -EACCES);
    assert_int_equal(ob_memory_map(f->memory, 2 * PAGE, PAGE, PROT_READ, fd, 0), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ob_memory_map(f->memory, 3 * PAGE, PAGE, PROT_WRITE, fd, 0), -EACCES);
    close(fd);
    fd = open(path, O_PATH | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ob_memory_map(f->memory, 3 * PAGE, PAGE, PROT_READ, fd, 0), -EBADF);
    close(fd);
}

/* A character device is mapped by itself, for as long as the map lasts. */
static void map_device(void **state)
{
    struct fixture *f = *state;
    struct iovec iov;
    int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ob_memory_map(f->memory, 0, 4 * PAGE, RW, fd, 0), 0);
    assert_int_equal(ob_memory_translate(f->memory, PAGE, 8, RW, &iov, 1), 1);
    memset(iov.iov_base, 1, 8);
    unmap_ok(f, 0, 4 * PAGE);
    assert_int_equal(ob_memory_translate(f->memory, PAGE, 8, RW, &iov, 1), -EFAULT);
}

static void overlaps(void **state)
{
    static const struct {
        uint64_t first, pages;
        int err;
    } cases[] = {
        { 8, 2, 0 },                                          /* to the left, free of each other */
        { 0, 1, 0 },        { 20, 4, -EEXIST },               /* the same */
        { 20, 1, -EEXIST },                                   /* its beginning */
        { 23, 1, -EEXIST },                                   /* its end */
        { 21, 2, -EEXIST },                                   /* its middle */
        { 19, 2, -EEXIST },                                   /* over its beginning */
        { 23, 2, -EEXIST },                                   /* over its end */
        { 19, 6, -EEXIST },                                   /* around */
        { 9, 20, -EEXIST },                                   /* around two */
        { 1, 8, -EEXIST },  { 19, 1, 0 },       { 24, 1, 0 }, /* adjacent */
    };
    struct fixture *f = *state;

    assert_int_equal(ob_memory_map(f->memory, 20 * PAGE, 4 * PAGE, RW, -1, 0), 0);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_int_equal(ob_memory_map(f->memory, cases[i].first * PAGE, cases[i].pages * PAGE, PROT_READ, -1, 0),
                         cases[i].err);
    assert_int_equal(ob_memory_maps(f->memory), 5);
}

static void end_of_the_world(void **state)
{
    const uint64_t last = UINT64_MAX - PAGE + 1;
    struct fixture *f = *state;
    struct iovec iov[2];

    map_ok(f, last, PAGE, RW, 3 * PAGE);
    assert_int_equal(ob_memory_map(f->memory, last, PAGE, RW, -1, 0), -EEXIST);
    assert_int_equal(ob_memory_map(f->memory, last - PAGE, 2 * PAGE, RW, -1, 0), -EEXIST);
    assert_int_equal(ob_memory_map(f->memory, 0, last, RW, -1, 0), 0); /* all the rest of it */
    assert_int_equal(ob_memory_translate(f->memory, last, PAGE, RW, iov, 1), 1);
    assert_int_equal(*(uint32_t *)iov[0].iov_base, 3);
    assert_int_equal(ob_memory_translate(f->memory, UINT64_MAX, 1, RW, iov, 1), 1);
    assert_int_equal(ob_memory_translate(f->memory, UINT64_MAX, 2, RW, iov, 2), -EFAULT);
    assert_int_equal(ob_memory_translate(f->memory, 1, SIZE_MAX, RW, iov, 2), -EREMOTE);
    assert_int_equal(ob_memory_translate(f->memory, 2, SIZE_MAX, RW, iov, 2), -EFAULT);
    unmap_ok(f, 0, last);
    unmap_ok(f, last, PAGE);
    assert_int_equal(ob_memory_translate(f->memory, UINT64_MAX, 1, RW, iov, 1), -EFAULT);
}

static void unmap_must_match(void **state)
{
    struct fixture *f = *state;
    struct ob_retired *retired = NULL;

    assert_int_equal(ob_memory_unmap(f->memory, 0, PAGE, &retired), -ENOENT);
    map_ok(f, 4 * PAGE, 4 * PAGE, RW, 0);
    assert_int_equal(ob_memory_unmap(f->memory, 4 * PAGE, 3 * PAGE, &retired), -ENOENT);
    assert_int_equal(ob_memory_unmap(f->memory, 5 * PAGE, 3 * PAGE, &retired), -ENOENT);
    assert_int_equal(ob_memory_unmap(f->memory, 4 * PAGE, 5 * PAGE, &retired), -ENOENT);
    assert_int_equal(ob_memory_unmap(f->memory, 3 * PAGE, 5 * PAGE, &retired), -ENOENT);
    assert_int_equal(ob_memory_unmap(f->memory, 4 * PAGE, 0, &retired), -ENOENT);
    assert_null(retired);
    unmap_ok(f, 4 * PAGE, 4 * PAGE);
}

static void limit(void **state)
{
    struct fixture *f = *state;
    struct ob_retired *retired;

    for (unsigned i = 0; i < 16; i++)
        map_ok(f, i * PAGE, PAGE, RW, 0);
    map_fails(f, 16 * PAGE, PAGE, RW, 0, -ENOSPC);
    map_fails(f, 0, PAGE, RW, 0, -EEXIST);
    /* what is unmapped and still in use counts */
    assert_int_equal(ob_memory_unmap(f->memory, 0, PAGE, &retired), 0);
    map_fails(f, 16 * PAGE, PAGE, RW, 0, -ENOSPC);
    ob_reader_quiescent(&f->reader);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
    map_ok(f, 16 * PAGE, PAGE, RW, 0);
}

static void translation(void **state)
{
    struct fixture *f = *state;
    struct iovec iov[4];

    map_ok(f, 10 * PAGE, 2 * PAGE, RW, 5 * PAGE);
    map_ok(f, 12 * PAGE, PAGE, PROT_READ, 1 * PAGE);
    map_ok(f, 13 * PAGE, PAGE, PROT_WRITE, 2 * PAGE);
    assert_int_equal(ob_memory_map(f->memory, 14 * PAGE, PAGE, RW, -1, 0), 0);
    map_ok(f, 16 * PAGE, PAGE, RW, 3 * PAGE);

    assert_int_equal(ob_memory_translate(f->memory, 11 * PAGE, 4, RW, iov, 4), 1);
    assert_int_equal(*(uint32_t *)iov[0].iov_base, 6);
    assert_int_equal(iov[0].iov_len, 4);
    /* crossing */
    assert_int_equal(ob_memory_translate(f->memory, 11 * PAGE + 100, PAGE, PROT_READ, iov, 4), 2);
    assert_int_equal(iov[0].iov_len, PAGE - 100);
    assert_int_equal(iov[1].iov_len, 100);
    assert_int_equal(*(uint32_t *)iov[1].iov_base, 1);
    assert_int_equal(ob_memory_translate(f->memory, 10 * PAGE, 4 * PAGE, 0, iov, 4), 3);
    assert_int_equal(iov[0].iov_len, 2 * PAGE);
    assert_int_equal(*(uint32_t *)iov[2].iov_base, 2);
    /* errors, the first in order of addresses */
    assert_int_equal(ob_memory_translate(f->memory, 9 * PAGE, 2 * PAGE, RW, iov, 4), -EFAULT);
    assert_int_equal(ob_memory_translate(f->memory, 10 * PAGE - 1, 1, RW, iov, 4), -EFAULT);
    assert_int_equal(ob_memory_translate(f->memory, 12 * PAGE, PAGE, PROT_WRITE, iov, 4), -EACCES);
    assert_int_equal(ob_memory_translate(f->memory, 13 * PAGE, PAGE, PROT_READ, iov, 4), -EACCES);
    assert_int_equal(ob_memory_translate(f->memory, 11 * PAGE, 3 * PAGE, PROT_READ, iov, 4), -EACCES);
    assert_int_equal(ob_memory_translate(f->memory, 13 * PAGE, PAGE + 1, PROT_WRITE, iov, 4), -EREMOTE);
    assert_int_equal(ob_memory_translate(f->memory, 14 * PAGE, 3 * PAGE, RW, iov, 4), -EREMOTE);
    assert_int_equal(ob_memory_translate(f->memory, 15 * PAGE, PAGE, RW, iov, 4), -EFAULT);
    assert_int_equal(ob_memory_translate(f->memory, 16 * PAGE + 1, PAGE, RW, iov, 4), -EFAULT);
    assert_int_equal(ob_memory_translate(f->memory, 10 * PAGE, 3 * PAGE, PROT_READ, iov, 1), -ENOBUFS);
    assert_int_equal(ob_memory_translate(f->memory, 10 * PAGE, 1, PROT_READ, iov, 0), -ENOBUFS);
    assert_int_equal(ob_memory_translate(f->memory, 15 * PAGE, 0, RW, iov, 4), 0);
}

static void find(void **state)
{
    struct fixture *f = *state;
    struct ob_memory_piece piece;

    map_ok(f, PAGE, PAGE, PROT_READ, 7 * PAGE);
    assert_int_equal(ob_memory_map(f->memory, 2 * PAGE, 2 * PAGE, RW, -1, 0), 0);
    assert_int_equal(ob_memory_find(f->memory, PAGE, 3 * PAGE, &piece), 0);
    assert_int_equal(piece.iova, PAGE);
    assert_int_equal(piece.len, PAGE);
    assert_int_equal(piece.prot, PROT_READ);
    assert_int_equal(*(uint32_t *)piece.host, 7);
    assert_int_equal(ob_memory_find(f->memory, 2 * PAGE + 5, 3 * PAGE, &piece), 0);
    assert_int_equal(piece.iova, 2 * PAGE + 5);
    assert_int_equal(piece.len, 2 * PAGE - 5);
    assert_int_equal(piece.prot, RW);
    assert_null(piece.host);
    assert_int_equal(ob_memory_find(f->memory, 2 * PAGE, 9, &piece), 0);
    assert_int_equal(piece.len, 9);
    assert_int_equal(ob_memory_find(f->memory, 0, PAGE, &piece), -EFAULT);
    assert_int_equal(ob_memory_find(f->memory, 4 * PAGE, PAGE, &piece), -EFAULT);
    assert_int_equal(ob_memory_find(f->memory, PAGE, UINT64_MAX, &piece), -EFAULT);
    assert_int_equal(ob_memory_find(f->memory, PAGE, 0, &piece), -EINVAL);
}

/* Fresh descriptors of one file: one mapping for each protection, kept over unmaps, until it is trimmed. */
static void reuse(void **state)
{
    struct fixture *f = *state;
    int fds = count_fds();

    for (unsigned round = 0; round < 3; round++) {
        struct ob_retired *retired;

        for (unsigned i = 0; i < 8; i++)
            map_ok(f, i * PAGE, PAGE, i % 2 ? PROT_READ : RW, (63 - i) * PAGE);
        assert_int_equal(count_mappings("guest"), 2);
        assert_int_equal(count_fds(), fds);
        assert_int_equal(ob_memory_unmap_all(f->memory, &retired), 8);
        ob_reader_quiescent(&f->reader);
        assert_true(ob_memory_retired_done(retired));
        ob_memory_retire(retired);
        assert_int_equal(count_mappings("guest"), 2);
    }
    map_ok(f, 0, PAGE, RW, 0);
    ob_memory_trim(f->memory);
    assert_int_equal(count_mappings("guest"), 1);
    unmap_ok(f, 0, PAGE);
    ob_memory_trim(f->memory);
    assert_int_equal(count_mappings("guest"), 0);
}

/* Only so many files are kept for nothing. */
static void idle_limit(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 40; i++) {
        int fd = make_file("other", 1);

        assert_int_equal(ob_memory_map(f->memory, 0, PAGE, RW, fd, 0), 0);
        unmap_ok(f, 0, PAGE);
    }
    assert_int_equal(count_mappings("other"), 16);
    ob_memory_trim(f->memory);
    assert_int_equal(count_mappings("other"), 0);
}

/* A file that grows is mapped anew, and what was mapped before stays; one that shrank is checked again. */
static void file_sizes(void **state)
{
    struct fixture *f = *state;
    struct iovec iov;

    map_ok(f, 0, PAGE, RW, 0);
    map_fails(f, 100 * PAGE, PAGE, RW, 64 * PAGE, -EINVAL);
    assert_int_equal(ftruncate(f->fd, (off_t)(128 * PAGE)), 0);
    map_ok(f, 100 * PAGE, PAGE, RW, 127 * PAGE);
    assert_int_equal(count_mappings("guest"), 2);
    assert_int_equal(ob_memory_translate(f->memory, 100 * PAGE, 4, RW, &iov, 1), 1);
    *(uint32_t *)iov.iov_base = 127;
    assert_int_equal(ob_memory_translate(f->memory, 0, 4, RW, &iov, 1), 1);
    assert_int_equal(*(uint32_t *)iov.iov_base, 0);
    unmap_ok(f, 100 * PAGE, PAGE);
    assert_int_equal(ftruncate(f->fd, (off_t)(64 * PAGE)), 0);
    map_fails(f, 100 * PAGE, PAGE, RW, 127 * PAGE, -EINVAL);
}

/* A sparse file larger than any address space: only what is near the range gets mapped. */
static void huge_file(void **state)
{
    const off_t size = INT64_C(1) << 62;
    struct fixture *f = *state;
    struct iovec iov;

    assert_int_equal(ftruncate(f->fd, size), 0);
    map_ok(f, 0, PAGE, RW, 5 * PAGE);
    map_ok(f, PAGE, PAGE, RW, (uint64_t)size - PAGE);
    map_ok(f, 2 * PAGE, 2 * PAGE, RW, (UINT64_C(1) << 40) - PAGE); /* over the edge of a chunk */
    assert_int_equal(ob_memory_map(f->memory, UINT64_C(1) << 61, UINT64_C(1) << 61, RW, f->fd, 0), -ENOMEM);
    assert_int_equal(ob_memory_translate(f->memory, 0, 4, RW, &iov, 1), 1);
    assert_int_equal(*(uint32_t *)iov.iov_base, 5);
    assert_int_equal(ob_memory_translate(f->memory, 2 * PAGE, 2 * PAGE, RW, &iov, 1), 1);
    memset(iov.iov_base, 1, 2 * PAGE);
}

static void pins_delay(void **state)
{
    struct fixture *f = *state;
    struct ob_retired *retired;
    struct iovec iov[3];
    uint32_t pins[3], again[3];

    map_ok(f, 0, PAGE, RW, 0);
    map_ok(f, PAGE, PAGE, RW, 0); /* the same bytes of the same file: not pinned by what pins the other */
    map_ok(f, 2 * PAGE, PAGE, RW, 2 * PAGE);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 0, 100, RW, iov, pins, 3), 1);
    unmap_ok(f, PAGE, PAGE);
    map_ok(f, PAGE, PAGE, RW, PAGE);

    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 100, 3 * PAGE - 100, RW, iov, again, 3), 3);
    assert_int_equal(ob_memory_unmap(f->memory, 0, PAGE, &retired), 0);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 0, 1, RW, iov, pins + 1, 1), -EFAULT);
    assert_false(ob_memory_retired_done(retired));
    ob_reader_quiescent(&f->reader);
    assert_true(woken(f));
    assert_false(ob_memory_retired_done(retired));
    ob_reader_quiescent(&f->reader); /* learns that pins are waited for */
    assert_true(woken(f));
    assert_false(ob_memory_retired_done(retired));
    ob_reader_quiescent(&f->reader);
    assert_false(woken(f));

    *(uint32_t *)iov[0].iov_base = 77; /* still there */
    ob_memory_unpin(&f->reader, f->memory, pins, 1);
    ob_reader_quiescent(&f->reader);
    assert_true(woken(f));
    assert_false(ob_memory_retired_done(retired));
    ob_reader_offline(&f->reader); /* a sleeping worker's pins count all the same */
    assert_false(ob_memory_retired_done(retired));
    ob_reader_online(&f->reader);
    ob_memory_unpin(&f->reader, f->memory, again, 3);
    ob_reader_offline(&f->reader); /* and going to sleep reports what was unpinned */
    assert_true(woken(f));
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
    ob_reader_online(&f->reader);
    unmap_ok(f, 2 * PAGE, PAGE);
    ob_reader_quiescent(&f->reader);
    assert_false(ob_memory_pin(&f->reader, f->memory, PAGE, 1, RW, iov, pins, 1) != 1);
    ob_memory_unpin(&f->reader, f->memory, pins, 1);
    ob_reader_quiescent(&f->reader); /* nobody waits any more */
    (void)woken(f);
    ob_reader_quiescent(&f->reader);
    assert_false(woken(f));
}

/* A pin that fails pins nothing. */
static void pin_errors(void **state)
{
    struct fixture *f = *state;
    struct iovec iov[2];
    uint32_t pins[2];

    map_ok(f, 0, PAGE, RW, 0);
    map_ok(f, PAGE, PAGE, PROT_READ, 0);
    assert_int_equal(ob_memory_map(f->memory, 2 * PAGE, PAGE, RW, -1, 0), 0);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 0, 2 * PAGE, RW, iov, pins, 2), -EACCES);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 0, 2 * PAGE, PROT_READ, iov, pins, 1), -ENOBUFS);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 0, 3 * PAGE, PROT_READ, iov, pins, 2), -EREMOTE);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 3 * PAGE, 1, PROT_READ, iov, pins, 2), -EFAULT);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, UINT64_MAX, 2, PROT_READ, iov, pins, 2), -EFAULT);
    unmap_ok(f, 0, PAGE);
    unmap_ok(f, PAGE, PAGE);
    unmap_ok(f, 2 * PAGE, PAGE);
}

static void reader_with_pins_stays(void **state)
{
    struct fixture *f = *state;
    struct ob_reader other = { 0 };
    struct iovec iov;
    uint32_t pin;

    map_ok(f, 0, PAGE, RW, 0);
    assert_int_equal(ob_reader_add(ob_memory_epoch(f->memory), &other), 0);
    ob_reader_online(&other);
    assert_int_equal(ob_memory_pin(&other, f->memory, 0, 1, RW, &iov, &pin, 1), 1);
    ob_reader_offline(&other);
    assert_int_equal(ob_reader_remove(&other), -EBUSY);
    ob_reader_online(&other);
    ob_memory_unpin(&other, f->memory, &pin, 1);
    assert_int_equal(ob_reader_remove(&other), 0); /* online: its thread is done with it all the same */
    unmap_ok(f, 0, PAGE);
}

static void unmap_all(void **state)
{
    struct fixture *f = *state;
    struct ob_retired *retired;
    struct ob_window window;
    struct iovec iov;
    uint32_t pin;

    assert_int_equal(ob_memory_unmap_all(f->memory, &retired), 0);
    assert_null(retired);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
    for (unsigned i = 0; i < 10; i++)
        map_ok(f, i * PAGE, PAGE, RW, 0);
    assert_int_equal(ob_window_open(f->memory, &window, 9 * PAGE, 10, RW), 0);
    assert_int_equal(ob_memory_pin(&f->reader, f->memory, 4 * PAGE, 1, RW, &iov, &pin, 1), 1);
    assert_int_equal(ob_memory_unmap_all(f->memory, &retired), 10);
    assert_int_equal(ob_memory_maps(f->memory), 0);
    assert_null(ob_window_pointer(&window));
    map_ok(f, 0, PAGE, RW, PAGE); /* the next client need not wait */
    assert_false(ob_memory_retired_done(retired));
    ob_reader_quiescent(&f->reader);
    assert_false(ob_memory_retired_done(retired));
    ob_memory_unpin(&f->reader, f->memory, &pin, 1);
    ob_reader_quiescent(&f->reader);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
    assert_int_equal(ob_memory_translate(f->memory, 0, 4, RW, &iov, 1), 1);
    assert_int_equal(*(uint32_t *)iov.iov_base, 1);
    assert_int_equal(ob_memory_translate(f->memory, PAGE, 4, RW, &iov, 1), -EFAULT);
    ob_window_close(&window);
}

static void windows(void **state)
{
    struct fixture *f = *state;
    struct ob_window ring, read_only, edge;
    uint32_t *p;

    assert_int_equal(ob_window_open(f->memory, &ring, 0, 0, RW), -EINVAL);
    assert_int_equal(ob_window_open(f->memory, &ring, UINT64_MAX, 2, RW), -EINVAL);
    assert_int_equal(ob_window_open(f->memory, &ring, 0, 1, 0), -EINVAL);
    assert_int_equal(ob_window_open(f->memory, &ring, 0, 1, PROT_EXEC), -EINVAL);
    assert_int_equal(ob_window_open(f->memory, &ring, 2 * PAGE + 16, 2 * PAGE, RW), 0); /* of nothing yet */
    assert_int_equal(ob_window_open(f->memory, &read_only, 2 * PAGE, 16, PROT_READ), 0);
    assert_int_equal(ob_window_open(f->memory, &edge, 5 * PAGE - 1, 1, RW), 0);
    assert_null(ob_window_pointer(&ring));
    map_ok(f, 2 * PAGE, 3 * PAGE, RW, 10 * PAGE);
    p = ob_window_pointer(&read_only);
    assert_int_equal(*p, 10);
    assert_ptr_equal(ob_window_pointer(&ring), (char *)p + 16);
    assert_ptr_equal(ob_window_pointer(&edge), (char *)p + 3 * PAGE - 1);
    /* gone at once, back with the memory, wherever it is now */
    unmap_ok(f, 2 * PAGE, 3 * PAGE);
    assert_null(ob_window_pointer(&ring));
    assert_null(ob_window_pointer(&read_only));
    assert_null(ob_window_pointer(&edge));
    map_ok(f, 2 * PAGE, 3 * PAGE, PROT_READ, 20 * PAGE);
    assert_null(ob_window_pointer(&ring));
    assert_int_equal(*(uint32_t *)ob_window_pointer(&read_only), 20);
    unmap_ok(f, 2 * PAGE, 3 * PAGE);
    assert_int_equal(ob_memory_map(f->memory, 2 * PAGE, 3 * PAGE, RW, -1, 0), 0);
    assert_null(ob_window_pointer(&read_only));
    unmap_ok(f, 2 * PAGE, 3 * PAGE);
    /* two maps: one run of bytes, and not */
    map_ok(f, 2 * PAGE, PAGE, RW, 30 * PAGE);
    assert_null(ob_window_pointer(&ring));
    map_ok(f, 3 * PAGE, 2 * PAGE, RW, 31 * PAGE);
    assert_non_null(ob_window_pointer(&ring));
    unmap_ok(f, 3 * PAGE, 2 * PAGE);
    assert_null(ob_window_pointer(&ring));
    assert_non_null(ob_window_pointer(&read_only));
    map_ok(f, 3 * PAGE, 2 * PAGE, RW, 40 * PAGE);
    assert_null(ob_window_pointer(&ring));
    assert_non_null(ob_window_pointer(&edge));
    ob_window_close(&read_only);
    assert_null(ob_window_pointer(&read_only));
    ob_window_close(&edge);
    ob_window_close(&ring);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creation),
        TEST(map_arguments),
        TEST(map_descriptors),
        TEST(map_device),
        TEST(overlaps),
        TEST(end_of_the_world),
        TEST(unmap_must_match),
        TEST(limit),
        TEST(translation),
        TEST(find),
        TEST(reuse),
        TEST(idle_limit),
        TEST(file_sizes),
        TEST(huge_file),
        TEST(pins_delay),
        TEST(pin_errors),
        TEST(reader_with_pins_stays),
        TEST(unmap_all),
        TEST(windows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
