/* dma.c: VU-DMA: how clients serve the server's access to their memory. */
#include "check.h"

#include <unistd.h>

#define BYTES 64

static const uint8_t pattern[BYTES] = "what the device writes to the memory of a guest, and reads back";
static const uint8_t other[BYTES] = "what the guest had there before, or wrote there in the meantime";

/* Reads by DMA_READ; ends the check if that is refused. The data, with the layout judged. */
static const uint8_t *read_memory(struct trial *t, uint64_t address, uint64_t count, const char *what)
{
    struct ob_raw_message *reply;

    trial_dma(t, OB_RAW_DMA_READ, 0, address, count, NULL, 0);
    reply = trial_dma_reply(t, what);
    trial_want(t, !trial_refused(t, reply), "%s: it should succeed, and failed (%s)", what,
               strerror((int)reply->header.error));
    trial_want(t, reply->size == 16 + count && get64(reply, 0) == address && get64(reply, 8) == count,
               "%s: the reply should be address (%#llx), count (%llu) and that many bytes, and is %u bytes: %#llx, "
               "%llu, ...",
               what, (unsigned long long)address, (unsigned long long)count, reply->size,
               (unsigned long long)get64(reply, 0), (unsigned long long)get64(reply, 8));
    return reply->payload + 16;
}

static void write_memory(struct trial *t, uint64_t address, const uint8_t *data, const char *what)
{
    struct ob_raw_message *reply;

    trial_dma(t, OB_RAW_DMA_WRITE, 0, address, BYTES, data, BYTES);
    reply = trial_dma_reply(t, what);
    trial_want(t, !trial_refused(t, reply), "%s: it should succeed, and failed (%s)", what,
               strerror((int)reply->header.error));
}

/* Sends a command that has to be refused; the session goes on. */
static void want_refused(struct trial *t, uint16_t command, uint64_t address, uint64_t count, const char *what)
{
    size_t size = command == OB_RAW_DMA_WRITE ? (size_t)count : 0;

    trial_dma(t, command, 0, address, count, size > 0 ? trial_alloc(t, size) : NULL, size);
    trial_want(t, trial_refused(t, trial_dma_reply(t, what)), "%s should be refused, and succeeded", what);
}

/* --- What is served ----------------------------------------------------------------------------------------------- */

static void read_layout(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);

    read_memory(t, map.address, BYTES, "DMA_READ");
    trial_want_same(t, 0);
}

static void write_layout(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_WRITE);
    struct ob_raw_message *reply;
    uint64_t count;

    trial_dma(t, OB_RAW_DMA_WRITE, 0, map.address, BYTES, pattern, BYTES);
    reply = trial_dma_reply(t, "DMA_WRITE");
    trial_want(t, !trial_refused(t, reply), "DMA_WRITE should succeed, and failed (%s)",
               strerror((int)reply->header.error));
    count = reply->size == 12 ? get32(reply, 8) : get64(reply, 8);
    trial_want(t, (reply->size == 12 || reply->size == 16) && get64(reply, 0) == map.address && count == BYTES,
               "the reply should be address (%#llx) and count (%d) of 4 or 8 bytes, and is %u bytes: %#llx, %llu",
               (unsigned long long)map.address, BYTES, reply->size, (unsigned long long)get64(reply, 0),
               (unsigned long long)count);
    trial_want_same(t, 0);
}

/* Whether memory that came with a descriptor is the memory that messages reach. */
static void with_descriptor(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ | MAP_WRITE | MAP_FD);
    const uint8_t *data;

    if (pwrite(map.fd, other, BYTES, (off_t)map.offset) != BYTES)
        trial_skip(t, "the judge cannot write to the client's descriptor: %s", strerror(errno));
    data = read_memory(t, map.address, BYTES, "DMA_READ of memory whose descriptor the server has");
    trial_want(
        t, memcmp(data, other, BYTES) == 0,
        "DMA_READ should return what is in the memory whose descriptor the server has, and returned other bytes");
    trial_want_same(t, 0);
}

/* What was written is there when the reply comes: for a DMA_READ, and in the file. */
static void write_seen(struct trial *t, unsigned sorts)
{
    struct model_map map = trial_await_map(t, MAP_READ | MAP_WRITE | sorts);
    uint8_t there[BYTES];

    write_memory(t, map.address, other, "DMA_WRITE");
    write_memory(t, map.address, pattern, "DMA_WRITE");
    if (map.fd >= 0 && pread(map.fd, there, BYTES, (off_t)map.offset) == BYTES)
        trial_want(t, memcmp(there, pattern, BYTES) == 0,
                   "what DMA_WRITE wrote should be in the memory when its reply comes, and is not");
    trial_want(t, memcmp(read_memory(t, map.address, BYTES, "DMA_READ"), pattern, BYTES) == 0,
               "a DMA_READ should see what DMA_WRITE wrote, and does not");
    trial_want_same(t, 0);
}

