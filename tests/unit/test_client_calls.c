/* Calls of the client library: time-outs and late replies, order, splitting, full sockets, posts, threads. */
#include "client_script.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct script *script_new(script_hook *hook)
{
    struct script *script = calloc(1, sizeof(*script));

    assert_non_null(script);
    script_start(script, hook);
    return script;
}

static void finish(struct script *script, struct ob_client *client)
{
    script_end(script, client);
    free(script);
}

/* --- Time-outs --------------------------------------------------------------------------------------------------- */

/* Keeps the first read; the next write sends its reply, late, and is then answered itself. */
static bool answer_late(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                        unsigned nfds)
{
    struct ob_wire_region_access access = { 0, 0, 4 };
    uint8_t late[sizeof(access) + 4];

    if (header->command == OB_REGION_READ && script->keep.size == 0) {
        script->keep = *header;
        return true;
    }
    if (header->command == OB_REGION_WRITE && script->keep.size != 0) {
        memset(late, 0xee, sizeof(late));
        memcpy(late, &access, sizeof(access));
        script_reply(script, &script->keep, late, sizeof(late), NULL, 0);
    }
    return false;
}

static void test_late_reply(void **state)
{
    struct script *script = script_new(answer_late);
    /* Short for a test, and long enough for what is answered on a busy machine. */
    struct ob_client *client = script_client(script, &(struct ob_client_options){ .timeout_ms = 1500 });
    uint32_t value = 0x11111111, other = 7;

    assert_int_equal(ob_client_read(client, 0, 0, &value, 4, NULL), -ETIMEDOUT);
    ok(ob_client_write(client, 0, 64, &other, 4, NULL));
    other = 0;
    ok(ob_client_read(client, 0, 64, &other, 4, NULL));
    assert_int_equal(other, 7);
    assert_int_equal(value, 0x11111111);
    finish(script, client);
}

static void note_result(struct ob_call *call, ssize_t result)
{
    *(ssize_t *)call->ctx = result;
}

static void test_asynchronous_timeout(void **state)
{
    struct script *script = script_new(answer_late);
    struct ob_client *client = script_client(script, NULL);
    ssize_t result = 1;
    struct ob_call call = { .done = note_result, .timeout_ms = 50, .ctx = &result };
    struct pollfd fd = { ob_client_fd(client), POLLIN, 0 };
    uint32_t value;

    ok(ob_client_read(client, 0, 0, &value, 4, &call));
    ok(ob_client_flush(client));
    while (result == 1) {
        assert_int_equal(poll(&fd, 1, 10000), 1);
        assert_true(ob_client_run(client, 0) >= 0);
    }
    assert_int_equal(result, -ETIMEDOUT);
    finish(script, client);
}

/* --- Order ------------------------------------------------------------------------------------------------------- */

/* Answers pairs of reads the other way round. */
static bool swap(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds, unsigned nfds)
{
    struct ob_wire_region_access access;

    if (header->command != OB_REGION_READ)
        return false;
    if (script->keep.size == 0) {
        script->keep = *header;
        return true;
    }
    script_plain(script, header, payload);
    memcpy(&access, payload, sizeof(access));
    access.offset -= 4;
    script_plain(script, &script->keep, (const uint8_t *)&access);
    script->keep.size = 0;
    return true;
}

static void test_replies_in_another_order(void **state)
{
    struct script *script = script_new(swap);
    struct ob_client *client = script_client(script, NULL);
    struct ob_call calls[20] = { 0 };
    uint32_t values[20];

    for (uint32_t i = 0; i < 20; i++)
        ok(ob_client_write(client, 0, 4 * i, &i, 4, NULL));
    for (uint32_t i = 0; i < 20; i++)
        ok(ob_client_read(client, 0, 4 * i, &values[i], 4, &calls[i]));
    for (uint32_t i = 0; i < 20; i++) {
        ok(ob_call_wait(client, &calls[i]));
        assert_int_equal(values[i], i);
    }
    finish(script, client);
}

/* --- Splitting, and many at a time ------------------------------------------------------------------------------- */

static bool check_sizes(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                        unsigned nfds)
{
    if (header->size > 16 + 16 + 1000)
        script_refuse(script, header, E2BIG);
    return header->size > 16 + 16 + 1000;
}

