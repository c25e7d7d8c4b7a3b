/* The front against a back of the test's: order, framing, backlogs, and how many system calls it takes. */
#include "session_back.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The library's calls come here, and are counted. */
static unsigned receives, sends;

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    receives++;
    return syscall(SYS_recvmsg, fd, msg, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    sends++;
    return syscall(SYS_sendmsg, fd, msg, flags);
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    sends++;
    return syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0);
}

static int setup_bare(void **state)
{
    struct back *b = calloc(1, sizeof(*b));

    back_open(b, -1, -1, -1);
    back_connect(b, false);
    *state = b;
    return 0;
}

static int setup(void **state)
{
    setup_bare(state);
    back_connect(*state, true);
    return 0;
}

static int teardown(void **state)
{
    back_close(*state);
    free(*state);
    return 0;
}

static void test_calls(void **state)
{
    struct back *b = *state;
    uint8_t bytes[33 * 64];
    size_t size = 0;
    uint64_t number = 0;

    for (uint32_t i = 0; i < 32; i++) {
        size += put_write(bytes + size, (uint16_t)i, i, true);
        number = back_mix(number, i);
    }
    size += put_read(bytes + size, 99, BACK_MIX, 8);
    send_all(b->client, bytes, size);
    receives = sends = 0;
    assert_true(ob_session_read(&b->s) > 0);
    assert_int_equal(receives, 1);
    assert_int_equal(sends, 1);
    expect_number(b->client, 99, number);
    expect_silence(b->client);
}

static void test_byte_by_byte(void **state)
{
    struct back *b = *state;
    uint8_t bytes[512];
    size_t size = put_write(bytes, 1, 5, false);

    size += put_read(bytes + size, 2, BACK_REFUSE, 8);
    size += put_write(bytes + size, 3, 6, true);
    size += put_read(bytes + size, 4, BACK_MIX, 8);
    for (size_t i = 0; i < size; i++) {
        send_all(b->client, bytes + i, 1);
        assert_int_equal(back_run(b), 0);
    }
    expect_reply(b->client, 1, 0);
    expect_reply(b->client, 2, EIO);
    expect_number(b->client, 4, back_mix(back_mix(0, 5), 6));
    expect_silence(b->client);
}

/* A message too large is refused once, and none of its bytes is taken for a message, however they come. */
static void test_oversized(void **state)
{
    struct back *b = *state;
    const size_t body = 3 * 1048576, pieces[] = { 16, 1, 40000, 5000 };
    uint8_t *zeros = calloc(1, 40000), bytes[64];

    for (unsigned p = 0; p < 4; p++) {
        put_header(bytes, 7, OB_REGION_WRITE, (uint32_t)(OB_HEADER_SIZE + body), 0);
        send_all(b->client, bytes, 9);
        assert_int_equal(back_run(b), 0);
        send_all(b->client, bytes + 9, 7);
        assert_int_equal(back_run(b), 0);
        expect_reply(b->client, 7, EMSGSIZE);
        size_t n = pieces[p] < 1000 ? 1000 : body;
        for (size_t sent = 0; sent < body;) {
            size_t now = body - sent < pieces[p] || sent > n ? body - sent : pieces[p];
            now = now > 40000 ? 40000 : now;
            send_all(b->client, zeros, now);
            assert_int_equal(back_run(b), 0);
            sent += now;
        }
        expect_silence(b->client);
        send_all(b->client, bytes, put_read(bytes, 8, BACK_MIX, 8));
        assert_int_equal(back_run(b), 0);
        expect_number(b->client, 8, 0);
    }
    free(zeros);
}

/* The next client does not inherit the rest of such a message, nor replies that the last one did not read. */
static void test_next_client(void **state)
{
    struct back *b = *state;
    uint8_t bytes[64];

    send_all(b->client, bytes, put_header(bytes, 7, OB_REGION_WRITE, 9000000, 0));
    assert_int_equal(back_run(b), 0);
    ob_session_end(&b->s);
    back_connect(b, true);
    send_all(b->client, bytes, put_read(bytes, 8, BACK_MIX, 8));
    assert_int_equal(back_run(b), 0);
    expect_number(b->client, 8, 0);
    expect_silence(b->client);
}

