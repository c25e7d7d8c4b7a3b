/* connection_end.c: VU-CON: what ends with the connection, and what stays for the next client. */
#include "guest.h"
#include "irqs.h"
#include "scratch.h"

#include <sys/socket.h>

#include "../transcript.h"

#define BASE 0x10000000ull

static const uint32_t get_info[4] = { 16 };

/* --- Maps -------------------------------------------------------------------------------------------------------- */

static void end_of_maps(struct judge *j)
{
    const uint64_t page = j->facts.page;

    want_ok(j, map(j, BASE, 4 * page, 3, -1, 0), "DMA_MAP");
    want_ok(j, map(j, BASE + 4 * page, 4 * page, 3, judge_memfd(j, 4 * page), 0), "DMA_MAP");
    judge_reconnect(j);
    want_refused(j, unmap(j, BASE, 4 * page), "DMA_UNMAP of the last client's map");
    want_refused(j, unmap(j, BASE + 4 * page, 4 * page), "DMA_UNMAP of the last client's map of a file");
    want_ok(j, map(j, BASE, 8 * page, 3, -1, 0), "DMA_MAP where the last client had maps");
}

static void end_of_files(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int watch[8];

    for (unsigned i = 0; i < 8; i++) {
        int fd = judge_watched_file(j, 2 * page, &watch[i]);

        want_ok(j, map(j, BASE + 2 * i * page, page, 3, fd, 0), "DMA_MAP of a file");
        want_ok(j, map(j, BASE + (2 * i + 1) * page, page, 1, fd, page), "DMA_MAP of its other page");
        judge_give(j, fd);
    }
    judge_reconnect(j);
    for (unsigned i = 0; i < 8; i++)
        want_released(j, watch[i], "the file of a map, after the client disconnected");
}

/* The device has been there. */
static void end_of_used_file(struct judge *j)
{
    const uint64_t page = j->facts.page;
    const struct guest_map from = { .address = GUEST_FROM, .size = page, .prot = GUEST_BOTH };
    const struct guest_map to = { .address = GUEST_TO, .size = page, .prot = GUEST_BOTH };
    struct guest_map file = { 0 };
    int watch;

    file.fd = judge_watched_file(j, 2 * page, &watch);
    file.bytes = judge_mmap(j, watch, 2 * page, 0, 3);
    device_on(j, true);
    guest_map_part(j, &file, 0, &from, true);
    guest_map_part(j, &file, page, &to, true);
    judge_give(j, file.fd);
    transfer_ok(j, GUEST_FROM, GUEST_TO, GUEST_LEN, "from one page of a file to the other");
    judge_reconnect(j);
    want_released(j, watch, "a file that the device has copied in, after the client disconnected");
}

/* --- Eventfds ---------------------------------------------------------------------------------------------------- */

static void eventfds_closed(struct judge *j)
{
    const unsigned before = server_descriptors(j);

    for (unsigned turn = 0; turn < 4; turn++) {
        irqs_ready(j, irqs_any(j));
        judge_reconnect(j);
    }
    want_descriptors(j, before, "after four clients that gave eventfds");
}

static void eventfds_silent(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    int fd = irqs_ready(j, index)[0];

    irqs_needs_loopback(j, index);
    irqs_trigger(j, index, 0, 1);
    want_signal(j, fd, "a triggered interrupt");
    judge_reconnect(j);
    irqs_ready(j, index);
    irqs_trigger(j, index, 0, 1);
    want(j, signals(j, fd) == 0, "the eventfd of a client that is gone was signalled");
}

/* The next client gives none, so that nothing is replaced. */
static void eventfds_not_raised(struct judge *j)
{
    uint32_t index = device_irq(j);
    int fd = judge_eventfd(j);

    device_on(j, true);
    device_messages(j, index, true);
    irqs_assign(j, index, 0, 1, &fd);
    judge_reconnect(j);
    device_on(j, true);
    device_messages(j, index, true);
    device_raise(j, index, 0);
    device_lower(j, index, 0);
    want_alive(j, "afterwards");
    want(j, signals(j, fd) == 0, "the device signalled the eventfd of a client that is gone");
}

/* --- What stays -------------------------------------------------------------------------------------------------- */

static void keeps_registers(struct judge *j)
{
    scratch_begin(j);
    for (unsigned n = 0; n < 8; n++) {
        scratch_set(j, n);
        judge_reconnect(j);
        want_scratch(j, n, "what the last client wrote");
    }
}

static uint64_t read_memory(struct judge *j)
{
    const struct region_facts *r = &j->facts.region[j->facts.mappable];

    return bar_read(j, j->facts.mappable, r->area_offset, 8);
}

static void write_memory(struct judge *j, uint64_t value)
{
    const struct region_facts *r = &j->facts.region[j->facts.mappable];

    bar_write(j, j->facts.mappable, r->area_offset, 8, value);
}

