/* test_negotiation: VERSION, in every form that a client may send, and in those that it may not. */
#include "fixture.h"
#include "edu_regs.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Checks the form of a VERSION reply; returns its capabilities (a new reference). */
static json_t *check_reply(struct ob_raw_message *reply, uint16_t minor)
{
    struct ob_raw_version version;
    json_t *root, *caps;

    assert_true(reply->size >= sizeof(version));
    memcpy(&version, reply->payload, sizeof(version));
    assert_int_equal(version.major, 0);
    assert_in_range(version.minor, 0, minor);
    if (reply->size == sizeof(version)) {
        return json_object();
    }
    assert_int_equal(reply->payload[reply->size - 1], 0);
    assert_int_equal(strlen((char *)reply->payload + sizeof(version)) + 1, reply->size - sizeof(version));
    root = json_loads((char *)reply->payload + sizeof(version), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    caps = json_incref(json_object_get(root, "capabilities"));
    json_decref(root);
    assert_true(json_is_object(caps));
    return caps;
}

static json_t *negotiate(struct ob_raw *raw, uint16_t minor, const char *text)
{
    struct ob_raw_message *reply = NULL;
    json_t *caps;

    ob_ok(ob_raw_version(raw, 0, minor, text, &reply));
    caps = check_reply(reply, minor);
    ob_raw_message_free(reply);
    return caps;
}

static void assert_session_works(struct ob_raw *raw)
{
    assert_int_equal(ob_read32(raw, EDU_BAR, EDU_ID), EDU_ID_VALUE);
}

/* The server goes on without VERSION having succeeded, or closes; a device it does not show. */
static void assert_no_session(struct ob_raw *raw)
{
    struct vfio_device_info info;
    int r = ob_raw_device_info(raw, &info);

    assert_true(r > 0 || r == -ENOTCONN);
}

static void test_as_qemu(void **state)
{
    struct ob_fixture *fixture = *state;
    json_t *caps = negotiate(&fixture->raw, 0, ob_raw_qemu_capabilities);

    assert_true(json_integer_value(json_object_get(caps, "max_msg_fds")) >= 1);
    assert_true(json_integer_value(json_object_get(caps, "max_data_xfer_size")) >= 4096);
    assert_true(json_integer_value(json_object_get(caps, "max_dma_maps")) == 65535);
    assert_true(json_integer_value(json_object_get(caps, "pgsizes")) & 4096);
    assert_true(json_is_true(json_object_get(caps, "write_multiple")));
    assert_false(json_is_true(json_object_get(json_object_get(caps, "twin_socket"), "supported")));
    json_decref(caps);
    assert_session_works(&fixture->raw);
}

static void test_without_json(void **state)
{
    struct ob_fixture *fixture = *state;

    json_decref(negotiate(&fixture->raw, 0, NULL));
    assert_session_works(&fixture->raw);
}

static void test_minors(void **state)
{
    static const uint16_t minors[] = { 0, 1, 2, 65535 };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(minors) / sizeof(*minors); i++) {
        json_decref(negotiate(&fixture->raw, minors[i], ob_raw_qemu_capabilities));
        assert_session_works(&fixture->raw);
        ob_fixture_reconnect(fixture);
    }
}

static void test_wrong_major(void **state)
{
    static const uint16_t majors[] = { 1, 2, 65535 };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(majors) / sizeof(*majors); i++) {
        int r = ob_raw_version(&fixture->raw, majors[i], 0, ob_raw_qemu_capabilities, NULL);

        assert_true(r > 0 || r == -ENOTCONN);
        assert_no_session(&fixture->raw);
        ob_fixture_reconnect(fixture);
    }
}

