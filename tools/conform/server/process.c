/* process.c: what the server's process uses, if it is ours. */
#include "check.h"

#include <dirent.h>

static FILE *open_proc(struct judge *j, const char *name)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)j->target->pid, name);
    file = fopen(path, "re");
    want(j, file != NULL, "%s: %s", path, strerror(errno));
    return file;
}

long server_memory(struct judge *j)
{
    FILE *status = open_proc(j, "status");
    char line[256];
    long kib = -1;

    while (kib < 0 && fgets(line, sizeof(line), status) != NULL)
        sscanf(line, "RssAnon: %ld", &kib);
    fclose(status);
    want(j, kib >= 0, "/proc says nothing of the server's memory");
    return kib;
}

unsigned server_descriptors(struct judge *j)
{
    char path[64];
    unsigned n = 0;
    DIR *folder;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)j->target->pid);
    folder = opendir(path);
    if (folder == NULL)
        judge_skip(j, "%s: %s", path, strerror(errno));
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n - 2; /* without "." and ".." */
}
