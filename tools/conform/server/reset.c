/* reset.c: VU-RESET: what DEVICE_RESET brings back, and what outlives it; and VU-PCI-17. */
#include "guest.h"
#include "irqs.h"

#include "../transcript.h"

#define COMMAND  0x04
#define BARS     0x10
#define CAP_MSI  0x05
#define CAP_MSIX 0x11
#define AT       UINT64_C(0x100000)
#define PROT     3

#define MOST_REGISTERS 32u

/* --- The command ------------------------------------------------------------------------------------------------- */

static void reset_no_payload(struct judge *j)
{
    struct ob_raw_message *m;

    want_ok(j, call(j, OB_RAW_RESET, NULL, 0, NULL, 0, &m), "DEVICE_RESET");
    want(j, m->size == 0 && m->nfds == 0, "the reply has %u bytes of payload and %u descriptors, wanted none", m->size,
         m->nfds);
}

static void reset_payload(struct judge *j)
{
    static const uint8_t payload[64];
    static const uint32_t sizes[] = { 1, 4, 64 };
    char what[64];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        snprintf(what, sizeof(what), "DEVICE_RESET with %u bytes of payload", sizes[i]);
        want_refused(j, call(j, OB_RAW_RESET, payload, sizes[i], NULL, 0, NULL), what);
        judge_reconnect(j); /* whether the payload is skipped is for others to say */
    }
}

static void reset_again(struct judge *j)
{
    for (unsigned i = 0; i < 20; i++)
        reset(j);
}

static void reset_posted(struct judge *j)
{
    config_write(j, COMMAND, 2, 2);
    reset(j);
    if (config_read(j, COMMAND, 2) != 0)
        judge_skip(j, "a reset does not show in COMMAND");
    config_write(j, COMMAND, 2, 2);
    post(j, OB_RAW_RESET, NULL, 0, NULL, 0);
    want(j, config_read(j, COMMAND, 2) == 0, "COMMAND is %#x after a posted DEVICE_RESET", config_read(j, COMMAND, 2));
}

static void reset_without_flag(struct judge *j)
{
    if (j->facts.has & NEED_RESET)
        judge_skip(j, "the device can be reset");
    want_refused(j, call(j, OB_RAW_RESET, NULL, 0, NULL, 0, NULL), "DEVICE_RESET without VFIO_DEVICE_FLAGS_RESET");
}

/* --- What is as after power-on ----------------------------------------------------------------------------------- */

static void reset_header(struct judge *j)
{
    uint8_t before[64], after;

    reset(j);
    for (unsigned i = 0; i < sizeof(before); i++)
        before[i] = (uint8_t)config_read(j, i, 1);
    config_write(j, COMMAND, 2, 0x407);
    for (unsigned i = 0; i < 6; i++)
        config_write(j, BARS + 4 * i, 4, 0xe0000000);
    config_write(j, 0x0c, 1, 16); /* Cache Line Size, which some devices have */
    reset(j);
    for (unsigned i = 0; i < sizeof(before); i++) {
        after = (uint8_t)config_read(j, i, 1);
        want(j, after == before[i], "byte %#x of configuration space is %#x after a reset, and was %#x after the first",
             i, after, before[i]);
    }
}

static void reset_command(struct judge *j)
{
    config_write(j, COMMAND, 2, 0x407);
    reset(j);
    want(j, config_read(j, COMMAND, 2) == 0, "COMMAND is %#x after a reset, wanted 0", config_read(j, COMMAND, 2));
}

static void reset_bars(struct judge *j)
{
    for (unsigned i = 0; i < 6; i++)
        config_write(j, BARS + 4 * i, 4, 0xffffffff);
    reset(j);
    for (unsigned i = 0; i < 6; i++) {
        const uint32_t bar = config_read(j, BARS + 4 * i, 4), mask = bar & 1 ? ~3u : ~15u;

        want(j, (bar & mask) == 0, "BAR %u is %#x after a reset, wanted 0 but for its type bits", i, bar);
    }
}

