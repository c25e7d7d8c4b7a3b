/* Makes the listening socket at a path, takes over one from a parent, and lets the right peers in.
 *
 * Theory of operation. Programs that start on the same path exclude each other by an flock() on its folder, held from
 * the look at the path to listen(). In that time a socket file that refuses connections is a leftover and is replaced;
 * one that is listened on is left alone, as is anything that is not a socket. Mode and owner are right before listen(),
 * so nobody who may not connect ever can. The file is created for its owner only, by fchmod() on the socket before
 * bind() (unix(7): a new socket file gets the mode of its socket), and not by umask(), which belongs to the whole
 * process. The listener keeps the folder open, and removes its file at the end if the name still is that file: the
 * bound socket keeps the inode alive, so its number cannot have gone to another.
 *
 * A path that does not fit into sun_path is refused, rather than bound by way of /proc/self/fd: QEMU and other
 * clients could not connect to it.
 *
 * A call that takes `why` fills it, when it fails, with one line that names the path or descriptor and the remedy;
 * nothing is logged here. A listener is used by one thread at a time. */
#ifndef OB_TRANSPORT_LISTENER_H
#define OB_TRANSPORT_LISTENER_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* A size for `why` that holds any text given here. */
#define OB_LISTENER_WHY 384

struct ob_listen_options {
    mode_t mode; /* of the socket file: permission bits only, 0600 unless there is a reason */
    uid_t owner; /* of the socket file, and let in by ob_accept(); (uid_t)-1: leave it ours */
    gid_t group; /* likewise; (gid_t)-1: leave it ours */
    int backlog; /* connections that may wait for ob_accept(), above 0 */
};

#define OB_LISTEN_DEFAULTS \
    ((struct ob_listen_options){ .mode = 0600, .owner = (uid_t)-1, .group = (gid_t)-1, .backlog = 8 })

/* `fd` may be polled for reading: a connection waits. The rest is private. */
struct ob_listener {
    int fd;
    int folder; /* of the socket file; -1 when the socket was adopted */
    dev_t dev;  /* the socket file as we made it */
    ino_t inode;
    uid_t owner; /* let in beside root and ourselves, or -1 */
    gid_t group;
    char name[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of the socket file, in its folder */
};

/* Listens at `path`: an AF_UNIX stream socket, non-blocking, close-on-exec. Returns 0, or
 *   -ENAMETOOLONG  the path does not fit into a socket address (107 bytes)
 *   -EADDRINUSE    another program listens there
 *   -EEXIST        something that is not a socket is there (a symbolic link is not followed)
 *   -EBUSY         the folder stays locked
 *   -EINVAL        a path that names no file, a bad mode or backlog
 *   other          what a system call said
 * and then `listener` needs no ob_listener_close(). May wait for up to two seconds for other programs that start in the
 * same folder. */
int ob_listen(const char *path, const struct ob_listen_options *options, struct ob_listener *listener, char *why,
              size_t why_size);

/* What a descriptor turned out to be. */
enum ob_adopted { OB_ADOPTED_CONNECTION, OB_ADOPTED_LISTENER };

/* Takes a descriptor that a parent has left open for us, and makes it close-on-exec. `options` says whom to let in
 * (owner, group); its mode and backlog are not used.
 * Returns OB_ADOPTED_LISTENER: `listener` owns `fd` and has made it non-blocking. Or OB_ADOPTED_CONNECTION: a connected
 * stream socket; it stays the caller's, and `listener` is not touched. Or
 *   -EBADF            not open
 *   -ENOTSOCK         not a socket
 *   -EPROTONOSUPPORT  not an AF_UNIX stream socket
 *   -ENOTCONN         neither listening nor connected
 * and then `fd` stays the caller's, as it was. */
int ob_listener_adopt(int fd, const struct ob_listen_options *options, struct ob_listener *listener, char *why,
                      size_t why_size);

/* Takes the next connection. The peer, as it was when it connected, has to be root, our own effective user, the owner
 * given, or in the group given; another is closed. Returns a descriptor that the caller owns, non-blocking and
 * close-on-exec; or -EPERM for a peer that was turned away, -EAGAIN when no connection waits, -ECONNABORTED, -EINTR,
 * -EMFILE and others as accept(2) says. */
int ob_accept(struct ob_listener *listener, char *why, size_t why_size);

/* Removes the socket file if it is still ours, and closes the socket. Harmless when repeated. */
void ob_listener_close(struct ob_listener *listener);

/* Connects to the socket at `path`, without waiting. Returns a descriptor that the caller owns, non-blocking and
 * close-on-exec; or -EAGAIN when too many others wait there to be accepted, -ECONNREFUSED when nobody listens,
 * -ENAMETOOLONG, -EINVAL for an empty path, and others as connect(2) says. Any thread. */
int ob_connect(const char *path);

#endif
