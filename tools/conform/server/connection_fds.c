/* connection_fds.c: VU-CON: descriptors: whose they are, and that none is left behind. */
#include "irqs.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "../transcript.h"

#define BASE     0x10000000ull
#define MOST_FDS 253u /* that Linux sends at once */

static const uint32_t get_info[4] = { 16 };

/* Assigns eventfds, which come with it. */
static struct vfio_irq_set assign_command(uint32_t index, uint32_t count)
{
    return (struct vfio_irq_set){
        .argsz = sizeof(struct vfio_irq_set), .flags = EVENTFD | TRIGGER, .index = index, .count = count
    };
}

/* --- On which byte ----------------------------------------------------------------------------------------------- */

/* Gives vector 0 an eventfd that arrives with the bytes [from, to) of its message, and triggers it. */
static void descriptor_at(struct judge *j, size_t from, size_t to)
{
    const uint32_t index = irqs_any(j);
    const struct vfio_irq_set set = assign_command(index, 1);
    uint8_t bytes[16 + sizeof(set)];
    const size_t size = ob_raw_build(bytes, 0x51, OB_RAW_SET_IRQS, 0, &set, sizeof(set));
    int fd = judge_eventfd(j);
    char what[80];

    irqs_on(j, index);
    snprintf(what, sizeof(what), "SET_IRQS whose descriptor came with bytes %zu to %zu of %zu", from, to - 1, size);
    if (from > 0) {
        got(j, ob_raw_send(&j->raw, bytes, from, NULL, 0), what);
        wait_taken(j);
    }
    got(j, ob_raw_send(&j->raw, bytes + from, to - from, &fd, 1), what);
    wait_taken(j);
    if (to < size)
        got(j, ob_raw_send(&j->raw, bytes + to, size - to, NULL, 0), what);
    want_ok(j, ob_raw_reply(&j->raw, 0x51, OB_RAW_SET_IRQS, NULL), what);
    irqs_needs_loopback(j, index);
    irqs_trigger(j, index, 0, 1);
    want_signal(j, fd, what);
}

static void with_first_byte(struct judge *j)
{
    descriptor_at(j, 0, 1);
}

static void with_header(struct judge *j)
{
    descriptor_at(j, 0, 16);
}

static void in_header(struct judge *j)
{
    descriptor_at(j, 7, 9);
}

static void in_payload(struct judge *j)
{
    descriptor_at(j, 16, 26);
}

static void with_last_byte(struct judge *j)
{
    descriptor_at(j, 35, 36);
}

/* Two descriptors of one message on two of its bytes. */
static void in_two_pieces(struct judge *j)
{
    const uint32_t index = irqs_several(j);
    const struct vfio_irq_set set = assign_command(index, 2);
    const int fds[2] = { judge_eventfd(j), judge_eventfd(j) };
    uint8_t bytes[16 + sizeof(set)];

    if (j->facts.max_msg_fds < 2)
        judge_skip(j, "the server takes one descriptor a message");
    irqs_on(j, index);
    ob_raw_build(bytes, 0x52, OB_RAW_SET_IRQS, 0, &set, sizeof(set));
    send_bytes(j, bytes, 16, &fds[0], 1);
    wait_taken(j);
    send_bytes(j, bytes + 16, sizeof(set), &fds[1], 1);
    want_ok(j, ob_raw_reply(&j->raw, 0x52, OB_RAW_SET_IRQS, NULL), "SET_IRQS whose two descriptors came apart");
    irqs_needs_loopback(j, index);
    signals(j, fds[0]);
    for (unsigned i = 0; i < 2; i++) {
        irqs_trigger(j, index, i, 1);
        want_signal(j, fds[i], i == 0 ? "the first of two descriptors" : "the second of two descriptors");
        want(j, signals(j, fds[1 - i]) == 0, "the wrong one of two eventfds was signalled");
    }
}

