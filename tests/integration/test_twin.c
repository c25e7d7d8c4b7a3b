/* test_twin: the socket that a client gives the server's requests: what goes over it, and what a client can do to it:
 * close it, flood it, lie on it, leave it unread. */
#include "edu_dma.h"
#include "migrate_client.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BASE 0x100000ull
#define SIZE 0x10000u
#define PAGE 4096ull

#define OFFER "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}"

struct twins {
    struct ob_raw raw; /* of the twin socket */
    uint8_t memory[SIZE];
    int error; /* for every command */
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct twins *twin = ctx;

    if (twin->error != 0) {
        return twin->error;
    }
    if (address < BASE || count > SIZE || address - BASE > SIZE - count) {
        fail_msg("DMA to %#llx, which was not mapped", (unsigned long long)address);
    }
    if (write) {
        memcpy(twin->memory + (address - BASE), data, count);
    } else {
        memcpy(data, twin->memory + (address - BASE), count);
    }
    return 0;
}

static void take_twin(struct ob_fixture *fixture, struct ob_raw *twin)
{
    struct ob_raw_message *reply = NULL;

    ob_ok(ob_raw_version(&fixture->raw, 0, 0, OFFER, &reply));
    assert_int_equal(reply->nfds, 1);
    ob_ok(ob_raw_take_twin(reply, twin));
    ob_raw_message_free(reply);
}

/* A client with a twin socket that it serves, and memory that the device reaches by messages only. */
static struct twins *attach(struct ob_fixture *fixture)
{
    struct twins *twin = test_calloc(1, sizeof(*twin));

    take_twin(fixture, &twin->raw);
    twin->raw.dma = serve;
    twin->raw.dma_ctx = twin;
    fixture->raw.twin = &twin->raw;
    edu_enable(&fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, BASE, SIZE, 3, -1, 0));
    return twin;
}

static void detach(struct ob_fixture *fixture, struct twins *twin)
{
    fixture->raw.twin = NULL;
    ob_raw_close(&twin->raw);
    test_free(twin);
}

/* The next client, who finds a device that works. */
static struct twins *attach_next(struct ob_fixture *fixture, struct twins *twin)
{
    detach(fixture, twin);
    ob_fixture_reconnect(fixture);
    twin = attach(fixture);
    ob_ok(ob_raw_reset(&fixture->raw));
    edu_enable(&fixture->raw);
    return twin;
}

/* There and back, checked. */
static void round_trip(struct ob_raw *raw, struct twins *twin, uint32_t count, unsigned seed)
{
    unsigned served = twin->raw.dma_served;

    memset(twin->memory, 0, SIZE);
    for (uint32_t i = 0; i < count; i++) {
        twin->memory[0x33 + i] = (uint8_t)(i * 31 + seed + (i >> 8));
    }
    edu_dma(raw, BASE + 0x33, EDU_BUFFER, count, 0);
    edu_dma(raw, EDU_BUFFER, BASE + 0x8001, count, EDU_DMA_TO_GUEST);
    assert_memory_equal(twin->memory + 0x33, twin->memory + 0x8001, count);
    assert_int_equal(twin->memory[0x8001 + count], 0);
    assert_true(twin->raw.dma_served >= served + 2);
    assert_int_equal(raw->dma_served, 0);
}

/* A transfer of 64 bytes whose DMA_READ the test answers itself, or does not. */
static struct ob_raw_message *receive_read(struct ob_raw *raw, struct twins *twin)
{
    struct ob_raw_message *command = NULL;
    struct ob_raw_dma dma;

    raw->twin = NULL;
    twin->raw.dma = NULL;
    edu_dma_set(raw, BASE, EDU_BUFFER, 64);
    edu_dma_start(raw, 0);
    ob_ok(ob_raw_receive(&twin->raw, &command));
    assert_int_equal(command->header.command, OB_RAW_DMA_READ);
    assert_int_equal(command->header.flags, 0);
    assert_int_equal(command->nfds, 0);
    memcpy(&dma, command->payload, sizeof(dma));
    assert_int_equal(dma.address, BASE);
    assert_int_equal(dma.count, 64);
    return command;
}

