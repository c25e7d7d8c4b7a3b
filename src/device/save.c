/* Writes the head of a migration stream; see migrate.h for its layout. Its size does not depend on what is saved. */
#include "device/migrate.h"

#include <string.h>

/* Counts if `to` is NULL. */
struct writer {
    uint8_t *to;
    size_t size;
};

static void put(struct writer *w, const void *data, size_t len)
{
    size_t whole = ob_stream_align(len);

    if (w->to) {
        memcpy(w->to + w->size, data, len);
        memset(w->to + w->size + len, 0, whole - len);
    }
    w->size += whole;
}

/* Room for what is written in place. */
static uint8_t *reserve(struct writer *w, size_t len)
{
    uint8_t *at = w->to ? w->to + w->size : NULL;

    if (at)
        memset(at, 0, ob_stream_align(len));
    w->size += ob_stream_align(len);
    return at;
}

/* The size is known when the section is over. */
static size_t begin(struct writer *w, const char *name)
{
    struct ob_stream_section section = { .size = 0 };

    memcpy(section.name, name, strnlen(name, sizeof(section.name)));
    put(w, &section, sizeof(section));
    return w->size;
}

static void end(struct writer *w, size_t start, size_t unpadded)
{
    uint64_t size = unpadded ? unpadded : w->size - start;

    if (w->to)
        memcpy(w->to + start - sizeof(size), &size, sizeof(size));
}

static void section(struct writer *w, const char *name, const void *data, size_t len)
{
    size_t start = begin(w, name);

    put(w, data, len);
    end(w, start, len);
}

struct ob_stream_shape ob_save_shape(const struct ob_dev *dev)
{
    struct ob_stream_shape shape = { .config = dev->layout->size,
                                     .vectors = dev->vectors,
                                     .msi = dev->layout->msi_vectors,
                                     .msix = dev->layout->msix_vectors,
                                     .intx = dev->layout->pin != 0,
                                     .timers = dev->cls.timers };

    for (int i = 0; i < 6; i++) {
        shape.bar_size[i] = dev->cls.bars[i].size;
        shape.bar_flags[i] = dev->cls.bars[i].flags;
    }
    return shape;
}

static void put_prefix(struct writer *w, const struct ob_dev *dev)
{
    struct ob_stream_shape shape = ob_save_shape(dev);

    section(w, "class", dev->cls.name, strlen(dev->cls.name) + 1);
    section(w, "shape", &shape, sizeof(shape));
}

static void put_timers(struct writer *w, const struct ob_dev *dev)
{
    const uint64_t *deadlines = w->to ? ob_vault_part(&dev->vault, OB_PART_TIMERS) : NULL;
    size_t start = begin(w, "timers");

    for (unsigned i = 0; i < dev->cls.timers; i++) {
        uint64_t left = deadlines ? deadlines[i] : 0;
        /* What was due when time stopped is due at once when it goes on; 0 is a timer that is not armed. */
        if (left > 0)
            left = left > dev->stopped_at ? left - dev->stopped_at : 1;
        put(w, &left, sizeof(left));
    }
    end(w, start, 0);
}

static void put_fields(struct writer *w, const char *name, const struct ob_state *state, const uint8_t *data)
{
    struct ob_stream_fields fields = { .version = state->version };
    size_t start = begin(w, name);

    for (const struct ob_field *f = state->fields; f && f->name; f++)
        fields.count++;
    put(w, &fields, sizeof(fields));
    for (const struct ob_field *f = state->fields; f && f->name; f++) {
        struct ob_stream_field field = { f->elem, f->count, (uint32_t)strlen(f->name) + 1, 0 };
        put(w, &field, sizeof(field));
        put(w, f->name, field.name);
        put(w, data ? data + f->off : NULL, (size_t)f->elem * f->count);
    }
    end(w, start, 0);
}

static void put_memory(struct writer *w, const struct ob_dev *dev)
{
    struct ob_stream_memory area;
    size_t start = begin(w, "memory");
    uint8_t *bytes;

    for (unsigned n = 0; ob_stream_memory(dev, n, &area, &bytes); n++)
        put(w, &area, sizeof(area));
    end(w, start, 0);
}

static void put_irqs(struct writer *w, const struct ob_dev *dev)
{
    size_t start = begin(w, "irqs"), size = ob_irqs_saved_size(dev->layout);
    uint8_t *at = reserve(w, size);

    if (at)
        ob_irqs_save(dev->irqs, at);
    end(w, start, size);
}

static void put_head(struct writer *w, const struct ob_dev *dev)
{
    const bool counting = !w->to;

    put_prefix(w, dev);
    section(w, "config", counting ? NULL : ob_vault_part(&dev->vault, OB_PART_CONFIG), dev->layout->size);
    put_irqs(w, dev);
    put_timers(w, dev);
    put_fields(w, "state", &dev->cls.state, counting ? NULL : ob_vault_part(&dev->vault, OB_PART_STATE));
    put_fields(w, "shared", &dev->cls.shared, counting ? NULL : dev->vault.shared);
    put_memory(w, dev);
}

size_t ob_save_size(const struct ob_dev *dev)
{
    struct writer w = { .size = sizeof(struct ob_stream_header) };

    put_head(&w, dev);
    return w.size;
}

void ob_save_head(struct ob_dev *dev, uint8_t *to, bool prefix_only)
{
    struct writer count = { .size = sizeof(struct ob_stream_header) };
    struct writer w = { .to = to };

    put_prefix(&count, dev);
    struct ob_stream_header header = { OB_STREAM_MAGIC, OB_STREAM_VERSION, (uint32_t)count.size, ob_save_size(dev) };
    put(&w, &header, sizeof(header));
    if (prefix_only)
        put_prefix(&w, dev);
    else
        put_head(&w, dev);
}
