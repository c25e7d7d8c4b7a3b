/* Queues and sends messages without waiting; see out.h. */
#include "client/out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "protocol/wire.h"
#include "transport/receiver.h"
#include "transport/sender.h"

void ob_out_init(struct ob_out *out, int fd)
{
    *out = (struct ob_out){ .fd = fd, .open = OB_OUT_NONE };
    out->fds_last = &out->fds;
}

static void drop_fds(struct ob_out *out)
{
    struct ob_out_fds *first = out->fds;

    for (unsigned i = 0; i < first->count; i++)
        close(first->fds[i]);
    out->fds = first->next;
    if (!out->fds)
        out->fds_last = &out->fds;
    free(first);
}

static void discard(struct ob_out *out)
{
    while (out->fds)
        drop_fds(out);
    out->start = out->end = out->rest = 0;
    out->open = OB_OUT_NONE;
    out->full = false;
}

void ob_out_fini(struct ob_out *out)
{
    discard(out);
    free(out->bytes);
    out->bytes = NULL;
    out->room = 0;
}

/* One sendmsg(). How many bytes went, or -errno. */
static ssize_t send_once(int fd, const struct iovec *iov, unsigned niov, const int *fds, unsigned nfds)
{
    union {
        struct cmsghdr header; /* aligns the buffer */
        unsigned char bytes[CMSG_SPACE(sizeof(int) * OB_RECEIVER_MAX_FDS)];
    } control;
    struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = niov };
    ssize_t sent;

    if (nfds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        memset(control.bytes, 0, msg.msg_controllen);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nfds);
    }
    do {
        sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

static uint32_t message_size(const uint8_t *at)
{
    struct ob_header header;

    memcpy(&header, at, sizeof(header));
    return header.size;
}

/* How much may go with the next call. */
static size_t next_batch(const struct ob_out *out)
{
    size_t batch = 0, size;

    if (out->rest > 0)
        return out->rest;
    do {
        size = message_size(out->bytes + out->start + batch);
        if (out->fds && out->fds->at == out->sent + batch)
            return batch > 0 ? batch : size;
        if (!ob_send_joins(batch, size))
            break;
        batch += size;
    } while (out->start + batch < out->end);
    return batch;
}

/* `went` bytes of the queue are with the socket: what is left of the last message of them? */
static void advance(struct ob_out *out, size_t went)
{
    size_t behind = out->rest;

    while (behind < went)
        behind += message_size(out->bytes + out->start + behind);
    out->rest = behind - went;
    out->start += went;
    out->sent += went;
}

int ob_out_flush(struct ob_out *out)
{
    if (out->broken)
        discard(out);
    while (out->start < out->end) {
        size_t batch = next_batch(out);
        bool fds = out->rest == 0 && out->fds && out->fds->at == out->sent;
        struct iovec iov = { .iov_base = out->bytes + out->start, .iov_len = batch };
        ssize_t went = send_once(out->fd, &iov, 1, fds ? out->fds->fds : NULL, fds ? out->fds->count : 0);

        out->open = OB_OUT_NONE;
        if (went == -EAGAIN) {
            out->full = true;
            return -EAGAIN;
        }
        if (went < 0) {
            out->broken = true;
            discard(out);
            return 0;
        }
        if (fds)
            drop_fds(out);
        advance(out, (size_t)went);
    }
    out->start = out->end = 0;
    out->full = false;
    return 0;
}

/* Room for more bytes at the end. */
static int grow(struct ob_out *out, size_t more)
{
    size_t pending = ob_out_pending(out), room = out->room ? out->room : 2 * OB_SEND_BATCH;
    uint8_t *bytes;

    if (more <= out->room - out->end)
        return 0;
    if (out->start > 0) {
        memmove(out->bytes, out->bytes + out->start, pending);
        if (out->open != OB_OUT_NONE)
            out->open -= out->start;
        out->start = 0;
        out->end = pending;
    }
    while (room - pending < more)
        room *= 2;
    if (room == out->room)
        return 0;
    bytes = realloc(out->bytes, room);
    if (!bytes)
        return -ENOMEM;
    out->bytes = bytes;
    out->room = room;
    return 0;
}

uint8_t *ob_out_reserve(struct ob_out *out, size_t size)
{
    if (!ob_send_joins(ob_out_pending(out), size))
        ob_out_flush(out);
    if (grow(out, size) < 0)
        return NULL;
    out->open = OB_OUT_NONE;
    return out->bytes + out->end;
}

/* Keeps duplicates of the descriptors for the message that is queued next. */
static int queue_fds(struct ob_out *out, const int *fds, unsigned nfds)
{
    struct ob_out_fds *entry = malloc(sizeof(*entry) + nfds * sizeof(int));
    int err = 0;

    if (!entry)
        return -ENOMEM;
    *entry = (struct ob_out_fds){ .at = out->sent + ob_out_pending(out) };
    while (entry->count < nfds && !err) {
        int fd = fcntl(fds[entry->count], F_DUPFD_CLOEXEC, 3);

        if (fd < 0)
            err = -errno;
        else
            entry->fds[entry->count++] = fd;
    }
    *out->fds_last = entry;
    out->fds_last = &entry->next;
    if (!err)
        return 0;
    /* Out again; it is the last. */
    struct ob_out_fds **link = &out->fds;
    while (*link != entry)
        link = &(*link)->next;
    *link = NULL;
    out->fds_last = link;
    for (unsigned i = 0; i < entry->count; i++)
        close(entry->fds[i]);
    free(entry);
    return err;
}

static void append(struct ob_out *out, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(out->bytes + out->end, bytes, len);
    out->end += len;
}

int ob_out_send(struct ob_out *out, const void *head, size_t head_len, const void *data, size_t data_len,
                const int *fds, unsigned nfds)
{
    struct iovec iov[] = { { (void *)head, head_len }, { (void *)data, data_len } };
    size_t size = head_len + data_len, went = 0;
    int err;

    ob_out_flush(out);
    if (out->broken)
        return 0;
    out->open = OB_OUT_NONE;
    /* Before anything goes: a message of which a part has gone has to be sent to its end. */
    err = grow(out, size);
    if (err)
        return err;
    if (ob_out_pending(out) == 0) {
        ssize_t sent = send_once(out->fd, iov, 2, fds, nfds);

        if (sent == -EBADF || sent == -ETOOMANYREFS || sent == -ENOMEM || sent == -ENOBUFS)
            return (int)sent;
        if (sent < 0 && sent != -EAGAIN) {
            out->broken = true;
            return 0;
        }
        out->full = sent != (ssize_t)size;
        went = sent < 0 ? 0 : (size_t)sent;
        if (went == size) {
            out->sent += size;
            return 0;
        }
    }
    if (went == 0 && nfds > 0) {
        err = queue_fds(out, fds, nfds);
        if (err)
            return err;
    }
    out->sent += went;
    out->rest = went > 0 ? size - went : out->rest;
    append(out, (const uint8_t *)head + (went < head_len ? went : head_len), went < head_len ? head_len - went : 0);
    went -= went < head_len ? went : head_len;
    if (data_len > went)
        append(out, (const uint8_t *)data + went, data_len - went);
    return 0;
}
