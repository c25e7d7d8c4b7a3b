/* The client library against servers that lie, each lie once: it is found out, costs nothing, and is told in a line. */
#include "client_script.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

static struct script *script_new(script_hook *hook, void *ctx)
{
    struct script *script = calloc(1, sizeof(*script));

    assert_non_null(script);
    script_start(script, hook);
    script->ctx = ctx;
    return script;
}

static void finish(struct script *script, struct ob_client *client)
{
    script_end(script, client);
    free(script);
}

/* --- While connecting -------------------------------------------------------------------------------------------- */

static int no_dma(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    return -EIO;
}

/* A server that ends the connection by what `hook` does is refused with that error. */
static void expect_refusal(script_hook *hook, void *ctx, const char *capabilities, int err)
{
    struct script *script = script_new(hook, ctx);
    char why[256] = "";

    script->capabilities = capabilities;
    assert_int_equal(script_refused(script, &(struct ob_client_options){ .dma = no_dma }, why, sizeof(why)), err);
    assert_string_not_equal(why, "");
    finish(script, NULL);
}

static void test_bad_capabilities(void **state)
{
    static const char *const texts[] = {
        "{",
        "[]",
        "{\"capabilities\":7}",
        "{\"capabilities\":{\"max_msg_fds\":\"8\"}}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}",
        "{\"capabilities\":{\"max_data_xfer_size\":0}}",
        "{\"capabilities\":{\"pgsizes\":8192}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect_refusal(NULL, NULL, texts[i], -EPROTO);
}

static bool other_version(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                          unsigned nfds)
{
    if (header->command == OB_VERSION)
        script_reply(script, header, script->ctx, sizeof(struct ob_wire_version), NULL, 0);
    return header->command == OB_VERSION;
}

static bool refuse_version(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                           unsigned nfds)
{
    script_refuse(script, header, EBUSY);
    return true;
}

static bool hang_up(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                    unsigned nfds)
{
    shutdown(script->fd, SHUT_RDWR);
    return true;
}

static void test_other_versions(void **state)
{
    expect_refusal(other_version, &(struct ob_wire_version){ 1, 0 }, NULL, -EPROTONOSUPPORT);
    expect_refusal(other_version, &(struct ob_wire_version){ 0, 1 }, NULL, -EPROTONOSUPPORT);
    expect_refusal(refuse_version, NULL, NULL, -EBUSY);
    expect_refusal(hang_up, NULL, NULL, -ENOTCONN);
}

static bool answer_info(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                        unsigned nfds)
{
    if (header->command == OB_DEVICE_GET_INFO)
        script_reply(script, header, script->ctx, sizeof(struct ob_wire_device_info), NULL, 0);
    return header->command == OB_DEVICE_GET_INFO;
}

static void test_too_many_of_everything(void **state)
{
    expect_refusal(answer_info, &(struct ob_wire_device_info){ 16, 2, OB_CLIENT_MAX_REGIONS + 1, 5 }, NULL, -EPROTO);
    expect_refusal(answer_info, &(struct ob_wire_device_info){ 16, 2, 9, UINT32_MAX }, NULL, -EPROTO);
    expect_refusal(answer_info, &(struct ob_wire_device_info){ 8, 2, 9, 5 }, NULL, -EPROTO);
}

/* --- Regions ----------------------------------------------------------------------------------------------------- */

struct area {
    uint64_t offset, size;
};
struct description {
    struct vfio_region_info info;
    struct vfio_info_cap_header cap;
    uint32_t nr_areas, reserved;
    struct area area[4];
};
struct lie {
    struct description description;
    size_t size; /* of it that is sent */
    int fd;      /* sent with it; -1: none */
    unsigned fds;
};

static bool answer_region(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                          unsigned nfds)
{
    struct vfio_region_info asked;
    const struct lie *lie = script->ctx;
    int copies[4] = { lie->fd, lie->fd, lie->fd, lie->fd };

    if (header->command != OB_DEVICE_GET_REGION_INFO)
        return false;
    memcpy(&asked, payload, sizeof(asked));
    if (asked.index != 0)
        return false;
    script_reply(script, header, &lie->description, lie->size, copies, lie->fds);
    return true;
}

static struct lie plain_region(int fd, unsigned areas)
{
    struct lie lie = { .fd = fd, .fds = fd >= 0, .size = sizeof(struct vfio_region_info) };

    if (areas > 0)
        lie.size = offsetof(struct description, area) + areas * sizeof(struct area);
    lie.description = (struct description){
        .info = { .argsz = (uint32_t)lie.size,
                  .flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP |
                           (areas ? VFIO_REGION_INFO_FLAG_CAPS : 0u),
                  .cap_offset = areas ? sizeof(struct vfio_region_info) : 0,
                  .size = 65536 },
        .cap = { .id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1 },
        .nr_areas = areas,
        .area = { { 0x8000, 0x1000 }, { 0, 0x2000 }, { 0x4000, 0x1000 }, { 0x6000, 0x1000 } },
    };
    return lie;
}

static void refuse_region(struct lie lie)
{
    expect_refusal(answer_region, &lie, NULL, -EPROTO);
}

static void test_broken_descriptions(void **state)
{
    int fd = memfd_create("bar", MFD_CLOEXEC);
    struct lie lie = plain_region(fd, 2);

    ok(ftruncate(fd, 65536));
    lie.description.cap.next = sizeof(struct vfio_region_info); /* a loop */
    refuse_region(lie);
    lie.description.cap.next = 4000; /* outside */
    refuse_region(lie);
    lie = plain_region(fd, 2);
    lie.description.info.cap_offset = 8; /* in the fixed part */
    refuse_region(lie);
    lie = plain_region(fd, 2);
    lie.description.nr_areas = UINT32_MAX;
    refuse_region(lie);
    lie = plain_region(fd, 2);
    lie.description.info.argsz = 16;
    refuse_region(lie);
    lie = plain_region(fd, 2);
    lie.description.info.index = 5; /* another's */
    refuse_region(lie);
    lie = plain_region(fd, 2);
    lie.description.area[1] = (struct area){ 0xf000, 0x2000 }; /* outside the region */
    refuse_region(lie);
    lie.description.area[1] = (struct area){ UINT64_MAX - 0xfff, 0x2000 }; /* wraps */
    refuse_region(lie);
    lie.description.area[1] = (struct area){ 0x7000, 0x2000 }; /* overlaps */
    refuse_region(lie);
    lie = plain_region(fd, 2);
    lie.fds = 3;
    refuse_region(lie);
    close(fd);
}

static void test_areas_in_any_order(void **state)
{
    int fd = memfd_create("bar", MFD_CLOEXEC);
    struct lie lie = plain_region(fd, 4);
    struct script *script;
    struct ob_client *client;
    const struct ob_client_region *region;
    uint32_t value = 0x55, seen = 0;

    ok(ftruncate(fd, 65536));
    lie.description.area[3] = (struct area){ 0x6100, 0x1000 }; /* not in pages: left out */
    script = script_new(answer_region, &lie);
    client = script_client(script, NULL);
    ok(ob_client_region(client, 0, &region));
    assert_int_equal(region->areas, 3);
    for (uint32_t i = 1; i < region->areas; i++)
        assert_true(region->area[i - 1].offset + region->area[i - 1].size <= region->area[i].offset);
    assert_int_equal(ob_client_map(client, 0), 3);
    assert_int_equal(ob_client_map(client, 0), 3);
    ok(ob_client_write(client, 0, 0x4000, &value, 4, NULL));
    assert_int_equal(pread(fd, &seen, 4, 0x4000), 4);
    assert_int_equal(seen, 0x55);
    assert_int_equal(atomic_load(&script->commands[OB_REGION_WRITE]), 0);
    /* Across the end of an area: half goes there, half by a message. */
    uint8_t bytes[16] = "0123456789abcdef";
    ok(ob_client_write(client, 0, 0x2000 - 8, bytes, 16, NULL));
    assert_int_equal(atomic_load(&script->commands[OB_REGION_WRITE]), 1);
    assert_memory_equal(script->memory + 0x2000, "89abcdef", 8);
    assert_null(ob_client_memory(client, 0, 0x1ff8, 16));
    assert_non_null(ob_client_memory(client, 0, 0x1ff8, 8));
    finish(script, client);
    close(fd);
}

/* What cannot be mapped leaves the region to messages. */
static void refuse_mapping(struct lie lie, int err)
{
    struct script *script = script_new(answer_region, &lie);
    struct ob_client *client = script_client(script, NULL);
    uint32_t value;

    assert_int_equal(ob_client_map(client, 0), err);
    assert_null(ob_client_memory(client, 0, 0, 4));
    ok(ob_client_read(client, 0, 0, &value, 4, NULL));
    finish(script, client);
}

static void test_descriptors_that_are_no_memory(void **state)
{
    int ends[2], fd = memfd_create("bar", MFD_CLOEXEC);
    struct lie lie;

    ok(pipe2(ends, O_CLOEXEC));
    refuse_mapping(plain_region(ends[0], 0), -ENODEV);
    refuse_mapping(plain_region(-1, 0), 0);
    ok(ftruncate(fd, 65535)); /* a byte too short */
    refuse_mapping(plain_region(fd, 0), -ENXIO);
    ok(ftruncate(fd, 65536));
    lie = plain_region(fd, 0);
    lie.description.info.offset = 4096; /* the region ends behind the file */
    refuse_mapping(lie, -ENXIO);
    lie.description.info.offset = UINT64_MAX - 4095;
    refuse_mapping(lie, 0);
    lie = plain_region(fd, 0);
    lie.description.info.flags &= ~VFIO_REGION_INFO_FLAG_MMAP; /* a descriptor without the flag: closed */
    refuse_mapping(lie, 0);
    close(ends[0]);
    close(ends[1]);
    close(fd);
}

/* --- Replies ----------------------------------------------------------------------------------------------------- */

enum read_lie {
    ANOTHER_ID,
    ANOTHER_COMMAND,
    TWICE,
    TOO_LONG,
    LIED_COUNT,
    ANOTHER_OFFSET,
    TINY_SIZE,
    HUGE_SIZE,
    ODD_TYPE,
    ODD_FLAGS,
    REFUSAL_WITH_DATA,
    READ_LIES,
};

static bool answer_read(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                        unsigned nfds)
{
    struct {
        struct ob_header header;
        struct ob_wire_region_access access;
        uint8_t data[16];
    } reply = { .header = { header->id, header->command, 0, OB_FLAG_REPLY, 0 } };
    unsigned lie = *(unsigned *)script->ctx, times = 1;
    size_t size = offsetof(typeof(reply), data) + 4;

    if (header->command != OB_REGION_READ)
        return false;
    memcpy(&reply.access, payload, sizeof(reply.access));
    reply.header.size = (uint32_t)size;
    reply.header.id += lie == ANOTHER_ID;
    reply.header.command = lie == ANOTHER_COMMAND ? OB_REGION_WRITE : OB_REGION_READ;
    times += lie == TWICE;
    if (lie == TOO_LONG) {
        reply.access.count = 16;
        size = sizeof(reply);
        reply.header.size = sizeof(reply);
    }
    if (lie == LIED_COUNT)
        reply.access.count = 3;
    if (lie == ANOTHER_OFFSET)
        reply.access.offset += 4;
    if (lie == TINY_SIZE)
        reply.header.size = 15;
    if (lie == HUGE_SIZE)
        reply.header.size = UINT32_MAX;
    if (lie == ODD_TYPE)
        reply.header.flags = 2;
    if (lie == ODD_FLAGS)
        reply.header.flags |= 0x100;
    if (lie == REFUSAL_WITH_DATA)
        reply.header.flags |= OB_FLAG_ERROR;
    while (times-- > 0)
        script_send(script, &reply, size, NULL, 0);
    return true;
}

static void test_false_replies(void **state)
{
    for (unsigned lie = 0; lie < READ_LIES; lie++) {
        struct script *script = script_new(answer_read, &lie);
        struct ob_client *client = script_client(script, NULL);
        uint8_t buf[16] = { 0 }, zero[16] = { 0 };
        int err = ob_client_read(client, 0, 0, buf, 4, NULL);

        if (lie == TWICE) { /* the first is right; the second is seen with it, or by the next call */
            ok(err);
            err = ob_client_read(client, 0, 0, buf, 4, NULL);
            err = err == -ENOTCONN ? -EPROTO : err;
        }
        if (err != -EPROTO)
            fail_msg("lie %u: %d", lie, err);
        assert_memory_equal(buf, zero, sizeof(buf));
        assert_int_equal(ob_client_read(client, 0, 0, buf, 4, NULL), -ENOTCONN);
        assert_string_not_equal(ob_client_why(client), "");
        finish(script, client);
    }
}

static bool answer_oddly(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                         unsigned nfds)
{
    struct ob_header refusal = { header->id, header->command, sizeof(refusal), OB_FLAG_ERROR, 0 };
    struct ob_wire_region_access access;
    uint8_t reply[sizeof(access) + 2];
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), many[3] = { null, null, null };

    switch (header->command) {
    case OB_DEVICE_RESET: /* descriptors that were never asked for */
        script_reply(script, header, NULL, 0, many, 3);
        break;
    case OB_REGION_WRITE: /* an old server's refusal, without an errno */
        script_send(script, &refusal, sizeof(refusal), NULL, 0);
        break;
    case OB_REGION_READ: /* less than was asked for */
        memcpy(&access, payload, sizeof(access));
        access.count = 2;
        memcpy(reply, &access, sizeof(access));
        memcpy(reply + sizeof(access), "xy", 2);
        script_reply(script, header, reply, sizeof(reply), NULL, 0);
        break;
    default:
        close(null);
        return false;
    }
    close(null);
    return true;
}

