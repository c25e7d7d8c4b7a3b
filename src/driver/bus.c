/* bus.c: a device in a QEMU without a guest, on the host bridge of a q35 machine.
 *
 * Configuration space is reached through its memory-mapped form, which is enabled by the two ports of old. Messages of
 * MSI and MSI-X are addressed to RAM, where they are found. RAM is a memfd that is mapped here too. Lines come to the
 * I/O APIC, whose inputs QEMU reports.
 *
 * Time. QEMU's own clock stands still but for what pass_time() lets pass: as long as a driver waits, QEMU's next timer
 * comes due at each turn. The clocks of vfio-user servers are none of QEMU's.
 *
 * What a vfio-user server did before it answered reaches QEMU as an eventfd. QEMU's main loop looks at eventfds and at
 * our socket in turn, so that two commands after an access to the device, what that access brought has arrived. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "driver/behind.h"
#include "driver/qtest.h"

#define SLOT         4u
#define PIN_OF_SLOT  (16u + 4u + SLOT % 4u) /* the I/O APIC's input of INTA#: QEMU's q35 swizzles PIRQE to PIRQH */
#define MEMORY_SIZE  (UINT64_C(256) << 20)
#define CONFIG_PORT  0xcf8u /* PCI 3.0, 3.2.2.3.2 */
#define CONFIG_DATA  0xcfcu
#define PCIEXBAR     0x60u /* of the host bridge, 00.0: Intel's ICH9-family MCH */
#define ECAM         UINT64_C(0xb0000000)
#define ECAM_SLOT(n) (ECAM + ((uint64_t)(n) << 15))
#define MESSAGES     UINT64_C(0x100000) /* in RAM, a dword for each vector; below what is given out */
#define MESSAGE_MSI  0x4f42u
#define MESSAGE_MSIX 0x4f420000u
#define POLL_MS      2
#define DEFAULT_QEMU "qemu-system-x86_64"
#define DEVICE_SIZE  512

struct bus {
    struct ob_driver base;
    struct ob_qtest qtest;
    struct ob_behind behind; /* the server, of qemu-unix and qemu-spawn */
    uint8_t *ram;
    int ram_fd;
};

static struct bus *bus_of(struct ob_driver *driver)
{
    return (struct bus *)driver;
}

static char letter(unsigned width)
{
    return width == 1 ? 'b' : width == 2 ? 'w' : width == 4 ? 'l' : 'q';
}

/* --- Accesses ---------------------------------------------------------------------------------------------------- */

static int memory_access(struct bus *bus, bool write, uint64_t address, unsigned width, uint64_t *val)
{
    if (write)
        return ob_qtest_command(&bus->qtest, NULL, "write%c 0x%" PRIx64 " 0x%" PRIx64, letter(width), address, *val);
    return ob_qtest_command(&bus->qtest, val, "read%c 0x%" PRIx64, letter(width), address);
}

static int port_access(struct bus *bus, bool write, uint64_t port, unsigned width, uint64_t *val)
{
    if (write)
        return ob_qtest_command(&bus->qtest, NULL, "out%c 0x%" PRIx64 " 0x%" PRIx64, letter(width), port, *val);
    return ob_qtest_command(&bus->qtest, val, "in%c 0x%" PRIx64, letter(width), port);
}

static int bus_config(struct ob_driver *driver, bool write, unsigned off, unsigned width, uint32_t *val)
{
    uint64_t wide = *val;
    int err = memory_access(bus_of(driver), write, ECAM_SLOT(SLOT) + off, width, &wide);

    *val = (uint32_t)wide;
    return err;
}

static int bus_access(struct ob_driver *driver, bool write, unsigned bar, uint64_t off, unsigned width, uint64_t *val)
{
    const struct ob_driver_bar *b = &driver->bars[bar];

    if (b->io)
        return port_access(bus_of(driver), write, b->address + off, width, val);
    return memory_access(bus_of(driver), write, b->address + off, width, val);
}

/* Enables the memory-mapped configuration space, as firmware does. */
static int enable_ecam(struct bus *bus)
{
    const uint64_t select[] = { 0x80000000u | PCIEXBAR, 0x80000000u | (PCIEXBAR + 4) };
    const uint64_t value[] = { 0, ECAM | 1 };
    int err = 0;

    for (unsigned i = 2; i-- > 0 && !err;) {
        uint64_t at = select[i], val = value[1 - i];

        err = port_access(bus, true, CONFIG_PORT, 4, &at);
        if (!err)
            err = port_access(bus, true, CONFIG_DATA, 4, &val);
    }
    return err;
}

