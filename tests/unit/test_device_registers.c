/* Registers, areas and memory of BARs, as a client reads and writes them. */
#include "device_bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/pci_regs.h>

/* --- A table with one of each, and a model of it made of single bits --------------------------------------------- */

struct state {
    uint8_t r8;
    uint8_t array[4];
    uint16_t r16;
    uint32_t r32, only32, w1c, rc;
    uint64_t r64, mixed;
    uint32_t wide_array[3];
};

static const struct ob_field fields[] = {
    OB_FIELD(struct state, r8),
    OB_FIELD_ARRAY(struct state, array),
    OB_FIELD(struct state, r16),
    OB_FIELD(struct state, r32),
    OB_FIELD(struct state, only32),
    OB_FIELD(struct state, w1c),
    OB_FIELD(struct state, rc),
    OB_FIELD(struct state, r64),
    OB_FIELD(struct state, mixed),
    OB_FIELD_ARRAY(struct state, wide_array),
    OB_FIELD_END,
};

#define MIXED_RW  0x00ff00ff0f0f00ffu
#define MIXED_W1C 0xff00000000f0ff00u
#define MIXED_RC  0x0000ff000000000fu

static const struct ob_reg regs[] = {
    OB_REG8("R8", 0x00, struct state, r8, .rw = 0xff, .reset = 0x12),
    OB_REG16("R16", 0x02, struct state, r16, .rw = 0xfff0, .reset = 0xabcd),
    OB_REG32("R32", 0x04, struct state, r32, .rw = UINT32_MAX),
    OB_REG64("R64", 0x08, struct state, r64, .rw = UINT64_MAX, .reset = 0x1122334455667788),
    OB_REG32("ONLY32", 0x10, struct state, only32, .rw = UINT32_MAX, .min_access = 4, .max_access = 4),
    OB_REG32("W1C", 0x14, struct state, w1c, .w1c = 0xffff00ff, .reset = UINT32_MAX),
    OB_REG32("RC", 0x18, struct state, rc, .rc = 0xff00ffff, .reset = 0xa5a5a5a5),
    OB_REG8("ARRAY", 0x20, struct state, array, .rw = 0x7f, .count = 4, .stride = 3, .reset = 0x55),
    OB_REG64("MIXED", 0x30, struct state, mixed, .rw = MIXED_RW, .w1c = MIXED_W1C, .rc = MIXED_RC, .reset = UINT64_MAX,
             .min_access = 2),
    OB_REG32("WIDE_ARRAY", 0x40, struct state, wide_array, .rw = UINT32_MAX, .count = 3, .stride = 8),
    OB_REG_END,
};

#define TABLE_SIZE 0x60u

OB_CLASS(table, .pci = { .vendor = 0x1234, .device = 1, .class_code = 0xff0000, .power_management = true },
         .state = OB_STATE(struct state, 1, fields), .bars[0] = OB_BAR_REGS(0x100, regs));

/* A byte of the BAR: what it holds, and who owns it. */
struct model_byte {
    uint8_t value, rw, w1c, rc;
    const struct ob_reg *reg;
    unsigned index;
};
struct model {
    struct model_byte bytes[0x100];
};

static void model_reset(struct model *m)
{
    memset(m, 0, sizeof(*m));
    for (const struct ob_reg *r = regs; r->name; r++) {
        for (unsigned i = 0; i < (r->count ? r->count : 1); i++) {
            for (unsigned b = 0; b < r->width; b++) {
                m->bytes[r->off + i * r->stride + b] = (struct model_byte){
                    .value = (uint8_t)(r->reset >> 8 * b),
                    .rw = (uint8_t)(r->rw >> 8 * b),
                    .w1c = (uint8_t)(r->w1c >> 8 * b),
                    .rc = (uint8_t)(r->rc >> 8 * b),
                    .reg = r,
                    .index = i,
                };
            }
        }
    }
}

