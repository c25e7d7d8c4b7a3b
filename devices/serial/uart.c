/* The 16550A: what each register does, after National Semiconductor's PC16550D data sheet (June 1995), whose section
 * numbers are cited.
 *
 * A character is on its way for no time at all: what is sent is gone from the FIFO, so THRE and TEMT are the same, and
 * in loopback what is written is received at once. Parity and framing errors therefore do not occur; a break does, in
 * loopback, where the receiver hears LCR's. A break of the line's own, or towards it, is nothing that a stream of bytes
 * can carry. While LCR asks for a break, what is sent is lost in it, as on the wire. */
#include <string.h>
#include <linux/serial_reg.h>
#include "uart.h"

#define CLOCK_HZ        1843200u /* of the crystal that 115200 baud assume */
#define CLOCKS_A_BIT    16u
#define DIVISOR_DEFAULT 12 /* 9600 baud; the data sheet leaves it open */
#define MCR_BITS        (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2 | UART_MCR_LOOP)
#define IER_BITS        (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI)
#define MSR_LINES       (UART_MSR_DCD | UART_MSR_RI | UART_MSR_DSR | UART_MSR_CTS)
#define IIR_FIFOS       0xc0 /* both bits: FIFOs enabled */

static bool uart_fifos(const struct uart *u)
{
    return u->fcr & UART_FCR_ENABLE_FIFO;
}

static unsigned uart_depth(const struct uart *u)
{
    return uart_fifos(u) ? UART_DEPTH : 1;
}

static bool uart_loops(const struct uart *u)
{
    return u->mcr & UART_MCR_LOOP;
}

/* 8.4, FCR 7:6. */
static unsigned uart_trigger(const struct uart *u)
{
    static const uint8_t levels[] = { 1, 4, 8, 14 };

    return uart_fifos(u) ? levels[UART_FCR_R_TRIG_BITS(u->fcr)] : 1;
}

/* --- Modem lines ------------------------------------------------------------------------------------------------- */

