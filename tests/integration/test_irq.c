/* test_irq: SET_IRQS in every pair of DATA and ACTION, INTx as a level, MSI; on edu. */
#include "fixture.h"
#include "edu_regs.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define NONE    VFIO_IRQ_SET_DATA_NONE
#define BOOL    VFIO_IRQ_SET_DATA_BOOL
#define EVENTFD VFIO_IRQ_SET_DATA_EVENTFD
#define MASK    VFIO_IRQ_SET_ACTION_MASK
#define UNMASK  VFIO_IRQ_SET_ACTION_UNMASK
#define TRIGGER VFIO_IRQ_SET_ACTION_TRIGGER
#define INTX    VFIO_PCI_INTX_IRQ_INDEX
#define MSI     VFIO_PCI_MSI_IRQ_INDEX

static void raise_irq(struct ob_raw *raw)
{
    ob_write32(raw, EDU_BAR, EDU_IRQ_RAISE, 1);
}

static void ack_irq(struct ob_raw *raw)
{
    ob_write32(raw, EDU_BAR, EDU_IRQ_ACK, UINT32_MAX);
}

/* How often the eventfd has been written once everything sent so far has taken effect, effects of the last commit
 * included: requests are executed in order, one after the other. */
static uint64_t fired(struct ob_raw *raw, int fd)
{
    ob_ok(ob_raw_silent(raw));
    ob_ok(ob_raw_silent(raw));
    return ob_event_take(fd);
}

static int set(struct ob_raw *raw, uint32_t flags, uint32_t index)
{
    return ob_raw_set_irqs(raw, flags, index, 0, 1, NULL, NULL, 0);
}

static int intx_on(struct ob_raw *raw)
{
    int fd = ob_event_new();

    ob_ok(ob_set_eventfds(raw, INTX, 0, 1, &fd));
    return fd;
}

static void test_intx(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw);

    assert_int_equal(fired(&fixture->raw, fd), 0);
    for (int i = 0; i < 5; i++) {
        raise_irq(&fixture->raw);
        assert_int_equal(ob_event_wait(fd), 1);
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_IRQ_STATUS), 1);
        raise_irq(&fixture->raw); /* it masked itself */
        assert_int_equal(fired(&fixture->raw, fd), 0);
        ack_irq(&fixture->raw);
        ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
        assert_int_equal(fired(&fixture->raw, fd), 0);
    }
    close(fd);
}

/* The line is still high when it is unmasked: it interrupts again, as often as it takes. */
static void test_intx_level(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw);

    raise_irq(&fixture->raw);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ob_event_wait(fd), 1);
        ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    }
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    assert_int_equal(fired(&fixture->raw, fd), 0);
    /* An unmask that comes before the acknowledgement is one interrupt too many, not one too few. */
    raise_irq(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    assert_int_equal(fired(&fixture->raw, fd), 0);
    close(fd);
}

static void test_intx_mask(void **state)
{
    const uint8_t yes = 1, no = 0;
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw);

    ob_ok(set(&fixture->raw, NONE | MASK, INTX));
    raise_irq(&fixture->raw);
    assert_int_equal(fired(&fixture->raw, fd), 0);
    ob_ok(ob_raw_set_irqs(&fixture->raw, BOOL | UNMASK, INTX, 0, 1, &no, NULL, 0));
    assert_int_equal(fired(&fixture->raw, fd), 0);
    ob_ok(ob_raw_set_irqs(&fixture->raw, BOOL | UNMASK, INTX, 0, 1, &yes, NULL, 0));
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    ob_ok(ob_raw_set_irqs(&fixture->raw, BOOL | MASK, INTX, 0, 1, &no, NULL, 0));
    raise_irq(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    ob_ok(ob_raw_set_irqs(&fixture->raw, BOOL | MASK, INTX, 0, 1, &yes, NULL, 0));
    raise_irq(&fixture->raw);
    ack_irq(&fixture->raw); /* went away while it was masked */
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    assert_int_equal(fired(&fixture->raw, fd), 0);
    close(fd);
}

