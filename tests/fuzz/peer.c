/* A client made of fuzz bytes; see peer.h. */
#include "peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol/version.h"
#include "session/session.h"
#include "transport/receiver.h"
#include "world.h"

#define ROUNDS 10000 /* of a server that has nothing new to do, before it counts as spinning */

static const struct ob_limits limits = { OB_SESSION_MAX_DATA, OB_RECEIVER_MAX_FDS };
static uint8_t received[OB_SESSION_MAX_DATA + 65536];
static uint8_t gathered[4 * COMPOSE_MAX];

/* With FUZZ_LOG in the environment, what goes over the wire, for whoever looks at an input. */
static void show(const struct ob_message *m, int wrong, enum ob_direction from)
{
    char line[512];

    if (!getenv("FUZZ_LOG"))
        return;
    if (wrong)
        snprintf(line, sizeof(line), "command=%u size=%u flags=0x%x (malformed)", m->header.command, m->header.size,
                 m->header.flags);
    else
        (void)ob_print_message(line, sizeof(line), m, from);
    fprintf(stderr, "%s fds=%u\n", line, m->nfds);
}

/* --- Connecting -------------------------------------------------------------------------------------------------- */

static void forget(struct peer *peer)
{
    peer->framed = true;
    peer->may_close = false;
    peer->n_pending = peer->n_asked = 0;
    peer->have = peer->corked = peer->twin_have = 0;
    peer->twin_given = peer->twin_unread = false;
}

static void serve(struct peer *peer, int fd)
{
    const struct ob_listen listen = { .fd = fd, .owner = (uid_t)-1, .group = (gid_t)-1 };

    promise(ob_dev_listen(peer->dev, &listen) == 0);
}

void peer_begin(struct peer *peer, struct ob_dev *dev, bool listening)
{
    int both[2];

    *peer = (struct peer){ .dev = dev, .listener = -1, .fd = -1, .twin = -1, .line_listener = -1, .line_fd = -1 };
    forget(peer);
    if (!listening) {
        promise(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
        peer->fd = both[0];
        serve(peer, both[1]);
        return;
    }
    /* A name that the kernel chooses, which is no file. */
    const struct sockaddr_un any = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    promise(bind(fd, (const struct sockaddr *)&any, sizeof(sa_family_t)) == 0 && listen(fd, 4) == 0);
    peer->listener = dup(fd);
    serve(peer, fd);
    peer_connect(peer);
}

void peer_connect(struct peer *peer)
{
    struct sockaddr_un name;
    socklen_t size = sizeof(name);

    if (peer->listener < 0)
        return;
    peer_disconnect(peer);
    promise(getsockname(peer->listener, (struct sockaddr *)&name, &size) == 0);
    peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* It is refused while too many wait. */
    if (connect(peer->fd, (struct sockaddr *)&name, size) < 0) {
        promise(errno == EAGAIN);
        close(peer->fd);
        peer->fd = -1;
    }
}

void peer_disconnect(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
    peer_twin_close(peer);
    forget(peer);
}

/* --- What the server sends --------------------------------------------------------------------------------------- */

static void take_reply(struct peer *peer, const uint8_t *bytes, size_t size, const struct ob_header *h, int *fds,
                       unsigned nfds)
{
    struct ob_message reply;
    bool twin = false;

    if (h->command == OB_VERSION && !(h->flags & OB_FLAG_ERROR))
        twin = peer_twin_take(peer, bytes, size, fds, nfds);
    if (!peer->framed)
        return;
    promise(peer->n_pending > 0);
    const struct ob_header *request = &peer->pending[peer->first];
    const struct ob_message *sent = &peer->sent[peer->first];
    promise(h->id == request->id && h->command == request->command && (h->flags & OB_FLAG_REPLY));
    if (getenv("FUZZ_LOG"))
        fprintf(stderr, "reply command=%u size=%zu flags=0x%x error=%u fds=%u\n", h->command, size, h->flags, h->error,
                nfds);
    if (h->flags & OB_FLAG_ERROR)
        promise(size == OB_HEADER_SIZE && h->error > 0 && h->error < 4096 && nfds == 0);
    else
        promise(sent->header.command && ob_check_reply(&reply, bytes, size, sent, &limits, nfds) == 0 &&
                (h->command != OB_VERSION || twin == peer->wants_twin[peer->first]));
    peer->first = (peer->first + 1) % PEER_PENDING;
    peer->n_pending--;
}

static void take_request(struct peer *peer, const uint8_t *bytes, size_t size, unsigned nfds)
{
    struct ob_message m;

    promise(ob_check_request(&m, bytes, size, OB_FROM_SERVER, &limits, nfds) == 0);
    promise(!peer->twin_given);
    peer_note_asked(peer, &m);
}

void peer_note_asked(struct peer *peer, const struct ob_message *m)
{
    show(m, 0, OB_FROM_SERVER);
    if (peer->n_asked == PEER_ASKED)
        (void)peer_asked(peer);
    struct ob_message *asked = &peer->asked[(peer->first_asked + peer->n_asked++) % PEER_ASKED];
    *asked = *m;
    asked->tail = NULL;
}

const struct ob_message *peer_asked(struct peer *peer)
{
    if (peer->n_asked == 0)
        return NULL;
    const struct ob_message *m = &peer->asked[peer->first_asked];
    peer->first_asked = (peer->first_asked + 1) % PEER_ASKED;
    peer->n_asked--;
    return m;
}

/* A message with a descriptor is the last of its read: the server sends it alone. */
static void take_messages(struct peer *peer, int *fds, unsigned nfds)
{
    size_t at = 0;
    struct ob_header h;

    for (;;) {
        int size = ob_frame(received + at, peer->have - at, sizeof(received), &h);
        promise(size >= 0);
        if (size == 0 || (size_t)size > peer->have - at)
            break;
        bool last = at + (size_t)size == peer->have;
        if ((h.flags & OB_FLAG_TYPE_MASK) == OB_FLAG_REPLY)
            take_reply(peer, received + at, (size_t)size, &h, fds, last ? nfds : 0);
        else
            take_request(peer, received + at, (size_t)size, last ? nfds : 0);
        at += (size_t)size;
        nfds = last ? 0 : nfds;
    }
    promise(nfds == 0 || !peer->framed);
    peer->have -= at;
    memmove(received, received + at, peer->have);
}

#define MAX_PASSED 32

static unsigned take_passed(struct msghdr *msg, int *fds)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
        for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len && n < MAX_PASSED; at += sizeof(int))
            memcpy(&fds[n++], (uint8_t *)c + at, sizeof(int));
    return n;
}

