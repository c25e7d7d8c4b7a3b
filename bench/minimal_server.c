/* minimal_server: the bound for any vfio-user server: one recvmsg for what is there, one send of replies with the right
 * sizes, and no checks whatever. It believes every byte: for the benchmark's own client only.
 *
 * minimal_server --fd=N [--poll]    N: a listening socket; --poll: never sleeps */
#include "raw/wire.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t in[1 << 20], out[1 << 20];

static const char capabilities[] = "{\"capabilities\":{\"max_msg_fds\":8,\"write_multiple\":true}}";

/* Appends the reply to the message at `p`; returns its size. */
static size_t answer(uint8_t *to, const uint8_t *p, const struct ob_raw_header *header)
{
    struct ob_raw_header reply = { .id = header->id, .command = header->command, .flags = OB_RAW_REPLY };
    const uint32_t device[] = { 16, VFIO_DEVICE_FLAGS_PCI, 9, 0 };
    struct vfio_region_info info = { .argsz = sizeof(info), .flags = VFIO_REGION_INFO_FLAG_READ, .size = 4096 };
    struct ob_raw_region region;
    size_t size = sizeof(reply);

    switch (header->command) {
    case OB_RAW_VERSION:
        memset(to + size, 0, sizeof(struct ob_raw_version));
        memcpy(to + size + sizeof(struct ob_raw_version), capabilities, sizeof(capabilities));
        size += sizeof(struct ob_raw_version) + sizeof(capabilities);
        break;
    case OB_RAW_GET_INFO:
        memcpy(to + size, &device, sizeof(device));
        size += sizeof(device);
        break;
    case OB_RAW_GET_REGION_INFO:
        memcpy(&info.index, p + size + offsetof(struct vfio_region_info, index), sizeof(info.index));
        memcpy(to + size, &info, sizeof(info));
        size += sizeof(info);
        break;
    case OB_RAW_REGION_READ:
        memcpy(&region, p + size, sizeof(region));
        memcpy(to + size, &region, sizeof(region));
        memset(to + size + sizeof(region), 0, region.count);
        size += sizeof(region) + region.count;
        break;
    case OB_RAW_REGION_WRITE:
        memcpy(to + size, p + size, sizeof(region));
        size += sizeof(region);
        break;
    case OB_RAW_DMA_UNMAP:
        memcpy(to + size, p + size, sizeof(struct ob_raw_dma_unmap));
        size += sizeof(struct ob_raw_dma_unmap);
        break;
    default:
        break;
    }
    reply.size = (uint32_t)size;
    memcpy(to, &reply, sizeof(reply));
    return size;
}

static void close_descriptors(struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            close(((const int *)CMSG_DATA(c))[i]);
        }
    }
}

/* Until the client goes. */
static int serve(int fd, bool poll)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
        struct cmsghdr align;
    } control;
    size_t have = 0;

    for (;;) {
        struct iovec iov = { .iov_base = in + have, .iov_len = sizeof(in) - have };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        size_t at = 0, size = 0;
        ssize_t n = recvmsg(fd, &msg, poll ? MSG_DONTWAIT : 0);
        struct ob_raw_header header;

        if (n < 0 && errno == EAGAIN) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? 0 : 1;
        }
        close_descriptors(&msg);
        have += (size_t)n;
        while (have - at >= sizeof(header)) {
            memcpy(&header, in + at, sizeof(header));
            if (have - at < header.size) {
                break;
            }
            if (!(header.flags & OB_RAW_NO_REPLY)) {
                size += answer(out + size, in + at, &header);
            }
            at += header.size;
        }
        memmove(in, in + at, have - at);
        have -= at;
        if (size > 0 && send(fd, out, size, MSG_NOSIGNAL) != (ssize_t)size) {
            return 1;
        }
    }
}

int main(int argc, char **argv)
{
    bool poll = false;
    int listening = -1, fd;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--fd=", 5) == 0) {
            listening = atoi(argv[i] + 5);
        } else if (strcmp(argv[i], "--poll") == 0) {
            poll = true;
        } else {
            fprintf(stderr, "usage: minimal_server --fd=N [--poll]\n");
            return 2;
        }
    }
    fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        perror("minimal_server: accept");
        return 1;
    }
    return serve(fd, poll);
}
