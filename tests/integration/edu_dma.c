/* edu_dma.c: driving edu's DMA engine. */
#include "edu_dma.h"

#include <stdlib.h>
#include <unistd.h>

void edu_enable(struct ob_raw *raw)
{
    ob_set_command(raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

void edu_dma_set(struct ob_raw *raw, uint64_t src, uint64_t dst, uint64_t count)
{
    ob_ok(ob_raw_write(raw, EDU_BAR, EDU_DMA_SRC, &src, sizeof(src)));
    ob_ok(ob_raw_write(raw, EDU_BAR, EDU_DMA_DST, &dst, sizeof(dst)));
    ob_ok(ob_raw_write(raw, EDU_BAR, EDU_DMA_COUNT, &count, sizeof(count)));
}

void edu_dma_start(struct ob_raw *raw, uint32_t flags)
{
    ob_write32(raw, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN | flags);
}

void edu_dma(struct ob_raw *raw, uint64_t src, uint64_t dst, uint64_t count, uint32_t flags)
{
    edu_dma_set(raw, src, dst, count);
    edu_dma_start(raw, flags);
    ob_wait_register(raw, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0);
}

void edu_check(int fd, uint64_t offset, const void *expected, size_t size)
{
    uint8_t found[8192];

    assert_in_range(size, 1, sizeof(found));
    assert_int_equal(pread(fd, found, size, (off_t)offset), size);
    assert_memory_equal(found, expected, size);
}
