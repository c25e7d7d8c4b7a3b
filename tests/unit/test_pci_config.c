/* Configuration space: what declarations are accepted, and every rule of reading, writing and resetting the bytes. */
#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "pci/config.h"

static const uint8_t vendor_cap[] = { PCI_CAP_ID_VNDR, 0, 7, 0x11, 0x22, 0x33, 0x44 };
static const uint8_t vendor_mask[] = { 0, 0, 0, 0xff, 0x0f, 0, 0xf0 };
static const uint8_t serial_cap[] = { PCI_EXT_CAP_ID_DSN, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8 };
static const uint8_t vsec_cap[] = { PCI_EXT_CAP_ID_VNDR, 0, 1, 0, 0x34, 0x12, 0xc1, 0x00, 0xaa, 0xbb, 0xcc, 0xdd };
static const uint8_t vsec_mask[] = { 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0xff, 0 };
static const struct ob_pci_cap_spec caps[] = { { vendor_cap, vendor_mask, sizeof(vendor_cap) } };
static const struct ob_pci_cap_spec ext_caps[] = { { serial_cap, NULL, sizeof(serial_cap) },
                                                   { vsec_cap, vsec_mask, sizeof(vsec_cap) } };
static const struct ob_pci_live quiet;

/* Everything at once. */
static struct ob_pci_spec full_spec(void)
{
    return (struct ob_pci_spec){
        .vendor = 0x1234,
        .device = 0x5678,
        .subsystem_vendor = 0x9abc,
        .subsystem = 0xdef0,
        .revision = 0x42,
        .class_code = 0x010802,
        .pin = 1,
        .bars = { [0] = { .size = 0x4000, .mem64 = true, .prefetch = true },
                  [2] = { .size = 0x40, .io = true },
                  [3] = { .size = 0x10000 } },
        .msi_vectors = 8,
        .msix_vectors = 65,
        .msix_table_bar = 3,
        .msix_table = 0x1000,
        .msix_pba_bar = 3,
        .msix_pba = 0x8000,
        .pm = OB_PCI_PM_RESET,
        .express = true,
        .extended = true,
        .caps = caps,
        .n_caps = 1,
        .ext_caps = ext_caps,
        .n_ext_caps = 2,
    };
}

static struct ob_pci_layout *build(const struct ob_pci_spec *spec)
{
    struct ob_pci_layout *layout = NULL;
    char why[256] = "";
    int error = ob_pci_layout_new(spec, &layout, why, sizeof(why));

    if (error)
        fail_msg("refused (%d): %s", error, why);
    return layout;
}

static uint64_t get(const struct ob_pci_layout *layout, const uint8_t *config, unsigned off, unsigned len)
{
    uint64_t value = 0;

    assert_int_equal(ob_pci_config_read(layout, config, &quiet, off, len, &value), 0);
    return value;
}

static struct ob_pci_change put(const struct ob_pci_layout *layout, uint8_t *config, unsigned off, unsigned len,
                                uint64_t value)
{
    struct ob_pci_change change;

    assert_int_equal(ob_pci_config_write(layout, config, off, len, &value, &change), 0);
    return change;
}

/* One declaration that has to be refused. */
static void refused(const struct ob_pci_spec *spec, int error, const char *word)
{
    struct ob_pci_layout *layout = NULL;
    char why[256] = "", tiny[4] = "xyz";

    assert_int_equal(ob_pci_layout_new(spec, &layout, why, sizeof(why)), error);
    assert_null(layout);
    if (!strstr(why, word))
        fail_msg("'%s' does not name '%s'", why, word);
    assert_int_equal(ob_pci_layout_new(spec, &layout, tiny, sizeof(tiny)), error);
    assert_int_equal(tiny[3], 0);
    assert_int_equal(ob_pci_layout_new(spec, &layout, NULL, 0), error);
}

#define REFUSED(error, word, ...)           \
    do {                                    \
        struct ob_pci_spec s = full_spec(); \
        __VA_ARGS__;                        \
        refused(&s, error, word);           \
    } while (0)

