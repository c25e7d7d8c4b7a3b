/* One line for each message, as a logic analyser would show it: names and values from the table, then the tail. */
#include "protocol/message.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#define MAX_SHOWN_BYTES   16
#define MAX_SHOWN_ENTRIES 8
#define MAX_SHOWN_TEXT    512

struct out {
    char *buf;
    size_t room;
    size_t len; /* of the whole line, whether it fitted or not */
};

__attribute__((format(printf, 2, 3))) static void put(struct out *o, const char *format, ...)
{
    size_t left = o->len < o->room ? o->room - o->len : 0;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(left ? o->buf + o->len : NULL, left, format, args);
    va_end(args);
    if (n > 0)
        o->len += (size_t)n;
}

static void put_name(struct out *o, const char *const *names, size_t n, uint64_t value)
{
    if (value < n && names[value])
        put(o, "%s", names[value]);
    else
        put(o, "%" PRIu64, value);
}

static void put_region(struct out *o, uint64_t index)
{
    static const char *const names[VFIO_PCI_NUM_REGIONS] = {
        [VFIO_PCI_BAR0_REGION_INDEX] = "BAR0", [VFIO_PCI_BAR1_REGION_INDEX] = "BAR1",
        [VFIO_PCI_BAR2_REGION_INDEX] = "BAR2", [VFIO_PCI_BAR3_REGION_INDEX] = "BAR3",
        [VFIO_PCI_BAR4_REGION_INDEX] = "BAR4", [VFIO_PCI_BAR5_REGION_INDEX] = "BAR5",
        [VFIO_PCI_ROM_REGION_INDEX] = "ROM",   [VFIO_PCI_CONFIG_REGION_INDEX] = "CONFIG",
        [VFIO_PCI_VGA_REGION_INDEX] = "VGA",
    };
    put_name(o, names, VFIO_PCI_NUM_REGIONS, index);
}

static void put_irq(struct out *o, uint64_t index)
{
    static const char *const names[VFIO_PCI_NUM_IRQS] = {
        [VFIO_PCI_INTX_IRQ_INDEX] = "INTX", [VFIO_PCI_MSI_IRQ_INDEX] = "MSI", [VFIO_PCI_MSIX_IRQ_INDEX] = "MSIX",
        [VFIO_PCI_ERR_IRQ_INDEX] = "ERR",   [VFIO_PCI_REQ_IRQ_INDEX] = "REQ",
    };
    put_name(o, names, VFIO_PCI_NUM_IRQS, index);
}

static void put_feature(struct out *o, uint64_t index)
{
    static const char *const names[] = {
        [VFIO_DEVICE_FEATURE_MIGRATION] = "MIGRATION",
        [VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE] = "MIG_DEVICE_STATE",
        [VFIO_DEVICE_FEATURE_DMA_LOGGING_START] = "DMA_LOGGING_START",
        [VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP] = "DMA_LOGGING_STOP",
        [VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT] = "DMA_LOGGING_REPORT",
    };
    put_name(o, names, sizeof(names) / sizeof(names[0]), index);
}

