/* The rules of each command: which values of its fields and which tail go together.
 *
 * One function for each pair of fixed part and tail that the table uses, named request_<part>_<tail> and
 * reply_<part>_<tail>, so that the switches at the end of this file can be made from the table, and a row without its
 * rule does not compile. The sums are written so that they cannot wrap: a value is compared with what is left. */
#include "protocol/rules.h"

#include <errno.h>
#include <stdbool.h>

/* Neither the sum nor the position behind the last byte wraps, so nobody downstream has to care. */
static inline bool fits64(uint64_t start, uint64_t count)
{
    return count <= UINT64_MAX - start;
}

static inline int verdict(bool good)
{
    return good ? 0 : -EINVAL;
}

static inline int none_NONE(const struct ob_message *m)
{
    return verdict(m->tail_size == 0);
}

/* VERSION: "version data (including terminating NUL). Optional." What the text says is version.c's business. */
static inline int version_JSON(const struct ob_message *m)
{
    return verdict(m->tail_size == 0 || m->tail[m->tail_size - 1] == '\0');
}

/* What reading and writing have in common: counted data, bounded by what was negotiated. */
static inline int data(const struct ob_message *m, uint64_t start, uint64_t count, const struct ob_limits *limits,
                       size_t tail_size)
{
    return verdict(count <= limits->max_data_xfer_size && fits64(start, count) && m->tail_size == tail_size);
}

static inline int request_none_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    return none_NONE(m);
}

static inline int request_version_JSON(const struct ob_message *m, const struct ob_limits *limits)
{
    return version_JSON(m);
}

static inline int request_dma_map_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    const struct ob_wire_dma_map *map = &m->u.dma_map;
    uint32_t known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;

    return verdict(m->tail_size == 0 && map->argsz >= sizeof(*map) && (map->flags & ~known) == 0 && map->size > 0 &&
                   fits64(map->address, map->size) && fits64(map->offset, map->size));
}

/* QEMU asks for everything to be unmapped with the kernel's flag, which the specification does not mention. */
static inline int request_dma_unmap_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    const struct ob_wire_dma_unmap *unmap = &m->u.dma_unmap;

    if (m->tail_size != 0 || unmap->argsz < sizeof(*unmap))
        return -EINVAL;
    if (unmap->flags == VFIO_DMA_UNMAP_FLAG_ALL)
        return verdict(unmap->address == 0 && unmap->size == 0);
    return verdict(unmap->flags == 0 && unmap->size > 0 && fits64(unmap->address, unmap->size));
}

/* Requests for information: "all other fields must be zero" binds the sender; peers that ask with the last reply in
 * their buffer do no harm. */
static inline int request_device_info_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    return verdict(m->tail_size == 0 && m->u.device_info.argsz >= sizeof(m->u.device_info));
}

static inline int request_region_info_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    return verdict(m->tail_size == 0 && m->u.region_info.argsz >= sizeof(m->u.region_info));
}

/* Here the client "must set flags to zero", said twice, and the reference library refuses both fields. */
static inline int request_io_fds_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    const struct ob_wire_io_fds *fds = &m->u.io_fds;

    return verdict(m->tail_size == 0 && fds->argsz >= sizeof(*fds) && fds->flags == 0 && fds->count == 0);
}

static inline int request_irq_info_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    return verdict(m->tail_size == 0 && m->u.irq_info.argsz >= sizeof(m->u.irq_info));
}

/* SET_IRQS: one kind of data and one action. EVENTFD comes with a descriptor for each vector, or with none to take
 * them away. A count of 0 stands for the whole index, and then with start 0 and without data only. */
