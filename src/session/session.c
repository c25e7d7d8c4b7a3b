/* The front: reads a client's stream into the journal and has its requests executed; see session.h. */
#include "session/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "session/replies.h"
#include "session/steps.h"

/* What VERSION itself is checked against, and everything after it: what we announce. */
static const struct ob_limits server_limits = { OB_SESSION_MAX_DATA, OB_RECEIVER_MAX_FDS };

int ob_session_init(struct ob_session *s, int journal_fd, const struct ob_position *position,
                    const struct ob_session_ops *ops, void *back)
{
    *s = (struct ob_session){ .position = *position, .fd = -1, .limits = server_limits, .ops = ops, .back = back };
    s->holder.socket = -1;
    ob_receiver_init(&s->receiver);
    ob_twin_init(s);
    int err = ob_journal_open(&s->journal, journal_fd, ob_max_message(&server_limits), OB_TWIN_MAX_MESSAGE);
    if (err)
        return err;
    /* What the vault says has to be what the journal holds; out_tail would become a wild pointer. */
    const struct ob_journal_header *h = s->journal.header;
    if (position->executed <= h->in_tail && position->out_tail >= h->out_sent &&
        position->out_tail - h->out_base <= h->out_size)
        return 0;
    ob_journal_unmap(&s->journal, journal_fd < 0);
    return -EINVAL;
}

void ob_session_free(struct ob_session *s)
{
    if (s->fd >= 0)
        ob_session_end(s);
    ob_journal_close(&s->journal);
    ob_holder_free(&s->holder);
}

static void commit(struct ob_session *s)
{
    s->ops->commit(s->back);
}

/* --- Connections ------------------------------------------------------------------------------------------------- */

void ob_session_connect(struct ob_session *s, int fd)
{
    struct ob_journal_header *h = s->journal.header;

    s->fd = fd;
    s->scanned = h->connection = h->in_tail;
    s->kept = s->blocked = s->closing = false;
    memset(s->asked, 0, sizeof(s->asked));
    memset(s->settled, 0, sizeof(s->settled));
    s->lost = 0;
    s->why[0] = 0;
    /* The last client may have left half an oversized message, a twin socket, and replies that it did not read. */
    ob_journal_store(&h->skip_until, 0);
    ob_journal_store(&h->twin.key, 0);
    ob_journal_store(&h->out_sent, s->position.out_tail);
    h->connected = true;
    ob_receiver_init(&s->receiver);
    ob_twin_init(s);
    s->position.executed = h->in_tail;
    s->position.part = 0;
    s->position.out_fds = -1;
    commit(s);
}

/* Gives the receiver the descriptors of one batch back, if they are still the holder's: those that were claimed went
 * to the maps and interrupts they became. */
static int restore_batch(struct ob_session *s, const struct ob_journal_batch *b)
{
    struct ob_journal_header *h = s->journal.header;
    uint32_t *settled = &s->settled[b - h->batches];
    int fds[OB_RECEIVER_MAX_FDS];
    unsigned n = 0;

    for (unsigned i = 0; i < b->count && i < OB_RECEIVER_MAX_FDS; i++) {
        int fd = ob_holder_take(&s->holder, b->first_key + i);
        if (fd >= 0)
            fds[n++] = fd;
        else
            *settled |= UINT32_C(1) << i;
    }
    if (n == 0)
        return 0;
    int err = ob_receiver_restore(&s->receiver, b->start - h->connection, b->end - h->connection, fds, n);
    while (err && n > 0)
        close(fds[--n]);
    return err;
}

/* Descriptors of messages that are not executed come back from the holder as the batches in which they arrived, in the
 * order of the stream. */
static int restore_batches(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    uint64_t from = 0;

    for (unsigned i = 0; i < OB_JOURNAL_BATCHES; i++)
        if (h->batches[i].end <= s->position.executed)
            h->batches[i].valid = false;
    for (;;) {
        struct ob_journal_batch *next = NULL;
        for (unsigned i = 0; i < OB_JOURNAL_BATCHES; i++) {
            struct ob_journal_batch *b = &h->batches[i];
            if (b->valid && b->end > from && (!next || b->end < next->end))
                next = b;
        }
        if (!next)
            return 0;
        int err = restore_batch(s, next);
        if (err)
            return err;
        from = next->end;
    }
}

