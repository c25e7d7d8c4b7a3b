/* Makes, takes over and tidies the journal; see journal.h. */
#include "session/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOURNAL_MAGIC 0x31304c4e524a424fULL /* "OBJRNL01" */
#define HEADER_SIZE   4096
_Static_assert(sizeof(struct ob_journal_header) <= HEADER_SIZE, "the header has a page of its own");

static size_t area_size(size_t max_message)
{
    return (2 * max_message + 65536 + 4095) & ~(size_t)4095;
}

/* Positions that contradict each other would become wild pointers. */
static bool header_valid(const struct ob_journal_header *h, size_t area)
{
    return h->magic == JOURNAL_MAGIC && h->in_size == area && h->out_size == area && h->in_base <= h->in_tail &&
           h->in_tail - h->in_base <= area && h->out_base <= h->out_sent && h->out_sent - h->out_base <= area &&
           h->connection <= h->in_tail && h->skip_from <= h->in_tail;
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

int ob_journal_open(struct ob_journal *journal, int fd, size_t max_message)
{
    size_t area = area_size(max_message);
    bool fresh = fd < 0;

    *journal = (struct ob_journal){ .fd = fd, .mapped = HEADER_SIZE + 2 * area };
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
    if (fresh) {
        *journal->header = (struct ob_journal_header){ .magic = JOURNAL_MAGIC, .in_size = area, .out_size = area };
    } else if (!header_valid(journal->header, area)) {
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

size_t ob_journal_in_room(struct ob_journal *journal, uint64_t executed, size_t max_message, bool move)
{
    struct ob_journal_header *h = journal->header;

    if (executed == h->in_tail) {
        ob_journal_store(&h->in_base, h->in_tail);
    } else if (move && executed - h->in_base + max_message > h->in_size) {
        size_t left = h->in_tail - executed;
        memcpy(journal->in, ob_journal_in(journal, executed), left);
        ob_journal_store(&h->in_base, executed);
    }
    return h->in_size - (h->in_tail - h->in_base);
}

size_t ob_journal_out_room(struct ob_journal *journal, uint64_t out_tail)
{
    struct ob_journal_header *h = journal->header;

    if (h->out_sent == out_tail)
        ob_journal_store(&h->out_base, out_tail);
    return h->out_size - (out_tail - h->out_base);
}
