/* judge.c: one check after the other: its connection, what it wants, what it holds. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../transcript.h"

const char judge_capabilities[] =
    "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"max_dma_maps\":65535,\"pgsizes\":4096,"
    "\"write_multiple\":true}}";

/* --- What is released -------------------------------------------------------------------------------------------- */

struct held {
    struct held *next;
    enum { HELD_FD, HELD_MEMORY, HELD_MAPPING, HELD_MESSAGE, HELD_JSON, HELD_CONNECTION } kind;
    int fd;
    void *memory;
    size_t size;
};

static struct held *hold(struct judge *j, int kind)
{
    struct held *h = calloc(1, sizeof(*h));

    if (h == NULL)
        judge_fail(j, "out of memory");
    h->kind = kind;
    h->fd = -1;
    h->next = j->held;
    j->held = h;
    return h;
}

static void release(struct held *h)
{
    switch (h->kind) {
    case HELD_FD:
        if (h->fd >= 0)
            close(h->fd);
        break;
    case HELD_MEMORY:
        free(h->memory);
        break;
    case HELD_MAPPING:
        munmap(h->memory, h->size);
        break;
    case HELD_MESSAGE:
        ob_raw_message_free(h->memory);
        break;
    case HELD_JSON:
        json_decref(h->memory);
        break;
    case HELD_CONNECTION:
        ob_raw_close(h->memory);
        break;
    }
}

static void release_all(struct judge *j)
{
    while (j->held != NULL) {
        struct held *next = j->held->next;

        release(j->held);
        free(j->held);
        j->held = next;
    }
}

int judge_hold(struct judge *j, int fd, const char *what)
{
    if (fd < 0)
        judge_fail(j, "the judge has no %s: %s", what, strerror(errno));
    hold(j, HELD_FD)->fd = fd;
    return fd;
}

int judge_memfd(struct judge *j, uint64_t size)
{
    int fd = judge_hold(j, memfd_create("conform", MFD_CLOEXEC), "memfd");

    if (ftruncate(fd, (off_t)size) != 0)
        judge_fail(j, "the judge has no memory: %s", strerror(errno));
    return fd;
}

int judge_eventfd(struct judge *j)
{
    return judge_hold(j, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
}

int judge_open_file(struct judge *j, const char *path, int flags)
{
    return judge_hold(j, open(path, flags | O_CLOEXEC), path);
}

void judge_pair(struct judge *j, int *mine, int *theirs)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        judge_fail(j, "the judge has no sockets: %s", strerror(errno));
    *mine = judge_hold(j, pair[0], "socket");
    *theirs = judge_hold(j, pair[1], "socket");
}

void judge_give(struct judge *j, int fd)
{
    for (struct held *h = j->held; h != NULL; h = h->next) {
        if (h->kind == HELD_FD && h->fd == fd) {
            close(fd);
            h->fd = -1;
            return;
        }
    }
}

void *judge_mmap(struct judge *j, int fd, uint64_t size, uint64_t offset, int prot)
{
    void *at = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)offset);
    struct held *h;

    want(j, at != MAP_FAILED, "mapping %#llx bytes at %#llx of the descriptor failed: %s", (unsigned long long)size,
         (unsigned long long)offset, strerror(errno));
    h = hold(j, HELD_MAPPING);
    h->memory = at;
    h->size = size;
    return at;
}

void *judge_alloc(struct judge *j, size_t size)
{
    struct held *h = hold(j, HELD_MEMORY);

    h->memory = calloc(1, size > 0 ? size : 1);
    if (h->memory == NULL)
        judge_fail(j, "out of memory");
    return h->memory;
}

struct ob_raw_message *judge_keep(struct judge *j, struct ob_raw_message *m)
{
    hold(j, HELD_MESSAGE)->memory = m;
    return m;
}

/* --- Ends -------------------------------------------------------------------------------------------------------- */

void judge_fail(struct judge *j, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(j->text, sizeof(j->text), format, args);
    va_end(args);
    for (char *c = j->text; *c != '\0'; c++) /* a peer's bytes may be quoted */
        *c = *c < ' ' || *c > '~' ? '?' : *c;
    j->verdict = FAILED;
    longjmp(j->out, 1);
}

void judge_skip(struct judge *j, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(j->text, sizeof(j->text), format, args);
    va_end(args);
    j->verdict = SKIPPED;
    longjmp(j->out, 1);
}

void judge_may_close(struct judge *j)
{
    j->may_close = true;
}

