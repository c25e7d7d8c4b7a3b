/* Migration as a client and a device's author see it: every arc between states, what works in which, features, classes
 * that take their time or refuse to stop. */
#include "mover.h"

/* --- States ------------------------------------------------------------------------------------------------------ */

/* The arcs that have actions, from the text of <linux/vfio.h>. */
static const uint8_t arcs[][2] = {
    { MIG_RUNNING_P2P, MIG_STOP },         { MIG_STOP_COPY, MIG_STOP },           { MIG_RESUMING, MIG_STOP },
    { MIG_RUNNING_P2P, MIG_RUNNING },      { MIG_PRE_COPY, MIG_RUNNING },         { MIG_RUNNING, MIG_RUNNING_P2P },
    { MIG_STOP, MIG_RUNNING_P2P },         { MIG_PRE_COPY_P2P, MIG_RUNNING_P2P }, { MIG_RUNNING, MIG_PRE_COPY },
    { MIG_RUNNING_P2P, MIG_PRE_COPY_P2P }, { MIG_STOP, MIG_STOP_COPY },           { MIG_STOP, MIG_RESUMING },
    { MIG_PRE_COPY, MIG_PRE_COPY_P2P },    { MIG_PRE_COPY_P2P, MIG_PRE_COPY },    { MIG_PRE_COPY_P2P, MIG_STOP_COPY },
};

static bool saves(unsigned state)
{
    return state == MIG_PRE_COPY || state == MIG_PRE_COPY_P2P || state == MIG_STOP_COPY;
}

/* Whether there is a way: shortest first, without saving states inside it. */
static bool way(unsigned from, unsigned to)
{
    bool reached[MIG_STATES] = { false };

    if (from == MIG_ERROR || to == MIG_ERROR)
        return false;
    reached[from] = true;
    for (unsigned round = 0; round < MIG_STATES; round++) {
        bool before[MIG_STATES];

        memcpy(before, reached, sizeof(before));
        for (size_t i = 0; i < sizeof(arcs) / sizeof(arcs[0]); i++)
            if (before[arcs[i][0]] && (arcs[i][0] == from || !saves(arcs[i][0])))
                reached[arcs[i][1]] = true;
    }
    return reached[to];
}

/* STOP_COPY -> PRE_COPY and -> PRE_COPY_P2P are "not permitted", though ways could be made up. */
static bool permitted(unsigned from, unsigned to)
{
    if (from == MIG_STOP_COPY && (to == MIG_PRE_COPY || to == MIG_PRE_COPY_P2P))
        return false;
    return way(from, to);
}

/* Brings the device to a state, with a stream loaded if it is RESUMING. */
static void bring(struct bench *b, unsigned state)
{
    if (state == MIG_ERROR) {
        ok(mig_set_state(&b->raw, MIG_RESUMING));
        assert_int_not_equal(mig_set_state(&b->raw, MIG_STOP), 0);
    } else {
        ok(mig_set_state(&b->raw, (enum mig_state)state));
        if (state == MIG_RESUMING)
            ok(mig_write_all(&b->raw, 100000, whole, whole_size));
    }
    assert_int_equal(state_of(b), state);
}

static void test_every_arc(void **unused)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    for (unsigned from = 0; from < MIG_STATES; from++) {
        for (unsigned to = 0; to < MIG_STATES; to++) {
            ok(ob_raw_reset(&b.raw));
            assert_int_equal(state_of(&b), MIG_RUNNING);
            bring(&b, from);
            int r = mig_set_state(&b.raw, (enum mig_state)to);
            if (r != (permitted(from, to) ? 0 : EINVAL))
                fail_msg("from %u to %u: %d", from, to, r);
            assert_int_equal(state_of(&b), r ? from : to);
        }
    }
    struct vfio_device_feature_mig_state beyond = { .device_state = MIG_STATES };
    assert_int_equal(mig_feature(&b.raw, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &beyond,
                                 sizeof(beyond), 16, NULL),
                     EINVAL);
    /* Every run has been ended: nothing is counted twice. */
    ok(ob_raw_reset(&b.raw));
    assert_int_equal(read4(&b, RUNS), read4(&b, QUIESCES) + 1);
    bench_stop(&b);
}

