/* The serial port's registers: each rule of the 16550A, and what Linux's driver does to find one. */
#include "serial_bench.h"

static void test_after_reset(void **state)
{
    struct bench *b = *state;

    fake_reset(b->dev, OB_RESET_DEVICE);
    assert_int_equal(in(b, UART_IER), 0);
    assert_int_equal(in(b, UART_IIR), UART_IIR_NO_INT);
    assert_int_equal(in(b, UART_LCR), 0);
    assert_int_equal(in(b, UART_MCR), 0);
    assert_int_equal(in(b, UART_LSR), UART_LSR_TEMT | UART_LSR_THRE);
    assert_int_equal(in(b, UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
    assert_int_equal(in(b, UART_RX), 0);
    assert_false(fake_irq(b->dev));
}

static void test_plain_registers(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < 256; i++) {
        out(b, UART_SCR, (uint8_t)i);
        assert_int_equal(in(b, UART_SCR), i);
        out(b, UART_IER, (uint8_t)i);
        assert_int_equal(in(b, UART_IER), i & 0x0f);
        out(b, UART_MCR, (uint8_t)i);
        assert_int_equal(in(b, UART_MCR), i & 0x1f);
        out(b, UART_LCR, (uint8_t)i);
        assert_int_equal(in(b, UART_LCR), i);
        out(b, UART_LCR, 0);
        out(b, UART_LSR, (uint8_t)i); /* read-only */
        out(b, UART_MSR, (uint8_t)i);
    }
    out(b, UART_MCR, 0);
    out(b, UART_LCR, 0);
    assert_int_equal(in(b, UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
    assert_int_equal(in(b, UART_IER), 0x0f);
    out(b, UART_LCR, UART_LCR_DLAB);
    out(b, UART_DLL, 0x34);
    out(b, UART_DLM, 0x12);
    assert_int_equal(in(b, UART_DLL), 0x34);
    assert_int_equal(in(b, UART_DLM), 0x12);
    out(b, UART_LCR, UART_LCR_WLEN8);
    assert_int_equal(in(b, UART_IER), 0x0f);
    peer_gets_nothing(b);
}

static void test_wide_access(void **state)
{
    struct bench *b = *state;

    fake_write(b->dev, 0, UART_LCR, 2, 0x0103); /* LCR, then MCR */
    assert_int_equal(fake_read(b->dev, 0, UART_LCR, 2), 0x0103);
    assert_int_equal(fake_read(b->dev, 0, UART_LCR, 4), 0xb0600103);
}

/* What drivers/tty/serial/8250 does before it says "16550A", as behaviour. */
static void test_linux_finds_16550a(void **state)
{
    struct bench *b = *state;

    out(b, UART_FCR, 0);
    out(b, UART_IER, 0);
    assert_int_equal(in(b, UART_IER) & 0x0f, 0);
    out(b, UART_IER, 0x0f);
    assert_int_equal(in(b, UART_IER) & 0x0f, 0x0f);
    out(b, UART_IER, 0);
    out(b, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
    assert_int_equal(in(b, UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
    out(b, UART_MCR, 0);
    out(b, UART_LCR, 0xbf); /* no extended registers there: FCR and IIR as ever */
    out(b, UART_EFR, 0);
    out(b, UART_LCR, 0);
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO);
    assert_int_equal(in(b, UART_IIR) >> 6, 3);
    out(b, UART_LCR, UART_LCR_DLAB);
    assert_int_not_equal(in(b, UART_EFR), 0); /* no 16650 */
    out(b, UART_LCR, 0xbf);
    assert_int_not_equal(in(b, UART_EFR), 0); /* no 16650V2 */
    out(b, UART_LCR, 0);
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
    assert_int_equal(in(b, UART_IIR) >> 5, 6);
    out(b, UART_LCR, UART_LCR_DLAB);
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR7_64BYTE);
    assert_int_equal(in(b, UART_IIR) >> 5, 6); /* no 16750 */
    out(b, UART_LCR, 0);
    out(b, UART_IER, 0x40);
    assert_int_equal(in(b, UART_IER), 0); /* no XScale */
    out(b, UART_FCR, 0);
    assert_int_equal(in(b, UART_IIR), UART_IIR_NO_INT);
    out(b, UART_IER, UART_IER_THRI); /* its test for a THRE interrupt that has to come again */
    assert_int_equal(in(b, UART_IIR), UART_IIR_THRI);
    out(b, UART_IER, 0);
    out(b, UART_IER, UART_IER_THRI);
    assert_int_equal(in(b, UART_IIR), UART_IIR_THRI);
    out(b, UART_IER, 0);
}

static void test_fifo_control(void **state)
{
    struct bench *b = *state;

    peer_sends(b, "abc", 3);
    assert_true(in(b, UART_LSR) & UART_LSR_DR);
    out(b, UART_FCR, UART_FCR_CLEAR_RCVR); /* bit 0 clear: a change of mode, which clears too */
    assert_false(in(b, UART_LSR) & UART_LSR_DR);
    assert_int_equal(in(b, UART_IIR), UART_IIR_NO_INT);
    peer_sends(b, "def", 3);
    out(b, UART_FCR, UART_FCR_CLEAR_RCVR); /* no FIFOs to clear: the other bits do not count */
    assert_int_equal(in(b, UART_RX), 'd');
    assert_int_equal(in(b, UART_RX), 'e');  /* was on the line meanwhile */
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO); /* loses f, and only that */
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_NO_INT);
    assert_false(in(b, UART_LSR) & UART_LSR_DR);
    peer_sends(b, "gh", 2);
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_XMIT);
    assert_int_equal(in(b, UART_RX), 'g');
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    assert_false(in(b, UART_LSR) & UART_LSR_DR);
}

static void test_clear_transmitter(void **state)
{
    struct bench *b = *state;

    out(b, UART_IER, UART_IER_THRI);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_THRI);
    out(b, UART_TX, 'x');
    assert_false(fake_irq(b->dev));
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_XMIT);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_THRI);
    fake_advance(b->dev, HOLD_NS);
    peer_gets_nothing(b);
}

