/* outboard/client.h: the VM monitor's side: connecting to a vfio-user server and using its device.
 *
 * A client belongs to no thread: every function marked [A] may be called from any thread at any time. The library
 * starts no thread of its own. Whoever waits for a reply reads the socket for everybody else meanwhile; a program that
 * only uses asynchronous calls reads it by ob_client_run(), when ob_client_fd() is readable.
 *
 * Three ways to make a call, chosen by its last argument, `call`:
 *   NULL                 synchronous: returns with the result, after at most the client's timeout;
 *   call->done NULL      pipelined: returns 0 once the request is queued; ob_call_wait() gives the result;
 *   call->done a function  asynchronous: likewise, and done() is called with the result, on the thread that read it; if
 *                          nothing had to be sent, on this one before the function returns. If the function fails,
 *                          there is no call: done() is not called.
 * Requests of one client are sent in the order of the calls. Buffers and the call belong to the library until the
 * result is there. Of a call that is cut into several messages the first error is the result, and its time-out runs
 * anew with each reply. A fourth way, for writes alone, is ob_client_post(): no reply is asked for, so no result ever
 * comes.
 *
 * Errors. Functions return 0 or a count, or a negative errno: the server's own refusal as it came; -ETIMEDOUT (the
 * request may yet be executed); -ENOTCONN after the connection ended, for whatever reason; -EPROTO when it ends just
 * now because the server broke the protocol: ob_client_why() says how. -EINVAL, -ENOMEM, -EMFILE as usual.
 *
 * The server is not trusted. Every reply is checked against its request; counts, capability chains, descriptors and
 * sizes are limited; what was never asked for, or breaks framing, ends the connection. Memory that the server shares
 * can change or be cut short at any time: the library never reads it for decisions of its own. When a file is cut
 * short, touching its mapping raises SIGBUS, in ob_client_read() and ob_client_write() too: a program that maps regions
 * of servers it does not trust handles that signal, or does not call ob_client_map(). The most that is borne with: 256
 * requests that expired and were not answered since, 16 MiB of answers that the server does not read.
 *
 * Source of the clauses cited (VU-...): docs/protocol.md. Stability: not stable before version 1.0.
 */
#ifndef OUTBOARD_CLIENT_H
#define OUTBOARD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OB_PUBLIC __attribute__((visibility("default")))

struct ob_client;

/* --- Connecting -------------------------------------------------------------------------------------------------- */

struct ob_client_options {
    int timeout_ms; /* of synchronous calls, and of others that set none; 0: 5000; -1: without end */
    /* Serves the server's DMA_READ (to_device: fill buf) and DMA_WRITE (take buf) of memory that was mapped; the range
     * lies within maps that permit it. 0 or -errno, which the server gets. Called on whatever thread reads the socket,
     * also while others wait for replies; may not call the client. NULL: such messages are refused, and the server is
     * offered no twin socket for them. */
    int (*dma)(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len);
    void *dma_ctx;
    /* What the client offers in VERSION; 0: the library's own maximum. */
    uint32_t max_data_xfer_size; /* bytes; at most 1 MiB */
    uint32_t max_msg_fds;        /* at most 16 */
    uint64_t pgsizes;            /* page sizes of DMA maps, or'ed together */
    bool no_twin_socket;         /* with dma(): do not offer a socket of its own for the server's requests */
    bool no_write_multi;         /* do not use REGION_WRITE_MULTI though the server offers it */
};

/* [A] Connects to a server's socket and negotiates. `options` may be NULL. -ECONNREFUSED, -ENOENT, -EACCES and so on as
 * connect(2); -EPROTONOSUPPORT: no common version. `why` (may be NULL) gets one line about a failure. */
OB_PUBLIC int ob_client_connect(const char *path, const struct ob_client_options *options, struct ob_client **client,
                                char *why, size_t why_size);
/* [A] The same on a connected socket, which belongs to the client after success and stays the caller's otherwise. */
OB_PUBLIC int ob_client_adopt(int fd, const struct ob_client_options *options, struct ob_client **client, char *why,
                              size_t why_size);
