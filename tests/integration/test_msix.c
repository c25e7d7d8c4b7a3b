/* test_msix: MSI-X on the test device: vectors that come and go, levels, pulses, pending ones, the table in its BAR. */
#include "fixture.h"
#include "testdev_regs.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NONE    VFIO_IRQ_SET_DATA_NONE
#define BOOL    VFIO_IRQ_SET_DATA_BOOL
#define EVENTFD VFIO_IRQ_SET_DATA_EVENTFD
#define TRIGGER VFIO_IRQ_SET_ACTION_TRIGGER
#define MSIX    VFIO_PCI_MSIX_IRQ_INDEX

struct vectors {
    int fds[TD_VECTORS];
};

static void control(struct ob_raw *raw, uint16_t flags)
{
    uint32_t at = ob_find_capability(raw, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS;

    ob_ok(ob_raw_write(raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &flags, sizeof(flags)));
}

static void open_vectors(struct vectors *vectors)
{
    for (int i = 0; i < TD_VECTORS; i++) {
        vectors->fds[i] = ob_event_new();
    }
}

static void close_vectors(struct vectors *vectors)
{
    for (int i = 0; i < TD_VECTORS; i++) {
        close(vectors->fds[i]);
    }
}

static void enable(struct ob_raw *raw, struct vectors *vectors)
{
    open_vectors(vectors);
    ob_set_command(raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    control(raw, PCI_MSIX_FLAGS_ENABLE);
    ob_ok(ob_set_eventfds(raw, MSIX, 0, TD_VECTORS, vectors->fds));
}

static void pulse(struct ob_raw *raw, uint32_t vector)
{
    ob_write32(raw, TD_BAR, TD_PULSE, vector);
}

static uint64_t fired(struct ob_raw *raw, int fd)
{
    ob_ok(ob_raw_silent(raw));
    ob_ok(ob_raw_silent(raw));
    return ob_event_take(fd);
}

static bool pending(struct ob_raw *raw, unsigned vector)
{
    uint32_t where = 0, at = ob_find_capability(raw, PCI_CAP_ID_MSIX);
    uint64_t bits;

    ob_ok(ob_raw_read(raw, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_MSIX_PBA, &where, 4));
    ob_ok(ob_raw_read(raw, where & PCI_MSIX_PBA_BIR, where & PCI_MSIX_PBA_OFFSET, &bits, 8));
    return bits >> vector & 1;
}

static void test_info(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vfio_irq_info info;

    ob_ok(ob_raw_irq_info(&fixture->raw, MSIX, &info));
    assert_int_equal(info.count, TD_VECTORS);
    assert_int_equal(info.flags & (VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_AUTOMASKED), VFIO_IRQ_INFO_EVENTFD);
    ob_ok(ob_raw_irq_info(&fixture->raw, VFIO_PCI_INTX_IRQ_INDEX, &info));
    assert_int_equal(info.count, 0);
}

static void test_each_vector(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors;
    uint32_t none = TD_VECTORS;

    enable(&fixture->raw, &vectors);
    for (uint32_t v = 0; v < TD_VECTORS; v++) {
        pulse(&fixture->raw, v);
        for (uint32_t other = 0; other < TD_VECTORS; other++) {
            assert_int_equal(other == v ? ob_event_wait(vectors.fds[other]) : fired(&fixture->raw, vectors.fds[other]),
                             other == v);
        }
    }
    assert_int_equal(ob_raw_write(&fixture->raw, TD_BAR, TD_PULSE, &none, 4), EINVAL);
    for (int i = 0; i < 100; i++) {
        pulse(&fixture->raw, 3);
    }
    assert_int_equal(fired(&fixture->raw, vectors.fds[3]), 100);
    close_vectors(&vectors);
}

/* As QEMU: EVENTFD without descriptor first, then one vector in each message, then replaced, then taken away. */
static void test_one_by_one(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors, others;

    open_vectors(&vectors);
    open_vectors(&others);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, MSIX, 0, 1, NULL, NULL, 0));
    control(&fixture->raw, PCI_MSIX_FLAGS_ENABLE);
    for (uint32_t v = 0; v < TD_VECTORS; v++) {
        ob_ok(ob_set_eventfds(&fixture->raw, MSIX, v, 1, &vectors.fds[v]));
        pulse(&fixture->raw, v);
        assert_int_equal(ob_event_wait(vectors.fds[v]), 1);
        ob_ok(ob_set_eventfds(&fixture->raw, MSIX, v, 1, &others.fds[v]));
        pulse(&fixture->raw, v);
        assert_int_equal(ob_event_wait(others.fds[v]), 1);
        assert_int_equal(ob_event_take(vectors.fds[v]), 0);
    }
    ob_ok(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, MSIX, 2, 3, NULL, NULL, 0));
    for (uint32_t v = 0; v < TD_VECTORS; v++) {
        pulse(&fixture->raw, v);
        assert_int_equal(fired(&fixture->raw, others.fds[v]), v < 2 || v > 4);
    }
    close_vectors(&vectors);
    close_vectors(&others);
}

