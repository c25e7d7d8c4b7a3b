/* test_edu.c: all that a driver can see of edu (QEMU's docs/specs/edu.rst): ours over its socket, ours behind QEMU, and
 * QEMU's own. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>
#include "edu_regs.h"
#include "target.h"

#define d        (target.driver)
#define IRQ_FACT 0x1u
#define MEMORY   0x4000u

static uint32_t get(unsigned reg)
{
    return ob_read32(d, EDU_BAR, reg);
}

static void set(unsigned reg, uint32_t val)
{
    ob_write32(d, EDU_BAR, reg, val);
}

/* QEMU's edu has no reset: what a test left is quieted here. */
static int edu_setup(void **state)
{
    int err = target_reset(state);

    if (!err)
        err = ob_wait32(d, EDU_BAR, EDU_STATUS, EDU_STATUS_BUSY, 0, TARGET_WAIT_MS);
    if (!err)
        err = ob_wait32(d, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0, TARGET_WAIT_MS);
    if (!err) {
        set(EDU_STATUS, 0);
        set(EDU_IRQ_ACK, UINT32_MAX);
    }
    return err;
}

#define EDU_TEST(function) cmocka_unit_test_setup_teardown(function, edu_setup, target_check)

static struct ob_driver_memory alloc(void)
{
    struct ob_driver_memory memory;

    assert_int_equal(ob_driver_alloc(d, MEMORY, &memory), 0);
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    return memory;
}

static void program_dma(uint64_t src, uint64_t dst, uint64_t count, uint32_t command)
{
    ob_write64(d, EDU_BAR, EDU_DMA_SRC, src);
    ob_write64(d, EDU_BAR, EDU_DMA_DST, dst);
    ob_write64(d, EDU_BAR, EDU_DMA_COUNT, count);
    set(EDU_DMA_COMMAND, command | EDU_DMA_RUN);
}

static void dma(uint64_t src, uint64_t dst, uint64_t count, uint32_t command)
{
    program_dma(src, dst, count, command);
    assert_int_equal(ob_wait32(d, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0, TARGET_WAIT_MS), 0);
}

static void fill(uint8_t *bytes, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* --- Identity ---------------------------------------------------------------------------------------------------- */

/* The first test: nothing was written to any register yet. */
static void test_reset_values(void **state)
{
    assert_int_equal(get(EDU_LIVENESS), 0);
    assert_int_equal(get(EDU_FACTORIAL), 0);
    assert_int_equal(get(EDU_STATUS), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), 0);
    for (unsigned reg = EDU_DMA_SRC; reg <= EDU_DMA_COMMAND; reg += 8)
        assert_int_equal(ob_read64(d, EDU_BAR, reg), 0);
}

static void test_identity(void **state)
{
    assert_int_equal(ob_config_read16(d, PCI_VENDOR_ID), 0x1234);
    assert_int_equal(ob_config_read16(d, PCI_DEVICE_ID), 0x11e8);
    assert_int_equal(ob_config_read32(d, PCI_CLASS_REVISION), 0x00ff0010);
    assert_int_equal(ob_config_read8(d, PCI_HEADER_TYPE), 0);
    assert_int_equal(ob_config_read16(d, PCI_SUBSYSTEM_VENDOR_ID), 0x1af4);
    assert_int_equal(ob_config_read16(d, PCI_SUBSYSTEM_ID), 0x1100);
    assert_int_equal(ob_config_read8(d, PCI_INTERRUPT_PIN), 1);
    assert_int_equal(get(EDU_ID), EDU_ID_VALUE);
    set(EDU_ID, 0);
    assert_int_equal(get(EDU_ID), EDU_ID_VALUE);
}

