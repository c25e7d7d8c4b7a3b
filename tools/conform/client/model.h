/* model.h: the device that clients are judged with: a PCI device that has one of everything, whose registers are
 * memory. It answers every command as the clauses want it of a server, and takes more than a server has to: what a
 * client sends is for the rules to judge, and its session goes on.
 *
 *   region 0   4 KiB of registers: MODEL_ID at 0, the MSI-X table at 0x800, pending bits at 0xc00, else memory
 *   region 1   32 ports
 *   region 2   64 KiB of memory, of which two areas can be mapped
 *   region 4   16 KiB of memory that can be mapped as a whole
 *   region 7   configuration space: power management, MSI, MSI-X, Express, a serial number
 *   region 9   4 KiB of memory, of a type of its own
 *
 * What it is and offers lies in struct model, for checks to change before the client connects. */
#ifndef CONFORM_MODEL_H
#define CONFORM_MODEL_H

#include "../raw/client.h"

#define MODEL_VENDOR  0x1234
#define MODEL_DEVICE  0xc11e
#define MODEL_ID      0x6d6f6465u
#define MODEL_REGIONS 10
#define MODEL_IRQS    5
#define MODEL_VECTORS 8
#define MODEL_AREAS   4
#define MODEL_IO_FDS  3
#define MODEL_STREAM  5000 /* bytes of its state when it is migrated */

/* What younger headers call VFIO_MIGRATION_PRE_COPY and VFIO_DEVICE_STATE_PRE_COPY. */
#define MODEL_PRE_COPY       (UINT64_C(1) << 2)
#define MODEL_STATE_PRE_COPY 6u

struct model_region {
    uint32_t flags;    /* VFIO_REGION_INFO_FLAG_*, but for CAPS */
    uint64_t size;     /* 0: there is none */
    uint64_t offset;   /* in the file, if it can be mapped */
    int fd;            /* its memory, -1: in `memory` */
    uint8_t *memory;   /* of regions that cannot be mapped */
    unsigned areas;    /* that can be mapped; 0: the whole region, if any */
    uint32_t nr_areas; /* what it says of their number */
    struct {
        uint64_t offset, size;
    } area[MODEL_AREAS];
    bool typed;       /* has a capability of type and subtype */
    uint32_t unknown; /* bytes of a capability with an unknown id, 0: none */
};

struct model_map {
    uint64_t address, size, offset;
    uint32_t flags; /* VFIO_DMA_MAP_FLAG_* */
    int fd;         /* -1: came without */
};

struct model_io {
    uint64_t offset, size;
    uint32_t fd_index, type, flags;
    uint64_t data;
};

struct model {
    /* What it says of itself. */
    uint32_t max_msg_fds, max_data, max_maps;
    uint64_t pgsizes;
    bool multi, twin;
    const char *version_text; /* instead of one that says all this; "": none */
    bool can_reset, can_log;
    uint64_t migration; /* VFIO_MIGRATION_*; 0: cannot migrate */
    uint32_t regions, irqs;
    struct model_region region[MODEL_REGIONS];
    struct vfio_irq_info irq[MODEL_IRQS];
    unsigned ios; /* what GET_REGION_IO_FDS gives of region 0 */
    struct model_io io[MODEL_IO_FDS];
    uint32_t io_stride;
    /* What the client has said and done. */
    bool negotiated, client_multi, client_twin;
    uint64_t client_fds, client_data;
    struct model_map *maps;
    size_t n_maps, maps_room;
    int vector[MODEL_IRQS][MODEL_VECTORS]; /* eventfds, or -1 */
    int io_fd[MODEL_IO_FDS];               /* eventfds of ours */
    uint32_t state;                        /* of migration */
    size_t streamed;                       /* bytes of the stream that went out or came in */
    bool stream_wrong, logging;
    uint8_t config[4096], config_mask[4096]; /* the mask of bits that can be written */
    int twin_fd;                             /* our end, until the trial takes it; -1 */
};

#define MODEL_REPLY_FDS 4
struct reply {
    bool none; /* the command was posted */
    struct ob_raw_header header;
    uint8_t *payload; /* of `room` bytes */
    size_t size, room;
    int fds[MODEL_REPLY_FDS];
    unsigned nfds, owned; /* owned: a bit for each that is closed with the reply */
};

/* 0, or -errno: it has not the memory or descriptors. */
int model_init(struct model *model);
void model_free(struct model *model);
/* Executes a command and makes its reply; takes the descriptors that it keeps out of the message. */
void model_execute(struct model *model, struct ob_raw_message *m, struct reply *reply);
/* The map that holds all of a range; NULL: none does. */
const struct model_map *model_map_of(const struct model *model, uint64_t address, uint64_t size);
bool model_bus_master(const struct model *model);

/* Makes the payload longer or shorter; new bytes are 0. */
void reply_resize(struct reply *reply, size_t size);
void reply_put(struct reply *reply, size_t offset, const void *bytes, size_t size);
void reply_put32(struct reply *reply, size_t offset, uint32_t value);
uint32_t reply_get32(const struct reply *reply, size_t offset);
/* Adds a descriptor; `own`: which is closed with the reply. */
void reply_add_fd(struct reply *reply, int fd, bool own);
void reply_drop_fds(struct reply *reply);
/* Turns it into a refusal. */
void reply_refuse(struct reply *reply, uint32_t error);
void reply_free(struct reply *reply);

/* --- The parts, for each other ------------------------------------------------------------------------------------ */

/* A command: 0 or an errno. */
typedef int model_fn(struct model *model, struct ob_raw_message *m, struct reply *reply);
model_fn model_region_info, model_io_fds, model_read, model_write, model_write_multi;
model_fn model_irq_info, model_set_irqs;
model_fn model_feature, model_data_read, model_data_write;

void model_init_config(struct model *model);
/* Copies the structure at the start of a payload; 0 or EINVAL. */
int model_take(const struct ob_raw_message *m, void *to, size_t size);
void model_take_fd(struct ob_raw_message *m, unsigned i, int *to);

#endif