static void test_odd_replies_are_survived(void **state)
{
    struct script *script = script_new(answer_oddly, NULL);
    struct ob_client *client = script_client(script, NULL);
    uint32_t value = 0;

    ok(ob_client_reset(client, NULL));
    assert_int_equal(ob_client_write(client, 0, 0, &value, 4, NULL), -EIO);
    assert_int_equal(ob_client_read(client, 0, 0, &value, 4, NULL), -EIO);
    ok(ob_client_reset(client, NULL));
    finish(script, client);
}

/* A reply in pieces of one byte, each its own send. */
static bool answer_in_bytes(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                            unsigned nfds)
{
    struct {
        struct ob_header header;
        struct ob_wire_region_access access;
        uint32_t data;
    } reply = { { header->id, header->command, 36, OB_FLAG_REPLY, 0 }, { 0, 0, 4 }, 0x76543210 };

    if (header->command != OB_REGION_READ)
        return false;
    for (unsigned i = 0; i < 36; i++)
        script_send(script, (uint8_t *)&reply + i, 1, NULL, 0);
    return true;
}

static void test_a_reply_in_pieces(void **state)
{
    struct script *script = script_new(answer_in_bytes, NULL);
    struct ob_client *client = script_client(script, NULL);
    uint32_t value = 0;

    ok(ob_client_read(client, 0, 0, &value, 4, NULL));
    assert_int_equal(value, 0x76543210);
    finish(script, client);
}

