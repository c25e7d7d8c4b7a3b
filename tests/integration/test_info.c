/* test_info: what a device says of itself: device, region and interrupt information, and the argsz rules. */
#include "fixture.h"
#include "edu_regs.h"

#include <string.h>
#include <unistd.h>

/* A request of any size for one of the three INFO commands; the reply's payload goes to `out`, its size is returned;
 * an errno gives its negative. */
static int ask(struct ob_raw *raw, uint16_t command, const void *payload, size_t size, void *out, size_t room)
{
    struct ob_raw_message *reply = NULL;
    int r = ob_raw_call(raw, command, payload, size, NULL, 0, &reply);

    if (r != 0) {
        assert_true(r > 0);
        return -r;
    }
    assert_in_range(reply->size, 1, room);
    memcpy(out, reply->payload, reply->size);
    r = (int)reply->size;
    ob_raw_message_free(reply);
    return r;
}

static void check_device(const uint32_t *info)
{
    assert_int_equal(info[0], 16);
    assert_int_equal(info[1], VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI);
    assert_in_range(info[2], VFIO_PCI_CONFIG_REGION_INDEX + 1, VFIO_PCI_NUM_REGIONS);
    assert_in_range(info[3], VFIO_PCI_MSIX_IRQ_INDEX + 1, VFIO_PCI_NUM_IRQS);
}

static void test_device_info(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t request[1024] = { 0 }, info[1024];

    for (uint32_t argsz = 0; argsz < 16; argsz++) {
        request[0] = argsz;
        assert_int_equal(ask(&fixture->raw, OB_RAW_GET_INFO, request, 16, info, sizeof(info)), -EINVAL);
    }
    request[0] = 16;
    assert_int_equal(ask(&fixture->raw, OB_RAW_GET_INFO, request, 16, info, sizeof(info)), 16);
    check_device(info);
    request[0] = 4080;
    assert_int_equal(ask(&fixture->raw, OB_RAW_GET_INFO, request, 16, info, sizeof(info)), 16);
    check_device(info);
    request[0] = UINT32_MAX;
    assert_int_equal(ask(&fixture->raw, OB_RAW_GET_INFO, request, 16, info, sizeof(info)), 16);
    check_device(info);
    request[0] = 20; /* rust-vmm's structure has a field more */
    assert_int_equal(ask(&fixture->raw, OB_RAW_GET_INFO, request, 20, info, sizeof(info)), 16);
    check_device(info);
    for (size_t size = 0; size < 16; size++) {
        assert_int_equal(ask(&fixture->raw, OB_RAW_GET_INFO, request, size, info, sizeof(info)), -EINVAL);
    }
}

static void test_edu_regions(void **state)
{
    struct ob_fixture *fixture = *state;

    for (uint32_t index = 0; index < VFIO_PCI_NUM_REGIONS; index++) {
        struct vfio_region_info info;
        int fd;

        ob_ok(ob_raw_region_info(&fixture->raw, index, sizeof(info), &info, sizeof(info), &fd));
        assert_int_equal(fd, -1);
        assert_int_equal(info.argsz, sizeof(info));
        assert_int_equal(info.index, index);
        assert_int_equal(info.cap_offset, 0);
        assert_int_equal(info.size, index == EDU_BAR                        ? EDU_BAR_SIZE
                                    : index == VFIO_PCI_CONFIG_REGION_INDEX ? PCI_CFG_SPACE_SIZE
                                                                            : 0);
        assert_int_equal(info.flags, info.size == 0 ? 0 : VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
    }
}

static void test_region_info_requests(void **state)
{
    struct ob_fixture *fixture = *state;
    union {
        struct vfio_region_info info;
        uint8_t bytes[4080];
    } request, reply;

    memset(&request, 0, sizeof(request));
    for (uint32_t argsz = 0; argsz < sizeof(request.info); argsz++) {
        request.info.argsz = argsz;
        assert_int_equal(
            ask(&fixture->raw, OB_RAW_GET_REGION_INFO, &request, sizeof(request.info), &reply, sizeof(reply)), -EINVAL);
    }
    /* SPDK sends the largest reply that it would take as the request, for every index. */
    for (uint32_t index = 0; index < VFIO_PCI_NUM_REGIONS; index++) {
        request.info.argsz = sizeof(request);
        request.info.index = index;
        assert_int_equal(ask(&fixture->raw, OB_RAW_GET_REGION_INFO, &request, sizeof(request), &reply, sizeof(reply)),
                         sizeof(request.info));
        assert_int_equal(reply.info.index, index);
    }
    for (size_t size = 0; size < sizeof(request.info); size++) {
        assert_int_equal(ask(&fixture->raw, OB_RAW_GET_REGION_INFO, &request, size, &reply, sizeof(reply)), -EINVAL);
    }
}

static void test_unknown_indexes(void **state)
{
    static const uint32_t indexes[] = { VFIO_PCI_NUM_REGIONS, 255, 0x10000, INT32_MAX, UINT32_MAX };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(indexes) / sizeof(*indexes); i++) {
        struct vfio_region_info region;
        struct vfio_irq_info irq;

        assert_int_equal(ob_raw_region_info(&fixture->raw, indexes[i], sizeof(region), &region, sizeof(region), NULL),
                         EINVAL);
        assert_int_equal(ob_raw_irq_info(&fixture->raw, indexes[i], &irq), EINVAL);
    }
}

