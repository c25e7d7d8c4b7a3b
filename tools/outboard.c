/* tools/outboard.c: the `outboard` command: finds the subcommand. Called as "outboard-DEVICE", it is the device program
 * of that name, which is what a description file of the back-end conventions can point at. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

static int help_main(int argc, char **argv);

static const struct command commands[] = {
    { "run", "start devices, and QEMU with them", run_main },
    { "serve", "serve one built-in device on a socket", serve_main },
    { "conform", "judge a vfio-user server, clause by clause", conform_main },
    { "devices", "list the built-in devices", devices_main },
    { "info", "show what a server says of itself", info_main },
    { "lspci", "show the device of a server as lspci does", lspci_main },
    { "peek", "read from a region of a server's device", peek_main },
    { "poke", "write to a region of a server's device", poke_main },
    { "dump", "print whole regions of a server's device", dump_main },
    { "help", "print this text", help_main },
    { NULL, NULL, NULL },
};

static int help_main(int argc, char **argv)
{
    printf("Usage: outboard COMMAND [ARGUMENT]...\nPCI devices outside the VM monitor, over vfio-user.\n\n");
    for (const struct command *command = commands; command->name != NULL; command++)
        printf("  %-10s %s\n", command->name, command->summary);
    printf(
        "\n'outboard COMMAND --help' tells more.\n\n  --help      print this text\n  --version   print the version\n");
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const char prefix[] = "outboard-";
    const char *name = argc > 0 ? basename(argv[0]) : "";

    if (strncmp(name, prefix, strlen(prefix)) == 0) {
        const char *device = name + strlen(prefix);
        const struct ob_device_class *cls = builtin_find(device, strlen(device));

        if (cls != NULL)
            return ob_device_main(cls, argc, argv);
    }
    if (argc < 2) {
        say("a command is missing; see 'outboard help'");
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0)
        return help_main(argc, argv);
    if (strcmp(argv[1], "--version") == 0) {
        printf("outboard %s\n", OUTBOARD_VERSION);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    for (const struct command *command = commands; command->name != NULL; command++)
        if (strcmp(command->name, argv[1]) == 0)
            return command->main(argc - 1, argv + 1);
    say("there is no command '%s'; see 'outboard help'", argv[1]);
    return STATUS_USAGE;
}
