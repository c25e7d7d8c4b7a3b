/* pci_interrupts.c: VU-PCI: what configuration space and the MSI-X table say about interrupts and bus mastering, and
 * what a device does. */
#include "guest.h"
#include "irqs.h"

#define COMMAND       0x04
#define STATUS        0x06
#define MASTER        0x0004u
#define INTX_OFF      0x0400u
#define CAP_MSI       0x05
#define CAP_MSIX      0x11
#define MSIX_ON       0x8000u
#define FUNCTION_MASK 0x4000u
#define ENTRY_SIZE    16u
#define ENTRY_CONTROL 12u
#define MANY_ROUNDS   100

static void command(struct judge *j, uint32_t value)
{
    config_write(j, COMMAND, 2, value);
}

/* --- INTx -------------------------------------------------------------------------------------------------------- */

static void pci_intx_level(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    device_raise(j, INTX, 0);
    want_one(j, fd, "INTx was raised");
    for (unsigned i = 0; i < 3; i++) {
        irqs_do(j, UNMASK, INTX, 0, 1);
        want_one(j, fd, "INTx was unmasked, and its cause was not cleared");
    }
    device_lower(j, INTX, 0);
}

static void pci_intx_cleared(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    device_raise(j, INTX, 0);
    want_signal(j, fd, "INTx was raised");
    device_lower(j, INTX, 0);
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_none(j, fd, "INTx's cause was cleared, and INTx unmasked");
    device_raise(j, INTX, 0);
    want_signal(j, fd, "INTx was raised after it had been cleared and unmasked");
    device_lower(j, INTX, 0);
}

/* QEMU without KVM: the guest's write that clears the cause is posted, and UNMASK comes behind it. */
static void pci_intx_qemu(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    for (unsigned i = 0; i < 3; i++) {
        device_raise(j, INTX, 0);
        want_one(j, fd, "INTx was raised");
        device_lower_posted(j, INTX, 0);
        irqs_do(j, UNMASK, INTX, 0, 1);
        want_none(j, fd, "INTx's cause was cleared by a posted write, and INTx unmasked");
    }
}

static void pci_intx_disable(struct judge *j)
{
    const int fd = irqs_intx(j);

    command(j, 7 | INTX_OFF);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was raised with Interrupt Disable set");
    device_lower(j, INTX, 0);
    command(j, 7);
}

static void pci_intx_disable_high(struct judge *j)
{
    const int fd = irqs_intx(j);

    config_write(j, COMMAND + 1, 1, INTX_OFF >> 8);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was raised with Interrupt Disable set by a write of 1 byte");
    device_lower(j, INTX, 0);
    command(j, 7);
}

static void pci_intx_disable_unmask(struct judge *j)
{
    const int fd = irqs_intx_with_masks(j);

    device_raise(j, INTX, 0);
    want_signal(j, fd, "INTx was raised");
    command(j, 7 | INTX_OFF);
    irqs_do(j, UNMASK, INTX, 0, 1);
    want_none(j, fd, "INTx was unmasked with Interrupt Disable set, and its cause was not cleared");
    device_lower(j, INTX, 0);
    command(j, 7);
}

static void pci_intx_without_master(struct judge *j)
{
    const int fd = irqs_intx(j);

    command(j, 7 & ~MASTER);
    device_raise(j, INTX, 0);
    want_one(j, fd, "INTx was raised with bus mastering off");
    device_lower(j, INTX, 0);
    command(j, 7);
}

static void pci_intx_enable(struct judge *j)
{
    const int fd = irqs_intx(j);

    command(j, 7 | INTX_OFF);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was raised with Interrupt Disable set");
    command(j, 7);
    want_signal(j, fd, "Interrupt Disable was cleared while the cause of INTx holds");
    device_lower(j, INTX, 0);
}

static void pci_intx_status(struct judge *j)
{
    irqs_intx(j);
    device_raise(j, INTX, 0);
    want(j, config_read(j, STATUS, 2) & 8, "INTx was raised, and Interrupt Status (bit 3) is clear in STATUS");
    device_lower(j, INTX, 0);
    want(j, !(config_read(j, STATUS, 2) & 8),
         "INTx's cause was cleared, and Interrupt Status (bit 3) is set in STATUS");
}

