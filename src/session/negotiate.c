/* VERSION: what both sides can do. */
#include <errno.h>
#include <stdio.h>

#include "session/session.h"

/* What we offer. The list must be a subset of the client's: numbers say what we take and always hold, the rest is only
 * there if the client can do it too. */
static struct ob_capabilities offer(const struct ob_capabilities *peer)
{
    struct ob_capabilities ours = ob_capabilities_default;

    ours.max_msg_fds = OB_RECEIVER_MAX_FDS;
    ours.max_data_xfer_size = OB_SESSION_MAX_DATA;
    ours.max_dma_maps = OB_SESSION_MAX_DMA_MAPS;
    ours.write_multiple = peer->write_multiple;
    ours.twin_socket.supported = false;
    return ours;
}

int ob_session_negotiate(struct ob_session *s)
{
    struct ob_journal_header *h = s->journal.header;
    const struct ob_wire_version *asked = &s->request.u.version;

    if (ob_session_negotiated(s))
        return -EALREADY;
    if (asked->major != OB_VERSION_MAJOR) {
        /* The specification: close the connection if the version cannot be supported. The errno says why first. */
        snprintf(s->why, sizeof(s->why), "the client wants version %u.%u, this is %d.%d", asked->major, asked->minor,
                 OB_VERSION_MAJOR, OB_VERSION_MINOR);
        s->closing = true;
        return -EPROTONOSUPPORT;
    }
    struct ob_capabilities peer;
    int err = ob_version_parse(&peer, s->request.tail, s->request.tail_size, s->why, sizeof(s->why));
    if (err) {
        s->closing = true;
        return err;
    }
    struct ob_capabilities ours = offer(&peer);
    char text[OB_VERSION_MAX_TEXT];
    ssize_t size = ob_version_encode(text, sizeof(text), &ours);
    if (size < 0)
        return size;
    struct ob_message reply = {
        .u.version = { OB_VERSION_MAJOR, OB_VERSION_MINOR },
        .tail = (const uint8_t *)text,
        .tail_size = size,
    };
    ob_session_reply(s, &reply, -1);
    h->peer = peer;
    ob_journal_store(&h->negotiated, s->position.executed + s->request.header.size); /* true with the commit */
    s->ops->opened(s->back);
    return 0;
}
