/* survey.c: what the server says of itself, asked for once, before the checks: what they have to find or may skip. */
#include "irqs.h"
#include "judge.h"

/* The reply is looked at with a lenient eye: whether it is right is for checks to say. */
static uint64_t number(const json_t *capabilities, const char *key, uint64_t absent)
{
    const json_t *value = json_object_get(capabilities, key);

    if (json_is_integer(value) && json_integer_value(value) >= 0)
        return (uint64_t)json_integer_value(value);
    if (json_is_real(value) && json_real_value(value) >= 0 && json_real_value(value) < 0x1p63)
        return (uint64_t)json_real_value(value);
    return absent;
}

static void survey_version(struct judge *j, struct facts *f)
{
    struct ob_raw_message *reply;
    const json_t *capabilities;

    want_ok(j, judge_version(j, 0, 0, judge_capabilities, &reply), "VERSION");
    capabilities = json_object_get(judge_json(j, reply), "capabilities");
    f->max_msg_fds = (uint32_t)number(capabilities, "max_msg_fds", 1);
    f->max_data = (uint32_t)number(capabilities, "max_data_xfer_size", 1048576);
    f->max_maps = (uint32_t)number(capabilities, "max_dma_maps", 65535);
    f->pgsizes = number(capabilities, "pgsizes", 4096);
    if (f->pgsizes == 0)
        f->pgsizes = 4096;
    f->page = f->pgsizes & (~f->pgsizes + 1);
    f->multi = json_is_true(json_object_get(capabilities, "write_multiple"));
    f->has |= f->multi ? NEED_MULTI : 0;
}

/* Whether the process serves the next client after one without a session. If not, it has ended afterwards. */
static bool goes_on(struct judge *j)
{
    struct ob_raw *next;
    bool served;

    judge_close(j);
    next = judge_beside(j);
    served = next != NULL && ob_raw_version(next, 0, 0, judge_capabilities, NULL) >= 0;
    if (next != NULL)
        ob_raw_close(next);
    return served;
}

/* A client that sends GET_INFO instead of VERSION and leaves: whether that is answered, and whether the program ends
 * with it. Some do; checks that begin no session would all fail then, and connection-next-silent is enough. */
static void survey_early(struct judge *j, struct facts *f)
{
    const uint32_t get_info[4] = { sizeof(get_info) };

    f->early = ob_raw_call(&j->raw, OB_RAW_GET_INFO, get_info, sizeof(get_info), NULL, 0, NULL) == 0;
    if (!j->target->once && !goes_on(j)) {
        j->target->needs_session = true;
        j->target->needs_session = target_leave(j->target, j->timeout_ms) == 0;
        j->target->died = false; /* if it did, it will in a check of VU-VER-2, too */
    }
    judge_reconnect_bare(j);
}

/* Twin sockets are asked for on a connection of their own, so that other checks need not serve one. */
static void survey_twin(struct judge *j, struct facts *f)
{
    struct ob_raw_message *reply;
    const json_t *twin;

    if (judge_version(j, 0, 0, "{\"capabilities\":{\"max_msg_fds\":16,\"twin_socket\":{\"supported\":true}}}",
                      &reply) != 0)
        return;
    twin = json_object_get(json_object_get(judge_json(j, reply), "capabilities"), "twin_socket");
    f->twin = json_is_true(json_object_get(twin, "supported"));
    f->has |= f->twin ? NEED_TWIN : 0;
}

static void survey_capabilities(struct judge *j, struct region_facts *r, const struct ob_raw_message *m)
{
    uint32_t at = field32(j, m, 12);

    for (unsigned turns = 0; at >= 32 && m->size >= 16 && at <= m->size - 16 && turns < 16; turns++) {
        if (field16(j, m, at) == VFIO_REGION_INFO_CAP_SPARSE_MMAP && m->size - at >= 32) {
            r->areas = field32(j, m, at + 8);
            r->area_offset = field64(j, m, at + 16);
            r->area_size = field64(j, m, at + 24);
        }
        at = field32(j, m, at + 4);
    }
}

