/* test_many: several devices in one process, under a loop of the program's own: what one client does, or fails to do,
 * is no other device's business. */
#include "fixture.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DATA 0x00
#define SLOW 0x04

struct two {
    struct ob_process process;
    int listening; /* the second device's socket, without a name in the file system */
    struct sockaddr_un address;
    socklen_t address_size;
    struct ob_raw raw[2];
};

static void connect_first(struct two *two)
{
    int fd = ob_process_connect(&two->process, 20000);

    assert_true(fd >= 0);
    ob_raw_init(&two->raw[0], fd);
    ob_ok(ob_raw_handshake(&two->raw[0]));
}

static void connect_second(struct two *two)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&two->address, two->address_size), 0);
    ob_raw_init(&two->raw[1], fd);
    ob_ok(ob_raw_handshake(&two->raw[1]));
}

static int setup(void **state)
{
    struct two *two = test_calloc(1, sizeof(*two));
    struct ob_process_options options = { .command = getenv("OUTBOARD_MANY"), .socket = OB_PROCESS_LISTENING };
    sa_family_t family = AF_UNIX;
    char second[32];

    assert_non_null(options.command);
    signal(SIGPIPE, SIG_IGN);
    two->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(two->listening, (struct sockaddr *)&family, sizeof(family)), 0); /* any abstract name */
    assert_int_equal(listen(two->listening, 8), 0);
    two->address_size = sizeof(two->address);
    assert_int_equal(getsockname(two->listening, (struct sockaddr *)&two->address, &two->address_size), 0);
    snprintf(second, sizeof(second), "--second=%d", two->listening);
    options.inherit = &two->listening;
    options.ninherit = 1;
    options.extra = second;
    ob_ok(ob_process_start(&two->process, &options));
    connect_first(two);
    connect_second(two);
    *state = two;
    return 0;
}

static int teardown(void **state)
{
    struct two *two = *state;
    int status;

    ob_raw_close(&two->raw[0]);
    ob_raw_close(&two->raw[1]);
    close(two->listening);
    status = ob_process_stop(&two->process, SIGTERM, 10000);
    assert_int_equal(status, 0);
    test_free(two);
    return 0;
}

/* The second device does its work as if nothing were the matter with the first. */
static void assert_second_works(struct two *two)
{
    for (uint32_t i = 0; i < 50; i++) {
        ob_write32(&two->raw[1], 0, DATA, i * 3);
        assert_int_equal(ob_read32(&two->raw[1], 0, DATA), i * 3);
    }
}

static void test_apart(void **state)
{
    struct two *two = *state;

    for (uint32_t i = 0; i < 100; i++) {
        ob_write32(&two->raw[0], 0, DATA, i);
        ob_write32(&two->raw[1], 0, DATA, ~i);
        assert_int_equal(ob_read32(&two->raw[0], 0, DATA), i);
        assert_int_equal(ob_read32(&two->raw[1], 0, DATA), ~i);
    }
    ob_ok(ob_raw_reset(&two->raw[0]));
    assert_int_equal(ob_read32(&two->raw[0], 0, DATA), 0);
    assert_int_equal(ob_read32(&two->raw[1], 0, DATA), ~99u);
}

static void test_stalled_message(void **state)
{
    struct two *two = *state;
    uint8_t bytes[64];
    struct ob_raw_region access = { .region = 0, .count = 4 };
    size_t size = ob_raw_build(bytes, 5, OB_RAW_REGION_READ, 0, &access, sizeof(access));

    for (size_t cut = 1; cut < size; cut += 5) {
        ob_ok(ob_raw_send(&two->raw[0], bytes, cut, NULL, 0));
        assert_second_works(two);
        ob_ok(ob_raw_send(&two->raw[0], bytes + cut, size - cut, NULL, 0));
        ob_ok(ob_raw_reply(&two->raw[0], 5, OB_RAW_REGION_READ, NULL));
    }
}

static void test_never_reads(void **state)
{
    struct two *two = *state;
    struct ob_raw_region access = { .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = 256 };
    struct pollfd pfd = { .fd = two->raw[0].fd, .events = POLLOUT };
    uint8_t request[64];
    size_t size = ob_raw_build(request, 5, OB_RAW_REGION_READ, 0, &access, sizeof(access)), sent = 0;

    while (poll(&pfd, 1, 300) == 1 && sent < 64u << 20) {
        ssize_t n = ob_raw_send_some(&two->raw[0], request + sent % size, size - sent % size);

        assert_true(n >= 0);
        sent += (size_t)n;
    }
    assert_in_range(sent, 1, (64u << 20) - 1);
    assert_second_works(two);
    for (size_t i = 0; i < sent / size; i++) {
        ob_ok(ob_raw_reply(&two->raw[0], 5, OB_RAW_REGION_READ, NULL));
    }
    assert_second_works(two);
}

static void test_kept_request(void **state)
{
    struct two *two = *state;
    struct ob_raw_region access = { .offset = SLOW, .count = 4 };
    uint16_t id;

    ob_ok(ob_raw_request(&two->raw[0], OB_RAW_REGION_READ, 0, &access, sizeof(access), NULL, 0, &id));
    assert_second_works(two);
    assert_true(ob_raw_reply(&two->raw[0], id, OB_RAW_REGION_READ, NULL) > 0); /* by the deadline */
}

static void test_broken_framing(void **state)
{
    struct two *two = *state;
    struct ob_raw_header header = { .size = 3 };

    for (int i = 0; i < 20; i++) {
        ob_ok(ob_raw_send(&two->raw[0], &header, sizeof(header), NULL, 0));
        assert_second_works(two);
        ob_ok(ob_raw_wait_closed(&two->raw[0], NULL));
        ob_raw_close(&two->raw[0]);
        connect_first(two);
    }
}

/* One's maps are not the other's. */
static void test_maps_apart(void **state)
{
    struct two *two = *state;
    int fd = ob_guest_memory(4096);

    ob_ok(ob_raw_map(&two->raw[0], 0x1000, 0x1000, 3, fd, 0));
    assert_int_equal(ob_raw_unmap(&two->raw[1], 0x1000, 0x1000), ENOENT);
    ob_ok(ob_raw_map(&two->raw[1], 0x1000, 0x1000, 3, fd, 0));
    ob_raw_close(&two->raw[0]);
    connect_first(two);
    ob_ok(ob_raw_unmap(&two->raw[1], 0x1000, 0x1000));
    ob_raw_close(&two->raw[1]); /* a file that was unmapped may be let go later, but not outlive the session */
    connect_second(two);
    assert_int_equal(ob_process_maps(two->process.pid, "ob-guest"), 0);
    close(fd);
}

static void test_idle_costs_nothing(void **state)
{
    struct two *two = *state;
    struct pollfd never = { .fd = two->raw[0].fd, .events = POLLIN };
    long before = ob_process_ticks(two->process.pid);

    assert_int_equal(poll(&never, 1, 330), 0);
    assert_in_range(ob_process_ticks(two->process.pid) - before, 0, 3); /* of 33 */
}

int main(void)
{
#define TWO(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TWO(test_apart),          TWO(test_stalled_message), TWO(test_never_reads),        TWO(test_kept_request),
        TWO(test_broken_framing), TWO(test_maps_apart),      TWO(test_idle_costs_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
