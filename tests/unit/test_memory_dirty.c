/* The log of written pages: against a model with every mix of page sizes, ranges, beginnings; its edges; and threads
 * that write while it is reported. */
#include "memory/dirty.h"
#include "memory/memory.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#define PAGE UINT64_C(4096)

static uint32_t seed = 1;

static uint64_t roll(uint64_t below)
{
    seed = seed * 1664525 + 1013904223;
    uint64_t high = seed;
    seed = seed * 1664525 + 1013904223;
    return (high << 32 | seed) % below;
}

static bool bit(const uint8_t *bitmap, uint64_t i)
{
    return bitmap[i / 8] >> i % 8 & 1;
}

/* --- Against a model: a byte for each page of a window of addresses ----------------------------------------------- */

#define SPAN  (UINT64_C(1) << 20) /* pages of 4096 in the model */
#define BASES 3
static const uint64_t bases[BASES] = { 0, UINT64_C(0x7ffff0000000), 0 - SPAN *PAGE };

/* What a report has to say, page of the log by page; and forgets. */
static void expect(uint8_t *model, uint64_t pages, uint64_t page, uint64_t base, struct ob_dirty_range range,
                   uint64_t size, const struct ob_dirty_range *only, unsigned n, uint8_t *bitmap)
{
    uint64_t last = range.iova + (range.len - 1);

    for (uint64_t p = 0; p < pages; p++) {
        uint64_t from = base + p * page, to = from + (page - 1), a = from, b = to;
        if (!model[p] || to < range.iova || from > last)
            continue;
        a = a < range.iova ? range.iova : a;
        b = b > last ? last : b;
        for (unsigned i = 0; i < n || (n == 0 && i == 0); i++) {
            uint64_t x = a, y = b;
            if (n > 0) {
                uint64_t end = only[i].iova + (only[i].len - 1);
                if (end < a || only[i].iova > b)
                    continue;
                x = x < only[i].iova ? only[i].iova : x;
                y = y > end ? end : y;
            }
            for (uint64_t k = (x - range.iova) / size; k <= (y - range.iova) / size; k++)
                bitmap[k / 8] |= (uint8_t)(1u << k % 8);
        }
        if (from >= range.iova && to <= last)
            model[p] = 0;
    }
}

static void one_model(uint64_t base, unsigned shift, bool dirty, bool limited)
{
    uint64_t page = UINT64_C(1) << shift, pages = SPAN * PAGE / page;
    uint8_t *model = malloc(pages), *got = malloc(SPAN / 4), *want = malloc(SPAN / 4);
    struct ob_dirty_range only[3] = { { base + 3 * page, 5 * page },
                                      { base + 8 * page, page },
                                      { base + pages / 2 * page, pages / 4 * page } };
    struct ob_dirty *log;

    assert_true(model && got && want);
    memset(model, dirty, pages);
    assert_int_equal(ob_dirty_new(&log, shift, only, limited ? 3 : 0, dirty), 0);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = roll(20); i > 0; i--) {
            uint64_t at = roll(SPAN * PAGE - 1), len = 1 + roll(roll(4) ? 3 * page : SPAN * PAGE / 3);
            if (len > SPAN * PAGE - at)
                len = SPAN * PAGE - at;
            ob_dirty_mark(log, (struct ob_dirty_range){ base + at, len });
            memset(model + at / page, 1, (at + len - 1) / page - at / page + 1);
        }
        uint64_t size = PAGE << roll(12), at = roll(SPAN * PAGE - 1), len = 1 + roll(SPAN * PAGE - at);
        if (roll(2)) { /* aligned, as most are */
            at = at / page * page;
            len = (len + page - 1) / page * page;
            len = len > SPAN * PAGE - at ? SPAN * PAGE - at : len;
        }
        struct ob_dirty_range range = { base + at, len };
        memset(got, 0, SPAN / 4);
        memset(want, 0, SPAN / 4);
        expect(model, pages, page, base, range, size, only, limited ? 3 : 0, want);
        ob_dirty_take(log, range, size, got);
        assert_memory_equal(got, want, SPAN / 4);
    }
    ob_dirty_free(log);
    free(model);
    free(got);
    free(want);
}

static void test_model(void **unused)
{
    static const unsigned shifts[] = { 12, 13, 16, 21 };

    for (unsigned b = 0; b < BASES; b++)
        for (unsigned s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++)
            for (unsigned kind = 0; kind < 4; kind++)
                one_model(bases[b], shifts[s], kind & 1, kind & 2);
}