/* Whether the first bytes of what can be mapped can be read by message, and written with what is there. */
static bool survey_access(struct judge *j, uint32_t index, const struct region_facts *r)
{
    struct {
        struct ob_raw_region access;
        uint32_t value;
    } request = { { .offset = r->area_offset, .region = index, .count = r->area_size < 4 ? 1 : 4 }, 0 };
    const uint32_t count = request.access.count;
    struct ob_raw_message *m;

    if (r->flags & VFIO_REGION_INFO_FLAG_READ) {
        if (call(j, OB_RAW_REGION_READ, &request, sizeof(request.access), NULL, 0, &m) != 0 ||
            m->size != sizeof(request.access) + count)
            return false;
        memcpy(&request.value, m->payload + sizeof(request.access), count);
    }
    return !(r->flags & VFIO_REGION_INFO_FLAG_WRITE) || !(r->flags & VFIO_REGION_INFO_FLAG_READ) ||
           call(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + count, NULL, 0, NULL) == 0;
}

static void survey_region(struct judge *j, struct facts *f, uint32_t index)
{
    struct region_facts *r = &f->region[index];
    struct vfio_region_info ask = { .argsz = sizeof(ask), .index = index };
    struct ob_raw_message *m;

    if (call(j, OB_RAW_GET_REGION_INFO, &ask, sizeof(ask), NULL, 0, &m) != 0)
        return;
    if (field32(j, m, 0) > sizeof(ask)) {
        ask.argsz = field32(j, m, 0);
        if (call(j, OB_RAW_GET_REGION_INFO, &ask, sizeof(ask), NULL, 0, &m) != 0)
            return;
    }
    r->argsz = ask.argsz;
    r->flags = field32(j, m, 4);
    r->size = field64(j, m, 16);
    r->offset = field64(j, m, 24);
    r->area_size = r->size;
    if (r->flags & VFIO_REGION_INFO_FLAG_CAPS)
        survey_capabilities(j, r, m);
    if ((r->flags & VFIO_REGION_INFO_FLAG_MMAP) && m->nfds > 0 && r->area_size > 0) {
        r->by_message = survey_access(j, index, r);
        f->mappable = f->has & NEED_MAPPABLE ? f->mappable : index;
        f->has |= NEED_MAPPABLE | (r->areas > 0 ? NEED_SPARSE : 0);
        f->has |= f->region[f->mappable].by_message ? NEED_MEMORY : 0;
    }
    if (index >= VFIO_PCI_NUM_REGIONS && r->size > 0)
        f->has |= NEED_EXTRA_REGION;
    if (index == VFIO_PCI_CONFIG_REGION_INDEX && r->size == 4096)
        f->has |= NEED_EXPRESS;
}

/* Whether an optional command succeeds. A server that does not know it may be out of step afterwards. One that it harms
 * is started anew: that it does is for the command's checks to say. */
static bool optional(struct judge *j, uint16_t command, const void *payload, size_t size, struct ob_raw_message **reply)
{
    int r = call(j, command, payload, size, NULL, 0, reply);

    if (r < 0)
        judge_restart(j);
    else if (r > 0)
        judge_reconnect(j);
    return r == 0;
}

static void survey_io_fds(struct judge *j, struct facts *f, uint32_t index)
{
    struct ob_raw_io_fds ask = { .argsz = 4096, .index = index };
    struct ob_raw_message *m;

    if (f->region[index].size == 0 || !optional(j, OB_RAW_GET_REGION_IO_FDS, &ask, sizeof(ask), &m))
        return;
    f->region[index].io_fds = true;
    f->has |= field32(j, m, 12) > 0 ? NEED_IO_FDS : 0;
}

static void survey_irqs(struct judge *j, struct facts *f)
{
    static const uint32_t types[] = { NEED_INTX, NEED_MSI, NEED_MSIX };

    for (uint32_t i = 0; i < f->irqs && i < 16; i++) {
        struct vfio_irq_info ask = { .argsz = sizeof(ask), .index = i };
        struct ob_raw_message *m;

        if (call(j, OB_RAW_GET_IRQ_INFO, &ask, sizeof(ask), NULL, 0, &m) != 0)
            continue;
        f->irq[i] = (struct vfio_irq_info){
            .argsz = field32(j, m, 0), .flags = field32(j, m, 4), .index = i, .count = field32(j, m, 12)
        };
        if (f->irq[i].count > 0 && i < 3)
            f->has |= types[i];
        if (f->irq[i].count > 0 && (f->irq[i].flags & VFIO_IRQ_INFO_EVENTFD))
            f->has |= NEED_IRQ | (f->irq[i].count > 1 ? NEED_VECTORS : 0);
    }
}

