/* Devices that keep, refuse, copy, pin and interrupt as they are told.
 *
 * BAR0, registers of 4 bytes: 00 SCRATCH rw; 04 FLAGS w1c; 08 LATCH rc; 0c LEVELS, bit n of vector n; 10 PULSE a
 * vector; 14 ERROR, accesses fail with the MODE's high half; 18 KEEP, accesses are kept; 1c RELEASE, they are answered;
 * 20 TIMER, bits 1:0 which, the rest microseconds from now; 24 MODE, bits below; 28 ADDRESS of 8 bytes and 30 LENGTH;
 * 34 COPY, bit 0: to the guest; 38 PIN, protection; 3c UNPIN; 40 WINDOW, 1 opens, 2 uses, else closes; 44 AFTER, n
 * effects in a row; 50 ARRAY[4]; 60 WIDE of 8 bytes. 800: an area with a callback, kept at 0x10, refused at 0x20. */
#include "classes.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <linux/pci_regs.h>

#define KEPT   8
#define COPIES 4
#define PINS   4
#define PIECES 8
#define BUFFER 65536u
#define TIMERS 4

enum {
    MODE_RESET_LATER = 1,
    MODE_QUIESCE_LATER = 2,
    MODE_UNMAP_LATER = 4,
    MODE_RESET_FAILS = 8,
    MODE_UNMAP_FAILS = 16,
    MODE_HOLD_PINS = 32,   /* an unmap has to wait for UNPIN */
    MODE_BY_TIMER = 64,    /* what is kept is answered a millisecond later */
    MODE_AT_ONCE = 128,    /* it is answered before the handler returns */
    MODE_COPY_AGAIN = 256, /* a copy's end starts it once more */
    MODE_COPY_KEEPS = 512, /* the write to COPY is kept */
};

struct device {
    uint32_t scratch, flags, latch, levels, mode, length;
    uint64_t address, wide;
    uint32_t array[4], copied, effects;
    uint8_t echo[256];
};

static const struct ob_field device_fields[] = {
    OB_FIELD(struct device, scratch),
    OB_FIELD(struct device, flags),
    OB_FIELD(struct device, latch),
    OB_FIELD(struct device, levels),
    OB_FIELD(struct device, mode),
    OB_FIELD(struct device, length),
    OB_FIELD(struct device, address),
    OB_FIELD(struct device, wide),
    OB_FIELD_ARRAY(struct device, array),
    OB_FIELD(struct device, copied),
    OB_FIELD(struct device, effects),
    OB_FIELD_ARRAY(struct device, echo),
    OB_FIELD_END,
};

struct copy {
    struct ob_dma dma; /* first: done() has its address */
    struct ob_dev *dev;
    bool busy, again;
    uint8_t buf[BUFFER];
};

struct pin {
    uint32_t pins[PIECES];
    int n;
};

struct scratch {
    struct ob_req *kept[KEPT];
    unsigned n_kept, n_pins;
    struct copy copies[COPIES];
    struct pin pins[PINS];
    struct ob_window *window;
};

static struct device *state(struct ob_req *req)
{
    return ob_state(ob_req_dev(req));
}

/* --- Kept requests ----------------------------------------------------------------------------------------------- */

static int keep(struct ob_req *req)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);
    uint32_t mode = state(req)->mode;

    if (s->n_kept == KEPT)
        return -EBUSY;
    if (mode & MODE_AT_ONCE) {
        ob_reply(req, mode & MODE_RESET_FAILS ? -EIO : 0, 0x1234);
        return OB_LATER;
    }
    s->kept[s->n_kept++] = req;
    if (mode & MODE_BY_TIMER)
        ob_timer(dev, 0, ob_now() + 1000000);
    return OB_LATER;
}

static void release(struct ob_dev *dev, int err)
{
    struct scratch *s = ob_scratch(dev);
    struct scratch all = { .n_kept = s->n_kept };

    memcpy(all.kept, s->kept, sizeof(all.kept));
    s->n_kept = 0;
    for (unsigned i = 0; i < all.n_kept; i++)
        ob_reply(all.kept[i], err, 0x5a5a5a5a);
}

void classes_release(struct ob_dev *dev)
{
    release(dev, -ECANCELED);
}

static int keep_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    return keep(req);
}

