/* DEVICE_FEATURE, and what is made of it: migration and the log of dirty pages; and descriptors of sub-regions. */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Of <linux/vfio.h>, but younger than the one of Linux 6.1: struct vfio_device_feature_mig_data_size holds a u64. */
#define FEATURE_MIG_DATA_SIZE 9u

/* The most ranges that fit the smallest of largest messages. */
#define MOST_RANGES ((OB_MIN_TAIL_ROOM - sizeof(struct ob_wire_dma_logging)) / sizeof(struct ob_client_range))

static ssize_t take_feature(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                            int *fds)
{
    size_t given;

    if (err)
        return err;
    if (reply->u.feature.argsz > slot->request.u.feature.argsz)
        return -ENOBUFS;
    given = reply->tail_size < slot->len ? reply->tail_size : slot->len;
    if (given > 0)
        memcpy(slot->buf, reply->tail, given);
    return (ssize_t)given;
}

/* The largest tail that goes in one message in either direction. */
static size_t tail_limit(const struct ob_client *client)
{
    uint32_t limit = client->info.max_data_xfer_size;

    return limit > OB_MIN_TAIL_ROOM ? limit : OB_MIN_TAIL_ROOM;
}

int ob_client_feature(struct ob_client *client, uint32_t flags, void *data, size_t len, size_t room,
                      struct ob_call *call)
{
    bool probe = flags & VFIO_DEVICE_FEATURE_PROBE;
    size_t sent = probe ? 0 : len, wanted = sent > room ? sent : room;
    struct ob_message message = { .header.command = OB_DEVICE_FEATURE,
                                  .u.feature = { .flags = flags },
                                  .tail = sent ? data : NULL,
                                  .tail_size = sent };
    struct ob_message_plan plan = { .take = take_feature, .buf = data, .len = room };

    if (sent > tail_limit(client))
        return -EMSGSIZE;
    if (wanted > tail_limit(client))
        wanted = tail_limit(client);
    message.u.feature.argsz = (uint32_t)(sizeof(struct ob_wire_feature) + wanted);
    return (int)ob_submit_one(client, call, &message, &plan);
}

/* A feature whose whole structure is got at once. */
static int get(struct ob_client *client, uint32_t feature, void *data, size_t size)
{
    int got = ob_client_feature(client, VFIO_DEVICE_FEATURE_GET | feature, data, 0, size, NULL);

    if (got < 0)
        return got;
    return (size_t)got == size ? 0 : -EIO;
}

/* --- Migration --------------------------------------------------------------------------------------------------- */

int ob_client_migration_flags(struct ob_client *client, uint64_t *flags)
{
    struct vfio_device_feature_migration migration;
    int err = get(client, VFIO_DEVICE_FEATURE_MIGRATION, &migration, sizeof(migration));

    if (err)
        return err;
    *flags = migration.flags;
    pthread_mutex_lock(&client->lock);
    client->mig_flags = migration.flags;
    pthread_mutex_unlock(&client->lock);
    return 0;
}

int ob_client_migration_state(struct ob_client *client, uint32_t *state)
{
    struct vfio_device_feature_mig_state data;
    int err = get(client, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &data, sizeof(data));

    if (!err)
        *state = data.device_state;
    return err;
}

/* States that the device did not offer are not asked for, nor ERROR (VU-MIG-40). */
static bool may_set(struct ob_client *client, uint32_t state)
{
    uint64_t flags;

    pthread_mutex_lock(&client->lock);
    flags = client->mig_flags;
    pthread_mutex_unlock(&client->lock);
    switch (state) {
    case VFIO_DEVICE_STATE_ERROR:
        return false;
    case VFIO_DEVICE_STATE_RUNNING_P2P:
        return !flags || (flags & VFIO_MIGRATION_P2P);
    case OB_DEVICE_STATE_PRE_COPY:
        return !flags || (flags & OB_MIGRATION_PRE_COPY);
    case OB_DEVICE_STATE_PRE_COPY_P2P:
        return !flags || ((flags & OB_MIGRATION_PRE_COPY) && (flags & VFIO_MIGRATION_P2P));
    default:
        return state <= VFIO_DEVICE_STATE_RESUMING;
    }
}

