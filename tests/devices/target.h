/* target.h: what the tests of devices share: the device under test, which the first argument names as
 * <outboard/pci_driver.h> does, and small checks. A test is written once and holds for all targets; where a device that
 * QEMU itself has differs from ours, the test says so with target.builtin, and why. */
#ifndef OB_TARGET_H
#define OB_TARGET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <outboard/pci_driver.h>

struct target {
    const char *name;
    struct ob_driver *driver;
    bool qemu;    /* reached through a QEMU */
    bool builtin; /* QEMU's own device */
};
extern struct target target;

/* Takes the arguments of main(). Exits with the usage if they are wrong. */
void target_arguments(int argc, char **argv);
/* Opens target.name; says why on failure, and returns -errno. */
int target_open(const struct ob_driver_options *options);
/* For cmocka: group set-up and teardown; a test's set-up, a reset, and its teardown, which fails the test if an access
 * failed that it did not expect. */
int target_group(void **state);
int target_group_end(void **state);
int target_reset(void **state);
int target_check(void **state);

#define TARGET_TEST(function) cmocka_unit_test_setup_teardown(function, target_reset, target_check)

/* How long a test waits for what has to come, and for what must not. */
#define TARGET_WAIT_MS  10000
#define TARGET_QUIET_MS 30

#endif
