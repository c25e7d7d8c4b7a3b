/* exerciser.h: how a device that the judge knows is made to do what devices do: interrupt, and access guest memory.
 *
 * Registers mean something else in every device, so a check that needs an interrupt or DMA runs on known devices only
 * (NEED_INTERRUPT, NEED_DMA). A device is added by a file exerciser_NAME.c and a line in exerciser.c. */
#ifndef CONFORM_EXERCISER_H
#define CONFORM_EXERCISER_H

#include "check.h"

/* The exerciser's own guest memory, if it needs any, is mapped here: checks map elsewhere. Below 256 MiB, which is as
 * far as edu's address lines reach. */
#define EXERCISER_IOVA UINT64_C(0x0f000000)
#define EXERCISER_SIZE UINT64_C(0x00100000)

struct exerciser_register {
    uint32_t region, width; /* width: of its accesses; 0: no more */
    uint64_t offset;
};

struct exerciser {
    const char *name;
    uint16_t vendor, device;
    uint32_t class_code; /* not 0: every device of this class, whatever its ids */
    uint32_t irqs;       /* bit n: raise() works with VFIO_PCI_*_IRQ_INDEX n */
    uint32_t max_copy;   /* bytes; 0: no DMA */
    bool tells;          /* whether a copy failed */
    /* The condition of a vector (INTx: 0) becomes true, or false; both may be repeated. */
    void (*raise)(struct judge *j, uint32_t index, unsigned vector);
    void (*lower)(struct judge *j, uint32_t index, unsigned vector);
    /* Begins to copy guest memory within the device. */
    void (*copy)(struct judge *j, uint64_t from, uint64_t to, uint32_t len);
    /* Whether that is over, and how: -1: it is not; 0: it is, as far as the device can tell; or an errno. It serves the
     * server's commands that have come, and sends none as long as more may come: most servers are able to take one
     * while they wait for a reply, and checks of VU-CON-10 and VU-DMA-15 are for the others. */
    int (*copied)(struct judge *j);
    void (*begin)(struct judge *j); /* before the first copy of a check; optional */
    /* Registers that keep what is written to them, and do nothing else. */
    const struct exerciser_register *keep;
    /* Others that can be read without an effect, and do not change by themselves. */
    const struct exerciser_register *show;
    /* Gives those of `show` that can have any other values, which differ for each seed from 1 to 255. */
    void (*mark)(struct judge *j, uint8_t seed);
    /* How often the doorbell rang that a write of `value` there rings; NULL: the device has none. */
    uint64_t (*rings)(struct judge *j, uint32_t region, uint64_t offset, uint64_t value);
};

/* NULL: not known. */
const struct exerciser *exerciser_find(uint16_t vendor, uint16_t device, uint32_t class_code);

/* Resets the device, if that is possible, and enables decoding and, with `master`, bus mastering. */
void device_on(struct judge *j, bool master);
/* Enables or disables MSI or MSI-X in configuration space; nothing for INTx. */
void device_messages(struct judge *j, uint32_t index, bool on);
void device_raise(struct judge *j, uint32_t index, unsigned vector);
void device_lower(struct judge *j, uint32_t index, unsigned vector);
/* The same by posted writes, as far as it is writes. */
void device_lower_posted(struct judge *j, uint32_t index, unsigned vector);
/* An interrupt type of this device that raise() works with, messages first. */
uint32_t device_irq(struct judge *j);
/* Skips the check unless raise() works with that type. */
void device_needs(struct judge *j, uint32_t index);

/* Copies, and waits for the end: 0, or the device's errno. The device is on, and master. Memory without a descriptor is
 * served by raw.dma meanwhile. */
int device_copy(struct judge *j, uint64_t from, uint64_t to, uint32_t len);
/* The same in two steps. */
void device_copy_begin(struct judge *j, uint64_t from, uint64_t to, uint32_t len);
int device_copy_end(struct judge *j);

/* Registers: an access of `width` bytes that succeeds. */
uint64_t bar_read(struct judge *j, uint32_t bar, uint64_t offset, uint32_t width);
void bar_write(struct judge *j, uint32_t bar, uint64_t offset, uint32_t width, uint64_t value);

#endif
