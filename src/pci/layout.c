/* Checks what a device declares of its configuration space and builds the layout: reset values, masks, capabilities.
 *
 * The chain of capabilities starts at 0x40, that of extended ones at 0x100; each is placed at the next multiple of four
 * in the order of the functions called in ob_pci_layout_new, so a declaration always gives the same layout. */
#include "pci/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Type 0 header and MSI-X table limits that <linux/pci_regs.h> has no name for. */
    IO_BAR_MIN = 4,
    IO_BAR_MAX = 256, /* PCI 3.0, 6.2.5.1: an I/O base address must not ask for more */
    MEMORY_BAR_MIN = 16,
    CAP_HEADER = 2,    /* id, and the chain */
    MSI_SIZE = 24,     /* 64-bit address, per-vector masking */
    EXPRESS_SIZE = 60, /* capability version 2 */
    EXT_START = PCI_CFG_SPACE_SIZE,
};

struct builder {
    const struct ob_pci_spec *spec;
    struct ob_pci_layout *layout;
    unsigned link;     /* where the offset of the next capability goes */
    unsigned next;     /* first free byte of the first 256 */
    unsigned ext_last; /* the extended capability that the next one is linked to; 0: none */
    unsigned ext_next; /* first free byte after them */
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int refuse(const struct builder *b, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (b->why_size)
        vsnprintf(b->why, b->why_size, format, args);
    va_end(args);
    return error;
}

static void put16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *bytes, uint32_t value)
{
    put16(bytes, value);
    put16(bytes + 2, value >> 16);
}

static int check_identity(struct builder *b)
{
    const struct ob_pci_spec *spec = b->spec;

    if (spec->vendor == 0xffff)
        return refuse(b, -EINVAL, "vendor id 0xffff means that there is no device; use an id that is yours");
    if (spec->class_code > 0xffffff)
        return refuse(b, -EINVAL,
                      "class code 0x%x has more than 24 bits; use 0xBBSSPP: base class, subclass, interface",
                      spec->class_code);
    if (spec->pin > 4)
        return refuse(b, -EINVAL, "interrupt pin %u: use 1 to 4 for INTA to INTD, or 0 for none", spec->pin);
    if (spec->extended && !spec->express)
        return refuse(b, -EINVAL, "extended configuration space needs the PCI Express capability; declare that too");
    return 0;
}

