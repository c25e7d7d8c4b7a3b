/* The MSI-X table and the pending bit array as the guest sees them through BARs.
 *
 * Messages are sent by eventfds, so of an entry only the mask bit has a meaning here; address and data are kept for who
 * reads them. Only the control thread writes the table; other threads read its mask bits. */
#include "pci/irqs.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static bool inside(uint32_t size, uint64_t off, size_t len)
{
    return off <= size && len <= size - off;
}

/* The bits of an entry's dwords that can be written: the address is a multiple of four, the other bits of vector
 * control are reserved (PCI 3.0, 6.8.2.6 to 6.8.2.9). */
const uint32_t ob_msix_writable[4] = { ~3u, ~0u, ~0u, PCI_MSIX_ENTRY_CTRL_MASKBIT };

static _Atomic uint32_t *dword_at(const struct ob_irqs *irqs, uint64_t off)
{
    return &irqs->state->vectors[off / PCI_MSIX_ENTRY_SIZE].table[off % PCI_MSIX_ENTRY_SIZE / 4];
}

/* How much of `len` bytes at `off` is in the dword there. */
static size_t piece(uint64_t off, size_t len)
{
    size_t rest = 4 - off % 4;

    return len < rest ? len : rest;
}

int ob_irqs_table_read(const struct ob_irqs *irqs, uint64_t off, size_t len, void *out)
{
    uint8_t *bytes = out;

    if (!inside(irqs->layout->msix_table_size, off, len))
        return -EINVAL;
    while (len) {
        uint32_t value = htole32(atomic_load(dword_at(irqs, off)));
        size_t n = piece(off, len);

        memcpy(bytes, (uint8_t *)&value + off % 4, n);
        bytes += n;
        off += n;
        len -= n;
    }
    return 0;
}

int ob_irqs_table_write(struct ob_irqs *irqs, uint64_t off, size_t len, const void *data)
{
    const uint8_t *bytes = data;

    if (!inside(irqs->layout->msix_table_size, off, len))
        return -EINVAL;
    while (len) {
        bool control = off % PCI_MSIX_ENTRY_SIZE == PCI_MSIX_ENTRY_VECTOR_CTRL;
        uint32_t value = htole32(atomic_load(dword_at(irqs, off)));
        size_t n = piece(off, len);

        memcpy((uint8_t *)&value + off % 4, bytes, n);
        atomic_store(dword_at(irqs, off), le32toh(value) & ob_msix_writable[off % PCI_MSIX_ENTRY_SIZE / 4]);
        if (control) {
            atomic_store(&irqs->state->table_written, 1);
            ob_irqs_deliver(irqs, (unsigned)(off / PCI_MSIX_ENTRY_SIZE));
        }
        bytes += n;
        off += n;
        len -= n;
    }
    return 0;
}

int ob_irqs_pba_read(const struct ob_irqs *irqs, uint64_t off, size_t len, void *out)
{
    uint8_t *bytes = out;

    if (!inside(irqs->layout->msix_pba_size, off, len))
        return -EINVAL;
    memset(bytes, 0, len);
    for (size_t i = 0; i < len * 8; i++) {
        size_t vector = (size_t)off * 8 + i;

        if (vector < irqs->layout->msix_vectors && atomic_load(&irqs->state->vectors[vector].word) & OB_IRQ_PENDING)
            bytes[i / 8] |= (uint8_t)(1 << i % 8);
    }
    return 0;
}
