/* client.c: the connection of the raw client: sending in any shape, receiving as strictly as QEMU does, serving DMA. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

__attribute__((format(printf, 3, 4))) static int failed(struct ob_raw *raw, int err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(raw->why, sizeof(raw->why), format, args);
    va_end(args);
    if (raw->trace == NULL) {
        fprintf(stderr, "client: %s\n", raw->why);
    }
    return err;
}

void ob_raw_init(struct ob_raw *raw, int fd)
{
    *raw = (struct ob_raw){ .fd = fd, .timeout_ms = 20000, .next_id = 1 };
    raw->queue_tail = &raw->queue;
    raw->later_tail = &raw->later;
}

int ob_raw_connect(struct ob_raw *raw, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    ob_raw_init(raw, -1);
    if (strlen(path) >= sizeof(address.sun_path)) {
        return failed(raw, -ENAMETOOLONG, "%s is too long for a socket", path);
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int err = -errno;

        close(fd);
        return err;
    }
    raw->fd = fd;
    return 0;
}

void ob_raw_message_free(struct ob_raw_message *message)
{
    if (message == NULL) {
        return;
    }
    for (unsigned i = 0; i < message->nfds; i++) {
        if (message->fds[i] >= 0) {
            close(message->fds[i]);
        }
    }
    free(message->payload);
    free(message);
}

/* Takes the head of a queue, which is not empty. */
static struct ob_raw_message *dequeue(struct ob_raw_message **queue, struct ob_raw_message ***tail)
{
    struct ob_raw_message *message = *queue;

    *queue = message->next;
    if (*queue == NULL) {
        *tail = queue;
    }
    message->next = NULL;
    return message;
}

static void enqueue(struct ob_raw_message ***tail, struct ob_raw_message *message)
{
    **tail = message;
    *tail = &message->next;
}

void ob_raw_close(struct ob_raw *raw)
{
    while (raw->queue != NULL) {
        ob_raw_message_free(dequeue(&raw->queue, &raw->queue_tail));
    }
    while (raw->later != NULL) {
        ob_raw_message_free(dequeue(&raw->later, &raw->later_tail));
    }
    if (raw->fd >= 0) {
        close(raw->fd);
        raw->fd = -1;
    }
}

/* --- Receiving --------------------------------------------------------------------------------------------------- */

static int receive_or_serve(struct ob_raw *raw, int64_t deadline, struct ob_raw_message **message);

/* One command on the twin socket; what is none waits there for whoever receives from it. When the server has ended it,
 * it is looked at no more. */
static int serve_twin(struct ob_raw *raw, int64_t deadline)
{
    struct ob_raw *twin = raw->twin;
    struct ob_raw_message *message;
    int r = receive_or_serve(twin, deadline, &message);

    if (r == 0 && message != NULL) {
        r = failed(raw, -EPROTO, "command %u, flags %#x, on the twin socket", message->header.command,
                   message->header.flags);
        ob_raw_message_free(message);
    } else if (r < 0 && r != -ENOTCONN) {
        r = failed(raw, r, "the twin socket: %s", twin->why);
    }
    raw->twin = r < 0 ? NULL : twin;
    return r == -ENOTCONN ? 0 : r;
}

/* Waits for `events`; -ETIMEDOUT at the deadline. */
static int wait_for(struct ob_raw *raw, short events, int64_t deadline)
{
    for (;;) {
        bool both = raw->twin != NULL && raw->twin->dma != NULL;
        struct pollfd pfds[2] = { { .fd = raw->fd, .events = events },
                                  { .fd = both ? raw->twin->fd : -1, .events = POLLIN } };
        bool queued = both && raw->twin->queue != NULL; /* it came while an answer was being sent */
        int64_t left = deadline - now_ms();
        int n = poll(pfds, 2, queued || left < 0 ? 0 : (int)left);

        if (queued || (n > 0 && pfds[1].revents != 0)) {
            int r = serve_twin(raw, deadline);

            if (r < 0) {
                return r;
            }
        }
        if (n > 0 && pfds[0].revents != 0) {
            return pfds[0].revents;
        }
        if (n == 0 && !queued) {
            return failed(raw, -ETIMEDOUT, "nothing happened for %d ms", raw->timeout_ms);
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
    }
}

/* Closes what there is no room for. */
static void take_descriptors(struct ob_raw_message *message, const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (message->nfds < OB_RAW_MAX_FDS) {
            message->fds[message->nfds++] = fds[i];
        } else {
            close(fds[i]);
        }
    }
}

