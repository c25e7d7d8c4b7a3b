/* Interrupts of one function: INTx, MSI and MSI-X, from conditions that the device raises to eventfds of the client.
 *
 * The durable part lives in memory of the caller: plain atomics, one copy, shared by all threads and found again by the
 * next process after a crash. The rest is of this process. interrupts.c has the theory.
 *
 * Threads: ob_irqs_level and ob_irqs_pulse from any thread; everything else from the control thread. What the control
 * thread masks or takes away has no effect on a thread that is in the middle of one of these two: its interrupt may
 * still be signalled, until that thread passes a quiescent point. */
#ifndef OB_PCI_INTERRUPTS_H
#define OB_PCI_INTERRUPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vfio.h>

#include "pci/config.h"

struct ob_irqs;

/* Bytes of the durable part. It has to be aligned to 64 bytes. */
size_t ob_irqs_state_size(const struct ob_pci_layout *layout);

/* Attaches to a durable part, which is either one that another process left or fresh: then zeroed, and to be given
 * ob_irqs_reset. `layout` and `state` have to outlive it. Nothing is delivered before ob_irqs_config.
 * Fails with -ENOMEM, or -EINVAL if `state` is not aligned. */
int ob_irqs_new(const struct ob_pci_layout *layout, void *state, struct ob_irqs **irqs);

/* Closes every descriptor it has, retired ones too; no other thread may be using it. The durable part stays as it is:
 * this is no ob_irqs_disconnect. */
void ob_irqs_free(struct ob_irqs *irqs);

/* A reset of the device: levels, pending bits and the MSI-X table. What belongs to the client stays: its eventfds and
 * its masking of INTx. */
void ob_irqs_reset(struct ob_irqs *irqs);

/* The client is gone: its eventfds are retired, its masking of INTx is undone; conditions stay, and those that are high
 * will interrupt the next client. */
void ob_irqs_disconnect(struct ob_irqs *irqs);

/* Takes over what configuration space says (after a commit that changed COMMAND, power state, MSI or MSI-X, and once
 * after ob_irqs_new), then delivers what has become possible. */
void ob_irqs_config(struct ob_irqs *irqs, const uint8_t *config);

/* From the next ob_irqs_config on nothing is delivered, until one that follows the end of it: what becomes due
 * meanwhile is recorded, and goes out then. */
void ob_irqs_hold(struct ob_irqs *irqs, bool held);

/* What a device that is migrated takes along, in a form that does not change with this code: conditions, what is
 * pending, the MSI-X table; ob_irqs_saved_size() bytes, unaligned. ob_irqs_load() is for what ob_irqs_load_check() has
 * passed (-EINVAL: it is of other interrupts, or senseless), while nothing is delivered. */
size_t ob_irqs_saved_size(const struct ob_pci_layout *layout);
void ob_irqs_save(const struct ob_irqs *irqs, void *out);
int ob_irqs_load_check(const struct ob_irqs *irqs, const void *in, size_t size);
void ob_irqs_load(struct ob_irqs *irqs, const void *in);

/* Delivers everything that is due; may be repeated at will. */
void ob_irqs_reevaluate(struct ob_irqs *irqs);

/* A condition begins or ends. INTx is the OR of the vectors' levels; with MSI and MSI-X the beginning sends the
 * message, and the end takes back one that could not be delivered. Returns 0, or -EINVAL if there is no such vector. */
int ob_irqs_level(struct ob_irqs *irqs, unsigned vector, bool on);

/* A message: with MSI and MSI-X as if a condition began. INTx does not know it. A vector is used by levels or by
 * pulses, not both. Returns 0, or -EINVAL if there is no such vector. */
int ob_irqs_pulse(struct ob_irqs *irqs, unsigned vector);

/* VFIO's own interrupts, ERR and REQ, which tell the client and not the guest: whatever configuration space says, the
 * eventfd is written; without one nobody wanted to know, and it is forgotten, as by the kernel's vfio-pci. */
void ob_irqs_notify(struct ob_irqs *irqs, uint32_t index);

/* What configuration space shows of the interrupts. */
void ob_irqs_live(const struct ob_irqs *irqs, struct ob_pci_live *live);

/* Fills flags and count of info->index. Returns 0, or -EINVAL if there is no such index. */
int ob_irqs_info(const struct ob_irqs *irqs, struct vfio_irq_info *info);

/* VFIO_USER_DEVICE_SET_IRQS. `bools` has `count` bytes with VFIO_IRQ_SET_DATA_BOOL. With VFIO_IRQ_SET_DATA_EVENTFD,
 * `nfds` is `count`, or 0 to take away the eventfds; those that are kept are set to -1 in `fds`, the caller closes the
 * others. Descriptors that were replaced are retired (ob_irqs_take_retired). Nothing is changed on an error:
 * -EINVAL for indexes, ranges, flags and numbers of descriptors; -EBADF for a descriptor that is no eventfd;
 * -errno where there is no /proc/self/fd to tell; -ENOMEM. */
int ob_irqs_set(struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count, uint32_t flags,
                const uint8_t *bools, int *fds, unsigned nfds);

/* Hands over up to `max` descriptors that are no longer used, but that a thread in ob_irqs_level or ob_irqs_pulse may
 * still be writing to: the caller closes them after all such threads have passed a quiescent point. Returns their
 * number; 0 when there are no more. */
unsigned ob_irqs_take_retired(struct ob_irqs *irqs, int *fds, unsigned max);

/* Eventfds that the client writes to: to mask INTx, or to unmask it (under KVM). */
enum ob_irq_poll { OB_IRQ_POLL_MASK, OB_IRQ_POLL_UNMASK, OB_IRQ_POLLS };

/* The descriptor to be polled for input, or -1. It can be another one after ob_irqs_set and ob_irqs_disconnect; the
 * old one is then among the retired, and has to leave an epoll set before it is closed. */
int ob_irqs_poll_fd(const struct ob_irqs *irqs, enum ob_irq_poll which);

/* It has become readable: masks or unmasks. Never blocks. Returns 0, also if there was nothing to read, or -errno if
 * the descriptor is unusable: it should then be polled no more. */
int ob_irqs_poll_event(struct ob_irqs *irqs, enum ob_irq_poll which);

/* Accesses to the MSI-X table and the pending bit array, offsets from their beginnings; PCI allows 4 and 8 bytes,
 * aligned, others are done bytewise. Writes to the pending bits have no effect. Return 0, or -EINVAL beyond the end. */
int ob_irqs_table_read(const struct ob_irqs *irqs, uint64_t off, size_t len, void *out);
int ob_irqs_table_write(struct ob_irqs *irqs, uint64_t off, size_t len, const void *data);
int ob_irqs_pba_read(const struct ob_irqs *irqs, uint64_t off, size_t len, void *out);

#endif
