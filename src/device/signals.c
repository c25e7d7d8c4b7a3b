/* SET_IRQS, and the descriptors of interrupts over sessions and crashes.
 *
 * Which descriptor belongs to which vector is state (the part `bindings`: a key of the holder's for each), so that a
 * successor finds its eventfds. Descriptors that were replaced may still be written to by a worker: they are closed,
 * and the request answered, when every worker has passed a quiescent point. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "device/dev.h"

/* The bindings' order: INTx trigger, mask, unmask; ERR; REQ; MSI; MSI-X. */
enum { BIND_INTX, BIND_INTX_MASK, BIND_INTX_UNMASK, BIND_ERR, BIND_REQ, BIND_MSI };

size_t ob_bindings_size(const struct ob_dev *dev)
{
    return (BIND_MSI + dev->layout->msi_vectors + dev->layout->msix_vectors) * sizeof(uint64_t);
}

static unsigned n_bindings(const struct ob_dev *dev)
{
    return (unsigned)(ob_bindings_size(dev) / sizeof(uint64_t));
}

/* What a binding is, as SET_IRQS says it. */
static void binding_name(const struct ob_dev *dev, unsigned b, uint32_t *index, uint32_t *start, uint32_t *action)
{
    static const struct {
        uint32_t index, action;
    } fixed[BIND_MSI] = {
        { VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER },
        { VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_MASK },
        { VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK },
        { VFIO_PCI_ERR_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER },
        { VFIO_PCI_REQ_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER },
    };

    *start = 0;
    *action = VFIO_IRQ_SET_ACTION_TRIGGER;
    if (b < BIND_MSI) {
        *index = fixed[b].index;
        *action = fixed[b].action;
    } else if (b - BIND_MSI < dev->layout->msi_vectors) {
        *index = VFIO_PCI_MSI_IRQ_INDEX;
        *start = b - BIND_MSI;
    } else {
        *index = VFIO_PCI_MSIX_IRQ_INDEX;
        *start = b - BIND_MSI - dev->layout->msi_vectors;
    }
}

static void set_binding(struct ob_dev *dev, unsigned b, uint64_t key)
{
    uint64_t *keys = ob_vault_part(&dev->vault, OB_PART_BINDINGS);

    if (keys[b] != key) {
        keys[b] = key;
        dev->vault.dirty[OB_PART_BINDINGS] = true;
    }
}

/* Follows a SET_IRQS that was executed: keys[i] is that of the descriptor for vector start + i, 0 for none. */
static void note_bindings(struct ob_dev *dev, const struct ob_wire_irq_set *set, const uint64_t *keys, unsigned n)
{
    bool disable = set->count == 0 && set->flags & VFIO_IRQ_SET_DATA_NONE && set->flags & VFIO_IRQ_SET_ACTION_TRIGGER;

    if (!disable && !(set->flags & VFIO_IRQ_SET_DATA_EVENTFD))
        return;
    for (unsigned b = 0; b < n_bindings(dev); b++) {
        uint32_t index, start, action;
        binding_name(dev, b, &index, &start, &action);
        if (index != set->index)
            continue;
        if (disable && action == VFIO_IRQ_SET_ACTION_TRIGGER)
            set_binding(dev, b, 0);
        else if (!disable && set->flags & action && start >= set->start && start - set->start < set->count)
            set_binding(dev, b, start - set->start < n ? keys[start - set->start] : 0);
    }
}

static void poll_event(struct ob_dev *dev, struct ob_source *source, uint32_t events)
{
    enum ob_irq_poll which = source == &dev->irq_source[OB_IRQ_POLL_MASK] ? OB_IRQ_POLL_MASK : OB_IRQ_POLL_UNMASK;

    (void)events;
    if (ob_irqs_poll_event(dev->irqs, which) < 0)
        (void)ob_source_set(dev, source, -1, 0);
}

void ob_signals_poll(struct ob_dev *dev)
{
    for (int which = 0; which < OB_IRQ_POLLS; which++) {
        struct ob_source *source = &dev->irq_source[which];
        int fd = ob_irqs_poll_fd(dev->irqs, (enum ob_irq_poll)which);
        source->ready = poll_event;
        if (fd != source->fd && ob_source_set(dev, source, fd, fd >= 0 ? EPOLLIN : 0) < 0)
            ob_log(dev, "an interrupt's unmask descriptor cannot be watched");
    }
}

