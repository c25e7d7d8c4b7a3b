/* set_irqs.c: VU-SET: what SET_IRQS has to refuse, and that a refusal changes nothing. */
#include "irqs.h"

#define DATA(flags)   ((flags)&7u)
#define ACTION(flags) ((flags) >> 3 & 7u)

static const uint8_t zeros[MOST_VECTORS + 8], ones[MOST_VECTORS + 8] = { [0 ... MOST_VECTORS + 7] = 1 };

/* --- The reply --------------------------------------------------------------------------------------------------- */

static void empty_reply(struct judge *j, uint32_t flags, uint32_t index, uint32_t count, const int *fds)
{
    const uint32_t payload[5] = { sizeof(payload), flags, index, 0, count };
    struct ob_raw_message *m;

    want_ok(j, call(j, OB_RAW_SET_IRQS, payload, sizeof(payload), fds, fds != NULL, &m), "SET_IRQS");
    want(j, m->size == 0 && m->nfds == 0, "SET_IRQS with flags %#x: the reply has %u bytes and %u descriptors", flags,
         m->size, m->nfds);
}

static void set_no_payload(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const int fd = judge_eventfd(j);

    irqs_on(j, index);
    empty_reply(j, EVENTFD | TRIGGER, index, 1, &fd);
    empty_reply(j, NONE | TRIGGER, index, 0, NULL);
    irqs_needs_loopback(j, index);
    empty_reply(j, NONE | TRIGGER, index, 1, NULL);
}

/* --- Flags ------------------------------------------------------------------------------------------------------- */

/* Whether the bytes of DATA_BOOL that come with what is refused are skipped is for other checks to say. */
static void invalid_bool(struct judge *j, const struct irq_set *set)
{
    irqs_invalid(j, set);
    judge_reconnect(j);
}

/* Those of the 64 combinations of the six bits for which `wrong` holds, with all that they ask for. */
static void combinations(struct judge *j, bool (*wrong)(uint32_t flags))
{
    const uint32_t index = irqs_any(j);
    const int fd = judge_eventfd(j);

    for (uint32_t flags = 0; flags < 64; flags++) {
        const struct irq_set set = {
            flags, index, 0, 1, .data = ones, .size = !!(flags & BOOL), .fds = &fd, .nfds = !!(flags & EVENTFD)
        };

        if (!wrong(flags))
            continue;
        if (set.size > 0)
            invalid_bool(j, &set);
        else
            irqs_invalid(j, &set);
    }
}

static bool no_data(uint32_t flags)
{
    return DATA(flags) == 0;
}

static bool no_action(uint32_t flags)
{
    return DATA(flags) != 0 && ACTION(flags) == 0;
}

static bool two_data(uint32_t flags)
{
    return __builtin_popcount(DATA(flags)) > 1 && ACTION(flags) != 0;
}

static bool two_actions(uint32_t flags)
{
    return __builtin_popcount(DATA(flags)) == 1 && __builtin_popcount(ACTION(flags)) > 1;
}

static void set_no_data(struct judge *j)
{
    combinations(j, no_data);
}

static void set_no_action(struct judge *j)
{
    combinations(j, no_action);
}

static void set_two_data(struct judge *j)
{
    combinations(j, two_data);
}

static void set_two_actions(struct judge *j)
{
    combinations(j, two_actions);
}

static void set_unknown_flags(struct judge *j)
{
    const uint32_t index = irqs_any(j);

    irqs_needs_loopback(j, index);
    for (unsigned bit = 6; bit < 32; bit++)
        irqs_invalid(j, &(struct irq_set){ .flags = NONE | TRIGGER | 1u << bit, .index = index, .count = 1 });
}

/* --- argsz, data, descriptors ------------------------------------------------------------------------------------ */

static void set_argsz_small(struct judge *j)
{
    static const uint32_t less[] = { 1, 4, 16, 20 };
    struct irq_set set = { .flags = NONE | TRIGGER, .index = irqs_any(j), .count = 1 };

    irqs_needs_loopback(j, set.index);
    for (size_t i = 0; i < sizeof(less) / sizeof(*less); i++) {
        set.less = less[i];
        irqs_invalid(j, &set);
    }
}

static void set_argsz_bool(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    struct irq_set set = { .flags = BOOL | TRIGGER, .index = index, .count = n, .data = zeros, .size = n, .less = 1 };

    invalid_bool(j, &set);
    set.less = n;
    invalid_bool(j, &set);
}

