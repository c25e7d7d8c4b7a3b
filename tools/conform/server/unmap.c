/* unmap.c: VU-UNMAP: DMA_UNMAP, by what a server answers. */
#include "check.h"

#define PROT 3u
#define BASE 0x10000000ull

static const struct ob_raw_dma_unmap all = { .argsz = sizeof(all), .flags = VFIO_DMA_UNMAP_FLAG_ALL };

static struct ob_raw_dma_unmap entry(uint64_t address, uint64_t size)
{
    return (struct ob_raw_dma_unmap){ .argsz = sizeof(struct ob_raw_dma_unmap), .address = address, .size = size };
}

static int send_unmap(struct judge *j, const struct ob_raw_dma_unmap *u)
{
    return call(j, OB_RAW_DMA_UNMAP, u, sizeof(*u), NULL, 0, NULL);
}

static void mapped(struct judge *j, uint64_t address, uint64_t size)
{
    want_ok(j, map(j, address, size, PROT, -1, 0), "DMA_MAP");
}

static void unmapped(struct judge *j, uint64_t address, uint64_t size)
{
    want_ok(j, unmap(j, address, size), "DMA_UNMAP of what was mapped");
}

/* `wanted` 0: any errno. */
static void refused(struct judge *j, struct ob_raw_dma_unmap u, int wanted)
{
    int r = send_unmap(j, &u);
    char what[128];

    snprintf(what, sizeof(what), "DMA_UNMAP of %#llx bytes at %#llx, flags %#x, argsz %u", (unsigned long long)u.size,
             (unsigned long long)u.address, u.flags, u.argsz);
    if (wanted == 0)
        want_refused(j, r, what);
    else
        want_error(j, r, wanted, what);
}

/* In pages from BASE; what is mapped is [0, 4). It is refused, and the map stays. */
static void inexact(struct judge *j, int start, unsigned count, int wanted)
{
    const uint64_t page = j->facts.page;

    mapped(j, BASE, 4 * page);
    refused(j, entry(BASE + (uint64_t)(int64_t)start * page, count * page), wanted);
    unmapped(j, BASE, 4 * page);
}

static void check_middle(struct judge *j)
{
    inexact(j, 1, 2, 0);
}

static void check_head(struct judge *j)
{
    inexact(j, 0, 1, 0);
}

static void check_tail(struct judge *j)
{
    inexact(j, 3, 1, 0);
}

static void check_around(struct judge *j)
{
    inexact(j, -1, 6, 0);
}

static void check_longer(struct judge *j)
{
    inexact(j, 0, 5, 0);
}

static void check_across(struct judge *j)
{
    inexact(j, 3, 2, 0);
}

static void check_two(struct judge *j)
{
    const uint64_t page = j->facts.page;

    mapped(j, BASE, page);
    mapped(j, BASE + page, page);
    refused(j, entry(BASE, 2 * page), 0);
    unmapped(j, BASE, page);
    unmapped(j, BASE + page, page);
}

static void check_twice(struct judge *j)
{
    mapped(j, BASE, j->facts.page);
    unmapped(j, BASE, j->facts.page);
    refused(j, entry(BASE, j->facts.page), 0);
}

static void check_nothing_enoent(struct judge *j)
{
    refused(j, entry(BASE, j->facts.page), ENOENT);
    mapped(j, BASE, j->facts.page);
    refused(j, entry(BASE + j->facts.page, j->facts.page), ENOENT);
}

static void check_part_enoent(struct judge *j)
{
    inexact(j, 0, 1, ENOENT);
    inexact(j, 0, 5, ENOENT);
}

static void check_wrap(struct judge *j)
{
    const uint64_t page = j->facts.page;
    const struct ob_raw_dma_unmap wrong[] = { entry(-page, 2 * page), entry(BASE, -page), entry(-page, -page) };

    mapped(j, BASE, page);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        refused(j, wrong[i], 0);
    unmapped(j, BASE, page);
}