/* [A] Starts a server program and connects to it. argv ends with NULL; argv[0] is looked for in PATH. "{fd}" in an
 * argument is replaced by the number of a connected socket that the program inherits; "{socket}" by the path of a
 * socket in a private folder, at which the program is to listen; if neither is there, "--fd=N" is added, as back-end
 * programs take it. The program ends with the client: it loses its client, gets SIGTERM, and after a second SIGKILL; it
 * also gets SIGTERM when the thread that spawned it dies. */
OB_PUBLIC int ob_client_spawn(char *const argv[], const struct ob_client_options *options, struct ob_client **client,
                              char *why, size_t why_size);
/* Ends calls in flight with -ENOTCONN (their done() is called), closes, unmaps, frees. No other thread may be in a
 * call, and not from done() or dma(). NULL does nothing. */
OB_PUBLIC void ob_client_close(struct ob_client *client);

/* [A] Why the connection ended, or what the last VERSION said that was refused: one line, or "" while it lives. Good
 * until ob_client_close(). */
OB_PUBLIC const char *ob_client_why(struct ob_client *client);
/* [A] The process ob_client_spawn() started, or -1. */
OB_PUBLIC pid_t ob_client_pid(struct ob_client *client);

/* --- Loops ------------------------------------------------------------------------------------------------------- */

/* [A] Readable while ob_client_run(client, 0) has something to do: bytes, room to send, a timeout that is over. */
OB_PUBLIC int ob_client_fd(struct ob_client *client);
/* [A] Sends what is queued, reads what is there, calls done() and dma(), waiting up to timeout_ms for the first
 * (-1: without end). Returns how many calls ended and messages were served; 0: none; -ENOTCONN. */
OB_PUBLIC int ob_client_run(struct ob_client *client, int timeout_ms);

struct ob_call {
    /* The result: 0 or a count, or -errno, as the function that took the call documents it. May free or reuse the call,
     * and make further asynchronous calls, which cannot wait for room there (-EAGAIN: too much is in flight);
     * synchronous ones are refused (-EDEADLK). NULL: ob_call_wait() gives it. */
    void (*done)(struct ob_call *call, ssize_t result);
    int timeout_ms; /* 0: the client's; -1: none */
    void *ctx;      /* the caller's */
    struct ob_call_private {
        void *state[8];
    } lib; /* the library's */
};
/* [A] The result of a call without done(), once; waits for it. */
OB_PUBLIC ssize_t ob_call_wait(struct ob_client *client, struct ob_call *call);
/* [A] Whether it is there, without waiting or reading. */
OB_PUBLIC bool ob_call_ready(struct ob_client *client, const struct ob_call *call);
/* [A] Sends what earlier calls and posts left queued. Synchronous calls, ob_call_wait() and ob_client_run() do so too;
 * pipelined and asynchronous calls gather until one of these comes or 32 KiB are there; those made by done() leave when
 * it has returned. -ETIMEDOUT: the server does not read. */
OB_PUBLIC int ob_client_flush(struct ob_client *client);

/* --- The device -------------------------------------------------------------------------------------------------- */

#define OB_CLIENT_MAX_REGIONS 64 /* servers with more are refused */
#define OB_CLIENT_MAX_AREAS   256
#define OB_CLIENT_MAX_IRQS    64

/* What was agreed upon and what the device is. */
struct ob_client_info {
    uint16_t major, minor;       /* of the protocol */
    uint32_t max_data_xfer_size; /* in one message either way; longer calls are cut into several */
    uint32_t max_msg_fds;        /* that the server takes with one message */
    uint32_t max_dma_maps;
    uint64_t pgsizes;
    bool write_multi, twin_socket; /* in use */
    uint32_t flags;                /* VFIO_DEVICE_FLAGS_* */
    uint32_t regions, irqs;        /* how many indexes */
};
/* [A] Known since the connection was made. */
OB_PUBLIC const struct ob_client_info *ob_client_info(struct ob_client *client);

struct ob_client_area {
    uint64_t offset, size; /* in the region, bytes */
};
struct ob_client_region {
    uint32_t flags;  /* VFIO_REGION_INFO_FLAG_* */
    uint64_t size;   /* bytes; 0: no such region in this device */
    uint64_t offset; /* of the region in `fd` */
    int fd;          /* of mappable memory, or -1; the client's: duplicate it to keep it */
    uint32_t areas;  /* that may be mapped: sorted, not overlapping, within the region, of whole pages unless it is all
                      * of  the region. The server's others are left out; overlapping ones end the connection. */
    bool typed;      /* `type` and `subtype` are given (VFIO_REGION_INFO_CAP_TYPE) */
    uint32_t type, subtype;
    struct ob_client_area area[OB_CLIENT_MAX_AREAS];
};
/* [A] Known since the connection was made. *region is good until ob_client_close(). -EINVAL: there is no such index; or
 * what the server refused to describe it with. */
