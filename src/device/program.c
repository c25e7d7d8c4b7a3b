/* device/program.c: a device as a program: the command line that the back-end conventions of the specification ask for
 * (--socket-path, --fd, SIGTERM, no daemon), and the loop.
 *
 * Signals come as descriptors of the control loop: they are blocked before the device exists, so that its workers
 * inherit the mask and one that arrives during set-up waits, and a signalfd on ob_control() ends the sleep in
 * ob_server_run(). There is no moment in which one is lost, and it costs the requests no system call.
 */
#include <outboard/server.h>

#include "device/options.h"
#include "memory/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATUS_FAILED 1
#define STATUS_USAGE  2

/* What the command line says. */
struct program {
    const struct ob_device_class *cls;
    const char *name; /* argv[0] without folders */
    char *options;    /* all --option joined; NULL: none */
    struct ob_lifeline lifeline;
    struct ob_listen listen;
    int ready_fd; /* -1: nobody asked */
};

/* --- Serving ----------------------------------------------------------------------------------------------------- */

static void stop(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct signalfd_siginfo info;
    bool *stopped = ctx;

    if (read(fd, &info, sizeof(info)) == sizeof(info))
        *stopped = true;
}

/* Tells whoever gave the descriptor that clients may connect: a newline, then its end. */
static int tell_ready(const struct ob_dev *dev, int fd)
{
    ssize_t n = write(fd, "\n", 1);
    int err = n < 0 ? -errno : 0;

    close(fd);
    if (err < 0)
        ob_log(dev, "--ready-fd=%d: cannot write: %s", fd, strerror(-err));
    return err;
}

/* Returns an exit status. */
static int loop(struct ob_dev *dev, int signals)
{
    bool stopped = false;
    int n = ob_worker_fd(ob_control(dev), signals, EPOLLIN, stop, &stopped);

    if (n < 0) {
        ob_log(dev, "cannot wait for signals: %s", strerror(-n));
        return STATUS_FAILED;
    }
    while (!stopped && (n >= 0 || n == -EINTR))
        n = ob_server_run(dev, -1);
    ob_worker_fd(ob_control(dev), signals, 0, NULL, NULL);
    if (stopped || n == -EPIPE)
        return 0;
    ob_log(dev, "the device cannot go on: %s", strerror(-n));
    return STATUS_FAILED;
}

/* Removes the socket file if it is still the one that was made: somebody may have put a new one in its place. */
static void remove_socket(const char *path, const struct stat *made)
{
    struct stat now;

    if (lstat(path, &now) == 0 && now.st_dev == made->st_dev && now.st_ino == made->st_ino)
        unlink(path);
}

static int listen_and_loop(struct ob_dev *dev, const struct ob_listen *listen, int ready_fd, int signals)
{
    struct stat made;
    bool has_file;
    int status;

    if (ob_dev_listen(dev, listen) < 0)
        return STATUS_FAILED; /* logged */
    has_file = listen->path != NULL && lstat(listen->path, &made) == 0;
    status = ready_fd >= 0 && tell_ready(dev, ready_fd) < 0 ? STATUS_FAILED : loop(dev, signals);
    if (has_file)
        remove_socket(listen->path, &made); /* while we still listen: nobody can have taken the path over as stale */
    return status;
}

/* SIGTERM, and SIGINT unless whoever started us ignores it, as shells do for what runs in the background. */
static void stop_signals(sigset_t *set)
{
    struct sigaction interrupt;

    sigemptyset(set);
    sigaddset(set, SIGTERM);
    if (sigaction(SIGINT, NULL, &interrupt) == 0 && interrupt.sa_handler != SIG_IGN)
        sigaddset(set, SIGINT);
}

static int serve(const struct program *program)
{
    struct ob_dev *dev = NULL;
    int status = STATUS_FAILED, signals;
    sigset_t set, before;

    stop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    /* The process is the device's alone, so its signals are ours: a client that cuts short a file of guest memory ends
     * its session, and not the device. */
    int guarded = ob_fault_install();
    if (guarded < 0)
        fprintf(stderr, "outboard: %s: cannot guard guest memory: %s\n", program->cls->name, strerror(-guarded));
    else if (signals < 0)
        fprintf(stderr, "outboard: %s: cannot wait for signals: %s\n", program->cls->name, strerror(errno));
    else if (ob_dev_new(program->cls, program->options, &program->lifeline, &dev) == 0)
        status = listen_and_loop(dev, &program->listen, program->ready_fd, signals);
    if (dev != NULL)
        ob_dev_free(dev);
    if (signals >= 0)
        close(signals);
    if (guarded == 0)
        (void)ob_fault_remove(); /* refused if somebody chained to it, who then still needs it */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* --- The command line -------------------------------------------------------------------------------------------- */

enum { OPT_SOCKET_PATH = 256, OPT_FD, OPT_LIFELINE, OPT_READY, OPT_MODE, OPT_OWNER, OPT_GROUP, OPT_CAPS, OPT_VERSION };

static const struct option long_options[] = {
    { "socket-path", required_argument, NULL, OPT_SOCKET_PATH },
    { "fd", required_argument, NULL, OPT_FD },
    { "option", required_argument, NULL, 'o' },
    { "socket-mode", required_argument, NULL, OPT_MODE },
    { "socket-owner", required_argument, NULL, OPT_OWNER },
    { "socket-group", required_argument, NULL, OPT_GROUP },
    { "ready-fd", required_argument, NULL, OPT_READY },
    { "lifeline", required_argument, NULL, OPT_LIFELINE },
    { "print-capabilities", no_argument, NULL, OPT_CAPS },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, OPT_VERSION },
    { 0 },
};