static void test_headers_that_lie(void **state)
{
    struct back *b = *state;
    uint8_t bytes[128];
    size_t size = put_write(bytes, 1, 5, false);
    uint32_t shorter = (uint32_t)size - 1;

    send_all(b->client, bytes, size);
    memcpy(bytes + 4, &shorter, 4);
    send_all(b->client, bytes, shorter);
    size = put_read(bytes, 3, BACK_MIX, 8);
    size += put_header(bytes + size, 4, OB_REGION_READ, 15, 0);
    send_all(b->client, bytes, size);
    assert_int_equal(back_run(b), -EPROTO);
    expect_reply(b->client, 1, 0);
    expect_reply(b->client, 1, EINVAL);
    expect_number(b->client, 3, back_mix(0, 5));
    expect_silence(b->client);
    assert_true(b->s.why[0]);
}

static void test_version(void **state)
{
    struct back *b = *state;
    uint8_t bytes[128], text[OB_VERSION_MAX_TEXT];
    size_t size = put_read(bytes, 1, BACK_MIX, 8);

    size += put_version(bytes + size, 2, 0);
    size += put_version(bytes + size, 3, 0);
    send_all(b->client, bytes, size);
    assert_int_equal(back_run(b), 0);
    expect_reply(b->client, 1, EINVAL);
    assert_int_equal(next_reply(b->client, text, sizeof(text), NULL).id, 2);
    expect_reply(b->client, 3, EALREADY);
    assert_int_equal(b->opened, 1);
    ob_session_end(&b->s);

    back_connect(b, false);
    assert_false(ob_session_negotiated(&b->s));
    send_all(b->client, bytes, put_version(bytes, 4, 1));
    assert_int_equal(back_run(b), -EPROTO);
    expect_reply(b->client, 4, EPROTONOSUPPORT);
}

/* What is behind a kept request waits, but for replies to ours. */
static void test_kept(void **state)
{
    struct back *b = *state;
    uint8_t bytes[256];
    struct ob_message ask = {
        .header.command = OB_DMA_WRITE, .u.dma_access = { 0x1000, 4 }, .tail = bytes, .tail_size = 4
    };

    memset(bytes, 0, sizeof(bytes));
    int id = ob_session_request(&b->s, &ask);
    assert_true(id >= 0);
    uint8_t request[64];
    assert_int_equal(recv(b->client, request, sizeof(request), 0), OB_HEADER_SIZE + 16 + 4);
    size_t size = put_read(bytes, 1, BACK_KEEP, 8);
    size += put_write(bytes + size, 2, 5, false);
    size += put_header(bytes + size, (uint16_t)id, OB_DMA_WRITE, 16, OB_FLAG_REPLY);
    size += put_read(bytes + size, 3, BACK_MIX, 8);
    send_all(b->client, bytes, size);
    assert_int_equal(back_run(b), 0);
    assert_true(b->s.kept);
    assert_int_equal(b->answered, 1);
    assert_int_equal(b->answer_err, 0);
    assert_int_equal(ob_session_request(&b->s, &ask), -EAGAIN);
    expect_silence(b->client);
    struct ob_message reply = { .u.region_access = b->s.request.u.region_access, .tail = bytes, .tail_size = 8 };
    memset(bytes, 0, 8);
    ob_session_reply(&b->s, &reply, -1);
    ob_session_complete(&b->s, 0);
    assert_int_equal(back_run(b), 0);
    expect_number(b->client, 1, 0);
    expect_reply(b->client, 2, 0);
    expect_number(b->client, 3, back_mix(0, 5));
    assert_true(ob_session_request(&b->s, &ask) >= 0);
}

