/* The rules of single commands, one by one: each overflow, each limit, each errno, and what known peers send. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "protocol/message.h"

static const struct ob_limits limits = { 4096, 8 };

/* Lays a message out by hand: not with the encoder, which would refuse most of these. */
struct raw {
    uint8_t bytes[16384];
    size_t size;
    unsigned nfds;
};

static struct raw raw(uint16_t command, uint32_t flags, const void *fixed, size_t fixed_size, const void *tail,
                      size_t tail_size)
{
    struct raw r = { .size = OB_HEADER_SIZE + fixed_size + tail_size };
    struct ob_header h = { 1, command, (uint32_t)r.size, flags, 0 };

    memcpy(r.bytes, &h, sizeof(h));
    if (fixed_size)
        memcpy(r.bytes + sizeof(h), fixed, fixed_size);
    if (tail)
        memcpy(r.bytes + sizeof(h) + fixed_size, tail, tail_size);
    return r;
}

static int check(const struct raw *r)
{
    struct ob_message m;
    struct ob_header h;

    memcpy(&h, r->bytes, sizeof(h));
    return ob_check_request(&m, r->bytes, r->size, ob_commands[h.command].from, &limits, r->nfds);
}

#define REQUEST(command, type, ...) REQUEST_WITH(command, 0, NULL, 0, type, __VA_ARGS__)
#define REQUEST_WITH(command, fds, tail, tail_size, type, ...)                       \
    ({                                                                               \
        struct type fixed_ = { __VA_ARGS__ };                                        \
        struct raw raw_ = raw(command, 0, &fixed_, sizeof(fixed_), tail, tail_size); \
        raw_.nfds = fds;                                                             \
        check(&raw_);                                                                \
    })

static void test_dma_map(void **unused)
{
#define MAP(...) REQUEST(OB_DMA_MAP, ob_wire_dma_map, __VA_ARGS__)
    assert_int_equal(MAP(32, 3, 0, 0x1000, 0x1000), 0);
    assert_int_equal(MAP(32, 0, 0, 0, 1),
                     0); /* neither bit: mapped for nothing, but legal; alignment is not our rule */
    assert_int_equal(MAP(31, 3, 0, 0x1000, 0x1000), -EINVAL);
    assert_int_equal(MAP(4096, 3, 0, 0x1000, 0x1000), 0);
    assert_int_equal(MAP(32, 4, 0, 0x1000, 0x1000), -EINVAL);
    assert_int_equal(MAP(32, 3, 0, 0x1000, 0), -EINVAL);
    assert_int_equal(MAP(32, 3, 0, 0x1000, UINT64_MAX), -EINVAL);
    assert_int_equal(MAP(32, 3, 0, UINT64_MAX - 0xfff, 0xfff), 0);
    assert_int_equal(MAP(32, 3, 0, UINT64_MAX - 0xfff, 0x1000), -EINVAL); /* the end would be 0 */
    assert_int_equal(MAP(32, 3, UINT64_MAX - 0xffe, 0, 0x1000), -EINVAL);
#undef MAP
}

static void test_dma_unmap(void **unused)
{
#define UNMAP(...) REQUEST(OB_DMA_UNMAP, ob_wire_dma_unmap, __VA_ARGS__)
    assert_int_equal(UNMAP(24, 0, 0x1000, 0x1000), 0);
    assert_int_equal(UNMAP(23, 0, 0x1000, 0x1000), -EINVAL);
    assert_int_equal(UNMAP(24, 0, 0x1000, 0), -EINVAL);
    assert_int_equal(UNMAP(24, 0, 0x1000, UINT64_MAX), -EINVAL);
    assert_int_equal(UNMAP(24, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0), 0); /* QEMU */
    assert_int_equal(UNMAP(24, VFIO_DMA_UNMAP_FLAG_ALL, 0x1000, 0x1000), -EINVAL);
    assert_int_equal(UNMAP(24, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, 0x1000, 0x1000), -EINVAL);
    /* SPDK sends the descriptor of the mapping. */
    assert_int_equal(REQUEST_WITH(OB_DMA_UNMAP, 1, NULL, 0, ob_wire_dma_unmap, 24, 0, 0x1000, 0x1000), 0);
#undef UNMAP
}

