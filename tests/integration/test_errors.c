/* test_errors: requests that are wrong in every way that a length, a number or a descriptor can be: each gets its
 * errno, and the session goes on as if it had not been. */
#include "fixture.h"
#include "edu_regs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint16_t commands[] = { OB_RAW_VERSION,      OB_RAW_DMA_MAP,         OB_RAW_DMA_UNMAP,
                                     OB_RAW_GET_INFO,     OB_RAW_GET_REGION_INFO, OB_RAW_GET_REGION_IO_FDS,
                                     OB_RAW_GET_IRQ_INFO, OB_RAW_SET_IRQS,        OB_RAW_REGION_READ,
                                     OB_RAW_REGION_WRITE, OB_RAW_DMA_READ,        OB_RAW_DMA_WRITE,
                                     OB_RAW_RESET,        OB_RAW_WRITE_MULTI,     OB_RAW_FEATURE,
                                     OB_RAW_MIG_READ,     OB_RAW_MIG_WRITE };
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static void test_unknown_commands(void **state)
{
    static const uint16_t unknown[] = { 0, 14, 19, 20, 255, 256, 0x100 + OB_RAW_GET_INFO, 0x7fff, 0xffff };
    struct ob_fixture *fixture = *state;
    uint8_t payload[64] = { 16 };

    for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
        for (size_t size = 0; size <= sizeof(payload); size += 16) {
            assert_int_equal(ob_raw_call(&fixture->raw, unknown[i], payload, size, NULL, 0, NULL), ENOSYS);
        }
    }
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* Commands that only a server sends. */
static void test_wrong_direction(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_dma dma = { .address = 0x1000, .count = 16 };
    uint8_t write[32] = { 0 };

    memcpy(write, &dma, sizeof(dma));
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_DMA_READ, &dma, sizeof(dma), NULL, 0, NULL), EINVAL);
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_DMA_WRITE, write, sizeof(write), NULL, 0, NULL), EINVAL);
}

/* Whatever 0 to 80 bytes of zeroes and of ones mean to a command, it answers, and exactly once. */
static void test_any_length(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t payload[80];

    for (int fill = 0; fill <= 0xff; fill += 0xff) {
        memset(payload, fill, sizeof(payload));
        for (size_t i = 0; i < COMMANDS; i++) {
            for (size_t size = 0; size <= sizeof(payload); size++) {
                struct ob_raw_message *reply = NULL;
                int r = ob_raw_call(&fixture->raw, commands[i], payload, size, NULL, 0, &reply);

                if (r < 0) {
                    fail_msg("command %u with %zu bytes of %#x: %d", commands[i], size, fill, r);
                }
                ob_raw_message_free(reply);
            }
        }
    }
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* The fixed part of each command, cut short: EINVAL, always. */
static void test_truncated(void **state)
{
    static const struct {
        uint16_t command;
        size_t fixed;
    } parts[] = { { OB_RAW_DMA_MAP, 32 },         { OB_RAW_DMA_UNMAP, 24 },    { OB_RAW_GET_INFO, 16 },
                  { OB_RAW_GET_REGION_INFO, 32 }, { OB_RAW_GET_IRQ_INFO, 16 }, { OB_RAW_GET_REGION_IO_FDS, 16 },
                  { OB_RAW_SET_IRQS, 20 },        { OB_RAW_REGION_READ, 16 },  { OB_RAW_REGION_WRITE, 16 },
                  { OB_RAW_WRITE_MULTI, 8 },      { OB_RAW_FEATURE, 8 },       { OB_RAW_MIG_READ, 8 },
                  { OB_RAW_MIG_WRITE, 8 } };
    struct ob_fixture *fixture = *state;
    uint8_t payload[32] = { 0 };

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        for (size_t size = 0; size < parts[i].fixed; size++) {
            assert_int_equal(ob_raw_call(&fixture->raw, parts[i].command, payload, size, NULL, 0, NULL), EINVAL);
        }
    }
}