static void bad_identity_and_bars(void **state)
{
    (void)state;
    REFUSED(-EINVAL, "vendor", s.vendor = 0xffff);
    REFUSED(-EINVAL, "class code", s.class_code = 0x1000000);
    REFUSED(-EINVAL, "pin 5", s.pin = 5);
    REFUSED(-EINVAL, "extended", s.express = false);
    REFUSED(-EINVAL, "BAR 3: size 0x18 is no power of two; use 0x20", s.bars[3].size = 0x18);
    REFUSED(-EINVAL, "BAR 3", s.bars[3].size = 8);
    REFUSED(-EINVAL, "BAR 2", s.bars[2].size = 2);
    REFUSED(-EINVAL, "BAR 2", s.bars[2].size = 512);
    REFUSED(-EINVAL, "BAR 2", s.bars[2].mem64 = true);
    REFUSED(-EINVAL, "BAR 2", s.bars[2].prefetch = true);
    REFUSED(-EINVAL, "BAR 3", s.bars[3].size = 1ull << 32);
    REFUSED(-EINVAL, "BAR 1 is the upper half", s.bars[1].size = 16);
    REFUSED(-EINVAL, "BAR 5", s.bars[5] = (struct ob_pci_bar_spec){ .size = 16, .mem64 = true });
    REFUSED(-EINVAL, "power management", s.pm = 3);
}

static void bad_interrupts(void **state)
{
    (void)state;
    REFUSED(-EINVAL, "MSI", s.msi_vectors = 3);
    REFUSED(-EINVAL, "MSI", s.msi_vectors = 64);
    REFUSED(-EINVAL, "2049 MSI-X", s.msix_vectors = 2049);
    REFUSED(-EINVAL, "table: BAR 6", s.msix_table_bar = 6);
    REFUSED(-EINVAL, "table: BAR 2", s.msix_table_bar = 2);
    REFUSED(-EINVAL, "table: BAR 1", s.msix_table_bar = 1);
    REFUSED(-EINVAL, "pending bits: BAR 4", s.msix_pba_bar = 4);
    REFUSED(-EINVAL, "multiple of 8", s.msix_table = 0x1004);
    REFUSED(-EINVAL, "multiple of 8", s.msix_pba = 0x8001);
    REFUSED(-EINVAL, "table: 0x410 bytes", s.msix_table = 0x10000 - 0x408);
    REFUSED(-EINVAL, "pending bits: 0x10 bytes", s.msix_pba = 0x10000 - 8);
    REFUSED(-EINVAL, "pending bits", s.msix_pba = 0xfffffff8);
    REFUSED(-EINVAL, "overlap", s.msix_pba = 0x1408);
    REFUSED(-EINVAL, "overlap", s.msix_pba = 0xff8);
}

static void bad_capabilities(void **state)
{
    static const uint8_t bytes[4096] = { 0 }, ones[4096] = { [0 ... 4095] = 0xff };
    uint8_t own[4096] = { PCI_CAP_ID_VNDR, 0, 8 };
    struct ob_pci_cap_spec cap = { own, NULL, 8 };

    (void)state;
    REFUSED(-EINVAL, "no. 0", s.caps = &cap; cap.size = 1);
    cap.size = 8;
    REFUSED(-EINVAL, "no. 0", s.caps = &cap; cap.bytes = NULL);
    cap.bytes = bytes;
    REFUSED(-EINVAL, "id 0x00", s.caps = &cap);
    cap.bytes = ones;
    REFUSED(-EINVAL, "id 0xff", s.caps = &cap);
    cap.bytes = own;
    cap.mask = ones;
    REFUSED(-EINVAL, "first 3 bytes", s.caps = &cap);
    cap.mask = NULL;
    cap.size = 9;
    REFUSED(-EINVAL, "its size, 9", s.caps = &cap);
    for (unsigned i = 0; i < 4; i++) {
        own[0] = (uint8_t[]){ PCI_CAP_ID_PM, PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX, PCI_CAP_ID_EXP }[i];
        REFUSED(-EINVAL, "made by the library", s.caps = &cap);
    }
    own[0] = PCI_CAP_ID_VNDR;
    own[2] = 200;
    cap.size = 200;
    REFUSED(-ENOSPC, "0x09: 200 bytes", s.caps = &cap);

    cap = (struct ob_pci_cap_spec){ own, NULL, 3 };
    REFUSED(-EINVAL, "extended capability no. 1", s.ext_caps = (struct ob_pci_cap_spec[]){ ext_caps[0], cap });
    cap = (struct ob_pci_cap_spec){ own, NULL, 16 };
    own[0] = PCI_EXT_CAP_ID_VNDR;
    REFUSED(-EINVAL, "its size, 16", s.ext_caps = (struct ob_pci_cap_spec[]){ ext_caps[0], cap });
    own[0] = 0;
    REFUSED(-EINVAL, "id 0x0000", s.ext_caps = (struct ob_pci_cap_spec[]){ ext_caps[0], cap });
    own[0] = PCI_EXT_CAP_ID_DSN;
    cap.mask = ones;
    REFUSED(-EINVAL, "mask", s.ext_caps = (struct ob_pci_cap_spec[]){ ext_caps[0], cap });
    cap = (struct ob_pci_cap_spec){ own, NULL, 3832 };
    REFUSED(-ENOSPC, "only 3828", s.ext_caps = (struct ob_pci_cap_spec[]){ ext_caps[0], cap });
    REFUSED(-EINVAL, "no extended space", s.extended = false);
}

