/* Checks the head of a migration stream, and puts it into the device; see migrate.h.
 *
 * Everything in it is hostile: a stream may come from another device, another version, or somebody who would like to
 * own this process. What is refused is named in one line. The rules for configuration space, interrupts, timers and
 * memory are the library's; what values of the class's fields make sense only the class can know (ops.loaded). */
#include "device/migrate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_SHOWN 255

static int refuse(struct ob_dev *dev, const char *what, const char *name)
{
    ob_log(dev, "migration data refused: %s%s%s", what, name ? ": " : "", name ? name : "");
    return -EINVAL;
}

/* --- Reading ----------------------------------------------------------------------------------------------------- */

struct reader {
    const uint8_t *at;
    uint64_t left;
};

/* The next `len` bytes, filled up to 8; NULL if there are not so many. */
static const uint8_t *get(struct reader *r, uint64_t len)
{
    const uint8_t *at = r->at;

    if (len > r->left || ob_stream_align(len) > r->left)
        return NULL;
    r->at += ob_stream_align(len);
    r->left -= ob_stream_align(len);
    return at;
}

/* A string in `size` bytes: it ends with the only NUL, and can be shown. */
static bool is_name(const uint8_t *p, uint64_t size)
{
    if (size < 2 || size > NAME_MAX_SHOWN + 1 || p[size - 1] != 0)
        return false;
    for (uint64_t i = 0; i + 1 < size; i++)
        if (p[i] < ' ' || p[i] > '~')
            return false;
    return true;
}

/* --- Sections: each checks what is in it ------------------------------------------------------------------------- */

static int check_class(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    if (!is_name(data, size))
        return refuse(dev, "the name of its class is none", NULL);
    if (strcmp((const char *)data, dev->cls.name) != 0)
        return refuse(dev, "it is of another class", (const char *)data);
    return 0;
}

static int check_shape(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    const struct ob_stream_shape ours = ob_save_shape(dev);
    struct ob_stream_shape shape;
    char name[8] = "BAR0";

    if (size != sizeof(shape))
        return refuse(dev, "the section shape is damaged", NULL);
    memcpy(&shape, data, sizeof(shape));
    for (int i = 0; i < 6; i++, name[3]++)
        if (shape.bar_size[i] != ours.bar_size[i] || shape.bar_flags[i] != ours.bar_flags[i])
            return refuse(dev, "the two devices differ (give both the same options)", name);
    if (shape.vectors != ours.vectors || shape.msi != ours.msi || shape.msix != ours.msix || shape.intx != ours.intx)
        return refuse(dev, "the two devices differ (give both the same options)", "interrupt vectors");
    if (shape.timers != ours.timers)
        return refuse(dev, "the two devices differ", "timers");
    return shape.config != ours.config ? refuse(dev, "the two devices differ", "size of configuration space") : 0;
}

/* What a guest cannot write has to be what it is here. */
static int check_config(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    const struct ob_pci_layout *l = dev->layout;
    char at[16];

    if (size != l->size)
        return refuse(dev, "the section config is damaged", NULL);
    for (unsigned i = 0; i < l->size; i++) {
        if (!((data[i] ^ l->reset[i]) & ~(l->write[i] | l->w1c[i])))
            continue;
        snprintf(at, sizeof(at), "byte 0x%x", i);
        return refuse(dev, "the two devices differ in what configuration space says of them", at);
    }
    unsigned power = l->pm ? data[l->pm + PCI_PM_CTRL] & PCI_PM_CTRL_STATE_MASK : 0;
    return power == 1 || power == 2 ? refuse(dev, "configuration space says D1 or D2", NULL) : 0;
}

static int check_irqs(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    return ob_irqs_load_check(dev->irqs, data, size) ? refuse(dev, "the section irqs is damaged", NULL) : 0;
}

static int check_timers(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    return size != dev->cls.timers * sizeof(uint64_t) ? refuse(dev, "the section timers is damaged", NULL) : 0;
}

static const struct ob_field *find_field(const struct ob_state *state, const char *name)
{
    for (const struct ob_field *f = state->fields; f && f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

/* The next field of a stream; NULL if it is damaged. */
static const uint8_t *next_field(struct reader *r, struct ob_stream_field *field, const char **name)
{
    const uint8_t *p = get(r, sizeof(*field));

    if (!p)
        return NULL;
    memcpy(field, p, sizeof(*field));
    p = get(r, field->name);
    if (!p || !is_name(p, field->name))
        return NULL;
    *name = (const char *)p;
    return get(r, (uint64_t)field->elem * field->count);
}

static int check_each(struct ob_dev *dev, const struct ob_state *state, struct reader *r, uint32_t count, bool *seen)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ob_stream_field field;
        const char *name;
        if (!next_field(r, &field, &name))
            return refuse(dev, "a field is damaged", NULL);
        const struct ob_field *f = find_field(state, name);
        if (!f)
            return refuse(dev, "it has a field that this device does not know", name);
        if (f->elem != field.elem || f->count != field.count)
            return refuse(dev, "a field has another size here", name);
        if (seen[f - state->fields])
            return refuse(dev, "a field comes twice", name);
        seen[f - state->fields] = true;
    }
    return r->left > 0 ? refuse(dev, "bytes follow the last field", NULL) : 0;
}