static void test_splits(void **state)
{
    struct script *script = script_new(check_sizes);
    uint8_t *out = malloc(SCRIPT_BAR_SIZE), *in = calloc(1, SCRIPT_BAR_SIZE);
    struct ob_client *client;

    script->capabilities = "{\"capabilities\":{\"max_data_xfer_size\":1000}}";
    client = script_client(script, NULL);
    for (unsigned i = 0; i < SCRIPT_BAR_SIZE; i++)
        out[i] = (uint8_t)(i * 31 >> 3);
    ok(ob_client_write(client, 0, 0, out, SCRIPT_BAR_SIZE, NULL));
    ok(ob_client_read(client, 0, 0, in, SCRIPT_BAR_SIZE, NULL));
    assert_memory_equal(in, out, SCRIPT_BAR_SIZE);
    assert_int_equal(atomic_load(&script->commands[OB_REGION_WRITE]), 66);
    ok(ob_client_post(client, 0, 1, out, 5000));
    ok(ob_client_read(client, 0, 1, in, 5000, NULL));
    assert_memory_equal(in, out, 5000);
    finish(script, client);
    free(out);
    free(in);
}

/* More calls than there are slots, and more bytes than sockets hold, while nobody waits for any. */
static void test_more_than_fits(void **state)
{
    enum { CALLS = 3000, LEN = 4096 };
    struct script *script = script_new(NULL);
    struct ob_client *client = script_client(script, NULL);
    struct ob_call *calls = calloc(CALLS, sizeof(*calls));
    uint8_t *bufs = malloc((size_t)CALLS * LEN);

    for (unsigned i = 0; i < SCRIPT_BAR_SIZE / 4; i++)
        ok(ob_client_post(client, 0, 4 * i, &i, 4));
    for (unsigned i = 0; i < CALLS; i++)
        ok(ob_client_read(client, 0, i % 16 * LEN, bufs + i * LEN, LEN, &calls[i]));
    for (unsigned i = 0; i < CALLS; i++) {
        uint32_t first;

        ok(ob_call_wait(client, &calls[i]));
        memcpy(&first, bufs + i * LEN, 4);
        assert_int_equal(first, i % 16 * LEN / 4);
    }
    for (unsigned i = 0; i < CALLS; i++)
        ok(ob_client_write(client, 0, i % 16 * LEN, bufs + i * LEN, LEN, &calls[i]));
    for (unsigned i = 0; i < CALLS; i++)
        ok(ob_call_wait(client, &calls[i]));
    assert_memory_equal(script->memory, bufs, 64);
    finish(script, client);
    free(calls);
    free(bufs);
}

/* --- Posts ------------------------------------------------------------------------------------------------------- */

static void test_posts_coalesce(void **state)
{
    struct script *script = script_new(NULL);
    struct ob_client *client;
    uint64_t value;

    script->capabilities = "{\"capabilities\":{\"write_multiple\":true}}";
    client = script_client(script, NULL);
    for (unsigned i = 0; i < 1000; i++) {
        value = i * UINT64_C(0x100000001);
        ok(ob_client_post(client, 0, 8 * i, &value, i % 2 ? 8 : 4));
    }
    ok(ob_client_read(client, 0, 8 * 999, &value, 8, NULL));
    assert_int_equal(value, 999 * UINT64_C(0x100000001));
    assert_int_equal(atomic_load(&script->writes), 1000);
    assert_in_range(atomic_load(&script->commands[OB_REGION_WRITE_MULTI]), 1, 4);
    /* One alone is what it is. */
    ok(ob_client_post(client, 0, 0, &value, 8));
    ok(ob_client_read(client, 0, 0, &value, 8, NULL));
    assert_int_equal(atomic_load(&script->commands[OB_REGION_WRITE]), 1);
    /* A long one does not join, and keeps its place. */
    ok(ob_client_post(client, 0, 16, "aaaaaaaa", 8));
    ok(ob_client_post(client, 0, 16, "bbbbbbbbbbbbbbbb", 16));
    ok(ob_client_post(client, 0, 16, "cccc", 4));
    ok(ob_client_flush(client));
    ok(ob_client_read(client, 0, 16, &value, 8, NULL));
    assert_memory_equal(&value, "ccccbbbb", 8);
    finish(script, client);
}

static void test_posts_without_multi(void **state)
{
    struct script *script = script_new(NULL);
    struct ob_client *client;
    uint32_t value = 0;

    script->capabilities = "{\"capabilities\":{\"write_multiple\":true}}";
    client = script_client(script, &(struct ob_client_options){ .no_write_multi = true });
    for (unsigned i = 0; i < 100000; i++)
        ok(ob_client_post(client, 0, 0, &i, 4));
    ok(ob_client_read(client, 0, 0, &value, 4, NULL));
    assert_int_equal(value, 99999);
    assert_int_equal(atomic_load(&script->commands[OB_REGION_WRITE]), 100000);
    finish(script, client);
}

