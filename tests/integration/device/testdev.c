/* testdev: a device with one of everything, for tests to drive. 1234:7e57, class ff0000, PCI Express with FLR, power
 * management, MSI-X (8 vectors, option vectors=1..2048; its BAR is the library's choice, 5), no INTx. */

/* clang-format off: tables.
 *
 * BAR0, memory, 4096 bytes: registers, 4 bytes unless said otherwise, little-endian.
 *   00 ID            RO  0x7e57de01
 *   04 SCRATCH       RW  any access size; reset 0x5c5c5c5c
 *   08 FLAGS         W1C bits 7:0
 *   0c FLAGS_SET     WO  sets bits 7:0 of FLAGS and of LATCH
 *   10 LATCH         RC  bits 7:0; reading clears them
 *   14 COUNT         RO  sum of what was written to TICK: shows a write executed twice or not at all
 *   18 TICK          WO  adds to COUNT
 *   1c LEVELS        RW  bit n is the level of vector n, n < 8 (and < vectors)
 *   20 PULSE         WO  n: sends vector n once; EINVAL if there is none
 *   24 ERROR_CODE    RW  bits 7:0, an errno
 *   28 ERROR         RW  every access fails with ERROR_CODE (0: succeeds, reads 0). A write adds 1 to COUNT first,
 *                        which the failure has to undo
 *   2c KEEP          RO  reads are kept, and answered by KEEP_NS, or refused at their deadline or, with ECANCELED, at
 *                        the session's end; a client's later requests wait meanwhile. At most 16 unanswered, then EBUSY
 *   30 RELEASE       WO  answers all kept reads with the value written: those beyond their deadline, too late
 *   34 KEPT          RO  how many are kept
 *   38 KEEP_NS       WO  so many ns later, all kept reads are answered with 0x600d; 0 disarms
 *   3c ASYNC         RO  kept, and answered by the worker thread with 0xa5a5a5a5; at most 16, then EBUSY
 *   40 TIMER_NS      WO  so many ns later, level 1 rises (LEVELS bit 1) and TIMER_FIRED counts; 0 disarms
 *   44 TIMER_FIRED   RO
 *   48 BAR2_SUM      RO  sum of the first 64 bytes of BAR2, as the device sees them
 *   4c BAR2_FILL     WO  sets each of these bytes to the value's low byte
 *   50 CONFIG_LAST   RO  offset << 16 | length of the last write to configuration space that ops.config() told of
 *   54 UNMAPS        RO  how often ops.unmap() was called; not reset
 *   58 SESSIONS      RO  how often ops.run() was called; not reset
 *   5c CRASHES       RO  how often ops.open(OB_CRASHED) was called; not reset
 *   60 RESETS[3]     RO  resets of each enum ob_reset; not reset
 *   70 WIDE          RW  8 bytes, accesses of 4 and 8
 *   80 RING_ADDR     RW  8 bytes, accesses of 4 and 8: IOVA of the ring, which must be memory that can be mapped
 *   88 RING_SIZE     RW  entries, a power of two up to 256; both are taken when RING_CTRL is written
 *   8c RING_CTRL     RW  bit 0: enabled. Fails with EINVAL for a RING_SIZE that is none
 *   90 DOORBELL      WO  count of entries ever made ready (32 bits, free running)
 *   94 RING_DONE     RO  count of entries ever completed
 *   98 RING_RELEASE  WO  completes what an entry with the hold flag holds
 *   9c NOTIFY        WO  bit 0: raises ERR, bit 1: REQ; bit 8: by the worker; bit 9: then fails with EIO
 *   200 RINGS[26]    RO  how often each event rang; not reset
 *
 * The ring: entries of 32 bytes in guest memory, carried out in order by a worker thread, one at a time:
 *   u64 src, u64 dst, u32 len (at most 65536), u32 vector, u32 flags, u32 status.
 * It copies src to dst (non-overlapping), writes status (0x80000000 | errno, errno 0 if all went well) and sends the
 * vector (0xffffffff: none). Memory is pinned where it can be, else copied by messages. Flag 1 (hold): src and dst stay
 * pinned until RING_RELEASE (then it copies), or an unmap that touches them or the session's end (then ECANCELED).
 * After a crash the entry under way is executed again, and a vector not surely sent is sent.
 *
 * BAR1, I/O, 32 bytes: 00 IO8 RW 1 byte; 02 IO16 RW 2 bytes; 04 IO32 RW; 10 IO_ARRAY[4] RW 4 bytes each.
 * BAR2, memory, 64-bit, prefetchable, 64 KiB (option bar2_size, a power of two from 4k to 1G): memory clients map.
 * BAR4, memory, 16 KiB: 0000-00ff any access, kept in state as it is; 1000-1fff and 3000-3fff memory that clients map;
 * nothing elsewhere.
 *
 * Regions of its own, type 0x80001234, subtypes from 1 on:
 *   9 mixed, 0x2100 bytes: 000 REGION RW, reset 0x11223344; 100 UNDER RW, reset 0xcafe, below a doorbell; 1000-1fff
 *     memory that clients map; 2000-207f memory that they do not; nothing elsewhere
 *   10 whole, 8 KiB that clients map   11 log, 100 bytes, read-only: byte n is n   12 add, 4 bytes, write-only: adds to
 *   COUNT   13 bells, 256 bytes: doorbells only
 *
 * Doorbells, by event: 0: BAR0 100 and 104, 4 bytes each; 1, 2: BAR0 108, 2 bytes, 0x1234 and 0x4321; 3: BAR0 110, 8
 * bytes, and 118, 1 byte; 4: BAR1 0c, 4 bytes; 5: region 9 100, 4 bytes; 6 to 25: region 13, 4 bytes each from 0 on.
 * 3 to 5 are the control loop's, during a session; the rest are the worker's. What rings while the device stands still
 * is counted when it runs again.
 *
 * Capabilities: vendor-specific (0c 4f 42 01, two read-only bytes 5a a5, four writable), Device Serial Number
 * 01-23-45-67-89-ab-cd-ef. Option deadline=ms: how long a request may be kept (max_reply_ms). */