/* Under KVM the unmask is an eventfd that the kernel writes when the guest ends the interrupt. */
static void test_intx_unmask_eventfd(void **state)
{
    const uint64_t one = 1;
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw), unmask = ob_event_new();

    ob_ok(ob_raw_set_irqs(&fixture->raw, EVENTFD | UNMASK, INTX, 0, 1, NULL, &unmask, 1));
    raise_irq(&fixture->raw);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ob_event_wait(fd), 1);
        assert_int_equal(write(unmask, &one, sizeof(one)), sizeof(one));
    }
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    assert_int_equal(write(unmask, &one, sizeof(one)), sizeof(one));
    /* Nothing tells when that has been seen but its effect: the next one fires. */
    raise_irq(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    ob_ok(ob_raw_set_irqs(&fixture->raw, EVENTFD | UNMASK, INTX, 0, 1, NULL, NULL, 0)); /* taken away */
    assert_int_equal(write(unmask, &one, sizeof(one)), sizeof(one));
    assert_int_equal(fired(&fixture->raw, fd), 0);
    close(fd);
    close(unmask);
}

static void test_intx_disable_bit(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw);

    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
    raise_irq(&fixture->raw);
    assert_int_equal(fired(&fixture->raw, fd), 0);
    assert_int_equal(ob_config16(&fixture->raw, PCI_STATUS) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY);
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    assert_int_equal(ob_config16(&fixture->raw, PCI_STATUS) & PCI_STATUS_INTERRUPT, 0);
    close(fd);
}

/* The condition came before anybody listened. */
static void test_intx_raised_before(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd;

    raise_irq(&fixture->raw);
    fd = intx_on(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    close(fd);
    fd = intx_on(&fixture->raw); /* another descriptor instead, while masked */
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    assert_int_equal(ob_event_wait(fd), 1);
    close(fd);
}

/* The condition outlives the client that saw it: the next one hears of it. */
static void test_intx_next_client(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw);

    raise_irq(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    assert_int_equal(ob_event_take(fd), 0);
    close(fd);
    fd = intx_on(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    close(fd);
}

static void test_reset_lowers(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = intx_on(&fixture->raw);

    raise_irq(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    ob_ok(ob_raw_reset(&fixture->raw));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_IRQ_STATUS), 0);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    assert_int_equal(fired(&fixture->raw, fd), 0);
    close(fd);
}

static void msi_enable(struct ob_raw *raw, bool on)
{
    uint32_t at = ob_find_capability(raw, PCI_CAP_ID_MSI) + PCI_MSI_FLAGS;
    uint16_t flags = (uint16_t)((ob_config16(raw, at) & ~PCI_MSI_FLAGS_ENABLE) | (on ? PCI_MSI_FLAGS_ENABLE : 0));

    ob_ok(ob_raw_write(raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &flags, sizeof(flags)));
}

static void test_msi(void **state)
{
    struct ob_fixture *fixture = *state;
    int intx = intx_on(&fixture->raw), fd = ob_event_new();

    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    msi_enable(&fixture->raw, true);
    ob_ok(ob_set_eventfds(&fixture->raw, MSI, 0, 1, &fd));
    for (int i = 0; i < 5; i++) { /* no mask, no unmask: each raise is a message */
        raise_irq(&fixture->raw);
        assert_int_equal(ob_event_wait(fd), 1);
        ack_irq(&fixture->raw);
    }
    assert_int_equal(fired(&fixture->raw, intx), 0);
    ob_ok(set(&fixture->raw, NONE | TRIGGER, MSI)); /* the client fires it itself */
    assert_int_equal(ob_event_wait(fd), 1);
    msi_enable(&fixture->raw, false);
    ob_ok(ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, MSI, 0, 0, NULL, NULL, 0));
    raise_irq(&fixture->raw);
    assert_int_equal(fired(&fixture->raw, fd), 0);
    assert_int_equal(ob_event_take(intx), 1);
    close(fd);
    close(intx);
}

