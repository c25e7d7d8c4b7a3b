/* target.c: starting, reaching and ending the server under test. */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "words.h"

#define START_MS 10000

void target_socket(struct target *target, const char *path)
{
    *target = (struct target){ .path = path, .pid = -1 };
}

int target_command(struct target *target, const char *command)
{
    const char *tmp = getenv("TMPDIR");
    bool replaced;
    char *path;
    size_t n = 0;

    *target = (struct target){ .program = command, .pid = -1 };
    if (asprintf(&target->folder, "%s/conform-XXXXXX", tmp != NULL && *tmp != '\0' ? tmp : "/tmp") < 0)
        return -ENOMEM;
    if (mkdtemp(target->folder) == NULL) {
        int err = -errno;

        free(target->folder);
        target->folder = NULL;
        return err;
    }
    if (asprintf(&path, "%s/server", target->folder) < 0)
        return -ENOMEM;
    target->path = path;
    target->command = words_split(command, path, &replaced);
    if (target->command == NULL)
        return -ENOMEM;
    while (target->command[n] != NULL)
        n++;
    if (n == 0)
        return -EINVAL;
    if (!replaced && asprintf(&target->command[n], "--socket-path=%s", path) < 0) {
        target->command[n] = NULL;
        return -ENOMEM;
    }
    return 0;
}

int target_again(struct target *again, const struct target *target)
{
    int err = target_command(again, target->program);

    again->once = target->once;
    return err;
}

int target_start(struct target *target)
{
    if (target->command == NULL || target->pid > 0)
        return 0;
    unlink(target->path);
    target->ended = false;
    target->served = false;
    target->pid = fork();
    if (target->pid < 0)
        return -errno;
    if (target->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Our standard output is the report. */
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execvp(target->command[0], target->command);
        fprintf(stderr, "outboard conform: cannot run %s: %s\n", target->command[0], strerror(errno));
        _exit(127);
    }
    return 0;
}

bool target_died(struct target *target)
{
    if (target->command != NULL && target->pid > 0 && waitpid(target->pid, &target->status, WNOHANG) == target->pid) {
        target->pid = -1;
        target->ended = true;
    }
    /* One that serves a single client ends after it, with whatever status. */
    return target->ended && !(target->once && target->served && WIFEXITED(target->status));
}

/* Waits for its end; 0 when it came in time. */
static int wait_end(struct target *target, int timeout_ms)
{
    int fd = (int)syscall(SYS_pidfd_open, target->pid, 0);
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    int n = fd < 0 ? 0 : poll(&pfd, 1, timeout_ms);

    if (fd >= 0)
        close(fd);
    return n == 1 ? 0 : -ETIMEDOUT;
}

static int connect_once(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd, err;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* it would wait while the backlog is full */
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && fcntl(fd, F_SETFL, O_RDWR) == 0)
        return fd;
    err = -errno;
    close(fd);
    return err;
}

int target_connect(struct target *target, int timeout_ms)
{
    int fd;

    /* A predecessor that ends with its client has to be gone before the next listens at its path. */
    if (target->once && target->pid > 0 && target->served) {
        if (wait_end(target, timeout_ms) != 0)
            kill(target->pid, SIGKILL);
        waitpid(target->pid, &target->status, 0);
        target->pid = -1;
    }
    fd = target_start(target);
    if (fd < 0)
        return fd;
    /* To start may take longer than an answer does. */
    if (target->pid > 0 && !target->served && timeout_ms < START_MS)
        timeout_ms = START_MS;
    /* Nothing tells when somebody else's program begins to listen. */
    for (int waited = 0;; waited++) {
        fd = connect_once(target->path);
        target->served |= fd >= 0;
        if ((fd != -ENOENT && fd != -ECONNREFUSED && fd != -EAGAIN) || waited >= timeout_ms || target_died(target))
            return fd;
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

void target_stop(struct target *target)
{
    if (target->pid <= 0)
        return;
    kill(target->pid, SIGTERM);
    if (wait_end(target, 5000) != 0)
        kill(target->pid, SIGKILL);
    waitpid(target->pid, &target->status, 0);
    target->pid = -1;
}

void target_free(struct target *target)
{
    target_stop(target);
    if (target->folder != NULL) {
        if (target->path != NULL)
            unlink(target->path);
        rmdir(target->folder);
        free((char *)target->path);
    }
    words_free(target->command);
    free(target->folder);
    *target = (struct target){ .pid = -1 };
}