static void want_repeated(struct judge *j, const struct ob_raw_dma_unmap *u)
{
    struct ob_raw_message *reply;

    want_ok(j, call(j, OB_RAW_DMA_UNMAP, u, sizeof(*u), NULL, 0, &reply), "DMA_UNMAP");
    want(j, reply->size == sizeof(*u) && reply->nfds == 0,
         "the reply has %u bytes and %u descriptors, wanted 24 bytes and none", reply->size, reply->nfds);
    want(j, field64(j, reply, 8) == u->address && field64(j, reply, 16) == u->size,
         "the reply tells of %#llx bytes at %#llx, wanted %#llx at %#llx", (unsigned long long)field64(j, reply, 16),
         (unsigned long long)field64(j, reply, 8), (unsigned long long)u->size, (unsigned long long)u->address);
}

static void check_reply(struct judge *j)
{
    struct ob_raw_dma_unmap u = entry(BASE, 4 * j->facts.page);

    mapped(j, BASE, u.size);
    want_repeated(j, &u);
}

/* Skips the check if the server refuses, as it may. */
static void everything_unmapped(struct judge *j)
{
    if (send_unmap(j, &all) != 0)
        judge_skip(j, "VFIO_DMA_UNMAP_FLAG_ALL is refused");
}

static void check_reply_all(struct judge *j)
{
    everything_unmapped(j);
    mapped(j, BASE, j->facts.page);
    want_repeated(j, &all);
}

/* There is room for more than the 24 bytes, which makes them no more. */
static void check_argsz_large(struct judge *j)
{
    struct ob_raw_dma_unmap u = entry(BASE, j->facts.page);
    struct ob_raw_message *reply;

    u.argsz = 4096;
    mapped(j, BASE, u.size);
    want_ok(j, call(j, OB_RAW_DMA_UNMAP, &u, sizeof(u), NULL, 0, &reply), "DMA_UNMAP with argsz 4096");
    want(j, reply->size <= sizeof(u), "DMA_UNMAP with argsz 4096: a reply with a payload of %u bytes, wanted 24",
         reply->size);
}

static void check_again(struct judge *j)
{
    const uint64_t page = j->facts.page;

    for (unsigned i = 1; i <= 32; i++) {
        mapped(j, BASE, i * page);
        unmapped(j, BASE, i * page);
    }
    mapped(j, BASE, page);
}

/* By one stream: nothing is waited for in between. */
static void check_again_stream(struct judge *j)
{
    const struct ob_raw_dma_map m = { sizeof(m), PROT, 0, BASE, j->facts.page };
    const struct ob_raw_dma_unmap u = entry(BASE, j->facts.page);
    uint16_t id = 0;

    for (unsigned i = 0; i < 32; i++) {
        got(j, ob_raw_request(&j->raw, OB_RAW_DMA_MAP, 0, &m, sizeof(m), NULL, 0, &id), "sending");
        got(j, ob_raw_request(&j->raw, OB_RAW_DMA_UNMAP, 0, &u, sizeof(u), NULL, 0, &id), "sending");
    }
    id = (uint16_t)(id - 63);
    for (unsigned i = 0; i < 32; i++) {
        want_ok(j, ob_raw_reply(&j->raw, id++, OB_RAW_DMA_MAP, NULL), "DMA_MAP right behind DMA_UNMAP");
        want_ok(j, ob_raw_reply(&j->raw, id++, OB_RAW_DMA_UNMAP, NULL), "DMA_UNMAP right behind DMA_MAP");
    }
}

/* The first turn is for what a server opens once. */
static void check_closed(struct judge *j)
{
    const uint64_t page = j->facts.page;
    unsigned before = UINT32_MAX;

    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < 16; i++)
            want_ok(j, map(j, BASE + i * page, page, PROT, judge_memfd(j, page), 0), "DMA_MAP with a descriptor");
        for (unsigned i = 0; i < 16; i++)
            unmapped(j, BASE + i * page, page);
        want_descriptors(j, before, "after 16 maps were unmapped");
        before = server_descriptors(j);
    }
}

static void check_all(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int fd = judge_memfd(j, page);

    mapped(j, BASE, page);
    mapped(j, 0, page);
    mapped(j, 1ull << 40, 16 * page);
    want_ok(j, map(j, BASE + page, page, PROT, fd, 0), "DMA_MAP with a descriptor");
    everything_unmapped(j);
    refused(j, entry(BASE, page), 0);
    refused(j, entry(0, page), 0);
    refused(j, entry(1ull << 40, 16 * page), 0);
    refused(j, entry(BASE + page, page), 0);
    mapped(j, 0, BASE + 2 * page);
}

