/* What a client asks about the device: regions, interrupts, capabilities of regions. */
#include <errno.h>
#include <string.h>

#include "device/dev.h"

int ob_info_device(struct ob_dev *dev, const struct ob_message *m)
{
    (void)m;
    struct ob_message reply = {
        .u.device_info = {
            .argsz = sizeof(struct ob_wire_device_info),
            .flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
            .num_regions = VFIO_PCI_NUM_REGIONS,
            .num_irqs = VFIO_PCI_NUM_IRQS,
        },
    };
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* The sparse mmap capability of a BAR of which only parts are memory. Returns its size. */
static size_t sparse_capability(struct ob_dev *dev, unsigned bar, uint8_t *out)
{
    const struct ob_bar_state *state = &dev->bars[bar];
    struct vfio_region_info_cap_sparse_mmap cap = {
        .header = { .id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1 },
        .nr_areas = state->n_maps,
    };

    memcpy(out, &cap, sizeof(cap));
    out += sizeof(cap);
    for (unsigned i = 0; i < state->n_areas; i++) {
        const struct ob_area *a = &dev->cls.bars[bar].areas[i];
        if (!(a->flags & OB_AREA_MMAP))
            continue;
        struct vfio_region_sparse_mmap_area area = { .offset = a->off, .size = a->size };
        memcpy(out, &area, sizeof(area));
        out += sizeof(area);
    }
    return sizeof(cap) + state->n_maps * sizeof(struct vfio_region_sparse_mmap_area);
}

int ob_info_region(struct ob_dev *dev, const struct ob_message *m)
{
    const struct vfio_region_info *asked = &m->u.region_info;
    struct ob_message reply = { .u.region_info = { .argsz = sizeof(*asked), .index = asked->index } };
    struct vfio_region_info *info = &reply.u.region_info;
    uint8_t caps[sizeof(struct vfio_region_info_cap_sparse_mmap) +
                 OB_MAX_MAPPED_AREAS * sizeof(struct vfio_region_sparse_mmap_area)];
    size_t caps_size = 0;

    if (asked->index >= VFIO_PCI_NUM_REGIONS)
        return -EINVAL;
    if (asked->index == VFIO_PCI_CONFIG_REGION_INDEX) {
        info->size = dev->layout->size;
        info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    } else if (asked->index <= VFIO_PCI_BAR5_REGION_INDEX && dev->cls.bars[asked->index].size > 0) {
        const struct ob_bar_state *state = &dev->bars[asked->index];
        info->size = dev->cls.bars[asked->index].size;
        info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        if (state->n_maps > 0) {
            info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
            info->offset = state->file_off;
            if (!state->whole)
                caps_size = sparse_capability(dev, asked->index, caps);
        }
    }
    info->argsz = sizeof(*info) + caps_size;
    if (asked->argsz >= info->argsz) {
        /* Capabilities and the descriptor come with the whole answer only: a client asks again when argsz was too
         * small. CAPS says that they are "in the reply" (VFIO_USER_DEVICE_GET_REGION_INFO); QEMU gives a device up that
         * says so without a cap_offset. */
        if (caps_size > 0) {
            info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
            info->cap_offset = sizeof(*info);
            reply.tail = caps;
            reply.tail_size = caps_size;
        }
        reply.nfds = info->flags & VFIO_REGION_INFO_FLAG_MMAP ? 1 : 0;
    }
    ob_session_reply(&dev->session, &reply, (int)asked->index);
    return OB_DONE;
}

int ob_info_irq(struct ob_dev *dev, const struct ob_message *m)
{
    struct ob_message reply = { .u.irq_info = { .argsz = sizeof(struct vfio_irq_info), .index = m->u.irq_info.index } };
    int err = ob_irqs_info(dev->irqs, &reply.u.irq_info);

    if (err)
        return err;
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* No class declares ioeventfds: the array of sub-regions is empty. */
int ob_info_io_fds(struct ob_dev *dev, const struct ob_message *m)
{
    if (m->u.io_fds.index >= VFIO_PCI_NUM_REGIONS || m->u.io_fds.flags != 0)
        return -EINVAL;
    struct ob_message reply = { .u.io_fds = { .argsz = sizeof(struct ob_wire_io_fds), .index = m->u.io_fds.index } };
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}
