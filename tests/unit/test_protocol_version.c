/* The text of VERSION: what peers send, what is missing, and what nobody honest would send. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "protocol/version.h"

static char why[128];

/* In a block that ends with the text, so that the sanitizer sees a byte too many. */
static int parse_bytes(struct ob_capabilities *caps, const char *text, size_t size)
{
    char *block = malloc(size ? size : 1);
    int err;

    assert_non_null(block);
    memcpy(block, text, size);
    memset(why, 'x', sizeof(why));
    err = ob_version_parse(caps, block, size, why, sizeof(why));
    free(block);
    assert_non_null(memchr(why, '\0', sizeof(why)));
    assert_int_equal(err == 0, why[0] == '\0');
    return err;
}

static int parse(struct ob_capabilities *caps, const char *text)
{
    return parse_bytes(caps, text, strlen(text) + 1);
}

static void assert_default(const struct ob_capabilities *caps)
{
    assert_int_equal(caps->max_msg_fds, 1);
    assert_int_equal(caps->max_data_xfer_size, 1048576);
    assert_int_equal(caps->max_dma_maps, 65535);
    assert_int_equal(caps->pgsizes, 4096);
    assert_false(caps->write_multiple);
    assert_false(caps->twin_socket.supported);
    assert_int_equal(caps->twin_socket.fd_index, -1);
}

static void test_absent(void **unused)
{
    const char *const texts[] = { "{}", "{\"capabilities\":{}}", "{\"else\":[1,2,{\"x\":null}]}",
                                  "{\"capabilities\":{\"unheard_of\":[]}}", " { } \n" };
    struct ob_capabilities caps;

    memset(&caps, 0x55, sizeof(caps));
    assert_int_equal(parse_bytes(&caps, "", 0), 0);
    assert_default(&caps);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        memset(&caps, 0x55, sizeof(caps));
        assert_int_equal(parse(&caps, texts[i]), 0);
        assert_default(&caps);
    }
}

static void test_qemu(void **unused)
{
    struct ob_capabilities caps;

    assert_int_equal(parse(&caps, "{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,"
                                  "\"max_data_xfer_size\":1048576,\"migration\":{\"max_bitmap_size\":268435456,"
                                  "\"pgsize\":4096},\"write_multiple\":true}}"),
                     0);
    assert_int_equal(caps.max_msg_fds, 16);
    assert_true(caps.write_multiple);
    assert_int_equal(caps.migration.max_bitmap_size, 268435456);
    assert_int_equal(parse(&caps, "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":2}}}"), 0);
    assert_true(caps.twin_socket.supported);
    assert_int_equal(caps.twin_socket.fd_index, 2);
}

static void test_hostile(void **unused)
{
    static const struct {
        const char *text, *complaint;
    } cases[] = {
        { "", "not JSON" },
        { "{", "not JSON" },
        { "{}x", "not JSON" },
        { "[]", "JSON object" },
        { "null", "not JSON" },
        { "{\"capabilities\":[]}", "capabilities has to be an object" },
        { "{\"capabilities\":null}", "capabilities has to be an object" },
        { "{\"capabilities\":{\"max_msg_fds\":\"8\"}}", "max_msg_fds has to be a whole number" },
        { "{\"capabilities\":{\"max_msg_fds\":8.5}}", "max_msg_fds has to be a whole number" },
        { "{\"capabilities\":{\"max_msg_fds\":true}}", "max_msg_fds has to be a whole number" },
        { "{\"capabilities\":{\"max_msg_fds\":null}}", "max_msg_fds has to be a whole number" },
        { "{\"capabilities\":{\"max_msg_fds\":-1}}", "max_msg_fds is -1" },
        { "{\"capabilities\":{\"max_msg_fds\":4294967296}}", "max_msg_fds is 4294967296" },
        { "{\"capabilities\":{\"max_msg_fds\":99999999999999999999}}", "not JSON" },
        { "{\"capabilities\":{\"max_msg_fds\":1e999}}", "not JSON" },
        { "{\"capabilities\":{\"max_data_xfer_size\":0}}", "max_data_xfer_size is 0" },
        { "{\"capabilities\":{\"max_data_xfer_size\":1e6}}", "max_data_xfer_size has to be a whole number" },
        { "{\"capabilities\":{\"max_dma_maps\":-9223372036854775808}}", "max_dma_maps is -9223372036854775808" },
        { "{\"capabilities\":{\"pgsizes\":0}}", "pgsizes is 0" },
        { "{\"capabilities\":{\"write_multiple\":1}}", "write_multiple has to be true or false" },
        { "{\"capabilities\":{\"twin_socket\":true}}", "twin_socket has to be an object" },
        { "{\"capabilities\":{\"twin_socket\":{\"supported\":1}}}", "supported has to be true or false" },
        { "{\"capabilities\":{\"twin_socket\":{\"fd_index\":-1}}}", "fd_index is -1" },
        { "{\"capabilities\":{\"twin_socket\":{\"fd_index\":2147483648}}}", "fd_index is 2147483648" },
        { "{\"capabilities\":{\"migration\":7}}", "migration has to be an object" },
        { "{\"capabilities\":{\"migration\":{\"pgsize\":0}}}", "pgsize is 0" },
        { "{\"capabilities\":{\"migration\":{\"pgsize\":4097}}}", "power of two" },
        { "{\"capabilities\":{\"migration\":{\"max_bitmap_size\":-1}}}", "max_bitmap_size is -1" },
        { "{\"capabilities\":{},\"capabilities\":{}}", "not JSON" },
        { "{\"capabilities\":{\"max_msg_fds\":1,\"max_msg_fds\":2}}", "not JSON" },
        { "{\"capabilities\":{\"a\\u0000b\":1}}", "not JSON" },
        { "{\"\xff\xfe\":1}", "not JSON" },
    };
    struct ob_capabilities caps, before;

    memset(&caps, 0x55, sizeof(caps));
    before = caps;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse(&caps, cases[i].text), -EINVAL);
        assert_non_null(strstr(why, cases[i].complaint));
        assert_memory_equal(&caps, &before, sizeof(caps));
    }
    assert_int_equal(parse_bytes(&caps, "{}", 2), -EINVAL);
    assert_non_null(strstr(why, "does not end in NUL"));
    assert_int_equal(parse_bytes(&caps, "{}\0{}", 6), -EINVAL);
    assert_non_null(strstr(why, "NUL at byte 2 of 6"));
    assert_int_equal(ob_version_parse(&caps, "x", 2, NULL, 0), -EINVAL);
}

