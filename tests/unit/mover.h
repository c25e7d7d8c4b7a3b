/* mover.h: a device for tests of migration, in several versions, and what those tests do all the time. Included once in
 * each program. */
#ifndef MOVER_H
#define MOVER_H

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
static inline struct ob_device_class like_mover(const struct ob_device_class *cls)
{
    struct ob_device_class copy = *cls;

    copy.name = "mover";
    return copy;
}

/* --- Help -------------------------------------------------------------------------------------------------------- */

#define ok(call) assert_int_equal((call), 0)

static inline enum mig_state state_of(struct bench *b)
{
    enum mig_state state = MIG_STATES;

    ok(mig_get_state(&b->raw, &state));
    return state;
}

static inline uint32_t read4(struct bench *b, uint64_t off)
{
    return (uint32_t)bench_read(b, 0, off, 4);
}

static inline void write4(struct bench *b, uint64_t off, uint32_t value)
{
    bench_write(b, 0, off, value, 4);
}

/* A stream with something in every section. */
static inline void fill(struct bench *b)
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

static inline uint8_t *stream_of(struct bench *b, size_t *size)
{
    uint8_t *data;

    ok(mig_set_state(&b->raw, MIG_STOP_COPY));
    ok(mig_read_all(&b->raw, 4096, &data, size));
    return data;
}

/* A device that loads a stream; what leaving RESUMING came to. */
static inline int load(struct bench *b, const uint8_t *data, size_t size)
{
    ok(mig_set_state(&b->raw, MIG_RESUMING));
    int err = mig_write_all(&b->raw, 1000, data, size);
    int end = mig_set_state(&b->raw, MIG_STOP);

    if (err)
        assert_int_not_equal(end, 0);
    assert_int_equal(state_of(b), end ? MIG_ERROR : MIG_STOP);
    return end;
}

/* What fill() makes, as a stream. */
static uint8_t *whole;
static size_t whole_size;

static inline void make_whole(void)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    fill(&b);
    whole = stream_of(&b, &whole_size);
    bench_stop(&b);
}

#endif
