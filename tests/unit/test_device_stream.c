/* Streams of migration data: in pieces of any size, cut and changed at every byte, from other versions and other
 * devices, refused by the class. */
#include "mover.h"

/* --- Streams ----------------------------------------------------------------------------------------------------- */

static void check_filled(struct bench *b)
{
    assert_int_equal(read4(b, VALUE), 0x11223344);
    assert_int_equal(bench_read(b, 0, WIDE, 8), 0x8877665544332211u);
    assert_int_equal(bench_read(b, 1, 0x10, 4), 0xabcdef);
    assert_int_equal(bench_read(b, 1, 0x1ffc, 4), 0x123456);
    assert_int_equal(bench_read(b, 5, 0x10, 4), 0xfee00000);
    assert_int_equal(bench_read(b, 5, 0x1c, 4), 0);
    assert_int_equal(bench_read(b, CONFIG, PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void test_any_pieces(void **unused)
{
    static const uint32_t pieces[] = { 1, 7, 24, 25, 64, 4096, 100000 };
    struct bench b;
    uint8_t *data;
    size_t size;

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        bench_start(&b, &ob_class_mover, NULL);
        fill(&b);
        /* With a beginning in PRE_COPY, which reads on where it stopped. */
        uint8_t first[4096];
        uint32_t n = 0, more;
        ok(mig_set_state(&b.raw, MIG_PRE_COPY));
        ok(mig_read(&b.raw, first, sizeof(first), &n));
        assert_true(n > 24 && n < sizeof(first));
        ok(mig_read(&b.raw, first + n, 100, &more));
        assert_int_equal(more, 0);
        ok(mig_set_state(&b.raw, MIG_STOP_COPY));
        ok(mig_read_all(&b.raw, pieces[i], &data, &size));
        bench_stop(&b);
        bench_start(&b, &ob_class_mover, NULL);
        ok(mig_set_state(&b.raw, MIG_RESUMING));
        ok(mig_write(&b.raw, first, n));
        ok(mig_write_all(&b.raw, pieces[i], data, size));
        assert_int_equal(mig_write(&b.raw, data, 1), EINVAL); /* behind the end */
        ok(mig_set_state(&b.raw, MIG_RUNNING));
        check_filled(&b);
        assert_int_equal(read4(&b, INDEX), 5);
        assert_int_equal(read4(&b, SHARED), 77);
        free(data);
        bench_stop(&b);
    }
}

static void test_every_truncation(void **unused)
{
    struct bench b;

    bench_start(&b, &ob_class_mover, NULL);
    capture_begin();
    for (size_t n = 0; n < whole_size; n += n < 1500 || n + 40 > whole_size ? 1 : 97) {
        assert_int_not_equal(load(&b, whole, n), 0);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, VALUE), 7);
        assert_int_equal(read4(&b, SHARED), 0);
    }
    free(capture_end());
    ok(load(&b, whole, whole_size));
    bench_stop(&b);
}

/* One bit of every byte: a flip of any single word is found. */
static void test_every_flip(void **unused)
{
    struct bench b;
    uint32_t seed = 12345;

    bench_start(&b, &ob_class_mover, NULL);
    capture_begin();
    for (size_t i = 0; i < whole_size; i += i < 1500 || i + 40 > whole_size ? 1 : 61) {
        seed = seed * 1103515245 + 12345;
        whole[i] ^= (uint8_t)(1u << (seed >> 16) % 8);
        assert_int_not_equal(load(&b, whole, whole_size), 0);
        whole[i] = whole[i] ^ (uint8_t)(1u << (seed >> 16) % 8);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, SHARED), 0);
    }
    free(capture_end());
    ok(load(&b, whole, whole_size));
    bench_stop(&b);
}

static void make_sum_right(uint8_t *data, size_t size)
{
    struct ob_stream_end end = { .magic = OB_STREAM_END };
    struct ob_sum sum;

    ob_sum_begin(&sum);
    ob_sum_add(&sum, data, size - sizeof(end));
    end.sum = ob_sum_end(&sum);
    memcpy(data + size - sizeof(end), &end, sizeof(end));
}

