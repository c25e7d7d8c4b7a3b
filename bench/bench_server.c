/* bench_server: a device of one register, as a device author would write it, served by a loop of its own: the library's
 * side of the benchmark. It also reads guest memory on demand.
 *
 * bench_server --fd=N [--poll]    N: a listening socket; --poll: never sleeps */
#define OB_BUILTIN
#include <outboard/server.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16
#define PAGE      4096

struct bench {
    uint32_t data, depth;
};

static const struct ob_field bench_fields[] = {
    OB_FIELD(struct bench, data),
    OB_FIELD(struct bench, depth),
    OB_FIELD_END,
};

struct copies {
    struct ob_dma dma[MAX_DEPTH];
    uint8_t buf[MAX_DEPTH][PAGE];
    uint32_t left; /* to be started */
};

static void copy_next(struct ob_dma *dma, int err);

static void copy_start(struct ob_dev *dev, unsigned i)
{
    struct copies *c = ob_scratch(dev);

    if (c->left == 0)
        return;
    c->left--;
    c->dma[i] = (struct ob_dma){ .iova = i * PAGE, .buf = c->buf[i], .len = PAGE, .done = copy_next };
    if (ob_dma_copy(ob_control(dev), &c->dma[i]) != OB_LATER)
        ob_log(dev, "copies are measured of memory that is reached by messages");
}

static void copy_next(struct ob_dma *dma, int err)
{
    struct ob_dev *dev = ob_worker_dev(dma->lib.worker);
    const struct copies *c = ob_scratch(dev);

    if (err < 0)
        ob_log(dev, "a copy failed: %s", strerror(-err));
    else
        copy_start(dev, (unsigned)(dma - c->dma));
}

static int copies_write(struct ob_req *req, const struct ob_reg *reg, unsigned index, uint64_t val, uint64_t mask)
{
    struct ob_dev *dev = ob_req_dev(req);
    const struct bench *bench = ob_state(dev);
    struct copies *c = ob_scratch(dev);

    c->left = (uint32_t)val;
    for (unsigned i = 0; i < bench->depth && i < MAX_DEPTH; i++)
        copy_start(dev, i);
    return OB_DONE;
}

/* COPIES: so many copies of a page from the guest, DEPTH at a time. */
static const struct ob_reg bench_regs[] = {
    OB_REG32("DATA", 0x00, struct bench, data, .rw = UINT32_MAX),
    OB_REG32("DEPTH", 0x04, struct bench, depth, .rw = UINT32_MAX),
    { .name = "COPIES", .off = 0x08, .width = 4, .write = copies_write },
    OB_REG_END,
};

OB_DEVICE(bench, .summary = "one register", .pci = { .vendor = 0x1234, .device = 0x0b0c, .class_code = 0xff0000 },
          .irqs = { .intx = true }, .bars[2] = OB_BAR_REGS(0x1000, bench_regs),
          .state = OB_STATE(struct bench, 1, bench_fields), .scratch_size = sizeof(struct copies))

int main(int argc, char **argv)
{
    struct ob_listen listen = { .fd = -1, .owner = (uid_t)-1, .group = (gid_t)-1 };
    struct ob_dev *dev;
    int timeout = -1, r;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--fd=", 5) == 0) {
            listen.fd = atoi(argv[i] + 5);
        } else if (strcmp(argv[i], "--poll") == 0) {
            timeout = 0;
        } else {
            fprintf(stderr, "usage: bench_server --fd=N [--poll]\n");
            return 2;
        }
    }
    if (ob_dev_new(&ob_class_bench, NULL, NULL, &dev) < 0) {
        return 1;
    }
    r = ob_dev_listen(dev, &listen);
    while (r >= 0) {
        r = ob_server_run(dev, timeout);
    }
    ob_dev_free(dev);
    return 1; /* it is ended by a signal */
}
