/* set_irqs_signals.c: VU-SET: which eventfds SET_IRQS assigns, signals, replaces and takes away, on any device. */
#include "irqs.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* --- To assign, and to signal ------------------------------------------------------------------------------------ */

/* Triggers vectors that have no eventfd; whether that succeeds is the server's affair. */
static void trigger_nobody(struct judge *j, uint32_t index, uint32_t start, uint32_t count)
{
    irqs_needs_loopback(j, index);
    irqs_set(j, &(struct irq_set){ .flags = NONE | TRIGGER, .index = index, .start = start, .count = count });
}

static void set_assign(struct judge *j)
{
    for (uint32_t i = 0; i < j->facts.irqs && i < 16; i++) {
        int fd;

        if (j->facts.irq[i].count == 0 || !(j->facts.irq[i].flags & VFIO_IRQ_INFO_EVENTFD) ||
            (j->facts.loopback != 0 && !(j->facts.loopback & 1u << i)))
            continue;
        fd = irqs_ready(j, i)[0];
        irqs_trigger(j, i, 0, 1);
        want_one(j, fd, "vector 0 of index %u was assigned and triggered", i);
    }
}

static void set_assign_each(struct judge *j)
{
    const uint32_t index = irqs_several(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);

    for (unsigned i = 0; i < n; i++) {
        irqs_trigger(j, index, i, 1);
        irqs_want_others_silent(j, fds, n, i);
        want_one(j, fds[i], "vector %u was triggered", i);
    }
}

static void set_assign_start(struct judge *j)
{
    const uint32_t index = irqs_growing(j), last = irqs_vectors(j, index) - 1;
    const int fd = judge_eventfd(j);

    irqs_on(j, index);
    irqs_assign(j, index, last, 1, &fd);
    trigger_nobody(j, index, 0, last);
    want_none(j, fd, "vectors 0 to %u, which have no eventfd, were triggered; this is that of vector %u", last - 1,
              last);
    irqs_trigger(j, index, last, 1);
    want_one(j, fd, "vector %u was assigned alone and triggered", last);
}

/* It may be refused, and is only then not looked at; the survey tells no refusal from worse. */
static void set_trigger_none(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);
    const struct irq_set all = { .flags = NONE | TRIGGER, .index = index, .count = n };
    int r = irqs_set(j, &all);

    if (got(j, r, "SET_IRQS with DATA_NONE and ACTION_TRIGGER") != 0)
        judge_skip(j, "SET_IRQS with DATA_NONE and ACTION_TRIGGER is refused");
    for (unsigned i = 0; i < n; i++)
        want_one(j, fds[i], "vectors 0 to %u were triggered; this is vector %u", n - 1, i);
}

static void set_trigger_range(struct judge *j)
{
    const uint32_t index = irqs_several(j);
    const int *fds = irqs_ready(j, index);

    irqs_trigger(j, index, 1, irqs_vectors(j, index) - 1);
    want_one(j, fds[1], "all vectors but 0 were triggered; this is vector 1");
    want_none(j, fds[0], "all vectors but 0 were triggered; this is vector 0");
}

static void set_trigger_bool(struct judge *j)
{
    const uint32_t index = irqs_several(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);
    uint8_t data[MOST_VECTORS] = { 0 };

    for (unsigned i = 0; i < n; i += 2)
        data[i] = 1;
    irqs_bool(j, TRIGGER, index, 0, n, data);
    for (unsigned i = 0; i < n; i += 2)
        want_one(j, fds[i], "byte %u of DATA_BOOL is 1", i);
    for (unsigned i = 1; i < n; i += 2)
        want_none(j, fds[i], "byte %u of DATA_BOOL is 0", i);
}

static void set_trigger_bool_range(struct judge *j)
{
    const uint32_t index = irqs_several(j), last = irqs_vectors(j, index) - 1;
    const int *fds = irqs_ready(j, index);

    irqs_bool(j, TRIGGER, index, last, 1, (const uint8_t[]){ 1 });
    want_none(j, fds[0], "DATA_BOOL triggers vector %u alone; this is vector 0", last);
    want_one(j, fds[last], "DATA_BOOL triggers vector %u alone", last);
}

