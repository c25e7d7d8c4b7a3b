/* Guest memory from the device's side: copies, directly and by messages, pins, windows. */
#include "device_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/pci_regs.h>

/* BAR0 */
enum {
    IOVA = 0x00,
    LEN = 0x08,
    GO = 0x0c, /* TO_GUEST, BY_WORKER, MANY; starts copies between the guest and `buffer` */
    STATUS = 0x10,
    DEADLOCK = 0x14, /* a read that waits for a copy */
    PIN = 0x18,      /* the worker pins LEN at IOVA, and adds 1 to each byte when the unmap comes */
    WINDOW = 0x1c,   /* 1: opens a window at IOVA, which the worker looks at all the time; 0: closes it */
    SEEN = 0x20,     /* what it saw: the first byte, or 0x100 for NULL */
};
enum { TO_GUEST = 1, BY_WORKER = 2, MANY = 4 };

#define BUFFER  0x40000u
#define COPIES  40u
#define PENDING 12345

struct state {
    uint64_t iova;
    uint32_t len, unused;
};
static const struct ob_field fields[] = { OB_FIELD(struct state, iova), OB_FIELD(struct state, len), OB_FIELD_END };

struct scratch {
    struct ob_worker *worker;
    struct ob_dma dma[COPIES];
    uint32_t done_order[COPIES];
    unsigned dones;
    uint8_t buffer[BUFFER];
    _Atomic unsigned go, pin; /* for the worker: commands */
    _Atomic bool unpin, pinned;
    _Atomic int status;
    int did; /* eventfd: a copy is over, or something was pinned */
    struct ob_req *kept;
    struct ob_dma kept_dma;
    uint64_t iova;
    uint32_t len;
    struct ob_window *window; /* the control thread's */
    _Atomic(struct ob_window *) looked_at;
    _Atomic uint32_t seen, looks, bad;
    struct iovec iov[4];
    uint32_t pins[4];
    int n_pins;
};

static void copy_done(struct ob_dma *dma, int err)
{
    struct scratch *s = ob_scratch(ob_worker_dev(dma->lib.worker));

    s->done_order[s->dones++] = (uint32_t)(dma - s->dma);
    if (err || s->status == PENDING)
        s->status = err;
    (void)eventfd_write(s->did, 1);
}

static void copy(struct scratch *s, struct ob_worker *worker, unsigned go)
{
    unsigned n = go & MANY ? COPIES : 1;
    uint32_t each = s->len / n;

    s->dones = 0;
    for (unsigned i = 0; i < n; i++) {
        s->dma[i] = (struct ob_dma){ .iova = s->iova + i * each,
                                     .buf = s->buffer + i * each,
                                     .len = each,
                                     .to_guest = go & TO_GUEST,
                                     .done = copy_done };
        int err = ob_dma_copy(worker, &s->dma[i]);
        if (err != OB_LATER) {
            s->status = err;
            (void)eventfd_write(s->did, 1);
        }
    }
}

static void look(struct scratch *s, struct ob_worker *worker)
{
    struct ob_window *window = s->looked_at;
    const volatile uint8_t *p = window ? ob_dma_window_pointer(worker, window) : NULL;

    /* A page of one file or of another, never a mix or something else. */
    if (p && (p[0] != p[4095] || p[0] == 0))
        s->bad++;
    s->seen = p ? p[0] : 0x100;
    s->looks++;
}

static int on_poll(struct ob_worker *worker)
{
    struct scratch *s = ob_scratch(ob_worker_dev(worker));
    unsigned go = atomic_exchange(&s->go, 0);

    if (go)
        copy(s, worker, go);
    if (atomic_exchange(&s->pin, 0)) {
        s->n_pins = ob_dma_pin(worker, s->iova, s->len, PROT_READ | PROT_WRITE, s->iov, s->pins, 4);
        s->status = s->n_pins < 0 ? s->n_pins : 0;
        s->pinned = s->n_pins > 0;
        (void)eventfd_write(s->did, 1);
    }
    if (s->pinned && s->unpin) {
        for (int i = 0; i < s->n_pins; i++)
            for (size_t k = 0; k < s->iov[i].iov_len; k++)
                ((uint8_t *)s->iov[i].iov_base)[k]++;
        ob_dma_unpin(worker, s->pins, s->n_pins);
        s->pinned = s->unpin = false;
    }
    if (s->looked_at) {
        look(s, worker);
        return 1;
    }
    return go != 0;
}

