/* target.h: the server under test: a socket that somebody else listens at, or a program that is started for the run. */
#ifndef CONFORM_TARGET_H
#define CONFORM_TARGET_H

#include <stdbool.h>
#include <sys/types.h>

struct target {
    bool once;           /* the program serves one client and ends: it is started for each connection */
    bool needs_session;  /* it ends after a client that had no session, and serves the next after one that had */
    const char *path;    /* of the socket */
    const char *program; /* as given; NULL: not ours to start */
    char **command;      /* its words */
    char *folder;        /* private to target.c */
    pid_t pid;           /* -1: none runs */
    bool served;         /* a client has connected, of this process */
    bool reached;        /* of any */
    bool session;        /* and the last one negotiated, as far as the judge says so here */
    bool broke_off; /* it has ended a connection that it should have kept: its status counts, if that was its end */
    bool died;      /* a process has ended that should not have, until somebody clears it */
    int status;     /* of that one */
};

/* A server that listens at `path`. */
void target_socket(struct target *target, const char *path);
/* A program: its words, separated by blanks; "{socket}" is replaced by the socket's path, and if it is nowhere,
 * "--socket-path=PATH" is added. 0 or -errno. */
int target_command(struct target *target, const char *command);
/* The same program once more, at a socket of its own. 0 or -errno. */
int target_again(struct target *again, const struct target *target);
/* Whether it has ended by itself, but for a program that may, after its client. */
bool target_died(struct target *target);
/* Once its client has gone: waits for the end of a program that ends with it, and kills it if it does not, which is
 * -ETIMEDOUT. */
int target_leave(struct target *target, int timeout_ms);
/* A connected socket, or -errno. Starts the program if it is not running. Waits up to timeout_ms while nobody listens
 * yet, or the server is busy; for a program that was just started at least 10 s. */
int target_connect(struct target *target, int timeout_ms);
/* Ends the program; target_connect() starts it again. Nothing for a server that is not ours. */
void target_stop(struct target *target);
void target_free(struct target *target);

#endif
