/* device_bench.h: a device of the library's in a thread of this process, and a raw client on the other end of its
 * socket. For tests of what a device's author sees. */
#ifndef OB_DEVICE_BENCH_H
#define OB_DEVICE_BENCH_H

#include "raw/client.h"

#include <outboard/device.h>
#include <outboard/server.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <cmocka.h>

struct bench {
    struct ob_dev *dev;
    struct ob_raw raw;
    pthread_t thread;
    bool running;
    _Atomic bool stopped; /* by bench_stop(), in the device's thread */
    int stop;             /* eventfd */
    int result;           /* of the last ob_server_run() */
};

/* Makes the device, connects a client and negotiates. The device's thread runs until its client goes. */
void bench_start(struct bench *bench, const struct ob_device_class *cls, const char *options);
/* The parts of it: without the thread, and without VERSION. */
void bench_new(struct bench *bench, const struct ob_device_class *cls, const char *options);
void bench_run(struct bench *bench);
/* Ends the device's thread, frees the device, then closes the client. */
void bench_stop(struct bench *bench);

/* A read and a write that have to succeed; sizes of 1, 2, 4 and 8 bytes. */
uint64_t bench_read(struct bench *bench, uint32_t region, uint64_t off, uint32_t size);
void bench_write(struct bench *bench, uint32_t region, uint64_t off, uint64_t value, uint32_t size);
void bench_bus_master(struct bench *bench, bool on);

/* Standard error between the two calls, as text: the caller frees it. */
void capture_begin(void);
char *capture_end(void);

/* How many descriptors this process has. */
int count_descriptors(void);

/* Waits for an eventfd to be written, and takes what was. Fails the test after 20 s. */
uint64_t await(int fd);
/* What was written to a non-blocking eventfd, 0 if nothing. */
uint64_t taken(int fd);

#endif
