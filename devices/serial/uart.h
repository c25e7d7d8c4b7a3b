/* uart.h: a 16550A as a machine of its own: registers, FIFOs, interrupt conditions; no bus, no line, no clock.
 *
 * All of it is state. Who drives it (serial.c) puts in what comes from the line, takes out what goes to it, and asks
 * after each step for the interrupt's level and whether the receiver's timeout has to run. */
#ifndef SERIAL_UART_H
#define SERIAL_UART_H

#include <stdbool.h>
#include <stdint.h>

#define UART_DEPTH 16u

struct uart {
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t errors;    /* LSR's OE, PE, FE, BI, until LSR is read */
    uint8_t msr, peer; /* the modem lines as last seen, with their deltas; a peer holds DCD, DSR and CTS */
    uint8_t thre;      /* the interrupt for an empty transmitter is pending */
    uint8_t timeout;   /* the receiver's timeout is pending */
    uint8_t breaking;  /* LCR asks for a break */
    uint8_t
        rx_moved; /* a character came or was read: the timeout's time starts again; for ob_uart_timeout_restarts() */
    uint8_t rx_first, rx_count, tx_first, tx_count;
    uint8_t rx_data[UART_DEPTH], rx_errors[UART_DEPTH], tx_data[UART_DEPTH];
};

void ob_uart_init(struct uart *u); /* reset, but for the peer, whose lines are not ours */

uint8_t ob_uart_read_data(struct uart *u);              /* RBR or DLL */
void ob_uart_write_data(struct uart *u, uint8_t val);   /* THR or DLL */
uint8_t ob_uart_read_enable(const struct uart *u);      /* IER or DLM */
void ob_uart_write_enable(struct uart *u, uint8_t val); /* IER or DLM */
uint8_t ob_uart_read_ident(struct uart *u);             /* IIR */
void ob_uart_write_fifo(struct uart *u, uint8_t val);   /* FCR */
void ob_uart_write_line(struct uart *u, uint8_t val);   /* LCR */
void ob_uart_write_modem(struct uart *u, uint8_t val);  /* MCR */
uint8_t ob_uart_read_line_status(struct uart *u);       /* LSR */
uint8_t ob_uart_read_modem_status(struct uart *u);      /* MSR */

/* Whether it is a state that this machine can be in, which is not known of one that came from elsewhere. */
bool ob_uart_valid(const struct uart *u);
bool ob_uart_interrupt(const struct uart *u);
/* Characters that the FIFO takes from the line now; none in loopback. */
unsigned ob_uart_room(const struct uart *u);
void ob_uart_receive(struct uart *u, uint8_t byte);
/* Whether a character came or was read since the last call: then the timeout's time starts again if it runs. */
bool ob_uart_timeout_restarts(struct uart *u);
/* The receiver holds characters, too few for its trigger level: if none comes or is read for four character times,
 * ob_uart_timeout(). */
bool ob_uart_timeout_runs(const struct uart *u);
void ob_uart_timeout(struct uart *u);
uint64_t ob_uart_character_ns(const struct uart *u);
/* What waits to be sent, oldest first; n of them are sent. */
unsigned ob_uart_pending(const struct uart *u, uint8_t bytes[UART_DEPTH]);
void ob_uart_sent(struct uart *u, unsigned n);
bool ob_uart_tx_full(const struct uart *u);
void ob_uart_set_peer(struct uart *u, bool present);

#endif