static void messages_disabled(struct judge *j, uint32_t index, uint8_t id, uint32_t enable, const char *name)
{
    const uint32_t at = config_capability(j, id);
    uint32_t control;

    if (at == 0)
        judge_skip(j, "there is no %s capability", name);
    device_messages(j, index, true);
    want(j, config_read(j, at + 2, 2) & enable, "%s was enabled, and is not", name);
    reset(j);
    control = config_read(j, at + 2, 2);
    want(j, !(control & enable), "%s is still enabled after a reset: Message Control is %#x", name, control);
}

static void reset_msi(struct judge *j)
{
    messages_disabled(j, MSI, CAP_MSI, 1, "MSI");
}

static void reset_msix(struct judge *j)
{
    messages_disabled(j, MSIX, CAP_MSIX, 0x8000, "MSI-X");
}

/* Those of a device that is known that a reset has to bring back. */
static void reset_registers(struct judge *j)
{
    const struct exerciser *e = j->facts.exerciser;
    uint64_t before[MOST_REGISTERS], after;
    unsigned changed = 0;

    if (e == NULL || e->mark == NULL)
        judge_skip(j, "no register of this device is known");
    device_on(j, true);
    for (unsigned i = 0; e->show[i].width != 0 && i < MOST_REGISTERS; i++)
        before[i] = bar_read(j, e->show[i].region, e->show[i].offset, e->show[i].width);
    e->mark(j, 0x5a);
    for (unsigned i = 0; e->show[i].width != 0 && i < MOST_REGISTERS; i++)
        changed += bar_read(j, e->show[i].region, e->show[i].offset, e->show[i].width) != before[i];
    want(j, changed > 0, "no register of the device shows what was written");
    device_on(j, true);
    for (unsigned i = 0; e->show[i].width != 0 && i < MOST_REGISTERS; i++) {
        after = bar_read(j, e->show[i].region, e->show[i].offset, e->show[i].width);
        want(j, after == before[i],
             "the register at %#llx of region %u is %#llx after a reset, and was %#llx after the first",
             (unsigned long long)e->show[i].offset, e->show[i].region, (unsigned long long)after,
             (unsigned long long)before[i]);
    }
}

/* QEMU keeps the table to itself, so a server need not have one that can be accessed. */
static void reset_msix_table(struct judge *j)
{
    static const uint32_t entry[4] = { 0xfee00000, 0x12345678, 0x4041, 0 };
    const uint32_t at = config_capability(j, CAP_MSIX), where = at != 0 ? config_read(j, at + 4, 4) : 0;
    const struct ob_raw_region request = { .offset = where & ~7u, .region = where & 7, .count = 4 };
    uint32_t before[4];

    if (at == 0 || call(j, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, NULL) != 0)
        judge_skip(j, "there is no MSI-X table that can be read");
    device_on(j, false);
    for (unsigned i = 0; i < 4; i++) {
        before[i] = (uint32_t)bar_read(j, request.region, request.offset + 4 * i, 4);
        bar_write(j, request.region, request.offset + 4 * i, 4, entry[i]);
    }
    device_on(j, false);
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t after = (uint32_t)bar_read(j, request.region, request.offset + 4 * i, 4);

        want(j, after == before[i],
             "word %u of the first entry of MSI-X's table is %#x after a reset, and was %#x after the first", i, after,
             before[i]);
    }
}

/* A cause that was not cleared is gone. */
static void reset_intx(struct judge *j)
{
    int fd;

    device_needs(j, INTX);
    fd = irqs_ready(j, INTX)[0];
    device_raise(j, INTX, 0);
    want_signal(j, fd, "INTx was raised");
    reset(j);
    irqs_enable(j, INTX);
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_none(j, fd, "INTx was raised, the device reset, and INTx unmasked");
}

/* A message that was held back is gone. */
static void reset_pending(struct judge *j)
{
    uint32_t at;
    int fd;

    device_needs(j, MSIX);
    fd = irqs_ready(j, MSIX)[0];
    at = config_capability(j, CAP_MSIX);
    config_write(j, at + 2, 2, 0xc000);
    device_raise(j, MSIX, 0);
    want_alive(j, "GET_INFO");
    if (signals(j, fd) != 0)
        judge_skip(j, "MSI-X's function mask does not hold messages back");
    reset(j);
    irqs_enable(j, MSIX);
    want_none(j, fd, "vector 0 was raised while masked, the device reset, and MSI-X enabled");
}

