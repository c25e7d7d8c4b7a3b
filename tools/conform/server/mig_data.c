/* mig_data.c: VU-DATA: MIG_DATA_READ and MIG_DATA_WRITE: in pieces of any size, in the wrong states, with sizes that
 * lie. What streams of any content do is in mig_data_hostile.c. */
#include "migrate.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const uint32_t small_pieces[] = { 1, 2, 3, 5, 7, 8, 9, 15, 16, 31, 64, 100 };
static const uint32_t large_pieces[] = { 1000, 1024, 4095, 4096, 4097, 16384, 65535 };

/* A marked device in STOP_COPY. */
static struct image enter_stop_copy(struct judge *j)
{
    const struct image found = device_begin(j);

    image_mark(j, 1);
    state_go(j, STOP);
    state_go(j, STOP_COPY);
    return found;
}

static void leave(struct judge *j, const struct image *found)
{
    if (state_get(j) != RUNNING)
        state_go(j, STOP);
    device_end(j, found);
}

/* From STOP_COPY to the beginning of another stream, read whole. */
static struct stream again(struct judge *j, uint32_t piece)
{
    struct stream stream = { NULL, 0 };

    state_go(j, STOP);
    state_go(j, STOP_COPY);
    stream_read(j, piece, &stream);
    return stream;
}

static int read_raw(struct judge *j, uint32_t argsz, uint32_t size, struct ob_raw_message **reply)
{
    const struct ob_raw_mig_data ask = { argsz, size };

    return call(j, OB_RAW_MIG_READ, &ask, sizeof(ask), NULL, 0, reply);
}

/* --- The reply to a read ----------------------------------------------------------------------------------------- */

static void check_reply(struct judge *j)
{
    static const uint32_t sizes[] = { 1, 2, 64, 1000 };
    const struct image found = enter_stop_copy(j);
    struct ob_raw_message *m;

    for (size_t i = 0; i < N(sizes); i++) {
        want_ok(j, read_raw(j, 8 + sizes[i], sizes[i], &m), "MIG_DATA_READ");
        want(j, field32(j, m, 0) == 8 + field32(j, m, 4), "argsz is %u and size %u, wanted 8 more than size",
             field32(j, m, 0), field32(j, m, 4));
    }
    leave(j, &found);
}

static void check_at_most(struct judge *j)
{
    const struct image found = enter_stop_copy(j);
    struct ob_raw_message *m;

    for (uint32_t size = 1; size < 20; size++) {
        want_ok(j, read_raw(j, 4096, size, &m), "MIG_DATA_READ with more room than it asks for");
        want(j, field32(j, m, 4) <= size, "%u bytes were asked for, %u came", size, field32(j, m, 4));
    }
    leave(j, &found);
}

static void check_no_padding(struct judge *j)
{
    const struct image found = enter_stop_copy(j);
    const uint32_t piece = stream_piece(j);
    struct ob_raw_message *m;

    do {
        want_ok(j, read_raw(j, 8 + piece, piece, &m), "MIG_DATA_READ");
        want(j, m->size == 8 + field32(j, m, 4), "a payload of %u bytes whose size is %u, wanted %u", m->size,
             field32(j, m, 4), 8 + field32(j, m, 4));
    } while (field32(j, m, 4) == piece);
    leave(j, &found);
}

/* --- The end ----------------------------------------------------------------------------------------------------- */

static void want_nothing(struct judge *j, uint32_t size, const char *when)
{
    uint8_t *bytes;
    uint32_t count;

    want_ok(j, data_read(j, size, &bytes, &count), "MIG_DATA_READ after the end");
    want(j, count == 0, "%s MIG_DATA_READ of %u bytes returned %u", when, size, count);
}

static void check_short_is_end(struct judge *j)
{
    static const uint32_t pieces[] = { 100, 4096, 65536 };
    const struct image found = enter_stop_copy(j);

    for (size_t i = 0; i < N(pieces); i++) {
        again(j, pieces[i]);
        want_nothing(j, pieces[i], "after a short answer");
    }
    leave(j, &found);
}

