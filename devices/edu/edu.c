/* edu: QEMU's educational PCI device (docs/specs/edu.rst there), for drivers written against it and for our tests.
 *
 * A BAR of 1 MiB with a liveness check, a factorial, interrupts raised and acknowledged by register, and a DMA engine
 * with a buffer of 4096 bytes at 0x40000, which only DMA reaches. Registers below 0x80 take accesses of 4 bytes, those
 * above of 4 or 8; what is not a register, not readable, or of another size reads as all ones.
 *
 * Factorial and DMA run from timers, after the write that started them was answered. "Running" is a bit of state
 * (STATUS.COMPUTING, DMA_COMMAND.RUN), so what a crash, a disconnect or a reset cut short is found by edu_run() and
 * starts anew; both can be repeated without harm.
 *
 * Where the specification is silent:
 * - A transfer that cannot be done (range outside the buffer, no memory there, bus mastering off) copies nothing from
 * or to the buffer, clears RUN, and raises its interrupt if asked to: the device has no error bit, and a driver that
 *   waits must not hang. It is logged, at most once a second.
 * - The address on the guest's side is masked with the option dma_mask.
 * - A write of 4 bytes to the low half of a DMA register clears its high half; the high half can be written after that.
 * - The factorial is modulo 2^32, and that of 0 is 1.
 * - Reset stops both engines and clears every register and the buffer. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <outboard/device.h>

#define EDU_ID               0x010000edu
#define EDU_STATUS_COMPUTING 0x01u
#define EDU_STATUS_IRQ       0x80u
#define EDU_IRQ_FACTORIAL    0x001u
#define EDU_IRQ_DMA          0x100u
#define EDU_DMA_RUN          0x1u
#define EDU_DMA_TO_GUEST     0x2u
#define EDU_DMA_IRQ          0x4u
#define EDU_BUF_START        0x40000u
#define EDU_BUF_SIZE         4096u
#define EDU_LOG_INTERVAL_NS  UINT64_C(1000000000)

enum { EDU_TIMER_FACTORIAL, EDU_TIMER_DMA, EDU_TIMERS };

struct edu {
    uint32_t liveness, factorial, status, irq_status;
    uint64_t dma_src, dma_dst, dma_count, dma_command;
    uint8_t buf[EDU_BUF_SIZE];
};

static const struct ob_field edu_fields[] = {
    OB_FIELD(struct edu, liveness),  OB_FIELD(struct edu, factorial),
    OB_FIELD(struct edu, status),    OB_FIELD(struct edu, irq_status),
    OB_FIELD(struct edu, dma_src),   OB_FIELD(struct edu, dma_dst),
    OB_FIELD(struct edu, dma_count), OB_FIELD(struct edu, dma_command),
    OB_FIELD(struct edu, buf),       OB_FIELD_END,
};

/* A copy that goes over messages belongs to the library until it is done, and a reset cannot wait for it: it goes
 * through a buffer of its own, and `stale` says that its result is no longer wanted. */
struct edu_scratch {
    struct ob_dev *dev;
    struct ob_dma dma;
    bool busy, stale, stopped;
    uint64_t next_log; /* ob_now() before which refusals are not logged */
    uint8_t bounce[EDU_BUF_SIZE];
};

/* INTx is the level of IRQ_STATUS. MSI is sent for each cause raised, as QEMU does: a driver that acknowledges what it
 * saw would never hear of a cause that came in between. A level that stays high is no edge, so it goes low here and
 * high again once that is committed; a crash in between is mended by edu_run(). */
static void edu_irq_again(struct ob_dev *dev, uint64_t unused)
{
    const struct edu *edu = ob_state(dev);

    ob_irq_level(dev, 0, edu->irq_status != 0);
}

static void edu_irq_raise(struct ob_dev *dev, uint32_t causes)
{
    struct edu *edu = ob_state(dev);
    bool was_high = edu->irq_status != 0;

    edu->irq_status |= causes;
    if (was_high && ob_irq_is_message(dev)) {
        ob_irq_level(dev, 0, false);
        ob_after(dev, edu_irq_again, 0);
    } else {
        ob_irq_level(dev, 0, edu->irq_status != 0);
    }
}

static void edu_dma_finish(struct ob_dev *dev)
{
    struct edu *edu = ob_state(dev);

    edu->dma_command &= ~(uint64_t)EDU_DMA_RUN;
    if (edu->dma_command & EDU_DMA_IRQ)
        edu_irq_raise(dev, EDU_IRQ_DMA);
}

static void edu_dma_refuse(struct ob_dev *dev, const char *why)
{
    const struct edu *edu = ob_state(dev);
    struct edu_scratch *scratch = ob_scratch(dev);
    uint64_t now = ob_now();

    if (now >= scratch->next_log) {
        scratch->next_log = now + EDU_LOG_INTERVAL_NS;
        ob_log(dev, "DMA of %" PRIu64 " bytes from 0x%" PRIx64 " to 0x%" PRIx64 " refused: %s", edu->dma_count,
               edu->dma_src, edu->dma_dst, why);
    }
    edu_dma_finish(dev);
}

