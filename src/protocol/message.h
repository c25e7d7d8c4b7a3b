/* Messages of vfio-user: finding one in a stream, checking it, encoding it, printing it.
 *
 * Everything here is pure: bytes in, a checked view out; no I/O, no allocation, no state, any thread. A view points
 * into the bytes that it was checked from and is good for as long as they are. Messages may lie at any alignment.
 *
 * What a check promises of every message that it accepts, so that nobody has to look again:
 *  - the header's size is the size of the bytes, and `tail` holds exactly what the counting field says;
 *  - offset + count and start + count and address + size do not wrap (not even to 0);
 *  - count and size of data are at most limits->max_data_xfer_size;
 *  - argsz covers the fixed part of the reply; flags hold no bit that the command does not define;
 *  - the number of descriptors is one that the command allows.
 * What it cannot know and leaves to its caller: whether a region, an index, a vector or a DMA address exists, page
 * alignment, the order of messages, and what of the text of VERSION makes sense (version.h). */
#ifndef OB_PROTOCOL_MESSAGE_H
#define OB_PROTOCOL_MESSAGE_H

#include <stddef.h>
#include <string.h>
#include <sys/types.h>
#include "protocol/table.h"
#include "protocol/wire.h"

/* What the side that checks is willing to take; for VERSION itself, before anything is negotiated, the defaults. */
struct ob_limits {
    uint32_t max_data_xfer_size; /* bytes of data in one message, both ways */
    uint32_t max_msg_fds;        /* descriptors with one message to us */
};

#define OB_DEFAULT_MAX_DATA_XFER_SIZE 1048576u
#define OB_DEFAULT_MAX_MSG_FDS        1u
#define OB_LIMITS_DEFAULT                                     \
    (struct ob_limits)                                        \
    {                                                         \
        OB_DEFAULT_MAX_DATA_XFER_SIZE, OB_DEFAULT_MAX_MSG_FDS \
    }

/* Which side a request came from. */
enum ob_direction { OB_FROM_CLIENT, OB_FROM_SERVER };

/* A message, decoded. Which member of `u` is meant follows from header.command and from whether it is a reply: see
 * OB_COMMANDS in table.h; each member is named like its structure. */
struct ob_message {
    struct ob_header header;
    union ob_payload {
        struct ob_wire_none none;
        struct ob_wire_version version;
        struct ob_wire_dma_map dma_map;
        struct ob_wire_dma_unmap dma_unmap;
        struct ob_wire_device_info device_info;
        struct vfio_region_info region_info;
        struct ob_wire_io_fds io_fds;
        struct vfio_irq_info irq_info;
        struct ob_wire_irq_set irq_set;
        struct ob_wire_region_access region_access;
        struct ob_wire_dma_access dma_access;
        struct ob_wire_write_multi write_multi;
        struct ob_wire_feature feature;
        struct ob_wire_mig_data mig_data;
    } u;
    const uint8_t *tail; /* what follows the fixed part: borrowed, of any alignment; NULL if tail_size is 0 */
    size_t tail_size;
    unsigned nfds; /* descriptors that came or are to go with it; the descriptors themselves are the transport's */
};

/* The largest message that fits the limits: what to give ob_frame as max_size, and the size of a receive buffer. */
#define OB_MAX_FIXED_SIZE 32u   /* of the fixed part of any command */
#define OB_MIN_TAIL_ROOM  8192u /* for messages whose tail is not data: write-multi, ranges, text, SPDK's 4080 bytes */
static inline size_t ob_max_message(const struct ob_limits *limits)
{
    size_t room = limits->max_data_xfer_size > OB_MIN_TAIL_ROOM ? limits->max_data_xfer_size : OB_MIN_TAIL_ROOM;
    return OB_HEADER_SIZE + OB_MAX_FIXED_SIZE + room;
}

/* Looks at the start of a stream for a message. 0: the header is not complete, *h untouched. > 0: *h is filled in and
 * this is the size of the message, which may exceed `have`. -EPROTO: the header says less than its own size.
 * -EMSGSIZE: it says more than max_size (which must be at most INT_MAX). After either the stream cannot be followed any
 * more: close the connection. On -EMSGSIZE *h is filled in, so that the refusal can name its message. */
int ob_frame(const void *bytes, size_t have, size_t max_size, struct ob_header *h);

/* Checks the `size` bytes of one whole message, which came from side `from` with `nfds` descriptors, as a request and
 * decodes it. 0, or what the peer is to be told:
 *   -EINVAL  a length, count, sum, flag or descriptor count is wrong, or the command is not for this direction;
 *   -ENOSYS  there is no such command. (The specification names no errno; -ENOSYS sets "unknown" apart from "wrong".)
 * Whatever the result, m->header is filled in if `size` is at least OB_HEADER_SIZE and zeroed otherwise, so that
 * ob_encode_error() can answer; the rest of *m is valid after 0 only. A refused request with OB_FLAG_NO_REPLY gets no
 * answer. */
