/* client.h: a raw vfio-user client for tests and benchmarks: it sends any bytes, and judges what comes back.
 *
 * It reads as QEMU does: a reply's 16-byte header in one piece, descriptors with the header. A server that does
 * otherwise would kill a VM, and is a violation here.
 *
 * Results. 0: done; > 0: the errno of the server's error reply, or OB_RAW_NO_ERRNO; < 0: no answer that could be
 * accepted: -ETIMEDOUT, -ENOTCONN (the server closed the connection), -EPROTO (a violation; ob_raw.why says which).
 *
 * A struct ob_raw belongs to one thread. */
#ifndef OB_RAW_CLIENT_H
#define OB_RAW_CLIENT_H

#include "wire.h"

#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define OB_RAW_MAX_FDS  32
#define OB_RAW_NO_ERRNO 4096 /* of a `lenient` client: an error reply whose error field holds none */

struct ob_raw_message {
    struct ob_raw_header header;
    uint8_t *payload; /* what follows the header, and a NUL that does not count */
    uint32_t size;    /* of it, bytes */
    unsigned nfds;
    int fds[OB_RAW_MAX_FDS]; /* closed by ob_raw_message_free(), but for those replaced by -1 */
    struct ob_raw_message *next;
};

/* Serves the server's DMA_READ (write false: fill data) and DMA_WRITE; returns 0, an errno for the error reply, or
 * OB_RAW_LATER: ob_raw_later() returns the command, to be answered by hand, and ob_raw_answer_later() asks again. */
#define OB_RAW_LATER (-4096) /* no errno */
typedef int ob_raw_dma_fn(void *ctx, bool write, uint64_t address, uint64_t count, void *data);

/* Told of all bytes that go out (whole messages or not) and of each message that came. */
typedef void ob_raw_trace_fn(void *ctx, bool sent, const void *bytes, size_t size, unsigned nfds);

struct ob_raw {
    int fd;
    int timeout_ms; /* of every wait; 20,000 unless changed */
    uint16_t next_id;
    bool lenient;       /* an error reply without the reply type, without an errno, with a payload, is a refusal too */
    ob_raw_dma_fn *dma; /* NULL: DMA commands are returned by ob_raw_receive() like any message */
    void *dma_ctx;
    unsigned dma_served;    /* how many, ever; those that were put off count when they come */
    struct ob_raw *twin;    /* the twin socket; its DMA is served while this one waits, if it has a `dma`. Or NULL */
    ob_raw_trace_fn *trace; /* NULL: violations are printed to standard error instead */
    void *trace_ctx;
    struct ob_raw_message *queue, **queue_tail;
    struct ob_raw_message *later, **later_tail; /* DMA commands to be answered by hand */
    char why[160];                              /* what the last negative result was about */
};

/* Takes over a connected socket. */
void ob_raw_init(struct ob_raw *raw, int fd);
/* Connects to a socket's path. */
int ob_raw_connect(struct ob_raw *raw, const char *path);
/* Closes; may be called again. */
void ob_raw_close(struct ob_raw *raw);
/* Closes as a client does that has taken all replies: sends no more, and throws away what comes until the server
 * closes too, but waits no longer than that. */
void ob_raw_leave(struct ob_raw *raw, int timeout_ms);

/* Sends these bytes, the descriptors with the first. What the server sends meanwhile is queued. */
int ob_raw_send(struct ob_raw *raw, const void *bytes, size_t size, const int *fds, unsigned nfds);
/* Sends what fits without waiting; returns how many bytes, or < 0. */
ssize_t ob_raw_send_some(struct ob_raw *raw, const void *bytes, size_t size);
/* Sends one message; *id (may be NULL) gets its id. `flags` are the header's, 0 or OB_RAW_NO_REPLY. */
int ob_raw_request(struct ob_raw *raw, uint16_t command, uint32_t flags, const void *payload, size_t size,
                   const int *fds, unsigned nfds, uint16_t *id);
/* Builds a message at `to`, which has room for 16 + size bytes; returns its size. */
size_t ob_raw_build(void *to, uint16_t id, uint16_t command, uint32_t flags, const void *payload, size_t size);