/* Messages and INTx at a time, from devices that have both. */
static void pci_intx_messages(struct judge *j)
{
    const uint32_t message = device_irq(j);
    int fd;

    device_needs(j, INTX);
    if (message == INTX)
        judge_skip(j, "the device has INTx alone");
    fd = irqs_ready(j, INTX)[0];
    device_messages(j, message, true);
    device_raise(j, INTX, 0);
    want_none(j, fd, "INTx was raised while messages are enabled");
    device_lower(j, INTX, 0);
}

/* --- Messages ---------------------------------------------------------------------------------------------------- */

static uint32_t message_type(struct judge *j)
{
    const uint32_t index = device_irq(j);

    if (index == INTX)
        judge_skip(j, "no known way to make this device send messages");
    return index;
}

static void pci_master_messages(struct judge *j)
{
    const uint32_t index = message_type(j);
    const int fd = irqs_ready(j, index)[0];

    command(j, 7 & ~MASTER);
    device_raise(j, index, 0);
    want_none(j, fd, "an interrupt was raised with bus mastering off");
    device_lower(j, index, 0);
    command(j, 7);
    signals(j, fd); /* what was due may have been kept */
    device_raise(j, index, 0);
    want_signal(j, fd, "an interrupt was raised after bus mastering was switched on again");
    device_lower(j, index, 0);
}

static void messages_off(struct judge *j, uint32_t index)
{
    int fd;

    device_needs(j, index);
    fd = irqs_ready(j, index)[0];
    device_messages(j, index, false);
    device_raise(j, index, 0);
    want_none(j, fd, "an interrupt was raised with %s disabled", index == MSI ? "MSI" : "MSI-X");
    device_lower(j, index, 0);
}

static void pci_msi_off(struct judge *j)
{
    messages_off(j, MSI);
}

/* Mask bits are at 0x10 of a capability for 64-bit addresses, else at 0x0c, if it has them; pending bits follow. */
static uint32_t msi_masks(struct judge *j)
{
    uint32_t at, control;

    device_needs(j, MSI);
    at = config_capability(j, CAP_MSI);
    want(j, at != 0, "there is no MSI capability");
    control = config_read(j, at + 2, 2);
    if (!(control & 0x100))
        judge_skip(j, "the MSI capability has no mask bits");
    return at + (control & 0x80 ? 0x10 : 0x0c);
}

static void pci_msi_mask(struct judge *j)
{
    const uint32_t masks = msi_masks(j);
    const int fd = irqs_ready(j, MSI)[0];

    config_write(j, masks, 4, 1);
    device_raise(j, MSI, 0);
    want_none(j, fd, "message 0 was raised while its mask bit is set");
    config_write(j, masks, 4, 0);
    want_one(j, fd, "the mask bit of message 0, which is due, was cleared");
    device_lower(j, MSI, 0);
}

static void pci_msi_pending(struct judge *j)
{
    const uint32_t masks = msi_masks(j);
    const int fd = irqs_ready(j, MSI)[0];

    config_write(j, masks, 4, 1);
    device_raise(j, MSI, 0);
    want(j, config_read(j, masks + 4, 4) & 1,
         "message 0 was raised while its mask bit is set; its pending bit is clear");
    config_write(j, masks, 4, 0);
    want_signal(j, fd, "the mask bit of message 0, which is due, was cleared");
    want(j, !(config_read(j, masks + 4, 4) & 1), "message 0 was signalled, and its pending bit is set");
    device_lower(j, MSI, 0);
}

static void pci_msix_off(struct judge *j)
{
    messages_off(j, MSIX);
}

static void pci_master_dma(struct judge *j)
{
    const struct guest_pair p = guest_pair(j, true);

    transfer_ok(j, GUEST_FROM, GUEST_TO, GUEST_LEN, "with bus mastering on");
    command(j, 7 & ~MASTER);
    device_copy_begin(j, GUEST_FROM, GUEST_TO + GUEST_LEN, GUEST_LEN);
    /* A device may finish with an error, or wait. */
    for (unsigned i = 0; i < MANY_ROUNDS && j->facts.exerciser->copied(j) < 0; i++)
        want_alive(j, "with bus mastering off");
    want(j, guest_all(p.to->bytes + GUEST_LEN, GUEST_LEN, 0), "the device wrote to memory with bus mastering off");
    command(j, 7);
}