/* clang-format on */

#include <errno.h>
#include <string.h>
#include <linux/pci_regs.h>
#include "testdev.h"

#define TESTDEV_ID     0x7e57de01u
#define LEVELS_MAX     8u
#define FILL_SIZE      64u
#define KEEP_TIMED_OUT 0x600du

enum { TIMER_IRQ, TIMER_KEEP, TIMERS };

static const struct ob_field testdev_fields[] = {
    OB_FIELD(struct testdev, scratch),
    OB_FIELD(struct testdev, flags),
    OB_FIELD(struct testdev, latch),
    OB_FIELD(struct testdev, count),
    OB_FIELD(struct testdev, levels),
    OB_FIELD(struct testdev, error_code),
    OB_FIELD(struct testdev, timer_fired),
    OB_FIELD(struct testdev, config_last),
    OB_FIELD(struct testdev, unmaps),
    OB_FIELD(struct testdev, sessions),
    OB_FIELD(struct testdev, crashes),
    OB_FIELD_ARRAY(struct testdev, resets),
    OB_FIELD(struct testdev, ring_size),
    OB_FIELD(struct testdev, ring_ctrl),
    OB_FIELD(struct testdev, wide),
    OB_FIELD(struct testdev, ring_addr),
    OB_FIELD(struct testdev, io32),
    OB_FIELD_ARRAY(struct testdev, io_array),
    OB_FIELD(struct testdev, io16),
    OB_FIELD(struct testdev, io8),
    OB_FIELD(struct testdev, echo),
    OB_FIELD(struct testdev, region),
    OB_FIELD(struct testdev, under),
    OB_FIELD_ARRAY(struct testdev, rings),
    OB_FIELD_END,
};

static const struct ob_field ring_fields[] = {
    OB_FIELD(struct ring_shared, producer),    OB_FIELD(struct ring_shared, done),
    OB_FIELD(struct ring_shared, announced),   OB_FIELD(struct ring_shared, vector),
    OB_FIELD_ARRAY(struct ring_shared, rings), OB_FIELD_END,
};

/* --- Plain registers, interrupts, time --------------------------------------------------------------------------- */

static int id_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = TESTDEV_ID;
    return OB_DONE;
}

static int flags_set_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct testdev *t = req_state(req);

    t->flags |= val & 0xff;
    t->latch |= val & 0xff;
    return OB_DONE;
}

static int tick_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    req_state(req)->count += (uint32_t)val;
    return OB_DONE;
}

uint32_t testdev_vectors(const struct ob_dev *dev)
{
    return (uint32_t)ob_option_number(dev, "vectors");
}

static void levels_apply(struct ob_dev *dev)
{
    const struct testdev *t = ob_state(dev);

    for (unsigned v = 0; v < LEVELS_MAX && v < testdev_vectors(dev); v++)
        ob_irq_level(dev, v, (t->levels >> v) & 1);
}

static int levels_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    levels_apply(ob_req_dev(req));
    return OB_DONE;
}

