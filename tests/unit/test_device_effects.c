/* What a handler causes: commits, effects after them, interrupts, timers, kept requests; and how a caller's own loop
 * drives a device. */
#include "device_bench.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/pci_regs.h>

/* BAR0: each register does what its name says. */
enum {
    STATE = 0x00,
    AFTER = 0x04,      /* two effects, the first of which asks for a third; order in ORDER */
    AFTER_FAIL = 0x08, /* an effect, interrupts and a timer, then an errno */
    ORDER = 0x0c,
    LEVEL = 0x10, /* bit 31: on; vector in the rest */
    PULSE = 0x14,
    TIMER_MS = 0x18, /* timer 0 so much later; 0: never */
    FIRED = 0x1c,
    KEEP = 0x20,      /* answered by another thread */
    KEEP_NONE = 0x24, /* answered by ANSWER, if ever */
    ANSWER = 0x28,
    KEEP_SELF = 0x2c,  /* OB_LATER, answered before the handler returns */
    EARLY = 0x30,      /* timer 1, already due, again and again until FIRED is 3 */
    KEPT_STATE = 0x34, /* changes STATE and keeps; the answer changes ORDER */
};

struct state {
    uint32_t value, order, fired, unused;
};
static const struct ob_field fields[] = {
    OB_FIELD(struct state, value),
    OB_FIELD(struct state, order),
    OB_FIELD(struct state, fired),
    OB_FIELD_END,
};

struct scratch {
    struct ob_req *kept;
    pthread_t thread;
    bool threaded;
    int fired; /* eventfd */
};

static void append_order(struct ob_dev *dev, uint64_t digit)
{
    struct state *s = ob_state(dev);

    s->order = s->order << 4 | (uint32_t)digit;
    if (digit == 1)
        ob_after(dev, append_order, 3);
}

static int after_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_after(ob_req_dev(req), append_order, 1);
    ob_after(ob_req_dev(req), append_order, 2);
    return OB_DONE;
}

static int after_fail_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct state *s = ob_state(dev);

    s->value = 0xbad;
    ob_after(dev, append_order, 0xb);
    ob_irq_level(dev, 0, true);
    ob_irq_pulse(dev, 1);
    ob_timer(dev, 0, ob_now());
    return -EIO;
}

static int level_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_irq_level(ob_req_dev(req), (unsigned)(val & 0xffff), val >> 31);
    return OB_DONE;
}

static int pulse_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_irq_pulse(ob_req_dev(req), (unsigned)val);
    return OB_DONE;
}

static int timer_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_timer(ob_req_dev(req), 0, val ? ob_now() + val * 1000000 : 0);
    return OB_DONE;
}

static int early_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_timer(ob_req_dev(req), 1, 1);
    return OB_DONE;
}

static void on_timer(struct ob_dev *dev, unsigned id)
{
    struct state *s = ob_state(dev);
    struct scratch *x = ob_scratch(dev);

    s->fired++;
    if (id == 1 && s->fired < 3)
        ob_timer(dev, 1, 1);
    else
        (void)eventfd_write(x->fired, 1);
}

static void *answer_thread(void *arg)
{
    ob_reply(arg, 0, 0x5eed);
    return NULL;
}

static void join_answer(struct scratch *x)
{
    if (x->threaded)
        pthread_join(x->thread, NULL);
    x->threaded = false;
}

static int keep_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *x = ob_scratch(ob_req_dev(req));

    join_answer(x);
    x->threaded = pthread_create(&x->thread, NULL, answer_thread, req) == 0;
    return x->threaded ? OB_LATER : -EAGAIN;
}

static int keep_none_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *x = ob_scratch(ob_req_dev(req));

    x->kept = req;
    return OB_LATER;
}

static int kept_state_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct scratch *x = ob_scratch(dev);
    struct state *s = ob_state(dev);

    s->value = 0xbad;
    ob_after(dev, append_order, 0xb);
    ob_irq_pulse(dev, 1);
    x->kept = req;
    ob_timer(dev, 0, 1); /* undone as well */
    return OB_LATER;
}

