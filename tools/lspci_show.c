/* tools/lspci_show.c: prints the header of a function's configuration space as lspci(8) does. Clauses are those of PCI
 * Local Bus 3.0. */
#include "lspci.h"

#include <inttypes.h>
#include <stdio.h>

#define TEXT_SIZE 256

void print_bits(uint32_t value, const struct bit *bits, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%s%s%c", i > 0 ? " " : "", bits[i].name, flag(value, bits[i].mask));
}

static void show_name(const struct function *f)
{
    uint16_t class_id = reg16(f, PCI_CLASS_DEVICE);
    uint8_t interface = reg8(f, PCI_CLASS_PROG);
    char class_name[TEXT_SIZE], device[TEXT_SIZE], text[TEXT_SIZE];
    const char *name;

    printf("00:00.0 %s: %s", names_class(f->names, class_id, class_name, TEXT_SIZE),
           names_device(f->names, reg16(f, PCI_VENDOR_ID), reg16(f, PCI_DEVICE_ID), device, TEXT_SIZE));
    if (reg8(f, PCI_REVISION_ID) != 0)
        printf(" (rev %02x)", reg8(f, PCI_REVISION_ID));
    name = f->verbose > 0 ? names_interface(f->names, class_id, interface, text, TEXT_SIZE) : NULL;
    if (f->verbose > 0 && (interface != 0 || name != NULL))
        printf(" (prog-if %02x%s%s%s)", interface, name != NULL ? " [" : "", name != NULL ? name : "",
               name != NULL ? "]" : "");
    putchar('\n');
}

static void show_subsystem(const struct function *f)
{
    uint16_t vendor = reg16(f, PCI_SUBSYSTEM_VENDOR_ID);
    char text[TEXT_SIZE];

    if (vendor != 0 && vendor != 0xffff)
        printf("\tSubsystem: %s\n", names_subsystem(f->names, reg16(f, PCI_VENDOR_ID), reg16(f, PCI_DEVICE_ID), vendor,
                                                    reg16(f, PCI_SUBSYSTEM_ID), text, TEXT_SIZE));
}

static const char *devsel(uint16_t status)
{
    static const char *const names[] = { "fast", "medium", "slow", "??" };

    return names[(status & PCI_STATUS_DEVSEL_MASK) >> 9];
}

static void show_flags(const struct function *f)
{
    uint16_t command = reg16(f, PCI_COMMAND), status = reg16(f, PCI_STATUS);

    printf("\tFlags: %s%s%s%s%s%s%s devsel", command & PCI_COMMAND_MASTER ? "bus master, " : "",
           command & PCI_COMMAND_VGA_PALETTE ? "VGA palette snoop, " : "",
           command & PCI_COMMAND_WAIT ? "stepping, " : "", command & PCI_COMMAND_FAST_BACK ? "fast Back2Back, " : "",
           status & PCI_STATUS_66MHZ ? "66MHz, " : "", status & PCI_STATUS_UDF ? "user-definable features, " : "",
           devsel(status));
    if (command & PCI_COMMAND_MASTER)
        printf(", latency %d", reg8(f, PCI_LATENCY_TIMER));
    if (reg8(f, PCI_INTERRUPT_LINE) != 0)
        printf(", IRQ %d", reg8(f, PCI_INTERRUPT_LINE));
    putchar('\n');
}

static void show_registers(const struct function *f)
{
    uint16_t command = reg16(f, PCI_COMMAND), status = reg16(f, PCI_STATUS);

    printf("\tControl: ");
    PRINT_BITS(command, { PCI_COMMAND_IO, "I/O" }, { PCI_COMMAND_MEMORY, "Mem" }, { PCI_COMMAND_MASTER, "BusMaster" },
               { PCI_COMMAND_SPECIAL, "SpecCycle" }, { PCI_COMMAND_INVALIDATE, "MemWINV" },
               { PCI_COMMAND_VGA_PALETTE, "VGASnoop" }, { PCI_COMMAND_PARITY, "ParErr" },
               { PCI_COMMAND_WAIT, "Stepping" }, { PCI_COMMAND_SERR, "SERR" }, { PCI_COMMAND_FAST_BACK, "FastB2B" },
               { PCI_COMMAND_INTX_DISABLE, "DisINTx" });
    printf("\n\tStatus: ");
    PRINT_BITS(status, { PCI_STATUS_CAP_LIST, "Cap" }, { PCI_STATUS_66MHZ, "66MHz" }, { PCI_STATUS_UDF, "UDF" },
               { PCI_STATUS_FAST_BACK, "FastB2B" }, { PCI_STATUS_PARITY, "ParErr" });
    printf(" DEVSEL=%s ", devsel(status));
    PRINT_BITS(status, { PCI_STATUS_SIG_TARGET_ABORT, ">TAbort" }, { PCI_STATUS_REC_TARGET_ABORT, "<TAbort" },
               { PCI_STATUS_REC_MASTER_ABORT, "<MAbort" }, { PCI_STATUS_SIG_SYSTEM_ERROR, ">SERR" },
               { PCI_STATUS_DETECTED_PARITY, "<PERR" }, { PCI_STATUS_INTERRUPT, "INTx" });
    putchar('\n');
}

