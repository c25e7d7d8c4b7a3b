/* dma_replies.c: VU-DMA: what a server makes of replies to DMA_READ and DMA_WRITE, and of none. */
#include "guest.h"

#define LEN GUEST_LEN

static struct ob_raw_message *begin(struct judge *j, uint16_t command)
{
    guest_pair(j, false);
    j->guest->later = command == OB_RAW_DMA_READ ? GUEST_READ : GUEST_WRITE;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    return guest_asked(j, command);
}

/* The device and the session are as they were: another transfer succeeds. */
static void want_another(struct judge *j)
{
    struct guest_map *to = j->guest->maps;

    j->guest->later = 0;
    while (to->address != GUEST_TO)
        to = to->next;
    memset(to->bytes, 0, LEN);
    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "after that");
    want(j, guest_filled(to->bytes, LEN, 1), "what the device copied next is not in the memory");
}

/* --- DMA_WRITE --------------------------------------------------------------------------------------------------- */

static void written(struct judge *j, const struct ob_raw_message *asked, const void *payload, size_t size)
{
    guest_answer(j, asked, payload, size);
    j->guest->later = 0;
    want(j, device_copy_end(j) == 0, "the transfer failed whose DMA_WRITE was answered with %zu bytes", size);
    want_another(j);
}

static void check_count_4(struct judge *j)
{
    const struct ob_raw_message *asked = begin(j, OB_RAW_DMA_WRITE);
    const struct ob_raw_dma range = guest_range(j, asked);
    const struct ob_raw_dma_write_reply reply = { range.address, (uint32_t)range.count };

    written(j, asked, &reply, sizeof(reply));
}

static void check_count_8(struct judge *j)
{
    const struct ob_raw_message *asked = begin(j, OB_RAW_DMA_WRITE);
    const struct ob_raw_dma range = guest_range(j, asked);

    written(j, asked, &range, sizeof(range));
}

static void check_count_none(struct judge *j)
{
    const struct ob_raw_message *asked = begin(j, OB_RAW_DMA_WRITE);

    written(j, asked, NULL, 0);
}

/* --- Refusals ---------------------------------------------------------------------------------------------------- */

static void refused(struct judge *j, uint16_t command, uint32_t error)
{
    struct ob_raw_message *asked = begin(j, command);

    guest_refuse(j, asked, error);
    j->guest->later = 0;
    want_failed(j, device_copy_end(j), "that was refused");
    want_another(j);
}

static void check_refused_read(struct judge *j)
{
    refused(j, OB_RAW_DMA_READ, EFAULT);
}

static void check_refused_write(struct judge *j)
{
    refused(j, OB_RAW_DMA_WRITE, EACCES);
}

static void check_refused_zero(struct judge *j)
{
    refused(j, OB_RAW_DMA_READ, 0);
}

static void check_refused_no_errno(struct judge *j)
{
    refused(j, OB_RAW_DMA_READ, 0xffffffff);
}

/* --- Malformed replies ------------------------------------------------------------------------------------------- */

/* What is wrong with a reply to a command for n bytes. */
struct lie {
    uint64_t extra; /* its count is this, */
    unsigned times; /* and so many times n; */
    unsigned data;  /* its payload is address, count and so many times n/2 bytes of data, */
    bool cut;       /* or the first `data` bytes of that */
};

/* The transfer fails, or the connection ends. */
static void malformed(struct judge *j, uint16_t command, const struct lie *lie)
{
    struct ob_raw_message *asked = begin(j, command);
    struct ob_raw_dma range = guest_range(j, asked);
    const size_t size = lie->cut ? lie->data : sizeof(range) + lie->data * range.count / 2;
    uint8_t *payload = judge_alloc(j, sizeof(range) + size);
    char what[120];

    snprintf(what, sizeof(what), "whose command for %llu bytes was answered with a count of %llu and %zu bytes",
             (unsigned long long)range.count, (unsigned long long)(lie->extra + lie->times * range.count), size);
    range.count = lie->extra + lie->times * range.count;
    memset(payload, 0x99, sizeof(range) + size);
    memcpy(payload, &range, sizeof(range));
    judge_may_close(j);
    guest_answer(j, asked, payload, size);
    j->guest->later = 0;
    want_failed(j, device_copy_end(j), what);
    want_another(j);
}

static void check_short(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .times = 1, .data = 1 });
}