static int check_fields(struct ob_dev *dev, const struct ob_state *state, const uint8_t *data, uint64_t size)
{
    struct reader r = { data, ob_stream_align(size) };
    struct ob_stream_fields head;
    size_t n = 0;

    if (size % 8 || !get(&r, sizeof(head)))
        return refuse(dev, "a section of fields is damaged", NULL);
    memcpy(&head, data, sizeof(head));
    for (const struct ob_field *f = state->fields; f && f->name; f++)
        n++;
    bool *seen = calloc(n + 1, sizeof(*seen));
    if (!seen)
        return -ENOMEM;
    int err = check_each(dev, state, &r, head.count, seen);
    if (!err && head.version > state->version)
        err = refuse(dev, "it is of a later version of this device", NULL);
    for (size_t i = 0; !err && i < n; i++)
        if (!seen[i] && state->fields[i].since <= head.version)
            err = refuse(dev, "it lacks a field that its version has", state->fields[i].name);
    free(seen);
    return err;
}

static int check_state(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    return check_fields(dev, &dev->cls.state, data, size);
}

static int check_shared(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    return check_fields(dev, &dev->cls.shared, data, size);
}

static int check_memory(struct ob_dev *dev, const uint8_t *data, uint64_t size)
{
    struct ob_stream_memory area, theirs;
    unsigned n = 0;
    uint8_t *bytes;

    for (; ob_stream_memory(dev, n, &area, &bytes); n++) {
        if (size < (n + 1) * sizeof(area))
            break;
        memcpy(&theirs, data + n * sizeof(theirs), sizeof(theirs));
        if (theirs.bar != area.bar || theirs.off != area.off || theirs.size != area.size)
            break;
    }
    if (size != n * sizeof(area) || ob_stream_memory(dev, n, &area, &bytes))
        return refuse(dev, "the two devices differ", "memory of BARs");
    return 0;
}

/* --- The whole head ---------------------------------------------------------------------------------------------- */

enum { SECTION_CLASS, SECTION_SHAPE, CONFIG, IRQS, TIMERS, STATE, SHARED, MEMORY, SECTIONS };

static const struct {
    const char name[9];
    int (*check)(struct ob_dev *dev, const uint8_t *data, uint64_t size);
} sections[SECTIONS] = {
    [SECTION_CLASS] = { "class", check_class }, [SECTION_SHAPE] = { "shape", check_shape },
    [CONFIG] = { "config", check_config },      [IRQS] = { "irqs", check_irqs },
    [TIMERS] = { "timers", check_timers },      [STATE] = { "state", check_state },
    [SHARED] = { "shared", check_shared },      [MEMORY] = { "memory", check_memory },
};

/* The next section, if it is the one that has to be there. */
static const uint8_t *next_section(struct reader *r, unsigned which, uint64_t *size)
{
    struct ob_stream_section section;
    const uint8_t *p = get(r, sizeof(section));

    if (!p)
        return NULL;
    memcpy(&section, p, sizeof(section));
    if (strncmp(section.name, sections[which].name, sizeof(section.name)) != 0)
        return NULL;
    *size = section.size;
    return get(r, section.size);
}

static int check_sections(struct ob_dev *dev, struct reader *r, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        uint64_t size;
        const uint8_t *data = next_section(r, i, &size);
        if (!data)
            return refuse(dev, "a section is missing or damaged", sections[i].name);
        int err = sections[i].check(dev, data, size);
        if (err)
            return err;
    }
    return r->left > 0 ? refuse(dev, "bytes follow a section", sections[end - 1].name) : 0;
}

int ob_load_header(struct ob_dev *dev, const uint8_t *head, size_t room)
{
    struct ob_stream_header h;

    memcpy(&h, head, sizeof(h));
    if (h.magic == __builtin_bswap64(OB_STREAM_MAGIC))
        return refuse(dev, "it is from a machine of the other byte order", NULL);
    if (h.magic != OB_STREAM_MAGIC)
        return refuse(dev, "it is no stream of ours", NULL);
    if (h.version != OB_STREAM_VERSION)
        return refuse(dev, "it is from another version of the library", NULL);
    if (h.prefix <= sizeof(h) || h.head <= h.prefix || h.prefix % 8 || h.head % 8)
        return refuse(dev, "its header is damaged", NULL);
    return h.head > room ? refuse(dev, "it is far larger than this device's", NULL) : 0;
}

static struct ob_stream_header header_of(const uint8_t *head)
{
    struct ob_stream_header h;

    memcpy(&h, head, sizeof(h));
    return h;
}

