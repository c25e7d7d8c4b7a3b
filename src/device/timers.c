/* Deadlines: the class's timers, which are state, those of kept requests, and the next look at the listener; one
 * timerfd for all. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "device/dev.h"

uint64_t ob_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t earliest(struct ob_dev *dev)
{
    const uint64_t *deadlines = ob_vault_part(&dev->vault, OB_PART_TIMERS);
    uint64_t first = dev->req->wait != OB_WAIT_NOTHING ? dev->req->deadline : UINT64_MAX;

    if (dev->accept_at && dev->accept_at < first)
        first = dev->accept_at;
    /* Without a session the device rests: its timers fire when the next one begins. */
    for (unsigned i = 0; dev->phase == OB_PHASE_LIVE && i < dev->cls.timers; i++)
        if (deadlines[i] && deadlines[i] < first)
            first = deadlines[i];
    return first;
}

/* A timer armed for too early wakes us once for nothing, which costs less than to set it with every change. */
void ob_timers_update(struct ob_dev *dev)
{
    uint64_t first = earliest(dev);

    if (first == UINT64_MAX || (dev->timer_armed && dev->timer_armed <= first))
        return;
    struct itimerspec at = {
        .it_value = { .tv_sec = (time_t)(first / 1000000000u), .tv_nsec = (long)(first % 1000000000u) },
    };
    if (timerfd_settime(dev->timer_source.fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
        dev->failure = -errno;
    dev->timer_armed = first;
}

static void run_timers(struct ob_dev *dev, uint64_t now)
{
    uint64_t *deadlines = ob_vault_part(&dev->vault, OB_PART_TIMERS);

    for (unsigned i = 0; i < dev->cls.timers; i++) {
        if (!deadlines[i] || deadlines[i] > now)
            continue;
        ob_transaction_begin(dev);
        deadlines[i] = 0;
        dev->vault.dirty[OB_PART_TIMERS] = true;
        dev->cls.ops.timer(dev, i);
        ob_transaction_end(dev);
    }
}

static void expired(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    uint64_t n;

    (void)events;
    if (read(source->fd, &n, sizeof(n)) < 0 && errno == EAGAIN)
        return;
    uint64_t now = ob_now();
    dev->timer_armed = 0;
    if (dev->phase == OB_PHASE_LIVE)
        run_timers(dev, now);
    ob_req_expire(dev, now);
    if (dev->accept_at && dev->accept_at <= now)
        ob_listen_again(dev);
    ob_timers_update(dev);
}

int ob_timers_init(struct ob_dev *dev)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    dev->timer_source.ready = expired;
    int err = ob_source_set(dev, &dev->timer_source, fd, EPOLLIN);
    if (err)
        close(fd);
    return err;
}

void ob_timer(struct ob_dev *dev, unsigned id, uint64_t abs_ns)
{
    uint64_t *deadlines = ob_vault_part(&dev->vault, OB_PART_TIMERS);

    if (id >= dev->cls.timers) {
        ob_log(dev, "the class uses timer %u and declares %u", id, dev->cls.timers);
        return;
    }
    if (dev->stopped_at && abs_ns) { /* what it asks for counts from when time goes on */
        uint64_t gone = ob_now() - dev->stopped_at;
        abs_ns = abs_ns > gone ? abs_ns - gone : 1;
    }
    deadlines[id] = abs_ns;
    dev->vault.dirty[OB_PART_TIMERS] = true;
}
