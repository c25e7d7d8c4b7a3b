/* Descriptors reach the message they came with, however the stream was cut, and none is ever left open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/receiver.h"

#define HEADER   16
#define MESSAGES 3
#define MAX_FDS  (OB_RECEIVER_MAX_FDS * 2)

/* A message of these tests: a header with its size and whether it may carry descriptors, then payload. */
struct header {
    uint32_t size, may_carry;
    uint8_t rest[HEADER - 8];
};

/* A session in small: it reads, notes headers, and executes whole messages as early as it is allowed to. */
struct reader {
    struct ob_receiver receiver;
    int pair[2]; /* we send to 0 and receive from 1 */
    uint8_t bytes[4096];
    size_t room;              /* for one read */
    uint64_t noted, executed; /* positions */
    unsigned messages;        /* executed */
    int counts[64];           /* what the claim of each message returned */
    int fds[64][MAX_FDS];     /* and gave; the test closes them */
};

static unsigned open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void reset(struct reader *reader)
{
    ob_receiver_close(&reader->receiver);
    for (unsigned i = 0; i < reader->messages; i++) {
        for (int j = 0; j < reader->counts[i]; j++)
            assert_int_equal(close(reader->fds[i][j]), 0);
    }
    ob_receiver_init(&reader->receiver);
    reader->noted = reader->executed = 0;
    reader->messages = 0;
}

static void start(struct reader *reader)
{
    memset(reader, 0, sizeof(*reader));
    reader->room = sizeof(reader->bytes);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, reader->pair), 0);
    ob_receiver_init(&reader->receiver);
}

static void stop(struct reader *reader)
{
    reset(reader);
    for (int i = 0; i < 2; i++) {
        if (reader->pair[i] >= 0)
            close(reader->pair[i]);
    }
}

/* Sends bytes with `count` descriptors. */
static void send_piece(int fd, const void *bytes, size_t len, const int *fds, unsigned count)
{
    union {
        struct cmsghdr header;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * 253)];
    } control = { 0 };
    struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * count);
    }
    assert_int_equal(sendmsg(fd, &msg, MSG_DONTWAIT), len);
}

static const struct header *header_at(const struct reader *reader, uint64_t position)
{
    return (const struct header *)(reader->bytes + position);
}

static void execute(struct reader *reader)
{
    while (reader->noted + HEADER <= reader->receiver.position) {
        const struct header *header = header_at(reader, reader->noted);

        ob_receiver_note(&reader->receiver, header->size, header->may_carry);
        reader->noted += header->size;
    }
    while (reader->executed < reader->noted) {
        const struct header *header = header_at(reader, reader->executed);
        int count = 0;

        if (reader->executed + header->size > reader->receiver.position)
            break;
        if (header->may_carry)
            count = ob_receiver_claim(&reader->receiver, reader->executed, reader->fds[reader->messages], MAX_FDS);
        if (count == -EAGAIN)
            break;
        reader->counts[reader->messages++] = count;
        reader->executed += header->size;
    }
}

/* Reads once; returns what the receiver said. */
static ssize_t read_once(struct reader *reader)
{
    uint64_t position = reader->receiver.position;
    size_t room = sizeof(reader->bytes) - position;
    ssize_t got = ob_receive(&reader->receiver, reader->pair[1], reader->bytes + position,
                             room < reader->room ? room : reader->room);

    execute(reader);
    return got;
}

static void read_all(struct reader *reader)
{
    ssize_t got;

    while ((got = read_once(reader)) > 0)
        ;
    assert_int_equal(got, -EAGAIN);
}

static size_t build(uint8_t *bytes, const uint32_t *sizes, unsigned count, unsigned carriers)
{
    size_t len = 0;

    for (unsigned i = 0; i < count; i++) {
        struct header header = { .size = sizes[i], .may_carry = carriers >> i & 1 };

        memset(bytes + len, 'a' + (int)i, sizes[i]);
        memcpy(bytes + len, &header, sizeof(header));
        len += sizes[i];
    }
    return len;
}

