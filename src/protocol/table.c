/* The table of commands: fields with their places and names, tails, descriptors. */
#include "protocol/table.h"

#include "protocol/message.h"
#include "protocol/wire.h"

#define FIELD(type, member, kind, counts)                                                                  \
    {                                                                                                      \
#member, offsetof(struct type, member), sizeof(((struct type *)0)->member), OB_KIND_##kind, counts \
    }

static const struct ob_wire_field none_fields[] = {};
static const struct ob_wire_field version_fields[] = {
    FIELD(ob_wire_version, major, DEC, 0),
    FIELD(ob_wire_version, minor, DEC, 0),
};
static const struct ob_wire_field dma_map_fields[] = {
    FIELD(ob_wire_dma_map, argsz, DEC, 0),  FIELD(ob_wire_dma_map, flags, DMA_FLAGS, 0),
    FIELD(ob_wire_dma_map, offset, HEX, 0), FIELD(ob_wire_dma_map, address, HEX, 0),
    FIELD(ob_wire_dma_map, size, HEX, 0),
};
static const struct ob_wire_field dma_unmap_fields[] = {
    FIELD(ob_wire_dma_unmap, argsz, DEC, 0),
    FIELD(ob_wire_dma_unmap, flags, UNMAP_FLAGS, 0),
    FIELD(ob_wire_dma_unmap, address, HEX, 0),
    FIELD(ob_wire_dma_unmap, size, HEX, 0),
};
static const struct ob_wire_field device_info_fields[] = {
    FIELD(ob_wire_device_info, argsz, DEC, 0),
    FIELD(ob_wire_device_info, flags, DEVICE_FLAGS, 0),
    FIELD(ob_wire_device_info, num_regions, DEC, 0),
    FIELD(ob_wire_device_info, num_irqs, DEC, 0),
};
static const struct ob_wire_field region_info_fields[] = {
    FIELD(vfio_region_info, argsz, DEC, 0),    FIELD(vfio_region_info, flags, REGION_FLAGS, 0),
    FIELD(vfio_region_info, index, REGION, 0), FIELD(vfio_region_info, cap_offset, DEC, 0),
    FIELD(vfio_region_info, size, HEX, 0),     FIELD(vfio_region_info, offset, HEX, 0),
};
static const struct ob_wire_field io_fds_fields[] = {
    FIELD(ob_wire_io_fds, argsz, DEC, 0),
    FIELD(ob_wire_io_fds, flags, HEX, 0),
    FIELD(ob_wire_io_fds, index, REGION, 0),
    FIELD(ob_wire_io_fds, count, DEC, 1),
};
static const struct ob_wire_field irq_info_fields[] = {
    FIELD(vfio_irq_info, argsz, DEC, 0),
    FIELD(vfio_irq_info, flags, IRQ_FLAGS, 0),
    FIELD(vfio_irq_info, index, IRQ, 0),
    FIELD(vfio_irq_info, count, DEC, 0),
};
static const struct ob_wire_field irq_set_fields[] = {
    FIELD(ob_wire_irq_set, argsz, DEC, 0), FIELD(ob_wire_irq_set, flags, SET_FLAGS, 0),
    FIELD(ob_wire_irq_set, index, IRQ, 0), FIELD(ob_wire_irq_set, start, DEC, 0),
    FIELD(ob_wire_irq_set, count, DEC, 1),
};
static const struct ob_wire_field region_access_fields[] = {
    FIELD(ob_wire_region_access, offset, HEX, 0),
    FIELD(ob_wire_region_access, region, REGION, 0),
    FIELD(ob_wire_region_access, count, DEC, 1),
};
static const struct ob_wire_field dma_access_fields[] = {
    FIELD(ob_wire_dma_access, address, HEX, 0),
    FIELD(ob_wire_dma_access, count, DEC, 1),
};
static const struct ob_wire_field write_multi_fields[] = {
    FIELD(ob_wire_write_multi, wr_cnt, DEC, 1),
};
static const struct ob_wire_field feature_fields[] = {
    FIELD(ob_wire_feature, argsz, DEC, 0),
    FIELD(ob_wire_feature, flags, FEATURE_FLAGS, 0),
};
static const struct ob_wire_field mig_data_fields[] = {
    FIELD(ob_wire_mig_data, argsz, DEC, 0),
    FIELD(ob_wire_mig_data, size, DEC, 1),
};

#define PART(part, tail, fds)                                                                                   \
    {                                                                                                           \
        part##_fields, sizeof(part##_fields) / sizeof(part##_fields[0]), sizeof(((union ob_payload *)0)->part), \
            OB_TAIL_##tail, fds                                                                                 \
    }

const struct ob_command_info ob_commands[OB_COMMAND_END] = {
#define X(name, number, from, part, tail, fds, reply_part, reply_tail, reply_fds, no_reply, excess)             \
    [number] = {                                                                                                \
        #name, OB_FROM_##from, no_reply, excess, PART(part, tail, fds), PART(reply_part, reply_tail, reply_fds) \
    },
    OB_COMMANDS(X)
#undef X
};

