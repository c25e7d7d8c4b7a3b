/* test_testdev.c: what edu and serial lack, on the device for tests: MSI-X, function level reset, power management, PCI
 * Express, BARs that can be mapped, and a BAR of each kind. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include "target.h"
#include "testdev_regs.h"

#define d    (target.driver)
#define BAR2 2
#define BAR4 4

static uint32_t get(unsigned reg)
{
    return ob_read32(d, TD_BAR, reg);
}

static void set(unsigned reg, uint32_t val)
{
    ob_write32(d, TD_BAR, reg, val);
}

static void test_identity(void **state)
{
    assert_int_equal(ob_config_read32(d, PCI_VENDOR_ID), 0x7e571234);
    assert_int_equal(ob_config_read32(d, PCI_CLASS_REVISION), 0xff000000);
    assert_int_equal(get(TD_ID), TD_ID_VALUE);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), -ENOTSUP);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), -ENOTSUP);
}

static void test_bars(void **state)
{
    struct ob_driver_bar bar;

    assert_int_equal(ob_driver_bar(d, 1, &bar), 0);
    assert_true(bar.io && bar.size == 32);
    assert_int_equal(ob_driver_bar(d, 2, &bar), 0);
    assert_true(bar.wide && bar.prefetchable && bar.size == TD_BAR2_SIZE);
    assert_int_equal(ob_driver_bar(d, 3, &bar), 0);
    assert_int_equal(bar.size, 0);
    assert_int_equal(ob_driver_bar(d, 4, &bar), 0);
    assert_true(!bar.io && !bar.wide && bar.size == TD_BAR4_SIZE);
}

static void test_capabilities(void **state)
{
    int vendor = ob_find_capability(d, PCI_CAP_ID_VNDR), serial = ob_find_extended_capability(d, PCI_EXT_CAP_ID_DSN);

    assert_true(vendor > 0);
    assert_int_equal(ob_config_read8(d, (unsigned)vendor + 2), 0x0c);
    assert_int_equal(ob_config_read8(d, (unsigned)vendor + 6), 0x5a);
    ob_config_write32(d, (unsigned)vendor + 8, 0x12345678);
    assert_int_equal(ob_config_read32(d, (unsigned)vendor + 8), 0x12345678);
    assert_true(serial >= 0x100);
    assert_int_equal(ob_config_read32(d, (unsigned)serial + 4), 0x89abcdef);
    assert_int_equal(ob_config_read32(d, (unsigned)serial + 8), 0x01234567);
    assert_int_equal(ob_find_extended_capability(d, PCI_EXT_CAP_ID_ERR), -ENOENT);
    assert_int_equal(ob_driver_error(d, NULL), 0);
}

static void test_widths(void **state)
{
    ob_write8(d, 1, 0, 0xa5);
    ob_write16(d, 1, 2, 0x1234);
    ob_write32(d, 1, 4, 0xdeadbeef);
    assert_int_equal(ob_read32(d, 1, 0), 0x1234ffa5);
    assert_int_equal(ob_read32(d, 1, 4), 0xdeadbeef);
    ob_write64(d, BAR4, 0x10, UINT64_C(0x8877665544332211));
    assert_true(ob_read64(d, BAR4, 0x10) == UINT64_C(0x8877665544332211));
    assert_int_equal(ob_read8(d, BAR4, 0x13), 0x44);
    assert_int_equal(ob_read32(d, BAR4, 0x11), 0x55443322);
    assert_true(ob_read64(d, BAR4, 0x2ff8) == UINT64_MAX);
}

static void test_msix(void **state)
{
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSIX, 100), TD_VECTORS);
    for (unsigned v = 0; v < TD_VECTORS; v++) {
        set(TD_PULSE, v);
        assert_int_equal(ob_driver_irq_wait(d, v, TARGET_WAIT_MS), 0);
        for (unsigned other = 0; other < TD_VECTORS; other++)
            assert_int_equal(ob_driver_irq_pending(d, other), 0);
    }
    assert_int_equal(ob_driver_irq_wait(d, TD_VECTORS, 0), -EINVAL);
    assert_int_equal(ob_driver_irq_wait(d, 1, TARGET_QUIET_MS), -ETIMEDOUT);
    /* A level is one message as it rises. */
    set(TD_LEVELS, 0x84);
    assert_int_equal(ob_driver_irq_wait(d, 2, TARGET_WAIT_MS), 0);
    assert_int_equal(ob_driver_irq_wait(d, 7, TARGET_WAIT_MS), 0);
    assert_int_equal(get(TD_LEVELS), 0x84);
    assert_int_equal(ob_driver_irq_pending(d, 2), 0);
}

static void test_msix_masked(void **state)
{
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSIX, 2), 2);
    assert_int_equal(ob_driver_mask(d, 1), 0);
    set(TD_PULSE, 1);
    set(TD_PULSE, 0);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(ob_driver_irq_pending(d, 1), 0);
    assert_int_equal(ob_driver_unmask(d, 1), 0);
    assert_int_equal(ob_driver_irq_wait(d, 1, TARGET_WAIT_MS), 0);
    assert_int_equal(ob_driver_irq_pending(d, 1), 0);
}

