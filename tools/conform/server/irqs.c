/* irqs.c: SET_IRQS as checks send it, and waiting for what comes of it. */
#include "irqs.h"

#include <stdarg.h>

int irqs_set(struct judge *j, const struct irq_set *set)
{
    uint32_t head[5] = { (uint32_t)sizeof(head) + set->size - set->less, set->flags, set->index, set->start,
                         set->count };
    uint8_t *payload = judge_alloc(j, sizeof(head) + set->size);

    memcpy(payload, head, sizeof(head));
    if (set->size > 0)
        memcpy(payload + sizeof(head), set->data, set->size);
    return call(j, OB_RAW_SET_IRQS, payload, sizeof(head) + set->size, set->fds, set->nfds, NULL);
}

static const char *describe(const struct irq_set *set, char *text, size_t room)
{
    snprintf(text, room, "SET_IRQS with flags %#x, index %u, start %u, count %u, %u bytes of data, %u descriptors",
             set->flags, set->index, set->start, set->count, set->size, set->nfds);
    return text;
}

void irqs_done(struct judge *j, const struct irq_set *set)
{
    char text[160];

    want_ok(j, irqs_set(j, set), describe(set, text, sizeof(text)));
}

void irqs_invalid(struct judge *j, const struct irq_set *set)
{
    char text[160];

    want_error(j, irqs_set(j, set), EINVAL, describe(set, text, sizeof(text)));
}

void irqs_do(struct judge *j, uint32_t action, uint32_t index, uint32_t start, uint32_t count)
{
    irqs_done(j, &(struct irq_set){ .flags = NONE | action, .index = index, .start = start, .count = count });
}

void irqs_bool(struct judge *j, uint32_t action, uint32_t index, uint32_t start, uint32_t count, const uint8_t *data)
{
    const struct irq_set set = { BOOL | action, index, start, count, .data = data, .size = count };
    char text[160];

    if (got(j, irqs_set(j, &set), describe(&set, text, sizeof(text))) != 0)
        judge_skip(j, "%s is refused", text);
}

void irqs_assign(struct judge *j, uint32_t index, uint32_t start, uint32_t count, const int *fds)
{
    const struct irq_set set = { EVENTFD | TRIGGER, index, start, count, .fds = fds, .nfds = count };

    irqs_done(j, &set);
}

void irqs_take_away(struct judge *j, uint32_t index, uint32_t start, uint32_t count)
{
    irqs_done(j, &(struct irq_set){ .flags = EVENTFD | TRIGGER, .index = index, .start = start, .count = count });
}

void irqs_disable(struct judge *j, uint32_t index)
{
    irqs_do(j, TRIGGER, index, 0, 0);
}

void irqs_needs_loopback(struct judge *j, uint32_t index)
{
    if (!(j->facts.loopback & 1u << index))
        judge_skip(j, "SET_IRQS with DATA_NONE and ACTION_TRIGGER is not taken for index %u", index);
}

/* Skips the check if MASK and UNMASK are refused, as they may be for a type that is not MASKABLE. */
static void irqs_needs_masks(struct judge *j, uint32_t index)
{
    const struct irq_set unmask = { .flags = NONE | UNMASK, .index = index, .count = 1 };

    if (!(j->facts.irq[index].flags & VFIO_IRQ_INFO_MASKABLE) &&
        got(j, irqs_set(j, &unmask), "SET_IRQS with DATA_NONE and ACTION_UNMASK") != 0)
        judge_skip(j, "index %u is not MASKABLE", index);
}

void irqs_trigger(struct judge *j, uint32_t index, uint32_t start, uint32_t count)
{
    irqs_needs_loopback(j, index);
    irqs_do(j, TRIGGER, index, start, count);
    if (j->facts.irq[index].flags & VFIO_IRQ_INFO_AUTOMASKED)
        irqs_do(j, UNMASK, index, start, count);
}

/* Without NORESIZE vectors are assigned one by one; with it, all in one message. */
static bool usable(const struct judge *j, uint32_t index, unsigned least, bool at_once)
{
    const struct vfio_irq_info *irq = &j->facts.irq[index];

    return irq->count >= least && irq->flags & VFIO_IRQ_INFO_EVENTFD &&
           (j->facts.loopback == 0 || j->facts.loopback & 1u << index) &&
           (!(irq->flags & VFIO_IRQ_INFO_NORESIZE) || irq->count == 1 ||
            (at_once && irq->count <= j->facts.max_msg_fds && irq->count <= MOST_VECTORS));
}

static uint32_t find(struct judge *j, unsigned least, bool at_once)
{
    static const uint32_t order[] = { MSIX, MSI, INTX, VFIO_PCI_REQ_IRQ_INDEX, VFIO_PCI_ERR_IRQ_INDEX };

    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        if (usable(j, order[i], least, at_once))
            return order[i];
    }
    judge_skip(j, "no interrupt type has %u vectors that can be assigned%s", least, at_once ? "" : " one by one");
}