/* The sizes and offsets that the specification prints. */
#define AT(type, member, at) _Static_assert(offsetof(struct type, member) == (at), #type "." #member)
#define SIZE(type, size)     _Static_assert(sizeof(struct type) == (size), #type)
SIZE(ob_header, OB_HEADER_SIZE);
SIZE(ob_wire_none, 0);
SIZE(ob_wire_version, 4);
SIZE(ob_wire_dma_map, 32);
AT(ob_wire_dma_map, address, 16);
SIZE(ob_wire_dma_unmap, 24);
SIZE(ob_wire_device_info, 16);
AT(vfio_device_info, num_irqs, offsetof(struct ob_wire_device_info, num_irqs));
SIZE(vfio_region_info, 32);
AT(vfio_region_info, offset, 24);
SIZE(ob_wire_io_fds, 16);
SIZE(ob_wire_io_fd, 40);
SIZE(vfio_irq_info, 16);
SIZE(ob_wire_irq_set, 20);
AT(vfio_irq_set, data, sizeof(struct ob_wire_irq_set));
SIZE(ob_wire_region_access, 16);
SIZE(ob_wire_dma_access, 16);
SIZE(ob_wire_write_multi, 8);
SIZE(ob_wire_write, 24);
SIZE(ob_wire_feature, 8);
AT(vfio_device_feature, data, sizeof(struct ob_wire_feature));
SIZE(ob_wire_mig_data, 8);
SIZE(vfio_device_feature_migration, 8);
SIZE(vfio_device_feature_mig_state, 8);
SIZE(ob_wire_dma_logging, 16);
AT(vfio_device_feature_dma_logging_control, ranges, sizeof(struct ob_wire_dma_logging));
SIZE(vfio_device_feature_dma_logging_range, 16);
SIZE(ob_wire_dma_report, 24);
AT(vfio_device_feature_dma_logging_report, bitmap, sizeof(struct ob_wire_dma_report));
_Static_assert(sizeof(union ob_payload) <= OB_MAX_FIXED_SIZE, "OB_MAX_FIXED_SIZE");

static const struct ob_bit_name dma_flags[] = { { VFIO_DMA_MAP_FLAG_READ, "READ" },
                                                { VFIO_DMA_MAP_FLAG_WRITE, "WRITE" },
                                                { 0, NULL } };
static const struct ob_bit_name unmap_flags[] = { { VFIO_DMA_UNMAP_FLAG_ALL, "ALL" }, { 0, NULL } };
static const struct ob_bit_name device_flags[] = { { VFIO_DEVICE_FLAGS_RESET, "RESET" },
                                                   { VFIO_DEVICE_FLAGS_PCI, "PCI" },
                                                   { 0, NULL } };
static const struct ob_bit_name region_flags[] = {
    { VFIO_REGION_INFO_FLAG_READ, "READ" },
    { VFIO_REGION_INFO_FLAG_WRITE, "WRITE" },
    { VFIO_REGION_INFO_FLAG_MMAP, "MMAP" },
    { VFIO_REGION_INFO_FLAG_CAPS, "CAPS" },
    { 0, NULL },
};
static const struct ob_bit_name irq_flags[] = {
    { VFIO_IRQ_INFO_EVENTFD, "EVENTFD" },
    { VFIO_IRQ_INFO_MASKABLE, "MASKABLE" },
    { VFIO_IRQ_INFO_AUTOMASKED, "AUTOMASKED" },
    { VFIO_IRQ_INFO_NORESIZE, "NORESIZE" },
    { 0, NULL },
};
static const struct ob_bit_name set_flags[] = {
    { VFIO_IRQ_SET_DATA_NONE, "NONE" },
    { VFIO_IRQ_SET_DATA_BOOL, "BOOL" },
    { VFIO_IRQ_SET_DATA_EVENTFD, "EVENTFD" },
    { VFIO_IRQ_SET_ACTION_MASK, "MASK" },
    { VFIO_IRQ_SET_ACTION_UNMASK, "UNMASK" },
    { VFIO_IRQ_SET_ACTION_TRIGGER, "TRIGGER" },
    { 0, NULL },
};
static const struct ob_bit_name feature_flags[] = {
    { VFIO_DEVICE_FEATURE_GET, "GET" },
    { VFIO_DEVICE_FEATURE_SET, "SET" },
    { VFIO_DEVICE_FEATURE_PROBE, "PROBE" },
    { 0, NULL },
};

const struct ob_bit_name *ob_bit_names(enum ob_kind kind)
{
    switch (kind) {
    case OB_KIND_DMA_FLAGS:
        return dma_flags;
    case OB_KIND_UNMAP_FLAGS:
        return unmap_flags;
    case OB_KIND_DEVICE_FLAGS:
        return device_flags;
    case OB_KIND_REGION_FLAGS:
        return region_flags;
    case OB_KIND_IRQ_FLAGS:
        return irq_flags;
    case OB_KIND_SET_FLAGS:
        return set_flags;
    case OB_KIND_FEATURE_FLAGS:
        return feature_flags;
    case OB_KIND_HEX:
    case OB_KIND_DEC:
    case OB_KIND_REGION:
    case OB_KIND_IRQ:
        break;
    }
    return NULL;
}

const char *ob_command_name(uint16_t command)
{
    return command < OB_COMMAND_END ? ob_commands[command].name : NULL;
}
