/* test_stream: the byte stream: deep pipelines, every split, stalls, peers that never read, broken framing. */
#include "fixture.h"
#include "edu_regs.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEPTH 1000

static size_t build_read(void *to, uint16_t id, uint32_t region, uint64_t offset, uint32_t count)
{
    struct ob_raw_region access = { .offset = offset, .region = region, .count = count };

    return ob_raw_build(to, id, OB_RAW_REGION_READ, 0, &access, sizeof(access));
}

static size_t build_write(void *to, uint16_t id, uint32_t flags, uint64_t offset, uint32_t value)
{
    struct {
        struct ob_raw_region region;
        uint32_t value;
    } OB_RAW_PACKED access = { .region = { .offset = offset, .region = EDU_BAR, .count = 4 }, .value = value };

    return ob_raw_build(to, id, OB_RAW_REGION_WRITE, flags, &access, sizeof(access));
}

/* The reply to a read of 4 bytes. */
static uint32_t read_reply(struct ob_raw *raw, uint16_t id)
{
    struct ob_raw_message *reply = NULL;
    uint32_t value;

    ob_ok(ob_raw_reply(raw, id, OB_RAW_REGION_READ, &reply));
    assert_int_equal(reply->size, sizeof(struct ob_raw_region) + 4);
    memcpy(&value, reply->payload + sizeof(struct ob_raw_region), 4);
    ob_raw_message_free(reply);
    return value;
}

/* Writes, posted writes, reads and refused requests, a thousand deep in one send: each reply in its place. */
static void test_pipeline(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t *bytes = test_malloc(DEPTH * 4 * 64);
    size_t size = 0;

    for (uint32_t i = 0; i < DEPTH; i++) {
        size += build_write(bytes + size, (uint16_t)(4 * i), i % 3 == 0 ? OB_RAW_NO_REPLY : 0, EDU_LIVENESS, i);
        size += build_read(bytes + size, (uint16_t)(4 * i + 1), EDU_BAR, EDU_LIVENESS, 4);
        size += build_read(bytes + size, (uint16_t)(4 * i + 2), 55, 0, 4);
        size += build_read(bytes + size, 9, EDU_BAR, EDU_ID, 4); /* ids may repeat */
    }
    ob_ok(ob_raw_send(&fixture->raw, bytes, size, NULL, 0));
    for (uint32_t i = 0; i < DEPTH; i++) {
        if (i % 3 != 0) {
            ob_ok(ob_raw_reply(&fixture->raw, (uint16_t)(4 * i), OB_RAW_REGION_WRITE, NULL));
        }
        assert_int_equal(read_reply(&fixture->raw, (uint16_t)(4 * i + 1)), ~i);
        assert_int_equal(ob_raw_reply(&fixture->raw, (uint16_t)(4 * i + 2), OB_RAW_REGION_READ, NULL), EINVAL);
        assert_int_equal(read_reply(&fixture->raw, 9), EDU_ID_VALUE);
    }
    test_free(bytes);
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* Three messages, cut in two at every byte. */
static void test_every_split(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t bytes[256];
    size_t size = 0;

    size += build_write(bytes, 1, 0, EDU_LIVENESS, 0x11223344);
    size += build_read(bytes + size, 2, EDU_BAR, EDU_LIVENESS, 4);
    size += build_read(bytes + size, 3, VFIO_PCI_CONFIG_REGION_INDEX, 0, 4);
    for (size_t cut = 1; cut < size; cut++) {
        ob_ok(ob_raw_send(&fixture->raw, bytes, cut, NULL, 0));
        ob_ok(ob_raw_send(&fixture->raw, bytes + cut, size - cut, NULL, 0));
        ob_ok(ob_raw_reply(&fixture->raw, 1, OB_RAW_REGION_WRITE, NULL));
        assert_int_equal(read_reply(&fixture->raw, 2), ~0x11223344u);
        assert_int_equal(read_reply(&fixture->raw, 3), 0x11e81234);
    }
}

static void test_byte_by_byte(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t bytes[256];

    for (uint32_t i = 0; i < 20; i++) {
        size_t size = build_write(bytes, 1, OB_RAW_NO_REPLY, EDU_LIVENESS, i);

        size += build_read(bytes + size, 2, EDU_BAR, EDU_LIVENESS, 4);
        for (size_t at = 0; at < size; at++) {
            ob_ok(ob_raw_send(&fixture->raw, bytes + at, 1, NULL, 0));
        }
        assert_int_equal(read_reply(&fixture->raw, 2), ~i);
    }
}

/* What came before the stall is answered before it ends; nothing is spun on meanwhile. */
static void test_stall(void **state)
{
    static const size_t cuts[] = { 1, 2, 15, 16, 17, 31, 32, 35 };
    struct ob_fixture *fixture = *state;
    uint8_t bytes[256];

    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        size_t first = build_read(bytes, 1, EDU_BAR, EDU_ID, 4);
        size_t size = first + build_write(bytes + first, 2, 0, EDU_LIVENESS, 5);

        ob_ok(ob_raw_send(&fixture->raw, bytes, first + cuts[i], NULL, 0));
        assert_int_equal(read_reply(&fixture->raw, 1), EDU_ID_VALUE);
        ob_ok(ob_raw_send(&fixture->raw, bytes + first + cuts[i], size - first - cuts[i], NULL, 0));
        ob_ok(ob_raw_reply(&fixture->raw, 2, OB_RAW_REGION_WRITE, NULL));
    }
}

