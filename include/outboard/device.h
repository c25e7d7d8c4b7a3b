/* outboard/device.h: writing a PCI device.
 *
 * A device is one struct ob_device_class: what it is on the bus, its registers, its state, and callbacks. OB_DEVICE()
 * turns it into a program (or into an entry of the `outboard` command). The library speaks vfio-user to the VM monitor.
 *
 * Declare the state, and crash recovery follows: a handler changes fields of `state` in place; when it returns, the
 * change, the reply and the position in the request stream become current together. A process killed in the middle of
 * a handler leaves nothing behind: its successor executes the request again, from the state before it.
 *
 * Threads. Every declaration is marked: [C] control thread only: the thread that runs ob_server_run(); [W] the worker
 * named in the argument, or the control thread for ob_control(); [A] any thread.
 * Errors. int functions return 0 or a count, or a negative errno.
 * Stability. Not stable before version 1.0; class and struct sizes are checked when a class is loaded (OB_ABI).
 */
#ifndef OUTBOARD_DEVICE_H
#define OUTBOARD_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OB_PUBLIC __attribute__((visibility("default")))
#define OB_ABI    1

struct ob_dev;    /* one device of this process */
struct ob_req;    /* a request being executed; opaque; valid until it is answered */
struct ob_worker; /* a thread of the device's that the library loops, or the control loop itself */
struct ob_window; /* a long-lived pointer into guest memory */

/* What a handler returns, besides a negative errno, which fails the request. OB_LATER keeps the request: ob_reply() has
 * to follow, once. What the handler wrote to state before OB_LATER or an error is undone. */
enum { OB_DONE = 0, OB_LATER = 1 };

/* What ob_ops.open finds: new zeroed memory, or that of a process that died. */
enum ob_origin { OB_FRESH, OB_CRASHED };

/* Who asks for a reset: the client (VFIO_USER_DEVICE_RESET), the guest through PCI Express, or by leaving D3hot. */
enum ob_reset { OB_RESET_DEVICE, OB_RESET_FLR, OB_RESET_D3 };

/* --- State ------------------------------------------------------------------------------------------------------- */

/* A named field of a state struct: `count` elements of `elem` bytes (1, 2, 4, 8, or more for raw bytes) at `off`.
 * `since` is the state version that introduced it, from 1 to the state's. No pointers, no descriptors: they mean
 * nothing to a successor. */
struct ob_field {
    const char *name;
    uint32_t off;
    uint32_t elem, count;
    uint32_t since;
};
#define OB_FIELD(type, member)                                                                                      \
    {                                                                                                               \
        .name = #member, .off = offsetof(type, member), .elem = sizeof(((type *)0)->member), .count = 1, .since = 1 \
    }
#define OB_FIELD_ARRAY(type, member)                                                            \
    {                                                                                           \
        .name = #member, .off = offsetof(type, member), .elem = sizeof(((type *)0)->member[0]), \
        .count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), .since = 1       \
    }
#define OB_FIELD_END \
    {                \
        .name = NULL \
    }

/* The layout of a device's memory. Fields may not overlap nor leave `size`, and their names differ; the library hashes
 * them, and a successor with another hash is refused the memory. Migration moves fields by name, from this version or
 * an earlier one: a field that is added gets the next version as `since`; its name and its shape are for ever. What is
 * in no field does not move, and times of ob_now() mean nothing elsewhere. */
struct ob_state {
    uint32_t size, version;
    const struct ob_field *fields; /* ends with OB_FIELD_END */
};
#define OB_STATE(type, version_, fields_)                                \
    {                                                                    \
        .size = sizeof(type), .version = (version_), .fields = (fields_) \
    }

/* --- Registers, areas, BARs -------------------------------------------------------------------------------------- */