/* Identification cannot be written; what software may keep can. */
static void test_config_writes(void **state)
{
    uint32_t id = ob_config_read32(d, PCI_VENDOR_ID), class = ob_config_read32(d, PCI_CLASS_REVISION);

    ob_config_write32(d, PCI_VENDOR_ID, ~id);
    ob_config_write32(d, PCI_CLASS_REVISION, ~class);
    ob_config_write32(d, PCI_SUBSYSTEM_VENDOR_ID, 0);
    assert_int_equal(ob_config_read32(d, PCI_VENDOR_ID), id);
    assert_int_equal(ob_config_read32(d, PCI_CLASS_REVISION), class);
    assert_int_equal(ob_config_read32(d, PCI_SUBSYSTEM_VENDOR_ID), 0x11001af4);
    ob_config_write8(d, PCI_INTERRUPT_LINE, 0xa5);
    assert_int_equal(ob_config_read8(d, PCI_INTERRUPT_LINE), 0xa5);
    ob_config_write8(d, PCI_COMMAND + 1, PCI_COMMAND_INTX_DISABLE >> 8);
    assert_int_equal(ob_config_read16(d, PCI_COMMAND) & 0x407, PCI_COMMAND_INTX_DISABLE | 3);
}

static void test_bars(void **state)
{
    struct ob_driver_bar bar;

    assert_int_equal(ob_driver_bar(d, 0, &bar), 0);
    assert_int_equal(bar.size, EDU_BAR_SIZE);
    assert_false(bar.io || bar.wide || bar.prefetchable);
    assert_int_equal(ob_config_read32(d, PCI_BASE_ADDRESS_0), bar.address);
    for (unsigned i = 1; i < 6; i++) {
        assert_int_equal(ob_driver_bar(d, i, &bar), 0);
        assert_int_equal(bar.size, 0);
    }
    assert_int_equal(ob_driver_bar(d, 6, &bar), -EINVAL);
}

/* One vector, 64-bit addresses. Our library gives every device mask bits, QEMU's edu has none. */
static uint16_t msi_flags(void)
{
    return PCI_MSI_FLAGS_64BIT | (target.builtin ? 0 : PCI_MSI_FLAGS_MASKBIT);
}

static void test_capabilities(void **state)
{
    int msi = ob_find_capability(d, PCI_CAP_ID_MSI);

    assert_true(msi >= 0x40);
    assert_int_equal(ob_config_read16(d, (unsigned)msi + PCI_MSI_FLAGS), msi_flags());
    assert_int_equal(ob_find_capability(d, PCI_CAP_ID_MSIX), -ENOENT);
    assert_int_equal(ob_find_capability(d, PCI_CAP_ID_PM), -ENOENT);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSIX, 1), -ENOTSUP);
    assert_int_equal(ob_driver_flr(d), -ENOTSUP);
    assert_int_equal(ob_driver_power(d, 3), -ENOTSUP);
}

/* --- Registers --------------------------------------------------------------------------------------------------- */

static void test_liveness(void **state)
{
    static const uint32_t values[] = { 0, 1, 0x12345678, UINT32_MAX };

    for (size_t i = 0; i < 4; i++) {
        set(EDU_LIVENESS, values[i]);
        assert_int_equal(get(EDU_LIVENESS), ~values[i]);
    }
}

/* Registers below 0x80 take 4 bytes. What they do not take reads as ones from ours; QEMU's bus refuses 1 and 2 bytes
 * before they come to its device, and says 0. */
static void test_access_sizes(void **state)
{
    uint32_t small = target.builtin ? 0 : UINT32_MAX;

    set(EDU_LIVENESS, 0);
    assert_int_equal(ob_read8(d, EDU_BAR, EDU_ID), (uint8_t)small);
    assert_int_equal(ob_read16(d, EDU_BAR, EDU_ID), (uint16_t)small);
    assert_true(ob_read64(d, EDU_BAR, EDU_ID) == UINT64_MAX);
    ob_write8(d, EDU_BAR, EDU_LIVENESS, 1);
    ob_write16(d, EDU_BAR, EDU_LIVENESS, 1);
    ob_write64(d, EDU_BAR, EDU_ID, UINT64_C(0x100000000));
    ob_write64(d, EDU_BAR, EDU_LIVENESS + 4, 1);
    assert_int_equal(get(EDU_LIVENESS), UINT32_MAX);
}

