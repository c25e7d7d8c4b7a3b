/* memory.c: where DMA memory lies: the lowest free addresses first. */
#include <errno.h>
#include <stdlib.h>
#include "driver/driver.h"

#define PAGE UINT64_C(4096)

int ob_driver_alloc(struct ob_driver *driver, size_t size, struct ob_driver_memory *memory)
{
    uint64_t at = OB_DRIVER_MEMORY_START, rounded = ((uint64_t)size + PAGE - 1) & ~(PAGE - 1);
    struct ob_driver_block **link = &driver->blocks, *block;
    int err;

    if (size == 0)
        return -EINVAL;
    if (rounded < size)
        return -ENOMEM;
    for (; *link && (*link)->memory.iova - at < rounded; link = &(*link)->next)
        at = (*link)->memory.iova + (*link)->memory.size;
    if (rounded > driver->memory_end || at > driver->memory_end - rounded)
        return -ENOMEM;
    block = calloc(1, sizeof(*block));
    if (!block)
        return -ENOMEM;
    block->memory = (struct ob_driver_memory){ .iova = at, .size = (size_t)rounded };
    err = driver->ops->alloc(driver, block);
    if (err) {
        free(block);
        return err;
    }
    block->next = *link;
    *link = block;
    *memory = block->memory;
    return 0;
}

int ob_driver_free(struct ob_driver *driver, const struct ob_driver_memory *memory)
{
    struct ob_driver_block **link = &driver->blocks, *block;
    int err;

    while (*link && (*link)->memory.iova != memory->iova)
        link = &(*link)->next;
    block = *link;
    if (!block || block->memory.bytes != memory->bytes)
        return -ENOENT;
    err = driver->ops->free(driver, block);
    *link = block->next;
    free(block);
    return err;
}

struct ob_driver_block *ob_driver_find_block(struct ob_driver *driver, uint64_t iova, size_t len)
{
    for (struct ob_driver_block *block = driver->blocks; block; block = block->next) {
        uint64_t inside = iova - block->memory.iova;

        if (inside < block->memory.size && len <= block->memory.size - inside)
            return block;
    }
    return NULL;
}

void ob_driver_free_blocks(struct ob_driver *driver)
{
    while (driver->blocks) {
        struct ob_driver_block *block = driver->blocks;

        driver->blocks = block->next;
        driver->ops->free(driver, block);
        free(block);
    }
}
