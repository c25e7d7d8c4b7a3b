/* A device of this process, as the parts of src/device share it. Private to src/device.
 *
 *   dev.c       making and freeing it                 shape.c      from the class to layouts, checked
 *   server.c    sockets, the control loop             execute.c    a request to whom it concerns
 *   transact.c  commits, effects, kept requests       access.c     configuration space and areas of BARs
 *   registers.c register tables                       info.c       what a client asks about the device
 *   maps.c      guest memory                          signals.c    interrupts
 *   dma.c       copies, pins, windows                 worker.c     threads, descriptors, sleep
 *   timers.c    deadlines                             reset.c      reset, and the end of a session
 *   doorbells.c writes that ring an eventfd           migrate.h    migration, and the files that are its
 */
#ifndef OB_DEVICE_DEV_H
#define OB_DEVICE_DEV_H

#include <outboard/device.h>
#include <outboard/server.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "device/options.h"
#include "device/vault.h"
#include "memory/memory.h"
#include "pci/config.h"
#include "pci/interrupts.h"
#include "session/session.h"
#include "transport/listener.h"
#include "transport/sender.h"

#define OB_DEFAULT_REPLY_MS 4000
#define OB_MAX_MAPPED_AREAS 64 /* of a BAR or region */
#define OB_MAX_REGIONS      32 /* beyond PCI's */
#define OB_MAX_EVENTS       OB_SEND_MAX_FDS
#define OB_MAX_DOORBELLS    1024

/* What a commit may signal beside vectors: bits behind theirs in the vault's intents. */
enum { OB_SIGNAL_ERROR, OB_SIGNAL_REQUEST, OB_SIGNAL_EVENT };

/* Which descriptors a reply carries, see struct ob_session_ops: those of a region's memory (its index), or of its
 * doorbells. */
#define OB_REPLY_DOORBELLS 0x10000

/* Copies in order. `first` may be looked at without the lock that everything else needs. */
struct ob_dma_list {
    struct ob_dma *_Atomic first;
    struct ob_dma *last; /* meaningless while first is NULL */
};

/* What the control loop waits for. */
struct ob_source {
    void (*ready)(struct ob_dev *dev, struct ob_source *source, uint32_t events);
    int fd;
    uint32_t events;
    bool registered;
};

/* A descriptor that a worker watches for its device, ob_worker_fd(). */
struct ob_watch {
    int fd;
    uint32_t events;
    ob_ready_fn *ready; /* NULL: forgotten, freed after the batch of events */
    void *ctx;
    struct ob_watch *next;
};

struct ob_worker {
    struct ob_reader reader; /* first: it is aligned to a cache line */
    struct ob_dev *dev;
    const struct ob_worker_ops *ops; /* NULL: the control loop */
    void *ctx;
    int epoll;
    int wake; /* eventfd */
    pthread_t thread;
    sem_t gate; /* the thread waits here until the callback that started it has returned */
    bool released;
    _Atomic bool stop, woken;
    bool swept; /* no watch is to be freed */
    struct ob_watch *watches;
    struct ob_worker *next;
    struct ob_dma_list completed; /* under dev->lock, but for a look: copies whose done() this worker is to call */
};

/* What a request waits for. */
enum ob_wait {
    OB_WAIT_NOTHING, /* being executed */
    OB_WAIT_HANDLER, /* ob_reply() */
    OB_WAIT_RETIRED, /* guest memory to be let go by workers */
    OB_WAIT_GRACE,   /* replaced eventfds likewise */
    OB_WAIT_EPOCH,   /* workers to have looked up, after migration or the log began or ended */
};

enum ob_req_kind {
    OB_REQ_ACCESS,
    OB_REQ_MULTI,
    OB_REQ_RESET,
    OB_REQ_UNMAP,
    OB_REQ_IRQS,
    OB_REQ_FEATURE,
    OB_REQ_QUIESCE
};

/* A request of the client's, or of the library's own (quiesce). One is executed at a time; a kept one whose deadline
 * has passed lives on, expired, until the handler answers it. */