/* A bridge splits what is not aligned, into pieces that are of the wrong size. Over a socket there is no bridge. */
static void test_unaligned(void **state)
{
    uint32_t wrong = target.builtin ? 0 : UINT32_MAX;

    set(EDU_LIVENESS, 0);
    for (unsigned off = 1; off < 4; off++) {
        assert_int_equal(ob_read32(d, EDU_BAR, EDU_ID + off), wrong);
        ob_write32(d, EDU_BAR, EDU_LIVENESS + off, 0x12345678);
    }
    assert_int_equal(get(EDU_LIVENESS), UINT32_MAX);
}

static void test_reserved(void **state)
{
    static const unsigned reserved[] = { 0x0c, 0x10, 0x28, 0x5c, 0x68, 0x7c, 0xa0, 0x100, EDU_BUFFER, 0xffffc };

    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        set(reserved[i], 0x12345678);
        assert_int_equal(get(reserved[i]), UINT32_MAX);
    }
    assert_int_equal(get(EDU_IRQ_RAISE), UINT32_MAX);
    assert_int_equal(get(EDU_IRQ_ACK), UINT32_MAX);
}

static void test_end_of_bar(void **state)
{
    const char *what = "";

    assert_int_equal(get(EDU_BAR_SIZE - 4), UINT32_MAX);
    assert_int_equal(ob_driver_error(d, NULL), 0);
    assert_int_equal(ob_read32(d, EDU_BAR, EDU_BAR_SIZE - 2), UINT32_MAX);
    assert_int_equal(ob_driver_error(d, &what), -EINVAL);
    assert_non_null(strstr(what, "read of 4 bytes at 0xffffe of BAR 0"));
    assert_int_equal(ob_driver_error(d, &what), 0);
}

