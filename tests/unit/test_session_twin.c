/* The twin socket against a back of the test's: what goes over it, what ends it, what a successor finds. */
#include "session_back.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIECE OB_SESSION_DMA_PIECE

/* The library's calls come here, and are counted. */
static unsigned calls;

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    calls++;
    return syscall(SYS_recvmsg, fd, msg, flags);
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    calls++;
    return syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0);
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    calls++;
    return syscall(SYS_recvfrom, fd, bytes, len, flags, NULL, NULL);
}

struct twins {
    struct back b;
    int twin; /* the client's end */
};

static int setup(void **state)
{
    struct twins *t = calloc(1, sizeof(*t));

    back_open(&t->b, -1, -1, -1);
    t->twin = back_connect_twin(&t->b);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct twins *t = *state;

    back_close(&t->b);
    close(t->twin);
    free(t);
    return 0;
}

static int ask(struct back *b, uint16_t command, uint32_t count)
{
    static uint8_t data[PIECE];
    struct ob_message m = { .header.command = command, .u.dma_access = { 0x1000, count } };

    memset(data, 0x11, sizeof(data));
    if (command == OB_DMA_WRITE) {
        m.tail = data;
        m.tail_size = count;
    }
    return ob_session_request(&b->s, &m);
}

/* A request as the client finds it; the last of what came. */
static void expect_request(int twin, int id, uint16_t command, uint32_t count)
{
    static uint8_t bytes[OB_TWIN_MAX_MESSAGE];
    size_t size = OB_HEADER_SIZE + 16 + (command == OB_DMA_WRITE ? count : 0);
    struct ob_header h;

    for (size_t have = 0; have < size;) {
        ssize_t n = recv(twin, bytes + have, size - have, MSG_DONTWAIT);
        assert_true(n > 0);
        have += (size_t)n;
    }
    memcpy(&h, bytes, sizeof(h));
    assert_int_equal(h.id, id);
    assert_int_equal(h.command, command);
    assert_int_equal(h.size, size);
    assert_int_equal(h.flags, 0);
}

static size_t put_answer(void *to, int id, uint32_t count)
{
    const struct ob_message m = { .header = { .id = (uint16_t)id, .command = OB_DMA_READ },
                                  .u.dma_access = { 0x1000, count },
                                  .tail = (const uint8_t *)to + OB_HEADER_SIZE + 16,
                                  .tail_size = count };
    ssize_t size = ob_encode_reply(to, OB_TWIN_MAX_MESSAGE, &m);

    assert_true(size > 0);
    return (size_t)size;
}

static void test_requests(void **state)
{
    struct twins *t = *state;
    uint8_t bytes[256] = { 0 };
    int id = ask(&t->b, OB_DMA_READ, 4);

    assert_true(id >= 0);
    expect_silence(t->b.client);
    expect_request(t->twin, id, OB_DMA_READ, 4);
    /* On the main socket its answer is to nothing. */
    send_all(t->b.client, bytes, put_answer(bytes, id, 4));
    assert_int_equal(back_run(&t->b), 0);
    assert_int_equal(t->b.answered, 0);
    assert_true(ob_twin_awaits(&t->b.s));
    send_all(t->twin, bytes, put_answer(bytes, id, 4));
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(t->b.answered, 1);
    assert_int_equal(t->b.answer_err, 0);
    assert_false(ob_twin_awaits(&t->b.s));
    /* Nothing was asked that this answers. */
    send_all(t->twin, bytes, put_answer(bytes, id, 4));
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(t->b.answered, 1);
    assert_int_equal(t->b.s.twin.broken, 0);
    assert_false(ob_twin_read(&t->b.s));
}

/* A request over the main socket costs what it costs without a twin socket. */
static void test_calls(void **state)
{
    struct twins *t = *state;
    uint8_t bytes[256];

    send_all(t->b.client, bytes, put_read(bytes, 1, BACK_MIX, 8));
    calls = 0;
    assert_true(ob_session_read(&t->b.s) > 0);
    assert_int_equal(calls, 2);
    expect_number(t->b.client, 1, 0);
}