void peer_read(struct peer *peer)
{
    while (peer->fd >= 0) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * MAX_PASSED)];
        int fds[MAX_PASSED];
        struct iovec iov = { received + peer->have, sizeof(received) - peer->have };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
        };
        ssize_t n = recvmsg(peer->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EAGAIN)
            return;
        unsigned nfds = n > 0 ? take_passed(&msg, fds) : 0;
        if (n <= 0) { /* a reset is what unread bytes make of a close */
            promise(n == 0 || errno == ECONNRESET);
            promise(!peer->framed || peer->may_close);
            peer_disconnect(peer);
            return;
        }
        peer->have += (size_t)n;
        take_messages(peer, fds, nfds);
        for (unsigned i = 0; i < nfds; i++)
            if (fds[i] >= 0)
                close(fds[i]);
    }
}

void peer_run(struct peer *peer)
{
    int rounds = 0, n = 0;

    while (!peer->over && (n = ob_server_run(peer->dev, -1)) > 0)
        promise(++rounds < ROUNDS);
    if (n < 0) {
        promise(n == -EPIPE);
        peer->over = true;
    }
    peer_read(peer); /* first: with the connection the twin socket ends, too */
    peer_twin_read(peer);
}

/* --- What the client sends --------------------------------------------------------------------------------------- */

/* Once, some of it. False: the connection takes no more. */
static bool send_once(struct peer *peer, size_t *done, const int *fds, unsigned nfds)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * 32)] = { 0 };
    struct iovec iov = { gathered + *done, peer->corked - *done };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (nfds > 0) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    ssize_t n = sendmsg(peer->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return false;
    *done += (size_t)n;
    return true;
}

/* A server that takes nothing more while it keeps a request gets nothing more: then the connection is given up. */
static void flush(struct peer *peer, const int *fds, unsigned nfds)
{
    size_t done = 0;
    int refused = 0;

    while (peer->fd >= 0 && done < peer->corked && refused < 3) {
        if (send_once(peer, &done, done == 0 ? fds : NULL, done == 0 ? nfds : 0)) {
            refused = 0;
            continue;
        }
        refused++;
        peer_run(peer);
    }
    if (peer->fd >= 0 && done < peer->corked)
        peer_disconnect(peer);
    peer->corked = 0;
}