/* 6.2.4: in units of 250 ns, and of 4 bytes. */
static void show_latency(const struct function *f)
{
    unsigned least = reg8(f, PCI_MIN_GNT) * 250u, most = reg8(f, PCI_MAX_LAT) * 250u;

    if (!(reg16(f, PCI_COMMAND) & PCI_COMMAND_MASTER))
        return;
    printf("\tLatency: %d", reg8(f, PCI_LATENCY_TIMER));
    if (least != 0)
        printf(" (%uns min", least);
    if (most != 0)
        printf("%s%uns max", least != 0 ? ", " : " (", most);
    if (least != 0 || most != 0)
        putchar(')');
    if (reg8(f, PCI_CACHE_LINE_SIZE) != 0)
        printf(", Cache Line Size: %d bytes", reg8(f, PCI_CACHE_LINE_SIZE) * 4);
    putchar('\n');
}

static void show_interrupt(const struct function *f)
{
    uint8_t pin = reg8(f, PCI_INTERRUPT_PIN), line = reg8(f, PCI_INTERRUPT_LINE);

    if (pin != 0 || line != 0)
        printf("\tInterrupt: pin %c routed to IRQ %d\n", pin >= 1 && pin <= 4 ? 'A' + pin - 1 : '?', line);
}

static void show_bist(const struct function *f)
{
    uint8_t bist = reg8(f, PCI_BIST);

    if (bist & PCI_BIST_CAPABLE && bist & PCI_BIST_START)
        printf("\tBIST is running\n");
    else if (bist & PCI_BIST_CAPABLE)
        printf("\tBIST result: %02x\n", bist & PCI_BIST_CODE_MASK);
}

static void show_size(uint64_t size)
{
    static const char *const units[] = { "", "K", "M", "G", "T" };
    unsigned unit = 0;

    for (; unit + 1 < sizeof(units) / sizeof(units[0]) && size % 1024 == 0 && size != 0; unit++)
        size /= 1024;
    if (size != 0)
        printf(" [size=%" PRIu64 "%s]", size, units[unit]);
}

static void show_memory(const struct function *f, unsigned i, uint32_t low)
{
    static const char *const widths[] = { "32-bit", "low-1M", "64-bit", "type 3" };
    unsigned type = (low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) >> 1;
    bool decoded = reg16(f, PCI_COMMAND) & PCI_COMMAND_MEMORY;
    uint64_t address = low & ~UINT32_C(0xf);

    printf("Memory at ");
    if (type == 2 && i == 5) {
        printf("<invalid-64bit-slot>");
    } else {
        if (type == 2)
            address |= (uint64_t)reg32(f, PCI_BASE_ADDRESS_0 + 4 * (i + 1)) << 32;
        if (address != 0)
            printf("%08" PRIx64, address);
        else
            printf("<unassigned>");
    }
    printf(" (%s, %sprefetchable)%s", widths[type], low & PCI_BASE_ADDRESS_MEM_PREFETCH ? "" : "non-",
           decoded ? "" : " [disabled]");
}

static void show_bars(const struct function *f)
{
    for (unsigned i = 0; i < 6; i++) {
        uint32_t low = reg32(f, PCI_BASE_ADDRESS_0 + 4 * i);
        bool io = low & PCI_BASE_ADDRESS_SPACE_IO, decoded = reg16(f, PCI_COMMAND) & PCI_COMMAND_IO;

        if (low == 0xffffffff)
            low = 0;
        if (low == 0 && f->bar_sizes[i] == 0)
            continue;
        putchar('\t');
        if (f->verbose > 1)
            printf("Region %u: ", i);
        if (io) {
            if (low > 3 || decoded) /* port 0 is one; memory at 0 is nowhere to lspci */
                printf("I/O ports at %04x%s", low & ~UINT32_C(3), decoded ? "" : " [disabled]");
            else
                printf("I/O ports at <unassigned> [disabled]");
        } else {
            show_memory(f, i, low);
        }
        show_size(f->bar_sizes[i]);
        putchar('\n');
        if (!io && (low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
            i++; /* the upper half */
    }
}

static void show_rom(const struct function *f)
{
    uint32_t rom = reg32(f, PCI_ROM_ADDRESS);

    if (rom == 0 && f->rom_size == 0)
        return;
    printf("\tExpansion ROM at ");
    if (rom & PCI_ROM_ADDRESS_MASK)
        printf("%08x", rom & (uint32_t)PCI_ROM_ADDRESS_MASK);
    else
        printf("<unassigned>");
    if (!(rom & PCI_ROM_ADDRESS_ENABLE))
        printf(" [disabled]");
    else if (!(reg16(f, PCI_COMMAND) & PCI_COMMAND_MEMORY))
        printf(" [disabled by cmd]");
    show_size(f->rom_size);
    putchar('\n');
}

void show_function(const struct function *f)
{
    unsigned type = reg8(f, PCI_HEADER_TYPE) & PCI_HEADER_TYPE_MASK;

    show_name(f);
    if (f->verbose == 0)
        return;
    if (type != PCI_HEADER_TYPE_NORMAL) {
        printf("\t!!! Unknown header type %02x\n", type);
        return;
    }
    show_subsystem(f);
    if (f->verbose > 1) {
        show_registers(f);
        show_latency(f);
        show_interrupt(f);
    } else {
        show_flags(f);
    }
    show_bist(f);
    show_bars(f);
    show_rom(f);
    show_capabilities(f);
}