static void pci_master_commands(struct judge *j)
{
    unsigned served;

    guest_pair(j, false);
    transfer_ok(j, GUEST_FROM, GUEST_TO, GUEST_LEN, "with bus mastering on");
    served = j->raw.dma_served;
    command(j, 7 & ~MASTER);
    device_copy_begin(j, GUEST_FROM, GUEST_TO + GUEST_LEN, GUEST_LEN);
    for (unsigned i = 0; i < MANY_ROUNDS && j->facts.exerciser->copied(j) < 0; i++)
        want_alive(j, "with bus mastering off");
    want(j, j->raw.dma_served == served, "the device sent %u DMA commands with bus mastering off",
         j->raw.dma_served - served);
    command(j, 7);
}

/* --- MSI-X ------------------------------------------------------------------------------------------------------- */

struct msix {
    uint32_t at; /* of the capability */
    uint32_t table_bar, table, pba_bar, pba;
    const int *fds;
};

static struct msix msix(struct judge *j)
{
    struct msix m;
    uint32_t table, pba;

    device_needs(j, MSIX);
    m.at = config_capability(j, CAP_MSIX);
    want(j, m.at != 0, "there is no MSI-X capability");
    table = config_read(j, m.at + 4, 4);
    pba = config_read(j, m.at + 8, 4);
    m.table_bar = table & 7;
    m.table = table & ~7u;
    m.pba_bar = pba & 7;
    m.pba = pba & ~7u;
    m.fds = irqs_ready(j, MSIX);
    return m;
}

static void mask_function(struct judge *j, const struct msix *m, bool masked)
{
    config_write(j, m->at + 2, 2, MSIX_ON | (masked ? FUNCTION_MASK : 0));
}

static void mask_vector(struct judge *j, const struct msix *m, unsigned vector, bool masked)
{
    bar_write(j, m->table_bar, m->table + vector * ENTRY_SIZE + ENTRY_CONTROL, 4, masked);
}

static bool pending(struct judge *j, const struct msix *m, unsigned vector)
{
    return bar_read(j, m->pba_bar, m->pba + vector / 32 * 4, 4) >> vector % 32 & 1;
}

static void pci_msix_function(struct judge *j)
{
    const struct msix m = msix(j);

    mask_function(j, &m, true);
    device_raise(j, MSIX, 0);
    want_none(j, m.fds[0], "vector 0 was raised with MSI-X's function mask set");
    mask_function(j, &m, false);
    want_one(j, m.fds[0], "MSI-X's function mask was cleared, and vector 0 is due");
    device_lower(j, MSIX, 0);
}

static void pci_msix_vector(struct judge *j)
{
    const struct msix m = msix(j);

    mask_vector(j, &m, 0, true);
    device_raise(j, MSIX, 0);
    want_none(j, m.fds[0], "vector 0 was raised while it is masked in the table");
    mask_vector(j, &m, 0, false);
    want_one(j, m.fds[0], "vector 0 was unmasked in the table, and is due");
    device_lower(j, MSIX, 0);
}

static void pci_msix_both(struct judge *j)
{
    const struct msix m = msix(j);

    mask_vector(j, &m, 0, true);
    mask_function(j, &m, true);
    device_raise(j, MSIX, 0);
    mask_function(j, &m, false);
    want_none(j, m.fds[0], "MSI-X's function mask was cleared while vector 0, which is due, is masked in the table");
    mask_vector(j, &m, 0, false);
    want_one(j, m.fds[0], "vector 0 was unmasked in the table, after MSI-X's function mask");
    device_lower(j, MSIX, 0);
}

static void pci_msix_others(struct judge *j)
{
    const struct msix m = msix(j);

    if (j->facts.irq[MSIX].count < 2)
        judge_skip(j, "MSI-X has one vector");
    mask_vector(j, &m, 0, true);
    mask_vector(j, &m, 1, false);
    device_raise(j, MSIX, 1);
    want_one(j, m.fds[1], "vector 1 was raised while vector 0 is masked in the table");
    device_lower(j, MSIX, 1);
}

/* QEMU keeps the table to itself: after a reset all mask bits are set in it, and nobody clears them. */
static void pci_msix_unwritten(struct judge *j)
{
    const struct msix m = msix(j);

    device_raise(j, MSIX, 0);
    want_one(j, m.fds[0], "vector 0 was raised, and nobody has written MSI-X's table since the reset");
    device_lower(j, MSIX, 0);
}

static void pci_msix_pending(struct judge *j)
{
    const struct msix m = msix(j);

    mask_function(j, &m, true);
    want(j, !pending(j, &m, 0), "the pending bit of vector 0 is set after a reset");
    device_raise(j, MSIX, 0);
    want(j, pending(j, &m, 0), "vector 0 was raised with MSI-X's function mask set, and its pending bit is clear");
    mask_function(j, &m, false);
    want_signal(j, m.fds[0], "MSI-X's function mask was cleared, and vector 0 is due");
    want(j, !pending(j, &m, 0), "vector 0 was signalled, and its pending bit is set");
    device_lower(j, MSIX, 0);
}

