/* world.h: what a fuzz target's subject sees of the machine, made the same for every run of an input.
 *
 * The linker puts functions of world.c in the place of clock_gettime, timerfd_settime, epoll_wait and others
 * (meson.build has the list). Time stands still but for world_advance() and for whoever would sleep; nothing ever
 * blocks. A run that leaves a descriptor or a mapping behind ends in an abort; memory is the leak sanitizer's. One
 * thread. */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "input.h"

/* Before and after everything else of a run. */
void world_begin(void);
void world_end(void);

void world_advance(uint64_t ns);

/* A descriptor to send to the subject, of a kind and size that the input chooses; world_end() closes it. -1 when there
 * are too many. */
int world_descriptor(struct input *in);
/* The same: `pages` of memory to share, and an eventfd. */
int world_new_file(unsigned pages);
int world_new_event(void);
/* Those there are, by number modulo their count, or -1. */
int world_file(unsigned number);
int world_event(unsigned number);

/* Called instead of sleeping, if set: lets the rest of the target do something. False: nothing more will happen. */
extern bool (*world_idle)(void);

#endif
