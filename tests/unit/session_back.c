/* See session_back.h. */
#include "session_back.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session/steps.h"

struct back_state *back_state(struct back *b)
{
    return ob_vault_part(&b->vault, OB_PART_STATE);
}

uint64_t back_mix(uint64_t number, uint32_t value)
{
    return number * UINT64_C(6364136223846793005) + value + 1;
}

static void mix(struct back *b, uint32_t value)
{
    back_state(b)->number = back_mix(back_state(b)->number, value);
    b->vault.dirty[OB_PART_STATE] = true;
}

static void back_commit(void *back)
{
    struct back *b = back;

    ob_vault_commit(&b->vault, &b->s.position);
    ob_holder_flush(&b->s.holder);
    ob_step(signalled);
}

static int execute_pieces(struct back *b, uint8_t *data)
{
    while (b->s.position.part < 8) {
        mix(b, 77);
        memcpy(data + b->s.position.part, &back_state(b)->number, 4);
        b->s.position.part += 4;
        if (b->s.position.part < 8)
            back_commit(b);
    }
    return 0;
}

static int execute_read(struct back *b, const struct ob_message *m)
{
    const struct ob_wire_region_access *a = &m->u.region_access;
    struct ob_message reply = { .u.region_access = *a, .tail_size = a->count };
    uint8_t *data = ob_session_reply_tail(&b->s);

    reply.tail = data;
    if (a->offset == BACK_KEEP)
        return 1;
    if (a->offset == BACK_REFUSE)
        return -EIO;
    if (a->offset == BACK_PIECES)
        execute_pieces(b, data);
    else if (a->offset == BACK_BYTES)
        for (uint32_t i = 0; i < a->count; i++)
            data[i] = (uint8_t)i;
    else
        memcpy(data, &back_state(b)->number, 8);
    ob_session_reply(&b->s, &reply, -1);
    return 0;
}

static int execute_map(struct back *b, int *fds, unsigned nfds)
{
    struct back_state *state = back_state(b);
    struct ob_message reply = { 0 };

    if (nfds != 1 || state->maps == 32)
        return -EINVAL;
    state->map_keys[state->maps] = ob_holder_key(&b->s.holder, fds[0]);
    b->fds[state->maps++] = fds[0];
    fds[0] = -1;
    b->vault.dirty[OB_PART_STATE] = true;
    ob_session_reply(&b->s, &reply, -1);
    return 0;
}

static int execute_info(struct back *b)
{
    struct ob_message reply = { .u.region_info = { .argsz = 32, .flags = VFIO_REGION_INFO_FLAG_MMAP, .size = 4096 },
                                .nfds = 1 };

    ob_session_reply(&b->s, &reply, 0);
    return 0;
}

static int back_execute(void *back, const struct ob_message *m, int *fds, unsigned nfds)
{
    struct back *b = back;
    struct ob_message reply = { .u = m->u };
    uint32_t value;
    int err = 0;

    switch (m->header.command) {
    case OB_REGION_READ:
        err = execute_read(b, m);
        break;
    case OB_REGION_WRITE:
        memcpy(&value, m->tail, 4);
        mix(b, value);
        ob_session_reply(&b->s, &reply, -1);
        break;
    case OB_DMA_MAP:
        err = execute_map(b, fds, nfds);
        break;
    case OB_DEVICE_GET_REGION_INFO:
        err = execute_info(b);
        break;
    default:
        err = -ENOSYS;
    }
    ob_step(executed);
    return err;
}

static void back_answered(void *back, uint16_t id, const struct ob_message *reply, int err)
{
    struct back *b = back;

    (void)id;
    (void)reply;
    b->answered++;
    b->answer_err = err;
}

static void back_opened(void *back)
{
    ((struct back *)back)->opened++;
}

static unsigned back_reply_fds(void *back, int what, int *fds)
{
    (void)what;
    fds[0] = ((struct back *)back)->region_fd;
    return 1;
}

static const struct ob_session_ops ops = {
    .execute = back_execute,
    .commit = back_commit,
    .answered = back_answered,
    .opened = back_opened,
    .reply_fds = back_reply_fds,
};

void back_open(struct back *b, int vault_fd, int journal_fd, int holder)
{
    const struct ob_vault_layout layout = { .part = { sizeof(struct back_state), 256, 8, 8 }, .signals = 1 };
    struct ob_position position;

    memset(b, 0, sizeof(*b));
    b->client = b->keep_socket = -1;
    memset(b->fds, 0xff, sizeof(b->fds));
    assert_int_equal(ob_vault_open(&b->vault, vault_fd, &layout, &position), 0);
    assert_int_equal(ob_session_init(&b->s, journal_fd, &position, &ops, b), 0);
    ob_holder_init(&b->s.holder, holder);
    b->region_fd = memfd_create("region", MFD_CLOEXEC);
    assert_true(b->region_fd >= 0);
}

void back_close(struct back *b)
{
    ob_session_free(&b->s);
    ob_vault_close(&b->vault);
    for (int i = 0; i < 32; i++)
        if (b->fds[i] >= 0)
            close(b->fds[i]);
    close(b->region_fd);
    if (b->client >= 0)
        close(b->client);
}

int back_run(struct back *b)
{
    int n = 1;

    while (n > 0 || ob_session_ready(&b->s)) {
        n = ob_session_ready(&b->s) ? ob_session_advance(&b->s) : ob_session_read(&b->s);
        if (n == 0)
            break;
    }
    return n;
}

