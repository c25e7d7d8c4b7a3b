/* Sends replies from the caller's buffer: many in one system call, or one with its descriptors.
 *
 * QEMU reads the 16 bytes of a header with one call and gives the session up when it gets fewer, so no header may lie
 * across two segments. Linux makes one segment of a sendmsg() of up to 32 KiB and accepts it whole or not at all
 * (as long as SO_SNDBUF is above 64 KiB + 128; the default is 208 KiB); a larger one it cuts, and may accept in part.
 * So messages are gathered while OB_SEND_BATCH allows, and a larger message goes by itself: a cut then falls into its
 * payload. When a send did go out in part, the rest is sent before anything else, with ob_send_bytes(). */
#ifndef OB_TRANSPORT_SENDER_H
#define OB_TRANSPORT_SENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The most bytes of several messages sent with one call. */
#define OB_SEND_BATCH 32768

/* Whether a message of `next` bytes may be sent by the call that sends the `gathered` bytes of messages before it. */
static inline bool ob_send_joins(size_t gathered, size_t next)
{
    return gathered == 0 || (gathered < OB_SEND_BATCH && next <= OB_SEND_BATCH - gathered);
}

/* Sends buf[0..len), `len` not 0, to the socket `fd` with one system call, without waiting and without SIGPIPE.
 * Returns how many bytes went, which may be fewer; or -EAGAIN when the peer does not read (wait for EPOLLOUT), -EINTR,
 * -EPIPE or -ECONNRESET when it is gone, -EINVAL when `len` is 0. Any thread, one at a time for each socket. */
ssize_t ob_send_bytes(int fd, const void *buf, size_t len);

/* The most descriptors that go with one message: Linux takes no more. */
#define OB_SEND_MAX_FDS 253u

/* The same with the `count` descriptors in `passed`, for one message and nothing else in `buf`. They stay the caller's.
 * They have gone with the first byte: when fewer bytes went than asked, the rest is sent with ob_send_bytes(). Also
 * -EINVAL when `count` is 0 or above OB_SEND_MAX_FDS, -EBADF when one is not open, and -ETOOMANYREFS when too many
 * descriptors are on their way. */
ssize_t ob_send_with_fds(int fd, const void *buf, size_t len, const int *passed, unsigned count);

#endif
