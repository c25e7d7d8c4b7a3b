/* exerciser_serial.c: serial ports of class 070002, as QEMU's pci-serial is: a 16550A behind BAR 0, with INTx. It
 * interrupts while the transmitter, which is empty, is enabled to. Without a peer, and without a character sent,
 * nothing else happens. */
#include "exerciser.h"

#include <linux/serial_reg.h>

static void serial_raise(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, UART_IER, 1, UART_IER_THRI);
}

static void serial_lower(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, UART_IER, 1, 0);
}

static void serial_mark(struct judge *j, uint8_t seed)
{
    bar_write(j, 0, UART_LCR, 1, seed & 0x3f);
    bar_write(j, 0, UART_IER, 1, seed & 1 ? UART_IER_THRI : 0);
    bar_write(j, 0, UART_MCR, 1, seed & (UART_MCR_DTR | UART_MCR_RTS));
}

static const struct exerciser_register keep[] = { { 0, 1, UART_SCR }, { 0, 0, 0 } };
static const struct exerciser_register show[] = {
    { 0, 1, UART_IER }, { 0, 1, UART_LCR }, { 0, 1, UART_MCR }, { 0, 0, 0 }
};

const struct exerciser exerciser_serial = {
    .name = "serial",
    .class_code = 0x070002,
    .irqs = 1u << VFIO_PCI_INTX_IRQ_INDEX,
    .raise = serial_raise,
    .lower = serial_lower,
    .keep = keep,
    .show = show,
    .mark = serial_mark,
};
