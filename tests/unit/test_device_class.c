/* Making devices: mistakes in a class, options, shapes, what a predecessor left, what a failure leaves behind. */
#include "device_bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/pci_regs.h>

struct state {
    uint32_t a, b;
};
static const struct ob_field fields[] = { OB_FIELD(struct state, a), OB_FIELD(struct state, b), OB_FIELD_END };
static const struct ob_reg regs[] = {
    OB_REG32("A", 0, struct state, a, .rw = UINT32_MAX, .reset = 7),
    OB_REG32("B", 4, struct state, b, .rw = UINT32_MAX),
    OB_REG_END,
};

/* What a good class looks like; each mistake overrides one thing of it. */
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#pragma GCC diagnostic ignored "-Woverride-init-side-effects"
#endif
#define GOOD(...)                                                                             \
    (const struct ob_device_class)                                                            \
    {                                                                                         \
        .abi = OB_ABI, .class_size = sizeof(struct ob_device_class), .name = "good",          \
        .pci = { .vendor = 0x1234, .device = 1 }, .state = OB_STATE(struct state, 1, fields), \
        .bars[0] = OB_BAR_REGS(0x1000, regs), __VA_ARGS__                                     \
    }
#define FIELDS(...)                                                                \
    .state = { .size = sizeof(struct state),                                       \
               .version = 1,                                                       \
               .fields = (const struct ob_field[]){ __VA_ARGS__, OB_FIELD_END } }, \
    .bars[0] = { 0 }
#define REGS(...) .bars[0] = OB_BAR_REGS(0x1000, ((const struct ob_reg[]){ __VA_ARGS__, OB_REG_END }))
#define AREAS(size_, flags_, ...) \
    .bars[0] = { .size = size_, .flags = flags_, .areas = (const struct ob_area[]){ __VA_ARGS__, OB_AREA_END } }
#define MEMORY(off_, size_)                                             \
    {                                                                   \
        .off = off_, .size = size_, .flags = OB_AREA_RAM | OB_AREA_MMAP \
    }

#define REGION(...)                                 \
    .regions = (const struct ob_region[])           \
    {                                               \
        { .name = "r", __VA_ARGS__ }, OB_REGION_END \
    }
#define BELLS(...)                            \
    .doorbells = (const struct ob_doorbell[]) \
    {                                         \
        __VA_ARGS__, OB_DOORBELL_END          \
    }

static const struct ob_area ram_area[] = { { .size = 0x1000, .flags = OB_AREA_RAM | OB_AREA_MMAP }, OB_AREA_END };

static int refusing(struct ob_dev *dev)
{
    return -ENXIO;
}

static int refusing_open(struct ob_dev *dev, enum ob_origin origin)
{
    return -EADDRNOTAVAIL;
}

static void never_called(struct ob_dev *dev, unsigned id)
{
    abort();
}

#define SPOT(n)  MEMORY((n)*0x1000ull, 0x1000)
#define SPOTS(n) SPOT(n), SPOT(n + 2), SPOT(n + 4), SPOT(n + 6), SPOT(n + 8), SPOT(n + 10), SPOT(n + 12), SPOT(n + 14)

