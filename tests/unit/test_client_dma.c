/* DMA of the client library: maps, the server's commands on either socket, and servers that ask for too much. */
#include "client_script.h"

#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define BASE 0x10000u
#define SIZE 0x10000u

/* What the server is told, in the order of its commands. */
struct seen {
    struct script *script;
    unsigned answers;
    struct {
        struct ob_header header;
        uint8_t payload[64];
    } answer[64];
    uint8_t memory[SIZE]; /* the program's */
    unsigned served;
    bool offered; /* a twin socket, in VERSION */
};

static int serve(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    struct seen *seen = ctx;

    seen->served++;
    if (iova == BASE + 0x5000)
        return -EBUSY;
    if (to_device)
        memcpy(buf, seen->memory + (iova - BASE), len);
    else
        memcpy(seen->memory + (iova - BASE), buf, len);
    return 0;
}

static struct seen *seen_new(script_hook *hook)
{
    struct seen *seen = calloc(1, sizeof(*seen));

    assert_non_null(seen);
    seen->script = calloc(1, sizeof(*seen->script));
    assert_non_null(seen->script);
    script_start(seen->script, hook);
    seen->script->ctx = seen;
    return seen;
}

static void finish(struct seen *seen, struct ob_client *client)
{
    script_end(seen->script, client);
    free(seen->script);
    free(seen);
}

static void note_answer(struct seen *seen, const struct ob_header *header, const uint8_t *payload)
{
    size_t size = header->size - sizeof(*header);

    if (seen->answers < 64) {
        seen->answer[seen->answers].header = *header;
        memcpy(seen->answer[seen->answers].payload, payload, size < 64 ? size : 64);
    }
    seen->answers++;
}

struct dma_case {
    uint16_t command;
    uint64_t address, count;
    size_t data; /* bytes that follow */
    uint32_t err;
};

