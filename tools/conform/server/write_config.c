/* write_config.c: VU-WR: writes to configuration space, as guests make them and longer, and read-only bits. */
#include "access.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

/* The first 256 bytes. */
struct config {
    uint8_t bytes[256];
};

static void read_config(struct judge *j, struct config *c)
{
    want_ok(j, region_read(j, CONFIG, 0, c->bytes, 256), "reading 256 bytes of configuration space");
}

static void write_config(struct judge *j, uint32_t offset, const uint8_t *bytes, uint32_t count)
{
    char what[96];

    snprintf(what, sizeof(what), "writing %u bytes of configuration space at %#x", count, offset);
    want_ok(j, region_write(j, CONFIG, offset, bytes, count), what);
}

/* Whether the upper byte of BAR `n` keeps what is written, 4 bytes at a time. */
static bool bar_keeps(struct judge *j, unsigned n)
{
    uint32_t at = 0x10 + 4 * n, was = config_read(j, at, 4), is;

    config_write(j, at, 4, 0xa5000000);
    is = config_read(j, at, 4);
    config_write(j, at, 4, was);
    return is >> 24 == 0xa5;
}

/* The last BAR whose upper byte, at 0x13 and so on, is address alone. */
static unsigned a_bar(struct judge *j)
{
    for (unsigned n = 6; n-- > 0;) {
        if (bar_keeps(j, n))
            return n;
    }
    judge_skip(j, "no BAR has address bits in its upper byte");
}

/* --- Any offset and length --------------------------------------------------------------------------------------- */

/* So many bytes at a time, and as a whole: the register holds the same. */
static void pieces(struct judge *j, uint32_t width)
{
    uint32_t at, was, whole, is;
    uint8_t bytes[4];

    reset(j);
    at = 0x10 + 4 * a_bar(j);
    was = config_read(j, at, 4);
    config_write(j, at, 4, 0xa5a4a3a2);
    whole = config_read(j, at, 4);
    config_write(j, at, 4, 0);
    memcpy(bytes, &(uint32_t){ 0xa5a4a3a2 }, 4);
    for (uint32_t i = 0; i < 4; i += width)
        write_config(j, at + i, bytes + i, width < 4 - i ? width : 4 - i);
    is = config_read(j, at, 4);
    config_write(j, at, 4, was);
    want(j, is == whole, "a BAR written by %u bytes at a time is %#x, and %#x written at once", width, is, whole);
}

static void config_pieces(struct judge *j)
{
    pieces(j, 1);
    pieces(j, 2);
}

static void config_three(struct judge *j)
{
    pieces(j, 3);
}

/* One byte in the middle leaves its neighbours. */
static void config_byte(struct judge *j)
{
    uint32_t at, was, before, is;

    reset(j);
    at = 0x10 + 4 * a_bar(j);
    was = config_read(j, at, 4);
    config_write(j, at, 4, 0);
    before = config_read(j, at, 4);
    config_write(j, at + 3, 1, 0xa5);
    is = config_read(j, at, 4);
    config_write(j, at, 4, was);
    want(j, is == (before | 0xa5000000), "a BAR of %#x is %#x after 0xa5 was written to its last byte", before, is);
}

/* Each holds what it holds when it is written alone. */
static void config_bars(struct judge *j)
{
    uint32_t at = 0x10, was[6], one[6], is;
    uint8_t bytes[24];

    reset(j);
    a_bar(j);
    for (unsigned n = 0; n < 6; n++) {
        was[n] = config_read(j, at + 4 * n, 4);
        config_write(j, at + 4 * n, 4, 0xf0000000 + (n << 25));
        one[n] = config_read(j, at + 4 * n, 4);
    }
    for (unsigned n = 0; n < 6; n++) {
        config_write(j, at + 4 * n, 4, 0);
        memcpy(bytes + 4 * n, &(uint32_t){ 0xf0000000 + (n << 25) }, 4);
    }
    write_config(j, at, bytes, sizeof(bytes));
    for (unsigned n = 0; n < 6; n++) {
        is = config_read(j, at + 4 * n, 4);
        want(j, is == one[n], "BAR %u is %#x after a write of all six, and %#x after one of its own", n, is, one[n]);
    }
    for (unsigned n = 0; n < 6; n++)
        config_write(j, at + 4 * n, 4, was[n]);
}