int ob_session_resume(struct ob_session *s, int fd)
{
    struct ob_journal_header *h = s->journal.header;

    if (!h->connected)
        return -EINVAL;
    if (s->position.executed < h->in_base)
        s->position.executed = h->in_base; /* replies of the client were skipped, which needs no commit */
    if (s->position.executed > h->in_tail || s->position.out_tail < h->out_sent ||
        s->position.out_tail - h->out_base > h->out_size)
        return -EINVAL;
    s->scanned = s->position.executed;
    ob_receiver_init(&s->receiver);
    s->receiver.position = h->in_tail - h->connection;
    /* What is thrown away was noted as a whole. */
    bool skipping = s->scanned > h->skip_from && s->scanned < h->skip_until;
    s->receiver.noted = (skipping ? h->skip_until : s->scanned) - h->connection;
    memset(s->settled, 0, sizeof(s->settled));
    int err = restore_batches(s);
    if (!err)
        err = ob_twin_resume(s);
    if (err) {
        ob_receiver_close(&s->receiver);
        return err;
    }
    s->fd = fd;
    s->blocked = true; /* once the socket takes bytes, what is unsent goes, and what is there is executed */
    return 0;
}

/* Nobody has claimed, or ever will claim, the descriptors of a batch that are not settled. */
static void drop_batch(struct ob_session *s, struct ob_journal_batch *b)
{
    uint32_t *settled = &s->settled[b - s->journal.header->batches];

    for (unsigned i = 0; b->valid && i < b->count; i++)
        if (!(*settled >> i & 1))
            ob_holder_drop_key(&s->holder, b->first_key + i);
    *settled = 0;
    b->valid = false;
}

void ob_session_end(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;

    close(s->fd);
    s->fd = -1;
    ob_twin_close(s);
    for (unsigned i = 0; i < OB_JOURNAL_BATCHES; i++)
        drop_batch(s, &h->batches[i]);
    ob_receiver_close(&s->receiver);
    s->kept = s->blocked = false;
    s->position.executed = s->scanned = h->in_tail;
    s->position.part = 0;
    s->position.out_fds = -1;
    h->connected = false;
    commit(s);
    ob_journal_store(&h->out_sent, s->position.out_tail);
}

/* --- Receiving ---------------------------------------------------------------------------------------------------- */

/* A place for a batch, or NULL when all are in use. */
static struct ob_journal_batch *free_batch(struct ob_session *s)
{
    for (unsigned i = 0; i < OB_JOURNAL_BATCHES; i++) {
        struct ob_journal_batch *b = &s->journal.header->batches[i];
        if (!b->valid || b->end <= s->position.executed)
            return b;
    }
    return NULL;
}

/* Descriptors are with the holder, and known to the journal, before the bytes they came with count as received. */
static int keep_descriptors(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    const struct ob_fd_batch *batch = ob_receiver_newest(&s->receiver);
    struct ob_journal_batch *b = free_batch(s);
    uint64_t key = h->next_key + 1;

    if (!b)
        return -ENOBUFS;
    drop_batch(s, b);
    ob_journal_store(&h->next_key, h->next_key + batch->count); /* no key is used twice */
    for (unsigned i = 0; i < batch->count; i++) {
        int err = ob_holder_keep(&s->holder, batch->fds[i], key + i);
        if (err) {
            snprintf(s->why, sizeof(s->why), "the holder of descriptors is gone");
            return err;
        }
    }
    *b = (struct ob_journal_batch){ .start = batch->start + h->connection,
                                    .end = batch->end + h->connection,
                                    .first_key = key,
                                    .count = batch->count,
                                    .valid = true };
    return 0;
}

/* Descriptors that a request got are settled: the back's, or dropped in a moment. */
static void settle_descriptors(struct ob_session *s, const int *fds, int nfds)
{
    struct ob_journal_header *h = s->journal.header;

    for (int n = 0; n < nfds; n++) {
        uint64_t key = ob_holder_key(&s->holder, fds[n]);
        for (unsigned i = 0; i < OB_JOURNAL_BATCHES; i++) {
            const struct ob_journal_batch *b = &h->batches[i];
            if (b->valid && key >= b->first_key && key - b->first_key < b->count)
                s->settled[i] |= UINT32_C(1) << (key - b->first_key);
        }
    }
}

/* While a request is kept, what arrives behind it waits; when there is no place for more of it, nothing is read. */
static bool backlog_full(const struct ob_session *s)
{
    const struct ob_journal_header *h = s->journal.header;

    if (!s->kept)
        return false;
    return h->in_tail - h->in_base == h->in_size || s->receiver.queued == OB_RECEIVER_MAX_BATCHES ||
           (s->holder.socket >= 0 && !free_batch((struct ob_session *)s));
}

