/* Interrupts raised by two workers while the control thread masks: none is lost. For the thread sanitizer, too.
 *
 * The windows that chance would hardly hit are tested without it: write() is ours here, and does what another thread
 * could do at the very moment that an eventfd is written. */
#include "test_pci_irqs.h"

#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>

static void (*meanwhile)(struct fixture *); /* once, after the next write */
static struct fixture *meanwhile_arg;

ssize_t write(int fd, const void *data, size_t len)
{
    void (*run)(struct fixture *) = meanwhile;
    ssize_t n = syscall(SYS_write, fd, data, len);

    if (run) {
        meanwhile = NULL;
        run(meanwhile_arg);
    }
    return n;
}

static void mask_and_raise(struct fixture *f)
{
    msix_control(f, ON | MASKALL);
    ob_irqs_pulse(f->irqs, 0);
}

static void raise_again(struct fixture *f)
{
    ob_irqs_pulse(f->irqs, 0);
}

static void end_level(struct fixture *f)
{
    level(f, 0, false);
}

static void restart_level_masked(struct fixture *f)
{
    msix_control(f, ON | MASKALL);
    level(f, 0, false);
    level(f, 0, true);
}

static void message_windows(void **state)
{
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, 0, 1, 0);
    meanwhile_arg = &f;
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 0);
    meanwhile = mask_and_raise;
    ob_irqs_pulse(f.irqs, 0);
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(pending_bits(&f), 1); /* the second one */
    msix_control(&f, ON);
    assert_int_equal(signalled(fd), 1);
    meanwhile = raise_again;
    ob_irqs_pulse(f.irqs, 0);
    assert_int_equal(signalled(fd), 2);
    assert_int_equal(pending_bits(&f), 0);
    meanwhile = end_level;
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 1);
    level(&f, 0, true); /* the end was not overwritten: this is a beginning */
    assert_int_equal(signalled(fd), 1);
    level(&f, 0, false);
    meanwhile = restart_level_masked;
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(pending_bits(&f), 1);
    msix_control(&f, ON);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    fixture_teardown(&f);
}

static void unmask(struct fixture *f)
{
    set_now(f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
}

static void serve(struct fixture *f)
{
    level(f, 0, false);
    unmask(f);
}

static void intx_windows(void **state)
{
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, 0, 0, 1);
    meanwhile_arg = &f;
    command(&f, 0);
    fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    /* The client is quick: served and unmasked before the writer has noted that it is masked. */
    meanwhile = serve;
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 1);
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 1);
    serve(&f);
    /* Unmasked with the line still high: signalled again, and masked again. */
    meanwhile = unmask;
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 2);
    ob_irqs_reevaluate(f.irqs);
    assert_int_equal(signalled(fd), 0);
    serve(&f);
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    fixture_teardown(&f);
}

/* Two workers and a control thread. A worker advances its counter and raises its vector and one that both share; the
 * control thread learns of counters by interrupts only, and is told of the last one however it masks meanwhile. */
struct race {
    struct fixture f;
    _Atomic unsigned counters[2];
    int acks[2];
    unsigned rounds;
};

struct worker {
    struct race *race;
    unsigned number;
    pthread_t thread;
};

static void *pulse_worker(void *arg)
{
    struct worker *worker = arg;
    struct race *race = worker->race;

    for (unsigned i = 0; i < race->rounds; i++) {
        atomic_fetch_add(&race->counters[worker->number], 1);
        ob_irqs_pulse(race->f.irqs, worker->number);
        ob_irqs_pulse(race->f.irqs, 2);
    }
    return NULL;
}

static void start(struct worker *workers, struct race *race, void *(*run)(void *))
{
    for (unsigned i = 0; i < 2; i++) {
        workers[i] = (struct worker){ .race = race, .number = i };
        assert_int_equal(pthread_create(&workers[i].thread, NULL, run, &workers[i]), 0);
    }
}

/* How often a vector was, or is about to be, raised. */
static unsigned count(struct race *race, unsigned vector)
{
    return vector < 2 ? atomic_load(&race->counters[vector])
                      : atomic_load(&race->counters[0]) + atomic_load(&race->counters[1]);
}

