/* scratch.h: a register that every PCI device has, and that keeps what it is told: bits of COMMAND. */
#ifndef CONFORM_SCRATCH_H
#define CONFORM_SCRATCH_H

#include "check.h"

#define SCRATCH_WRITE_SIZE 34
#define SCRATCH_READ_SIZE  32

/* Finds its bits and clears them; ends the check if there are none. Their values are called by numbers: 0 and 1 differ,
 * as do 1 and 2, ... */
void scratch_begin(struct judge *j);
/* Builds a command that writes value n, or one that reads, with these flags; returns its size. */
size_t scratch_write(struct judge *j, void *to, uint16_t id, uint32_t flags, unsigned n);
size_t scratch_read(void *to, uint16_t id);
/* The reply to that read has to show value n. */
void want_scratch_reply(struct judge *j, uint16_t id, unsigned n, const char *what);
/* Writes, reads and compares by calls. */
void scratch_set(struct judge *j, unsigned n);
void want_scratch(struct judge *j, unsigned n, const char *what);

#endif
