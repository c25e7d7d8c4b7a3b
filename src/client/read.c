/* Reading: finds messages in what came, gives replies to their calls, and commands to those who serve them. For the
 * leader alone; the bytes are its own, all else is under the lock. */
#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int ob_channel_init(struct ob_channel *channel, int fd, size_t room)
{
    ob_out_init(&channel->out, fd);
    ob_receiver_init(&channel->receiver);
    channel->start = channel->end = 0;
    channel->room = room;
    channel->bytes = malloc(room);
    return channel->bytes ? 0 : -ENOMEM;
}

void ob_channel_fini(struct ob_channel *channel)
{
    ob_out_fini(&channel->out);
    ob_receiver_close(&channel->receiver);
    free(channel->bytes);
    channel->bytes = NULL;
}

static void close_fds(const int *fds, unsigned nfds)
{
    for (unsigned i = 0; i < nfds; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

static bool is_reply(const struct ob_header *header)
{
    /* Old servers leave the type out of refusals; no command has the error bit. */
    return (header->flags & OB_FLAG_TYPE_MASK) == OB_FLAG_REPLY || (header->flags & OB_FLAG_ERROR);
}

static bool may_carry(const struct ob_header *header)
{
    if (!is_reply(header) || header->command >= OB_COMMAND_END)
        return false;
    return ob_commands[header->command].reply.max_fds > 0;
}

/* A late reply: nobody's memory is touched, but a map that was made or ended after all is. */
static void take_late(struct ob_client *client, struct ob_slot *slot, const struct ob_message *reply, int *fds)
{
    int err = ob_reply_error(reply);

    if (slot->always)
        slot->take(client, slot, err, err ? NULL : reply, fds);
    ob_slot_over(client, slot, 0);
}

static void take_reply(struct ob_client *client, const struct ob_header *header, const uint8_t *bytes, int *fds,
                       unsigned nfds)
{
    struct ob_slot *slot = &client->slots[header->id % OB_CLIENT_SLOTS];
    const char *name = ob_command_name(header->command);
    struct ob_message reply;
    ssize_t result;
    int err;

    if (!slot->busy || slot->request.header.id != header->id) {
        ob_client_die(client, -EPROTO, "the server sent a reply (%s, id %u) to no request", name ? name : "unknown",
                      header->id);
        return;
    }
    if (ob_check_reply(&reply, bytes, header->size, &slot->request, &client->limits, nfds) < 0) {
        name = ob_command_name(slot->request.header.command);
        ob_client_die(client, -EPROTO, "the server's reply to %s is malformed: %u bytes, flags 0x%x, %u descriptors",
                      name, header->size, header->flags, nfds);
        return;
    }
    if (!slot->call) {
        take_late(client, slot, &reply, fds);
        return;
    }
    err = ob_reply_error(&reply);
    result = slot->take(client, slot, err, err ? NULL : &reply, fds);
    if (!err && result == -EPROTO)
        ob_client_die(client, -EPROTO, "the server's reply to %s is not for what was asked",
                      ob_command_name(slot->request.header.command));
    else
        ob_slot_over(client, slot, result);
}

static void take_message(struct ob_client *client, struct ob_channel *channel, const struct ob_header *header,
                         const uint8_t *bytes, int *fds, unsigned nfds)
{
    bool reply = is_reply(header);

    if (!reply && (header->flags & OB_FLAG_TYPE_MASK) != 0)
        ob_client_die(client, -EPROTO, "the server sent a message of type %u", header->flags & OB_FLAG_TYPE_MASK);
    else if (reply && channel == &client->twin)
        ob_client_die(client, -EPROTO, "the server sent a reply on the twin socket");
    else if (reply)
        take_reply(client, header, bytes, fds, nfds);
    else if (channel == &client->main && client->twin.out.fd >= 0)
        ob_client_die(client, -EPROTO, "the server sent a command on the main socket though there is a twin socket");
    else if (!client->negotiated)
        ob_client_die(client, -EPROTO, "the server sent a command before it had answered VERSION");
    else
        ob_dma_serve(client, channel, bytes, header->size);
    close_fds(fds, nfds);
}

/* Deals with the messages that are complete. */
static void take_messages(struct ob_client *client, struct ob_channel *channel)
{
    struct ob_receiver *receiver = &channel->receiver;
    size_t max = ob_max_message(&client->limits);
    struct ob_header header;
    int fds[OB_RECEIVER_MAX_FDS];
    int size;

    for (;;) {
        /* All headers that are here, before any message is dealt with. */
        while (receiver->noted < receiver->position) {
            size_t ahead = (size_t)(receiver->position - receiver->noted);

            size = ob_frame(channel->bytes + channel->end - ahead, ahead, max, &header);
            if (size < 0) {
                ob_client_die(client, -EPROTO, "the server sent a message of an impossible size: at most %zu bytes",
                              max);
                return;
            }
            if (size == 0)
                break;
            ob_receiver_note(receiver, header.size, may_carry(&header));
        }
        size = ob_frame(channel->bytes + channel->start, channel->end - channel->start, max, &header);
        if (size <= 0 || (size_t)size > channel->end - channel->start)
            return;
        int nfds = 0;
        if (receiver->queued > 0 && may_carry(&header)) {
            uint64_t at = receiver->position - (channel->end - channel->start);

            nfds = ob_receiver_claim(receiver, at, fds, OB_RECEIVER_MAX_FDS);
            if (nfds == -EAGAIN)
                return;
            if (nfds < 0) {
                ob_client_die(client, -EPROTO, "the server sent more than %d descriptors with a message",
                              OB_RECEIVER_MAX_FDS);
                return;
            }
        }
        const uint8_t *bytes = channel->bytes + channel->start;
        channel->start += (size_t)size;
        take_message(client, channel, &header, bytes, fds, (unsigned)nfds);
        if (client->dead)
            return;
    }
}

/* Makes room and reads once, without the lock. */
static ssize_t receive(struct ob_client *client, struct ob_channel *channel, bool wait)
{
    ssize_t got;

    if (channel->start > 0) {
        channel->end -= channel->start;
        memmove(channel->bytes, channel->bytes + channel->start, channel->end);
        channel->start = 0;
    }
    pthread_mutex_unlock(&client->lock);
    got = (wait ? ob_receive_wait : ob_receive)(&channel->receiver, channel->out.fd, channel->bytes + channel->end,
                                                channel->room - channel->end);
    pthread_mutex_lock(&client->lock);
    return got;
}

static void take(struct ob_client *client, struct ob_channel *channel, ssize_t got)
{
    if (client->dead || got == -EAGAIN || got == -EINTR)
        return;
    if (got > 0) {
        channel->end += (size_t)got;
        take_messages(client, channel);
    } else if (got == 0) {
        /* What is left in the queue of descriptors is known now, and nothing that could own them will come. */
        ob_client_die(client, -ENOTCONN, "the server closed the connection");
    } else if (got == -E2BIG || got == -ENOBUFS) {
        ob_client_die(client, -EPROTO, "the server sent descriptors that belong to nothing");
    } else {
        ob_client_die(client, got == -EMFILE ? -EMFILE : -ENOTCONN, "cannot read from the server: %s%s",
                      strerror((int)-got), got == -EMFILE ? ": raise the limit on open files" : "");
    }
}

bool ob_channel_read(struct ob_client *client, struct ob_channel *channel, bool wait)
{
    ssize_t got = receive(client, channel, wait), twin;

    /* A reply may say that the device writes memory no more: what the server sent on the twin socket before it comes
     * first. Its end, or a fault of it, is dealt with in its own turn. */
    bool along = got > 0 && channel == &client->main && client->twin.out.fd >= 0 && client->nmaps > 0;
    if (along && (twin = receive(client, &client->twin, false)) > 0)
        take(client, &client->twin, twin);
    take(client, channel, got);
    return along;
}