static void test_information(void **unused)
{
    static const uint8_t zeros[8192];

    assert_int_equal(REQUEST(OB_DEVICE_GET_INFO, ob_wire_device_info, .argsz = 16), 0);
    assert_int_equal(REQUEST(OB_DEVICE_GET_INFO, ob_wire_device_info, .argsz = 15), -EINVAL);
    assert_int_equal(REQUEST(OB_DEVICE_GET_REGION_INFO, vfio_region_info, .argsz = 31), -EINVAL);
    assert_int_equal(REQUEST(OB_DEVICE_GET_IRQ_INFO, vfio_irq_info, .argsz = 15), -EINVAL);
    assert_int_equal(REQUEST(OB_DEVICE_GET_REGION_IO_FDS, ob_wire_io_fds, .argsz = 15), -EINVAL);
    assert_int_equal(REQUEST(OB_DEVICE_GET_REGION_IO_FDS, ob_wire_io_fds, 16, 0, 9, 0), 0);
    assert_int_equal(REQUEST(OB_DEVICE_GET_REGION_IO_FDS, ob_wire_io_fds, 16, 1, 9, 0), -EINVAL);
    assert_int_equal(REQUEST(OB_DEVICE_GET_REGION_IO_FDS, ob_wire_io_fds, 16, 0, 9, 1), -EINVAL);
    /* SPDK's region information, rust-vmm's device information; and the bound of what is tolerated. */
    assert_int_equal(REQUEST_WITH(OB_DEVICE_GET_REGION_INFO, 0, zeros, 4080 - 32, vfio_region_info, .argsz = 4080), 0);
    assert_int_equal(REQUEST_WITH(OB_DEVICE_GET_INFO, 0, zeros, 4, ob_wire_device_info, .argsz = 36), 0);
    assert_int_equal(REQUEST_WITH(OB_DEVICE_GET_REGION_INFO, 0, zeros, 4096, vfio_region_info, .argsz = 32), 0);
    assert_int_equal(REQUEST_WITH(OB_DEVICE_GET_REGION_INFO, 0, zeros, 4097, vfio_region_info, .argsz = 32), -EINVAL);
    /* Elsewhere a byte too many is one too many. */
    assert_int_equal(REQUEST_WITH(OB_DMA_MAP, 0, zeros, 1, ob_wire_dma_map, 32, 3, 0, 0, 4096), -EINVAL);
    assert_int_equal(REQUEST_WITH(OB_REGION_READ, 0, zeros, 4, ob_wire_region_access, 0, 0, 4), -EINVAL);
    assert_int_equal(REQUEST_WITH(OB_DEVICE_RESET, 0, zeros, 1, ob_wire_none), -EINVAL);
}

static void test_set_irqs(void **unused)
{
    const uint32_t none = VFIO_IRQ_SET_DATA_NONE, bools = VFIO_IRQ_SET_DATA_BOOL, fd = VFIO_IRQ_SET_DATA_EVENTFD;
    const uint32_t trigger = VFIO_IRQ_SET_ACTION_TRIGGER, mask = VFIO_IRQ_SET_ACTION_MASK;
    static const uint8_t ones[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
#define IRQS(fds, size, ...) REQUEST_WITH(OB_DEVICE_SET_IRQS, fds, ones, size, ob_wire_irq_set, __VA_ARGS__)
    assert_int_equal(IRQS(0, 0, 20, none | trigger, 2, 0, 0), 0); /* disable the index */
    assert_int_equal(IRQS(0, 0, 20, none | trigger, 2, 1, 0), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, none | trigger, 2, 1, 1), 0);
    assert_int_equal(IRQS(0, 0, 20, none | trigger, 2, 1, UINT32_MAX), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, none | trigger, 2, 1, UINT32_MAX - 1), 0);
    assert_int_equal(IRQS(0, 0, 20, none | trigger, 2, UINT32_MAX, 1), -EINVAL);
    assert_int_equal(IRQS(0, 0, 19, none | trigger, 2, 0, 1), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, trigger, 2, 0, 1), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, none, 2, 0, 1), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, none | fd | trigger, 2, 0, 1), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, none | trigger | mask, 2, 0, 1), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, none | trigger | 1u << 6, 2, 0, 1), -EINVAL);
    assert_int_equal(IRQS(0, 8, 28, bools | mask, 2, 0, 8), 0);
    assert_int_equal(IRQS(0, 8, 27, bools | mask, 2, 0, 8), -EINVAL);
    assert_int_equal(IRQS(0, 7, 28, bools | mask, 2, 0, 8), -EINVAL);
    assert_int_equal(IRQS(0, 8, 28, bools | mask, 2, 0, 7), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, bools | mask, 2, 0, 0), -EINVAL);
    assert_int_equal(IRQS(1, 8, 28, bools | mask, 2, 0, 8), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, fd | trigger, 2, 0, 1), 0); /* takes the eventfd away; QEMU does it first */
    assert_int_equal(IRQS(3, 0, 20, fd | trigger, 2, 5, 3), 0);
    assert_int_equal(IRQS(2, 0, 20, fd | trigger, 2, 5, 3), -EINVAL);
    assert_int_equal(IRQS(0, 0, 20, fd | trigger, 2, 0, 0), -EINVAL);
    assert_int_equal(IRQS(8, 0, 20, fd | trigger, 2, 0, 8), 0);
    assert_int_equal(IRQS(9, 0, 20, fd | trigger, 2, 0, 9), -EINVAL);
    assert_int_equal(IRQS(1, 0, 20, none | trigger, 2, 0, 1), -EINVAL);