/* Over the read-only registers between the BARs and the interrupt line. */
static void config_header(struct judge *j)
{
    struct config before, written, after;
    unsigned n;

    reset(j);
    n = a_bar(j);
    read_config(j, &before);
    written = before;
    memset(written.bytes + 0x28, 0xff, 0x3c - 0x28); /* CardBus pointer, subsystem ids, ROM, list of capabilities */
    written.bytes[0x30] = before.bytes[0x30];        /* the ROM's enable bit */
    written.bytes[0x13 + 4 * n] ^= 0xa5;
    write_config(j, 0x10, written.bytes + 0x10, 0x40 - 0x10);
    read_config(j, &after);
    write_config(j, 0x10, before.bytes + 0x10, 0x40 - 0x10);
    want(j, after.bytes[0x13 + 4 * n] == written.bytes[0x13 + 4 * n],
         "a write of 0x10 to 0x3f leaves %#x in BAR %u, wanted %#x", after.bytes[0x13 + 4 * n], n,
         written.bytes[0x13 + 4 * n]);
    for (unsigned i = 0x2c; i < 0x30; i++)
        want(j, after.bytes[i] == before.bytes[i],
             "a write of 0x10 to 0x3f changes the subsystem ids: byte %#x is %#x and was %#x", i, after.bytes[i],
             before.bytes[i]);
    want(j, after.bytes[0x34] == before.bytes[0x34],
         "a write of 0x10 to 0x3f changes the pointer to the capabilities from %#x to %#x", before.bytes[0x34],
         after.bytes[0x34]);
}

/* From the device id to the latency timer: nothing but COMMAND is written anything else than it has. */
static void config_command(struct judge *j)
{
    const uint32_t decode = 6;
    struct config c;
    uint32_t is;

    reset(j);
    config_write(j, 0x04, 2, 0);
    config_write(j, 0x04, 2, decode);
    is = config_read(j, 0x04, 2);
    config_write(j, 0x04, 2, 0);
    read_config(j, &c);
    c.bytes[0x04] = (uint8_t)decode;
    write_config(j, 0x02, c.bytes + 0x02, 12);
    want(j, config_read(j, 0x04, 2) == is, "COMMAND is %#x after a write of 12 bytes from 2 on, and %#x after one of 2",
         config_read(j, 0x04, 2), is);
    want(j, config_read(j, 0x02, 2) == j->facts.device,
         "the device id is %#x after a write of 12 bytes from 2 on, and was %#x", config_read(j, 0x02, 2),
         j->facts.device);
    config_write(j, 0x04, 2, 0);
}

/* The bit of a capability that every device lets its driver write: MSI-X's function mask, or MSI's enable bit. */
static uint32_t a_target(struct judge *j, uint8_t *bit)
{
    uint32_t at = config_capability(j, 0x11);

    *bit = 0x40;
    if (at != 0)
        return at + 3;
    at = config_capability(j, 0x05);
    *bit = 0x01;
    if (at == 0)
        judge_skip(j, "the device has neither MSI-X nor MSI");
    return at + 2;
}

/* Where the capability before that at `at` begins; without one, the register of the interrupt line. */
static uint32_t before(struct judge *j, uint32_t at)
{
    uint32_t best = 0x3c, next = config_read(j, 0x34, 1) & ~3u;

    for (unsigned i = 0; i < 48 && next >= 0x40; i++) {
        if (next < at && next > best)
            best = next;
        next = config_read(j, next + 1, 1) & ~3u;
    }
    return best;
}

/* Writes what is there, from `start` to `end`, but for the target's bit. */
static void over_target(struct judge *j, uint32_t start, uint32_t end, uint32_t target, uint8_t bit)
{
    struct config c;
    uint32_t is;

    read_config(j, &c);
    c.bytes[target] ^= bit;
    write_config(j, start, c.bytes + start, end - start);
    is = config_read(j, target, 1);
    config_write(j, target, 1, c.bytes[target] ^ bit);
    want(j, (is & bit) == (c.bytes[target] & bit),
         "after a write of %u bytes from %#x on the bit %#x of the byte at %#x is not what was written", end - start,
         start, bit, target);
}

static void config_beyond(struct judge *j)
{
    uint8_t bit;
    uint32_t target, at;

    reset(j);
    target = a_target(j, &bit);
    at = before(j, target & ~3u);
    if (at < 0x40)
        judge_skip(j, "the capability of MSI-X or MSI is the first");
    over_target(j, at, target + 1, target, bit);
}

static void config_longer(struct judge *j)
{
    uint8_t bit;
    uint32_t target;

    reset(j);
    target = a_target(j, &bit);
    over_target(j, target & ~3u, 0x100, target, bit);
}

static void config_into(struct judge *j)
{
    uint8_t bit;
    uint32_t target;

    reset(j);
    target = a_target(j, &bit);
    over_target(j, 0x3c, target + 1, target, bit);
}

/* The first turn may clear bits that writing ones clears, wherever the device has some; the second finds none. */
static void config_whole(struct judge *j)
{
    const uint32_t size = (uint32_t)j->facts.region[CONFIG].size;
    uint8_t *was, *is;

    reset(j);
    if (size > 4096)
        judge_skip(j, "configuration space has %u bytes", size);
    was = judge_alloc(j, size);
    is = judge_alloc(j, size);
    for (int turn = 0; turn < 2; turn++) {
        want_ok(j, region_read(j, CONFIG, 0, was, size), "reading the whole of configuration space");
        write_config(j, 0, was, size);
        want_ok(j, region_read(j, CONFIG, 0, is, size), "reading the whole of configuration space");
        for (uint32_t i = 0; i < (turn == 0 ? 0x40 : size); i++)
            want(j, is[i] == was[i] || i == 0x06 || i == 0x07,
                 "byte %#x is %#x and was %#x, after the whole was written as it was", i, is[i], was[i]);
    }
}

