/* test_dma: DMA_MAP and DMA_UNMAP with every errno, and edu's DMA through mapped memory. DMA over messages is in
 * test_dma_messages. */
#include "fixture.h"
#include "edu_dma.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull
#define PROT 3u

static void test_map_errors(void **state)
{
    static const struct {
        uint64_t address, size, offset;
        uint32_t prot;
        int err;
    } cases[] = {
        { 0x1000, 0, 0, PROT, EINVAL },
        { 0x1001, PAGE, 0, PROT, EINVAL },
        { 0x1000, PAGE + 1, 0, PROT, EINVAL },
        { 0x1000, PAGE - 1, 0, PROT, EINVAL },
        { 0x1000, PAGE, 1, PROT, EINVAL },
        { 0x1000, PAGE, 512, PROT, EINVAL },
        { UINT64_MAX - PAGE + 1, 2 * PAGE, 0, PROT, EINVAL },
        { PAGE, UINT64_MAX - PAGE + 1, 0, PROT, EINVAL },
        { 0x1000, PAGE, UINT64_MAX - PAGE + 1, PROT, EINVAL },
        { 0x1000, PAGE, 1ull << 63, PROT, EINVAL },
        { 0x1000, PAGE, 0, 0, EINVAL },
        { 0x1000, PAGE, 0, 4 | PROT, EINVAL },
        { 0x1000, PAGE, 0, 0x80000000, EINVAL },
        { 0x1000, 5 * PAGE, 0, PROT, EINVAL }, /* the file has 4 pages */
        { 0x1000, PAGE, 4 * PAGE, PROT, EINVAL },
        { 0x1000, 2 * PAGE, 3 * PAGE, PROT, EINVAL },
        { 0x1000, 1ull << 62, 0, PROT, EINVAL },
    };
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(4 * PAGE);

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int r = ob_raw_map(&fixture->raw, cases[i].address, cases[i].size, cases[i].prot, fd, cases[i].offset);

        if (r != cases[i].err) {
            fail_msg("case %zu gives %d, not %d", i, r, cases[i].err);
        }
    }
    close(fd);
    ob_ok(ob_raw_silent(&fixture->raw));
}

static void test_map_argsz(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_dma_map map = { .flags = PROT, .address = 0x1000, .size = PAGE };
    struct ob_raw_dma_unmap unmap = { .address = 0x1000, .size = PAGE };

    for (uint32_t argsz = 0; argsz < sizeof(map); argsz += 7) {
        map.argsz = argsz;
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_DMA_MAP, &map, sizeof(map), NULL, 0, NULL), EINVAL);
    }
    ob_ok(ob_raw_map(&fixture->raw, 0x1000, PAGE, PROT, -1, 0));
    for (uint32_t argsz = 0; argsz < sizeof(unmap); argsz += 5) {
        unmap.argsz = argsz;
        assert_int_equal(ob_raw_call(&fixture->raw, OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap), NULL, 0, NULL), EINVAL);
    }
    ob_ok(ob_raw_unmap(&fixture->raw, 0x1000, PAGE));
}

static void test_overlaps(void **state)
{
    static const struct {
        uint64_t address, size;
        int err;
    } cases[] = {
        { 0x10000, 4 * PAGE, EEXIST },
        { 0x10000, PAGE, EEXIST },
        { 0x13000, PAGE, EEXIST },
        { 0x11000, 2 * PAGE, EEXIST },
        { 0xf000, 2 * PAGE, EEXIST },
        { 0x13000, 2 * PAGE, EEXIST },
        { 0xf000, 6 * PAGE, EEXIST },
        { 0, 1ull << 40, EEXIST },
        { 0xf000, PAGE, 0 },
        { 0x14000, PAGE, 0 },
        { 0xe000, 2 * PAGE, EEXIST },
        { 0, PAGE, 0 },
        { UINT64_MAX - PAGE + 1 - PAGE, PAGE, 0 },
    };
    struct ob_fixture *fixture = *state;

    ob_ok(ob_raw_map(&fixture->raw, 0x10000, 4 * PAGE, PROT, -1, 0));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(ob_raw_map(&fixture->raw, cases[i].address, cases[i].size, PROT, -1, 0), cases[i].err);
    }
}

