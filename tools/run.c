/* tools/run.c: `outboard run`: the command line. */
#include "run.h"

#include <ctype.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option long_options[] = {
    { "device", required_argument, NULL, 'd' },
    { "dry-run", no_argument, NULL, 'n' },
    { "help", no_argument, NULL, 'h' },
    { 0 },
};

static int print_help(void)
{
    printf(
        "Usage: outboard run [--device NAME[,KEY=VALUE]...]... [--dry-run] [--] QEMU [ARGUMENT]...\n"
        "Starts each device in a process of its own, and QEMU (10.1.1 or later) with them; nothing is left of them,\n"
        "however any of them ends.\n\n"
        "  -d, --device NAME[,KEY=VALUE]...\n"
        "                 a built-in device (see 'outboard devices'), or the path, with a slash, of a device\n"
        "                 program; KEY is an option of the device, or qemu.KEY one of QEMU's vfio-user-pci, such as\n"
        "                 qemu.id=ID, qemu.bus=BUS, qemu.addr=SLOT.FUNCTION; a comma in a value is written twice\n"
        "  -n, --dry-run  print the commands that would be run, and run none\n"
        "  --help         print this text\n\n"
        "Shared guest memory is added unless the arguments of QEMU have it. QEMU reaches the first device at\n"
        "/proc/self/fd/64, the second at 65, and so on, for a later device_add too.\n\n"
        "Exit status: QEMU's (128 + N if signal N killed it), or 124 if a device died while QEMU ran, 125 if the\n"
        "command or a device failed at the start, 126 if QEMU cannot be executed, 127 if it is not found, 2 if the\n"
        "command line is wrong.\n");
    return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
}

/* Prints a word so that a shell reads it back as it is. */
static void print_word(const char *word, const char *before)
{
    bool plain = *word != '\0';

    for (const char *c = word; *c != '\0'; c++)
        plain = plain && (isalnum((unsigned char)*c) || strchr("-_=+,./:@%", *c) != NULL);
    fputs(before, stdout);
    if (plain) {
        fputs(word, stdout);
        return;
    }
    putchar('\'');
    for (const char *c = word; *c != '\0'; c++) {
        if (*c == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*c);
    }
    putchar('\'');
}

static void print_command(char *const *argv)
{
    for (size_t i = 0; argv[i] != NULL; i++)
        print_word(argv[i], i > 0 ? " " : "");
    putchar('\n');
}

static int print_commands(const struct run *run)
{
    for (size_t i = 0; i < run->device_count; i++) {
        printf("# device %s, /proc/self/fd/%d of QEMU: ", run->devices[i].label, run->devices[i].socket);
        print_command(run->devices[i].argv);
    }
    print_command(run->qemu);
    return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
}

static int run(char *const *devices, size_t device_count, char *const *qemu, size_t qemu_count, bool dry)
{
    struct run run = { 0 };
    int status = run_devices_parse(&run, devices, device_count);

    if (status == 0)
        status = run_qemu_prepare(&run, qemu, qemu_count);
    if (status == 0)
        status = run_devices_prepare(&run);
    if (status == 0) {
        run_qemu_add_devices(&run);
        status = dry ? print_commands(&run) : run_supervise(&run);
    }
    run_qemu_free(&run);
    run_devices_free(&run);
    return status;
}

int run_main(int argc, char **argv)
{
    char **devices;
    size_t count = 0;
    bool dry = false;
    int option, status = -1;

    for (int fd = 0; fd <= 2; fd++) /* else a descriptor of ours would become QEMU's standard input */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return STATUS_FAILED;
    signal(SIGCHLD, SIG_DFL); /* ignored, as it may be inherited, it would take the exit statuses away */
    devices = run_alloc((size_t)argc, sizeof(*devices));
    while (status < 0 && (option = getopt_long(argc, argv, "+d:n", long_options, NULL)) != -1) {
        if (option == 'd')
            devices[count++] = optarg;
        else if (option == 'n')
            dry = true;
        else
            status = option == 'h' ? print_help() : STATUS_USAGE;
    }
    if (status < 0 && optind == argc) {
        say("run: the command of QEMU is missing; see 'outboard run --help'");
        status = STATUS_USAGE;
    }
    if (status < 0)
        status = run(devices, count, argv + optind, (size_t)(argc - optind), dry);
    free(devices);
    return status;
}
