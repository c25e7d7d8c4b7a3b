/* kinds.c: kinds of commands. */
#include "kinds.h"

#include <stdio.h>
#include <string.h>

#include "../transcript.h"

static uint32_t field(const struct ob_raw_message *m, size_t offset)
{
    uint32_t value = 0;

    if (offset + sizeof(value) <= m->size)
        memcpy(&value, m->payload + offset, sizeof(value));
    return value;
}

struct kind kind_of(const struct ob_raw_message *m)
{
    struct kind kind = { .command = m->header.command, .posted = m->header.flags & OB_RAW_NO_REPLY };

    switch (m->header.command) {
    case OB_RAW_DMA_MAP:
        kind.part = m->nfds > 0;
        kind.flags = field(m, 4);
        break;
    case OB_RAW_GET_REGION_INFO:
    case OB_RAW_GET_REGION_IO_FDS:
    case OB_RAW_GET_IRQ_INFO:
    case OB_RAW_REGION_READ:
    case OB_RAW_REGION_WRITE:
        kind.part = field(m, 8);
        break;
    case OB_RAW_SET_IRQS:
        kind.part = field(m, 8);
        kind.flags = field(m, 4);
        break;
    case OB_RAW_FEATURE:
        kind.flags = field(m, 4);
        if (kind.flags == (VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE))
            kind.state = field(m, 8);
        break;
    }
    return kind;
}

bool kind_same(const struct kind *a, const struct kind *b)
{
    return a->command == b->command && a->posted == b->posted && a->part == b->part && a->flags == b->flags &&
           a->state == b->state;
}

static bool kinds_has(const struct kinds *kinds, const struct kind *kind)
{
    for (unsigned i = 0; i < kinds->count; i++) {
        if (kind_same(&kinds->kind[i], kind))
            return true;
    }
    return false;
}

bool kinds_add(struct kinds *kinds, const struct kind *kind)
{
    if (kinds_has(kinds, kind) || kinds->count == MAX_KINDS)
        return false;
    kinds->kind[kinds->count++] = *kind;
    return true;
}

bool kinds_has_command(const struct kinds *kinds, uint16_t command)
{
    for (unsigned i = 0; i < kinds->count; i++) {
        if (kinds->kind[i].command == command)
            return true;
    }
    return false;
}

const struct kind *kinds_missing(const struct kinds *all, const struct kinds *some, uint32_t but)
{
    for (unsigned i = 0; i < all->count; i++) {
        const struct kind *kind = &all->kind[i];

        if (!(kind->command < 32 && but & 1u << kind->command) && !kinds_has(some, kind))
            return kind;
    }
    return NULL;
}

void kind_print(const struct kind *kind, char *text, size_t size)
{
    const char *posted = kind->posted ? "posted " : "", *name = command_name(kind->command);

    switch (kind->command) {
    case OB_RAW_DMA_MAP:
        snprintf(text, size, "%s%s (flags %#x, %s descriptor)", posted, name, kind->flags,
                 kind->part ? "with a" : "without");
        break;
    case OB_RAW_GET_REGION_INFO:
    case OB_RAW_GET_REGION_IO_FDS:
    case OB_RAW_GET_IRQ_INFO:
    case OB_RAW_REGION_READ:
    case OB_RAW_REGION_WRITE:
        snprintf(text, size, "%s%s (index %u)", posted, name, kind->part);
        break;
    case OB_RAW_SET_IRQS:
        snprintf(text, size, "%s%s (index %u, flags %#x)", posted, name, kind->part, kind->flags);
        break;
    case OB_RAW_FEATURE:
        snprintf(text, size, "%s%s (flags %#x, state %u)", posted, name, kind->flags, kind->state);
        break;
    default:
        snprintf(text, size, "%s%s", posted, name);
    }
}
