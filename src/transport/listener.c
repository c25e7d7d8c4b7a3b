/* Makes, takes over and closes listening sockets, and lets peers in; listener.h has the theory. */
#include "transport/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A path has to leave room for its end: not every program copes with the 108th byte. */
#define MAX_PATH (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

/* How long another program may hold the lock on a folder: it takes it for some microseconds. */
#define LOCK_TRIES 200
static const struct timespec lock_pause = { .tv_nsec = 10 * 1000 * 1000 };

__attribute__((format(printf, 4, 5))) static int fail(int error, char *why, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, size, format, args);
    va_end(args);
    return -error;
}

static int set_address(struct sockaddr_un *address, const char *path)
{
    size_t len = strlen(path);

    if (len == 0)
        return -EINVAL;
    if (len > MAX_PATH)
        return -ENAMETOOLONG;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, len);
    return 0;
}

static int connect_to(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error;

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return fd;
    error = errno;
    close(fd);
    return -error;
}

int ob_connect(const char *path)
{
    struct sockaddr_un address;
    int error = set_address(&address, path);

    return error ? error : connect_to(&address);
}

/* Opens the folder of a path, and finds the name in it. */
static int open_folder(const char *path, struct ob_listener *listener, char *why, size_t size)
{
    char folder[MAX_PATH + 1] = ".";
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;

    if (*name == '\0')
        return fail(EINVAL, why, size, "%s names a folder: add the socket's name", path);
    snprintf(listener->name, sizeof(listener->name), "%s", name);
    if (slash)
        snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    listener->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (listener->folder >= 0)
        return 0;
    return fail(errno, why, size, "folder %s: %s: %s", folder, strerror(errno),
                errno == ENOENT ? "create it first" : "choose a folder that you can list and write to");
}

