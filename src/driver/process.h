/* process.h: a program that belongs to a driver: QEMU, or the server behind it. It dies with the thread that started
 * it. */
#ifndef OB_DRIVER_PROCESS_H
#define OB_DRIVER_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

struct ob_child {
    pid_t pid;  /* 0: none */
    int pidfd;  /* readable once it has ended */
    int errors; /* a memfd with what it wrote to its standard error; -1: that is ours */
};

/* argv[0] is looked for in PATH; the `n` descriptors of `keep` stay open there under their numbers. Standard input is
 * empty, standard output goes where standard error goes. Returns 0, or what starting it failed with. */
int ob_child_start(struct ob_child *child, char *const argv[], const int *keep, unsigned n, bool keep_errors);
/* Ends it: SIGTERM, and SIGKILL after timeout_ms, and waits for its end. */
void ob_child_stop(struct ob_child *child, int timeout_ms);
/* The last line that it wrote to its standard error, or "". `line` has room for `size` bytes. */
void ob_child_last_line(const struct ob_child *child, char *line, size_t size);

#endif
