/* pci.c: VU-PCI: the header of configuration space of any device, and what it has to agree with. */
#include "check.h"

#define COMMAND     0x04
#define HEADER_TYPE 0x0e
#define BARS        0x10
#define PIN         0x3d

#define BAR_IO   1u
#define BAR_TYPE 6u
#define BAR_64   4u

/* --- The header -------------------------------------------------------------------------------------------------- */

static void pci_config_size(struct judge *j)
{
    const uint64_t size = j->facts.region[VFIO_PCI_CONFIG_REGION_INDEX].size;

    want(j, size == 256 || size == 4096, "configuration space has %llu bytes, wanted 256 or 4096",
         (unsigned long long)size);
}

static void pci_config_flags(struct judge *j)
{
    const uint32_t flags = j->facts.region[VFIO_PCI_CONFIG_REGION_INDEX].flags;
    const uint32_t wanted = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;

    want(j, (flags & wanted) == wanted, "configuration space has flags %#x, wanted READ (1) and WRITE (2)", flags);
}

static void pci_vendor(struct judge *j)
{
    const uint32_t vendor = config_read(j, 0, 2);

    want(j, vendor != 0 && vendor != 0xffff, "the vendor id is %#x", vendor);
}

static void pci_header_type(struct judge *j)
{
    const uint32_t type = config_read(j, HEADER_TYPE, 1);

    want(j, (type & 0x7f) == 0, "the header type is %#x, wanted 0 in bits 0 to 6", type);
}

static void pci_pin(struct judge *j)
{
    const uint32_t pin = config_read(j, PIN, 1), count = j->facts.irq[VFIO_PCI_INTX_IRQ_INDEX].count;

    want(j, pin <= 4 && (pin != 0) == (count != 0), "the interrupt pin is %u, and INTx has count %u", pin, count);
}

/* --- BARs -------------------------------------------------------------------------------------------------------- */

struct bar {
    uint32_t was, zero, ones; /* read at first, after zeroes and after ones were written */
};

/* Writes ones and zeroes to all BARs while nothing is decoded, and restores them. */
static void size_bars(struct judge *j, struct bar *bars)
{
    const uint32_t command = config_read(j, COMMAND, 2);

    config_write(j, COMMAND, 2, 0);
    for (unsigned i = 0; i < 6; i++) {
        const uint32_t at = BARS + 4 * i;

        bars[i].was = config_read(j, at, 4);
        config_write(j, at, 4, 0);
        bars[i].zero = config_read(j, at, 4);
        config_write(j, at, 4, 0xffffffff);
        bars[i].ones = config_read(j, at, 4);
        config_write(j, at, 4, bars[i].was);
    }
    config_write(j, COMMAND, 2, command);
}

static bool is_64(const struct bar *bar)
{
    return !(bar->ones & BAR_IO) && (bar->ones & BAR_TYPE) == BAR_64;
}

/* Address bits that are there, of both halves of a 64-bit BAR. */
static uint64_t address_bits(const struct bar *bar)
{
    const uint64_t low = bar->ones & (bar->ones & BAR_IO ? ~3u : ~15u);

    return is_64(bar) ? (uint64_t)bar[1].ones << 32 | low : low;
}

/* For each BAR that is not the upper half of another. */
static void each_bar(struct judge *j, void (*run)(struct judge *j, unsigned i, const struct bar *bar))
{
    struct bar bars[7] = { { 0 } };

    size_bars(j, bars);
    for (unsigned i = 0; i < 6; i += is_64(&bars[i]) ? 2 : 1)
        run(j, i, &bars[i]);
}

static void bar_size(struct judge *j, unsigned i, const struct bar *bar)
{
    const uint64_t bits = address_bits(bar), size = bits & (~bits + 1), region = j->facts.region[i].size;

    if (bar->ones != 0)
        want(j, size == region, "BAR %u reads %#x after ones, so it has %#llx bytes, and its region %#llx", i,
             bar->ones, (unsigned long long)size, (unsigned long long)region);
}

