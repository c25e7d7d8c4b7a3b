/* session.c: one connection: the client comes, its commands are taken and answered, and it ends. */
#include "check.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 10000

/* --- Beginning and end ------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static void connected(struct trial *t, int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    t->peer = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : -1;
    channel_open(&t->main, fd);
    channel_open(&t->twin, -1);
    t->connected = t->came = true;
    t->news = now_ms();
}

/* Starts the client, and takes its connection. */
static void await_client(struct trial *t)
{
    struct pollfd pfds[2] = { { .fd = t->listener, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
    int n, err = t->program.command != NULL ? program_start(&t->program) : 0;

    trial_want(t, err == 0, "the judge cannot start the client: %s", strerror(-err));
    pfds[1].fd = t->program.pidfd;
    /* To start may take longer than an answer does. */
    n = poll(pfds, 2, t->program.pidfd >= 0 && t->timeout_ms < START_MS ? START_MS : t->timeout_ms);
    if (n > 0 && !(pfds[0].revents & POLLIN)) {
        program_ended(&t->program);
        t->end = (struct ending){ EXITED, t->program.status };
        trial_fail(t, "the client should connect: %s", trial_end_text(t));
    }
    n = n > 0 ? accept4(t->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    trial_want(t, n >= 0, "the client should connect, and does not for %d ms", t->timeout_ms);
    connected(t, n);
}

/* The connection is closed. A program that ends in the baseline has to end by itself for the session to be over. */
static void await_exit(struct trial *t)
{
    struct pollfd pfd = { .fd = t->program.pidfd, .events = POLLIN };

    t->over = true;
    t->end.how = CLOSED;
    if (t->program.pidfd >= 0) {
        poll(&pfd, 1, !t->known || t->usual.how == EXITED ? t->timeout_ms : QUIET_MS);
        if (program_ended(&t->program))
            t->end = (struct ending){ EXITED, t->program.status };
    }
}

void trial_cut(struct trial *t)
{
    channel_close(&t->main);
    channel_close(&t->twin);
    t->cut = true;
    await_exit(t);
    if (t->end.how == CLOSED && t->usual.how == EXITED)
        t->end.how = QUIET;
}

static void free_list(struct ob_raw_message **list)
{
    while (*list != NULL) {
        struct ob_raw_message *m = *list;

        *list = m->next;
        ob_raw_message_free(m);
    }
}

void trial_disconnect(struct trial *t)
{
    channel_close(&t->main);
    channel_close(&t->twin);
    program_stop(&t->program);
    free_list(&t->commands);
    free_list(&t->answers);
    model_free(&t->model);
}

/* --- Receiving --------------------------------------------------------------------------------------------------- */

static void append(struct ob_raw_message **list, struct ob_raw_message *m)
{
    while (*list != NULL)
        list = &(*list)->next;
    *list = m;
}

static void note(struct trial *t, struct ob_raw_message *m, bool twin)
{
    uint8_t start[sizeof(m->header) + 64];
    size_t size = m->size < 64 ? m->size : 64;

    memcpy(start, &m->header, sizeof(m->header));
    memcpy(start + sizeof(m->header), m->payload, size);
    transcript_add(t->transcript, false, start, sizeof(m->header) + m->size, m->nfds);
    if ((m->header.flags & OB_RAW_TYPE_MASK) == OB_RAW_REPLY) {
        append(&t->answers, m);
        t->answered_on_twin = twin;
        return;
    }
    t->asked_on_twin |= twin;
    if ((m->header.flags & OB_RAW_TYPE_MASK) == 0 && m->header.size >= sizeof(m->header)) {
        struct kind kind = kind_of(m);

        if (kinds_add(&t->kinds, &kind))
            t->news = now_ms();
        append(&t->commands, m);
    } else {
        trial_judge(t, m);
        ob_raw_message_free(m);
    }
}

static bool take_from(struct trial *t, struct channel *channel)
{
    struct ob_raw_message *m = channel_take(channel);

    if (m != NULL)
        note(t, m, channel == &t->twin);
    return m != NULL;
}

/* Whether a client that lives on has done all that it does. */
static bool has_done_all(const struct trial *t)
{
    return t->known && t->usual.how == QUIET && kinds_missing(&t->usual_kinds, &t->kinds, 0) == NULL;
}

/* One that says the same again and again, as one that polls a register, is quiet, too. */
static bool says_nothing_new(const struct trial *t)
{
    return now_ms() - t->news > (has_done_all(t) ? QUIET_MS : 10LL * t->timeout_ms);
}

static void is_quiet(struct trial *t)
{
    t->over = true;
    t->end.how = QUIET;
}

static void wait_for_bytes(struct trial *t)
{
    struct pollfd pfds[3] = { { .fd = t->main.fd, .events = POLLIN },
                              { .fd = t->twin.ended ? -1 : t->twin.fd, .events = POLLIN },
                              { .fd = t->program.pidfd, .events = POLLIN } };

    if (poll(pfds, 3, has_done_all(t) ? QUIET_MS : t->timeout_ms) == 0) {
        is_quiet(t);
        return;
    }
    channel_read(&t->main);
    channel_read(&t->twin);
    /* What it sent before it ended is in the socket; that others may hold its end is no reason to wait for them. */
    if (pfds[2].revents != 0 && !(pfds[0].revents & POLLIN))
        t->main.ended = true;
}

/* Gets one message more; false: the session is over. */
static bool pump(struct trial *t)
{
    if (!t->connected)
        await_client(t);
    while (!t->over) {
        if (take_from(t, &t->main) || take_from(t, &t->twin))
            return true;
        if (t->main.ended)
            await_exit(t);
        else if (says_nothing_new(t))
            is_quiet(t);
        else
            wait_for_bytes(t);
    }
    return false;
}

static struct ob_raw_message *take_first(struct trial *t, struct ob_raw_message **list)
{
    struct ob_raw_message *m = *list;

    *list = m->next;
    m->next = NULL;
    return trial_hold(t, m);
}

/* The first that came. Rules judge it when those before it have been executed. */
static struct ob_raw_message *take_command(struct trial *t)
{
    struct ob_raw_message *m = take_first(t, &t->commands);

    t->count++;
    trial_judge(t, m);
    return m;
}

struct ob_raw_message *trial_next(struct trial *t)
{
    while (t->commands == NULL && pump(t))
        ;
    return t->commands == NULL ? NULL : take_command(t);
}

bool trial_waits(const struct trial *t)
{
    return t->commands != NULL || channel_ready(&t->main);
}

struct ob_raw_message *trial_await(struct trial *t, uint16_t command)
{
    struct ob_raw_message *m;

    if (!kinds_has_command(&t->usual_kinds, command))
        trial_skip(t, "the client sends no %s", command_name(command));
    while ((m = trial_next(t)) != NULL && m->header.command != command)
        trial_answer(t, m);
    trial_want(t, m != NULL, "the client should send %s as it does otherwise: %s", command_name(command),
               trial_end_text(t));
    return m;
}

/* Of another region than configuration space, which clients read first of all, if the client reads any. */
static bool reads_registers(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_REGION_READ && get32(m, 8) != VFIO_PCI_CONFIG_REGION_INDEX;
}

struct ob_raw_message *trial_await_read(struct trial *t)
{
    for (unsigned i = 0; i < t->usual_kinds.count; i++) {
        const struct kind *kind = &t->usual_kinds.kind[i];

        if (kind->command == OB_RAW_REGION_READ && kind->part != VFIO_PCI_CONFIG_REGION_INDEX)
            return trial_await_where(t, reads_registers, "REGION_READ of a register");
    }
    return trial_await(t, OB_RAW_REGION_READ);
}

struct ob_raw_message *trial_await_where(struct trial *t, bool (*is)(struct trial *t, const struct ob_raw_message *m),
                                         const char *what)
{
    struct ob_raw_message *m;

    while ((m = trial_next(t)) != NULL && !is(t, m))
        trial_answer(t, m);
    if (m == NULL)
        trial_skip(t, "the client sent no %s", what);
    return m;
}

/* --- Answering --------------------------------------------------------------------------------------------------- */

void trial_send_bytes(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
    transcript_add(t->transcript, true, bytes, size, nfds);
    /* A client that has closed its end is found out when it is read from. */
    if (channel_send(&t->main, bytes, size, fds, nfds, t->timeout_ms) == -ETIMEDOUT)
        trial_fail(t, "the client does not read what is sent to it for %d ms", t->timeout_ms);
}

void trial_send_cut(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds, const size_t *cuts,
                    unsigned n)
{
    size_t at = 0;

    transcript_add(t->transcript, true, bytes, size, nfds);
    for (unsigned i = 0; i <= n; i++) {
        size_t end = i < n && cuts[i] < size ? cuts[i] : size;

        if (end <= at)
            continue;
        if (channel_send(&t->main, (const char *)bytes + at, end - at, fds, nfds, t->timeout_ms) != 0)
            return; /* it is found out when the client is read from */
        nfds = 0;
        at = end;
        if (at < size && !channel_wait_taken(&t->main, t->timeout_ms))
            trial_skip(t, "the client reads no part of a reply for %d ms: it cannot be sent in segments",
                       t->timeout_ms);
    }
}

void trial_send(struct trial *t, const struct reply *reply)
{
    uint8_t *bytes;

    if (reply->none)
        return;
    bytes = trial_alloc(t, sizeof(reply->header) + reply->size);
    memcpy(bytes, &reply->header, sizeof(reply->header));
    if (reply->size > 0)
        memcpy(bytes + sizeof(reply->header), reply->payload, reply->size);
    (t->shape != NULL ? t->shape : trial_send_bytes)(t, bytes, sizeof(reply->header) + reply->size, reply->fds,
                                                     reply->nfds);
}

/* The socket of the server's own commands, once the model has made one. */
static void take_twin(struct trial *t)
{
    if (t->model.twin_fd < 0)
        return;
    channel_close(&t->twin);
    channel_open(&t->twin, t->model.twin_fd);
    t->model.twin_fd = -1;
}

/* Which MAP_* sorts a map is of. */
static unsigned trial_map_sorts(const struct model_map *map)
{
    return (map->flags & VFIO_DMA_MAP_FLAG_READ ? MAP_READ : MAP_NO_READ) |
           (map->flags & VFIO_DMA_MAP_FLAG_WRITE ? MAP_WRITE : MAP_NO_WRITE) | (map->fd >= 0 ? MAP_FD : MAP_NO_FD);
}

static struct usual_map *usual_map(struct trial *t, uint64_t address)
{
    for (unsigned i = 0; i < t->n_usual_maps; i++) {
        if (t->usual_maps[i].address == address)
            return &t->usual_maps[i];
    }
    return NULL;
}

/* What the baseline shows of maps. */
static void note_maps(struct trial *t, const struct ob_raw_message *m)
{
    bool unmap = m->header.command == OB_RAW_DMA_UNMAP;
    struct usual_map *usual = unmap ? usual_map(t, get64(m, 8)) : NULL;

    if (usual != NULL)
        usual->ends = true;
    for (unsigned i = 0; i < t->n_usual_maps && !unmap; i++)
        t->usual_maps[i].goes |= t->usual_maps[i].ends;
    for (size_t i = 0; i < t->model.n_maps && model_bus_master(&t->model); i++) {
        const struct model_map *map = &t->model.maps[i];

        if (t->n_usual_maps < MAX_USUAL_MAPS && usual_map(t, map->address) == NULL)
            t->usual_maps[t->n_usual_maps++] =
                (struct usual_map){ .address = map->address, .sorts = trial_map_sorts(map) };
    }
}

void trial_answer(struct trial *t, struct ob_raw_message *m)
{
    struct reply *reply = trial_reply(t, m);

    trial_send(t, reply);
    reply_free(reply);
    take_twin(t);
    if (!t->known)
        note_maps(t, m);
}

void trial_refuse(struct trial *t, const struct ob_raw_message *m, uint32_t error)
{
    struct reply reply = { .none = m->header.flags & OB_RAW_NO_REPLY,
                           .header = { .id = m->header.id, .command = m->header.command, .size = sizeof(m->header) } };

    reply_refuse(&reply, error);
    trial_send(t, &reply);
}

void trial_serve(struct trial *t)
{
    struct ob_raw_message *m;

    while ((m = trial_next(t)) != NULL)
        trial_answer(t, m);
}

/* --- Commands of the server's ------------------------------------------------------------------------------------- */

/* Whether the client has memory of these sorts in the baseline, that stays or not. */
static bool has_usual_map(const struct trial *t, unsigned sorts, bool stays)
{
    for (unsigned i = 0; i < t->n_usual_maps; i++) {
        const struct usual_map *usual = &t->usual_maps[i];

        if ((usual->sorts & sorts) == sorts && !(stays && usual->goes))
            return true;
    }
    return false;
}

bool trial_has_map(const struct trial *t, unsigned sorts)
{
    return has_usual_map(t, sorts, false);
}

/* One that stays, if there is any: the client may unmap another at any moment. */
static const struct model_map *find_map(struct trial *t, unsigned sorts)
{
    bool stays = has_usual_map(t, sorts, true);

    for (size_t i = 0; i < t->model.n_maps && model_bus_master(&t->model); i++) {
        const struct usual_map *usual = usual_map(t, t->model.maps[i].address);

        if ((trial_map_sorts(&t->model.maps[i]) & sorts) == sorts && !(stays && (usual == NULL || usual->goes)))
            return &t->model.maps[i];
    }
    return NULL;
}

struct model_map trial_await_map(struct trial *t, unsigned sorts)
{
    const struct model_map *map;
    struct ob_raw_message *m;

    if (!trial_has_map(t, sorts))
        trial_skip(t, "the client maps no %s%smemory%s while bus mastering is on",
                   sorts & MAP_NO_READ    ? "unreadable "
                   : sorts & MAP_NO_WRITE ? "unwriteable "
                                          : "",
                   sorts & MAP_READ && sorts & MAP_WRITE ? "readable and writeable " : "",
                   sorts & MAP_FD      ? " with a descriptor"
                   : sorts & MAP_NO_FD ? " without a descriptor"
                                       : "");
    while ((map = find_map(t, sorts)) == NULL) {
        m = trial_next(t);
        trial_want(t, m != NULL, "the client should map memory as it does otherwise: %s", trial_end_text(t));
        trial_answer(t, m);
    }
    return *map;
}

uint64_t trial_hole(const struct trial *t)
{
    uint64_t hole = UINT64_C(1) << 52;

    while (model_map_of(&t->model, hole, 1) != NULL)
        hole += UINT64_C(1) << 40;
    return hole;
}

uint16_t trial_dma(struct trial *t, uint16_t command, uint32_t flags, uint64_t address, uint64_t count,
                   const void *data, size_t size)
{
    const struct ob_raw_dma dma = { .address = address, .count = count };
    struct ob_raw_header header = { .id = (uint16_t)(TRIAL_FIRST_ID + t->next_id++),
                                    .command = command,
                                    .flags = flags,
                                    .size = (uint32_t)(sizeof(header) + sizeof(dma) + size) };
    struct channel *channel = t->twin.fd >= 0 ? &t->twin : &t->main;
    uint8_t *bytes;

    t->used_dma = true;
    if (t->dma == NOT_SERVED && t->check->run != dma_served)
        trial_skip(t, "the client serves no DMA_READ");
    bytes = trial_alloc(t, header.size);
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &dma, sizeof(dma));
    if (size > 0)
        memcpy(bytes + sizeof(header) + sizeof(dma), data, size);
    transcript_add(t->transcript, true, bytes, header.size, 0);
    if (channel_send(channel, bytes, header.size, NULL, 0, t->timeout_ms) == -ETIMEDOUT)
        trial_fail(t, "the client does not read what is sent to it for %d ms", t->timeout_ms);
    return header.id;
}

struct ob_raw_message *trial_dma_reply(struct trial *t, const char *what)
{
    while (t->answers == NULL) {
        if (t->commands != NULL)
            trial_answer(t, take_command(t));
        else if (!pump(t))
            trial_fail(t, "%s: the client should answer, and did not; %s", what, trial_end_text(t));
    }
    return take_first(t, &t->answers);
}

struct ob_raw_message *trial_dma_reply_now(struct trial *t, const char *what)
{
    while (t->answers == NULL) {
        if (!pump(t))
            trial_fail(t, "%s: the client should answer, though its own command is not answered yet; %s", what,
                       trial_end_text(t));
    }
    return take_first(t, &t->answers);
}

bool trial_refused(struct trial *t, const struct ob_raw_message *reply)
{
    const struct ob_raw_header *h = &reply->header;

    trial_want(t, h->flags == OB_RAW_REPLY || h->flags == (OB_RAW_REPLY | OB_RAW_ERROR),
               "the client's reply has flags %#x", h->flags);
    return h->flags & OB_RAW_ERROR;
}