/* A server that never answers: calls end in time, and once 256 have, so does the connection, with whatever calls have
 * not. */
static bool never(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                  unsigned nfds)
{
    return header->command == OB_DEVICE_RESET;
}

static void test_abandoned_calls_are_bounded(void **state)
{
    struct script *script = script_new(never, NULL);
    struct ob_client *client = script_client(script, NULL);
    const unsigned long ends[] = { (unsigned long)-ETIMEDOUT, (unsigned long)-ENOTCONN };
    struct ob_call calls[400];

    for (unsigned i = 0; i < 400; i++) {
        calls[i] = (struct ob_call){ .timeout_ms = 50 };
        ok(ob_client_reset(client, &calls[i]));
    }
    for (unsigned i = 0; i < 400; i++)
        if (i < 256)
            assert_int_equal(ob_call_wait(client, &calls[i]), -ETIMEDOUT);
        else
            assert_in_set(ob_call_wait(client, &calls[i]), ends, 2);
    assert_int_equal(ob_client_reset(client, NULL), -ENOTCONN);
    finish(script, client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_capabilities),       cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_too_many_of_everything), cmocka_unit_test(test_broken_descriptions),
        cmocka_unit_test(test_areas_in_any_order),     cmocka_unit_test(test_descriptors_that_are_no_memory),
        cmocka_unit_test(test_false_replies),          cmocka_unit_test(test_odd_replies_are_survived),
        cmocka_unit_test(test_a_reply_in_pieces),      cmocka_unit_test(test_abandoned_calls_are_bounded),
    };

    return cmocka_run_group_tests_name("hostile servers", tests, NULL, NULL);
}
