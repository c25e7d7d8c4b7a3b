/* version_limits.c: VU-VER: the limits that both sides announced, and that they hold. */
#include "guest.h"
#include "irqs.h"
#include "version.h"

#include "../transcript.h"

#define BASE 0x10000000ull

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

static void most_fds(struct judge *j)
{
    const json_t *value = capability(j, negotiate(j, "\"max_msg_fds\":16"), "max_msg_fds");

    want(j, value == NULL || json_integer_value(value) <= 16, "max_msg_fds is %lld, wanted at most 16",
         (long long)json_integer_value(value));
}

/* The replies that may have descriptors. */
static void want_fds_at_most(struct judge *j, unsigned most, const char *what)
{
    for (uint32_t i = 0; i < j->facts.regions && i < MAX_REGIONS; i++) {
        const struct vfio_region_info info = { .argsz = 4096, .index = i };
        const struct ob_raw_io_fds io_fds = { .argsz = 4096, .index = i };
        struct ob_raw_message *m;

        if (call(j, OB_RAW_GET_REGION_INFO, &info, sizeof(info), NULL, 0, &m) == 0)
            want(j, m->nfds <= most, "%s, and %u descriptors came with region %u", what, m->nfds, i);
        if (j->facts.region[i].io_fds && call(j, OB_RAW_GET_REGION_IO_FDS, &io_fds, sizeof(io_fds), NULL, 0, &m) == 0)
            want(j, m->nfds <= most, "%s, and %u descriptors came with those of region %u", what, m->nfds, i);
    }
}

static void one_fd(struct judge *j)
{
    negotiate(j, "\"max_msg_fds\":1");
    want_fds_at_most(j, 1, "the client takes 1 descriptor");
}

static void default_fds(struct judge *j)
{
    negotiate(j, "\"pgsizes\":4096");
    want_fds_at_most(j, 1, "the client did not say how many descriptors it takes, that is 1");
}

static void no_fds(struct judge *j)
{
    negotiate(j, "\"max_msg_fds\":0");
    want_alive(j, "GET_INFO by a client that takes no descriptors");
    want_fds_at_most(j, 0, "the client takes no descriptors");
}

static void no_fds_no_twin(struct judge *j)
{
    const struct ob_raw_message *reply = negotiate(j, "\"max_msg_fds\":0,\"twin_socket\":{\"supported\":true}");

    want(j, reply->nfds == 0, "the client takes no descriptors, and %u came with VERSION", reply->nfds);
    want_alive(j, "GET_INFO by a client that takes no descriptors");
}

static void no_fds_memory(struct judge *j)
{
    const struct region_facts *r = &j->facts.region[j->facts.mappable];
    uint64_t was, is;

    negotiate(j, "\"max_msg_fds\":0");
    was = bar_read(j, j->facts.mappable, r->area_offset, 8);
    bar_write(j, j->facts.mappable, r->area_offset, 8, ~was);
    is = bar_read(j, j->facts.mappable, r->area_offset, 8);
    bar_write(j, j->facts.mappable, r->area_offset, 8, was);
    want(j, is == ~was, "a client that takes no descriptors wrote to memory by message, and read something else");
}

/* The escaped key is the same key: a value that is refused with one is refused with the other. */
static void escaped_key(struct judge *j)
{
    const char plain[] = "{\"capabilities\":{\"max_msg_fds\":\"x\"}}";
    const char escaped[] = "{\"capabilities\":{\"max\\u005fmsg_fds\":\"x\"}}";

    if (negotiate_bytes(j, plain, sizeof(plain)) == 0)
        judge_skip(j, "a max_msg_fds that is no number is taken");
    want(j, negotiate_bytes(j, escaped, sizeof(escaped)) != 0,
         "max\\u005fmsg_fds is max_msg_fds; \"x\" is refused as the value of one, and taken as that of the other");
}

/* As many eventfds in a message as the server takes. */
static void takes_fds(struct judge *j)
{
    const unsigned most = j->facts.max_msg_fds < 253 ? j->facts.max_msg_fds : 253;
    const uint32_t index = irqs_several(j);
    int fds[253];

    if (most == 0 || j->facts.irq[index].count < most)
        judge_skip(j, "no interrupt type has as many vectors as a message may have descriptors, %u", most);
    for (unsigned i = 0; i < most; i++)
        fds[i] = judge_eventfd(j);
    irqs_on(j, index);
    irqs_assign(j, index, 0, most, fds);
    for (unsigned i = 0; i < most; i++) {
        irqs_trigger(j, index, i, 1);
        want_signal(j, fds[i], "one of max_msg_fds eventfds");
    }
}

/* --- Data -------------------------------------------------------------------------------------------------------- */

