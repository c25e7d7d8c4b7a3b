/* GET_IRQ_INFO and SET_IRQS: every combination of index, data, action, range and descriptors, and hostile descriptors.
 */
#include "test_pci_irqs.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

enum {
    NONE = VFIO_IRQ_SET_DATA_NONE,
    BOOL = VFIO_IRQ_SET_DATA_BOOL,
    EVENTFD = VFIO_IRQ_SET_DATA_EVENTFD,
    MASK = VFIO_IRQ_SET_ACTION_MASK,
    UNMASK = VFIO_IRQ_SET_ACTION_UNMASK,
    TRIGGER = VFIO_IRQ_SET_ACTION_TRIGGER,
    INTX = VFIO_PCI_INTX_IRQ_INDEX,
    MSI = VFIO_PCI_MSI_IRQ_INDEX,
    MSIX = VFIO_PCI_MSIX_IRQ_INDEX,
    ERR = VFIO_PCI_ERR_IRQ_INDEX,
    REQ = VFIO_PCI_REQ_IRQ_INDEX,
};

static const unsigned counts[] = { 1, FIXTURE_MSI, FIXTURE_MSIX, 1, 1 };

static void info(void **state)
{
    static const uint32_t flags[] = {
        VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED,
        VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE,
        VFIO_IRQ_INFO_EVENTFD,
        VFIO_IRQ_INFO_EVENTFD,
        VFIO_IRQ_INFO_EVENTFD,
    };
    struct vfio_irq_info got = { 0 };
    struct fixture f;

    (void)state;
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    for (got.index = 0; got.index < 5; got.index++) {
        assert_int_equal(ob_irqs_info(f.irqs, &got), 0);
        assert_int_equal(got.count, counts[got.index]);
        assert_int_equal(got.flags, flags[got.index]);
    }
    assert_int_equal(ob_irqs_info(f.irqs, &got), -EINVAL);
    got.index = UINT32_MAX;
    assert_int_equal(ob_irqs_info(f.irqs, &got), -EINVAL);
    fixture_teardown(&f);
    fixture_setup(&f, 0, 0, 0);
    for (got.index = INTX; got.index <= MSIX; got.index++) {
        assert_int_equal(ob_irqs_info(f.irqs, &got), 0);
        assert_int_equal(got.count | got.flags, 0);
        assert_int_equal(ob_irqs_set(f.irqs, got.index, 0, 0, NONE | TRIGGER, NULL, NULL, 0), -EINVAL);
    }
    fixture_teardown(&f);
}

/* What is allowed, as a list; all else is -EINVAL. */
static bool allowed(uint32_t index, uint32_t start, uint32_t count, uint32_t flags, unsigned nfds)
{
    bool in_range = index < 5 && count > 0 && (uint64_t)start + count <= counts[index];

    if (index < 5 && flags == (NONE | TRIGGER) && start == 0 && count == 0)
        return nfds == 0;
    if (!in_range)
        return false;
    switch (flags) {
    case NONE | MASK:
    case NONE | UNMASK:
    case BOOL | MASK:
    case BOOL | UNMASK:
        return index == INTX && nfds == 0;
    case EVENTFD | MASK:
    case EVENTFD | UNMASK:
        return index == INTX && (nfds == 0 || nfds == count);
    case NONE | TRIGGER:
    case BOOL | TRIGGER:
        return nfds == 0;
    case EVENTFD | TRIGGER:
        return nfds == 0 || nfds == count;
    }
    return false;
}

static void try_one(struct fixture *f, uint32_t index, uint32_t start, uint32_t count, uint32_t flags, unsigned nfds)
{
    static const uint8_t bools[8] = { 1, 0, 1, 0, 1, 0, 1, 0 };
    bool expected = allowed(index, start, count, flags, nfds);
    int fds[8], result;

    for (unsigned i = 0; i < nfds; i++)
        fds[i] = new_eventfd();
    result = ob_irqs_set(f->irqs, index, start, count, flags, bools, fds, nfds);
    if (result != (expected ? 0 : -EINVAL))
        fail_msg("index %u start %u count %u flags 0x%x, %u descriptors: %d", index, start, count, flags, nfds, result);
    /* Taken all, or none. */
    for (unsigned i = 0; i < nfds; i++)
        if (expected)
            assert_int_equal(fds[i], -1);
        else
            close(fds[i]);
}

