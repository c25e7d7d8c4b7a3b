/* bars.c: BARs: how large they are, where they lie, and accesses to what is behind them. */
#include <errno.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include "driver/driver.h"

/* Windows on the bus. Those of memory are where a PC has neither RAM nor what is fixed (bus.c puts the extended
 * configuration space at 0xb0000000); the I/O one lies above all that a chipset decodes. */
#define IO_START     UINT64_C(0xc000)
#define IO_END       UINT64_C(0x10000)
#define MEMORY_START UINT64_C(0xc0000000)
#define MEMORY_END   UINT64_C(0xfe000000)
#define HIGH_START   UINT64_C(0x1000000000)
#define HIGH_END     (UINT64_C(1) << 46)
/* 64-bit BARs of this size go to the high window. */
#define HIGH_SIZE UINT64_C(0x4000000)

#define COMMAND_AT_REST (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE)

static unsigned bar_register(unsigned bar)
{
    return PCI_BASE_ADDRESS_0 + 4 * bar;
}

/* What the register keeps of all ones; its old value is put back. */
static uint32_t size_register(struct ob_driver *driver, unsigned bar)
{
    uint32_t old = ob_config_read32(driver, bar_register(bar)), ones;

    ob_config_write32(driver, bar_register(bar), UINT32_MAX);
    ones = ob_config_read32(driver, bar_register(bar));
    ob_config_write32(driver, bar_register(bar), old);
    return ones;
}

/* PCI 3.0, 6.2.5.1: the address bits that can be set are the upper ones, without gaps. I/O BARs may lack bits 31:16. */
static int size_of_mask(uint64_t mask, uint64_t all, uint64_t *size)
{
    *size = mask & -mask;
    return mask && (mask | (*size - 1)) != all ? -EPROTO : 0;
}

/* Where a server leaves BARs to its client, as it may, sizes are those of its regions. */
static int check_size(struct ob_driver *driver, unsigned bar, char *why)
{
    struct ob_driver_bar *b = &driver->bars[bar];
    uint64_t known;
    int err;

    if (!driver->ops->bar_size)
        return 0;
    err = driver->ops->bar_size(driver, bar, &known);
    if (err)
        return ob_driver_why(why, err, "no information about region %u", bar);
    if (b->size == 0 && known != 0 && known <= HIGH_END) {
        b->size = UINT64_C(16);
        while (b->size < known)
            b->size *= 2;
        return 0;
    }
    /* A BAR is a power of two, the region in it need not be. */
    if (known > b->size || (known <= b->size / 2 && b->size > 4096))
        return ob_driver_why(why, -EPROTO,
                             "BAR %u has 0x%" PRIx64 " bytes by its register, but region %u has 0x%" PRIx64, bar,
                             b->size, bar, known);
    return 0;
}

/* Returns how many registers the BAR takes, or -errno. */
static int size_bar(struct ob_driver *driver, unsigned bar, char *why)
{
    struct ob_driver_bar *b = &driver->bars[bar];
    uint32_t ones = size_register(driver, bar);
    uint64_t mask, all = UINT32_MAX;
    unsigned type = ones & PCI_BASE_ADDRESS_MEM_TYPE_MASK;

    *b = (struct ob_driver_bar){ .io = ones & PCI_BASE_ADDRESS_SPACE_IO };
    if (driver->error)
        return ob_driver_why(why, driver->error, "%s", driver->failure);
    if (b->io) {
        mask = ones & (uint32_t)PCI_BASE_ADDRESS_IO_MASK;
        if (!(mask >> 16))
            all = UINT16_MAX;
    } else {
        b->prefetchable = ones & PCI_BASE_ADDRESS_MEM_PREFETCH;
        b->wide = type == PCI_BASE_ADDRESS_MEM_TYPE_64;
        mask = ones & (uint32_t)PCI_BASE_ADDRESS_MEM_MASK;
        if ((type != PCI_BASE_ADDRESS_MEM_TYPE_32 && !b->wide) || (b->wide && bar + 1 == OB_DRIVER_BARS))
            return ob_driver_why(why, -EPROTO, "BAR %u reads 0x%x after all ones were written: there is no such type",
                                 bar, ones);
    }
    if (b->wide) {
        mask |= (uint64_t)size_register(driver, bar + 1) << 32;
        all = UINT64_MAX;
    }
    if (size_of_mask(mask, all, &b->size) < 0)
        return ob_driver_why(why, -EPROTO, "BAR %u reads 0x%" PRIx64 " after all ones were written: that is no size",
                             bar, mask);
    int err = check_size(driver, bar, why);

    return err ? err : b->wide ? 2 : 1;
}

