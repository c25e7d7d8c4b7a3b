/* target.c: the device under test. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "target.h"

struct target target;

void target_arguments(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s TARGET, such as qemu:edu or \"spawn:outboard serve edu\"\n", argv[0]);
        exit(2);
    }
    target.name = argv[1];
    target.qemu = strncmp(argv[1], "qemu", 4) == 0;
    target.builtin = strncmp(argv[1], "qemu:", 5) == 0;
}

int target_open(const struct ob_driver_options *options)
{
    char why[256];
    int err = ob_driver_open(target.name, options, &target.driver, why, sizeof(why));

    if (err)
        fprintf(stderr, "%s: %s (%s)\n", target.name, why, strerror(-err));
    return err;
}

int target_group(void **state)
{
    return target_open(NULL);
}

int target_group_end(void **state)
{
    ob_driver_close(target.driver);
    target.driver = NULL;
    return 0;
}

int target_reset(void **state)
{
    int err = ob_driver_reset(target.driver);

    if (err)
        fprintf(stderr, "reset: %s\n", strerror(-err));
    return err;
}

int target_check(void **state)
{
    const char *what;
    int err = ob_driver_error(target.driver, &what);

    if (err)
        fprintf(stderr, "an access failed: %s\n", what);
    return err;
}