static void set_bool_values(struct judge *j)
{
    static const uint8_t values[] = { 1, 2, 0x80, 0xff };
    const uint32_t index = irqs_any(j);
    const int *fds = irqs_ready(j, index);

    for (size_t i = 0; i < sizeof(values); i++) {
        irqs_bool(j, TRIGGER, index, 0, 1, &values[i]);
        want_one(j, fds[0], "the byte of DATA_BOOL is %u", values[i]);
        if (j->facts.irq[index].flags & VFIO_IRQ_INFO_AUTOMASKED)
            irqs_do(j, UNMASK, index, 0, 1);
    }
}

static void set_posted(struct judge *j)
{
    const uint32_t index = irqs_any(j), payload[5] = { sizeof(payload), EVENTFD | TRIGGER, index, 0, 1 };
    const int fd = judge_eventfd(j);

    irqs_on(j, index);
    post(j, OB_RAW_SET_IRQS, payload, sizeof(payload), &fd, 1);
    irqs_trigger(j, index, 0, 1);
    want_one(j, fd, "vector 0 was assigned by a posted SET_IRQS and triggered");
}

/* --- To take away ------------------------------------------------------------------------------------------------ */

static void set_take_away(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);

    irqs_take_away(j, index, 0, n);
    trigger_nobody(j, index, 0, n);
    for (unsigned i = 0; i < n; i++)
        want_none(j, fds[i], "vector %u was triggered after its eventfd was taken away", i);
}

static void set_take_away_one(struct judge *j)
{
    const uint32_t index = irqs_growing(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);

    irqs_take_away(j, index, 0, 1);
    trigger_nobody(j, index, 0, 1);
    for (unsigned i = 1; i < n; i++) {
        irqs_trigger(j, index, i, 1);
        want_one(j, fds[i], "vector %u was triggered after the eventfd of vector 0 was taken away", i);
    }
    want_none(j, fds[0], "vector 0 was triggered after its eventfd was taken away");
}

/* Whether eventfds that were assigned can be taken away. */
static bool takes_away(struct judge *j)
{
    const uint32_t index = irqs_any(j), payload[5] = { sizeof(payload), EVENTFD | TRIGGER, index, 0, 1 };
    int r;

    irqs_ready(j, index);
    r = ob_raw_call(&j->raw, OB_RAW_SET_IRQS, payload, sizeof(payload), NULL, 0, NULL);
    judge_reconnect(j);
    return r == 0;
}

static void set_take_never(struct judge *j)
{
    if (!takes_away(j))
        judge_skip(j, "nothing can be taken away");
    for (uint32_t i = 0; i < j->facts.irqs && i < 16; i++) {
        if (j->facts.irq[i].count == 0 || !(j->facts.irq[i].flags & VFIO_IRQ_INFO_EVENTFD))
            continue;
        irqs_take_away(j, i, 0, 1);
        irqs_take_away(j, i, 0, j->facts.irq[i].count);
    }
}

static void set_disable(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    const int *fds = irqs_ready(j, index);

    irqs_disable(j, index);
    trigger_nobody(j, index, 0, n);
    for (unsigned i = 0; i < n; i++)
        want_none(j, fds[i], "vector %u was triggered after all eventfds were taken away", i);
}

static void set_disable_again(struct judge *j)
{
    const uint32_t index = irqs_any(j);

    for (unsigned i = 0; i < 3; i++)
        irqs_disable(j, index);
}

static void set_disable_others(struct judge *j)
{
    const uint32_t one = irqs_any(j);
    uint32_t other = VFIO_PCI_ERR_IRQ_INDEX;
    const int *fds;
    int fd = judge_eventfd(j);

    if (other == one || j->facts.irq[other].count == 0 || !(j->facts.irq[other].flags & VFIO_IRQ_INFO_EVENTFD))
        judge_skip(j, "the device has one interrupt type");
    irqs_needs_loopback(j, other);
    fds = irqs_ready(j, one);
    irqs_assign(j, other, 0, 1, &fd);
    irqs_disable(j, one);
    irqs_trigger(j, other, 0, 1);
    want_one(j, fd, "index %u was triggered after all eventfds of index %u were taken away", other, one);
    irqs_assign(j, one, 0, 1, fds);
    irqs_disable(j, other);
    irqs_trigger(j, one, 0, 1);
    want_one(j, fds[0], "index %u was triggered after all eventfds of index %u were taken away", one, other);
}

