/* The guest's memory against a simple model: an array that says, for each page, which map it is in. Random changes with
 * a fixed seed; orders that shape the tree in particular ways; and the largest number of maps. */
#include "memory/memory.h"
#include "memory/space.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE       UINT64_C(4096)
#define RW         (PROT_READ | PROT_WRITE)
#define PAGES      (1u << 18) /* of the DMA space that the model knows */
#define FILE_PAGES 64u
#define MOST       4u /* pages in a map */

struct map {
    uint32_t first, pages, offset; /* pages; offset within the file */
    int prot;
    bool remote;
};

struct model {
    struct ob_memory *memory;
    struct map *map; /* by number, from 1 */
    uint32_t *owner; /* of each page; 0: none */
    uint32_t *live;  /* numbers of the maps there are */
    uint32_t *unused;
    uint32_t lives, unuseds;
    uint64_t seed;
    int fd;
};

static uint32_t below(struct model *m, uint32_t limit)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return (uint32_t)((m->seed >> 16) % limit);
}

static int set_up(void **state)
{
    struct model *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    m->map = calloc(OB_MEMORY_MAX_MAPS + 1, sizeof(*m->map));
    m->owner = calloc(PAGES, sizeof(*m->owner));
    m->live = calloc(OB_MEMORY_MAX_MAPS, sizeof(*m->live));
    m->unused = calloc(OB_MEMORY_MAX_MAPS, sizeof(*m->unused));
    assert_true(m->map && m->owner && m->live && m->unused);
    for (uint32_t i = OB_MEMORY_MAX_MAPS; i; i--)
        m->unused[m->unuseds++] = i;
    m->seed = UINT64_C(0x0b0a7d);
    m->fd = memfd_create("model", MFD_CLOEXEC);
    assert_true(m->fd >= 0);
    assert_int_equal(ftruncate(m->fd, (off_t)(FILE_PAGES * PAGE)), 0);
    for (uint32_t i = 0; i < FILE_PAGES; i++)
        assert_int_equal(pwrite(m->fd, &i, sizeof(i), (off_t)(i * PAGE)), sizeof(i));
    assert_int_equal(ob_memory_new(&m->memory, OB_MEMORY_MAX_MAPS), 0);
    *state = m;
    return 0;
}

static int tear_down(void **state)
{
    struct model *m = *state;

    ob_memory_free(m->memory);
    close(m->fd);
    free(m->map);
    free(m->owner);
    free(m->live);
    free(m->unused);
    free(m);
    return 0;
}

/* Maps in both, or sees that both refuse. */
static void do_map(struct model *m, uint32_t first, uint32_t pages)
{
    struct map map = { .first = first,
                       .pages = pages,
                       .offset = below(m, FILE_PAGES - pages + 1),
                       .prot = (int)below(m, 3) + 1,
                       .remote = below(m, 4) == 0 };
    int expected = m->lives < OB_MEMORY_MAX_MAPS ? 0 : -ENOSPC, fd = map.remote ? -1 : dup(m->fd), err;

    for (uint32_t i = 0; i < pages; i++)
        if (m->owner[first + i])
            expected = -EEXIST;
    err = ob_memory_map(m->memory, first * PAGE, pages * PAGE, map.prot, fd, map.offset * PAGE);
    assert_int_equal(err, expected);
    if (err) {
        if (fd >= 0)
            close(fd);
        return;
    }
    m->live[m->lives++] = m->unused[--m->unuseds];
    m->map[m->live[m->lives - 1]] = map;
    for (uint32_t i = 0; i < pages; i++)
        m->owner[first + i] = m->live[m->lives - 1];
}

static void do_unmap(struct model *m, uint32_t index)
{
    struct map *map = &m->map[m->live[index]];
    struct ob_retired *retired;

    assert_int_equal(ob_memory_unmap(m->memory, map->first * PAGE, map->pages * PAGE + PAGE, &retired), -ENOENT);
    assert_int_equal(ob_memory_unmap(m->memory, map->first * PAGE, map->pages * PAGE, &retired), 0);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
    memset(m->owner + map->first, 0, map->pages * sizeof(*m->owner));
    m->unused[m->unuseds++] = m->live[index];
    m->live[index] = m->live[--m->lives];
}

