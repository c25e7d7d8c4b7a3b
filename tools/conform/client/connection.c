/* connection.c: VU-CON: how replies arrive, what comes between, descriptors, ends, late replies, nonsense. */
#include "check.h"

#include <unistd.h>

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

static bool descriptors(struct trial *t, const struct ob_raw_message *m)
{
    if (m->nfds > 0 && m->header.command != OB_RAW_DMA_MAP && m->header.command != OB_RAW_SET_IRQS)
        trial_wrong(t, "%s: descriptors should come with bytes of DMA_MAP and SET_IRQS, and %u came with this",
                    command_name(m->header.command), m->nfds);
    return m->nfds > 0;
}

/* Adds the end of a pair of sockets to the reply to a command, which defines none, and waits for it to be closed. */
static void with_descriptor(struct trial *t, uint16_t command, unsigned count)
{
    struct reply *reply = trial_success(t, trial_await(t, command));
    int mine, theirs;
    char what[60];

    trial_pair(t, &mine, &theirs);
    for (unsigned i = 0; i < count; i++)
        reply_add_fd(reply, theirs, false);
    trial_send(t, reply);
    trial_give(t, theirs);
    snprintf(what, sizeof(what), "a reply to %s with %u descriptors", command_name(command), count);
    trial_want_hangup(t, mine, what);
}

static void closes_read(struct trial *t)
{
    with_descriptor(t, OB_RAW_REGION_READ, 1);
}

static void closes_map(struct trial *t)
{
    with_descriptor(t, OB_RAW_DMA_MAP, 1);
}

static void closes_many(struct trial *t)
{
    with_descriptor(t, OB_RAW_REGION_READ, MODEL_REPLY_FDS);
}

/* With a refusal that the client may be able to bear. */
static void closes_refusal(struct trial *t)
{
    static const uint16_t commands[] = { OB_RAW_GET_REGION_IO_FDS, OB_RAW_FEATURE, OB_RAW_RESET };
    unsigned i = 0;
    struct reply *reply;
    int mine, theirs;

    while (i < 2 && !kinds_has_command(&t->usual_kinds, commands[i]))
        i++;
    reply = trial_reply(t, trial_await(t, commands[i]));
    trial_pair(t, &mine, &theirs);
    reply_refuse(reply, EOPNOTSUPP);
    reply_add_fd(reply, theirs, false);
    trial_send(t, reply);
    trial_give(t, theirs);
    trial_want_hangup(t, mine, "a refusal with a descriptor");
}

/* --- Splits ------------------------------------------------------------------------------------------------------ */

/* At another place of the header each time. */
static void send_in_header(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    const size_t cut = 1 + t->kinds.count % 15;

    trial_send_cut(t, bytes, size, fds, nfds, &cut, 1);
}

static void send_in_payload(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    const size_t cuts[] = { 16, 16 + (size - 16) / 2, size - 1 };

    trial_send_cut(t, bytes, size, fds, nfds, cuts, 3);
}

#define SINGLE 48 /* bytes that are sent one by one */

static void send_bytewise(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    size_t cuts[SINGLE];

    for (size_t i = 0; i < SINGLE; i++)
        cuts[i] = i + 1;
    trial_send_cut(t, bytes, size, fds, nfds, cuts, SINGLE);
}

static void split_header(struct trial *t)
{
    t->shape = send_in_header;
    trial_want_same(t, 0);
}

static void split_payload(struct trial *t)
{
    t->shape = send_in_payload;
    trial_want_same(t, 0);
}

static void split_bytes(struct trial *t)
{
    t->shape = send_bytewise;
    trial_want_same(t, 0);
}

static size_t put_reply(uint8_t *to, const struct reply *reply)
{
    memcpy(to, &reply->header, sizeof(reply->header));
    if (reply->size > 0)
        memcpy(to + sizeof(reply->header), reply->payload, reply->size);
    return sizeof(reply->header) + reply->size;
}