/* Whether the byte takes part in an access of [off, off + len). */
static bool model_takes(const struct model *m, unsigned at, unsigned off, unsigned len)
{
    const struct model_byte *b = &m->bytes[at];
    unsigned size = 0;

    if (!b->reg)
        return false;
    for (unsigned i = off; i < off + len; i++)
        size += m->bytes[i].reg == b->reg && m->bytes[i].index == b->index;
    if (len <= 8)
        size = len;
    return size >= (b->reg->min_access ? b->reg->min_access : 1) &&
           size <= (b->reg->max_access ? b->reg->max_access : 8);
}

static void model_read(struct model *m, unsigned off, unsigned len, uint8_t *data)
{
    for (unsigned i = off; i < off + len; i++) {
        struct model_byte *b = &m->bytes[i];
        bool takes = model_takes(m, i, off, len);
        data[i - off] = takes ? b->value : 0xff;
        if (takes)
            b->value &= (uint8_t)~b->rc;
    }
}

static void model_write(struct model *m, unsigned off, unsigned len, const uint8_t *data)
{
    for (unsigned i = off; i < off + len; i++) {
        struct model_byte *b = &m->bytes[i];
        if (!model_takes(m, i, off, len))
            continue;
        b->value = (uint8_t)((b->value & ~b->rw) | (data[i - off] & b->rw));
        b->value &= (uint8_t) ~(data[i - off] & b->w1c);
    }
}

static void compare(struct bench *bench, struct model *m, unsigned off, unsigned len)
{
    uint8_t got[0x100], expected[0x100];

    model_read(m, off, len, expected);
    assert_int_equal(ob_raw_read(&bench->raw, 0, off, got, len), 0);
    assert_memory_equal(got, expected, len);
}

/* Every offset, every length from a byte to a bulk access; then all of it again after a reset. */
static void test_every_access(void **state)
{
    struct bench bench;
    struct model m;
    uint8_t data[0x100];

    srandom(1);
    bench_start(&bench, &ob_class_table, NULL);
    model_reset(&m);
    for (unsigned len = 1; len <= 17; len++) {
        for (unsigned off = 0; off + len <= TABLE_SIZE; off++) {
            for (unsigned i = 0; i < len; i++)
                data[i] = (uint8_t)random();
            model_write(&m, off, len, data);
            assert_int_equal(ob_raw_write(&bench.raw, 0, off, data, len), 0);
            compare(&bench, &m, off, len);
        }
        compare(&bench, &m, 0, TABLE_SIZE);
        assert_int_equal(ob_raw_reset(&bench.raw), 0);
        model_reset(&m);
        compare(&bench, &m, 0, TABLE_SIZE);
    }
    bench_stop(&bench);
}

static void test_sizes_refused(void **state)
{
    struct bench bench;

    bench_start(&bench, &ob_class_table, NULL);
    bench_write(&bench, 0, 0x10, 0x01020304, 4);
    bench_write(&bench, 0, 0x10, 0xff, 1);
    bench_write(&bench, 0, 0x10, 0xffff, 2);
    bench_write(&bench, 0, 0x10, UINT64_MAX, 8); /* W1C has no largest access, and takes its half */
    assert_int_equal(bench_read(&bench, 0, 0x10, 4), 0x01020304);
    assert_int_equal(bench_read(&bench, 0, 0x10, 1), 0xff);
    assert_int_equal(bench_read(&bench, 0, 0x12, 2), 0xffff);
    assert_int_equal(bench_read(&bench, 0, 0x10, 8), 0x0000ff00ffffffff);
    assert_int_equal(bench_read(&bench, 0, 0xf0, 4), 0xffffffff);
    uint32_t value = 0;
    assert_int_equal(ob_raw_read(&bench.raw, 0, 0xfd, &value, 4), EINVAL); /* leaves the BAR */
    assert_int_equal(ob_raw_read(&bench.raw, 1, 0, &value, 4), EINVAL);    /* there is none */
    bench_stop(&bench);
}

