/* log_pages.c: VU-LOG: which pages a report says were written. */
#include "log.h"

#define LEN GUEST_LEN

/* More than 128 pages of any size that is likely. */
#define TO_SIZE (UINT64_C(64) << 20)

struct log log_memory(struct judge *j, bool shared, uint32_t len)
{
    struct log l = { .unit = j->facts.page };

    device_on(j, true);
    l.from = guest_map(j, GUEST_FROM, (len / l.unit + 1) * l.unit, GUEST_BOTH, shared);
    l.to = guest_map(j, GUEST_TO, TO_SIZE, GUEST_BOTH, shared);
    return l;
}

void log_begin_on(struct judge *j, struct log *l)
{
    const uint64_t page = log_start(j, j->facts.page, NULL, 0);

    l->unit = page > j->facts.page ? page : j->facts.page;
    if (128 * l->unit > TO_SIZE)
        judge_skip(j, "the device logs with pages of %#llx bytes", (unsigned long long)l->unit);
}

/* Skips the check if a report of what is in `to`, which has no descriptor, is refused: for log-messages to say. */
static void log_needs_messages(struct judge *j, const struct log *l)
{
    if (log_report_as(j, log_part(l, 0, 64), l->unit, 8, NULL) != 0)
        judge_skip(j, "reports of memory without a descriptor are refused");
}

struct log log_begin(struct judge *j, bool shared)
{
    struct log l = log_memory(j, shared, LEN);

    log_begin_on(j, &l);
    if (!shared)
        log_needs_messages(j, &l);
    return l;
}

void log_write(struct judge *j, const struct log *l, uint64_t page, uint64_t offset, uint32_t len)
{
    transfer_ok(j, GUEST_FROM, GUEST_TO + page * l->unit + offset, len, "to memory that is logged");
}

struct log_range log_part(const struct log *l, uint64_t first, uint64_t number)
{
    return (struct log_range){ GUEST_TO + first * l->unit, number * l->unit };
}

uint64_t log_bit(unsigned n)
{
    return UINT64_C(1) << n;
}

void log_want(struct judge *j, const struct log *l, uint64_t wanted, const char *when)
{
    uint64_t bits = log_word(j, log_part(l, 0, 64), l->unit);

    want(j, bits == wanted, "%s, a report of 64 pages has %#llx, wanted %#llx", when, (unsigned long long)bits,
         (unsigned long long)wanted);
}

/* --- What is logged ---------------------------------------------------------------------------------------------- */

static void logged(struct judge *j, bool shared)
{
    struct log l = log_memory(j, shared, LEN);

    log_begin_on(j, &l);
    log_write(j, &l, 3, 100, LEN);
    log_want(j, &l, log_bit(3), "after page 3 was written");
    log_write(j, &l, 9, 0, LEN);
    log_write(j, &l, 40, 0, LEN);
    log_want(j, &l, log_bit(9) | log_bit(40), "after pages 9 and 40 were written");
}

static void check_mapped(struct judge *j)
{
    logged(j, true);
}

static void check_messages(struct judge *j)
{
    logged(j, false);
}

static void reads(struct judge *j, bool shared)
{
    struct log l = log_begin(j, shared);
    uint64_t bits;

    log_write(j, &l, 3, 0, LEN);
    bits = log_word(j, (struct log_range){ GUEST_FROM, l.unit }, l.unit);
    want(j, bits == 0, "a page that the device has only read is reported");
}

static void check_reads(struct judge *j)
{
    reads(j, true);
}

static void check_reads_messages(struct judge *j)
{
    reads(j, false);
}

static void edges(struct judge *j, bool shared)
{
    struct log l = log_begin(j, shared);

    log_write(j, &l, 6, l.unit - LEN / 2, LEN);
    log_want(j, &l, log_bit(6) | log_bit(7), "after a write from page 6 to page 7");
    log_write(j, &l, 9, l.unit - 1, 1);
    log_want(j, &l, log_bit(9), "after a write to the last byte of page 9");
    log_write(j, &l, 12, 0, 1);
    log_want(j, &l, log_bit(12), "after a write to the first byte of page 12");
}

static void check_edges(struct judge *j)
{
    edges(j, true);
}

static void check_edges_messages(struct judge *j)
{
    edges(j, false);
}

