/* pci_capabilities.c: VU-PCI: lists of capabilities, and what MSI and MSI-X say there. */
#include "check.h"

#define STATUS       0x06
#define CAPABILITIES 0x34

#define CAP_MSI  0x05
#define CAP_MSIX 0x11

#define MOST_CAPABILITIES 48u  /* of 4 bytes, behind the header */
#define MOST_EXTENDED     960u /* of 4 bytes, behind the first 256 */

/* Calls `run` for each capability, and returns how many there are; ends after as many as there is room for. */
static unsigned each_capability(struct judge *j, void (*run)(struct judge *j, uint32_t at))
{
    unsigned n = 0;
    uint32_t at;

    if (!(config_read(j, STATUS, 2) & 0x10))
        judge_skip(j, "STATUS says that there are no capabilities");
    for (at = config_read(j, CAPABILITIES, 1); at != 0 && n <= MOST_CAPABILITIES; n++) {
        if (run != NULL)
            run(j, at);
        at = config_read(j, (at & ~3u) + 1, 1);
    }
    return n;
}

static void inside(struct judge *j, uint32_t at)
{
    want(j, at >= 0x40, "a capability at %#x lies in the header", at);
}

static void pci_caps_inside(struct judge *j)
{
    each_capability(j, inside);
}

static void aligned(struct judge *j, uint32_t at)
{
    want(j, at % 4 == 0, "a capability at %#x is not aligned to 4", at);
}

static void pci_caps_aligned(struct judge *j)
{
    each_capability(j, aligned);
}

static void pci_caps_end(struct judge *j)
{
    const unsigned n = each_capability(j, NULL);

    want(j, n <= MOST_CAPABILITIES, "the list of capabilities does not end after %u", n);
}

/* The same for extended capabilities. */
static unsigned each_extended(struct judge *j, void (*run)(struct judge *j, uint32_t at))
{
    unsigned n = 0;
    uint32_t at = 0x100;

    if (config_read(j, at, 4) == 0)
        judge_skip(j, "there are no extended capabilities");
    for (; at != 0 && n <= MOST_EXTENDED; n++) {
        if (run != NULL)
            run(j, at);
        at = config_read(j, at & ~3u, 4) >> 20;
    }
    return n;
}

static void extended_inside(struct judge *j, uint32_t at)
{
    want(j, at >= 0x100, "an extended capability at %#x lies in the first 256 bytes", at);
}

static void pci_extended_inside(struct judge *j)
{
    each_extended(j, extended_inside);
}

static void pci_extended_aligned(struct judge *j)
{
    each_extended(j, aligned);
}

static void pci_extended_end(struct judge *j)
{
    const unsigned n = each_extended(j, NULL);

    want(j, n <= MOST_EXTENDED, "the list of extended capabilities does not end after %u", n);
}

static uint32_t capability(struct judge *j, uint8_t id, uint32_t index, const char *name)
{
    const uint32_t at = config_capability(j, id), count = j->facts.irq[index].count;

    want(j, (at != 0) == (count != 0), "there is %s %s capability, and %s has count %u", at != 0 ? "an" : "no", name,
         name, count);
    return at;
}

static void pci_msix_capability(struct judge *j)
{
    capability(j, CAP_MSIX, VFIO_PCI_MSIX_IRQ_INDEX, "MSI-X");
}

static void pci_msi_capability(struct judge *j)
{
    capability(j, CAP_MSI, VFIO_PCI_MSI_IRQ_INDEX, "MSI");
}

/* The offset of MSI-X's capability; its entries. */
static uint32_t msix(struct judge *j, uint32_t *entries)
{
    const uint32_t at = config_capability(j, CAP_MSIX);

    if (at == 0)
        judge_skip(j, "there is no MSI-X capability");
    *entries = (config_read(j, at + 2, 2) & 0x7ff) + 1;
    return at;
}

static void pci_msix_entries(struct judge *j)
{
    const uint32_t count = j->facts.irq[VFIO_PCI_MSIX_IRQ_INDEX].count;
    uint32_t entries;

    msix(j, &entries);
    want(j, entries == count, "the MSI-X table has %u entries, and MSI-X has count %u", entries, count);
}