/* --- What outlives it -------------------------------------------------------------------------------------------- */

static void reset_maps(struct judge *j)
{
    const uint64_t page = j->facts.page;

    want_ok(j, map(j, AT, 2 * page, PROT, judge_memfd(j, 2 * page), 0), "DMA_MAP");
    want_ok(j, map(j, AT + 4 * page, page, PROT, -1, 0), "DMA_MAP without a descriptor");
    reset(j);
    want_ok(j, unmap(j, AT, 2 * page), "DMA_UNMAP, after a reset, of what was mapped before");
    want_ok(j, unmap(j, AT + 4 * page, page), "DMA_UNMAP, after a reset, of what was mapped without a descriptor");
}

static void reset_maps_used(struct judge *j)
{
    const struct guest_pair p = guest_pair(j, true);

    device_on(j, true);
    transfer_ok(j, GUEST_FROM, GUEST_TO, GUEST_LEN, "of memory that was mapped before a reset");
    want(j, guest_filled(p.to->bytes, GUEST_LEN, 1), "what the device copied after a reset is not in the memory");
}

static void reset_eventfds(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);

    irqs_on(j, index);
    irqs_trigger(j, index, 0, n);
    for (unsigned i = 0; i < n; i++)
        want_one(j, fds[i], "vector %u was triggered, and had got this eventfd before a reset", i);
}

static void reset_eventfds_device(struct judge *j)
{
    for (uint32_t i = INTX; i <= MSIX; i++) {
        int fd;

        if (!(j->facts.exerciser->irqs & 1u << i) || j->facts.irq[i].count == 0)
            continue;
        fd = irqs_ready(j, i)[0];
        irqs_on(j, i);
        device_raise(j, i, 0);
        want_one(j, fd, "the device raised vector 0 of index %u, which had got this eventfd before a reset", i);
        device_lower(j, i, 0);
    }
}

/* The guest reboots: INTx off, COMMAND 0, reset, INTx on, 0 to the BARs; twice. */
static void reset_qemu(struct judge *j)
{
    const int fd = judge_eventfd(j);

    device_needs(j, INTX);
    irqs_ready(j, INTX);
    for (unsigned turn = 0; turn < 2; turn++) {
        irqs_disable(j, INTX);
        config_write(j, COMMAND, 2, 0);
        reset(j);
        irqs_assign(j, INTX, 0, 1, &fd);
        for (unsigned i = 0; i < 6; i++)
            config_write(j, BARS + 4 * i, 4, 0);
    }
    irqs_enable(j, INTX);
    device_raise(j, INTX, 0);
    want_one(j, fd, "INTx was raised after the messages of a reboot as QEMU sends them");
    device_lower(j, INTX, 0);
}

/* --- What was begun before it ------------------------------------------------------------------------------------ */

static void reset_signals(struct judge *j)
{
    const uint32_t index = device_irq(j);
    const int fd = irqs_ready(j, index)[0];

    device_raise(j, index, 0);
    reset(j);
    signals(j, fd);
    irqs_enable(j, index);
    want_none(j, fd, "an interrupt was raised before a reset; after its reply");
}

