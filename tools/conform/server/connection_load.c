/* connection_load.c: VU-CON: clients that stop, do not read, come beside another, or send nonsense; and the server's
 * own commands among the client's. */
#include "guest.h"
#include "irqs.h"
#include "scratch.h"

#include <poll.h>
#include <time.h>

#include "../transcript.h"

#define BASE 0x10000000ull

static const uint32_t get_info[4] = { 16 };

/* --- The server waits for a reply of its own --------------------------------------------------------------------- */

static void commands_kept(struct judge *j)
{
    struct guest_pair pair;
    const struct ob_raw_message *asked = guest_read_waits(j, &pair);
    const uint16_t first = j->raw.next_id;

    for (unsigned i = 0; i < 20; i++)
        send_command(j, OB_RAW_GET_INFO, 0, get_info, sizeof(get_info));
    guest_read_answer(j, asked);
    for (unsigned i = 0; i < 20; i++)
        want_ok(j, ob_raw_reply(&j->raw, (uint16_t)(first + i), OB_RAW_GET_INFO, NULL),
                "GET_INFO that came while the server waited for a reply");
    guest_read_done(j, &pair, "commands between its DMA_READ and the reply to that");
}

static void commands_executed(struct judge *j)
{
    struct guest_pair pair;
    const struct ob_raw_message *asked = guest_read_waits(j, &pair);

    want_alive(j, "GET_INFO while the server waits for a reply");
    config_read(j, 0, 4);
    want_ok(j, map(j, BASE, j->facts.page, 3, -1, 0), "DMA_MAP while the server waits for a reply");
    want_ok(j, unmap(j, BASE, j->facts.page), "DMA_UNMAP while the server waits for a reply");
    guest_read_answer(j, asked);
    guest_read_done(j, &pair, "commands between its DMA_READ and the reply to that");
}

/* --- Clients that stop ------------------------------------------------------------------------------------------- */

/* One that polls uses processor time whatever a client does. */
static void not_polling(struct judge *j)
{
    if (!(j->facts.has & NEED_NEXT))
        return; /* it ends with its client */
    judge_close(j);
    if (!server_rests(j, 1000))
        judge_skip(j, "the server's process does not sleep without a client either");
    judge_reconnect(j);
}

/* One that answers half a message, or ends the connection, does not wait: that is for connection-split-* to say. */
static bool waits(const struct judge *j)
{
    struct pollfd answer = { .fd = j->raw.fd, .events = POLLIN };

    return poll(&answer, 1, 0) == 0;
}

static void rests_in_half(struct judge *j)
{
    static const size_t cuts[] = { 1, 15, 16, 33 };
    uint8_t bytes[SCRATCH_WRITE_SIZE];
    unsigned waited = 0;
    char what[64];

    not_polling(j);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        scratch_write(j, bytes, 1, 0, 0);
        snprintf(what, sizeof(what), "a client that stops after %zu bytes of %zu", cuts[i], sizeof(bytes));
        send_bytes(j, bytes, cuts[i], NULL, 0);
        wait_taken(j);
        want_rest(j, what);
        waited += waits(j);
        judge_reconnect(j);
    }
    if (waited == 0)
        judge_skip(j, "the server does not wait for the rest of a message");
}

static void rests_idle(struct judge *j)
{
    not_polling(j);
    want_rest(j, "a client that sends nothing");
}

static void rests_before_version(struct judge *j)
{
    not_polling(j);
    judge_reconnect_bare(j);
    want_rest(j, "a client that does not begin");
    judge_reconnect(j);
}

/* Reads of configuration space, one after the other. */
struct reads {
    uint8_t bytes[2048 * 32];
    size_t sent; /* of them, over and over */
};

static void build_reads(struct judge *j, struct reads *reads)
{
    const struct region_facts *config = &j->facts.region[VFIO_PCI_CONFIG_REGION_INDEX];
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, (uint32_t)config->size };

    for (size_t at = 0; at < sizeof(reads->bytes);)
        at += ob_raw_build(reads->bytes + at, 7, OB_RAW_REGION_READ, 0, &read, sizeof(read));
}

/* Sends until the server has stopped reading. */
static void fill(struct judge *j, struct reads *reads)
{
    struct pollfd room = { .fd = j->raw.fd, .events = POLLOUT };

    while (reads->sent < 16u << 20) {
        const size_t at = reads->sent % sizeof(reads->bytes);
        ssize_t n = ob_raw_send_some(&j->raw, reads->bytes + at, sizeof(reads->bytes) - at);

        want(j, n >= 0, "a client that does not read its replies: the connection was closed after %zu bytes",
             reads->sent);
        reads->sent += (size_t)n;
        if (n == 0 && server_rests(j, 20) && poll(&room, 1, 0) == 0)
            return;
    }
    judge_fail(j, "the server has taken 16 MiB of commands from a client that has not read a reply");
}

