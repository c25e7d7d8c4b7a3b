/* The ring of testdev: a worker thread that copies guest memory as entries in guest memory say (see testdev.c).
 *
 * The lock is held for each step of the worker; the control thread takes it to change what the worker sees, and never
 * while it calls what may wait for the worker. An entry is executed, counted and announced in this order, each by one
 * store to shared memory, so that a successor knows where to go on. */
#include <errno.h>
#include <string.h>
#include "testdev.h"

#define RING_MAX    256u
#define ENTRY_HOLD  1u
#define STATUS_DONE 0x80000000u
#define ASYNC_VALUE 0xa5a5a5a5u

/* --- The ring: the worker's side, under the lock ----------------------------------------------------------------- */

static void ring_unpin(struct scratch *s)
{
    ob_dma_unpin(s->worker, s->src_pins, s->n_src);
    ob_dma_unpin(s->worker, s->dst_pins, s->n_dst);
    s->n_src = s->n_dst = 0;
}

static void ring_announce(struct ob_dev *dev, struct ring_shared *ring)
{
    uint32_t vector = atomic_load(&ring->vector);

    if (vector < testdev_vectors(dev))
        ob_irq_pulse(dev, vector);
    atomic_store(&ring->announced, atomic_load(&ring->done));
}

/* Writes the status where the window still shows the entry; without it the guest took its memory away, and only
 * RING_DONE tells. */
static void ring_complete(struct scratch *s, int err)
{
    struct ring_shared *ring = ob_shared(s->dev);
    uint32_t done = atomic_load(&ring->done);
    struct entry *entries = s->window ? ob_dma_window_pointer(s->worker, s->window) : NULL;

    s->phase = RING_IDLE;
    if (entries)
        atomic_store(&entries[done & (s->ring_size - 1)].status, STATUS_DONE | (uint32_t)-err);
    atomic_store(&ring->vector, s->entry.vector);
    atomic_store(&ring->done, done + 1);
    ring_announce(s->dev, ring);
}

static void ring_copy(struct scratch *s)
{
    size_t done_src = 0, done_dst = 0;

    for (int i = 0, j = 0; i < s->n_src && j < s->n_dst;) {
        size_t n = s->src[i].iov_len - done_src, room = s->dst[j].iov_len - done_dst;

        if (n > room)
            n = room;
        memmove((uint8_t *)s->dst[j].iov_base + done_dst, (uint8_t *)s->src[i].iov_base + done_src, n);
        done_src += n;
        done_dst += n;
        if (done_src == s->src[i].iov_len)
            i++, done_src = 0;
        if (done_dst == s->dst[j].iov_len)
            j++, done_dst = 0;
    }
}

static void ring_message(struct scratch *s, enum ring_phase phase, uint64_t iova, bool to_guest);

/* What the end of a session, or a stop, cuts short stays to be done when the device runs again. The worker may find
 * that out before it is told to be quiet. */
static void ring_message_over(struct scratch *s, int err)
{
    if (err == -ENOTCONN)
        s->phase = RING_IDLE;
    else if (err < 0)
        ring_complete(s, err);
    else if (s->phase == RING_READING)
        ring_message(s, RING_WRITING, s->entry.dst, true);
    else
        ring_complete(s, 0);
}

static void ring_message_done(struct ob_dma *dma, int err)
{
    struct scratch *s = (struct scratch *)((char *)dma - offsetof(struct scratch, dma));

    pthread_mutex_lock(&s->lock);
    if (s->stale || !s->running) /* after a reset nobody waits for it */
        s->phase = RING_IDLE;
    else
        ring_message_over(s, err);
    s->stale = false;
    pthread_mutex_unlock(&s->lock);
    ob_worker_wake(s->worker);
}

static void ring_message(struct scratch *s, enum ring_phase phase, uint64_t iova, bool to_guest)
{
    s->phase = phase;
    s->dma = (struct ob_dma){
        .iova = iova, .buf = s->bounce, .len = s->entry.len, .to_guest = to_guest, .done = ring_message_done
    };
    int err = ob_dma_copy(s->worker, &s->dma);

    if (err != OB_LATER)
        ring_message_over(s, err);
}

