/* irq.c: VU-SET: how clients set interrupts up. */
#include "check.h"

#define HEAD 20 /* bytes in front of the data */

static uint32_t data_of(const struct ob_raw_message *m)
{
    return get32(m, 4) & VFIO_IRQ_SET_DATA_TYPE_MASK;
}

static uint32_t action_of(const struct ob_raw_message *m)
{
    return get32(m, 4) & VFIO_IRQ_SET_ACTION_TYPE_MASK;
}

static bool set_layout(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t size, count = get32(m, 16);

    if (m->header.command != OB_RAW_SET_IRQS)
        return false;
    size = HEAD + (data_of(m) == VFIO_IRQ_SET_DATA_BOOL ? count : 0);
    if (m->size != size)
        trial_wrong(t, "SET_IRQS with flags %#x and count %u should have %u bytes of payload, and has %u", get32(m, 4),
                    count, size, m->size);
    else if (get32(m, 0) != size)
        trial_wrong(t, "the argsz of SET_IRQS should be the size of its payload, %u, and is %u", size, get32(m, 0));
    return true;
}

static bool set_flags(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t flags = get32(m, 4), index = get32(m, 8), allowed;

    if (m->header.command != OB_RAW_SET_IRQS)
        return false;
    if (flags != (data_of(m) | action_of(m)) || __builtin_popcount(data_of(m)) != 1 ||
        __builtin_popcount(action_of(m)) != 1) {
        trial_wrong(t, "flags should be one kind of data and one action, and are %#x", flags);
        return true;
    }
    allowed = index < t->model.irqs && index < MODEL_IRQS ? t->model.irq[index].flags : 0;
    if (action_of(m) != VFIO_IRQ_SET_ACTION_TRIGGER && !(allowed & VFIO_IRQ_INFO_MASKABLE))
        trial_wrong(t, "interrupts of index %u are not MASKABLE, and flags %#x came for them", index, flags);
    if (data_of(m) == VFIO_IRQ_SET_DATA_EVENTFD && !(allowed & VFIO_IRQ_INFO_EVENTFD))
        trial_wrong(t, "interrupts of index %u take no eventfds, and flags %#x came for them", index, flags);
    return true;
}

static bool set_range(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t index = get32(m, 8), start = get32(m, 12), count = get32(m, 16), there;

    if (m->header.command != OB_RAW_SET_IRQS)
        return false;
    there = index < t->model.irqs && index < MODEL_IRQS ? t->model.irq[index].count : 0;
    if (start > there || count > there - start)
        trial_wrong(t, "index %u has %u vectors, and vectors %u to %llu were named", index, there, start,
                    (unsigned long long)start + count - 1);
    return true;
}

static bool set_descriptors(struct trial *t, const struct ob_raw_message *m)
{
    if (m->header.command != OB_RAW_SET_IRQS)
        return false;
    if (m->nfds > 0 && data_of(m) != VFIO_IRQ_SET_DATA_EVENTFD)
        trial_wrong(t, "descriptors should come with DATA_EVENTFD only, and %u came with flags %#x", m->nfds,
                    get32(m, 4));
    else if (m->nfds > 0 && m->nfds != get32(m, 16))
        trial_wrong(t, "there should be a descriptor for each of %u vectors, or none, and %u came", get32(m, 16),
                    m->nfds);
    return true;
}

/* How many vectors have had an eventfd at a time, at most; a session. */
static unsigned most_vectors(struct trial *t)
{
    struct ob_raw_message *m;
    unsigned most = 0;

    while ((m = trial_next(t)) != NULL) {
        unsigned now = 0;

        trial_answer(t, m);
        for (unsigned i = 0; i < MODEL_IRQS; i++) {
            for (unsigned v = 0; v < MODEL_VECTORS; v++)
                now += t->model.vector[i][v] >= 0;
        }
        most = now > most ? now : most;
    }
    return most;
}

static void in_pieces(struct trial *t)
{
    unsigned usual = most_vectors(t), most;

    if (usual == 0)
        trial_skip(t, "the client sends no eventfds");
    trial_again(t);
    t->model.max_msg_fds = 2;
    most = most_vectors(t);
    trial_want_same(t, 0);
    trial_want(t, most == usual,
               "eventfds that do not fit a message should come in several: %u vectors had one, not %u", most, usual);
}

static void not_maskable(struct trial *t)
{
    t->model.irq[0].flags &= ~(uint32_t)(VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED);
    trial_want_held(t, BIT(OB_RAW_SET_IRQS));
}

static void no_eventfds(struct trial *t)
{
    for (unsigned i = 0; i < MODEL_IRQS; i++)
        t->model.irq[i].flags &= ~(uint32_t)VFIO_IRQ_INFO_EVENTFD;
    trial_want_held(t, BIT(OB_RAW_SET_IRQS));
}

static void no_interrupts(struct trial *t)
{
    for (unsigned i = 1; i < MODEL_IRQS; i++)
        t->model.irq[i] = (struct vfio_irq_info){ .flags = 0 };
    t->model.config[0x41] = 0x80; /* MSI and MSI-X are out of the list of capabilities */
    trial_want_held(t, BIT(OB_RAW_SET_IRQS) | BIT(OB_RAW_GET_IRQ_INFO));
}

#define NO_SET "the client sent no SET_IRQS"

const struct client_check client_irq_checks[] = {
    RULE("set-layout", "VU-SET-1", "SET_IRQS has its fields and data, and argsz their size", set_layout, NO_SET),
    RULE("set-flags", "VU-SET-26", "data and actions are those that the index takes", set_flags, NO_SET),
    RULE("set-range", "VU-SET-26", "vectors are below the index's count", set_range, NO_SET),
    RULE("set-descriptors", "VU-SET-1", "there is an eventfd for each vector, or none", set_descriptors, NO_SET),
    VARIATION("set-in-pieces", "VU-SET-27", "eventfds are assigned in pieces of max_msg_fds", in_pieces),
    VARIATION("set-not-maskable", "VU-SET-26", "an INTx that is not MASKABLE is not masked", not_maskable),
    VARIATION("set-no-eventfd", "VU-SET-26", "interrupts without EVENTFD get none", no_eventfds),
    VARIATION("set-no-interrupts", "VU-SET-26", "nothing is set for types without interrupts", no_interrupts),
    { .is = { NULL, NULL, NULL } },
};