static inline int request_irq_set_IRQS(const struct ob_message *m, const struct ob_limits *limits)
{
    const struct ob_wire_irq_set *set = &m->u.irq_set;
    uint32_t kind = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK, action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    uint32_t size = kind == VFIO_IRQ_SET_DATA_BOOL ? set->count : 0;

    if ((set->flags & ~(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK)) != 0)
        return -EINVAL;
    if (__builtin_popcount(kind) != 1 || __builtin_popcount(action) != 1)
        return -EINVAL;
    if (set->count > UINT32_MAX - set->start)
        return -EINVAL;
    if (set->count == 0 && (kind != VFIO_IRQ_SET_DATA_NONE || set->start != 0))
        return -EINVAL;
    if (m->tail_size != size || set->argsz < sizeof(*set) || set->argsz - sizeof(*set) < size)
        return -EINVAL;
    return verdict(m->nfds == 0 || (kind == VFIO_IRQ_SET_DATA_EVENTFD && m->nfds == set->count));
}

static inline int request_region_access_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    return data(m, m->u.region_access.offset, m->u.region_access.count, limits, 0);
}

static inline int request_region_access_DATA(const struct ob_message *m, const struct ob_limits *limits)
{
    return data(m, m->u.region_access.offset, m->u.region_access.count, limits, m->u.region_access.count);
}

static inline int request_dma_access_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    return data(m, m->u.dma_access.address, m->u.dma_access.count, limits, 0);
}

/* The count has 64 bits: compared before it becomes a size. */
static inline int request_dma_access_DATA(const struct ob_message *m, const struct ob_limits *limits)
{
    return m->u.dma_access.count == m->tail_size
               ? data(m, m->u.dma_access.address, m->u.dma_access.count, limits, m->tail_size)
               : -EINVAL;
}

/* REGION_WRITE_MULTI: bounded by the size of the message before anything is multiplied. */
static inline int request_write_multi_WRITES(const struct ob_message *m, const struct ob_limits *limits)
{
    const size_t each = sizeof(struct ob_wire_write);
    size_t n = m->tail_size / each;

    if (m->u.write_multi.wr_cnt != n || m->tail_size != n * each)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        struct ob_wire_write w = ob_message_write(m, i);
        if (w.count > sizeof(w.data) || !fits64(w.offset, w.count))
            return -EINVAL;
    }
    return 0;
}

static int set_feature_rules(const struct ob_message *m, uint32_t feature)
{
    struct ob_wire_dma_logging logging;
    struct vfio_device_feature_dma_logging_range range;

    switch (feature) {
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        return verdict(m->tail_size == sizeof(struct vfio_device_feature_mig_state));
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
        return none_NONE(m);
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
        if (m->tail_size < sizeof(logging))
            return -EINVAL;
        memcpy(&logging, m->tail, sizeof(logging));
        if ((m->tail_size - sizeof(logging)) % sizeof(range) != 0 ||
            (m->tail_size - sizeof(logging)) / sizeof(range) != logging.num_ranges)
            return -EINVAL;
        for (size_t i = 0; i < logging.num_ranges; i++) {
            memcpy(&range, m->tail + sizeof(logging) + i * sizeof(range), sizeof(range));
            if (!fits64(range.iova, range.length))
                return -EINVAL;
        }
        return 0;
    default:
        return 0; /* whether there is such a feature is not for us to say */
    }
}

/* The part of a report that request and reply share; its bitmap, if any, follows. */
static int report_rules(const struct ob_message *m, struct ob_wire_dma_report *report)
{
    if (m->tail_size < sizeof(*report))
        return -EINVAL;
    memcpy(report, m->tail, sizeof(*report));
    return verdict(__builtin_popcountll(report->page_size) == 1 && fits64(report->iova, report->length));
}

static int get_feature_rules(const struct ob_message *m, uint32_t feature)
{
    struct ob_wire_dma_report report;

    switch (feature) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        return none_NONE(m);
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        return m->tail_size == sizeof(report) ? report_rules(m, &report) : -EINVAL;
    default:
        return 0;
    }
}