static int pulse_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);

    if (val >= testdev_vectors(dev))
        return -EINVAL;
    ob_irq_pulse(dev, (unsigned)val);
    return OB_DONE;
}

static int error_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    return -(int)req_state(req)->error_code;
}

static int error_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct testdev *t = req_state(req);

    t->count++;
    return -(int)t->error_code;
}

static int timer_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_timer(ob_req_dev(req), TIMER_IRQ, val ? ob_now() + val : 0);
    return OB_DONE;
}

static int bar2_sum_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    const volatile uint8_t *ram = ob_bar_ram(ob_req_dev(req), 2, 0);

    for (unsigned i = 0; i < FILL_SIZE; i++)
        *val += ram[i];
    return OB_DONE;
}

static int bar2_fill_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    volatile uint8_t *ram = ob_bar_ram(ob_req_dev(req), 2, 0);

    for (unsigned i = 0; i < FILL_SIZE; i++)
        ram[i] = (uint8_t)val;
    return OB_DONE;
}

/* Counters that a reset of the registers has to leave alone are read through hooks. */
static int unmaps_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = req_state(req)->unmaps;
    return OB_DONE;
}

static int sessions_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = req_state(req)->sessions;
    return OB_DONE;
}

static int crashes_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = req_state(req)->crashes;
    return OB_DONE;
}

static int resets_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = req_state(req)->resets[index];
    return OB_DONE;
}

static int echo_access(struct ob_req *req, const struct ob_access *access)
{
    uint8_t *at = req_state(req)->echo + access->off;

    if (access->write)
        memcpy(at, access->data, access->len);
    else
        memcpy(access->data, at, access->len);
    return OB_DONE;
}

/* --- Kept requests ----------------------------------------------------------------------------------------------- */

int testdev_keep(struct kept *kept, struct ob_req *req)
{
    if (kept->n == KEPT_MAX)
        return -EBUSY;
    kept->reqs[kept->n++] = req;
    return OB_LATER;
}

void testdev_release(struct kept *kept, int err, uint64_t val)
{
    struct kept all = *kept;

    kept->n = 0;
    for (unsigned i = 0; i < all.n; i++)
        ob_reply(all.reqs[i], err, val);
}

static int keep_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    return testdev_keep(&s->kept, req);
}

static int release_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    testdev_release(&s->kept, 0, val);
    return OB_DONE;
}

static int kept_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    const struct scratch *s = ob_scratch(ob_req_dev(req));

    *val = s->kept.n;
    return OB_DONE;
}

static int keep_ns_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    ob_timer(ob_req_dev(req), TIMER_KEEP, val ? ob_now() + val : 0);
    return OB_DONE;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

#define RAM_AREA(bits)                                                                      \
    {                                                                                       \
        { .size = UINT64_C(1) << (bits), .flags = OB_AREA_RAM | OB_AREA_MMAP }, OB_AREA_END \
    }
#define RAM_BITS_MIN 12u

static const struct ob_area ram_areas[][2] = {
    RAM_AREA(12), RAM_AREA(13), RAM_AREA(14), RAM_AREA(15), RAM_AREA(16), RAM_AREA(17), RAM_AREA(18),
    RAM_AREA(19), RAM_AREA(20), RAM_AREA(21), RAM_AREA(22), RAM_AREA(23), RAM_AREA(24), RAM_AREA(25),
    RAM_AREA(26), RAM_AREA(27), RAM_AREA(28), RAM_AREA(29), RAM_AREA(30),
};

static int testdev_configure(struct ob_dev *dev)
{
    struct ob_device_class *shape = ob_shape(dev);
    uint64_t size = ob_option_number(dev, "bar2_size");

    if (size & (size - 1)) {
        ob_log(dev, "bar2_size is %llu: give a power of two", (unsigned long long)size);
        return -EINVAL;
    }
    shape->bars[2].size = size;
    shape->bars[2].areas = ram_areas[(unsigned)__builtin_ctzll(size) - RAM_BITS_MIN];
    shape->irqs.msix = (uint16_t)testdev_vectors(dev);
    shape->max_reply_ms = (uint32_t)ob_option_number(dev, "deadline");
    return 0;
}

static int testdev_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct testdev *t = ob_state(dev);
    struct scratch *s = ob_scratch(dev);

    s->dev = dev;
    pthread_mutex_init(&s->lock, NULL);
    t->crashes += origin == OB_CRASHED;
    int err = ob_worker_start(dev, &testdev_worker, NULL, &s->worker);

    return err ? err : testdev_doorbells_open(dev, s->worker);
}

