/* edu against its specification, register by register, and against death, disconnects and resets at every step. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "fake_device.h"

extern const struct ob_device_class ob_class_edu;

enum {
    ID = 0x00,
    LIVENESS = 0x04,
    FACTORIAL = 0x08,
    STATUS = 0x20,
    IRQ_STATUS = 0x24,
    IRQ_RAISE = 0x60,
    IRQ_ACK = 0x64,
    DMA_SOURCE = 0x80,
    DMA_DESTINATION = 0x88,
    DMA_COUNT = 0x90,
    DMA_COMMAND = 0x98,
    BUF = 0x40000,
};
#define GUEST (FAKE_MEMORY_BASE + 0x100)

static int setup_with(void **state, const char *options)
{
    int err;

    *state = fake_new(&ob_class_edu, options, &err);
    if (!*state)
        return err;
    fake_session_begin(*state);
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, NULL);
}

static int setup_wide_mask(void **state)
{
    return setup_with(state, "dma_mask=0xffffffffffffffff");
}

static int teardown(void **state)
{
    fake_free(*state);
    return 0;
}

static uint32_t get(struct ob_dev *dev, unsigned reg)
{
    return (uint32_t)fake_read(dev, 0, reg, 4);
}

static void set(struct ob_dev *dev, unsigned reg, uint32_t val)
{
    fake_write(dev, 0, reg, 4, val);
}

static void program_dma(struct ob_dev *dev, uint64_t src, uint64_t dst, uint64_t count, uint64_t command)
{
    fake_write(dev, 0, DMA_SOURCE, 8, src);
    fake_write(dev, 0, DMA_DESTINATION, 8, dst);
    fake_write(dev, 0, DMA_COUNT, 8, count);
    fake_write(dev, 0, DMA_COMMAND, 8, command);
}

static void fill(uint8_t *bytes, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(seed + i * 7);
}

/* Guest memory -> buffer -> other guest memory, which proves what the buffer held. */
static void check_buffer(struct ob_dev *dev, unsigned off, const uint8_t *want, size_t n)
{
    uint8_t *at = fake_memory(dev) + 0x8000;

    memset(at, 0, n);
    fake_dma_mode(dev, FAKE_DMA_DIRECT);
    program_dma(dev, BUF + off, FAKE_MEMORY_BASE + 0x8000, n, 3);
    fake_advance(dev, 1);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 2);
    assert_memory_equal(at, want, n);
}

static void test_identity(void **state)
{
    const struct ob_device_class *cls = &ob_class_edu;

    assert_int_equal(cls->pci.vendor, 0x1234);
    assert_int_equal(cls->pci.device, 0x11e8);
    assert_int_equal(cls->bars[0].size, 0x100000);
    assert_int_equal(cls->bars[0].flags, 0);
    assert_true(cls->irqs.intx);
    assert_int_equal(cls->irqs.msi, 1);
    assert_int_equal(get(*state, ID), 0x010000ed);
    set(*state, ID, 0);
    assert_int_equal(get(*state, ID), 0x010000ed);
}

static void test_access_sizes(void **state)
{
    struct ob_dev *dev = *state;

    set(dev, LIVENESS, 0);
    for (unsigned len = 1; len <= 8; len *= 2) {
        if (len == 4)
            continue;
        uint64_t ones = len == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * len)) - 1;

        assert_int_equal(fake_read(dev, 0, ID, len), ones);
        fake_write(dev, 0, LIVENESS, len, 1);
        assert_int_equal(get(dev, LIVENESS), UINT32_MAX);
    }
    fake_write(dev, 0, DMA_SOURCE, 8, UINT64_C(0x1122334455667788));
    assert_int_equal(fake_read(dev, 0, DMA_SOURCE, 8), UINT64_C(0x1122334455667788));
    assert_int_equal(get(dev, DMA_SOURCE), 0x55667788);
    assert_int_equal(fake_read(dev, 0, DMA_SOURCE, 2), 0xffff);
    fake_write(dev, 0, DMA_SOURCE, 1, 0);
    assert_int_equal(get(dev, DMA_SOURCE), 0x55667788);
    set(dev, DMA_SOURCE, 1);
    assert_int_equal(fake_read(dev, 0, DMA_SOURCE, 8), 1);
    set(dev, DMA_SOURCE + 4, 2);
    assert_int_equal(fake_read(dev, 0, DMA_SOURCE, 8), UINT64_C(0x200000001));
}

