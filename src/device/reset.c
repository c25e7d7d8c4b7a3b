/* Resets, and the end of a session. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/dev.h"

/* What the library resets: registers, configuration space, interrupts. The interrupts are one copy for all threads,
 * so theirs follows the commit. */
static void reset_library(struct ob_dev *dev, enum ob_reset kind)
{
    uint8_t *config = ob_vault_part(&dev->vault, OB_PART_CONFIG);

    ob_registers_reset(dev);
    if (kind == OB_RESET_DEVICE)
        ob_pci_config_reset(dev->layout, config);
    else
        ob_pci_config_reset_function(dev->layout, config);
    dev->vault.dirty[OB_PART_CONFIG] = true;
    dev->vault.reset_irqs = true;
    dev->config_changed = true;
}

int ob_reset_start(struct ob_dev *dev, enum ob_reset kind)
{
    struct ob_req *req = dev->req;

    reset_library(dev, kind);
    if (dev->cls.ops.reset) {
        int err = dev->cls.ops.reset(req, kind);
        if (err == OB_LATER && !req->answered) {
            req->resetting = true;
            req->reset = kind;
            return ob_req_keep(req, OB_WAIT_HANDLER);
        }
        if (err == OB_LATER)
            err = req->err;
        req->answered = false;
        if (err < 0)
            return err;
    }
    return ob_reset_finish(dev, false, kind);
}

int ob_reset_finish(struct ob_dev *dev, bool again, enum ob_reset kind)
{
    struct ob_req *req = dev->req;

    req->resetting = false;
    if (again)
        reset_library(dev, kind);     /* what was done before the request was kept has been undone */
    ob_dma_fail_all(dev, -ECANCELED); /* once the class knows of the reset */
    if (req->kind == OB_REQ_RESET) {
        struct ob_message reply = { 0 };
        ob_migrate_reset(dev);
        ob_session_reply(&dev->session, &reply, -1);
    }
    return OB_DONE;
}

/* --- The end of a session ---------------------------------------------------------------------------------------- */

void ob_set_phase(struct ob_dev *dev, enum ob_phase phase)
{
    pthread_mutex_lock(&dev->lock);
    dev->phase = phase;
    pthread_mutex_unlock(&dev->lock);
}

static void rest(struct ob_dev *dev)
{
    ob_set_phase(dev, OB_PHASE_IDLE);
    if (dev->only_one)
        dev->failure = -EPIPE;
    else
        ob_listen_again(dev);
}

void ob_end_go_on(struct ob_dev *dev)
{
    ob_set_phase(dev, OB_PHASE_DRAINING);
    bool quiet = ob_maps_drop_all(dev);
    quiet = ob_grace_over(dev) && quiet;
    quiet = ob_memory_log_gone(dev->memory) && quiet;
    ob_dev_commit(dev);
    if (quiet)
        rest(dev);
}

static void end_effects(struct ob_dev *dev)
{
    ob_set_phase(dev, OB_PHASE_QUIESCING);
    ob_dma_fail_all(dev, -ENOTCONN);
    ob_signals_disconnect(dev);
    ob_migrate_end(dev);
    ob_dev_commit(dev); /* whatever becomes of quiesce() */
}

void ob_end_begin(struct ob_dev *dev)
{
    struct ob_req *req = dev->req;

    /* The class is becoming quiet already, because the client wanted it to stop. */
    if (req->kind == OB_REQ_FEATURE && req->wait == OB_WAIT_HANDLER && req->quiescing) {
        req->kind = OB_REQ_QUIESCE;
        end_effects(dev);
        return;
    }
    /* A request that was kept is nobody's any more: its answer will be dropped. */
    if (req->wait == OB_WAIT_HANDLER) {
        struct ob_req *next = ob_req_new(dev);
        if (!next) {
            dev->failure = -ENOMEM;
            return;
        }
        req->expired = true;
        dev->req = req = next;
    }
    req->wait = OB_WAIT_NOTHING;
    req->answered = false;
    req->kind = OB_REQ_QUIESCE;
    end_effects(dev);
    if (dev->cls.ops.quiesce && !dev->quiet) {
        dev->depth++;
        dev->vault.dirty[OB_PART_STATE] = true;
        int err = dev->cls.ops.quiesce(req);
        dev->depth--;
        if (err == OB_LATER && !req->answered) {
            ob_dev_rollback(dev);
            (void)ob_req_keep(req, OB_WAIT_HANDLER);
            return;
        }
        req->answered = false;
    }
    ob_end_go_on(dev);
}
