/* The PCI driver against servers whose devices are broken: capability lists, BARs, MSI-X tables, and their end. */
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <outboard/pci_driver.h>
#include "client_script.h"

/* A device: its configuration space, which bits of the six BAR registers can be written, and its regions' sizes. Ends
 * the connection at an access to configuration space at `dies_at`. */
struct broken {
    struct script script;
    uint8_t config[4096];
    uint32_t masks[6], dies_at;
    uint64_t sizes[9];
    char folder[32], target[64];
    int listener;
    pthread_t relay;
};

static void put(struct broken *b, unsigned off, uint32_t val, unsigned n)
{
    memcpy(b->config + off, &val, n);
}

/* --- The server -------------------------------------------------------------------------------------------------- */

static void store(struct broken *b, unsigned off, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned at = off + i, bar = (at - PCI_BASE_ADDRESS_0) / 4;
        uint8_t mask = 0;

        if (at >= PCI_BASE_ADDRESS_0 && bar < 6)
            mask = (uint8_t)(b->masks[bar] >> at % 4 * 8);
        else if (at == PCI_COMMAND || at == PCI_COMMAND + 1)
            mask = 0xff;
        b->config[at] = (uint8_t)((b->config[at] & ~mask) | (bytes[i] & mask));
    }
}

static bool answer(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                   unsigned nfds)
{
    struct broken *b = script->ctx;
    struct ob_wire_region_access access;
    uint8_t reply[sizeof(access) + 8];

    if (header->command == OB_DEVICE_GET_REGION_INFO) {
        struct vfio_region_info info;

        memcpy(&info, payload, sizeof(info));
        info.argsz = sizeof(info);
        info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        info.cap_offset = 0;
        info.size = info.index < 9 ? b->sizes[info.index] : 0;
        script_reply(script, header, &info, sizeof(info), NULL, 0);
        return true;
    }
    if (header->command != OB_REGION_READ && header->command != OB_REGION_WRITE)
        return false;
    memcpy(&access, payload, sizeof(access));
    if (access.region != VFIO_PCI_CONFIG_REGION_INDEX || access.count > 8 ||
        access.offset > sizeof(b->config) - access.count)
        return false;
    if (b->dies_at && access.offset == b->dies_at) {
        shutdown(script->fd, SHUT_RDWR);
        return true;
    }
    memcpy(reply, &access, sizeof(access));
    if (header->command == OB_REGION_WRITE)
        store(b, (unsigned)access.offset, payload + sizeof(access), access.count);
    memcpy(reply + sizeof(access), b->config + access.offset, access.count);
    script_reply(script, header, reply, sizeof(access) + (header->command == OB_REGION_READ ? access.count : 0), NULL,
                 0);
    return true;
}

/* Bytes between the one client of the listening socket and the script, until either ends. */
static void *relay(void *ctx)
{
    struct broken *b = ctx;
    int ends[2] = { accept(b->listener, NULL, NULL), b->script.client_fd };
    uint8_t bytes[4096];
    bool over = false;

    while (!over) {
        struct pollfd wait[2] = { { .fd = ends[0], .events = POLLIN }, { .fd = ends[1], .events = POLLIN } };

        over = poll(wait, 2, -1) < 0;
        for (unsigned i = 0; i < 2 && !over; i++) {
            ssize_t n = wait[i].revents ? read(ends[i], bytes, sizeof(bytes)) : 0;

            over = wait[i].revents && (n <= 0 || send(ends[1 - i], bytes, (size_t)n, MSG_NOSIGNAL) != n);
        }
    }
    close(ends[0]);
    close(ends[1]);
    b->script.client_fd = -1;
    return NULL;
}

/* A device without BARs or capabilities. */
static struct broken *make(void)
{
    struct broken *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    put(b, PCI_VENDOR_ID, 0x56781234, 4);
    b->sizes[VFIO_PCI_CONFIG_REGION_INDEX] = 4096;
    b->script.ctx = b;
    return b;
}

static int start(struct broken *b, struct ob_driver **driver, char *why, size_t size)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int err;

    script_start(&b->script, answer);
    strcpy(b->folder, "/tmp/outboard-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", b->folder);
    snprintf(b->target, sizeof(b->target), "unix:%s/s", b->folder);
    b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ok(bind(b->listener, (struct sockaddr *)&address, sizeof(address)));
    ok(listen(b->listener, 1));
    ok(pthread_create(&b->relay, NULL, relay, b));
    err = ob_driver_open(b->target, &(struct ob_driver_options){ .timeout_ms = 5000 }, driver, why, size);
    close(b->listener);
    unlink(address.sun_path);
    rmdir(b->folder);
    return err;
}

static void end(struct broken *b, struct ob_driver *driver)
{
    ob_driver_close(driver);
    ok(pthread_join(b->relay, NULL));
    script_end(&b->script, NULL);
    free(b);
}