static void test_reserved(void **state)
{
    static const unsigned reserved[] = { 0x0c, 0x10, 0x28, 0x5c, 0x68, 0x7c, 0xa0, 0x100, BUF, 0xffffc };

    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        set(*state, reserved[i], 0x12345678);
        assert_int_equal(get(*state, reserved[i]), UINT32_MAX);
    }
    assert_int_equal(fake_read(*state, 0, BUF, 8), UINT64_MAX);
    assert_int_equal(get(*state, IRQ_RAISE), UINT32_MAX);
    assert_int_equal(get(*state, IRQ_ACK), UINT32_MAX);
}

static void test_liveness(void **state)
{
    assert_int_equal(get(*state, LIVENESS), 0);
    set(*state, LIVENESS, 0x12345678);
    assert_int_equal(get(*state, LIVENESS), (uint32_t)~0x12345678);
}

static uint32_t factorial(struct ob_dev *dev, uint32_t n)
{
    set(dev, FACTORIAL, n);
    assert_int_equal(get(dev, STATUS) & 1, 1);
    assert_int_equal(get(dev, FACTORIAL), n);
    fake_advance(dev, 1);
    assert_int_equal(get(dev, STATUS) & 1, 0);
    return get(dev, FACTORIAL);
}

static void test_factorial(void **state)
{
    struct ob_dev *dev = *state;
    uint32_t product = 1;

    assert_int_equal(factorial(dev, 0), 1);
    for (uint32_t n = 1; n < 40; n++) {
        product *= n;
        assert_int_equal(factorial(dev, n), product);
    }
    assert_int_equal(factorial(dev, 12), 479001600);
    assert_int_equal(factorial(dev, UINT32_MAX), 0);
    assert_false(fake_irq(dev));

    set(dev, FACTORIAL, 5);
    set(dev, FACTORIAL, 6); /* ignored while computing */
    fake_advance(dev, 1);
    assert_int_equal(get(dev, FACTORIAL), 120);
}

static void test_status(void **state)
{
    struct ob_dev *dev = *state;

    set(dev, STATUS, UINT32_MAX);
    assert_int_equal(get(dev, STATUS), 0x80);
    assert_int_equal(factorial(dev, 4), 24);
    assert_int_equal(get(dev, IRQ_STATUS), 1);
    assert_true(fake_irq(dev));
    set(dev, IRQ_ACK, 1);
    assert_false(fake_irq(dev));
    set(dev, FACTORIAL, 3);
    set(dev, STATUS, 0); /* switched off before it ends; COMPUTING is read-only */
    assert_int_equal(get(dev, STATUS), 1);
    fake_advance(dev, 1);
    assert_false(fake_irq(dev));
}

static void test_interrupt_registers(void **state)
{
    struct ob_dev *dev = *state;

    set(dev, IRQ_STATUS, 5);
    assert_int_equal(get(dev, IRQ_STATUS), 0);
    set(dev, IRQ_RAISE, 0);
    assert_false(fake_irq(dev));
    set(dev, IRQ_RAISE, 0x10);
    set(dev, IRQ_RAISE, 0x80000001);
    assert_int_equal(get(dev, IRQ_STATUS), 0x80000011);
    assert_true(fake_irq(dev));
    assert_int_equal(fake_irq_edges(dev), 1);
    set(dev, IRQ_ACK, 0x10);
    assert_int_equal(get(dev, IRQ_STATUS), 0x80000001);
    assert_true(fake_irq(dev));
    set(dev, IRQ_ACK, UINT32_MAX);
    assert_int_equal(get(dev, IRQ_STATUS), 0);
    assert_false(fake_irq(dev));
}

static void test_msi_each_cause(void **state)
{
    struct ob_dev *dev = *state;

    fake_use_messages(dev, true);
    set(dev, IRQ_RAISE, 1);
    assert_int_equal(fake_irq_edges(dev), 1);
    set(dev, IRQ_RAISE, 2);
    assert_int_equal(fake_irq_edges(dev), 2);
    set(dev, IRQ_ACK, 1);
    assert_int_equal(fake_irq_edges(dev), 2);
    fake_kill_next(dev, FAKE_KILL_AFTER_COMMIT);
    set(dev, IRQ_RAISE, 4);
    assert_true(fake_dead(dev));
    fake_restart(dev);
    assert_int_equal(fake_irq_edges(dev), 3);
    assert_int_equal(get(dev, IRQ_STATUS), 6);
}

