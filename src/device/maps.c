/* Guest memory as the client maps and unmaps it, and the table by which a successor maps it again.
 *
 * Theory of operation. A client's map ends up in src/memory, where workers translate, and, if somebody holds
 * descriptors for a successor, in the vault's map table with the key of its descriptor. The table is changed in place,
 * before the commit of the request that changes it, so each entry says from which position in the request stream it
 * holds and to which: a successor takes an entry whose `from` is executed and whose `to` is not. An entry whose `to` is
 * executed is free. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/dev.h"

struct map_entry {
    uint64_t from, to; /* positions; from 0: never used */
    uint64_t iova, size, offset, key;
    uint64_t prot;
};

size_t ob_maps_size(void)
{
    return OB_SESSION_MAX_DMA_MAPS * sizeof(struct map_entry);
}

static struct map_entry *entries(struct ob_dev *dev)
{
    return dev->vault.maps;
}

static bool held(const struct ob_dev *dev)
{
    return dev->session.holder.socket >= 0;
}

int ob_maps_init(struct ob_dev *dev)
{
    int err = ob_memory_new(&dev->memory, OB_SESSION_MAX_DMA_MAPS);

    if (err || !held(dev))
        return err;
    dev->map_entry = calloc(OB_SESSION_MAX_DMA_MAPS, sizeof(*dev->map_entry));
    dev->free_entries = calloc(OB_SESSION_MAX_DMA_MAPS, sizeof(*dev->free_entries));
    if (!dev->map_entry || !dev->free_entries)
        return -ENOMEM;
    for (uint32_t e = OB_SESSION_MAX_DMA_MAPS; e-- > 0;)
        dev->free_entries[dev->n_free_entries++] = e;
    return 0;
}

static void free_entry(struct ob_dev *dev, uint32_t e)
{
    if (entries(dev)[e].from)
        ob_journal_store(&entries(dev)[e].from, 0);
    dev->free_entries[dev->n_free_entries++] = e;
}

void ob_maps_forget(struct ob_dev *dev)
{
    dev->n_free_entries = 0;
    for (uint32_t e = OB_SESSION_MAX_DMA_MAPS; held(dev) && e-- > 0;)
        free_entry(dev, e);
}

/* The position that the present request will have brought the device to. */
static uint64_t request_end(const struct ob_dev *dev)
{
    return dev->session.position.executed + dev->session.request.header.size;
}

static void note_map(struct ob_dev *dev, uint32_t slot, const struct map_entry *map)
{
    uint32_t e = dev->free_entries[--dev->n_free_entries];

    struct map_entry *entry = &entries(dev)[e];

    dev->map_entry[slot] = e + 1;
    /* `from`, which is not executed yet, goes first: whatever the rest says meanwhile, the entry is free. */
    ob_journal_store(&entry->from, map->from);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    *entry = *map;
}

static void note_unmap(struct ob_dev *dev, uint32_t slot, uint64_t to)
{
    uint32_t e = dev->map_entry[slot] - 1;

    dev->map_entry[slot] = 0;
    ob_journal_store(&entries(dev)[e].to, to);
    /* Free as soon as the commit is through, which is before anybody can ask for another entry. */
    dev->free_entries[dev->n_free_entries++] = e;
    ob_holder_drop_key(&dev->session.holder, entries(dev)[e].key);
}

static int restore_map(struct ob_dev *dev, uint32_t e)
{
    const struct map_entry *map = &entries(dev)[e];
    int fd = map->key ? ob_holder_take(&dev->session.holder, map->key) : -1;

    if (map->key && fd < 0)
        return -ENOENT;
    /* The number is free again once the file is mapped, the key goes on. */
    if (fd >= 0)
        ob_holder_detach(&dev->session.holder, fd);
    int err = ob_memory_map(dev->memory, map->iova, map->size, (int)map->prot, fd, map->offset);
    if (err) {
        if (fd >= 0)
            close(fd);
        return err;
    }
    dev->map_entry[ob_memory_slot(dev->memory, map->iova)] = e + 1;
    return 0;
}

int ob_maps_restore(struct ob_dev *dev)
{
    uint64_t executed = dev->session.position.executed;

    dev->n_free_entries = 0;
    for (uint32_t e = OB_SESSION_MAX_DMA_MAPS; held(dev) && e-- > 0;) {
        const struct map_entry *map = &entries(dev)[e];
        if (map->from == 0 || map->from > executed || map->to <= executed) {
            free_entry(dev, e); /* a map that was not executed must not come true when its position does */
            continue;
        }
        if (map->to != UINT64_MAX)
            ob_journal_store(&entries(dev)[e].to, UINT64_MAX); /* an unmap that was not executed never happened */
        int err = restore_map(dev, e);
        if (err) {
            ob_log(dev, "guest memory at 0x%llx cannot be mapped again: %s", (unsigned long long)map->iova,
                   strerror(-err));
            return err;
        }
    }
    return 0;
}

static int protection(uint32_t flags)
{
    return (flags & VFIO_DMA_MAP_FLAG_READ ? PROT_READ : 0) | (flags & VFIO_DMA_MAP_FLAG_WRITE ? PROT_WRITE : 0);
}

