/* io_fds.c: VU-IOFD: GET_REGION_IO_FDS, an optional command: a server that refuses it for every region does not have
 * it, and is not judged. */
#include "access.h"

#include <linux/kvm.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#define HEAD 16u /* of the reply, before its entries */

enum { IOEVENTFD, IOREGIONFD };
#define POSTED_WRITES (1u << 1) /* KVM_IOREGION_POSTED_WRITES: the kernel never took ioregionfds */

struct entry {
    uint64_t offset, size;
    uint32_t fd_index, type, flags, padding;
    uint64_t data;
};

static int ask(struct judge *j, uint32_t index, uint32_t argsz, struct ob_raw_message **reply)
{
    struct ob_raw_io_fds request = { .argsz = argsz, .index = index };

    return call(j, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), NULL, 0, reply);
}

/* The complete reply for a region; NULL: it is refused. */
static struct ob_raw_message *complete(struct judge *j, uint32_t index)
{
    struct ob_raw_message *m;

    if (ask(j, index, HEAD, &m) != 0)
        return NULL;
    if (field32(j, m, 0) > HEAD)
        want_ok(j, ask(j, index, field32(j, m, 0), &m), "GET_REGION_IO_FDS with the argsz that was answered");
    want(j, m->size >= HEAD, "region %u: a payload of %u bytes, wanted 16 or more", index, m->size);
    return m;
}

static uint32_t a_region(struct judge *j)
{
    for (uint32_t i = 0; i < regions(j); i++) {
        if (j->facts.region[i].io_fds)
            return i;
    }
    judge_skip(j, "GET_REGION_IO_FDS is refused for every region");
}

/* Calls `check` with each complete reply. */
static void each_reply(struct judge *j, void (*check)(struct judge *j, uint32_t index, const struct ob_raw_message *m))
{
    for (uint32_t i = a_region(j); i < regions(j); i++) {
        const struct ob_raw_message *m = complete(j, i);

        if (m != NULL)
            check(j, i, m);
    }
}

static void head(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(j, field32(j, m, 4) == 0 && field32(j, m, 8) == index, "region %u: flags %#x and index %u, wanted 0 and %u",
         index, field32(j, m, 4), field32(j, m, 8), index);
}

static void io_fds_head(struct judge *j)
{
    each_reply(j, head);
}

static void size(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(j, field32(j, m, 0) == m->size, "region %u: argsz is %u in a complete reply with a payload of %u bytes", index,
         field32(j, m, 0), m->size);
}

static void io_fds_size(struct judge *j)
{
    each_reply(j, size);
}

static void none(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(j, field32(j, m, 12) > 0 || (field32(j, m, 0) == HEAD && m->size == HEAD && m->nfds == 0),
         "region %u: count 0 with argsz %u, a payload of %u bytes and %u descriptors, wanted 16, 16 and none", index,
         field32(j, m, 0), m->size, m->nfds);
}

static void io_fds_none(struct judge *j)
{
    a_region(j);
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = complete(j, i);

        if (m != NULL)
            none(j, i, m);
    }
}

/* --- Entries ----------------------------------------------------------------------------------------------------- */

static void stride(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    const uint32_t count = field32(j, m, 12), size = field32(j, m, 0) - HEAD;

    want(j, count == 0 || size % count == 0, "region %u: argsz is %u, which is not 16 and %u entries of one size",
         index, field32(j, m, 0), count);
    want(j, count > 0 || size == 0, "region %u: argsz is %u and count is 0", index, field32(j, m, 0));
}

static void io_fds_stride(struct judge *j)
{
    each_reply(j, stride);
}

static void entry_size(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    const uint32_t count = field32(j, m, 12), size = count > 0 ? (field32(j, m, 0) - HEAD) / count : 40;

    want(j, size >= 40, "region %u: entries have %u bytes, wanted 40 or more", index, size);
    if (size != 40)
        judge_advise(j, "region %u: entries have %u bytes, and 40 in the text: clients look for datamatch at 32", index,
                     size);
}

static void io_fds_entry_size(struct judge *j)
{
    each_reply(j, entry_size);
}

/* Calls `check` with each entry of every region, however long it is. */
static void each_entry(struct judge *j, void (*check)(struct judge *j, uint32_t index, const struct ob_raw_message *m,
                                                      uint32_t number, const struct entry *e))
{
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = complete(j, i);
        const uint32_t count = m != NULL ? field32(j, m, 12) : 0;
        const size_t each = count > 0 ? (m->size - HEAD) / count : 0;

        for (uint32_t k = 0; k < count; k++) {
            struct entry e;

            want(j, each >= sizeof(e), "region %u: %u entries in a payload of %u bytes", i, count, m->size);
            memcpy(&e, m->payload + HEAD + k * each, sizeof(e));
            check(j, i, m, k, &e);
        }
    }
}

