/* tools/lspci_caps.c: walks the two lists of capabilities and prints them as lspci(8) does. The lists are the device's
 * word: an offset is visited once, and one that leaves the configuration space ends its list. */
#include "lspci.h"

#include <stdio.h>

/* PCI Power Management 1.2, 3.2. */
static void show_power(const struct function *f, size_t at)
{
    static const int currents[] = { 0, 55, 100, 160, 220, 270, 320, 375 }; /* mA, 3.2.3 */
    uint16_t pmc = reg16(f, at + PCI_PM_PMC), pmcsr = reg16(f, at + PCI_PM_CTRL);
    uint8_t bridge = reg8(f, at + PCI_PM_PPB_EXTENSIONS);

    printf("Power Management version %d\n", pmc & PCI_PM_CAP_VER_MASK);
    if (f->verbose < 2)
        return;
    printf("\t\tFlags: ");
    PRINT_BITS(pmc, { PCI_PM_CAP_PME_CLOCK, "PMEClk" }, { PCI_PM_CAP_DSI, "DSI" }, { PCI_PM_CAP_D1, "D1" },
               { PCI_PM_CAP_D2, "D2" });
    printf(" AuxCurrent=%dmA PME(D0%c,D1%c,D2%c,D3hot%c,D3cold%c)\n", currents[(pmc & PCI_PM_CAP_AUX_POWER) >> 6],
           flag(pmc, PCI_PM_CAP_PME_D0), flag(pmc, PCI_PM_CAP_PME_D1), flag(pmc, PCI_PM_CAP_PME_D2),
           flag(pmc, PCI_PM_CAP_PME_D3hot), flag(pmc, PCI_PM_CAP_PME_D3cold));
    printf("\t\tStatus: D%d NoSoftRst%c PME-Enable%c DSel=%d DScale=%d PME%c\n", pmcsr & PCI_PM_CTRL_STATE_MASK,
           flag(pmcsr, PCI_PM_CTRL_NO_SOFT_RESET), flag(pmcsr, PCI_PM_CTRL_PME_ENABLE),
           (pmcsr & PCI_PM_CTRL_DATA_SEL_MASK) >> 9, (pmcsr & PCI_PM_CTRL_DATA_SCALE_MASK) >> 13,
           flag(pmcsr, PCI_PM_CTRL_PME_STATUS));
    if (bridge != 0)
        printf("\t\tBridge: PM%c B3%c\n", flag(bridge, PCI_PM_BPCC_ENABLE), flag(~bridge & 0xffu, PCI_PM_PPB_B2_B3));
}

/* PCI 3.0, 6.8.1. */
static void show_msi(const struct function *f, size_t at)
{
    uint16_t control = reg16(f, at + PCI_MSI_FLAGS);
    bool wide = control & PCI_MSI_FLAGS_64BIT;

    printf("MSI: Enable%c Count=%d/%d Maskable%c 64bit%c\n", flag(control, PCI_MSI_FLAGS_ENABLE),
           1 << ((control & PCI_MSI_FLAGS_QSIZE) >> 4), 1 << ((control & PCI_MSI_FLAGS_QMASK) >> 1),
           flag(control, PCI_MSI_FLAGS_MASKBIT), flag(control, PCI_MSI_FLAGS_64BIT));
    if (f->verbose < 2)
        return;
    printf("\t\tAddress: ");
    if (wide)
        printf("%08x", reg32(f, at + PCI_MSI_ADDRESS_HI));
    printf("%08x  Data: %04x\n", reg32(f, at + PCI_MSI_ADDRESS_LO),
           reg16(f, at + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32)));
    if (control & PCI_MSI_FLAGS_MASKBIT)
        printf("\t\tMasking: %08x  Pending: %08x\n", reg32(f, at + (wide ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32)),
               reg32(f, at + (wide ? PCI_MSI_PENDING_64 : PCI_MSI_PENDING_32)));
}