/* In D3hot only configuration space answers; leaving it resets the function. */
static void test_sleeping_device(void **state)
{
    struct bench bench;

    bench_start(&bench, &ob_class_table, NULL);
    uint8_t at = (uint8_t)bench_read(&bench, VFIO_PCI_CONFIG_REGION_INDEX, PCI_CAPABILITY_LIST, 1);
    assert_int_equal(bench_read(&bench, VFIO_PCI_CONFIG_REGION_INDEX, at, 1), PCI_CAP_ID_PM);
    bench_write(&bench, 0, 0x04, 0x01020304, 4);
    bench_write(&bench, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_PM_CTRL, 3, 2);
    assert_int_equal(bench_read(&bench, 0, 0x04, 4), 0xffffffff);
    bench_write(&bench, 0, 0x04, 0, 4);
    bench_write(&bench, VFIO_PCI_CONFIG_REGION_INDEX, at + PCI_PM_CTRL, 0, 2);
    assert_int_equal(bench_read(&bench, 0, 0x04, 4), 0);
    assert_int_equal(bench_read(&bench, 0, 0x00, 1), 0x12);
    bench_stop(&bench);
}

/* --- Hooks ------------------------------------------------------------------------------------------------------- */

struct hooked {
    uint32_t value, seen, order;
    uint64_t wide;
};

static const struct ob_field hooked_fields[] = {
    OB_FIELD(struct hooked, value),
    OB_FIELD(struct hooked, seen),
    OB_FIELD(struct hooked, order),
    OB_FIELD(struct hooked, wide),
    OB_FIELD_END,
};

static uint64_t last_val, last_mask;
static unsigned last_index, calls;

static int hooked_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct hooked *h = ob_state(ob_req_dev(req));

    h->order = h->order << 4 | (index + 1);
    last_index = index;
    calls++;
    *val = *val + index;
    return OB_DONE;
}

static int hooked_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct hooked *h = ob_state(ob_req_dev(req));

    last_val = val;
    last_mask = mask;
    last_index = index;
    calls++;
    h->seen = h->value; /* merged already */
    return OB_DONE;
}

static int failing_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct hooked *h = ob_state(ob_req_dev(req));

    h->order = 0xdead;
    return -ENOSPC;
}

static int rc_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct hooked *h = ob_state(ob_req_dev(req));

    h->wide |= 0x100; /* set by the hook: cleared after it */
    *val |= 0x200;
    return OB_DONE;
}

static const struct ob_reg hooked_regs[] = {
    OB_REG32("VALUE", 0x00, struct hooked, value, .rw = 0x00ffffff, .write = hooked_write),
    OB_REG32("SEEN", 0x04, struct hooked, seen),
    OB_REG32("ORDER", 0x08, struct hooked, order),
    { .name = "PLAIN", .off = 0x10, .width = 4, .count = 4, .stride = 4, .read = hooked_read, .write = hooked_write },
    OB_REG64("WIDE", 0x20, struct hooked, wide, .rw = 0xff, .rc = 0xf00, .read = rc_read),
    { .name = "FAIL", .off = 0x28, .width = 4, .write = failing_write },
    { .name = "NOTHING", .off = 0x2c, .width = 4 },
    OB_REG_END,
};

OB_CLASS(hooked, .pci = { .vendor = 0x1234, .device = 2 }, .state = OB_STATE(struct hooked, 1, hooked_fields),
         .bars[0] = OB_BAR_REGS(0x1000, hooked_regs));

