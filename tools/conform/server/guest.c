/* guest.c: guest memory of checks; see guest.h. */
#include "guest.h"

#include <stdarg.h>
#include <time.h>

#include "../transcript.h"

/* --- The client's side of DMA ------------------------------------------------------------------------------------ */

__attribute__((format(printf, 2, 3))) static int refuse(struct guest *g, const char *format, ...)
{
    va_list args;

    if (g->fault[0] == '\0') {
        va_start(args, format);
        vsnprintf(g->fault, sizeof(g->fault), format, args);
        va_end(args);
    }
    return EFAULT;
}

static struct guest_map *find(const struct guest *g, uint64_t address)
{
    struct guest_map *map = g->maps;

    while (map != NULL && !(map->mapped && address - map->address < map->size))
        map = map->next;
    return map;
}

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct judge *j = ctx;
    struct guest *g = j->guest;
    const char *name = write ? "DMA_WRITE" : "DMA_READ";

    if (g->later & (write ? GUEST_WRITE : GUEST_READ))
        return OB_RAW_LATER;
    *(write ? &g->writes : &g->reads) += 1;
    g->largest = count > g->largest ? count : g->largest;
    for (uint64_t done = 0; done < count;) {
        struct guest_map *map = find(g, address + done);
        uint64_t skip, part;

        if (map == NULL)
            return refuse(g, "%s of %#llx bytes at %#llx, of which %#llx is not mapped", name,
                          (unsigned long long)count, (unsigned long long)address, (unsigned long long)(address + done));
        if (!(map->prot & (write ? GUEST_WRITE : GUEST_READ)))
            return refuse(g, "%s of %#llx bytes at %#llx, which is mapped %s only", name, (unsigned long long)count,
                          (unsigned long long)address, write ? "readable" : "writeable");
        if (g->error != 0)
            return g->error;
        skip = address + done - map->address;
        part = count - done < map->size - skip ? count - done : map->size - skip;
        if (write)
            memcpy(map->bytes + skip, (uint8_t *)data + done, part);
        else
            memcpy((uint8_t *)data + done, map->bytes + skip, part);
        done += part;
    }
    return 0;
}

struct guest *guest_serve(struct judge *j)
{
    if (j->guest == NULL)
        j->guest = judge_alloc(j, sizeof(*j->guest));
    j->raw.dma = serve;
    j->raw.dma_ctx = j;
    return j->guest;
}

/* --- Maps -------------------------------------------------------------------------------------------------------- */

struct guest_map *guest_memory(struct judge *j, uint64_t size)
{
    struct guest_map *m = judge_alloc(j, sizeof(*m));

    m->size = size;
    m->fd = judge_memfd(j, size);
    m->bytes = judge_mmap(j, m->fd, size, 0, 3);
    return m;
}

static void add(struct judge *j, struct guest_map *m)
{
    struct guest *g = guest_serve(j);

    m->mapped = true;
    m->next = g->maps;
    g->maps = m;
}

struct guest_map *guest_map_part(struct judge *j, const struct guest_map *of, uint64_t offset,
                                 const struct guest_map *as, bool shared)
{
    struct guest_map *m = judge_alloc(j, sizeof(*m));

    *m = *as;
    m->fd = of->fd;
    m->bytes = of->bytes + offset;
    want_ok(j, map(j, m->address, m->size, m->prot, shared ? m->fd : -1, shared ? offset : 0), "DMA_MAP");
    add(j, m);
    return m;
}

void guest_mapped(struct judge *j, struct guest_map *memory, uint64_t address)
{
    memory->address = address;
    memory->prot = GUEST_BOTH;
    add(j, memory);
}

struct guest_map *guest_map(struct judge *j, uint64_t address, uint64_t size, uint32_t prot, bool shared)
{
    const struct guest_map as = { .address = address, .size = size, .prot = prot };

    return guest_map_part(j, guest_memory(j, size), 0, &as, shared);
}

void guest_unmap(struct judge *j, struct guest_map *map)
{
    want_ok(j, unmap(j, map->address, map->size), "DMA_UNMAP");
    map->mapped = false;
}

struct guest_pair guest_pair(struct judge *j, bool shared)
{
    struct guest_pair p;

    device_on(j, true);
    p.from = guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, shared);
    p.to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, shared);
    guest_fill(p.from->bytes, j->facts.page, 1);
    return p;
}

/* --- Transfers --------------------------------------------------------------------------------------------------- */

void guest_judged(struct judge *j)
{
    want(j, j->guest == NULL || j->guest->fault[0] == '\0', "%s", j->guest->fault);
}

int transfer(struct judge *j, uint64_t from, uint64_t to, uint32_t len)
{
    int result;

    guest_serve(j);
    result = device_copy(j, from, to, len);
    guest_judged(j);
    return result;
}

