/* Messages as lines: names from the table, data as registers see it, and what does not fit is cut, not overrun. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "protocol/message.h"

static char line[1024];

static const char *print(const struct ob_message *m, enum ob_direction from)
{
    int n = ob_print_message(line, sizeof(line), m, from);

    assert_int_equal(n, strlen(line));
    return line;
}

static void test_requests(void **unused)
{
    const uint8_t data[] = { 1, 0, 0, 0 };
    struct ob_message m = { .header = { .id = 7, .command = OB_REGION_WRITE } };
    struct ob_wire_write w[2] = { { 0x1000, 0, 4, { 5 } }, { 4, 7, 2, { 6, 1 } } };

    m.u.region_access = (struct ob_wire_region_access){ 0x20, 0, 4 };
    m.tail = data;
    m.tail_size = 4;
    assert_string_equal(print(&m, OB_FROM_CLIENT),
                        "-> REGION_WRITE id=7 offset=0x20 region=BAR0 count=4 data=0x00000001");
    m.u.region_access.count = 3;
    m.tail_size = 3;
    m.header.flags = OB_FLAG_NO_REPLY;
    assert_string_equal(print(&m, OB_FROM_CLIENT),
                        "-> REGION_WRITE id=7 no_reply offset=0x20 region=BAR0 count=3 data=01:00:00");

    m = (struct ob_message){ .header = { .command = OB_DEVICE_SET_IRQS }, .nfds = 1 };
    m.u.irq_set = (struct ob_wire_irq_set){ 20, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 2, 3, 1 };
    assert_string_equal(print(&m, OB_FROM_CLIENT),
                        "-> DEVICE_SET_IRQS id=0 argsz=20 flags=EVENTFD|TRIGGER index=MSIX start=3 count=1 fds=1");

    m = (struct ob_message){ .header = { .command = OB_REGION_WRITE_MULTI } };
    m.u.write_multi.wr_cnt = 2;
    m.tail = (const uint8_t *)w;
    m.tail_size = sizeof(w);
    assert_string_equal(print(&m, OB_FROM_CLIENT),
                        "-> REGION_WRITE_MULTI id=0 wr_cnt=2 writes=BAR0+0x1000:0x00000005,CONFIG+0x4:0x0106");

    m = (struct ob_message){ .header = { .command = OB_DMA_READ } };
    m.u.dma_access = (struct ob_wire_dma_access){ 0x1000, 512 };
    assert_string_equal(print(&m, OB_FROM_SERVER), "<- DMA_READ id=0 address=0x1000 count=512");

    m = (struct ob_message){ .header = { .command = OB_VERSION },
                             .tail = (const uint8_t *)"{\"\n\x80\"}",
                             .tail_size = 7 };
    assert_string_equal(print(&m, OB_FROM_CLIENT), "-> VERSION id=0 major=0 minor=0 text={\"\\x0a\\x80\"}");

    m = (struct ob_message){ .header = { .command = OB_DMA_MAP } };
    m.u.dma_map = (struct ob_wire_dma_map){ 32, 3 | 1u << 31, 0, 0x1000, 0x2000 };
    assert_string_equal(print(&m, OB_FROM_CLIENT), "-> DMA_MAP id=0 argsz=32 flags=READ|WRITE|0x80000000 offset=0x0 "
                                                   "address=0x1000 size=0x2000");
    m = (struct ob_message){ .header = { .command = 14 } };
    assert_string_equal(print(&m, OB_FROM_CLIENT), "-> command=14 id=0");
}

static void test_replies(void **unused)
{
    struct vfio_device_feature_mig_state state = { .device_state = OB_DEVICE_STATE_PRE_COPY };
    struct ob_message m = { .header = { .id = 7, .command = OB_DMA_MAP, .flags = OB_FLAG_REPLY | OB_FLAG_ERROR } };
    struct {
        struct vfio_info_cap_header header;
        uint32_t nr_areas, reserved;
        struct vfio_region_sparse_mmap_area area;
    } caps = { { VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0 }, 1, 0, { 0x1000, 0x2000 } };

    m.header.error = EEXIST;
    assert_string_equal(print(&m, OB_FROM_SERVER), "<- DMA_MAP id=7 reply error=EEXIST(17)");
    m.header.error = 4000;
    assert_string_equal(print(&m, OB_FROM_SERVER), "<- DMA_MAP id=7 reply error=?(4000)");

    m = (struct ob_message){ .header = { .command = OB_DEVICE_FEATURE, .flags = OB_FLAG_REPLY } };
    m.u.feature = (struct ob_wire_feature){ 16, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE };
    m.tail = (const uint8_t *)&state;
    m.tail_size = sizeof(state);
    assert_string_equal(print(&m, OB_FROM_SERVER), "<- DEVICE_FEATURE id=0 reply argsz=16 flags=GET "
                                                   "feature=MIG_DEVICE_STATE device_state=PRE_COPY");

    m = (struct ob_message){ .header = { .command = OB_DEVICE_GET_REGION_INFO, .flags = OB_FLAG_REPLY }, .nfds = 1 };
    m.u.region_info = (struct vfio_region_info){ 64, VFIO_REGION_INFO_FLAG_CAPS, 1, 32, 0x4000, 0 };
    m.tail = (const uint8_t *)&caps;
    m.tail_size = sizeof(caps);
    assert_string_equal(print(&m, OB_FROM_SERVER),
                        "<- DEVICE_GET_REGION_INFO id=0 reply argsz=64 flags=CAPS index=BAR1 cap_offset=32 size=0x4000 "
                        "offset=0x0 sparse=0x1000+0x2000 fds=1");
}

static void test_cut(void **unused)
{
    struct ob_message m = { .header = { .id = 7, .command = OB_DEVICE_RESET } };
    const char whole[] = "-> DEVICE_RESET id=7";
    char buf[sizeof(whole) + 1];

    for (size_t room = 0; room <= sizeof(whole); room++) {
        memset(buf, 'x', sizeof(buf));
        assert_int_equal(ob_print_message(buf, room, &m, OB_FROM_CLIENT), sizeof(whole) - 1);
        assert_int_equal(buf[room], 'x');
        if (room > 0) {
            assert_memory_equal(buf, whole, room - 1);
            assert_int_equal(buf[room - 1], '\0');
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
