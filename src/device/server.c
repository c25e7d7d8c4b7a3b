/* Sockets and the control loop: clients one after the other, and whatever else the control thread waits for. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/dev.h"

#define LOOP_EVENTS 16
/* A process that cannot take a client now, for want of descriptors or memory, tries again after so long. */
#define ACCEPT_AGAIN_NS UINT64_C(100000000)
/* A caller that polls (timeout 0) reads the client's socket each time, and looks at everything else this often: after
 * so many polls that found nothing, and after so many that did. */
#define IDLE_POLLS 16
#define BUSY_POLLS 64

int ob_source_set(struct ob_dev *dev, struct ob_source *source, int fd, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = source };
    int op = EPOLL_CTL_MOD;

    if (source->registered && source->fd != fd) {
        /* The old one may be closed already, and then is no longer in the set. */
        (void)epoll_ctl(dev->control.epoll, EPOLL_CTL_DEL, source->fd, NULL);
        source->registered = false;
    }
    if (source->registered && source->events == events)
        return 0;
    if (!source->registered)
        op = EPOLL_CTL_ADD;
    source->fd = fd;
    source->events = events;
    if (fd < 0)
        return 0;
    if (epoll_ctl(dev->control.epoll, op, fd, &event) < 0)
        return -errno;
    source->registered = true;
    return 0;
}

int ob_server_fd(struct ob_dev *dev)
{
    return dev->control.epoll;
}

/* --- Clients ----------------------------------------------------------------------------------------------------- */

void ob_client_gone(struct ob_dev *dev)
{
    (void)ob_source_set(dev, &dev->client_source, -1, 0);
    (void)ob_source_set(dev, &dev->twin_source, -1, 0);
    ob_session_end(&dev->session);
    ob_end_begin(dev);
}

/* What a call into the session came to. */
static int session_result(struct ob_dev *dev, int result)
{
    if (result >= 0)
        return result;
    if (dev->session.why[0])
        ob_log(dev, "the client's session ends: %s", dev->session.why);
    else if (result != -EPIPE && result != -ECONNRESET)
        ob_log(dev, "the client's session ends: %s", strerror(-result));
    ob_client_gone(dev);
    return 1;
}

static void twin_ready(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    if (events & ~EPOLLOUT)
        (void)ob_twin_read(&dev->session);
    if (events & EPOLLOUT)
        ob_twin_flush(&dev->session);
}

/* A client that goes closes both sockets. What is in flight then ends with the session, as it does for other clients,
 * and not a moment before it as if it had failed. */
static bool client_is_going(const struct ob_dev *dev)
{
    struct pollfd main = { .fd = dev->session.fd, .events = POLLRDHUP };

    return poll(&main, 1, 0) > 0;
}

static void end_twin(struct ob_dev *dev)
{
    struct ob_session *s = &dev->session;
    int err = s->twin.broken;

    (void)ob_source_set(dev, &dev->twin_source, -1, 0);
    if (client_is_going(dev))
        return;
    if (err != -EPIPE && err != -ECONNRESET)
        ob_log(dev, "the client's twin socket ends, and DMA by messages fails from now on: %s", strerror(-err));
    ob_twin_end(s);
    if (dev->phase == OB_PHASE_LIVE)
        ob_dma_send(dev); /* what waited fails, too */
}

static void watch_twin(struct ob_dev *dev)
{
    struct ob_session *s = &dev->session;

    if (s->twin.fd < 0)
        return;
    if (!s->twin.broken)
        s->twin.broken = ob_source_set(dev, &dev->twin_source, s->twin.fd, ob_twin_events(s));
    if (s->twin.broken)
        end_twin(dev);
}

/* After anything happened: what it made possible. */
static void settle(struct ob_dev *dev)
{
    struct ob_session *s = &dev->session;

    while (s->fd >= 0 && !s->blocked &&
           (ob_session_ready(s) || s->journal.header->out_sent < s->position.out_tail || s->closing))
        if (session_result(dev, ob_session_advance(s)) == 0)
            break;
    if (s->fd >= 0 && dev->phase == OB_PHASE_LIVE)
        ob_dma_send(dev);
    watch_twin(dev);
    if (s->fd >= 0)
        (void)ob_source_set(dev, &dev->client_source, s->fd, ob_session_events(s));
}

static void client_ready(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    struct ob_session *s = &dev->session;

    if (events & EPOLLOUT)
        (void)session_result(dev, ob_session_advance(s));
    else if (events & EPOLLIN)
        (void)session_result(dev, ob_session_read(s));
    else if (!(source->events & EPOLLIN))
        (void)session_result(dev, -EPIPE); /* it hung up while we could not read */
    else
        (void)session_result(dev, ob_session_read(s));
}

static int start_session(struct ob_dev *dev, int fd)
{
    dev->client_source.ready = client_ready;
    dev->twin_source.ready = twin_ready;
    if (dev->resuming) { /* without its predecessor's client */
        dev->resuming = false;
        ob_holder_drop_left(&dev->session.holder);
        ob_maps_forget(dev);
        ob_signals_disconnect(dev); /* committed with the connection */
        ob_migrate_end(dev);
    }
    ob_session_connect(&dev->session, fd);
    return ob_source_set(dev, &dev->client_source, fd, EPOLLIN);
}