/* With a checksum that is right: the checks of what it covers have to hold. */
static void test_hostile_heads(void **unused)
{
    struct bench b;
    uint32_t seed = 4711;
    unsigned taken = 0;
    uint8_t *data = malloc(whole_size);

    assert_non_null(data);
    bench_start(&b, &ob_class_mover, NULL);
    capture_begin();
    for (unsigned round = 0; round < 2000; round++) {
        memcpy(data, whole, whole_size);
        for (unsigned n = round % 4 + 1; n > 0; n--) {
            seed = seed * 1103515245 + 12345;
            size_t at = (seed >> 8) % 1500;
            seed = seed * 1103515245 + 12345;
            static const uint8_t values[] = { 0, 1, 8, 0x7f, 0x80, 0xff };
            data[at] = values[(seed >> 16) % sizeof(values)];
        }
        make_sum_right(data, whole_size);
        ok(mig_set_state(&b.raw, MIG_RESUMING));
        int err = mig_write_all(&b.raw, 100000, data, whole_size), end = mig_set_state(&b.raw, MIG_RUNNING);
        assert_true(!err || end);
        taken += !end;
        if (!end)
            assert_in_range(read4(&b, INDEX), 0, 7);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, VALUE), 7);
    }
    free(capture_end());
    assert_in_range(taken, 1, 1999);
    free(data);
    bench_stop(&b);
}

static void refused(const struct ob_device_class *from, const struct ob_device_class *to, const char *why)
{
    struct bench b;
    size_t size;

    bench_start(&b, from, NULL);
    uint8_t *data = stream_of(&b, &size);
    bench_stop(&b);
    bench_start(&b, to, NULL);
    capture_begin();
    assert_int_not_equal(load(&b, data, size), 0);
    char *said = capture_end();
    if (!strstr(said, why))
        fail_msg("it said \"%s\", not \"%s\"", said, why);
    free(said);
    free(data);
    bench_stop(&b);
}

static void test_versions(void **unused)
{
    const struct ob_device_class two = like_mover(&ob_class_mover2), small = like_mover(&ob_class_narrow),
                                 lack = like_mover(&ob_class_lacks);
    struct bench b;

    /* The next version takes the stream of the first; what that did not have holds its reset value. */
    bench_start(&b, &two, NULL);
    write4(&b, LATE, 1);
    ok(load(&b, whole, whole_size));
    ok(mig_set_state(&b.raw, MIG_RUNNING));
    check_filled(&b);
    assert_int_equal(read4(&b, LATE), 99);
    bench_stop(&b);
    refused(&two, &ob_class_mover, "late");
    refused(&ob_class_mover, &small, "wide");
    refused(&ob_class_mover, &lack, "raw");
    refused(&lack, &ob_class_mover, "raw");
    refused(&ob_class_stranger, &ob_class_mover, "stranger");
    struct ob_device_class larger = ob_class_mover, other = ob_class_mover;
    larger.bars[1].size = 0x4000;
    refused(&larger, &ob_class_mover, "BAR1");
    other.pci.revision = 3;
    refused(&other, &ob_class_mover, "byte 0x8");
    other = ob_class_mover;
    other.irqs.msix = 3;
    refused(&other, &ob_class_mover, "vectors");
}

static void test_class_refuses(void **unused)
{
    struct bench b;
    size_t size;

    for (int i = 0; i < 2; i++) {
        bench_start(&b, &ob_class_mover, NULL);
        write4(&b, i ? SHARED : INDEX, 1000);
        uint8_t *data = stream_of(&b, &size);
        bench_stop(&b);
        bench_start(&b, &ob_class_mover, NULL);
        write4(&b, SHARED, 3);
        capture_begin();
        assert_int_equal(load(&b, data, size), ERANGE);
        free(capture_end());
        free(data);
        assert_int_equal(mig_set_state(&b.raw, MIG_RUNNING), EINVAL);
        ok(ob_raw_reset(&b.raw));
        assert_int_equal(read4(&b, VALUE), 7); /* of neither */
        assert_int_equal(read4(&b, INDEX), 0);
        assert_int_equal(read4(&b, SHARED), 3); /* put back */
        bench_stop(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_pieces), cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_flip), cmocka_unit_test(test_hostile_heads),
        cmocka_unit_test(test_versions),   cmocka_unit_test(test_class_refuses),
    };

    make_whole();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(whole);
    return failed;
}
