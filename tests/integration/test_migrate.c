/* test_migrate: devices that go from one process to another, in the middle of what they do; and the log of what they
 * write to guest memory. */
#include "edu_dma.h"
#include "migrate_client.h"
#include "testdev_regs.h"

#include <linux/serial_reg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE  4096ull
#define RING  0x100000ull
#define DATA  0x200000ull
#define PAGES 64

/* --- A second process of the same program ------------------------------------------------------------------------- */

struct other {
    struct ob_process process;
    struct ob_raw raw;
};

static void other_start(struct other *other, const char *command)
{
    const struct ob_process_options options = { .command = command, .socket = OB_PROCESS_CONNECTED };

    ob_ok(ob_process_start(&other->process, &options));
    ob_raw_init(&other->raw, other->process.connected);
    ob_ok(ob_raw_handshake(&other->raw));
}

static void other_stop(struct other *other)
{
    ob_raw_close(&other->raw);
    assert_int_equal(ob_process_stop(&other->process, 0, 10000), 0);
}

/* The whole of it, as a client does it: what there is in PRE_COPY, stop, the rest. */
static void move(struct ob_raw *from, struct ob_raw *to)
{
    uint8_t *before, *rest;
    size_t n_before, n_rest;
    uint64_t most;

    ob_ok(mig_get(from, 9, NULL, 0, &most, sizeof(most)));
    ob_ok(mig_set_state(from, MIG_PRE_COPY));
    ob_ok(mig_read_all(from, 1048576, &before, &n_before));
    ob_ok(mig_set_state(from, MIG_STOP_COPY));
    ob_ok(mig_read_all(from, 1048576, &rest, &n_rest));
    assert_in_range(n_before + n_rest, 1, most);
    ob_ok(mig_set_state(to, MIG_RESUMING));
    ob_ok(mig_write_all(to, 1048576, before, n_before));
    ob_ok(mig_write_all(to, 1048576, rest, n_rest));
    ob_ok(mig_set_state(to, MIG_RUNNING));
    free(before);
    free(rest);
}

/* --- testdev ------------------------------------------------------------------------------------------------------ */

static void *bar_map(struct ob_raw *raw, uint32_t bar, size_t size)
{
    struct vfio_region_info info;
    int fd;

    ob_ok(ob_raw_region_info(raw, bar, 4096, &info, sizeof(info), &fd));
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)info.offset);

    assert_ptr_not_equal(p, MAP_FAILED);
    close(fd);
    return p;
}