static void test_dma_both_ways(void **state)
{
    struct ob_dev *dev = *state;
    uint8_t want[4096];

    for (int messages = 0; messages < 2; messages++) {
        fill(want, sizeof(want), 17 + (unsigned)messages);
        memcpy(fake_memory(dev) + 0x100, want, sizeof(want));
        fake_dma_mode(dev, messages ? FAKE_DMA_MESSAGES : FAKE_DMA_DIRECT);
        program_dma(dev, GUEST, BUF, sizeof(want), 5);
        assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 5);
        assert_int_equal(get(dev, IRQ_STATUS), 0);
        fake_advance(dev, 1);
        if (messages) {
            assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 5);
            fake_dma_answer(dev, 0);
        }
        assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 4);
        assert_int_equal(get(dev, IRQ_STATUS), 0x100);
        assert_true(fake_irq(dev));
        set(dev, IRQ_ACK, 0x100);
        check_buffer(dev, 0, want, sizeof(want));
        check_buffer(dev, 1000, want + 1000, 77);
        assert_false(fake_irq(dev));
    }
}

static void test_dma_registers_locked(void **state)
{
    struct ob_dev *dev = *state;

    fake_write(dev, 0, DMA_COMMAND, 8, 6); /* without RUN: ignored */
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 0);
    program_dma(dev, GUEST, BUF, 4, 1);
    program_dma(dev, 1, 2, 3, 7);
    assert_int_equal(fake_read(dev, 0, DMA_SOURCE, 8), GUEST);
    assert_int_equal(fake_read(dev, 0, DMA_DESTINATION, 8), BUF);
    assert_int_equal(fake_read(dev, 0, DMA_COUNT, 8), 4);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 1);
    fake_advance(dev, 1);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 0);
    fake_advance(dev, 1);
    assert_false(fake_irq(dev));
}

static void test_dma_refused(void **state)
{
    static const struct {
        uint64_t src, dst, count, command;
    } bad[] = {
        { GUEST, BUF, 4097, 5 },
        { GUEST, BUF + 1, 4096, 5 },
        { GUEST, BUF - 1, 4, 5 },
        { GUEST, 0, 4, 5 },
        { GUEST, BUF + 4096, 1, 5 },
        { GUEST, BUF + 4, UINT64_MAX, 5 },
        { GUEST, UINT64_MAX, 4, 5 },
        { BUF - 1, GUEST, 4, 7 },
        { BUF + 4000, GUEST, 97, 7 },
        { GUEST, GUEST, 4, 7 },
        { 0x8000000, BUF, 4, 5 },                               /* no memory there */
        { FAKE_MEMORY_BASE + FAKE_MEMORY_SIZE - 2, BUF, 4, 5 }, /* half of it */
    };
    struct ob_dev *dev = *state;
    uint8_t memory[FAKE_MEMORY_SIZE], zero[4096] = { 0 };

    fill(fake_memory(dev), FAKE_MEMORY_SIZE, 3);
    memcpy(memory, fake_memory(dev), sizeof(memory));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        program_dma(dev, bad[i].src, bad[i].dst, bad[i].count, bad[i].command);
        fake_advance(dev, 1);
        assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), bad[i].command & ~1u);
        assert_int_equal(get(dev, IRQ_STATUS), 0x100);
        set(dev, IRQ_ACK, 0x100);
        assert_memory_equal(fake_memory(dev), memory, sizeof(memory));
    }
    assert_int_equal(fake_log_lines(dev), 1); /* the others came within a second */
    fake_advance(dev, UINT64_C(1000000000));
    program_dma(dev, GUEST, 0, 4, 1);
    fake_advance(dev, 1);
    assert_int_equal(fake_log_lines(dev), 2);
    check_buffer(dev, 0, zero, sizeof(zero));
}