static void set_bool_short(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    struct irq_set set = { .flags = BOOL | TRIGGER, .index = index, .count = n, .data = ones, .size = n - 1 };

    invalid_bool(j, &set);
    set.size = 0;
    irqs_invalid(j, &set);
}

static void set_bool_long(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    struct irq_set set = { .flags = BOOL | TRIGGER, .index = index, .count = n, .data = ones, .size = n + 1 };

    invalid_bool(j, &set);
    set.size = n + 4;
    invalid_bool(j, &set);
}

/* `count` vectors, from 0 on, and `nfds` new eventfds. */
static struct irq_set with_eventfds(struct judge *j, uint32_t flags, uint32_t index, uint32_t count, unsigned nfds)
{
    return (struct irq_set){ flags, index, 0, count, .fds = irqs_eventfds(j, nfds), .nfds = nfds };
}

static void set_fds_few(struct judge *j)
{
    const struct irq_set set = with_eventfds(j, EVENTFD | TRIGGER, irqs_several(j), 2, 1);

    irqs_invalid(j, &set);
}

/* Descriptors beyond the server's max_msg_fds are another matter (VU-CON-20). */
static void two_fds(struct judge *j)
{
    if (j->facts.max_msg_fds < 2)
        judge_skip(j, "the server takes one descriptor a message");
}

static void set_fds_many(struct judge *j)
{
    const struct irq_set set = with_eventfds(j, EVENTFD | TRIGGER, irqs_any(j), 1, 2);

    two_fds(j);
    irqs_invalid(j, &set);
}

static void set_fds_none(struct judge *j)
{
    struct irq_set set = with_eventfds(j, NONE | TRIGGER, irqs_any(j), 1, 1);

    irqs_invalid(j, &set);
    set.count = 0;
    irqs_invalid(j, &set);
}

static void set_fds_bool(struct judge *j)
{
    struct irq_set set = with_eventfds(j, BOOL | TRIGGER, irqs_any(j), 1, 1);

    set.data = ones;
    set.size = 1;
    irqs_invalid(j, &set);
}

/* --- Ranges ------------------------------------------------------------------------------------------------------ */

static void set_disable_start(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    static const uint32_t starts[] = { 1, 2, 0x7fffffff, 0xffffffff };

    for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++)
        irqs_invalid(j, &(struct irq_set){ .flags = NONE | TRIGGER, .index = index, .start = starts[i] });
}

static void set_count_zero_bool(struct judge *j)
{
    irqs_invalid(j, &(struct irq_set){ .flags = BOOL | TRIGGER, .index = irqs_any(j) });
}

static void set_count_zero_eventfd(struct judge *j)
{
    irqs_invalid(j, &(struct irq_set){ .flags = EVENTFD | TRIGGER, .index = irqs_any(j) });
}

/* With each kind of data, as far as it can be sent. */
static void range_refused(struct judge *j, uint32_t index, uint32_t start, uint32_t count)
{
    struct irq_set set = { .flags = EVENTFD | TRIGGER, .index = index, .start = start, .count = count };

    if (count <= irqs_at_once(j)) {
        set.fds = irqs_eventfds(j, count);
        set.nfds = count;
        irqs_invalid(j, &set);
        set.nfds = 0;
    }
    irqs_invalid(j, &set);
    set.flags = NONE | TRIGGER;
    irqs_invalid(j, &set);
    if (count > sizeof(zeros))
        return;
    set.flags = BOOL | TRIGGER;
    set.data = zeros;
    set.size = count;
    invalid_bool(j, &set);
}

static void set_index_beyond(struct judge *j)
{
    const uint32_t beyond[] = { j->facts.irqs, j->facts.irqs + 1, 255, 0x7fffffff, 0x80000000, 0xffffffff };

    for (size_t i = 0; i < sizeof(beyond) / sizeof(*beyond); i++) {
        if (beyond[i] < j->facts.irqs)
            continue;
        range_refused(j, beyond[i], 0, 1);
        irqs_invalid(j, &(struct irq_set){ .flags = NONE | TRIGGER, .index = beyond[i] });
    }
}

static void set_index_empty(struct judge *j)
{
    unsigned tried = 0;

    for (uint32_t i = 0; i < j->facts.irqs && i < 16; i++) {
        if (j->facts.irq[i].count != 0)
            continue;
        range_refused(j, i, 0, 1);
        tried++;
    }
    if (tried == 0)
        judge_skip(j, "every interrupt type has vectors");
}

