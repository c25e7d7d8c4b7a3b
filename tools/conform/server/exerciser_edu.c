/* exerciser_edu.c: edu, the educational device that QEMU specifies (docs/specs/edu.rst). It has INTx and MSI with one
 * vector, and copies between guest memory and a buffer of 4096 bytes, 100 ms after it was asked to. It does not tell
 * whether a copy failed, but interrupts when it is over. */
#include "irqs.h"

#define LIVENESS 0x04
#define STATUS   0x20
#define CAUSES   0x24
#define RAISE    0x60
#define ACK      0x64
#define SOURCE   0x80
#define TARGET   0x88
#define COUNT    0x90
#define COMMAND  0x98
#define BUFFER   0x40000
#define RUN      1u
#define TO_RAM   2u
#define SIGNAL   4u
#define DMA_OVER 0x100u /* of CAUSES */

#define MOST_TURNS 400u /* of 1 ms and more: a copy is over by then, whether it interrupts or not */

static void edu_raise(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, RAISE, 4, 1);
}

static void edu_lower(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, ACK, 4, 0xffffffff);
}

static void run(struct judge *j, uint64_t from, uint64_t to, uint32_t len, uint32_t direction)
{
    bar_write(j, 0, SOURCE, 8, from);
    bar_write(j, 0, TARGET, 8, to);
    bar_write(j, 0, COUNT, 8, len);
    bar_write(j, 0, COMMAND, 8, RUN | SIGNAL | direction);
    j->copy_turns = 0;
}

/* Whether a copy is over is known by INTx: a server may be waiting for memory when the register is asked. */
static void edu_begin(struct judge *j)
{
    const int fd = judge_eventfd(j);
    const struct irq_set set = { .flags = EVENTFD | TRIGGER, .index = INTX, .count = 1, .fds = &fd, .nfds = 1 };

    j->copy_signal = 0;
    if (j->facts.irq[INTX].count > 0 && j->facts.irq[INTX].flags & VFIO_IRQ_INFO_EVENTFD && irqs_set(j, &set) == 0)
        j->copy_signal = fd;
}

static void edu_copy(struct judge *j, uint64_t from, uint64_t to, uint32_t len)
{
    j->copy_to = to;
    j->copy_len = len;
    run(j, from, BUFFER, len, 0);
}

static bool over(struct judge *j)
{
    const bool signalled = j->copy_signal != 0 && signals(j, j->copy_signal) > 0;

    if (signalled) {
        bar_write(j, 0, ACK, 4, DMA_OVER);
        if (j->facts.irq[INTX].flags & VFIO_IRQ_INFO_AUTOMASKED)
            irqs_do(j, UNMASK, INTX, 0, 1);
    }
    /* A device whose interrupts do not come is for other checks to judge. */
    return (signalled || j->copy_signal == 0 || j->copy_turns++ > MOST_TURNS) && !(bar_read(j, 0, COMMAND, 8) & RUN);
}

static int edu_copied(struct judge *j)
{
    uint32_t len = j->copy_len;

    got(j, ob_raw_serve_ready(&j->raw), "serving DMA");
    if (!over(j))
        return -1;
    if (len == 0)
        return 0;
    j->copy_len = 0;
    run(j, BUFFER, j->copy_to, len, TO_RAM);
    return -1;
}

static void edu_mark(struct judge *j, uint8_t seed)
{
    bar_write(j, 0, LIVENESS, 4, seed * 0x01010101u);
    bar_write(j, 0, STATUS, 4, seed & 1 ? 0x80 : 0);
    bar_write(j, 0, ACK, 4, 0xffffffff);
    bar_write(j, 0, RAISE, 4, seed);
    bar_write(j, 0, TARGET, 8, BUFFER + seed);
    bar_write(j, 0, COUNT, 8, seed);
}

static const struct exerciser_register keep[] = { { 0, 8, SOURCE }, { 0, 0, 0 } };
static const struct exerciser_register show[] = { { 0, 4, LIVENESS }, { 0, 4, STATUS }, { 0, 4, CAUSES },
                                                  { 0, 8, TARGET },   { 0, 8, COUNT },  { 0, 8, COMMAND },
                                                  { 0, 0, 0 } };

const struct exerciser exerciser_edu = {
    .name = "edu",
    .vendor = 0x1234,
    .device = 0x11e8,
    .irqs = 1u << VFIO_PCI_INTX_IRQ_INDEX | 1u << VFIO_PCI_MSI_IRQ_INDEX,
    .max_copy = 4096,
    .raise = edu_raise,
    .lower = edu_lower,
    .copy = edu_copy,
    .copied = edu_copied,
    .begin = edu_begin,
    .keep = keep,
    .show = show,
    .mark = edu_mark,
};