/* With decoding off there is nothing at the address: ones, or QEMU's 0. Over a socket there is no bus to decode. */
static void test_decoding(void **state)
{
    ob_config_write16(d, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
    assert_int_not_equal(get(EDU_ID), EDU_ID_VALUE);
    ob_config_write16(d, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MEMORY);
    assert_int_equal(get(EDU_ID), EDU_ID_VALUE);
}

/* --- Factorial --------------------------------------------------------------------------------------------------- */

static void factorial(uint32_t n, uint32_t wanted)
{
    set(EDU_FACTORIAL, n);
    assert_int_equal(ob_wait32(d, EDU_BAR, EDU_STATUS, EDU_STATUS_BUSY, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(get(EDU_FACTORIAL), wanted);
}

/* Modulo 2^32. */
static void test_factorial(void **state)
{
    uint32_t product = 1;

    factorial(0, 1);
    for (uint32_t n = 1; n < 40; n++) {
        product *= n;
        factorial(n, product);
    }
    assert_int_equal(get(EDU_IRQ_STATUS), 0);
}

static void test_factorial_interrupt(void **state)
{
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    set(EDU_STATUS, UINT32_MAX);
    assert_int_equal(get(EDU_STATUS) & ~EDU_STATUS_BUSY, EDU_STATUS_IRQ);
    set(EDU_FACTORIAL, 5);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), IRQ_FACT);
    assert_int_equal(get(EDU_FACTORIAL), 120);
    set(EDU_IRQ_ACK, IRQ_FACT);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    set(EDU_STATUS, 0);
    assert_int_equal(get(EDU_STATUS), 0);
}

/* --- DMA --------------------------------------------------------------------------------------------------------- */

static void test_dma_registers(void **state)
{
    for (unsigned reg = EDU_DMA_SRC; reg <= EDU_DMA_COUNT; reg += 8) {
        ob_write64(d, EDU_BAR, reg, UINT64_C(0x1122334455667788));
        assert_true(ob_read64(d, EDU_BAR, reg) == UINT64_C(0x1122334455667788));
        assert_int_equal(get(reg), 0x55667788);
        /* 4 bytes to the low half clear the high one. */
        set(reg, 0x99aabbcc);
        assert_true(ob_read64(d, EDU_BAR, reg) == 0x99aabbcc);
        /* The specification has 4 bytes for each of these registers' accesses; QEMU's has nothing at their high
         * halves. */
        set(reg + 4, 0x12345678);
        assert_int_equal(get(reg + 4), target.builtin ? UINT32_MAX : 0x12345678);
        ob_write16(d, EDU_BAR, reg, 0);
        ob_write8(d, EDU_BAR, reg, 0);
        assert_int_equal(get(reg), 0x99aabbcc);
        assert_int_equal(ob_read16(d, EDU_BAR, reg), target.builtin ? 0 : 0xffff);
    }
    /* Without RUN a command does nothing, and is not kept. */
    uint64_t old = ob_read64(d, EDU_BAR, EDU_DMA_COMMAND);

    ob_write64(d, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_TO_GUEST | EDU_DMA_IRQ);
    assert_true(ob_read64(d, EDU_BAR, EDU_DMA_COMMAND) == old);
}

/* Memory to the buffer and back to another place, of all sizes and alignments that matter. */
static void test_dma(void **state)
{
    static const struct {
        unsigned off, count;
    } pieces[] = { { 0, 4096 }, { 0, 1 }, { 4095, 1 }, { 1, 4095 }, { 3, 17 }, { 100, 1000 }, { 2048, 2048 } };
    struct ob_driver_memory memory = alloc();
    uint8_t *bytes = memory.bytes;

    for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        unsigned off = pieces[i].off, count = pieces[i].count;

        fill(bytes, 4096, i);
        memset(bytes + 4096, 0xee, 3 * 4096);
        dma(memory.iova, EDU_BUFFER + off, count, 0);
        dma(EDU_BUFFER + off, memory.iova + 8191, count, EDU_DMA_TO_GUEST);
        assert_memory_equal(bytes + 8191, bytes, count);
        assert_int_equal(bytes[8190], 0xee);
        assert_int_equal(bytes[8191 + count], 0xee);
        assert_int_equal(ob_read64(d, EDU_BAR, EDU_DMA_COMMAND), EDU_DMA_TO_GUEST);
        assert_int_equal(get(EDU_DMA_COUNT), count);
    }
    assert_int_equal(get(EDU_IRQ_STATUS), 0);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

/* The device drives 28 address lines. */
static void test_dma_mask(void **state)
{
    struct ob_driver_memory memory = alloc();
    uint8_t *bytes = memory.bytes;

    fill(bytes, 64, 3);
    dma(memory.iova | UINT64_C(0xf000000010000000), EDU_BUFFER, 64, 0);
    dma(EDU_BUFFER, (memory.iova + 4096) | UINT64_C(0x50000000), 64, EDU_DMA_TO_GUEST);
    assert_memory_equal(bytes + 4096, bytes, 64);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

/* What leaves the buffer is not carried out; the transfer ends, with its interrupt. */
static void test_dma_bounds(void **state)
{
    static const struct {
        uint64_t at, count;
    } bad[] = {
        { EDU_BUFFER, 4097 },      { EDU_BUFFER + 1, 4096 }, { EDU_BUFFER - 1, 2 }, { EDU_BUFFER + 4096, 1 }, { 0, 16 },
        { EDU_BUFFER, UINT64_MAX }
    };
    struct ob_driver_memory memory = alloc();
    uint8_t *bytes = memory.bytes;

    memset(bytes, 0xee, MEMORY);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        dma(bad[i].at, memory.iova, bad[i].count, EDU_DMA_TO_GUEST | EDU_DMA_IRQ);
        assert_int_equal(get(EDU_IRQ_STATUS), EDU_IRQ_DMA);
        set(EDU_IRQ_ACK, EDU_IRQ_DMA);
        dma(memory.iova, bad[i].at, bad[i].count, 0);
    }
    for (unsigned i = 0; i < MEMORY; i++)
        assert_int_equal(bytes[i], 0xee);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

static void test_dma_without_bus_master(void **state)
{
    struct ob_driver_memory memory = alloc();
    uint8_t *bytes = memory.bytes;

    fill(bytes, 64, 1);
    dma(memory.iova, EDU_BUFFER, 64, 0);
    memset(bytes, 0xee, 64);
    assert_int_equal(ob_driver_bus_master(d, false), 0);
    dma(EDU_BUFFER, memory.iova, 64, EDU_DMA_TO_GUEST);
    assert_int_equal(bytes[0], 0xee);
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    dma(EDU_BUFFER, memory.iova, 64, EDU_DMA_TO_GUEST);
    fill(bytes + 64, 64, 1);
    assert_memory_equal(bytes, bytes + 64, 64);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

/* Over a socket memory can be taken away from the device. */
static void test_dma_nowhere(void **state)
{
    struct ob_driver_memory memory = alloc(), gone = alloc();

    assert_int_equal(ob_driver_free(d, &gone), 0);
    memset(memory.bytes, 0xee, 64);
    dma(memory.iova, EDU_BUFFER, 64, 0);
    if (!target.qemu)
        dma(gone.iova, EDU_BUFFER, 64, 0);
    dma(EDU_BUFFER, memory.iova + 64, 64, EDU_DMA_TO_GUEST);
    assert_memory_equal(memory.bytes, (uint8_t *)memory.bytes + 64, 64);
    assert_int_equal(ob_driver_free(d, &memory), 0);
    assert_int_equal(ob_driver_free(d, &memory), -ENOENT);
}

static void test_dma_interrupt(void **state)
{
    struct ob_driver_memory memory = alloc();

    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    program_dma(memory.iova, EDU_BUFFER, 16, EDU_DMA_IRQ);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), EDU_IRQ_DMA);
    assert_int_equal(get(EDU_DMA_COMMAND), EDU_DMA_IRQ);
    set(EDU_IRQ_ACK, EDU_IRQ_DMA);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

/* The line is high while any cause is there. */
static void test_intx(void **state)
{
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 4), 1);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_QUIET_MS), -ETIMEDOUT);
    set(EDU_IRQ_RAISE, 0x5);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), 0x5);
    assert_int_equal(ob_driver_irq_pending(d, 0), 1);
    set(EDU_IRQ_ACK, 0x1);
    assert_int_equal(get(EDU_IRQ_STATUS), 0x4);
    assert_int_equal(ob_driver_irq_pending(d, 0), 1);
    set(EDU_IRQ_RAISE, 0x80000000);
    set(EDU_IRQ_ACK, 0x4);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, UINT32_MAX);
    assert_int_equal(get(EDU_IRQ_STATUS), 0);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    for (unsigned i = 0; i < 20; i++) {
        set(EDU_IRQ_RAISE, 1u << i);
        assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
        set(EDU_IRQ_ACK, 1u << i);
        assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    }
    assert_int_equal(ob_driver_irq_wait(d, 1, 0), -EINVAL);
}