static void test_dma_count_zero(void **state)
{
    program_dma(*state, 0, BUF + 4096, 0, 5);
    fake_advance(*state, 1);
    assert_int_equal(fake_read(*state, 0, DMA_COMMAND, 8), 4);
    assert_int_equal(get(*state, IRQ_STATUS), 0x100);
    assert_int_equal(fake_log_lines(*state), 0);
}

static void test_dma_mask(void **state)
{
    uint8_t want[16];

    fill(want, sizeof(want), 99);
    memcpy(fake_memory(*state) + 0x100, want, sizeof(want));
    program_dma(*state, GUEST | UINT64_C(0xabcdef0070000000), BUF, sizeof(want), 1);
    fake_advance(*state, 1);
    check_buffer(*state, 0, want, sizeof(want));
}

static void test_dma_wide_mask(void **state)
{
    struct ob_dev *dev = *state;
    uint8_t zero[8] = { 0 };

    fill(fake_memory(dev), FAKE_MEMORY_SIZE, 1);
    program_dma(dev, GUEST | 0x10000000, BUF, 8, 1);
    fake_advance(dev, 1);
    assert_int_equal(fake_log_lines(dev), 1);
    program_dma(dev, UINT64_MAX - 3, BUF, 8, 5); /* wraps */
    fake_advance(dev, 1);
    assert_int_equal(get(dev, IRQ_STATUS), 0x100);
    check_buffer(dev, 0, zero, sizeof(zero));
}

static void test_dma_bus_master_off(void **state)
{
    struct ob_dev *dev = *state;

    for (int messages = 0; messages < 2; messages++) {
        fake_dma_mode(dev, messages ? FAKE_DMA_MESSAGES : FAKE_DMA_DIRECT);
        fake_bus_master(dev, false);
        program_dma(dev, GUEST, BUF, 8, 5);
        fake_advance(dev, 1);
        assert_int_equal(fake_dma_waiting(dev), 0);
        assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 4);
        assert_int_equal(get(dev, IRQ_STATUS), 0x100);
        set(dev, IRQ_ACK, 0x100);
        fake_bus_master(dev, true);
    }
}

static void test_dma_disconnect(void **state)
{
    struct ob_dev *dev = *state;
    uint8_t want[8];

    fill(want, sizeof(want), 5);
    memcpy(fake_memory(dev) + 0x100, want, sizeof(want));
    fake_dma_mode(dev, FAKE_DMA_MESSAGES);
    program_dma(dev, GUEST, BUF, sizeof(want), 5);
    fake_advance(dev, 1);
    assert_int_equal(fake_dma_waiting(dev), 1);
    fake_session_end(dev);
    fake_advance(dev, 1000);
    assert_int_equal(fake_dma_waiting(dev), 0);
    assert_false(fake_irq(dev));

    fake_session_begin(dev); /* started anew */
    fake_advance(dev, 1);
    assert_int_equal(fake_dma_waiting(dev), 1);
    fake_dma_answer(dev, 0);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 4);
    assert_int_equal(get(dev, IRQ_STATUS), 0x100);
    check_buffer(dev, 0, want, sizeof(want));

    set(dev, FACTORIAL, 5); /* between the start and the step */
    program_dma(dev, GUEST, BUF, 8, 1);
    fake_session_end(dev);
    fake_advance(dev, 1000);
    fake_session_begin(dev);
    assert_int_equal(get(dev, STATUS), 1);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 1);
    fake_advance(dev, 1);
    assert_int_equal(get(dev, FACTORIAL), 120);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 0);
}

static void test_reset(void **state)
{
    struct ob_dev *dev = *state;
    uint8_t zero[4096] = { 0 };

    fill(fake_memory(dev), FAKE_MEMORY_SIZE, 7);
    program_dma(dev, FAKE_MEMORY_BASE, BUF, 4096, 5);
    fake_advance(dev, 1);
    set(dev, LIVENESS, 1);
    set(dev, STATUS, 0x80);
    set(dev, FACTORIAL, 9);
    program_dma(dev, FAKE_MEMORY_BASE, BUF, 4096, 5);
    assert_true(fake_irq(dev));
    fake_reset(dev, OB_RESET_DEVICE);
    assert_false(fake_irq(dev));
    fake_advance(dev, 1000);
    assert_false(fake_irq(dev));
    for (unsigned reg = LIVENESS; reg <= IRQ_STATUS; reg += 4)
        if (reg <= FACTORIAL || reg >= STATUS)
            assert_int_equal(get(dev, reg), 0);
    for (unsigned reg = DMA_SOURCE; reg <= DMA_COMMAND; reg += 8)
        assert_int_equal(fake_read(dev, 0, reg, 8), 0);
    check_buffer(dev, 0, zero, sizeof(zero));
}

