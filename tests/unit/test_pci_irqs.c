/* Delivery of interrupts: what is signalled, when, how often, and what stays pending. */
#include "test_pci_irqs.h"

static void raise_pulse(struct fixture *f, unsigned vector)
{
    assert_int_equal(ob_irqs_pulse(f->irqs, vector), 0);
}

static bool intx_status(const struct fixture *f)
{
    struct ob_pci_live live;

    ob_irqs_live(f->irqs, &live);
    return live.intx;
}

static uint32_t msi_pending(const struct fixture *f)
{
    struct ob_pci_live live;

    ob_irqs_live(f->irqs, &live);
    return live.msi_pending;
}

/* Everything that can stand in the way of a message, one after the other. */
static void msix_pending(void **state)
{
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    raise_pulse(&f, 2);
    raise_pulse(&f, 2);
    assert_int_equal(pending_bits(&f), 4);
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    assert_int_equal(pending_bits(&f), 4);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 2); /* was only waiting for this */
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(pending_bits(&f), 0);
    raise_pulse(&f, 2);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fd), 2);
    raise_pulse(&f, 0); /* has no eventfd */
    assert_int_equal(signalled(fd), 0);
    assert_int_equal(pending_bits(&f), 1);

    msix_control(&f, ON | MASKALL);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fd), 0);
    assert_int_equal(pending_bits(&f), 5);
    msix_control(&f, ON);
    assert_int_equal(signalled(fd), 1);

    command(&f, 0);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fd), 0);
    command(&f, PCI_COMMAND_MASTER);
    assert_int_equal(signalled(fd), 1);

    power_state(&f, 3);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fd), 0);
    power_state(&f, 0);
    assert_int_equal(signalled(fd), 1);

    msix_control(&f, 0);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fd), 0);
    msix_control(&f, ON);
    assert_int_equal(signalled(fd), 1);

    take(&f, VFIO_PCI_MSIX_IRQ_INDEX, 2);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fd), 0);
    assert_int_equal(pending_bits(&f), 5);
    ob_irqs_reset(f.irqs);
    assert_int_equal(pending_bits(&f), 0);
    assert_int_equal(ob_irqs_pulse(f.irqs, FIXTURE_MSIX), -EINVAL);
    assert_int_equal(ob_irqs_level(f.irqs, FIXTURE_MSIX, true), -EINVAL);
    close(fd);
    fixture_teardown(&f);
}

/* The mask bits of the table count from when one is first written, until a reset. */
static void msix_table_masks(void **state)
{
    struct fixture f;
    uint64_t address = 0xfee00000;
    int fds[2];

    (void)state;
    fixture_setup(&f, 0, FIXTURE_MSIX, 0);
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    for (unsigned i = 0; i < 2; i++)
        fds[i] = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, i);
    assert_int_equal(ob_irqs_table_write(f.irqs, 0, 8, &address), 0);
    raise_pulse(&f, 0);
    assert_int_equal(signalled(fds[0]), 1);
    write_control(&f, 0, 0);
    raise_pulse(&f, 0);
    raise_pulse(&f, 1);
    assert_int_equal(signalled(fds[0]), 1);
    assert_int_equal(signalled(fds[1]), 0);
    assert_int_equal(pending_bits(&f), 2);
    write_control(&f, 1, 0xfffffffe);
    assert_int_equal(signalled(fds[1]), 1);
    write_control(&f, 1, 1);
    raise_pulse(&f, 1);
    raise_pulse(&f, 1);
    ob_irqs_reevaluate(f.irqs);
    assert_int_equal(signalled(fds[1]), 0);
    write_control(&f, 1, 0);
    assert_int_equal(signalled(fds[1]), 1);
    ob_irqs_reset(f.irqs);
    raise_pulse(&f, 1);
    assert_int_equal(signalled(fds[1]), 1);
    for (unsigned i = 0; i < 2; i++)
        close(fds[i]);
    fixture_teardown(&f);
}

