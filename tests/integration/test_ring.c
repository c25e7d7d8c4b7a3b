/* test_ring: the test device's worker thread: a ring in guest memory, memory pinned while it is unmapped, memory that
 * comes and goes under a live queue. */
#include "fixture.h"
#include "testdev_regs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RING    0x100000ull /* bus addresses of two maps: the ring, and data */
#define DATA    0x200000ull
#define PAGE    4096ull
#define PAGES   64
#define ENTRIES 16u

struct rig {
    struct ob_raw *raw;
    int ring_fd, data_fd, event;
    struct td_entry *ring;
    uint8_t *data;
    uint32_t produced;
};

static void *map_file(int fd, size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

static void map_ring(struct rig *rig)
{
    ob_ok(ob_raw_map(rig->raw, RING, PAGE, 3, rig->ring_fd, 0));
}

static void map_data(struct rig *rig)
{
    ob_ok(ob_raw_map(rig->raw, DATA, PAGES * PAGE, 3, rig->data_fd, 0));
}

static void enable_interrupts(struct rig *rig)
{
    uint32_t at = ob_find_capability(rig->raw, PCI_CAP_ID_MSIX) + PCI_MSIX_FLAGS;
    uint16_t on = PCI_MSIX_FLAGS_ENABLE;

    ob_set_command(rig->raw, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ob_ok(ob_raw_write(rig->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &on, sizeof(on)));
    ob_ok(ob_set_eventfds(rig->raw, VFIO_PCI_MSIX_IRQ_INDEX, 4, 1, &rig->event));
}

static void rig_up(struct rig *rig, struct ob_raw *raw)
{
    uint64_t address = RING;

    *rig = (struct rig){ .raw = raw, .ring_fd = ob_guest_memory(PAGE), .data_fd = ob_guest_memory(PAGES * PAGE) };
    rig->event = ob_event_new();
    rig->ring = map_file(rig->ring_fd, PAGE);
    rig->data = map_file(rig->data_fd, PAGES * PAGE);
    map_ring(rig);
    map_data(rig);
    enable_interrupts(rig);
    ob_ok(ob_raw_write(raw, TD_BAR, TD_RING_ADDR, &address, sizeof(address)));
    ob_write32(raw, TD_BAR, TD_RING_SIZE, ENTRIES);
    ob_write32(raw, TD_BAR, TD_RING_CTRL, 1);
}

static void rig_down(struct rig *rig)
{
    munmap(rig->ring, PAGE);
    munmap(rig->data, PAGES * PAGE);
    close(rig->ring_fd);
    close(rig->data_fd);
    close(rig->event);
}

static struct td_entry *produce(struct rig *rig, uint64_t src, uint64_t dst, uint32_t len, uint32_t flags)
{
    struct td_entry *entry = &rig->ring[rig->produced++ % ENTRIES];

    *entry = (struct td_entry){ .src = src, .dst = dst, .len = len, .vector = 4, .flags = flags };
    return entry;
}

static void doorbell(struct rig *rig)
{
    ob_write32(rig->raw, TD_BAR, TD_DOORBELL, rig->produced);
}

/* Interrupts may join in one read of the eventfd; as many as were produced have to come. */
static void wait_done(struct rig *rig, uint32_t entries)
{
    while (entries > 0) {
        uint64_t n = ob_event_wait(rig->event);

        assert_in_range(n, 1, entries);
        entries -= (uint32_t)n;
    }
    assert_int_equal(ob_read32(rig->raw, TD_BAR, TD_RING_DONE), rig->produced);
}

/* While its eventfd is being replaced a message may be sent twice (src/pci/interrupts.c), but none may be lost: there
 * is one after the last entry is done. */
static void wait_done_at_least(struct rig *rig)
{
    do
        ob_event_wait(rig->event);
    while (ob_read32(rig->raw, TD_BAR, TD_RING_DONE) != rig->produced);
}

static uint32_t status(const struct td_entry *entry)
{
    return __atomic_load_n(&entry->status, __ATOMIC_ACQUIRE);
}

static void test_copies(void **state)
{
    static const uint32_t lengths[] = { 1, 8, 4095, 4096, 4097, TD_COPY_MAX };
    struct ob_fixture *fixture = *state;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        struct td_entry *entry = produce(&rig, DATA + 17, DATA + 32 * PAGE + 1, lengths[i], 0);

        for (uint32_t b = 0; b < lengths[i]; b++) {
            rig.data[17 + b] = (uint8_t)(b * 11 + i);
        }
        doorbell(&rig);
        wait_done(&rig, 1);
        assert_int_equal(status(entry), TD_DONE);
        assert_memory_equal(rig.data + 17, rig.data + 32 * PAGE + 1, lengths[i]);
    }
    rig_down(&rig);
}

static void test_batches(void **state)
{
    struct ob_fixture *fixture = *state;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    for (int round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < ENTRIES; i++) {
            produce(&rig, DATA + i * PAGE, DATA + (32 + i) * PAGE, 64, 0);
            memset(rig.data + i * PAGE, round + (int)i, 64);
        }
        doorbell(&rig);
        wait_done(&rig, ENTRIES);
        for (uint32_t i = 0; i < ENTRIES; i++) {
            assert_int_equal(rig.ring[i].status, TD_DONE);
            assert_memory_equal(rig.data + i * PAGE, rig.data + (32 + i) * PAGE, 64);
        }
    }
    rig_down(&rig);
}