/* What the client keeps waiting for a reply does not keep our requests waiting: it serves them meanwhile. */
static void test_beside_kept(void **state)
{
    struct twins *t = *state;
    uint8_t bytes[256] = { 0 };

    send_all(t->b.client, bytes, put_read(bytes, 1, BACK_KEEP, 8));
    assert_int_equal(back_run(&t->b), 0);
    assert_true(t->b.s.kept);
    int id = ask(&t->b, OB_DMA_READ, 4);
    expect_request(t->twin, id, OB_DMA_READ, 4);
    send_all(t->twin, bytes, put_answer(bytes, id, 4));
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(t->b.answered, 1);
    ob_session_complete(&t->b.s, -EIO);
    assert_int_equal(ob_session_advance(&t->b.s), 0);
    expect_reply(t->b.client, 1, EIO);
}

/* A client that does not read the twin socket gets no more requests, and every reply on the main one. */
static void test_unread(void **state)
{
    struct twins *t = *state;
    uint8_t bytes[256];
    unsigned asked = 0, got = 0;
    int id = 0;

    assert_int_equal(ob_twin_events(&t->b.s), EPOLLIN);
    while ((id = ask(&t->b, OB_DMA_WRITE, PIECE)) >= 0)
        asked++;
    assert_int_equal(id, -EAGAIN);
    assert_int_equal(ob_twin_events(&t->b.s), EPOLLIN | EPOLLOUT);
    assert_in_range(asked, 2, OB_SESSION_MAX_ASKED - 1); /* it was the socket that was full */
    send_all(t->b.client, bytes, put_read(bytes, 1, BACK_MIX, 8));
    assert_int_equal(back_run(&t->b), 0);
    expect_number(t->b.client, 1, 0);
    for (; got < asked; got++)
        expect_request(t->twin, (int)got, OB_DMA_WRITE, PIECE);
    ob_twin_flush(&t->b.s);
    expect_silence(t->twin); /* what did not go is not kept */
    assert_int_equal(ob_twin_events(&t->b.s), EPOLLIN);
    assert_true(ask(&t->b, OB_DMA_WRITE, 4) >= 0);
}

/* An answer may come in any pieces; the largest there are, one after the other, find room. */
static void test_pieces(void **state)
{
    struct twins *t = *state;
    static uint8_t bytes[OB_TWIN_MAX_MESSAGE];

    for (unsigned i = 0; i < 20; i++) {
        size_t size = put_answer(bytes, ask(&t->b, OB_DMA_READ, PIECE), PIECE);
        size_t step = i == 0 ? 1 : 1000 + i * 997;
        for (size_t sent = 0; sent < size; sent += step) {
            assert_int_equal(t->b.answered, i);
            send_all(t->twin, bytes + sent, size - sent < step ? size - sent : step);
            assert_true(ob_twin_read(&t->b.s));
            assert_int_equal(t->b.s.twin.broken, 0);
        }
        assert_int_equal(t->b.answered, i + 1);
        assert_int_equal(t->b.answer_err, 0);
    }
}

