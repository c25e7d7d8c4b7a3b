/* hello: a PCI device that counts, and interrupts at a hundred.
 * Build: cc hello.c -o hello $(pkg-config --cflags --libs outboard)
 * Try:   outboard run --device ./hello -- qemu-system-x86_64 ...
 *
 * It says what it is, which registers it has and what state; sockets, interrupts' delivery and being killed between
 * any two lines are the library's business. */
#include <outboard/device.h>

struct hello {
    uint32_t count; /* raised by TICK */
    uint32_t step;  /* how much a TICK adds */
};

static const struct ob_field hello_fields[] = {
    OB_FIELD(struct hello, count),
    OB_FIELD(struct hello, step),
    OB_FIELD_END,
};

/* Vector 0 is high while COUNT is at least 100. */
static int count_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t value, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct hello *hello = ob_state(dev);

    ob_irq_level(dev, 0, hello->count >= 100);
    return OB_DONE;
}

/* TICK: any write adds STEP to COUNT. */
static int tick_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t value, uint64_t mask)
{
    struct hello *hello = ob_state(ob_req_dev(req));

    hello->count += hello->step;
    return count_write(req, reg, index, value, mask);
}

static const struct ob_reg hello_regs[] = {
    OB_REG32("COUNT", 0x00, struct hello, count, .rw = UINT32_MAX, .write = count_write),
    OB_REG32("STEP", 0x04, struct hello, step, .rw = 0xff, .reset = 1),
    { .name = "TICK", .off = 0x08, .width = 4, .write = tick_write },
    OB_REG_END,
};

OB_DEVICE(hello, .summary = "counts, and interrupts at a hundred",
          .pci = { .vendor = 0x1234, .device = 0x0b0b, .class_code = 0xff0000 }, .irqs = { .msix = 1 },
          .bars[0] = OB_BAR_REGS(0x1000, hello_regs), .state = OB_STATE(struct hello, 1, hello_fields))