/* The next message; the caller frees it. */
int ob_raw_receive(struct ob_raw *raw, struct ob_raw_message **message);
/* The oldest DMA command that is to be answered later; NULL: there is none yet. The caller frees it. */
struct ob_raw_message *ob_raw_later(struct ob_raw *raw);
void ob_raw_message_free(struct ob_raw_message *message);
/* The next message has to be the reply to that request: 0, an errno or < 0. *reply may be NULL; set only for 0. */
int ob_raw_reply(struct ob_raw *raw, uint16_t id, uint16_t command, struct ob_raw_message **reply);
/* ob_raw_request() and ob_raw_reply(). */
int ob_raw_call(struct ob_raw *raw, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds,
                struct ob_raw_message **reply);
/* 0 if the server closes the connection before the timeout; what it still sends is thrown away and counted. */
int ob_raw_wait_closed(struct ob_raw *raw, unsigned *messages);
/* 0 if the server has sent nothing: decided by a request sent now, whose reply has to be the next message. */
int ob_raw_silent(struct ob_raw *raw);
/* Receives, serving DMA, until `dma_served` has reached `total`. */
int ob_raw_serve_dma(struct ob_raw *raw, unsigned total);
/* Serves DMA commands that have come by now, on this socket and on the twin, and does not wait for any. 0, -EPROTO:
 * there was something else, or as receiving. */
int ob_raw_serve_ready(struct ob_raw *raw);
/* Has raw.dma answer the commands that it put off. */
int ob_raw_answer_later(struct ob_raw *raw);

/* --- One function for each command ------------------------------------------------------------------------------- */

/* JSON may be NULL: no version data. *reply as in ob_raw_reply(). */
int ob_raw_version(struct ob_raw *raw, uint16_t major, uint16_t minor, const char *json, struct ob_raw_message **reply);
/* Version 0.0 with the capabilities that QEMU sends. */
int ob_raw_handshake(struct ob_raw *raw);
extern const char ob_raw_qemu_capabilities[];
/* The fd_index of the twin socket that a reply to VERSION gives; -ENOENT: it gives none, -EPROTO: it does, and there is
 * no fd_index that names one of its descriptors. */
int ob_raw_twin_index(const struct ob_raw_message *reply);
/* Takes it out of the reply. 0 or as above. Whoever serves DMA on it sets twin->dma and raw->twin. */
int ob_raw_take_twin(struct ob_raw_message *reply, struct ob_raw *twin);

int ob_raw_device_info(struct ob_raw *raw, struct vfio_device_info *info);
/* argsz as given; *fd gets the descriptor or -1, and may be NULL. `room` is that of `info`, at least the struct's. */
int ob_raw_region_info(struct ob_raw *raw, uint32_t index, uint32_t argsz, void *info, size_t room, int *fd);
int ob_raw_irq_info(struct ob_raw *raw, uint32_t index, struct vfio_irq_info *info);
/* data: as many bools as count, or NULL. */
int ob_raw_set_irqs(struct ob_raw *raw, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
                    const uint8_t *bools, const int *fds, unsigned nfds);
int ob_raw_read(struct ob_raw *raw, uint32_t region, uint64_t offset, void *data, uint32_t count);
int ob_raw_write(struct ob_raw *raw, uint32_t region, uint64_t offset, const void *data, uint32_t count);
/* Posted: No_reply. 0 or < 0. */
int ob_raw_post(struct ob_raw *raw, uint32_t region, uint64_t offset, const void *data, uint32_t count);
/* *done gets the count of the reply. */
int ob_raw_write_multi(struct ob_raw *raw, const struct ob_raw_one_write *writes, uint64_t count, uint64_t *done);
/* fd -1: none. prot: 1 readable, 2 writable. */
int ob_raw_map(struct ob_raw *raw, uint64_t address, uint64_t size, uint32_t prot, int fd, uint64_t offset);
/* Checks that the reply repeats the entry. */
int ob_raw_unmap(struct ob_raw *raw, uint64_t address, uint64_t size);
int ob_raw_reset(struct ob_raw *raw);

#endif