/* --- Results ----------------------------------------------------------------------------------------------------- */

int got(struct judge *j, int result, const char *what)
{
    if (result == -ENOTCONN && j->may_close) {
        j->may_close = false;
        judge_reconnect(j);
        longjmp(j->out, 1);
    }
    if (result == -ENOTCONN)
        judge_fail(j, "%s: the connection was closed", what);
    if (result == -ETIMEDOUT)
        judge_fail(j, "%s: no answer for %d ms", what, j->raw.timeout_ms);
    if (result < 0)
        judge_fail(j, "%s: %s", what, j->raw.why[0] != '\0' ? j->raw.why : strerror(-result));
    return result;
}

void want_ok(struct judge *j, int result, const char *what)
{
    result = got(j, result, what);
    want(j, result == 0, "%s: refused with %d (%s), wanted to succeed", what, result, strerror(result));
}

void want_refused(struct judge *j, int result, const char *what)
{
    want(j, got(j, result, what) != 0, "%s: succeeded, wanted to be refused", what);
}

void want_error(struct judge *j, int result, int error, const char *what)
{
    result = got(j, result, what);
    want(j, result == error, "%s: %s %d (%s), wanted error %d (%s)", what,
         result == 0 ? "succeeded, error" : "refused with", result, strerror(result), error, strerror(error));
}

void want_refused_or_closed(struct judge *j, int result, const char *what)
{
    if (result == -ENOTCONN) {
        judge_reconnect(j);
        return;
    }
    want_refused(j, result, what);
}

void want_closed(struct judge *j, const char *what)
{
    int r = ob_raw_wait_closed(&j->raw, NULL);

    want(j, r == 0, "%s: the connection was not closed: %s", what, r == -ETIMEDOUT ? "nothing happened" : j->raw.why);
}

void want_alive(struct judge *j, const char *what)
{
    uint32_t info[4] = { sizeof(info) };

    want_ok(j, call(j, OB_RAW_GET_INFO, info, sizeof(info), NULL, 0, NULL), what);
}

/* --- Connections ------------------------------------------------------------------------------------------------- */

static void use_connection(struct judge *j, struct ob_raw *raw, int fd)
{
    ob_raw_init(raw, fd);
    raw->timeout_ms = j->timeout_ms;
    raw->trace = transcript_add;
    raw->trace_ctx = j->transcript;
}

struct ob_raw *judge_beside(struct judge *j)
{
    struct ob_raw *raw = judge_alloc(j, sizeof(*raw));
    int fd;

    if (j->target->once)
        judge_skip(j, "the server serves one client");
    fd = target_connect(j->target, 0);
    if (fd < 0)
        return NULL;
    use_connection(j, raw, fd);
    hold(j, HELD_CONNECTION)->memory = raw;
    return raw;
}

void judge_close(struct judge *j)
{
    ob_raw_close(&j->raw);
}

void judge_reconnect_bare(struct judge *j)
{
    int fd;

    ob_raw_close(&j->raw);
    j->guest = NULL;
    j->copying = false;
    j->copy_ring = NULL;
    fd = target_connect(j->target, j->timeout_ms);
    want(j, fd >= 0, "connecting failed: %s", strerror(-fd));
    use_connection(j, &j->raw, fd);
}

void judge_reconnect(struct judge *j)
{
    judge_reconnect_bare(j);
    want_ok(j, judge_version(j, 0, 0, judge_capabilities, NULL), "VERSION");
}

void judge_restart(struct judge *j)
{
    ob_raw_close(&j->raw);
    target_stop(j->target);
    judge_reconnect(j);
}

/* A queue that is empty ends in the structure itself. */
static void move(struct ob_raw *to, const struct ob_raw *from)
{
    *to = *from;
    if (to->queue == NULL)
        to->queue_tail = &to->queue;
}

static void swap_processes(struct judge *j)
{
    struct ob_raw now = j->raw;

    move(&j->raw, &j->aside);
    move(&j->aside, &now);
    j->target = j->target == j->first ? &j->second : j->first;
}

void judge_second(struct judge *j)
{
    int err;

    if (j->target == &j->second)
        return;
    if (j->second.command == NULL) {
        err = target_again(&j->second, j->first);
        want(j, err == 0, "the judge cannot start the server a second time: %s", strerror(-err));
        ob_raw_init(&j->aside, -1);
    }
    swap_processes(j);
    if (j->raw.fd < 0)
        judge_reconnect(j);
}

