/* DMA maps as the client gave them out, and the server's commands to read and write what they cover. */
#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "transport/sender.h"

/* --- The table --------------------------------------------------------------------------------------------------- */

/* The first map that ends above iova; nmaps if none. */
static size_t map_at(const struct ob_client *client, uint64_t iova)
{
    size_t low = 0, high = client->nmaps;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (client->maps[middle].iova + client->maps[middle].size > iova)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* 0, -EEXIST, -ENOMEM. */
static int insert_map(struct ob_client *client, const struct ob_map *map)
{
    size_t i = map_at(client, map->iova);

    if (i < client->nmaps && client->maps[i].iova < map->iova + map->size)
        return -EEXIST;
    if (client->nmaps == client->maps_room) {
        size_t room = client->maps_room ? 2 * client->maps_room : 16;
        struct ob_map *maps = realloc(client->maps, room * sizeof(*maps));

        if (!maps)
            return -ENOMEM;
        client->maps = maps;
        client->maps_room = room;
    }
    memmove(&client->maps[i + 1], &client->maps[i], (client->nmaps - i) * sizeof(*map));
    client->maps[i] = *map;
    client->nmaps++;
    return 0;
}

static void remove_map(struct ob_client *client, size_t i)
{
    client->nmaps--;
    memmove(&client->maps[i], &client->maps[i + 1], (client->nmaps - i) * sizeof(*client->maps));
}

/* The map that a DMA_MAP made, if it is still there. */
static void forget_map(struct ob_client *client, uint64_t iova, uint64_t serial)
{
    size_t i = map_at(client, iova);

    if (i < client->nmaps && client->maps[i].serial == serial)
        remove_map(client, i);
}

/* --- Mapping ----------------------------------------------------------------------------------------------------- */

/* `len` is the map's serial number. */
static ssize_t take_map(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                        int *fds)
{
    if (err)
        forget_map(client, slot->request.u.dma_map.address, slot->len);
    return err;
}

static int check_map(const struct ob_client *client, uint64_t iova, uint64_t size, int prot, uint64_t offset)
{
    uint64_t page = client->info.pgsizes & -client->info.pgsizes;

    if (size == 0 || (iova | size) % page != 0 || size > UINT64_MAX - iova || size > UINT64_MAX - offset)
        return -EINVAL;
    return prot == 0 || (prot & ~(PROT_READ | PROT_WRITE)) ? -EINVAL : 0;
}

int ob_client_dma_map(struct ob_client *client, uint64_t iova, uint64_t size, int prot, int fd, uint64_t offset,
                      struct ob_call *call)
{
    struct ob_message message = { .header.command = OB_DMA_MAP,
                                  .u.dma_map = { .argsz = sizeof(struct ob_wire_dma_map),
                                                 .offset = fd >= 0 ? offset : 0,
                                                 .address = iova,
                                                 .size = size },
                                  .nfds = fd >= 0 };
    struct ob_message_plan plan = { .take = take_map, .fds = &fd, .always = true };
    struct ob_map map = { .iova = iova, .size = size, .prot = prot };
    struct ob_submit submit;
    int err = check_map(client, iova, size, prot, fd >= 0 ? offset : 0);

    if (err)
        return err;
    if (fd >= 0 && client->info.max_msg_fds == 0)
        return -EOPNOTSUPP;
    message.u.dma_map.flags =
        (prot & PROT_READ ? VFIO_DMA_MAP_FLAG_READ : 0) | (prot & PROT_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0);
    err = ob_submit_begin(&submit, client, call);
    if (err)
        return err;
    map.serial = plan.len = ++client->map_serial;
    err = client->nmaps >= client->info.max_dma_maps ? -ENOSPC : insert_map(client, &map);
    if (!err) {
        err = ob_submit_message(&submit, &message, &plan);
        if (err)
            forget_map(client, iova, map.serial);
    }
    return (int)ob_submit_end(&submit, err);
}

/* --- Unmapping --------------------------------------------------------------------------------------------------- */

/* The map is out of the table while its DMA_UNMAP is under way, so that the range can be mapped again behind it; its
 * slot keeps it: `len` is the protection, `buf` stands for the owner who has not given up. */
static struct ob_map slot_map(const struct ob_slot *slot)
{
    const struct ob_wire_dma_unmap *unmap = &slot->request.u.dma_unmap;

    return (struct ob_map){ .iova = unmap->address, .size = unmap->size, .prot = (int)slot->len, .dead = !slot->call };
}

static ssize_t take_unmap(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                          int *fds)
{
    struct ob_map map = slot_map(slot);

    client->unmapping--;
    if (err && !client->dead) {
        /* The server still has it, unless another one has been made there. */
        map.serial = ++client->map_serial;
        if (insert_map(client, &map) == -ENOMEM)
            return -ENOMEM;
    }
    return err;
}

/* Sends the DMA_UNMAP of maps[i]. */
static int unmap(struct ob_submit *submit, size_t i)
{
    struct ob_client *client = submit->client;
    struct ob_map map = client->maps[i];
    struct ob_message message = {
        .header.command = OB_DMA_UNMAP,
        .u.dma_unmap = { .argsz = sizeof(struct ob_wire_dma_unmap), .address = map.iova, .size = map.size }
    };
    struct ob_message_plan plan = { .take = take_unmap, .len = (size_t)map.prot, .always = true };
    int err = ob_submit_message(submit, &message, &plan);

    if (!err) {
        client->unmapping++;
        forget_map(client, map.iova, map.serial);
    }
    return err;
}

int ob_client_dma_unmap(struct ob_client *client, uint64_t iova, uint64_t size, struct ob_call *call)
{
    struct ob_submit submit;
    size_t i;
    int err = ob_submit_begin(&submit, client, call);

    if (err)
        return err;
    i = map_at(client, iova);
    if (i == client->nmaps || client->maps[i].iova != iova || client->maps[i].size != size)
        err = -ENOENT;
    else
        err = unmap(&submit, i);
    return (int)ob_submit_end(&submit, err);
}

int ob_client_dma_unmap_all(struct ob_client *client)
{
    struct ob_submit submit;
    uint64_t youngest;
    int err = ob_submit_begin(&submit, client, NULL);

    if (err)
        return err;
    /* Those that there are now. The lock may be let go of meanwhile, and what was refused comes back. */
    youngest = client->map_serial;
    for (size_t i = client->nmaps; i-- > 0 && !err;) {
        if (i < client->nmaps && client->maps[i].serial <= youngest)
            err = unmap(&submit, i);
    }
    return (int)ob_submit_end(&submit, err);
}

/* --- The server's commands --------------------------------------------------------------------------------------- */

/* The map that holds `at`, also if it is being unmapped: until the server has answered, it may use it. */
static bool find_map(const struct ob_client *client, uint64_t at, struct ob_map *map)
{
    size_t i = map_at(client, at);

    if (i < client->nmaps && client->maps[i].iova <= at) {
        *map = client->maps[i];
        return !map->dead;
    }
    for (unsigned s = 0, left = client->unmapping; s < OB_CLIENT_SLOTS && left > 0; s++) {
        if (!client->slots[s].busy || client->slots[s].take != take_unmap)
            continue;
        left--;
        *map = slot_map(&client->slots[s]);
        if (!map->dead && map->iova <= at && at - map->iova < map->size)
            return true;
    }
    return false;
}

static int check_range(const struct ob_client *client, uint64_t iova, uint64_t len, int prot)
{
    struct ob_map map;

    /* That the sum does not wrap has been checked with the message. */
    for (uint64_t at = iova; at < iova + len; at = map.iova + map.size) {
        if (!find_map(client, at, &map))
            return -EFAULT;
        if (!(map.prot & prot))
            return -EACCES;
    }
    return 0;
}

static void send_reply(struct ob_client *client, struct ob_out *out, const void *reply, size_t size)
{
    uint8_t *room;

    if (ob_out_pending(out) > OB_CLIENT_BACKLOG) {
        ob_client_die(client, -EPROTO, "the server sends commands but does not read their replies");
    } else if (size > OB_SEND_BATCH) {
        if (ob_out_send(out, reply, size, NULL, 0, NULL, 0) < 0)
            ob_client_die(client, -ENOMEM, "no memory for a reply of %zu bytes", size);
    } else {
        room = ob_out_reserve(out, size);
        if (!room) {
            ob_client_die(client, -ENOMEM, "no memory for a reply of %zu bytes", size);
            return;
        }
        memcpy(room, reply, size);
        out->end += size;
    }
}

/* Has the program move the bytes; those of a DMA_READ go where its reply is put together. */
static int move_bytes(struct ob_client *client, const struct ob_message *request, uint8_t *buf)
{
    const struct ob_wire_dma_access *access = &request->u.dma_access;
    bool to_device = request->header.command == OB_DMA_READ;
    struct ob_callback_context before;
    int err;

    if (!client->options.dma)
        return -EOPNOTSUPP;
    err = check_range(client, access->address, access->count, to_device ? PROT_READ : PROT_WRITE);
    if (err || access->count == 0)
        return err;
    pthread_mutex_unlock(&client->lock);
    before = ob_callback_enter(client, OB_IN_DMA);
    err = client->options.dma(client->options.dma_ctx, to_device, access->address,
                              to_device ? buf : (uint8_t *)request->tail, (size_t)access->count);
    ob_callback_leave(before);
    pthread_mutex_lock(&client->lock);
    return err > 0 ? -EIO : err;
}

void ob_dma_serve(struct ob_client *client, struct ob_channel *channel, const uint8_t *bytes, size_t size)
{
    const size_t room = ob_max_message(&client->limits);
    struct ob_message message, reply;
    uint8_t *buf = client->dma_buf;
    ssize_t used;
    int err;

    if (!buf) {
        buf = client->dma_buf = malloc(room);
        if (!buf) {
            ob_client_die(client, -ENOMEM, "no memory for the server's commands");
            return;
        }
    }
    err = ob_check_request(&message, bytes, size, OB_FROM_SERVER, &client->limits, 0);
    if (!err)
        err = move_bytes(client, &message, buf + ob_tail_offset(OB_DMA_READ, true));
    client->events++;
    if (client->dead || (message.header.flags & OB_FLAG_NO_REPLY))
        return;
    if (err) {
        used = ob_encode_error(buf, room, &message.header, err);
    } else {
        /* VU-DMA-3: the count of a reply to DMA_WRITE has 8 bytes, too: the reference library wants them. */
        reply = (struct ob_message){ .header = message.header, .u.dma_access = message.u.dma_access };
        if (message.header.command == OB_DMA_READ) {
            reply.tail = buf + ob_tail_offset(OB_DMA_READ, true);
            reply.tail_size = (size_t)message.u.dma_access.count;
        }
        used = ob_encode_reply(buf, room, &reply);
    }
    if (used < 0)
        ob_client_die(client, (int)used, "cannot make a reply to the server's command %u", message.header.command);
    else
        send_reply(client, &channel->out, buf, (size_t)used);
}
