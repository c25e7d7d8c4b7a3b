/* test_mapped: regions of the test device: memory that the client maps, sparse areas and their capability, argsz, I/O
 * ports, registers of every width, resets by configuration space. */
#include "fixture.h"
#include "testdev_regs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

struct sparse {
    struct vfio_region_info info;
    uint8_t rest[1024];
};

static const struct vfio_region_info_cap_sparse_mmap *sparse_of(const struct sparse *reply)
{
    const struct vfio_region_info_cap_sparse_mmap *cap = NULL;
    uint32_t at = reply->info.cap_offset;

    while (at != 0) {
        struct vfio_info_cap_header header;

        assert_in_range(at, sizeof(reply->info), reply->info.argsz - sizeof(header));
        memcpy(&header, (const uint8_t *)reply + at, sizeof(header));
        if (header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
            cap = (const void *)((const uint8_t *)reply + at);
            assert_in_range(at + sizeof(*cap) + cap->nr_areas * sizeof(*cap->areas), 0, reply->info.argsz);
        }
        assert_true(header.next == 0 || header.next > at);
        at = header.next;
    }
    return cap;
}

/* Asks as QEMU does: with 32 bytes, then with what was answered. */
static void ask(struct ob_raw *raw, uint32_t region, struct sparse *reply, int *fd)
{
    int first;

    memset(reply, 0, sizeof(*reply));
    ob_ok(ob_raw_region_info(raw, region, sizeof(reply->info), reply, sizeof(reply->info), &first));
    if (reply->info.argsz > sizeof(reply->info)) {
        uint32_t argsz = reply->info.argsz;

        if (first >= 0) {
            close(first);
        }
        ob_ok(ob_raw_region_info(raw, region, argsz, reply, sizeof(*reply), &first));
        assert_int_equal(reply->info.argsz, argsz);
    }
    *fd = first;
}

static void test_infos(void **state)
{
    static const struct {
        uint64_t size;
        bool mapped;
    } regions[] = { { 0x1000, false }, { 32, false },          { TD_BAR2_SIZE, true },
                    { 0, false },      { TD_BAR4_SIZE, true }, { 0, false } };
    struct ob_fixture *fixture = *state;

    for (uint32_t region = 0; region < 5; region++) { /* where MSI-X lies is the library's choice */
        struct sparse reply;
        int fd;

        ask(&fixture->raw, region, &reply, &fd);
        assert_int_equal(reply.info.size, regions[region].size);
        assert_int_equal(!!(reply.info.flags & VFIO_REGION_INFO_FLAG_MMAP), regions[region].mapped);
        assert_int_equal(fd >= 0, regions[region].mapped);
        if (fd >= 0) {
            close(fd);
        }
    }
}

/* Whatever argsz says, the reply is no longer, names the size that is needed, and has one descriptor at most. A reply
 * without capabilities does not say that it has them: QEMU, which first asks with the smallest argsz, refuses that. */
static void test_argsz(void **state)
{
    struct ob_fixture *fixture = *state;
    struct sparse whole, reply;
    int fd;

    ask(&fixture->raw, 4, &whole, &fd);
    close(fd);
    assert_true(whole.info.argsz > sizeof(whole.info));
    assert_true(whole.info.flags & VFIO_REGION_INFO_FLAG_CAPS);
    for (uint32_t argsz = sizeof(whole.info); argsz < whole.info.argsz; argsz++) {
        ob_ok(ob_raw_region_info(&fixture->raw, 4, argsz, &reply, argsz, &fd));
        assert_int_equal(reply.info.argsz, whole.info.argsz);
        assert_int_equal(reply.info.flags, whole.info.flags & ~VFIO_REGION_INFO_FLAG_CAPS);
        assert_int_equal(reply.info.cap_offset, 0);
        if (fd >= 0) {
            close(fd);
        }
    }
    for (uint32_t argsz = whole.info.argsz; argsz < whole.info.argsz + 3000; argsz += 999) {
        ob_ok(ob_raw_region_info(&fixture->raw, 4, argsz, &reply, sizeof(reply), &fd));
        assert_memory_equal(&reply, &whole, whole.info.argsz);
        assert_true(fd >= 0);
        close(fd);
    }
}

static void *map(const struct sparse *reply, int fd, uint64_t offset, size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(reply->info.offset + offset));

    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

/* The same bytes through the mapping, through messages, and as the device sees them. */
static void test_map_whole(void **state)
{
    struct ob_fixture *fixture = *state;
    struct sparse reply;
    uint8_t *memory, bytes[64];
    int fd;

    ask(&fixture->raw, 2, &reply, &fd);
    memory = map(&reply, fd, 0, TD_BAR2_SIZE);
    ob_write32(&fixture->raw, TD_BAR, TD_BAR2_FILL, 3);
    assert_int_equal(memory[0], 3);
    assert_int_equal(memory[63], 3);
    memory[5] = 100;
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_BAR2_SUM), 63 * 3 + 100);
    ob_ok(ob_raw_read(&fixture->raw, 2, 0, bytes, sizeof(bytes)));
    assert_int_equal(bytes[5], 100);
    memset(bytes, 0x77, sizeof(bytes));
    ob_ok(ob_raw_write(&fixture->raw, 2, TD_BAR2_SIZE - 64, bytes, sizeof(bytes)));
    assert_memory_equal(memory + TD_BAR2_SIZE - 64, bytes, sizeof(bytes));
    /* Nothing but the BAR's memory may be behind the descriptor, and it may not be cut. */
    assert_int_equal(ftruncate(fd, 0), -1);
    munmap(memory, TD_BAR2_SIZE);
    close(fd);
}

