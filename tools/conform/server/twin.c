/* twin.c: VU-TWIN: the socket of its own that a client gives the server's requests. */
#include "exerciser.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FROM  0x100000ull
#define TO    0x110000ull
#define ROOM  0x10000u
#define COUNT 64u

static const char offer[] = "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"supported\":true}}}";

/* Memory that the device reaches by messages only, and what came over which socket. */
struct memory {
    struct judge *j;
    uint8_t *bytes; /* of both sockets: ROOM each at FROM and TO */
    unsigned reads, writes;
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct memory *m = ctx;
    uint8_t *at = m->bytes + (address - FROM);

    *(write ? &m->writes : &m->reads) += 1;
    if (address >= EXERCISER_IOVA && m->j->copy_ring != NULL) /* the device's own, whose descriptor the server has */
        at = (uint8_t *)m->j->copy_ring + (address - EXERCISER_IOVA);
    else if (address < FROM || count > COUNT || address - FROM > 2 * ROOM - count)
        return EFAULT;
    memcpy(write ? at : data, write ? data : at, count);
    return 0;
}

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

/* A device that is on and can reach memory by messages, which `main` and `twin` serve. */
static void ready(struct judge *j, struct memory *main, struct memory *twin)
{
    uint8_t *bytes = judge_alloc(j, 2 * ROOM);

    if (j->facts.page > ROOM)
        judge_skip(j, "the server's pages are larger than the memory of this check");
    *main = *twin = (struct memory){ .j = j, .bytes = bytes };
    memset(bytes, 0xa5, COUNT);
    device_on(j, true);
    want_ok(j, map(j, FROM, 2 * ROOM, 3, -1, 0), "DMA_MAP without a descriptor");
    j->raw.dma = serve;
    j->raw.dma_ctx = main;
    j->twin.dma_ctx = twin;
}

static void serve_twin(struct judge *j)
{
    j->twin.dma = serve;
    j->raw.twin = &j->twin;
}

static void copied(struct judge *j, const struct memory *m, const char *what)
{
    want(j, memcmp(m->bytes, m->bytes + ROOM, COUNT) == 0, "%s: what the device copied is not there", what);
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
    not_given(j, "{\"capabilities\":{\"max_msg_fds\":16}}");
}

static void check_declined(struct judge *j)
{
    not_given(j, "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"supported\":false}}}");
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

    want(j, reply->nfds <= 1, "the reply has %u descriptors, and the client takes 1", reply->nfds);
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
    judge_hold(j, dup(j->twin.fd)); /* as long as it is open, no other socket has its number */
    judge_reconnect_bare(j);
    take_twin(j, offer);
    want(j, fstat(j->twin.fd, &second) == 0, "the twin socket is no descriptor: %s", strerror(errno));
    want(j, first.st_ino != second.st_ino, "two connections got the same twin socket");
}

/* --- What goes over it ------------------------------------------------------------------------------------------- */

static void check_read(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    serve_twin(j);
    device_copy(j, FROM, TO, COUNT);
    want(j, main.reads == 0, "%u DMA_READ came over the main socket", main.reads);
    want(j, twin.reads > 0, "no DMA_READ came over the twin socket");
}

static void check_write(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    serve_twin(j);
    want(j, device_copy(j, FROM, TO, COUNT) == 0, "the device's copy failed");
    want(j, main.writes == 0, "%u DMA_WRITE came over the main socket", main.writes);
    want(j, twin.writes > 0, "no DMA_WRITE came over the twin socket");
    copied(j, &twin, "over the twin socket");
}

static void check_after_reset(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    serve_twin(j);
    device_copy(j, FROM, TO, COUNT);
    main.reads = main.writes = twin.reads = twin.writes = 0;
    unmap(j, EXERCISER_IOVA, EXERCISER_SIZE);
    device_on(j, true);
    device_copy(j, FROM, TO, COUNT);
    want(j, main.reads + main.writes == 0, "after DEVICE_RESET %u DMA commands came over the main socket",
         main.reads + main.writes);
    want(j, twin.reads > 0, "after DEVICE_RESET no DMA_READ came over the twin socket");
}

static void check_without(struct judge *j)
{
    struct memory main, twin;

    ready(j, &main, &twin);
    device_copy(j, FROM, TO, COUNT);
    want(j, main.reads > 0 && main.writes > 0, "%u DMA_READ and %u DMA_WRITE came over the main socket, wanted both",
         main.reads, main.writes);
}

/* --- Its end ----------------------------------------------------------------------------------------------------- */

