/* test_region: REGION_READ and REGION_WRITE one at a time: widths, bounds, lies about sizes, posted ones. */
#include "fixture.h"
#include "edu_regs.h"

#include <string.h>

static void test_read_write(void **state)
{
    struct ob_fixture *fixture = *state;

    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_ID), EDU_ID_VALUE);
    for (uint32_t value = 1; value != 0; value <<= 1) {
        ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, value);
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~value);
    }
}

/* Configuration space takes every width at every offset. */
static void test_widths(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t whole[PCI_CFG_SPACE_SIZE], part[8];

    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, 0, whole, sizeof(whole)));
    for (uint32_t count = 1; count <= 8; count++) {
        for (uint32_t offset = 0; offset + count <= sizeof(whole); offset += offset < 64 ? 1 : 13) {
            ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, offset, part, count));
            assert_memory_equal(part, whole + offset, count);
        }
    }
}

/* Some guests write the high byte of COMMAND alone. */
static void test_command_bytes(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t high = PCI_COMMAND_INTX_DISABLE >> 8, low = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

    ob_set_command(&fixture->raw, 0);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND + 1, &high, 1));
    assert_int_equal(ob_config16(&fixture->raw, PCI_COMMAND), PCI_COMMAND_INTX_DISABLE);
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &low, 1));
    assert_int_equal(ob_config16(&fixture->raw, PCI_COMMAND), PCI_COMMAND_INTX_DISABLE | low);
}

/* One write over the end of what is writable, and further than the register that it starts in. */
static void test_long_config_write(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t before[PCI_CFG_SPACE_SIZE], after[PCI_CFG_SPACE_SIZE], ones[PCI_CFG_SPACE_SIZE];

    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, 0, before, sizeof(before)));
    memset(ones, 0xff, sizeof(ones));
    ob_ok(ob_raw_write(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, 0, ones, sizeof(ones)));
    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, 0, after, sizeof(after)));
    assert_memory_equal(before, after, PCI_COMMAND);
    assert_memory_equal(before + PCI_CLASS_REVISION, after + PCI_CLASS_REVISION, 4);
    assert_int_equal(after[PCI_BASE_ADDRESS_0 + 3], 0xff); /* 1 MiB, 32 bits: sized by writing ones */
    assert_int_equal(after[PCI_BASE_ADDRESS_0 + 2], 0xf0);
    assert_int_equal(after[PCI_BASE_ADDRESS_0 + 1], 0);
}

static void test_bounds(void **state)
{
    static const struct {
        uint32_t region, count;
        uint64_t offset;
    } bad[] = {
        { EDU_BAR, 1, EDU_BAR_SIZE },
        { EDU_BAR, 4, EDU_BAR_SIZE - 3 },
        { EDU_BAR, 4, UINT64_MAX },
        { EDU_BAR, 4, UINT64_MAX - 3 },
        { EDU_BAR, 8, UINT64_MAX - 4 },
        { EDU_BAR, 4, 1ull << 63 },
        { EDU_BAR, 4, 1ull << 32 },
        { VFIO_PCI_CONFIG_REGION_INDEX, 1, PCI_CFG_SPACE_SIZE },
        { VFIO_PCI_CONFIG_REGION_INDEX, 8, PCI_CFG_SPACE_SIZE - 4 },
        { VFIO_PCI_BAR1_REGION_INDEX, 4, 0 },
        { VFIO_PCI_ROM_REGION_INDEX, 4, 0 },
        { VFIO_PCI_VGA_REGION_INDEX, 1, 0 },
        { VFIO_PCI_NUM_REGIONS, 4, 0 },
        { UINT32_MAX, 4, 0 },
        { INT32_MAX, 4, 0 },
    };
    struct ob_fixture *fixture = *state;
    uint8_t data[8] = { 0 };

    ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 0x1234);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(ob_raw_read(&fixture->raw, bad[i].region, bad[i].offset, data, bad[i].count), EINVAL);
        assert_int_equal(ob_raw_write(&fixture->raw, bad[i].region, bad[i].offset, data, bad[i].count), EINVAL);
    }
    ob_ok(ob_raw_read(&fixture->raw, EDU_BAR, EDU_BAR_SIZE - 4, data, 4));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~0x1234u);
}

/* The specification does not forbid it, and read() and write() of the kernel's VFIO take it: nothing is transferred,
 * nothing happens, and the reply says so. Where there is no region, there is none of no bytes either. */
