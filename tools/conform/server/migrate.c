/* migrate.c: features, states, streams and images; see migrate.h. */
#include "access.h"
#include "migrate.h"

/* Streams that are larger are not held by the judge. */
#define MOST (64u << 20)
/* Pieces of an odd size are tried so often: there may be a lot of memory behind. */
#define ODD_PIECES 64u
/* That servers take what they announce is for other checks to say (VU-VER-24). */
#define LARGE_PIECE (64u << 10)
/* So much of a region's memory is marked and looked at, at its beginning and at its end. */
#define WINDOW 65536u

int optional_call(struct judge *j, uint16_t command, const void *payload, size_t size, struct ob_raw_message **reply)
{
    const int r = call(j, command, payload, size, NULL, 0, reply);

    if (r != 0 && !(j->facts.has & (NEED_MIGRATION | NEED_LOGGING)))
        judge_reconnect(j);
    return r;
}

int feature(struct judge *j, uint32_t flags, uint32_t argsz, const void *data, size_t size,
            struct ob_raw_message **reply)
{
    const uint32_t head[2] = { argsz, flags };
    uint8_t *payload = judge_alloc(j, sizeof(head) + size);

    memcpy(payload, head, sizeof(head));
    if (size > 0)
        memcpy(payload + sizeof(head), data, size);
    return optional_call(j, OB_RAW_FEATURE, payload, sizeof(head) + size, reply);
}

/* --- States ------------------------------------------------------------------------------------------------------ */

const char *state_name(uint32_t state)
{
    static const char *const names[STATES] = { "ERROR",    "STOP",        "RUNNING",  "STOP_COPY",
                                               "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P" };

    return state < STATES ? names[state] : "no state";
}

uint32_t state_get(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, feature(j, FEATURE_GET | DEVICE_STATE, 16, NULL, 0, &m), "GET of MIG_DEVICE_STATE");
    return field32(j, m, 8);
}

int state_set(struct judge *j, uint32_t state)
{
    const uint32_t data[2] = { state, UINT32_MAX };

    return feature(j, FEATURE_SET | DEVICE_STATE, 16, data, sizeof(data), NULL);
}

void want_state(struct judge *j, uint32_t state, const char *when)
{
    const uint32_t is = state_get(j);

    want(j, is == state, "%s the state is %u (%s), wanted %u (%s)", when, is, state_name(is), state, state_name(state));
}

void state_go(struct judge *j, uint32_t state)
{
    char what[64];

    snprintf(what, sizeof(what), "setting the state to %s", state_name(state));
    want_ok(j, state_set(j, state), what);
    snprintf(what, sizeof(what), "after setting it to %s", state_name(state));
    want_state(j, state, what);
}

/* --- Streams ----------------------------------------------------------------------------------------------------- */

uint32_t stream_piece(struct judge *j)
{
    return j->facts.max_data < LARGE_PIECE ? j->facts.max_data : LARGE_PIECE;
}

int data_read(struct judge *j, uint32_t size, uint8_t **bytes, uint32_t *count)
{
    const struct ob_raw_mig_data ask = { sizeof(ask) + size, size };
    struct ob_raw_message *m;
    int r = optional_call(j, OB_RAW_MIG_READ, &ask, sizeof(ask), &m);

    if (r != 0)
        return r;
    *count = field32(j, m, 4);
    want(j, *count <= size && m->size >= sizeof(ask) + *count,
         "MIG_DATA_READ of %u bytes: a payload of %u that counts %u", size, m->size, *count);
    *bytes = m->payload + sizeof(ask);
    return 0;
}

int data_write(struct judge *j, const uint8_t *bytes, uint32_t size)
{
    const struct ob_raw_mig_data head = { sizeof(head) + size, size };
    uint8_t *payload = judge_alloc(j, sizeof(head) + size);

    memcpy(payload, &head, sizeof(head));
    if (size > 0)
        memcpy(payload + sizeof(head), bytes, size);
    return optional_call(j, OB_RAW_MIG_WRITE, payload, sizeof(head) + size, NULL);
}

static void append(struct judge *j, struct stream *stream, const uint8_t *bytes, uint32_t count)
{
    /* Room doubles, so the size tells how much there is. */
    const size_t have = stream->size, need = have + count;
    size_t room = have > 0 ? 64 : 0;

    while (room < have)
        room *= 2;
    if (need > room) {
        uint8_t *more;

        for (room = 64; room < need;)
            room *= 2;
        more = judge_alloc(j, room);
        if (have > 0)
            memcpy(more, stream->bytes, have);
        stream->bytes = more;
    }
    if (count > 0)
        memcpy(stream->bytes + have, bytes, count);
    stream->size = need;
}