static void check_after_end(struct judge *j)
{
    static const uint32_t sizes[] = { 1, 64, 4096, 65536 };
    const struct image found = enter_stop_copy(j);

    again(j, UINT32_MAX);
    for (unsigned turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < N(sizes); i++)
            want_nothing(j, sizes[i], "after the end");
    }
    want_state(j, STOP_COPY, "after the end");
    leave(j, &found);
}

/* --- Reads in other states --------------------------------------------------------------------------------------- */

static void read_refused(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);
    const struct stream own = stream_save(j); /* so there has been a stream */
    uint8_t *bytes;
    uint32_t count;
    char what[64];

    if (state != STOP)
        state_go(j, state);
    snprintf(what, sizeof(what), "MIG_DATA_READ in %s", state_name(state));
    want_refused(j, data_read(j, 64, &bytes, &count), what);
    want_state(j, state, what);
    if (state == RESUMING)
        want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE");
    leave(j, &found);
}

static void check_read_running(struct judge *j)
{
    read_refused(j, RUNNING);
}

static void check_read_stop(struct judge *j)
{
    read_refused(j, STOP);
}

static void check_read_resuming(struct judge *j)
{
    read_refused(j, RESUMING);
}

/* --- Pieces ------------------------------------------------------------------------------------------------------ */

/* Two streams of a device that stands still. A server whose streams differ all the same has not promised more. */
static struct stream whole(struct judge *j)
{
    const struct stream one = again(j, UINT32_MAX), two = again(j, UINT32_MAX);

    if (!stream_same(&one, &two))
        judge_skip(j, "two streams of this device differ while it stands still");
    return one;
}

static void want_same(struct judge *j, const struct stream *is, const struct stream *wanted, const char *what)
{
    want(j, is->size == wanted->size, "a stream read in pieces of %s has %zu bytes, wanted %zu", what, is->size,
         wanted->size);
    for (size_t i = 0; i < is->size; i++)
        want(j, is->bytes[i] == wanted->bytes[i], "a stream read in pieces of %s differs at byte %zu", what, i);
}

static void cut_reads(struct judge *j, const uint32_t *pieces, size_t n)
{
    const struct image found = enter_stop_copy(j);
    const struct stream wanted = whole(j);

    for (size_t i = 0; i < n; i++) {
        const struct stream is = again(j, pieces[i]);
        char what[32];

        snprintf(what, sizeof(what), "%u bytes", pieces[i]);
        want_same(j, &is, &wanted, what);
    }
    leave(j, &found);
}

static void check_cut_small(struct judge *j)
{
    cut_reads(j, small_pieces, N(small_pieces));
}

static void check_cut_large(struct judge *j)
{
    cut_reads(j, large_pieces, N(large_pieces));
}

static void check_cut_mixed(struct judge *j)
{
    const struct image found = enter_stop_copy(j);
    const struct stream wanted = whole(j);
    struct stream is = { NULL, 0 };

    state_go(j, STOP);
    state_go(j, STOP_COPY);
    for (uint32_t turn = 0; turn < 40; turn++)
        stream_read_some(j, turn % 2 ? turn * turn : 4096 - turn, &is);
    stream_read(j, UINT32_MAX, &is);
    want_same(j, &is, &wanted, "many sizes");
    leave(j, &found);
}

/* The device was marked, then looked different, and is in RESUMING; the stream is that of the marked one. */
static struct image enter_resuming(struct judge *j, struct stream *own, struct image *marked)
{
    const struct image found = device_begin(j);

    image_mark(j, 1);
    *marked = image_take(j);
    *own = stream_save(j);
    state_go(j, RUNNING);
    image_mark(j, 2);
    state_go(j, STOP);
    state_go(j, RESUMING);
    return found;
}

static void want_loaded(struct judge *j, const struct image *marked, const char *what)
{
    want_ok(j, state_set(j, STOP), what);
    state_go(j, RUNNING);
    want_device(j, marked, what);
}