static void test_hooks(void **state)
{
    struct bench bench;

    bench_start(&bench, &ob_class_hooked, NULL);
    bench_write(&bench, 0, 0x00, 0xaabbccdd, 4);
    assert_int_equal(last_val, 0xaabbccdd);
    assert_int_equal(last_mask, 0xffffffff);
    assert_int_equal(bench_read(&bench, 0, 0x04, 4), 0x00bbccdd);
    bench_write(&bench, 0, 0x01, 0x1122, 2);
    assert_int_equal(last_val, 0x112200);
    assert_int_equal(last_mask, 0x00ffff00);
    assert_int_equal(bench_read(&bench, 0, 0x00, 4), 0x001122dd);
    bench_write(&bench, 0, 0x1b, 0x77, 1);
    assert_int_equal(last_index, 2);
    assert_int_equal(last_val, 0x77000000);
    assert_int_equal(last_mask, 0xff000000);
    /* Lowest address first, and the value's own half in each. */
    uint32_t four[4];
    calls = 0;
    assert_int_equal(ob_raw_read(&bench.raw, 0, 0x10, four, sizeof(four)), 0);
    assert_int_equal(calls, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(four[i], i);
    assert_int_equal(bench_read(&bench, 0, 0x08, 4), 0x1234);
    assert_int_equal(bench_read(&bench, 0, 0x18, 8), UINT64_C(3) << 32 | 2);
    assert_int_equal(bench_read(&bench, 0, 0x2c, 4), 0);
    bench_stop(&bench);
}

static void test_hooked_read_clears_after(void **state)
{
    struct bench bench;

    bench_start(&bench, &ob_class_hooked, NULL);
    bench_write(&bench, 0, 0x20, 0x5a, 8);
    assert_int_equal(bench_read(&bench, 0, 0x20, 8), 0x25a); /* the stored value as the hook found it, and its bit */
    assert_int_equal(bench_read(&bench, 0, 0x20, 1), 0x5a);  /* a narrow read leaves bits 8 to 11 alone */
    assert_int_equal(bench_read(&bench, 0, 0x21, 1), 0x03);  /* bit 8 was set by the hook of the narrow read */
    bench_stop(&bench);
}

static void test_failing_write_undone(void **state)
{
    struct bench bench;
    uint32_t value = 1, both[3] = { 7, 8, 9 };

    bench_start(&bench, &ob_class_hooked, NULL);
    assert_int_equal(ob_raw_write(&bench.raw, 0, 0x28, &value, 4), ENOSPC);
    assert_int_equal(bench_read(&bench, 0, 0x08, 4), 0);
    /* The pieces before the one that fails have happened. */
    bench_write(&bench, 0, 0x20, 0, 8);
    assert_int_equal(ob_raw_write(&bench.raw, 0, 0x20, both, 12), ENOSPC);
    assert_int_equal(bench_read(&bench, 0, 0x20, 1), 7);
    assert_int_equal(bench_read(&bench, 0, 0x08, 4), 0);
    bench_stop(&bench);
}

/* --- Areas ------------------------------------------------------------------------------------------------------- */

static struct ob_access last_access;
static uint8_t last_data[64];

static int area_access(struct ob_req *req, const struct ob_access *access)
{
    last_access = *access;
    if (access->write)
        memcpy(last_data, access->data, access->len < 64 ? access->len : 64);
    else
        memset(access->data, 0x3c, access->len);
    return access->off == 0x10 ? -EPERM : OB_DONE;
}

static const struct ob_area areas[] = {
    { .off = 0x10, .size = 0x40, .access = area_access },
    { .off = 0x100, .size = 0x100, .flags = OB_AREA_RAM },
    { .off = 0x1000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    { .off = 0x3000, .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP },
    OB_AREA_END,
};
static const struct ob_area whole_area[] = { { .size = 0x2000, .flags = OB_AREA_RAM | OB_AREA_MMAP }, OB_AREA_END };

OB_CLASS(areas, .pci = { .vendor = 0x1234, .device = 3 }, .bars[0] = { .size = 0x4000, .areas = areas },
         .bars[2] = { .size = 0x2000, .flags = OB_BAR_64 | OB_BAR_PREFETCH, .areas = whole_area },
         .bars[5] = { .size = 0x1000 });

static void test_areas(void **state)
{
    struct bench bench;
    uint8_t bytes[0x120];

    bench_start(&bench, &ob_class_areas, NULL);
    /* An access over hole, callback and hole. */
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(ob_raw_read(&bench.raw, 0, 0x08, bytes, 0x50), 0);
    assert_int_equal(last_access.off, 0);
    assert_int_equal(last_access.len, 0x40);
    for (unsigned i = 0; i < 0x50; i++)
        assert_int_equal(bytes[i], i >= 8 && i < 0x48 ? 0x3c : 0xff);
    assert_int_equal(bench_read(&bench, 5, 0, 8), UINT64_MAX);
    bench_write(&bench, 0, 0x20 + 0x14, 0x0102, 2);
    assert_int_equal(last_access.off, 0x24);
    assert_true(last_access.write);
    assert_memory_equal(last_data, "\2\1", 2);
    uint8_t byte = 0;
    assert_int_equal(ob_raw_read(&bench.raw, 0, 0x20, &byte, 1), EPERM);
    /* Memory, with a hole before it. */
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7);
    assert_int_equal(ob_raw_write(&bench.raw, 0, 0xf0, bytes, 0x110), 0);
    uint8_t back[0x120];
    assert_int_equal(ob_raw_read(&bench.raw, 0, 0x100, back, 0x100), 0);
    assert_memory_equal(back, bytes + 0x10, 0x100);
    assert_memory_equal((const void *)ob_bar_ram(bench.dev, 0, 0x100), bytes + 0x10, 0x100);
    assert_null(ob_bar_ram(bench.dev, 0, 0x200));
    assert_null(ob_bar_ram(bench.dev, 0, 0x10));
    assert_null(ob_bar_ram(bench.dev, 1, 0));
    assert_null(ob_bar_ram(bench.dev, 6, 0));
    bench_stop(&bench);
}

static void check_mapping(struct bench *bench, uint32_t bar, int fd, uint64_t at, uint64_t off)
{
    volatile uint32_t *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(at + off));

    assert_ptr_not_equal(mapped, MAP_FAILED);
    mapped[5] = 0x600d0000 + bar;
    assert_int_equal(bench_read(bench, bar, off + 20, 4), 0x600d0000 + bar);
    bench_write(bench, bar, off + 24, 0x1234, 4);
    assert_int_equal(mapped[6], 0x1234);
    assert_int_equal(*(volatile uint32_t *)ob_bar_ram(bench->dev, bar, off + 24), 0x1234);
    munmap((void *)mapped, 4096);
}

