/* exerciser.c: the devices that are known, and what all of them have in common. */
#include "exerciser.h"

#include <time.h>

extern const struct exerciser exerciser_edu, exerciser_serial, exerciser_testdev;

static const struct exerciser *const known[] = { &exerciser_edu, &exerciser_serial, &exerciser_testdev };

const struct exerciser *exerciser_find(uint16_t vendor, uint16_t device, uint32_t class_code)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (known[i]->class_code != 0 ? known[i]->class_code == class_code
                                      : known[i]->vendor == vendor && known[i]->device == device)
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

static bool raises(const struct judge *j, uint32_t index)
{
    return j->facts.exerciser != NULL && j->facts.exerciser->irqs & 1u << index && j->facts.irq[index].count > 0;
}

uint32_t device_irq(struct judge *j)
{
    static const uint32_t order[] = { VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX };

    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        if (raises(j, order[i]))
            return order[i];
    }
    judge_skip(j, "no interrupt type of this device can be made to interrupt");
}

void device_needs(struct judge *j, uint32_t index)
{
    static const char *const names[] = { "INTx", "MSI", "MSI-X" };

    if (!raises(j, index))
        judge_skip(j, "no known way to make this device interrupt by %s", names[index]);
}

void device_raise(struct judge *j, uint32_t index, unsigned vector)
{
    j->facts.exerciser->raise(j, index, vector);
}

void device_lower(struct judge *j, uint32_t index, unsigned vector)
{
    j->facts.exerciser->lower(j, index, vector);
}

void device_lower_posted(struct judge *j, uint32_t index, unsigned vector)
{
    j->posting = true;
    device_lower(j, index, vector);
    j->posting = false;
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

    /* Nothing else tells of what a device does in memory. */
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

    if (j->posting)
        post(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + width, NULL, 0);
    else
        want_ok(j, call(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + width, NULL, 0, NULL),
                "writing a register");
}
