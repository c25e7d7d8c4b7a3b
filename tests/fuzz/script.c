/* The steps of a script: a byte that says which (its low five bits) and how (two above), then what the step takes.
 *
 * All but the first few are requests as monitors make them, in few bytes, so that a mutation hits what they mean. */
#include "script.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/pci_regs.h>

#include "world.h"

/* The server is not let run after the step; the step's message waits for the next. */
enum { STEP_PIPELINED = 0x80, STEP_CORKED = 0x40 };

static uint8_t draft[COMPOSE_MAX];

static unsigned take_descriptors(struct input *in, int *fds)
{
    unsigned n = take8(in) % 19;

    for (unsigned i = 0; i < n; i++)
        fds[i] = world_descriptor(in);
    return n;
}

static void step_composed(struct peer *peer, struct input *in, bool cork, bool with_fds)
{
    int fds[32];
    unsigned nfds = with_fds ? take_descriptors(in, fds) : 0;
    bool framed;
    size_t size = compose(in, draft, peer->next_id++, NULL, &framed);

    peer_send(peer, draft, size, fds, nfds, framed, cork);
}

static void step_raw(struct peer *peer, struct input *in, bool cork, bool with_fds)
{
    int fds[32];
    unsigned nfds = with_fds ? take_descriptors(in, fds) : 0;
    size_t size;
    const uint8_t *bytes = take_bytes(in, take8(in), &size);

    peer_send(peer, bytes, size, fds, nfds, false, cork);
}

/* --- Requests ---------------------------------------------------------------------------------------------------- */

static void step_access(struct peer *peer, struct input *in, bool cork, bool write, uint32_t region)
{
    uint8_t how = take8(in), data[256];
    static const uint8_t sizes[8] = { 4, 8, 2, 1, 4, 3, 16, 255 };
    uint32_t count = sizes[how & 7];
    struct ob_message m = {
        .header = { .command = write ? OB_REGION_WRITE : OB_REGION_READ, .flags = how & 8 ? OB_FLAG_NO_REPLY : 0 },
        .u.region_access = { take_number(in, 4), region == UINT32_MAX ? how >> 4 : region, count },
    };

    if (how & 8 && !write)
        m.header.flags = 0;
    if (write) {
        uint64_t value = count <= 8 ? take_number(in, count) : 0;
        memset(data, take8(in), sizeof(data));
        if (count <= 8)
            memcpy(data, &value, sizeof(value));
        m.tail = data;
        m.tail_size = count;
    }
    peer_request(peer, &m, NULL, cork);
}

void script_write(struct peer *peer, uint32_t region, uint64_t offset, uint64_t value, unsigned size)
{
    struct ob_message m = { .header.command = OB_REGION_WRITE,
                            .u.region_access = { offset, region, size },
                            .tail = (uint8_t *)&value,
                            .tail_size = size };

    peer_request(peer, &m, NULL, false);
}

static void map(struct peer *peer, uint64_t iova, uint64_t size, uint64_t offset, uint32_t flags, int fd, bool cork)
{
    struct ob_message m = { .header.command = OB_DMA_MAP,
                            .u.dma_map = { sizeof(m.u.dma_map), flags, offset, iova, size },
                            .nfds = fd >= 0 };

    peer_request(peer, &m, &fd, cork);
}

static void step_map(struct peer *peer, struct input *in, bool cork)
{
    uint8_t where = take8(in), how = take8(in);
    int fd = how & 1 ? world_file(how >> 4) : how & 2 ? world_new_file(1 + (how >> 4)) : -1;

    map(peer, (uint64_t)where << 12, (uint64_t)(1 + (how >> 4)) << 12, how & 4 ? 4096 : 0, 3u ^ (how >> 3 & 1), fd,
        cork);
}

static void step_unmap(struct peer *peer, struct input *in, bool cork)
{
    uint8_t where = take8(in), how = take8(in);
    struct ob_message m = { .header.command = OB_DMA_UNMAP,
                            .u.dma_unmap = { sizeof(m.u.dma_unmap), 0, (uint64_t)where << 12,
                                             (uint64_t)(1 + (how >> 4)) << 12 } };

    if ((how & 15) == 15)
        m.u.dma_unmap = (struct ob_wire_dma_unmap){ sizeof(m.u.dma_unmap), VFIO_DMA_UNMAP_FLAG_ALL, 0, 0 };
    peer_request(peer, &m, NULL, cork);
}