/* No eventfd yet: the message waits as a pending bit, and comes when there is one. */
static void test_pending_without_eventfd(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_event_new();

    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    control(&fixture->raw, PCI_MSIX_FLAGS_ENABLE);
    pulse(&fixture->raw, 5);
    assert_true(pending(&fixture->raw, 5));
    assert_false(pending(&fixture->raw, 4));
    ob_ok(ob_set_eventfds(&fixture->raw, MSIX, 5, 1, &fd));
    assert_int_equal(ob_event_wait(fd), 1);
    assert_false(pending(&fixture->raw, 5));
    close(fd);
}

static void test_function_mask(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    control(&fixture->raw, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    pulse(&fixture->raw, 1);
    pulse(&fixture->raw, 1);
    assert_int_equal(fired(&fixture->raw, vectors.fds[1]), 0);
    assert_true(pending(&fixture->raw, 1));
    control(&fixture->raw, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(ob_event_wait(vectors.fds[1]), 1);
    assert_false(pending(&fixture->raw, 1));
    close_vectors(&vectors);
}

static void test_without_master(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY);
    pulse(&fixture->raw, 1);
    assert_int_equal(fired(&fixture->raw, vectors.fds[1]), 0);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(ob_event_wait(vectors.fds[1]), 1);
    close_vectors(&vectors);
}

/* A client that keeps the table with the device: its mask bits count once it has written them. */
static void test_table_mask(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t where = 0, at = ob_find_capability(&fixture->raw, PCI_CAP_ID_MSIX), masked = 1, unmasked = 0;
    uint64_t entry;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_MSIX_TABLE, &where, 4));
    entry = (where & PCI_MSIX_TABLE_OFFSET) + 2 * PCI_MSIX_ENTRY_SIZE;
    pulse(&fixture->raw, 2);
    assert_int_equal(ob_event_wait(vectors.fds[2]), 1);
    ob_ok(ob_raw_write(&fixture->raw, where & PCI_MSIX_TABLE_BIR, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, &masked, 4));
    pulse(&fixture->raw, 2);
    assert_int_equal(fired(&fixture->raw, vectors.fds[2]), 0);
    assert_true(pending(&fixture->raw, 2));
    ob_ok(ob_raw_write(&fixture->raw, where & PCI_MSIX_TABLE_BIR, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, &unmasked, 4));
    assert_int_equal(ob_event_wait(vectors.fds[2]), 1);
    close_vectors(&vectors);
}

/* Levels: the beginning of a condition is a message, its end none. */
static void test_levels(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    ob_write32(&fixture->raw, TD_BAR, TD_LEVELS, 0x05);
    assert_int_equal(ob_event_wait(vectors.fds[0]), 1);
    assert_int_equal(ob_event_wait(vectors.fds[2]), 1);
    ob_write32(&fixture->raw, TD_BAR, TD_LEVELS, 0x05);
    ob_write32(&fixture->raw, TD_BAR, TD_LEVELS, 0x00);
    assert_int_equal(fired(&fixture->raw, vectors.fds[0]), 0);
    ob_write32(&fixture->raw, TD_BAR, TD_LEVELS, 0x01);
    assert_int_equal(ob_event_wait(vectors.fds[0]), 1);
    close_vectors(&vectors);
}

