/* The device's side of guest memory: copies, pins, windows.
 *
 * Memory that the client shares is copied to at once, by whichever thread asks. What it does not share is reached by
 * DMA_READ and DMA_WRITE: the control thread sends them, in pieces, after the replies of the requests at hand, since a
 * client may be unable to serve memory before it has its reply; a copy completes on the worker that asked for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/dev.h"

/* The list's changes are under dev->lock. */
static void append(struct ob_dma_list *list, struct ob_dma *dma)
{
    dma->lib.next = NULL;
    if (list->first)
        list->last->lib.next = dma;
    else
        list->first = dma;
    list->last = dma;
}

static void prepend(struct ob_dma_list *list, struct ob_dma *dma)
{
    dma->lib.next = list->first;
    if (!list->first)
        list->last = dma;
    list->first = dma;
}

static int allowed(const struct ob_dma *dma, int prot)
{
    return prot & (dma->to_guest ? PROT_WRITE : PROT_READ) ? 0 : -EACCES;
}

static bool bus_master(struct ob_dev *dev)
{
    return atomic_load_explicit(&dev->bus_master, memory_order_acquire);
}

/* Copies as far as memory is shared. OB_DONE, OB_LATER (the rest takes messages), or -errno. */
static int copy_shared(struct ob_dev *dev, struct ob_dma *dma)
{
    if (!bus_master(dev))
        return -EACCES;
    while (dma->lib.copied < dma->len) {
        struct ob_memory_piece piece;
        uint8_t *buf = (uint8_t *)dma->buf + dma->lib.copied;
        int err = ob_memory_find(dev->memory, dma->iova + dma->lib.copied, dma->len - dma->lib.copied, &piece);
        if (!err)
            err = allowed(dma, piece.prot);
        if (err)
            return err;
        if (!piece.host)
            return OB_LATER;
        memcpy(dma->to_guest ? piece.host : buf, dma->to_guest ? buf : piece.host, piece.len);
        if (dma->to_guest)
            ob_memory_written(dev->memory, piece.iova, piece.len);
        dma->lib.copied += piece.len;
    }
    return OB_DONE;
}

/* A piece of a copy to the guest that went as a message: the client may have written it from when it was sent on, and
 * has if it answered. It may handle it late, so both count. */
static void sent_piece_written(struct ob_dev *dev, const struct ob_dma *dma, uint64_t count)
{
    if (dma->to_guest && count > 0)
        ob_memory_written(dev->memory, dma->iova + dma->lib.copied, count);
}

static uint64_t at_most_a_piece(uint64_t len)
{
    return len < OB_SESSION_DMA_PIECE ? len : OB_SESSION_DMA_PIECE;
}

int ob_dma_copy(struct ob_worker *worker, struct ob_dma *dma)
{
    struct ob_dev *dev = worker->dev;

    dma->lib = (struct ob_dma_private){ .worker = worker };
    int err = copy_shared(dev, dma);
    if (err != OB_LATER)
        return err;
    pthread_mutex_lock(&dev->lock);
    bool connected = dev->phase == OB_PHASE_LIVE;
    if (connected)
        append(&dev->dma_queue, dma);
    pthread_mutex_unlock(&dev->lock);
    if (!connected)
        return -ENOTCONN;
    if (worker == &dev->control)
        dev->dma_asked++;
    ob_worker_wake(&dev->control);
    return OB_LATER;
}

static void complete(struct ob_dma *dma, int err)
{
    struct ob_worker *worker = dma->lib.worker;
    struct ob_dev *dev = worker->dev;

    if (worker == &dev->control) {
        ob_transaction_begin(dev);
        dma->done(dma, err);
        ob_transaction_end(dev);
        return;
    }
    dma->lib.err = err;
    pthread_mutex_lock(&dev->lock);
    append(&worker->completed, dma);
    pthread_mutex_unlock(&dev->lock);
    ob_worker_wake(worker);
}

void ob_dma_run_completed(struct ob_worker *worker)
{
    /* The lock is the device's: a worker without such copies keeps away from it. What is appended after this look is
     * followed by a wake-up. */
    if (!worker->completed.first)
        return;
    pthread_mutex_lock(&worker->dev->lock);
    struct ob_dma *dma = worker->completed.first;
    worker->completed.first = NULL;
    pthread_mutex_unlock(&worker->dev->lock);
    while (dma) {
        struct ob_dma *next = dma->lib.next; /* done() may free it, or start it again */
        dma->done(dma, dma->lib.err);
        dma = next;
    }
}

/* --- Messages ---------------------------------------------------------------------------------------------------- */

