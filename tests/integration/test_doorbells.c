/* test_doorbells: GET_REGION_IO_FDS, writes that ring by eventfd and by message; and the interrupts that tell the
 * client and not the guest, ERR and REQ. */
#include "bells.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdio.h>

#define MATCH KVM_IOEVENTFD_FLAG_DATAMATCH
#define PIO   KVM_IOEVENTFD_FLAG_PIO

static void renegotiate(struct ob_fixture *fixture, const char *capabilities)
{
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_version(&fixture->raw, 0, 0, capabilities, NULL));
}

static void test_list(void **state)
{
    static const struct bell expected[] = {
        { .offset = 0x100, .size = 4, .fd_index = 0 },
        { .offset = 0x104, .size = 4, .fd_index = 0 },
        { .offset = 0x108, .size = 2, .fd_index = 1, .flags = MATCH, .datamatch = 0x1234 },
        { .offset = 0x108, .size = 2, .fd_index = 2, .flags = MATCH, .datamatch = 0x4321 },
        { .offset = 0x110, .size = 8, .fd_index = 3 },
        { .offset = 0x118, .size = 1, .fd_index = 3 },
    };
    struct ob_fixture *fixture = *state;
    struct bells bells;

    bells_ask(&fixture->raw, TD_BAR, 4096, &bells);
    assert_int_equal(bells.head.argsz, 16 + 6 * 40);
    assert_int_equal(bells.head.flags, 0);
    assert_int_equal(bells.head.index, TD_BAR);
    assert_int_equal(bells.head.count, 6);
    assert_int_equal(bells.n, 6);
    assert_int_equal(bells.nfds, 4);
    for (unsigned i = 0; i < 6; i++) {
        struct bell entry = bells.entries[i];

        if (entry.flags & MATCH) { /* two at one place come in any order */
            assert_true(entry.fd_index == 1 || entry.fd_index == 2);
            entry.fd_index = entry.datamatch == 0x1234 ? 1 : 2;
            assert_memory_equal(&entry, &expected[entry.fd_index + 1], sizeof(entry));
        } else {
            assert_memory_equal(&entry, &expected[i], sizeof(entry));
        }
    }
    bells_close(&bells);
    bells_ask(&fixture->raw, 1, 4096, &bells);
    assert_int_equal(bells.n, 1);
    assert_int_equal(bells.entries[0].flags, PIO);
    bells_close(&bells);
}

/* Regions without: an empty list. No region: EINVAL. */
static void test_none(void **state)
{
    static const uint32_t without[] = { 2, 3, 4, 5, 6, 7, 8, TD_WHOLE, TD_LOG, TD_ADD };
    struct ob_fixture *fixture = *state;
    struct ob_raw_io_fds request = { .argsz = 4096, .index = TD_REGIONS };
    struct bells bells;

    for (unsigned i = 0; i < sizeof(without) / sizeof(*without); i++) {
        bells_ask(&fixture->raw, without[i], 4096, &bells);
        assert_int_equal(bells.head.argsz, 16);
        assert_int_equal(bells.head.count, 0);
        assert_int_equal(bells.n, 0);
        assert_int_equal(bells.nfds, 0);
    }
    assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), NULL, 0, NULL),
                     EINVAL);
}

static void test_argsz(void **state)
{
    struct ob_fixture *fixture = *state;
    struct bells bells;

    for (uint32_t argsz = 16; argsz < 16 + 6 * 40; argsz++) {
        bells_ask(&fixture->raw, TD_BAR, argsz, &bells);
        assert_int_equal(bells.head.argsz, 16 + 6 * 40);
        assert_int_equal(bells.head.count, 6);
        assert_int_equal(bells.n, 0);
        assert_int_equal(bells.nfds, 0);
    }
    bells_ask(&fixture->raw, TD_BAR, 16 + 6 * 40, &bells);
    assert_int_equal(bells.n, 6);
    assert_int_equal(bells.nfds, 4);
    bells_close(&bells);
}

/* Whoever takes few descriptors gets the doorbells of few events, and never more than it takes. */
static void test_max_msg_fds(void **state)
{
    static const struct {
        unsigned limit, bar_bells, bells;
    } cases[] = { { 0, 0, 0 }, { 1, 2, 1 }, { 2, 3, 2 }, { 3, 4, 3 }, { 4, 6, 4 }, { 20, 6, 20 }, { 32, 6, 20 } };
    struct ob_fixture *fixture = *state;
    struct bells bells;
    char offer[80];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        snprintf(offer, sizeof(offer), "{\"capabilities\":{\"max_msg_fds\":%u}}", cases[i].limit);
        renegotiate(fixture, offer);
        bells_ask(&fixture->raw, TD_BAR, 4096, &bells);
        assert_int_equal(bells.n, cases[i].bar_bells);
        assert_in_range(bells.nfds, 0, cases[i].limit);
        bells_close(&bells);
        bells_ask(&fixture->raw, TD_BELLS, 4096, &bells);
        assert_int_equal(bells.n, cases[i].bells);
        assert_int_equal(bells.nfds, cases[i].bells);
        bells_close(&bells);
    }
    renegotiate(fixture, "{}"); /* says nothing, so takes one */
    bells_ask(&fixture->raw, TD_BELLS, 4096, &bells);
    assert_int_equal(bells.nfds, 1);
    bells_close(&bells);
}

