/* Changing the tree: every node on the way down is rewritten into a new one; see tree.h for the whole.
 *
 * Rewriting goes through a draft: the items of one node, or of two neighbours, in plain arrays, edited and written out
 * as one node or two. A node that would be full is split in halves, or, if the new item is its last, left full with the
 * new item alone in the next node, so that maps made in ascending order fill their nodes. A node that shrank is merged
 * with a neighbour if both fit in three quarters of a node. So any two neighbours always hold more than half a node
 * together (three quarters when one last shrank, of which a later split can take the larger one down to a half), which
 * bounds the height whatever was mapped and unmapped before. */
#include "memory/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEIGHT 4 /* levels above the leaves: with 16 items a node on average, 65,535 maps take three */
#define RESERVE    (2 * (MAX_HEIGHT + 1) + 1) /* two new nodes a level, and a new root */
#define SPARES_MAX (2 * RESERVE)
#define MERGE_MAX  (OB_TREE_FANOUT / 4 * 3)

struct draft {
    unsigned count;
    uint64_t key[2 * OB_TREE_FANOUT];
    union ob_tree_item item[2 * OB_TREE_FANOUT];
};

static struct ob_tree_node *root_node(const struct ob_tree *tree)
{
    return (struct ob_tree_node *)(atomic_load_explicit(&tree->root, memory_order_relaxed) &
                                   ~(uintptr_t)(OB_CACHE_LINE - 1));
}

static unsigned root_level(const struct ob_tree *tree)
{
    return atomic_load_explicit(&tree->root, memory_order_relaxed) & (OB_CACHE_LINE - 1);
}

static void make_spare(struct ob_tree *tree, struct ob_tree_node *node)
{
    if (tree->spares >= SPARES_MAX) {
        free(node);
        return;
    }
    node->next = tree->spare;
    tree->spare = node;
    tree->spares++;
}

static struct ob_tree_node *take_spare(struct ob_tree *tree)
{
    struct ob_tree_node *node = tree->spare;

    tree->spare = node->next;
    tree->spares--;
    return node;
}

/* The token is set by publish; all nodes of one change have the same. */
static void make_old(struct ob_tree *tree, struct ob_tree_node *node)
{
    node->next = NULL;
    node->token = UINT64_MAX;
    *tree->old_end = node;
    tree->old_end = &node->next;
}

void ob_tree_reclaim(struct ob_tree *tree)
{
    while (tree->old && ob_epoch_passed_quietly(tree->epoch, tree->old->token)) {
        struct ob_tree_node *node = tree->old;

        tree->old = node->next;
        if (!tree->old)
            tree->old_end = &tree->old;
        make_spare(tree, node);
    }
}

int ob_tree_reserve(struct ob_tree *tree)
{
    ob_tree_reclaim(tree);
    while (tree->spares < RESERVE) {
        struct ob_tree_node *node = aligned_alloc(OB_CACHE_LINE, sizeof(*node));

        if (!node)
            return -ENOMEM;
        make_spare(tree, node);
    }
    return 0;
}

/* Makes the new root visible, and dates the nodes that became old since first_old. */
static uint64_t publish(struct ob_tree *tree, struct ob_tree_node *node, unsigned level,
                        struct ob_tree_node **first_old)
{
    uint64_t token;

    atomic_store_explicit(&tree->root, node ? (uintptr_t)node | level : 0, memory_order_release);
    token = ob_epoch_start(tree->epoch);
    for (struct ob_tree_node *old = *first_old; old; old = old->next)
        old->token = token;
    return token;
}

static void draft_add(struct draft *draft, const struct ob_tree_node *node)
{
    memcpy(draft->key + draft->count, node->key, node->count * sizeof(*node->key));
    memcpy(draft->item + draft->count, node->item, node->count * sizeof(*node->item));
    draft->count += node->count;
}

