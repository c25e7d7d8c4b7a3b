/* Workers: when they begin, how they sleep and are woken, the descriptors they watch, how they end. */
#include "device_bench.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WORKERS 2

/* BAR0: 0 wakes the worker of that number after giving it work; 4 makes it stop with an error. */
struct job {
    struct ob_worker *worker;
    _Atomic unsigned given, done, polls, arms, readies, before_release;
    _Atomic bool fail;
    int fd;  /* eventfd that the worker watches */
    int did; /* eventfd that it writes when it did something */
    bool watched;
    unsigned number;
};

struct scratch {
    struct job jobs[WORKERS];
    struct job late; /* started by ops.run */
    _Atomic bool opened;
};

static struct scratch *last; /* for the tests' own thread; one device at a time */

static void job_ready(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct job *job = ctx;

    job->readies += (unsigned)taken(fd);
    (void)eventfd_write(job->did, 1);
}

static int job_poll(struct ob_worker *worker)
{
    struct job *job = ob_worker_context(worker);
    struct scratch *s = ob_scratch(ob_worker_dev(worker));
    unsigned given = job->given;

    job->polls++;
    if (!s->opened)
        job->before_release++;
    if (job->fail)
        return -EIO;
    if (!job->watched) {
        job->watched = true;
        /* The second descriptor, from the worker itself. */
        return ob_worker_fd(worker, job->fd, EPOLLIN, job_ready, job) < 0 ? -EBADF : 1;
    }
    if (job->done == given)
        return 0;
    job->done = given;
    (void)eventfd_write(job->did, 1);
    return 1;
}

static void job_arm(struct ob_worker *worker)
{
    struct job *job = ob_worker_context(worker);

    job->arms++;
}

static const struct ob_worker_ops job_ops = { .poll = job_poll, .arm = job_arm };

static int start_job(struct ob_dev *dev, struct job *job, unsigned number)
{
    job->number = number;
    job->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    job->did = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return ob_worker_start(dev, &job_ops, job, &job->worker);
}

static int on_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct scratch *s = ob_scratch(dev);
    const struct ob_worker_ops none = { 0 };
    struct ob_worker *worker;

    last = s;
    if (ob_worker_start(dev, &none, NULL, &worker) != -EINVAL)
        return -EPROTO;
    for (unsigned i = 0; i < WORKERS; i++) {
        int err = start_job(dev, &s->jobs[i], i);
        if (err)
            return err;
        /* The control thread may set it up until the callback returns. */
        err = ob_worker_fd(s->jobs[i].worker, s->jobs[i].fd, EPOLLIN, job_ready, &s->jobs[i]);
        if (err)
            return err;
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        ob_worker_wake(s->jobs[i].worker);
        for (int turn = 0; turn < 1000; turn++)
            sched_yield(); /* a worker that did not wait would run, and count that it did */
    }
    s->opened = !ob_option_bool(dev, "fail");
    return s->opened ? 0 : -EIO;
}

static int on_run(struct ob_dev *dev)
{
    return start_job(dev, &((struct scratch *)ob_scratch(dev))->late, WORKERS);
}

static int wake_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));
    struct ob_worker *worker;

    if (val > WORKERS)
        return ob_worker_start(ob_req_dev(req), &job_ops, NULL, &worker); /* not now */
    struct job *job = val == WORKERS ? &s->late : &s->jobs[val];
    job->given++;
    ob_worker_wake(job->worker);
    return OB_DONE;
}

static int fail_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    s->jobs[val & 1].fail = true;
    ob_worker_wake(s->jobs[val & 1].worker);
    return OB_DONE;
}

static void close_job(struct job *job)
{
    if (!job->worker)
        return;
    close(job->fd);
    close(job->did);
}

static void on_close(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    for (unsigned i = 0; i < WORKERS; i++)
        close_job(&s->jobs[i]);
    close_job(&s->late);
}

