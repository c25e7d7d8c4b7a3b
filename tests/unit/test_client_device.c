/* Commands of the client library that are cut, counted or come with descriptors: SET_IRQS, features, sub-regions. */
#include "client_script.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

static struct script *script_new(script_hook *hook, void *ctx)
{
    struct script *script = calloc(1, sizeof(*script));

    assert_non_null(script);
    script_start(script, hook);
    script->ctx = ctx;
    return script;
}

static void finish(struct script *script, struct ob_client *client)
{
    script_end(script, client);
    free(script);
}

/* --- SET_IRQS ---------------------------------------------------------------------------------------------------- */

struct sets {
    unsigned n;
    struct ob_wire_irq_set set[16];
    unsigned nfds[16];
};

static bool note_sets(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                      unsigned nfds)
{
    struct sets *sets = script->ctx;
    struct vfio_irq_info irq = { sizeof(irq), VFIO_IRQ_INFO_EVENTFD, 0, 32 };

    if (header->command == OB_DEVICE_GET_IRQ_INFO) {
        script_reply(script, header, &irq, sizeof(irq), NULL, 0);
        return true;
    }
    if (header->command == OB_DEVICE_SET_IRQS && sets->n < 16) {
        memcpy(&sets->set[sets->n], payload, sizeof(sets->set[0]));
        sets->nfds[sets->n++] = nfds;
    }
    return false;
}

static void test_vectors_in_pieces(void **state)
{
    static const struct {
        uint32_t start, count;
        unsigned nfds;
    } expected[] = { { 3, 4, 4 }, { 7, 1, 1 }, { 8, 2, 0 }, { 10, 4, 4 }, { 14, 3, 3 } };
    const uint32_t assign = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    struct sets sets = { 0 };
    struct script *script = script_new(note_sets, &sets);
    struct ob_client *client;
    int fd = eventfd(0, EFD_CLOEXEC), fds[14];

    script->capabilities = "{\"capabilities\":{\"max_msg_fds\":4}}";
    client = script_client(script, NULL);
    for (unsigned i = 0; i < 14; i++)
        fds[i] = i == 5 || i == 6 ? -1 : fd;
    ok(ob_client_set_irqs(client, assign, 0, 3, 14, NULL, fds, NULL));
    assert_int_equal(sets.n, sizeof(expected) / sizeof(expected[0]));
    for (unsigned i = 0; i < sets.n; i++) {
        assert_int_equal(sets.set[i].start, expected[i].start);
        assert_int_equal(sets.set[i].count, expected[i].count);
        assert_int_equal(sets.nfds[i], expected[i].nfds);
    }
    /* What the index does not have is not sent. */
    sets.n = 0;
    assert_int_equal(ob_client_set_irqs(client, assign, 0, 20, 14, NULL, fds, NULL), -EINVAL);
    assert_int_equal(ob_client_set_irqs(client, assign, 0, UINT32_MAX, 2, NULL, fds, NULL), -EINVAL);
    assert_int_equal(ob_client_set_irqs(client, assign, 1, 0, 1, NULL, fds, NULL), -EINVAL);
    assert_int_equal(
        ob_client_set_irqs(client, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK, 0, 0, 1, NULL, NULL, NULL),
        -EINVAL);
    assert_int_equal(sets.n, 0);
    close(fd);
    finish(script, client);
}

static void test_a_server_without_descriptors(void **state)
{
    struct sets sets = { 0 };
    struct script *script = script_new(note_sets, &sets);
    struct ob_client *client;
    int fd = eventfd(0, EFD_CLOEXEC);
    uint32_t assign = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;

    script->capabilities = "{\"capabilities\":{\"max_msg_fds\":0}}";
    client = script_client(script, NULL);
    assert_int_equal(ob_client_set_irqs(client, assign, 0, 0, 1, NULL, &fd, NULL), -EOPNOTSUPP);
    ok(ob_client_set_irqs(client, assign, 0, 0, 1, NULL, NULL, NULL));
    assert_int_equal(sets.nfds[0], 0);
    close(fd);
    finish(script, client);
}

/* --- Sub-regions ------------------------------------------------------------------------------------------------- */

struct io_reply {
    struct ob_wire_io_fds head;
    struct ob_wire_io_fd entry[3];
};

static bool answer_io_fds(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                          unsigned nfds)
{
    int pair[2];

    if (header->command != OB_DEVICE_GET_REGION_IO_FDS || pipe2(pair, O_CLOEXEC) != 0)
        return false;
    script_reply(script, header, script->ctx, sizeof(struct io_reply), pair, 2);
    close(pair[0]);
    close(pair[1]);
    return true;
}

