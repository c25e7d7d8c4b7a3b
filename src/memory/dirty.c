/* The log of written pages; see dirty.h. */
#include "memory/dirty.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LEAF_BITS   15 /* pages of a leaf: 4 KiB of bitmap, 128 MiB of pages of 4 KiB */
#define LEAF_WORDS  ((1u << LEAF_BITS) / 64)
#define NODE_BITS   10
#define NODE_PLACES (1u << NODE_BITS)
#define LEVELS      4 /* of nodes: 15 + 4 * 10 bits hold the 52 of a page's number */

/* What a place holds besides pointers. */
#define CLEAN ((uintptr_t)1)
#define DIRTY ((uintptr_t)2)

typedef _Atomic uintptr_t place;

struct leaf {
    _Atomic uint64_t words[LEAF_WORDS];
};

struct node {
    place places[NODE_PLACES];
};

struct ob_dirty {
    place root;
    unsigned shift;
    _Atomic uint64_t bytes;
    unsigned n_ranges;
    struct ob_dirty_range ranges[];
};

static bool is_pointer(uintptr_t value)
{
    return value > DIRTY;
}

/* Pages in one place at `level`; 0: a leaf's. */
static unsigned span_bits(unsigned level)
{
    return LEAF_BITS + level * NODE_BITS;
}

int ob_dirty_new(struct ob_dirty **out, unsigned shift, const struct ob_dirty_range *ranges, unsigned n, bool dirty)
{
    struct ob_dirty *log = malloc(sizeof(*log) + n * sizeof(*ranges));

    if (!log)
        return -ENOMEM;
    atomic_init(&log->root, dirty ? DIRTY : CLEAN);
    atomic_init(&log->bytes, 0);
    log->shift = shift;
    log->n_ranges = n;
    if (n > 0)
        memcpy(log->ranges, ranges, n * sizeof(*ranges));
    *out = log;
    return 0;
}

static void free_place(uintptr_t value, unsigned level)
{
    if (!is_pointer(value))
        return;
    if (level > 0)
        for (unsigned i = 0; i < NODE_PLACES; i++)
            free_place(atomic_load_explicit(&((struct node *)value)->places[i], memory_order_relaxed), level - 1);
    free((void *)value);
}

void ob_dirty_free(struct ob_dirty *log)
{
    if (!log)
        return;
    free_place(atomic_load_explicit(&log->root, memory_order_relaxed), LEVELS);
    free(log);
}

/* A node or a leaf with every page as `value` says; 0: no memory. */
static uintptr_t make(struct ob_dirty *log, unsigned level, uintptr_t value)
{
    size_t size = level > 0 ? sizeof(struct node) : sizeof(struct leaf);

    if (atomic_fetch_add_explicit(&log->bytes, size, memory_order_relaxed) + size > OB_DIRTY_MAX_BYTES) {
        atomic_fetch_sub_explicit(&log->bytes, size, memory_order_relaxed);
        return 0;
    }
    void *p = malloc(size);

    if (!p)
        return 0;
    if (level > 0)
        for (unsigned i = 0; i < NODE_PLACES; i++)
            atomic_init(&((struct node *)p)->places[i], value);
    else
        memset(p, value == DIRTY ? 0xff : 0, size);
    return (uintptr_t)p;
}

/* Turns a place that says `value` of its whole span into one that says it of parts. Returns what is there afterwards,
 * which is another thread's if that was faster, and still the word if there is no memory. */
static uintptr_t expand(struct ob_dirty *log, place *at, unsigned level, uintptr_t value)
{
    uintptr_t made = make(log, level, value);

    if (!made)
        return value;
    if (atomic_compare_exchange_strong(at, &value, made))
        return made;
    atomic_fetch_sub_explicit(&log->bytes, level > 0 ? sizeof(struct node) : sizeof(struct leaf), memory_order_relaxed);
    free((void *)made);
    return value;
}

/* --- Marking ----------------------------------------------------------------------------------------------------- */

static void mark_leaf(struct leaf *leaf, unsigned first, unsigned last)
{
    for (unsigned w = first / 64; w <= last / 64; w++) {
        uint64_t mask = UINT64_MAX;

        if (w == first / 64)
            mask &= UINT64_MAX << first % 64;
        if (w == last / 64)
            mask &= UINT64_MAX >> (63 - last % 64);
        if ((atomic_load(&leaf->words[w]) & mask) != mask)
            atomic_fetch_or(&leaf->words[w], mask);
    }
}

/* Marks [first, last], page numbers, as far as they lie in the leaf of `first`; returns the next one to mark, or one
 * beyond `last`. */
static uint64_t mark_some(struct ob_dirty *log, uint64_t first, uint64_t last)
{
    place *at = &log->root;
    unsigned level = LEVELS;

    for (;;) {
        uint64_t end = first | ((UINT64_C(1) << span_bits(level)) - 1); /* of the span */
        uintptr_t value = atomic_load(at);

        if (value == CLEAN) {
            value = expand(log, at, level, CLEAN);
            if (value == CLEAN) {
                if (!atomic_compare_exchange_strong(at, &value, DIRTY))
                    continue;
                value = DIRTY;
            }
        }
        if (value == DIRTY)
            return end + 1;
        if (level == 0) {
            uint64_t to = last < end ? last : end;

            mark_leaf((struct leaf *)value, first & ((1u << LEAF_BITS) - 1), to & ((1u << LEAF_BITS) - 1));
            return to + 1;
        }
        level--;
        at = &((struct node *)value)->places[first >> span_bits(level) & (NODE_PLACES - 1)];
    }
}

