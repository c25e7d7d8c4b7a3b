/* What is sent arrives whole and in order, from peers that stall to peers that are gone, and no header is ever cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/receiver.h"
#include "transport/sender.h"

#define HEADER 16
#define LEN    (4u << 20)

static void connect_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

static uint8_t *noise(size_t len)
{
    uint8_t *bytes = malloc(len);
    uint32_t x = 1;

    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = x >> 24;
    }
    return bytes;
}

/* Receives what there is and checks it; returns the new position. */
static size_t drain(int fd, const uint8_t *expected, size_t position)
{
    uint8_t room[65536];
    ssize_t got;

    while ((got = recv(fd, room, sizeof(room), MSG_DONTWAIT)) > 0) {
        assert_memory_equal(room, expected + position, (size_t)got);
        position += (size_t)got;
    }
    assert_true(got < 0 && errno == EAGAIN);
    return position;
}

/* A peer that never reads: a gathered batch goes whole or not at all. One that reads again gets everything. */
static void stalled_peer_gets_whole_batches(void **state)
{
    uint8_t *bytes = noise(LEN);
    size_t sent = 0, seen = 0;
    unsigned stalls = 0;
    int pair[2];

    connect_pair(pair);
    while (sent < LEN) {
        size_t len = sent % 3 == 0 ? OB_SEND_BATCH : 30000 + sent % 2700;
        ssize_t did = ob_send_bytes(pair[0], bytes + sent, len < LEN - sent ? len : LEN - sent);

        if (did == -EAGAIN) {
            assert_int_equal(ob_send_bytes(pair[0], bytes + sent, 1), -EAGAIN);
            seen = drain(pair[1], bytes, seen);
            assert_int_equal(seen, sent);
            stalls++;
            continue;
        }
        assert_int_equal(did, len < LEN - sent ? len : LEN - sent);
        sent += (size_t)did;
    }
    assert_int_equal(drain(pair[1], bytes, seen), LEN);
    assert_true(stalls > 2);
    close_pair(pair);
    free(bytes);
}

/* One large message is cut where the socket is full, and resumes there. */
static void large_message_resumes(void **state)
{
    uint8_t *bytes = noise(LEN);
    size_t sent = 0, seen = 0;
    unsigned cuts = 0;
    int pair[2];

    connect_pair(pair);
    while (sent < LEN) {
        ssize_t did = ob_send_bytes(pair[0], bytes + sent, LEN - sent);

        assert_true(did > 0 && (size_t)did <= LEN - sent);
        sent += (size_t)did;
        cuts++;
        seen = drain(pair[1], bytes, seen);
        assert_int_equal(seen, sent);
    }
    assert_true(cuts > 2);
    close_pair(pair);
    free(bytes);
}

/* Reads as QEMU does: the header with one call, that has to be complete, and then the rest. */
static size_t read_messages(int fd, size_t *left)
{
    uint8_t header[HEADER], room[65536];
    size_t messages = 0;
    ssize_t got;

    for (;;) {
        if (*left == 0) {
            got = recv(fd, header, HEADER, MSG_DONTWAIT);
            if (got < 0)
                break;
            assert_int_equal(got, HEADER);
            memcpy(left, header, sizeof(*left));
            messages++;
        } else {
            got = recv(fd, room, *left < sizeof(room) ? *left : sizeof(room), MSG_DONTWAIT);
            if (got < 0)
                break;
            *left -= (size_t)got;
        }
    }
    assert_int_equal(errno, EAGAIN);
    return messages;
}

static void headers_are_never_cut(void **state)
{
    uint8_t *bytes = noise(LEN);
    size_t sizes[2000], count, total = 0, sent = 0, end = 0, next = 0, left = 0, seen = 0;
    int pair[2];

    for (count = 0; count < 2000; count++) {
        size_t payload = count % 50 == 49 ? 300000 : bytes[count] * 3;

        if (total + HEADER + payload > LEN)
            break;
        memcpy(bytes + total, &payload, sizeof(payload));
        sizes[count] = HEADER + payload;
        total += sizes[count];
    }
    assert_true(count > 100);
    connect_pair(pair);
    while (sent < total) {
        size_t begin = end;
        ssize_t did;

        /* The end of the batch is moved only when all before it has gone. */
        while (sent == begin && next < count && ob_send_joins(end - begin, sizes[next]))
            end += sizes[next++];
        did = ob_send_bytes(pair[0], bytes + sent, end - sent);
        if (did != -EAGAIN) {
            assert_true(did > 0);
            sent += (size_t)did;
            continue;
        }
        seen += read_messages(pair[1], &left);
    }
    seen += read_messages(pair[1], &left);
    assert_int_equal(left, 0);
    assert_int_equal(seen, count);
    close_pair(pair);
    free(bytes);
}