static void stops_reading(struct judge *j)
{
    struct reads *reads = judge_alloc(j, sizeof(*reads));
    const long before = server_memory(j);
    size_t rest;
    long after;

    not_polling(j);
    build_reads(j, reads);
    fill(j, reads);
    after = server_memory(j);
    want(j, after - before < 32768, "a client did not read its replies, and the server's memory grew by %ld KiB",
         after - before);
    rest = -reads->sent % 32;
    send_bytes(j, reads->bytes + reads->sent % 32, rest, NULL, 0);
    for (size_t i = 0; i < (reads->sent + rest) / 32; i++)
        want_ok(j, ob_raw_reply(&j->raw, 7, OB_RAW_REGION_READ, NULL), "a reply that had to wait");
    want_alive(j, "after all replies were read");
}

/* --- In time ----------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static void answered_in_time(struct judge *j, uint16_t command, const void *payload, size_t size, int fd)
{
    int64_t before = now_ms(), took;

    got(j, call(j, command, payload, size, &fd, fd >= 0, NULL), command_name(command));
    took = now_ms() - before;
    want(j, took < 5000, "%s was answered after %lld ms, wanted at most 5000", command_name(command), (long long)took);
}

static void in_time(struct judge *j)
{
    const struct ob_raw_dma_map map = { 32, 3, 0, BASE, j->facts.page };
    const struct ob_raw_dma_unmap unmap = { 24, 0, BASE, j->facts.page };
    const struct vfio_irq_info irq = { .argsz = 16 };
    const struct vfio_irq_set set = { .argsz = sizeof(set), .flags = NONE | TRIGGER, .index = INTX }; /* disables it */
    const struct ob_raw_region read = { 0, VFIO_PCI_CONFIG_REGION_INDEX, 64 };
    const uint32_t feature[2] = { 8,
                                  VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_PROBE };

    answered_in_time(j, OB_RAW_GET_INFO, get_info, sizeof(get_info), -1);
    for (uint32_t i = 0; i < j->facts.regions && i < MAX_REGIONS; i++) {
        const struct vfio_region_info region = { .argsz = 4096, .index = i };

        answered_in_time(j, OB_RAW_GET_REGION_INFO, &region, sizeof(region), -1);
    }
    answered_in_time(j, OB_RAW_GET_IRQ_INFO, &irq, 16, -1);
    answered_in_time(j, OB_RAW_SET_IRQS, &set, sizeof(set), -1);
    answered_in_time(j, OB_RAW_DMA_MAP, &map, sizeof(map), judge_memfd(j, j->facts.page));
    answered_in_time(j, OB_RAW_REGION_READ, &read, sizeof(read), -1);
    if (j->facts.has & NEED_RESET)
        answered_in_time(j, OB_RAW_RESET, NULL, 0, -1);
    answered_in_time(j, OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap), -1);
    answered_in_time(j, OB_RAW_FEATURE, feature, sizeof(feature), -1);
}

/* --- A second client --------------------------------------------------------------------------------------------- */

static uint16_t send_version(struct ob_raw *raw)
{
    uint8_t payload[256] = { 0 };
    uint16_t id = 0;

    memcpy(payload + 4, judge_capabilities, strlen(judge_capabilities));
    ob_raw_request(raw, OB_RAW_VERSION, 0, payload, 4 + strlen(judge_capabilities) + 1, NULL, 0, &id);
    return id;
}

/* Whatever becomes of it, the first client's session is as it was. */
static void second_client(struct judge *j)
{
    struct ob_raw *second;

    scratch_begin(j);
    scratch_set(j, 1);
    want_ok(j, map(j, BASE, j->facts.page, 3, -1, 0), "DMA_MAP");
    second = judge_beside(j);
    want_alive(j, "beside a second client");
    if (second != NULL)
        send_version(second);
    want_alive(j, "beside a second client that has sent VERSION");
    want_scratch(j, 1, "beside a second client");
    if (second != NULL)
        ob_raw_close(second);
    want_alive(j, "after a second client");
    want_scratch(j, 1, "after a second client");
    want_ok(j, unmap(j, BASE, j->facts.page), "DMA_UNMAP after a second client");
    judge_reconnect(j); /* and neither disturbed the next */
}

static void second_clients(struct judge *j)
{
    for (unsigned i = 0; i < 8; i++) {
        struct ob_raw *second = judge_beside(j);

        want_alive(j, "beside clients that come and go");
        if (second != NULL)
            ob_raw_close(second);
    }
    judge_reconnect(j);
}

static void second_waits(struct judge *j)
{
    struct ob_raw *second = judge_beside(j);
    int r = -ENOTCONN;

    want_alive(j, "beside a second client");
    if (second != NULL) {
        uint16_t id = send_version(second);

        judge_close(j);
        r = ob_raw_reply(second, id, OB_RAW_VERSION, NULL);
    }
    want(j, r == 0 || r == -ENOTCONN,
         "a second client that was not turned away is not served after the first has gone: %s",
         r > 0 ? strerror(r) : second->why);
}

