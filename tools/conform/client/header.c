/* header.c: VU-HDR: the header of what clients send, and what they make of odd headers. */
#include "check.h"

/* --- Rules ------------------------------------------------------------------------------------------------------- */

#define NOTHING "the client sent nothing"

/* The least payload of each command; -1: not a client's. */
static int least_payload(uint16_t command)
{
    static const int least[] = {
        [OB_RAW_VERSION] = 4,
        [OB_RAW_DMA_MAP] = 32,
        [OB_RAW_DMA_UNMAP] = 24,
        [OB_RAW_GET_INFO] = 16,
        [OB_RAW_GET_REGION_INFO] = 32,
        [OB_RAW_GET_REGION_IO_FDS] = 16,
        [OB_RAW_GET_IRQ_INFO] = 16,
        [OB_RAW_SET_IRQS] = 20,
        [OB_RAW_REGION_READ] = 16,
        [OB_RAW_REGION_WRITE] = 16,
        [OB_RAW_RESET] = 0,
        [OB_RAW_WRITE_MULTI] = 8,
        [OB_RAW_FEATURE] = 8,
        [OB_RAW_MIG_READ] = 8,
        [OB_RAW_MIG_WRITE] = 8,
    };

    if (command == 0 || command == OB_RAW_DMA_READ || command == OB_RAW_DMA_WRITE || command == 14 ||
        command >= sizeof(least) / sizeof(least[0]))
        return -1;
    return least[command];
}

static bool known_command(struct trial *t, const struct ob_raw_message *m)
{
    const struct ob_raw_header *h = &m->header;

    if (least_payload(h->command) < 0)
        trial_wrong(t,
                    "a header should be id, command, size, flags, error, and this command is none of a client's: "
                    "id %u, command %u, size %u, flags %#x, error %u",
                    h->id, h->command, h->size, h->flags, h->error);
    return true;
}

static bool whole_size(struct trial *t, const struct ob_raw_message *m)
{
    const struct ob_raw_header *h = &m->header;

    if (h->size != sizeof(*h) + m->size)
        trial_wrong(t, "%s: the size should be that of the whole message, header included, and is %u",
                    command_name(h->command), h->size);
    else if ((int)m->size < least_payload(h->command))
        trial_wrong(t, "%s: the size should count the header of 16 bytes and a payload of %d or more, and is %u",
                    command_name(h->command), least_payload(h->command), h->size);
    return true;
}

static bool type_of_command(struct trial *t, const struct ob_raw_message *m)
{
    if ((m->header.flags & OB_RAW_TYPE_MASK) != 0)
        trial_wrong(t, "%s: bits 0 to 3 of flags should be 0 in a command and 1 in a reply, and flags are %#x",
                    command_name(m->header.command), m->header.flags);
    return true;
}

static bool flags_of_command(struct trial *t, const struct ob_raw_message *m)
{
    if ((m->header.flags & ~(OB_RAW_TYPE_MASK | OB_RAW_NO_REPLY)) != 0)
        trial_wrong(t, "%s: a command should have no flag but No_reply, and has %#x", command_name(m->header.command),
                    m->header.flags);
    return true;
}

static bool error_is_zero(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.error != 0)
        trial_wrong(t, "%s: the error field of a command should be 0, and is %u", command_name(m->header.command),
                    m->header.error);
    return true;
}

/* --- The client's replies ---------------------------------------------------------------------------------------- */

#define BYTES 16

/* Has the client answer a DMA_READ of what it has mapped. */
static struct ob_raw_message *ask_mapped(struct trial *t, uint16_t *id)
{
    struct model_map map = trial_await_map(t, MAP_READ);

    *id = trial_dma(t, OB_RAW_DMA_READ, 0, map.address, BYTES, NULL, 0);
    return trial_dma_reply(t, "DMA_READ of mapped memory");
}

/* Has it answer one of what it has not. */
static struct ob_raw_message *ask_unmapped(struct trial *t)
{
    trial_await_map(t, 0);
    trial_dma(t, OB_RAW_DMA_READ, 0, trial_hole(t), BYTES, NULL, 0);
    return trial_dma_reply(t, "DMA_READ of memory that is not mapped");
}

