/* Interrupts: what kinds there are, and SET_IRQS in as many messages as it takes. */
#include "client/client.h"

#include <errno.h>

/* The most vectors in one message with bools: their bytes fit the smallest of largest messages. */
#define MOST_BOOLS 4096u

int ob_client_irq(struct ob_client *client, uint32_t index, struct ob_client_irq *irq)
{
    if (index >= client->info.irqs)
        return -EINVAL;
    *irq = client->irqs[index];
    return client->irq_errors[index];
}

struct irq_set {
    uint32_t flags, index, start, count;
    const uint8_t *bools;
    const int *fds;
};

static int check_set(struct ob_client *client, const struct irq_set *set)
{
    uint32_t data = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK, action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    struct ob_client_irq irq;
    int err = ob_client_irq(client, set->index, &irq);

    if (err)
        return err;
    if (set->flags != (data | action) || __builtin_popcount(data) != 1 || __builtin_popcount(action) != 1)
        return -EINVAL;
    if (set->start > irq.count || set->count > irq.count - set->start)
        return -EINVAL;
    if (set->count == 0 && (data != VFIO_IRQ_SET_DATA_NONE || set->start != 0))
        return -EINVAL;
    if (action != VFIO_IRQ_SET_ACTION_TRIGGER && !(irq.flags & VFIO_IRQ_INFO_MASKABLE))
        return -EINVAL;
    if (data == VFIO_IRQ_SET_DATA_EVENTFD && !(irq.flags & VFIO_IRQ_INFO_EVENTFD))
        return -EINVAL;
    return data == VFIO_IRQ_SET_DATA_BOOL && !set->bools ? -EINVAL : 0;
}

/* Without a descriptor for a vector its message has none at all: so runs with and runs without take turns. */
static bool has_fd(const struct irq_set *set, uint32_t i)
{
    return set->fds && set->fds[i] >= 0;
}

/* How many vectors from `done` on go with one message. */
static uint32_t next_piece(const struct ob_client *client, const struct irq_set *set, uint32_t done)
{
    uint32_t left = set->count - done, n = 1;

    if (set->flags & VFIO_IRQ_SET_DATA_BOOL)
        return left < MOST_BOOLS ? left : MOST_BOOLS;
    if (!(set->flags & VFIO_IRQ_SET_DATA_EVENTFD) || !set->fds)
        return left;
    while (n < left && has_fd(set, done + n) == has_fd(set, done) &&
           (!has_fd(set, done) || n < client->info.max_msg_fds))
        n++;
    return n;
}

static int send_piece(struct ob_submit *submit, const struct irq_set *set, uint32_t done, uint32_t count)
{
    struct ob_message message = { .header.command = OB_DEVICE_SET_IRQS,
                                  .u.irq_set = { .argsz = sizeof(struct ob_wire_irq_set),
                                                 .flags = set->flags,
                                                 .index = set->index,
                                                 .start = set->start + done,
                                                 .count = count } };
    struct ob_message_plan plan = { .take = ob_take_nothing };

    if (set->flags & VFIO_IRQ_SET_DATA_BOOL) {
        message.tail = set->bools + done;
        message.tail_size = count;
        message.u.irq_set.argsz += count;
    } else if ((set->flags & VFIO_IRQ_SET_DATA_EVENTFD) && has_fd(set, done)) {
        if (submit->client->info.max_msg_fds == 0)
            return -EOPNOTSUPP;
        message.nfds = count;
        plan.fds = set->fds + done;
    }
    return ob_submit_message(submit, &message, &plan);
}

int ob_client_set_irqs(struct ob_client *client, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
                       const uint8_t *bools, const int *fds, struct ob_call *call)
{
    struct irq_set set = { flags, index, start, count, bools, fds };
    struct ob_submit submit;
    size_t messages = 0;
    uint32_t done = 0, piece;
    int err = check_set(client, &set);

    if (err)
        return err;
    for (uint32_t at = 0; at < count; at += next_piece(client, &set, at))
        messages++;
    err = ob_submit_begin(&submit, client, call);
    if (err)
        return err;
    err = ob_submit_room(&submit, messages);
    do {
        piece = next_piece(client, &set, done);
        if (!err)
            err = send_piece(&submit, &set, done, piece);
        done += piece;
    } while (!err && done < count);
    return (int)ob_submit_end(&submit, err);
}
