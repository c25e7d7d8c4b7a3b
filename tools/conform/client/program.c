/* program.c: starting, watching and ending the client's program. It and what it starts are a process group. */
#include "program.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_MS 1000

int program_start(struct program *program)
{
    program->ended = false;
    program->pid = fork();
    if (program->pid < 0)
        return -errno;
    if (program->pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Our standard output is the report. */
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execvp(program->command[0], program->command);
        fprintf(stderr, "outboard conform: cannot run %s: %s\n", program->command[0], strerror(errno));
        _exit(127);
    }
    setpgid(program->pid, program->pid);
    program->pidfd = (int)syscall(SYS_pidfd_open, program->pid, 0);
    return program->pidfd < 0 ? -errno : 0;
}

static void collect(struct program *program)
{
    /* While the leader is a zombie its number cannot be another group's. */
    kill(-program->pid, SIGKILL);
    waitpid(program->pid, &program->status, 0);
    close(program->pidfd);
    program->pid = program->pidfd = -1;
}

static bool wait_end(const struct program *program, int timeout_ms)
{
    struct pollfd pfd = { .fd = program->pidfd, .events = POLLIN };

    return poll(&pfd, 1, timeout_ms) == 1;
}

bool program_ended(struct program *program)
{
    if (program->pid > 0 && wait_end(program, 0)) {
        collect(program);
        program->ended = true;
    }
    return program->ended;
}

void program_stop(struct program *program)
{
    if (program->pid < 0)
        return;
    kill(-program->pid, SIGTERM);
    wait_end(program, GRACE_MS);
    collect(program);
}

/* --- What it has mapped ------------------------------------------------------------------------------------------- */

/* The lines of a process's maps that are of the file. */
static int mappings_of(pid_t pid, const struct stat *file, struct file_range *list, int n, int max)
{
    char path[32], line[512];
    FILE *maps;

    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    maps = fopen(path, "re");
    if (maps == NULL)
        return errno == ENOENT || errno == ESRCH ? n : -1;
    while (n < max && fgets(line, sizeof(line), maps) != NULL) {
        unsigned long long start, end, offset, inode;
        unsigned major, minor;

        if (sscanf(line, "%llx-%llx %*s %llx %x:%x %llu", &start, &end, &offset, &major, &minor, &inode) == 6 &&
            makedev(major, minor) == file->st_dev && inode == file->st_ino)
            list[n++] = (struct file_range){ offset, end - start };
    }
    fclose(maps);
    return n;
}

static int mappings_below(pid_t pid, const struct stat *file, struct file_range *list, int n, int max);

/* Those of the processes that a thread of it has started. */
static int mappings_of_children(pid_t pid, const char *thread, const struct stat *file, struct file_range *list, int n,
                                int max)
{
    char path[80];
    FILE *children;
    int child;

    snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, thread);
    children = fopen(path, "re");
    if (children == NULL)
        return n;
    while (n >= 0 && fscanf(children, "%d", &child) == 1)
        n = mappings_below(child, file, list, n, max);
    fclose(children);
    return n;
}

static int mappings_below(pid_t pid, const struct stat *file, struct file_range *list, int n, int max)
{
    struct dirent *entry;
    char path[40];
    DIR *threads;

    n = mappings_of(pid, file, list, n, max);
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    threads = opendir(path);
    if (threads == NULL)
        return n;
    while (n >= 0 && (entry = readdir(threads)) != NULL) {
        if (entry->d_name[0] != '.')
            n = mappings_of_children(pid, entry->d_name, file, list, n, max);
    }
    closedir(threads);
    return n;
}

int program_mappings(const struct program *program, pid_t pid, int fd, struct file_range *list, int max)
{
    struct stat file;

    if (fstat(fd, &file) != 0)
        return -1;
    return mappings_below(program->pid > 0 ? program->pid : pid, &file, list, 0, max);
}