/* A predecessor's client: memory and interrupts first, then the requests that were not executed. */
static int resume_session(struct ob_dev *dev, int fd)
{
    struct ob_session *s = &dev->session;
    int err = s->holder.socket < 0 ? -ENOTCONN : dev->asked_for_held ? 0 : ob_holder_ask(&s->holder);

    if (!err)
        err = ob_maps_restore(dev);
    if (!err)
        err = ob_signals_restore(dev);
    if (!err)
        err = ob_migrate_restore_log(dev);
    if (!err)
        err = ob_session_resume(s, fd);
    if (err)
        return err;
    dev->resuming = false;
    ob_holder_drop_left(&s->holder);
    dev->client_source.ready = client_ready;
    dev->twin_source.ready = twin_ready;
    dev->config_changed = true;
    ob_dev_commit(dev);
    ob_irqs_reevaluate(dev->irqs);
    ob_doorbells_restore(dev);
    if (ob_session_negotiated(s))
        ob_back_ops.opened(dev);
    ob_timers_update(dev);
    ob_dev_commit(dev);
    watch_twin(dev);
    return ob_source_set(dev, &dev->client_source, fd, ob_session_events(s));
}

static void accept_client(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    char why[OB_LISTENER_WHY];
    int fd = ob_accept(&dev->listener, why, sizeof(why));

    (void)events;
    if (fd == -EAGAIN || fd == -EINTR || fd == -ECONNABORTED)
        return;
    if (fd < 0)
        ob_log(dev, "%s", why);
    if (fd == -EPERM)
        return;                              /* turned away */
    (void)ob_source_set(dev, source, -1, 0); /* the next one waits in the backlog */
    if (fd < 0) {
        dev->accept_at = ob_now() + ACCEPT_AGAIN_NS;
        ob_timers_update(dev);
        return;
    }
    int err = start_session(dev, fd);
    if (err)
        (void)session_result(dev, err);
}

void ob_listen_again(struct ob_dev *dev)
{
    dev->accept_at = 0;
    dev->listen_source.ready = accept_client;
    if (dev->listening && ob_source_set(dev, &dev->listen_source, dev->listener.fd, EPOLLIN) < 0)
        dev->failure = -ENOMEM;
}

static int adopt(struct ob_dev *dev, int fd, const struct ob_listen_options *options)
{
    char why[OB_LISTENER_WHY];
    int kind = ob_listener_adopt(fd, options, &dev->listener, why, sizeof(why));

    if (kind < 0) {
        ob_log(dev, "%s", why);
        return kind;
    }
    if (kind == OB_ADOPTED_LISTENER) {
        dev->listening = true;
        ob_listen_again(dev);
        return dev->failure;
    }
    dev->only_one = true;
    bool resume = dev->resuming && dev->session.journal.header->connected;
    int err = resume ? resume_session(dev, fd) : start_session(dev, fd);
    if (err)
        ob_log(dev, "the client on descriptor %d cannot be %s: %s", fd, resume ? "taken over" : "served",
               strerror(-err));
    return err;
}

int ob_dev_listen(struct ob_dev *dev, const struct ob_listen *listen)
{
    char why[OB_LISTENER_WHY];
    struct ob_listen_options options = OB_LISTEN_DEFAULTS;

    dev->control_thread = pthread_self();
    if (listen->mode)
        options.mode = listen->mode;
    options.owner = listen->owner;
    options.group = listen->group;
    if (!listen->path)
        return adopt(dev, listen->fd, &options);
    int err = ob_listen(listen->path, &options, &dev->listener, why, sizeof(why));
    if (err) {
        ob_log(dev, "%s", why);
        return err;
    }
    dev->listening = true;
    ob_listen_again(dev);
    return dev->failure;
}

/* --- The loop ---------------------------------------------------------------------------------------------------- */

static int handle_events(struct ob_dev *dev, int timeout_ms)
{
    struct epoll_event events[LOOP_EVENTS];
    int n = epoll_wait(dev->control.epoll, events, LOOP_EVENTS, timeout_ms);

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 & 1) {
            ob_watch_dispatch(&dev->control, (struct ob_watch *)(uintptr_t)(events[i].data.u64 & ~UINT64_C(1)),
                              events[i].events);
        } else {
            struct ob_source *source = events[i].data.ptr;
            if (source->registered) /* an earlier event of this batch may have taken it away */
                source->ready(dev, source, events[i].events);
        }
    }
    ob_watches_sweep(&dev->control);
    settle(dev);
    return n;
}

/* Reads the client's socket without asking whether there is something to read. -EAGAIN: look at everything. */
static int poll_client(struct ob_dev *dev)
{
    if (dev->session.fd < 0 || dev->client_source.events != EPOLLIN)
        return -EAGAIN;
    int n = session_result(dev, ob_session_read(&dev->session));
    if (ob_twin_awaits(&dev->session))
        n += ob_twin_read(&dev->session);
    if (n > 0) {
        dev->idle_polls = 0;
        settle(dev);
        return ++dev->polls % BUSY_POLLS == 0 ? -EAGAIN : n;
    }
    return ++dev->idle_polls % IDLE_POLLS == 0 ? -EAGAIN : 0;
}

int ob_server_run(struct ob_dev *dev, int timeout_ms)
{
    int n = -EAGAIN;

    if (!ob_on_control(dev)) /* workers look at it: written only when it changes hands */
        dev->control_thread = pthread_self();
    if (dev->failure)
        return dev->failure;
    if (timeout_ms == 0)
        n = poll_client(dev);
    if (n == -EAGAIN)
        n = handle_events(dev, timeout_ms);
    ob_reader_quiescent(&dev->control.reader);
    return dev->failure ? dev->failure : n;
}