static void joins(void **state)
{
    assert_true(ob_send_joins(0, 1));
    assert_true(ob_send_joins(0, SIZE_MAX));
    assert_true(ob_send_joins(16, OB_SEND_BATCH - 16));
    assert_false(ob_send_joins(16, OB_SEND_BATCH - 15));
    assert_false(ob_send_joins(16, SIZE_MAX));
    assert_false(ob_send_joins(OB_SEND_BATCH, 16));
    assert_false(ob_send_joins(OB_SEND_BATCH + 1, 16));
}

/* A reply with descriptors has a segment to itself, as a reader with room for everything sees. */
static void descriptor_goes_alone(void **state)
{
    struct ob_receiver receiver;
    struct stat want, got;
    char room[64];
    int pair[2], fds[2];

    connect_pair(pair);
    ob_receiver_init(&receiver);
    assert_int_equal(ob_send_with_fds(pair[0], "first", 5, &pair[1], 1), 5);
    assert_int_equal(ob_send_with_fds(pair[0], "second", 6, pair, 2), 6);
    assert_int_equal(ob_send_bytes(pair[0], "third", 5), 5);

    assert_int_equal(ob_receive(&receiver, pair[1], room, sizeof(room)), 5);
    ob_receiver_note(&receiver, 5, true);
    assert_int_equal(ob_receiver_claim(&receiver, 0, fds, 2), 1);
    assert_int_equal(fstat(fds[0], &got), 0);
    assert_int_equal(fstat(pair[1], &want), 0);
    assert_int_equal(got.st_ino, want.st_ino);
    close(fds[0]);

    assert_int_equal(ob_receive(&receiver, pair[1], room, sizeof(room)), 6);
    ob_receiver_note(&receiver, 6, true);
    assert_int_equal(ob_receiver_claim(&receiver, 5, fds, 2), 2);
    assert_int_equal(fstat(fds[1], &got), 0);
    assert_int_equal(got.st_ino, want.st_ino);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(ob_receive(&receiver, pair[1], room, sizeof(room)), 5);
    assert_memory_equal(room, "third", 5);
    ob_receiver_close(&receiver);
    close_pair(pair);
}

static void refusals(void **state)
{
    int pair[2], none = -1, many[OB_SEND_MAX_FDS + 1];

    connect_pair(pair);
    for (unsigned i = 0; i <= OB_SEND_MAX_FDS; i++)
        many[i] = pair[0];
    assert_int_equal(ob_send_bytes(pair[0], "x", 0), -EINVAL);
    assert_int_equal(ob_send_with_fds(pair[0], "x", 0, pair, 1), -EINVAL);
    assert_int_equal(ob_send_with_fds(pair[0], "x", 1, pair, 0), -EINVAL);
    assert_int_equal(ob_send_with_fds(pair[0], "x", 1, many, OB_SEND_MAX_FDS + 1), -EINVAL);
    assert_int_equal(ob_send_with_fds(pair[0], "x", 1, &none, 1), -EBADF);
    assert_int_equal(ob_send_with_fds(pair[0], "x", 1, many, OB_SEND_MAX_FDS), 1);
    close(pair[1]); /* SIGPIPE would end this test */
    assert_int_equal(ob_send_bytes(pair[0], "x", 1), -EPIPE);
    assert_int_equal(ob_send_with_fds(pair[0], "x", 1, pair, 1), -EPIPE);
    close(pair[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalled_peer_gets_whole_batches), cmocka_unit_test(large_message_resumes),
        cmocka_unit_test(headers_are_never_cut),           cmocka_unit_test(joins),
        cmocka_unit_test(descriptor_goes_alone),           cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests_name("sender", tests, NULL, NULL);
}
