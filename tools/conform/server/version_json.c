/* version_json.c: VU-VER: the JSON texts that have to be taken, and those that have to be refused. */
#include "version.h"

#include <string.h>

/* --- Taken ------------------------------------------------------------------------------------------------------- */

/* A text with its NUL is taken, and a session begins. */
static void take(struct judge *j, const char *text)
{
    char what[256];

    snprintf(what, sizeof(what), "VERSION with %.200s", text);
    want_ok(j, negotiate_bytes(j, text, strlen(text) + 1), what);
    snprintf(what, sizeof(what), "GET_INFO after VERSION with %.200s", text);
    want_alive(j, what);
}

static void take_all(struct judge *j, const char *const *texts)
{
    for (; *texts != NULL; texts++)
        take(j, *texts);
}

static void take_nothing(struct judge *j)
{
    want_ok(j, judge_version(j, 0, 0, NULL, NULL), "VERSION without JSON");
    want_alive(j, "GET_INFO after VERSION without JSON");
}

static void take_empty(struct judge *j)
{
    take(j, "{}");
}

static void take_empty_capabilities(struct judge *j)
{
    take(j, "{\"capabilities\":{}}");
}

static void take_unknown_keys(struct judge *j)
{
    static const char *const texts[] = {
        "{\"other\":null,\"capabilities\":{}}",
        "{\"other\":\"capabilities\",\"capabilities\":{}}",
        "{\"capabilities\":{},\"other\":{\"capabilities\":1}}",
        "{\"other\":[1,2,{\"a\":[]}],\"more\":1.5e-3,\"\":true,\"capabilities\":{\"max_msg_fds\":4}}",
        NULL,
    };

    take_all(j, texts);
}

static void take_unknown_capabilities(struct judge *j)
{
    static const char *const texts[] = {
        "{\"capabilities\":{\"other\":null}}",
        "{\"capabilities\":{\"other\":{\"max_msg_fds\":\"many\"},\"max_msg_fds\":4}}",
        "{\"capabilities\":{\"other\":[1,[2,[3]]],\"more\":-1.25,\"yet\":false}}",
        "{\"capabilities\":{\"max_msg_fds2\":-1,\"Max_Msg_Fds\":\"x\"}}",
        NULL,
    };

    take_all(j, texts);
}

/* What QEMU sends; the text does not know `migration`. */
static void take_qemu(struct judge *j)
{
    take(j, "{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\"max_data_xfer_size\":"
            "1048576,\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\"write_multiple\":true}}");
}

static void take_spaces(struct judge *j)
{
    take(j, " \t\r\n{ \"capabilities\" :\n{ \"max_msg_fds\"\t: 8 ,\r\n\"pgsizes\" : 4096 }\n}\n ");
}

static void take_utf8(struct judge *j)
{
    take(j, "{\"\xc3\xa9\":\"\xe2\x82\xac \xf0\x9f\x98\x80\",\"capabilities\":{\"\xd7\x90\":1}}");
}

static void take_escapes(struct judge *j)
{
    take(
        j,
        "{\"a\\u00e9\\ud83d\\ude00\\n\\\"\":\"\\\\\\/\\b\\f\\r\\t\",\"c\\u0061pabilities\":{\"max_msg_f\\u0064s\":4}}");
}

static void take_each(struct judge *j)
{
    static const char *const texts[] = {
        "{\"capabilities\":{\"max_msg_fds\":1}}",
        "{\"capabilities\":{\"max_msg_fds\":253}}",
        "{\"capabilities\":{\"max_data_xfer_size\":4096}}",
        "{\"capabilities\":{\"max_data_xfer_size\":67108864}}",
        "{\"capabilities\":{\"max_dma_maps\":64}}",
        "{\"capabilities\":{\"max_dma_maps\":65536}}",
        "{\"capabilities\":{\"pgsizes\":4096}}",
        "{\"capabilities\":{\"pgsizes\":1075843072}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
        "{\"capabilities\":{\"write_multiple\":false}}",
        "{\"capabilities\":{\"write_multiple\":true,\"max_msg_fds\":4}}",
        NULL,
    };

    take_all(j, texts);
}

/* --- Refused ----------------------------------------------------------------------------------------------------- */