/* A copy for a client with such a max_data_xfer_size, from or to memory without a descriptor: the largest count. */
static uint64_t copied_in_pieces(struct judge *j, unsigned most, bool from_shared, bool to_shared)
{
    char capabilities[64];
    const uint32_t len = 8 * most;
    struct guest_map *from, *to;

    snprintf(capabilities, sizeof(capabilities), "\"max_data_xfer_size\":%u", most);
    negotiate(j, capabilities);
    device_on(j, true);
    from = guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, from_shared);
    to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, to_shared);
    guest_fill(from->bytes, len, 3);
    transfer_ok(j, GUEST_FROM, GUEST_TO, len, "in pieces");
    want(j, guest_filled(to->bytes, len, 3), "what the device copied in pieces is not what it read");
    return j->guest->largest;
}

static void dma_read_count(struct judge *j)
{
    const uint64_t largest = copied_in_pieces(j, 512, false, true);

    want(j, largest <= 512, "max_data_xfer_size is 512, and a DMA_READ asked for %llu bytes",
         (unsigned long long)largest);
}

static void dma_write_count(struct judge *j)
{
    const uint64_t largest = copied_in_pieces(j, 512, true, false);

    want(j, largest <= 512, "max_data_xfer_size is 512, and a DMA_WRITE brought %llu bytes",
         (unsigned long long)largest);
}

static void dma_odd_count(struct judge *j)
{
    const uint64_t largest = copied_in_pieces(j, 100, false, false);

    want(j, largest <= 100, "max_data_xfer_size is 100, and %llu bytes were transferred at once",
         (unsigned long long)largest);
}

static int negotiate_nothing(struct judge *j)
{
    const char text[] = "{\"capabilities\":{\"max_data_xfer_size\":0}}";

    return negotiate_bytes(j, text, sizeof(text));
}

static void no_data(struct judge *j)
{
    if (negotiate_nothing(j) == 0) {
        want_alive(j, "GET_INFO with max_data_xfer_size 0");
        config_read(j, 0, 4);
    }
    judge_reconnect(j);
}

/* It need not be negotiated; if it is, no DMA comes, also if the device is asked for some. */
static void no_data_no_dma(struct judge *j)
{
    if (negotiate_nothing(j) == 0) {
        guest_pair(j, false);
        transfer(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
        want(j, j->guest->reads + j->guest->writes == 0, "max_data_xfer_size is 0, and there was DMA");
    }
    judge_reconnect(j);
}

static void largest_transfer(struct judge *j, uint16_t command)
{
    const struct region_facts *r = &j->facts.region[j->facts.mappable];
    const struct ob_raw_region access = { r->area_offset, j->facts.mappable, j->facts.max_data };
    struct ob_raw_message *was, *reply;
    uint8_t *payload;

    if (r->area_size < j->facts.max_data)
        judge_skip(j, "no memory that can be mapped has max_data_xfer_size, %u bytes", j->facts.max_data);
    want_ok(j, call(j, OB_RAW_REGION_READ, &access, sizeof(access), NULL, 0, &was),
            "REGION_READ of max_data_xfer_size bytes");
    want(j, was->size == sizeof(access) + access.count, "REGION_READ of max_data_xfer_size, %u bytes, returned %zu",
         access.count, was->size - sizeof(access));
    if (command == OB_RAW_REGION_READ)
        return;
    payload = judge_alloc(j, was->size);
    memcpy(payload, was->payload, was->size);
    for (uint32_t i = 0; i < access.count; i++)
        payload[sizeof(access) + i] ^= 0xff;
    want_ok(j, call(j, command, payload, was->size, NULL, 0, NULL), "REGION_WRITE of max_data_xfer_size bytes");
    want_ok(j, call(j, OB_RAW_REGION_READ, &access, sizeof(access), NULL, 0, &reply), "REGION_READ");
    want_ok(j, call(j, command, was->payload, was->size, NULL, 0, NULL), "REGION_WRITE of what was there");
    want(j, reply->size == was->size && memcmp(reply->payload, payload, was->size) == 0,
         "REGION_WRITE of max_data_xfer_size bytes wrote something else");
}

static void largest_read(struct judge *j)
{
    largest_transfer(j, OB_RAW_REGION_READ);
}

static void largest_write(struct judge *j)
{
    largest_transfer(j, OB_RAW_REGION_WRITE);
}

static void largest_saving(struct judge *j)
{
    uint32_t set[4] = { 16, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_SET,
                        VFIO_DEVICE_STATE_STOP_COPY };
    const struct ob_raw_mig_data read = { 8 + j->facts.max_data, j->facts.max_data };
    int r;

    if (j->facts.max_data > 64u << 20)
        judge_skip(j, "max_data_xfer_size is above 64 MiB");
    want_ok(j, call(j, OB_RAW_FEATURE, set, sizeof(set), NULL, 0, NULL), "SET of STOP_COPY");
    r = call(j, OB_RAW_MIG_READ, &read, sizeof(read), NULL, 0, NULL);
    if (r == -ENOTCONN)
        judge_reconnect(j);
    set[2] = VFIO_DEVICE_STATE_RUNNING;
    call(j, OB_RAW_FEATURE, set, sizeof(set), NULL, 0, NULL);
    want_ok(j, r, "MIG_DATA_READ of max_data_xfer_size bytes");
}

/* --- Maps -------------------------------------------------------------------------------------------------------- */

/* All of one file, which costs some servers a mapping each. */
static void as_many_maps(struct judge *j)
{
    const uint32_t most = j->facts.max_maps;
    const uint64_t page = j->facts.page;
    if (most > 65535)
        judge_skip(j, "the server takes more than 65535 maps");
    for (uint32_t done = 0; done < most;) {
        const uint32_t step = most - done < 256 ? most - done : 256;
        const uint16_t first = j->raw.next_id;

        for (uint32_t i = 0; i < step; i++) {
            const struct ob_raw_dma_map map = { 32, 3, 0, (done + i) * 2 * page, page };

            got(j, ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &map, sizeof(map), NULL, 0, NULL), "sending DMA_MAP");
        }
        for (uint32_t i = 0; i < step; i++) {
            int r = ob_raw_reply(&j->raw, (uint16_t)(first + i), OB_RAW_DMA_MAP, NULL);

            want(j, got(j, r, "DMA_MAP") == 0, "map number %u of %u that were announced was refused: %s", done + i + 1,
                 most, strerror(r));
        }
        done += step;
    }
}

