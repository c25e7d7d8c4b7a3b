/* The server's end of a client's socket; see client_script.h. */
#include "client_script.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

int script_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

static void send_on(int fd, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    union {
        struct cmsghdr header;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * 32)];
    } control = { 0 };
    size_t done = 0;

    while (done < size) {
        struct iovec iov = { (uint8_t *)(uintptr_t)bytes + done, size - done };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        if (nfds > 0 && done == 0) {
            struct cmsghdr *cmsg = &control.header;

            msg.msg_control = &control;
            msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
            cmsg->cmsg_level = SOL_SOCKET;
            cmsg->cmsg_type = SCM_RIGHTS;
            cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
            memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nfds);
        }
        n = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the client is gone, which its test sees */
        done += (size_t)n;
    }
}

void script_send(struct script *script, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    send_on(script->fd, bytes, size, fds, nfds);
}

static uint8_t *put_together(const struct ob_header *header, const void *payload, size_t size)
{
    uint8_t *bytes = malloc(sizeof(*header) + size);

    if (!bytes)
        abort();
    memcpy(bytes, header, sizeof(*header));
    if (size > 0)
        memcpy(bytes + sizeof(*header), payload, size);
    return bytes;
}

void script_reply(struct script *script, const struct ob_header *to, const void *payload, size_t size, const int *fds,
                  unsigned nfds)
{
    struct ob_header header = { to->id, to->command, (uint32_t)(sizeof(header) + size), OB_FLAG_REPLY, 0 };
    uint8_t *bytes = put_together(&header, payload, size);

    script_send(script, bytes, header.size, fds, nfds);
    free(bytes);
}

void script_refuse(struct script *script, const struct ob_header *to, uint32_t err)
{
    struct ob_header header = { to->id, to->command, sizeof(header), OB_FLAG_REPLY | OB_FLAG_ERROR, err };

    script_send(script, &header, sizeof(header), NULL, 0);
}

void script_command(struct script *script, uint16_t id, uint16_t command, const void *payload, size_t size)
{
    struct ob_header header = { id, command, (uint32_t)(sizeof(header) + size), 0, 0 };
    uint8_t *bytes = put_together(&header, payload, size);

    send_on(script->twin >= 0 ? script->twin : script->fd, bytes, header.size, NULL, 0);
    free(bytes);
}

/* --- The plain device -------------------------------------------------------------------------------------------- */

static void plain_version(struct script *script, const struct ob_header *header)
{
    const char *text = script->capabilities ? script->capabilities : "{\"capabilities\":{\"max_msg_fds\":8}}";
    uint8_t payload[1024] = { 0 };

    memcpy(payload + 4, text, strlen(text) + 1);
    script_reply(script, header, payload, 4 + strlen(text) + 1, NULL, 0);
}

static void plain_region_info(struct script *script, const struct ob_header *header, const uint8_t *payload)
{
    struct vfio_region_info info;

    memcpy(&info, payload, sizeof(info));
    info.argsz = sizeof(info);
    info.size = info.index == 0 ? SCRIPT_BAR_SIZE : info.index == 7 ? 256 : 0;
    info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
    script_reply(script, header, &info, sizeof(info), NULL, 0);
}

static void plain_access(struct script *script, const struct ob_header *header, const uint8_t *payload)
{
    struct ob_wire_region_access access;
    uint8_t *reply;

    memcpy(&access, payload, sizeof(access));
    if (access.region != 0 || access.offset > SCRIPT_BAR_SIZE || access.count > SCRIPT_BAR_SIZE - access.offset) {
        script_refuse(script, header, EINVAL);
        return;
    }
    if (header->command == OB_REGION_WRITE) {
        memcpy(script->memory + access.offset, payload + sizeof(access), access.count);
        atomic_fetch_add(&script->writes, 1);
        if (!(header->flags & OB_FLAG_NO_REPLY))
            script_reply(script, header, &access, sizeof(access), NULL, 0);
        return;
    }
    reply = malloc(sizeof(access) + access.count);
    if (!reply)
        abort();
    memcpy(reply, &access, sizeof(access));
    memcpy(reply + sizeof(access), script->memory + access.offset, access.count);
    script_reply(script, header, reply, sizeof(access) + access.count, NULL, 0);
    free(reply);
}

static void plain_multi(struct script *script, const struct ob_header *header, const uint8_t *payload)
{
    struct ob_wire_write_multi multi;

    memcpy(&multi, payload, sizeof(multi));
    for (uint64_t i = 0; i < multi.wr_cnt; i++) {
        struct ob_wire_write write;

        memcpy(&write, payload + sizeof(multi) + i * sizeof(write), sizeof(write));
        if (write.region == 0 && write.offset <= SCRIPT_BAR_SIZE - 8)
            memcpy(script->memory + write.offset, write.data, write.count);
        atomic_fetch_add(&script->writes, 1);
    }
    if (!(header->flags & OB_FLAG_NO_REPLY))
        script_reply(script, header, &multi, sizeof(multi), NULL, 0);
}