static void check_long(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .times = 1, .data = 4 });
}

static void check_more(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .times = 2, .data = 4 });
}

static void check_no_data(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .times = 1, .data = 0 });
}

static void check_header_alone(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .times = 1, .data = 0, .cut = true });
}

static void check_cut(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .times = 1, .data = 7, .cut = true });
}

static void check_count_huge(struct judge *j)
{
    malformed(j, OB_RAW_DMA_READ, &(struct lie){ .extra = UINT64_C(1) << 32, .times = 1, .data = 2 });
}

static void check_write_cut(struct judge *j)
{
    malformed(j, OB_RAW_DMA_WRITE, &(struct lie){ .times = 1, .data = 7, .cut = true });
}

static void check_write_more(struct judge *j)
{
    malformed(j, OB_RAW_DMA_WRITE, &(struct lie){ .times = 2 });
}

/* An error reply with the data that a success would have had. */
static void check_error_with_data(struct judge *j)
{
    struct ob_raw_message *asked = begin(j, OB_RAW_DMA_READ);
    const struct ob_raw_dma range = guest_range(j, asked);
    struct ob_raw_header header = asked->header;
    uint8_t *bytes;

    header.size = (uint32_t)(sizeof(header) + sizeof(range) + range.count);
    header.flags = OB_RAW_REPLY | OB_RAW_ERROR;
    header.error = EIO;
    bytes = judge_alloc(j, header.size);
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &range, sizeof(range));
    judge_may_close(j);
    send_bytes(j, bytes, header.size, NULL, 0);
    j->guest->later = 0;
    want_failed(j, device_copy_end(j), "that was answered with an error and data");
    want_another(j);
}

/* --- Less than was asked for ------------------------------------------------------------------------------------- */

/* Well-formed replies with `part` of the bytes each: the device gets all of them in the end, or its transfer fails. */
static void partial(struct judge *j, uint64_t part)
{
    struct ob_raw_message *asked = begin(j, OB_RAW_DMA_READ);
    const struct guest_map *to = j->guest->maps, *from = to->next; /* mapped last, and before that */
    uint8_t *payload = judge_alloc(j, sizeof(struct ob_raw_dma) + part);
    uint64_t address = 0;
    int result = -1;

    judge_may_close(j);
    for (unsigned same = 0; asked != NULL; asked = guest_next(j, &result)) {
        struct ob_raw_dma range = guest_range(j, asked);

        same = range.address == address ? same + 1 : 0;
        address = range.address;
        want(j, same < 8, "the device asks again and again for %llu bytes that it does not get",
             (unsigned long long)range.count);
        want(j, address - GUEST_FROM < from->size && range.count <= from->size - (address - GUEST_FROM),
             "after a part the device asks for %llu bytes at %#llx", (unsigned long long)range.count,
             (unsigned long long)address);
        range.count = range.count < part ? range.count : part;
        memcpy(payload, &range, sizeof(range));
        memcpy(payload + sizeof(range), from->bytes + (address - GUEST_FROM), range.count);
        guest_answer(j, asked, payload, sizeof(range) + range.count);
    }
    guest_judged(j);
    want(j, result != 0 || !j->facts.exerciser->tells || guest_filled(to->bytes, LEN, 1),
         "the device takes %llu bytes for the %u that it asked for", (unsigned long long)part, LEN);
    want_another(j);
}

static void check_partial(struct judge *j)
{
    partial(j, LEN / 4);
}

static void check_nothing(struct judge *j)
{
    partial(j, 0);
}

/* --- No reply ---------------------------------------------------------------------------------------------------- */

/* What was given up is answered when the next transfer waits, whose answer it is not. */
static void check_late(struct judge *j)
{
    struct ob_raw_message *late = begin(j, OB_RAW_DMA_READ), *asked;
    const struct guest_map *to = j->guest->maps; /* mapped last */

    memset(to->next->bytes, 0x11, LEN);
    device_on(j, true);
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    asked = guest_asked(j, OB_RAW_DMA_READ);
    guest_answer_well(j, late, 0x99);
    guest_answer_well(j, asked, 0x11);
    j->guest->later = 0;
    want(j, device_copy_end(j) == 0, "the transfer failed that began after another was given up");
    want(j, guest_all(to->bytes, LEN, 0x11), "the device took a late answer for that to another DMA_READ");
}

