/* A device whose client has a twin socket: what its copies end with. */
#include "device_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/pci_regs.h>

/* --- The device: BAR0 00 starts copies, all at once; 04 is how many are not over --------------------------------- */

enum { GO = 0, LEFT = 4 };
enum { TO_GUEST = 1, BY_WORKER = 2, FROM_GUEST = 4 };

#define COPIES 20u
#define LEN    32768u
#define BASE   0x100000ull

struct scratch {
    struct ob_worker *worker;
    struct ob_dma dma[COPIES];
    uint8_t buffer[COPIES][LEN];
    _Atomic unsigned go, left;
    int results[COPIES];
};

static void copy_done(struct ob_dma *dma, int err)
{
    struct scratch *s = ob_scratch(ob_worker_dev(dma->lib.worker));

    s->results[dma - s->dma] = err;
    s->left--;
}

static void copy(struct scratch *s, struct ob_worker *worker, unsigned go)
{
    s->left = COPIES;
    for (unsigned i = 0; i < COPIES; i++) {
        s->results[i] = 1;
        s->dma[i] = (struct ob_dma){
            .iova = BASE + i * LEN, .buf = s->buffer[i], .len = LEN, .to_guest = go & TO_GUEST, .done = copy_done
        };
        assert_int_equal(ob_dma_copy(worker, &s->dma[i]), OB_LATER);
    }
}

static int on_poll(struct ob_worker *worker)
{
    struct scratch *s = ob_scratch(ob_worker_dev(worker));
    unsigned go = atomic_exchange(&s->go, 0);

    if (go)
        copy(s, worker, go);
    return go != 0;
}

static const struct ob_worker_ops worker_ops = { .poll = on_poll };

static int go_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);

    s->left = COPIES;
    if (val & BY_WORKER) {
        s->go = (unsigned)val;
        ob_worker_wake(s->worker);
    } else {
        copy(s, ob_control(dev), (unsigned)val);
    }
    return OB_DONE;
}

static int left_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    *val = s->left;
    return OB_DONE;
}

static int on_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct scratch *s = ob_scratch(dev);

    return ob_worker_start(dev, &worker_ops, NULL, &s->worker);
}

static const struct ob_reg regs[] = {
    { .name = "GO", .off = GO, .width = 4, .write = go_write },
    { .name = "LEFT", .off = LEFT, .width = 4, .read = left_read },
    OB_REG_END,
};

OB_CLASS(twin, .pci = { .vendor = 0x1234, .device = 1 }, .bars[0] = OB_BAR_REGS(0x1000, regs),
         .scratch_size = sizeof(struct scratch), .ops = { .open = on_open });

/* --- The client -------------------------------------------------------------------------------------------------- */

struct client {
    struct bench bench;
    struct ob_raw twin;
    uint8_t *memory;
    uint64_t next; /* address that is to be asked for next */
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct client *client = ctx;
    uint8_t *at = client->memory + (address - BASE);

    assert_true(address == client->next && count == LEN);
    client->next += count;
    memcpy(write ? at : data, write ? data : at, count);
    return 0;
}

static void set_up(struct client *client)
{
    static const char offer[] = "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}";
    struct ob_raw_message *reply = NULL;

    assert_int_equal(ob_raw_version(&client->bench.raw, 0, 0, offer, &reply), 0);
    assert_int_equal(ob_raw_take_twin(reply, &client->twin), 0);
    ob_raw_message_free(reply);
    assert_int_equal(ob_raw_map(&client->bench.raw, BASE, COPIES * LEN, 3, -1, 0), 0);
    bench_bus_master(&client->bench, true);
    client->memory = calloc(COPIES, LEN);
}

static struct client *begin(void)
{
    struct client *client = calloc(1, sizeof(*client));

    bench_new(&client->bench, &ob_class_twin, NULL);
    bench_run(&client->bench);
    set_up(client);
    return client;
}

static void end(struct client *client)
{
    if (client->bench.raw.fd >= 0)
        bench_stop(&client->bench);
    ob_raw_close(&client->twin);
    free(client->memory);
    free(client);
}

static struct scratch *scratch(struct client *client)
{
    return ob_scratch(client->bench.dev);
}

static void served(struct client *client)
{
    client->twin.dma = serve;
    client->twin.dma_ctx = client;
    client->bench.raw.twin = &client->twin;
    client->next = BASE;
}

static void await_all(struct client *client, int result)
{
    while (bench_read(&client->bench, 0, LEFT, 4) > 0)
        ;
    for (unsigned i = 0; i < COPIES; i++)
        assert_int_equal(scratch(client)->results[i], result);
}

/* More copies than may be asked for at a time, and more bytes than the socket holds, by messages of the largest size;
 * there and back, in order, for both kinds of thread. */