static void pci_bar_size(struct judge *j)
{
    each_bar(j, bar_size);
}

static void bar_empty(struct judge *j, unsigned i, const struct bar *bar)
{
    const uint64_t region = j->facts.region[i].size;

    want(j, (bar->ones == 0) == (region == 0), "BAR %u reads %#x after ones, and its region has %#llx bytes", i,
         bar->ones, (unsigned long long)region);
}

static void pci_bar_empty(struct judge *j)
{
    each_bar(j, bar_empty);
}

/* The address bits lie side by side. */
static void bar_power(struct judge *j, unsigned i, const struct bar *bar)
{
    const uint64_t bits = address_bits(bar), low = bits & (~bits + 1), region = j->facts.region[i].size;

    want(j, (region & (region - 1)) == 0, "the region of BAR %u has %#llx bytes, which is no power of two", i,
         (unsigned long long)region);
    want(j, ((bits + low) & bits) == 0, "BAR %u has the address bits %#llx, which leave gaps", i,
         (unsigned long long)bits);
}

static void pci_bar_power(struct judge *j)
{
    each_bar(j, bar_power);
}

static void bar_type(struct judge *j, unsigned i, const struct bar *bar)
{
    const uint32_t type = bar->ones & (bar->ones & BAR_IO ? 3u : 15u);

    if (bar->ones == 0)
        return;
    want(j, type & BAR_IO ? type == BAR_IO : (type & BAR_TYPE) == 0 || (type & BAR_TYPE) == BAR_64,
         "BAR %u has type bits %#x", i, type);
    want(j, i < 5 || !is_64(bar), "BAR 5 is 64-bit, and there is none for its upper half");
}

static void pci_bar_type(struct judge *j)
{
    each_bar(j, bar_type);
}

static void bar_type_kept(struct judge *j, unsigned i, const struct bar *bar)
{
    const uint32_t mask = bar->ones & BAR_IO ? 3 : 15;

    want(j, (bar->was & mask) == (bar->ones & mask) && bar->zero == (bar->ones & mask),
         "BAR %u reads %#x at first, %#x after 0 and %#x after ones: its type bits change", i, bar->was, bar->zero,
         bar->ones);
}

static void pci_bar_type_kept(struct judge *j)
{
    each_bar(j, bar_type_kept);
}

static void bar_upper(struct judge *j, unsigned i, const struct bar *bar)
{
    if (is_64(bar) && i < 5)
        want(j, j->facts.region[i + 1].size == 0, "region %u, behind the upper half of BAR %u, has %#llx bytes", i + 1,
             i, (unsigned long long)j->facts.region[i + 1].size);
}

static void pci_bar_upper(struct judge *j)
{
    each_bar(j, bar_upper);
}

/* --- COMMAND ----------------------------------------------------------------------------------------------------- */

#define TRIED 0x0407u /* I/O, memory, bus mastering, Interrupt Disable */

/* What COMMAND says after all that is tried was written to it: devices lack some bits. */
static uint32_t command_bits(struct judge *j)
{
    uint32_t bits;

    config_write(j, COMMAND, 2, TRIED);
    bits = config_read(j, COMMAND, 2);
    config_write(j, COMMAND, 2, 0);
    return bits;
}

static void want_command(struct judge *j, uint32_t wanted, const char *what)
{
    const uint32_t is = config_read(j, COMMAND, 2);

    config_write(j, COMMAND, 2, 0);
    want(j, (is & TRIED) == (wanted & TRIED), "COMMAND is %#x after %s, wanted %#x", is, what, wanted);
}

static void pci_command_keeps(struct judge *j)
{
    const uint32_t bits = command_bits(j);

    for (unsigned i = 0; i < 6; i++) {
        const uint32_t bar = config_read(j, BARS + 4 * i, 4), bit = bar & BAR_IO ? 1 : 2;

        want(j, j->facts.region[i].size == 0 || (bits & bit), "BAR %u is %s, and COMMAND, %#x after %#x, lacks bit %u",
             i, bar & BAR_IO ? "I/O" : "memory", bits, TRIED, bar & BAR_IO ? 0 : 1);
    }
    want(j, j->facts.irq[VFIO_PCI_INTX_IRQ_INDEX].count == 0 || (bits & 0x400),
         "the device has INTx, and COMMAND, %#x after %#x, lacks Interrupt Disable (bit 10)", bits, TRIED);
}

