/* client_driver.c: a client for the judge of clients: does everything that the library can, in a fixed order, and takes
 * the server's DMA meanwhile. Ends with status 0 only if every call succeeded and gave what it should.
 *
 *   client_driver [--stay] SOCKET
 *
 * What a server may lack is done without: features, migration, logging, descriptors, mappable regions, room for maps. A
 * reset and a feature are not waited for as long as other calls, and gone on without. --stay: lives on afterwards,
 * until the server ends the connection. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <outboard/client.h>

#define ID           0x6d6f6465u /* of the judge's device, at 0 of region 0 */
#define IMPATIENT_MS 300
#define PAGES        64
#define STATE_MAX    65536

/* Of younger headers than that of Linux 6.1. */
#define PRE_COPY_FLAG  (UINT64_C(1) << 2)
#define PRE_COPY_STATE 6u

static struct ob_client *client;
static const struct ob_client_info *info;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list args;

    fputs("client_driver: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (client != NULL && *ob_client_why(client) != '\0')
        fprintf(stderr, ": %s", ob_client_why(client));
    fputc('\n', stderr);
    ob_client_close(client);
    exit(1);
}

static void ok(ssize_t result, const char *what)
{
    if (result < 0)
        fail("%s: %s", what, strerror((int)-result));
}

/* Whether the server has it: a refusal says no. */
static bool has(ssize_t result, const char *what)
{
    if (result == -ENOTCONN || result == -EPROTO || result == -ETIMEDOUT)
        ok(result, what);
    return result >= 0;
}

static void want(bool condition, const char *what)
{
    if (!condition)
        fail("%s", what);
}

/* --- Registers --------------------------------------------------------------------------------------------------- */

static void read_at(uint32_t region, uint64_t offset, void *to, size_t len)
{
    ok(ob_client_read(client, region, offset, to, len, NULL), "read");
}

/* Writes, and reads it back. */
static void write_at(uint32_t region, uint64_t offset, const void *from, size_t len)
{
    uint8_t back[512];

    ok(ob_client_write(client, region, offset, from, len, NULL), "write");
    read_at(region, offset, back, len);
    want(memcmp(back, from, len) == 0, "what was written is not there");
}

static uint64_t size_of(uint32_t index)
{
    const struct ob_client_region *region;

    if (index >= info->regions || !has(ob_client_region(client, index, &region), "region"))
        return 0;
    return region->size;
}

static void configuration(void)
{
    uint8_t config[4096];
    uint16_t command = 6; /* memory and bus mastering */

    read_at(VFIO_PCI_CONFIG_REGION_INDEX, 0, config, sizeof(config));
    want(config[0] == 0x34 && config[1] == 0x12, "the vendor id is another");
    write_at(VFIO_PCI_CONFIG_REGION_INDEX, 4, &command, sizeof(command));
    write_at(VFIO_PCI_CONFIG_REGION_INDEX, 0x3c, "\x0b", 1);
}

static void registers(void)
{
    uint8_t data[256];
    uint32_t id;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 5 + 1);
    read_at(0, 0, &id, sizeof(id));
    want(id == ID, "region 0 does not begin with the judge's number");
    for (size_t width = 1; width <= 8; width *= 2)
        write_at(0, 0x100 + 8 * width, data + width, width);
    write_at(0, 0x200, data, sizeof(data));
    if (size_of(1) >= 32)
        write_at(1, 4, data, 1);
    if (size_of(9) >= 64)
        write_at(9, 0, data, 64);
}

static void posts(void)
{
    uint32_t last = 0;
    uint8_t block[64];

    for (uint32_t i = 0; i < 20; i++)
        ok(ob_client_post(client, 0, 0x300 + 4 * (i % 8), &i, sizeof(i)), "post");
    ok(ob_client_flush(client), "flush");
    memset(block, 0x5a, sizeof(block));
    ok(ob_client_post(client, 0, 0x340, block, sizeof(block)), "post");
    last = 0xfeed;
    ok(ob_client_post(client, 0, 0x300, &last, sizeof(last)), "post");
    read_at(0, 0x300, &last, sizeof(last));
    want(last == 0xfeed, "the last posted write is not there");
}

static void pipelined(void)
{
    struct ob_call calls[8] = { 0 };
    uint32_t values[8];

    for (unsigned i = 0; i < 8; i++)
        ok(ob_client_read(client, 0, 0x320 + 4 * i, &values[i], 4, &calls[i]), "pipelined read");
    for (unsigned i = 0; i < 8; i++)
        ok(ob_call_wait(client, &calls[i]), "pipelined read");
}

/* Memory of a region, by messages and as it is mapped; across the beginning of what can be mapped, too. */
static void mapped(uint32_t index, uint64_t offset)
{
    uint8_t data[16], back[16];

    if (size_of(index) < offset + sizeof(data))
        return;
    memset(data, 0xa0 + (int)index, sizeof(data));
    write_at(index, offset, data, sizeof(data));
    ok(ob_client_map(client, index), "mapping a region");
    read_at(index, offset, back, sizeof(back));
    want(memcmp(data, back, sizeof(data)) == 0, "mapped memory and messages do not show the same");
    memset(data, 0xb0, sizeof(data));
    write_at(index, offset, data, sizeof(data));
    if (offset >= 8)
        write_at(index, offset - 8, data, sizeof(data));
}

