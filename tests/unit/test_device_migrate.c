/* Migration as a client and a device's author see it: every arc between states, what works in which, streams cut and
 * changed at every byte, versions, classes that take their time or refuse. */
#include "device_bench.h"
#include "../integration/migrate_client.h"
#include "device/migrate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <linux/pci_regs.h>

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

/* --- A device ---------------------------------------------------------------------------------------------------- */

/* BAR0 */
enum {
    VALUE = 0x00,
    INDEX = 0x04, /* below 8, or the class refuses to be loaded */
    LEVEL = 0x08, /* of vector 0 */
    TIMER = 0x0c, /* so many ms later, FIRED counts */
    FIRED = 0x10,
    WIDE = 0x18,
    SHARED = 0x20,
    RUNS = 0x24,
    QUIESCES = 0x28,
    HOW = 0x2c, /* what ops.quiesce does: an enum */
    LATE = 0x30 /* only in version 2 */
};
enum { AT_ONCE, BY_TIMER_OF_WORKER, NEVER, REFUSE };

struct state {
    uint32_t value, index, level, fired, how, late;
    uint64_t wide;
    uint8_t raw[13];
};
struct shared {
    uint32_t number;
    uint8_t bytes[40];
};
static const struct ob_field fields1[] = {
    OB_FIELD(struct state, value), OB_FIELD(struct state, index),
    OB_FIELD(struct state, level), OB_FIELD(struct state, fired),
    OB_FIELD(struct state, how),   OB_FIELD(struct state, wide),
    OB_FIELD(struct state, raw),   OB_FIELD_END,
};
static const struct ob_field fields2[] = {
    OB_FIELD(struct state, value),
    OB_FIELD(struct state, wide),
    { .name = "late", .off = offsetof(struct state, late), .elem = 4, .count = 1, .since = 2 },
    OB_FIELD(struct state, index),
    OB_FIELD(struct state, level),
    OB_FIELD(struct state, fired),
    OB_FIELD(struct state, how),
    OB_FIELD(struct state, raw),
    OB_FIELD_END,
};
static const struct ob_field fields_narrow[] = {
    OB_FIELD(struct state, value),
    OB_FIELD(struct state, index),
    OB_FIELD(struct state, level),
    OB_FIELD(struct state, fired),
    OB_FIELD(struct state, how),
    { .name = "wide", .off = offsetof(struct state, wide), .elem = 4, .count = 1, .since = 1 },
    OB_FIELD(struct state, raw),
    OB_FIELD_END,
};
static const struct ob_field fields_lack[] = {
    OB_FIELD(struct state, value),
    OB_FIELD(struct state, index),
    OB_FIELD(struct state, fired),
    OB_FIELD(struct state, how),
    OB_FIELD(struct state, level),
    OB_FIELD(struct state, wide),
    OB_FIELD_END,
};
static const struct ob_field shared_fields[] = { OB_FIELD(struct shared, number), OB_FIELD(struct shared, bytes),
                                                 OB_FIELD_END };

/* The registers that count are of the process: they do not move. */
struct scratch {
    struct ob_worker *worker;
    uint32_t runs, quiesces;
    _Atomic(struct ob_req *) asked;
    struct ob_req *never;
};

static int on_poll(struct ob_worker *worker)
{
    struct scratch *s = ob_scratch(ob_worker_dev(worker));
    struct ob_req *req = atomic_exchange(&s->asked, NULL);

    if (req)
        ob_reply(req, 0, 0);
    return req != NULL;
}

static const struct ob_worker_ops worker_ops = { .poll = on_poll };

static int on_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct scratch *s = ob_scratch(dev);

    return ob_worker_start(dev, &worker_ops, NULL, &s->worker);
}

static int on_run(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    s->runs++;
    return 0;
}

static int on_quiesce(struct ob_req *req)
{
    struct ob_dev *dev = ob_req_dev(req);
    const struct state *state = ob_state(dev);
    struct scratch *s = ob_scratch(dev);

    s->quiesces++;
    switch (state->how) {
    case BY_TIMER_OF_WORKER:
        s->asked = req;
        ob_worker_wake(s->worker);
        return OB_LATER;
    case NEVER:
        s->never = req;
        return OB_LATER;
    case REFUSE:
        return -EREMOTEIO;
    default:
        return OB_DONE;
    }
}

static int on_loaded(struct ob_dev *dev)
{
    const struct state *state = ob_state(dev);
    const struct shared *shared = ob_shared(dev);

    return state->index < 8 && shared->number < 1000 ? 0 : -ERANGE;
}

static void on_timer(struct ob_dev *dev, unsigned id)
{
    struct state *state = ob_state(dev);

    state->fired++;
}

static int level_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_irq_level(ob_req_dev(req), 0, val != 0);
    return OB_DONE;
}

