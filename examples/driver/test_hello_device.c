/* test_hello_device.c: tests of examples/hello, as its driver sees it.
 * Build: cc test_hello_device.c -o test_hello_device $(pkg-config --cflags --libs outboard)
 * Run:   ./test_hello_device "spawn:./hello"           over its socket, in milliseconds
 *        ./test_hello_device "qemu-spawn:./hello"      behind a QEMU without a guest */
#include <linux/pci_regs.h>
#include <stdio.h>
#include <outboard/pci_driver.h>

#define COUNT 0x00 /* the registers, in BAR 0 */
#define STEP  0x04
#define TICK  0x08

static int failures, tests;

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            printf("# %s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                      \
        }                                                                    \
    } while (0)

static void identity(struct ob_driver *hello)
{
    struct ob_driver_bar bar;

    CHECK(ob_config_read16(hello, PCI_VENDOR_ID) == 0x1234);
    CHECK(ob_config_read16(hello, PCI_DEVICE_ID) == 0x0b0b);
    CHECK(ob_driver_bar(hello, 0, &bar) == 0 && bar.size == 0x1000 && !bar.io);
    CHECK(ob_find_capability(hello, PCI_CAP_ID_MSIX) > 0);
}

static void counting(struct ob_driver *hello)
{
    CHECK(ob_read32(hello, 0, COUNT) == 0);
    ob_write32(hello, 0, TICK, 0);
    CHECK(ob_read32(hello, 0, COUNT) == 1);
    ob_write32(hello, 0, STEP, 0x1ff); /* of STEP, 8 bits are there */
    CHECK(ob_read32(hello, 0, STEP) == 0xff);
    ob_write32(hello, 0, TICK, 0);
    CHECK(ob_read32(hello, 0, COUNT) == 0x100);
}

static void interrupt(struct ob_driver *hello)
{
    CHECK(ob_driver_bus_master(hello, true) == 0); /* messages are writes */
    CHECK(ob_driver_irqs(hello, OB_DRIVER_MSIX, 1) == 1);
    ob_write32(hello, 0, COUNT, 98);
    ob_write32(hello, 0, TICK, 0);
    CHECK(ob_driver_irq_pending(hello, 0) == 0); /* 99 */
    ob_write32(hello, 0, TICK, 0);
    CHECK(ob_driver_irq_wait(hello, 0, 5000) == 0);
    ob_write32(hello, 0, TICK, 0); /* the level is high already: no second message */
    CHECK(ob_driver_irq_pending(hello, 0) == 0);
}

static void masked(struct ob_driver *hello)
{
    CHECK(ob_driver_bus_master(hello, true) == 0);
    CHECK(ob_driver_irqs(hello, OB_DRIVER_MSIX, 1) == 1);
    CHECK(ob_driver_mask(hello, 0) == 0);
    ob_write32(hello, 0, COUNT, 100);
    CHECK(ob_driver_irq_pending(hello, 0) == 0);
    CHECK(ob_driver_unmask(hello, 0) == 0);
    CHECK(ob_driver_irq_wait(hello, 0, 5000) == 0);
}

static void run(struct ob_driver *hello, const char *name, void (*test)(struct ob_driver *))
{
    const char *what = NULL;
    int before = failures;

    CHECK(ob_driver_reset(hello) == 0);
    test(hello);
    if (ob_driver_error(hello, &what) != 0) { /* an access failed */
        printf("# %s\n", what);
        failures++;
    }
    printf("%s %d - %s\n", failures == before ? "ok" : "not ok", ++tests, name);
}

int main(int argc, char **argv)
{
    struct ob_driver *hello;
    char why[200];

    if (argc != 2 || ob_driver_open(argv[1], NULL, &hello, why, sizeof(why)) != 0) {
        printf("Bail out! %s\n", argc == 2 ? why : "usage: test_hello_device TARGET");
        return 1;
    }
    run(hello, "identity", identity);
    run(hello, "counting", counting);
    run(hello, "interrupt", interrupt);
    run(hello, "masked", masked);
    printf("1..%d\n", tests);
    ob_driver_close(hello);
    return failures != 0;
}
