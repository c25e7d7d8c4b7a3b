/* stream.h: one socket of the judge's, as a server has it: messages are taken however they are cut, and go out whole or
 * in the pieces that a check wants. */
#ifndef CONFORM_STREAM_H
#define CONFORM_STREAM_H

#include "../raw/client.h"

#define STREAM_MAX_FDS 64

struct stream {
    int fd; /* -1: none */
    bool ended;
    uint8_t *bytes;    /* that have come and are not taken yet */
    size_t have, room; /* of them */
    uint64_t position; /* of the first of them in all that ever came */
    struct {
        uint64_t at; /* the byte that it came with */
        int fd;
    } fds[STREAM_MAX_FDS];
    unsigned nfds;
};

/* Takes over a connected socket; -1: none. */
void stream_open(struct stream *stream, int fd);
void stream_close(struct stream *stream);
/* Reads what is there, without waiting. */
void stream_read(struct stream *stream);
/* Takes the next message that is complete; NULL: there is none. The caller frees it with ob_raw_message_free(). A
 * header of an impossible size is a message without payload, and the last one. */
struct ob_raw_message *stream_take(struct stream *stream);
/* Whether a message is complete. */
bool stream_ready(const struct stream *stream);
/* Sends all, the descriptors with the first byte, reading meanwhile. 0; -ENOTCONN, -ETIMEDOUT. */
int stream_send(struct stream *stream, const void *bytes, size_t size, const int *fds, unsigned nfds, int timeout_ms);
/* Waits until the client has read what was sent, so that the next send is a segment of its own. */
void stream_wait_taken(struct stream *stream, int timeout_ms);

#endif