#undef IRQS
}

static void test_access(void **unused)
{
    static const uint8_t bytes[8192];
#define READ(...)        REQUEST(OB_REGION_READ, ob_wire_region_access, __VA_ARGS__)
#define WRITE(size, ...) REQUEST_WITH(OB_REGION_WRITE, 0, bytes, size, ob_wire_region_access, __VA_ARGS__)
#define DMA(size, ...)   REQUEST_WITH(OB_DMA_WRITE, 0, bytes, size, ob_wire_dma_access, __VA_ARGS__)
    assert_int_equal(READ(0, 7, 4096), 0);
    assert_int_equal(READ(0, 7, 4097), -EINVAL);
    assert_int_equal(READ(0, 7, 0), 0);
    assert_int_equal(READ(UINT64_MAX - 4, 7, 4), 0);
    assert_int_equal(READ(UINT64_MAX - 3, 7, 4), -EINVAL);
    assert_int_equal(WRITE(4096, 0, 0, 4096), 0);
    assert_int_equal(WRITE(4097, 0, 0, 4097), -EINVAL);
    assert_int_equal(WRITE(4, UINT64_MAX - 3, 0, 4), -EINVAL);
    assert_int_equal(WRITE(4, 0, 0, UINT32_MAX), -EINVAL);
    assert_int_equal(REQUEST(OB_DMA_READ, ob_wire_dma_access, 0x1000, 4096), 0);
    assert_int_equal(REQUEST(OB_DMA_READ, ob_wire_dma_access, 0x1000, 4097), -EINVAL);
    assert_int_equal(REQUEST(OB_DMA_READ, ob_wire_dma_access, 0x1000, UINT64_C(1) << 32 | 4), -EINVAL);
    assert_int_equal(REQUEST(OB_DMA_READ, ob_wire_dma_access, UINT64_MAX, 4), -EINVAL);
    assert_int_equal(DMA(4, 0x1000, 4), 0);
    assert_int_equal(DMA(4, 0x1000, UINT64_C(1) << 32 | 4), -EINVAL);
    assert_int_equal(DMA(4, UINT64_MAX - 2, 4), -EINVAL);
#undef READ
#undef WRITE
#undef DMA
}

static void test_write_multi(void **unused)
{
    struct ob_wire_write w[200] = { { .offset = 0x1000, .region = 0, .count = 4 } };
#define MULTI(size, n) REQUEST_WITH(OB_REGION_WRITE_MULTI, 0, w, size, ob_wire_write_multi, n)
    assert_int_equal(MULTI(sizeof(w), 200), 0);
    assert_int_equal(MULTI(0, 0), 0);
    assert_int_equal(MULTI(24, 2), -EINVAL);
    assert_int_equal(MULTI(48, 1), -EINVAL);
    assert_int_equal(MULTI(25, 1), -EINVAL);
    /* wr_cnt * 24 is 24, 0 and 8 in 64 bits. */
    assert_int_equal(MULTI(24, (UINT64_C(1) << 61) + 1), -EINVAL);
    assert_int_equal(MULTI(0, UINT64_C(1) << 61), -EINVAL);
    assert_int_equal(MULTI(8, UINT64_C(0xaaaaaaaaaaaaaab)), -EINVAL);
    w[7].count = 8;
    assert_int_equal(MULTI(sizeof(w), 200), 0);
    w[7].count = 9;
    assert_int_equal(MULTI(sizeof(w), 200), -EINVAL);
    w[7].count = 8;
    w[7].offset = UINT64_MAX - 7;
    assert_int_equal(MULTI(sizeof(w), 200), -EINVAL);
#undef MULTI
}