OB_PUBLIC int ob_client_region(struct ob_client *client, uint32_t index, const struct ob_client_region **region);

struct ob_client_irq {
    uint32_t flags; /* VFIO_IRQ_INFO_* */
    uint32_t count; /* vectors */
};
/* [A] */
OB_PUBLIC int ob_client_irq(struct ob_client *client, uint32_t index, struct ob_client_irq *irq);

/* [A] VFIO_USER_DEVICE_RESET: registers, interrupts and migration state are as at the beginning; DMA maps stay. */
OB_PUBLIC int ob_client_reset(struct ob_client *client, struct ob_call *call);

/* --- Regions ----------------------------------------------------------------------------------------------------- */

/* [A] Reads or writes `len` bytes at `offset`. What lies in memory that ob_client_map() has mapped is copied there (in
 * one access if it is 1, 2, 4 or 8 bytes and aligned), the rest goes by messages, each no longer than was negotiated.
 * A result of 0 means that all was done. -EIO: the server did less. -EINVAL: beyond the region's end, or no such
 * region. What goes to mapped memory does not wait for messages that are under way. */
OB_PUBLIC int ob_client_read(struct ob_client *client, uint32_t region, uint64_t offset, void *buf, size_t len,
                             struct ob_call *call);
OB_PUBLIC int ob_client_write(struct ob_client *client, uint32_t region, uint64_t offset, const void *buf, size_t len,
                              struct ob_call *call);
/* [A] A write of which no result is wanted; `buf` is copied. Consecutive posts of up to 8 bytes leave as one
 * REGION_WRITE_MULTI if the server offers that. They leave before any later call, and with ob_client_flush(). 0 says
 * nothing about the server. */
OB_PUBLIC int ob_client_post(struct ob_client *client, uint32_t region, uint64_t offset, const void *buf, size_t len);
/* [A] Maps what the server lets be mapped of a region, for ob_client_read() and ob_client_write(), and for
 * ob_client_memory(). Returns how many areas; 0: none is mappable. Repeating it does nothing. -ENODEV: the descriptor
 * is neither a file nor a device; -ENXIO: the file is shorter than the areas; or what mmap(2) says. */
OB_PUBLIC int ob_client_map(struct ob_client *client, uint32_t region);
/* [A] The memory of [offset, offset + len) of a mapped region, or NULL if it is not all within one mapped area. Good
 * until ob_client_close(). */
OB_PUBLIC volatile void *ob_client_memory(struct ob_client *client, uint32_t region, uint64_t offset, uint64_t len);

/* A sub-region of GET_REGION_IO_FDS. */
struct ob_client_io_fd {
    uint64_t offset, size; /* in the region, bytes */
    uint32_t type;         /* 0: an ioeventfd; 1: an ioregionfd */
    uint32_t flags;        /* KVM_IOEVENTFD_FLAG_*, KVM_IOREGION_* */
    uint64_t data;         /* datamatch or user_data */
    int fd; /* the caller's, to close; several may have been given the same: each has its own duplicate */
};
/* [A] Fills up to `max` entries and returns how many there are, which may be more than max; the descriptors of those
 * that did not fit, and of types that are not known, are closed. An entry outside the region ends the connection. */
OB_PUBLIC int ob_client_io_fds(struct ob_client *client, uint32_t region, struct ob_client_io_fd *list, unsigned max);

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

/* [A] SET_IRQS with any data and action of <linux/vfio.h>: `flags` is one VFIO_IRQ_SET_DATA_* and one
 * VFIO_IRQ_SET_ACTION_*; for DATA_BOOL `bools` has `count` bytes, for DATA_EVENTFD `fds` has `count` descriptors, -1
 * for a vector without. The descriptors stay the caller's and are sent before this returns or, with a call, before its
 * result. More than fit one message are sent in several. */