static void set_again_and_again(struct judge *j)
{
    const uint32_t index = irqs_any(j), n = irqs_vectors(j, index);
    const uint32_t most = n < irqs_at_once(j) ? n : irqs_at_once(j);
    const int *fds = irqs_eventfds(j, n);

    irqs_on(j, index);
    for (unsigned turn = 0; turn < 50; turn++) {
        irqs_assign(j, index, 0, most, fds);
        irqs_trigger(j, index, 0, 1);
        want_signal(j, fds[0], "vector 0 was assigned anew and triggered");
        irqs_disable(j, index);
    }
}

/* --- To replace, and to add -------------------------------------------------------------------------------------- */

static void set_replace(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const int fd = judge_eventfd(j);

    irqs_ready(j, index);
    irqs_assign(j, index, 0, 1, &fd);
    irqs_trigger(j, index, 0, 1);
    want_one(j, fd, "vector 0 got another eventfd, this one, and was triggered");
}

static void set_replace_silent(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const int *fds = irqs_ready(j, index), fd = judge_eventfd(j);

    irqs_assign(j, index, 0, 1, &fd);
    irqs_trigger(j, index, 0, 1);
    want_signal(j, fd, "vector 0 got another eventfd, this one, and was triggered");
    want_none(j, fds[0], "vector 0 got another eventfd in place of this one, and was triggered");
}