static void every_combination(void **state)
{
    struct fixture f;
    int old[64];
    unsigned n;

    (void)state;
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    for (uint32_t index = 0; index < 7; index++)
        for (uint32_t flags = 0; flags < 128; flags++)
            for (uint32_t start = 0; start < 5; start++)
                for (uint32_t count = 0; count < 5; count++) {
                    for (unsigned nfds = 0; nfds <= (flags & EVENTFD ? count + 1 : 1); nfds++)
                        try_one(&f, index, start, count, flags, nfds);
                    while ((n = ob_irqs_take_retired(f.irqs, old, 64)))
                        for (unsigned i = 0; i < n; i++)
                            close(old[i]);
                }
    for (uint32_t index = 0; index < 5; index++) {
        try_one(&f, index, 1, UINT32_MAX, NONE | TRIGGER, 0);
        try_one(&f, index, UINT32_MAX, 1, NONE | TRIGGER, 0);
        try_one(&f, index, UINT32_MAX, UINT32_MAX, EVENTFD | TRIGGER, 0);
        try_one(&f, index, 0, 1, UINT32_MAX, 0);
        try_one(&f, index, 0, 1, 1u << 31 | NONE | TRIGGER, 0);
    }
    try_one(&f, UINT32_MAX, 0, 1, NONE | TRIGGER, 0);
    fixture_teardown(&f);
}

/* As QEMU does it: de-assign, assign one by one, replace, take away, disable. */
static void assign_and_disable(void **state)
{
    struct fixture f;
    int first[FIXTURE_MSIX], second, old[8], one[2] = { new_eventfd(), -1 };

    (void)state;
    one[1] = dup(one[0]);
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    f.open_before -= 2;
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    take(&f, MSIX, 0);
    for (unsigned i = 0; i < FIXTURE_MSIX; i++)
        first[i] = give(&f, MSIX, i);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 8), 0);
    second = give(&f, MSIX, 1);
    ob_irqs_pulse(f.irqs, 1);
    assert_int_equal(signalled(first[1]), 0);
    assert_int_equal(signalled(second), 1);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 8), 1);
    close(old[0]);
    take(&f, MSIX, 1);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 1), 1);
    close(old[0]);
    ob_irqs_pulse(f.irqs, 1);
    assert_int_equal(signalled(second), 0);
    /* Two at once, of the same file. */
    assert_int_equal(ob_irqs_set(f.irqs, MSIX, 1, 2, EVENTFD | TRIGGER, NULL, one, 2), 0);
    assert_true(one[0] == -1 && one[1] == -1);
    assert_int_equal(ob_irqs_set(f.irqs, MSIX, 0, 0, NONE | TRIGGER, NULL, NULL, 0), 0);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 3), 3);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old + 3, 5), 1);
    for (unsigned i = 0; i < 4; i++)
        close(old[i]);
    ob_irqs_pulse(f.irqs, 0);
    assert_int_equal(signalled(first[0]), 0);
    assert_int_equal(pending_bits(&f), 1);
    for (unsigned i = 0; i < FIXTURE_MSIX; i++)
        close(first[i]);
    close(second);
    fixture_teardown(&f);
}

