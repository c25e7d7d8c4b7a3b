/* Quiescent-state-based epochs, with sleeping readers and a wake-up for the control thread.
 *
 * The control thread publishes (release store), then starts an epoch (now + 1). A reader at a quiescent point copies
 * `now` into its `seen`: with the acquire load of `now` it sees what was published before, with the store it gives up
 * everything it read before. So once every reader's `seen` has reached the token, nobody holds older things.
 *
 * A reader that comes online must not slip past a control thread that has just found it offline. Both sides do a
 * sequentially consistent store and then a load: the reader stores `seen` and loads `now`, the control thread raises
 * `now` and loads `seen`. In the single order of these four one of them comes to see the other's store: either the
 * control thread finds the reader online, or the reader sees the new epoch and thereby what was published.
 *
 * The same argument serves the wake-up: the control thread sets `waiting` and looks at `seen` once more, the reader
 * stores `seen` and looks at `waiting`. Whoever takes `waiting` back to 0 writes the eventfd, so it is one write
 * however many readers there are. For lowered counters a store and a load in every ob_reader_lower would be too dear;
 * instead ob_epoch_watch starts an epoch, each reader learns of the watch when it passes it, and from then on reports
 * counters it lowered at its next quiescent point. */
#include "memory/epoch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define OFFLINE UINT64_C(0)

int ob_epoch_new(struct ob_epoch **epoch, uint32_t slots)
{
    struct ob_epoch *e = aligned_alloc(OB_CACHE_LINE, sizeof(*e));

    if (!e)
        return -ENOMEM;
    memset(e, 0, sizeof(*e));
    atomic_init(&e->now, OFFLINE + 1);
    e->passed = OFFLINE + 1;
    e->slots = slots;
    e->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (e->wake_fd < 0) {
        int err = -errno;

        free(e);
        return err;
    }
    *epoch = e;
    return 0;
}

void ob_epoch_free(struct ob_epoch *epoch)
{
    if (!epoch)
        return;
    close(epoch->wake_fd);
    free(epoch);
}

uint64_t ob_epoch_start(struct ob_epoch *epoch)
{
    return atomic_fetch_add_explicit(&epoch->now, 1, memory_order_seq_cst) + 1;
}

bool ob_epoch_passed_quietly(struct ob_epoch *epoch, uint64_t token)
{
    uint64_t oldest = UINT64_MAX;

    if (token <= epoch->passed)
        return true;
    for (struct ob_reader *r = epoch->readers; r; r = r->next) {
        uint64_t seen = atomic_load_explicit(&r->seen, memory_order_seq_cst);

        if (seen != OFFLINE && seen < oldest)
            oldest = seen;
    }
    if (oldest < token)
        return false;
    epoch->passed = token;
    return true;
}

bool ob_epoch_passed(struct ob_epoch *epoch, uint64_t token)
{
    if (ob_epoch_passed_quietly(epoch, token))
        return true;
    atomic_store_explicit(&epoch->waiting, 1, memory_order_seq_cst);
    return ob_epoch_passed_quietly(epoch, token);
}

int ob_epoch_wake_fd(const struct ob_epoch *epoch)
{
    return epoch->wake_fd;
}

void ob_epoch_clear(struct ob_epoch *epoch)
{
    eventfd_t count;

    /* EAGAIN: nobody wrote, which is as good as cleared; there is no other error on a valid eventfd. */
    (void)eventfd_read(epoch->wake_fd, &count);
}

uint64_t ob_epoch_watch(struct ob_epoch *epoch)
{
    atomic_fetch_add_explicit(&epoch->watching, 1, memory_order_relaxed); /* published by the start */
    return ob_epoch_start(epoch);
}

void ob_epoch_unwatch(struct ob_epoch *epoch)
{
    atomic_fetch_sub_explicit(&epoch->watching, 1, memory_order_relaxed);
}

uint64_t ob_epoch_count(const struct ob_epoch *epoch, uint32_t slot)
{
    uint64_t sum = 0;

    for (const struct ob_reader *r = epoch->readers; r; r = r->next)
        sum += atomic_load_explicit(&r->counters[slot], memory_order_acquire);
    return sum;
}

static size_t counters_size(const struct ob_epoch *epoch)
{
    return (size_t)epoch->slots * sizeof(_Atomic uint32_t);
}

int ob_reader_add(struct ob_epoch *epoch, struct ob_reader *reader)
{
    void *counters = NULL;

    /* Straight from the kernel: zero, and only the slots in use cost memory. */
    if (epoch->slots) {
        counters = mmap(NULL, counters_size(epoch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (counters == MAP_FAILED)
            return -ENOMEM;
    }
    atomic_init(&reader->seen, OFFLINE);
    reader->epoch = epoch;
    reader->counters = counters;
    reader->held = 0;
    reader->watched = reader->lowered = false;
    reader->pins = NULL;
    reader->n_pins = reader->free_pin = 0;
    reader->next = epoch->readers;
    epoch->readers = reader;
    return 0;
}

int ob_reader_remove(struct ob_reader *reader)
{
    struct ob_epoch *epoch = reader->epoch;
    struct ob_reader **link = &epoch->readers;

    if (reader->held)
        return -EBUSY;
    while (*link != reader)
        link = &(*link)->next;
    *link = reader->next;
    if (reader->counters)
        munmap(reader->counters, counters_size(epoch));
    free(reader->pins);
    reader->pins = NULL;
    reader->counters = NULL;
    reader->epoch = NULL;
    return 0;
}

static void wake(struct ob_epoch *epoch)
{
    /* EAGAIN: the counter is at its limit, so the descriptor is readable already. */
    (void)eventfd_write(epoch->wake_fd, 1);
}

/* To be called after `seen` was stored. */
static bool take_waiting(struct ob_epoch *epoch)
{
    return atomic_load_explicit(&epoch->waiting, memory_order_seq_cst) &&
           atomic_exchange_explicit(&epoch->waiting, 0, memory_order_seq_cst);
}

/* Whether counters were lowered that somebody watches. */
static bool take_lowered(struct ob_reader *reader)
{
    bool lowered = reader->lowered;

    reader->watched = atomic_load_explicit(&reader->epoch->watching, memory_order_relaxed) != 0;
    reader->lowered = false;
    return lowered && reader->watched;
}

void ob_reader_quiescent_slow(struct ob_reader *reader)
{
    struct ob_epoch *epoch = reader->epoch;
    uint64_t now = atomic_load_explicit(&epoch->now, memory_order_acquire);
    bool waited = false;

    if (now != atomic_load_explicit(&reader->seen, memory_order_relaxed)) {
        atomic_exchange_explicit(&reader->seen, now, memory_order_seq_cst);
        waited = take_waiting(epoch);
    }
    if (take_lowered(reader) || waited)
        wake(epoch);
}

void ob_reader_offline(struct ob_reader *reader)
{
    bool waited;

    atomic_exchange_explicit(&reader->seen, OFFLINE, memory_order_seq_cst);
    waited = take_waiting(reader->epoch);
    if (take_lowered(reader) || waited)
        wake(reader->epoch);
}

void ob_reader_online(struct ob_reader *reader)
{
    struct ob_epoch *epoch = reader->epoch;
    uint64_t now = atomic_load_explicit(&epoch->now, memory_order_acquire);

    atomic_exchange_explicit(&reader->seen, now, memory_order_seq_cst);
    /* If it is newer than what was stored, the next quiescent point catches up. */
    (void)atomic_load_explicit(&epoch->now, memory_order_seq_cst);
    reader->watched = atomic_load_explicit(&epoch->watching, memory_order_relaxed) != 0;
}
