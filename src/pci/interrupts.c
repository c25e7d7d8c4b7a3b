/* Raises and delivers interrupts.
 *
 * Theory of operation. Many threads raise; one, the control thread, changes what stands between a raised interrupt and
 * the client: configuration space (mirrored in one word, the gate), masks, and eventfds. There are no locks. Who raises
 * first records it in the vector's durable word and then looks whether it can be delivered; who opens the way first
 * opens it and then looks for what is recorded. All these accesses are sequentially consistent, so at least one of the
 * two sees the other, and nothing is lost. Both may see it: then the client is signalled twice, which an interrupt
 * handler has to bear anyway.
 *
 * A message (MSI, MSI-X) is recorded as pending and counted; then the eventfd is written; then it is made not pending,
 * unless the count says that another thread raised it again in between: that is then the other thread's to deliver. A
 * process that dies anywhere leaves the message pending or delivered, never lost. A level that ends takes back what is
 * pending of it (PCI 3.0, 6.8.3.5), as otherwise a driver that turns on MSI-X would get interrupts for conditions that
 * it has long dealt with.
 *
 * INTx is signalled once and is then masked until the client unmasks it. Going from unmasked to masked is one
 * compare-and-exchange, whose winner writes the eventfd. The state in between, OB_INTX_FIRING, is for those who find it
 * after a crash: the eventfd may not have been written, so it counts as unmasked and a line that is still high signals
 * again. What the client masks and unmasks is counted, so that the winner does not undo an unmask that came meanwhile.
 *
 * An eventfd in use is replaced by one exchange; a thread that has just read the old one may still write it. It is
 * retired, not closed: otherwise the number could by then be a file of ours.
 *
 * The client chooses the file behind a descriptor. That it is an eventfd is checked when it is set. One in blocking
 * mode whose counter the client has filled up would block the writer; such are polled before each write. Their mode is
 * not changed: the file is shared, and the client may rely on reads that block. */
#include "pci/irqs.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

unsigned ob_irqs_vectors(const struct ob_pci_layout *layout)
{
    unsigned vectors = layout->pin ? 1 : 0;

    if (vectors < layout->msi_vectors)
        vectors = layout->msi_vectors;
    return vectors < layout->msix_vectors ? layout->msix_vectors : vectors;
}

size_t ob_irqs_state_size(const struct ob_pci_layout *layout)
{
    return sizeof(struct ob_irq_state) + ob_irqs_vectors(layout) * sizeof(struct ob_irq_vector);
}

int ob_irqs_new(const struct ob_pci_layout *layout, void *state, struct ob_irqs **out)
{
    const unsigned counts[VFIO_PCI_NUM_IRQS] = {
        [VFIO_PCI_INTX_IRQ_INDEX] = layout->pin ? 1 : 0,
        [VFIO_PCI_MSI_IRQ_INDEX] = layout->msi_vectors,
        [VFIO_PCI_MSIX_IRQ_INDEX] = layout->msix_vectors,
        [VFIO_PCI_ERR_IRQ_INDEX] = 1,
        [VFIO_PCI_REQ_IRQ_INDEX] = 1,
    };
    unsigned n_slots = 0;
    struct ob_irqs *irqs;
    uint64_t intx;

    if ((uintptr_t)state % _Alignof(struct ob_irq_state))
        return -EINVAL;
    for (unsigned i = 0; i < VFIO_PCI_NUM_IRQS; i++)
        n_slots += counts[i];
    irqs = calloc(1, sizeof(*irqs) + n_slots * sizeof(irqs->slots[0]));
    if (!irqs)
        return -ENOMEM;
    irqs->layout = layout;
    irqs->state = state;
    irqs->vectors = ob_irqs_vectors(layout);
    for (unsigned i = 0; i < VFIO_PCI_NUM_IRQS; i++) {
        irqs->first[i] = irqs->n_slots;
        irqs->counts[i] = counts[i];
        irqs->n_slots += counts[i];
    }
    for (unsigned i = 0; i < n_slots; i++)
        atomic_init(&irqs->slots[i], -1);
    for (unsigned i = 0; i < OB_IRQ_POLLS; i++)
        irqs->poll_fds[i] = -1;
    intx = atomic_load(&irqs->state->intx);
    if ((intx & OB_INTX_STATE) == OB_INTX_FIRING)
        ob_irqs_intx_mask(irqs, false);
    *out = irqs;
    return 0;
}

void ob_irqs_free(struct ob_irqs *irqs)
{
    if (!irqs)
        return;
    for (unsigned i = 0; i < irqs->n_slots; i++)
        ob_irqs_retire(irqs, atomic_load(&irqs->slots[i]));
    for (unsigned i = 0; i < OB_IRQ_POLLS; i++)
        ob_irqs_retire(irqs, irqs->poll_fds[i]);
    for (unsigned i = 0; i < irqs->n_retired; i++)
        close(irqs->retired[i]);
    free(irqs->retired);
    free(irqs);
}

void ob_irqs_retire(struct ob_irqs *irqs, int slot)
{
    if (slot < 0)
        return;
    irqs->n_used--;
    irqs->retired[irqs->n_retired++] = slot & ~OB_SLOT_BLOCKING;
}

