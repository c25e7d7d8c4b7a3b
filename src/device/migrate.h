/* Migration of a device: its states, the stream of its data, the log of what it writes. Private to src/device.
 *
 *   migrate.c  states, and the ways between them      stream.c  the bytes of the stream, both ways
 *   save.c     what is in the head of a stream        load.c    the same from the other side, where it is hostile
 *   feature.c  DEVICE_FEATURE, and with it the log
 *
 * Theory of operation. The state and how far a stream has come are a part of the vault, so they are committed with the
 * replies that tell of them. The stream itself is not made anywhere as a whole. It is
 *
 *   head | memory of BARs, area by area | end mark and checksum
 *
 * and of that only the head is built or collected, in raw memory of the vault: BAR memory is streamed from and to its
 * place. All that is raw is a function of how far the stream has come, so that a successor goes on with it: bytes
 * behind that position are written again by the request that died.
 *
 * The head. All numbers have the byte order of the machine, which the magic number shows; everything begins at a
 * multiple of 8 bytes. Sections follow the header, each with a name and a size:
 *
 *   class   the class's name                          shape   BARs, vectors, timers: the two devices have to agree
 *   config  configuration space                       irqs    conditions, pending messages, the MSI-X table
 *   timers  time that is left                         state   fields by name, with their shapes
 *   shared  the same of shared memory                 memory  which areas' bytes follow the head
 *
 * The first two are the prefix: they are all that is sent in PRE_COPY, so that a destination that does not fit is known
 * before the source stops.
 *
 * A stream is checked section by section as it comes. What it holds is put into the device when RESUMING is left, by
 * the transaction that leaves it, after the class has agreed (ops.loaded); BAR memory, which guests and clients can
 * write anyway, is written as it comes. The device was reset when RESUMING was entered, so a field that an older
 * version did not have holds its reset value. */
#ifndef OB_DEVICE_MIGRATE_H
#define OB_DEVICE_MIGRATE_H

#include "device/dev.h"

/* --- What outlives the process ----------------------------------------------------------------------------------- */

/* A checksum over a stream in pieces of any size. */
struct ob_sum {
    uint64_t lane[4], length;
    uint8_t block[32]; /* what does not fill it yet */
};

/* OB_PART_MIGRATION. */
struct ob_migration {
    uint32_t state;      /* enum vfio_device_mig_state, and OB_DEVICE_STATE_* */
    uint32_t applying;   /* shared memory is being loaded: what it held before is in the area's backup */
    uint64_t stopped_at; /* CLOCK_MONOTONIC ns; what is left of timers counts from here. 0: time goes on */
    uint64_t done;       /* bytes of the stream that were read or written */
    uint64_t head;       /* bytes of its head, 0: not known yet */
    struct ob_sum sum;   /* of what is done, without the end */
    uint32_t log_shift;  /* of the pages of the log; 0: there is none */
    uint32_t log_ranges;
};

/* As many as fit into a page: what <linux/vfio.h> guarantees. */
#define OB_LOG_MAX_RANGES 256

/* What follows the memory of BARs. */
struct ob_stream_end {
    uint64_t magic, sum;
};

/* The raw area. What follows `ranges` is given back when a stream is over. */
struct ob_migration_area {
    struct ob_dirty_range ranges[OB_LOG_MAX_RANGES];
    struct ob_stream_end end;
    uint8_t pad[48];
    uint8_t head[]; /* ob_stream_room() bytes, then the backup of shared memory */
};

static inline struct ob_migration *ob_migration(const struct ob_dev *dev)
{
    return ob_vault_part(&dev->vault, OB_PART_MIGRATION);
}

static inline struct ob_migration_area *ob_migration_area(const struct ob_dev *dev)
{
    return dev->vault.migration;
}

size_t ob_migration_area_size(const struct ob_dev *dev);

/* --- The head's layout ------------------------------------------------------------------------------------------- */

#define OB_STREAM_MAGIC   UINT64_C(0x0a6d61657274534f) /* "OStream\n" */
#define OB_STREAM_END     UINT64_C(0x0a646e456d72744f) /* "OtrmEnd\n" */
#define OB_STREAM_VERSION 1u

struct ob_stream_header {
    uint64_t magic;
    uint32_t version, prefix; /* prefix: bytes of header, class, shape */
    uint64_t head;            /* bytes of the whole head */
};

struct ob_stream_section {
    char name[8];  /* filled up with zeros */
    uint64_t size; /* of what follows, bytes, before it is filled up to 8 */
};

struct ob_stream_shape {
    uint32_t config, vectors, msi, msix; /* bytes; all; of each kind */
    uint32_t intx, timers;
    uint64_t bar_size[6];
    uint32_t bar_flags[6];
};

/* Of state and shared. Fields follow: this, the name with its NUL, the data, each filled up to 8 bytes. */
struct ob_stream_fields {
    uint32_t version, count;
};
struct ob_stream_field {
    uint32_t elem, count, name, pad; /* name: bytes with NUL */
};

struct ob_stream_memory {
    uint64_t bar, off, size; /* bar: or the index of a region */
};

static inline uint64_t ob_stream_align(uint64_t n)
{
    return (n + 7) & ~UINT64_C(7);
}

/* --- migrate.c --------------------------------------------------------------------------------------------------- */

/* The next state on the way from one to another; VFIO_DEVICE_STATE_ERROR: there is no way. Both are below 8. */
unsigned ob_migrate_next(unsigned from, unsigned to);
/* SET of the state, as asked for in req->target, from where it has come to: OB_DONE, OB_LATER or -errno. answer: that
 * of the request if it was kept, else 0. */
int ob_migrate_go_on(struct ob_dev *dev, int answer);
/* The kept request of that is refused. */
void ob_migrate_expired(struct ob_dev *dev);

/* --- stream.c ---------------------------------------------------------------------------------------------------- */

size_t ob_stream_room(const struct ob_dev *dev);     /* for a head, one's own or that of another version */
uint64_t ob_stream_length(const struct ob_dev *dev); /* of the whole stream of this device, bytes */
void ob_stream_begin(struct ob_dev *dev, bool save);
void ob_stream_drop(struct ob_dev *dev);
bool ob_stream_complete(const struct ob_dev *dev); /* all of one to be loaded has come, and its sum is right */
void ob_sum_begin(struct ob_sum *sum);
void ob_sum_add(struct ob_sum *sum, const void *data, size_t len);
uint64_t ob_sum_end(const struct ob_sum *sum);
/* The nth area of BARs and regions that is memory: false when there are no more. */
bool ob_stream_memory(const struct ob_dev *dev, unsigned n, struct ob_stream_memory *area, uint8_t **bytes);

/* --- save.c ------------------------------------------------------------------------------------------------------ */

/* Bytes of this device's head, and of its prefix. */
size_t ob_save_size(const struct ob_dev *dev);
/* Writes the head, or its prefix only. */
void ob_save_head(struct ob_dev *dev, uint8_t *to, bool prefix_only);
struct ob_stream_shape ob_save_shape(const struct ob_dev *dev);

/* --- load.c: each returns 0, or -EINVAL after a line that says what is wrong -------------------------------------- */

int ob_load_header(struct ob_dev *dev, const uint8_t *head, size_t room);
int ob_load_prefix(struct ob_dev *dev, const uint8_t *head);
int ob_load_check(struct ob_dev *dev, const uint8_t *head);
/* Puts a head that was checked into the device. Also what ops.loaded says. */
int ob_load_apply(struct ob_dev *dev, const uint8_t *head);
/* A predecessor died in the middle of that. */
void ob_load_undo(struct ob_dev *dev);

#endif
