/* bench_server: a device of one register, as a device author would write it, served by a loop of its own: the library's
 * side of the benchmark.
 *
 * bench_server --fd=N [--poll]    N: a listening socket; --poll: never sleeps */
#define OB_BUILTIN
#include <outboard/server.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    uint32_t data;
};

static const struct ob_field bench_fields[] = {
    OB_FIELD(struct bench, data),
    OB_FIELD_END,
};

static const struct ob_reg bench_regs[] = {
    OB_REG32("DATA", 0x00, struct bench, data, .rw = UINT32_MAX),
    OB_REG_END,
};

OB_DEVICE(bench, .summary = "one register", .pci = { .vendor = 0x1234, .device = 0x0b0c, .class_code = 0xff0000 },
          .irqs = { .intx = true }, .bars[2] = OB_BAR_REGS(0x1000, bench_regs),
          .state = OB_STATE(struct bench, 1, bench_fields))

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
