/* irq.c: VU-IRQ: what GET_IRQ_INFO answers, and whether its flags are true. */
#include "irqs.h"

static int ask(struct judge *j, uint32_t index, uint32_t argsz, uint32_t size, struct ob_raw_message **reply)
{
    const struct vfio_irq_info info = { .argsz = argsz, .index = index };
    uint8_t *payload = judge_alloc(j, size);

    memcpy(payload, &info, size < sizeof(info) ? size : sizeof(info));
    return call(j, OB_RAW_GET_IRQ_INFO, payload, size, NULL, 0, reply);
}

static struct ob_raw_message *ask_well(struct judge *j, uint32_t index)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, index, 16, 16, &m), "GET_IRQ_INFO");
    return m;
}

static uint32_t types(const struct judge *j)
{
    return j->facts.irqs < 16 ? j->facts.irqs : 16;
}

/* --- The answer -------------------------------------------------------------------------------------------------- */

static void irq_layout(struct judge *j)
{
    for (uint32_t i = 0; i < types(j); i++) {
        const struct ob_raw_message *m = ask_well(j, i);

        want(j, m->size == 16 && field32(j, m, 0) == 16, "index %u: %u bytes of payload, argsz %u, wanted 16 and 16", i,
             m->size, field32(j, m, 0));
    }
}

static void irq_index(struct judge *j)
{
    for (uint32_t i = 0; i < types(j); i++) {
        const uint32_t index = field32(j, ask_well(j, i), 8);

        want(j, index == i, "index is %u in the reply to one for %u", index, i);
    }
}

static void irq_beyond(struct judge *j)
{
    const uint32_t beyond[] = { j->facts.irqs, j->facts.irqs + 1, 255, 0x7fffffff, 0x80000000, 0xffffffff };
    char what[64];

    for (size_t i = 0; i < sizeof(beyond) / sizeof(*beyond); i++) {
        if (beyond[i] < j->facts.irqs)
            continue;
        snprintf(what, sizeof(what), "GET_IRQ_INFO of index %#x, of %u", beyond[i], j->facts.irqs);
        want_error(j, ask(j, beyond[i], 16, 16, NULL), EINVAL, what);
    }
}

static void irq_unused(struct judge *j)
{
    char what[64];

    for (uint32_t i = 0; i < types(j); i++) {
        snprintf(what, sizeof(what), "GET_IRQ_INFO of index %u, of %u", i, j->facts.irqs);
        want_ok(j, ask(j, i, 16, 16, NULL), what);
    }
}

static void irq_argsz_small(struct judge *j)
{
    static const uint32_t small[] = { 15, 12, 0 };

    for (size_t i = 0; i < sizeof(small) / sizeof(*small); i++) {
        struct ob_raw_message *m = NULL;
        int r = ask(j, 0, small[i], 16, &m);
        char what[64];

        snprintf(what, sizeof(what), "GET_IRQ_INFO with argsz %u", small[i]);
        want_no_more(j, r, m, small[i], what);
    }
}

static void irq_argsz_large(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, 0, 4096, 16, &m), "GET_IRQ_INFO with argsz 4096");
    want(j, m->size == 16 && field32(j, m, 0) == 16, "%u bytes of payload, argsz %u, wanted 16 and 16", m->size,
         field32(j, m, 0));
}

static void irq_payload_large(struct judge *j)
{
    want_ok(j, ask(j, 0, 20, 20, NULL), "GET_IRQ_INFO with 20 bytes of payload");
    judge_reconnect(j); /* as in info.c */
    want_ok(j, ask(j, 0, 4096, 4096, NULL), "GET_IRQ_INFO with 4096 bytes of payload");
}

static void irq_dirty_fields(struct judge *j)
{
    const struct vfio_irq_info dirty = { .argsz = 16, .flags = 0xffffffff, .index = 0, .count = 77 };
    struct ob_raw_message *m;

    want_ok(j, call(j, OB_RAW_GET_IRQ_INFO, &dirty, sizeof(dirty), NULL, 0, &m),
            "GET_IRQ_INFO with fields that are not 0");
    want(j, field32(j, m, 4) == j->facts.irq[0].flags && field32(j, m, 12) == j->facts.irq[0].count,
         "flags %#x, count %u, were %#x, %u", field32(j, m, 4), field32(j, m, 12), j->facts.irq[0].flags,
         j->facts.irq[0].count);
}

/* After all that could tempt a server to answer otherwise. */
static void irq_stable(struct judge *j)
{
    const uint32_t index = irqs_any(j);

    irqs_ready(j, index);
    irqs_disable(j, index);
    for (uint32_t i = 0; i < types(j); i++) {
        const struct ob_raw_message *m = ask_well(j, i);

        want(j, field32(j, m, 4) == j->facts.irq[i].flags && field32(j, m, 12) == j->facts.irq[i].count,
             "index %u: flags %#x, count %u, were %#x, %u", i, field32(j, m, 4), field32(j, m, 12),
             j->facts.irq[i].flags, j->facts.irq[i].count);
    }
}

/* --- The flags --------------------------------------------------------------------------------------------------- */

