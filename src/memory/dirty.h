/* The log of guest memory that a device wrote: which pages, since they were last asked about.
 *
 * Theory of operation. A tree over the numbers of pages, whose leaves are bitmaps. A place in the tree is a node, a
 * leaf, or one of two words for a whole span: CLEAN and DIRTY. A log begins as one such word, so it costs memory only
 * where something is known of single pages, whatever the addresses: it needs no maps. Workers mark with atomic ORs and
 * grow the tree with compare-and-exchange; nothing is taken out of it before it is freed. Where no memory can be had
 * for a node, its whole span becomes DIRTY: a log may say too much, never too little.
 *
 * A page is marked after it was written, and a report takes the mark before its reader looks at the page. Both sides
 * are sequentially consistent (a fence before the first look, an exchange): either the report has the mark, or the
 * mark comes after and the next report has it. */
#ifndef OB_MEMORY_DIRTY_H
#define OB_MEMORY_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

struct ob_dirty;

/* The addresses [iova, iova + len); len is not 0, and the last one at most 2^64 - 1. */
struct ob_dirty_range {
    uint64_t iova, len; /* bytes */
};

/* The bytes that the nodes of one log may have; beyond, spans become dirty as a whole. */
#define OB_DIRTY_MAX_BYTES (UINT64_C(256) << 20)

/* [control] A log of pages of 2^shift bytes, shift 12 to 63. `ranges`, sorted and without overlap, is what reports are
 * limited to; none: everything. `dirty`: all pages begin as written. 0 or -ENOMEM. */
int ob_dirty_new(struct ob_dirty **log, unsigned shift, const struct ob_dirty_range *ranges, unsigned n, bool dirty);

/* [control] No thread may be marking any more. NULL is fine. */
void ob_dirty_free(struct ob_dirty *log);

/* [any thread] Pages of the range were written. */
void ob_dirty_mark(struct ob_dirty *log, struct ob_dirty_range range);

/* [control] What was written in the range, one bit for each page_size bytes from its beginning on, lowest bit of the
 * first byte first; and forgets it. page_size is a power of two and may be larger or smaller than that of the log. Sets
 * bits in `bitmap`, and clears none. A page of the log that the range holds in part only stays dirty. */
void ob_dirty_take(struct ob_dirty *log, struct ob_dirty_range range, uint64_t page_size, uint8_t *bitmap);

#endif
