/* migration_still.c: VU-MIG: a device that is stopped neither interrupts nor does DMA, and then goes on; one in
 * PRE_COPY does both. For devices that the judge knows. */
#include "access.h"
#include "guest.h"
#include "migrate.h"

#include <poll.h>

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

/* An interrupt that is raised while it is masked in configuration space, and so waits to be signalled. */
struct waiting {
    uint32_t index;
    int event;
    uint32_t at, unmasked; /* a field of 2 bytes */
};

static void assign(struct judge *j, uint32_t index, int event)
{
    const struct vfio_irq_set set = { .argsz = sizeof(set),
                                      .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                                      .index = index,
                                      .count = 1 };

    want_ok(j, call(j, OB_RAW_SET_IRQS, &set, sizeof(set), &event, 1, NULL), "SET_IRQS with an eventfd");
}

/* MSI-X by its function mask, INTx by Interrupt Disable; the device is on. */
static struct waiting prepare(struct judge *j)
{
    const uint32_t known = j->facts.exerciser->irqs;
    const bool msix = known & 1u << VFIO_PCI_MSIX_IRQ_INDEX && j->facts.has & NEED_MSIX;
    struct waiting w = { .index = msix ? VFIO_PCI_MSIX_IRQ_INDEX : VFIO_PCI_INTX_IRQ_INDEX, .event = -1 };

    if (!msix && !(known & 1u << VFIO_PCI_INTX_IRQ_INDEX && j->facts.has & NEED_INTX))
        judge_skip(j, "this device's interrupts cannot be masked in configuration space");
    device_messages(j, w.index, true);
    w.at = msix ? config_capability(j, 0x11) + 2 : 0x04;
    w.unmasked = config_read(j, w.at, 2);
    w.event = judge_eventfd(j);
    assign(j, w.index, w.event);
    return w;
}

static void mask(struct judge *j, const struct waiting *w)
{
    config_write(j, w->at, 2, w->unmasked | (w->index == VFIO_PCI_MSIX_IRQ_INDEX ? 0x4000 : 0x0400));
}

static void raise_masked(struct judge *j, const struct waiting *w)
{
    mask(j, w);
    device_raise(j, w->index, 0);
    want(j, signals(j, w->event) == 0, "an interrupt that is masked in configuration space was signalled");
}

static void unmask(struct judge *j, const struct waiting *w)
{
    config_write(j, w->at, 2, w->unmasked);
}

/* Where the device is stopped the server may refuse the access: 0 or the errno. */
static int try_to_unmask(struct judge *j, const struct waiting *w)
{
    return region_write(j, VFIO_PCI_CONFIG_REGION_INDEX, w->at, &w->unmasked, 2);
}

static void want_silence(struct judge *j, const struct waiting *w, uint32_t state)
{
    want_state(j, state, "meanwhile");
    want(j, signals(j, w->event) == 0, "an interrupt was signalled in %s", state_name(state));
}

/* In RUNNING again it has to come, or silence has meant nothing. */
static void was_waiting(struct judge *j, const struct waiting *w)
{
    struct pollfd event = { .fd = w->event, .events = POLLIN };

    mask(j, w);
    unmask(j, w);
    if (poll(&event, 1, j->timeout_ms) != 1)
        judge_skip(j, "the interrupt that was pending is lost, which is for migration-irq-kept to say");
}

static void still_interrupts(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);

    raise_masked(j, &w);
    if (state == RESUMING) {
        const struct stream own = stream_save(j);

        stream_load(j, &own);
    } else {
        state_go(j, STOP);
    }
    if (state == STOP_COPY)
        state_go(j, STOP_COPY);
    (void)try_to_unmask(j, &w);
    want_silence(j, &w, state);
    if (state != STOP)
        state_go(j, STOP);
    want_silence(j, &w, STOP);
    state_go(j, RUNNING);
    was_waiting(j, &w);
    device_lower(j, w.index, 0);
    device_end(j, &found);
}

static void check_still_stop(struct judge *j)
{
    still_interrupts(j, STOP);
}

static void check_still_stop_copy(struct judge *j)
{
    still_interrupts(j, STOP_COPY);
}