/* The copy behind the reset ends after one that was begun before it. */
static void reset_copy(struct judge *j)
{
    const struct guest_pair p = guest_pair(j, true);
    uint8_t before[GUEST_LEN];

    device_copy_begin(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
    reset(j);
    memcpy(before, p.to->bytes, GUEST_LEN);
    device_on(j, true);
    transfer_ok(j, GUEST_FROM, GUEST_TO + GUEST_LEN, GUEST_LEN, "after a reset");
    want(j, memcmp(p.to->bytes, before, GUEST_LEN) == 0,
         "a copy that was begun before a reset wrote to memory after its reply");
}

/* Begins a copy by messages, and returns the DMA_READ that waits for its reply. */
static struct ob_raw_message *copy_waits(struct judge *j)
{
    guest_pair(j, false);
    j->guest->later = GUEST_BOTH;
    device_copy_begin(j, GUEST_FROM, GUEST_TO, GUEST_LEN);
    return guest_asked(j, OB_RAW_DMA_READ);
}

/* What waits for the client is answered behind the reset, and nothing follows. */
static void reset_messages(struct judge *j)
{
    struct ob_raw_message *read;

    guest_needs_crossing(j);
    read = copy_waits(j);
    reset(j);
    while (j->raw.later != NULL) /* sent before the reset */
        judge_keep(j, ob_raw_later(&j->raw));
    guest_answer_well(j, read, 0x5a);
    want_alive(j, "GET_INFO behind the answer to a DMA_READ");
    want_alive(j, "GET_INFO");
    want(j, j->raw.later == NULL, "a %s came after the reply to DEVICE_RESET",
         command_name(j->raw.later->header.command));
}

const struct check server_reset_checks[] = {
    { { "reset-no-payload", "VU-RESET-1", "the reply has no payload" }, NEED_RESET, reset_no_payload },
    { { "reset-payload", "VU-RESET-2", "DEVICE_RESET with a payload is refused" }, NEED_RESET, reset_payload },
    { { "reset-again", "VU-RESET-3", "the device can be reset again and again" }, NEED_RESET, reset_again },
    { { "reset-posted", "VU-HDR-7", "a posted DEVICE_RESET is executed" }, NEED_RESET, reset_posted },
    { { "reset-without-flag", "VU-RESET-10", "a device without the RESET flag refuses it" }, 0, reset_without_flag },
    { { "reset-header", "VU-PCI-17", "the header of configuration space is as after the first reset" },
      NEED_RESET,
      reset_header },
    { { "reset-command", "VU-PCI-17", "COMMAND is 0 after a reset" }, NEED_RESET, reset_command },
    { { "reset-bars", "VU-PCI-17", "BARs are 0 but for their type bits after a reset" }, NEED_RESET, reset_bars },
    { { "reset-msi", "VU-PCI-17", "MSI is disabled after a reset" }, NEED_RESET, reset_msi },
    { { "reset-msix", "VU-PCI-17", "MSI-X is disabled after a reset" }, NEED_RESET, reset_msix },
    { { "reset-registers", "VU-RESET-3", "registers have their first values after a reset" },
      NEED_RESET,
      reset_registers },
    { { "reset-msix-table", "VU-RESET-3", "the MSI-X table is as after the first reset" },
      NEED_RESET | NEED_MSIX,
      reset_msix_table },
    { { "reset-intx", "VU-RESET-3", "a cause of INTx is gone after a reset" },
      NEED_RESET | NEED_INTERRUPT,
      reset_intx },
    { { "reset-pending", "VU-RESET-3", "a message that was pending is gone after a reset" },
      NEED_RESET | NEED_INTERRUPT,
      reset_pending },
    { { "reset-maps", "VU-RESET-4", "DMA maps outlive a reset" }, NEED_RESET, reset_maps },
    { { "reset-maps-used", "VU-RESET-4", "the device uses maps from before a reset" },
      NEED_RESET | NEED_DMA,
      reset_maps_used },
    { { "reset-eventfds", "VU-RESET-5", "eventfds outlive a reset" }, NEED_RESET | NEED_IRQ, reset_eventfds },
    { { "reset-eventfds-device", "VU-RESET-5", "the device signals eventfds from before a reset" },
      NEED_RESET | NEED_INTERRUPT,
      reset_eventfds_device },
    { { "reset-qemu", "VU-RESET-5", "INTx works after a reboot as QEMU does it" },
      NEED_RESET | NEED_INTERRUPT,
      reset_qemu },
    { { "reset-signals", "VU-RESET-6", "an interrupt from before a reset is not signalled after it" },
      NEED_RESET | NEED_INTERRUPT,
      reset_signals },
    { { "reset-copy", "VU-RESET-6", "a transfer from before a reset does not write after it" },
      NEED_RESET | NEED_DMA,
      reset_copy },
    { { "reset-messages", "VU-RESET-6", "a transfer by messages from before a reset sends none after it" },
      NEED_RESET | NEED_DMA,
      reset_messages },
    { { NULL, NULL, NULL }, 0, NULL },
};