static void test_bad_entries(void **state)
{
    static const struct {
        uint64_t src, dst;
        uint32_t len;
        uint32_t err;
    } bad[] = { { DATA, DATA, 0, EINVAL },
                { DATA, DATA, TD_COPY_MAX + 1, EINVAL },
                { 0x900000, DATA, 8, EFAULT },
                { DATA, 0x900000, 8, EFAULT },
                { DATA + PAGES * PAGE - 4, DATA, 8, EFAULT },
                { UINT64_MAX - 3, DATA, 8, EFAULT },
                { DATA, 0x300000, 8, EACCES } };
    struct ob_fixture *fixture = *state;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, 0x300000, PAGE, 1, rig.data_fd, 0)); /* not to be written */
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct td_entry *entry = produce(&rig, bad[i].src, bad[i].dst, bad[i].len, 0);

        doorbell(&rig);
        wait_done(&rig, 1);
        assert_int_equal(status(entry), TD_DONE | bad[i].err);
    }
    rig_down(&rig);
}

/* Memory in use by an operation under way: the unmap cancels it, and its reply says that nothing touches the memory any
 * more. */
static void test_unmap_in_use(void **state)
{
    struct ob_fixture *fixture = *state;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    for (int i = 0; i < 20; i++) {
        struct td_entry *entry = produce(&rig, DATA, DATA + PAGE, 100, TD_HOLD);
        uint32_t unmaps = ob_read32(&fixture->raw, TD_BAR, TD_UNMAPS);

        memset(rig.data, 0x11 + i, 100);
        memset(rig.data + PAGE, 0, 100);
        doorbell(&rig);
        ob_ok(ob_raw_unmap(&fixture->raw, DATA, PAGES * PAGE));
        assert_int_equal(rig.data[PAGE], 0);
        /* It was either cancelled while it held the memory, or found the memory gone. */
        wait_done(&rig, 1);
        unmaps = ob_read32(&fixture->raw, TD_BAR, TD_UNMAPS) - unmaps;
        assert_true((status(entry) == (TD_DONE | ECANCELED) && unmaps == 1) ||
                    (status(entry) == (TD_DONE | EFAULT) && unmaps <= 1));
        map_data(&rig);
    }
    rig_down(&rig);
}

