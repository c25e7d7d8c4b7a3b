/* behind.h: a vfio-user server that is started for a QEMU: "{fd}" and "{socket}" as for ob_client_spawn(). */
#ifndef OB_DRIVER_BEHIND_H
#define OB_DRIVER_BEHIND_H

#include "driver/process.h"

#define OB_BEHIND_WORDS 64

struct ob_behind {
    struct ob_child server;
    char folder[64], path[96];        /* `path`: what QEMU is to connect to; `folder`: "" or what has to be removed */
    int listener, path_fd;            /* ours, until QEMU has connected; keeps `path` there, inherited by QEMU */
    char *words[OB_BEHIND_WORDS + 2]; /* the command */
    char *why;
};

void ob_behind_init(struct ob_behind *behind);
/* Makes `path`. A program that makes its own socket is started; returns when it listens. `why` is written to also by
 * ob_behind_accept(). */
int ob_behind_prepare(struct ob_behind *behind, const char *command, int timeout_ms, char *why);
/* Takes QEMU's connection and starts the program that has to serve it, if it does not run. `qemu` is its pidfd. */
int ob_behind_accept(struct ob_behind *behind, int qemu, int timeout_ms);
void ob_behind_end(struct ob_behind *behind);

#endif
