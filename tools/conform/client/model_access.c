/* model_access.c: the regions of the model device: what they are, and reading and writing them. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

#define UNKNOWN_CAPABILITY 0x7e57

/* --- What they are ----------------------------------------------------------------------------------------------- */

/* Adds a capability to the list of a region's information. */
static void add_capability(struct reply *reply, uint16_t id, const void *data, size_t size)
{
    const struct vfio_info_cap_header cap = { .id = id, .version = 1 };
    size_t at = (reply->size + 7) & ~(size_t)7;
    size_t last = reply_get32(reply, 12);

    if (last == 0) {
        reply_put32(reply, 12, (uint32_t)at);
        reply_put32(reply, 4, reply_get32(reply, 4) | VFIO_REGION_INFO_FLAG_CAPS);
    } else {
        while (reply_get32(reply, last + 4) != 0)
            last = reply_get32(reply, last + 4);
        reply_put32(reply, last + 4, (uint32_t)at);
    }
    reply_put(reply, at, &cap, sizeof(cap));
    reply_put(reply, at + sizeof(cap), data, size);
}

static void add_sparse(struct reply *reply, const struct model_region *r)
{
    struct {
        uint32_t nr_areas, reserved;
        uint64_t area[2 * MODEL_AREAS];
    } data = { .nr_areas = r->nr_areas };

    for (unsigned i = 0; i < r->areas; i++) {
        data.area[2 * i] = r->area[i].offset;
        data.area[2 * i + 1] = r->area[i].size;
    }
    add_capability(reply, VFIO_REGION_INFO_CAP_SPARSE_MMAP, &data, 8 + 16 * r->areas);
}

int model_region_info(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    static const uint8_t zeros[8192];
    const uint32_t type[2] = { VFIO_REGION_TYPE_PCI_VENDOR_TYPE | MODEL_VENDOR, 1 };
    const struct model_region *r;
    struct vfio_region_info info = { .argsz = sizeof(info) };
    struct vfio_region_info ask;

    if (model_take(m, &ask, sizeof(ask)) != 0 || ask.index >= model->regions || ask.index >= MODEL_REGIONS)
        return EINVAL;
    r = &model->region[ask.index];
    info.flags = r->flags;
    info.index = ask.index;
    info.size = r->size;
    info.offset = r->offset;
    reply_put(reply, 0, &info, sizeof(info));
    if (r->unknown > 0)
        add_capability(reply, UNKNOWN_CAPABILITY, zeros, r->unknown);
    if (r->areas > 0)
        add_sparse(reply, r);
    if (r->typed)
        add_capability(reply, VFIO_REGION_INFO_CAP_TYPE, type, sizeof(type));
    info.argsz = (uint32_t)reply->size;
    reply_put32(reply, 0, info.argsz);
    if (info.argsz > ask.argsz) { /* VU-REG-3, VU-REG-4 */
        reply_resize(reply, sizeof(info));
        reply_put(reply, 0, &info, sizeof(info));
    } else if (r->flags & VFIO_REGION_INFO_FLAG_MMAP) {
        reply_add_fd(reply, r->fd, false);
    }
    return 0;
}

int model_io_fds(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct ob_raw_io_fds ask, head;

    if (model_take(m, &ask, sizeof(ask)) != 0 || ask.index >= model->regions)
        return EINVAL;
    head = (struct ob_raw_io_fds){ .argsz = sizeof(head), .index = ask.index };
    if (ask.index == 0) {
        head.count = model->ios;
        head.argsz += model->ios * model->io_stride;
    }
    reply_put(reply, 0, &head, sizeof(head));
    if (head.argsz > ask.argsz) { /* VU-IOFD-7 */
        reply_put32(reply, 12, 0);
        return 0;
    }
    for (unsigned i = 0; i < head.count; i++) {
        const struct model_io *io = &model->io[i];
        size_t at = sizeof(head) + i * model->io_stride;

        reply_resize(reply, at + model->io_stride);
        reply_put(reply, at, &io->offset, 8);
        reply_put(reply, at + 8, &io->size, 8);
        reply_put32(reply, at + 16, io->fd_index);
        reply_put32(reply, at + 20, io->type);
        reply_put32(reply, at + 24, io->flags);
        reply_put(reply, at + model->io_stride - 8, &io->data, 8);
    }
    for (unsigned i = 0; i < MODEL_IO_FDS && head.count > 0; i++)
        reply_add_fd(reply, model->io_fd[i], false);
    return 0;
}