void ob_irqs_signal(int slot)
{
    static const uint64_t one = 1;
    int fd = slot & ~OB_SLOT_BLOCKING;

    if (slot & OB_SLOT_BLOCKING) {
        struct pollfd room = { .fd = fd, .events = POLLOUT };

        if (poll(&room, 1, 0) <= 0 || !(room.revents & POLLOUT))
            return; /* full: as good as signalled */
    }
    /* EAGAIN is a full counter, and no other error is possible of an eventfd. */
    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

/* The slot's value that a vector's message goes to now, or -1 if it has to stay pending. */
static int target(struct ob_irqs *irqs, unsigned vector)
{
    uint64_t gate = atomic_load(&irqs->gate);
    unsigned message;

    if (!(gate & OB_GATE_SEND))
        return -1;
    if (gate & OB_GATE_MSIX) {
        if (gate & OB_GATE_MSIX_MASK || vector >= irqs->layout->msix_vectors)
            return -1;
        /* A client may keep the table to itself and mask by taking the eventfd away. Then ours says nothing. */
        if (atomic_load(&irqs->state->table_written) &&
            atomic_load(&irqs->state->vectors[vector].table[3]) & PCI_MSIX_ENTRY_CTRL_MASKBIT)
            return -1;
        return atomic_load(&irqs->slots[irqs->first[VFIO_PCI_MSIX_IRQ_INDEX] + vector]);
    }
    if (!(gate & OB_GATE_MSI))
        return -1;
    /* A function that is given fewer messages than it asked for shares them (PCI 3.0, 6.8.3.1). */
    message = vector & (gate >> OB_GATE_COUNT_SHIFT & (OB_PCI_MSI_MAX - 1));
    if (gate >> (OB_GATE_MASKS_SHIFT + message) & 1)
        return -1;
    return atomic_load(&irqs->slots[irqs->first[VFIO_PCI_MSI_IRQ_INDEX] + message]);
}

void ob_irqs_deliver(struct ob_irqs *irqs, unsigned vector)
{
    _Atomic uint64_t *at = &irqs->state->vectors[vector].word;
    uint64_t old = atomic_load(at), now = old;
    int slot;

    if (!(old & OB_IRQ_PENDING))
        return;
    slot = target(irqs, vector);
    if (slot < 0)
        return;
    ob_irqs_signal(slot);
    /* The level may have changed meanwhile; if the count has, somebody else is delivering. */
    while (now & OB_IRQ_PENDING && now / OB_IRQ_RAISE == old / OB_IRQ_RAISE &&
           !atomic_compare_exchange_weak(at, &now, now & ~OB_IRQ_PENDING))
        ;
}

static bool line_high(const struct ob_irqs *irqs)
{
    for (unsigned i = 0; i < irqs->vectors; i++)
        if (atomic_load(&irqs->state->vectors[i].word) & OB_IRQ_LEVEL)
            return true;
    return false;
}

/* Signals INTx, whose line is high, if that is possible. */
static void intx_fire(struct ob_irqs *irqs)
{
    _Atomic uint64_t *at = &irqs->state->intx;
    uint64_t old = atomic_load(at), firing;
    int slot;

    if (!(atomic_load(&irqs->gate) & OB_GATE_INTX))
        return;
    slot = atomic_load(&irqs->slots[irqs->first[VFIO_PCI_INTX_IRQ_INDEX]]);
    if (slot < 0)
        return;
    do {
        if ((old & OB_INTX_STATE) != OB_INTX_UNMASKED)
            return;
        firing = old + (OB_INTX_FIRING - OB_INTX_UNMASKED);
    } while (!atomic_compare_exchange_weak(at, &old, firing));
    ob_irqs_signal(slot);
    atomic_compare_exchange_strong(at, &firing, firing + (OB_INTX_MASKED - OB_INTX_FIRING));
}

/* The same, if the line is high. */
static void intx_evaluate(struct ob_irqs *irqs)
{
    if (atomic_load(&irqs->gate) & OB_GATE_INTX && line_high(irqs))
        intx_fire(irqs);
}

void ob_irqs_intx_mask(struct ob_irqs *irqs, bool masked)
{
    _Atomic uint64_t *at = &irqs->state->intx;
    uint64_t old = atomic_load(at);

    while (!atomic_compare_exchange_weak(
        at, &old, (old & ~(uint64_t)OB_INTX_STATE) + OB_INTX_CHANGE + (masked ? OB_INTX_MASKED : OB_INTX_UNMASKED)))
        ;
    if (!masked)
        intx_evaluate(irqs);
}

/* A vector's word with a message due. */
static uint64_t raised(uint64_t word)
{
    return (word | OB_IRQ_PENDING) + OB_IRQ_RAISE;
}

int ob_irqs_level(struct ob_irqs *irqs, unsigned vector, bool on)
{
    _Atomic uint64_t *at;
    uint64_t old, next;

    if (vector >= irqs->vectors)
        return -EINVAL;
    at = &irqs->state->vectors[vector].word;
    old = atomic_load(at);
    do {
        if ((old & OB_IRQ_LEVEL) == on)
            return 0;
        next = on ? raised(old | OB_IRQ_LEVEL) : old & ~(OB_IRQ_LEVEL | OB_IRQ_PENDING);
    } while (!atomic_compare_exchange_weak(at, &old, next));
    if (!on)
        return 0;
    ob_irqs_deliver(irqs, vector);
    intx_fire(irqs);
    return 0;
}

int ob_irqs_pulse(struct ob_irqs *irqs, unsigned vector)
{
    _Atomic uint64_t *at;
    uint64_t old;

    if (vector >= irqs->vectors)
        return -EINVAL;
    at = &irqs->state->vectors[vector].word;
    old = atomic_load(at);
    while (!atomic_compare_exchange_weak(at, &old, raised(old)))
        ;
    ob_irqs_deliver(irqs, vector);
    return 0;
}

void ob_irqs_notify(struct ob_irqs *irqs, uint32_t index)
{
    int slot = atomic_load(&irqs->slots[irqs->first[index]]);

    if (slot >= 0)
        ob_irqs_signal(slot);
}

void ob_irqs_reevaluate(struct ob_irqs *irqs)
{
    for (unsigned i = 0; i < irqs->vectors; i++)
        ob_irqs_deliver(irqs, i);
    intx_evaluate(irqs);
}

void ob_irqs_config(struct ob_irqs *irqs, const uint8_t *config)
{
    const struct ob_pci_layout *layout = irqs->layout;
    unsigned msi = ob_pci_msi_enabled(layout, config);
    uint64_t gate = (uint64_t)ob_pci_msi_masks(layout, config) << OB_GATE_MASKS_SHIFT;

    if (msi)
        gate |= OB_GATE_MSI | (uint64_t)(msi - 1) << OB_GATE_COUNT_SHIFT;
    if (ob_pci_msix_enabled(layout, config))
        gate |= OB_GATE_MSIX;
    if (ob_pci_msix_masked(layout, config))
        gate |= OB_GATE_MSIX_MASK;
    if (ob_pci_bus_master(layout, config))
        gate |= OB_GATE_SEND;
    /* With MSI or MSI-X on, a function must not use its pin (PCI 3.0, 6.8.3.3). */
    if (layout->pin && !(gate & (OB_GATE_MSI | OB_GATE_MSIX)) && !ob_pci_intx_disabled(config) &&
        !ob_pci_in_d3(layout, config))
        gate |= OB_GATE_INTX;
    if (irqs->held)
        gate &= ~(OB_GATE_SEND | OB_GATE_INTX);
    atomic_store(&irqs->gate, gate);
    ob_irqs_reevaluate(irqs);
}

void ob_irqs_hold(struct ob_irqs *irqs, bool held)
{
    irqs->held = held;
}

void ob_irqs_reset(struct ob_irqs *irqs)
{
    atomic_store(&irqs->state->table_written, 0);
    for (unsigned i = 0; i < irqs->vectors; i++) {
        struct ob_irq_vector *vector = &irqs->state->vectors[i];
        uint64_t old = atomic_load(&vector->word);

        while (!atomic_compare_exchange_weak(&vector->word, &old, old & ~(OB_IRQ_LEVEL | OB_IRQ_PENDING)))
            ;
        for (unsigned j = 0; j < 4; j++)
            atomic_store(&vector->table[j], j == 3 ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
    }
}

void ob_irqs_disconnect(struct ob_irqs *irqs)
{
    for (unsigned i = 0; i < VFIO_PCI_NUM_IRQS; i++)
        ob_irqs_deassign(irqs, i, 0, irqs->counts[i]);
    for (unsigned i = 0; i < OB_IRQ_POLLS; i++) {
        ob_irqs_retire(irqs, irqs->poll_fds[i]);
        irqs->poll_fds[i] = -1;
    }
    ob_irqs_intx_mask(irqs, false);
    /* Messages that told the old client of a level tell the new one nothing: they are pending again. */
    for (unsigned i = 0; i < irqs->vectors; i++) {
        _Atomic uint64_t *at = &irqs->state->vectors[i].word;
        uint64_t old = atomic_load(at);

        while (old & OB_IRQ_LEVEL && !(old & OB_IRQ_PENDING) && !atomic_compare_exchange_weak(at, &old, raised(old)))
            ;
    }
}

void ob_irqs_live(const struct ob_irqs *irqs, struct ob_pci_live *live)
{
    uint64_t gate = atomic_load(&irqs->gate);

    *live = (struct ob_pci_live){ 0 };
    if (gate & OB_GATE_MSI) {
        unsigned share = gate >> OB_GATE_COUNT_SHIFT & (OB_PCI_MSI_MAX - 1);

        for (unsigned i = 0; i < irqs->vectors; i++)
            if (atomic_load(&irqs->state->vectors[i].word) & OB_IRQ_PENDING)
                live->msi_pending |= 1u << (i & share);
    }
    /* Interrupt Disable does not hide it (PCI 3.0, 6.2.3). */
    live->intx = irqs->layout->pin && !(gate & (OB_GATE_MSI | OB_GATE_MSIX)) && line_high(irqs);
}
