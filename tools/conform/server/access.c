/* access.c: accesses to regions, the memory behind them, and places that may be written (access.h). */
#include "access.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

uint32_t regions(const struct judge *j)
{
    return j->facts.regions < MAX_REGIONS ? j->facts.regions : MAX_REGIONS;
}

int ask_region(struct judge *j, uint32_t index, uint32_t argsz, struct ob_raw_message **reply)
{
    struct vfio_region_info request = { .argsz = argsz, .index = index };

    return call(j, OB_RAW_GET_REGION_INFO, &request, sizeof(request), NULL, 0, reply);
}

struct ob_raw_message *region_info(struct judge *j, uint32_t index)
{
    uint32_t argsz = j->facts.region[index].argsz;
    struct ob_raw_message *m;
    char what[64];

    snprintf(what, sizeof(what), "GET_REGION_INFO of region %u", index);
    want_ok(j, ask_region(j, index, argsz > 32 ? argsz : 32, &m), what);
    want(j, m->size >= 32, "%s: a payload of %u bytes, wanted 32 or more", what, m->size);
    return m;
}

/* --- Accesses by message ----------------------------------------------------------------------------------------- */

int region_read(struct judge *j, uint32_t region, uint64_t offset, void *data, uint32_t count)
{
    struct ob_raw_region request = { .offset = offset, .region = region, .count = count };
    struct ob_raw_message *m;
    int r = call(j, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, &m);

    if (r != 0)
        return r;
    want(j, m->size == sizeof(request) + count,
         "a read of %u bytes of region %u at %#llx: a payload of %u bytes, wanted 16 and the data", count, region,
         (unsigned long long)offset, m->size);
    memcpy(data, m->payload + sizeof(request), count);
    return 0;
}

static uint8_t *write_payload(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, const void *data,
                              size_t size)
{
    struct ob_raw_region request = { .offset = offset, .region = region, .count = count };
    uint8_t *payload = judge_alloc(j, sizeof(request) + size);

    memcpy(payload, &request, sizeof(request));
    if (data != NULL && size > 0)
        memcpy(payload + sizeof(request), data, size);
    return payload;
}

int write_sized(struct judge *j, uint32_t region, uint64_t offset, uint32_t count, const void *data, size_t size,
                struct ob_raw_message **reply)
{
    return call(j, OB_RAW_REGION_WRITE, write_payload(j, region, offset, count, data, size),
                sizeof(struct ob_raw_region) + size, NULL, 0, reply);
}

int region_write(struct judge *j, uint32_t region, uint64_t offset, const void *data, uint32_t count)
{
    return write_sized(j, region, offset, count, data, count, NULL);
}

void region_post(struct judge *j, uint32_t region, uint64_t offset, const void *data, uint32_t count)
{
    post(j, OB_RAW_REGION_WRITE, write_payload(j, region, offset, count, data, count),
         sizeof(struct ob_raw_region) + count, NULL, 0);
}

/* --- Capabilities of regions ------------------------------------------------------------------------------------- */

unsigned capabilities(const struct ob_raw_message *m, struct capability *list, const char **wrong)
{
    uint32_t flags, at;
    unsigned n = 0;

    *wrong = NULL;
    if (m->size < 32)
        return 0;
    memcpy(&flags, m->payload + 4, 4);
    memcpy(&at, m->payload + 12, 4);
    if (!(flags & VFIO_REGION_INFO_FLAG_CAPS))
        return 0;
    while (at != 0) {
        if (at < 32 || at > m->size - 8)
            *wrong = "leaves the reply";
        for (unsigned i = 0; i < n; i++)
            *wrong = list[i].at == at ? "has a loop" : *wrong;
        if (n == MAX_CAPABILITIES)
            *wrong = "does not end";
        if (*wrong != NULL)
            break;
        list[n].at = at;
        memcpy(&list[n].id, m->payload + at, 2);
        memcpy(&list[n].version, m->payload + at + 2, 2);
        memcpy(&list[n].next, m->payload + at + 4, 4);
        at = list[n++].next;
    }
    return n;
}

/* --- Memory that clients map ------------------------------------------------------------------------------------- */

static void add_area(struct areas *areas, struct area area, uint64_t region_size)
{
    if (areas->n == MAX_AREAS || area.size == 0 || area.offset > region_size || area.size > region_size - area.offset)
        return;
    areas->at[areas->n++] = area;
}

