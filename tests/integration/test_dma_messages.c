/* test_dma_messages: memory that the device reaches only by asking the client: DMA_READ and DMA_WRITE, served well,
 * served badly, and not served at all. */
#include "edu_dma.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE 0x100000ull
#define SIZE 0x10000u

/* The client's memory, and how to be difficult about it. */
struct memory {
    uint8_t bytes[SIZE];
    int error;        /* for every command */
    uint64_t largest; /* count seen */
    unsigned reads, writes;
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct memory *memory = ctx;

    *(write ? &memory->writes : &memory->reads) += 1;
    if (count > memory->largest) {
        memory->largest = count;
    }
    if (memory->error != 0) {
        return memory->error;
    }
    if (address < BASE || count > SIZE || address - BASE > SIZE - count) {
        fail_msg("DMA to %#llx, which was not mapped", (unsigned long long)address);
    }
    if (write) {
        memcpy(memory->bytes + (address - BASE), data, count);
    } else {
        memcpy(data, memory->bytes + (address - BASE), count);
    }
    return 0;
}

static struct memory *attach(struct ob_fixture *fixture)
{
    struct memory *memory = test_calloc(1, sizeof(*memory));

    fixture->raw.dma = serve;
    fixture->raw.dma_ctx = memory;
    edu_enable(&fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, BASE, SIZE, 3, -1, 0));
    return memory;
}

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(i * 31 + seed + (i >> 8));
    }
}

/* There and back, checked. */
static void round_trip(struct ob_raw *raw, struct memory *memory, uint32_t count, unsigned seed)
{
    memset(memory->bytes, 0, SIZE);
    fill(memory->bytes + 0x33, count, seed);
    edu_dma(raw, BASE + 0x33, EDU_BUFFER, count, 0);
    edu_dma(raw, EDU_BUFFER, BASE + 0x8001, count, EDU_DMA_TO_GUEST);
    assert_memory_equal(memory->bytes + 0x33, memory->bytes + 0x8001, count);
    assert_int_equal(memory->bytes[0x8000], 0);
    assert_int_equal(memory->bytes[0x8001 + count], 0);
}

static void test_transfer(void **state)
{
    static const uint32_t counts[] = { 1, 2, 8, 511, 4096 };
    struct ob_fixture *fixture = *state;
    struct memory *memory = attach(fixture);

    for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        round_trip(&fixture->raw, memory, counts[i], i);
    }
    assert_true(memory->reads >= 5 && memory->writes >= 5);
    assert_true(memory->largest <= 32768);
    test_free(memory);
}

/* The client takes at most a kilobyte at once. */
static void test_small_limit(void **state)
{
    struct ob_fixture *fixture = *state;
    struct memory *memory;

    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_version(&fixture->raw, 0, 0, "{\"capabilities\":{\"max_data_xfer_size\":1000}}", NULL));
    memory = attach(fixture);
    round_trip(&fixture->raw, memory, 4096, 1);
    assert_in_range(memory->largest, 1, 1000);
    assert_true(memory->reads >= 5);
    test_free(memory);
}

/* A refusal ends the transfer, not the device, whatever its errno: what was refused is not there afterwards. */
static void test_refused(void **state)
{
    static const int errors[] = { EFAULT, ENOTCONN, EPIPE, EAGAIN, 4095 };
    struct ob_fixture *fixture = *state;
    struct memory *memory = attach(fixture);

    round_trip(&fixture->raw, memory, 64, 1);
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        memory->error = errors[i];
        edu_dma(&fixture->raw, BASE, EDU_BUFFER, 64, 0);
        edu_dma(&fixture->raw, EDU_BUFFER, BASE, 64, EDU_DMA_TO_GUEST);
    }
    memory->error = 0;
    round_trip(&fixture->raw, memory, 64, 2);
    test_free(memory);
}

/* Replies arrive for other requests while a DMA command waits: none may depend on it, for QEMU would not serve it. */
static void test_unserved(void **state)
{
    struct ob_fixture *fixture = *state;
    struct memory *memory = attach(fixture);
    struct ob_raw_message *command = NULL;
    struct ob_raw_dma dma;

    fixture->raw.dma = NULL;
    edu_dma_set(&fixture->raw, BASE, EDU_BUFFER, 64);
    edu_dma_start(&fixture->raw, 0);
    ob_ok(ob_raw_receive(&fixture->raw, &command));
    assert_int_equal(command->header.command, OB_RAW_DMA_READ);
    assert_int_equal(command->header.flags & OB_RAW_TYPE_MASK, 0);
    memcpy(&dma, command->payload, sizeof(dma));
    assert_int_equal(dma.address, BASE);
    assert_int_equal(dma.count, 64);
    ob_raw_message_free(command);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_ID), EDU_ID_VALUE);
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_DMA_COMMAND) & EDU_DMA_RUN, EDU_DMA_RUN);
    }
    ob_ok(ob_raw_map(&fixture->raw, 4 * BASE, SIZE, 3, -1, 0));
    ob_ok(ob_raw_unmap(&fixture->raw, 4 * BASE, SIZE));
    ob_ok(ob_raw_unmap(&fixture->raw, BASE, SIZE)); /* even of the memory under way */
    ob_ok(ob_raw_reset(&fixture->raw));
    test_free(memory);
}