static const struct ob_reg regs[] = {
    { .name = "WAKE", .off = 0, .width = 4, .write = wake_write },
    { .name = "FAIL", .off = 4, .width = 4, .write = fail_write },
    OB_REG_END,
};
static const struct ob_option options[] = {
    { .name = "fail", .type = OB_OPTION_BOOL, .value = "off" },
    OB_OPTION_END,
};

OB_CLASS(working, .pci = { .vendor = 0x1234, .device = 1 }, .bars[0] = OB_BAR_REGS(0x1000, regs), .options = options,
         .scratch_size = sizeof(struct scratch), .ops = { .open = on_open, .run = on_run, .close = on_close });

static void test_begin_after_the_callback(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_working, NULL);
    for (unsigned i = 0; i < WORKERS; i++) {
        bench_write(&bench, 0, 0, i, 4);
        await(last->jobs[i].did);
        assert_int_equal(last->jobs[i].before_release, 0);
    }
    bench_write(&bench, 0, 0, WORKERS, 4);
    await(last->late.did);
    uint32_t value = 99;
    assert_int_equal(ob_raw_write(&bench.raw, 0, 0, &value, 4), EINVAL);
    bench_stop(&bench);
}

/* A device that cannot be opened takes its workers with it: they never ran. */
static void test_open_fails_with_workers(void **unused)
{
    struct ob_dev *dev;
    int before = count_descriptors();

    capture_begin();
    assert_int_equal(ob_dev_new(&ob_class_working, "fail=on", NULL, &dev), -EIO);
    free(capture_end());
    /* ops.close is not called: what open() took besides is its own affair. */
    assert_int_equal(count_descriptors(), before + 2 * WORKERS);
    for (int fd = 3; count_descriptors() > before; fd++)
        close(fd);
}

/* Each write is seen: wake-ups are not lost, however they meet polls, arms and sleeps. */
static void test_wakeups_are_not_lost(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_working, NULL);
    for (unsigned n = 1; n <= 500; n++) {
        for (unsigned i = 0; i < WORKERS; i++)
            bench_write(&bench, 0, 0, i, 4);
        for (unsigned i = 0; i < WORKERS; i++) {
            while (last->jobs[i].done != n)
                await(last->jobs[i].did);
        }
    }
    for (unsigned i = 0; i < WORKERS; i++)
        assert_true(last->jobs[i].arms > 0);
    bench_stop(&bench);
}

static void *waker(void *arg)
{
    struct job *job = arg;

    for (int i = 0; i < 20000; i++) {
        job->given++;
        ob_worker_wake(job->worker);
    }
    return NULL;
}

/* Two threads wake one worker at full speed, then stop: it has seen the last of it. */
static void test_wakeups_from_many_threads(void **unused)
{
    struct bench bench;
    pthread_t threads[2];

    bench_start(&bench, &ob_class_working, NULL);
    struct job *job = &last->jobs[0];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, waker, job), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    while (job->done != 40000)
        await(job->did);
    bench_stop(&bench);
}

/* An idle worker sleeps: it polls twice for each time that it is woken. */
static void test_idle_worker_sleeps(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_working, NULL);
    bench_write(&bench, 0, 0, 0, 4);
    while (last->jobs[0].done != 1)
        await(last->jobs[0].did);
    unsigned before = last->jobs[0].polls;
    for (int i = 0; i < 200; i++)
        bench_write(&bench, 0, 0, 1, 4);
    assert_true(last->jobs[0].polls <= before + 4);
    bench_stop(&bench);
}

static void test_descriptors(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_working, NULL);
    for (unsigned n = 1; n <= 200; n++) {
        for (unsigned i = 0; i < WORKERS; i++)
            assert_int_equal(eventfd_write(last->jobs[i].fd, 1), 0);
        for (unsigned i = 0; i < WORKERS; i++)
            while (last->jobs[i].readies != n)
                await(last->jobs[i].did);
    }
    bench_stop(&bench);
}