static void fill_header(struct builder *b)
{
    const struct ob_pci_spec *spec = b->spec;
    struct ob_pci_layout *layout = b->layout;
    uint8_t *reset = layout->reset, *write = layout->write;

    put16(reset + PCI_VENDOR_ID, spec->vendor);
    put16(reset + PCI_DEVICE_ID, spec->device);
    put16(reset + PCI_SUBSYSTEM_VENDOR_ID, spec->subsystem_vendor);
    put16(reset + PCI_SUBSYSTEM_ID, spec->subsystem);
    put32(reset + PCI_CLASS_REVISION, spec->class_code << 8 | spec->revision);
    reset[PCI_INTERRUPT_PIN] = layout->pin = spec->pin;
    put16(write + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                                   PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    put16(layout->w1c + PCI_STATUS, PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT |
                                        PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR |
                                        PCI_STATUS_DETECTED_PARITY);
    write[PCI_CACHE_LINE_SIZE] = 0xff;
    write[PCI_LATENCY_TIMER] = spec->express ? 0 : 0xff; /* PCIe 7.5.1.1.8: hardwired to zero */
    write[PCI_INTERRUPT_LINE] = 0xff;
    layout->size = spec->extended ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE;
}

static int check_bar(struct builder *b, unsigned i)
{
    const struct ob_pci_bar_spec *bar = &b->spec->bars[i];
    unsigned long long size = bar->size;

    if (size & (size - 1))
        return refuse(b, -EINVAL, "BAR %u: size 0x%llx is no power of two; use 0x%llx", i, size,
                      size >> 63 ? 1ull << 63 : 2ull << (63 - __builtin_clzll(size)));
    if (bar->io && (bar->mem64 || bar->prefetch))
        return refuse(b, -EINVAL, "BAR %u: I/O ports are neither 64-bit nor prefetchable; drop one or the other", i);
    if (bar->io && (size < IO_BAR_MIN || size > IO_BAR_MAX))
        return refuse(b, -EINVAL, "BAR %u: 0x%llx bytes of I/O ports; PCI allows 4 to 256, use memory for more", i,
                      size);
    if (!bar->io && size < MEMORY_BAR_MIN)
        return refuse(b, -EINVAL, "BAR %u: %llu bytes of memory; PCI needs at least 16", i, size);
    if (!bar->io && !bar->mem64 && size > 1ull << 31)
        return refuse(b, -EINVAL, "BAR %u: 0x%llx bytes do not fit below 4 GiB; make it 64-bit", i, size);
    if (bar->mem64 && i == OB_PCI_BARS - 1)
        return refuse(b, -EINVAL, "BAR %u: 64-bit, but there is no slot after it; use BAR %u", i, i - 1);
    if (bar->mem64 && b->spec->bars[i + 1].size)
        return refuse(b, -EINVAL, "BAR %u is the upper half of the 64-bit BAR %u; move one of them to a free slot",
                      i + 1, i);
    return 0;
}

static int fill_bars(struct builder *b)
{
    for (unsigned i = 0; i < OB_PCI_BARS; i++) {
        const struct ob_pci_bar_spec *bar = &b->spec->bars[i];
        unsigned at = PCI_BASE_ADDRESS_0 + 4 * i;
        uint64_t address = ~(bar->size - 1);
        int error;

        if (!bar->size)
            continue;
        error = check_bar(b, i);
        if (error)
            return error;
        b->layout->bars[i] = *bar;
        b->layout->reset[at] =
            (uint8_t)((bar->io ? PCI_BASE_ADDRESS_SPACE_IO : 0) | (bar->mem64 ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0) |
                      (bar->prefetch ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0));
        put32(b->layout->write + at, (uint32_t)address);
        if (bar->mem64)
            put32(b->layout->write + at + 4, (uint32_t)(address >> 32));
    }
    return 0;
}

/* Makes room for a capability and links it. Returns its offset, or -ENOSPC. */
static int place(struct builder *b, uint8_t id, unsigned size)
{
    unsigned at = b->next;

    if (size > PCI_CFG_SPACE_SIZE - at)
        return refuse(
            b, -ENOSPC,
            "capability 0x%02x: %u bytes, but only %u of the 192 for capabilities are left; declare fewer, or "
            "put it into extended space",
            id, size, PCI_CFG_SPACE_SIZE - at);
    b->layout->reset[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    b->layout->reset[b->link] = (uint8_t)at;
    b->layout->reset[at] = id;
    b->link = at + PCI_CAP_LIST_NEXT;
    b->next = (at + size + 3) & ~3u;
    return (int)at;
}

static int add_pm(struct builder *b)
{
    int at;

    if (b->spec->pm == OB_PCI_PM_NONE)
        return 0;
    if (b->spec->pm > OB_PCI_PM_RESET)
        return refuse(b, -EINVAL, "power management %u is not known; use a value of enum ob_pci_pm", b->spec->pm);
    at = place(b, PCI_CAP_ID_PM, PCI_PM_SIZEOF);
    if (at < 0)
        return at;
    b->layout->pm = (uint8_t)at;
    put16(b->layout->reset + at + PCI_PM_PMC, 3); /* version of the 1.2 specification; no D1, D2 or PME */
    if (b->spec->pm == OB_PCI_PM_KEEP)
        put16(b->layout->reset + at + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
    put16(b->layout->write + at + PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK);
    return 0;
}

static int add_msi(struct builder *b)
{
    unsigned vectors = b->spec->msi_vectors;
    uint8_t *write = b->layout->write;
    int at;

    if (!vectors)
        return 0;
    if (vectors > OB_PCI_MSI_MAX || vectors & (vectors - 1))
        return refuse(b, -EINVAL, "%u MSI vectors; use 1, 2, 4, 8, 16 or 32, or MSI-X for any other number", vectors);
    at = place(b, PCI_CAP_ID_MSI, MSI_SIZE);
    if (at < 0)
        return at;
    b->layout->msi = (uint8_t)at;
    b->layout->msi_vectors = (uint16_t)vectors;
    put16(b->layout->reset + at + PCI_MSI_FLAGS,
          PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | (uint32_t)__builtin_ctz(vectors) << 1);
    put16(write + at + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
    put32(write + at + PCI_MSI_ADDRESS_LO, ~3u);
    put32(write + at + PCI_MSI_ADDRESS_HI, ~0u);
    put16(write + at + PCI_MSI_DATA_64, 0xffff);
    put32(write + at + PCI_MSI_MASK_64, ~0u >> (OB_PCI_MSI_MAX - vectors));
    return 0;
}

/* `what` of `size` bytes at `offset` of a BAR: the MSI-X table or its pending bits. */
static int check_msix_part(struct builder *b, const char *what, unsigned bar, uint32_t offset, uint32_t size)
{
    const struct ob_pci_bar_spec *spec = bar < OB_PCI_BARS ? &b->spec->bars[bar] : NULL;

    if (!spec || !spec->size || spec->io)
        return refuse(b, -EINVAL, "MSI-X %s: BAR %u is no memory BAR of this device; name one that is", what, bar);
    if (offset & 7)
        return refuse(b, -EINVAL, "MSI-X %s: offset 0x%x is no multiple of 8; use 0x%x", what, offset, offset & ~7u);
    if (offset > spec->size || size > spec->size - offset)
        return refuse(b, -EINVAL, "MSI-X %s: 0x%x bytes at 0x%x do not fit into the 0x%llx of BAR %u; enlarge the BAR",
                      what, size, offset, (unsigned long long)spec->size, bar);
    return 0;
}

static int check_msix(struct builder *b)
{
    const struct ob_pci_spec *spec = b->spec;
    uint32_t table_size = spec->msix_vectors * PCI_MSIX_ENTRY_SIZE;
    uint32_t pba_size = (spec->msix_vectors + 63u) / 64 * 8;
    int error;

    if (spec->msix_vectors > OB_PCI_MSIX_MAX)
        return refuse(b, -EINVAL, "%u MSI-X vectors; PCI allows at most 2048", spec->msix_vectors);
    error = check_msix_part(b, "table", spec->msix_table_bar, spec->msix_table, table_size);
    if (!error)
        error = check_msix_part(b, "pending bits", spec->msix_pba_bar, spec->msix_pba, pba_size);
    if (error)
        return error;
    if (spec->msix_table_bar == spec->msix_pba_bar && spec->msix_table < (uint64_t)spec->msix_pba + pba_size &&
        spec->msix_pba < (uint64_t)spec->msix_table + table_size)
        return refuse(b, -EINVAL, "MSI-X: the table (0x%x bytes at 0x%x) and the pending bits (0x%x at 0x%x) overlap",
                      table_size, spec->msix_table, pba_size, spec->msix_pba);
    b->layout->msix_table_size = table_size;
    b->layout->msix_pba_size = pba_size;
    return 0;
}

static int add_msix(struct builder *b)
{
    const struct ob_pci_spec *spec = b->spec;
    struct ob_pci_layout *layout = b->layout;
    int at;

    if (!spec->msix_vectors)
        return 0;
    at = check_msix(b);
    if (!at)
        at = place(b, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    if (at < 0)
        return at;
    layout->msix = (uint8_t)at;
    layout->msix_vectors = spec->msix_vectors;
    layout->msix_table_bar = spec->msix_table_bar;
    layout->msix_table = spec->msix_table;
    layout->msix_pba_bar = spec->msix_pba_bar;
    layout->msix_pba = spec->msix_pba;
    put16(layout->reset + at + PCI_MSIX_FLAGS, spec->msix_vectors - 1u);
    put32(layout->reset + at + PCI_MSIX_TABLE, spec->msix_table | spec->msix_table_bar);
    put32(layout->reset + at + PCI_MSIX_PBA, spec->msix_pba | spec->msix_pba_bar);
    put16(layout->write + at + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    return 0;
}

/* An endpoint with a link of one lane at 2.5 GT/s, the least there is: nothing depends on it. */
static int add_express(struct builder *b)
{
    uint8_t *reset, *write;
    int at;

    if (!b->spec->express)
        return 0;
    at = place(b, PCI_CAP_ID_EXP, EXPRESS_SIZE);
    if (at < 0)
        return at;
    b->layout->express = (uint8_t)at;
    reset = b->layout->reset + at;
    write = b->layout->write + at;
    put16(reset + PCI_EXP_FLAGS, 2 | PCI_EXP_TYPE_ENDPOINT << 4);
    put32(reset + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR);
    put16(reset + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN | PCI_EXP_DEVCTL_READRQ_512B);
    put16(write + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE |
                                      PCI_EXP_DEVCTL_URRE | PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN |
                                      PCI_EXP_DEVCTL_READRQ);
    put16(b->layout->w1c + at + PCI_EXP_DEVSTA,
          PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED | PCI_EXP_DEVSTA_URD);
    put32(reset + PCI_EXP_LNKCAP, PCI_EXP_LNKCAP_SLS_2_5GB | 1 << 4 | 1 << 22 /* ASPM Optionality Compliance */);
    put16(write + PCI_EXP_LNKCTL, PCI_EXP_LNKCTL_ASPMC | PCI_EXP_LNKCTL_RCB | PCI_EXP_LNKCTL_CCC | PCI_EXP_LNKCTL_ES);
    put16(reset + PCI_EXP_LNKSTA, PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1);
    put32(reset + PCI_EXP_LNKCAP2, PCI_EXP_LNKCAP2_SLS_2_5GB);
    put16(reset + PCI_EXP_LNKCTL2, PCI_EXP_LNKCTL2_TLS_2_5GT);
    return 0;
}

static void store(struct builder *b, unsigned at, unsigned header, const struct ob_pci_cap_spec *cap)
{
    memcpy(b->layout->reset + at + header, cap->bytes + header, cap->size - header);
    if (cap->mask)
        memcpy(b->layout->write + at + header, cap->mask + header, cap->size - header);
}

static bool covers(const struct ob_pci_cap_spec *cap, unsigned bytes)
{
    for (unsigned i = 0; cap->mask && i < bytes; i++)
        if (cap->mask[i])
            return true;
    return false;
}

static int add_cap(struct builder *b, unsigned i)
{
    const struct ob_pci_cap_spec *cap = &b->spec->caps[i];
    bool vendor;
    int at;

    if (!cap->bytes || cap->size < CAP_HEADER)
        return refuse(b, -EINVAL, "capability no. %u has %u bytes; it needs an id, a byte for the chain, and its bytes",
                      i, cap->bytes ? cap->size : 0);
    switch (cap->bytes[0]) {
    case 0:
    case 0xff:
        return refuse(b, -EINVAL, "capability no. %u: id 0x%02x means none; use 0x09 (vendor-specific)", i,
                      cap->bytes[0]);
    case PCI_CAP_ID_PM:
    case PCI_CAP_ID_MSI:
    case PCI_CAP_ID_MSIX:
    case PCI_CAP_ID_EXP:
        return refuse(b, -EINVAL, "capability no. %u: id 0x%02x is made by the library; declare it by its own field", i,
                      cap->bytes[0]);
    }
    vendor = cap->bytes[0] == PCI_CAP_ID_VNDR;
    if (vendor && (cap->size < 3 || cap->bytes[2] != cap->size))
        return refuse(b, -EINVAL, "capability no. %u: the third byte of a vendor-specific one has to be its size, %u",
                      i, cap->size);
    if (covers(cap, vendor ? 3 : 2))
        return refuse(b, -EINVAL,
                      "capability no. %u: its mask lets the guest write its header; clear the first %d bytes", i,
                      vendor ? 3 : 2);
    at = place(b, cap->bytes[0], cap->size);
    if (at < 0)
        return at;
    store(b, (unsigned)at, CAP_HEADER, cap);
    return 0;
}

static int check_ext_cap(struct builder *b, unsigned i, const struct ob_pci_cap_spec *cap)
{
    unsigned id, vsec;

    if (!b->spec->extended)
        return refuse(b, -EINVAL, "extended capability no. %u: there is no extended space; declare that too", i);
    if (!cap->bytes || cap->size < 4)
        return refuse(b, -EINVAL, "extended capability no. %u has %u bytes; it needs at least its header of 4", i,
                      cap->bytes ? cap->size : 0);
    id = cap->bytes[0] | (unsigned)cap->bytes[1] << 8;
    if (id == 0 || id == 0xffff)
        return refuse(b, -EINVAL, "extended capability no. %u: id 0x%04x means none; use 0x000b (vendor-specific)", i,
                      id);
    if (id == PCI_EXT_CAP_ID_VNDR) {
        vsec = cap->size < 8 ? 0 : (cap->bytes[6] >> 4 | (unsigned)cap->bytes[7] << 4);
        if (vsec != cap->size)
            return refuse(b, -EINVAL,
                          "extended capability no. %u: a vendor-specific one has to give its size, %u, in "
                          "bits 20 to 31 of its second word",
                          i, cap->size);
    }
    if (covers(cap, id == PCI_EXT_CAP_ID_VNDR ? 8 : 4))
        return refuse(b, -EINVAL, "extended capability no. %u: its mask lets the guest write its header; clear that",
                      i);
    return 0;
}

static int add_ext_cap(struct builder *b, unsigned i)
{
    const struct ob_pci_cap_spec *cap = &b->spec->ext_caps[i];
    unsigned at = b->ext_next;
    int error = check_ext_cap(b, i, cap);

    if (error)
        return error;
    if (cap->size > PCI_CFG_SPACE_EXP_SIZE - at)
        return refuse(b, -ENOSPC, "extended capability no. %u: %u bytes, but only %u of the 3840 are left", i,
                      cap->size, PCI_CFG_SPACE_EXP_SIZE - at);
    put16(b->layout->reset + at, cap->bytes[0] | (unsigned)cap->bytes[1] << 8);
    put16(b->layout->reset + at + 2, cap->bytes[2] & 0xf);
    store(b, at, 4, cap);
    if (b->ext_last) {
        uint8_t *link = b->layout->reset + b->ext_last + 2;

        put16(link, (link[0] & 0xf) | at << 4);
    }
    b->ext_last = at;
    b->ext_next = (at + cap->size + 3) & ~3u;
    return 0;
}

static int build(struct builder *b)
{
    int error = check_identity(b);

    if (error)
        return error;
    fill_header(b);
    error = fill_bars(b);
    if (!error)
        error = add_pm(b);
    if (!error)
        error = add_msi(b);
    if (!error)
        error = add_msix(b);
    if (!error)
        error = add_express(b);
    for (unsigned i = 0; !error && i < b->spec->n_caps; i++)
        error = add_cap(b, i);
    for (unsigned i = 0; !error && i < b->spec->n_ext_caps; i++)
        error = add_ext_cap(b, i);
    return error;
}

int ob_pci_layout_new(const struct ob_pci_spec *spec, struct ob_pci_layout **layout, char *why, size_t why_size)
{
    struct builder b = {
        .spec = spec,
        .layout = calloc(1, sizeof(**layout)),
        .link = PCI_CAPABILITY_LIST,
        .next = PCI_STD_HEADER_SIZEOF,
        .ext_next = EXT_START,
        .why = why,
        .why_size = why_size,
    };
    int error;

    if (!b.layout)
        return refuse(&b, -ENOMEM, "no memory for the layout of configuration space");
    error = build(&b);
    if (error) {
        free(b.layout);
        return error;
    }
    *layout = b.layout;
    return 0;
}

void ob_pci_layout_free(struct ob_pci_layout *layout)
{
    free(layout);
}