/* A message of ours that is left unanswered keeps its id, however many follow it: an answer is for one of them. */
static void test_unanswered_id(void **state)
{
    struct back *b = *state;
    struct ob_message ask = { .header.command = OB_DMA_READ, .u.dma_access = { 0x1000, 32768 } };
    uint8_t bytes[64];
    int left = ob_session_request(&b->s, &ask);

    assert_true(left >= 0);
    assert_int_equal(recv(b->client, bytes, sizeof(bytes), 0), OB_HEADER_SIZE + 16);
    ask.u.dma_access.count = 4;
    for (unsigned i = 0; i <= UINT16_MAX; i++) {
        int id = ob_session_request(&b->s, &ask);

        assert_true(id >= 0);
        assert_int_not_equal(id, left);
        assert_int_equal(recv(b->client, bytes, sizeof(bytes), 0), OB_HEADER_SIZE + 16);
        send_all(b->client, bytes, put_header(bytes, (uint16_t)id, OB_DMA_READ, 16, OB_FLAG_REPLY | OB_FLAG_ERROR));
        assert_int_equal(back_run(b), 0);
        assert_int_equal(b->answered, i + 1);
    }
}

/* A client cannot make us take more than the journal holds, nor does it end the session to try. */
static void test_backlog(void **state)
{
    struct back *b = *state;
    uint8_t bytes[64];
    uint64_t number = 0;
    uint32_t sent = 0;

    send_all(b->client, bytes, put_read(bytes, 1, BACK_KEEP, 8));
    for (;;) {
        size_t size = put_write(bytes, 2, sent, true);
        ssize_t n = write(b->client, bytes, size);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            uint64_t tail = b->s.journal.header->in_tail;
            assert_int_equal(back_run(b), 0);
            if (b->s.journal.header->in_tail == tail)
                break;
            continue;
        }
        assert_int_equal(n, size);
        number = back_mix(number, sent++);
    }
    assert_int_equal(ob_session_events(&b->s), 0);
    ob_session_complete(&b->s, -EIO);
    assert_int_equal(back_run(b), 0);
    send_all(b->client, bytes, put_read(bytes, 3, BACK_MIX, 8));
    assert_int_equal(back_run(b), 0);
    expect_reply(b->client, 1, EIO);
    expect_number(b->client, 3, number);
}

/* One that does not read its replies is read no more, and gets them all in the end, without a header cut in two. */
static void test_stalled_reader(void **state)
{
    struct back *b = *state;
    static uint8_t payload[200000];
    uint8_t bytes[64];
    unsigned asked = 0, got = 0;

    while (!b->s.blocked) {
        uint32_t count = asked % 3 ? 20000 + asked : 150000;
        send_all(b->client, bytes, put_read(bytes, (uint16_t)asked++, BACK_BYTES, count));
        send_all(b->client, bytes, put_read(bytes, (uint16_t)asked++, BACK_MIX, 8));
        assert_int_equal(back_run(b), 0);
        assert_true(asked < 1000);
    }
    for (int i = 0; i < 20; i++)
        send_all(b->client, bytes, put_read(bytes, (uint16_t)asked++, BACK_MIX, 8));
    assert_int_equal(ob_session_events(&b->s), EPOLLOUT);
    const struct ob_journal_header *h = b->s.journal.header;
    assert_true(b->s.position.out_tail - h->out_sent <= h->out_size);
    while (got < asked) {
        struct ob_header header;
        ssize_t n = recv(b->client, &header, sizeof(header), MSG_DONTWAIT);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            assert_true(ob_session_advance(&b->s) >= 0);
            assert_int_equal(back_run(b), 0);
            continue;
        }
        assert_int_equal(n, sizeof(header));
        assert_int_equal(header.id, got++);
        for (size_t left = header.size - sizeof(header); left > 0;) {
            n = recv(b->client, payload, left, MSG_DONTWAIT);
            if (n < 0)
                assert_true(ob_session_advance(&b->s) >= 0);
            else
                left -= (size_t)n;
        }
    }
    assert_int_equal(back_run(b), 0);
    expect_silence(b->client);
    assert_false(b->s.blocked);
}