/* --- DMA --------------------------------------------------------------------------------------------------------- */

static int bus_alloc(struct ob_driver *driver, struct ob_driver_block *block)
{
    block->memory.bytes = bus_of(driver)->ram + block->memory.iova;
    memset(block->memory.bytes, 0, block->memory.size);
    return 0;
}

static int bus_free(struct ob_driver *driver, struct ob_driver_block *block)
{
    return 0;
}

/* --- Interrupts -------------------------------------------------------------------------------------------------- */

static _Atomic uint32_t *message_at(struct bus *bus, unsigned vector)
{
    return (_Atomic uint32_t *)(bus->ram + MESSAGES) + vector;
}

/* All vectors of MSI share an address, where only the last message would be found: it has one. */
static int bus_irqs_on(struct ob_driver *driver, enum ob_driver_irqs kind, unsigned vectors)
{
    if (vectors > OB_DRIVER_VECTORS)
        vectors = OB_DRIVER_VECTORS;
    if (kind != OB_DRIVER_MSIX)
        vectors = 1;
    for (unsigned v = 0; v < vectors; v++)
        atomic_store(message_at(bus_of(driver), v), 0);
    driver->irqs = kind;
    return (int)vectors;
}

static int bus_irqs_off(struct ob_driver *driver, enum ob_driver_irqs kind)
{
    return 0;
}

static void bus_message(struct ob_driver *driver, unsigned vector, uint64_t *address, uint32_t *data)
{
    *address = MESSAGES + sizeof(uint32_t) * vector;
    *data = driver->irqs == OB_DRIVER_MSI ? MESSAGE_MSI : MESSAGE_MSIX | vector;
}

static bool arrived(struct bus *bus, unsigned vector)
{
    if (bus->base.irqs == OB_DRIVER_INTX)
        return bus->qtest.raised >> PIN_OF_SLOT & 1;
    return atomic_load(message_at(bus, vector)) != 0;
}

/* See the top of the file. STATUS is asked of a server, the host bridge's identity of nobody. */
static int flush(struct bus *bus)
{
    uint64_t val;
    int err = memory_access(bus, false, ECAM_SLOT(SLOT) + PCI_STATUS, 2, &val);

    for (unsigned i = 0; i < 2 && !err; i++)
        err = memory_access(bus, false, ECAM_SLOT(0), 4, &val);
    return err;
}

static int bus_irq_pending(struct ob_driver *driver, unsigned vector)
{
    int err = flush(bus_of(driver));

    return err ? err : arrived(bus_of(driver), vector);
}

/* -EPROTO: the clock has nowhere to go, since no timer is set. */
static int bus_pass_time(struct ob_driver *driver)
{
    int err = ob_qtest_command(&bus_of(driver)->qtest, NULL, "clock_step");

    return err == -EPROTO ? 0 : err;
}