/* BASE: readable and writeable for 0x4000, then 0x1000 for reading, 0x3000 for both again. */
static const struct dma_case cases[] = {
    { OB_DMA_READ, BASE + 0x100, 16, 0, 0 },
    { OB_DMA_READ, BASE + 0x3ff8, 16, 0, 0 }, /* across maps */
    { OB_DMA_WRITE, BASE + 0x200, 8, 8, 0 },
    { OB_DMA_WRITE, BASE + 0x4000, 8, 8, EACCES },
    { OB_DMA_WRITE, BASE + 0x3ffc, 8, 8, EACCES },
    { OB_DMA_READ, BASE - 8, 16, 0, EFAULT },
    { OB_DMA_READ, BASE + 0x8000 - 8, 16, 0, EFAULT },
    { OB_DMA_READ, UINT64_MAX - 7, 16, 0, EINVAL },
    { OB_DMA_READ, BASE, 1048577, 0, EINVAL },
    { OB_DMA_WRITE, BASE + 0x200, 16, 8, EINVAL },
    { OB_DMA_WRITE, BASE + 0x200, UINT64_MAX, 8, EINVAL },
    { OB_DMA_READ, BASE + 0x5000, 8, 0, EBUSY },
    { OB_DEVICE_RESET, 0, 0, 0, EINVAL },
    { 99, 0, 0, 0, ENOSYS },
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

/* At a reset, asks all that; answers the reset when it has been told everything. */
static bool ask_all(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                    unsigned nfds)
{
    struct seen *seen = script->ctx;

    if (header->flags & OB_FLAG_REPLY) {
        note_answer(seen, header, payload);
        if (seen->answers == CASES)
            script_reply(script, &script->keep, NULL, 0, NULL, 0);
        return true;
    }
    if (header->command != OB_DEVICE_RESET)
        return false;
    script->keep = *header;
    for (size_t i = 0; i < CASES; i++) {
        struct {
            uint64_t address, count;
            uint8_t data[16];
        } command = { cases[i].address, cases[i].count, "written!" };
        size_t size = cases[i].command < 20 && cases[i].command != OB_DEVICE_RESET ? 16 + cases[i].data : 0;

        /* The same id as the reset's: the two directions have nothing to do with each other. */
        script_command(script, header->id, cases[i].command, &command, size);
    }
    return true;
}

static void test_commands_are_checked(void **state)
{
    struct seen *seen = seen_new(ask_all);
    struct ob_client *client =
        script_client(seen->script, &(struct ob_client_options){ .dma = serve, .dma_ctx = seen });
    uint64_t count;

    for (unsigned i = 0; i < SIZE; i++)
        seen->memory[i] = (uint8_t)(i >> 4);
    ok(ob_client_dma_map(client, BASE, 0x4000, PROT_READ | PROT_WRITE, -1, 0, NULL));
    ok(ob_client_dma_map(client, BASE + 0x4000, 0x1000, PROT_READ, -1, 0, NULL));
    ok(ob_client_dma_map(client, BASE + 0x5000, 0x3000, PROT_READ | PROT_WRITE, -1, 0, NULL));
    ok(ob_client_reset(client, NULL));
    assert_int_equal(seen->answers, CASES);
    for (size_t i = 0; i < CASES; i++) {
        const struct ob_header *answer = &seen->answer[i].header;

        if (answer->error != cases[i].err || !(answer->flags & OB_FLAG_ERROR) != !cases[i].err)
            fail_msg("command %zu: error %u", i, answer->error);
        assert_int_equal(answer->command, cases[i].command);
        if (cases[i].err)
            assert_int_equal(answer->size, sizeof(*answer));
    }
    assert_int_equal(seen->answer[0].header.size, 16 + 16 + 16);
    assert_memory_equal(seen->answer[0].payload + 16, seen->memory + 0x100, 16);
    /* A count of 8 bytes, as the reference library wants it, not of 4, as in the text's table. */
    assert_int_equal(seen->answer[2].header.size, 16 + 16);
    memcpy(&count, seen->answer[2].payload + 8, sizeof(count));
    assert_int_equal(count, 8);
    assert_memory_equal(seen->memory + 0x200, "written!", 8);
    assert_int_equal(seen->served, 4);
    finish(seen, client);
}

static void test_without_a_callback(void **state)
{
    struct seen *seen = seen_new(ask_all);
    struct ob_client *client = script_client(seen->script, NULL);

    ok(ob_client_dma_map(client, BASE, 0x4000, PROT_READ | PROT_WRITE, -1, 0, NULL));
    ok(ob_client_reset(client, NULL));
    assert_int_equal(seen->answer[0].header.error, EOPNOTSUPP);
    finish(seen, client);
}

/* --- Maps -------------------------------------------------------------------------------------------------------- */

static bool refuse_some(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                        unsigned nfds)
{
    struct ob_wire_dma_unmap unmap;
    struct ob_wire_dma_map map;

    if (header->command == OB_DMA_MAP) {
        memcpy(&map, payload, sizeof(map));
        if (map.address != 0x90000)
            return false;
        script_refuse(script, header, ENOMEM);
        return true;
    }
    if (header->command != OB_DMA_UNMAP)
        return false;
    memcpy(&unmap, payload, sizeof(unmap));
    if (unmap.flags == 0 && unmap.address != 0x91000)
        return false;
    script_refuse(script, header, EINVAL);
    return true;
}

static void test_maps_are_tracked(void **state)
{
    struct seen *seen = seen_new(refuse_some);
    struct ob_client *client;
    struct ob_call calls[3] = { 0 };
    int rw = PROT_READ | PROT_WRITE;

    seen->script->capabilities = "{\"capabilities\":{\"max_dma_maps\":4,\"max_msg_fds\":0}}";
    client = script_client(seen->script, NULL);
    for (uint64_t i = 0; i < 4; i++)
        ok(ob_client_dma_map(client, i * 0x10000, 0x4000, rw, -1, 0, NULL));
    assert_int_equal(ob_client_dma_map(client, 0x80000, 0x1000, rw, -1, 0, NULL), -ENOSPC);
    ok(ob_client_dma_unmap(client, 0x20000, 0x4000, NULL));
    assert_int_equal(ob_client_dma_unmap(client, 0x20000, 0x4000, NULL), -ENOENT);
    assert_int_equal(ob_client_dma_map(client, 0x13000, 0x2000, rw, -1, 0, NULL), -EEXIST);
    assert_int_equal(ob_client_dma_map(client, 0xf000, 0x2000, rw, -1, 0, NULL), -EEXIST);
    assert_int_equal(ob_client_dma_map(client, 0x8000, 0, rw, -1, 0, NULL), -EINVAL);
    assert_int_equal(ob_client_dma_map(client, 0x8000, 0x800, rw, -1, 0, NULL), -EINVAL);
    assert_int_equal(ob_client_dma_map(client, UINT64_MAX - 0xfff, 0x1000, rw, -1, 0, NULL), -EINVAL);
    assert_int_equal(ob_client_dma_map(client, 0x8000, 0x1000, 0, -1, 0, NULL), -EINVAL);
    assert_int_equal(ob_client_dma_map(client, 0x8000, 0x1000, rw, 0, 0, NULL), -EOPNOTSUPP);
    /* The server's refusal takes the map away again. */
    assert_int_equal(ob_client_dma_map(client, 0x90000, 0x1000, rw, -1, 0, NULL), -ENOMEM);
    ok(ob_client_dma_map(client, 0x90000 + 0x1000, 0x1000, rw, -1, 0, NULL));
    /* Unmapped and mapped again in one go. */
    ok(ob_client_dma_unmap(client, 0x10000, 0x4000, &calls[0]));
    ok(ob_client_dma_map(client, 0x10000, 0x2000, PROT_READ, -1, 0, &calls[1]));
    ok(ob_client_dma_unmap(client, 0x10000, 0x2000, &calls[2]));
    for (unsigned i = 0; i < 3; i++)
        ok(ob_call_wait(client, &calls[i]));
    /* All of them, one by one: there are no flags for that (VU-UNMAP-2). What is refused stays mapped. */
    atomic_store(&seen->script->commands[OB_DMA_UNMAP], 0);
    assert_int_equal(ob_client_dma_unmap_all(client), -EINVAL);
    assert_int_equal(atomic_load(&seen->script->commands[OB_DMA_UNMAP]), 3);
    ok(ob_client_dma_map(client, 0, 0x4000, rw, -1, 0, NULL));
    assert_int_equal(ob_client_dma_map(client, 0x91000, 0x1000, rw, -1, 0, NULL), -EEXIST);
    finish(seen, client);
}

/* --- The twin socket --------------------------------------------------------------------------------------------- */

static bool give_twin(struct script *script, const struct ob_header *header)
{
    static const char text[] = "{\"capabilities\":{\"max_msg_fds\":8,"
                               "\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
    uint8_t payload[4 + sizeof(text)] = { 0 };
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    memcpy(payload + 4, text, sizeof(text));
    script_reply(script, header, payload, sizeof(payload), &pair[1], 1);
    close(pair[1]);
    script->twin = pair[0];
    return true;
}

/* A reset is answered when the command on the twin socket was. */
static bool use_twin(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                     unsigned nfds)
{
    struct ob_wire_dma_access access = { BASE, 16 };
    struct seen *seen = script->ctx;
    struct {
        struct ob_header header;
        uint8_t payload[32];
    } answer;

    if (header->command == OB_VERSION)
        return give_twin(script, header);
    if (header->command != OB_DEVICE_RESET)
        return false;
    script_command(script, 7, OB_DMA_READ, &access, sizeof(access));
    if (recv(script->twin, &answer, sizeof(answer), MSG_WAITALL) == (ssize_t)sizeof(answer))
        note_answer(seen, &answer.header, answer.payload);
    return false;
}

static void test_twin_socket(void **state)
{
    struct seen *seen = seen_new(use_twin);
    struct ob_client *client =
        script_client(seen->script, &(struct ob_client_options){ .dma = serve, .dma_ctx = seen });

    assert_true(ob_client_info(client)->twin_socket);
    memset(seen->memory, 0x5a, SIZE);
    ok(ob_client_dma_map(client, BASE, SIZE, PROT_READ, -1, 0, NULL));
    ok(ob_client_reset(client, NULL));
    assert_int_equal(seen->answers, 1);
    assert_int_equal(seen->answer[0].header.id, 7);
    assert_memory_equal(seen->answer[0].payload + 16, seen->memory, 16);
    finish(seen, client);
}

static bool note_offer(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                       unsigned nfds)
{
    struct seen *seen = script->ctx;

    if (header->command == OB_VERSION)
        seen->offered = strstr((const char *)payload + sizeof(struct ob_wire_version), "\"twin_socket\"") != NULL;
    return false;
}

static void test_twin_socket_only_for_dma(void **state)
{
    static const struct {
        bool dma, without, offered;
    } offers[] = { { true, false, true }, { true, true, false }, { false, false, false } };

    for (size_t i = 0; i < sizeof(offers) / sizeof(offers[0]); i++) {
        struct seen *seen = seen_new(note_offer);
        const struct ob_client_options options = { .dma = offers[i].dma ? serve : NULL,
                                                   .dma_ctx = seen,
                                                   .no_twin_socket = offers[i].without };
        struct ob_client *client = script_client(seen->script, &options);

        assert_int_equal(seen->offered, offers[i].offered);
        assert_false(ob_client_info(client)->twin_socket);
        finish(seen, client);
    }
}

/* The library's poll comes here. While `between` is armed, what it found is told only after the server has gone on. */
static struct {
    sem_t found, gone_on;
    atomic_bool armed;
} between;

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec left = timeout ? *timeout : (struct timespec){ 0 }; /* the kernel changes it */
    int result = (int)syscall(SYS_ppoll, fds, n, timeout ? &left : NULL, mask, sizeof(long));

    if (result > 0 && atomic_exchange(&between.armed, false)) {
        sem_post(&between.found);
        while (sem_wait(&between.gone_on) != 0)
            ;
    }
    return result;
}

