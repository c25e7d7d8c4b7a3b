/* test_limits: what VERSION agrees upon for maps: their page size, and how many of them; and the most there can be. */
#include "edu_dma.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST 65535u
#define PROT 3u

static void renegotiate(struct ob_fixture *fixture, const char *capabilities)
{
    ob_fixture_reconnect(fixture);
    ob_ok(ob_raw_version(&fixture->raw, 0, 0, capabilities, NULL));
}

/* --- Page sizes -------------------------------------------------------------------------------------------------- */

/* Address, size and file offset are multiples of the smallest size that both sides have. */
static void check_pages(struct ob_raw *raw, uint64_t page)
{
    int fd = ob_guest_memory(4 * page);

    assert_int_equal(ob_raw_map(raw, 0, page / 2, PROT, fd, 0), EINVAL);
    assert_int_equal(ob_raw_map(raw, 0, page + page / 2, PROT, -1, 0), EINVAL);
    assert_int_equal(ob_raw_map(raw, page / 2, page, PROT, fd, 0), EINVAL);
    assert_int_equal(ob_raw_map(raw, page / 2, page, PROT, -1, 0), EINVAL);
    assert_int_equal(ob_raw_map(raw, 0, page, PROT, fd, page / 2), EINVAL);
    assert_int_equal(ob_raw_map(raw, 0, page - 1, PROT, fd, 0), EINVAL);
    ob_ok(ob_raw_map(raw, 0, page, PROT, fd, page));
    ob_ok(ob_raw_map(raw, 3 * page, 2 * page, PROT, fd, 2 * page));
    assert_int_equal(ob_raw_map(raw, 2 * page, 2 * page, PROT, fd, 0), EEXIST);
    ob_ok(ob_raw_map(raw, page, page, PROT, -1, 0));
    assert_int_equal(ob_raw_unmap(raw, 3 * page, page), ENOENT);
    /* The memory is there, whatever its pages. */
    edu_enable(raw);
    assert_int_equal(pwrite(fd, "paged", 5, (off_t)(4 * page - 5)), 5);
    edu_dma(raw, 5 * page - 5, EDU_BUFFER, 5, 0);
    edu_dma(raw, EDU_BUFFER, 7, 5, EDU_DMA_TO_GUEST);
    edu_check(fd, page + 7, "paged", 5);
    ob_ok(ob_raw_unmap(raw, 0, page));
    ob_ok(ob_raw_unmap(raw, page, page));
    ob_ok(ob_raw_unmap(raw, 3 * page, 2 * page));
    close(fd);
}

static void test_pages(void **state)
{
    static const struct {
        const char *offer;
        uint64_t page;
    } cases[] = {
        { "{\"capabilities\":{}}", 4096 },
        { "{\"capabilities\":{\"pgsizes\":4096}}", 4096 },
        { "{\"capabilities\":{\"pgsizes\":65536}}", 65536 },
        { "{\"capabilities\":{\"pgsizes\":2097152}}", 2097152 },
        { "{\"capabilities\":{\"pgsizes\":2162688}}", 65536 }, /* 64 KiB and 2 MiB */
        { "{\"capabilities\":{\"pgsizes\":66048}}", 65536 },   /* 512 bytes and 64 KiB: the smaller is not ours */
    };
    struct ob_fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        renegotiate(fixture, cases[i].offer);
        check_pages(&fixture->raw, cases[i].page);
    }
}

/* What one session agreed upon is not the next one's. */
static void test_pages_are_the_sessions(void **state)
{
    struct ob_fixture *fixture = *state;

    renegotiate(fixture, "{\"capabilities\":{\"pgsizes\":2097152}}");
    assert_int_equal(ob_raw_map(&fixture->raw, 0, 4096, PROT, -1, 0), EINVAL);
    renegotiate(fixture, ob_raw_qemu_capabilities);
    ob_ok(ob_raw_map(&fixture->raw, 0, 4096, PROT, -1, 0));
    ob_ok(ob_raw_unmap(&fixture->raw, 0, 4096));
}

/* --- How many ---------------------------------------------------------------------------------------------------- */