static void check_closed(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    ob_raw_close(&j->twin);
    want_alive(j, "GET_INFO after the twin socket was closed");
    device_copy(j, FROM, TO, COUNT);
    want_alive(j, "GET_INFO after a copy that needs the twin socket, which was closed");
}

/* The first DMA_READ of a copy that has begun, not answered. */
static struct ob_raw_message *begun(struct judge *j)
{
    struct ob_raw_message *command;

    device_copy_begin(j, FROM, TO, COUNT);
    command = receive_on(j, &j->twin, "waiting for DMA_READ on the twin socket");
    want(j,
         command->header.command == OB_RAW_DMA_READ && field64(j, command, 0) == FROM &&
             field64(j, command, 8) - 1 < COUNT,
         "on the twin socket came command %u of %u bytes, wanted DMA_READ of up to %u bytes at %#llx",
         command->header.command, command->header.size, COUNT, FROM);
    return command;
}

static void check_closed_in_flight(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    begun(j);
    ob_raw_close(&j->twin);
    want_alive(j, "GET_INFO after the twin socket was closed with a command in it");
    device_copy_end(j);
    want_alive(j, "GET_INFO after a copy that needed the twin socket, which was closed");
}

static void check_closed_main(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    ob_raw_close(&j->twin);
    device_copy(j, FROM, TO, COUNT);
    want(j, main.reads + main.writes == 0, "%u DMA commands came over the main socket once the twin socket was closed",
         main.reads + main.writes);
}

static void check_closed_next(struct judge *j)
{
    struct memory main, twin;

    take_twin(j, offer);
    ready(j, &main, &twin);
    ob_raw_close(&j->twin);
    device_copy(j, FROM, TO, COUNT);
    judge_reconnect_bare(j);
    take_twin(j, offer);
    ready(j, &main, &twin);
    serve_twin(j);
    want(j, device_copy(j, FROM, TO, COUNT) == 0 && twin.reads > 0,
         "the next client's twin socket is not used: %u DMA_READ came over it", twin.reads);
    copied(j, &twin, "the next client");
}

static void check_ends(struct judge *j)
{
    take_twin(j, offer);
    judge_close(j);
    want(j, ob_raw_wait_closed(&j->twin, NULL) == 0, "the twin socket is still open %d ms after the connection ended",
         j->timeout_ms);
}

/* --- What a client can do to it ---------------------------------------------------------------------------------- */

/* Writes COMMAND over the twin socket. The server answers there, or closes that or the connection, when it has seen
 * it: then the main socket shows what it did. */
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
    if (r == 0) {
        uint32_t flags = reply->header.flags;

        ob_raw_message_free(reply);
        want(j, flags & OB_RAW_ERROR, "a REGION_WRITE on the twin socket was answered with flags %#x, wanted a refusal",
             flags);
    } else if (r != -ENOTCONN) {
        got(j, r, "a REGION_WRITE on the twin socket, wanted to be refused or to end it");
    }
    judge_reconnect(j);
    want(j, (config_read(j, 4, 2) & 4) == 0,
         "a REGION_WRITE on the twin socket was executed: bus mastering is on in COMMAND");
}

/* The answer to that DMA_READ, from the memory. */
static size_t build_answer(uint8_t *to, const struct ob_raw_message *command, const struct memory *m)
{
    uint8_t payload[sizeof(struct ob_raw_dma) + COUNT];
    struct ob_raw_dma dma;

    memcpy(&dma, command->payload, sizeof(dma));
    memcpy(payload, &dma, sizeof(dma));
    memcpy(payload + sizeof(dma), m->bytes, dma.count);
    return ob_raw_build(to, command->header.id, OB_RAW_DMA_READ, OB_RAW_REPLY, payload, sizeof(dma) + dma.count);
}

/* Sends the answer in two pieces, the first with `fd`, and a round trip between them; the copy works. */
static void answer_in_pieces(struct judge *j, size_t first, int fd)
{
    struct memory main, twin;
    uint8_t bytes[256];
    size_t size;

    take_twin(j, offer);
    ready(j, &main, &twin);
    size = build_answer(bytes, begun(j), &twin);
    got(j, ob_raw_send(&j->twin, bytes, first, &fd, fd >= 0), "answering on the twin socket");
    want_alive(j, "GET_INFO while a part of an answer lies on the twin socket");
    got(j, ob_raw_send(&j->twin, bytes + first, size - first, NULL, 0), "answering on the twin socket");
    serve_twin(j);
    want(j, device_copy_end(j) == 0, "the device's copy failed");
    copied(j, &twin, "an answer in two pieces");
}

static void check_half_header(struct judge *j)
{
    answer_in_pieces(j, 9, -1);
}

