/* qtest.h: a QEMU without a guest (-accel qtest): its process, and the two sockets by which it is driven, qtest (a line
 * for an access, a line for its result, lines for interrupts between) and QMP. */
#ifndef OB_DRIVER_QTEST_H
#define OB_DRIVER_QTEST_H

#include "driver/driver.h"
#include "driver/process.h"

#define OB_QTEST_LINE 16384u

struct ob_qtest_lines {
    int fd;
    size_t len;   /* bytes in buf */
    size_t taken; /* of them, lines that were given out */
    char buf[OB_QTEST_LINE];
};

struct ob_qtest {
    struct ob_child qemu;
    struct ob_qtest_lines qtest, qmp;
    int timeout_ms;
    int lost;        /* -errno since QEMU is gone, or has not answered in time; 0 */
    uint64_t raised; /* levels of the I/O APIC's inputs */
    char why[OB_DRIVER_WHY];
};

struct ob_qtest_options {
    const char *program;
    const char *device;        /* the argument of -device */
    const char *const *args;   /* further ones, or NULL */
    int memory_fd;             /* guest RAM */
    uint64_t memory_size;      /* bytes */
    int device_fd;             /* a descriptor that QEMU inherits for the device, or -1 */
    int timeout_ms;            /* of every command */
    int (*started)(void *ctx); /* called once QEMU runs, before the device is made; optional */
    void *ctx;
};

/* Starts QEMU and waits until it takes commands. `qtest` is filled also on failure, and has to be ended. */
int ob_qtest_start(struct ob_qtest *qtest, const struct ob_qtest_options *options, char *why);
void ob_qtest_end(struct ob_qtest *qtest);

/* Runs a command; *val (may be NULL) gets the number in its result. -EPROTO: QEMU refused it. */
__attribute__((format(printf, 3, 4))) int ob_qtest_command(struct ob_qtest *qtest, uint64_t *val, const char *format,
                                                           ...);
/* Takes in lines about interrupts, waiting up to timeout_ms for the first. */
int ob_qtest_poll(struct ob_qtest *qtest, int timeout_ms);
/* Resets the machine; waits until that is done. */
int ob_qtest_reset(struct ob_qtest *qtest);

#endif