static void test_unmap_errors(void **state)
{
    static const struct {
        uint64_t address, size;
    } wrong[] = { { 0x10000, PAGE },         { 0x10000, 5 * PAGE }, { 0x11000, PAGE },     { 0xf000, 4 * PAGE },
                  { 0xf000, 6 * PAGE },      { 0x13000, PAGE },     { 0x50000, 4 * PAGE }, { 0x10000, 4 * PAGE - 1 },
                  { 0x10001, 4 * PAGE - 1 }, { 0x10000, 0 } };
    struct ob_fixture *fixture = *state;

    ob_ok(ob_raw_map(&fixture->raw, 0x10000, 4 * PAGE, PROT, -1, 0));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        int r = ob_raw_unmap(&fixture->raw, wrong[i].address, wrong[i].size);

        assert_true(r == ENOENT || r == EINVAL);
    }
    assert_int_equal(ob_raw_unmap(&fixture->raw, UINT64_MAX - PAGE + 1, 2 * PAGE), EINVAL);
    ob_ok(ob_raw_unmap(&fixture->raw, 0x10000, 4 * PAGE));
    assert_int_equal(ob_raw_unmap(&fixture->raw, 0x10000, 4 * PAGE), ENOENT);
    ob_ok(ob_raw_map(&fixture->raw, 0x10000, 4 * PAGE, PROT, -1, 0));
}

/* Descriptors that are no memory, or too many of them. */
static void test_odd_descriptors(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_dma_map map = { .argsz = sizeof(map), .flags = PROT, .address = 0x1000, .size = PAGE };
    struct ob_raw_dma_unmap unmap = { .argsz = sizeof(unmap), .address = 0x1000, .size = PAGE };
    int fds[2] = { ob_guest_memory(PAGE), ob_guest_memory(PAGE) }, event = ob_event_new(), ends[2];
    int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), folder = open("/", O_RDONLY | O_CLOEXEC);

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(ob_raw_map(&fixture->raw, 0x1000, PAGE, PROT, event, 0) > 0);
    assert_true(ob_raw_map(&fixture->raw, 0x1000, PAGE, PROT, ends[0], 0) > 0);
    assert_true(ob_raw_map(&fixture->raw, 0x1000, PAGE, PROT, folder, 0) > 0);
    assert_true(ob_raw_map(&fixture->raw, 0x1000, PAGE, PROT, read_only, 0) > 0); /* not open for writing */
    assert_true(ob_raw_call(&fixture->raw, OB_RAW_DMA_MAP, &map, sizeof(map), fds, 2, NULL) > 0);
    ob_ok(ob_raw_map(&fixture->raw, 0x1000, PAGE, PROT, fds[0], 0));
    /* SPDK sends a descriptor with DMA_UNMAP. */
    ob_ok(ob_raw_call(&fixture->raw, OB_RAW_DMA_UNMAP, &unmap, sizeof(unmap), fds, 1, NULL));
    ob_ok(ob_raw_map(&fixture->raw, 0x1000, PAGE, 1, read_only, 0));
    ob_ok(ob_raw_unmap(&fixture->raw, 0x1000, PAGE));
    close(fds[0]);
    close(fds[1]);
    close(event);
    close(ends[0]);
    close(ends[1]);
    close(read_only);
    close(folder);
}

/* Posted maps are not answered, whatever becomes of them. */
static void test_posted(void **state)
{
    struct ob_fixture *fixture = *state;
    struct ob_raw_dma_map map = { .argsz = sizeof(map), .flags = PROT, .address = 0x1000, .size = PAGE };

    for (int i = 0; i < 2; i++) {
        ob_ok(ob_raw_request(&fixture->raw, OB_RAW_DMA_MAP, OB_RAW_NO_REPLY, &map, sizeof(map), NULL, 0, NULL));
        ob_ok(ob_raw_silent(&fixture->raw));
    }
    ob_ok(ob_raw_unmap(&fixture->raw, 0x1000, PAGE));
}

/* Maps [first, first + count) pages of every other page, in one stream; the replies are counted as errnos. */
static unsigned map_many(struct ob_raw *raw, unsigned first, unsigned count, int fd, int last_error)
{
    unsigned failures = 0;
    uint16_t id = 0;

    for (unsigned i = 0; i < count; i++) {
        struct ob_raw_dma_map map = { .argsz = sizeof(map),
                                      .flags = PROT,
                                      .offset = fd < 0 ? 0 : (first + i) * PAGE,
                                      .address = (first + i) * 2 * PAGE,
                                      .size = PAGE };

        ob_ok(ob_raw_request(raw, OB_RAW_DMA_MAP, 0, &map, sizeof(map), &fd, fd >= 0, &id));
    }
    id = (uint16_t)(id - count);
    for (unsigned i = 0; i < count; i++) {
        int r = ob_raw_reply(raw, ++id, OB_RAW_DMA_MAP, NULL);

        assert_true(r == 0 || r == last_error);
        failures += r != 0;
    }
    return failures;
}

