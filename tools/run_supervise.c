/* tools/run_supervise.c: the life of a VM and its devices, and that nothing of them is left.
 *
 * Two processes. The one that the user started only waits, hands signals on, and gives the exit status. Its child, the
 * supervisor, starts the devices and then QEMU and waits for all of them. When the first is killed, the supervisor sees
 * the end of a pipe that only the first holds: it ends QEMU and the devices as always, which gives them time to remove
 * what they made. When the supervisor is killed, the kernel kills QEMU and the devices (PR_SET_PDEATHSIG).
 *
 * QEMU stays in the process group of both, so that the terminal and its signals are QEMU's; each device has a group of
 * its own.
 *
 * A device that takes --ready-fd says when clients may connect; QEMU is started after that, so that a device that
 * cannot start is told by itself alone. Of others, nothing is known before QEMU connects: it waits in the socket's
 * backlog. The supervisor keeps a copy of each listening socket. If a device is dead and QEMU still comes to connect,
 * the device had not even begun: the copy is closed, QEMU's connection fails, and so does QEMU. If a device dies later,
 * the VM goes on.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

struct supervisor {
    struct run *run;
    int signals;   /* signalfd */
    int lifeline;  /* its other end is the first process's; -1 once that is gone */
    sigset_t mask; /* as it was when the command began */
    struct process qemu;
    struct pollfd *polls; /* two for each device, and three */
    int stop;             /* the signal that asked us to end; 0: none */
    bool a_device_died;
    bool failed_start; /* QEMU came to connect to a device that had died */
    int64_t kill_at;   /* CLOCK_MONOTONIC in ms: when what does not end is killed; 0: it may take its time */
    struct termios terminal;
    bool has_terminal;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- What happens ------------------------------------------------------------------------------------------------ */

/* Ends QEMU; when it has ended, so do the devices. */
static void end_qemu(struct supervisor *s, int signal)
{
    s->stop = signal;
    run_process_signal(&s->qemu, signal);
}

static void on_signal(struct supervisor *s)
{
    struct signalfd_siginfo info;

    if (read(s->signals, &info, sizeof(info)) != sizeof(info))
        return;
    /* what the terminal sends, it has sent to QEMU too */
    if (info.ssi_code == SI_KERNEL && s->qemu.pid != 0)
        s->stop = (int)info.ssi_signo;
    else
        end_qemu(s, (int)info.ssi_signo);
}

/* Nobody is left to ask again, or to be patient. */
static void on_orphaned(struct supervisor *s)
{
    close(s->lifeline);
    s->lifeline = -1;
    s->kill_at = now_ms() + RUN_GRACE_MS;
    end_qemu(s, SIGTERM);
}

static void on_ready(struct run_device *device)
{
    char byte;
    ssize_t n = read(device->ready, &byte, 1);

    device->is_ready = n == 1 && byte == '\n';
    close(device->ready); /* at its end without a word, the device ends too, or never gets ready */
    device->ready = -1;
    if (!device->is_ready)
        run_process_signal(&device->process, SIGTERM);
}

/* Whether QEMU is on its way out: its descriptors are closed some time before it can be reaped, and a server may end
 * for that reason. Of /proc/PID/stat the first field after the name is the state, the seventh the flags. */