static void test_what_works_where(void **unused)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    for (unsigned state = 0; state < MIG_STATES; state++) {
        bool open =
            state == MIG_RUNNING || state == MIG_RUNNING_P2P || state == MIG_PRE_COPY || state == MIG_PRE_COPY_P2P;
        uint32_t value = 0, got;
        uint8_t byte;

        ok(ob_raw_reset(&b.raw));
        bring(&b, state);
        assert_int_equal(ob_raw_read(&b.raw, 0, VALUE, &value, 4), open ? 0 : EBUSY);
        assert_int_equal(ob_raw_write(&b.raw, 0, VALUE, &value, 4), open ? 0 : EBUSY);
        bench_write(&b, CONFIG, PCI_INTERRUPT_LINE, 11, 1);
        assert_int_equal(bench_read(&b, CONFIG, PCI_INTERRUPT_LINE, 1), 11);
        bench_write(&b, 5, 0, 0xfee00000, 4);
        assert_int_equal(bench_read(&b, 5, 0, 4), 0xfee00000);
        bench_write(&b, 1, 0x1000, state, 4);
        assert_int_equal(bench_read(&b, 1, 0x1000, 4), state);
        assert_int_equal(mig_read(&b.raw, &byte, 1, &got), saves(state) ? 0 : EINVAL);
        assert_int_equal(mig_write(&b.raw, &byte, 0), state == MIG_RESUMING ? 0 : EINVAL);
    }
    bench_stop(&b);
}

/* --- Features ---------------------------------------------------------------------------------------------------- */

static void test_features(void **unused)
{
    static const struct {
        uint32_t index;
        bool get, set;
    } known[] = {
        { VFIO_DEVICE_FEATURE_MIGRATION, true, false },          { VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, true, true },
        { VFIO_DEVICE_FEATURE_DMA_LOGGING_START, false, true },  { VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, false, true },
        { VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, true, false }, { 9, true, false },
    };
    const uint32_t get = VFIO_DEVICE_FEATURE_GET, set = VFIO_DEVICE_FEATURE_SET, probe = VFIO_DEVICE_FEATURE_PROBE;
    struct bench b;
    uint64_t flags, size;
    size_t got;

    bench_start(&b, &ob_class_mover, NULL);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint32_t index = known[i].index;
        ok(mig_feature(&b.raw, probe | index, NULL, 0, 8, NULL));
        assert_int_equal(mig_feature(&b.raw, probe | get | index, NULL, 0, 8, NULL), known[i].get ? 0 : EINVAL);
        assert_int_equal(mig_feature(&b.raw, probe | set | index, NULL, 0, 8, NULL), known[i].set ? 0 : EINVAL);
        assert_int_equal(mig_feature(&b.raw, probe | get | set | index, NULL, 0, 8, NULL),
                         known[i].get && known[i].set ? 0 : EINVAL);
        assert_int_equal(mig_feature(&b.raw, get | set | index, NULL, 0, 100, NULL), EINVAL);
        assert_int_equal(mig_feature(&b.raw, index, NULL, 0, 100, NULL), EINVAL);
        if (!known[i].get)
            assert_int_equal(mig_feature(&b.raw, get | index, NULL, 0, 100, NULL), EINVAL);
    }
    assert_int_equal(mig_feature(&b.raw, get | 3, NULL, 0, 100, NULL), ENOTTY);
    assert_int_equal(mig_feature(&b.raw, probe | 0xffff, NULL, 0, 100, NULL), ENOTTY);
    ok(mig_get(&b.raw, VFIO_DEVICE_FEATURE_MIGRATION, NULL, 0, &flags, sizeof(flags)));
    assert_int_equal(flags, 7); /* STOP_COPY, P2P, PRE_COPY */
    assert_int_equal(mig_feature(&b.raw, get | VFIO_DEVICE_FEATURE_MIGRATION, NULL, 0, 15, NULL), EINVAL);
    ok(mig_get(&b.raw, 9, NULL, 0, &size, sizeof(size)));
    fill(&b);
    free(stream_of(&b, &got));
    assert_int_equal(size, got);
    bench_stop(&b);
}

