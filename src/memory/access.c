/* Finding guest memory: translation, pins, and lookup of single pieces; see memory.h. */
#include "memory/space.h"

#include <errno.h>
#include <stdlib.h>

#define WRITE_PIN UINT32_C(0x80000000) /* of a pin's number: an index into the reader's pins, else it is a slot */

/* The common part of translate and pin, compiled into both. */
__attribute__((always_inline)) static inline int locate(const struct ob_memory *memory, uint64_t iova, uint64_t len,
                                                        int prot, struct iovec *iov, uint32_t *slots, int max)
{
    int n = 0;

    if (len && iova + (len - 1) < iova)
        return -EFAULT;
    while (len) {
        struct ob_tree_map map;
        uint64_t skip, part;

        if (!ob_tree_find(&memory->tree, iova, &map) || iova - map.start >= map.size)
            return -EFAULT;
        if (prot & ~map.prot)
            return -EACCES;
        if (!map.host)
            return -EREMOTE;
        if (n >= max)
            return -ENOBUFS;
        skip = iova - map.start;
        part = map.size - skip < len ? map.size - skip : len;
        iov[n] = (struct iovec){ .iov_base = map.host + skip, .iov_len = part };
        if (slots)
            slots[n] = map.slot;
        n++;
        iova += part;
        len -= part;
    }
    return n;
}

int ob_memory_translate(const struct ob_memory *memory, uint64_t iova, size_t len, int prot, struct iovec *iov, int max)
{
    return locate(memory, iova, len, prot, iov, NULL, max);
}

/* Makes room for more pins for writing. */
static int more_pins(struct ob_reader *reader)
{
    uint32_t had = reader->n_pins, now = had ? 2 * had : 64;

    if (now >= WRITE_PIN)
        return -ENOMEM;
    struct ob_write_pin *pins = realloc(reader->pins, now * sizeof(*pins));

    if (!pins)
        return -ENOMEM;
    reader->pins = pins;
    reader->n_pins = now;
    for (; now > had; now--) {
        pins[now - 1].next = reader->free_pin;
        reader->free_pin = now;
    }
    return 0;
}

/* A pin for writing is noted with its range, since whoever logs what is written has to know it when the pin ends; also
 * while nobody logs, who may begin meanwhile. */
static int pin_for_writing(struct ob_reader *reader, struct ob_memory *memory, uint64_t iova, const struct iovec *iov,
                           uint32_t *pins, int n)
{
    for (int i = 0; i < n; i++) {
        if (!reader->free_pin && more_pins(reader) < 0) {
            ob_memory_unpin(reader, memory, pins, i);
            return -ENOMEM;
        }
        uint32_t index = reader->free_pin - 1;
        struct ob_write_pin *pin = &reader->pins[index];

        reader->free_pin = pin->next;
        *pin = (struct ob_write_pin){ .iova = iova, .len = iov[i].iov_len, .slot = pins[i] };
        ob_reader_raise(reader, pins[i]);
        pins[i] = WRITE_PIN | index;
        ob_log_written(memory, iova, pin->len);
        iova += pin->len;
    }
    return n;
}

int ob_memory_pin(struct ob_reader *reader, struct ob_memory *memory, uint64_t iova, size_t len, int prot,
                  struct iovec *iov, uint32_t *pins, int max)
{
    int n = locate(memory, iova, len, prot, iov, pins, max);

    if (prot & PROT_WRITE && n > 0)
        return pin_for_writing(reader, memory, iova, iov, pins, n);
    for (int i = 0; i < n; i++)
        ob_reader_raise(reader, pins[i]);
    return n;
}

/* Ends a pin for writing; returns its slot. */
static uint32_t written(struct ob_reader *reader, struct ob_memory *memory, uint32_t index)
{
    struct ob_write_pin *pin = &reader->pins[index];

    ob_log_written(memory, pin->iova, pin->len);
    pin->next = reader->free_pin;
    reader->free_pin = index + 1;
    return pin->slot;
}

void ob_memory_unpin(struct ob_reader *reader, struct ob_memory *memory, const uint32_t *pins, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t slot = pins[i];

        if (slot & WRITE_PIN)
            slot = written(reader, memory, slot & ~WRITE_PIN);
        ob_reader_lower(reader, slot);
    }
}

int ob_memory_find(const struct ob_memory *memory, uint64_t iova, uint64_t len, struct ob_memory_piece *piece)
{
    struct ob_tree_map map;
    uint64_t skip;

    if (!len)
        return -EINVAL;
    if (iova + (len - 1) < iova)
        return -EFAULT;
    if (!ob_tree_find(&memory->tree, iova, &map) || iova - map.start >= map.size)
        return -EFAULT;
    skip = iova - map.start;
    *piece = (struct ob_memory_piece){ .iova = iova,
                                       .len = map.size - skip < len ? map.size - skip : len,
                                       .host = map.host ? map.host + skip : NULL,
                                       .prot = map.prot };
    return 0;
}