/* Two replies in a segment, whenever two commands wait for theirs and none has descriptors. */
static void joined(struct trial *t)
{
    struct ob_raw_message *m;
    unsigned pairs = 0;

    while ((m = trial_next(t)) != NULL) {
        struct reply *first = trial_reply(t, m), *second;
        uint8_t *bytes;
        size_t size;

        m = !first->none && first->nfds == 0 && trial_waits(t) ? trial_next(t) : NULL;
        if (m == NULL) {
            trial_send(t, first);
            continue;
        }
        second = trial_reply(t, m);
        if (second->none || second->nfds > 0) {
            trial_send(t, first);
            trial_send(t, second);
            continue;
        }
        bytes = trial_alloc(t, 32 + first->size + second->size);
        size = put_reply(bytes, first);
        size += put_reply(bytes + size, second);
        trial_send_bytes(t, bytes, size, NULL, 0);
        pairs++;
    }
    trial_want_same(t, 0);
    if (pairs == 0)
        trial_skip(t, "the client never sends a command before the one before it is answered");
}

/* --- Commands between a command and its reply --------------------------------------------------------------------- */

#define BYTES 16

static void in_call(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);
    struct ob_raw_message *m = trial_await_read(t);

    trial_dma(t, OB_RAW_DMA_READ, 0, map.address, BYTES, NULL, 0);
    trial_want(t, !trial_refused(t, trial_dma_reply_now(t, "DMA_READ between REGION_READ and its reply")),
               "DMA_READ between a command and its reply should succeed, and failed");
    trial_answer(t, m);
    trial_want_same(t, 0);
}

static void several_in_call(struct trial *t)
{
    static const uint8_t data[BYTES] = "while it waits";
    struct model_map map = trial_await_map(t, MAP_READ | MAP_WRITE);
    struct ob_raw_message *m = trial_await_read(t);

    for (unsigned i = 0; i < 4; i++) {
        uint16_t command = i % 2 == 0 ? OB_RAW_DMA_WRITE : OB_RAW_DMA_READ;

        trial_dma(t, command, 0, map.address, BYTES, data, i % 2 == 0 ? BYTES : 0);
    }
    for (unsigned i = 0; i < 4; i++)
        trial_dma_reply_now(t, "four commands between REGION_READ and its reply");
    trial_answer(t, m);
    trial_want_same(t, 0);
}

/* --- Ends -------------------------------------------------------------------------------------------------------- */

static void end_outstanding(struct trial *t)
{
    trial_await_read(t);
    trial_cut(t);
    trial_want_refused(t, "the end of the connection while REGION_READ is outstanding");
}

/* After the reply to a command that is not the last: with the next one, or before it. */
static void end_between(struct trial *t)
{
    trial_answer(t, trial_await_read(t));
    if (t->count >= t->usual_count)
        trial_skip(t, "the client has nothing more to do after its first register");
    trial_cut(t);
    trial_want_refused(t, "the end of the connection between two commands");
}

/* In the middle of a reply to REGION_READ, at that many bytes. */
static void end_within(struct trial *t, size_t size)
{
    struct reply *reply = trial_success(t, trial_await_read(t));
    uint8_t bytes[32];

    memcpy(bytes, &reply->header, sizeof(reply->header));
    memcpy(bytes + sizeof(reply->header), reply->payload, sizeof(bytes) - sizeof(reply->header));
    trial_send_bytes(t, bytes, size, NULL, 0);
    trial_cut(t);
    trial_want_refused(t, "the end of the connection in the middle of a reply");
}

static void end_in_header(struct trial *t)
{
    end_within(t, 9);
}

static void end_in_payload(struct trial *t)
{
    end_within(t, 21);
}

/* Serves until a command of that kind comes. */
static struct ob_raw_message *await_kind(struct trial *t, const struct kind *wanted)
{
    struct ob_raw_message *m;

    while ((m = trial_next(t)) != NULL) {
        struct kind kind = kind_of(m);

        if (kind_same(&kind, wanted))
            break;
        trial_answer(t, m);
    }
    return m;
}