const struct check server_pci_interrupts_checks[] = {
    { { "pci-intx-level", "VU-PCI-11", "INTx is signalled after each unmask while its cause holds" },
      NEED_INTERRUPT,
      pci_intx_level },
    { { "pci-intx-cleared", "VU-PCI-11", "INTx is not signalled after an unmask once its cause is cleared" },
      NEED_INTERRUPT,
      pci_intx_cleared },
    { { "pci-intx-qemu", "VU-PCI-11", "a posted write that clears INTx's cause is executed before UNMASK" },
      NEED_INTERRUPT,
      pci_intx_qemu },
    { { "pci-intx-disable", "VU-PCI-12", "INTx is not signalled with Interrupt Disable set" },
      NEED_INTERRUPT,
      pci_intx_disable },
    { { "pci-intx-disable-high", "VU-PCI-12", "a write of 1 byte to the upper half of COMMAND disables INTx" },
      NEED_INTERRUPT,
      pci_intx_disable_high },
    { { "pci-intx-disable-unmask", "VU-PCI-12", "an unmask does not signal INTx with Interrupt Disable set" },
      NEED_INTERRUPT,
      pci_intx_disable_unmask },
    { { "pci-intx-without-master", "VU-SET-5", "INTx is signalled with bus mastering off" },
      NEED_INTERRUPT,
      pci_intx_without_master },
    { { "pci-intx-enable", "VU-PCI-19", "INTx whose cause holds is signalled when Interrupt Disable is cleared" },
      NEED_INTERRUPT,
      pci_intx_enable },
    { { "pci-intx-status", "VU-PCI-22", "Interrupt Status in STATUS says whether INTx's cause holds" },
      NEED_INTERRUPT,
      pci_intx_status },
    { { "pci-intx-messages", "VU-PCI-21", "INTx is not signalled while messages are enabled" },
      NEED_INTERRUPT,
      pci_intx_messages },
    { { "pci-master-messages", "VU-PCI-13", "no message is sent with bus mastering off" },
      NEED_INTERRUPT,
      pci_master_messages },
    { { "pci-master-dma", "VU-PCI-13", "guest memory is not accessed with bus mastering off" },
      NEED_DMA,
      pci_master_dma },
    { { "pci-master-commands", "VU-DMA-18", "no DMA_READ or DMA_WRITE is sent with bus mastering off" },
      NEED_DMA,
      pci_master_commands },
    { { "pci-msi-off", "VU-PCI-20", "no message is sent with MSI disabled" }, NEED_INTERRUPT, pci_msi_off },
    { { "pci-msi-mask", "VU-PCI-20", "MSI's mask bits hold messages back until they are cleared" },
      NEED_INTERRUPT,
      pci_msi_mask },
    { { "pci-msi-pending", "VU-PCI-20", "a message that MSI's mask bits hold back shows in the pending bits" },
      NEED_INTERRUPT,
      pci_msi_pending },
    { { "pci-msix-off", "VU-PCI-14", "no message is sent with MSI-X disabled" }, NEED_INTERRUPT, pci_msix_off },
    { { "pci-msix-function", "VU-PCI-14", "MSI-X's function mask holds messages back until it is cleared" },
      NEED_INTERRUPT,
      pci_msix_function },
    { { "pci-msix-vector", "VU-PCI-14", "a vector's mask in the table holds its message back until it is cleared" },
      NEED_INTERRUPT,
      pci_msix_vector },
    { { "pci-msix-both", "VU-PCI-14", "a vector's mask holds its message back after the function mask is cleared" },
      NEED_INTERRUPT,
      pci_msix_both },
    { { "pci-msix-others", "VU-PCI-14", "a vector's mask in the table concerns no other" },
      NEED_INTERRUPT,
      pci_msix_others },
    { { "pci-msix-unwritten", "VU-PCI-14", "the table's mask bits do not count before somebody has written them" },
      NEED_INTERRUPT,
      pci_msix_unwritten },
    { { "pci-msix-pending", "VU-PCI-14", "a message that is held back shows in the pending bits" },
      NEED_INTERRUPT,
      pci_msix_pending },
    { { NULL, NULL, NULL }, 0, NULL },
};