/* Against what was negotiated: the smallest page size of both sides is what maps are made of. */
static int check_map(const struct ob_dev *dev, const struct ob_wire_dma_map *map, bool has_file)
{
    const struct ob_capabilities *peer = &dev->session.journal.header->peer;
    uint64_t pages = ob_session_pages(peer), within = (pages & -pages) - 1;

    if ((map->address | map->size | (has_file ? map->offset : 0)) & within)
        return -EINVAL;
    return ob_memory_maps(dev->memory) < ob_session_max_maps(peer) ? 0 : -ENOSPC;
}

int ob_maps_map(struct ob_dev *dev, const struct ob_message *m, int *fds, unsigned nfds)
{
    const struct ob_wire_dma_map *map = &m->u.dma_map;
    int fd = nfds > 0 ? fds[0] : -1;
    uint64_t key = ob_holder_key(&dev->session.holder, fd);
    int err = check_map(dev, map, fd >= 0);

    if (err)
        return err;
    err = ob_memory_map(dev->memory, map->address, map->size, protection(map->flags), fd, map->offset);
    if (err)
        return err;
    if (fd >= 0) {
        fds[0] = -1;
        ob_holder_detach(&dev->session.holder, fd);
    }
    if (held(dev))
        note_map(dev, (uint32_t)ob_memory_slot(dev->memory, map->address),
                 &(struct map_entry){ .from = request_end(dev),
                                      .to = UINT64_MAX,
                                      .iova = map->address,
                                      .size = map->size,
                                      .offset = map->offset,
                                      .key = key,
                                      .prot = (uint64_t)protection(map->flags) });
    struct ob_message reply = { 0 };
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* --- Unmap ------------------------------------------------------------------------------------------------------- */

/* Workers find the memory no more. *slot is for note_away(). */
static int take_away(struct ob_dev *dev, const struct ob_wire_dma_unmap *u, int *slot)
{
    *slot = -1;
    if (u->flags & VFIO_DMA_UNMAP_FLAG_ALL) {
        if (u->address != 0 || u->size != 0)
            return -EINVAL; /* as <linux/vfio.h> has it */
        (void)ob_memory_unmap_all(dev->memory, &dev->retired);
        return 0;
    }
    if (held(dev))
        *slot = ob_memory_slot(dev->memory, u->address);
    return ob_memory_unmap(dev->memory, u->address, u->size, &dev->retired);
}

/* In the table, what was taken away ends at position `to`. */
static void note_away(struct ob_dev *dev, const struct ob_wire_dma_unmap *u, int slot, uint64_t to)
{
    if (slot >= 0)
        note_unmap(dev, (uint32_t)slot, to);
    if (!(u->flags & VFIO_DMA_UNMAP_FLAG_ALL))
        return;
    for (uint32_t i = 0; held(dev) && i < OB_SESSION_MAX_DMA_MAPS; i++)
        if (dev->map_entry[i])
            note_unmap(dev, i, to);
}

/* Lets go of what no worker uses any more. True when nothing is left. */
static bool retire(struct ob_dev *dev)
{
    ob_reader_quiescent(&dev->control.reader);
    if (!ob_memory_retired_done(dev->retired))
        return false;
    ob_memory_retire(dev->retired);
    dev->retired = NULL;
    return true;
}

int ob_maps_unmap_go_on(struct ob_dev *dev)
{
    if (!retire(dev))
        return ob_req_keep(dev->req, OB_WAIT_RETIRED);
    struct ob_message reply = { .u.dma_unmap = dev->req->unmap };
    reply.u.dma_unmap.argsz = sizeof(reply.u.dma_unmap);
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

int ob_maps_unmap(struct ob_dev *dev, const struct ob_message *m)
{
    struct ob_req *req = dev->req;
    bool all = m->u.dma_unmap.flags & VFIO_DMA_UNMAP_FLAG_ALL;

    /* An earlier unmap that was refused by its deadline still drains. */
    if (dev->retired && !retire(dev))
        return -EBUSY;
    req->kind = OB_REQ_UNMAP;
    req->unmap = m->u.dma_unmap;
    int slot, err = take_away(dev, &req->unmap, &slot);
    if (err)
        return err;
    if (dev->cls.ops.unmap) {
        dev->vault.dirty[OB_PART_STATE] = true;
        err = dev->cls.ops.unmap(req, all ? 0 : req->unmap.address, all ? UINT64_MAX : req->unmap.size);
        if (err == OB_LATER && !req->answered) {
            note_away(dev, &req->unmap, slot, request_end(dev));
            return ob_req_keep(req, OB_WAIT_HANDLER);
        }
        if (err == OB_LATER)
            err = req->err;
        req->answered = false;
        if (err < 0)
            ob_log(dev, "the device refused to let go of guest memory (%s): ignored", strerror(-err));
        /* What it changed holds even if the request has to wait for workers; a successor asks it again. Before the
         * table is changed: what note_away() drops has to stay with the holder until the request is executed. */
        ob_dev_commit(dev);
    }
    note_away(dev, &req->unmap, slot, request_end(dev));
    return ob_maps_unmap_go_on(dev);
}

bool ob_maps_drop_all(struct ob_dev *dev)
{
    if (dev->retired && !retire(dev))
        return false;
    if (ob_memory_maps(dev->memory) > 0) {
        struct ob_wire_dma_unmap all = { .flags = VFIO_DMA_UNMAP_FLAG_ALL };
        int slot;
        (void)take_away(dev, &all, &slot);
        note_away(dev, &all, slot, dev->session.position.executed);
        if (!retire(dev))
            return false;
    }
    ob_memory_trim(dev->memory);
    return true;
}
