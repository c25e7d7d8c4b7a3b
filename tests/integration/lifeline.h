/* lifeline.h: keeps a device alive through the deaths of its processes: holds its memory, its client's socket and its
 * descriptors, and starts a successor whenever one is killed. What a keeper does, for tests.
 *
 * A thread of its own serves the holder's socket and waits for deaths; the functions here belong to the test's. */
#ifndef OB_LIFELINE_H
#define OB_LIFELINE_H

#include "raw/client.h"
#include "process.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#define OB_LIFE_MAX_HELD 256

struct ob_life {
    struct ob_raw raw; /* the client; its connection outlives every process */
    atomic_uint deaths;
    atomic_int failed; /* exit status of a process that was not killed as it should be; -1: could not be started */
    /* The rest is the thread's. */
    const char *command;
    char crash_at[64]; /* OUTBOARD_CRASH_AT=..., for all processes or the first; empty: none */
    bool every;
    int server_end; /* of the client's connection */
    int holder[2];  /* ours, the processes' */
    int memory[3];  /* vault, bars, journal; -1 before the first process made them */
    int ready, stop;
    struct ob_process process;
    pthread_t thread;
    sem_t started;
    struct {
        uint64_t key;
        int fd;
    } held[OB_LIFE_MAX_HELD];
    unsigned n_held;
};

/* Starts the first process, which dies at the Nth passage of that step (`label` NULL: does not), as its successors do
 * if `every`. 0 or -errno. */
int ob_life_start(struct ob_life *life, const char *command, const char *label, unsigned nth, bool every);
/* Ends everything. 0, or -EPROTO if a process ended otherwise than by the kill: the reason is on standard error. */
int ob_life_end(struct ob_life *life);

#endif