int ob_client_migration_set_state(struct ob_client *client, uint32_t state, struct ob_call *call)
{
    struct vfio_device_feature_mig_state data = { .device_state = state, .data_fd = -1 };
    uint32_t flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;

    if (!may_set(client, state))
        return -EINVAL;
    /* It fits one message, which is put together before this returns: `data` need not live on. */
    return ob_client_feature(client, flags, &data, sizeof(data), 0, call);
}

int ob_client_migration_size(struct ob_client *client, uint64_t *size)
{
    return get(client, FEATURE_MIG_DATA_SIZE, size, sizeof(*size));
}

static ssize_t take_data(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                         int *fds)
{
    if (err)
        return err;
    if (reply->tail_size > 0)
        memcpy(slot->buf, reply->tail, reply->tail_size);
    return (ssize_t)reply->tail_size;
}

ssize_t ob_client_migration_read(struct ob_client *client, void *buf, size_t len, struct ob_call *call)
{
    uint32_t size = len < client->info.max_data_xfer_size ? (uint32_t)len : client->info.max_data_xfer_size;
    struct ob_message message = { .header.command = OB_MIG_DATA_READ,
                                  .u.mig_data = { (uint32_t)sizeof(struct ob_wire_mig_data) + size, size } };
    struct ob_message_plan plan = { .take = take_data, .buf = buf, .len = size };

    return ob_submit_one(client, call, &message, &plan);
}

int ob_client_migration_write(struct ob_client *client, const void *buf, size_t len, struct ob_call *call)
{
    const uint32_t most = client->info.max_data_xfer_size;
    struct ob_message_plan plan = { .take = ob_take_nothing };
    struct ob_submit submit;
    int err = ob_submit_begin(&submit, client, call);

    if (err)
        return err;
    err = ob_submit_room(&submit, len / most + 1);
    for (size_t done = 0; done < len && !err;) {
        uint32_t size = len - done < most ? (uint32_t)(len - done) : most;
        struct ob_message message = { .header.command = OB_MIG_DATA_WRITE,
                                      .u.mig_data = { (uint32_t)sizeof(struct ob_wire_mig_data) + size, size },
                                      .tail = (const uint8_t *)buf + done,
                                      .tail_size = size };

        err = ob_submit_message(&submit, &message, &plan);
        done += size;
    }
    return (int)ob_submit_end(&submit, err);
}

/* --- Dirty pages ------------------------------------------------------------------------------------------------- */

int ob_client_dirty_start(struct ob_client *client, uint64_t page_size, const struct ob_client_range *ranges,
                          unsigned n)
{
    struct ob_wire_dma_logging logging = { .page_size = page_size, .num_ranges = n };
    uint8_t data[OB_MIN_TAIL_ROOM];

    _Static_assert(sizeof(*ranges) == sizeof(struct vfio_device_feature_dma_logging_range), "as on the wire");
    if (n > MOST_RANGES)
        return -E2BIG;
    memcpy(data, &logging, sizeof(logging));
    if (n > 0)
        memcpy(data + sizeof(logging), ranges, n * sizeof(*ranges));
    return ob_client_feature(client, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, data,
                             sizeof(logging) + n * sizeof(*ranges), 0, NULL);
}

int ob_client_dirty_stop(struct ob_client *client)
{
    return ob_client_feature(client, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0, 0, NULL);
}

/* buf is where the words go, `len` the number of pages. */
static ssize_t take_report(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                           int *fds)
{
    const size_t fixed = sizeof(struct ob_wire_dma_report), words = (slot->len + 63) / 64;
    uint64_t *bitmap = slot->buf;

    if (err)
        return err;
    if (reply->u.feature.argsz > slot->request.u.feature.argsz)
        return -ENOBUFS;
    if (reply->tail_size != fixed + words * sizeof(*bitmap))
        return -EIO;
    memcpy(bitmap, reply->tail + fixed, words * sizeof(*bitmap));
    /* VU-LOG-22: nothing beyond the range is believed. */
    if (slot->len % 64 != 0)
        bitmap[words - 1] &= (UINT64_C(1) << slot->len % 64) - 1;
    return 0;
}

