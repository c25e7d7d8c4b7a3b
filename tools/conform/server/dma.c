/* dma.c: VU-DMA: what a server asks for with DMA_READ and DMA_WRITE, and what goes on meanwhile. */
#include "guest.h"

#define LEN GUEST_LEN

/* Any length, at addresses that are aligned to nothing. */
static void check_data(struct judge *j)
{
    static const uint32_t lengths[] = { 1, 2, 8, 511, 4000 };
    const uint64_t size = (8191 / j->facts.page + 1) * j->facts.page;
    struct guest_map *from, *to;

    device_on(j, true);
    from = guest_map(j, GUEST_FROM, size, GUEST_BOTH, false);
    to = guest_map(j, GUEST_TO, size, GUEST_BOTH, false);
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        const uint32_t len = lengths[i];

        memset(to->bytes, 0x77, size);
        guest_fill(from->bytes + 33, len, i);
        transfer_ok(j, GUEST_FROM + 33, GUEST_TO + 71, len, "by messages");
        want(j, guest_filled(to->bytes + 71, len, i), "of %u bytes the device copied by messages not all are right",
             len);
        want(j, guest_all(to->bytes, 71, 0x77) && guest_all(to->bytes + 71 + len, size - 71 - len, 0x77),
             "bytes around the %u that the device copied by messages have changed", len);
    }
}

static struct ob_raw_message *begin(struct judge *j, uint16_t command)
{
    guest_pair(j, false);
    j->guest->later = command == OB_RAW_DMA_READ ? GUEST_READ : GUEST_WRITE;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, LEN);
    return guest_asked(j, command);
}

static void end(struct judge *j, const struct ob_raw_message *asked)
{
    guest_answer_well(j, asked, 0x66);
    j->guest->later = 0;
    want(j, device_copy_end(j) == 0, "the device's transfer failed");
    guest_judged(j);
}

static void want_header(struct judge *j, const struct ob_raw_message *m)
{
    want(j, m->header.flags == 0 && m->header.error == 0 && m->nfds == 0,
         "a command with flags %#x, error %u and %u descriptors, wanted none of them", m->header.flags, m->header.error,
         m->nfds);
}

static void check_read_layout(struct judge *j)
{
    const struct ob_raw_message *m = begin(j, OB_RAW_DMA_READ);
    const struct ob_raw_dma range = guest_range(j, m);

    want_header(j, m);
    want(j, m->size == sizeof(range), "DMA_READ has a payload of %u bytes, wanted 16", m->size);
    want(j, range.address >= GUEST_FROM && range.address < GUEST_FROM + LEN && range.count > 0,
         "DMA_READ of %#llx bytes at %#llx, wanted some of %u at %#llx", (unsigned long long)range.count,
         (unsigned long long)range.address, LEN, (unsigned long long)GUEST_FROM);
    end(j, m);
}

static void check_write_layout(struct judge *j)
{
    const struct ob_raw_message *m = begin(j, OB_RAW_DMA_WRITE);
    const struct ob_raw_dma range = guest_range(j, m);
    const struct guest_map *from = j->guest->maps->next; /* mapped before the other */
    const uint64_t skip = range.address - GUEST_TO;

    want_header(j, m);
    want(j, m->size == sizeof(range) + range.count, "DMA_WRITE of %#llx bytes has a payload of %u",
         (unsigned long long)range.count, m->size);
    want(j, skip < LEN && range.count > 0 && range.count <= LEN - skip,
         "DMA_WRITE of %#llx bytes to %#llx, wanted some of %u at %#llx", (unsigned long long)range.count,
         (unsigned long long)range.address, LEN, (unsigned long long)GUEST_TO);
    want(j, memcmp(m->payload + sizeof(range), from->bytes + skip, range.count) == 0,
         "the data of DMA_WRITE is not what was read");
    end(j, m);
}

/* --- Which memory ------------------------------------------------------------------------------------------------ */

static void check_read_unmapped(struct judge *j)
{
    struct guest_map *to;

    device_on(j, true);
    to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, false);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "from memory that is not mapped");
    guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, false);
    memset(to->bytes, 0x77, LEN);
    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "once it is mapped");
    want(j, guest_all(to->bytes, LEN, 0), "what the device copied is not in the memory");
}

