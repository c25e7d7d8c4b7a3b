/* Server programs of the client's own: started with a socket, ended with the client. */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "transport/listener.h"

#define FOLDER_TEMPLATE "outboard-XXXXXX"
#define END_MS          1000 /* from SIGTERM to SIGKILL */
#define CONNECT_MS      10000
#define RETRY_MS        2 /* from a socket's bind() to its listen(), which nothing announces */

struct spawn {
    char **argv;
    int inherit, ours; /* the program's end of the socket pair and ours; -1: none */
    char folder[64], path[80];
    pid_t pid;
    int pidfd;
};

/* --- Arguments --------------------------------------------------------------------------------------------------- */

/* The argument with every `word` replaced. */
static char *replaced(const char *arg, const char *word, const char *with)
{
    size_t size = strlen(arg) + 1, at = 0;
    char *text;

    for (const char *p = strstr(arg, word); p; p = strstr(p + 1, word))
        size += strlen(with);
    text = malloc(size);
    while (text && *arg) {
        if (strncmp(arg, word, strlen(word)) == 0) {
            memcpy(text + at, with, strlen(with));
            at += strlen(with);
            arg += strlen(word);
        } else {
            text[at++] = *arg++;
        }
    }
    if (text)
        text[at] = '\0';
    return text;
}

static bool mentions(char *const argv[], const char *word)
{
    for (; *argv; argv++) {
        if (strstr(*argv, word))
            return true;
    }
    return false;
}

static void free_arguments(struct spawn *spawn)
{
    for (char **arg = spawn->argv; arg && *arg; arg++)
        free(*arg);
    free(spawn->argv);
}

static int make_arguments(struct spawn *spawn, char *const argv[], bool by_path)
{
    size_t n = 0, count = 0;
    char number[16], last[24];
    bool add = !by_path && !mentions(argv, "{fd}");

    while (argv[n])
        n++;
    spawn->argv = calloc(n + 2, sizeof(*spawn->argv));
    if (!spawn->argv)
        return -ENOMEM;
    snprintf(number, sizeof(number), "%d", spawn->inherit);
    snprintf(last, sizeof(last), "--fd=%d", spawn->inherit);
    for (; count < n; count++) {
        spawn->argv[count] = replaced(argv[count], by_path ? "{socket}" : "{fd}", by_path ? spawn->path : number);
        if (!spawn->argv[count])
            return -ENOMEM;
    }
    if (add) {
        spawn->argv[count] = strdup(last);
        if (!spawn->argv[count])
            return -ENOMEM;
    }
    return 0;
}

/* --- The program ------------------------------------------------------------------------------------------------- */

static void remove_folder(struct spawn *spawn)
{
    if (!spawn->folder[0])
        return;
    unlink(spawn->path);
    rmdir(spawn->folder);
    spawn->folder[0] = '\0';
}

static int make_folder(struct spawn *spawn)
{
    const char *base = getenv("TMPDIR");
    int n = snprintf(spawn->folder, sizeof(spawn->folder), "%s/%s", base && *base ? base : "/tmp", FOLDER_TEMPLATE);

    if (n >= (int)sizeof(spawn->folder))
        snprintf(spawn->folder, sizeof(spawn->folder), "/tmp/%s", FOLDER_TEMPLATE);
    if (!mkdtemp(spawn->folder)) {
        spawn->folder[0] = '\0';
        return -errno;
    }
    snprintf(spawn->path, sizeof(spawn->path), "%s/socket", spawn->folder);
    return 0;
}

/* In the child: nothing that takes a lock, the parent may have had threads. */
static void run_child(const struct spawn *spawn, pid_t parent, int report)
{
    sigset_t none;
    int err;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent &&
        (spawn->inherit < 0 || fcntl(spawn->inherit, F_SETFD, 0) == 0))
        execvp(spawn->argv[0], spawn->argv);
    err = errno;
    if (write(report, &err, sizeof(err)) < 0)
        _exit(126);
    _exit(127);
}

/* Starts the program: it runs, or why not. */
static int start_program(struct spawn *spawn)
{
    pid_t parent = getpid();
    int report[2], failure = 0;
    ssize_t got;

    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    spawn->pid = fork();
    if (spawn->pid == 0)
        run_child(spawn, parent, report[1]);
    if (spawn->pid < 0)
        failure = errno;
    close(report[1]);
    /* It ends when the program has begun. */
    do {
        got = read(report[0], &failure, sizeof(failure));
    } while (got < 0 && errno == EINTR);
    close(report[0]);
    if (failure) {
        if (spawn->pid > 0)
            waitpid(spawn->pid, NULL, 0);
        return -failure;
    }
    spawn->pidfd = pidfd_open(spawn->pid, 0);
    return spawn->pidfd < 0 ? -errno : 0;
}

static int wait_end(int pidfd, int ms)
{
    struct pollfd poll_fd = { pidfd, POLLIN, 0 };
    int n;

    do {
        n = poll(&poll_fd, 1, ms);
    } while (n < 0 && errno == EINTR);
    return n;
}