void script_plain(struct script *script, const struct ob_header *header, const uint8_t *payload)
{
    struct ob_wire_device_info info = { sizeof(info), VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, 9, 1 };
    struct vfio_irq_info irq = { sizeof(irq), VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE, 0, 4 };

    switch (header->command) {
    case OB_VERSION:
        plain_version(script, header);
        break;
    case OB_DEVICE_GET_INFO:
        script_reply(script, header, &info, sizeof(info), NULL, 0);
        break;
    case OB_DEVICE_GET_REGION_INFO:
        plain_region_info(script, header, payload);
        break;
    case OB_DEVICE_GET_IRQ_INFO:
        script_reply(script, header, &irq, sizeof(irq), NULL, 0);
        break;
    case OB_REGION_READ:
    case OB_REGION_WRITE:
        plain_access(script, header, payload);
        break;
    case OB_REGION_WRITE_MULTI:
        plain_multi(script, header, payload);
        break;
    case OB_DMA_UNMAP:
        script_reply(script, header, payload, sizeof(struct ob_wire_dma_unmap), NULL, 0);
        break;
    case OB_DMA_MAP:
    case OB_DEVICE_RESET:
    case OB_DEVICE_SET_IRQS:
    case OB_MIG_DATA_WRITE:
        script_reply(script, header, NULL, 0, NULL, 0);
        break;
    default:
        script_refuse(script, header, ENOTTY);
    }
}

/* --- The thread -------------------------------------------------------------------------------------------------- */

/* All of `size` bytes, and the descriptors that came. 0: the client is gone. */
static size_t receive(int fd, uint8_t *to, size_t size, int *fds, unsigned *nfds)
{
    size_t have = 0;

    while (have < size) {
        union {
            struct cmsghdr header;
            uint8_t bytes[CMSG_SPACE(sizeof(int) * 32)];
        } control;
        struct iovec iov = { to + have, size - have };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

        if (n <= 0)
            return 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
            unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

            memcpy(fds + *nfds, CMSG_DATA(c), count * sizeof(int));
            *nfds += count;
        }
        have += (size_t)n;
    }
    return have;
}

static void *run(void *arg)
{
    struct script *script = arg;
    uint8_t *payload = malloc(SCRIPT_MAX);
    struct ob_header header;
    int fds[64];
    unsigned nfds = 0;

    if (!payload)
        abort();
    while (receive(script->fd, (uint8_t *)&header, sizeof(header), fds, &nfds)) {
        size_t size = header.size - sizeof(header);

        if (size > SCRIPT_MAX || (size > 0 && !receive(script->fd, payload, size, fds, &nfds)))
            break;
        atomic_fetch_add(&script->messages, 1);
        if ((header.flags & OB_FLAG_TYPE_MASK) == 0)
            atomic_fetch_add(&script->commands[header.command % 32], 1);
        if ((!script->hook || !script->hook(script, &header, payload, fds, nfds)) &&
            (header.flags & OB_FLAG_TYPE_MASK) == 0)
            script_plain(script, &header, payload);
        while (nfds > 0) {
            if (fds[--nfds] >= 0)
                close(fds[nfds]);
        }
    }
    while (nfds > 0)
        close(fds[--nfds]);
    free(payload);
    return NULL;
}

void script_start(struct script *script, script_hook *hook)
{
    int pair[2];

    script->descriptors = script_descriptors();
    ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    script->hook = hook;
    script->fd = pair[0];
    script->client_fd = pair[1];
    script->twin = -1;
    ok(pthread_create(&script->thread, NULL, run, script));
}

struct ob_client *script_client(struct script *script, const struct ob_client_options *options)
{
    struct ob_client *client = NULL;
    char why[256] = "";

    if (ob_client_adopt(script->client_fd, options, &client, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    script->client_fd = -1;
    return client;
}

int script_refused(struct script *script, const struct ob_client_options *options, char *why, size_t size)
{
    struct ob_client *client = NULL;
    int err = ob_client_adopt(script->client_fd, options, &client, why, size);

    assert_true(err < 0);
    assert_null(client);
    return err;
}

void script_end(struct script *script, struct ob_client *client)
{
    ob_client_close(client);
    if (script->client_fd >= 0)
        close(script->client_fd);
    pthread_join(script->thread, NULL);
    close(script->fd);
    if (script->twin >= 0)
        close(script->twin);
    assert_int_equal(script_descriptors(), script->descriptors);
}
