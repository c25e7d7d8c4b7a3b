/* direct.c: a device over its vfio-user socket, by the client library.
 *
 * INTx is an eventfd that is written when the line rises, and masked by that until it is unmasked, when a line that is
 * still high writes it again. So to learn the level of a line that has risen is to unmask it. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <outboard/client.h>
#include "driver/driver.h"

#define MAX_WORDS 64

struct direct {
    struct ob_driver base;
    struct ob_client *client;
    bool messages;
    int fds[OB_DRIVER_VECTORS]; /* eventfds of the vectors that are enabled */
    bool arrived[OB_DRIVER_VECTORS];
    unsigned nfds;
};

static struct direct *direct_of(struct ob_driver *driver)
{
    return (struct direct *)driver;
}

/* --- Accesses ---------------------------------------------------------------------------------------------------- */

static int region_access(struct ob_driver *driver, bool write, unsigned region, uint64_t off, unsigned width,
                         uint64_t *val)
{
    struct ob_client *client = direct_of(driver)->client;
    uint8_t bytes[8];
    int err;

    if (write) {
        for (unsigned i = 0; i < width; i++)
            bytes[i] = (uint8_t)(*val >> (8 * i));
        return ob_client_write(client, region, off, bytes, width, NULL);
    }
    err = ob_client_read(client, region, off, bytes, width, NULL);
    *val = 0;
    for (unsigned i = 0; i < width && !err; i++)
        *val |= (uint64_t)bytes[i] << (8 * i);
    return err;
}

static int direct_config(struct ob_driver *driver, bool write, unsigned off, unsigned width, uint32_t *val)
{
    uint64_t wide = write ? *val : 0;
    int err = region_access(driver, write, VFIO_PCI_CONFIG_REGION_INDEX, off, width, &wide);

    *val = (uint32_t)wide;
    return err;
}

static int direct_access(struct ob_driver *driver, bool write, unsigned bar, uint64_t off, unsigned width,
                         uint64_t *val)
{
    return region_access(driver, write, VFIO_PCI_BAR0_REGION_INDEX + bar, off, width, val);
}

static int direct_bar_size(struct ob_driver *driver, unsigned bar, uint64_t *size)
{
    const struct ob_client_region *region;
    int err = ob_client_region(direct_of(driver)->client, VFIO_PCI_BAR0_REGION_INDEX + bar, &region);

    if (!err)
        *size = region->size;
    return err;
}

static int direct_map(struct ob_driver *driver, unsigned bar, uint64_t off, uint64_t len, volatile void **memory)
{
    struct ob_client *client = direct_of(driver)->client;
    int areas = ob_client_map(client, VFIO_PCI_BAR0_REGION_INDEX + bar);

    if (areas < 0)
        return areas;
    *memory = areas ? ob_client_memory(client, VFIO_PCI_BAR0_REGION_INDEX + bar, off, len) : NULL;
    return *memory ? 0 : -ENOTSUP;
}

/* --- DMA --------------------------------------------------------------------------------------------------------- */