/* --- Threads ----------------------------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    struct ob_client *client;
    unsigned index;
    atomic_uint *ended;
    const char *wrong; /* of this thread: cmocka's assertions are for the main one */
};

static void count_ended(struct ob_call *call, ssize_t result)
{
    if (result == 0)
        atomic_fetch_add((atomic_uint *)call->ctx, 1);
}

/* A slice of its own for each thread: synchronous, pipelined, posted and asynchronous. */
static void *work(void *arg)
{
    struct worker *worker = arg;
    struct ob_client *client = worker->client;
    uint64_t base = worker->index * 4096u;
    struct ob_call calls[8], async[8];
    uint32_t values[8], out[8];

    memset(async, 0, sizeof(async));
    for (uint32_t round = 0; round < 300 && !worker->wrong; round++) {
        uint32_t expect = round << 8 | worker->index, got = 0;
        atomic_uint ended = 0;

        if (ob_client_post(client, 0, base, &expect, 4) || ob_client_read(client, 0, base, &got, 4, NULL) ||
            got != expect)
            worker->wrong = "post and read";
        memset(calls, 0, sizeof(calls));
        for (unsigned i = 0; i < 8; i++) {
            out[i] = expect + i;
            async[i] = (struct ob_call){ .done = count_ended, .ctx = &ended };
            if (ob_client_write(client, 0, base + 64 + 4 * i, &out[i], 4, &async[i]) ||
                ob_client_read(client, 0, base + 64 + 4 * i, &values[i], 4, &calls[i]))
                worker->wrong = "pipeline";
        }
        for (unsigned i = 0; i < 8; i++) {
            if (ob_call_wait(client, &calls[i]) || values[i] != expect + i)
                worker->wrong = "pipelined value";
        }
        while (atomic_load(&ended) < 8 && !worker->wrong) {
            if (ob_client_run(client, 10) < 0)
                worker->wrong = "run";
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct script *script = script_new(NULL);
    struct ob_client *client = script_client(script, NULL);
    struct worker workers[8];

    for (unsigned i = 0; i < 8; i++) {
        workers[i] = (struct worker){ .client = client, .index = i };
        ok(pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    }
    for (unsigned i = 0; i < 8; i++)
        pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < 8; i++) {
        if (workers[i].wrong)
            fail_msg("thread %u: %s", i, workers[i].wrong);
    }
    finish(script, client);
}

/* Closes while 4 threads wait for replies that never come: all of them are told. */
static bool never_read(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                       unsigned nfds)
{
    if (header->command != OB_REGION_READ)
        return false;
    if (++script->nkept == 4)
        shutdown(script->fd, SHUT_RDWR);
    return true;
}

static void *read_once(void *arg)
{
    struct worker *worker = arg;
    uint32_t value;

    if (ob_client_read(worker->client, 0, 0, &value, 4, NULL) != -ENOTCONN)
        worker->wrong = "a read of a dead connection";
    return NULL;
}

static void test_the_end_wakes_everybody(void **state)
{
    struct script *script = script_new(never_read);
    struct ob_client *client = script_client(script, &(struct ob_client_options){ .timeout_ms = -1 });
    struct worker workers[4];

    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){ .client = client };
        ok(pthread_create(&workers[i].thread, NULL, read_once, &workers[i]));
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_null(workers[i].wrong);
    }
    assert_int_equal(ob_client_reset(client, NULL), -ENOTCONN);
    assert_int_equal(ob_client_run(client, 0), -ENOTCONN);
    finish(script, client);
}

/* Calls in flight when the client is closed end, and say so. */
static void test_close_ends_calls(void **state)
{
    struct script *script = script_new(answer_late);
    struct ob_client *client = script_client(script, NULL);
    ssize_t result = 1;
    struct ob_call call = { .done = note_result, .ctx = &result };
    uint32_t value;

    ok(ob_client_read(client, 0, 0, &value, 4, &call));
    finish(script, client);
    assert_int_equal(result, -ENOTCONN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_reply),
        cmocka_unit_test(test_asynchronous_timeout),
        cmocka_unit_test(test_replies_in_another_order),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_more_than_fits),
        cmocka_unit_test(test_posts_coalesce),
        cmocka_unit_test(test_posts_without_multi),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_the_end_wakes_everybody),
        cmocka_unit_test(test_close_ends_calls),
    };

    return cmocka_run_group_tests_name("client calls", tests, NULL, NULL);
}