static void edu_dma_settle(struct ob_dev *dev, int err)
{
    struct edu *edu = ob_state(dev);
    struct edu_scratch *scratch = ob_scratch(dev);

    if (err < 0) {
        edu_dma_refuse(dev, strerror(-err));
        return;
    }
    if (!scratch->dma.to_guest)
        memcpy(edu->buf + (edu->dma_dst - EDU_BUF_START), scratch->bounce, scratch->dma.len);
    edu_dma_finish(dev);
}

static void edu_dma_start(struct ob_dev *dev);

static void edu_dma_done(struct ob_dma *dma, int err)
{
    struct edu_scratch *scratch = (struct edu_scratch *)((char *)dma - offsetof(struct edu_scratch, dma));
    const struct edu *edu = ob_state(scratch->dev);
    bool stale = scratch->stale;

    scratch->busy = scratch->stale = false;
    /* The client went before its answer: the transfer stays pending, as the session's end leaves every other. */
    if (scratch->stopped || err == -ENOTCONN)
        return;
    if (!stale)
        edu_dma_settle(scratch->dev, err);
    else if (edu->dma_command & EDU_DMA_RUN)
        edu_dma_start(scratch->dev);
}

/* Carries out DMA_COMMAND. Source and destination cannot change before RUN is clear. */
static void edu_dma_start(struct ob_dev *dev)
{
    struct edu *edu = ob_state(dev);
    struct edu_scratch *scratch = ob_scratch(dev);
    bool to_guest = edu->dma_command & EDU_DMA_TO_GUEST;
    uint64_t inside = (to_guest ? edu->dma_src : edu->dma_dst) - EDU_BUF_START;
    uint64_t iova = (to_guest ? edu->dma_dst : edu->dma_src) & ob_option_number(dev, "dma_mask");

    if (inside > EDU_BUF_SIZE || edu->dma_count > EDU_BUF_SIZE - inside) {
        edu_dma_refuse(dev, "it leaves the buffer of 4096 bytes at 0x40000");
        return;
    }
    if (edu->dma_count == 0) {
        edu_dma_finish(dev);
        return;
    }
    if (iova + edu->dma_count - 1 < iova) {
        edu_dma_refuse(dev, "it leaves the address space");
        return;
    }
    scratch->dma = (struct ob_dma){
        .iova = iova, .buf = scratch->bounce, .len = edu->dma_count, .to_guest = to_guest, .done = edu_dma_done
    };
    if (to_guest)
        memcpy(scratch->bounce, edu->buf + inside, edu->dma_count);
    int err = ob_dma_copy(ob_control(dev), &scratch->dma);

    if (err == OB_LATER)
        scratch->busy = true;
    else
        edu_dma_settle(dev, err);
}

/* The 34th factorial already has 32 factors of two, so the product stays zero from there on. */
static uint32_t edu_factorial(uint32_t n)
{
    uint32_t product = 1;

    while (n > 0 && product != 0)
        product *= n--;
    return product;
}

static void edu_timer(struct ob_dev *dev, unsigned id)
{
    struct edu *edu = ob_state(dev);
    const struct edu_scratch *scratch = ob_scratch(dev);

    if (id == EDU_TIMER_DMA) {
        if ((edu->dma_command & EDU_DMA_RUN) && !scratch->busy)
            edu_dma_start(dev);
    } else if (edu->status & EDU_STATUS_COMPUTING) {
        edu->factorial = edu_factorial(edu->factorial);
        edu->status &= ~EDU_STATUS_COMPUTING;
        if (edu->status & EDU_STATUS_IRQ)
            edu_irq_raise(dev, EDU_IRQ_FACTORIAL);
    }
}

static int edu_id_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = EDU_ID;
    return OB_DONE;
}

/* What can only be written. */
static int edu_ones_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    *val = UINT64_MAX;
    return OB_DONE;
}

static int edu_liveness_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct edu *edu = ob_state(ob_req_dev(req));

    edu->liveness = ~(uint32_t)val;
    return OB_DONE;
}

static int edu_factorial_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val,
                               uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct edu *edu = ob_state(dev);

    if (edu->status & EDU_STATUS_COMPUTING)
        return OB_DONE;
    edu->factorial = (uint32_t)val;
    edu->status |= EDU_STATUS_COMPUTING;
    ob_timer(dev, EDU_TIMER_FACTORIAL, ob_now());
    return OB_DONE;
}

static int edu_raise_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    edu_irq_raise(ob_req_dev(req), (uint32_t)val);
    return OB_DONE;
}

static int edu_ack_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct edu *edu = ob_state(dev);

    edu->irq_status &= ~(uint32_t)val;
    ob_irq_level(dev, 0, edu->irq_status != 0);
    return OB_DONE;
}

/* What a write leaves in a DMA register; see the top of the file for its halves. */
static uint64_t edu_dma_merge(uint64_t old, uint64_t val, uint64_t mask)
{
    return mask & UINT32_MAX ? val : (old & UINT32_MAX) | val;
}