static int timer_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_timer(ob_req_dev(req), 0, val ? ob_now() + val * 1000000 : 0);
    return OB_DONE;
}

static int shared_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct shared *shared = ob_shared(ob_req_dev(req));

    shared->number = (uint32_t)val;
    memset(shared->bytes, (int)val, sizeof(shared->bytes));
    return OB_DONE;
}

static int shared_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    const struct shared *shared = ob_shared(ob_req_dev(req));

    *val = shared->number;
    return OB_DONE;
}

static int runs_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    const struct scratch *s = ob_scratch(ob_req_dev(req));

    *val = reg->off == RUNS ? s->runs : s->quiesces;
    return OB_DONE;
}

static void on_close(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    if (s->never)
        ob_reply(s->never, 0, 0);
}

static const struct ob_reg regs[] = {
    OB_REG32("VALUE", VALUE, struct state, value, .rw = UINT32_MAX, .reset = 7),
    OB_REG32("INDEX", INDEX, struct state, index, .rw = UINT32_MAX),
    OB_REG32("LEVEL", LEVEL, struct state, level, .rw = 1, .write = level_write),
    { .name = "TIMER", .off = TIMER, .width = 4, .write = timer_write },
    OB_REG32("FIRED", FIRED, struct state, fired),
    OB_REG64("WIDE", WIDE, struct state, wide, .rw = UINT64_MAX),
    { .name = "SHARED", .off = SHARED, .width = 4, .read = shared_read, .write = shared_write },
    { .name = "RUNS", .off = RUNS, .width = 4, .read = runs_read },
    { .name = "QUIESCES", .off = QUIESCES, .width = 4, .read = runs_read },
    OB_REG32("HOW", HOW, struct state, how, .rw = 3),
    OB_REG_END,
};
/* The second version's: a register more. */
static const struct ob_reg regs2[] = {
    OB_REG32("VALUE", VALUE, struct state, value, .rw = UINT32_MAX, .reset = 7),
    OB_REG64("WIDE", WIDE, struct state, wide, .rw = UINT64_MAX),
    OB_REG32("LATE", LATE, struct state, late, .rw = UINT32_MAX, .reset = 99),
    OB_REG_END,
};
static const struct ob_reg few_regs[] = {
    OB_REG32("VALUE", VALUE, struct state, value, .rw = UINT32_MAX, .reset = 7),
    OB_REG_END,
};
static const struct ob_area ram_areas[] = {
    { .off = 0, .size = 0x100, .flags = OB_AREA_RAM },
    { .off = 0x1000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    OB_AREA_END,
};

#define DEVICE(name_, version_, fields_, regs_)                                                                        \
    OB_CLASS(name_, .pci = { .vendor = 0x1234, .device = 1, .class_code = 0xff0000, .power_management = true },        \
             .irqs = { .msix = 2 }, .bars[0] = OB_BAR_REGS(0x1000, regs_),                                             \
             .bars[1] = { .size = 0x2000, .areas = ram_areas }, .state = OB_STATE(struct state, version_, fields_),    \
             .shared = OB_STATE(struct shared, 1, shared_fields), .scratch_size = sizeof(struct scratch), .timers = 1, \
             .max_reply_ms = 300,                                                                                      \
             .ops = { .open = on_open,                                                                                 \
                      .run = on_run,                                                                                   \
                      .quiesce = on_quiesce,                                                                           \
                      .loaded = on_loaded,                                                                             \
                      .timer = on_timer,                                                                               \
                      .close = on_close })
DEVICE(mover, 1, fields1, regs);
DEVICE(mover2, 2, fields2, regs2);
DEVICE(narrow, 1, fields_narrow, few_regs);
DEVICE(lacks, 1, fields_lack, few_regs);
DEVICE(stranger, 1, fields1, regs);

/* One of the above, as if it were the first one. */
static struct ob_device_class like_mover(const struct ob_device_class *cls)
{
    struct ob_device_class copy = *cls;

    copy.name = "mover";
    return copy;
}

/* --- Help -------------------------------------------------------------------------------------------------------- */

#define ok(call) assert_int_equal((call), 0)

static enum mig_state state_of(struct bench *b)
{
    enum mig_state state = MIG_STATES;

    ok(mig_get_state(&b->raw, &state));
    return state;
}

static uint32_t read4(struct bench *b, uint64_t off)
{
    return (uint32_t)bench_read(b, 0, off, 4);
}

static void write4(struct bench *b, uint64_t off, uint32_t value)
{
    bench_write(b, 0, off, value, 4);
}

/* A stream with something in every section. */
static void fill(struct bench *b)
{
    bench_bus_master(b, true);
    write4(b, VALUE, 0x11223344);
    write4(b, INDEX, 5);
    bench_write(b, 0, WIDE, 0x8877665544332211u, 8);
    write4(b, SHARED, 77);
    write4(b, TIMER, 3600 * 1000);
    bench_write(b, 1, 0x10, 0xabcdef, 4);
    bench_write(b, 1, 0x1ffc, 0x123456, 4);
    bench_write(b, 5, 0x10, 0xfee00000, 4); /* the MSI-X table lies in BAR5 */
    bench_write(b, 5, 0x1c, 0, 4);
}

static uint8_t *stream_of(struct bench *b, size_t *size)
{
    uint8_t *data;

    ok(mig_set_state(&b->raw, MIG_STOP_COPY));
    ok(mig_read_all(&b->raw, 4096, &data, size));
    return data;
}

/* A device that loads a stream; what leaving RESUMING came to. */
static int load(struct bench *b, const uint8_t *data, size_t size)
{
    ok(mig_set_state(&b->raw, MIG_RESUMING));
    int err = mig_write_all(&b->raw, 1000, data, size);
    int end = mig_set_state(&b->raw, MIG_STOP);

    if (err)
        assert_int_not_equal(end, 0);
    assert_int_equal(state_of(b), end ? MIG_ERROR : MIG_STOP);
    return end;
}

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

static uint8_t *whole;
static size_t whole_size;

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

/* --- Streams ----------------------------------------------------------------------------------------------------- */

static void check_filled(struct bench *b)
{
    assert_int_equal(read4(b, VALUE), 0x11223344);
    assert_int_equal(bench_read(b, 0, WIDE, 8), 0x8877665544332211u);
    assert_int_equal(bench_read(b, 1, 0x10, 4), 0xabcdef);
    assert_int_equal(bench_read(b, 1, 0x1ffc, 4), 0x123456);
    assert_int_equal(bench_read(b, 5, 0x10, 4), 0xfee00000);
    assert_int_equal(bench_read(b, 5, 0x1c, 4), 0);
    assert_int_equal(bench_read(b, CONFIG, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void test_any_pieces(void **unused)
{
    static const uint32_t pieces[] = { 1, 7, 24, 25, 64, 4096, 100000 };
    struct bench b;
    uint8_t *data;
    size_t size;

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        bench_start(&b, &ob_class_mover, NULL);
        fill(&b);
        /* With a beginning in PRE_COPY, which reads on where it stopped. */
        uint8_t first[4096];
        uint32_t n = 0, more;
        ok(mig_set_state(&b.raw, MIG_PRE_COPY));
        ok(mig_read(&b.raw, first, sizeof(first), &n));
        assert_true(n > 24 && n < sizeof(first));
        ok(mig_read(&b.raw, first + n, 100, &more));
        assert_int_equal(more, 0);
        ok(mig_set_state(&b.raw, MIG_STOP_COPY));
        ok(mig_read_all(&b.raw, pieces[i], &data, &size));
        bench_stop(&b);
        bench_start(&b, &ob_class_mover, NULL);
        ok(mig_set_state(&b.raw, MIG_RESUMING));
        ok(mig_write(&b.raw, first, n));
        ok(mig_write_all(&b.raw, pieces[i], data, size));
        assert_int_equal(mig_write(&b.raw, data, 1), EINVAL); /* behind the end */
        ok(mig_set_state(&b.raw, MIG_RUNNING));
        check_filled(&b);
        assert_int_equal(read4(&b, INDEX), 5);
        assert_int_equal(read4(&b, SHARED), 77);
        free(data);
        bench_stop(&b);
    }
}

static void test_every_truncation(void **unused)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    capture_begin();
    for (size_t n = 0; n < whole_size; n += n < 1500 || n + 40 > whole_size ? 1 : 97) {
        assert_int_not_equal(load(&b, whole, n), 0);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, VALUE), 7);
        assert_int_equal(read4(&b, SHARED), 0);
    }
    free(capture_end());
    ok(load(&b, whole, whole_size));
    bench_stop(&b);
}

