/* The bytes of a migration stream: MIG_DATA_READ and MIG_DATA_WRITE; see migrate.h. */
#include "device/migrate.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* What is copied at once, so that the checksum finds it in the first cache. */
#define CHUNK 16384u

/* --- The checksum ------------------------------------------------------------------------------------------------ */

/* Four lanes, a word each in turn, so that the multiplications overlap. Each step is a bijection of the lane for a
 * given word and of the word for a given lane: no single word can change unnoticed. It finds faults, not forgers. */
static uint64_t mix(uint64_t lane, uint64_t word)
{
    lane = (lane ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return lane ^ lane >> 32;
}

void ob_sum_begin(struct ob_sum *sum)
{
    *sum = (struct ob_sum){ .lane = { 1, 2, 3, 4 } };
}

static void add_blocks(struct ob_sum *sum, const uint8_t *p, size_t blocks)
{
    uint64_t a = sum->lane[0], b = sum->lane[1], c = sum->lane[2], d = sum->lane[3], words[4];

    for (; blocks > 0; blocks--, p += sizeof(words)) {
        memcpy(words, p, sizeof(words));
        a = mix(a, words[0]);
        b = mix(b, words[1]);
        c = mix(c, words[2]);
        d = mix(d, words[3]);
    }
    sum->lane[0] = a;
    sum->lane[1] = b;
    sum->lane[2] = c;
    sum->lane[3] = d;
}

void ob_sum_add(struct ob_sum *sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t held = sum->length % sizeof(sum->block);

    sum->length += len;
    if (held > 0) {
        size_t n = sizeof(sum->block) - held < len ? sizeof(sum->block) - held : len;
        memcpy(sum->block + held, p, n);
        p += n;
        len -= n;
        if (held + n < sizeof(sum->block))
            return;
        add_blocks(sum, sum->block, 1);
    }
    add_blocks(sum, p, len / sizeof(sum->block));
    memcpy(sum->block, p + len / sizeof(sum->block) * sizeof(sum->block), len % sizeof(sum->block));
}

uint64_t ob_sum_end(const struct ob_sum *sum)
{
    struct ob_sum rest = *sum;
    size_t held = sum->length % sizeof(sum->block);

    memset(rest.block + held, 0, sizeof(rest.block) - held);
    add_blocks(&rest, rest.block, 1);
    uint64_t all = mix(0, sum->length);
    for (int i = 0; i < 4; i++)
        all = mix(all, rest.lane[i]);
    return all;
}

/* --- Where its bytes are ----------------------------------------------------------------------------------------- */

bool ob_stream_memory(const struct ob_dev *dev, unsigned n, struct ob_stream_memory *area, uint8_t **bytes)
{
    for (unsigned s = 0; s < 6 + dev->n_regions; s++) {
        const struct ob_space *space = &dev->spaces[s];
        for (unsigned i = 0; i < space->n_areas; i++) {
            const struct ob_area *a = &space->areas[i];
            if (!(a->flags & OB_AREA_RAM) || n-- > 0)
                continue;
            *area = (struct ob_stream_memory){ s < 6 ? s : OB_REGION_FIRST + s - 6, a->off, a->size };
            uint8_t *memory = a->flags & OB_AREA_MMAP ? dev->bars_map : (uint8_t *)dev->vault.ram;
            *bytes = memory ? memory + space->ram_off[i] : NULL; /* sizes are asked for before there is any */
            return true;
        }
    }
    return false;
}

static uint64_t memory_size(const struct ob_dev *dev)
{
    struct ob_stream_memory area;
    uint64_t size = 0;
    uint8_t *bytes;

    for (unsigned n = 0; ob_stream_memory(dev, n, &area, &bytes); n++)
        size += area.size;
    return size;
}

size_t ob_stream_room(const struct ob_dev *dev)
{
    return 2 * ob_save_size(dev) + 65536;
}

uint64_t ob_stream_length(const struct ob_dev *dev)
{
    return ob_save_size(dev) + memory_size(dev) + sizeof(struct ob_stream_end);
}

static const struct ob_stream_header *header(const struct ob_dev *dev)
{
    return (const struct ob_stream_header *)ob_migration_area(dev)->head;
}

/* How many bytes follow position `at` in one piece, and where they are; 0 behind the end. */
static uint64_t locate(struct ob_dev *dev, uint64_t at, uint8_t **bytes)
{
    struct ob_migration_area *area = ob_migration_area(dev);
    uint64_t head = ob_migration(dev)->head;
    struct ob_stream_memory memory;

    if (head == 0) { /* its length comes with the header */
        *bytes = area->head + at;
        return sizeof(struct ob_stream_header) - at;
    }
    if (at < head) {
        *bytes = area->head + at;
        return head - at;
    }
    at -= head;
    for (unsigned n = 0; ob_stream_memory(dev, n, &memory, bytes); n++) {
        if (at < memory.size) {
            *bytes += at;
            return memory.size - at;
        }
        at -= memory.size;
    }
    *bytes = (uint8_t *)&area->end + at;
    return sizeof(area->end) - at;
}

/* --- Beginning and end ------------------------------------------------------------------------------------------- */

void ob_stream_begin(struct ob_dev *dev, bool save)
{
    struct ob_migration *m = ob_migration(dev);

    m->done = 0;
    m->head = 0;
    ob_sum_begin(&m->sum);
    if (save) {
        m->head = ob_save_size(dev);
        ob_save_head(dev, ob_migration_area(dev)->head, true);
    }
    dev->vault.dirty[OB_PART_MIGRATION] = true;
}

/* Effect: the memory goes back, unless the next stream has begun. That it may stay is no fault. */
static void discard(struct ob_dev *dev, uint64_t unused)
{
    uint8_t *from = (uint8_t *)&ob_migration_area(dev)->end;

    if (ob_migration(dev)->head == 0 && ob_migration(dev)->done == 0)
        (void)madvise(from, ob_migration_area_size(dev) - OB_LOG_MAX_RANGES * sizeof(struct ob_dirty_range),
                      MADV_REMOVE);
}

void ob_stream_drop(struct ob_dev *dev)
{
    struct ob_migration *m = ob_migration(dev);

    if (m->head == 0 && m->done == 0)
        return;
    m->done = 0;
    m->head = 0;
    dev->vault.dirty[OB_PART_MIGRATION] = true;
    ob_after(dev, discard, 0);
}

/* --- MIG_DATA_READ ----------------------------------------------------------------------------------------------- */

/* Where the end mark of the stream lies. */
static uint64_t end_of(const struct ob_dev *dev)
{
    return ob_migration(dev)->head + memory_size(dev);
}

/* The position at which reading ends for now. */
static uint64_t readable(struct ob_dev *dev)
{
    switch (ob_migration(dev)->state) {
    case VFIO_DEVICE_STATE_STOP_COPY:
        return end_of(dev) + sizeof(struct ob_stream_end);
    case OB_DEVICE_STATE_PRE_COPY:
    case OB_DEVICE_STATE_PRE_COPY_P2P:
        return header(dev)->prefix;
    default:
        return 0;
    }
}

static uint32_t take(struct ob_dev *dev, uint8_t *out, uint32_t want, uint64_t until)
{
    struct ob_migration *m = ob_migration(dev);
    const uint64_t end = end_of(dev);
    uint32_t got = 0;

    while (got < want && m->done < until) {
        uint8_t *bytes;
        if (m->done == end)
            ob_migration_area(dev)->end = (struct ob_stream_end){ OB_STREAM_END, ob_sum_end(&m->sum) };
        uint64_t n = locate(dev, m->done, &bytes);
        if (n > want - got)
            n = want - got;
        if (n > until - m->done)
            n = until - m->done;
        if (n > CHUNK)
            n = CHUNK;
        /* Clients may change memory that they map: what is summed up is what they get. */
        memcpy(out + got, bytes, n);
        if (m->done < end)
            ob_sum_add(&m->sum, out + got, n);
        m->done += n;
        got += (uint32_t)n;
    }
    dev->vault.dirty[OB_PART_MIGRATION] = true;
    return got;
}

int ob_stream_read(struct ob_dev *dev, const struct ob_message *message)
{
    uint64_t until = readable(dev);
    struct ob_message reply = { 0 };

    if (until == 0)
        return -EINVAL;
    reply.tail = ob_session_reply_tail(&dev->session);
    reply.tail_size = take(dev, (uint8_t *)reply.tail, message->u.mig_data.size, until);
    reply.u.mig_data.size = (uint32_t)reply.tail_size;
    reply.u.mig_data.argsz = (uint32_t)(sizeof(reply.u.mig_data) + reply.tail_size);
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

/* --- MIG_DATA_WRITE ---------------------------------------------------------------------------------------------- */

/* What has come so far is checked where a part of it ends. */
static int check_so_far(struct ob_dev *dev)
{
    struct ob_migration *m = ob_migration(dev);
    const uint8_t *head = ob_migration_area(dev)->head;

    if (m->done == sizeof(struct ob_stream_header)) {
        int err = ob_load_header(dev, head, ob_stream_room(dev));
        if (!err)
            m->head = header(dev)->head;
        return err;
    }
    if (m->done == header(dev)->prefix) {
        int err = ob_load_prefix(dev, head);
        if (err || m->done != m->head)
            return err;
    }
    return m->done == m->head ? ob_load_check(dev, head) : 0;
}

static int put(struct ob_dev *dev, const uint8_t *in, size_t len)
{
    struct ob_migration *m = ob_migration(dev);

    while (len > 0) {
        uint8_t *bytes;
        uint64_t n = locate(dev, m->done, &bytes);
        bool end = bytes >= (uint8_t *)&ob_migration_area(dev)->end && bytes < ob_migration_area(dev)->head;
        if (n == 0) {
            ob_log(dev, "migration data refused: more follows its end");
            return -EINVAL;
        }
        if (m->head > 0 && m->done < header(dev)->prefix && n > header(dev)->prefix - m->done)
            n = header(dev)->prefix - m->done;
        if (n > len)
            n = len;
        if (n > CHUNK)
            n = CHUNK;
        memcpy(bytes, in, n);
        if (!end)
            ob_sum_add(&m->sum, in, n);
        m->done += n;
        in += n;
        len -= n;
        int err = m->head == 0 || m->done <= m->head ? check_so_far(dev) : 0;
        if (err)
            return err;
    }
    dev->vault.dirty[OB_PART_MIGRATION] = true;
    return 0;
}

int ob_stream_write(struct ob_dev *dev, const struct ob_message *message)
{
    struct ob_message reply = { 0 };

    if (ob_migration(dev)->state != VFIO_DEVICE_STATE_RESUMING)
        return -EINVAL;
    dev->vault.dirty[OB_PART_MIGRATION] = true; /* also what a refused piece did is undone */
    int err = put(dev, message->tail, message->tail_size);
    if (err)
        return err;
    ob_session_reply(&dev->session, &reply, -1);
    return OB_DONE;
}

bool ob_stream_complete(const struct ob_dev *dev)
{
    const struct ob_migration *m = ob_migration(dev);
    const struct ob_stream_end *end = &ob_migration_area(dev)->end;
    uint64_t length = end_of(dev) + sizeof(*end);

    if (m->head == 0 || m->done != length) {
        ob_log(dev, "migration data is incomplete: %llu bytes of %llu came", (unsigned long long)m->done,
               (unsigned long long)(m->head ? length : ob_stream_length(dev)));
        return false;
    }
    if (end->magic != OB_STREAM_END || end->sum != ob_sum_end(&m->sum)) {
        ob_log(dev, "migration data is damaged: its end mark or its checksum is wrong");
        return false;
    }
    return true;
}
