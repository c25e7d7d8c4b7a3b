/* Brings a checked request to whom it concerns: what the session calls. */
#include <errno.h>
#include <string.h>

#include "device/dev.h"
#include "session/steps.h"

static int device_reset(struct ob_dev *dev)
{
    dev->req->kind = OB_REQ_RESET;
    return ob_reset_start(dev, OB_RESET_DEVICE);
}

static int execute(struct ob_dev *dev, const struct ob_message *m, int *fds, unsigned nfds)
{
    switch (m->header.command) {
    case OB_REGION_READ:
    case OB_REGION_WRITE:
        return ob_access_start(dev, m);
    case OB_REGION_WRITE_MULTI:
        return ob_access_multi(dev, m);
    case OB_DMA_MAP:
        return ob_maps_map(dev, m, fds, nfds);
    case OB_DMA_UNMAP:
        return ob_maps_unmap(dev, m);
    case OB_DEVICE_GET_INFO:
        return ob_info_device(dev, m);
    case OB_DEVICE_GET_REGION_INFO:
        return ob_info_region(dev, m);
    case OB_DEVICE_GET_REGION_IO_FDS:
        return ob_doorbells_info(dev, m);
    case OB_DEVICE_GET_IRQ_INFO:
        return ob_info_irq(dev, m);
    case OB_DEVICE_SET_IRQS:
        return ob_signals_set(dev, m, fds, nfds);
    case OB_DEVICE_RESET:
        return device_reset(dev);
    case OB_DEVICE_FEATURE:
        return ob_feature(dev, m);
    case OB_MIG_DATA_READ:
        return ob_stream_read(dev, m);
    case OB_MIG_DATA_WRITE:
        return ob_stream_write(dev, m);
    default:
        return -ENOSYS;
    }
}

static int back_execute(void *back, const struct ob_message *m, int *fds, unsigned nfds)
{
    struct ob_dev *dev = back;

    dev->depth++;
    int err = execute(dev, m, fds, nfds);
    dev->depth--;
    if (err != OB_DONE)
        ob_dev_rollback(dev);
    ob_step(executed);
    return err;
}

static void back_commit(void *back)
{
    ob_dev_commit(back);
}

static void back_answered(void *back, uint16_t id, const struct ob_message *reply, int err)
{
    ob_dma_answered(back, id, reply, err);
}

void ob_dev_run(struct ob_dev *dev)
{
    ob_set_phase(dev, OB_PHASE_LIVE);
    dev->quiet = false;
    ob_timers_update(dev); /* they rested until now */
    if (!dev->cls.ops.run)
        return;
    dev->depth++;
    dev->starting = true;
    dev->vault.dirty[OB_PART_STATE] = true;
    int err = dev->cls.ops.run(dev);
    dev->depth--;
    if (err < 0) {
        ob_log(dev, "it cannot run: %s", strerror(-err));
        dev->failure = err;
        return; /* workers begin only to end, in ob_dev_free() */
    }
    ob_workers_release(dev);
}

static void back_opened(void *back)
{
    struct ob_dev *dev = back;

    if (!ob_migrate_still(dev)) {
        ob_dev_run(dev);
        return;
    }
    ob_set_phase(dev, OB_PHASE_STOPPED); /* as a predecessor left it */
    dev->quiet = true;
}

static unsigned back_reply_fds(void *back, int what, int *fds)
{
    struct ob_dev *dev = back;

    if (what >= OB_REPLY_DOORBELLS)
        return ob_doorbells_fds(dev, (uint32_t)(what - OB_REPLY_DOORBELLS), fds);
    fds[0] = dev->bars_fd; /* all regions lie in one file, at their offsets */
    return 1;
}

const struct ob_session_ops ob_back_ops = {
    .execute = back_execute,
    .commit = back_commit,
    .answered = back_answered,
    .opened = back_opened,
    .reply_fds = back_reply_fds,
};