/* 8.6, MCR 4: in loopback the four outputs are the four inputs. */
static uint8_t uart_lines(const struct uart *u)
{
    if (!uart_loops(u))
        return u->peer ? UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS : 0;
    return (u->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (u->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
           (u->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (u->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
}

/* 8.7: a change of a line sets its delta; of the ring indicator, its end only. */
static void uart_lines_follow(struct uart *u)
{
    uint8_t old = u->msr & MSR_LINES, now = uart_lines(u), changed = old ^ now, deltas = u->msr & UART_MSR_ANY_DELTA;

    if (changed & UART_MSR_CTS)
        deltas |= UART_MSR_DCTS;
    if (changed & UART_MSR_DSR)
        deltas |= UART_MSR_DDSR;
    if (changed & UART_MSR_DCD)
        deltas |= UART_MSR_DDCD;
    if (changed & old & UART_MSR_RI)
        deltas |= UART_MSR_TERI;
    u->msr = now | deltas;
}

void ob_uart_set_peer(struct uart *u, bool present)
{
    u->peer = present;
    uart_lines_follow(u);
}

uint8_t ob_uart_read_modem_status(struct uart *u)
{
    uint8_t val = u->msr;

    u->msr &= MSR_LINES;
    return val;
}

/* --- Receiver ---------------------------------------------------------------------------------------------------- */

/* 8.3: an error is shown when its character comes to the top of the FIFO. */
static void uart_top(struct uart *u)
{
    if (u->rx_count)
        u->errors |= u->rx_errors[u->rx_first];
}

/* 8.3, LSR 1: when full, the FIFO keeps what it has and the character is lost; without FIFO the new one replaces it. */
static void uart_push(struct uart *u, uint8_t byte, uint8_t errors)
{
    unsigned at;

    u->timeout = false;
    u->rx_moved = true;
    if (u->rx_count == uart_depth(u)) {
        u->errors |= UART_LSR_OE;
        if (uart_fifos(u))
            return;
        u->rx_count = 0;
    }
    at = (u->rx_first + u->rx_count++) % UART_DEPTH;
    /* Word length 5 to 8: the upper bits are zero. */
    u->rx_data[at] = byte & (0xff >> (3 - (u->lcr & UART_LCR_WLEN8)));
    u->rx_errors[at] = errors;
    if (u->rx_count == 1)
        uart_top(u);
}

unsigned ob_uart_room(const struct uart *u)
{
    return uart_loops(u) ? 0 : uart_depth(u) - u->rx_count;
}

void ob_uart_receive(struct uart *u, uint8_t byte)
{
    uart_push(u, byte, 0);
}

static uint8_t uart_pop(struct uart *u)
{
    uint8_t byte;

    u->timeout = false;
    u->rx_moved = true;
    if (u->rx_count == 0)
        return 0;
    byte = u->rx_data[u->rx_first];
    u->rx_first = (u->rx_first + 1) % UART_DEPTH;
    u->rx_count--;
    uart_top(u);
    return byte;
}

/* Errors that were at the top go with their character; an overrun has none. */
static void uart_rx_clear(struct uart *u)
{
    u->rx_count = u->timeout = 0;
    u->errors &= UART_LSR_OE;
}

/* 8.4, "FIFO interrupt mode operation": only in FIFO mode, and only while there is something to wait for. At the
 * trigger level the other interrupt is there already. */
bool ob_uart_timeout_runs(const struct uart *u)
{
    return uart_fifos(u) && u->rx_count > 0 && u->rx_count < uart_trigger(u) && !u->timeout;
}

bool ob_uart_timeout_restarts(struct uart *u)
{
    bool moved = u->rx_moved;

    u->rx_moved = false;
    return moved;
}

void ob_uart_timeout(struct uart *u)
{
    u->timeout = uart_fifos(u) && u->rx_count > 0;
}

/* Start, 5 to 8 bits, parity, 1, 1.5 or 2 stop bits (8.1); a divisor of 0 counts as 1. */
uint64_t ob_uart_character_ns(const struct uart *u)
{
    unsigned bits = 5 + (u->lcr & UART_LCR_WLEN8), divisor = (unsigned)u->dlm << 8 | u->dll;
    unsigned stop_halves = !(u->lcr & UART_LCR_STOP) ? 2 : bits == 5 ? 3 : 4;
    uint64_t halves = 2 * (1 + bits + (u->lcr & UART_LCR_PARITY ? 1 : 0)) + stop_halves;

    return halves * (divisor ? divisor : 1) * CLOCKS_A_BIT * UINT64_C(1000000000) / 2 / CLOCK_HZ;
}

/* --- Transmitter ------------------------------------------------------------------------------------------------- */

/* 8.5: empty is an event: the interrupt is pending until IIR told of it or something is written. */
static void uart_tx_empty(struct uart *u)
{
    u->tx_count = 0;
    u->thre = true;
}

unsigned ob_uart_pending(const struct uart *u, uint8_t bytes[UART_DEPTH])
{
    for (unsigned i = 0; i < u->tx_count; i++)
        bytes[i] = u->tx_data[(u->tx_first + i) % UART_DEPTH];
    return u->tx_count;
}

void ob_uart_sent(struct uart *u, unsigned n)
{
    if (n == 0 || n > u->tx_count)
        return;
    u->tx_first = (u->tx_first + n) % UART_DEPTH;
    u->tx_count -= (uint8_t)n;
    if (u->tx_count == 0)
        uart_tx_empty(u);
}

bool ob_uart_tx_full(const struct uart *u)
{
    return u->tx_count >= uart_depth(u);
}

/* Nothing protects a full FIFO or register: the character is lost, or takes the other's place. */
static void uart_transmit(struct uart *u, uint8_t byte)
{
    u->thre = false;
    if (uart_loops(u) || (u->lcr & UART_LCR_SBC)) {
        if (!(u->lcr & UART_LCR_SBC))
            uart_push(u, byte, 0);
        if (u->tx_count == 0)
            uart_tx_empty(u);
        return;
    }
    if (u->tx_count == UART_DEPTH)
        return;
    if (!uart_fifos(u))
        u->tx_count = 0;
    u->tx_data[(u->tx_first + u->tx_count++) % UART_DEPTH] = byte & (0xff >> (3 - (u->lcr & UART_LCR_WLEN8)));
}

/* --- Registers --------------------------------------------------------------------------------------------------- */

void ob_uart_init(struct uart *u)
{
    uint8_t peer = u->peer;

    memset(u, 0, sizeof(*u));
    u->dll = DIVISOR_DEFAULT;
    u->rx_moved = true;
    u->peer = peer;
    u->msr = uart_lines(u);
}

uint8_t ob_uart_read_data(struct uart *u)
{
    return u->lcr & UART_LCR_DLAB ? u->dll : uart_pop(u);
}

void ob_uart_write_data(struct uart *u, uint8_t val)
{
    if (u->lcr & UART_LCR_DLAB)
        u->dll = val;
    else
        uart_transmit(u, val);
}

uint8_t ob_uart_read_enable(const struct uart *u)
{
    return u->lcr & UART_LCR_DLAB ? u->dlm : u->ier;
}

/* Enabling the transmitter's interrupt while it is empty raises it: drivers start that way, and test for it. */
void ob_uart_write_enable(struct uart *u, uint8_t val)
{
    uint8_t changed = u->ier ^ val;

    if (u->lcr & UART_LCR_DLAB) {
        u->dlm = val;
        return;
    }
    u->ier = val & IER_BITS;
    if (changed & UART_IER_THRI)
        u->thre = (val & UART_IER_THRI) && u->tx_count == 0;
}

/* 8.5, table IV: priorities. */
static uint8_t uart_ident(const struct uart *u)
{
    if ((u->ier & UART_IER_RLSI) && u->errors)
        return UART_IIR_RLSI;
    if ((u->ier & UART_IER_RDI) && u->rx_count >= uart_trigger(u))
        return UART_IIR_RDI;
    if ((u->ier & UART_IER_RDI) && u->timeout)
        return UART_IIR_RX_TIMEOUT;
    if ((u->ier & UART_IER_THRI) && u->thre)
        return UART_IIR_THRI;
    if ((u->ier & UART_IER_MSI) && (u->msr & UART_MSR_ANY_DELTA))
        return UART_IIR_MSI;
    return UART_IIR_NO_INT;
}

bool ob_uart_valid(const struct uart *u)
{
    return u->rx_first < UART_DEPTH && u->tx_first < UART_DEPTH && u->rx_count <= uart_depth(u) &&
           u->tx_count <= UART_DEPTH;
}

bool ob_uart_interrupt(const struct uart *u)
{
    return uart_ident(u) != UART_IIR_NO_INT;
}

uint8_t ob_uart_read_ident(struct uart *u)
{
    uint8_t ident = uart_ident(u);

    if (ident == UART_IIR_THRI)
        u->thre = false;
    return ident | (uart_fifos(u) ? IIR_FIFOS : 0);
}

/* 8.4: a change of mode clears both FIFOs; other bits count only if bit 0 is set, and the clearing ones are not kept.
 */
void ob_uart_write_fifo(struct uart *u, uint8_t val)
{
    bool enable = val & UART_FCR_ENABLE_FIFO, change = enable != uart_fifos(u);

    if (change || (enable && (val & UART_FCR_CLEAR_RCVR)))
        uart_rx_clear(u);
    if ((change || (enable && (val & UART_FCR_CLEAR_XMIT))) && u->tx_count)
        uart_tx_empty(u);
    u->rx_moved = true; /* the trigger level may be another */
    u->fcr = enable ? val & (UART_FCR_ENABLE_FIFO | UART_FCR_DMA_SELECT | UART_FCR_TRIGGER_MASK) : 0;
}

/* 8.1, LCR 6. However long a break is, it is one character. */
void ob_uart_write_line(struct uart *u, uint8_t val)
{
    u->lcr = val;
    if (!(val & UART_LCR_SBC)) {
        u->breaking = false;
    } else if (!u->breaking && uart_loops(u)) {
        u->breaking = true;
        uart_push(u, 0, UART_LSR_BI);
    }
}

void ob_uart_write_modem(struct uart *u, uint8_t val)
{
    u->mcr = val & MCR_BITS;
    uart_lines_follow(u);
}

/* 8.3: reading clears the errors, and the FIFO's mark when none is left below the top. */
uint8_t ob_uart_read_line_status(struct uart *u)
{
    uint8_t val = u->errors | (u->rx_count ? UART_LSR_DR : 0) | (u->tx_count ? 0 : UART_LSR_THRE | UART_LSR_TEMT);

    for (unsigned i = 0; uart_fifos(u) && i < u->rx_count; i++)
        if (u->rx_errors[(u->rx_first + i) % UART_DEPTH])
            val |= UART_LSR_FIFOE;
    u->errors = 0;
    if (u->rx_count)
        u->rx_errors[u->rx_first] = 0;
    return val;
}