static void set_start_beyond(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = j->facts.irq[index].count;

    range_refused(j, index, n, 1);
    range_refused(j, index, n + 1, 1);
    range_refused(j, index, 0x80000000, 1);
}

static void set_count_beyond(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = j->facts.irq[index].count;

    range_refused(j, index, 0, n + 1);
    range_refused(j, index, n - 1, 2);
    range_refused(j, index, 0, 0x80000000);
    range_refused(j, index, 0, 0xffffffff);
}

static void set_range_wraps(struct judge *j)
{
    const uint32_t index = irqs_any(j);

    range_refused(j, index, 0xffffffff, 1);
    range_refused(j, index, 0xffffffff, 2);
    range_refused(j, index, 1, 0xffffffff);
    range_refused(j, index, 0x80000000, 0x80000000);
    range_refused(j, index, 0x80000000, 0x80000001);
}

/* --- MASK and UNMASK of a type that is not MASKABLE -------------------------------------------------------------- */

static void not_maskable(struct judge *j, uint32_t action)
{
    unsigned tried = 0;

    for (uint32_t i = 0; i < j->facts.irqs && i < 16; i++) {
        struct irq_set set = { .flags = NONE | action, .index = i, .count = 1 };

        if (j->facts.irq[i].count == 0 || j->facts.irq[i].flags & VFIO_IRQ_INFO_MASKABLE)
            continue;
        irqs_invalid(j, &set);
        set.flags = EVENTFD | action;
        irqs_invalid(j, &set);
        set.fds = irqs_eventfds(j, 1);
        set.nfds = 1;
        irqs_invalid(j, &set);
        set = (struct irq_set){ .flags = BOOL | action, .index = i, .count = 1, .data = ones, .size = 1 };
        invalid_bool(j, &set);
        tried++;
    }
    if (tried == 0)
        judge_skip(j, "every interrupt type is MASKABLE");
}

static void set_mask_not_maskable(struct judge *j)
{
    not_maskable(j, MASK);
}

static void set_unmask_not_maskable(struct judge *j)
{
    not_maskable(j, UNMASK);
}

/* --- A failure changes nothing ----------------------------------------------------------------------------------- */

/* Sends what has to be refused; then the eventfds that were assigned are signalled. */
static void keeps(struct judge *j, struct irq_set set)
{
    const int *fds = irqs_ready(j, set.index);
    const unsigned n = irqs_vectors(j, set.index);

    if (irqs_set(j, &set) == 0)
        judge_skip(j, "the server takes what this check has to see refused");
    for (unsigned i = 0; i < n; i++) {
        irqs_trigger(j, set.index, i, 1);
        want_one(j, fds[i], "vector %u was triggered after a SET_IRQS that failed", i);
    }
}

static void set_failure_range(struct judge *j)
{
    const uint32_t index = irqs_any(j);

    keeps(j, (struct irq_set){ .flags = EVENTFD | TRIGGER, .index = index, .count = j->facts.irq[index].count + 1 });
}

static void set_failure_disable(struct judge *j)
{
    keeps(j, (struct irq_set){ .flags = NONE | TRIGGER, .index = irqs_any(j), .start = 1 });
}

static void set_failure_flags(struct judge *j)
{
    keeps(j, (struct irq_set){ .flags = NONE | TRIGGER | UNMASK, .index = irqs_any(j) });
}

static void set_failure_descriptors(struct judge *j)
{
    two_fds(j);
    keeps(j, with_eventfds(j, EVENTFD | TRIGGER, irqs_any(j), 1, 2));
}

/* One of several descriptors is none that the server takes: those before it are not assigned either. */
static void set_failure_bad_descriptor(struct judge *j)
{
    const uint32_t index = irqs_several(j);
    int fds[2] = { judge_eventfd(j) }, mine;
    const struct irq_set set = { EVENTFD | TRIGGER, index, 0, 2, .fds = fds, .nfds = 2 };
    const int *before;

    two_fds(j);
    before = irqs_ready(j, index);
    judge_pair(j, &mine, &fds[1]);
    if (irqs_set(j, &set) == 0)
        judge_skip(j, "the server takes a socket in place of an eventfd");
    irqs_trigger(j, index, 0, 1);
    want_one(j, before[0], "vector 0 was triggered, after the second of two descriptors was refused");
    want_none(j, fds[0], "vector 0 was triggered, and this is the first of two descriptors that were refused");
}