static void large(struct judge *j, bool shared)
{
    const uint32_t len = j->facts.exerciser->max_copy;
    struct log l = log_memory(j, shared, len);
    uint64_t wanted;

    log_begin_on(j, &l);
    if (!shared)
        log_needs_messages(j, &l);
    transfer_ok(j, GUEST_FROM, GUEST_TO + 2 * l.unit, len, "at once");
    wanted = (log_bit((unsigned)((len - 1) / l.unit + 1)) - 1) << 2;
    log_want(j, &l, wanted, "after a write over several pages from page 2 on");
}

static void check_large(struct judge *j)
{
    large(j, true);
}

static void check_large_messages(struct judge *j)
{
    large(j, false);
}

/* Not in order, one of them a single page. Whether pages outside are logged is the device's choice. */
static void check_ranges(struct judge *j)
{
    struct log l = log_memory(j, true, LEN);
    const uint64_t size = 16 * l.unit;
    const struct log_range ranges[] = { { GUEST_TO + 2 * size, size },
                                        { GUEST_TO, size },
                                        { GUEST_FROM, l.from->size } };
    uint64_t bits;

    l.unit = log_start(j, j->facts.page, ranges, 3);
    if (l.unit > j->facts.page)
        judge_skip(j, "the device logs with pages of %#llx bytes", (unsigned long long)l.unit);
    l.unit = j->facts.page;
    log_write(j, &l, 0, 0, 1);
    log_write(j, &l, 15, l.unit - 1, 1);
    log_write(j, &l, 20, 0, LEN);
    log_write(j, &l, 32, 0, 1);
    log_write(j, &l, 47, l.unit - 1, 1);
    bits = log_word(j, log_part(&l, 0, 64), l.unit) & ~(log_bit(20));
    want(j, bits == (log_bit(0) | log_bit(15) | log_bit(32) | log_bit(47)),
         "at the ends of two ranges %#llx are reported, wanted %#llx", (unsigned long long)bits,
         (unsigned long long)(log_bit(0) | log_bit(15) | log_bit(32) | log_bit(47)));
}

/* Memory that the device writes to on its own account. */
static void check_ring(struct judge *j)
{
    struct log l = log_begin(j, true);
    const struct log_range ring = { EXERCISER_IOVA, l.unit };

    for (unsigned turn = 1; turn <= 3; turn++) {
        log_write(j, &l, 3, 0, LEN);
        if (j->copy_ring == NULL)
            judge_skip(j, "the device has no ring");
        want(j, log_word(j, ring, l.unit) == 1, "the device has written to its ring, for the %u. time, unreported",
             turn);
    }
}

static void check_later(struct judge *j, bool shared)
{
    struct log l = { .unit = j->facts.page };

    device_on(j, true);
    log_begin_on(j, &l);
    guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, shared);
    guest_map(j, GUEST_TO, TO_SIZE, GUEST_BOTH, shared);
    if (!shared)
        log_needs_messages(j, &l);
    log_write(j, &l, 3, 0, LEN);
    log_want(j, &l, log_bit(3), "after page 3 was written, which was mapped after the start");
}

static void check_mapped_later(struct judge *j)
{
    check_later(j, true);
}

static void check_messages_later(struct judge *j)
{
    check_later(j, false);
}

/* Mapped, unmapped and mapped again while logging is on. */
static void check_remapped(struct judge *j)
{
    struct log l = log_begin(j, true);
    uint64_t bits;

    log_write(j, &l, 3, 0, LEN);
    guest_unmap(j, l.to);
    guest_map(j, GUEST_TO, TO_SIZE, GUEST_BOTH, true);
    log_write(j, &l, 5, 0, LEN);
    bits = log_word(j, log_part(&l, 0, 64), l.unit) & ~log_bit(3); /* log-unmapped is about page 3 */
    want(j, bits == log_bit(5),
         "after page 3 was written, its memory replaced, and page 5 written, a report has %#llx beside page 3",
         (unsigned long long)bits);
}

/* --- Which bit it is --------------------------------------------------------------------------------------------- */

