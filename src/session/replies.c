/* Messages to the client: replies and our own requests, gathered in the journal and sent in order. */
#include "session/replies.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "session/steps.h"
#include "transport/sender.h"

/* QEMU reads a header with one call, and descriptors only with a message of their own: `size` more bytes join what is
 * unsent, or what is unsent goes first. */
static void gather(struct ob_session *s, size_t size, bool alone)
{
    size_t unsent = s->position.out_tail - s->journal.header->out_sent;

    if (unsent > 0 && (alone || !ob_send_joins(unsent, size))) {
        ob_journal_store(&s->journal.header->out_cut, s->position.out_tail);
        (void)ob_session_flush(s); /* an error comes again with the next flush */
    }
}

static uint8_t *out_end(struct ob_session *s)
{
    return ob_journal_out(&s->journal, s->position.out_tail);
}

static size_t out_room(struct ob_session *s)
{
    return s->journal.header->out_size - (s->position.out_tail - s->journal.header->out_base);
}

/* advance() has made sure of room for the largest message, so encoding only fails for a message that is wrong in
 * itself; the request is then refused instead of answered. */
static void append(struct ob_session *s, ssize_t size)
{
    if (size > 0)
        s->position.out_tail += size;
}

void ob_session_reply_error(struct ob_session *s, const struct ob_header *request, int err)
{
    gather(s, OB_HEADER_SIZE, false);
    append(s, ob_encode_error(out_end(s), out_room(s), request, err));
}

void *ob_session_reply_tail(struct ob_session *s)
{
    return out_end(s) + ob_tail_offset(s->request.header.command, true);
}

void ob_session_reply(struct ob_session *s, struct ob_message *m, int what)
{
    const struct ob_header *request = &s->request.header;

    if (request->flags & OB_FLAG_NO_REPLY)
        return;
    m->header = *request;
    ssize_t size = ob_encode_reply(out_end(s), out_room(s), m);
    if (size < 0) {
        ob_session_reply_error(s, request, size);
        return;
    }
    gather(s, size, m->nfds > 0);
    if (m->nfds > 0) { /* advance() has seen to it that no other is unsent */
        s->position.out_fds = what;
        s->position.out_fd_at = s->position.out_tail;
    }
    append(s, size);
}

/* The request of ours that a reply's header answers, or NULL; it is asked no more. */
static const struct ob_message *take_asked(struct ob_session *s, const struct ob_header *reply)
{
    for (int i = 0; i < OB_SESSION_MAX_ASKED; i++) {
        struct ob_asked *asked = &s->asked[i];
        if (asked->used && asked->request.header.id == reply->id && asked->request.header.command == reply->command) {
            asked->used = false;
            return &asked->request;
        }
    }
    return NULL;
}

/* One never asked for, or malformed, is the peer's fault and ends the session only if it breaks the protocol beyond
 * doubt. */
void ob_session_take_reply(struct ob_session *s, const uint8_t *bytes, size_t size, const struct ob_header *h)
{
    struct ob_message reply;
    const struct ob_message *request = take_asked(s, h);

    if (!request)
        return; /* late, or for a predecessor */
    struct ob_message asked = *request;
    int err = ob_check_reply(&reply, bytes, size, &asked, &s->limits, 0);
    if (!err)
        err = ob_reply_error(&reply);
    if (err == -ENOTCONN)
        err = -EIO; /* a client that refuses so is there: devices take the other for its end */
    s->ops->answered(s->back, h->id, err ? NULL : &reply, err);
}

void ob_session_forget(struct ob_session *s, uint16_t id)
{
    for (int i = 0; i < OB_SESSION_MAX_ASKED; i++)
        if (s->asked[i].request.header.id == id)
            s->asked[i].used = false;
}

static struct ob_asked *free_asked(struct ob_session *s)
{
    for (int i = 0; i < OB_SESSION_MAX_ASKED; i++)
        if (!s->asked[i].used)
            return &s->asked[i];
    return NULL;
}