static void test_timer_interrupt(void **state)
{
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSIX, TD_VECTORS), TD_VECTORS);
    set(TD_TIMER_NS, 1000000);
    assert_int_equal(ob_driver_irq_wait(d, 1, TARGET_WAIT_MS), 0);
    assert_int_equal(get(TD_TIMER_FIRED), 1);
}

/* The ring's worker copies in guest memory and interrupts. */
static void test_ring(void **state)
{
    struct ob_driver_memory memory;
    struct td_entry *ring;

    assert_int_equal(ob_driver_alloc(d, 3 * 4096, &memory), 0);
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSIX, TD_VECTORS), TD_VECTORS);
    ring = memory.bytes;
    memset((uint8_t *)memory.bytes + 4096, 0x77, 4096);
    ring[0] = (struct td_entry){ .src = memory.iova + 4096, .dst = memory.iova + 8192, .len = 4000, .vector = 5 };
    ob_write64(d, TD_BAR, TD_RING_ADDR, memory.iova);
    set(TD_RING_SIZE, 4);
    set(TD_RING_CTRL, 1);
    set(TD_DOORBELL, 1);
    assert_int_equal(ob_driver_irq_wait(d, 5, TARGET_WAIT_MS), 0);
    assert_int_equal(ring[0].status, TD_DONE);
    assert_memory_equal((uint8_t *)memory.bytes + 8192, (uint8_t *)memory.bytes + 4096, 4000);
    assert_int_equal(((uint8_t *)memory.bytes)[8192 + 4000], 0);
    assert_int_equal(ob_driver_reset(d), 0);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

static void test_mapped(void **state)
{
    volatile void *memory;

    if (target.qemu) {
        assert_int_equal(ob_driver_map(d, BAR2, 0, 4096, &memory), -ENOTSUP);
    } else {
        assert_int_equal(ob_driver_map(d, BAR4, 0, 0x100, &memory), -ENOTSUP);
        assert_int_equal(ob_driver_map(d, BAR4, 0x1000, 0x3000, &memory), -ENOTSUP);
        assert_int_equal(ob_driver_map(d, BAR4, 0x3000, 0x1000, &memory), 0);
        assert_int_equal(ob_driver_map(d, BAR2, 0, TD_BAR2_SIZE, &memory), 0);
        assert_int_equal(ob_driver_map(d, BAR2, 1, TD_BAR2_SIZE, &memory), -EINVAL);
        assert_int_equal(ob_driver_map(d, BAR2, 0, 64, &memory), 0);
        set(TD_BAR2_FILL, 3);
        assert_int_equal(((volatile uint8_t *)memory)[63], 3);
    }
    set(TD_BAR2_FILL, 0);
    ob_write32(d, BAR2, 0, 0x01020304);
    assert_int_equal(get(TD_BAR2_SUM), 10);
    ob_write64(d, BAR2, TD_BAR2_SIZE - 8, UINT64_C(0x1122334455667788));
    assert_true(ob_read64(d, BAR2, TD_BAR2_SIZE - 8) == UINT64_C(0x1122334455667788));
}

static void test_flr(void **state)
{
    uint32_t before = get(0x60 + 4 * 0) + get(0x60 + 4 * 1) + get(0x60 + 4 * 2);

    set(TD_SCRATCH, 1);
    assert_int_equal(ob_driver_flr(d), 0);
    assert_int_equal(get(TD_SCRATCH), 0x5c5c5c5c);
    assert_int_equal(get(0x60 + 4 * 0) + get(0x60 + 4 * 1) + get(0x60 + 4 * 2), before + 1);
    assert_int_equal(ob_config_read16(d, PCI_COMMAND) & PCI_COMMAND_MASTER, 0);
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSIX, 1), 1);
    set(TD_PULSE, 0);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
}

/* In D3hot there are no BARs. */
static void test_power(void **state)
{
    int cap = ob_find_capability(d, PCI_CAP_ID_PM);

    assert_true(cap > 0);
    assert_int_equal(ob_driver_power(d, 1), -EINVAL);
    assert_int_equal(ob_driver_power(d, 3), 0);
    assert_int_equal(ob_config_read16(d, (unsigned)cap + PCI_PM_CTRL) & PCI_PM_CTRL_STATE_MASK, 3);
    assert_int_not_equal(get(TD_ID), TD_ID_VALUE);
    ob_driver_error(d, NULL);
    assert_int_equal(ob_driver_power(d, 0), 0);
    assert_int_equal(get(TD_ID), TD_ID_VALUE);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TARGET_TEST(test_identity),     TARGET_TEST(test_bars),
        TARGET_TEST(test_capabilities), TARGET_TEST(test_widths),
        TARGET_TEST(test_msix),         TARGET_TEST(test_msix_masked),
        TARGET_TEST(test_ring),         TARGET_TEST(test_timer_interrupt),
        TARGET_TEST(test_mapped),       TARGET_TEST(test_flr),
        TARGET_TEST(test_power),
    };

    target_arguments(argc, argv);
    return cmocka_run_group_tests_name("testdev", tests, target_group, target_group_end);
}
