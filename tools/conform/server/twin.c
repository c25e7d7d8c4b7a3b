/* twin.c: VU-TWIN: the socket of its own that a client gives the server's requests. */
#include "guest.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char offer[] = "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"supported\":true}}}";

/* What a reply to VERSION says of it, for a report. */
static const char *about_twin(const struct ob_raw_message *reply)
{
    const char *text = reply->size > 4 ? (const char *)reply->payload + 4 : "no text";
    const char *at = strstr(text, "\"twin_socket\"");

    return at != NULL ? at : text;
}

static struct ob_raw_message *version(struct judge *j, const char *json)
{
    struct ob_raw_message *reply;

    want_ok(j, judge_version(j, 0, 0, json, &reply), "VERSION");
    return reply;
}

/* Negotiates with that text, and takes the twin socket. */
static void take_twin(struct judge *j, const char *json)
{
    struct ob_raw_message *reply = version(j, json);
    int r;

    ob_raw_close(&j->twin);
    r = ob_raw_take_twin(reply, &j->twin);
    want(j, r != -ENOENT, "the reply does not offer a twin socket: %.250s", about_twin(reply));
    want(j, r == 0, "the reply offers a twin socket, but fd_index names none of its %u descriptors: %.100s",
         reply->nfds, about_twin(reply));
    j->twin.timeout_ms = j->raw.timeout_ms;
    j->twin.trace = j->raw.trace;
    j->twin.trace_ctx = j->raw.trace_ctx;
}

/* What came over a socket. */
struct seen {
    struct judge *j;
    ob_raw_dma_fn *serve;
    unsigned reads, writes;
};

static int count_and_serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct seen *seen = ctx;

    *(write ? &seen->writes : &seen->reads) += 1;
    return seen->serve(seen->j, write, address, count, data);
}

/* A client with a twin socket or without, and a device that is on and reaches guest memory by messages. */
struct client {
    struct guest_pair guest;
    struct seen main, twin;
};

static struct client *attach(struct judge *j, bool twin)
{
    struct client *c = judge_alloc(j, sizeof(*c));

    if (twin)
        take_twin(j, offer);
    c->guest = guest_pair(j, false);
    c->main = c->twin = (struct seen){ .j = j, .serve = j->raw.dma };
    j->raw.dma = count_and_serve;
    j->raw.dma_ctx = &c->main;
    j->twin.dma_ctx = &c->twin;
    return c;
}

static void serve_twin(struct judge *j)
{
    j->twin.dma = count_and_serve;
    j->raw.twin = &j->twin;
}

static int copy(struct judge *j)
{
    int result = device_copy(j, GUEST_FROM, GUEST_TO, GUEST_LEN);

    guest_judged(j);
    return result;
}

static void want_copied(struct judge *j, const struct client *c, int result, const char *what)
{
    want(j, result == 0, "the device's copy failed %s: %d (%s)", what, result, strerror(result));
    want(j, guest_filled(c->guest.to->bytes, GUEST_LEN, 1), "what the device copied is not there %s", what);
}

static void want_nothing_on_main(struct judge *j, const struct client *c, const char *what)
{
    want(j, c->main.reads + c->main.writes == 0, "%u DMA_READ and %u DMA_WRITE came over the main socket %s",
         c->main.reads, c->main.writes, what);
}

/* --- Negotiation ------------------------------------------------------------------------------------------------- */

/* The reply says nothing of a twin socket, or that there is none. */
static void not_given(struct judge *j, const char *json)
{
    const struct ob_raw_message *reply = version(j, json);

    want(j, ob_raw_twin_index(reply) == -ENOENT, "to %s the reply offers a twin socket: %.100s", json,
         about_twin(reply));
    want(j, reply->nfds == 0, "to %s the reply has %u descriptors, wanted none", json, reply->nfds);
}

static void check_not_offered(struct judge *j)
{
    static const char *const without[] = {
        "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"supported\":false,\"fd_index\":0}}}",
        "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"fd_index\":0}}}",
        "{\"capabilities\":{\"max_msg_fds\":16}}",
    };

    for (size_t i = 0; i < sizeof(without) / sizeof(*without); i++) {
        if (i > 0)
            judge_reconnect_bare(j);
        not_given(j, without[i]);
    }
}

static void check_no_descriptors(struct judge *j)
{
    not_given(j, "{\"capabilities\":{\"max_msg_fds\":0,\"twin_socket\":{\"supported\":true}}}");
}

static void check_fd_index(struct judge *j)
{
    take_twin(j, offer);
}

static void check_one_descriptor(struct judge *j)
{
    const struct ob_raw_message *reply =
        version(j, "{\"capabilities\":{\"max_msg_fds\":1,\"twin_socket\":{\"supported\":true}}}");

    want(j, reply->nfds <= 1, "%u descriptors came with the twin socket, and the client takes 1", reply->nfds);
}