/* Large transfers by message: the whole BAR in one. */
static void test_large_transfer(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t *out = test_malloc(TD_BAR2_SIZE), *in = test_malloc(TD_BAR2_SIZE);

    for (size_t i = 0; i < TD_BAR2_SIZE; i++) {
        out[i] = (uint8_t)(i * 13 + (i >> 8));
    }
    ob_ok(ob_raw_write(&fixture->raw, 2, 0, out, TD_BAR2_SIZE));
    ob_ok(ob_raw_read(&fixture->raw, 2, 0, in, TD_BAR2_SIZE));
    assert_memory_equal(in, out, TD_BAR2_SIZE);
    ob_ok(ob_raw_read(&fixture->raw, 2, 1, in, TD_BAR2_SIZE - 2));
    assert_memory_equal(in, out + 1, TD_BAR2_SIZE - 2);
    assert_int_equal(ob_raw_read(&fixture->raw, 2, 1, in, TD_BAR2_SIZE), EINVAL);
    test_free(out);
    test_free(in);
}

static void test_sparse(void **state)
{
    static const uint64_t areas[] = { 0x1000, 0x3000 };
    struct ob_fixture *fixture = *state;
    const struct vfio_region_info_cap_sparse_mmap *cap;
    struct sparse reply;
    int fd;

    ask(&fixture->raw, 4, &reply, &fd);
    cap = sparse_of(&reply);
    assert_non_null(cap);
    assert_int_equal(cap->nr_areas, 2);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t *memory;

        assert_int_equal(cap->areas[i].offset, areas[i]);
        assert_int_equal(cap->areas[i].size, PAGE);
        memory = map(&reply, fd, areas[i], PAGE);
        memory[7] = 0xabcd0000 + i;
        assert_int_equal(ob_read32(&fixture->raw, 4, areas[i] + 28), 0xabcd0000 + i);
        ob_write32(&fixture->raw, 4, areas[i] + PAGE - 4, 0x1234 + i);
        assert_int_equal(memory[PAGE / 4 - 1], 0x1234 + i);
        munmap(memory, PAGE);
    }
    close(fd);
}

/* The parts of a BAR that no area covers: ones, and no error; accesses across areas. */
static void test_gaps(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t bytes[0x200], ones[0x100];

    memset(ones, 0xff, sizeof(ones));
    ob_ok(ob_raw_read(&fixture->raw, 4, 0x800, bytes, 0x100));
    assert_memory_equal(bytes, ones, sizeof(ones));
    memset(bytes, 0x5a, sizeof(bytes));
    ob_ok(ob_raw_write(&fixture->raw, 4, 0x800, bytes, 0x100));
    ob_ok(ob_raw_write(&fixture->raw, 4, 0xff0, bytes, 32)); /* from nowhere into memory */
    ob_ok(ob_raw_read(&fixture->raw, 4, 0xff0, bytes, 32));
    assert_memory_equal(bytes, ones, 16);
    assert_int_equal(bytes[16], 0x5a);
    ob_ok(ob_raw_write(&fixture->raw, 4, 0, ones, 0x100));
    ob_ok(ob_raw_read(&fixture->raw, 4, 0, bytes, 0x200));
    assert_memory_equal(bytes, ones, 0x100);
    assert_memory_equal(bytes + 0x100, ones, 0x100);
}

static void test_io(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t byte = 0x12, two[2] = { 0x34, 0x56 };

    ob_ok(ob_raw_write(&fixture->raw, 1, 0, &byte, 1));
    ob_ok(ob_raw_write(&fixture->raw, 1, 2, two, 2));
    ob_write32(&fixture->raw, 1, 4, 0x789abcde);
    byte = 0;
    ob_ok(ob_raw_read(&fixture->raw, 1, 0, &byte, 1));
    assert_int_equal(byte, 0x12);
    ob_ok(ob_raw_read(&fixture->raw, 1, 3, &byte, 1));
    assert_int_equal(byte, 0x56);
    assert_int_equal(ob_read32(&fixture->raw, 1, 4), 0x789abcde);
    for (uint32_t i = 0; i < 4; i++) {
        ob_write32(&fixture->raw, 1, 0x10 + 4 * i, 0x100 + i);
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(ob_read32(&fixture->raw, 1, 0x10 + 4 * i), 0x100 + i);
    }
    assert_int_equal(ob_raw_read(&fixture->raw, 1, 32, &byte, 1), EINVAL);
}