/* A page of each size, at an address and of a size that no larger one divides. */
static void each_page_size(struct judge *j)
{
    const json_t *value = capability(j, negotiate(j, "\"pgsizes\":1075843072"), "pgsizes"); /* 4K, 2M, 1G */
    const uint64_t pages = json_is_integer(value) ? (uint64_t)json_integer_value(value) : 4096;

    want(j, pages != 0, "pgsizes is 0");
    for (unsigned bit = 0; bit <= 40; bit++) {
        const uint64_t page = UINT64_C(1) << bit;
        char what[80];

        if (!(pages & page))
            continue;
        snprintf(what, sizeof(what), "DMA_MAP of a page of %#llx bytes, which are in pgsizes",
                 (unsigned long long)page);
        want_ok(j, map(j, (UINT64_C(1) << 41) + page, page, 3, -1, 0), what);
        want_ok(j, unmap(j, (UINT64_C(1) << 41) + page, page), "DMA_UNMAP of it");
    }
}

const struct check server_version_limits_checks[] = {
    { { "version-most-fds", "VU-VER-21", "max_msg_fds is at most 16" }, CHECK_UNCONNECTED, most_fds },
    { { "version-one-fd", "VU-VER-19", "a client that takes one descriptor gets one at most" },
      CHECK_UNCONNECTED,
      one_fd },
    { { "version-default-fds", "VU-VER-19", "so does a client that does not say" }, CHECK_UNCONNECTED, default_fds },
    { { "version-no-fds", "VU-VER-20", "a client that takes no descriptors gets none" }, CHECK_UNCONNECTED, no_fds },
    { { "version-no-fds-twin", "VU-VER-20", "not even for a twin socket" }, CHECK_UNCONNECTED, no_fds_no_twin },
    { { "version-no-fds-memory", "VU-VER-20", "and reaches memory by messages" },
      CHECK_UNCONNECTED | NEED_MEMORY,
      no_fds_memory },
    { { "version-escaped-key", "VU-VER-3", "a key with an escaped character is that key" },
      CHECK_UNCONNECTED,
      escaped_key },
    { { "version-takes-fds", "VU-VER-38", "a message may have max_msg_fds descriptors" }, NEED_VECTORS, takes_fds },
    { { "version-dma-read-count", "VU-VER-23", "a DMA_READ is not above the client's max_data_xfer_size" },
      CHECK_UNCONNECTED | NEED_DMA,
      dma_read_count },
    { { "version-dma-write-count", "VU-VER-23", "nor is a DMA_WRITE" }, CHECK_UNCONNECTED | NEED_DMA, dma_write_count },
    { { "version-dma-odd-count", "VU-VER-23", "nor are both if it is 100" },
      CHECK_UNCONNECTED | NEED_DMA,
      dma_odd_count },
    { { "version-data-zero", "VU-VER-25", "max_data_xfer_size 0 is refused, or there is a session" },
      CHECK_UNCONNECTED,
      no_data },
    { { "version-data-zero-dma", "VU-VER-25", "without DMA" }, CHECK_UNCONNECTED | NEED_DMA, no_data_no_dma },
    { { "version-largest-read", "VU-VER-24", "max_data_xfer_size bytes can be read at once" },
      NEED_MAPPABLE,
      largest_read },
    { { "version-largest-write", "VU-VER-24", "and written" }, NEED_MAPPABLE, largest_write },
    { { "version-largest-saving", "VU-VER-24", "and asked for of a migration's stream" },
      NEED_MIGRATION,
      largest_saving },
    { { "version-as-many-maps", "VU-VER-27", "max_dma_maps maps exist at a time" }, 0, as_many_maps },
    { { "version-page-sizes", "VU-VER-36", "a page of each of pgsizes can be mapped" },
      CHECK_UNCONNECTED,
      each_page_size },
    { { NULL, NULL, NULL }, 0, NULL },
};
