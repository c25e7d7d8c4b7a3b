/* Random valid messages of every command, from a seed: what the property tests of the protocol start from. */
#ifndef TEST_PROTOCOL_RANDOM_H
#define TEST_PROTOCOL_RANDOM_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "protocol/message.h"

#define MAX_TAIL 1024

/* A message and the room for its tail. */
struct sample {
    struct ob_message m;
    uint8_t tail[MAX_TAIL];
};

static uint64_t random_state;

static uint64_t random_bits(void)
{
    /* SplitMix64: every seed is as good as any other. */
    uint64_t z = (random_state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t random_below(uint64_t n)
{
    return random_bits() % n;
}

/* Seeds from OB_TEST_SEED if it is set, else from the clock, and prints the seed. */
static void random_start(void)
{
    const char *given = getenv("OB_TEST_SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    random_state = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
    fprintf(stderr, "# OB_TEST_SEED=%" PRIu64 "\n", random_state);
}

static void random_bytes(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random_bits();
}

static void set_tail(struct sample *s, size_t size)
{
    s->m.tail_size = size;
    s->m.tail = size ? s->tail : NULL;
}

static void random_tail(struct sample *s, size_t size)
{
    random_bytes(s->tail, size);
    set_tail(s, size);
}

static void random_text(struct sample *s)
{
    size_t size = random_below(64);

    for (size_t i = 0; i < size; i++)
        s->tail[i] = (uint8_t)(' ' + random_below(90));
    if (size > 0)
        s->tail[size - 1] = '\0';
    set_tail(s, size);
}

static void random_irq_set(struct sample *s)
{
    static const uint32_t kinds[] = { VFIO_IRQ_SET_DATA_NONE, VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_EVENTFD };
    static const uint32_t actions[] = { VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_UNMASK,
                                        VFIO_IRQ_SET_ACTION_TRIGGER };
    struct ob_wire_irq_set *set = &s->m.u.irq_set;
    uint32_t kind = kinds[random_below(3)];

    set->flags = kind | actions[random_below(3)];
    set->index = (uint32_t)random_below(VFIO_PCI_NUM_IRQS);
    set->start = (uint32_t)random_below(100);
    set->count = (uint32_t)random_below(16) + 1;
    if (kind == VFIO_IRQ_SET_DATA_NONE && random_below(4) == 0)
        set->start = set->count = 0;
    if (kind == VFIO_IRQ_SET_DATA_BOOL)
        random_tail(s, set->count);
    if (kind == VFIO_IRQ_SET_DATA_EVENTFD && random_below(2))
        s->m.nfds = set->count;
    set->argsz = (uint32_t)(sizeof(*set) + s->m.tail_size);
}

static void random_writes(struct sample *s)
{
    uint64_t n = random_below(20);

    for (size_t i = 0; i < n; i++) {
        struct ob_wire_write w = { .offset = random_bits() >> 1, .region = (uint32_t)random_below(9) };
        w.count = (uint32_t)random_below(9);
        random_bytes(w.data, sizeof(w.data));
        memcpy(s->tail + i * sizeof(w), &w, sizeof(w));
    }
    set_tail(s, n * sizeof(struct ob_wire_write));
    s->m.u.write_multi.wr_cnt = n;
}

static void random_logging(struct sample *s)
{
    struct ob_wire_dma_logging logging = { .page_size = 4096, .num_ranges = (uint32_t)random_below(8) };
    struct vfio_device_feature_dma_logging_range range;

    memcpy(s->tail, &logging, sizeof(logging));
    for (size_t i = 0; i < logging.num_ranges; i++) {
        range.iova = random_bits() >> 1;
        range.length = random_bits() >> 1;
        memcpy(s->tail + sizeof(logging) + i * sizeof(range), &range, sizeof(range));
    }
    set_tail(s, sizeof(logging) + logging.num_ranges * sizeof(range));
}

static void random_report(struct sample *s)
{
    struct ob_wire_dma_report report = { random_bits() >> 1, random_below(1 << 20),
                                         UINT64_C(1) << (12 + random_below(9)) };

    memcpy(s->tail, &report, sizeof(report));
    set_tail(s, sizeof(report));
}

static void random_feature(struct sample *s)
{
    uint32_t flags = 0;

    switch (random_below(7)) {
    case 0:
        flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION;
        break;
    case 1:
        flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        break;
    case 2:
        flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        random_tail(s, sizeof(struct vfio_device_feature_mig_state));
        break;
    case 3:
        flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
        random_logging(s);
        break;
    case 4:
        flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
        break;
    case 5:
        flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
        random_report(s);
        break;
    case 6:
        flags = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET |
                (uint32_t)random_below(VFIO_DEVICE_FEATURE_MASK);
        break;
    }
    s->m.u.feature.flags = flags;
    s->m.u.feature.argsz = 4096;
}

static void random_region_access(struct sample *s, int with_data)
{
    struct ob_wire_region_access *access = &s->m.u.region_access;

    access->offset = random_bits() >> random_below(64);
    access->region = (uint32_t)random_below(VFIO_PCI_NUM_REGIONS);
    access->count = (uint32_t)random_below(MAX_TAIL);
    if (access->offset > UINT64_MAX - access->count)
        access->offset -= access->count;
    if (with_data)
        random_tail(s, access->count);
}

static void random_dma_access(struct sample *s, int with_data)
{
    s->m.u.dma_access.address = random_bits() >> (1 + random_below(63));
    s->m.u.dma_access.count = random_below(MAX_TAIL);
    if (with_data)
        random_tail(s, s->m.u.dma_access.count);
}

static void random_request(struct sample *s, uint16_t command)
{
    union ob_payload *u = &s->m.u;

    memset(s, 0, sizeof(*s));
    s->m.header.command = command;
    s->m.header.id = (uint16_t)random_bits();
    if (ob_commands[command].no_reply && random_below(2))
        s->m.header.flags = OB_FLAG_NO_REPLY;
    switch ((enum ob_command)command) {
    case OB_VERSION:
        u->version.minor = (uint16_t)random_bits();
        random_text(s);
        break;
    case OB_DMA_MAP:
        u->dma_map = (struct ob_wire_dma_map){ sizeof(u->dma_map), (uint32_t)random_below(4), random_bits() >> 1,
                                               random_bits() >> 1, random_bits() >> 2 | 1 };
        s->m.nfds = (unsigned)random_below(2);
        break;
    case OB_DMA_UNMAP:
        u->dma_unmap =
            (struct ob_wire_dma_unmap){ sizeof(u->dma_unmap), 0, random_bits() >> 1, random_bits() >> 2 | 1 };
        if (random_below(4) == 0)
            u->dma_unmap = (struct ob_wire_dma_unmap){ sizeof(u->dma_unmap), VFIO_DMA_UNMAP_FLAG_ALL, 0, 0 };
        break;
    case OB_DEVICE_GET_INFO:
        u->device_info.argsz = (uint32_t)(sizeof(u->device_info) + random_below(100));
        break;
    case OB_DEVICE_GET_REGION_INFO:
        u->region_info.argsz = (uint32_t)(sizeof(u->region_info) + random_below(500));
        u->region_info.index = (uint32_t)random_bits();
        break;
    case OB_DEVICE_GET_REGION_IO_FDS:
        u->io_fds.argsz = (uint32_t)(sizeof(u->io_fds) + random_below(500));
        u->io_fds.index = (uint32_t)random_bits();
        break;
    case OB_DEVICE_GET_IRQ_INFO:
        u->irq_info.argsz = (uint32_t)(sizeof(u->irq_info) + random_below(100));
        u->irq_info.index = (uint32_t)random_bits();
        break;
    case OB_DEVICE_SET_IRQS:
        random_irq_set(s);
        break;
    case OB_REGION_READ:
    case OB_REGION_WRITE:
        random_region_access(s, command == OB_REGION_WRITE);
        break;
    case OB_DMA_READ:
    case OB_DMA_WRITE:
        random_dma_access(s, command == OB_DMA_WRITE);
        break;
    case OB_REGION_WRITE_MULTI:
        random_writes(s);
        break;
    case OB_DEVICE_FEATURE:
        random_feature(s);
        break;
    case OB_MIG_DATA_READ:
    case OB_MIG_DATA_WRITE:
        u->mig_data.size = (uint32_t)random_below(MAX_TAIL);
        u->mig_data.argsz = (uint32_t)sizeof(u->mig_data) + u->mig_data.size;
        if (command == OB_MIG_DATA_WRITE)
            random_tail(s, u->mig_data.size);
        break;
    case OB_DEVICE_RESET:
    case OB_COMMAND_END:
        break;
    }
}

static void random_capabilities(struct sample *s, uint32_t room)
{
    struct vfio_region_info *info = &s->m.u.region_info;
    struct vfio_region_info_cap_sparse_mmap sparse = { .header = { VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0 } };
    struct vfio_region_sparse_mmap_area area;
    size_t size;

    info->size = UINT64_C(1) << 20;
    sparse.nr_areas = (uint32_t)random_below(8);
    for (size_t i = 0; i < sparse.nr_areas; i++) {
        area.offset = random_below(256) << 12;
        area.size = random_below(info->size - area.offset);
        memcpy(s->tail + sizeof(sparse) + i * sizeof(area), &area, sizeof(area));
    }
    memcpy(s->tail, &sparse, sizeof(sparse));
    size = sizeof(sparse) + sparse.nr_areas * sizeof(area);
    info->flags |= VFIO_REGION_INFO_FLAG_CAPS | VFIO_REGION_INFO_FLAG_MMAP;
    info->cap_offset = sizeof(*info);
    info->argsz = (uint32_t)(sizeof(*info) + size);
    set_tail(s, info->argsz <= room ? size : 0);
    s->m.nfds = 1;
}

static void random_io_fds(struct sample *s, uint32_t room)
{
    struct ob_wire_io_fds *fds = &s->m.u.io_fds;

    fds->count = (uint32_t)random_below(12);
    s->m.nfds = fds->count ? 1 + (unsigned)random_below(4) : 0;
    for (size_t i = 0; i < fds->count; i++) {
        struct ob_wire_io_fd entry = { .offset = random_below(4096), .size = random_below(9), .data = random_bits() };
        entry.fd_index = (uint32_t)random_below(s->m.nfds);
        memcpy(s->tail + i * sizeof(entry), &entry, sizeof(entry));
    }
    fds->argsz = (uint32_t)(sizeof(*fds) + fds->count * sizeof(struct ob_wire_io_fd));
    set_tail(s, fds->argsz <= room ? fds->argsz - sizeof(*fds) : 0);
}

static void random_feature_reply(struct sample *s, const struct sample *request)
{
    const struct ob_message *r = &request->m;
    struct ob_wire_dma_report report;

    switch (r->u.feature.flags) {
    case VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION:
    case VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        random_tail(s, 8);
        break;
    case VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        memcpy(&report, r->tail, sizeof(report));
        random_tail(s, sizeof(report) + ob_bitmap_size(report.length, report.page_size));
        memcpy(s->tail, &report, sizeof(report));
        break;
    default:
        memcpy(s->tail, request->tail, r->tail_size);
        set_tail(s, r->tail_size);
    }
    s->m.u.feature.argsz = (uint32_t)(sizeof(s->m.u.feature) + s->m.tail_size);
}

/* A reply that answers `request` and is not a refusal. */
static void random_reply(struct sample *s, const struct sample *request)
{
    union ob_payload *u = &s->m.u;
    const union ob_payload *r = &request->m.u;

    memset(s, 0, sizeof(*s));
    s->m.header.id = request->m.header.id;
    s->m.header.command = request->m.header.command;
    s->m.header.flags = OB_FLAG_REPLY;
    if (ob_commands[s->m.header.command].reply.size > 0)
        *u = *r;
    switch ((enum ob_command)s->m.header.command) {
    case OB_VERSION:
        random_text(s);
        s->m.nfds = (unsigned)random_below(2);
        break;
    case OB_DEVICE_GET_REGION_INFO:
        u->region_info.argsz = sizeof(u->region_info);
        u->region_info.flags = VFIO_REGION_INFO_FLAG_READ;
        if (random_below(2))
            random_capabilities(s, r->region_info.argsz);
        break;
    case OB_DEVICE_GET_REGION_IO_FDS:
        random_io_fds(s, r->io_fds.argsz);
        break;
    case OB_REGION_READ:
        u->region_access.count = (uint32_t)random_below(r->region_access.count + 1);
        random_tail(s, u->region_access.count);
        break;
    case OB_DMA_READ:
        u->dma_access.count = random_below(r->dma_access.count + 1);
        random_tail(s, u->dma_access.count);
        break;
    case OB_REGION_WRITE_MULTI:
        u->write_multi.wr_cnt = random_below(r->write_multi.wr_cnt + 1);
        break;
    case OB_DEVICE_FEATURE:
        random_feature_reply(s, request);
        break;
    case OB_MIG_DATA_READ:
        u->mig_data.size = (uint32_t)random_below(r->mig_data.size + 1);
        u->mig_data.argsz = (uint32_t)sizeof(u->mig_data) + u->mig_data.size;
        random_tail(s, u->mig_data.size);
        break;
    default:
        break; /* the fixed part of the request, or nothing */
    }
}

#endif