/* Each is refused with an errno and one line, which has these words in it; nothing is left of it. */
static void test_mistakes(void **unused)
{
    const struct ob_msix_place place = { 0, 0, 0x1000, 0x1800 }, nowhere = { 7, 0, 0, 0x800 };
    const struct {
        const char *words;
        int err;
        struct ob_device_class cls;
    } mistakes[] = {
        { "build it again", -EINVAL, GOOD(.abi = OB_ABI + 1) },
        { "build it again", -EINVAL, GOOD(.class_size = 8) },
        { "has no name", -EINVAL, GOOD(.name = NULL) },
        { "cannot be configured", -ENXIO, GOOD(.ops.configure = refusing) },
        { "cannot be opened", -EADDRNOTAVAIL, GOOD(.ops.open = refusing_open) },
        { "state without fields", -EINVAL, GOOD(.state.fields = NULL, .bars[0] = { 0 }) },
        { "state without fields", -EINVAL, GOOD(.shared = { .size = 8 }) },
        { "leaves its state: far", -EINVAL, GOOD(FIELDS({ "far", 8, 4, 1, 1 })) },
        { "leaves its state: wrap", -EINVAL, GOOD(FIELDS({ "wrap", 0xffffffff, 0xffffffff, 0xffffffff, 1 })) },
        { "is empty", -EINVAL, GOOD(FIELDS({ "none", 0, 0, 1, 1 })) },
        { "is empty", -EINVAL, GOOD(FIELDS({ "none", 0, 1, 0, 1 })) },
        { "overlaps another: two", -EINVAL, GOOD(FIELDS({ "one", 0, 4, 2, 1 }, { "two", 4, 4, 1, 1 })) },
        { "not from version 1", -EINVAL, GOOD(FIELDS({ "new", 0, 4, 1, 2 })) },
        { "not from version 1", -EINVAL, GOOD(FIELDS({ "old", 0, 4, 1, 0 })) },
        { "width is not", -EINVAL, GOOD(REGS({ .name = "r", .width = 3 })) },
        { "leaves its area", -EINVAL, GOOD(REGS({ .name = "r", .off = 0xffe, .width = 4 })) },
        { "leaves its area", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .count = 2, .stride = 2 })) },
        { "leaves its area", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .count = 0x401 })) },
        { "not within one field", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .stored = true, .state_off = 8 })) },
        { "not within one field", -EINVAL, GOOD(REGS({ .name = "r", .width = 8, .stored = true })) },
        { "is not stored", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .rw = 1 })) },
        { "is not stored", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .reset = 1 })) },
        { "wider than it", -EINVAL, GOOD(REGS({ .name = "r", .width = 1, .stored = true, .rw = 0x100 })) },
        { "both rw and w1c", -EINVAL, GOOD(REGS({ .name = "r", .width = 1, .stored = true, .rw = 3, .w1c = 2 })) },
        { "min_access", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .min_access = 3 })) },
        { "min_access", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .min_access = 8, .max_access = 4 })) },
        { "min_access", -EINVAL, GOOD(REGS({ .name = "r", .width = 4, .max_access = 16 })) },
        { "overlaps another: s", -EINVAL,
          GOOD(REGS({ .name = "r", .width = 4 }, { .name = "s", .off = 3, .width = 1 })) },
        { "1 to 65534 registers", -EINVAL,
          GOOD(.bars[0] = OB_BAR_REGS(0x1000, (const struct ob_reg[]){ OB_REG_END })) },
        { "in order", -EINVAL, GOOD(AREAS(0x4000, 0, MEMORY(0x1000, 0x1000), MEMORY(0, 0x1000))) },
        { "in order", -EINVAL, GOOD(AREAS(0x4000, 0, MEMORY(0, 0x2000), MEMORY(0x1000, 0x1000))) },
        { "in order", -EINVAL, GOOD(AREAS(0x1000, 0, MEMORY(0x1000, 0x1000))) },
        { "in order", -EINVAL, GOOD(AREAS(0x1000, 0, MEMORY(0xfffffffffffff000, 0x1000))) },
        { "in order", -EINVAL, GOOD(AREAS(0, 0, MEMORY(0, 0x1000))) },
        { "is one of", -EINVAL, GOOD(AREAS(0x1000, 0, { .size = 0x1000 })) },
        { "is one of", -EINVAL, GOOD(AREAS(0x1000, 0, { .size = 0x1000, .regs = regs, .flags = OB_AREA_RAM })) },
        { "in whole pages", -EINVAL, GOOD(AREAS(0x1000, 0, MEMORY(0x800, 0x800))) },
        { "in whole pages", -EINVAL, GOOD(AREAS(0x1000, 0, { .size = 0x1000, .regs = regs, .flags = OB_AREA_MMAP })) },
        { "OB_AREA_*", -EINVAL, GOOD(AREAS(0x1000, 0, { .size = 0x1000, .flags = OB_AREA_RAM | 8 })) },
        { "OB_BAR_*", -EINVAL, GOOD(AREAS(0x1000, 8, MEMORY(0, 0x1000))) },
        { "use memory for more", -EINVAL, GOOD(AREAS(0x1000, OB_BAR_IO, MEMORY(0, 0x1000))) },
        { "more than 64", -EINVAL,
          GOOD(AREAS(0x100000, 0, SPOTS(0), SPOTS(16), SPOTS(32), SPOTS(48), SPOTS(64), SPOTS(80), SPOTS(96),
                     SPOTS(112), SPOT(128))) },
        { "lies over the MSI-X", -EINVAL,
          GOOD(.irqs = { .msix = 2, .place = &place }, AREAS(0x2000, 0, MEMORY(0, 0x2000))) },
        { "flags are OB_REGION_", -EINVAL, GOOD(REGION(.size = 4)) },
        { "flags are OB_REGION_", -EINVAL, GOOD(REGION(.size = 4, .flags = 4)) },
        { "for reading and writing", -EINVAL,
          GOOD(REGION(.size = 0x1000, .flags = OB_REGION_READABLE, .areas = ram_area)) },
        { "in order", -EINVAL, GOOD(REGION(.size = 0x800, .flags = 3, .areas = ram_area)) },
        { "more than 32 regions", -EINVAL,
          GOOD(.regions = (const struct ob_region[]){ [0 ... 32] = { .size = 4, .flags = 1 }, OB_REGION_END }) },
        { "1, 2, 4 or 8", -EINVAL, GOOD(BELLS({ .size = 3 })) },
        { "1, 2, 4 or 8", -EINVAL, GOOD(BELLS({ .size = 16 })) },
        { "at a multiple", -EINVAL, GOOD(BELLS({ .size = 4, .off = 2 })) },
        { "outside its BAR", -EINVAL, GOOD(BELLS({ .size = 4, .off = 0x1000 })) },
        { "outside its BAR", -EINVAL, GOOD(BELLS({ .size = 4, .off = UINT64_MAX - 3 })) },
        { "outside its BAR", -EINVAL, GOOD(BELLS({ .size = 4, .region = 1 })) },
        { "outside its BAR", -EINVAL, GOOD(BELLS({ .size = 4, .region = 7 })) },
        { "outside its BAR", -EINVAL, GOOD(BELLS({ .size = 4, .region = OB_REGION_FIRST })) },
        { "cannot be written", -EINVAL,
          GOOD(REGION(.size = 4, .flags = OB_REGION_READABLE), BELLS({ .size = 4, .region = OB_REGION_FIRST })) },
        { "a doorbell lies over the MSI-X", -EINVAL,
          GOOD(.irqs = { .msix = 2, .place = &place }, .bars[0] = { .size = 0x2000 },
               BELLS({ .size = 4, .off = 0x1008 })) },
        { "memory that clients map", -EINVAL,
          GOOD(AREAS(0x2000, 0, MEMORY(0x1000, 0x1000)), BELLS({ .size = 8, .off = 0x1ff8 })) },
        { "wider than it", -EINVAL, GOOD(BELLS({ .size = 2, .match = true, .value = 0x10000 })) },
        { "above 252", -EINVAL, GOOD(BELLS({ .size = 2, .event = 253 })) },
        { "none is left out", -EINVAL, GOOD(BELLS({ .size = 2, .event = 1 })) },
        { "none is left out", -EINVAL, GOOD(BELLS({ .size = 2 }, { .size = 2, .off = 2, .event = 2 })) },
        { "by the same write", -EINVAL, GOOD(BELLS({ .size = 2 }, { .size = 2, .match = true })) },
        { "by the same write", -EINVAL,
          GOOD(BELLS({ .size = 2, .match = true, .value = 7 }, { .size = 2, .match = true, .value = 7 })) },
        { "more than 1024", -EINVAL,
          GOOD(.doorbells = (const struct ob_doorbell[]){ [0 ... 1024] = { .size = 1 }, OB_DOORBELL_END }) },
        { "no BAR is free", -EINVAL, GOOD(.irqs.msix = 1, .bars = { [0 ... 5] = { .size = 0x1000 } }) },
        { "no memory BAR", -EINVAL, GOOD(.irqs = { .msix = 1, .place = &nowhere }) },
        { "2048", -EINVAL, GOOD(.irqs.msix = 2049) },
        { "MSI", -EINVAL, GOOD(.irqs.msi = 3) },
        { "BAR 0", -EINVAL, GOOD(.bars[0] = { .size = 0x1800 }) },
        { "BAR 5", -EINVAL, GOOD(.bars[5] = { .size = 0x1000, .flags = OB_BAR_64 }) },
        { "BAR 1", -EINVAL, GOOD(.bars[0] = { .size = 0x1000, .flags = OB_BAR_64 }, .bars[1] = { .size = 0x1000 }) },
        { "0xffff", -EINVAL, GOOD(.pci.vendor = 0xffff) },
        { "class code", -EINVAL, GOOD(.pci.class_code = 0x1000000) },
        { "more than 64 timers", -EINVAL, GOOD(.timers = 65, .ops.timer = never_called) },
        { "without ops.timer", -EINVAL, GOOD(.timers = 1) },
    };
    struct ob_dev *dev = NULL;
    struct ob_device_class good = GOOD(.timers = 0);

    assert_int_equal(ob_dev_new(&good, NULL, NULL, &dev), 0);
    ob_dev_free(dev);
    int before = count_descriptors();
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        capture_begin();
        int err = ob_dev_new(&mistakes[i].cls, NULL, NULL, &dev);
        char *text = capture_end();
        if (err == 0 || !strstr(text, mistakes[i].words) || !strchr(text, '\n') || strchr(text, '\n')[1])
            print_error("mistake %zu (%s): %d: %s\n", i, mistakes[i].words, err, text);
        assert_int_equal(err, mistakes[i].err);
        assert_non_null(strstr(text, mistakes[i].words));
        assert_int_equal(strchr(text, '\n')[1], 0); /* one line */
        free(text);
        assert_int_equal(count_descriptors(), before);
    }
}

