/* The vault: what is committed is found again, what is not never happened, whichever instruction was the last. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/vault.h"

#define VECTORS 70
#define WORDS   2

static const struct ob_vault_layout layout = {
    .part = { 300, 256, 16, 40, 24 }, .signals = VECTORS, .irqs = 64, .hash = 42
};

/* What a vault should hold. */
struct model {
    uint8_t parts[OB_PARTS][300];
    struct ob_position position;
    uint64_t intents[3 * WORDS];
    bool due, reset; /* interrupts that are not out */
};

static uint32_t seed;

static uint32_t roll(uint32_t n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static void open_vault(struct ob_vault *v, int fd, struct ob_position *position)
{
    assert_int_equal(ob_vault_open(v, fd, &layout, position), 0);
}

/* As a successor finds it. */
static bool same(int fd, const struct model *m)
{
    struct ob_vault v;
    struct ob_position position;
    bool equal = true;

    open_vault(&v, dup(fd), &position);
    for (int i = 0; i < OB_PARTS; i++)
        equal = equal && memcmp(ob_vault_part(&v, i), m->parts[i], layout.part[i]) == 0;
    equal = equal && position.executed == m->position.executed && position.part == m->position.part &&
            position.out_tail == m->position.out_tail;
    equal = equal && v.has_intents == m->due && v.reset_irqs == m->reset;
    if (m->due)
        equal = equal && memcmp(v.intents.set, m->intents, sizeof(m->intents)) == 0;
    ob_vault_close(&v);
    return equal;
}

/* Changes some of live, and of what it is to become. */
static void change(struct ob_vault *v, struct model *m)
{
    for (int i = 0; i < OB_PARTS; i++) {
        if (roll(2))
            continue;
        uint8_t *live = ob_vault_part(v, i);
        for (unsigned n = roll(5); n > 0; n--) {
            unsigned at = roll((uint32_t)layout.part[i]);
            live[at] = m->parts[i][at] = (uint8_t)roll(256);
        }
        v->dirty[i] = true;
    }
    memset(m->intents, 0, sizeof(m->intents));
    m->due = roll(3) == 0;
    m->reset = roll(5) == 0;
    v->reset_irqs = m->reset;
    v->has_intents = m->due;
    if (m->due)
        for (int i = 0; i < 3 * WORDS; i++)
            v->intents.set[i] = m->intents[i] = roll(1 << 20);
    m->position =
        (struct ob_position){ .executed = roll(1000), .out_tail = roll(1000), .out_fds = -1, .part = roll(9) };
}

/* Random commits, rollbacks, deliveries and successors. */
static void test_model(void **state)
{
    struct ob_vault v;
    struct ob_position position;
    static struct model now, next;
    struct ob_intents due;
    bool reset;

    (void)state;
    memset(&now, 0, sizeof(now));
    seed = 1;
    open_vault(&v, -1, &position);
    assert_false(ob_vault_used(&v));
    assert_int_equal(position.out_fds, -1);
    ob_vault_commit(&v, &position);
    for (int i = 0; i < 3000; i++) {
        next = now;
        change(&v, &next);
        if (roll(4) == 0) {
            ob_vault_rollback(&v);
            assert_false(v.has_intents || v.reset_irqs);
            for (int p = 0; p < OB_PARTS; p++)
                assert_memory_equal(ob_vault_part(&v, p), now.parts[p], layout.part[p]);
        } else {
            ob_vault_commit(&v, &next.position);
            now = next;
        }
        if (roll(8) == 0)
            assert_true(same(v.fd, &now));
        if (roll(2)) {
            assert_int_equal(ob_vault_unsignalled(&v, &due, &reset), now.due || now.reset);
            ob_vault_signalled(&v);
            now.due = now.reset = false;
            assert_false(ob_vault_unsignalled(&v, &due, &reset));
        }
        if (roll(10) == 0) { /* a successor, whose first commit delivers what is due */
            int fd = dup(v.fd);
            ob_vault_close(&v);
            open_vault(&v, fd, &position);
            assert_true(ob_vault_used(&v));
            ob_vault_commit(&v, &position);
            assert_true(same(v.fd, &now));
        }
        if (!(now.due || now.reset))
            continue;
        ob_vault_signalled(&v);
        now.due = now.reset = false;
    }
    ob_vault_close(&v);
}

/* Whether the memory, as it is at this moment, is the old state (0) or the new one (1). */
static int which(const uint8_t *memory, size_t size, const struct model *old, const struct model *new)
{
    int fd = memfd_create("copy", MFD_CLOEXEC);

    assert_int_equal(write(fd, memory, size), size);
    bool is_old = same(fd, old), is_new = same(fd, new);
    close(fd);
    assert_true(is_old != is_new);
    return is_new;
}

static void traced_commit(struct ob_vault *v, const struct ob_position *position)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(2);
    raise(SIGSTOP);
    ob_vault_commit(v, position);
    _exit(0);
}