/* TRIGGER with NONE and BOOL signals the eventfds themselves, whatever is masked or off. */
static void loopback(void **state)
{
    static const uint8_t bools[FIXTURE_MSIX] = { 1, 0, 0xff };
    struct fixture f;
    int fds[FIXTURE_MSIX], other[3];

    (void)state;
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    for (unsigned i = 0; i < FIXTURE_MSIX; i++)
        fds[i] = give(&f, MSIX, i);
    assert_int_equal(ob_irqs_set(f.irqs, MSIX, 0, 3, BOOL | TRIGGER, bools, NULL, 0), 0);
    for (unsigned i = 0; i < FIXTURE_MSIX; i++)
        assert_int_equal(signalled(fds[i]), i != 1);
    assert_int_equal(ob_irqs_set(f.irqs, MSIX, 1, 2, NONE | TRIGGER, NULL, NULL, 0), 0);
    for (unsigned i = 0; i < FIXTURE_MSIX; i++)
        assert_int_equal(signalled(fds[i]), i > 0);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t index = (uint32_t[]){ INTX, ERR, REQ }[i];

        set_now(&f, index, TRIGGER); /* nobody is there */
        other[i] = give(&f, index, 0);
        set_now(&f, index, TRIGGER);
        assert_int_equal(signalled(other[i]), 1);
        take(&f, index, 0);
        set_now(&f, index, TRIGGER);
        assert_int_equal(signalled(other[i]), 0);
        close(other[i]);
    }
    assert_int_equal(pending_bits(&f), 0);
    for (unsigned i = 0; i < FIXTURE_MSIX; i++)
        close(fds[i]);
    fixture_teardown(&f);
}

static void mask_by_booleans(void **state)
{
    static const uint8_t no = 0, yes = 2;
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, 0, 0, 1);
    command(&f, 0);
    fd = give(&f, INTX, 0);
    assert_int_equal(ob_irqs_set(f.irqs, INTX, 0, 1, BOOL | MASK, &no, NULL, 0), 0);
    ob_irqs_level(f.irqs, 0, true);
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(ob_irqs_set(f.irqs, INTX, 0, 1, BOOL | UNMASK, &no, NULL, 0), 0);
    assert_int_equal(signalled(fd), 0);
    assert_int_equal(ob_irqs_set(f.irqs, INTX, 0, 1, BOOL | UNMASK, &yes, NULL, 0), 0);
    assert_int_equal(signalled(fd), 1);
    ob_irqs_level(f.irqs, 0, false);
    set_now(&f, INTX, UNMASK);
    assert_int_equal(ob_irqs_set(f.irqs, INTX, 0, 1, BOOL | MASK, &yes, NULL, 0), 0);
    ob_irqs_level(f.irqs, 0, true);
    assert_int_equal(signalled(fd), 0);
    /* Taking the eventfd away ends the mask; the next one is signalled at once. */
    take(&f, INTX, 0);
    close(fd);
    fd = give(&f, INTX, 0);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    fixture_teardown(&f);
}

static void client_writes(int fd)
{
    uint64_t one = 1;

    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

/* Under KVM: the client unmasks, or masks, by writing an eventfd, which is polled. */
static void mask_by_eventfds(void **state)
{
    struct fixture f;
    int fd, give_away[2], mine[2], old[4];

    (void)state;
    fixture_setup(&f, 0, 0, 1);
    command(&f, 0);
    fd = give(&f, INTX, 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ob_irqs_poll_fd(f.irqs, i), -1);
        assert_int_equal(ob_irqs_poll_event(f.irqs, i), 0);
        give_away[i] = eventfd(0, EFD_CLOEXEC); /* in blocking mode */
        mine[i] = dup(give_away[i]);
        assert_int_equal(
            ob_irqs_set(f.irqs, INTX, 0, 1, EVENTFD | (i == OB_IRQ_POLL_MASK ? MASK : UNMASK), NULL, &give_away[i], 1),
            0);
        assert_true(ob_irqs_poll_fd(f.irqs, i) >= 0);
    }
    ob_irqs_level(f.irqs, 0, true);
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(ob_irqs_poll_event(f.irqs, OB_IRQ_POLL_UNMASK), 0); /* nothing there: no unmask, no hang */
    assert_int_equal(signalled(fd), 0);
    client_writes(mine[OB_IRQ_POLL_UNMASK]);
    assert_int_equal(ob_irqs_poll_event(f.irqs, OB_IRQ_POLL_UNMASK), 0);
    assert_int_equal(signalled(fd), 1);
    ob_irqs_level(f.irqs, 0, false);
    client_writes(mine[OB_IRQ_POLL_UNMASK]);
    assert_int_equal(ob_irqs_poll_event(f.irqs, OB_IRQ_POLL_UNMASK), 0);
    client_writes(mine[OB_IRQ_POLL_MASK]);
    assert_int_equal(ob_irqs_poll_event(f.irqs, OB_IRQ_POLL_MASK), 0);
    ob_irqs_level(f.irqs, 0, true);
    assert_int_equal(signalled(fd), 0);
    client_writes(mine[OB_IRQ_POLL_UNMASK]);
    assert_int_equal(ob_irqs_poll_event(f.irqs, OB_IRQ_POLL_UNMASK), 0);
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(ob_irqs_set(f.irqs, INTX, 0, 1, EVENTFD | UNMASK, NULL, NULL, 0), 0);
    assert_int_equal(ob_irqs_poll_fd(f.irqs, OB_IRQ_POLL_UNMASK), -1);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 4), 1);
    close(old[0]);
    ob_irqs_disconnect(f.irqs);
    assert_int_equal(ob_irqs_poll_fd(f.irqs, OB_IRQ_POLL_MASK), -1);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 4), 2);
    close(old[0]);
    close(old[1]);
    close(mine[0]);
    close(mine[1]);
    close(fd);
    fixture_teardown(&f);
}

