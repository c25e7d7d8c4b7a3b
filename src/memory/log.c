/* The log of written pages as guest memory keeps it: when it begins and ends, and what windows add; see memory.h. */
#include "memory/space.h"

#include <errno.h>

int ob_memory_log_start(struct ob_memory *memory, unsigned shift, const struct ob_dirty_range *ranges, unsigned n,
                        bool dirty)
{
    struct ob_dirty *log;

    if (ob_memory_logging(memory) || !ob_memory_log_gone(memory))
        return -EBUSY;
    int err = ob_dirty_new(&log, shift, ranges, n, dirty);
    if (!err)
        atomic_store(&memory->log, log);
    return err;
}

bool ob_memory_logging(const struct ob_memory *memory)
{
    return atomic_load_explicit(&memory->log, memory_order_relaxed) != NULL;
}

void ob_memory_log_stop(struct ob_memory *memory)
{
    struct ob_dirty *log = atomic_exchange(&memory->log, NULL);

    if (!log)
        return;
    memory->old_log = log; /* there is none: a log begins when the last one is gone */
    memory->log_token = ob_epoch_start(memory->epoch);
}

bool ob_memory_log_gone(struct ob_memory *memory)
{
    if (!memory->old_log)
        return true;
    if (!ob_epoch_passed(memory->epoch, memory->log_token))
        return false;
    ob_dirty_free(memory->old_log);
    memory->old_log = NULL;
    return true;
}

void ob_windows_log(struct ob_memory *memory, const struct ob_window *window)
{
    if (window->prot & PROT_WRITE && atomic_load_explicit(&window->pointer, memory_order_relaxed))
        ob_log_written(memory, window->iova, window->len);
}

void ob_memory_log_take(struct ob_memory *memory, struct ob_dirty_range range, uint64_t page_size, uint8_t *bitmap)
{
    struct ob_dirty *log = atomic_load_explicit(&memory->log, memory_order_relaxed);

    for (const struct ob_window *w = memory->windows; w; w = w->next)
        ob_windows_log(memory, w);
    ob_dirty_take(log, range, page_size, bitmap);
}

void ob_memory_written(struct ob_memory *memory, uint64_t iova, uint64_t len)
{
    ob_log_written(memory, iova, len);
}
