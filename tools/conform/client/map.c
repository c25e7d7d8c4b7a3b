/* map.c: VU-MAP and VU-UNMAP: what memory clients let the device reach, and how they take it back. */
#include "check.h"

#define MAP_LAYOUT   32
#define UNMAP_LAYOUT 24

/* --- DMA_MAP ------------------------------------------------------------------------------------------------------ */

static bool map_layout(struct trial *t, const struct ob_raw_message *m)
{
    uint64_t address = get64(m, 16), size = get64(m, 24);

    if (m->header.command != OB_RAW_DMA_MAP)
        return false;
    if (m->size != MAP_LAYOUT)
        trial_wrong(t, "DMA_MAP should have %d bytes of payload, and has %u", MAP_LAYOUT, m->size);
    else if ((get32(m, 4) & ~3u) != 0)
        trial_wrong(t, "flags (4 bytes at 4) should be readable (1), writeable (2) or both, and are %#x", get32(m, 4));
    else if (size == 0 || size - 1 > UINT64_MAX - address)
        trial_wrong(t,
                    "address (8 bytes at 16) and size (8 at 24) should be a range of memory, and are %#llx and %#llx",
                    (unsigned long long)address, (unsigned long long)size);
    return true;
}

static bool map_argsz(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_DMA_MAP)
        return false;
    if (get32(m, 0) != MAP_LAYOUT)
        trial_wrong(t, "the argsz of DMA_MAP should be %d, and is %u", MAP_LAYOUT, get32(m, 0));
    return true;
}

static bool map_descriptor(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_DMA_MAP)
        return false;
    if (m->nfds > 1)
        trial_wrong(t, "DMA_MAP should have one descriptor or none, and has %u", m->nfds);
    if (m->nfds == 0 && get64(m, 8) != 0)
        trial_wrong(t, "the offset should be 0 without a descriptor, and is %#llx", (unsigned long long)get64(m, 8));
    return true;
}

static bool map_overlap(struct trial *t, const struct ob_raw_message *m)
{
    uint64_t address = get64(m, 16), size = get64(m, 24);

    if (m->header.command != OB_RAW_DMA_MAP)
        return false;
    for (size_t i = 0; i < t->model.n_maps; i++) {
        const struct model_map *map = &t->model.maps[i];

        if (address < map->address + map->size && map->address < address + size)
            trial_wrong(t,
                        "the map at %#llx of %#llx bytes should not overlap one that exists, at %#llx of %#llx bytes",
                        (unsigned long long)address, (unsigned long long)size, (unsigned long long)map->address,
                        (unsigned long long)map->size);
    }
    return true;
}

/* --- DMA_UNMAP ---------------------------------------------------------------------------------------------------- */

static bool unmap_layout(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_DMA_UNMAP)
        return false;
    if (m->size != UNMAP_LAYOUT)
        trial_wrong(t, "DMA_UNMAP should have %d bytes of payload, and has %u", UNMAP_LAYOUT, m->size);
    return true;
}

static bool unmap_argsz(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_DMA_UNMAP)
        return false;
    if (get32(m, 0) < UNMAP_LAYOUT)
        trial_wrong(t, "the argsz of DMA_UNMAP should be at least %d, the reply's size, and is %u", UNMAP_LAYOUT,
                    get32(m, 0));
    return true;
}

static bool unmap_flags(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_DMA_UNMAP)
        return false;
    if (get32(m, 4) != 0)
        trial_wrong(t, "the flags of DMA_UNMAP should be 0, and are %#x", get32(m, 4));
    return true;
}

static bool unmap_exact(struct trial *t, const struct ob_raw_message *m)
{
    uint64_t address = get64(m, 8), size = get64(m, 16);

    if (m->header.command != OB_RAW_DMA_UNMAP || get32(m, 4) != 0)
        return false;
    for (size_t i = 0; i < t->model.n_maps; i++) {
        if (t->model.maps[i].address == address && t->model.maps[i].size == size)
            return true;
    }
    trial_wrong(t, "DMA_UNMAP should name a map exactly, and none is at %#llx of %#llx bytes",
                (unsigned long long)address, (unsigned long long)size);
    return true;
}

static bool unmaps_readable(struct trial *t, const struct ob_raw_message *m)
{
    const struct model_map *map;

    if (m->header.command != OB_RAW_DMA_UNMAP || !model_bus_master(&t->model))
        return false;
    map = model_map_of(&t->model, get64(m, 8), 1);
    return map != NULL && map->flags & VFIO_DMA_MAP_FLAG_READ;
}

/* The device may be using the memory until the reply. */
static void unmap_in_use(struct trial *t)
{
    struct ob_raw_message *m =
        trial_await_where(t, unmaps_readable, "DMA_UNMAP of readable memory while bus mastering is on");
    struct ob_raw_message *reply;

    trial_dma(t, OB_RAW_DMA_READ, 0, get64(m, 8), 16, NULL, 0);
    reply = trial_dma_reply_now(t, "DMA_READ of memory whose DMA_UNMAP is not answered yet");
    trial_want(t, !trial_refused(t, reply),
               "memory should be kept until the reply to DMA_UNMAP, and DMA_READ of it failed (%s)",
               strerror((int)reply->header.error));
    trial_answer(t, m);
    trial_want_same(t, 0);
}

#define NO_MAP   "the client sent no DMA_MAP"
#define NO_UNMAP "the client sent no DMA_UNMAP"

const struct client_check client_map_checks[] = {
    RULE("map-layout", "VU-MAP-1", "DMA_MAP has its fields in their places", map_layout, NO_MAP),
    RULE("map-argsz", "VU-MAP-2", "argsz is 32", map_argsz, NO_MAP),
    RULE("map-descriptor", "VU-MAP-16", "one descriptor or none, and offset 0 without", map_descriptor, NO_MAP),
    RULE("map-overlap", "VU-MAP-24", "maps do not overlap", map_overlap, NO_MAP),
    RULE("unmap-layout", "VU-UNMAP-1", "DMA_UNMAP has 24 bytes", unmap_layout, NO_UNMAP),
    RULE("unmap-argsz", "VU-UNMAP-2", "argsz has room for the reply", unmap_argsz, NO_UNMAP),
    RULE("unmap-flags", "VU-UNMAP-2", "flags are 0", unmap_flags, NO_UNMAP),
    RULE("unmap-exact", "VU-UNMAP-14", "DMA_UNMAP names a map exactly", unmap_exact, NO_UNMAP),
    VARIATION("unmap-in-use", "VU-UNMAP-14", "memory is kept until the reply to DMA_UNMAP", unmap_in_use),
    { .is = { NULL, NULL, NULL } },
};