static const struct ob_worker_ops worker_ops = { .poll = on_poll };

static void take_command(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);
    struct state *state = ob_state(dev);

    s->iova = state->iova;
    s->len = state->len;
    s->status = PENDING;
}

static int go_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);

    take_command(dev);
    if (val & BY_WORKER) {
        s->go = (unsigned)val;
        ob_worker_wake(s->worker);
    } else {
        copy(s, ob_control(dev), (unsigned)val);
    }
    return OB_DONE;
}

static int status_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    *val = (uint32_t)s->status;
    return OB_DONE;
}

static void kept_done(struct ob_dma *dma, int err)
{
    struct scratch *s = ob_scratch(ob_worker_dev(dma->lib.worker));

    s->status = err;
    ob_reply(s->kept, err, 1);
    (void)eventfd_write(s->did, 1);
}

static int deadlock_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);

    take_command(dev);
    s->kept = req;
    s->kept_dma = (struct ob_dma){ .iova = s->iova, .buf = s->buffer, .len = s->len, .done = kept_done };
    return ob_dma_copy(ob_control(dev), &s->kept_dma);
}

static int pin_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    take_command(ob_req_dev(req));
    s->pin = 1;
    ob_worker_wake(s->worker);
    return OB_DONE;
}

static int window_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *s = ob_scratch(dev);
    struct state *state = ob_state(dev);

    if (!val) {
        s->looked_at = NULL;
        return OB_DONE;
    }
    int err = ob_dma_window_open(dev, state->iova, state->len, PROT_READ, &s->window);
    if (err)
        return err;
    s->looked_at = s->window;
    ob_worker_wake(s->worker);
    return OB_DONE;
}

static int seen_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    *val = s->seen;
    return OB_DONE;
}

static int on_unmap(struct ob_req *req, uint64_t iova, uint64_t len)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    if (s->pinned && s->iova < iova + len && iova < s->iova + s->len && !ob_option_bool(ob_req_dev(req), "clings")) {
        s->unpin = true;
        ob_worker_wake(s->worker);
    }
    return OB_DONE;
}

static int on_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct scratch *s = ob_scratch(dev);

    s->did = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return ob_worker_start(dev, &worker_ops, NULL, &s->worker);
}

static void on_close(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    ob_dma_window_close(dev, s->window);
    close(s->did);
}

static const struct ob_reg regs[] = {
    OB_REG64("IOVA", IOVA, struct state, iova, .rw = UINT64_MAX),
    OB_REG32("LEN", LEN, struct state, len, .rw = UINT32_MAX),
    { .name = "GO", .off = GO, .width = 4, .write = go_write },
    { .name = "STATUS", .off = STATUS, .width = 4, .read = status_read },
    { .name = "DEADLOCK", .off = DEADLOCK, .width = 4, .read = deadlock_read },
    { .name = "PIN", .off = PIN, .width = 4, .write = pin_write },
    { .name = "WINDOW", .off = WINDOW, .width = 4, .write = window_write },
    { .name = "SEEN", .off = SEEN, .width = 4, .read = seen_read },
    OB_REG_END,
};
static const struct ob_option options[] = {
    { .name = "clings", .type = OB_OPTION_BOOL, .value = "off", .help = "keeps its pins when it should not" },
    OB_OPTION_END,
};

OB_CLASS(dma, .pci = { .vendor = 0x1234, .device = 1 }, .bars[0] = OB_BAR_REGS(0x1000, regs), .options = options,
         .state = OB_STATE(struct state, 1, fields), .scratch_size = sizeof(struct scratch), .max_reply_ms = 300,
         .ops = { .open = on_open, .unmap = on_unmap, .close = on_close });

/* --- The guest --------------------------------------------------------------------------------------------------- */

#define BASE      0x100000ull
#define GUEST     0x50000u
#define PAGES(n)  ((n)*0x1000ull)
#define BY_PIECES (BASE + PAGES(8)) /* from here on nothing is shared */

/* Pages 0, 1 and 4 are shared; 2 and 3 not; 5 is, but read-only; 6 and 7 are not mapped; from 8 on all by messages. */
struct guest {
    int fd;
    uint8_t *bytes;
    uint64_t largest; /* of the messages */
    int refuse;       /* errno */
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct guest *g = ctx;

