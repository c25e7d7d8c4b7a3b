/* A line on a pseudo-terminal.
 *
 * A peer is there while the slave is open. The master reports the last close as a hang-up, for ever, and says nothing
 * at all when the slave is opened again; so the master is watched only while there is a peer, and for the next one
 * inotify watches the slave's file in devpts. No timer, and no loop that turns on a hang-up. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "char/line.h"

#define DEVPTS "/dev/pts/"

/* Input that is left of a peer that came and went counts: it is read before the hang-up is seen. */
static void pty_check(struct ob_char *line)
{
    struct pollfd fd = { .fd = line->pty.master, .events = POLLIN };

    if (line->fd >= 0 || poll(&fd, 1, 0) < 0)
        return;
    if ((fd.revents & POLLIN) || !(fd.revents & (POLLHUP | POLLERR)))
        ob_line_attach(line, line->pty.master);
}

static void pty_opened(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    char buf[512] __attribute__((aligned(__alignof__(struct inotify_event))));

    while (read(fd, buf, sizeof(buf)) > 0)
        ;
    pty_check(ctx);
}

/* The slave was possibly opened again between the hang-up and now: then its event may already be used up. */
static void pty_lost(struct ob_char *line, int fd)
{
    pty_check(line);
}

/* Puts a link at path, in one step, if there is none or one to another pseudo-terminal (of a process that died). */
static int pty_link(struct ob_char *line, const char *path)
{
    char old[sizeof(DEVPTS)] = "", *temporary;
    struct stat st;
    int err = 0;

    if (lstat(path, &st) == 0 &&
        (readlink(path, old, sizeof(old) - 1) < 0 || strncmp(old, DEVPTS, sizeof(DEVPTS) - 1) != 0)) {
        ob_log(line->dev, "path %s exists and is no link to a pseudo-terminal: remove it or give another path", path);
        return -EEXIST;
    }
    if (asprintf(&temporary, "%s.%d", path, (int)getpid()) < 0)
        return -ENOMEM;
    line->pty.link = strdup(path);
    if (!line->pty.link)
        err = -ENOMEM;
    else if (symlink(line->pty.slave, temporary) < 0)
        err = -errno;
    else if (rename(temporary, path) < 0) {
        err = -errno;
        unlink(temporary);
    }
    free(temporary);
    if (err < 0)
        ob_log(line->dev, "cannot make the link %s: %s", path, strerror(-err));
    return err;
}

/* Raw from the first byte, and hung up, as the slave is after its last close. */
static int pty_prepare(struct ob_line_pty *pty)
{
    struct termios raw;
    int slave, err = 0;

    pty->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (pty->master < 0 || grantpt(pty->master) < 0 || unlockpt(pty->master) < 0)
        return -errno;
    err = ptsname_r(pty->master, pty->slave, sizeof(pty->slave));
    if (err)
        return -err;
    slave = ioctl(pty->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || tcgetattr(slave, &raw) < 0)
        err = -errno;
    if (!err) {
        cfmakeraw(&raw);
        if (tcsetattr(slave, TCSANOW, &raw) < 0 || fchmod(slave, 0600) < 0)
            err = -errno;
    }
    if (slave >= 0)
        close(slave);
    if (err)
        return err;
    pty->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (pty->watch < 0)
        return -errno;
    if (inotify_add_watch(pty->watch, pty->slave, IN_OPEN) < 0) {
        err = -errno;
        close(pty->watch);
        pty->watch = -1;
    }
    return err;
}

static int pty_open(struct ob_char *line, const char *path)
{
    struct ob_line_pty *pty = &line->pty;

    pty->master = pty->watch = -1;
    int err = pty_prepare(pty);

    if (err < 0) {
        ob_log(line->dev, "cannot make a pseudo-terminal: %s (is devpts mounted, and inotify within its limits?)",
               strerror(-err));
        return err;
    }
    err = ob_line_watch(line, pty->watch, EPOLLIN, pty_opened);
    if (err < 0) {
        close(pty->watch);
        pty->watch = -1;
        return err;
    }
    if (path && (err = pty_link(line, path)) < 0)
        return err;
    ob_log(line->dev, "the line is %s%s%s", pty->slave, path ? ", also " : "", path ? path : "");
    pty_check(line);
    return 0;
}

/* A link that somebody has turned elsewhere is not ours any more. */
static void pty_close(struct ob_char *line)
{
    struct ob_line_pty *pty = &line->pty;
    char target[sizeof(pty->slave)];

    if (pty->link) {
        ssize_t n = readlink(pty->link, target, sizeof(target));

        if (n == (ssize_t)strlen(pty->slave) && memcmp(target, pty->slave, (size_t)n) == 0)
            unlink(pty->link);
        free(pty->link);
    }
    if (pty->watch >= 0) {
        ob_line_watch(line, pty->watch, 0, NULL);
        close(pty->watch);
    }
    if (pty->master >= 0)
        close(pty->master);
}

const struct ob_line_backend ob_line_pty = { .open = pty_open, .lost = pty_lost, .close = pty_close };
