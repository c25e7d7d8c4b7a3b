/* A process killed at any labelled step of any request: its successor goes on, and the client sees every reply once, as
 * if nothing had happened. Needs the option crash_steps. */
#include "session_back.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session/steps.h"

#define OVERSIZED (OB_HEADER_SIZE + 1500000u)
#define KEYS      64

/* What a client sends, and what it has to get. */
struct script {
    uint8_t *in;
    size_t size, fd_at, fd_size, version_end; /* fd_at: the DMA_MAP, sent with its descriptor by a call of its own */
    uint64_t number;
    uint8_t expected[65536];
    size_t expected_size;
};

struct world {
    struct script script;
    int vault, journal; /* descriptors of the memory that survives */
    int client, server; /* the connection */
    int twin;           /* the client's, once it has got it; or -1 */
    int holder, held;   /* ours, the session's */
    int kept[KEYS];     /* by key */
    size_t sent;        /* of the script */
    uint8_t got[65536]; /* by the client */
    size_t got_size;
    unsigned fds_got;
};

static void reply(struct script *s, uint16_t id, uint16_t command, const void *payload, size_t size)
{
    struct ob_header h = { .id = id, .command = command, .size = (uint32_t)(sizeof(h) + size), .flags = OB_FLAG_REPLY };

    memcpy(s->expected + s->expected_size, &h, sizeof(h));
    if (size > 0)
        memcpy(s->expected + s->expected_size + sizeof(h), payload, size);
    s->expected_size += sizeof(h) + size;
}

static void refusal(struct script *s, uint16_t id, uint16_t command, uint32_t err)
{
    struct ob_header h = { id, command, sizeof(h), OB_FLAG_REPLY | OB_FLAG_ERROR, err };

    memcpy(s->expected + s->expected_size, &h, sizeof(h));
    s->expected_size += sizeof(h);
}

static void read_reply(struct script *s, uint16_t id, uint64_t offset, uint64_t value)
{
    struct {
        struct ob_wire_region_access access;
        uint64_t value;
    } payload = { { offset, 0, 8 }, value };

    reply(s, id, OB_REGION_READ, &payload, sizeof(payload));
}

static void writes(struct script *s, unsigned n)
{
    for (uint32_t i = 0; i < n; i++) {
        bool posted = i % 2;
        struct ob_wire_region_access access = { BACK_MIX, 0, 4 };
        s->size += put_write(s->in + s->size, (uint16_t)i, i, posted);
        s->number = back_mix(s->number, i);
        if (!posted)
            reply(s, (uint16_t)i, OB_REGION_WRITE, &access, sizeof(access));
    }
}

static void pieces(struct script *s, uint16_t id)
{
    uint64_t first = s->number = back_mix(s->number, 77);

    s->number = back_mix(s->number, 77);
    s->size += put_read(s->in + s->size, id, BACK_PIECES, 8);
    read_reply(s, id, BACK_PIECES, (first & UINT32_MAX) | s->number << 32);
}

static void region_info(struct script *s, uint16_t id)
{
    struct vfio_region_info info = { .argsz = 32, .flags = VFIO_REGION_INFO_FLAG_MMAP, .size = 4096 };

    s->size += put_region_info(s->in + s->size, id);
    reply(s, id, OB_DEVICE_GET_REGION_INFO, &info, sizeof(info));
}

/* Everything after VERSION, whose reply is text and looked at only for being there. */
static void write_script(struct script *s)
{
    memset(s, 0, sizeof(*s));
    s->in = calloc(1, OVERSIZED + 65536);
    s->size = s->version_end = put_version_text(s->in, 1, "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}");
    writes(s, 3);
    pieces(s, 10);
    region_info(s, 11);
    region_info(s, 12);
    pieces(s, 13);
    s->fd_at = s->size;
    s->fd_size = put_map(s->in + s->size, 14, 4096);
    s->size += s->fd_size;
    reply(s, 14, OB_DMA_MAP, NULL, 0);
    s->size += put_read(s->in + s->size, 15, BACK_REFUSE, 8);
    refusal(s, 15, OB_REGION_READ, EIO);
    put_header(s->in + s->size, 16, OB_REGION_WRITE, OVERSIZED, 0);
    s->size += OVERSIZED;
    refusal(s, 16, OB_REGION_WRITE, EMSGSIZE);
    writes(s, 2);
    s->size += put_read(s->in + s->size, 17, BACK_MIX, 8);
    read_reply(s, 17, BACK_MIX, s->number);
}