/* Its answer: 64 times that byte. */
static size_t build_answer(uint8_t *to, struct ob_raw_message *command, uint8_t byte)
{
    uint8_t payload[sizeof(struct ob_raw_dma) + 64];
    size_t size;

    memcpy(payload, command->payload, sizeof(struct ob_raw_dma));
    memset(payload + sizeof(struct ob_raw_dma), byte, 64);
    size = ob_raw_build(to, command->header.id, OB_RAW_DMA_READ, OB_RAW_REPLY, payload, sizeof(payload));
    ob_raw_message_free(command);
    return size;
}

static void await_dma(struct ob_raw *raw)
{
    ob_wait_register(raw, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0);
}

static void assert_running(struct ob_raw *raw)
{
    assert_int_equal(ob_read32(raw, EDU_BAR, EDU_DMA_COMMAND) & EDU_DMA_RUN, EDU_DMA_RUN);
}

/* What the device has in its buffer, read by the memory that is served. */
static void assert_buffer(struct ob_raw *raw, struct twins *twin, uint8_t byte)
{
    twin->raw.dma = serve;
    raw->twin = &twin->raw;
    edu_dma(raw, EDU_BUFFER, BASE, 64, EDU_DMA_TO_GUEST);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(twin->memory[i], byte);
    }
}

/* --- Negotiation ------------------------------------------------------------------------------------------------- */

static void test_offered(void **state)
{
    static const char *const texts[] = {
        OFFER,
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true},\"max_msg_fds\":1}}",
        "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"fd_index\":77,\"supported\":true,\"x\":[]}}}",
    };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct ob_raw_message *reply = NULL;
        int domain = 0, type = 0;
        socklen_t size = sizeof(int);
        struct ob_raw twin;

        ob_ok(ob_raw_version(&fixture->raw, 0, 0, texts[i], &reply));
        assert_int_equal(reply->nfds, 1);
        assert_int_equal(ob_raw_twin_index(reply), 0);
        ob_ok(ob_raw_take_twin(reply, &twin));
        ob_raw_message_free(reply);
        ob_ok(getsockopt(twin.fd, SOL_SOCKET, SO_DOMAIN, &domain, &size));
        ob_ok(getsockopt(twin.fd, SOL_SOCKET, SO_TYPE, &type, &size));
        assert_int_equal(domain, AF_UNIX);
        assert_int_equal(type, SOCK_STREAM);
        ob_ok(ob_raw_silent(&fixture->raw));
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_wait_closed(&twin, NULL)); /* it ends with its session */
        ob_raw_close(&twin);
    }
}

/* Who does not offer one, or takes no descriptors, hears nothing of it, and is asked on the main socket. */
static void test_not_offered(void **state)
{
    static const char *const texts[] = {
        NULL,
        "{\"capabilities\":{}}",
        "{\"capabilities\":{\"twin_socket\":{}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
        "{\"capabilities\":{\"twin_socket\":{\"fd_index\":0}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true},\"max_msg_fds\":0}}",
    };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct twins twin = { .error = 0 };
        struct ob_raw_message *reply = NULL;

        ob_ok(ob_raw_version(&fixture->raw, 0, 0, texts[i], &reply));
        assert_int_equal(reply->nfds, 0);
        assert_null(strstr((const char *)reply->payload + 4, "twin_socket"));
        ob_raw_message_free(reply);
        fixture->raw.dma = serve;
        fixture->raw.dma_ctx = &twin;
        edu_enable(&fixture->raw);
        ob_ok(ob_raw_map(&fixture->raw, BASE, SIZE, 3, -1, 0));
        edu_dma(&fixture->raw, BASE, EDU_BUFFER, 64, 0);
        assert_int_equal(fixture->raw.dma_served, 1);
        ob_fixture_reconnect(fixture);
    }
}

/* --- In use ------------------------------------------------------------------------------------------------------ */

static void test_transfers(void **state)
{
    static const uint32_t counts[] = { 1, 2, 8, 511, 4096 };
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);

    for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        round_trip(&fixture->raw, twin, counts[i], i);
    }
    twin->error = EFAULT; /* a refusal ends one transfer */
    edu_dma(&fixture->raw, BASE, EDU_BUFFER, 64, 0);
    twin->error = 0;
    round_trip(&fixture->raw, twin, 64, 9);
    ob_ok(ob_raw_reset(&fixture->raw));
    edu_enable(&fixture->raw);
    round_trip(&fixture->raw, twin, 64, 10); /* a reset leaves it */
    detach(fixture, twin);
}

