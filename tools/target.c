/* tools/target.c: connects the commands that look at a server to it, and reads what their command lines have in common.
 */
#include "target.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MAX_S 86400

int target_fail(const struct target *target, int status, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    say("%s: %s", target->command, text);
    return status;
}

int target_number(const struct target *target, const char *what, const char *text, uint64_t max, uint64_t *number)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    char *end;

    errno = 0;
    *number = strtoull(digits, &end, hex ? 16 : 10);
    /* strtoull alone would take blanks, signs, and a second 0x */
    if (!isxdigit((unsigned char)*digits) || *end != '\0' || (hex && (digits[1] == 'x' || digits[1] == 'X')))
        return target_fail(target, STATUS_USAGE, "%s '%.64s' is no number: give digits, or 0x and hexadecimal digits",
                           what, text);
    if (errno == ERANGE || *number > max)
        return target_fail(target, STATUS_USAGE, "%s '%.64s' is too large: at most 0x%" PRIx64, what, text, max);
    return 0;
}

/* --- The command line -------------------------------------------------------------------------------------------- */

static int target_option(struct target *target, int option)
{
    uint64_t seconds;
    int status = 0;

    switch (option) {
    case TARGET_SPAWN:
        target->spawn = optarg;
        return 0;
    case TARGET_DEVICE:
        target->device = optarg;
        return 0;
    case TARGET_TIMEOUT:
        status = target_number(target, "--timeout", optarg, TIMEOUT_MAX_S, &seconds);
        if (status == 0 && seconds == 0)
            status = target_fail(target, STATUS_USAGE, "--timeout 0 leaves no time to answer: give 1 second or more");
        if (status == 0)
            target->timeout_ms = (int)seconds * 1000;
        return status;
    default:
        return -1;
    }
}

static int unknown_option(const struct target *target, int argc, char **argv, int option)
{
    const char *text = optind > 1 && optind <= argc ? argv[optind - 1] : "";

    if (option == ':')
        return target_fail(target, STATUS_USAGE, "option '%.64s' needs a value; see 'outboard %s --help'", text,
                           target->command);
    if (optopt > 0 && optopt < TARGET_SPAWN)
        return target_fail(target, STATUS_USAGE, "there is no option '-%c'; see 'outboard %s --help'", optopt,
                           target->command);
    return target_fail(target, STATUS_USAGE,
                       "option '%.64s' does not exist or takes no value; see 'outboard %s --help'", text,
                       target->command);
}

static int choose(struct target *target, int argc, char **argv, int min, int max)
{
    int given = (target->spawn != NULL) + (target->device != NULL);

    if (given > 1)
        return target_fail(target, STATUS_USAGE, "--spawn and --device exclude each other: give one");
    if (given == 0 && optind < argc)
        target->path = argv[optind++];
    else if (given == 0)
        return target_fail(target, STATUS_USAGE, "SOCKET is missing (or --spawn, --device); see 'outboard %s --help'",
                           target->command);
    target->args = argv + optind;
    target->count = argc - optind;
    if (target->count < min)
        return target_fail(target, STATUS_USAGE, "an argument is missing after the server; see 'outboard %s --help'",
                           target->command);
    if (max >= 0 && target->count > max)
        return target_fail(target, STATUS_USAGE, "unexpected argument '%.64s'; see 'outboard %s --help'",
                           target->args[max], target->command);
    if (target->device != NULL && builtin_find(target->device, strcspn(target->device, ",")) == NULL) {
        builtin_unknown(target->command, target->device, strcspn(target->device, ","),
                        "--spawn starts a server program");
        return STATUS_USAGE;
    }
    return -1;
}

int target_parse(struct target *target, int argc, char **argv, const char *short_options, const struct option *options,
                 int (*own)(void *ctx, int option), void *ctx, int min, int max)
{
    int option;

    target->timeout_ms = 5000;
    opterr = 0;
    while ((option = getopt_long(argc, argv, short_options, options, NULL)) != -1) {
        int status;

        if (option == TARGET_HELP) {
            fputs(target->usage, stdout);
            fputs(TARGET_USAGE, stdout);
            return fflush(stdout) == 0 ? 0 : 1;
        }
        if (option == '?' || option == ':')
            return unknown_option(target, argc, argv, option);
        status = target_option(target, option);
        if (status < 0)
            status = own(ctx, option);
        if (status != 0)
            return status;
    }
    return choose(target, argc, argv, min, max);
}

/* --- Connecting -------------------------------------------------------------------------------------------------- */

/* For servers to be offered a twin socket, so that `info` can tell which take it. The tools map no memory. */
static int refuse_dma(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    (void)ctx, (void)to_device, (void)iova, (void)buf, (void)len;
    return -EFAULT;
}

/* The shell reads COMMAND as its user would have it read, and becomes it. */
static int spawn_command(struct target *target, const struct ob_client_options *options, char *why, size_t size)
{
    bool placed = strstr(target->spawn, "{fd}") != NULL || strstr(target->spawn, "{socket}") != NULL;
    char *line;
    int err;

    if (asprintf(&line, "exec %s%s", target->spawn, placed ? "" : " --fd={fd}") < 0)
        return -ENOMEM;
    err = ob_client_spawn((char *[]){ "/bin/sh", "-c", line, NULL }, options, &target->client, why, size);
    free(line);
    return err;
}