/* Registers by bytes, by halves, across, and those that change when they are read or written. */
static void test_registers(void **state)
{
    struct ob_fixture *fixture = *state;
    uint64_t wide = 0x1122334455667788, half;
    uint8_t byte = 0xee;

    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_SCRATCH), 0x5c5c5c5c);
    ob_ok(ob_raw_write(&fixture->raw, TD_BAR, TD_SCRATCH + 2, &byte, 1));
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_SCRATCH), 0x5cee5c5c);
    ob_ok(ob_raw_write(&fixture->raw, TD_BAR, TD_WIDE, &wide, 8));
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_WIDE), 0x55667788);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_WIDE + 4), 0x11223344);
    ob_write32(&fixture->raw, TD_BAR, TD_WIDE + 4, 0xdeadbeef);
    ob_ok(ob_raw_read(&fixture->raw, TD_BAR, TD_WIDE, &half, 8));
    assert_int_equal(half, 0xdeadbeef55667788);
    ob_ok(ob_raw_read(&fixture->raw, TD_BAR, TD_ID, &half, 8)); /* ID and SCRATCH at once */
    assert_int_equal(half, 0x5cee5c5c00000000 | TD_ID_VALUE);
    ob_ok(ob_raw_read(&fixture->raw, TD_BAR, TD_WIDE, &byte, 1)); /* smaller than it takes: ones */
    assert_int_equal(byte, 0xff);
    ob_write32(&fixture->raw, TD_BAR, TD_FLAGS_SET, 0xa5);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_FLAGS), 0xa5);
    ob_write32(&fixture->raw, TD_BAR, TD_FLAGS, 0x05);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_FLAGS), 0xa0);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_LATCH), 0xa5);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_LATCH), 0);
    ob_write32(&fixture->raw, TD_BAR, TD_ID, 0);
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_ID), TD_ID_VALUE);
}

/* The function level reset of PCI Express, and the way out of D3hot, are resets too. */
static void test_resets(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t at = ob_find_capability(&fixture->raw, PCI_CAP_ID_EXP) + PCI_EXP_DEVCTL;
    uint16_t flr = PCI_EXP_DEVCTL_BCR_FLR;

    ob_write32(&fixture->raw, TD_BAR, TD_SCRATCH, 1);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &flr, 2));
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_SCRATCH), 0x5c5c5c5c);
    assert_int_equal(ob_config16(&fixture->raw, at) & PCI_EXP_DEVCTL_BCR_FLR, 0);
    assert_int_equal(ob_config16(&fixture->raw, PCI_COMMAND), 0);
}

static void test_config(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t dsn = 0, vendor = ob_find_capability(&fixture->raw, PCI_CAP_ID_VNDR);
    uint8_t bytes[12], serial[8], expected[8] = { 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01 };
    struct vfio_region_info info;

    ob_ok(ob_raw_region_info(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, sizeof(info), &info, sizeof(info), NULL));
    assert_int_equal(info.size, PCI_CFG_SPACE_EXP_SIZE);
    for (uint32_t at = PCI_CFG_SPACE_SIZE; at != 0;) {
        uint32_t header = ob_read32(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at);

        if (PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_DSN) {
            dsn = at;
        }
        at = PCI_EXT_CAP_NEXT(header);
    }
    assert_int_not_equal(dsn, 0);
    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, dsn + 4, serial, sizeof(serial)));
    assert_memory_equal(serial, expected, sizeof(serial));
    memset(bytes, 0xff, sizeof(bytes));
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, vendor, bytes, sizeof(bytes)));
    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, vendor, bytes, sizeof(bytes)));
    assert_int_equal(bytes[0], PCI_CAP_ID_VNDR);
    assert_memory_equal(bytes + 3, "OB\x01\x5a\xa5\xff\xff\xff\xff", 9);
}

/* A client that takes no descriptors maps nothing, and reaches all by messages. */
static void test_no_descriptors(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t value = 0;

    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_version(&fixture->raw, 0, 0, "{\"capabilities\":{\"max_msg_fds\":0}}", NULL));
    for (uint32_t region = 0; region < TD_REGIONS; region++) {
        struct sparse reply;
        int fd;

        ask(&fixture->raw, region, &reply, &fd);
        assert_int_equal(fd, -1);
        assert_int_equal(reply.info.flags & VFIO_REGION_INFO_FLAG_MMAP, 0);
        assert_int_equal(reply.info.offset, 0);
        assert_null(sparse_of(&reply));
    }
    ob_write32(&fixture->raw, VFIO_PCI_BAR2_REGION_INDEX, PAGE, 0x12345678);
    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_BAR2_REGION_INDEX, PAGE, &value, sizeof(value)));
    assert_int_equal(value, 0x12345678);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_infos),
        OB_TEST(test_argsz),
        OB_TEST(test_map_whole),
        OB_TEST(test_large_transfer),
        OB_TEST(test_sparse),
        OB_TEST(test_gaps),
        OB_TEST(test_io),
        OB_TEST(test_registers),
        OB_TEST(test_resets),
        OB_TEST(test_config),
        OB_TEST(test_no_descriptors),
    };

    return cmocka_run_group_tests(tests, ob_fixture_testdev, ob_fixture_stop);
}