/* What breaks it: nothing of this is waited for any further, and the session does not notice. */
static void test_hostile(void **state)
{
    static const struct {
        uint32_t size, flags;
        int broken;
    } cases[] = {
        { OB_HEADER_SIZE, 0, -EPROTO },
        { 1000, 0, -EPROTO },
        { OB_HEADER_SIZE, 2, -EPROTO },
        { OB_HEADER_SIZE - 1, OB_FLAG_REPLY, -EPROTO },
        { 0, OB_FLAG_REPLY, -EPROTO },
        { OB_TWIN_MAX_MESSAGE + 1, OB_FLAG_REPLY, -EMSGSIZE },
        { UINT32_MAX, OB_FLAG_REPLY, -EMSGSIZE },
    };
    struct back *b = &((struct twins *)*state)->b;
    uint8_t bytes[64];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int *twin = &((struct twins *)*state)->twin;
        unsigned answered = b->answered;
        int id = ask(b, OB_DMA_READ, 4);
        assert_true(id >= 0);
        send_all(*twin, bytes, put_header(bytes, (uint16_t)id, OB_DMA_READ, cases[i].size, cases[i].flags));
        assert_true(ob_twin_read(&b->s));
        assert_int_equal(b->s.twin.broken, cases[i].broken);
        assert_false(ob_twin_read(&b->s));
        assert_int_equal(b->answered, answered);
        assert_int_equal(ask(b, OB_DMA_READ, 4), -EAGAIN);
        ob_twin_end(&b->s);
        assert_int_equal(b->answered, answered + 1);
        assert_int_equal(b->answer_err, -EPIPE);
        assert_int_equal(ask(b, OB_DMA_READ, 4), -EPIPE);
        send_all(b->client, bytes, put_read(bytes, 1, BACK_MIX, 8));
        assert_int_equal(back_run(b), 0);
        expect_number(b->client, 1, 0); /* and no request before it */
        ob_session_end(&b->s);
        close(*twin);
        *twin = back_connect_twin(b);
    }
}

/* Malformed answers are refused one by one: their stream can be followed. */
static void test_malformed(void **state)
{
    struct twins *t = *state;
    uint8_t bytes[256] = { 0 };
    int id = ask(&t->b, OB_DMA_READ, 4);

    send_all(t->twin, bytes, put_answer(bytes, id, 5)); /* more than was asked for */
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(t->b.answer_err, -EPROTO);
    id = ask(&t->b, OB_DMA_READ, 4);
    send_all(t->twin, bytes, put_answer(bytes, id, 4));
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(t->b.answer_err, 0);
}

/* The client closes its end, or half of it, before a request or after it. */
static void test_closed(void **state)
{
    struct back *b = &((struct twins *)*state)->b;
    uint8_t bytes[64];

    for (int how = 0; how < 4; how++) {
        int *twin = &((struct twins *)*state)->twin;
        unsigned answered = b->answered;
        if (how & 1)
            assert_true(ask(b, OB_DMA_READ, 4) >= 0);
        if (how & 2)
            assert_int_equal(shutdown(*twin, SHUT_RD), 0);
        else
            assert_int_equal(shutdown(*twin, SHUT_WR), 0);
        if (how & 2)
            assert_true(ask(b, OB_DMA_READ, 4) >= 0); /* and never gets there */
        else
            assert_true(ob_twin_read(&b->s));
        assert_int_equal(b->s.twin.broken, -EPIPE);
        ob_twin_end(&b->s);
        assert_int_equal(b->answered, answered + (how & 1) + (how >> 1));
        assert_int_equal(ask(b, OB_DMA_READ, 4), -EPIPE);
        send_all(b->client, bytes, put_read(bytes, 1, BACK_MIX, 8));
        assert_int_equal(back_run(b), 0);
        expect_number(b->client, 1, 0);
        ob_session_end(&b->s);
        close(*twin);
        *twin = back_connect_twin(b);
    }
}

/* Nobody wants descriptors here: none stays. */
static void test_descriptors(void **state)
{
    struct twins *t = *state;
    uint8_t bytes[256] = { 0 };
    int pair[2], id = ask(&t->b, OB_DMA_READ, 4);
    size_t size = put_answer(bytes, id, 4);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    send_fd(t->twin, bytes, 10, pair[1]);
    close(pair[1]);
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(recv(pair[0], bytes + size, 1, MSG_DONTWAIT), 0);
    send_all(t->twin, bytes + 10, size - 10);
    assert_true(ob_twin_read(&t->b.s));
    assert_int_equal(t->b.answered, 1);
    close(pair[0]);
}

