/* What waits to be sent on a socket of the client, in order: messages, and the descriptors that go with some.
 *
 * Small messages gather and leave together (ob_send_joins); one with descriptors goes alone, so that a server that
 * takes one message a read finds them with it; a large one goes alone straight from its sender's memory, and only what
 * the socket did not take is copied. Nothing here waits. Used under the client's lock. */
#ifndef OB_CLIENT_OUT_H
#define OB_CLIENT_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OB_OUT_NONE SIZE_MAX

/* Descriptors of a message that is queued; duplicates of the caller's. */
struct ob_out_fds {
    struct ob_out_fds *next;
    uint64_t at; /* where the message begins, in bytes since the connection did */
    unsigned count;
    int fds[];
};

struct ob_out {
    int fd; /* the socket */
    uint8_t *bytes;
    size_t start, end, room; /* bytes[start..end) are to go */
    size_t rest;             /* of those, what belongs to a message of which a part has gone */
    uint64_t sent;           /* bytes, ever */
    size_t open;             /* where in bytes the last message begins if posts may be added to it; or OB_OUT_NONE */
    bool full;               /* the socket took no more at the last attempt */
    bool broken;             /* the peer is gone: what is put here disappears, and reading will tell */
    struct ob_out_fds *fds, **fds_last;
};

void ob_out_init(struct ob_out *out, int fd);
/* Frees; the socket stays open. */
void ob_out_fini(struct ob_out *out);

static inline size_t ob_out_pending(const struct ob_out *out)
{
    return out->end - out->start;
}

/* Sends what the socket takes. 0: all is sent, or the peer is gone; -EAGAIN: the socket is full. */
int ob_out_flush(struct ob_out *out);

/* Room for a message of `size` bytes behind the others, which are sent first if it does not join them. The caller
 * fills it and adds its size to `end`. NULL: no memory. */
uint8_t *ob_out_reserve(struct ob_out *out, size_t size);

/* Sends one message alone now, if the socket takes it, and queues what it does not take: `head`, then `data`. The
 * descriptors stay the caller's. 0, -ENOMEM, -EMFILE, -EBADF, -ETOOMANYREFS: then nothing was sent or queued. */
int ob_out_send(struct ob_out *out, const void *head, size_t head_len, const void *data, size_t data_len,
                const int *fds, unsigned nfds);

#endif
