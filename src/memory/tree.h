/* What is mapped where: a copy-on-write B+tree from the first address of each map to the map.
 *
 * Nodes are never changed once they can be reached. A change copies the nodes from the leaf to the root, publishes the
 * new root with one store, and frees the old nodes when the epoch that began then has passed. So a lookup takes no
 * lock, sees one state of the whole tree, and a change costs the same few copies whatever the number of maps.
 *
 * Nodes are wide, and the search in one is made for memory that has to be fetched: the pivots (every eighth key) fill
 * one cache line and choose the line of eight keys to look at. In both all eight keys are compared and the results
 * added up, which has no branch to mispredict. With 65,535 maps the tree is three levels high.
 *
 * The key of a child is exactly the smallest key below it; a map reaches at most up to the next key, so the largest key
 * at or below an address is the only map that can hold the address. */
#ifndef OB_MEMORY_TREE_H
#define OB_MEMORY_TREE_H

#include "memory/epoch.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define OB_TREE_LINE   8                             /* keys in a cache line */
#define OB_TREE_FANOUT (OB_TREE_LINE * OB_TREE_LINE) /* keys in a node */

/* One map. */
struct ob_tree_map {
    uint64_t start, size; /* bytes, multiples of the page size */
    char *host;           /* where the first byte is, page-aligned; NULL: reached by messages only */
    uint32_t slot;        /* of its region, and of its pin counters; below 65,536 */
    int prot;
};

/* The same in 16 bytes, so that fewer cache lines hold it all: the low bits that alignment leaves free carry the rest.
 * (An address in user space is below 2^60.) */
struct ob_tree_packed {
    uint64_t size_prot; /* size | prot */
    uint64_t host_slot; /* host << 4 | slot */
};

union ob_tree_item {
    struct ob_tree_packed map;  /* in a leaf */
    struct ob_tree_node *child; /* above */
};

struct ob_tree_node {
    alignas(OB_CACHE_LINE) uint64_t pivot[OB_TREE_LINE]; /* pivot[i] is key[i * OB_TREE_LINE] */
    uint64_t key[OB_TREE_FANOUT];                        /* ascending; those not in use are UINT64_MAX */
    union ob_tree_item item[OB_TREE_FANOUT];
    uint32_t count;            /* from here on: control thread only */
    struct ob_tree_node *next; /* in the list of spare or of old nodes */
    uint64_t token;            /* an old node may be reused when this epoch has passed */
};

struct ob_tree {
    _Atomic uintptr_t root; /* the node, and in the low bits the number of levels above the leaves; 0: empty */
    struct ob_epoch *epoch; /* from here on: control thread only */
    struct ob_tree_node *spare;
    unsigned spares;
    struct ob_tree_node *old, **old_end; /* in the order they became old */
};

/* All functions are for the control thread, except ob_tree_find. */
void ob_tree_init(struct ob_tree *tree, struct ob_epoch *epoch);
void ob_tree_fini(struct ob_tree *tree); /* no reader may be left */

/* Sets memory aside so that one ob_tree_insert or ob_tree_remove cannot fail. -ENOMEM. */
int ob_tree_reserve(struct ob_tree *tree);

/* Adds a map, which may not overlap any other. Needs a reservation. */
void ob_tree_insert(struct ob_tree *tree, const struct ob_tree_map *map);

/* Removes the map that starts at start, which must exist. Returns the token of the epoch after which no reader uses
 * it. Needs a reservation. */
uint64_t ob_tree_remove(struct ob_tree *tree, uint64_t start);

/* Removes all maps; returns the token. */
uint64_t ob_tree_clear(struct ob_tree *tree);

/* Frees what readers have let go of since. The changes do it too. */
void ob_tree_reclaim(struct ob_tree *tree);

/* How many of eight ascending keys are at most `at`. Written out: a loop is not unrolled at -O2. */
static inline unsigned ob_tree_rank_line(const uint64_t *key, uint64_t at)
{
    unsigned low = (unsigned)(key[0] <= at) + (key[1] <= at) + (key[2] <= at) + (key[3] <= at);
    unsigned high = (unsigned)(key[4] <= at) + (key[5] <= at) + (key[6] <= at) + (key[7] <= at);

    return low + high;
}

/* The first index of the line of keys in which the largest key that is at most `at` (below UINT64_MAX) must be. */
static inline unsigned ob_tree_line(const struct ob_tree_node *node, uint64_t at)
{
    unsigned line;

    /* A small tree, which most are: one line, known without waiting for a comparison. */
    if (node->pivot[1] == UINT64_MAX)
        return 0;
    line = ob_tree_rank_line(node->pivot, at);
    return line ? (line - 1) * OB_TREE_LINE : 0;
}

/* The index of that key, or -1 if there is none. */
static inline int ob_tree_search(const struct ob_tree_node *node, uint64_t at)
{
    unsigned line = ob_tree_line(node, at);

    return (int)(line + ob_tree_rank_line(node->key + line, at)) - 1;
}

/* [reader, control] The map with the largest start at or below `at`, whether or not it reaches `at`; false if there is
 * none. What it says is good until the reader's next quiescent point. */
static inline bool ob_tree_find(const struct ob_tree *tree, uint64_t at, struct ob_tree_map *map)
{
    uintptr_t root = atomic_load_explicit(&tree->root, memory_order_acquire);
    const struct ob_tree_node *node = (const struct ob_tree_node *)(root & ~(uintptr_t)(OB_CACHE_LINE - 1));
    const struct ob_tree_packed *packed;
    unsigned line;
    int i;

    if (!node)
        return false;
    at &= ~UINT64_C(4095); /* starts are multiples of it, so it compares the same, and differs from an unused key */
    for (unsigned level = root & (OB_CACHE_LINE - 1); level; level--) {
        i = ob_tree_search(node, at);
        if (i < 0)
            return false;
        node = node->item[i].child;
    }
    line = ob_tree_line(node, at);
    /* The leaves of a large tree are not in the cache: fetch the items while the keys are being fetched. */
    __builtin_prefetch(&node->item[line]);
    __builtin_prefetch(&node->item[line + OB_TREE_LINE / 2]);
    i = (int)(line + ob_tree_rank_line(node->key + line, at)) - 1;
    if (i < 0)
        return false;
    packed = &node->item[i].map;
    map->start = node->key[i];
    map->size = packed->size_prot & ~UINT64_C(4095);
    map->prot = (int)(packed->size_prot & 4095);
    map->host = (char *)(packed->host_slot >> 16 << 12);
    map->slot = (uint32_t)(packed->host_slot & 65535);
    return true;
}

#endif