static void test_capabilities_alone(void **state)
{
    static const char *const texts[] = {
        "{}",
        "{\"capabilities\":{}}",
        "{\"capabilities\":{\"max_msg_fds\":1}}",
        "{\"capabilities\":{\"max_msg_fds\":16}}",
        "{\"capabilities\":{\"max_data_xfer_size\":4096}}",
        "{\"capabilities\":{\"max_data_xfer_size\":4294967295}}",
        "{\"capabilities\":{\"max_dma_maps\":1}}",
        "{\"capabilities\":{\"max_dma_maps\":65535}}",
        "{\"capabilities\":{\"pgsizes\":4096}}",
        "{\"capabilities\":{\"pgsizes\":2097152}}",
        "{\"capabilities\":{\"write_multiple\":true}}",
        "{\"capabilities\":{\"write_multiple\":false}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
        "{\"capabilities\":{\"migration\":{\"pgsize\":4096}}}",
        "{\"capabilities\":{\"something_of_2030\":{\"deep\":[1,2,3]}}, \"else\":null}",
    };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        json_decref(negotiate(&fixture->raw, 0, texts[i]));
        assert_session_works(&fixture->raw);
        ob_fixture_reconnect(fixture);
    }
}

/* Of page sizes and of maps the reply names what both sides can do. */
static void test_common(void **state)
{
    static const struct {
        const char *offer;
        json_int_t pages, maps;
    } cases[] = {
        { "{\"capabilities\":{\"pgsizes\":4096,\"max_dma_maps\":65535}}", 4096, 65535 },
        { "{\"capabilities\":{}}", 4096, 65535 },
        { "{\"capabilities\":{\"pgsizes\":2101248,\"max_dma_maps\":7}}", 2101248, 7 },
        { "{\"capabilities\":{\"pgsizes\":2097664,\"max_dma_maps\":0}}", 2097152, 0 },
        { "{\"capabilities\":{\"pgsizes\":65536,\"max_dma_maps\":65536}}", 65536, 65535 },
        { "{\"capabilities\":{\"pgsizes\":9223372036854775807,\"max_dma_maps\":4294967295}}", INT64_MAX - 4095, 65535 },
    };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        json_t *caps = negotiate(&fixture->raw, 0, cases[i].offer);

        assert_int_equal(json_integer_value(json_object_get(caps, "pgsizes")), cases[i].pages);
        assert_int_equal(json_integer_value(json_object_get(caps, "max_dma_maps")), cases[i].maps);
        json_decref(caps);
        assert_session_works(&fixture->raw);
        ob_fixture_reconnect(fixture);
    }
}

/* Pages smaller than any host's: no session, rather than one in which no map works. */
static void test_small_pages(void **state)
{
    static const char *const texts[] = { "{\"capabilities\":{\"pgsizes\":512}}", "{\"capabilities\":{\"pgsizes\":1}}",
                                         "{\"capabilities\":{\"pgsizes\":4095}}" };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        assert_int_equal(ob_raw_version(&fixture->raw, 0, 0, texts[i], NULL), EINVAL);
        ob_ok(ob_raw_wait_closed(&fixture->raw, NULL));
        ob_fixture_reconnect(fixture);
    }
}

/* Whoever offers twin sockets gets none, or one: never a promise without a socket. */
static void test_twin_socket(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_message *reply = NULL;
    json_t *caps, *twin;

    ob_ok(ob_raw_version(&fixture->raw, 0, 0, "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}", &reply));
    caps = check_reply(reply, 0);
    twin = json_object_get(caps, "twin_socket");
    if (json_is_true(json_object_get(twin, "supported"))) {
        json_int_t index = json_integer_value(json_object_get(twin, "fd_index"));
        int type = 0;
        socklen_t size = sizeof(type);

        assert_true(json_is_integer(json_object_get(twin, "fd_index")));
        assert_in_range(index, 0, reply->nfds - 1);
        assert_int_equal(getsockopt(reply->fds[index], SOL_SOCKET, SO_TYPE, &type, &size), 0);
    } else {
        assert_int_equal(reply->nfds, 0);
    }
    json_decref(caps);
    ob_raw_message_free(reply);
    assert_session_works(&fixture->raw);
}

