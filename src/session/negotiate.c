/* VERSION: what both sides can do. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "session/session.h"

/* What we offer. The list must be a subset of the client's: of maps and page sizes what both can do, and the rest only
 * if the client has it too. How much of data and descriptors we take is ours alone to say. */
static struct ob_capabilities offer(const struct ob_capabilities *peer)
{
    struct ob_capabilities ours = ob_capabilities_default;

    ours.max_msg_fds = OB_RECEIVER_MAX_FDS;
    ours.max_data_xfer_size = OB_SESSION_MAX_DATA;
    ours.max_dma_maps = ob_session_max_maps(peer);
    ours.pgsizes = ob_session_pages(peer);
    ours.write_multiple = peer->write_multiple;
    /* The one descriptor of the reply, if the client takes any. */
    ours.twin_socket.supported = peer->twin_socket.supported && peer->max_msg_fds > 0;
    ours.twin_socket.fd_index = 0;
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
    if (ob_session_pages(&peer) == 0) {
        snprintf(s->why, sizeof(s->why),
                 "the client maps memory in pages of 0x%" PRIx64 " only (pgsizes): sizes from 4096 bytes are needed",
                 peer.pgsizes);
        s->closing = true;
        return -EINVAL;
    }
    struct ob_capabilities ours = offer(&peer);
    err = ours.twin_socket.supported ? ob_twin_open(s) : 0;
    if (err) {
        snprintf(s->why, sizeof(s->why), "no twin socket for the client: %s", strerror(-err));
        s->closing = true;
        return err;
    }
    char text[OB_VERSION_MAX_TEXT];
    ssize_t size = ob_version_encode(text, sizeof(text), &ours);
    if (size < 0) {
        ob_twin_close(s);
        return (int)size;
    }
    struct ob_message reply = {
        .u.version = { OB_VERSION_MAJOR, OB_VERSION_MINOR },
        .tail = (const uint8_t *)text,
        .tail_size = (size_t)size,
        .nfds = ours.twin_socket.supported,
    };
    ob_session_reply(s, &reply, OB_TWIN_REPLY);
    h->peer = peer;
    ob_journal_store(&h->negotiated, s->position.executed + s->request.header.size); /* true with the commit */
    s->ops->opened(s->back);
    return 0;
}