/* --- Edges -------------------------------------------------------------------------------------------------------- */

static void test_whole_space(void **unused)
{
    struct ob_dirty *log;
    uint8_t bitmap[64] = { 0 };
    const struct ob_dirty_range all = { 0, UINT64_MAX };

    /* All of it in 512 bits: one page in each of two. */
    assert_int_equal(ob_dirty_new(&log, 12, NULL, 0, false), 0);
    ob_dirty_mark(log, (struct ob_dirty_range){ UINT64_MAX - 5000, 10 });
    ob_dirty_mark(log, (struct ob_dirty_range){ 0, 1 });
    ob_dirty_take(log, all, UINT64_C(1) << 55, bitmap);
    assert_true(bit(bitmap, 0) && bit(bitmap, 511));
    for (unsigned i = 1; i < 511; i++)
        assert_false(bit(bitmap, i));
    memset(bitmap, 0, sizeof(bitmap));
    ob_dirty_take(log, all, UINT64_C(1) << 55, bitmap);
    for (unsigned i = 0; i < 512; i++)
        assert_false(bit(bitmap, i));
    ob_dirty_free(log);
    /* All dirty, in no time and no memory; then all clean but the last page, which the range does not hold. */
    assert_int_equal(ob_dirty_new(&log, 12, NULL, 0, true), 0);
    ob_dirty_take(log, all, UINT64_C(1) << 55, bitmap);
    for (unsigned i = 0; i < 512; i++)
        assert_true(bit(bitmap, i));
    memset(bitmap, 0, sizeof(bitmap));
    ob_dirty_take(log, all, UINT64_C(1) << 55, bitmap);
    for (unsigned i = 0; i < 511; i++)
        assert_false(bit(bitmap, i));
    assert_true(bit(bitmap, 511));
    ob_dirty_free(log);
    assert_int_equal(ob_dirty_new(&log, 63, NULL, 0, false), 0);
    memset(bitmap, 0, sizeof(bitmap));
    ob_dirty_mark(log, (struct ob_dirty_range){ UINT64_C(1) << 63, 1 });
    ob_dirty_take(log, all, UINT64_C(1) << 63, bitmap);
    assert_int_equal(bitmap[0], 2);
    ob_dirty_free(log);
}

/* Pages far apart: there is no memory for them all, and what it says is too much, not too little. */
static void test_memory_is_bounded(void **unused)
{
    struct ob_dirty *log;
    uint8_t bitmap[8];

    assert_int_equal(ob_dirty_new(&log, 12, NULL, 0, false), 0);
    for (uint64_t i = 0; i < 40000; i++)
        ob_dirty_mark(log, (struct ob_dirty_range){ i << 38, 1 });
    for (uint64_t i = 0; i < 40000; i++) {
        memset(bitmap, 0, sizeof(bitmap));
        ob_dirty_take(log, (struct ob_dirty_range){ i << 38, PAGE }, PAGE, bitmap);
        assert_int_equal(bitmap[0], 1);
    }
    ob_dirty_free(log);
}

/* --- Guest memory ------------------------------------------------------------------------------------------------- */