static int testdev_run(struct ob_dev *dev)
{
    struct testdev *t = ob_state(dev);

    t->sessions++;
    levels_apply(dev);
    testdev_ring_run(dev);
    int err = testdev_doorbells_watch(dev, true);

    return err ? err : testdev_ring_apply(dev);
}

static int testdev_quiesce(struct ob_req *req)
{
    struct scratch *s = ob_scratch(ob_req_dev(req));

    testdev_release(&s->kept, -ECANCELED, 0);
    int err = testdev_doorbells_watch(ob_req_dev(req), false);

    return err ? err : testdev_ring_quiesce(req);
}

static int testdev_loaded(struct ob_dev *dev)
{
    const struct testdev *t = ob_state(dev);

    return testdev_ring_valid(t) ? 0 : -EINVAL;
}

static int testdev_unmap(struct ob_req *req, uint64_t iova, uint64_t len)
{
    req_state(req)->unmaps++;
    testdev_ring_unmap(ob_req_dev(req), iova, len);
    return OB_DONE;
}

static int testdev_reset(struct ob_req *req, enum ob_reset kind)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct testdev *t = ob_state(dev);

    t->resets[kind]++;
    memset(t->echo, 0, sizeof(t->echo));
    ob_timer(dev, TIMER_IRQ, 0);
    ob_timer(dev, TIMER_KEEP, 0);
    levels_apply(dev);
    int err = testdev_ring_apply(dev);

    testdev_ring_reset(dev);
    return err;
}

static void testdev_config(struct ob_dev *dev, uint32_t off, uint32_t len)
{
    struct testdev *t = ob_state(dev);

    t->config_last = off << 16 | (len & 0xffff);
}

static void testdev_timer(struct ob_dev *dev, unsigned id)
{
    struct testdev *t = ob_state(dev);
    struct scratch *s = ob_scratch(dev);

    if (id == TIMER_KEEP) {
        testdev_release(&s->kept, 0, KEEP_TIMED_OUT);
        return;
    }
    t->timer_fired++;
    t->levels |= 2;
    levels_apply(dev);
}

static void testdev_close(struct ob_dev *dev)
{
    struct scratch *s = ob_scratch(dev);

    if (s->window)
        ob_dma_window_close(dev, s->window);
    pthread_mutex_destroy(&s->lock);
}

/* --- The class --------------------------------------------------------------------------------------------------- */

#define T      struct testdev
#define RO32   .width = 4, .min_access = 4
#define ACC4_8 .min_access = 4, .max_access = 8

static const struct ob_reg bar0_regs[] = {
    { .name = "ID", .off = 0x00, RO32, .read = id_read },
    OB_REG32("SCRATCH", 0x04, T, scratch, .rw = UINT32_MAX, .reset = 0x5c5c5c5c),
    OB_REG32("FLAGS", 0x08, T, flags, .w1c = 0xff),
    { .name = "FLAGS_SET", .off = 0x0c, RO32, .write = flags_set_write },
    OB_REG32("LATCH", 0x10, T, latch, .rc = 0xff),
    OB_REG32("COUNT", 0x14, T, count),
    { .name = "TICK", .off = 0x18, RO32, .write = tick_write },
    OB_REG32("LEVELS", 0x1c, T, levels, .rw = 0xff, .write = levels_write),
    { .name = "PULSE", .off = 0x20, RO32, .write = pulse_write },
    OB_REG32("ERROR_CODE", 0x24, T, error_code, .rw = 0xff),
    { .name = "ERROR", .off = 0x28, RO32, .read = error_read, .write = error_write },
    { .name = "KEEP", .off = 0x2c, RO32, .read = keep_read },
    { .name = "RELEASE", .off = 0x30, RO32, .write = release_write },
    { .name = "KEPT", .off = 0x34, RO32, .read = kept_read },
    { .name = "KEEP_NS", .off = 0x38, RO32, .write = keep_ns_write },
    { .name = "ASYNC", .off = 0x3c, RO32, .read = testdev_async_read },
    { .name = "TIMER_NS", .off = 0x40, RO32, .write = timer_write },
    OB_REG32("TIMER_FIRED", 0x44, T, timer_fired),
    { .name = "BAR2_SUM", .off = 0x48, RO32, .read = bar2_sum_read },
    { .name = "BAR2_FILL", .off = 0x4c, RO32, .write = bar2_fill_write },
    OB_REG32("CONFIG_LAST", 0x50, T, config_last),
    { .name = "UNMAPS", .off = 0x54, RO32, .read = unmaps_read },
    { .name = "SESSIONS", .off = 0x58, RO32, .read = sessions_read },
    { .name = "CRASHES", .off = 0x5c, RO32, .read = crashes_read },
    { .name = "RESETS", .off = 0x60, RO32, .count = 3, .stride = 4, .read = resets_read },
    OB_REG64("WIDE", 0x70, T, wide, ACC4_8, .rw = UINT64_MAX),
    OB_REG64("RING_ADDR", 0x80, T, ring_addr, ACC4_8, .rw = UINT64_MAX),
    OB_REG32("RING_SIZE", 0x88, T, ring_size, .min_access = 4, .rw = UINT32_MAX),
    OB_REG32("RING_CTRL", 0x8c, T, ring_ctrl, .min_access = 4, .rw = 1, .write = testdev_ring_ctrl_write),
    { .name = "DOORBELL", .off = 0x90, RO32, .write = testdev_doorbell_write },
    { .name = "RING_DONE", .off = 0x94, RO32, .read = testdev_ring_done_read },
    { .name = "RING_RELEASE", .off = 0x98, RO32, .write = testdev_ring_release_write },
    { .name = "NOTIFY", .off = 0x9c, RO32, .write = testdev_notify_write },
    { .name = "RINGS", .off = 0x200, RO32, .count = TESTDEV_EVENTS, .read = testdev_rings_read },
    OB_REG_END,
};