/* A register, or `count` of them `stride` bytes apart. Little-endian. Bits outside all masks are read-only.
 *
 * A write merges into the stored value first (rw: replaced, w1c: cleared where 1 is written), then calls .write. A read
 * takes the stored value, calls .read, then clears the bits of `rc`. An access narrower than the register touches its
 * bytes only; a wider one is executed register by register, lowest address first, and those before one that fails have
 * happened. An access smaller than `min_access`, larger than `max_access`, or to bytes that no register owns reads as
 * all ones and writes nothing: it is no error, as on a bus. Accesses above 8 bytes are a client's, no guest's: each
 * register takes its bytes as an access of their own.
 *
 * A hook that returns OB_LATER or an error undoes what the masks did, too: whoever answers a kept request writes to
 * state what the register is to hold. */
struct ob_reg {
    const char *name;
    uint32_t off;                   /* in the area, bytes; below 1 MiB */
    uint32_t state_off;             /* where the values live, one after the other, in one field; only if `stored` */
    bool stored;                    /* false: no value of its own, reads as 0 before .read */
    uint8_t width;                  /* 1, 2, 4 or 8 bytes */
    uint8_t min_access, max_access; /* 1, 2, 4 or 8 bytes; 0: 1 and 8 */
    uint16_t count, stride;         /* 0: one register */
    uint64_t reset, rw, w1c, rc;    /* a bit is in one of rw and w1c */
    /* [C] *val holds the stored value and may be replaced. OB_DONE, OB_LATER (ob_reply gives the value) or -errno. */
    int (*read)(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val);
    /* [C] val: the bits written, at their place in the register; mask: ones for the bytes that were written. */
    int (*write)(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask);
};
#define OB_REG_FIELD_(name_, off_, width_, type, member, ...)                                                         \
    {                                                                                                                 \
        .name = name_, .off = off_, .width = width_, .stored = true, .state_off = offsetof(type, member), __VA_ARGS__ \
    }
#define OB_REG8(name, off, type, member, ...)  OB_REG_FIELD_(name, off, 1, type, member, __VA_ARGS__)
#define OB_REG16(name, off, type, member, ...) OB_REG_FIELD_(name, off, 2, type, member, __VA_ARGS__)
#define OB_REG32(name, off, type, member, ...) OB_REG_FIELD_(name, off, 4, type, member, __VA_ARGS__)
#define OB_REG64(name, off, type, member, ...) OB_REG_FIELD_(name, off, 8, type, member, __VA_ARGS__)
#define OB_REG_END   \
    {                \
        .name = NULL \
    }

/* An access to an area with a callback of its own. `data` stays valid until the request is answered; `off` is relative
 * to the area; off + len lies within it. */
struct ob_access {
    uint64_t off;
    uint32_t len; /* bytes, at least 1 */
    bool write;
    void *data;
};

/* A part of a BAR or region: registers, or a callback, or memory; in the order of their offsets. Bytes of a BAR that no
 * area covers read as all ones. Where the MSI-X table and pending bits lie, they cover the area. */
struct ob_area {
    uint64_t off, size; /* in the BAR, bytes; OB_AREA_MMAP: multiples of 4096 */
    const struct ob_reg *regs;
    /* [C] OB_DONE, OB_LATER or -errno. With OB_LATER, ob_reply's value is the datum of a read of up to 8 bytes. */
    int (*access)(struct ob_req *req, const struct ob_access *access);
    uint32_t flags;
};
#define OB_AREA_RAM  1u /* plain memory, see ob_bar_ram(); survives a crash byte by byte, not in two copies */
#define OB_AREA_MMAP 2u /* with OB_AREA_RAM: the client may map it; at most 64 in a BAR or region, apart from MSI-X */
#define OB_AREA_END \
    {               \
        .size = 0   \
    }