static void enable_vectors(struct ob_raw *raw, uint16_t control)
{
    uint32_t at = ob_find_capability(raw, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS;

    ob_ok(ob_raw_write(raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &control, sizeof(control)));
}

static void test_everything(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *a = &fixture->raw;
    struct other other;
    uint64_t wide = 0x0123456789abcdef, found = 0;
    uint8_t config_a[4096], config_b[4096];
    int events[2] = { ob_event_new(), ob_event_new() };

    other_start(&other, fixture->command);
    struct ob_raw *b = &other.raw;
    uint8_t *ram_a = bar_map(a, 2, TD_BAR2_SIZE), *ram_b = bar_map(b, 2, TD_BAR2_SIZE);
    ob_set_command(a, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    enable_vectors(a, PCI_MSIX_FLAGS_ENABLE);
    ob_write32(a, TD_BAR, TD_SCRATCH, 0xcafe0001);
    ob_write32(a, TD_BAR, TD_FLAGS_SET, 0x42);
    ob_write32(a, TD_BAR, TD_TICK, 1234);
    ob_ok(ob_raw_write(a, TD_BAR, TD_WIDE, &wide, 8));
    for (size_t i = 0; i < TD_BAR2_SIZE; i++)
        ram_a[i] = (uint8_t)(i * 7 + i / 256);
    ob_write32(a, 4, 0x10, 0x1badb002);   /* kept by the class as it is */
    ob_write32(a, 4, 0x3ffc, 0x2badb002); /* memory */
    ob_write32(a, 5, 0x30, 0xfee01000);   /* entry 3 of the table; vector 2 is masked */
    ob_write32(a, 5, 0x2c, 1);
    ob_write32(a, 5, 0x1c, 0);
    ob_write32(a, TD_BAR, TD_LEVELS, 4); /* so that this one stays pending */
    ob_write32(a, TD_BAR, TD_TIMER_NS, 300000000);
    ob_ok(ob_raw_read(a, VFIO_PCI_CONFIG_REGION_INDEX, 0, config_a, sizeof(config_a)));
    move(a, b);
    ob_ok(ob_raw_read(b, VFIO_PCI_CONFIG_REGION_INDEX, 0, config_b, sizeof(config_b)));
    assert_memory_equal(config_a, config_b, sizeof(config_a));
    assert_int_equal(ob_read32(b, TD_BAR, TD_SCRATCH), 0xcafe0001);
    assert_int_equal(ob_read32(b, TD_BAR, TD_FLAGS), 0x42);
    assert_int_equal(ob_read32(b, TD_BAR, TD_LATCH), 0x42);
    assert_int_equal(ob_read32(b, TD_BAR, TD_COUNT), 1234);
    ob_ok(ob_raw_read(b, TD_BAR, TD_WIDE, &found, 8));
    assert_int_equal(found, wide);
    assert_memory_equal(ram_a, ram_b, TD_BAR2_SIZE);
    assert_int_equal(ob_read32(b, 4, 0x10), 0x1badb002);
    assert_int_equal(ob_read32(b, 4, 0x3ffc), 0x2badb002);
    assert_int_equal(ob_read32(b, 5, 0x30), 0xfee01000);
    assert_int_equal(ob_read32(b, 5, 0x2c), 1);
    assert_int_equal(ob_read32(b, 5, 0x80) & 4, 4);
    ob_ok(ob_set_eventfds(b, VFIO_PCI_MSIX_IRQ_INDEX, 1, 2, events));
    assert_int_equal(ob_event_take(events[1]), 0);
    ob_write32(b, 5, 0x2c, 0);
    assert_int_equal(ob_event_wait(events[1]), 1); /* what was pending there, here */
    ob_event_wait(events[0]);                      /* the timer goes on with what was left of it */
    assert_int_equal(ob_read32(b, TD_BAR, TD_TIMER_FIRED), 1);
    /* The source goes on, too, if the client wants it: with nothing lost, and its own timer. */
    ob_ok(mig_set_state(a, MIG_RUNNING));
    assert_int_equal(ob_read32(a, TD_BAR, TD_COUNT), 1234);
    ob_wait_register(a, TD_BAR, TD_TIMER_FIRED, UINT32_MAX, 1);
    munmap(ram_a, TD_BAR2_SIZE);
    munmap(ram_b, TD_BAR2_SIZE);
    other_stop(&other);
    close(events[0]);
    close(events[1]);
}

/* --- A ring that goes on elsewhere -------------------------------------------------------------------------------- */

struct rig {
    int ring_fd, data_fd;
    struct td_entry *ring;
    uint8_t *data;
};

static void rig_make(struct rig *rig)
{
    rig->ring_fd = ob_guest_memory(PAGE);
    rig->data_fd = ob_guest_memory(PAGES * PAGE);
    rig->ring = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->ring_fd, 0);
    rig->data = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->data_fd, 0);
    assert_true(rig->ring != MAP_FAILED && rig->data != MAP_FAILED);
}

static void rig_map(const struct rig *rig, struct ob_raw *raw)
{
    ob_ok(ob_raw_map(raw, RING, PAGE, 3, rig->ring_fd, 0));
    ob_ok(ob_raw_map(raw, DATA, PAGES * PAGE, 3, rig->data_fd, 0));
}