static void refuse(struct judge *j, const char *text)
{
    char what[256];

    snprintf(what, sizeof(what), "VERSION with %.200s", text);
    want_no_session(j, negotiate_bytes(j, text, strlen(text) + 1), what);
}

static void refuse_all(struct judge *j, const char *const *texts)
{
    for (; *texts != NULL; texts++)
        refuse(j, *texts);
}

static void refuse_without_nul(struct judge *j)
{
    const char text[] = "{\"capabilities\":{\"max_msg_fds\":1}}";

    want_no_session(j, negotiate_bytes(j, text, sizeof(text) - 1), "VERSION with JSON without its NUL");
    want_no_session(j, negotiate_bytes(j, text, 1), "VERSION with one byte of JSON");
}

static void refuse_nul_inside(struct judge *j)
{
    const char behind[] = "{\"capabilities\":{}}\0{}", within[] = "{\"capabilities\":\0{}}";

    want_no_session(j, negotiate_bytes(j, behind, sizeof(behind)), "VERSION with a NUL and more text behind it");
    want_no_session(j, negotiate_bytes(j, within, sizeof(within)), "VERSION with a NUL in its JSON");
}

static void refuse_malformed(struct judge *j)
{
    static const char *const texts[] = {
        "garbage",
        "{",
        "}",
        "{\"capabilities\":",
        "{\"capabilities\":{\"max_msg_fds\":1}",
        "{\"capabilities\" {}}",
        "{\"capabilities\":{\"max_msg_fds\":}}",
        "{\"capabilities\":{\"max_msg_fds\":0x10}}",
        NULL,
    };

    refuse_all(j, texts);
}

static void refuse_empty(struct judge *j)
{
    refuse(j, "");
    refuse(j, "  ");
}

static void refuse_trailing(struct judge *j)
{
    refuse(j, "{\"capabilities\":{}} x");
    refuse(j, "{\"capabilities\":{}}{\"capabilities\":{}}");
}

static void refuse_other_types(struct judge *j)
{
    static const char *const texts[] = {
        "[]", "1", "\"capabilities\"", "null", "true", "[{\"capabilities\":{}}]", NULL
    };

    refuse_all(j, texts);
}

static void refuse_not_utf8(struct judge *j)
{
    static const char *const texts[] = { "{\"a\xff\":1}",        "{\"a\":\"\xc3\"}", "{\"a\":\"\xed\xa0\x80\"}",
                                         "{\"a\":\"\xc0\xaf\"}", "\xff\xfe{}",       NULL };

    refuse_all(j, texts);
}

static const char *const no_integers[] = { "\"16\"", "1.5", "true", "[16]", "{\"value\":16}", "1e300", NULL };
/* One beyond 64 bits fits no field. */
static const char *const wrong_integers[] = { "-1", "99999999999999999999999999", NULL };

static void refuse_values(struct judge *j, const char *key, const char *const *values)
{
    for (; *values != NULL; values++) {
        char text[128];

        snprintf(text, sizeof(text), "{\"capabilities\":{\"%s\":%s}}", key, *values);
        refuse(j, text);
    }
}

static void refuse_fds(struct judge *j)
{
    refuse_values(j, "max_msg_fds", no_integers);
    refuse_values(j, "max_msg_fds", wrong_integers);
}

static void refuse_data(struct judge *j)
{
    refuse_values(j, "max_data_xfer_size", no_integers);
}

static void refuse_data_range(struct judge *j)
{
    refuse_values(j, "max_data_xfer_size", wrong_integers);
}

static void refuse_maps(struct judge *j)
{
    refuse_values(j, "max_dma_maps", no_integers);
    refuse_values(j, "max_dma_maps", wrong_integers);
}

static void refuse_pgsizes(struct judge *j)
{
    refuse_values(j, "pgsizes", no_integers);
    refuse_values(j, "pgsizes", wrong_integers);
}

static void refuse_multiple(struct judge *j)
{
    static const char *const texts[] = { "{\"capabilities\":{\"write_multiple\":1}}",
                                         "{\"capabilities\":{\"write_multiple\":\"true\"}}",
                                         "{\"capabilities\":{\"write_multiple\":{}}}", NULL };

    refuse_all(j, texts);
}

