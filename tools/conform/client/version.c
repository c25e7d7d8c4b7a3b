/* version.c: VU-VER: negotiation, and that what was negotiated is held. */
#include <jansson.h>
#include <stdlib.h>

#include "check.h"

/* --- VERSION itself ----------------------------------------------------------------------------------------------- */

static bool comes_first(struct trial *t, const struct ob_raw_message *m)
{
    bool version = m->header.command == OB_RAW_VERSION;

    if (version && t->model.negotiated)
        trial_wrong(t, "VERSION should be sent once, and came a second time");
    if (!version && !t->model.negotiated)
        trial_wrong(t, "VERSION should be the first message, and %s came", command_name(m->header.command));
    return true;
}

static bool not_posted(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_VERSION)
        return false;
    if (m->header.flags & OB_RAW_NO_REPLY)
        trial_wrong(t, "VERSION should not be posted");
    return true;
}

static json_t *text_of(const struct ob_raw_message *m)
{
    return m->size > 5 ? json_loadb((char *)m->payload + 4, m->size - 5, 0, NULL) : NULL;
}

static bool version_layout(struct trial *t, const struct ob_raw_message *m)
{
    json_t *json;

    if (m->header.command != OB_RAW_VERSION)
        return false;
    if (m->size < 4) {
        trial_wrong(t, "the payload of VERSION should be major and minor, and has %u bytes", m->size);
        return true;
    }
    if (get16(m, 0) != 0)
        trial_wrong(t, "the major should be 0, and is %u", get16(m, 0));
    if (m->size == 4)
        return true;
    if (m->payload[m->size - 1] != '\0')
        trial_wrong(t, "the text should end with a NUL, which counts in the size, and ends with %#x",
                    m->payload[m->size - 1]);
    json = text_of(m);
    if (!json_is_object(json))
        trial_wrong(t, "the text should be a JSON object in UTF-8, and is '%.*s'", (int)(m->size - 5),
                    (char *)m->payload + 4);
    json_decref(json);
    return true;
}

static void check_numbers(struct trial *t, const json_t *caps)
{
    static const char *const names[] = { "max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes" };
    const json_t *value;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        value = json_object_get(caps, names[i]);
        if (value != NULL && (!json_is_integer(value) || json_integer_value(value) < 0))
            trial_wrong(t, "%s should be an integer that is not negative", names[i]);
    }
    value = json_object_get(caps, "write_multiple");
    if (value != NULL && !json_is_boolean(value))
        trial_wrong(t, "write_multiple should be true or false");
}

static bool version_types(struct trial *t, const struct ob_raw_message *m)
{
    json_t *json = m->header.command == OB_RAW_VERSION ? text_of(m) : NULL;
    const json_t *caps = json_object_get(json, "capabilities");

    if (json_is_object(json) && caps != NULL) {
        if (json_is_object(caps))
            check_numbers(t, caps);
        else
            trial_wrong(t, "capabilities should be an object");
    }
    json_decref(json);
    return caps != NULL;
}

/* --- Limits held -------------------------------------------------------------------------------------------------- */

static bool descriptors_limited(struct trial *t, const struct ob_raw_message *m)
{
    if (m->nfds > t->model.max_msg_fds)
        trial_wrong(t, "%s: a message should have no more descriptors than the server's max_msg_fds, %u, and has %u",
                    command_name(m->header.command), t->model.max_msg_fds, m->nfds);
    return m->nfds > 0;
}

static bool data_limited(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_REGION_READ && m->header.command != OB_RAW_REGION_WRITE)
        return false;
    if (get32(m, 12) > t->model.max_data)
        trial_wrong(t, "%s: the count should be at most the server's max_data_xfer_size, %u, and is %u",
                    command_name(m->header.command), t->model.max_data, get32(m, 12));
    return true;
}

static bool maps_limited(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_DMA_MAP)
        return false;
    if (t->model.n_maps >= t->model.max_maps)
        trial_wrong(t, "there should be no more DMA maps than the server's max_dma_maps, %u, and this is one more",
                    t->model.max_maps);
    return true;
}

static bool pages(struct trial *t, const struct ob_raw_message *m)
{
    uint64_t page = t->model.pgsizes & -t->model.pgsizes;

    if (m->header.command != OB_RAW_DMA_MAP)
        return false;
    if ((get64(m, 16) | get64(m, 24)) % page != 0)
        trial_wrong(t,
                    "address and size of a map should be multiples of the server's smallest page size, %#llx, and "
                    "are %#llx and %#llx",
                    (unsigned long long)page, (unsigned long long)get64(m, 16), (unsigned long long)get64(m, 24));
    return true;
}