static void rig_enable(struct ob_raw *raw)
{
    uint64_t address = RING;

    ob_set_command(raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(ob_raw_write(raw, TD_BAR, TD_RING_ADDR, &address, sizeof(address)));
    ob_write32(raw, TD_BAR, TD_RING_SIZE, 128);
    ob_write32(raw, TD_BAR, TD_RING_CTRL, 1);
}

static void rig_free(struct rig *rig)
{
    munmap(rig->ring, PAGE);
    munmap(rig->data, PAGES * PAGE);
    close(rig->ring_fd);
    close(rig->data_fd);
}

static void test_ring_moves(void **state)
{
    struct ob_fixture *fixture = *state;
    struct other other;
    struct rig rig;
    const uint32_t entries = 100;

    other_start(&other, fixture->command);
    rig_make(&rig);
    rig_map(&rig, &fixture->raw);
    rig_map(&rig, &other.raw);
    rig_enable(&fixture->raw);
    for (uint32_t i = 0; i < entries; i++) /* each copies what the one before did */
        rig.ring[i] = (struct td_entry){ DATA + i * 8, DATA + i * 8 + 8, 8, TD_NO_VECTOR, 0, 0 };
    memcpy(rig.data, "migrate", 8);
    /* The first half here, the second is written when the ring does not run. */
    ob_write32(&fixture->raw, TD_BAR, TD_DOORBELL, entries / 2);
    ob_wait_register(&fixture->raw, TD_BAR, TD_RING_DONE, UINT32_MAX, entries / 2);
    ob_ok(mig_set_state(&fixture->raw, MIG_RUNNING_P2P));
    ob_write32(&fixture->raw, TD_BAR, TD_DOORBELL, entries);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_RING_DONE), entries / 2);
    ob_ok(mig_set_state(&fixture->raw, MIG_STOP));
    uint8_t *data;
    size_t size;
    ob_ok(mig_set_state(&fixture->raw, MIG_STOP_COPY));
    ob_ok(mig_read_all(&fixture->raw, 60000, &data, &size));
    assert_int_equal(rig.ring[entries / 2].status, 0);
    ob_ok(mig_set_state(&other.raw, MIG_RESUMING));
    ob_ok(mig_write_all(&other.raw, 50000, data, size));
    free(data);
    ob_ok(mig_set_state(&other.raw, MIG_RUNNING));
    ob_wait_register(&other.raw, TD_BAR, TD_RING_DONE, UINT32_MAX, entries);
    assert_string_equal((char *)rig.data + entries * 8, "migrate");
    for (uint32_t i = 0; i < entries; i++)
        assert_int_equal(rig.ring[i].status, TD_DONE);
    rig_free(&rig);
    other_stop(&other);
}

static uint64_t report(struct ob_raw *raw, uint64_t page)
{
    uint64_t bitmap = 0;

    ob_ok(mig_log_report(raw, DATA, PAGES * PAGE, page, &bitmap));
    return bitmap;
}

/* What holds guest memory lets go of it before the device counts as stopped. */
static void test_held_pins(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    struct rig rig;

    rig_make(&rig);
    rig_map(&rig, raw);
    rig_enable(raw);
    rig.ring[0] = (struct td_entry){ DATA, DATA + PAGE, 8, TD_NO_VECTOR, TD_HOLD, 0 };
    ob_ok(mig_log_start(raw, PAGE, NULL, 0));
    ob_write32(raw, TD_BAR, TD_DOORBELL, 1);
    while (report(raw, PAGE) == 0) /* the pin for writing shows when it is made */
        ;
    ob_ok(mig_set_state(raw, MIG_STOP));
    assert_int_equal(rig.ring[0].status, TD_DONE | ECANCELED);
    ob_ok(ob_raw_unmap(raw, DATA, PAGES * PAGE));
    ob_ok(mig_set_state(raw, MIG_RUNNING));
    rig_free(&rig);
}

