/* channel.h: one socket of the judge's, as a server has it: messages are taken however they are cut, and go out whole
 * or in the pieces that a check wants. */
#ifndef CONFORM_CHANNEL_H
#define CONFORM_CHANNEL_H

#include "../raw/client.h"

#define CHANNEL_MAX_FDS 64

struct channel {
    int fd; /* -1: none */
    bool ended;
    uint8_t *bytes;    /* that have come and are not taken yet */
    size_t have, room; /* of them */
    uint64_t position; /* of the first of them in all that ever came */
    struct {
        uint64_t at; /* the byte that it came with */
        int fd;
    } fds[CHANNEL_MAX_FDS];
    unsigned nfds;
};

/* Takes over a connected socket; -1: none. */
void channel_open(struct channel *channel, int fd);
void channel_close(struct channel *channel);
/* Reads what is there, without waiting. */
void channel_read(struct channel *channel);
/* Takes the next message that is complete; NULL: there is none. The caller frees it with ob_raw_message_free(). A
 * header of an impossible size is a message without payload, and the last one. */
struct ob_raw_message *channel_take(struct channel *channel);
/* Whether a message is complete. */
bool channel_ready(const struct channel *channel);
/* Sends all, the descriptors with the first byte, reading meanwhile. 0; -ENOTCONN, -ETIMEDOUT. */
int channel_send(struct channel *channel, const void *bytes, size_t size, const int *fds, unsigned nfds,
                 int timeout_ms);
/* Waits until the client has read what was sent, so that the next send is a segment of its own. False: it does not. */
bool channel_wait_taken(struct channel *channel, int timeout_ms);

#endif