/* A stalled client, and an idle one, cost no processor time: measured over a third of a second. */
static void test_stall_costs_nothing(void **state)
{
    struct ob_fixture *fixture = *state;
    struct pollfd never = { .fd = fixture->raw.fd, .events = POLLIN };
    uint8_t bytes[64];
    long before, after;

    build_read(bytes, 1, EDU_BAR, EDU_ID, 4);
    ob_ok(ob_raw_send(&fixture->raw, bytes, 20, NULL, 0));
    before = ob_process_ticks(fixture->process.pid);
    assert_int_equal(poll(&never, 1, 330), 0);
    after = ob_process_ticks(fixture->process.pid);
    assert_true(before >= 0 && after - before <= 3); /* spinning would take 33 */
    ob_ok(ob_raw_send(&fixture->raw, bytes + 20, 12, NULL, 0));
    assert_int_equal(read_reply(&fixture->raw, 1), EDU_ID_VALUE);
}

/* Sends whole requests until the server has taken nothing for half a second; returns how many, and where the last was
 * cut (bytes sent of it). */
static unsigned fill(struct ob_raw *raw, const uint8_t *request, size_t size, size_t *cut)
{
    struct pollfd pfd = { .fd = raw->fd, .events = POLLOUT };
    unsigned sent = 0;
    size_t at = 0;

    while (sent < (64u << 20) / size) {
        ssize_t n = ob_raw_send_some(raw, request + at, size - at);

        assert_true(n >= 0);
        at += (size_t)n;
        if (at == size) {
            sent++;
            at = 0;
        }
        if (n == 0 && poll(&pfd, 1, 500) == 0) {
            *cut = at;
            return sent;
        }
    }
    fail_msg("the server went on taking requests whose replies nobody reads: %u MiB", 64);
    return 0;
}

/* A client that never reads: the server stops taking requests, with bounded memory, and loses nothing. */
static void test_never_reads(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t request[64];
    size_t size = build_read(request, 77, VFIO_PCI_CONFIG_REGION_INDEX, 0, 256), cut = 0;
    long before = ob_process_status(fixture->process.pid, "VmRSS"), after;
    unsigned sent = fill(&fixture->raw, request, size, &cut);

    after = ob_process_status(fixture->process.pid, "VmRSS");
    assert_true(sent > 0);
    assert_in_range(after, 0, before + 8192); /* KiB */
    for (unsigned i = 0; i < sent; i++) {
        ob_ok(ob_raw_reply(&fixture->raw, 77, OB_RAW_REGION_READ, NULL));
    }
    if (cut > 0) {
        ob_ok(ob_raw_send(&fixture->raw, request + cut, size - cut, NULL, 0));
        ob_ok(ob_raw_reply(&fixture->raw, 77, OB_RAW_REGION_READ, NULL));
    }
    ob_ok(ob_raw_silent(&fixture->raw));
}

static void test_never_reads_and_goes(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t request[64];
    size_t size = build_read(request, 77, VFIO_PCI_CONFIG_REGION_INDEX, 0, 256), cut;

    fill(&fixture->raw, request, size, &cut);
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
}

/* A client that goes in the middle of a message takes nothing with it, and half a write is no write. */
static void test_disconnect_in_message(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t bytes[64];
    size_t size = build_write(bytes, 1, 0, EDU_LIVENESS, 0xdead);

    ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 0x600d);
    for (size_t cut = 1; cut < size; cut++) {
        ob_ok(ob_raw_send(&fixture->raw, bytes, cut, NULL, 0));
        if (cut % 2 == 0) {
            shutdown(fixture->raw.fd, SHUT_WR);
            ob_ok(ob_raw_wait_closed(&fixture->raw, NULL));
        }
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~0x600du);
    }
}