static bool multi_agreed(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_WRITE_MULTI)
        return false;
    if (!t->model.multi || !t->model.client_multi)
        trial_wrong(t, "REGION_WRITE_MULTI should come only after both sides announced write_multiple, and %s did not",
                    t->model.client_multi ? "the server" : "the client");
    return true;
}

/* --- Variations --------------------------------------------------------------------------------------------------- */

#define DEFAULTS "\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\"pgsizes\":4096"

static void one_descriptor(struct trial *t)
{
    t->model.max_msg_fds = 1;
    trial_want_same(t, 0);
}

static void no_descriptor(struct trial *t)
{
    t->model.max_msg_fds = 0;
    trial_want_held(t, BIT(OB_RAW_DMA_MAP) | BIT(OB_RAW_SET_IRQS));
}

static void little_data(struct trial *t)
{
    t->model.max_data = 64;
    trial_want_held(t, BIT(OB_RAW_WRITE_MULTI));
}

static void few_maps(struct trial *t)
{
    t->model.max_maps = 2;
    trial_want_held(t, BIT(OB_RAW_DMA_MAP) | BIT(OB_RAW_DMA_UNMAP));
}

/* What is not of such pages cannot be mapped. */
static void large_pages(struct trial *t)
{
    t->model.pgsizes = 65536;
    trial_want_held(t, BIT(OB_RAW_DMA_MAP) | BIT(OB_RAW_DMA_UNMAP));
}

static void several_pages(struct trial *t)
{
    t->model.pgsizes = 4096 | 2097152;
    trial_want_same(t, 0);
}

static void no_multi(struct trial *t)
{
    t->model.multi = false;
    trial_want_same(t, BIT(OB_RAW_WRITE_MULTI));
}

static void unknown_keys(struct trial *t)
{
    t->model.version_text = "{\"name\":{\"x\":[1]},\"capabilities\":{\"future\":null," DEFAULTS ",\"p\":{}}}";
    t->model.multi = false;
    trial_want_same(t, BIT(OB_RAW_WRITE_MULTI));
}

static void long_text(struct trial *t)
{
    char *text = trial_alloc(t, 1024);

    memset(text, ' ', 800);
    strcpy(text + 800, "{\"capabilities\":{" DEFAULTS "}}");
    t->model.version_text = text;
    t->model.multi = false;
    trial_want_same(t, BIT(OB_RAW_WRITE_MULTI));
}

/* A reply with that text, in which the capabilities are absent that have these values. */
static void absent(struct trial *t, const char *text)
{
    t->model.version_text = text;
    t->model.max_msg_fds = 1;
    t->model.max_data = 1048576;
    t->model.max_maps = 65535;
    t->model.pgsizes = 4096;
    t->model.multi = false;
    trial_want_same(t, BIT(OB_RAW_WRITE_MULTI));
    trial_want(t, t->broken_new[0] == '\0', "with the defaults: %s", t->broken_new);
}

static void no_text(struct trial *t)
{
    absent(t, "");
}

static void no_capabilities(struct trial *t)
{
    absent(t, "{}");
}

static void empty_capabilities(struct trial *t)
{
    absent(t, "{\"capabilities\":{}}");
}

/* --- Faults ------------------------------------------------------------------------------------------------------- */

static void other_version(struct trial *t, uint16_t major, uint16_t minor, const char *what)
{
    struct reply *reply = trial_success(t, trial_await(t, OB_RAW_VERSION));
    const uint16_t version[] = { major, minor };

    reply_put(reply, 0, version, sizeof(version));
    trial_send(t, reply);
    trial_want_refused(t, what);
}

static void other_major(struct trial *t)
{
    other_version(t, 1, 0, "a reply with major 1");
}

static void higher_minor(struct trial *t)
{
    other_version(t, 0, 1, "a reply with minor 1");
}

static void bad_text(struct trial *t, const char *text, size_t size, const char *what)
{
    struct reply *reply = trial_success(t, trial_await(t, OB_RAW_VERSION));

    reply_resize(reply, 4);
    reply_put(reply, 4, text, size);
    trial_send(t, reply);
    trial_want_refused(t, what);
}

#define BAD_TEXT(name, text)                               \
    static void name(struct trial *t)                      \
    {                                                      \
        bad_text(t, text, sizeof(text), "the text " text); \
    }