static void keeps_memory(struct judge *j)
{
    const uint64_t was = read_memory(j), is = ~was;

    write_memory(j, is);
    judge_reconnect(j);

    const uint64_t found = read_memory(j);

    write_memory(j, was);
    want(j, found == is, "the last client wrote %#llx to memory, and %#llx is there", (unsigned long long)is,
         (unsigned long long)found);
}

/* --- The next client --------------------------------------------------------------------------------------------- */

static void next_client(struct judge *j)
{
    const uint64_t page = j->facts.page;
    int memory = judge_memfd(j, page);

    for (unsigned i = 0; i < 32; i++) {
        want_ok(j, map(j, BASE, page, 3, memory, 0), "DMA_MAP by the next client");
        judge_reconnect(j);
    }
}

static void next_client_irqs(struct judge *j)
{
    const uint32_t index = irqs_any(j);

    for (unsigned i = 0; i < 32; i++) {
        int fd = irqs_ready(j, index)[0];

        irqs_needs_loopback(j, index);
        irqs_trigger(j, index, 0, 1);
        want_signal(j, fd, "the next client's interrupt");
        judge_reconnect(j);
    }
}

/* The survey has tried one. */
static void after_silent_client(struct judge *j)
{
    want(j, !j->target->needs_session, "the server's process ends with a client that has no session");
    for (unsigned i = 0; i < 32; i++)
        judge_reconnect_bare(j);
    judge_reconnect(j);
    want_alive(j, "after 32 clients that sent nothing");
}

static void after_framing(struct judge *j)
{
    const struct ob_raw_header bad = { 3, OB_RAW_GET_INFO, 1, 0, 0 };

    for (unsigned i = 0; i < 4; i++) {
        send_bytes(j, &bad, sizeof(bad), NULL, 0);
        wait_taken(j);
        judge_reconnect(j);
    }
    want_alive(j, "after clients that sent a header of size 1");
}

static void after_unread(struct judge *j)
{
    for (unsigned turn = 0; turn < 4; turn++) {
        for (unsigned i = 0; i < 200; i++)
            send_command(j, OB_RAW_GET_INFO, 0, get_info, sizeof(get_info));
        judge_abandon(j);
        judge_reconnect(j);
    }
    want_alive(j, "after clients that left without their replies");
}

/* --- What is forgotten ------------------------------------------------------------------------------------------- */

static void forgets_version(struct judge *j)
{
    if (j->facts.early)
        judge_skip(j, "the server does not ask for VERSION at all");
    judge_reconnect_bare(j);

    int r = call(j, OB_RAW_GET_INFO, get_info, sizeof(get_info), NULL, 0, NULL);

    want(j, r == -ENOTCONN || r > 0, "GET_INFO without VERSION, which the last client had sent: succeeded");
    judge_reconnect(j);
}

static void forgets_limits(struct judge *j)
{
    const struct vfio_region_info get = { .argsz = j->facts.region[j->facts.mappable].argsz,
                                          .index = j->facts.mappable };
    struct ob_raw_message *m;

    judge_reconnect_bare(j);
    want_ok(j, judge_version(j, 0, 0, "{\"capabilities\":{\"max_msg_fds\":0}}", NULL), "VERSION with max_msg_fds 0");
    judge_reconnect(j);
    want_ok(j, call(j, OB_RAW_GET_REGION_INFO, &get, sizeof(get), NULL, 0, &m), "GET_REGION_INFO");
    want(j, m->nfds == 1, "%u descriptors came after a client with max_msg_fds 0, wanted 1", m->nfds);
}

static void forgets_logging(struct judge *j)
{
    const struct {
        uint32_t argsz, flags;
        uint64_t page;
        uint32_t ranges, reserved;
    } start = { 24, VFIO_DEVICE_FEATURE_DMA_LOGGING_START | VFIO_DEVICE_FEATURE_SET, 4096, 0, 0 };
    const struct {
        uint32_t argsz, flags;
        uint64_t iova, length, page;
    } report = { 40, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | VFIO_DEVICE_FEATURE_GET, BASE, 64 * 4096, 4096 };

    want_ok(j, call(j, OB_RAW_FEATURE, &start, sizeof(start), NULL, 0, NULL), "DMA_LOGGING_START");
    judge_reconnect(j);
    /* Of what is not mapped a report may be refused in any case. */
    want_ok(j, map(j, BASE, report.length, 3, judge_memfd(j, report.length), 0), "DMA_MAP");
    want_refused(j, call(j, OB_RAW_FEATURE, &report, sizeof(report), NULL, 0, NULL),
                 "a DMA_LOGGING_REPORT of what the last client had started");
}

/* --- Half a message ---------------------------------------------------------------------------------------------- */

