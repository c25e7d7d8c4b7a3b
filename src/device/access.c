/* Accesses to regions: configuration space, and the areas of BARs and of the class's own regions.
 *
 * An access may touch several things: registers, memory, holes. It is executed piece by piece, lowest address first,
 * and each piece but the last is a commit of its own, so that a piece can keep the request, or fail, without undoing
 * those before it; position.part says how far it has come. Nearly every access has one piece. */
#include <errno.h>
#include <string.h>

#include "device/dev.h"

static uint32_t at_most(uint32_t left, uint64_t distance)
{
    return distance < left ? (uint32_t)distance : left;
}

/* --- Configuration space ------------------------------------------------------------------------------------------ */

static int config_write(struct ob_req *req, uint64_t off, uint32_t len, const uint8_t *data)
{
    struct ob_dev *dev = req->dev;
    struct ob_pci_change change;
    int err = ob_pci_config_write(dev->layout, ob_vault_part(&dev->vault, OB_PART_CONFIG), off, len, data, &change);

    if (err)
        return err;
    dev->vault.dirty[OB_PART_CONFIG] = true;
    if (change.what & (OB_PCI_COMMAND | OB_PCI_POWER | OB_PCI_MSI | OB_PCI_MSIX))
        dev->config_changed = true;
    if (change.what & (OB_PCI_RESET_FLR | OB_PCI_RESET_POWER))
        return ob_reset_start(dev, change.what & OB_PCI_RESET_FLR ? OB_RESET_FLR : OB_RESET_D3);
    if (change.what && dev->cls.ops.config) {
        dev->vault.dirty[OB_PART_STATE] = true;
        dev->cls.ops.config(dev, (uint32_t)off, len);
    }
    return OB_DONE;
}

static int config_piece(struct ob_req *req, uint8_t *data)
{
    struct ob_dev *dev = req->dev;
    uint64_t off = req->access.offset;

    req->access.piece = req->access.count;
    if (req->access.write)
        return config_write(req, off, req->access.count, data);
    struct ob_pci_live live;
    ob_irqs_live(dev->irqs, &live);
    return ob_pci_config_read(dev->layout, ob_vault_part(&dev->vault, OB_PART_CONFIG), &live, off, req->access.count,
                              data);
}

/* --- BARs and the class's regions -------------------------------------------------------------------------------- */

/* The MSI-X structures lie over whatever the BAR has there. 1: done; 0: the piece is not theirs, and *limit is how far
 * it may go. */
static int msix_piece(struct ob_req *req, uint64_t off, uint8_t *data, uint32_t *limit)
{
    struct ob_dev *dev = req->dev;
    const struct ob_pci_layout *l = dev->layout;
    const struct {
        uint8_t bar;
        uint32_t start, size;
    } parts[2] = { { l->msix_table_bar, l->msix_table, l->msix_table_size },
                   { l->msix_pba_bar, l->msix_pba, l->msix_pba_size } };

    for (int i = 0; l->msix && i < 2; i++) {
        if (parts[i].bar != req->access.region)
            continue;
        if (off < parts[i].start) {
            *limit = at_most(*limit, parts[i].start - off);
        } else if (off - parts[i].start < parts[i].size) {
            uint64_t at = off - parts[i].start;
            uint32_t n = req->access.piece = at_most(*limit, parts[i].size - at);
            int err = 0;
            if (!req->access.write)
                err = i == 0 ? ob_irqs_table_read(dev->irqs, at, n, data) : ob_irqs_pba_read(dev->irqs, at, n, data);
            else if (i == 0)
                err = ob_irqs_table_write(dev->irqs, at, n, data);
            return err ? err : 1;
        }
    }
    return 0;
}

static void ram_piece(struct ob_req *req, const struct ob_area *area, uint64_t off, uint8_t *data)
{
    volatile uint8_t *ram = ob_bar_ram(req->dev, req->access.region, area->off + off);
    uint32_t n = req->access.piece;

    /* Naturally aligned accesses stay whole: the other side may be a client's store or a worker's load. */
    if (n == 4 && off % 4 == 0) {
        uint32_t v;
        memcpy(&v, data, 4);
        if (req->access.write)
            *(volatile uint32_t *)ram = v;
        else
            v = *(volatile uint32_t *)ram;
        memcpy(data, &v, 4);
    } else if (n == 8 && off % 8 == 0) {
        uint64_t v;
        memcpy(&v, data, 8);
        if (req->access.write)
            *(volatile uint64_t *)ram = v;
        else
            v = *(volatile uint64_t *)ram;
        memcpy(data, &v, 8);
    } else if (req->access.write) {
        memcpy((void *)ram, data, n);
    } else {
        memcpy(data, (const void *)ram, n);
    }
}