/* The reply to a reset has a command before it, which came over the twin socket after the client had looked there. */
static bool write_before_reset(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                               unsigned nfds)
{
    struct {
        struct ob_wire_dma_access access;
        uint8_t data[16];
    } write = { .access = { BASE, 16 } };

    if (header->command == OB_VERSION)
        return give_twin(script, header);
    if (header->command != OB_DEVICE_RESET)
        return false;
    while (sem_wait(&between.found) != 0)
        ;
    memset(write.data, 0x77, sizeof(write.data));
    script_command(script, 9, OB_DMA_WRITE, &write, sizeof(write));
    script_plain(script, header, payload);
    sem_post(&between.gone_on);
    return true;
}

/* Once a reset is over for the program, nothing that was sent before its reply writes memory any more. */
static void test_twin_socket_before_a_reply(void **state)
{
    struct seen *seen = seen_new(write_before_reset);
    struct ob_client *client =
        script_client(seen->script, &(struct ob_client_options){ .dma = serve, .dma_ctx = seen });
    struct ob_call read = { 0 }, reset = { 0 };
    uint32_t value;

    sem_init(&between.found, 0, 0);
    sem_init(&between.gone_on, 0, 0);
    ok(ob_client_dma_map(client, BASE, SIZE, PROT_READ | PROT_WRITE, -1, 0, NULL));
    ok(ob_client_read(client, 0, 0, &value, sizeof(value), &read));
    ok(ob_client_reset(client, &reset));
    atomic_store(&between.armed, true);
    ok(ob_call_wait(client, &read));
    ok(ob_call_wait(client, &reset));
    assert_int_equal(seen->served, 1);
    assert_int_equal(seen->memory[15], 0x77);
    finish(seen, client);
}

