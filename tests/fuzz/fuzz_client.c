/* A whole client, whose calls and whose server are both what the input says. The server works when the client waits: it
 * reads what came, and answers well, wrongly, later or never, or sends something of its own; at the input's end it
 * goes. Every request that the client makes has to be one that a server would take. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <outboard/client.h>

#include "compose.h"
#include "protocol/version.h"
#include "world.h"

#define QUEUE 64
#define CALLS 8
#define DATA  8192

struct call {
    struct ob_call call;
    bool busy, waits; /* its result is to be waited for */
    uint8_t buf[DATA];
};

static const struct ob_limits limits = { OB_DEFAULT_MAX_DATA_XFER_SIZE, 16 };
static uint8_t received[2 * OB_DEFAULT_MAX_DATA_XFER_SIZE], draft[COMPOSE_MAX], zeros[OB_DEFAULT_MAX_DATA_XFER_SIZE];
static struct input input;
static int server;
static size_t have;
static struct ob_message queue[QUEUE]; /* requests without an answer; the oldest are forgotten */
static unsigned first, queued;
static struct call calls[CALLS];

/* --- The server -------------------------------------------------------------------------------------------------- */

static void leave(void)
{
    if (server >= 0)
        close(server);
    server = -1;
}

static void send_all(const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * 16)] = { 0 };
    struct iovec iov = { (void *)bytes, size };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (nfds > 0) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    if (sendmsg(server, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        leave(); /* a client that does not read */
}

static void take_request(const uint8_t *bytes, size_t size)
{
    struct ob_message m;
    int wrong = -EINVAL;

    for (unsigned n = 0; wrong && n <= 16; n++) /* whose the descriptors are is not looked at here */
        wrong = ob_check_request(&m, bytes, size, OB_FROM_CLIENT, &limits, n);
    if (m.header.flags & OB_FLAG_REPLY)
        return;
    promise(wrong == 0);
    if (m.header.flags & OB_FLAG_NO_REPLY)
        return;
    m.tail = NULL;
    m.tail_size = 0;
    if (queued == QUEUE) {
        first = (first + 1) % QUEUE;
        queued--;
    }
    queue[(first + queued++) % QUEUE] = m;
}

static void server_read(void)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int) * 32)];
    struct iovec iov = { received + have, sizeof(received) - have };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
    ssize_t n = recvmsg(server, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    size_t at = 0;
    struct ob_header h;

    for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL; c; c = CMSG_NXTHDR(&msg, c)) {
        for (size_t i = CMSG_LEN(0); i + sizeof(int) <= c->cmsg_len; i += sizeof(int)) {
            int fd;
            memcpy(&fd, (uint8_t *)c + i, sizeof(fd));
            close(fd);
        }
    }
    have += n > 0 ? (size_t)n : 0;
    for (int size; (size = ob_frame(received + at, have - at, sizeof(received), &h)) != 0; at += (size_t)size) {
        promise(size > 0);
        if ((size_t)size > have - at)
            break;
        take_request(received + at, (size_t)size);
    }
    have -= at;
    memmove(received, received + at, have);
}

/* As a server would, with one region of memory and numbers that are right. */
static void answer_well(const struct ob_message *request, int fd)
{
    struct ob_message m = { .header = request->header, .u = request->u };
    char text[OB_VERSION_MAX_TEXT];
    struct ob_capabilities caps = ob_capabilities_default;

    switch (request->header.command) {
    case OB_VERSION:
        caps.write_multiple = true;
        m.tail_size = (size_t)ob_version_encode(text, sizeof(text), &caps);
        m.tail = (uint8_t *)text;
        break;
    case OB_DEVICE_GET_INFO:
        m.u.device_info = (struct ob_wire_device_info){ 16, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, 9, 5 };
        break;
    case OB_DEVICE_GET_REGION_INFO:
        m.u.region_info.argsz = 32;
        m.u.region_info.flags = fd >= 0 ? 7 : 3;
        m.u.region_info.size = 0x4000;
        m.nfds = fd >= 0;
        break;
    case OB_DEVICE_GET_IRQ_INFO:
        m.u.irq_info.flags = VFIO_IRQ_INFO_EVENTFD;
        m.u.irq_info.count = 4;
        break;
    case OB_REGION_READ:
        m.tail = zeros;
        m.tail_size = m.u.region_access.count;
        break;
    case OB_MIG_DATA_READ:
        m.tail = zeros;
        m.tail_size = m.u.mig_data.size;
        break;
    default:
        break;
    }
    static uint8_t out[sizeof(zeros) + 4096];
    ssize_t size = ob_encode_reply(out, sizeof(out), &m);
    if (size > 0)
        send_all(out, (size_t)size, &fd, m.nfds);
}

