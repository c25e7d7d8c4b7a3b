/* info.c: VU-INFO: what GET_INFO answers, and what all information commands have in common. */
#include "access.h"

static int ask(struct judge *j, uint32_t argsz, size_t size, struct ob_raw_message **reply)
{
    uint8_t *payload = judge_alloc(j, size);

    memcpy(payload, &argsz, 4);
    return call(j, OB_RAW_GET_INFO, payload, size, NULL, 0, reply);
}

static uint32_t irq_types(const struct judge *j)
{
    return j->facts.irqs < 16 ? j->facts.irqs : 16;
}

/* GET_REGION_INFO, GET_REGION_IO_FDS or GET_IRQ_INFO with the index at 8, in a payload of `size` bytes. */
static int ask_index(struct judge *j, uint16_t command, uint32_t index, uint32_t argsz, size_t size,
                     struct ob_raw_message **reply)
{
    uint8_t *payload = judge_alloc(j, size);

    memcpy(payload, &argsz, 4);
    memcpy(payload + 8, &index, 4);
    return call(j, command, payload, size, NULL, 0, reply);
}

static void info_layout(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, 16, 16, &m), "GET_INFO");
    want(j, m->size >= 16, "the payload has %u bytes, wanted 16", m->size);
    want(j, field32(j, m, 0) == m->size, "argsz is %u, the payload has %u bytes", field32(j, m, 0), m->size);
}

static void info_sixteen(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, 4096, 16, &m), "GET_INFO with argsz 4096");
    want(j, m->size == 16, "the payload has %u bytes for argsz 4096, wanted 16", m->size);
    want_ok(j, ask(j, 4096, 4096, &m), "GET_INFO with a payload of 4096 bytes");
    want(j, m->size == 16, "the payload has %u bytes for one of 4096, wanted 16", m->size);
}

static void info_pci(struct judge *j)
{
    want(j, j->facts.device_flags & VFIO_DEVICE_FLAGS_PCI, "flags are %#x, without VFIO_DEVICE_FLAGS_PCI",
         j->facts.device_flags);
}

static void info_reset_flag(struct judge *j)
{
    bool flag = j->facts.device_flags & VFIO_DEVICE_FLAGS_RESET;
    int r = call(j, OB_RAW_RESET, NULL, 0, NULL, 0, NULL);

    want(j, !flag || r == 0, "VFIO_DEVICE_FLAGS_RESET is set, and DEVICE_RESET is refused");
}

static void info_regions(struct judge *j)
{
    want(j, j->facts.regions >= VFIO_PCI_NUM_REGIONS, "num_regions is %u, wanted %u or more", j->facts.regions,
         VFIO_PCI_NUM_REGIONS);
}

static void info_irqs(struct judge *j)
{
    const uint32_t least = VFIO_PCI_MSIX_IRQ_INDEX + 1;

    want(j, j->facts.irqs >= least, "num_irqs is %u, wanted %u or more", j->facts.irqs, least);
    if (j->facts.irqs < VFIO_PCI_NUM_IRQS)
        judge_advise(j, "num_irqs is %u; all others say %u or more", j->facts.irqs, VFIO_PCI_NUM_IRQS);
}

static void info_argsz_small(struct judge *j)
{
    struct ob_raw_message *m = NULL;
    int r;

    r = ask(j, 15, 16, &m);
    want_no_more(j, r, m, 15, "GET_INFO with argsz 15");
    r = ask(j, 0, 16, &m);
    want_no_more(j, r, m, 0, "GET_INFO with argsz 0");
}

/* --- More room, and more payload, than the structure needs ------------------------------------------------------- */

static void info_argsz_large(struct judge *j)
{
    static const uint32_t large[] = { 17, 32, 4096, 0xffffffff };
    struct ob_raw_message *m;

    for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++) {
        char what[64];

        snprintf(what, sizeof(what), "GET_INFO with argsz %u", large[i]);
        want_ok(j, ask(j, large[i], 16, &m), what);
        want(j, field32(j, m, 8) == j->facts.regions, "num_regions is %u, was %u", field32(j, m, 8), j->facts.regions);
    }
}

/* A server that takes the excess for the next message is judged by others: each request has a connection of its own. */
static void info_payload_large(struct judge *j)
{
    want_ok(j, ask(j, 20, 20, NULL), "GET_INFO with 20 bytes of payload");
    judge_reconnect(j);
    want_ok(j, ask(j, 4080, 4080, NULL), "GET_INFO with 4080 bytes of payload");
    judge_reconnect(j);
    want_ok(j, ask(j, 4096, 4096, NULL), "GET_INFO with 4096 bytes of payload");
}

