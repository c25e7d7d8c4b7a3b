/* Doorbells: writes that ring an eventfd, sent by the client's kernel or by message.
 *
 * Theory of operation. The class names places in its regions; the library makes the eventfds, and hands them to clients
 * that ask with GET_REGION_IO_FDS. A write that comes by message all the same rings the same eventfd, as an effect of
 * its commit, so that the class has one thing to wait for and each write rings once, also if the process dies.
 *
 * With a holder the eventfds outlive the process under keys of their own, far above those of descriptors that clients
 * sent: clients go on with what they have. A process may die after it has taken a ring and before it has acted on it,
 * so a successor rings everything once more, and so does the destination of a migration.
 *
 * Clients share the file behind an eventfd: they may ring for nothing, take rings away (from themselves), fill the
 * counter, or make reads and writes block. Reads here ask not to wait, whatever the file's mode, and a full counter
 * needs no more ringing. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/kvm.h>

#include "device/dev.h"

#define FIRST_KEY (UINT64_C(1) << 63)

/* --- Declarations ------------------------------------------------------------------------------------------------ */

static int by_place(const void *a, const void *b)
{
    const struct ob_doorbell *x = a, *y = b;

    if (x->region != y->region)
        return x->region < y->region ? -1 : 1;
    return x->off != y->off ? (x->off < y->off ? -1 : 1) : (int)x->size - (int)y->size;
}

static int check_doorbell(struct ob_dev *dev, const struct ob_doorbell *d)
{
    const struct ob_space *space = ob_space(dev, d->region);
    const struct ob_area place = { .off = d->off, .size = d->size };

    if (d->size > 8 || (d->size & (d->size - 1)) || d->off % d->size)
        return ob_shape_wrong(dev, "a doorbell has 1, 2, 4 or 8 bytes, at a multiple of that", NULL);
    if (!space || !(space->flags & OB_REGION_WRITABLE) || d->size > space->size || d->off > space->size - d->size)
        return ob_shape_wrong(dev, "a doorbell lies outside its BAR or region, or that cannot be written", NULL);
    if (ob_shape_over_msix(dev, d->region, &place))
        return ob_shape_wrong(dev, "a doorbell lies over the MSI-X table or pending bits: move one", NULL);
    for (unsigned i = 0; i < space->n_areas; i++)
        if (space->areas[i].flags & OB_AREA_MMAP && d->off + d->size > space->areas[i].off &&
            d->off < space->areas[i].off + space->areas[i].size)
            return ob_shape_wrong(dev, "a doorbell lies in memory that clients map: they would pass it by", NULL);
    if (d->match && d->size < 8 && d->value >> 8 * d->size)
        return ob_shape_wrong(dev, "a doorbell's value is wider than it", NULL);
    if (d->event >= OB_MAX_EVENTS)
        return ob_shape_wrong(dev, "a doorbell's event is above 252", NULL);
    return 0;
}

/* Two that one write would ring; `all` is in the order of their places. */
static bool ambiguous(const struct ob_doorbell *all, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = i + 1; k < n && by_place(&all[i], &all[k]) == 0; k++)
            if (!all[i].match || !all[k].match || all[i].value == all[k].value)
                return true;
    return false;
}

static bool event_used(const struct ob_dev *dev, unsigned event)
{
    for (unsigned i = 0; i < dev->n_doorbells; i++)
        if (dev->doorbells[i].event == event)
            return true;
    return false;
}

int ob_doorbells_check(struct ob_dev *dev)
{
    const struct ob_doorbell *all = dev->cls.doorbells;
    unsigned n = 0, events = 0;

    for (; all && all[n].size > 0; n++) {
        int err =
            n < OB_MAX_DOORBELLS ? check_doorbell(dev, &all[n]) : ob_shape_wrong(dev, "more than 1024 doorbells", NULL);
        if (err)
            return err;
        if (all[n].event >= events)
            events = all[n].event + 1u;
    }
    if (n == 0)
        return 0;
    dev->doorbells = calloc(n, sizeof(*dev->doorbells));
    if (!dev->doorbells)
        return -ENOMEM;
    memcpy(dev->doorbells, all, n * sizeof(*dev->doorbells));
    qsort(dev->doorbells, n, sizeof(*dev->doorbells), by_place);
    dev->n_doorbells = n;
    dev->n_events = events;
    if (ambiguous(dev->doorbells, n))
        return ob_shape_wrong(dev, "two doorbells are rung by the same write: give them different values to match",
                              NULL);
    for (unsigned e = 0; e < events; e++)
        if (!event_used(dev, e))
            return ob_shape_wrong(dev, "events of doorbells are numbered from 0, and none is left out", NULL);
    return 0;
}

/* --- Eventfds ---------------------------------------------------------------------------------------------------- */

static int open_event(struct ob_dev *dev, unsigned event)
{
    struct ob_holder *holder = &dev->session.holder;
    int fd = ob_holder_take(holder, FIRST_KEY + event);

    if (fd < 0) {
        fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fd < 0)
            return -errno;
        int err = ob_holder_keep(holder, fd, FIRST_KEY + event);
        if (err) {
            close(fd);
            return err;
        }
    }
    dev->events[event] = fd;
    return 0;
}

int ob_doorbells_open(struct ob_dev *dev)
{
    if (dev->n_events == 0)
        return 0;
    dev->events = malloc(dev->n_events * sizeof(*dev->events));
    if (!dev->events)
        return -ENOMEM;
    for (unsigned e = 0; e < dev->n_events; e++)
        dev->events[e] = -1;
    int err = ob_holder_ask(&dev->session.holder);
    dev->asked_for_held = !err;
    for (unsigned e = 0; !err && e < dev->n_events; e++)
        err = open_event(dev, e);
    return err;
}