static void reply_id(struct trial *t)
{
    uint16_t id;
    struct ob_raw_message *reply = ask_mapped(t, &id);

    trial_want(t, reply->header.id == id, "the reply should have id %u, and has %u", id, reply->header.id);
}

static void reply_command(struct trial *t)
{
    uint16_t id;
    struct ob_raw_message *reply = ask_mapped(t, &id);

    trial_want(t, reply->header.command == OB_RAW_DMA_READ, "the reply to DMA_READ should have its number, and has %u",
               reply->header.command);
}

static void reply_type(struct trial *t)
{
    uint16_t id;
    struct ob_raw_message *reply = ask_mapped(t, &id);

    trial_want(t, (reply->header.flags & OB_RAW_TYPE_MASK) == OB_RAW_REPLY,
               "the reply's type should be 1, and flags are %#x", reply->header.flags);
    reply = ask_unmapped(t);
    trial_want(t, (reply->header.flags & OB_RAW_TYPE_MASK) == OB_RAW_REPLY,
               "an error reply's type should be 1, and flags are %#x", reply->header.flags);
}

static void reply_once(struct trial *t)
{
    uint16_t id;

    for (unsigned i = 0; i < 2; i++) {
        struct ob_raw_message *reply = ask_mapped(t, &id);

        trial_want(t, reply->header.id == id, "DMA_READ should get one reply, and a second one came (id %u)",
                   reply->header.id);
    }
    trial_serve(t);
    trial_want(t, t->answers == NULL, "DMA_READ should get one reply, and a second one came");
}

/* A posted command, and behind it a DMA_READ of the same memory, whose reply has to be the next. */
static struct ob_raw_message *post_and_read(struct trial *t, uint64_t to, uint64_t from, const uint8_t *data)
{
    struct ob_raw_message *reply;
    uint16_t id;

    trial_dma(t, OB_RAW_DMA_WRITE, OB_RAW_NO_REPLY, to, BYTES, data, BYTES);
    id = trial_dma(t, OB_RAW_DMA_READ, 0, from, BYTES, NULL, 0);
    reply = trial_dma_reply(t, "DMA_READ behind a posted DMA_WRITE");
    trial_want(t, reply->header.id == id && reply->header.command == OB_RAW_DMA_READ,
               "a posted DMA_WRITE should get no reply, and a reply to command %u came before that to DMA_READ",
               reply->header.command);
    return reply;
}

static void posted(struct trial *t)
{
    static const uint8_t data[BYTES] = "a posted write!";
    struct model_map map = trial_await_map(t, MAP_READ | MAP_WRITE);
    struct ob_raw_message *reply = post_and_read(t, map.address, map.address, data);

    trial_want(t, reply->size >= BYTES && memcmp(reply->payload + reply->size - BYTES, data, BYTES) == 0,
               "a posted DMA_WRITE should be executed before the DMA_READ behind it, which does not show it");
}

static void posted_fails(struct trial *t)
{
    static const uint8_t data[BYTES];
    struct model_map map = trial_await_map(t, MAP_READ);

    post_and_read(t, trial_hole(t), map.address, data);
    trial_want_same(t, 0);
}

static void error_flag(struct trial *t)
{
    uint16_t id;
    struct ob_raw_message *reply = ask_mapped(t, &id);

    trial_want(t, !(reply->header.flags & OB_RAW_ERROR), "DMA_READ of mapped memory should succeed, and failed (%s)",
               strerror((int)reply->header.error));
    reply = ask_unmapped(t);
    trial_want(t, reply->header.flags & OB_RAW_ERROR,
               "the reply to a DMA_READ of memory that is not mapped should have the Error flag, and has flags %#x",
               reply->header.flags);
}

static void error_alone(struct trial *t)
{
    struct ob_raw_message *reply = ask_unmapped(t);

    if (!trial_refused(t, reply))
        trial_skip(t, "the client refuses nothing");
    trial_want(t, reply->size == 0 && reply->nfds == 0,
               "an error reply should be a header alone, and has %u bytes more and %u descriptors", reply->size,
               reply->nfds);
}