/* Whether SET_IRQS triggers interrupts of each type: it may be refused, and checks that see by it where interrupts go
 * are skipped then. A server that it harms is started anew: that it does is for a check to say. */
static void survey_loopback(struct judge *j, struct facts *f)
{
    for (uint32_t i = 0; i < f->irqs && i < 16; i++) {
        int r = irqs_loopback(j, i);

        f->loopback |= r == 0 ? 1u << i : 0;
        if (r < 0)
            judge_restart(j);
    }
}

/* Whether PROBE of a feature with a method succeeds. */
static bool probe(struct judge *j, uint32_t feature, uint32_t method)
{
    uint32_t ask[2] = { sizeof(ask), feature | method | VFIO_DEVICE_FEATURE_PROBE };

    return optional(j, OB_RAW_FEATURE, ask, sizeof(ask), NULL);
}

static void survey_features(struct judge *j, struct facts *f)
{
    uint32_t ask[2] = { 16, VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET };
    struct ob_raw_message *m;

    if (optional(j, OB_RAW_FEATURE, ask, sizeof(ask), &m)) {
        f->migration_flags = field64(j, m, 8);
        f->has |= NEED_MIGRATION | (f->migration_flags & 4 ? NEED_PRE_COPY : 0);
    }
    if (probe(j, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, VFIO_DEVICE_FEATURE_SET))
        f->has |= NEED_LOGGING;
}

/* A server whose device does no DMA may take any DMA_MAP and DMA_UNMAP, and do nothing. It has to refuse a second map
 * of a range and an unmap of none, as checks say; what else it does not look at harms nobody. */
static bool keeps_track(struct judge *j)
{
    const uint64_t at = 0x10000000, page = j->facts.page;
    const struct ob_raw_dma_unmap none = { .argsz = sizeof(none), .address = at + 4 * page, .size = page };

    return ob_raw_map(&j->raw, at, 2 * page, 3, -1, 0) != 0 || ob_raw_map(&j->raw, at, page, 3, -1, 0) != 0 ||
           ob_raw_call(&j->raw, OB_RAW_DMA_UNMAP, &none, sizeof(none), NULL, 0, NULL) != 0;
}

void survey(struct judge *j)
{
    struct facts *f = &j->facts;
    uint32_t ask[4] = { sizeof(ask) };
    struct ob_raw_message *m;

    if (f->has & NEED_SPAWN)
        survey_early(j, f);
    f->has |= j->target->once || j->target->needs_session ? 0 : NEED_EARLY;
    survey_twin(j, f);
    judge_reconnect_bare(j);
    survey_version(j, f);
    want_ok(j, call(j, OB_RAW_GET_INFO, ask, sizeof(ask), NULL, 0, &m), "GET_INFO");
    f->device_flags = field32(j, m, 4);
    f->regions = field32(j, m, 8);
    f->irqs = field32(j, m, 12);
    f->has |= f->device_flags & VFIO_DEVICE_FLAGS_RESET ? NEED_RESET : 0;
    for (uint32_t i = 0; i < f->regions && i < MAX_REGIONS; i++) {
        survey_region(j, f, i);
        survey_io_fds(j, f, i);
    }
    survey_irqs(j, f);
    survey_features(j, f);
    if (f->region[VFIO_PCI_CONFIG_REGION_INDEX].size > 0) {
        f->vendor = (uint16_t)config_read(j, 0, 2);
        f->device = (uint16_t)config_read(j, 2, 2);
        f->exerciser = exerciser_find(f->vendor, f->device, config_read(j, 0x08, 4) >> 8);
        if (f->exerciser != NULL)
            f->has |= (f->exerciser->max_copy > 0 ? NEED_DMA : 0) | (f->exerciser->irqs != 0 ? NEED_INTERRUPT : 0);
        survey_loopback(j, f);
    }
    if (f->has & NEED_DMA || keeps_track(j))
        f->has |= NEED_MAPS;
}