/* Memory that is reached by messages. While `hold`, they are not answered. */
struct far {
    bool hold;
    uint8_t memory[2 * PAGE];
};

static int far_serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct far *far = ctx;

    if (far->hold)
        return OB_RAW_LATER;
    assert_true(address >= DATA && address - DATA + count <= sizeof(far->memory));
    if (write)
        memcpy(far->memory + (address - DATA), data, count);
    else
        memcpy(data, far->memory + (address - DATA), count);
    return 0;
}

/* A copy by message that STOP interrupts is done, without an error, when the device runs again. The worker may ask for
 * the memory once more before it hears that it is to be quiet, hence the turns. */
static void test_stop_in_copy(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    struct far far = { false, { 0 } };
    struct rig rig;

    rig_make(&rig);
    ob_ok(ob_raw_map(raw, RING, PAGE, 3, rig.ring_fd, 0));
    ob_ok(ob_raw_map(raw, DATA, 2 * PAGE, 3, -1, 0));
    raw->dma = far_serve;
    raw->dma_ctx = &far;
    rig_enable(raw);
    for (uint32_t i = 0; i < 30; i++) {
        memset(far.memory, (int)i + 1, 64);
        rig.ring[i] = (struct td_entry){ DATA, DATA + PAGE, 64, TD_NO_VECTOR, 0, 0 };
        far.hold = true;
        ob_write32(raw, TD_BAR, TD_DOORBELL, i + 1);
        ob_ok(ob_raw_serve_dma(raw, raw->dma_served + 1));
        ob_ok(mig_set_state(raw, MIG_STOP));
        far.hold = false;
        ob_ok(ob_raw_answer_later(raw));
        ob_ok(mig_set_state(raw, MIG_RUNNING));
        ob_wait_register(raw, TD_BAR, TD_RING_DONE, UINT32_MAX, i + 1);
        assert_int_equal(rig.ring[i].status, TD_DONE);
        assert_memory_equal(far.memory, far.memory + PAGE, 64);
    }
    rig_free(&rig);
}

/* --- The log ------------------------------------------------------------------------------------------------------ */

static uint64_t bits(unsigned first, unsigned n)
{
    return ((UINT64_C(1) << n) - 1) << first;
}

static void copy(struct ob_raw *raw, struct rig *rig, uint32_t n, uint64_t dst, uint32_t len, uint32_t flags)
{
    rig->ring[n] = (struct td_entry){ DATA, dst, len, TD_NO_VECTOR, flags, 0 };
    ob_write32(raw, TD_BAR, TD_DOORBELL, n + 1);
    if (!(flags & TD_HOLD))
        ob_wait_register(raw, TD_BAR, TD_RING_DONE, UINT32_MAX, n + 1);
}

