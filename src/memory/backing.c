/* Mapping files once: lookup, extents, and the list of idle ones. See backing.h.
 *
 * An extent covers whole chunks of 1 TiB of its file, as far as the file goes, which for nearly every file is all of
 * it. Chunks keep a sparse file of some exabytes from taking the whole address space when a small part is mapped. If a
 * file has grown since, a new extent is made beside the old one. If even the chunk does not fit, just the range is
 * mapped. */
#include "memory/backing.h"
#include "memory/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CHUNK (UINT64_C(1) << 40)

void ob_backing_init(struct ob_backing *backing, atomic_bool *poisoned, int wake_fd)
{
    memset(backing, 0, sizeof(*backing));
    backing->idle_end = &backing->idle;
    backing->poisoned = poisoned;
    backing->wake_fd = wake_fd;
}

static struct ob_extent **bucket_of(struct ob_backing *backing, dev_t dev, ino_t ino, bool writable)
{
    uint64_t hash = ((uint64_t)ino * 2 + writable + (uint64_t)dev * 31) * UINT64_C(0x9e3779b97f4a7c15);

    return &backing->bucket[hash >> 32 & (OB_BACKING_BUCKETS - 1)];
}

static void idle_add(struct ob_backing *backing, struct ob_extent *extent)
{
    extent->idle_next = NULL;
    extent->idle_link = backing->idle_end;
    *backing->idle_end = extent;
    backing->idle_end = &extent->idle_next;
    backing->idles++;
}

static void idle_remove(struct ob_backing *backing, struct ob_extent *extent)
{
    *extent->idle_link = extent->idle_next;
    if (extent->idle_next)
        extent->idle_next->idle_link = extent->idle_link;
    else
        backing->idle_end = extent->idle_link;
    backing->idles--;
}

static void destroy(struct ob_extent *extent)
{
    if (extent->shared) {
        *extent->link = extent->next;
        if (extent->next)
            extent->next->link = extent->link;
    }
    ob_fault_forget(extent->fault);
    munmap(extent->base, extent->len);
    free(extent);
}

void ob_backing_trim(struct ob_backing *backing, unsigned keep)
{
    while (backing->idles > keep) {
        struct ob_extent *extent = backing->idle;

        idle_remove(backing, extent);
        destroy(extent);
    }
}

void ob_backing_put(struct ob_backing *backing, struct ob_extent *extent)
{
    if (--extent->users)
        return;
    if (!extent->shared) {
        destroy(extent);
        return;
    }
    idle_add(backing, extent);
    ob_backing_trim(backing, OB_BACKING_IDLE);
}

static struct ob_extent *lookup(struct ob_backing *backing, const struct stat *st, uint64_t offset, uint64_t size,
                                bool writable)
{
    for (struct ob_extent *e = *bucket_of(backing, st->st_dev, st->st_ino, writable); e; e = e->next)
        if (e->dev == st->st_dev && e->ino == st->st_ino && e->writable == writable && offset >= e->offset &&
            offset - e->offset < e->len && size <= e->len - (offset - e->offset))
            return e;
    return NULL;
}

/* Maps what extent describes. Guest memory stays out of core dumps: it is large, and not ours to show. */
static int map_extent(struct ob_backing *backing, struct ob_extent *extent, int fd, size_t page)
{
    int prot = PROT_READ | (extent->writable ? PROT_WRITE : 0);
    struct ob_fault_range range;
    int err;

    extent->base = mmap(NULL, extent->len, prot, MAP_SHARED | MAP_NORESERVE, fd, (off_t)extent->offset);
    if (extent->base == MAP_FAILED)
        return -errno;
    if (madvise(extent->base, extent->len, MADV_DONTDUMP) < 0) {
        err = -errno;
        munmap(extent->base, extent->len);
        return err;
    }
    range = (struct ob_fault_range){ .base = extent->base,
                                     .len = extent->len,
                                     .page = page,
                                     .writable = extent->writable,
                                     .poisoned = backing->poisoned,
                                     .wake_fd = backing->wake_fd };
    err = ob_fault_watch(&range, &extent->fault);
    if (err)
        munmap(extent->base, extent->len);
    return err;
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* Maps [offset, offset + size) of a regular file, and as much around it as is sensible. */
static int map_file(struct ob_backing *backing, struct ob_extent *extent, int fd, const struct stat *st,
                    uint64_t offset, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end;
    struct statfs fs;
    int err;

    if (fstatfs(fd, &fs) < 0)
        return -errno;
    if (fs.f_type == HUGETLBFS_MAGIC)
        page = (uint64_t)fs.f_bsize;
    /* The file's size is an off_t, so none of the sums below can wrap. */
    end = round_up(offset + size, CHUNK);
    if (end > (uint64_t)st->st_size)
        end = round_up((uint64_t)st->st_size, page);
    extent->offset = offset / CHUNK * CHUNK;
    extent->len = end - extent->offset;
    err = map_extent(backing, extent, fd, page);
    if (err != -ENOMEM)
        return err;
    ob_backing_trim(backing, 0);
    extent->offset = offset / page * page;
    extent->len = round_up(offset + size, page) - extent->offset;
    return map_extent(backing, extent, fd, page);
}

static int make_extent(struct ob_backing *backing, int fd, const struct stat *st, uint64_t offset, uint64_t size,
                       bool writable, struct ob_extent **made)
{
    struct ob_extent *extent = calloc(1, sizeof(*extent));
    int err;

    if (!extent)
        return -ENOMEM;
    extent->dev = st->st_dev;
    extent->ino = st->st_ino;
    extent->writable = writable;
    extent->shared = S_ISREG(st->st_mode);
    if (extent->shared) {
        err = map_file(backing, extent, fd, st, offset, size);
    } else { /* a device: it has no size to check, and what its descriptor maps is its own affair */
        extent->offset = offset;
        extent->len = size;
        err = map_extent(backing, extent, fd, (size_t)sysconf(_SC_PAGESIZE));
    }
    if (err) {
        free(extent);
        return err;
    }
    if (extent->shared) {
        extent->link = bucket_of(backing, extent->dev, extent->ino, writable);
        extent->next = *extent->link;
        if (extent->next)
            extent->next->link = &extent->next;
        *extent->link = extent;
    }
    *made = extent;
    return 0;
}

/* What mmap would have checked, for a file that may be mapped already. */
static int check_mode(int fd, bool writable)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    if (flags & O_PATH)
        return -EBADF;
    if ((flags & O_ACCMODE) == O_WRONLY || (writable && (flags & O_ACCMODE) != O_RDWR))
        return -EACCES;
    return 0;
}

int ob_backing_get(struct ob_backing *backing, int fd, uint64_t offset, uint64_t size, bool writable,
                   struct ob_extent **extent, char **host)
{
    struct ob_extent *found = NULL;
    struct stat st;
    int err;

    if (offset > INT64_MAX || size > INT64_MAX - offset)
        return -EINVAL;
    if (fstat(fd, &st) < 0)
        return -errno;
    err = check_mode(fd, writable);
    if (err)
        return err;
    if (S_ISREG(st.st_mode)) {
        if (offset + size > (uint64_t)st.st_size)
            return -EINVAL;
        found = lookup(backing, &st, offset, size, writable);
    }
    if (found) {
        if (!found->users)
            idle_remove(backing, found);
    } else {
        err = make_extent(backing, fd, &st, offset, size, writable, &found);
        if (err)
            return err;
    }
    found->users++;
    *extent = found;
    *host = found->base + (offset - found->offset);
    return 0;
}
