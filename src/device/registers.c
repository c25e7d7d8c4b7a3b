/* Register tables: from bytes of an area to registers, masks and hooks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/dev.h"

static uint64_t load(const void *p, unsigned width)
{
    uint64_t v = 0;
    memcpy(&v, p, width);
    return v;
}

static unsigned elements(const struct ob_reg *reg)
{
    return reg->count ? reg->count : 1;
}

static uint32_t stride(const struct ob_reg *reg)
{
    return reg->stride ? reg->stride : reg->width;
}

int ob_registers_index(const struct ob_area *area, struct ob_area_index *index, const char **overlap)
{
    uint32_t end = 0;

    for (const struct ob_reg *r = area->regs; r->name; r++) {
        uint32_t last = r->off + (elements(r) - 1) * stride(r) + r->width;
        end = last > end ? last : end;
    }
    index->reg = calloc(end, sizeof(*index->reg));
    if (!index->reg)
        return -ENOMEM;
    index->size = end;
    for (const struct ob_reg *r = area->regs; r->name; r++) {
        for (unsigned i = 0; i < elements(r); i++) {
            for (unsigned b = 0; b < r->width; b++) {
                uint16_t *owner = &index->reg[r->off + i * stride(r) + b];
                if (*owner) {
                    *overlap = r->name;
                    return -EINVAL;
                }
                *owner = (uint16_t)(r - area->regs + 1);
            }
        }
    }
    return 0;
}

void ob_registers_reset(struct ob_dev *dev)
{
    uint8_t *state = ob_vault_part(&dev->vault, OB_PART_STATE);

    for (unsigned s = 0; s < 6 + dev->n_regions; s++) {
        for (unsigned a = 0; a < dev->spaces[s].n_areas; a++) {
            const struct ob_reg *r = dev->spaces[s].areas[a].regs;
            for (; r && r->name; r++)
                for (unsigned i = 0; r->stored && i < elements(r); i++)
                    memcpy(state + r->state_off + i * r->width, &r->reset, r->width);
        }
    }
    dev->vault.dirty[OB_PART_STATE] = true;
}

/* Bytes of an access that a register takes. */
struct piece {
    const struct ob_reg *reg;
    unsigned index;
    unsigned shift; /* bytes into the register */
    unsigned n;
    void *stored; /* NULL: no value */
};

/* Ones for the bytes of the register that the piece touches. */
static uint64_t byte_mask(const struct piece *p)
{
    return (p->n == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * p->n) - 1) << 8 * p->shift;
}

static int read_register(struct ob_req *req, const struct piece *p, uint8_t *data)
{
    const struct ob_reg *reg = p->reg;
    uint64_t val = p->stored ? load(p->stored, reg->width) : 0;

    req->access.shift = (uint8_t)p->shift;
    if (reg->read) {
        req->dev->vault.dirty[OB_PART_STATE] = true;
        int err = reg->read(req, reg, p->index, &val);
        if (err)
            return err;
    }
    if (reg->rc && p->stored) {
        uint64_t left = load(p->stored, reg->width) & ~(reg->rc & byte_mask(p));
        memcpy(p->stored, &left, reg->width);
        req->dev->vault.dirty[OB_PART_STATE] = true;
    }
    val >>= 8 * p->shift;
    memcpy(data, &val, p->n);
    return OB_DONE;
}

static int write_register(struct ob_req *req, const struct piece *p, const uint8_t *data)
{
    const struct ob_reg *reg = p->reg;
    uint64_t mask = byte_mask(p);
    uint64_t val = load(data, p->n) << 8 * p->shift;

    if (p->stored && (reg->rw | reg->w1c)) {
        uint64_t now = load(p->stored, reg->width);
        now = (now & ~(reg->rw & mask)) | (val & reg->rw & mask);
        now &= ~(val & reg->w1c & mask);
        memcpy(p->stored, &now, reg->width);
        req->dev->vault.dirty[OB_PART_STATE] = true;
    }
    if (!reg->write)
        return OB_DONE;
    req->dev->vault.dirty[OB_PART_STATE] = true;
    return reg->write(req, reg, p->index, val, mask);
}

/* What no register takes: all ones, up to the next register. */
static int hole(struct ob_req *req, const struct ob_area_index *index, uint64_t off, uint32_t left, uint8_t *data,
                uint32_t *n)
{
    uint32_t len = 1;

    while (len < left && (off + len >= index->size || !index->reg[off + len]))
        len++;
    if (!req->access.write)
        memset(data, 0xff, len);
    *n = len;
    return OB_DONE;
}

int ob_registers_access(struct ob_req *req, const struct ob_area *area, const struct ob_area_index *index, uint64_t off,
                        uint32_t left, uint32_t total, uint8_t *data, uint32_t *n)
{
    unsigned found = off < index->size ? index->reg[off] : 0;

    if (!found)
        return hole(req, index, off, left, data, n);
    const struct ob_reg *reg = &area->regs[found - 1];
    struct piece p = { .reg = reg };
    uint32_t in = (uint32_t)off - reg->off;
    p.index = in / stride(reg);
    p.shift = in % stride(reg);
    p.n = reg->width - p.shift < left ? reg->width - p.shift : left;
    if (reg->stored)
        p.stored = (uint8_t *)ob_vault_part(&req->dev->vault, OB_PART_STATE) + reg->state_off + p.index * reg->width;
    *n = p.n;
    /* No guest accesses more than 8 bytes at once: larger ones are a client's, each piece an access of its own. */
    uint32_t size = total <= 8 ? total : p.n;
    if (size < (reg->min_access ? reg->min_access : 1) || size > (reg->max_access ? reg->max_access : 8)) {
        if (!req->access.write)
            memset(data, 0xff, p.n);
        return OB_DONE;
    }
    return req->access.write ? write_register(req, &p, data) : read_register(req, &p, data);
}