void judge_first(struct judge *j)
{
    if (j->target == &j->second)
        swap_processes(j);
}

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
        hold(j, HELD_JSON)->memory = json;
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

/* --- A run ------------------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t need;
    const char *what;
} needs[] = {
    { NEED_RESET, "the device cannot be reset" },
    { NEED_MAPPABLE, "no region can be mapped" },
    { NEED_SPARSE, "no region has sparse areas" },
    { NEED_MULTI, "write_multiple was not announced" },
    { NEED_TWIN, "twin_socket was not offered" },
    { NEED_IO_FDS, "no region has I/O descriptors" },
    { NEED_INTX, "the device has no INTx" },
    { NEED_MSI, "the device has no MSI" },
    { NEED_MSIX, "the device has no MSI-X" },
    { NEED_IRQ, "the device has no interrupts" },
    { NEED_VECTORS, "no interrupt type has two vectors" },
    { NEED_DMA, "no known way to make this device do DMA" },
    { NEED_INTERRUPT, "no known way to make this device interrupt" },
    { NEED_MIGRATION, "the device cannot migrate" },
    { NEED_PRE_COPY, "PRE_COPY is not supported" },
    { NEED_LOGGING, "DMA logging is not supported" },
    { NEED_EXTRA_REGION, "the device has no region beyond PCI's" },
    { NEED_EXPRESS, "configuration space has 256 bytes" },
    { NEED_SPAWN, "the server's process is not ours" },
    { NEED_NEXT, "the server's process serves one client" },
};

static void note_death(struct judge *j, struct target *target, const char *who)
{
    size_t used = strlen(j->text);

    if (!target_died(target))
        return;
    snprintf(j->text + used, sizeof(j->text) - used, "%s%s died (%s %d)", used > 0 ? "; " : "", who,
             WIFSIGNALED(target->status) ? "signal" : "status",
             WIFSIGNALED(target->status) ? WTERMSIG(target->status) : WEXITSTATUS(target->status));
    j->verdict = FAILED;
    if (target == j->first)
        target_start(target); /* an error comes again when it is connected to */
}

static void run(struct judge *j)
{
    uint32_t missing = j->check->needs & ~j->facts.has & ~(uint32_t)(CHECK_BARE | CHECK_UNCONNECTED);

    for (unsigned i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        if (missing & needs[i].need)
            judge_skip(j, "%s", needs[i].what);
    }
    if (target_died(j->target)) {
        note_death(j, j->target, "this was not tried: before it, the server");
        return;
    }
    if (j->check->needs & CHECK_BARE)
        judge_reconnect_bare(j);
    else if (!(j->check->needs & CHECK_UNCONNECTED))
        judge_reconnect(j);
    j->check->run(j);
    /* After whatever came instead of VERSION, the next client is served; if not, this check tells. */
    if ((j->check->needs & (CHECK_BARE | CHECK_UNCONNECTED)) && (j->facts.has & NEED_NEXT))
        judge_reconnect(j);
}

enum verdict judge_run(struct judge *j, const struct check *check)
{
    j->check = check;
    j->verdict = PASSED;
    j->text[0] = '\0';
    j->posting = false;
    j->may_close = false;
    transcript_clear(j->transcript);
    if (setjmp(j->out) == 0)
        run(j);
    judge_first(j);
    ob_raw_close(&j->raw);
    ob_raw_close(&j->twin);
    ob_raw_close(&j->aside);
    release_all(j);
    note_death(j, &j->second, "the second server");
    target_free(&j->second);
    if (j->verdict != SKIPPED)
        note_death(j, j->first, "the server");
    return (enum verdict)j->verdict;
}

void judge_transcript(struct judge *j, FILE *to, const char *indent)
{
    transcript_print(j->transcript, to, indent);
}

int judge_init(struct judge *j, struct target *target, int timeout_ms)
{
    *j = (struct judge){
        .target = target, .first = target, .second.pid = -1, .timeout_ms = timeout_ms, .transcript = transcript_new()
    };
    ob_raw_init(&j->raw, -1);
    ob_raw_init(&j->twin, -1);
    ob_raw_init(&j->aside, -1);
    return j->transcript == NULL ? -ENOMEM : 0;
}

void judge_free(struct judge *j)
{
    ob_raw_close(&j->raw);
    ob_raw_close(&j->twin);
    release_all(j);
    transcript_free(j->transcript);
}