const struct check server_set_irqs_checks[] = {
    { { "set-no-payload", "VU-SET-2", "the reply to SET_IRQS has no payload" }, NEED_IRQ, set_no_payload },
    { { "set-no-data", "VU-SET-3", "flags without a data type fail with EINVAL" }, NEED_IRQ, set_no_data },
    { { "set-no-action", "VU-SET-3", "flags without an action fail with EINVAL" }, NEED_IRQ, set_no_action },
    { { "set-two-data", "VU-SET-3", "flags with several data types fail with EINVAL" }, NEED_IRQ, set_two_data },
    { { "set-two-actions", "VU-SET-3", "flags with several actions fail with EINVAL" }, NEED_IRQ, set_two_actions },
    { { "set-unknown-flags", "VU-SET-19", "each unknown flag fails with EINVAL" }, NEED_IRQ, set_unknown_flags },
    { { "set-argsz-small", "VU-SET-19", "an argsz below 20 fails with EINVAL" }, NEED_IRQ, set_argsz_small },
    { { "set-argsz-bool", "VU-SET-19", "an argsz that does not count all of DATA_BOOL's bytes fails with EINVAL" },
      NEED_IRQ,
      set_argsz_bool },
    { { "set-bool-short", "VU-SET-12", "fewer bytes of DATA_BOOL than count fail with EINVAL" },
      NEED_IRQ,
      set_bool_short },
    { { "set-bool-long", "VU-HDR-20", "more bytes of DATA_BOOL than count fail with EINVAL" },
      NEED_IRQ,
      set_bool_long },
    { { "set-fds-few", "VU-SET-8", "fewer eventfds than count fail with EINVAL" }, NEED_VECTORS, set_fds_few },
    { { "set-fds-many", "VU-SET-28", "more eventfds than count fail with EINVAL" }, NEED_IRQ, set_fds_many },
    { { "set-fds-none", "VU-SET-28", "a descriptor with DATA_NONE fails with EINVAL" }, NEED_IRQ, set_fds_none },
    { { "set-fds-bool", "VU-SET-28", "a descriptor with DATA_BOOL fails with EINVAL" }, NEED_IRQ, set_fds_bool },
    { { "set-disable-start", "VU-SET-10", "count 0 with a start that is not 0 fails with EINVAL" },
      NEED_IRQ,
      set_disable_start },
    { { "set-count-zero-bool", "VU-SET-10", "count 0 with DATA_BOOL fails with EINVAL" },
      NEED_IRQ,
      set_count_zero_bool },
    { { "set-count-zero-eventfd", "VU-SET-10", "count 0 with DATA_EVENTFD fails with EINVAL" },
      NEED_IRQ,
      set_count_zero_eventfd },
    { { "set-index-beyond", "VU-SET-11", "an index at or above num_irqs fails with EINVAL" }, 0, set_index_beyond },
    { { "set-index-empty", "VU-SET-11", "a vector of a type without any fails with EINVAL" }, 0, set_index_empty },
    { { "set-start-beyond", "VU-SET-11", "a start at or above the type's count fails with EINVAL" },
      NEED_IRQ,
      set_start_beyond },
    { { "set-count-beyond", "VU-SET-11", "a range that ends beyond the type's count fails with EINVAL" },
      NEED_IRQ,
      set_count_beyond },
    { { "set-range-wraps", "VU-SET-11", "a start plus count that wraps fails with EINVAL" },
      NEED_IRQ,
      set_range_wraps },
    { { "set-mask-not-maskable", "VU-SET-17", "MASK of a type that is not MASKABLE fails with EINVAL" },
      NEED_IRQ,
      set_mask_not_maskable },
    { { "set-unmask-not-maskable", "VU-SET-17", "UNMASK of a type that is not MASKABLE fails with EINVAL" },
      NEED_IRQ,
      set_unmask_not_maskable },
    { { "set-failure-range", "VU-SET-20", "taking away more vectors than there are takes none away" },
      NEED_IRQ,
      set_failure_range },
    { { "set-failure-disable", "VU-SET-20", "a count of 0 with another start takes no eventfd away" },
      NEED_IRQ,
      set_failure_disable },
    { { "set-failure-flags", "VU-SET-20", "a count of 0 with wrong flags takes no eventfd away" },
      NEED_IRQ,
      set_failure_flags },
    { { "set-failure-descriptors", "VU-SET-20", "too many eventfds replace none" }, NEED_IRQ, set_failure_descriptors },
    { { "set-failure-bad-descriptor", "VU-SET-20", "eventfds of which one is refused replace none" },
      NEED_VECTORS,
      set_failure_bad_descriptor },
    { { NULL, NULL, NULL }, 0, NULL },
};
