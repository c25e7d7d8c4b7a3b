/* Runs in the test guest: a few words on the command line drive a PCI device from user space, or a serial port. */

/* clang-format off: tables.
 *
 * `guest-tool pci BDF COMMAND...` opens one device and one page of memory and carries out commands in order, so that a
 * test can say, in one process, "put this in the page, hand the device the page's address, trigger, wait, compare".
 * Commands that yield a value print it on a line of its own. Numbers may be decimal or 0x hexadecimal; a value of the
 * form @N is the physical address of byte N of the page.
 *
 *   read BAR OFFSET WIDTH               print it: one access of exactly WIDTH bytes (1, 2, 4, 8), memory or I/O BAR
 *   write BAR OFFSET WIDTH VALUE
 *   wait BAR OFFSET WIDTH MASK VALUE    read until (it & MASK) == VALUE, and print it
 *   config-read OFFSET WIDTH, config-write OFFSET WIDTH VALUE
 *   page-read OFFSET WIDTH, page-write OFFSET WIDTH VALUE, page-fill OFFSET LENGTH BYTE, page-random OFFSET LENGTH SEED
 *   page-crc OFFSET LENGTH              print the CRC-32 of that part of the page
 *   intx-wait                           wait until the interrupt came (the device is bound to uio_pci_generic); print
 *                                       how many came since the device was bound. INTx is left disabled in COMMAND.
 *   intx-on                             enable INTx in COMMAND again
 *   msi VECTOR, msix VECTOR             make that vector's message a store of VECTOR + 0x5a00 to the last 64 bytes of the
 *                                       page, and enable it. This is what an interrupt message is on the bus: a write.
 *                                       Each MSI-X vector below 16 has a place of its own there; those of MSI, which has
 *                                       one address for all, share place 0
 *   msix-mask VECTOR 0|1                mask or unmask the vector in the table
 *   message-wait PLACE                  wait for the message, print its data, and be ready for the next
 *   message PLACE                       print the message data now there, without waiting (0: none came)
 *
 * `guest-tool send|receive TTY BYTES SEED rtscts|none` moves pseudo-random bytes over a serial port in raw mode and
 * prints their CRC-32. `receive` says "ready" when the port is open, "more" after each 64 KiB, so that a sender can
 * keep to its pace, and, if what came was not the sequence, at which byte the first difference is.
 *
 * Every wait ends after TIMEOUT_SECONDS with an error. */
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "guest-tool.h"

enum {
    PAGE = 4096,
    MESSAGE = PAGE - 64, /* where in the page interrupt messages land */
    MESSAGES = 16,       /* places of four bytes */
    MESSAGE_DATA = 0x5a00,
    BARS = 6,
};

struct bar {
    int fd;                 /* -1: not opened yet */
    volatile uint8_t *base; /* NULL: an I/O BAR, accessed through fd */
    uint64_t size;
};

static const char *bdf;
static int config_fd = -1;
static int uio_fd = -1;
static struct bar bars[BARS] = { { -1, NULL, 0 }, { -1, NULL, 0 }, { -1, NULL, 0 },
                                 { -1, NULL, 0 }, { -1, NULL, 0 }, { -1, NULL, 0 } };
static volatile uint8_t *page;
static uint64_t page_address;