struct ob_req {
    struct ob_dev *dev;
    enum ob_req_kind kind;
    enum ob_wait wait;
    bool expired, answered;
    int err; /* as answered */
    uint64_t val;
    uint64_t since;      /* CLOCK_MONOTONIC ns: from when its client waits, at the earliest */
    uint64_t deadline;   /* the same: when it is refused */
    struct ob_req *next; /* in dev->answers, under dev->lock */
    /* OB_REQ_ACCESS and a write of OB_REQ_MULTI */
    struct {
        uint32_t region, count, done, piece; /* bytes; piece: of the part being executed */
        uint64_t offset;
        bool write;
        uint8_t *data;
        uint8_t shift; /* of a register read: where in the value the piece lies */
    } access;
    bool resetting; /* what is kept is a reset, of this kind */
    enum ob_reset reset;
    uint64_t multi_next, multi_count; /* OB_REQ_MULTI */
    /* OB_REQ_UNMAP */
    struct ob_wire_dma_unmap unmap;
    /* OB_REQ_IRQS: the holder's keys of its descriptors */
    uint64_t keys[OB_RECEIVER_MAX_FDS];
    unsigned n_keys;
    /* OB_REQ_FEATURE that sets the migration state */
    uint32_t target;
    bool quiescing; /* it is kept by ops.quiesce */
};

struct ob_after {
    void (*fn)(struct ob_dev *dev, uint64_t arg);
    uint64_t arg;
};

/* Descriptors that workers may still write to: closed when the epoch has passed. */
#define OB_GRACE_FDS 32
struct ob_grace {
    uint64_t token;
    unsigned n;
    struct ob_grace *next;
    int fds[OB_GRACE_FDS];
};

/* Registers of an area: which one owns a byte. */
struct ob_area_index {
    uint16_t *reg; /* by offset; index into the table plus one, 0: none */
    uint32_t size;
};

/* What areas lie in: a BAR, or a region of the class's own. */
struct ob_space {
    uint64_t size;               /* 0: there is none */
    uint32_t flags;              /* OB_REGION_* */
    const struct ob_area *areas; /* the class's, n_areas of them */
    unsigned n_areas;
    struct ob_area_index *index; /* by area */
    uint64_t *ram_off;           /* by area: in the bars file or the vault's RAM */
    uint64_t file_off;           /* of the region in the bars file */
    unsigned n_maps;             /* areas that clients map */
    bool whole;                  /* one area that clients map is the whole of it */
};

/* STOPPED: there is a client, for whom the device stands still (migration). */
enum ob_phase { OB_PHASE_IDLE, OB_PHASE_LIVE, OB_PHASE_STOPPED, OB_PHASE_QUIESCING, OB_PHASE_DRAINING };

struct ob_dev {
    struct ob_device_class cls; /* our own copy, which configure() may alter */
    struct ob_options *options;
    struct ob_pci_layout *layout;
    unsigned vectors;
    struct ob_msix_place msix_place;
    struct ob_space spaces[6 + OB_MAX_REGIONS]; /* the BARs, then the class's regions */
    unsigned n_regions;                         /* of those */
    struct ob_doorbell *doorbells;              /* the class's, by region and offset */
    unsigned n_doorbells, n_events;
    int *events; /* eventfds */
    struct ob_vault vault;
    int bars_fd;
    uint8_t *bars_map;
    size_t bars_size;
    void *scratch;

    struct ob_session session;
    struct ob_listener listener;
    bool starting; /* ops.open or ops.run is being called */
    bool opened, listening, only_one;
    _Atomic enum ob_phase phase; /* LIVE begins and ends under the lock: workers queue copies only then */
    int failure;                 /* the device cannot go on */
    unsigned idle_polls, polls;
    bool resuming;       /* a predecessor's client is expected */
    bool asked_for_held; /* the holder was asked for what it has */

    struct ob_memory *memory;
    uint32_t *map_entry; /* by memory slot: which entry of the vault's map table, plus one; 0: none */
    uint32_t *free_entries, n_free_entries;
    struct ob_retired *retired; /* of the unmap that is waited for */
    struct ob_irqs *irqs;
    struct ob_grace *grace;
    bool config_changed;
    _Atomic bool bus_master, messages; /* as committed: what any thread may go by; messages: MSI or MSI-X is enabled */
    unsigned dma_asked;                /* copies that handlers asked for by message */

    struct ob_req *req;                  /* executed or kept; spare otherwise */
    uint64_t queued_since, queued_until; /* requests before this position wait since then */
    _Atomic pthread_t control_thread;
    unsigned depth; /* of transactions: 0: none */
    struct ob_after *after;
    unsigned n_after, max_after, next_after, due_after; /* due: their cause is committed */
    bool running_after;

    uint64_t stopped_at;            /* CLOCK_MONOTONIC ns: when time stopped for the device; 0: it goes on */
    uint64_t stop_token, log_token; /* epochs that a change of the migration state, and the log, wait for */
    bool quiet;                     /* ops.quiesce is through, and ops.run was not called since */