/* --- Options shape the device ------------------------------------------------------------------------------------ */

struct shaped_scratch {
    struct ob_area areas[2];
};

static int shaped_configure(struct ob_dev *dev)
{
    struct shaped_scratch *s = ob_scratch(dev);
    uint64_t size = ob_option_number(dev, "size");

    s->areas[0] =
        (struct ob_area){ .size = size, .flags = OB_AREA_RAM | (ob_option_bool(dev, "map") ? OB_AREA_MMAP : 0) };
    ob_shape(dev)->bars[0] = (struct ob_bar){ .size = size, .areas = s->areas };
    ob_shape(dev)->irqs.msix = (uint16_t)ob_option_number(dev, "vectors");
    return 0;
}

static const struct ob_option shaped_options[] = {
    { .name = "size", .type = OB_OPTION_SIZE, .value = "4k", .min = 4096, .max = UINT64_C(1) << 31 },
    { .name = "vectors", .type = OB_OPTION_NUMBER, .value = "4", .min = 1, .max = 2048 },
    { .name = "map", .type = OB_OPTION_BOOL, .value = "on" },
    OB_OPTION_END,
};

OB_CLASS(shaped, .pci = { .vendor = 0x1234, .device = 2 }, .options = shaped_options, .irqs = { .msix = 1 },
         .scratch_size = sizeof(struct shaped_scratch), .ops = { .configure = shaped_configure });