static int __attribute__((format(printf, 2, 3))) usage_error(const struct program *program, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", program->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see '%s --help'\n", program->name);
    return STATUS_USAGE;
}

static void print_options(const struct ob_option *options)
{
    if (options == NULL || options->name == NULL) {
        printf("\nThis device has no options of its own.\n");
        return;
    }
    printf("\nOptions of the device (-o):\n");
    for (; options->name != NULL; options++) {
        char syntax[OB_OPTIONS_WHY];

        ob_option_syntax(options, syntax, sizeof(syntax));
        printf("  %s=%s\n      %s", options->name, syntax, options->help != NULL ? options->help : "");
        if (ob_option_required(options))
            printf(" (has to be given)");
        else if (options->value != NULL)
            printf(" (default: %s)", options->value);
        printf("\n");
    }
}

static int print_help(const struct program *program)
{
    printf("Usage: %s --socket-path PATH | --fd N [OPTION]...\n"
           "Serves the PCI device '%s' over vfio-user: %s.\n\n"
           "  --socket-path PATH   listen on a UNIX socket made at PATH\n"
           "  --fd N               serve descriptor N: a UNIX socket, listening or connected\n"
           "  -o, --option KEY=VALUE[,KEY=VALUE]...\n"
           "                       options of the device; a comma in a value is written twice\n"
           "  --socket-mode MODE   permissions of the socket file, octal (default: 0600)\n"
           "  --socket-owner USER  owner of the socket file; clients of that user are let in\n"
           "  --socket-group GROUP group of the socket file; clients of that group are let in\n"
           "  --ready-fd N         write a newline to descriptor N once clients may connect\n"
           "  --lifeline VAULT,BARS,JOURNAL,HOLDER\n"
           "                       descriptors left by a process that died, -1 for a new one\n"
           "  --print-capabilities print a JSON description of the device\n"
           "  --help               print this text\n"
           "  --version            print the version\n",
           program->name, program->cls->name, program->cls->summary != NULL ? program->cls->summary : "");
    print_options(program->cls->options);
    return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
}

static int print_capabilities(const struct program *program)
{
    char *text = ob_class_describe(program->cls);
    int n = text != NULL ? puts(text) : EOF;

    free(text);
    if (n < 0 || fflush(stdout) != 0) {
        fprintf(stderr, "%s: cannot print the capabilities: %s\n", program->name, strerror(errno));
        return STATUS_FAILED;
    }
    return 0;
}

/* A whole number in [0, max], all of the text. */
static bool parse_int(const char *text, int base, long max, long *number)
{
    char *end;

    errno = 0;
    *number = strtol(text, &end, base);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && *number <= max;
}

/* A descriptor that is open; it is kept from processes that the device may start. */
static bool parse_fd(const char *text, int *fd)
{
    long n;

    if (!parse_int(text, 10, INT32_MAX, &n) || fcntl((int)n, F_SETFD, FD_CLOEXEC) < 0)
        return false;
    *fd = (int)n;
    return true;
}

static bool is_unix_socket(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);

    return getsockname(fd, (struct sockaddr *)&address, &size) == 0 && address.ss_family == AF_UNIX;
}

static int parse_lifeline(struct program *program, char *text)
{
    int *const fds[] = { &program->lifeline.vault, &program->lifeline.bars, &program->lifeline.journal,
                         &program->lifeline.holder };
    char *rest = text;
    bool good = true;
    size_t n = 0;

    for (char *item; good && (item = strsep(&rest, ",")) != NULL; n++)
        good = n < 4 && (strcmp(item, "-1") == 0 || parse_fd(item, fds[n]));
    if (!good || n != 4)
        return usage_error(program, "--lifeline takes VAULT,BARS,JOURNAL,HOLDER: four open descriptors or -1");
    return 0;
}

