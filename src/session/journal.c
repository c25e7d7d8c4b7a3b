/* Makes, takes over and tidies the journal; see journal.h. */
#include "session/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOURNAL_MAGIC 0x32304c4e524a424fULL /* "OBJRNL02" */
#define HEADER_SIZE   4096
_Static_assert(sizeof(struct ob_journal_header) <= HEADER_SIZE, "the header has a page of its own");

static size_t whole_pages(size_t size)
{
    return (size + 4095) & ~(size_t)4095;
}

static bool twin_valid(const struct ob_journal_twin *t, size_t area)
{
    return t->in_base <= t->in_done && t->in_done <= t->in_tail && t->in_tail - t->in_base <= area &&
           t->out_base <= t->out_sent && t->out_sent <= t->out_tail && t->out_tail - t->out_base <= area;
}

/* Positions that contradict each other would become wild pointers. */
static bool header_valid(const struct ob_journal_header *h, size_t area, size_t twin)
{
    return h->magic == JOURNAL_MAGIC && h->in_size == area && h->out_size == area && h->in_base <= h->in_tail &&
           h->in_tail - h->in_base <= area && h->out_base <= h->out_sent && h->out_sent - h->out_base <= area &&
           h->connection <= h->in_tail && h->skip_from <= h->in_tail && twin_valid(&h->twin, twin);
}

static int make(struct ob_journal *journal, size_t area)
{
    int fd = memfd_create("outboard-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, journal->mapped) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    journal->fd = fd;
    return 0;
}

int ob_journal_open(struct ob_journal *journal, int fd, size_t max_message, size_t max_twin)
{
    size_t area = whole_pages(2 * max_message + 65536), twin = whole_pages(2 * max_twin);
    bool fresh = fd < 0;

    *journal = (struct ob_journal){ .fd = fd, .twin_size = twin, .mapped = HEADER_SIZE + 2 * area + 2 * twin };
    if (fresh) {
        int err = make(journal, area);
        if (err)
            return err;
    } else {
        struct stat st;
        if (fstat(fd, &st) < 0)
            return -errno;
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != journal->mapped)
            return -EINVAL;
    }
    void *p = mmap(NULL, journal->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, journal->fd, 0);
    if (p == MAP_FAILED) {
        int err = -errno;
        if (fresh)
            close(journal->fd);
        journal->fd = -1;
        return err;
    }
    journal->header = p;
    journal->in = (uint8_t *)p + HEADER_SIZE;
    journal->out = journal->in + area;
    journal->twin_in = journal->out + area;
    journal->twin_out = journal->twin_in + twin;
    if (fresh) {
        *journal->header = (struct ob_journal_header){ .magic = JOURNAL_MAGIC, .in_size = area, .out_size = area };
    } else if (!header_valid(journal->header, area, twin)) {
        munmap(p, journal->mapped);
        journal->header = NULL; /* nothing is open */
        journal->fd = -1;
        return -EINVAL;
    }
    return 0;
}

void ob_journal_unmap(struct ob_journal *journal, bool close_fd)
{
    munmap(journal->header, journal->mapped);
    if (close_fd)
        close(journal->fd);
    journal->header = NULL;
    journal->fd = -1;
}

void ob_journal_close(struct ob_journal *journal)
{
    ob_journal_unmap(journal, journal->fd >= 0);
}

/* What is not done, [from, tail), moves to the beginning of its area if a message that begins there might not fit. */
static void make_room(uint8_t *area, size_t size, uint64_t *base, uint64_t from, uint64_t tail, size_t max_message)
{
    if (from == tail) {
        ob_journal_store(base, tail);
    } else if (from - *base + max_message > size) {
        memcpy(area, area + (from - *base), tail - from);
        ob_journal_store(base, from);
    }
}

size_t ob_journal_in_room(struct ob_journal *journal, uint64_t executed, size_t max_message, bool move)
{
    struct ob_journal_header *h = journal->header;

    if (move || executed == h->in_tail)
        make_room(journal->in, h->in_size, &h->in_base, executed, h->in_tail, max_message);
    return h->in_size - (h->in_tail - h->in_base);
}

size_t ob_journal_twin_room(struct ob_journal *journal, size_t max_message)
{
    struct ob_journal_twin *t = &journal->header->twin;

    make_room(journal->twin_in, journal->twin_size, &t->in_base, t->in_done, t->in_tail, max_message);
    return journal->twin_size - (t->in_tail - t->in_base);
}

size_t ob_journal_out_room(struct ob_journal *journal, uint64_t out_tail)
{
    struct ob_journal_header *h = journal->header;

    if (h->out_sent == out_tail)
        ob_journal_store(&h->out_base, out_tail);
    return h->out_size - (out_tail - h->out_base);
}
