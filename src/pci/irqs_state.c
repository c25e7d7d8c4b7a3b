/* What of the interrupts moves with a device that is migrated: conditions, messages that are due, the MSI-X table. What
 * belongs to the client, its eventfds and its masking of INTx, does not. */
#include "pci/irqs.h"

#include <errno.h>
#include <string.h>

struct saved_vector {
    uint32_t word; /* OB_IRQ_LEVEL, OB_IRQ_PENDING */
    uint32_t table[4];
};

/* Dwords; the vectors follow. */
struct saved {
    uint32_t table_written, vectors;
};

size_t ob_irqs_saved_size(const struct ob_pci_layout *layout)
{
    return sizeof(struct saved) + ob_irqs_vectors(layout) * sizeof(struct saved_vector);
}

void ob_irqs_save(const struct ob_irqs *irqs, void *out)
{
    struct saved saved = { atomic_load(&irqs->state->table_written), irqs->vectors };
    uint8_t *at = out;

    memcpy(at, &saved, sizeof(saved));
    at += sizeof(saved);
    for (unsigned i = 0; i < irqs->vectors; i++, at += sizeof(struct saved_vector)) {
        const struct ob_irq_vector *vector = &irqs->state->vectors[i];
        struct saved_vector v = { .word = (uint32_t)(atomic_load(&vector->word) & (OB_IRQ_LEVEL | OB_IRQ_PENDING)) };

        for (unsigned j = 0; j < 4; j++)
            v.table[j] = atomic_load(&vector->table[j]);
        memcpy(at, &v, sizeof(v));
    }
}

static struct saved_vector vector_of(const void *in, unsigned i)
{
    struct saved_vector v;

    memcpy(&v, (const uint8_t *)in + sizeof(struct saved) + i * sizeof(v), sizeof(v));
    return v;
}

int ob_irqs_load_check(const struct ob_irqs *irqs, const void *in, size_t size)
{
    struct saved saved;

    if (size != ob_irqs_saved_size(irqs->layout))
        return -EINVAL;
    memcpy(&saved, in, sizeof(saved));
    if (saved.vectors != irqs->vectors || saved.table_written > 1)
        return -EINVAL;
    for (unsigned i = 0; i < irqs->vectors; i++) {
        struct saved_vector v = vector_of(in, i);

        if (v.word & ~(OB_IRQ_LEVEL | OB_IRQ_PENDING))
            return -EINVAL;
        for (unsigned j = 0; j < 4; j++)
            if (v.table[j] & ~ob_msix_writable[j])
                return -EINVAL;
    }
    return 0;
}

void ob_irqs_load(struct ob_irqs *irqs, const void *in)
{
    struct saved saved;

    memcpy(&saved, in, sizeof(saved));
    atomic_store(&irqs->state->table_written, saved.table_written);
    for (unsigned i = 0; i < irqs->vectors; i++) {
        struct ob_irq_vector *vector = &irqs->state->vectors[i];
        struct saved_vector v = vector_of(in, i);
        uint64_t old = atomic_load(&vector->word);

        while (!atomic_compare_exchange_weak(&vector->word, &old,
                                             ((old & ~(OB_IRQ_LEVEL | OB_IRQ_PENDING)) | v.word) + OB_IRQ_RAISE))
            ;
        for (unsigned j = 0; j < 4; j++)
            atomic_store(&vector->table[j], v.table[j]);
    }
}