static void refuse_twin(struct judge *j)
{
    static const char *const texts[] = { "{\"capabilities\":{\"twin_socket\":true}}",
                                         "{\"capabilities\":{\"twin_socket\":[]}}",
                                         "{\"capabilities\":{\"twin_socket\":{\"supported\":1}}}",
                                         "{\"capabilities\":{\"twin_socket\":{\"supported\":\"yes\"}}}", NULL };

    refuse_all(j, texts);
}

static void refuse_capabilities(struct judge *j)
{
    static const char *const texts[] = { "{\"capabilities\":[]}", "{\"capabilities\":1}",
                                         "{\"capabilities\":\"max_msg_fds\"}", "{\"capabilities\":true}", NULL };

    refuse_all(j, texts);
}

/* --- Large ------------------------------------------------------------------------------------------------------- */

#define LARGE (1u << 20) /* bytes of text: as many as QEMU would transfer */

/* Whether it is taken or refused, the server lives, and uses no memory to speak of. What one has used that ends with
 * its client is not seen, unless it takes the text. */
static void large(struct judge *j, const char *text, const char *what)
{
    const bool ours = j->facts.has & NEED_SPAWN;
    const size_t size = strlen(text) + 1;
    uint8_t *payload = judge_alloc(j, 4 + size);
    long before, after = 0;
    int r;

    judge_reconnect_bare(j);
    before = ours ? server_memory(j) : 0;
    memcpy(payload + 4, text, size);
    r = call(j, OB_RAW_VERSION, payload, 4 + size, NULL, 0, NULL);
    want(j, r >= 0 || r == -ENOTCONN, "%s: %s", what, strerror(-r));
    if (r != 0 && j->facts.has & NEED_EARLY)
        judge_reconnect(j);
    if (ours && (r == 0 || j->facts.has & NEED_EARLY))
        after = server_memory(j);
    want(j, after - before < 65536, "%s: the server's memory grew by %ld KiB", what, after - before);
}

static void nest(struct judge *j, const char *open, const char *close, size_t depth, const char *what)
{
    const size_t o = strlen(open), c = strlen(close), size = 64 + depth * (o + c);
    char *text = judge_alloc(j, size);
    size_t at = (size_t)snprintf(text, size, "{\"capabilities\":{\"deep\":");

    for (size_t i = 0; i < depth; i++, at += o)
        memcpy(text + at, open, o);
    text[at++] = '1';
    for (size_t i = 0; i < depth; i++, at += c)
        memcpy(text + at, close, c);
    memcpy(text + at, "}}", 3);
    large(j, text, what);
}

static void deep_arrays(struct judge *j)
{
    nest(j, "[", "]", 1000, "VERSION with 1000 arrays in one another");
    nest(j, "[", "]", LARGE / 4, "VERSION with 262144 arrays in one another");
}

static void deep_objects(struct judge *j)
{
    nest(j, "{\"a\":", "}", 1000, "VERSION with 1000 objects in one another");
    nest(j, "{\"a\":", "}", LARGE / 8, "VERSION with 131072 objects in one another");
}

static void deep_open(struct judge *j)
{
    nest(j, "[", "", LARGE / 2, "VERSION with 524288 arrays that do not end");
}

static void long_string(struct judge *j)
{
    char *text = judge_alloc(j, LARGE);
    size_t at = (size_t)snprintf(text, LARGE, "{\"capabilities\":{\"long\":\"");

    memset(text + at, 'x', LARGE - 64 - at);
    memcpy(text + LARGE - 64, "\"}}", 4);
    large(j, text, "VERSION with a string of 1 MiB");
}

static void long_array(struct judge *j)
{
    char *text = judge_alloc(j, LARGE);
    size_t at = (size_t)snprintf(text, LARGE, "{\"capabilities\":{\"long\":[");

    for (; at < LARGE - 64; at += 2)
        memcpy(text + at, "1,", 2);
    memcpy(text + at, "1]}}", 5);
    large(j, text, "VERSION with an array of 524288 numbers");
}