/* More than any server has room for, if it keeps them all. */
static void check_unanswered(struct judge *j)
{
    begin(j, OB_RAW_DMA_READ);
    for (unsigned i = 0; i < 40; i++) {
        device_on(j, true);
        device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
        guest_asked(j, OB_RAW_DMA_READ);
    }
    device_on(j, true);
    want_another(j);
}

static void check_gone(struct judge *j)
{
    for (unsigned i = 0; i < 3; i++) {
        begin(j, i == 1 ? OB_RAW_DMA_WRITE : OB_RAW_DMA_READ);
        judge_reconnect(j);
    }
    guest_pair(j, false);
    want_another(j);
}

const struct check server_dma_replies_checks[] = {
    { { "dma-write-reply-4", "VU-DMA-4", "a reply to DMA_WRITE whose count has 4 bytes is accepted" },
      NEED_DMA,
      check_count_4 },
    { { "dma-write-reply-8", "VU-DMA-4", "a reply to DMA_WRITE whose count has 8 bytes is accepted" },
      NEED_DMA,
      check_count_8 },
    { { "dma-write-reply-none", "VU-DMA-4", "a reply to DMA_WRITE that is a header alone is accepted" },
      NEED_DMA,
      check_count_none },
    { { "dma-refused-read", "VU-DMA-13", "a DMA_READ that is refused fails the transfer, and nothing else" },
      NEED_DMA,
      check_refused_read },
    { { "dma-refused-write", "VU-DMA-13", "a DMA_WRITE that is refused fails the transfer, and nothing else" },
      NEED_DMA,
      check_refused_write },
    { { "dma-refused-zero", "VU-DMA-13", "so does a refusal whose error is 0" }, NEED_DMA, check_refused_zero },
    { { "dma-refused-no-errno", "VU-DMA-13", "so does a refusal whose error is no errno" },
      NEED_DMA,
      check_refused_no_errno },
    { { "dma-reply-short", "VU-DMA-14", "a reply with less data than it counts is no success" },
      NEED_DMA,
      check_short },
    { { "dma-reply-long", "VU-DMA-14", "a reply with more data than it counts is no success" }, NEED_DMA, check_long },
    { { "dma-reply-more", "VU-DMA-14", "a reply with more data than was asked for is no success" },
      NEED_DMA,
      check_more },
    { { "dma-reply-no-data", "VU-DMA-14", "a reply that counts data and has none is no success" },
      NEED_DMA,
      check_no_data },
    { { "dma-reply-header", "VU-DMA-14", "a reply to DMA_READ that is a header alone is no success" },
      NEED_DMA,
      check_header_alone },
    { { "dma-reply-cut", "VU-DMA-14", "a reply that is cut in its first field is no success" }, NEED_DMA, check_cut },
    { { "dma-reply-count-huge", "VU-DMA-14", "a reply whose count is right in its lower half only is no success" },
      NEED_DMA,
      check_count_huge },
    { { "dma-reply-error-data", "VU-DMA-14", "an error reply with data is no success" },
      NEED_DMA,
      check_error_with_data },
    { { "dma-write-reply-cut", "VU-DMA-14", "a reply to DMA_WRITE that is cut in its first field is no success" },
      NEED_DMA,
      check_write_cut },
    { { "dma-write-reply-more", "VU-DMA-14", "a reply to DMA_WRITE that counts more than was written is no success" },
      NEED_DMA,
      check_write_more },
    { { "dma-reply-part", "VU-DMA-19", "a reply with a part of the data is not taken for all of it" },
      NEED_DMA,
      check_partial },
    { { "dma-reply-nothing", "VU-DMA-19", "a reply with a count of 0 is not asked for again without end" },
      NEED_DMA,
      check_nothing },
    { { "dma-late", "VU-DMA-17", "the answer to a DMA_READ that a reset gave up is discarded" },
      NEED_DMA | NEED_RESET,
      check_late },
    { { "dma-unanswered", "VU-DMA-17", "after 40 transfers without an answer, each given up by a reset, others work" },
      NEED_DMA | NEED_RESET,
      check_unanswered },
    { { "dma-gone", "VU-DMA-17", "a client that leaves without an answer leaves a device that works" },
      NEED_DMA,
      check_gone },
    { { NULL, NULL, NULL }, 0, NULL },
};
