/* log_reports.c: VU-LOG: reports by other page sizes, one report after another, starts and stops. */
#include "log.h"

#define LEN GUEST_LEN

/* --- Other page sizes -------------------------------------------------------------------------------------------- */

static void check_larger(struct judge *j)
{
    struct log l = log_begin(j, true);

    for (unsigned shift = 1; shift <= 6; shift++) {
        uint64_t bits;

        log_write(j, &l, 5, 0, LEN);
        log_write(j, &l, 47, l.unit - 1, 1);
        bits = log_word(j, log_part(&l, 0, 64), l.unit << shift);
        want(j, bits == (log_bit(5 >> shift) | log_bit(47 >> shift)),
             "pages 5 and 47 of 64 were written: a report with pages %u times as large has %#llx, wanted %#llx",
             1u << shift, (unsigned long long)bits, (unsigned long long)(log_bit(5 >> shift) | log_bit(47 >> shift)));
    }
}

/* The range ends within a page of the report's. */
static void check_larger_tail(struct judge *j)
{
    struct log l = log_begin(j, true);
    uint64_t bits;

    log_write(j, &l, 4, 0, LEN);
    bits = log_word(j, log_part(&l, 0, 5), 4 * l.unit);
    want(j, bits == 2, "page 4 of 5 was written: a report with pages 4 times as large has %#llx, wanted 0x2",
         (unsigned long long)bits);
}

static void check_larger_huge(struct judge *j)
{
    struct log l = log_begin(j, true);

    for (unsigned shift = 30; shift <= 63; shift += 11) {
        uint64_t bits;

        log_write(j, &l, 63, 0, LEN);
        bits = log_word(j, log_part(&l, 0, 64), log_bit(shift));
        want(j, bits == 1, "page 63 of 64 was written: a report with one page of 2^%u bytes has %#llx, wanted 0x1",
             shift, (unsigned long long)bits);
    }
}

/* The page size that is logged with is `large`, that of the report 4096. */
static uint64_t begin_large(struct judge *j)
{
    uint64_t large;

    log_memory(j, true, (uint32_t)(16 * j->facts.page)); /* no map is smaller than the hint */
    large = log_start(j, 16 * j->facts.page, NULL, 0);
    if (large <= 4096)
        judge_skip(j, "the device does not log with pages above 4096 bytes");
    if (large > 64 * 4096)
        judge_skip(j, "the device logs with pages of %#llx bytes", (unsigned long long)large);
    return large;
}

/* One byte was written at `at`: its small page is reported, and what else is lies in the same large page. */
static void want_small(struct judge *j, uint64_t at, uint64_t from, uint64_t large)
{
    const uint64_t first = at & ~(large - 1);
    const uint64_t *words;

    transfer_ok(j, GUEST_FROM, at, 1, "to memory that is logged");
    words = log_report(j, (struct log_range){ from, 128 * 4096 }, 4096);
    want(j, words[(at - from) / 4096 / 64] & log_bit((at - from) / 4096 % 64),
         "a byte at %#llx was written: a report by 4096 bytes from %#llx on, %#llx %#llx, lacks its page",
         (unsigned long long)at, (unsigned long long)from, (unsigned long long)words[0], (unsigned long long)words[1]);
    for (unsigned n = 0; n < 128; n++) {
        const uint64_t address = from + n * UINT64_C(4096);

        want(j, !(words[n / 64] & log_bit(n % 64)) || address - first < large,
             "a byte at %#llx was written, and logged by %#llx bytes: a report by 4096 has %#llx",
             (unsigned long long)at, (unsigned long long)large, (unsigned long long)address);
    }
}

static void check_smaller(struct judge *j)
{
    const uint64_t large = begin_large(j);

    want_small(j, GUEST_TO, GUEST_TO, large);
    want_small(j, GUEST_TO + large + 4096, GUEST_TO, large);
    want_small(j, GUEST_TO + large - 1, GUEST_TO, large);
}

/* The report begins within a page that is logged. */
static void check_smaller_middle(struct judge *j)
{
    const uint64_t large = begin_large(j);

    log_needs_parts(j, 4096);
    want_small(j, GUEST_TO + large + 5, GUEST_TO + 4096, large);
    want_small(j, GUEST_TO + large - 1, GUEST_TO + large - 4096, large);
}

/* --- From one report to the next --------------------------------------------------------------------------------- */

