/* guest.h: guest memory: what a check lends to the device, with a descriptor or without, served by messages wherever
 * the server asks for it.
 *
 * A server may use messages for memory whose descriptor it has (VU-DMA-11), so all memory that a known device uses is
 * made here. What the server asks for against the rules (memory that is not mapped, or not for that) is refused, and
 * the next transfer() or guest_judged() ends the check. */
#ifndef CONFORM_GUEST_H
#define CONFORM_GUEST_H

#include "exerciser.h"

/* Where checks have their memory: what a device reads, and what it writes. Aligned to 16 MiB. */
#define GUEST_FROM UINT64_C(0x01000000)
#define GUEST_TO   UINT64_C(0x02000000)

enum { GUEST_READ = 1, GUEST_WRITE = 2, GUEST_BOTH = 3 }; /* flags of DMA_MAP, kinds of commands */

/* A map, and the memory behind it. */
struct guest_map {
    struct guest_map *next;
    uint64_t address, size;
    uint32_t prot;
    uint8_t *bytes;
    int fd;
    bool mapped;
};

struct guest {
    struct guest_map *maps;
    unsigned later; /* GUEST_*: commands that are left for guest_asked() */
    int error;      /* of the replies to all others; 0: they are served */
    unsigned reads, writes;
    uint64_t largest; /* count of any */
    char fault[200];
};

/* Serves the server's commands from now on, on this connection: what is not mapped is a fault. */
struct guest *guest_serve(struct judge *j);
/* New zeroed memory, not mapped. */
struct guest_map *guest_memory(struct judge *j, uint64_t size);
/* DMA_MAP of a part of some memory; `shared`: with its descriptor. */
struct guest_map *guest_map_part(struct judge *j, const struct guest_map *of, uint64_t offset,
                                 const struct guest_map *as, bool shared);
/* Memory that was mapped there otherwise, both readable and writeable. */
void guest_mapped(struct judge *j, struct guest_map *memory, uint64_t address);
/* Of new memory. */
struct guest_map *guest_map(struct judge *j, uint64_t address, uint64_t size, uint32_t prot, bool shared);
/* DMA_UNMAP; from its reply on, a command for that memory is a fault. */
void guest_unmap(struct judge *j, struct guest_map *map);
/* The device is on and has two maps of a page, one filled with pattern 1 to read from, one to write to. */
struct guest_pair {
    struct guest_map *from, *to;
};
#define GUEST_LEN 64u /* what checks transfer of it, if length does not matter */
struct guest_pair guest_pair(struct judge *j, bool shared);
/* The server asked for nothing against the rules. */
void guest_judged(struct judge *j);
/* Skips the check if the server answers no command, or loses it, while a command of its own waits for its reply: that
 * is for the checks of VU-CON-10 and VU-DMA-15 to say. To be called first: it takes another connection. */
void guest_needs_crossing(struct judge *j);

/* The device copies; 0 or its errno. Ends the check for what the server did against the rules meanwhile. */
int transfer(struct judge *j, uint64_t from, uint64_t to, uint32_t len);
/* It has to succeed; and has to fail, if the device is one that tells. */
void transfer_ok(struct judge *j, uint64_t from, uint64_t to, uint32_t len, const char *what);
void transfer_fails(struct judge *j, uint64_t from, uint64_t to, uint32_t len, const char *what);
void want_failed(struct judge *j, int result, const char *what);

/* The device is in a copy: what it asks with next, of `later`'s kinds, which the judge frees; NULL if the copy ended,
 * and *result how. */
struct ob_raw_message *guest_next(struct judge *j, int *result);
/* It has to ask, and with that command. */
struct ob_raw_message *guest_asked(struct judge *j, uint16_t command);
/* A copy of GUEST_LEN bytes, by messages, whose DMA_READ waits for its reply: this is it. */
struct ob_raw_message *guest_read_waits(struct judge *j, struct guest_pair *pair);
/* Its reply, and the end of the copy, which has to be right; `meanwhile`: what there was before. */
void guest_read_answer(struct judge *j, const struct ob_raw_message *asked);
void guest_read_done(struct judge *j, const struct guest_pair *pair, const char *meanwhile);
/* A successful reply with that payload. */
void guest_answer(struct judge *j, const struct ob_raw_message *command, const void *payload, size_t size);
/* A reply as it should be; the data of DMA_READ is `fill`. */
void guest_answer_well(struct judge *j, const struct ob_raw_message *command, uint8_t fill);
void guest_refuse(struct judge *j, const struct ob_raw_message *command, uint32_t error);
struct ob_raw_dma guest_range(struct judge *j, const struct ob_raw_message *command);

/* Bytes that differ from one seed to another. */
void guest_fill(uint8_t *bytes, size_t size, unsigned seed);
bool guest_filled(const uint8_t *bytes, size_t size, unsigned seed);
/* All of them have that value. */
bool guest_all(const uint8_t *bytes, size_t size, uint8_t value);

#endif
