/* model_irqs.c: interrupts of the model device, which come when the client asks for them. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

int model_irq_info(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct vfio_irq_info info;

    if (model_take(m, &info, sizeof(info)) != 0 || info.index >= model->irqs || info.index >= MODEL_IRQS)
        return EINVAL;
    info = (struct vfio_irq_info){ .argsz = sizeof(info),
                                   .flags = model->irq[info.index].flags,
                                   .index = info.index,
                                   .count = model->irq[info.index].count };
    reply_put(reply, 0, &info, sizeof(info));
    return 0;
}

static void signal_vector(struct model *model, uint32_t index, uint32_t vector)
{
    const uint64_t one = 1;
    int fd = model->vector[index][vector];

    if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
        return; /* a full counter has told all that there is to tell */
}

/* The eventfds of a message become those of the vectors, or the vectors have none. */
static int assign(struct model *model, const struct vfio_irq_set *ask, struct ob_raw_message *m)
{
    if (m->nfds != 0 && m->nfds != ask->count)
        return EINVAL;
    for (uint32_t i = 0; i < ask->count; i++) {
        int *vector = &model->vector[ask->index][ask->start + i];

        if (*vector >= 0)
            close(*vector);
        *vector = -1;
        if (m->nfds > 0)
            model_take_fd(m, i, vector);
    }
    return 0;
}

static int trigger(struct model *model, const struct vfio_irq_set *ask, struct ob_raw_message *m)
{
    struct vfio_irq_set all = *ask;

    switch (ask->flags & VFIO_IRQ_SET_DATA_TYPE_MASK) {
    case VFIO_IRQ_SET_DATA_EVENTFD:
        return assign(model, ask, m);
    case VFIO_IRQ_SET_DATA_NONE:
        all.count = model->irq[ask->index].count;
        if (ask->count == 0)
            return assign(model, &all, m);
        for (uint32_t i = 0; i < ask->count; i++)
            signal_vector(model, ask->index, ask->start + i);
        return 0;
    case VFIO_IRQ_SET_DATA_BOOL:
        for (uint32_t i = 0; i < ask->count && sizeof(struct vfio_irq_set) + i < m->size; i++) {
            if (m->payload[sizeof(struct vfio_irq_set) + i] != 0)
                signal_vector(model, ask->index, ask->start + i);
        }
        return 0;
    default:
        return EINVAL;
    }
}

int model_set_irqs(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct vfio_irq_set ask;
    uint32_t count;

    if (m->size < sizeof(ask))
        return EINVAL;
    memcpy(&ask, m->payload, sizeof(ask));
    if (ask.index >= model->irqs || ask.index >= MODEL_IRQS)
        return EINVAL;
    count = model->irq[ask.index].count;
    if (ask.start > count || ask.count > count - ask.start)
        return EINVAL;
    if ((ask.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) == VFIO_IRQ_SET_ACTION_TRIGGER)
        return trigger(model, &ask, m);
    return 0; /* nothing comes by itself, so there is nothing to mask */
}
