/* Receives bytes into the caller's room and gives descriptors to the messages they came with; receiver.h has the
 * theory. */
#include "transport/receiver.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where recvmsg() puts descriptors. One more than is allowed fits, so that a peer that sends too many can be told from
 * this process being out of descriptors: the kernel says MSG_CTRUNC for both. */
union control {
    struct cmsghdr header; /* aligns the buffer */
    unsigned char bytes[CMSG_SPACE(sizeof(int) * (OB_RECEIVER_MAX_FDS + 1))];
};

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static struct ob_fd_batch *batch_at(struct ob_receiver *receiver, unsigned i)
{
    return &receiver->batches[(receiver->first + i) % OB_RECEIVER_MAX_BATCHES];
}

static void drop_first(struct ob_receiver *receiver)
{
    receiver->first = (receiver->first + 1) % OB_RECEIVER_MAX_BATCHES;
    receiver->queued--;
}

/* Whether the headers of all messages that have a byte in the batch's range are known. */
static bool is_decided(const struct ob_receiver *receiver, const struct ob_fd_batch *batch)
{
    return batch->end <= receiver->noted || receiver->ended;
}

/* Makes the message noted last the owner of a batch, if it may carry descriptors and has a byte in the range. */
static void offer(const struct ob_receiver *receiver, struct ob_fd_batch *batch)
{
    if (receiver->last_may_carry && receiver->last_start < batch->end && batch->start < receiver->noted)
        batch->owner = receiver->last_start;
}

void ob_receiver_init(struct ob_receiver *receiver)
{
    memset(receiver, 0, sizeof(*receiver));
}

void ob_receiver_close(struct ob_receiver *receiver)
{
    for (; receiver->queued > 0; drop_first(receiver))
        close_all(batch_at(receiver, 0)->fds, batch_at(receiver, 0)->count);
}

/* Collects the descriptors that came with a read; `room` has space for as many as the control buffer. */
static unsigned take_fds(struct msghdr *msg, int *room)
{
    unsigned count = 0;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
            size_t bytes = cmsg->cmsg_len - CMSG_LEN(0);

            memcpy(room + count, CMSG_DATA(cmsg), bytes);
            count += bytes / sizeof(int);
        }
    }
    return count;
}

/* Queues the descriptors that came with the `len` bytes before `position`, or closes them and says why not. */
static int queue_fds(struct ob_receiver *receiver, struct msghdr *msg, size_t len)
{
    int fds[sizeof(union control) / sizeof(int)];
    unsigned count = take_fds(msg, fds);
    struct ob_fd_batch *batch;
    int error = 0;

    if (count > OB_RECEIVER_MAX_FDS)
        error = -E2BIG;
    else if (msg->msg_flags & MSG_CTRUNC)
        error = -EMFILE;
    else if (count > 0 && receiver->queued == OB_RECEIVER_MAX_BATCHES)
        error = -ENOBUFS;
    if (error || count == 0) {
        close_all(fds, count);
        return error;
    }
    batch = batch_at(receiver, receiver->queued);
    batch->start = receiver->position - len;
    batch->end = receiver->position;
    batch->owner = OB_RECEIVER_NO_OWNER;
    offer(receiver, batch);
    if (batch->owner == OB_RECEIVER_NO_OWNER && is_decided(receiver, batch)) {
        close_all(fds, count); /* in the middle of a message that carries none */
        return 0;
    }
    batch->count = count;
    memcpy(batch->fds, fds, count * sizeof(int));
    receiver->queued++;
    return 0;
}

static ssize_t receive(struct ob_receiver *receiver, int fd, void *room, size_t len, int flags)
{
    union control control;
    struct iovec iov = { .iov_base = room, .iov_len = len };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    ssize_t got;
    int error;

    if (len == 0) /* would look like the end of the stream */
        return -EINVAL;
    got = recvmsg(fd, &msg, flags | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    if (got == 0)
        receiver->ended = true;
    receiver->position += (size_t)got;
    if (msg.msg_controllen > 0 || (msg.msg_flags & MSG_CTRUNC)) {
        error = queue_fds(receiver, &msg, (size_t)got);
        if (error)
            return error;
    }
    return got;
}

ssize_t ob_receive(struct ob_receiver *receiver, int fd, void *room, size_t len)
{
    return receive(receiver, fd, room, len, MSG_DONTWAIT);
}

ssize_t ob_receive_wait(struct ob_receiver *receiver, int fd, void *room, size_t len)
{
    return receive(receiver, fd, room, len, 0);
}

ssize_t ob_receive_bytes(int fd, void *room, size_t len)
{
    if (len == 0)
        return -EINVAL;
    ssize_t got = recv(fd, room, len, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}

const struct ob_fd_batch *ob_receiver_newest(const struct ob_receiver *receiver)
{
    return &receiver->batches[(receiver->first + receiver->queued - 1) % OB_RECEIVER_MAX_BATCHES];
}

int ob_receiver_restore(struct ob_receiver *receiver, uint64_t start, uint64_t end, const int *fds, unsigned count)
{
    if (receiver->queued == OB_RECEIVER_MAX_BATCHES)
        return -ENOBUFS;
    struct ob_fd_batch *batch = batch_at(receiver, receiver->queued++);
    *batch = (struct ob_fd_batch){ .start = start, .end = end, .owner = OB_RECEIVER_NO_OWNER, .count = count };
    memcpy(batch->fds, fds, count * sizeof(int));
    return 0;
}

void ob_receiver_assign(struct ob_receiver *receiver)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < receiver->queued; i++) {
        struct ob_fd_batch *batch = batch_at(receiver, i);

        offer(receiver, batch);
        if (batch->owner == OB_RECEIVER_NO_OWNER && is_decided(receiver, batch)) {
            close_all(batch->fds, batch->count); /* no message in the range may carry them */
            continue;
        }
        if (kept != i)
            *batch_at(receiver, kept) = *batch;
        kept++;
    }
    receiver->queued = kept;
}

int ob_receiver_claim(struct ob_receiver *receiver, uint64_t start, int *fds, unsigned max)
{
    unsigned count = 0, batches = 0;

    /* Batches are in the order of the stream, and so are their owners; NO_OWNER is above every position. */
    for (; receiver->queued > 0 && batch_at(receiver, 0)->owner < start; drop_first(receiver))
        close_all(batch_at(receiver, 0)->fds, batch_at(receiver, 0)->count);
    for (; batches < receiver->queued && batch_at(receiver, batches)->owner == start; batches++) {
        if (!is_decided(receiver, batch_at(receiver, batches)))
            return -EAGAIN;
        count += batch_at(receiver, batches)->count;
    }
    for (unsigned done = 0; batches > 0; batches--, drop_first(receiver)) {
        const struct ob_fd_batch *batch = batch_at(receiver, 0);

        if (count > max) {
            close_all(batch->fds, batch->count);
        } else {
            memcpy(fds + done, batch->fds, batch->count * sizeof(int));
            done += batch->count;
        }
    }
    return count > max ? -E2BIG : (int)count;
}
