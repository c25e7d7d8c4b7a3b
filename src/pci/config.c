/* Reads, writes and resets the bytes of configuration space, byte by byte through the masks of its layout. */
#include "pci/config.h"

#include <errno.h>
#include <string.h>

enum {
    D0 = 0,
    D3HOT = 3,
    MSI_SIZE = PCI_MSI_PENDING_64 + 4,
};

static uint32_t get16(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t get32(const uint8_t *bytes)
{
    return get16(bytes) | get16(bytes + 2) << 16;
}

void ob_pci_config_reset(const struct ob_pci_layout *layout, uint8_t *config)
{
    memcpy(config, layout->reset, layout->size);
}

void ob_pci_config_reset_function(const struct ob_pci_layout *layout, uint8_t *config)
{
    uint8_t link[2] = { 0 };

    if (layout->express)
        memcpy(link, config + layout->express + PCI_EXP_LNKCTL, sizeof(link));
    ob_pci_config_reset(layout, config);
    if (layout->express)
        memcpy(config + layout->express + PCI_EXP_LNKCTL, link, sizeof(link));
}

static bool inside(const struct ob_pci_layout *layout, uint64_t off, size_t len)
{
    return off <= layout->size && len <= layout->size - off;
}

/* The stored byte at `i`, with the bits of `live`. */
static uint8_t read_byte(const struct ob_pci_layout *layout, const uint8_t *config, const struct ob_pci_live *live,
                         unsigned i)
{
    unsigned pending = layout->msi + PCI_MSI_PENDING_64;

    if (i == PCI_STATUS)
        return (uint8_t)(config[i] | (live->intx ? PCI_STATUS_INTERRUPT : 0));
    if (layout->msi && i >= pending && i < pending + 4)
        return (uint8_t)(live->msi_pending >> (8 * (i - pending)));
    return config[i];
}

int ob_pci_config_read(const struct ob_pci_layout *layout, const uint8_t *config, const struct ob_pci_live *live,
                       uint64_t off, size_t len, void *out)
{
    uint8_t *bytes = out;

    if (!inside(layout, off, len))
        return -EINVAL;
    for (size_t i = 0; i < len; i++)
        bytes[i] = read_byte(layout, config, live, (unsigned)(off + i));
    return 0;
}

static unsigned power_state(const struct ob_pci_layout *layout, const uint8_t *config)
{
    return layout->pm ? config[layout->pm + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK : D0;
}

/* Which register the byte at `i` belongs to. */
static uint32_t kind_of(const struct ob_pci_layout *layout, unsigned i)
{
    if (i == PCI_COMMAND || i == PCI_COMMAND + 1)
        return OB_PCI_COMMAND;
    if (i >= PCI_BASE_ADDRESS_0 && i < PCI_BASE_ADDRESS_5 + 4)
        return OB_PCI_BAR;
    if (layout->msi && i >= layout->msi && i - layout->msi < MSI_SIZE)
        return OB_PCI_MSI;
    if (layout->msix && i >= layout->msix && i - layout->msix < PCI_CAP_MSIX_SIZEOF)
        return OB_PCI_MSIX;
    if (layout->pm && i - layout->pm == PCI_PM_CTRL)
        return OB_PCI_POWER;
    return OB_PCI_OTHER;
}

static void write_byte(const struct ob_pci_layout *layout, uint8_t *config, unsigned i, uint8_t value,
                       struct ob_pci_change *change)
{
    uint8_t old = config[i], mask = layout->write[i];
    uint8_t next = (uint8_t)(((old & ~mask) | (value & mask)) & ~(value & layout->w1c[i]));
    unsigned state = next & PCI_PM_CTRL_STATE_MASK;
    uint32_t kind;

    /* Initiate Function Level Reset: bit 15 of Device Control, which always reads as 0 (PCIe 7.5.3.4). */
    if (layout->express && i == layout->express + PCI_EXP_DEVCTL + 1u && value & PCI_EXP_DEVCTL_BCR_FLR >> 8)
        change->what |= OB_PCI_RESET_FLR;
    if (next == old)
        return;
    kind = kind_of(layout, i);
    /* A state that is not supported is not entered, and the write is no error (PCI PM 1.2, 3.2.4). */
    if (kind == OB_PCI_POWER && state != D0 && state != D3HOT)
        return;
    config[i] = next;
    change->what |= kind;
    if (kind == OB_PCI_BAR)
        change->bars |= (uint8_t)(1 << (i - PCI_BASE_ADDRESS_0) / 4);
    if (kind == OB_PCI_POWER && state == D0 && !(next & PCI_PM_CTRL_NO_SOFT_RESET))
        change->what |= OB_PCI_RESET_POWER;
}

int ob_pci_config_write(const struct ob_pci_layout *layout, uint8_t *config, uint64_t off, size_t len, const void *data,
                        struct ob_pci_change *change)
{
    const uint8_t *bytes = data;

    *change = (struct ob_pci_change){ 0 };
    if (!inside(layout, off, len))
        return -EINVAL;
    for (size_t i = 0; i < len; i++)
        write_byte(layout, config, (unsigned)(off + i), bytes[i], change);
    return 0;
}

bool ob_pci_in_d3(const struct ob_pci_layout *layout, const uint8_t *config)
{
    return power_state(layout, config) == D3HOT;
}

bool ob_pci_bus_master(const struct ob_pci_layout *layout, const uint8_t *config)
{
    return get16(config + PCI_COMMAND) & PCI_COMMAND_MASTER && !ob_pci_in_d3(layout, config);
}

bool ob_pci_intx_disabled(const uint8_t *config)
{
    return get16(config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE;
}

unsigned ob_pci_msi_enabled(const struct ob_pci_layout *layout, const uint8_t *config)
{
    uint32_t control;
    unsigned allowed;

    if (!layout->msi)
        return 0;
    control = get16(config + layout->msi + PCI_MSI_FLAGS);
    if (!(control & PCI_MSI_FLAGS_ENABLE))
        return 0;
    allowed = 1u << ((control & PCI_MSI_FLAGS_QSIZE) >> 4);
    return allowed < layout->msi_vectors ? allowed : layout->msi_vectors;
}

uint32_t ob_pci_msi_masks(const struct ob_pci_layout *layout, const uint8_t *config)
{
    return layout->msi ? get32(config + layout->msi + PCI_MSI_MASK_64) : 0;
}

bool ob_pci_msix_enabled(const struct ob_pci_layout *layout, const uint8_t *config)
{
    return layout->msix && get16(config + layout->msix + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_ENABLE;
}

bool ob_pci_msix_masked(const struct ob_pci_layout *layout, const uint8_t *config)
{
    return layout->msix && get16(config + layout->msix + PCI_MSIX_FLAGS) & PCI_MSIX_FLAGS_MASKALL;
}