static void draft_insert(struct draft *draft, unsigned at, uint64_t key, const union ob_tree_item *item)
{
    memmove(draft->key + at + 1, draft->key + at, (draft->count - at) * sizeof(*draft->key));
    memmove(draft->item + at + 1, draft->item + at, (draft->count - at) * sizeof(*draft->item));
    draft->key[at] = key;
    draft->item[at] = *item;
    draft->count++;
}

static void draft_remove(struct draft *draft, unsigned at)
{
    draft->count--;
    memmove(draft->key + at, draft->key + at + 1, (draft->count - at) * sizeof(*draft->key));
    memmove(draft->item + at, draft->item + at + 1, (draft->count - at) * sizeof(*draft->item));
}

static void draft_set_child(struct draft *draft, unsigned at, struct ob_tree_node *child)
{
    draft->key[at] = child->key[0];
    draft->item[at].child = child;
}

/* Writes items [from, to) out as a new node. */
static struct ob_tree_node *draft_write(struct ob_tree *tree, const struct draft *draft, unsigned from, unsigned to)
{
    struct ob_tree_node *node = take_spare(tree);

    node->count = to - from;
    memcpy(node->key, draft->key + from, node->count * sizeof(*node->key));
    memset(node->key + node->count, 0xff, (OB_TREE_FANOUT - node->count) * sizeof(*node->key));
    memcpy(node->item, draft->item + from, node->count * sizeof(*node->item));
    for (unsigned i = 0; i < OB_TREE_LINE; i++)
        node->pivot[i] = node->key[i * OB_TREE_LINE];
    return node;
}

static union ob_tree_item packed_item(const struct ob_tree_map *map)
{
    return (union ob_tree_item){ .map = { .size_prot = map->size | (unsigned)map->prot,
                                          .host_slot = (uint64_t)(uintptr_t)map->host << 4 | map->slot } };
}

static void insert_at(struct ob_tree *tree, struct ob_tree_node *node, unsigned level, const struct ob_tree_map *map,
                      struct ob_tree_node *made[2]);

/* The draft of the node after the insertion; *at is where the new item is. */
static void insert_draft(struct ob_tree *tree, struct ob_tree_node *node, unsigned level, const struct ob_tree_map *map,
                         struct draft *draft, unsigned *at)
{
    int i = ob_tree_search(node, map->start);

    draft->count = 0;
    draft_add(draft, node);
    *at = (unsigned)(i + 1);
    if (level) {
        struct ob_tree_node *made[2];
        unsigned below = i < 0 ? 0 : (unsigned)i;

        insert_at(tree, node->item[below].child, level - 1, map, made);
        draft_set_child(draft, below, made[0]);
        *at = below;
        if (made[1]) {
            union ob_tree_item item = { .child = made[1] };

            *at = below + 1;
            draft_insert(draft, *at, made[1]->key[0], &item);
        }
    } else {
        union ob_tree_item item = packed_item(map);

        draft_insert(draft, *at, map->start, &item);
    }
}

/* Rewrites node with the map in it, as made[0] and, if it had to be split, made[1], else NULL. */
static void insert_at(struct ob_tree *tree, struct ob_tree_node *node, unsigned level, const struct ob_tree_map *map,
                      struct ob_tree_node *made[2])
{
    struct draft draft;
    unsigned at, cut;

    insert_draft(tree, node, level, map, &draft, &at);
    cut = draft.count <= OB_TREE_FANOUT ? draft.count : at == OB_TREE_FANOUT ? OB_TREE_FANOUT : draft.count / 2;
    made[0] = draft_write(tree, &draft, 0, cut);
    made[1] = cut < draft.count ? draft_write(tree, &draft, cut, draft.count) : NULL;
    make_old(tree, node);
}