static void test_trigger_levels(void **state)
{
    static const struct {
        uint8_t fcr;
        unsigned level;
    } levels[] = {
        { UART_FCR_TRIGGER_1, 1 }, { UART_FCR_TRIGGER_4, 4 }, { UART_FCR_TRIGGER_8, 8 }, { UART_FCR_TRIGGER_14, 14 }
    };
    struct bench *b = *state;

    out(b, UART_IER, UART_IER_RDI);
    for (unsigned i = 0; i < 4; i++) {
        out(b, UART_FCR, UART_FCR_ENABLE_FIFO | levels[i].fcr);
        for (unsigned n = 1; n <= levels[i].level; n++) {
            assert_false(fake_irq(b->dev));
            peer_sends(b, "z", 1);
        }
        assert_true(fake_irq(b->dev));
        assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RDI);
        assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RDI); /* reading IIR does not clear it */
        assert_int_equal(in(b, UART_RX), 'z');
        assert_false(fake_irq(b->dev)); /* below the level again */
        for (unsigned n = 1; n < levels[i].level; n++)
            assert_int_equal(in(b, UART_RX), 'z');
        assert_false(in(b, UART_LSR) & UART_LSR_DR);
        assert_int_equal(fake_deadline(b->dev, 0), 0);
    }
}