/* Keeps other starters out of the folder. Anybody who can list it can lock it, so the wait has an end. */
static int lock_folder(int folder, const char *path, char *why, size_t size)
{
    for (int tries = 0; flock(folder, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return fail(errno, why, size, "cannot lock the folder of %s: %s: use one on a local file system", path,
                        strerror(errno));
        if (tries == LOCK_TRIES)
            return fail(EBUSY, why, size, "another program keeps the folder of %s locked: use a folder of your own",
                        path);
        nanosleep(&lock_pause, NULL);
    }
    return 0;
}

/* Removes what a dead program left at the path. Only programs that do not lock the folder can come between the probe
 * and the removal. */
static int remove_leftover(const struct ob_listener *listener, const struct sockaddr_un *address, char *why,
                           size_t size)
{
    const char *path = address->sun_path;
    struct stat file;
    int fd;

    if (fstatat(listener->folder, listener->name, &file, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail(errno, why, size, "cannot look at %s: %s", path, strerror(errno));
    if (!S_ISSOCK(file.st_mode))
        return fail(EEXIST, why, size, "%s exists and is not a socket: remove it or choose another path", path);
    fd = connect_to(address);
    if (fd >= 0)
        close(fd);
    /* EAGAIN: its backlog is full. EPROTOTYPE: it is not a stream socket, but it is bound. */
    if (fd >= 0 || fd == -EAGAIN || fd == -EPROTOTYPE)
        return fail(EADDRINUSE, why, size, "another program listens at %s: stop it or choose another path", path);
    if (fd != -ECONNREFUSED && fd != -ENOENT)
        return fail(-fd, why, size, "cannot tell whether a program listens at %s: %s: choose another path", path,
                    strerror(-fd));
    if (unlinkat(listener->folder, listener->name, 0) < 0 && errno != ENOENT)
        return fail(errno, why, size, "cannot remove the leftover socket %s: %s: remove it or choose another path",
                    path, strerror(errno));
    return 0;
}

/* Gives the new socket file the owner and mode asked for, while nobody can connect. */
static int set_access(struct ob_listener *listener, const struct ob_listen_options *options, const char *path,
                      char *why, size_t size)
{
    if ((options->owner != (uid_t)-1 || options->group != (gid_t)-1) &&
        fchownat(listener->folder, listener->name, options->owner, options->group, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(errno, why, size, "cannot give %s to user %d and group %d: %s: start as root, or leave the owner",
                    path, (int)options->owner, (int)options->group, strerror(errno));
    if (fchmodat(listener->folder, listener->name, options->mode, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(errno, why, size, "cannot give %s the mode %03o: %s: use a file system with permissions", path,
                    (unsigned)options->mode, strerror(errno));
    return 0;
}

/* Binds the socket to its path and listens; the folder is locked. */
static int bind_and_listen(struct ob_listener *listener, const struct sockaddr_un *address,
                           const struct ob_listen_options *options, char *why, size_t size)
{
    const char *path = address->sun_path;
    struct stat file;
    int error = remove_leftover(listener, address, why, size);

    if (error)
        return error;
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        return fail(errno, why, size, "cannot make a socket for %s: %s", path, strerror(errno));
    if (fchmod(listener->fd, options->mode & S_IRWXU) < 0 ||
        bind(listener->fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return fail(errno, why, size, "cannot make the socket %s: %s: choose a folder that you can write to", path,
                    strerror(errno));
    if (fstatat(listener->folder, listener->name, &file, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(errno, why, size, "%s went away while it was made: %s: start again", path, strerror(errno));
    listener->dev = file.st_dev;
    listener->inode = file.st_ino;
    error = set_access(listener, options, path, why, size);
    if (error)
        return error;
    if (listen(listener->fd, options->backlog) < 0)
        return fail(errno, why, size, "cannot listen at %s: %s", path, strerror(errno));
    return 0;
}

/* Removes the socket file, once, if it is still the one that we made. */
static void remove_own_file(struct ob_listener *listener)
{
    struct stat file;

    if (listener->inode != 0 && fstatat(listener->folder, listener->name, &file, AT_SYMLINK_NOFOLLOW) == 0 &&
        file.st_dev == listener->dev && file.st_ino == listener->inode)
        unlinkat(listener->folder, listener->name, 0);
    listener->inode = 0;
}

int ob_listen(const char *path, const struct ob_listen_options *options, struct ob_listener *listener, char *why,
              size_t why_size)
{
    struct sockaddr_un address;
    int error = set_address(&address, path);

    *listener = (struct ob_listener){ .fd = -1, .folder = -1, .owner = options->owner, .group = options->group };
    if (error == -ENAMETOOLONG)
        return fail(ENAMETOOLONG, why, why_size,
                    "a socket's path has at most %zu bytes and this one has %zu: use a folder with a shorter name: %s",
                    MAX_PATH, strlen(path), path);
    if (error)
        return fail(EINVAL, why, why_size, "the socket's path is empty: give it one");
    if ((options->mode & ~(mode_t)0777) != 0 || options->backlog <= 0)
        return fail(EINVAL, why, why_size, "%s: mode %o has to be 0 to 0777 and backlog %d above 0", path,
                    (unsigned)options->mode, options->backlog);
    error = open_folder(path, listener, why, why_size);
    if (error)
        return error;
    error = lock_folder(listener->folder, path, why, why_size);
    if (!error)
        error = bind_and_listen(listener, &address, options, why, why_size);
    if (error)
        remove_own_file(listener);
    /* Not left to close(): a child just forked may hold the folder open. */
    flock(listener->folder, LOCK_UN);
    if (error)
        ob_listener_close(listener);
    return error;
}

/* Reads a socket option that is an int. */
static int int_option(int fd, int option)
{
    int value;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -errno : value;
}

static int set_flags(int fd, bool nonblocking, char *why, size_t size)
{
    int flags = nonblocking ? fcntl(fd, F_GETFL) : 0;

    if (flags < 0 || (nonblocking && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return fail(errno, why, size, "cannot set up descriptor %d: %s", fd, strerror(errno));
    return 0;
}

int ob_listener_adopt(int fd, const struct ob_listen_options *options, struct ob_listener *listener, char *why,
                      size_t why_size)
{
    struct sockaddr_storage peer;
    socklen_t peer_size = sizeof(peer);
    int domain = int_option(fd, SO_DOMAIN);
    int error;

    if (domain < 0)
        return fail(-domain, why, why_size, "descriptor %d: %s: pass a socket that is open", fd, strerror(-domain));
    if (domain != AF_UNIX || int_option(fd, SO_TYPE) != SOCK_STREAM)
        return fail(EPROTONOSUPPORT, why, why_size, "descriptor %d is another kind of socket: pass an AF_UNIX stream",
                    fd);
    if (int_option(fd, SO_ACCEPTCONN) > 0) {
        error = set_flags(fd, true, why, why_size);
        if (error)
            return error;
        *listener = (struct ob_listener){ .fd = fd, .folder = -1, .owner = options->owner, .group = options->group };
        return OB_ADOPTED_LISTENER;
    }
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_size) < 0)
        return fail(errno, why, why_size, "descriptor %d: %s: pass a socket that listens or is connected", fd,
                    strerror(errno));
    error = set_flags(fd, false, why, why_size);
    return error ? error : OB_ADOPTED_CONNECTION;
}

/* Whether the peer of a connection has `group` among its supplementary groups. */
static bool peer_has_group(int fd, gid_t group)
{
    socklen_t size = 0;
    gid_t *groups;
    bool found = false;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE)
        return false; /* none, or not to be known */
    groups = malloc(size);
    if (groups && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0) {
        for (size_t i = 0; i < size / sizeof(*groups) && !found; i++)
            found = groups[i] == group;
    }
    free(groups);
    return found;
}

static bool may_enter(const struct ob_listener *listener, int fd, const struct ucred *peer)
{
    if (peer->uid == 0 || peer->uid == geteuid())
        return true;
    if (listener->owner != (uid_t)-1 && peer->uid == listener->owner)
        return true;
    return listener->group != (gid_t)-1 && (peer->gid == listener->group || peer_has_group(fd, listener->group));
}

int ob_accept(struct ob_listener *listener, char *why, size_t why_size)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int error;

    if (fd < 0)
        return fail(errno, why, why_size, "cannot accept a connection: %s%s", strerror(errno),
                    errno == EMFILE ? ": raise the limit on open files" : "");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        error = fail(errno, why, why_size, "cannot tell who connects: %s", strerror(errno));
    else if (may_enter(listener, fd, &peer))
        return fd;
    else
        error = fail(EPERM, why, why_size, "turned away process %d of user %u: set the socket's owner or group for it",
                     (int)peer.pid, (unsigned)peer.uid);
    close(fd);
    return error;
}

void ob_listener_close(struct ob_listener *listener)
{
    /* The file goes before the socket does: as long as it is listened on, no other program takes it for a leftover. */
    remove_own_file(listener);
    if (listener->folder >= 0)
        close(listener->folder);
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = listener->folder = -1;
}