static void test_size_and_depth(void **unused)
{
    static char text[OB_VERSION_MAX_TEXT + 1];
    struct ob_capabilities caps;

    memset(text, ' ', sizeof(text));
    memcpy(text, "{}", 2);
    text[OB_VERSION_MAX_TEXT - 1] = '\0';
    assert_int_equal(parse_bytes(&caps, text, OB_VERSION_MAX_TEXT), 0);
    text[OB_VERSION_MAX_TEXT - 1] = ' ';
    text[OB_VERSION_MAX_TEXT] = '\0';
    assert_int_equal(parse_bytes(&caps, text, OB_VERSION_MAX_TEXT + 1), -EINVAL);
    memset(text, '[', OB_VERSION_MAX_TEXT - 1);
    text[OB_VERSION_MAX_TEXT - 1] = '\0';
    assert_int_equal(parse_bytes(&caps, text, OB_VERSION_MAX_TEXT), -EINVAL);
}

static void test_encode(void **unused)
{
    struct ob_capabilities caps = ob_capabilities_default, got;
    char text[OB_VERSION_MAX_TEXT];
    ssize_t size;

    caps.max_msg_fds = 8;
    caps.max_data_xfer_size = UINT32_MAX;
    caps.pgsizes = UINT64_C(1) << 62 | 4096;
    caps.write_multiple = true;
    for (int twin = 0; twin < 3; twin++) {
        caps.twin_socket.supported = twin > 0;
        caps.twin_socket.fd_index = twin > 1 ? 0 : -1;
        size = ob_version_encode(text, sizeof(text), &caps);
        assert_true(size > 0);
        assert_int_equal(strlen(text) + 1, size);
        assert_int_equal(parse_bytes(&got, text, (size_t)size), 0);
        assert_int_equal(got.max_msg_fds, caps.max_msg_fds);
        assert_int_equal(got.max_data_xfer_size, caps.max_data_xfer_size);
        assert_int_equal(got.max_dma_maps, caps.max_dma_maps);
        assert_int_equal(got.pgsizes, caps.pgsizes);
        assert_int_equal(got.write_multiple, caps.write_multiple);
        assert_int_equal(got.twin_socket.supported, caps.twin_socket.supported);
        assert_int_equal(got.twin_socket.fd_index, caps.twin_socket.fd_index);
        assert_int_equal(got.migration.pgsize, caps.migration.pgsize);
        assert_int_equal(got.migration.max_bitmap_size, caps.migration.max_bitmap_size);
        assert_int_equal(ob_version_encode(text, (size_t)size, &caps), size);
        assert_int_equal(ob_version_encode(text, (size_t)size - 1, &caps), -ENOBUFS);
        assert_int_equal(ob_version_encode(text, 0, &caps), -ENOBUFS);
    }
    caps.max_data_xfer_size = 0;
    assert_int_equal(ob_version_encode(text, sizeof(text), &caps), -EINVAL);
    caps = ob_capabilities_default;
    caps.pgsizes = UINT64_MAX;
    assert_int_equal(ob_version_encode(text, sizeof(text), &caps), -EINVAL);
    caps = ob_capabilities_default;
    caps.migration.pgsize = 5;
    assert_int_equal(ob_version_encode(text, sizeof(text), &caps), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent),         cmocka_unit_test(test_qemu),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_size_and_depth), cmocka_unit_test(test_encode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