static int request_feature_FEATURE(const struct ob_message *m, const struct ob_limits *limits)
{
    const struct ob_wire_feature *feature = &m->u.feature;
    const uint32_t both = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
    uint32_t op = feature->flags & ~VFIO_DEVICE_FEATURE_MASK, index = feature->flags & VFIO_DEVICE_FEATURE_MASK;

    if (op == 0 || (op & ~(both | VFIO_DEVICE_FEATURE_PROBE)) != 0 || feature->argsz < sizeof(*feature))
        return -EINVAL;
    if (op == VFIO_DEVICE_FEATURE_GET)
        return get_feature_rules(m, index);
    /* Neither SET nor GET alone: the reply is as long as the request. */
    if (op == both || feature->argsz - sizeof(*feature) < m->tail_size)
        return -EINVAL;
    return op == VFIO_DEVICE_FEATURE_SET ? set_feature_rules(m, index) : 0;
}

/* A short answer means the end of the stream, so argsz must have room for all that is asked for. */
static inline int request_mig_data_NONE(const struct ob_message *m, const struct ob_limits *limits)
{
    const struct ob_wire_mig_data *mig = &m->u.mig_data;

    if (mig->argsz < sizeof(*mig) || mig->argsz - sizeof(*mig) < mig->size)
        return -EINVAL;
    return data(m, 0, mig->size, limits, 0);
}

/* argsz is for a reply payload that does not exist. */
static inline int request_mig_data_DATA(const struct ob_message *m, const struct ob_limits *limits)
{
    return data(m, 0, m->u.mig_data.size, limits, m->u.mig_data.size);
}

static inline int reply_none_NONE(const struct ob_message *m, const struct ob_message *request,
                                  const struct ob_limits *limits)
{
    return none_NONE(m);
}

static inline int reply_version_JSON(const struct ob_message *m, const struct ob_message *request,
                                     const struct ob_limits *limits)
{
    return version_JSON(m);
}

static inline int reply_dma_unmap_NONE(const struct ob_message *m, const struct ob_message *request,
                                       const struct ob_limits *limits)
{
    const struct ob_wire_dma_unmap *unmap = &m->u.dma_unmap;

    if (request && (unmap->address != request->u.dma_unmap.address || unmap->size != request->u.dma_unmap.size))
        return -EINVAL;
    return none_NONE(m);
}

/* A structure that grew in a later version: its end is ignored (message.c cuts it off). */
static inline int reply_device_info_GROWN(const struct ob_message *m, const struct ob_message *request,
                                          const struct ob_limits *limits)
{
    return verdict(m->u.device_info.argsz >= sizeof(m->u.device_info) && m->tail_size <= OB_MAX_EXCESS);
}

static inline int reply_irq_info_GROWN(const struct ob_message *m, const struct ob_message *request,
                                       const struct ob_limits *limits)
{
    const struct vfio_irq_info *info = &m->u.irq_info;

    if (info->argsz < sizeof(*info) || (request && info->index != request->u.irq_info.index))
        return -EINVAL;
    return verdict(m->tail_size <= OB_MAX_EXCESS);
}

