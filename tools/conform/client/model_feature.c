/* model_feature.c: migration of the model device, and its log of written pages, which is empty. */
#include <errno.h>
#include <string.h>

#include "model.h"

#define METHODS (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET)
#define HEAD    8 /* argsz and flags */

/* --- States ------------------------------------------------------------------------------------------------------ */

/* VU-MIG, "From the row to the column": whether there is a way. */
static bool can_go(const struct model *model, uint32_t from, uint32_t to)
{
    if (to == MODEL_STATE_PRE_COPY && (from == VFIO_DEVICE_STATE_STOP_COPY || !(model->migration & MODEL_PRE_COPY)))
        return false;
    return from != VFIO_DEVICE_STATE_ERROR && to != VFIO_DEVICE_STATE_ERROR && to != VFIO_DEVICE_STATE_RUNNING_P2P &&
           to <= MODEL_STATE_PRE_COPY;
}

static int set_state(struct model *model, const struct ob_raw_message *m)
{
    uint32_t to, from = model->state;

    if (m->size < HEAD + 8)
        return EINVAL;
    memcpy(&to, m->payload + HEAD, sizeof(to));
    if (!can_go(model, from, to))
        return EINVAL;
    if (from == to)
        return 0;
    if (from == VFIO_DEVICE_STATE_RESUMING && (model->stream_wrong || model->streamed != MODEL_STREAM)) {
        model->state = VFIO_DEVICE_STATE_ERROR; /* VU-MIG-34 */
        return EINVAL;
    }
    if (!(from == MODEL_STATE_PRE_COPY && to == VFIO_DEVICE_STATE_STOP_COPY))
        model->streamed = 0;
    model->stream_wrong = false;
    model->state = to;
    return 0;
}

/* --- Features ---------------------------------------------------------------------------------------------------- */

/* The methods that a feature has; 0: there is no such feature. */
static uint32_t methods_of(const struct model *model, uint32_t feature)
{
    switch (feature) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
        return model->migration != 0 ? VFIO_DEVICE_FEATURE_GET : 0;
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        return model->migration != 0 ? METHODS : 0;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
        return model->can_log ? VFIO_DEVICE_FEATURE_SET : 0;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        return model->can_log ? VFIO_DEVICE_FEATURE_GET : 0;
    default:
        return 0;
    }
}

static int report(struct model *model, const struct ob_raw_message *m, struct reply *reply)
{
    uint64_t ask[3], pages;

    if (!model->logging || m->size < HEAD + sizeof(ask))
        return EINVAL;
    memcpy(ask, m->payload + HEAD, sizeof(ask));
    if (ask[2] == 0 || ask[1] / ask[2] > 8u << 20)
        return EINVAL;
    pages = ask[1] / ask[2] + (ask[1] % ask[2] != 0);
    reply_put(reply, HEAD, ask, sizeof(ask));
    reply_resize(reply, HEAD + sizeof(ask) + (pages + 63) / 64 * 8);
    return 0;
}

static int get(struct model *model, uint32_t feature, struct ob_raw_message *m, struct reply *reply)
{
    const uint32_t state[2] = { model->state, 0 };

    switch (feature) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
        reply_put(reply, HEAD, &model->migration, sizeof(model->migration));
        return 0;
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        reply_put(reply, HEAD, state, sizeof(state));
        return 0;
    default:
        return report(model, m, reply);
    }
}

static int set(struct model *model, uint32_t feature, struct ob_raw_message *m)
{
    if (feature == VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE)
        return set_state(model, m);
    model->logging = feature == VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
    return 0;
}

int model_feature(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    uint32_t ask[2], feature, methods;
    int err = 0;

    if (model_take(m, ask, sizeof(ask)) != 0)
        return EINVAL;
    feature = ask[1] & VFIO_DEVICE_FEATURE_MASK;
    methods = methods_of(model, feature);
    if (methods == 0)
        return ENOTTY;
    if ((ask[1] & METHODS & ~methods) != 0 ||
        (!(ask[1] & VFIO_DEVICE_FEATURE_PROBE) && __builtin_popcount(ask[1] & METHODS) != 1))
        return EINVAL;
    if (ask[1] & VFIO_DEVICE_FEATURE_PROBE || ask[1] & VFIO_DEVICE_FEATURE_SET)
        reply_put(reply, 0, m->payload, m->size);
    else
        reply_put(reply, 0, ask, sizeof(ask));
    if (!(ask[1] & VFIO_DEVICE_FEATURE_PROBE))
        err = ask[1] & VFIO_DEVICE_FEATURE_SET ? set(model, feature, m) : get(model, feature, m, reply);
    if (err != 0)
        return err;
    reply_put32(reply, 0, (uint32_t)reply->size);
    return reply->size > ask[0] ? EINVAL : 0; /* VU-FEAT-11 */
}

/* --- The stream -------------------------------------------------------------------------------------------------- */

static uint8_t stream_byte(size_t at)
{
    return (uint8_t)(at * 7 + (at >> 8));
}

int model_data_read(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    /* While the device runs, there is only so much to send. */
    size_t end = model->state == MODEL_STATE_PRE_COPY ? MODEL_STREAM / 4 : MODEL_STREAM;
    struct ob_raw_mig_data ask;
    uint32_t size;

    if (model_take(m, &ask, sizeof(ask)) != 0 ||
        (model->state != MODEL_STATE_PRE_COPY && model->state != VFIO_DEVICE_STATE_STOP_COPY))
        return EINVAL;
    size = ask.size < end - model->streamed ? ask.size : (uint32_t)(end - model->streamed);
    reply_put32(reply, 0, (uint32_t)sizeof(ask) + size);
    reply_put32(reply, 4, size);
    reply_resize(reply, sizeof(ask) + size);
    for (uint32_t i = 0; i < size; i++)
        reply->payload[sizeof(ask) + i] = stream_byte(model->streamed++);
    return 0;
}

int model_data_write(struct model *model, struct ob_raw_message *m, struct reply *reply)
{
    struct ob_raw_mig_data ask;

    if (model_take(m, &ask, sizeof(ask)) != 0 || ask.size > m->size - sizeof(ask) ||
        model->state != VFIO_DEVICE_STATE_RESUMING)
        return EINVAL;
    for (uint32_t i = 0; i < ask.size; i++) {
        if (model->streamed >= MODEL_STREAM || m->payload[sizeof(ask) + i] != stream_byte(model->streamed))
            model->stream_wrong = true;
        model->streamed++;
    }
    return 0;
}