static void set_irqs(struct peer *peer, uint32_t index, uint32_t action, uint32_t start, unsigned n)
{
    int fds[16];
    struct ob_message m = { .header.command = OB_DEVICE_SET_IRQS, .nfds = n };

    for (unsigned i = 0; i < n; i++) {
        fds[i] = world_new_event();
        if (fds[i] < 0)
            return;
    }
    m.u.irq_set = (struct ob_wire_irq_set){ sizeof(m.u.irq_set), VFIO_IRQ_SET_DATA_EVENTFD | action, index, start, n };
    peer_request(peer, &m, fds, false);
}

static void step_irqs(struct peer *peer, struct input *in, bool cork)
{
    static const uint32_t actions[4] = { VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK,
                                         VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER };
    uint8_t how = take8(in), what = take8(in);
    uint32_t action = actions[how & 3], index = (how >> 2) % 5, start = what & 15, count = what >> 4;

    if (how & 0x80) {
        set_irqs(peer, index, action, start, count);
        return;
    }
    struct ob_message m = { .header.command = OB_DEVICE_SET_IRQS,
                            .u.irq_set = { sizeof(m.u.irq_set), VFIO_IRQ_SET_DATA_NONE | action, index, start,
                                           count } };
    peer_request(peer, &m, NULL, cork);
}

static void step_info(struct peer *peer, struct input *in, bool cork)
{
    uint8_t what = take8(in);
    uint32_t index = what & 15;
    struct ob_message m = { 0 };

    if (what & 0x40) {
        m.header.command = OB_DEVICE_GET_IRQ_INFO;
        m.u.irq_info = (struct vfio_irq_info){ .argsz = sizeof(m.u.irq_info), .index = index };
    } else if (what & 0x20) {
        m.header.command = OB_DEVICE_GET_REGION_IO_FDS;
        m.u.io_fds = (struct ob_wire_io_fds){ 4096, 0, index, 0 };
    } else {
        m.header.command = OB_DEVICE_GET_REGION_INFO;
        m.u.region_info =
            (struct vfio_region_info){ .argsz = what & 0x10 ? sizeof(m.u.region_info) : 4096, .index = index };
    }
    peer_request(peer, &m, NULL, cork);
}

/* Migration: the state is set or asked for, or some of its data goes either way. */
static void step_migration(struct peer *peer, struct input *in, bool cork)
{
    uint8_t what = take8(in);
    struct vfio_device_feature_mig_state state = { .device_state = what >> 3, .data_fd = -1 };
    struct ob_message m = { .tail = draft };

    switch (what & 7) {
    case 0:
    case 1:
    case 2:
        m.header.command = OB_DEVICE_FEATURE;
        m.u.feature = (struct ob_wire_feature){ sizeof(m.u.feature) + sizeof(state),
                                                VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE |
                                                    (what & 7 ? VFIO_DEVICE_FEATURE_SET : VFIO_DEVICE_FEATURE_GET) };
        m.tail = (uint8_t *)&state;
        m.tail_size = what & 7 ? sizeof(state) : 0;
        break;
    case 3:
    case 4:
    case 5:
        m.header.command = OB_MIG_DATA_READ;
        m.u.mig_data = (struct ob_wire_mig_data){ 65536, 1u + (uint32_t)(what >> 3) * 300 };
        break;
    default:
        m.header.command = OB_MIG_DATA_WRITE;
        m.tail = take_bytes(in, 1 + take8(in), &m.tail_size);
        m.u.mig_data =
            (struct ob_wire_mig_data){ (uint32_t)(sizeof(m.u.mig_data) + m.tail_size), (uint32_t)m.tail_size };
        break;
    }
    peer_request(peer, &m, NULL, cork);
}

static void request(struct peer *peer, enum ob_command command, bool cork)
{
    struct ob_message m = { .header.command = (uint16_t)command };

    peer_request(peer, &m, NULL, cork);
}

/* --- Answers to the server's requests ---------------------------------------------------------------------------- */

static void step_answer(struct peer *peer, struct input *in)
{
    const struct ob_message *asked = peer_asked(peer);
    static uint8_t data[OB_DEFAULT_MAX_DATA_XFER_SIZE];

    if (!asked || asked->header.flags & OB_FLAG_NO_REPLY)
        return;
    struct ob_message m = { .header = asked->header, .u = asked->u };
    ssize_t size;
    uint8_t how = take8(in);
    if (how & 1) {
        size = ob_encode_error(draft, sizeof(draft), &asked->header, how >> 1);
    } else {
        if (asked->header.command == OB_DMA_READ) {
            memset(data, how, asked->u.dma_access.count);
            m.tail = data;
            m.tail_size = asked->u.dma_access.count;
        }
        size = ob_encode_reply(draft, sizeof(draft), &m);
    }
    promise(size > 0);
    if (peer->twin_given) {
        peer_twin_send(peer, draft, (size_t)size, -1, true);
        return;
    }
    bool framed = peer->framed;
    peer_send(peer, draft, (size_t)size, NULL, 0, false, false);
    peer->framed = framed; /* what was sent is no request, but whole */
}