static void check_order(struct judge *j)
{
    static const unsigned numbers[] = { 0, 1, 8, 31, 32, 63, 64, 65, 127 };
    struct log l = log_begin(j, true);

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        const uint64_t *words;
        uint64_t wanted[2] = { 0, 0 };

        wanted[numbers[i] / 64] = log_bit(numbers[i] % 64);
        log_write(j, &l, numbers[i], 0, LEN);
        words = log_report(j, log_part(&l, 0, 128), l.unit);
        want(j, words[0] == wanted[0] && words[1] == wanted[1],
             "after page %u was written, a report of 128 pages has %#llx and %#llx", numbers[i],
             (unsigned long long)words[0], (unsigned long long)words[1]);
    }
}

static void check_counted(struct judge *j)
{
    struct log l = log_begin(j, true);
    uint64_t bits;

    log_needs_parts(j, l.unit);
    log_write(j, &l, 7, 0, LEN);
    log_write(j, &l, 68, 0, LEN);
    bits = log_word(j, log_part(&l, 5, 64), l.unit);
    want(j, bits == (log_bit(2) | log_bit(63)),
         "pages 7 and 68 were written: a report from page 5 on has %#llx, wanted %#llx", (unsigned long long)bits,
         (unsigned long long)(log_bit(2) | log_bit(63)));
}

static void check_beyond(struct judge *j)
{
    struct log l = log_begin(j, true);
    const uint64_t *words;
    uint64_t bits;

    log_write(j, &l, 2, 0, LEN);
    log_write(j, &l, 3, 0, LEN);
    log_write(j, &l, 70, 0, LEN);
    bits = log_word(j, log_part(&l, 0, 3), l.unit);
    want(j, bits == log_bit(2), "pages 2 and 3 were written: a report of pages 0 to 2 has %#llx, wanted %#llx",
         (unsigned long long)bits, (unsigned long long)log_bit(2));
    words = log_report(j, log_part(&l, 0, 70), l.unit);
    want(j, words[1] == 0, "page 70 was written: a report of pages 0 to 69 has %#llx and %#llx",
         (unsigned long long)words[0], (unsigned long long)words[1]);
}

const struct check server_log_pages_checks[] = {
    { { "log-mapped", "VU-LOG-2", "writes to mapped memory are logged, and nothing else" }, LOG_NEEDS, check_mapped },
    { { "log-messages", "VU-LOG-4", "so are writes by DMA_WRITE" }, LOG_NEEDS, check_messages },
    { { "log-reads", "VU-LOG-4", "reads of mapped memory are not logged" }, LOG_NEEDS, check_reads },
    { { "log-reads-messages", "VU-LOG-4", "reads by DMA_READ are not logged" }, LOG_NEEDS, check_reads_messages },
    { { "log-edges", "VU-LOG-4", "writes at the edges of pages are logged for the right pages" },
      LOG_NEEDS,
      check_edges },
    { { "log-edges-messages", "VU-LOG-4", "so are those by DMA_WRITE" }, LOG_NEEDS, check_edges_messages },
    { { "log-large", "VU-LOG-4", "a large write is logged for all its pages" }, LOG_NEEDS, check_large },
    { { "log-large-messages", "VU-LOG-4", "so is one by DMA_WRITE" }, LOG_NEEDS, check_large_messages },
    { { "log-ranges", "VU-LOG-4", "writes up to the ends of three ranges are logged" }, LOG_NEEDS, check_ranges },
    { { "log-ring", "VU-LOG-4", "what a device writes to its own ring is logged each time" }, LOG_NEEDS, check_ring },
    { { "log-order", "VU-LOG-7", "page n is bit n mod 64 of word n / 64" }, LOG_NEEDS, check_order },
    { { "log-counted", "VU-LOG-7", "pages are counted from the beginning of the report" }, LOG_NEEDS, check_counted },
    { { "log-beyond", "VU-LOG-8", "no bit is set beyond the range, whatever was written there" },
      LOG_NEEDS,
      check_beyond },
    { { "log-mapped-later", "VU-LOG-18", "memory mapped after the start is logged" }, LOG_NEEDS, check_mapped_later },
    { { "log-messages-later", "VU-LOG-18", "so is memory without a descriptor" }, LOG_NEEDS, check_messages_later },
    { { "log-remapped", "VU-LOG-18", "so is memory that replaces other" }, LOG_NEEDS, check_remapped },
    { { NULL, NULL, NULL }, 0, NULL },
};
