/* messages.c: what checks send and receive, and what most of them do. */
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../transcript.h"
#include "judge.h"

int judge_version(struct judge *j, uint16_t major, uint16_t minor, const char *json, struct ob_raw_message **reply)
{
    size_t text = json == NULL ? 0 : strlen(json) + 1;
    uint8_t *payload = judge_alloc(j, 4 + text);

    memcpy(payload, &major, 2);
    memcpy(payload + 2, &minor, 2);
    if (text > 0)
        memcpy(payload + 4, json, text);
    return call(j, OB_RAW_VERSION, payload, 4 + text, NULL, 0, reply);
}

const json_t *judge_json(struct judge *j, const struct ob_raw_message *reply)
{
    const size_t numbers = sizeof(struct ob_raw_version);
    size_t size = reply->size > numbers ? strnlen((char *)reply->payload + numbers, reply->size - numbers) : 0;
    json_t *json = size > 0 ? json_loadb((char *)reply->payload + numbers, size, 0, NULL) : NULL;

    if (json != NULL)
        judge_held(j, HELD_JSON)->memory = json;
    return json;
}

/* --- Messages ---------------------------------------------------------------------------------------------------- */

int call(struct judge *j, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds,
         struct ob_raw_message **reply)
{
    struct ob_raw_message *m = NULL;
    int r = ob_raw_call(&j->raw, command, payload, size, fds, nfds, &m);

    if (r == 0) {
        judge_keep(j, m);
        if (reply != NULL)
            *reply = m;
        j->target->session |= command == OB_RAW_VERSION;
    }
    return r == -ENOTCONN ? r : got(j, r, command_name(command));
}

void call_refused(struct judge *j, uint16_t command, const void *payload, size_t size, int error)
{
    int r = call(j, command, payload, size, NULL, 0, NULL);
    char what[64];

    snprintf(what, sizeof(what), "%s with %zu bytes", command_name(command), size);
    if (error == 0)
        want_refused(j, r, what);
    else
        want_error(j, r, error, what);
}

uint16_t send_command(struct judge *j, uint16_t command, uint32_t flags, const void *payload, size_t size)
{
    uint16_t id = 0;

    got(j, ob_raw_request(&j->raw, command, flags, payload, size, NULL, 0, &id), command_name(command));
    return id;
}

void post(struct judge *j, uint16_t command, const void *payload, size_t size, const int *fds, unsigned nfds)
{
    got(j, ob_raw_request(&j->raw, command, OB_RAW_NO_REPLY, payload, size, fds, nfds, NULL), command_name(command));
}

void send_bytes(struct judge *j, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    got(j, ob_raw_send(&j->raw, bytes, size, fds, nfds), "sending");
}

void send_with_header(struct judge *j, struct ob_raw_header header, const void *payload, size_t size)
{
    uint8_t *bytes = judge_alloc(j, sizeof(header) + size);

    memcpy(bytes, &header, sizeof(header));
    if (size > 0)
        memcpy(bytes + sizeof(header), payload, size);
    send_bytes(j, bytes, sizeof(header) + size, NULL, 0);
}

void wait_taken(struct judge *j)
{
    int unread = 0;

    /* Nothing tells when a peer reads. */
    for (int waited = 0; waited < 250 && ioctl(j->raw.fd, TIOCOUTQ, &unread) == 0 && unread > 0; waited++)
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

struct ob_raw_message *receive_on(struct judge *j, struct ob_raw *raw, const char *what)
{
    struct ob_raw_message *m;

    got(j, ob_raw_receive(raw, &m), what);
    return judge_keep(j, m);
}

struct ob_raw_message *receive(struct judge *j, const char *what)
{
    return receive_on(j, &j->raw, what);
}

static void read_field(struct judge *j, const struct ob_raw_message *m, size_t offset, void *to, size_t width)
{
    want(j, offset + width <= m->size, "the reply to %s has %u bytes of payload, and should have a field at %zu",
         command_name(m->header.command), m->size, offset);
    memcpy(to, m->payload + offset, width);
}

uint16_t field16(struct judge *j, const struct ob_raw_message *m, size_t offset)
{
    uint16_t value;

    read_field(j, m, offset, &value, sizeof(value));
    return value;
}

uint32_t field32(struct judge *j, const struct ob_raw_message *m, size_t offset)
{
    uint32_t value;

    read_field(j, m, offset, &value, sizeof(value));
    return value;
}

uint64_t field64(struct judge *j, const struct ob_raw_message *m, size_t offset)
{
    uint64_t value;

    read_field(j, m, offset, &value, sizeof(value));
    return value;
}

/* --- Eventfds ---------------------------------------------------------------------------------------------------- */

uint64_t signals(struct judge *j, int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static bool ready(int fd, int timeout_ms)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, timeout_ms) == 1;
}

uint64_t want_signal(struct judge *j, int fd, const char *what)
{
    want(j, ready(fd, j->timeout_ms), "%s: the eventfd was not signalled for %d ms", what, j->timeout_ms);
    return signals(j, fd);
}

void want_hangup(struct judge *j, int fd, const char *what)
{
    char byte;

    want(j, ready(fd, j->timeout_ms), "%s: the descriptor is still open after %d ms", what, j->timeout_ms);
    want(j, recv(fd, &byte, 1, MSG_DONTWAIT) == 0, "%s: the descriptor was written to", what);
}

/* --- What checks do often ---------------------------------------------------------------------------------------- */

uint32_t config_read(struct judge *j, uint32_t offset, uint32_t width)
{
    struct ob_raw_region request = { .offset = offset, .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = width };
    struct ob_raw_message *reply;
    uint32_t value = 0;

    want_ok(j, call(j, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, &reply), "reading configuration space");
    read_field(j, reply, sizeof(request), &value, width);
    return value;
}

void config_write(struct judge *j, uint32_t offset, uint32_t width, uint32_t value)
{
    struct {
        struct ob_raw_region access;
        uint32_t value;
    } request = { { .offset = offset, .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = width }, value };

    want_ok(j, call(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + width, NULL, 0, NULL),
            "writing configuration space");
}

uint32_t config_capability(struct judge *j, uint8_t id)
{
    uint32_t at;

    if (!(config_read(j, 0x06, 2) & 0x10))
        return 0;
    at = config_read(j, 0x34, 1) & ~3u;
    for (unsigned i = 0; i < 48 && at >= 0x40; i++) {
        if (config_read(j, at, 1) == id)
            return at;
        at = config_read(j, at + 1, 1) & ~3u;
    }
    return 0;
}

void reset(struct judge *j)
{
    if (j->facts.has & NEED_RESET)
        want_ok(j, call(j, OB_RAW_RESET, NULL, 0, NULL, 0, NULL), "DEVICE_RESET");
}

int map(struct judge *j, uint64_t address, uint64_t size, uint32_t prot, int fd, uint64_t offset)
{
    struct ob_raw_dma_map request = {
        .argsz = sizeof(request), .flags = prot, .offset = offset, .address = address, .size = size
    };

    return call(j, OB_RAW_DMA_MAP, &request, sizeof(request), &fd, fd >= 0, NULL);
}

int unmap(struct judge *j, uint64_t address, uint64_t size)
{
    struct ob_raw_dma_unmap request = { .argsz = sizeof(request), .address = address, .size = size };

    return call(j, OB_RAW_DMA_UNMAP, &request, sizeof(request), NULL, 0, NULL);
}