static bool is_ending(pid_t pid)
{
    static const unsigned exiting = 4; /* PF_EXITING of the kernel */
    char path[32], text[512] = "";
    unsigned flags = 0;
    char state = 'Z';
    const char *after_name;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (file == NULL)
        return true;
    after_name = fgets(text, sizeof(text), file) != NULL ? strrchr(text, ')') : NULL;
    fclose(file);
    return after_name == NULL || sscanf(after_name, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2 ||
           state == 'Z' || (flags & exiting) != 0;
}

static void on_device(struct supervisor *s, struct run_device *device)
{
    char text[64];

    if (!run_process_ended(&device->process) || (s->qemu.pid != 0 && is_ending(s->qemu.pid)))
        return;
    device->died = s->a_device_died = true;
    run_process_text(device->process.status, text, sizeof(text));
    if (s->qemu.pid == 0)
        say("run: device %s %s at its start: QEMU is not started", device->label, text);
    else
        say("run: device %s %s while QEMU runs; the guest has lost the device, which reads as all ones now; QEMU goes "
            "on",
            device->label, text);
}

/* QEMU connects to a device that is gone. */
static void on_connect(struct supervisor *s, struct run_device *device)
{
    s->failed_start = true;
    say("run: device %s had ended before QEMU connected to it", device->label);
    close(device->listener);
    device->listener = -1;
}

static void watch(struct pollfd *poll_fd, int fd)
{
    *poll_fd = (struct pollfd){ .fd = fd, .events = POLLIN }; /* -1: not watched */
}

/* Waits for something to happen and sees to it. */
static void wait_event(struct supervisor *s)
{
    struct pollfd *polls = s->polls;
    size_t count = s->run->device_count;
    int timeout = -1;

    watch(&polls[0], s->signals);
    watch(&polls[1], s->lifeline);
    watch(&polls[2], s->qemu.pidfd);
    for (size_t i = 0; i < count; i++) {
        const struct run_device *device = &s->run->devices[i];

        watch(&polls[3 + 2 * i], device->process.pidfd);
        watch(&polls[4 + 2 * i], device->ready >= 0 ? device->ready : device->died ? device->listener : -1);
    }
    if (s->kill_at != 0)
        timeout = s->kill_at > now_ms() ? (int)(s->kill_at - now_ms()) : 0;
    if (poll(polls, 3 + 2 * count, timeout) < 0)
        return;
    if (polls[0].revents != 0)
        on_signal(s);
    if (polls[1].revents != 0)
        on_orphaned(s);
    for (size_t i = 0; i < count; i++) {
        struct run_device *device = &s->run->devices[i];

        if (polls[4 + 2 * i].revents != 0 && device->ready >= 0)
            on_ready(device);
        else if (polls[4 + 2 * i].revents != 0)
            on_connect(s, device);
        if (polls[3 + 2 * i].revents != 0)
            on_device(s, device);
    }
}

static bool out_of_time(const struct supervisor *s)
{
    return s->kill_at != 0 && now_ms() >= s->kill_at;
}

/* --- The three parts of life ------------------------------------------------------------------------------------- */

static int start_device(struct supervisor *s, struct run_device *device)
{
    struct spawn spawn = {
        .file = device->cls != NULL ? "/proc/self/exe" : device->name,
        .argv = device->argv,
        .mask = &s->mask,
        .device = true,
        .listener = device->listener,
        .ready = -1,
        .output = -1,
    };
    int ready[2] = { -1, -1 }, err = 0;

    if (device->takes_ready && pipe2(ready, O_CLOEXEC) < 0)
        err = -errno;
    spawn.ready = ready[1];
    device->ready = ready[0];
    if (err == 0)
        err = run_process_start(&device->process, &spawn);
    if (ready[1] >= 0)
        close(ready[1]);
    if (err == 0)
        return 0;
    say("run: device %s: cannot start %s: %s", device->label, device->name, strerror(-err));
    return STATUS_FAILED;
}

/* Starts all, one after the other, then waits for those that say when they are ready. */
static int start_devices(struct supervisor *s)
{
    struct run *run = s->run;
    bool waiting = true;

    for (size_t i = 0; i < run->device_count; i++) {
        int status = start_device(s, &run->devices[i]);

        if (status != 0)
            return status;
    }
    for (;;) {
        waiting = false;
        for (size_t i = 0; i < run->device_count; i++)
            waiting = waiting || (run->devices[i].takes_ready && !run->devices[i].is_ready);
        if (!waiting || s->a_device_died || s->stop != 0)
            break;
        wait_event(s);
    }
    if (s->a_device_died)
        return STATUS_FAILED;
    return s->stop != 0 ? STATUS_SIGNAL + s->stop : 0;
}

static int start_qemu(struct supervisor *s)
{
    struct run *run = s->run;
    int *keep = run_alloc(run->device_count + 1, sizeof(*keep));
    struct spawn spawn = {
        .file = run->qemu[0],
        .argv = run->qemu,
        .mask = &s->mask,
        .keep = keep,
        .keep_count = run->device_count,
    };
    int err;

    for (size_t i = 0; i < run->device_count; i++)
        keep[i] = run->devices[i].socket;
    s->has_terminal = tcgetattr(STDIN_FILENO, &s->terminal) == 0;
    err = run_process_start(&s->qemu, &spawn);
    free(keep);
    for (size_t i = 0; i < run->device_count; i++)
        close(run->devices[i].socket); /* QEMU has it */
    if (err == 0)
        return 0;
    say("run: cannot execute QEMU '%s': %s", run->qemu[0], strerror(-err));
    return err == -ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT_EXECUTE;
}

/* A QEMU that was killed leaves the terminal as its console had it. */
static void restore_terminal(const struct supervisor *s)
{
    if (s->has_terminal && WIFSIGNALED(s->qemu.status) && tcgetpgrp(STDIN_FILENO) == getpgrp())
        tcsetattr(STDIN_FILENO, TCSADRAIN, &s->terminal);
}

/* Waits for QEMU's end; returns the exit status. */
static int accompany_qemu(struct supervisor *s)
{
    char text[64];
    int status;

    while (!run_process_ended(&s->qemu)) {
        if (out_of_time(s)) {
            s->kill_at = 0;
            run_process_signal(&s->qemu, SIGKILL);
        }
        wait_event(s);
    }
    restore_terminal(s);
    status = s->qemu.status;
    if (WIFSIGNALED(status) && s->stop == 0)
        say("run: QEMU %s", run_process_text(status, text, sizeof(text)));
    if (s->failed_start && status != 0)
        return STATUS_FAILED;
    if (s->a_device_died)
        return STATUS_DEVICE_DIED;
    if (WIFSIGNALED(status))
        return STATUS_SIGNAL + WTERMSIG(status);
    return WEXITSTATUS(status);
}

/* Ends the devices, without a word of those that end as they should. */
static void end_devices(struct supervisor *s)
{
    struct run *run = s->run;

    for (size_t i = 0; i < run->device_count; i++) {
        struct run_device *device = &run->devices[i];

        if (device->ready >= 0)
            close(device->ready);
        run_process_signal(&device->process, SIGTERM);
    }
    s->kill_at = now_ms() + RUN_GRACE_MS;
    for (size_t i = 0; i < run->device_count; i++) {
        struct run_device *device = &run->devices[i];
        pid_t group = device->process.pid;

        while (!run_process_ended(&device->process)) {
            struct pollfd ended = { .fd = device->process.pidfd, .events = POLLIN };

            if (out_of_time(s)) {
                say("run: device %s did not end within %d s of SIGTERM and is killed", device->label,
                    RUN_GRACE_MS / 1000);
                run_process_signal(&device->process, SIGKILL);
                poll(&ended, 1, -1);
            } else {
                poll(&ended, 1, (int)(s->kill_at - now_ms()));
            }
        }
        if (group != 0)
            kill(-group, SIGKILL); /* what it may have started itself */
    }
}

static int supervise(struct supervisor *s)
{
    int status = run_devices_listen(s->run);

    if (status == 0)
        status = start_devices(s);
    if (status == 0) {
        status = start_qemu(s);
        if (status == 0)
            status = accompany_qemu(s);
    }
    end_devices(s);
    if (status == 1 && s->stop == 0)
        run_qemu_explain(s->run);
    return status;
}

/* --- The two processes ------------------------------------------------------------------------------------------- */

/* Those that end us, except what whoever started us ignores (nohup does with SIGHUP). */
static void end_signals(sigset_t *set)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP };

    sigemptyset(set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction action;

        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
    }
}

