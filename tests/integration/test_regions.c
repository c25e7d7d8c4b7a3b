/* test_regions: regions of a device's own, behind those of PCI: what they say of themselves, and accesses to them. */
#include "fixture.h"
#include "testdev_regs.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define READ  VFIO_REGION_INFO_FLAG_READ
#define WRITE VFIO_REGION_INFO_FLAG_WRITE
#define MMAP  VFIO_REGION_INFO_FLAG_MMAP
#define CAPS  VFIO_REGION_INFO_FLAG_CAPS

struct answer {
    union {
        struct vfio_region_info info;
        uint8_t bytes[512];
    };
    int fd;
};

static void ask(struct ob_raw *raw, uint32_t region, uint32_t argsz, struct answer *answer)
{
    memset(answer, 0, sizeof(*answer));
    ob_ok(ob_raw_region_info(raw, region, argsz, answer->bytes, sizeof(answer->bytes), &answer->fd));
}

static void done(struct answer *answer)
{
    if (answer->fd >= 0) {
        close(answer->fd);
    }
}

/* The capability with that id, of `size` bytes at least, or NULL; every one of the chain has to lie in the reply. */
static const void *capability(const struct answer *answer, uint16_t id, size_t size)
{
    const void *found = NULL;
    uint32_t at = answer->info.cap_offset;

    while (at != 0) {
        const struct vfio_info_cap_header *header = (const void *)(answer->bytes + at);

        assert_in_range(at, sizeof(answer->info), answer->info.argsz - sizeof(*header));
        assert_int_equal(header->version, 1);
        if (header->id == id) {
            assert_null(found);
            assert_in_range(at + size, 0, answer->info.argsz);
            found = header;
        }
        assert_true(header->next == 0 || header->next > at);
        at = header->next;
    }
    return found;
}

static void test_info(void **state)
{
    static const struct {
        uint64_t size;
        uint32_t flags, areas;
    } regions[] = { { 0x2100, READ | WRITE | MMAP | CAPS, 1 },
                    { 0x2000, READ | WRITE | MMAP | CAPS, 0 },
                    { 100, READ | CAPS, 0 },
                    { 4, WRITE | CAPS, 0 },
                    { 0x100, READ | WRITE | CAPS, 0 } };
    struct ob_fixture *fixture = *state;
    struct vfio_device_info info;
    struct answer answer;

    ob_ok(ob_raw_device_info(&fixture->raw, &info));
    assert_int_equal(info.num_regions, TD_REGIONS);
    for (uint32_t i = 0; i < TD_REGIONS - TD_MIXED; i++) {
        const struct vfio_region_info_cap_type *type;
        const struct vfio_region_info_cap_sparse_mmap *sparse;

        ask(&fixture->raw, TD_MIXED + i, sizeof(answer.bytes), &answer);
        assert_int_equal(answer.info.index, TD_MIXED + i);
        assert_int_equal(answer.info.size, regions[i].size);
        assert_int_equal(answer.info.flags, regions[i].flags);
        assert_int_equal(answer.fd >= 0, !!(regions[i].flags & MMAP));
        type = capability(&answer, VFIO_REGION_INFO_CAP_TYPE, sizeof(*type));
        assert_non_null(type);
        assert_int_equal(type->type, TD_REGION_TYPE);
        assert_int_equal(type->subtype, i + 1);
        sparse = capability(&answer, VFIO_REGION_INFO_CAP_SPARSE_MMAP, sizeof(*sparse));
        assert_int_equal(sparse != NULL, regions[i].areas > 0);
        if (sparse != NULL) {
            assert_int_equal(sparse->nr_areas, regions[i].areas);
            assert_int_equal(sparse->areas[0].offset, 0x1000);
            assert_int_equal(sparse->areas[0].size, 0x1000);
        }
        done(&answer);
    }
    for (uint32_t region = TD_REGIONS; region < TD_REGIONS + 40; region++) {
        assert_int_equal(ob_raw_region_info(&fixture->raw, region, 512, answer.bytes, sizeof(answer), NULL), EINVAL);
    }
}

/* What does not fit is not begun: no capability, no CAPS, but what it takes. */
static void test_argsz(void **state)
{
    struct ob_fixture *fixture = *state;
    struct answer whole, part;

    ask(&fixture->raw, TD_MIXED, sizeof(whole.bytes), &whole);
    done(&whole);
    assert_int_equal(whole.info.argsz, 32 + 16 + 16 + 16); /* sparse with one area, type */
    for (uint32_t argsz = 32; argsz < whole.info.argsz; argsz++) {
        ask(&fixture->raw, TD_MIXED, argsz, &part);
        assert_int_equal(part.info.argsz, whole.info.argsz);
        assert_int_equal(part.info.flags, whole.info.flags & ~CAPS);
        assert_int_equal(part.info.cap_offset, 0);
        done(&part);
    }
}

