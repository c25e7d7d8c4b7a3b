/* The journal: what a client sent and what it is to be told, in memory that outlives the process.
 *
 * Theory of operation. Two areas of one memfd, `in` and `out`, each a piece of a byte stream. A position is a 64-bit
 * count of bytes since the journal was made; it never goes back, over clients too. `in` holds the stream from the last
 * executed request on; the number of a request is the position of its first byte. `out` holds messages to the client
 * that are not sent yet.
 *
 *      in_base      executed         in_tail               out_base     out_sent      out_tail
 *      |  done      | to be executed | room                | sent       | to be sent  | room
 *
 * The front owns in_base, in_tail, out_base and out_sent: each moves by one store. How far requests are executed and
 * how far `out` is valid (struct ob_position) is not here: it is committed together with the device's state, see
 * device/vault.h. Bytes behind out_tail never happened.
 *
 * The areas are not rings: messages stay in one piece, and an area that has run empty starts at its beginning again, so
 * that small requests keep using the same few cache lines. When the end comes near, what is left moves to the
 * beginning: an area is twice the largest message, so that source and target never overlap, and one store of the base
 * makes the move current.
 *
 * The twin socket has two small areas of its own: `twin_in` for answers that come over it, and `twin_out` for one
 * message on its way, so that neither stream is cut in the middle of a message when a process dies. They are not
 * committed: a successor sends the rest of a message that has begun, and takes no answer for its own.
 *
 * The journal is private to the server and whoever holds its descriptor for a successor; no client maps it. One thread
 * uses it at a time. */
#ifndef OB_SESSION_JOURNAL_H
#define OB_SESSION_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/version.h"

/* How far a device has come with the stream; current together with its state. */
struct ob_position {
    uint64_t executed;  /* requests before this are done */
    uint64_t out_tail;  /* bytes of `out` that are valid */
    uint64_t out_fd_at; /* the message that begins here carries descriptors: */
    int32_t out_fds;    /* which ones, as ob_session_reply() was told; -1: none does */
    uint32_t part;      /* how much of the request at `executed` is done: bytes of an access, writes of a WRITE_MULTI */
};

/* Descriptors that came with the bytes [start, end) of `in`: `count` of them, held under keys from first_key on. */
struct ob_journal_batch {
    uint64_t start, end, first_key;
    uint32_t count, valid;
};
#define OB_JOURNAL_BATCHES 16

/* Positions in the streams of the twin socket, in bytes since it was made. */
struct ob_journal_twin {
    uint64_t key;                       /* of our end of it; 0: there is none */
    uint64_t in_base, in_done, in_tail; /* received is [in_base, in_tail), of which messages before in_done are done */
    uint64_t out_base, out_sent, out_tail; /* the one message is [out_base, out_tail) */
};

struct ob_journal_header {
    uint64_t magic;
    uint64_t in_size, out_size; /* bytes of the areas */
    uint64_t connection;        /* position where the present client's stream began */
    uint64_t in_base, in_tail;
    /* Bytes of `in` behind skip_from and before skip_until are the rest of a message too large to take. As long as a
     * device has not come beyond skip_from, the message is still to be refused. */
    uint64_t skip_from, skip_until;
    uint64_t out_base, out_sent;
    uint64_t out_cut;    /* what is sent before this position goes in a call of its own */
    uint64_t next_key;   /* of the next descriptor that arrives */
    uint64_t negotiated; /* the end of VERSION: from there on, `peer` is what the client offered */
    struct ob_capabilities peer;
    uint32_t next_id;   /* of the next message to the client */
    uint32_t connected; /* there is a client */
    struct ob_journal_batch batches[OB_JOURNAL_BATCHES];
    struct ob_journal_twin twin; /* true with `negotiated`, like `peer` */
};

struct ob_journal {
    int fd;
    struct ob_journal_header *header;
    uint8_t *in, *out, *twin_in, *twin_out;
    size_t twin_size; /* of each of the twin socket's areas */
    size_t mapped;
};

/* Makes a journal (fd -1) for messages of up to max_message bytes, and of max_twin bytes on the twin socket, or takes
 * over the one in fd, which is owned by the journal on success. 0, -EINVAL when fd holds no journal of this version and
 * size, or what memfd_create, mmap say. */
int ob_journal_open(struct ob_journal *journal, int fd, size_t max_message, size_t max_twin);
void ob_journal_close(struct ob_journal *journal);
/* Lets go of it without closing the descriptor, unless `close_fd`. */
void ob_journal_unmap(struct ob_journal *journal, bool close_fd);

static inline uint8_t *ob_journal_in(const struct ob_journal *journal, uint64_t position)
{
    return journal->in + (position - journal->header->in_base);
}

static inline uint8_t *ob_journal_out(const struct ob_journal *journal, uint64_t position)
{
    return journal->out + (position - journal->header->out_base);
}

/* Makes room behind in_tail, given that everything before `executed` is done and a message of up to max_message bytes
 * begins there. `move` says whether bytes may move (nobody holds pointers to them). Returns how many bytes fit. */
size_t ob_journal_in_room(struct ob_journal *journal, uint64_t executed, size_t max_message, bool move);

/* The same for `twin_in`. */
size_t ob_journal_twin_room(struct ob_journal *journal, size_t max_message);

static inline uint8_t *ob_journal_twin_in(const struct ob_journal *journal, uint64_t position)
{
    return journal->twin_in + (position - journal->header->twin.in_base);
}

/* The same for `out`: how many bytes fit behind out_tail. Starts over when everything is sent. */
size_t ob_journal_out_room(struct ob_journal *journal, uint64_t out_tail);

/* Where in `in` the throwing away of an oversized message has come to, given that it was at `position`: further on if
 * more bytes have arrived, or just `position` if there is nothing to throw away. */
static inline uint64_t ob_journal_skip(const struct ob_journal *journal, uint64_t position)
{
    const struct ob_journal_header *h = journal->header;

    if (position <= h->skip_from || position >= h->skip_until)
        return position;
    return h->skip_until < h->in_tail ? h->skip_until : h->in_tail;
}

/* One store, which a successor sees whole or not at all, after everything written before it. */
static inline void ob_journal_store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

#endif