static int spawn_device(struct target *target, const struct ob_client_options *options, char *why, size_t size)
{
    char *device = strdup(target->device);
    int err;

    if (device == NULL)
        return -ENOMEM;
    err = ob_client_spawn((char *[]){ "/proc/self/exe", "serve", device, NULL }, options, &target->client, why, size);
    free(device);
    return err;
}

int target_open(struct target *target)
{
    struct ob_client_options options = { .timeout_ms = target->timeout_ms, .dma = refuse_dma };
    const char *name = target->path != NULL ? target->path : target->spawn != NULL ? target->spawn : target->device;
    const char *remedy = "";
    char why[256] = "";
    int err;

    if (target->path != NULL)
        err = ob_client_connect(target->path, &options, &target->client, why, sizeof(why));
    else if (target->spawn != NULL)
        err = spawn_command(target, &options, why, sizeof(why));
    else
        err = spawn_device(target, &options, why, sizeof(why));
    if (err >= 0)
        return 0;
    if (err == -ETIMEDOUT)
        remedy = "; it may be serving another client, and a server has one at a time: end that one, or give --timeout";
    else if (err == -ECONNREFUSED || err == -ENOENT)
        remedy = "; is the server running, and is this its socket?";
    else if (err == -EACCES)
        remedy = "; the socket belongs to another user: see --socket-owner and --socket-mode of 'outboard serve'";
    return target_fail(target, 1, "cannot connect to '%s': %s%s", name, why[0] != '\0' ? why : strerror(-err), remedy);
}

int target_close(struct target *target, int status)
{
    ob_client_close(target->client);
    target->client = NULL;
    if (fflush(stdout) != 0 || ferror(stdout)) {
        say("%s: cannot write to standard output: %s", target->command, strerror(errno));
        return status == 0 ? 1 : status;
    }
    return status;
}

int target_error(const struct target *target, int err, const char *what)
{
    const char *why = target->client != NULL ? ob_client_why(target->client) : "";

    if (err == -ENOTCONN || err == -EPROTO)
        return target_fail(target, 1, "%s: the connection ended%s%s", what, why[0] != '\0' ? ": " : "", why);
    if (err == -ETIMEDOUT)
        return target_fail(target, 1, "%s: the server did not answer within %d s; see --timeout", what,
                           target->timeout_ms / 1000);
    return target_fail(target, 1, "%s: the server refused it: %s", what, strerror(-err));
}

/* --- Regions ----------------------------------------------------------------------------------------------------- */

static const char *const region_names[VFIO_PCI_NUM_REGIONS] = {
    [VFIO_PCI_BAR0_REGION_INDEX] = "bar0", [VFIO_PCI_BAR1_REGION_INDEX] = "bar1",
    [VFIO_PCI_BAR2_REGION_INDEX] = "bar2", [VFIO_PCI_BAR3_REGION_INDEX] = "bar3",
    [VFIO_PCI_BAR4_REGION_INDEX] = "bar4", [VFIO_PCI_BAR5_REGION_INDEX] = "bar5",
    [VFIO_PCI_ROM_REGION_INDEX] = "rom",   [VFIO_PCI_CONFIG_REGION_INDEX] = "config",
    [VFIO_PCI_VGA_REGION_INDEX] = "vga",
};

const char *target_region_name(uint32_t index, char *name)
{
    if (index < VFIO_PCI_NUM_REGIONS)
        return region_names[index];
    snprintf(name, 16, "%" PRIu32, index);
    return name;
}

int target_region(const struct target *target, const char *text, uint32_t *index)
{
    uint64_t number;

    for (*index = 0; *index < VFIO_PCI_NUM_REGIONS; ++*index)
        if (strcmp(region_names[*index], text) == 0)
            return 0;
    if (!isdigit((unsigned char)text[0]))
        return target_fail(target, STATUS_USAGE,
                           "'%.64s' is no region: give bar0 to bar5, rom, config, vga, or an index", text);
    if (target_number(target, "region", text, UINT32_MAX, &number) != 0)
        return STATUS_USAGE;
    *index = (uint32_t)number;
    return 0;
}

int target_find(const struct target *target, uint32_t index, const struct ob_client_region **region)
{
    uint32_t count = ob_client_info(target->client)->regions;
    char list[512] = "", name[16];
    int err = ob_client_region(target->client, index, region);

    if (err == 0 && (*region)->size > 0)
        return 0;
    if (err != 0 && err != -EINVAL)
        return target_error(target, err, target_region_name(index, name));
    for (uint32_t i = 0; i < count; i++) {
        const struct ob_client_region *other;
        size_t used = strlen(list);

        if (ob_client_region(target->client, i, &other) == 0 && other->size > 0)
            snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "", target_region_name(i, name));
    }
    return target_fail(target, 1, "region %s does not exist; this device has %s", target_region_name(index, name),
                       list[0] != '\0' ? list : "none");
}