static int keep_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    state(req)->flags++; /* which keeping it undoes */
    return keep(req);
}

static int release_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    release(ob_req_dev(req), -(int)(val & 0xff));
    return OB_DONE;
}

static int error_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    return -(int)(state(req)->mode >> 16);
}

static int error_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);

    ob_timer(dev, 1, ob_now() + val);
    ob_irq_level(dev, 1, true);
    return -(int)(state(req)->mode >> 16);
}

/* --- Interrupts, time, effects ----------------------------------------------------------------------------------- */

static int levels_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);

    for (unsigned v = 0; v < 32; v++)
        ob_irq_level(dev, v, state(req)->levels >> v & 1);
    return OB_DONE;
}

static int pulse_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_irq_pulse(ob_req_dev(req), (unsigned)val);
    return OB_DONE;
}

static int timer_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_timer(ob_req_dev(req), val & 3, ob_now() + (val >> 2) * 1000);
    return OB_DONE;
}

static void effect(struct ob_dev *dev, uint64_t left)
{
    struct device *d = ob_state(dev);

    d->effects++;
    ob_irq_level(dev, d->effects % 8, left & 1);
    if (left > 0)
        ob_after(dev, effect, left - 1);
}

static int after_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    for (unsigned i = 0; i < (val >> 4 & 15); i++)
        ob_after(ob_req_dev(req), effect, 0);
    ob_after(ob_req_dev(req), effect, val & 15);
    return OB_DONE;
}

/* --- DMA --------------------------------------------------------------------------------------------------------- */

static void copy_start(struct copy *copy, uint64_t iova, size_t len, bool to_guest);

static void copy_done(struct ob_dma *dma, int err)
{
    struct copy *copy = (struct copy *)dma;
    struct device *d = ob_state(copy->dev);

    copy->busy = false;
    d->copied += err == 0;
    if (copy->again) {
        copy->again = false;
        copy_start(copy, dma->iova, dma->len, !dma->to_guest);
    }
}

static void copy_start(struct copy *copy, uint64_t iova, size_t len, bool to_guest)
{
    struct device *d = ob_state(copy->dev);

    copy->dma = (struct ob_dma){ .iova = iova, .buf = copy->buf, .len = len, .to_guest = to_guest, .done = copy_done };
    int err = ob_dma_copy(ob_control(copy->dev), &copy->dma);
    copy->busy = err == OB_LATER;
    d->copied += err == OB_DONE;
}

static int copy_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);
    const struct device *d = state(req);

    for (unsigned i = 0; i < COPIES; i++) {
        struct copy *copy = &s->copies[i];
        if (copy->busy)
            continue;
        copy->dev = dev;
        copy->again = d->mode & MODE_COPY_AGAIN;
        copy_start(copy, d->address, d->length < BUFFER ? d->length : BUFFER, val & 1);
        break;
    }
    return d->mode & MODE_COPY_KEEPS ? keep(req) : OB_DONE;
}

static void unpin_all(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    while (s->n_pins > 0) {
        const struct pin *pin = &s->pins[--s->n_pins];
        ob_dma_unpin(ob_control(dev), pin->pins, pin->n);
    }
}

/* Both ends of a piece, as a device would use it. */
static uint8_t touch(void *bytes, size_t len, int prot)
{
    volatile uint8_t *at = bytes;
    uint8_t sum = 0;

    if (prot & PROT_READ)
        sum = (uint8_t)(at[0] + at[len - 1]);
    if (prot & PROT_WRITE)
        at[0] = at[len - 1] = 0x77;
    return sum;
}

static int pin_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);
    struct device *d = state(req);
    struct pin *pin = &s->pins[s->n_pins];
    struct iovec iov[PIECES];
    int prot = (int)(val & (PROT_READ | PROT_WRITE)), max = val & 8 ? 1 : PIECES;

    if (s->n_pins == PINS)
        return -EBUSY;
    pin->n = ob_dma_pin(ob_control(dev), d->address, d->length, prot, iov, pin->pins, max);
    if (pin->n < 0)
        return pin->n;
    for (int i = 0; i < pin->n; i++)
        d->scratch += touch(iov[i].iov_base, iov[i].iov_len, prot);
    s->n_pins++;
    return OB_DONE;
}