/* --- Standing still ---------------------------------------------------------------------------------------------- */

static void test_interrupts_wait(void **unused)
{
    struct bench b;
    int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint16_t on = PCI_MSIX_FLAGS_ENABLE;
    uint8_t at;

    bench_start(&b, &ob_class_mover, NULL);
    bench_bus_master(&b, true);
    at = (uint8_t)bench_read(&b, CONFIG, PCI_CAPABILITY_LIST, 1);
    while ((bench_read(&b, CONFIG, at, 1) & 0xff) != PCI_CAP_ID_MSIX)
        at = (uint8_t)bench_read(&b, CONFIG, at + 1u, 1);
    bench_write(&b, CONFIG, at + PCI_MSIX_FLAGS, on, 2);
    ok(ob_raw_set_irqs(&b.raw, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1,
                       NULL, &event, 1));
    ok(mig_set_state(&b.raw, MIG_RUNNING_P2P));
    write4(&b, LEVEL, 1);
    assert_int_equal(taken(event), 0);
    ok(mig_set_state(&b.raw, MIG_STOP));
    assert_int_equal(bench_read(&b, 5, 0x20, 4) & 1, 1); /* pending */
    ok(mig_set_state(&b.raw, MIG_RUNNING));
    assert_int_equal(await(event), 1);
    close(event);
    bench_stop(&b);
}

static void test_time_stands_still(void **unused)
{
    struct bench b;
    size_t size;

    bench_start(&b, &ob_class_mover, NULL);
    write4(&b, TIMER, 100);
    ok(mig_set_state(&b.raw, MIG_STOP));
    usleep(200 * 1000); /* time that must not pass for the device */
    ok(mig_set_state(&b.raw, MIG_RUNNING_P2P));
    assert_int_equal(read4(&b, FIRED), 0);
    ok(mig_set_state(&b.raw, MIG_RUNNING));
    assert_int_equal(read4(&b, FIRED), 0); /* 100 ms are left, less what passed before */
    while (read4(&b, FIRED) == 0)
        ;
    write4(&b, TIMER, 1);
    uint8_t *data = stream_of(&b, &size);
    bench_stop(&b);
    bench_start(&b, &ob_class_mover, NULL);
    ok(load(&b, data, size));
    ok(mig_set_state(&b.raw, MIG_RUNNING));
    while (read4(&b, FIRED) != 2)
        ;
    free(data);
    bench_stop(&b);
}

static void test_quiesce_takes_time(void **unused)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    write4(&b, HOW, BY_TIMER_OF_WORKER);
    ok(mig_set_state(&b.raw, MIG_STOP));
    ok(mig_set_state(&b.raw, MIG_RUNNING));
    assert_int_equal(read4(&b, QUIESCES), 1);
    assert_int_equal(read4(&b, RUNS), 2);
    write4(&b, HOW, REFUSE);
    assert_int_equal(mig_set_state(&b.raw, MIG_STOP), EREMOTEIO);
    assert_int_equal(state_of(&b), MIG_RUNNING);
    write4(&b, TIMER, 1);
    while (read4(&b, FIRED) == 0)
        ;
    bench_stop(&b);
}

/* A class that never becomes quiet: the deadline, ERROR, and the reset that ends it. */
static void test_quiesce_takes_forever(void **unused)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    write4(&b, HOW, NEVER);
    capture_begin();
    assert_int_equal(mig_set_state(&b.raw, MIG_STOP_COPY), ETIMEDOUT);
    free(capture_end());
    assert_int_equal(state_of(&b), MIG_ERROR);
    ok(ob_raw_reset(&b.raw));
    assert_int_equal(state_of(&b), MIG_RUNNING);
    assert_int_equal(read4(&b, RUNS), 2);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_arc),
        cmocka_unit_test(test_what_works_where),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_interrupts_wait),
        cmocka_unit_test(test_time_stands_still),
        cmocka_unit_test(test_quiesce_takes_time),
        cmocka_unit_test(test_quiesce_takes_forever),
    };

    make_whole();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(whole);
    return failed;
}
