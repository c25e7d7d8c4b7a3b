/* The states of migration, and what happens on the way from one to another.
 *
 * The device stands still in all states but RUNNING and PRE_COPY. To stop it is what the end of a session is, while the
 * session lives: copies by message end with -ENOTCONN (they are done again when the device runs), the class is asked to
 * become quiet, then DMA and interrupts are refused, whatever the class does, and the request is answered when no
 * worker can be in the middle of either. Time stands still too: timers go on with what was left of them. */
#include "device/migrate.h"

#include <errno.h>
#include <string.h>

#define STATES 8u

/* vfio_mig_get_next_state() of the kernel, from <linux/vfio.h>'s rules: the shortest path over the arcs that have
 * actions, without states of the saving group (PRE_COPY, PRE_COPY_P2P, STOP_COPY) inside it. */
unsigned ob_migrate_next(unsigned from, unsigned to)
{
    enum {
        ERROR = VFIO_DEVICE_STATE_ERROR,
        STOP = VFIO_DEVICE_STATE_STOP,
        RUN = VFIO_DEVICE_STATE_RUNNING,
        STOP_COPY = VFIO_DEVICE_STATE_STOP_COPY,
        RESUME = VFIO_DEVICE_STATE_RESUMING,
        P2P = VFIO_DEVICE_STATE_RUNNING_P2P,
        PRE = OB_DEVICE_STATE_PRE_COPY,
        PRE_P2P = OB_DEVICE_STATE_PRE_COPY_P2P,
    };
    static const uint8_t next[STATES][STATES] = {
        [STOP] = { ERROR, STOP, P2P, STOP_COPY, RESUME, P2P, P2P, P2P },
        [RUN] = { ERROR, P2P, RUN, P2P, P2P, P2P, PRE, P2P },
        [STOP_COPY] = { ERROR, STOP, STOP, STOP_COPY, STOP, STOP, ERROR, ERROR },
        [RESUME] = { ERROR, STOP, STOP, STOP, RESUME, STOP, STOP, STOP },
        [P2P] = { ERROR, STOP, RUN, STOP, STOP, P2P, RUN, PRE_P2P },
        [PRE] = { ERROR, RUN, RUN, PRE_P2P, RUN, RUN, PRE, PRE_P2P },
        [PRE_P2P] = { ERROR, P2P, P2P, STOP_COPY, P2P, P2P, PRE, PRE_P2P },
    };

    return next[from][to];
}

static bool still(unsigned state)
{
    return state != VFIO_DEVICE_STATE_RUNNING && state != OB_DEVICE_STATE_PRE_COPY;
}

static bool saving(unsigned state)
{
    return state == OB_DEVICE_STATE_PRE_COPY || state == OB_DEVICE_STATE_PRE_COPY_P2P ||
           state == VFIO_DEVICE_STATE_STOP_COPY;
}

bool ob_migrate_still(const struct ob_dev *dev)
{
    return still(ob_migration(dev)->state);
}

bool ob_migrate_closed(const struct ob_dev *dev)
{
    unsigned state = ob_migration(dev)->state;

    return still(state) && state != VFIO_DEVICE_STATE_RUNNING_P2P && state != OB_DEVICE_STATE_PRE_COPY_P2P;
}

size_t ob_migration_part_size(void)
{
    return sizeof(struct ob_migration);
}

size_t ob_migration_area_size(const struct ob_dev *dev)
{
    return sizeof(struct ob_migration_area) + ob_stream_room(dev) + dev->cls.shared.size;
}

static void set_state(struct ob_dev *dev, unsigned state)
{
    struct ob_migration *m = ob_migration(dev);

    if (still(m->state) != still(state))
        dev->config_changed = true; /* whether there may be DMA and interrupts: with the commit */
    m->state = state;
    m->stopped_at = still(state) ? dev->stopped_at : 0;
    dev->vault.dirty[OB_PART_MIGRATION] = true;
}