/* VERSION with these bytes behind the numbers is refused, and leaves no session. */
static void refuse_bytes(struct ob_fixture *fixture, const void *bytes, size_t size)
{
    uint8_t *payload = test_calloc(1, 4 + size);
    int r;

    memcpy(payload + 4, bytes, size);
    r = ob_raw_call(&fixture->raw, OB_RAW_VERSION, payload, 4 + size, NULL, 0, NULL);
    test_free(payload);
    if (r != EINVAL && r != -ENOTCONN) {
        fail_msg("\"%.60s\" gives %d, not EINVAL", (const char *)bytes, r);
    }
    assert_no_session(&fixture->raw);
    ob_fixture_reconnect(fixture);
}

static void test_bad_json(void **state)
{
    static const char *const texts[] = {
        "",
        "garbage",
        "[]",
        "1",
        "{\"capabilities\":",
        "{\"capabilities\":[]}",
        "{\"capabilities\":1}",
        "{\"capabilities\":{\"max_msg_fds\":\"many\"}}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}",
        "{\"capabilities\":{\"max_data_xfer_size\":-1}}",
        "{\"capabilities\":{\"max_data_xfer_size\":1e99}}",
        "{\"capabilities\":{\"max_data_xfer_size\":99999999999999999999999999}}",
        "{\"capabilities\":{\"max_dma_maps\":-5}}",
        "{\"capabilities\":{\"pgsizes\":\"4k\"}}",
        "{\"capabilities\":{\"write_multiple\":1}}",
        "{\"capabilities\":{\"twin_socket\":true}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":\"yes\"}}}",
        "{\"capabilities\":{}} trailing",
    };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        refuse_bytes(fixture, texts[i], strlen(texts[i]) + 1);
    }
}

static void test_bad_bytes(void **state)
{
    static const char unterminated[] = "{\"capabilities\":{}}", embedded[] = "{\"capabilities\":{}}\0{}";
    struct ob_fixture *fixture = *state;
    size_t size = 1 << 20;
    char *deep = test_malloc(size);

    refuse_bytes(fixture, unterminated, sizeof(unterminated) - 1);
    refuse_bytes(fixture, embedded, sizeof(embedded));
    refuse_bytes(fixture, "\xff\xfe{}", 5);
    memset(deep, '[', size);
    deep[3000] = 0;
    refuse_bytes(fixture, deep, 3001);
    deep[3000] = '[';
    deep[size - 1] = 0;
    refuse_bytes(fixture, deep, size);
    memset(deep, '{', size - 1);
    refuse_bytes(fixture, deep, size);
    test_free(deep);
}

static void test_short(void **state)
{
    struct ob_fixture *fixture = *state;

    for (size_t size = 0; size < 4; size++) {
        int r = ob_raw_call(&fixture->raw, OB_RAW_VERSION, "\0\0\0", size, NULL, 0, NULL);

        assert_true(r == EINVAL || r == -ENOTCONN);
        assert_no_session(&fixture->raw);
        ob_fixture_reconnect(fixture);
    }
}

/* A client's limit of 0 bytes: nothing could ever be read. Refused, or a session in which commands still work. */
static void test_zero_limits(void **state)
{
    static const char *const texts[] = { "{\"capabilities\":{\"max_data_xfer_size\":0}}",
                                         "{\"capabilities\":{\"max_msg_fds\":0}}",
                                         "{\"capabilities\":{\"max_dma_maps\":0}}",
                                         "{\"capabilities\":{\"pgsizes\":0}}" };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        int r = ob_raw_version(&fixture->raw, 0, 0, texts[i], NULL);

        if (r == 0) {
            ob_ok(ob_raw_silent(&fixture->raw));
        } else {
            assert_true(r == EINVAL || r == -ENOTCONN);
        }
        ob_fixture_reconnect(fixture);
    }
}

static void test_second_version(void **state)
{
    struct ob_fixture *fixture = *state;

    ob_ok(ob_raw_handshake(&fixture->raw));
    assert_true(ob_raw_handshake(&fixture->raw) > 0);
    assert_session_works(&fixture->raw);
}

