/* The holder: somebody outside who keeps a client's descriptors, so that a successor of this process finds them.
 *
 * Over a SOCK_SEQPACKET socket. Each message is one struct ob_holder_message; KEEP carries one descriptor. A successor
 * asks, and gets everything that is kept as KEEP messages, then DROP with key UINT64_MAX as the end mark. A descriptor
 * is kept from before its message counts as received until after the commit that lets go of it. Without a holder
 * (socket -1) all of this costs nothing. */
#ifndef OB_SESSION_HOLDER_H
#define OB_SESSION_HOLDER_H

#include <stdint.h>

enum ob_holder_op { OB_HOLDER_KEEP = 1, OB_HOLDER_DROP = 2, OB_HOLDER_ASK = 3 };
#define OB_HOLDER_END UINT64_MAX

struct ob_holder_message {
    uint64_t key;
    uint32_t op; /* enum ob_holder_op */
    uint32_t pad;
};

struct ob_held {
    uint64_t key;
    int fd;
};

/* The keys of descriptors, by descriptor number, and what a predecessor left. */
struct ob_holder {
    int socket;
    uint64_t *keys; /* by descriptor number; 0: not held */
    unsigned n_keys;
    uint64_t *dropped; /* keys to drop once the commit is through */
    unsigned n_dropped, max_dropped;
    struct ob_held *left; /* from a predecessor, by key; fd -1: taken */
    unsigned n_left;
};

/* Takes over `socket` (-1: nobody holds anything). */
void ob_holder_init(struct ob_holder *holder, int socket);
/* Closes it and what is left. */
void ob_holder_free(struct ob_holder *holder);

/* Has `fd` kept under `key`. 0 or -errno: then a successor could not go on, and the session has to end. */
int ob_holder_keep(struct ob_holder *holder, int fd, uint64_t key);
/* The key of a kept descriptor, 0 if it is not kept. */
uint64_t ob_holder_key(const struct ob_holder *holder, int fd);
/* The descriptor was closed here, or is about to be: its key is dropped with the next ob_holder_flush(), which comes
 * after the commit that makes it so. Harmless for descriptors not kept. */
void ob_holder_drop(struct ob_holder *holder, int fd);
/* Only the number is free again; its key is still used (a file that stays mapped after its descriptor was closed). */
void ob_holder_detach(struct ob_holder *holder, int fd);
void ob_holder_drop_key(struct ob_holder *holder, uint64_t key);
void ob_holder_send_dropped(struct ob_holder *holder);
static inline void ob_holder_flush(struct ob_holder *holder)
{
    if (holder->n_dropped > 0)
        ob_holder_send_dropped(holder);
}

/* A successor's: fetches everything that is kept. 0 or -errno. */
int ob_holder_ask(struct ob_holder *holder);
/* The descriptor kept under `key`, which is the caller's now and still kept; -1 if there is none. */
int ob_holder_take(struct ob_holder *holder, uint64_t key);
/* Drops whatever of the predecessor's nobody took. */
void ob_holder_drop_left(struct ob_holder *holder);

#endif