/* A commit, stopped after each of its instructions. */
static void step_through(struct ob_vault *v, const struct model *old, const struct model *new)
{
    uint8_t *memory = mmap(NULL, v->size, PROT_READ, MAP_SHARED, v->fd, 0);
    uint8_t *last = calloc(1, v->size);
    unsigned changes = 0;
    int status, now = 0;

    assert_ptr_not_equal(memory, MAP_FAILED);
    pid_t pid = fork();
    if (pid == 0)
        traced_commit(v, &new->position);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status))
        skip(); /* tracing is forbidden here */
    memcpy(last, memory, v->size);
    assert_int_equal(which(memory, v->size, old, new), 0);
    while (WIFSTOPPED(status)) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (memcmp(last, memory, v->size) == 0)
            continue;
        memcpy(last, memory, v->size);
        int found = which(memory, v->size, old, new);
        assert_true(found >= now);
        now = found;
        changes++;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(now, 1);
    assert_true(changes > 3);
    free(last);
    munmap(memory, v->size);
}

static void test_every_instruction(void **state)
{
    struct ob_vault v;
    struct ob_position position;
    static struct model old, new;

    (void)state;
    seed = 7;
    for (int i = 0; i < 6; i++) {
        memset(&old, 0, sizeof(old));
        open_vault(&v, -1, &position);
        ob_vault_commit(&v, &position);
        for (int k = 0; k <= i; k++) {
            change(&v, &old);
            ob_vault_commit(&v, &old.position);
        }
        new = old;
        change(&v, &new);
        v.dirty[OB_PART_STATE] = true;
        ((uint8_t *)ob_vault_part(&v, OB_PART_STATE))[0] = new.parts[0][0] = (uint8_t)(old.parts[0][0] + 1);
        new.position.executed = old.position.executed + 1;
        step_through(&v, &old, &new);
        ob_vault_close(&v);
    }
}

static void test_strangers(void **state)
{
    struct ob_vault_layout other = layout;
    struct ob_vault v, w;
    struct ob_position position;
    int fd = memfd_create("no vault", MFD_CLOEXEC);

    (void)state;
    open_vault(&v, -1, &position);
    assert_int_equal(ob_vault_open(&w, fd, &layout, &position), -EINVAL);
    assert_int_equal(ftruncate(fd, (off_t)v.size), 0);
    assert_int_equal(ob_vault_open(&w, fd, &layout, &position), -EINVAL);
    close(fd);
    other.hash++;
    fd = dup(v.fd);
    assert_int_equal(ob_vault_open(&w, fd, &other, &position), -EINVAL);
    other = layout;
    other.part[OB_PART_STATE] += 4096;
    assert_int_equal(ob_vault_open(&w, fd, &other, &position), -EINVAL);
    assert_int_equal(close(fd), 0); /* it stayed ours */
    ob_vault_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_every_instruction),
        cmocka_unit_test(test_strangers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
