/* region.c: VU-REG and VU-IOFD: what clients make of the description of a region, and of descriptors for parts of it.
 */
#include "check.h"

#include <stdlib.h>
#include <unistd.h>

#define SPARSE  2  /* the region with sparse areas */
#define HEAD    32 /* bytes of the structure in front of the capabilities */
#define IO_HEAD 16

/* --- What is asked ------------------------------------------------------------------------------------------------ */

static bool asks_again(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_GET_REGION_INFO && get32(m, 8) == SPARSE &&
           get32(m, 0) >= HEAD + t->model.region[SPARSE].unknown;
}

static void larger_argsz(struct trial *t)
{
    struct ob_raw_message *m;

    if (!kinds_has_command(&t->usual_kinds, OB_RAW_GET_REGION_INFO))
        trial_skip(t, "the client sends no GET_REGION_INFO");
    t->model.region[SPARSE].unknown = 6000;
    while ((m = trial_next(t)) != NULL && !asks_again(t, m))
        trial_answer(t, m);
    trial_want(t, m != NULL, "a region whose reply says argsz %u should be asked for again with that, and was not: %s",
               HEAD + 6000, trial_end_text(t));
    trial_answer(t, m);
    trial_want_same(t, 0);
}

/* --- Capabilities ------------------------------------------------------------------------------------------------- */

static bool asks_for_all(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_GET_REGION_INFO && get32(m, 8) == SPARSE && get32(m, 0) > HEAD + 40;
}

/* The full reply to GET_REGION_INFO of the region with sparse areas. */
static struct reply *sparse_reply(struct trial *t)
{
    return trial_success(t, trial_await_where(t, asks_for_all, "GET_REGION_INFO with room for capabilities"));
}

static void unknown_capability(struct trial *t)
{
    t->model.region[SPARSE].unknown = 24;
    trial_want_same(t, 0);
}

/* A description that must not be believed: refused, or at least not mapped. */
static void want_refused_or_unmapped(struct trial *t, const char *what)
{
    struct file_range range;
    struct ob_raw_message *m;

    while ((m = trial_next(t)) != NULL) {
        if (trial_mappings(t, SPARSE, &range, 1) > 0)
            trial_fail(t, "%s: the region should not be mapped, and %#llx bytes at %#llx of its file are", what,
                       (unsigned long long)range.size, (unsigned long long)range.offset);
        trial_answer(t, m);
    }
    trial_want_survived(t, what);
}

/* Sends the reply after a field of 4 bytes was changed. */
static void poked(struct trial *t, size_t offset, uint32_t value, const char *what)
{
    struct reply *reply = sparse_reply(t);

    reply_put32(reply, offset, value);
    trial_send(t, reply);
    want_refused_or_unmapped(t, what);
}

static void list_outside(struct trial *t)
{
    poked(t, 12, 0x1000, "capabilities that begin behind the reply");
}

static void list_in_head(struct trial *t)
{
    poked(t, 12, 8, "capabilities that begin in the fixed part");
}

static void list_at_end(struct trial *t)
{
    struct reply *reply = sparse_reply(t);

    reply_put32(reply, 12, (uint32_t)reply->size - 4);
    trial_send(t, reply);
    want_refused_or_unmapped(t, "a capability whose header leaves the reply");
}

static void list_loops(struct trial *t)
{
    struct reply *reply;

    t->model.region[SPARSE].unknown = 48; /* nothing that a client would stop at */
    t->model.region[SPARSE].areas = 0;
    reply = sparse_reply(t);
    reply_put32(reply, HEAD + 4, HEAD);
    trial_send(t, reply);
    want_refused_or_unmapped(t, "a list of capabilities that loops");
}

static void next_outside(struct trial *t)
{
    struct reply *reply;

    t->model.region[SPARSE].unknown = 48;
    t->model.region[SPARSE].areas = 0;
    reply = sparse_reply(t);
    reply_put32(reply, HEAD + 4, 0x100000);
    trial_send(t, reply);
    want_refused_or_unmapped(t, "a list of capabilities that leaves the reply");
}

static void too_many_areas(struct trial *t)
{
    t->model.region[SPARSE].nr_areas = 1000;
    want_refused_or_unmapped(t, "1000 sparse areas in a reply that has 2");
}

static void areas_wrap(struct trial *t)
{
    t->model.region[SPARSE].nr_areas = 0x10000002; /* times 16, 32 */
    want_refused_or_unmapped(t, "268,435,458 sparse areas in a reply that has 2");
}

/* --- Areas -------------------------------------------------------------------------------------------------------- */

/* Whether the client maps the region if all is well; a session for itself. */
static void want_mapping_client(struct trial *t)
{
    struct file_range range;
    struct ob_raw_message *m;
    bool maps = false;

    while ((m = trial_next(t)) != NULL) {
        maps |= trial_mappings(t, SPARSE, &range, 1) > 0;
        trial_answer(t, m);
    }
    if (!maps)
        trial_skip(t, "the client does not map the region if all is well either");
    trial_again(t);
}

