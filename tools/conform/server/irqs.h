/* irqs.h: SET_IRQS as checks send it, and the interrupts that they try it on.
 *
 * Two things make an interrupt happen: SET_IRQS itself, on any server that takes it (loopback, VU-SET-13), and a device
 * that is known (exerciser.h). Loopback interrupts as the device would: so bus mastering and MSI or MSI-X are on first,
 * and an interrupt that masks itself is unmasked after. */
#ifndef CONFORM_IRQS_H
#define CONFORM_IRQS_H

#include "exerciser.h"

#define NONE    VFIO_IRQ_SET_DATA_NONE
#define BOOL    VFIO_IRQ_SET_DATA_BOOL
#define EVENTFD VFIO_IRQ_SET_DATA_EVENTFD
#define MASK    VFIO_IRQ_SET_ACTION_MASK
#define UNMASK  VFIO_IRQ_SET_ACTION_UNMASK
#define TRIGGER VFIO_IRQ_SET_ACTION_TRIGGER

#define INTX VFIO_PCI_INTX_IRQ_INDEX
#define MSI  VFIO_PCI_MSI_IRQ_INDEX
#define MSIX VFIO_PCI_MSIX_IRQ_INDEX

/* So many vectors of a type are tried. */
#define MOST_VECTORS 64u

struct irq_set {
    uint32_t flags, index, start, count;
    const uint8_t *data;
    uint32_t size;
    const int *fds;
    unsigned nfds;
    uint32_t less; /* argsz is smaller than it should be by this */
};

/* SET_IRQS with any fields: 0 or errno. */
int irqs_set(struct judge *j, const struct irq_set *set);
/* The same, which has to succeed, or to fail with EINVAL. */
void irqs_done(struct judge *j, const struct irq_set *set);
void irqs_invalid(struct judge *j, const struct irq_set *set);

/* What is needed most. All have to succeed. */
void irqs_do(struct judge *j, uint32_t action, uint32_t index, uint32_t start, uint32_t count); /* DATA_NONE */
void irqs_assign(struct judge *j, uint32_t index, uint32_t start, uint32_t count, const int *fds);
void irqs_take_away(struct judge *j, uint32_t index, uint32_t start, uint32_t count);
void irqs_disable(struct judge *j, uint32_t index);
/* DATA_BOOL, which skips the check if it is refused: not every type supports every combination of data and action. */
void irqs_bool(struct judge *j, uint32_t action, uint32_t index, uint32_t start, uint32_t count, const uint8_t *data);
/* Loopback. The check is skipped if the server refused it in the survey, as it may. */
void irqs_trigger(struct judge *j, uint32_t index, uint32_t start, uint32_t count);
void irqs_needs_loopback(struct judge *j, uint32_t index);
/* For the survey: tries it on vector 0 of a type. 0: it is taken; an errno; or < 0, as the raw client says. */
int irqs_loopback(struct judge *j, uint32_t index);

/* Interrupt types, with loopback if any has it; the check is skipped if there is none: with one vector or more, which
 * can be assigned alone; with two or more, which are assigned together; with two or more, which can be assigned one by
 * one. */
uint32_t irqs_any(struct judge *j);
uint32_t irqs_several(struct judge *j);
uint32_t irqs_growing(struct judge *j);
/* Of a type, those that are tried. */
unsigned irqs_vectors(const struct judge *j, uint32_t index);
/* Resets the device, and lets it interrupt by that type. */
void irqs_on(struct judge *j, uint32_t index);
/* The second part of that. */
void irqs_enable(struct judge *j, uint32_t index);

/* How many descriptors a message may carry, but at least one. */
unsigned irqs_at_once(const struct judge *j);
/* New eventfds. */
int *irqs_eventfds(struct judge *j, unsigned count);
/* The type is on, and its vectors have eventfds of their own, which are returned. */
int *irqs_ready(struct judge *j, uint32_t index);
/* INTx of a device that raises it, ready, and its eventfd; and, with masks, one that takes MASK and UNMASK. */
int irqs_intx(struct judge *j);
int irqs_intx_with_masks(struct judge *j);

/* No vector but this one was signalled. */
void irqs_want_others_silent(struct judge *j, const int *fds, unsigned count, unsigned vector);
/* Signalled once, and not again; not at all. The text is what happened before. */
void want_one(struct judge *j, int fd, const char *format, ...) __attribute__((format(printf, 3, 4)));
void want_none(struct judge *j, int fd, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
