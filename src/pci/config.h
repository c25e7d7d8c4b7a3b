/* Type 0 configuration space: what a device declares, the layout that follows from it, and reads, writes and resets
 * of the bytes that the guest sees.
 *
 * The bytes live in memory of the caller, who may keep them in two copies; they hold no pointers. The layout is
 * constant, is built from the declaration in each process, and may be used by any thread. Functions that take
 * `config` run on the control thread. Clauses: PCI Local Bus 3.0, PCI Power Management 1.2, PCI Express Base 4.0. */
#ifndef OB_PCI_CONFIG_H
#define OB_PCI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/pci_regs.h>

enum {
    OB_PCI_BARS = 6,
    OB_PCI_MSI_MAX = 32,
    OB_PCI_MSIX_MAX = 2048,
};

/* A base address register. A 64-bit one uses the slot after its own, which has to be left at size 0. */
struct ob_pci_bar_spec {
    uint64_t size; /* bytes, a power of two; 0: not implemented */
    bool io;       /* I/O ports: 4 to 256 bytes; else memory: 16 bytes or more */
    bool mem64;    /* may be placed above 4 GiB */
    bool prefetch; /* reads have no side effects, writes may be merged */
};

/* A capability whose bytes the library only stores. `bytes` starts with its header: for a capability of the first 256
 * bytes the id and one byte that is ignored, for an extended one 16 bits of id and 16 whose low four are the version.
 * The library links it into the chain. Bits of `mask` are what the guest may write; NULL: none. */
struct ob_pci_cap_spec {
    const uint8_t *bytes, *mask;
    uint16_t size; /* bytes, header included */
};

/* How the function leaves D3hot. */
enum ob_pci_pm {
    OB_PCI_PM_NONE, /* no power management capability */
    OB_PCI_PM_KEEP, /* No_Soft_Reset is 1: going back to D0 keeps everything */
    OB_PCI_PM_RESET /* No_Soft_Reset is 0: going back to D0 resets the function */
};

/* What a device declares. Only read during ob_pci_layout_new. */
struct ob_pci_spec {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision;
    uint32_t class_code; /* 24 bits: base class, subclass, programming interface */
    uint8_t pin;         /* 1 to 4: INTA to INTD; 0: no INTx */
    struct ob_pci_bar_spec bars[OB_PCI_BARS];
    uint16_t msi_vectors;  /* 0: no MSI; else 1, 2, 4, 8, 16, 32 */
    uint16_t msix_vectors; /* 0: no MSI-X; else up to 2048 */
    uint8_t msix_table_bar, msix_pba_bar;
    uint32_t msix_table, msix_pba; /* offsets in their BARs, multiples of 8 */
    enum ob_pci_pm pm;
    bool express;  /* PCI Express endpoint with function level reset */
    bool extended; /* 4096 bytes of configuration space; needs `express` */
    const struct ob_pci_cap_spec *caps, *ext_caps;
    unsigned n_caps, n_ext_caps;
};

/* What follows from a declaration. Offsets of capabilities are 0 where there is none. */
struct ob_pci_layout {
    uint16_t size; /* of configuration space: 256 or 4096 bytes */
    uint8_t pm, msi, msix, express;
    uint8_t pin;
    uint16_t msi_vectors, msix_vectors;
    uint8_t msix_table_bar, msix_pba_bar;
    uint32_t msix_table, msix_pba;           /* offsets in their BARs */
    uint32_t msix_table_size, msix_pba_size; /* bytes */
    struct ob_pci_bar_spec bars[OB_PCI_BARS];
    uint8_t reset[4096]; /* the bytes after a reset */
    uint8_t write[4096]; /* bits that take the value written */
    uint8_t w1c[4096];   /* bits that are cleared by writing 1 */
};

/* Checks a declaration and builds its layout; free() it with ob_pci_layout_free. Fails with -EINVAL, or -ENOSPC if the
 * capabilities do not fit, or -ENOMEM; `why` (of `why_size` bytes) then says what is wrong and how to mend it. */
int ob_pci_layout_new(const struct ob_pci_spec *spec, struct ob_pci_layout **layout, char *why, size_t why_size);
void ob_pci_layout_free(struct ob_pci_layout *layout);

/* Sets all layout->size bytes to their values after a conventional reset. */
void ob_pci_config_reset(const struct ob_pci_layout *layout, uint8_t *config);

/* The same for a function level reset, which keeps what belongs to the link (PCIe 6.6.2). */
void ob_pci_config_reset_function(const struct ob_pci_layout *layout, uint8_t *config);

/* Bits that are not stored but follow the interrupts (ob_irqs_live). */
struct ob_pci_live {
    bool intx;            /* STATUS: Interrupt Status */
    uint32_t msi_pending; /* the MSI capability's pending bits */
};

/* Reads `len` bytes at `off`, of any alignment. Returns 0, or -EINVAL beyond the end. */
int ob_pci_config_read(const struct ob_pci_layout *layout, const uint8_t *config, const struct ob_pci_live *live,
                       uint64_t off, size_t len, void *out);

/* What a write did: registers whose value is another one now, and the reset it asks for. */
enum {
    OB_PCI_COMMAND = 1 << 0,     /* COMMAND */
    OB_PCI_BAR = 1 << 1,         /* a base address; `bars` says which */
    OB_PCI_POWER = 1 << 2,       /* entered or left D3hot */
    OB_PCI_MSI = 1 << 3,         /* anything in the MSI capability */
    OB_PCI_MSIX = 1 << 4,        /* MSI-X enable or function mask */
    OB_PCI_OTHER = 1 << 5,       /* any other byte */
    OB_PCI_RESET_FLR = 1 << 6,   /* function level reset requested */
    OB_PCI_RESET_POWER = 1 << 7, /* went from D3hot to D0 with No_Soft_Reset 0 */
};
struct ob_pci_change {
    uint32_t what; /* OB_PCI_* */
    uint8_t bars;  /* bit n: the slot n; both bits of a 64-bit one may be set */
};

/* Writes `len` bytes at `off`, of any alignment and across any registers: each byte obeys its own masks. The resets
 * that `change` asks for are left to the caller: the device first, then ob_pci_config_reset_function.
 * Returns 0, or -EINVAL beyond the end, and then nothing is written. */
int ob_pci_config_write(const struct ob_pci_layout *layout, uint8_t *config, uint64_t off, size_t len, const void *data,
                        struct ob_pci_change *change);

/* In D3hot: no decoding, no interrupts, no bus mastering. */
bool ob_pci_in_d3(const struct ob_pci_layout *layout, const uint8_t *config);
/* May read and write guest memory and send MSI: COMMAND says so, and not in D3hot. */
bool ob_pci_bus_master(const struct ob_pci_layout *layout, const uint8_t *config);
bool ob_pci_intx_disabled(const uint8_t *config);
/* 0 if MSI is off; else the number of vectors that the guest allows, at most those of the device. */
unsigned ob_pci_msi_enabled(const struct ob_pci_layout *layout, const uint8_t *config);
/* The MSI capability's mask bits. */
uint32_t ob_pci_msi_masks(const struct ob_pci_layout *layout, const uint8_t *config);
bool ob_pci_msix_enabled(const struct ob_pci_layout *layout, const uint8_t *config);
bool ob_pci_msix_masked(const struct ob_pci_layout *layout, const uint8_t *config);

#endif
