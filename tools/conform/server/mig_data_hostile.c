/* mig_data_hostile.c: VU-DATA: streams that are damaged, foreign, or too long. They are refused, or taken: nobody can
 * ask for a checksum. What is judged is that the device and its server stay well. */
#include "migrate.h"

#define POSITIONS 16u

/* The same sequence for everybody. */
static uint8_t noise(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return (uint8_t)(*seed >> 11);
}

static struct stream make(struct judge *j, size_t size)
{
    return (struct stream){ judge_alloc(j, size), size };
}

/* The device, in RUNNING after a reset, is sent a stream. Some are stuck in RESUMING then: that a reset leads out is
 * for the checks of VU-RESET-8 to say. */
static void send_stream(struct judge *j, const struct image *found, const struct stream *stream, const char *what)
{
    int r;

    state_go(j, STOP);
    state_go(j, RESUMING);
    r = stream_write(j, UINT32_MAX, stream);
    if (r == 0)
        r = state_set(j, STOP);
    if (got(j, r, what) == 0)
        want_state(j, STOP, what);
    else
        want_refused_stream(j, found, what);
    device_fresh(j);
}

static void want_well(struct judge *j, const struct image *found, const struct stream *own)
{
    want_registers(j, found, "after a reset behind streams that were no good");
    state_go(j, STOP);
    stream_load(j, own);
    want_ok(j, state_set(j, STOP), "the device's own stream behind streams that were no good");
    device_end(j, found);
}

static struct image begin(struct judge *j, struct stream *own)
{
    const struct image found = device_begin(j);

    *own = stream_save(j);
    state_go(j, RUNNING);
    return found;
}

/* --- Damaged ----------------------------------------------------------------------------------------------------- */

/* A bit in each of several places: heads, lengths and counts are at the start of whatever it is. */
static void damaged(struct judge *j, size_t from, size_t step)
{
    struct stream own;
    const struct image found = begin(j, &own);
    const struct stream copy = make(j, own.size);

    for (unsigned n = 0; n < POSITIONS; n++) {
        const size_t at = from + n * step;
        char what[64];

        if (at >= own.size)
            break;
        memcpy(copy.bytes, own.bytes, own.size);
        copy.bytes[at] ^= (uint8_t)(1u << n % 8 | 0x80);
        snprintf(what, sizeof(what), "a stream damaged at byte %zu", at);
        send_stream(j, &found, &copy, what);
    }
    want_well(j, &found, &own);
}

static void check_damaged_start(struct judge *j)
{
    damaged(j, 0, 3);
}

static void check_damaged_anywhere(struct judge *j)
{
    struct stream own;
    const struct image found = begin(j, &own);

    device_end(j, &found);
    damaged(j, own.size / (2 * POSITIONS), own.size / POSITIONS + 1);
}

static void check_ones(struct judge *j)
{
    struct stream own;
    const struct image found = begin(j, &own);
    const struct stream copy = make(j, own.size);

    for (size_t at = 0; at < 128 && at + 8 <= own.size; at += 8) {
        char what[64];

        memcpy(copy.bytes, own.bytes, own.size);
        memset(copy.bytes + at, 0xff, 8);
        snprintf(what, sizeof(what), "a stream with all ones from byte %zu on", at);
        send_stream(j, &found, &copy, what);
    }
    want_well(j, &found, &own);
}

static void check_halves_swapped(struct judge *j)
{
    struct stream own;
    const struct image found = begin(j, &own);
    const struct stream copy = make(j, own.size);
    const size_t half = own.size / 2;

    if (own.size < 2)
        judge_skip(j, "the device's stream has %zu bytes", own.size);
    memcpy(copy.bytes, own.bytes + half, own.size - half);
    memcpy(copy.bytes + (own.size - half), own.bytes, half);
    send_stream(j, &found, &copy, "a stream whose halves are swapped");
    want_well(j, &found, &own);
}

/* --- Foreign ----------------------------------------------------------------------------------------------------- */