void ob_tree_insert(struct ob_tree *tree, const struct ob_tree_map *map)
{
    struct ob_tree_node **first_old = tree->old_end;
    struct ob_tree_node *root = root_node(tree), *made[2];
    unsigned level = root_level(tree);
    struct draft draft;

    draft.count = 0;
    if (!root) {
        union ob_tree_item item = packed_item(map);

        draft_insert(&draft, 0, map->start, &item);
        publish(tree, draft_write(tree, &draft, 0, 1), 0, first_old);
        return;
    }
    insert_at(tree, root, level, map, made);
    if (made[1]) {
        draft.count = 2;
        draft_set_child(&draft, 0, made[0]);
        draft_set_child(&draft, 1, made[1]);
        made[0] = draft_write(tree, &draft, 0, 2);
        level++;
    }
    publish(tree, made[0], level, first_old);
}

/* Merges the child at `at` of a draft, which was just made and nobody knows yet, with a neighbour if both are small. */
static void merge_child(struct ob_tree *tree, struct draft *draft, unsigned at)
{
    struct ob_tree_node *child = draft->item[at].child;

    for (unsigned left = at ? at - 1 : 0; left <= at && left + 1 < draft->count; left++) {
        struct ob_tree_node *other = draft->item[left == at ? at + 1 : left].child;
        struct draft both;

        if (child->count + other->count > MERGE_MAX)
            continue;
        both.count = 0;
        draft_add(&both, draft->item[left].child);
        draft_add(&both, draft->item[left + 1].child);
        make_spare(tree, child);
        make_old(tree, other);
        draft_set_child(draft, left, draft_write(tree, &both, 0, both.count));
        draft_remove(draft, left + 1);
        return;
    }
}

/* Rewrites node without the map; NULL if nothing is left. */
static struct ob_tree_node *remove_at(struct ob_tree *tree, struct ob_tree_node *node, unsigned level, uint64_t start)
{
    unsigned at = (unsigned)ob_tree_search(node, start);
    struct draft draft;

    draft.count = 0;
    draft_add(&draft, node);
    if (level) {
        struct ob_tree_node *child = remove_at(tree, node->item[at].child, level - 1, start);

        if (child) {
            draft_set_child(&draft, at, child);
            merge_child(tree, &draft, at);
        } else {
            draft_remove(&draft, at);
        }
    } else {
        draft_remove(&draft, at);
    }
    make_old(tree, node);
    return draft.count ? draft_write(tree, &draft, 0, draft.count) : NULL;
}

uint64_t ob_tree_remove(struct ob_tree *tree, uint64_t start)
{
    struct ob_tree_node **first_old = tree->old_end;
    unsigned level = root_level(tree);
    struct ob_tree_node *root = remove_at(tree, root_node(tree), level, start);

    /* The child of a root with one child becomes the root; the root itself was just made and nobody knows it. */
    if (root && level && root->count == 1) {
        struct ob_tree_node *child = root->item[0].child;

        make_spare(tree, root);
        root = child;
        level--;
    }
    return publish(tree, root, level, first_old);
}

static void clear_at(struct ob_tree *tree, struct ob_tree_node *node, unsigned level)
{
    if (level)
        for (unsigned i = 0; i < node->count; i++)
            clear_at(tree, node->item[i].child, level - 1);
    make_old(tree, node);
}

uint64_t ob_tree_clear(struct ob_tree *tree)
{
    struct ob_tree_node **first_old = tree->old_end;

    if (root_node(tree))
        clear_at(tree, root_node(tree), root_level(tree));
    return publish(tree, NULL, 0, first_old);
}

void ob_tree_init(struct ob_tree *tree, struct ob_epoch *epoch)
{
    memset(tree, 0, sizeof(*tree));
    atomic_init(&tree->root, 0);
    tree->epoch = epoch;
    tree->old_end = &tree->old;
}

void ob_tree_fini(struct ob_tree *tree)
{
    ob_tree_clear(tree);
    ob_tree_reclaim(tree);
    while (tree->spare)
        free(take_spare(tree));
}