void ob_dirty_mark(struct ob_dirty *log, struct ob_dirty_range range)
{
    uint64_t first = range.iova >> log->shift, last = (range.iova + (range.len - 1)) >> log->shift;

    atomic_thread_fence(memory_order_seq_cst);
    while (first <= last)
        first = mark_some(log, first, last);
}

/* --- Reports ----------------------------------------------------------------------------------------------------- */

struct report {
    const struct ob_dirty *log;
    uint64_t first, last; /* addresses */
    unsigned page_shift;  /* of the bitmap */
    uint8_t *bitmap;
    uint64_t see_first, see_last;   /* pages of the log that the range touches */
    uint64_t take_first, take_last; /* those that it holds as a whole; none if take_first > take_last */
};

static void set_bits(uint8_t *bitmap, uint64_t first, uint64_t last)
{
    for (; first <= last && first % 8 != 0; first++)
        bitmap[first / 8] |= (uint8_t)(1u << first % 8);
    if (first <= last && last - first >= 8) {
        uint64_t bytes = (last + 1 - first) / 8;

        memset(bitmap + first / 8, 0xff, bytes);
        first += bytes * 8;
    }
    for (; first <= last; first++)
        bitmap[first / 8] |= (uint8_t)(1u << first % 8);
}

static void say(const struct report *r, uint64_t first, uint64_t last)
{
    set_bits(r->bitmap, (first - r->first) >> r->page_shift, (last - r->first) >> r->page_shift);
}

/* The pages [first, last] of the log were written: to the bitmap, as far as ranges go. */
static void tell(const struct report *r, uint64_t first, uint64_t last)
{
    const struct ob_dirty *log = r->log;
    uint64_t from = first << log->shift, to = last << log->shift | ((UINT64_C(1) << log->shift) - 1);
    unsigned low = 0, high = log->n_ranges;

    from = from < r->first ? r->first : from;
    to = to > r->last ? r->last : to;
    if (log->n_ranges == 0) {
        say(r, from, to);
        return;
    }
    while (low < high) { /* the first range that ends at or after `from` */
        unsigned middle = (low + high) / 2;

        if (log->ranges[middle].iova + (log->ranges[middle].len - 1) < from)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < log->n_ranges && log->ranges[low].iova <= to; low++) {
        uint64_t start = log->ranges[low].iova, end = start + (log->ranges[low].len - 1);

        say(r, start < from ? from : start, end > to ? to : end);
    }
}

static void take_word(const struct report *r, _Atomic uint64_t *word, uint64_t base)
{
    uint64_t see = UINT64_MAX, take = UINT64_MAX, dirty;

    if (atomic_load(word) == 0)
        return;
    bool whole = base >= r->take_first && base + 63 <= r->take_last;
    for (unsigned i = 0; i < 64 && !whole; i++) { /* at the two ends of the range */
        if (base + i < r->see_first || base + i > r->see_last)
            see &= ~(UINT64_C(1) << i);
        if (base + i < r->take_first || base + i > r->take_last)
            take &= ~(UINT64_C(1) << i);
    }
    dirty = atomic_fetch_and(word, ~take) & see;
    while (dirty) {
        unsigned start = (unsigned)__builtin_ctzll(dirty);
        uint64_t rest = ~(dirty >> start);
        unsigned run = rest ? (unsigned)__builtin_ctzll(rest) : 64;

        run = run > 64 - start ? 64 - start : run;
        tell(r, base + start, base + start + run - 1);
        dirty &= run == 64 ? 0 : ~(((UINT64_C(1) << run) - 1) << start);
    }
}

/* The part of [base, base + span of the level) that lies in the report. */
static void take_place(struct ob_dirty *log, const struct report *r, place *at, unsigned level, uint64_t base)
{
    uint64_t end = base + ((UINT64_C(1) << span_bits(level)) - 1);
    uint64_t first = base < r->see_first ? r->see_first : base, last = end > r->see_last ? r->see_last : end;
    uintptr_t value = atomic_load(at);

    if (value == CLEAN)
        return;
    if (value == DIRTY) {
        if (base >= r->take_first && end <= r->take_last) {
            tell(r, base, end);
            atomic_store(at, CLEAN); /* no worker changes a place that is DIRTY */
            return;
        }
        value = r->take_first <= r->take_last ? expand(log, at, level, DIRTY) : DIRTY;
        if (value == DIRTY) {
            tell(r, first, last);
            return;
        }
    }
    if (level == 0) {
        for (uint64_t w = (first - base) / 64; w <= (last - base) / 64; w++)
            take_word(r, &((struct leaf *)value)->words[w], base + w * 64);
        return;
    }
    unsigned bits = span_bits(level - 1);
    for (uint64_t i = (first - base) >> bits; i <= (last - base) >> bits; i++)
        take_place(log, r, &((struct node *)value)->places[i], level - 1, base + (i << bits));
}

void ob_dirty_take(struct ob_dirty *log, struct ob_dirty_range range, uint64_t page_size, uint8_t *bitmap)
{
    uint64_t page = UINT64_C(1) << log->shift, last = range.iova + (range.len - 1);
    struct report r = {
        .log = log,
        .first = range.iova,
        .last = last,
        .page_shift = (unsigned)__builtin_ctzll(page_size),
        .bitmap = bitmap,
        .see_first = range.iova >> log->shift,
        .see_last = last >> log->shift,
    };

    r.take_first = r.see_first + (range.iova % page != 0);
    if ((last + 1) % page == 0) {
        r.take_last = r.see_last;
    } else if (r.see_last > 0) {
        r.take_last = r.see_last - 1;
    } else { /* less than the first page of all */
        r.take_first = 1;
        r.take_last = 0;
    }
    take_place(log, &r, &log->root, LEVELS, 0);
}
