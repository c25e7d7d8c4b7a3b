/* exerciser_testdev.c: Outboard's test device, whose registers tests/integration/device/testdev.c describes: MSI-X, and
 * a ring in guest memory of copies to be made. */
#include "exerciser.h"

#define SCRATCH   0x04
#define FLAGS     0x08
#define FLAGS_SET 0x0c
#define COUNT     0x14
#define TICK      0x18
#define LEVELS    0x1c
#define ERRORS    0x24
#define WIDE      0x70
#define RING_ADDR 0x80
#define RING_SIZE 0x88
#define RING_CTRL 0x8c
#define DOORBELL  0x90
#define RING_DONE 0x94

struct entry {
    uint64_t from, to;
    uint32_t len, vector, flags, status;
};

static void testdev_raise(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, LEVELS, 4, bar_read(j, 0, LEVELS, 4) | 1u << vector);
}

static void testdev_lower(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, LEVELS, 4, bar_read(j, 0, LEVELS, 4) & ~(1u << vector));
}

static void testdev_begin(struct judge *j)
{
    int fd = judge_memfd(j, EXERCISER_SIZE);

    j->copy_ring = judge_mmap(j, fd, EXERCISER_SIZE, 0, 3);
    j->copies = 0;
    want_ok(j, map(j, EXERCISER_IOVA, EXERCISER_SIZE, 3, fd, 0), "DMA_MAP of the device's ring");
    bar_write(j, 0, RING_ADDR, 8, EXERCISER_IOVA);
    bar_write(j, 0, RING_SIZE, 4, 256);
    bar_write(j, 0, RING_CTRL, 4, 1);
}

static void testdev_copy(struct judge *j, uint64_t from, uint64_t to, uint32_t len)
{
    struct entry *entry = (struct entry *)j->copy_ring + (j->copies++ & 255);

    *entry = (struct entry){ .from = from, .to = to, .len = len, .vector = UINT32_MAX };
    bar_write(j, 0, DOORBELL, 4, j->copies);
}

static int testdev_copied(struct judge *j)
{
    const struct entry *entry = (const struct entry *)j->copy_ring + ((j->copies - 1) & 255);

    if (bar_read(j, 0, RING_DONE, 4) != j->copies)
        return -1;
    return (int)(__atomic_load_n(&entry->status, __ATOMIC_ACQUIRE) & 0xffff);
}

static void testdev_mark(struct judge *j, uint8_t seed)
{
    bar_write(j, 0, SCRATCH, 4, seed * 0x01010101u);
    bar_write(j, 0, FLAGS, 4, 0xff);
    bar_write(j, 0, FLAGS_SET, 4, seed);
    bar_write(j, 0, TICK, 4, seed);
    bar_write(j, 0, LEVELS, 4, seed);
    bar_write(j, 0, ERRORS, 4, seed);
    bar_write(j, 0, WIDE, 8, seed * UINT64_C(0x0101010101010101));
    bar_write(j, 0, RING_ADDR, 8, seed * UINT64_C(0x1000));
    bar_write(j, 0, RING_SIZE, 4, seed);
    for (uint32_t i = 0; i < 4; i++)
        bar_write(j, 1, 0x10 + 4 * i, 4, seed + i);
    for (uint32_t i = 0; i < 32; i++)
        bar_write(j, 4, 8 * i, 8, seed * (i + 1));
}

static size_t testdev_registers(struct judge *j, uint8_t *to)
{
    static const uint16_t bar0[] = { 0x00, SCRATCH, FLAGS, COUNT, LEVELS, ERRORS, RING_SIZE, RING_CTRL, RING_DONE };
    static const uint16_t wide[] = { WIDE, RING_ADDR }, bar1[] = { 0x04, 0x10, 0x14, 0x18, 0x1c };
    size_t size = bar_read_all(j, 0, 4, bar0, 9, to);

    size += bar_read_all(j, 0, 8, wide, 2, to + size);
    size += bar_read_all(j, 1, 4, bar1, 5, to + size);
    for (uint16_t offset = 0; offset < 256; offset += 8)
        size += bar_read_all(j, 4, 8, &offset, 1, to + size);
    return size;
}

const struct exerciser exerciser_testdev = {
    .name = "testdev",
    .vendor = 0x1234,
    .device = 0x7e57,
    .irqs = 1u << VFIO_PCI_MSIX_IRQ_INDEX,
    .max_copy = 65536,
    .raise = testdev_raise,
    .lower = testdev_lower,
    .copy = testdev_copy,
    .copied = testdev_copied,
    .begin = testdev_begin,
    .mark = testdev_mark,
    .registers = testdev_registers,
};
