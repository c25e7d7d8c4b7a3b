/* access.c: VU-RD, VU-WR, VU-MULTI: how clients access regions, and what they make of the replies. */
#include "check.h"

#define HEAD      16 /* bytes of offset, region and count */
#define ONE_WRITE 24

static bool read_layout(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_REGION_READ)
        return false;
    if (m->size != HEAD)
        trial_wrong(t, "REGION_READ should have %d bytes of payload, and has %u", HEAD, m->size);
    return true;
}

static bool write_layout(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_REGION_WRITE)
        return false;
    if (m->size < HEAD || m->size - HEAD != get32(m, 12))
        trial_wrong(t, "REGION_WRITE with count %u should have %llu bytes of payload, and has %u", get32(m, 12),
                    (unsigned long long)HEAD + get32(m, 12), m->size);
    return true;
}

static bool multi_layout(struct trial *t, const struct ob_raw_message *m)
{
    uint64_t count = get64(m, 0);

    if (m->header.command != OB_RAW_WRITE_MULTI)
        return false;
    if (m->size < 8 || count > m->size || m->size - 8 != count * ONE_WRITE) {
        trial_wrong(t,
                    "REGION_WRITE_MULTI with wr_cnt %llu should have that many writes of %d bytes behind it, and has "
                    "%u bytes of payload",
                    (unsigned long long)count, ONE_WRITE, m->size);
        return true;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (get32(m, 8 + i * ONE_WRITE + 12) > 8)
            trial_wrong(t, "the count of a write should be at most 8, and that of write %llu is %u",
                        (unsigned long long)i, get32(m, 8 + i * ONE_WRITE + 12));
    }
    return true;
}

/* --- Replies ------------------------------------------------------------------------------------------------------ */

static void count_above(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));
    uint32_t count = reply_get32(reply, 12) + 4;

    reply_resize(reply, HEAD + count);
    reply_put32(reply, 12, count);
    trial_send(t, reply);
    trial_want_refused(t, "a reply to REGION_READ with 4 bytes more than were asked for");
}

static void count_lies_above(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));

    reply_put32(reply, 12, reply_get32(reply, 12) + 4096);
    trial_send(t, reply);
    trial_want_refused(t, "a reply to REGION_READ whose count is above the size of its data");
}

static void count_lies_below(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));

    reply_put32(reply, 12, reply_get32(reply, 12) - 1);
    trial_send(t, reply);
    trial_want_refused(t, "a reply to REGION_READ whose count is below the size of its data");
}

static void data_missing(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_read(t));

    reply_resize(reply, HEAD);
    trial_send(t, reply);
    trial_want_refused(t, "a reply to REGION_READ without the data that its count says");
}

static bool waited_write(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_REGION_WRITE && !(m->header.flags & OB_RAW_NO_REPLY);
}

static void write_count(struct trial *t, int more, const char *what)
{
    struct reply *reply = trial_success(t, trial_await_where(t, waited_write, "REGION_WRITE that is not posted"));

    reply_put32(reply, 12, reply_get32(reply, 12) + (uint32_t)more);
    trial_send(t, reply);
    trial_want_refused(t, what);
}

static void written_less(struct trial *t)
{
    write_count(t, -1, "a reply to REGION_WRITE whose count is below the request's");
}

static void written_more(struct trial *t)
{
    write_count(t, 1, "a reply to REGION_WRITE whose count is above the request's");
}

static bool empty_access(struct trial *t, const struct ob_raw_message *m)
{
    return (m->header.command == OB_RAW_REGION_READ || waited_write(t, m)) && get32(m, 12) == 0;
}

static void header_for_nothing(struct trial *t)
{
    struct reply *reply =
        trial_success(t, trial_await_where(t, empty_access, "REGION_READ or REGION_WRITE of 0 bytes"));

    reply_resize(reply, 0);
    trial_send(t, reply);
    trial_want_same(t, 0);
}

static bool waited_multi(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_WRITE_MULTI && !(m->header.flags & OB_RAW_NO_REPLY);
}

static void multi_count(struct trial *t, int more, const char *what)
{
    struct reply *reply = trial_success(t, trial_await_where(t, waited_multi, "REGION_WRITE_MULTI that is not posted"));

    reply_put32(reply, 0, reply_get32(reply, 0) + (uint32_t)more);
    trial_send(t, reply);
    trial_want_refused(t, what);
}

static void multi_less(struct trial *t)
{
    multi_count(t, -1, "a wr_cnt below the request's");
}

static void multi_more(struct trial *t)
{
    multi_count(t, 1, "a wr_cnt above the request's");
}

const struct client_check client_access_checks[] = {
    RULE("read-layout", "VU-RD-1", "REGION_READ has 16 bytes", read_layout, "the client sent no REGION_READ"),
    RULE("write-layout", "VU-WR-1", "REGION_WRITE has count bytes behind 16", write_layout,
         "the client sent no REGION_WRITE"),
    RULE("multi-layout", "VU-MULTI-1", "REGION_WRITE_MULTI has wr_cnt writes of 24 bytes", multi_layout,
         "the client sent no REGION_WRITE_MULTI"),
    FAULT("read-count-above", "VU-RD-11", "more data than was asked for is an error", count_above),
    FAULT("read-count-too-large", "VU-RD-11", "a count above the data's size is an error", count_lies_above),
    FAULT("read-count-too-small", "VU-RD-11", "a count below the data's size is an error", count_lies_below),
    FAULT("read-no-data", "VU-RD-11", "a reply without data is an error", data_missing),
    FAULT("write-count-below", "VU-WR-14", "a write that is done in part is an error", written_less),
    FAULT("write-count-above", "VU-WR-14", "a write of more than was asked for is an error", written_more),
    VARIATION("access-nothing", "VU-RD-12", "a header answers an access to 0 bytes", header_for_nothing),
    FAULT("multi-count-below", "VU-MULTI-12", "writes that were not done are an error", multi_less),
    FAULT("multi-count-above", "VU-MULTI-12", "more writes than were asked for are an error", multi_more),
    { .is = { NULL, NULL, NULL } },
};
