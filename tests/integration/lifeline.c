/* lifeline.c: the holder of a device's descriptors and memory, and the parent of its successive processes. */
#include "lifeline.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DEATHS 1000 /* a device that dies at once, again and again, makes no progress */

enum { KEEP = 1, DROP = 2, ASK = 3 };
#define END_KEY UINT64_MAX

struct holder_message {
    uint64_t key;
    uint32_t op, pad;
};

/* --- The holder --------------------------------------------------------------------------------------------------- */

static void hold(struct ob_life *life, uint64_t key, int fd)
{
    if (life->n_held == OB_LIFE_MAX_HELD) {
        fprintf(stderr, "holder: more than %d descriptors\n", OB_LIFE_MAX_HELD);
        atomic_store(&life->failed, -1);
        close(fd);
        return;
    }
    life->held[life->n_held].key = key;
    life->held[life->n_held++].fd = fd;
}

static void drop(struct ob_life *life, uint64_t key)
{
    for (unsigned i = 0; i < life->n_held; i++) {
        if (life->held[i].key == key) {
            close(life->held[i].fd);
            life->held[i] = life->held[--life->n_held];
            return;
        }
    }
}

static void tell(struct ob_life *life, uint32_t op, uint64_t key, int fd)
{
    struct holder_message text = { .key = key, .op = op };
    struct iovec iov = { .iov_base = &text, .iov_len = sizeof(text) };
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        *CMSG_FIRSTHDR(&msg) =
            (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
    }
    if (sendmsg(life->holder[0], &msg, MSG_NOSIGNAL) != sizeof(text)) {
        fprintf(stderr, "holder: %s\n", strerror(errno));
        atomic_store(&life->failed, -1);
    }
}

/* One message. False: there was none. */
static bool serve_holder(struct ob_life *life)
{
    struct holder_message text;
    struct iovec iov = { .iov_base = &text, .iov_len = sizeof(text) };
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    int fd = -1;

    if (recvmsg(life->holder[0], &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(text)) {
        return false;
    }
    if (CMSG_FIRSTHDR(&msg) != NULL) {
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
    }
    if (text.op == KEEP && fd >= 0) {
        hold(life, text.key, fd);
    } else if (text.op == DROP) {
        drop(life, text.key);
    } else if (text.op == ASK) {
        for (unsigned i = 0; i < life->n_held; i++) {
            tell(life, KEEP, life->held[i].key, life->held[i].fd);
        }
        tell(life, DROP, END_KEY, -1);
    } else {
        fprintf(stderr, "holder: operation %u with descriptor %d\n", text.op, fd);
        atomic_store(&life->failed, -1);
    }
    return true;
}

/* --- Processes ---------------------------------------------------------------------------------------------------- */

/* The first process made the memory; what it is called says which is which. */
static int take_memory(struct ob_life *life)
{
    static const char *const names[] = { "outboard-vault", "outboard-bars", "outboard-journal" };
    char path[320], target[256];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)life->process.pid);
    dir = opendir(path);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)life->process.pid, entry->d_name);
        n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        for (int i = 0; i < 3; i++) {
            if (strstr(target, names[i]) != NULL && life->memory[i] < 0) {
                life->memory[i] = open(path, O_RDWR | O_CLOEXEC);
            }
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    /* A device without memory that clients map has no "bars". */
    return life->memory[0] >= 0 && life->memory[2] >= 0 ? 0 : -ENOENT;
}

static int start_process(struct ob_life *life)
{
    const char *const env[] = { life->crash_at, NULL };
    char command[512];
    int ends[2], inherit[6] = { life->holder[1] }, r;
    unsigned n = 1;
    struct ob_process_options options = {
        .command = command, .socket = OB_PROCESS_CONNECTED, .fd = life->server_end, .inherit = inherit
    };

    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -errno;
    }
    snprintf(command, sizeof(command), "%s --lifeline=%d,%d,%d,%d --ready-fd=%d", life->command, life->memory[0],
             life->memory[1], life->memory[2], life->holder[1], ends[1]);
    inherit[n++] = ends[1];
    for (int i = 0; i < 3; i++) {
        if (life->memory[i] >= 0) {
            inherit[n++] = life->memory[i];
        }
    }
    options.ninherit = n;
    options.env = life->crash_at[0] != 0 ? env : NULL;
    r = ob_process_start(&life->process, &options);
    close(ends[1]);
    if (life->ready >= 0) {
        close(life->ready);
    }
    life->ready = ends[0];
    return r;
}