void die(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fputs("guest-tool: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t deadline_ns(void)
{
    return now_ns() + (uint64_t)TIMEOUT_SECONDS * 1000000000u;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value;
    bool address = *text == '@';

    errno = 0;
    value = strtoull(text + address, &end, 0);
    if (errno != 0 || *end != '\0' || end == text + address)
        die("%s is not a number", text);
    return address ? page_address + value : value;
}

uint32_t crc32_of(uint32_t crc, const volatile uint8_t *data, size_t length)
{
    crc = ~crc;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

uint8_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return (uint8_t)(*state >> 24);
}

/* ---- the page ---- */

static void open_page(void)
{
    uint64_t entry = 0;
    int fd;

    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
    if (page == MAP_FAILED)
        die("cannot get a locked page: %s", strerror(errno));
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("cannot open /proc/self/pagemap: %s", strerror(errno));
    if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / PAGE * sizeof(entry))) != sizeof(entry))
        die("cannot read /proc/self/pagemap: %s", strerror(errno));
    close(fd);
    /* Documentation/admin-guide/mm/pagemap.rst: bit 63 present, bits 0-54 the frame, 0 without the right to know it. */
    if (!(entry >> 63) || !(entry & 0x7fffffffffffffu))
        die("/proc/self/pagemap does not tell the page's address (%#" PRIx64 ")", entry);
    page_address = (entry & 0x7fffffffffffffu) * PAGE;
}

static volatile uint8_t *page_part(uint64_t offset, uint64_t length)
{
    if (offset > PAGE || length > PAGE - offset)
        die("page: %" PRIu64 " bytes at %" PRIu64 " are outside it", length, offset);
    return page + offset;
}

/* ---- accesses ---- */

static uint64_t load(const volatile uint8_t *from, unsigned width)
{
    switch (width) {
    case 1:
        return *from;
    case 2:
        return *(const volatile uint16_t *)from;
    case 4:
        return *(const volatile uint32_t *)from;
    case 8:
        return *(const volatile uint64_t *)from;
    default:
        die("width %u is not 1, 2, 4 or 8", width);
    }
}

static void store(volatile uint8_t *to, unsigned width, uint64_t value)
{
    switch (width) {
    case 1:
        *to = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)to = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)to = (uint32_t)value;
        break;
    case 8:
        *(volatile uint64_t *)to = value;
        break;
    default:
        die("width %u is not 1, 2, 4 or 8", width);
    }
}

static struct bar *open_bar(uint64_t index)
{
    char path[128];
    struct bar *bar;
    struct stat info;
    void *map;

    if (index >= BARS)
        die("there is no BAR %" PRIu64, index);
    bar = &bars[index];
    if (bar->fd >= 0)
        return bar;
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%u", bdf, (unsigned)index);
    bar->fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
    if (bar->fd < 0 || fstat(bar->fd, &info) != 0)
        die("cannot open %s: %s", path, strerror(errno));
    bar->size = (uint64_t)info.st_size;
    map = mmap(NULL, bar->size, PROT_READ | PROT_WRITE, MAP_SHARED, bar->fd, 0);
    if (map != MAP_FAILED)
        bar->base = map;
    else if (errno != ENODEV && errno != EINVAL) /* I/O BARs cannot be mapped; their file does port accesses */
        die("cannot map %s: %s", path, strerror(errno));
    return bar;
}

static uint64_t bar_access(uint64_t index, uint64_t offset, uint64_t width, const uint64_t *written)
{
    struct bar *bar = open_bar(index);
    uint64_t value = written ? *written : 0;
    ssize_t done;

    if (width == 0 || width > 8 || offset > bar->size || width > bar->size - offset)
        die("BAR %" PRIu64 ": %" PRIu64 " bytes at %#" PRIx64 " are outside it", index, width, offset);
    if (bar->base && written) {
        store(bar->base + offset, (unsigned)width, value);
        return value;
    }
    if (bar->base)
        return load(bar->base + offset, (unsigned)width);
    if (written)
        done = pwrite(bar->fd, &value, width, (off_t)offset);
    else
        done = pread(bar->fd, &value, width, (off_t)offset);
    if (done != (ssize_t)width)
        die("BAR %" PRIu64 ": I/O access at %#" PRIx64 ": %s", index, offset, done < 0 ? strerror(errno) : "cut short");
    return value;
}

static uint64_t config_read(uint64_t offset, uint64_t width)
{
    uint64_t value = 0;

    if (width > 4 || pread(config_fd, &value, width, (off_t)offset) != (ssize_t)width)
        die("cannot read %" PRIu64 " bytes of configuration space at %#" PRIx64, width, offset);
    return value;
}