static void check_clears(struct judge *j)
{
    struct log l = log_begin(j, true);

    log_write(j, &l, 3, 0, LEN);
    log_want(j, &l, log_bit(3), "after page 3 was written");
    log_want(j, &l, 0, "after that was reported");
    log_write(j, &l, 3, 0, LEN);
    log_want(j, &l, log_bit(3), "after page 3 was written again");
}

static void check_clears_messages(struct judge *j)
{
    struct log l = log_begin(j, false);

    log_write(j, &l, 3, 0, LEN);
    log_want(j, &l, log_bit(3), "after page 3 was written by messages");
    log_want(j, &l, 0, "after that was reported");
}

static void check_clears_part(struct judge *j)
{
    struct log l = log_begin(j, true);

    log_write(j, &l, 3, 0, LEN);
    log_write(j, &l, 4, 0, LEN);
    log_write(j, &l, 63, 0, LEN);
    want(j, log_word(j, log_part(&l, 0, 4), l.unit) & log_bit(3), "page 3 was written, and is not reported");
    log_want(j, &l, log_bit(4) | log_bit(63), "after pages 0 to 3 of 3, 4 and 63, which were written, were reported");
}

static void check_refused_keeps(struct judge *j)
{
    struct log l = log_begin(j, true);

    log_write(j, &l, 3, 0, LEN);
    want_refused(j, log_report_as(j, log_part(&l, 0, 64), 3, 64, NULL), "DMA_LOGGING_REPORT by 3 bytes");
    want_refused(j, log_report_as(j, (struct log_range){ GUEST_TO, -GUEST_FROM }, l.unit, 64, NULL),
                 "DMA_LOGGING_REPORT of a range that wraps around");
    log_want(j, &l, log_bit(3), "after reports that were refused");
}

/* An answer without the bitmap has not reported anything either. */
static void check_no_room(struct judge *j)
{
    struct log l = log_begin(j, true);

    for (uint32_t room = 0; room < 8; room += 7) {
        struct ob_raw_message *reply;
        int r;

        log_write(j, &l, 3, 0, LEN);
        r = log_report_as(j, log_part(&l, 0, 64), l.unit, room, &reply);
        if (got(j, r, "DMA_LOGGING_REPORT") == 0)
            want(j, field32(j, reply, 0) == 40 && reply->size < 40,
                 "DMA_LOGGING_REPORT with an argsz of %u: a payload of %u bytes with an argsz of %u, wanted one of 40, "
                 "or an error",
                 32 + room, reply->size, field32(j, reply, 0));
        log_want(j, &l, log_bit(3), "after a report that there was no room for");
    }
}

static void check_unmapped(struct judge *j)
{
    struct log l = log_begin(j, true);

    log_write(j, &l, 3, 0, LEN);
    guest_unmap(j, l.to);
    log_want(j, &l, log_bit(3), "after page 3 was written and unmapped");
}

/* The memory is written when the client answers, which is after the first report. */
static void check_under_way(struct judge *j)
{
    struct ob_raw_message *asked;
    struct log l;

    guest_needs_crossing(j);
    l = log_begin(j, false);
    j->guest->later = GUEST_WRITE;
    device_copy_begin(j, GUEST_FROM, GUEST_TO + 3 * l.unit, LEN);
    asked = guest_asked(j, OB_RAW_DMA_WRITE);
    log_word(j, log_part(&l, 0, 64), l.unit);
    guest_answer_well(j, asked, 0);
    j->guest->later = 0;
    want(j, device_copy_end(j) == 0, "the device's transfer failed");
    log_want(j, &l, log_bit(3), "after a DMA_WRITE to page 3 that was under way at the last report");
}

/* While the device writes, as far as the judge's timing finds it at it. */
static void check_race(struct judge *j)
{
    const uint32_t len = j->facts.exerciser->max_copy;
    const unsigned turns = j->facts.exerciser->tells ? 32 : 2;
    struct log l = log_memory(j, true, len);
    uint64_t wanted;

    log_begin_on(j, &l);
    wanted = log_bit((unsigned)((len - 1) / l.unit + 1)) - 1;
    for (unsigned i = 0; i < turns; i++) {
        uint64_t bits;

        device_copy_begin(j, GUEST_FROM, GUEST_TO, len);
        bits = log_word(j, log_part(&l, 0, 64), l.unit);
        want(j, device_copy_end(j) == 0, "the device's transfer failed");
        guest_judged(j);
        bits |= log_word(j, log_part(&l, 0, 64), l.unit);
        want(j, bits == wanted, "two reports around the end of a write have %#llx in all, wanted %#llx",
             (unsigned long long)bits, (unsigned long long)wanted);
    }
}