static void write_seen_mapped(struct trial *t)
{
    write_seen(t, MAP_FD);
}

static void write_seen_message(struct trial *t)
{
    write_seen(t, MAP_NO_FD);
}

#define LARGE 1048576u

/* The last bytes of a map, and all of it, or as much as the client takes, or as is much for one message. */
static void whole_map(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);
    uint64_t most = t->model.client_data < map.size ? t->model.client_data : map.size;

    most = most < LARGE ? most : LARGE;

    read_memory(t, map.address + map.size - BYTES, BYTES, "DMA_READ of the last bytes of a map");
    if (most > 0)
        read_memory(t, map.address, most, "DMA_READ of as much as the client takes");
    trial_want_same(t, 0);
}

/* --- What is refused ---------------------------------------------------------------------------------------------- */

static void unmapped(struct trial *t)
{
    trial_await_map(t, 0);
    want_refused(t, OB_RAW_DMA_READ, trial_hole(t), BYTES, "DMA_READ of memory that is not mapped");
    want_refused(t, OB_RAW_DMA_WRITE, trial_hole(t), BYTES, "DMA_WRITE to memory that is not mapped");
    trial_want_same(t, 0);
}

/* A map behind which nothing is mapped. */
static uint64_t end_of_maps(const struct trial *t)
{
    for (size_t i = 0; i < t->model.n_maps; i++) {
        const struct model_map *map = &t->model.maps[i];

        if (map->flags & VFIO_DMA_MAP_FLAG_READ && model_map_of(&t->model, map->address + map->size, 1) == NULL)
            return map->address + map->size;
    }
    return 0;
}

static void partly_mapped(struct trial *t)
{
    trial_await_map(t, MAP_READ);
    want_refused(t, OB_RAW_DMA_READ, end_of_maps(t) - BYTES / 2, BYTES, "DMA_READ of memory that is mapped in part");
    trial_want_same(t, 0);
}

static void wraps(struct trial *t)
{
    trial_await_map(t, 0);
    want_refused(t, OB_RAW_DMA_READ, UINT64_MAX - BYTES / 2, BYTES, "DMA_READ of a range that wraps");
    want_refused(t, OB_RAW_DMA_WRITE, UINT64_MAX - BYTES / 2, BYTES, "DMA_WRITE to a range that wraps");
    trial_want_same(t, 0);
}

static bool unmaps(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_DMA_UNMAP && model_bus_master(&t->model);
}

/* Whether one of memory that was just unmapped was refused. False: it was mapped again meanwhile. */
static bool unmapped_refused(struct trial *t, uint16_t command, uint64_t address)
{
    bool write = command == OB_RAW_DMA_WRITE, refused;

    trial_dma(t, command, 0, address, BYTES, pattern, write ? BYTES : 0);
    refused = trial_refused(t, trial_dma_reply(t, "DMA of memory that was unmapped"));
    trial_want(t, refused || model_map_of(&t->model, address, BYTES) != NULL,
               "%s memory that was unmapped should be refused, and succeeded", write ? "DMA_WRITE to" : "DMA_READ of");
    return refused;
}

static void after_unmap(struct trial *t)
{
    struct ob_raw_message *m = trial_await_where(t, unmaps, "DMA_UNMAP while bus mastering is on");

    /* The client may map the memory again before it sees the command. */
    for (;;) {
        trial_answer(t, m);
        if (unmapped_refused(t, OB_RAW_DMA_READ, get64(m, 8)) && unmapped_refused(t, OB_RAW_DMA_WRITE, get64(m, 8)))
            break;
        m = trial_await_where(t, unmaps, "DMA_UNMAP of memory that it did not map again at once");
    }
    trial_want_same(t, 0);
}

static void unreadable(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_NO_READ);

    want_refused(t, OB_RAW_DMA_READ, map.address, BYTES, "DMA_READ of memory that is not readable");
    trial_want_same(t, 0);
}

static void unwriteable(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_NO_WRITE);

    want_refused(t, OB_RAW_DMA_WRITE, map.address, BYTES, "DMA_WRITE to memory that is not writeable");
    trial_want_same(t, 0);
}