OB_PUBLIC int ob_client_set_irqs(struct ob_client *client, uint32_t flags, uint32_t index, uint32_t start,
                                 uint32_t count, const uint8_t *bools, const int *fds, struct ob_call *call);

/* --- DMA --------------------------------------------------------------------------------------------------------- */

/* [A] Lets the device reach [iova, iova + size) as `prot` (PROT_READ: the device reads, PROT_WRITE) permits. fd: memory
 * that the server may map, at `offset`; it stays the caller's. -1: the device asks by DMA_READ and DMA_WRITE, see
 * ob_client_options.dma. -EEXIST: overlaps a map; -ENOSPC: more than info.max_dma_maps; -EOPNOTSUPP: a descriptor, but
 * the server takes none; -EINVAL: not aligned to the smallest page size agreed upon, or empty, or without `prot`. */
OB_PUBLIC int ob_client_dma_map(struct ob_client *client, uint64_t iova, uint64_t size, int prot, int fd,
                                uint64_t offset, struct ob_call *call);
/* [A] Exactly a range that was mapped: when the result is 0, the device no longer touches it. -ENOENT. After -ETIMEDOUT
 * the device may still reach memory that it has a descriptor of; dma() is not called for the range any more. */
OB_PUBLIC int ob_client_dma_unmap(struct ob_client *client, uint64_t iova, uint64_t size, struct ob_call *call);
/* [A] All maps, each by a message of its own. Those that the server refuses to unmap stay. */
OB_PUBLIC int ob_client_dma_unmap_all(struct ob_client *client);

/* --- Features, migration, dirty pages ---------------------------------------------------------------------------- */

/* [A] DEVICE_FEATURE. flags: VFIO_DEVICE_FEATURE_* and the feature; `data` has `len` bytes of the feature's structure:
 * sent with SET, or with GET if the feature has input; filled with what GET gives, up to `room`. Returns the bytes
 * given. -ENOTTY: no such feature; -ENOBUFS: it needs more room; -EMSGSIZE: more than one message takes. `data` of SET
 * is taken before this returns unless `room` is above 0. */
OB_PUBLIC int ob_client_feature(struct ob_client *client, uint32_t flags, void *data, size_t len, size_t room,
                                struct ob_call *call);

/* [A] VFIO_MIGRATION_STOP_COPY | _P2P | _PRE_COPY of the device; -ENOTTY: it cannot migrate. */
OB_PUBLIC int ob_client_migration_flags(struct ob_client *client, uint64_t *flags);
/* [A] enum vfio_device_mig_state. Setting takes as long as the device needs. When setting fails, ask for what it is in.
 */
OB_PUBLIC int ob_client_migration_state(struct ob_client *client, uint32_t *state);
OB_PUBLIC int ob_client_migration_set_state(struct ob_client *client, uint32_t state, struct ob_call *call);
/* [A] An upper bound of the bytes that STOP_COPY will give. */
OB_PUBLIC int ob_client_migration_size(struct ob_client *client, uint64_t *size);
/* [A] The next bytes of the state: returns how many, up to len; 0: that was all (or all there is now, in PRE_COPY). */
OB_PUBLIC ssize_t ob_client_migration_read(struct ob_client *client, void *buf, size_t len, struct ob_call *call);
/* [A] In RESUMING. All of buf is taken, in messages of what was negotiated. */
OB_PUBLIC int ob_client_migration_write(struct ob_client *client, const void *buf, size_t len, struct ob_call *call);

struct ob_client_range {
    uint64_t iova, length; /* bytes, multiples of the page size */
};
/* [A] Starts the log of pages that the device writes; n 0: everywhere. */
OB_PUBLIC int ob_client_dirty_start(struct ob_client *client, uint64_t page_size, const struct ob_client_range *ranges,
                                    unsigned n);
OB_PUBLIC int ob_client_dirty_stop(struct ob_client *client);
/* [A] Which pages of [iova, iova + length) were written since the last report or start, and forgets it: bit i % 64 of
 * bitmap[i / 64] is page i. The bitmap has ceil(length / page_size / 64) words and is replaced; long ranges are asked
 * for in pieces. */
OB_PUBLIC int ob_client_dirty_report(struct ob_client *client, uint64_t iova, uint64_t length, uint64_t page_size,
                                     uint64_t *bitmap);

#ifdef __cplusplus
}
#endif
#endif
