/* access.h: accesses to regions by message, the memory behind regions, and the places that a check may write: what the
 * checks of VU-REG, VU-RD, VU-WR and VU-MULTI have in common.
 *
 * Nobody knows what an unknown device's registers do, so checks write at places only: a byte of configuration space
 * that keeps what is written to it, memory that clients map and that is no doorbell, and registers of known devices
 * that only keep their value. What was there is put back. */
#ifndef CONFORM_ACCESS_H
#define CONFORM_ACCESS_H

#include "exerciser.h"

/* How many regions there are, of those that facts describe. */
uint32_t regions(const struct judge *j);
/* GET_REGION_INFO: 0 or the errno. */
int ask_region(struct judge *j, uint32_t index, uint32_t argsz, struct ob_raw_message **reply);
/* The complete answer. */
struct ob_raw_message *region_info(struct judge *j, uint32_t index);

/* --- Accesses by message ----------------------------------------------------------------------------------------- */

/* REGION_READ and REGION_WRITE: 0 or the errno. A reply to a read that has not all the bytes ends the check. */
int region_read(struct judge *j, uint32_t region, uint64_t offset, void *data, uint32_t count);
int region_write(struct judge *j, uint32_t region, uint64_t offset, const void *data, uint32_t count);
void region_post(struct judge *j, uint32_t region, uint64_t offset, const void *data, uint32_t count);
/* With `size` bytes of data, whatever `count` says; NULL: zeroes. `reply` may be NULL. */
int write_sized(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, const void *data, size_t size,
                struct ob_raw_message **reply);

/* --- Capabilities of regions ------------------------------------------------------------------------------------- */

#define MAX_CAPABILITIES 16

struct capability {
    uint16_t id, version;
    uint32_t at, next; /* from the start of the payload */
};

/* Those of a complete answer; *wrong: why the list ends where it should not, or NULL. */
unsigned capabilities(const struct ob_raw_message *m, struct capability *list, const char **wrong);

/* --- Memory that clients map ------------------------------------------------------------------------------------- */

#define MAX_AREAS 64

/* A sparse area, or the whole of a region without any. */
struct area {
    uint32_t region, flags; /* flags: the region's */
    uint64_t offset, size;  /* in the region */
    uint64_t in_file;
    bool sparse;
    int fd;
    uint8_t *memory; /* set by area_map() */
};

struct areas {
    unsigned n;
    struct area at[MAX_AREAS];
};

/* All of the device that lie in their regions and come with a descriptor. */
struct areas *find_areas(struct judge *j);
/* Those of them that can be reached by message too, as all should, and are no doorbells: checks of anything but VU-RD-4
 * and VU-WR-4 leave the others alone. */
struct areas *find_memory(struct judge *j);
bool has_doorbells(struct judge *j);
/* Maps it, for the accesses that its region allows. */
void area_map(struct judge *j, struct area *a);
/* Loads and stores through the mapping, at most 4096 bytes. They end the check where plain ones would raise SIGBUS. */
void area_load(struct judge *j, const struct area *a, uint64_t offset, void *to, size_t size);
void area_store(struct judge *j, const struct area *a, uint64_t offset, const void *from, size_t size);
/* Whether up to 8 bytes there keep what is stored through the mapping; they are put back. */
bool area_keeps(struct judge *j, const struct area *a, uint64_t offset, size_t size);
/* And whether REGION_READ shows it. */
bool area_shows(struct judge *j, const struct area *a, uint64_t offset, size_t size);

/* --- Places that checks may write -------------------------------------------------------------------------------- */

#define MAX_PLACES 80

struct place {
    uint32_t region;
    uint64_t offset;
    uint32_t size; /* at most 8; accesses are of this size, but to memory, which takes any */
    bool memory;
    uint8_t was[8];
    char name[48]; /* for texts */
};

struct places {
    unsigned n;
    struct place at[MAX_PLACES];
};

/* All there are, after a reset; ends the check if there is none. */
struct places *find_places(struct judge *j);
void restore_places(struct judge *j, const struct places *places);
/* Calls `check` for each, and puts back what was there. */
void each_place(struct judge *j, void (*check)(struct judge *j, const struct place *p));
/* Bytes to be written there, which differ for each `seed` from 1 to 200, and from what was there; 0: what was there. */
void place_bytes(const struct place *p, unsigned seed, uint8_t bytes[8]);
void place_write(struct judge *j, const struct place *p, unsigned seed);
void place_post(struct judge *j, const struct place *p, unsigned seed);
/* Whether they are there, by REGION_READ. */
bool place_holds(struct judge *j, const struct place *p, unsigned seed);
void want_place(struct judge *j, const struct place *p, unsigned seed, const char *what);

#endif