/* --- Descriptors that were replaced ------------------------------------------------------------------------------ */

static int start_grace(struct ob_dev *dev)
{
    for (;;) {
        struct ob_grace *grace = malloc(sizeof(*grace));
        if (!grace)
            return -ENOMEM; /* they stay retired until the next time */
        grace->n = ob_irqs_take_retired(dev->irqs, grace->fds, OB_GRACE_FDS);
        if (grace->n == 0) {
            free(grace);
            return 0;
        }
        grace->token = ob_epoch_start(ob_memory_epoch(dev->memory));
        grace->next = dev->grace;
        dev->grace = grace;
    }
}

bool ob_grace_over(struct ob_dev *dev)
{
    struct ob_grace **link = &dev->grace;

    ob_reader_quiescent(&dev->control.reader);
    while (*link) {
        struct ob_grace *grace = *link;
        if (!ob_epoch_passed(ob_memory_epoch(dev->memory), grace->token)) {
            link = &grace->next;
            continue;
        }
        for (unsigned i = 0; i < grace->n; i++) {
            ob_holder_drop(&dev->session.holder, grace->fds[i]);
            close(grace->fds[i]);
        }
        *link = grace->next;
        free(grace);
    }
    return !dev->grace;
}

/* --- SET_IRQS ---------------------------------------------------------------------------------------------------- */

void ob_signals_note(struct ob_dev *dev)
{
    note_bindings(dev, &dev->session.request.u.irq_set, dev->req->keys, dev->req->n_keys);
}

int ob_signals_set_go_on(struct ob_dev *dev)
{
    if (!ob_grace_over(dev))
        return ob_req_keep(dev->req, OB_WAIT_GRACE);
    ob_signals_note(dev); /* not before: a kept request has not happened */
    struct ob_message reply = { 0 };
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

int ob_signals_set(struct ob_dev *dev, const struct ob_message *m, int *fds, unsigned nfds)
{
    const struct ob_wire_irq_set *set = &m->u.irq_set;
    struct ob_req *req = dev->req;

    req->n_keys = nfds;
    for (unsigned i = 0; i < nfds; i++)
        req->keys[i] = ob_holder_key(&dev->session.holder, fds[i]);
    req->kind = OB_REQ_IRQS;
    int err = ob_irqs_set(dev->irqs, set->index, set->start, set->count, set->flags, m->tail, fds, nfds);
    if (err)
        return err;
    ob_signals_poll(dev);
    err = start_grace(dev);
    if (err)
        ob_signals_note(dev); /* the new descriptors are in use all the same */
    return err ? err : ob_signals_set_go_on(dev);
}

void ob_signals_disconnect(struct ob_dev *dev)
{
    ob_irqs_disconnect(dev->irqs);
    ob_signals_poll(dev);
    (void)start_grace(dev);
    for (unsigned b = 0; b < n_bindings(dev); b++)
        set_binding(dev, b, 0);
}

int ob_signals_restore(struct ob_dev *dev)
{
    const uint64_t *keys = ob_vault_part(&dev->vault, OB_PART_BINDINGS);

    for (unsigned b = 0; b < n_bindings(dev); b++) {
        if (!keys[b])
            continue;
        uint32_t index, start, action;
        binding_name(dev, b, &index, &start, &action);
        int fd = ob_holder_take(&dev->session.holder, keys[b]);
        int err = fd < 0 ? -ENOENT
                         : ob_irqs_set(dev->irqs, index, start, 1, VFIO_IRQ_SET_DATA_EVENTFD | action, NULL, &fd, 1);
        if (err) {
            if (fd >= 0)
                close(fd);
            ob_log(dev, "interrupt %u.%u cannot be set up again: %s", index, start, strerror(-err));
            return err;
        }
    }
    ob_signals_poll(dev);
    return 0;
}

bool ob_irq_is_message(struct ob_dev *dev)
{
    return atomic_load_explicit(&dev->messages, memory_order_acquire);
}