static void test_receive_timeout(void **state)
{
    struct bench *b = *state;

    out(b, UART_IER, UART_IER_RDI);
    peer_sends(b, "1", 1);
    fake_advance(b->dev, 3 * CHARACTER_NS);
    peer_sends(b, "2", 1); /* starts the time again */
    fake_advance(b->dev, 3 * CHARACTER_NS);
    assert_false(fake_irq(b->dev));
    out(b, UART_SCR, 1); /* what has nothing to do with the receiver does not */
    out(b, UART_TX, 'x');
    fake_advance(b->dev, CHARACTER_NS + 10);
    assert_true(fake_irq(b->dev));
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
    assert_int_equal(in(b, UART_RX), '1'); /* clears it, and starts the time again */
    assert_false(fake_irq(b->dev));
    fake_advance(b->dev, 4 * CHARACTER_NS + 10);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RX_TIMEOUT);
    assert_int_equal(in(b, UART_RX), '2');
    fake_advance(b->dev, 10 * CHARACTER_NS);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_NO_INT);

    out(b, UART_FCR, 0); /* none without FIFOs: the character itself interrupts */
    peer_sends(b, "3", 1);
    assert_int_equal(in(b, UART_IIR), UART_IIR_RDI);
    assert_int_equal(fake_deadline(b->dev, 0), 0);
    assert_int_equal(in(b, UART_RX), '3');
}

/* Four characters of: start, 5 to 8 bits, parity, stop; in units of half a bit of 1/115200 s. */
static void test_character_time(void **state)
{
    static const struct {
        uint8_t lcr;
        unsigned divisor, halves;
    } times[] = {
        { UART_LCR_WLEN8, 1, 20 },     { UART_LCR_WLEN8, 12, 20 },
        { UART_LCR_WLEN8, 0x900, 20 }, { UART_LCR_WLEN7 | UART_LCR_PARITY | UART_LCR_STOP, 1, 22 },
        { UART_LCR_WLEN6, 1, 16 },     { UART_LCR_WLEN5 | UART_LCR_STOP, 1, 15 },
        { UART_LCR_WLEN8, 0, 20 },
    };
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        unsigned divisor = times[i].divisor;

        out(b, UART_LCR, UART_LCR_DLAB);
        out(b, UART_DLL, (uint8_t)divisor);
        out(b, UART_DLM, (uint8_t)(divisor >> 8));
        out(b, UART_LCR, times[i].lcr);
        peer_sends(b, "t", 1);
        uint64_t want = 4 * (uint64_t)times[i].halves * (divisor ? divisor : 1) * 1000000000 / 230400;
        uint64_t got = fake_deadline(b->dev, 0) - ob_now();

        assert_in_range(got, want - 8, want + 8);
        in(b, UART_RX);
    }
}

static void test_word_length(void **state)
{
    static const uint8_t masks[] = { 0x1f, 0x3f, 0x7f, 0xff };
    struct bench *b = *state;

    for (unsigned i = 0; i < 4; i++) {
        uint8_t got;

        out(b, UART_LCR, (uint8_t)i);
        peer_sends(b, "\xff", 1);
        assert_int_equal(in(b, UART_RX), masks[i]);
        out(b, UART_TX, 0xff);
        assert_true(in(b, UART_LSR) & UART_LSR_THRE);
        assert_int_equal(recv(b->peer, &got, 1, 0), 1);
        assert_int_equal(got, masks[i]);
    }
}

/* Polled: whoever looks finds the transmitter empty, and the bytes out. */
static void test_transmit_polled(void **state)
{
    struct bench *b = *state;

    for (int fifos = 0; fifos < 2; fifos++) {
        out(b, UART_FCR, fifos ? UART_FCR_ENABLE_FIFO : 0);
        for (const char *c = "polled"; *c; c++) {
            out(b, UART_TX, (uint8_t)*c);
            assert_int_equal(in(b, UART_LSR) & (UART_LSR_THRE | UART_LSR_TEMT), UART_LSR_THRE | UART_LSR_TEMT);
        }
        peer_gets(b, "polled");
        assert_false(fake_irq(b->dev));
    }
}

