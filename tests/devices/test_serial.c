/* test_serial.c: all that a driver can see of a PCI serial port with a 16550A (National Semiconductor's PC16550D data
 * sheet): ours over its socket, ours behind QEMU, and QEMU's pci-serial. The other end of the line is a socket that
 * this program listens on: its path replaces "{line}" in the target. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "target.h"

#define d         (target.driver)
#define DEPTH     16u
#define IIR_FIFOS 0xc0u
#define LINES     (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

static int line = -1;

static uint8_t get(unsigned reg)
{
    return ob_read8(d, 0, reg);
}

static void set(unsigned reg, unsigned val)
{
    ob_write8(d, 0, reg, (uint8_t)val);
}

static void loop(unsigned more)
{
    set(UART_MCR, UART_MCR_LOOP | more);
    get(UART_MSR);
}

static void fifos(unsigned bits)
{
    set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT | bits);
}

/* Looks at LSR until it has those bits; all that it had on the way. */
static uint8_t await(unsigned bits)
{
    assert_int_equal(ob_wait32(d, 0, UART_MCR, bits << 8, bits << 8, TARGET_WAIT_MS), 0);
    return get(UART_LSR);
}

/* A reset of QEMU's forgets FCR: its FIFOs stay on, though IIR says that they are off. */
static int serial_setup(void **state)
{
    int err = target_reset(state);

    if (!err && target.builtin)
        set(UART_FCR, 0);
    return err;
}

#define SERIAL_TEST(function) cmocka_unit_test_setup_teardown(function, serial_setup, target_check)

/* --- Identity ---------------------------------------------------------------------------------------------------- */

static void test_identity(void **state)
{
    struct ob_driver_bar bar;

    assert_int_equal(ob_config_read32(d, PCI_VENDOR_ID), 0x00021b36);
    assert_int_equal(ob_config_read32(d, PCI_CLASS_REVISION), 0x07000201);
    assert_int_equal(ob_config_read32(d, PCI_SUBSYSTEM_VENDOR_ID), 0x11001af4);
    assert_int_equal(ob_config_read8(d, PCI_INTERRUPT_PIN), 1);
    assert_int_equal(ob_driver_bar(d, 0, &bar), 0);
    assert_int_equal(bar.size, 8);
    assert_true(bar.io);
    for (unsigned i = 1; i < 6; i++) {
        assert_int_equal(ob_driver_bar(d, i, &bar), 0);
        assert_int_equal(bar.size, 0);
    }
    assert_int_equal(ob_find_capability(d, PCI_CAP_ID_MSI), -ENOENT);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_MSI, 1), -ENOTSUP);
}

static void test_reset_values(void **state)
{
    assert_int_equal(get(UART_IER), 0);
    assert_int_equal(get(UART_IIR), UART_IIR_NO_INT);
    assert_int_equal(get(UART_LCR), 0);
    /* Table II of the data sheet says 0. QEMU's has OUT2 set, which on a PC lets interrupts through. */
    assert_int_equal(get(UART_MCR), target.builtin ? UART_MCR_OUT2 : 0);
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
    assert_int_equal(get(UART_MSR), LINES);
    assert_int_equal(get(UART_SCR), 0);
    assert_int_equal(get(UART_RX), 0);
    set(UART_LCR, UART_LCR_DLAB);
    assert_int_equal(get(UART_DLL), 12);
    assert_int_equal(get(UART_DLM), 0);
}

static void test_reset(void **state)
{
    fifos(0);
    loop(0);
    set(UART_TX, 'x');
    set(UART_IER, 0xf);
    set(UART_SCR, 0x55);
    set(UART_LCR, 0x1f);
    assert_int_equal(ob_driver_reset(d), 0);
    /* The data sheet leaves SCR out of its table of resets: QEMU's keeps it. */
    if (target.builtin)
        set(UART_SCR, 0);
    test_reset_values(state);
}

/* --- Registers --------------------------------------------------------------------------------------------------- */

