/* Messages: framing, checking, encoding. What a command's fields may say is in rules.c. */
#include "protocol/message.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>

#include "protocol/rules.h"

static const struct ob_limits unlimited = { UINT32_MAX, UINT32_MAX };

int ob_frame(const void *bytes, size_t have, size_t max_size, struct ob_header *h)
{
    struct ob_header header;

    if (have < sizeof(header))
        return 0;
    memcpy(&header, bytes, sizeof(header));
    if (header.size < sizeof(header))
        return -EPROTO;
    *h = header;
    if (header.size > max_size || header.size > INT_MAX)
        return -EMSGSIZE;
    return (int)header.size;
}

static const struct ob_command_info *command_info(uint16_t command)
{
    return command < OB_COMMAND_END && ob_commands[command].name ? &ob_commands[command] : NULL;
}

static inline bool fds_allowed(const struct ob_part *part, unsigned nfds, const struct ob_limits *limits)
{
    return nfds <= limits->max_msg_fds && (nfds <= part->max_fds || part->max_fds == OB_FDS_LIMIT);
}

/* The size is a parameter so that each call in the switches below copies a constant number of bytes. */
static inline void take(struct ob_message *m, void *member, size_t fixed, const uint8_t *payload, size_t size)
{
    memcpy(member, payload, fixed);
    m->tail_size = size - fixed;
    m->tail = m->tail_size ? payload + fixed : NULL;
}

int ob_check_request(struct ob_message *m, const void *bytes, size_t size, enum ob_direction from,
                     const struct ob_limits *limits, unsigned nfds)
{
    const uint8_t *payload = (const uint8_t *)bytes + OB_HEADER_SIZE;
    const struct ob_command_info *info;

    if (size < OB_HEADER_SIZE) {
        memset(&m->header, 0, sizeof(m->header));
        return -EINVAL;
    }
    memcpy(&m->header, bytes, OB_HEADER_SIZE);
    info = command_info(m->header.command);
    if (!info)
        return -ENOSYS;
    if (m->header.size != size || info->from != from || !fds_allowed(&info->request, nfds, limits))
        return -EINVAL;
    if (m->header.flags & ~(info->no_reply ? OB_FLAG_NO_REPLY : 0))
        return -EINVAL;
    size -= OB_HEADER_SIZE;
    if (size < info->request.size)
        return -EINVAL;
    if (info->excess && size - info->request.size <= OB_MAX_EXCESS)
        size = info->request.size;
    m->nfds = nfds;
    switch (m->header.command) {
#define X(name, number, sender, part, ...)                     \
    case number:                                               \
        take(m, &m->u.part, sizeof(m->u.part), payload, size); \
        break;
        OB_COMMANDS(X)
#undef X
    }
    return ob_request_rules(m, limits);
}

/* A refusal is a header alone. Older rust-vmm servers forget the reply bit in theirs. */
static int check_refusal(const struct ob_message *m, size_t size, unsigned nfds)
{
    return size == OB_HEADER_SIZE && (m->header.flags & ~OB_FLAG_REPLY) == OB_FLAG_ERROR && nfds == 0 ? 0 : -EPROTO;
}

/* Replies that are shorter than the table says and are known to be sent (message.h): completes m->u from the request.
 */
static bool short_reply(struct ob_message *m, const struct ob_message *request, const uint8_t *payload, size_t size)
{
    const size_t count_at = offsetof(struct ob_wire_dma_access, count);
    uint32_t count;

    m->tail = NULL;
    m->tail_size = 0;
    m->u = request->u;
    switch (m->header.command) {
    case OB_REGION_READ:
    case OB_REGION_WRITE:
        return size == 0 && request->u.region_access.count == 0;
    case OB_DMA_WRITE:
        if (size == count_at + sizeof(count)) {
            memcpy(&m->u.dma_access.address, payload, sizeof(m->u.dma_access.address));
            memcpy(&count, payload + count_at, sizeof(count));
            m->u.dma_access.count = count;
            return true;
        }
        return size == 0;
    default:
        return false;
    }
}

/* Bytes behind a reply that are tolerated but mean nothing (message.h). */
static inline void cut_excess(struct ob_message *m, const struct ob_command_info *info)
{
    if (info->reply.tail == OB_TAIL_GROWN)
        m->tail_size = 0;
    else if (m->header.command == OB_MIG_DATA_READ)
        m->tail_size = m->u.mig_data.size;
    if (m->tail_size == 0)
        m->tail = NULL;
}