static void test_feature(void **unused)
{
    const uint32_t get = VFIO_DEVICE_FEATURE_GET, set = VFIO_DEVICE_FEATURE_SET, probe = VFIO_DEVICE_FEATURE_PROBE;
    const uint32_t start = VFIO_DEVICE_FEATURE_DMA_LOGGING_START, report = VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
    struct {
        struct ob_wire_dma_logging head;
        struct vfio_device_feature_dma_logging_range ranges[2];
    } log = { { 4096, 2, 0 }, { { 0, 4096 }, { 8192, 4096 } } };
    struct ob_wire_dma_report rep = { 0, 1 << 20, 4096 };
#define FEATURE(data, size, ...) REQUEST_WITH(OB_DEVICE_FEATURE, 0, data, size, ob_wire_feature, __VA_ARGS__)
    assert_int_equal(FEATURE(NULL, 0, 8, 1), -EINVAL); /* no operation */
    assert_int_equal(FEATURE(NULL, 0, 16, get | 1), 0);
    assert_int_equal(FEATURE(NULL, 0, 7, get | 1), -EINVAL);
    assert_int_equal(FEATURE(NULL, 0, 16, get | set | 1), -EINVAL);
    assert_int_equal(FEATURE(NULL, 0, 16, get | set | probe | 1), 0);
    assert_int_equal(FEATURE(NULL, 0, 16, get | 1u << 19 | 1), -EINVAL);
    assert_int_equal(FEATURE(NULL, 0, 16, set | 2), -EINVAL);
    assert_int_equal(FEATURE(&rep, 8, 16, set | 2), 0);
    assert_int_equal(FEATURE(&rep, 8, 15, set | 2), -EINVAL); /* the reply would not fit */
    assert_int_equal(FEATURE(&rep, 8, 16, get | 2), -EINVAL);
    assert_int_equal(FEATURE(&log, 48, 56, set | start), 0);
    assert_int_equal(FEATURE(&log, 47, 56, set | start), -EINVAL);
    assert_int_equal(FEATURE(&log, 32, 56, set | start), -EINVAL);
    assert_int_equal(FEATURE(&log, 15, 56, set | start), -EINVAL);
    log.head.num_ranges = UINT32_MAX;
    assert_int_equal(FEATURE(&log, 48, 56, set | start), -EINVAL);
    log.head.num_ranges = 0x10000002; /* times 16 is 32 in 32 bits */
    assert_int_equal(FEATURE(&log, 48, 56, set | start), -EINVAL);
    log.head.num_ranges = 2;
    log.ranges[1].iova = UINT64_MAX;
    assert_int_equal(FEATURE(&log, 48, 56, set | start), -EINVAL);
    assert_int_equal(FEATURE(NULL, 0, 8, set | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP), 0);
    assert_int_equal(FEATURE(&rep, 24, 4096, get | report), 0);
    assert_int_equal(FEATURE(&rep, 23, 4096, get | report), -EINVAL);
    rep.page_size = 0;
    assert_int_equal(FEATURE(&rep, 24, 4096, get | report), -EINVAL);
    rep.page_size = 4097;
    assert_int_equal(FEATURE(&rep, 24, 4096, get | report), -EINVAL);
    rep.page_size = 4096;
    rep.iova = UINT64_MAX - 4095;
    assert_int_equal(FEATURE(&rep, 24, 4096, get | report), -EINVAL);
    assert_int_equal(FEATURE(&rep, 24, 4096, get | 999), 0); /* whether it exists is the session's to say */
#undef FEATURE
    assert_int_equal(ob_bitmap_size(0, 4096), 0);
    assert_int_equal(ob_bitmap_size(1, 4096), 8);
    assert_int_equal(ob_bitmap_size(64 * 4096, 4096), 8);
    assert_int_equal(ob_bitmap_size(64 * 4096 + 1, 4096), 16);
    assert_int_equal(ob_bitmap_size(UINT64_MAX, 1), UINT64_C(1) << 61);
}

