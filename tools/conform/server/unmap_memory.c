/* unmap_memory.c: VU-UNMAP: what a device does with memory that is taken away from it. */
#include "guest.h"

#define LEN GUEST_LEN

static void want_not_read(struct judge *j, const struct guest_pair *p)
{
    want(j, !guest_filled(p->to->bytes, LEN, 2), "the device read memory that was unmapped");
}

static void want_not_written(struct judge *j, const struct guest_pair *p)
{
    want(j, guest_all(p->to->bytes, p->to->size, 0), "the device wrote to memory that was unmapped");
}

/* A first transfer makes sure that the server has found its way to the memory. What it read then it may keep. */
static struct guest_pair used(struct judge *j, bool shared)
{
    struct guest_pair p = guest_pair(j, shared);

    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "before DMA_UNMAP");
    memset(p.to->bytes, 0, p.to->size);
    guest_fill(p.from->bytes, LEN, 2);
    return p;
}

static void check_read(struct judge *j)
{
    struct guest_pair p = used(j, true);

    guest_unmap(j, p.from);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "from memory that was unmapped");
    want_not_read(j, &p);
}

static void check_write(struct judge *j)
{
    struct guest_pair p = used(j, true);

    guest_unmap(j, p.to);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "to memory that was unmapped");
    want_not_written(j, &p);
}

static void check_message_read(struct judge *j)
{
    struct guest_pair p = used(j, false);

    guest_unmap(j, p.from);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "from memory that was unmapped");
    want_not_read(j, &p);
}

static void check_message_write(struct judge *j)
{
    struct guest_pair p = used(j, false);

    guest_unmap(j, p.to);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "to memory that was unmapped");
    want_not_written(j, &p);
}

static void check_all(struct judge *j)
{
    static const struct ob_raw_dma_unmap all = { .argsz = sizeof(all), .flags = VFIO_DMA_UNMAP_FLAG_ALL };
    struct guest_pair p = guest_pair(j, true);

    if (call(j, OB_RAW_DMA_UNMAP, &all, sizeof(all), NULL, 0, NULL) != 0)
        judge_skip(j, "VFIO_DMA_UNMAP_FLAG_ALL is refused");
    p.from->mapped = p.to->mapped = false;
    guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, true);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "from memory that was unmapped with everything");
    want_not_written(j, &p);
}

/* The client takes so little at a time that any transfer needs several commands. The first is under way when the rest
 * is taken away. */
static void pieces(struct judge *j, unsigned later)
{
    struct ob_raw_message *asked;
    struct guest_pair p;

    guest_needs_crossing(j);
    judge_reconnect_bare(j);
    want_ok(j, judge_version(j, 0, 0, "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":16}}", NULL),
            "VERSION");
    p = guest_pair(j, false);
    j->guest->later = later;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    asked = guest_asked(j, later == GUEST_READ ? OB_RAW_DMA_READ : OB_RAW_DMA_WRITE);
    guest_unmap(j, later == GUEST_READ ? p.from : p.to);
    j->guest->later = 0;
    guest_answer_well(j, asked, 0x44);
    want_failed(j, device_copy_end(j), "whose memory was unmapped in the middle");
    guest_judged(j);
}

static void check_pieces_read(struct judge *j)
{
    pieces(j, GUEST_READ);
}

static void check_pieces_write(struct judge *j)
{
    pieces(j, GUEST_WRITE);
}

static void check_under_way(struct judge *j, unsigned later, uint16_t command)
{
    struct guest_pair p;

    guest_needs_crossing(j);
    p = guest_pair(j, false);
    j->guest->later = later;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    guest_asked(j, command);
    guest_unmap(j, p.from);
    guest_unmap(j, p.to);
    want_alive(j, "after memory was unmapped that the device waits for");
}

static void check_under_way_read(struct judge *j)
{
    check_under_way(j, GUEST_READ, OB_RAW_DMA_READ);
}

static void check_under_way_write(struct judge *j)
{
    check_under_way(j, GUEST_WRITE, OB_RAW_DMA_WRITE);
}

/* Whatever the device is about to do or doing, it is over when the reply has come: what the judge then writes stays. */
static void check_race(struct judge *j)
{
    const unsigned turns = j->facts.exerciser->tells ? 32 : 1;
    const uint32_t len = j->facts.exerciser->max_copy;
    const uint64_t size = (len + j->facts.page - 1) / j->facts.page * j->facts.page;

    device_on(j, true);
    guest_map(j, GUEST_FROM, size, GUEST_BOTH, true);
    for (unsigned i = 0; i < turns; i++) {
        struct guest_map *to = guest_map(j, GUEST_TO, size, GUEST_BOTH, true);

        device_copy_begin(j, GUEST_FROM, GUEST_TO, len);
        guest_unmap(j, to);
        memset(to->bytes, 0x55, size);
        device_copy_end(j);
        guest_judged(j);
        want(j, guest_all(to->bytes, size, 0x55), "the device wrote to memory after the reply to its DMA_UNMAP");
    }
}