/* --- To stand still, and to go on -------------------------------------------------------------------------------- */

static void freeze(struct ob_dev *dev)
{
    ob_set_phase(dev, OB_PHASE_STOPPED); /* no timer, and no copy by message any more */
    dev->stopped_at = ob_now();
}

static void thaw(struct ob_dev *dev)
{
    uint64_t *deadlines = ob_vault_part(&dev->vault, OB_PART_TIMERS), gone = ob_now() - dev->stopped_at;

    for (unsigned i = 0; i < dev->cls.timers; i++)
        if (deadlines[i])
            deadlines[i] = deadlines[i] < UINT64_MAX - 1 - gone ? deadlines[i] + gone : UINT64_MAX - 1;
    dev->vault.dirty[OB_PART_TIMERS] = true;
    dev->stopped_at = 0;
}

/* Effect: the state is committed, DMA and interrupts are possible. */
static void run_again(struct ob_dev *dev, uint64_t unused)
{
    if (!ob_migrate_still(dev) && dev->phase == OB_PHASE_STOPPED)
        ob_dev_run(dev);
}

static void start(struct ob_dev *dev, unsigned state)
{
    thaw(dev);
    set_state(dev, state);
    ob_after(dev, run_again, 0);
}

/* Asks the class to become quiet, and goes on when it has. OB_DONE, OB_LATER, -errno. */
static int quiesce(struct ob_dev *dev, int err)
{
    struct ob_req *req = dev->req;

    if (!req->quiescing) {
        freeze(dev);
        ob_dma_fail_all(dev, -ENOTCONN);
        ob_dev_commit(dev); /* whatever becomes of quiesce() */
        req->quiescing = true;
        dev->vault.dirty[OB_PART_STATE] = true;
        err = dev->cls.ops.quiesce ? dev->cls.ops.quiesce(req) : 0;
        if (err == OB_LATER && !req->answered)
            return ob_req_keep(req, OB_WAIT_HANDLER);
        if (err == OB_LATER)
            err = req->err;
        req->answered = false;
    }
    req->quiescing = false;
    if (err < 0) {
        ob_dev_rollback(dev);
        thaw(dev);
        ob_set_phase(dev, OB_PHASE_LIVE);
        ob_dev_commit(dev);
        return err;
    }
    dev->quiet = true;
    return OB_DONE;
}

static int stop(struct ob_dev *dev, unsigned state, int err)
{
    err = quiesce(dev, err);
    if (err)
        return err;
    set_state(dev, state);
    ob_dev_commit(dev);
    dev->stop_token = ob_epoch_start(ob_memory_epoch(dev->memory));
    return OB_DONE;
}

/* Workers that were in the middle of something have finished it. */
static bool settled(struct ob_dev *dev)
{
    ob_reader_quiescent(&dev->control.reader);
    if (dev->stop_token && !ob_epoch_passed(ob_memory_epoch(dev->memory), dev->stop_token))
        return false;
    dev->stop_token = 0;
    return true;
}

/* --- The arcs ---------------------------------------------------------------------------------------------------- */

/* STOP to RESUMING. */
static int resume(struct ob_dev *dev, int err)
{
    struct ob_req *req = dev->req;

    if (!req->resetting)
        err = ob_reset_start(dev, OB_RESET_DEVICE);
    else if (!err)
        err = ob_reset_finish(dev, true, OB_RESET_DEVICE);
    else
        req->resetting = false;
    if (err)
        return err;
    ob_stream_begin(dev, false);
    set_state(dev, VFIO_DEVICE_STATE_RESUMING);
    return OB_DONE;
}

/* RESUMING to STOP. */
static int finish_loading(struct ob_dev *dev)
{
    int err = -EINVAL;

    if (ob_stream_complete(dev))
        err = ob_load_apply(dev, ob_migration_area(dev)->head);
    ob_stream_drop(dev);
    set_state(dev, err ? VFIO_DEVICE_STATE_ERROR : VFIO_DEVICE_STATE_STOP);
    dev->config_changed = true;
    ob_dev_commit(dev); /* an error's, too: BAR memory may be anything */
    return err;
}

