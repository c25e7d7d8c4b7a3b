/* exerciser_serial.c: QEMU's pci-serial: a 16550A behind BAR 0, with INTx. It interrupts while the transmitter, which is
 * empty, is enabled to. Without a peer, and without a character sent, nothing else happens. */
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
    bar_write(j, 0, UART_LCR, 1, UART_LCR_DLAB);
    bar_write(j, 0, UART_DLL, 1, seed);
    bar_write(j, 0, UART_DLM, 1, seed + 1u);
    bar_write(j, 0, UART_LCR, 1, seed & 0x3f);
    bar_write(j, 0, UART_IER, 1, seed & 1 ? UART_IER_THRI : 0);
    bar_write(j, 0, UART_MCR, 1, seed & (UART_MCR_DTR | UART_MCR_RTS));
    bar_write(j, 0, UART_SCR, 1, seed);
}

static size_t serial_registers(struct judge *j, uint8_t *to)
{
    static const uint16_t plain[] = { UART_IER, UART_LCR, UART_MCR, UART_SCR }, divisor[] = { UART_DLL, UART_DLM };
    size_t size = bar_read_all(j, 0, 1, plain, 4, to);
    const uint8_t lcr = to[1];

    bar_write(j, 0, UART_LCR, 1, lcr | UART_LCR_DLAB);
    size += bar_read_all(j, 0, 1, divisor, 2, to + size);
    bar_write(j, 0, UART_LCR, 1, lcr);
    return size;
}

const struct exerciser exerciser_serial = {
    .name = "serial",
    .vendor = 0x1b36,
    .device = 0x0002,
    .irqs = 1u << VFIO_PCI_INTX_IRQ_INDEX,
    .raise = serial_raise,
    .lower = serial_lower,
    .mark = serial_mark,
    .registers = serial_registers,
};