/* The next id that no message of ours waits with: a client may leave one unanswered while 65536 others pass. */
static uint16_t free_id(struct ob_session *s)
{
    uint16_t id = (uint16_t)s->journal.header->next_id++;

    for (int i = 0; i < OB_SESSION_MAX_ASKED; i++) {
        if (s->asked[i].used && s->asked[i].request.header.id == id) {
            id = (uint16_t)s->journal.header->next_id++;
            i = -1; /* from the first on */
        }
    }
    return id;
}

/* Whether a request of ours can go over the main socket now: 0 or -EAGAIN. */
static int main_ready(struct ob_session *s)
{
    /* A kept request's data may lie behind out_tail already. */
    if (s->blocked || s->closing || s->kept || s->position.part > 0 ||
        ob_journal_out_room(&s->journal, s->position.out_tail) < ob_max_message(&s->limits))
        return -EAGAIN;
    return 0;
}

static int main_send(struct ob_session *s, const struct ob_message *m)
{
    ssize_t size = ob_encode_request(out_end(s), out_room(s), m);

    if (size < 0)
        return (int)size;
    gather(s, (size_t)size, false);
    append(s, size);
    s->ops->commit(s->back);
    return ob_session_flush(s);
}

int ob_session_request(struct ob_session *s, struct ob_message *m)
{
    struct ob_asked *asked = free_asked(s);

    if (s->fd < 0)
        return -ENOTCONN;
    if (!asked)
        return -EAGAIN;
    int err = s->twin.used ? ob_twin_ready(s) : main_ready(s);
    if (err)
        return err;
    m->header.id = free_id(s);
    err = s->twin.used ? ob_twin_send(s, m) : main_send(s, m);
    if (err)
        return err;
    *asked = (struct ob_asked){ .used = true, .request = *m };
    return m->header.id;
}

/* How far the next call may go: a message with descriptors goes alone, whatever lies around it. */
static uint64_t send_end(const struct ob_session *s)
{
    const struct ob_journal_header *h = s->journal.header;
    uint64_t fd_at = ob_session_fd_at(s);

    if (fd_at == h->out_sent) {
        struct ob_header header;
        int size = ob_frame(ob_journal_out(&s->journal, fd_at), s->position.out_tail - fd_at,
                            ob_max_message(&s->limits), &header);
        return fd_at + (size > 0 ? (uint64_t)size : s->position.out_tail - fd_at);
    }
    uint64_t end = h->out_sent < h->out_cut && h->out_cut < s->position.out_tail ? h->out_cut : s->position.out_tail;
    return end < fd_at ? end : fd_at;
}

/* One sendmsg() of [out_sent, end). */
static ssize_t send_until(struct ob_session *s, uint64_t end)
{
    struct ob_journal_header *h = s->journal.header;
    const uint8_t *bytes = ob_journal_out(&s->journal, h->out_sent);
    size_t len = end - h->out_sent;

    ob_step(sending);
    if (h->out_sent != ob_session_fd_at(s))
        return ob_send_bytes(s->fd, bytes, len);
    if (s->position.out_fds == OB_TWIN_REPLY) {
        ssize_t n = ob_send_with_fds(s->fd, bytes, len, &s->twin.theirs, 1);
        if (n > 0)
            ob_twin_given(s);
        return n;
    }
    int fds[OB_SEND_MAX_FDS];
    unsigned count = s->ops->reply_fds(s->back, s->position.out_fds, fds);
    return ob_send_with_fds(s->fd, bytes, len, fds, count);
}

int ob_session_flush(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;

    s->blocked = false;
    while (h->out_sent < s->position.out_tail) {
        ssize_t n = send_until(s, send_end(s));
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN) {
            s->blocked = true;
            return 0;
        }
        if (n < 0) {
            snprintf(s->why, sizeof(s->why), "sending: %s", strerror(-n));
            return n;
        }
        ob_journal_store(&h->out_sent, h->out_sent + n);
        ob_step(sent);
    }
    return 0;
}