/* --- Read-only bits ---------------------------------------------------------------------------------------------- */

/* Writes the complement of what is there, which succeeds and leaves it. */
static void stays(struct judge *j, uint32_t offset, uint32_t width, const char *name)
{
    uint32_t was = config_read(j, offset, width), is;

    config_write(j, offset, width, ~was);
    is = config_read(j, offset, width);
    want(j, is == was, "%s, at %#x, is %#x after %#x was written, and was %#x", name, offset, is,
         ~was & (width == 4 ? 0xffffffff : (1u << 8 * width) - 1), was);
}

static void read_only_ids(struct judge *j)
{
    reset(j);
    stays(j, 0x00, 4, "vendor and device id");
    stays(j, 0x08, 4, "class and revision");
    stays(j, 0x0e, 1, "the header type");
    stays(j, 0x2c, 4, "subsystem ids");
    stays(j, 0x34, 1, "the pointer to the capabilities");
    stays(j, 0x3d, 1, "the interrupt pin");
}

static void read_only_capabilities(struct judge *j)
{
    uint32_t at;

    reset(j);
    at = config_read(j, 0x06, 2) & 0x10 ? config_read(j, 0x34, 1) & ~3u : 0;
    if (at == 0)
        judge_skip(j, "there are no capabilities");
    for (unsigned i = 0; i < 48 && at >= 0x40; i++) {
        stays(j, at, 2, "id and next of a capability");
        at = config_read(j, at + 1, 1) & ~3u;
    }
}

static void read_only_status(struct judge *j)
{
    uint32_t was, is;

    reset(j);
    was = config_read(j, 0x06, 2);
    config_write(j, 0x06, 2, ~was & 0xffff);
    is = config_read(j, 0x06, 2);
    want(j, (is & 0x10) == (was & 0x10), "STATUS is %#x after %#x was written, and was %#x: bit 4 is read-only", is,
         ~was & 0xffff, was);
}

/* --- Extended space ---------------------------------------------------------------------------------------------- */

static void extended_read_only(struct judge *j)
{
    uint32_t at = 0x100;

    reset(j);
    if (config_read(j, at, 4) == 0 || config_read(j, at, 4) == 0xffffffff)
        judge_skip(j, "there are no extended capabilities");
    for (unsigned i = 0; i < 256 && at >= 0x100; i++) {
        stays(j, at, 4, "the header of an extended capability");
        at = config_read(j, at, 4) >> 20 & ~3u;
    }
}

const struct check server_write_config_checks[] = {
    { { "write-config-pieces", "VU-WR-11", "a BAR written by 1 or 2 bytes at a time holds the same" },
      0,
      config_pieces },
    { { "write-config-three", "VU-WR-16", "a BAR written by 3 bytes and 1 holds the same" }, 0, config_three },
    { { "write-config-byte", "VU-WR-11", "a write of one byte leaves its neighbours" }, 0, config_byte },
    { { "write-config-bars", "VU-WR-16", "all BARs can be written at once" }, 0, config_bars },
    { { "write-config-header", "VU-WR-16", "a write from the BARs to the interrupt line obeys each register's rules" },
      0,
      config_header },
    { { "write-config-command", "VU-WR-16", "a write that begins before COMMAND and ends behind STATUS" },
      0,
      config_command },
    { { "write-config-beyond-capability", "VU-WR-16", "a write that begins in one capability reaches the next" },
      0,
      config_beyond },
    { { "write-config-longer", "VU-WR-16", "a write that is longer than the capability in which it begins is done" },
      0,
      config_longer },
    { { "write-config-into-capability", "VU-WR-16", "a write that begins in the header reaches a capability" },
      0,
      config_into },
    { { "write-config-whole", "VU-WR-16", "the whole can be written at once, as it is" }, 0, config_whole },
    { { "write-read-only-ids", "VU-WR-12", "writes to ids and other read-only registers succeed and leave them" },
      0,
      read_only_ids },
    { { "write-read-only-capabilities", "VU-WR-12", "writes to the list of capabilities succeed and leave it" },
      0,
      read_only_capabilities },
    { { "write-read-only-status", "VU-WR-12", "a write to STATUS leaves its read-only bits" }, 0, read_only_status },
    { { "write-read-only-extended", "VU-WR-12", "writes to the list of extended capabilities leave it" },
      NEED_EXPRESS,
      extended_read_only },
    { { NULL, NULL, NULL }, 0, NULL },
};