/* As many as the specification's default, each with a descriptor; no more; and again once one is gone. */
static void fill_maps(struct ob_fixture *fixture, int fd)
{
    for (unsigned done = 0; done < 65535;) {
        unsigned step = 65535 - done < 4096 ? 65535 - done : 4096;

        assert_int_equal(map_many(&fixture->raw, done, step, fd, 0), 0);
        done += step;
    }
    assert_int_equal(ob_raw_map(&fixture->raw, 65535 * 2 * PAGE, PAGE, PROT, fd, 0), ENOSPC);
    ob_ok(ob_raw_unmap(&fixture->raw, 777 * 2 * PAGE, PAGE));
    ob_ok(ob_raw_map(&fixture->raw, 65535 * 2 * PAGE, PAGE, PROT, fd, 0));
    assert_int_equal(ob_raw_map(&fixture->raw, 777 * 2 * PAGE, PAGE, PROT, fd, 0), ENOSPC);
}

/* What the allocator keeps of the first round has to do for the second. */
static void test_most_maps(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(65537 * PAGE);

    fill_maps(fixture, fd);
    edu_enable(&fixture->raw);
    assert_int_equal(pwrite(fd, "last one", 8, 16383 * PAGE), 8); /* edu's addresses have 28 bits */
    edu_dma(&fixture->raw, 16383 * 2 * PAGE, EDU_BUFFER, 8, 0);
    edu_dma(&fixture->raw, EDU_BUFFER, 3 * 2 * PAGE, 8, EDU_DMA_TO_GUEST);
    edu_check(fd, 3 * PAGE, "last one", 8);
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    fixture->anonymous = ob_process_status(fixture->process.pid, "RssAnon");
    fill_maps(fixture, fd);
    close(fd);
}

/* --- Transfers ---------------------------------------------------------------------------------------------------- */

static void test_transfer(void **state)
{
    static const uint32_t counts[] = { 1, 3, 4, 100, 4095, 4096 };
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(16 * PAGE);
    uint8_t pattern[4096];

    edu_enable(&fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, 0x100000, 16 * PAGE, PROT, fd, 0));
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        for (size_t b = 0; b < sizeof(pattern); b++) {
            pattern[b] = (uint8_t)(b * 7 + i);
        }
        assert_int_equal(pwrite(fd, pattern, counts[i], 100), counts[i]);
        edu_dma(&fixture->raw, 0x100000 + 100, EDU_BUFFER, counts[i], 0);
        edu_dma(&fixture->raw, EDU_BUFFER, 0x105000 - 50, counts[i], EDU_DMA_TO_GUEST);
        edu_check(fd, 5 * PAGE - 50, pattern, counts[i]);
    }
    close(fd);
}

/* Two maps that meet are one piece of bus; a map of the file's middle, and adjacent files. */
static void test_crossing(void **state)
{
    struct ob_fixture *fixture = *state;
    int a = ob_guest_memory(2 * PAGE), b = ob_guest_memory(8 * PAGE);

    edu_enable(&fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, 0x20000, PAGE, PROT, a, PAGE));
    ob_ok(ob_raw_map(&fixture->raw, 0x21000, PAGE, PROT, b, 5 * PAGE));
    assert_int_equal(pwrite(a, "0123456789", 10, 2 * PAGE - 10), 10);
    assert_int_equal(pwrite(b, "abcdefghij", 10, 5 * PAGE), 10);
    edu_dma(&fixture->raw, 0x21000 - 10, EDU_BUFFER, 20, 0);
    edu_dma(&fixture->raw, EDU_BUFFER, 0x21000 - 5, 20, EDU_DMA_TO_GUEST);
    edu_check(a, 2 * PAGE - 5, "01234", 5);
    edu_check(b, 5 * PAGE, "56789abcdefghij", 15);
    close(a);
    close(b);
}