static int callback_piece(struct ob_req *req, const struct ob_area *area, uint64_t off, uint8_t *data)
{
    struct ob_access access = { .off = off, .len = req->access.piece, .write = req->access.write, .data = data };

    req->access.shift = 0;
    req->dev->vault.dirty[OB_PART_STATE] = true;
    return area->access(req, &access);
}

static void nothing_there(struct ob_req *req, uint8_t *data)
{
    if (!req->access.write)
        memset(data, 0xff, req->access.piece);
}

static int space_piece(struct ob_req *req, uint64_t off, uint32_t left, uint8_t *data)
{
    struct ob_dev *dev = req->dev;
    const struct ob_space *space = ob_space(dev, req->access.region);

    if (req->access.region <= VFIO_PCI_BAR5_REGION_INDEX &&
        ob_pci_in_d3(dev->layout, ob_vault_part(&dev->vault, OB_PART_CONFIG))) {
        req->access.piece = left;
        nothing_there(req, data);
        return OB_DONE;
    }
    if (req->access.write && dev->n_doorbells > 0 && req->access.done == 0) {
        int event = ob_doorbell_find(dev, req->access.region, off, left, data);
        if (event >= 0) {
            req->access.piece = left;
            ob_dev_intend(dev, OB_SIGNAL_EVENT + (unsigned)event);
            return OB_DONE;
        }
    }
    int taken = msix_piece(req, off, data, &left);
    if (taken)
        return taken < 0 ? taken : OB_DONE;
    for (unsigned i = 0; i < space->n_areas; i++) {
        const struct ob_area *area = &space->areas[i];
        if (off < area->off) {
            left = at_most(left, area->off - off);
            continue;
        }
        uint64_t at = off - area->off;
        if (at >= area->size)
            continue;
        req->access.piece = left = at_most(left, area->size - at);
        /* A device that is stopped must keep its state, and an answer made up would lose writes unnoticed. What is no
         * class's is answered: configuration space and MSI-X, as <linux/vfio.h> wants it of STOP, and memory, which the
         * client may have mapped anyway. */
        if (!(area->flags & OB_AREA_RAM) && ob_migrate_closed(dev))
            return -EBUSY;
        if (area->regs)
            return ob_registers_access(req, area, &space->index[i], at, left, req->access.count, data,
                                       &req->access.piece);
        if (area->access)
            return callback_piece(req, area, at, data);
        ram_piece(req, area, at, data);
        return OB_DONE;
    }
    req->access.piece = left;
    nothing_there(req, data);
    return OB_DONE;
}

/* --- The whole access -------------------------------------------------------------------------------------------- */

/* An access of no bytes is no mistake, unless there is no such region. */
static int check_bounds(struct ob_dev *dev, uint32_t region, uint64_t offset, uint32_t count, bool write)
{
    const struct ob_space *space = ob_space(dev, region);
    uint64_t size;

    if (region == VFIO_PCI_CONFIG_REGION_INDEX)
        size = dev->layout->size;
    else if (space && space->flags & (write ? OB_REGION_WRITABLE : OB_REGION_READABLE))
        size = space->size;
    else
        return -EINVAL;
    return offset > size || count > size - offset ? -EINVAL : 0;
}

/* The state of a piece that is done becomes current before the next one begins. */
static void commit_piece(struct ob_dev *dev)
{
    struct ob_req *req = dev->req;

    dev->session.position.part =
        req->kind == OB_REQ_MULTI ? (uint32_t)(req->multi_next << 4 | req->access.done) : req->access.done;
    ob_dev_commit(dev);
}

/* The handler still knows the request, which is refused: its answer will be dropped, and frees it. */
static int deadlocked(struct ob_req *req)
{
    struct ob_dev *dev = req->dev;
    struct ob_req *next = ob_req_new(dev);

    ob_dev_rollback(dev);
    if (!next) {
        dev->failure = -ENOMEM;
        return -EDEADLK;
    }
    next->kind = req->kind;
    next->multi_next = req->multi_next; /* how many are done */
    req->expired = true;
    dev->req = next;
    return -EDEADLK;
}