static void test_command_before_version(void **state)
{
    static const uint16_t commands[] = { OB_RAW_GET_INFO, OB_RAW_RESET, OB_RAW_REGION_READ, OB_RAW_DMA_MAP, 99 };
    struct ob_fixture *fixture = *state;
    uint8_t payload[64] = { 16 };

    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        size_t size = commands[i] == OB_RAW_RESET ? 0 : commands[i] == OB_RAW_DMA_MAP ? 32 : 16;
        int r = ob_raw_call(&fixture->raw, commands[i], payload, size, NULL, 0, NULL);

        assert_true(r > 0 || r == -ENOTCONN);
        ob_fixture_reconnect(fixture);
    }
}

static void test_byte_by_byte(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t bytes[512], payload[400] = { 0 };
    size_t size = strlen(ob_raw_qemu_capabilities) + 1;

    memcpy(payload + 4, ob_raw_qemu_capabilities, size);
    size = ob_raw_build(bytes, 7, OB_RAW_VERSION, 0, payload, 4 + size);
    for (size_t i = 0; i < size; i++) {
        ob_ok(ob_raw_send(&fixture->raw, bytes + i, 1, NULL, 0));
    }
    ob_ok(ob_raw_reply(&fixture->raw, 7, OB_RAW_VERSION, NULL));
    assert_session_works(&fixture->raw);
}

/* Everything that QEMU would send at start, before it has read anything. */
static void test_pipelined_with_version(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t payload[400] = { 0 };
    size_t size = strlen(ob_raw_qemu_capabilities) + 1;
    const uint32_t info[4] = { 16 };
    uint16_t first, second;

    memcpy(payload + 4, ob_raw_qemu_capabilities, size);
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_VERSION, 0, payload, 4 + size, NULL, 0, &first));
    ob_ok(ob_raw_request(&fixture->raw, OB_RAW_GET_INFO, 0, info, sizeof(info), NULL, 0, &second));
    ob_ok(ob_raw_reply(&fixture->raw, first, OB_RAW_VERSION, NULL));
    ob_ok(ob_raw_reply(&fixture->raw, second, OB_RAW_GET_INFO, NULL));
}

/* Descriptors have no place with VERSION. */
static void test_descriptors(void **state)
{
    struct ob_fixture *fixture = *state;
    uint8_t payload[4] = { 0 };
    int fds[2] = { ob_event_new(), ob_event_new() };
    int r = ob_raw_call(&fixture->raw, OB_RAW_VERSION, payload, sizeof(payload), fds, 2, NULL);

    close(fds[0]);
    close(fds[1]);
    assert_true(r == 0 || r == EINVAL || r == -ENOTCONN);
}

static void test_silent_client_leaves(void **state)
{
    struct ob_fixture *fixture = *state;

    for (int i = 0; i < 100; i++) {
        ob_fixture_reconnect(fixture);
    }
    ob_ok(ob_raw_handshake(&fixture->raw));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST_BARE(test_as_qemu),
        OB_TEST_BARE(test_without_json),
        OB_TEST_BARE(test_minors),
        OB_TEST_BARE(test_wrong_major),
        OB_TEST_BARE(test_capabilities_alone),
        OB_TEST_BARE(test_common),
        OB_TEST_BARE(test_small_pages),
        OB_TEST_BARE(test_twin_socket),
        OB_TEST_BARE(test_bad_json),
        OB_TEST_BARE(test_bad_bytes),
        OB_TEST_BARE(test_short),
        OB_TEST_BARE(test_zero_limits),
        OB_TEST_BARE(test_second_version),
        OB_TEST_BARE(test_command_before_version),
        OB_TEST_BARE(test_byte_by_byte),
        OB_TEST_BARE(test_pipelined_with_version),
        OB_TEST_BARE(test_descriptors),
        OB_TEST_BARE(test_silent_client_leaves),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