static void filled(struct judge *j, uint8_t byte, bool random, const char *what)
{
    struct stream own;
    const struct image found = begin(j, &own);
    const size_t sizes[] = { 1, 8, 64, 4096, own.size };
    uint32_t seed = 20260101;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct stream stream = make(j, sizes[i]);

        for (size_t n = 0; n < sizes[i]; n++)
            stream.bytes[n] = random ? noise(&seed) : byte;
        send_stream(j, &found, &stream, what);
    }
    want_well(j, &found, &own);
}

static void check_zeros(struct judge *j)
{
    filled(j, 0, false, "a stream of zeros");
}

static void check_all_ones(struct judge *j)
{
    filled(j, 0xff, false, "a stream of ones");
}

static void check_random(struct judge *j)
{
    filled(j, 0, true, "a random stream");
}

/* --- Too long ---------------------------------------------------------------------------------------------------- */

static void lengthened(struct judge *j, size_t by, const char *what)
{
    struct stream own;
    const struct image found = begin(j, &own);
    const struct stream copy = make(j, own.size + (by > 0 ? by : own.size));

    memcpy(copy.bytes, own.bytes, own.size);
    if (by == 0)
        memcpy(copy.bytes + own.size, own.bytes, own.size);
    send_stream(j, &found, &copy, what);
    want_well(j, &found, &own);
}

static void check_one_more(struct judge *j)
{
    lengthened(j, 1, "a stream with a byte behind its end");
}

static void check_page_more(struct judge *j)
{
    lengthened(j, 4096, "a stream with 4096 bytes behind its end");
}

static void check_twice(struct judge *j)
{
    lengthened(j, 0, "a stream sent twice");
}

/* Whatever is sent, the server needs no more memory than for a stream of its own. */
static void endless(struct judge *j, bool behind_own)
{
    const uint32_t piece = stream_piece(j);
    const unsigned turns = (64u << 20) / piece + 1;
    struct stream own;
    const struct image found = begin(j, &own);
    const uint8_t *zeros = judge_alloc(j, piece);
    const long most = (long)(2 * own.size / 1024) + 16384, before = server_memory(j);
    long grown;

    state_go(j, STOP);
    state_go(j, RESUMING);
    if (behind_own)
        want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE of the device's own stream");
    for (unsigned turn = 0; turn < turns; turn++) {
        if (data_write(j, zeros, piece) != 0)
            break;
    }
    grown = server_memory(j) - before;
    want(j, grown <= most, "the server's memory grew by %ld KiB, with streams of %zu bytes", grown, own.size);
    device_fresh(j);
    want_well(j, &found, &own);
}

static void check_endless(struct judge *j)
{
    endless(j, false);
}

static void check_endless_behind(struct judge *j)
{
    endless(j, true);
}

/* clang-format off: a line or two for each check. */
#define M (NEED_MIGRATION | NEED_RESET)
const struct check server_mig_data_hostile_checks[] = {
    { { "mig-data-damaged-start", "VU-DATA-14", "a stream damaged at its start does no harm" },
      M,
      check_damaged_start },
    { { "mig-data-damaged", "VU-DATA-14", "a stream damaged anywhere does no harm" }, M, check_damaged_anywhere },
    { { "mig-data-ones", "VU-DATA-14", "a stream whose first numbers are the largest does no harm" }, M, check_ones },
    { { "mig-data-swapped", "VU-DATA-14", "a stream whose halves are swapped does no harm" }, M, check_halves_swapped },
    { { "mig-data-zeros", "VU-DATA-14", "a stream of zeros does no harm" }, M, check_zeros },
    { { "mig-data-all-ones", "VU-DATA-14", "a stream of ones does no harm" }, M, check_all_ones },
    { { "mig-data-random", "VU-DATA-14", "a random stream does no harm" }, M, check_random },
    { { "mig-data-one-more", "VU-DATA-14", "a byte behind the end does no harm" }, M, check_one_more },
    { { "mig-data-page-more", "VU-DATA-14", "a page behind the end does no harm" }, M, check_page_more },
    { { "mig-data-twice", "VU-DATA-14", "a stream sent twice does no harm" }, M, check_twice },
    { { "mig-data-endless", "VU-DATA-18", "64 MiB of nothing take no memory" }, M | NEED_SPAWN, check_endless },
    { { "mig-data-endless-behind", "VU-DATA-18", "64 MiB behind a stream take no memory" },
      M | NEED_SPAWN,
      check_endless_behind },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