/* What is no eventfd is refused, and nothing of that request is done. */
static void foreign_descriptors(void **state)
{
    struct fixture f;
    int fds[2], pipes[2], file, number, fd;

    (void)state;
    fixture_setup(&f, 0, FIXTURE_MSIX, 1);
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    fd = give(&f, MSIX, 0);
    assert_int_equal(pipe(pipes), 0);
    file = memfd_create("anon_inode:[eventfd]", MFD_CLOEXEC);
    assert_true(file >= 0);
    for (unsigned i = 0; i < 4; i++) {
        int bad = (int[]){ pipes[1], file, 1 << 20, -1 }[i];

        fds[0] = new_eventfd();
        fds[1] = bad;
        number = fds[0];
        assert_int_equal(ob_irqs_set(f.irqs, MSIX, 0, 2, EVENTFD | TRIGGER, NULL, fds, 2), -EBADF);
        assert_int_equal(fds[0], number);
        assert_int_equal(fds[1], bad);
        close(fds[0]);
        fds[0] = bad;
        assert_int_equal(ob_irqs_set(f.irqs, INTX, 0, 1, EVENTFD | UNMASK, NULL, fds, 1), -EBADF);
    }
    assert_int_equal(lseek(file, 0, SEEK_END), 0);
    ob_irqs_pulse(f.irqs, 0);
    assert_int_equal(signalled(fd), 1); /* still the one from before */
    close(pipes[0]);
    close(pipes[1]);
    close(file);
    close(fd);
    fixture_teardown(&f);
}

/* A counter that the client has filled up does not hold us, in either mode. */
static void full_counters(void **state)
{
    static const uint64_t most = UINT64_MAX - 1;
    struct fixture f;
    uint64_t value;

    (void)state;
    fixture_setup(&f, 0, 1, 0);
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    for (unsigned mode = 0; mode < 2; mode++) {
        int fd = eventfd(0, mode ? EFD_NONBLOCK : 0), mine = dup(fd);

        assert_int_equal(write(mine, &most, sizeof(most)), sizeof(most));
        assert_int_equal(ob_irqs_set(f.irqs, MSIX, 0, 1, EVENTFD | TRIGGER, NULL, &fd, 1), 0);
        ob_irqs_pulse(f.irqs, 0);
        assert_int_equal(pending_bits(&f), 0);
        assert_int_equal(read(mine, &value, sizeof(value)), sizeof(value));
        assert_true(value == most);
        ob_irqs_pulse(f.irqs, 0);
        assert_int_equal(read(mine, &value, sizeof(value)), sizeof(value));
        assert_int_equal(value, 1);
        assert_int_equal(!!(fcntl(mine, F_GETFL) & O_NONBLOCK), mode); /* the client's mode is its own */
        close(mine);
    }
    fixture_teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info),
        cmocka_unit_test(every_combination),
        cmocka_unit_test(assign_and_disable),
        cmocka_unit_test(loopback),
        cmocka_unit_test(mask_by_booleans),
        cmocka_unit_test(mask_by_eventfds),
        cmocka_unit_test(foreign_descriptors),
        cmocka_unit_test(full_counters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
