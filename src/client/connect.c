/* Beginning and end of a connection: the socket, VERSION, and what the device is. */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "transport/listener.h"

#define DEFAULT_TIMEOUT_MS 5000
#define MAX_DMA_MAPS       65535u

int ob_client_fail(int error, char *why, size_t why_size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (why && why_size > 0)
        vsnprintf(why, why_size, format, args);
    va_end(args);
    return error;
}

/* --- VERSION ----------------------------------------------------------------------------------------------------- */

/* A twin socket makes every round trip dearer, and only those who serve DMA gain by it. */
static bool offers_twin_socket(const struct ob_client *client)
{
    return client->options.dma && !client->options.no_twin_socket;
}

static ssize_t take_version(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                            int *fds)
{
    const struct ob_wire_version *version;
    char why[192];

    if (err)
        return err;
    version = &reply->u.version;
    if (version->major != OB_VERSION_MAJOR || version->minor > OB_VERSION_MINOR) {
        ob_client_die(client, -EPROTONOSUPPORT, "the server wants version %u.%u, this is %d.%d", version->major,
                      version->minor, OB_VERSION_MAJOR, OB_VERSION_MINOR);
        return -EPROTONOSUPPORT;
    }
    err = ob_version_parse(&client->peer, reply->tail, reply->tail_size, why, sizeof(why));
    if (err) {
        ob_client_die(client, err == -EINVAL ? -EPROTO : err, "%s", why);
        return err;
    }
    if (client->peer.twin_socket.supported) {
        int index = client->peer.twin_socket.fd_index;

        if (!offers_twin_socket(client) || index < 0 || (unsigned)index >= reply->nfds) {
            ob_client_die(client, -EPROTO,
                          "the server announces a twin socket that it does not give or was not asked for");
            return -EPROTO;
        }
        client->twin.out.fd = fds[index];
        fds[index] = -1;
    }
    return 0;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static int send_version(struct ob_client *client)
{
    const struct ob_client_options *options = &client->options;
    struct ob_capabilities ours = ob_capabilities_default;
    struct ob_message message = { .header.command = OB_VERSION, .u.version = { OB_VERSION_MAJOR, OB_VERSION_MINOR } };
    struct ob_message_plan plan = { .take = take_version };
    char text[OB_VERSION_MAX_TEXT];
    ssize_t size;

    ours.max_msg_fds = client->limits.max_msg_fds;
    ours.max_data_xfer_size = client->limits.max_data_xfer_size;
    ours.max_dma_maps = MAX_DMA_MAPS;
    ours.pgsizes = options->pgsizes;
    ours.write_multiple = !options->no_write_multi;
    ours.twin_socket.supported = offers_twin_socket(client);
    size = ob_version_encode(text, sizeof(text), &ours);
    if (size < 0)
        return (int)size;
    message.tail = (const uint8_t *)text;
    message.tail_size = (size_t)size;
    return (int)ob_submit_one(client, NULL, &message, &plan);
}

/* What both sides can do. */
static int agree(struct ob_client *client)
{
    const struct ob_capabilities *peer = &client->peer;
    struct ob_client_info *info = &client->info;
    int err;

    info->major = OB_VERSION_MAJOR;
    info->minor = OB_VERSION_MINOR;
    info->max_data_xfer_size = smaller(peer->max_data_xfer_size, client->limits.max_data_xfer_size);
    info->max_msg_fds = smaller(peer->max_msg_fds, OB_RECEIVER_MAX_FDS);
    info->max_dma_maps = smaller(peer->max_dma_maps, MAX_DMA_MAPS);
    info->pgsizes = peer->pgsizes & client->options.pgsizes;
    info->write_multi = peer->write_multiple && !client->options.no_write_multi;
    info->twin_socket = client->twin.out.fd >= 0;
    if (!info->pgsizes) {
        ob_client_die(client, -EPROTO, "no common page size: the server has 0x%llx", (unsigned long long)peer->pgsizes);
        return -EPROTO;
    }
    if (info->twin_socket) {
        err = ob_channel_init(&client->twin, client->twin.out.fd, ob_max_message(&client->limits));
        if (err)
            return err;
    }
    client->negotiated = true;
    return 0;
}

/* --- GET_INFO ---------------------------------------------------------------------------------------------------- */

static ssize_t take_info(struct ob_client *client, struct ob_slot *slot, int err, const struct ob_message *reply,
                         int *fds)
{
    const struct ob_wire_device_info *info;

    if (err)
        return err;
    info = &reply->u.device_info;
    if (info->num_regions > OB_CLIENT_MAX_REGIONS || info->num_irqs > OB_CLIENT_MAX_IRQS) {
        ob_client_die(client, -EPROTO,
                      "the server has %u regions and %u kinds of interrupts: at most %d and %d are taken",
                      info->num_regions, info->num_irqs, OB_CLIENT_MAX_REGIONS, OB_CLIENT_MAX_IRQS);
        return -EPROTO;
    }
    client->info.flags = info->flags;
    client->info.regions = info->num_regions;
    client->info.irqs = info->num_irqs;
    return 0;
}

static int ask_info(struct ob_client *client)
{
    struct ob_message message = { .header.command = OB_DEVICE_GET_INFO,
                                  .u.device_info.argsz = sizeof(struct ob_wire_device_info) };
    struct ob_message_plan plan = { .take = take_info };

    return (int)ob_submit_one(client, NULL, &message, &plan);
}

/* --- The socket -------------------------------------------------------------------------------------------------- */

static int int_option(int fd, int option)
{
    int value;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -errno : value;
}

/* A recvmsg() waits as long as a synchronous call. */
static int prepare_socket(int fd, int timeout_ms)
{
    int ms = timeout_ms < 0 ? 0 : timeout_ms;
    struct timeval timeout = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0)
        return -errno;
    return 0;
}