static void step_wrong_answer(struct peer *peer, struct input *in)
{
    const struct ob_message *asked = peer_asked(peer);
    bool framed, before = peer->framed;

    if (!asked)
        return;
    size_t size = compose(in, draft, 0, asked, &framed);
    peer->may_close = true;
    peer_send(peer, draft, size, NULL, 0, false, false);
    peer->framed = before && framed && (draft[8] & OB_FLAG_TYPE_MASK) == OB_FLAG_REPLY;
}

/* --- The twin socket --------------------------------------------------------------------------------------------- */

/* What a client may do to it beside answering; most of it is reason enough to end it. */
static void step_twin(struct peer *peer, struct input *in)
{
    const struct ob_message *asked;
    uint8_t what = take8(in);
    const uint8_t *bytes;
    bool framed;
    size_t size;

    switch (what & 7) {
    case 0: /* anything */
        bytes = take_bytes(in, 1 + (what >> 3), &size);
        if (size > 0)
            peer_twin_send(peer, bytes, size, what & 8 ? world_new_event() : -1, false);
        break;
    case 1: /* a command */
        size = compose(in, draft, peer->next_id++, NULL, &framed);
        peer_twin_send(peer, draft, size, -1, false);
        break;
    case 2: /* an answer of any kind, or half of it */
        asked = peer_asked(peer);
        if (!asked)
            break;
        size = compose(in, draft, 0, asked, &framed);
        peer_twin_send(peer, draft, what & 8 ? size / 2 : size, -1, false);
        break;
    case 3: /* a right answer, on the main socket: it is to nothing there */
        asked = peer_asked(peer);
        if (!asked || asked->header.command != OB_DMA_WRITE)
            break;
        struct ob_message m = { .header = asked->header, .u = asked->u };
        ssize_t n = ob_encode_reply(draft, sizeof(draft), &m);
        framed = peer->framed;
        promise(n > 0);
        peer_send(peer, draft, (size_t)n, NULL, 0, false, false);
        peer->framed = framed;
        break;
    case 4:
        peer->twin_clean = false;
        peer_twin_close(peer);
        break;
    case 5:
        peer->twin_clean = false;
        if (peer->twin >= 0)
            (void)shutdown(peer->twin, what & 8 ? SHUT_WR : SHUT_RD);
        break;
    case 6: /* a flood of replies to nothing */
        memset(draft, 0, sizeof(draft));
        *(struct ob_header *)draft = (struct ob_header){ 0xffff, OB_DMA_READ, 20000, OB_FLAG_REPLY, 0 };
        for (int i = 0; i < 1 + (what >> 3); i++)
            peer_twin_send(peer, draft, 20000, -1, true);
        break;
    default:
        peer->twin_unread = !peer->twin_unread;
        break;
    }
}

/* --- The other side of a serial line ----------------------------------------------------------------------------- */

static void line_connect(struct peer *peer)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };

    if (!peer->line)
        return;
    if (peer->line_fd >= 0)
        close(peer->line_fd);
    peer->line_fd = -1;
    if (peer->line_listener >= 0) {
        peer->line_fd = accept4(peer->line_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        return;
    }
    strncpy(name.sun_path, peer->line, sizeof(name.sun_path) - 1);
    peer->line_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(peer->line_fd, (struct sockaddr *)&name, sizeof(name)) < 0) { /* too many wait */
        close(peer->line_fd);
        peer->line_fd = -1;
    }
}