static void test_intx_masked(void **state)
{
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    assert_int_equal(ob_driver_mask(d, 0), 0);
    set(EDU_IRQ_RAISE, 1);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), 1);
    assert_int_equal(ob_driver_unmask(d, 0), 0);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(ob_config_read16(d, PCI_STATUS) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    set(EDU_IRQ_ACK, 1);
    assert_int_equal(ob_config_read16(d, PCI_STATUS) & PCI_STATUS_INTERRUPT, 0);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
}

/* Each raise is a message, whether others are acknowledged or not. */
static void test_msi(void **state)
{
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), 1);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    for (unsigned i = 0; i < 20; i++) {
        set(EDU_IRQ_RAISE, 1u << i);
        assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
        assert_int_equal(ob_driver_irq_pending(d, 0), 0);
        if (i % 2)
            set(EDU_IRQ_ACK, 3u << (i - 1));
    }
    assert_int_equal(get(EDU_IRQ_STATUS), 0);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
}

/* A message that was masked is sent when it no longer is. */
static void test_msi_masked(void **state)
{
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), 1);
    assert_int_equal(ob_driver_mask(d, 0), target.builtin ? -ENOTSUP : 0);
    set(EDU_IRQ_RAISE, 1);
    assert_int_equal(ob_driver_irq_pending(d, 0), target.builtin);
    assert_int_equal(ob_driver_unmask(d, 0), target.builtin ? -ENOTSUP : 0);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, 1);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
}