static int bus_irq_wait(struct ob_driver *driver, unsigned vector, int timeout_ms)
{
    int64_t deadline = ob_driver_now() + timeout_ms;
    struct bus *bus = bus_of(driver);
    int err = flush(bus);

    for (unsigned turn = 0; !err && !arrived(bus, vector); turn++) {
        if (!ob_driver_left(deadline))
            return -ETIMEDOUT;
        err = bus_pass_time(driver);
        /* A line is an event, a message in memory is not. */
        if (!err && driver->irqs == OB_DRIVER_INTX && !arrived(bus, vector))
            err = ob_qtest_poll(&bus->qtest, POLL_MS);
        else
            ob_driver_back_off(turn);
    }
    if (!err && driver->irqs != OB_DRIVER_INTX)
        atomic_store(message_at(bus, vector), 0);
    return err;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

static int bus_reset(struct ob_driver *driver)
{
    int err = ob_qtest_reset(&bus_of(driver)->qtest);

    return err ? err : enable_ecam(bus_of(driver));
}

static const char *bus_why(struct ob_driver *driver)
{
    return bus_of(driver)->qtest.why;
}

static void bus_close(struct ob_driver *driver)
{
    struct bus *bus = bus_of(driver);

    ob_qtest_end(&bus->qtest);
    ob_behind_end(&bus->behind);
    if (bus->ram)
        munmap(bus->ram, MEMORY_SIZE);
    if (bus->ram_fd >= 0)
        close(bus->ram_fd);
    free(bus);
}

static const struct ob_driver_ops bus_ops = {
    .config = bus_config,
    .access = bus_access,
    .alloc = bus_alloc,
    .free = bus_free,
    .irqs_on = bus_irqs_on,
    .irqs_off = bus_irqs_off,
    .message = bus_message,
    .irq_wait = bus_irq_wait,
    .irq_pending = bus_irq_pending,
    .pass_time = bus_pass_time,
    .reset = bus_reset,
    .why = bus_why,
    .close = bus_close,
};

static int make_ram(struct bus *bus)
{
    void *ram;

    bus->ram_fd = memfd_create("outboard-ram", MFD_CLOEXEC);
    if (bus->ram_fd < 0 || ftruncate(bus->ram_fd, (off_t)MEMORY_SIZE) != 0)
        return -errno;
    ram = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, bus->ram_fd, 0);
    if (ram == MAP_FAILED)
        return -errno;
    bus->ram = ram;
    return 0;
}

static const char *program(const struct ob_driver_options *options)
{
    const char *named = options->qemu ? options->qemu : getenv("OUTBOARD_QEMU");

    return named && *named ? named : DEFAULT_QEMU;
}

static int start_server(void *ctx)
{
    struct bus *bus = ctx;

    return ob_behind_accept(&bus->behind, bus->qtest.qemu.pidfd, bus->qtest.timeout_ms);
}

static int start(struct bus *bus, enum ob_qemu_device kind, const char *argument,
                 const struct ob_driver_options *options, char *why)
{
    char device[DEVICE_SIZE];
    struct ob_qtest_options qtest = { .program = program(options),
                                      .device = device,
                                      .args = options->qemu_args,
                                      .memory_size = MEMORY_SIZE,
                                      .device_fd = -1,
                                      .timeout_ms = options->timeout_ms,
                                      .started = kind == OB_QEMU_SPAWN ? start_server : NULL,
                                      .ctx = bus };
    int err = make_ram(bus), n;

    qtest.memory_fd = bus->ram_fd;
    if (err)
        return ob_driver_why(why, err, "no memory for QEMU's guest: %s", strerror(-err));
    if (kind == OB_QEMU_SPAWN) {
        err = ob_behind_prepare(&bus->behind, argument, options->timeout_ms, why);
        if (err)
            return err;
        argument = bus->behind.path;
        qtest.device_fd = bus->behind.path_fd;
    }
    if (kind == OB_QEMU_BUILTIN)
        n = snprintf(device, sizeof(device), "%s,addr=%u", argument, SLOT);
    else
        n = snprintf(device, sizeof(device),
                     "{\"driver\":\"vfio-user-pci\",\"addr\":\"%u\",\"socket\":{\"type\":\"unix\",\"path\":\"%s\"}}",
                     SLOT, argument);
    if (n < 0 || (size_t)n >= sizeof(device) || (kind == OB_QEMU_UNIX && strpbrk(argument, "\"\\")))
        return ob_driver_why(why, -EINVAL, "QEMU cannot be told of the device %s", argument);
    err = ob_qtest_start(&bus->qtest, &qtest, why);
    if (!err)
        err = enable_ecam(bus);
    return err;
}

int ob_bus_open(enum ob_qemu_device kind, const char *argument, const struct ob_driver_options *options,
                struct ob_driver **driver, char *why)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    int err;

    if (!bus)
        return -ENOMEM;
    bus->base.ops = &bus_ops;
    bus->base.memory_end = MEMORY_SIZE;
    bus->base.config_size = PCI_CFG_SPACE_EXP_SIZE;
    bus->ram_fd = -1;
    bus->qtest = (struct ob_qtest){ .qemu = { .pidfd = -1, .errors = -1 }, .qtest.fd = -1, .qmp.fd = -1 };
    ob_behind_init(&bus->behind);
    err = start(bus, kind, argument, options, why);
    if (err) {
        bus_close(&bus->base);
        return err;
    }
    *driver = &bus->base;
    return 0;
}