static int unpin_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    unpin_all(ob_req_dev(req));
    return OB_DONE;
}

static void window_close(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    ob_dma_window_close(dev, s->window);
    s->window = NULL;
}

static int window_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);
    struct device *d = state(req);

    if (val == 2 && s->window) {
        void *p = ob_dma_window_pointer(ob_control(dev), s->window);
        if (p)
            d->scratch += touch(p, 1, PROT_READ | PROT_WRITE);
        return OB_DONE;
    }
    window_close(dev);
    if (val != 1)
        return OB_DONE;
    return ob_dma_window_open(dev, d->address, d->length, PROT_READ | PROT_WRITE, &s->window);
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static int echo_access(struct ob_req *req, const struct ob_access *access)
{
    uint8_t *at = state(req)->echo + access->off;

    if (access->off == 0x10)
        return keep(req);
    if (access->off == 0x20)
        return -EIO;
    memcpy(access->write ? at : access->data, access->write ? access->data : at, access->len);
    return OB_DONE;
}

static int device_quiesce(struct ob_req *req)
{
    struct ob_dev *dev = ob_req_dev(req);

    release(dev, -ECANCELED);
    unpin_all(dev);
    return state(req)->mode & MODE_QUIESCE_LATER ? keep(req) : OB_DONE;
}

static int device_reset(struct ob_req *req, enum ob_reset kind)
{
    struct ob_dev *dev = ob_req_dev(req);
    uint32_t mode = state(req)->mode;

    ob_irq_level(dev, 0, false);
    ob_timer(dev, 2, 0);
    window_close(dev);
    return mode & MODE_RESET_LATER ? keep(req) : mode & MODE_RESET_FAILS ? -EIO : OB_DONE;
}

static void device_config(struct ob_dev *dev, uint32_t off, uint32_t len)
{
    struct device *d = ob_state(dev);

    d->scratch ^= off << 16 | len;
}

static int device_unmap(struct ob_req *req, uint64_t iova, uint64_t len)
{
    uint32_t mode = state(req)->mode;

    if (!(mode & MODE_HOLD_PINS))
        unpin_all(ob_req_dev(req));
    return mode & MODE_UNMAP_LATER ? keep(req) : mode & MODE_UNMAP_FAILS ? -EIO : OB_DONE;
}

static void device_timer(struct ob_dev *dev, unsigned id)
{
    struct device *d = ob_state(dev);

    if (id == 0)
        release(dev, 0);
    d->array[id]++;
    ob_irq_level(dev, id, d->array[id] & 1);
}

static void device_close(struct ob_dev *dev)
{
    release(dev, -ECANCELED);
    unpin_all(dev);
    window_close(dev);
}

/* --- The classes ------------------------------------------------------------------------------------------------- */

#define D     struct device
#define PLAIN .width = 4

static const struct ob_reg registers[] = {
    OB_REG32("SCRATCH", 0x00, D, scratch, .rw = UINT32_MAX, .reset = 0x5c5c5c5c),
    OB_REG32("FLAGS", 0x04, D, flags, .w1c = 0xff, .rw = 0xff00),
    OB_REG32("LATCH", 0x08, D, latch, .rc = 0xff, .rw = UINT32_MAX),
    OB_REG32("LEVELS", 0x0c, D, levels, .rw = UINT32_MAX, .write = levels_write),
    { .name = "PULSE", .off = 0x10, PLAIN, .write = pulse_write },
    { .name = "ERROR", .off = 0x14, PLAIN, .read = error_read, .write = error_write },
    { .name = "KEEP", .off = 0x18, PLAIN, .read = keep_read, .write = keep_write },
    { .name = "RELEASE", .off = 0x1c, PLAIN, .min_access = 2, .max_access = 4, .write = release_write },
    { .name = "TIMER", .off = 0x20, PLAIN, .write = timer_write },
    OB_REG32("MODE", 0x24, D, mode, .rw = 0x00ff03ff),
    OB_REG64("ADDRESS", 0x28, D, address, .min_access = 4, .rw = UINT64_MAX),
    OB_REG32("LENGTH", 0x30, D, length, .rw = UINT32_MAX),
    { .name = "COPY", .off = 0x34, PLAIN, .write = copy_write },
    { .name = "PIN", .off = 0x38, PLAIN, .write = pin_write },
    { .name = "UNPIN", .off = 0x3c, PLAIN, .write = unpin_write },
    { .name = "WINDOW", .off = 0x40, PLAIN, .write = window_write },
    { .name = "AFTER", .off = 0x44, PLAIN, .write = after_write },
    OB_REG32("ARRAY", 0x50, D, array, .rw = 0xffff, .count = 4, .stride = 4),
    OB_REG64("WIDE", 0x60, D, wide, .rw = UINT64_MAX, .rc = 0xff),
    OB_REG_END,
};

