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
    again->needs_session = target->needs_session;
    return err;
}

/* Starts it if it is not running. 0 or -errno. */
static int start(struct target *target)
{
    if (target->command == NULL || target->pid > 0)
        return 0;
    unlink(target->path);
    target->served = false;
    target->session = false;
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

static bool ends_with_client(const struct target *target)
{
    return target->served && (target->once || (target->needs_session && !target->session));
}

/* One that ends with its client does so with whatever status, unless the client was still there. */
static bool may_end(const struct target *target, int status)
{
    return ends_with_client(target) && WIFEXITED(status) && (!target->broke_off || WEXITSTATUS(status) == 0);
}

/* Takes the status of a process that has ended; false: it has not. */
static bool reap(struct target *target, int options)
{
    int status;

    if (target->command == NULL || target->pid <= 0 || waitpid(target->pid, &status, options) != target->pid)
        return false;
    target->pid = -1;
    if (!target->died && !may_end(target, status)) {
        target->died = true;
        target->status = status;
    }
    return true;
}

bool target_died(struct target *target)
{
    reap(target, WNOHANG);
    return target->died;
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

int target_leave(struct target *target, int timeout_ms)
{
    if (target->pid <= 0 || !ends_with_client(target))
        return 0;
    if (wait_end(target, timeout_ms) == 0) {
        reap(target, 0);
        return 0;
    }
    target_stop(target);
    return -ETIMEDOUT;
}

int target_connect(struct target *target, int timeout_ms)
{
    int fd = start(target);

    if (fd < 0)
        return fd;
    /* To start may take longer than an answer does. */
    if (target->pid > 0 && !target->served && timeout_ms < START_MS)
        timeout_ms = START_MS;
    /* Nothing tells when somebody else's program begins to listen. */
    for (int waited = 0;; waited++) {
        fd = connect_once(target->path);
        target->served |= fd >= 0;
        target->reached |= fd >= 0;
        target->broke_off &= fd < 0;
        if ((fd != -ENOENT && fd != -ECONNREFUSED && fd != -EAGAIN) || waited >= timeout_ms || reap(target, WNOHANG))
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
    waitpid(target->pid, NULL, 0);
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