static void check_still_resuming(struct judge *j)
{
    still_interrupts(j, RESUMING);
}

static void check_runs_interrupts(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);

    state_go(j, STOP);
    state_go(j, RUNNING);
    device_raise(j, w.index, 0);
    want_signal(j, w.event, "an interrupt after STOP and RUNNING");
    device_lower(j, w.index, 0);
    device_end(j, &found);
}

static void check_pending_kept(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);

    raise_masked(j, &w);
    state_go(j, STOP);
    state_go(j, RUNNING);
    unmask(j, &w);
    want_signal(j, w.event, "an interrupt that was raised before STOP, unmasked after it");
    device_lower(j, w.index, 0);
    device_end(j, &found);
}

static void check_unmasked_in_stop(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);

    raise_masked(j, &w);
    state_go(j, STOP);
    if (try_to_unmask(j, &w) != 0)
        judge_skip(j, "configuration space cannot be written in STOP");
    state_go(j, RUNNING);
    want_signal(j, w.event, "an interrupt that was unmasked in STOP, after RUNNING");
    device_lower(j, w.index, 0);
    device_end(j, &found);
}

static void check_pre_copy_interrupts(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);

    state_go(j, PRE_COPY);
    device_raise(j, w.index, 0);
    want_signal(j, w.event, "an interrupt in PRE_COPY");
    device_lower(j, w.index, 0);
    device_end(j, &found);
}

static void check_pending_same(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);
    struct stream stream;

    raise_masked(j, &w);
    stream = stream_save(j);
    state_go(j, RUNNING);
    device_lower(j, w.index, 0);
    state_go(j, STOP);
    stream_load(j, &stream);
    state_go(j, RUNNING);
    unmask(j, &w);
    want_signal(j, w.event, "an interrupt that was pending in the stream");
    device_lower(j, w.index, 0);
    device_end(j, &found);
}

/* What prepare() and raise_masked() wrote. */
static void copy_config(struct judge *j, const struct waiting *w)
{
    config_write(j, 0x04, 2, 0x0007);
    device_messages(j, w->index, true);
    mask(j, w);
}

static void check_pending_other(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct waiting w = prepare(j);
    struct stream stream;
    int event;

    raise_masked(j, &w);
    stream = stream_save(j);
    judge_second(j);
    event = judge_eventfd(j);
    assign(j, w.index, event);
    copy_config(j, &w); /* the stream need not (VU-MIG-43) */
    state_go(j, STOP);
    stream_load(j, &stream);
    state_go(j, RUNNING);
    want(j, signals(j, event) == 0, "in a second process, an interrupt that is masked was signalled");
    unmask(j, &w);
    want_signal(j, event, "in a second process, an interrupt that was pending in the stream");
    want(j, signals(j, w.event) == 0, "the first process, which is stopped, signalled the interrupt");
    judge_first(j);
    device_end(j, &found);
}

/* --- DMA --------------------------------------------------------------------------------------------------------- */

#define BASE UINT64_C(0x100000)
#define LEN  64u

/* Memory of two pages that is reached by messages. */
struct served {
    enum { SERVED, HELD, FORBIDDEN } mode;
    unsigned forbidden;
    uint64_t size;
    uint8_t *memory;
};

static int serve(void *ctx, bool write, uint64_t address, uint64_t count, void *data)
{
    struct served *served = ctx;

    if (served->mode == HELD)
        return OB_RAW_LATER;
    served->forbidden += served->mode == FORBIDDEN;
    if (address < BASE || address - BASE > served->size || count > served->size - (address - BASE))
        return EFAULT;
    if (write)
        memcpy(served->memory + (address - BASE), data, count);
    else
        memcpy(data, served->memory + (address - BASE), count);
    return 0;
}

static struct served *map_served(struct judge *j)
{
    struct served *served = judge_alloc(j, sizeof(*served));

    served->size = 2 * j->facts.page;
    served->memory = judge_alloc(j, served->size);
    memset(served->memory, 0x5c, LEN);
    want_ok(j, map(j, BASE, served->size, 3, -1, 0), "DMA_MAP without a descriptor");
    j->raw.dma = serve;
    j->raw.dma_ctx = served;
    return served;
}