/* Once for each kind of command that wants a reply: the end comes instead. */
static void end_anywhere(struct trial *t)
{
    if (t->usual.how != EXITED)
        trial_skip(t, "the client lives on: nobody outside can see what it made of this");
    for (unsigned i = 0; i < t->usual_kinds.count; i++) {
        const struct kind *kind = &t->usual_kinds.kind[i];
        struct ob_raw_message *m;
        char what[200];

        if (kind->posted)
            continue;
        trial_again(t);
        m = await_kind(t, kind);
        kind_print(kind, what, sizeof(what) - 60);
        trial_want(t, m != NULL, "the client should send %s as it does otherwise: %s", what, trial_end_text(t));
        trial_cut(t);
        strcat(what, ": the end of the connection instead of its reply");
        trial_want_refused(t, what);
    }
}

/* --- Late replies ------------------------------------------------------------------------------------------------ */

/* Keeps the reply to a command until the client goes on without it. Then it comes, before that to the next command. A
 * call has failed, so the end may be another. */
static void late(struct trial *t, uint16_t command)
{
    struct ob_raw_message *m = trial_await(t, command), *next;
    const struct kind *missing;
    char what[120];

    next = trial_next(t);
    if (next == NULL)
        trial_skip(t, "the client waits for a reply longer than %d ms, or ends without", t->timeout_ms);
    trial_answer(t, m);
    trial_answer(t, next);
    trial_serve(t);
    missing = kinds_missing(&t->usual_kinds, &t->kinds, 0);
    if (missing == NULL)
        return;
    kind_print(missing, what, sizeof(what));
    trial_fail(t, "the late reply to %s should be discarded, and after it the client sent no %s: %s",
               command_name(command), what, trial_end_text(t));
}

static void late_header(struct trial *t)
{
    late(t, OB_RAW_RESET);
}

/* What a client can do without, it may be less patient about. */
static void late_payload(struct trial *t)
{
    late(t, kinds_has_command(&t->usual_kinds, OB_RAW_FEATURE) ? OB_RAW_FEATURE : OB_RAW_REGION_READ);
}

/* --- Nonsense ---------------------------------------------------------------------------------------------------- */

/* A header and 16 bytes instead of the reply to REGION_READ. */
static void nonsense(struct trial *t, uint16_t command, uint32_t flags, uint32_t size)
{
    struct ob_raw_header header = {
        .id = trial_await_read(t)->header.id, .command = command, .size = size, .flags = flags
    };
    uint8_t bytes[sizeof(header) + 16] = { 0 };

    memcpy(bytes, &header, sizeof(header));
    trial_send_bytes(t, bytes, sizeof(bytes), NULL, 0);
}

static void size_zero(struct trial *t)
{
    nonsense(t, OB_RAW_REGION_READ, OB_RAW_REPLY, 0);
    trial_want_survived(t, "a header that says that the message has 0 bytes");
}

static void size_small(struct trial *t)
{
    nonsense(t, OB_RAW_REGION_READ, OB_RAW_REPLY, 15);
    trial_want_survived(t, "a header that says that the message has 15 bytes");
}

static void size_huge(struct trial *t)
{
    nonsense(t, OB_RAW_REGION_READ, OB_RAW_REPLY, UINT32_MAX);
    trial_want_survived(t, "a header that says that the message has 4 GiB");
}

/* It may wait for the rest in order to throw it away. */
static void command_huge(struct trial *t)
{
    nonsense(t, OB_RAW_DMA_WRITE, 0, 0x7ffffff0);
    trial_cut(t);
    trial_want_survived(t, "a command whose header says that it has 2 GiB");
}

/* A message that no server sends, behind which the client is answered. */
static void foreign(struct trial *t, uint16_t command, uint32_t flags, size_t payload, const char *what)
{
    const struct ob_raw_header header = {
        .id = 7, .command = command, .flags = flags, .size = (uint32_t)(sizeof(header) + payload)
    };
    struct ob_raw_message *m = trial_await_read(t);
    uint8_t bytes[sizeof(header) + 32] = { 0 };

    memcpy(bytes, &header, sizeof(header));
    trial_send_bytes(t, bytes, header.size, NULL, 0);
    trial_answer(t, m);
    trial_want_survived(t, what);
}

