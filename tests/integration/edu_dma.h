/* edu_dma.h: driving edu's DMA engine. */
#ifndef OB_EDU_DMA_H
#define OB_EDU_DMA_H

#include "edu_regs.h"
#include "fixture.h"

/* Memory decoding and bus mastering on. */
void edu_enable(struct ob_raw *raw);
/* Source, destination, count: all but the start. */
void edu_dma_set(struct ob_raw *raw, uint64_t src, uint64_t dst, uint64_t count);
/* Starts what was set; flags: EDU_DMA_TO_GUEST, EDU_DMA_IRQ. */
void edu_dma_start(struct ob_raw *raw, uint32_t flags);
/* Both, and waits until the engine says that it is done. */
void edu_dma(struct ob_raw *raw, uint64_t src, uint64_t dst, uint64_t count, uint32_t flags);
/* The file's content at that offset is this. */
void edu_check(int fd, uint64_t offset, const void *expected, size_t size);

#endif