static void test_worker_that_fails_stops(void **unused)
{
    struct bench bench;

    bench_start(&bench, &ob_class_working, NULL);
    capture_begin();
    bench_write(&bench, 0, 4, 0, 4);
    bench_write(&bench, 0, 0, 1, 4); /* the other goes on */
    while (last->jobs[1].done != 1)
        await(last->jobs[1].did);
    bench_stop(&bench);
    char *text = capture_end();
    assert_non_null(strstr(text, "a worker stopped: Input/output error"));
    free(text);
}

/* --- Descriptors of the control loop ----------------------------------------------------------------------------- */

struct watching {
    int fds[3], done;
    unsigned calls[3], second;
};

static struct watching *watched;

static void second_ready(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct watching *w = ctx;

    (void)taken(fd);
    w->second++;
    (void)eventfd_write(w->done, 1);
}

/* Whichever of the first two comes first forgets the other, and changes the third. */
static void first_ready(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct watching *w = ctx;
    int i = fd == w->fds[1];

    (void)taken(fd);
    w->calls[i]++;
    if (ob_worker_fd(worker, w->fds[!i], 0, NULL, NULL) == 0)
        (void)ob_worker_fd(worker, w->fds[2], EPOLLIN, second_ready, w);
    (void)eventfd_write(w->done, 1);
}

static int watching_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct watching *w = ob_scratch(dev);
    struct ob_worker *control = ob_control(dev);

    watched = w;
    w->done = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    for (int i = 0; i < 3; i++)
        w->fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int err = ob_worker_fd(control, w->fds[0], EPOLLIN, first_ready, w);
    if (!err)
        err = ob_worker_fd(control, w->fds[1], EPOLLIN, first_ready, w);
    if (!err)
        err = ob_worker_fd(control, w->fds[2], EPOLLIN, first_ready, w);
    if (ob_worker_fd(control, -1, EPOLLIN, first_ready, w) != -EBADF ||
        ob_worker_fd(control, w->done, 0, NULL, NULL) != -ENOENT ||
        ob_worker_fd(control, w->done, EPOLLIN, NULL, NULL) != -EINVAL ||
        ob_worker_fd(control, 1 << 20, EPOLLIN, first_ready, w) != -EBADF)
        return -EPROTO;
    return err;
}

static void watching_close(struct ob_dev *dev)
{
    struct watching *w = ob_scratch(dev);

    for (int i = 0; i < 3; i++)
        close(w->fds[i]);
    close(w->done);
}

OB_CLASS(watching, .pci = { .vendor = 0x1234, .device = 2 }, .scratch_size = sizeof(struct watching),
         .ops = { .open = watching_open, .close = watching_close });

static void test_control_descriptors(void **unused)
{
    struct bench bench;

    bench_new(&bench, &ob_class_watching, NULL);
    /* Both are ready in one batch of events: the second is forgotten when its turn comes. */
    assert_int_equal(eventfd_write(watched->fds[0], 1), 0);
    assert_int_equal(eventfd_write(watched->fds[1], 1), 0);
    bench_run(&bench);
    assert_int_equal(ob_raw_handshake(&bench.raw), 0);
    await(watched->done);
    assert_int_equal(eventfd_write(watched->fds[2], 1), 0);
    await(watched->done);
    assert_int_equal(eventfd_write(bench.stop, 1), 0);
    assert_int_equal(pthread_join(bench.thread, NULL), 0);
    bench.running = false;
    assert_int_equal(watched->calls[0] + watched->calls[1], 1);
    assert_int_equal(watched->second, 1);
    bench_stop(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begin_after_the_callback), cmocka_unit_test(test_open_fails_with_workers),
        cmocka_unit_test(test_wakeups_are_not_lost),     cmocka_unit_test(test_wakeups_from_many_threads),
        cmocka_unit_test(test_idle_worker_sleeps),       cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_worker_that_fails_stops),  cmocka_unit_test(test_control_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
