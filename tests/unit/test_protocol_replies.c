/* Replies, one by one: refusals, what may not exceed the request, capabilities and entries, and what known peers send.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "protocol/message.h"

static const struct ob_limits limits = { 4096, 8 };

/* The reply under test, laid out by hand, and what the check makes of it. */
static uint8_t bytes[16384];
static struct ob_message got;

static int reply(const struct ob_message *request, uint32_t flags, uint32_t error, const void *fixed, size_t fixed_size,
                 const void *tail, size_t tail_size, unsigned nfds)
{
    size_t size = OB_HEADER_SIZE + fixed_size + tail_size;
    struct ob_header h = { request->header.id, request->header.command, (uint32_t)size, flags, error };

    memcpy(bytes, &h, sizeof(h));
    if (fixed_size)
        memcpy(bytes + sizeof(h), fixed, fixed_size);
    if (tail_size)
        memcpy(bytes + sizeof(h) + fixed_size, tail, tail_size);
    return ob_check_reply(&got, bytes, size, request, &limits, nfds);
}

static struct ob_message asked(uint16_t command)
{
    return (struct ob_message){ .header = { .id = 5, .command = command } };
}

static void test_refusals(void **unused)
{
    struct ob_message r = asked(OB_DMA_MAP);
    const uint32_t refused = OB_FLAG_REPLY | OB_FLAG_ERROR;

    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, NULL, 0, NULL, 0, 0), 0);
    assert_int_equal(ob_reply_error(&got), 0);
    assert_int_equal(reply(&r, refused, EEXIST, NULL, 0, NULL, 0, 0), 0);
    assert_int_equal(ob_reply_error(&got), -EEXIST);
    assert_int_equal(reply(&r, refused, 0, NULL, 0, NULL, 0, 0), 0);
    assert_int_equal(ob_reply_error(&got), -EIO);
    assert_int_equal(reply(&r, refused, 0x80000000u, NULL, 0, NULL, 0, 0), 0);
    assert_int_equal(ob_reply_error(&got), -EIO);
    assert_int_equal(reply(&r, OB_FLAG_ERROR, EINVAL, NULL, 0, NULL, 0, 0), 0); /* older rust-vmm */
    assert_int_equal(ob_reply_error(&got), -EINVAL);
    assert_int_equal(reply(&r, refused, EINVAL, "x", 1, NULL, 0, 0), -EPROTO);
    assert_int_equal(reply(&r, refused, EINVAL, NULL, 0, NULL, 0, 1), -EPROTO);
    assert_int_equal(reply(&r, 0, 0, NULL, 0, NULL, 0, 0), -EPROTO);
}

static void test_no_more_than_asked(void **unused)
{
    static const uint8_t data[64];
    struct ob_message r = asked(OB_REGION_READ);
    struct ob_wire_region_access access = { 0x10, 2, 8 };
    struct ob_wire_dma_access dma = { 0x1000, 8 };
    struct ob_wire_write_multi multi = { 3 };
    struct ob_wire_mig_data mig = { 16, 8 };

    r.u.region_access = access;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &access, 16, data, 8, 0), 0);
    access.count = 7;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &access, 16, data, 7, 0), 0);
    access.count = 9;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &access, 16, data, 9, 0), -EPROTO);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, NULL, 0, NULL, 0, 0), -EPROTO);
    r.u.region_access.count = 0;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, NULL, 0, NULL, 0, 0), 0); /* the reference library */
    assert_int_equal(got.u.region_access.offset, 0x10);

    r = asked(OB_DMA_READ);
    r.u.dma_access = dma;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 16, data, 8, 0), 0);
    dma.count = 9;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 16, data, 9, 0), -EPROTO);
    dma.count = UINT64_C(1) << 32 | 8; /* what QEMU's layout, with a count of 4 bytes, looks like */
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 16, data, 8, 0), -EPROTO);

    r = asked(OB_REGION_WRITE_MULTI);
    r.u.write_multi.wr_cnt = 3;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &multi, 8, NULL, 0, 0), 0);
    multi.wr_cnt = 4;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &multi, 8, NULL, 0, 0), -EPROTO);

    r = asked(OB_MIG_DATA_READ);
    r.u.mig_data = mig;
    mig.size = 5;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &mig, 8, data, 8, 0), 0); /* the reference library pads */
    assert_int_equal(got.tail_size, 5);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &mig, 8, data, 4, 0), -EPROTO);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &mig, 8, data, 9, 0), -EPROTO);
    mig.size = 0;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &mig, 8, data, 8, 0), 0);
    assert_null(got.tail);
    mig.size = 9;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &mig, 8, data, 9, 0), -EPROTO);
}