static void entry_type(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                       const struct entry *e)
{
    want(j, e->type == IOEVENTFD || e->type == IOREGIONFD,
         "region %u: entry %u is of type %u, wanted 0 (ioeventfd) or 1 (ioregionfd)", index, number, e->type);
}

static void io_fds_type(struct judge *j)
{
    each_entry(j, entry_type);
}

static void entry_fd(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                     const struct entry *e)
{
    want(j, e->fd_index < m->nfds, "region %u: entry %u has fd_index %u, and %u descriptors came", index, number,
         e->fd_index, m->nfds);
}

static void io_fds_index(struct judge *j)
{
    each_entry(j, entry_fd);
}

static void descriptors(struct judge *j, uint32_t index, const struct ob_raw_message *m)
{
    want(j, field32(j, m, 12) == 0 || m->nfds > 0, "region %u: count is %u, and no descriptor came", index,
         field32(j, m, 12));
}

static void io_fds_descriptors(struct judge *j)
{
    each_reply(j, descriptors);
}

/* A client that takes one descriptor with a message. */
static void io_fds_few(struct judge *j)
{
    judge_reconnect_bare(j);
    want_ok(j, judge_version(j, 0, 0, "{\"capabilities\":{\"max_msg_fds\":1}}", NULL), "VERSION with max_msg_fds 1");
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *m = complete(j, i);

        want(j, m == NULL || m->nfds <= 1, "region %u: %u descriptors came to a client with max_msg_fds 1", i, m->nfds);
    }
    each_entry(j, entry_fd);
}

static void entry_inside(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                         const struct entry *e)
{
    const uint64_t size = j->facts.region[index].size, least = e->size > 0 ? e->size : 1;

    want(j, e->offset < size && least <= size - e->offset,
         "region %u: entry %u, %llu bytes at %#llx, leaves the region of %#llx", index, number,
         (unsigned long long)e->size, (unsigned long long)e->offset, (unsigned long long)size);
}

static void io_fds_inside(struct judge *j)
{
    each_entry(j, entry_inside);
}

static void entry_posted(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                         const struct entry *e)
{
    want(j, e->type != IOREGIONFD || e->size > 0 || e->flags & POSTED_WRITES,
         "region %u: entry %u is an ioregionfd of size 0 with flags %#x, without KVM_IOREGION_POSTED_WRITES", index,
         number, e->flags);
}

static void io_fds_posted(struct judge *j)
{
    each_entry(j, entry_posted);
}

static void entry_padding(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                          const struct entry *e)
{
    want(j, e->padding == 0 || (m->size - HEAD) / field32(j, m, 12) != sizeof(*e),
         "region %u: the padding of entry %u is %#x", index, number, e->padding);
}

static void io_fds_padding(struct judge *j)
{
    each_entry(j, entry_padding);
}

/* --- Too little room, and what is refused ------------------------------------------------------------------------ */

/* Calls `check` with the replies to an argsz that has no room for the entries. */
static void each_short(struct judge *j,
                       void (*check)(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m,
                                     const struct ob_raw_message *full))
{
    for (uint32_t i = 0; i < regions(j); i++) {
        const struct ob_raw_message *full = complete(j, i);
        struct ob_raw_message *m;

        if (full == NULL || full->size == HEAD)
            continue;
        for (uint32_t turn = 0; turn < 2; turn++) {
            const uint32_t argsz = turn == 0 ? HEAD : full->size - 1;

            want_ok(j, ask(j, i, argsz, &m), "GET_REGION_IO_FDS with too small an argsz");
            check(j, i, argsz, m, full);
        }
    }
}

static void short_entries(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m,
                          const struct ob_raw_message *full)
{
    want(j, m->size == HEAD, "region %u: asked with argsz %u where %u is needed, a payload of %u bytes, wanted 16",
         index, argsz, full->size, m->size);
}

static void io_fds_short_entries(struct judge *j)
{
    each_short(j, short_entries);
}

static void short_descriptors(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m,
                              const struct ob_raw_message *full)
{
    want(j, m->nfds == 0, "region %u: asked with argsz %u where %u is needed, %u descriptors came", index, argsz,
         full->size, m->nfds);
}