/* Sends the next piece of a copy. 0 or -errno; -EAGAIN: not now. */
static int send_piece(struct ob_dev *dev, struct ob_dma *dma)
{
    struct ob_memory_piece piece;
    uint64_t iova = dma->iova + dma->lib.copied;
    uint32_t limit = dev->session.journal.header->peer.max_data_xfer_size;

    if (limit > OB_SESSION_DMA_PIECE)
        limit = OB_SESSION_DMA_PIECE;
    int err = bus_master(dev) ? ob_memory_find(dev->memory, iova, dma->len - dma->lib.copied, &piece) : -EACCES;
    if (!err)
        err = allowed(dma, piece.prot);
    if (err)
        return err;
    if (limit == 0)
        return -EMSGSIZE; /* the client takes no data at all */
    uint64_t count = piece.len < limit ? piece.len : limit;
    struct ob_message m = {
        .header.command = dma->to_guest ? OB_DMA_WRITE : OB_DMA_READ,
        .u.dma_access = { iova, count },
    };
    if (dma->to_guest) {
        m.tail = (uint8_t *)dma->buf + dma->lib.copied;
        m.tail_size = count;
    }
    int id = ob_session_request(&dev->session, &m);
    if (id < 0)
        return id;
    dma->lib.id = (uint16_t)id;
    sent_piece_written(dev, dma, count);
    return 0;
}

void ob_dma_send(struct ob_dev *dev)
{
    for (;;) {
        pthread_mutex_lock(&dev->lock);
        struct ob_dma *dma = dev->dma_queue.first;
        if (dma)
            dev->dma_queue.first = dma->lib.next;
        pthread_mutex_unlock(&dev->lock);
        if (!dma)
            return;
        int err = send_piece(dev, dma);
        if (err == -EAGAIN) {
            pthread_mutex_lock(&dev->lock);
            prepend(&dev->dma_queue, dma);
            pthread_mutex_unlock(&dev->lock);
            return;
        }
        if (err) {
            complete(dma, err);
        } else {
            dma->lib.next = dev->dma_sent;
            dev->dma_sent = dma;
        }
    }
}

void ob_dma_answered(struct ob_dev *dev, uint16_t id, const struct ob_message *reply, int err)
{
    struct ob_dma **link = &dev->dma_sent;

    while (*link && (*link)->lib.id != id)
        link = &(*link)->lib.next;
    struct ob_dma *dma = *link;
    if (!dma)
        return; /* its copy has ended otherwise */
    *link = dma->lib.next;
    /* Whoever answers nonsense, or not at all, may have written it. */
    sent_piece_written(dev, dma, reply ? reply->u.dma_access.count : at_most_a_piece(dma->len - dma->lib.copied));
    if (!err && reply->u.dma_access.count == 0)
        err = -EIO;
    if (!err) {
        if (!dma->to_guest)
            memcpy((uint8_t *)dma->buf + dma->lib.copied, reply->tail, reply->tail_size);
        dma->lib.copied += reply->u.dma_access.count;
        err = copy_shared(dev, dma);
    }
    if (err == OB_LATER) {
        pthread_mutex_lock(&dev->lock);
        append(&dev->dma_queue, dma);
        pthread_mutex_unlock(&dev->lock);
        return;
    }
    complete(dma, err);
}

void ob_dma_fail_all(struct ob_dev *dev, int err)
{
    pthread_mutex_lock(&dev->lock);
    struct ob_dma *lists[2] = { dev->dma_sent, dev->dma_queue.first };
    dev->dma_sent = NULL;
    dev->dma_queue.first = NULL;
    pthread_mutex_unlock(&dev->lock);
    for (struct ob_dma *dma = lists[0]; dma; dma = dma->lib.next) {
        sent_piece_written(dev, dma, at_most_a_piece(dma->len - dma->lib.copied));
        ob_session_forget(&dev->session, dma->lib.id);
    }
    for (int i = 0; i < 2; i++) {
        for (struct ob_dma *dma = lists[i]; dma;) {
            struct ob_dma *next = dma->lib.next;
            complete(dma, err);
            dma = next;
        }
    }
}

/* --- Pins and windows -------------------------------------------------------------------------------------------- */

int ob_dma_pin(struct ob_worker *worker, uint64_t iova, size_t len, int prot, struct iovec *iov, uint32_t *pins,
               int max)
{
    if (!bus_master(worker->dev))
        return -EACCES;
    return ob_memory_pin(&worker->reader, worker->dev->memory, iova, len, prot, iov, pins, max);
}

void ob_dma_unpin(struct ob_worker *worker, const uint32_t *pins, int n)
{
    ob_memory_unpin(&worker->reader, worker->dev->memory, pins, n);
}

int ob_dma_window_open(struct ob_dev *dev, uint64_t iova, size_t len, int prot, struct ob_window **window)
{
    struct ob_window *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    int err = ob_window_open(dev->memory, w, iova, len, prot);
    if (err)
        free(w);
    else
        *window = w;
    return err;
}

void ob_dma_window_close(struct ob_dev *dev, struct ob_window *window)
{
    if (!window)
        return;
    ob_window_close(window);
    free(window);
}

void *ob_dma_window_pointer(struct ob_worker *worker, struct ob_window *window)
{
    if (!bus_master(worker->dev))
        return NULL;
    return ob_window_pointer(window);
}