/* No reply waits for it; its late answer is for nobody. */
static void test_unserved(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);
    struct ob_raw_message *command = receive_read(&fixture->raw, twin);
    uint8_t bytes[256];
    size_t size;

    for (int i = 0; i < 20; i++) {
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_ID), EDU_ID_VALUE);
        assert_running(&fixture->raw);
    }
    ob_ok(ob_raw_unmap(&fixture->raw, BASE, SIZE)); /* even of the memory under way */
    ob_ok(ob_raw_reset(&fixture->raw));
    ob_ok(ob_raw_map(&fixture->raw, BASE, SIZE, 3, -1, 0));
    edu_enable(&fixture->raw);
    size = build_answer(bytes, command, 0xee);
    ob_ok(ob_raw_send(&twin->raw, bytes, size, NULL, 0));
    twin->raw.dma = serve;
    fixture->raw.twin = &twin->raw;
    round_trip(&fixture->raw, twin, 64, 1);
    detach(fixture, twin);
}

/* An answer on the main socket answers nothing. */
static void test_answer_on_main(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);
    struct ob_raw_message *command = receive_read(&fixture->raw, twin);
    uint8_t bytes[256];
    size_t size = build_answer(bytes, command, 0x11);

    ob_ok(ob_raw_send(&fixture->raw, bytes, size, NULL, 0));
    assert_running(&fixture->raw);
    memset(bytes + size - 64, 0x22, 64);
    ob_ok(ob_raw_send(&twin->raw, bytes, size, NULL, 0));
    await_dma(&fixture->raw);
    assert_buffer(&fixture->raw, twin, 0x22);
    detach(fixture, twin);
}

/* An answer in pieces, a pause after each, with work on the main socket meanwhile. */
static void test_pieces(void **state)
{
    static const size_t steps[] = { 1, 7, 15, 17, 40 };
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);

    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        uint8_t bytes[256], byte = (uint8_t)(0x30 + i);
        size_t size = build_answer(bytes, receive_read(&fixture->raw, twin), byte);

        for (size_t at = 0; at < size; at += steps[i]) {
            size_t n = size - at < steps[i] ? size - at : steps[i];

            assert_running(&fixture->raw);
            ob_ok(ob_raw_send(&twin->raw, bytes + at, n, NULL, 0));
        }
        await_dma(&fixture->raw);
        assert_buffer(&fixture->raw, twin, byte);
    }
    detach(fixture, twin);
}

/* Replies to nothing, with descriptors on some; then a good one. */
static void test_flood(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);
    struct ob_raw_message *command = receive_read(&fixture->raw, twin);
    static uint8_t junk[16 + 16384], bytes[256];
    uint16_t id = command->header.id;
    size_t size = build_answer(bytes, command, 0x77);
    struct pollfd hangup;
    int pair[2];

    memset(junk, 0xcc, sizeof(junk));
    ob_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    for (unsigned i = 0; i < 1000; i++) {
        uint16_t other = (uint16_t)(id + 1 + i % 60000);

        ob_raw_build(junk, other, i % 2 ? OB_RAW_DMA_READ : OB_RAW_DMA_WRITE, OB_RAW_REPLY, junk + 16, 16384);
        ob_ok(ob_raw_send(&twin->raw, junk, sizeof(junk), &pair[1], i % 10 == 0));
        if (i % 100 == 0) {
            assert_running(&fixture->raw);
        }
    }
    close(pair[1]);
    ob_ok(ob_raw_send(&twin->raw, bytes, size, NULL, 0));
    await_dma(&fixture->raw);
    hangup = (struct pollfd){ .fd = pair[0], .events = POLLIN };
    assert_int_equal(poll(&hangup, 1, 20000), 1); /* no copy of what came along is open there */
    close(pair[0]);
    assert_buffer(&fixture->raw, twin, 0x77);
    detach(fixture, twin);
}

/* --- Its end ----------------------------------------------------------------------------------------------------- */

