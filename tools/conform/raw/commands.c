/* commands.c: one function for each command that a client can send, with the checks that every reply must stand. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char ob_raw_qemu_capabilities[] =
    "{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\"max_data_xfer_size\":1048576,"
    "\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\"write_multiple\":true}}";

static int wrong(struct ob_raw *raw, const char *what, const struct ob_raw_message *reply)
{
    snprintf(raw->why, sizeof(raw->why), "%s: a reply of %u bytes with %u descriptors, or with wrong content", what,
             reply->header.size, reply->nfds);
    fprintf(stderr, "client: %s\n", raw->why);
    return -EPROTO;
}

/* A reply without payload and without descriptors. */
static int call_plain(struct ob_raw *raw, uint16_t command, const char *what, const void *payload, size_t size,
                      const int *fds, unsigned nfds)
{
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, command, payload, size, fds, nfds, &reply);

    if (r == 0) {
        r = reply->size == 0 && reply->nfds == 0 ? 0 : wrong(raw, what, reply);
        ob_raw_message_free(reply);
    }
    return r;
}

int ob_raw_version(struct ob_raw *raw, uint16_t major, uint16_t minor, const char *json, struct ob_raw_message **reply)
{
    struct ob_raw_version version = { .major = major, .minor = minor };
    size_t text = json == NULL ? 0 : strlen(json) + 1;
    uint8_t *payload = malloc(sizeof(version) + text);
    int r;

    if (payload == NULL) {
        return -ENOMEM;
    }
    memcpy(payload, &version, sizeof(version));
    if (json != NULL) {
        memcpy(payload + sizeof(version), json, text);
    }
    r = ob_raw_call(raw, OB_RAW_VERSION, payload, sizeof(version) + text, NULL, 0, reply);
    free(payload);
    return r;
}

int ob_raw_handshake(struct ob_raw *raw)
{
    return ob_raw_version(raw, 0, 0, ob_raw_qemu_capabilities, NULL);
}

int ob_raw_twin_index(const struct ob_raw_message *reply)
{
    const char *text = reply->size > 4 ? (const char *)reply->payload + 4 : "";
    const char *twin = strstr(text, "\"twin_socket\""), *end = twin == NULL ? NULL : strchr(twin, '}'), *at;
    unsigned long index = 0;
    char *after;

    at = end == NULL ? NULL : strstr(twin, "\"supported\"");
    if (at == NULL || at > end || strncmp(at + 11 + strspn(at + 11, " \t\r\n:"), "true", 4) != 0) {
        return -ENOENT;
    }
    at = strstr(twin, "\"fd_index\"");
    if (at == NULL || at > end) {
        return -EPROTO;
    }
    at += 10 + strspn(at + 10, " \t\r\n:");
    index = strtoul(at, &after, 10);
    return after == at || *at == '-' || index >= reply->nfds ? -EPROTO : (int)index;
}

int ob_raw_take_twin(struct ob_raw_message *reply, struct ob_raw *twin)
{
    int index = ob_raw_twin_index(reply);

    if (index < 0) {
        return index;
    }
    ob_raw_init(twin, reply->fds[index]);
    reply->fds[index] = -1;
    return 0;
}

int ob_raw_device_info(struct ob_raw *raw, struct vfio_device_info *info)
{
    /* 16 bytes, whatever the kernel's struct has grown to. */
    const uint32_t request[4] = { 16, 0, 0, 0 };
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, OB_RAW_GET_INFO, request, sizeof(request), NULL, 0, &reply);

    if (r != 0) {
        return r;
    }
    memset(info, 0, sizeof(*info));
    if (reply->size == 16 && reply->nfds == 0) {
        memcpy(info, reply->payload, 16);
    } else {
        r = wrong(raw, "GET_INFO", reply);
    }
    ob_raw_message_free(reply);
    return r;
}

int ob_raw_region_info(struct ob_raw *raw, uint32_t index, uint32_t argsz, void *info, size_t room, int *fd)
{
    struct vfio_region_info request = { .argsz = argsz, .index = index };
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, OB_RAW_GET_REGION_INFO, &request, sizeof(request), NULL, 0, &reply);

    if (fd != NULL) {
        *fd = -1;
    }
    if (r != 0) {
        return r;
    }
    if (reply->size < sizeof(request) || reply->size > room || reply->nfds > 1) {
        r = wrong(raw, "GET_REGION_INFO", reply);
    } else {
        memcpy(info, reply->payload, reply->size);
        if (fd != NULL && reply->nfds == 1) {
            *fd = reply->fds[0];
            reply->fds[0] = -1;
        }
    }
    ob_raw_message_free(reply);
    return r;
}

int ob_raw_irq_info(struct ob_raw *raw, uint32_t index, struct vfio_irq_info *info)
{
    struct vfio_irq_info request = { .argsz = sizeof(request), .index = index };
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, OB_RAW_GET_IRQ_INFO, &request, sizeof(request), NULL, 0, &reply);

    if (r != 0) {
        return r;
    }
    if (reply->size == sizeof(*info) && reply->nfds == 0) {
        memcpy(info, reply->payload, sizeof(*info));
    } else {
        r = wrong(raw, "GET_IRQ_INFO", reply);
    }
    ob_raw_message_free(reply);
    return r;
}