void ob_doorbells_close(struct ob_dev *dev)
{
    for (unsigned e = 0; dev->events && e < dev->n_events; e++)
        if (dev->events[e] >= 0)
            close(dev->events[e]);
    free(dev->events);
}

void ob_doorbell_ring(struct ob_dev *dev, unsigned event)
{
    struct pollfd room = { .fd = dev->events[event], .events = POLLOUT };
    uint64_t one = 1;

    while (poll(&room, 1, 0) > 0 && write(dev->events[event], &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void ob_doorbells_restore(struct ob_dev *dev)
{
    for (unsigned e = 0; e < dev->n_events; e++)
        ob_doorbell_ring(dev, e);
}

int ob_doorbell_fd(const struct ob_dev *dev, unsigned event)
{
    return event < dev->n_events ? dev->events[event] : -EINVAL;
}

uint64_t ob_doorbell_take(const struct ob_dev *dev, unsigned event)
{
    uint64_t n = 0;
    struct iovec iov = { .iov_base = &n, .iov_len = sizeof(n) };
    ssize_t got;

    if (event >= dev->n_events)
        return 0;
    do
        got = preadv2(dev->events[event], &iov, 1, -1, RWF_NOWAIT);
    while (got < 0 && errno == EINTR);
    return got == sizeof(n) ? n : 0;
}

/* --- Writes by message ------------------------------------------------------------------------------------------- */

int ob_doorbell_find(const struct ob_dev *dev, uint32_t region, uint64_t off, uint32_t size, const uint8_t *data)
{
    const struct ob_doorbell *all = dev->doorbells;
    struct ob_doorbell wanted = { .region = region, .off = off, .size = (uint8_t)size };
    unsigned low = 0, high = dev->n_doorbells;
    uint64_t value = 0;

    if (size > 8)
        return -1;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (by_place(&all[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    memcpy(&value, data, size);
    for (; low < dev->n_doorbells && by_place(&all[low], &wanted) == 0; low++)
        if (!all[low].match || all[low].value == value)
            return all[low].event;
    return -1;
}

/* --- GET_REGION_IO_FDS ------------------------------------------------------------------------------------------- */

/* The events of a region's doorbells that a client gets, each once, in the order of the doorbells; at most as many as
 * it takes descriptors with a message. A successor comes to the same. */
static unsigned events_of(const struct ob_dev *dev, uint32_t region, uint16_t events[OB_MAX_EVENTS])
{
    uint32_t limit = dev->session.journal.header->peer.max_msg_fds;
    unsigned n = 0;

    limit = limit < OB_MAX_EVENTS ? limit : OB_MAX_EVENTS;
    for (unsigned i = 0; i < dev->n_doorbells && n < limit; i++) {
        const struct ob_doorbell *d = &dev->doorbells[i];
        unsigned k = 0;
        while (k < n && events[k] != d->event)
            k++;
        if (d->region == region && k == n)
            events[n++] = d->event;
    }
    return n;
}

unsigned ob_doorbells_fds(const struct ob_dev *dev, uint32_t region, int *fds)
{
    uint16_t events[OB_MAX_EVENTS];
    unsigned n = events_of(dev, region, events);

    for (unsigned i = 0; i < n; i++)
        fds[i] = dev->events[events[i]];
    return n;
}

static struct ob_wire_io_fd sub_region(const struct ob_dev *dev, const struct ob_doorbell *d, uint32_t fd_index)
{
    bool io = d->region <= VFIO_PCI_BAR5_REGION_INDEX && dev->cls.bars[d->region].flags & OB_BAR_IO;

    return (struct ob_wire_io_fd){
        .offset = d->off,
        .size = d->size,
        .fd_index = fd_index,
        .type = OB_IO_FD_IOEVENTFD,
        .flags = (d->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) | (io ? KVM_IOEVENTFD_FLAG_PIO : 0),
        .data = d->match ? d->value : 0,
    };
}

/* The array, to where it lies in the reply; returns how many entries. */
static uint32_t write_array(const struct ob_dev *dev, uint32_t region, const uint16_t *events, unsigned n_events,
                            uint8_t *to)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < dev->n_doorbells; i++) {
        const struct ob_doorbell *d = &dev->doorbells[i];
        unsigned k = 0;
        while (k < n_events && events[k] != d->event)
            k++;
        if (d->region != region || k == n_events)
            continue;
        struct ob_wire_io_fd entry = sub_region(dev, d, k);
        memcpy(to + n++ * sizeof(entry), &entry, sizeof(entry));
    }
    return n;
}

int ob_doorbells_info(struct ob_dev *dev, const struct ob_message *m)
{
    uint32_t region = m->u.io_fds.index;
    struct ob_message reply = { .u.io_fds = { .index = region } };
    uint16_t events[OB_MAX_EVENTS];
    uint8_t *array = ob_session_reply_tail(&dev->session);

    if (!ob_info_is_region(dev, region))
        return -EINVAL;
    unsigned n = events_of(dev, region, events);
    uint32_t count = write_array(dev, region, events, n, array);
    reply.u.io_fds.argsz = (uint32_t)(sizeof(reply.u.io_fds) + count * sizeof(struct ob_wire_io_fd));
    reply.u.io_fds.count = count;
    /* With too small an argsz the reply says how much it takes: "the full payload is not included" (Message sizes). */
    if (count > 0 && m->u.io_fds.argsz >= reply.u.io_fds.argsz) {
        reply.tail = array;
        reply.tail_size = count * sizeof(struct ob_wire_io_fd);
        reply.nfds = n;
    }
    ob_session_reply(&dev->session, &reply, OB_REPLY_DOORBELLS + (int)region);
    return OB_DONE;
}