static void test_sub_regions(void **state)
{
    struct io_reply reply = { .head = { .argsz = sizeof(reply), .index = 0, .count = 3 },
                              .entry = { { .offset = 0, .size = 4, .fd_index = 1 },
                                         { .offset = 8, .size = 8, .fd_index = 1, .type = 1, .data = 77 },
                                         { .offset = 64, .size = 4, .fd_index = 0, .type = 9 } } };
    struct script *script = script_new(answer_io_fds, &reply);
    struct ob_client *client = script_client(script, NULL);
    struct ob_client_io_fd list[2];
    struct stat file[2];

    assert_int_equal(ob_client_io_fds(client, 0, list, 2), 2);
    assert_int_not_equal(list[0].fd, list[1].fd);
    ok(fstat(list[0].fd, &file[0]));
    ok(fstat(list[1].fd, &file[1]));
    assert_int_equal(file[0].st_ino, file[1].st_ino);
    assert_int_equal(list[1].data, 77);
    close(list[0].fd);
    close(list[1].fd);
    assert_int_equal(ob_client_io_fds(client, 0, list, 1), 2);
    close(list[0].fd);
    assert_int_equal(ob_client_io_fds(client, 9, list, 2), -EINVAL);
    reply.entry[1].offset = SCRIPT_BAR_SIZE; /* leaves the region */
    assert_int_equal(ob_client_io_fds(client, 0, list, 2), -EPROTO);
    finish(script, client);
}

static void test_sub_regions_of_no_descriptor(void **state)
{
    struct io_reply reply = { .head = { .argsz = sizeof(reply), .index = 0, .count = 3 },
                              .entry = { { .size = 4 }, { .size = 4, .fd_index = 2 }, { .size = 4 } } };
    struct script *script = script_new(answer_io_fds, &reply);
    struct ob_client *client = script_client(script, NULL);
    struct ob_client_io_fd list[3];

    assert_int_equal(ob_client_io_fds(client, 0, list, 3), -EPROTO);
    finish(script, client);
}

/* --- Features ---------------------------------------------------------------------------------------------------- */

/* A report with every bit set, also those beyond the range; `ctx` says how many words it lacks. */
static bool answer_report(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                          unsigned nfds)
{
    struct {
        struct ob_wire_feature feature;
        struct ob_wire_dma_report report;
    } asked;
    size_t words;
    uint8_t *reply;

    if (header->command != OB_DEVICE_FEATURE || header->size < sizeof(*header) + sizeof(asked))
        return false;
    memcpy(&asked, payload, sizeof(asked));
    words = ob_bitmap_size(asked.report.length, asked.report.page_size) / 8 - *(unsigned *)script->ctx;
    reply = malloc(sizeof(asked) + 8 * words);
    if (!reply)
        return false;
    asked.feature.argsz = (uint32_t)(sizeof(asked) + 8 * words);
    memcpy(reply, &asked, sizeof(asked));
    memset(reply + sizeof(asked), 0xff, 8 * words);
    script_reply(script, header, reply, sizeof(asked) + 8 * words, NULL, 0);
    free(reply);
    return true;
}

static void test_dirty_report_in_pieces(void **state)
{
    enum { PAGES = 1000003 };
    unsigned lacking = 0;
    struct script *script = script_new(answer_report, &lacking);
    struct ob_client *client;
    uint64_t *bitmap = calloc(PAGES / 64 + 2, 8);

    script->capabilities = "{\"capabilities\":{\"max_data_xfer_size\":4096}}";
    client = script_client(script, NULL);
    bitmap[PAGES / 64 + 1] = 0x1234; /* not ours to give */
    ok(ob_client_dirty_report(client, 0, PAGES * UINT64_C(4096), 4096, bitmap));
    for (unsigned i = 0; i < PAGES / 64; i++)
        assert_true(bitmap[i] == UINT64_MAX);
    assert_true(bitmap[PAGES / 64] == (UINT64_C(1) << PAGES % 64) - 1);
    assert_int_equal(bitmap[PAGES / 64 + 1], 0x1234);
    assert_true(atomic_load(&script->commands[OB_DEVICE_FEATURE]) > 10);
    lacking = 1;
    assert_int_equal(ob_client_dirty_report(client, 0, 4096 * 640, 4096, bitmap), -EPROTO);
    finish(script, client);
    free(bitmap);
}

static void test_features_that_are_lacking(void **state)
{
    struct script *script = script_new(NULL, NULL);
    struct ob_client *client = script_client(script, NULL);
    uint64_t flags;
    uint32_t device_state;

    assert_int_equal(ob_client_migration_flags(client, &flags), -ENOTTY);
    assert_int_equal(ob_client_migration_state(client, &device_state), -ENOTTY);
    assert_int_equal(
        ob_client_feature(client, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET | 1, &flags, 8, 8, NULL), -EINVAL);
    assert_int_equal(ob_client_dirty_stop(client), -ENOTTY);
    ok(ob_client_reset(client, NULL));
    finish(script, client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_in_pieces),
        cmocka_unit_test(test_a_server_without_descriptors),
        cmocka_unit_test(test_sub_regions),
        cmocka_unit_test(test_sub_regions_of_no_descriptor),
        cmocka_unit_test(test_dirty_report_in_pieces),
        cmocka_unit_test(test_features_that_are_lacking),
    };

    return cmocka_run_group_tests_name("client commands", tests, NULL, NULL);
}