static void config_write(uint64_t offset, uint64_t width, uint64_t value)
{
    if (width > 4 || pwrite(config_fd, &value, width, (off_t)offset) != (ssize_t)width)
        die("cannot write %" PRIu64 " bytes of configuration space at %#" PRIx64, width, offset);
}

static void bar_wait(uint64_t index, uint64_t offset, uint64_t width, uint64_t mask, uint64_t wanted)
{
    uint64_t deadline = deadline_ns(), value;

    do {
        value = bar_access(index, offset, width, NULL);
        if ((value & mask) == wanted) {
            printf("%#" PRIx64 "\n", value);
            return;
        }
    } while (now_ns() < deadline);
    die("BAR %" PRIu64 " offset %#" PRIx64 " is %#" PRIx64 ", not %#" PRIx64 " under %#" PRIx64, index, offset, value,
        wanted, mask);
}

/* ---- interrupts ---- */

static void open_uio(void)
{
    char path[128];
    int index;

    for (index = 0; uio_fd < 0 && index < 16; index++) {
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/uio/uio%d", bdf, index);
        if (access(path, F_OK) != 0)
            continue;
        snprintf(path, sizeof(path), "/dev/uio%d", index);
        uio_fd = open(path, O_RDWR | O_CLOEXEC);
        if (uio_fd < 0)
            die("cannot open %s: %s", path, strerror(errno));
    }
    if (uio_fd < 0)
        die("%s is not bound to uio_pci_generic", bdf);
}

static void intx_set(bool on)
{
    uint64_t command = config_read(PCI_COMMAND, 2) & ~(uint64_t)PCI_COMMAND_INTX_DISABLE;

    config_write(PCI_COMMAND, 2, command | (on ? 0 : PCI_COMMAND_INTX_DISABLE));
}

static void intx_wait(void)
{
    struct pollfd entry;
    uint32_t count;
    int ready;

    entry = (struct pollfd){ .fd = uio_fd, .events = POLLIN };
    ready = poll(&entry, 1, TIMEOUT_SECONDS * 1000);
    if (ready < 0)
        die("poll: %s", strerror(errno));
    if (ready == 0)
        die("no interrupt came in %d s", TIMEOUT_SECONDS);
    if (read(uio_fd, &count, sizeof(count)) != sizeof(count))
        die("cannot read the interrupt count: %s", strerror(errno));
    printf("%" PRIu32 "\n", count);
}

static unsigned find_capability(unsigned id)
{
    unsigned offset, seen = 0;

    if (!(config_read(PCI_STATUS, 2) & PCI_STATUS_CAP_LIST))
        die("%s has no capabilities", bdf);
    for (offset = config_read(PCI_CAPABILITY_LIST, 1) & 0xfc; offset && seen < 48; seen++) {
        if (config_read(offset, 1) == id)
            return offset;
        offset = config_read(offset + 1, 1) & 0xfc;
    }
    die("%s has no capability %#x", bdf, id);
}

static volatile uint8_t *message_place(uint64_t place)
{
    if (place >= MESSAGES)
        die("there is no place for message %" PRIu64 ", only for %d", place, MESSAGES);
    return page + MESSAGE + place * 4;
}