static void set_replace_closed(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const unsigned turns = 32;
    unsigned before, now = 0;

    irqs_ready(j, index);
    before = server_descriptors(j);
    for (unsigned i = 0; i < turns; i++) {
        const int fd = judge_eventfd(j);

        irqs_assign(j, index, 0, 1, &fd);
        judge_give(j, fd);
    }
    /* A server may close them later than it answers, and nothing tells when. */
    for (int waited = 0; waited <= j->timeout_ms; waited++) {
        now = server_descriptors(j);
        if (now < before + turns)
            return;
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
    judge_fail(j, "the server had %u descriptors open; after %u eventfds of one vector, each replacing the last, %u",
               before, turns, now);
}

static void set_one_by_one(struct judge *j)
{
    const uint32_t index = irqs_growing(j), n = irqs_vectors(j, index);
    const int *fds = irqs_eventfds(j, n);

    irqs_on(j, index);
    for (unsigned i = n; i-- > 0;) {
        irqs_assign(j, index, i, 1, &fds[i]);
        irqs_trigger(j, index, i, n - i);
        for (unsigned k = i; k < n; k++)
            want_one(j, fds[k], "vectors %u to %u, assigned from the last to the first, were triggered; this is %u", i,
                     n - 1, k);
    }
}

static void set_pieces(struct judge *j)
{
    const uint32_t index = irqs_growing(j), n = irqs_vectors(j, index), most = irqs_at_once(j);
    const int *fds = irqs_eventfds(j, n);
    unsigned done = 0;

    irqs_on(j, index);
    for (unsigned piece = 1; done < n; done += piece) {
        piece = piece + 1 < most ? piece + 1 : most;
        piece = n - done < piece ? n - done : piece;
        irqs_assign(j, index, done, piece, fds + done);
    }
    irqs_trigger(j, index, 0, n);
    for (unsigned i = 0; i < n; i++)
        want_one(j, fds[i], "vectors 0 to %u, assigned in pieces, were triggered; this is vector %u", n - 1, i);
}

/* Vector 0 without a descriptor, then one vector a message, the last again when the guest unmasks it. */
static void set_qemu_msix(struct judge *j)
{
    const unsigned n = irqs_vectors(j, MSIX);
    const int *fds = irqs_eventfds(j, n);

    if (j->facts.irq[MSIX].flags & VFIO_IRQ_INFO_NORESIZE)
        judge_skip(j, "MSI-X has NORESIZE: QEMU assigns all vectors anew for each");
    irqs_on(j, MSIX);
    irqs_take_away(j, MSIX, 0, 1);
    for (unsigned i = 0; i < n; i++) {
        irqs_assign(j, MSIX, i, 1, &fds[i]);
        irqs_assign(j, MSIX, i, 1, &fds[i]);
        irqs_trigger(j, MSIX, 0, i + 1);
        for (unsigned k = 0; k <= i; k++)
            want_one(j, fds[k], "vectors 0 to %u, assigned as QEMU does, were triggered; this is vector %u", i, k);
    }
}

/* --- Descriptors that are no eventfds, and eventfds that are full ------------------------------------------------ */

/* Assigns a descriptor that the server may refuse, and triggers it if SET_IRQS can: neither may hurt the server. */
static void harmless(struct judge *j, int fd, const char *what)
{
    const uint32_t index = irqs_any(j);
    const struct irq_set set = { EVENTFD | TRIGGER, index, 0, 1, .fds = &fd, .nfds = 1 };

    irqs_on(j, index);
    if (irqs_set(j, &set) == 0 && j->facts.loopback & 1u << index)
        trigger_nobody(j, index, 0, 1);
    want_alive(j, what);
    irqs_disable(j, index);
}

static void set_not_eventfd(struct judge *j)
{
    harmless(j, judge_memfd(j, 4096), "a memfd was given as an eventfd and triggered");
    harmless(j, judge_open_file(j, "/", O_RDONLY), "a folder was given as an eventfd and triggered");
    harmless(j, judge_open_file(j, "/dev/null", O_RDONLY),
             "a file open for reading was given as an eventfd and triggered");
}

static void set_socket_full(struct judge *j)
{
    static const char bytes[4096];
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    while (send(theirs, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    while (send(theirs, bytes, 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        ;
    harmless(j, theirs, "a socket that is full was given as an eventfd and triggered");
}

static void set_socket_closed(struct judge *j)
{
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    judge_give(j, mine);
    harmless(j, theirs, "a socket whose other end is closed was given as an eventfd and triggered");
}

/* The server reads eventfds for UNMASK, so it must not read other files, nor wait for them. */
static void set_unmask_not_eventfd(struct judge *j)
{
    int mine, theirs;

    judge_pair(j, &mine, &theirs);
    judge_give(j, mine);

    const int fds[] = { judge_memfd(j, 4096), judge_open_file(j, "/dev/null", O_RDONLY),
                        judge_open_file(j, "/", O_RDONLY), theirs };

    for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
        const struct irq_set set = { EVENTFD | UNMASK, INTX, 0, 1, .fds = &fds[i], .nfds = 1 };

        irqs_set(j, &set);
        want_alive(j, "a descriptor that is no eventfd was given for UNMASK");
    }
}

/* An eventfd that a write blocks on: its counter is at its largest, and it is not in non-blocking mode. */
static int full_eventfd(struct judge *j)
{
    static const uint64_t most = UINT64_MAX - 1;
    const int fd = judge_eventfd(j);

    want(j, write(fd, &most, sizeof(most)) == sizeof(most) && fcntl(fd, F_SETFL, 0) == 0,
         "the judge cannot fill an eventfd: %s", strerror(errno));
    return fd;
}

static void set_full(struct judge *j)
{
    const uint32_t index = irqs_any(j);
    const int fd = full_eventfd(j);

    irqs_on(j, index);
    irqs_assign(j, index, 0, 1, &fd);
    irqs_trigger(j, index, 0, 1);
    want_alive(j, "an eventfd that is full was triggered");
}

static void set_full_device(struct judge *j)
{
    const uint32_t index = device_irq(j);
    const int fd = full_eventfd(j);

    irqs_on(j, index);
    irqs_assign(j, index, 0, 1, &fd);
    device_raise(j, index, 0);
    want_alive(j, "the device interrupted by an eventfd that is full");
    device_lower(j, index, 0);
}

const struct check server_set_irqs_signals_checks[] = {
    { { "set-assign", "VU-SET-4", "the first vector of every type can be assigned and is signalled" },
      NEED_IRQ,
      set_assign },
    { { "set-assign-each", "VU-SET-4", "each vector has the eventfd that was given for it" },
      NEED_VECTORS,
      set_assign_each },
    { { "set-assign-start", "VU-SET-4", "eventfds are assigned from vector start on" },
      NEED_VECTORS,
      set_assign_start },
    { { "set-trigger-none", "VU-SET-13", "DATA_NONE with TRIGGER signals each vector once" },
      NEED_IRQ,
      set_trigger_none },
    { { "set-trigger-range", "VU-SET-13", "DATA_NONE with TRIGGER signals no vector before start" },
      NEED_VECTORS,
      set_trigger_range },
    { { "set-trigger-bool", "VU-SET-12", "DATA_BOOL with TRIGGER signals the vectors whose byte is not 0" },
      NEED_VECTORS,
      set_trigger_bool },
    { { "set-trigger-bool-range", "VU-SET-13", "the first byte of DATA_BOOL is that of vector start" },
      NEED_VECTORS,
      set_trigger_bool_range },
    { { "set-bool-values", "VU-SET-29", "every value but 0 counts in DATA_BOOL" }, NEED_IRQ, set_bool_values },
    { { "set-posted", "VU-HDR-7", "a posted SET_IRQS is executed" }, NEED_IRQ, set_posted },
    { { "set-take-away", "VU-SET-6", "eventfds that were taken away are not signalled" }, NEED_IRQ, set_take_away },
    { { "set-take-away-one", "VU-SET-6", "taking one eventfd away leaves the others" },
      NEED_VECTORS,
      set_take_away_one },
    { { "set-take-never", "VU-SET-7", "taking away what was never assigned succeeds" }, NEED_IRQ, set_take_never },
    { { "set-disable", "VU-SET-9", "count 0 takes all eventfds of the type away" }, NEED_IRQ, set_disable },
    { { "set-disable-again", "VU-SET-9", "count 0 succeeds again and again" }, NEED_IRQ, set_disable_again },
    { { "set-disable-others", "VU-SET-9", "count 0 leaves the eventfds of other types" },
      NEED_IRQ,
      set_disable_others },
    { { "set-again-and-again", "VU-SET-9", "vectors can be assigned after count 0, again and again" },
      NEED_IRQ,
      set_again_and_again },
    { { "set-replace", "VU-SET-21", "an eventfd that replaces another is signalled" }, NEED_IRQ, set_replace },
    { { "set-replace-silent", "VU-SET-21", "an eventfd that was replaced is not signalled" },
      NEED_IRQ,
      set_replace_silent },
    { { "set-replace-closed", "VU-CON-26", "eventfds that were replaced do not stay open" },
      NEED_IRQ | NEED_SPAWN,
      set_replace_closed },
    { { "set-one-by-one", "VU-SET-22", "vectors can be assigned one by one, from the last to the first" },
      NEED_VECTORS,
      set_one_by_one },
    { { "set-pieces", "VU-SET-22", "vectors can be assigned in pieces of different sizes" }, NEED_VECTORS, set_pieces },
    { { "set-qemu-msix", "VU-SET-22", "MSI-X is set up as QEMU does it" }, NEED_MSIX, set_qemu_msix },
    { { "set-not-eventfd", "VU-SET-23", "files given as eventfds do no harm" }, NEED_IRQ, set_not_eventfd },
    { { "set-socket-full", "VU-SET-23", "a socket on which a write blocks, given as an eventfd, does no harm" },
      NEED_IRQ,
      set_socket_full },
    { { "set-socket-closed", "VU-SET-23",
        "a socket on which a write raises SIGPIPE, given as an eventfd, does no harm" },
      NEED_IRQ,
      set_socket_closed },
    { { "set-unmask-not-eventfd", "VU-SET-23", "files and sockets given as eventfds for UNMASK do no harm" },
      NEED_INTX,
      set_unmask_not_eventfd },
    { { "set-full", "VU-SET-24", "triggering a full eventfd does not block the server" }, NEED_IRQ, set_full },
    { { "set-full-device", "VU-SET-24", "a device's interrupt to a full eventfd does not block the server" },
      NEED_INTERRUPT,
      set_full_device },
    { { NULL, NULL, NULL }, 0, NULL },
};