static void msix_inside(struct judge *j, uint32_t where, uint64_t size, const char *what)
{
    const uint32_t bar = where & 7, offset = where & ~7u;

    want(j, bar < 6 && j->facts.region[bar].size > 0, "MSI-X has its %s in region %u, which is %s", what, bar,
         bar < 6 ? "empty" : "no BAR");
    want(j, offset + size <= j->facts.region[bar].size,
         "MSI-X has its %s, %llu bytes, at %#x of region %u, which has %#llx", what, (unsigned long long)size, offset,
         bar, (unsigned long long)j->facts.region[bar].size);
}

static void pci_msix_table(struct judge *j)
{
    uint32_t entries, at = msix(j, &entries);

    msix_inside(j, config_read(j, at + 4, 4), entries * 16ull, "table");
}

static void pci_msix_pba(struct judge *j)
{
    uint32_t entries, at = msix(j, &entries);

    msix_inside(j, config_read(j, at + 8, 4), (entries + 63) / 64 * 8ull, "pending bits");
}

static void pci_msix_apart(struct judge *j)
{
    uint32_t entries, at = msix(j, &entries);
    const uint32_t table = config_read(j, at + 4, 4), pba = config_read(j, at + 8, 4);
    const uint64_t t = table & ~7u, p = pba & ~7u;

    want(j, (table & 7) != (pba & 7) || t + entries * 16 <= p || p + (entries + 63) / 64 * 8 <= t,
         "the MSI-X table (%u entries at %#llx) and its pending bits (at %#llx) overlap in region %u", entries,
         (unsigned long long)t, (unsigned long long)p, table & 7);
}

static void pci_msi_messages(struct judge *j)
{
    const uint32_t at = config_capability(j, CAP_MSI), count = j->facts.irq[VFIO_PCI_MSI_IRQ_INDEX].count;
    uint32_t messages;

    if (at == 0)
        judge_skip(j, "there is no MSI capability");
    messages = 1u << (config_read(j, at + 2, 2) >> 1 & 7);
    want(j, messages == count, "the MSI capability is capable of %u messages, and MSI has count %u", messages, count);
}

const struct check server_pci_capabilities_checks[] = {
    { { "pci-caps-inside", "VU-PCI-6", "capabilities lie behind the header" }, 0, pci_caps_inside },
    { { "pci-caps-aligned", "VU-PCI-6", "capabilities are aligned to 4" }, 0, pci_caps_aligned },
    { { "pci-caps-end", "VU-PCI-6", "the list of capabilities ends" }, 0, pci_caps_end },
    { { "pci-extended-inside", "VU-PCI-23", "extended capabilities lie behind the first 256 bytes" },
      NEED_EXPRESS,
      pci_extended_inside },
    { { "pci-extended-aligned", "VU-PCI-23", "extended capabilities are aligned to 4" },
      NEED_EXPRESS,
      pci_extended_aligned },
    { { "pci-extended-end", "VU-PCI-23", "the list of extended capabilities ends" }, NEED_EXPRESS, pci_extended_end },
    { { "pci-msix-capability", "VU-PCI-7", "there is an MSI-X capability if and only if MSI-X has vectors" },
      0,
      pci_msix_capability },
    { { "pci-msix-entries", "VU-PCI-7", "the MSI-X table has as many entries as MSI-X has vectors" },
      0,
      pci_msix_entries },
    { { "pci-msix-table", "VU-PCI-8", "the MSI-X table lies in a BAR" }, 0, pci_msix_table },
    { { "pci-msix-pba", "VU-PCI-8", "the MSI-X pending bits lie in a BAR" }, 0, pci_msix_pba },
    { { "pci-msix-apart", "VU-PCI-8", "the MSI-X table and its pending bits do not overlap" }, 0, pci_msix_apart },
    { { "pci-msi-capability", "VU-PCI-9", "there is an MSI capability if and only if MSI has vectors" },
      0,
      pci_msi_capability },
    { { "pci-msi-messages", "VU-PCI-9", "MSI is capable of as many messages as it has vectors" }, 0, pci_msi_messages },
    { { NULL, NULL, NULL }, 0, NULL },
};
