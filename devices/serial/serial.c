/* serial: a PCI serial port with a 16550A (uart.c), as QEMU's pci-serial, on a pseudo-terminal or a Unix socket.
 *
 * The line. Peers come and go; DCD, DSR and CTS say whether there is one. Without one, what the guest sends is gone, as
 * from an unplugged port. A peer that reads slowly keeps the transmitter from getting empty, so the guest waits as on a
 * slow line, without blocking. The line is no slower than that: the baud rate does not pace the transmitter, it only
 * counts for the receiver's timeout. Nothing that a peer sends is lost: characters wait in the peer's own buffers until
 * the FIFO has room; an overrun can happen in loopback only.
 *
 * Transmit. What is written to THR is committed first, then sent, as an effect must be. A FIFO that is filling is not
 * sent byte by byte, which would cost a system call and, with interrupts, a rise and fall of the line for each: it is
 * sent when it is full (ob_after), when the guest looks at LSR, or TX_HOLD_NS after the last byte, whichever comes
 * first. Without FIFOs each byte is sent at once.
 *
 * Crash. `written` in shared memory counts what write(2) took, `sent` in state what the UART knows of: a successor
 * skips the difference. A process killed between write(2) and the next store leaves bytes that were sent and not
 * counted: the peer gets them again, at most 16. What is read from the peer goes to a ring in shared memory, and from
 * there to the FIFO by a position that is state; killed between read(2) and its store, the process takes those bytes
 * with it. The peer notices the crash by itself, see <outboard/char.h>. */
#include <errno.h>
#include <stdatomic.h>
#include <linux/serial_reg.h>
#include <outboard/char.h>
#include "uart.h"

#define RING_SIZE  4096u
#define TX_HOLD_NS UINT64_C(1000000)
/* 9.0 of the data sheet: the receiver's timeout is four character times. */
#define TIMEOUT_CHARACTERS 4

enum { SERIAL_TIMER_RX, SERIAL_TIMER_TX, SERIAL_TIMERS };

/* Positions in the streams; free running. */
struct serial {
    struct uart uart;
    uint64_t sent, received;
};

#define UART_FIELD(member) OB_FIELD(struct serial, uart.member)

static const struct ob_field serial_fields[] = {
    UART_FIELD(ier),
    UART_FIELD(fcr),
    UART_FIELD(lcr),
    UART_FIELD(mcr),
    UART_FIELD(scr),
    UART_FIELD(dll),
    UART_FIELD(dlm),
    UART_FIELD(errors),
    UART_FIELD(msr),
    UART_FIELD(peer),
    UART_FIELD(thre),
    UART_FIELD(timeout),
    UART_FIELD(breaking),
    UART_FIELD(rx_moved),
    UART_FIELD(rx_first),
    UART_FIELD(rx_count),
    UART_FIELD(tx_first),
    UART_FIELD(tx_count),
    UART_FIELD(rx_data),
    UART_FIELD(rx_errors),
    UART_FIELD(tx_data),
    OB_FIELD(struct serial, sent),
    OB_FIELD(struct serial, received),
    OB_FIELD_END,
};

/* The control thread alone writes here; a position is stored after what it counts. */
struct serial_shared {
    _Atomic uint64_t written, filled; /* to the line; into the ring */
    uint8_t ring[RING_SIZE];
};

static const struct ob_field serial_shared_fields[] = {
    OB_FIELD(struct serial_shared, written),
    OB_FIELD(struct serial_shared, filled),
    OB_FIELD(struct serial_shared, ring),
    OB_FIELD_END,
};

struct serial_scratch {
    struct ob_char *line;
    bool running, reading, writing; /* what the line was asked for, besides */
};

static void serial_want(struct serial_scratch *s, bool reading, bool writing)
{
    if (s->reading == reading && s->writing == writing)
        return;
    s->reading = reading;
    s->writing = writing;
    ob_char_want(s->line, reading, writing);
}

static uint64_t serial_waiting(struct ob_dev *dev)
{
    const struct serial *serial = ob_state(dev);
    struct serial_shared *shared = ob_shared(dev);

    return atomic_load(&shared->filled) - serial->received;
}

/* Effect: the ring has room again. What it freed is committed, so that filling it overwrites nothing that a successor
 * may still have to look at. */
static void serial_read_on(struct ob_dev *dev, uint64_t unused)
{
    struct serial_scratch *s = ob_scratch(dev);

    serial_want(s, s->running && serial_waiting(dev) < RING_SIZE, s->writing);
}

static uint64_t serial_timeout_at(const struct uart *u)
{
    return ob_uart_timeout_runs(u) ? ob_now() + TIMEOUT_CHARACTERS * ob_uart_character_ns(u) : 0;
}