/* Is the capability at `at` of the tail whole? */
static bool capability_whole(const struct ob_message *m, const struct vfio_info_cap_header *cap, size_t at)
{
    struct vfio_region_info_cap_sparse_mmap sparse;
    struct vfio_region_sparse_mmap_area area;
    size_t left = m->tail_size - at;

    if (cap->id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
        return true;
    if (left < sizeof(sparse))
        return false;
    memcpy(&sparse, m->tail + at, sizeof(sparse));
    if (sparse.nr_areas > (left - sizeof(sparse)) / sizeof(area))
        return false;
    for (size_t i = 0; i < sparse.nr_areas; i++) {
        memcpy(&area, m->tail + at + sizeof(sparse) + i * sizeof(area), sizeof(area));
        if (!fits64(area.offset, area.size) || area.offset + area.size > m->u.region_info.size)
            return false;
    }
    return true;
}

/* Walks the chain, whose offsets count from the start of the fixed part. Each has to lie behind the one before, which
 * is what every server does and what makes the walk end. Where `id` (< 0: none) lies in the tail; -ENOENT; -EINVAL. */
static ssize_t walk_capabilities(const struct ob_message *m, int id)
{
    const size_t fixed = sizeof(m->u.region_info), end = fixed + m->tail_size;
    struct vfio_info_cap_header cap;
    size_t last = fixed;

    for (size_t at = m->u.region_info.cap_offset; at != 0; at = cap.next) {
        if (at < last || at > end || end - at < sizeof(cap))
            return -EINVAL;
        memcpy(&cap, m->tail + (at - fixed), sizeof(cap));
        if (!capability_whole(m, &cap, at - fixed))
            return -EINVAL;
        if (cap.id == id)
            return (ssize_t)(at - fixed);
        last = at + sizeof(cap);
    }
    return -ENOENT;
}

/* The capabilities are there if flags say so and argsz had room for them. */
static bool has_capabilities(const struct ob_message *m)
{
    const struct vfio_region_info *info = &m->u.region_info;

    return (info->flags & VFIO_REGION_INFO_FLAG_CAPS) && m->tail_size >= info->argsz - sizeof(*info);
}

ssize_t ob_region_capability(const struct ob_message *m, uint16_t id)
{
    return has_capabilities(m) ? walk_capabilities(m, id) : -ENOENT;
}

static int reply_region_info_CAPS(const struct ob_message *m, const struct ob_message *request,
                                  const struct ob_limits *limits)
{
    const struct vfio_region_info *info = &m->u.region_info;

    if (info->argsz < sizeof(*info) || m->tail_size > info->argsz - sizeof(*info))
        return -EINVAL;
    if (request) {
        uint32_t room = request->u.region_info.argsz;
        if (info->index != request->u.region_info.index || m->tail_size > room - sizeof(*info))
            return -EINVAL;
        if (info->argsz <= room && m->tail_size != info->argsz - sizeof(*info))
            return -EINVAL;
    }
    return has_capabilities(m) && walk_capabilities(m, -1) == -EINVAL ? -EINVAL : 0;
}

/* The entries may grow: their size is what argsz leaves to each. */
static int reply_io_fds_IO_FDS(const struct ob_message *m, const struct ob_message *request,
                               const struct ob_limits *limits)
{
    const struct ob_wire_io_fds *fds = &m->u.io_fds;

    if (fds->argsz < sizeof(*fds) || fds->flags != 0)
        return -EINVAL;
    if (request && fds->index != request->u.io_fds.index)
        return -EINVAL;
    if (m->tail_size == 0) /* nothing to tell, or more than there was room for */
        return verdict(fds->count == 0 || !request || fds->argsz > request->u.io_fds.argsz);
    if (request && m->tail_size > request->u.io_fds.argsz - sizeof(*fds))
        return -EINVAL;
    if (m->tail_size != fds->argsz - sizeof(*fds) || fds->count == 0 || m->tail_size % fds->count != 0 ||
        m->tail_size / fds->count < sizeof(struct ob_wire_io_fd))
        return -EINVAL;
    for (size_t i = 0; i < fds->count; i++) {
        struct ob_wire_io_fd entry = ob_message_io_fd(m, i);
        if (entry.fd_index >= m->nfds || !fits64(entry.offset, entry.size))
            return -EINVAL;
    }
    return 0;
}

static inline int reply_region_access_DATA(const struct ob_message *m, const struct ob_message *request,
                                           const struct ob_limits *limits)
{
    const struct ob_wire_region_access *access = &m->u.region_access;

    if (request && access->count > request->u.region_access.count)
        return -EINVAL;
    return data(m, access->offset, access->count, limits, access->count);
}

static inline int reply_region_access_NONE(const struct ob_message *m, const struct ob_message *request,
                                           const struct ob_limits *limits)
{
    const struct ob_wire_region_access *access = &m->u.region_access;

    if (request && access->count > request->u.region_access.count)
        return -EINVAL;
    return data(m, access->offset, access->count, limits, 0);
}

static inline int reply_dma_access_DATA(const struct ob_message *m, const struct ob_message *request,
                                        const struct ob_limits *limits)
{
    const struct ob_wire_dma_access *access = &m->u.dma_access;

    if (access->count != m->tail_size || (request && access->count > request->u.dma_access.count))
        return -EINVAL;
    return data(m, access->address, access->count, limits, m->tail_size);
}

static inline int reply_dma_access_NONE(const struct ob_message *m, const struct ob_message *request,
                                        const struct ob_limits *limits)
{
    const struct ob_wire_dma_access *access = &m->u.dma_access;

    if (request && access->count > request->u.dma_access.count)
        return -EINVAL;
    return data(m, access->address, access->count, limits, 0);
}

static inline int reply_write_multi_NONE(const struct ob_message *m, const struct ob_message *request,
                                         const struct ob_limits *limits)
{
    if (request && m->u.write_multi.wr_cnt > request->u.write_multi.wr_cnt)
        return -EINVAL;
    return none_NONE(m);
}

static int got_feature_rules(const struct ob_message *m, uint32_t feature)
{
    struct ob_wire_dma_report report;

    switch (feature) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
        return verdict(m->tail_size == sizeof(struct vfio_device_feature_migration));
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        return verdict(m->tail_size == sizeof(struct vfio_device_feature_mig_state));
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        if (report_rules(m, &report) != 0)
            return -EINVAL;
        return verdict(m->tail_size - sizeof(report) == ob_bitmap_size(report.length, report.page_size));
    default:
        return 0;
    }
}