/* --- DMA --------------------------------------------------------------------------------------------------------- */

struct map {
    uint64_t iova, pages, page; /* page: of the memory */
    int prot;
    bool fd;
};
static const struct map maps[] = {
    { 0x10000000, 16, 0, PROT_READ | PROT_WRITE, true },
    { 0x20000000, 16, 16, PROT_READ, true },
    { 0x30000000, 16, 32, PROT_READ | PROT_WRITE, false },
    { 0x40000000, 8, 48, PROT_READ, false },
    { 0x50000000, 8, 56, PROT_WRITE, false },
};
/* Comes and goes. */
static const struct map guest = { 0x60000000, 8, 48, PROT_READ, false };
#define MAPS (sizeof(maps) / sizeof(maps[0]))

static uint8_t *memory;
static int memory_fd;
static uint64_t page;

static int take_dma(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    for (size_t i = 0; i <= MAPS; i++) {
        const struct map *map = i < MAPS ? &maps[i] : &guest;
        uint64_t at = iova - map->iova;

        if (iova < map->iova || at >= map->pages * page || len > map->pages * page - at)
            continue;
        if (to_device)
            memcpy(buf, memory + map->page * page + at, len);
        else
            memcpy(memory + map->page * page + at, buf, len);
        return 0;
    }
    return -EFAULT;
}

static int map_memory(const struct map *map)
{
    return ob_client_dma_map(client, map->iova, map->pages * page, map->prot, map->fd ? memory_fd : -1,
                             map->page * page, NULL);
}

