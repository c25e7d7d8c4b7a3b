/* tools/lspci.h: the parts of `outboard lspci`: lspci.c fetches, lspci_show.c prints the header, lspci_caps.c the
 * capabilities, lspci_express.c that of PCI Express. */
#ifndef OB_LSPCI_H
#define OB_LSPCI_H

#include <linux/pci_regs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* A function's configuration space, as it was fetched, and what it does not say. */
struct function {
    uint8_t config[PCI_CFG_SPACE_EXP_SIZE];
    size_t size;           /* bytes fetched */
    uint64_t bar_sizes[6]; /* of the regions; 0: none */
    uint64_t rom_size;
    int verbose; /* how many -v */
    struct names *names;
};

/* Registers; those beyond what was fetched read as zero. */
static inline uint8_t reg8(const struct function *f, size_t at)
{
    return at < f->size ? f->config[at] : 0;
}

static inline uint16_t reg16(const struct function *f, size_t at)
{
    return (uint16_t)(reg8(f, at) | reg8(f, at + 1) << 8);
}

static inline uint32_t reg32(const struct function *f, size_t at)
{
    return reg16(f, at) | (uint32_t)reg16(f, at + 2) << 16;
}

/* A flag as lspci shows it. */
static inline char flag(uint32_t value, uint32_t mask)
{
    return value & mask ? '+' : '-';
}

/* Prints ` NAME+` or ` NAME-` for each bit; the first without its blank. */
struct bit {
    uint32_t mask;
    const char *name;
};
void print_bits(uint32_t value, const struct bit *bits, size_t count);
#define PRINT_BITS(value, ...)                             \
    print_bits(value, (const struct bit[]){ __VA_ARGS__ }, \
               sizeof((const struct bit[]){ __VA_ARGS__ }) / sizeof(const struct bit))

/* All of a device, as lspci prints it. */
void show_function(const struct function *f);
void show_capabilities(const struct function *f);
/* The capability at `at`, from behind its name's brackets. */
void show_express(const struct function *f, size_t at);

#endif
