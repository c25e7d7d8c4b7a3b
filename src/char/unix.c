/* A line on a Unix stream socket: listening, with one peer after the other, or connecting again and again.
 *
 * The listener is watched only while there is no peer; who comes meanwhile waits in its backlog. The timer is for what
 * has to be tried again later: to connect, or to accept when the process or the system is out of descriptors, which a
 * level-triggered listener would report without end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>
#include "char/line.h"

#define PAUSE_MIN_MS    100u
#define PAUSE_MAX_MS    5000u
#define PAUSE_ACCEPT_MS 1000u
#define BACKLOG         8

/* The address of a path of any length: one too long for sun_path is reached through its folder, held open in *folder
 * (else -1) until the address was used. -ENAMETOOLONG: the last part alone is too long. */
static int unix_address(const char *path, struct sockaddr_un *address, int *folder)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int n;

    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    *folder = -1;
    if (strlen(path) < sizeof(address->sun_path)) {
        strcpy(address->sun_path, path);
        return 0;
    }
    char *parent = slash ? strndup(path, (size_t)(name - path)) : strdup(".");

    if (!parent)
        return -ENOMEM;
    *folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int err = *folder < 0 ? -errno : 0;

    free(parent);
    if (err < 0)
        return err;
    n = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", *folder, name);
    if (n < (int)sizeof(address->sun_path))
        return 0;
    close(*folder);
    *folder = -1;
    return -ENAMETOOLONG;
}

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd < 0 ? -errno : fd;
}

/* A connected socket, or -errno. */
static int unix_dial(const char *path)
{
    struct sockaddr_un address;
    int folder, err = unix_address(path, &address, &folder), fd;

    if (err < 0)
        return err;
    fd = unix_socket();
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        err = -errno;
        close(fd);
        fd = err;
    }
    if (folder >= 0)
        close(folder);
    return fd;
}

/* What is in the way of bind(): removes a socket that nobody listens on, else says why not. */
static int unix_clear(struct ob_char *line, const char *path)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode)) {
        ob_log(line->dev, "path %s exists and is no socket: remove it or give another path", path);
        return -EEXIST;
    }
    int fd = unix_dial(path);

    if (fd == -ECONNREFUSED)
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    if (fd < 0 && fd != -EAGAIN) /* EAGAIN: a full backlog, so somebody is there */
        return fd;
    if (fd >= 0)
        close(fd);
    ob_log(line->dev, "path %s is the socket of a live process: stop it or give another path", path);
    return -EADDRINUSE;
}

/* The mode is given to the socket before its file exists, so there is no instant at which it is wider. */
static int unix_bind(struct ob_char *line, const char *path)
{
    struct sockaddr_un address;
    struct stat st;
    int folder, err = unix_clear(line, path);

    if (err < 0)
        return err;
    err = unix_address(path, &address, &folder);
    if (err < 0)
        return err;
    if (fchmod(line->un.listener, 0600) < 0 ||
        bind(line->un.listener, (struct sockaddr *)&address, sizeof(address)) < 0)
        err = -errno;
    if (folder >= 0)
        close(folder);
    if (err == 0 && lstat(path, &st) == 0) {
        line->un.dev = st.st_dev;
        line->un.ino = st.st_ino;
    }
    if (err == 0 && listen(line->un.listener, BACKLOG) < 0)
        err = -errno;
    return err;
}

static void unix_later(struct ob_char *line, unsigned ms)
{
    struct itimerspec when = { .it_value = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 } };

    if (timerfd_settime(line->un.timer, 0, &when, NULL) < 0)
        ob_log(line->dev, "cannot set a timer: %s", strerror(errno));
}

static void unix_accept(struct ob_worker *worker, int fd, uint32_t events, void *ctx);