static void map_all(void)
{
    uint32_t there = 0;

    for (size_t i = 0; i < MAPS; i++) {
        int result = map_memory(&maps[i]);

        if (there == info->max_dma_maps && result == -ENOSPC)
            continue;
        if (maps[i].fd && info->max_msg_fds == 0 && result == -EOPNOTSUPP)
            continue;
        ok(result, "mapping memory for DMA");
        there++;
    }
    for (unsigned i = 0; i < 2 && there < info->max_dma_maps; i++) {
        ok(map_memory(&guest), "mapping memory for DMA");
        ok(ob_client_dma_unmap(client, guest.iova, guest.pages * page, NULL), "unmapping it");
    }
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

#define VECTORS 16

static int set(uint32_t flags, uint32_t index, uint32_t count, const uint8_t *bools, const int *fds)
{
    return ob_client_set_irqs(client, flags, index, 0, count, bools, fds, NULL);
}

static void await_signal(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    uint64_t count;

    want(poll(&pfd, 1, 5000) == 1 && read(fd, &count, sizeof(count)) == sizeof(count), "an interrupt did not come");
}

static void mask(uint32_t index, bool by_eventfd)
{
    static const uint8_t yes[] = { 1 };
    int fd = eventfd(0, EFD_CLOEXEC);

    ok(set(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK, index, 1, NULL, NULL), "masking");
    ok(set(VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_UNMASK, index, 1, yes, NULL), "unmasking");
    if (by_eventfd)
        ok(set(VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, index, 1, NULL, &fd), "an unmask eventfd");
    close(fd);
}

static void interrupts(uint32_t index)
{
    const uint32_t assign = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    uint8_t bools[VECTORS] = { 0 };
    struct ob_client_irq irq;
    bool by_eventfd;
    int fds[VECTORS];

    if (!has(ob_client_irq(client, index, &irq), "interrupt") || irq.count == 0 || irq.count > VECTORS)
        return;
    by_eventfd = (irq.flags & VFIO_IRQ_INFO_EVENTFD) && info->max_msg_fds > 0;
    if (irq.flags & VFIO_IRQ_INFO_MASKABLE)
        mask(index, by_eventfd);
    if (!by_eventfd)
        return;
    for (uint32_t i = 0; i < irq.count; i++)
        fds[i] = eventfd(0, EFD_CLOEXEC);
    ok(set(assign, index, irq.count, NULL, fds), "eventfds");
    ok(set(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, index, 1, NULL, NULL), "a trigger");
    await_signal(fds[0]);
    bools[irq.count - 1] = 1;
    ok(set(VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER, index, irq.count, bools, NULL), "a trigger");
    await_signal(fds[irq.count - 1]);
    ok(set(assign, index, 1, NULL, &(int){ -1 }), "taking an eventfd away");
    ok(set(assign, index, 1, NULL, &fds[0]), "giving it back");
    ok(set(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, NULL, NULL), "disabling interrupts");
    for (uint32_t i = 0; i < irq.count; i++)
        close(fds[i]);
}

/* Writes to every ioeventfd, as KVM would for a guest. */
static void io_fds(uint32_t region)
{
    const uint64_t one = 1;
    struct ob_client_io_fd list[8];
    int n = ob_client_io_fds(client, region, list, 8);

    if (!has(n, "descriptors of sub-regions"))
        return;
    for (int i = 0; i < n && i < 8; i++) {
        if (list[i].type == 0)
            ok(write(list[i].fd, &one, sizeof(one)), "writing to an ioeventfd");
        close(list[i].fd);
    }
}

/* --- Reset and migration ------------------------------------------------------------------------------------------ */

/* The result of a call that is not waited for long. */
static void impatient(struct ob_call *call, ssize_t started, const char *what)
{
    ssize_t result = started;

    if (started == 0)
        result = ob_call_wait(client, call);
    if (result != -ETIMEDOUT)
        has(result, what);
}

static void reset(void)
{
    struct ob_call call = { .timeout_ms = IMPATIENT_MS };

    if (info->flags & VFIO_DEVICE_FLAGS_RESET)
        impatient(&call, ob_client_reset(client, &call), "reset");
    configuration();
}

static void ask_feature(void)
{
    struct ob_call call = { .timeout_ms = IMPATIENT_MS };
    uint64_t flags;

    impatient(&call,
              ob_client_feature(client, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, &flags, 0,
                                sizeof(flags), &call),
              "a feature");
}

/* VU-MIG-41. */
static void go_to(uint32_t state)
{
    int result = ob_client_migration_set_state(client, state, NULL);
    uint32_t now;

    if (result == 0) {
        ok(ob_client_migration_state(client, &now), "asking for the state");
        want(now == state, "the device is in another state");
        return;
    }
    ok(ob_client_migration_state(client, &now), "asking for the state");
    if (now == VFIO_DEVICE_STATE_ERROR)
        ok(ob_client_reset(client, NULL), "reset");
    fail("the state %u: %s", state, strerror(-result));
}

static size_t save(uint8_t *to, size_t have)
{
    ssize_t n;

    do {
        n = ob_client_migration_read(client, to + have, 1000, NULL);
        ok(n, "reading the state");
        have += (size_t)n;
        want(have <= STATE_MAX - 1000, "the state has no end");
    } while (n > 0);
    return have;
}

static void migration(void)
{
    uint8_t *state = malloc(STATE_MAX);
    uint64_t flags;
    size_t size;

    want(state != NULL, "no memory");
    if (has(ob_client_migration_flags(client, &flags), "migration")) {
        size = 0;
        if (flags & PRE_COPY_FLAG) {
            go_to(PRE_COPY_STATE);
            size = save(state, size);
        }
        go_to(VFIO_DEVICE_STATE_STOP_COPY);
        size = save(state, size);
        go_to(VFIO_DEVICE_STATE_STOP);
        go_to(VFIO_DEVICE_STATE_RESUMING);
        ok(ob_client_migration_write(client, state, size / 2, NULL), "writing the state");
        ok(ob_client_migration_write(client, state + size / 2, size - size / 2, NULL), "writing the state");
        go_to(VFIO_DEVICE_STATE_RUNNING);
    }
    free(state);
}

static void logging(void)
{
    const struct ob_client_range range = { maps[0].iova, 100 * 4096 };
    uint64_t bitmap[2] = { ~UINT64_C(0), ~UINT64_C(0) };

    if (!has(ob_client_dirty_start(client, 4096, &range, 1), "logging"))
        return;
    ok(ob_client_dirty_report(client, range.iova, range.length, 4096, bitmap), "a report");
    want(bitmap[1] >> (100 - 64) == 0, "pages beyond the range are reported");
    ok(ob_client_dirty_stop(client), "the end of logging");
}

static void everything(void)
{
    configuration();
    registers();
    map_all();
    posts();
    pipelined();
    mapped(2, 0x1000);
    mapped(4, 0);
    for (uint32_t i = 0; i < info->irqs; i++)
        interrupts(i);
    for (uint32_t i = 0; i < info->regions; i++)
        io_fds(i);
    reset();
    ask_feature();
    migration();
    logging();
    registers();
    ok(ob_client_dma_unmap_all(client), "unmapping everything");
}

int main(int argc, char **argv)
{
    bool stay = argc == 3 && strcmp(argv[1], "--stay") == 0;
    struct ob_client_options options = { .dma = take_dma, .pgsizes = 0x1000 | 0x10000 };
    char why[256] = "";
    int err;

    if (argc != (stay ? 3 : 2)) {
        fputs("usage: client_driver [--stay] SOCKET\n", stderr);
        return 2;
    }
    err = ob_client_connect(argv[argc - 1], &options, &client, why, sizeof(why));
    if (err < 0)
        fail("connecting: %s (%s)", why, strerror(-err));
    info = ob_client_info(client);
    page = info->pgsizes & -info->pgsizes;
    memory_fd = memfd_create("memory", MFD_CLOEXEC);
    if (memory_fd < 0 || ftruncate(memory_fd, (off_t)(PAGES * page)) != 0 ||
        (memory = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0)) == MAP_FAILED)
        fail("no memory: %s", strerror(errno));
    everything();
    while (stay && ob_client_run(client, -1) >= 0)
        ;
    ob_client_close(client);
    return 0;
}
