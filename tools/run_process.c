/* tools/run_process.c: starts processes that cannot outlive this one, and tells how they ended. */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX (1u << 20)

/* Puts the descriptors of a device in their places. Those wanted are moved out of the way first: each may have the
 * number of another's place. */
static int arrange_device(const struct spawn *spawn)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int listener = spawn->listener >= 0 ? fcntl(spawn->listener, F_DUPFD_CLOEXEC, RUN_READY + 1) : -1;
    int ready = spawn->ready >= 0 ? fcntl(spawn->ready, F_DUPFD_CLOEXEC, RUN_READY + 1) : -1;
    int output = spawn->output >= 0 ? fcntl(spawn->output, F_DUPFD_CLOEXEC, RUN_READY + 1) : -1;

    if (null < 0 || (spawn->listener >= 0 && listener < 0) || (spawn->ready >= 0 && ready < 0) ||
        (spawn->output >= 0 && output < 0))
        return -errno;
    if (dup2(null, STDIN_FILENO) < 0 || dup2(output >= 0 ? output : STDERR_FILENO, STDOUT_FILENO) < 0 ||
        (output >= 0 && dup2(null, STDERR_FILENO) < 0) || (listener >= 0 && dup2(listener, RUN_LISTENER) < 0) ||
        (ready >= 0 && dup2(ready, RUN_READY) < 0))
        return -errno;
    return 0;
}

/* Closes on exec all from descriptor 3 that the user opened for QEMU, except those of ours. */
static int hide_inherited(const struct spawn *spawn)
{
    int first = 3;

    if (spawn->listener >= 0)
        first = RUN_LISTENER + 1;
    if (spawn->ready >= 0)
        first = RUN_READY + 1;
    return close_range((unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

static int prepare_child(const struct spawn *spawn, pid_t parent)
{
    int err = 0;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return -errno;
    if (getppid() != parent)
        _exit(STATUS_FAILED); /* it died before the line above */
    if (spawn->device) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN); /* `stty tostop` must not stop a device for its log */
        err = arrange_device(spawn);
        if (err == 0)
            err = hide_inherited(spawn);
    }
    for (size_t i = 0; err == 0 && i < spawn->keep_count; i++)
        if (fcntl(spawn->keep[i], F_SETFD, 0) < 0)
            err = -errno;
    if (err == 0 && spawn->mask != NULL && sigprocmask(SIG_SETMASK, spawn->mask, NULL) < 0)
        err = -errno;
    return err;
}

static void __attribute__((noreturn)) child(const struct spawn *spawn, pid_t parent, int report)
{
    int err;

    /* out of the way of the numbers that a device gets */
    report = fcntl(report, F_DUPFD_CLOEXEC, RUN_READY + 1);
    err = report >= 0 ? prepare_child(spawn, parent) : -errno;
    if (err == 0) {
        execvp(spawn->file, spawn->argv);
        err = -errno;
    }
    if (write(report, &err, sizeof(err)) != sizeof(err))
        _exit(STATUS_FAILED);
    _exit(STATUS_CANNOT_EXECUTE);
}

/* What the child reports: nothing, since the pipe is closed on exec, or why it could not. */
static int read_report(int fd)
{
    int err = 0;
    ssize_t n;

    do
        n = read(fd, &err, sizeof(err));
    while (n < 0 && errno == EINTR);
    return n == sizeof(err) ? err : 0;
}

int run_process_start(struct process *process, const struct spawn *spawn)
{
    pid_t parent = getpid();
    int report[2], err;

    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    process->pid = fork();
    if (process->pid == 0)
        child(spawn, parent, report[1]);
    err = process->pid < 0 ? -errno : 0;
    close(report[1]);
    if (err == 0)
        err = read_report(report[0]);
    close(report[0]);
    if (process->pid < 0) {
        process->pid = 0;
        return err;
    }
    process->pidfd = pidfd_open(process->pid, 0);
    if (err == 0 && process->pidfd < 0)
        err = -errno;
    if (err < 0) {
        kill(process->pid, SIGKILL);
        waitpid(process->pid, &process->status, 0);
        process->pid = 0;
        if (process->pidfd >= 0)
            close(process->pidfd);
        process->pidfd = -1;
    }
    return err;
}

bool run_process_ended(struct process *process)
{
    if (process->pid == 0)
        return true;
    if (waitpid(process->pid, &process->status, WNOHANG) != process->pid)
        return false;
    process->pid = 0;
    close(process->pidfd);
    process->pidfd = -1;
    return true;
}

void run_process_signal(const struct process *process, int signal)
{
    if (process->pid != 0)
        kill(process->pid, signal); /* not reaped yet, so the number is still its own */
}

const char *run_process_text(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exited with status %d", WEXITSTATUS(status));
    return text;
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Reads to the end of the pipe; -ETIMEDOUT if that does not come before `deadline`, -EFBIG if there is too much. */
static int read_all(int fd, int64_t deadline, char *text)
{
    size_t used = 0;

    for (;;) {
        struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
        int64_t left = deadline - now_ms();
        ssize_t n;

        if (left <= 0)
            return -ETIMEDOUT;
        if (used == OUTPUT_MAX)
            return -EFBIG;
        if (poll(&poll_fd, 1, (int)left) <= 0)
            continue;
        n = read(fd, text + used, OUTPUT_MAX - used);
        if (n == 0)
            break;
        if (n < 0)
            return -errno;
        used += (size_t)n;
    }
    text[used] = '\0';
    return 0;
}

static int await_end(const struct process *process, int64_t deadline)
{
    struct pollfd end = { .fd = process->pidfd, .events = POLLIN };
    int64_t left = deadline - now_ms();

    return poll(&end, 1, left > 0 ? (int)left : 0) > 0 ? 0 : -ETIMEDOUT;
}

char *run_process_output(const char *file, char *const *argv, int *err)
{
    struct process process = { .pidfd = -1 };
    struct spawn spawn = { .file = file, .argv = argv, .device = true, .listener = -1, .ready = -1 };
    int64_t deadline = now_ms() + RUN_ANSWER_MS;
    char *text;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        *err = -errno;
        return NULL;
    }
    spawn.output = fds[1];
    *err = run_process_start(&process, &spawn);
    close(fds[1]);
    if (*err < 0) {
        close(fds[0]);
        return NULL;
    }
    text = run_alloc(OUTPUT_MAX + 1, 1);
    *err = read_all(fds[0], deadline, text);
    close(fds[0]);
    if (*err == 0)
        *err = await_end(&process, deadline);
    if (*err < 0)
        kill(-process.pid, SIGKILL);
    while (waitpid(process.pid, &process.status, 0) < 0 && errno == EINTR)
        ;
    close(process.pidfd);
    if (*err == 0 && WIFEXITED(process.status) && WEXITSTATUS(process.status) == 0)
        return text;
    free(text);
    return NULL;
}

void *run_alloc(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL) {
        say("run: out of memory");
        exit(STATUS_FAILED);
    }
    return memory;
}

char *run_format(const char *format, ...)
{
    va_list args;
    char *text;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        say("run: out of memory");
        exit(STATUS_FAILED);
    }
    return text;
}