static int arc(struct ob_dev *dev, unsigned from, unsigned to, int err)
{
    if (!still(from) && still(to))
        return stop(dev, to, err);
    if (to == VFIO_DEVICE_STATE_RESUMING)
        return resume(dev, err);
    if (from == VFIO_DEVICE_STATE_RESUMING)
        return finish_loading(dev);
    if (saving(from) && !saving(to))
        ob_stream_drop(dev);
    if (saving(to) && !saving(from))
        ob_stream_begin(dev, true);
    if (to == VFIO_DEVICE_STATE_STOP_COPY)
        ob_save_head(dev, ob_migration_area(dev)->head, false);
    if (still(from) && !still(to))
        start(dev, to);
    else
        set_state(dev, to);
    return OB_DONE;
}

int ob_migrate_go_on(struct ob_dev *dev, int answer)
{
    struct ob_req *req = dev->req;

    for (;;) {
        unsigned from = ob_migration(dev)->state;
        if (!settled(dev))
            return ob_req_keep(req, OB_WAIT_EPOCH);
        unsigned to = ob_migrate_next(from, req->target);
        if (to == VFIO_DEVICE_STATE_ERROR) {
            ob_log(dev, "there is no way from migration state %u to %u", from, req->target);
            return -EINVAL;
        }
        if (to == from)
            return OB_DONE;
        int err = arc(dev, from, to, answer);
        if (err) {
            ob_dev_rollback(dev); /* of the arcs before, what was to stay is committed */
            return err;
        }
    }
}

/* A class that does not become quiet in time is in no state that has a name. */
void ob_migrate_expired(struct ob_dev *dev)
{
    dev->req->quiescing = false;
    dev->quiet = true;
    dev->stop_token = 0;
    ob_stream_drop(dev);
    set_state(dev, VFIO_DEVICE_STATE_ERROR);
}

/* --- Resets, sessions, processes --------------------------------------------------------------------------------- */

void ob_migrate_reset(struct ob_dev *dev)
{
    unsigned state = ob_migration(dev)->state;

    if (state == VFIO_DEVICE_STATE_RUNNING)
        return;
    ob_stream_drop(dev);
    if (still(state))
        start(dev, VFIO_DEVICE_STATE_RUNNING);
    else
        set_state(dev, VFIO_DEVICE_STATE_RUNNING);
}

void ob_migrate_end(struct ob_dev *dev)
{
    struct ob_migration *m = ob_migration(dev);

    ob_memory_log_stop(dev->memory);
    if (m->log_shift) {
        m->log_shift = 0;
        dev->vault.dirty[OB_PART_MIGRATION] = true;
    }
    dev->stop_token = 0;
    if (dev->stopped_at)
        thaw(dev);
    if (m->state == VFIO_DEVICE_STATE_RUNNING)
        return;
    ob_stream_drop(dev);
    set_state(dev, VFIO_DEVICE_STATE_RUNNING);
}

void ob_migrate_first(struct ob_dev *dev)
{
    ob_migration(dev)->state = VFIO_DEVICE_STATE_RUNNING;
    dev->vault.dirty[OB_PART_MIGRATION] = true;
}

void ob_migrate_restore(struct ob_dev *dev)
{
    struct ob_migration *m = ob_migration(dev);

    dev->stopped_at = m->stopped_at;
    if (m->applying)
        ob_load_undo(dev);
}

int ob_migrate_restore_log(struct ob_dev *dev)
{
    const struct ob_migration *m = ob_migration(dev);

    if (!m->log_shift)
        return 0;
    /* What was written and not reported died with the process: all of it may be. */
    return ob_memory_log_start(dev->memory, m->log_shift, ob_migration_area(dev)->ranges, m->log_ranges, true);
}
