/* Surviving a file that is cut short under us: SIGBUS in guest memory is answered with zero pages.
 *
 * A client can shrink a file that it gave us; touching what is gone raises SIGBUS. With the handler installed, the rest
 * of that mapping becomes private zero pages, the memory it belongs to is poisoned (ob_memory_poisoned) so that the
 * session can be ended, and the access goes on. Every other SIGBUS goes where it went before the installation. Signal
 * handlers are the process's, hence opt-in, and the one thing in the library that is global. */
#ifndef OB_MEMORY_FAULT_H
#define OB_MEMORY_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* [any thread] Installs the handler; counted, the first call does it. Returns 0 or -errno of sigaction. */
int ob_fault_install(void);

/* [any thread] Undoes one install; the last puts the previous handler back. -EBUSY if somebody has installed another
 * handler on top of ours meanwhile, which then stays in its chain; -EINVAL if it is not installed. */
int ob_fault_remove(void);

/* A mapping the handler may replace: len bytes at base, in pages of `page` bytes. When it happens *poisoned is set
 * and 1 is added to the eventfd wake_fd. */
struct ob_fault_range {
    void *base;
    size_t len;
    size_t page;
    bool writable;
    atomic_bool *poisoned;
    int wake_fd;
};

/* [any thread] Makes a mapping known, before it is first used; *handle is for ob_fault_forget, which has to come before
 * the mapping is unmapped, when nobody uses it any more. -ENOMEM. */
struct ob_fault_slot;
int ob_fault_watch(const struct ob_fault_range *range, struct ob_fault_slot **handle);
void ob_fault_forget(struct ob_fault_slot *handle);

#endif