static void add_region(struct judge *j, struct areas *areas, uint32_t index)
{
    struct ob_raw_message *m = region_info(j, index);
    struct area area = {
        .region = index, .flags = field32(j, m, 4), .size = field64(j, m, 16), .in_file = field64(j, m, 24)
    };
    const uint64_t size = area.size, in_file = area.in_file;
    struct capability list[MAX_CAPABILITIES];
    const char *wrong;

    if (!(area.flags & VFIO_REGION_INFO_FLAG_MMAP) || m->nfds == 0)
        return;
    area.fd = m->fds[0];
    for (unsigned i = 0, n = capabilities(m, list, &wrong); i < n; i++) {
        if (list[i].id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
            continue;
        area.sparse = true;
        for (uint32_t k = 0; k < field32(j, m, list[i].at + 8) && areas->n < MAX_AREAS; k++) {
            area.offset = field64(j, m, list[i].at + 16 + (size_t)k * 16);
            area.size = field64(j, m, list[i].at + 24 + (size_t)k * 16);
            area.in_file = in_file + area.offset;
            add_area(areas, area, size);
        }
    }
    if (!area.sparse)
        add_area(areas, area, size);
}

struct areas *find_areas(struct judge *j)
{
    struct areas *areas = judge_alloc(j, sizeof(*areas));

    for (uint32_t i = 0; i < regions(j); i++)
        add_region(j, areas, i);
    return areas;
}

/* What an NVMe controller has clients map is doorbells (class 1, subclass 8). */
bool has_doorbells(struct judge *j)
{
    return config_read(j, 0x0a, 2) == 0x0108;
}

struct areas *find_memory(struct judge *j)
{
    struct areas *areas = find_areas(j);
    unsigned n = 0;

    if (areas->n > 0 && has_doorbells(j))
        areas->n = 0;
    for (unsigned i = 0; i < areas->n; i++) {
        if (j->facts.region[areas->at[i].region].by_message)
            areas->at[n++] = areas->at[i];
    }
    areas->n = n;
    return areas;
}

void area_map(struct judge *j, struct area *a)
{
    int prot = (a->flags & VFIO_REGION_INFO_FLAG_READ ? PROT_READ : 0) |
               (a->flags & VFIO_REGION_INFO_FLAG_WRITE ? PROT_WRITE : 0);

    a->memory = judge_mmap(j, a->fd, a->size, a->in_file, prot);
}

/* Through a pipe: memory that is not there is EFAULT for the kernel, and not SIGBUS for the judge. */
static int copy_safely(void *to, const void *from, size_t size)
{
    int ends[2], err = 0;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    if (write(ends[1], from, size) != (ssize_t)size || read(ends[0], to, size) != (ssize_t)size)
        err = EFAULT;
    close(ends[0]);
    close(ends[1]);
    return err;
}

void area_load(struct judge *j, const struct area *a, uint64_t offset, void *to, size_t size)
{
    int err = copy_safely(to, a->memory + offset, size);

    want(j, err == 0, "region %u: the memory mapped for %#llx cannot be read: %s", a->region,
         (unsigned long long)(a->offset + offset), strerror(err));
}

void area_store(struct judge *j, const struct area *a, uint64_t offset, const void *from, size_t size)
{
    int err = copy_safely(a->memory + offset, from, size);

    want(j, err == 0, "region %u: the memory mapped for %#llx cannot be written: %s", a->region,
         (unsigned long long)(a->offset + offset), strerror(err));
}

/* Stores the complement of what is there, calls `load`, and puts it back: whether what was loaded is that. */
static bool keeps(struct judge *j, const struct area *a, uint64_t offset, size_t size,
                  bool (*load)(struct judge *j, const struct area *a, uint64_t offset, size_t size, uint8_t *to))
{
    const uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    uint8_t was[8], other[8], is[8];
    bool loaded;

    if ((a->flags & both) != both)
        return false;
    area_load(j, a, offset, was, size);
    for (size_t i = 0; i < size; i++)
        other[i] = (uint8_t)~was[i];
    area_store(j, a, offset, other, size);
    loaded = load(j, a, offset, size, is);
    area_store(j, a, offset, was, size);
    return loaded && memcmp(is, other, size) == 0;
}

static bool from_memory(struct judge *j, const struct area *a, uint64_t offset, size_t size, uint8_t *to)
{
    area_load(j, a, offset, to, size);
    return true;
}

static bool by_message(struct judge *j, const struct area *a, uint64_t offset, size_t size, uint8_t *to)
{
    return region_read(j, a->region, a->offset + offset, to, (uint32_t)size) == 0;
}

bool area_keeps(struct judge *j, const struct area *a, uint64_t offset, size_t size)
{
    return keeps(j, a, offset, size, from_memory);
}

bool area_shows(struct judge *j, const struct area *a, uint64_t offset, size_t size)
{
    return keeps(j, a, offset, size, by_message);
}

/* --- Places that checks may write -------------------------------------------------------------------------------- */

/* `was` is set by the caller. */
static struct place *add_place(struct places *places, uint32_t region, uint64_t offset, uint32_t size)
{
    struct place *p = &places->at[places->n++];

    *p = (struct place){ .region = region, .offset = offset, .size = size };
    snprintf(p->name, sizeof(p->name), "region %u at %#llx", region, (unsigned long long)offset);
    return p;
}

static bool config_keeps(struct judge *j, uint32_t offset)
{
    uint32_t was = config_read(j, offset, 1), is;

    config_write(j, offset, 1, ~was & 0xff);
    is = config_read(j, offset, 1);
    config_write(j, offset, 1, was);
    return is == (~was & 0xff);
}

/* The interrupt line, the cache line size, or a BAR's upper byte: the first that is writable. */
static void add_config(struct judge *j, struct places *places)
{
    static const uint8_t candidates[] = { 0x3c, 0x0c, 0x13, 0x17, 0x1b, 0x1f, 0x23, 0x27 };

    for (size_t i = 0; i < sizeof(candidates); i++) {
        if (config_keeps(j, candidates[i])) {
            struct place *p = add_place(places, VFIO_PCI_CONFIG_REGION_INDEX, candidates[i], 1);

            p->was[0] = (uint8_t)config_read(j, candidates[i], 1);
            return;
        }
    }
}

static void add_registers(struct judge *j, struct places *places)
{
    const struct exerciser_register *r = j->facts.exerciser != NULL ? j->facts.exerciser->keep : NULL;

    for (; r != NULL && r->width > 0; r++) {
        if (r->region >= regions(j) || j->facts.region[r->region].size == 0)
            continue;

        struct place *p = add_place(places, r->region, r->offset, r->width);

        want_ok(j, region_read(j, r->region, r->offset, p->was, r->width), "reading a register");
    }
}

static void add_memory(struct judge *j, struct places *places)
{
    struct areas *areas = find_memory(j);

    for (unsigned i = 0; i < areas->n && places->n < MAX_PLACES; i++) {
        struct area *a = &areas->at[i];
        struct place *p;

        if (a->size < 8)
            continue;
        area_map(j, a);
        if (!area_keeps(j, a, 0, 8) || !area_shows(j, a, 0, 8))
            continue;
        p = add_place(places, a->region, a->offset, 8);
        p->memory = true;
        area_load(j, a, 0, p->was, 8);
    }
}

struct places *find_places(struct judge *j)
{
    struct places *places = judge_alloc(j, sizeof(*places));

    reset(j);
    add_config(j, places);
    add_registers(j, places);
    add_memory(j, places);
    if (places->n == 0)
        judge_skip(j, "nothing of this device is known to keep what is written to it");
    return places;
}

void restore_places(struct judge *j, const struct places *places)
{
    for (unsigned i = 0; i < places->n; i++)
        place_write(j, &places->at[i], 0);
}

void each_place(struct judge *j, void (*check)(struct judge *j, const struct place *p))
{
    struct places *places = find_places(j);

    for (unsigned i = 0; i < places->n; i++) {
        check(j, &places->at[i]);
        place_write(j, &places->at[i], 0);
    }
}

void place_bytes(const struct place *p, unsigned seed, uint8_t bytes[8])
{
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(p->was[i] ^ (seed == 0 ? 0 : seed + i));
}

void place_write(struct judge *j, const struct place *p, unsigned seed)
{
    uint8_t bytes[8];
    char what[80];

    snprintf(what, sizeof(what), "writing %u bytes of %s", p->size, p->name);
    place_bytes(p, seed, bytes);
    want_ok(j, region_write(j, p->region, p->offset, bytes, p->size), what);
}

void place_post(struct judge *j, const struct place *p, unsigned seed)
{
    uint8_t bytes[8];

    place_bytes(p, seed, bytes);
    region_post(j, p->region, p->offset, bytes, p->size);
}

static void place_read(struct judge *j, const struct place *p, uint8_t bytes[8])
{
    char what[80];

    snprintf(what, sizeof(what), "reading %u bytes of %s", p->size, p->name);
    want_ok(j, region_read(j, p->region, p->offset, bytes, p->size), what);
}

bool place_holds(struct judge *j, const struct place *p, unsigned seed)
{
    uint8_t wanted[8], is[8];

    place_bytes(p, seed, wanted);
    place_read(j, p, is);
    return memcmp(is, wanted, p->size) == 0;
}

static const char *in_hex(const uint8_t *bytes, uint32_t size, char text[24])
{
    for (uint32_t i = 0; i < size; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
    return text;
}

void want_place(struct judge *j, const struct place *p, unsigned seed, const char *what)
{
    uint8_t wanted[8], is[8];
    char text[2][24];

    place_bytes(p, seed, wanted);
    place_read(j, p, is);
    want(j, memcmp(is, wanted, p->size) == 0, "%s: %s holds %s, wanted %s", what, p->name, in_hex(is, p->size, text[0]),
         in_hex(wanted, p->size, text[1]));
}