static int add_option(struct program *program, const char *text)
{
    char *joined;

    if (asprintf(&joined, "%s%s%s", program->options != NULL ? program->options : "",
                 program->options != NULL ? "," : "", text) < 0)
        return usage_error(program, "--option: out of memory");
    free(program->options);
    program->options = joined;
    return 0;
}

static int parse_owner(struct program *program, const char *text)
{
    const struct passwd *user = getpwnam(text);
    long number = 0;

    if (user == NULL && !parse_int(text, 10, INT32_MAX, &number))
        return usage_error(program, "--socket-owner: there is no user '%s'", text);
    program->listen.owner = user != NULL ? user->pw_uid : (uid_t)number;
    return 0;
}

static int parse_group(struct program *program, const char *text)
{
    const struct group *group = getgrnam(text);
    long number = 0;

    if (group == NULL && !parse_int(text, 10, INT32_MAX, &number))
        return usage_error(program, "--socket-group: there is no group '%s'", text);
    program->listen.group = group != NULL ? group->gr_gid : (gid_t)number;
    return 0;
}

/* Returns 0, or an exit status. */
static int parse_one(struct program *program, int option, char *text)
{
    long number;

    switch (option) {
    case 'o':
        return add_option(program, text);
    case OPT_SOCKET_PATH:
        program->listen.path = text;
        return *text != '\0' ? 0 : usage_error(program, "--socket-path is empty");
    case OPT_FD:
        if (!parse_fd(text, &program->listen.fd) || !is_unix_socket(program->listen.fd))
            return usage_error(program, "--fd: '%s' is not the number of an open UNIX socket", text);
        return 0;
    case OPT_READY:
        if (!parse_fd(text, &program->ready_fd))
            return usage_error(program, "--ready-fd: '%s' is not the number of an open descriptor", text);
        return 0;
    case OPT_MODE:
        if (!parse_int(text, 8, 0777, &number) || number == 0)
            return usage_error(program, "--socket-mode: '%s' is not an octal mode from 1 to 777", text);
        program->listen.mode = (mode_t)number;
        return 0;
    case OPT_OWNER:
        return parse_owner(program, text);
    case OPT_GROUP:
        return parse_group(program, text);
    case OPT_LIFELINE:
        return parse_lifeline(program, text);
    }
    return STATUS_USAGE; /* getopt has said what is wrong */
}

static int parse(struct program *program, int argc, char **argv)
{
    int option, status = 0;

    optind = 0; /* a caller may have parsed a command line of its own before */
    while (status == 0 && (option = getopt_long(argc, argv, "+o:h", long_options, NULL)) != -1)
        status = parse_one(program, option, optarg);
    if (status != 0)
        return status;
    if (optind < argc)
        return usage_error(program, "unexpected argument '%s'", argv[optind]);
    if (program->listen.path != NULL && program->listen.fd >= 0)
        return usage_error(program, "--socket-path and --fd exclude each other");
    if (program->listen.path == NULL && program->listen.fd < 0)
        return usage_error(program, "--socket-path PATH or --fd N is missing");
    if (program->listen.path == NULL && program->listen.mode != 0)
        return usage_error(program, "--socket-mode needs --socket-path");
    return 0;
}

/* Whether the command line asks for a text instead of a device: then its other options need not make sense. */
static int asked_text(int argc, char **argv)
{
    int option, asked = 0;

    optind = 0;
    opterr = 0;
    while (asked == 0 && (option = getopt_long(argc, argv, "+o:h", long_options, NULL)) != -1)
        if (option == 'h' || option == OPT_CAPS || option == OPT_VERSION)
            asked = option;
    opterr = 1;
    return asked;
}

/* Whoever starts a back end has to give it descriptors 0, 1 and 2; without them, one of ours would get such a number,
 * and log lines would be written into it. */
static bool fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) /* the lowest free number is this one */
            return false;
    return true;
}

int ob_device_main(const struct ob_device_class *cls, int argc, char **argv)
{
    struct program program = {
        .cls = cls,
        .name = argc > 0 ? basename(argv[0]) : cls->name,
        .lifeline = OB_LIFELINE_NONE,
        .listen = { .fd = -1, .owner = (uid_t)-1, .group = (gid_t)-1 },
        .ready_fd = -1,
    };
    int status;

    if (!fill_standard_descriptors())
        return STATUS_FAILED; /* and nowhere to say so */
    switch (asked_text(argc, argv)) {
    case 'h':
        return print_help(&program);
    case OPT_CAPS:
        return print_capabilities(&program);
    case OPT_VERSION:
        printf("%s (outboard) %s\n", cls->name, OUTBOARD_VERSION);
        return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
    }
    signal(SIGPIPE, SIG_IGN); /* a reader of standard error that went away must not end the device */
    status = parse(&program, argc, argv);
    if (status == 0)
        status = serve(&program);
    free(program.options);
    return status;
}