/* --- Start and stop ---------------------------------------------------------------------------------------------- */

static void check_clean(struct judge *j)
{
    struct log l = log_memory(j, true, LEN);

    log_write(j, &l, 3, 0, LEN);
    log_begin_on(j, &l);
    log_want(j, &l, 0, "after a write before the start");
}

static void check_clean_again(struct judge *j)
{
    struct log l = log_begin(j, true);

    log_write(j, &l, 3, 0, LEN);
    want_ok(j, log_stop(j), "DMA_LOGGING_STOP");
    log_write(j, &l, 5, 0, LEN);
    log_begin_on(j, &l);
    log_want(j, &l, 0, "after writes before a stop, and between that and a start");
    log_write(j, &l, 7, 0, LEN);
    log_want(j, &l, log_bit(7), "after page 7 was written behind a second start");
}

static void second(struct judge *j, uint64_t times, uint32_t n)
{
    struct log l = log_begin(j, true);
    const struct log_range elsewhere = { GUEST_FROM, 16 * l.unit };

    log_write(j, &l, 3, 0, LEN);
    got(j, log_start_as(j, times * j->facts.page, n, &elsewhere, n, NULL), "a second DMA_LOGGING_START");
    log_write(j, &l, 5, 0, LEN);
    log_want(j, &l, log_bit(3) | log_bit(5), "after writes before and behind a second start");
}

static void check_second(struct judge *j)
{
    second(j, 1, 0);
}

static void check_second_other(struct judge *j)
{
    second(j, 16, 1);
}

const struct check server_log_reports_checks[] = {
    { { "log-larger", "VU-LOG-9", "a report with larger pages has those of which a part was written" },
      LOG_NEEDS,
      check_larger },
    { { "log-larger-tail", "VU-LOG-9", "so it has if its range ends within one" }, LOG_NEEDS, check_larger_tail },
    { { "log-larger-huge", "VU-LOG-9", "so it has with pages of up to 2^63 bytes" }, LOG_NEEDS, check_larger_huge },
    { { "log-smaller", "VU-LOG-9", "a report with smaller pages has those that were written" },
      LOG_NEEDS,
      check_smaller },
    { { "log-smaller-middle", "VU-LOG-9", "so it has if it begins within a page that is logged" },
      LOG_NEEDS,
      check_smaller_middle },
    { { "log-clears", "VU-LOG-10", "what was reported is reported again only if it was written again" },
      LOG_NEEDS,
      check_clears },
    { { "log-clears-messages", "VU-LOG-10", "so it is if it was written by DMA_WRITE" },
      LOG_NEEDS,
      check_clears_messages },
    { { "log-clears-part", "VU-LOG-10", "a report clears no page but its own" }, LOG_NEEDS, check_clears_part },
    { { "log-refused-keeps", "VU-LOG-11", "a report that is refused clears nothing" }, LOG_NEEDS, check_refused_keeps },
    { { "log-unmapped", "VU-LOG-11", "what was written and then unmapped is in the next report" },
      LOG_NEEDS,
      check_unmapped },
    { { "log-under-way", "VU-LOG-11", "a DMA_WRITE that is answered after a report is in the next" },
      LOG_NEEDS,
      check_under_way },
    { { "log-race", "VU-LOG-11", "of two reports during a write and after it one has it" }, LOG_NEEDS, check_race },
    { { "log-second-start", "VU-LOG-16", "a second start loses nothing" }, LOG_NEEDS, check_second },
    { { "log-second-start-other", "VU-LOG-16", "so it is with another page size and other ranges" },
      LOG_NEEDS,
      check_second_other },
    { { "log-clean", "VU-LOG-17", "what was written before the start is not reported" }, LOG_NEEDS, check_clean },
    { { "log-clean-again", "VU-LOG-17", "what was written before a second start is not reported" },
      LOG_NEEDS,
      check_clean_again },
    { { "log-no-room", "VU-LOG-19", "a report that argsz has no room for is not given, and nothing is lost" },
      LOG_NEEDS,
      check_no_room },
    { { NULL, NULL, NULL }, 0, NULL },
};