static void msix_table_access(void **state)
{
    static const uint32_t fresh[4] = { 0, 0, 0, 1 };
    uint8_t bytes[48], want[48];
    struct fixture f;
    uint64_t value = UINT64_MAX;

    (void)state;
    fixture_setup(&f, 0, FIXTURE_MSIX, 0);
    for (unsigned i = 0; i < 3; i++)
        memcpy(want + 16 * i, fresh, 16);
    assert_int_equal(ob_irqs_table_read(f.irqs, 0, 48, bytes), 0);
    assert_memory_equal(bytes, want, 48);
    /* Ones everywhere, by any size of access: the reserved bits stay 0. */
    for (unsigned width = 1; width <= 8; width++) {
        uint64_t zero = 0;

        for (unsigned off = 0; off + width <= 48; off += width)
            assert_int_equal(ob_irqs_table_write(f.irqs, off, width, &value), 0);
        assert_int_equal(ob_irqs_table_read(f.irqs, 16, 8, &zero), 0);
        assert_true(zero == 0xfffffffffffffffcull);
        assert_int_equal(ob_irqs_table_read(f.irqs, 24, 8, &zero), 0);
        assert_true(zero == 0x1ffffffffull);
        zero = 0;
        for (unsigned off = 0; off + width <= 48; off += width)
            assert_int_equal(ob_irqs_table_write(f.irqs, off, width, &zero), 0);
        assert_int_equal(ob_irqs_table_read(f.irqs, 8, 24, bytes), 0);
        for (unsigned i = 0; i < 24; i++)
            assert_int_equal(bytes[i], 0);
    }
    value = 0x1122334455667788;
    assert_int_equal(ob_irqs_table_write(f.irqs, 6, 8, &value), 0); /* crosses three words */
    value = 0;
    assert_int_equal(ob_irqs_table_read(f.irqs, 7, 5, &value), 0);
    assert_true(value == 0x3344556677);
    assert_int_equal(ob_irqs_table_read(f.irqs, 48, 1, bytes), -EINVAL);
    assert_int_equal(ob_irqs_table_read(f.irqs, 44, 8, bytes), -EINVAL);
    assert_int_equal(ob_irqs_table_write(f.irqs, 44, 8, bytes), -EINVAL);
    assert_int_equal(ob_irqs_table_write(f.irqs, UINT64_MAX, 4, bytes), -EINVAL);
    assert_int_equal(ob_irqs_pba_read(f.irqs, 4, 8, bytes), -EINVAL);
    assert_int_equal(ob_irqs_pba_read(f.irqs, UINT64_MAX - 3, 8, bytes), -EINVAL);
    fixture_teardown(&f);

    fixture_setup(&f, 0, 100, 0);
    raise_pulse(&f, 0);
    raise_pulse(&f, 63);
    raise_pulse(&f, 70);
    assert_true(pending_bits(&f) == 0x8000000000000001);
    assert_int_equal(ob_irqs_pba_read(f.irqs, 7, 2, bytes), 0);
    assert_int_equal(bytes[0] | bytes[1] << 8, 0x4080);
    assert_int_equal(ob_irqs_pba_read(f.irqs, 8, 8, &value), 0);
    assert_true(value == 0x40);
    fixture_teardown(&f);
}

static void msi_messages(void **state)
{
    struct fixture f;
    int fds[4];

    (void)state;
    fixture_setup(&f, 4, 0, 1);
    for (unsigned i = 0; i < 4; i++)
        fds[i] = give(&f, VFIO_PCI_MSI_IRQ_INDEX, i);
    command(&f, PCI_COMMAND_MASTER);
    fixture_write(&f, f.layout->msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
    for (unsigned i = 0; i < 4; i++) {
        raise_pulse(&f, i);
        for (unsigned j = 0; j < 4; j++)
            assert_int_equal(signalled(fds[j]), i == j);
    }
    /* Two messages allowed: vector 3 sends message 1. */
    fixture_write(&f, f.layout->msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 1 << 4);
    raise_pulse(&f, 3);
    assert_int_equal(signalled(fds[1]), 1);
    assert_int_equal(signalled(fds[3]), 0);
    fixture_write(&f, f.layout->msi + PCI_MSI_MASK_64, 4, 2);
    raise_pulse(&f, 3);
    raise_pulse(&f, 2);
    assert_int_equal(signalled(fds[1]), 0);
    assert_int_equal(signalled(fds[0]), 1);
    assert_int_equal(msi_pending(&f), 2);
    fixture_write(&f, f.layout->msi + PCI_MSI_MASK_64, 4, 0);
    assert_int_equal(signalled(fds[1]), 1);
    assert_int_equal(msi_pending(&f), 0);
    command(&f, 0);
    raise_pulse(&f, 1);
    assert_int_equal(msi_pending(&f), 2);
    command(&f, PCI_COMMAND_MASTER);
    assert_int_equal(signalled(fds[1]), 1);
    for (unsigned i = 0; i < 4; i++)
        close(fds[i]);
    fixture_teardown(&f);
}

static void message_levels(void **state)
{
    struct fixture f;
    int fd, next;

    (void)state;
    fixture_setup(&f, 0, FIXTURE_MSIX, 0);
    command(&f, PCI_COMMAND_MASTER);
    msix_control(&f, ON);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 1);
    level(&f, 1, true);
    level(&f, 1, true);
    ob_irqs_reevaluate(f.irqs);
    assert_int_equal(signalled(fd), 1);
    level(&f, 1, false);
    assert_int_equal(signalled(fd), 0);
    level(&f, 1, true);
    assert_int_equal(signalled(fd), 1);
    /* Goes up and down while masked: there is nothing left to tell. */
    level(&f, 1, false);
    msix_control(&f, ON | MASKALL);
    level(&f, 1, true);
    assert_int_equal(pending_bits(&f), 2);
    level(&f, 1, false);
    assert_int_equal(pending_bits(&f), 0);
    msix_control(&f, ON);
    assert_int_equal(signalled(fd), 0);
    /* Another eventfd of the same client is not told again; a new client is. */
    level(&f, 1, true);
    next = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 1);
    assert_int_equal(signalled(fd), 1);
    assert_int_equal(signalled(next), 0);
    ob_irqs_disconnect(f.irqs);
    close(fd);
    close(next);
    assert_int_equal(pending_bits(&f), 2);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 1);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    fixture_teardown(&f);
}