/* PCI 3.0, 6.8.2. */
static void show_msix(const struct function *f, size_t at)
{
    uint16_t control = reg16(f, at + PCI_MSIX_FLAGS);
    uint32_t table = reg32(f, at + PCI_MSIX_TABLE), pba = reg32(f, at + PCI_MSIX_PBA);

    printf("MSI-X: Enable%c Count=%d Masked%c\n", flag(control, PCI_MSIX_FLAGS_ENABLE),
           (control & PCI_MSIX_FLAGS_QSIZE) + 1, flag(control, PCI_MSIX_FLAGS_MASKALL));
    if (f->verbose < 2)
        return;
    printf("\t\tVector table: BAR=%u offset=%08x\n", table & PCI_MSIX_TABLE_BIR,
           table & (uint32_t)PCI_MSIX_TABLE_OFFSET);
    printf("\t\tPBA: BAR=%u offset=%08x\n", pba & PCI_MSIX_PBA_BIR, pba & (uint32_t)PCI_MSIX_PBA_OFFSET);
}

static void show_capability(const struct function *f, size_t at, uint8_t id)
{
    switch (id) {
    case 0:
        printf("Null\n");
        break;
    case PCI_CAP_ID_PM:
        show_power(f, at);
        break;
    case PCI_CAP_ID_MSI:
        show_msi(f, at);
        break;
    case PCI_CAP_ID_MSIX:
        show_msix(f, at);
        break;
    case PCI_CAP_ID_EXP:
        show_express(f, at);
        break;
    case PCI_CAP_ID_VNDR:
        printf("Vendor Specific Information: Len=%02x <?>\n", reg8(f, at + 2));
        break;
    default:
        printf("Capability ID %#02x [%04x]\n", id, reg16(f, at + 2));
    }
}

/* Returns whether the function has an Express capability, and so may have extended ones. */
static bool show_list(const struct function *f)
{
    bool seen[PCI_CFG_SPACE_SIZE] = { false }, express = false;

    if (!(reg16(f, PCI_STATUS) & PCI_STATUS_CAP_LIST))
        return false;
    for (size_t at = reg8(f, PCI_CAPABILITY_LIST) & ~3u; at != 0; at = reg8(f, at + PCI_CAP_LIST_NEXT) & ~3u) {
        uint8_t id = reg8(f, at + PCI_CAP_LIST_ID);

        printf("\tCapabilities: [%02zx] ", at);
        if (seen[at] || id == 0xff) {
            printf(seen[at] ? "<chain looped>\n" : "<chain broken>\n");
            break;
        }
        seen[at] = true;
        express |= id == PCI_CAP_ID_EXP;
        show_capability(f, at, id);
    }
    return express;
}

/* PCIe 4.0, 7.9.3: the number's bytes, the highest first. */
static void show_serial(const struct function *f, size_t at)
{
    printf("Device Serial Number");
    for (int i = 7; i >= 0; i--)
        printf("%c%02x", i == 7 ? ' ' : '-', reg8(f, at + 4 + (size_t)i));
    putchar('\n');
}

/* PCIe 4.0, 7.6.3: the list starts at 0x100; a header of zeroes or ones there means that there is none. */
static void show_extended(const struct function *f)
{
    bool seen[PCI_CFG_SPACE_EXP_SIZE] = { false };
    size_t at = PCI_CFG_SPACE_SIZE;

    while (at != 0 && at < f->size) {
        uint32_t header = reg32(f, at);

        if (header == 0 || header == 0xffffffff)
            return;
        if (f->verbose > 1)
            printf("\tCapabilities: [%03zx v%u] ", at, PCI_EXT_CAP_VER(header));
        else
            printf("\tCapabilities: [%03zx] ", at);
        if (seen[at]) {
            printf("<chain looped>\n");
            return;
        }
        seen[at] = true;
        switch (PCI_EXT_CAP_ID(header)) {
        case 0:
            printf("Null\n");
            break;
        case PCI_EXT_CAP_ID_DSN:
            show_serial(f, at);
            break;
        case PCI_EXT_CAP_ID_VNDR:
            printf("Vendor Specific Information: ID=%04x Rev=%u Len=%03x <?>\n", reg32(f, at + 4) & 0xffff,
                   reg32(f, at + 4) >> 16 & 0xf, reg32(f, at + 4) >> 20);
            break;
        default:
            printf("Extended Capability ID %#02x\n", PCI_EXT_CAP_ID(header));
        }
        at = PCI_EXT_CAP_NEXT(header);
    }
}

void show_capabilities(const struct function *f)
{
    if (show_list(f))
        show_extended(f);
}