int ob_load_prefix(struct ob_dev *dev, const uint8_t *head)
{
    struct reader r = { head + sizeof(struct ob_stream_header),
                        header_of(head).prefix - sizeof(struct ob_stream_header) };

    return check_sections(dev, &r, SECTION_CLASS, CONFIG);
}

int ob_load_check(struct ob_dev *dev, const uint8_t *head)
{
    struct ob_stream_header h = header_of(head);
    struct reader r = { head + h.prefix, h.head - h.prefix };

    return check_sections(dev, &r, CONFIG, SECTIONS);
}

/* --- Into the device --------------------------------------------------------------------------------------------- */

/* Workers may be looking at shared memory: elements that they know as atomics stay whole. */
static void store(uint8_t *to, const uint8_t *from, const struct ob_field *f)
{
    for (uint32_t i = 0; i < f->count; i++, to += f->elem, from += f->elem) {
        uint64_t value = 0;
        bool aligned = (uintptr_t)to % f->elem == 0;
        if (f->elem <= 8)
            memcpy(&value, from, f->elem);
        if (f->elem == 8 && aligned)
            __atomic_store_n((uint64_t *)to, value, __ATOMIC_RELAXED);
        else if (f->elem == 4 && aligned)
            __atomic_store_n((uint32_t *)to, *(uint32_t *)&value, __ATOMIC_RELAXED);
        else if (f->elem == 2 && aligned)
            __atomic_store_n((uint16_t *)to, *(uint16_t *)&value, __ATOMIC_RELAXED);
        else if (f->elem == 1)
            __atomic_store_n(to, *(uint8_t *)&value, __ATOMIC_RELAXED);
        else
            memcpy(to, from, f->elem);
    }
}

static void apply_fields(const struct ob_state *state, const uint8_t *data, uint64_t size, uint8_t *to)
{
    struct reader r = { data, size };
    struct ob_stream_fields head;

    memcpy(&head, get(&r, sizeof(head)), sizeof(head));
    for (uint32_t i = 0; i < head.count; i++) {
        struct ob_stream_field field;
        const char *name;
        const uint8_t *bytes = next_field(&r, &field, &name);
        const struct ob_field *f = find_field(state, name);
        store(to + f->off, bytes, f);
    }
}

static void apply_timers(struct ob_dev *dev, const uint8_t *data)
{
    uint64_t *deadlines = ob_vault_part(&dev->vault, OB_PART_TIMERS);

    for (unsigned i = 0; i < dev->cls.timers; i++) {
        uint64_t left;
        memcpy(&left, data + i * sizeof(left), sizeof(left));
        if (left > UINT64_MAX - 1 - dev->stopped_at)
            left = UINT64_MAX - 1 - dev->stopped_at;
        deadlines[i] = left ? dev->stopped_at + left : 0;
    }
    dev->vault.dirty[OB_PART_TIMERS] = true;
}

static uint8_t *backup(struct ob_dev *dev)
{
    return ob_migration_area(dev)->head + ob_stream_room(dev);
}

static void set_applying(struct ob_dev *dev, bool applying)
{
    ob_migration(dev)->applying = applying;
    dev->vault.dirty[OB_PART_MIGRATION] = true;
}

void ob_load_undo(struct ob_dev *dev)
{
    memcpy(dev->vault.shared, backup(dev), dev->cls.shared.size);
    set_applying(dev, false);
}

int ob_load_apply(struct ob_dev *dev, const uint8_t *head)
{
    struct ob_stream_header h = header_of(head);
    struct reader r = { head + h.prefix, h.head - h.prefix };
    const uint8_t *data[SECTIONS] = { NULL };
    uint64_t size[SECTIONS];

    for (unsigned i = CONFIG; i < SECTIONS; i++)
        data[i] = next_section(&r, i, &size[i]);
    /* Shared memory has one copy: what a process that dies here leaves is put back by its successor. */
    memcpy(backup(dev), dev->vault.shared, dev->cls.shared.size);
    set_applying(dev, true);
    ob_dev_commit(dev);
    memcpy(ob_vault_part(&dev->vault, OB_PART_CONFIG), data[CONFIG], size[CONFIG]);
    dev->vault.dirty[OB_PART_CONFIG] = true;
    apply_timers(dev, data[TIMERS]);
    apply_fields(&dev->cls.state, data[STATE], size[STATE], ob_vault_part(&dev->vault, OB_PART_STATE));
    dev->vault.dirty[OB_PART_STATE] = true;
    apply_fields(&dev->cls.shared, data[SHARED], size[SHARED], dev->vault.shared);
    int err = dev->cls.ops.loaded ? dev->cls.ops.loaded(dev) : 0;
    if (err < 0) {
        ob_log(dev, "migration data refused: the device cannot be in such a state: %s", strerror(-err));
        ob_dev_rollback(dev);
        ob_load_undo(dev);
        return err;
    }
    ob_irqs_load(dev->irqs, data[IRQS]);
    ob_doorbells_restore(dev);
    set_applying(dev, false);
    return 0;
}