static const struct ob_reg bar1_regs[] = {
    OB_REG8("IO8", 0x00, T, io8, .rw = 0xff),
    OB_REG16("IO16", 0x02, T, io16, .rw = 0xffff),
    OB_REG32("IO32", 0x04, T, io32, .rw = UINT32_MAX),
    OB_REG32("IO_ARRAY", 0x10, T, io_array, .rw = UINT32_MAX, .count = 4, .stride = 4),
    OB_REG_END,
};

static const struct ob_area bar4_areas[] = {
    { .off = 0x0000, .size = 0x100, .access = echo_access },
    { .off = 0x1000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    { .off = 0x3000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    OB_AREA_END,
};

static const uint8_t vendor_bytes[] = { 0x0c, 'O', 'B', 0x01, 0x5a, 0xa5, 0, 0, 0, 0 };
static const uint8_t vendor_mask[] = { 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff };
static const uint8_t serial_bytes[] = { 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01 };

static const struct ob_cap testdev_caps[] = {
    { .id = PCI_CAP_ID_VNDR, .size = sizeof(vendor_bytes), .bytes = vendor_bytes, .write_mask = vendor_mask },
    { .id = PCI_EXT_CAP_ID_DSN, .extended = true, .version = 1, .size = sizeof(serial_bytes), .bytes = serial_bytes },
    OB_CAP_END,
};

static const struct ob_option testdev_options[] = {
    { .name = "bar2_size",
      .type = OB_OPTION_SIZE,
      .value = "64k",
      .min = 4096,
      .max = UINT64_C(1) << 30,
      .help = "size of BAR2, a power of two" },
    { .name = "vectors", .type = OB_OPTION_NUMBER, .value = "8", .min = 1, .max = 2048, .help = "MSI-X vectors" },
    { .name = "deadline",
      .type = OB_OPTION_NUMBER,
      .value = "0",
      .max = 60000,
      .help = "milliseconds for which a request may be kept; 0: the library's choice" },
    OB_OPTION_END,
};

OB_DEVICE(
    testdev, .summary = "one of everything, for tests",
    .pci = { .vendor = 0x1234, .device = 0x7e57, .class_code = 0xff0000, .power_management = true, .express = true },
    .irqs = { .msix = 8 }, .bars[0] = OB_BAR_REGS(0x1000, bar0_regs),
    .bars[1] = OB_BAR_REGS_FLAGS(32, OB_BAR_IO, bar1_regs),
    .bars[2] = { .size = 0x10000, .flags = OB_BAR_64 | OB_BAR_PREFETCH, .areas = ram_areas[4] },
    .bars[4] = { .size = 0x4000, .areas = bar4_areas }, .caps = testdev_caps, .options = testdev_options,
    .regions = testdev_regions, .doorbells = testdev_doorbells, .state = OB_STATE(struct testdev, 1, testdev_fields),
    .shared = OB_STATE(struct ring_shared, 1, ring_fields), .scratch_size = sizeof(struct scratch), .timers = TIMERS,
    .ops = { .configure = testdev_configure,
             .open = testdev_open,
             .run = testdev_run,
             .quiesce = testdev_quiesce,
             .loaded = testdev_loaded,
             .reset = testdev_reset,
             .config = testdev_config,
             .unmap = testdev_unmap,
             .timer = testdev_timer,
             .close = testdev_close })
