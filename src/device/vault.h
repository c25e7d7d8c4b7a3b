/* The vault: a device's state, in memory that outlives the process.
 *
 * Theory of operation. Handlers work on a private copy (`live`). A commit writes what changed into the older of two
 * slots in the vault, and makes that slot current by one store of the generation: its lowest bit says which. A process
 * killed before that store leaves the older slot half written, and its successor starts from the current one; killed
 * after, it did all that was asked. The slot also holds the position in the request stream, how far replies are valid,
 * and the interrupts that the commit is to cause, so that all of it becomes true at once.
 *
 * live is made of parts. A commit copies a part only into a slot that does not have its present value, so that requests
 * that change nothing copy nothing but the record.
 *
 *   header | slot 0 | slot 1 | interrupts | map table | shared | private RAM of BARs | migration data
 *
 * What comes after the slots is raw memory, changed in place: each user says how it stays consistent.
 * One thread uses the vault (the control thread); interrupts and shared are for any thread. */
#ifndef OB_DEVICE_VAULT_H
#define OB_DEVICE_VAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "session/journal.h"

enum ob_vault_part { OB_PART_STATE, OB_PART_CONFIG, OB_PART_TIMERS, OB_PART_BINDINGS, OB_PART_MIGRATION, OB_PARTS };

/* Interrupts that a commit causes: a bit for each vector, and for whatever else it signals. */
struct ob_intents {
    uint64_t *set, *clear, *pulse;
};

struct ob_vault_layout {
    size_t part[OB_PARTS];                     /* bytes */
    unsigned signals;                          /* bits of each intent */
    size_t irqs, maps, shared, ram, migration; /* bytes of the raw areas */
    uint64_t hash; /* of the device's declaration: the same, or the memory is another device's */
};

struct ob_vault_header {
    uint64_t magic;
    uint64_t hash;
    uint64_t size;
    uint64_t generation; /* number of commits; the lowest bit is the current slot */
    uint64_t signalled;  /* the generation whose interrupts are out */
};

/* At the start of a slot; the intents' words and the parts follow. */
struct ob_record {
    struct ob_position position;
    uint32_t has_intents, reset_irqs;
};

struct ob_vault {
    int fd;
    size_t size;
    struct ob_vault_header *header;
    uint8_t *slot[2];
    uint8_t *live;
    size_t part_off[OB_PARTS], part_size[OB_PARTS];
    uint8_t stale[OB_PARTS];   /* bit n: slot n lacks the part's present value */
    bool dirty[OB_PARTS];      /* changed since the last commit */
    unsigned words;            /* 64-bit words of each intent */
    struct ob_intents intents; /* of the next commit */
    bool has_intents;
    bool reset_irqs; /* the next commit resets the interrupts, before its intents */
    void *irqs, *maps, *shared, *ram, *migration;
};

/* Makes a vault (fd -1), or takes over the one in `fd`, which belongs to the vault on success; live then holds what was
 * current. *position is what the current slot says. 0, -EINVAL when fd is not a vault of this layout, or -errno. */
int ob_vault_open(struct ob_vault *vault, int fd, const struct ob_vault_layout *layout, struct ob_position *position);
void ob_vault_close(struct ob_vault *vault);

/* Whether the vault has ever been committed: false for a new one. */
bool ob_vault_used(const struct ob_vault *vault);

/* Makes live, the intents and the position current. Any instruction of it may be the last. */
void ob_vault_commit(struct ob_vault *vault, const struct ob_position *position);

/* Undoes what was changed since the last commit. */
void ob_vault_rollback(struct ob_vault *vault);

/* The interrupts of the current slot, for delivery; false if there are none, or they are out already. The words are
 * good until the next commit. */
bool ob_vault_unsignalled(struct ob_vault *vault, struct ob_intents *intents, bool *reset);
/* They are out. */
void ob_vault_signalled(struct ob_vault *vault);

static inline void *ob_vault_part(const struct ob_vault *vault, enum ob_vault_part part)
{
    return vault->live + vault->part_off[part];
}

#endif
