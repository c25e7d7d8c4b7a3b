/* peers.c: starting, pausing and ending the servers that a benchmark compares. */
#include "peers.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

const char *const ob_bench_names[OB_BENCH_PEERS] = { "outboard", "minimal", "reference" };

void ob_bench_die(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "bench: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(1); /* servers die with us */
}

/* To the nth of the CPUs that this process was started on, or to all of them (-1). */
static void place(pid_t pid, int nth)
{
    static cpu_set_t allowed; /* before the first placing */
    cpu_set_t chosen;

    if (CPU_COUNT(&allowed) == 0) {
        sched_getaffinity(0, sizeof(allowed), &allowed);
    }
    CPU_ZERO(&chosen);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && (seen++ == nth || nth < 0)) {
            CPU_SET(cpu, &chosen);
        }
    }
    if (CPU_COUNT(&chosen) == 0 || sched_setaffinity(pid, sizeof(chosen), &chosen) != 0) {
        ob_bench_die("client and server do not get a CPU each");
    }
}

void ob_bench_resume(struct ob_bench_peer *peer)
{
    siginfo_t info;

    if (peer->stopped) {
        kill(peer->process.pid, SIGCONT);
        waitid(P_PID, (id_t)peer->process.pid, &info, WCONTINUED);
        peer->stopped = false;
    }
}

void ob_bench_pause(struct ob_bench_peer *peer)
{
    siginfo_t info;

    if (!peer->stopped) {
        kill(peer->process.pid, SIGSTOP);
        if (waitid(P_PID, (id_t)peer->process.pid, &info, WSTOPPED | WEXITED | WNOWAIT) != 0 ||
            info.si_code != CLD_STOPPED) {
            ob_bench_die("a server died while it was measured");
        }
        waitid(P_PID, (id_t)peer->process.pid, &info, WSTOPPED);
        peer->stopped = true;
    }
}

void ob_bench_start(struct ob_bench_peer peers[OB_BENCH_PEERS], const char *const commands[OB_BENCH_PEERS], bool apart)
{
    for (int i = 0; i < OB_BENCH_PEERS; i++) {
        struct ob_bench_peer *peer = &peers[i];
        struct ob_process_options options = { .command = commands[i],
                                              .socket =
                                                  i == OB_BENCH_REFERENCE ? OB_PROCESS_PATH : OB_PROCESS_LISTENING };
        int r;

        *peer = (struct ob_bench_peer){ .present = commands[i] != NULL };
        if (!peer->present) {
            continue;
        }
        r = ob_process_start(&peer->process, &options);
        if (r < 0) {
            ob_bench_die("cannot start %s: %s", commands[i], strerror(-r));
        }
        place(peer->process.pid, apart ? 1 : -1);
        r = ob_process_connect(&peer->process, 5000);
        if (r < 0) {
            ob_bench_die("cannot connect to %s: %s", commands[i], strerror(-r));
        }
        ob_raw_init(&peer->raw, r);
        r = ob_raw_handshake(&peer->raw);
        if (r != 0) {
            ob_bench_die("%s does not negotiate: %d", commands[i], r);
        }
        ob_bench_pause(peer);
    }
    place(0, apart ? 0 : -1);
}

void ob_bench_end(struct ob_bench_peer peers[OB_BENCH_PEERS])
{
    for (int i = 0; i < OB_BENCH_PEERS; i++) {
        if (peers[i].present) {
            ob_raw_close(&peers[i].raw);
            ob_process_stop(&peers[i].process, SIGKILL, 5000);
        }
    }
}