static int edu_dma_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct edu *edu = ob_state(ob_req_dev(req));
    uint64_t *stored = (uint64_t *)((char *)edu + reg->state_off);

    if (!(edu->dma_command & EDU_DMA_RUN))
        *stored = edu_dma_merge(*stored, val, mask);
    return OB_DONE;
}

static int edu_command_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct edu *edu = ob_state(dev);

    if ((edu->dma_command & EDU_DMA_RUN) || !(val & EDU_DMA_RUN))
        return OB_DONE;
    edu->dma_command = val;
    ob_timer(dev, EDU_TIMER_DMA, ob_now());
    return OB_DONE;
}

static int edu_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct edu_scratch *scratch = ob_scratch(dev);

    scratch->dev = dev;
    return 0;
}

static int edu_run(struct ob_dev *dev)
{
    const struct edu *edu = ob_state(dev);
    struct edu_scratch *scratch = ob_scratch(dev);

    scratch->stopped = false;
    if (edu->status & EDU_STATUS_COMPUTING)
        ob_timer(dev, EDU_TIMER_FACTORIAL, ob_now());
    if (edu->dma_command & EDU_DMA_RUN)
        ob_timer(dev, EDU_TIMER_DMA, ob_now());
    ob_irq_level(dev, 0, edu->irq_status != 0);
    return 0;
}

/* A copy under way touches only the bounce buffer, which outlives the session: nothing to wait for. */
static int edu_quiesce(struct ob_req *req)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct edu_scratch *scratch = ob_scratch(dev);

    scratch->stopped = true;
    scratch->stale = scratch->busy;
    ob_timer(dev, EDU_TIMER_FACTORIAL, 0);
    ob_timer(dev, EDU_TIMER_DMA, 0);
    return OB_DONE;
}

static int edu_reset(struct ob_req *req, enum ob_reset kind)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct edu *edu = ob_state(dev);
    struct edu_scratch *scratch = ob_scratch(dev);

    scratch->stale = scratch->busy;
    memset(edu->buf, 0, sizeof(edu->buf));
    ob_timer(dev, EDU_TIMER_FACTORIAL, 0);
    ob_timer(dev, EDU_TIMER_DMA, 0);
    ob_irq_level(dev, 0, false);
    return OB_DONE;
}

#define EDU_ACCESS_4   .min_access = 4, .max_access = 4
#define EDU_ACCESS_4_8 .min_access = 4, .max_access = 8

static const struct ob_reg edu_regs[] = {
    { .name = "ID", .off = 0x00, .width = 4, EDU_ACCESS_4, .read = edu_id_read },
    OB_REG32("LIVENESS", 0x04, struct edu, liveness, EDU_ACCESS_4, .write = edu_liveness_write),
    OB_REG32("FACTORIAL", 0x08, struct edu, factorial, EDU_ACCESS_4, .write = edu_factorial_write),
    OB_REG32("STATUS", 0x20, struct edu, status, EDU_ACCESS_4, .rw = EDU_STATUS_IRQ),
    OB_REG32("IRQ_STATUS", 0x24, struct edu, irq_status, EDU_ACCESS_4),
    { .name = "IRQ_RAISE", .off = 0x60, .width = 4, EDU_ACCESS_4, .read = edu_ones_read, .write = edu_raise_write },
    { .name = "IRQ_ACK", .off = 0x64, .width = 4, EDU_ACCESS_4, .read = edu_ones_read, .write = edu_ack_write },
    OB_REG64("DMA_SOURCE", 0x80, struct edu, dma_src, EDU_ACCESS_4_8, .write = edu_dma_write),
    OB_REG64("DMA_DESTINATION", 0x88, struct edu, dma_dst, EDU_ACCESS_4_8, .write = edu_dma_write),
    OB_REG64("DMA_COUNT", 0x90, struct edu, dma_count, EDU_ACCESS_4_8, .write = edu_dma_write),
    OB_REG64("DMA_COMMAND", 0x98, struct edu, dma_command, EDU_ACCESS_4_8, .write = edu_command_write),
    OB_REG_END,
};

static const struct ob_option edu_options[] = {
    { .name = "dma_mask",
      .type = OB_OPTION_NUMBER,
      .value = "0xfffffff",
      .help = "address bits that the DMA engine drives; the others are zero (28 bits, as on QEMU's)" },
    OB_OPTION_END,
};

/* Identity as QEMU's: PCI_CLASS_OTHERS, revision 0x10, the subsystem that QEMU gives by default. */
OB_DEVICE(edu, .summary = "QEMU's educational device: factorial, interrupts, DMA",
          .pci = { .vendor = 0x1234,
                   .device = 0x11e8,
                   .subsystem_vendor = 0x1af4,
                   .subsystem_device = 0x1100,
                   .class_code = 0x00ff00,
                   .revision = 0x10 },
          .irqs = { .intx = true, .msi = 1 }, .bars[0] = OB_BAR_REGS(0x100000, edu_regs), .options = edu_options,
          .state = OB_STATE(struct edu, 1, edu_fields), .scratch_size = sizeof(struct edu_scratch),
          .timers = EDU_TIMERS,
          .ops = { .open = edu_open, .run = edu_run, .quiesce = edu_quiesce, .reset = edu_reset, .timer = edu_timer })