static void ring_execute(struct scratch *s)
{
    struct entry *e = &s->entry;

    if (e->len == 0 || e->len > COPY_MAX) {
        ring_complete(s, -EINVAL);
        return;
    }
    s->n_src = ob_dma_pin(s->worker, e->src, e->len, PROT_READ, s->src, s->src_pins, PIECES_MAX);
    s->n_dst =
        s->n_src < 0 ? s->n_src : ob_dma_pin(s->worker, e->dst, e->len, PROT_WRITE, s->dst, s->dst_pins, PIECES_MAX);
    if (s->n_dst < 0) {
        int err = s->n_dst;

        if (s->n_src > 0)
            ob_dma_unpin(s->worker, s->src_pins, s->n_src);
        s->n_src = s->n_dst = 0;
        if (err == -EREMOTE && !(e->flags & ENTRY_HOLD))
            ring_message(s, RING_READING, e->src, false);
        else
            ring_complete(s, err);
    } else if (e->flags & ENTRY_HOLD) {
        s->hold_release = s->hold_cancel = false;
        s->phase = RING_HOLDING;
    } else {
        ring_copy(s);
        ring_unpin(s);
        ring_complete(s, 0);
    }
}

/* One step: >0 if there was one to make. */
static int ring_step(struct scratch *s)
{
    struct ring_shared *ring = ob_shared(s->dev);
    uint32_t done = atomic_load(&ring->done);

    if (s->phase == RING_HOLDING && (s->hold_release || s->hold_cancel)) {
        if (!s->hold_cancel)
            ring_copy(s);
        ring_unpin(s);
        if (s->stale)
            s->phase = RING_IDLE;
        else
            ring_complete(s, s->hold_cancel ? -ECANCELED : 0);
        s->stale = false;
        return 1;
    }
    if (s->phase != RING_IDLE || !s->running || !s->window || atomic_load(&ring->producer) == done)
        return 0;
    const struct entry *entries = ob_dma_window_pointer(s->worker, s->window);

    if (!entries)
        return 0; /* looked at again at the next doorbell */
    memcpy(&s->entry, &entries[done & (s->ring_size - 1)], sizeof(s->entry));
    ring_execute(s);
    return 1;
}

static int testdev_poll(struct ob_worker *worker)
{
    struct scratch *s = ob_scratch(ob_worker_dev(worker));
    struct ob_req *quiesced = NULL;

    pthread_mutex_lock(&s->lock);
    struct kept async = s->async;
    int work = ring_step(s) + (int)async.n;

    s->async.n = 0;
    if (s->phase != RING_HOLDING) {
        quiesced = s->quiescing;
        s->quiescing = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    testdev_release(&async, 0, ASYNC_VALUE);
    testdev_notify(s->dev, atomic_exchange(&s->notify, 0));
    if (quiesced)
        ob_reply(quiesced, 0, 0);
    return work;
}

const struct ob_worker_ops testdev_worker = { .poll = testdev_poll };

/* --- The ring: the control thread's side ------------------------------------------------------------------------- */

/* Makes the worker's view follow the registers. A window is closed outside the lock: closing may wait for the worker.
 */
int testdev_ring_apply(struct ob_dev *dev)
{
    const struct testdev *t = ob_state(dev);
    struct scratch *s = ob_scratch(dev);
    struct ob_window *window = NULL, *old;
    int err = 0;

    if (t->ring_ctrl & 1)
        err =
            ob_dma_window_open(dev, t->ring_addr, t->ring_size * sizeof(struct entry), PROT_READ | PROT_WRITE, &window);
    pthread_mutex_lock(&s->lock);
    old = s->window;
    s->window = err < 0 ? NULL : window;
    s->ring_size = t->ring_size;
    pthread_mutex_unlock(&s->lock);
    if (old)
        ob_dma_window_close(dev, old);
    ob_worker_wake(s->worker);
    return err;
}

bool testdev_ring_valid(const struct testdev *t)
{
    return !(t->ring_ctrl & 1) ||
           (t->ring_size > 0 && t->ring_size <= RING_MAX && !(t->ring_size & (t->ring_size - 1)));
}

int testdev_ring_ctrl_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct testdev *t = req_state(req);

    if (!testdev_ring_valid(t))
        return -EINVAL;
    return testdev_ring_apply(ob_req_dev(req));
}