/* One of the ways to be in the way for a moment. */
static void disturb(struct fixture *f, unsigned step, int *fds)
{
    unsigned vector = step / 5 % 3;

    switch (step % 5) {
    case 0:
        msix_control(f, ON | MASKALL);
        msix_control(f, ON);
        break;
    case 1:
        write_control(f, vector, 1);
        write_control(f, vector, 0);
        break;
    case 2:
        command(f, 0);
        command(f, PCI_COMMAND_MASTER);
        break;
    case 3:
        take(f, VFIO_PCI_MSIX_IRQ_INDEX, vector);
        close(fds[vector]);
        fds[vector] = give(f, VFIO_PCI_MSIX_IRQ_INDEX, vector);
        break;
    case 4:
        ob_irqs_reevaluate(f->irqs);
        break;
    }
}

static void pulses_against_masks(void **state)
{
    struct race race = { .rounds = 3000 };
    struct worker workers[2];
    unsigned seen[3] = { 0 };
    int fds[3];

    (void)state;
    fixture_setup(&race.f, 0, FIXTURE_MSIX, 0);
    command(&race.f, PCI_COMMAND_MASTER);
    msix_control(&race.f, ON);
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = give(&race.f, VFIO_PCI_MSIX_IRQ_INDEX, i);
        write_control(&race.f, i, 0);
    }
    start(workers, &race, pulse_worker);
    for (unsigned step = 0; seen[0] < race.rounds || seen[1] < race.rounds || seen[2] < 2 * race.rounds; step++) {
        struct pollfd polls[3] = { { fds[0], POLLIN, 0 }, { fds[1], POLLIN, 0 }, { fds[2], POLLIN, 0 } };

        if (poll(polls, 3, 20000) <= 0)
            fail_msg("lost: told of %u, %u, %u", seen[0], seen[1], seen[2]);
        for (unsigned i = 0; i < 3; i++) {
            if (signalled(fds[i]))
                seen[i] = count(&race, i);
        }
        if (step < 1000) {
            disturb(&race.f, step, fds);
            if (step % 5 == 3) /* the old eventfd took with it what it was told: look, as a client would */
                seen[step / 5 % 3] = count(&race, step / 5 % 3);
        }
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    assert_int_equal(pending_bits(&race.f), 0);
    for (unsigned i = 0; i < 3; i++)
        close(fds[i]);
    fixture_teardown(&race.f);
}

static void *level_worker(void *arg)
{
    struct worker *worker = arg;
    struct race *race = worker->race;
    uint64_t ack;

    for (unsigned i = 0; i < race->rounds; i++) {
        ob_irqs_level(race->f.irqs, worker->number, true);
        if (read(race->acks[worker->number], &ack, sizeof(ack)) != sizeof(ack))
            return worker;
    }
    return NULL;
}

/* Each worker raises its level and waits until the driver has dealt with it; the driver is woken by INTx only. */
static void levels_against_masks(void **state)
{
    struct race race = { .rounds = 2000 };
    struct worker workers[2];
    unsigned served[2] = { 0 };
    void *failed;
    int fd;

    (void)state;
    fixture_setup(&race.f, 0, 2, 1);
    command(&race.f, 0);
    for (unsigned i = 0; i < 2; i++)
        race.acks[i] = eventfd(0, EFD_CLOEXEC);
    fd = give(&race.f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    start(workers, &race, level_worker);
    for (unsigned step = 0; served[0] < race.rounds || served[1] < race.rounds; step++) {
        struct pollfd wait = { fd, POLLIN, 0 };
        struct ob_irq_state *durable = race.f.state;

        if (poll(&wait, 1, 20000) <= 0)
            fail_msg("lost: served %u and %u", served[0], served[1]);
        signalled(fd);
        for (unsigned i = 0; i < 2; i++)
            if (atomic_load(&durable->vectors[i].word) & OB_IRQ_LEVEL) {
                uint64_t one = 1;

                level(&race.f, i, false);
                served[i]++;
                assert_int_equal(write(race.acks[i], &one, sizeof(one)), sizeof(one));
            }
        command(&race.f, step % 2 ? PCI_COMMAND_INTX_DISABLE : PCI_COMMAND_MASTER);
        if (step % 3 == 0)
            set_now(&race.f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_MASK);
        set_now(&race.f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
        command(&race.f, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(workers[i].thread, &failed);
        assert_null(failed);
        close(race.acks[i]);
    }
    close(fd);
    fixture_teardown(&race.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_windows),
        cmocka_unit_test(intx_windows),
        cmocka_unit_test(pulses_against_masks),
        cmocka_unit_test(levels_against_masks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