static void cut_writes(struct judge *j, const uint32_t *pieces, size_t n)
{
    struct stream own;
    struct image marked;
    const struct image found = enter_resuming(j, &own, &marked);

    for (size_t i = 0; i < n; i++) {
        char what[64];

        if (i > 0) {
            image_mark(j, 2);
            state_go(j, STOP);
            state_go(j, RESUMING);
        }
        snprintf(what, sizeof(what), "a stream written in pieces of %u bytes", pieces[i]);
        want_ok(j, stream_write(j, pieces[i], &own), what);
        want_loaded(j, &marked, what);
    }
    leave(j, &found);
}

static void check_write_cut_small(struct judge *j)
{
    cut_writes(j, small_pieces, N(small_pieces));
}

static void check_write_cut_large(struct judge *j)
{
    cut_writes(j, large_pieces, N(large_pieces));
}

/* --- What reads refuse ------------------------------------------------------------------------------------------- */

/* Refused; or answered without data, with the argsz that it takes, as argsz is meant elsewhere. */
static void no_room(struct judge *j, uint32_t argsz, uint32_t size)
{
    struct ob_raw_message *m = NULL;
    const int r = read_raw(j, argsz, size, &m);
    char what[64];

    snprintf(what, sizeof(what), "MIG_DATA_READ with argsz %#x and size %#x", argsz, size);
    if (r != 0) {
        want_error(j, r, EINVAL, what);
        return;
    }
    want(j, m->size <= argsz && m->size <= sizeof(struct ob_raw_mig_data), "%s: a payload of %u bytes", what, m->size);
    want(j, field32(j, m, 0) == 8 + (uint64_t)size, "%s: the reply's argsz is %u, wanted %llu or a refusal", what,
         field32(j, m, 0), 8 + (unsigned long long)size);
}

static void check_argsz(struct judge *j)
{
    static const uint32_t asks[][2] = { { 0, 0 }, { 0, 64 }, { 7, 0 }, { 8, 1 }, { 71, 64 }, { 64, 64 } };
    const struct image found = enter_stop_copy(j);

    for (size_t i = 0; i < N(asks); i++)
        no_room(j, asks[i][0], asks[i][1]);
    leave(j, &found);
}

static void check_argsz_wrap(struct judge *j)
{
    static const uint32_t asks[][2] = {
        { 0, 0xfffffff8 }, { 7, UINT32_MAX }, { 8, 0xfffffff8 }, { 4096, UINT32_MAX - 1000 }, { UINT32_MAX, UINT32_MAX }
    };
    const struct image found = enter_stop_copy(j);

    for (size_t i = 0; i < N(asks); i++)
        no_room(j, asks[i][0], asks[i][1]);
    leave(j, &found);
}

static void check_above_max(struct judge *j)
{
    const uint32_t max = j->facts.max_data;
    const struct image found = enter_stop_copy(j);

    if (max > UINT32_MAX - 9)
        judge_skip(j, "max_data_xfer_size is %u", max);
    want_error(j, read_raw(j, max + 9, max + 1, NULL), EINVAL, "MIG_DATA_READ above max_data_xfer_size");
    leave(j, &found);
}

static void check_refused_keeps(struct judge *j)
{
    const struct image found = enter_stop_copy(j);
    const struct stream wanted = whole(j);
    struct stream is = { NULL, 0 };

    state_go(j, STOP);
    state_go(j, STOP_COPY);
    for (unsigned turn = 0; turn < 4; turn++) {
        no_room(j, 71, 64);
        stream_read_some(j, 64, &is);
    }
    stream_read(j, UINT32_MAX, &is);
    want_same(j, &is, &wanted, "64 bytes, with refusals in between,");
    leave(j, &found);
}

static void truncated(struct judge *j, uint16_t command)
{
    const struct ob_raw_mig_data ask = { 8, 0 };

    for (size_t size = 0; size < sizeof(ask); size++)
        want_error(j, call(j, command, &ask, size, NULL, 0, NULL), EINVAL, "migration data without its 8 bytes");
}

static void check_truncated_read(struct judge *j)
{
    const struct image found = enter_stop_copy(j);

    truncated(j, OB_RAW_MIG_READ);
    leave(j, &found);
}

/* --- Writes ------------------------------------------------------------------------------------------------------ */