static int check_options(struct ob_client_options *options, char *why, size_t why_size)
{
    if (options->timeout_ms == 0)
        options->timeout_ms = DEFAULT_TIMEOUT_MS;
    if (options->max_data_xfer_size == 0)
        options->max_data_xfer_size = OB_DEFAULT_MAX_DATA_XFER_SIZE;
    if (options->max_msg_fds == 0)
        options->max_msg_fds = OB_RECEIVER_MAX_FDS;
    if (options->pgsizes == 0)
        options->pgsizes = (uint64_t)sysconf(_SC_PAGESIZE);
    if (options->max_data_xfer_size > OB_DEFAULT_MAX_DATA_XFER_SIZE || options->max_msg_fds > OB_RECEIVER_MAX_FDS ||
        options->pgsizes > INT64_MAX)
        return ob_client_fail(-EINVAL, why, why_size, "max_data_xfer_size is at most %u, max_msg_fds at most %d",
                              OB_DEFAULT_MAX_DATA_XFER_SIZE, OB_RECEIVER_MAX_FDS);
    return 0;
}

static struct ob_client *client_new(int fd, const struct ob_client_options *options)
{
    struct ob_client *client = calloc(1, sizeof(*client));

    if (!client)
        return NULL;
    pthread_mutex_init(&client->lock, NULL);
    client->options = *options;
    client->limits = (struct ob_limits){ options->max_data_xfer_size, options->max_msg_fds };
    client->long_wait = OB_CLIENT_NO_TIMEOUT;
    if (options->timeout_ms > 0) {
        uint64_t timeout = (uint64_t)options->timeout_ms * 1000000u;

        client->long_wait = timeout - timeout / 64;
    }
    client->ended_last = &client->ended;
    client->poll_fd = client->timer_fd = client->pidfd = -1;
    client->pid = -1;
    client->twin.out.fd = -1;
    client->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    client->slots = calloc(OB_CLIENT_SLOTS, sizeof(*client->slots));
    if (ob_channel_init(&client->main, fd, ob_max_message(&client->limits)) == 0 && client->slots &&
        client->kick >= 0) {
        for (uint32_t i = 0; i < OB_CLIENT_SLOTS; i++)
            client->slots[i].next_free = i + 1;
        client->free_slots = OB_CLIENT_SLOTS;
        return client;
    }
    client->main.out.fd = -1; /* the caller's */
    ob_client_close(client);
    return NULL;
}