static struct ob_driver *drive(struct broken *b)
{
    struct ob_driver *driver = NULL;
    char why[256];

    if (start(b, &driver, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    return driver;
}

/* That open fails so, and what it says. */
static void refused(struct broken *b, int err, const char *says)
{
    struct ob_driver *driver = NULL;
    char why[256];

    assert_int_equal(start(b, &driver, why, sizeof(why)), err);
    if (!strstr(why, says))
        fail_msg("\"%s\" does not say \"%s\"", why, says);
    end(b, driver);
}

/* --- Capabilities ------------------------------------------------------------------------------------------------ */

static void capability(struct broken *b, unsigned at, unsigned id, unsigned next)
{
    put(b, PCI_STATUS, PCI_STATUS_CAP_LIST, 2);
    put(b, at, next << 8 | id, 2);
}

static void capability_lists(void **state)
{
    struct broken *b = make();
    struct ob_driver *driver;

    capability(b, 0x40, PCI_CAP_ID_VNDR, 0x50);
    capability(b, 0x50, PCI_CAP_ID_EXP, 0x40); /* a loop */
    put(b, PCI_CAPABILITY_LIST, 0x43, 1);      /* the two lowest bits say nothing */
    put(b, 0x100, 0x10010003, 4);              /* the device's serial number; next 0x100 */
    driver = drive(b);
    assert_int_equal(ob_find_capability(driver, PCI_CAP_ID_VNDR), 0x40);
    assert_int_equal(ob_find_capability(driver, PCI_CAP_ID_EXP), 0x50);
    assert_int_equal(ob_find_capability(driver, PCI_CAP_ID_MSI), -EPROTO);
    assert_int_equal(ob_driver_irqs(driver, OB_DRIVER_MSI, 1), -EPROTO);
    assert_int_equal(ob_driver_irqs(driver, OB_DRIVER_MSIX, 1), -EPROTO);
    assert_int_equal(ob_driver_power(driver, 3), -EPROTO);
    assert_int_equal(ob_find_extended_capability(driver, PCI_EXT_CAP_ID_DSN), 0x100);
    assert_int_equal(ob_find_extended_capability(driver, PCI_EXT_CAP_ID_ERR), -EPROTO);
    put(b, 0x100, 0xfff10003, 4); /* next 0xffc, and from there to the header */
    put(b, 0xffc, 0x00410004, 4);
    assert_int_equal(ob_find_extended_capability(driver, PCI_EXT_CAP_ID_ERR), -EPROTO);
    put(b, PCI_CAPABILITY_LIST, 0x10, 1); /* in the header */
    assert_int_equal(ob_find_capability(driver, PCI_CAP_ID_VNDR), -EPROTO);
    put(b, PCI_CAPABILITY_LIST, 0xfc, 1);
    put(b, 0xfc, 0x0009, 2);
    assert_int_equal(ob_find_capability(driver, PCI_CAP_ID_VNDR), 0xfc);
    put(b, PCI_STATUS, 0, 2);
    assert_int_equal(ob_find_capability(driver, PCI_CAP_ID_VNDR), -ENOENT);
    assert_int_equal(ob_driver_error(driver, NULL), 0);
    end(b, driver);
}

/* A table that does not lie in its BAR, or in none. */
static void msix_tables(void **state)
{
    static const uint32_t tables[] = { 0x0ff8, 0x1000, 0xfffffff8, 0x1, 0x6, 0x7 };
    struct broken *b = make();
    struct ob_driver *driver;

    b->masks[0] = 0xfffff000;
    b->sizes[0] = 4096;
    capability(b, 0x40, PCI_CAP_ID_MSIX, 0);
    put(b, PCI_CAPABILITY_LIST, 0x40, 1);
    put(b, 0x42, 3, 2);
    driver = drive(b);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        put(b, 0x44, tables[i], 4);
        assert_int_equal(ob_driver_irqs(driver, OB_DRIVER_MSIX, 4), -EPROTO);
    }
    put(b, 0x42, 2047, 2);
    put(b, 0x44, 0, 4);
    assert_int_equal(ob_driver_irqs(driver, OB_DRIVER_MSIX, 4), -EPROTO);
    assert_int_equal(ob_driver_error(driver, NULL), 0);
    end(b, driver);
}

/* --- BARs -------------------------------------------------------------------------------------------------------- */

static struct broken *with_bar(unsigned bar, uint32_t type, uint32_t mask, uint32_t high, uint64_t size)
{
    struct broken *b = make();