/* Whether all came that was asked for. */
static bool read_piece(struct judge *j, uint32_t size, struct stream *stream)
{
    uint8_t *bytes;
    uint32_t count;

    want_ok(j, data_read(j, size, &bytes, &count), "MIG_DATA_READ");
    append(j, stream, bytes, count);
    if (stream->size > MOST)
        judge_skip(j, "the device's stream is larger than %u MiB", MOST >> 20);
    return count == size;
}

void stream_read_some(struct judge *j, size_t most, struct stream *stream)
{
    const uint32_t largest = stream_piece(j);
    uint32_t size;

    for (; most > 0; most -= size) {
        size = most < largest ? (uint32_t)most : largest;
        if (!read_piece(j, size, stream))
            return;
    }
}

void stream_read(struct judge *j, uint32_t piece, struct stream *stream)
{
    const uint32_t largest = stream_piece(j);

    for (unsigned turn = 0; read_piece(j, turn < ODD_PIECES && piece < largest ? piece : largest, stream); turn++)
        ;
}

int stream_write(struct judge *j, uint32_t piece, const struct stream *stream)
{
    const uint32_t largest = stream_piece(j);
    unsigned turn = 0;

    for (size_t at = 0; at < stream->size;) {
        uint32_t size = turn++ < ODD_PIECES && piece < largest ? piece : largest;
        int r;

        if (size > stream->size - at)
            size = (uint32_t)(stream->size - at);
        r = data_write(j, stream->bytes + at, size);
        if (r != 0)
            return r;
        at += size;
    }
    return 0;
}

struct stream stream_save(struct judge *j)
{
    struct stream stream = { NULL, 0 };

    state_go(j, STOP);
    state_go(j, STOP_COPY);
    stream_read(j, UINT32_MAX, &stream);
    state_go(j, STOP);
    return stream;
}

void stream_load(struct judge *j, const struct stream *stream)
{
    state_go(j, RESUMING);
    want_ok(j, stream_write(j, UINT32_MAX, stream), "MIG_DATA_WRITE of the device's own stream");
}

struct stream stream_head(const struct stream *stream, size_t size)
{
    return (struct stream){ stream->bytes, size < stream->size ? size : stream->size };
}

bool stream_same(const struct stream *a, const struct stream *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->bytes, b->bytes, a->size) == 0);
}

/* --- Images ------------------------------------------------------------------------------------------------------ */

/* The nth window into memory that clients map, of which each region has one or, if that does not show all, another at
 * its end. False: there are no more. */
static bool window(struct judge *j, unsigned n, struct ob_raw_region *at)
{
    const uint32_t most = j->facts.max_data < WINDOW ? j->facts.max_data : WINDOW;

    for (uint32_t i = 0; i < regions(j); i++) {
        const struct region_facts *r = &j->facts.region[i];
        const uint32_t all = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
        const uint32_t size = r->area_size < most ? (uint32_t)r->area_size : most;
        const unsigned windows = (r->flags & all) != all || size == 0 ? 0 : r->area_size > most ? 2 : 1;

        if (n < windows) {
            *at = (struct ob_raw_region){ .offset = r->area_offset, .region = i, .count = size };
            at->offset += n == 0 ? 0 : r->area_size - size;
            return true;
        }
        n -= windows;
    }
    return false;
}

static void mark_config(struct judge *j, uint8_t seed)
{
    const uint32_t msi = config_capability(j, 0x05), msix = config_capability(j, 0x11);

    config_write(j, 0x04, 2, seed & 1 ? 0x0406 : 0x0007);
    config_write(j, 0x3c, 1, seed);
    for (uint32_t bar = 0; bar < 6; bar++)
        config_write(j, 0x10 + 4 * bar, 4, (uint32_t)seed << 24 | bar << 20);
    if (msi != 0)
        config_write(j, msi + 4, 4, 0xfee00000 | (uint32_t)seed << 12);
    if (msix != 0) /* enabled, with its function mask, or not */
        config_write(j, msix + 2, 2, seed & 1 ? 0xc000 : 0);
}