static void test_copies(void **unused)
{
    struct client *client = begin();

    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        uint8_t first = (uint8_t)(0x40 + by);
        for (size_t i = 0; i < COPIES * LEN; i++)
            client->memory[i] = (uint8_t)(first + i * 7 + i / LEN);
        served(client);
        bench_write(&client->bench, 0, GO, by | FROM_GUEST, 4);
        await_all(client, 0);
        assert_memory_equal(scratch(client)->buffer, client->memory, COPIES * LEN);
        memset(client->memory, 0, COPIES * LEN);
        client->next = BASE;
        bench_write(&client->bench, 0, GO, by | TO_GUEST, 4);
        await_all(client, 0);
        assert_memory_equal(scratch(client)->buffer, client->memory, COPIES * LEN);
    }
    assert_int_equal(client->twin.dma_served, 4 * COPIES);
    assert_int_equal(client->bench.raw.dma_served, 0);
    end(client);
}

/* A client that reads its replies only: all is answered, and what waits goes once it reads. */
static void test_unread(void **unused)
{
    struct client *client = begin();

    bench_write(&client->bench, 0, GO, TO_GUEST, 4);
    for (int i = 0; i < 100; i++)
        assert_int_equal(bench_read(&client->bench, 0, LEFT, 4), COPIES);
    served(client);
    await_all(client, 0);
    assert_memory_equal(scratch(client)->buffer, client->memory, COPIES * LEN);
    end(client);
}

static int bytes_waiting(int fd)
{
    int n = 0;

    assert_return_code(ioctl(fd, FIONREAD, &n), errno);
    return n;
}

/* The guest turns bus mastering off while the socket is full: what is to be written was sent before the reply says so,
 * and nothing comes behind it, however late the client reads. */
static void test_bus_master_off(void **unused)
{
    struct client *client = begin();
    const int each = 16 + 16 + (int)LEN;
    static uint8_t bytes[COPIES * (16 + 16 + LEN)];

    bench_write(&client->bench, 0, GO, TO_GUEST, 4);
    assert_int_equal(bench_read(&client->bench, 0, LEFT, 4), COPIES);
    bench_bus_master(&client->bench, false);
    int sent = bytes_waiting(client->twin.fd);
    assert_in_range(sent, each, 16 * each); /* no more than are asked for at a time */
    assert_int_equal(sent % each, 0);
    assert_int_equal(recv(client->twin.fd, bytes, (size_t)sent, MSG_WAITALL), sent);
    for (int i = 0; i < 10; i++) /* those that were asked for are unanswered */
        assert_int_equal(bench_read(&client->bench, 0, LEFT, 4), sent / each);
    assert_int_equal(bytes_waiting(client->twin.fd), 0);
    end(client);
}

/* It closes the twin socket: all fail, those that were asked for and those that waited, and all that follow. */
static void test_closed(void **unused)
{
    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        struct client *client = begin();

        bench_write(&client->bench, 0, GO, by | TO_GUEST, 4);
        ob_raw_close(&client->twin);
        await_all(client, -EPIPE);
        bench_write(&client->bench, 0, GO, by | FROM_GUEST, 4);
        await_all(client, -EPIPE);
        end(client);
    }
}

/* It closes both while the server has not read the main one to its end: it is gone, and has not refused anything. */
static void test_client_goes(void **unused)
{
    struct client *client = calloc(1, sizeof(*client));
    uint8_t bytes[64];
    struct ob_raw_dma_map map = { .argsz = sizeof(map), .flags = 3, .address = 0, .size = 4096 };
    uint32_t go[5] = { GO, 0, 0, 4, TO_GUEST };
    int fd = memfd_create("guest", MFD_CLOEXEC), n;

    assert_int_equal(ftruncate(fd, 4096), 0);
    bench_new(&client->bench, &ob_class_twin, NULL);
    bench_run(&client->bench);
    set_up(client);
    assert_int_equal(eventfd_write(client->bench.stop, 1), 0);
    assert_int_equal(pthread_join(client->bench.thread, NULL), 0);
    client->bench.running = false;
    struct ob_raw *raw = &client->bench.raw;
    assert_int_equal(ob_raw_request(raw, OB_RAW_REGION_WRITE, OB_RAW_NO_REPLY, go, sizeof(go), NULL, 0, NULL), 0);
    while (scratch(client)->left == 0)
        assert_true(ob_server_run(client->bench.dev, 1000) >= 0);
    /* A read ends behind a descriptor, so these take two. */
    for (int i = 0; i < 2; i++, map.address += map.size) {
        size_t size = ob_raw_build(bytes, 1, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &map, sizeof(map));
        assert_int_equal(ob_raw_send(raw, bytes, size, &fd, 1), 0);
    }
    close(fd);
    ob_raw_close(raw);
    ob_raw_close(&client->twin);
    while ((n = ob_server_run(client->bench.dev, 1000)) >= 0)
        ;
    assert_int_equal(n, -EPIPE);
    for (unsigned i = 0; i < COPIES; i++)
        assert_int_equal(scratch(client)->results[i], -ENOTCONN);
    ob_dev_free(client->bench.dev);
    close(client->bench.stop);
    end(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies), cmocka_unit_test(test_unread),      cmocka_unit_test(test_bus_master_off),
        cmocka_unit_test(test_closed), cmocka_unit_test(test_client_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
