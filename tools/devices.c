/* tools/devices.c: `outboard devices`: lists the built-in devices. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

int devices_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        printf(
            "Usage: outboard devices\nLists the built-in devices; 'outboard serve DEVICE --help' tells more of one.\n"
            "\n  --help   print this text\n");
        return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
    }
    if (argc > 1) {
        say("devices: unexpected argument '%s'; see 'outboard devices --help'", argv[1]);
        return STATUS_USAGE;
    }
    for (const struct ob_device_class *const *cls = builtin_devices; *cls != NULL; cls++)
        printf("%-12s %s\n", (*cls)->name, (*cls)->summary != NULL ? (*cls)->summary : "");
    return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
}