static int answer_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *x = ob_scratch(ob_req_dev(req));

    if (!x->kept)
        return -ENOENT;
    ob_reply(x->kept, 0, val);
    x->kept = NULL;
    return OB_DONE;
}

static int keep_self_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct state *s = ob_state(ob_req_dev(req));

    s->value = 0x11;
    ob_reply(req, 0, 0x77);
    return OB_LATER;
}

static int on_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct scratch *x = ob_scratch(dev);

    x->fired = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return x->fired < 0 ? -errno : 0;
}

static int on_quiesce(struct ob_req *req)
{
    struct scratch *x = ob_scratch(ob_req_dev(req));

    if (x->kept)
        ob_reply(x->kept, -ECANCELED, 0);
    x->kept = NULL;
    return OB_DONE;
}

static void on_close(struct ob_dev *dev)
{
    struct scratch *x = ob_scratch(dev);

    join_answer(x);
    close(x->fired);
}

#define HOOK(name_, off_, ...)                              \
    {                                                       \
        .name = name_, .off = off_, .width = 4, __VA_ARGS__ \
    }
static const struct ob_reg regs[] = {
    OB_REG32("STATE", STATE, struct state, value, .rw = UINT32_MAX),
    HOOK("AFTER", AFTER, .write = after_write),
    HOOK("AFTER_FAIL", AFTER_FAIL, .write = after_fail_write),
    OB_REG32("ORDER", ORDER, struct state, order, .rw = UINT32_MAX),
    HOOK("LEVEL", LEVEL, .write = level_write),
    HOOK("PULSE", PULSE, .write = pulse_write),
    HOOK("TIMER_MS", TIMER_MS, .write = timer_write),
    OB_REG32("FIRED", FIRED, struct state, fired, .rw = UINT32_MAX),
    HOOK("KEEP", KEEP, .read = keep_read),
    HOOK("KEEP_NONE", KEEP_NONE, .read = keep_none_read),
    HOOK("ANSWER", ANSWER, .write = answer_write),
    HOOK("KEEP_SELF", KEEP_SELF, .read = keep_self_read),
    HOOK("EARLY", EARLY, .write = early_write),
    HOOK("KEPT_STATE", KEPT_STATE, .write = kept_state_write),
    OB_REG_END,
};

#define CLASS(name_, ...)                                                                                     \
    OB_CLASS(name_, .pci = { .vendor = 0x1234, .device = 1 }, .bars[0] = OB_BAR_REGS(0x1000, regs),           \
             .state = OB_STATE(struct state, 1, fields), .scratch_size = sizeof(struct scratch), .timers = 2, \
             .irqs = { .msix = 4 },                                                                           \
             .ops = { .open = on_open, .quiesce = on_quiesce, .timer = on_timer, .close = on_close }, __VA_ARGS__)
CLASS(effects);
CLASS(hasty, .max_reply_ms = 20);

static int fired_fd(struct bench *bench)
{
    return ((struct scratch *)ob_scratch(bench->dev))->fired;
}