static void check_fd_index_ignored(struct judge *j)
{
    take_twin(j, "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"supported\":true,\"fd_index\":7}}}");
}

static void check_connected(struct judge *j)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);

    take_twin(j, offer);
    want(j, getpeername(j->twin.fd, (struct sockaddr *)&peer, &size) == 0,
         "the descriptor at fd_index is no connected socket: %s", strerror(errno));
}

static void check_fresh(struct judge *j)
{
    struct stat first, second;

    take_twin(j, offer);
    want(j, fstat(j->twin.fd, &first) == 0, "the twin socket is no descriptor: %s", strerror(errno));
    judge_hold(j, dup(j->twin.fd), "descriptor"); /* as long as it is open, no other socket has its number */
    judge_reconnect_bare(j);
    take_twin(j, offer);
    want(j, fstat(j->twin.fd, &second) == 0, "the twin socket is no descriptor: %s", strerror(errno));
    want(j, first.st_ino != second.st_ino, "two connections got the same twin socket");
}

/* --- What goes over it ------------------------------------------------------------------------------------------- */

static void check_read(struct judge *j)
{
    const struct client *c = attach(j, true);

    serve_twin(j);
    copy(j);
    want(j, c->main.reads == 0, "%u DMA_READ came over the main socket", c->main.reads);
    want(j, c->twin.reads > 0, "no DMA_READ came over the twin socket");
}

static void check_write(struct judge *j)
{
    const struct client *c = attach(j, true);

    serve_twin(j);
    want_copied(j, c, copy(j), "over the twin socket");
    want(j, c->main.writes == 0, "%u DMA_WRITE came over the main socket", c->main.writes);
    want(j, c->twin.writes > 0, "no DMA_WRITE came over the twin socket");
}

static void check_after_reset(struct judge *j)
{
    struct client *c = attach(j, true);

    serve_twin(j);
    copy(j);
    c->main.reads = c->main.writes = c->twin.reads = 0;
    device_on(j, true);
    copy(j);
    want_nothing_on_main(j, c, "after DEVICE_RESET");
    want(j, c->twin.reads > 0, "no DMA_READ came over the twin socket after DEVICE_RESET");
}

static void check_without(struct judge *j)
{
    const struct client *c = attach(j, false);

    copy(j);
    want(j, c->main.reads > 0 && c->main.writes > 0,
         "%u DMA_READ and %u DMA_WRITE came over the main socket, wanted both", c->main.reads, c->main.writes);
}

/* --- Its end ----------------------------------------------------------------------------------------------------- */

static void check_closed(struct judge *j)
{
    attach(j, true);
    judge_may_close(j);
    ob_raw_close(&j->twin);
    want_alive(j, "GET_INFO after the twin socket was closed");
    want_failed(j, copy(j), "after the twin socket was closed");
    want_alive(j, "GET_INFO after a copy that needs the twin socket, which was closed");
}

/* The first DMA_READ of a copy that has begun, not answered. */
static struct ob_raw_message *begun(struct judge *j)
{
    struct ob_raw_message *command;

