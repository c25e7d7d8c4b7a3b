/* wire.h: the protocol's layouts as the specification gives them, written down a second time on purpose: the client
 * that judges a server must not take its word, or its headers, for what the protocol is. What <linux/vfio.h> defines is
 * used from there. */
#ifndef OB_RAW_WIRE_H
#define OB_RAW_WIRE_H

#include <stdint.h>

enum ob_raw_command {
    OB_RAW_VERSION = 1,
    OB_RAW_DMA_MAP = 2,
    OB_RAW_DMA_UNMAP = 3,
    OB_RAW_GET_INFO = 4,
    OB_RAW_GET_REGION_INFO = 5,
    OB_RAW_GET_REGION_IO_FDS = 6,
    OB_RAW_GET_IRQ_INFO = 7,
    OB_RAW_SET_IRQS = 8,
    OB_RAW_REGION_READ = 9,
    OB_RAW_REGION_WRITE = 10,
    OB_RAW_DMA_READ = 11,
    OB_RAW_DMA_WRITE = 12,
    OB_RAW_RESET = 13,
    OB_RAW_WRITE_MULTI = 15,
    OB_RAW_FEATURE = 16,
    OB_RAW_MIG_READ = 17,
    OB_RAW_MIG_WRITE = 18,
};

#define OB_RAW_TYPE_MASK 0xfu
#define OB_RAW_REPLY     0x1u
#define OB_RAW_NO_REPLY  0x10u
#define OB_RAW_ERROR     0x20u

#define OB_RAW_PACKED __attribute__((packed))

struct ob_raw_header {
    uint16_t id, command;
    uint32_t size, flags, error;
} OB_RAW_PACKED;

/* Followed by JSON text and its NUL, or by nothing. */
struct ob_raw_version {
    uint16_t major, minor;
} OB_RAW_PACKED;

struct ob_raw_dma_map {
    uint32_t argsz, flags;
    uint64_t offset, address, size;
} OB_RAW_PACKED;

struct ob_raw_dma_unmap {
    uint32_t argsz, flags;
    uint64_t address, size;
} OB_RAW_PACKED;

/* Followed by `count` bytes in a write, and in the reply to a read. */
struct ob_raw_region {
    uint64_t offset;
    uint32_t region, count;
} OB_RAW_PACKED;

/* Server to client; followed by data as above. The reply to a write is four bytes shorter: its count has 32 bits. */
struct ob_raw_dma {
    uint64_t address, count;
} OB_RAW_PACKED;

struct ob_raw_dma_write_reply {
    uint64_t address;
    uint32_t count;
} OB_RAW_PACKED;

/* WRITE_MULTI: a 64-bit count, then as many of these. */
struct ob_raw_one_write {
    uint64_t offset;
    uint32_t region, count;
    uint8_t data[8];
} OB_RAW_PACKED;

struct ob_raw_io_fds {
    uint32_t argsz, flags, index, count;
} OB_RAW_PACKED;

struct ob_raw_mig_data {
    uint32_t argsz, size;
} OB_RAW_PACKED;

_Static_assert(sizeof(struct ob_raw_header) == 16, "header");
_Static_assert(sizeof(struct ob_raw_dma_map) == 32, "DMA_MAP");
_Static_assert(sizeof(struct ob_raw_dma_unmap) == 24, "DMA_UNMAP");
_Static_assert(sizeof(struct ob_raw_one_write) == 24, "WRITE_MULTI");

#endif