    struct ob_worker control;
    struct ob_worker *workers;
    pthread_mutex_t lock;         /* answers, DMA queues */
    struct ob_req *answers;       /* ob_reply() from other threads */
    struct ob_dma_list dma_queue; /* to be sent as messages */
    struct ob_dma *dma_sent;      /* [C] waiting for an answer; at most OB_SESSION_MAX_ASKED */

    struct ob_source listen_source, client_source, twin_source, timer_source, wake_source, epoch_source,
        irq_source[OB_IRQ_POLLS];
    uint64_t timer_armed; /* 0: not */
    uint64_t accept_at;   /* when to listen again after an accept() that failed; 0: not */
};

/* shape.c */
int ob_shape_check(struct ob_dev *dev, size_t *ram); /* *ram: bytes of BAR memory that no client maps */
uint64_t ob_shape_hash(const struct ob_dev *dev);
void ob_shape_free(struct ob_dev *dev);
int ob_shape_wrong(struct ob_dev *dev, const char *what, const char *name); /* logs the mistake; -EINVAL */
/* Clients that map the MSI-X structures, or ring there, would pass the library by. */
bool ob_shape_over_msix(const struct ob_dev *dev, unsigned region, const struct ob_area *a);

/* transact.c. A transaction spans a callback of the class on the control thread. */
void ob_transaction_begin(struct ob_dev *dev);
void ob_transaction_end(struct ob_dev *dev);
void ob_dev_commit(struct ob_dev *dev);
void ob_dev_rollback(struct ob_dev *dev);                /* what was done since the last commit never happened */
void ob_dev_intend(struct ob_dev *dev, unsigned signal); /* in a transaction: OB_SIGNAL_* with the commit */
int ob_req_keep(struct ob_req *req, enum ob_wait wait);
int ob_req_finish(struct ob_dev *dev, int err); /* the kept request: answered */
void ob_req_expire(struct ob_dev *dev, uint64_t now);
void ob_answers_take(struct ob_dev *dev);
struct ob_req *ob_req_new(struct ob_dev *dev);

/* execute.c */
extern const struct ob_session_ops ob_back_ops;
void ob_dev_run(struct ob_dev *dev); /* the device lives: timers go on, ops.run is called */

/* access.c: each returns OB_DONE (answered with ob_session_reply), OB_LATER or -errno. */
int ob_access_start(struct ob_dev *dev, const struct ob_message *m);
int ob_access_multi(struct ob_dev *dev, const struct ob_message *m);
int ob_access_resume(struct ob_dev *dev, int err, uint64_t val);

/* registers.c: one piece of an access of `total` bytes, at `off` in the area; *n becomes its length. */
int ob_registers_access(struct ob_req *req, const struct ob_area *area, const struct ob_area_index *index, uint64_t off,
                        uint32_t left, uint32_t total, uint8_t *data, uint32_t *n);
/* 0, -ENOMEM, or -EINVAL with the name of a register that overlaps an earlier one. */
int ob_registers_index(const struct ob_area *area, struct ob_area_index *index, const char **overlap);
void ob_registers_reset(struct ob_dev *dev);

/* info.c */
int ob_info_device(struct ob_dev *dev, const struct ob_message *m);
int ob_info_region(struct ob_dev *dev, const struct ob_message *m);
int ob_info_irq(struct ob_dev *dev, const struct ob_message *m);
bool ob_info_is_region(const struct ob_dev *dev, uint32_t index); /* one that may be asked about */

/* doorbells.c */
int ob_doorbells_check(struct ob_dev *dev);
int ob_doorbells_open(struct ob_dev *dev);     /* a predecessor's eventfds, where the holder has them */
void ob_doorbells_restore(struct ob_dev *dev); /* rings what a predecessor, or a source, may not have acted on */
void ob_doorbells_close(struct ob_dev *dev);
void ob_doorbell_ring(struct ob_dev *dev, unsigned event);
/* A write that is a doorbell's: the event it rings, or -1. */
int ob_doorbell_find(const struct ob_dev *dev, uint32_t region, uint64_t off, uint32_t size, const uint8_t *data);
int ob_doorbells_info(struct ob_dev *dev, const struct ob_message *m);
unsigned ob_doorbells_fds(const struct ob_dev *dev, uint32_t region, int *fds);