/* In flight or later, transfers fail, and change nothing; the rest of the session goes on. */
static void assert_no_dma(struct ob_raw *raw)
{
    assert_int_equal(raw->twin, NULL);
    await_dma(raw);
    edu_dma(raw, BASE, EDU_BUFFER, 64, 0);
    edu_dma(raw, EDU_BUFFER, BASE, 64, EDU_DMA_TO_GUEST);
    assert_int_equal(ob_read32(raw, EDU_BAR, EDU_ID), EDU_ID_VALUE); /* and no request on this socket */
    ob_ok(ob_raw_unmap(raw, BASE, SIZE));
}

static void test_closed(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);

    for (int how = 0; how < 6; how++) {
        if (how & 1) {
            ob_raw_message_free(receive_read(&fixture->raw, twin));
        }
        fixture->raw.twin = NULL;
        if (how < 2) {
            ob_raw_close(&twin->raw);
        } else {
            ob_ok(shutdown(twin->raw.fd, how < 4 ? SHUT_RD : SHUT_WR));
        }
        /* Its reading half alone the server notices when it sends. */
        if (how == 3) {
            assert_running(&fixture->raw);
            ob_ok(shutdown(twin->raw.fd, SHUT_RDWR));
        }
        assert_no_dma(&fixture->raw);
        twin = attach_next(fixture, twin);
        round_trip(&fixture->raw, twin, 64, (unsigned)how);
    }
    detach(fixture, twin);
}

/* Closed with its answer unread, and with half of one sent. */
static void test_closed_halfway(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);
    uint8_t bytes[256];
    size_t size;

    ob_raw_message_free(receive_read(&fixture->raw, twin));
    ob_ok(ob_raw_reset(&fixture->raw));
    edu_enable(&fixture->raw);
    edu_dma_set(&fixture->raw, BASE, EDU_BUFFER, 64);
    edu_dma_start(&fixture->raw, 0);
    assert_running(&fixture->raw);
    ob_raw_close(&twin->raw); /* with a request in it */
    assert_no_dma(&fixture->raw);
    twin = attach_next(fixture, twin);
    size = build_answer(bytes, receive_read(&fixture->raw, twin), 0x44);
    ob_ok(ob_raw_send(&twin->raw, bytes, size / 2, NULL, 0));
    ob_raw_close(&twin->raw);
    assert_no_dma(&fixture->raw);
    detach(fixture, twin);
}

/* What has no place on it ends it, and only it: commands, whatever they are, and what cannot be followed. */
static void test_lies(void **state)
{
    static const struct {
        uint16_t command;
        uint32_t flags, size;
    } lies[] = { { OB_RAW_GET_INFO, 0, 32 },
                 { OB_RAW_VERSION, 0, 20 },
                 { OB_RAW_RESET, OB_RAW_NO_REPLY, 16 },
                 { OB_RAW_DMA_READ, 0, 32 },
                 { OB_RAW_DMA_READ, 2, 32 },
                 { OB_RAW_DMA_READ, OB_RAW_REPLY, 15 },
                 { OB_RAW_DMA_READ, OB_RAW_REPLY, 0 },
                 { OB_RAW_DMA_READ, OB_RAW_REPLY, 1 << 20 },
                 { OB_RAW_DMA_READ, OB_RAW_REPLY, UINT32_MAX },
                 { 99, 0, 16 } };
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);

    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        struct ob_raw_message *command = receive_read(&fixture->raw, twin);
        uint8_t bytes[64] = { 0 };

        ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 0x1234);
        ob_raw_build(bytes, command->header.id, lies[i].command, lies[i].flags, NULL, 0);
        memcpy(bytes + 4, &lies[i].size, 4);
        ob_raw_message_free(command);
        ob_ok(ob_raw_send(&twin->raw, bytes, 32, NULL, 0));
        ob_ok(ob_raw_wait_closed(&twin->raw, NULL));
        assert_no_dma(&fixture->raw);
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~0x1234u); /* no reset */
        twin = attach_next(fixture, twin);
    }
    detach(fixture, twin);
}

