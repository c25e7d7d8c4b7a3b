/* exerciser_16550.c: serial ports of class 070002, as QEMU's pci-serial: INTx, for as long as the transmitter is empty
 * and its interrupt is enabled. */
#include "exerciser.h"

#define IER       1
#define LCR       3
#define IER_EMPTY 0x02
#define LCR_8N1   0x03

static void uart_raise(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, LCR, 1, LCR_8N1); /* IER is there while DLAB is clear */
    bar_write(j, 0, IER, 1, IER_EMPTY);
}

static void uart_lower(struct judge *j, uint32_t index, unsigned vector)
{
    bar_write(j, 0, IER, 1, 0);
}

const struct exerciser exerciser_16550 = {
    .name = "16550",
    .class_code = 0x070002,
    .irqs = 1u << VFIO_PCI_INTX_IRQ_INDEX,
    .scratch = { .bar = 0, .width = 1, .offset = IER },
    .raise = uart_raise,
    .lower = uart_lower,
};
