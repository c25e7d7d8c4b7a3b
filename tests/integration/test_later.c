/* test_later: requests that a device keeps: replies stay in order whatever finishes first, deadlines, late answers. */
#include "fixture.h"
#include "testdev_regs.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Sends a read of 4 bytes, and does not wait. */
static uint16_t send_read(struct ob_raw *raw, uint64_t offset)
{
    struct ob_raw_region access = { .offset = offset, .region = TD_BAR, .count = 4 };
    uint16_t id;

    ob_ok(ob_raw_request(raw, OB_RAW_REGION_READ, 0, &access, sizeof(access), NULL, 0, &id));
    return id;
}

static uint16_t send_write(struct ob_raw *raw, uint64_t offset, uint32_t value)
{
    struct {
        struct ob_raw_region region;
        uint32_t value;
    } OB_RAW_PACKED access = { { .offset = offset, .region = TD_BAR, .count = 4 }, value };
    uint16_t id;

    ob_ok(ob_raw_request(raw, OB_RAW_REGION_WRITE, 0, &access, sizeof(access), NULL, 0, &id));
    return id;
}

/* Arms the answer and sends the read that it answers, in one piece: nothing comes between them, the timer least of all.
 * `flags` are the read's. */
static void send_kept(struct ob_raw *raw, uint32_t ns, uint32_t flags, uint16_t *arm, uint16_t *kept)
{
    struct {
        struct ob_raw_region region;
        uint32_t value;
    } OB_RAW_PACKED write = { { .offset = TD_KEEP_NS, .region = TD_BAR, .count = 4 }, ns };
    struct ob_raw_region read = { .offset = TD_KEEP, .region = TD_BAR, .count = 4 };
    uint8_t bytes[2 * sizeof(struct ob_raw_header) + sizeof(write) + sizeof(read)];
    size_t size;

    *arm = raw->next_id++;
    *kept = raw->next_id++;
    size = ob_raw_build(bytes, *arm, OB_RAW_REGION_WRITE, 0, &write, sizeof(write));
    size += ob_raw_build(bytes + size, *kept, OB_RAW_REGION_READ, flags, &read, sizeof(read));
    ob_ok(ob_raw_send(raw, bytes, size, NULL, 0));
}

/* The reply to a read: 0 and its value, or the errno. */
static int take_read(struct ob_raw *raw, uint16_t id, uint32_t *value)
{
    struct ob_raw_message *reply = NULL;
    int r = ob_raw_reply(raw, id, OB_RAW_REGION_READ, &reply);

    if (r == 0) {
        assert_int_equal(reply->size, sizeof(struct ob_raw_region) + 4);
        memcpy(value, reply->payload + sizeof(struct ob_raw_region), 4);
        ob_raw_message_free(reply);
    }
    return r;
}

static void expect_read(struct ob_raw *raw, uint16_t id, uint32_t expected)
{
    uint32_t value = ~expected;

    ob_ok(take_read(raw, id, &value));
    assert_int_equal(value, expected);
}

static void expect_write(struct ob_raw *raw, uint16_t id)
{
    ob_ok(ob_raw_reply(raw, id, OB_RAW_REGION_WRITE, NULL));
}

/* A read that is kept for so long, and answered then. */
static void keep_for(struct ob_raw *raw, uint32_t ns)
{
    uint16_t arm, kept;

    send_kept(raw, ns, 0, &arm, &kept);
    expect_write(raw, arm);
    expect_read(raw, kept, TD_TIMED_OUT);
}

/* What comes behind a kept request is neither executed nor answered before it, and then in order. */
static void test_order(void **state)
{
    struct ob_fixture *fixture = *state;

    for (uint32_t i = 1; i < 20; i++) {
        uint16_t arm, kept, id, tick, count;

        ob_write32(&fixture->raw, TD_BAR, TD_SCRATCH, i);
        send_kept(&fixture->raw, 2000000, 0, &arm, &kept);
        id = send_read(&fixture->raw, TD_ID);
        tick = send_write(&fixture->raw, TD_TICK, 1);
        count = send_read(&fixture->raw, TD_COUNT);
        expect_write(&fixture->raw, arm);
        expect_read(&fixture->raw, kept, TD_TIMED_OUT);
        expect_read(&fixture->raw, id, TD_ID_VALUE);
        expect_write(&fixture->raw, tick);
        expect_read(&fixture->raw, count, i);
    }
}

/* Answered by a timer of the device's, with nothing else happening. */
static void test_answered_by_timer(void **state)
{
    struct ob_fixture *fixture = *state;

    keep_for(&fixture->raw, 20000000);
}

/* Answered by a worker thread, in the middle of answers of the control thread's. */
static void test_answered_by_worker(void **state)
{
    struct ob_fixture *fixture = *state;
    uint16_t ids[3 * 10];

    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 10; k++) {
            ids[3 * k] = send_read(&fixture->raw, TD_ASYNC);
            ids[3 * k + 1] = send_write(&fixture->raw, TD_SCRATCH, (uint32_t)(i * 10 + k));
            ids[3 * k + 2] = send_read(&fixture->raw, TD_SCRATCH);
        }
        for (int k = 0; k < 10; k++) {
            expect_read(&fixture->raw, ids[3 * k], TD_ASYNC_VALUE);
            expect_write(&fixture->raw, ids[3 * k + 1]);
            expect_read(&fixture->raw, ids[3 * k + 2], (uint32_t)(i * 10 + k));
        }
    }
}