static void window_write(struct judge *j, const struct ob_raw_region *at, const uint8_t *bytes)
{
    want_ok(j, region_write(j, at->region, at->offset, bytes, at->count), "writing memory that can be mapped");
}

/* Not every device with these ids has all of its regions. */
static bool is_there(const struct judge *j, const struct exerciser_register *r)
{
    return r->region < regions(j) && j->facts.region[r->region].size > 0;
}

void image_mark(struct judge *j, uint8_t seed)
{
    const struct exerciser *e = j->facts.exerciser;
    struct ob_raw_region at;

    mark_config(j, seed);
    for (unsigned n = 0; window(j, n, &at); n++) {
        uint8_t *bytes = judge_alloc(j, at.count);

        for (uint32_t i = 0; i < at.count; i++)
            bytes[i] = (uint8_t)(seed * (n + 1) + i + i / 256);
        window_write(j, &at, bytes);
    }
    if (e == NULL)
        return;
    for (const struct exerciser_register *r = e->keep; r->width > 0; r++) {
        if (is_there(j, r))
            bar_write(j, r->region, r->offset, r->width, seed * UINT64_C(0x0101010101010101));
    }
    e->mark(j, seed);
}

/* Appends what is read. */
static void take(struct judge *j, uint8_t **to, size_t *size, uint32_t region, uint64_t offset, uint32_t count)
{
    uint8_t *more = judge_alloc(j, *size + count);

    if (*size > 0)
        memcpy(more, *to, *size);
    want_ok(j, region_read(j, region, offset, more + *size, count), "REGION_READ");
    *to = more;
    *size += count;
}

static void take_registers(struct judge *j, struct image *image, const struct exerciser_register *r)
{
    for (; r->width > 0; r++) {
        if (is_there(j, r))
            take(j, &image->registers, &image->registers_size, r->region, r->offset, r->width);
    }
}

struct image image_take(struct judge *j)
{
    const struct exerciser *e = j->facts.exerciser;
    struct image image = { 0 };
    struct ob_raw_region at;

    take(j, &image.config, &image.config_size, VFIO_PCI_CONFIG_REGION_INDEX, 0,
         j->facts.has & NEED_EXPRESS ? 4096 : 256);
    for (unsigned n = 0; window(j, n, &at); n++)
        take(j, &image.memory, &image.memory_size, at.region, at.offset, at.count);
    if (e != NULL) {
        take_registers(j, &image, e->keep);
        take_registers(j, &image, e->show);
    }
    return image;
}

static void want_bytes(struct judge *j, const char *what, const char *when, const uint8_t *is, const uint8_t *wanted,
                       size_t size)
{
    for (size_t i = 0; i < size; i++)
        want(j, is[i] == wanted[i], "%s: byte %zu of %s is %#04x, wanted %#04x", when, i, what, is[i], wanted[i]);
}

void want_image(struct judge *j, const struct image *wanted, const char *when)
{
    const struct image is = image_take(j);

    want_bytes(j, "configuration space", when, is.config, wanted->config, wanted->config_size);
    want_bytes(j, "the memory of BARs", when, is.memory, wanted->memory, wanted->memory_size);
    want_bytes(j, "the registers", when, is.registers, wanted->registers, wanted->registers_size);
}

void want_device(struct judge *j, const struct image *wanted, const char *when)
{
    struct image part = *wanted;

    part.config_size = 0;
    want_image(j, &part, when);
}

void want_registers(struct judge *j, const struct image *wanted, const char *when)
{
    struct image part = *wanted;

    part.config_size = part.memory_size = 0;
    want_image(j, &part, when);
}

/* --- Before a check, and after it -------------------------------------------------------------------------------- */

bool device_rescue(struct judge *j)
{
    bool done = false;

    /* A transition first: some refuse a reset where the device is stopped, and it need not lead to RUNNING
     * (VU-RESET-8). */
    if (state_get(j) != RUNNING && state_set(j, RUNNING) != 0 && j->facts.has & NEED_RESET)
        done = call(j, OB_RAW_RESET, NULL, 0, NULL, 0, NULL) == 0;
    if (state_get(j) != RUNNING)
        return false;
    if (!done)
        reset(j);
    config_write(j, 0x04, 2, 0x0007);
    j->copying = false;
    return true;
}