static void one_area(struct trial *t, uint64_t offset, uint64_t size, const char *what)
{
    want_mapping_client(t);
    t->model.region[SPARSE].areas = t->model.region[SPARSE].nr_areas = 1;
    t->model.region[SPARSE].area[0].offset = offset;
    t->model.region[SPARSE].area[0].size = size;
    want_refused_or_unmapped(t, what);
}

static void area_outside(struct trial *t)
{
    one_area(t, 0xf000, 0x2000, "a sparse area that leaves the region");
}

static void area_wraps(struct trial *t)
{
    one_area(t, UINT64_MAX - 0xfff, 0x2000, "a sparse area that wraps");
}

static void area_unaligned(struct trial *t)
{
    one_area(t, 0x1800, 0x1000, "a sparse area that does not begin at a page");
}

static void area_half_page(struct trial *t)
{
    one_area(t, 0x1000, 0x800, "a sparse area of half a page");
}

/* --- The region's descriptor -------------------------------------------------------------------------------------- */

static void flag_without_descriptor(struct trial *t)
{
    struct reply *reply = sparse_reply(t);

    reply_drop_fds(reply);
    trial_send(t, reply);
    trial_want_same(t, 0);
}

/* Memory that is not there: touching it kills. */
static void short_file(struct trial *t)
{
    trial_want(t, ftruncate(t->model.region[SPARSE].fd, 0) == 0, "the judge cannot truncate its file");
    trial_want_survived(t, "a region whose file is empty");
}

static void no_memory(struct trial *t)
{
    struct reply *reply = sparse_reply(t);
    int mine, theirs;

    trial_pair(t, &mine, &theirs);
    reply_drop_fds(reply);
    reply_add_fd(reply, theirs, false);
    trial_send(t, reply);
    trial_want_survived(t, "a region whose descriptor is a socket");
}

static void descriptor_without_flag(struct trial *t)
{
    struct reply *reply;
    int mine, theirs;

    t->model.region[SPARSE].areas = 0;
    t->model.region[SPARSE].unknown = 48;
    reply = sparse_reply(t);
    trial_pair(t, &mine, &theirs);
    reply_drop_fds(reply);
    reply_add_fd(reply, theirs, false);
    reply_put32(reply, 4, reply_get32(reply, 4) & ~(uint32_t)VFIO_REGION_INFO_FLAG_MMAP);
    trial_send(t, reply);
    trial_give(t, theirs);
    trial_want_hangup(t, mine, "a region that cannot be mapped, with a descriptor");
    trial_want_same(t, 0);
}

/* --- Descriptors for parts ---------------------------------------------------------------------------------------- */

/* Which of the eventfds were written to; they are read empty. */
static unsigned written(const struct trial *t)
{
    unsigned which = 0;

    for (unsigned i = 0; i < MODEL_IO_FDS; i++) {
        uint64_t count;

        which |= (unsigned)(read(t->model.io_fd[i], &count, sizeof(count)) == sizeof(count)) << i;
    }
    return which;
}

/* Which of the eventfds the client writes to if all is well; a session for itself. */
static unsigned usual_writes(struct trial *t)
{
    unsigned which;

    if (!kinds_has_command(&t->usual_kinds, OB_RAW_GET_REGION_IO_FDS))
        trial_skip(t, "the client sends no GET_REGION_IO_FDS");
    trial_serve(t);
    which = written(t);
    if (which != (1u << MODEL_IO_FDS) - 1)
        trial_skip(t, "the client does not use the descriptors that it gets");
    trial_again(t);
    return which;
}

static void want_written(struct trial *t, unsigned wanted, const char *what)
{
    unsigned which = written(t);

    trial_want(t, which == wanted, "%s: the client should use the descriptors %#x (a bit for each), and used %#x", what,
               wanted, which);
}

static void longer_entries(struct trial *t)
{
    unsigned usual = usual_writes(t);

    t->model.io_stride = 48;
    trial_want_same(t, 0);
    want_written(t, usual, "entries of 48 bytes");
}

static void shared_descriptor(struct trial *t)
{
    usual_writes(t);
    for (unsigned i = 0; i < MODEL_IO_FDS; i++)
        t->model.io[i].fd_index = 1;
    trial_want_same(t, 0);
    want_written(t, 2, "entries that share the second descriptor");
}

static void unknown_type(struct trial *t)
{
    unsigned usual = usual_writes(t);

    t->model.io[1].type = 77;
    trial_want_same(t, 0);
    want_written(t, usual & ~2u, "an entry of an unknown type");
}

static void io_fds_refused(struct trial *t)
{
    struct ob_raw_message *m;

    if (!kinds_has_command(&t->usual_kinds, OB_RAW_GET_REGION_IO_FDS))
        trial_skip(t, "the client sends no GET_REGION_IO_FDS");
    while ((m = trial_next(t)) != NULL) {
        if (m->header.command == OB_RAW_GET_REGION_IO_FDS)
            trial_refuse(t, m, ENOSYS);
        else
            trial_answer(t, m);
    }
    trial_want_same(t, 0);
}