static void type_reserved(struct trial *t)
{
    foreign(t, OB_RAW_REGION_READ, 2, 0, "a message that is neither command nor reply");
}

static void unknown_command(struct trial *t)
{
    foreign(t, 99, 0, 16, "a command whose number is unknown");
}

static void clients_command(struct trial *t)
{
    foreign(t, OB_RAW_REGION_READ, 0, 16, "a command that only clients send");
}

static void short_dma_read(struct trial *t)
{
    foreign(t, OB_RAW_DMA_READ, 0, 8, "a DMA_READ that ends in its address");
}

static void short_dma_write(struct trial *t)
{
    foreign(t, OB_RAW_DMA_WRITE, 0, 4, "a DMA_WRITE that ends in its address");
}

const struct client_check client_connection_checks[] = {
    RULE("descriptors", "VU-CON-2", "descriptors come with bytes of the commands that they belong to", descriptors,
         "the client sent no descriptor"),
    FAULT("descriptor-closed-read", "VU-CON-29", "a descriptor with the reply to REGION_READ is closed", closes_read),
    FAULT("descriptor-closed-map", "VU-CON-29", "a descriptor with the reply to DMA_MAP is closed", closes_map),
    FAULT("descriptor-closed-many", "VU-CON-29", "several descriptors are closed", closes_many),
    FAULT("descriptor-closed-refusal", "VU-CON-29", "a descriptor with a refusal is closed", closes_refusal),
    VARIATION("split-header", "VU-CON-28", "replies may be split in the header", split_header),
    VARIATION("split-payload", "VU-CON-28", "replies may be split behind the header", split_payload),
    VARIATION("split-bytes", "VU-CON-28", "replies may come byte by byte", split_bytes),
    VARIATION("split-joined", "VU-CON-28", "two replies may come in one segment", joined),
    VARIATION("command-in-call", "VU-CON-9", "a command is served before the reply that the client waits for", in_call),
    VARIATION("commands-in-call", "VU-CON-32", "any number of commands is served meanwhile", several_in_call),
    FAULT("end-outstanding", "VU-CON-27", "outstanding commands fail at once when the connection ends",
          end_outstanding),
    FAULT("end-between", "VU-CON-31", "the device has failed when the connection ends between two commands",
          end_between),
    FAULT("end-in-header", "VU-CON-27", "an end in the middle of a header is an end", end_in_header),
    FAULT("end-in-payload", "VU-CON-27", "an end in the middle of a reply is an end", end_in_payload),
    FAULT("end-anywhere", "VU-CON-26", "an end instead of any reply hangs or crashes nobody", end_anywhere),
    VARIATION("late-header", "VU-CON-30", "a header that comes too late is discarded", late_header),
    VARIATION("late-payload", "VU-CON-30", "a reply with a payload that comes too late is discarded", late_payload),
    FAULT("nonsense-size-zero", "VU-CON-26", "a message of 0 bytes is survived", size_zero),
    FAULT("nonsense-size-small", "VU-CON-26", "a message of 15 bytes is survived", size_small),
    FAULT("nonsense-size-huge", "VU-CON-26", "a reply of 4 GiB is survived", size_huge),
    FAULT("nonsense-command-huge", "VU-CON-26", "a command of 2 GiB is survived", command_huge),
    FAULT("nonsense-type", "VU-CON-26", "a message of an unknown type is survived", type_reserved),
    FAULT("nonsense-command", "VU-CON-26", "a command with an unknown number is survived", unknown_command),
    FAULT("nonsense-direction", "VU-CON-26", "a command that is not a server's is survived", clients_command),
    FAULT("nonsense-short-dma-read", "VU-CON-26", "a truncated DMA_READ is survived", short_dma_read),
    FAULT("nonsense-short-dma-write", "VU-CON-26", "a truncated DMA_WRITE is survived", short_dma_write),
    { .is = { NULL, NULL, NULL } },
};
