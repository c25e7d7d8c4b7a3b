/* The table of vfio-user commands: what code, printing, the fuzz dictionary and dissectors are made from. */
#ifndef OB_PROTOCOL_TABLE_H
#define OB_PROTOCOL_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* One row a command:
 *   X(name, number, sender of the request,
 *     fixed part of the request, its tail, most descriptors with it,
 *     fixed part of the reply,   its tail, most descriptors with it,
 *     No_reply allowed, bytes behind the request are tolerated)
 * A fixed part names `struct ob_wire_<part>` and the member of union ob_payload, but for region_info and irq_info,
 * which are <linux/vfio.h>'s. A tail is one of enum ob_tail. Descriptors: a number, or OB_FDS_LIMIT for the negotiated
 * number. Excess bytes: requests that start with argsz describe structures that grow, and peers send more than the
 * specification's: SPDK's GET_REGION_INFO has 4080 bytes, rust-vmm's DEVICE_GET_INFO 20. Up to OB_MAX_EXCESS are
 * ignored. DMA_UNMAP takes a descriptor because SPDK sends one; it means nothing and is to be closed. */
#define OB_COMMANDS(X)                                                                          \
    X(VERSION, 1, CLIENT, version, JSON, 0, version, JSON, OB_FDS_LIMIT, 0, 0)                  \
    X(DMA_MAP, 2, CLIENT, dma_map, NONE, 1, none, NONE, 0, 1, 0)                                \
    X(DMA_UNMAP, 3, CLIENT, dma_unmap, NONE, 1, dma_unmap, NONE, 0, 1, 0)                       \
    X(DEVICE_GET_INFO, 4, CLIENT, device_info, NONE, 0, device_info, GROWN, 0, 1, 1)            \
    X(DEVICE_GET_REGION_INFO, 5, CLIENT, region_info, NONE, 0, region_info, CAPS, 1, 1, 1)      \
    X(DEVICE_GET_REGION_IO_FDS, 6, CLIENT, io_fds, NONE, 0, io_fds, IO_FDS, OB_FDS_LIMIT, 1, 1) \
    X(DEVICE_GET_IRQ_INFO, 7, CLIENT, irq_info, NONE, 0, irq_info, GROWN, 0, 1, 1)              \
    X(DEVICE_SET_IRQS, 8, CLIENT, irq_set, IRQS, OB_FDS_LIMIT, none, NONE, 0, 1, 0)             \
    X(REGION_READ, 9, CLIENT, region_access, NONE, 0, region_access, DATA, 0, 1, 0)             \
    X(REGION_WRITE, 10, CLIENT, region_access, DATA, 0, region_access, NONE, 0, 1, 0)           \
    X(DMA_READ, 11, SERVER, dma_access, NONE, 0, dma_access, DATA, 0, 1, 0)                     \
    X(DMA_WRITE, 12, SERVER, dma_access, DATA, 0, dma_access, NONE, 0, 1, 0)                    \
    X(DEVICE_RESET, 13, CLIENT, none, NONE, 0, none, NONE, 0, 1, 0)                             \
    X(REGION_WRITE_MULTI, 15, CLIENT, write_multi, WRITES, 0, write_multi, NONE, 0, 1, 0)       \
    X(DEVICE_FEATURE, 16, CLIENT, feature, FEATURE, 0, feature, FEATURE, 0, 1, 0)               \
    X(MIG_DATA_READ, 17, CLIENT, mig_data, NONE, 0, mig_data, DATA, 0, 1, 0)                    \
    X(MIG_DATA_WRITE, 18, CLIENT, mig_data, DATA, 0, none, NONE, 0, 1, 0)

#define OB_FDS_LIMIT  255
#define OB_MAX_EXCESS 4096u

enum ob_command {
#define X(name, number, ...) OB_##name = number,
    OB_COMMANDS(X)
#undef X
        OB_COMMAND_END
};

/* What follows the fixed part. */
enum ob_tail {
    OB_TAIL_NONE,
    OB_TAIL_JSON,    /* text with its NUL, or nothing */
    OB_TAIL_GROWN,   /* nothing that we know, ignored: a structure of a later version, up to OB_MAX_EXCESS */
    OB_TAIL_CAPS,    /* region capabilities, up to argsz */
    OB_TAIL_IO_FDS,  /* `count` entries of (argsz - 16) / count bytes, or nothing if argsz was too small */
    OB_TAIL_IRQS,    /* VFIO_IRQ_SET_DATA_BOOL: `count` bytes; else nothing */
    OB_TAIL_DATA,    /* bytes, as many as the field that counts says */
    OB_TAIL_WRITES,  /* `wr_cnt` of struct ob_wire_write */
    OB_TAIL_FEATURE, /* by feature */
};

/* How a field is shown. */
enum ob_kind {
    OB_KIND_HEX,
    OB_KIND_DEC,
    OB_KIND_REGION,    /* a region's index: BAR0, ROM, CONFIG */
    OB_KIND_IRQ,       /* an IRQ index: INTX, MSIX */
    OB_KIND_DMA_FLAGS, /* the rest: bits with names */
    OB_KIND_UNMAP_FLAGS,
    OB_KIND_DEVICE_FLAGS,
    OB_KIND_REGION_FLAGS,
    OB_KIND_IRQ_FLAGS,
    OB_KIND_SET_FLAGS,
    OB_KIND_FEATURE_FLAGS,
};

struct ob_wire_field {
    const char *name;
    uint8_t offset; /* from the end of the header */
    uint8_t width;  /* 2, 4 or 8 bytes */
    uint8_t kind;   /* enum ob_kind */
    uint8_t counts; /* nonzero: it is this field that counts the tail */
};

struct ob_part {
    const struct ob_wire_field *fields; /* in order, without gaps */
    uint8_t nfields;
    uint8_t size; /* of the fixed part */
    uint8_t tail; /* enum ob_tail */
    uint8_t max_fds;
};

struct ob_command_info {
    const char *name; /* NULL: no such command */
    uint8_t from;     /* enum ob_direction of the request */
    uint8_t no_reply; /* OB_FLAG_NO_REPLY is allowed */
    uint8_t excess;   /* up to OB_MAX_EXCESS bytes behind a request are tolerated */
    struct ob_part request, reply;
};

/* Indexed by enum ob_command. */
extern const struct ob_command_info ob_commands[OB_COMMAND_END];

struct ob_bit_name {
    uint32_t bit;
    const char *name;
};

/* The names of the bits of a kind, ended by bit 0; NULL for kinds without. */
const struct ob_bit_name *ob_bit_names(enum ob_kind kind);

#endif