/* One recvmsg(). Bytes, 0 at the end of the stream, -EAGAIN or another -errno. */
static ssize_t receive(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    size_t room = ob_journal_in_room(&s->journal, s->position.executed, ob_max_message(&s->limits), !s->kept);

    if (room == 0 || backlog_full(s))
        return -EAGAIN; /* the kept request has to be answered first */
    unsigned queued = s->receiver.queued;
    ssize_t n = ob_receive(&s->receiver, s->fd, ob_journal_in(&s->journal, h->in_tail), room);
    if (n <= 0) {
        if (n < 0 && n != -EAGAIN && n != -EINTR)
            snprintf(s->why, sizeof(s->why), "receiving: %s", strerror(-n));
        return n;
    }
    if (s->holder.socket >= 0 && s->receiver.queued > queued) {
        int err = keep_descriptors(s);
        if (err)
            return err;
    }
    ob_journal_store(&h->in_tail, h->in_tail + n);
    ob_step(received);
    return n;
}

/* Looks at what has arrived: notes each header as it becomes complete, takes out replies. */
static void scan(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    size_t max = ob_max_message(&s->limits);

    while (!s->lost && s->scanned < h->in_tail) {
        s->scanned = ob_journal_skip(&s->journal, s->scanned);
        if (s->scanned == h->in_tail)
            return;
        const uint8_t *bytes = ob_journal_in(&s->journal, s->scanned);
        size_t have = h->in_tail - s->scanned;
        struct ob_header header;
        int size = ob_frame(bytes, have, max, &header);
        if (size == 0)
            return;
        if (size == -EPROTO) {
            s->lost = size;
            return;
        }
        uint32_t whole = size == -EMSGSIZE ? header.size : (uint32_t)size;
        if (s->receiver.noted + h->connection <= s->scanned)
            ob_receiver_note(&s->receiver, whole,
                             size > 0 && !ob_session_is_reply(&header) && header.command < OB_COMMAND_END &&
                                 ob_commands[header.command].request.max_fds > 0);
        if (size == -EMSGSIZE) {
            /* Refused by advance(); its bytes are thrown away as they come. */
            return;
        }
        if (have < (size_t)size)
            return;
        if (ob_session_is_reply(&header) && !s->twin.used)
            ob_session_take_reply(s, bytes, size, &header);
        s->scanned += size;
    }
}

/* --- Executing ---------------------------------------------------------------------------------------------------- */

static void refuse(struct ob_session *s, const struct ob_header *header, int err)
{
    if (!(header->flags & OB_FLAG_NO_REPLY))
        ob_session_reply_error(s, header, err);
}

static void finish(struct ob_session *s, size_t size)
{
    s->position.executed += size;
    s->position.part = 0;
    ob_step(replied);
    commit(s);
}

static int dispatch(struct ob_session *s, int *fds, unsigned nfds)
{
    if (s->request.header.command == OB_VERSION)
        return ob_session_negotiate(s);
    if (!ob_session_negotiated(s))
        return -EINVAL; /* VERSION has to come first */
    return s->ops->execute(s->back, &s->request, fds, nfds);
}

/* Executes the request at the head, `size` bytes. False: it is kept, or its descriptors are not known yet. */
static bool execute(struct ob_session *s, const uint8_t *bytes, size_t size)
{
    int fds[OB_RECEIVER_MAX_FDS];
    uint64_t start = s->position.executed - s->journal.header->connection;
    int nfds = 0, err = 0;

    if (s->receiver.queued > 0) {
        nfds = ob_receiver_claim(&s->receiver, start, fds, OB_RECEIVER_MAX_FDS);
        if (nfds == -EAGAIN)
            return false;
        if (nfds < 0) { /* more than we announced */
            err = -EINVAL;
            nfds = 0;
        }
        if (s->holder.socket >= 0)
            settle_descriptors(s, fds, nfds);
    }
    int wrong = ob_check_request(&s->request, bytes, size, OB_FROM_CLIENT, &s->limits, nfds);
    err = err ? err : wrong;
    ob_step(checked);
    if (!err)
        err = dispatch(s, fds, nfds);
    for (int i = 0; i < nfds; i++) {
        if (fds[i] >= 0) {
            ob_holder_drop(&s->holder, fds[i]);
            close(fds[i]);
        }
    }
    if (err == 1) {
        s->kept = true;
        return false;
    }
    if (err < 0)
        refuse(s, &s->request.header, err);
    finish(s, size);
    return true;
}

