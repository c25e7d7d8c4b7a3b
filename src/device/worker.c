/* Workers: the threads of a device and its control loop, the descriptors they watch, how they sleep and are woken. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device/dev.h"

#define WORKER_EVENTS 16
#define BUSY_POLLS    64 /* a worker that finds work all the time looks at its descriptors this often */

struct ob_worker *ob_control(struct ob_dev *dev)
{
    return &dev->control;
}

void *ob_worker_context(struct ob_worker *worker)
{
    return worker->ctx;
}

struct ob_dev *ob_worker_dev(struct ob_worker *worker)
{
    return worker->dev;
}

void ob_worker_wake(struct ob_worker *worker)
{
    uint64_t one = 1;

    /* One write until the worker has seen it. */
    if (!atomic_exchange(&worker->woken, true))
        while (write(worker->wake, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
}

/* To be called before looking for what the wake-up was about. The eventfd is edge-triggered and never read: each write
 * is an event of its own. The exchange pairs with that of a waker that found the flag set and did not write. */
static void take_wake(struct ob_worker *worker)
{
    (void)atomic_exchange(&worker->woken, false);
}

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

static struct ob_watch *find_watch(struct ob_worker *worker, int fd)
{
    for (struct ob_watch *w = worker->watches; w; w = w->next)
        if (w->ready && w->fd == fd)
            return w;
    return NULL;
}

/* An epoll event names its watch with the lowest bit set, and anything else without. */
static int control_epoll(struct ob_worker *worker, int op, struct ob_watch *watch)
{
    struct epoll_event event = { .events = watch->events, .data.u64 = (uintptr_t)watch | 1 };

    return epoll_ctl(worker->epoll, op, watch->fd, &event) < 0 ? -errno : 0;
}

static int forget(struct ob_worker *worker, struct ob_watch *watch)
{
    watch->ready = NULL; /* freed by ob_watches_sweep(): this batch of events may still name it */
    worker->swept = false;
    return control_epoll(worker, EPOLL_CTL_DEL, watch);
}

int ob_worker_fd(struct ob_worker *worker, int fd, uint32_t events, ob_ready_fn *ready, void *ctx)
{
    struct ob_watch *watch = find_watch(worker, fd);

    if (fd < 0)
        return -EBADF;
    if (events == 0)
        return watch ? forget(worker, watch) : -ENOENT;
    if (!ready)
        return -EINVAL;
    if (watch) {
        uint32_t before = watch->events;
        watch->events = events;
        int err = before == events ? 0 : control_epoll(worker, EPOLL_CTL_MOD, watch);
        if (err) {
            watch->events = before;
            return err;
        }
        watch->ready = ready;
        watch->ctx = ctx;
        return 0;
    }
    watch = malloc(sizeof(*watch));
    if (!watch)
        return -ENOMEM;
    *watch = (struct ob_watch){ .fd = fd, .events = events, .ready = ready, .ctx = ctx, .next = worker->watches };
    int err = control_epoll(worker, EPOLL_CTL_ADD, watch);
    if (err) {
        free(watch);
        return err;
    }
    worker->watches = watch;
    return 0;
}

void ob_watch_dispatch(struct ob_worker *worker, struct ob_watch *watch, uint32_t events)
{
    if (!watch->ready)
        return;
    if (worker == &worker->dev->control) {
        ob_transaction_begin(worker->dev);
        watch->ready(worker, watch->fd, events, watch->ctx);
        ob_transaction_end(worker->dev);
    } else {
        watch->ready(worker, watch->fd, events, watch->ctx);
    }
}

void ob_watches_sweep(struct ob_worker *worker)
{
    if (worker->swept)
        return;
    for (struct ob_watch **link = &worker->watches; *link;) {
        struct ob_watch *watch = *link;
        if (watch->ready) {
            link = &watch->next;
            continue;
        }
        *link = watch->next;
        free(watch);
    }
    worker->swept = true;
}

void ob_watches_free(struct ob_worker *worker)
{
    while (worker->watches) {
        struct ob_watch *next = worker->watches->next;
        free(worker->watches);
        worker->watches = next;
    }
}

/* --- The loop of a thread ---------------------------------------------------------------------------------------- */

/* Whoever sleeps holds nothing of the guest's, and delays no unmap. */
static int wait_events(struct ob_worker *worker, struct epoll_event *events, bool sleep)
{
    if (!sleep)
        return epoll_wait(worker->epoll, events, WORKER_EVENTS, 0);
    ob_reader_offline(&worker->reader);
    int n = epoll_wait(worker->epoll, events, WORKER_EVENTS, -1);
    ob_reader_online(&worker->reader);
    return n;
}

static void handle_events(struct ob_worker *worker, bool sleep)
{
    struct epoll_event events[WORKER_EVENTS];
    int n = wait_events(worker, events, sleep);

    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 == 0)
            take_wake(worker);
        else
            ob_watch_dispatch(worker, (struct ob_watch *)(uintptr_t)(events[i].data.u64 & ~UINT64_C(1)),
                              events[i].events);
    }
    ob_watches_sweep(worker);
}

static int poll_once(struct ob_worker *worker)
{
    ob_dma_run_completed(worker); /* first: what done() begins, poll finds before a sleep */
    int n = worker->ops->poll(worker);

    ob_reader_quiescent(&worker->reader);
    return n;
}