/* Storing the same count again after a crash changes nothing. */
int testdev_doorbell_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));
    struct ring_shared *ring = ob_shared(s->dev);

    atomic_store(&ring->producer, (uint32_t)val);
    ob_worker_wake(s->worker);
    return OB_DONE;
}

int testdev_ring_done_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ring_shared *ring = ob_shared(ob_req_dev(req));

    *val = atomic_load(&ring->done);
    return OB_DONE;
}

int testdev_ring_release_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val,
                               uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    pthread_mutex_lock(&s->lock);
    s->hold_release = true;
    pthread_mutex_unlock(&s->lock);
    ob_worker_wake(s->worker);
    return OB_DONE;
}

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a - b < b_len || b - a < a_len;
}

void testdev_ring_unmap(struct ob_dev *dev, uint64_t iova, uint64_t len)
{
    struct scratch *s = ob_scratch(dev);

    pthread_mutex_lock(&s->lock);
    if (s->phase == RING_HOLDING &&
        (overlaps(s->entry.src, s->entry.len, iova, len) || overlaps(s->entry.dst, s->entry.len, iova, len)))
        s->hold_cancel = true;
    pthread_mutex_unlock(&s->lock);
    ob_worker_wake(s->worker);
}

int testdev_async_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    pthread_mutex_lock(&s->lock);
    int err = testdev_keep(&s->async, req);

    pthread_mutex_unlock(&s->lock);
    ob_worker_wake(s->worker);
    return err;
}

void testdev_ring_run(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);
    struct ring_shared *ring = ob_shared(dev);

    pthread_mutex_lock(&s->lock);
    s->running = true;
    for (unsigned event = 0; event < TESTDEV_EVENTS; event++) {
        atomic_fetch_add(&ring->rings[event], s->rings[event]);
        s->rings[event] = 0;
    }
    if (s->phase == RING_IDLE && atomic_load(&ring->announced) != atomic_load(&ring->done))
        ring_announce(dev, ring);
    pthread_mutex_unlock(&s->lock);
}

/* What rings while the device stands still, which a client can always do, has to wait: shared memory is being saved. If
 * this process dies with it, all events ring in its successor. */
void testdev_ring_rang(struct ob_dev *dev, unsigned event, uint32_t times)
{
    struct scratch *s = ob_scratch(dev);
    struct ring_shared *ring = ob_shared(dev);

    pthread_mutex_lock(&s->lock);
    if (s->running)
        atomic_fetch_add(&ring->rings[event], times);
    else
        s->rings[event] += times;
    pthread_mutex_unlock(&s->lock);
}

int testdev_ring_quiesce(struct ob_req *req)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));
    int result = OB_DONE;

    pthread_mutex_lock(&s->lock);
    struct kept async = s->async;

    s->async.n = 0;
    s->running = false;
    if (s->phase == RING_HOLDING) {
        s->hold_cancel = true;
        s->quiescing = req;
        result = OB_LATER;
    }
    pthread_mutex_unlock(&s->lock);
    testdev_release(&async, -ECANCELED, 0);
    ob_worker_wake(s->worker);
    return result;
}

void testdev_ring_reset(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);
    struct ring_shared *ring = ob_shared(dev);

    pthread_mutex_lock(&s->lock);
    s->stale = s->phase != RING_IDLE;
    s->hold_cancel = s->phase == RING_HOLDING;
    atomic_store(&ring->producer, 0);
    atomic_store(&ring->done, 0);
    atomic_store(&ring->announced, 0);
    pthread_mutex_unlock(&s->lock);
    ob_worker_wake(s->worker);
}