static void put_state(struct out *o, uint64_t state)
{
    static const char *const names[] = {
        [VFIO_DEVICE_STATE_ERROR] = "ERROR",       [VFIO_DEVICE_STATE_STOP] = "STOP",
        [VFIO_DEVICE_STATE_RUNNING] = "RUNNING",   [VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
        [VFIO_DEVICE_STATE_RESUMING] = "RESUMING", [VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
        [OB_DEVICE_STATE_PRE_COPY] = "PRE_COPY",   [OB_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
    };
    put_name(o, names, sizeof(names) / sizeof(names[0]), state);
}

/* Named bits joined by '|', what has no name as a number, 0 as 0. */
static void put_bits(struct out *o, const struct ob_bit_name *names, uint32_t value)
{
    const char *between = "";

    if (value == 0)
        put(o, "0");
    for (; names->bit != 0; names++) {
        if (value & names->bit) {
            put(o, "%s%s", between, names->name);
            between = "|";
            value &= ~names->bit;
        }
    }
    if (value != 0)
        put(o, "%s0x%" PRIx32, between, value);
}

static uint64_t field_value(const struct ob_message *m, const struct ob_wire_field *field)
{
    const uint8_t *at = (const uint8_t *)&m->u + field->offset;
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;

    switch (field->width) {
    case sizeof(v16):
        memcpy(&v16, at, sizeof(v16));
        return v16;
    case sizeof(v32):
        memcpy(&v32, at, sizeof(v32));
        return v32;
    default:
        memcpy(&v64, at, sizeof(v64));
        return v64;
    }
}

static void put_field(struct out *o, const struct ob_message *m, const struct ob_wire_field *field)
{
    uint64_t value = field_value(m, field);

    put(o, " %s=", field->name);
    switch ((enum ob_kind)field->kind) {
    case OB_KIND_HEX:
        put(o, "0x%" PRIx64, value);
        break;
    case OB_KIND_DEC:
        put(o, "%" PRIu64, value);
        break;
    case OB_KIND_REGION:
        put_region(o, value);
        break;
    case OB_KIND_IRQ:
        put_irq(o, value);
        break;
    case OB_KIND_FEATURE_FLAGS:
        put_bits(o, ob_bit_names(OB_KIND_FEATURE_FLAGS), (uint32_t)value & ~VFIO_DEVICE_FEATURE_MASK);
        put(o, " feature=");
        put_feature(o, value & VFIO_DEVICE_FEATURE_MASK);
        break;
    default:
        put_bits(o, ob_bit_names(field->kind), (uint32_t)value);
    }
}

/* What a register could be written with is shown as the number that it is; anything longer as bytes. */
static void put_data(struct out *o, const uint8_t *data, size_t size)
{
    if (size == 1 || size == 2 || size == 4 || size == 8) {
        uint64_t value = 0;
        for (size_t i = size; i-- > 0;) /* devices are little-endian whatever we run on */
            value = value << 8 | data[i];
        put(o, "0x%0*" PRIx64, (int)size * 2, value);
        return;
    }
    for (size_t i = 0; i < size && i < MAX_SHOWN_BYTES; i++)
        put(o, "%s%02x", i ? ":" : "", data[i]);
    if (size > MAX_SHOWN_BYTES)
        put(o, "...");
}

static void put_text(struct out *o, const uint8_t *text, size_t size)
{
    for (size_t i = 0; i + 1 < size && i < MAX_SHOWN_TEXT; i++)
        put(o, text[i] >= 0x20 && text[i] < 0x7f ? "%c" : "\\x%02x", text[i]);
    if (size > MAX_SHOWN_TEXT + 1)
        put(o, "...");
}

static void put_writes(struct out *o, const struct ob_message *m)
{
    for (size_t i = 0; i < m->u.write_multi.wr_cnt && i < MAX_SHOWN_ENTRIES; i++) {
        struct ob_wire_write w = ob_message_write(m, i);
        put(o, "%s", i ? "," : "");
        put_region(o, w.region);
        put(o, "+0x%" PRIx64 ":", w.offset);
        put_data(o, w.data, w.count);
    }
    if (m->u.write_multi.wr_cnt > MAX_SHOWN_ENTRIES)
        put(o, ",...");
}

static void put_sparse_areas(struct out *o, const struct ob_message *m)
{
    ssize_t at = ob_region_capability(m, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
    struct vfio_region_info_cap_sparse_mmap sparse;
    struct vfio_region_sparse_mmap_area area;

    if (at < 0)
        return;
    memcpy(&sparse, m->tail + at, sizeof(sparse));
    put(o, " sparse=");
    for (size_t i = 0; i < sparse.nr_areas && i < MAX_SHOWN_ENTRIES; i++) {
        memcpy(&area, m->tail + at + sizeof(sparse) + i * sizeof(area), sizeof(area));
        put(o, "%s0x%" PRIx64 "+0x%" PRIx64, i ? "," : "", (uint64_t)area.offset, (uint64_t)area.size);
    }
    if (sparse.nr_areas > MAX_SHOWN_ENTRIES)
        put(o, ",...");
}

static void put_io_fds(struct out *o, const struct ob_message *m)
{
    for (size_t i = 0; i < m->u.io_fds.count && i < MAX_SHOWN_ENTRIES; i++) {
        struct ob_wire_io_fd entry = ob_message_io_fd(m, i);
        put(o, "%s0x%" PRIx64 "+0x%" PRIx64 "=%s%" PRIu32, i ? "," : "", entry.offset, entry.size,
            entry.type == OB_IO_FD_IOEVENTFD ? "eventfd" : "regionfd", entry.fd_index);
    }
    if (m->u.io_fds.count > MAX_SHOWN_ENTRIES)
        put(o, ",...");
}

static void put_feature_data(struct out *o, const struct ob_message *m)
{
    struct vfio_device_feature_mig_state state;
    struct ob_wire_dma_logging logging;
    struct ob_wire_dma_report report;

    switch (m->u.feature.flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        if (m->tail_size < sizeof(state))
            break;
        memcpy(&state, m->tail, sizeof(state));
        put(o, " device_state=");
        put_state(o, state.device_state);
        return;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
        if (m->tail_size < sizeof(logging))
            break;
        memcpy(&logging, m->tail, sizeof(logging));
        put(o, " page_size=%" PRIu64 " num_ranges=%" PRIu32, logging.page_size, logging.num_ranges);
        return;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        if (m->tail_size < sizeof(report))
            break;
        memcpy(&report, m->tail, sizeof(report));
        put(o, " iova=0x%" PRIx64 " length=0x%" PRIx64 " page_size=%" PRIu64, report.iova, report.length,
            report.page_size);
        return;
    }
    put(o, " data=");
    put_data(o, m->tail, m->tail_size);
}

static void put_tail(struct out *o, const struct ob_message *m, enum ob_tail tail)
{
    switch (tail) {
    case OB_TAIL_NONE:
    case OB_TAIL_GROWN:
        break;
    case OB_TAIL_JSON:
        put(o, " text=");
        put_text(o, m->tail, m->tail_size);
        break;
    case OB_TAIL_CAPS:
        put_sparse_areas(o, m);
        break;
    case OB_TAIL_IO_FDS:
        put(o, " sub_regions=");
        put_io_fds(o, m);
        break;
    case OB_TAIL_WRITES:
        put(o, " writes=");
        put_writes(o, m);
        break;
    case OB_TAIL_FEATURE:
        put_feature_data(o, m);
        break;
    case OB_TAIL_IRQS:
    case OB_TAIL_DATA:
        put(o, " data=");
        put_data(o, m->tail, m->tail_size);
        break;
    }
}

int ob_print_message(char *buf, size_t room, const struct ob_message *m, enum ob_direction from)
{
    struct out o = { buf, room, 0 };
    const char *name = ob_command_name(m->header.command);
    bool reply = m->header.flags & (OB_FLAG_REPLY | OB_FLAG_ERROR);

    if (room > 0)
        buf[0] = '\0';
    put(&o, "%s ", from == OB_FROM_CLIENT ? "->" : "<-");
    if (name)
        put(&o, "%s", name);
    else
        put(&o, "command=%u", m->header.command);
    put(&o, " id=%u%s%s", m->header.id, reply ? " reply" : "", m->header.flags & OB_FLAG_NO_REPLY ? " no_reply" : "");
    if (m->header.flags & OB_FLAG_ERROR) {
        int err = -ob_reply_error(m);
        const char *error = strerrorname_np(err);
        put(&o, " error=%s(%" PRIu32 ")", error ? error : "?", m->header.error);
    } else if (name) {
        const struct ob_command_info *info = &ob_commands[m->header.command];
        const struct ob_part *part = reply ? &info->reply : &info->request;
        for (size_t i = 0; i < part->nfields; i++)
            put_field(&o, m, &part->fields[i]);
        if (m->tail_size > 0)
            put_tail(&o, m, part->tail);
    }
    if (m->nfds > 0)
        put(&o, " fds=%u", m->nfds);
    return (int)o.len;
}