static void answer(uint8_t how)
{
    int fds[16];
    bool framed;
    unsigned nfds = how >> 5;

    if (queued == 0)
        return;
    unsigned at = how & 16 ? (first + queued - 1) % QUEUE : first;
    struct ob_message request = queue[at];
    if (!(how & 16))
        first = (first + 1) % QUEUE;
    queued--;
    unsigned n = 0;
    for (unsigned i = 0; i < nfds; i++) {
        int fd = world_descriptor(&input);
        if (fd >= 0)
            fds[n++] = fd;
    }
    if ((how & 3) == 3) {
        ssize_t size = ob_encode_error(draft, sizeof(draft), &request.header, take8(&input));
        send_all(draft, (size_t)size, fds, n);
    } else if ((how & 3) == 2) {
        size_t size = compose(&input, draft, 0, &request, &framed);
        send_all(draft, size, fds, n);
    } else {
        answer_well(&request, n > 0 ? fds[0] : -1);
    }
}

/* The client would sleep. True: something was done. */
static bool serve(void)
{
    size_t size;
    bool framed;

    if (server < 0)
        return false;
    server_read();
    if (!input_left(&input)) {
        leave();
        return true;
    }
    uint8_t what = take8(&input);
    if (what < 0xe0) {
        answer(what);
    } else if (what < 0xf0) { /* of its own accord: DMA_READ, DMA_WRITE, and what no server may send */
        size = compose(&input, draft, what, NULL, &framed);
        send_all(draft, size, NULL, 0);
    } else if (what < 0xf8) {
        const uint8_t *bytes = take_bytes(&input, 1 + take8(&input), &size);
        if (size > 0)
            send_all(bytes, size, NULL, 0);
    } else if (what < 0xfc) {
        world_advance(UINT64_C(1) << take8(&input) % 34);
    } else if (what < 0xff) {
        return false; /* time passes */
    } else {
        leave();
    }
    return true;
}

/* --- The client -------------------------------------------------------------------------------------------------- */

static int dma(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    (void)ctx;
    if (to_device)
        memset(buf, (int)iova, len);
    return iova & 0x1000 ? -EIO : 0;
}

static void done(struct ob_call *call, ssize_t result)
{
    (void)result;
    ((struct call *)call)->busy = false;
}

/* A call that is free, in one of the three ways; NULL: a synchronous one, into calls[0]'s buffer. */
static struct call *take_call(uint8_t how)
{
    struct call *c = &calls[1 + how % (CALLS - 1)];

    if (!(how & 0xc0) || c->busy)
        return NULL;
    c->busy = true;
    c->waits = !(how & 0x40);
    c->call = (struct ob_call){ .done = c->waits ? NULL : done, .timeout_ms = how & 0x20 ? 100 : 0 };
    return c;
}

static void started(struct call *c, ssize_t result)
{
    if (c && result < 0) /* refused: no result will come */
        c->busy = false;
}

static void wait_all(struct ob_client *client)
{
    for (unsigned i = 1; i < CALLS; i++) {
        if (!calls[i].busy || !calls[i].waits)
            continue;
        (void)ob_client_flush(client);
        (void)ob_call_wait(client, &calls[i].call);
        calls[i].busy = false;
    }
}

static void access_region(struct ob_client *client, bool write)
{
    struct call *c = take_call(take8(&input));
    uint32_t region = take8(&input) % 12;
    uint64_t offset = take_number(&input, 8);
    size_t len = take_number(&input, 2) % DATA;
    uint8_t *buf = c ? c->buf : calls[0].buf;

    started(c, write ? ob_client_write(client, region, offset, buf, len, c ? &c->call : NULL)
                     : ob_client_read(client, region, offset, buf, len, c ? &c->call : NULL));
}

