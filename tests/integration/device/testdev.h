/* testdev.h: what the parts of testdev share: testdev.c, the registers, testdev_ring.c, the worker, and
 * testdev_regions.c, regions and doorbells. */
#ifndef TESTDEV_H
#define TESTDEV_H

#include <pthread.h>
#include <stdatomic.h>
#include <outboard/device.h>

#define KEPT_MAX   16u
#define COPY_MAX   65536u
#define PIECES_MAX 17 /* 64 KiB in pages of 4 KiB, unaligned */

#define TESTDEV_EVENTS 26u
#define CONTROL_FIRST  3u /* the control loop's events; all others are the worker's */
#define CONTROL_EVENTS 3u

struct testdev {
    uint32_t scratch, flags, latch, count, levels, error_code, timer_fired, config_last;
    uint32_t unmaps, sessions, crashes, resets[3];
    uint32_t ring_size, ring_ctrl;
    uint64_t wide, ring_addr;
    uint32_t io32, io_array[4];
    uint16_t io16;
    uint8_t io8, echo[256];
    uint32_t region, under, rings[CONTROL_EVENTS];
};

/* producer is the doorbell's. An entry is over when `done` has passed it, and its vector was sent when `announced` has:
 * stored in this order, so that a successor finds at most one entry executed but not counted, or counted but silent. */
struct ring_shared {
    _Atomic uint32_t producer, done, announced, vector, rings[TESTDEV_EVENTS];
};

struct entry {
    uint64_t src, dst;
    uint32_t len, vector, flags;
    _Atomic uint32_t status;
};

struct kept {
    struct ob_req *reqs[KEPT_MAX];
    unsigned n;
};

/* What the worker has in hand. */
enum ring_phase { RING_IDLE, RING_HOLDING, RING_READING, RING_WRITING };

/* The lock covers all but dev, worker and kept, which are the control thread's, and notify. */
struct scratch {
    struct ob_dev *dev;
    struct ob_worker *worker;
    struct kept kept;
    _Atomic uint32_t notify; /* what the worker is to tell the client */
    pthread_mutex_t lock;
    struct kept async;
    struct ob_window *window;
    struct ob_req *quiescing;
    uint32_t ring_size, rings[TESTDEV_EVENTS]; /* rings: what rang while the device was to stand still */
    bool running, stale, hold_release, hold_cancel;
    enum ring_phase phase;
    struct entry entry;
    struct iovec src[PIECES_MAX], dst[PIECES_MAX];
    uint32_t src_pins[PIECES_MAX], dst_pins[PIECES_MAX];
    int n_src, n_dst;
    struct ob_dma dma;
    uint8_t bounce[COPY_MAX];
};

static inline struct testdev *req_state(struct ob_req *req)
{
    return ob_state(ob_req_dev(req));
}

/* How many vectors the device has. */
uint32_t testdev_vectors(const struct ob_dev *dev);
/* Keeps a request: OB_LATER or -EBUSY. Answers all that are kept. */
int testdev_keep(struct kept *kept, struct ob_req *req);
void testdev_release(struct kept *kept, int err, uint64_t val);

/* The worker: started by ops.open; its ring follows the registers with each apply. */
extern const struct ob_worker_ops testdev_worker;
/* Whether RING_CTRL and RING_SIZE go together. */
bool testdev_ring_valid(const struct testdev *t);
int testdev_ring_apply(struct ob_dev *dev);
/* Sends what a process that died may not have sent, and lets the worker go on. */
void testdev_ring_run(struct ob_dev *dev);
/* Counts rings of an event of the worker's. */
void testdev_ring_rang(struct ob_dev *dev, unsigned event, uint32_t times);
/* Stops the worker; OB_LATER if it has to let go of memory first, then it answers req. */
int testdev_ring_quiesce(struct ob_req *req);
/* After testdev_ring_apply() with the ring disabled: forgets what was in hand. */
void testdev_ring_reset(struct ob_dev *dev);
/* Cancels what is held in [iova, iova + len). */
void testdev_ring_unmap(struct ob_dev *dev, uint64_t iova, uint64_t len);

extern const struct ob_region testdev_regions[];
extern const struct ob_doorbell testdev_doorbells[];
/* Watches the worker's events; watches those of the control loop, or no more. */
int testdev_doorbells_open(struct ob_dev *dev, struct ob_worker *worker);
int testdev_doorbells_watch(struct ob_dev *dev, bool on);
/* Bits 0 and 1 of NOTIFY. */
void testdev_notify(struct ob_dev *dev, uint32_t what);
int testdev_rings_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val);
int testdev_notify_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask);

int testdev_ring_ctrl_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask);
int testdev_doorbell_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask);
int testdev_ring_done_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val);
int testdev_ring_release_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val,
                               uint64_t mask);
int testdev_async_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val);

#endif