static void irq_eventfd(struct judge *j)
{
    for (uint32_t i = 0; i < types(j); i++) {
        const struct vfio_irq_info *irq = &j->facts.irq[i];
        const uint32_t count = irq->flags & VFIO_IRQ_INFO_NORESIZE ? irq->count : 1;
        const bool flag = irq->flags & VFIO_IRQ_INFO_EVENTFD;
        struct irq_set set = { .flags = EVENTFD | TRIGGER, .index = i, .count = count, .nfds = count };
        int r;

        if (irq->count == 0 || count > j->facts.max_msg_fds)
            continue;
        set.fds = irqs_eventfds(j, count);
        r = irqs_set(j, &set);
        want(j, !flag || r == 0, "index %u: VFIO_IRQ_INFO_EVENTFD is set, and an eventfd is refused", i);
        if (!flag && r == 0)
            judge_advise(j, "index %u: VFIO_IRQ_INFO_EVENTFD is clear, and an eventfd is taken", i);
    }
}

static void irq_maskable(struct judge *j)
{
    bool any = false;

    for (uint32_t i = 0; i < types(j); i++) {
        const bool flag = j->facts.irq[i].flags & VFIO_IRQ_INFO_MASKABLE;
        static const uint32_t actions[] = { MASK, UNMASK };

        if (j->facts.irq[i].count == 0 || !flag)
            continue;
        for (unsigned a = 0; a < 2; a++) {
            int r = irqs_set(j, &(struct irq_set){ .flags = NONE | actions[a], .index = i, .count = 1 });

            want(j, r == 0, "index %u: VFIO_IRQ_INFO_MASKABLE is set, and %s is refused", i,
                 a == 0 ? "MASK" : "UNMASK");
        }
        any = true;
    }
    if (!any)
        judge_skip(j, "no interrupt type is MASKABLE");
}

/* Of every type that can be tried: an interrupt that comes once until it is unmasked has masked itself. */
static void irq_automasked(struct judge *j)
{
    for (uint32_t i = INTX; i <= MSIX; i++) {
        int fd;

        if (!(j->facts.exerciser->irqs & 1u << i) || j->facts.irq[i].count == 0)
            continue;
        fd = irqs_ready(j, i)[0];
        device_raise(j, i, 0);
        want_signal(j, fd, "a first interrupt");
        device_lower(j, i, 0);
        device_raise(j, i, 0);
        if (!(j->facts.irq[i].flags & VFIO_IRQ_INFO_AUTOMASKED))
            want_signal(j, fd, "a second interrupt of a type without VFIO_IRQ_INFO_AUTOMASKED");
        device_lower(j, i, 0);
    }
}

static void irq_resize(struct judge *j)
{
    const uint32_t index = irqs_growing(j);
    const int *fds = irqs_eventfds(j, 2);

    irqs_on(j, index);
    irqs_assign(j, index, 0, 1, &fds[0]);
    irqs_trigger(j, index, 0, 1);
    irqs_assign(j, index, 1, 1, &fds[1]);
    irqs_trigger(j, index, 0, 1);
    irqs_trigger(j, index, 1, 1);
    want_one(j, fds[1], "vector 1, added while vector 0 is in use, was triggered");
    want(j, signals(j, fds[0]) == 2,
         "vector 0, triggered before and after vector 1 was added, was not signalled twice");
}

static void irq_intx(struct judge *j)
{
    want(j, j->facts.irq[INTX].count == 1, "INTx has count %u, wanted 1", j->facts.irq[INTX].count);
}

static void irq_intx_flags(struct judge *j)
{
    const uint32_t wanted = VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED, flags = j->facts.irq[INTX].flags;

    want(j, (flags & wanted) == wanted, "INTx has flags %#x, wanted MASKABLE (2) and AUTOMASKED (4) among them", flags);
}

const struct check server_irq_checks[] = {
    { { "irq-layout", "VU-IRQ-2", "GET_IRQ_INFO answers 16 bytes and says so in argsz" }, 0, irq_layout },
    { { "irq-index", "VU-IRQ-2", "the reply has the request's index" }, 0, irq_index },
    { { "irq-eventfd", "VU-IRQ-3", "a type with the flag EVENTFD takes eventfds" }, 0, irq_eventfd },
    { { "irq-maskable", "VU-IRQ-4", "a type with the flag MASKABLE takes MASK and UNMASK" }, 0, irq_maskable },
    { { "irq-automasked", "VU-IRQ-5", "an interrupt that masks itself is AUTOMASKED" },
      NEED_INTERRUPT,
      irq_automasked },
    { { "irq-resize", "VU-IRQ-6", "without NORESIZE a vector can be added while another is in use" },
      NEED_VECTORS,
      irq_resize },
    { { "irq-beyond", "VU-IRQ-7", "an index at or above num_irqs fails with EINVAL" }, 0, irq_beyond },
    { { "irq-unused", "VU-IRQ-8", "every index below num_irqs is answered" }, 0, irq_unused },
    { { "irq-argsz-small", "VU-IRQ-9", "an argsz below 16 is refused, or answered with no more" }, 0, irq_argsz_small },
    { { "irq-intx", "VU-IRQ-10", "INTx has count 1" }, NEED_INTX, irq_intx },
    { { "irq-intx-flags", "VU-IRQ-12", "INTx is MASKABLE and AUTOMASKED" }, NEED_INTX, irq_intx_flags },
    { { "irq-argsz-large", "VU-INFO-8", "GET_IRQ_INFO takes a larger argsz" }, 0, irq_argsz_large },
    { { "irq-payload-large", "VU-INFO-8", "GET_IRQ_INFO takes more payload than it has fields" },
      0,
      irq_payload_large },
    { { "irq-dirty-fields", "VU-INFO-9", "GET_IRQ_INFO ignores fields that should be 0" }, 0, irq_dirty_fields },
    { { "irq-stable", "VU-INFO-11", "GET_IRQ_INFO answers the same after SET_IRQS and a reset" }, 0, irq_stable },
    { { NULL, NULL, NULL }, 0, NULL },
};