/* --- Access ------------------------------------------------------------------------------------------------------ */

static const struct model_region *region_of(const struct model *model, uint32_t index, uint64_t offset, uint64_t count)
{
    const struct model_region *r = index < model->regions && index < MODEL_REGIONS ? &model->region[index] : NULL;

    if (r == NULL || r->size == 0 || offset > r->size || count > r->size - offset)
        return NULL;
    return r;
}

static void read_bytes(const struct model *model, const struct model_region *r, uint64_t offset, void *to, size_t count)
{
    if (r->fd >= 0 && pread(r->fd, to, count, (off_t)(r->offset + offset)) == (ssize_t)count)
        return;
    if (r->memory != NULL)
        memcpy(to, r->memory + offset, count);
    else if (r == &model->region[VFIO_PCI_CONFIG_REGION_INDEX])
        memcpy(to, model->config + offset, count);
}

int model_read(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    const struct model_region *r;
    struct ob_raw_region ask;

    if (model_take(m, &ask, sizeof(ask)) != 0)
        return EINVAL;
    r = region_of(model, ask.region, ask.offset, ask.count);
    if (r == NULL)
        return EINVAL;
    reply_put(reply, 0, &ask, sizeof(ask));
    reply_resize(reply, sizeof(ask) + ask.count);
    read_bytes(model, r, ask.offset, reply->payload + sizeof(ask), ask.count);
    return 0;
}

static void write_config(struct model *model, uint64_t offset, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t mask = model->config_mask[offset + i];

        model->config[offset + i] = (uint8_t)((model->config[offset + i] & ~mask) | (bytes[i] & mask));
    }
}

static int write_bytes(struct model *model, uint32_t index, uint64_t offset, const uint8_t *bytes, size_t count)
{
    const struct model_region *r = region_of(model, index, offset, count);
    const uint32_t id = MODEL_ID;

    if (r == NULL)
        return EINVAL;
    if (index == VFIO_PCI_CONFIG_REGION_INDEX)
        write_config(model, offset, bytes, count);
    else if (r->memory != NULL)
        memcpy(r->memory + offset, bytes, count);
    else if (pwrite(r->fd, bytes, count, (off_t)(r->offset + offset)) != (ssize_t)count)
        return EIO;
    memcpy(model->region[0].memory, &id, sizeof(id));
    return 0;
}

int model_write(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct ob_raw_region ask;

    if (model_take(m, &ask, sizeof(ask)) != 0 || m->size - sizeof(ask) < ask.count)
        return EINVAL;
    reply_put(reply, 0, &ask, sizeof(ask));
    return write_bytes(model, ask.region, ask.offset, m->payload + sizeof(ask), ask.count);
}

int model_write_multi(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct ob_raw_one_write one;
    uint64_t count, done;

    if (model_take(m, &count, sizeof(count)) != 0 || count > (m->size - sizeof(count)) / sizeof(one))
        return EINVAL;
    for (done = 0; done < count; done++) {
        memcpy(&one, m->payload + sizeof(count) + done * sizeof(one), sizeof(one));
        if (one.count > sizeof(one.data) || write_bytes(model, one.region, one.offset, one.data, one.count) != 0)
            break;
    }
    reply_put(reply, 0, &done, sizeof(done));
    return 0;
}