    if (address < BASE || address + count > BASE + GUEST)
        return EFAULT;
    if (count > g->largest)
        g->largest = count;
    if (g->refuse)
        return g->refuse;
    if (write)
        memcpy(g->bytes + (address - BASE), data, count);
    else
        memcpy(data, g->bytes + (address - BASE), count);
    return 0;
}

static void start(struct bench *bench, struct guest *g, const char *text)
{
    bench_start(bench, &ob_class_dma, text);
    *g = (struct guest){ .fd = memfd_create("guest", MFD_CLOEXEC) };
    assert_int_equal(ftruncate(g->fd, GUEST), 0);
    g->bytes = mmap(NULL, GUEST, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
    assert_ptr_not_equal(g->bytes, MAP_FAILED);
    for (size_t i = 0; i < GUEST; i++)
        g->bytes[i] = (uint8_t)(i * 31 + (i >> 8));
    struct ob_raw *raw = &bench->raw;
    assert_int_equal(ob_raw_map(raw, BASE, PAGES(2), 3, g->fd, 0), 0);
    assert_int_equal(ob_raw_map(raw, BASE + PAGES(2), PAGES(2), 3, -1, 0), 0);
    assert_int_equal(ob_raw_map(raw, BASE + PAGES(4), PAGES(1), 3, g->fd, PAGES(4)), 0);
    assert_int_equal(ob_raw_map(raw, BASE + PAGES(5), PAGES(1), 1, g->fd, PAGES(5)), 0);
    assert_int_equal(ob_raw_map(raw, BY_PIECES, GUEST - PAGES(8), 3, -1, 0), 0);
    raw->dma = serve;
    raw->dma_ctx = g;
    bench_bus_master(bench, true);
}

static struct scratch *scratch(struct bench *bench)
{
    return ob_scratch(bench->dev);
}

static void stop(struct bench *bench, struct guest *g)
{
    bench_stop(bench);
    munmap(g->bytes, GUEST);
    close(g->fd);
}

static void command(struct bench *bench, uint64_t iova, uint32_t len, uint32_t reg, uint32_t value)
{
    bench_write(bench, 0, IOVA, iova, 8);
    bench_write(bench, 0, LEN, len, 4);
    bench_write(bench, 0, reg, value, 4);
}

/* A copy that takes so many messages; its result. */
static int result(struct bench *bench, uint64_t iova, uint32_t len, uint32_t go, unsigned messages)
{
    unsigned before = bench->raw.dma_served;

    command(bench, iova, len, GO, go);
    assert_int_equal(ob_raw_serve_dma(&bench->raw, before + messages), 0);
    await(scratch(bench)->did);
    assert_int_equal(bench->raw.dma_served, before + messages);
    return (int)bench_read(bench, 0, STATUS, 4);
}

/* --- Copies ------------------------------------------------------------------------------------------------------ */

static void check_both_ways(struct bench *bench, struct guest *g, uint64_t iova, uint32_t len, unsigned messages)
{
    uint8_t *there = g->bytes + (iova - BASE);

    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        memset(scratch(bench)->buffer, 0, len);
        assert_int_equal(result(bench, iova, len, by, messages), 0);
        assert_memory_equal(scratch(bench)->buffer, there, len);
        for (uint32_t i = 0; i < len; i++)
            scratch(bench)->buffer[i] = (uint8_t)(i * 13 + by + 1);
        uint8_t before = there[-1], after = there[len];
        assert_int_equal(result(bench, iova, len, by | TO_GUEST, messages), 0);
        assert_memory_equal(there, scratch(bench)->buffer, len);
        assert_int_equal(there[-1], before);
        assert_int_equal(there[len], after);
    }
}

static void test_copies(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, NULL);
    check_both_ways(&bench, &g, BASE + 100, 8000, 0);       /* shared */
    check_both_ways(&bench, &g, BASE + PAGES(2) + 1, 1, 1); /* one byte by message */
    check_both_ways(&bench, &g, BY_PIECES + 7, 100000, 4);  /* at most 32 KiB each */
    assert_int_equal(g.largest, 32768);
    check_both_ways(&bench, &g, BASE + 4000, PAGES(4) - 4000 + 96, 1); /* shared, then not, then shared */
    stop(&bench, &g);
}