int ob_client_dirty_report(struct ob_client *client, uint64_t iova, uint64_t length, uint64_t page_size,
                           uint64_t *bitmap)
{
    const size_t fixed = sizeof(struct ob_wire_dma_report);
    const uint64_t most = (tail_limit(client) - fixed) / 8 * 64; /* pages in one message */
    struct ob_submit submit;
    int err;

    if (length == 0 || __builtin_popcountll(page_size) != 1 || (iova | length) % page_size != 0 ||
        length > UINT64_MAX - iova)
        return -EINVAL;
    err = ob_submit_begin(&submit, client, NULL);
    if (err)
        return err;
    for (uint64_t done = 0, pages; done < length / page_size && !err; done += pages) {
        pages = length / page_size - done < most ? length / page_size - done : most;
        struct ob_wire_dma_report report = { iova + done * page_size, pages * page_size, page_size };
        struct ob_message message = {
            .header.command = OB_DEVICE_FEATURE,
            .u.feature = { .argsz = (uint32_t)(sizeof(struct ob_wire_feature) + fixed + (pages + 63) / 64 * 8),
                           .flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT },
            .tail = (const uint8_t *)&report,
            .tail_size = fixed,
        };
        struct ob_message_plan plan = { .take = take_report, .buf = bitmap + done / 64, .len = (size_t)pages };

        err = ob_submit_message(&submit, &message, &plan);
    }
    return (int)ob_submit_end(&submit, err);
}

/* --- Descriptors of sub-regions ---------------------------------------------------------------------------------- */

struct io_fds {
    struct ob_client_io_fd *list;
    unsigned max, count;
    uint64_t region_size;
};

static int take_io_fd(struct io_fds *into, const struct ob_wire_io_fd *entry, const int *fds)
{
    int fd;

    if (entry->offset > into->region_size || entry->size > into->region_size - entry->offset)
        return -EPROTO;
    if (entry->type > OB_IO_FD_IOREGIONFD)
        return 0; /* of a later version */
    if (into->count++ >= into->max)
        return 0;
    fd = fcntl(fds[entry->fd_index], F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        into->count--;
        return -errno;
    }
    into->list[into->count - 1] = (struct ob_client_io_fd){ .offset = entry->offset,
                                                            .size = entry->size,
                                                            .type = entry->type,
                                                            .flags = entry->flags,
                                                            .data = entry->data,
                                                            .fd = fd };
    return 0;
}

static ssize_t take_io_fds(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                           int *fds)
{
    struct io_fds *into = slot->buf;

    if (!err && reply->u.io_fds.argsz > slot->request.u.io_fds.argsz)
        err = -ENOBUFS;
    for (uint32_t i = 0; !err && i < reply->u.io_fds.count; i++) {
        struct ob_wire_io_fd entry = ob_message_io_fd(reply, i);

        err = take_io_fd(into, &entry, fds);
    }
    if (!err)
        return into->count;
    for (unsigned i = 0; i < into->count && i < into->max; i++)
        close(into->list[i].fd);
    return err;
}

int ob_client_io_fds(struct ob_client *client, uint32_t region, struct ob_client_io_fd *list, unsigned max)
{
    struct ob_message message = { .header.command = OB_DEVICE_GET_REGION_IO_FDS,
                                  .u.io_fds = { .argsz = (uint32_t)(sizeof(struct ob_wire_io_fds) + OB_MIN_TAIL_ROOM),
                                                .index = region } };
    struct io_fds into = { .list = list, .max = max };
    struct ob_message_plan plan = { .take = take_io_fds, .buf = &into };
    const struct ob_client_region *info;
    int err = ob_client_region(client, region, &info);

    if (err)
        return err;
    into.region_size = info->size;
    return (int)ob_submit_one(client, NULL, &message, &plan);
}
