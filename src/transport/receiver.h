/* Takes bytes and descriptors off a stream socket, and says which message each descriptor belongs to.
 *
 * Theory of operation. A descriptor rides on a byte of the stream, but all that recvmsg() tells is that it rode on
 * some byte of the read. Three facts about Linux narrow it down:
 *   - a read goes across segments (one sendmsg() is one segment, or several when it is large), but never beyond a
 *     segment that carried descriptors; so the descriptors of a read came with its last segment, and one read never
 *     mixes the descriptors of two sendmsg() calls;
 *   - the descriptors of a sendmsg() ride on its first segment, and a read that takes any byte of it takes them all;
 *   - when the reader's room ends inside that segment, the rest of it comes with the next read, without descriptors.
 * A peer attaches descriptors to the bytes of the message they are for, so the message is looked for from the end of
 * the read backwards: descriptors that came with the bytes [start, end) of the stream belong to the last message that
 * has a byte in [start, end) and whose command may carry descriptors. When a sender puts several such messages and
 * their descriptors into one sendmsg(), all of them go to the last.
 *
 * For descriptors that came with a byte of their message, and of no later one that may carry some, the answer is the
 * same however late the reader looks, however the messages were cut, and on whichever piece the descriptors came. The
 * price is that a read which ends in the middle of a header leaves the answer open until that header is complete:
 * taking the message before it instead would give the memory of one DMA_MAP to another whenever the reader's room
 * happens to end a few bytes into the second. Only a message that would otherwise get the descriptors waits for this,
 * and a peer that does not finish a header stalls only itself.
 *
 * The caller owns the bytes and finds the messages in them; the receiver keeps the descriptors that arrived, as batches
 * with the range of the read. The calls, in order:
 *   ob_receive()         one system call; everything that has arrived and fits
 *   ob_receiver_note()   for every message whose header is now complete, in order, before any of them is executed
 *   ob_receiver_claim()  for every complete message whose command may carry descriptors, in order, valid or not
 * Descriptors that belong to no message are closed as soon as that is known. Nothing here is thread-safe: a receiver is
 * used by one thread at a time. */
#ifndef OB_TRANSPORT_RECEIVER_H
#define OB_TRANSPORT_RECEIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The most descriptors taken with one message; a server announces no more than this as its max_msg_fds. */
#define OB_RECEIVER_MAX_FDS 16
/* The most batches that wait for their message. A message needs one; more are only kept for peers that cut messages
 * into small pieces with descriptors on each. */
#define OB_RECEIVER_MAX_BATCHES 16

#define OB_RECEIVER_NO_OWNER UINT64_MAX

/* Descriptors of one read, which returned the bytes [start, end) of the stream. Private to the receiver. */
struct ob_fd_batch {
    uint64_t start, end;
    uint64_t owner; /* where the message begins that gets them, as far as is noted; or OB_RECEIVER_NO_OWNER */
    unsigned count;
    int fds[OB_RECEIVER_MAX_FDS];
};

/* Positions are bytes since the connection began. Read `position` freely; the rest is private. */
struct ob_receiver {
    uint64_t position;   /* bytes received */
    uint64_t noted;      /* end of the last message noted: where the next one begins */
    uint64_t last_start; /* the last message noted: where it begins, */
    bool last_may_carry; /* and whether its command may carry descriptors */
    bool ended;          /* no more bytes will come */
    unsigned first, queued;
    struct ob_fd_batch batches[OB_RECEIVER_MAX_BATCHES]; /* a ring, in the order of the stream */
};

/* Makes a receiver for a new connection: position 0, no descriptors. */
void ob_receiver_init(struct ob_receiver *receiver);

/* Closes every descriptor that is still queued. The receiver may then be initialised again. */
void ob_receiver_close(struct ob_receiver *receiver);

/* Reads once from the socket `fd`, without waiting, at most `len` (not 0) bytes into `room`; `position` grows by the
 * result. Descriptors are received close-on-exec and queued.
 * Returns the number of bytes, or 0 when the peer has closed its side, or
 *   -EAGAIN   nothing has arrived; wait with poll or epoll
 *   -EINTR    a signal came first; call again
 *   -EINVAL   `len` is 0
 *   -E2BIG    the peer sent more than OB_RECEIVER_MAX_FDS descriptors at once
 *   -EMFILE   this process is out of descriptors (raise RLIMIT_NOFILE)
 *   -ENOBUFS  the peer sends descriptors without the messages they belong to
 *   other     what recvmsg says, such as -ECONNRESET
 * After -E2BIG, -EMFILE and -ENOBUFS the bytes and descriptors of this read are lost: end the connection. */
ssize_t ob_receive(struct ob_receiver *receiver, int fd, void *room, size_t len);

/* The same, but waits for the first byte on a blocking socket, as long as its SO_RCVTIMEO says; then -EAGAIN. */
ssize_t ob_receive_wait(struct ob_receiver *receiver, int fd, void *room, size_t len);

/* Reads once, without waiting, from a socket on which no message carries descriptors: the kernel closes those that come
 * all the same. Bytes, 0 when the peer has closed its side, -EAGAIN, -EINTR, or what recv says; -EINVAL: `len` is 0. */
ssize_t ob_receive_bytes(int fd, void *room, size_t len);

/* The part of ob_receiver_note() for when descriptors wait; not for callers. */
void ob_receiver_assign(struct ob_receiver *receiver);

/* The batch that the last ob_receive() queued; only if it did (`queued` grew). */
const struct ob_fd_batch *ob_receiver_newest(const struct ob_receiver *receiver);

/* For a receiver that goes on with another's connection: descriptors that came with [start, end) and were not claimed,
 * in the order of the stream, before anything is noted or received. `count` at most OB_RECEIVER_MAX_FDS; owned by the
 * receiver. -ENOBUFS when too many batches wait. */
int ob_receiver_restore(struct ob_receiver *receiver, uint64_t start, uint64_t end, const int *fds, unsigned count);

/* Tells that the header of the next message is complete. The message begins where the one noted before it ends (the
 * first at 0) and is `size` (not 0) bytes long, header and payload, whether these have arrived or not. `may_carry` says
 * whether its command may carry descriptors: the protocol's table knows; false for a command that is not known. */
static inline void ob_receiver_note(struct ob_receiver *receiver, uint32_t size, bool may_carry)
{
    receiver->last_start = receiver->noted;
    receiver->last_may_carry = may_carry;
    receiver->noted += size;
    if (receiver->queued > 0)
        ob_receiver_assign(receiver);
}

/* Moves the descriptors of the message that begins at `start` to fds[0..max); the caller owns and closes them. To be
 * called once the whole message has arrived, and in the order of the stream: descriptors of messages before it that
 * were not claimed are closed. Returns how many there are, or -EAGAIN  whose they are depends on a header that is still
 * incomplete; nothing has moved: receive, note and claim again before this message is executed -E2BIG   the message
 * came with more than `max`; all of them have been closed */
int ob_receiver_claim(struct ob_receiver *receiver, uint64_t start, int *fds, unsigned max);

#endif
