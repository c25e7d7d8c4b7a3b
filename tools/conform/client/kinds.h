/* kinds.h: what kinds of commands a client has sent: what is compared of two sessions. Two commands are of a kind if
 * they ask for the same thing of the same part of the device: how often, in what order and with what data is left to
 * the client. */
#ifndef CONFORM_KINDS_H
#define CONFORM_KINDS_H

#include "../raw/client.h"

#define MAX_KINDS 512

struct kind {
    uint16_t command;
    bool posted;
    uint32_t part;  /* the region or interrupt type; of a map, whether a descriptor came; else 0 */
    uint32_t flags; /* of SET_IRQS, DMA_MAP and DEVICE_FEATURE */
    uint32_t state; /* that is set, if it is one of migration */
};

struct kinds {
    struct kind kind[MAX_KINDS];
    unsigned count;
};

struct kind kind_of(const struct ob_raw_message *m);
bool kind_same(const struct kind *a, const struct kind *b);
/* Adds it if it is not there. Whether it was new. */
bool kinds_add(struct kinds *kinds, const struct kind *kind);
bool kinds_has_command(const struct kinds *kinds, uint16_t command);
/* The first of `all` that `some` lacks, of commands whose bit is not in `but`; NULL: none. */
const struct kind *kinds_missing(const struct kinds *all, const struct kinds *some, uint32_t but);
/* For people. */
void kind_print(const struct kind *kind, char *text, size_t size);

#endif
