/* Epochs: how the control thread learns that no worker can still use what it replaced.
 *
 * Workers read shared structures (the map of guest memory, interrupt descriptors) without locks. The control thread
 * publishes a new version, starts an epoch, and may free the old version once every worker has passed a quiescent
 * point since: a moment, between two polls, at which the worker holds no pointer into anything shared. A worker that
 * sleeps says so (offline) and delays nobody.
 *
 * There is one epoch object per device. Its control thread is the only one to start epochs, to ask whether they
 * passed, and to add and remove readers. A reader belongs to one worker thread; the ob_reader_quiescent, _offline,
 * _online functions are called by that thread only. The control thread can have a reader too, but then it delays itself
 * like any other until it is at a quiescent point or offline.
 *
 * Each reader also carries counters, one per slot, for uses that outlive a poll (pinned I/O): only the reader's own
 * thread writes them, so no cache line is written by two workers; the control thread adds them up. */
#ifndef OB_MEMORY_EPOCH_H
#define OB_MEMORY_EPOCH_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define OB_CACHE_LINE 64

/* The members are for the inline functions below only. */
struct ob_epoch {
    alignas(OB_CACHE_LINE) _Atomic uint64_t now;      /* read by every worker between polls, written by every start */
    _Atomic uint32_t waiting;                         /* the control thread wants to hear of a passed quiescent point */
    _Atomic uint32_t watching;                        /* it wants to hear of lowered counters */
    alignas(OB_CACHE_LINE) struct ob_reader *readers; /* from here on: control thread only */
    uint64_t passed;                                  /* every token up to here is known to have passed */
    uint32_t slots;
    int wake_fd; /* constant; written to by readers */
};

/* A use that outlives a poll and writes: what is to be said of it when it is over. */
struct ob_write_pin {
    uint64_t iova, len; /* bytes */
    uint32_t slot;
    uint32_t next; /* in the list of free ones: an index plus one, 0: the last */
};

/* One per worker and device; ob_reader_add fills it. The memory is the caller's, and has to stay until
 * ob_reader_remove; mind the alignment when allocating (aligned_alloc). */
struct ob_reader {
    alignas(OB_CACHE_LINE) _Atomic uint64_t seen; /* the epoch of the last quiescent point; 0: offline */
    struct ob_epoch *epoch;
    _Atomic uint32_t *counters; /* by slot; written by this reader's thread only */
    uint64_t held;              /* sum of the counters; this reader's thread only */
    bool watched, lowered;      /* this reader's thread only */
    struct ob_write_pin *pins;  /* this reader's thread only, as what follows */
    uint32_t n_pins, free_pin;  /* the first of the free ones: an index plus one */
    struct ob_reader *next;     /* control thread only */
};

/* A new epoch object; each reader gets `slots` counters (4 bytes each, touched lazily). -ENOMEM, -EMFILE, -ENFILE. */
int ob_epoch_new(struct ob_epoch **epoch, uint32_t slots);

/* Ends it; every reader must have been removed. NULL is fine. */
void ob_epoch_free(struct ob_epoch *epoch);

/* [control] Starts an epoch: stores made before are seen by every reader that passes a quiescent point after. The
 * token stays valid for as long as the epoch object. */
uint64_t ob_epoch_start(struct ob_epoch *epoch);

/* [control] Whether every reader has been at a quiescent point, or offline, since ob_epoch_start gave this token. If
 * it returns false, the wake descriptor becomes readable when it is worth asking again. */
bool ob_epoch_passed(struct ob_epoch *epoch, uint64_t token);

/* [control] The same without arranging for a wake-up, for those who will come by anyway. */
bool ob_epoch_passed_quietly(struct ob_epoch *epoch, uint64_t token);

/* [control] The eventfd to put in the control thread's epoll set (EPOLLIN, level-triggered). It belongs to the epoch.
 * When it is readable call ob_epoch_clear first and then ask again about everything that waits. */
int ob_epoch_wake_fd(const struct ob_epoch *epoch);
void ob_epoch_clear(struct ob_epoch *epoch);

/* [control] From ob_epoch_watch to ob_epoch_unwatch (they nest) the wake descriptor becomes readable whenever a reader
 * that lowered a counter passes a quiescent point. Counters lowered before the returned token passed may be missed:
 * look at them once more after it has. */
uint64_t ob_epoch_watch(struct ob_epoch *epoch);
void ob_epoch_unwatch(struct ob_epoch *epoch);

/* [control] The sum over all readers of the counter of one slot. Exact once no reader can raise it any more. */
uint64_t ob_epoch_count(const struct ob_epoch *epoch, uint32_t slot);

/* [control] Adds a reader, offline; its thread calls ob_reader_online before its first look at anything shared.
 * -ENOMEM. */
int ob_reader_add(struct ob_epoch *epoch, struct ob_reader *reader);

/* [control] Removes a reader whose thread has ended or will not use it again. -EBUSY if a counter is still raised: what
 * was pinned has to be unpinned first. */
int ob_reader_remove(struct ob_reader *reader);

/* [worker] Around a sleep. What was read before offline must not be used after; raised counters stay raised. */
void ob_reader_offline(struct ob_reader *reader);
void ob_reader_online(struct ob_reader *reader);

void ob_reader_quiescent_slow(struct ob_reader *reader);

/* [worker] Call between polls: nothing that was read from shared structures before is used after. Two loads, unless
 * the control thread waits for something. */
static inline void ob_reader_quiescent(struct ob_reader *reader)
{
    if (atomic_load_explicit(&reader->epoch->now, memory_order_acquire) !=
            atomic_load_explicit(&reader->seen, memory_order_relaxed) ||
        reader->lowered)
        ob_reader_quiescent_slow(reader);
}

/* [worker] Raise or lower the counter of a slot (below the epoch's `slots`); one call lowers what one call raised. */
static inline void ob_reader_raise(struct ob_reader *reader, uint32_t slot)
{
    _Atomic uint32_t *counter = &reader->counters[slot];

    reader->held++;
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline void ob_reader_lower(struct ob_reader *reader, uint32_t slot)
{
    _Atomic uint32_t *counter = &reader->counters[slot];

    reader->held--;
    reader->lowered |= reader->watched;
    /* Release: what the worker did with the memory is over before the control thread sees the counter at zero. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) - 1, memory_order_release);
}

#endif
