/* The guest's DMA space of one device: map, translate, pin, windows.
 *
 * A map puts a piece of a file (guest memory, shared by descriptor), or a promise that the client serves accesses by
 * messages, at an IOVA. All changes are made by the control thread; any worker translates, without locks and without
 * writing to anything shared. IOVAs, sizes and offsets are in bytes; protections are PROT_READ and PROT_WRITE as seen
 * from the device: PROT_READ lets the device read guest memory.
 *
 * [control]: the control thread only. [reader]: the thread of a reader that is online (epoch.h); what it gets is good
 * until its next quiescent point or offline, unless pinned. */
#ifndef OB_MEMORY_MEMORY_H
#define OB_MEMORY_MEMORY_H

#include "memory/dirty.h"
#include "memory/epoch.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/uio.h>

#define OB_MEMORY_PAGE     UINT64_C(4096) /* what IOVAs, sizes and offsets must be a multiple of */
#define OB_MEMORY_MAX_MAPS 65535u

struct ob_memory;
struct ob_retired;

/* [control] An empty DMA space for at most max_maps maps (1 to OB_MEMORY_MAX_MAPS), with an epoch object of its own
 * that has max_maps slots. -EINVAL, -ENOMEM, -EMFILE, -ENFILE. */
int ob_memory_new(struct ob_memory **memory, unsigned max_maps);

/* [control] Ends it, whatever is mapped; every reader must have been removed and every window closed. NULL is fine. */
void ob_memory_free(struct ob_memory *memory);

/* The epoch object of this memory, to add readers to and to share with whatever else the same workers read. It lives as
 * long as the memory. */
struct ob_epoch *ob_memory_epoch(struct ob_memory *memory);

/* [control] Maps size bytes at iova. With fd >= 0 they are the bytes of that file from offset on, mapped shared; the
 * descriptor is taken over, and closed, only on success. With fd -1 they are reached by messages only, and offset is
 * of no importance.
 *
 *   -EINVAL  size 0; iova, size or (with a descriptor) offset not a multiple of 4 KiB; iova + size above 2^64; no
 *            protection or an unknown one; a regular file shorter than offset + size
 *   -EEXIST  it overlaps a map
 *   -ENOSPC  max_maps are in use (those unmapped but not yet given to ob_memory_retire included)
 *   -EACCES  the descriptor is not open for reading, or PROT_WRITE is asked for and it is not open for writing
 *   -EIO     the memory is poisoned (ob_memory_poisoned)
 *   others   from fstat and mmap: -EBADF, -ENODEV, -ENOMEM... */
int ob_memory_map(struct ob_memory *memory, uint64_t iova, uint64_t size, int prot, int fd, uint64_t offset);

/* [control] Unmaps what one ob_memory_map mapped: iova and size have to be the same, else -ENOENT. At once nothing
 * translates to it any more, and windows over it are NULL. Readers may still use what they translated and pinned
 * before: *retired tells when that is over. It stays the memory's: give it to ob_memory_retire when it is done.
 * -ENOMEM: nothing has changed. */
int ob_memory_unmap(struct ob_memory *memory, uint64_t iova, uint64_t size, struct ob_retired **retired);

/* [control] Unmaps everything (the client unmapped all, or is gone). Returns how many maps there were; with none,
 * *retired is NULL. Never fails. */
int ob_memory_unmap_all(struct ob_memory *memory, struct ob_retired **retired);

/* [control] Whether every reader passed a quiescent point since the unmap and no pin is left in what was unmapped. If
 * it returns false, the epoch's wake descriptor becomes readable when it is worth asking again. NULL is done. */
bool ob_memory_retired_done(struct ob_retired *retired);

/* [control] Lets go of what was unmapped, once it is done. Mapped files are kept for a while, since a client often maps
 * the same file again at once. NULL is fine. */
void ob_memory_retire(struct ob_retired *retired);

/* [control] Unmaps the files that no map uses now. For when a session ends, and for when one has been quiet for a
 * while: until then, memory that a client gave back to its host may stay allocated. */
void ob_memory_trim(struct ob_memory *memory);

/* [any thread] Whether a file was cut short under us and zeros were put in its place (fault.h): the session has to end.
 * The epoch's wake descriptor becomes readable when it happens. It is over when all is unmapped and retired. */
bool ob_memory_poisoned(const struct ob_memory *memory);

/* [control] A small number (below max_maps) that the map which begins at iova has while it is mapped, for tables of the
 * caller's; -ENOENT. */
int ob_memory_slot(const struct ob_memory *memory, uint64_t iova);