void device_fresh(struct judge *j)
{
    if (device_rescue(j))
        return;
    if (!(j->facts.has & NEED_SPAWN))
        judge_skip(j, "the device was left in %s, and nothing leads from there to RUNNING", state_name(state_get(j)));
    judge_restart(j);
    want(j, device_rescue(j), "a new process of the server is not in RUNNING");
}

uint32_t want_refused_stream(struct judge *j, const struct image *found, const char *what)
{
    const uint32_t state = state_get(j);

    if (state == RESUMING || state == ERROR)
        return state;
    want(j, state < STATES && state_set(j, RUNNING) == 0,
         "%s was refused, and the state is %u (%s), from which nothing leads to RUNNING", what, state,
         state_name(state));
    want_registers(j, found, what);
    return state;
}

/* The way of a device that is sent its own stream. from and to are the same if GET is at fault. */
static void go_plain_way(struct judge *j)
{
    static const uint32_t way[] = { STOP, RUNNING, STOP, STOP_COPY, STOP, RESUMING, STOP, RUNNING };
    struct stream own = { NULL, 0 };

    device_fresh(j);
    j->plain_way.to = RUNNING;
    for (size_t i = 0; i < sizeof(way) / sizeof(*way); i++) {
        j->plain_way.from = j->plain_way.to;
        j->plain_way.to = way[i];
        want_ok(j, state_set(j, way[i]), "SET of MIG_DEVICE_STATE");
        if (way[i] == STOP_COPY)
            stream_read(j, UINT32_MAX, &own);
        if (way[i] == RESUMING)
            want_ok(j, stream_write(j, UINT32_MAX, &own), "MIG_DATA_WRITE of the device's own stream");
        j->plain_way.from = way[i];
        want_state(j, way[i], "after it was set");
    }
}

/* Tries it, once. */
static void try_plain_way(struct judge *j)
{
    jmp_buf out;

    if (j->plain_way.tried)
        return;
    j->plain_way.tried = true;
    memcpy(&out, &j->out, sizeof(out));
    if (setjmp(j->out) == 0) {
        go_plain_way(j);
        j->plain_way.works = true;
    }
    memcpy(&j->out, &out, sizeof(out));
    snprintf(j->plain_way.why, sizeof(j->plain_way.why), "%.*s", (int)sizeof(j->plain_way.why) - 1, j->text);
    j->text[0] = '\0';
    j->verdict = PASSED;
    if (j->plain_way.works)
        judge_reconnect(j);
    else
        judge_restart(j);
}

/* Unless that works, or what does not is what the check judges, it is skipped. */
static struct image begin(struct judge *j, bool judged)
{
    if (!j->plain_way.works && !judged)
        judge_skip(j, "%s to %s does not work: %s", state_name(j->plain_way.from), state_name(j->plain_way.to),
                   j->plain_way.why);
    device_fresh(j);
    return image_take(j);
}

struct image device_begin(struct judge *j)
{
    try_plain_way(j);
    return begin(j, false);
}

struct image device_begin_arc(struct judge *j, uint32_t from, uint32_t to)
{
    try_plain_way(j);
    return begin(j, from != to && j->plain_way.from == from && j->plain_way.to == to);
}

struct image device_begin_get(struct judge *j)
{
    try_plain_way(j);
    return begin(j, j->plain_way.from == j->plain_way.to);
}

static void restore_field(struct judge *j, const uint8_t *found, uint32_t offset, uint32_t width)
{
    uint32_t value = 0;

    memcpy(&value, found + offset, width);
    config_write(j, offset, width, value);
}

/* What mark_config() wrote, for devices that cannot be reset. */
static void restore_config(struct judge *j, const uint8_t *found)
{
    const uint32_t msi = config_capability(j, 0x05), msix = config_capability(j, 0x11);

    restore_field(j, found, 0x3c, 1);
    for (uint32_t bar = 0; bar < 6; bar++)
        restore_field(j, found, 0x10 + 4 * bar, 4);
    if (msi != 0)
        restore_field(j, found, msi + 4, 4);
    if (msix != 0)
        restore_field(j, found, msix + 2, 2);
    restore_field(j, found, 0x04, 2);
}

void device_end(struct judge *j, const struct image *found)
{
    const uint8_t *bytes = found->memory;
    struct ob_raw_region at;

    if (state_get(j) != RUNNING)
        state_go(j, RUNNING);
    for (unsigned n = 0; window(j, n, &at); bytes += at.count, n++)
        window_write(j, &at, bytes);
    restore_config(j, found->config);
    reset(j);
}