static void test_edu_irqs(void **state)
{
    struct ob_fixture *fixture = *state;
    struct vfio_irq_info info;

    ob_ok(ob_raw_irq_info(&fixture->raw, VFIO_PCI_INTX_IRQ_INDEX, &info));
    assert_int_equal(info.argsz, sizeof(info));
    assert_int_equal(info.count, 1);
    assert_int_equal(info.flags & (VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED),
                     VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED);
    ob_ok(ob_raw_irq_info(&fixture->raw, VFIO_PCI_MSI_IRQ_INDEX, &info));
    assert_int_equal(info.index, VFIO_PCI_MSI_IRQ_INDEX);
    assert_int_equal(info.count, 1);
    assert_int_equal(info.flags & VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_EVENTFD);
    assert_int_equal(info.flags & VFIO_IRQ_INFO_AUTOMASKED, 0);
    ob_ok(ob_raw_irq_info(&fixture->raw, VFIO_PCI_MSIX_IRQ_INDEX, &info));
    assert_int_equal(info.count, 0);
}

static void test_irq_info_requests(void **state)
{
    struct ob_fixture *fixture = *state;
    union {
        struct vfio_irq_info info;
        uint8_t bytes[4080];
    } request, reply;

    memset(&request, 0, sizeof(request));
    for (uint32_t argsz = 0; argsz < 16; argsz++) {
        request.info.argsz = argsz;
        assert_int_equal(ask(&fixture->raw, OB_RAW_GET_IRQ_INFO, &request, 16, &reply, sizeof(reply)), -EINVAL);
    }
    request.info.argsz = sizeof(request);
    assert_int_equal(ask(&fixture->raw, OB_RAW_GET_IRQ_INFO, &request, sizeof(request), &reply, sizeof(reply)), 16);
    assert_int_equal(reply.info.argsz, 16);
    for (size_t size = 0; size < 16; size++) {
        assert_int_equal(ask(&fixture->raw, OB_RAW_GET_IRQ_INFO, &request, size, &reply, sizeof(reply)), -EINVAL);
    }
}

/* An optional command: no descriptors to offer is a fine answer, and so is not knowing it. */
static void test_io_fds(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_io_fds request = { .argsz = sizeof(request), .index = EDU_BAR }, reply;
    int r = ask(&fixture->raw, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), &reply, sizeof(reply));

    if (r > 0) {
        assert_int_equal(r, sizeof(reply));
        assert_int_equal(reply.count, 0);
        assert_int_equal(reply.index, EDU_BAR);
    }
    request.argsz = 15;
    assert_true(ask(&fixture->raw, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), &reply, sizeof(reply)) < 0);
    request.argsz = 16;
    request.index = 77;
    assert_true(ask(&fixture->raw, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), &reply, sizeof(reply)) < 0);
}

static void test_identity(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t whole[PCI_CFG_SPACE_SIZE];

    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, 0, whole, sizeof(whole)));
    assert_int_equal(whole[PCI_VENDOR_ID] | whole[PCI_VENDOR_ID + 1] << 8, 0x1234);
    assert_int_equal(whole[PCI_DEVICE_ID] | whole[PCI_DEVICE_ID + 1] << 8, 0x11e8);
    assert_int_equal(whole[PCI_HEADER_TYPE] & 0x7f, PCI_HEADER_TYPE_NORMAL);
    assert_int_equal(whole[PCI_INTERRUPT_PIN], 1);
    for (uint32_t offset = 0; offset < sizeof(whole); offset += 4) { /* the same by pieces */
        uint8_t piece[4];

        ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, offset, piece, sizeof(piece)));
        assert_memory_equal(piece, whole + offset, sizeof(piece));
    }
    ob_find_capability(&fixture->raw, PCI_CAP_ID_MSI);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_device_info),     OB_TEST(test_edu_regions), OB_TEST(test_region_info_requests),
        OB_TEST(test_unknown_indexes), OB_TEST(test_edu_irqs),    OB_TEST(test_irq_info_requests),
        OB_TEST(test_io_fds),          OB_TEST(test_identity),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