int ob_check_request(struct ob_message *m, const void *bytes, size_t size, enum ob_direction from,
                     const struct ob_limits *limits, unsigned nfds);

/* Checks one whole message as the reply to `request` (its header and u are looked at, its tail is not) and decodes it.
 * 0: well formed, which a refusal is too: ask ob_reply_error(). -EPROTO: the peer broke the protocol; its later replies
 * cannot be trusted either. A reply with data never holds more than was asked for.
 *
 * What peers do otherwise and is accepted: the refusals of older rust-vmm servers lack the reply bit; QEMU answers
 * DMA_WRITE with a header alone (the specification's table has a count of 4 bytes, 12 in all, which is taken too); the
 * reference library answers region accesses of 0 bytes with a header alone, and pads the last MIG_DATA_READ. The fixed
 * part of a header alone is that of the request.
 *
 * QEMU lays DMA_READ and DMA_WRITE out with a count of 4 bytes and the data right behind it, 12 bytes from the header.
 * Its reply to DMA_READ is refused here, unless the first 4 bytes of data are 0: then it looks like a right one whose
 * data is shifted by 4, and no check of a single message can tell. */
int ob_check_reply(struct ob_message *m, const void *bytes, size_t size, const struct ob_message *request,
                   const struct ob_limits *limits, unsigned nfds);

/* 0, or the negative errno that a checked reply carries; -EIO if it names none, or none that exists. */
int ob_reply_error(const struct ob_message *reply);

/* Writes a whole message to buf and returns its size. header.id, header.command and OB_FLAG_NO_REPLY are taken from m;
 * size, type and error are set here. A tail that already lies at its place in buf (see ob_tail_offset) is not copied.
 * -ENOBUFS: `room` is too small. -EINVAL: the message would not pass the other side's check whatever its limits, or
 * m->nfds is not what the command allows. */
ssize_t ob_encode_request(void *buf, size_t room, const struct ob_message *m);
ssize_t ob_encode_reply(void *buf, size_t room, const struct ob_message *m);

/* Writes the refusal of a request: a header alone, the reply and error bits, and `err` (positive or negative errno;
 * 0 becomes EIO). Returns its size, or -ENOBUFS. */
ssize_t ob_encode_error(void *buf, size_t room, const struct ob_header *request, int err);

/* Where the tail of a message starts, from the start of the message. -EINVAL for an unknown command. */
int ob_tail_offset(uint16_t command, int is_reply);

/* The i-th write of a checked WRITE_MULTI request; i < u.write_multi.wr_cnt. */
static inline struct ob_wire_write ob_message_write(const struct ob_message *m, size_t i)
{
    struct ob_wire_write w;
    memcpy(&w, m->tail + i * sizeof(w), sizeof(w));
    return w;
}

/* The i-th entry of a checked reply to DEVICE_GET_REGION_IO_FDS; i < u.io_fds.count and tail_size > 0. */
static inline struct ob_wire_io_fd ob_message_io_fd(const struct ob_message *m, size_t i)
{
    struct ob_wire_io_fd entry;
    memcpy(&entry, m->tail + i * (m->tail_size / m->u.io_fds.count), sizeof(entry));
    return entry;
}

/* The bytes of dirty bitmap that describe `length` bytes: a bit a page, whole 64-bit words. page_size: not 0. */
static inline uint64_t ob_bitmap_size(uint64_t length, uint64_t page_size)
{
    uint64_t pages = length / page_size + (length % page_size != 0);
    return (pages / 64 + (pages % 64 != 0)) * 8;
}

/* A capability of a checked reply to DEVICE_GET_REGION_INFO: where its header lies in m->tail, or -ENOENT if it is not
 * there or the reply was too short for the capabilities (u.region_info.argsz says what to ask with). One that is found
 * is whole: for VFIO_REGION_INFO_CAP_SPARSE_MMAP that means its nr_areas areas, and each lies in the region. */
ssize_t ob_region_capability(const struct ob_message *m, uint16_t id);

/* Writes one line without its newline, as a logic analyser would show it:
 *   -> REGION_WRITE id=7 offset=0x20 region=BAR0 count=4 data=0x00000001
 * m must have been checked; `from` is the side that sent this message, be it request or reply: "->" from the client,
 * "<-" from the server. Returns the length that the whole line has; what does not fit `room` is cut and buf is always
 * terminated (as snprintf). */
int ob_print_message(char *buf, size_t room, const struct ob_message *m, enum ob_direction from);

/* The name of a command without prefix ("REGION_READ"), or NULL. */
const char *ob_command_name(uint16_t command);

#endif
