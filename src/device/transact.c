/* Transactions: commits and the effects that follow them, and requests that are kept.
 *
 * Theory of operation. Whatever runs the class's code on the control thread is a transaction: the execution of (a part
 * of) a request, a timer, a descriptor that became ready. It changes the live state; at its end state, position and
 * interrupts become current in one commit, and only then do effects go out: interrupts, timers, what ob_after() asked
 * for, and, when the session flushes, the reply.
 *
 * A request that a handler keeps has not happened: what the handler changed is rolled back, so that a successor may
 * execute it again. It happens when it is answered: the answer ends in the transaction of whoever gave it, on the
 * control thread, or in one of its own if it came from another thread. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/dev.h"
#include "session/steps.h"

/* --- Commit ------------------------------------------------------------------------------------------------------- */

static void each_signal(struct ob_dev *dev, const uint64_t *words, void (*fn)(struct ob_dev *, unsigned))
{
    for (unsigned w = 0; w < dev->vault.words; w++)
        for (uint64_t bits = words[w]; bits; bits &= bits - 1)
            fn(dev, w * 64 + (unsigned)__builtin_ctzll(bits));
}

static void raise_level(struct ob_dev *dev, unsigned vector)
{
    (void)ob_irqs_level(dev->irqs, vector, true);
}

static void lower_level(struct ob_dev *dev, unsigned vector)
{
    (void)ob_irqs_level(dev->irqs, vector, false);
}

/* What has no memory of its own is kept for a predecessor's client until its eventfds are here: it goes with the next
 * commit, and the next. */
static void notify(struct ob_dev *dev, unsigned signal)
{
    if (dev->resuming)
        ob_dev_intend(dev, signal);
    else
        ob_irqs_notify(dev->irqs, signal == OB_SIGNAL_ERROR ? VFIO_PCI_ERR_IRQ_INDEX : VFIO_PCI_REQ_IRQ_INDEX);
}

static void pulse(struct ob_dev *dev, unsigned signal)
{
    if (signal < dev->vectors)
        (void)ob_irqs_pulse(dev->irqs, signal);
    else if (signal <= dev->vectors + OB_SIGNAL_REQUEST)
        notify(dev, signal - dev->vectors);
    else
        ob_doorbell_ring(dev, signal - dev->vectors - OB_SIGNAL_EVENT);
}

/* Delivers the interrupts of the current commit, a predecessor's too. */
static void signal_interrupts(struct ob_dev *dev)
{
    struct ob_intents intents;
    bool reset;

    bool due = ob_vault_unsignalled(&dev->vault, &intents, &reset);
    if (due && reset)
        ob_irqs_reset(dev->irqs);
    if (dev->config_changed) {
        const uint8_t *config = ob_vault_part(&dev->vault, OB_PART_CONFIG);
        bool still = ob_migrate_still(dev);
        dev->config_changed = false;
        atomic_store_explicit(&dev->bus_master, !still && ob_pci_bus_master(dev->layout, config), memory_order_release);
        ob_irqs_hold(dev->irqs, still);
        atomic_store_explicit(&dev->messages,
                              ob_pci_msi_enabled(dev->layout, config) > 0 || ob_pci_msix_enabled(dev->layout, config),
                              memory_order_release);
        ob_irqs_config(dev->irqs, config);
    }
    if (!due)
        return;
    if (intents.set) {
        each_signal(dev, intents.clear, lower_level);
        each_signal(dev, intents.set, raise_level);
        each_signal(dev, intents.pulse, pulse);
    }
    if (!dev->vault.has_intents)
        ob_vault_signalled(&dev->vault);
}

/* Each effect is a transaction, which may ask for more effects: they are appended, not nested. Between the pieces of a
 * request (depth is not 0) it is committed all the same, since the pieces that follow may be undone. */
static void run_after(struct ob_dev *dev)
{
    if (dev->running_after)
        return;
    dev->running_after = true;
    while (dev->next_after < dev->due_after) {
        struct ob_after after = dev->after[dev->next_after++];
        ob_transaction_begin(dev);
        after.fn(dev, after.arg);
        ob_transaction_end(dev);
        if (dev->depth > 0)
            ob_dev_commit(dev);
    }
    dev->n_after = dev->next_after = dev->due_after = 0;
    dev->running_after = false;
}

void ob_dev_commit(struct ob_dev *dev)
{
    bool timers = dev->vault.dirty[OB_PART_TIMERS];

    ob_vault_commit(&dev->vault, &dev->session.position);
    dev->due_after = dev->n_after;
    /* A kept request may have let go of descriptors that a successor, which executes it again, needs. */
    if (!dev->session.kept)
        ob_holder_flush(&dev->session.holder);
    signal_interrupts(dev);
    ob_step(signalled);
    if (timers)
        ob_timers_update(dev);
    if (dev->n_after > dev->next_after)
        run_after(dev);
}