static void test_dma_write_forms(void **unused)
{
    struct ob_message r = asked(OB_DMA_WRITE);
    struct ob_wire_dma_access dma = { 0x1000, 8 };

    r.u.dma_access = dma;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 16, NULL, 0, 0), 0);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, NULL, 0, NULL, 0, 0), 0); /* QEMU */
    assert_int_equal(got.u.dma_access.count, 8);
    dma.count = 6;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 12, NULL, 0, 0), 0); /* the specification's table */
    assert_int_equal(got.u.dma_access.count, 6);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 11, NULL, 0, 0), -EPROTO);
    dma.count = 9;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 12, NULL, 0, 0), -EPROTO);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &dma, 16, NULL, 0, 0), -EPROTO);
}

struct caps {
    struct vfio_info_cap_header type;
    uint32_t type_data[2];
    struct vfio_info_cap_header sparse;
    uint32_t nr_areas, reserved;
    struct vfio_region_sparse_mmap_area areas[2];
};

static void test_region_capabilities(void **unused)
{
    const uint32_t full = 32 + sizeof(struct caps);
    const struct caps good = {
        { VFIO_REGION_INFO_CAP_TYPE, 1, 48 },      { 1, 2 }, { VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0 }, 2, 0,
        { { 0x1000, 0x1000 }, { 0x3000, 0x1000 } }
    };
    const struct vfio_region_info info = { full, VFIO_REGION_INFO_FLAG_CAPS, 0, 32, 0x4000, 0 };
    struct ob_message r = asked(OB_DEVICE_GET_REGION_INFO);
    struct vfio_region_info i = info;
    struct caps c = good;

    r.u.region_info.argsz = 4096;
#define REPLY() reply(&r, OB_FLAG_REPLY, 0, &i, 32, &c, sizeof(c), 1)
    assert_int_equal(REPLY(), 0);
    assert_int_equal(ob_region_capability(&got, VFIO_REGION_INFO_CAP_SPARSE_MMAP), 16);
    assert_int_equal(ob_region_capability(&got, VFIO_REGION_INFO_CAP_TYPE), 0);
    assert_int_equal(ob_region_capability(&got, VFIO_REGION_INFO_CAP_MSIX_MAPPABLE), -ENOENT);
    c.sparse.next = 32; /* a loop */
    assert_int_equal(REPLY(), -EPROTO);
    c.sparse.next = 48; /* a tighter one */
    assert_int_equal(REPLY(), -EPROTO);
    c.sparse.next = full - 7;
    assert_int_equal(REPLY(), -EPROTO);
    c.sparse.next = UINT32_MAX;
    assert_int_equal(REPLY(), -EPROTO);
    c = good;
    c.nr_areas = 3;
    assert_int_equal(REPLY(), -EPROTO);
    c.nr_areas = 0x10000002; /* times 16 is 32 in 32 bits */
    assert_int_equal(REPLY(), -EPROTO);
    c = good;
    c.areas[1].size = 0x1001; /* behind the region */
    assert_int_equal(REPLY(), -EPROTO);
    c.areas[1].offset = UINT64_MAX;
    assert_int_equal(REPLY(), -EPROTO);
    c = good;
    i.cap_offset = 31;
    assert_int_equal(REPLY(), -EPROTO);
    i = info;
    i.index = 1;
    assert_int_equal(REPLY(), -EPROTO);
    i = info;
    i.argsz = full + 1; /* more than came although there was room */
    assert_int_equal(REPLY(), -EPROTO);
    i = info;
    r.u.region_info.argsz = full - 1; /* more than there was room for */
    assert_int_equal(REPLY(), -EPROTO);
    /* Cut to what there was room for: fine, and nothing of it is looked at. */
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &i, 32, &c, sizeof(c) - 1, 1), 0);
    assert_int_equal(ob_region_capability(&got, VFIO_REGION_INFO_CAP_SPARSE_MMAP), -ENOENT);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &i, 32, NULL, 0, 1), 0);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &i, 32, NULL, 0, 2), -EPROTO);