/* A reply that needs more room than there was says so in argsz and holds what it likes of the rest. */
static int reply_feature_FEATURE(const struct ob_message *m, const struct ob_message *request,
                                 const struct ob_limits *limits)
{
    const struct ob_wire_feature *feature = &m->u.feature;
    uint32_t op = feature->flags & ~VFIO_DEVICE_FEATURE_MASK, index = feature->flags & VFIO_DEVICE_FEATURE_MASK;

    if (feature->argsz < sizeof(*feature))
        return -EINVAL;
    if (request) {
        uint32_t room = request->u.feature.argsz;
        if (feature->flags != request->u.feature.flags || m->tail_size > room - sizeof(*feature))
            return -EINVAL;
        if (feature->argsz > room)
            return 0;
    }
    if (op == VFIO_DEVICE_FEATURE_GET)
        return got_feature_rules(m, index);
    return op == VFIO_DEVICE_FEATURE_SET ? set_feature_rules(m, index) : 0;
}

/* The reference library sends as many bytes as were asked for, whatever `size` says. */
static inline int reply_mig_data_DATA(const struct ob_message *m, const struct ob_message *request,
                                      const struct ob_limits *limits)
{
    uint32_t size = m->u.mig_data.size;

    if (request && (size > request->u.mig_data.size || m->tail_size > request->u.mig_data.size))
        return -EINVAL;
    if (size > m->tail_size || (!request && size != m->tail_size))
        return -EINVAL;
    return data(m, 0, size, limits, m->tail_size);
}

int ob_request_rules(const struct ob_message *m, const struct ob_limits *limits)
{
    switch (m->header.command) {
#define X(name, number, from, part, tail, ...) \
    case number:                               \
        return request_##part##_##tail(m, limits);
        OB_COMMANDS(X)
#undef X
    }
    return -EINVAL;
}

int ob_reply_rules(const struct ob_message *m, const struct ob_message *request, const struct ob_limits *limits)
{
    switch (m->header.command) {
#define X(name, number, from, part, tail, fds, reply_part, reply_tail, ...) \
    case number:                                                            \
        return reply_##reply_part##_##reply_tail(m, request, limits);
        OB_COMMANDS(X)
#undef X
    }
    return -EINVAL;
}