static void check_write_reply(struct judge *j)
{
    struct stream own;
    struct image marked;
    const struct image found = enter_resuming(j, &own, &marked);
    const struct stream head = stream_head(&own, 4096);
    const struct ob_raw_mig_data ask = { (uint32_t)(8 + head.size), (uint32_t)head.size };
    const struct stream rest = { own.bytes + head.size, own.size - head.size };
    uint8_t *payload = judge_alloc(j, sizeof(ask) + head.size);
    struct ob_raw_message *m;

    memcpy(payload, &ask, sizeof(ask));
    if (head.size > 0)
        memcpy(payload + sizeof(ask), head.bytes, head.size);
    want_ok(j, call(j, OB_RAW_MIG_WRITE, payload, sizeof(ask) + head.size, NULL, 0, &m), "MIG_DATA_WRITE");
    want(j, m->size == 0 && m->nfds == 0, "a payload of %u bytes and %u descriptors, wanted neither", m->size, m->nfds);
    want_ok(j, stream_write(j, UINT32_MAX, &rest), "MIG_DATA_WRITE");
    leave(j, &found);
}

static void write_refused(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);
    const struct stream own = stream_save(j), head = stream_head(&own, 64);
    char what[64];

    state_go(j, RUNNING);
    if (state == STOP || state == STOP_COPY)
        state_go(j, STOP);
    if (state == STOP_COPY || state == PRE_COPY)
        state_go(j, state);
    snprintf(what, sizeof(what), "MIG_DATA_WRITE in %s", state_name(state));
    want_refused(j, data_write(j, head.bytes, (uint32_t)head.size), what);
    want_state(j, state, what);
    if (state == STOP_COPY)
        state_go(j, STOP);
    device_end(j, &found);
}

static void check_write_running(struct judge *j)
{
    write_refused(j, RUNNING);
}

static void check_write_stop(struct judge *j)
{
    write_refused(j, STOP);
}

static void check_write_stop_copy(struct judge *j)
{
    write_refused(j, STOP_COPY);
}

static void check_write_pre_copy(struct judge *j)
{
    write_refused(j, PRE_COPY);
}

/* A write with that size and `actual` bytes of the device's own stream fails, and takes nothing: the whole stream
 * behind it does what it does. */
static void lie(struct judge *j, const uint32_t (*lies)[2], size_t n)
{
    struct stream own;
    struct image marked;
    const struct image found = enter_resuming(j, &own, &marked);

    if (own.size < 64)
        judge_skip(j, "the device's stream has %zu bytes", own.size);
    for (size_t i = 0; i < n; i++) {
        const uint32_t size = lies[i][0], actual = lies[i][1];
        const struct ob_raw_mig_data ask = { 8 + size, size };
        uint8_t *payload = judge_alloc(j, sizeof(ask) + actual);
        char what[64];

        memcpy(payload, &ask, sizeof(ask));
        memcpy(payload + sizeof(ask), own.bytes, actual);
        snprintf(what, sizeof(what), "MIG_DATA_WRITE of size %u with %u bytes", size, actual);
        want_error(j, call(j, OB_RAW_MIG_WRITE, payload, sizeof(ask) + actual, NULL, 0, NULL), EINVAL, what);
    }
    want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE of a stream behind one that was refused");
    want_loaded(j, &marked, "a stream written behind writes that were refused");
    leave(j, &found);
}

static void check_size_more(struct judge *j)
{
    static const uint32_t lies[][2] = { { 65, 64 }, { 1, 0 }, { 64, 63 }, { 4096, 16 } };

    lie(j, lies, N(lies));
}

static void check_size_less(struct judge *j)
{
    static const uint32_t lies[][2] = { { 63, 64 }, { 0, 1 }, { 0, 64 }, { 16, 64 } };

    lie(j, lies, N(lies));
}

static void check_size_wrap(struct judge *j)
{
    static const uint32_t lies[][2] = { { UINT32_MAX, 16 }, { 0xfffffff8, 8 }, { 0xfffffff8, 0 }, { 0x80000000, 64 } };

    lie(j, lies, N(lies));
}

static void check_truncated_write(struct judge *j)
{
    struct stream own;
    struct image marked;
    const struct image found = enter_resuming(j, &own, &marked);

    truncated(j, OB_RAW_MIG_WRITE);
    want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE");
    leave(j, &found);
}