/* The device has asked for the data of a copy, and is stopped before it gets them; from then on it asks for nothing.
 * The answer does not wait for the reply: the server may complete the copy first. */
static struct served *stop_in_copy(struct judge *j)
{
    const uint32_t stop[4] = { sizeof(stop), FEATURE_SET | DEVICE_STATE, STOP, UINT32_MAX };
    struct served *served = map_served(j);
    uint16_t id;
    int r;

    served->mode = HELD;
    device_copy_begin(j, BASE, BASE + j->facts.page, LEN);
    got(j, ob_raw_serve_dma(&j->raw, j->raw.dma_served + 1), "waiting for a DMA_READ");
    id = send_command(j, OB_RAW_FEATURE, 0, stop, sizeof(stop));
    served->mode = SERVED;
    got(j, ob_raw_answer_later(&j->raw), "answering a DMA_READ");
    r = ob_raw_reply(&j->raw, id, OB_RAW_FEATURE, NULL);
    if (r < 0) /* VU-CON-10 has checks of its own */
        judge_skip(j, "the server does not take a command while it waits for the reply to one of its own");
    want_ok(j, r, "setting the state to STOP while a DMA_READ is not answered");
    served->mode = FORBIDDEN;
    return served;
}

static void still_dma(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);
    struct served *served = stop_in_copy(j);
    struct stream stream = { NULL, 0 };

    want_state(j, STOP, "after it was set");
    if (state == STOP_COPY) {
        state_go(j, STOP_COPY);
        stream_read(j, 1024, &stream);
    }
    if (state == RESUMING) {
        state_go(j, STOP_COPY);
        stream_read(j, UINT32_MAX, &stream);
        state_go(j, STOP);
        stream_load(j, &stream);
    }
    want_state(j, state, "meanwhile");
    want(j, served->forbidden == 0, "the device sent %u DMA commands after it was stopped", served->forbidden);
    served->mode = SERVED;
    if (state != STOP)
        state_go(j, STOP);
    device_end(j, &found);
}

static void check_dma_stop(struct judge *j)
{
    still_dma(j, STOP);
}

static void check_dma_stop_copy(struct judge *j)
{
    still_dma(j, STOP_COPY);
}

static void check_dma_resuming(struct judge *j)
{
    still_dma(j, RESUMING);
}

static void check_dma_goes_on(struct judge *j)
{
    const struct image found = device_begin(j);
    struct served *served = stop_in_copy(j);
    int result;

    want_state(j, STOP, "after it was set");
    served->mode = SERVED;
    state_go(j, RUNNING);
    result = device_copy_end(j);
    want(j, result == 0, "the copy that STOP interrupted failed with %d", result);
    want(j, memcmp(served->memory, served->memory + j->facts.page, LEN) == 0,
         "the copy that STOP interrupted is not done after RUNNING");
    device_end(j, &found);
}

/* Memory that the server can map itself. */
static void check_dma_mapped(struct judge *j)
{
    const struct image found = device_begin(j);
    const uint32_t len = j->facts.exerciser->max_copy;
    const struct guest_map *to, *from = guest_map(j, GUEST_FROM, 2 * UINT64_C(65536), GUEST_BOTH, true);
    const struct guest *guest = guest_serve(j);
    struct stream stream = { NULL, 0 };
    uint8_t *then;
    unsigned commands;

    to = guest_map(j, GUEST_TO, from->size, GUEST_BOTH, true);
    then = judge_alloc(j, to->size);
    guest_fill(from->bytes, len, 1);
    device_copy_begin(j, GUEST_FROM, GUEST_TO, len);
    state_go(j, STOP);
    memcpy(then, to->bytes, to->size);
    commands = guest->reads + guest->writes;
    state_go(j, STOP_COPY);
    stream_read(j, 1024, &stream);
    want(j, memcmp(then, to->bytes, to->size) == 0, "guest memory changed while the device was stopped");
    want(j, guest->reads + guest->writes == commands, "the device sent %u DMA commands while it was stopped",
         guest->reads + guest->writes - commands);
    state_go(j, STOP);
    device_end(j, &found);
}