/* One bit of every byte: a flip of any single word is found. */
static void test_every_flip(void **unused)
{
    struct bench b;
    uint32_t seed = 12345;

    bench_start(&b, &ob_class_mover, NULL);
    capture_begin();
    for (size_t i = 0; i < whole_size; i += i < 1500 || i + 40 > whole_size ? 1 : 61) {
        seed = seed * 1103515245 + 12345;
        whole[i] ^= (uint8_t)(1u << (seed >> 16) % 8);
        assert_int_not_equal(load(&b, whole, whole_size), 0);
        whole[i] = whole[i] ^ (uint8_t)(1u << (seed >> 16) % 8);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, SHARED), 0);
    }
    free(capture_end());
    ok(load(&b, whole, whole_size));
    bench_stop(&b);
}

static void make_sum_right(uint8_t *data, size_t size)
{
    struct ob_stream_end end = { .magic = OB_STREAM_END };
    struct ob_sum sum;

    ob_sum_begin(&sum);
    ob_sum_add(&sum, data, size - sizeof(end));
    end.sum = ob_sum_end(&sum);
    memcpy(data + size - sizeof(end), &end, sizeof(end));
}

/* With a checksum that is right: the checks of what it covers have to hold. */
static void test_hostile_heads(void **unused)
{
    struct bench b;
    uint32_t seed = 4711;
    unsigned taken = 0;
    uint8_t *data = malloc(whole_size);

    assert_non_null(data);
    bench_start(&b, &ob_class_mover, NULL);
    capture_begin();
    for (unsigned round = 0; round < 2000; round++) {
        memcpy(data, whole, whole_size);
        for (unsigned n = round % 4 + 1; n > 0; n--) {
            seed = seed * 1103515245 + 12345;
            size_t at = (seed >> 8) % 1500;
            seed = seed * 1103515245 + 12345;
            static const uint8_t values[] = { 0, 1, 8, 0x7f, 0x80, 0xff };
            data[at] = values[(seed >> 16) % sizeof(values)];
        }
        make_sum_right(data, whole_size);
        ok(mig_set_state(&b.raw, MIG_RESUMING));
        int err = mig_write_all(&b.raw, 100000, data, whole_size), end = mig_set_state(&b.raw, MIG_RUNNING);
        assert_true(!err || end);
        taken += !end;
        if (!end)
            assert_in_range(read4(&b, INDEX), 0, 7);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, VALUE), 7);
    }
    free(capture_end());
    assert_in_range(taken, 1, 1999);
    free(data);
    bench_stop(&b);
}

