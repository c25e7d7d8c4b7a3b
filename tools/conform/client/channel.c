/* channel.c: the bytes and descriptors of a socket, and the messages in them. */
#include "channel.h"

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

void channel_open(struct channel *channel, int fd)
{
    *channel = (struct channel){ .fd = fd, .ended = fd < 0 };
}

void channel_close(struct channel *channel)
{
    for (unsigned i = 0; i < channel->nfds; i++)
        close(channel->fds[i].fd);
    if (channel->fd >= 0)
        close(channel->fd);
    free(channel->bytes);
    *channel = (struct channel){ .fd = -1, .ended = true };
}

/* --- Receiving --------------------------------------------------------------------------------------------------- */

static void take_descriptors(struct channel *channel, const struct cmsghdr *control, uint64_t at)
{
    size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    for (size_t i = 0; i < count; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
        if (channel->nfds == CHANNEL_MAX_FDS) {
            close(fd);
            continue;
        }
        channel->fds[channel->nfds].at = at;
        channel->fds[channel->nfds++].fd = fd;
    }
}

static bool make_room(struct channel *channel)
{
    uint8_t *bytes;

    if (channel->room - channel->have >= PIECE)
        return true;
    bytes = realloc(channel->bytes, channel->have + 2 * PIECE);
    if (bytes == NULL)
        return false;
    channel->bytes = bytes;
    channel->room = channel->have + 2 * PIECE;
    return true;
}

void channel_read(struct channel *channel)
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

    if (channel->ended || channel->have > 2 * MAX_MESSAGE || !make_room(channel))
        return;
    iov = (struct iovec){ channel->bytes + channel->have, PIECE };
    n = recvmsg(channel->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        channel->ended = true;
        return;
    }
    /* Linux ends a read with the segment that carried descriptors: they came with its last byte or before. */
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            take_descriptors(channel, c, channel->position + channel->have + (size_t)n - 1);
    }
    channel->have += (size_t)n;
}

/* Of the first message, as its header says; 0: it is not there yet. */
static uint32_t first_size(const struct channel *channel)
{
    uint32_t size;

    if (channel->have < sizeof(struct ob_raw_header))
        return 0;
    memcpy(&size, channel->bytes + offsetof(struct ob_raw_header, size), sizeof(size));
    if (size >= sizeof(struct ob_raw_header) && size <= MAX_MESSAGE)
        return size > channel->have ? 0 : size;
    return size == 0 ? UINT32_MAX : size;
}

bool channel_ready(const struct channel *channel)
{
    return first_size(channel) > 0;
}

static void take_fds(struct channel *channel, struct ob_raw_message *m, uint64_t end)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < channel->nfds; i++) {
        if (channel->fds[i].at >= end)
            channel->fds[kept++] = channel->fds[i];
        else if (m->nfds < OB_RAW_MAX_FDS)
            m->fds[m->nfds++] = channel->fds[i].fd;
        else
            close(channel->fds[i].fd);
    }
    channel->nfds = kept;
}

struct ob_raw_message *channel_take(struct channel *channel)
{
    uint32_t size = first_size(channel);
    struct ob_raw_message *m = size > 0 ? calloc(1, sizeof(*m)) : NULL;

    if (m == NULL)
        return NULL;
    memcpy(&m->header, channel->bytes, sizeof(m->header));
    if (size < sizeof(m->header) || size > MAX_MESSAGE) { /* nobody can follow this channel */
        channel->ended = true;
        channel->have = size = sizeof(m->header);
    }
    m->size = size - (uint32_t)sizeof(m->header);
    m->payload = malloc(m->size + 1u);
    if (m->payload == NULL) {
        free(m);
        return NULL;
    }
    memcpy(m->payload, channel->bytes + sizeof(m->header), m->size);
    take_fds(channel, m, channel->position + size);
    channel->position += size;
    channel->have -= size;
    memmove(channel->bytes, channel->bytes + size, channel->have);
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

int channel_send(struct channel *channel, const void *bytes, size_t size, const int *fds, unsigned nfds, int timeout_ms)
{
    while (size > 0) {
        ssize_t n = send_piece(channel->fd, bytes, size, fds, nfds);
        bool reads = !channel->ended && channel->have <= 2 * MAX_MESSAGE;
        struct pollfd pfd = { .fd = channel->fd, .events = POLLOUT | (reads ? POLLIN : 0) };

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
            channel_read(channel);
    }
    return 0;
}

bool channel_wait_taken(struct channel *channel, int timeout_ms)
{
    /* Nothing tells when a peer reads. */
    for (int waited = 0; waited < timeout_ms * 10; waited++) {
        int left = 0;

        if (ioctl(channel->fd, SIOCOUTQ, &left) != 0 || left == 0)
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    return false;
}
