/* The insides of struct ob_memory, for the files of this folder that implement memory.h. */
#ifndef OB_MEMORY_SPACE_H
#define OB_MEMORY_SPACE_H

#include "memory/backing.h"
#include "memory/epoch.h"
#include "memory/memory.h"
#include "memory/tree.h"

/* Maps that were unmapped together and wait for their readers. */
struct ob_retired {
    struct ob_memory *memory;
    uint64_t token;         /* the epoch to wait for next */
    struct ob_region *all;  /* linked by next */
    struct ob_region *busy; /* the first that is not known to be free of pins */
    bool watching;          /* the epoch is watched for pins to end */
};

/* One map, from ob_memory_map to ob_memory_retire. Its index among the regions is its slot. */
struct ob_region {
    uint64_t iova, size;
    struct ob_extent *extent; /* NULL: reached by messages only */
    struct ob_region *next;   /* in the list of free slots, or of what was unmapped together */
    struct ob_retired retired;
    bool mapped;
};

struct ob_memory {
    struct ob_tree tree; /* first: what readers look at, a line of its own */
    alignas(OB_CACHE_LINE) atomic_bool poisoned;
    _Atomic(struct ob_dirty *) log; /* NULL: nobody asks */
    struct ob_epoch *epoch;
    struct ob_region *regions, *free;
    unsigned max_maps;
    unsigned fresh; /* slots from here on have never been used */
    unsigned maps;  /* regions that are mapped */
    unsigned slots; /* regions that are mapped or not yet retired */
    struct ob_window *windows;
    struct ob_backing backing;
    struct ob_dirty *old_log; /* readers may be marking in it until log_token has passed */
    uint64_t log_token;
};

/* ob_memory_written(), which costs one load as long as nobody asks. */
static inline void ob_log_written(struct ob_memory *memory, uint64_t iova, uint64_t len)
{
    struct ob_dirty *log = atomic_load_explicit(&memory->log, memory_order_acquire);

    if (__builtin_expect(log != NULL, 0) && len > 0)
        ob_dirty_mark(log, (struct ob_dirty_range){ iova, len });
}

/* What a window for writing may have written. */
void ob_windows_log(struct ob_memory *memory, const struct ob_window *window);

/* The windows over [iova, iova + size), just before it is unmapped and just after it was mapped. */
void ob_windows_unmap(struct ob_memory *memory, uint64_t iova, uint64_t size);
void ob_windows_map(struct ob_memory *memory, uint64_t iova, uint64_t size);

#endif