/* A command on the main socket, or a reply on the twin, ends the connection. */
static bool misuse_twin(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                        unsigned nfds)
{
    struct ob_header reply = { header->id, header->command, sizeof(reply), OB_FLAG_REPLY, 0 };
    int twin = script->twin;

    if (header->command == OB_VERSION)
        return give_twin(script, header);
    if (header->command == OB_DEVICE_RESET) {
        if (send(twin, &reply, sizeof(reply), MSG_NOSIGNAL) < 0)
            return false;
        return true;
    }
    if (header->command == OB_REGION_READ) {
        script->twin = -1;
        script_command(script, 1, OB_DMA_READ, &(struct ob_wire_dma_access){ BASE, 16 }, 16);
        script->twin = twin;
        return true;
    }
    return false;
}

static void test_twin_socket_misused(void **state)
{
    for (int i = 0; i < 2; i++) {
        struct seen *seen = seen_new(misuse_twin);
        struct ob_client *client =
            script_client(seen->script, &(struct ob_client_options){ .dma = serve, .dma_ctx = seen });
        uint32_t value;

        if (i == 0)
            assert_int_equal(ob_client_reset(client, NULL), -EPROTO);
        else
            assert_int_equal(ob_client_read(client, 0, 0, &value, 4, NULL), -EPROTO);
        finish(seen, client);
    }
}

