/* irqs.c: enabling, masking and awaiting interrupts: what a driver writes to the device. How they arrive is the way's.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include "driver/driver.h"

/* An entry of the MSI-X table, PCI 3.0, 6.8.2.6 to 6.8.2.9. */
static void write_entry(struct ob_driver *driver, unsigned vector, bool masked)
{
    uint64_t at = driver->table_off + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE, address = 0;
    uint32_t data = 0;

    driver->ops->message(driver, vector, &address, &data);
    ob_write32(driver, driver->table_bar, at + PCI_MSIX_ENTRY_LOWER_ADDR, (uint32_t)address);
    ob_write32(driver, driver->table_bar, at + PCI_MSIX_ENTRY_UPPER_ADDR, (uint32_t)(address >> 32));
    ob_write32(driver, driver->table_bar, at + PCI_MSIX_ENTRY_DATA, data);
    ob_write32(driver, driver->table_bar, at + PCI_MSIX_ENTRY_VECTOR_CTRL, masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
}

/* --- Off --------------------------------------------------------------------------------------------------------- */

static int irqs_off(struct ob_driver *driver)
{
    enum ob_driver_irqs kind = driver->irqs;
    unsigned cap = driver->irq_cap;

    driver->irqs = OB_DRIVER_NO_IRQS;
    driver->vectors = 0;
    if (kind == OB_DRIVER_INTX)
        ob_config_write16(driver, PCI_COMMAND, ob_config_read16(driver, PCI_COMMAND) | PCI_COMMAND_INTX_DISABLE);
    if (kind == OB_DRIVER_MSI)
        ob_config_write16(driver, cap + PCI_MSI_FLAGS,
                          ob_config_read16(driver, cap + PCI_MSI_FLAGS) & (uint16_t)~PCI_MSI_FLAGS_ENABLE);
    if (kind == OB_DRIVER_MSIX)
        ob_config_write16(driver, cap + PCI_MSIX_FLAGS,
                          ob_config_read16(driver, cap + PCI_MSIX_FLAGS) & (uint16_t)~PCI_MSIX_FLAGS_ENABLE);
    return kind == OB_DRIVER_NO_IRQS ? 0 : driver->ops->irqs_off(driver, kind);
}

/* --- On ---------------------------------------------------------------------------------------------------------- */

static int intx_on(struct ob_driver *driver)
{
    int err;

    if (ob_config_read8(driver, PCI_INTERRUPT_PIN) == 0)
        return -ENOTSUP;
    err = driver->ops->irqs_on(driver, OB_DRIVER_INTX, 1);
    if (err < 0)
        return err;
    driver->irqs = OB_DRIVER_INTX;
    ob_config_write16(driver, PCI_COMMAND, ob_config_read16(driver, PCI_COMMAND) & (uint16_t)~PCI_COMMAND_INTX_DISABLE);
    return 1;
}

/* The largest power of two that is not above n. */
static unsigned floor_power(unsigned n)
{
    return 1u << (31 - (unsigned)__builtin_clz(n));
}

static int msi_on(struct ob_driver *driver, unsigned vectors)
{
    int cap = ob_find_capability(driver, PCI_CAP_ID_MSI), got;
    uint64_t address = 0;
    uint32_t data = 0;
    uint16_t flags;
    unsigned at;

    if (cap < 0)
        return cap == -ENOENT ? -ENOTSUP : cap;
    at = (unsigned)cap;
    flags = ob_config_read16(driver, at + PCI_MSI_FLAGS);
    if (vectors > 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1))
        vectors = 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1);
    got = driver->ops->irqs_on(driver, OB_DRIVER_MSI, floor_power(vectors));
    if (got < 0)
        return got;
    vectors = floor_power((unsigned)got);
    driver->irqs = OB_DRIVER_MSI;
    driver->irq_cap = at;
    driver->ops->message(driver, 0, &address, &data);
    ob_config_write32(driver, at + PCI_MSI_ADDRESS_LO, (uint32_t)address);
    if (flags & PCI_MSI_FLAGS_64BIT)
        ob_config_write32(driver, at + PCI_MSI_ADDRESS_HI, (uint32_t)(address >> 32));
    ob_config_write16(driver, at + (flags & PCI_MSI_FLAGS_64BIT ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), (uint16_t)data);
    if (flags & PCI_MSI_FLAGS_MASKBIT)
        ob_config_write32(driver, at + (flags & PCI_MSI_FLAGS_64BIT ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32), 0);
    flags = (uint16_t)((flags & ~PCI_MSI_FLAGS_QSIZE) | PCI_MSI_FLAGS_ENABLE);
    ob_config_write16(driver, at + PCI_MSI_FLAGS, (uint16_t)(flags | (unsigned)__builtin_ctz(vectors) << 4));
    return (int)vectors;
}