static void test_log(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    struct rig rig;
    uint64_t bitmap = 0;

    rig_make(&rig);
    ob_ok(mig_log_start(raw, PAGE, NULL, 0)); /* without a map */
    rig_map(&rig, raw);
    rig_enable(raw);
    assert_int_equal(report(raw, PAGE), 0);
    copy(raw, &rig, 0, DATA + 3 * PAGE + 4000, 200, 0);
    copy(raw, &rig, 1, DATA + 40 * PAGE, TD_COPY_MAX, 0);
    assert_int_equal(report(raw, PAGE), bits(3, 2) | bits(40, 16));
    assert_int_equal(report(raw, PAGE), 0);
    copy(raw, &rig, 2, DATA + 5 * PAGE, 1, 0);
    copy(raw, &rig, 3, DATA + 63 * PAGE, 1, 0);
    assert_int_equal(report(raw, 4 * PAGE), bits(1, 1) | bits(15, 1)); /* a page of report for four of the log */
    /* The ring itself is a window for writing: dirty whenever asked. */
    for (int i = 0; i < 2; i++) {
        ob_ok(mig_log_report(raw, RING, PAGE, PAGE, &bitmap));
        assert_int_equal(bitmap, 1);
    }
    /* Pinned: when it begins, and again when it is over, since it may have been written at any time. */
    copy(raw, &rig, 4, DATA + 20 * PAGE, 8, TD_HOLD);
    while ((bitmap = report(raw, PAGE)) == 0)
        ;
    assert_int_equal(bitmap, bits(20, 1));
    ob_write32(raw, TD_BAR, TD_RING_RELEASE, 1);
    ob_wait_register(raw, TD_BAR, TD_RING_DONE, UINT32_MAX, 5);
    assert_int_equal(report(raw, PAGE), bits(20, 1));
    ob_ok(mig_log_stop(raw));
    copy(raw, &rig, 5, DATA, 8, 0);
    assert_int_equal(mig_log_report(raw, DATA, PAGE, PAGE, &bitmap), EINVAL);
    assert_int_equal(mig_log_stop(raw), EINVAL);
    /* Pages of 64 KiB, reported in pages of 4 KiB, a part at a time: what is said of a part stays true of the rest. */
    const struct vfio_device_feature_dma_logging_range range = { DATA, PAGES * PAGE };
    ob_ok(mig_log_start(raw, 16 * PAGE, &range, 1));
    copy(raw, &rig, 6, DATA + 17 * PAGE, 1, 0);
    ob_ok(mig_log_report(raw, DATA + 16 * PAGE, 8 * PAGE, PAGE, &bitmap));
    assert_int_equal(bitmap, bits(0, 8));
    assert_int_equal(report(raw, PAGE), bits(16, 16));
    assert_int_equal(report(raw, PAGE), 0);
    bitmap = 0;
    ob_ok(mig_log_report(raw, RING, PAGE, PAGE, &bitmap)); /* not in the range */
    assert_int_equal(bitmap, 0);
    rig_free(&rig);
}

/* Another client has no log, and may have one of its own. */
static void test_log_ends_with_session(void **state)
{
    struct ob_fixture *fixture = *state;
    uint64_t bitmap;

    ob_ok(mig_log_start(&fixture->raw, PAGE, NULL, 0));
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    assert_int_equal(mig_log_report(&fixture->raw, DATA, PAGE, PAGE, &bitmap), EINVAL);
    ob_ok(mig_log_start(&fixture->raw, PAGE, NULL, 0));
}

static void test_log_refusals(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    struct vfio_device_feature_dma_logging_range many[257], r[2];
    static uint64_t bitmap[131072];

    /* The page size is a hint: the reply has the one in use. */
    for (uint64_t hint = 0; hint < 4 * PAGE; hint += 2048) {
        const uint64_t start[2] = { hint, 0 };
        struct ob_raw_message *reply;
        uint64_t used;

        ob_ok(mig_feature(raw, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, start, sizeof(start),
                          24, &reply));
        assert_int_equal(reply->size, 24);
        memcpy(&used, reply->payload + 8, sizeof(used));
        assert_int_equal(used, hint == 2 * PAGE ? hint : PAGE);
        ob_raw_message_free(reply);
        ob_ok(mig_log_stop(raw));
    }
    r[0] = (struct vfio_device_feature_dma_logging_range){ 0x10000, 0x10000 };
    r[1] = (struct vfio_device_feature_dma_logging_range){ 0x1f000, 0x1000 };
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), EINVAL); /* overlap, in both orders */
    r[1] = (struct vfio_device_feature_dma_logging_range){ 0xf000, 0x2000 };
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), EINVAL);
    r[1] = (struct vfio_device_feature_dma_logging_range){ 0x20800, 0x1000 };
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), EINVAL);
    r[1] = (struct vfio_device_feature_dma_logging_range){ 0x20000, 0x800 };
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), EINVAL);
    r[1] = (struct vfio_device_feature_dma_logging_range){ 0x20000, 0 };
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), EINVAL);
    r[1] = (struct vfio_device_feature_dma_logging_range){ 0 - 2 * PAGE, 4 * PAGE };
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), EINVAL);
    r[1] = (struct vfio_device_feature_dma_logging_range){ 1ull << 44, 1ull << 44 }; /* 512 MiB of bitmap */
    assert_int_equal(mig_log_start(raw, PAGE, r, 2), E2BIG);
    for (unsigned i = 0; i < 257; i++)
        many[i] = (struct vfio_device_feature_dma_logging_range){ (257ull - i) * 0x10000, 0x10000 };
    assert_int_equal(mig_log_start(raw, PAGE, many, 257), E2BIG);
    ob_ok(mig_log_start(raw, PAGE, many, 256));
    assert_int_equal(mig_log_start(raw, PAGE, NULL, 0), EBUSY);
    assert_int_equal(mig_log_report(raw, 0, 0, PAGE, bitmap), EINVAL);
    assert_int_equal(mig_log_report(raw, 0, PAGE, 2048, bitmap), EINVAL);
    assert_int_equal(mig_log_report(raw, 0, PAGE, 3 * PAGE, bitmap), EINVAL);
    assert_int_equal(mig_log_report(raw, 0 - 2 * PAGE, 4 * PAGE, PAGE, bitmap), EINVAL);
    assert_int_equal(mig_log_report(raw, 0, 1ull << 35, PAGE, bitmap), E2BIG); /* 1 MiB: more than a message */
    ob_ok(mig_log_report(raw, 1, (1ull << 34), PAGE, bitmap));
    ob_ok(mig_log_stop(raw));
}