/* Two messages in a row, each with a descriptor of its own. */
static void each_its_own(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const struct vfio_irq_set set = assign_command(index, 1);
    const int fds[2] = { judge_eventfd(j), judge_eventfd(j) };
    int memory = judge_memfd(j, j->facts.page);
    uint16_t first;

    irqs_on(j, index);
    first = j->raw.next_id;
    got(j, ob_raw_request(&j->raw, OB_RAW_SET_IRQS, 0, &set, sizeof(set), &fds[0], 1, NULL), "sending");
    got(j, ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &map, sizeof(map), &memory, 1, NULL), "sending");
    got(j, ob_raw_request(&j->raw, OB_RAW_SET_IRQS, 0, &set, sizeof(set), &fds[1], 1, NULL), "sending");
    want_ok(j, ob_raw_reply(&j->raw, first, OB_RAW_SET_IRQS, NULL), "SET_IRQS with an eventfd");
    want_ok(j, ob_raw_reply(&j->raw, (uint16_t)(first + 1), OB_RAW_DMA_MAP, NULL), "DMA_MAP with a memfd");
    want_ok(j, ob_raw_reply(&j->raw, (uint16_t)(first + 2), OB_RAW_SET_IRQS, NULL), "SET_IRQS with another eventfd");
    irqs_needs_loopback(j, index);
    irqs_trigger(j, index, 0, 1);
    want_signal(j, fds[1], "the descriptor of the last of three messages");
    want(j, signals(j, fds[0]) == 0, "the descriptor of the first of three messages was signalled");
}

/* --- None is left ------------------------------------------------------------------------------------------------ */

/* A descriptor that comes with a command is closed; how the command fares is for others to judge. If it succeeds though
 * it should not, the descriptor may be in use, `kept`, until the client goes. */
static void closed_unless(struct judge *j, bool kept, uint16_t command, uint32_t flags, const void *payload,
                          size_t size)
{
    const bool answered = !(flags & (OB_RAW_NO_REPLY | OB_RAW_REPLY));
    int mine, theirs, r;
    char what[96];
    uint16_t id;

    snprintf(what, sizeof(what), "a descriptor with %s of %zu bytes", command_name(command), size);
    judge_pair(j, &mine, &theirs);
    got(j, ob_raw_request(&j->raw, command, flags, payload, size, &theirs, 1, &id), what);
    judge_give(j, theirs);
    r = answered ? ob_raw_reply(&j->raw, id, command, NULL) : 0;
    if (r < 0 || (r == 0 && kept))
        judge_reconnect(j);
    want_hangup(j, mine, what);
}

static void closed_with(struct judge *j, uint16_t command, uint32_t flags, const void *payload, size_t size)
{
    closed_unless(j, false, command, flags, payload, size);
}

static void closed_map(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };

    closed_with(j, OB_RAW_DMA_MAP, 0, &map, sizeof(map));
    want_alive(j, "afterwards");
}

static void closed_overlap(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int watch, fd = judge_watched_file(j, 2 * page, &watch);

    want_ok(j, map(j, BASE, page, 3, -1, 0), "DMA_MAP");
    if (map(j, BASE, 2 * page, 3, fd, 0) == 0)
        judge_skip(j, "a DMA_MAP over another succeeds");
    judge_give(j, fd);
    want_released(j, watch, "a file that came with a DMA_MAP over another");
}

static void closed_set_irqs(struct judge *j)
{
    struct vfio_irq_set set = assign_command(j->facts.irqs, 1); /* which does not exist */

    closed_unless(j, true, OB_RAW_SET_IRQS, 0, &set, sizeof(set));
    set.index = 0;
    set.count = UINT32_MAX;
    closed_unless(j, true, OB_RAW_SET_IRQS, 0, &set, sizeof(set));
    set.count = 1;
    set.flags = NONE | TRIGGER; /* which has no descriptor */
    closed_unless(j, true, OB_RAW_SET_IRQS, 0, &set, sizeof(set));
}

static void closed_info(struct judge *j)
{
    const struct vfio_region_info region = { .argsz = 32 };
    const struct vfio_irq_info irq = { .argsz = 16 };
    const struct ob_raw_io_fds io_fds = { .argsz = 16 };

    closed_with(j, OB_RAW_GET_INFO, 0, get_info, 16);
    closed_with(j, OB_RAW_GET_REGION_INFO, 0, &region, sizeof(region));
    closed_with(j, OB_RAW_GET_REGION_IO_FDS, 0, &io_fds, sizeof(io_fds));
    closed_with(j, OB_RAW_GET_IRQ_INFO, 0, &irq, 16);
}