/* Every index is asked for with `size` bytes of payload, `apart`: over connections of their own; the answer has the
 * index. */
static void every_index(struct judge *j, uint16_t command, const char *name, uint32_t count, uint32_t argsz,
                        size_t size, bool apart)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ob_raw_message *m;
        char what[96];

        if (apart)
            judge_reconnect(j);
        snprintf(what, sizeof(what), "%s of index %u with argsz %u and %zu bytes of payload", name, i, argsz, size);
        want_ok(j, ask_index(j, command, i, argsz, size, &m), what);
        want(j, field32(j, m, 8) == i, "%s: the answer is of index %u", what, field32(j, m, 8));
    }
}

/* All on one connection, as SPDK does it. */
static void info_spdk(struct judge *j)
{
    const uint32_t info[4] = { sizeof(info) };

    bool lost = ask_index(j, OB_RAW_GET_REGION_INFO, 0, 4080, 4080, NULL) == 0 &&
                ob_raw_call(&j->raw, OB_RAW_GET_INFO, info, sizeof(info), NULL, 0, NULL) < 0;

    judge_reconnect(j);
    if (lost)
        judge_skip(j, "what is behind the fields of a command is taken for the next message");
    every_index(j, OB_RAW_GET_REGION_INFO, "GET_REGION_INFO", regions(j), 4080, 4080, false);
}

static void info_payload_region(struct judge *j)
{
    every_index(j, OB_RAW_GET_REGION_INFO, "GET_REGION_INFO", regions(j), 32, 33, true);
    every_index(j, OB_RAW_GET_REGION_INFO, "GET_REGION_INFO", regions(j), 4096, 4096, true);
}

static void info_argsz_region(struct judge *j)
{
    every_index(j, OB_RAW_GET_REGION_INFO, "GET_REGION_INFO", regions(j), 0xffffffff, 32, false);
}

static void info_payload_irq(struct judge *j)
{
    every_index(j, OB_RAW_GET_IRQ_INFO, "GET_IRQ_INFO", irq_types(j), 16, 17, true);
    every_index(j, OB_RAW_GET_IRQ_INFO, "GET_IRQ_INFO", irq_types(j), 4096, 4096, true);
}

static void info_argsz_irq(struct judge *j)
{
    every_index(j, OB_RAW_GET_IRQ_INFO, "GET_IRQ_INFO", irq_types(j), 0xffffffff, 16, false);
}

static void info_payload_io_fds(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        char what[96];

        if (!j->facts.region[i].io_fds)
            continue;
        snprintf(what, sizeof(what), "GET_REGION_IO_FDS of region %u with 4096 bytes of payload", i);
        want_ok(j, ask_index(j, OB_RAW_GET_REGION_IO_FDS, i, 4096, 4096, NULL), what);
        return;
    }
    judge_skip(j, "GET_REGION_IO_FDS is refused for every region");
}

/* --- Fields that are to be ignored ------------------------------------------------------------------------------- */

static void info_dirty_fields(struct judge *j)
{
    uint32_t dirty[4] = { 16, 0xffffffff, 77, 88 };
    struct ob_raw_message *m;

    want_ok(j, call(j, OB_RAW_GET_INFO, dirty, sizeof(dirty), NULL, 0, &m), "GET_INFO with fields that are not 0");
    want(j, field32(j, m, 8) == j->facts.regions, "num_regions is %u, was %u", field32(j, m, 8), j->facts.regions);
}

/* Asks again with the last reply, whose fields are then made all ones, all but argsz and index. */
static void ask_again(struct judge *j, uint16_t command, const char *name, uint32_t index, uint32_t size)
{
    struct ob_raw_message *first, *m;
    uint8_t *payload;
    uint32_t argsz;
    char what[96];

    snprintf(what, sizeof(what), "%s of index %u, with the last reply for a request", name, index);
    want_ok(j, ask_index(j, command, index, size, size, &first), name);
    argsz = field32(j, first, 0);
    payload = judge_alloc(j, size);
    memcpy(payload, first->payload, first->size < size ? first->size : size);
    for (int turn = 0; turn < 2; turn++) {
        want_ok(j, call(j, command, payload, size, NULL, 0, &m), what);
        want(j, field32(j, m, 8) == index && field32(j, m, 0) == argsz, "%s: index %u and argsz %u, wanted %u and %u",
             what, field32(j, m, 8), field32(j, m, 0), index, argsz);
        memset(payload + 4, 0xff, 4);
        memset(payload + 12, 0xff, size - 12);
        snprintf(what, sizeof(what), "%s of index %u, with all ones for 0", name, index);
    }
}