/* MSI-X on, an eventfd for each vector. */
static void enable_vectors(struct bench *bench, int fds[4])
{
    uint8_t at = (uint8_t)bench_read(bench, VFIO_PCI_CONFIG_REGION_INDEX, PCI_CAPABILITY_LIST, 1);

    for (int i = 0; i < 4; i++)
        fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_int_equal(ob_raw_set_irqs(&bench->raw, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                                     VFIO_PCI_MSIX_IRQ_INDEX, 0, 4, NULL, fds, 4),
                     0);
    bench_bus_master(bench, true);
    bench_write(bench, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
}

static void close_all(const int fds[4])
{
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

/* --- Tests ------------------------------------------------------------------------------------------------------- */

static void test_effects_in_order(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_effects, NULL);
    bench_write(&bench, 0, AFTER, 0, 4);
    assert_int_equal(bench_read(&bench, 0, ORDER, 4), 0x123);
    bench_stop(&bench);
}

static void test_failed_handler_never_happened(void **unused)
{
    struct bench bench;
    uint32_t value = 0;
    int fds[4];

    bench_start(&bench, &ob_class_effects, NULL);
    enable_vectors(&bench, fds);
    assert_int_equal(ob_raw_write(&bench.raw, 0, AFTER_FAIL, &value, 4), EIO);
    bench_write(&bench, 0, AFTER, 0, 4); /* what is lost does not come with the next one either */
    assert_int_equal(bench_read(&bench, 0, STATE, 4), 0);
    assert_int_equal(bench_read(&bench, 0, ORDER, 4), 0x123);
    assert_int_equal(taken(fds[0]), 0);
    assert_int_equal(taken(fds[1]), 0);
    bench_write(&bench, 0, EARLY, 0, 4); /* a timer that does fire: the other would have come first */
    await(fired_fd(&bench));
    assert_int_equal(bench_read(&bench, 0, FIRED, 4), 3);
    bench_stop(&bench);
    close_all(fds);
}

static void test_kept_handler_has_not_happened_yet(void **unused)
{
    struct bench bench;
    uint16_t write_id;
    struct ob_raw_region access = { .offset = KEPT_STATE, .region = 0, .count = 4 };
    uint8_t payload[sizeof(access) + 4] = { 0 };
    int fds[4];

    bench_start(&bench, &ob_class_hasty, NULL);
    enable_vectors(&bench, fds);
    memcpy(payload, &access, sizeof(access));
    capture_begin();
    assert_int_equal(ob_raw_request(&bench.raw, OB_RAW_REGION_WRITE, 0, payload, sizeof(payload), NULL, 0, &write_id),
                     0);
    assert_int_equal(ob_raw_reply(&bench.raw, write_id, OB_RAW_REGION_WRITE, NULL), ETIMEDOUT);
    free(capture_end());
    /* The class answers a request that is gone: nothing comes of it. */
    bench_write(&bench, 0, ANSWER, 1, 4);
    assert_int_equal(bench_read(&bench, 0, STATE, 4), 0);
    assert_int_equal(bench_read(&bench, 0, ORDER, 4), 0);
    assert_int_equal(bench_read(&bench, 0, FIRED, 4), 0);
    assert_int_equal(taken(fds[1]), 0);
    bench_stop(&bench);
    close_all(fds);
}

static void test_answer_from_another_thread(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_effects, NULL);
    for (int i = 0; i < 200; i++)
        assert_int_equal(bench_read(&bench, 0, KEEP, 4), 0x5eed);
    assert_int_equal(bench_read(&bench, 0, KEEP + 1, 2), 0x005e); /* the bytes that were asked for */
    bench_stop(&bench);
}

static void test_answer_before_return(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_effects, NULL);
    assert_int_equal(bench_read(&bench, 0, KEEP_SELF, 4), 0x77);
    assert_int_equal(bench_read(&bench, 0, STATE, 4), 0x11);
    bench_stop(&bench);
}

/* The client goes while a request is kept: it is answered in ops.quiesce, and nothing is left of it. */
static void test_client_goes_meanwhile(void **unused)
{
    struct ob_raw_region access = { .offset = KEEP_NONE, .region = 0, .count = 4 };
    struct bench bench;

    bench_start(&bench, &ob_class_effects, NULL);
    assert_int_equal(ob_raw_request(&bench.raw, OB_RAW_REGION_READ, 0, &access, sizeof(access), NULL, 0, NULL), 0);
    ob_raw_close(&bench.raw);
    assert_int_equal(pthread_join(bench.thread, NULL), 0);
    bench.running = false;
    assert_int_equal(bench.result, -EPIPE);
    bench_stop(&bench);
}

