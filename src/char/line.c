/* A serial line's common part: the stream of the peer there is, and what the device wants of it. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "char/line.h"

int ob_line_watch(struct ob_char *line, int fd, uint32_t events, ob_ready_fn *ready)
{
    int err = ob_worker_fd(ob_control(line->dev), fd, events, ready, line);

    if (err < 0)
        ob_log(line->dev, "cannot watch a descriptor of the line: %s", strerror(-err));
    return err;
}

static void line_lost(struct ob_char *line)
{
    int fd = line->fd;

    if (!line->parked)
        ob_line_watch(line, fd, 0, NULL);
    line->fd = -1;
    line->ended = line->parked = false;
    line->ops->presence(line->ctx, false);
    line->backend->lost(line, fd);
}

static void line_ready(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct ob_char *line = ctx;

    if (line->want_read && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        line->ops->readable(line->ctx);
    if (line->ended) {
        line_lost(line);
        return;
    }
    if (line->want_write && (events & EPOLLOUT))
        line->ops->writable(line->ctx);
    if ((events & (EPOLLHUP | EPOLLERR)) && !line->want_read) {
        line->parked = true;
        ob_line_watch(line, fd, 0, NULL);
        if (line->want_write)
            line->ops->writable(line->ctx);
    }
}

/* EPOLLHUP is reported whether asked for or not; it stands for "no events", which would end the watch. */
static int line_update(struct ob_char *line)
{
    uint32_t events = EPOLLHUP | (line->want_read ? EPOLLIN : 0u) | (line->want_write ? EPOLLOUT : 0u);

    return ob_line_watch(line, line->fd, events, line_ready);
}

int ob_line_attach(struct ob_char *line, int fd)
{
    line->fd = fd;
    int err = line_update(line);

    if (err < 0)
        line->fd = -1;
    else if (line->opened)
        line->ops->presence(line->ctx, true);
    return err;
}

int ob_char_open(struct ob_dev *dev, const struct ob_char_ops *ops, void *ctx, struct ob_char **out)
{
    struct ob_char *line = calloc(1, sizeof(*line));

    if (!line) {
        ob_log(dev, "no memory for the line");
        return -ENOMEM;
    }
    line->dev = dev;
    line->ops = ops;
    line->ctx = ctx;
    line->fd = -1;
    line->backend = strcmp(ob_option_string(dev, "backend"), "unix") ? &ob_line_pty : &ob_line_unix;
    int err = line->backend->open(line, ob_option_string(dev, "path"));

    if (err < 0) {
        ob_char_close(line);
        return err;
    }
    line->opened = true;
    *out = line;
    return 0;
}

void ob_char_close(struct ob_char *line)
{
    if (!line)
        return;
    if (line->fd >= 0 && !line->parked)
        ob_line_watch(line, line->fd, 0, NULL);
    line->backend->close(line);
    free(line);
}

bool ob_char_present(const struct ob_char *line)
{
    return line->fd >= 0;
}

void ob_char_want(struct ob_char *line, bool read, bool write)
{
    bool changed = line->want_read != read || line->want_write != write;

    line->want_read = read;
    line->want_write = write;
    if (line->fd < 0 || !changed || (line->parked && !read))
        return;
    line->parked = false;
    line_update(line);
}

/* EIO is how the master of a pseudo-terminal finds that nobody has the other side open any more. */
int ob_char_read(struct ob_char *line, void *buf, size_t len)
{
    ssize_t n;

    if (line->fd < 0 || line->ended)
        return -EAGAIN;
    if (len > INT_MAX)
        len = INT_MAX;
    do
        n = read(line->fd, buf, len);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return (int)n;
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        line->ended = true;
    return -EAGAIN;
}

/* Any other failure means that the peer is gone: the control loop will find that by itself. */
int ob_char_write(struct ob_char *line, const void *buf, size_t len)
{
    ssize_t n;

    if (len > INT_MAX)
        len = INT_MAX;
    if (line->fd < 0 || line->parked)
        return (int)len;
    do
        n = line->backend == &ob_line_unix ? send(line->fd, buf, len, MSG_NOSIGNAL) : write(line->fd, buf, len);
    while (n < 0 && errno == EINTR);
    if (n > 0 || len == 0)
        return (int)n;
    if (n == 0 || errno == EAGAIN || errno == EWOULDBLOCK)
        return -EAGAIN;
    return (int)len;
}