static void test_transmit_interrupt(void **state)
{
    struct bench *b = *state;
    unsigned edges = fake_irq_edges(b->dev);

    out(b, UART_IER, UART_IER_THRI);
    assert_true(fake_irq(b->dev));
    assert_int_equal(fake_irq_edges(b->dev), edges + 1);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_THRI);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_NO_INT); /* reading IIR cleared it */
    assert_false(fake_irq(b->dev));
    for (const char *c = "sixteen bytes..."; *c; c++) {
        assert_int_equal(fake_irq_edges(b->dev), edges + 1);
        out(b, UART_TX, (uint8_t)*c);
    }
    assert_int_equal(fake_irq_edges(b->dev), edges + 2); /* one interrupt for all */
    peer_gets(b, "sixteen bytes...");
    out(b, UART_TX, 'a'); /* writing clears it, too */
    assert_false(fake_irq(b->dev));
    peer_gets_nothing(b); /* held, until somebody looks */
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
    peer_gets(b, "a");
    assert_true(fake_irq(b->dev));
    out(b, UART_TX, 'b');
    fake_advance(b->dev, HOLD_NS / 2);
    peer_gets_nothing(b);
    fake_advance(b->dev, HOLD_NS);
    peer_gets(b, "b");
    assert_true(fake_irq(b->dev));
    out(b, UART_IER, 0);
    assert_false(fake_irq(b->dev));
    out(b, UART_IER, UART_IER_THRI);
    out(b, UART_IER, UART_IER_THRI); /* no second one for a bit that was set */
    in(b, UART_IIR);
    out(b, UART_IER, UART_IER_THRI);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_NO_INT);
}

static void test_modem_lines(void **state)
{
    struct bench *b = *state;
    uint8_t on = UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS, deltas = UART_MSR_DDCD | UART_MSR_DDSR | UART_MSR_DCTS;

    out(b, UART_IER, UART_IER_MSI);
    in(b, UART_MSR);
    close(b->peer);
    b->peer = -1;
    while (!fake_irq(b->dev))
        assert_true(fake_poll(b->dev, WAIT_MS) > 0);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_MSI);
    assert_int_equal(in(b, UART_MSR), deltas);
    assert_int_equal(in(b, UART_MSR), 0);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_NO_INT);
    assert_false(fake_irq(b->dev));
    out(b, UART_TX, 'x'); /* into the void */
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
    plug(b);
    assert_int_equal(in(b, UART_MSR), on);
    peer_gets_nothing(b);
}

static void test_loopback(void **state)
{
    static const struct {
        uint8_t mcr, msr;
    } lines[] = { { UART_MCR_RTS, UART_MSR_CTS },
                  { UART_MCR_DTR, UART_MSR_DSR },
                  { UART_MCR_OUT1, UART_MSR_RI },
                  { UART_MCR_OUT2, UART_MSR_DCD } };
    static const uint8_t delta_on[] = { UART_MSR_DCTS, UART_MSR_DDSR, 0, UART_MSR_DDCD };
    static const uint8_t delta_off[] = { UART_MSR_DCTS, UART_MSR_DDSR, UART_MSR_TERI, UART_MSR_DDCD };
    struct bench *b = *state;

    out(b, UART_MCR, UART_MCR_LOOP);
    in(b, UART_MSR);
    for (unsigned i = 0; i < 4; i++) {
        out(b, UART_MCR, UART_MCR_LOOP | lines[i].mcr);
        assert_int_equal(in(b, UART_MSR), lines[i].msr | delta_on[i]);
        assert_int_equal(in(b, UART_MSR), lines[i].msr);
        out(b, UART_MCR, UART_MCR_LOOP);
        assert_int_equal(in(b, UART_MSR), delta_off[i]);
    }
    send(b->peer, "line", 4, 0); /* waits outside */
    while (fake_poll(b->dev, 50) > 0)
        ;
    for (unsigned i = 0; i < 15; i++)
        out(b, UART_TX, (uint8_t)('A' + i));
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
    for (unsigned i = 0; i < 15; i++)
        assert_int_equal(in(b, UART_RX), 'A' + i);
    assert_false(in(b, UART_LSR) & UART_LSR_DR);
    peer_gets_nothing(b);
    out(b, UART_MCR, 0);
    assert_int_equal(in(b, UART_RX), 'l');
    assert_int_equal(in(b, UART_RX), 'i');
    assert_int_equal(in(b, UART_RX), 'n');
    assert_int_equal(in(b, UART_RX), 'e');
}