static void pci_command_low(struct judge *j)
{
    const uint32_t bits = command_bits(j);

    config_write(j, COMMAND, 1, TRIED & 0xff);
    want_command(j, bits & 0xff, "a write of 1 byte to its lower half");
}

/* Some guests' way, through QEMU, to set Interrupt Disable. */
static void pci_command_high(struct judge *j)
{
    const uint32_t bits = command_bits(j);

    config_write(j, COMMAND + 1, 1, TRIED >> 8);
    want_command(j, bits & 0xff00, "a write of 1 byte to its upper half");
}

static void pci_command_halves(struct judge *j)
{
    const uint32_t bits = command_bits(j);

    config_write(j, COMMAND, 1, TRIED & 0xff);
    config_write(j, COMMAND + 1, 1, TRIED >> 8);
    want_command(j, bits, "a write of 1 byte to each half");
    config_write(j, COMMAND, 2, TRIED);
    config_write(j, COMMAND, 1, 0);
    want_command(j, bits & 0xff00, "a write of 1 byte of 0 to its lower half");
}

/* Together with STATUS, whose bits clear when ones are written to them. */
static void pci_command_status(struct judge *j)
{
    const uint32_t bits = command_bits(j);

    config_write(j, COMMAND, 4, TRIED);
    want_command(j, bits, "a write of 4 bytes to it and STATUS");
}

/* --- Decoding ---------------------------------------------------------------------------------------------------- */

/* Reads the first 4 bytes of a region: 0 or errno. */
static int read_start(struct judge *j, uint32_t region, uint32_t *value)
{
    const struct ob_raw_region request = { .region = region, .count = 4 };
    struct ob_raw_message *m;
    int r = call(j, OB_RAW_REGION_READ, &request, sizeof(request), NULL, 0, &m);

    *value = r == 0 ? field32(j, m, sizeof(request)) : 0;
    return r;
}

/* Every BAR that reads something reads something after the change too. */
static void still_answers(struct judge *j, void (*change)(struct judge *j, bool on), const char *what)
{
    unsigned tried = 0;

    for (uint32_t i = 0; i < 6; i++) {
        uint32_t before, after;
        int r;

        change(j, false);
        if (j->facts.region[i].size == 0 || read_start(j, i, &before) != 0 || before == 0xffffffff)
            continue;
        change(j, true);
        r = read_start(j, i, &after);
        change(j, false);
        want(j, r == 0, "reading region %u fails with %d (%s) %s", i, r, strerror(r), what);
        want(j, after != 0xffffffff, "region %u reads all ones %s, and %#x otherwise", i, what, before);
        tried++;
    }
    if (tried == 0)
        judge_skip(j, "no BAR's first bytes read as anything but ones");
}

static void decode(struct judge *j, bool off)
{
    config_write(j, COMMAND, 2, off ? 0 : 7);
}

static void pci_decode_off(struct judge *j)
{
    still_answers(j, decode, "with decoding off in COMMAND");
    config_write(j, COMMAND, 2, 0);
}

/* As a guest would, or back to 0. */
static void place(struct judge *j, bool placed)
{
    config_write(j, COMMAND, 2, 0);
    for (unsigned i = 0; i < 6; i++)
        config_write(j, BARS + 4 * i, 4, placed ? 0xe0000000 + (i << 24) : 0);
    config_write(j, COMMAND, 2, 3);
}

static void pci_bars_placed(struct judge *j)
{
    still_answers(j, place, "with BARs at addresses");
    place(j, false);
    config_write(j, COMMAND, 2, 0);
}

/* --- What cannot be written -------------------------------------------------------------------------------------- */

