/* info.c: VU-INFO: what GET_INFO answers. */
#include "check.h"

static int ask(struct judge *j, uint32_t argsz, size_t size, struct ob_raw_message **reply)
{
    uint8_t *payload = judge_alloc(j, size);

    memcpy(payload, &argsz, 4);
    return call(j, OB_RAW_GET_INFO, payload, size, NULL, 0, reply);
}

static void info_layout(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, 16, 16, &m), "GET_INFO");
    want(j, m->size == 16, "the payload has %u bytes, wanted 16", m->size);
    want(j, field32(j, m, 0) == m->size, "argsz is %u, the payload has %u bytes", field32(j, m, 0), m->size);
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

    want(j, flag == (r == 0), "VFIO_DEVICE_FLAGS_RESET is %s, but DEVICE_RESET %s", flag ? "set" : "clear",
         r == 0 ? "succeeds" : "is refused");
}

static void info_regions(struct judge *j)
{
    want(j, j->facts.regions >= VFIO_PCI_NUM_REGIONS, "num_regions is %u, wanted %u or more", j->facts.regions,
         VFIO_PCI_NUM_REGIONS);
}

static void info_irqs(struct judge *j)
{
    want(j, j->facts.irqs >= VFIO_PCI_NUM_IRQS, "num_irqs is %u, wanted %u or more", j->facts.irqs, VFIO_PCI_NUM_IRQS);
}

static void info_argsz_small(struct judge *j)
{
    want_error(j, ask(j, 15, 16, NULL), EINVAL, "GET_INFO with argsz 15");
    want_error(j, ask(j, 0, 16, NULL), EINVAL, "GET_INFO with argsz 0");
}

static void info_argsz_large(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, ask(j, 4096, 16, &m), "GET_INFO with argsz 4096");
    want(j, field32(j, m, 8) == j->facts.regions, "num_regions is %u, was %u", field32(j, m, 8), j->facts.regions);
}

static void info_payload_large(struct judge *j)
{
    want_ok(j, ask(j, 20, 20, NULL), "GET_INFO with 20 bytes of payload");
    want_ok(j, ask(j, 4080, 4080, NULL), "GET_INFO with 4080 bytes of payload");
}

static void info_dirty_fields(struct judge *j)
{
    uint32_t dirty[4] = { 16, 0xffffffff, 77, 88 };
    struct ob_raw_message *m;

    want_ok(j, call(j, OB_RAW_GET_INFO, dirty, sizeof(dirty), NULL, 0, &m), "GET_INFO with fields that are not 0");
    want(j, field32(j, m, 8) == j->facts.regions, "num_regions is %u, was %u", field32(j, m, 8), j->facts.regions);
}

const struct check server_info_checks[] = {
    { { "info-layout", "VU-INFO-2", "GET_INFO answers 16 bytes and says so in argsz" }, 0, info_layout },
    { { "info-pci", "VU-INFO-3", "the device is a PCI device" }, 0, info_pci },
    { { "info-reset-flag", "VU-INFO-4", "the RESET flag says whether DEVICE_RESET works" }, 0, info_reset_flag },
    { { "info-regions", "VU-INFO-5", "there are at least 9 regions" }, 0, info_regions },
    { { "info-irqs", "VU-INFO-6", "there are at least 5 interrupt types" }, 0, info_irqs },
    { { "info-argsz-small", "VU-INFO-7", "an argsz below 16 is refused with EINVAL" }, 0, info_argsz_small },
    { { "info-argsz-large", "VU-INFO-8", "a larger argsz is accepted" }, 0, info_argsz_large },
    { { "info-payload-large", "VU-INFO-8", "more payload than the structure has is ignored" }, 0, info_payload_large },
    { { "info-dirty-fields", "VU-INFO-9", "fields that should be 0 are ignored" }, 0, info_dirty_fields },
    { { NULL, NULL, NULL }, 0, NULL },
};