static void test_interrupts_follow(void **unused)
{
    struct bench bench;
    int fds[4];

    bench_start(&bench, &ob_class_effects, NULL);
    enable_vectors(&bench, fds);
    bench_write(&bench, 0, LEVEL, 0x80000002, 4);
    assert_int_equal(taken(fds[2]), 1); /* out before the reply */
    bench_write(&bench, 0, LEVEL, 0x80000002, 4);
    assert_int_equal(taken(fds[2]), 0); /* no edge */
    bench_write(&bench, 0, LEVEL, 2, 4);
    bench_write(&bench, 0, LEVEL, 0x80000002, 4);
    assert_int_equal(taken(fds[2]), 1);
    bench_write(&bench, 0, PULSE, 3, 4);
    bench_write(&bench, 0, PULSE, 3, 4);
    assert_int_equal(taken(fds[3]), 2);
    bench_write(&bench, 0, PULSE, 4, 4); /* there is none */
    bench_write(&bench, 0, LEVEL, 0x8000ffff, 4);
    assert_int_equal(taken(fds[0]) + taken(fds[1]) + taken(fds[2]) + taken(fds[3]), 0);
    bench_stop(&bench);
    close_all(fds);
}

static void test_timer_fires_once(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_effects, NULL);
    uint64_t before = ob_now();
    bench_write(&bench, 0, TIMER_MS, 20, 4);
    assert_int_equal(bench_read(&bench, 0, FIRED, 4), 0);
    await(fired_fd(&bench));
    assert_true(ob_now() - before >= 20000000);
    assert_int_equal(bench_read(&bench, 0, FIRED, 4), 1);
    /* Armed later than before, then not at all: the wake-up for the old deadline finds nothing. */
    bench_write(&bench, 0, TIMER_MS, 1, 4);
    bench_write(&bench, 0, TIMER_MS, 10000000, 4);
    bench_write(&bench, 0, TIMER_MS, 0, 4);
    bench_write(&bench, 0, FIRED, 0, 4);
    bench_write(&bench, 0, EARLY, 0, 4);
    await(fired_fd(&bench));
    uint64_t fired = bench_read(&bench, 0, FIRED, 4);
    assert_in_range(fired, 3, 4); /* the one of 1 ms may have been faster than its successor */
    bench_stop(&bench);
}

/* A device listens; its timer runs out while it has no client, and fires when the next one has come. */
static void test_timer_rests_without_client(void **unused)
{
    struct bench bench = { .stop = -1 };
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t size = sizeof(address);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(ob_dev_new(&ob_class_effects, NULL, NULL, &bench.dev), 0);
    const struct ob_listen listen_ = { .fd = listener, .owner = (uid_t)-1, .group = (gid_t)-1 };
    assert_int_equal(ob_dev_listen(bench.dev, &listen_), 0);
    bench_run(&bench);
    for (int session = 0; session < 2; session++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, size), 0);
        ob_raw_init(&bench.raw, fd);
        assert_int_equal(ob_raw_handshake(&bench.raw), 0);
        if (session == 0) {
            bench_write(&bench, 0, TIMER_MS, 1, 4);
            bench_write(&bench, 0, FIRED, 0x100, 4);
            if (taken(fired_fd(&bench)))
                bench_write(&bench, 0, TIMER_MS, 1, 4); /* it was faster than the line above */
            ob_raw_close(&bench.raw);
        }
    }
    await(fired_fd(&bench));
    assert_in_range(bench_read(&bench, 0, FIRED, 4), 0x101, 0x102);
    bench.stopped = true;
    ob_raw_close(&bench.raw); /* wakes the device's thread */
    assert_int_equal(pthread_join(bench.thread, NULL), 0);
    ob_dev_free(bench.dev);
}

/* --- Loops of the caller's --------------------------------------------------------------------------------------- */

static void *client_thread(void *arg)
{
    struct bench *bench = arg;
    uint64_t sum = 0;

    if (ob_raw_handshake(&bench->raw) != 0)
        return NULL;
    for (uint32_t i = 0; i < 50; i++) {
        uint32_t value = i, back = 0;
        if (ob_raw_write(&bench->raw, 0, STATE, &value, 4) != 0 || ob_raw_read(&bench->raw, 0, STATE, &back, 4) != 0)
            return NULL;
        sum += back;
        if (ob_raw_read(&bench->raw, 0, KEEP, &back, 4) != 0 || back != 0x5eed)
            return NULL;
    }
    ob_raw_close(&bench->raw);
    return (void *)(uintptr_t)sum;
}