/* maps.c */
size_t ob_maps_size(void);
int ob_maps_init(struct ob_dev *dev);
int ob_maps_restore(struct ob_dev *dev);
void ob_maps_forget(struct ob_dev *dev); /* a predecessor's client will not come back */
int ob_maps_map(struct ob_dev *dev, const struct ob_message *m, int *fds, unsigned nfds);
int ob_maps_unmap(struct ob_dev *dev, const struct ob_message *m);
int ob_maps_unmap_go_on(struct ob_dev *dev);
bool ob_maps_drop_all(struct ob_dev *dev); /* a session's end: true when nothing is in use any more */

/* signals.c */
size_t ob_bindings_size(const struct ob_dev *dev);
int ob_signals_restore(struct ob_dev *dev);
int ob_signals_set(struct ob_dev *dev, const struct ob_message *m, int *fds, unsigned nfds);
int ob_signals_set_go_on(struct ob_dev *dev);
void ob_signals_note(struct ob_dev *dev); /* the SET_IRQS at hand is executed, whatever its reply says */
void ob_signals_disconnect(struct ob_dev *dev);
bool ob_grace_over(struct ob_dev *dev); /* closes what nobody can use any more; true when nothing is left */
void ob_signals_poll(struct ob_dev *dev);

/* dma.c */
void ob_dma_send(struct ob_dev *dev);
void ob_dma_answered(struct ob_dev *dev, uint16_t id, const struct ob_message *reply, int err);
/* Ends all copies by message with that error. */
void ob_dma_fail_all(struct ob_dev *dev, int err);
void ob_dma_run_completed(struct ob_worker *worker);

/* worker.c */
int ob_control_init(struct ob_dev *dev);
void ob_control_close(struct ob_dev *dev);
void ob_workers_release(struct ob_dev *dev); /* those that ops.open or ops.run started begin */
void ob_workers_stop(struct ob_dev *dev);
void ob_watches_free(struct ob_worker *worker);
void ob_watch_dispatch(struct ob_worker *worker, struct ob_watch *watch, uint32_t events);
void ob_watches_sweep(struct ob_worker *worker);

/* timers.c */
int ob_timers_init(struct ob_dev *dev);
void ob_timers_update(struct ob_dev *dev);

/* reset.c */
int ob_reset_start(struct ob_dev *dev, enum ob_reset kind); /* OB_DONE, OB_LATER, -errno; in a transaction */
int ob_reset_finish(struct ob_dev *dev, bool again, enum ob_reset kind);
void ob_end_begin(struct ob_dev *dev); /* the connection is over: quiesce, drain, be idle again */
void ob_end_go_on(struct ob_dev *dev);
void ob_set_phase(struct ob_dev *dev, enum ob_phase phase);

/* migrate.c, feature.c, stream.c; OB_DONE, OB_LATER, -errno */
size_t ob_migration_part_size(void);
bool ob_migrate_still(const struct ob_dev *dev);  /* no DMA, no interrupts, time stands still */
bool ob_migrate_closed(const struct ob_dev *dev); /* and what is the class's is not to be touched */
void ob_migrate_reset(struct ob_dev *dev);        /* the client has reset the device */
void ob_migrate_end(struct ob_dev *dev);          /* the client is gone */
void ob_migrate_first(struct ob_dev *dev);        /* a fresh device */
void ob_migrate_restore(struct ob_dev *dev);      /* a predecessor's */
int ob_migrate_restore_log(struct ob_dev *dev);
int ob_feature(struct ob_dev *dev, const struct ob_message *m);
int ob_feature_go_on(struct ob_dev *dev, int answer);
void ob_feature_expired(struct ob_dev *dev);
int ob_stream_read(struct ob_dev *dev, const struct ob_message *m);
int ob_stream_write(struct ob_dev *dev, const struct ob_message *m);

/* server.c */
int ob_source_set(struct ob_dev *dev, struct ob_source *source, int fd, uint32_t events);
void ob_listen_again(struct ob_dev *dev);
void ob_client_gone(struct ob_dev *dev);

/* The space of a region's index; NULL for other regions of PCI, and where there is none. */
static inline struct ob_space *ob_space(struct ob_dev *dev, uint32_t region)
{
    if (region < 6)
        return dev->spaces[region].size > 0 ? &dev->spaces[region] : NULL;
    return region >= OB_REGION_FIRST && region - OB_REGION_FIRST < dev->n_regions
               ? &dev->spaces[6 + region - OB_REGION_FIRST]
               : NULL;
}

static inline bool ob_on_control(const struct ob_dev *dev)
{
    return pthread_equal(atomic_load_explicit(&dev->control_thread, memory_order_relaxed), pthread_self());
}

#endif