static void check_all_none(struct judge *j)
{
    want_ok(j, send_unmap(j, &all), "DMA_UNMAP of everything, which is nothing");
    want_ok(j, send_unmap(j, &all), "the same again");
    mapped(j, BASE, j->facts.page);
    want_ok(j, send_unmap(j, &all), "DMA_UNMAP of everything, which is one map");
}

static void check_all_address(struct judge *j)
{
    struct ob_raw_dma_unmap u = all;

    mapped(j, BASE, j->facts.page);
    u.address = BASE;
    refused(j, u, EINVAL);
    unmapped(j, BASE, j->facts.page);
}

static void check_all_size(struct judge *j)
{
    struct ob_raw_dma_unmap u = all;

    mapped(j, BASE, j->facts.page);
    u.size = j->facts.page;
    refused(j, u, EINVAL);
    u.size = UINT64_MAX;
    refused(j, u, EINVAL);
    u.address = BASE;
    u.size = j->facts.page;
    refused(j, u, EINVAL);
    unmapped(j, BASE, j->facts.page);
}

/* Bit 0 means something to the reference library, bit 2 to rust-vmm's crate, so others may know them too. */
static void check_flags(struct judge *j)
{
    struct ob_raw_dma_unmap u = entry(BASE, j->facts.page);

    mapped(j, BASE, j->facts.page);
    for (unsigned bit = 3; bit < 32; bit++) {
        u.flags = 1u << bit;
        refused(j, u, EINVAL);
    }
    unmapped(j, BASE, j->facts.page);
}

static void descriptor(struct judge *j, const struct ob_raw_dma_unmap *u)
{
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    mapped(j, BASE, j->facts.page);
    want_ok(j, call(j, OB_RAW_DMA_UNMAP, u, sizeof(*u), &theirs, 1, NULL), "DMA_UNMAP with a descriptor");
    judge_give(j, theirs);
    want_hangup(j, mine, "a descriptor that came with DMA_UNMAP");
    mapped(j, BASE, j->facts.page);
}

static void check_descriptor(struct judge *j)
{
    const struct ob_raw_dma_unmap u = entry(BASE, j->facts.page);

    descriptor(j, &u);
}

static void check_descriptor_all(struct judge *j)
{
    everything_unmapped(j);
    descriptor(j, &all);
}

static void check_descriptor_none(struct judge *j)
{
    const struct ob_raw_dma_unmap u = entry(BASE, j->facts.page);
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    got(j, call(j, OB_RAW_DMA_UNMAP, &u, sizeof(u), &theirs, 1, NULL), "DMA_UNMAP of nothing");
    judge_give(j, theirs);
    want_hangup(j, mine, "a descriptor that came with a DMA_UNMAP of nothing");
}

static void check_argsz(struct judge *j)
{
    static const uint32_t small[] = { 0, 1, 16, 23 };
    struct ob_raw_dma_unmap u = entry(BASE, j->facts.page);
    bool there = false;

    for (size_t i = 0; i < sizeof(small) / sizeof(*small); i++) {
        struct ob_raw_message *reply;

        if (!there)
            mapped(j, BASE, j->facts.page);
        u.argsz = small[i];
        there = call(j, OB_RAW_DMA_UNMAP, &u, sizeof(u), NULL, 0, &reply) != 0;
        want(j, there || reply->size <= u.argsz, "DMA_UNMAP with argsz %u: a reply with a payload of %u bytes", u.argsz,
             reply->size);
    }
    if (there)
        unmapped(j, BASE, j->facts.page);
}

static void check_size_zero(struct judge *j)
{
    mapped(j, BASE, j->facts.page);
    refused(j, entry(BASE, 0), 0);
    refused(j, entry(0, 0), 0);
    unmapped(j, BASE, j->facts.page);
}