/* After anything that may have changed something: what waits goes to the FIFO, timer and interrupt follow. */
static void serial_settle(struct ob_dev *dev)
{
    struct serial *serial = ob_state(dev);
    struct serial_shared *shared = ob_shared(dev);
    struct serial_scratch *s = ob_scratch(dev);
    uint64_t waiting = serial_waiting(dev);
    unsigned room = ob_uart_room(&serial->uart);

    for (; waiting && room; waiting--, room--)
        ob_uart_receive(&serial->uart, shared->ring[serial->received++ % RING_SIZE]);
    if (s->running && !s->reading && waiting <= RING_SIZE / 2)
        ob_after(dev, serial_read_on, 0);
    if (ob_uart_timeout_restarts(&serial->uart))
        ob_timer(dev, SERIAL_TIMER_RX, serial_timeout_at(&serial->uart));
    ob_irq_level(dev, 0, ob_uart_interrupt(&serial->uart));
}

/* What the transmitter holds goes to the line, as far as that takes it. */
static void serial_send(struct ob_dev *dev)
{
    struct serial *serial = ob_state(dev);
    struct serial_shared *shared = ob_shared(dev);
    struct serial_scratch *s = ob_scratch(dev);
    unsigned unknown = (unsigned)(atomic_load(&shared->written) - serial->sent), n;
    uint8_t bytes[UART_DEPTH];
    int gone = 0;

    ob_uart_sent(&serial->uart, unknown);
    serial->sent += unknown;
    n = ob_uart_pending(&serial->uart, bytes);
    if (n > 0)
        gone = ob_char_write(s->line, bytes, n);
    if (gone > 0) {
        atomic_store(&shared->written, serial->sent + (unsigned)gone);
        ob_uart_sent(&serial->uart, (unsigned)gone);
        serial->sent += (unsigned)gone;
    }
    serial_want(s, s->reading, n > 0 && gone < (int)n);
    ob_timer(dev, SERIAL_TIMER_TX, 0);
    serial_settle(dev);
}

/* Unless the session is over or the line has to say first that it takes more. */
static void serial_send_after(struct ob_dev *dev, uint64_t unused)
{
    const struct serial_scratch *s = ob_scratch(dev);

    if (s->running && !s->writing)
        serial_send(dev);
}

/* --- Registers --------------------------------------------------------------------------------------------------- */

static int data_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    *val = ob_uart_read_data(&serial->uart);
    serial_settle(dev);
    return OB_DONE;
}

static int data_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    ob_uart_write_data(&serial->uart, (uint8_t)val);
    if (ob_uart_tx_full(&serial->uart))
        ob_after(dev, serial_send_after, 0);
    else if (serial->uart.tx_count)
        ob_timer(dev, SERIAL_TIMER_TX, ob_now() + TX_HOLD_NS);
    serial_settle(dev);
    return OB_DONE;
}

static int enable_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    const struct serial *serial = ob_state(ob_req_dev(req));

    *val = ob_uart_read_enable(&serial->uart);
    return OB_DONE;
}

static int enable_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    ob_uart_write_enable(&serial->uart, (uint8_t)val);
    serial_settle(dev);
    return OB_DONE;
}

static int ident_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    *val = ob_uart_read_ident(&serial->uart);
    serial_settle(dev);
    return OB_DONE;
}

static int fifo_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    ob_uart_write_fifo(&serial->uart, (uint8_t)val);
    serial_settle(dev);
    return OB_DONE;
}

static int line_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    ob_uart_write_line(&serial->uart, (uint8_t)val);
    serial_settle(dev);
    return OB_DONE;
}

static int modem_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    ob_uart_write_modem(&serial->uart, (uint8_t)val);
    serial_settle(dev);
    return OB_DONE;
}

/* A guest that looks here waits for the transmitter: what was held goes. It may go at once, as earlier requests wrote
 * it and are committed; should this one die, `written` tells the successor. */
static int line_status_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    if (serial->uart.tx_count)
        serial_send_after(dev, 0);
    *val = ob_uart_read_line_status(&serial->uart);
    serial_settle(dev);
    return OB_DONE;
}

static int modem_status_read(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t *val)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    *val = ob_uart_read_modem_status(&serial->uart);
    serial_settle(dev);
    return OB_DONE;
}

static const struct ob_reg serial_regs[] = {
    { .name = "DATA", .off = UART_RX, .width = 1, .read = data_read, .write = data_write },
    { .name = "IER", .off = UART_IER, .width = 1, .read = enable_read, .write = enable_write },
    { .name = "IIR_FCR", .off = UART_IIR, .width = 1, .read = ident_read, .write = fifo_write },
    OB_REG8("LCR", UART_LCR, struct serial, uart.lcr, .write = line_write),
    OB_REG8("MCR", UART_MCR, struct serial, uart.mcr, .write = modem_write),
    { .name = "LSR", .off = UART_LSR, .width = 1, .read = line_status_read },
    { .name = "MSR", .off = UART_MSR, .width = 1, .read = modem_status_read },
    OB_REG8("SCR", UART_SCR, struct serial, uart.scr, .rw = 0xff),
    OB_REG_END,
};

