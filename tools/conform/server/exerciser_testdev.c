/* exerciser_testdev.c: Outboard's test device, whose registers tests/integration/device/testdev.c describes: MSI-X, and
 * a ring in guest memory of copies to be made. */
#include "exerciser.h"

#define FLAGS     0x08
#define FLAGS_SET 0x0c
#define COUNT     0x14
#define TICK      0x18
#define LEVELS    0x1c
#define ERRORS    0x24
#define RING_ADDR 0x80
#define RING_SIZE 0x88
#define RING_CTRL 0x8c
#define DOORBELL  0x90
#define RING_DONE 0x94
#define RINGS     0x200

#define STATUS_DONE 0x80000000u

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
    if (j->copy_ring == NULL) { /* else it is still mapped, from before a reset */
        int fd = judge_memfd(j, EXERCISER_SIZE);

        want_ok(j, map(j, EXERCISER_IOVA, EXERCISER_SIZE, 3, fd, 0), "DMA_MAP of the device's ring");
        j->copy_ring = judge_mmap(j, fd, EXERCISER_SIZE, 0, 3);
    }
    j->copies = 0;
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

    /* A server may wait for the reply to a DMA_READ before it takes a command: memory tells, and not a register. */
    if (!(__atomic_load_n(&entry->status, __ATOMIC_ACQUIRE) & STATUS_DONE)) {
        got(j, ob_raw_serve_ready(&j->raw), "serving DMA");
        return -1;
    }
    if (bar_read(j, 0, RING_DONE, 4) != j->copies)
        return -1;
    return (int)(__atomic_load_n(&entry->status, __ATOMIC_ACQUIRE) & 0xffff);
}

static void testdev_mark(struct judge *j, uint8_t seed)
{
    bar_write(j, 0, FLAGS, 4, 0xff);
    bar_write(j, 0, FLAGS_SET, 4, seed);
    bar_write(j, 0, TICK, 4, seed);
    bar_write(j, 0, LEVELS, 4, seed);
    bar_write(j, 0, ERRORS, 4, seed);
    bar_write(j, 0, RING_ADDR, 8, seed * UINT64_C(0x1000));
    bar_write(j, 0, RING_SIZE, 4, seed);
    for (uint32_t i = 0; i < 4; i++)
        bar_write(j, 1, 0x10 + 4 * i, 4, seed + i);
    bar_write(j, 4, 0x08, 8, seed);
    bar_write(j, 4, 0xf8, 8, seed);
}

static unsigned event(uint32_t region, uint64_t offset, uint64_t value)
{
    switch (region) {
    case 0:
        return offset < 0x108 ? 0 : offset >= 0x110 ? 3 : value == 0x1234 ? 1 : 2;
    case 1:
        return 4;
    case VFIO_PCI_NUM_REGIONS:
        return 5;
    default:
        return 6 + (unsigned)offset / 4;
    }
}

static uint64_t testdev_rings(struct judge *j, uint32_t region, uint64_t offset, uint64_t value)
{
    return bar_read(j, 0, RINGS + 4 * event(region, offset, value), 4);
}

/* SCRATCH and WIDE of BAR 0, IO32 of BAR 1, bytes of BAR 4, REGION of region 9. */
static const struct exerciser_register keep[] = {
    { 0, 4, 0x04 }, { 0, 8, 0x70 }, { 1, 4, 0x04 }, { 4, 8, 0x00 }, { VFIO_PCI_NUM_REGIONS, 4, 0x00 }, { 0, 0, 0 },
};

static const struct exerciser_register show[] = {
    { 0, 4, FLAGS },     { 0, 4, COUNT },     { 0, 4, LEVELS },    { 0, 4, ERRORS }, { 0, 8, RING_ADDR },
    { 0, 4, RING_SIZE }, { 0, 4, RING_CTRL }, { 0, 4, RING_DONE }, { 1, 4, 0x10 },   { 1, 4, 0x14 },
    { 1, 4, 0x18 },      { 1, 4, 0x1c },      { 4, 8, 0x08 },      { 4, 8, 0xf8 },   { 0, 0, 0 },
};

const struct exerciser exerciser_testdev = {
    .name = "testdev",
    .vendor = 0x1234,
    .device = 0x7e57,
    .irqs = 1u << VFIO_PCI_MSIX_IRQ_INDEX,
    .max_copy = 65536,
    .tells = true,
    .raise = testdev_raise,
    .lower = testdev_lower,
    .copy = testdev_copy,
    .copied = testdev_copied,
    .begin = testdev_begin,
    .keep = keep,
    .rings = testdev_rings,
    .show = show,
    .mark = testdev_mark,
};