static void test_mapped_areas(void **state)
{
    struct bench bench;
    struct {
        struct vfio_region_info info;
        struct vfio_info_cap_header header; /* from here on: struct vfio_region_info_cap_sparse_mmap */
        uint32_t nr_areas, reserved;
        struct vfio_region_sparse_mmap_area area[4];
    } r;
    int fd;

    bench_start(&bench, &ob_class_areas, NULL);
    assert_int_equal(ob_raw_region_info(&bench.raw, 0, sizeof(r), &r, sizeof(r), &fd), 0);
    assert_int_equal(r.info.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
                                       VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS);
    assert_int_equal(r.info.cap_offset, sizeof(r.info));
    assert_int_equal(r.nr_areas, 2);
    assert_int_equal(r.area[0].offset, 0x1000);
    assert_int_equal(r.area[1].offset, 0x3000);
    assert_int_equal(r.area[1].size, 0x1000);
    check_mapping(&bench, 0, fd, r.info.offset, 0x1000);
    check_mapping(&bench, 0, fd, r.info.offset, 0x3000);
    close(fd);
    /* A BAR that is memory as a whole has no areas to list. */
    assert_int_equal(ob_raw_region_info(&bench.raw, 2, sizeof(r), &r, sizeof(r), &fd), 0);
    assert_int_equal(r.info.flags,
                     VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP);
    check_mapping(&bench, 2, fd, r.info.offset, 0x1000);
    assert_int_equal(ftruncate(fd, 1), -1); /* sealed */
    close(fd);
    bench_stop(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_access),
        cmocka_unit_test(test_sizes_refused),
        cmocka_unit_test(test_sleeping_device),
        cmocka_unit_test(test_hooks),
        cmocka_unit_test(test_hooked_read_clears_after),
        cmocka_unit_test(test_failing_write_undone),
        cmocka_unit_test(test_areas),
        cmocka_unit_test(test_mapped_areas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
