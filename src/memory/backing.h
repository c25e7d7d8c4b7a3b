/* The files behind the guest's memory, each mapped into this process once.
 *
 * A client maps the same file many times, in pieces, and again and again, each time with a fresh descriptor. Files are
 * known by device and inode number, mapped whole, and stay mapped for a while after their last use; so most maps cost
 * no mmap, and no descriptor stays open. What is mapped is address space only: guest memory is allocated by whoever
 * touches it first.
 *
 * Control thread only. */
#ifndef OB_MEMORY_BACKING_H
#define OB_MEMORY_BACKING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OB_BACKING_BUCKETS 1024u
#define OB_BACKING_IDLE    16u /* mapped files kept without a use */

struct ob_fault_slot;

/* A mapped part of a file; in most cases all of it. */
struct ob_extent {
    dev_t dev;
    ino_t ino;
    bool writable;
    bool shared; /* can be found by others: a regular file */
    uint64_t offset, len;
    char *base;
    unsigned users;
    struct ob_fault_slot *fault;
    struct ob_extent *next, **link;           /* in its bucket, if shared */
    struct ob_extent *idle_next, **idle_link; /* in the idle list, if there are no users */
};

struct ob_backing {
    struct ob_extent *bucket[OB_BACKING_BUCKETS];
    struct ob_extent *idle, **idle_end; /* the longest idle first */
    unsigned idles;
    atomic_bool *poisoned;
    int wake_fd;
};

/* poisoned and wake_fd: what happens when a file is cut short (fault.h). */
void ob_backing_init(struct ob_backing *backing, atomic_bool *poisoned, int wake_fd);

/* Finds or makes a mapping of [offset, offset + size) of a file; size is not 0. The descriptor stays the caller's and
 * is not needed afterwards. *host is where the byte at offset is. Errors as of ob_memory_map. */
int ob_backing_get(struct ob_backing *backing, int fd, uint64_t offset, uint64_t size, bool writable,
                   struct ob_extent **extent, char **host);

/* Ends one use. Nobody may touch the memory through it any more. */
void ob_backing_put(struct ob_backing *backing, struct ob_extent *extent);

/* Unmaps the idle ones but for the `keep` used last. */
void ob_backing_trim(struct ob_backing *backing, unsigned keep);

#endif
