/* Arbitrary bytes through the whole decoder. The first byte is the number of descriptors, the second the direction;
 * what follows is a stream, framed as a receiver would. Each message is checked as a request, what passes has to keep
 * the promises of message.h and survive printing and encoding, and the next message is checked as the reply to it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"
#include "protocol/version.h"

static const struct ob_limits limits = { 65536, 16 };

static void promise(int kept)
{
    if (!kept)
        abort();
}

static void promises(const struct ob_message *m, enum ob_tail tail)
{
    const union ob_payload *u = &m->u;

    promise((m->tail == NULL) == (m->tail_size == 0));
    switch ((enum ob_command)m->header.command) {
    case OB_REGION_READ:
    case OB_REGION_WRITE:
        promise(u->region_access.count <= limits.max_data_xfer_size);
        promise(u->region_access.offset + u->region_access.count >= u->region_access.offset);
        promise(m->tail_size == (tail == OB_TAIL_DATA ? u->region_access.count : 0));
        break;
    case OB_DMA_READ:
    case OB_DMA_WRITE:
        promise(u->dma_access.count <= limits.max_data_xfer_size);
        promise(u->dma_access.address + u->dma_access.count >= u->dma_access.address);
        promise(m->tail_size == (tail == OB_TAIL_DATA ? u->dma_access.count : 0));
        break;
    case OB_REGION_WRITE_MULTI:
        for (size_t i = 0; tail == OB_TAIL_WRITES && i < u->write_multi.wr_cnt; i++)
            promise(ob_message_write(m, i).count <= 8);
        break;
    case OB_DEVICE_GET_REGION_IO_FDS:
        for (size_t i = 0; tail == OB_TAIL_IO_FDS && m->tail_size > 0 && i < u->io_fds.count; i++)
            promise(ob_message_io_fd(m, i).fd_index < m->nfds);
        break;
    default:
        break;
    }
}

static void version(const struct ob_message *m)
{
    char why[64], text[OB_VERSION_MAX_TEXT];
    struct ob_capabilities caps, again;
    ssize_t size;

    if (ob_version_parse(&caps, m->tail, m->tail_size, why, sizeof(why)) != 0)
        return;
    size = ob_version_encode(text, sizeof(text), &caps);
    promise(size > 0);
    promise(ob_version_parse(&again, text, (size_t)size, why, sizeof(why)) == 0);
    promise(again.max_data_xfer_size == caps.max_data_xfer_size && again.pgsizes == caps.pgsizes);
}

/* What passed a check: `bytes` is what it was decoded from. */
static void passed(const struct ob_message *m, const uint8_t *bytes, int is_reply, enum ob_direction from)
{
    const struct ob_command_info *info = &ob_commands[m->header.command];
    const struct ob_part *part = is_reply ? &info->reply : &info->request;
    uint8_t *out = malloc(m->header.size);
    char line[512];

    promise(out != NULL);
    promise(ob_print_message(line, sizeof(line), m, from) > 0);
    if (!(m->header.flags & OB_FLAG_ERROR))
        promises(m, part->tail);
    if (!is_reply) {
        ssize_t size = ob_encode_request(out, m->header.size, m);
        promise(size > 0);
        /* The header's error is reserved in a request, its size counts what was tolerated behind it. */
        promise(memcmp(out + OB_HEADER_SIZE, bytes + OB_HEADER_SIZE, (size_t)size - OB_HEADER_SIZE) == 0);
        promise((size_t)size == m->header.size || info->excess);
    }
    if (m->header.command == OB_VERSION)
        version(m);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t left);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t left)
{
    struct ob_message request, reply;
    uint8_t *before = NULL; /* the bytes of the last request that passed */
    enum ob_direction from;
    struct ob_header h;
    unsigned nfds;

    if (left < 2)
        return 0;
    nfds = data[0] % 20;
    from = data[1] & 1 ? OB_FROM_SERVER : OB_FROM_CLIENT;
    data += 2;
    left -= 2;
    for (int size; (size = ob_frame(data, left, ob_max_message(&limits), &h)) > 0 && (size_t)size <= left;
         data += size, left -= (size_t)size) {
        uint8_t *bytes = malloc((size_t)size);
        struct ob_message m;
        promise(bytes != NULL);
        memcpy(bytes, data, (size_t)size);
        if (before && ob_check_reply(&reply, bytes, (size_t)size, &request, &limits, nfds) == 0)
            passed(&reply, bytes, 1, from == OB_FROM_CLIENT ? OB_FROM_SERVER : OB_FROM_CLIENT);
        if (ob_check_request(&m, bytes, (size_t)size, from, &limits, nfds) == 0) {
            passed(&m, bytes, 0, from);
            free(before);
            before = bytes;
            request = m;
        } else {
            free(bytes);
        }
    }
    free(before);
    return 0;
}