/* --- The client --------------------------------------------------------------------------------------------------- */

static void client_sends(struct world *w)
{
    const struct script *s = &w->script;

    if (w->sent == s->fd_at) {
        struct pollfd room = { .fd = w->client, .events = POLLOUT };
        if (poll(&room, 1, 0) != 1)
            return;
        int fd = memfd_create("map", MFD_CLOEXEC);
        send_fd(w->client, s->in + s->fd_at, s->fd_size, fd);
        close(fd);
        w->sent += s->fd_size;
    }
    size_t end = w->sent < s->fd_at ? s->fd_at : s->size;
    if (w->sent < end) {
        ssize_t n = send(w->client, s->in + w->sent, end - w->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            w->sent += (size_t)n;
    }
}

static void client_receives(struct world *w)
{
    for (;;) {
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = { .iov_base = w->got + w->got_size, .iov_len = sizeof(w->got) - w->got_size };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
        };
        ssize_t n = recvmsg(w->client, &msg, MSG_DONTWAIT);
        if (n <= 0)
            return;
        w->got_size += (size_t)n;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c) {
            int fd;
            memcpy(&fd, CMSG_DATA(c), sizeof(int));
            if (w->fds_got++ == 0)
                w->twin = fd;
            else
                close(fd);
        }
    }
}

/* Behind the reply to VERSION. */
static bool all_replies(const struct world *w)
{
    struct ob_header h;

    if (w->got_size < sizeof(h))
        return false;
    memcpy(&h, w->got, sizeof(h));
    return w->got_size >= h.size && w->got_size - h.size >= w->script.expected_size;
}

static void check_replies(const struct world *w)
{
    struct ob_header h;

    memcpy(&h, w->got, sizeof(h));
    assert_int_equal(h.id, 1);
    assert_int_equal(h.flags, OB_FLAG_REPLY);
    assert_int_equal(w->got_size - h.size, w->script.expected_size);
    assert_memory_equal(w->got + h.size, w->script.expected, w->script.expected_size);
    assert_int_equal(w->fds_got, 3);
}

/* What the first process left is what its successor asks on. */
static void check_twin(struct world *w, struct back *b)
{
    struct ob_message ask = { .header.command = OB_DMA_READ, .u.dma_access = { 0x1000, 4 } };
    uint8_t bytes[64];
    int id = ob_session_request(&b->s, &ask);

    assert_true(id >= 0);
    assert_int_equal(recv(w->twin, bytes, sizeof(bytes), MSG_DONTWAIT), OB_HEADER_SIZE + 16);
    send_all(w->twin, bytes, put_header(bytes, (uint16_t)id, OB_DMA_READ, 16, OB_FLAG_REPLY | OB_FLAG_ERROR));
    assert_true(ob_twin_read(&b->s));
    assert_int_equal(b->answered, 1);
}

/* --- The holder --------------------------------------------------------------------------------------------------- */

static void hold(struct world *w)
{
    for (;;) {
        struct ob_holder_message m;
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
        };
        if (recvmsg(w->holder, &msg, MSG_DONTWAIT) != sizeof(m))
            return;
        assert_true(m.key < KEYS);
        if (m.op == OB_HOLDER_KEEP) {
            assert_int_equal(w->kept[m.key], -1);
            memcpy(&w->kept[m.key], CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
        } else if (m.op == OB_HOLDER_DROP) {
            assert_true(w->kept[m.key] >= 0);
            close(w->kept[m.key]);
            w->kept[m.key] = -1;
        }
    }
}

/* What a successor will get for its question. */
static void answer_beforehand(struct world *w)
{
    hold(w);
    for (uint64_t key = 0; key < KEYS; key++) {
        struct ob_holder_message m = { .key = key, .op = OB_HOLDER_KEEP };
        if (w->kept[key] >= 0)
            send_fd(w->holder, &m, sizeof(m), w->kept[key]);
    }
    struct ob_holder_message end = { .key = OB_HOLDER_END, .op = OB_HOLDER_DROP };
    send_all(w->holder, &end, sizeof(end));
}

/* --- Lives -------------------------------------------------------------------------------------------------------- */