/* A transfer that memory does not allow changes no memory and hangs nothing. */
static void test_not_permitted(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(4 * PAGE);

    edu_enable(&fixture->raw);
    assert_int_equal(pwrite(fd, "GUEST", 5, 0), 5);
    ob_ok(ob_raw_map(&fixture->raw, 0x20000, PAGE, PROT, fd, 0));
    ob_ok(ob_raw_map(&fixture->raw, 0x30000, PAGE, 1, fd, PAGE));     /* read-only for the device */
    ob_ok(ob_raw_map(&fixture->raw, 0x40000, PAGE, 2, fd, 2 * PAGE)); /* write-only */
    edu_dma(&fixture->raw, 0x20000, EDU_BUFFER, 5, 0);
    edu_dma(&fixture->raw, EDU_BUFFER, 0x30000, 5, EDU_DMA_TO_GUEST);
    edu_check(fd, PAGE, "\0\0\0\0\0", 5);
    assert_int_equal(pwrite(fd, "secret", 6, 2 * PAGE), 6);
    edu_dma(&fixture->raw, 0x40000, EDU_BUFFER, 6, 0);
    edu_dma(&fixture->raw, EDU_BUFFER, 0x20100, 6, EDU_DMA_TO_GUEST);
    edu_check(fd, 0x100, "GUEST", 5);
    edu_dma(&fixture->raw, EDU_BUFFER, 0x21000 - 2, 5, EDU_DMA_TO_GUEST); /* the second page is not there */
    edu_dma(&fixture->raw, EDU_BUFFER, 0x20000, 5000, EDU_DMA_TO_GUEST);  /* larger than the buffer */
    edu_check(fd, 0, "GUEST", 5);
    ob_set_command(&fixture->raw, PCI_COMMAND_MEMORY); /* no bus master */
    edu_dma(&fixture->raw, EDU_BUFFER, 0x20000 + 8, 5, EDU_DMA_TO_GUEST);
    edu_check(fd, 8, "\0\0\0\0\0", 5);
    close(fd);
}

/* After the reply to an unmap nothing reaches the memory any more; a remap of the same file shows it again. */
static void test_unmap_and_remap(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(4 * PAGE);

    edu_enable(&fixture->raw);
    for (int i = 0; i < 50; i++) {
        char text[16];
        int again = dup(fd);

        snprintf(text, sizeof(text), "round %05d", i);
        ob_ok(ob_raw_map(&fixture->raw, 0x20000, 4 * PAGE, PROT, again, 0));
        close(again);
        assert_int_equal(pwrite(fd, text, 11, 0), 11);
        edu_dma(&fixture->raw, 0x20000, EDU_BUFFER, 11, 0);
        edu_dma(&fixture->raw, EDU_BUFFER, 0x21000, 11, EDU_DMA_TO_GUEST);
        edu_check(fd, PAGE, text, 11);
        ob_ok(ob_raw_unmap(&fixture->raw, 0x20000, 4 * PAGE));
        edu_dma(&fixture->raw, EDU_BUFFER, 0x20000, 11, EDU_DMA_TO_GUEST);
        edu_dma(&fixture->raw, EDU_BUFFER, 0x22000, 11, EDU_DMA_TO_GUEST);
        edu_check(fd, 2 * PAGE, "\0\0\0\0\0\0\0\0\0\0", 11);
    }
    close(fd);
}

/* The client's memory shrinks under the device's feet. The device process must live; the session may end. */
static void test_truncated_file(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(4 * PAGE);
    uint32_t command = EDU_DMA_RUN | EDU_DMA_TO_GUEST;
    int r;

    edu_enable(&fixture->raw);
    ob_ok(ob_raw_map(&fixture->raw, 0x20000, 4 * PAGE, PROT, fd, 0));
    assert_int_equal(ftruncate(fd, 0), 0);
    edu_dma_set(&fixture->raw, EDU_BUFFER, 0x21000, 64);
    r = ob_raw_write(&fixture->raw, EDU_BAR, EDU_DMA_COMMAND, &command, sizeof(command));
    assert_true(r == 0 || r == -ENOTCONN);
    while (r == 0 && (command & EDU_DMA_RUN)) {
        r = ob_raw_read(&fixture->raw, EDU_BAR, EDU_DMA_COMMAND, &command, sizeof(command));
        assert_true(r == 0 || r == -ENOTCONN);
    }
    close(fd);
}

/* What a client leaves is gone with it: its maps, before the next one is served. */
static void test_disconnect(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory(64 * PAGE);

    assert_int_equal(map_many(&fixture->raw, 0, 64, fd, 0), 0);
    assert_true(ob_process_maps(fixture->process.pid, "ob-guest") > 0);
    close(fd);
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_handshake(&fixture->raw));
    assert_int_equal(ob_process_maps(fixture->process.pid, "ob-guest"), 0);
    assert_int_equal(ob_raw_unmap(&fixture->raw, 0, PAGE), ENOENT);
    ob_ok(ob_raw_map(&fixture->raw, 0, 64 * PAGE, PROT, -1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_map_errors),    OB_TEST(test_map_argsz),       OB_TEST(test_overlaps),
        OB_TEST(test_unmap_errors),  OB_TEST(test_odd_descriptors), OB_TEST(test_posted),
        OB_TEST(test_most_maps),     OB_TEST(test_transfer),        OB_TEST(test_crossing),
        OB_TEST(test_not_permitted), OB_TEST(test_unmap_and_remap), OB_TEST(test_truncated_file),
        OB_TEST(test_disconnect),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
