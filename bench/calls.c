/* calls.c: counting a server's system calls by ptrace, which needs neither strace nor perf.
 *
 * One thread traces and does nothing else: ptrace belongs to a thread, and so does waiting for its tracees. The main
 * thread talks to the server meanwhile. The tracer is told to stop by a flag that it looks at after each stop of the
 * server; a server at rest is brought to a stop by PTRACE_INTERRUPT from the tracer itself, which a signal to it asks
 * for. */
#include "peers.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

struct tracer {
    pid_t pid;
    pthread_t thread;
    sem_t ready;
    atomic_bool counting, finish;
    bool inside; /* between entry and exit of a call */
    struct ob_bench_calls calls;
};

static void wake(int signal)
{
    (void)signal; /* it only ends waitpid() */
}

static void one_stop(struct tracer *tracer)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, tracer->pid, sizeof(info), &info) <= 0) {
        return;
    }
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && atomic_load(&tracer->counting)) {
        tracer->calls.done += info.exit.rval > 0;
        tracer->calls.zero += info.exit.rval == 0;
    }
}

static void *trace(void *arg)
{
    struct tracer *tracer = arg;
    int status;

    if (ptrace(PTRACE_SEIZE, tracer->pid, NULL, PTRACE_O_TRACESYSGOOD) != 0 ||
        ptrace(PTRACE_INTERRUPT, tracer->pid, NULL, NULL) != 0) {
        ob_bench_die("cannot trace a server: %s", strerror(errno));
    }
    for (bool leaving = false, first = true;;) {
        pid_t got = waitpid(tracer->pid, &status, __WALL);
        int signal = 0;

        if (got < 0 && errno != EINTR) {
            ob_bench_die("a traced server: %s", strerror(errno));
        }
        if (atomic_load(&tracer->finish) && !leaving) {
            leaving = true;
            if (got < 0 && ptrace(PTRACE_INTERRUPT, tracer->pid, NULL, NULL) != 0) {
                ob_bench_die("a traced server: %s", strerror(errno));
            }
        }
        if (got < 0) {
            continue;
        }
        if (!WIFSTOPPED(status)) {
            ob_bench_die("a server died while it was traced");
        }
        if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            one_stop(tracer);
        } else if (status >> 16 == 0) {
            signal = WSTOPSIG(status);
        }
        if (leaving) {
            ptrace(PTRACE_DETACH, tracer->pid, NULL, (void *)(uintptr_t)signal);
            return NULL;
        }
        if (ptrace(PTRACE_SYSCALL, tracer->pid, NULL, (void *)(uintptr_t)signal) != 0) {
            ob_bench_die("a traced server: %s", strerror(errno));
        }
        if (first) {
            first = false;
            sem_post(&tracer->ready);
        }
    }
}

struct ob_bench_calls ob_bench_count_calls(pid_t pid, void (*fn)(void *ctx), void *ctx)
{
    struct tracer tracer = { .pid = pid };
    struct sigaction action = { .sa_handler = wake };

    if (ob_process_status(pid, "Threads") != 1) {
        ob_bench_die("a server with several threads: only one would be counted");
    }
    sigaction(SIGUSR1, &action, NULL);
    sem_init(&tracer.ready, 0, 0);
    if (pthread_create(&tracer.thread, NULL, trace, &tracer) != 0) {
        ob_bench_die("no thread");
    }
    while (sem_wait(&tracer.ready) != 0) {
    }
    fn(ctx); /* settles: whatever the interruption cost is over after a round */
    atomic_store(&tracer.counting, true);
    fn(ctx);
    atomic_store(&tracer.counting, false);
    atomic_store(&tracer.finish, true);
    while (pthread_kill(tracer.thread, SIGUSR1) == 0 && pthread_tryjoin_np(tracer.thread, NULL) != 0) {
        usleep(1000); /* the signal may come just before waitpid(): it is repeated */
    }
    sem_destroy(&tracer.ready);
    return tracer.calls;
}