static void test_options_shape(void **unused)
{
    struct bench a, b;
    struct vfio_region_info info;
    struct vfio_irq_info irq = { .argsz = sizeof(irq) };
    int fd;

    /* Two of them at once: neither's shape touches the other's. */
    bench_start(&a, &ob_class_shaped, "size=1M,vectors=2048");
    bench_start(&b, &ob_class_shaped, "map=off");
    assert_int_equal(ob_raw_region_info(&a.raw, 0, sizeof(info), &info, sizeof(info), &fd), 0);
    assert_int_equal(info.size, 1 << 20);
    close(fd);
    assert_int_equal(ob_raw_region_info(&b.raw, 0, sizeof(info), &info, sizeof(info), &fd), 0);
    assert_int_equal(info.size, 4096);
    assert_int_equal(info.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
    assert_int_equal(fd, -1);
    assert_int_equal(ob_raw_irq_info(&a.raw, VFIO_PCI_MSIX_IRQ_INDEX, &irq), 0);
    assert_int_equal(irq.count, 2048);
    assert_int_equal(ob_raw_irq_info(&b.raw, VFIO_PCI_MSIX_IRQ_INDEX, &irq), 0);
    assert_int_equal(irq.count, 4);
    bench_write(&a, 0, 0xffff8, 0x11, 8);
    assert_int_equal(bench_read(&a, 0, 0xffff8, 8), 0x11);
    bench_write(&b, 0, 0xff8, 0x22, 8);
    assert_int_equal(bench_read(&b, 0, 0xff8, 8), 0x22);
    bench_stop(&a);
    assert_int_equal(bench_read(&b, 0, 0xff8, 8), 0x22);
    bench_stop(&b);
}

/* The table's own BAR is the highest that is free: 32 KiB of entries, then 256 bytes pending. */
static void test_msix_has_a_bar(void **unused)
{
    struct bench bench;
    struct vfio_region_info info;

    bench_start(&bench, &ob_class_shaped, "vectors=2048");
    assert_int_equal(ob_raw_region_info(&bench.raw, 5, sizeof(info), &info, sizeof(info), NULL), 0);
    assert_int_equal(info.size, 0x10000);
    bench_write(&bench, 5, 2047 * 16, 0xfee00000, 4);
    assert_int_equal(bench_read(&bench, 5, 2047 * 16, 4), 0xfee00000);
    assert_int_equal(bench_read(&bench, 5, 2047 * 16 + 12, 4), PCI_MSIX_ENTRY_CTRL_MASKBIT);
    assert_int_equal(bench_read(&bench, 5, 2048 * 16, 8), 0);
    assert_int_equal(bench_read(&bench, 5, 2048 * 16 + 256, 8), UINT64_MAX);
    bench_stop(&bench);
}

/* --- What a predecessor left ------------------------------------------------------------------------------------- */

static int lifeline_open(struct ob_dev *dev, enum ob_origin origin)
{
    return ob_option_bool(dev, "fail") ? -EIO : 0;
}

static const struct ob_option lifeline_options[] = {
    { .name = "fail", .type = OB_OPTION_BOOL, .value = "off" },
    OB_OPTION_END,
};
static const struct ob_field renamed[] = { OB_FIELD(struct state, a),
                                           { .name = "c", .off = 4, .elem = 4, .count = 1, .since = 1 },
                                           OB_FIELD_END };

#define LIFELINE(name_, ...)                                                                        \
    OB_CLASS(name_, .pci = { .vendor = 0x1234, .device = 4 }, .bars[0] = OB_BAR_REGS(0x1000, regs), \
             .bars[1] = { .size = 0x1000, .areas = ram_area }, .options = lifeline_options,         \
             .state = OB_STATE(struct state, 1, fields), .ops = { .open = lifeline_open }, __VA_ARGS__)
LIFELINE(keeping);
LIFELINE(other_device, .pci.device = 5);
LIFELINE(other_fields, .state.fields = renamed);
LIFELINE(other_version, .state.version = 2);
LIFELINE(other_shared, .shared = OB_STATE(struct state, 1, fields));

static struct ob_lifeline copy_lifeline(const struct ob_lifeline *life)
{
    return (struct ob_lifeline){ dup(life->vault), dup(life->bars), dup(life->journal), dup(life->holder) };
}

static void close_lifeline(const struct ob_lifeline *life)
{
    assert_int_equal(close(life->vault), 0);
    assert_int_equal(close(life->bars), 0);
    assert_int_equal(close(life->journal), 0);
    assert_int_equal(close(life->holder), 0);
}

/* The descriptor of one of the library's files, found by its name. */
static int find_file(const char *name)
{
    char path[64], target[256];

    for (int fd = 3; fd < 1024; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        if (n > 0) {
            target[n] = 0;
            if (strstr(target, name))
                return fd;
        }
    }
    fail_msg("no %s", name);
    return -1;
}

/* A device is made, used, and freed; its memory goes on. */
static struct ob_lifeline leave_behind(int *peer)
{
    struct bench bench;
    int holder[2];

    bench_start(&bench, &ob_class_keeping, NULL);
    bench_write(&bench, 0, 0, 0xcafe, 4);
    bench_write(&bench, 1, 8, 0xf00d, 4);
    struct ob_lifeline life = { dup(find_file("outboard-vault")), dup(find_file("outboard-bars")),
                                dup(find_file("outboard-journal")), -1 };
    bench_stop(&bench);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, holder), 0);
    life.holder = holder[0];
    *peer = holder[1];
    return life;
}