/* [control] How many maps there are. */
unsigned ob_memory_maps(const struct ob_memory *memory);

/* [reader, control] Where [iova, iova + len) is, in order, in at most max pieces. A range may cross adjacent maps.
 * Returns the number of pieces (0 if len is 0), or what is wrong with the first address at which something is:
 *
 *   -EFAULT  not mapped, or the range goes past 2^64
 *   -EACCES  mapped without one of the protections in prot
 *   -EREMOTE reached by messages only
 *   -ENOBUFS more than max pieces */
int ob_memory_translate(const struct ob_memory *memory, uint64_t iova, size_t len, int prot, struct iovec *iov,
                        int max);

/* [reader] The same, and good until ob_memory_unpin, however many polls and sleeps later: an unmap waits. pins has room
 * for max as iov has; pins[i] says what ob_memory_unpin has to know of iov[i] (the address alone does not: one file can
 * be mapped many times). With PROT_WRITE also -ENOMEM. */
int ob_memory_pin(struct ob_reader *reader, struct ob_memory *memory, uint64_t iova, size_t len, int prot,
                  struct iovec *iov, uint32_t *pins, int max);

/* [reader] Undoes one ob_memory_pin that returned n, on the same reader. Never fails. */
void ob_memory_unpin(struct ob_reader *reader, struct ob_memory *memory, const uint32_t *pins, int n);

/* What is at an address. */
struct ob_memory_piece {
    uint64_t iova; /* as asked for */
    uint64_t len;  /* how much of what was asked for lies in this map; at least 1 */
    void *host;    /* NULL: reached by messages only */
    int prot;
};

/* [reader, control] The first piece of [iova, iova + len), for those who split an access between memory and messages.
 * -EFAULT if iova is not mapped or the range goes past 2^64, -EINVAL if len is 0. */
int ob_memory_find(const struct ob_memory *memory, uint64_t iova, uint64_t len, struct ob_memory_piece *piece);

/* A window: a range of guest memory that a device uses for long, such as a ring. Its pointer is NULL while any of the
 * range is unmapped, lacks a protection, is reached by messages only or is not contiguous in one mapped file, and comes
 * back when the range is mapped again. The struct is the caller's; its members are for ob_window_pointer. */
struct ob_window {
    _Atomic(void *) pointer;
    uint64_t iova;
    uint64_t len;
    int prot;
    struct ob_memory *memory;
    struct ob_window *next, **link; /* control thread only */
};

/* [control] Opens a window; what is not mapped yet may be mapped later. -EINVAL: len 0, past 2^64, prot 0 or unknown.
 */
int ob_window_open(struct ob_memory *memory, struct ob_window *window, uint64_t iova, uint64_t len, int prot);

/* [control] Closes it: the pointer is NULL at once. The struct may be freed when the readers that know it have passed a
 * quiescent point (ob_epoch_start), or will not look again. */
void ob_window_close(struct ob_window *window);

/* [reader, control] The address of the window's first byte, good until the reader's next quiescent point, or NULL. */
static inline void *ob_window_pointer(const struct ob_window *window)
{
    return atomic_load_explicit(&window->pointer, memory_order_acquire);
}

/* --- The log of what the device wrote (dirty.h) ------------------------------------------------------------------- */

/* [control] Begins it, with pages of 2^shift bytes; the rest as in ob_dirty_new. Everything written from now on is
 * logged once the readers have passed a quiescent point (ob_epoch_start). -EBUSY: one is running, or an old one is not
 * gone; -ENOMEM. */
int ob_memory_log_start(struct ob_memory *memory, unsigned shift, const struct ob_dirty_range *ranges, unsigned n,
                        bool dirty);
bool ob_memory_logging(const struct ob_memory *memory);
/* [control] Ends it, if there is one. Readers may be looking at it: ob_memory_log_gone() says whether it is over, and
 * arranges for the epoch's wake descriptor to become readable if it is not. */
void ob_memory_log_stop(struct ob_memory *memory);
bool ob_memory_log_gone(struct ob_memory *memory);
/* [control] As ob_dirty_take, while there is a log. Windows for writing count as written as long as they are open,
 * since nobody tells when their users write. */
void ob_memory_log_take(struct ob_memory *memory, struct ob_dirty_range range, uint64_t page_size, uint8_t *bitmap);
/* [reader, control] What was found by ob_memory_find or ob_memory_translate, or is reached by messages, was written. To
 * be called after the write and before the next quiescent point. Pins and windows need no such call: a pin for writing
 * counts as written when it begins and when it ends. */
void ob_memory_written(struct ob_memory *memory, uint64_t iova, uint64_t len);

#endif
