/* Sends bytes, with a descriptor or without; see sender.h. */
#include "transport/sender.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

ssize_t ob_send_bytes(int fd, const void *buf, size_t len)
{
    ssize_t sent;

    if (len == 0)
        return -EINVAL;
    sent = send(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

ssize_t ob_send_with_fd(int fd, const void *buf, size_t len, int passed)
{
    union {
        struct cmsghdr header; /* aligns the buffer */
        unsigned char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    ssize_t sent;

    if (len == 0) /* a descriptor needs a byte to ride on */
        return -EINVAL;
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &passed, sizeof(int));
    sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}