/* Answers that do not fit what was asked for fail the transfer, or end the twin socket; nothing else. */
static void test_lying_answers(void **state)
{
    static const struct {
        uint32_t size, flags;
        int64_t address, count;
        uint16_t command;
    } lies[] = { { 16 + 16 + 63, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ },
                 { 16 + 16 + 65, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ },
                 { 16 + 16, OB_RAW_REPLY, 0, -64, OB_RAW_DMA_READ },
                 { 16, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ },
                 { 16 + 7, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ },
                 { 16 + 16 + 64, OB_RAW_REPLY, 64, 0, OB_RAW_DMA_READ },
                 { 16 + 16 + 64, OB_RAW_REPLY, 0, 1ll << 40, OB_RAW_DMA_READ },
                 { 16, OB_RAW_REPLY | OB_RAW_ERROR, 0, 0, OB_RAW_DMA_READ } };
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);

    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        struct ob_raw_message *command = receive_read(&fixture->raw, twin);
        struct ob_raw_dma dma = { .address = BASE + (uint64_t)lies[i].address, .count = 64 + (uint64_t)lies[i].count };
        uint8_t bytes[256] = { 0 };

        ob_raw_build(bytes, command->header.id, lies[i].command, lies[i].flags, &dma, sizeof(dma));
        memcpy(bytes + 4, &lies[i].size, 4);
        ob_raw_message_free(command);
        ob_ok(ob_raw_send(&twin->raw, bytes, lies[i].size, NULL, 0));
        await_dma(&fixture->raw);
        assert_buffer(&fixture->raw, twin, 0);
    }
    detach(fixture, twin);
}

/* A client that has the DMA_WRITE may have carried it out, and closes the socket instead of saying so: the page counts
 * as written, also if the log was asked in between. */
static void test_log(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);
    struct ob_raw_message *command = NULL;
    uint64_t bitmap = 0;

    ob_ok(mig_log_start(&fixture->raw, PAGE, NULL, 0));
    fixture->raw.twin = NULL;
    twin->raw.dma = NULL;
    edu_dma_set(&fixture->raw, EDU_BUFFER, BASE + 3 * PAGE, 64);
    edu_dma_start(&fixture->raw, EDU_DMA_TO_GUEST);
    ob_ok(ob_raw_receive(&twin->raw, &command));
    assert_int_equal(command->header.command, OB_RAW_DMA_WRITE);
    ob_raw_message_free(command);
    ob_ok(mig_log_report(&fixture->raw, BASE, SIZE, PAGE, &bitmap));
    assert_int_equal(bitmap, 8);
    ob_ok(mig_log_report(&fixture->raw, BASE, SIZE, PAGE, &bitmap));
    assert_int_equal(bitmap, 0);
    ob_raw_close(&twin->raw);
    await_dma(&fixture->raw);
    ob_ok(mig_log_report(&fixture->raw, BASE, SIZE, PAGE, &bitmap));
    assert_int_equal(bitmap, 8);
    ob_ok(mig_log_stop(&fixture->raw));
    detach(fixture, twin);
}

/* The client goes while the device waits for it: the next one finds a device that can be used. */
static void test_disconnect_unserved(void **state)
{
    struct ob_fixture *fixture = *state;
    struct twins *twin = attach(fixture);

    for (int i = 0; i < 10; i++) {
        ob_raw_message_free(receive_read(&fixture->raw, twin));
        fixture->raw.twin = NULL;
        ob_raw_close(&fixture->raw);
        ob_raw_close(&twin->raw);
        ob_fixture_reconnect(fixture);
        test_free(twin);
        twin = attach(fixture);
        await_dma(&fixture->raw);
        round_trip(&fixture->raw, twin, 64, (unsigned)i);
        ob_ok(ob_raw_reset(&fixture->raw));
        edu_enable(&fixture->raw);
    }
    detach(fixture, twin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST_BARE(test_offered),
        OB_TEST_BARE(test_not_offered),
        OB_TEST_BARE(test_transfers),
        OB_TEST_BARE(test_unserved),
        OB_TEST_BARE(test_answer_on_main),
        OB_TEST_BARE(test_pieces),
        OB_TEST_BARE(test_flood),
        OB_TEST_BARE(test_closed),
        OB_TEST_BARE(test_closed_halfway),
        OB_TEST_BARE(test_lies),
        OB_TEST_BARE(test_lying_answers),
        OB_TEST_BARE(test_log),
        OB_TEST_BARE(test_disconnect_unserved),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