const struct check server_version_json_checks[] = {
    { { "version-without-json", "VU-VER-8", "VERSION without JSON is taken" }, CHECK_BARE, take_nothing },
    { { "version-empty", "VU-VER-9", "an empty object is taken" }, CHECK_UNCONNECTED, take_empty },
    { { "version-empty-capabilities", "VU-VER-9", "empty capabilities are taken" },
      CHECK_UNCONNECTED,
      take_empty_capabilities },
    { { "version-unknown-keys", "VU-VER-10", "unknown keys beside capabilities are ignored" },
      CHECK_UNCONNECTED,
      take_unknown_keys },
    { { "version-unknown-capabilities", "VU-VER-10", "unknown capabilities are ignored, whatever their value" },
      CHECK_UNCONNECTED,
      take_unknown_capabilities },
    { { "version-as-qemu", "VU-VER-10", "what QEMU sends is taken, `migration` included" },
      CHECK_UNCONNECTED,
      take_qemu },
    { { "version-spaces", "VU-VER-3", "white space around every token is taken" }, CHECK_UNCONNECTED, take_spaces },
    { { "version-utf8", "VU-VER-3", "characters beyond ASCII are taken" }, CHECK_UNCONNECTED, take_utf8 },
    { { "version-escapes", "VU-VER-3", "escaped characters are taken" }, CHECK_UNCONNECTED, take_escapes },
    { { "version-each-alone", "VU-VER-37", "each capability may come alone" }, CHECK_UNCONNECTED, take_each },
    { { "version-without-nul", "VU-VER-11", "a text without its NUL begins no session" },
      CHECK_UNCONNECTED,
      refuse_without_nul },
    { { "version-malformed", "VU-VER-11", "nor does one that is not JSON" }, CHECK_UNCONNECTED, refuse_malformed },
    { { "version-blank", "VU-VER-11", "nor does one of no or only white space" }, CHECK_UNCONNECTED, refuse_empty },
    { { "version-nul-inside", "VU-VER-39", "a text with a NUL inside begins no session" },
      CHECK_UNCONNECTED,
      refuse_nul_inside },
    { { "version-trailing", "VU-VER-39", "nor does an object with more behind it" },
      CHECK_UNCONNECTED,
      refuse_trailing },
    { { "version-no-object", "VU-VER-39", "nor does JSON that is not an object" },
      CHECK_UNCONNECTED,
      refuse_other_types },
    { { "version-not-utf8", "VU-VER-39", "nor does one that is not UTF-8" }, CHECK_UNCONNECTED, refuse_not_utf8 },
    { { "version-wrong-fds", "VU-VER-12", "a max_msg_fds that is no integer from 0 on begins no session" },
      CHECK_UNCONNECTED,
      refuse_fds },
    { { "version-wrong-data", "VU-VER-12", "nor does a max_data_xfer_size that is no integer" },
      CHECK_UNCONNECTED,
      refuse_data },
    { { "version-negative-data", "VU-VER-40", "nor does one that is negative, or beyond 64 bits" },
      CHECK_UNCONNECTED,
      refuse_data_range },
    { { "version-wrong-maps", "VU-VER-40", "nor does a max_dma_maps that is no integer from 0 on" },
      CHECK_UNCONNECTED,
      refuse_maps },
    { { "version-wrong-pgsizes", "VU-VER-40", "nor do such pgsizes" }, CHECK_UNCONNECTED, refuse_pgsizes },
    { { "version-wrong-multiple", "VU-VER-40", "a write_multiple that is neither true nor false begins no session" },
      CHECK_UNCONNECTED,
      refuse_multiple },
    { { "version-wrong-twin", "VU-VER-40", "nor does a twin_socket that is no object, or its supported no boolean" },
      CHECK_UNCONNECTED,
      refuse_twin },
    { { "version-wrong-capabilities", "VU-VER-40", "nor do capabilities that are no object" },
      CHECK_UNCONNECTED,
      refuse_capabilities },
    { { "version-deep-arrays", "VU-VER-13", "arrays nested deeply do no harm" }, CHECK_UNCONNECTED, deep_arrays },
    { { "version-deep-objects", "VU-VER-13", "nor do objects" }, CHECK_UNCONNECTED, deep_objects },
    { { "version-deep-open", "VU-VER-13", "nor do arrays that do not end" }, CHECK_UNCONNECTED, deep_open },
    { { "version-long-string", "VU-VER-13", "a string of 1 MiB does no harm" }, CHECK_UNCONNECTED, long_string },
    { { "version-long-array", "VU-VER-13", "nor does an array of that size" }, CHECK_UNCONNECTED, long_array },
    { { NULL, NULL, NULL }, 0, NULL },
};