static void *worker_main(void *arg)
{
    struct ob_worker *worker = arg;
    unsigned busy = 0;
    int n = 0;

    while (sem_wait(&worker->gate) < 0) /* EINTR is its only error */
        ;
    ob_reader_online(&worker->reader);
    while (!atomic_load_explicit(&worker->stop, memory_order_acquire)) {
        n = poll_once(worker);
        if (n == 0 && worker->ops->arm) {
            worker->ops->arm(worker);
            n = poll_once(worker);
        }
        if (n < 0)
            break;
        if (n == 0)
            handle_events(worker, true);
        else if (++busy % BUSY_POLLS == 0)
            handle_events(worker, false);
    }
    if (n < 0)
        ob_log(worker->dev, "a worker stopped: %s", strerror(-n));
    ob_reader_offline(&worker->reader);
    return NULL;
}

/* --- Start and stop ---------------------------------------------------------------------------------------------- */

static int init_worker(struct ob_worker *worker, struct ob_dev *dev)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = 0 };

    worker->dev = dev;
    worker->swept = true;
    worker->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (worker->wake < 0 || worker->epoll < 0)
        return -errno;
    if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->wake, &event) < 0)
        return -errno;
    return ob_reader_add(ob_memory_epoch(dev->memory), &worker->reader);
}

/* A worker that has ended unpins nothing more. */
static void drop_pins(struct ob_worker *worker)
{
    if (worker->reader.held > 0)
        ob_log(worker->dev, "a worker ends with guest memory pinned: the class has to unpin it in ops.quiesce");
    for (uint32_t slot = 0; worker->reader.held > 0; slot++)
        while (atomic_load(&worker->reader.counters[slot]) > 0)
            ob_reader_lower(&worker->reader, slot);
}

static void close_worker(struct ob_worker *worker)
{
    if (worker->reader.epoch) {
        drop_pins(worker);
        (void)ob_reader_remove(&worker->reader); /* refuses only what is pinned */
    }
    ob_watches_free(worker);
    if (worker->wake >= 0)
        close(worker->wake);
    if (worker->epoll >= 0)
        close(worker->epoll);
}

/* Signals are the process's, and none of its handlers is to run on our threads; those that a thread's own instructions
 * cause stay, as a fault in guest memory that was cut short is one. */
static int make_thread(struct ob_worker *worker)
{
    sigset_t blocked, before;

    sigfillset(&blocked);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int err = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -err;
}

int ob_worker_start(struct ob_dev *dev, const struct ob_worker_ops *ops, void *ctx, struct ob_worker **out)
{
    struct ob_worker *worker;

    if (!ops->poll || !dev->starting)
        return -EINVAL;
    if (posix_memalign((void **)&worker, _Alignof(struct ob_worker), sizeof(*worker)) != 0)
        return -ENOMEM;
    memset(worker, 0, sizeof(*worker));
    worker->wake = worker->epoll = -1;
    worker->ops = ops;
    worker->ctx = ctx;
    sem_init(&worker->gate, 0, 0);
    int err = init_worker(worker, dev);
    if (!err)
        err = make_thread(worker);
    if (err) {
        close_worker(worker);
        free(worker);
        return err;
    }
    worker->next = dev->workers;
    *out = dev->workers = worker;
    return 0;
}

void ob_workers_release(struct ob_dev *dev)
{
    dev->starting = false;
    for (struct ob_worker *w = dev->workers; w && !w->released; w = w->next) {
        w->released = true;
        sem_post(&w->gate);
    }
}

void ob_workers_stop(struct ob_dev *dev)
{
    for (struct ob_worker *w = dev->workers; w; w = w->next) {
        atomic_store_explicit(&w->stop, true, memory_order_release);
        ob_worker_wake(w);
    }
    ob_workers_release(dev);
    while (dev->workers) {
        struct ob_worker *worker = dev->workers;
        pthread_join(worker->thread, NULL);
        ob_dma_run_completed(worker);
        dev->workers = worker->next;
        close_worker(worker);
        free(worker);
    }
}

static void control_woken(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    take_wake(&dev->control);
    ob_answers_take(dev);
}

/* Workers have passed a quiescent point, or unpinned: what waits for them may go on. */
static void epoch_woken(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    ob_epoch_clear(ob_memory_epoch(dev->memory));
    if (ob_memory_poisoned(dev->memory) && (dev->phase == OB_PHASE_LIVE || dev->phase == OB_PHASE_STOPPED)) {
        ob_log(dev, "the client cut short a file that it had given as guest memory: its session ends");
        ob_client_gone(dev);
        return;
    }
    if (dev->phase == OB_PHASE_DRAINING)
        ob_end_go_on(dev);
    else if (dev->req->wait != OB_WAIT_NOTHING && dev->req->wait != OB_WAIT_HANDLER)
        (void)ob_req_finish(dev, 0);
}

int ob_control_init(struct ob_dev *dev)
{
    struct ob_worker *control = &dev->control;

    control->dev = dev;
    control->swept = true;
    control->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    control->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (control->wake < 0 || control->epoll < 0)
        return -errno;
    dev->wake_source.ready = control_woken;
    dev->epoch_source.ready = epoch_woken;
    int err = ob_reader_add(ob_memory_epoch(dev->memory), &control->reader);
    if (!err) {
        ob_reader_online(&control->reader);
        err = ob_source_set(dev, &dev->wake_source, control->wake, EPOLLIN | EPOLLET);
    }
    if (!err)
        err = ob_source_set(dev, &dev->epoch_source, ob_epoch_wake_fd(ob_memory_epoch(dev->memory)), EPOLLIN);
    return err;
}

void ob_control_close(struct ob_dev *dev)
{
    if (dev->control.reader.epoch)
        ob_reader_offline(&dev->control.reader);
    close_worker(&dev->control);
}
