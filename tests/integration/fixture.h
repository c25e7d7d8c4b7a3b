/* fixture.h: a server program for a group of tests, a client for each test, and the proof after each that nothing is
 * left: the server lives, with the descriptors, mappings and memory that it had before.
 *
 * The programs' commands come from the environment: OUTBOARD_EDU, OUTBOARD_SERIAL, OUTBOARD_TESTDEV. */
#ifndef OB_FIXTURE_H
#define OB_FIXTURE_H

#include "raw/client.h"
#include "process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/pci_regs.h>

struct ob_fixture {
    const char *command; /* of the server program */
    struct ob_process process;
    struct ob_raw raw; /* negotiated, unless the test has ob_fixture_bare */
    bool bare;
    char *descriptors;
    int mappings;   /* lines of /proc/PID/maps */
    long anonymous; /* KiB */
};

/* Group set-up: starts the program; fails if there is no command for it. */
int ob_fixture_edu(void **state);
int ob_fixture_serial(void **state);
int ob_fixture_testdev(void **state);
/* Group teardown: ends the program with SIGTERM, which has to give status 0 (and no leak, with AddressSanitizer). */
int ob_fixture_stop(void **state);
/* Test set-up: a negotiated client of a device that has been reset; bare: a client that has sent nothing. Starts the
 * program again if an earlier test killed it. */
int ob_fixture_setup(void **state);
int ob_fixture_bare(void **state);
/* Test teardown: the comparison. */
int ob_fixture_teardown(void **state);

#define OB_TEST(function)      cmocka_unit_test_setup_teardown(function, ob_fixture_setup, ob_fixture_teardown)
#define OB_TEST_BARE(function) cmocka_unit_test_setup_teardown(function, ob_fixture_bare, ob_fixture_teardown)

/* Inside a test: another connection instead of the present one; not negotiated. */
void ob_fixture_reconnect(struct ob_fixture *fixture);

/* --- What tests do all the time; they fail the test when it does not work ---------------------------------------- */

#define ob_ok(call) assert_int_equal((call), 0)

uint32_t ob_read32(struct ob_raw *raw, uint32_t region, uint64_t offset);
void ob_write32(struct ob_raw *raw, uint32_t region, uint64_t offset, uint32_t value);
uint16_t ob_config16(struct ob_raw *raw, uint32_t offset);
void ob_set_command(struct ob_raw *raw, uint16_t value);
/* The offset of a capability in configuration space; fails the test if it is not there. */
uint32_t ob_find_capability(struct ob_raw *raw, uint8_t id);
/* A memfd of that size, "ob-guest" in /proc. The caller closes it. */
int ob_guest_memory(uint64_t size);
/* Eventfds: a new one; how often it was written since the last look, without waiting; the same, waiting for one. */
int ob_event_new(void);
uint64_t ob_event_take(int fd);
uint64_t ob_event_wait(int fd);
/* Assigns eventfds for triggering. */
int ob_set_eventfds(struct ob_raw *raw, uint32_t index, uint32_t start, uint32_t count, const int *fds);
/* Waits until a round trip shows (value & mask) == wanted; fails the test after 20 s. */
void ob_wait_register(struct ob_raw *raw, uint32_t region, uint64_t offset, uint32_t mask, uint32_t wanted);

#endif