static void half_write(struct judge *j, uint32_t flags)
{
    uint8_t bytes[SCRATCH_WRITE_SIZE];
    char what[80];

    scratch_begin(j);
    for (size_t cut = 1; cut < sizeof(bytes); cut++) {
        scratch_write(j, bytes, 1, flags, 1);
        send_bytes(j, bytes, cut, NULL, 0);
        judge_reconnect(j);
        snprintf(what, sizeof(what), "a write of which %zu bytes of %zu came", cut, sizeof(bytes));
        want_scratch(j, 0, what);
    }
}

static void half_register(struct judge *j)
{
    half_write(j, 0);
}

static void half_posted(struct judge *j)
{
    half_write(j, OB_RAW_NO_REPLY);
}

/* Nothing is written of data that came but for its last byte. */
static void half_memory(struct judge *j)
{
    const struct region_facts *r = &j->facts.region[j->facts.mappable];
    const uint32_t count = j->facts.max_data < 4096 ? j->facts.max_data : 4096;
    const struct ob_raw_region access = { r->area_offset, j->facts.mappable, count };
    uint8_t *bytes = judge_alloc(j, 16 + sizeof(access) + count), *payload = judge_alloc(j, sizeof(access) + count);
    const uint64_t was = read_memory(j);
    uint64_t is;

    memcpy(payload, &access, sizeof(access));
    memset(payload + sizeof(access), (int)(~was & 0xff), count);

    const size_t size = ob_raw_build(bytes, 1, OB_RAW_REGION_WRITE, 0, payload, sizeof(access) + count);

    send_bytes(j, bytes, size - 1, NULL, 0);
    judge_reconnect(j);
    is = read_memory(j);
    write_memory(j, was);
    want(j, is == was, "of a write of %u bytes whose last one did not come, the first are in memory", count);
}

const struct check server_connection_end_checks[] = {
    { { "connection-end-maps", "VU-CON-13", "the maps of a client end with it" }, NEED_NEXT | NEED_MAPS, end_of_maps },
    { { "connection-end-files", "VU-CON-13", "the files of a client's maps are closed with it" },
      NEED_NEXT,
      end_of_files },
    { { "connection-end-used-file", "VU-CON-13", "so is a file that the device has used" },
      NEED_DMA | NEED_NEXT,
      end_of_used_file },
    { { "connection-end-eventfds", "VU-CON-14", "a client's eventfds are closed with it" },
      NEED_IRQ | NEED_SPAWN | NEED_NEXT,
      eventfds_closed },
    { { "connection-end-trigger", "VU-CON-14", "a client's eventfd is not signalled when the next triggers" },
      NEED_IRQ | NEED_NEXT,
      eventfds_silent },
    { { "connection-end-raise", "VU-CON-14", "a client's eventfd is not signalled by the device after it" },
      NEED_INTERRUPT | NEED_NEXT,
      eventfds_not_raised },
    { { "connection-keeps-registers", "VU-CON-15", "the next client finds COMMAND as it was" },
      NEED_NEXT,
      keeps_registers },
    { { "connection-keeps-memory", "VU-CON-15", "the next client finds memory as it was" },
      NEED_MEMORY | NEED_NEXT,
      keeps_memory },
    { { "connection-next", "VU-CON-16", "32 clients in a row map the same range" }, NEED_NEXT, next_client },
    { { "connection-next-irqs", "VU-CON-16", "32 clients in a row get interrupts" },
      NEED_IRQ | NEED_NEXT,
      next_client_irqs },
    { { "connection-next-silent", "VU-CON-16", "a client is served after some that sent nothing" },
      NEED_NEXT,
      after_silent_client },
    { { "connection-next-framing", "VU-CON-16", "a client is served after some that sent a header of size 1" },
      NEED_NEXT,
      after_framing },
    { { "connection-next-unread", "VU-CON-16", "a client is served after some that did not read their replies" },
      NEED_NEXT,
      after_unread },
    { { "connection-forgets-version", "VU-CON-17", "the next client has to negotiate" }, NEED_NEXT, forgets_version },
    { { "connection-forgets-limits", "VU-CON-17", "the last client's limits do not bind the next" },
      NEED_MAPPABLE | NEED_NEXT,
      forgets_limits },
    { { "connection-forgets-logging", "VU-MIG-38", "DMA logging ends with the client" },
      NEED_LOGGING | NEED_NEXT,
      forgets_logging },
    { { "connection-half-write", "VU-CON-18", "a write that is cut off at any byte is not executed" },
      NEED_NEXT,
      half_register },
    { { "connection-half-posted", "VU-CON-18", "nor is a posted one" }, NEED_NEXT, half_posted },
    { { "connection-half-memory", "VU-CON-18", "nothing is written of a write that lacks its last byte" },
      NEED_MEMORY | NEED_NEXT,
      half_memory },
    { { NULL, NULL, NULL }, 0, NULL },
};
