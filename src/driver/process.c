/* process.c: programs that belong to a driver. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "driver/process.h"

#define EXEC_FAILED 127

/* In the child, of a process that may have threads: system calls only. */
__attribute__((noreturn)) static void become(char *const argv[], const int *keep, unsigned n, int input, int errors,
                                             int report, pid_t parent)
{
    sigset_t none;
    int err;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXEC_FAILED);
    for (unsigned i = 0; i < n; i++)
        fcntl(keep[i], F_SETFD, 0);
    dup2(input, STDIN_FILENO);
    if (errors >= 0)
        dup2(errors, STDERR_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execvp(argv[0], argv);
    err = errno;
    if (write(report, &err, sizeof(err)) != sizeof(err))
        _exit(EXEC_FAILED + 1);
    _exit(EXEC_FAILED);
}

int ob_child_start(struct ob_child *child, char *const argv[], const int *keep, unsigned n, bool keep_errors)
{
    int report[2], input = open("/dev/null", O_RDONLY | O_CLOEXEC), err = 0;
    pid_t parent = getpid();

    *child = (struct ob_child){ .pidfd = -1, .errors = -1 };
    if (input < 0)
        return -errno;
    if (pipe2(report, O_CLOEXEC) != 0) {
        err = -errno;
        close(input);
        return err;
    }
    if (keep_errors)
        child->errors = memfd_create("errors", MFD_CLOEXEC);
    child->pid = keep_errors && child->errors < 0 ? -1 : fork();
    if (child->pid == 0)
        become(argv, keep, n, input, child->errors, report[1], parent);
    if (child->pid < 0) {
        err = -errno;
        child->pid = 0;
    }
    close(input);
    close(report[1]);
    if (!err) {
        child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
        if (child->pidfd < 0)
            err = -errno;
        else if (read(report[0], &err, sizeof(err)) == sizeof(err))
            err = -err;
    }
    close(report[0]);
    if (err)
        ob_child_stop(child, 0);
    return err;
}

void ob_child_stop(struct ob_child *child, int timeout_ms)
{
    struct pollfd ended = { .fd = child->pidfd, .events = POLLIN };

    if (child->pid > 0) {
        kill(child->pid, SIGTERM);
        if (child->pidfd < 0 || poll(&ended, 1, timeout_ms) != 1)
            kill(child->pid, SIGKILL);
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        close(child->pidfd);
        if (child->errors >= 0)
            close(child->errors);
    }
    *child = (struct ob_child){ .pidfd = -1, .errors = -1 };
}

void ob_child_last_line(const struct ob_child *child, char *line, size_t size)
{
    off_t end = child->errors >= 0 ? lseek(child->errors, 0, SEEK_END) : 0;
    char tail[1024];
    ssize_t n = 0;
    char *start;

    *line = 0;
    if (end > 0)
        n = pread(child->errors, tail, sizeof(tail) - 1,
                  end > (off_t)sizeof(tail) - 1 ? end - (off_t)sizeof(tail) + 1 : 0);
    while (n > 0 && (tail[n - 1] == '\n' || tail[n - 1] == '\r'))
        n--;
    if (n <= 0)
        return;
    tail[n] = 0;
    start = strrchr(tail, '\n');
    snprintf(line, size, "%s", start ? start + 1 : tail);
}