static void test_access(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw *raw = &fixture->raw;
    uint32_t count = ob_read32(raw, TD_BAR, TD_COUNT);
    uint8_t bytes[100], byte = 0;
    uint64_t done_writes = 0;
    const struct ob_raw_one_write writes[] = { { .region = TD_ADD, .count = 4, .data = { 5 } },
                                               { .region = TD_MIXED, .count = 4, .data = { 1, 2, 3, 4 } },
                                               { .region = TD_LOG, .count = 4 } };

    assert_int_equal(ob_read32(raw, TD_MIXED, 0), 0x11223344);
    ob_write32(raw, TD_MIXED, 0, 0xabcdef01);
    assert_int_equal(ob_read32(raw, TD_MIXED, 0), 0xabcdef01);
    assert_int_equal(ob_read32(raw, TD_MIXED, 0x20f0), UINT32_MAX);
    ob_write32(raw, TD_MIXED, 0x2010, 77);
    assert_int_equal(ob_read32(raw, TD_MIXED, 0x2010), 77);
    ob_ok(ob_raw_read(raw, TD_LOG, 0, bytes, sizeof(bytes)));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        assert_int_equal(bytes[i], i);
    }
    ob_write32(raw, TD_ADD, 0, 3);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_COUNT), count + 3);
    ob_ok(ob_raw_write_multi(raw, writes, 3, &done_writes)); /* the third is not for writing */
    assert_int_equal(done_writes, 2);
    assert_int_equal(ob_read32(raw, TD_BAR, TD_COUNT), count + 8);
    assert_int_equal(ob_read32(raw, TD_MIXED, 0), 0x04030201);
    assert_int_equal(ob_raw_write(raw, TD_LOG, 0, &byte, 1), EINVAL);
    assert_int_equal(ob_raw_read(raw, TD_ADD, 0, bytes, 4), EINVAL);
    assert_int_equal(ob_raw_read(raw, TD_LOG, 100, &byte, 1), EINVAL);
    assert_int_equal(ob_raw_read(raw, TD_LOG, UINT64_MAX, &byte, 1), EINVAL);
    assert_int_equal(ob_raw_read(raw, TD_REGIONS, 0, &byte, 1), EINVAL);
    ob_ok(ob_raw_reset(raw));
    assert_int_equal(ob_read32(raw, TD_MIXED, 0), 0x11223344);
}

/* The same memory through the mapping and through messages, and none of it in another region. */
static void test_memory(void **state)
{
    static const struct {
        uint32_t region;
        uint64_t off, size;
    } areas[] = { { TD_MIXED, 0x1000, 0x1000 }, { TD_WHOLE, 0, 0x2000 } };
    struct ob_fixture *fixture = *state;
    uint32_t *memory[2];
    struct answer answer;

    for (unsigned i = 0; i < 2; i++) {
        ask(&fixture->raw, areas[i].region, sizeof(answer.bytes), &answer);
        memory[i] = mmap(NULL, areas[i].size, PROT_READ | PROT_WRITE, MAP_SHARED, answer.fd,
                         (off_t)(answer.info.offset + areas[i].off));
        assert_ptr_not_equal(memory[i], MAP_FAILED);
        done(&answer);
        for (uint64_t at = 0; at < areas[i].size / 4; at++) {
            memory[i][at] = (uint32_t)(at << 8 | i);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        uint64_t last = areas[i].size / 4 - 1;

        assert_int_equal(ob_read32(&fixture->raw, areas[i].region, areas[i].off), i);
        assert_int_equal(ob_read32(&fixture->raw, areas[i].region, areas[i].off + 4 * last), last << 8 | i);
        ob_write32(&fixture->raw, areas[i].region, areas[i].off + 8, 0xfeed + i);
        assert_int_equal(memory[i][2], 0xfeed + i);
        munmap(memory[i], areas[i].size);
    }
}

/* Guests put BARs to sleep with the device; they do not know of these regions. */
static void test_d3(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t at = ob_find_capability(&fixture->raw, PCI_CAP_ID_PM) + PCI_PM_CTRL;
    uint16_t d3 = 3, d0 = 0;

    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &d3, 2));
    assert_int_equal(ob_read32(&fixture->raw, TD_BAR, TD_ID), UINT32_MAX);
    assert_int_equal(ob_read32(&fixture->raw, TD_MIXED, 0), 0x11223344);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, at, &d0, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_info), OB_TEST(test_argsz), OB_TEST(test_access), OB_TEST(test_memory), OB_TEST(test_d3),
    };

    return cmocka_run_group_tests(tests, ob_fixture_testdev, ob_fixture_stop);
}