/* A process out of descriptors says so, as it does to clients that send some. */
static void test_no_descriptors(void **state)
{
    struct back *b = &((struct twins *)*state)->b;
    struct rlimit limit, few;
    uint8_t bytes[256];

    ob_session_end(&b->s);
    back_connect(b, false);
    send_all(b->client, bytes, put_version_text(bytes, 1, "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}"));
    int free_number = dup(0);
    close(free_number);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = (struct rlimit){ .rlim_cur = (rlim_t)free_number + 1, .rlim_max = limit.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int result = back_run(b);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(result, -EPROTO);
    assert_non_null(strstr(b->s.why, "Too many open files"));
    expect_reply(b->client, 1, EMFILE);
    assert_false(ob_session_negotiated(&b->s));
}

/* --- Successors -------------------------------------------------------------------------------------------------- */

struct life {
    struct back b;
    int holder, held; /* ours, the session's */
    int server;       /* the connection, which outlives the process */
};

static void life_begin(struct life *life, int *twin)
{
    int pair[2];

    memset(life, 0, sizeof(*life));
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    life->holder = pair[0];
    life->held = pair[1];
    back_open(&life->b, -1, -1, dup(life->held));
    *twin = back_connect_twin(&life->b);
    life->server = dup(life->b.s.fd);
}

/* What the session has with the holder is there for its successor. */
static void return_held(struct life *life)
{
    struct ob_holder_message m;
    int kept = -1;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };

    assert_int_equal(recvmsg(life->holder, &msg, MSG_DONTWAIT), sizeof(m));
    assert_int_equal(m.op, OB_HOLDER_KEEP);
    memcpy(&kept, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
    send_fd(life->holder, &m, sizeof(m), kept);
    close(kept);
}

/* The process is gone, with what it had, but for what others have; its successor goes on. */
static void life_goes_on(struct life *life)
{
    struct ob_holder_message m, end = { .key = OB_HOLDER_END, .op = OB_HOLDER_DROP };
    int client = life->b.client, vault = dup(life->b.vault.fd), journal = dup(life->b.s.journal.fd);

    if (life->b.s.twin.fd >= 0)
        return_held(life);
    send_all(life->holder, &end, sizeof(end));

    close(life->b.s.fd);
    if (life->b.s.twin.fd >= 0)
        close(life->b.s.twin.fd);
    close(life->b.region_fd);
    ob_journal_close(&life->b.s.journal);
    ob_vault_close(&life->b.vault);
    ob_holder_free(&life->b.s.holder);

    back_open(&life->b, vault, journal, dup(life->held));
    life->b.client = client;
    assert_int_equal(ob_holder_ask(&life->b.s.holder), 0);
    assert_int_equal(ob_session_resume(&life->b.s, dup(life->server)), 0);
    for (unsigned i = 0; i < life->b.s.holder.n_left; i++)
        assert_int_equal(life->b.s.holder.left[i].fd, -1); /* taken */
    ob_holder_drop_left(&life->b.s.holder);
    assert_int_equal(recv(life->holder, &m, sizeof(m), MSG_DONTWAIT), sizeof(m)); /* it asked */
    assert_int_equal(m.op, OB_HOLDER_ASK);
}

static void life_end(struct life *life, int twin)
{
    struct ob_holder_message m;

    ob_session_end(&life->b.s);
    assert_int_equal(recv(life->holder, &m, sizeof(m), MSG_DONTWAIT), sizeof(m));
    assert_int_equal(m.op, OB_HOLDER_DROP);
    back_close(&life->b);
    close(life->holder);
    close(life->held);
    close(life->server);
    close(twin);
}

/* Until the socket takes no more: how many it took. The journal is left as if it had taken `some` of one more, or had
 * not been asked yet. */
static unsigned fill(struct back *b, size_t some)
{
    struct ob_journal_twin *t = &b->s.journal.header->twin;
    unsigned asked = 0;

    while (ask(b, OB_DMA_WRITE, PIECE) >= 0)
        asked++;
    assert_true(t->out_base == t->out_sent && t->out_sent == t->out_tail);
    t->out_tail += OB_HEADER_SIZE + 16 + PIECE;
    t->out_sent += some;
    return asked;
}

/* It died in the middle of a message to the client: the rest of that comes first. */
static void test_successor_sends_the_rest(void **state)
{
    static struct life life;
    const size_t some = 100;
    int twin, id;

    (void)state;
    life_begin(&life, &twin);
    unsigned asked = fill(&life.b, some);
    for (unsigned i = 0; i < asked; i++)
        expect_request(twin, (int)i, OB_DMA_WRITE, PIECE);
    life_goes_on(&life);
    assert_int_equal(ob_twin_events(&life.b.s), EPOLLIN | EPOLLOUT);
    assert_int_equal(ask(&life.b, OB_DMA_READ, 4), -EAGAIN);
    ob_twin_flush(&life.b.s);
    id = ask(&life.b, OB_DMA_READ, 4);
    assert_true(id >= 0);
    static uint8_t rest[OB_TWIN_MAX_MESSAGE];
    size_t left = OB_HEADER_SIZE + 16 + PIECE - some;
    assert_int_equal(recv(twin, rest, left, MSG_DONTWAIT), left);
    expect_request(twin, id, OB_DMA_READ, 4);
    life_end(&life, twin);
}

/* It died before any of a message had gone: nobody waits for that any more. */
static void test_successor_forgets_the_unsent(void **state)
{
    static struct life life;
    int twin, id;

    (void)state;
    life_begin(&life, &twin);
    unsigned asked = fill(&life.b, 0);
    life_goes_on(&life);
    for (unsigned i = 0; i < asked; i++)
        expect_request(twin, (int)i, OB_DMA_WRITE, PIECE);
    expect_silence(twin);
    id = ask(&life.b, OB_DMA_READ, 4);
    assert_true(id >= (int)asked);
    expect_request(twin, id, OB_DMA_READ, 4);
    life_end(&life, twin);
}

/* It died with half an answer in hand: that is nobody's, and the one behind it is not taken for its rest. */
static void test_successor_follows_the_answers(void **state)
{
    static struct life life;
    static uint8_t bytes[OB_TWIN_MAX_MESSAGE];
    int twin;

    (void)state;
    for (size_t had = 1; had < OB_HEADER_SIZE + 16 + 1000; had += 61) {
        life_begin(&life, &twin);
        int first = ask(&life.b, OB_DMA_READ, 1000);
        expect_request(twin, first, OB_DMA_READ, 1000);
        size_t size = put_answer(bytes, first, 1000);
        send_all(twin, bytes, had);
        assert_true(ob_twin_read(&life.b.s));
        life_goes_on(&life);
        send_all(twin, bytes + had, size - had);
        int second = ask(&life.b, OB_DMA_READ, 4);
        send_all(twin, bytes, put_answer(bytes, second, 4));
        assert_true(ob_twin_read(&life.b.s));
        assert_int_equal(life.b.answered, 1);
        assert_int_equal(life.b.answer_err, 0);
        life_end(&life, twin);
    }
}

/* The twin socket was an earlier client's; the one that is taken over has none. */
static void test_successor_without(void **state)
{
    static struct life life;
    struct ob_holder_message m;
    uint8_t bytes[64];
    int twin;

    (void)state;
    life_begin(&life, &twin);
    ob_session_end(&life.b.s);
    back_connect(&life.b, true);
    close(life.server);
    life.server = dup(life.b.s.fd);
    while (recv(life.holder, &m, sizeof(m), MSG_DONTWAIT) > 0)
        ;
    life_goes_on(&life);
    assert_true(ask(&life.b, OB_DMA_READ, 4) == -EAGAIN); /* its socket may be full */
    assert_int_equal(ob_session_advance(&life.b.s), 0);
    assert_true(ask(&life.b, OB_DMA_READ, 4) >= 0);
    assert_int_equal(recv(life.b.client, bytes, sizeof(bytes), MSG_DONTWAIT), OB_HEADER_SIZE + 16);
    back_close(&life.b);
    close(life.holder);
    close(life.held);
    close(life.server);
    close(twin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_beside_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
        cmocka_unit_test(test_successor_sends_the_rest),
        cmocka_unit_test(test_successor_forgets_the_unsent),
        cmocka_unit_test(test_successor_follows_the_answers),
        cmocka_unit_test(test_successor_without),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
