/* tools/tool.h: what the files of the `outboard` command share. */
#ifndef OB_TOOL_H
#define OB_TOOL_H

#include <outboard/server.h>

/* Exit statuses of `outboard run`; the same numbers as env(1) and timeout(1) use. */
enum {
    STATUS_USAGE = 2,
    STATUS_DEVICE_DIED = 124,    /* while QEMU ran */
    STATUS_FAILED = 125,         /* run itself, or a device at its start */
    STATUS_CANNOT_EXECUTE = 126, /* QEMU */
    STATUS_NOT_FOUND = 127,      /* QEMU */
    STATUS_SIGNAL = 128,         /* plus the signal */
};

/* A subcommand: argv[0] is its name. Returns an exit status. */
struct command {
    const char *name, *summary;
    int (*main)(int argc, char **argv);
};

int run_main(int argc, char **argv);
int serve_main(int argc, char **argv);
int devices_main(int argc, char **argv);
int conform_main(int argc, char **argv);
int dump_main(int argc, char **argv);
int info_main(int argc, char **argv);
int lspci_main(int argc, char **argv);
int peek_main(int argc, char **argv);
int poke_main(int argc, char **argv);

/* The devices that are built in; ends with NULL. */
extern const struct ob_device_class *const builtin_devices[];
/* The one whose name is the first `len` bytes of `name`; NULL if there is none. */
const struct ob_device_class *builtin_find(const char *name, size_t len);
/* Says on standard error, after "outboard COMMAND: ", that there is no such device, which there are, and what to do
 * about any other. */
void builtin_unknown(const char *command, const char *name, size_t len, const char *otherwise);

/* One line on standard error: "outboard: text". */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