void transfer_ok(struct judge *j, uint64_t from, uint64_t to, uint32_t len, const char *what)
{
    int result = transfer(j, from, to, len);

    want(j, result == 0, "the device failed to copy %u bytes %s: %d (%s)", len, what, result, strerror(result));
}

void want_failed(struct judge *j, int result, const char *what)
{
    want(j, result != 0 || !j->facts.exerciser->tells, "the device's transfer %s succeeded, wanted to fail", what);
}

void transfer_fails(struct judge *j, uint64_t from, uint64_t to, uint32_t len, const char *what)
{
    want_failed(j, transfer(j, from, to, len), what);
}

/* --- Commands that are answered by hand -------------------------------------------------------------------------- */

struct ob_raw_message *guest_next(struct judge *j, int *result)
{
    /* Some devices take several steps, which copied() makes; each turn is a round trip. */
    for (int waited = 0; j->raw.later == NULL; waited++) {
        *result = j->facts.exerciser->copied(j);
        if (j->raw.later != NULL)
            break;
        if (*result >= 0)
            return NULL;
        want(j, waited < j->timeout_ms, "the device's copy goes on after %d ms, and asks for nothing", j->timeout_ms);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    return judge_keep(j, ob_raw_later(&j->raw));
}

struct ob_raw_message *guest_asked(struct judge *j, uint16_t command)
{
    int result;
    struct ob_raw_message *m = guest_next(j, &result);

    want(j, m != NULL, "the device's copy ended with %d (%s), and without a %s", result, strerror(result),
         command_name(command));
    want(j, m->header.command == command, "the device asks with %s, wanted %s", command_name(m->header.command),
         command_name(command));
    return m;
}

struct ob_raw_dma guest_range(struct judge *j, const struct ob_raw_message *command)
{
    return (struct ob_raw_dma){ field64(j, command, 0), field64(j, command, 8) };
}

void guest_answer(struct judge *j, const struct ob_raw_message *command, const void *payload, size_t size)
{
    uint8_t *bytes = judge_alloc(j, sizeof(command->header) + size);

    size = ob_raw_build(bytes, command->header.id, command->header.command, OB_RAW_REPLY, payload, size);
    send_bytes(j, bytes, size, NULL, 0);
}

void guest_answer_well(struct judge *j, const struct ob_raw_message *command, uint8_t fill)
{
    const struct ob_raw_dma range = guest_range(j, command);
    const size_t size = sizeof(range) + (command->header.command == OB_RAW_DMA_READ ? range.count : 0);
    uint8_t *payload = judge_alloc(j, size);

    memset(payload, fill, size);
    memcpy(payload, &range, sizeof(range));
    guest_answer(j, command, payload, size);
}

void guest_refuse(struct judge *j, const struct ob_raw_message *command, uint32_t error)
{
    struct ob_raw_header header = command->header;

    header.size = sizeof(header);
    header.flags = OB_RAW_REPLY | OB_RAW_ERROR;
    header.error = error;
    send_bytes(j, &header, sizeof(header), NULL, 0);
}

void guest_needs_crossing(struct judge *j)
{
    uint32_t ask[4] = { sizeof(ask) };

    if (j->facts.crossing == UNTRIED) {
        guest_pair(j, false);
        j->guest->later = GUEST_BOTH;
        device_copy_begin(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
        guest_asked(j, OB_RAW_DMA_READ);
        j->facts.crossing =
            ob_raw_call(&j->raw, OB_RAW_GET_INFO, ask, sizeof(ask), NULL, 0, NULL) >= 0 ? CROSSES : STALLS;
        judge_reconnect(j);
    }
    if (j->facts.crossing == STALLS)
        judge_skip(j, "the server answers nothing while it waits for the reply to a DMA_READ");
}

/* --- Patterns ---------------------------------------------------------------------------------------------------- */

static uint8_t pattern(size_t at, unsigned seed)
{
    return (uint8_t)(at * 31 + (at >> 8) + seed * 77 + 1);
}

void guest_fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern(i, seed);
}

bool guest_filled(const uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != pattern(i, seed))
            return false;
    }
    return true;
}

bool guest_all(const uint8_t *bytes, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != value)
            return false;
    }
    return true;
}

/* --- A copy that waits ------------------------------------------------------------------------------------------- */

#define FILL 0xa7

struct ob_raw_message *guest_read_waits(struct judge *j, struct guest_pair *pair)
{
    *pair = guest_pair(j, false);
    j->guest->later = GUEST_READ;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
    return guest_asked(j, OB_RAW_DMA_READ);
}

void guest_read_answer(struct judge *j, const struct ob_raw_message *asked)
{
    j->guest->later = 0;
    guest_answer_well(j, asked, FILL);
}

void guest_read_done(struct judge *j, const struct guest_pair *pair, const char *meanwhile)
{
    int error = device_copy_end(j);

    guest_judged(j);
    want(j, error == 0 && guest_all(pair->to->bytes, GUEST_LEN, FILL), "the device's copy failed (%s), after %s",
         strerror(error), meanwhile);
}