static bool waits(const struct peer *peer)
{
    return peer->fd >= 0 && peer->framed && peer->n_pending > 0;
}

/* Twenty seconds are more than any request may take; but a device that does not become quiet after its client went
 * keeps the next one waiting. */
void peer_settle(struct peer *peer)
{
    flush(peer, NULL, 0);
    peer_run(peer);
    for (int i = 0; i < 20 && waits(peer); i++) {
        world_advance(UINT64_C(1000000000));
        peer_run(peer);
    }
    if (waits(peer) && peer->release) {
        peer->release(peer->dev);
        peer_run(peer);
    }
    promise(!waits(peer));
}

static void note_request(struct peer *peer, const uint8_t *bytes, size_t size, unsigned nfds)
{
    struct ob_message m;
    int wrong = ob_check_request(&m, bytes, size, OB_FROM_CLIENT, &limits, nfds);

    /* Descriptors on messages that may not have any go to one beside them that may. */
    for (unsigned n = 0; wrong && n <= OB_RECEIVER_MAX_FDS; n++)
        wrong = ob_check_request(&m, bytes, size, OB_FROM_CLIENT, &limits, n);
    m.nfds = nfds;

    show(&m, wrong, OB_FROM_CLIENT);
    if (m.header.command == OB_VERSION)
        peer->may_close = true; /* it is negotiated again, or wrong */
    if (m.header.flags & OB_FLAG_NO_REPLY)
        return;
    unsigned at = (peer->first + peer->n_pending++) % PEER_PENDING;
    peer->pending[at] = m.header;
    peer->sent[at] = m;
    peer->wants_twin[at] = !wrong && m.header.command == OB_VERSION && peer_twin_wanted(&m);
    peer->sent[at].tail = NULL;
    if (wrong)
        peer->sent[at].header.command = 0;
}

void peer_send(struct peer *peer, const void *bytes, size_t size, const int *fds, unsigned nfds, bool framed, bool cork)
{
    int given[32];
    unsigned n = 0;

    if (peer->fd < 0 || size == 0)
        return;
    for (unsigned i = 0; i < nfds && i < 32; i++)
        if (fds[i] >= 0)
            given[n++] = fds[i];
    /* With descriptors on others' bytes, replies may be to what was not asked; still they are in order. */
    if (n > OB_RECEIVER_MAX_FDS || (n > 0 && !framed))
        peer->may_close = true;
    if (!framed)
        peer->framed = false;
    if (peer->framed && peer->n_pending == PEER_PENDING)
        peer_settle(peer);
    if (peer->fd < 0)
        return;
    if (peer->framed && framed)
        note_request(peer, bytes, size, n);
    if (peer->corked + size > sizeof(gathered))
        flush(peer, NULL, 0);
    memcpy(gathered + peer->corked, bytes, size);
    peer->corked += size;
    if (!cork || n > 0)
        flush(peer, given, n);
}

void peer_request(struct peer *peer, struct ob_message *m, const int *fds, bool cork)
{
    static uint8_t bytes[COMPOSE_MAX];

    m->header.id = peer->next_id++;
    ssize_t size = ob_encode_request(bytes, sizeof(bytes), m);
    if (size > 0) /* else it is one that no client would make */
        peer_send(peer, bytes, (size_t)size, fds, m->nfds, true, cork);
}

void peer_negotiate(struct peer *peer, bool twin)
{
    struct ob_capabilities caps = ob_capabilities_default;
    char text[OB_VERSION_MAX_TEXT];

    caps.write_multiple = true;
    caps.max_msg_fds = 16;
    caps.twin_socket.supported = twin;
    ssize_t size = ob_version_encode(text, sizeof(text), &caps);
    promise(size > 0);
    struct ob_message m = { .header.command = OB_VERSION, .tail = (uint8_t *)text, .tail_size = (size_t)size };
    bool may_close = peer->may_close;
    peer_request(peer, &m, NULL, false);
    peer->may_close = may_close; /* nothing is wrong with it */
}

/* --- The end ----------------------------------------------------------------------------------------------------- */

void peer_end(struct peer *peer)
{
    peer_settle(peer);
    ob_dev_free(peer->dev);
    peer_disconnect(peer);
    if (peer->listener >= 0)
        close(peer->listener);
    if (peer->line_fd >= 0)
        close(peer->line_fd);
    if (peer->line_listener >= 0)
        close(peer->line_listener);
}