static void test_pins_and_windows(void **unused)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);
    struct ob_memory *memory;
    struct ob_reader reader;
    struct ob_window window;
    struct iovec iov[2];
    uint32_t before[2], reading[2], pins[2];
    const struct ob_dirty_range all = { 0, 64 * PAGE };
    uint64_t bitmap = 0;

    assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
    assert_int_equal(ob_memory_new(&memory, 4), 0);
    assert_int_equal(ob_reader_add(ob_memory_epoch(memory), &reader), 0);
    ob_reader_online(&reader);
    assert_int_equal(ob_memory_map(memory, 0, 32 * PAGE, PROT_READ | PROT_WRITE, dup(fd), 0), 0);
    assert_int_equal(ob_memory_map(memory, 32 * PAGE, 32 * PAGE, PROT_READ | PROT_WRITE, fd, 32 * PAGE), 0);
    assert_int_equal(ob_memory_pin(&reader, memory, 31 * PAGE, 2 * PAGE, PROT_WRITE, iov, before, 2), 2);
    assert_int_equal(ob_memory_log_start(memory, 12, NULL, 0, false), 0);
    assert_int_equal(ob_memory_log_start(memory, 12, NULL, 0, false), -EBUSY);
    assert_int_equal(ob_memory_pin(&reader, memory, 0, 1, PROT_READ, iov, reading, 2), 1);
    assert_int_equal(ob_memory_pin(&reader, memory, 4 * PAGE, 1, PROT_WRITE, iov, pins, 2), 1);
    ob_memory_log_take(memory, all, PAGE, (uint8_t *)&bitmap);
    assert_int_equal(bitmap, UINT64_C(1) << 4);
    ob_memory_unpin(&reader, memory, before, 2);
    ob_memory_unpin(&reader, memory, reading, 1);
    ob_memory_unpin(&reader, memory, pins, 1); /* once more: it may have been written since */
    bitmap = 0;
    ob_memory_log_take(memory, all, PAGE, (uint8_t *)&bitmap);
    assert_int_equal(bitmap, UINT64_C(1) << 4 | UINT64_C(3) << 31);
    assert_int_equal(ob_window_open(memory, &window, 8 * PAGE, PAGE + 1, PROT_READ | PROT_WRITE), 0);
    for (int i = 0; i < 2; i++) {
        bitmap = 0;
        ob_memory_log_take(memory, all, PAGE, (uint8_t *)&bitmap);
        assert_int_equal(bitmap, UINT64_C(3) << 8);
    }
    ob_window_close(&window); /* and what was written in between */
    bitmap = 0;
    ob_memory_log_take(memory, all, PAGE, (uint8_t *)&bitmap);
    assert_int_equal(bitmap, UINT64_C(3) << 8);
    bitmap = 0;
    ob_memory_log_take(memory, all, PAGE, (uint8_t *)&bitmap);
    assert_int_equal(bitmap, 0);
    /* An old log stays until the reader has looked up. */
    ob_memory_log_stop(memory);
    assert_false(ob_memory_log_gone(memory));
    assert_int_equal(ob_memory_log_start(memory, 12, NULL, 0, false), -EBUSY);
    ob_reader_quiescent(&reader);
    assert_true(ob_memory_log_gone(memory));
    ob_reader_offline(&reader);
    assert_int_equal(ob_reader_remove(&reader), 0);
    ob_memory_free(memory);
}

/* --- Threads: each writes a page, marks it, and counts; whoever reports looks at the pages that are dirty --------- */

#define WRITERS      3
#define SHARED_PAGES 96 /* in two leaves */
static struct ob_dirty *shared_log;
static _Atomic uint32_t content[SHARED_PAGES], stop_writing;

static uint64_t address(unsigned page)
{
    return ((UINT64_C(1) << 15) - SHARED_PAGES / 2 + page) * PAGE;
}

static void *writer(void *arg)
{
    uint32_t state = (uint32_t)(uintptr_t)arg;

    while (!atomic_load(&stop_writing)) {
        state = state * 1664525 + 1013904223;
        unsigned page = (state >> 16) % SHARED_PAGES;
        atomic_fetch_add_explicit(&content[page], 1, memory_order_relaxed);
        ob_dirty_mark(shared_log, (struct ob_dirty_range){ address(page), 1 });
    }
    return NULL;
}

/* Copies what is said to be dirty; in the end the copy has to be the original. */
static void copy_dirty(uint32_t *copy)
{
    uint8_t bitmap[SHARED_PAGES / 8] = { 0 };

    ob_dirty_take(shared_log, (struct ob_dirty_range){ address(0), SHARED_PAGES * PAGE }, PAGE, bitmap);
    for (unsigned i = 0; i < SHARED_PAGES; i++)
        if (bit(bitmap, i))
            copy[i] = atomic_load_explicit(&content[i], memory_order_relaxed);
}

static void threads(bool dirty)
{
    pthread_t thread[WRITERS];
    uint32_t copy[SHARED_PAGES] = { 0 };

    memset(content, 0, sizeof(content));
    stop_writing = 0;
    assert_int_equal(ob_dirty_new(&shared_log, 12, NULL, 0, dirty), 0);
    for (uintptr_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, writer, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < 3000; i++)
        copy_dirty(copy);
    stop_writing = 1;
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    copy_dirty(copy);
    for (unsigned i = 0; i < SHARED_PAGES; i++)
        assert_int_equal(copy[i], content[i]);
    ob_dirty_free(shared_log);
}

static void test_threads(void **unused)
{
    threads(false);
    threads(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_whole_space),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_pins_and_windows),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
