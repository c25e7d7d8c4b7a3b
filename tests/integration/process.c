/* process.c: starting, watching and ending server programs. */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORDS 64

static int make_folder(struct ob_process *process)
{
    const char *tmp = getenv("TMPDIR");

    if (tmp == NULL || strlen(tmp) > 24) {
        tmp = "/tmp";
    }
    snprintf(process->folder, sizeof(process->folder), "%s/outboard-XXXXXX", tmp);
    if (mkdtemp(process->folder) == NULL) {
        process->folder[0] = 0;
        return -errno;
    }
    return 0;
}

static void remove_folder(struct ob_process *process)
{
    char path[64];

    if (process->folder[0] != 0) {
        snprintf(path, sizeof(path), "%s/s", process->folder);
        unlink(path);
        rmdir(process->folder);
        process->folder[0] = 0;
    }
}

/* A listening socket that has a name only for us: its file is gone, `path` leads through a descriptor of it. */
static int listen_hidden(struct ob_process *process)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err;

    if (fd < 0) {
        return -errno;
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", process->folder);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 16) != 0 ||
        (process->socket = open(address.sun_path, O_PATH | O_CLOEXEC)) < 0) {
        err = -errno;
        close(fd);
        return err;
    }
    remove_folder(process);
    snprintf(process->path, sizeof(process->path), "/proc/self/fd/%d", process->socket);
    return fd;
}

static int split_words(char *text, char **words, int room)
{
    char *rest = NULL;
    int n = 0;

    for (char *word = strtok_r(text, " ", &rest); word != NULL && n < room; word = strtok_r(NULL, " ", &rest)) {
        words[n++] = word;
    }
    return n;
}

__attribute__((noreturn)) static void run_child(const struct ob_process_options *options, const char *path, int fd,
                                                pid_t parent)
{
    char *command = strdup(options->command), *words[MAX_WORDS + 4], last[80] = "";
    bool placed = false;
    int n;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || command == NULL) {
        _exit(127);
    }
    n = split_words(command, words, MAX_WORDS);
    for (int i = 0; i < n && path != NULL; i++) {
        if (strcmp(words[i], "%s") == 0) {
            words[i] = (char *)(uintptr_t)path;
            placed = true;
        }
    }
    if (fd >= 0) {
        fcntl(fd, F_SETFD, 0);
        snprintf(last, sizeof(last), "--fd=%d", fd);
    } else if (!placed) {
        snprintf(last, sizeof(last), "--socket-path=%s", path);
    }
    if (last[0] != 0) {
        words[n++] = last;
    }
    if (options->extra != NULL) {
        words[n++] = (char *)(uintptr_t)options->extra;
    }
    words[n] = NULL;
    for (unsigned i = 0; i < options->ninherit; i++) {
        fcntl(options->inherit[i], F_SETFD, 0);
    }
    for (const char *const *env = options->env; env != NULL && *env != NULL; env++) {
        putenv((char *)(uintptr_t)*env);
    }
    dup2(STDERR_FILENO, STDOUT_FILENO); /* standard output is for test results */
    execvp(words[0], words);
    fprintf(stderr, "cannot start %s: %s\n", words[0], strerror(errno));
    _exit(127);
}

static int make_sockets(struct ob_process *process, const struct ob_process_options *options)
{
    int pair[2], r;

    switch (options->socket) {
    case OB_PROCESS_CONNECTED:
        if (options->fd > 0) {
            return dup(options->fd);
        }
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
            return -errno;
        }
        process->connected = pair[0];
        return pair[1];
    case OB_PROCESS_LISTENING:
        r = make_folder(process);
        return r < 0 ? r : listen_hidden(process);
    default:
        r = make_folder(process);
        snprintf(process->path, sizeof(process->path), "%s/s", process->folder);
        return r;
    }
}

int ob_process_start(struct ob_process *process, const struct ob_process_options *options)
{
    bool by_path = options->socket == OB_PROCESS_PATH;
    pid_t parent = getpid();
    int fd, err;

    *process = (struct ob_process){ .pidfd = -1, .connected = -1, .socket = -1 };
    fd = make_sockets(process, options);
    if (fd < 0) {
        remove_folder(process);
        return fd;
    }
    fflush(NULL);
    process->pid = fork();
    if (process->pid == 0) {
        run_child(options, by_path ? process->path : NULL, by_path ? -1 : fd, parent);
    }
    err = process->pid < 0 ? -errno : 0;
    if (!by_path) {
        close(fd);
    }
    if (err == 0) {
        process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
        err = process->pidfd < 0 ? -errno : 0;
    }
    if (err != 0) {
        ob_process_stop(process, SIGKILL, 1000);
    }
    return err;
}

static int try_connect(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

    if (fd < 0) {
        return -errno;
    }
    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        return fd;
    }
    err = -errno;
    close(fd);
    return err;
}

int ob_process_connect(struct ob_process *process, int timeout_ms)
{
    int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct pollfd wait[2] = { { .fd = process->pidfd, .events = POLLIN }, { .fd = notify, .events = POLLIN } };
    char events[4096];
    int fd = -ENOENT;

    if (notify < 0) {
        return -errno;
    }
    if (process->folder[0] != 0) {
        inotify_add_watch(notify, process->folder, IN_CREATE | IN_MOVED_TO | IN_ATTRIB);
    }
    for (int waited = 0; waited <= timeout_ms; waited++) {
        int n;

        fd = try_connect(process->path);
        if (fd != -ENOENT && fd != -ECONNREFUSED) {
            break;
        }
        /* There is an event for the file, but none for listen(): a server that listens only after its file is there
         * has to be asked again. */
        n = poll(wait, 2, fd == -ECONNREFUSED ? 1 : timeout_ms);
        if (n < 0 || (n == 0 && fd == -ENOENT) || (wait[0].revents & POLLIN)) {
            break;
        }
        while (read(notify, events, sizeof(events)) > 0) {
        }
    }
    close(notify);
    return fd;
}

bool ob_process_alive(const struct ob_process *process)
{
    struct pollfd pfd = { .fd = process->pidfd, .events = POLLIN };

    return process->pid > 0 && poll(&pfd, 1, 0) == 0;
}

int ob_process_stop(struct ob_process *process, int signal, int timeout_ms)
{
    struct pollfd pfd = { .fd = process->pidfd, .events = POLLIN };
    int status = 0, result = 0;

    if (process->pid > 0) {
        if (signal != 0) {
            kill(process->pid, signal);
        }
        if (poll(&pfd, 1, timeout_ms) != 1) {
            kill(process->pid, SIGKILL);
            result = -ETIMEDOUT;
        }
        waitpid(process->pid, &status, 0);
        if (result == 0) {
            result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        }
    }
    if (process->pidfd >= 0) {
        close(process->pidfd);
    }
    if (process->socket >= 0) {
        close(process->socket);
    }
    remove_folder(process);
    process->pid = 0;
    process->pidfd = process->socket = -1;
    return result;
}