static void header_and_chains(void **state)
{
    static const uint8_t expected[] = { PCI_CAP_ID_PM, PCI_CAP_ID_MSI, PCI_CAP_ID_MSIX, PCI_CAP_ID_EXP,
                                        PCI_CAP_ID_VNDR };
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    uint8_t config[4096];
    unsigned at;

    (void)state;
    ob_pci_config_reset(layout, config);
    assert_int_equal(layout->size, 4096);
    assert_int_equal(get(layout, config, PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(get(layout, config, PCI_CLASS_REVISION, 4), 0x01080242);
    assert_int_equal(get(layout, config, PCI_SUBSYSTEM_VENDOR_ID, 4), 0xdef09abc);
    assert_int_equal(get(layout, config, PCI_HEADER_TYPE, 1), PCI_HEADER_TYPE_NORMAL);
    assert_int_equal(get(layout, config, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(get(layout, config, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
    assert_int_equal(get(layout, config, PCI_BASE_ADDRESS_0, 8),
                     PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
    assert_int_equal(get(layout, config, PCI_BASE_ADDRESS_2, 4), PCI_BASE_ADDRESS_SPACE_IO);

    at = (unsigned)get(layout, config, PCI_CAPABILITY_LIST, 1);
    for (unsigned i = 0; i < sizeof(expected); i++, at = (unsigned)get(layout, config, at + 1, 1)) {
        assert_true(at >= 0x40 && at % 4 == 0);
        assert_int_equal(get(layout, config, at, 1), expected[i]);
        if (i == 4)
            assert_int_equal(get(layout, config, at + 2, 5), 0x4433221107);
    }
    assert_int_equal(at, 0);
    assert_int_equal(get(layout, config, 0x100, 4), 0x10c10003); /* serial number, version 1, next at 0x10c */
    assert_int_equal(get(layout, config, 0x104, 8), 0x0807060504030201);
    assert_int_equal(get(layout, config, 0x10c, 4), 0x0001000b);
    assert_int_equal(get(layout, config, 0x110, 8), 0xddccbbaa00c11234);
    assert_int_equal(get(layout, config, layout->msix + PCI_MSIX_FLAGS, 2), 64);
    assert_int_equal(get(layout, config, layout->msix + PCI_MSIX_TABLE, 8), 0x0000800300001003);
    assert_int_equal(layout->msix_table_size, 65 * 16);
    assert_int_equal(layout->msix_pba_size, 16);
    ob_pci_layout_free(layout);

    spec = (struct ob_pci_spec){ .vendor = 1 };
    layout = build(&spec);
    ob_pci_config_reset(layout, config);
    assert_int_equal(layout->size, 256);
    assert_int_equal(get(layout, config, PCI_STATUS, 2), 0);
    assert_int_equal(get(layout, config, PCI_CAPABILITY_LIST, 1), 0);
    ob_pci_layout_free(layout);
}

static void bounds(void **state)
{
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    uint8_t config[4096], before[4096], data[8192];
    struct ob_pci_change change;
    static const struct {
        uint64_t off;
        size_t len;
    } bad[] = { { 4096, 1 },       { 4095, 2 },           { 0, 4097 },    { 4097, 0 },
                { UINT64_MAX, 1 }, { UINT64_MAX - 3, 8 }, { 8, SIZE_MAX } };

    (void)state;
    memset(data, 0xff, sizeof(data));
    ob_pci_config_reset(layout, config);
    memcpy(before, config, sizeof(config));
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ob_pci_config_read(layout, config, &quiet, bad[i].off, bad[i].len, data), -EINVAL);
        assert_int_equal(ob_pci_config_write(layout, config, bad[i].off, bad[i].len, data, &change), -EINVAL);
        assert_int_equal(change.what, 0);
    }
    assert_memory_equal(config, before, sizeof(config));
    assert_int_equal(ob_pci_config_read(layout, config, &quiet, 4096, 0, data), 0);
    assert_int_equal(ob_pci_config_write(layout, config, 4096, 0, data, &change), 0);
    ob_pci_layout_free(layout);
}

/* Sizes one BAR by writes of `width` bytes: all ones, then what reads back says type and size. */
static void size_bar(const struct ob_pci_bar_spec *bar, unsigned slot, unsigned width)
{
    struct ob_pci_spec spec = { .vendor = 1 };
    unsigned bytes = bar->mem64 ? 8 : 4, at = PCI_BASE_ADDRESS_0 + 4 * slot;
    uint64_t type = bar->io ? 1 : (bar->mem64 ? 4 : 0) | (bar->prefetch ? 8 : 0), ones = 0;
    uint64_t mask = bar->io ? ~3ull : ~15ull;
    struct ob_pci_layout *layout;
    uint8_t config[256];

    spec.bars[slot] = *bar;
    layout = build(&spec);
    ob_pci_config_reset(layout, config);
    assert_int_equal(get(layout, config, at, bytes), type);
    for (unsigned i = 0; i < bytes; i += width) {
        struct ob_pci_change change = put(layout, config, at + i, width, UINT64_MAX);

        assert_int_equal(change.what & ~(uint32_t)OB_PCI_BAR, width > bytes ? change.what & OB_PCI_OTHER : 0);
    }
    ones = get(layout, config, at, bytes);
    assert_int_equal(ones & ~mask, type);
    if (bytes == 4)
        ones |= 0xffffffff00000000;
    assert_int_equal(~(ones & mask) + 1, bar->size);
    /* The next BAR is not there, and stays 0 whatever was written. */
    if (at + bytes < PCI_BASE_ADDRESS_5 + 4)
        assert_int_equal(get(layout, config, at + bytes, 4), 0);
    ob_pci_layout_free(layout);
}

static void bar_sizing(void **state)
{
    static const struct ob_pci_bar_spec kinds[] = {
        { .size = 4, .io = true },
        { .size = 256, .io = true },
        { .size = 16 },
        { .size = 4096, .prefetch = true },
        { .size = 1ull << 31 },
        { .size = 16, .mem64 = true },
        { .size = 1ull << 31, .mem64 = true },
        { .size = 1ull << 32, .mem64 = true, .prefetch = true },
        { .size = 1ull << 40, .mem64 = true, .prefetch = true },
        { .size = 1ull << 63, .mem64 = true },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        for (unsigned slot = 0; slot < (kinds[i].mem64 ? 5 : 6); slot++)
            for (unsigned width = 1; width <= 8; width *= 2)
                size_bar(&kinds[i], slot, width);
}

static void command_and_status(void **state)
{
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    struct ob_pci_live live = { .intx = true };
    uint8_t config[4096];
    uint16_t status;

    (void)state;
    ob_pci_config_reset(layout, config);
    assert_int_equal(put(layout, config, PCI_COMMAND + 1, 1, 0xff).what, OB_PCI_COMMAND);
    assert_int_equal(get(layout, config, PCI_COMMAND, 2), PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_SERR);
    assert_true(ob_pci_intx_disabled(config));
    assert_false(ob_pci_bus_master(layout, config));
    assert_int_equal(put(layout, config, PCI_COMMAND, 1, 0xff).what, OB_PCI_COMMAND);
    assert_int_equal(put(layout, config, PCI_COMMAND, 1, 0xff).what, 0);
    assert_int_equal(get(layout, config, PCI_COMMAND, 2), 0x547);
    assert_true(ob_pci_bus_master(layout, config));

    /* Interrupt Status comes from the interrupts; the error bits are cleared by ones; the rest cannot be written. */
    assert_int_equal(ob_pci_config_read(layout, config, &live, PCI_STATUS, 2, &status), 0);
    assert_int_equal(status, PCI_STATUS_CAP_LIST | PCI_STATUS_INTERRUPT);
    config[PCI_STATUS + 1] |= 0xf9;
    put(layout, config, PCI_COMMAND, 4, 0x0000ffff);
    assert_int_equal(get(layout, config, PCI_STATUS, 2), 0xf910);
    put(layout, config, PCI_STATUS + 1, 1, 0x81);
    assert_int_equal(get(layout, config, PCI_STATUS, 2), 0x7810);
    put(layout, config, PCI_COMMAND, 4, 0xffffffff);
    assert_int_equal(get(layout, config, PCI_STATUS, 2), 0x0010);

    put(layout, config, PCI_VENDOR_ID, 4, 0);
    put(layout, config, PCI_ROM_ADDRESS, 4, 0xffffffff);
    put(layout, config, PCI_CACHE_LINE_SIZE, 4, 0xffffffff);
    put(layout, config, PCI_INTERRUPT_LINE, 4, 0xffffffff);
    assert_int_equal(get(layout, config, PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(get(layout, config, PCI_ROM_ADDRESS, 4), 0);
    assert_int_equal(get(layout, config, PCI_CACHE_LINE_SIZE, 4), 0x000000ff);
    assert_int_equal(get(layout, config, PCI_INTERRUPT_LINE, 4), 0x000001ff);
    ob_pci_layout_free(layout);
}

static void power(void **state)
{
    (void)state;
    for (unsigned pm = OB_PCI_PM_KEEP; pm <= OB_PCI_PM_RESET; pm++) {
        struct ob_pci_spec spec = full_spec();
        struct ob_pci_layout *layout;
        uint8_t config[4096];
        unsigned at;

        spec.pm = pm;
        layout = build(&spec);
        at = layout->pm + PCI_PM_CTRL;
        ob_pci_config_reset(layout, config);
        put(layout, config, PCI_COMMAND, 2, 7);
        assert_int_equal(get(layout, config, at, 2), pm == OB_PCI_PM_KEEP ? PCI_PM_CTRL_NO_SOFT_RESET : 0);
        for (unsigned d = 1; d <= 2; d++) { /* not supported: dropped */
            assert_int_equal(put(layout, config, at, 2, d).what, 0);
            assert_false(ob_pci_in_d3(layout, config));
        }
        assert_int_equal(put(layout, config, at, 1, 3).what, OB_PCI_POWER);
        assert_true(ob_pci_in_d3(layout, config));
        assert_false(ob_pci_bus_master(layout, config));
        assert_int_equal(put(layout, config, at, 2, 2).what, 0);
        assert_true(ob_pci_in_d3(layout, config));
        assert_int_equal(put(layout, config, at, 4, 0).what,
                         OB_PCI_POWER | (pm == OB_PCI_PM_RESET ? OB_PCI_RESET_POWER : 0));
        assert_false(ob_pci_in_d3(layout, config));
        assert_true(ob_pci_bus_master(layout, config));
        ob_pci_layout_free(layout);
    }
}

static void function_reset(void **state)
{
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    unsigned control = layout->express + PCI_EXP_DEVCTL, link = layout->express + PCI_EXP_LNKCTL;
    uint8_t config[4096];

    (void)state;
    ob_pci_config_reset(layout, config);
    put(layout, config, PCI_COMMAND, 2, 7);
    put(layout, config, link, 2, 0xffff);
    assert_int_equal(get(layout, config, link, 2), 0x00cb);
    assert_int_equal(get(layout, config, control, 2), 0x2810);
    assert_int_equal(put(layout, config, control, 2, 0xa810).what, OB_PCI_RESET_FLR);
    assert_int_equal(put(layout, config, control + 1, 1, 0x80).what, OB_PCI_RESET_FLR | OB_PCI_OTHER);
    assert_int_equal(get(layout, config, control, 2), 0x0010);
    assert_int_equal(put(layout, config, control, 1, 0x80).what, OB_PCI_OTHER); /* the low byte has no such bit */
    ob_pci_config_reset_function(layout, config);
    assert_int_equal(get(layout, config, PCI_COMMAND, 2), 0);
    assert_int_equal(get(layout, config, control, 2), 0x2810);
    assert_int_equal(get(layout, config, link, 2), 0x00cb);
    ob_pci_config_reset(layout, config);
    assert_int_equal(get(layout, config, link, 2), 0);
    ob_pci_layout_free(layout);
}

static void msi_and_msix(void **state)
{
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    struct ob_pci_live live = { .msi_pending = 0xa5 };
    uint8_t config[4096];
    uint64_t pending = 0;

    (void)state;
    ob_pci_config_reset(layout, config);
    assert_int_equal(get(layout, config, layout->msi + PCI_MSI_FLAGS, 2), 0x0186); /* 64-bit, masks, asks for 8 */
    assert_int_equal(ob_pci_msi_enabled(layout, config), 0);
    for (unsigned log = 0; log < 8; log++) {
        put(layout, config, layout->msi + PCI_MSI_FLAGS, 2, 1 | log << 4);
        assert_int_equal(ob_pci_msi_enabled(layout, config), log < 3 ? 1 << log : 8);
    }
    assert_int_equal(put(layout, config, layout->msi + PCI_MSI_MASK_64, 8, UINT64_MAX).what, OB_PCI_MSI);
    assert_int_equal(ob_pci_msi_masks(layout, config), 0xff);
    assert_int_equal(get(layout, config, layout->msi + PCI_MSI_PENDING_64, 4), 0);
    assert_int_equal(ob_pci_config_read(layout, config, &live, layout->msi + PCI_MSI_PENDING_64 - 1, 4, &pending), 0);
    assert_int_equal(pending, 0xa500);
    put(layout, config, layout->msi + PCI_MSI_ADDRESS_LO, 8, UINT64_MAX);
    assert_int_equal(get(layout, config, layout->msi + PCI_MSI_ADDRESS_LO, 8), 0xfffffffffffffffc);
    assert_false(ob_pci_msix_enabled(layout, config));
    assert_int_equal(put(layout, config, layout->msix + PCI_MSIX_FLAGS + 1, 1, 0xff).what, OB_PCI_MSIX);
    assert_true(ob_pci_msix_enabled(layout, config) && ob_pci_msix_masked(layout, config));
    assert_int_equal(get(layout, config, layout->msix + PCI_MSIX_FLAGS, 2), 0xc040);
    assert_int_equal(put(layout, config, layout->msix + PCI_MSIX_FLAGS, 2, 0x8000).what, OB_PCI_MSIX);
    assert_true(ob_pci_msix_enabled(layout, config) && !ob_pci_msix_masked(layout, config));
    ob_pci_layout_free(layout);
}

/* One write over several capabilities does to each what a write of its own would. */
static void crossing_writes(void **state)
{
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    uint8_t config[4096], bytes[24] = { 0 };
    struct ob_pci_change change;

    (void)state;
    ob_pci_config_reset(layout, config);
    /* From the power state, past the end of its capability, into MSI up to the low address. */
    bytes[0] = 3;
    bytes[layout->msi + PCI_MSI_FLAGS - (layout->pm + PCI_PM_CTRL)] = 1;
    memset(&bytes[layout->msi + PCI_MSI_ADDRESS_LO - (layout->pm + PCI_PM_CTRL)], 0xff, 4);
    assert_int_equal(layout->msi, layout->pm + 8);
    assert_int_equal(ob_pci_config_write(layout, config, layout->pm + PCI_PM_CTRL, 12, bytes, &change), 0);
    assert_int_equal(change.what, OB_PCI_POWER | OB_PCI_MSI);
    assert_true(ob_pci_in_d3(layout, config));
    assert_int_equal(ob_pci_msi_enabled(layout, config), 1);
    assert_int_equal(get(layout, config, layout->msi + PCI_MSI_ADDRESS_LO, 8), 0xfffffffc);
    assert_int_equal(get(layout, config, layout->msi, 1), PCI_CAP_ID_MSI);

    ob_pci_config_reset(layout, config);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(ob_pci_config_write(layout, config, PCI_BASE_ADDRESS_1 + 1, 9, bytes, &change), 0);
    assert_int_equal(change.what, OB_PCI_BAR);
    assert_int_equal(change.bars, 0x06); /* of BAR 3 only bytes below its size were written */
    assert_int_equal(get(layout, config, PCI_BASE_ADDRESS_0, 8), 0xffffff000000000c);
    assert_int_equal(get(layout, config, PCI_BASE_ADDRESS_2, 8), 0x00000000ffffffc1);
    put(layout, config, PCI_BASE_ADDRESS_3 + 2, 1, 0xab);
    assert_int_equal(get(layout, config, PCI_BASE_ADDRESS_3, 4) & PCI_BASE_ADDRESS_MEM_MASK, 0xab0000);
    ob_pci_layout_free(layout);
}

static uint64_t random_state;

static uint32_t next_random(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* The model: one bit. */
static int model_bit(const struct ob_pci_layout *layout, unsigned bit, int old, int written)
{
    if (layout->write[bit / 8] >> bit % 8 & 1)
        return written;
    if (layout->w1c[bit / 8] >> bit % 8 & 1)
        return old && !written;
    return old;
}

static void random_writes(void **state)
{
    struct ob_pci_spec spec = full_spec();
    struct ob_pci_layout *layout = build(&spec);
    uint8_t config[4096], model[4096], data[64];

    (void)state;
    random_state = 0x6f62;
    ob_pci_config_reset(layout, config);
    for (unsigned i = 0; i < 4096; i++) {
        assert_int_equal(layout->write[i] & layout->w1c[i], 0);
        config[i] |= layout->w1c[i];
    }
    memcpy(model, config, sizeof(model));
    for (unsigned round = 0; round < 20000; round++) {
        unsigned off = next_random() % (round % 4 ? 0x120 : 4096), len = next_random() % sizeof(data);
        struct ob_pci_change change;
        bool flr = false, changed = false;

        if (off + len > 4096)
            len = 4096 - off;
        for (unsigned i = 0; i < len; i++) {
            uint8_t old = model[off + i];

            data[i] = (uint8_t)next_random();
            for (unsigned bit = 0; bit < 8; bit++) {
                int value = model_bit(layout, (off + i) * 8 + bit, old >> bit & 1, data[i] >> bit & 1);

                model[off + i] = (uint8_t)((model[off + i] & ~(1 << bit)) | value << bit);
            }
            if (off + i - layout->pm == PCI_PM_CTRL && (model[off + i] & 3) % 3)
                model[off + i] = old;
            flr |= off + i == layout->express + PCI_EXP_DEVCTL + 1u && data[i] & 0x80;
            changed |= model[off + i] != old;
        }
        assert_int_equal(ob_pci_config_write(layout, config, off, len, data, &change), 0);
        if (memcmp(config, model, sizeof(model)))
            fail_msg("seed 0x6f62, round %u: a write of %u bytes at 0x%x", round, len, off);
        assert_int_equal(!!(change.what & OB_PCI_RESET_FLR), flr);
        assert_int_equal(!!(change.what & ~(uint32_t)OB_PCI_RESET_FLR), changed);
    }
    ob_pci_layout_free(layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_identity_and_bars), cmocka_unit_test(bad_interrupts),  cmocka_unit_test(bad_capabilities),
        cmocka_unit_test(header_and_chains),     cmocka_unit_test(bounds),          cmocka_unit_test(bar_sizing),
        cmocka_unit_test(command_and_status),    cmocka_unit_test(power),           cmocka_unit_test(function_reset),
        cmocka_unit_test(msi_and_msix),          cmocka_unit_test(crossing_writes), cmocka_unit_test(random_writes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
