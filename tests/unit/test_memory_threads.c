/* The guest's memory with workers: two readers translate, pin and follow windows while the control thread maps and
 * unmaps.
 *
 * Page i of the file holds `live` exactly while map i exists or may still be in use: the control thread writes it
 * before it maps, and takes it back only after the map is retired. So a reader that ever finds anything else there has
 * used a map for longer than it was told, or found one too early. */
#include "memory/memory.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE    UINT64_C(4096)
#define RW      (PROT_READ | PROT_WRITE)
#define MAPS    400u /* several levels of the tree */
#define CHANGES 20000u
#define PINS    8u
#define ROUNDS  20000u /* that each reader does at least */
#define WAITING 16u    /* unmaps that are not retired yet, at most */
#define LIVE    UINT64_C(0x1e55)

struct test {
    struct ob_memory *memory;
    struct ob_window window; /* over map 0 */
    _Atomic uint64_t *file;  /* the control thread's own mapping */
    atomic_bool stop;
    int fd;
};

struct worker {
    struct ob_reader reader;
    struct test *test;
    uint64_t seed;
    _Atomic uint64_t rounds;
    uint64_t translated, pinned, seen, wrong;
};

static uint64_t random64(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 16;
}

/* Whether the first word of the page is as it has to be. */
static void look(struct worker *w, void *page)
{
    if (atomic_load_explicit((_Atomic uint64_t *)page, memory_order_relaxed) != LIVE)
        w->wrong++;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct test *test = w->test;
    struct iovec held[PINS] = { 0 }, iov;
    uint32_t pins[PINS];
    void *ring;

    ob_reader_online(&w->reader);
    while (!atomic_load_explicit(&test->stop, memory_order_relaxed)) {
        uint64_t iova = random64(&w->seed) % MAPS * 2 * PAGE;
        unsigned i = (unsigned)(random64(&w->seed) % PINS);
        bool found = ob_memory_translate(test->memory, iova, PAGE, RW, &iov, 1) == 1;

        ring = ob_window_pointer(&test->window);
        if (random64(&w->seed) % 4 == 0)
            sched_yield(); /* give the control thread time to do wrong */
        if (found) {
            look(w, iov.iov_base);
            w->translated++;
        }
        if (ring) {
            look(w, ring);
            w->seen++;
        }
        if (held[i].iov_base) {
            look(w, held[i].iov_base);
            ob_memory_unpin(&w->reader, test->memory, &pins[i], 1);
            held[i].iov_base = NULL;
        } else if (ob_memory_pin(&w->reader, test->memory, iova, PAGE, RW, &held[i], &pins[i], 1) == 1) {
            w->pinned++;
        } else {
            held[i].iov_base = NULL;
        }
        ob_reader_quiescent(&w->reader);
        atomic_fetch_add_explicit(&w->rounds, 1, memory_order_relaxed);
        if (random64(&w->seed) % 64 == 0) {
            ob_reader_offline(&w->reader);
            sched_yield();
            ob_reader_online(&w->reader);
        }
    }
    for (unsigned i = 0; i < PINS; i++)
        if (held[i].iov_base)
            ob_memory_unpin(&w->reader, test->memory, &pins[i], 1);
    ob_reader_offline(&w->reader);
    return NULL;
}

struct control {
    struct test *test;
    bool mapped[MAPS];  /* from the map until it is retired */
    bool waiting[MAPS]; /* unmapped, not yet retired */
    struct ob_retired *retired[MAPS];
    unsigned waits, delayed;
};

static void control_map(struct control *c, unsigned i)
{
    atomic_store_explicit(&c->test->file[i * PAGE / 8], LIVE, memory_order_relaxed);
    assert_int_equal(ob_memory_map(c->test->memory, i * 2 * PAGE, PAGE, RW, dup(c->test->fd), i * PAGE), 0);
    c->mapped[i] = true;
}

/* Retires what is done; false if nothing was. */
static bool control_retire(struct control *c)
{
    bool any = false;

    for (unsigned i = 0; i < MAPS; i++) {
        if (!c->waiting[i] || !ob_memory_retired_done(c->retired[i]))
            continue;
        ob_memory_retire(c->retired[i]);
        atomic_store_explicit(&c->test->file[i * PAGE / 8], ~LIVE, memory_order_relaxed);
        c->waiting[i] = c->mapped[i] = false;
        c->waits--;
        any = true;
    }
    return any;
}

/* Sleeps until there are fewer than `most` unmaps to wait for. A lost wake-up is a test that never ends. */
static void control_wait(struct control *c, unsigned most)
{
    struct ob_epoch *epoch = ob_memory_epoch(c->test->memory);
    struct pollfd pollfd = { .fd = ob_epoch_wake_fd(epoch), .events = POLLIN };

    while (c->waits >= most) {
        if (control_retire(c))
            continue;
        c->delayed++;
        assert_int_equal(poll(&pollfd, 1, -1), 1);
        ob_epoch_clear(epoch);
    }
}

static void control_unmap(struct control *c, unsigned i)
{
    assert_int_equal(ob_memory_unmap(c->test->memory, i * 2 * PAGE, PAGE, &c->retired[i]), 0);
    c->waiting[i] = true;
    c->waits++;
}

static void changes_and_readers(void **state)
{
    struct test test = { 0 };
    struct control control = { .test = &test };
    static struct worker worker[2];
    pthread_t thread[2];
    uint64_t seed = 4711;

    memset(worker, 0, sizeof(worker));
    test.fd = memfd_create("threads", MFD_CLOEXEC);
    assert_true(test.fd >= 0);
    assert_int_equal(ftruncate(test.fd, MAPS * PAGE), 0);
    test.file = mmap(NULL, MAPS * PAGE, RW, MAP_SHARED, test.fd, 0);
    assert_true(test.file != MAP_FAILED);
    assert_int_equal(ob_memory_new(&test.memory, MAPS), 0);
    assert_int_equal(ob_window_open(test.memory, &test.window, 0, 64, RW), 0);
    for (unsigned i = 0; i < MAPS; i++)
        control_map(&control, i);
    for (unsigned i = 0; i < 2; i++) {
        worker[i].test = &test;
        worker[i].seed = i + 1;
        assert_int_equal(ob_reader_add(ob_memory_epoch(test.memory), &worker[i].reader), 0);
        assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (unsigned n = 0; n < CHANGES || worker[0].rounds < ROUNDS || worker[1].rounds < ROUNDS; n++) {
        unsigned i = n % 16 ? (unsigned)(random64(&seed) % MAPS) : 0; /* the window's map more often */

        if (!control.mapped[i])
            control_map(&control, i);
        else if (!control.waiting[i])
            control_unmap(&control, i);
        control_wait(&control, n % 4 ? WAITING : 1);
        if (n % 1000 == 0)
            ob_memory_trim(test.memory);
    }
    control_wait(&control, 1);
    atomic_store(&test.stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(worker[i].wrong, 0);
        assert_true(worker[i].translated && worker[i].pinned && worker[i].seen);
        assert_int_equal(ob_reader_remove(&worker[i].reader), 0);
    }
    assert_true(control.delayed > 0);
    ob_window_close(&test.window);
    ob_memory_free(test.memory);
    munmap((void *)test.file, MAPS * PAGE);
    close(test.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(changes_and_readers) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