/* The device is told by memory that it looks at all the time what to do. Nobody knows when it would look. */
static void check_ring(struct judge *j)
{
    struct guest_pair p = used(j, true);

    if (j->copy_ring == NULL)
        judge_skip(j, "the device has no ring");
    want_ok(j, unmap(j, EXERCISER_IOVA, EXERCISER_SIZE), "DMA_UNMAP of the device's ring");
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    for (unsigned i = 0; i < 8; i++)
        want_alive(j, "after the device's ring was unmapped");
    want(j, guest_all(p.to->bytes, p.to->size, 0), "the device read its ring after it was unmapped");
}

/* The same address with other memory: the device must not have the old in mind. */
static void check_other_file(struct judge *j)
{
    struct guest_pair p = used(j, true);
    struct guest_map *other;

    guest_unmap(j, p.from);
    other = guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, true);
    guest_fill(other->bytes, LEN, 3);
    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "from memory that was mapped where other memory was");
    want(j, guest_filled(p.to->bytes, LEN, 3), "the device read the memory that was there before");
    guest_unmap(j, p.to);
    memset(p.to->bytes, 0, p.to->size);
    other = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, true);
    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "to memory that was mapped where other memory was");
    want(j, guest_filled(other->bytes, LEN, 3), "the device did not write to the memory that is there now");
    want_not_written(j, &p);
}

static void check_other_access(struct judge *j)
{
    struct guest_pair p = used(j, true);

    guest_unmap(j, p.to);
    p.to = guest_map(j, GUEST_TO, j->facts.page, GUEST_READ, true);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "to memory that is no longer writeable");
    want_not_written(j, &p);
}

static void check_refused_keeps(struct judge *j)
{
    struct guest_pair p = guest_pair(j, true);

    want_refused(j, unmap(j, GUEST_FROM, j->facts.page / 2), "DMA_UNMAP of half a map");
    want_refused(j, unmap(j, GUEST_TO, 2 * j->facts.page), "DMA_UNMAP of twice a map");
    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "after DMA_UNMAP was refused");
    want(j, guest_filled(p.to->bytes, LEN, 1), "what the device copied is not in the memory");
}

const struct check server_unmap_memory_checks[] = {
    { { "unmap-refused-keeps", "VU-UNMAP-3", "the device uses a map whose DMA_UNMAP was refused" },
      NEED_DMA,
      check_refused_keeps },
    { { "unmap-not-read", "VU-UNMAP-6", "memory with a descriptor is not read after DMA_UNMAP" },
      NEED_DMA,
      check_read },
    { { "unmap-not-written", "VU-UNMAP-6", "memory with a descriptor is not written to after DMA_UNMAP" },
      NEED_DMA,
      check_write },
    { { "unmap-no-dma-read", "VU-UNMAP-6", "no DMA_READ goes to memory after DMA_UNMAP" },
      NEED_DMA,
      check_message_read },
    { { "unmap-no-dma-write", "VU-UNMAP-6", "no DMA_WRITE goes to memory after DMA_UNMAP" },
      NEED_DMA,
      check_message_write },
    { { "unmap-pieces-read", "VU-UNMAP-6", "DMA_UNMAP ends a transfer that is in the middle of reading" },
      NEED_DMA,
      check_pieces_read },
    { { "unmap-pieces-write", "VU-UNMAP-6", "DMA_UNMAP ends a transfer that is in the middle of writing" },
      NEED_DMA,
      check_pieces_write },
    { { "unmap-race", "VU-UNMAP-6", "memory that is unmapped during a transfer is not written to after the reply" },
      NEED_DMA,
      check_race },
    { { "unmap-ring", "VU-UNMAP-6", "a ring that was unmapped is not looked at" }, NEED_DMA, check_ring },
    { { "unmap-under-way-read", "VU-UNMAP-7", "DMA_UNMAP completes while the device waits for a DMA_READ" },
      NEED_DMA,
      check_under_way_read },
    { { "unmap-under-way-write", "VU-UNMAP-7", "DMA_UNMAP completes while the device waits for a DMA_WRITE" },
      NEED_DMA,
      check_under_way_write },
    { { "unmap-other-file", "VU-UNMAP-8", "memory mapped where other memory was is what the device uses" },
      NEED_DMA,
      check_other_file },
    { { "unmap-other-access", "VU-UNMAP-8", "memory mapped again with less access has less" },
      NEED_DMA,
      check_other_access },
    { { "unmap-all-memory", "VU-UNMAP-9", "no memory is used after VFIO_DMA_UNMAP_FLAG_ALL" }, NEED_DMA, check_all },
    { { NULL, NULL, NULL }, 0, NULL },
};