static void check_write_unmapped(struct judge *j)
{
    struct guest_map *to;

    device_on(j, true);
    guest_fill(guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, false)->bytes, LEN, 1);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "to memory that is not mapped");
    to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, false);
    transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "once it is mapped");
    want(j, guest_filled(to->bytes, LEN, 1), "what the device copied is not in the memory");
}

/* What is mapped of a range may be used, or nothing of it. */
static void check_read_beyond(struct judge *j)
{
    guest_pair(j, false);
    transfer_fails(j, GUEST_FROM + j->facts.page - LEN / 2, GUEST_TO, LEN, "across the end of what is mapped");
    transfer_fails(j, GUEST_FROM - LEN / 2, GUEST_TO, LEN, "across the start of what is mapped");
}

static void check_write_beyond(struct judge *j)
{
    guest_pair(j, false);
    transfer_fails(j, GUEST_FROM, GUEST_TO + j->facts.page - LEN / 2, LEN, "across the end of what is mapped");
    transfer_fails(j, GUEST_FROM, GUEST_TO - LEN / 2, LEN, "across the start of what is mapped");
}

/* From the end of the address space to its beginning, where memory is. */
static void check_wrap(struct judge *j)
{
    struct guest_map *to;

    device_on(j, true);
    guest_fill(guest_map(j, 0, j->facts.page, GUEST_BOTH, false)->bytes, LEN, 1);
    to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, false);
    transfer_fails(j, -(uint64_t)(LEN / 2), GUEST_TO, LEN, "from a range that wraps around");
    want(j, !guest_filled(to->bytes + LEN / 2, LEN / 2, 1), "the device read on at address 0");
    transfer_fails(j, GUEST_TO, -(uint64_t)(LEN / 2), LEN, "to a range that wraps around");
}

static void check_not_readable(struct judge *j)
{
    struct guest_map *to;

    device_on(j, true);
    guest_fill(guest_map(j, GUEST_FROM, j->facts.page, GUEST_WRITE, false)->bytes, LEN, 1);
    to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, false);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "from memory that is not readable");
    want(j, !guest_filled(to->bytes, LEN, 1), "the device read memory that is not readable");
}

static void check_not_writeable(struct judge *j)
{
    device_on(j, true);
    guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, false);
    guest_map(j, GUEST_TO, j->facts.page, GUEST_READ, false);
    transfer_fails(j, GUEST_FROM, GUEST_TO, LEN, "to memory that is not writeable");
}

/* Memory with a descriptor at one end and without at the other. */
static void check_mixed(struct judge *j)
{
    for (unsigned turn = 0; turn < 2; turn++) {
        struct guest_map *from, *to;

        judge_reconnect(j);
        device_on(j, true);
        from = guest_map(j, GUEST_FROM, j->facts.page, GUEST_BOTH, turn == 0);
        to = guest_map(j, GUEST_TO, j->facts.page, GUEST_BOTH, turn == 1);
        guest_fill(from->bytes, LEN, turn);
        transfer_ok(j, GUEST_FROM, GUEST_TO, LEN, "between memory with a descriptor and memory without");
        want(j, guest_filled(to->bytes, LEN, turn), "what the device copied is not in the memory");
    }
}

/* --- How much ---------------------------------------------------------------------------------------------------- */

static void check_piece(struct judge *j)
{
    const uint32_t len = j->facts.exerciser->max_copy;
    const uint64_t size = (len / j->facts.page + 1) * j->facts.page;
    struct guest_map *from, *to;

    if (len <= 32768)
        judge_skip(j, "the device does not copy more than 32 KiB at a time");
    device_on(j, true);
    from = guest_map(j, GUEST_FROM, size, GUEST_BOTH, false);
    to = guest_map(j, GUEST_TO, size, GUEST_BOTH, false);
    guest_fill(from->bytes, len, 1);
    transfer_ok(j, GUEST_FROM, GUEST_TO, len, "at once");
    want(j, j->guest->largest <= 32768, "a command with a count of %llu, wanted at most 32768",
         (unsigned long long)j->guest->largest);
    want(j, guest_filled(to->bytes, len, 1), "of %u bytes the device copied in pieces not all are right", len);
}

/* --- Meanwhile --------------------------------------------------------------------------------------------------- */

