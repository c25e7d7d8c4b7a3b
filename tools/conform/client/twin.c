/* twin.c: VU-TWIN: a socket for the server's commands. */
#include <jansson.h>
#include <unistd.h>

#include "check.h"

#define BYTES 16

static bool offer(struct trial *t, const struct ob_raw_message *m)
{
    json_t *json = m->header.command == OB_RAW_VERSION && m->size > 5
                       ? json_loadb((char *)m->payload + 4, m->size - 5, 0, NULL)
                       : NULL;
    const json_t *twin = json_object_get(json_object_get(json, "capabilities"), "twin_socket");
    const json_t *supported = json_object_get(twin, "supported");

    if (twin != NULL && !json_is_object(twin))
        trial_wrong(t, "twin_socket should be an object");
    else if (twin != NULL && supported != NULL && !json_is_boolean(supported))
        trial_wrong(t, "supported should be true or false");
    else if (json_object_get(twin, "fd_index") != NULL)
        trial_wrong(t, "fd_index should not be in a request");
    json_decref(json);
    return twin != NULL;
}

/* Begins a session in which the server's commands go over the twin socket. */
static struct model_map await_twin_map(struct trial *t, unsigned sorts)
{
    struct model_map map;

    t->model.twin = true;
    map = trial_await_map(t, sorts);
    if (t->twin.fd < 0)
        trial_skip(t, "the client offers no twin socket");
    return map;
}

static void replies(struct trial *t)
{
    struct model_map map = await_twin_map(t, MAP_READ);

    trial_dma(t, OB_RAW_DMA_READ, 0, map.address, BYTES, NULL, 0);
    trial_dma_reply(t, "DMA_READ on the twin socket");
    trial_want(t, t->answered_on_twin, "the reply should come on the twin socket, and came on the main one");
    trial_want_same(t, 0);
    trial_want(t, !t->asked_on_twin, "the client's own commands should stay on the main socket");
}

static void in_call(struct trial *t)
{
    struct model_map map = await_twin_map(t, MAP_READ);
    struct ob_raw_message *m = trial_await(t, OB_RAW_REGION_READ);

    for (unsigned i = 0; i < 3; i++) {
        trial_dma(t, OB_RAW_DMA_READ, 0, map.address, BYTES, NULL, 0);
        trial_want(t,
                   !trial_refused(t, trial_dma_reply_now(t, "DMA_READ on the twin socket between a command on the "
                                                            "main one and its reply")),
                   "DMA_READ on the twin socket should succeed, and failed");
    }
    trial_answer(t, m);
    trial_want_same(t, 0);
}

/* What the client sends next shows that it has acted on the reply. That it has served the DMA_WRITE is seen in memory:
 * its answer may be under way on the other socket. */
static void before_reply(struct trial *t)
{
    struct model_map map = await_twin_map(t, MAP_WRITE | MAP_FD);
    struct ob_raw_message *m = trial_await(t, OB_RAW_RESET);
    uint8_t was[BYTES] = { 0 }, written[BYTES], is[BYTES] = { 0 };

    trial_want(t, pread(map.fd, was, BYTES, (off_t)map.offset) == BYTES, "the judge cannot read the client's memory");
    for (unsigned i = 0; i < BYTES; i++)
        written[i] = (uint8_t)~was[i];
    trial_dma(t, OB_RAW_DMA_WRITE, 0, map.address, BYTES, written, BYTES);
    trial_answer(t, m);
    m = trial_next(t);
    trial_want(
        t, pread(map.fd, is, BYTES, (off_t)map.offset) == BYTES && memcmp(is, written, BYTES) == 0,
        "a DMA_WRITE that came on the twin socket before the reply to DEVICE_RESET should be in the memory before "
        "the client goes on: %s",
        m != NULL ? command_name(m->header.command) : trial_end_text(t));
    if (m != NULL)
        trial_answer(t, m);
    trial_want_same(t, 0);
}

#define DEFAULTS "\"max_msg_fds\":16,\"write_multiple\":true"

static void declined(struct trial *t, const char *text)
{
    struct ob_raw_message *m;

    m = trial_await(t, OB_RAW_VERSION);
    t->model.version_text = text;
    trial_answer(t, m);
    if (!t->model.client_twin)
        trial_skip(t, "the client offers no twin socket");
    trial_want_same(t, 0);
}

static void not_supported(struct trial *t)
{
    declined(t, "{\"capabilities\":{" DEFAULTS ",\"twin_socket\":{\"supported\":false}}}");
}

static void says_nothing(struct trial *t)
{
    declined(t, "{\"capabilities\":{" DEFAULTS ",\"twin_socket\":{}}}");
}

static void inconsistent(struct trial *t, const char *text, bool descriptor, const char *what)
{
    struct ob_raw_message *m = trial_await(t, OB_RAW_VERSION);
    struct reply *reply;
    int mine, theirs;

    t->model.version_text = text;
    reply = trial_reply(t, m);
    if (!t->model.client_twin)
        trial_skip(t, "the client offers no twin socket");
    trial_pair(t, &mine, &theirs);
    if (descriptor)
        reply_add_fd(reply, theirs, false);
    trial_send(t, reply);
    trial_want_refused(t, what);
}

static void no_index(struct trial *t)
{
    inconsistent(t, "{\"capabilities\":{" DEFAULTS ",\"twin_socket\":{\"supported\":true}}}", true,
                 "a twin socket without fd_index");
}

static void index_beyond(struct trial *t)
{
    inconsistent(t, "{\"capabilities\":{" DEFAULTS ",\"twin_socket\":{\"supported\":true,\"fd_index\":1}}}", true,
                 "a twin socket with fd_index 1 and one descriptor");
}

static void no_descriptor(struct trial *t)
{
    inconsistent(t, "{\"capabilities\":{" DEFAULTS ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}", false,
                 "a twin socket without a descriptor");
}

static void negative_index(struct trial *t)
{
    inconsistent(t, "{\"capabilities\":{" DEFAULTS ",\"twin_socket\":{\"supported\":true,\"fd_index\":-1}}}", true,
                 "a twin socket with fd_index -1");
}

const struct client_check client_twin_checks[] = {
    RULE("twin-offer", "VU-TWIN-1", "a twin socket is offered by supported, without fd_index", offer,
         "the client offers no twin socket"),
    VARIATION("twin-replies", "VU-TWIN-5", "replies go over the twin socket, the rest over the main one", replies),
    VARIATION("twin-in-call", "VU-TWIN-9", "the twin socket is served while a command is outstanding", in_call),
    VARIATION("twin-before-reply", "VU-TWIN-17", "what came on the twin socket before a reply is served before it",
              before_reply),
    VARIATION("twin-not-supported", "VU-TWIN-7", "a server that declines will do", not_supported),
    VARIATION("twin-says-nothing", "VU-TWIN-7", "a twin_socket without supported is none", says_nothing),
    FAULT("twin-no-index", "VU-TWIN-8", "a twin socket without fd_index is refused", no_index),
    FAULT("twin-index-beyond", "VU-TWIN-8", "an fd_index beyond the descriptors is refused", index_beyond),
    FAULT("twin-index-negative", "VU-TWIN-8", "a negative fd_index is refused", negative_index),
    FAULT("twin-no-descriptor", "VU-TWIN-8", "a twin socket that does not come is refused", no_descriptor),
    { .is = { NULL, NULL, NULL } },
};