struct ob_bar {
    uint64_t size;               /* bytes, a power of two: at least 4 for I/O, 16 for memory; 0: no BAR */
    uint32_t flags;              /* OB_BAR_* */
    const struct ob_area *areas; /* ends with OB_AREA_END */
};
#define OB_BAR_IO       1u
#define OB_BAR_64       2u /* takes the next slot too */
#define OB_BAR_PREFETCH 4u
/* A 32-bit memory BAR that is one table of registers. */
#define OB_BAR_REGS(size_, regs_) OB_BAR_REGS_FLAGS(size_, 0, regs_)
#define OB_BAR_REGS_FLAGS(size_, flags_, regs_)                               \
    {                                                                         \
        .size = (size_), .flags = (flags_), .areas = (const struct ob_area[]) \
        {                                                                     \
            { .off = 0, .size = (size_), .regs = (regs_) }, OB_AREA_END       \
        }                                                                     \
    }

/* --- Regions beyond PCI's ---------------------------------------------------------------------------------------- */

/* A region of the device's own, which clients that know its type look for: a display's EDID, a log, a side channel. The
 * first of a class has index 9, right behind the regions of PCI. Guests do not see it; it answers in D3, too. */
struct ob_region {
    const char *name;            /* for people */
    uint64_t size;               /* bytes, any number but 0 */
    uint32_t flags;              /* OB_REGION_*: what clients may do; memory that they map needs both */
    uint32_t type, subtype;      /* of VFIO_REGION_INFO_CAP_TYPE, see <linux/vfio.h> */
    const struct ob_area *areas; /* ends with OB_AREA_END; as those of a BAR */
};
#define OB_REGION_READABLE 1u
#define OB_REGION_WRITABLE 2u
#define OB_REGION_FIRST    9u /* the index of a class's first region */
#define OB_REGION_END \
    {                 \
        .size = 0     \
    }

/* --- Doorbells --------------------------------------------------------------------------------------------------- */

/* A place in a BAR or region where a write of `size` bytes (of `value`, if `match`) does nothing but ring an event. The
 * client may have the write ring an eventfd, without a message (GET_REGION_IO_FDS; under KVM without leaving the
 * kernel); when it sends a message instead, the library rings. Any other access there is the area's beneath.
 *
 * An event is an eventfd of the library's, see ob_doorbell_fd(). Several doorbells may ring one. The client has it too:
 * it may ring for nothing. A client takes no more events of a region than it takes descriptors with a message
 * (max_msg_fds); the rest of them ring by message. */
struct ob_doorbell {
    uint32_t region; /* a BAR, or from OB_REGION_FIRST on a region, which is writable */
    uint64_t off;    /* in it, bytes, a multiple of size; not in memory that clients map */
    uint8_t size;    /* 1, 2, 4 or 8 bytes */
    bool match;
    uint64_t value; /* little-endian, as a register's */
    uint16_t event; /* from 0 on, at most 252; no number is left out */
};
#define OB_DOORBELL_END \
    {                   \
        .size = 0       \
    }

/* --- Identity and interrupts ------------------------------------------------------------------------------------- */

struct ob_pci_id {
    uint16_t vendor, device, subsystem_vendor, subsystem_device;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
    uint8_t revision;
    bool power_management; /* adds the PM capability, D0 and D3hot */
    bool express;          /* a PCI Express endpoint with FLR, and 4096 bytes of configuration space */
};

/* Where the MSI-X table and pending bits lie; both in one BAR or in two, 8-byte aligned. */
struct ob_msix_place {
    uint8_t table_bar, pba_bar;
    uint32_t table_off, pba_off;
};

struct ob_irq_caps {
    bool intx;                         /* INTA#, driven by vector 0 */
    uint16_t msi;                      /* vectors: 0, or a power of two up to 32 */
    uint16_t msix;                     /* vectors: 0 to 2048 */
    const struct ob_msix_place *place; /* NULL: the library adds a BAR in the highest free slot */
};

/* A further capability: `size` bytes that follow the two (four, if extended) of its header. */
struct ob_cap {
    uint16_t id; /* PCI_CAP_ID_*, or PCI_EXT_CAP_ID_* */
    bool extended;
    uint8_t version; /* extended ones only */
    uint16_t size;
    const uint8_t *bytes, *write_mask; /* write_mask NULL: read-only */
};
#define OB_CAP_END    \
    {                 \
        .bytes = NULL \
    }