static int be_supervisor(struct run *run, const sigset_t *set, const sigset_t *mask, int lifeline)
{
    struct supervisor s = { .run = run, .lifeline = lifeline, .mask = *mask, .qemu.pidfd = -1 };
    sigset_t terminal_output;
    int status;

    /* the terminal is put right after a QEMU that was killed, also by a supervisor in the background */
    sigemptyset(&terminal_output);
    sigaddset(&terminal_output, SIGTTOU);
    sigprocmask(SIG_BLOCK, &terminal_output, NULL);
    s.signals = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s.signals < 0) {
        say("run: cannot wait for signals: %s", strerror(errno));
        return STATUS_FAILED;
    }
    s.polls = run_alloc(3 + 2 * run->device_count, sizeof(*s.polls));
    status = supervise(&s);
    free(s.polls);
    close(s.signals);
    return status;
}

/* Waits for the supervisor, and hands it the signals that come. */
static int be_first(pid_t supervisor, const sigset_t *set)
{
    sigset_t waited = *set;
    siginfo_t info;
    int status;

    sigaddset(&waited, SIGCHLD);
    while (waitpid(supervisor, &status, WNOHANG) != supervisor)
        if (sigwaitinfo(&waited, &info) > 0 && info.si_signo != SIGCHLD && info.si_code != SI_KERNEL)
            kill(supervisor, info.si_signo);
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    say("run: the supervisor was killed by signal %d; QEMU and the devices are killed with it", WTERMSIG(status));
    return STATUS_FAILED;
}

int run_supervise(struct run *run)
{
    sigset_t set, blocked, mask;
    int lifeline[2], status;
    pid_t pid;

    if (pipe2(lifeline, O_CLOEXEC) < 0) {
        say("run: cannot make a pipe: %s", strerror(errno));
        return STATUS_FAILED;
    }
    end_signals(&set);
    blocked = set;
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &mask);
    pid = fork();
    if (pid == 0) {
        close(lifeline[1]);
        return be_supervisor(run, &set, &mask, lifeline[0]);
    }
    close(lifeline[0]);
    if (pid < 0) {
        say("run: cannot start the supervisor: %s", strerror(errno));
        status = STATUS_FAILED;
    } else {
        status = be_first(pid, &set);
    }
    close(lifeline[1]);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    return status;
}