    put(b, PCI_BASE_ADDRESS_0 + 4 * bar, type, 4);
    b->masks[bar] = mask;
    if (bar < 5)
        b->masks[bar + 1] = high;
    b->sizes[bar] = size;
    return b;
}

static void bars(void **state)
{
    refused(with_bar(0, 0, 0xfff0f000, 0, 4096), -EPROTO, "that is no size");
    refused(with_bar(0, 0, 0x00001000, 0, 4096), -EPROTO, "that is no size");
    refused(with_bar(0, 4, 0xfffff000, 0x7fffffff, 4096), -EPROTO, "that is no size");
    refused(with_bar(0, 6, 0xfffff000, 0, 4096), -EPROTO, "no such type");
    refused(with_bar(5, 4, 0xfffff000, 0, 4096), -EPROTO, "no such type");
    refused(with_bar(0, 0, 0xffff0000, 0, 4096), -EPROTO, "BAR 0 has 0x10000 bytes by its register");
    refused(with_bar(0, 0, 0xfffff000, 0, 65536), -EPROTO, "but region 0 has 0x10000");
    refused(with_bar(2, 0, 0x80000000, 0, UINT64_C(1) << 31), -ENOSPC, "no room on the bus");
    refused(with_bar(0, 4, 0, 0x80000000, UINT64_C(1) << 63), -ENOSPC, "no room on the bus");
    refused(with_bar(0, 1, 0x0000c000, 0, 0x4000), 0, "");
}

/* BARs that are left to the client: what they are is in their lowest bits, their sizes are the regions'. */
static void bars_of_regions(void **state)
{
    struct broken *b = with_bar(0, 0x0c, 0, 0, 0x5000);
    struct ob_driver *driver = drive(b);
    struct ob_driver_bar bar;

    ok(ob_driver_bar(driver, 0, &bar));
    assert_int_equal(bar.size, 0x8000);
    assert_true(bar.wide && bar.prefetchable && !bar.io);
    ok(ob_driver_bar(driver, 1, &bar));
    assert_int_equal(bar.size, 0);
    assert_int_equal(ob_driver_error(driver, NULL), 0);
    end(b, driver);
}

/* --- Other -------------------------------------------------------------------------------------------------------- */

static void no_device(void **state)
{
    struct broken *b = make();

    put(b, PCI_VENDOR_ID, UINT32_MAX, 4);
    refused(b, -ENODEV, "there is no device");
    b = make();
    put(b, PCI_HEADER_TYPE, PCI_HEADER_TYPE_BRIDGE, 1);
    refused(b, -ENOTSUP, "header type 1");
    b = make();
    b->sizes[VFIO_PCI_CONFIG_REGION_INDEX] = 64;
    refused(b, -EPROTO, "configuration space has 64 bytes");
    b = make();
    b->dies_at = PCI_BASE_ADDRESS_3;
    refused(b, -ENOTCONN, "at 0x1c of configuration space");
}

static void death(void **state)
{
    struct broken *b = make();
    struct ob_driver *driver;
    const char *what = "";

    b->dies_at = 0x80;
    driver = drive(b);
    assert_int_equal(ob_config_read32(driver, 0x80), UINT32_MAX);
    assert_int_equal(ob_config_read32(driver, 0), UINT32_MAX);
    assert_int_equal(ob_driver_error(driver, &what), -ENOTCONN);
    assert_non_null(strstr(what, "read of 4 bytes at 0x80 of configuration space"));
    assert_int_equal(ob_driver_reset(driver), -ENOTCONN);
    end(b, driver);
}

static void targets(void **state)
{
    static const struct {
        const char *target;
        int err;
    } bad[] = { { "", -EINVAL },
                { "edu", -EINVAL },
                { "unix:", -EINVAL },
                { "unix:/nowhere/at/all", -ENOENT },
                { "spawn: ", -EINVAL },
                { "spawn:/nowhere/at/all", -ENOENT },
                { "qemu-spawn: ", -EINVAL },
                { "qemu-unix:a\"b", -EINVAL } };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ob_driver *driver = NULL;
        char why[256] = "";

        assert_int_equal(ob_driver_open(bad[i].target, NULL, &driver, why, sizeof(why)), bad[i].err);
        assert_string_not_equal(why, "");
        assert_null(driver);
    }
    struct ob_driver_options options = { .qemu = "/nowhere/qemu" };
    struct ob_driver *driver = NULL;
    char why[256] = "";

    assert_int_equal(ob_driver_open("qemu:edu", &options, &driver, why, sizeof(why)), -ENOENT);
    assert_string_equal(why, "cannot start /nowhere/qemu: No such file or directory");
    options.qemu = "false"; /* ends at once, in place of a QEMU that fails */
    assert_int_equal(ob_driver_open("qemu:edu", &options, &driver, why, sizeof(why)), -ENOTCONN);
    assert_string_equal(why, "QEMU ended");
    assert_int_equal(ob_driver_open("qemu-spawn:true", &options, &driver, why, sizeof(why)), -ENOTCONN);
    ob_driver_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capability_lists), cmocka_unit_test(msix_tables), cmocka_unit_test(bars),
        cmocka_unit_test(bars_of_regions),  cmocka_unit_test(no_device),   cmocka_unit_test(death),
        cmocka_unit_test(targets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