/* Whether the write succeeds is VU-WR-12's affair. */
static void stays(struct judge *j, uint32_t offset, uint32_t width, const char *what)
{
    const uint32_t before = config_read(j, offset, width);
    struct {
        struct ob_raw_region access;
        uint32_t value;
    } request = { { .offset = offset, .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = width }, ~before };
    uint32_t after;

    call(j, OB_RAW_REGION_WRITE, &request, sizeof(request.access) + width, NULL, 0, NULL);
    after = config_read(j, offset, width);
    want(j, after == before, "the %s was %#x, and is %#x after its inverse was written", what, before, after);
}

static void pci_ids(struct judge *j)
{
    stays(j, 0x00, 2, "vendor id");
    stays(j, 0x02, 2, "device id");
}

static void pci_class(struct judge *j)
{
    stays(j, 0x08, 1, "revision id");
    stays(j, 0x09, 1, "programming interface");
    stays(j, 0x0a, 2, "class code");
    stays(j, HEADER_TYPE, 1, "header type");
}

static void pci_subsystem(struct judge *j)
{
    stays(j, 0x2c, 2, "subsystem vendor id");
    stays(j, 0x2e, 2, "subsystem id");
}

const struct check server_pci_checks[] = {
    { { "pci-config-size", "VU-PCI-2", "configuration space has 256 or 4096 bytes" }, 0, pci_config_size },
    { { "pci-config-flags", "VU-PCI-2", "configuration space is readable and writeable" }, 0, pci_config_flags },
    { { "pci-vendor", "VU-PCI-3", "there is a vendor id" }, 0, pci_vendor },
    { { "pci-header-type", "VU-PCI-3", "the header is of type 0" }, 0, pci_header_type },
    { { "pci-bar-size", "VU-PCI-4", "a BAR has the size of its region" }, 0, pci_bar_size },
    { { "pci-bar-empty", "VU-PCI-4", "a region is empty if and only if its BAR is" }, 0, pci_bar_empty },
    { { "pci-bar-power", "VU-PCI-4", "the size of a BAR is a power of two" }, 0, pci_bar_power },
    { { "pci-bar-type", "VU-PCI-5", "the type bits of a BAR are those of a kind that exists" }, 0, pci_bar_type },
    { { "pci-bar-type-kept", "VU-PCI-5", "writes leave the type bits of a BAR" }, 0, pci_bar_type_kept },
    { { "pci-bar-upper", "VU-PCI-5", "the region behind the upper half of a 64-bit BAR is empty" }, 0, pci_bar_upper },
    { { "pci-pin", "VU-PCI-10", "there is an interrupt pin if and only if there is INTx" }, 0, pci_pin },
    { { "pci-command-keeps", "VU-PCI-15", "COMMAND keeps the bits that the device has" }, 0, pci_command_keeps },
    { { "pci-command-low", "VU-PCI-15", "COMMAND's lower half can be written alone" }, 0, pci_command_low },
    { { "pci-command-high", "VU-PCI-15", "COMMAND's upper half can be written alone" }, 0, pci_command_high },
    { { "pci-command-halves", "VU-PCI-15", "a write to one half of COMMAND leaves the other" }, 0, pci_command_halves },
    { { "pci-command-status", "VU-PCI-15", "COMMAND can be written together with STATUS" }, 0, pci_command_status },
    { { "pci-decode-off", "VU-PCI-16", "BARs answer while COMMAND says that they do not" }, 0, pci_decode_off },
    { { "pci-bars-placed", "VU-PCI-16", "BARs answer wherever they are" }, 0, pci_bars_placed },
    { { "pci-ids", "VU-PCI-18", "vendor and device id cannot be written" }, 0, pci_ids },
    { { "pci-class", "VU-PCI-18", "class, revision and header type cannot be written" }, 0, pci_class },
    { { "pci-subsystem", "VU-PCI-18", "the subsystem ids cannot be written" }, 0, pci_subsystem },
    { { NULL, NULL, NULL }, 0, NULL },
};