/* Looks up one page, from some byte of it. */
static void check_page(struct model *m, uint32_t page)
{
    uint32_t skip = below(m, PAGE / 4) * 4, number = m->owner[page];
    struct map *map = &m->map[number];
    uint64_t iova = page * PAGE + skip;
    struct ob_memory_piece piece;
    struct iovec iov;
    int err = ob_memory_find(m->memory, iova, 100 * PAGE, &piece), expected;

    assert_int_equal(err, number ? 0 : -EFAULT);
    expected = !number ? -EFAULT : !(map->prot & PROT_WRITE) ? -EACCES : map->remote ? -EREMOTE : 1;
    assert_int_equal(ob_memory_translate(m->memory, iova, 1, PROT_WRITE, &iov, 1), expected);
    if (!number)
        return;
    assert_int_equal(piece.iova, iova);
    assert_int_equal(piece.len, (map->first + map->pages) * PAGE - iova);
    assert_int_equal(piece.prot, map->prot);
    assert_int_equal(piece.host == NULL, map->remote);
    if (piece.host)
        assert_int_equal(*(uint32_t *)((char *)piece.host - skip), map->offset + page - map->first);
    if (expected == 1)
        assert_true(iov.iov_len == 1);
}

static void check_all(struct model *m)
{
    for (uint32_t page = 0; page < PAGES; page++)
        check_page(m, page);
    assert_int_equal(ob_memory_maps(m->memory), m->lives);
}

/* Random changes of which `grow` of 100 are maps. */
static void churn(struct model *m, unsigned changes, uint32_t grow)
{
    while (changes--) {
        if (below(m, 100) < grow)
            do_map(m, below(m, PAGES - MOST), 1 + below(m, MOST));
        else if (m->lives)
            do_unmap(m, below(m, m->lives));
        check_page(m, below(m, PAGES));
    }
}

static void random_changes(void **state)
{
    struct model *m = *state;

    churn(m, 120000, 95);
    assert_true(m->lives > 40000);
    check_all(m);
    churn(m, 60000, 50);
    check_all(m);
    churn(m, 100000, 10);
    check_all(m);
    while (m->lives)
        do_unmap(m, below(m, m->lives));
    check_all(m);
    churn(m, 2000, 80);
    check_all(m);
}

/* No more levels than the tree allows for, after as hostile an order as could be thought of: fill, thin out every
 * node, fill the gaps in one place. */
static void orders(void **state)
{
    struct model *m = *state;

    for (uint32_t i = 0; i < 60000; i++) /* ascending: full nodes */
        do_map(m, i * 4, 2);
    check_all(m);
    for (uint32_t i = m->lives; i-- > 0;)
        if (i % 3)
            do_unmap(m, i);
    check_all(m);
    for (uint32_t i = 30000; i-- > 0;) /* descending, into the gaps */
        do_map(m, i * 4 + 2, 1);
    check_all(m);
    assert_true((atomic_load(&m->memory->tree.root) & (OB_CACHE_LINE - 1)) <= 3);
    while (m->lives > 1)
        do_unmap(m, 0);
    check_all(m);
    assert_int_equal(atomic_load(&m->memory->tree.root) & (OB_CACHE_LINE - 1), 0);
}

static void the_limit(void **state)
{
    struct model *m = *state;
    struct ob_retired *retired;

    for (uint32_t i = 0; i < OB_MEMORY_MAX_MAPS; i++)
        do_map(m, (i * 40503u & 0xffff) * 4, 1 + i % 4); /* an odd factor: all numbers, in a scattered order */
    assert_int_equal(m->lives, OB_MEMORY_MAX_MAPS);
    check_all(m);
    do_map(m, (OB_MEMORY_MAX_MAPS * 40503u & 0xffff) * 4, 1); /* there is room in the space, but none for the map */
    assert_int_equal(m->lives, OB_MEMORY_MAX_MAPS);
    do_unmap(m, 12345);
    do_map(m, (OB_MEMORY_MAX_MAPS * 40503u & 0xffff) * 4, 1);
    assert_int_equal(m->lives, OB_MEMORY_MAX_MAPS);
    check_all(m);
    assert_int_equal(ob_memory_unmap_all(m->memory, &retired), OB_MEMORY_MAX_MAPS);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
    memset(m->owner, 0, PAGES * sizeof(*m->owner));
    while (m->lives)
        m->unused[m->unuseds++] = m->live[--m->lives];
    check_all(m);
    churn(m, 1000, 90);
    check_all(m);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(random_changes), TEST(orders), TEST(the_limit) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
