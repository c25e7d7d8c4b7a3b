/* The serial port and its line: slow and absent peers, megabytes both ways, and death between any two steps. */
#include "serial_bench.h"

/* The peer does not read: the transmitter stays full, nothing blocks or is lost, and what does not fit is lost as on
 * hardware only if the guest does not look. */
static void test_slow_peer(void **state)
{
    struct bench *b = *state;
    size_t sent = 0, got = 0;

    for (; in(b, UART_LSR) & UART_LSR_THRE; sent++)
        out(b, UART_TX, (uint8_t)(sent * 7));
    assert_true(sent > 16);
    assert_int_equal(fake_poll(b->dev, 0), 0);
    assert_true(in(b, UART_MSR) & UART_MSR_CTS);
    while (got < sent) {
        uint8_t bytes[4096];
        ssize_t n = recv(b->peer, bytes, sizeof(bytes), 0);

        if (n < 0) {
            assert_true(fake_poll(b->dev, WAIT_MS) > 0);
            continue;
        }
        for (ssize_t i = 0; i < n; i++, got++)
            assert_int_equal(bytes[i], (uint8_t)(got * 7));
    }
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
    for (; in(b, UART_LSR) & UART_LSR_THRE;)
        out(b, UART_TX, 0);
    unplug(b); /* what is held goes with the peer */
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
}

/* A guest's driver, with random pauses and lengths; both directions at once. */
static void test_megabytes(void **state)
{
    enum { TOTAL = 1 << 20 };
    struct bench *b = *state;
    size_t put = 0, got = 0, guest_put = 0, guest_got = 0;
    unsigned seed = 42;
    bool wants = true;

    out(b, UART_IER, UART_IER_RDI | UART_IER_THRI);
    while (got < TOTAL || guest_got < TOTAL) {
        uint8_t bytes[8192];
        size_t n = (size_t)rand_r(&seed) % sizeof(bytes);

        if (n > TOTAL - put)
            n = TOTAL - put;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)((put + i) * 31 + ((put + i) >> 8));
        ssize_t done = n ? send(b->peer, bytes, n, MSG_NOSIGNAL) : 0;

        put += done > 0 ? (size_t)done : 0;
        done = recv(b->peer, bytes, sizeof(bytes), 0);
        for (ssize_t i = 0; i < done; i++, got++)
            if (bytes[i] != (uint8_t)(got * 17 + (got >> 8)))
                fail_msg("byte %zu to the peer is wrong", got);
        while (fake_poll(b->dev, 0) > 0)
            ;
        fake_advance(b->dev, (uint64_t)rand_r(&seed) % 200000);
        for (unsigned turns = (unsigned)rand_r(&seed) % 40; turns > 0; turns--) {
            uint8_t iir = in(b, UART_IIR) & 0x0f, lsr = in(b, UART_LSR);

            assert_false(lsr & UART_LSR_OE);
            if (iir == UART_IIR_RDI || iir == UART_IIR_RX_TIMEOUT)
                while ((lsr & UART_LSR_DR) && rand_r(&seed) % 100) {
                    uint8_t byte = in(b, UART_RX);

                    if (byte != (uint8_t)(guest_got * 31 + (guest_got >> 8)))
                        fail_msg("byte %zu to the guest is wrong", guest_got);
                    guest_got++;
                    lsr = in(b, UART_LSR);
                }
            wants = wants || iir == UART_IIR_THRI;
            if (wants && (in(b, UART_LSR) & UART_LSR_THRE)) {
                wants = false;
                for (unsigned i = 1 + (unsigned)rand_r(&seed) % 16; i > 0 && guest_put < TOTAL; i--, guest_put++)
                    out(b, UART_TX, (uint8_t)(guest_put * 17 + (guest_put >> 8)));
            }
        }
    }
    assert_int_equal(guest_put, TOTAL);
    assert_int_equal(put, TOTAL);
    assert_false(in(b, UART_LSR) & UART_LSR_DR);
}

/* More than all buffers hold, and a guest that does not read: no loop, and nothing lost when it does. */
static void test_guest_does_not_read(void **state)
{
    struct bench *b = *state;
    uint8_t bytes[1024];
    size_t put = 0, got = 0;
    ssize_t n;

    do {
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)((put + i) * 13 + ((put + i) >> 8));
        n = send(b->peer, bytes, sizeof(bytes), MSG_NOSIGNAL);
        put += n > 0 ? (size_t)n : 0;
        while (fake_poll(b->dev, 0) > 0)
            ;
    } while (n > 0);
    assert_int_equal(fake_poll(b->dev, 50), 0);
    fake_session_end(b->dev);
    assert_int_equal(fake_poll(b->dev, 50), 0);
    fake_session_begin(b->dev);
    while (got < put) {
        if (!(in(b, UART_LSR) & UART_LSR_DR)) {
            assert_true(fake_poll(b->dev, WAIT_MS) > 0);
            continue;
        }
        if (in(b, UART_RX) != (uint8_t)(got * 13 + (got >> 8)))
            fail_msg("byte %zu is wrong", got);
        got++;
    }
}