static void too_large_read(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);

    want_refused(t, OB_RAW_DMA_READ, map.address, t->model.client_data + 1,
                 "DMA_READ of more than the client's max_data_xfer_size");
    trial_want_same(t, 0);
}

static void huge_read(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_READ);

    want_refused(t, OB_RAW_DMA_READ, map.address, UINT64_C(1) << 40, "DMA_READ of 2^40 bytes");
    trial_want_same(t, 0);
}

/* The message itself is larger than any: the client may end the connection. */
static void too_large_write(struct trial *t)
{
    struct model_map map = trial_await_map(t, MAP_WRITE);
    uint64_t count = t->model.client_data + 4096;

    if (count > 16u << 20)
        trial_skip(t, "the client takes %llu bytes", (unsigned long long)count);
    trial_dma(t, OB_RAW_DMA_WRITE, 0, map.address, count, trial_alloc(t, count), count);
    while (t->answers == NULL) {
        struct ob_raw_message *m = trial_next(t);

        if (m == NULL)
            break;
        trial_answer(t, m);
    }
    if (t->answers != NULL)
        trial_want(t, trial_refused(t, t->answers),
                   "DMA_WRITE of more than the client's max_data_xfer_size should be "
                   "refused, and succeeded");
    trial_want_refused(t, "DMA_WRITE of more than the client's max_data_xfer_size");
}

/* A DMA_WRITE whose count and data do not agree; behind it the memory is as it was. */
static void size_lies(struct trial *t, uint64_t count, const char *what)
{
    struct model_map map = trial_await_map(t, MAP_READ | MAP_WRITE);

    write_memory(t, map.address, other, "DMA_WRITE");
    trial_dma(t, OB_RAW_DMA_WRITE, 0, map.address, count, pattern, BYTES);
    trial_want(t, trial_refused(t, trial_dma_reply(t, what)), "%s should be refused, and succeeded", what);
    trial_want(t, memcmp(read_memory(t, map.address, BYTES, "DMA_READ"), other, BYTES) == 0,
               "%s was refused, and the memory is changed", what);
    trial_want_same(t, 0);
}

static void data_missing(struct trial *t)
{
    size_lies(t, 2 * BYTES, "DMA_WRITE with less data than its count says");
}

static void data_left(struct trial *t)
{
    size_lies(t, BYTES / 2, "DMA_WRITE with more data than its count says");
}

const struct client_check client_dma_checks[] = {
    VARIATION("dma-read", "VU-DMA-2", "the reply to DMA_READ is address, count and data", read_layout),
    VARIATION("dma-write", "VU-DMA-3", "the reply to DMA_WRITE is address and count", write_layout),
    VARIATION("dma-with-descriptor", "VU-DMA-11", "memory whose descriptor the server has is served", with_descriptor),
    VARIATION("dma-write-seen", "VU-DMA-12", "what is written to shared memory is there with the reply",
              write_seen_mapped),
    VARIATION("dma-write-read", "VU-DMA-12", "what is written to other memory is there with the reply",
              write_seen_message),
    VARIATION("dma-whole-map", "VU-DMA-2", "all of a map is served, and as much as was agreed upon", whole_map),
    VARIATION("dma-unmapped", "VU-DMA-7", "memory that is not mapped is refused", unmapped),
    VARIATION("dma-partly-mapped", "VU-DMA-7", "memory that is mapped in part is refused", partly_mapped),
    VARIATION("dma-wraps", "VU-DMA-7", "a range that wraps is refused", wraps),
    VARIATION("dma-after-unmap", "VU-DMA-7", "memory that was unmapped is refused", after_unmap),
    VARIATION("dma-unreadable", "VU-DMA-8", "DMA_READ of unreadable memory is refused", unreadable),
    VARIATION("dma-unwriteable", "VU-DMA-8", "DMA_WRITE to unwriteable memory is refused", unwriteable),
    VARIATION("dma-large-read", "VU-DMA-9", "a DMA_READ above max_data_xfer_size is refused", too_large_read),
    VARIATION("dma-huge-read", "VU-DMA-9", "a DMA_READ of 2^40 bytes is refused", huge_read),
    FAULT("dma-large-write", "VU-DMA-9", "a DMA_WRITE above max_data_xfer_size is refused", too_large_write),
    VARIATION("dma-data-missing", "VU-DMA-10", "a DMA_WRITE with too little data is refused", data_missing),
    VARIATION("dma-data-left", "VU-DMA-10", "a DMA_WRITE with too much data is refused", data_left),
    { .is = { NULL, NULL, NULL } },
};
