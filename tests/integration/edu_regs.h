/* edu_regs.h: the registers of the edu device, from its published specification, for tests that drive it. */
#ifndef OB_EDU_REGS_H
#define OB_EDU_REGS_H

#define EDU_BAR          0
#define EDU_BAR_SIZE     0x100000
#define EDU_ID           0x00
#define EDU_ID_VALUE     0x010000edu
#define EDU_LIVENESS     0x04 /* reads as the inverse of what was written */
#define EDU_FACTORIAL    0x08
#define EDU_STATUS       0x20
#define EDU_STATUS_BUSY  0x01u
#define EDU_STATUS_IRQ   0x80u
#define EDU_IRQ_STATUS   0x24
#define EDU_IRQ_RAISE    0x60
#define EDU_IRQ_ACK      0x64
#define EDU_DMA_SRC      0x80
#define EDU_DMA_DST      0x88
#define EDU_DMA_COUNT    0x90
#define EDU_DMA_COMMAND  0x98
#define EDU_DMA_RUN      0x1u
#define EDU_DMA_TO_GUEST 0x2u
#define EDU_DMA_IRQ      0x4u
#define EDU_BUFFER       0x40000
#define EDU_BUFFER_SIZE  4096
#define EDU_IRQ_DMA      0x100u

#endif
