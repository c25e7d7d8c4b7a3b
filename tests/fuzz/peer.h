/* peer.h: a client that does what the input says, to a device of the library's in this process, and judges the answers.
 *
 * What it holds the server to: every request gets one reply, in order, well formed, or a refusal that names an errno;
 * none where none is wanted; what the server sends by itself is well formed, and goes over the twin socket if there is
 * one; this is there if the client may have one; both stay unless the client gave reason to end them; the server comes
 * to rest; it does not fail. */
#ifndef FUZZ_PEER_H
#define FUZZ_PEER_H

#include <outboard/server.h>

#include "compose.h"

#define PEER_PENDING 128
#define PEER_ASKED   16

struct peer {
    struct ob_dev *dev;
    void (*release)(struct ob_dev *dev); /* answers what the device keeps; or NULL */
    int listener;                        /* our descriptor of it, or -1: there is one connection only */
    int fd;                              /* the connection, or -1 */
    bool over;                           /* the device has lost its only client */
    /* Of this connection: all that was sent are whole requests, so that replies can be judged; */
    bool framed;
    bool may_close; /* and there was reason for the server to end it. */
    uint16_t next_id;
    struct ob_header pending[PEER_PENDING]; /* requests without their reply, a ring */
    struct ob_message sent[PEER_PENDING];   /* the same, decoded; without a command if they are wrong */
    bool wants_twin[PEER_PENDING];          /* VERSION: the server is to give one */
    unsigned first, n_pending;
    struct ob_message asked[PEER_ASKED]; /* the server's requests, a ring */
    unsigned first_asked, n_asked;
    size_t have;      /* bytes of what the server sent that are no whole message yet */
    size_t corked;    /* bytes that are to go with what is sent next */
    int twin;         /* our end of the twin socket, or -1 */
    bool twin_given;  /* of this connection: there is one, or was */
    bool twin_clean;  /* the server has no reason to end it */
    bool twin_unread; /* for now */
    size_t twin_have;
    const char *line; /* path of the other side of a serial line, or NULL */
    int line_listener, line_fd;
};

/* A device with one connection, or, if `listening`, as many as come. `dev` may not be NULL. */
void peer_begin(struct peer *peer, struct ob_dev *dev, bool listening);
/* Lets everything be answered, frees the device, closes all. */
void peer_end(struct peer *peer);

void peer_connect(struct peer *peer); /* after the connection before it, if any */
void peer_disconnect(struct peer *peer);

/* One message (framed, decoded by the library's own check) or any bytes, with descriptors; -1 among them is left out.
 * `cork`: they wait for the next. */
void peer_send(struct peer *peer, const void *bytes, size_t size, const int *fds, unsigned nfds, bool framed,
               bool cork);
/* A request made of `m`, without tail unless m has one. */
void peer_request(struct peer *peer, struct ob_message *m, const int *fds, bool cork);
/* VERSION as other clients offer it, with a twin socket or without. */
void peer_negotiate(struct peer *peer, bool twin);

/* Takes what the server sent. */
void peer_read(struct peer *peer);
/* Lets the server work until it rests, and takes what it sent. */
void peer_run(struct peer *peer);
/* The same, and as much time as it takes until nothing is pending. */
void peer_settle(struct peer *peer);
/* The oldest request of the server's that has no answer, or NULL; taken away. */
const struct ob_message *peer_asked(struct peer *peer);
/* One has come. */
void peer_note_asked(struct peer *peer, const struct ob_message *m);

/* peer_twin.c: whether VERSION asks for a twin socket; what the reply gives; the same as above on that socket. `clean`:
 * what is sent gives no reason to end it. */
bool peer_twin_wanted(const struct ob_message *version);
bool peer_twin_take(struct peer *peer, const uint8_t *bytes, size_t size, int *fds, unsigned nfds);
void peer_twin_read(struct peer *peer);
void peer_twin_send(struct peer *peer, const void *bytes, size_t size, int fd, bool clean);
void peer_twin_close(struct peer *peer);

#endif