static void test_successor(void **unused)
{
    int peer, before = count_descriptors();
    struct ob_lifeline life = leave_behind(&peer), ours;
    struct ob_dev *dev = NULL;

    /* On success all four are the device's. */
    ours = copy_lifeline(&life);
    assert_int_equal(ob_dev_new(&ob_class_keeping, NULL, &ours, &dev), 0);
    assert_int_equal(((struct state *)ob_state(dev))->a, 0xcafe);
    assert_int_equal(*(volatile uint32_t *)ob_bar_ram(dev, 1, 8), 0xf00d);
    ob_dev_free(dev);
    assert_int_equal(fcntl(ours.vault, F_GETFD), -1);
    assert_int_equal(fcntl(ours.bars, F_GETFD), -1);
    assert_int_equal(fcntl(ours.journal, F_GETFD), -1);
    assert_int_equal(fcntl(ours.holder, F_GETFD), -1);
    close_lifeline(&life);
    close(peer);
    assert_int_equal(count_descriptors(), before);
}

static void test_lifeline_stays_the_callers(void **unused)
{
    const struct ob_device_class *const strangers[] = { &ob_class_other_device, &ob_class_other_fields,
                                                        &ob_class_other_version, &ob_class_other_shared };
    int peer, before = count_descriptors();
    struct ob_lifeline life = leave_behind(&peer);
    struct ob_dev *dev = NULL;
    int with = count_descriptors();

    capture_begin();
    for (int i = 0; i < 4; i++)
        assert_int_equal(ob_dev_new(strangers[i], NULL, &life, &dev), -EINVAL);
    assert_int_equal(ob_dev_new(&ob_class_keeping, "fail=on", &life, &dev), -EIO);
    assert_int_equal(ob_dev_new(&ob_class_keeping, "nothing=1", &life, &dev), -EINVAL);
    /* Each of the files in a place that is not its own, and one that is no file. */
    struct ob_lifeline swapped = { life.bars, life.vault, life.journal, life.holder };
    assert_int_equal(ob_dev_new(&ob_class_keeping, NULL, &swapped, &dev), -EINVAL);
    swapped = (struct ob_lifeline){ life.vault, life.journal, life.bars, life.holder };
    assert_int_equal(ob_dev_new(&ob_class_keeping, NULL, &swapped, &dev), -EINVAL);
    swapped = (struct ob_lifeline){ life.vault, life.bars, life.vault, life.holder };
    assert_int_equal(ob_dev_new(&ob_class_keeping, NULL, &swapped, &dev), -EINVAL);
    swapped = (struct ob_lifeline){ peer, life.bars, life.journal, life.holder };
    assert_int_equal(ob_dev_new(&ob_class_keeping, NULL, &swapped, &dev), -EINVAL);
    free(capture_end());
    assert_int_equal(count_descriptors(), with);
    /* And it is as good as before. */
    assert_int_equal(ob_dev_new(&ob_class_keeping, NULL, &life, &dev), 0);
    assert_int_equal(((struct state *)ob_state(dev))->a, 0xcafe);
    ob_dev_free(dev);
    close(peer);
    assert_int_equal(count_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_options_shape),
        cmocka_unit_test(test_msix_has_a_bar),
        cmocka_unit_test(test_successor),
        cmocka_unit_test(test_lifeline_stays_the_callers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