/* Entries that are not asked for stay masked. */
static int msix_on(struct ob_driver *driver, unsigned vectors)
{
    int cap = ob_find_capability(driver, PCI_CAP_ID_MSIX), got;
    unsigned at, size;
    uint32_t table;
    uint16_t flags;

    if (cap < 0)
        return cap == -ENOENT ? -ENOTSUP : cap;
    at = (unsigned)cap;
    flags = ob_config_read16(driver, at + PCI_MSIX_FLAGS);
    size = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
    table = ob_config_read32(driver, at + PCI_MSIX_TABLE);
    driver->table_bar = table & PCI_MSIX_TABLE_BIR;
    driver->table_off = table & PCI_MSIX_TABLE_OFFSET;
    if (driver->table_bar >= OB_DRIVER_BARS ||
        driver->table_off + (uint64_t)size * PCI_MSIX_ENTRY_SIZE > driver->bars[driver->table_bar].size)
        return -EPROTO;
    if (vectors > size)
        vectors = size;
    got = driver->ops->irqs_on(driver, OB_DRIVER_MSIX, vectors);
    if (got < 0)
        return got;
    driver->irqs = OB_DRIVER_MSIX;
    driver->irq_cap = at;
    ob_config_write16(driver, at + PCI_MSIX_FLAGS, flags | PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    for (unsigned v = 0; v < size; v++)
        write_entry(driver, v, v >= (unsigned)got);
    ob_config_write16(driver, at + PCI_MSIX_FLAGS,
                      (uint16_t)((flags | PCI_MSIX_FLAGS_ENABLE) & ~PCI_MSIX_FLAGS_MASKALL));
    return got;
}

int ob_driver_irqs(struct ob_driver *driver, enum ob_driver_irqs kind, unsigned vectors)
{
    int n = irqs_off(driver);

    if (n < 0 || kind == OB_DRIVER_NO_IRQS)
        return n;
    if (vectors == 0)
        return -EINVAL;
    if (kind == OB_DRIVER_INTX)
        n = intx_on(driver);
    else
        n = kind == OB_DRIVER_MSI ? msi_on(driver, vectors) : msix_on(driver, vectors);
    if (n >= 0 && driver->error)
        n = driver->error;
    if (n >= 0)
        driver->vectors = (unsigned)n;
    else
        irqs_off(driver);
    return n;
}

/* --- While on ---------------------------------------------------------------------------------------------------- */

int ob_driver_irq_wait(struct ob_driver *driver, unsigned vector, int timeout_ms)
{
    return vector < driver->vectors ? driver->ops->irq_wait(driver, vector, timeout_ms) : -EINVAL;
}

int ob_driver_irq_pending(struct ob_driver *driver, unsigned vector)
{
    return vector < driver->vectors ? driver->ops->irq_pending(driver, vector) : -EINVAL;
}

static int msi_mask(struct ob_driver *driver, unsigned vector, bool masked)
{
    uint16_t flags = ob_config_read16(driver, driver->irq_cap + PCI_MSI_FLAGS);
    unsigned at = driver->irq_cap + (flags & PCI_MSI_FLAGS_64BIT ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32);
    uint32_t bits;

    if (!(flags & PCI_MSI_FLAGS_MASKBIT))
        return -ENOTSUP;
    bits = ob_config_read32(driver, at);
    ob_config_write32(driver, at, masked ? bits | 1u << vector : bits & ~(1u << vector));
    return driver->error;
}

static int set_mask(struct ob_driver *driver, unsigned vector, bool masked)
{
    uint64_t entry = driver->table_off + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE;
    uint16_t command;

    if (vector >= driver->vectors)
        return -EINVAL;
    if (driver->irqs == OB_DRIVER_MSI)
        return msi_mask(driver, vector, masked);
    if (driver->irqs == OB_DRIVER_MSIX) {
        ob_write32(driver, driver->table_bar, entry + PCI_MSIX_ENTRY_VECTOR_CTRL,
                   masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
        return driver->error;
    }
    command = ob_config_read16(driver, PCI_COMMAND) & (uint16_t)~PCI_COMMAND_INTX_DISABLE;
    ob_config_write16(driver, PCI_COMMAND, command | (masked ? PCI_COMMAND_INTX_DISABLE : 0));
    return driver->error;
}

int ob_driver_mask(struct ob_driver *driver, unsigned vector)
{
    return set_mask(driver, vector, true);
}

int ob_driver_unmask(struct ob_driver *driver, unsigned vector)
{
    return set_mask(driver, vector, false);
}
