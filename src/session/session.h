/* The front: one client's socket, from VERSION to its end.
 *
 * Theory of operation. Bytes go from the socket into the journal, messages are found, checked and given to the back
 * (the device, behind struct ob_session_ops) one after the other; replies gather in the journal and leave in one
 * sendmsg(). A request and everything that it changes becomes current in one commit, which is the back's: it stores the
 * session's position together with the device's state. Then, and only then, may effects and the reply be seen outside.
 *
 * Requests are executed in the order of the stream, and so are replies. When the back keeps a request, later ones wait;
 * replies of the client to messages of ours are taken out of turn, since nothing in the stream orders them. Where there
 * is a twin socket (twin.h), those messages and their replies go over it.
 *
 * A peer that does not read its replies stops being read; one that sends half a message is waited for without a thread.
 * All of it is used by the control thread only. */
#ifndef OB_SESSION_SESSION_H
#define OB_SESSION_SESSION_H

#include "protocol/message.h"
#include "session/holder.h"
#include "session/journal.h"
#include "session/twin.h"
#include "transport/receiver.h"

/* The most maps, and bytes of data in a message, that a server takes. */
#define OB_SESSION_MAX_DATA     1048576u
#define OB_SESSION_MAX_DMA_MAPS 65535u
/* Page sizes of maps: from 4 KiB, below which no host has pages, every power of two that the text of VERSION can hold.
 */
#define OB_SESSION_PAGES ((uint64_t)INT64_MAX & ~UINT64_C(4095))

struct ob_session;

/* What the session asks of the back. */
struct ob_session_ops {
    /* Executes a checked request other than VERSION. `fds` are its descriptors: those taken are set to -1, the session
     * closes the rest. 0: executed, and answered with ob_session_reply() if it is to be answered with more than an
     * errno; 1: kept, ob_session_complete() follows; -errno: refused. After 0 and -errno the session commits. */
    int (*execute)(void *back, const struct ob_message *m, int *fds, unsigned nfds);
    /* Makes session->position current together with the device's state, then lets effects out. */
    void (*commit)(void *back);
    /* A message of ours was answered, or (reply NULL) never will be. */
    void (*answered)(void *back, uint16_t id, const struct ob_message *reply, int err);
    /* VERSION is agreed upon. */
    void (*opened)(void *back);
    /* The descriptors that an unsent reply carries, `what` as ob_session_reply() was told, which a successor is too.
     * Fills fds[0..OB_SEND_MAX_FDS), which stay the back's, and returns how many. */
    unsigned (*reply_fds)(void *back, int what, int *fds);
};

/* A message of ours that waits for its answer. */
struct ob_asked {
    bool used;
    struct ob_message request;
};
#define OB_SESSION_MAX_ASKED 16

struct ob_session {
    struct ob_journal journal;
    struct ob_holder holder;
    struct ob_position position; /* as it will be current with the next commit */
    struct ob_receiver receiver;
    int fd;                    /* of the connection, -1: none */
    uint64_t scanned;          /* messages before this position are complete and were looked at */
    bool kept;                 /* the request at position.executed waits for ob_session_complete() */
    bool blocked;              /* the peer does not take what we have: wait for EPOLLOUT */
    bool closing;              /* end the connection once everything is sent */
    int lost;                  /* -errno: the stream cannot be followed beyond what is scanned */
    struct ob_message request; /* being executed or kept */
    struct ob_limits limits;
    uint32_t settled[OB_JOURNAL_BATCHES]; /* by batch: bit n: descriptor n is somebody's, or its key is dropped */
    struct ob_asked asked[OB_SESSION_MAX_ASKED];
    struct ob_twin twin;
    const struct ob_session_ops *ops;
    void *back;
    char why[160]; /* about the connection's end, or empty */
};

/* Prepares a session without a connection, and without a holder (ob_holder_init() follows). The journal is made, or
 * taken over, with `journal_fd`; `position` comes from the vault, or is zero. 0, -EINVAL when the two do not belong
 * together, or -errno; `journal_fd` is the caller's then. */
int ob_session_init(struct ob_session *s, int journal_fd, const struct ob_position *position,
                    const struct ob_session_ops *ops, void *back);
void ob_session_free(struct ob_session *s);

/* A new client: `fd`, non-blocking, is the session's from now on. Commits. */
void ob_session_connect(struct ob_session *s, int fd);

/* The client of a predecessor, found in the journal, on a descriptor of the same connection. The back has restored what
 * it holds; -EINVAL if the journal has no connection. Descriptors of messages not executed come from the holder.
 * ob_session_advance() goes on with what the journal holds, when ob_session_events() have come. */
int ob_session_resume(struct ob_session *s, int fd);

/* Reads once and executes what is there. > 0: how many messages and bytes there were to do, 0: nothing had arrived;
 * -EPIPE: the client closed; another -errno: the connection cannot go on (s->why). The caller ends the session then. */
int ob_session_read(struct ob_session *s);

/* Goes on with what the journal holds: after the socket became writable, after ob_session_complete(), after resuming.
 * As ob_session_read(). */
int ob_session_advance(struct ob_session *s);

/* Ends the connection: what is not executed or not sent is dropped, descriptors are closed. Commits. */
void ob_session_end(struct ob_session *s);

/* From execute() or for a kept request: the reply, whose header fields are set here. For data that is to be produced in
 * place, ob_session_reply_tail() gives its memory (OB_SESSION_MAX_DATA bytes) beforehand. With m->nfds
 * descriptors go along, those that ops->reply_fds() says to be `what` (not negative). Nothing is written for a request
 * that wants no reply. */
void ob_session_reply(struct ob_session *s, struct ob_message *m, int what);
void *ob_session_reply_tail(struct ob_session *s);

/* The kept request is executed (err 0: replied if need be), or refused with err. Commits; call ob_session_advance()
 * from the loop afterwards. */
void ob_session_complete(struct ob_session *s, int err);

/* Sends a request of ours (DMA_READ, DMA_WRITE), over the twin socket if there is one; its id is chosen here and
 * returned. -EAGAIN: not now, ask again after ob_session_advance(), ob_twin_flush() or an answer; -ENOTCONN; -EPIPE:
 * the client has ended its twin socket. May commit. */
int ob_session_request(struct ob_session *s, struct ob_message *m);
/* Nobody waits for the reply to that request of ours any more: it is thrown away when it comes. */
void ob_session_forget(struct ob_session *s, uint16_t id);

/* Whether VERSION is agreed upon, so that the journal's `peer` says what the client offered. */
static inline bool ob_session_negotiated(const struct ob_session *s)
{
    const struct ob_journal_header *h = s->journal.header;

    return h->negotiated > h->connection && h->negotiated <= s->position.executed;
}

/* What is common to us and a client: the page sizes of maps, or'ed together (0: none), and how many maps. */
static inline uint64_t ob_session_pages(const struct ob_capabilities *peer)
{
    return peer->pgsizes & OB_SESSION_PAGES;
}

static inline uint32_t ob_session_max_maps(const struct ob_capabilities *peer)
{
    return peer->max_dma_maps < OB_SESSION_MAX_DMA_MAPS ? peer->max_dma_maps : OB_SESSION_MAX_DMA_MAPS;
}

/* Whether there is a request that waits for nothing but ob_session_advance(). */
bool ob_session_ready(const struct ob_session *s);

/* EPOLLIN, EPOLLOUT: what to wait for now. */
uint32_t ob_session_events(const struct ob_session *s);

/* session/negotiate.c: executes VERSION, in s->request. 0 or -errno. */
int ob_session_negotiate(struct ob_session *s);

#endif
