/* test_multi: REGION_WRITE_MULTI, its counts and its lies. */
#include "fixture.h"
#include "edu_regs.h"

#include <string.h>

static struct ob_raw_one_write one(uint32_t region, uint64_t offset, uint32_t count, uint64_t value)
{
    struct ob_raw_one_write write = { .offset = offset, .region = region, .count = count };

    memcpy(write.data, &value, sizeof(value));
    return write;
}

static struct ob_raw_one_write liveness(uint32_t value)
{
    return one(EDU_BAR, EDU_LIVENESS, 4, value);
}

static void test_writes(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_one_write writes[200];
    uint64_t done = 0;

    for (uint32_t i = 0; i < 200; i++) {
        writes[i] = i % 2 == 0 ? one(EDU_BAR, EDU_IRQ_RAISE, 4, 1u << (i / 2 % 16)) : liveness(i);
    }
    for (uint64_t count = 1; count <= 200; count += count < 4 ? 1 : 49) {
        ob_ok(ob_raw_reset(&fixture->raw));
        ob_ok(ob_raw_write_multi(&fixture->raw, writes, count, &done));
        assert_int_equal(done, count);
        /* The last odd index below count wrote liveness. */
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS),
                         count < 2 ? 0 : ~(uint32_t)(count / 2 * 2 - 1));
        assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_IRQ_STATUS),
                         (count + 1) / 2 >= 16 ? 0xffffu : (1u << ((count + 1) / 2)) - 1);
    }
}

/* Registers of a BAR and of configuration space in one message, in their order. */
static void test_mixed_regions(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_one_write writes[] = { liveness(1),
                                         one(VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2, PCI_COMMAND_MEMORY),
                                         liveness(2), one(VFIO_PCI_CONFIG_REGION_INDEX, PCI_INTERRUPT_LINE, 1, 0x5a),
                                         one(VFIO_PCI_CONFIG_REGION_INDEX, PCI_BASE_ADDRESS_0, 8, 0xffffffffe0000000) };
    uint64_t done = 0;
    uint8_t line;

    ob_ok(ob_raw_write_multi(&fixture->raw, writes, 5, &done));
    assert_int_equal(done, 5);
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~2u);
    assert_int_equal(ob_config16(&fixture->raw, PCI_COMMAND), PCI_COMMAND_MEMORY);
    ob_ok(ob_raw_read(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, PCI_INTERRUPT_LINE, &line, 1));
    assert_int_equal(line, 0x5a);
    assert_int_equal(ob_read32(&fixture->raw, VFIO_PCI_CONFIG_REGION_INDEX, PCI_BASE_ADDRESS_0), 0xe0000000);
}

static void test_none(void **state)
{
    struct ob_fixture *fixture = *state;
    uint64_t done = 1;
    int r = ob_raw_write_multi(&fixture->raw, NULL, 0, &done);

    assert_true((r == 0 && done == 0) || r == EINVAL);
    ob_ok(ob_raw_silent(&fixture->raw));
}

/* The count and the message disagree: nothing is written. */
static void test_lies(void **state)
{
    static const uint64_t counts[] = {
        0, 1, 3, 4, 1ull << 32, 1ull << 61, 0xaaaaaaaaaaaaaacull, UINT64_MAX, UINT64_MAX / 24 + 1, UINT64_MAX / 24 + 3
    };
    struct ob_fixture *fixture = *state;
    struct {
        uint64_t count;
        struct ob_raw_one_write writes[2];
    } OB_RAW_PACKED payload = { .writes = { liveness(1), liveness(2) } };

    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        payload.count = counts[i];
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_WRITE_MULTI, &payload, sizeof(payload), NULL, 0, NULL),
                         EINVAL);
    }
    payload.count = 2;
    for (size_t size = 0; size < sizeof(payload); size++) {
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_WRITE_MULTI, &payload, size, NULL, 0, NULL), EINVAL);
    }
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), 0);
    ob_ok(ob_raw_call(&fixture->raw, OB_RAW_WRITE_MULTI, &payload, sizeof(payload), NULL, 0, NULL));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~2u);
}

/* One of the writes cannot be done: those before it were, those behind it were not. */
static void test_fails_in_the_middle(void **state)
{
    struct ob_fixture *fixture = *state;
    const struct ob_raw_one_write bad[] = {
        one(EDU_BAR, EDU_BAR_SIZE, 4, 0),
        one(EDU_BAR, UINT64_MAX - 1, 4, 0),
        one(77, 0, 4, 0),
        one(VFIO_PCI_ROM_REGION_INDEX, 0, 4, 0),
        one(EDU_BAR, EDU_LIVENESS, 9, 0),
        one(EDU_BAR, EDU_LIVENESS, UINT32_MAX, 0),
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct ob_raw_one_write writes[] = { one(EDU_BAR, EDU_IRQ_RAISE, 4, 1), bad[i],
                                             one(EDU_BAR, EDU_IRQ_RAISE, 4, 2) };
        uint64_t done = 3;
        uint32_t raised;
        int r;

        ob_ok(ob_raw_reset(&fixture->raw));
        r = ob_raw_write_multi(&fixture->raw, writes, 3, &done);
        raised = ob_read32(&fixture->raw, EDU_BAR, EDU_IRQ_STATUS);
        assert_true(r == EINVAL || (r == 0 && done < 3));
        assert_int_equal(raised & 2, 0);
        if (r == 0) {
            assert_int_equal(raised, done == 1);
        }
    }
}

static void test_posted(void **state)
{
    struct ob_fixture *fixture = *state;
    struct {
        uint64_t count;
        struct ob_raw_one_write writes[3];
    } OB_RAW_PACKED payload = { 3, { liveness(1), one(77, 0, 4, 0), liveness(3) } };

    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_WRITE_MULTI, OB_RAW_NO_REPLY, &payload, sizeof(payload), NULL, 0, NULL));
    ob_ok(ob_raw_silent(&fixture->raw));
    payload.writes[1] = liveness(2);
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_WRITE_MULTI, OB_RAW_NO_REPLY, &payload, sizeof(payload), NULL, 0, NULL));
    assert_int_equal(ob_read32(&fixture->raw, EDU_BAR, EDU_LIVENESS), ~3u);
    payload.count = 1000;
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_WRITE_MULTI, OB_RAW_NO_REPLY, &payload, sizeof(payload), NULL, 0, NULL));
    ob_ok(ob_raw_silent(&fixture->raw));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_writes), OB_TEST(test_mixed_regions),       OB_TEST(test_none),
        OB_TEST(test_lies),   OB_TEST(test_fails_in_the_middle), OB_TEST(test_posted),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
