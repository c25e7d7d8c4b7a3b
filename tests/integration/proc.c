/* proc.c: what /proc tells about a server: its descriptors, mappings, memory and time. */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "socket:[123]" and "anon_inode:[eventfd]" say the same of every socket and eventfd once the number is cut off. */
static char *read_target(pid_t pid, const char *name)
{
    char path[300], target[512];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, name);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0) {
        return NULL; /* closed since the folder was read */
    }
    target[n] = 0;
    if (strncmp(target, "socket:", 7) == 0 || strncmp(target, "pipe:", 5) == 0) {
        *strchr(target, ':') = 0;
    }
    return strdup(target);
}

char *ob_process_descriptors(pid_t pid)
{
    char path[64], **lines = NULL, *text = NULL;
    size_t count = 0, size = 0;
    struct dirent *entry;
    FILE *out;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    if (dir == NULL) {
        return NULL;
    }
    while ((entry = readdir(dir)) != NULL) {
        char *line = entry->d_name[0] == '.' ? NULL : read_target(pid, entry->d_name);
        char **more = line == NULL ? NULL : realloc(lines, (count + 1) * sizeof(*lines));

        if (more == NULL) {
            free(line);
            continue;
        }
        lines = more;
        lines[count++] = line;
    }
    closedir(dir);
    if (count > 0) {
        qsort(lines, count, sizeof(*lines), compare_lines);
    }
    out = open_memstream(&text, &size);
    for (size_t i = 0; i < count; i++) {
        if (out != NULL) {
            fprintf(out, "%s\n", lines[i]);
        }
        free(lines[i]);
    }
    free(lines);
    if (out != NULL) {
        fclose(out);
    }
    return text;
}

int ob_process_maps(pid_t pid, const char *text)
{
    char path[64], line[1024];
    FILE *maps;
    int n = 0;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    maps = fopen(path, "r");
    if (maps == NULL) {
        return -errno;
    }
    while (fgets(line, sizeof(line), maps) != NULL) {
        n += strstr(line, text) != NULL;
    }
    fclose(maps);
    return n;
}

long ob_process_status(pid_t pid, const char *field)
{
    char path[64], line[256];
    size_t length = strlen(field);
    long value = -ENOENT;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    status = fopen(path, "r");
    if (status == NULL) {
        return -errno;
    }
    while (fgets(line, sizeof(line), status) != NULL) {
        if (strncmp(line, field, length) == 0 && line[length] == ':') {
            value = strtol(line + length + 1, NULL, 10);
        }
    }
    fclose(status);
    return value;
}

long ob_process_ticks(pid_t pid)
{
    char path[64], text[1024], *p;
    unsigned long user = 0, system = 0;
    FILE *stat;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    stat = fopen(path, "r");
    if (stat == NULL) {
        return -errno;
    }
    n = fread(text, 1, sizeof(text) - 1, stat);
    fclose(stat);
    text[n] = 0;
    p = strrchr(text, ')'); /* the name before it may contain anything */
    if (p == NULL || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
        return -EINVAL;
    }
    return (long)(user + system);
}
