/* peers.h: the servers that a benchmark compares: started together, stopped (SIGSTOP) but for the one being measured.
 */
#ifndef OB_BENCH_PEERS_H
#define OB_BENCH_PEERS_H

#include "raw/client.h"
#include "../tests/integration/process.h"

enum { OB_BENCH_OURS, OB_BENCH_MINIMAL, OB_BENCH_REFERENCE, OB_BENCH_PEERS };
extern const char *const ob_bench_names[OB_BENCH_PEERS];

/* The command line of each; NULL: not measured. `%s` in the reference's stands for the socket's path. */
struct ob_bench_commands {
    const char *sleeping[OB_BENCH_PEERS], *polling[OB_BENCH_PEERS];
};

struct ob_bench_peer {
    bool present, stopped;
    struct ob_process process;
    struct ob_raw raw;
};

/* Starts those that have a command, negotiates with each, stops them. Exits with a message on failure: a benchmark has
 * nothing better to do. `apart`: client and servers on a CPU each, which whoever spins needs; else the scheduler puts
 * two that wake each other where it likes. */
void ob_bench_start(struct ob_bench_peer peers[OB_BENCH_PEERS], const char *const commands[OB_BENCH_PEERS], bool apart);
void ob_bench_end(struct ob_bench_peer peers[OB_BENCH_PEERS]);
/* Lets one run, or stops it; returns once it is so. */
void ob_bench_resume(struct ob_bench_peer *peer);
void ob_bench_pause(struct ob_bench_peer *peer);
/* Prints the reason and exits. */
__attribute__((noreturn, format(printf, 1, 2))) void ob_bench_die(const char *format, ...);

/* Counts the system calls of a process while fn(ctx) runs, by ptrace: calls that returned more than zero (bytes,
 * events), and those that returned zero. Failed ones (an empty socket polled) are not counted. */
struct ob_bench_calls {
    unsigned long done, zero;
};
struct ob_bench_calls ob_bench_count_calls(pid_t pid, void (*fn)(void *ctx), void *ctx);

#endif
