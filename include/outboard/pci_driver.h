/* outboard/pci_driver.h: driving a PCI device from a test, as its driver in a guest would, without a guest.
 *
 * The same test runs on any of these, named by a string:
 *   unix:PATH              a vfio-user server that listens at PATH
 *   spawn:PROGRAM ARG...   a server program, started and ended with the driver (words are split at blanks); "{fd}" and
 *                          "{socket}" as ob_client_spawn() replaces them
 *   qemu:DEVICE[,...]      a device that QEMU itself has, as after its -device option: in a QEMU without a guest
 *                          (-accel qtest), driven through its PCI host bridge
 *   qemu-unix:PATH, qemu-spawn:PROGRAM ARG...
 *                          a vfio-user server behind the vfio-user-pci device of a QEMU without a guest
 *
 * A driver belongs to one thread. Functions return 0 or a count, or -errno: -ETIMEDOUT, -ENOTCONN (the server or QEMU
 * is gone), -ENOTSUP (the device, or the way to it, cannot do this), and what the server refused with. Accesses to
 * registers are like a bus instead: ob_read32() and its kind give all ones when something failed, and the first failure
 * is remembered for ob_driver_error(): a test looks at it once, at its end. Until then it is also what functions that
 * access registers return.
 *
 * The clock of a QEMU's own devices moves only while ob_wait32() or ob_driver_irq_wait() wait: its next timer comes due
 * at each turn. What a program behind QEMU does takes its time.
 *
 * Stability: not stable before version 1.0.
 */
#ifndef OUTBOARD_PCI_DRIVER_H
#define OUTBOARD_PCI_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OB_PUBLIC __attribute__((visibility("default")))

struct ob_driver;
struct ob_client;

struct ob_driver_options {
    int timeout_ms;               /* of every access; 0: 10000 */
    const char *qemu;             /* the program for qemu targets; NULL: $OUTBOARD_QEMU, or qemu-system-x86_64 */
    const char *const *qemu_args; /* further arguments, ends with NULL: back ends of devices; NULL: none. Names that
                                     begin with "ob-" are taken. */
    bool messages;                /* unix and spawn: DMA memory is served over the socket instead of being mapped */
};

/* --- Beginning and end ------------------------------------------------------------------------------------------- */

/* Reaches the device, resets it, gives addresses to its BARs and enables decoding of memory and I/O. Bus mastering
 * and interrupts are off. `options` may be NULL. On failure `why` (may be NULL) says in one line what failed. */
OB_PUBLIC int ob_driver_open(const char *target, const struct ob_driver_options *options, struct ob_driver **driver,
                             char *why, size_t why_size);
/* Ends what open started; memory and eventfds are released. NULL does nothing. */
OB_PUBLIC void ob_driver_close(struct ob_driver *driver);
/* The connection below (of unix and spawn targets), for what this header does not have; NULL for others. It stays the
 * driver's. */
OB_PUBLIC struct ob_client *ob_driver_client(struct ob_driver *driver);
/* The first failure of an access since the last call, or 0; *what (may be NULL) is then the line that says it. */
OB_PUBLIC int ob_driver_error(struct ob_driver *driver, const char **what);

/* --- Configuration space ----------------------------------------------------------------------------------------- */

/* Naturally aligned; `off` below 256, or 4096 of PCI Express devices. */
OB_PUBLIC uint8_t ob_config_read8(struct ob_driver *driver, unsigned off);
OB_PUBLIC uint16_t ob_config_read16(struct ob_driver *driver, unsigned off);
OB_PUBLIC uint32_t ob_config_read32(struct ob_driver *driver, unsigned off);
OB_PUBLIC void ob_config_write8(struct ob_driver *driver, unsigned off, uint8_t val);
OB_PUBLIC void ob_config_write16(struct ob_driver *driver, unsigned off, uint16_t val);
OB_PUBLIC void ob_config_write32(struct ob_driver *driver, unsigned off, uint32_t val);
/* Where the capability PCI_CAP_ID_* or PCI_EXT_CAP_ID_* begins; -ENOENT: the device has none; -EPROTO: the list is
 * broken (a loop, an offset outside). */
OB_PUBLIC int ob_find_capability(struct ob_driver *driver, uint8_t id);
OB_PUBLIC int ob_find_extended_capability(struct ob_driver *driver, uint16_t id);

/* --- BARs -------------------------------------------------------------------------------------------------------- */

struct ob_driver_bar {
    /* Bytes, by sizing, or of the region where a server leaves BARs to its client; 0: no such BAR, or the upper half of
     * the one before. A size that is none, or that contradicts the region's, fails ob_driver_open() with -EPROTO; one
     * for which there is no room on the bus, with -ENOSPC. */
    uint64_t size;
    uint64_t address; /* on the bus, as given by ob_driver_open() */
    bool io, wide, prefetchable;
};
/* `bar` 0 to 5. -EINVAL for others. */
OB_PUBLIC int ob_driver_bar(struct ob_driver *driver, unsigned bar, struct ob_driver_bar *info);