/* Without bus mastering a message cannot be sent; it waits. */
static void test_msi_without_master(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_event_new();

    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY);
    msi_enable(&fixture->raw, true);
    ob_ok(ob_set_eventfds(&fixture->raw, MSI, 0, 1, &fd));
    raise_irq(&fixture->raw);
    assert_int_equal(fired(&fixture->raw, fd), 0);
    close(fd);
}

/* Every pair of DATA and ACTION for every index of edu, and what each may answer. */
static void test_every_pair(void **state)
{
    static const uint32_t data[] = { NONE, BOOL, EVENTFD }, actions[] = { MASK, UNMASK, TRIGGER };
    struct ob_fixture *fixture = *state;
    const uint8_t yes = 1;
    int fd = ob_event_new();

    for (uint32_t index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        struct vfio_irq_info info;

        ob_ok(ob_raw_irq_info(&fixture->raw, index, &info));
        for (int d = 0; d < 3; d++) {
            for (int a = 0; a < 3; a++) {
                bool possible = info.count > 0 && (actions[a] == TRIGGER || (info.flags & VFIO_IRQ_INFO_MASKABLE));
                int r = ob_raw_set_irqs(&fixture->raw, data[d] | actions[a], index, 0, 1, d == 1 ? &yes : NULL,
                                        d == 2 ? &fd : NULL, d == 2);

                if (r != (possible ? 0 : EINVAL)) {
                    fail_msg("index %u, data %#x, action %#x: %d", index, data[d], actions[a], r);
                }
            }
        }
        if (info.count > 0) { /* all off; off again */
            ob_ok(ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, index, 0, 0, NULL, NULL, 0));
            ob_ok(ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, index, 0, 0, NULL, NULL, 0));
        }
    }
    close(fd);
}

static void test_bad_flags(void **state)
{
    struct ob_fixture *fixture = *state;

    for (uint32_t flags = 0; flags < 128; flags++) {
        uint32_t data = flags & VFIO_IRQ_SET_DATA_TYPE_MASK, action = flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
        bool good = flags < 64 && __builtin_popcount(data) == 1 && __builtin_popcount(action) == 1;

        if (!good) {
            assert_int_equal(set(&fixture->raw, flags, INTX), EINVAL);
        }
    }
    assert_int_equal(set(&fixture->raw, NONE | TRIGGER | 0x80000000, INTX), EINVAL);
}

static void test_bad_ranges(void **state)
{
    static const struct {
        uint32_t index, start, count;
    } bad[] = { { INTX, 1, 1 },
                { INTX, 0, 2 },
                { INTX, UINT32_MAX, 1 },
                { INTX, 1, UINT32_MAX },
                { INTX, 0, UINT32_MAX },
                { INTX, 1, 0 },
                { MSI, 1, 1 },
                { MSI, 0, 33 },
                { MSI, UINT32_MAX, 2 },
                { VFIO_PCI_MSIX_IRQ_INDEX, 0, 1 },
                { VFIO_PCI_NUM_IRQS, 0, 1 },
                { 99, 0, 0 },
                { UINT32_MAX, 0, 1 } };
    struct ob_fixture *fixture = *state;
    int fds[2] = { ob_event_new(), ob_event_new() };
    const uint8_t yes[2] = { 1, 1 };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(
            ob_raw_set_irqs(&fixture->raw, NONE | TRIGGER, bad[i].index, bad[i].start, bad[i].count, NULL, NULL, 0),
            EINVAL);
    }
    assert_int_equal(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, INTX, 0, 1, NULL, fds, 2), EINVAL);
    assert_int_equal(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, INTX, 0, 2, NULL, fds, 2), EINVAL);
    assert_int_equal(ob_raw_set_irqs(&fixture->raw, BOOL | TRIGGER, INTX, 0, 2, yes, NULL, 0), EINVAL);
    close(fds[0]);
    close(fds[1]);
}