static void closed_access(struct judge *j)
{
    const struct {
        struct ob_raw_region access;
        uint32_t ids; /* as they are */
    } write = { { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 }, config_read(j, 0, 4) };
    const uint64_t none = 0;

    closed_with(j, OB_RAW_REGION_READ, 0, &write.access, sizeof(write.access));
    closed_with(j, OB_RAW_REGION_WRITE, 0, &write, sizeof(write.access) + 4);
    closed_with(j, OB_RAW_REGION_WRITE, 0, &write.access, sizeof(write.access)); /* lacks its data */
    closed_with(j, OB_RAW_WRITE_MULTI, 0, &none, sizeof(none));
}

static void closed_feature(struct judge *j)
{
    const uint32_t get[2] = { 16, VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET };
    const struct ob_raw_mig_data data = { 16, 8 };

    closed_with(j, OB_RAW_FEATURE, 0, get, sizeof(get));
    closed_with(j, OB_RAW_MIG_READ, 0, &data, sizeof(data));
    closed_with(j, OB_RAW_MIG_WRITE, 0, &data, sizeof(data));
}

static void closed_reset(struct judge *j)
{
    closed_with(j, OB_RAW_RESET, 0, NULL, 0);
}

static void closed_unknown(struct judge *j)
{
    closed_with(j, 0xffff, 0, NULL, 0);
    closed_with(j, 14, 0, get_info, 16);
}

/* A server that waits for the rest may keep it so long. */
static void closed_truncated(struct judge *j)
{
    closed_with(j, OB_RAW_DMA_MAP, 0, get_info, 16);
    closed_with(j, OB_RAW_SET_IRQS, 0, get_info, 16);
    closed_with(j, OB_RAW_GET_INFO, 0, NULL, 0);
}

static void closed_posted(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };

    const struct vfio_irq_set set = assign_command(j->facts.irqs, 1);

    closed_with(j, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &map, sizeof(map));
    closed_with(j, OB_RAW_SET_IRQS, OB_RAW_NO_REPLY, &set, sizeof(set));
    closed_with(j, 14, OB_RAW_NO_REPLY, NULL, 0);
}

static void closed_reply(struct judge *j)
{
    closed_with(j, OB_RAW_DMA_READ, OB_RAW_REPLY, get_info, 16);
    closed_with(j, OB_RAW_GET_INFO, OB_RAW_REPLY, get_info, 16);
}

static void closed_version(struct judge *j)
{
    const uint16_t version[2] = { 0, 0 };
    int mine, theirs, r;

    judge_pair(j, &mine, &theirs);
    r = call(j, OB_RAW_VERSION, version, sizeof(version), &theirs, 1, NULL);
    judge_give(j, theirs);
    want(j, r >= 0 || r == -ENOTCONN, "VERSION with a descriptor: %s", strerror(-r));
    want_hangup(j, mine, "a descriptor with VERSION");
}

/* Both are refused or end the connection (VU-VER-2). */
static void closed_before_version(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    int mine, theirs, watch, fd = judge_watched_file(j, j->facts.page, &watch);

    call(j, OB_RAW_DMA_MAP, &map, sizeof(map), &fd, 1, NULL);
    judge_give(j, fd);
    want_released(j, watch, "a file that came with a DMA_MAP before VERSION");
    judge_reconnect_bare(j);
    judge_pair(j, &mine, &theirs);
    call(j, OB_RAW_GET_INFO, get_info, 16, &theirs, 1, NULL);
    judge_give(j, theirs);
    want_hangup(j, mine, "a descriptor with GET_INFO before VERSION");
}

static void closed_half(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    static const size_t cuts[] = { 1, 15, 16, 47 };
    uint8_t bytes[16 + sizeof(map)];
    int mine, theirs;

    ob_raw_build(bytes, 1, OB_RAW_DMA_MAP, 0, &map, sizeof(map));
    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        judge_pair(j, &mine, &theirs);
        send_bytes(j, bytes, cuts[i], &theirs, 1);
        judge_give(j, theirs);
        wait_taken(j);
        judge_reconnect(j);
        want_hangup(j, mine, "a descriptor with half a message, after which the client disconnected");
    }
}

static void closed_framing(struct judge *j)
{
    const struct ob_raw_header bad = { 3, OB_RAW_GET_INFO, 8, 0, 0 };
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    send_bytes(j, &bad, sizeof(bad), &theirs, 1);
    judge_give(j, theirs);
    wait_taken(j);
    judge_reconnect(j);
    want_hangup(j, mine, "a descriptor with a header of size 8");
}