/* Also drops a message of before. */
static void prepare_message(uint64_t place)
{
    store(message_place(place), 4, 0);
    config_write(PCI_COMMAND, 2, config_read(PCI_COMMAND, 2) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* MSI numbers its vectors in the low bits of the data (PCI 3.0, 6.8.1.6): VECTOR + MESSAGE_DATA, if that many bits are
 * enabled. */
static void msi_on(uint64_t vector)
{
    unsigned cap = find_capability(PCI_CAP_ID_MSI), log2_vectors = 0;
    uint64_t flags = config_read(cap + PCI_MSI_FLAGS, 2);
    bool wide = flags & PCI_MSI_FLAGS_64BIT;

    while (UINT64_C(1) << log2_vectors <= vector)
        log2_vectors++;
    if (log2_vectors > (flags & PCI_MSI_FLAGS_QMASK) >> 1)
        die("%s has no MSI vector %" PRIu64, bdf, vector);
    prepare_message(0);
    config_write(cap + PCI_MSI_ADDRESS_LO, 4, (uint32_t)(page_address + MESSAGE));
    if (wide)
        config_write(cap + PCI_MSI_ADDRESS_HI, 4, (page_address + MESSAGE) >> 32);
    else if (page_address >> 32)
        die("the page is beyond what a 32-bit MSI capability can address");
    config_write(cap + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2, MESSAGE_DATA);
    flags = (flags & ~(uint64_t)PCI_MSI_FLAGS_QSIZE) | (uint64_t)log2_vectors << 4 | PCI_MSI_FLAGS_ENABLE;
    config_write(cap + PCI_MSI_FLAGS, 2, flags);
}

/* Accesses 4 bytes of the vector's entry in the table; returns the capability's offset. */
static unsigned msix_entry(uint64_t vector, unsigned offset, const uint64_t *written)
{
    unsigned cap = find_capability(PCI_CAP_ID_MSIX);
    uint64_t table = config_read(cap + PCI_MSIX_TABLE, 4);

    if (vector > (config_read(cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE))
        die("%s has no MSI-X vector %" PRIu64, bdf, vector);
    bar_access(table & PCI_MSIX_TABLE_BIR, (table & PCI_MSIX_TABLE_OFFSET) + vector * PCI_MSIX_ENTRY_SIZE + offset, 4,
               written);
    return cap;
}

static void msix_on(uint64_t vector)
{
    uint64_t address = page_address + MESSAGE + vector * 4;
    uint64_t fields[] = { (uint32_t)address, address >> 32, MESSAGE_DATA + vector, 0 };
    unsigned cap = find_capability(PCI_CAP_ID_MSIX);
    uint64_t flags = (config_read(cap + PCI_MSIX_FLAGS, 2) & ~(uint64_t)PCI_MSIX_FLAGS_MASKALL) | PCI_MSIX_FLAGS_ENABLE;

    prepare_message(vector);
    config_write(cap + PCI_MSIX_FLAGS, 2, flags | PCI_MSIX_FLAGS_MASKALL);
    for (unsigned i = 0; i < 4; i++) /* vector control, which unmasks, comes last */
        msix_entry(vector, i * 4, &fields[i]);
    msix_entry(vector, PCI_MSIX_ENTRY_VECTOR_CTRL, NULL); /* the writes have arrived when a read is answered */
    config_write(cap + PCI_MSIX_FLAGS, 2, flags);
}

static void message_wait(uint64_t place)
{
    volatile uint8_t *at = message_place(place);
    uint64_t deadline = deadline_ns();
    uint64_t data;

    while ((data = load(at, 4)) == 0)
        if (now_ns() >= deadline)
            die("no interrupt message %" PRIu64 " came in %d s", place, TIMEOUT_SECONDS);
    store(at, 4, 0);
    printf("%#" PRIx64 "\n", data);
}

/* ---- the commands ---- */

static void do_read(const uint64_t *n)
{
    printf("%#" PRIx64 "\n", bar_access(n[0], n[1], n[2], NULL));
}
static void do_write(const uint64_t *n)
{
    bar_access(n[0], n[1], n[2], &n[3]);
}
static void do_wait(const uint64_t *n)
{
    bar_wait(n[0], n[1], n[2], n[3], n[4]);
}
static void do_config_read(const uint64_t *n)
{
    printf("%#" PRIx64 "\n", config_read(n[0], n[1]));
}
static void do_config_write(const uint64_t *n)
{
    config_write(n[0], n[1], n[2]);
}
static void do_page_read(const uint64_t *n)
{
    printf("%#" PRIx64 "\n", load(page_part(n[0], n[1]), (unsigned)n[1]));
}
static void do_page_write(const uint64_t *n)
{
    store(page_part(n[0], n[1]), (unsigned)n[1], n[2]);
}
static void do_page_fill(const uint64_t *n)
{
    memset((void *)page_part(n[0], n[1]), (int)n[2], n[1]);
}
static void do_page_random(const uint64_t *n)
{
    volatile uint8_t *part = page_part(n[0], n[1]);
    uint32_t state = (uint32_t)n[2];

    for (uint64_t i = 0; i < n[1]; i++)
        part[i] = next_random(&state);
}
static void do_page_crc(const uint64_t *n)
{
    printf("%#" PRIx32 "\n", crc32_of(0, page_part(n[0], n[1]), n[1]));
}
static void do_intx_wait(const uint64_t *n)
{
    (void)n;
    intx_wait();
}
static void do_intx_on(const uint64_t *n)
{
    (void)n;
    intx_set(true);
}
static void do_msi(const uint64_t *n)
{
    msi_on(n[0]);
}
static void do_msix(const uint64_t *n)
{
    msix_on(n[0]);
}
static void do_msix_mask(const uint64_t *n)
{
    uint64_t control = n[1] ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0;

    msix_entry(n[0], PCI_MSIX_ENTRY_VECTOR_CTRL, &control);
    msix_entry(n[0], PCI_MSIX_ENTRY_VECTOR_CTRL, NULL);
}
static void do_message_wait(const uint64_t *n)
{
    message_wait(n[0]);
}
static void do_message(const uint64_t *n)
{
    printf("%#" PRIx64 "\n", load(message_place(n[0]), 4));
}

static const struct command {
    const char *name;
    int arguments;
    void (*run)(const uint64_t *numbers);
} commands[] = {
    { "read", 3, do_read },
    { "write", 4, do_write },
    { "wait", 5, do_wait },
    { "config-read", 2, do_config_read },
    { "config-write", 3, do_config_write },
    { "page-read", 2, do_page_read },
    { "page-write", 3, do_page_write },
    { "page-fill", 3, do_page_fill },
    { "page-random", 3, do_page_random },
    { "page-crc", 2, do_page_crc },
    { "intx-wait", 0, do_intx_wait },
    { "intx-on", 0, do_intx_on },
    { "msi", 1, do_msi },
    { "msix", 1, do_msix },
    { "msix-mask", 2, do_msix_mask },
    { "message-wait", 1, do_message_wait },
    { "message", 1, do_message },
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    die("there is no command %s", name);
}

static int drive_pci(int argc, char **argv)
{
    char path[128];

    bdf = argv[0];
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
    config_fd = open(path, O_RDWR | O_CLOEXEC);
    if (config_fd < 0)
        die("cannot open %s: %s", path, strerror(errno));
    open_page();
    /* Opened before the first command: an interrupt that one causes has to count as new. */
    for (int i = 1; i < argc && uio_fd < 0; i++)
        if (strcmp(argv[i], "intx-wait") == 0)
            open_uio();
    for (int i = 1; i < argc;) {
        const struct command *command = find_command(argv[i++]);
        uint64_t numbers[5] = { 0 };

        if (argc - i < command->arguments)
            die("%s takes %d arguments", command->name, command->arguments);
        for (int j = 0; j < command->arguments; j++)
            numbers[j] = number(argv[i++]);
        command->run(numbers);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "pci") == 0)
        return drive_pci(argc - 2, argv + 2);
    if (argc == 6 && (strcmp(argv[1], "send") == 0 || strcmp(argv[1], "receive") == 0)) {
        int fd = open_tty(argv[2], argv[5]);
        uint64_t bytes = number(argv[3]);
        uint32_t seed = (uint32_t)number(argv[4]);

        return argv[1][0] == 's' ? serial_send(fd, bytes, seed) : serial_receive(fd, bytes, seed);
    }
    die("usage: guest-tool pci BDF COMMAND... | send|receive TTY BYTES SEED rtscts|none");
}
