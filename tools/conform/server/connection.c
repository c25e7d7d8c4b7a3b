/* connection.c: VU-CON: messages in pieces, many at once, order. */
#include "irqs.h"
#include "scratch.h"

#include <sys/ioctl.h>
#include <time.h>

#include "../transcript.h"

#define BASE 0x10000000ull

static const uint32_t get_info[4] = { 16 };

/* --- In pieces --------------------------------------------------------------------------------------------------- */

/* A write and a read of the scratch register. */
static size_t two_commands(struct judge *j, uint8_t *bytes, unsigned n)
{
    size_t size = scratch_write(j, bytes, 1, 0, n);

    return size + scratch_read(bytes + size, 2);
}

static void want_two_replies(struct judge *j, unsigned n, const char *what)
{
    want_ok(j, ob_raw_reply(&j->raw, 1, OB_RAW_REGION_WRITE, NULL), what);
    want_scratch_reply(j, 2, n, what);
}

/* Cuts the two at each byte of a range; the server reads the first piece before the second is sent. */
static void split(struct judge *j, size_t first, size_t last)
{
    uint8_t bytes[SCRATCH_WRITE_SIZE + SCRATCH_READ_SIZE];
    char what[64];

    scratch_begin(j);
    for (size_t cut = first; cut <= last; cut++) {
        const size_t size = two_commands(j, bytes, (unsigned)cut);

        snprintf(what, sizeof(what), "a message in two pieces, the first of %zu bytes", cut);
        got(j, ob_raw_send(&j->raw, bytes, cut, NULL, 0), what);
        wait_taken(j);
        got(j, ob_raw_send(&j->raw, bytes + cut, size - cut, NULL, 0), what);
        want_two_replies(j, (unsigned)cut, what);
    }
}

static void split_header(struct judge *j)
{
    split(j, 1, 15);
}

static void split_payload(struct judge *j)
{
    split(j, 16, SCRATCH_WRITE_SIZE - 1);
}

static void split_bytes(struct judge *j)
{
    uint8_t bytes[SCRATCH_WRITE_SIZE + SCRATCH_READ_SIZE];
    size_t size;

    scratch_begin(j);
    size = two_commands(j, bytes, 5);
    for (size_t at = 0; at < size; at++) {
        got(j, ob_raw_send(&j->raw, bytes + at, 1, NULL, 0), "messages byte by byte");
        wait_taken(j);
    }
    want_two_replies(j, 5, "messages byte by byte");
}

static size_t build_version(uint8_t *bytes)
{
    uint8_t payload[512] = { 0 };
    const size_t size = strlen(judge_capabilities) + 1;

    memcpy(payload + 4, judge_capabilities, size);
    return ob_raw_build(bytes, 7, OB_RAW_VERSION, 0, payload, 4 + size);
}

static void want_session(struct judge *j, const char *what)
{
    want_ok(j, ob_raw_reply(&j->raw, 7, OB_RAW_VERSION, NULL), what);
    j->target->session = true;
}

/* Servers negotiate in code of its own. */
static void split_version(struct judge *j)
{
    uint8_t bytes[16 + 512];
    const size_t size = build_version(bytes);

    for (size_t at = 0; at < size; at++) {
        got(j, ob_raw_send(&j->raw, bytes + at, 1, NULL, 0), "VERSION byte by byte");
        if (at < 24 || at + 8 >= size)
            wait_taken(j);
    }
    want_session(j, "VERSION byte by byte");
    want_alive(j, "after VERSION byte by byte");
}

static void behind_version(struct judge *j)
{
    uint8_t bytes[16 + 512 + 32];
    size_t size = build_version(bytes);

    size += ob_raw_build(bytes + size, 8, OB_RAW_GET_INFO, 0, get_info, sizeof(get_info));
    send_bytes(j, bytes, size, NULL, 0);
    want_session(j, "VERSION with GET_INFO behind it");
    want_ok(j, ob_raw_reply(&j->raw, 8, OB_RAW_GET_INFO, NULL), "GET_INFO in one segment with VERSION");
}

/* What is complete is executed though the next has begun. */
static void split_second(struct judge *j)
{
    static const size_t cuts[] = { 1, 15, 16, 17, 31 };
    uint8_t bytes[SCRATCH_WRITE_SIZE + SCRATCH_READ_SIZE];

    scratch_begin(j);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        const size_t size = two_commands(j, bytes, (unsigned)i), first = SCRATCH_WRITE_SIZE + cuts[i];

        send_bytes(j, bytes, first, NULL, 0);
        want_ok(j, ob_raw_reply(&j->raw, 1, OB_RAW_REGION_WRITE, NULL), "a message with a part of the next behind it");
        got(j, ob_raw_send(&j->raw, bytes + first, size - first, NULL, 0), "the message whose parts came apart");
        want_scratch_reply(j, 2, (unsigned)i, "the message whose parts came apart");
    }
}

