/* Mapping and unmapping; see memory.h. Translation and pins are in access.c, windows in window.c.
 *
 * A map takes a slot, which names its pin counters in every reader. The slot is free again only when the map is
 * retired, so a counter can never be taken for that of a later map. */
#include "memory/space.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int ob_memory_new(struct ob_memory **memory, unsigned max_maps)
{
    struct ob_memory *m;
    int err = -ENOMEM;

    if (!max_maps || max_maps > OB_MEMORY_MAX_MAPS)
        return -EINVAL;
    m = aligned_alloc(OB_CACHE_LINE, sizeof(*m));
    if (!m)
        return -ENOMEM;
    memset(m, 0, sizeof(*m));
    atomic_init(&m->poisoned, false);
    atomic_init(&m->log, NULL);
    m->max_maps = max_maps;
    m->regions = calloc(max_maps, sizeof(*m->regions));
    if (!m->regions)
        goto fail;
    err = ob_epoch_new(&m->epoch, max_maps);
    if (err)
        goto fail;
    ob_tree_init(&m->tree, m->epoch);
    ob_backing_init(&m->backing, &m->poisoned, ob_epoch_wake_fd(m->epoch));
    *memory = m;
    return 0;
fail:
    free(m->regions);
    free(m);
    return err;
}

void ob_memory_free(struct ob_memory *memory)
{
    if (!memory)
        return;
    for (unsigned i = 0; i < memory->fresh; i++)
        if (memory->regions[i].extent)
            ob_backing_put(&memory->backing, memory->regions[i].extent);
    ob_backing_trim(&memory->backing, 0);
    ob_tree_fini(&memory->tree);
    ob_dirty_free(atomic_load(&memory->log));
    ob_dirty_free(memory->old_log);
    ob_epoch_free(memory->epoch);
    free(memory->regions);
    free(memory);
}

struct ob_epoch *ob_memory_epoch(struct ob_memory *memory)
{
    return memory->epoch;
}

unsigned ob_memory_maps(const struct ob_memory *memory)
{
    return memory->maps;
}

int ob_memory_slot(const struct ob_memory *memory, uint64_t iova)
{
    struct ob_tree_map map;

    return ob_tree_find(&memory->tree, iova, &map) && map.start == iova ? (int)map.slot : -ENOENT;
}

bool ob_memory_poisoned(const struct ob_memory *memory)
{
    return atomic_load_explicit(&memory->poisoned, memory_order_acquire);
}

void ob_memory_trim(struct ob_memory *memory)
{
    ob_backing_trim(&memory->backing, 0);
}

static struct ob_region *take_region(struct ob_memory *memory)
{
    struct ob_region *region = memory->free;

    if (region)
        memory->free = region->next;
    else
        region = &memory->regions[memory->fresh++];
    memory->slots++;
    return region;
}

static void give_region(struct ob_memory *memory, struct ob_region *region)
{
    region->extent = NULL;
    region->next = memory->free;
    memory->free = region;
    memory->slots--;
}

static int check_map(const struct ob_memory *memory, uint64_t iova, uint64_t size, int prot)
{
    struct ob_tree_map below;
    uint64_t last = iova + (size - 1);

    if (!size || iova % OB_MEMORY_PAGE || size % OB_MEMORY_PAGE || last < iova || !prot ||
        (prot & ~(PROT_READ | PROT_WRITE)))
        return -EINVAL;
    if (ob_memory_poisoned(memory))
        return -EIO;
    /* Of all maps that begin at or below our last byte, the last one is the one that reaches furthest. */
    if (ob_tree_find(&memory->tree, last, &below) && below.start + (below.size - 1) >= iova)
        return -EEXIST;
    return memory->slots < memory->max_maps ? 0 : -ENOSPC;
}

