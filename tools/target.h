/* tools/target.h: which server the commands that look at one connect to, and how they read their command lines. */
#ifndef OB_TARGET_H
#define OB_TARGET_H

#include "tool.h"

#include <getopt.h>
#include <outboard/client.h>

/* The options of every such command: for its table of long options, and for its --help. */
enum { TARGET_SPAWN = 256, TARGET_DEVICE, TARGET_TIMEOUT, TARGET_HELP, TARGET_OWN };
#define TARGET_OPTIONS                                                                                        \
    { "spawn", required_argument, NULL, TARGET_SPAWN }, { "device", required_argument, NULL, TARGET_DEVICE }, \
        { "timeout", required_argument, NULL, TARGET_TIMEOUT }, { "help", no_argument, NULL, TARGET_HELP },   \
    {                                                                                                         \
        NULL, 0, NULL, 0                                                                                      \
    }
#define TARGET_USAGE                                                                   \
    "SOCKET is that of a server; in its place:\n"                                      \
    "  --spawn 'COMMAND ARG...'   start a server program for this, and end it after\n" \
    "  --device NAME[,KEY=VALUE]  likewise, a built-in device\n"                       \
    "Further:\n"                                                                       \
    "  --timeout SECONDS          how long to wait for each answer (5)\n"              \
    "  --help                     print this text\n"

struct target {
    const char *command; /* its name, for messages */
    const char *usage;   /* the text of --help */
    const char *path, *spawn, *device;
    int timeout_ms;
    struct ob_client *client;
    char **args; /* what follows SOCKET */
    int count;
};

/* Reads the command line: the target's options, and others by own(), which gets getopt's value and returns 0 or an
 * exit status (NULL: there are none). At least `min` and at most `max` (-1: any) arguments follow SOCKET. Says what is
 * wrong. Returns -1 to go on, or the exit status. */
int target_parse(struct target *target, int argc, char **argv, const char *short_options, const struct option *options,
                 int (*own)(void *ctx, int option), void *ctx, int min, int max);
/* Connects, or says why not and returns 1. What was opened is closed by target_close(). */
int target_open(struct target *target);
/* The exit status: `status`, or 1 if standard output could not be written. */
int target_close(struct target *target, int status);
/* Says "outboard COMMAND: TEXT", and returns `status`. */
int target_fail(const struct target *target, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What an error of the client library means for whoever runs the command, after "what: ". Returns 1. */
int target_error(const struct target *target, int err, const char *what);

/* A number of the command line: digits, or 0x and hexadecimal digits, and nothing else; at most `max`. Returns 0, or
 * STATUS_USAGE and says what is wrong. */
int target_number(const struct target *target, const char *what, const char *text, uint64_t max, uint64_t *number);
/* The index of a region by its name or number. Likewise. */
int target_region(const struct target *target, const char *text, uint32_t *index);
/* "bar0", or the number of a region that has no name, in a buffer of 16 bytes. */
const char *target_region_name(uint32_t index, char *name);
/* The region, if the device has it; else says which it has, and returns 1. */
int target_find(const struct target *target, uint32_t index, const struct ob_client_region **region);

#endif