/* --- Options ----------------------------------------------------------------------------------------------------- */

enum ob_option_type { OB_OPTION_STRING, OB_OPTION_BOOL, OB_OPTION_NUMBER, OB_OPTION_SIZE, OB_OPTION_CHOICE };

/* A key=value the operator may give. BOOL: on, off; NUMBER: decimal or 0x; SIZE: with k, M, G (powers of 1024). */
struct ob_option {
    const char *name, *help;
    enum ob_option_type type;
    const char *value;          /* the default as it would be typed; NULL: unset (strings), or must be given (others) */
    uint64_t min, max;          /* NUMBER, SIZE; both 0: any */
    const char *const *choices; /* CHOICE: ends with NULL */
};
#define OB_OPTION_END \
    {                 \
        .name = NULL  \
    }

/* [C] The value of an option of the class; the name must be one of its options of that type. String: NULL if unset;
 * it lives as long as the device. */
OB_PUBLIC const char *ob_option_string(const struct ob_dev *dev, const char *name); /* STRING and CHOICE */
OB_PUBLIC uint64_t ob_option_number(const struct ob_dev *dev, const char *name);    /* NUMBER and SIZE */
OB_PUBLIC bool ob_option_bool(const struct ob_dev *dev, const char *name);

/* --- The class --------------------------------------------------------------------------------------------------- */

/* All [C]. Those that take a request may return OB_LATER; until it is answered, the client's later requests wait. */
struct ob_ops {
    /* Options to shape: BAR sizes, vectors, memory sizes, through ob_shape(). Scratch exists already, and what is put
     * into the shape may point there; other memory does not. May refuse with -errno. Optional, as all of these are. */
    int (*configure)(struct ob_dev *dev);
    /* Back ends; no DMA yet. State of a fresh device holds the reset values. May refuse with -errno, after releasing
     * what it took itself: close() is not called then. Its workers are ended by the library; they have not run. */
    int (*open)(struct ob_dev *dev, enum ob_origin origin);
    /* A client's session begins, or goes on after a crash, or after the device was stopped or loaded: start or resume,
     * from state, what open() prepared. -errno ends the device. */
    int (*run)(struct ob_dev *dev);
    /* The session ends, or the client stops the device to move it: no new effects until run(), and what is in flight
     * drained, guest memory unpinned. Timers stand still meanwhile. Handlers may be called before run() is: what they
     * ask for waits in state. To be stopped may be refused with -errno, and then nothing has changed; the end of a
     * session may not. */
    int (*quiesce)(struct ob_req *req);
    /* Registers already hold their reset values when this is called; state outside register tables, and timers, are the
     * class's. Copies that wait for the client (ob_dma_copy) are given up afterwards. */
    int (*reset)(struct ob_req *req, enum ob_reset kind);
    /* After a write to configuration space [off, off + len) took effect. */
    void (*config)(struct ob_dev *dev, uint32_t off, uint32_t len);
    /* Guest memory [iova, iova + len) goes away: cancel pinned I/O there, soon; its unpinning completes the unmap. */
    int (*unmap)(struct ob_req *req, uint64_t iova, uint64_t len);
    /* Timer `id` expired. */
    void (*timer)(struct ob_dev *dev, unsigned id);
    /* Release what open() took. Not called in a process that dies. */
    void (*close)(struct ob_dev *dev);
    /* State and shared memory have come from another process, perhaps of an earlier version, whose lacking fields hold
     * their reset values; the device is quiet. What comes is hostile: a class whose code relies on more than the widths
     * of its fields (an index, a count) checks it here and refuses with -errno; then what was before is put back. */
    int (*loaded)(struct ob_dev *dev);
};

