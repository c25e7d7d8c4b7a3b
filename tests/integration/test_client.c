/* The client library against our own servers: every call once as a VM monitor makes it, in all three ways. */
#include <outboard/client.h>

#include "edu_regs.h"
#include "testdev_regs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define ok(call) assert_int_equal((call), 0)

static int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* A server program from the environment, started for this test alone. */
static struct ob_client *spawn(const char *variable, const struct ob_client_options *options)
{
    char *words[16], *command = strdup(getenv(variable)), why[256] = "", *rest = NULL;
    struct ob_client *client = NULL;
    int n = 0;

    assert_non_null(command);
    for (char *word = strtok_r(command, " ", &rest); word && n < 15; word = strtok_r(NULL, " ", &rest))
        words[n++] = word;
    words[n] = NULL;
    if (ob_client_spawn(words, options, &client, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    free(command);
    return client;
}

static uint32_t read32(struct ob_client *client, uint32_t region, uint64_t offset)
{
    uint32_t value = 0;

    ok(ob_client_read(client, region, offset, &value, sizeof(value), NULL));
    return value;
}

static void write32(struct ob_client *client, uint32_t region, uint64_t offset, uint32_t value)
{
    ok(ob_client_write(client, region, offset, &value, sizeof(value), NULL));
}

static void test_describes_the_device(void **state)
{
    int before = open_descriptors();
    struct ob_client *client = spawn("OUTBOARD_EDU", NULL);
    const struct ob_client_info *info = ob_client_info(client);
    const struct ob_client_region *region;
    struct ob_client_irq irq;
    uint8_t config[64];

    assert_int_equal(info->regions, VFIO_PCI_NUM_REGIONS);
    assert_int_equal(info->irqs, VFIO_PCI_NUM_IRQS);
    assert_true(info->flags & VFIO_DEVICE_FLAGS_PCI);
    assert_true(info->write_multi);
    ok(ob_client_region(client, VFIO_PCI_BAR0_REGION_INDEX, &region));
    assert_int_equal(region->size, EDU_BAR_SIZE);
    ok(ob_client_region(client, VFIO_PCI_BAR1_REGION_INDEX, &region));
    assert_int_equal(region->size, 0);
    assert_int_equal(ob_client_region(client, info->regions, &region), -EINVAL);
    ok(ob_client_irq(client, VFIO_PCI_INTX_IRQ_INDEX, &irq));
    assert_int_equal(irq.count, 1);
    assert_int_equal(ob_client_irq(client, info->irqs, &irq), -EINVAL);
    ok(ob_client_read(client, VFIO_PCI_CONFIG_REGION_INDEX, 0, config, sizeof(config), NULL));
    assert_int_equal(config[0] | config[1] << 8, 0x1234);
    assert_string_equal(ob_client_why(client), "");
    assert_true(ob_client_pid(client) > 0);
    ob_client_close(client);
    assert_int_equal(open_descriptors(), before);
}

static void test_reads_and_writes(void **state)
{
    struct ob_client *client = spawn("OUTBOARD_EDU", NULL);
    uint32_t value = 5, reads[100] = { 0 };
    struct ob_call calls[100] = { 0 };

    assert_int_equal(read32(client, EDU_BAR, EDU_ID), EDU_ID_VALUE);
    write32(client, EDU_BAR, EDU_LIVENESS, 0x12345678);
    assert_int_equal(read32(client, EDU_BAR, EDU_LIVENESS), ~0x12345678u);
    for (unsigned i = 0; i < 100; i++) {
        ok(ob_client_post(client, EDU_BAR, EDU_LIVENESS, &i, sizeof(i)));
        ok(ob_client_read(client, EDU_BAR, EDU_LIVENESS, &reads[i], sizeof(reads[i]), &calls[i]));
    }
    for (unsigned i = 100; i-- > 0;) {
        ok(ob_call_wait(client, &calls[i]));
        assert_int_equal(reads[i], ~i);
    }
    assert_int_equal(ob_client_read(client, EDU_BAR, EDU_BAR_SIZE - 2, &value, sizeof(value), NULL), -EINVAL);
    assert_int_equal(ob_client_read(client, EDU_BAR, UINT64_MAX, &value, sizeof(value), NULL), -EINVAL);
    assert_int_equal(ob_client_read(client, VFIO_PCI_BAR1_REGION_INDEX, 0, &value, sizeof(value), NULL), -EINVAL);
    ok(ob_client_reset(client, NULL));
    assert_int_equal(read32(client, EDU_BAR, EDU_FACTORIAL), 0);
    ob_client_close(client);
}

struct counted {
    struct ob_call call;
    struct ob_client *client;
    uint32_t value;
    unsigned *left;
};

/* The first round's callback makes the second round's call. */
static void count(struct ob_call *call, ssize_t result)
{
    struct counted *counted = call->ctx;
    uint32_t value;

    ok(result);
    assert_int_equal(counted->value, EDU_ID_VALUE);
    assert_int_equal(ob_client_read(counted->client, EDU_BAR, EDU_ID, &value, sizeof(value), NULL), -EDEADLK);
    if (--*counted->left >= 10) {
        counted->value = 0;
        ok(ob_client_read(counted->client, EDU_BAR, EDU_ID, &counted->value, sizeof(value), call));
    }
}

static void test_asynchronous_calls(void **state)
{
    struct ob_client *client = spawn("OUTBOARD_EDU", NULL);
    struct counted counted[10];
    unsigned left = 20;
    struct pollfd fd = { ob_client_fd(client), POLLIN, 0 };

    assert_true(fd.fd >= 0);
    for (unsigned i = 0; i < 10; i++) {
        counted[i] = (struct counted){ .call = { .done = count, .ctx = &counted[i] }, .client = client, .left = &left };
        ok(ob_client_read(client, EDU_BAR, EDU_ID, &counted[i].value, sizeof(uint32_t), &counted[i].call));
    }
    ok(ob_client_flush(client));
    while (left > 0) {
        assert_int_equal(poll(&fd, 1, 10000), 1);
        assert_true(ob_client_run(client, 0) >= 0);
    }
    assert_int_equal(ob_client_run(client, 0), 0);
    ob_client_close(client);
}

static int serve_dma(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    uint8_t *memory = ctx;

    if (iova < 0x10000 || iova + len > 0x20000)
        return -EFAULT;
    if (to_device)
        memcpy(buf, memory + (iova - 0x10000), len);
    else
        memcpy(memory + (iova - 0x10000), buf, len);
    return 0;
}

static void run_dma(struct ob_client *client, uint64_t src, uint64_t dst, uint64_t len, uint32_t command)
{
    uint32_t status;

    ok(ob_client_write(client, EDU_BAR, EDU_DMA_SRC, &src, 8, NULL));
    ok(ob_client_write(client, EDU_BAR, EDU_DMA_DST, &dst, 8, NULL));
    ok(ob_client_write(client, EDU_BAR, EDU_DMA_COUNT, &len, 8, NULL));
    write32(client, EDU_BAR, EDU_DMA_COMMAND, EDU_DMA_RUN | command);
    do {
        status = read32(client, EDU_BAR, EDU_DMA_COMMAND);
    } while (status & EDU_DMA_RUN);
}

static void enable_bus_mastering(struct ob_client *client)
{
    uint16_t command = 6;

    ok(ob_client_write(client, VFIO_PCI_CONFIG_REGION_INDEX, 4, &command, sizeof(command), NULL));
}

static void copy_by_dma(struct ob_client *client, uint8_t *memory)
{
    enable_bus_mastering(client);
    for (unsigned i = 0; i < 4096; i++)
        memory[i] = (uint8_t)(i * 7);
    run_dma(client, 0x10000, EDU_BUFFER, 4096, 0);
    run_dma(client, EDU_BUFFER, 0x12000, 4096, EDU_DMA_TO_GUEST);
    assert_memory_equal(memory, memory + 0x2000, 4096);
}

/* Over the twin socket, which is made if the client does not mind, and without. */
static void test_dma_by_messages(void **state)
{
    int before = open_descriptors();

    for (int without = 0; without < 2; without++) {
        uint8_t *memory = calloc(1, 0x10000);
        const struct ob_client_options options = { .dma = serve_dma, .dma_ctx = memory, .no_twin_socket = without };
        struct ob_client *client = spawn("OUTBOARD_EDU", &options);

        assert_int_equal(ob_client_info(client)->twin_socket, !without);
        ok(ob_client_dma_map(client, 0x10000, 0x10000, PROT_READ | PROT_WRITE, -1, 0, NULL));
        copy_by_dma(client, memory);
        ok(ob_client_dma_unmap(client, 0x10000, 0x10000, NULL));
        ob_client_close(client);
        free(memory);
    }
    assert_int_equal(open_descriptors(), before);
}

/* A device that keeps a request does its DMA meanwhile, and the client serves it while it waits for the reply. */
static void test_dma_beside_a_kept_request(void **state)
{
    static const struct td_entry entry = { 0x10000, 0x18000, 0x8000, TD_NO_VECTOR, 0, 0 };
    uint8_t *memory = calloc(1, 0x10000);
    struct ob_client *client =
        spawn("OUTBOARD_TESTDEV", &(struct ob_client_options){ .dma = serve_dma, .dma_ctx = memory });
    struct ob_call kept = { 0 };
    int fd = memfd_create("ring", MFD_CLOEXEC);
    const uint64_t ring = 0x100000;
    struct td_entry *entries;
    uint32_t value = 1;

    ok(ftruncate(fd, 4096));
    entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(entries, MAP_FAILED);
    entries[0] = entry;
    memset(memory, 0x5a, 0x8000);
    ok(ob_client_dma_map(client, 0x10000, 0x10000, PROT_READ | PROT_WRITE, -1, 0, NULL));
    ok(ob_client_dma_map(client, ring, 4096, PROT_READ | PROT_WRITE, fd, 0, NULL));
    enable_bus_mastering(client);
    ok(ob_client_write(client, TD_BAR, TD_RING_ADDR, &ring, 8, NULL));
    write32(client, TD_BAR, TD_RING_SIZE, 4);
    write32(client, TD_BAR, TD_RING_CTRL, 1);
    ok(ob_client_post(client, TD_BAR, TD_DOORBELL, &value, 4));
    ok(ob_client_read(client, TD_BAR, TD_KEEP, &value, 4, &kept));
    while (__atomic_load_n(&entries[0].status, __ATOMIC_ACQUIRE) == 0)
        assert_true(ob_client_run(client, 10) >= 0);
    assert_int_equal(entries[0].status, TD_DONE);
    assert_memory_equal(memory, memory + 0x8000, 0x8000);
    assert_false(ob_call_ready(client, &kept));
    ob_client_close(client);
    munmap(entries, 4096);
    close(fd);
    free(memory);
}

static void test_dma_by_mapping(void **state)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);
    struct ob_client *client = spawn("OUTBOARD_EDU", NULL);
    uint8_t *memory;