/* Many times: one that is left each time would be seen, whatever it is. */
static void none_is_left(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const struct vfio_irq_set set = assign_command(j->facts.irqs, 1);
    const unsigned before = server_descriptors(j);
    int fd = judge_memfd(j, j->facts.page);

    for (unsigned i = 0; i < 64; i++) {
        want_ok(j, call(j, OB_RAW_DMA_MAP, &map, sizeof(map), &fd, 1, NULL), "DMA_MAP");
        want_refused(j, call(j, OB_RAW_SET_IRQS, &set, sizeof(set), &fd, 1, NULL), "SET_IRQS of a type that is none");
        want_refused(j, call(j, 14, NULL, 0, &fd, 1, NULL), "command 14");
        want_ok(j, unmap(j, BASE, j->facts.page), "DMA_UNMAP");
    }
    want_descriptors(j, before, "after commands with descriptors that succeeded and failed");
}

/* --- Too many ---------------------------------------------------------------------------------------------------- */

static unsigned too_many(struct judge *j)
{
    if (j->facts.max_msg_fds >= MOST_FDS)
        judge_skip(j, "the server takes as many descriptors as can be sent");
    return j->facts.max_msg_fds + 1;
}

/* A good DMA_MAP with so many, the first of which alone would be right, in pieces of so many. */
static void map_with(struct judge *j, unsigned count, unsigned piece)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    uint8_t bytes[16 + sizeof(map)];
    int fds[MOST_FDS], mine, theirs, r = 0;
    char what[80];

    snprintf(what, sizeof(what), "DMA_MAP with %u descriptors, %u more than was announced", count,
             count - j->facts.max_msg_fds);
    judge_pair(j, &mine, &theirs);
    fds[0] = judge_memfd(j, j->facts.page);
    for (unsigned i = 1; i < count; i++)
        fds[i] = theirs;
    ob_raw_build(bytes, 0x53, OB_RAW_DMA_MAP, 0, &map, sizeof(map));
    for (unsigned i = 0; r == 0 && i < count; i += piece) {
        const size_t at = i / piece, end = i + piece >= count ? sizeof(bytes) : at + 1;
        const unsigned n = count - i < piece ? count - i : piece;

        r = ob_raw_send(&j->raw, bytes + at, end - at, fds + i, n);
        if (r == 0)
            wait_taken(j);
    }
    judge_give(j, theirs);
    want_refused_or_closed(j, r == 0 ? ob_raw_reply(&j->raw, 0x53, OB_RAW_DMA_MAP, NULL) : r, what);
    want_hangup(j, mine, what);
    want_alive(j, "afterwards");
}

/* Whatever becomes of the map, and of the first descriptor. */
static void closed_too_many(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const unsigned count = too_many(j);
    int fds[MOST_FDS], mine, theirs;

    judge_pair(j, &mine, &theirs);
    fds[0] = judge_memfd(j, j->facts.page);
    for (unsigned i = 1; i < count; i++)
        fds[i] = theirs;
    if (call(j, OB_RAW_DMA_MAP, &map, sizeof(map), fds, count, NULL) == -ENOTCONN)
        judge_reconnect(j);
    judge_give(j, theirs);
    want_hangup(j, mine, "all but the first of more descriptors than were announced");
}

static void too_many_by_one(struct judge *j)
{
    const unsigned count = too_many(j);

    map_with(j, count, count);
}

static void too_many_by_far(struct judge *j)
{
    too_many(j);
    map_with(j, MOST_FDS, MOST_FDS);
}

static void too_many_in_pieces(struct judge *j)
{
    map_with(j, too_many(j), (j->facts.max_msg_fds + 2) / 2);
}

/* --- With replies ------------------------------------------------------------------------------------------------ */

static const uint16_t around[3] = { OB_RAW_GET_INFO, OB_RAW_GET_REGION_INFO, OB_RAW_GET_INFO };

/* A reply with a descriptor between two without. */
static void ask_for_descriptor(struct judge *j)
{
    const struct vfio_region_info get = { .argsz = j->facts.region[j->facts.mappable].argsz,
                                          .index = j->facts.mappable };
    uint8_t bytes[3 * 16 + 2 * sizeof(get_info) + sizeof(get)];
    size_t size = ob_raw_build(bytes, 1, around[0], 0, get_info, sizeof(get_info));

    size += ob_raw_build(bytes + size, 2, around[1], 0, &get, sizeof(get));
    size += ob_raw_build(bytes + size, 3, around[2], 0, get_info, sizeof(get_info));
    send_bytes(j, bytes, size, NULL, 0);
}