static void meanwhile(struct judge *j, uint16_t command)
{
    struct ob_raw_message *asked = begin(j, command);
    struct vfio_region_info region = { .argsz = sizeof(region), .index = VFIO_PCI_CONFIG_REGION_INDEX };
    uint32_t irq[4] = { sizeof(irq) };

    want_alive(j, "GET_INFO while the device waits for memory");
    want_ok(j, call(j, OB_RAW_GET_REGION_INFO, &region, sizeof(region), NULL, 0, NULL),
            "GET_REGION_INFO while the device waits for memory");
    want_ok(j, call(j, OB_RAW_GET_IRQ_INFO, irq, sizeof(irq), NULL, 0, NULL),
            "GET_IRQ_INFO while the device waits for memory");
    config_write(j, 0x04, 2, config_read(j, 0x04, 2));
    want_ok(j, map(j, 4 * GUEST_TO, j->facts.page, GUEST_BOTH, -1, 0), "DMA_MAP while the device waits for memory");
    want_ok(j, unmap(j, 4 * GUEST_TO, j->facts.page), "DMA_UNMAP while the device waits for memory");
    want(j, j->facts.exerciser->copied(j) < 0, "the device's transfer ended before it had its memory");
    end(j, asked);
}

static void check_meanwhile_read(struct judge *j)
{
    meanwhile(j, OB_RAW_DMA_READ);
}

static void check_meanwhile_write(struct judge *j)
{
    meanwhile(j, OB_RAW_DMA_WRITE);
}

static void check_reset_meanwhile(struct judge *j)
{
    guest_needs_crossing(j);
    begin(j, OB_RAW_DMA_READ);
    reset(j);
    want_alive(j, "after a reset while the device waited for memory");
}

const struct check server_dma_checks[] = {
    { { "dma-data", "VU-DMA-1", "memory is copied by DMA_READ and DMA_WRITE, whatever its length and place" },
      NEED_DMA,
      check_data },
    { { "dma-read-layout", "VU-DMA-1", "DMA_READ is address and count" }, NEED_DMA, check_read_layout },
    { { "dma-write-layout", "VU-DMA-1", "DMA_WRITE is address, count and as many bytes of data" },
      NEED_DMA,
      check_write_layout },
    { { "dma-mixed", "VU-MAP-15", "memory without a descriptor is copied to and from memory with one" },
      NEED_DMA,
      check_mixed },
    { { "dma-read-unmapped", "VU-DMA-5", "no DMA_READ goes to memory before it is mapped" },
      NEED_DMA,
      check_read_unmapped },
    { { "dma-write-unmapped", "VU-DMA-5", "no DMA_WRITE goes to memory before it is mapped" },
      NEED_DMA,
      check_write_unmapped },
    { { "dma-read-beyond", "VU-DMA-5", "no DMA_READ goes beyond what is mapped" }, NEED_DMA, check_read_beyond },
    { { "dma-write-beyond", "VU-DMA-5", "no DMA_WRITE goes beyond what is mapped" }, NEED_DMA, check_write_beyond },
    { { "dma-wrap", "VU-DMA-5", "no DMA_READ and no DMA_WRITE wraps around" }, NEED_DMA, check_wrap },
    { { "dma-not-readable", "VU-DMA-6", "no DMA_READ goes to memory that is not readable" },
      NEED_DMA,
      check_not_readable },
    { { "dma-not-writeable", "VU-DMA-6", "no DMA_WRITE goes to memory that is not writeable" },
      NEED_DMA,
      check_not_writeable },
    { { "dma-piece", "VU-DMA-16", "counts are at most 32 KiB" }, NEED_DMA, check_piece },
    { { "dma-meanwhile-read", "VU-DMA-15", "commands are answered while a DMA_READ waits for its reply" },
      NEED_DMA,
      check_meanwhile_read },
    { { "dma-meanwhile-write", "VU-DMA-15", "commands are answered while a DMA_WRITE waits for its reply" },
      NEED_DMA,
      check_meanwhile_write },
    { { "dma-meanwhile-reset", "VU-DMA-15", "DEVICE_RESET is answered while a DMA_READ waits for its reply" },
      NEED_DMA | NEED_RESET,
      check_reset_meanwhile },
    { { NULL, NULL, NULL }, 0, NULL },
};