/* Held, then released: requests and other unmaps go on meanwhile. */
static void test_hold_and_release(void **state)
{
    struct ob_fixture *fixture = *state;
    struct td_entry *entry;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, 0x900000, PAGE, 3, rig.data_fd, 0));
    entry = produce(&rig, DATA, DATA + PAGE, 5, TD_HOLD);
    memcpy(rig.data, "hello", 5);
    doorbell(&rig);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_ID), TD_ID_VALUE);
    }
    ob_ok(ob_raw_unmap(&fixture->raw, 0x900000, PAGE)); /* not the memory in use */
    assert_int_equal(status(entry), 0);
    /* A release before it is held is no release: asked for until it has worked. */
    while (ob_read32(&fixture->raw, TD_BAR, TD_RING_DONE) != rig.produced) {
        ob_write32(&fixture->raw, TD_BAR, TD_RING_RELEASE, 1);
    }
    wait_done(&rig, 1);
    assert_int_equal(status(entry), TD_DONE);
    assert_memory_equal(rig.data + PAGE, "hello", 5);
    rig_down(&rig);
}

/* A boot unmaps and remaps all memory under queues that exist: they work again when it is back. */
static void test_ring_comes_back(void **state)
{
    struct ob_fixture *fixture = *state;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    for (int i = 0; i < 30; i++) {
        struct td_entry *entry;

        ob_ok(ob_raw_unmap(&fixture->raw, RING, PAGE));
        ob_ok(ob_raw_unmap(&fixture->raw, DATA, PAGES * PAGE));
        map_data(&rig);
        map_ring(&rig);
        entry = produce(&rig, DATA, DATA + PAGE, 4, 0);
        memcpy(rig.data, &i, 4);
        doorbell(&rig);
        wait_done(&rig, 1);
        assert_int_equal(status(entry), TD_DONE);
        assert_memory_equal(rig.data + PAGE, &i, 4);
    }
    rig_down(&rig);
}

/* The worker copies while the client unmaps, maps, and re-assigns its eventfd, as fast as it can. */
static void test_storm(void **state)
{
    struct ob_fixture *fixture = *state;
    struct rig rig;

    rig_up(&rig, &fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, 0x900000, PAGE, 3, rig.data_fd, 0));
    for (int round = 0; round < 300; round++) {
        for (uint32_t i = 0; i < ENTRIES; i++) {
            produce(&rig, DATA + i * PAGE, DATA + (32 + i) * PAGE, 4096, 0);
        }
        doorbell(&rig);
        ob_ok(ob_raw_unmap(&fixture->raw, 0x900000, PAGE));
        ob_ok(ob_set_eventfds(&fixture->raw, VFIO_PCI_MSIX_IRQ_INDEX, 4, 1, &rig.event));
        ob_ok(ob_raw_map(&fixture->raw, 0x900000, PAGE, 3, rig.data_fd, 0));
        wait_done_at_least(&rig);
    }
    rig_down(&rig);
}

/* The client goes while memory is held: it is let go, and the next client has a device that works. */
static void test_disconnect_in_use(void **state)
{
    struct ob_fixture *fixture = *state;

    for (int i = 0; i < 5; i++) {
        struct rig rig;

        rig_up(&rig, &fixture->raw);
        produce(&rig, DATA, DATA + PAGE, 100, TD_HOLD);
        doorbell(&rig);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        assert_int_equal(ob_process_maps(fixture->process.pid, "ob-guest"), 0);
        assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_ID), TD_ID_VALUE);
        ob_ok(ob_raw_reset(&fixture->raw));
        rig_down(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_copies),       OB_TEST(test_batches),           OB_TEST(test_bad_entries),
        OB_TEST(test_unmap_in_use), OB_TEST(test_hold_and_release),  OB_TEST(test_ring_comes_back),
        OB_TEST(test_storm),        OB_TEST(test_disconnect_in_use),
    };

    return cmocka_run_group_tests(tests, ob_fixture_testdev, ob_fixture_stop);
}
