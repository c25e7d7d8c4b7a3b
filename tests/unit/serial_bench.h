/* serial_bench.h: the serial port on the device bench, with a peer at the other end of a socket. */
#ifndef SERIAL_BENCH_H
#define SERIAL_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/serial_reg.h>
#include <cmocka.h>
#include "fake_device.h"

#define WAIT_MS      5000
#define HOLD_NS      1000000
#define CHARACTER_NS UINT64_C(86805) /* 8N1 at 115200 baud */

extern const struct ob_device_class ob_class_serial;

static char folder[] = "/tmp/test_serial.XXXXXX";
static char path[64];

struct bench {
    struct ob_dev *dev;
    int peer; /* non-blocking; -1: none */
};

static inline uint8_t in(struct bench *b, unsigned reg)
{
    return (uint8_t)fake_read(b->dev, 0, reg, 1);
}

static inline void out(struct bench *b, unsigned reg, uint8_t val)
{
    fake_write(b->dev, 0, reg, 1, val);
}

/* Until the modem lines say so. Reading MSR clears the deltas. */
static inline void await_lines(struct bench *b, uint8_t lines)
{
    while ((in(b, UART_MSR) & 0xf0) != lines)
        assert_true(fake_poll(b->dev, WAIT_MS) > 0);
}

static inline void plug(struct bench *b)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    strcpy(address.sun_path, path);
    b->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(b->peer, (struct sockaddr *)&address, sizeof(address)), 0);
    fcntl(b->peer, F_SETFL, O_NONBLOCK);
    await_lines(b, UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
}

static inline void unplug(struct bench *b)
{
    close(b->peer);
    b->peer = -1;
    await_lines(b, 0);
}

static inline int setup_bare(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    char options[128];
    int err;

    snprintf(options, sizeof(options), "backend=unix,path=%s", path);
    b->peer = -1;
    b->dev = fake_new(&ob_class_serial, options, &err);
    if (!b->dev)
        return err;
    fake_session_begin(b->dev);
    *state = b;
    return 0;
}

/* 8N1 at 115200, FIFOs on with a trigger level of 14, a peer, nothing pending. */
static inline int setup(void **state)
{
    int err = setup_bare(state);
    struct bench *b = *state;

    if (err)
        return err;
    plug(b);
    out(b, UART_LCR, UART_LCR_DLAB);
    out(b, UART_DLL, 1);
    out(b, UART_DLM, 0);
    out(b, UART_LCR, UART_LCR_WLEN8);
    out(b, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_14);
    return 0;
}

static inline int teardown(void **state)
{
    struct bench *b = *state;

    if (b->peer >= 0)
        close(b->peer);
    fake_free(b->dev);
    free(b);
    return 0;
}

/* The peer sends; the device has seen all of it when nothing is left to poll. */
static inline void peer_sends(struct bench *b, const void *bytes, size_t n)
{
    assert_int_equal(send(b->peer, bytes, n, MSG_NOSIGNAL), n);
    assert_true(fake_poll(b->dev, WAIT_MS) > 0);
    while (fake_poll(b->dev, 0) > 0)
        ;
}

static inline void peer_gets(struct bench *b, const char *want)
{
    char got[256];
    ssize_t n = recv(b->peer, got, sizeof(got), 0);

    assert_int_equal(n, strlen(want));
    assert_memory_equal(got, want, (size_t)n);
}

static inline void peer_gets_nothing(struct bench *b)
{
    char byte;

    assert_int_equal(recv(b->peer, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
}

static inline int make_folder(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/line", folder);
    return 0;
}

static inline int remove_folder(void **state)
{
    return rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
