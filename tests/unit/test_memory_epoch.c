/* Epochs: who delays whom, and when the wake descriptor says so. One thread plays all parts, in a known order. */
#include "memory/epoch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct ob_epoch *epoch;
    struct ob_reader a, b;
};

static int set_up(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    assert_int_equal(ob_epoch_new(&f.epoch, 4), 0);
    assert_int_equal(ob_reader_add(f.epoch, &f.a), 0);
    assert_int_equal(ob_reader_add(f.epoch, &f.b), 0);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ob_reader_remove(&f->a), 0);
    assert_int_equal(ob_reader_remove(&f->b), 0);
    ob_epoch_free(f->epoch);
    return 0;
}

/* How many writes the wake descriptor has had since. */
static uint64_t wakes(struct fixture *f)
{
    uint64_t count = 0;

    if (read(ob_epoch_wake_fd(f->epoch), &count, sizeof(count)) < 0)
        assert_int_equal(errno, EAGAIN);
    return count;
}

static void sleepers_delay_nobody(void **state)
{
    struct fixture *f = *state;
    uint64_t token = ob_epoch_start(f->epoch);

    assert_true(ob_epoch_passed(f->epoch, token));
    ob_reader_online(&f->a);
    assert_true(ob_epoch_passed(f->epoch, token));
    token = ob_epoch_start(f->epoch);
    assert_false(ob_epoch_passed(f->epoch, token));
    ob_reader_offline(&f->a);
    assert_int_equal(wakes(f), 1);
    assert_true(ob_epoch_passed(f->epoch, token));
    ob_reader_online(&f->a); /* back, and newer than the token */
    assert_true(ob_epoch_passed(f->epoch, token));
    ob_reader_offline(&f->a);
    assert_int_equal(wakes(f), 0);
}

static void everybody_must_pass(void **state)
{
    struct fixture *f = *state;
    uint64_t first, second;

    ob_reader_online(&f->a);
    ob_reader_online(&f->b);
    first = ob_epoch_start(f->epoch);
    ob_reader_quiescent(&f->a);
    assert_false(ob_epoch_passed_quietly(f->epoch, first));
    second = ob_epoch_start(f->epoch);
    ob_reader_quiescent(&f->b);
    assert_int_equal(wakes(f), 0); /* nobody asked to be woken */
    assert_true(ob_epoch_passed_quietly(f->epoch, first));
    assert_false(ob_epoch_passed_quietly(f->epoch, second));
    ob_reader_quiescent(&f->b);
    assert_false(ob_epoch_passed(f->epoch, second));
    ob_reader_quiescent(&f->a);
    assert_int_equal(wakes(f), 1);
    assert_true(ob_epoch_passed(f->epoch, second));
    ob_reader_quiescent(&f->a);
    ob_reader_quiescent(&f->b);
    assert_int_equal(wakes(f), 0);
}

/* One write for a wait, not one for each reader; and asking again arms it again. */
static void wakes_are_few(void **state)
{
    struct fixture *f = *state;
    uint64_t token;

    ob_reader_online(&f->a);
    ob_reader_online(&f->b);
    token = ob_epoch_start(f->epoch);
    assert_false(ob_epoch_passed(f->epoch, token));
    ob_reader_quiescent(&f->a);
    ob_reader_quiescent(&f->b);
    assert_int_equal(wakes(f), 1);
    assert_true(ob_epoch_passed(f->epoch, token));

    token = ob_epoch_start(f->epoch);
    assert_false(ob_epoch_passed(f->epoch, token));
    ob_reader_quiescent(&f->a);
    ob_epoch_clear(f->epoch);
    assert_int_equal(wakes(f), 0);
    assert_false(ob_epoch_passed(f->epoch, token));
    ob_reader_quiescent(&f->b);
    assert_int_equal(wakes(f), 1);
    assert_true(ob_epoch_passed(f->epoch, token));
}

static void a_removed_reader_is_gone(void **state)
{
    struct fixture *f = *state;
    struct ob_reader extra = { 0 };
    uint64_t token;

    assert_int_equal(ob_reader_add(f->epoch, &extra), 0);
    ob_reader_online(&extra);
    token = ob_epoch_start(f->epoch);
    assert_false(ob_epoch_passed_quietly(f->epoch, token));
    assert_int_equal(ob_reader_remove(&extra), 0);
    assert_true(ob_epoch_passed_quietly(f->epoch, token));
}

static void counters(void **state)
{
    struct fixture *f = *state;
    uint64_t token;

    ob_reader_online(&f->a);
    ob_reader_online(&f->b);
    ob_reader_raise(&f->a, 3);
    ob_reader_raise(&f->a, 3);
    ob_reader_raise(&f->b, 3);
    ob_reader_raise(&f->b, 0);
    assert_int_equal(ob_epoch_count(f->epoch, 3), 3);
    assert_int_equal(ob_epoch_count(f->epoch, 0), 1);
    assert_int_equal(ob_epoch_count(f->epoch, 1), 0);
    ob_reader_lower(&f->a, 3);
    ob_reader_quiescent(&f->a);
    assert_int_equal(wakes(f), 0); /* not watched */
    token = ob_epoch_watch(f->epoch);
    ob_reader_quiescent(&f->a);
    ob_reader_quiescent(&f->b);
    assert_true(ob_epoch_passed(f->epoch, token));
    ob_reader_quiescent(&f->a);
    assert_int_equal(wakes(f), 0); /* nothing lowered since */
    ob_reader_lower(&f->a, 3);
    assert_int_equal(wakes(f), 0);
    ob_reader_quiescent(&f->a);
    assert_int_equal(wakes(f), 1);
    ob_reader_quiescent(&f->a);
    assert_int_equal(wakes(f), 0);
    ob_reader_lower(&f->b, 3);
    ob_reader_offline(&f->b);
    assert_int_equal(wakes(f), 1);
    ob_reader_online(&f->b);
    ob_epoch_unwatch(f->epoch);
    ob_reader_lower(&f->b, 0);
    ob_reader_quiescent(&f->b);
    assert_int_equal(wakes(f), 0);
    assert_int_equal(ob_epoch_count(f->epoch, 3), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sleepers_delay_nobody),
        TEST(everybody_must_pass),
        TEST(wakes_are_few),
        TEST(a_removed_reader_is_gone),
        TEST(counters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