static void refused(const struct ob_device_class *from, const struct ob_device_class *to, const char *why)
{
    struct bench b;
    size_t size;

    bench_start(&b, from, NULL);
    uint8_t *data = stream_of(&b, &size);
    bench_stop(&b);
    bench_start(&b, to, NULL);
    capture_begin();
    assert_int_not_equal(load(&b, data, size), 0);
    char *said = capture_end();
    if (!strstr(said, why))
        fail_msg("it said \"%s\", not \"%s\"", said, why);
    free(said);
    free(data);
    bench_stop(&b);
}

static void test_versions(void **unused)
{
    const struct ob_device_class two = like_mover(&ob_class_mover2), small = like_mover(&ob_class_narrow),
                                 lack = like_mover(&ob_class_lacks);
    struct bench b;

    /* The next version takes the stream of the first; what that did not have holds its reset value. */
    bench_start(&b, &two, NULL);
    write4(&b, LATE, 1);
    ok(load(&b, whole, whole_size));
    ok(mig_set_state(&b.raw, MIG_RUNNING));
    check_filled(&b);
    assert_int_equal(read4(&b, LATE), 99);
    bench_stop(&b);
    refused(&two, &ob_class_mover, "late");
    refused(&ob_class_mover, &small, "wide");
    refused(&ob_class_mover, &lack, "raw");
    refused(&lack, &ob_class_mover, "raw");
    refused(&ob_class_stranger, &ob_class_mover, "stranger");
    struct ob_device_class larger = ob_class_mover, other = ob_class_mover;
    larger.bars[1].size = 0x4000;
    refused(&larger, &ob_class_mover, "BAR1");
    other.pci.revision = 3;
    refused(&other, &ob_class_mover, "byte 0x8");
    other = ob_class_mover;
    other.irqs.msix = 3;
    refused(&other, &ob_class_mover, "vectors");
}

static void test_class_refuses(void **unused)
{
    struct bench b;
    size_t size;

    for (int i = 0; i < 2; i++) {
        bench_start(&b, &ob_class_mover, NULL);
        write4(&b, i ? SHARED : INDEX, 1000);
        uint8_t *data = stream_of(&b, &size);
        bench_stop(&b);
        bench_start(&b, &ob_class_mover, NULL);
        write4(&b, SHARED, 3);
        capture_begin();
        assert_int_equal(load(&b, data, size), ERANGE);
        free(capture_end());
        free(data);
        assert_int_equal(mig_set_state(&b.raw, MIG_RUNNING), EINVAL);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, VALUE), 7); /* of neither */
        assert_int_equal(read4(&b, INDEX), 0);
        assert_int_equal(read4(&b, SHARED), 3); /* put back */
        bench_stop(&b);
    }
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
        cmocka_unit_test(test_any_pieces),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_flip),
        cmocka_unit_test(test_hostile_heads),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_class_refuses),
        cmocka_unit_test(test_interrupts_wait),
        cmocka_unit_test(test_time_stands_still),
        cmocka_unit_test(test_quiesce_takes_time),
        cmocka_unit_test(test_quiesce_takes_forever),
    };
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    fill(&b);
    whole = stream_of(&b, &whole_size);
    bench_stop(&b);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(whole);
    return failed;
}
