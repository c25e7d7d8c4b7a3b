/* tools/run.h: the parts of `outboard run`.
 *
 * run.c reads the command line; run_device.c makes devices of --device; run_qemu.c works out QEMU's command line;
 * run_process.c starts and ends processes; run_supervise.c is their life.
 */
#ifndef OB_RUN_H
#define OB_RUN_H

#include "tool.h"

#include <jansson.h>
#include <signal.h>
#include <sys/types.h>

/* What QEMU connects to is descriptor 64 of its own for the first device, 65 for the second, and so on, leaving out
 * numbers that the user has open: numbers that can be foretold, so that device_add can name them later. */
#define RUN_FIRST_NUMBER 64
/* A device program gets its listening socket and the pipe for its readiness at these. */
#define RUN_LISTENER 3
#define RUN_READY    4

/* How long a process may take to end after SIGTERM before it is killed. */
#define RUN_GRACE_MS 5000
/* How long a program may take to say what it is. */
#define RUN_ANSWER_MS 30000

/* A child. `pid` is 0 before it is started and after it was reaped. */
struct process {
    pid_t pid;
    int pidfd;  /* -1 without a process */
    int status; /* as waitpid gives it, once reaped */
};

struct run_device {
    char *label;                       /* what messages call it: "edu", "edu#2" */
    char *name;                        /* as given: a built-in device or a path */
    const struct ob_device_class *cls; /* NULL: `name` is a program */
    char *options;                     /* key=value,... for the device, escapes as they were; NULL: none */
    json_t *properties;                /* for QEMU's -device: driver, socket, and what qemu.KEY gave */
    bool takes_ready, takes_owner;     /* its program has --ready-fd, --socket-owner */
    char *argv[8];                     /* of its process; ends with NULL */
    int socket;                        /* O_PATH of the socket file; QEMU has it at the same number */

    /* The supervisor's. -1: none. */
    int listener; /* ours, to see that QEMU comes although the device is gone */
    int ready;    /* where it says that clients may connect */
    bool is_ready, died;
    struct process process;
};

struct run {
    struct run_device *devices;
    size_t device_count;
    char **qemu; /* the command line to execute; ends with NULL; strings from `given` on are not ours */
    size_t qemu_count, given;
    char *owner; /* the user that QEMU becomes (-run-with user=); NULL: ours */
};

/* --- run_device.c: all say what is wrong and return 0 or an exit status ------------------------------------------ */

/* Fills devices[0, count) from the texts of --device. */
int run_devices_parse(struct run *run, char *const *texts, size_t count);
/* Asks each device what it is and completes argv and properties. */
int run_devices_prepare(struct run *run);
void run_devices_free(struct run *run);
/* Makes the sockets: bound in a private folder, listened on, kept by an O_PATH descriptor, unlinked. */
int run_devices_listen(struct run *run);

/* --- run_qemu.c -------------------------------------------------------------------------------------------------- */

/* Checks the user's command line and makes run->qemu of it: shared memory and the devices are appended. Sets
 * run->owner. Says what is wrong and returns 0 or an exit status. */
int run_qemu_prepare(struct run *run, char *const *argv, size_t argc);
void run_qemu_add_devices(struct run *run);
void run_qemu_free(struct run *run);
/* After QEMU failed: says so if the reason is that it has no vfio-user-pci. */
void run_qemu_explain(const struct run *run);
/* The value of `key` in "key=value,..." or a JSON object, malloc'ed; `implied` is the key of a first item without '=';
 * the last of several counts. NULL: absent. */
char *run_key(const char *text, const char *implied, const char *key);

/* --- run_process.c ----------------------------------------------------------------------------------------------- */

struct spawn {
    const char *file; /* searched in PATH unless it has a slash */
    char *const *argv;
    const sigset_t *mask; /* NULL: as it is */
    /* A device: a process group of its own, so that the terminal's signals are for QEMU; nothing on standard input;
     * standard output is QEMU's (its console may be there), so the device's goes to standard error; of descriptors,
     * `listener` and `ready` (-1: none) as RUN_LISTENER and RUN_READY. */
    bool device;
    int listener, ready;
    int output;      /* standard output, -1: as above; with it, standard error is closed to /dev/null */
    const int *keep; /* descriptors that stay open at their numbers */
    size_t keep_count;
};
/* Starts a process that the kernel kills when this one dies. 0 or -errno, of execve too; says nothing. */
int run_process_start(struct process *process, const struct spawn *spawn);
/* Reaps it if it has ended; returns whether it did. */
bool run_process_ended(struct process *process);
void run_process_signal(const struct process *process, int signal);
/* "exited with status 3", "was killed by signal 9 (Killed)". */
const char *run_process_text(int status, char *text, size_t size);
/* Runs a program and gives what it wrote on standard output, malloc'ed; NULL if it ended with another status than 0
 * (*err is 0), or could not be executed, did not end within RUN_ANSWER_MS, or wrote more than 1 MiB (*err is -errno).
 */
char *run_process_output(const char *file, char *const *argv, int *err);

/* --- run_supervise.c --------------------------------------------------------------------------------------------- */

/* Runs it all; returns an exit status. */
int run_supervise(struct run *run);

/* malloc that ends the command with STATUS_FAILED. */
void *run_alloc(size_t count, size_t size);
char *run_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