static void end_program(pid_t pid, int pidfd)
{
    if (pidfd < 0 || pid <= 0)
        return;
    pidfd_send_signal(pidfd, SIGTERM, NULL, 0);
    if (wait_end(pidfd, END_MS) == 0)
        pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    close(pidfd);
}

void ob_spawn_end(struct ob_client *client)
{
    end_program(client->pid, client->pidfd);
}

/* --- Connecting -------------------------------------------------------------------------------------------------- */

/* Waits for the socket file, then for the listen() behind it. */
static int connect_to(const struct spawn *spawn, int folder_events, int timeout_ms)
{
    uint64_t deadline = ob_client_clock() + (uint64_t)timeout_ms * 1000000u;
    char events[512];

    for (;;) {
        int fd = ob_connect(spawn->path);
        struct pollfd fds[] = { { spawn->pidfd, POLLIN, 0 }, { folder_events, POLLIN, 0 } };
        uint64_t now = ob_client_clock();
        int wait = now < deadline ? (int)((deadline - now) / 1000000u) + 1 : 0;

        if (fd >= 0 || (fd != -ENOENT && fd != -ECONNREFUSED && fd != -EAGAIN))
            return fd;
        if (wait == 0)
            return -ETIMEDOUT;
        if (fd != -ENOENT && wait > RETRY_MS)
            wait = RETRY_MS;
        if (poll(fds, 2, wait) > 0 && (fds[0].revents & POLLIN))
            return -ECHILD;
        if ((fds[1].revents & POLLIN) && read(folder_events, events, sizeof(events)) < 0 && errno != EAGAIN)
            return -errno;
    }
}

static int connect_by_path(struct spawn *spawn, int timeout_ms)
{
    int events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), fd;

    if (events < 0)
        return -errno;
    if (inotify_add_watch(events, spawn->folder, IN_CREATE | IN_MOVED_TO) < 0)
        fd = -errno;
    else
        fd = connect_to(spawn, events, timeout_ms);
    close(events);
    return fd;
}

/* How the program ended, if it did, for the line that says why there is no client. */
static void tell_end(const struct spawn *spawn, const char *name, char *why, size_t why_size)
{
    siginfo_t info = { 0 };

    if (wait_end(spawn->pidfd, 100) <= 0 || waitid(P_PIDFD, (id_t)spawn->pidfd, &info, WEXITED | WNOWAIT) < 0)
        return;
    ob_client_fail(0, why, why_size,
                   info.si_code == CLD_EXITED ? "%s ended with status %d" : "%s was ended by signal %d", name,
                   info.si_status);
}

static int make_sockets(struct spawn *spawn, bool by_path)
{
    int pair[2];

    if (by_path)
        return make_folder(spawn);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    spawn->ours = pair[0];
    spawn->inherit = pair[1];
    return 0;
}

/* Everything up to a connected socket in spawn->ours. */
static int bring_up(struct spawn *spawn, char *const argv[], bool by_path, int timeout_ms, char *why, size_t why_size)
{
    int err = make_sockets(spawn, by_path);

    if (!err)
        err = make_arguments(spawn, argv, by_path);
    if (!err)
        err = start_program(spawn);
    if (err)
        return ob_client_fail(err, why, why_size, "cannot start %s: %s", argv[0], strerror(-err));
    if (!by_path) {
        close(spawn->inherit);
        spawn->inherit = -1;
        return 0;
    }
    spawn->ours = connect_by_path(spawn, timeout_ms);
    remove_folder(spawn);
    if (spawn->ours >= 0)
        return 0;
    err = spawn->ours;
    ob_client_fail(err, why, why_size, "%s does not listen at the socket it was given: %s", argv[0], strerror(-err));
    return err;
}

int ob_client_spawn(char *const argv[], const struct ob_client_options *options, struct ob_client **client, char *why,
                    size_t why_size)
{
    struct spawn spawn = { .inherit = -1, .ours = -1, .pid = -1, .pidfd = -1 };
    bool by_path = argv[0] && mentions(argv, "{socket}");
    int timeout_ms = options && options->timeout_ms > 0 ? options->timeout_ms : CONNECT_MS;
    int err;

    if (!argv[0])
        return ob_client_fail(-EINVAL, why, why_size, "no program to start");
    err = bring_up(&spawn, argv, by_path, timeout_ms, why, why_size);
    if (!err)
        err = ob_client_start(spawn.ours, options, client, why, why_size);
    free_arguments(&spawn);
    if (!err) {
        (*client)->pid = spawn.pid;
        (*client)->pidfd = spawn.pidfd;
        return 0;
    }
    remove_folder(&spawn);
    if (spawn.pidfd >= 0)
        tell_end(&spawn, argv[0], why, why_size);
    if (spawn.ours >= 0)
        close(spawn.ours);
    if (spawn.inherit >= 0)
        close(spawn.inherit);
    end_program(spawn.pid, spawn.pidfd);
    return err;
}
