/* Sends bytes, with descriptors or without; see sender.h. */
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

ssize_t ob_send_with_fds(int fd, const void *buf, size_t len, const int *passed, unsigned count)
{
    union {
        struct cmsghdr header; /* aligns the buffer */
        unsigned char bytes[CMSG_SPACE(OB_SEND_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes };
    ssize_t sent;

    if (len == 0 || count == 0 || count > OB_SEND_MAX_FDS) /* descriptors need a byte to ride on */
        return -EINVAL;
    msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
    memset(control.bytes, 0, msg.msg_controllen);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(cmsg), passed, count * sizeof(int));
    sent = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}