    ok(ftruncate(fd, 0x10000));
    memory = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    ok(ob_client_dma_map(client, 0x10000, 0x10000, PROT_READ | PROT_WRITE, fd, 0, NULL));
    assert_int_equal(ob_client_dma_map(client, 0x18000, 0x1000, PROT_READ, fd, 0, NULL), -EEXIST);
    assert_int_equal(ob_client_dma_map(client, 0x20800, 0x1000, PROT_READ, fd, 0, NULL), -EINVAL);
    copy_by_dma(client, memory);
    assert_int_equal(ob_client_dma_unmap(client, 0x10000, 0x8000, NULL), -ENOENT);
    ok(ob_client_dma_unmap_all(client));
    ok(ob_client_dma_map(client, 0x18000, 0x1000, PROT_READ, fd, 0, NULL));
    ob_client_close(client);
    munmap(memory, 0x10000);
    close(fd);
}

static void test_interrupts(void **state)
{
    struct ob_client *client = spawn("OUTBOARD_EDU", NULL);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint32_t flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    uint64_t count;

    ok(ob_client_set_irqs(client, flags, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, &fd, NULL));
    write32(client, EDU_BAR, EDU_IRQ_RAISE, 1);
    assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);
    write32(client, EDU_BAR, EDU_IRQ_ACK, 1);
    ok(ob_client_set_irqs(client, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, VFIO_PCI_INTX_IRQ_INDEX, 0, 1,
                          NULL, NULL, NULL));
    ok(ob_client_set_irqs(client, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_INTX_IRQ_INDEX, 0, 0,
                          NULL, NULL, NULL));
    assert_int_equal(ob_client_set_irqs(client, flags, VFIO_PCI_INTX_IRQ_INDEX, 1, 1, NULL, &fd, NULL), -EINVAL);
    ob_client_close(client);
    close(fd);
}