/* --- The line ---------------------------------------------------------------------------------------------------- */

/* Called at the start of a transaction, so all that the FIFO took is committed. */
static void serial_readable(void *ctx)
{
    struct ob_dev *dev = ctx;
    struct serial_shared *shared = ob_shared(dev);
    struct serial_scratch *s = ob_scratch(dev);
    uint64_t filled = atomic_load(&shared->filled), room = RING_SIZE - serial_waiting(dev);
    uint64_t at = filled % RING_SIZE, piece = room < RING_SIZE - at ? room : RING_SIZE - at;
    int n = piece ? ob_char_read(s->line, shared->ring + at, piece) : 0;

    if (n > 0)
        atomic_store(&shared->filled, filled + (unsigned)n);
    serial_settle(dev);
    if (serial_waiting(dev) == RING_SIZE)
        serial_want(s, false, s->writing);
}

static void serial_writable(void *ctx)
{
    serial_send(ctx);
}

static void serial_presence(void *ctx, bool present)
{
    struct ob_dev *dev = ctx;
    struct serial *serial = ob_state(dev);
    const struct serial_scratch *s = ob_scratch(dev);

    ob_uart_set_peer(&serial->uart, present);
    if (s->running)
        serial_send(dev);
}

static const struct ob_char_ops serial_line = { .readable = serial_readable,
                                                .writable = serial_writable,
                                                .presence = serial_presence };

/* --- Life -------------------------------------------------------------------------------------------------------- */

static int serial_open(struct ob_dev *dev, enum ob_origin origin)
{
    struct serial *serial = ob_state(dev);
    struct serial_scratch *s = ob_scratch(dev);

    if (origin == OB_FRESH)
        ob_uart_init(&serial->uart);
    return ob_char_open(dev, &serial_line, dev, &s->line);
}

static int serial_run(struct ob_dev *dev)
{
    struct serial *serial = ob_state(dev);
    struct serial_scratch *s = ob_scratch(dev);

    s->running = true;
    ob_uart_set_peer(&serial->uart, ob_char_present(s->line));
    serial_settle(dev);
    serial_send(dev);
    return 0;
}

/* What is held goes while it can; what the line does not take stays for the next session. */
static int serial_quiesce(struct ob_req *req)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial_scratch *s = ob_scratch(dev);

    if (!s->running)
        return OB_DONE;
    serial_send(dev);
    s->running = false;
    serial_want(s, false, false);
    return OB_DONE;
}

/* Positions lie no further apart than what is between them has room. */
static int serial_loaded(struct ob_dev *dev)
{
    const struct serial *serial = ob_state(dev);
    struct serial_shared *shared = ob_shared(dev);

    if (!ob_uart_valid(&serial->uart) || serial_waiting(dev) > RING_SIZE ||
        atomic_load(&shared->written) - serial->sent > serial->uart.tx_count)
        return -EINVAL;
    return 0;
}

/* The FIFOs are cleared; what still is on the line, in the ring, is not the UART's. */
static int serial_reset(struct ob_req *req, enum ob_reset kind)
{
    struct ob_dev *dev = ob_req_dev(req);
    struct serial *serial = ob_state(dev);

    ob_uart_init(&serial->uart);
    ob_timer(dev, SERIAL_TIMER_TX, 0);
    serial_settle(dev);
    return OB_DONE;
}

static void serial_timer(struct ob_dev *dev, unsigned id)
{
    struct serial *serial = ob_state(dev);

    if (id == SERIAL_TIMER_TX) {
        serial_send_after(dev, 0);
        return;
    }
    ob_uart_timeout(&serial->uart);
    serial_settle(dev);
}

static void serial_close(struct ob_dev *dev)
{
    struct serial_scratch *s = ob_scratch(dev);

    ob_char_close(s->line);
}

static const struct ob_option serial_options[] = { OB_CHAR_OPTIONS, OB_OPTION_END };

/* Identity as QEMU's pci-serial; programming interface 2 is "16550 compatible". */
OB_DEVICE(serial, .summary = "a PCI serial port (16550A)",
          .pci = { .vendor = 0x1b36,
                   .device = 0x0002,
                   .subsystem_vendor = 0x1af4,
                   .subsystem_device = 0x1100,
                   .class_code = 0x070002,
                   .revision = 1 },
          .irqs = { .intx = true }, .bars[0] = OB_BAR_REGS_FLAGS(8, OB_BAR_IO, serial_regs), .options = serial_options,
          .state = OB_STATE(struct serial, 1, serial_fields),
          .shared = OB_STATE(struct serial_shared, 1, serial_shared_fields),
          .scratch_size = sizeof(struct serial_scratch), .timers = SERIAL_TIMERS,
          .ops = { .open = serial_open,
                   .run = serial_run,
                   .quiesce = serial_quiesce,
                   .loaded = serial_loaded,
                   .reset = serial_reset,
                   .timer = serial_timer,
                   .close = serial_close })