/* Replies with descriptors stand alone in their segments, whatever is around them. */
static void test_descriptors_out(void **state)
{
    struct back *b = *state;
    uint8_t bytes[512], payload[256];
    size_t size = put_read(bytes, 0, BACK_MIX, 8);

    for (uint16_t id = 1; id < 4; id++)
        size += put_region_info(bytes + size, id);
    size += put_read(bytes + size, 4, BACK_MIX, 8);
    send_all(b->client, bytes, size);
    sends = 0;
    assert_int_equal(back_run(b), 0);
    assert_int_equal(sends, 5);
    for (uint16_t id = 0; id < 5; id++) {
        uint8_t segment[512];
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int) * 4)];
        } control;
        struct iovec iov = { .iov_base = segment, .iov_len = sizeof(segment) };
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
        };
        if (id == 0 || id == 4) {
            expect_number(b->client, id, 0);
            continue;
        }
        ssize_t n = recvmsg(b->client, &msg, MSG_DONTWAIT | MSG_PEEK);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        assert_non_null(c);
        assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(int)));
        int peeked, fd;
        memcpy(&peeked, CMSG_DATA(c), sizeof(int));
        close(peeked);
        struct ob_header h = next_reply(b->client, payload, sizeof(payload), &fd);
        assert_int_equal(h.id, id);
        assert_int_equal(n, h.size);
        assert_true(fd >= 0);
        close(fd);
    }
}

/* More maps behind a kept request than there are places for their descriptors: they wait in the socket. */
static void test_maps_behind_kept(void **state)
{
    struct back *b = *state;
    uint8_t bytes[64];

    send_all(b->client, bytes, put_read(bytes, 0, BACK_KEEP, 8));
    for (uint16_t id = 1; id <= 24; id++) {
        int fd = memfd_create("map", MFD_CLOEXEC);
        assert_int_equal(ftruncate(fd, id), 0);
        send_fd(b->client, bytes, put_map(bytes, id, id * UINT64_C(4096)), fd);
        close(fd);
        assert_int_equal(back_run(b), 0);
    }
    ob_session_complete(&b->s, -EIO);
    assert_int_equal(back_run(b), 0);
    expect_reply(b->client, 0, EIO);
    for (uint16_t id = 1; id <= 24; id++) {
        expect_reply(b->client, id, 0);
        assert_int_equal(lseek(b->fds[id - 1], 0, SEEK_END), id);
    }
}

/* What the holder is told, as far as it reads here. */
static void take_holder(int socket, int *kept)
{
    struct ob_holder_message m;

    while (recv(socket, &m, sizeof(m), MSG_DONTWAIT) == sizeof(m))
        *kept += m.op == OB_HOLDER_KEEP ? 1 : -1;
}

/* Descriptors that no message may carry do not stay with the holder; those of maps do. */
static void test_unclaimed(void **state)
{
    struct back *b = calloc(1, sizeof(*b));
    uint8_t bytes[128];
    int pair[2], kept = 0, fd = memfd_create("map", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    back_open(b, -1, -1, pair[1]);
    back_connect(b, true);
    for (uint16_t i = 0; i < 200; i++) {
        size_t size = put_write(bytes, i, 0, true);
        send_fd(b->client, bytes, 10, fd); /* whose it is shows with the rest of the header only */
        assert_int_equal(back_run(b), 0);
        send_all(b->client, bytes + 10, size - 10);
        assert_int_equal(back_run(b), 0);
        take_holder(pair[0], &kept);
        assert_true(kept <= OB_JOURNAL_BATCHES);
    }
    send_fd(b->client, bytes, put_map(bytes, 1, 4096), fd);
    assert_int_equal(back_run(b), 0);
    expect_reply(b->client, 1, 0);
    ob_session_end(&b->s);
    take_holder(pair[0], &kept);
    assert_int_equal(kept, 1); /* the back's own */
    close(pair[0]);
    close(fd);
    back_close(b);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oversized, setup, teardown),
        cmocka_unit_test_setup_teardown(test_next_client, setup, teardown),
        cmocka_unit_test_setup_teardown(test_headers_that_lie, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version, setup_bare, teardown),
        cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unanswered_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backlog, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stalled_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_maps_behind_kept, setup, teardown),
        cmocka_unit_test(test_unclaimed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