const struct check server_unmap_checks[] = {
    { { "unmap-middle", "VU-UNMAP-3", "the middle of a map is refused, and the map stays" }, NEED_MAPS, check_middle },
    { { "unmap-head", "VU-UNMAP-3", "the first page of a map is refused, and the map stays" }, NEED_MAPS, check_head },
    { { "unmap-tail", "VU-UNMAP-3", "the last page of a map is refused, and the map stays" }, NEED_MAPS, check_tail },
    { { "unmap-around", "VU-UNMAP-3", "a range around a map is refused, and the map stays" }, NEED_MAPS, check_around },
    { { "unmap-longer", "VU-UNMAP-3", "a range longer than the map at its address is refused, and the map stays" },
      NEED_MAPS,
      check_longer },
    { { "unmap-across", "VU-UNMAP-3", "a range across the end of a map is refused, and the map stays" },
      NEED_MAPS,
      check_across },
    { { "unmap-two", "VU-UNMAP-3", "a range of two maps is refused, and both stay" }, NEED_MAPS, check_two },
    { { "unmap-twice", "VU-UNMAP-3", "what was unmapped already is refused" }, 0, check_twice },
    { { "unmap-size-zero", "VU-UNMAP-3", "size 0 is refused" }, NEED_MAPS, check_size_zero },
    { { "unmap-wrap", "VU-UNMAP-3", "a range that wraps around is refused" }, NEED_MAPS, check_wrap },
    { { "unmap-nothing-enoent", "VU-UNMAP-4", "a range that is not mapped fails with ENOENT" },
      NEED_MAPS,
      check_nothing_enoent },
    { { "unmap-inexact-enoent", "VU-UNMAP-4", "a range that is mapped otherwise fails with ENOENT" },
      NEED_MAPS,
      check_part_enoent },
    { { "unmap-reply", "VU-UNMAP-5", "the reply repeats address and size in 24 bytes" }, 0, check_reply },
    { { "unmap-reply-all", "VU-UNMAP-5", "so it does if everything was unmapped" }, NEED_MAPS, check_reply_all },
    { { "unmap-argsz-large", "VU-UNMAP-5", "an argsz beyond 24 bytes makes the reply no longer" },
      0,
      check_argsz_large },
    { { "unmap-closed", "VU-UNMAP-6", "the descriptors of what was unmapped are closed" }, NEED_SPAWN, check_closed },
    { { "unmap-again", "VU-UNMAP-8", "a range is mapped and unmapped again and again" }, 0, check_again },
    { { "unmap-again-stream", "VU-UNMAP-8", "so it is by a stream that does not wait for replies" },
      0,
      check_again_stream },
    { { "unmap-all", "VU-UNMAP-9", "VFIO_DMA_UNMAP_FLAG_ALL ends all maps, with descriptors and without" },
      NEED_MAPS,
      check_all },
    { { "unmap-all-none", "VU-UNMAP-15", "VFIO_DMA_UNMAP_FLAG_ALL succeeds, with a map and without" },
      NEED_MAPS,
      check_all_none },
    { { "unmap-all-address", "VU-UNMAP-10", "VFIO_DMA_UNMAP_FLAG_ALL with an address fails with EINVAL" },
      NEED_MAPS,
      check_all_address },
    { { "unmap-all-size", "VU-UNMAP-10", "VFIO_DMA_UNMAP_FLAG_ALL with a size fails with EINVAL" },
      NEED_MAPS,
      check_all_size },
    { { "unmap-unknown-flags", "VU-UNMAP-11", "each unknown flag fails with EINVAL" }, NEED_MAPS, check_flags },
    { { "unmap-descriptor", "VU-UNMAP-12", "a descriptor that comes with DMA_UNMAP is closed and ignored" },
      0,
      check_descriptor },
    { { "unmap-descriptor-all", "VU-UNMAP-12", "so is one with VFIO_DMA_UNMAP_FLAG_ALL" },
      NEED_MAPS,
      check_descriptor_all },
    { { "unmap-descriptor-none", "VU-CON-19", "a descriptor that comes with a DMA_UNMAP of nothing is closed" },
      0,
      check_descriptor_none },
    { { "unmap-argsz-small", "VU-UNMAP-13", "the reply is no longer than argsz, or an error" }, 0, check_argsz },
    { { NULL, NULL, NULL }, 0, NULL },
};