/* One access of that width, to an I/O BAR of at most 4 bytes; `off` need not be aligned if the device does not mind: a
 * QEMU splits such an access. Beyond the BAR: -EINVAL. */
OB_PUBLIC uint8_t ob_read8(struct ob_driver *driver, unsigned bar, uint64_t off);
OB_PUBLIC uint16_t ob_read16(struct ob_driver *driver, unsigned bar, uint64_t off);
OB_PUBLIC uint32_t ob_read32(struct ob_driver *driver, unsigned bar, uint64_t off);
OB_PUBLIC uint64_t ob_read64(struct ob_driver *driver, unsigned bar, uint64_t off);
/* A write has reached the device when the next read returns. */
OB_PUBLIC void ob_write8(struct ob_driver *driver, unsigned bar, uint64_t off, uint8_t val);
OB_PUBLIC void ob_write16(struct ob_driver *driver, unsigned bar, uint64_t off, uint16_t val);
OB_PUBLIC void ob_write32(struct ob_driver *driver, unsigned bar, uint64_t off, uint32_t val);
OB_PUBLIC void ob_write64(struct ob_driver *driver, unsigned bar, uint64_t off, uint64_t val);
/* Reads until (value & mask) == wanted; each turn is an access of 4 bytes. -ETIMEDOUT. */
OB_PUBLIC int ob_wait32(struct ob_driver *driver, unsigned bar, uint64_t off, uint32_t mask, uint32_t wanted,
                        int timeout_ms);
/* The memory of a BAR itself, where the server lets it be mapped; good until ob_driver_close(). -ENOTSUP. */
OB_PUBLIC int ob_driver_map(struct ob_driver *driver, unsigned bar, uint64_t off, uint64_t len, volatile void **memory);

/* --- DMA --------------------------------------------------------------------------------------------------------- */

/* Bus mastering, in the COMMAND register. */
OB_PUBLIC int ob_driver_bus_master(struct ob_driver *driver, bool on);

struct ob_driver_memory {
    void *bytes; /* shared with the device: zeroed at first */
    uint64_t
        iova; /* what the device is told: the lowest that is free, from 16 MiB; below 256 MiB in a QEMU, else 4 GiB */
    size_t size; /* bytes, a multiple of 4096 */
};
/* `size` is rounded up. -ENOMEM. */
OB_PUBLIC int ob_driver_alloc(struct ob_driver *driver, size_t size, struct ob_driver_memory *memory);
/* When it returns, the device no longer reaches the memory (in a QEMU it does: guests do not unplug their RAM). */
OB_PUBLIC int ob_driver_free(struct ob_driver *driver, const struct ob_driver_memory *memory);

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

enum ob_driver_irqs { OB_DRIVER_NO_IRQS, OB_DRIVER_INTX, OB_DRIVER_MSI, OB_DRIVER_MSIX };

/* Enables one kind, with that many vectors (1 for INTx), after disabling what was enabled. Returns how many vectors
 * there are then: fewer if the device has fewer, and one of MSI in a QEMU; -ENOTSUP: it has none of the kind. Messages
 * also need bus mastering. */
OB_PUBLIC int ob_driver_irqs(struct ob_driver *driver, enum ob_driver_irqs kind, unsigned vectors);
/* Waits for an interrupt of that vector. MSI, MSI-X: 0 for one or several messages since the last wait. INTx: 0 while
 * the line is asserted. -ETIMEDOUT; -EINVAL: the vector is not enabled. */
OB_PUBLIC int ob_driver_irq_wait(struct ob_driver *driver, unsigned vector, int timeout_ms);
/* 1: ob_driver_irq_wait() would succeed now; 0: it would not, although everything that the device did before the last
 * access has arrived. */
OB_PUBLIC int ob_driver_irq_pending(struct ob_driver *driver, unsigned vector);
/* Per vector: INTx by COMMAND's interrupt-disable, MSI by its mask bits, MSI-X in its table. -ENOTSUP for MSI without
 * mask bits. */
OB_PUBLIC int ob_driver_mask(struct ob_driver *driver, unsigned vector);
OB_PUBLIC int ob_driver_unmask(struct ob_driver *driver, unsigned vector);

/* --- Reset and power --------------------------------------------------------------------------------------------- */

/* A reset from outside (the slot's, or the machine's); BARs get their addresses again, the rest is as after open. DMA
 * memory keeps its contents. */
OB_PUBLIC int ob_driver_reset(struct ob_driver *driver);
/* PCI Express function level reset; likewise. -ENOTSUP. */
OB_PUBLIC int ob_driver_flr(struct ob_driver *driver);
/* Power state D0 or D3hot (0, 3). -ENOTSUP. */
OB_PUBLIC int ob_driver_power(struct ob_driver *driver, unsigned state);

#ifdef __cplusplus
}
#endif
#endif