static void test_many_copies(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, NULL);
    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        unsigned before = bench.raw.dma_served;
        memset(scratch(&bench)->buffer, 0, BUFFER);
        command(&bench, BY_PIECES, COPIES * 1000, GO, by | MANY);
        assert_int_equal(ob_raw_serve_dma(&bench.raw, before + COPIES), 0);
        for (uint64_t n = 0; n < COPIES;)
            n += await(scratch(&bench)->did);
        assert_int_equal(bench_read(&bench, 0, STATUS, 4), 0);
        assert_memory_equal(scratch(&bench)->buffer, g.bytes + PAGES(8), COPIES * 1000);
        for (uint32_t i = 0; i < COPIES; i++)
            assert_int_equal(scratch(&bench)->done_order[i], i);
    }
    stop(&bench, &g);
}

static void test_refused_copies(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, NULL);
    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        assert_int_equal(result(&bench, BASE + PAGES(6), 1, by, 0), -EFAULT);
        assert_int_equal(result(&bench, BASE - 1, 2, by, 0), -EFAULT);
        assert_int_equal(result(&bench, UINT64_MAX, 4, by, 0), -EFAULT);
        assert_int_equal(result(&bench, BASE + PAGES(5), 8, by, 0), 0);
        assert_int_equal(result(&bench, BASE + PAGES(5), 8, by | TO_GUEST, 0), -EACCES);
        assert_int_equal(result(&bench, BASE, 0, by, 0), 0);
        /* Found out on the way: after a message, and after a refusal of the client's. */
        assert_int_equal(result(&bench, BASE + PAGES(3), PAGES(4), by, 1), -EFAULT);
        assert_int_equal(result(&bench, BASE + PAGES(3), PAGES(3), by | TO_GUEST, 1), -EACCES);
        g.refuse = EPERM;
        assert_int_equal(result(&bench, BY_PIECES, 70000, by, 1), -EPERM);
        g.refuse = 0;
        bench_bus_master(&bench, false);
        assert_int_equal(result(&bench, BASE, 4, by, 0), -EACCES);
        assert_int_equal(result(&bench, BY_PIECES, 4, by, 0), -EACCES);
        bench_bus_master(&bench, true);
    }
    stop(&bench, &g);
}

/* Receives the next DMA_READ itself. */
static struct ob_raw_message *receive_read(struct bench *bench, uint64_t address, uint64_t count)
{
    struct ob_raw_message *m;
    struct ob_raw_dma dma;

    bench->raw.dma = NULL;
    assert_int_equal(ob_raw_receive(&bench->raw, &m), 0);
    assert_int_equal(m->header.command, OB_RAW_DMA_READ);
    memcpy(&dma, m->payload, sizeof(dma));
    assert_int_equal(dma.address, address);
    assert_int_equal(dma.count, count);
    return m;
}

/* Answers it with `count` bytes. */
static void answer_read(struct bench *bench, struct guest *g, struct ob_raw_message *m, uint64_t count)
{
    uint8_t bytes[1024], payload[1024];
    struct ob_raw_dma dma;

    memcpy(&dma, m->payload, sizeof(dma));
    dma.count = count;
    memcpy(payload, &dma, sizeof(dma));
    memcpy(payload + sizeof(dma), g->bytes + (dma.address - BASE), count);
    size_t size =
        ob_raw_build(bytes, m->header.id, OB_RAW_DMA_READ, OB_RAW_REPLY, payload, sizeof(dma) + (size_t)count);
    assert_int_equal(ob_raw_send(&bench->raw, bytes, size, NULL, 0), 0);
    ob_raw_message_free(m);
}

static void test_short_answers(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, NULL);
    command(&bench, BY_PIECES, 500, GO, BY_WORKER);
    answer_read(&bench, &g, receive_read(&bench, BY_PIECES, 500), 100);
    answer_read(&bench, &g, receive_read(&bench, BY_PIECES + 100, 400), 399);
    answer_read(&bench, &g, receive_read(&bench, BY_PIECES + 499, 1), 1);
    await(scratch(&bench)->did);
    assert_int_equal(bench_read(&bench, 0, STATUS, 4), 0);
    assert_memory_equal(scratch(&bench)->buffer, g.bytes + PAGES(8), 500);
    /* No bytes at all would go on for ever; more than was asked for lie behind the buffer's end. */
    command(&bench, BY_PIECES, 500, GO, BY_WORKER);
    answer_read(&bench, &g, receive_read(&bench, BY_PIECES, 500), 0);
    await(scratch(&bench)->did);
    assert_true((int)bench_read(&bench, 0, STATUS, 4) < 0);
    stop(&bench, &g);
}