/* A process that is out of descriptors says so, leaves the client waiting, and tries again; it does not spin. */
static void test_accept_without_descriptors(void **unused)
{
    char folder[] = "/tmp/outboard-accept-XXXXXX", path[64];
    struct ob_listen listen = { .path = path, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct rlimit limit, none;
    struct ob_raw raw;
    struct ob_dev *dev;
    uint64_t start;
    int calls = 0;
    char *log;

    (void)unused;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    assert_int_equal(ob_dev_new(&ob_class_effects, NULL, NULL, &dev), 0);
    assert_int_equal(ob_dev_listen(dev, &listen), 0);
    assert_int_equal(ob_raw_connect(&raw, path), 0);
    capture_begin();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = (rlim_t)dup(STDIN_FILENO);
    close((int)none.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (start = ob_now(); ob_now() - start < 300000000; calls++)
        assert_true(ob_server_run(dev, 100) >= 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    log = capture_end();
    assert_non_null(strstr(log, "raise the limit on open files"));
    free(log);
    assert_in_range(calls, 1, 20);
    /* Now there are some again: the client that waited is served. */
    assert_int_equal(ob_raw_request(&raw, OB_RAW_VERSION, 0, "\0\0\0", 4, NULL, 0, NULL), 0);
    for (struct pollfd reply = { .fd = raw.fd, .events = POLLIN }; poll(&reply, 1, 0) == 0;) {
        assert_true(ob_now() - start < UINT64_C(20000000000));
        assert_true(ob_server_run(dev, 100) >= 0);
    }
    ob_raw_close(&raw);
    ob_dev_free(dev);
    assert_int_equal(rmdir(folder), 0);
}

/* Two devices in one poll() of the caller's. */
static void test_outer_loop(void **unused)
{
    struct bench benches[2];
    pthread_t clients[2];
    bool over[2] = { false, false };
    void *sum;

    for (int i = 0; i < 2; i++) {
        bench_new(&benches[i], &ob_class_effects, NULL);
        assert_int_equal(pthread_create(&clients[i], NULL, client_thread, &benches[i]), 0);
    }
    while (!over[0] || !over[1]) {
        struct pollfd fds[2];
        for (int i = 0; i < 2; i++)
            fds[i] = (struct pollfd){ .fd = over[i] ? -1 : ob_server_fd(benches[i].dev), .events = POLLIN };
        assert_true(poll(fds, 2, 20000) > 0);
        for (int i = 0; i < 2; i++) {
            while (fds[i].revents && !over[i]) {
                int n = ob_server_run(benches[i].dev, 0);
                over[i] = n == -EPIPE;
                if (n <= 0)
                    break;
            }
        }
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(clients[i], &sum), 0);
        assert_int_equal((uintptr_t)sum, 50 * 49 / 2);
        bench_stop(&benches[i]);
    }
}

/* Polling: sockets, answers of other threads and timers are all seen without a sleep. */
static void test_polled(void **unused)
{
    struct bench bench;
    pthread_t client;
    void *sum;
    int n;

    bench_new(&bench, &ob_class_effects, NULL);
    assert_int_equal(pthread_create(&client, NULL, client_thread, &bench), 0);
    do
        n = ob_server_run(bench.dev, 0);
    while (n >= 0);
    assert_int_equal(n, -EPIPE);
    assert_int_equal(pthread_join(client, &sum), 0);
    assert_int_equal((uintptr_t)sum, 50 * 49 / 2);
    bench_stop(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_effects_in_order),
        cmocka_unit_test(test_failed_handler_never_happened),
        cmocka_unit_test(test_kept_handler_has_not_happened_yet),
        cmocka_unit_test(test_answer_from_another_thread),
        cmocka_unit_test(test_answer_before_return),
        cmocka_unit_test(test_client_goes_meanwhile),
        cmocka_unit_test(test_interrupts_follow),
        cmocka_unit_test(test_timer_fires_once),
        cmocka_unit_test(test_timer_rests_without_client),
        cmocka_unit_test(test_accept_without_descriptors),
        cmocka_unit_test(test_outer_loop),
        cmocka_unit_test(test_polled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