/* Linux gives the descriptors of a segment to the first read of it: read message by message, that is its first. */
static void reply_begins_segment(struct judge *j)
{
    ask_for_descriptor(j);
    for (uint16_t i = 0; i < 3; i++) {
        const struct ob_raw_message *reply = receive(j, "GET_INFO, GET_REGION_INFO, GET_INFO");

        want(j, reply->header.command == around[i] && reply->nfds == (i == 1),
             "reply %u of GET_INFO, GET_REGION_INFO, GET_INFO is to %s, with %u descriptors, wanted %u", i + 1,
             command_name(reply->header.command), reply->nfds, i == 1);
    }
}

/* And it ends a read with the segment that had them: one that is longer than the reply shows what else was in it. */
static void reply_alone_in_segment(struct judge *j)
{
    struct {
        struct ob_raw_header header;
        uint8_t more[65536];
    } *there = judge_alloc(j, sizeof(*there));
    ssize_t n;

    ask_for_descriptor(j);
    want(j, receive(j, "GET_INFO")->header.command == OB_RAW_GET_INFO, "the first reply is not GET_INFO's");
    do {
        n = recv(j->raw.fd, there, sizeof(*there), MSG_PEEK);
    } while (n < 0 && errno == EINTR);
    want(j, n >= (ssize_t)sizeof(there->header) && there->header.command == OB_RAW_GET_REGION_INFO,
         "the second reply is not GET_REGION_INFO's, or its header is split");
    want(j, n <= (ssize_t)there->header.size,
         "a segment of %zd bytes begins with a reply of %u that has a descriptor, wanted nothing else in it", n,
         there->header.size);
    receive(j, "GET_REGION_INFO");
    receive(j, "GET_INFO");
}

static void no_descriptors(struct judge *j, uint16_t command, const void *payload, size_t size, int fd)
{
    const struct ob_raw_message *reply;

    got(j, ob_raw_request(&j->raw, command, 0, payload, size, &fd, fd >= 0, NULL), "sending");
    reply = receive(j, command_name(command));
    want(j, reply->nfds == 0, "%u descriptors came with the reply to %s, wanted none", reply->nfds,
         command_name(command));
}

static void replies_without(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const struct ob_raw_dma_unmap unmap = { 24, 0, BASE, j->facts.page };
    const struct vfio_irq_info irq = { .argsz = 16 };
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 4 };
    const struct ob_raw_region write = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 0 };
    const uint32_t probe[2] = { 8,
                                VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_PROBE };
    const uint32_t get[2] = { 16, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | VFIO_DEVICE_FEATURE_GET };

    no_descriptors(j, OB_RAW_DMA_MAP, &map, sizeof(map), judge_memfd(j, j->facts.page));
    no_descriptors(j, OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap), -1);
    no_descriptors(j, OB_RAW_GET_INFO, get_info, sizeof(get_info), -1);
    no_descriptors(j, OB_RAW_GET_IRQ_INFO, &irq, 16, -1);
    no_descriptors(j, OB_RAW_REGION_READ, &read, sizeof(read), -1);
    no_descriptors(j, OB_RAW_REGION_WRITE, &write, sizeof(write), -1);
    no_descriptors(j, OB_RAW_FEATURE, probe, sizeof(probe), -1);
    no_descriptors(j, OB_RAW_FEATURE, get, sizeof(get), -1);
    if (j->facts.has & NEED_RESET)
        no_descriptors(j, OB_RAW_RESET, NULL, 0, -1);
}

static void replies_without_to_set_irqs(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const struct vfio_irq_set set = assign_command(index, 1);

    no_descriptors(j, OB_RAW_SET_IRQS, &set, sizeof(set), judge_eventfd(j));
}