/* --- Floods ------------------------------------------------------------------------------------------------------ */

/* At a reset sends commands for ever and reads nothing, until the client has had enough. */
static bool flood(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                  unsigned nfds)
{
    struct {
        struct ob_header header;
        struct ob_wire_dma_access access;
    } command = { { 1, OB_DMA_READ, 32, 0, 0 }, { BASE, 32768 } };

    if (header->command != OB_DEVICE_RESET)
        return false;
    while (send(script->fd, &command, sizeof(command), MSG_NOSIGNAL) == (ssize_t)sizeof(command)) {
    }
    return true;
}

static void test_floods_end_the_connection(void **state)
{
    struct seen *seen = seen_new(flood);
    struct ob_client *client =
        script_client(seen->script, &(struct ob_client_options){ .dma = serve, .dma_ctx = seen });

    ok(ob_client_dma_map(client, BASE, SIZE, PROT_READ, -1, 0, NULL));
    assert_int_equal(ob_client_reset(client, NULL), -EPROTO);
    assert_string_not_equal(ob_client_why(client), "");
    assert_true(seen->served < 2000);
    finish(seen, client);
}

/* A server that asks before it has answered VERSION. */
static bool too_early(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                      unsigned nfds)
{
    script_command(script, 1, OB_DMA_READ, &(struct ob_wire_dma_access){ BASE, 16 }, 16);
    return true;
}

static void test_commands_before_version(void **state)
{
    struct seen *seen = seen_new(too_early);
    char why[256];

    assert_int_equal(script_refused(seen->script, NULL, why, sizeof(why)), -EPROTO);
    finish(seen, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_are_checked),     cmocka_unit_test(test_without_a_callback),
        cmocka_unit_test(test_maps_are_tracked),         cmocka_unit_test(test_twin_socket),
        cmocka_unit_test(test_twin_socket_only_for_dma), cmocka_unit_test(test_twin_socket_before_a_reply),
        cmocka_unit_test(test_twin_socket_misused),      cmocka_unit_test(test_floods_end_the_connection),
        cmocka_unit_test(test_commands_before_version),
    };

    return cmocka_run_group_tests_name("client DMA", tests, NULL, NULL);
}