/* A copy that was under way at a reset has no effect, and the next transfer starts when it is out of the way. */
static void test_reset_during_dma(void **state)
{
    struct ob_dev *dev = *state;
    uint8_t want[8];

    fake_dma_mode(dev, FAKE_DMA_MESSAGES);
    program_dma(dev, GUEST, BUF, 8, 5);
    fake_advance(dev, 1);
    fake_reset(dev, OB_RESET_DEVICE);
    fill(fake_memory(dev) + 0x200, 8, 50);
    memcpy(want, fake_memory(dev) + 0x200, 8);
    program_dma(dev, FAKE_MEMORY_BASE + 0x200, BUF, 8, 1);
    fake_advance(dev, 1);
    assert_int_equal(fake_dma_waiting(dev), 1);
    fake_dma_answer(dev, 0);
    assert_false(fake_irq(dev));
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 1);
    assert_int_equal(fake_dma_waiting(dev), 1);
    fake_dma_answer(dev, 0);
    assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 0);
    check_buffer(dev, 0, want, 8);
}

static void test_dma_client_refuses(void **state)
{
    fake_dma_mode(*state, FAKE_DMA_MESSAGES);
    program_dma(*state, GUEST, BUF, 8, 5);
    fake_advance(*state, 1);
    fake_dma_answer(*state, -EIO);
    assert_int_equal(fake_read(*state, 0, DMA_COMMAND, 8), 4);
    assert_int_equal(get(*state, IRQ_STATUS), 0x100);
    assert_int_equal(fake_log_lines(*state), 1);
}

/* Killed at both ends of the commit of every step of a factorial and of a transfer, it goes on as if nothing was. */
static void test_crash(void **state)
{
    struct ob_dev *dev = *state;
    uint8_t want[64];

    for (int kill = FAKE_KILL_BEFORE_COMMIT; kill <= FAKE_KILL_AFTER_COMMIT; kill++)
        for (int messages = 0; messages < 2; messages++) {
            fill(want, sizeof(want), (unsigned)(kill * 2 + messages));
            memcpy(fake_memory(dev) + 0x100, want, sizeof(want));
            fake_dma_mode(dev, messages ? FAKE_DMA_MESSAGES : FAKE_DMA_DIRECT);
            set(dev, STATUS, 0x80);
            set(dev, FACTORIAL, 6);
            fake_kill_next(dev, kill);
            fake_advance(dev, 1);
            assert_true(fake_dead(dev));
            fake_restart(dev);
            fake_advance(dev, 1);
            assert_int_equal(get(dev, FACTORIAL), 720);
            assert_int_equal(get(dev, IRQ_STATUS), 1);
            assert_true(fake_irq(dev));
            set(dev, IRQ_ACK, 1);

            program_dma(dev, GUEST, BUF, sizeof(want), 5);
            fake_kill_next(dev, kill);
            fake_advance(dev, 1);
            assert_true(fake_dead(dev));
            fake_restart(dev);
            fake_advance(dev, 1);
            if (messages) {
                fake_kill_next(dev, kill);
                fake_dma_answer(dev, 0);
                assert_true(fake_dead(dev));
                fake_restart(dev);
                fake_advance(dev, 1);
                if (fake_dma_waiting(dev))
                    fake_dma_answer(dev, 0);
            }
            assert_int_equal(fake_read(dev, 0, DMA_COMMAND, 8), 4);
            assert_int_equal(get(dev, IRQ_STATUS), 0x100);
            assert_true(fake_irq(dev));
            set(dev, IRQ_ACK, 0x100);
            check_buffer(dev, 0, want, sizeof(want));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_access_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_liveness, setup, teardown),
        cmocka_unit_test_setup_teardown(test_factorial, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msi_each_cause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_registers_locked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_count_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_wide_mask, setup_wide_mask, teardown),
        cmocka_unit_test_setup_teardown(test_dma_bus_master_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_disconnect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_during_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_client_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
