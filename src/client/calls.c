/* Calls: their messages and slots, their results and time-outs; client.h has the theory. */
#include "client/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "transport/sender.h"

/* The longest that Linux is configured to have from tick to tick. */
#define TICK_NS 10000000u

/* Looked at by every call: without a function call for its address. */
static _Thread_local struct ob_callback_context callback_context __attribute__((tls_model("initial-exec")));

enum ob_callback ob_callback_now(const struct ob_client *client)
{
    return callback_context.client == client ? callback_context.kind : OB_NO_CALLBACK;
}

struct ob_callback_context ob_callback_enter(const struct ob_client *client, enum ob_callback kind)
{
    struct ob_callback_context before = callback_context;

    callback_context = (struct ob_callback_context){ client, kind };
    return before;
}

void ob_callback_leave(struct ob_callback_context before)
{
    callback_context = before;
}

uint64_t ob_client_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* What the kernel's last tick said, which costs a tenth; deadlines made from it are a tick later than asked for at
 * most, never earlier. */
static uint64_t clock_of_last_tick(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t ob_client_timeout_ns(const struct ob_client *client, int timeout_ms)
{
    int ms = timeout_ms ? timeout_ms : client->options.timeout_ms;

    return ms < 0 ? OB_CLIENT_NO_TIMEOUT : (uint64_t)ms * 1000000u;
}

/* --- The list of calls in flight --------------------------------------------------------------------------------- */

/* From the end: most calls have the same time-out, so the youngest goes last. */
static void list_add(struct ob_client *client, struct ob_call *call)
{
    struct ob_op *op = ob_op(call);
    struct ob_call *after = client->calls_last;

    while (after && ob_op(after)->deadline > op->deadline)
        after = ob_op(after)->prev;
    op->prev = after;
    op->next = after ? ob_op(after)->next : client->calls;
    *(after ? &ob_op(after)->next : &client->calls) = call;
    *(op->next ? &ob_op(op->next)->prev : &client->calls_last) = call;
}

static void list_remove(struct ob_client *client, struct ob_call *call)
{
    struct ob_op *op = ob_op(call);

    *(op->prev ? &ob_op(op->prev)->next : &client->calls) = op->next;
    *(op->next ? &ob_op(op->next)->prev : &client->calls_last) = op->prev;
}

static void call_over(struct ob_client *client, struct ob_call *call)
{
    struct ob_op *op = ob_op(call);

    list_remove(client, call);
    op->state = OB_OP_OVER;
    client->events++;
    if (op->waiter)
        ob_waiter_wake(client, op->waiter);
    if (call->done) {
        op->next = NULL;
        *client->ended_last = call;
        client->ended_last = &op->next;
    }
}

/* One of the things that a call waits for is over. */
static void call_less(struct ob_client *client, struct ob_call *call, ssize_t result)
{
    struct ob_op *op = ob_op(call);

    if (op->result >= 0)
        op->result = result < 0 ? result : op->result + result;
    if (--op->pending == 0) {
        call_over(client, call);
    } else if (op->timeout != OB_CLIENT_NO_TIMEOUT) {
        /* A call that is cut into several has its time for each. */
        list_remove(client, call);
        op->deadline = ob_deadline(client->now, op->timeout);
        list_add(client, call);
    }
}

/* --- Slots ------------------------------------------------------------------------------------------------------- */

static struct ob_slot *slot_take(struct ob_client *client)
{
    struct ob_slot *slot = &client->slots[client->free_slot];

    client->free_slot = slot->next_free;
    client->free_slots--;
    slot->busy = true;
    slot->uses++;
    slot->request.header.id = (uint16_t)(slot->uses * OB_CLIENT_SLOTS + (uint32_t)(slot - client->slots));
    return slot;
}

static void slot_free(struct ob_client *client, struct ob_slot *slot)
{
    struct ob_waiter *waiter = client->waiters;

    if (!slot->call)
        client->abandoned--;
    slot->call = NULL;
    slot->busy = false;
    slot->next_free = client->free_slot;
    client->free_slot = (uint32_t)(slot - client->slots);
    client->free_slots++;
    if (client->room_waiters > 0) {
        while (waiter && !waiter->room)
            waiter = waiter->next;
        if (waiter)
            ob_waiter_wake(client, waiter);
    }
}

void ob_slot_over(struct ob_client *client, struct ob_slot *slot, ssize_t result)
{
    struct ob_call *call = slot->call;

    slot_free(client, slot);
    if (call)
        call_less(client, call, result);
}

/* The caller of `call` gets its memory back: late replies find nothing to fill. */
static void slots_abandon(struct ob_client *client, const struct ob_call *call)
{
    for (unsigned i = 0; i < OB_CLIENT_SLOTS; i++) {
        struct ob_slot *slot = &client->slots[i];

        if (slot->busy && slot->call == call) {
            slot->call = NULL;
            slot->buf = NULL;
            client->abandoned++;
        }
    }
}

static void call_expire(struct ob_client *client, struct ob_call *call)
{
    struct ob_op *op = ob_op(call);

    slots_abandon(client, call);
    op->result = -ETIMEDOUT;
    op->pending = 0;
    call_over(client, call);
}

void ob_calls_expire(struct ob_client *client)
{
    struct ob_call *next;

    for (struct ob_call *call = client->calls; call && ob_op(call)->deadline <= client->now; call = next) {
        next = ob_op(call)->next;
        /* One that is still being made is for its maker to give up. */
        if (ob_op(call)->state == OB_OP_FLYING)
            call_expire(client, call);
    }
    if (client->abandoned > OB_CLIENT_ABANDONED)
        ob_client_die(client, -ENOTCONN, "the server has left %u requests unanswered", client->abandoned);
}

void ob_client_die(struct ob_client *client, int err, const char *format, ...)
{
    va_list args;

    if (client->dead)
        return;
    client->dead = err;
    va_start(args, format);
    vsnprintf(client->why, sizeof(client->why), format, args);
    va_end(args);
    shutdown(client->main.out.fd, SHUT_RDWR);
    client->main.out.broken = true;
    if (client->twin.out.fd >= 0) {
        shutdown(client->twin.out.fd, SHUT_RDWR);
        client->twin.out.broken = true;
    }
    for (unsigned i = 0; i < OB_CLIENT_SLOTS; i++) {
        struct ob_slot *slot = &client->slots[i];

        if (slot->busy) {
            if (slot->call || slot->always)
                slot->take(client, slot, err, NULL, NULL);
            ob_slot_over(client, slot, err);
        }
    }
    for (struct ob_waiter *waiter = client->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        ob_waiter_wake(client, waiter);
    }
}

void ob_calls_announce(struct ob_client *client)
{
    struct ob_callback_context before;

    if (!client->ended || ob_callback_now(client) != OB_NO_CALLBACK)
        return;
    before = ob_callback_enter(client, OB_IN_DONE);
    while (client->ended) {
        struct ob_call *call = client->ended;
        ssize_t result = ob_op(call)->result;

        client->ended = ob_op(call)->next;
        if (!client->ended)
            client->ended_last = &client->ended;
        pthread_mutex_unlock(&client->lock);
        call->done(call, result);
        pthread_mutex_lock(&client->lock);
    }
    ob_callback_leave(before);
    /* What they queued leaves without waiting for another call. */
    ob_out_flush(&client->main.out);
}

/* --- Making a call ----------------------------------------------------------------------------------------------- */

int ob_submit_begin(struct ob_submit *submit, struct ob_client *client, struct ob_call *call)
{
    enum ob_callback inside = ob_callback_now(client);
    struct ob_op *op;
    uint64_t now;

    if (inside == OB_IN_DMA || (inside == OB_IN_DONE && !call))
        return -EDEADLK;
    submit->client = client;
    submit->sync = !call;
    if (!call) {
        submit->own.done = NULL;
        submit->own.timeout_ms = 0;
        call = &submit->own;
    }
    submit->call = call;
    op = ob_op(call);
    op->result = 0;
    op->waiter = NULL;
    op->pending = 1;
    op->state = OB_OP_NONE;
    op->timeout = ob_client_timeout_ns(client, call->timeout_ms);
    pthread_mutex_lock(&client->lock);
    if (client->dead) {
        pthread_mutex_unlock(&client->lock);
        return -ENOTCONN;
    }
    now = clock_of_last_tick();
    if (now > client->now)
        client->now = now;
    op->deadline = ob_deadline(now + TICK_NS, op->timeout);
    list_add(client, call);
    return 0;
}

int ob_submit_room(struct ob_submit *submit, size_t messages)
{
    struct ob_client *client = submit->client;

    if (ob_callback_now(client) == OB_NO_CALLBACK)
        return 0;
    return client->free_slots < messages || ob_out_pending(&client->main.out) > OB_CLIENT_BACKLOG ? -EAGAIN : 0;
}

/* The head of a message whose data stays where it is. */
static size_t encode_head(uint8_t *head, const struct ob_message *message)
{
    size_t fixed = ob_commands[message->header.command].request.size;
    struct ob_header header = message->header;

    header.size = (uint32_t)(OB_HEADER_SIZE + fixed + message->tail_size);
    header.error = 0;
    memcpy(head, &header, sizeof(header));
    memcpy(head + sizeof(header), &message->u, fixed);
    return sizeof(header) + fixed;
}

int ob_message_put(struct ob_out *out, const struct ob_message *message, const int *fds)
{
    const size_t size = OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + message->tail_size;
    uint8_t head[OB_HEADER_SIZE + OB_MAX_FIXED_SIZE], *room;
    ssize_t used;

    if (message->nfds > 0 || size > OB_SEND_BATCH)
        return ob_out_send(out, head, encode_head(head, message), message->tail, message->tail_size, fds,
                           message->nfds);
    room = ob_out_reserve(out, size);
    if (!room)
        return -ENOMEM;
    used = ob_encode_request(room, size, message);
    if (used < 0)
        return (int)used;
    out->end += (size_t)used;
    return 0;
}

int ob_submit_message(struct ob_submit *submit, struct ob_message *message, const struct ob_message_plan *plan)
{
    struct ob_client *client = submit->client;
    struct ob_op *op = ob_op(submit->call);
    bool waits = ob_callback_now(client) == OB_NO_CALLBACK;
    struct ob_slot *slot;
    int err = 0;

    if (waits && client->main.out.full)
        err = ob_wait_sent(client, op->deadline);
    if (!err && client->free_slots == 0)
        err = waits ? ob_wait_room(client, op->deadline) : -EAGAIN;
    if (!err && client->dead)
        err = -ENOTCONN;
    if (err)
        return err;
    slot = slot_take(client);
    message->header.id = slot->request.header.id;
    slot->request.header.command = message->header.command;
    slot->request.u = message->u;
    slot->call = submit->call;
    slot->take = plan->take;
    slot->buf = plan->buf;
    slot->len = plan->len;
    slot->always = plan->always;
    err = ob_message_put(&client->main.out, message, plan->fds);
    if (err)
        slot_free(client, slot);
    else
        op->pending++;
    return err;
}

ssize_t ob_submit_end(struct ob_submit *submit, ssize_t err)
{
    struct ob_client *client = submit->client;
    struct ob_call *call = submit->call;
    struct ob_op *op = ob_op(call);
    bool sync = submit->sync;
    ssize_t result = 0;

    if (err < 0 && op->pending == 1) {
        list_remove(client, call);
        pthread_mutex_unlock(&client->lock);
        return err;
    }
    op->state = OB_OP_FLYING;
    if (err < 0 && op->result >= 0)
        op->result = err;
    if (--op->pending == 0)
        call_over(client, call);
    if (sync) {
        ob_wait_call(client, call);
        result = op->result;
    } else if (ob_callback_now(client) == OB_NO_CALLBACK) {
        ob_announce_and_send(client);
        ob_poll_update(client);
    }
    pthread_mutex_unlock(&client->lock);
    return result;
}

ssize_t ob_submit_one(struct ob_client *client, struct ob_call *call, struct ob_message *message,
                      const struct ob_message_plan *plan)
{
    struct ob_submit submit;
    int err = ob_submit_begin(&submit, client, call);

    if (err)
        return err;
    return ob_submit_end(&submit, ob_submit_message(&submit, message, plan));
}

ssize_t ob_take_nothing(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                        int *fds)
{
    return err;
}

/* --- For the caller ---------------------------------------------------------------------------------------------- */

ssize_t ob_call_wait(struct ob_client *client, struct ob_call *call)
{
    struct ob_op *op = ob_op(call);
    ssize_t result;

    if (call->done)
        return -EINVAL;
    pthread_mutex_lock(&client->lock);
    if (op->state == OB_OP_FLYING) {
        if (ob_callback_now(client) != OB_NO_CALLBACK) {
            pthread_mutex_unlock(&client->lock);
            return -EDEADLK;
        }
        client->now = ob_client_clock();
        ob_wait_call(client, call);
    }
    result = op->state == OB_OP_OVER ? op->result : -EINVAL;
    op->state = OB_OP_NONE;
    pthread_mutex_unlock(&client->lock);
    return result;
}

bool ob_call_ready(struct ob_client *client, const struct ob_call *call)
{
    bool ready;

    pthread_mutex_lock(&client->lock);
    ready = ob_op((struct ob_call *)call)->state == OB_OP_OVER;
    pthread_mutex_unlock(&client->lock);
    return ready;
}

int ob_client_flush(struct ob_client *client)
{
    int err = 0;

    if (ob_callback_now(client) == OB_IN_DMA)
        return -EDEADLK;
    pthread_mutex_lock(&client->lock);
    if (client->dead)
        err = -ENOTCONN;
    else if (ob_out_flush(&client->main.out) == -EAGAIN && ob_callback_now(client) == OB_NO_CALLBACK)
        err = ob_wait_sent(client, ob_deadline(ob_client_clock(), ob_client_timeout_ns(client, 0)));
    pthread_mutex_unlock(&client->lock);
    return err;
}