static void check_pre_copy_dma(struct judge *j)
{
    const struct image found = device_begin(j);
    const struct guest_pair p = guest_pair(j, true);

    state_go(j, PRE_COPY);
    transfer_ok(j, GUEST_FROM, GUEST_TO, GUEST_LEN, "in PRE_COPY");
    want(j, guest_filled(p.to->bytes, GUEST_LEN, 1), "a copy in PRE_COPY was not done");
    device_end(j, &found);
}

/* --- Configuration space ----------------------------------------------------------------------------------------- */

static void config_in(struct judge *j, uint32_t state)
{
    const struct image found = device_begin(j);
    uint32_t running[16];

    for (uint32_t i = 0; i < 16; i++)
        running[i] = config_read(j, 4 * i, 4);
    state_go(j, STOP);
    if (state != STOP)
        state_go(j, state);
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t is = config_read(j, 4 * i, 4);

        want(j, is == running[i], "in %s configuration space at %#x is %#x, in RUNNING it was %#x", state_name(state),
             4 * i, is, running[i]);
    }
    device_end(j, &found);
}

static void check_config_stop(struct judge *j)
{
    config_in(j, STOP);
}

static void check_config_stop_copy(struct judge *j)
{
    config_in(j, STOP_COPY);
}

/* clang-format off: a line or two for each check. */
#define I (NEED_MIGRATION | NEED_INTERRUPT)
#define D (NEED_MIGRATION | NEED_DMA)
const struct check server_migration_still_checks[] = {
    { { "migration-irq-stop", "VU-MIG-35", "no interrupt is signalled in STOP" }, I, check_still_stop },
    { { "migration-irq-stop-copy", "VU-MIG-35", "no interrupt is signalled in STOP_COPY" }, I, check_still_stop_copy },
    { { "migration-irq-resuming", "VU-MIG-35", "no interrupt is signalled in RESUMING" }, I, check_still_resuming },
    { { "migration-dma-stop", "VU-MIG-35", "a device stopped in a copy sends no DMA command" }, D, check_dma_stop },
    { { "migration-dma-stop-copy", "VU-MIG-35", "nor does it in STOP_COPY" }, D, check_dma_stop_copy },
    { { "migration-dma-resuming", "VU-MIG-35", "nor does it in RESUMING" }, D, check_dma_resuming },
    { { "migration-dma-mapped", "VU-MIG-35", "a device stopped in a copy does not change mapped memory" },
      D,
      check_dma_mapped },
    { { "migration-irq-runs", "VU-MIG-10", "a device that was stopped interrupts again" }, I, check_runs_interrupts },
    { { "migration-irq-kept", "VU-MIG-10", "an interrupt that was pending at STOP is after it" },
      I,
      check_pending_kept },
    { { "migration-irq-unmasked", "VU-MIG-10", "an interrupt that was unmasked in STOP is signalled after it" },
      I,
      check_unmasked_in_stop },
    { { "migration-dma-goes-on", "VU-MIG-10", "a copy that STOP interrupted is done after it" }, D, check_dma_goes_on },
    { { "migration-irq-pre-copy", "VU-MIG-15", "a device in PRE_COPY interrupts" },
      I | NEED_PRE_COPY,
      check_pre_copy_interrupts },
    { { "migration-dma-pre-copy", "VU-MIG-15", "a device in PRE_COPY does DMA" },
      D | NEED_PRE_COPY,
      check_pre_copy_dma },
    { { "migration-same-pending", "VU-MIG-36", "its own stream gives a device a pending interrupt back" },
      I,
      check_pending_same },
    { { "migration-other-pending", "VU-MIG-36", "a second process gets a pending interrupt" },
      I | NEED_SPAWN,
      check_pending_other },
    { { "migration-config-stop", "VU-MIG-42", "configuration space can be read in STOP" },
      NEED_MIGRATION,
      check_config_stop },
    { { "migration-config-stop-copy", "VU-MIG-42", "configuration space can be read in STOP_COPY" },
      NEED_MIGRATION,
      check_config_stop_copy },
    { { NULL, NULL, NULL }, 0, NULL },
};
/* clang-format on */