int ob_client_start(int fd, const struct ob_client_options *options, struct ob_client **result, char *why,
                    size_t why_size)
{
    struct ob_client_options all = options ? *options : (struct ob_client_options){ 0 };
    struct ob_client *client;
    int err = check_options(&all, why, why_size);

    if (err)
        return err;
    err = prepare_socket(fd, all.timeout_ms);
    if (err)
        return ob_client_fail(err, why, why_size, "cannot set up the socket: %s", strerror(-err));
    client = client_new(fd, &all);
    if (!client)
        return ob_client_fail(-ENOMEM, why, why_size, "no memory or no descriptor for a client");
    err = send_version(client);
    if (!err)
        err = agree(client);
    if (!err)
        err = ask_info(client);
    if (!err)
        err = ob_regions_ask(client);
    if (!err) {
        *result = client;
        return 0;
    }
    if (client->dead)
        err = ob_client_fail(client->dead, why, why_size, "%s", client->why);
    else
        ob_client_fail(err, why, why_size, "the server refuses to talk: %s", strerror(-err));
    client->main.out.fd = -1;
    ob_client_close(client);
    return err;
}

int ob_client_adopt(int fd, const struct ob_client_options *options, struct ob_client **client, char *why,
                    size_t why_size)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    int domain = int_option(fd, SO_DOMAIN);

    if (domain < 0)
        return ob_client_fail(domain, why, why_size, "descriptor %d: %s: pass a connected socket", fd,
                              strerror(-domain));
    if (domain != AF_UNIX || int_option(fd, SO_TYPE) != SOCK_STREAM)
        return ob_client_fail(-EPROTONOSUPPORT, why, why_size, "descriptor %d: pass an AF_UNIX stream socket", fd);
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
        return ob_client_fail(-errno, why, why_size, "descriptor %d: %s: pass a connected socket", fd, strerror(errno));
    return ob_client_start(fd, options, client, why, why_size);
}

int ob_client_connect(const char *path, const struct ob_client_options *options, struct ob_client **client, char *why,
                      size_t why_size)
{
    int fd = ob_connect(path), err;

    if (fd < 0)
        return ob_client_fail(fd, why, why_size, "cannot connect to %s: %s", path, strerror(-fd));
    err = ob_client_start(fd, options, client, why, why_size);
    if (err)
        close(fd);
    return err;
}

/* --- The end ----------------------------------------------------------------------------------------------------- */

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void ob_client_close(struct ob_client *client)
{
    if (!client)
        return;
    if (client->slots && client->main.bytes) {
        pthread_mutex_lock(&client->lock);
        ob_out_flush(&client->main.out);
        ob_client_die(client, -ENOTCONN, "closed");
        ob_calls_announce(client);
        pthread_mutex_unlock(&client->lock);
    }
    ob_regions_free(client);
    close_fd(client->poll_fd);
    close_fd(client->timer_fd);
    close_fd(client->kick);
    close_fd(client->main.out.fd);
    close_fd(client->twin.out.fd);
    ob_channel_fini(&client->main);
    if (client->twin.bytes)
        ob_channel_fini(&client->twin);
    ob_spawn_end(client);
    free(client->slots);
    free(client->maps);
    free(client->dma_buf);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

const struct ob_client_info *ob_client_info(struct ob_client *client)
{
    return &client->info;
}

const char *ob_client_why(struct ob_client *client)
{
    /* Written once, before `dead` can be seen under the lock. */
    pthread_mutex_lock(&client->lock);
    const char *why = client->dead ? client->why : "";
    pthread_mutex_unlock(&client->lock);
    return why;
}

pid_t ob_client_pid(struct ob_client *client)
{
    return client->pid;
}

int ob_client_reset(struct ob_client *client, struct ob_call *call)
{
    struct ob_message message = { .header.command = OB_DEVICE_RESET };
    struct ob_message_plan plan = { .take = ob_take_nothing };

    return (int)ob_submit_one(client, call, &message, &plan);
}
