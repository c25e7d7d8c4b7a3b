/* version.c: VU-VER: the numbers of versions, the form of the reply, features offered, VERSION again. */
#include "version.h"

#define QEMU_CAPABILITIES "\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\"pgsizes\":4096"

static const uint32_t get_info[4] = { 16 };

struct ob_raw_message *negotiate(struct judge *j, const char *capabilities)
{
    char text[1024], what[160];
    struct ob_raw_message *reply;

    snprintf(text, sizeof(text), "{\"capabilities\":{%s}}", capabilities);
    snprintf(what, sizeof(what), "VERSION with %s", capabilities);
    judge_reconnect_bare(j);
    want_ok(j, judge_version(j, 0, 0, text, &reply), what);
    return reply;
}

int negotiate_bytes(struct judge *j, const void *bytes, size_t size)
{
    uint8_t *payload = judge_alloc(j, 4 + size);

    judge_reconnect_bare(j);
    memcpy(payload + 4, bytes, size);
    return call(j, OB_RAW_VERSION, payload, 4 + size, NULL, 0, NULL);
}

void want_no_session(struct judge *j, int result, const char *what)
{
    want(j, result == -ENOTCONN || result > 0, "%s: succeeded, wanted to be refused or to end the connection", what);
    if (result != -ENOTCONN && !j->facts.early) {
        result = call(j, OB_RAW_GET_INFO, get_info, sizeof(get_info), NULL, 0, NULL);
        want(j, result == -ENOTCONN || result > 0, "%s was refused, and GET_INFO behind it succeeded", what);
    }
    judge_reconnect(j); /* the server is alive */
}

const json_t *capability(struct judge *j, const struct ob_raw_message *reply, const char *key)
{
    return json_object_get(json_object_get(judge_json(j, reply), "capabilities"), key);
}

/* --- Numbers ----------------------------------------------------------------------------------------------------- */

static void check_major(struct judge *j)
{
    const struct ob_raw_message *reply = negotiate(j, QEMU_CAPABILITIES);

    want(j, field16(j, reply, 0) == 0, "major 0 was proposed, and the reply says %u", field16(j, reply, 0));
}

static void check_minor(struct judge *j)
{
    const struct ob_raw_message *reply = negotiate(j, QEMU_CAPABILITIES);

    want(j, field16(j, reply, 2) == 0, "minor 0 was proposed, and the reply says %u", field16(j, reply, 2));
}

static void check_higher_minor(struct judge *j, const char *text)
{
    static const uint16_t minors[] = { 1, 2, 255, 65535 };

    for (size_t i = 0; i < sizeof(minors) / sizeof(*minors); i++) {
        struct ob_raw_message *reply;

        judge_reconnect_bare(j);
        want_ok(j, judge_version(j, 0, minors[i], text, &reply), "VERSION with a higher minor");
        want(j, field16(j, reply, 2) <= minors[i], "0.%u was proposed, and the reply says 0.%u", minors[i],
             field16(j, reply, 2));
        want_alive(j, "GET_INFO after VERSION with a higher minor");
    }
}

static void check_minors(struct judge *j)
{
    check_higher_minor(j, judge_capabilities);
}

/* As SPDK's client does. */
static void check_minors_without_json(struct judge *j)
{
    judge_reconnect_bare(j);
    if (judge_version(j, 0, 0, NULL, NULL) != 0)
        judge_skip(j, "VERSION without JSON is not taken");
    check_higher_minor(j, NULL);
}

static const uint16_t majors[] = { 1, 2, 256, 65535 };

static void check_other_major(struct judge *j)
{
    for (size_t i = 0; i < sizeof(majors) / sizeof(*majors); i++) {
        int r;

        judge_reconnect_bare(j);
        r = judge_version(j, majors[i], 0, judge_capabilities, NULL);
        want(j, r != 0, "VERSION with major %u succeeded", majors[i]);
        want_closed(j, "after VERSION with an unsupported major");
    }
    judge_reconnect(j);
}

static void check_other_major_errno(struct judge *j)
{
    for (size_t i = 0; i < sizeof(majors) / sizeof(*majors); i++) {
        judge_reconnect_bare(j);
        want_error(j, judge_version(j, majors[i], 0, judge_capabilities, NULL), EPROTONOSUPPORT,
                   "VERSION with an unsupported major");
    }
    judge_reconnect(j);
}

/* --- The reply's form -------------------------------------------------------------------------------------------- */