/* --- edu, serial -------------------------------------------------------------------------------------------------- */

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    if (!write)
        memset(data, 0x77, count);
    return 0;
}

static void test_edu_moves(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    struct other other;
    int guest = ob_guest_memory(16 * PAGE);
    uint8_t found[100], wanted[100];

    other_start(&other, fixture->command);
    memset(wanted, 0xe4, sizeof(wanted));
    assert_int_equal(pwrite(guest, wanted, sizeof(wanted), 0), sizeof(wanted));
    ob_ok(ob_raw_map(raw, DATA, 16 * PAGE, 3, guest, 0));
    ob_ok(ob_raw_map(&other.raw, DATA, 16 * PAGE, 3, guest, 0));
    edu_enable(raw);
    edu_dma(raw, DATA, EDU_BUFFER, sizeof(wanted), 0); /* the buffer is state */
    ob_write32(raw, EDU_BAR, EDU_LIVENESS, 0x55);
    /* Asked for when the device runs no more, done where it runs again. */
    ob_ok(mig_set_state(raw, MIG_RUNNING_P2P));
    ob_write32(raw, EDU_BAR, EDU_FACTORIAL, 6);
    edu_dma_set(raw, EDU_BUFFER, DATA + PAGE, sizeof(wanted));
    edu_dma_start(raw, EDU_DMA_TO_GUEST);
    ob_ok(mig_set_state(raw, MIG_RUNNING_P2P));
    assert_int_equal(ob_read32(raw, EDU_BAR, EDU_DMA_COMMAND) & EDU_DMA_RUN, EDU_DMA_RUN);
    ob_ok(mig_set_state(raw, MIG_STOP));
    uint8_t *data;
    size_t size;
    ob_ok(mig_set_state(raw, MIG_STOP_COPY));
    ob_ok(mig_read_all(raw, 1000, &data, &size));
    ob_ok(mig_set_state(&other.raw, MIG_RESUMING));
    ob_ok(mig_write_all(&other.raw, 999, data, size));
    ob_ok(mig_log_start(&other.raw, PAGE, NULL, 0));
    ob_ok(mig_set_state(&other.raw, MIG_RUNNING));
    free(data);
    ob_wait_register(&other.raw, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN, 0);
    ob_wait_register(&other.raw, EDU_BAR, EDU_STATUS, EDU_STATUS_BUSY, 0);
    assert_int_equal(ob_read32(&other.raw, EDU_BAR, EDU_FACTORIAL), 720);
    assert_int_equal(ob_read32(&other.raw, EDU_BAR, EDU_LIVENESS), ~0x55u);
    assert_int_equal(pread(guest, found, sizeof(found), PAGE), sizeof(found));
    assert_memory_equal(found, wanted, sizeof(found));
    uint64_t bitmap = 0;
    ob_ok(mig_log_report(&other.raw, DATA, 16 * PAGE, PAGE, &bitmap));
    assert_int_equal(bitmap, 2);
    /* The same for memory that is reached by messages. */
    other.raw.dma = serve;
    ob_ok(ob_raw_map(&other.raw, 0x800000, 16 * PAGE, 3, -1, 0));
    edu_dma(&other.raw, EDU_BUFFER, 0x800000 + 2 * PAGE, 8, EDU_DMA_TO_GUEST);
    edu_dma(&other.raw, 0x800000 + 5 * PAGE, EDU_BUFFER, 8, 0); /* a read */
    bitmap = 0;
    ob_ok(mig_log_report(&other.raw, 0x800000, 16 * PAGE, PAGE, &bitmap));
    assert_int_equal(bitmap, 4);
    other_stop(&other);
    close(guest);
}