static void info_dirty_region(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++)
        ask_again(j, OB_RAW_GET_REGION_INFO, "GET_REGION_INFO", i, 32);
}

static void info_dirty_irq(struct judge *j)
{
    for (uint32_t i = 0; i < irq_types(j); i++)
        ask_again(j, OB_RAW_GET_IRQ_INFO, "GET_IRQ_INFO", i, 16);
}

/* --- Replies that fit -------------------------------------------------------------------------------------------- */

static void info_bound(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, 16, 16, &m), "GET_INFO");
    want(j, m->size <= 16, "GET_INFO with argsz 16: a payload of %u bytes", m->size);
    want_ok(j, ask(j, 16, 4096, &m), "GET_INFO");
    want(j, m->size <= 16, "GET_INFO with argsz 16 and a payload of 4096 bytes: one of %u bytes", m->size);
}

static void info_bound_region(struct judge *j)
{
    struct ob_raw_message *m;

    for (uint32_t i = 0; i < regions(j); i++) {
        const uint32_t full = j->facts.region[i].argsz;

        for (uint32_t argsz = 32; argsz < full && argsz < 4096; argsz++) {
            want_ok(j, ask_region(j, i, argsz, &m), "GET_REGION_INFO");
            want(j, m->size <= argsz, "GET_REGION_INFO of region %u with argsz %u: a payload of %u bytes", i, argsz,
                 m->size);
        }
    }
}

static void info_bound_irq(struct judge *j)
{
    struct ob_raw_message *m;

    for (uint32_t i = 0; i < irq_types(j); i++) {
        want_ok(j, ask_index(j, OB_RAW_GET_IRQ_INFO, i, 16, 16, &m), "GET_IRQ_INFO");
        want(j, m->size <= 16, "GET_IRQ_INFO of index %u with argsz 16: a payload of %u bytes", i, m->size);
    }
}

/* --- Answers that stay ------------------------------------------------------------------------------------------- */

/* What a driver does to a device that it starts, and what undoes it. */
struct setup {
    uint32_t command, bars[6];
};

static struct setup set_up(struct judge *j)
{
    struct setup was = { .command = config_read(j, 0x04, 2) };

    reset(j);
    for (uint32_t i = 0; i < 6; i++) {
        was.bars[i] = config_read(j, 0x10 + 4 * i, 4);
        config_write(j, 0x10 + 4 * i, 4, 0xf0000000 + (i << 24));
    }
    config_write(j, 0x04, 2, 7);
    want_ok(j, map(j, 0x10000000, j->facts.page, 3, -1, 0), "DMA_MAP");
    return was;
}

static void undo(struct judge *j, const struct setup *was)
{
    config_write(j, 0x04, 2, was->command);
    for (uint32_t i = 0; i < 6; i++)
        config_write(j, 0x10 + 4 * i, 4, was->bars[i]);
    reset(j);
}

static void want_same(struct judge *j, const struct ob_raw_message *was, const struct ob_raw_message *is,
                      const char *what)
{
    want(j, was->size == is->size && memcmp(was->payload, is->payload, is->size) == 0 && was->nfds == is->nfds,
         "%s is answered with %u bytes and %u descriptors that are not the %u bytes and %u descriptors from before the "
         "device was set up",
         what, is->size, is->nfds, was->size, was->nfds);
}

static void info_constant(struct judge *j)
{
    struct ob_raw_message *was, *is;
    struct setup before;

    want_ok(j, ask(j, 16, 16, &was), "GET_INFO");
    before = set_up(j);
    want_ok(j, ask(j, 16, 16, &is), "GET_INFO");
    undo(j, &before);
    want_same(j, was, is, "GET_INFO");
}

static void info_constant_region(struct judge *j)
{
    struct ob_raw_message *was[MAX_REGIONS], *is;
    struct setup before;
    char what[64];

    for (uint32_t i = 0; i < regions(j); i++)
        was[i] = region_info(j, i);
    before = set_up(j);
    for (uint32_t i = 0; i < regions(j); i++) {
        is = region_info(j, i);
        snprintf(what, sizeof(what), "GET_REGION_INFO of region %u", i);
        want_same(j, was[i], is, what);
    }
    undo(j, &before);
}

