/* process.h: server programs under test: started with a socket, watched through /proc, ended for certain. */
#ifndef OB_RAW_PROCESS_H
#define OB_RAW_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum ob_process_socket {
    OB_PROCESS_LISTENING, /* --fd=N, a listening socket: clients may come one after the other */
    OB_PROCESS_CONNECTED, /* --fd=N, one end of a pair; the other is ob_process.connected */
    OB_PROCESS_PATH,      /* --socket-path=PATH, or where the command has %s; not there yet when it starts */
};

struct ob_process_options {
    const char *command; /* words separated by blanks; no quoting */
    enum ob_process_socket socket;
    int fd;                 /* OB_PROCESS_CONNECTED: a socket to hand over instead of a new pair; 0: none */
    const int *inherit;     /* descriptors that stay open there under their numbers */
    unsigned ninherit;      /* of them */
    const char *extra;      /* one more argument, or NULL */
    const char *const *env; /* NAME=value..., NULL at the end; or NULL */
};

struct ob_process {
    pid_t pid;     /* 0: none */
    int pidfd;     /* readable when it has died */
    int connected; /* ours, the caller closes it (or gives it to ob_raw_init()); -1: none */
    char folder[48];
    char path[64]; /* to connect to */
    int socket;    /* what keeps `path` alive; -1: none */
};

/* 0 or -errno. The process dies with the thread that called this. */
int ob_process_start(struct ob_process *process, const struct ob_process_options *options);
/* OB_PROCESS_PATH: waits until connecting works. Returns the connected socket, or -errno. */
int ob_process_connect(struct ob_process *process, int timeout_ms);
bool ob_process_alive(const struct ob_process *process);
/* Sends `signal` (0: none) and waits for the end, with SIGKILL after the timeout. Returns the exit status, 128 + the
 * signal that killed it, or -ETIMEDOUT. Nothing is left. */
int ob_process_stop(struct ob_process *process, int signal, int timeout_ms);

/* What /proc says, for comparison before and after. All return -errno on failure. */
/* The targets of all descriptors, sorted, a line each; malloc'ed. Sockets and the like without their inode. */
char *ob_process_descriptors(pid_t pid);
/* How many lines of maps contain `text`. */
int ob_process_maps(pid_t pid, const char *text);
/* A field of status in KiB or as it is: "RssAnon", "VmSize", "Threads". */
long ob_process_status(pid_t pid, const char *field);
/* CPU time consumed, in clock ticks. */
long ob_process_ticks(pid_t pid);

#endif