/* Nobody answers: an error by the deadline, below the 5 s after which QEMU gives up; what was sent behind it is
 * answered at once then. The late answer goes nowhere, and a request kept after that is not confused by it. */
static void test_deadline(void **state)
{
    struct ob_fixture *fixture = *state;
    int64_t start = now_ms();
    uint16_t kept = send_read(&fixture->raw, TD_KEEP), id = send_read(&fixture->raw, TD_ID);
    uint32_t value;

    assert_true(take_read(&fixture->raw, kept, &value) > 0);
    assert_in_range(now_ms() - start, 1000, 4900);
    expect_read(&fixture->raw, id, TD_ID_VALUE);
    assert_in_range(now_ms() - start, 1000, 4900);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_KEPT), 1);
    ob_write32(&fixture->raw, TD_BAR, TD_RELEASE, 5);
    ob_ok(ob_raw_silent(&fixture->raw));
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_KEPT), 0);
    keep_for(&fixture->raw, 2000000);
}

/* The deadline counts from when a request came, and not from when it was its turn: a client that pipelines waits for
 * none of them longer. */
static void test_deadline_pipelined(void **state)
{
    struct ob_fixture *fixture = *state;
    int64_t start = now_ms();
    uint16_t kept[3], id;
    uint32_t value;

    for (int i = 0; i < 3; i++)
        kept[i] = send_read(&fixture->raw, TD_KEEP);
    id = send_read(&fixture->raw, TD_ID);
    for (int i = 0; i < 3; i++)
        assert_true(take_read(&fixture->raw, kept[i], &value) > 0);
    expect_read(&fixture->raw, id, TD_ID_VALUE);
    assert_in_range(now_ms() - start, 1000, 4900);
    /* One that comes after them has its own time. */
    start = now_ms();
    kept[0] = send_read(&fixture->raw, TD_KEEP);
    assert_true(take_read(&fixture->raw, kept[0], &value) > 0);
    assert_in_range(now_ms() - start, 1000, 4900);
    ob_write32(&fixture->raw, TD_BAR, TD_RELEASE, 5);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_KEPT), 0);
}

/* Interrupts and timers go on while a request is kept. */
static void test_alive_while_kept(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t at = ob_find_capability(&fixture->raw, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS;
    uint16_t on = PCI_MSIX_FLAGS_ENABLE, arm, kept;
    int event = ob_event_new();

    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &on, sizeof(on)));
    ob_ok(ob_set_eventfds(&fixture->raw, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &event));
    ob_write32(&fixture->raw, TD_BAR, TD_TIMER_NS, 5000000);
    send_kept(&fixture->raw, 300000000, 0, &arm, &kept);
    expect_write(&fixture->raw, arm);
    assert_int_equal(ob_event_wait(event), 1);
    assert_null(fixture->raw.queue);
    expect_read(&fixture->raw, kept, TD_TIMED_OUT);
    close(event);
}

static void test_posted_kept(void **state)
{
    struct ob_fixture *fixture = *state;
    uint16_t arm, kept;

    send_kept(&fixture->raw, 5000000, OB_RAW_NO_REPLY, &arm, &kept);
    expect_write(&fixture->raw, arm);
    ob_ok(ob_raw_silent(&fixture->raw));
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_KEPT), 0);
}

/* The client goes while the device keeps its request: the next one has nothing of it. */
static void test_disconnect(void **state)
{
    struct ob_fixture *fixture = *state;

    for (int i = 0; i < 5; i++) {
        send_read(&fixture->raw, i % 2 ? TD_KEEP : TD_ASYNC);
        send_read(&fixture->raw, TD_ID);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_KEPT), 0);
        keep_for(&fixture->raw, 2000000);
    }
}

/* A refused request leaves state as it was, and a kept or refused one does not undo its neighbours. */
static void test_errors_undo(void **state)
{
    static const uint8_t errors[] = { EIO, EINVAL, ENOSPC, EFAULT, EAGAIN, 255 };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(errors); i++) {
        uint32_t value = 5, before;

        ob_write32(&fixture->raw, TD_BAR, TD_TICK, 10);
        before = ob_read32(&fixture->raw, TD_BAR, TD_COUNT);
        ob_write32(&fixture->raw, TD_BAR, TD_ERROR_CODE, errors[i]);
        assert_int_equal(ob_raw_write(&fixture->raw, TD_BAR, TD_ERROR, &value, 4), errors[i]);
        assert_int_equal(ob_raw_read(&fixture->raw, TD_BAR, TD_ERROR, &value, 4), errors[i]);
        assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_COUNT), before);
    }
    ob_write32(&fixture->raw, TD_BAR, TD_ERROR_CODE, 0);
    ob_write32(&fixture->raw, TD_BAR, TD_ERROR, 1);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_COUNT), 10 * sizeof(errors) + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_order),

        OB_TEST(test_answered_by_timer),
        OB_TEST(test_answered_by_worker),
        OB_TEST(test_deadline),
        OB_TEST(test_deadline_pipelined),
        OB_TEST(test_alive_while_kept),
        OB_TEST(test_posted_kept),
        OB_TEST(test_disconnect),
        OB_TEST(test_errors_undo),
    };

    return cmocka_run_group_tests(tests, ob_fixture_testdev, ob_fixture_stop);
}