#undef REPLY
}

static void test_io_fds(void **unused)
{
    struct ob_message r = asked(OB_DEVICE_GET_REGION_IO_FDS);
    struct ob_wire_io_fds head = { 16 + 96, 0, 0, 2 };
    struct ob_wire_io_fd entry = { 0x100, 4, 1, OB_IO_FD_IOEVENTFD, 0, 0, 0 };
    uint8_t entries[96] = { 0 };

    r.u.io_fds.argsz = 4096;
    memcpy(entries, &entry, sizeof(entry));
    entry.offset = 0x200;
    memcpy(entries + 48, &entry, sizeof(entry));
    /* Entries of 48 bytes, as the reference library's: "not to be relied on". */
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 16, entries, 96, 2), 0);
    assert_int_equal(ob_message_io_fd(&got, 1).offset, 0x200);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 16, entries, 96, 1), -EPROTO); /* fd_index 1 of 1 */
    head.count = 3;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 16, entries, 96, 2), -EPROTO);
    head.count = 0;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 16, entries, 96, 2), -EPROTO);
    head.count = 2;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 16, NULL, 0, 2), -EPROTO);
    r.u.io_fds.argsz = 16;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 16, NULL, 0, 2), 0);
}

static void test_features(void **unused)
{
    struct ob_message r = asked(OB_DEVICE_FEATURE);
    struct ob_wire_feature head = { 16, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION };
    struct {
        struct ob_wire_dma_report head;
        uint64_t bitmap[2];
    } rep = { { 0, 65 * 4096, 4096 }, { 0 } };

    r.u.feature = (struct ob_wire_feature){ 48, head.flags };
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 8, 0), 0);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 7, 0), -EPROTO);
    head.flags++;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 8, 0), -EPROTO);
    head = (struct ob_wire_feature){ 48, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT };
    r.u.feature.flags = head.flags;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 40, 0), 0);
    rep.head.length = 64 * 4096;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 40, 0), -EPROTO);
    r.u.feature.argsz = 47;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 40, 0), -EPROTO);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &head, 8, &rep, 24, 0), 0); /* says how much it needs */
}

static void test_structures_that_grew(void **unused)
{
    struct ob_message r = asked(OB_DEVICE_GET_INFO);
    struct ob_wire_device_info info = { 20, VFIO_DEVICE_FLAGS_PCI, 9, 5 };
    static const uint8_t zeros[8192];

    r.u.device_info.argsz = 16;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &info, 16, zeros, 4, 0), 0); /* rust-vmm */
    assert_int_equal(got.tail_size, 0);
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &info, 16, zeros, OB_MAX_EXCESS + 1, 0), -EPROTO);
    info.argsz = 15;
    assert_int_equal(reply(&r, OB_FLAG_REPLY, 0, &info, 16, NULL, 0, 0), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_more_than_asked),
        cmocka_unit_test(test_dma_write_forms),
        cmocka_unit_test(test_region_capabilities),
        cmocka_unit_test(test_io_fds),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_structures_that_grew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
