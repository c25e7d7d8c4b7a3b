/* stream.c: the bytes and descriptors of a socket, and the messages in them. */
#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/sockios.h>

#define PIECE       (256u << 10)
#define MAX_MESSAGE (8u << 20) /* of a client's: eight times the largest transfer that the judge takes */

void stream_open(struct stream *stream, int fd)
{
    *stream = (struct stream){ .fd = fd, .ended = fd < 0 };
}

void stream_close(struct stream *stream)
{
    for (unsigned i = 0; i < stream->nfds; i++)
        close(stream->fds[i].fd);
    if (stream->fd >= 0)
        close(stream->fd);
    free(stream->bytes);
    *stream = (struct stream){ .fd = -1, .ended = true };
}

/* --- Receiving --------------------------------------------------------------------------------------------------- */

static void take_descriptors(struct stream *stream, const struct cmsghdr *control, uint64_t at)
{
    size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    for (size_t i = 0; i < count; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
        if (stream->nfds == STREAM_MAX_FDS) {
            close(fd);
            continue;
        }
        stream->fds[stream->nfds].at = at;
        stream->fds[stream->nfds++].fd = fd;
    }
}

static bool make_room(struct stream *stream)
{
    uint8_t *bytes;

    if (stream->room - stream->have >= PIECE)
        return true;
    bytes = realloc(stream->bytes, stream->have + 2 * PIECE);
    if (bytes == NULL)
        return false;
    stream->bytes = bytes;
    stream->room = stream->have + 2 * PIECE;
    return true;
}

void stream_read(struct stream *stream)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 253)]; /* the most that Linux sends at once */
        struct cmsghdr align;
    } control;
    struct iovec iov;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n;

    if (stream->ended || stream->have > 2 * MAX_MESSAGE || !make_room(stream))
        return;
    iov = (struct iovec){ stream->bytes + stream->have, PIECE };
    n = recvmsg(stream->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        stream->ended = true;
        return;
    }
    /* Linux ends a read with the segment that carried descriptors: they came with its last byte or before. */
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            take_descriptors(stream, c, stream->position + stream->have + (size_t)n - 1);
    }
    stream->have += (size_t)n;
}

/* Of the first message, as its header says; 0: it is not there yet. */
static uint32_t first_size(const struct stream *stream)
{
    uint32_t size;

    if (stream->have < sizeof(struct ob_raw_header))
        return 0;
    memcpy(&size, stream->bytes + offsetof(struct ob_raw_header, size), sizeof(size));
    if (size >= sizeof(struct ob_raw_header) && size <= MAX_MESSAGE)
        return size > stream->have ? 0 : size;
    return size == 0 ? UINT32_MAX : size;
}

bool stream_ready(const struct stream *stream)
{
    return first_size(stream) > 0;
}

static void take_fds(struct stream *stream, struct ob_raw_message *m, uint64_t end)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < stream->nfds; i++) {
        if (stream->fds[i].at >= end)
            stream->fds[kept++] = stream->fds[i];
        else if (m->nfds < OB_RAW_MAX_FDS)
            m->fds[m->nfds++] = stream->fds[i].fd;
        else
            close(stream->fds[i].fd);
    }
    stream->nfds = kept;
}

struct ob_raw_message *stream_take(struct stream *stream)
{
    uint32_t size = first_size(stream);
    struct ob_raw_message *m = size > 0 ? calloc(1, sizeof(*m)) : NULL;

    if (m == NULL)
        return NULL;
    memcpy(&m->header, stream->bytes, sizeof(m->header));
    if (size < sizeof(m->header) || size > MAX_MESSAGE) { /* nobody can follow this stream */
        stream->ended = true;
        stream->have = size = sizeof(m->header);
    }
    m->size = size - (uint32_t)sizeof(m->header);
    m->payload = malloc(m->size + 1u);
    if (m->payload == NULL) {
        free(m);
        return NULL;
    }
    memcpy(m->payload, stream->bytes + sizeof(m->header), m->size);
    take_fds(stream, m, stream->position + size);
    stream->position += size;
    stream->have -= size;
    memmove(stream->bytes, stream->bytes + size, stream->have);
    return m;
}

/* --- Sending ----------------------------------------------------------------------------------------------------- */

static ssize_t send_piece(int fd, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * OB_RAW_MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec iov = { (void *)(uintptr_t)bytes, size };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (nfds > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        control.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS,
                                          .cmsg_len = CMSG_LEN(sizeof(int) * nfds) };
        memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * nfds);
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int stream_send(struct stream *stream, const void *bytes, size_t size, const int *fds, unsigned nfds, int timeout_ms)
{
    while (size > 0) {
        ssize_t n = send_piece(stream->fd, bytes, size, fds, nfds);
        bool reads = !stream->ended && stream->have <= 2 * MAX_MESSAGE;
        struct pollfd pfd = { .fd = stream->fd, .events = POLLOUT | (reads ? POLLIN : 0) };

        if (n > 0) {
            bytes = (const char *)bytes + n;
            size -= (size_t)n;
            nfds = 0;
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -ENOTCONN;
        /* A client that sends and does not read meanwhile waits for us to read. */
        if (poll(&pfd, 1, timeout_ms) == 0)
            return -ETIMEDOUT;
        if (pfd.revents & POLLIN)
            stream_read(stream);
    }
    return 0;
}

void stream_wait_taken(struct stream *stream, int timeout_ms)
{
    /* Nothing tells when a peer reads. */
    for (int waited = 0; waited < timeout_ms * 10; waited++) {
        int left = 0;

        if (ioctl(stream->fd, SIOCOUTQ, &left) != 0 || left == 0)
            return;
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
}