static void want_text(struct judge *j, const struct ob_raw_message *reply)
{
    const size_t size = reply->size - 4;
    const char *text = (const char *)reply->payload + 4, *end = memchr(text, '\0', size);

    want(j, end != NULL, "the reply's text of %zu bytes has no NUL at its end", size);
    want(j, end == text + size - 1, "the reply's text of %zu bytes has a NUL at %td", size, end - text);
}

/* With the offers of several clients, to which servers may answer differently. */
static const char *const offers[] = { NULL, "{}", "{\"capabilities\":{" QEMU_CAPABILITIES ",\"write_multiple\":true}}",
                                      "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}" };

/* NULL: it is not taken, which is for checks of VU-VER-8 and VU-VER-9 to say. */
static const struct ob_raw_message *reply_to_offer(struct judge *j, size_t i)
{
    struct ob_raw_message *reply;

    judge_reconnect_bare(j);
    if (judge_version(j, 0, 0, offers[i], &reply) != 0)
        return NULL;
    want(j, reply->size >= 4, "the reply to VERSION has a payload of %u bytes, wanted at least 4", reply->size);
    return reply;
}

static const json_t *capabilities_for_offer(struct judge *j, size_t i)
{
    const struct ob_raw_message *reply = reply_to_offer(j, i);

    return reply == NULL ? NULL : json_object_get(judge_json(j, reply), "capabilities");
}

static void check_reply_text(struct judge *j)
{
    for (size_t i = 0; i < sizeof(offers) / sizeof(*offers); i++) {
        const struct ob_raw_message *reply = reply_to_offer(j, i);

        if (reply != NULL && reply->size > 4)
            want_text(j, reply);
    }
}

static void check_reply_json(struct judge *j)
{
    for (size_t i = 0; i < sizeof(offers) / sizeof(*offers); i++) {
        const struct ob_raw_message *reply = reply_to_offer(j, i);
        const json_t *json;

        if (reply == NULL || reply->size == 4)
            continue;
        json = judge_json(j, reply);
        want(j, json != NULL, "the reply's text is not JSON in UTF-8: %.*s",
             (int)(reply->size - 4 < 200 ? reply->size - 4 : 200), (const char *)reply->payload + 4);
        want(j, json_is_object(json), "the reply's JSON text is not an object");
        json = json_object_get(json, "capabilities");
        want(j, json == NULL || json_is_object(json), "the reply's capabilities are not an object");
    }
}

static void want_number(struct judge *j, const json_t *capabilities, const char *key)
{
    const json_t *value = json_object_get(capabilities, key);

    want(j, value == NULL || (json_is_integer(value) && json_integer_value(value) >= 0),
         "the reply's %s is not an integer from 0 on", key);
}

static void check_reply_numbers(struct judge *j)
{
    for (size_t i = 0; i < sizeof(offers) / sizeof(*offers); i++) {
        const json_t *capabilities = capabilities_for_offer(j, i);

        want_number(j, capabilities, "max_msg_fds");
        want_number(j, capabilities, "max_data_xfer_size");
        want_number(j, capabilities, "max_dma_maps");
        want_number(j, capabilities, "pgsizes");
    }
}

static void check_reply_booleans(struct judge *j)
{
    for (size_t i = 0; i < sizeof(offers) / sizeof(*offers); i++) {
        const json_t *capabilities = capabilities_for_offer(j, i);
        const json_t *multiple = json_object_get(capabilities, "write_multiple");
        const json_t *twin = json_object_get(capabilities, "twin_socket");
        const json_t *supported = json_object_get(twin, "supported");

        want(j, multiple == NULL || json_is_boolean(multiple), "the reply's write_multiple is neither true nor false");
        want(j, twin == NULL || json_is_object(twin), "the reply's twin_socket is not an object");
        want(j, supported == NULL || json_is_boolean(supported), "twin_socket's supported is neither true nor false");
    }
}

static void check_reply_has_json(struct judge *j)
{
    const struct ob_raw_message *reply = reply_to_offer(j, 0);

    if (reply == NULL)
        judge_skip(j, "VERSION without JSON is not taken");
    want(j, reply->size > 4, "VERSION without JSON was answered without JSON");
}

/* --- Features ---------------------------------------------------------------------------------------------------- */

static void check_no_multiple(struct judge *j)
{
    static const char *const without[] = { QEMU_CAPABILITIES, "\"write_multiple\":false" };

    for (size_t i = 0; i < sizeof(without) / sizeof(*without); i++)
        want(j, !json_is_true(capability(j, negotiate(j, without[i]), "write_multiple")),
             "write_multiple was not offered, and the reply says true");
}