static const uint32_t three[MESSAGES] = { 20, 16, 24 };
static const size_t three_start[MESSAGES + 1] = { 0, 20, 36, 60 };

/* The last message with a byte in [from, to) that may carry descriptors, or -1. */
static int expected_owner(size_t from, size_t to, unsigned carriers)
{
    for (int i = MESSAGES - 1; i >= 0; i--) {
        if ((carriers >> i & 1) && three_start[i] < to && from < three_start[i + 1])
            return i;
    }
    return -1;
}

/* The range of the read that gets the descriptors which ride on [from, to): reads begin at 0, or at the piece when what
 * was sent before is read before, are `room` bytes long, and end with a segment that carried descriptors. */
static int owner_by_model(size_t from, size_t to, size_t room, bool eager, unsigned carriers)
{
    size_t begin = 0, end;

    if (eager)
        begin = from;
    while (begin + room <= from)
        begin += room;
    end = begin + room < to ? begin + room : to;
    return expected_owner(begin, end, carriers);
}

/* Sends the stream in the pieces between `cuts`, a descriptor on piece `carrier`, and checks who gets it. */
static void check_pieces(struct reader *reader, const size_t *cuts, unsigned carrier, unsigned carriers, bool eager)
{
    uint8_t bytes[64];
    int owner = owner_by_model(cuts[carrier], cuts[carrier + 1], reader->room, eager, carriers);

    assert_int_equal(build(bytes, three, MESSAGES, carriers), 60);
    for (int i = 0; i < MESSAGES; i++) {
        /* Whatever the model says: a descriptor that came with bytes of one message alone is that message's. */
        if ((carriers >> i & 1) && three_start[i] <= cuts[carrier] && cuts[carrier + 1] <= three_start[i + 1])
            assert_int_equal(owner, i);
    }
    for (unsigned i = 0; i < 3; i++) {
        if (cuts[i] == cuts[i + 1])
            continue;
        send_piece(reader->pair[0], bytes + cuts[i], cuts[i + 1] - cuts[i], &reader->pair[0], i == carrier);
        if (eager)
            read_all(reader);
    }
    read_all(reader);
    assert_memory_equal(reader->bytes, bytes, 60);
    assert_int_equal(reader->messages, MESSAGES);
    for (int i = 0; i < MESSAGES; i++)
        assert_int_equal(reader->counts[i], i == owner);
    assert_int_equal(reader->receiver.queued, 0);
    reset(reader);
}

static void every_pair_of_cuts(void **state)
{
    static const size_t rooms[] = { 4096, 25, 7 };
    struct reader reader;
    unsigned before = open_fds();

    start(&reader);
    for (size_t first = 1; first < 60; first++) {
        for (size_t second = first; second < 60; second++) {
            const size_t cuts[] = { 0, first, second, 60 };

            for (unsigned n = 0; n < 3 * 8 * 2; n++) {
                unsigned carrier = n % 3, carriers = n / 3 % 8;

                if (cuts[carrier] == cuts[carrier + 1])
                    continue;
                reader.room = rooms[(first + second + n) % 3];
                check_pieces(&reader, cuts, carrier, carriers, n / 24);
            }
        }
    }
    stop(&reader);
    assert_int_equal(open_fds(), before);
}

static ino_t inode_of(int fd)
{
    struct stat file;

    assert_int_equal(fstat(fd, &file), 0);
    return file.st_ino;
}

