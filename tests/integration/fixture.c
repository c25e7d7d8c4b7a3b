/* fixture.c: the server program of a group of tests, and the comparison after each test. */
#include "fixture.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
/* Freed memory waits in quarantine there, and shadow memory grows with what is touched. */
#define ANONYMOUS_SLACK 262144L
#define MAPPINGS_SLACK  4096
#else
#define ANONYMOUS_SLACK 4096L /* what malloc() keeps after 65,535 maps; a leak of one object for each is more */
#define MAPPINGS_SLACK  2
#endif

static void start(struct ob_fixture *fixture)
{
    const struct ob_process_options options = { .command = fixture->command, .socket = OB_PROCESS_LISTENING };
    int r = ob_process_start(&fixture->process, &options);

    if (r < 0) {
        fail_msg("%s: %s", fixture->command, strerror(-r));
    }
}

static int group(void **state, const char *variable)
{
    static struct ob_fixture fixture;

    fixture = (struct ob_fixture){ .command = getenv(variable), .raw.fd = -1 };
    if (fixture.command == NULL) {
        fprintf(stderr, "%s is not set: the command that serves the device\n", variable);
        return -1;
    }
    signal(SIGPIPE, SIG_IGN);
    start(&fixture);
    *state = &fixture;
    return 0;
}

int ob_fixture_edu(void **state)
{
    return group(state, "OUTBOARD_EDU");
}

int ob_fixture_serial(void **state)
{
    return group(state, "OUTBOARD_SERIAL");
}

int ob_fixture_testdev(void **state)
{
    return group(state, "OUTBOARD_TESTDEV");
}

int ob_fixture_stop(void **state)
{
    struct ob_fixture *fixture = *state;
    int status;

    ob_raw_close(&fixture->raw);
    free(fixture->descriptors);
    fixture->descriptors = NULL;
    status = ob_process_stop(&fixture->process, SIGTERM, 10000);
    if (status != 0) {
        fprintf(stderr, "%s: status %d after SIGTERM\n", fixture->command, status);
        return -1;
    }
    return 0;
}

void ob_fixture_reconnect(struct ob_fixture *fixture)
{
    int fd;

    ob_raw_close(&fixture->raw);
    fd = ob_process_connect(&fixture->process, 20000);
    if (fd < 0) {
        fail_msg("cannot connect: %s", strerror(-fd));
    }
    ob_raw_init(&fixture->raw, fd);
}

/* Connects and negotiates. A server has one session at a time, so that the one before has ended by then. */
static void reconnect_and_reset(struct ob_fixture *fixture)
{
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    ob_ok(ob_raw_reset(&fixture->raw));
}

static int setup(struct ob_fixture *fixture, bool bare)
{
    if (!ob_process_alive(&fixture->process)) {
        ob_process_stop(&fixture->process, 0, 1000);
        start(fixture);
    }
    reconnect_and_reset(fixture);
    free(fixture->descriptors);
    fixture->descriptors = ob_process_descriptors(fixture->process.pid);
    fixture->mappings = ob_process_maps(fixture->process.pid, "");
    fixture->anonymous = ob_process_status(fixture->process.pid, "RssAnon");
    assert_non_null(fixture->descriptors);
    fixture->bare = bare;
    if (bare) {
        ob_fixture_reconnect(fixture);
    }
    return 0;
}

int ob_fixture_setup(void **state)
{
    return setup(*state, false);
}

int ob_fixture_bare(void **state)
{
    return setup(*state, true);
}

int ob_fixture_teardown(void **state)
{
    struct ob_fixture *fixture = *state;
    pid_t pid = fixture->process.pid;
    char *descriptors;

    assert_true(ob_process_alive(&fixture->process));
    reconnect_and_reset(fixture);
    descriptors = ob_process_descriptors(pid);
    assert_non_null(descriptors);
    assert_string_equal(descriptors, fixture->descriptors);
    free(descriptors);
    assert_int_equal(ob_process_maps(pid, "ob-guest"), 0);
    assert_in_range(ob_process_maps(pid, ""), 0, fixture->mappings + MAPPINGS_SLACK);
    assert_in_range(ob_process_status(pid, "RssAnon"), 0, fixture->anonymous + ANONYMOUS_SLACK);
    ob_raw_close(&fixture->raw);
    return 0;
}

/* --- Helpers ------------------------------------------------------------------------------------------------------ */

uint32_t ob_read32(struct ob_raw *raw, uint32_t region, uint64_t offset)
{
    uint32_t value;

    ob_ok(ob_raw_read(raw, region, offset, &value, sizeof(value)));
    return value;
}

void ob_write32(struct ob_raw *raw, uint32_t region, uint64_t offset, uint32_t value)
{
    ob_ok(ob_raw_write(raw, region, offset, &value, sizeof(value)));
}

uint16_t ob_config16(struct ob_raw *raw, uint32_t offset)
{
    uint16_t value;

    ob_ok(ob_raw_read(raw, VFIO_PCI_CONFIG_REGION_INDEX, offset, &value, sizeof(value)));
    return value;
}

void ob_set_command(struct ob_raw *raw, uint16_t value)
{
    ob_ok(ob_raw_write(raw, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &value, sizeof(value)));
}

uint32_t ob_find_capability(struct ob_raw *raw, uint8_t id)
{
    uint8_t at, head[2];

    ob_ok(ob_raw_read(raw, VFIO_PCI_CONFIG_REGION_INDEX, PCI_CAPABILITY_LIST, &at, 1));
    for (int i = 0; i < 48 && at != 0; i++) {
        ob_ok(ob_raw_read(raw, VFIO_PCI_CONFIG_REGION_INDEX, at, head, 2));
        if (head[0] == id) {
            return at;
        }
        at = head[1];
    }
    fail_msg("no capability %#x", id);
    return 0;
}

int ob_guest_memory(uint64_t size)
{
    int fd = memfd_create("ob-guest", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

int ob_event_new(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

uint64_t ob_event_take(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

uint64_t ob_event_wait(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    assert_int_equal(poll(&pfd, 1, 20000), 1);
    return ob_event_take(fd);
}

int ob_set_eventfds(struct ob_raw *raw, uint32_t index, uint32_t start, uint32_t count, const int *fds)
{
    return ob_raw_set_irqs(raw, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index, start, count, NULL, fds,
                           count);
}

void ob_wait_register(struct ob_raw *raw, uint32_t region, uint64_t offset, uint32_t mask, uint32_t wanted)
{
    time_t end = time(NULL) + 20;

    while ((ob_read32(raw, region, offset) & mask) != wanted) {
        if (time(NULL) > end) {
            fail_msg("register %#llx of region %u never became %#x", (unsigned long long)offset, region, wanted);
        }
    }
}