/* Maps or unmaps every other page from number `first` on, in streams of up to 4096; all have to succeed. */
static void in_streams(struct ob_raw *raw, uint16_t command, unsigned first, unsigned end, int fd)
{
    uint16_t id = 0;

    while (first < end) {
        unsigned n = end - first < 4096 ? end - first : 4096;

        for (unsigned i = first; i < first + n; i++) {
            struct ob_raw_dma_map map = { .argsz = sizeof(map), .flags = PROT, .address = i * 8192ull, .size = 4096 };
            struct ob_raw_dma_unmap unmap = { .argsz = sizeof(unmap), .address = map.address, .size = 4096 };
            bool with_file = fd >= 0 && i % 2 == 0; /* half of them are reached by messages */

            map.offset = with_file ? i * 4096ull : 0;
            if (command == OB_RAW_DMA_MAP) {
                ob_ok(ob_raw_request(raw, command, 0, &map, sizeof(map), &fd, with_file, &id));
            } else {
                ob_ok(ob_raw_request(raw, command, 0, &unmap, sizeof(unmap), NULL, 0, &id));
            }
        }
        id = (uint16_t)(id - n);
        for (unsigned i = 0; i < n; i++) {
            ob_ok(ob_raw_reply(raw, ++id, command, NULL));
        }
        first += n;
    }
}

static void fill_and_empty(struct ob_fixture *fixture, unsigned most, int fd)
{
    struct ob_raw *raw = &fixture->raw;

    in_streams(raw, OB_RAW_DMA_MAP, 0, most, fd);
    assert_int_equal(ob_raw_map(raw, most * 8192ull, 4096, PROT, -1, 0), ENOSPC);
    if (fd >= 0) {
        assert_int_equal(ob_raw_map(raw, most * 8192ull, 4096, PROT, fd, 0), ENOSPC);
    }
    ob_ok(ob_raw_unmap(raw, (most / 2) * 8192ull, 4096)); /* one goes, one may come */
    ob_ok(ob_raw_map(raw, most * 8192ull, 4096, PROT, -1, 0));
    assert_int_equal(ob_raw_map(raw, (most / 2) * 8192ull, 4096, PROT, -1, 0), ENOSPC);
    ob_ok(ob_raw_unmap(raw, most * 8192ull, 4096));
    in_streams(raw, OB_RAW_DMA_UNMAP, 0, most / 2, fd);
    in_streams(raw, OB_RAW_DMA_UNMAP, most / 2 + 1, most, fd);
    assert_int_equal(ob_raw_unmap(raw, 0, 4096), ENOENT);
}

/* What the allocator keeps of some rounds, which depends on who frees what when, has to do for one more: a leak would
 * be there 65,535 times. */
static void test_most(void **state)
{
    struct ob_fixture *fixture = *state;
    int fd = ob_guest_memory((MOST + 1) * 4096ull);

    for (int round = 0; round < 3; round++) {
        long kept;

        fill_and_empty(fixture, MOST, round == 0 ? fd : -1);
        ob_fixture_reconnect(fixture);
        ob_ok(ob_raw_handshake(&fixture->raw));
        kept = ob_process_status(fixture->process.pid, "RssAnon");
        fixture->anonymous = kept > fixture->anonymous ? kept : fixture->anonymous;
    }
    fill_and_empty(fixture, MOST, -1);
    close(fd);
}

static void test_fewer(void **state)
{
    static const unsigned most[] = { 1, 2, 3, 100 };
    struct ob_fixture *fixture = *state;
    char offer[80];

    for (size_t i = 0; i < sizeof(most) / sizeof(*most); i++) {
        snprintf(offer, sizeof(offer), "{\"capabilities\":{\"max_dma_maps\":%u}}", most[i]);
        renegotiate(fixture, offer);
        fill_and_empty(fixture, most[i], -1);
    }
    renegotiate(fixture, "{\"capabilities\":{\"max_dma_maps\":0}}");
    assert_int_equal(ob_raw_map(&fixture->raw, 0, 4096, PROT, -1, 0), ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OB_TEST(test_pages),
        OB_TEST(test_pages_are_the_sessions),
        OB_TEST(test_most),
        OB_TEST(test_fewer),
    };

    return cmocka_run_group_tests(tests, ob_fixture_edu, ob_fixture_stop);
}