static void set_uart(struct ob_raw *raw, uint8_t offset, uint8_t value)
{
    ob_ok(ob_raw_write(raw, 0, offset, &value, 1));
}

static uint8_t get_uart(struct ob_raw *raw, uint8_t offset)
{
    uint8_t value;

    ob_ok(ob_raw_read(raw, 0, offset, &value, 1));
    return value;
}

static void test_serial_moves(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    struct other other;
    int event = ob_event_new();

    other_start(&other, fixture->command);
    set_uart(raw, UART_LCR, UART_LCR_WLEN8);
    set_uart(raw, UART_FCR, UART_FCR_ENABLE_FIFO);
    set_uart(raw, UART_MCR, UART_MCR_LOOP);
    set_uart(raw, UART_SCR, 0xa7);
    for (uint8_t i = 0; i < 5; i++)
        set_uart(raw, UART_TX, (uint8_t)('v' + i));
    assert_int_equal(get_uart(raw, UART_RX), 'v');
    set_uart(raw, UART_IER, UART_IER_RDI); /* four characters and a trigger of one: the line is high */
    ob_ok(ob_set_eventfds(&other.raw, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &event));
    move(raw, &other.raw);
    assert_int_equal(ob_event_wait(event), 1);
    assert_int_equal(get_uart(&other.raw, UART_SCR), 0xa7);
    for (uint8_t i = 1; i < 5; i++)
        assert_int_equal(get_uart(&other.raw, UART_RX), 'v' + i);
    assert_int_equal(get_uart(&other.raw, UART_LSR) & UART_LSR_DR, 0);
    other_stop(&other);
    close(event);
}

/* One group for each program. */
int main(int argc, char **argv)
{
    const struct CMUnitTest testdev[] = {
        OB_TEST(test_everything),   OB_TEST(test_ring_moves), OB_TEST(test_held_pins),
        OB_TEST(test_stop_in_copy), OB_TEST(test_log),        OB_TEST(test_log_ends_with_session),
        OB_TEST(test_log_refusals),
    };
    const struct CMUnitTest edu[] = { OB_TEST(test_edu_moves) };
    const struct CMUnitTest serial[] = { OB_TEST(test_serial_moves) };

    if (argc > 1 && strcmp(argv[1], "edu") == 0)
        return cmocka_run_group_tests(edu, ob_fixture_edu, ob_fixture_stop);
    if (argc > 1 && strcmp(argv[1], "serial") == 0)
        return cmocka_run_group_tests(serial, ob_fixture_serial, ob_fixture_stop);
    return cmocka_run_group_tests(testdev, ob_fixture_testdev, ob_fixture_stop);
}