static void make_world(struct world *w)
{
    int pair[2];
    struct back b;

    memset(w, 0, sizeof(*w));
    memset(w->kept, 0xff, sizeof(w->kept));
    w->twin = -1;
    write_script(&w->script);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    w->client = pair[0];
    w->server = pair[1];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    w->holder = pair[0];
    w->held = pair[1];
    back_open(&b, -1, -1, -1); /* only to make the memory */
    w->vault = dup(b.vault.fd);
    w->journal = dup(b.s.journal.fd);
    back_close(&b);
}

static void free_world(struct world *w)
{
    for (int i = 0; i < KEYS; i++)
        if (w->kept[i] >= 0)
            close(w->kept[i]);
    close(w->vault);
    close(w->journal);
    close(w->client);
    close(w->server);
    close(w->twin);
    close(w->holder);
    close(w->held);
    free(w->script.in);
}

/* The first process. It dies where `at` says; if that never comes to pass, it does all there is. */
static void live(struct world *w, const char *at)
{
    struct back b;

    back_open(&b, dup(w->vault), dup(w->journal), dup(w->held));
    ob_session_connect(&b.s, dup(w->server));
    setenv("OUTBOARD_CRASH_AT", at, 1);
    while (b.s.position.executed < b.s.journal.header->connection + w->script.size ||
           b.s.journal.header->out_sent < b.s.position.out_tail) {
        struct pollfd p = { .fd = b.s.fd, .events = b.s.blocked ? POLLOUT : POLLIN };
        if (!ob_session_ready(&b.s) && poll(&p, 1, 5000) != 1)
            _exit(2);
        if (back_run(&b) < 0)
            _exit(3);
    }
    _exit(0);
}

/* Feeds the first process until it has ended. True if it was killed. */
static bool watch(struct world *w, pid_t pid)
{
    int status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = w->client } };

    assert_true(pidfd >= 0);
    do {
        p[1].events = (short)(POLLIN | (w->sent < w->script.size ? POLLOUT : 0));
        assert_true(poll(p, 2, 20000) > 0);
        client_sends(w);
        client_receives(w);
    } while (!(p[0].revents & POLLIN));
    close(pidfd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static void succeed(struct world *w)
{
    struct back b;

    answer_beforehand(w);
    back_open(&b, dup(w->vault), dup(w->journal), dup(w->held));
    struct back_state *state = back_state(&b);
    assert_int_equal(ob_holder_ask(&b.s.holder), 0);
    for (uint32_t i = 0; i < state->maps; i++) {
        b.fds[i] = ob_holder_take(&b.s.holder, state->map_keys[i]);
        assert_true(b.fds[i] >= 0);
    }
    assert_int_equal(ob_session_resume(&b.s, dup(w->server)), 0);
    ob_holder_drop_left(&b.s.holder);
    assert_int_equal(ob_session_events(&b.s), EPOLLOUT); /* it is asked to go on though nothing may arrive */
    assert_true(ob_session_advance(&b.s) >= 0);
    for (int rounds = 0; !all_replies(w); rounds++) {
        assert_true(rounds < 10000);
        client_sends(w);
        assert_int_equal(back_run(&b), 0);
        client_receives(w);
    }
    assert_true(state->number == w->script.number);
    assert_int_equal(state->maps, 1);
    check_twin(w, &b);
    ob_session_end(&b.s);
    hold(w);
    unsigned kept = 0;
    for (int i = 0; i < KEYS; i++)
        kept += w->kept[i] >= 0;
    assert_int_equal(kept, 1); /* the map's */
    back_close(&b);
}

/* The Nth passage of the step, for all N that there are. */
static void crash_at(const char *step)
{
    for (unsigned n = 1;; n++) {
        static struct world w;
        char at[64];

        snprintf(at, sizeof(at), "%s:%u", step, n);
        make_world(&w);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            live(&w, at);
        bool killed = watch(&w, pid);
        if (killed)
            succeed(&w);
        client_receives(&w);
        check_replies(&w);
        free_world(&w);
        if (!killed) {
            assert_true(n > 1); /* the step exists */
            return;
        }
    }
}

#define X(name)                           \
    static void test_##name(void **state) \
    {                                     \
        (void)state;                      \
        crash_at(#name);                  \
    }
OB_STEPS(X)
#undef X

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
        OB_STEPS(X)
#undef X
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
