/* Finding guest memory: translation, pins, and lookup of single pieces; see memory.h. */
#include "memory/space.h"

#include <errno.h>

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

int ob_memory_pin(struct ob_reader *reader, const struct ob_memory *memory, uint64_t iova, size_t len, int prot,
                  struct iovec *iov, uint32_t *pins, int max)
{
    int n = locate(memory, iova, len, prot, iov, pins, max);

    for (int i = 0; i < n; i++)
        ob_reader_raise(reader, pins[i]);
    return n;
}

void ob_memory_unpin(struct ob_reader *reader, const uint32_t *pins, int n)
{
    for (int i = 0; i < n; i++)
        ob_reader_lower(reader, pins[i]);
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