/* One byte at a time, each message's own descriptor on any of its bytes. */
static void byte_by_byte(void **state)
{
    struct reader reader;
    int files[MESSAGES];
    uint8_t bytes[64];
    unsigned before = open_fds();

    start(&reader);
    build(bytes, three, MESSAGES, 7);
    for (int i = 0; i < MESSAGES; i++)
        files[i] = memfd_create("test", MFD_CLOEXEC);
    for (unsigned n = 0; n < 20 * 16 * 2; n++) {
        const size_t carriers[MESSAGES] = { n % 20, 20 + n / 20 % 16, 36 + (n * 5 + n / 20) % 24 };

        for (size_t i = 0; i < 60; i++) {
            int *file = i == carriers[0] ? &files[0] : i == carriers[1] ? &files[1] : &files[2];

            send_piece(reader.pair[0], bytes + i, 1, file, i == carriers[0] || i == carriers[1] || i == carriers[2]);
            if (n >= 320)
                assert_int_equal(read_once(&reader), 1);
        }
        read_all(&reader);
        assert_int_equal(reader.messages, MESSAGES);
        for (int i = 0; i < MESSAGES; i++) {
            assert_int_equal(reader.counts[i], 1);
            assert_int_equal(inode_of(reader.fds[i][0]), inode_of(files[i]));
            assert_int_equal(fcntl(reader.fds[i][0], F_GETFD), FD_CLOEXEC);
        }
        reset(&reader);
    }
    for (int i = 0; i < MESSAGES; i++)
        close(files[i]);
    stop(&reader);
    assert_int_equal(open_fds(), before);
}

static void two_carriers_in_one_send(void **state)
{
    struct reader reader;
    uint8_t bytes[64];
    unsigned before = open_fds();

    start(&reader);
    build(bytes, three, 3, 3);
    send_piece(reader.pair[0], bytes, 60, reader.pair, 2);
    read_all(&reader);
    assert_int_equal(reader.messages, 3);
    assert_int_equal(reader.counts[0], 0);
    assert_int_equal(reader.counts[1], 2);
    assert_int_equal(inode_of(reader.fds[1][0]), inode_of(reader.pair[0]));
    assert_int_equal(inode_of(reader.fds[1][1]), inode_of(reader.pair[1]));
    assert_int_equal(reader.counts[2], 0);
    stop(&reader);
    assert_int_equal(open_fds(), before);
}