static void reply_flags(struct trial *t)
{
    uint16_t id;

    trial_refused(t, ask_mapped(t, &id));
    trial_refused(t, ask_unmapped(t));
}

static void same_id(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);
    struct ob_raw_message *m = trial_await_read(t), *reply;

    t->next_id = (uint16_t)(m->header.id - TRIAL_FIRST_ID);
    trial_dma(t, OB_RAW_DMA_READ, 0, map.address, BYTES, NULL, 0);
    trial_answer(t, m);
    reply = trial_dma_reply(t, "DMA_READ with the id of an outstanding REGION_READ");
    trial_want(t, reply->header.id == m->header.id && reply->header.command == OB_RAW_DMA_READ,
               "the reply to DMA_READ should have id %u, and has id %u and command %u", m->header.id, reply->header.id,
               reply->header.command);
    trial_want_same(t, 0);
}

/* --- Odd replies to the client ------------------------------------------------------------------------------------ */

static void error_zero(struct trial *t)
{
    trial_refuse(t, trial_await_read(t), 0);
    trial_want_refused(t, "an error reply whose errno is 0");
}

/* Not an errno: negative, as a number of 32 bits. */
static void error_negative(struct trial *t)
{
    trial_refuse(t, trial_await_read(t), (uint32_t)-EIO);
    trial_want_refused(t, "an error reply whose errno is -5");
}

static void error_without_type(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));

    reply_refuse(reply, EIO);
    reply->header.flags = OB_RAW_ERROR;
    trial_send(t, reply);
    trial_want_refused(t, "an error reply without the reply type");
    trial_want(t, t->answers == NULL, "an error reply without the reply type should not be answered, and was");
}

/* Whether a reply that answers nothing was taken for an answer shows if the client goes on. */
static void want_not_taken(struct trial *t, const char *what)
{
    trial_serve(t);
    trial_want(t, t->end.how != EXITED || t->end.status != t->usual.status,
               "%s: it should not be taken for the answer, and the client went on to the end", what);
    if (t->end.how != QUIET || t->usual.how != QUIET)
        return;
    trial_want(t, kinds_missing(&t->usual_kinds, &t->kinds, 0) != NULL,
               "%s: it should not be taken for the answer, and the client did all that it does", what);
}

static void wrong_id(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));

    reply->header.id ^= 0x5555;
    trial_send(t, reply);
    want_not_taken(t, "a reply with another id");
}

static void wrong_command(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));

    reply->header.command = OB_RAW_REGION_WRITE;
    trial_send(t, reply);
    want_not_taken(t, "a reply with the number of another command");
}

static void unasked_reply(struct trial *t)
{
    struct ob_raw_message *m = trial_await_read(t);
    struct reply *reply = trial_reply(t, m);

    trial_send(t, reply);
    trial_send(t, reply);
    trial_want_survived(t, "a second reply to REGION_READ");
}

/* The replies to two commands, the younger one's first, whenever two wait for theirs. */
static void out_of_order(struct trial *t)
{
    struct ob_raw_message *m;
    unsigned pairs = 0;

    while ((m = trial_next(t)) != NULL) {
        struct reply *first = trial_reply(t, m);

        m = !first->none && trial_waits(t) ? trial_next(t) : NULL;
        if (m != NULL) {
            trial_answer(t, m);
            pairs++;
        }
        trial_send(t, first);
    }
    if (pairs == 0)
        trial_skip(t, "the client never sends a command before the one before it is answered");
    trial_want_survived(t, "replies in another order than their commands");
}

/* --- Short and long replies -------------------------------------------------------------------------------------- */

static void resized(struct trial *t, uint16_t command, size_t size)
{
    bool read = command == OB_RAW_REGION_READ;
    struct reply *reply = trial_success(t, read ? trial_await_read(t) : trial_await(t, command));
    char what[80];

    reply_resize(reply, size);
    snprintf(what, sizeof(what), "a reply to %s with %zu bytes of payload", command_name(command), size);
    trial_send(t, reply);
    trial_want_refused(t, what);
}

