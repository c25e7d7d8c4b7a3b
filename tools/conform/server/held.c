/* held.c: what checks get from the judge, which releases it when they end, however they do. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "judge.h"

struct held *judge_held(struct judge *j, int kind)
{
    struct held *h = calloc(1, sizeof(*h));

    if (h == NULL)
        judge_fail(j, "out of memory");
    h->kind = kind;
    h->fd = -1;
    h->next = j->held;
    j->held = h;
    return h;
}

static void release(struct held *h)
{
    switch (h->kind) {
    case HELD_FD:
        if (h->fd >= 0)
            close(h->fd);
        break;
    case HELD_MEMORY:
        free(h->memory);
        break;
    case HELD_MAPPING:
        munmap(h->memory, h->size);
        break;
    case HELD_MESSAGE:
        ob_raw_message_free(h->memory);
        break;
    case HELD_JSON:
        json_decref(h->memory);
        break;
    case HELD_CONNECTION:
        ob_raw_close(h->memory);
        break;
    }
}

void judge_release(struct judge *j)
{
    while (j->held != NULL) {
        struct held *next = j->held->next;

        release(j->held);
        free(j->held);
        j->held = next;
    }
}

int judge_hold(struct judge *j, int fd, const char *what)
{
    if (fd < 0)
        judge_fail(j, "the judge has no %s: %s", what, strerror(errno));
    judge_held(j, HELD_FD)->fd = fd;
    return fd;
}

int judge_memfd(struct judge *j, uint64_t size)
{
    int fd = judge_hold(j, memfd_create("conform", MFD_CLOEXEC), "memfd");

    if (ftruncate(fd, (off_t)size) != 0)
        judge_fail(j, "the judge has no memory: %s", strerror(errno));
    return fd;
}

int judge_eventfd(struct judge *j)
{
    return judge_hold(j, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
}

int judge_open_file(struct judge *j, const char *path, int flags)
{
    return judge_hold(j, open(path, flags | O_CLOEXEC), path);
}

void judge_pair(struct judge *j, int *mine, int *theirs)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        judge_fail(j, "the judge has no sockets: %s", strerror(errno));
    *mine = judge_hold(j, pair[0], "socket");
    *theirs = judge_hold(j, pair[1], "socket");
}

void judge_give(struct judge *j, int fd)
{
    for (struct held *h = j->held; h != NULL; h = h->next) {
        if (h->kind == HELD_FD && h->fd == fd) {
            close(fd);
            h->fd = -1;
            return;
        }
    }
}

void *judge_mmap(struct judge *j, int fd, uint64_t size, uint64_t offset, int prot)
{
    void *at = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)offset);
    struct held *h;

    want(j, at != MAP_FAILED, "mapping %#llx bytes at %#llx of the descriptor failed: %s", (unsigned long long)size,
         (unsigned long long)offset, strerror(errno));
    h = judge_held(j, HELD_MAPPING);
    h->memory = at;
    h->size = size;
    return at;
}

void *judge_alloc(struct judge *j, size_t size)
{
    struct held *h = judge_held(j, HELD_MEMORY);

    h->memory = calloc(1, size > 0 ? size : 1);
    if (h->memory == NULL)
        judge_fail(j, "out of memory");
    return h->memory;
}

struct ob_raw_message *judge_keep(struct judge *j, struct ob_raw_message *m)
{
    judge_held(j, HELD_MESSAGE)->memory = m;
    return m;
}