    device_copy_begin(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
    command = receive_on(j, &j->twin, "waiting for DMA_READ on the twin socket");
    want(j,
         command->header.command == OB_RAW_DMA_READ && guest_range(j, command).address == GUEST_FROM &&
             guest_range(j, command).count - 1 < GUEST_LEN,
         "on the twin socket came command %u of %u bytes, wanted DMA_READ of up to %u bytes at %#llx",
         command->header.command, command->header.size, GUEST_LEN, (unsigned long long)GUEST_FROM);
    return command;
}

static void check_closed_in_flight(struct judge *j)
{
    attach(j, true);
    begun(j);
    judge_may_close(j);
    ob_raw_close(&j->twin);
    want_alive(j, "GET_INFO after the twin socket was closed with a command in it");
    want_failed(j, device_copy_end(j), "whose command was in the twin socket when it was closed");
    want_alive(j, "GET_INFO after a copy that needed the twin socket, which was closed");
}

static void check_closed_main(struct judge *j)
{
    const struct client *c = attach(j, true);

    judge_may_close(j);
    ob_raw_close(&j->twin);
    copy(j);
    want_nothing_on_main(j, c, "once the twin socket was closed");
}

static void check_closed_next(struct judge *j)
{
    const struct client *c;

    attach(j, true);
    begun(j);
    ob_raw_close(&j->twin);
    judge_reconnect_bare(j);
    c = attach(j, true);
    serve_twin(j);
    want_copied(j, c, copy(j), "for the next client");
    want(j, c->twin.reads > 0, "the next client's twin socket is not used");
}

static void check_ends(struct judge *j)
{
    take_twin(j, offer);
    judge_close(j);
    want(j, ob_raw_wait_closed(&j->twin, NULL) == 0, "the twin socket is still open %d ms after the connection ended",
         j->timeout_ms);
}

/* --- What a client can do to it ---------------------------------------------------------------------------------- */

/* Turns bus mastering on over the twin socket. The server answers there, or closes that or the connection, when it has
 * seen it: then the next connection shows what it did. */
static void check_command(struct judge *j)
{
    struct {
        struct ob_raw_region access;
        uint16_t value;
    } OB_RAW_PACKED write = { { .offset = 4, .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = 2 }, 4 };
    struct ob_raw_message *reply = NULL;
    int r;

    take_twin(j, offer);
    reset(j);
    config_write(j, 4, 2, 0);
    r = ob_raw_request(&j->twin, OB_RAW_REGION_WRITE, 0, &write, sizeof(write), NULL, 0, NULL);
    r = r < 0 ? r : ob_raw_receive(&j->twin, &reply);
    if (r == 0)
        want(j, judge_keep(j, reply)->header.flags & OB_RAW_ERROR,
             "a REGION_WRITE on the twin socket was answered with flags %#x, wanted a refusal", reply->header.flags);
    else if (r != -ENOTCONN)
        got(j, r, "a REGION_WRITE on the twin socket, wanted to be refused or to end it");
    judge_reconnect(j);
    want(j, (config_read(j, 4, 2) & 4) == 0,
         "a REGION_WRITE on the twin socket was executed: bus mastering is on in COMMAND");
}

/* The answer to that DMA_READ. */
static size_t build_answer(struct judge *j, uint8_t *to, const struct ob_raw_message *command, const struct client *c)
{
    const struct ob_raw_dma range = guest_range(j, command);
    uint8_t payload[sizeof(range) + GUEST_LEN];

    memcpy(payload, &range, sizeof(range));
    memcpy(payload + sizeof(range), c->guest.from->bytes, range.count);
    return ob_raw_build(to, command->header.id, OB_RAW_DMA_READ, OB_RAW_REPLY, payload, sizeof(range) + range.count);
}

static void send_on_twin(struct judge *j, const void *bytes, size_t size, int fd)
{
    got(j, ob_raw_send(&j->twin, bytes, size, &fd, fd >= 0), "answering on the twin socket");
}

/* Sends the answer in two pieces, and a round trip between them; the copy works. */
static void answer_in_pieces(struct judge *j, size_t first)
{
    const struct client *c = attach(j, true);
    uint8_t bytes[256];
    size_t size = build_answer(j, bytes, begun(j), c);

    send_on_twin(j, bytes, first, -1);
    want_alive(j, "GET_INFO while a part of an answer lies on the twin socket");
    send_on_twin(j, bytes + first, size - first, -1);
    serve_twin(j);
    want_copied(j, c, device_copy_end(j), "from an answer in two pieces");
}

static void check_half_header(struct judge *j)
{
    answer_in_pieces(j, 9);
}

static void check_half_message(struct judge *j)
{
    answer_in_pieces(j, 16 + 16);
}

static void check_descriptor(struct judge *j)
{
    const struct client *c = attach(j, true);
    uint8_t bytes[256];
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    send_on_twin(j, bytes, build_answer(j, bytes, begun(j), c), theirs);
    judge_give(j, theirs);
    serve_twin(j);
    device_copy_end(j);
    want_hangup(j, mine, "a descriptor that came with an answer on the twin socket");
}

static void check_unread(struct judge *j)
{
    const struct client *c = attach(j, true);
    struct pollfd waiting = { .fd = j->twin.fd, .events = POLLIN };

    device_copy_begin(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
    want(j, poll(&waiting, 1, j->timeout_ms) == 1, "nothing came over the twin socket for %d ms", j->timeout_ms);
    for (unsigned i = 0; i < 4; i++)
        want_alive(j, "GET_INFO while a command waits on the twin socket");
    guest_unmap(j, guest_map(j, 2 * GUEST_TO, j->facts.page, GUEST_BOTH, false));
    j->raw.dma = count_and_serve;
    j->raw.dma_ctx = (void *)&c->main;
    serve_twin(j);
    want_copied(j, c, device_copy_end(j), "served late");
}

static void check_unasked(struct judge *j)
{
    const struct client *c = attach(j, true);
    struct ob_raw_message *command = begun(j);
    uint8_t bytes[256];
    size_t size;

    command->header.id ^= 0x5555;
    size = build_answer(j, bytes, command, c);
    send_on_twin(j, bytes, size, -1);
    want_alive(j, "GET_INFO after a reply to nothing on the twin socket");
    command->header.id ^= 0x5555;
    size = build_answer(j, bytes, command, c);
    send_on_twin(j, bytes, size, -1);
    serve_twin(j);
    want_copied(j, c, device_copy_end(j), "after a reply to nothing on the twin socket");
}

/* Bus mastering goes off in the middle of a copy. What is there when the reply is, was sent before it. */
static void check_master_off(struct judge *j)
{
    const struct client *c = attach(j, true);
    struct ob_raw_message *command = begun(j);
    struct pollfd waiting = { .fd = j->twin.fd, .events = POLLIN };
    uint32_t ask[4] = { sizeof(ask) };
    uint8_t bytes[256];

    if (ob_raw_call(&j->raw, OB_RAW_GET_INFO, ask, sizeof(ask), NULL, 0, NULL) < 0)
        judge_skip(j, "the server answers nothing while a command waits on the twin socket");
    config_write(j, 4, 2, 3);
    while (poll(&waiting, 1, 0) == 1)
        receive_on(j, &j->twin, "a command that was sent before");
    send_on_twin(j, bytes, build_answer(j, bytes, command, c), -1);
    for (unsigned i = 0; i < 8; i++)
        want_alive(j, "GET_INFO after bus mastering was turned off");
    want(j, poll(&waiting, 1, 0) == 0,
         "something came over the twin socket after the reply to the write that turned bus mastering off");
    want_nothing_on_main(j, c, "after bus mastering was turned off");
}

#define TWIN (CHECK_BARE | NEED_TWIN)
#define DMA  (CHECK_BARE | NEED_TWIN | NEED_DMA)

const struct check server_twin_checks[] = {
    { { "twin-not-offered", "VU-TWIN-2", "a client that offers no twin socket gets none" },
      CHECK_BARE,
      check_not_offered },
    { { "twin-fd-index", "VU-TWIN-3", "fd_index names one of the reply's descriptors" }, TWIN, check_fd_index },
    { { "twin-connected", "VU-TWIN-3", "it is a connected socket" }, TWIN, check_connected },
    { { "twin-fresh", "VU-TWIN-3", "each connection gets a socket of its own" }, TWIN, check_fresh },
    { { "twin-one-descriptor", "VU-VER-19", "a client that takes one descriptor gets no second one with it" },
      TWIN,
      check_one_descriptor },
    { { "twin-read", "VU-TWIN-4", "DMA_READ comes over the twin socket alone" }, DMA, check_read },
    { { "twin-write", "VU-TWIN-4", "DMA_WRITE comes over the twin socket alone" }, DMA, check_write },
    { { "twin-after-reset", "VU-TWIN-4", "so it is after a reset" }, DMA | NEED_RESET, check_after_reset },
    { { "twin-closed-main", "VU-TWIN-4", "nothing comes over the main socket once the twin socket is closed" },
      DMA,
      check_closed_main },
    { { "twin-without", "VU-TWIN-6", "without a twin socket DMA_READ and DMA_WRITE come over the main one" },
      NEED_DMA,
      check_without },
    { { "twin-fd-index-ignored", "VU-TWIN-10", "fd_index in the request is ignored" }, TWIN, check_fd_index_ignored },
    { { "twin-closed", "VU-TWIN-11",
        "transfers fail once the client has closed the twin socket, or the connection ends" },
      DMA,
      check_closed },
    { { "twin-closed-in-flight", "VU-TWIN-11", "so it is with a command unanswered" }, DMA, check_closed_in_flight },
    { { "twin-closed-next", "VU-TWIN-11", "the next client gets a twin socket that works" },
      DMA | NEED_NEXT,
      check_closed_next },
    { { "twin-no-descriptors", "VU-TWIN-12", "a client that takes no descriptors gets no twin socket" },
      CHECK_BARE,
      check_no_descriptors },
    { { "twin-command", "VU-TWIN-13", "a command on the twin socket is refused or ends it, and not executed" },
      TWIN | NEED_NEXT,
      check_command },
    { { "twin-half-header", "VU-TWIN-14", "replies come while a part of a header lies on the twin socket" },
      DMA,
      check_half_header },
    { { "twin-half-message", "VU-TWIN-14", "replies come while a part of an answer lies on the twin socket" },
      DMA,
      check_half_message },
    { { "twin-unread", "VU-TWIN-14", "replies come while a command waits on the twin socket" }, DMA, check_unread },
    { { "twin-ends", "VU-TWIN-15", "the twin socket ends with the connection" }, TWIN, check_ends },
    { { "twin-master-off", "VU-TWIN-16", "no command comes behind the reply that says that bus mastering is off" },
      DMA,
      check_master_off },
    { { "twin-unasked-reply", "VU-HDR-25", "a reply to nothing on the twin socket is discarded" }, DMA, check_unasked },
    { { "twin-descriptor", "VU-CON-19", "a descriptor that comes over the twin socket is closed" },
      DMA,
      check_descriptor },
    { { NULL, NULL, NULL }, 0, NULL },
};