static int receive_piece(struct ob_raw *raw, struct ob_raw_message *message, void *to, size_t size)
{
    struct iovec iov = { .iov_base = to, .iov_len = size };
    union {
        char bytes[CMSG_SPACE(sizeof(int) * OB_RAW_MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n = recvmsg(raw->fd, &msg, MSG_CMSG_CLOEXEC);

    if (n < 0) {
        return errno == ECONNRESET ? -ENOTCONN : -errno;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            take_descriptors(message, (const int *)CMSG_DATA(c), (c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        }
    }
    if (msg.msg_flags & MSG_CTRUNC) {
        return failed(raw, -EPROTO, "more than %d descriptors at once", OB_RAW_MAX_FDS);
    }
    return n == 0 ? -ENOTCONN : (int)n;
}

static int receive_payload(struct ob_raw *raw, struct ob_raw_message *message, int64_t deadline)
{
    unsigned with_header = message->nfds;

    for (uint32_t have = 0; have < message->size;) {
        int n = wait_for(raw, POLLIN, deadline);

        if (n >= 0) {
            n = receive_piece(raw, message, message->payload + have, message->size - have);
        }
        if (n < 0) {
            return n;
        }
        if (message->nfds != with_header) {
            return failed(raw, -EPROTO, "descriptors in the middle of a message");
        }
        have += (uint32_t)n;
    }
    return 0;
}

static void trace_message(struct ob_raw *raw, const struct ob_raw_message *message)
{
    uint8_t start[sizeof(message->header) + 64];
    size_t size = message->payload == NULL ? 0 : message->size < 64 ? message->size : 64;

    memcpy(start, &message->header, sizeof(message->header));
    if (size > 0) {
        memcpy(start + sizeof(message->header), message->payload, size);
    }
    raw->trace(raw->trace_ctx, false, start, sizeof(message->header) + size, message->nfds);
}

/* Reads one whole message to the end of the queue. */
static int fetch(struct ob_raw *raw, int64_t deadline)
{
    struct ob_raw_message *message = calloc(1, sizeof(*message));
    int n;

    if (message == NULL) {
        return -ENOMEM;
    }
    n = wait_for(raw, POLLIN, deadline);
    if (n >= 0) {
        n = receive_piece(raw, message, &message->header, sizeof(message->header));
    }
    if (n >= 0 && n < (int)sizeof(message->header)) {
        n = failed(raw, -EPROTO, "a header in two segments: QEMU would end the session");
    }
    if (n >= 0 && (message->header.size < 16 || message->header.size > (64u << 20))) {
        n = failed(raw, -EPROTO, "a message of %u bytes", message->header.size);
    }
    if (n >= 0) {
        message->size = message->header.size - 16;
        message->payload = malloc(message->size + 1u);
        n = message->payload == NULL ? -ENOMEM : receive_payload(raw, message, deadline);
        if (n >= 0) {
            message->payload[message->size] = 0;
        }
    }
    if (raw->trace != NULL && message->header.size >= sizeof(message->header) && n != -ENOTCONN) {
        trace_message(raw, message);
    }
    if (n < 0) {
        ob_raw_message_free(message);
        return n;
    }
    enqueue(&raw->queue_tail, message);
    return 0;
}

/* 0, OB_RAW_LATER, or a violation. */
static int serve(struct ob_raw *raw, struct ob_raw_message *message)
{
    const struct ob_raw_header *header = &message->header;
    struct ob_raw_header reply = {
        .id = header->id, .command = header->command, .flags = OB_RAW_REPLY, .size = sizeof(reply)
    };
    bool write = header->command == OB_RAW_DMA_WRITE;
    struct ob_raw_dma dma;
    uint8_t *bytes;
    size_t size;
    int r;

    if (message->size < sizeof(dma)) {
        return failed(raw, -EPROTO, "a DMA command of %u bytes", header->size);
    }
    memcpy(&dma, message->payload, sizeof(dma));
    if (dma.count > (1u << 20) || (write ? message->size - sizeof(dma) != dma.count : message->size != sizeof(dma))) {
        return failed(raw, -EPROTO, "a DMA command of %u bytes for %llu", header->size, (unsigned long long)dma.count);
    }
    size = sizeof(reply) + sizeof(dma) + (write ? 0 : dma.count);
    bytes = malloc(sizeof(reply) + sizeof(dma) + dma.count);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    memcpy(bytes + sizeof(reply), &dma, sizeof(dma));
    r = raw->dma(raw->dma_ctx, write, dma.address, dma.count,
                 write ? message->payload + sizeof(dma) : bytes + sizeof(reply) + sizeof(dma));
    if (r == OB_RAW_LATER) {
        free(bytes);
        return r;
    }
    reply.size = r == 0 ? (uint32_t)size : sizeof(reply);
    reply.error = (uint32_t)r;
    reply.flags |= r == 0 ? 0 : OB_RAW_ERROR;
    memcpy(bytes, &reply, sizeof(reply));
    r = header->flags & OB_RAW_NO_REPLY ? 0 : ob_raw_send(raw, bytes, reply.size, NULL, 0);
    free(bytes);
    return r;
}

/* As ob_raw_receive(); *message is NULL after a DMA command has been served. */
static int receive_or_serve(struct ob_raw *raw, int64_t deadline, struct ob_raw_message **message)
{
    int r = raw->queue == NULL ? fetch(raw, deadline) : 0;

    *message = NULL;
    if (r < 0) {
        return r;
    }
    *message = dequeue(&raw->queue, &raw->queue_tail);
    if (raw->dma != NULL && ((*message)->header.flags & OB_RAW_TYPE_MASK) == 0 &&
        ((*message)->header.command == OB_RAW_DMA_READ || (*message)->header.command == OB_RAW_DMA_WRITE)) {
        r = serve(raw, *message);
        raw->dma_served++;
        if (r == OB_RAW_LATER) {
            enqueue(&raw->later_tail, *message);
            r = 0;
        } else {
            ob_raw_message_free(*message);
        }
        *message = NULL;
    }
    return r;
}

struct ob_raw_message *ob_raw_later(struct ob_raw *raw)
{
    return raw->later == NULL ? NULL : dequeue(&raw->later, &raw->later_tail);
}

int ob_raw_receive(struct ob_raw *raw, struct ob_raw_message **message)
{
    int64_t deadline = now_ms() + raw->timeout_ms;
    int r;

    do {
        r = receive_or_serve(raw, deadline, message);
    } while (r == 0 && *message == NULL);
    return r;
}

int ob_raw_serve_dma(struct ob_raw *raw, unsigned total)
{
    int64_t deadline = now_ms() + raw->timeout_ms;

    while (raw->dma_served < total) {
        struct ob_raw_message *message;
        int r = receive_or_serve(raw, deadline, &message);

        if (r == 0 && message != NULL) {
            r = failed(raw, -EPROTO, "command %u instead of DMA", message->header.command);
            ob_raw_message_free(message);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static bool has_come(const struct ob_raw *raw)
{
    struct pollfd pfd = { .fd = raw->fd, .events = POLLIN };

    return raw->dma != NULL && (raw->queue != NULL || poll(&pfd, 1, 0) == 1);
}

int ob_raw_serve_ready(struct ob_raw *raw)
{
    int r = 0;

    while (r == 0 && raw->twin != NULL && has_come(raw->twin)) {
        r = serve_twin(raw, now_ms() + raw->timeout_ms);
    }
    while (r == 0 && has_come(raw)) {
        r = ob_raw_serve_dma(raw, raw->dma_served + 1);
    }
    return r;
}

int ob_raw_answer_later(struct ob_raw *raw)
{
    struct ob_raw_message *message;
    int r = 0;

    while (r == 0 && (message = ob_raw_later(raw)) != NULL) {
        r = serve(raw, message);
        ob_raw_message_free(message);
    }
    return r == OB_RAW_LATER ? failed(raw, -EPROTO, "a DMA command was put off twice") : r;
}

void ob_raw_leave(struct ob_raw *raw, int timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;
    struct pollfd pfd = { .fd = raw->fd, .events = POLLIN };
    struct ob_raw_message *rest = calloc(1, sizeof(*rest)); /* for descriptors */
    int64_t left;
    int n = rest == NULL || shutdown(raw->fd, SHUT_WR) != 0 ? -1 : 0;

    while (n >= 0 && (left = deadline - now_ms()) > 0 && poll(&pfd, 1, (int)left) == 1) {
        uint8_t bytes[4096];

        n = receive_piece(raw, rest, bytes, sizeof(bytes));
    }
    ob_raw_message_free(rest);
    ob_raw_close(raw);
}

int ob_raw_wait_closed(struct ob_raw *raw, unsigned *messages)
{
    struct ob_raw_message *message;
    unsigned count = 0;
    int r;

    while ((r = ob_raw_receive(raw, &message)) == 0) {
        ob_raw_message_free(message);
        count++;
    }
    if (messages != NULL) {
        *messages = count;
    }
    return r == -ENOTCONN ? 0 : r;
}

/* --- Sending ----------------------------------------------------------------------------------------------------- */

static ssize_t send_piece(struct ob_raw *raw, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = size };
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 256)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (nfds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        *CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                                                 .cmsg_type = SCM_RIGHTS,
                                                 .cmsg_len = CMSG_LEN(sizeof(int) * nfds) };
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(int) * nfds);
    }
    n = sendmsg(raw->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
        return errno == EPIPE || errno == ECONNRESET ? -ENOTCONN : -errno;
    }
    return n;
}

ssize_t ob_raw_send_some(struct ob_raw *raw, const void *bytes, size_t size)
{
    ssize_t n = send_piece(raw, bytes, size, NULL, 0);

    return n == -EAGAIN ? 0 : n;
}

int ob_raw_send(struct ob_raw *raw, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    int64_t deadline = now_ms() + raw->timeout_ms;

    if (raw->trace != NULL) {
        raw->trace(raw->trace_ctx, true, bytes, size, nfds);
    }
    while (size > 0) {
        ssize_t n = send_piece(raw, bytes, size, fds, nfds);

        if (n >= 0) {
            bytes = (const char *)bytes + n;
            size -= (size_t)n;
            nfds = 0;
            continue;
        }
        if (n != -EAGAIN) {
            return (int)n;
        }
        /* A server that is not read from stops reading: take what it has sent while waiting for room. */
        n = wait_for(raw, POLLIN | POLLOUT, deadline);
        if (n >= 0 && (n & POLLIN)) {
            n = fetch(raw, deadline);
        }
        if (n < 0) {
            return (int)n;
        }
    }
    return 0;
}

size_t ob_raw_build(void *to, uint16_t id, uint16_t command, uint32_t flags, const void *payload, size_t size)
{
    struct ob_raw_header header = {
        .id = id, .command = command, .flags = flags, .size = (uint32_t)(sizeof(header) + size)
    };

    memcpy(to, &header, sizeof(header));
    if (size > 0) {
        memcpy((char *)to + sizeof(header), payload, size);
    }
    return header.size;
}

int ob_raw_request(struct ob_raw *raw, uint16_t command, uint32_t flags, const void *payload, size_t size,
                   const int *fds, unsigned nfds, uint16_t *id)
{
    uint8_t *bytes = malloc(sizeof(struct ob_raw_header) + size);
    int r;

    if (bytes == NULL) {
        return -ENOMEM;
    }
    if (id != NULL) {
        *id = raw->next_id;
    }
    size = ob_raw_build(bytes, raw->next_id++, command, flags, payload, size);
    r = ob_raw_send(raw, bytes, size, fds, nfds);
    free(bytes);
    return r;
}

int ob_raw_reply(struct ob_raw *raw, uint16_t id, uint16_t command, struct ob_raw_message **reply)
{
    struct ob_raw_message *message;
    const struct ob_raw_header *header;
    int r = ob_raw_receive(raw, &message);

    if (r < 0) {
        return r;
    }
    header = &message->header;
    if (header->id != id || header->command != command) {
        r = failed(raw, -EPROTO, "reply to id %u command %u, not to id %u command %u", header->id, header->command, id,
                   command);
    } else if (header->flags == (OB_RAW_REPLY | OB_RAW_ERROR) || (raw->lenient && header->flags == OB_RAW_ERROR)) {
        const bool is_errno = header->error > 0 && header->error < 4096;

        r = is_errno ? (int)header->error : OB_RAW_NO_ERRNO;
        if (!raw->lenient && (!is_errno || header->size != sizeof(*header) || message->nfds != 0)) {
            r = failed(raw, -EPROTO, "error reply of %u bytes, error %u, %u descriptors", header->size, header->error,
                       message->nfds);
        }
    } else if (header->flags != OB_RAW_REPLY || header->error != 0) {
        r = failed(raw, -EPROTO, "reply with flags %#x, error %u", header->flags, header->error);
    } else if (reply != NULL) {
        *reply = message;
        return 0;
    }
    ob_raw_message_free(message);
    return r;
}

int ob_raw_call(struct ob_raw *raw, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds,
                struct ob_raw_message **reply)
{
    uint16_t id;
    int r = ob_raw_request(raw, command, 0, payload, size, fds, nfds, &id);

    return r < 0 ? r : ob_raw_reply(raw, id, command, reply);
}

int ob_raw_silent(struct ob_raw *raw)
{
    struct vfio_device_info info;

    return ob_raw_device_info(raw, &info);
}