static void step_line(struct peer *peer, struct input *in)
{
    uint8_t what = take8(in), buf[4096];
    size_t size;
    const uint8_t *bytes;

    switch (what & 7) {
    case 0:
    case 1:
        line_connect(peer);
        break;
    case 2:
        if (peer->line_fd >= 0)
            close(peer->line_fd);
        peer->line_fd = -1;
        break;
    case 3:
        if (peer->line_fd >= 0)
            (void)shutdown(peer->line_fd, what & 8 ? SHUT_WR : SHUT_RD);
        break;
    case 4:
        while (peer->line_fd >= 0 && recv(peer->line_fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
            ;
        break;
    case 5: /* much */
        memset(buf, what, sizeof(buf));
        if (peer->line_fd >= 0)
            (void)send(peer->line_fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    default:
        bytes = take_bytes(in, 1 + (what >> 3), &size);
        if (peer->line_fd >= 0 && size > 0)
            (void)send(peer->line_fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    }
}

/* --- Everything else --------------------------------------------------------------------------------------------- */

static void step_memory(struct peer *peer, struct input *in)
{
    uint8_t how = take8(in);
    int fd = world_file(how >> 2);
    off_t at = (off_t)take_number(in, 2);
    size_t size;

    if ((how & 3) == 3) { /* cut short under the device */
        if (fd >= 0 && ftruncate(fd, at) == 0)
            peer->may_close = true;
        return;
    }
    const uint8_t *bytes = take_bytes(in, how & 1 ? 32 : 8, &size);
    if (fd >= 0 && at >= 0 && pwrite(fd, bytes, size, at) < 0)
        promise(errno == EPERM || errno == EINVAL); /* sealed */
}

static void step_world(struct peer *peer, struct input *in)
{
    uint8_t what = take8(in);
    int fd;

    if (what < 0xc0) {
        world_advance(UINT64_C(1) << what % 40);
        return;
    }
    switch (what % 8) {
    case 0:
        peer_disconnect(peer);
        break;
    case 1:
        peer_connect(peer);
        break;
    case 2:
        if (peer->fd >= 0)
            (void)shutdown(peer->fd, SHUT_WR);
        peer->may_close = true;
        break;
    case 3:
        peer_read(peer);
        break;
    case 4: /* as loops that poll do */
        for (int i = 0; i < 40 && !peer->over; i++)
            peer->over = ob_server_run(peer->dev, 0) < 0;
        break;
    case 5:
        peer_settle(peer);
        break;
    default:
        fd = world_event(take8(in));
        if (fd >= 0)
            (void)eventfd_write(fd, 1);
        break;
    }
}

static void step(struct peer *peer, struct input *in, unsigned which, bool cork)
{
    switch (which) {
    case 0:
    case 1:
    case 2:
        step_composed(peer, in, cork, false);
        break;
    case 3:
        step_composed(peer, in, cork, true);
        break;
    case 4:
        step_raw(peer, in, cork, false);
        break;
    case 5:
        step_raw(peer, in, cork, true);
        break;
    case 6:
    case 7:
    case 8:
        step_access(peer, in, cork, true, 0);
        break;
    case 9:
    case 10:
        step_access(peer, in, cork, false, 0);
        break;
    case 11:
        step_access(peer, in, cork, true, UINT32_MAX);
        break;
    case 12:
        step_access(peer, in, cork, false, UINT32_MAX);
        break;
    case 13:
        step_access(peer, in, cork, true, VFIO_PCI_CONFIG_REGION_INDEX);
        break;
    case 14:
        step_access(peer, in, cork, false, VFIO_PCI_CONFIG_REGION_INDEX);
        break;
    case 15:
    case 16:
        step_map(peer, in, cork);
        break;
    case 17:
        step_unmap(peer, in, cork);
        break;
    case 18:
    case 19:
        step_irqs(peer, in, cork);
        break;
    case 20:
        step_info(peer, in, cork);
        break;
    case 21:
        request(peer, OB_DEVICE_RESET, cork);
        break;
    case 22:
        script_write(peer, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, take8(in) | (uint64_t)take8(in) << 8, 2);
        break;
    case 23:
    case 24:
        step_answer(peer, in);
        break;
    case 25:
        step_wrong_answer(peer, in);
        break;
    case 26:
        step_memory(peer, in);
        break;
    case 27:
        step_line(peer, in);
        break;
    case 28:
        step_twin(peer, in);
        break;
    case 29:
        peer_negotiate(peer, false);
        break;
    case 30:
        step_migration(peer, in, cork);
        break;
    default:
        step_world(peer, in);
        break;
    }
}

void script_run(struct peer *peer, struct input *in)
{
    while (input_left(in)) {
        uint8_t what = take8(in);
        step(peer, in, what & 31, what & STEP_CORKED);
        if (!(what & STEP_PIPELINED))
            peer_run(peer);
    }
}

void script_prologue(struct peer *peer, bool twin)
{
    peer_negotiate(peer, twin);
    map(peer, SCRIPT_SHARED, SCRIPT_PAGES << 12, 0, 3, world_new_file(SCRIPT_PAGES), false);
    map(peer, SCRIPT_MESSAGES, SCRIPT_PAGES << 12, 0, 3, -1, false);
    set_irqs(peer, VFIO_PCI_INTX_IRQ_INDEX, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 1);
    script_write(peer, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND,
                 PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    peer_run(peer);
}
