/* What the parts of the session share about messages to the client; private to src/session. */
#ifndef OB_SESSION_REPLIES_H
#define OB_SESSION_REPLIES_H

#include "session/session.h"

/* Writes a refusal behind out_tail. */
void ob_session_reply_error(struct ob_session *s, const struct ob_header *request, int err);

/* Where the unsent message begins that carries descriptors, or UINT64_MAX. */
static inline uint64_t ob_session_fd_at(const struct ob_session *s)
{
    const struct ob_position *p = &s->position;

    return p->out_fds != -1 && p->out_fd_at >= s->journal.header->out_sent ? p->out_fd_at : UINT64_MAX;
}

/* Sends what is valid and unsent. 0 (also when the peer does not take all: s->blocked) or -errno. */
int ob_session_flush(struct ob_session *s);

static inline bool ob_session_is_reply(const struct ob_header *h)
{
    return (h->flags & OB_FLAG_TYPE_MASK) == OB_FLAG_REPLY;
}

/* The client answers a message of ours, or nothing that was asked. */
void ob_session_take_reply(struct ob_session *s, const uint8_t *bytes, size_t size, const struct ob_header *h);

#endif