static void await_count(struct ob_raw *raw, unsigned event, uint32_t count)
{
    ob_wait_register(raw, TD_BAR, TD_RINGS + 4 * event, UINT32_MAX, count);
}

/* Each way rings the same event, once, whoever listens: the worker (0 to 2) or the control loop. */
static void test_rings(void **state)
{
    static const struct {
        uint32_t region;
        uint64_t offset, value;
        uint32_t size;
        unsigned event;
    } writes[] = { { TD_BAR, 0x100, 0, 4, 0 },
                   { TD_BAR, 0x104, 9, 4, 0 },
                   { TD_BAR, 0x108, 0x1234, 2, 1 },
                   { TD_BAR, 0x108, 0x4321, 2, 2 },
                   { TD_BAR, 0x110, 1ull << 63, 8, 3 },
                   { TD_BAR, 0x118, 0xff, 1, 3 },
                   { 1, 0x0c, 1, 4, 4 },
                   { TD_MIXED, 0x100, 1, 4, 5 },
                   { TD_BELLS, 0, 1, 4, 6 },
                   { TD_BELLS, 0x4c, 1, 4, 25 } };
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;

    renegotiate(fixture, "{\"capabilities\":{\"max_msg_fds\":32,\"write_multiple\":true}}");
    for (unsigned i = 0; i < sizeof(writes) / sizeof(*writes); i++) {
        struct ob_raw_one_write multi[3];
        uint32_t before = bells_count(raw, writes[i].event);
        struct bells bells;
        uint64_t n = 0;

        ob_ok(ob_raw_write(raw, writes[i].region, writes[i].offset, &writes[i].value, writes[i].size));
        await_count(raw, writes[i].event, before + 1);
        ob_ok(ob_raw_post(raw, writes[i].region, writes[i].offset, &writes[i].value, writes[i].size));
        await_count(raw, writes[i].event, before + 2);
        for (unsigned k = 0; k < 3; k++) {
            multi[k] = (struct ob_raw_one_write){ writes[i].offset, writes[i].region, writes[i].size, { 0 } };
            memcpy(multi[k].data, &writes[i].value, writes[i].size);
        }
        ob_ok(ob_raw_write_multi(raw, multi, 3, &n));
        assert_int_equal(n, 3);
        await_count(raw, writes[i].event, before + 5);
        bells_ask(raw, writes[i].region, 4096, &bells);
        for (unsigned k = 0; k < bells.n; k++) {
            const struct bell *bell = &bells.entries[k];

            if (bell->offset == writes[i].offset && (!(bell->flags & MATCH) || bell->datamatch == writes[i].value)) {
                bells_ring(&bells, k);
                n++;
            }
        }
        assert_int_equal(n, 4);
        await_count(raw, writes[i].event, before + 6);
        bells_close(&bells);
    }
}

/* Other accesses at a doorbell are not its: of another size, of another value, reads. What lies beneath gets them, and
 * does not get the doorbell's. */
static void test_beneath(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    uint64_t wide = 0x1234432112341234;
    uint32_t before[6];
    uint8_t byte = 0x77;

    for (unsigned e = 0; e < 6; e++) {
        before[e] = bells_count(raw, e);
    }
    ob_write32(raw, TD_MIXED, 0x100, 0x5555); /* rings */
    assert_int_equal(ob_read32(raw, TD_MIXED, 0x100), 0xcafe);
    ob_ok(ob_raw_write(raw, TD_MIXED, 0x101, &byte, 1));
    assert_int_equal(ob_read32(raw, TD_MIXED, 0x100), 0x77fe);
    ob_ok(ob_raw_write(raw, TD_BAR, 0x100, &wide, 8));
    ob_ok(ob_raw_write(raw, TD_BAR, 0xfc, &wide, 8)); /* its second half is as long as a doorbell */
    ob_ok(ob_raw_write(raw, TD_BAR, 0x108, &wide, 4));
    ob_ok(ob_raw_write(raw, TD_BAR, 0x108, &byte, 1));
    ob_ok(ob_raw_write(raw, TD_BAR, 0x109, &wide, 2));
    byte = 0x34;
    ob_ok(ob_raw_write(raw, TD_BAR, 0x108, &byte, 1));
    wide = 0x1235;
    ob_ok(ob_raw_write(raw, TD_BAR, 0x108, &wide, 2));
    assert_int_equal(ob_read32(raw, TD_BAR, 0x100), UINT32_MAX);
    ob_write32(raw, TD_BAR, 0x100, 1); /* and now the worker's and the control loop's, behind all that */
    ob_write32(raw, 1, 0x0c, 1);
    await_count(raw, 0, before[0] + 1);
    await_count(raw, 4, before[4] + 1);
    await_count(raw, 5, before[5] + 1);
    assert_int_equal(bells_count(raw, 1), before[1]);
    assert_int_equal(bells_count(raw, 2), before[2]);
    assert_int_equal(bells_count(raw, 3), before[3]);
}