int ob_memory_map(struct ob_memory *memory, uint64_t iova, uint64_t size, int prot, int fd, uint64_t offset)
{
    struct ob_tree_map map = { .start = iova, .size = size, .prot = prot };
    struct ob_extent *extent = NULL;
    struct ob_region *region;
    int err = check_map(memory, iova, size, prot);

    if (err)
        return err;
    err = ob_tree_reserve(&memory->tree);
    if (err)
        return err;
    if (fd >= 0) {
        if (offset % OB_MEMORY_PAGE)
            return -EINVAL;
        err = ob_backing_get(&memory->backing, fd, offset, size, prot & PROT_WRITE, &extent, &map.host);
        if (err)
            return err;
        close(fd);
    }
    region = take_region(memory);
    region->iova = iova;
    region->size = size;
    region->extent = extent;
    region->mapped = true;
    map.slot = (uint32_t)(region - memory->regions);
    ob_tree_insert(&memory->tree, &map);
    memory->maps++;
    ob_windows_map(memory, iova, size);
    return 0;
}

int ob_memory_unmap(struct ob_memory *memory, uint64_t iova, uint64_t size, struct ob_retired **retired)
{
    struct ob_region *region;
    struct ob_tree_map map;
    int err;

    if (!ob_tree_find(&memory->tree, iova, &map) || map.start != iova || map.size != size)
        return -ENOENT;
    region = &memory->regions[map.slot];
    err = ob_tree_reserve(&memory->tree);
    if (err)
        return err;
    ob_windows_unmap(memory, iova, size);
    region->mapped = false;
    region->next = NULL;
    memory->maps--;
    region->retired = (struct ob_retired){
        .memory = memory, .token = ob_tree_remove(&memory->tree, iova), .all = region, .busy = region
    };
    *retired = &region->retired;
    return 0;
}

int ob_memory_unmap_all(struct ob_memory *memory, struct ob_retired **retired)
{
    struct ob_region *all = NULL;
    int n = 0;

    for (unsigned i = 0; i < memory->fresh; i++) {
        struct ob_region *region = &memory->regions[i];

        if (!region->mapped)
            continue;
        ob_windows_unmap(memory, region->iova, region->size);
        region->mapped = false;
        region->next = all;
        all = region;
        n++;
    }
    *retired = NULL;
    if (!all)
        return 0;
    memory->maps = 0;
    all->retired =
        (struct ob_retired){ .memory = memory, .token = ob_tree_clear(&memory->tree), .all = all, .busy = all };
    *retired = &all->retired;
    return n;
}

bool ob_memory_retired_done(struct ob_retired *retired)
{
    struct ob_memory *memory;

    if (!retired)
        return true;
    memory = retired->memory;
    while (ob_epoch_passed(memory->epoch, retired->token)) {
        /* Nobody can pin these any more, so a counter at zero stays there. */
        while (retired->busy && !ob_epoch_count(memory->epoch, (uint32_t)(retired->busy - memory->regions)))
            retired->busy = retired->busy->next;
        if (!retired->busy || retired->watching)
            break;
        /* Look once more when every reader knows that we want to hear of pins that end. */
        retired->watching = true;
        retired->token = ob_epoch_watch(memory->epoch);
    }
    if (retired->busy)
        return false;
    if (retired->watching) {
        retired->watching = false;
        ob_epoch_unwatch(memory->epoch);
    }
    return true;
}

void ob_memory_retire(struct ob_retired *retired)
{
    struct ob_memory *memory;
    struct ob_region *next;

    if (!retired)
        return;
    assert(!retired->busy);
    memory = retired->memory;
    for (struct ob_region *region = retired->all; region; region = next) {
        next = region->next;
        if (region->extent)
            ob_backing_put(&memory->backing, region->extent);
        give_region(memory, region);
    }
    if (!memory->slots && ob_memory_poisoned(memory)) {
        ob_backing_trim(&memory->backing, 0); /* a mapping with zeros in it is not to be used again */
        atomic_store_explicit(&memory->poisoned, false, memory_order_release);
    }
    ob_tree_reclaim(&memory->tree);
}