/* From req->access.done on. OB_DONE: the whole access; OB_LATER; -errno. */
static int run_access(struct ob_req *req)
{
    struct ob_dev *dev = req->dev;

    while (req->access.done < req->access.count) {
        unsigned asked = dev->dma_asked;
        uint8_t *data = req->access.data + req->access.done;
        int err =
            req->access.region == VFIO_PCI_CONFIG_REGION_INDEX
                ? config_piece(req, data)
                : space_piece(req, req->access.offset + req->access.done, req->access.count - req->access.done, data);
        if (err == OB_LATER && req->answered) {
            /* Answered before the handler returned: as if it had returned that. */
            req->answered = false;
            err = req->err;
            if (!err && !req->access.write)
                for (uint32_t i = 0; i < req->access.piece && i < 8; i++)
                    data[i] = (uint8_t)(req->val >> 8 * (i + req->access.shift));
        }
        if (err == OB_LATER && dev->dma_asked != asked) {
            ob_log(dev, "a handler keeps a request and asks for guest memory by message: the client cannot serve both");
            return deadlocked(req);
        }
        if (err)
            ob_dev_rollback(dev); /* the pieces before are committed */
        if (err == OB_LATER)
            return req->wait == OB_WAIT_HANDLER ? err : ob_req_keep(req, OB_WAIT_HANDLER);
        if (err < 0)
            return err;
        req->access.done += req->access.piece;
        if (req->access.done < req->access.count)
            commit_piece(dev);
    }
    return OB_DONE;
}

static void reply_access(struct ob_dev *dev)
{
    struct ob_req *req = dev->req;
    struct ob_message reply = {
        .u.region_access = { req->access.offset, req->access.region, req->access.count },
    };

    if (!req->access.write) {
        reply.tail = req->access.data;
        reply.tail_size = req->access.count;
    }
    ob_session_reply(&dev->session, &reply, -1);
}

int ob_access_start(struct ob_dev *dev, const struct ob_message *m)
{
    const struct ob_wire_region_access *a = &m->u.region_access;
    struct ob_req *req = dev->req;
    bool write = m->header.command == OB_REGION_WRITE;
    int err = check_bounds(dev, a->region, a->offset, a->count, write);

    if (err)
        return err;
    req->kind = OB_REQ_ACCESS;
    req->resetting = false;
    req->access.region = a->region;
    req->access.offset = a->offset;
    req->access.count = a->count;
    req->access.done = dev->session.position.part; /* not 0 only for a successor */
    req->access.write = write;
    req->access.data = write ? (uint8_t *)m->tail : ob_session_reply_tail(&dev->session);
    err = run_access(req);
    if (err == OB_DONE)
        reply_access(dev);
    return err;
}

/* Writes from req->multi_next on. A failing write ends it, and the reply says how many were done; if none was, the
 * reply is its errno. */
static int run_multi(struct ob_dev *dev)
{
    struct ob_req *req = dev->req;
    const struct ob_message *m = &dev->session.request;
    int err = OB_DONE;

    while (req->multi_next < req->multi_count) {
        struct ob_wire_write w = ob_message_write(m, req->multi_next);
        err = check_bounds(dev, w.region, w.offset, w.count, true);
        if (err)
            break;
        req->access.region = w.region;
        req->access.offset = w.offset;
        req->access.count = w.count;
        req->access.write = true;
        req->access.data = (uint8_t *)m->tail + req->multi_next * sizeof(w) + offsetof(struct ob_wire_write, data);
        err = run_access(req);
        if (err)
            break;
        req->access.done = 0;
        if (++req->multi_next < req->multi_count)
            commit_piece(dev);
    }
    return err;
}

static int finish_multi(struct ob_dev *dev, int err)
{
    struct ob_req *req = dev->req;

    if (err == OB_LATER || (err < 0 && req->multi_next == 0))
        return err;
    struct ob_message reply = { .u.write_multi = { req->multi_next } };
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

int ob_access_multi(struct ob_dev *dev, const struct ob_message *m)
{
    struct ob_req *req = dev->req;
    uint32_t part = dev->session.position.part;

    req->kind = OB_REQ_MULTI;
    req->resetting = false;
    req->multi_count = m->u.write_multi.wr_cnt;
    req->multi_next = part >> 4;
    req->access.done = part & 15;
    return finish_multi(dev, run_multi(dev));
}

int ob_access_resume(struct ob_dev *dev, int err, uint64_t val)
{
    struct ob_req *req = dev->req;

    if (!err && req->resetting)
        err = ob_reset_finish(dev, true, req->reset);
    if (!err && !req->access.write) {
        uint8_t *data = req->access.data + req->access.done;
        for (uint32_t i = 0; i < req->access.piece && i < 8; i++)
            data[i] = (uint8_t)(val >> 8 * (i + req->access.shift));
    }
    if (!err) {
        req->access.done += req->access.piece;
        if (req->access.done < req->access.count)
            commit_piece(dev);
        err = run_access(req);
    }
    if (req->kind == OB_REQ_MULTI) {
        if (!err) {
            req->access.done = 0;
            if (++req->multi_next < req->multi_count) {
                commit_piece(dev);
                err = run_multi(dev);
            }
        }
        return finish_multi(dev, err);
    }
    if (err == OB_DONE)
        reply_access(dev);
    return err;
}