static void test_a_killed_server(void **state)
{
    struct ob_client *client = spawn("OUTBOARD_EDU", NULL);
    uint32_t value;
    struct ob_call call = { 0 };

    ok(kill(ob_client_pid(client), SIGSTOP));
    ok(ob_client_read(client, EDU_BAR, EDU_ID, &value, sizeof(value), &call));
    ok(ob_client_flush(client));
    ok(kill(ob_client_pid(client), SIGKILL));
    assert_int_equal(ob_call_wait(client, &call), -ENOTCONN);
    assert_int_equal(ob_client_read(client, EDU_BAR, EDU_ID, &value, sizeof(value), NULL), -ENOTCONN);
    assert_string_not_equal(ob_client_why(client), "");
    ob_client_close(client);
}

static void test_mapped_memory(void **state)
{
    struct ob_client *client = spawn("OUTBOARD_TESTDEV", NULL);
    const struct ob_client_info *info = ob_client_info(client);
    unsigned areas = 0;

    for (uint32_t index = 0; index < info->regions; index++) {
        const struct ob_client_region *region;
        int n;

        ok(ob_client_region(client, index, &region));
        n = ob_client_map(client, index);
        assert_int_equal(n, region->areas);
        for (int i = 0; i < n; i++) {
            volatile uint32_t *memory = ob_client_memory(client, index, region->area[i].offset, region->area[i].size);

            assert_non_null(memory);
            write32(client, index, region->area[i].offset + 8, 0xabcd0000 + index);
            assert_int_equal(memory[2], 0xabcd0000 + index);
            areas++;
        }
        assert_null(ob_client_memory(client, index, region->size, 4));
    }
    assert_true(areas > 0);
    ob_client_close(client);
}

