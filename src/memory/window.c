/* Windows: pointers to long-lived guest memory that follow what is mapped; see memory.h.
 *
 * A change looks at every window, since there are few: a device has some hundred rings at most. */
#include "memory/space.h"

#include <errno.h>

static bool overlaps(const struct ob_window *window, uint64_t iova, uint64_t size)
{
    return window->iova <= iova + (size - 1) && iova <= window->iova + (window->len - 1);
}

/* Where the window is, if all of it is there and in one run of bytes. A run can be of several maps: clients cut memory
 * up without regard to rings. */
static void *window_host(const struct ob_memory *memory, const struct ob_window *window)
{
    uint64_t iova = window->iova, left = window->len;
    char *first = NULL, *expected = NULL;
    struct ob_memory_piece piece;

    while (left) {
        if (ob_memory_find(memory, iova, left, &piece) < 0 || !piece.host || (window->prot & ~piece.prot))
            return NULL;
        if (!first)
            first = piece.host;
        else if (piece.host != expected)
            return NULL;
        expected = (char *)piece.host + piece.len;
        iova += piece.len;
        left -= piece.len;
    }
    return first;
}

void ob_windows_unmap(struct ob_memory *memory, uint64_t iova, uint64_t size)
{
    for (struct ob_window *w = memory->windows; w; w = w->next)
        if (overlaps(w, iova, size)) {
            ob_windows_log(memory, w);
            atomic_store_explicit(&w->pointer, NULL, memory_order_relaxed); /* published by the epoch */
        }
}

void ob_windows_map(struct ob_memory *memory, uint64_t iova, uint64_t size)
{
    for (struct ob_window *w = memory->windows; w; w = w->next)
        if (overlaps(w, iova, size))
            atomic_store_explicit(&w->pointer, window_host(memory, w), memory_order_release);
}

int ob_window_open(struct ob_memory *memory, struct ob_window *window, uint64_t iova, uint64_t len, int prot)
{
    if (!len || iova + (len - 1) < iova || !prot || (prot & ~(PROT_READ | PROT_WRITE)))
        return -EINVAL;
    window->iova = iova;
    window->len = len;
    window->prot = prot;
    window->memory = memory;
    atomic_init(&window->pointer, window_host(memory, window));
    window->next = memory->windows;
    window->link = &memory->windows;
    if (window->next)
        window->next->link = &window->next;
    memory->windows = window;
    return 0;
}

void ob_window_close(struct ob_window *window)
{
    ob_windows_log(window->memory, window);
    atomic_store_explicit(&window->pointer, NULL, memory_order_relaxed);
    *window->link = window->next;
    if (window->next)
        window->next->link = window->link;
}
