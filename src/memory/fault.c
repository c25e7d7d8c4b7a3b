/* The SIGBUS handler and the table of mappings it may replace; see fault.h.
 *
 * The table is read inside the handler, at any instant of any thread, so without locks: slots are in chunks that are
 * never freed, and each has a sequence number that is odd while the slot is free or being changed. A reader that finds
 * the number even and the same after reading the fields has read one state of them. The slot of the faulting mapping
 * itself cannot change meanwhile, as the mapping is in use; only others can.
 *
 * What is replaced reaches from the faulting page to the end of the mapping. The file ends at or before that page, so
 * nothing that still exists is lost; and a file cut short costs a few faults and one more mapping, not one for each
 * page, of which a process can have 65,530 only. */
#include "memory/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK_SLOTS 256

struct ob_fault_slot {
    atomic_uint sequence;
    atomic_uintptr_t base;
    atomic_size_t len, page;
    atomic_bool writable;
    _Atomic(atomic_bool *) poisoned;
    atomic_int wake_fd;
    struct ob_fault_slot *next_free; /* under the lock */
};

struct chunk {
    struct ob_fault_slot slot[CHUNK_SLOTS];
    struct chunk *next; /* constant */
};

static _Atomic(struct chunk *) chunks;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for what follows, and for changes of the table */
static struct ob_fault_slot *free_slots;
static unsigned installs;
static struct sigaction previous; /* constant while the handler is installed */

static int add_chunk(void)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk));

    if (!chunk)
        return -ENOMEM;
    for (unsigned i = 0; i < CHUNK_SLOTS; i++) {
        atomic_init(&chunk->slot[i].sequence, 1);
        chunk->slot[i].next_free = free_slots;
        free_slots = &chunk->slot[i];
    }
    chunk->next = atomic_load_explicit(&chunks, memory_order_relaxed);
    atomic_store_explicit(&chunks, chunk, memory_order_release);
    return 0;
}

int ob_fault_watch(const struct ob_fault_range *range, struct ob_fault_slot **handle)
{
    struct ob_fault_slot *slot;
    int err = 0;

    pthread_mutex_lock(&lock);
    if (!free_slots)
        err = add_chunk();
    slot = free_slots;
    if (!err)
        free_slots = slot->next_free;
    pthread_mutex_unlock(&lock);
    if (err)
        return err;
    /* Release: who sees one of these also sees the odd number that was stored before them. */
    atomic_store_explicit(&slot->base, (uintptr_t)range->base, memory_order_release);
    atomic_store_explicit(&slot->len, range->len, memory_order_release);
    atomic_store_explicit(&slot->page, range->page, memory_order_release);
    atomic_store_explicit(&slot->writable, range->writable, memory_order_release);
    atomic_store_explicit(&slot->poisoned, range->poisoned, memory_order_release);
    atomic_store_explicit(&slot->wake_fd, range->wake_fd, memory_order_release);
    atomic_fetch_add_explicit(&slot->sequence, 1, memory_order_release);
    *handle = slot;
    return 0;
}

void ob_fault_forget(struct ob_fault_slot *handle)
{
    atomic_fetch_add_explicit(&handle->sequence, 1, memory_order_release);
    pthread_mutex_lock(&lock);
    handle->next_free = free_slots;
    free_slots = handle;
    pthread_mutex_unlock(&lock);
}

/* Reads the slot that holds the address. Async-signal-safe. */
static bool find_range(uintptr_t at, struct ob_fault_range *range)
{
    for (struct chunk *chunk = atomic_load_explicit(&chunks, memory_order_acquire); chunk; chunk = chunk->next) {
        for (unsigned i = 0; i < CHUNK_SLOTS; i++) {
            struct ob_fault_slot *slot = &chunk->slot[i];
            unsigned sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
            uintptr_t base = atomic_load_explicit(&slot->base, memory_order_acquire);

            if (sequence & 1)
                continue;
            range->base = (void *)base;
            range->len = atomic_load_explicit(&slot->len, memory_order_acquire);
            range->page = atomic_load_explicit(&slot->page, memory_order_acquire);
            range->writable = atomic_load_explicit(&slot->writable, memory_order_acquire);
            range->poisoned = atomic_load_explicit(&slot->poisoned, memory_order_acquire);
            range->wake_fd = atomic_load_explicit(&slot->wake_fd, memory_order_acquire);
            if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) == sequence && at >= base &&
                at - base < range->len)
                return true;
        }
    }
    return false;
}

/* Puts zero pages where the file is gone. Async-signal-safe. */
static bool replace(uintptr_t at)
{
    struct ob_fault_range range;
    uint64_t one = 1;
    uintptr_t skip;
    int prot;

    if (!find_range(at, &range))
        return false;
    prot = PROT_READ | (range.writable ? PROT_WRITE : 0);
    skip = (at - (uintptr_t)range.base) / range.page * range.page;
    /* The bare system call: mmap itself is not promised to be async-signal-safe, and tools wrap it. */
    if (syscall(SYS_mmap, (char *)range.base + skip, range.len - skip, prot,
                MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L) < 0)
        return false;
    atomic_store_explicit(range.poisoned, true, memory_order_release);
    /* It fails only when the counter is at its limit, and then the descriptor is readable already. */
    (void)!write(range.wake_fd, &one, sizeof(one));
    return true;
}

/* Does what would have been done without us. */
static void forward(int signal, siginfo_t *info, void *context)
{
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler == SIG_DFL || (previous.sa_handler == SIG_IGN && info->si_code > 0)) {
        struct sigaction action = { .sa_handler = SIG_DFL };

        /* A fault happens again on return, and the kernel does not let it be ignored; what was sent is sent again. */
        sigaction(signal, &action, NULL);
        if (info->si_code <= 0)
            raise(signal);
    } else if (previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal);
    }
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    int saved = errno;
    bool replaced = info->si_code == BUS_ADRERR && replace((uintptr_t)info->si_addr);

    if (!replaced)
        forward(signal, info, context);
    errno = saved;
}

int ob_fault_install(void)
{
    struct sigaction action;
    int err = 0;

    pthread_mutex_lock(&lock);
    if (!installs) {
        /* Known before ours is in place: a fault right after must find where to go on to. */
        err = sigaction(SIGBUS, NULL, &previous) < 0 ? -errno : 0;
        action = (struct sigaction){ .sa_sigaction = on_fault,
                                     .sa_mask = previous.sa_mask,
                                     .sa_flags = SA_SIGINFO | (previous.sa_flags & (SA_ONSTACK | SA_NODEFER)) };
        if (!err && sigaction(SIGBUS, &action, NULL) < 0)
            err = -errno;
    }
    if (!err)
        installs++;
    pthread_mutex_unlock(&lock);
    return err;
}

int ob_fault_remove(void)
{
    struct sigaction current;
    int err = 0;

    pthread_mutex_lock(&lock);
    if (!installs) {
        err = -EINVAL;
    } else if (installs == 1) {
        if (sigaction(SIGBUS, NULL, &current) < 0)
            err = -errno;
        else if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != on_fault)
            err = -EBUSY;
        else if (sigaction(SIGBUS, &previous, NULL) < 0)
            err = -errno;
    }
    if (!err)
        installs--;
    pthread_mutex_unlock(&lock);
    return err;
}