int ob_raw_set_irqs(struct ob_raw *raw, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
                    const uint8_t *bools, const int *fds, unsigned nfds)
{
    struct vfio_irq_set set = { .flags = flags, .index = index, .start = start, .count = count };
    size_t size = sizeof(set) + (bools == NULL ? 0 : count);
    uint8_t *payload = malloc(size);
    int r;

    if (payload == NULL) {
        return -ENOMEM;
    }
    set.argsz = (uint32_t)size;
    memcpy(payload, &set, sizeof(set));
    if (bools != NULL) {
        memcpy(payload + sizeof(set), bools, count);
    }
    r = call_plain(raw, OB_RAW_SET_IRQS, "SET_IRQS", payload, size, fds, nfds);
    free(payload);
    return r;
}

int ob_raw_read(struct ob_raw *raw, uint32_t region, uint64_t offset, void *data, uint32_t count)
{
    struct ob_raw_region request = { .offset = offset, .region = region, .count = count };
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, &reply);

    if (r != 0) {
        return r;
    }
    if (reply->nfds == 0 && reply->size == sizeof(request) + count &&
        memcmp(reply->payload, &request, sizeof(request)) == 0) {
        memcpy(data, reply->payload + sizeof(request), count);
    } else {
        r = wrong(raw, "REGION_READ", reply);
    }
    ob_raw_message_free(reply);
    return r;
}

static int send_write(struct ob_raw *raw, uint32_t region, uint64_t offset, const void *data, uint32_t count,
                      uint32_t flags, uint16_t *id)
{
    struct ob_raw_region request = { .offset = offset, .region = region, .count = count };
    uint8_t *payload = malloc(sizeof(request) + count);
    int r;

    if (payload == NULL) {
        return -ENOMEM;
    }
    memcpy(payload, &request, sizeof(request));
    if (count > 0) {
        memcpy(payload + sizeof(request), data, count);
    }
    r = ob_raw_request(raw, OB_RAW_REGION_WRITE, flags, payload, sizeof(request) + count, NULL, 0, id);
    free(payload);
    return r;
}

int ob_raw_write(struct ob_raw *raw, uint32_t region, uint64_t offset, const void *data, uint32_t count)
{
    struct ob_raw_region request = { .offset = offset, .region = region, .count = count };
    struct ob_raw_message *reply;
    uint16_t id;
    int r = send_write(raw, region, offset, data, count, 0, &id);

    if (r == 0) {
        r = ob_raw_reply(raw, id, OB_RAW_REGION_WRITE, &reply);
    }
    if (r != 0) {
        return r;
    }
    if (reply->nfds != 0 || reply->size != sizeof(request) || memcmp(reply->payload, &request, sizeof(request)) != 0) {
        r = wrong(raw, "REGION_WRITE", reply);
    }
    ob_raw_message_free(reply);
    return r;
}

int ob_raw_post(struct ob_raw *raw, uint32_t region, uint64_t offset, const void *data, uint32_t count)
{
    return send_write(raw, region, offset, data, count, OB_RAW_NO_REPLY, NULL);
}

int ob_raw_write_multi(struct ob_raw *raw, const struct ob_raw_one_write *writes, uint64_t count, uint64_t *done)
{
    size_t size = sizeof(count) + count * sizeof(*writes);
    uint8_t *payload = malloc(size);
    struct ob_raw_message *reply;
    int r;

    if (payload == NULL) {
        return -ENOMEM;
    }
    memcpy(payload, &count, sizeof(count));
    if (count > 0) {
        memcpy(payload + sizeof(count), writes, count * sizeof(*writes));
    }
    r = ob_raw_call(raw, OB_RAW_WRITE_MULTI, payload, size, NULL, 0, &reply);
    free(payload);
    if (r != 0) {
        return r;
    }
    if (reply->size == sizeof(*done) && reply->nfds == 0) {
        memcpy(done, reply->payload, sizeof(*done));
    } else {
        r = wrong(raw, "WRITE_MULTI", reply);
    }
    ob_raw_message_free(reply);
    return r;
}

int ob_raw_map(struct ob_raw *raw, uint64_t address, uint64_t size, uint32_t prot, int fd, uint64_t offset)
{
    struct ob_raw_dma_map map = {
        .argsz = sizeof(map), .flags = prot, .offset = offset, .address = address, .size = size
    };

    return call_plain(raw, OB_RAW_DMA_MAP, "DMA_MAP", &map, sizeof(map), &fd, fd >= 0);
}

int ob_raw_unmap(struct ob_raw *raw, uint64_t address, uint64_t size)
{
    struct ob_raw_dma_unmap unmap = { .argsz = sizeof(unmap), .address = address, .size = size };
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap), NULL, 0, &reply);

    if (r != 0) {
        return r;
    }
    if (reply->nfds != 0 || reply->size != sizeof(unmap) || memcmp(reply->payload, &unmap, sizeof(unmap)) != 0) {
        r = wrong(raw, "DMA_UNMAP", reply);
    }
    ob_raw_message_free(reply);
    return r;
}

int ob_raw_reset(struct ob_raw *raw)
{
    return call_plain(raw, OB_RAW_RESET, "RESET", NULL, 0, NULL, 0);
}