static void check_no_twin(struct judge *j)
{
    static const char *const without[] = { QEMU_CAPABILITIES, "\"twin_socket\":{\"supported\":false}",
                                           "\"twin_socket\":{}" };

    for (size_t i = 0; i < sizeof(without) / sizeof(*without); i++) {
        const struct ob_raw_message *reply = negotiate(j, without[i]);

        want(j, !json_is_true(json_object_get(capability(j, reply, "twin_socket"), "supported")),
             "a twin socket was not offered, and the reply says supported");
        want(j, reply->nfds == 0, "%u descriptors came with a reply without a twin socket", reply->nfds);
    }
}

/* --- Again ------------------------------------------------------------------------------------------------------- */

static void check_second(struct judge *j)
{
    want_refused(j, judge_version(j, 0, 0, judge_capabilities, NULL), "a second VERSION");
    want_alive(j, "after a second VERSION");
    want_refused(j, judge_version(j, 0, 0, NULL, NULL), "a third VERSION, without JSON");
    want_alive(j, "after a third VERSION");
}

static void check_second_other(struct judge *j)
{
    want_refused(j, judge_version(j, 1, 0, judge_capabilities, NULL), "a second VERSION with another major");
    want_alive(j, "after a second VERSION with another major");
    want_refused(j, judge_version(j, 0, 0, "garbage", NULL), "a second VERSION with garbage");
    want_alive(j, "after a second VERSION with garbage");
}

static void check_second_limits(struct judge *j)
{
    const struct vfio_region_info get = { .argsz = j->facts.region[j->facts.mappable].argsz,
                                          .index = j->facts.mappable };
    struct ob_raw_message *m;

    want_refused(j, judge_version(j, 0, 0, "{\"capabilities\":{\"max_msg_fds\":0}}", NULL), "a second VERSION");
    want_ok(j, call(j, OB_RAW_GET_REGION_INFO, &get, sizeof(get), NULL, 0, &m), "GET_REGION_INFO");
    want(j, m->nfds == 1, "after a second VERSION, with max_msg_fds 0, %u descriptors came with a region, wanted 1",
         m->nfds);
}

const struct check server_version_checks[] = {
    { { "version-major", "VU-VER-4", "the reply has the major that was proposed" }, CHECK_UNCONNECTED, check_major },
    { { "version-minor", "VU-VER-5", "the reply's minor is not above the one proposed" },
      CHECK_UNCONNECTED,
      check_minor },
    { { "version-higher-minor", "VU-VER-6", "a client that proposes a higher minor is served" },
      CHECK_UNCONNECTED,
      check_minors },
    { { "version-higher-minor-bare", "VU-VER-6", "so is one that sends no JSON" },
      CHECK_UNCONNECTED,
      check_minors_without_json },
    { { "version-other-major", "VU-VER-7", "an unsupported major ends the connection" },
      CHECK_UNCONNECTED,
      check_other_major },
    { { "version-other-major-errno", "VU-VER-33", "before, it is refused with EPROTONOSUPPORT" },
      CHECK_UNCONNECTED,
      check_other_major_errno },
    { { "version-reply-text", "VU-VER-3", "the reply's text ends with its only NUL" },
      CHECK_UNCONNECTED,
      check_reply_text },
    { { "version-reply-json", "VU-VER-3", "the reply's text is JSON in UTF-8, and an object" },
      CHECK_UNCONNECTED,
      check_reply_json },
    { { "version-reply-numbers", "VU-VER-32", "the reply's numbers are integers" },
      CHECK_UNCONNECTED,
      check_reply_numbers },
    { { "version-reply-booleans", "VU-VER-32", "the reply's features are true or false" },
      CHECK_UNCONNECTED,
      check_reply_booleans },
    { { "version-reply-has-json", "VU-VER-35", "a request without JSON is answered with it" },
      CHECK_UNCONNECTED,
      check_reply_has_json },
    { { "version-no-multiple", "VU-VER-14", "write_multiple is offered only if the client did" },
      CHECK_UNCONNECTED,
      check_no_multiple },
    { { "version-no-twin", "VU-VER-14", "a twin socket is offered only if the client did" },
      CHECK_UNCONNECTED,
      check_no_twin },
    { { "version-second", "VU-VER-30", "a second VERSION is refused, and the session goes on" }, 0, check_second },
    { { "version-second-other", "VU-VER-30", "so is one that would have been refused as the first" },
      0,
      check_second_other },
    { { "version-second-limits", "VU-VER-30", "a second VERSION changes nothing that was negotiated" },
      NEED_MAPPABLE,
      check_second_limits },
    { { NULL, NULL, NULL }, 0, NULL },
};