struct ob_device_class {
    uint32_t abi, class_size; /* set by OB_CLASS */
    const char *name, *summary;
    struct ob_pci_id pci;
    struct ob_irq_caps irqs;
    struct ob_bar bars[6];
    const struct ob_cap *caps;       /* ends with OB_CAP_END; NULL: none */
    const struct ob_option *options; /* ends with OB_OPTION_END; NULL: none */
    struct ob_state state;           /* [C] two copies, committed with the reply */
    struct ob_state shared;          /* raw memory for workers: the author orders the stores; never rolled back */
    uint32_t scratch_size;           /* bytes of pointers and descriptors, zeroed in each process */
    uint32_t timers;                 /* how many, see ob_timer(); at most 64 */
    uint32_t max_reply_ms;           /* the deadline of a kept request; 0: 4000. QEMU gives up after 5000 */
    struct ob_ops ops;
    const struct ob_region *regions;     /* ends with OB_REGION_END; NULL: none; at most 32 */
    const struct ob_doorbell *doorbells; /* ends with OB_DOORBELL_END; NULL: none; at most 1024 */
    const void *reserved[5];
};

/* OB_CLASS(name, .field = ...) defines `const struct ob_device_class ob_class_NAME`.
 * OB_DEVICE(...) is OB_CLASS plus, unless OB_BUILTIN is defined, the main() of a device program. */
#define OB_CLASS(name_, ...)                                                                     \
    extern const struct ob_device_class ob_class_##name_;                                        \
    const struct ob_device_class ob_class_##name_ = {                                            \
        .abi = OB_ABI, .class_size = sizeof(struct ob_device_class), .name = #name_, __VA_ARGS__ \
    }