/* Answers late, after the memory is gone, after a reset: thrown away, and the next transfer is not confused. */
static void test_late_answer(void **state)
{
    struct ob_fixture *fixture = *state;
    struct memory *memory = attach(fixture);
    struct ob_raw_message *command = NULL;
    uint8_t bytes[16 + 16 + 64];
    struct ob_raw_dma dma = { .address = BASE, .count = 64 };

    fixture->raw.dma = NULL;
    edu_dma_set(&fixture->raw, BASE, EDU_BUFFER, 64);
    edu_dma_start(&fixture->raw, 0);
    ob_ok(ob_raw_receive(&fixture->raw, &command));
    ob_ok(ob_raw_reset(&fixture->raw));
    ob_raw_build(bytes, command->header.id, OB_RAW_DMA_READ, OB_RAW_REPLY, &dma, sizeof(dma));
    memcpy(bytes + 4, &(uint32_t){ sizeof(bytes) }, 4);
    memset(bytes + 32, 0xee, 64);
    ob_raw_message_free(command);
    ob_ok(ob_raw_send(&fixture->raw, bytes, sizeof(bytes), NULL, 0));
    fixture->raw.dma = serve;
    edu_enable(&fixture->raw);
    round_trip(&fixture->raw, memory, 64, 5);
    test_free(memory);
}

/* Answers that lie: shorter or longer than was asked for, another address, twice, to another command. The session may
 * end; the device lives, and memory is what it was (teardown, and AddressSanitizer, look). */
static void test_lying_answers(void **state)
{
    static const struct {
        uint32_t size, flags;
        int64_t address, count;
        uint16_t command, id;
    } lies[] = { { 16 + 16 + 63, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ, 0 },
                 { 16 + 16 + 65, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ, 0 },
                 { 16 + 16, OB_RAW_REPLY, 0, -64, OB_RAW_DMA_READ, 0 },
                 { 16, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ, 0 },
                 { 16 + 7, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ, 0 },
                 { 16 + 16 + 64, OB_RAW_REPLY, 64, 0, OB_RAW_DMA_READ, 0 },
                 { 16 + 16 + 64, OB_RAW_REPLY, 0, 1ll << 40, OB_RAW_DMA_READ, 0 },
                 { 16 + 16 + 64, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_WRITE, 0 },
                 { 16 + 16 + 64, OB_RAW_REPLY, 0, 0, OB_RAW_DMA_READ, 1 },
                 { 16, OB_RAW_REPLY | OB_RAW_ERROR, 0, 0, OB_RAW_DMA_READ, 0 } };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        struct memory *memory = attach(fixture);
        struct ob_raw_message *command = NULL;
        struct ob_raw_dma dma = { .address = BASE + (uint64_t)lies[i].address, .count = 64 + (uint64_t)lies[i].count };
        uint8_t bytes[256] = { 0 };
        int r;

        fixture->raw.dma = NULL;
        edu_dma_set(&fixture->raw, BASE, EDU_BUFFER, 64);
        edu_dma_start(&fixture->raw, 0);
        ob_ok(ob_raw_receive(&fixture->raw, &command));
        ob_raw_build(bytes, (uint16_t)(command->header.id + lies[i].id), lies[i].command, lies[i].flags, &dma,
                     sizeof(dma));
        memcpy(bytes + 4, &lies[i].size, 4);
        ob_raw_message_free(command);
        ob_ok(ob_raw_send(&fixture->raw, bytes, lies[i].size, NULL, 0));
        r = ob_raw_silent(&fixture->raw);
        assert_true(r == 0 || r == -ENOTCONN);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        ob_ok(ob_raw_reset(&fixture->raw));
        test_free(memory);
    }
}

/* QEMU's answer to DMA_WRITE is a header alone; the specification's has 12 bytes more, which serve() sends. */
static void test_header_only_answer(void **state)
{
    struct ob_fixture *fixture = *state;
    struct memory *memory = attach(fixture);
    struct ob_raw_message *command = NULL;
    uint8_t bytes[16];

    fill(memory->bytes, 64, 3);
    edu_dma(&fixture->raw, BASE, EDU_BUFFER, 64, 0);
    fixture->raw.dma = NULL;
    edu_dma_set(&fixture->raw, EDU_BUFFER, BASE + 64, 64);
    edu_dma_start(&fixture->raw, EDU_DMA_TO_GUEST);
    ob_ok(ob_raw_receive(&fixture->raw, &command));
    assert_int_equal(command->header.command, OB_RAW_DMA_WRITE);
    assert_int_equal(command->size, sizeof(struct ob_raw_dma) + 64);
    assert_memory_equal(command->payload + sizeof(struct ob_raw_dma), memory->bytes, 64);
    ob_raw_build(bytes, command->header.id, OB_RAW_DMA_WRITE, OB_RAW_REPLY, NULL, 0);
    ob_raw_message_free(command);
    ob_ok(ob_raw_send(&fixture->raw, bytes, sizeof(bytes), NULL, 0));
    ob_wait_register(&fixture->raw, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0);
    test_free(memory);
}

/* The client goes while the device waits for it: the next one finds a device that can be used. */
static void test_disconnect_unserved(void **state)
{
    struct ob_fixture *fixture = *state;

    for (int i = 0; i < 10; i++) {
        struct memory *memory = attach(fixture);
        struct ob_raw_message *command = NULL;

        fixture->raw.dma = NULL;
        edu_dma_set(&fixture->raw, BASE, EDU_BUFFER, 64);
        edu_dma_start(&fixture->raw, 0);
        if (i % 2 == 0) {
            ob_ok(ob_raw_receive(&fixture->raw, &command));
            ob_raw_message_free(command);
        }
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        ob_ok(ob_raw_reset(&fixture->raw));
        ob_wait_register(&fixture->raw, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0);
        test_free(memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_transfer),           OB_TEST(test_small_limit),         OB_TEST(test_refused),
        OB_TEST(test_unserved),           OB_TEST(test_late_answer),         OB_TEST(test_lying_answers),
        OB_TEST(test_header_only_answer), OB_TEST(test_disconnect_unserved),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
