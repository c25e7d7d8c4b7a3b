/* The twin socket of the client that fuzz bytes make; see peer.h. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peer.h"
#include "protocol/version.h"
#include "session/session.h"
#include "transport/receiver.h"

static const struct ob_limits limits = { OB_SESSION_MAX_DATA, OB_RECEIVER_MAX_FDS };
static uint8_t received[2 * OB_TWIN_MAX_MESSAGE];

bool peer_twin_wanted(const struct ob_message *version)
{
    struct ob_capabilities caps;
    char why[160];

    return ob_version_parse(&caps, version->tail, version->tail_size, why, sizeof(why)) == 0 &&
           caps.twin_socket.supported && caps.max_msg_fds > 0;
}

bool peer_twin_take(struct peer *peer, const uint8_t *bytes, size_t size, int *fds, unsigned nfds)
{
    const size_t text = OB_HEADER_SIZE + sizeof(struct ob_wire_version);
    struct ob_capabilities caps;
    char why[160];

    promise(size > text && ob_version_parse(&caps, bytes + text, size - text, why, sizeof(why)) == 0);
    promise(!peer->twin_given && nfds == caps.twin_socket.supported);
    if (!caps.twin_socket.supported)
        return false;
    promise(caps.twin_socket.fd_index == 0);
    peer->twin = fds[0];
    fds[0] = -1;
    peer->twin_given = peer->twin_clean = true;
    return true;
}

void peer_twin_close(struct peer *peer)
{
    if (peer->twin >= 0)
        close(peer->twin);
    peer->twin = -1;
}

void peer_twin_read(struct peer *peer)
{
    while (peer->twin >= 0 && !peer->twin_unread) {
        ssize_t n = recv(peer->twin, received + peer->twin_have, sizeof(received) - peer->twin_have, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) { /* the connection goes on: there was reason to end this */
            promise(n == 0 || errno == ECONNRESET);
            promise(!peer->twin_clean);
            peer_twin_close(peer);
            return;
        }
        peer->twin_have += (size_t)n;
        size_t at = 0;
        struct ob_header h;
        int size;
        while ((size = ob_frame(received + at, peer->twin_have - at, OB_TWIN_MAX_MESSAGE, &h)) != 0) {
            struct ob_message m;
            promise(size > 0);
            if ((size_t)size > peer->twin_have - at)
                break;
            promise(ob_check_request(&m, received + at, (size_t)size, OB_FROM_SERVER, &limits, 0) == 0);
            peer_note_asked(peer, &m);
            at += (size_t)size;
        }
        peer->twin_have -= at;
        memmove(received, received + at, peer->twin_have);
    }
}

void peer_twin_send(struct peer *peer, const void *bytes, size_t size, int fd, bool clean)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = { 0 };
    int refused = 0;

    peer->twin_clean &= clean;
    for (size_t done = 0; peer->twin >= 0 && done < size && refused < 3;) {
        struct iovec iov = { (uint8_t *)bytes + done, size - done };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        if (fd >= 0 && done == 0) {
            msg.msg_control = control;
            msg.msg_controllen = sizeof(control);
            *CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
            memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
        }
        ssize_t n = sendmsg(peer->twin, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (errno != EAGAIN) { /* the server has ended it, which is seen when it is read */
            promise(!peer->twin_clean);
            return;
        }
        refused++;
        peer_run(peer);
    }
    promise(refused < 3); /* it is always read */
}