/* An interrupt that nobody's request caused: from a timer. */
static void test_timer(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    for (uint32_t i = 1; i <= 5; i++) {
        ob_write32(&fixture->raw, TD_BAR, TD_LEVELS, 0);
        ob_write32(&fixture->raw, TD_BAR, TD_TIMER_NS, 1000000 * i);
        assert_int_equal(ob_event_wait(vectors.fds[1]), 1);
        assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_TIMER_FIRED), i);
    }
    ob_write32(&fixture->raw, TD_BAR, TD_TIMER_NS, 3000000000u); /* disarmed again, by a reset */
    ob_ok(ob_raw_reset(&fixture->raw));
    close_vectors(&vectors);
}

/* The client fires its own vectors, to try its wiring. */
static void test_loopback(void **state)
{
    struct ob_fixture *fixture = *state;
    const uint8_t some[TD_VECTORS] = { 0, 1, 0, 0, 1, 0, 0, 1 };
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    ob_ok(ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, MSIX, 3, 2, NULL, NULL, 0));
    for (int v = 0; v < TD_VECTORS; v++) {
        assert_int_equal(fired(&fixture->raw, vectors.fds[v]), v == 3 || v == 4);
    }
    ob_ok(ob_raw_set_irqs(&fixture->raw, BOOL | TRIGGER, MSIX, 0, TD_VECTORS, some, NULL, 0));
    for (int v = 0; v < TD_VECTORS; v++) {
        assert_int_equal(fired(&fixture->raw, vectors.fds[v]), some[v]);
    }
    close_vectors(&vectors);
}

static void test_bad_ranges(void **state)
{
    static const struct {
        uint32_t start, count;
    } bad[] = { { 0, TD_VECTORS + 1 }, { TD_VECTORS, 1 }, { 7, 2 }, { UINT32_MAX, 2 }, { 1, UINT32_MAX }, { 3, 0 } };
    struct ob_fixture *fixture = *state;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(
            ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, MSIX, bad[i].start, bad[i].count, NULL, NULL, 0), EINVAL);
    }
    assert_int_equal(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, MSIX, 0, 4, NULL, vectors.fds, 3), EINVAL);
    assert_int_equal(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, MSIX, 0, 3, NULL, vectors.fds, 4), EINVAL);
    pulse(&fixture->raw, 0); /* nothing of that took anything away */
    assert_int_equal(ob_event_wait(vectors.fds[0]), 1);
    close_vectors(&vectors);
}

/* Off, whole: no vector fires any more, descriptors are closed (teardown would find them in any case). */
static void test_disable(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    control(&fixture->raw, 0);
    ob_ok(ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, MSIX, 0, 0, NULL, NULL, 0));
    pulse(&fixture->raw, 0);
    assert_int_equal(fired(&fixture->raw, vectors.fds[0]), 0);
    close_vectors(&vectors);
}

/* In D3hot a function is silent. */
static void test_power(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t at = ob_find_capability(&fixture->raw, PCI_CAP_ID_PM) + PCI_PM_CTRL;
    uint16_t d3 = 3, d0 = 0;
    struct vectors vectors;

    enable(&fixture->raw, &vectors);
    ob_write32(&fixture->raw, TD_BAR, TD_TIMER_NS, 1000000);
    assert_int_equal(ob_event_wait(vectors.fds[1]), 1);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &d3, 2));
    assert_int_equal(ob_config16(&fixture->raw, at) & PCI_PM_CTRL_STATE_MASK, 3);
    pulse(&fixture->raw, 0);
    assert_int_equal(fired(&fixture->raw, vectors.fds[0]), 0);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &d0, 2));
    assert_int_equal(ob_config16(&fixture->raw, at) & PCI_PM_CTRL_STATE_MASK, 0);
    close_vectors(&vectors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_info),          OB_TEST(test_each_vector),
        OB_TEST(test_one_by_one),    OB_TEST(test_pending_without_eventfd),
        OB_TEST(test_function_mask), OB_TEST(test_without_master),
        OB_TEST(test_table_mask),    OB_TEST(test_levels),
        OB_TEST(test_timer),         OB_TEST(test_loopback),
        OB_TEST(test_bad_ranges),    OB_TEST(test_disable),
        OB_TEST(test_power),
    };

    return cmocka_run_group_tests(tests, ob_fixture_testdev, ob_fixture_stop);
}