static void test_count_zero(void **state)
{
    static const uint16_t commands[] = { OB_RAW_REGION_READ, OB_RAW_REGION_WRITE };
    static const struct ob_raw_region good[] = { { .offset = EDU_LIVENESS, .region = EDU_BAR },
                                                 { .offset = EDU_BAR_SIZE, .region = EDU_BAR },
                                                 { .offset = 64, .region = VFIO_PCI_CONFIG_REGION_INDEX } },
                                      bad[] = { { .offset = EDU_BAR_SIZE + 1, .region = EDU_BAR },
                                                { .offset = 0, .region = VFIO_PCI_BAR3_REGION_INDEX },
                                                { .offset = 0, .region = VFIO_PCI_NUM_REGIONS } };
    struct ob_fixture *fixture = *state;

    ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 7);
    for (unsigned c = 0; c < 2; c++) {
        for (unsigned i = 0; i < 3; i++) {
            struct ob_raw_message *reply = NULL;

            ob_ok(ob_raw_call(&fixture->raw, commands[c], &good[i], sizeof(good[i]), NULL, 0, &reply));
            assert_int_equal(reply->size, sizeof(good[i]));
            assert_memory_equal(reply->payload, &good[i], sizeof(good[i]));
            ob_raw_message_free(reply);
            assert_int_equal(ob_raw_call(&fixture->raw, commands[c], &bad[i], sizeof(bad[i]), NULL, 0, NULL), EINVAL);
        }
    }
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~7u);
}

/* Sizes that disagree: the count, the message, and what may be transferred at once. */
static void test_lies(void **state)
{
    struct ob_fixture *fixture = *state;
    static const uint32_t reads[] = { (1 << 20) + 1, 1 << 21, INT32_MAX, UINT32_MAX, UINT32_MAX - 15 };
    struct {
        struct ob_raw_region region;
        uint8_t data[64];
    } OB_RAW_PACKED access = { .region = { .offset = EDU_LIVENESS, .region = EDU_BAR, .count = 4 } };

    ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 0x77);
    for (size_t size = 0; size < sizeof(access); size++) {
        if (size != sizeof(access.region)) {
            assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_REGION_READ, &access, size, NULL, 0, NULL), EINVAL);
        }
        if (size != sizeof(access.region) + 4) {
            assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_REGION_WRITE, &access, size, NULL, 0, NULL), EINVAL);
        }
    }
    for (size_t i = 0; i < sizeof(reads) / sizeof(*reads); i++) {
        access.region.count = reads[i];
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_REGION_READ, &access, sizeof(access.region), NULL, 0, NULL),
                         EINVAL);
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_REGION_WRITE, &access, sizeof(access), NULL, 0, NULL),
                         EINVAL);
    }
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~0x77u);
}

/* A posted request is never answered, whatever becomes of it. */
static void test_posted(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_region read = { .offset = EDU_ID, .region = EDU_BAR, .count = 4 };
    uint32_t value = 0xabcd;
    uint8_t few[3] = { 0 };

    ob_ok(ob_raw_post(&fixture->raw, EDU_BAR, EDU_LIVENESS, &value, 4));
    ob_ok(ob_raw_silent(&fixture->raw));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~value);
    ob_ok(ob_raw_post(&fixture->raw, EDU_BAR, EDU_BAR_SIZE, &value, 4));
    ob_ok(ob_raw_silent(&fixture->raw));
    ob_ok(ob_raw_post(&fixture->raw, 77, 0, &value, 4));
    ob_ok(ob_raw_silent(&fixture->raw));
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_REGION_READ, OB_RAW_NO_REPLY, &read, sizeof(read), NULL, 0, NULL));
    ob_ok(ob_raw_silent(&fixture->raw));
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_REGION_WRITE, OB_RAW_NO_REPLY, few, sizeof(few), NULL, 0, NULL));
    ob_ok(ob_raw_silent(&fixture->raw));
    ob_ok(ob_raw_request(&fixture->raw, 99, OB_RAW_NO_REPLY, NULL, 0, NULL, 0, NULL));
    ob_ok(ob_raw_silent(&fixture->raw));
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_RESET, OB_RAW_NO_REPLY, NULL, 0, NULL, 0, NULL));
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* State outlives a disconnect: it is the device's, not the client's. */
static void test_state_stays(void **state)
{
    struct ob_fixture *fixture = *state;

    ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 0xfeed);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY);
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~0xfeedu);
    assert_int_equal(ob_config16(&fixture->raw, PCI_COMMAND), PCI_COMMAND_MEMORY);
}

static void test_reset(void **state)
{
    struct ob_fixture *fixture = *state;

    ob_write32(&fixture->raw, EDU_BAR, EDU_LIVENESS, 0xfeed);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY);
    ob_ok(ob_raw_reset(&fixture->raw));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), 0);
    assert_int_equal(ob_config16(&fixture->raw, PCI_COMMAND), 0);
}

/* Work that goes on after the write was answered. */
static void test_factorial(void **state)
{
    struct ob_fixture *fixture = *state;
    uint32_t expected = 1;

    for (uint32_t n = 1; n <= 12; n++) {
        expected *= n;
        ob_write32(&fixture->raw, EDU_BAR, EDU_FACTORIAL, n);
        ob_wait_register(&fixture->raw, EDU_BAR, EDU_STATUS, EDU_STATUS_BUSY, 0);
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_FACTORIAL), expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_read_write),    OB_TEST(test_widths),
        OB_TEST(test_command_bytes), OB_TEST(test_long_config_write),
        OB_TEST(test_bounds),        OB_TEST(test_count_zero),
        OB_TEST(test_lies),          OB_TEST(test_posted),
        OB_TEST(test_state_stays),   OB_TEST(test_reset),
        OB_TEST(test_factorial),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