#ifdef OB_BUILTIN
#define OB_DEVICE(name_, ...) OB_CLASS(name_, __VA_ARGS__);
#else
#define OB_DEVICE(name_, ...)                                 \
    OB_CLASS(name_, __VA_ARGS__);                             \
    int main(int argc, char **argv)                           \
    {                                                         \
        return ob_device_main(&ob_class_##name_, argc, argv); \
    }
#endif

/* The main() of a device program: the conventions of the specification (--socket-path, --fd, SIGTERM,
 * --print-capabilities), --option key=value, --help. Returns the exit status. */
OB_PUBLIC int ob_device_main(const struct ob_device_class *cls, int argc, char **argv);

/* --- A device's memory ------------------------------------------------------------------------------------------- */

/* [C], in ops.configure only: this device's own copy of its class, to be altered. */
OB_PUBLIC struct ob_device_class *ob_shape(struct ob_dev *dev);
/* [C] The working copy of state; the pointer never changes. From ops.open on. */
OB_PUBLIC void *ob_state(struct ob_dev *dev);
OB_PUBLIC void *ob_shared(struct ob_dev *dev);  /* [A] From ops.open on. */
OB_PUBLIC void *ob_scratch(struct ob_dev *dev); /* [A] From ops.configure on. */
/* [A] From ops.open on. Memory of an OB_AREA_RAM area; `bar` is a BAR, or from OB_REGION_FIRST on a region; `off` is an
 * offset in it; NULL where there is none. Clients write to it at any time: read each datum once, then check it. */
OB_PUBLIC volatile void *ob_bar_ram(struct ob_dev *dev, unsigned bar, uint64_t off);

/* --- Requests, effects, time ------------------------------------------------------------------------------------- */

OB_PUBLIC struct ob_dev *ob_req_dev(struct ob_req *req); /* [C] */
/* [A] Answers a request that a handler kept: err 0 or a negative errno; val: what a read gives. Exactly once for each
 * request kept, even when its deadline has passed: then it is dropped. On the control thread, what was written to state
 * since the callback began is committed with the reply. */
OB_PUBLIC void ob_reply(struct ob_req *req, int err, uint64_t val);
/* [C] Calls fn(dev, arg) once what the current callback did is committed, in a transaction of its own, in the order in
 * which it was asked for. For effects that must not come before. A callback that fails or returns OB_LATER takes its
 * calls back. A crash in between forgets it: ops.run re-creates such effects from state. */
OB_PUBLIC void ob_after(struct ob_dev *dev, void (*fn)(struct ob_dev *dev, uint64_t arg), uint64_t arg);
/* [C] ops.timer(id), once, at CLOCK_MONOTONIC abs_ns or soon after; 0 disarms; an id that the class does not declare is
 * logged. The deadline is state: it takes effect with the commit and survives a crash. Without a session nothing fires:
 * what is overdue does so when the next one begins. While the client has the device stopped, time stands still. */
OB_PUBLIC void ob_timer(struct ob_dev *dev, unsigned id, uint64_t abs_ns);
OB_PUBLIC uint64_t ob_now(void); /* [A] CLOCK_MONOTONIC in nanoseconds */
/* [A] One line on standard error: "outboard: NAME: text". */
OB_PUBLIC void ob_log(const struct ob_dev *dev, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- Workers ----------------------------------------------------------------------------------------------------- */

/* The loop is the library's: poll; while it finds nothing: arm, poll once more, sleep until a descriptor is ready or
 * ob_worker_wake(). Pointers from ob_dma_window_pointer() are good until poll returns. */
struct ob_worker_ops {
    int (*poll)(struct ob_worker *worker); /* [W] >0: did work; 0: idle; -errno: logged, and the worker stops */
    void (*arm)(struct ob_worker *worker); /* [W] ask for wake-ups before a sleep; optional */
};
/* [C], in ops.open or ops.run; -EINVAL elsewhere or without ops->poll, -ENOMEM, -EMFILE, -EAGAIN (no more threads).
 * Starts a thread that polls once the callback has returned; until then the control thread may use ob_worker_fd() on
 * it. Signals are blocked in it. `ops` and `ctx` have to outlive it. Stopped and joined by the library before
 * ops.close; guest memory has to be unpinned by then. */
OB_PUBLIC int ob_worker_start(struct ob_dev *dev, const struct ob_worker_ops *ops, void *ctx,
                              struct ob_worker **worker);
OB_PUBLIC struct ob_worker *ob_control(struct ob_dev *dev);       /* [A] the control loop, as a worker without poll */
OB_PUBLIC void *ob_worker_context(struct ob_worker *worker);      /* [A] */
OB_PUBLIC struct ob_dev *ob_worker_dev(struct ob_worker *worker); /* [A] */
/* [A] Until ops.close returns. The worker polls once more, or has yet to: what was stored before, that poll sees. */
OB_PUBLIC void ob_worker_wake(struct ob_worker *worker);
/* [W], or [C] before the worker runs. Calls ready() on the worker when `fd` has one of `events` (EPOLL*, level); a
 * second call for the fd changes events, function and context; 0 forgets the fd: do it before closing. The descriptor
 * stays the caller's. Each call on the control loop is a transaction of its own, like a handler. -EBADF, -EINVAL (no
 * function), -ENOENT (nothing to forget), -EPERM (a file that is always ready), -ENOMEM, -ENOSPC. */
typedef void ob_ready_fn(struct ob_worker *worker, int fd, uint32_t events, void *ctx);
OB_PUBLIC int ob_worker_fd(struct ob_worker *worker, int fd, uint32_t events, ob_ready_fn *ready, void *ctx);

/* [A] From ops.open on. The descriptor of an event, for ob_worker_fd() with EPOLLIN, on the control loop or a worker;
 * it stays the library's. -EINVAL: no such event. */
OB_PUBLIC int ob_doorbell_fd(const struct ob_dev *dev, unsigned event);
/* [A] From ops.open on. How often an event rang since it was taken last; 0: not. Never waits. To be called before
 * looking for the work: what comes after it rings again. Clients can ring a device that is quiet, too: what is to be
 * done then belongs to the time after ops.run. In a process that succeeds another, and after a migration,
 * every event has rung once more than it did: the other may have ended between this and the work. */
OB_PUBLIC uint64_t ob_doorbell_take(const struct ob_dev *dev, unsigned event);

/* --- DMA --------------------------------------------------------------------------------------------------------- */
/* IOVAs are the guest's bus addresses. All fail with -EACCES while the guest has bus mastering off or the device in D3,
 * and while the client has the device stopped. */

/* A copy; the struct and `buf` belong to the library until it is done. */
struct ob_dma {
    uint64_t iova;
    void *buf;
    size_t len; /* bytes */
    bool to_guest;
    /* [W]; 0 or -errno (-ENOTCONN: the client went, or stopped the device; -ECANCELED: the device was reset) */
    void (*done)(struct ob_dma *dma, int err);
    struct ob_dma_private {
        struct ob_dma *next;
        struct ob_worker *worker;
        size_t copied;
        int err;
        uint16_t id;
    } lib; /* the library's */
};
/* [W] OB_DONE: copied, done() is not called. OB_LATER: memory that the client serves by messages; done() follows, and
 * may free the struct or use it again. Never let a request's reply wait for it: -EDEADLK is then that reply (there are
 * clients that serve memory only while they are not waiting for a reply). Here or in done(): -EFAULT (not mapped),
 * -EACCES (not permitted), -ENOTCONN (the client went, and with it the session), -ECANCELED, -EPIPE (the client has
 * closed its twin socket, and serves no memory in this session any more), -EPROTO, or what the client refused with
 * (-EIO for its ENOTCONN). Part may have been copied before an error. */
OB_PUBLIC int ob_dma_copy(struct ob_worker *worker, struct ob_dma *dma);
/* [W] Pieces of guest memory that stay mapped until unpinned, on the same worker, and before it ends; prot: PROT_READ
 * (the device reads) | PROT_WRITE. Fills iov[] and pins[], `max` entries each, and returns how many; or -EFAULT (not
 * mapped), -EACCES (not permitted), -ENOBUFS (more than max pieces), -EREMOTE (only ob_dma_copy reaches it). */
OB_PUBLIC int ob_dma_pin(struct ob_worker *worker, uint64_t iova, size_t len, int prot, struct iovec *iov,
                         uint32_t *pins, int max);
OB_PUBLIC void ob_dma_unpin(struct ob_worker *worker, const uint32_t *pins, int n);
/* [C] For rings: a range to look at for as long as you like, whether or not it is mapped now. -EINVAL, -ENOMEM. */
OB_PUBLIC int ob_dma_window_open(struct ob_dev *dev, uint64_t iova, size_t len, int prot, struct ob_window **window);
/* [C] Workers must not use it any more: close it from ops.reset or ops.quiesce after they were told, or from ops.close.
 */
OB_PUBLIC void ob_dma_window_close(struct ob_dev *dev, struct ob_window *window);
/* [W] NULL while the range is not mapped in one piece, or bus mastering is off; else good until this worker's poll (or
 * callback) returns. */
OB_PUBLIC void *ob_dma_window_pointer(struct ob_worker *worker, struct ob_window *window);

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

/* All on the control thread or on any worker of the device: other threads wake a worker, since the library could not
 * tell when they are done with a client's eventfd. A vector that the device does not have is ignored. From a callback
 * on the control thread they take effect with the commit, and not at all if it fails or keeps its request. */
/* A condition: INTx is its level, MSI and MSI-X its rising edge. */
OB_PUBLIC void ob_irq_level(struct ob_dev *dev, unsigned vector, bool on);
/* A message; only for classes without INTx. */
OB_PUBLIC void ob_irq_pulse(struct ob_dev *dev, unsigned vector);
/* The same for what VFIO tells the client itself: the device has failed for good, and the client may stop the VM or
 * reset it (VFIO_PCI_ERR_IRQ_INDEX); the device is wanted back, and the client should release it
 * (VFIO_PCI_REQ_IRQ_INDEX). Configuration space has no say in it. A client that has given no eventfd is not told, then
 * or later. */
OB_PUBLIC void ob_irq_error(struct ob_dev *dev);
OB_PUBLIC void ob_irq_request(struct ob_dev *dev);
/* [A] What the guest's driver chose: true once MSI or MSI-X is enabled, else INTx (or nothing) is in use. */
OB_PUBLIC bool ob_irq_is_message(struct ob_dev *dev);

#ifdef __cplusplus
}
#endif
#endif
