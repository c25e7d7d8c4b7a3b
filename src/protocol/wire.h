/* The fixed parts of vfio-user messages, as they lie on the wire in the byte order of the host.
 *
 * Where <linux/vfio.h> has the very structure (struct vfio_region_info, struct vfio_irq_info), that one is used and is
 * not repeated here. Where it has one that grew, holds a pointer, or ends in a flexible array, the part that vfio-user
 * sends is declared here, once; table.c proves each against the offsets that the specification prints. No structure has
 * padding, so each can be copied to and from a message as it is. */
#ifndef OB_PROTOCOL_WIRE_H
#define OB_PROTOCOL_WIRE_H

#include <stdint.h>
#include <linux/vfio.h>

#define OB_HEADER_SIZE 16

/* The header of every message. `size` counts itself. */
struct ob_header {
    uint16_t id;
    uint16_t command; /* enum ob_command, or what a peer made up */
    uint32_t size;    /* of the whole message, bytes */
    uint32_t flags;   /* OB_FLAG_* */
    uint32_t error;   /* of a reply with OB_FLAG_ERROR: a positive errno, or 0 */
};

#define OB_FLAG_TYPE_MASK 0xfu /* 0: a request; OB_FLAG_REPLY: a reply */
#define OB_FLAG_REPLY     0x1u
#define OB_FLAG_NO_REPLY  0x10u
#define OB_FLAG_ERROR     0x20u

struct ob_wire_none {
    /* no fixed part: GNU C makes this 0 bytes */
};

struct ob_wire_version { /* JSON text with its NUL may follow */
    uint16_t major, minor;
};

struct ob_wire_dma_map {
    uint32_t argsz;
    uint32_t flags; /* VFIO_DMA_MAP_FLAG_READ, _WRITE */
    uint64_t offset;
    uint64_t address;
    uint64_t size;
};

struct ob_wire_dma_unmap {
    uint32_t argsz;
    uint32_t flags; /* 0, or VFIO_DMA_UNMAP_FLAG_ALL (QEMU) */
    uint64_t address;
    uint64_t size;
};

/* struct vfio_device_info before it grew capabilities. */
struct ob_wire_device_info {
    uint32_t argsz;
    uint32_t flags; /* VFIO_DEVICE_FLAGS_RESET, _PCI */
    uint32_t num_regions;
    uint32_t num_irqs;
};

struct ob_wire_io_fds { /* in a reply, `count` of struct ob_wire_io_fd follow */
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t count;
};

#define OB_IO_FD_IOEVENTFD  0u
#define OB_IO_FD_IOREGIONFD 1u

struct ob_wire_io_fd {
    uint64_t offset;
    uint64_t size;
    uint32_t fd_index;
    uint32_t type;  /* OB_IO_FD_* */
    uint32_t flags; /* KVM_IOEVENTFD_FLAG_* or KVM_IOREGION_* */
    uint32_t padding;
    uint64_t data; /* datamatch of an ioeventfd, user_data of an ioregionfd */
};

struct ob_wire_irq_set { /* struct vfio_irq_set without its flexible array */
    uint32_t argsz;
    uint32_t flags; /* one VFIO_IRQ_SET_DATA_* and one VFIO_IRQ_SET_ACTION_* */
    uint32_t index;
    uint32_t start;
    uint32_t count;
};

struct ob_wire_region_access {
    uint64_t offset;
    uint32_t region;
    uint32_t count;
};

struct ob_wire_dma_access {
    uint64_t address;
    uint64_t count;
};

struct ob_wire_write_multi { /* wr_cnt of struct ob_wire_write follow in a request */
    uint64_t wr_cnt;
};

struct ob_wire_write {
    uint64_t offset;
    uint32_t region;
    uint32_t count; /* at most 8: the first bytes of data */
    uint8_t data[8];
};

struct ob_wire_feature { /* struct vfio_device_feature without its flexible array */
    uint32_t argsz;
    uint32_t flags; /* index in VFIO_DEVICE_FEATURE_MASK, VFIO_DEVICE_FEATURE_GET, _SET, _PROBE */
};

struct ob_wire_mig_data {
    uint32_t argsz;
    uint32_t size;
};

/* Feature data. VFIO_DEVICE_FEATURE_MIGRATION carries struct vfio_device_feature_migration, and
 * VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE carries struct vfio_device_feature_mig_state. Those of DMA logging hold pointers
 * in <linux/vfio.h>; on the wire the array follows instead. */
struct ob_wire_dma_logging { /* num_ranges of struct vfio_device_feature_dma_logging_range follow */
    uint64_t page_size;
    uint32_t num_ranges;
    uint32_t reserved;
};

struct ob_wire_dma_report { /* in a reply, the bitmap follows, in whole 64-bit words */
    uint64_t iova;
    uint64_t length;
    uint64_t page_size;
};

/* Younger than the <linux/vfio.h> of Linux 6.1, which Debian 12 builds with: the values of enum vfio_device_mig_state
 * and the flag of struct vfio_device_feature_migration. Ours have names of their own because an enumerator cannot be
 * tested for by the preprocessor. */
#define OB_DEVICE_STATE_PRE_COPY     6u
#define OB_DEVICE_STATE_PRE_COPY_P2P 7u
#define OB_MIGRATION_PRE_COPY        (UINT64_C(1) << 2)

#endif
