/* Keeps descriptors with the holder, and gets them back; see holder.h. */
#include "session/holder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void ob_holder_init(struct ob_holder *holder, int socket)
{
    *holder = (struct ob_holder){ .socket = socket };
}

void ob_holder_free(struct ob_holder *holder)
{
    for (unsigned i = 0; i < holder->n_left; i++)
        if (holder->left[i].fd >= 0)
            close(holder->left[i].fd);
    free(holder->left);
    free(holder->keys);
    free(holder->dropped);
    if (holder->socket >= 0)
        close(holder->socket);
    *holder = (struct ob_holder){ .socket = -1 };
}

static int send_message(struct ob_holder *holder, const struct ob_holder_message *message, int fd)
{
    struct iovec iov = { .iov_base = (void *)message, .iov_len = sizeof(*message) };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(holder->socket, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

static int set_key(struct ob_holder *holder, int fd, uint64_t key)
{
    if ((unsigned)fd >= holder->n_keys) {
        unsigned n = (unsigned)fd + 64;
        uint64_t *keys = realloc(holder->keys, n * sizeof(*keys));
        if (!keys)
            return -ENOMEM;
        memset(keys + holder->n_keys, 0, (n - holder->n_keys) * sizeof(*keys));
        holder->keys = keys;
        holder->n_keys = n;
    }
    holder->keys[fd] = key;
    return 0;
}

int ob_holder_keep(struct ob_holder *holder, int fd, uint64_t key)
{
    if (holder->socket < 0)
        return 0;
    int err = set_key(holder, fd, key);
    return err ? err : send_message(holder, &(struct ob_holder_message){ .key = key, .op = OB_HOLDER_KEEP }, fd);
}

uint64_t ob_holder_key(const struct ob_holder *holder, int fd)
{
    return fd >= 0 && (unsigned)fd < holder->n_keys ? holder->keys[fd] : 0;
}

void ob_holder_drop_key(struct ob_holder *holder, uint64_t key)
{
    if (holder->socket < 0 || !key)
        return;
    if (holder->n_dropped == holder->max_dropped) {
        unsigned max = holder->max_dropped ? 2 * holder->max_dropped : 64;
        uint64_t *dropped = realloc(holder->dropped, max * sizeof(*dropped));
        if (!dropped)
            return; /* the holder keeps one descriptor too many until this process ends */
        holder->dropped = dropped;
        holder->max_dropped = max;
    }
    holder->dropped[holder->n_dropped++] = key;
}

void ob_holder_send_dropped(struct ob_holder *holder)
{
    /* A holder that went away keeps nothing: there is nobody to tell, and the next keep fails. */
    for (unsigned i = 0; i < holder->n_dropped; i++)
        (void)send_message(holder, &(struct ob_holder_message){ .key = holder->dropped[i], .op = OB_HOLDER_DROP }, -1);
    holder->n_dropped = 0;
}

void ob_holder_detach(struct ob_holder *holder, int fd)
{
    if (fd >= 0 && (unsigned)fd < holder->n_keys)
        holder->keys[fd] = 0;
}

void ob_holder_drop(struct ob_holder *holder, int fd)
{
    uint64_t key = ob_holder_key(holder, fd);

    if (key) {
        ob_holder_detach(holder, fd);
        ob_holder_drop_key(holder, key);
    }
}

/* One message of the answer to ASK. > 0: something was kept, 0: the end mark, or -errno. */
static int receive_held(struct ob_holder *holder, struct ob_held *held)
{
    struct ob_holder_message message;
    struct iovec iov = { .iov_base = &message, .iov_len = sizeof(message) };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    ssize_t n;

    do
        n = recvmsg(holder->socket, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    int fd = -1;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
        memcpy(&fd, CMSG_DATA(c), sizeof(int));
        if (c->cmsg_len >= CMSG_LEN(2 * sizeof(int))) { /* the padding of the buffer has room for a second one */
            int second;
            memcpy(&second, CMSG_DATA(c) + sizeof(int), sizeof(int));
            close(second);
            msg.msg_flags |= MSG_CTRUNC;
        }
    }
    if (n == sizeof(message) && fd < 0 && message.op == OB_HOLDER_DROP && message.key == OB_HOLDER_END)
        return 0;
    if (n != sizeof(message) || fd < 0 || message.op != OB_HOLDER_KEEP || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        if (fd >= 0)
            close(fd);
        return -EPROTO;
    }
    *held = (struct ob_held){ .key = message.key, .fd = fd };
    return 1;
}

static int by_key(const void *a, const void *b)
{
    uint64_t ka = ((const struct ob_held *)a)->key, kb = ((const struct ob_held *)b)->key;

    return (ka > kb) - (ka < kb);
}

int ob_holder_ask(struct ob_holder *holder)
{
    unsigned room = holder->n_left;

    if (holder->socket < 0)
        return 0;
    int err = send_message(holder, &(struct ob_holder_message){ .op = OB_HOLDER_ASK }, -1);
    if (err)
        return err;
    for (;;) {
        struct ob_held held;
        int n = receive_held(holder, &held);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        if (holder->n_left == room) {
            room = room ? 2 * room : 64;
            struct ob_held *left = realloc(holder->left, room * sizeof(*left));
            if (!left) {
                close(held.fd);
                return -ENOMEM;
            }
            holder->left = left;
        }
        holder->left[holder->n_left++] = held;
    }
    if (holder->n_left > 0)
        qsort(holder->left, holder->n_left, sizeof(*holder->left), by_key);
    return 0;
}

int ob_holder_take(struct ob_holder *holder, uint64_t key)
{
    struct ob_held wanted = { .key = key };

    if (holder->n_left == 0)
        return -1;
    struct ob_held *held = bsearch(&wanted, holder->left, holder->n_left, sizeof(*held), by_key);
    if (!held || held->fd < 0 || set_key(holder, held->fd, key) < 0)
        return -1;
    int fd = held->fd;
    held->fd = -1;
    return fd;
}

void ob_holder_drop_left(struct ob_holder *holder)
{
    for (unsigned i = 0; i < holder->n_left; i++) {
        if (holder->left[i].fd < 0)
            continue;
        close(holder->left[i].fd);
        ob_holder_drop_key(holder, holder->left[i].key);
    }
    holder->n_left = 0;
}