void back_connect(struct back *b, bool negotiate)
{
    uint8_t bytes[64], payload[OB_VERSION_MAX_TEXT];
    int pair[2];

    if (b->client >= 0)
        close(b->client);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    b->client = pair[0];
    ob_session_connect(&b->s, pair[1]);
    if (!negotiate)
        return;
    send_all(b->client, bytes, put_version(bytes, 1, 0));
    assert_int_equal(back_run(b), 0);
    assert_int_equal(next_reply(b->client, payload, sizeof(payload), NULL).error, 0);
}

int back_connect_twin(struct back *b)
{
    uint8_t bytes[256], payload[OB_VERSION_MAX_TEXT];
    int twin;

    back_connect(b, false);
    send_all(b->client, bytes, put_version_text(bytes, 1, "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}"));
    assert_int_equal(back_run(b), 0);
    assert_int_equal(next_reply(b->client, payload, sizeof(payload), &twin).error, 0);
    assert_true(twin >= 0);
    return twin;
}

size_t put_header(void *to, uint16_t id, uint16_t command, uint32_t size, uint32_t flags)
{
    struct ob_header h = { .id = id, .command = command, .size = size, .flags = flags };

    memcpy(to, &h, sizeof(h));
    return sizeof(h);
}

static size_t put(void *to, struct ob_message *m, uint16_t id, uint16_t command)
{
    m->header.id = id;
    m->header.command = command;
    ssize_t size = ob_encode_request(to, 4096, m);
    assert_true(size > 0);
    return (size_t)size;
}

size_t put_version(void *to, uint16_t id, uint16_t major)
{
    struct ob_message m = { .u.version = { major, 0 } };
    return put(to, &m, id, OB_VERSION);
}

size_t put_version_text(void *to, uint16_t id, const char *json)
{
    struct ob_message m = { .tail = (const uint8_t *)json, .tail_size = strlen(json) + 1 };
    return put(to, &m, id, OB_VERSION);
}

size_t put_read(void *to, uint16_t id, uint64_t offset, uint32_t count)
{
    struct ob_message m = { .u.region_access = { offset, 0, count } };
    return put(to, &m, id, OB_REGION_READ);
}

size_t put_write(void *to, uint16_t id, uint32_t value, bool posted)
{
    struct ob_message m = { .header.flags = posted ? OB_FLAG_NO_REPLY : 0,
                            .u.region_access = { BACK_MIX, 0, 4 },
                            .tail = (const uint8_t *)&value,
                            .tail_size = 4 };
    return put(to, &m, id, OB_REGION_WRITE);
}

size_t put_map(void *to, uint16_t id, uint64_t address)
{
    struct ob_message m = { .u.dma_map = { .argsz = sizeof(m.u.dma_map),
                                           .flags = VFIO_DMA_MAP_FLAG_READ,
                                           .address = address,
                                           .size = 4096 },
                            .nfds = 1 };
    return put(to, &m, id, OB_DMA_MAP);
}

size_t put_region_info(void *to, uint16_t id)
{
    struct ob_message m = { .u.region_info = { .argsz = 32 } };
    return put(to, &m, id, OB_DEVICE_GET_REGION_INFO);
}

void send_all(int fd, const void *bytes, size_t size)
{
    assert_int_equal(write(fd, bytes, size), size);
}

void send_fd(int fd, const void *bytes, size_t size, int passed)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec iov = { .iov_base = (void *)bytes, .iov_len = size };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &passed, sizeof(int));
    assert_int_equal(sendmsg(fd, &msg, 0), size);
}

/* As QEMU reads: the header with one call, which has to give all of it and the descriptor. */
struct ob_header next_reply(int fd, void *payload, size_t room, int *passed)
{
    struct ob_header h;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 4)];
    } control;
    struct iovec iov = { .iov_base = &h, .iov_len = sizeof(h) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
    };

    assert_int_equal(recvmsg(fd, &msg, MSG_DONTWAIT), sizeof(h));
    assert_true(h.flags & OB_FLAG_REPLY);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (passed)
        *passed = -1;
    if (c) {
        assert_non_null(passed);
        assert_int_equal(c->cmsg_len, CMSG_LEN(sizeof(int)));
        memcpy(passed, CMSG_DATA(c), sizeof(int));
    }
    size_t size = h.size - sizeof(h);
    assert_true(size <= room);
    if (size > 0)
        assert_int_equal(recv(fd, payload, size, MSG_DONTWAIT), size);
    return h;
}

void expect_reply(int fd, uint16_t id, int error)
{
    uint8_t payload[256];
    struct ob_header h = next_reply(fd, payload, sizeof(payload), NULL);

    assert_int_equal(h.id, id);
    assert_int_equal(h.flags & OB_FLAG_ERROR ? h.error : 0, error);
}

void expect_number(int fd, uint16_t id, uint64_t number)
{
    struct {
        struct ob_wire_region_access access;
        uint64_t number;
    } payload;
    struct ob_header h = next_reply(fd, &payload, sizeof(payload), NULL);

    assert_int_equal(h.id, id);
    assert_int_equal(h.size, sizeof(h) + sizeof(payload));
    assert_true(payload.number == number);
}

void expect_silence(int fd)
{
    char byte;

    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}