static void test_moves_a_device(void **state)
{
    struct ob_client *from = spawn("OUTBOARD_TESTDEV", NULL), *to = spawn("OUTBOARD_TESTDEV", NULL);
    size_t room = 1 << 24, have = 0;
    uint8_t *stream = malloc(room);
    uint32_t device_state;
    uint64_t flags, most;
    ssize_t n;

    assert_non_null(stream);
    ok(ob_client_migration_flags(from, &flags));
    assert_true(flags & VFIO_MIGRATION_STOP_COPY);
    ok(ob_client_migration_size(from, &most));
    write32(from, TD_BAR, TD_SCRATCH, 0xc0ffee);
    assert_int_equal(ob_client_migration_set_state(from, VFIO_DEVICE_STATE_ERROR, NULL), -EINVAL);
    ok(ob_client_migration_set_state(from, VFIO_DEVICE_STATE_STOP_COPY, NULL));
    ok(ob_client_migration_state(from, &device_state));
    assert_int_equal(device_state, VFIO_DEVICE_STATE_STOP_COPY);
    while ((n = ob_client_migration_read(from, stream + have, room - have, NULL)) > 0)
        have += (size_t)n;
    assert_int_equal(n, 0);
    assert_in_range(have, 1, most);
    ok(ob_client_migration_set_state(to, VFIO_DEVICE_STATE_RESUMING, NULL));
    ok(ob_client_migration_write(to, stream, have, NULL));
    ok(ob_client_migration_set_state(to, VFIO_DEVICE_STATE_RUNNING, NULL));
    assert_int_equal(read32(to, TD_BAR, TD_SCRATCH), 0xc0ffee);
    free(stream);
    ob_client_close(from);
    ob_client_close(to);
}

