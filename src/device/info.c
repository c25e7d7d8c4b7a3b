/* What a client asks about the device: regions, interrupts, capabilities of regions. */
#include <errno.h>
#include <string.h>

#include "device/dev.h"

_Static_assert(OB_REGION_FIRST == VFIO_PCI_NUM_REGIONS, "the first region behind those of PCI");

int ob_info_device(struct ob_dev *dev, const struct ob_message *m)
{
    struct ob_message reply = {
        .u.device_info = {
            .argsz = sizeof(struct ob_wire_device_info),
            .flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
            .num_regions = VFIO_PCI_NUM_REGIONS + dev->n_regions,
            .num_irqs = VFIO_PCI_NUM_IRQS,
        },
    };
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* The capabilities of a region, as they follow struct vfio_region_info. */
struct caps {
    size_t size;
    uint32_t last; /* where the header of the last one lies, from the beginning of the structure; 0: none */
    uint8_t bytes[sizeof(struct vfio_region_info_cap_sparse_mmap) +
                  OB_MAX_MAPPED_AREAS * sizeof(struct vfio_region_sparse_mmap_area) +
                  sizeof(struct vfio_region_info_cap_type)];
};

static void add_bytes(struct caps *caps, const void *bytes, size_t size)
{
    memcpy(caps->bytes + caps->size, bytes, size);
    caps->size += size;
}

/* Begins a capability, whose first `size` bytes are these: the one before it points to it. */
static void add_capability(struct caps *caps, const void *cap, size_t size)
{
    const size_t info = sizeof(struct vfio_region_info);
    uint32_t at = (uint32_t)(info + caps->size);

    if (caps->last)
        memcpy(caps->bytes + caps->last - info + offsetof(struct vfio_info_cap_header, next), &at, sizeof(at));
    caps->last = at;
    add_bytes(caps, cap, size);
}

/* Which parts are memory. */
static void add_sparse(struct caps *caps, const struct ob_space *space)
{
    struct vfio_region_info_cap_sparse_mmap cap = {
        .header = { .id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1 },
        .nr_areas = space->n_maps,
    };

    add_capability(caps, &cap, sizeof(cap));
    for (unsigned i = 0; i < space->n_areas; i++) {
        struct vfio_region_sparse_mmap_area area = { .offset = space->areas[i].off, .size = space->areas[i].size };
        if (space->areas[i].flags & OB_AREA_MMAP)
            add_bytes(caps, &area, sizeof(area));
    }
}

static void add_type(struct caps *caps, const struct ob_region *region)
{
    struct vfio_region_info_cap_type cap = {
        .header = { .id = VFIO_REGION_INFO_CAP_TYPE, .version = 1 },
        .type = region->type,
        .subtype = region->subtype,
    };

    add_capability(caps, &cap, sizeof(cap));
}

static void describe_space(const struct ob_space *space, bool maps, struct vfio_region_info *info, struct caps *caps)
{
    info->size = space->size;
    info->flags = (space->flags & OB_REGION_READABLE ? VFIO_REGION_INFO_FLAG_READ : 0) |
                  (space->flags & OB_REGION_WRITABLE ? VFIO_REGION_INFO_FLAG_WRITE : 0);
    if (space->n_maps == 0 || !maps)
        return;
    info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
    info->offset = space->file_off;
    if (!space->whole)
        add_sparse(caps, space);
}

bool ob_info_is_region(const struct ob_dev *dev, uint32_t index)
{
    return index < VFIO_PCI_NUM_REGIONS + dev->n_regions;
}

int ob_info_region(struct ob_dev *dev, const struct ob_message *m)
{
    const struct vfio_region_info *asked = &m->u.region_info;
    struct ob_message reply = { .u.region_info = { .argsz = sizeof(*asked), .index = asked->index } };
    struct vfio_region_info *info = &reply.u.region_info;
    struct caps caps = { .size = 0 };
    /* A client that takes no descriptors reaches memory by messages (VU-VER-20). */
    bool maps = dev->session.journal.header->peer.max_msg_fds > 0;

    if (!ob_info_is_region(dev, asked->index))
        return -EINVAL;
    const struct ob_space *space = ob_space(dev, asked->index);
    if (space)
        describe_space(space, maps, info, &caps);
    if (asked->index >= VFIO_PCI_NUM_REGIONS)
        add_type(&caps, &dev->cls.regions[asked->index - VFIO_PCI_NUM_REGIONS]);
    if (asked->index == VFIO_PCI_CONFIG_REGION_INDEX) {
        info->size = dev->layout->size;
        info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    }
    info->argsz = sizeof(*info) + caps.size;
    if (asked->argsz >= info->argsz) {
        /* Capabilities and the descriptor come with the whole answer only: a client asks again when argsz was too
         * small. CAPS says that they are "in the reply" (VFIO_USER_DEVICE_GET_REGION_INFO); QEMU gives a device up that
         * says so without a cap_offset. */
        if (caps.size > 0) {
            info->flags |= VFIO_REGION_INFO_FLAG_CAPS;
            info->cap_offset = sizeof(*info);
            reply.tail = caps.bytes;
            reply.tail_size = caps.size;
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
