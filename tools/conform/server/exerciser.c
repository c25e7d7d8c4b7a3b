/* exerciser.c: the devices that are known, and what all of them have in common. */
#include "exerciser.h"

#include <time.h>

extern const struct exerciser exerciser_edu, exerciser_serial, exerciser_testdev;

static const struct exerciser *const known[] = { &exerciser_edu, &exerciser_serial, &exerciser_testdev };

const struct exerciser *exerciser_find(uint16_t vendor, uint16_t device)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (known[i]->vendor == vendor && known[i]->device == device)
            return known[i];
    }
    return NULL;
}

void device_on(struct judge *j, bool master)
{
    reset(j);
    config_write(j, 0x04, 2, master ? 7 : 3);
    j->copying = false;
}

void device_messages(struct judge *j, uint32_t index, bool on)
{
    uint32_t at, control;

    if (index == VFIO_PCI_INTX_IRQ_INDEX)
        return;
    at = config_capability(j, index == VFIO_PCI_MSI_IRQ_INDEX ? 0x05 : 0x11);
    want(j, at != 0, "there is no %s capability", index == VFIO_PCI_MSI_IRQ_INDEX ? "MSI" : "MSI-X");
    control = config_read(j, at + 2, 2);
    if (index == VFIO_PCI_MSI_IRQ_INDEX) /* with as many vectors as it is capable of */
        control = (control & ~0x71u) | (control & 0x0eu) << 3 | on;
    else
        control = (control & ~0xc000u) | (on ? 0x8000u : 0);
    config_write(j, at + 2, 2, control);
}

uint32_t device_irq(struct judge *j)
{
    static const uint32_t order[] = { VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX };

    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        if (j->facts.exerciser->irqs & 1u << order[i] && j->facts.irq[order[i]].count > 0)
            return order[i];
    }
    judge_skip(j, "no interrupt type of this device can be made to interrupt");
}

uint32_t trigger_begin(struct judge *j)
{
    static const uint32_t order[] = { VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX };

    device_on(j, true);
    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        const struct vfio_irq_info *irq = &j->facts.irq[order[i]];

        if (irq->count == 0 || !(irq->flags & VFIO_IRQ_INFO_EVENTFD))
            continue;
        device_messages(j, order[i], true);
        return order[i];
    }
    judge_skip(j, "no interrupt type of PCI's takes eventfds");
}

struct vfio_irq_set trigger_command(uint32_t index, unsigned vector, uint32_t flags)
{
    return (struct vfio_irq_set){
        .argsz = sizeof(struct vfio_irq_set), .flags = flags, .index = index, .start = vector, .count = 1
    };
}

int trigger_assign(struct judge *j, uint32_t index, unsigned vector, int fd)
{
    const struct vfio_irq_set set =
        trigger_command(index, vector, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER);

    return call(j, OB_RAW_SET_IRQS, &set, sizeof(set), &fd, 1, NULL);
}

void trigger_unmask(struct judge *j, uint32_t index, unsigned vector)
{
    const struct vfio_irq_set set = trigger_command(index, vector, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK);

    if (j->facts.irq[index].flags & VFIO_IRQ_INFO_AUTOMASKED)
        want_ok(j, call(j, OB_RAW_SET_IRQS, &set, sizeof(set), NULL, 0, NULL), "SET_IRQS to unmask");
}

int trigger(struct judge *j, uint32_t index, unsigned vector)
{
    const struct vfio_irq_set set =
        trigger_command(index, vector, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER);

    trigger_unmask(j, index, vector);
    return call(j, OB_RAW_SET_IRQS, &set, sizeof(set), NULL, 0, NULL);
}

void device_raise(struct judge *j, uint32_t index, unsigned vector)
{
    j->facts.exerciser->raise(j, index, vector);
}

void device_lower(struct judge *j, uint32_t index, unsigned vector)
{
    j->facts.exerciser->lower(j, index, vector);
}

void device_copy_begin(struct judge *j, uint64_t from, uint64_t to, uint32_t len)
{
    const struct exerciser *e = j->facts.exerciser;

    if (!j->copying && e->begin != NULL)
        e->begin(j);
    j->copying = true;
    e->copy(j, from, to, len);
}

int device_copy_end(struct judge *j)
{
    int result;

    /* Devices tell by a register, so it is asked again; each turn is a round trip. */
    for (int waited = 0; (result = j->facts.exerciser->copied(j)) < 0; waited++) {
        want(j, waited < j->timeout_ms, "the device's copy has not ended after %d ms", j->timeout_ms);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    return result;
}

int device_copy(struct judge *j, uint64_t from, uint64_t to, uint32_t len)
{
    device_copy_begin(j, from, to, len);
    return device_copy_end(j);
}

uint64_t bar_read(struct judge *j, uint32_t bar, uint64_t offset, uint32_t width)
{
    struct ob_raw_region request = { .offset = offset, .region = bar, .count = width };
    struct ob_raw_message *reply;
    uint64_t value = 0;

    want_ok(j, call(j, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, &reply), "reading a register");
    want(j, reply->size == sizeof(request) + width, "reading %u bytes of a register: a payload of %u bytes", width,
         reply->size);
    memcpy(&value, reply->payload + sizeof(request), width);
    return value;
}

void bar_write(struct judge *j, uint32_t bar, uint64_t offset, uint32_t width, uint64_t value)
{
    struct {
        struct ob_raw_region access;
        uint64_t value;
    } request = { { .offset = offset, .region = bar, .count = width }, value };

    want_ok(j, call(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + width, NULL, 0, NULL),
            "writing a register");
}