/* --- Nonsense ---------------------------------------------------------------------------------------------------- */

/* The same bytes in every run. */
static uint32_t next_number(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* A payload of words that are small, large, at a boundary, or anything. Accesses go to no region. */
static size_t nonsense(struct judge *j, uint16_t command, uint8_t *payload, uint32_t *state)
{
    const uint32_t kinds[] = { 0, 1, 2, 8, 16, 32, 4096, 0x10000, 0x20001, 0x7fffffff, 0x80000000, 0xffffffff };
    const size_t size = next_number(state) % 65;
    uint32_t words[16];

    for (unsigned i = 0; i < 16; i++) {
        uint32_t choice = next_number(state) % 16;

        words[i] = choice < sizeof(kinds) / sizeof(*kinds) ? kinds[choice] : next_number(state);
    }
    if (command == OB_RAW_REGION_READ || command == OB_RAW_REGION_WRITE)
        words[2] = j->facts.regions + (words[2] & 0xffff);
    for (unsigned i = 0; command == OB_RAW_WRITE_MULTI && i < 2; i++)
        words[4 + 6 * i] = j->facts.regions + (words[4 + 6 * i] & 0xffff);
    if (command == OB_RAW_FEATURE)
        words[1] &= ~(uint32_t)VFIO_DEVICE_FEATURE_SET; /* leaves the device as it is */
    memcpy(payload, words, sizeof(words));
    return size;
}

/* A server that does not answer one, or answers what was none, fails checks of VU-HDR-19 and VU-HDR-31. */
static void send_nonsense(struct judge *j, uint32_t seed, int fd)
{
    unsigned out_of_step = 0;
    uint32_t state = seed;

    for (unsigned i = 0; i < 600; i++) {
        const uint16_t command = (uint16_t)(2 + next_number(&state) % 19);
        const uint32_t flags = next_number(&state) % 4 == 0 ? OB_RAW_NO_REPLY : 0;
        const bool with = fd >= 0 && next_number(&state) % 2 == 0;
        uint8_t payload[64];
        size_t size = nonsense(j, command, payload, &state);
        uint16_t id = 0;
        int r = ob_raw_request(&j->raw, command, flags, payload, size, &fd, with, &id);

        if (r == 0 && flags == 0)
            r = ob_raw_reply(&j->raw, id, command, NULL);
        out_of_step += r < 0 && r != -ENOTCONN;
        if (r < 0)
            judge_reconnect(j);
        if (out_of_step == 4)
            judge_skip(j, "the server is out of step after malformed commands");
    }
    judge_reconnect(j);
    want_alive(j, "after 600 commands of nonsense");
}

static void malformed(struct judge *j)
{
    for (uint32_t seed = 1; seed <= 3; seed++)
        send_nonsense(j, seed * 0x9e3779b9u, -1);
}

static void malformed_leaks(struct judge *j)
{
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    send_nonsense(j, 0x2545f491, theirs);
    judge_give(j, theirs);
    judge_reconnect(j);
    want_hangup(j, mine, "a descriptor that came with nonsense");
}

const struct check server_connection_load_checks[] = {
    { { "connection-dma-keeps", "VU-CON-10", "commands that come while the server waits for a reply are not lost" },
      NEED_DMA,
      commands_kept },
    { { "connection-dma-goes-on", "VU-CON-32", "commands are executed while the server waits for a reply" },
      NEED_DMA,
      commands_executed },
    { { "connection-rests-half", "VU-CON-11", "a client that stops in a message costs no processor time" },
      NEED_SPAWN,
      rests_in_half },
    { { "connection-rests-idle", "VU-CON-11", "a client that sends nothing costs no processor time" },
      NEED_SPAWN,
      rests_idle },
    { { "connection-rests-early", "VU-CON-11", "nor does one that sends no VERSION" },
      NEED_SPAWN,
      rests_before_version },
    { { "connection-unread", "VU-CON-12", "a client that does not read is not read from, and loses nothing" },
      NEED_SPAWN,
      stops_reading },
    { { "connection-in-time", "VU-CON-24", "every command is answered within 5 s" }, 0, in_time },
    { { "connection-second", "VU-CON-25", "a second client does not disturb the first" }, NEED_EARLY, second_client },
    { { "connection-second-many", "VU-CON-25", "nor do some that come and go" }, NEED_EARLY, second_clients },
    { { "connection-second-waits", "VU-CON-25", "a second client is served after the first, or turned away" },
      0,
      second_waits },
    { { "connection-malformed", "VU-CON-26", "1800 malformed commands do no harm" }, 0, malformed },
    { { "connection-malformed-fds", "VU-CON-26", "nor do they leak descriptors" }, 0, malformed_leaks },
    { { NULL, NULL, NULL }, 0, NULL },
};