/* Refused as a whole, or the entry left alone. */
static void want_second_refused(struct trial *t, const char *what)
{
    trial_want_survived(t, what);
    trial_want(t, !(written(t) & 2), "%s: it should be refused, and its descriptor was used", what);
}

static void entry_outside(struct trial *t)
{
    usual_writes(t);
    t->model.io[1].offset = t->model.region[0].size - 2;
    want_second_refused(t, "an entry that leaves the region");
}

static void entry_wraps(struct trial *t)
{
    usual_writes(t);
    t->model.io[1].offset = UINT64_MAX - 1;
    want_second_refused(t, "an entry that wraps");
}

static void index_beyond(struct trial *t)
{
    usual_writes(t);
    t->model.io[1].fd_index = MODEL_IO_FDS;
    trial_want_refused(t, "an fd_index that no descriptor came for");
}

static void index_huge(struct trial *t)
{
    usual_writes(t);
    t->model.io[1].fd_index = 0x40000000;
    trial_want_refused(t, "an fd_index of 0x40000000");
}

static bool asks_io_fds(struct trial *t, const struct ob_raw_message *m)
{
    return m->header.command == OB_RAW_GET_REGION_IO_FDS && get32(m, 8) == 0;
}

static void count_lies(struct trial *t)
{
    struct reply *reply = trial_success(t, trial_await_where(t, asks_io_fds, "GET_REGION_IO_FDS of region 0"));

    reply_put32(reply, 12, 0x10000000);
    trial_send(t, reply);
    trial_want_refused(t, "a count of 268,435,456 entries in a reply that has 3");
}

const struct client_check client_region_checks[] = {
    VARIATION("region-larger-argsz", "VU-REG-21", "a region whose reply needs more argsz is asked for again",
              larger_argsz),
    VARIATION("region-unknown-capability", "VU-REG-22", "unknown capabilities are skipped", unknown_capability),
    FAULT("region-list-outside", "VU-REG-23", "capabilities behind the reply are refused", list_outside),
    FAULT("region-list-in-head", "VU-REG-23", "capabilities in the fixed part are refused", list_in_head),
    FAULT("region-list-at-end", "VU-REG-23", "a capability that leaves the reply is refused", list_at_end),
    FAULT("region-list-loops", "VU-REG-23", "a list that loops is refused", list_loops),
    FAULT("region-list-next", "VU-REG-23", "a list that goes on outside is refused", next_outside),
    FAULT("region-many-areas", "VU-REG-23", "more areas than the reply has are refused", too_many_areas),
    FAULT("region-areas-wrap", "VU-REG-23", "a number of areas whose size wraps is refused", areas_wrap),
    FAULT("area-outside", "VU-REG-24", "an area that leaves the region is not mapped", area_outside),
    FAULT("area-wraps", "VU-REG-24", "an area that wraps is not mapped", area_wraps),
    FAULT("area-unaligned", "VU-REG-24", "an area that does not begin at a page is not mapped", area_unaligned),
    FAULT("area-half-page", "VU-REG-24", "an area that is not of whole pages is not mapped", area_half_page),
    FAULT("region-no-descriptor", "VU-REG-25", "a mappable region without descriptor is used by messages",
          flag_without_descriptor),
    FAULT("region-short-file", "VU-CON-26", "a region whose file is too short is survived", short_file),
    FAULT("region-odd-descriptor", "VU-CON-26", "a region whose descriptor cannot be mapped is survived", no_memory),
    FAULT("region-needless-descriptor", "VU-REG-25", "the descriptor of a region that is not mappable is closed",
          descriptor_without_flag),
    VARIATION("io-fds-longer-entries", "VU-IOFD-13", "the size of entries is computed", longer_entries),
    VARIATION("io-fds-shared", "VU-IOFD-13", "entries may share a descriptor", shared_descriptor),
    VARIATION("io-fds-unknown-type", "VU-IOFD-15", "entries of unknown types are left alone", unknown_type),
    VARIATION("io-fds-refused", "VU-IOFD-15", "a server may lack GET_REGION_IO_FDS", io_fds_refused),
    FAULT("io-fds-outside", "VU-IOFD-14", "an entry that leaves the region is refused", entry_outside),
    FAULT("io-fds-wraps", "VU-IOFD-14", "an entry that wraps is refused", entry_wraps),
    FAULT("io-fds-index", "VU-IOFD-14", "an fd_index beyond the descriptors is refused", index_beyond),
    FAULT("io-fds-index-huge", "VU-IOFD-14", "a huge fd_index is refused", index_huge),
    FAULT("io-fds-count", "VU-IOFD-14", "more entries than the reply has are refused", count_lies),
    { .is = { NULL, NULL, NULL } },
};