static void map_memory(struct ob_client *client)
{
    struct call *c = take_call(take8(&input));
    uint8_t where = take8(&input);

    started(c, ob_client_dma_map(client, (uint64_t)(where & 15) << 12, 0x1000u << (where >> 6), PROT_READ | PROT_WRITE,
                                 where & 0x10 ? world_new_file(8) : -1, 0, c ? &c->call : NULL));
}

static void set_irqs(struct ob_client *client)
{
    struct call *c = take_call(take8(&input));
    uint32_t index = take8(&input) % 6, start = take8(&input) % 8;
    int fds[] = { world_new_event(), -1, world_new_event() };

    started(c, ob_client_set_irqs(client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index, start, 3,
                                  NULL, fds, c ? &c->call : NULL));
}

static void migrate(struct ob_client *client)
{
    uint64_t number, bitmap[16];
    uint32_t state;
    uint8_t what = take8(&input);

    switch (what % 8) {
    case 0:
        (void)ob_client_migration_flags(client, &number);
        break;
    case 1:
        (void)ob_client_migration_state(client, &state);
        break;
    case 2:
        (void)ob_client_migration_set_state(client, what >> 3, NULL);
        break;
    case 3:
        (void)ob_client_migration_size(client, &number);
        break;
    case 4:
        (void)ob_client_migration_read(client, calls[0].buf, DATA, NULL);
        break;
    case 5:
        (void)ob_client_migration_write(client, calls[0].buf, DATA, NULL);
        break;
    case 6:
        (void)(what & 8 ? ob_client_dirty_start(client, 4096, NULL, 0) : ob_client_dirty_stop(client));
        break;
    default:
        (void)ob_client_dirty_report(client, 0, 16u * 64u * 4096u, 4096, bitmap);
        break;
    }
}

static void step(struct ob_client *client)
{
    const struct ob_client_region *region;
    struct ob_client_irq irq;
    uint8_t what = take8(&input);

    switch (what % 16) {
    case 0:
    case 1:
        access_region(client, false);
        break;
    case 2:
    case 3:
        access_region(client, true);
        break;
    case 4:
        (void)ob_client_post(client, what >> 4, take_number(&input, 4), calls[0].buf, 1u << take8(&input) % 4);
        break;
    case 5:
        (void)ob_client_region(client, what >> 4, &region);
        break;
    case 6:
        (void)ob_client_irq(client, what >> 4, &irq);
        break;
    case 7:
        (void)ob_client_map(client, what >> 4);
        break;
    case 8:
        map_memory(client);
        break;
    case 9:
        (void)(what & 0x10 ? ob_client_dma_unmap_all(client) : ob_client_dma_unmap(client, 0, 0x1000, NULL));
        break;
    case 10:
        set_irqs(client);
        break;
    case 11:
        wait_all(client);
        break;
    case 12:
        (void)ob_client_run(client, what >> 4);
        break;
    case 13:
        (void)ob_client_reset(client, NULL);
        break;
    case 14:
        migrate(client);
        break;
    default:
        (void)ob_client_flush(client);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ob_client_options options = { .dma = dma };
    struct ob_client *client = NULL;
    char why[128];
    int both[2];

    input = (struct input){ data, data + size };
    have = first = queued = 0;
    memset(calls, 0, sizeof(calls));
    world_begin();
    promise(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
    server = both[1];
    world_idle = serve;
    uint8_t how = take8(&input);
    options.no_twin_socket = how & 1;
    options.max_data_xfer_size = how & 2 ? 4096 : 0;
    if (ob_client_adopt(both[0], &options, &client, why, sizeof(why)) < 0)
        close(both[0]);
    while (client && input_left(&input))
        step(client);
    if (client)
        wait_all(client);
    ob_client_close(client);
    for (unsigned i = 1; i < CALLS; i++)
        promise(!calls[i].busy);
    leave();
    world_idle = NULL;
    world_end();
    return 0;
}
