/* program.h: the client's program, which is started for each connection and ended after it. */
#ifndef CONFORM_PROGRAM_H
#define CONFORM_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct program {
    char **command; /* NULL: clients come by themselves */
    pid_t pid;      /* of its leader and its process group; -1: none runs */
    int pidfd;      /* readable once it has ended; -1 */
    bool ended;     /* by itself, since it was started */
    int status;     /* as from waitpid(2) */
};

/* 0 or -errno. */
int program_start(struct program *program);
/* Notes that it has ended, if it has, and ends what it leaves behind. */
bool program_ended(struct program *program);
/* Ends it, if it still runs: SIGTERM, and SIGKILL to those who do not heed that. */
void program_stop(struct program *program);
/* Whether it or a process that it started has memory mapped from the file at that descriptor: fills up to `max` ranges
 * of the file. Their number, -1: it cannot be known. pid: of the process, if it is not the program's. */
struct file_range {
    uint64_t offset, size;
};
int program_mappings(const struct program *program, pid_t pid, int fd, struct file_range *list, int max);

#endif
