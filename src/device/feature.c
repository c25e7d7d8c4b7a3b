/* DEVICE_FEATURE: what can be got, set and probed, as <linux/vfio.h> has it; and the log of what the device writes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/migrate.h"

/* Younger than the <linux/vfio.h> of Linux 6.1. */
#define OB_FEATURE_MIG_DATA_SIZE 9u /* GET: a 64-bit number, bytes that STOP_COPY has to transfer */

#define MIN_PAGE UINT64_C(4096)

/* --- Replies ----------------------------------------------------------------------------------------------------- */

/* What was set or probed is repeated. */
static int reply_same(struct ob_dev *dev)
{
    const struct ob_message *request = &dev->session.request;
    struct ob_message reply = { .u.feature = request->u.feature, .tail = request->tail };

    reply.tail_size = request->tail_size;
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* What was got. Too little room for it is an error, as it is in the kernel. */
static int reply_data(struct ob_dev *dev, const void *data, size_t size)
{
    const struct ob_wire_feature *asked = &dev->session.request.u.feature;
    struct ob_message reply = { .u.feature = { (uint32_t)(sizeof(*asked) + size), asked->flags } };

    if (asked->argsz < reply.u.feature.argsz)
        return -EINVAL;
    reply.tail = data;
    reply.tail_size = size;
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* --- Migration --------------------------------------------------------------------------------------------------- */

static int get_migration(struct ob_dev *dev)
{
    struct vfio_device_feature_migration data = { VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
                                                  OB_MIGRATION_PRE_COPY };

    return reply_data(dev, &data, sizeof(data));
}

static int get_state(struct ob_dev *dev)
{
    struct vfio_device_feature_mig_state data = { ob_migration(dev)->state, -1 };

    return reply_data(dev, &data, sizeof(data));
}

static int get_data_size(struct ob_dev *dev)
{
    uint64_t size = ob_stream_length(dev);

    return reply_data(dev, &size, sizeof(size));
}

static int set_state_go_on(struct ob_dev *dev, int answer)
{
    int err = ob_migrate_go_on(dev, answer);

    return err ? err : reply_same(dev);
}

static int set_state(struct ob_dev *dev)
{
    struct vfio_device_feature_mig_state data;

    memcpy(&data, dev->session.request.tail, sizeof(data));
    if (data.device_state > OB_DEVICE_STATE_PRE_COPY_P2P)
        return -EINVAL;
    dev->req->target = data.device_state;
    return set_state_go_on(dev, 0);
}

/* --- The log of what the device writes --------------------------------------------------------------------------- */

/* The request's page size is a hint; what is none, or finer than pages of maps, gets these. */
static uint64_t log_page(uint64_t hint)
{
    return hint >= MIN_PAGE && __builtin_popcountll(hint) == 1 ? hint : MIN_PAGE;
}

static int by_address(const void *a, const void *b)
{
    const struct ob_dirty_range *left = a, *right = b;

    return left->iova < right->iova ? -1 : left->iova > right->iova;
}

/* Takes the ranges out of the request, sorted. */
static int take_ranges(const struct ob_message *m, uint64_t page, unsigned n, struct ob_dirty_range *ranges)
{
    uint64_t bitmaps = 0;

    for (unsigned i = 0; i < n; i++) {
        struct vfio_device_feature_dma_logging_range r;
        memcpy(&r, m->tail + sizeof(struct ob_wire_dma_logging) + i * sizeof(r), sizeof(r));
        if (r.length == 0 || r.iova % page || r.length % page)
            return -EINVAL;
        ranges[i] = (struct ob_dirty_range){ r.iova, r.length };
        bitmaps += ob_bitmap_size(r.length, page); /* each below 2^50 */
    }
    if (bitmaps > ob_capabilities_default.migration.max_bitmap_size)
        return -E2BIG;
    qsort(ranges, n, sizeof(*ranges), by_address);
    for (unsigned i = 1; i < n; i++)
        if (ranges[i].iova - ranges[i - 1].iova < ranges[i - 1].len)
            return -EINVAL;
    return 0;
}

/* The log is complete from the first write after this on, since no worker is in the middle of one that began before. */
static int log_start_go_on(struct ob_dev *dev)
{
    struct ob_migration *m = ob_migration(dev);
    struct ob_wire_dma_logging control;

    ob_reader_quiescent(&dev->control.reader);
    if (!ob_epoch_passed(ob_memory_epoch(dev->memory), dev->log_token))
        return ob_req_keep(dev->req, OB_WAIT_EPOCH);
    memcpy(&control, dev->session.request.tail, sizeof(control));
    control.page_size = log_page(control.page_size);
    m->log_shift = (uint32_t)__builtin_ctzll(control.page_size);
    m->log_ranges = control.num_ranges;
    dev->vault.dirty[OB_PART_MIGRATION] = true;
    struct ob_message reply = { .u.feature = dev->session.request.u.feature,
                                .tail = ob_session_reply_tail(&dev->session),
                                .tail_size = dev->session.request.tail_size };
    memcpy((uint8_t *)reply.tail, dev->session.request.tail, reply.tail_size);
    memcpy((uint8_t *)reply.tail, &control, sizeof(control));
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

static int log_start(struct ob_dev *dev)
{
    const struct ob_message *m = &dev->session.request;
    struct ob_dirty_range *ranges = ob_migration_area(dev)->ranges;
    struct ob_wire_dma_logging control;

    memcpy(&control, m->tail, sizeof(control));
    if (control.reserved != 0)
        return -EINVAL;
    control.page_size = log_page(control.page_size);
    if (control.num_ranges > OB_LOG_MAX_RANGES)
        return -E2BIG;
    if (ob_memory_logging(dev->memory))
        return -EBUSY; /* "Another start is not allowed in the meantime" */
    int err = take_ranges(m, control.page_size, control.num_ranges, ranges);
    if (!err)
        err = ob_memory_log_start(dev->memory, (unsigned)__builtin_ctzll(control.page_size), ranges, control.num_ranges,
                                  false);
    if (err)
        return err;
    dev->log_token = ob_epoch_start(ob_memory_epoch(dev->memory));
    return log_start_go_on(dev);
}

static int log_stop_go_on(struct ob_dev *dev)
{
    ob_reader_quiescent(&dev->control.reader);
    if (!ob_memory_log_gone(dev->memory))
        return ob_req_keep(dev->req, OB_WAIT_EPOCH);
    ob_migration(dev)->log_shift = 0;
    dev->vault.dirty[OB_PART_MIGRATION] = true;
    return reply_same(dev);
}

static int log_stop(struct ob_dev *dev)
{
    if (!ob_memory_logging(dev->memory))
        return -EINVAL;
    ob_memory_log_stop(dev->memory);
    return log_stop_go_on(dev);
}

static int log_report(struct ob_dev *dev)
{
    const struct ob_message *m = &dev->session.request;
    struct ob_wire_dma_report report;

    memcpy(&report, m->tail, sizeof(report));
    if (!ob_memory_logging(dev->memory) || report.length == 0 || report.page_size < MIN_PAGE)
        return -EINVAL;
    uint64_t bitmap = ob_bitmap_size(report.length, report.page_size);
    if (bitmap > OB_SESSION_MAX_DATA - sizeof(report) - sizeof(m->u.feature))
        return -E2BIG; /* no message holds it: ask for less at once, or with larger pages */
    size_t size = sizeof(report) + bitmap;
    uint8_t *tail = ob_session_reply_tail(&dev->session);
    memcpy(tail, &report, sizeof(report));
    if (m->u.feature.argsz - sizeof(m->u.feature) < size)
        return -EINVAL; /* before anything is forgotten */
    memset(tail + sizeof(report), 0, bitmap);
    ob_memory_log_take(dev->memory, (struct ob_dirty_range){ report.iova, report.length }, report.page_size,
                       tail + sizeof(report));
    return reply_data(dev, tail, size);
}

/* --- The table --------------------------------------------------------------------------------------------------- */

static const struct {
    uint16_t index;
    int (*get)(struct ob_dev *dev);
    int (*set)(struct ob_dev *dev);
} features[] = {
    { VFIO_DEVICE_FEATURE_MIGRATION, get_migration, NULL },
    { VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, get_state, set_state },
    { VFIO_DEVICE_FEATURE_DMA_LOGGING_START, NULL, log_start },
    { VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, log_stop },
    { VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, log_report, NULL },
    { OB_FEATURE_MIG_DATA_SIZE, get_data_size, NULL },
};

int ob_feature(struct ob_dev *dev, const struct ob_message *m)
{
    uint32_t flags = m->u.feature.flags;

    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (features[i].index != (flags & VFIO_DEVICE_FEATURE_MASK))
            continue;
        if ((flags & VFIO_DEVICE_FEATURE_GET && !features[i].get) ||
            (flags & VFIO_DEVICE_FEATURE_SET && !features[i].set))
            return -EINVAL;
        if (flags & VFIO_DEVICE_FEATURE_PROBE)
            return reply_same(dev);
        dev->req->kind = OB_REQ_FEATURE;
        dev->req->quiescing = dev->req->resetting = false;
        return flags & VFIO_DEVICE_FEATURE_GET ? features[i].get(dev) : features[i].set(dev);
    }
    return -ENOTTY;
}

int ob_feature_go_on(struct ob_dev *dev, int answer)
{
    switch (dev->session.request.u.feature.flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
        return log_start_go_on(dev);
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
        return log_stop_go_on(dev);
    default:
        return set_state_go_on(dev, answer);
    }
}

void ob_feature_expired(struct ob_dev *dev)
{
    switch (dev->session.request.u.feature.flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
        ob_memory_log_stop(dev->memory);
        break;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: /* it is over all the same, once the workers look up */
        ob_migration(dev)->log_shift = 0;
        dev->vault.dirty[OB_PART_MIGRATION] = true;
        break;
    default:
        ob_migrate_expired(dev);
    }
}