/* argsz and the length of the bools disagree with the message. */
static void test_bad_sizes(void **state)
{
    struct ob_fixture *fixture = *state;
    union {
        struct vfio_irq_set set;
        uint8_t bytes[sizeof(struct vfio_irq_set) + 8];
    } request = { .set = { .flags = BOOL | TRIGGER, .index = INTX, .count = 1 } };

    for (size_t size = sizeof(request.set); size <= sizeof(request); size++) {
        request.set.argsz = (uint32_t)size;
        if (size != sizeof(request.set) + 1) {
            assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_SET_IRQS, &request, size, NULL, 0, NULL), EINVAL);
        }
    }
    request.set.argsz = 19;
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_SET_IRQS, &request, sizeof(request.set) + 1, NULL, 0, NULL),
                     EINVAL);
    request.set.count = UINT32_MAX;
    request.set.argsz = sizeof(request.set) + 1;
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_SET_IRQS, &request, sizeof(request.set) + 1, NULL, 0, NULL),
                     EINVAL);
}

/* Descriptors that are no eventfds: one that never takes a write would hang whoever fires it. */
static void test_no_eventfd(void **state)
{
    struct ob_fixture *fixture = *state;
    int ends[2], memory = ob_guest_memory(4096), good = intx_on(&fixture->raw);

    assert_int_equal(pipe(ends), 0);
    assert_true(ob_set_eventfds(&fixture->raw, INTX, 0, 1, &ends[1]) > 0);
    assert_true(ob_set_eventfds(&fixture->raw, INTX, 0, 1, &memory) > 0);
    raise_irq(&fixture->raw); /* what was refused did not replace what was there */
    assert_int_equal(ob_event_wait(good), 1);
    close(ends[0]);
    close(ends[1]);
    close(memory);
    close(good);
}

/* An eventfd whose counter is full: the server must not wait for room in it. */
static void test_full_eventfd(void **state)
{
    const uint64_t full = UINT64_MAX - 1;
    struct ob_fixture *fixture = *state;
    int fd = ob_event_new();

    assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
    ob_ok(ob_set_eventfds(&fixture->raw, INTX, 0, 1, &fd));
    raise_irq(&fixture->raw);
    ob_ok(set(&fixture->raw, NONE | TRIGGER, INTX));
    ob_ok(ob_raw_silent(&fixture->raw));
    assert_int_equal(ob_event_take(fd), full);
    close(fd);
}

/* As QEMU does it: EVENTFD with a count and no descriptor, then with; and as it takes it away. */
static void test_deassign(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_event_new();

    ob_ok(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, INTX, 0, 1, NULL, NULL, 0));
    ob_ok(ob_set_eventfds(&fixture->raw, INTX, 0, 1, &fd));
    raise_irq(&fixture->raw);
    assert_int_equal(ob_event_wait(fd), 1);
    ack_irq(&fixture->raw);
    ob_ok(set(&fixture->raw, NONE | UNMASK, INTX));
    ob_ok(ob_raw_set_irqs(&fixture->raw, EVENTFD | TRIGGER, INTX, 0, 1, NULL, NULL, 0));
    raise_irq(&fixture->raw);
    assert_int_equal(fired(&fixture->raw, fd), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_intx),
        OB_TEST(test_intx_level),
        OB_TEST(test_intx_mask),
        OB_TEST(test_intx_unmask_eventfd),
        OB_TEST(test_intx_disable_bit),
        OB_TEST(test_intx_raised_before),
        OB_TEST(test_intx_next_client),
        OB_TEST(test_reset_lowers),
        OB_TEST(test_msi),
        OB_TEST(test_msi_without_master),
        OB_TEST(test_every_pair),
        OB_TEST(test_bad_flags),
        OB_TEST(test_bad_ranges),
        OB_TEST(test_bad_sizes),
        OB_TEST(test_no_eventfd),
        OB_TEST(test_full_eventfd),
        OB_TEST(test_deassign),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