static void intx(void **state)
{
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    command(&f, 0);
    level(&f, 0, true);
    assert_true(intx_status(&f));
    fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    assert_int_equal(signalled(fd), 1);
    /* Masked by itself: a storm is not heard. */
    for (unsigned i = 0; i < 10000; i++) {
        level(&f, i % 3, i & 1);
        ob_irqs_reevaluate(f.irqs);
    }
    assert_int_equal(signalled(fd), 0);
    for (unsigned i = 0; i < 3; i++)
        level(&f, i, false);
    assert_false(intx_status(&f));
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 0);
    /* The line is the OR of the vectors, and re-asserts as long as it is high. */
    level(&f, 1, true);
    level(&f, 2, true);
    assert_int_equal(signalled(fd), 1);
    level(&f, 1, false);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 1);
    level(&f, 2, false);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 0);
    /* Masked by the client. */
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_MASK);
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 0);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 1);
    /* A message is not for the line. */
    level(&f, 0, false);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    raise_pulse(&f, 0);
    assert_int_equal(signalled(fd), 0);
    close(fd);
    fixture_teardown(&f);
}

/* What configuration space forbids. */
static void intx_gates(void **state)
{
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, FIXTURE_MSI, FIXTURE_MSIX, 1);
    fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 0); /* nothing before the first ob_irqs_config */
    command(&f, PCI_COMMAND_INTX_DISABLE);
    assert_int_equal(signalled(fd), 0);
    assert_true(intx_status(&f));
    command(&f, 0);
    assert_int_equal(signalled(fd), 1);
    power_state(&f, 3);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 0);
    power_state(&f, 0);
    assert_int_equal(signalled(fd), 1);
    msix_control(&f, ON);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 0);
    assert_false(intx_status(&f));
    msix_control(&f, 0);
    assert_int_equal(signalled(fd), 1);
    fixture_write(&f, f.layout->msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 0);
    assert_false(intx_status(&f));
    close(fd);
    fixture_teardown(&f);

    fixture_setup(&f, 0, 1, 0); /* no pin */
    command(&f, 0);
    level(&f, 0, true);
    assert_false(intx_status(&f));
    fixture_teardown(&f);
}

/* A new client starts unmasked, and is told of a line that is high. */
static void intx_disconnect(void **state)
{
    struct fixture f;
    int fd, old[4];

    (void)state;
    fixture_setup(&f, 0, 0, 1);
    command(&f, 0);
    fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 1);
    ob_irqs_disconnect(f.irqs);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old, 4), 1);
    assert_int_equal(ob_irqs_take_retired(f.irqs, old + 1, 3), 0);
    close(old[0]);
    close(fd);
    fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    assert_int_equal(signalled(fd), 1);
    /* A reset of the device keeps the client's eventfd and mask. */
    ob_irqs_reset(f.irqs);
    level(&f, 0, true);
    assert_int_equal(signalled(fd), 0);
    set_now(&f, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_UNMASK);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    fixture_teardown(&f);
}

/* The process dies; the next one finds the durable part. */
static void reincarnate(struct fixture *f)
{
    ob_irqs_free(f->irqs);
    assert_int_equal(ob_irqs_new(f->layout, f->state, &f->irqs), 0);
    ob_irqs_config(f->irqs, f->config);
}

static void crash(void **state)
{
    struct ob_irq_state *durable;
    struct ob_irqs *other;
    struct fixture f;
    int fd;

    (void)state;
    fixture_setup(&f, 0, FIXTURE_MSIX, 1);
    durable = f.state;
    assert_int_equal(ob_irqs_new(f.layout, (char *)f.state + 8, &other), -EINVAL);
    command(&f, PCI_COMMAND_MASTER);
    fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
    level(&f, 1, true);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    /* Signalled and masked, and known to be; between the two it is signalled once more. */
    for (unsigned i = 0; i < 2; i++) {
        if (i)
            atomic_store(&durable->intx, OB_INTX_FIRING);
        reincarnate(&f);
        fd = give(&f, VFIO_PCI_INTX_IRQ_INDEX, 0);
        assert_int_equal(signalled(fd), i);
        close(fd);
    }
    /* A message that was due still is, one that was sent is not. */
    msix_control(&f, ON);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 1);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    raise_pulse(&f, 2);
    reincarnate(&f);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 2);
    assert_int_equal(signalled(fd), 1);
    close(fd);
    fd = give(&f, VFIO_PCI_MSIX_IRQ_INDEX, 1);
    assert_int_equal(signalled(fd), 0);
    close(fd);
    fixture_teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(msix_pending), cmocka_unit_test(msix_table_masks), cmocka_unit_test(msix_table_access),
        cmocka_unit_test(msi_messages), cmocka_unit_test(message_levels),   cmocka_unit_test(intx),
        cmocka_unit_test(intx_gates),   cmocka_unit_test(intx_disconnect),  cmocka_unit_test(crash),

    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