/* An eventfd is the client's too: full, and in blocking mode, it holds up nobody. */
static void test_hostile_eventfd(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    const uint64_t most = UINT64_MAX - 1;
    struct bells bells;
    uint64_t taken;

    bells_ask(raw, TD_BAR, 4096, &bells);
    for (unsigned i = 0; i < bells.nfds; i++) {
        assert_int_equal(fcntl(bells.fds[i], F_SETFL, 0), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        struct pollfd room = { .fd = bells.fds[3], .events = POLLOUT };

        if (poll(&room, 1, 0) == 1) {
            /* Without waiting, which the mode would have us do: the counter may not have been read. */
            assert_int_equal(fcntl(bells.fds[3], F_SETFL, O_NONBLOCK), 0);
            (void)!write(bells.fds[3], &most, sizeof(most));
            assert_int_equal(fcntl(bells.fds[3], F_SETFL, 0), 0);
        }
        ob_ok(ob_raw_write(raw, TD_BAR, 0x110, &most, 8));
        ob_write32(raw, TD_BAR, 0x100, 1);
    }
    /* Taking rings away before the device sees them. */
    assert_int_equal(fcntl(bells.fds[3], F_SETFL, O_NONBLOCK), 0);
    for (unsigned i = 0; i < 100; i++) {
        ob_ok(ob_raw_post(raw, TD_BAR, 0x110, &most, 8));
        (void)!read(bells.fds[3], &taken, sizeof(taken));
    }
    ob_ok(ob_raw_silent(raw));
    bells_close(&bells);
}

/* --- ERR and REQ ------------------------------------------------------------------------------------------------- */

static void check_notify(struct ob_raw *raw, uint32_t index, uint32_t bit, const int *events, unsigned which)
{
    for (uint32_t by = 0; by <= TD_BY_WORKER; by += TD_BY_WORKER) {
        ob_write32(raw, TD_BAR, TD_NOTIFY, bit | by);
        assert_int_equal(ob_event_wait(events[which]), 1);
        assert_int_equal(ob_event_take(events[!which]), 0);
    }
    /* What fails raises nothing; the next one shows that nothing is on its way. */
    uint32_t failing = bit | TD_FAIL;
    assert_int_equal(ob_raw_write(raw, TD_BAR, TD_NOTIFY, &failing, 4), EIO);
    assert_int_equal(ob_event_take(events[which]), 0);
    /* Nobody to tell: forgotten. */
    ob_ok(ob_raw_set_irqs(raw, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 1, NULL, NULL, 0));
    ob_write32(raw, TD_BAR, TD_NOTIFY, bit);
    ob_ok(ob_set_eventfds(raw, index, 0, 1, &events[which]));
    ob_ok(ob_raw_silent(raw));
    assert_int_equal(ob_event_take(events[which]), 0);
    ob_write32(raw, TD_BAR, TD_NOTIFY, bit);
    assert_int_equal(ob_event_take(events[which]), 1); /* with the commit, and so before the reply */
}

static void test_notify(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    int events[2] = { ob_event_new(), ob_event_new() };

    ob_ok(ob_set_eventfds(raw, VFIO_PCI_ERR_IRQ_INDEX, 0, 1, &events[0]));
    ob_ok(ob_set_eventfds(raw, VFIO_PCI_REQ_IRQ_INDEX, 0, 1, &events[1]));
    ob_set_command(raw, 0); /* bus mastering off, as interrupts of the guest's would have it: no matter */
    check_notify(raw, VFIO_PCI_ERR_IRQ_INDEX, TD_NOTIFY_ERR, events, 0);
    check_notify(raw, VFIO_PCI_REQ_IRQ_INDEX, TD_NOTIFY_REQ, events, 1);
    ob_write32(raw, TD_BAR, TD_NOTIFY, TD_NOTIFY_ERR | TD_NOTIFY_REQ);
    assert_int_equal(ob_event_take(events[0]), 1);
    assert_int_equal(ob_event_take(events[1]), 1);
    close(events[0]);
    close(events[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_list),  OB_TEST(test_none),    OB_TEST(test_argsz),           OB_TEST(test_max_msg_fds),
        OB_TEST(test_rings), OB_TEST(test_beneath), OB_TEST(test_hostile_eventfd), OB_TEST(test_notify),
    };

    return cmocka_run_group_tests(tests, ob_fixture_testdev, ob_fixture_stop);
}