/* A message larger than any we take: refused, and its bytes are thrown away, however they come. */
static void skip_oversized(struct ob_session *s, const struct ob_header *header)
{
    struct ob_journal_header *h = s->journal.header;

    /* In this order: between the two stores, and until the commit, nothing is thrown away. */
    ob_journal_store(&h->skip_from, s->position.executed);
    ob_journal_store(&h->skip_until, s->position.executed + header->size);
    if (!ob_session_is_reply(header))
        refuse(s, header, -EMSGSIZE);
    finish(s, OB_HEADER_SIZE);
    s->scanned = s->position.executed;
}

/* Whether a reply fits; makes room by sending. */
static bool out_ready(struct ob_session *s)
{
    size_t need = ob_max_message(&s->limits);

    /* There is a place for one descriptor on its way. */
    if (ob_session_fd_at(s) != UINT64_MAX)
        (void)ob_session_flush(s); /* an error comes again with the next flush */
    if (s->blocked || ob_session_fd_at(s) != UINT64_MAX)
        return false;
    /* A predecessor died between two pieces of this request: the data of those before lies behind out_tail. */
    if (s->position.part > 0)
        return true;
    if (ob_journal_out_room(&s->journal, s->position.out_tail) >= need)
        return true;
    ob_session_flush(s);
    return ob_journal_out_room(&s->journal, s->position.out_tail) >= need;
}

/* Executes what is complete, in order. Returns how many messages, or -errno. */
static int advance(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    int done = 0;

    while (!s->kept && !s->closing && s->position.executed < h->in_tail) {
        uint64_t skipped = ob_journal_skip(&s->journal, s->position.executed);
        if (skipped != s->position.executed) {
            s->position.executed = s->scanned = skipped;
            scan(s);
            continue;
        }
        if (!out_ready(s))
            break;
        const uint8_t *bytes = ob_journal_in(&s->journal, s->position.executed);
        struct ob_header header;
        int size = ob_frame(bytes, h->in_tail - s->position.executed, ob_max_message(&s->limits), &header);
        if (size == -EMSGSIZE) {
            skip_oversized(s, &header);
        } else if (size > 0 && s->position.executed + size <= s->scanned) {
            if (ob_session_is_reply(&header))
                s->position.executed += size; /* taken by scan() */
            else if (!execute(s, bytes, size))
                break;
        } else {
            break;
        }
        done++;
    }
    return done;
}

int ob_session_advance(struct ob_session *s)
{
    int done = 0;

    scan(s);
    for (;;) {
        bool was_blocked = s->blocked;
        int n = advance(s);
        int err = ob_session_flush(s);
        if (err)
            return err;
        done += n;
        /* A flush that made room lets more be executed; nothing new arrives meanwhile, so this ends. */
        if ((n == 0 && !was_blocked) || s->blocked || s->kept || s->closing)
            break;
    }
    if (s->closing && !s->blocked)
        return s->why[0] ? -EPROTO : -EPIPE;
    if (s->lost && s->position.executed == s->scanned) {
        snprintf(s->why, sizeof(s->why), "a message header with a size below 16 bytes");
        return s->lost;
    }
    return done;
}

int ob_session_read(struct ob_session *s)
{
    ssize_t n = receive(s);

    if (n == 0) {
        int err = ob_session_advance(s); /* the end may have settled whose the last descriptors are */
        return err < 0 ? err : -EPIPE;
    }
    if (n == -EAGAIN || n == -EINTR)
        return 0;
    if (n < 0)
        return n;
    int done = ob_session_advance(s);
    return done < 0 ? done : done + 1;
}

void ob_session_complete(struct ob_session *s, int err)
{
    uint32_t size = s->request.header.size;

    s->kept = false;
    if (err < 0)
        refuse(s, &s->request.header, err);
    finish(s, size);
}

bool ob_session_ready(const struct ob_session *s)
{
    return s->fd >= 0 && !s->kept && !s->blocked && s->position.executed < s->scanned;
}

uint32_t ob_session_events(const struct ob_session *s)
{
    if (s->blocked)
        return EPOLLOUT;
    return backlog_full(s) ? 0 : EPOLLIN;
}