/* Peers wanted, or not; when that cannot be had now, later. */
static void unix_listen(struct ob_char *line, bool on)
{
    struct ob_line_unix *un = &line->un;

    if (ob_line_watch(line, un->listener, on ? EPOLLIN : 0, unix_accept) == 0)
        un->watched = on;
    else if (on)
        unix_later(line, PAUSE_ACCEPT_MS);
}

static void unix_accept(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct ob_char *line = ctx;
    int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (peer < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
        return;
    int err = errno;

    unix_listen(line, false);
    if (peer >= 0 && ob_line_attach(line, peer) == 0)
        return;
    if (peer >= 0)
        close(peer);
    else
        ob_log(line->dev, "cannot accept a peer at %s: %s", line->un.path, strerror(err));
    unix_later(line, PAUSE_ACCEPT_MS);
}

/* An outage is logged once. */
static void unix_connect(struct ob_char *line)
{
    struct ob_line_unix *un = &line->un;
    int fd = unix_dial(un->path);

    if (fd >= 0 && ob_line_attach(line, fd) == 0) {
        un->pause_ms = PAUSE_MIN_MS;
        un->logged = false;
        return;
    }
    if (fd >= 0)
        close(fd);
    else if (!un->logged)
        ob_log(line->dev, "cannot connect to %s: %s; trying again", un->path, strerror(-fd));
    un->logged = true;
    unix_later(line, un->pause_ms);
    un->pause_ms = un->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : un->pause_ms * 2;
}

static void unix_timer(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct ob_char *line = ctx;
    uint64_t expired;

    if (read(fd, &expired, sizeof(expired)) != (ssize_t)sizeof(expired))
        return;
    if (!line->un.listen)
        unix_connect(line);
    else
        unix_listen(line, true);
}

static void unix_lost(struct ob_char *line, int fd)
{
    close(fd);
    if (!line->un.listen)
        unix_later(line, line->un.pause_ms);
    else
        unix_listen(line, true);
}

static int unix_prepare(struct ob_char *line, const char *path)
{
    struct ob_line_unix *un = &line->un;
    int err;

    un->path = strdup(path);
    if (!un->path)
        return -ENOMEM;
    un->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (un->timer < 0)
        return -errno;
    err = ob_line_watch(line, un->timer, EPOLLIN, unix_timer);
    if (err < 0) {
        close(un->timer);
        un->timer = -1;
        return err;
    }
    if (!un->listen)
        return 0;
    un->listener = unix_socket();
    return un->listener < 0 ? un->listener : unix_bind(line, path);
}

static int unix_open(struct ob_char *line, const char *path)
{
    struct ob_line_unix *un = &line->un;

    un->listener = un->timer = -1;
    un->pause_ms = PAUSE_MIN_MS;
    un->listen = ob_option_bool(line->dev, "listen");
    if (!path || !*path) {
        ob_log(line->dev, "backend=unix needs path=SOCKET");
        return -EINVAL;
    }
    int err = unix_prepare(line, path);

    if (err < 0) {
        if (err != -EEXIST && err != -EADDRINUSE)
            ob_log(line->dev, "cannot set up the line at %s: %s", path, strerror(-err));
        return err;
    }
    if (un->listen)
        unix_listen(line, true);
    else
        unix_connect(line);
    return 0;
}

static void unix_close(struct ob_char *line)
{
    struct ob_line_unix *un = &line->un;
    struct stat st;

    if (line->fd >= 0)
        close(line->fd);
    if (un->listener >= 0) {
        if (un->watched)
            ob_line_watch(line, un->listener, 0, NULL);
        close(un->listener);
    }
    if (un->ino && lstat(un->path, &st) == 0 && st.st_dev == un->dev && st.st_ino == un->ino)
        unlink(un->path);
    if (un->timer >= 0) {
        ob_line_watch(line, un->timer, 0, NULL);
        close(un->timer);
    }
    free(un->path);
}

const struct ob_line_backend ob_line_unix = { .open = unix_open, .lost = unix_lost, .close = unix_close };
