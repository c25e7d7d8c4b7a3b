/* The interrupts' data, shared by the files of this folder that work on it; interrupts.c explains it. */
#ifndef OB_PCI_IRQS_H
#define OB_PCI_IRQS_H

#include <stdatomic.h>

#include "pci/interrupts.h"

/* Durable. One cache line a vector, so that workers with vectors of their own do not share lines. */
struct ob_irq_vector {
    _Alignas(64) _Atomic uint64_t word; /* OB_IRQ_LEVEL, OB_IRQ_PENDING, and a count */
    _Atomic uint32_t table[4];          /* the MSI-X table entry: address, upper address, data, vector control */
};

/* Durable. */
struct ob_irq_state {
    _Alignas(64) _Atomic uint64_t intx; /* enum ob_intx, and above it a count */
    _Atomic uint32_t table_written;     /* somebody has written a vector control word since the reset */
    struct ob_irq_vector vectors[];
};

/* A vector's word. */
#define OB_IRQ_LEVEL   1ull /* the condition */
#define OB_IRQ_PENDING 2ull /* a message is due */
#define OB_IRQ_RAISE   4ull /* counts the messages that became due, so that it is known which one was delivered */

/* Of struct ob_irq_state.intx. */
enum ob_intx {
    OB_INTX_UNMASKED,
    OB_INTX_FIRING, /* masked, the eventfd is being written */
    OB_INTX_MASKED,
    OB_INTX_STATE = 3, /* the bits of these */
    OB_INTX_CHANGE = 4 /* one mask or unmask by the client */
};

/* Of struct ob_irqs.gate: what configuration space allows. */
#define OB_GATE_INTX        1ull  /* INTx may be signalled */
#define OB_GATE_SEND        2ull  /* messages may be sent: bus master, not in D3hot */
#define OB_GATE_MSI         4ull  /* MSI is enabled */
#define OB_GATE_MSIX        8ull  /* MSI-X is enabled */
#define OB_GATE_MSIX_MASK   16ull /* its function mask is set */
#define OB_GATE_COUNT_SHIFT 8     /* five bits: the number of MSI messages, less one */
#define OB_GATE_MASKS_SHIFT 32    /* the MSI mask bits */

/* A slot holds a descriptor, with this bit if writing it could block; or -1. */
#define OB_SLOT_BLOCKING (1 << 30)

struct ob_irqs {
    const struct ob_pci_layout *layout;
    struct ob_irq_state *state;
    unsigned vectors;
    _Atomic uint64_t gate;              /* OB_GATE_*, written by the control thread */
    bool held;                          /* whatever configuration space says, nothing goes out */
    unsigned first[VFIO_PCI_NUM_IRQS];  /* slot of an index's vector 0 */
    unsigned counts[VFIO_PCI_NUM_IRQS]; /* vectors of an index */
    int poll_fds[OB_IRQ_POLLS];         /* or -1 */
    int *retired;                       /* room for all that are retired or in use */
    unsigned n_retired, n_used, room;
    unsigned n_slots;
    _Atomic int slots[];
};

/* The most vectors that any kind of interrupt has. */
unsigned ob_irqs_vectors(const struct ob_pci_layout *layout);
/* The bits of an MSI-X entry's dwords that can be written. */
extern const uint32_t ob_msix_writable[4];
/* Sends what is pending of a vector, if that is possible. */
void ob_irqs_deliver(struct ob_irqs *irqs, unsigned vector);
/* Sets the client's mask of INTx. */
void ob_irqs_intx_mask(struct ob_irqs *irqs, bool masked);
/* Writes the eventfd of a slot's value. */
void ob_irqs_signal(int slot);
/* Retires a slot's value. */
void ob_irqs_retire(struct ob_irqs *irqs, int slot);
/* Takes the eventfds away from some vectors of an index. */
void ob_irqs_deassign(struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count);

#endif