const struct check server_connection_fds_checks[] = {
    { { "connection-fd-each-its-own", "VU-CON-2", "descriptors belong to the messages that they come with" },
      NEED_IRQ,
      each_its_own },
    { { "connection-fd-first-byte", "VU-CON-5", "a descriptor counts on the first byte of its message" },
      NEED_IRQ,
      with_first_byte },
    { { "connection-fd-header", "VU-CON-2", "a descriptor counts that comes with the header alone" },
      NEED_IRQ,
      with_header },
    { { "connection-fd-in-header", "VU-CON-5", "a descriptor counts in the middle of the header" },
      NEED_IRQ,
      in_header },
    { { "connection-fd-in-payload", "VU-CON-5", "a descriptor counts on the payload" }, NEED_IRQ, in_payload },
    { { "connection-fd-last-byte", "VU-CON-5", "a descriptor counts on the last byte" }, NEED_IRQ, with_last_byte },
    { { "connection-fd-two-pieces", "VU-CON-5", "descriptors on two bytes of a message count both" },
      NEED_VECTORS,
      in_two_pieces },
    { { "connection-closed-map", "VU-CON-19", "a descriptor that cannot be mapped is closed" }, 0, closed_map },
    { { "connection-closed-overlap", "VU-CON-19", "the file of a map that overlaps is closed" }, 0, closed_overlap },
    { { "connection-closed-set-irqs", "VU-CON-19", "a descriptor with a SET_IRQS that fails is closed" },
      0,
      closed_set_irqs },
    { { "connection-closed-info", "VU-CON-19", "a descriptor with a command for information is closed" },
      0,
      closed_info },
    { { "connection-closed-access", "VU-CON-19", "a descriptor with an access to a region is closed" },
      0,
      closed_access },
    { { "connection-closed-feature", "VU-CON-19", "a descriptor with DEVICE_FEATURE or MIG_DATA_* is closed" },
      0,
      closed_feature },
    { { "connection-closed-reset", "VU-CON-19", "a descriptor with DEVICE_RESET is closed" },
      NEED_RESET,
      closed_reset },
    { { "connection-closed-unknown", "VU-CON-19", "a descriptor with an unknown command is closed" },
      0,
      closed_unknown },
    { { "connection-closed-truncated", "VU-CON-19", "a descriptor with a command that is too short is closed" },
      0,
      closed_truncated },
    { { "connection-closed-posted", "VU-CON-19", "a descriptor with a posted command that fails is closed" },
      0,
      closed_posted },
    { { "connection-closed-reply", "VU-CON-19", "a descriptor with a reply to nothing is closed" }, 0, closed_reply },
    { { "connection-closed-version", "VU-CON-19", "a descriptor with VERSION is closed" }, CHECK_BARE, closed_version },
    { { "connection-closed-early", "VU-CON-19", "descriptors with commands before VERSION are closed" },
      CHECK_BARE,
      closed_before_version },
    { { "connection-closed-half", "VU-CON-19", "a descriptor with half a message is closed with the connection" },
      0,
      closed_half },
    { { "connection-closed-framing", "VU-CON-19", "a descriptor with a header of size 8 is closed" },
      0,
      closed_framing },
    { { "connection-closed-too-many", "VU-CON-19", "descriptors beyond the announced number are closed" },
      0,
      closed_too_many },
    { { "connection-none-left", "VU-CON-19", "the server has no more descriptors after 256 commands" },
      NEED_SPAWN,
      none_is_left },
    { { "connection-too-many-fds", "VU-CON-20", "a map with one descriptor more than announced is not executed" },
      0,
      too_many_by_one },
    { { "connection-too-many-253", "VU-CON-20", "nor is one with 253" }, 0, too_many_by_far },
    { { "connection-too-many-pieces", "VU-CON-20", "nor is one whose descriptors come in two pieces" },
      0,
      too_many_in_pieces },
    { { "connection-fd-begins", "VU-CON-22", "a reply with a descriptor begins a segment" },
      NEED_MAPPABLE,
      reply_begins_segment },
    { { "connection-fd-alone", "VU-CON-22", "nothing is behind a reply with a descriptor in its segment" },
      NEED_MAPPABLE,
      reply_alone_in_segment },
    { { "connection-no-fds", "VU-CON-23", "no descriptor comes with replies that have none" }, 0, replies_without },
    { { "connection-no-fds-set-irqs", "VU-CON-23", "none comes with the reply to SET_IRQS" },
      NEED_IRQ,
      replies_without_to_set_irqs },
    { { NULL, NULL, NULL }, 0, NULL },
};
