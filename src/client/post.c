/* Posted writes: no reply is asked for, and small ones that follow each other become one message. */
#include "client/client.h"

#include <errno.h>
#include <sys/mman.h>

#include "transport/sender.h"

/* The most writes in a REGION_WRITE_MULTI: what any server takes whose largest message is the smallest of ours, and
 * what was negotiated for data. */
static size_t most_writes(const struct ob_client *client)
{
    size_t room =
        client->info.max_data_xfer_size < OB_MIN_TAIL_ROOM ? client->info.max_data_xfer_size : OB_MIN_TAIL_ROOM;

    return room / sizeof(struct ob_wire_write);
}

/* A posted REGION_WRITE becomes a REGION_WRITE_MULTI of one. There is room behind it. */
static void open_multi(struct ob_out *out)
{
    uint8_t *at = out->bytes + out->open;
    struct ob_header header;
    struct ob_wire_region_access access;
    struct ob_wire_write_multi multi = { 1 };
    struct ob_wire_write write = { 0 };

    memcpy(&header, at, sizeof(header));
    memcpy(&access, at + sizeof(header), sizeof(access));
    write.offset = access.offset;
    write.region = access.region;
    write.count = access.count;
    memcpy(write.data, at + sizeof(header) + sizeof(access), access.count);
    header.command = OB_REGION_WRITE_MULTI;
    header.size = sizeof(header) + sizeof(multi) + sizeof(write);
    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), &multi, sizeof(multi));
    memcpy(at + sizeof(header) + sizeof(multi), &write, sizeof(write));
    out->end = out->open + header.size;
}

/* Adds a write to the message that is open. False: it takes no more. */
static bool join(struct ob_client *client, const struct ob_wire_write *write)
{
    struct ob_out *out = &client->main.out;
    const size_t most = sizeof(struct ob_header) + sizeof(struct ob_wire_write_multi) + 2 * sizeof(*write);
    struct ob_wire_write_multi multi;
    struct ob_header header;
    uint8_t *at;

    if (out->open == OB_OUT_NONE || out->room - out->end < most ||
        ob_out_pending(out) + sizeof(*write) + most > OB_SEND_BATCH)
        return false;
    at = out->bytes + out->open;
    memcpy(&header, at, sizeof(header));
    if (header.command == OB_REGION_WRITE) {
        open_multi(out);
        memcpy(&header, at, sizeof(header));
    }
    memcpy(&multi, at + sizeof(header), sizeof(multi));
    if (multi.wr_cnt >= most_writes(client))
        return false;
    memcpy(out->bytes + out->end, write, sizeof(*write));
    out->end += sizeof(*write);
    multi.wr_cnt++;
    header.size += (uint32_t)sizeof(*write);
    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), &multi, sizeof(multi));
    return true;
}

/* One message, under the lock. */
static int post_piece(struct ob_client *client, uint32_t region, uint64_t offset, const char *buf, uint32_t len)
{
    struct ob_out *out = &client->main.out;
    struct ob_message message = { .header = { .command = OB_REGION_WRITE, .flags = OB_FLAG_NO_REPLY },
                                  .u.region_access = { offset, region, len },
                                  .tail = (const uint8_t *)buf,
                                  .tail_size = len };
    bool small = client->info.write_multi && len <= sizeof(((struct ob_wire_write *)0)->data);
    int err;

    if (small) {
        struct ob_wire_write write = { .offset = offset, .region = region, .count = len };

        memcpy(write.data, buf, len);
        if (join(client, &write))
            return 0;
    }
    err = ob_message_put(out, &message, NULL);
    if (!err && small && ob_out_pending(out) > 0)
        out->open = out->end - (OB_HEADER_SIZE + sizeof(message.u.region_access) + len);
    return err;
}

int ob_client_post(struct ob_client *client, uint32_t index, uint64_t offset, const void *buf, size_t len)
{
    enum ob_callback inside = ob_callback_now(client);
    struct ob_region *region;
    int err = ob_region_check(client, index, offset, len, &region);

    if (err)
        return err;
    if (inside == OB_IN_DMA)
        return -EDEADLK;
    pthread_mutex_lock(&client->lock);
    for (size_t done = 0; done < len && !err;) {
        size_t piece = len - done < client->info.max_data_xfer_size ? len - done : client->info.max_data_xfer_size;

        if (client->main.out.full && inside == OB_NO_CALLBACK)
            err = ob_wait_sent(client, ob_deadline(ob_client_clock(), ob_client_timeout_ns(client, 0)));
        if (!err && client->dead)
            err = -ENOTCONN;
        if (!err && ob_out_pending(&client->main.out) > OB_CLIENT_BACKLOG)
            err = -EAGAIN;
        if (!err)
            err = post_piece(client, index, offset + done, (const char *)buf + done, (uint32_t)piece);
        done += piece;
    }
    pthread_mutex_unlock(&client->lock);
    return err;
}