static void info_constant_irq(struct judge *j)
{
    struct ob_raw_message *was[16], *is;
    struct setup before;
    char what[64];

    for (uint32_t i = 0; i < irq_types(j); i++)
        want_ok(j, ask_index(j, OB_RAW_GET_IRQ_INFO, i, 16, 16, &was[i]), "GET_IRQ_INFO");
    before = set_up(j);
    for (uint32_t i = 0; i < irq_types(j); i++) {
        want_ok(j, ask_index(j, OB_RAW_GET_IRQ_INFO, i, 16, 16, &is), "GET_IRQ_INFO");
        snprintf(what, sizeof(what), "GET_IRQ_INFO of index %u", i);
        want_same(j, was[i], is, what);
    }
    undo(j, &before);
}

const struct check server_info_checks[] = {
    { { "info-layout", "VU-INFO-2", "GET_INFO answers the structure and says its size in argsz" }, 0, info_layout },
    { { "info-pci", "VU-INFO-3", "the device is a PCI device" }, 0, info_pci },
    { { "info-reset-flag", "VU-INFO-4", "DEVICE_RESET works if the flag RESET says so" }, 0, info_reset_flag },
    { { "info-regions", "VU-INFO-5", "there are at least 9 regions" }, 0, info_regions },
    { { "info-irqs", "VU-INFO-6", "there are at least 3 interrupt types" }, 0, info_irqs },
    { { "info-argsz-small", "VU-INFO-7", "an argsz below 16 is refused, or answered with no more" },
      0,
      info_argsz_small },
    { { "info-argsz-large", "VU-INFO-8", "a larger argsz is accepted" }, 0, info_argsz_large },
    { { "info-argsz-large-region", "VU-INFO-8", "a larger argsz of GET_REGION_INFO is accepted" },
      0,
      info_argsz_region },
    { { "info-argsz-large-irq", "VU-INFO-8", "a larger argsz of GET_IRQ_INFO is accepted" }, 0, info_argsz_irq },
    { { "info-payload-large", "VU-INFO-8", "more payload than the structure has is ignored" }, 0, info_payload_large },
    { { "info-payload-large-region", "VU-INFO-8", "more payload of GET_REGION_INFO is ignored" },
      0,
      info_payload_region },
    { { "info-payload-large-irq", "VU-INFO-8", "more payload of GET_IRQ_INFO is ignored" }, 0, info_payload_irq },
    { { "info-payload-large-io-fds", "VU-INFO-8", "more payload of GET_REGION_IO_FDS is ignored" },
      0,
      info_payload_io_fds },
    { { "info-spdk-requests", "VU-INFO-8", "SPDK's GET_REGION_INFO of 4080 bytes succeeds for every index" },
      0,
      info_spdk },
    { { "info-dirty-fields", "VU-INFO-9", "fields of GET_INFO that should be 0 are ignored" }, 0, info_dirty_fields },
    { { "info-dirty-region", "VU-INFO-9", "GET_REGION_INFO can be asked again with its last reply" },
      0,
      info_dirty_region },
    { { "info-dirty-irq", "VU-INFO-9", "GET_IRQ_INFO can be asked again with its last reply" }, 0, info_dirty_irq },
    { { "info-fits", "VU-INFO-10", "the reply to GET_INFO fits argsz" }, 0, info_bound },
    { { "info-fits-region", "VU-INFO-10", "the reply to GET_REGION_INFO fits every argsz" }, 0, info_bound_region },
    { { "info-fits-irq", "VU-INFO-10", "the reply to GET_IRQ_INFO fits argsz" }, 0, info_bound_irq },
    { { "info-constant", "VU-INFO-11", "GET_INFO answers the same before and after the device is set up" },
      0,
      info_constant },
    { { "info-constant-region", "VU-INFO-11", "GET_REGION_INFO answers the same before and after" },
      0,
      info_constant_region },
    { { "info-constant-irq", "VU-INFO-11", "GET_IRQ_INFO answers the same before and after" }, 0, info_constant_irq },
    { { "info-sixteen", "VU-INFO-14", "GET_INFO answers 16 bytes, whatever room there is" }, 0, info_sixteen },
    { { NULL, NULL, NULL }, 0, NULL },
};