#define RESIZED(name, command, size)        \
    static void name(struct trial *t)       \
    {                                       \
        resized(t, OB_RAW_##command, size); \
    }
RESIZED(short_version, VERSION, 2)
RESIZED(short_info, GET_INFO, 12)
RESIZED(short_region_info, GET_REGION_INFO, 24)
RESIZED(short_irq_info, GET_IRQ_INFO, 12)
RESIZED(short_read, REGION_READ, 8)
RESIZED(short_write, REGION_WRITE, 12)
RESIZED(long_map, DMA_MAP, 8)
RESIZED(long_set_irqs, SET_IRQS, 20)
RESIZED(long_reset, RESET, 4)

const struct client_check client_header_checks[] = {
    RULE("header-layout", "VU-HDR-1", "the header has the fields of a command in their places", known_command, NOTHING),
    RULE("header-size", "VU-HDR-2", "the size counts the whole message", whole_size, NOTHING),
    RULE("header-type", "VU-HDR-5", "the type of a command is 0", type_of_command, NOTHING),
    RULE("header-flags", "VU-HDR-13", "a command has no flag but No_reply", flags_of_command, NOTHING),
    RULE("header-error-zero", "VU-HDR-30", "the error field of a command is 0", error_is_zero, NOTHING),
    VARIATION("reply-id", "VU-HDR-3", "a reply has the id of its command", reply_id),
    VARIATION("reply-command", "VU-HDR-4", "a reply has the number of its command", reply_command),
    VARIATION("reply-type", "VU-HDR-5", "replies, refusals too, are of type 1", reply_type),
    VARIATION("reply-once", "VU-HDR-6", "a command gets one reply", reply_once),
    VARIATION("reply-posted", "VU-HDR-7", "a posted command is executed and not answered", posted),
    VARIATION("reply-posted-fails", "VU-HDR-8", "a posted command that fails is not answered", posted_fails),
    VARIATION("reply-error-flag", "VU-HDR-9", "the Error flag tells refusals from successes", error_flag),
    VARIATION("reply-error-alone", "VU-HDR-10", "a refusal is a header alone", error_alone),
    VARIATION("reply-flags", "VU-HDR-13", "a reply has no flags but type and Error", reply_flags),
    VARIATION("reply-same-id", "VU-HDR-15", "a command that has the id of an outstanding one is no reply", same_id),
    FAULT("error-zero", "VU-HDR-12", "a refusal without an errno is a failure", error_zero),
    FAULT("error-negative", "VU-HDR-12", "a refusal with a negative errno is a failure", error_negative),
    FAULT("error-without-type", "VU-HDR-28", "a refusal without the reply type is a failure", error_without_type),
    FAULT("answer-other-id", "VU-HDR-26", "a reply with another id is not taken for the answer", wrong_id),
    FAULT("answer-other-command", "VU-HDR-26", "a reply with another command's number is not taken for the answer",
          wrong_command),
    FAULT("answer-twice", "VU-HDR-26", "a second reply does no harm", unasked_reply),
    FAULT("answer-out-of-order", "VU-HDR-26", "replies that overtake others do no harm", out_of_order),
    FAULT("answer-short-version", "VU-HDR-27", "a short reply to VERSION is an error", short_version),
    FAULT("answer-short-info", "VU-HDR-27", "a short reply to GET_INFO is an error", short_info),
    FAULT("answer-short-region-info", "VU-HDR-27", "a short reply to GET_REGION_INFO is an error", short_region_info),
    FAULT("answer-short-irq-info", "VU-HDR-27", "a short reply to GET_IRQ_INFO is an error", short_irq_info),
    FAULT("answer-short-read", "VU-HDR-27", "a short reply to REGION_READ is an error", short_read),
    FAULT("answer-short-write", "VU-HDR-27", "a short reply to REGION_WRITE is an error", short_write),
    FAULT("answer-long-map", "VU-HDR-27", "a reply to DMA_MAP that has a payload is an error", long_map),
    FAULT("answer-long-set-irqs", "VU-HDR-27", "a reply to SET_IRQS that has a payload is an error", long_set_irqs),
    FAULT("answer-long-reset", "VU-HDR-27", "a reply to DEVICE_RESET that has a payload is an error", long_reset),
    { .is = { NULL, NULL, NULL } },
};