static void test_bus_master_off_meanwhile(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, NULL);
    command(&bench, BY_PIECES, 500, GO, BY_WORKER);
    struct ob_raw_message *m = receive_read(&bench, BY_PIECES, 500);
    bench_bus_master(&bench, false);
    answer_read(&bench, &g, m, 100);
    await(scratch(&bench)->did);
    assert_int_equal((int)bench_read(&bench, 0, STATUS, 4), -EACCES);
    assert_int_equal(ob_raw_silent(&bench.raw), 0);
    stop(&bench, &g);
}

/* The client goes while messages are out, and others wait for their turn. */
static void test_client_goes_meanwhile(void **unused)
{
    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        struct bench bench;
        struct guest g;
        start(&bench, &g, NULL);
        command(&bench, BY_PIECES, COPIES * 10, GO, by | MANY);
        ob_raw_message_free(receive_read(&bench, BY_PIECES, 10));
        ob_raw_close(&bench.raw);
        for (uint64_t n = 0; n < COPIES;)
            n += await(scratch(&bench)->did);
        assert_int_equal(scratch(&bench)->status, -ENOTCONN);
        assert_int_equal(pthread_join(bench.thread, NULL), 0);
        bench.running = false;
        assert_int_equal(bench.result, -EPIPE);
        stop(&bench, &g);
    }
}

/* A client that does not answer loses transfers to a reset, and not the device: more of them than can be waited for,
 * and the rest of a large one is not asked for. Late answers do no harm. */
static void test_reset_meanwhile(void **unused)
{
    for (uint32_t by = 0; by <= BY_WORKER; by += BY_WORKER) {
        struct bench bench;
        struct guest g;
        start(&bench, &g, NULL);
        for (int i = 0; i < 20; i++) {
            command(&bench, BY_PIECES, 500, GO, by);
            struct ob_raw_message *m = receive_read(&bench, BY_PIECES, 500);
            assert_int_equal(ob_raw_reset(&bench.raw), 0);
            await(scratch(&bench)->did);
            assert_int_equal(scratch(&bench)->status, -ECANCELED);
            bench_bus_master(&bench, true);
            if (i % 2 == 0)
                answer_read(&bench, &g, m, 100);
            else
                ob_raw_message_free(m);
            assert_int_equal(ob_raw_silent(&bench.raw), 0);
        }
        bench.raw.dma = serve;
        assert_int_equal(result(&bench, BY_PIECES, 500, by, 1), 0);
        assert_memory_equal(scratch(&bench)->buffer, g.bytes + PAGES(8), 500);
        stop(&bench, &g);
    }
}

static void test_reply_may_not_wait(void **unused)
{
    struct bench bench;
    struct guest g;
    uint32_t value;

    start(&bench, &g, NULL);
    bench_write(&bench, 0, IOVA, BY_PIECES, 8);
    bench_write(&bench, 0, LEN, 16, 4);
    capture_begin();
    assert_int_equal(ob_raw_read(&bench.raw, 0, DEADLOCK, &value, 4), EDEADLK);
    free(capture_end());
    assert_int_equal(ob_raw_serve_dma(&bench.raw, 1), 0); /* the copy itself takes place */
    await(scratch(&bench)->did);
    assert_int_equal(bench_read(&bench, 0, STATUS, 4), 0);
    stop(&bench, &g);
}

/* --- Pins and windows -------------------------------------------------------------------------------------------- */

static int pin_result(struct bench *bench, uint64_t iova, uint32_t len)
{
    command(bench, iova, len, PIN, 1);
    await(scratch(bench)->did);
    return (int)bench_read(bench, 0, STATUS, 4);
}