BAD_TEXT(malformed, "{\"capabilities\":{")
BAD_TEXT(no_object, "[]")
BAD_TEXT(odd_capabilities, "{\"capabilities\":7}")
BAD_TEXT(odd_fds, "{\"capabilities\":{\"max_msg_fds\":\"8\"}}")
BAD_TEXT(negative_data, "{\"capabilities\":{\"max_data_xfer_size\":-1}}")
BAD_TEXT(odd_maps, "{\"capabilities\":{\"max_dma_maps\":[]}}")
BAD_TEXT(odd_pages, "{\"capabilities\":{\"pgsizes\":\"4096\"}}")
BAD_TEXT(odd_multi, "{\"capabilities\":{\"write_multiple\":1}}")

static void no_nul(struct trial *t)
{
    static const char text[] = "{\"capabilities\":{}} ";

    bad_text(t, text, sizeof(text) - 1, "a text without its NUL");
}

const struct client_check client_version_checks[] = {
    RULE("version-first", "VU-VER-1", "VERSION comes first, and once", comes_first, "the client sent nothing"),
    RULE("version-layout", "VU-VER-3", "VERSION has major, minor, and a JSON text with its NUL", version_layout,
         "the client sent no VERSION"),
    RULE("version-posted", "VU-VER-31", "VERSION is not posted", not_posted, "the client sent no VERSION"),
    RULE("version-types", "VU-VER-32", "capabilities are integers, true or false", version_types,
         "the client announced no capabilities"),
    RULE("limit-descriptors", "VU-VER-18", "a message has at most the server's max_msg_fds", descriptors_limited,
         "the client sent no descriptor"),
    RULE("limit-data", "VU-VER-22", "counts are at most the server's max_data_xfer_size", data_limited,
         "the client read and wrote no region"),
    RULE("limit-maps", "VU-VER-26", "there are at most the server's max_dma_maps", maps_limited,
         "the client sent no DMA_MAP"),
    RULE("limit-pages", "VU-VER-28", "maps are multiples of the server's smallest page size", pages,
         "the client sent no DMA_MAP"),
    RULE("limit-multi", "VU-VER-29", "REGION_WRITE_MULTI comes only if it was agreed upon", multi_agreed,
         "the client sent no REGION_WRITE_MULTI"),
    VARIATION("offer-one-descriptor", "VU-VER-18", "a server with max_msg_fds 1 will do", one_descriptor),
    VARIATION("offer-no-descriptor", "VU-VER-18", "a server with max_msg_fds 0 will do", no_descriptor),
    VARIATION("offer-little-data", "VU-VER-22", "a server with max_data_xfer_size 64 will do", little_data),
    VARIATION("offer-few-maps", "VU-VER-26", "a server with max_dma_maps 2 will do", few_maps),
    VARIATION("offer-large-pages", "VU-VER-28", "a server with pages of 64 KiB will do", large_pages),
    VARIATION("offer-several-pages", "VU-VER-28", "a server with pages of 4 KiB and 2 MiB will do", several_pages),
    VARIATION("offer-no-multi", "VU-VER-29", "a server without write_multiple will do", no_multi),
    VARIATION("reply-unknown-keys", "VU-VER-10", "unknown keys are ignored", unknown_keys),
    VARIATION("reply-long-text", "VU-VER-3", "the text of the reply may be longer than the client's", long_text),
    VARIATION("reply-no-text", "VU-VER-17", "without a text the defaults hold", no_text),
    VARIATION("reply-no-capabilities", "VU-VER-17", "without capabilities the defaults hold", no_capabilities),
    VARIATION("reply-empty-capabilities", "VU-VER-17", "absent capabilities have their defaults", empty_capabilities),
    FAULT("version-other-major", "VU-VER-15", "another major is refused", other_major),
    FAULT("version-higher-minor", "VU-VER-15", "a higher minor is refused", higher_minor),
    FAULT("text-malformed", "VU-VER-16", "a malformed text is refused", malformed),
    FAULT("text-no-nul", "VU-VER-16", "a text without its NUL is refused", no_nul),
    FAULT("text-no-object", "VU-VER-41", "a text that is no object is refused", no_object),
    FAULT("text-capabilities", "VU-VER-41", "capabilities that are no object are refused", odd_capabilities),
    FAULT("text-max-msg-fds", "VU-VER-16", "a max_msg_fds that is no number is refused", odd_fds),
    FAULT("text-max-data", "VU-VER-41", "a max_data_xfer_size that is negative is refused", negative_data),
    FAULT("text-max-dma-maps", "VU-VER-41", "a max_dma_maps that is no number is refused", odd_maps),
    FAULT("text-pgsizes", "VU-VER-41", "a pgsizes that is no number is refused", odd_pages),
    FAULT("text-write-multiple", "VU-VER-41", "a write_multiple that is no boolean is refused", odd_multi),
    { .is = { NULL, NULL, NULL } },
};