static int direct_alloc(struct ob_driver *driver, struct ob_driver_block *block)
{
    struct direct *d = direct_of(driver);
    size_t size = block->memory.size;
    int fd = -1, err = 0;

    if (!d->messages) {
        fd = memfd_create("outboard-driver", MFD_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (ftruncate(fd, (off_t)size) != 0)
            err = errno == EFBIG ? -ENOMEM : -errno;
    }
    if (!err) {
        block->memory.bytes =
            mmap(NULL, size, PROT_READ | PROT_WRITE, d->messages ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
        if (block->memory.bytes == MAP_FAILED)
            err = -errno;
    }
    if (!err) {
        err = ob_client_dma_map(d->client, block->memory.iova, size, PROT_READ | PROT_WRITE, fd, 0, NULL);
        if (err)
            munmap(block->memory.bytes, size);
    }
    if (fd >= 0)
        close(fd);
    return err;
}

static int direct_free(struct ob_driver *driver, struct ob_driver_block *block)
{
    int err = ob_client_dma_unmap(direct_of(driver)->client, block->memory.iova, block->memory.size, NULL);

    munmap(block->memory.bytes, block->memory.size);
    return err;
}

/* The server's DMA by messages. The client checked the range against maps, which are blocks each: pieces of one are
 * given to it one by one. */
static int direct_dma(void *ctx, bool to_device, uint64_t iova, void *buf, size_t len)
{
    struct direct *d = ctx;
    uint8_t *bytes = buf;

    while (len) {
        const struct ob_driver_block *block = ob_driver_find_block(&d->base, iova, 1);
        uint64_t inside;
        size_t piece;

        if (!block)
            return -EFAULT;
        inside = iova - block->memory.iova;
        piece = block->memory.size - inside < len ? block->memory.size - inside : len;
        if (to_device)
            memcpy(bytes, (uint8_t *)block->memory.bytes + inside, piece);
        else
            memcpy((uint8_t *)block->memory.bytes + inside, bytes, piece);
        iova += piece;
        bytes += piece;
        len -= piece;
    }
    return 0;
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

static uint32_t irq_index(enum ob_driver_irqs kind)
{
    return kind == OB_DRIVER_INTX  ? VFIO_PCI_INTX_IRQ_INDEX
           : kind == OB_DRIVER_MSI ? VFIO_PCI_MSI_IRQ_INDEX
                                   : VFIO_PCI_MSIX_IRQ_INDEX;
}

static void close_eventfds(struct direct *d)
{
    while (d->nfds)
        close(d->fds[--d->nfds]);
}

static int direct_irqs_on(struct ob_driver *driver, enum ob_driver_irqs kind, unsigned vectors)
{
    struct direct *d = direct_of(driver);
    struct ob_client_irq irq;
    int err = ob_client_irq(d->client, irq_index(kind), &irq);

    if (err || irq.count == 0)
        return err && err != -EINVAL ? err : -ENOTSUP;
    if (vectors > irq.count)
        vectors = irq.count;
    if (vectors > OB_DRIVER_VECTORS)
        vectors = OB_DRIVER_VECTORS;
    while (d->nfds < vectors && !err) {
        d->arrived[d->nfds] = false;
        d->fds[d->nfds] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (d->fds[d->nfds] < 0)
            err = -errno;
        else
            d->nfds++;
    }
    if (!err)
        err = ob_client_set_irqs(d->client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, irq_index(kind), 0,
                                 vectors, NULL, d->fds, NULL);
    if (err)
        close_eventfds(d);
    return err ? err : (int)vectors;
}

static int direct_irqs_off(struct ob_driver *driver, enum ob_driver_irqs kind)
{
    struct direct *d = direct_of(driver);
    int err = ob_client_set_irqs(d->client, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, irq_index(kind), 0, 0,
                                 NULL, NULL, NULL);

    close_eventfds(d);
    return err;
}

/* Servers send to eventfds: what an entry says is kept, and means nothing. */
static void direct_message(struct ob_driver *driver, unsigned vector, uint64_t *address, uint32_t *data)
{
    *address = 0xfee00000;
    *data = vector;
}

static bool take_event(struct direct *d, unsigned vector)
{
    uint64_t count;

    if (read(d->fds[vector], &count, sizeof(count)) == sizeof(count))
        d->arrived[vector] = true;
    return d->arrived[vector];
}

/* See the top of the file. */
static int probe_line(struct direct *d)
{
    int err = 0;

    if (take_event(d, 0)) {
        d->arrived[0] = false;
        err = ob_client_set_irqs(d->client, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
                                 VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, NULL, NULL);
        take_event(d, 0);
    }
    return err;
}

/* A server that has answered has sent what it had to send before. */
static int direct_irq_pending(struct ob_driver *driver, unsigned vector)
{
    struct direct *d = direct_of(driver);
    uint32_t status = 0;
    int err = direct_config(driver, false, PCI_STATUS, 2, &status);

    if (!err && driver->irqs == OB_DRIVER_INTX)
        err = probe_line(d);
    return err ? err : take_event(d, vector);
}

static int direct_irq_wait(struct ob_driver *driver, unsigned vector, int timeout_ms)
{
    struct direct *d = direct_of(driver);
    int64_t deadline = ob_driver_now() + timeout_ms;
    bool line = driver->irqs == OB_DRIVER_INTX;
    int err = line && d->arrived[0] ? probe_line(d) : 0;

    while (!err && !take_event(d, vector)) {
        struct pollfd wait[2] = { { .fd = d->fds[vector], .events = POLLIN },
                                  { .fd = ob_client_fd(d->client), .events = POLLIN } };
        int n = poll(wait, 2, ob_driver_left(deadline));

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -ETIMEDOUT;
        /* The server may need memory by messages before it can interrupt. */
        if (n > 0 && wait[1].revents) {
            int ran = ob_client_run(d->client, 0);

            if (ran < 0 && !take_event(d, vector))
                return ran;
        }
    }
    if (!err && !line)
        d->arrived[vector] = false;
    return err;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static int direct_reset(struct ob_driver *driver)
{
    return ob_client_reset(direct_of(driver)->client, NULL);
}

static struct ob_client *direct_client(struct ob_driver *driver)
{
    return direct_of(driver)->client;
}

static const char *direct_why(struct ob_driver *driver)
{
    return ob_client_why(direct_of(driver)->client);
}

static void direct_close(struct ob_driver *driver)
{
    struct direct *d = direct_of(driver);

    close_eventfds(d);
    ob_client_close(d->client);
    free(d);
}

static const struct ob_driver_ops direct_ops = {
    .config = direct_config,
    .access = direct_access,
    .bar_size = direct_bar_size,
    .map = direct_map,
    .alloc = direct_alloc,
    .free = direct_free,
    .irqs_on = direct_irqs_on,
    .irqs_off = direct_irqs_off,
    .message = direct_message,
    .irq_wait = direct_irq_wait,
    .irq_pending = direct_irq_pending,
    .reset = direct_reset,
    .client = direct_client,
    .why = direct_why,
    .close = direct_close,
};

static int connect_or_spawn(bool spawn, const char *argument, const struct ob_client_options *options,
                            struct ob_client **client, char *why)
{
    char *words[MAX_WORDS], *text;
    int err;

    if (!spawn)
        return ob_client_connect(argument, options, client, why, OB_DRIVER_WHY);
    text = strdup(argument);
    if (!text)
        return -ENOMEM;
    err = ob_driver_words(text, words, MAX_WORDS);
    if (err <= 0)
        err = ob_driver_why(why, err ? err : -EINVAL, "spawn: takes a command of 1 to %u words", MAX_WORDS - 1);
    else
        err = ob_client_spawn(words, options, client, why, OB_DRIVER_WHY);
    free(text);
    return err;
}

int ob_direct_open(bool spawn, const char *argument, const struct ob_driver_options *options, struct ob_driver **driver,
                   char *why)
{
    struct direct *d = calloc(1, sizeof(*d));
    struct ob_client_options client = { .timeout_ms = options->timeout_ms, .dma = direct_dma, .dma_ctx = d };
    const struct ob_client_region *config;
    int err;

    if (!d)
        return -ENOMEM;
    d->base.ops = &direct_ops;
    d->base.memory_end = UINT64_C(1) << 32;
    d->messages = options->messages;
    err = connect_or_spawn(spawn, argument, &client, &d->client, why);
    if (err) {
        free(d);
        return err;
    }
    err = ob_client_region(d->client, VFIO_PCI_CONFIG_REGION_INDEX, &config);
    if (err)
        ob_driver_why(why, err, "no information about configuration space");
    else if (config->size < PCI_CFG_SPACE_SIZE)
        err = ob_driver_why(why, -EPROTO, "configuration space has %llu bytes, of 256 that it must have",
                            (unsigned long long)config->size);
    if (!err) {
        d->base.config_size = config->size < PCI_CFG_SPACE_EXP_SIZE ? PCI_CFG_SPACE_SIZE : PCI_CFG_SPACE_EXP_SIZE;
        err = ob_client_reset(d->client, NULL);
        /* A device need not be able to. */
        if (err && !(ob_client_info(d->client)->flags & VFIO_DEVICE_FLAGS_RESET))
            err = 0;
        if (err)
            ob_driver_why(why, err, "the device cannot be reset: %s", strerror(-err));
    }
    if (err) {
        direct_close(&d->base);
        return err;
    }
    *driver = &d->base;
    return 0;
}