void ob_dev_rollback(struct ob_dev *dev)
{
    ob_vault_rollback(&dev->vault);
    dev->n_after = dev->due_after;
}

void ob_after(struct ob_dev *dev, void (*fn)(struct ob_dev *, uint64_t), uint64_t arg)
{
    if (dev->n_after == dev->max_after) {
        unsigned max = dev->max_after ? 2 * dev->max_after : 8;
        struct ob_after *after = realloc(dev->after, max * sizeof(*after));
        if (!after) {
            dev->failure = -ENOMEM; /* an effect would be lost: the device ends instead */
            return;
        }
        dev->after = after;
        dev->max_after = max;
    }
    dev->after[dev->n_after++] = (struct ob_after){ fn, arg };
}

static bool changed(const struct ob_dev *dev)
{
    const struct ob_vault *v = &dev->vault;

    return v->has_intents || v->reset_irqs || v->dirty[OB_PART_STATE] || v->dirty[OB_PART_CONFIG] ||
           v->dirty[OB_PART_TIMERS] || v->dirty[OB_PART_BINDINGS] || v->dirty[OB_PART_MIGRATION] ||
           dev->n_after > dev->next_after;
}

void ob_transaction_begin(struct ob_dev *dev)
{
    dev->depth++;
    dev->vault.dirty[OB_PART_STATE] = true; /* the class writes where it likes */
}

void ob_transaction_end(struct ob_dev *dev)
{
    if (--dev->depth > 0)
        return;
    struct ob_req *req = dev->req;
    if (req->wait == OB_WAIT_HANDLER && req->answered)
        (void)ob_req_finish(dev, 0);
    if (changed(dev))
        ob_dev_commit(dev);
}

/* --- Kept requests ------------------------------------------------------------------------------------------------ */

struct ob_req *ob_req_new(struct ob_dev *dev)
{
    struct ob_req *req = calloc(1, sizeof(*req));

    if (req)
        req->dev = dev;
    return req;
}

struct ob_dev *ob_req_dev(struct ob_req *req)
{
    return req->dev;
}

int ob_req_keep(struct ob_req *req, enum ob_wait wait)
{
    struct ob_dev *dev = req->dev;
    uint32_t ms = dev->cls.max_reply_ms ? dev->cls.max_reply_ms : OB_DEFAULT_REPLY_MS;

    if (req->wait == OB_WAIT_NOTHING) {
        /* A client waits for a request since it sent it: one that had to queue has used up time already. */
        bool queued = req->kind != OB_REQ_QUIESCE && dev->session.position.executed < dev->queued_until;
        req->since = queued ? dev->queued_since : ob_now();
        req->deadline = req->since + ms * UINT64_C(1000000);
    }
    req->wait = wait;
    ob_timers_update(dev);
    return OB_LATER;
}

/* The kept request is answered. Those that came while it was kept have waited no longer than it did. */
static void complete(struct ob_dev *dev, const struct ob_req *req, int err)
{
    dev->queued_since = req->since;
    dev->queued_until = dev->session.journal.header->in_tail;
    ob_session_complete(&dev->session, err);
}

/* Goes on with the request that was kept and now is answered, or no longer has to wait. Returns OB_LATER if it is kept
 * again. */
int ob_req_finish(struct ob_dev *dev, int err)
{
    struct ob_req *req = dev->req;
    uint64_t deadline = req->deadline;

    if (!err)
        err = req->answered ? req->err : 0;
    req->answered = false;
    req->wait = OB_WAIT_NOTHING;
    dev->depth++;
    switch (req->kind) {
    case OB_REQ_ACCESS:
    case OB_REQ_MULTI:
        err = ob_access_resume(dev, err, req->val);
        break;
    case OB_REQ_UNMAP:
        if (err < 0)
            ob_log(dev, "the device refused to let go of guest memory (%s): ignored", strerror(-err));
        err = ob_maps_unmap_go_on(dev);
        break;
    case OB_REQ_IRQS:
        err = err ? err : ob_signals_set_go_on(dev);
        break;
    case OB_REQ_RESET:
        err = err ? err : ob_reset_finish(dev, true, req->reset);
        break;
    case OB_REQ_FEATURE:
        err = ob_feature_go_on(dev, err);
        break;
    case OB_REQ_QUIESCE:
        dev->depth--;
        ob_end_go_on(dev);
        return OB_DONE;
    }
    dev->depth--;
    if (err == OB_LATER) {
        req->deadline = deadline; /* however often it is kept, the client waits since the first time */
        return err;
    }
    /* What the answer's transaction changed is committed even if it refuses; what the library went on with is undone
     * where it failed (run_access()). */
    complete(dev, req, err);
    return OB_DONE;
}