/* Messages larger than any segment, which the server begins to read before they are there. They go beyond configuration
 * space, and are refused. */
static void split_large(struct judge *j)
{
    static const uint32_t sizes[] = { 65536, 262144 - 32, 262145, 1048576 };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const struct ob_raw_region access = { 0, VFIO_PCI_CONFIG_REGION_INDEX, sizes[i] };
        const size_t size = 16 + sizeof(access) + sizes[i];
        uint8_t *bytes = judge_alloc(j, size);

        if (sizes[i] > j->facts.max_data)
            continue;
        ob_raw_build(bytes, 3, OB_RAW_REGION_WRITE, 0, &access, sizeof(access));
        memcpy(bytes + 4, &(uint32_t){ (uint32_t)size }, 4);
        for (size_t at = 0; at < size; at += 65536) {
            send_bytes(j, bytes + at, size - at < 65536 ? size - at : 65536, NULL, 0);
            wait_taken(j);
        }
        got(j, ob_raw_reply(&j->raw, 3, OB_RAW_REGION_WRITE, NULL), "a large message");
        want_alive(j, "after a large message");
    }
}

/* --- Many -------------------------------------------------------------------------------------------------------- */

/* Below 32 KiB, which Linux sends as one segment. */
static void many_in_segment(struct judge *j)
{
    const unsigned pairs = 400;
    uint8_t *bytes = judge_alloc(j, pairs * (SCRATCH_WRITE_SIZE + SCRATCH_READ_SIZE));
    size_t size = 0;

    scratch_begin(j);
    for (unsigned i = 0; i < pairs; i++) {
        size += scratch_write(j, bytes + size, (uint16_t)(2 * i), i % 3 == 0 ? OB_RAW_NO_REPLY : 0, i);
        size += scratch_read(bytes + size, (uint16_t)(2 * i + 1));
    }
    send_bytes(j, bytes, size, NULL, 0);
    for (unsigned i = 0; i < pairs; i++) {
        if (i % 3 != 0)
            want_ok(j, ob_raw_reply(&j->raw, (uint16_t)(2 * i), OB_RAW_REGION_WRITE, NULL), "a write, one of many");
        want_scratch_reply(j, (uint16_t)(2 * i + 1), i, "a read, one of many");
    }
    want_alive(j, "after 800 messages in one segment");
}

static void pipeline(struct judge *j)
{
    const unsigned deep = 2000;
    uint8_t *bytes = judge_alloc(j, deep * 32);
    size_t size = 0;

    for (unsigned i = 0; i < deep; i++)
        size += ob_raw_build(bytes + size, (uint16_t)i, OB_RAW_GET_INFO, 0, get_info, sizeof(get_info));
    send_bytes(j, bytes, size, NULL, 0);
    for (unsigned i = 0; i < deep; i++)
        want_ok(j, ob_raw_reply(&j->raw, (uint16_t)i, OB_RAW_GET_INFO, NULL), "GET_INFO, one of 2000 without waiting");
}

/* --- Order ------------------------------------------------------------------------------------------------------- */

static void order_of_maps(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const struct ob_raw_dma_unmap unmap = { 24, 0, BASE, j->facts.page };
    static const bool is_map[] = { true, false, false, true, false, false, true, false, false, true };
    static const bool succeeds[] = { true, true, false, true, true, false, true, true, false, true };
    const unsigned n = sizeof(is_map) / sizeof(*is_map);
    uint8_t bytes[sizeof(is_map) * 48];
    size_t size = 0;

    for (unsigned i = 0; i < n; i++)
        size += is_map[i] ? ob_raw_build(bytes + size, (uint16_t)i, OB_RAW_DMA_MAP, 0, &map, sizeof(map))
                          : ob_raw_build(bytes + size, (uint16_t)i, OB_RAW_DMA_UNMAP, 0, &unmap, sizeof(unmap));
    send_bytes(j, bytes, size, NULL, 0);
    for (unsigned i = 0; i < n; i++) {
        const uint16_t command = is_map[i] ? OB_RAW_DMA_MAP : OB_RAW_DMA_UNMAP;
        int r = got(j, ob_raw_reply(&j->raw, (uint16_t)i, command, NULL), "one of several maps and unmaps");

        want(j, (r == 0) == succeeds[i], "%s, number %u of map, unmap, unmap, map, unmap, unmap...: %s",
             command_name(command), i + 1, r == 0 ? "succeeded" : strerror(r));
    }
}

