/* script.h: what a fuzz target's bytes make a client do, one step after the other. */
#ifndef FUZZ_SCRIPT_H
#define FUZZ_SCRIPT_H

#include "peer.h"

/* Does everything that the input says. */
void script_run(struct peer *peer, struct input *in);
/* What a monitor does first: VERSION, with a twin socket or without, memory with and without a descriptor, eventfds,
 * bus mastering. */
void script_prologue(struct peer *peer, bool twin);

/* One REGION_WRITE. */
void script_write(struct peer *peer, uint32_t region, uint64_t offset, uint64_t value, unsigned size);

/* Where the prologue maps memory: shared, and reached by messages. */
#define SCRIPT_SHARED   UINT64_C(0x100000)
#define SCRIPT_MESSAGES UINT64_C(0x200000)
#define SCRIPT_PAGES    16u

#endif