static void test_registers(void **state)
{
    for (unsigned val = 0; val < 256; val++) {
        set(UART_SCR, val);
        assert_int_equal(get(UART_SCR), val);
        set(UART_LCR, val & ~UART_LCR_SBC);
        assert_int_equal(get(UART_LCR), val & ~UART_LCR_SBC);
        set(UART_LCR, 0);
        set(UART_MCR, val | UART_MCR_LOOP);
        assert_int_equal(get(UART_MCR), (val | UART_MCR_LOOP) & 0x1f);
        set(UART_IER, val);
        assert_int_equal(get(UART_IER), val & 0xf);
    }
    /* Status cannot be written. */
    set(UART_MCR, 0);
    set(UART_LSR, 0);
    set(UART_MSR, 0);
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
    assert_int_equal(get(UART_MSR) & 0xf0, LINES);
}

static void test_divisor(void **state)
{
    set(UART_IER, UART_IER_MSI);
    set(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    set(UART_DLL, 0x34);
    set(UART_DLM, 0x12);
    assert_int_equal(get(UART_DLL), 0x34);
    assert_int_equal(get(UART_DLM), 0x12);
    set(UART_LCR, UART_LCR_WLEN8);
    assert_int_equal(get(UART_IER), UART_IER_MSI);
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
    set(UART_LCR, UART_LCR_DLAB);
    assert_int_equal(get(UART_DLL), 0x34);
    set(UART_DLL, 1);
    set(UART_DLM, 0);
}

/* Registers are bytes: wider accesses are one for each. */
static void test_access_sizes(void **state)
{
    set(UART_SCR, 0x5a);
    assert_int_equal(ob_read16(d, 0, UART_MSR), 0x5a00 | LINES);
    assert_int_equal(ob_read32(d, 0, UART_MCR) >> 24, 0x5a);
    ob_write16(d, 0, UART_MSR, 0xa500);
    assert_int_equal(get(UART_SCR), 0xa5);
    ob_write32(d, 0, UART_MCR, 0x77000003);
    assert_int_equal(get(UART_SCR), 0x77);
    assert_int_equal(get(UART_MCR), 3);
    /* QEMU's vfio-user-pci does not pass on what is not aligned in an I/O BAR, and reads it as 0. */
    assert_int_equal(ob_read16(d, 0, UART_LCR), target.qemu && !target.builtin ? 0 : 0x0300);
    assert_int_equal(ob_read64(d, 0, 0) == UINT64_MAX, 1);
    assert_int_equal(ob_driver_error(d, NULL), -EINVAL);
}

static void test_fifo_bits(void **state)
{
    set(UART_FCR, UART_FCR_TRIGGER_14); /* counts only with bit 0 */
    assert_int_equal(get(UART_IIR), UART_IIR_NO_INT);
    fifos(0);
    assert_int_equal(get(UART_IIR), UART_IIR_NO_INT | IIR_FIFOS);
    set(UART_FCR, 0);
    assert_int_equal(get(UART_IIR), UART_IIR_NO_INT);
}

/* --- Loopback ---------------------------------------------------------------------------------------------------- */

static void test_loopback(void **state)
{
    set(UART_LCR, UART_LCR_WLEN8);
    loop(0);
    for (unsigned byte = 0; byte < 256; byte += 15) {
        assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
        set(UART_TX, byte);
        assert_int_equal(await(UART_LSR_DR), UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
        assert_int_equal(get(UART_RX), byte);
    }
}

static void test_word_length(void **state)
{
    loop(0);
    for (unsigned length = 0; length < 4; length++) {
        set(UART_LCR, length);
        set(UART_TX, 0xff);
        /* QEMU's moves bytes, whatever the word's length. */
        assert_int_equal(get(UART_RX), target.builtin ? 0xff : 0xffu >> (3 - length));
    }
}

static void test_loopback_fifo(void **state)
{
    set(UART_LCR, UART_LCR_WLEN8);
    loop(0);
    fifos(0);
    for (unsigned i = 0; i < DEPTH; i++)
        set(UART_TX, 0xa0 + i);
    for (unsigned i = 0; i < DEPTH; i++) {
        assert_int_equal(get(UART_LSR), UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
        assert_int_equal(get(UART_RX), 0xa0 + i);
    }
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
    set(UART_TX, 1);
    set(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
    set(UART_TX, 2);
    set(UART_FCR, 0); /* a change of mode clears as well */
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

/* A full FIFO keeps what it has; without one, the new character takes the place of the old. Reading LSR clears OE. */
static void test_overrun(void **state)
{
    set(UART_LCR, UART_LCR_WLEN8);
    loop(0);
    set(UART_TX, 1);
    set(UART_TX, 2);
    assert_int_equal(get(UART_LSR), UART_LSR_OE | UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
    assert_int_equal(get(UART_LSR), UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
    assert_int_equal(get(UART_RX), 2);
    fifos(0);
    for (unsigned i = 0; i < DEPTH + 1; i++)
        set(UART_TX, i);
    assert_int_equal(get(UART_LSR), UART_LSR_OE | UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
    for (unsigned i = 0; i < DEPTH; i++)
        assert_int_equal(get(UART_RX), i);
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

static void test_modem_loopback(void **state)
{
    static const struct {
        unsigned out, in;
    } lines[] = { { UART_MCR_DTR, UART_MSR_DSR },
                  { UART_MCR_RTS, UART_MSR_CTS },
                  { UART_MCR_OUT1, UART_MSR_RI },
                  { UART_MCR_OUT2, UART_MSR_DCD } };

    loop(0);
    for (unsigned i = 0; i < 4; i++) {
        unsigned delta = lines[i].in == UART_MSR_RI ? 0 : lines[i].in >> 4, end = lines[i].in >> 4;

        /* QEMU's shows the lines in loopback, but never a change. */
        set(UART_MCR, UART_MCR_LOOP | lines[i].out);
        assert_int_equal(get(UART_MSR), lines[i].in | (target.builtin ? 0 : delta));
        assert_int_equal(get(UART_MSR), lines[i].in);
        set(UART_MCR, UART_MCR_LOOP);
        assert_int_equal(get(UART_MSR), target.builtin ? 0 : end);
        assert_int_equal(get(UART_MSR), 0);
    }
}

static void test_break(void **state)
{
    loop(0);
    get(UART_RX);
    set(UART_LCR, UART_LCR_WLEN8 | UART_LCR_SBC);
    /* QEMU's sends a break to its chardev, also in loopback. */
    if (!target.builtin) {
        assert_int_equal(get(UART_LSR), UART_LSR_BI | UART_LSR_DR | UART_LSR_THRE | UART_LSR_TEMT);
        assert_int_equal(get(UART_RX), 0);
    }
    set(UART_LCR, UART_LCR_WLEN8);
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

static void irq(unsigned ident)
{
    assert_int_equal(ob_driver_irq_wait(d, 0, TARGET_WAIT_MS), 0);
    assert_int_equal(get(UART_IIR) & 0x0f, ident);
}

static void no_irq(void)
{
    assert_int_equal(ob_driver_irq_pending(d, 0), 0);
    assert_int_equal(get(UART_IIR) & 0x0f, UART_IIR_NO_INT);
}

static void intx(void)
{
    set(UART_LCR, UART_LCR_WLEN8);
    loop(UART_MCR_OUT2);
    get(UART_MSR);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    no_irq();
}

static void test_receive_interrupt(void **state)
{
    intx();
    set(UART_IER, UART_IER_RDI);
    no_irq();
    set(UART_TX, 'a');
    irq(UART_IIR_RDI);
    assert_int_equal(get(UART_RX), 'a');
    no_irq();
    set(UART_TX, 'b');
    irq(UART_IIR_RDI);
    set(UART_IER, 0);
    no_irq();
    assert_int_equal(get(UART_RX), 'b');
}

static void test_trigger_levels(void **state)
{
    static const unsigned bits[] = { UART_FCR_TRIGGER_1, UART_FCR_TRIGGER_4, UART_FCR_TRIGGER_8, UART_FCR_TRIGGER_14 };
    static const unsigned levels[] = { 1, 4, 8, 14 };

    intx();
    /* So slow that no timeout comes in between: 50 baud and less. */
    set(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    set(UART_DLM, 0xff);
    set(UART_LCR, UART_LCR_WLEN8);
    for (unsigned i = 0; i < 4; i++) {
        fifos(bits[i]);
        set(UART_IER, UART_IER_RDI);
        for (unsigned n = 1; n < levels[i]; n++) {
            set(UART_TX, n);
            no_irq();
        }
        set(UART_TX, 0);
        irq(UART_IIR_RDI);
        get(UART_RX);
        no_irq();
        set(UART_IER, 0);
    }
}

/* What is below the trigger level is told of after four character times. */
static void test_receive_timeout(void **state)
{
    intx();
    fifos(UART_FCR_TRIGGER_8);
    set(UART_IER, UART_IER_RDI);
    set(UART_TX, 'q');
    set(UART_TX, 'r');
    irq(UART_IIR_RX_TIMEOUT);
    assert_int_equal(get(UART_RX), 'q');
    irq(UART_IIR_RX_TIMEOUT);
    assert_int_equal(get(UART_RX), 'r');
    no_irq();
}

/* Enabling it while the transmitter is empty raises it; reading IIR, or writing, takes it back. */
static void test_transmit_interrupt(void **state)
{
    intx();
    set(UART_IER, UART_IER_THRI);
    irq(UART_IIR_THRI);
    no_irq();
    set(UART_TX, 'x');
    irq(UART_IIR_THRI);
    no_irq();
    set(UART_IER, 0);
    set(UART_IER, UART_IER_THRI);
    irq(UART_IIR_THRI);
    set(UART_IER, 0);
    get(UART_RX);
}

/* Table IV of the data sheet: line status, received data, transmitter, modem status. */
static void test_priorities(void **state)
{
    intx();
    set(UART_TX, 1);
    set(UART_TX, 2);
    set(UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_DTR);
    set(UART_IER, 0xf);
    irq(UART_IIR_RLSI);
    assert_true(get(UART_LSR) & UART_LSR_OE);
    irq(UART_IIR_RDI);
    assert_int_equal(get(UART_RX), 2);
    irq(UART_IIR_THRI);
    if (!target.builtin) { /* no changes in loopback there */
        irq(UART_IIR_MSI);
        assert_int_equal(get(UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_DDSR);
    }
    no_irq();
}

/* --- The line ---------------------------------------------------------------------------------------------------- */

static void from_line(const char *wanted, size_t n)
{
    char got[512];

    for (size_t have = 0; have < n;) {
        struct pollfd wait = { .fd = line, .events = POLLIN };

        assert_int_equal(poll(&wait, 1, TARGET_WAIT_MS), 1);
        ssize_t more = read(line, got + have, n - have);

        assert_true(more > 0);
        have += (size_t)more;
        if (have == n)
            assert_memory_equal(got, wanted, n);
    }
}

static void test_send(void **state)
{
    set(UART_LCR, UART_LCR_WLEN8);
    set(UART_TX, 'A');
    from_line("A", 1);
    fifos(0);
    for (unsigned i = 0; i < DEPTH; i++)
        set(UART_TX, 'a' + i);
    await(UART_LSR_TEMT);
    from_line("abcdefghijklmnop", DEPTH);
}

static void test_receive(void **state)
{
    char bytes[300];

    set(UART_LCR, UART_LCR_WLEN8);
    fifos(0);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 3);
    assert_int_equal(write(line, bytes, sizeof(bytes)), sizeof(bytes));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        assert_int_equal(await(UART_LSR_DR) & UART_LSR_BRK_ERROR_BITS, 0);
        assert_int_equal(get(UART_RX), (uint8_t)bytes[i]);
    }
    assert_int_equal(get(UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

static void test_receive_interrupt_from_line(void **state)
{
    set(UART_LCR, UART_LCR_WLEN8);
    set(UART_MCR, UART_MCR_OUT2);
    get(UART_MSR);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    set(UART_IER, UART_IER_RDI | UART_IER_RLSI);
    no_irq();
    assert_int_equal(write(line, "hi", 2), 2);
    irq(UART_IIR_RDI);
    assert_int_equal(get(UART_RX), 'h');
    irq(UART_IIR_RDI);
    assert_int_equal(get(UART_RX), 'i');
    no_irq();
}

/* In loopback the line is cut: what comes waits, what is written stays inside. */
static void test_loopback_cuts_the_line(void **state)
{
    set(UART_LCR, UART_LCR_WLEN8);
    loop(0);
    set(UART_TX, 'L');
    assert_int_equal(get(UART_RX), 'L');
    set(UART_MCR, 0);
    set(UART_TX, 'M');
    from_line("M", 1);
}

/* The modem lines follow the peer. QEMU's hold theirs high unless the chardev is a real port. The last test. */
static void test_hang_up(void **state)
{
    assert_int_equal(get(UART_MSR), LINES);
    assert_int_equal(ob_driver_irqs(d, OB_DRIVER_INTX, 1), 1);
    set(UART_IER, UART_IER_MSI);
    no_irq();
    close(line);
    line = -1;
    irq(UART_IIR_MSI);
    assert_int_equal(get(UART_MSR), UART_MSR_DDCD | UART_MSR_DDSR | UART_MSR_DCTS);
    no_irq();
    set(UART_TX, 'x'); /* gone, as from an unplugged port */
    await(UART_LSR_TEMT);
}

/* --- Set-up ------------------------------------------------------------------------------------------------------ */

/* With the path of the line in the place of "{line}". */
static char *with_line(const char *text, const char *path)
{
    const char *at = strstr(text, "{line}");
    char *result;

    if (!at || asprintf(&result, "%.*s%s%s", (int)(at - text), text, path, at + 6) < 0)
        return NULL;
    return result;
}

static int serial_group(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char folder[] = "/tmp/outboard-line-XXXXXX", *chardev, *name;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

    if (!mkdtemp(folder))
        return -errno;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/line", folder);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 1) != 0)
        return -errno;
    name = with_line(target.name, address.sun_path);
    chardev = with_line("socket,id=line,path={line}", address.sun_path);
    if (name)
        target.name = name;
    const char *args[] = { "-chardev", chardev, NULL };

    err = target_open(&(struct ob_driver_options){ .qemu_args = target.builtin ? args : NULL });
    if (!err) {
        struct pollfd wait = { .fd = listener, .events = POLLIN };

        err = poll(&wait, 1, TARGET_WAIT_MS) == 1 ? 0 : -ETIMEDOUT;
        line = err ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        /* Ours says that its peer is there, once it knows. */
        if (!err)
            err = ob_wait32(d, 0, UART_MCR, (uint32_t)LINES << 16, (uint32_t)LINES << 16, TARGET_WAIT_MS);
    }
    close(listener);
    unlink(address.sun_path);
    rmdir(folder);
    free(chardev);
    if (err)
        fprintf(stderr, "the line of %s: %s\n", target.name, strerror(-err));
    return err;
}

static int serial_group_end(void **state)
{
    if (line >= 0)
        close(line);
    if (strstr(target.name, "/line"))
        free((char *)(uintptr_t)target.name);
    return target_group_end(state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        SERIAL_TEST(test_reset_values),
        SERIAL_TEST(test_identity),
        SERIAL_TEST(test_reset),
        SERIAL_TEST(test_registers),
        SERIAL_TEST(test_divisor),
        SERIAL_TEST(test_access_sizes),
        SERIAL_TEST(test_fifo_bits),
        SERIAL_TEST(test_loopback),
        SERIAL_TEST(test_word_length),
        SERIAL_TEST(test_loopback_fifo),
        SERIAL_TEST(test_overrun),
        SERIAL_TEST(test_modem_loopback),
        SERIAL_TEST(test_break),
        SERIAL_TEST(test_receive_interrupt),
        SERIAL_TEST(test_trigger_levels),
        SERIAL_TEST(test_receive_timeout),
        SERIAL_TEST(test_transmit_interrupt),
        SERIAL_TEST(test_priorities),
        SERIAL_TEST(test_send),
        SERIAL_TEST(test_receive),
        SERIAL_TEST(test_receive_interrupt_from_line),
        SERIAL_TEST(test_loopback_cuts_the_line),
        SERIAL_TEST(test_hang_up), /* not of QEMU's own */
    };
    size_t n = sizeof(tests) / sizeof(tests[0]);

    target_arguments(argc, argv);
    return _cmocka_run_group_tests("serial", tests, target.builtin ? n - 1 : n, serial_group, serial_group_end);
}