/* The process is dead: what it said before is heard, then another one starts. */
static void succeed(struct ob_life *life)
{
    int status;

    while (serve_holder(life)) {
    }
    status = ob_process_stop(&life->process, 0, 1000);
    if (status != 128 + SIGKILL || atomic_fetch_add(&life->deaths, 1) > MAX_DEATHS) {
        fprintf(stderr, "lifeline: a process ended with status %d\n", status);
        atomic_store(&life->failed, status != 0 ? status : -1);
        shutdown(life->server_end, SHUT_RDWR); /* the test need not wait for it */
        return;
    }
    if (!life->every) {
        life->crash_at[0] = 0;
    }
    if (start_process(life) < 0) {
        atomic_store(&life->failed, -1);
        shutdown(life->server_end, SHUT_RDWR);
    }
}

static void *run(void *arg)
{
    struct ob_life *life = arg;
    bool first = true;

    if (start_process(life) < 0) {
        atomic_store(&life->failed, -1);
        sem_post(&life->started);
        return NULL;
    }
    for (;;) {
        struct pollfd pfds[] = { { .fd = life->stop, .events = POLLIN },
                                 { .fd = life->holder[0], .events = POLLIN },
                                 { .fd = first ? life->ready : -1, .events = POLLIN },
                                 { .fd = life->process.pid > 0 ? life->process.pidfd : -1, .events = POLLIN } };

        if (poll(pfds, 4, -1) < 0) {
            continue;
        }
        if (pfds[1].revents & POLLIN) {
            serve_holder(life);
        } else if (pfds[2].revents & POLLIN) {
            first = false;
            if (take_memory(life) < 0) {
                fprintf(stderr, "lifeline: a device without a vault or a journal\n");
                atomic_store(&life->failed, -1);
            }
            sem_post(&life->started);
        } else if (pfds[3].revents & POLLIN) { /* before it was ready: its successor is the first */
            succeed(life);
            if (atomic_load(&life->failed) != 0 && first) {
                first = false;
                sem_post(&life->started);
            }
        } else if (pfds[0].revents & POLLIN) {
            return NULL;
        }
    }
}

int ob_life_start(struct ob_life *life, const char *command, const char *label, unsigned nth, bool every)
{
    int client[2];

    *life = (struct ob_life){ .command = command, .every = every, .memory = { -1, -1, -1 }, .ready = -1 };
    if (label != NULL) {
        snprintf(life->crash_at, sizeof(life->crash_at), "OUTBOARD_CRASH_AT=%s:%u", label, nth);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, client) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, life->holder) != 0 ||
        (life->stop = eventfd(0, EFD_CLOEXEC)) < 0 || sem_init(&life->started, 0, 0) != 0) {
        return -errno;
    }
    ob_raw_init(&life->raw, client[0]);
    life->server_end = client[1];
    if (pthread_create(&life->thread, NULL, run, life) != 0) {
        return -EAGAIN;
    }
    while (sem_wait(&life->started) != 0) {
    }
    return atomic_load(&life->failed) ? -EPROTO : 0;
}

int ob_life_end(struct ob_life *life)
{
    const uint64_t one = 1;

    if (write(life->stop, &one, sizeof(one)) != sizeof(one)) {
        return -errno;
    }
    pthread_join(life->thread, NULL);
    ob_raw_close(&life->raw);
    ob_process_stop(&life->process, SIGKILL, 5000);
    for (unsigned i = 0; i < life->n_held; i++) {
        close(life->held[i].fd);
    }
    for (int i = 0; i < 3; i++) {
        if (life->memory[i] >= 0) {
            close(life->memory[i]);
        }
    }
    close(life->ready);
    close(life->stop);
    close(life->server_end);
    close(life->holder[0]);
    close(life->holder[1]);
    sem_destroy(&life->started);
    return atomic_load(&life->failed) ? -EPROTO : 0;
}
