/* The journal: rooms, moves, successors, and memory that is no journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "session/journal.h"

#define MAX  100000
#define TWIN 33000

/* Fills the room with a pattern by position. */
static void arrive(struct ob_journal *j, size_t n)
{
    struct ob_journal_header *h = j->header;

    for (size_t i = 0; i < n; i++)
        *ob_journal_in(j, h->in_tail + i) = (uint8_t)((h->in_tail + i) * 7);
    ob_journal_store(&h->in_tail, h->in_tail + n);
}

static void check(struct ob_journal *j, uint64_t from)
{
    for (uint64_t at = from; at < j->header->in_tail; at++)
        assert_int_equal(*ob_journal_in(j, at), (uint8_t)(at * 7));
}

static void test_in(void **state)
{
    struct ob_journal j;
    uint64_t executed = 0;

    (void)state;
    assert_int_equal(ob_journal_open(&j, -1, MAX, TWIN), 0);
    /* A message of the largest size always fits from where it begins; what is left stays as it is when it moves. */
    for (unsigned i = 0; i < 200; i++) {
        size_t room = ob_journal_in_room(&j, executed, MAX, true);
        assert_true(executed + MAX <= j.header->in_tail + room);
        assert_true(ob_journal_in(&j, j.header->in_tail) + room <= j.out);
        arrive(&j, room < 70001 ? room : 70001);
        check(&j, executed);
        executed = j.header->in_tail - (i * 7919) % 60000;
    }
    /* Run empty, it begins at its beginning again. */
    executed = j.header->in_tail;
    assert_int_equal(ob_journal_in_room(&j, executed, MAX, true), j.header->in_size);
    assert_ptr_equal(ob_journal_in(&j, executed), j.in);
    /* What may not move does not, and then there is an end. */
    arrive(&j, 10);
    size_t room = ob_journal_in_room(&j, executed, MAX, false);
    arrive(&j, room);
    assert_int_equal(ob_journal_in_room(&j, executed + 5, MAX, false), 0);
    assert_ptr_equal(ob_journal_in(&j, executed), j.in);
    check(&j, executed);
    ob_journal_close(&j);
}

/* Answers on the twin socket: one of the largest size always fits, and what is not done stays as it is. */
static void test_twin_in(void **state)
{
    struct ob_journal j;

    (void)state;
    assert_int_equal(ob_journal_open(&j, -1, MAX, TWIN), 0);
    struct ob_journal_twin *t = &j.header->twin;
    for (unsigned i = 0; i < 500; i++) {
        size_t room = ob_journal_twin_room(&j, TWIN), n = room < 20011 ? room : 20011;
        assert_true(t->in_done + TWIN <= t->in_tail + room);
        assert_true(ob_journal_twin_in(&j, t->in_tail) + room <= j.twin_out);
        for (size_t k = 0; k < n; k++)
            *ob_journal_twin_in(&j, t->in_tail + k) = (uint8_t)((t->in_tail + k) * 7);
        t->in_tail += n;
        for (uint64_t at = t->in_done; at < t->in_tail; at++)
            assert_int_equal(*ob_journal_twin_in(&j, at), (uint8_t)(at * 7));
        uint64_t left = (i * 7919) % TWIN; /* of a message that is not whole */
        if (left < t->in_tail - t->in_done)
            t->in_done = t->in_tail - left;
        else
            t->in_done = t->in_tail;
    }
    t->in_done = t->in_tail;
    assert_int_equal(ob_journal_twin_room(&j, TWIN), j.twin_size);
    assert_ptr_equal(ob_journal_twin_in(&j, t->in_tail), j.twin_in);
    assert_true(j.twin_out + j.twin_size <= (uint8_t *)j.header + j.mapped);
    ob_journal_close(&j);
}

static void test_out(void **state)
{
    struct ob_journal j;

    (void)state;
    assert_int_equal(ob_journal_open(&j, -1, MAX, TWIN), 0);
    assert_int_equal(ob_journal_out_room(&j, 0), j.header->out_size);
    assert_int_equal(ob_journal_out_room(&j, 1000), j.header->out_size - 1000); /* not sent yet */
    ob_journal_store(&j.header->out_sent, 999);
    assert_int_equal(ob_journal_out_room(&j, 1000), j.header->out_size - 1000);
    ob_journal_store(&j.header->out_sent, 1000);
    assert_int_equal(ob_journal_out_room(&j, 1000), j.header->out_size);
    assert_ptr_equal(ob_journal_out(&j, 1000), j.out);
    ob_journal_close(&j);
}

static void test_successor(void **state)
{
    struct ob_journal j, k;

    (void)state;
    assert_int_equal(ob_journal_open(&j, -1, MAX, TWIN), 0);
    arrive(&j, 5000);
    ob_journal_in_room(&j, 3000, MAX, true);
    assert_int_equal(ob_journal_open(&k, dup(j.fd), MAX, TWIN), 0);
    assert_int_equal(k.header->in_tail, 5000);
    check(&k, 3000);
    ob_journal_close(&j);
    ob_journal_close(&k);
}

/* Each field that would become a wild pointer. */
static void test_strangers(void **state)
{
    struct ob_journal j, k;
    int fd = memfd_create("no journal", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(ob_journal_open(&k, fd, MAX, TWIN), -EINVAL);
    assert_null(k.header);
    assert_int_equal(ob_journal_open(&j, -1, MAX, TWIN), 0);
    assert_int_equal(ftruncate(fd, (off_t)j.mapped), 0);
    assert_int_equal(ob_journal_open(&k, fd, MAX, TWIN), -EINVAL);
    assert_int_equal(close(fd), 0); /* it stayed ours */
    assert_int_equal(ob_journal_open(&k, j.fd, MAX + 5000, TWIN), -EINVAL);

    const struct ob_journal_header good = *j.header;
    struct ob_journal_header *h = j.header;
    uint64_t *fields[] = {
        &h->magic,        &h->in_size,      &h->out_size,      &h->connection,    &h->in_base,
        &h->in_tail,      &h->skip_from,    &h->out_base,      &h->out_sent,      &h->twin.in_base,
        &h->twin.in_done, &h->twin.in_tail, &h->twin.out_base, &h->twin.out_sent, &h->twin.out_tail
    };
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        *fields[i] = UINT64_MAX / 2;
        assert_int_equal(ob_journal_open(&k, j.fd, MAX, TWIN), -EINVAL);
        assert_null(k.header);
        *h = good;
    }
    ob_journal_close(&j);
}

static void test_skip(void **state)
{
    struct ob_journal j;

    (void)state;
    assert_int_equal(ob_journal_open(&j, -1, MAX, TWIN), 0);
    assert_int_equal(ob_journal_skip(&j, 0), 0);
    arrive(&j, 300);
    j.header->skip_from = 100;
    j.header->skip_until = 400;
    assert_int_equal(ob_journal_skip(&j, 50), 50);
    assert_int_equal(ob_journal_skip(&j, 100), 100); /* still to be refused */
    assert_int_equal(ob_journal_skip(&j, 116), 300);
    assert_int_equal(ob_journal_skip(&j, 300), 300);
    arrive(&j, 300);
    assert_int_equal(ob_journal_skip(&j, 300), 400);
    assert_int_equal(ob_journal_skip(&j, 400), 400);
    ob_journal_close(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in),        cmocka_unit_test(test_twin_in),   cmocka_unit_test(test_out),
        cmocka_unit_test(test_successor), cmocka_unit_test(test_strangers), cmocka_unit_test(test_skip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