/* Interrupts by message only are pulsed; the other classes have levels. */
static const struct ob_reg io_registers[] = {
    OB_REG8("IO8", 0x00, D, scratch, .rw = 0xff),
    OB_REG16("IO16", 0x02, D, flags, .rw = 0xffff),
    OB_REG32("LEVELS", 0x04, D, levels, .rw = UINT32_MAX, .write = levels_write),
    OB_REG_END,
};

static const struct ob_area areas[] = {
    { .off = 0, .size = 0x800, .regs = registers },
    { .off = 0x800, .size = 0x100, .access = echo_access },
    { .off = 0x900, .size = 0x300, .flags = OB_AREA_RAM },
    OB_AREA_END,
};
static const struct ob_area shared_areas[] = {
    { .off = 0x0000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    { .off = 0x2000, .size = 0x3000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    { .off = 0x5100, .size = 0x10, .access = echo_access },
    OB_AREA_END,
};
static const struct ob_area whole_area[] = { { .size = 0x4000, .flags = OB_AREA_RAM | OB_AREA_MMAP }, OB_AREA_END };
static const struct ob_msix_place place = { .table_bar = 2, .pba_bar = 2, .table_off = 0x1000, .pba_off = 0x1800 };

static const uint8_t cap_bytes[] = { 0x08, 1, 2, 3, 4, 5 }, cap_mask[] = { 0, 0, 0xff, 0x0f, 0xf0, 0xff };
static const struct ob_cap caps[] = {
    { .id = PCI_CAP_ID_VNDR, .size = sizeof(cap_bytes), .bytes = cap_bytes, .write_mask = cap_mask },
    { .id = PCI_EXT_CAP_ID_DSN, .extended = true, .version = 1, .size = 6, .bytes = cap_bytes, .write_mask = cap_mask },
    OB_CAP_END,
};

#define BEHAVIOUR                                                                                                 \
    .state = OB_STATE(struct device, 1, device_fields), .scratch_size = sizeof(struct scratch), .timers = TIMERS, \
    .ops = { .quiesce = device_quiesce,                                                                           \
             .reset = device_reset,                                                                               \
             .config = device_config,                                                                             \
             .unmap = device_unmap,                                                                               \
             .timer = device_timer,                                                                               \
             .close = device_close }

OB_CLASS(express, .pci = { .vendor = 0x1234, .device = 1, .power_management = true, .express = true },
         .irqs = { .msix = 64, .place = &place }, .bars[0] = { .size = 0x1000, .areas = areas },
         .bars[1] = OB_BAR_REGS_FLAGS(8, OB_BAR_IO, io_registers),
         .bars[2] = { .size = 0x8000, .flags = OB_BAR_64 | OB_BAR_PREFETCH, .areas = shared_areas },
         .bars[4] = { .size = 0x4000, .areas = whole_area }, .caps = caps, BEHAVIOUR);

OB_CLASS(legacy, .pci = { .vendor = 0x1234, .device = 2, .power_management = true }, .irqs = { .intx = true, .msi = 8 },
         .bars[0] = { .size = 0x1000, .areas = areas }, .bars[1] = OB_BAR_REGS_FLAGS(8, OB_BAR_IO, io_registers),
         BEHAVIOUR);

OB_CLASS(mixed, .pci = { .vendor = 0x1234, .device = 3, .express = true },
         .irqs = { .intx = true, .msi = 32, .msix = 5 }, .bars[0] = { .size = 0x1000, .areas = areas }, .caps = caps,
         .max_reply_ms = 10, BEHAVIOUR);

OB_CLASS(bare, .pci = { .vendor = 0x1234, .device = 4 }, .irqs = { .msix = 2048 });