static void order_of_registers(struct judge *j)
{
    uint8_t bytes[64 * (SCRATCH_WRITE_SIZE + SCRATCH_READ_SIZE)];
    size_t size = 0;

    scratch_begin(j);
    for (unsigned i = 0; i < 64; i++)
        size += two_commands(j, bytes + size, i);
    send_bytes(j, bytes, size, NULL, 0);
    for (unsigned i = 0; i < 64; i++)
        want_two_replies(j, i, "a write and a read behind it");
}

static void posted_register(struct judge *j)
{
    uint8_t bytes[8 * SCRATCH_WRITE_SIZE + SCRATCH_READ_SIZE];

    scratch_begin(j);
    for (unsigned turn = 0; turn < 16; turn++) {
        size_t size = 0;

        for (unsigned i = 0; i < 8; i++)
            size += scratch_write(j, bytes + size, 1, OB_RAW_NO_REPLY, turn + i);
        size += scratch_read(bytes + size, 2);
        send_bytes(j, bytes, size, NULL, 0);
        want_scratch_reply(j, 2, turn + 7, "a read behind posted writes");
    }
}

static void posted_interrupt(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const struct vfio_irq_set set = { .argsz = sizeof(set), .flags = NONE | TRIGGER, .index = index, .count = 1 };
    int fd = judge_eventfd(j);

    irqs_on(j, index);
    irqs_assign(j, index, 0, 1, &fd);
    irqs_needs_loopback(j, index);
    irqs_trigger(j, index, 0, 1); /* whatever was pending is signalled now */
    signals(j, fd);
    post(j, OB_RAW_SET_IRQS, &set, sizeof(set), NULL, 0);
    want_alive(j, "GET_INFO behind a posted SET_IRQS");
    want(j, signals(j, fd) == 1, "a posted trigger had not signalled when the command behind it was answered");
}

static void posted_memory(struct judge *j)
{
    const struct region_facts *r = &j->facts.region[j->facts.mappable];
    struct vfio_region_info get = { .argsz = r->argsz, .index = j->facts.mappable };
    struct {
        struct ob_raw_region access;
        uint64_t value;
    } write = { { r->area_offset, j->facts.mappable, 8 }, 0 };
    struct ob_raw_message *m;
    volatile uint64_t *memory;
    uint64_t was;

    want_ok(j, call(j, OB_RAW_GET_REGION_INFO, &get, sizeof(get), NULL, 0, &m), "GET_REGION_INFO");
    want(j, m->nfds > 0, "no descriptor came with the region");
    memory = judge_mmap(j, m->fds[0], r->area_size, r->offset + r->area_offset, 3);
    was = memory[0];
    for (uint64_t i = 1; i <= 16; i++) {
        write.value = was ^ i;
        post(j, OB_RAW_REGION_WRITE, &write, sizeof(write), NULL, 0);
        want_alive(j, "GET_INFO behind a posted write");
        want(j, memory[0] == write.value, "a posted write was not done when the command behind it was answered");
    }
    memory[0] = was;
}

static void order_of_replies(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const struct ob_raw_dma_unmap unmap = { 24, 0, BASE, j->facts.page };
    const struct vfio_irq_info irq = { .argsz = 16 };
    const struct vfio_region_info region = { .argsz = 32 };
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 64 }, nowhere = { 0, 0xffff, 4 };
    const struct {
        uint16_t command;
        const void *payload;
        size_t size;
    } all[] = { { OB_RAW_GET_REGION_INFO, &region, sizeof(region) },
                { 14, NULL, 0 },
                { OB_RAW_DMA_MAP, &map, sizeof(map) },
                { OB_RAW_GET_INFO, get_info, sizeof(get_info) },
                { OB_RAW_REGION_READ, &read, sizeof(read) },
                { OB_RAW_DMA_MAP, &map, sizeof(map) },
                { OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap) },
                { OB_RAW_GET_IRQ_INFO, &irq, 16 },
                { OB_RAW_REGION_READ, &nowhere, sizeof(nowhere) },
                { OB_RAW_GET_INFO, get_info, sizeof(get_info) } };
    const unsigned n = sizeof(all) / sizeof(*all);

    for (unsigned turn = 0; turn < 8; turn++) {
        const uint16_t first = j->raw.next_id;

        for (unsigned i = 0; i < n; i++)
            send_command(j, all[i].command, 0, all[i].payload, all[i].size);
        for (unsigned i = 0; i < n; i++) {
            const struct ob_raw_message *reply = receive(j, "one of ten commands");

            want(j, reply->header.id == (uint16_t)(first + i) && reply->header.command == all[i].command,
                 "reply %u of ten is that to command %u, %s", i + 1, (uint16_t)(reply->header.id - first) + 1u,
                 command_name(reply->header.command));
        }
    }
}