void ob_req_expire(struct ob_dev *dev, uint64_t now)
{
    struct ob_req *req = dev->req;

    if (req->wait == OB_WAIT_NOTHING || now < req->deadline)
        return;
    if (req->kind == OB_REQ_QUIESCE) {
        ob_log(dev, "still waiting for the device to become quiet after its client went");
        req->deadline = UINT64_MAX;
        return;
    }
    ob_log(dev, "a request was kept beyond its deadline and is refused (command %u)",
           dev->session.request.header.command);
    if (req->kind == OB_REQ_FEATURE)
        ob_feature_expired(dev);
    if (req->wait == OB_WAIT_HANDLER) {
        struct ob_req *next = ob_req_new(dev);
        if (!next) {
            dev->failure = -ENOMEM;
            return;
        }
        /* The handler still knows this one: it is freed when it is answered. */
        req->expired = true;
        dev->req = next;
    } else {
        if (req->kind == OB_REQ_IRQS)
            ob_signals_note(dev);
        req->wait = OB_WAIT_NOTHING;
    }
    complete(dev, req, -ETIMEDOUT);
}

static void take_answer(struct ob_dev *dev, struct ob_req *req, int err, uint64_t val)
{
    if (req->expired) {
        free(req);
        return;
    }
    req->err = err;
    req->val = val;
    req->answered = true;
}

void ob_reply(struct ob_req *req, int err, uint64_t val)
{
    struct ob_dev *dev = req->dev;

    if (ob_on_control(dev) && dev->depth > 0) {
        take_answer(dev, req, err, val); /* the end of the transaction goes on with it */
        return;
    }
    pthread_mutex_lock(&dev->lock);
    req->err = err;
    req->val = val;
    req->next = dev->answers;
    dev->answers = req;
    pthread_mutex_unlock(&dev->lock);
    ob_worker_wake(&dev->control);
}

void ob_answers_take(struct ob_dev *dev)
{
    pthread_mutex_lock(&dev->lock);
    struct ob_req *req = dev->answers;
    dev->answers = NULL;
    pthread_mutex_unlock(&dev->lock);
    while (req) {
        struct ob_req *next = req->next;
        ob_transaction_begin(dev);
        take_answer(dev, req, req->err, req->val);
        ob_transaction_end(dev);
        req = next;
    }
}

/* --- Interrupts as a device sees them ---------------------------------------------------------------------------- */

/* From a handler an interrupt is a consequence of the state it changed, and becomes true with it. */
static bool in_handler(const struct ob_dev *dev)
{
    return ob_on_control(dev) && dev->depth > 0;
}

static void intend(struct ob_dev *dev, uint64_t *on, uint64_t *off, unsigned signal)
{
    on[signal / 64] |= UINT64_C(1) << (signal % 64);
    if (off)
        off[signal / 64] &= ~(UINT64_C(1) << (signal % 64));
    dev->vault.has_intents = true;
}

void ob_dev_intend(struct ob_dev *dev, unsigned signal)
{
    intend(dev, dev->vault.intents.pulse, NULL, dev->vectors + signal);
}

void ob_irq_level(struct ob_dev *dev, unsigned vector, bool on)
{
    struct ob_intents *i = &dev->vault.intents;

    /* An end takes back a beginning; a beginning after an end is an edge, for which both are delivered in that order.
     */
    if (vector < dev->vectors && in_handler(dev))
        intend(dev, on ? i->set : i->clear, on ? NULL : i->set, vector);
    else
        (void)ob_irqs_level(dev->irqs, vector, on);
}

void ob_irq_pulse(struct ob_dev *dev, unsigned vector)
{
    if (vector < dev->vectors && in_handler(dev))
        intend(dev, dev->vault.intents.pulse, NULL, vector);
    else
        (void)ob_irqs_pulse(dev->irqs, vector);
}

void ob_irq_error(struct ob_dev *dev)
{
    if (in_handler(dev))
        ob_dev_intend(dev, OB_SIGNAL_ERROR);
    else
        ob_irqs_notify(dev->irqs, VFIO_PCI_ERR_IRQ_INDEX);
}

void ob_irq_request(struct ob_dev *dev)
{
    if (in_handler(dev))
        ob_dev_intend(dev, OB_SIGNAL_REQUEST);
    else
        ob_irqs_notify(dev->irqs, VFIO_PCI_REQ_IRQ_INDEX);
}