static void io_fds_short_descriptors(struct judge *j)
{
    each_short(j, short_descriptors);
}

static void short_argsz(struct judge *j, uint32_t index, uint32_t argsz, const struct ob_raw_message *m,
                        const struct ob_raw_message *full)
{
    want(j, field32(j, m, 0) == field32(j, full, 0), "region %u: asked with argsz %u, the reply's is %u, wanted %u",
         index, argsz, field32(j, m, 0), field32(j, full, 0));
}

static void io_fds_short_argsz(struct judge *j)
{
    each_short(j, short_argsz);
}

static void io_fds_beyond(struct judge *j)
{
    const uint32_t n = j->facts.regions, indexes[] = { n, n + 1, 0x7fffffff, 0xffffffff };
    char what[64];

    a_region(j);
    for (size_t i = 0; i < sizeof(indexes) / sizeof(*indexes); i++) {
        snprintf(what, sizeof(what), "GET_REGION_IO_FDS of region %u of %u", indexes[i], n);
        want_error(j, ask(j, indexes[i], HEAD, NULL), EINVAL, what);
    }
}

static void io_fds_argsz(struct judge *j)
{
    const uint32_t index = a_region(j);
    struct ob_raw_message *m = NULL;
    int r;

    r = ask(j, index, 15, &m);
    want_no_more(j, r, m, 15, "GET_REGION_IO_FDS with argsz 15");
    r = ask(j, index, 0, &m);
    want_no_more(j, r, m, 0, "GET_REGION_IO_FDS with argsz 0");
}

static void io_fds_flags(struct judge *j)
{
    struct ob_raw_io_fds request = { .argsz = HEAD, .index = a_region(j) };
    char what[64];

    for (unsigned bit = 0; bit < 32; bit += 31) {
        request.flags = 1u << bit;
        snprintf(what, sizeof(what), "GET_REGION_IO_FDS with flags %#x", request.flags);
        want_error(j, call(j, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), NULL, 0, NULL), EINVAL, what);
    }
}

static void io_fds_count(struct judge *j)
{
    const struct ob_raw_io_fds request = { .argsz = HEAD, .index = a_region(j), .count = 1 };

    want_error(j, call(j, OB_RAW_GET_REGION_IO_FDS, &request, sizeof(request), NULL, 0, NULL), EINVAL,
               "GET_REGION_IO_FDS with count 1");
}

/* --- What entries cover ------------------------------------------------------------------------------------------ */

/* A width of access that the entry is about. */
static uint32_t width(const struct entry *e)
{
    return e->size == 1 || e->size == 2 || e->size == 8 ? (uint32_t)e->size : 4;
}

static void entry_read(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                       const struct entry *e)
{
    uint8_t data[8];
    char what[96];

    if (!(j->facts.region[index].flags & VFIO_REGION_INFO_FLAG_READ))
        return;
    snprintf(what, sizeof(what), "reading %u bytes of region %u at %#llx, which entry %u covers", width(e), index,
             (unsigned long long)e->offset, number);
    want_ok(j, region_read(j, index, e->offset, data, width(e)), what);
}

static void io_fds_read(struct judge *j)
{
    each_entry(j, entry_read);
}