uint32_t irqs_any(struct judge *j)
{
    return find(j, 1, false);
}

uint32_t irqs_several(struct judge *j)
{
    return find(j, 2, true);
}

uint32_t irqs_growing(struct judge *j)
{
    return find(j, 2, false);
}

unsigned irqs_vectors(const struct judge *j, uint32_t index)
{
    const uint32_t count = j->facts.irq[index].count;

    return count < MOST_VECTORS ? count : MOST_VECTORS;
}

void irqs_enable(struct judge *j, uint32_t index)
{
    config_write(j, 0x04, 2, 7);
    if ((index == MSI && config_capability(j, 0x05) != 0) || (index == MSIX && config_capability(j, 0x11) != 0))
        device_messages(j, index, true);
}

/* Whether it is done is for other checks to judge. */
static void try_write(struct judge *j, uint32_t offset, uint32_t value)
{
    struct {
        struct ob_raw_region access;
        uint32_t value;
    } request = { { .offset = offset, .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = 2 }, value };

    (void)call(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + 2, NULL, 0, NULL);
}

static int assign_and_trigger(struct judge *j, uint32_t index, uint32_t count)
{
    const uint32_t assign[5] = { sizeof(assign), EVENTFD | TRIGGER, index, 0, count };
    const uint32_t trigger[5] = { sizeof(trigger), NONE | TRIGGER, index, 0, 1 };
    int r = ob_raw_call(&j->raw, OB_RAW_SET_IRQS, assign, sizeof(assign), irqs_eventfds(j, count), count, NULL);

    return r != 0 ? r : ob_raw_call(&j->raw, OB_RAW_SET_IRQS, trigger, sizeof(trigger), NULL, 0, NULL);
}

int irqs_loopback(struct judge *j, uint32_t index)
{
    const struct vfio_irq_info *irq = &j->facts.irq[index];
    const uint32_t count = irq->flags & VFIO_IRQ_INFO_NORESIZE ? irq->count : 1;
    const uint32_t at = index == MSI ? config_capability(j, 0x05) : index == MSIX ? config_capability(j, 0x11) : 0;
    const uint32_t command = config_read(j, 0x04, 2), control = at != 0 ? config_read(j, at + 2, 2) : 0;
    int r;

    if (irq->count == 0 || !(irq->flags & VFIO_IRQ_INFO_EVENTFD) || count > irqs_at_once(j))
        return ENOTSUP;
    try_write(j, 0x04, 7);
    if (at != 0)
        try_write(j, at + 2, control | (index == MSI ? 1 : 0x8000));
    r = assign_and_trigger(j, index, count);
    if (r < 0)
        return r;
    if (at != 0)
        try_write(j, at + 2, control);
    try_write(j, 0x04, command);
    return r;
}

void irqs_on(struct judge *j, uint32_t index)
{
    reset(j);
    irqs_enable(j, index);
}

unsigned irqs_at_once(const struct judge *j)
{
    return j->facts.max_msg_fds > 0 ? j->facts.max_msg_fds : 1;
}

int *irqs_eventfds(struct judge *j, unsigned count)
{
    int *fds = judge_alloc(j, count * sizeof(*fds));

    for (unsigned i = 0; i < count; i++)
        fds[i] = judge_eventfd(j);
    return fds;
}

int *irqs_ready(struct judge *j, uint32_t index)
{
    const unsigned n = irqs_vectors(j, index), most = irqs_at_once(j);
    int *fds = irqs_eventfds(j, n);

    irqs_on(j, index);
    for (unsigned i = 0; i < n; i += most)
        irqs_assign(j, index, i, n - i < most ? n - i : most, fds + i);
    return fds;
}

int irqs_intx(struct judge *j)
{
    device_needs(j, INTX);
    return irqs_ready(j, INTX)[0];
}

int irqs_intx_with_masks(struct judge *j)
{
    device_needs(j, INTX);
    irqs_needs_masks(j, INTX);
    return irqs_intx(j);
}

void irqs_want_others_silent(struct judge *j, const int *fds, unsigned count, unsigned vector)
{
    want_alive(j, "GET_INFO");
    for (unsigned i = 0; i < count; i++)
        want(j, i == vector || signals(j, fds[i]) == 0,
             "vector %u interrupted, and the eventfd of vector %u was signalled", vector, i);
}

void want_one(struct judge *j, int fd, const char *format, ...)
{
    char what[160];
    va_list args;
    uint64_t count;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    count = want_signal(j, fd, what);
    want_alive(j, what);
    count += signals(j, fd);
    want(j, count == 1, "%s: the eventfd was signalled %llu times, wanted once", what, (unsigned long long)count);
}

void want_none(struct judge *j, int fd, const char *format, ...)
{
    char what[160];
    va_list args;
    uint64_t count;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    want_alive(j, what);
    count = signals(j, fd);
    want(j, count == 0, "%s: the eventfd was signalled (%llu), wanted nothing", what, (unsigned long long)count);
}