/* As QEMU maps its memory. */
static void order_of_map_replies(struct judge *j)
{
    const unsigned n = 32;
    int fd = judge_memfd(j, n * j->facts.page);
    const uint16_t first = j->raw.next_id;

    for (unsigned i = 0; i < n; i++) {
        const struct ob_raw_dma_map map = { 32, 3, i * j->facts.page, BASE + 2 * i * j->facts.page, j->facts.page };
        const bool with = i % 2 == 0;

        got(j, ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &map, sizeof(map), &fd, with, NULL), "sending DMA_MAP");
    }
    for (unsigned i = 0; i < n; i++)
        want_ok(j, ob_raw_reply(&j->raw, (uint16_t)(first + i), OB_RAW_DMA_MAP, NULL), "DMA_MAP, one of 32");
}

/* --- Replies' segments ------------------------------------------------------------------------------------------- */

/* Until no more bytes arrive: the server has no room, or nothing to send. */
static void wait_full(struct judge *j)
{
    int before = -1, now = 0;

    for (int quiet = 0, waited = 0; quiet < 3 && waited < 100; waited++) {
        ioctl(j->raw.fd, FIONREAD, &now);
        quiet = now == before ? quiet + 1 : 0;
        before = now;
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

/* More replies than fit into the socket, of sizes by which their headers come to lie anywhere. The raw client takes no
 * header in two pieces. */
static void whole_headers(struct judge *j)
{
    const uint32_t most = (uint32_t)j->facts.region[VFIO_PCI_CONFIG_REGION_INDEX].size;
    const unsigned n = 8192 * 64 / (most + 32);
    const uint16_t first = j->raw.next_id;

    for (unsigned i = 0; i < n; i++) {
        const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, most - 4 * (i % 7) };

        send_command(j, OB_RAW_REGION_READ, 0, &read, sizeof(read));
    }
    wait_full(j);
    for (unsigned i = 0; i < n; i++)
        want_ok(j, ob_raw_reply(&j->raw, (uint16_t)(first + i), OB_RAW_REGION_READ, NULL),
                "a read whose reply had to wait for room");
}

const struct check server_connection_checks[] = {
    { { "connection-split-header", "VU-CON-3", "a message may arrive in two pieces, cut anywhere in its header" },
      0,
      split_header },
    { { "connection-split-payload", "VU-CON-3", "so it may, cut anywhere in its payload" }, 0, split_payload },
    { { "connection-split-bytes", "VU-CON-3", "messages may arrive byte by byte" }, 0, split_bytes },
    { { "connection-split-version", "VU-CON-3", "so may VERSION" }, CHECK_BARE, split_version },
    { { "connection-split-second", "VU-CON-3", "a message is executed while a part of the next is there" },
      0,
      split_second },
    { { "connection-split-large", "VU-CON-3", "messages of up to 1 MiB, in many pieces, are followed" },
      0,
      split_large },
    { { "connection-many", "VU-CON-4", "800 messages in one segment are all executed" }, 0, many_in_segment },
    { { "connection-behind-version", "VU-CON-4", "a command in one segment with VERSION is executed" },
      CHECK_BARE,
      behind_version },
    { { "connection-pipeline", "VU-CON-6", "2000 commands are answered without waiting for each" }, 0, pipeline },
    { { "connection-order-maps", "VU-CON-6", "maps and unmaps of one range are executed in order" },
      NEED_MAPS,
      order_of_maps },
    { { "connection-order-registers", "VU-CON-6", "writes and reads of a register are executed in order" },
      0,
      order_of_registers },
    { { "connection-posted-register", "VU-CON-7", "a read sees the posted writes before it" }, 0, posted_register },
    { { "connection-posted-interrupt", "VU-CON-7",
        "a posted trigger has signalled when a younger command is answered" },
      NEED_IRQ,
      posted_interrupt },
    { { "connection-posted-memory", "VU-CON-7", "a posted write is in memory when a younger command is answered" },
      NEED_MEMORY,
      posted_memory },
    { { "connection-order-replies", "VU-CON-8", "replies of all kinds, refusals too, are in the order of commands" },
      0,
      order_of_replies },
    { { "connection-order-map-replies", "VU-CON-8", "replies to maps with and without descriptors are in order" },
      0,
      order_of_map_replies },
    { { "connection-whole-headers", "VU-CON-21", "no header is split though replies have to wait for room" },
      0,
      whole_headers },
    { { NULL, NULL, NULL }, 0, NULL },
};