/* Until the doorbell has rung once more than `before`: devices may take their time. */
static void want_ring(struct judge *j, uint32_t index, const struct entry *e, uint64_t before, const char *what)
{
    uint64_t now;

    for (int waited = 0; (now = j->facts.exerciser->rings(j, index, e->offset, e->data)) == before; waited++) {
        want(j, waited < j->timeout_ms, "region %u: %s at %#llx had no effect for %d ms", index, what,
             (unsigned long long)e->offset, j->timeout_ms);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    want(j, now == before + 1, "region %u: %s at %#llx had its effect %llu times", index, what,
         (unsigned long long)e->offset, (unsigned long long)(now - before));
}

static void rings_known(struct judge *j)
{
    if (j->facts.exerciser == NULL || j->facts.exerciser->rings == NULL)
        judge_skip(j, "no known way to see this device's doorbells ring");
    device_on(j, false);
}

static void entry_written(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                          const struct entry *e)
{
    uint64_t before, value = e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH ? e->data : 1;

    if (e->type != IOEVENTFD)
        return;
    before = j->facts.exerciser->rings(j, index, e->offset, e->data);
    want_ok(j, region_write(j, index, e->offset, &value, width(e)), "writing what an entry covers");
    want_ring(j, index, e, before, "a write");
}

static void io_fds_write(struct judge *j)
{
    rings_known(j);
    each_entry(j, entry_written);
}

static void entry_signalled(struct judge *j, uint32_t index, const struct ob_raw_message *m, uint32_t number,
                            const struct entry *e)
{
    const uint64_t one = 1;
    uint64_t before;
    struct pollfd room;

    if (e->type != IOEVENTFD || e->fd_index >= m->nfds)
        return;
    room = (struct pollfd){ .fd = m->fds[e->fd_index], .events = POLLOUT };
    want(j, poll(&room, 1, 0) == 1 && room.revents == POLLOUT, "region %u: entry %u's eventfd cannot be written", index,
         number);
    before = j->facts.exerciser->rings(j, index, e->offset, e->data);
    want(j, write(m->fds[e->fd_index], &one, sizeof(one)) == sizeof(one), "region %u: entry %u's eventfd: %s", index,
         number, strerror(errno));
    want_ring(j, index, e, before, "a signal of the eventfd of the entry");
}

static void io_fds_signal(struct judge *j)
{
    rings_known(j);
    each_entry(j, entry_signalled);
}

const struct check server_io_fds_checks[] = {
    { { "io-fds-head", "VU-IOFD-2", "the reply repeats the index, and its flags are 0" }, 0, io_fds_head },
    { { "io-fds-size", "VU-IOFD-2", "argsz of a complete reply is the size of its payload" }, 0, io_fds_size },
    { { "io-fds-stride", "VU-IOFD-3", "argsz is 16 and a whole number of entries" }, 0, io_fds_stride },
    { { "io-fds-entry-size", "VU-IOFD-4", "an entry has 40 bytes or more" }, NEED_IO_FDS, io_fds_entry_size },
    { { "io-fds-type", "VU-IOFD-5", "entries are of type 0 or 1" }, NEED_IO_FDS, io_fds_type },
    { { "io-fds-descriptors", "VU-IOFD-6", "descriptors come with entries" }, NEED_IO_FDS, io_fds_descriptors },
    { { "io-fds-fd-index", "VU-IOFD-6", "fd_index is below the number of descriptors" }, NEED_IO_FDS, io_fds_index },
    { { "io-fds-one-descriptor", "VU-IOFD-6", "a client that takes one descriptor gets entries with that one only" },
      NEED_IO_FDS,
      io_fds_few },
    { { "io-fds-short-entries", "VU-IOFD-7", "without room for the entries, the reply has none" },
      NEED_IO_FDS,
      io_fds_short_entries },
    { { "io-fds-short-descriptors", "VU-IOFD-7", "without room for the entries, no descriptor comes" },
      NEED_IO_FDS,
      io_fds_short_descriptors },
    { { "io-fds-short-argsz", "VU-IOFD-7", "without room for the entries, argsz says what to ask with" },
      NEED_IO_FDS,
      io_fds_short_argsz },
    { { "io-fds-none", "VU-IOFD-8", "a count of 0 comes with argsz 16 and no descriptor" }, 0, io_fds_none },
    { { "io-fds-inside", "VU-IOFD-9", "entries lie in their region" }, NEED_IO_FDS, io_fds_inside },
    { { "io-fds-posted-writes", "VU-IOFD-10", "an ioregionfd of size 0 is of posted writes" },
      NEED_IO_FDS,
      io_fds_posted },
    { { "io-fds-index-beyond", "VU-IOFD-11", "an index at or above num_regions fails with EINVAL" }, 0, io_fds_beyond },
    { { "io-fds-argsz-small", "VU-IOFD-11", "an argsz below 16 is refused, or answered with no more" },
      0,
      io_fds_argsz },
    { { "io-fds-flags", "VU-IOFD-17", "flags that are not 0 fail with EINVAL" }, 0, io_fds_flags },
    { { "io-fds-count", "VU-IOFD-17", "a count that is not 0 fails with EINVAL" }, 0, io_fds_count },
    { { "io-fds-read", "VU-IOFD-12", "what an entry covers can be read" }, NEED_IO_FDS, io_fds_read },
    { { "io-fds-write", "VU-IOFD-12", "a write by message to what an entry covers has its effect, once" },
      NEED_IO_FDS,
      io_fds_write },
    { { "io-fds-signal", "VU-IOFD-16", "a signal of an entry's eventfd has the effect of the write" },
      NEED_IO_FDS,
      io_fds_signal },
    { { "io-fds-padding", "VU-HDR-30", "the padding of entries is 0" }, NEED_IO_FDS, io_fds_padding },
    { { NULL, NULL, NULL }, 0, NULL },
};
