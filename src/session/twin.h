/* The twin socket: a second connection, made with the reply to VERSION, for the server's requests and their answers.
 *
 * Theory of operation. A client that can take one says so, and gets one end of a fresh pair of sockets (VU-TWIN-3).
 * From then on the requests of ob_session_request() go there, and answers count there only. A request leaves at once or
 * not at all: none lies here until the client reads, to come out after a reply to a reset or to whatever else forbade
 * it. Only the rest of one that the socket took in part has to. What the client sends is answers, small enough to lie
 * whole in the journal, and anything else ends the twin socket.
 *
 * Its end is not the session's (VU-TWIN-11): requests fail with EPIPE from then on, those in flight too, and all else
 * goes on. Nothing falls back to the main socket: a client that has given itself a twin socket expects no requests
 * there (VU-TWIN-4).
 *
 * Our end is with the holder, and both streams are in the journal, from where a successor goes on. The client's end is
 * nobody's but the reply's: a successor that finds this unsent makes another pair. */
#ifndef OB_SESSION_TWIN_H
#define OB_SESSION_TWIN_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/message.h"

/* The most data in one message of ours: QEMU does not look at short transfers above this (DMA_READ, DMA_WRITE). */
#define OB_SESSION_DMA_PIECE 32768u
#define OB_TWIN_MAX_MESSAGE  (OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + OB_SESSION_DMA_PIECE)

/* What ob_session_reply() is told about the reply that carries the client's end. */
#define OB_TWIN_REPLY (-2)

struct ob_session;

struct ob_twin {
    bool used;  /* requests go this way, or nowhere */
    int fd;     /* -1: there is none, or no more */
    int theirs; /* the client's end, until its reply is sent; -1 */
    bool full;  /* it takes no more: wait for EPOLLOUT */
    int broken; /* -errno: it is of no more use, and ob_twin_end() is to be called */
};

/* Nothing, yet. */
void ob_twin_init(struct ob_session *s);
/* Makes the pair, with VERSION. 0 or -errno. */
int ob_twin_open(struct ob_session *s);
/* A successor's, with the rest of its session. 0 or -errno. */
int ob_twin_resume(struct ob_session *s);
/* The client's end has left with its reply. */
void ob_twin_given(struct ob_session *s);
/* Closes it, with its session. The key is dropped with the next commit. */
void ob_twin_close(struct ob_session *s);

/* Whether a request can go now: 0, -EAGAIN, or -EPIPE for good. */
int ob_twin_ready(const struct ob_session *s);
/* Sends it; if the socket turns out to be broken, it went to nobody. 0, -EAGAIN or another -errno. */
int ob_twin_send(struct ob_session *s, const struct ob_message *m);
/* Reads once, and gives the answers that are whole to the back. Whether anything came, be it the end. */
bool ob_twin_read(struct ob_session *s);
/* There is room again: for the rest of a request, and for more. */
void ob_twin_flush(struct ob_session *s);
/* It is broken: whatever is in flight fails, and all requests from now on. Its descriptor is closed: nobody may wait
 * for it any more. Commits. */
void ob_twin_end(struct ob_session *s);

/* EPOLLIN, EPOLLOUT: what to wait for on it. */
uint32_t ob_twin_events(const struct ob_session *s);
/* Whether the client owes an answer on it. */
bool ob_twin_awaits(const struct ob_session *s);

#endif