static void test_dirty_pages(void **state)
{
    uint8_t *memory = calloc(1, 0x10000);
    struct ob_client *client =
        spawn("OUTBOARD_EDU", &(struct ob_client_options){ .dma = serve_dma, .dma_ctx = memory });
    uint64_t bitmap = UINT64_MAX;

    ok(ob_client_dma_map(client, 0x10000, 0x10000, PROT_READ | PROT_WRITE, -1, 0, NULL));
    assert_true(ob_client_dirty_report(client, 0x10000, 0x10000, 4096, &bitmap) < 0); /* not started */
    ok(ob_client_dirty_start(client, 4096, NULL, 0));
    copy_by_dma(client, memory);
    ok(ob_client_dirty_report(client, 0x10000, 0x10000, 4096, &bitmap));
    assert_int_equal(bitmap, 1 << 2);
    ok(ob_client_dirty_report(client, 0x10000, 0x10000, 4096, &bitmap));
    assert_int_equal(bitmap, 0);
    assert_int_equal(ob_client_dirty_report(client, 0x10000, 0x10000, 4097, &bitmap), -EINVAL);
    ok(ob_client_dirty_stop(client));
    ob_client_close(client);
    free(memory);
}

/* A program that listens at a path of ours, one that is not there, and one that ends at once. */
static void test_programs(void **state)
{
    int before = open_descriptors();
    char why[256] = "", *command = strdup(getenv("OUTBOARD_EDU")), *rest = NULL;
    char by_path[] = "--socket-path={socket}", false_path[] = "/bin/false", nowhere[] = "/nowhere/at-all";
    struct ob_client *client = NULL;
    char *argv[8];
    int n = 0;

    for (char *word = strtok_r(command, " ", &rest); word && n < 6; word = strtok_r(NULL, " ", &rest))
        argv[n++] = word;
    argv[n++] = by_path;
    argv[n] = NULL;
    if (ob_client_spawn(argv, NULL, &client, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    assert_int_equal(read32(client, EDU_BAR, EDU_ID), EDU_ID_VALUE);
    ob_client_close(client);
    assert_int_equal(ob_client_spawn((char *[]){ nowhere, NULL }, NULL, &client, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, nowhere));
    assert_int_equal(ob_client_spawn((char *[]){ false_path, NULL }, NULL, &client, why, sizeof(why)), -ENOTCONN);
    assert_non_null(strstr(why, "status 1"));
    assert_true(ob_client_spawn((char *[]){ false_path, by_path, NULL }, NULL, &client, why, sizeof(why)) < 0);
    free(command);
    assert_int_equal(open_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describes_the_device),
        cmocka_unit_test(test_reads_and_writes),
        cmocka_unit_test(test_asynchronous_calls),
        cmocka_unit_test(test_dma_by_messages),
        cmocka_unit_test(test_dma_beside_a_kept_request),
        cmocka_unit_test(test_dma_by_mapping),
        cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_a_killed_server),
        cmocka_unit_test(test_mapped_memory),
        cmocka_unit_test(test_moves_a_device),
        cmocka_unit_test(test_dirty_pages),
        cmocka_unit_test(test_programs),
    };

    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