static void test_msi_dma(void **state)
{
    struct ob_driver_memory memory = alloc();

    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 8), 1);
    memset(memory.bytes, 0x33, 16);
    dma(memory.iova, EDU_BUFFER, 16, EDU_DMA_IRQ);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, EDU_IRQ_DMA);
    /* Data first, then the message. */
    program_dma(EDU_BUFFER, memory.iova + 64, 16, EDU_DMA_IRQ | EDU_DMA_TO_GUEST);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_memory_equal((uint8_t *)memory.bytes + 64, memory.bytes, 16);
    set(EDU_IRQ_ACK, EDU_IRQ_DMA);
    assert_int_equal(ob_driver_free(d, &memory), 0);
}

/* Messages are writes: without bus mastering, there are none. */
static void test_msi_without_bus_master(void **state)
{
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), 1);
    set(EDU_IRQ_RAISE, 1);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), 1);
    set(EDU_IRQ_ACK, 1);
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    set(EDU_IRQ_RAISE, 2);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, 2);
}

/* From messages to the line and back, with a cause that stays. */
static void test_msi_to_intx(void **state)
{
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), 1);
    set(EDU_IRQ_RAISE, 1);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, 1);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    set(EDU_IRQ_RAISE, 2);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, 2);
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), 1);
    set(EDU_IRQ_RAISE, 4);
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    set(EDU_IRQ_ACK, 4);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_NO_IRQS, 0), 0);
    assert_int_equal(ob_driver_irq_wait(d, 0, 0), -EINVAL);
}

/* Configuration space is reset everywhere; the registers of QEMU's edu are not. */
static void test_reset(void **state)
{
    set(EDU_LIVENESS, 0x5a5a5a5a);
    ob_write64(d, EDU_BAR, EDU_DMA_SRC, 0x1234);
    set(EDU_IRQ_RAISE, 8);
    ob_config_write8(d, PCI_INTERRUPT_LINE, 0x77);
    assert_int_equal(ob_driver_bus_master(d, true), 0);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), 1);
    assert_int_equal(ob_driver_reset(d), 0);
    assert_int_equal(ob_config_read16(d, PCI_COMMAND), PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
    assert_int_equal(ob_config_read16(d, (unsigned)ob_find_capability(d, PCI_CAP_ID_MSI) + PCI_MSI_FLAGS), msi_flags());
    if (target.builtin)
        return;
    assert_int_equal(get(EDU_LIVENESS), 0);
    assert_int_equal(get(EDU_DMA_SRC), 0);
    assert_int_equal(get(EDU_IRQ_STATUS), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        EDU_TEST(test_reset_values),
        EDU_TEST(test_identity),
        EDU_TEST(test_config_writes),
        EDU_TEST(test_bars),
        EDU_TEST(test_capabilities),
        EDU_TEST(test_liveness),
        EDU_TEST(test_access_sizes),
        EDU_TEST(test_reserved),
        EDU_TEST(test_end_of_bar),
        EDU_TEST(test_factorial),
        EDU_TEST(test_factorial_interrupt),
        EDU_TEST(test_dma_registers),
        EDU_TEST(test_dma),
        EDU_TEST(test_dma_mask),
        EDU_TEST(test_dma_bounds),
        EDU_TEST(test_dma_without_bus_master),
        EDU_TEST(test_dma_nowhere),
        EDU_TEST(test_dma_interrupt),
        EDU_TEST(test_intx),
        EDU_TEST(test_intx_masked),
        EDU_TEST(test_msi),
        EDU_TEST(test_msi_masked),
        EDU_TEST(test_msi_dma),
        EDU_TEST(test_msi_without_bus_master),
        EDU_TEST(test_msi_to_intx),
        EDU_TEST(test_reset),
        /* Of a bus: */
        EDU_TEST(test_unaligned),
        EDU_TEST(test_decoding),
    };
    size_t n = sizeof(tests) / sizeof(tests[0]);

    target_arguments(argc, argv);
    return _cmocka_run_group_tests("edu", tests, target.qemu ? n : n - 2, target_group, target_group_end);
}