static void test_reset_keeps_the_line(void **state)
{
    struct bench *b = *state;

    out(b, UART_IER, 0x0f);
    out(b, UART_SCR, 1);
    peer_sends(b, "0123456789abcdefgh", 18);
    assert_true(fake_irq(b->dev));
    fake_reset(b->dev, OB_RESET_FLR);
    assert_false(fake_irq(b->dev));
    assert_int_equal(in(b, UART_SCR), 0);
    assert_int_equal(in(b, UART_IER), 0);
    out(b, UART_LCR, UART_LCR_WLEN8);
    /* One character of what still was on the line came in since, five bits wide: the reset chip's register. */
    assert_int_equal(in(b, UART_RX), 'g' & 0x1f);
    assert_int_equal(in(b, UART_RX), 'h');
    assert_int_equal(in(b, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
}

/* Killed before the commit of a write, the byte is not out; after it, the successor sends it. The peer has to come
 * again, which a socket's peer does. */
static void test_crash_transmit(void **state)
{
    struct bench *b = *state;

    for (int kill = FAKE_KILL_BEFORE_COMMIT; kill <= FAKE_KILL_AFTER_COMMIT; kill++) {
        fake_kill_next(b->dev, kill);
        out(b, UART_TX, 'k');
        assert_true(fake_dead(b->dev));
        peer_gets_nothing(b);
        close(b->peer);
        fake_restart(b->dev);
        assert_true(in(b, UART_LSR) & UART_LSR_THRE); /* sent, to nobody: no peer yet */
        plug(b);
        out(b, UART_TX, 'n');
        assert_true(in(b, UART_LSR) & UART_LSR_THRE);
        peer_gets(b, "n");
    }
    for (int kill = FAKE_KILL_BEFORE_COMMIT; kill <= FAKE_KILL_AFTER_COMMIT; kill++) { /* where a look sends: once */
        out(b, UART_TX, 'l');
        fake_kill_next(b->dev, kill);
        in(b, UART_LSR);
        assert_true(fake_dead(b->dev));
        peer_gets(b, "l");
        close(b->peer);
        fake_restart(b->dev);
        plug(b);
        assert_true(in(b, UART_LSR) & UART_LSR_THRE);
        peer_gets_nothing(b);
    }
    /* Killed at the commit that follows the sending: sent once. */
    out(b, UART_IER, UART_IER_THRI);
    in(b, UART_IIR);
    out(b, UART_TX, '1');
    fake_kill_next(b->dev, FAKE_KILL_BEFORE_COMMIT);
    fake_advance(b->dev, HOLD_NS);
    assert_true(fake_dead(b->dev));
    peer_gets(b, "1");
    close(b->peer);
    fake_restart(b->dev);
    assert_true(fake_irq(b->dev)); /* the interrupt for it is not lost */
    plug(b);
    fake_advance(b->dev, HOLD_NS);
    peer_gets_nothing(b);
    assert_true(in(b, UART_LSR) & UART_LSR_THRE);
}

static void test_crash_receive(void **state)
{
    struct bench *b = *state;

    for (int kill = FAKE_KILL_BEFORE_COMMIT; kill <= FAKE_KILL_AFTER_COMMIT; kill++) {
        send(b->peer, "0123456789abcdefghij", 20, 0);
        fake_kill_next(b->dev, kill);
        assert_true(fake_poll(b->dev, WAIT_MS) > 0);
        assert_true(fake_dead(b->dev));
        close(b->peer);
        fake_restart(b->dev);
        plug(b);
        for (unsigned i = 0; i < 20; i++) {
            if (i == 10) { /* in the middle of reading */
                fake_kill_next(b->dev, FAKE_KILL_BEFORE_COMMIT);
                in(b, UART_RX);
                close(b->peer);
                fake_restart(b->dev);
                plug(b);
            }
            assert_int_equal(in(b, UART_RX), "0123456789abcdefghij"[i]);
        }
        assert_false(in(b, UART_LSR) & UART_LSR_DR);
    }
}

static void test_options(void **state)
{
    int err = 0;

    assert_null(fake_new(&ob_class_serial, "backend=unix", &err));
    assert_int_equal(err, -EINVAL);
    struct ob_dev *dev = fake_new(&ob_class_serial, NULL, &err); /* a pseudo-terminal */

    assert_non_null(dev);
    fake_session_begin(dev);
    assert_int_equal(fake_read(dev, 0, UART_MSR, 1), 0);
    fake_free(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_slow_peer),           TEST(test_megabytes),
        TEST(test_guest_does_not_read), TEST(test_reset_keeps_the_line),
        TEST(test_crash_transmit),      TEST(test_crash_receive),
        cmocka_unit_test(test_options),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
