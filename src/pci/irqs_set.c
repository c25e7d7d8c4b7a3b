/* What the client asks of interrupts: GET_IRQ_INFO, SET_IRQS, and the eventfds by which it masks and unmasks INTx.
 *
 * SET_IRQS is checked as a whole before anything is changed. The eventfds for MASK and UNMASK are written by the client
 * and polled by us, as <linux/vfio.h> has it and as QEMU with KVM uses them. */
#include "pci/irqs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

int ob_irqs_info(const struct ob_irqs *irqs, struct vfio_irq_info *info)
{
    if (info->index >= VFIO_PCI_NUM_IRQS)
        return -EINVAL;
    info->count = irqs->counts[info->index];
    info->flags = info->count ? VFIO_IRQ_INFO_EVENTFD : 0;
    if (info->count && info->index == VFIO_PCI_INTX_IRQ_INDEX)
        info->flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    /* MSI is one set of messages to a driver. MSI-X without the flag lets QEMU add vectors one by one, where it would
     * otherwise take all eventfds away and lose what arrives in between. */
    if (info->count && info->index == VFIO_PCI_MSI_IRQ_INDEX)
        info->flags |= VFIO_IRQ_INFO_NORESIZE;
    return 0;
}

/* 0, -EBADF if it is no eventfd, or -errno if /proc cannot tell. */
static int check_eventfd(int fd)
{
    static const char eventfd_link[] = "anon_inode:[eventfd]";
    char path[32], link[sizeof(eventfd_link)];
    ssize_t n;

    if (fcntl(fd, F_GETFD) < 0)
        return -EBADF;
    /* No path that a client could make up looks like this: paths start with a slash. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, link, sizeof(link));
    if (n < 0)
        return -errno;
    if ((size_t)n != strlen(eventfd_link) || memcmp(link, eventfd_link, (size_t)n) != 0)
        return -EBADF;
    return 0;
}

/* Makes room to retire all descriptors in use and `more`, so that retiring never fails. */
static int reserve(struct ob_irqs *irqs, unsigned more)
{
    unsigned need = irqs->n_retired + irqs->n_used + more;
    int *retired;

    if (need <= irqs->room)
        return 0;
    retired = realloc(irqs->retired, 2 * need * sizeof(*retired));
    if (!retired)
        return -ENOMEM;
    irqs->retired = retired;
    irqs->room = 2 * need;
    return 0;
}

unsigned ob_irqs_take_retired(struct ob_irqs *irqs, int *fds, unsigned max)
{
    unsigned n = irqs->n_retired < max ? irqs->n_retired : max;

    irqs->n_retired -= n;
    if (n)
        memcpy(fds, irqs->retired + irqs->n_retired, n * sizeof(*fds));
    return n;
}

void ob_irqs_deassign(struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count)
{
    _Atomic int *slots = &irqs->slots[irqs->first[index] + start];

    for (uint32_t i = 0; i < count; i++)
        ob_irqs_retire(irqs, atomic_exchange(&slots[i], -1));
    /* Who gives the next eventfd starts with INTx unmasked. */
    if (count && index == VFIO_PCI_INTX_IRQ_INDEX)
        ob_irqs_intx_mask(irqs, false);
}

/* Takes over `count` eventfds, known to be such, and signals what waited for them. */
static void assign(struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count, int *fds)
{
    _Atomic int *slots = &irqs->slots[irqs->first[index] + start];

    for (uint32_t i = 0; i < count; i++) {
        int flags = fcntl(fds[i], F_GETFL);

        ob_irqs_retire(irqs, atomic_exchange(&slots[i], fds[i] | (flags & O_NONBLOCK ? 0 : OB_SLOT_BLOCKING)));
        irqs->n_used++;
        fds[i] = -1;
    }
    if (index == VFIO_PCI_MSIX_IRQ_INDEX)
        for (uint32_t i = 0; i < count; i++)
            ob_irqs_deliver(irqs, start + i);
    else
        ob_irqs_reevaluate(irqs);
}

/* TRIGGER with eventfds: who is signalled. With none or booleans: signal them now, as a test (VFIO's loopback). */
static void set_trigger(struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count, uint32_t data,
                        const uint8_t *bools, int *fds, unsigned nfds)
{
    if (data == VFIO_IRQ_SET_DATA_EVENTFD) {
        if (nfds)
            assign(irqs, index, start, count, fds);
        else
            ob_irqs_deassign(irqs, index, start, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        int slot = atomic_load(&irqs->slots[irqs->first[index] + start + i]);

        if (slot >= 0 && (data == VFIO_IRQ_SET_DATA_NONE || bools[i]))
            ob_irqs_signal(slot);
    }
}

/* MASK and UNMASK, of INTx only: now, or whenever the client writes the eventfd. */
static void set_mask(struct ob_irqs *irqs, enum ob_irq_poll which, uint32_t data, const uint8_t *bools, int *fds,
                     unsigned nfds)
{
    if (data == VFIO_IRQ_SET_DATA_EVENTFD) {
        ob_irqs_retire(irqs, irqs->poll_fds[which]);
        irqs->poll_fds[which] = nfds ? fds[0] : -1;
        if (nfds) {
            irqs->n_used++;
            fds[0] = -1;
        }
    } else if (data == VFIO_IRQ_SET_DATA_NONE || bools[0]) {
        ob_irqs_intx_mask(irqs, which == OB_IRQ_POLL_MASK);
    }
}

static int check_set(const struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count, uint32_t flags,
                     const int *fds, unsigned nfds)
{
    uint32_t data = flags & VFIO_IRQ_SET_DATA_TYPE_MASK, action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;

    if (index >= VFIO_PCI_NUM_IRQS || flags != (data | action))
        return -EINVAL;
    if (__builtin_popcount(data) != 1 || __builtin_popcount(action) != 1)
        return -EINVAL;
    if (action != VFIO_IRQ_SET_ACTION_TRIGGER && index != VFIO_PCI_INTX_IRQ_INDEX)
        return -EINVAL; /* not MASKABLE */
    if (start >= irqs->counts[index] || count > irqs->counts[index] - start)
        return -EINVAL;
    /* Count 0 is no empty range, but takes away all eventfds of the index; the start has to be 0 then. */
    if (!count && (start || flags != (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)))
        return -EINVAL;
    if (nfds && (data != VFIO_IRQ_SET_DATA_EVENTFD || nfds != count))
        return -EINVAL;
    for (unsigned i = 0; i < nfds; i++) {
        int error = check_eventfd(fds[i]);

        if (error)
            return error;
    }
    return 0;
}

int ob_irqs_set(struct ob_irqs *irqs, uint32_t index, uint32_t start, uint32_t count, uint32_t flags,
                const uint8_t *bools, int *fds, unsigned nfds)
{
    uint32_t data = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    int error = check_set(irqs, index, start, count, flags, fds, nfds);

    if (!error)
        error = reserve(irqs, nfds);
    if (error)
        return error;
    if (!count)
        ob_irqs_deassign(irqs, index, 0, irqs->counts[index]);
    else if (flags & VFIO_IRQ_SET_ACTION_TRIGGER)
        set_trigger(irqs, index, start, count, data, bools, fds, nfds);
    else
        set_mask(irqs, flags & VFIO_IRQ_SET_ACTION_MASK ? OB_IRQ_POLL_MASK : OB_IRQ_POLL_UNMASK, data, bools, fds,
                 nfds);
    return 0;
}

int ob_irqs_poll_fd(const struct ob_irqs *irqs, enum ob_irq_poll which)
{
    return irqs->poll_fds[which];
}

int ob_irqs_poll_event(struct ob_irqs *irqs, enum ob_irq_poll which)
{
    uint64_t value;
    struct iovec iov = { .iov_base = &value, .iov_len = sizeof(value) };

    if (irqs->poll_fds[which] < 0)
        return 0;
    /* Whatever the mode of the file, which the client can change, and though it may have read it first. */
    if (preadv2(irqs->poll_fds[which], &iov, 1, -1, RWF_NOWAIT) < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    ob_irqs_intx_mask(irqs, which == OB_IRQ_POLL_MASK);
    return 0;
}