/* Pieces of one message, descriptors on several: all are its own, in order. */
static void one_message_many_batches(void **state)
{
    struct reader reader;
    uint8_t bytes[64];
    uint32_t size = 64;

    start(&reader);
    build(bytes, &size, 1, 1);
    send_piece(reader.pair[0], bytes, 3, &reader.pair[0], 1);
    read_all(&reader);
    send_piece(reader.pair[0], bytes + 3, 40, &reader.pair[1], 1);
    read_all(&reader);
    send_piece(reader.pair[0], bytes + 43, 21, reader.pair, 2);
    read_all(&reader);
    assert_int_equal(reader.counts[0], 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(inode_of(reader.fds[0][i]), inode_of(reader.pair[i % 2]));
    stop(&reader);
}

static void too_many_for_one_message(void **state)
{
    struct reader reader;
    unsigned before = open_fds();
    int fds[254];

    start(&reader);
    for (int i = 0; i < 254; i++)
        fds[i] = reader.pair[0];
    send_piece(reader.pair[0], "x", 1, fds, OB_RECEIVER_MAX_FDS);
    assert_int_equal(read_once(&reader), 1);
    assert_int_equal(reader.receiver.queued, 1);
    send_piece(reader.pair[0], "x", 1, fds, OB_RECEIVER_MAX_FDS + 1);
    assert_int_equal(read_once(&reader), -E2BIG);
    send_piece(reader.pair[0], "x", 1, fds, 253);
    assert_int_equal(read_once(&reader), -E2BIG);
    assert_int_equal(reader.receiver.queued, 1);
    stop(&reader);
    assert_int_equal(open_fds(), before);
}

/* The kernel drops descriptors that this process has no numbers for: MSG_CTRUNC. */
static void out_of_descriptors(void **state)
{
    struct reader reader;
    struct rlimit limit, low;
    ssize_t got;
    unsigned before = open_fds();
    int next;

    start(&reader);
    send_piece(reader.pair[0], "x", 1, reader.pair, 2);
    next = dup(reader.pair[0]);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = (struct rlimit){ .rlim_cur = (rlim_t)next + 1, .rlim_max = limit.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    got = read_once(&reader);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(got, -EMFILE);
    assert_int_equal(reader.receiver.queued, 0);
    stop(&reader);
    assert_int_equal(open_fds(), before);
}

static void descriptors_without_messages(void **state)
{
    struct reader reader;
    uint8_t bytes[64];
    uint32_t size = 64;
    unsigned before = open_fds();

    start(&reader);
    build(bytes, &size, 1, 1);
    for (int i = 0; i < OB_RECEIVER_MAX_BATCHES; i++) {
        send_piece(reader.pair[0], bytes + i, 1, reader.pair, 1);
        assert_int_equal(read_once(&reader), 1);
    }
    send_piece(reader.pair[0], bytes + OB_RECEIVER_MAX_BATCHES, 1, reader.pair, 1);
    assert_int_equal(read_once(&reader), -ENOBUFS);
    stop(&reader);
    assert_int_equal(open_fds(), before);
}

static void descriptors_nobody_wants(void **state)
{
    struct reader reader;
    uint8_t bytes[64];
    unsigned before;

    start(&reader);
    before = open_fds();
    build(bytes, three, 3, 4);
    send_piece(reader.pair[0], bytes, 18, reader.pair, 2); /* with the header: closed when it is noted */
    assert_int_equal(read_once(&reader), 18);
    assert_int_equal(open_fds(), before);
    send_piece(reader.pair[0], bytes + 18, 1, reader.pair, 2); /* with the payload: closed at once */
    assert_int_equal(read_once(&reader), 1);
    assert_int_equal(open_fds(), before);
    send_piece(reader.pair[0], bytes + 19, 5, reader.pair, 2); /* open until the second header is complete */
    assert_int_equal(read_once(&reader), 5);
    assert_int_equal(open_fds(), before + 2);
    send_piece(reader.pair[0], bytes + 24, 36, NULL, 0);
    assert_int_equal(read_once(&reader), 36);
    assert_int_equal(open_fds(), before);
    assert_int_equal(reader.messages, 3);
    stop(&reader);
}

static void unclaimed_are_closed(void **state)
{
    struct ob_receiver receiver;
    struct reader reader;
    uint8_t bytes[64], room[64];
    unsigned before;
    int fds[2];

    start(&reader);
    before = open_fds();
    ob_receiver_init(&receiver);
    build(bytes, three, 3, 7);
    for (int i = 0; i < 3; i++) {
        send_piece(reader.pair[0], bytes + three_start[i], three[i], reader.pair, 2);
        assert_int_equal(ob_receive(&receiver, reader.pair[1], room, sizeof(room)), three[i]);
        ob_receiver_note(&receiver, three[i], true);
    }
    assert_int_equal(open_fds(), before + 6);
    assert_int_equal(ob_receiver_claim(&receiver, 20, fds, 1), -E2BIG);
    assert_int_equal(open_fds(), before + 2);
    assert_int_equal(ob_receiver_claim(&receiver, 36, fds, 2), 2);
    assert_int_equal(ob_receiver_claim(&receiver, 36, fds, 2), 0);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(open_fds(), before);
    stop(&reader);
}

/* A message that may have the descriptors waits for the header behind it; the end of the stream decides too. */
static void half_a_header_behind(void **state)
{
    struct reader reader;
    uint8_t bytes[64];
    unsigned before = open_fds();

    for (int finish = 0; finish < 3; finish++) {
        start(&reader);
        build(bytes, three, 3, finish == 1 ? 7 : 1);
        send_piece(reader.pair[0], bytes, 25, &reader.pair[1], 1); /* not the end that is closed */
        assert_int_equal(read_once(&reader), 25);
        assert_int_equal(reader.messages, 0);
        if (finish == 2) {
            close(reader.pair[0]);
            reader.pair[0] = -1;
            assert_int_equal(read_once(&reader), 0);
            assert_int_equal(reader.messages, 1);
            assert_int_equal(reader.counts[0], 1);
        } else {
            send_piece(reader.pair[0], bytes + 25, 11, NULL, 0);
            assert_int_equal(read_once(&reader), 11);
            assert_int_equal(reader.messages, 2);
            assert_int_equal(reader.counts[finish], 1);
        }
        stop(&reader);
    }
    assert_int_equal(open_fds(), before);
}

/* Descriptors do not hold up a message that cannot have them, nor one whose read ended with it. */
static void nothing_waits_needlessly(void **state)
{
    struct reader reader;
    uint8_t bytes[64];

    start(&reader);
    build(bytes, three, 3, 2);
    send_piece(reader.pair[0], bytes, 25, reader.pair, 1);
    assert_int_equal(read_once(&reader), 25);
    assert_int_equal(reader.messages, 1);
    stop(&reader);

    start(&reader);
    build(bytes, three, 3, 7);
    send_piece(reader.pair[0], bytes, 20, reader.pair, 1);
    send_piece(reader.pair[0], bytes + 20, 5, NULL, 0);
    assert_int_equal(read_once(&reader), 20);
    assert_int_equal(reader.messages, 1);
    assert_int_equal(reader.counts[0], 1);
    stop(&reader);
}

static void end_of_stream(void **state)
{
    struct reader reader;
    uint8_t bytes[64];
    unsigned before = open_fds();

    start(&reader);
    build(bytes, three, 3, 7);
    assert_int_equal(ob_receive(&reader.receiver, reader.pair[1], reader.bytes, 0), -EINVAL);
    assert_int_equal(read_once(&reader), -EAGAIN);
    send_piece(reader.pair[0], bytes, 50, &reader.pair[1], 1);
    close(reader.pair[0]);
    reader.pair[0] = -1;
    assert_int_equal(read_once(&reader), 50);
    assert_int_equal(reader.receiver.queued, 1);
    assert_int_equal(read_once(&reader), 0);
    assert_int_equal(read_once(&reader), 0);
    assert_int_equal(reader.messages, 2);
    assert_int_equal(reader.receiver.position, 50);
    stop(&reader);
    assert_int_equal(open_fds(), before);

    start(&reader); /* a peer that went without reading what we sent */
    send_piece(reader.pair[1], "x", 1, NULL, 0);
    close(reader.pair[0]);
    reader.pair[0] = -1;
    assert_int_equal(read_once(&reader), -ECONNRESET);
    stop(&reader);
}

static void many_messages_in_one_read(void **state)
{
    struct reader reader;
    uint8_t bytes[32 * 32];
    uint32_t sizes[32];

    start(&reader);
    for (int i = 0; i < 32; i++)
        sizes[i] = 32;
    build(bytes, sizes, 32, 0xffffffff);
    for (int i = 0; i < 32; i++)
        send_piece(reader.pair[0], bytes + i * 32, 32, NULL, 0);
    assert_int_equal(read_once(&reader), sizeof(bytes));
    assert_int_equal(reader.messages, 32);
    stop(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_cuts),           cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(two_carriers_in_one_send),     cmocka_unit_test(one_message_many_batches),
        cmocka_unit_test(too_many_for_one_message),     cmocka_unit_test(out_of_descriptors),
        cmocka_unit_test(descriptors_without_messages), cmocka_unit_test(descriptors_nobody_wants),
        cmocka_unit_test(unclaimed_are_closed),         cmocka_unit_test(half_a_header_behind),
        cmocka_unit_test(nothing_waits_needlessly),     cmocka_unit_test(end_of_stream),
        cmocka_unit_test(many_messages_in_one_read),
    };

    return cmocka_run_group_tests_name("receiver", tests, NULL, NULL);
}
