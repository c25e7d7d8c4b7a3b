/* tools/serve.c: `outboard serve`: a built-in device as a program of its own. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_help(void)
{
    printf("Usage: outboard serve DEVICE[,KEY=VALUE]... --socket-path PATH | --fd N [OPTION]...\n"
           "Serves a built-in device over vfio-user, until SIGTERM.\n"
           "'outboard devices' lists the devices, 'outboard serve DEVICE --help' tells all options of one.\n"
           "\n  --help   print this text\n");
    return fflush(stdout) == 0 ? 0 : 1;
}

/* Turns "serve edu,key=value ARG..." into the command line of the device program: "outboard serve edu"
 * --option=key=value ARG... */
static int serve(const struct ob_device_class *cls, const char *options, int argc, char **argv)
{
    char **args = calloc((size_t)argc + 3, sizeof(*args));
    char *name = NULL, *option = NULL;
    int n = 0, status = 1;

    if (asprintf(&name, "outboard serve %s", cls->name) < 0)
        name = NULL;
    if (options != NULL && asprintf(&option, "--option=%s", options) < 0)
        option = NULL;
    if (args != NULL && name != NULL && (options == NULL || option != NULL)) {
        args[n++] = name;
        if (option != NULL)
            args[n++] = option;
        for (int i = 0; i < argc; i++)
            args[n++] = argv[i];
        status = ob_device_main(cls, n, args);
    } else {
        say("serve: out of memory");
    }
    free(option);
    free(name);
    free(args);
    return status;
}

int serve_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return print_help();
    if (argc < 2 || argv[1][0] == '-') {
        say("serve: the device has to come first: outboard serve DEVICE[,KEY=VALUE]... --socket-path PATH");
        return STATUS_USAGE;
    }

    const char *comma = strchrnul(argv[1], ',');
    size_t len = (size_t)(comma - argv[1]);
    const struct ob_device_class *cls = builtin_find(argv[1], len);

    if (cls == NULL) {
        builtin_unknown("serve", argv[1], len, "a device program is run by itself, with --socket-path");
        return STATUS_USAGE;
    }
    return serve(cls, *comma == ',' ? comma + 1 : NULL, argc - 2, argv + 2);
}