static void test_overrun(void **state)
{
    struct bench *b = *state;

    out(b, UART_MCR, UART_MCR_LOOP);
    out(b, UART_IER, UART_IER_RLSI);
    for (unsigned i = 0; i < 16; i++)
        out(b, UART_TX, (uint8_t)i);
    assert_false(fake_irq(b->dev));
    out(b, UART_TX, 16);
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RLSI);
    assert_int_equal(in(b, UART_LSR) & (UART_LSR_OE | UART_LSR_DR), UART_LSR_OE | UART_LSR_DR);
    assert_false(in(b, UART_LSR) & UART_LSR_OE); /* cleared by reading */
    assert_false(fake_irq(b->dev));
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(in(b, UART_RX), i); /* the FIFO kept what it had */
    out(b, UART_FCR, 0);
    out(b, UART_TX, 1);
    out(b, UART_TX, 2);
    assert_true(in(b, UART_LSR) & UART_LSR_OE);
    assert_int_equal(in(b, UART_RX), 2); /* the register took the new one */
}

static void test_break(void **state)
{
    struct bench *b = *state;

    out(b, UART_MCR, UART_MCR_LOOP);
    out(b, UART_IER, UART_IER_RLSI);
    out(b, UART_TX, 'a');
    out(b, UART_LCR, UART_LCR_WLEN8 | UART_LCR_SBC);
    out(b, UART_LCR, UART_LCR_WLEN8 | UART_LCR_SBC);
    out(b, UART_TX, 'x'); /* lost in the break */
    out(b, UART_LCR, UART_LCR_WLEN8);
    out(b, UART_TX, 'b');
    uint8_t lsr = in(b, UART_LSR);

    assert_int_equal(lsr & (UART_LSR_BI | UART_LSR_FIFOE), UART_LSR_FIFOE); /* not at the top yet */
    assert_false(fake_irq(b->dev));
    assert_int_equal(in(b, UART_RX), 'a');
    assert_int_equal(in(b, UART_IIR), 0xc0 | UART_IIR_RLSI);
    lsr = in(b, UART_LSR);
    assert_int_equal(lsr & (UART_LSR_BI | UART_LSR_FIFOE), UART_LSR_BI | UART_LSR_FIFOE);
    assert_int_equal(in(b, UART_LSR) & (UART_LSR_BI | UART_LSR_FIFOE), 0);
    assert_int_equal(in(b, UART_RX), 0);
    assert_int_equal(in(b, UART_RX), 'b');
    out(b, UART_MCR, 0);
    out(b, UART_LCR, UART_LCR_WLEN8 | UART_LCR_SBC);
    out(b, UART_TX, 'x');
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
    peer_gets_nothing(b);
}

static void test_priorities(void **state)
{
    struct bench *b = *state;

    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_1);
    out(b, UART_MCR, UART_MCR_LOOP); /* changes the lines */
    for (unsigned i = 0; i < 17; i++)
        out(b, UART_TX, (uint8_t)i);
    out(b, UART_IER, 0x0f);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_RLSI);
    in(b, UART_LSR);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_RDI);
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_THRI);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_MSI);
    assert_true(fake_irq(b->dev));
    in(b, UART_MSR);
    assert_int_equal(in(b, UART_IIR) & 0x0f, UART_IIR_NO_INT);
    assert_false(fake_irq(b->dev));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_after_reset),     TEST(test_plain_registers),
        TEST(test_wide_access),     TEST(test_linux_finds_16550a),
        TEST(test_fifo_control),    TEST(test_clear_transmitter),
        TEST(test_trigger_levels),  TEST(test_receive_timeout),
        TEST(test_character_time),  TEST(test_word_length),
        TEST(test_transmit_polled), TEST(test_transmit_interrupt),
        TEST(test_modem_lines),     TEST(test_loopback),
        TEST(test_overrun),         TEST(test_break),
        TEST(test_priorities),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
