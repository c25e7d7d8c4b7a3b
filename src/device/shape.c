/* From a class to what a device is made of: checks every declaration, and lays out BARs, interrupts and memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/dev.h"

#define PAGE          4096u
#define MAX_TIMERS    64
#define MAX_REGISTERS (1u << 20) /* bytes of an area that may hold registers */

int ob_shape_wrong(struct ob_dev *dev, const char *what, const char *name)
{
    ob_log(dev, "the class is wrong: %s%s%s", what, name ? ": " : "", name ? name : "");
    return -EINVAL;
}

/* --- State ------------------------------------------------------------------------------------------------------- */

static uint64_t whole_pages(uint64_t size)
{
    return (size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

static int check_state(struct ob_dev *dev, const struct ob_state *state)
{
    if (state->size > 0 && !state->fields)
        return ob_shape_wrong(dev, "state without fields", NULL);
    for (const struct ob_field *f = state->fields; f && f->name; f++) {
        if (!*f->name || strlen(f->name) > 255)
            return ob_shape_wrong(dev, "a field's name is empty or longer than 255 bytes", f->name);
        uint64_t end = f->off + (uint64_t)f->elem * f->count;
        if (f->elem == 0 || f->count == 0 || end > state->size)
            return ob_shape_wrong(dev, "a field is empty or leaves its state", f->name);
        if (f->since == 0 || f->since > state->version)
            return ob_shape_wrong(dev, "a field is not from version 1 or later up to that of its state", f->name);
        for (const struct ob_field *g = state->fields; g != f; g++)
            if (g->off < end && f->off < g->off + (uint64_t)g->elem * g->count)
                return ob_shape_wrong(dev, "a field overlaps another", f->name);
            else if (strcmp(g->name, f->name) == 0)
                return ob_shape_wrong(dev, "two fields have one name", f->name);
    }
    return 0;
}

/* --- Areas and registers ----------------------------------------------------------------------------------------- */

static bool is_width(unsigned n)
{
    return n == 1 || n == 2 || n == 4 || n == 8;
}

/* What is in no field is not known to whoever describes or converts the state. */
static bool in_field(const struct ob_state *state, uint64_t off, uint64_t size)
{
    for (const struct ob_field *f = state->fields; f && f->name; f++)
        if (off >= f->off && off + size <= f->off + (uint64_t)f->elem * f->count)
            return true;
    return false;
}

static int check_masks(struct ob_dev *dev, const struct ob_reg *r)
{
    uint64_t used = r->rw | r->w1c | r->rc | r->reset;

    if (!r->stored && used)
        return ob_shape_wrong(dev, "a register has masks or a reset value and is not stored", r->name);
    if (r->width < 8 && used >> 8 * r->width)
        return ob_shape_wrong(dev, "a register's masks or reset value are wider than it", r->name);
    if (r->rw & r->w1c)
        return ob_shape_wrong(dev, "a bit of a register is in both rw and w1c", r->name);
    return 0;
}

static int check_register(struct ob_dev *dev, const struct ob_area *area, const struct ob_reg *r)
{
    uint32_t count = r->count ? r->count : 1, stride = r->stride ? r->stride : r->width;
    uint64_t end = r->off + (uint64_t)(count - 1) * stride + r->width;
    unsigned min = r->min_access ? r->min_access : 1, max = r->max_access ? r->max_access : 8;

    if (!is_width(r->width))
        return ob_shape_wrong(dev, "a register's width is not 1, 2, 4 or 8", r->name);
    if (stride < r->width || end > area->size || end > MAX_REGISTERS)
        return ob_shape_wrong(dev, "a register leaves its area, or the first 1 MiB of it", r->name);
    if (!is_width(min) || !is_width(max) || min > max)
        return ob_shape_wrong(dev, "a register's min_access and max_access are not 1, 2, 4 or 8, in this order",
                              r->name);
    if (r->stored && !in_field(&dev->cls.state, r->state_off, (uint64_t)count * r->width))
        return ob_shape_wrong(dev, "a register's value is not within one field of the state", r->name);
    return check_masks(dev, r);
}

bool ob_shape_over_msix(const struct ob_dev *dev, unsigned region, const struct ob_area *a)
{
    const struct ob_pci_layout *l = dev->layout;
    uint64_t end = a->off + a->size;

    return l->msix &&
           ((l->msix_table_bar == region && l->msix_table < end && a->off < l->msix_table + l->msix_table_size) ||
            (l->msix_pba_bar == region && l->msix_pba < end && a->off < l->msix_pba + l->msix_pba_size));
}

static int check_memory(struct ob_dev *dev, unsigned region, const struct ob_area *a)
{
    if (a->flags & ~(OB_AREA_RAM | OB_AREA_MMAP))
        return ob_shape_wrong(dev, "an area has flags that are none of OB_AREA_*", NULL);
    if (!(a->flags & OB_AREA_MMAP))
        return 0;
    if (!(a->flags & OB_AREA_RAM) || a->off % PAGE || a->size % PAGE)
        return ob_shape_wrong(dev, "an area that clients map is memory, in whole pages of 4096 bytes", NULL);
    if (ob_shape_over_msix(dev, region, a))
        return ob_shape_wrong(dev, "an area that clients map lies over the MSI-X table or pending bits: move one",
                              NULL);
    return 0;
}

static int check_area(struct ob_dev *dev, unsigned region, const struct ob_area *a, uint64_t *end)
{
    unsigned kinds = !!a->regs + !!a->access + !!(a->flags & OB_AREA_RAM);
    uint64_t size = ob_space(dev, region)->size;
    size_t n = 0;

    if (a->off < *end || a->size > size || a->off > size - a->size)
        return ob_shape_wrong(dev, "areas of a BAR or region have to be in order, without overlap, and inside it",
                              NULL);
    *end = a->off + a->size;
    if (kinds != 1)
        return ob_shape_wrong(dev, "an area is one of registers, a callback, or memory", NULL);
    int err = check_memory(dev, region, a);
    if (err)
        return err;
    for (const struct ob_reg *r = a->regs; r && r->name; r++, n++) {
        err = check_register(dev, a, r);
        if (err)
            return err;
    }
    if (a->regs && (n == 0 || n >= UINT16_MAX))
        return ob_shape_wrong(dev, "a register table has 1 to 65534 registers", NULL);
    return 0;
}

/* Where the contents of each area are. */
static int place_areas(struct ob_dev *dev, struct ob_space *space, uint64_t *ram)
{
    space->index = calloc(space->n_areas + 1, sizeof(*space->index));
    space->ram_off = calloc(space->n_areas + 1, sizeof(*space->ram_off));
    if (!space->index || !space->ram_off)
        return -ENOMEM;
    space->file_off = dev->bars_size;
    for (unsigned i = 0; i < space->n_areas; i++) {
        const struct ob_area *a = &space->areas[i];
        if (a->regs) {
            const char *overlap = NULL;
            int err = ob_registers_index(a, &space->index[i], &overlap);
            if (err)
                return overlap ? ob_shape_wrong(dev, "a register overlaps another", overlap) : err;
        } else if (a->flags & OB_AREA_MMAP) {
            space->ram_off[i] = space->file_off + a->off;
            space->n_maps++;
        } else if (a->flags & OB_AREA_RAM) {
            space->ram_off[i] = *ram;
            *ram += whole_pages(a->size);
        }
    }
    return 0;
}

static int shape_space(struct ob_dev *dev, unsigned region, uint64_t *ram)
{
    struct ob_space *space = ob_space(dev, region);
    unsigned n = 0;
    uint64_t end = 0;

    for (; space->areas && space->areas[n].size > 0; n++) {
        int err = check_area(dev, region, &space->areas[n], &end);
        if (err)
            return err;
    }
    space->n_areas = n;
    int err = place_areas(dev, space, ram);
    if (err)
        return err;
    if (space->n_maps > OB_MAX_MAPPED_AREAS)
        return ob_shape_wrong(dev, "a BAR or region has more than 64 areas that clients map", NULL);
    if (space->n_maps > 0 && space->flags != (OB_REGION_READABLE | OB_REGION_WRITABLE))
        return ob_shape_wrong(dev, "a region with areas that clients map is for reading and writing", NULL);
    space->whole = space->n_maps == 1 && space->areas[0].size == space->size;
    if (space->n_maps > 0)
        dev->bars_size += whole_pages(space->size);
    return 0;
}

static int shape_bar(struct ob_dev *dev, unsigned bar, uint64_t *ram)
{
    const struct ob_bar *b = &dev->cls.bars[bar];

    if (b->flags & ~(OB_BAR_IO | OB_BAR_64 | OB_BAR_PREFETCH))
        return ob_shape_wrong(dev, "a BAR has flags that are none of OB_BAR_*", NULL);
    dev->spaces[bar] =
        (struct ob_space){ .size = b->size, .flags = OB_REGION_READABLE | OB_REGION_WRITABLE, .areas = b->areas };
    if (b->size > 0)
        return shape_space(dev, bar, ram);
    return b->areas && b->areas[0].size > 0
               ? ob_shape_wrong(dev, "areas of a BAR or region have to be in order, without overlap, and inside it",
                                NULL)
               : 0;
}

static int shape_region(struct ob_dev *dev, const struct ob_region *r, uint64_t *ram)
{
    if (dev->n_regions == OB_MAX_REGIONS)
        return ob_shape_wrong(dev, "more than 32 regions", NULL);
    if (r->flags & ~(OB_REGION_READABLE | OB_REGION_WRITABLE) || !r->flags)
        return ob_shape_wrong(dev, "a region's flags are OB_REGION_READABLE, OB_REGION_WRITABLE, or both", r->name);
    dev->spaces[6 + dev->n_regions++] = (struct ob_space){ .size = r->size, .flags = r->flags, .areas = r->areas };
    return shape_space(dev, OB_REGION_FIRST + dev->n_regions - 1, ram);
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

/* A BAR of its own for an MSI-X table that the class did not place: the highest slot that is free. */
static int place_msix(struct ob_dev *dev)
{
    struct ob_irq_caps *irqs = &dev->cls.irqs;
    uint32_t table = irqs->msix * 16u, pba = (irqs->msix + 63) / 64 * 8u;
    uint64_t size = PAGE;

    if (irqs->place) {
        dev->msix_place = *irqs->place;
        return 0;
    }
    while (size < table + pba)
        size *= 2;
    for (int slot = 5; slot >= 0; slot--) {
        if (dev->cls.bars[slot].size > 0 ||
            (slot > 0 && dev->cls.bars[slot - 1].size > 0 && dev->cls.bars[slot - 1].flags & OB_BAR_64))
            continue;
        dev->cls.bars[slot] = (struct ob_bar){ .size = size };
        dev->msix_place = (struct ob_msix_place){ (uint8_t)slot, (uint8_t)slot, 0, table };
        return 0;
    }
    return ob_shape_wrong(dev, "no BAR is free for the MSI-X table: place it with irqs.place", NULL);
}

static int shape_irqs(struct ob_dev *dev)
{
    const struct ob_irq_caps *irqs = &dev->cls.irqs;

    dev->vectors = irqs->intx ? 1 : 0;
    if (irqs->msi > dev->vectors)
        dev->vectors = irqs->msi;
    if (irqs->msix > dev->vectors)
        dev->vectors = irqs->msix;
    return irqs->msix > 0 ? place_msix(dev) : 0;
}

/* --- Configuration space ----------------------------------------------------------------------------------------- */

/* The class gives a capability's body, src/pci wants it with its header. */
static uint8_t *with_header(const struct ob_cap *cap, const uint8_t *body, bool mask)
{
    size_t header = cap->extended ? 4 : 2;
    uint8_t *bytes = calloc(1, header + cap->size);

    if (!bytes)
        return NULL;
    if (!mask) {
        bytes[0] = (uint8_t)cap->id;
        if (cap->extended) {
            bytes[1] = (uint8_t)(cap->id >> 8);
            bytes[2] = cap->version;
        }
    }
    memcpy(bytes + header, body, cap->size);
    return bytes;
}

#define MAX_CAPS 32
struct caps {
    struct ob_pci_cap_spec plain[MAX_CAPS], extended[MAX_CAPS];
    unsigned n_plain, n_extended;
};

static int collect_caps(struct ob_dev *dev, struct caps *caps)
{
    for (const struct ob_cap *c = dev->cls.caps; c && c->bytes; c++) {
        unsigned *n = c->extended ? &caps->n_extended : &caps->n_plain;
        if (*n == MAX_CAPS)
            return ob_shape_wrong(dev, "more than 32 capabilities", NULL);
        struct ob_pci_cap_spec *spec = &(c->extended ? caps->extended : caps->plain)[*n];
        spec->size = (uint16_t)(c->size + (c->extended ? 4 : 2));
        spec->bytes = with_header(c, c->bytes, false);
        spec->mask = c->write_mask ? with_header(c, c->write_mask, true) : NULL;
        ++*n;
        if (!spec->bytes || (c->write_mask && !spec->mask))
            return -ENOMEM;
    }
    return 0;
}

static void free_caps(struct caps *caps)
{
    for (unsigned i = 0; i < MAX_CAPS; i++) {
        free((void *)caps->plain[i].bytes);
        free((void *)caps->plain[i].mask);
        free((void *)caps->extended[i].bytes);
        free((void *)caps->extended[i].mask);
    }
}

static int shape_config(struct ob_dev *dev)
{
    const struct ob_device_class *c = &dev->cls;
    struct caps caps = { 0 };
    char why[256];
    struct ob_pci_spec spec = {
        .vendor = c->pci.vendor,
        .device = c->pci.device,
        .subsystem_vendor = c->pci.subsystem_vendor,
        .subsystem = c->pci.subsystem_device,
        .revision = c->pci.revision,
        .class_code = c->pci.class_code,
        .pin = c->irqs.intx ? 1 : 0,
        .msi_vectors = c->irqs.msi,
        .msix_vectors = c->irqs.msix,
        .msix_table_bar = dev->msix_place.table_bar,
        .msix_pba_bar = dev->msix_place.pba_bar,
        .msix_table = dev->msix_place.table_off,
        .msix_pba = dev->msix_place.pba_off,
        .pm = c->pci.power_management ? OB_PCI_PM_RESET : OB_PCI_PM_NONE,
        .express = c->pci.express,
        .extended = c->pci.express,
    };

    for (int i = 0; i < 6; i++)
        spec.bars[i] = (struct ob_pci_bar_spec){ .size = c->bars[i].size,
                                                 .io = c->bars[i].flags & OB_BAR_IO,
                                                 .mem64 = c->bars[i].flags & OB_BAR_64,
                                                 .prefetch = c->bars[i].flags & OB_BAR_PREFETCH };
    int err = collect_caps(dev, &caps);
    if (!err) {
        spec.caps = caps.plain;
        spec.n_caps = caps.n_plain;
        spec.ext_caps = caps.extended;
        spec.n_ext_caps = caps.n_extended;
        err = ob_pci_layout_new(&spec, &dev->layout, why, sizeof(why));
        if (err)
            ob_log(dev, "the class is wrong: %s", why);
    }
    free_caps(&caps);
    return err;
}

/* --- The whole --------------------------------------------------------------------------------------------------- */

int ob_shape_check(struct ob_dev *dev, size_t *ram)
{
    uint64_t private_ram = 0;
    int err = check_state(dev, &dev->cls.state);

    if (!err)
        err = check_state(dev, &dev->cls.shared);
    if (!err && dev->cls.timers > MAX_TIMERS)
        err = ob_shape_wrong(dev, "more than 64 timers", NULL);
    if (!err && dev->cls.timers > 0 && !dev->cls.ops.timer)
        err = ob_shape_wrong(dev, "timers without ops.timer", NULL);
    if (!err)
        err = shape_irqs(dev);
    if (!err)
        err = shape_config(dev); /* knows what sizes a BAR may have */
    for (unsigned bar = 0; !err && bar < 6; bar++)
        err = shape_bar(dev, bar, &private_ram);
    for (const struct ob_region *r = dev->cls.regions; !err && r && r->size > 0; r++)
        err = shape_region(dev, r, &private_ram);
    if (!err)
        err = ob_doorbells_check(dev);
    if (err == -ENOMEM)
        ob_log(dev, "no memory for what the class declares");
    *ram = private_ram;
    return err;
}

void ob_shape_free(struct ob_dev *dev)
{
    for (unsigned s = 0; s < 6 + dev->n_regions; s++) {
        const struct ob_space *space = &dev->spaces[s];
        for (unsigned i = 0; space->index && i < space->n_areas; i++)
            free(space->index[i].reg);
        free(space->index);
        free(space->ram_off);
    }
    free(dev->doorbells);
    if (dev->layout)
        ob_pci_layout_free(dev->layout);
}

/* FNV-1a over what decides where a successor finds things. */
static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
    for (const uint8_t *p = data; len > 0; p++, len--)
        hash = (hash ^ *p) * 0x100000001b3u;
    return hash;
}

static uint64_t mix_number(uint64_t hash, uint64_t n)
{
    return mix(hash, &n, sizeof(n));
}

static uint64_t mix_state(uint64_t hash, const struct ob_state *state)
{
    hash = mix_number(mix_number(hash, state->size), state->version);
    for (const struct ob_field *f = state->fields; f && f->name; f++) {
        hash = mix(hash, f->name, strlen(f->name) + 1);
        hash = mix_number(mix_number(mix_number(hash, f->off), f->elem), f->count);
    }
    return hash;
}

uint64_t ob_shape_hash(const struct ob_dev *dev)
{
    const struct ob_device_class *c = &dev->cls;
    uint64_t hash = mix(0xcbf29ce484222325u, c->name, strlen(c->name) + 1);

    hash = mix_state(mix_state(hash, &c->state), &c->shared);
    hash = mix_number(mix_number(hash, c->timers), dev->vectors);
    hash = mix(hash, dev->layout->reset, dev->layout->size);
    hash = mix(hash, dev->layout->write, dev->layout->size);
    hash = mix_number(mix_number(hash, dev->n_regions), dev->n_events);
    for (unsigned s = 0; s < 6 + dev->n_regions; s++) {
        const struct ob_space *space = &dev->spaces[s];
        hash = mix_number(mix_number(hash, space->size), space->file_off);
        for (unsigned i = 0; i < space->n_areas; i++)
            hash = mix_number(mix_number(hash, space->areas[i].off), space->ram_off[i]);
    }
    return hash;
}