/* clang-format off: a line or two for each check. */
#define M NEED_MIGRATION
const struct check server_mig_data_checks[] = {
    { { "mig-data-reply", "VU-DATA-2", "a reply's argsz is 8 plus its size" }, M, check_reply },
    { { "mig-data-at-most", "VU-DATA-2", "a reply has at most the bytes that were asked for" }, M, check_at_most },
    { { "mig-data-short-is-end", "VU-DATA-3", "a short answer in STOP_COPY is the end" }, M, check_short_is_end },
    { { "mig-data-read-running", "VU-DATA-4", "MIG_DATA_READ in RUNNING is refused" }, M, check_read_running },
    { { "mig-data-read-stop", "VU-DATA-4", "MIG_DATA_READ in STOP is refused" }, M, check_read_stop },
    { { "mig-data-read-resuming", "VU-DATA-4", "MIG_DATA_READ in RESUMING is refused" }, M, check_read_resuming },
    { { "mig-data-after-end", "VU-DATA-5", "reads after the end return nothing, again and again" },
      M,
      check_after_end },
    { { "mig-data-cut-small", "VU-DATA-6", "small pieces give the same stream" }, M, check_cut_small },
    { { "mig-data-cut-large", "VU-DATA-6", "large pieces give the same stream" }, M, check_cut_large },
    { { "mig-data-cut-mixed", "VU-DATA-6", "pieces of many sizes give the same stream" }, M, check_cut_mixed },
    { { "mig-data-argsz", "VU-DATA-7", "a read whose argsz has no room gets no data" }, M, check_argsz },
    { { "mig-data-argsz-wrap", "VU-DATA-7", "nor does one whose size wraps around" }, M, check_argsz_wrap },
    { { "mig-data-above-max", "VU-DATA-17", "a read above max_data_xfer_size fails with EINVAL" }, M, check_above_max },
    { { "mig-data-refused-keeps", "VU-DATA-7", "reads that get no data take nothing from the stream" },
      M,
      check_refused_keeps },
    { { "mig-data-no-padding", "VU-DATA-8", "a reply has no bytes behind those that it counts" }, M, check_no_padding },
    { { "mig-data-truncated-read", "VU-HDR-19", "every truncation of MIG_DATA_READ fails with EINVAL" },
      M,
      check_truncated_read },
    { { "mig-data-write-reply", "VU-DATA-10", "the reply to MIG_DATA_WRITE has no payload" }, M, check_write_reply },
    { { "mig-data-write-running", "VU-DATA-11", "MIG_DATA_WRITE in RUNNING is refused" }, M, check_write_running },
    { { "mig-data-write-stop", "VU-DATA-11", "MIG_DATA_WRITE in STOP is refused" }, M, check_write_stop },
    { { "mig-data-write-stop-copy", "VU-DATA-11", "MIG_DATA_WRITE in STOP_COPY is refused" },
      M,
      check_write_stop_copy },
    { { "mig-data-write-pre-copy", "VU-DATA-11", "MIG_DATA_WRITE in PRE_COPY is refused" },
      M | NEED_PRE_COPY,
      check_write_pre_copy },
    { { "mig-data-size-more", "VU-DATA-12", "a size larger than the data fails with EINVAL, and takes nothing" },
      M,
      check_size_more },
    { { "mig-data-size-less", "VU-HDR-20", "a size smaller than the data fails with EINVAL, and takes nothing" },
      M,
      check_size_less },
    { { "mig-data-size-wrap", "VU-DATA-12", "a size that wraps around fails with EINVAL, and takes nothing" },
      M,
      check_size_wrap },
    { { "mig-data-truncated-write", "VU-HDR-19", "every truncation of MIG_DATA_WRITE fails with EINVAL" },
      M,
      check_truncated_write },
    { { "mig-data-write-cut-small", "VU-DATA-13", "a stream can be written in small pieces" },
      M,
      check_write_cut_small },
    { { "mig-data-write-cut-large", "VU-DATA-13", "a stream can be written in large pieces" },
      M,
      check_write_cut_large },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
