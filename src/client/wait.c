/* Waiting: who reads the socket for all, who sleeps meanwhile, and what a program's own loop polls; client.h has the
 * theory. */
#include "client/client.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NS 1000000000u

static struct timespec to_timespec(uint64_t ns)
{
    return (struct timespec){ .tv_sec = (time_t)(ns / NS), .tv_nsec = (long)(ns % NS) };
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When something in flight expires. */
static uint64_t next_expiry(const struct ob_client *client)
{
    return client->calls ? ob_op(client->calls)->deadline : OB_CLIENT_NO_TIMEOUT;
}

/* --- Asleep ------------------------------------------------------------------------------------------------------ */

static void enqueue(struct ob_client *client, struct ob_waiter *waiter)
{
    waiter->queued = true;
    waiter->woken = waiter->lead = false;
    waiter->next = NULL;
    waiter->prev = client->waiters_last;
    *(waiter->prev ? &waiter->prev->next : &client->waiters) = waiter;
    client->waiters_last = waiter;
    client->room_waiters += waiter->room;
}

static void dequeue(struct ob_client *client, struct ob_waiter *waiter)
{
    if (!waiter->queued)
        return;
    waiter->queued = false;
    *(waiter->prev ? &waiter->prev->next : &client->waiters) = waiter->next;
    *(waiter->next ? &waiter->next->prev : &client->waiters_last) = waiter->prev;
    client->room_waiters -= waiter->room;
}

void ob_waiter_wake(struct ob_client *client, struct ob_waiter *waiter)
{
    if (!waiter->queued)
        return;
    dequeue(client, waiter);
    waiter->woken = true;
    pthread_cond_signal(&waiter->cond);
}

/* Becomes the leader, or sleeps until woken or the deadline. True: this thread leads now. */
static bool take_lead(struct ob_client *client, struct ob_waiter *waiter, uint64_t deadline)
{
    struct timespec until = to_timespec(deadline);
    int err = 0;

    if (!client->leading) {
        client->leading = true;
        return true;
    }
    pthread_cond_init(&waiter->cond, NULL);
    enqueue(client, waiter);
    while (!waiter->woken && err != ETIMEDOUT) {
        if (deadline == OB_CLIENT_NO_TIMEOUT)
            err = pthread_cond_wait(&waiter->cond, &client->lock);
        else
            err = pthread_cond_clockwait(&waiter->cond, &client->lock, CLOCK_MONOTONIC, &until);
    }
    dequeue(client, waiter);
    pthread_cond_destroy(&waiter->cond);
    return waiter->lead;
}

/* Hands the lead on. */
static void resign(struct ob_client *client)
{
    struct ob_waiter *next = client->waiters;
    const uint64_t one = 1;

    if (next) {
        next->lead = true;
        ob_waiter_wake(client, next);
        return;
    }
    client->leading = false;
    /* It fails only if the counter is at its limit, and then they are awake already. */
    if (client->drainers > 0 && write(client->kick, &one, sizeof(one)) < 0)
        return;
}

/* --- Leading ----------------------------------------------------------------------------------------------------- */

/* Waits for bytes, and for room if something waits to be sent; then reads and sends. */
static void poll_and_read(struct ob_client *client, uint64_t wait)
{
    struct ob_channel *channels[] = { &client->main, &client->twin };
    struct pollfd fds[2];
    struct timespec timeout = to_timespec(wait);
    nfds_t n = client->twin.out.fd >= 0 ? 2 : 1;
    bool along = false;

    for (nfds_t i = 0; i < n; i++)
        fds[i] = (struct pollfd){ channels[i]->out.fd, (short)(POLLIN | (channels[i]->out.full ? POLLOUT : 0)), 0 };
    pthread_mutex_unlock(&client->lock);
    if (ppoll(fds, n, wait == OB_CLIENT_NO_TIMEOUT ? NULL : &timeout, NULL) < 0)
        fds[0].revents = fds[1].revents = 0; /* a signal: the caller looks at the clock and comes again */
    pthread_mutex_lock(&client->lock);
    for (nfds_t i = 0; i < n && !client->dead; i++) {
        if (fds[i].revents & POLLOUT)
            ob_out_flush(&channels[i]->out);
        if (fds[i].revents & ~POLLOUT && !along)
            along = ob_channel_read(client, channels[i], false);
    }
}

/* One turn of the leader: sends, waits for something until the deadline at most, and deals with it. */
static void lead_once(struct ob_client *client, uint64_t deadline)
{
    uint64_t until = earlier(deadline, next_expiry(client)), wait;

    ob_out_flush(&client->main.out);
    if (client->twin.out.fd >= 0)
        ob_out_flush(&client->twin.out);
    wait = until == OB_CLIENT_NO_TIMEOUT ? until : until > client->now ? until - client->now : 0;
    /* A recvmsg() that waits spares the poll(), but it waits for bytes alone, and as long as it is set to. */
    if (wait >= client->long_wait && client->twin.out.fd < 0 && !client->main.out.full)
        ob_channel_read(client, &client->main, true);
    else
        poll_and_read(client, wait);
    client->now = ob_client_clock();
    ob_calls_expire(client);
    ob_calls_announce(client);
}

void ob_wait_call(struct ob_client *client, struct ob_call *call)
{
    struct ob_op *op = ob_op(call);
    struct ob_waiter waiter = { 0 };

    if (op->state != OB_OP_OVER && ob_out_flush(&client->main.out) == -EAGAIN)
        ob_wait_sent(client, op->deadline); /* what this says, the call's own result says too */
    op->waiter = &waiter;
    while (op->state != OB_OP_OVER) {
        if (take_lead(client, &waiter, op->deadline)) {
            while (op->state != OB_OP_OVER)
                lead_once(client, op->deadline);
            resign(client);
            ob_poll_update(client);
        } else if (op->state != OB_OP_OVER) {
            client->now = ob_client_clock();
            ob_calls_expire(client);
            ob_announce_and_send(client);
        }
    }
    op->waiter = NULL;
}

int ob_wait_room(struct ob_client *client, uint64_t deadline)
{
    struct ob_waiter waiter = { .room = true };

    while (client->free_slots == 0 && !client->dead && client->now < deadline) {
        ob_wait_sent(client, deadline);
        if (client->free_slots > 0 || client->dead)
            break;
        if (take_lead(client, &waiter, deadline)) {
            if (client->free_slots == 0 && !client->dead)
                lead_once(client, deadline);
            resign(client);
        }
        client->now = ob_client_clock();
    }
    return client->dead ? -ENOTCONN : client->free_slots > 0 ? 0 : -ETIMEDOUT;
}

/* Waits for room in the socket while somebody else reads it, or for the lead to be free. */
static void wait_for_room_to_send(struct ob_client *client, uint64_t wait)
{
    struct pollfd fds[] = { { client->main.out.fd, POLLOUT, 0 }, { client->kick, POLLIN, 0 } };
    struct timespec timeout = to_timespec(wait);
    uint64_t count;

    client->drainers++;
    pthread_mutex_unlock(&client->lock);
    if (ppoll(fds, 2, wait == OB_CLIENT_NO_TIMEOUT ? NULL : &timeout, NULL) > 0 && (fds[1].revents & POLLIN) &&
        read(client->kick, &count, sizeof(count)) < 0) {
        /* Another one took it, and wakes us again when it leaves the lead. */
    }
    pthread_mutex_lock(&client->lock);
    client->drainers--;
}

int ob_wait_sent(struct ob_client *client, uint64_t deadline)
{
    while (ob_out_flush(&client->main.out) == -EAGAIN) {
        client->now = ob_client_clock();
        if (client->now >= deadline)
            return -ETIMEDOUT;
        if (!client->leading) {
            client->leading = true;
            lead_once(client, deadline);
            resign(client);
        } else {
            wait_for_room_to_send(client, deadline == OB_CLIENT_NO_TIMEOUT ? deadline : deadline - client->now);
        }
    }
    return client->dead ? -ENOTCONN : 0;
}

void ob_wait_turn(struct ob_client *client, uint64_t deadline)
{
    struct ob_waiter waiter = { 0 };

    if (client->leading && deadline <= client->now)
        return;
    if (take_lead(client, &waiter, earlier(deadline, next_expiry(client)))) {
        if (!client->dead)
            lead_once(client, deadline);
        resign(client);
    } else {
        client->now = ob_client_clock();
        ob_calls_expire(client);
        ob_announce_and_send(client);
    }
}

void ob_announce_and_send(struct ob_client *client)
{
    ob_calls_announce(client);
    if (client->main.out.full)
        ob_wait_sent(client, ob_deadline(client->now, ob_client_timeout_ns(client, 0)));
}

/* --- The program's own loop -------------------------------------------------------------------------------------- */

int ob_client_run(struct ob_client *client, int timeout_ms)
{
    uint64_t before, deadline, served;

    if (ob_callback_now(client) != OB_NO_CALLBACK)
        return -EDEADLK;
    pthread_mutex_lock(&client->lock);
    before = client->events;
    client->now = ob_client_clock();
    deadline = timeout_ms < 0 ? OB_CLIENT_NO_TIMEOUT : ob_deadline(client->now, (uint64_t)timeout_ms * 1000000u);
    do {
        ob_announce_and_send(client);
        if (client->dead)
            break;
        ob_wait_turn(client, deadline);
    } while (client->events == before && client->now < deadline);
    served = client->events - before;
    ob_poll_update(client);
    int result = served > 0 ? (int)served : client->dead ? -ENOTCONN : 0;
    pthread_mutex_unlock(&client->lock);
    return result;
}

void ob_poll_update(struct ob_client *client)
{
    struct epoll_event event = { .events = EPOLLIN };
    uint64_t deadline = next_expiry(client);

    if (client->poll_fd < 0)
        return;
    if (client->poll_out != client->main.out.full) {
        client->poll_out = client->main.out.full;
        if (client->poll_out)
            event.events |= EPOLLOUT;
        if (epoll_ctl(client->poll_fd, EPOLL_CTL_MOD, client->main.out.fd, &event) < 0)
            client->poll_out = !client->poll_out; /* tried again next time */
    }
    /* Armed for the earliest only, and again when it fires: calls that end in time cost nothing. */
    if (deadline < client->poll_deadline || client->poll_deadline <= client->now) {
        struct itimerspec timer = { .it_value = to_timespec(deadline == OB_CLIENT_NO_TIMEOUT ? 0 : deadline) };

        if (timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL) == 0)
            client->poll_deadline = deadline;
    }
}

static int make_poll_fd(struct ob_client *client)
{
    struct epoll_event event = { .events = EPOLLIN };
    int fd = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (fd < 0 || timer < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, client->main.out.fd, &event) < 0 ||
        epoll_ctl(fd, EPOLL_CTL_ADD, timer, &event) < 0 ||
        (client->twin.out.fd >= 0 && epoll_ctl(fd, EPOLL_CTL_ADD, client->twin.out.fd, &event) < 0)) {
        int err = -errno;

        if (fd >= 0)
            close(fd);
        if (timer >= 0)
            close(timer);
        return err;
    }
    client->poll_fd = fd;
    client->timer_fd = timer;
    client->poll_deadline = OB_CLIENT_NO_TIMEOUT;
    ob_poll_update(client);
    return 0;
}

int ob_client_fd(struct ob_client *client)
{
    int result = 0;

    pthread_mutex_lock(&client->lock);
    if (client->poll_fd < 0)
        result = make_poll_fd(client);
    if (!result)
        result = client->poll_fd;
    pthread_mutex_unlock(&client->lock);
    return result;
}
