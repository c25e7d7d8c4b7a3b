/* Descriptors kept outside, dropped after a commit, asked for and taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session/holder.h"

/* The holder's end. */
struct other {
    struct ob_holder holder;
    int socket;
};

static void start(struct other *o)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    o->socket = pair[0];
    ob_holder_init(&o->holder, pair[1]);
}

static void stop(struct other *o)
{
    ob_holder_free(&o->holder);
    close(o->socket);
}

/* The next message to the holder; -1 and op 0: there is none. *fd: what it carried. */
static struct ob_holder_message told(struct other *o, int *fd)
{
    struct ob_holder_message m = { 0 };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };

    *fd = -1;
    if (recvmsg(o->socket, &msg, MSG_DONTWAIT) < 0)
        return (struct ob_holder_message){ 0 };
    if (CMSG_FIRSTHDR(&msg))
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
    return m;
}

static void tell(struct other *o, uint32_t op, uint64_t key, const int *fds, unsigned n)
{
    struct ob_holder_message m = { .key = key, .op = op };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 4)];
    } control = { 0 };
    struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (n > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    }
    assert_int_equal(sendmsg(o->socket, &msg, 0), sizeof(m));
}

static void test_keep_and_drop(void **state)
{
    struct other o;
    int fd = memfd_create("kept", MFD_CLOEXEC), got;

    (void)state;
    start(&o);
    assert_int_equal(ob_holder_keep(&o.holder, fd, 5), 0);
    struct ob_holder_message m = told(&o, &got);
    assert_int_equal(m.op, OB_HOLDER_KEEP);
    assert_int_equal(m.key, 5);
    assert_true(got >= 0);
    close(got);
    assert_int_equal(ob_holder_key(&o.holder, fd), 5);
    ob_holder_drop(&o.holder, fd);
    assert_int_equal(told(&o, &got).op, 0); /* not before the commit */
    assert_int_equal(ob_holder_key(&o.holder, fd), 0);
    ob_holder_drop(&o.holder, fd); /* harmless */
    ob_holder_flush(&o.holder);
    m = told(&o, &got);
    assert_int_equal(m.op, OB_HOLDER_DROP);
    assert_int_equal(m.key, 5);
    assert_int_equal(told(&o, &got).op, 0);
    /* The number is free, the key is not. */
    assert_int_equal(ob_holder_keep(&o.holder, fd, 6), 0);
    (void)told(&o, &got);
    close(got);
    ob_holder_detach(&o.holder, fd);
    assert_int_equal(ob_holder_key(&o.holder, fd), 0);
    for (uint64_t key = 6; key < 206; key++)
        ob_holder_drop_key(&o.holder, key);
    ob_holder_flush(&o.holder);
    for (uint64_t key = 6; key < 206; key++)
        assert_int_equal(told(&o, &got).key, key);
    close(o.socket);
    assert_int_equal(ob_holder_keep(&o.holder, fd, 7), -EPIPE);
    ob_holder_free(&o.holder);
    close(fd);
}

static void test_nobody(void **state)
{
    struct ob_holder holder;

    (void)state;
    ob_holder_init(&holder, -1);
    assert_int_equal(ob_holder_keep(&holder, 0, 5), 0);
    assert_int_equal(ob_holder_key(&holder, 0), 0);
    ob_holder_drop_key(&holder, 5);
    assert_int_equal(holder.n_dropped, 0);
    assert_int_equal(ob_holder_ask(&holder), 0);
    assert_int_equal(ob_holder_take(&holder, 5), -1);
    ob_holder_free(&holder);
}

static void test_ask_and_take(void **state)
{
    struct other o;
    int got;

    (void)state;
    start(&o);
    for (uint64_t i = 0; i < 100; i++) { /* in any order */
        uint64_t key = 1 + i * 37 % 100;
        int fd = memfd_create("kept", MFD_CLOEXEC);
        assert_int_equal(ftruncate(fd, (off_t)key), 0);
        tell(&o, OB_HOLDER_KEEP, key, &fd, 1);
        close(fd);
    }
    tell(&o, OB_HOLDER_DROP, OB_HOLDER_END, NULL, 0);
    assert_int_equal(ob_holder_ask(&o.holder), 0);
    assert_int_equal(told(&o, &got).op, OB_HOLDER_ASK);
    assert_int_equal(ob_holder_take(&o.holder, 101), -1);
    for (uint64_t key = 1; key <= 100; key += 3) {
        int fd = ob_holder_take(&o.holder, key);
        assert_true(fd >= 0);
        assert_int_equal(lseek(fd, 0, SEEK_END), key);
        assert_int_equal(ob_holder_key(&o.holder, fd), key);
        assert_int_equal(ob_holder_take(&o.holder, key), -1);
        close(fd);
    }
    ob_holder_drop_left(&o.holder);
    ob_holder_flush(&o.holder);
    for (uint64_t key = 1; key <= 100; key++) {
        if (key % 3 == 1)
            continue;
        assert_int_equal(told(&o, &got).key, key);
        assert_int_equal(ob_holder_take(&o.holder, key), -1);
    }
    assert_int_equal(told(&o, &got).op, 0);
    stop(&o);
}

/* Answers that are none. No descriptor of theirs stays open. */
static void test_nonsense(void **state)
{
    int before = dup(0), fds[2] = { 0, 0 };

    (void)state;
    close(before);
    for (int i = 0; i < 5; i++) {
        struct other o;
        start(&o);
        if (i == 0)
            tell(&o, OB_HOLDER_KEEP, 1, NULL, 0);
        else if (i == 1)
            tell(&o, OB_HOLDER_KEEP, 1, fds, 2);
        else if (i == 2)
            tell(&o, OB_HOLDER_ASK, 1, fds, 1);
        else if (i == 3)
            assert_int_equal(send(o.socket, "short", 5, 0), 5);
        else
            assert_int_equal(shutdown(o.socket, SHUT_WR), 0);
        assert_int_equal(ob_holder_ask(&o.holder), -EPROTO);
        stop(&o);
    }
    int after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_and_drop),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_ask_and_take),
        cmocka_unit_test(test_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
