/* DEVICE_FEATURE and migration data over the raw client; see migrate_client.h. */
#include "migrate_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct feature {
    uint32_t argsz, flags;
};

int mig_feature(struct ob_raw *raw, uint32_t flags, const void *data, size_t in, uint32_t argsz,
                struct ob_raw_message **reply)
{
    struct feature head = { argsz, flags };
    uint8_t *payload = malloc(sizeof(head) + in);

    if (!payload)
        return -ENOMEM;
    memcpy(payload, &head, sizeof(head));
    if (in > 0)
        memcpy(payload + sizeof(head), data, in);
    int r = ob_raw_call(raw, OB_RAW_FEATURE, payload, sizeof(head) + in, NULL, 0, reply);

    free(payload);
    return r;
}

/* SET; the reply has to repeat the request. */
static int set(struct ob_raw *raw, uint32_t index, const void *data, size_t in)
{
    struct ob_raw_message *reply;
    uint32_t argsz = (uint32_t)(sizeof(struct feature) + in);
    int r = mig_feature(raw, index | VFIO_DEVICE_FEATURE_SET, data, in, argsz, &reply);

    if (r != 0)
        return r;
    if (reply->size != argsz || (in > 0 && memcmp(reply->payload + sizeof(struct feature), data, in) != 0))
        r = -EPROTO;
    ob_raw_message_free(reply);
    return r;
}

int mig_get(struct ob_raw *raw, uint32_t index, const void *data, size_t in, void *result, size_t out)
{
    struct ob_raw_message *reply;
    struct feature head;
    uint32_t argsz = (uint32_t)(sizeof(head) + out);
    int r = mig_feature(raw, index | VFIO_DEVICE_FEATURE_GET, data, in, argsz, &reply);

    if (r != 0)
        return r;
    memcpy(&head, reply->payload, sizeof(head));
    if (reply->size != argsz || head.argsz != argsz)
        r = -EPROTO;
    else
        memcpy(result, reply->payload + sizeof(head), out);
    ob_raw_message_free(reply);
    return r;
}

int mig_set_state(struct ob_raw *raw, enum mig_state state)
{
    struct vfio_device_feature_mig_state data = { .device_state = state, .data_fd = -1 };

    return set(raw, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &data, sizeof(data));
}

int mig_get_state(struct ob_raw *raw, enum mig_state *state)
{
    struct vfio_device_feature_mig_state data;
    int r = mig_get(raw, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, NULL, 0, &data, sizeof(data));

    if (r == 0)
        *state = data.device_state;
    return r;
}

int mig_read(struct ob_raw *raw, void *data, uint32_t size, uint32_t *got)
{
    struct ob_raw_mig_data ask = { sizeof(ask) + size, size }, answer;
    struct ob_raw_message *reply;
    int r = ob_raw_call(raw, OB_RAW_MIG_READ, &ask, sizeof(ask), NULL, 0, &reply);

    if (r != 0)
        return r;
    memcpy(&answer, reply->payload, sizeof(answer));
    if (answer.size > size || reply->size != sizeof(answer) + answer.size || answer.argsz != reply->size) {
        r = -EPROTO;
    } else {
        *got = answer.size;
        memcpy(data, reply->payload + sizeof(answer), answer.size);
    }
    ob_raw_message_free(reply);
    return r;
}

int mig_write(struct ob_raw *raw, const void *data, uint32_t size)
{
    struct ob_raw_mig_data head = { sizeof(head) + size, size };
    uint8_t *payload = malloc(sizeof(head) + size);

    if (!payload)
        return -ENOMEM;
    memcpy(payload, &head, sizeof(head));
    if (size > 0)
        memcpy(payload + sizeof(head), data, size);
    int r = ob_raw_call(raw, OB_RAW_MIG_WRITE, payload, sizeof(head) + size, NULL, 0, NULL);

    free(payload);
    return r;
}

int mig_read_all(struct ob_raw *raw, uint32_t piece, uint8_t **data, size_t *size)
{
    size_t room = 0;
    uint32_t got = piece;

    *data = NULL;
    for (*size = 0; got == piece; *size += got) {
        if (room - *size < piece) {
            room = 2 * room + piece;
            uint8_t *more = realloc(*data, room);

            if (!more)
                return -ENOMEM;
            *data = more;
        }
        int r = mig_read(raw, *data + *size, piece, &got);

        if (r != 0)
            return r;
    }
    return 0;
}

int mig_write_all(struct ob_raw *raw, uint32_t piece, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size; at += piece) {
        int r = mig_write(raw, data + at, size - at < piece ? (uint32_t)(size - at) : piece);

        if (r != 0)
            return r;
    }
    return 0;
}

int mig_log_start(struct ob_raw *raw, uint64_t page_size, const struct vfio_device_feature_dma_logging_range *ranges,
                  uint32_t n)
{
    struct {
        uint64_t page_size;
        uint32_t n, reserved;
    } head = { page_size, n, 0 };
    uint8_t *data = malloc(sizeof(head) + n * sizeof(*ranges));

    if (!data)
        return -ENOMEM;
    memcpy(data, &head, sizeof(head));
    if (n > 0)
        memcpy(data + sizeof(head), ranges, n * sizeof(*ranges));
    int r = set(raw, VFIO_DEVICE_FEATURE_DMA_LOGGING_START, data, sizeof(head) + n * sizeof(*ranges));

    free(data);
    return r;
}

int mig_log_stop(struct ob_raw *raw)
{
    return set(raw, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0);
}

int mig_log_report(struct ob_raw *raw, uint64_t iova, uint64_t length, uint64_t page_size, uint64_t *bitmap)
{
    const uint64_t ask[3] = { iova, length, page_size };
    size_t bytes = (length / page_size + (length % page_size != 0) + 63) / 64 * 8;
    uint8_t *result = malloc(sizeof(ask) + bytes);

    if (!result)
        return -ENOMEM;
    int r = mig_get(raw, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, ask, sizeof(ask), result, sizeof(ask) + bytes);

    if (r == 0 && memcmp(result, ask, sizeof(ask)) != 0)
        r = -EPROTO;
    if (r == 0)
        memcpy(bitmap, result + sizeof(ask), bytes);
    free(result);
    return r;
}