static void test_migration_data(void **unused)
{
    static const uint8_t bytes[8192];

    assert_int_equal(REQUEST(OB_MIG_DATA_READ, ob_wire_mig_data, 8 + 4096, 4096), 0);
    assert_int_equal(REQUEST(OB_MIG_DATA_READ, ob_wire_mig_data, 8 + 4097, 4097), -EINVAL);
    assert_int_equal(REQUEST(OB_MIG_DATA_READ, ob_wire_mig_data, 7, 0), -EINVAL);
    assert_int_equal(REQUEST(OB_MIG_DATA_READ, ob_wire_mig_data, 8 + 99, 100), -EINVAL);
    assert_int_equal(REQUEST(OB_MIG_DATA_READ, ob_wire_mig_data, 3, UINT32_MAX - 4), -EINVAL); /* 8 + size wraps to 3 */
    assert_int_equal(REQUEST_WITH(OB_MIG_DATA_WRITE, 0, bytes, 100, ob_wire_mig_data, 0, 100), 0);
    assert_int_equal(REQUEST_WITH(OB_MIG_DATA_WRITE, 0, bytes, 100, ob_wire_mig_data, 108, 101), -EINVAL);
    assert_int_equal(REQUEST_WITH(OB_MIG_DATA_WRITE, 0, bytes, 4097, ob_wire_mig_data, 8 + 4097, 4097), -EINVAL);
}

static void test_version(void **unused)
{
    assert_int_equal(REQUEST(OB_VERSION, ob_wire_version, 0, 0), 0); /* SPDK: no text */
    assert_int_equal(REQUEST_WITH(OB_VERSION, 0, "{}", 3, ob_wire_version, 0, 0), 0);
    assert_int_equal(REQUEST_WITH(OB_VERSION, 0, "{}", 2, ob_wire_version, 0, 0), -EINVAL);
}

static void test_encoders(void **unused)
{
    uint8_t buf[256];
    struct ob_message m = { .header = { 9, OB_REGION_WRITE, 0, OB_FLAG_NO_REPLY, 0 } };
    struct ob_header h;

    m.u.region_access = (struct ob_wire_region_access){ 0x20, 0, 4 };
    m.tail_size = 4;
    m.tail = buf + ob_tail_offset(OB_REGION_WRITE, 0);
    memcpy(buf + 32, "abcd", 4); /* in place */
    assert_int_equal(ob_encode_request(buf, sizeof(buf), &m), 36);
    assert_memory_equal(buf + 32, "abcd", 4);
    memcpy(buf + 2, "wxyz", 4); /* where the header goes */
    m.tail = buf + 2;
    assert_int_equal(ob_encode_request(buf, sizeof(buf), &m), 36);
    assert_memory_equal(buf + 32, "wxyz", 4);
    memcpy(&h, buf, sizeof(h));
    assert_int_equal(h.flags, OB_FLAG_NO_REPLY);
    m.tail_size = 3;
    assert_int_equal(ob_encode_request(buf, sizeof(buf), &m), -EINVAL);
    m.tail_size = 4;
    m.nfds = 1;
    assert_int_equal(ob_encode_request(buf, sizeof(buf), &m), -EINVAL);
    m.header.command = 14;
    assert_int_equal(ob_encode_request(buf, sizeof(buf), &m), -EINVAL);
    assert_int_equal(ob_encode_reply(buf, sizeof(buf), &m), -EINVAL);
    assert_int_equal(ob_tail_offset(14, 0), -EINVAL);
    m.header.command = OB_VERSION;
    assert_int_equal(ob_encode_error(buf, 15, &m.header, -EEXIST), -ENOBUFS);
    assert_int_equal(ob_encode_error(buf, 16, &m.header, -EEXIST), 16);
    memcpy(&h, buf, sizeof(h));
    assert_int_equal(h.flags, OB_FLAG_REPLY | OB_FLAG_ERROR);
    assert_int_equal(h.error, EEXIST);
    ob_encode_error(buf, 16, &m.header, 0);
    memcpy(&h, buf, sizeof(h));
    assert_int_equal(h.error, EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dma_map),  cmocka_unit_test(test_dma_unmap),      cmocka_unit_test(test_information),
        cmocka_unit_test(test_set_irqs), cmocka_unit_test(test_access),         cmocka_unit_test(test_write_multi),
        cmocka_unit_test(test_feature),  cmocka_unit_test(test_migration_data), cmocka_unit_test(test_version),
        cmocka_unit_test(test_encoders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