/* Features that there are not, and migration data where there is none. */
static void test_no_feature(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_mig_data data = { .argsz = 64, .size = 8 };
    uint8_t bytes[16] = { 16, 0, 0, 0, 8 };

    for (uint32_t feature = 10; feature < 26; feature++) {
        for (uint32_t flags = VFIO_DEVICE_FEATURE_GET; flags <= VFIO_DEVICE_FEATURE_PROBE; flags <<= 1) {
            uint32_t request[2] = { 64, feature | flags };

            assert_true(ob_raw_call(&fixture->raw, OB_RAW_FEATURE, request, sizeof(request), NULL, 0, NULL) == ENOTTY);
        }
    }
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_MIG_READ, &data, sizeof(data), NULL, 0, NULL), EINVAL);
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_MIG_WRITE, bytes, sizeof(bytes), NULL, 0, NULL), EINVAL);
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* Descriptors with everything, one and many: refused or ignored, closed at any rate (teardown counts). */
static void test_stray_descriptors(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t payload[32] = { 32 };
    int fds[16];

    for (size_t i = 0; i < 16; i++) {
        fds[i] = ob_event_new();
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        for (unsigned nfds = 1; nfds <= 16; nfds += 5) {
            struct ob_raw_message *reply = NULL;
            int r = ob_raw_call(&fixture->raw, commands[i], payload, sizeof(payload), fds, nfds, &reply);

            assert_true(r >= 0);
            ob_raw_message_free(reply);
        }
    }
    for (size_t i = 0; i < 16; i++) {
        close(fds[i]);
    }
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* More than any message may have, and more than the server has room for: the session may end, descriptors may not stay.
 */
static void test_flood_of_descriptors(void **state)
{
    struct ob_fixture *fixture = *state;
    const uint32_t info[4] = { 16 };
    uint8_t bytes[64];
    size_t size = ob_raw_build(bytes, 1, OB_RAW_GET_INFO, 0, info, sizeof(info));
    int fds[250], fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int r;

    assert_true(fd >= 0);
    for (size_t i = 0; i < 250; i++) {
        fds[i] = fd;
    }
    r = ob_raw_send(&fixture->raw, bytes, size, fds, 250);
    if (r == 0) {
        r = ob_raw_reply(&fixture->raw, 1, OB_RAW_GET_INFO, NULL);
    }
    assert_true(r >= 0 || r == -ENOTCONN);
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    /* On each single byte of a message. */
    for (size_t at = 0; at < size; at++) {
        r = ob_raw_send(&fixture->raw, bytes + at, 1, fds, 100);
        if (r < 0) {
            break;
        }
    }
    assert_true(r == 0 || r == -ENOTCONN);
    close(fd);
}

/* Flags of a request that mean nothing: type bits beyond the two, the error bit, unknown bits. */
static void test_header_flags(void **state)
{
    static const uint32_t flags[] = { 2, 3, 0xf, OB_RAW_ERROR, 0x40, 0x80000000, 0xffffff00 };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
        const uint32_t info[4] = { 16 };
        uint16_t id;
        int r;

        ob_ok(ob_raw_request(&fixture->raw, OB_RAW_GET_INFO, flags[i], info, sizeof(info), NULL, 0, &id));
        /* Answered, ignored, or the end; then either way a new session works. */
        r = ob_raw_silent(&fixture->raw);
        assert_true(r == 0 || r > 0 || r == -ENOTCONN || r == -EPROTO);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
    }
}

/* Random requests, most of them nonsense; the server answers each or ends the session, and lives. */
static void test_random(void **state)
{
    struct ob_fixture *fixture = *state;
    unsigned seed = 20261122;

    fprintf(stderr, "seed %u\n", seed);
    srandom(seed);
    for (int i = 0; i < 3000; i++) {
        uint8_t payload[96];
        size_t size = (size_t)random() % sizeof(payload);
        uint16_t command = commands[(size_t)random() % COMMANDS];
        struct ob_raw_message *reply = NULL;
        int r;

        for (size_t b = 0; b < size; b++) {
            payload[b] = (uint8_t)(random() % 3 ? 0 : random());
        }
        r = ob_raw_call(&fixture->raw, command, payload, size, NULL, 0, &reply);
        if (r < 0) {
            fail_msg("request %d, command %u, %zu bytes: %d", i, command, size, r);
        }
        ob_raw_message_free(reply);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_unknown_commands), OB_TEST(test_wrong_direction),      OB_TEST(test_any_length),
        OB_TEST(test_truncated),        OB_TEST(test_no_feature),         OB_TEST(test_stray_descriptors),
        OB_TEST(test_header_flags),     OB_TEST(test_flood_of_descriptors), OB_TEST(test_random),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
