/* The twin socket; twin.h has the theory. */
#include "session/twin.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session/replies.h"
#include "session/steps.h"
#include "transport/sender.h"

static struct ob_journal_twin *streams(struct ob_session *s)
{
    return &s->journal.header->twin;
}

/* --- Beginning and end ------------------------------------------------------------------------------------------- */

void ob_twin_init(struct ob_session *s)
{
    s->twin = (struct ob_twin){ .fd = -1, .theirs = -1 };
}

int ob_twin_open(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    int pair[2];

    /* Blocking: what the client's end is to be, is the client's business; ours is never waited on. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    uint64_t key = h->next_key + 1;
    ob_journal_store(&h->next_key, key); /* no key is used twice */
    int err = ob_holder_keep(&s->holder, pair[0], key);
    if (err) {
        close(pair[0]);
        close(pair[1]);
        return err;
    }
    s->twin = (struct ob_twin){ .used = true, .fd = pair[0], .theirs = pair[1] };
    h->twin = (struct ob_journal_twin){ .key = key };
    return 0;
}

int ob_twin_resume(struct ob_session *s)
{
    struct ob_journal_twin *t = streams(s);

    ob_twin_init(s);
    if (!ob_session_negotiated(s) || !t->key)
        return 0;
    if (s->position.out_fds == OB_TWIN_REPLY && ob_session_fd_at(s) != UINT64_MAX)
        return ob_twin_open(s);
    s->twin.used = true;
    s->twin.fd = ob_holder_take(&s->holder, t->key); /* none: it had ended */
    if (t->out_sent == t->out_base)
        ob_journal_store(&t->out_tail, t->out_sent); /* nobody waits for its answer any more */
    s->twin.full = t->out_sent < t->out_tail;
    return 0;
}

void ob_twin_given(struct ob_session *s)
{
    close(s->twin.theirs);
    s->twin.theirs = -1;
}

void ob_twin_close(struct ob_session *s)
{
    if (s->twin.theirs >= 0)
        ob_twin_given(s);
    if (s->twin.fd < 0)
        return;
    (void)shutdown(s->twin.fd, SHUT_RDWR); /* the holder may have it still: the client sees its end now */
    ob_holder_drop(&s->holder, s->twin.fd);
    close(s->twin.fd);
    s->twin.fd = -1;
}

void ob_twin_end(struct ob_session *s)
{
    s->twin.broken = 0;
    ob_twin_close(s);
    for (int i = 0; i < OB_SESSION_MAX_ASKED; i++) {
        if (!s->asked[i].used)
            continue;
        s->asked[i].used = false;
        s->ops->answered(s->back, s->asked[i].request.header.id, NULL, -EPIPE);
    }
    s->ops->commit(s->back);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

/* As much as the socket takes. */
static void send_rest(struct ob_session *s)
{
    struct ob_journal_twin *t = streams(s);

    while (t->out_sent < t->out_tail) {
        ob_step(sending);
        ssize_t n =
            ob_send_bytes(s->twin.fd, s->journal.twin_out + (t->out_sent - t->out_base), t->out_tail - t->out_sent);
        if (n == -EINTR)
            continue;
        if (n < 0) {
            s->twin.full = n == -EAGAIN;
            s->twin.broken = n == -EAGAIN ? 0 : (int)n;
            return;
        }
        ob_journal_store(&t->out_sent, t->out_sent + (uint64_t)n);
        ob_step(sent);
    }
}

void ob_twin_flush(struct ob_session *s)
{
    s->twin.full = false;
    if (!s->twin.broken)
        send_rest(s);
}

int ob_twin_ready(const struct ob_session *s)
{
    if (s->twin.fd < 0)
        return -EPIPE;
    return s->twin.full || s->twin.broken ? -EAGAIN : 0;
}

int ob_twin_send(struct ob_session *s, const struct ob_message *m)
{
    struct ob_journal_twin *t = streams(s);
    ssize_t size = ob_encode_request(s->journal.twin_out, s->journal.twin_size, m);
    if (size < 0)
        return (int)size;
    ob_journal_store(&t->out_base, t->out_tail); /* nothing is unsent, with the new message or without */
    ob_journal_store(&t->out_tail, t->out_tail + (uint64_t)size);
    send_rest(s);
    if (!s->twin.full || t->out_sent > t->out_base)
        return 0;
    ob_journal_store(&t->out_tail, t->out_base);
    return -EAGAIN;
}

/* --- Answers ----------------------------------------------------------------------------------------------------- */

/* Gives whole answers to the back. 0, or -errno: it cannot be followed any more. */
static int take_answers(struct ob_session *s)
{
    struct ob_journal_twin *t = streams(s);

    for (;;) {
        const uint8_t *bytes = ob_journal_twin_in(&s->journal, t->in_done);
        struct ob_header header;
        int size = ob_frame(bytes, t->in_tail - t->in_done, OB_TWIN_MAX_MESSAGE, &header);

        if (size <= 0)
            return size;
        if (!ob_session_is_reply(&header))
            return -EPROTO;
        if (t->in_tail - t->in_done < (uint64_t)size)
            return 0;
        ob_session_take_reply(s, bytes, (size_t)size, &header);
        ob_journal_store(&t->in_done, t->in_done + (uint64_t)size);
    }
}

bool ob_twin_read(struct ob_session *s)
{
    struct ob_journal_twin *t = streams(s);

    if (s->twin.broken)
        return false;
    size_t room = ob_journal_twin_room(&s->journal, OB_TWIN_MAX_MESSAGE);
    ssize_t n = ob_receive_bytes(s->twin.fd, ob_journal_twin_in(&s->journal, t->in_tail), room);

    if (n == -EAGAIN || n == -EINTR)
        return false;
    if (n <= 0) {
        s->twin.broken = n < 0 ? (int)n : -EPIPE;
        return true;
    }
    ob_journal_store(&t->in_tail, t->in_tail + (uint64_t)n);
    ob_step(received);
    s->twin.broken = take_answers(s);
    return true;
}

uint32_t ob_twin_events(const struct ob_session *s)
{
    return EPOLLIN | (s->twin.full ? EPOLLOUT : 0);
}

bool ob_twin_awaits(const struct ob_session *s)
{
    bool asked = false;

    for (int i = 0; i < OB_SESSION_MAX_ASKED; i++)
        asked |= s->asked[i].used;
    return asked && s->twin.fd >= 0 && !s->twin.broken;
}