int ob_driver_size_bars(struct ob_driver *driver, char *why)
{
    ob_config_write16(driver, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
    for (unsigned bar = 0; bar < OB_DRIVER_BARS;) {
        int registers = size_bar(driver, bar, why);

        if (registers < 0)
            return registers;
        bar += (unsigned)registers;
    }
    return 0;
}

/* The next free place of that size and so aligned in [*next, end). */
static int place(uint64_t *next, uint64_t end, uint64_t size, uint64_t *address)
{
    uint64_t at = (*next + size - 1) & ~(size - 1);

    if (size > end || at > end - size)
        return -ENOSPC;
    *address = at;
    *next = at + size;
    return 0;
}

int ob_driver_place_bars(struct ob_driver *driver, char *why)
{
    uint64_t io = IO_START, memory = MEMORY_START, high = HIGH_START;

    for (unsigned bar = 0; bar < OB_DRIVER_BARS; bar++) {
        struct ob_driver_bar *b = &driver->bars[bar];
        int err;

        if (b->size == 0)
            continue;
        if (b->io)
            err = place(&io, IO_END, b->size, &b->address);
        else if (b->wide && b->size >= HIGH_SIZE)
            err = place(&high, HIGH_END, b->size, &b->address);
        else
            err = place(&memory, MEMORY_END, b->size, &b->address);
        if (err)
            return ob_driver_why(why, err, "no room on the bus for the 0x%" PRIx64 " bytes of BAR %u", b->size, bar);
    }
    ob_driver_write_bars(driver);
    return driver->error ? ob_driver_why(why, driver->error, "%s", driver->failure) : 0;
}

void ob_driver_write_bars(struct ob_driver *driver)
{
    for (unsigned bar = 0; bar < OB_DRIVER_BARS; bar++) {
        const struct ob_driver_bar *b = &driver->bars[bar];

        if (b->size)
            ob_config_write32(driver, bar_register(bar), (uint32_t)b->address);
        if (b->size && b->wide)
            ob_config_write32(driver, bar_register(bar + 1), (uint32_t)(b->address >> 32));
    }
    ob_config_write16(driver, PCI_COMMAND, COMMAND_AT_REST);
}

int ob_driver_bar(struct ob_driver *driver, unsigned bar, struct ob_driver_bar *info)
{
    if (bar >= OB_DRIVER_BARS)
        return -EINVAL;
    *info = driver->bars[bar];
    return 0;
}

/* --- Accesses ---------------------------------------------------------------------------------------------------- */

static uint64_t bar_access(struct ob_driver *driver, bool write, unsigned bar, uint64_t off, unsigned width,
                           uint64_t val)
{
    uint64_t size = bar < OB_DRIVER_BARS ? driver->bars[bar].size : 0;
    int err;

    /* There is no I/O cycle of 8 bytes. */
    if (off > size || width > size - off || (width == 8 && driver->bars[bar].io))
        err = -EINVAL;
    else
        err = driver->ops->access(driver, write, bar, off, width, &val);
    if (!err)
        return val;
    ob_driver_failed(driver, err, "%s of %u bytes at 0x%" PRIx64 " of BAR %u", write ? "write" : "read", width, off,
                     bar);
    return UINT64_MAX;
}

uint8_t ob_read8(struct ob_driver *driver, unsigned bar, uint64_t off)
{
    return (uint8_t)bar_access(driver, false, bar, off, 1, 0);
}

uint16_t ob_read16(struct ob_driver *driver, unsigned bar, uint64_t off)
{
    return (uint16_t)bar_access(driver, false, bar, off, 2, 0);
}

uint32_t ob_read32(struct ob_driver *driver, unsigned bar, uint64_t off)
{
    return (uint32_t)bar_access(driver, false, bar, off, 4, 0);
}

uint64_t ob_read64(struct ob_driver *driver, unsigned bar, uint64_t off)
{
    return bar_access(driver, false, bar, off, 8, 0);
}

void ob_write8(struct ob_driver *driver, unsigned bar, uint64_t off, uint8_t val)
{
    bar_access(driver, true, bar, off, 1, val);
}

void ob_write16(struct ob_driver *driver, unsigned bar, uint64_t off, uint16_t val)
{
    bar_access(driver, true, bar, off, 2, val);
}

void ob_write32(struct ob_driver *driver, unsigned bar, uint64_t off, uint32_t val)
{
    bar_access(driver, true, bar, off, 4, val);
}

void ob_write64(struct ob_driver *driver, unsigned bar, uint64_t off, uint64_t val)
{
    bar_access(driver, true, bar, off, 8, val);
}

int ob_wait32(struct ob_driver *driver, unsigned bar, uint64_t off, uint32_t mask, uint32_t wanted, int timeout_ms)
{
    int64_t deadline = ob_driver_now() + timeout_ms;

    for (unsigned turn = 0;; turn++) {
        bool over = !ob_driver_left(deadline);
        uint32_t val = ob_read32(driver, bar, off);
        int err = driver->error;

        if (err)
            return err;
        if ((val & mask) == wanted)
            return 0;
        if (over)
            return -ETIMEDOUT;
        if (driver->ops->pass_time)
            err = driver->ops->pass_time(driver);
        if (err)
            return err;
        ob_driver_back_off(turn);
    }
}

int ob_driver_map(struct ob_driver *driver, unsigned bar, uint64_t off, uint64_t len, volatile void **memory)
{
    uint64_t size = bar < OB_DRIVER_BARS ? driver->bars[bar].size : 0;

    if (len == 0 || off > size || len > size - off)
        return -EINVAL;
    return driver->ops->map ? driver->ops->map(driver, bar, off, len, memory) : -ENOTSUP;
}