/* The unmap is answered when what was pinned is given back, with all that was done to it. */
static void test_unmap_waits_for_pins(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, NULL);
    for (int i = 0; i < 50; i++) {
        uint8_t first = g.bytes[100], last = g.bytes[PAGES(2) - 1];
        assert_int_equal(pin_result(&bench, BASE + 100, PAGES(2) - 100), 0);
        assert_int_equal(ob_raw_unmap(&bench.raw, BASE, PAGES(2)), 0);
        assert_int_equal(g.bytes[100], (uint8_t)(first + 1));
        assert_int_equal(g.bytes[PAGES(2) - 1], (uint8_t)(last + 1));
        assert_int_equal(pin_result(&bench, BASE, 1), -EFAULT);
        assert_int_equal(ob_raw_map(&bench.raw, BASE, PAGES(2), 3, g.fd, 0), 0);
    }
    assert_int_equal(pin_result(&bench, BY_PIECES, 1), -EREMOTE);
    assert_int_equal(pin_result(&bench, BASE + PAGES(5), 1), -EACCES);
    bench_bus_master(&bench, false);
    assert_int_equal(pin_result(&bench, BASE, 1), -EACCES);
    stop(&bench, &g);
}

/* A device that does not let go: the client hears so in time, and the process ends well all the same. */
static void test_pins_that_are_kept(void **unused)
{
    struct bench bench;
    struct guest g;

    start(&bench, &g, "clings=on");
    assert_int_equal(pin_result(&bench, BASE, 10), 0);
    capture_begin();
    assert_int_equal(ob_raw_unmap(&bench.raw, BASE, PAGES(2)), ETIMEDOUT);
    assert_int_equal(bench_read(&bench, 0, LEN, 4), 10);
    scratch(&bench)->unpin = true;
    ob_worker_wake(scratch(&bench)->worker);
    bench_write(&bench, 0, IOVA, 1, 8);
    assert_int_equal(pin_result(&bench, BASE + PAGES(4), 10), 0);
    bench.raw.dma = NULL;
    bench_stop(&bench);
    char *text = capture_end();
    assert_non_null(strstr(text, "with guest memory pinned"));
    free(text);
    munmap(g.bytes, GUEST);
    close(g.fd);
}

static void await_seen(struct bench *bench, uint32_t value)
{
    uint32_t start = scratch(bench)->looks;

    while (bench_read(bench, 0, SEEN, 4) != value)
        assert_true(scratch(bench)->looks - start < 100000000);
}

/* A worker looks without a pause while memory is unmapped, mapped elsewhere, and mapped again. */
static void test_window(void **unused)
{
    struct bench bench;
    struct guest g;
    int other = memfd_create("other", MFD_CLOEXEC);
    uint8_t page[4096];

    start(&bench, &g, NULL);
    memset(page, 2, sizeof(page));
    memset(g.bytes, 1, PAGES(2));
    assert_int_equal(pwrite(other, page, sizeof(page), 0), 4096);
    command(&bench, BASE, 4096, WINDOW, 1);
    for (int i = 0; i < 50; i++) {
        await_seen(&bench, 1);
        assert_int_equal(ob_raw_unmap(&bench.raw, BASE, PAGES(2)), 0);
        assert_int_equal(ob_raw_map(&bench.raw, BASE, PAGES(1), 3, other, 0), 0);
        await_seen(&bench, 2);
        assert_int_equal(ob_raw_unmap(&bench.raw, BASE, PAGES(1)), 0);
        await_seen(&bench, 0x100);
        assert_int_equal(ob_raw_map(&bench.raw, BASE, PAGES(2), 3, g.fd, 0), 0);
    }
    bench_bus_master(&bench, false);
    await_seen(&bench, 0x100);
    assert_int_equal(scratch(&bench)->bad, 0);
    bench_write(&bench, 0, WINDOW, 0, 4);
    close(other);
    stop(&bench, &g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_many_copies),
        cmocka_unit_test(test_refused_copies),
        cmocka_unit_test(test_short_answers),
        cmocka_unit_test(test_bus_master_off_meanwhile),
        cmocka_unit_test(test_client_goes_meanwhile),
        cmocka_unit_test(test_reset_meanwhile),
        cmocka_unit_test(test_reply_may_not_wait),
        cmocka_unit_test(test_unmap_waits_for_pins),
        cmocka_unit_test(test_pins_that_are_kept),
        cmocka_unit_test(test_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
