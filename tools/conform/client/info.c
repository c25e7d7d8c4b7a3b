/* info.c: VU-INFO and VU-IRQ: how clients ask what the device is, and what they make of the answers. */
#include "check.h"

/* --- Layouts ------------------------------------------------------------------------------------------------------ */

/* A structure of the kernel's, of which the request sets argsz, and the index at 8 if it has one. */
static bool info_request(struct trial *t, const struct ob_raw_message *m, uint16_t command, uint32_t size,
                         bool has_index)
{
    if (m->header.command != command)
        return false;
    if (m->size != size)
        trial_wrong(t, "%s should have %u bytes of payload, and has %u", command_name(command), size, m->size);
    else if (get32(m, 0) < size)
        trial_wrong(t, "the argsz of %s should be at least %u, and is %u", command_name(command), size, get32(m, 0));
    for (uint32_t at = 4; at < size; at += 4) {
        if (get32(m, at) != 0 && !(has_index && at == 8))
            trial_wrong(t, "%s: the 4 bytes at %u should be 0, and are %#x", command_name(command), at, get32(m, at));
    }
    return true;
}

static bool info_layout(struct trial *t, const struct ob_raw_message *m)
{
    return info_request(t, m, OB_RAW_GET_INFO, 16, false);
}

static bool region_info_layout(struct trial *t, const struct ob_raw_message *m)
{
    return info_request(t, m, OB_RAW_GET_REGION_INFO, 32, true);
}

static bool io_fds_layout(struct trial *t, const struct ob_raw_message *m)
{
    return info_request(t, m, OB_RAW_GET_REGION_IO_FDS, 16, true);
}

static bool irq_info_layout(struct trial *t, const struct ob_raw_message *m)
{
    return info_request(t, m, OB_RAW_GET_IRQ_INFO, 16, true);
}

/* Whether the message names a region or an interrupt type. */
static bool names_index(const struct ob_raw_message *m, bool *region)
{
    switch (m->header.command) {
    case OB_RAW_GET_REGION_INFO:
    case OB_RAW_GET_REGION_IO_FDS:
    case OB_RAW_REGION_READ:
    case OB_RAW_REGION_WRITE:
        *region = true;
        return true;
    case OB_RAW_GET_IRQ_INFO:
    case OB_RAW_SET_IRQS:
        *region = false;
        return true;
    default:
        return false;
    }
}

static bool index_in_range(struct trial *t, const struct ob_raw_message *m)
{
    uint32_t number;
    bool region;

    if (!names_index(m, &region))
        return false;
    number = region ? t->model.regions : t->model.irqs;
    if (get32(m, 8) >= number)
        trial_wrong(t, "%s: the device has %u %s, and index %u is asked for", command_name(m->header.command), number,
                    region ? "regions" : "interrupt types", get32(m, 8));
    return true;
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

static void info_longer(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await(t, OB_RAW_GET_INFO));

    reply_resize(reply, 24);
    reply_put32(reply, 0, 24);
    trial_send(t, reply);
    trial_want_same(t, 0);
}

static void info_flags(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await(t, OB_RAW_GET_INFO));

    reply_put32(reply, 4, reply_get32(reply, 4) | 0x40000000);
    trial_send(t, reply);
    trial_want_same(t, 0);
}

static void irq_flags(struct trial *t)
{
    for (unsigned i = 0; i < MODEL_IRQS; i++)
        t->model.irq[i].flags |= 0x40000000;
    trial_want_same(t, 0);
}

/* The client may refuse such a device; if it does not, it asks for nothing that there is not. */
static void want_in_range(struct trial *t, const char *what)
{
    struct ob_raw_message *m;
    bool region;

    while ((m = trial_next(t)) != NULL) {
        if (names_index(m, &region))
            trial_want(t, get32(m, 8) < (region ? t->model.regions : t->model.irqs),
                       "%s: no index beyond should be asked for, and %s of index %u came", what,
                       command_name(m->header.command), get32(m, 8));
        trial_answer(t, m);
    }
    trial_want_survived(t, what);
}

static void few_regions(struct trial *t)
{
    t->model.regions = 3;
    want_in_range(t, "a device with 3 regions");
}

static void few_irqs(struct trial *t)
{
    t->model.irqs = 1;
    want_in_range(t, "a device with 1 interrupt type");
}

static void no_regions(struct trial *t)
{
    t->model.regions = t->model.irqs = 0;
    want_in_range(t, "a device without regions and interrupts");
}

static void not_pci(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await(t, OB_RAW_GET_INFO));

    reply_put32(reply, 4, reply_get32(reply, 4) & ~(uint32_t)VFIO_DEVICE_FLAGS_PCI);
    trial_send(t, reply);
    want_in_range(t, "a device that is not a PCI device");
}

/* More than any memory is enough for. */
static void huge_numbers(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await(t, OB_RAW_GET_INFO));

    reply_put32(reply, 8, UINT32_MAX);
    reply_put32(reply, 12, UINT32_MAX);
    trial_send(t, reply);
    trial_want_refused(t, "a device with 4,294,967,295 regions and as many interrupt types");
}

const struct client_check client_info_checks[] = {
    RULE("info-layout", "VU-INFO-1", "GET_INFO has argsz, and 0 in the rest", info_layout,
         "the client sent no GET_INFO"),
    RULE("info-index", "VU-INFO-13", "no index beyond the device's numbers is asked for", index_in_range,
         "the client asked for no region or interrupt"),
    RULE("region-info-layout", "VU-REG-1", "GET_REGION_INFO has argsz, index, and 0 in the rest", region_info_layout,
         "the client sent no GET_REGION_INFO"),
    RULE("io-fds-layout", "VU-IOFD-1", "GET_REGION_IO_FDS has argsz, index, and 0 in the rest", io_fds_layout,
         "the client sent no GET_REGION_IO_FDS"),
    RULE("irq-info-layout", "VU-IRQ-1", "GET_IRQ_INFO has argsz, index, and 0 in the rest", irq_info_layout,
         "the client sent no GET_IRQ_INFO"),
    VARIATION("info-longer", "VU-INFO-12", "a longer reply to GET_INFO is accepted", info_longer),
    VARIATION("info-unknown-flag", "VU-INFO-12", "unknown flags of the device are ignored", info_flags),
    VARIATION("irq-unknown-flag", "VU-IRQ-11", "unknown flags of interrupts are ignored", irq_flags),
    FAULT("info-few-regions", "VU-INFO-13", "a device with 3 regions is refused or used as it is", few_regions),
    FAULT("info-few-irqs", "VU-INFO-13", "a device with 1 interrupt type is refused or used as it is", few_irqs),
    FAULT("info-nothing", "VU-INFO-13", "a device without regions is refused or used as it is", no_regions),
    FAULT("info-not-pci", "VU-INFO-13", "a device that is not a PCI device is refused or used as it is", not_pci),
    FAULT("info-huge-numbers", "VU-INFO-13", "a device with more regions than can be is refused", huge_numbers),
    { .is = { NULL, NULL, NULL } },
};