/* Requests that were complete are executed, though nobody is left to read the replies. */
static void test_disconnect_after_requests(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t bytes[64];

    for (uint32_t i = 1; i <= 20; i++) {
        size_t size = build_write(bytes, 1, i % 2 ? OB_RAW_NO_REPLY : 0, EDU_LIVENESS, i);

        ob_ok(ob_raw_send(&fixture->raw, bytes, size, NULL, 0));
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~i);
    }
}

/* A header shorter than itself: the stream cannot be followed any more, so it ends. */
static void test_framing_lost(void **state)
{
    static const uint32_t sizes[] = { 0, 1, 8, 15 };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct ob_raw_header header = { .id = 3, .command = OB_RAW_GET_INFO, .size = sizes[i] };
        unsigned replies = 0;

        ob_ok(ob_raw_send(&fixture->raw, &header, sizeof(header), NULL, 0));
        ob_ok(ob_raw_wait_closed(&fixture->raw, &replies));
        assert_in_range(replies, 0, 1); /* it may say why */
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
    }
}

/* A message larger than any that is taken is refused by its header; its bytes are thrown away as they come, and the
 * session goes on behind them. */
static void test_oversized(void **state)
{
    static const uint32_t sizes[] = { (1 << 20) + 8192, 2 << 20, 5 << 20 };
    struct ob_fixture *fixture = *state;
    uint8_t *payload = test_calloc(1, 5 << 20);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct ob_raw_region access = { .region = EDU_BAR, .count = sizes[i] - (uint32_t)sizeof(access) };

        memcpy(payload, &access, sizeof(access));
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_REGION_WRITE, payload, sizes[i], NULL, 0, NULL), EMSGSIZE);
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_ID), EDU_ID_VALUE);
    }
    test_free(payload);
}

/* The rest of it never comes: what the client leaves half thrown away is not the next one's. */
static void test_oversized_and_gone(void **state)
{
    static const uint32_t sizes[] = { 3 << 20, INT32_MAX, 0x80000000, UINT32_MAX };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct ob_raw_header header = { .id = 3, .command = OB_RAW_REGION_WRITE, .size = sizes[i] };
        int r;

        ob_ok(ob_raw_send(&fixture->raw, &header, sizeof(header), NULL, 0));
        r = ob_raw_reply(&fixture->raw, 3, OB_RAW_REGION_WRITE, NULL);
        assert_true(r > 0 || r == -ENOTCONN);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_ID), EDU_ID_VALUE);
    }
}

/* A megabyte behind a command that has no use for it is refused, and does not upset what follows. */
static void test_large_messages(void **state)
{
    static const uint32_t sizes[] = { 65536, 262144, 262145, 1 << 20 };
    struct ob_fixture *fixture = *state;
    uint8_t *payload = test_calloc(1, (1 << 20) + 16);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct ob_raw_region access = { .offset = 1 << 19, .region = EDU_BAR, .count = sizes[i] };

        assert_int_equal(ob_raw_call(&fixture->raw, 14, payload, sizes[i], NULL, 0, NULL) > 0, 1);
        memcpy(payload, &access, sizeof(access));
        assert_int_equal(
            ob_raw_call(&fixture->raw, OB_RAW_REGION_WRITE, payload, sizeof(access) + sizes[i], NULL, 0, NULL),
            sizes[i] > (1 << 19) ? EINVAL : 0);
        memset(payload, 0, sizeof(access));
        ob_ok(ob_raw_silent(&fixture->raw));
    }
    test_free(payload);
}

/* A reply that nobody asked for: ignored, or the end of the session; not a crash and not an answer. */
static void test_unasked_reply(void **state)
{
    struct ob_fixture *fixture = *state;

    for (uint16_t command = OB_RAW_DMA_READ; command <= OB_RAW_DMA_WRITE; command++) {
        uint8_t bytes[64];
        struct ob_raw_dma dma = { .address = 0x1000, .count = 0 };
        struct vfio_device_info info;
        int r;

        ob_ok(ob_raw_send(&fixture->raw, bytes, ob_raw_build(bytes, 1, command, OB_RAW_REPLY, &dma, sizeof(dma)), NULL,
                          0));
        r = ob_raw_device_info(&fixture->raw, &info);
        assert_true(r == 0 || r == -ENOTCONN);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_pipeline),
        OB_TEST(test_every_split),
        OB_TEST(test_byte_by_byte),
        OB_TEST(test_stall),
        OB_TEST(test_stall_costs_nothing),
        OB_TEST(test_never_reads),
        OB_TEST(test_never_reads_and_goes),
        OB_TEST(test_disconnect_in_message),
        OB_TEST(test_disconnect_after_requests),
        OB_TEST(test_framing_lost),
        OB_TEST(test_oversized),
        OB_TEST(test_oversized_and_gone),
        OB_TEST(test_large_messages),
        OB_TEST(test_unasked_reply),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
