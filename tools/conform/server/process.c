/* process.c: what the server's process uses, if it is ours: memory, descriptors, processor time; and files that
 * anybody's server has open. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static FILE *open_proc(struct judge *j, const char *name)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)j->target->pid, name);
    file = fopen(path, "re");
    want(j, file != NULL, "%s: %s", path, strerror(errno));
    return file;
}

static DIR *open_proc_dir(struct judge *j, const char *name)
{
    char path[64];
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)j->target->pid, name);
    dir = opendir(path);
    want(j, dir != NULL, "%s: %s", path, strerror(errno));
    return dir;
}

long server_memory(struct judge *j)
{
    FILE *status = open_proc(j, "status");
    char line[256];
    long kib = -1;

    while (kib < 0 && fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, "State:\tZ", 8) == 0)
            kib = 0; /* it has ended */
        sscanf(line, "RssAnon: %ld", &kib);
    }
    fclose(status);
    want(j, kib >= 0, "/proc says nothing of the server's memory");
    return kib;
}

unsigned server_descriptors(struct judge *j)
{
    DIR *dir = open_proc_dir(j, "fd");
    unsigned n = 0;

    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

void want_descriptors(struct judge *j, unsigned most, const char *what)
{
    unsigned n;

    for (int waited = 0; (n = server_descriptors(j)) > most; waited++) {
        want(j, waited < j->timeout_ms, "%s: the server has %u descriptors open after %d ms, wanted at most %u", what,
             n, j->timeout_ms, most);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
}

/* A thread that waits for a processor is not asleep. */
static bool threads_sleep(struct judge *j)
{
    DIR *dir = open_proc_dir(j, "task");
    bool sleep = true;

    for (const struct dirent *entry; sleep && (entry = readdir(dir)) != NULL;) {
        char name[300], line[512] = "", *state;
        FILE *stat;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "/proc/%d/task/%s/stat", (int)j->target->pid, entry->d_name);
        stat = fopen(name, "re");
        if (stat == NULL)
            continue; /* it has ended */
        if (fgets(line, sizeof(line), stat) != NULL && (state = strrchr(line, ')')) != NULL)
            sleep = strchr("SIZ", state[2]) != NULL; /* Z: it has ended */
        fclose(stat);
    }
    closedir(dir);
    return sleep;
}

static int64_t time_used(struct judge *j)
{
    struct timespec ts;
    clockid_t id;

    want(j, clock_getcpuclockid(j->target->pid, &id) == 0 && clock_gettime(id, &ts) == 0,
         "the server's process has no clock");
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

bool server_rests(struct judge *j, int timeout_ms)
{
    int64_t before = time_used(j);

    for (int waited = 0, quiet = 0; waited < timeout_ms; waited++) {
        bool sleep = threads_sleep(j);
        int64_t now;

        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        now = time_used(j);
        quiet = sleep && now == before ? quiet + 1 : 0;
        if (quiet == 3)
            return true;
        before = now;
    }
    return false;
}

void want_rest(struct judge *j, const char *what)
{
    want(j, server_rests(j, j->timeout_ms), "%s: the server's process uses processor time for %d ms on end", what,
         j->timeout_ms);
}

/* --- Files ------------------------------------------------------------------------------------------------------- */

/* Only a file's sole opener gets a lease for writing; that does not count for memfds. */
int judge_watched_file(struct judge *j, uint64_t size, int *watch)
{
    const char *tmp = getenv("TMPDIR");
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char path[64];

    if (fd < 0)
        fd = open(tmp != NULL && *tmp != '\0' ? tmp : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    judge_hold(j, fd, "file");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    *watch = judge_hold(j, open(path, O_RDWR | O_CLOEXEC), path);
    if (ftruncate(fd, (off_t)size) != 0)
        judge_fail(j, "the judge has no space for a file: %s", strerror(errno));
    if (fcntl(*watch, F_SETLEASE, F_WRLCK) == 0 || errno != EAGAIN)
        judge_skip(j, "this system does not tell whether a file is open elsewhere");
    return fd;
}

void want_released(struct judge *j, int watch, const char *what)
{
    /* Nothing tells when a file is closed elsewhere. */
    for (int waited = 0; fcntl(watch, F_SETLEASE, F_WRLCK) != 0; waited++) {
        want(j, waited < j->timeout_ms, "%s: the server still has the file open or mapped after %d ms", what,
             j->timeout_ms);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    fcntl(watch, F_SETLEASE, F_UNLCK);
}