static void check_half_message(struct judge *j)
{
    answer_in_pieces(j, 16 + 16, -1);
}

static void check_descriptor(struct judge *j)
{
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    answer_in_pieces(j, 16 + 16, theirs);
    judge_give(j, theirs);
    want_hangup(j, mine, "a descriptor that came with an answer on the twin socket");
}

static void check_unread(struct judge *j)
{
    struct memory main, twin;
    struct pollfd waiting;

    take_twin(j, offer);
    ready(j, &main, &twin);
    waiting = (struct pollfd){ .fd = j->twin.fd, .events = POLLIN };
    device_copy_begin(j, FROM, TO, COUNT);
    want(j, poll(&waiting, 1, j->timeout_ms) == 1, "nothing came over the twin socket for %d ms", j->timeout_ms);
    for (unsigned i = 0; i < 4; i++)
        want_alive(j, "GET_INFO while a command waits on the twin socket");
    want_ok(j, map(j, TO + ROOM, j->facts.page, 3, -1, 0), "DMA_MAP while a command waits on the twin socket");
    want_ok(j, unmap(j, TO + ROOM, j->facts.page), "DMA_UNMAP while a command waits on the twin socket");
    serve_twin(j);
    want(j, device_copy_end(j) == 0, "the device's copy failed");
    copied(j, &twin, "served late");
}

static void check_unasked(struct judge *j)
{
    struct memory main, twin;
    struct ob_raw_message *command;
    uint8_t bytes[256];
    size_t size;

    take_twin(j, offer);
    ready(j, &main, &twin);
    command = begun(j);
    command->header.id ^= 0x5555;
    size = build_answer(bytes, command, &twin);
    got(j, ob_raw_send(&j->twin, bytes, size, NULL, 0), "a reply to nothing on the twin socket");
    want_alive(j, "GET_INFO after a reply to nothing on the twin socket");
    command->header.id ^= 0x5555;
    size = build_answer(bytes, command, &twin);
    got(j, ob_raw_send(&j->twin, bytes, size, NULL, 0), "answering on the twin socket");
    serve_twin(j);
    want(j, device_copy_end(j) == 0, "the device's copy failed after a reply to nothing on the twin socket");
    copied(j, &twin, "after a reply to nothing");
}

/* Bus mastering goes off in the middle of a copy. What is there when the reply is, was sent before it. */
static void check_master_off(struct judge *j)
{
    struct memory main, twin;
    struct ob_raw_message *command;
    struct pollfd waiting;
    uint8_t bytes[256];
    size_t size;

    take_twin(j, offer);
    ready(j, &main, &twin);
    command = begun(j);
    config_write(j, 4, 2, 3);
    waiting = (struct pollfd){ .fd = j->twin.fd, .events = POLLIN };
    while (poll(&waiting, 1, 0) == 1)
        receive_on(j, &j->twin, "a command that was sent before");
    size = build_answer(bytes, command, &twin);
    got(j, ob_raw_send(&j->twin, bytes, size, NULL, 0), "answering on the twin socket");
    for (unsigned i = 0; i < 8; i++)
        want_alive(j, "GET_INFO after bus mastering was turned off");
    want(j, poll(&waiting, 1, 0) == 0,
         "something came over the twin socket after the reply to the write that turned bus mastering off");
    want(j, main.reads + main.writes == 0, "DMA came over the main socket after bus mastering was turned off");
}

#define TWIN (CHECK_BARE | NEED_TWIN)
#define DMA  (CHECK_BARE | NEED_TWIN | NEED_DMA)

const struct check server_twin_checks[] = {
    { { "twin-not-offered", "VU-TWIN-2", "a client that offers no twin socket gets none" },
      CHECK_BARE,
      check_not_offered },
    { { "twin-declined", "VU-TWIN-2", "so does one that says supported false" }, CHECK_BARE, check_declined },
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
    { { "twin-closed", "VU-TWIN-11", "transfers end after the client has closed the twin socket, the session goes on" },
      DMA,
      check_closed },
    { { "twin-closed-in-flight", "VU-TWIN-11", "so it is with a command unanswered" }, DMA, check_closed_in_flight },
    { { "twin-closed-next", "VU-TWIN-11", "the next client gets a twin socket that works" }, DMA, check_closed_next },
    { { "twin-no-descriptors", "VU-TWIN-12", "a client that takes no descriptors gets no twin socket" },
      CHECK_BARE,
      check_no_descriptors },
    { { "twin-command", "VU-TWIN-13", "a command on the twin socket is refused or ends it, and not executed" },
      TWIN,
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