int ob_check_reply(struct ob_message *m, const void *bytes, size_t size, const struct ob_message *request,
                   const struct ob_limits *limits, unsigned nfds)
{
    const uint8_t *payload = (const uint8_t *)bytes + OB_HEADER_SIZE;
    const struct ob_command_info *info = command_info(request->header.command);

    if (size < OB_HEADER_SIZE || !info)
        return -EPROTO;
    memcpy(&m->header, bytes, OB_HEADER_SIZE);
    m->tail = NULL;
    m->tail_size = 0;
    m->nfds = nfds;
    if (m->header.size != size || m->header.id != request->header.id || m->header.command != request->header.command)
        return -EPROTO;
    if (m->header.flags & OB_FLAG_ERROR)
        return check_refusal(m, size, nfds);
    if (m->header.flags != OB_FLAG_REPLY || !fds_allowed(&info->reply, nfds, limits))
        return -EPROTO;
    size -= OB_HEADER_SIZE;
    if (size < info->reply.size) {
        if (!short_reply(m, request, payload, size))
            return -EPROTO;
    } else {
        switch (m->header.command) {
#define X(name, number, sender, part, tail, fds, reply_part, ...)          \
    case number:                                                           \
        take(m, &m->u.reply_part, sizeof(m->u.reply_part), payload, size); \
        break;
            OB_COMMANDS(X)
#undef X
        }
    }
    if (ob_reply_rules(m, request, limits) != 0)
        return -EPROTO;
    cut_excess(m, info);
    return 0;
}

int ob_reply_error(const struct ob_message *reply)
{
    if (!(reply->header.flags & OB_FLAG_ERROR))
        return 0;
    /* The kernel keeps errnos below 4096; anything else would turn into a length or a pointer somewhere. */
    return reply->header.error > 0 && reply->header.error < 4096 ? -(int)reply->header.error : -EIO;
}

static ssize_t encode(void *buf, size_t room, const struct ob_message *m, const struct ob_part *part, uint32_t flags)
{
    uint8_t *out = buf;
    size_t fixed = OB_HEADER_SIZE + part->size, size = fixed + m->tail_size;
    struct ob_header header = { m->header.id, m->header.command, (uint32_t)size, flags, 0 };

    if (size > INT_MAX)
        return -EINVAL;
    if (size > room)
        return -ENOBUFS;
    /* The tail first: it may lie where the head goes. */
    if (m->tail_size > 0 && m->tail != out + fixed)
        memmove(out + fixed, m->tail, m->tail_size);
    memcpy(out, &header, sizeof(header));
    memcpy(out + sizeof(header), &m->u, part->size);
    return (ssize_t)size;
}

ssize_t ob_encode_request(void *buf, size_t room, const struct ob_message *m)
{
    const struct ob_command_info *info = command_info(m->header.command);
    uint32_t flags = m->header.flags & OB_FLAG_NO_REPLY;

    if (!info || (flags && !info->no_reply) || !fds_allowed(&info->request, m->nfds, &unlimited))
        return -EINVAL;
    if (ob_request_rules(m, &unlimited) != 0)
        return -EINVAL;
    return encode(buf, room, m, &info->request, flags);
}

ssize_t ob_encode_reply(void *buf, size_t room, const struct ob_message *m)
{
    const struct ob_command_info *info = command_info(m->header.command);

    if (!info || !fds_allowed(&info->reply, m->nfds, &unlimited))
        return -EINVAL;
    if (ob_reply_rules(m, NULL, &unlimited) != 0)
        return -EINVAL;
    return encode(buf, room, m, &info->reply, OB_FLAG_REPLY);
}

ssize_t ob_encode_error(void *buf, size_t room, const struct ob_header *request, int err)
{
    /* An error of 0 is legal, but QEMU would take it for success. */
    uint32_t value = err == 0 ? EIO : err < 0 ? -(uint32_t)err : (uint32_t)err;
    struct ob_header header = { request->id, request->command, OB_HEADER_SIZE, OB_FLAG_REPLY | OB_FLAG_ERROR, value };

    if (room < sizeof(header))
        return -ENOBUFS;
    memcpy(buf, &header, sizeof(header));
    return sizeof(header);
}

int ob_tail_offset(uint16_t command, int is_reply)
{
    const struct ob_command_info *info = command_info(command);

    if (!info)
        return -EINVAL;
    return OB_HEADER_SIZE + (is_reply ? info->reply.size : info->request.size);
}
