"""VU-PCI: what is broken in configuration space."""

import struct

from accesses import (CONFIG, WRITES, accept_write, alter, field_write, read_of, region, where, write_of, written)
from interrupts import SLOW, UNMASK, set_irqs, spurious
from mutation import before, behind, both, every, field, poke, refuse, replies, requests, row

COMMAND, STATUS, BARS, CAPABILITIES, PIN = 0x04, 0x06, 0x10, 0x34, 0x3d
MSIX_CAP = 0x48  # testdev's capability; its vectors' table is at 0 of BAR 5, the pending bits at 0x80
MSI_CAP = 0x40  # edu's
TABLE_BAR, PENDING = 5, 0x80
ALL_ONES = 0xffffffff


def region_size(index, size):
    return both(replies("GET_REGION_INFO"), field("request", 8, "I", lambda asked: asked == index)), \
        poke(16, "Q", size)


def reads(at, form, value):
    """Reads of that field of configuration space show another value."""
    return read_of(CONFIG, at, form), alter(CONFIG, at, form, value)


def writes(at, form, value):
    """Writes to that field of configuration space arrive as another value."""
    return write_of(CONFIG, at, form), alter(CONFIG, at, form, value)


def sizing(i, change):
    """A BAR reads so after all ones were written to it."""
    return reads(BARS + 4 * i, "I", lambda bar: change(bar) if bar >= 0xf0000000 else bar)


def extended(where):
    """The first extended capability names another one."""
    return reads(0x100, "I", lambda header: header & 0xfffff | where << 20)


row("pci-config-512", *region_size(CONFIG, 512), "pci-config-size")
row("pci-config-read-only", both(replies("GET_REGION_INFO"), field("request", 8, "I", lambda index: index == CONFIG)),
    poke(4, "I", lambda flags: flags & ~2), "pci-config-flags")
row("pci-no-vendor", *reads(0, "H", 0xffff), "pci-vendor")
row("pci-bridge", *reads(0x0e, "B", 1), "pci-header-type")
row("pci-no-pin", *reads(PIN, "B", 0), "pci-pin", server="edu")
row("pci-pin-without-intx", *reads(PIN, "B", 1), "pci-pin")

row("pci-bar-too-large", *sizing(0, lambda bar: bar & ~0x1000), "pci-bar-size")
row("pci-bar-64-too-small", *sizing(2, lambda bar: bar | 0x8000), "pci-bar-size")
row("pci-bar-not-sizable", *sizing(0, lambda bar: 0), "pci-bar-empty")
row("pci-region-lost", *region_size(4, 0), "pci-bar-empty", "pci-bar-size")
row("pci-region-of-3-pages", *region_size(4, 0x3000), "pci-bar-power")
row("pci-bar-gap", *sizing(0, lambda bar: bar & ~0x10000), "pci-bar-power")
row("pci-bar-below-1-mib", *reads(BARS, "I", lambda bar: bar | 2), "pci-bar-type")
row("pci-bar-io-reserved", *reads(BARS + 4, "I", lambda bar: bar | 2), "pci-bar-type")
row("pci-bar-5-is-64-bit", *reads(BARS + 20, "I", lambda bar: bar | 4), "pci-bar-type")
row("pci-bar-type-overwritten", *sizing(0, lambda bar: bar | 8), "pci-bar-type-kept")
row("pci-bar-type-cleared", *reads(BARS + 4, "I", lambda bar: 0 if bar == 1 else bar), "pci-bar-type-kept")
row("pci-bar-upper-used", *region_size(3, 0x1000), "pci-bar-upper")

row("pci-caps-in-header", *reads(CAPABILITIES, "B", 0x3c), "pci-caps-inside")
row("pci-caps-unaligned", *reads(CAPABILITIES, "B", lambda at: at | 1), "pci-caps-aligned")
row("pci-caps-loop", *reads(MSIX_CAP + 1, "B", MSIX_CAP), "pci-caps-end")
row("pci-extended-in-first-256", *extended(0x0f0), "pci-extended-inside")
row("pci-extended-unaligned", *extended(0x102), "pci-extended-aligned")
row("pci-extended-loop", *extended(0x100), "pci-extended-end")
row("pci-no-msix-capability", *reads(MSIX_CAP, "B", 9), "pci-msix-capability")
row("pci-no-msi-capability", *reads(MSI_CAP, "B", 9), "pci-msi-capability", server="edu")
row("pci-msix-table-size", *reads(MSIX_CAP + 2, "H", lambda control: control + 1), "pci-msix-entries")
row("pci-msix-table-in-no-bar", *reads(MSIX_CAP + 4, "I", 3), "pci-msix-table")
row("pci-msix-table-beyond", *reads(MSIX_CAP + 4, "I", 0xff8 | TABLE_BAR), "pci-msix-table")
row("pci-msix-pba-in-no-bar", *reads(MSIX_CAP + 8, "I", PENDING | 7), "pci-msix-pba")
row("pci-msix-pba-beyond", *reads(MSIX_CAP + 8, "I", 0x1000 | TABLE_BAR), "pci-msix-pba")
row("pci-msix-pba-in-table", *reads(MSIX_CAP + 8, "I", 0x78 | TABLE_BAR), "pci-msix-apart")
row("pci-msi-four-messages", *reads(MSI_CAP + 2, "H", lambda control: control | 4), "pci-msi-messages", server="edu")

# --- COMMAND, decoding, ids --------------------------------------------------------------------------------------


def write_at(offset, count):
    """Writes of just these bytes of configuration space."""
    return both(WRITES, where(lambda *what: what == (offset, CONFIG, count)))


def overwrite_upper(_, m):
    m.payload = struct.pack("<QII", COMMAND, CONFIG, 2) + m.payload[16:] + b"\0"
    return [m]


def decodes(at, form, off):
    """BARs are not there after this field was written with a value for which `off` holds."""
    def transform(connection, m):
        if write_of(CONFIG, at, form)(m):
            connection.memory["off"] = off(written(m, CONFIG, at, form))
        elif m.is_reply and m.command == 9 and connection.memory.get("off") and m.request.payload[8] != CONFIG:
            m.payload = m.payload[:16] + b"\xff" * (len(m.payload) - 16)
        return m
    return transform


def writable(at, form):
    """The field keeps what was written to it, as far as reads tell."""
    def transform(connection, m):
        if write_of(CONFIG, at, form)(m):
            connection.memory["kept"] = written(m, CONFIG, at, form)
        elif read_of(CONFIG, at, form)(m) and "kept" in connection.memory:
            return alter(CONFIG, at, form, connection.memory["kept"])(connection, m)
        return m
    return transform


row("pci-command-forgets-memory", *writes(COMMAND, "H", lambda command: command & ~2), "pci-command-keeps")
row("pci-command-forgets-disable", *writes(COMMAND, "H", lambda command: command & ~0x400), "pci-command-keeps",
    "pci-intx-disable", "pci-intx-enable", server="edu")
row("pci-command-by-2-bytes", write_at(COMMAND, 1), refuse(22),
    "pci-command-low", "pci-command-halves")
row("pci-command-from-start", write_at(COMMAND + 1, 1), refuse(22),
    "pci-command-high", "pci-command-halves", "pci-intx-disable-high", server="edu")
row("pci-command-upper-dropped", write_at(COMMAND + 1, 1), accept_write,
    "pci-command-high", "pci-command-halves", "pci-intx-disable-high", server="edu")
row("pci-command-upper-cleared", write_at(COMMAND, 1), overwrite_upper,
    "pci-command-halves", server="edu")
row("pci-command-not-with-status", write_at(COMMAND, 4), refuse(22),
    "pci-command-status")
row("pci-decodes", every, decodes(COMMAND, "H", lambda command: not command & 2), "pci-decode-off")
row("pci-decodes-addresses", every, decodes(BARS, "I", lambda bar: bar != 0), "pci-bars-placed")
row("pci-vendor-written", every, writable(0x00, "H"), "pci-ids")
row("pci-device-written", every, writable(0x02, "H"), "pci-ids")
row("pci-revision-written", every, writable(0x08, "B"), "pci-class")
row("pci-class-written", every, writable(0x0a, "H"), "pci-class")
row("pci-header-type-written", every, writable(0x0e, "B"), "pci-class")
row("pci-subsystem-vendor-written", every, writable(0x2c, "H"), "pci-subsystem")
row("pci-subsystem-written", every, writable(0x2e, "H"), "pci-subsystem")

# --- Interrupts and bus mastering --------------------------------------------------------------------------------


def late_posted(connection, m):
    """A posted write is executed behind the next command."""
    if write_of(0, 0x64, "I")(m) and m.flags & 0x10:
        connection.memory["late"] = m
        return None
    late = connection.memory.pop("late", None) if m.from_client else None
    return [m, late] if late else m


row("pci-intx-is-an-edge", set_irqs(lambda s: s.flags & UNMASK), before(field_write(0, 0x64, "I", ALL_ONES)),
    "pci-intx-level", server="edu", timeout=SLOW)
row("pci-intx-after-clear", every, spurious(set_irqs(lambda s: s.flags & UNMASK)), "pci-intx-cleared", "pci-intx-qemu",
    server="edu")
row("pci-intx-unmask-whatever-command", every, spurious(set_irqs(lambda s: s.flags & UNMASK)),
    "pci-intx-disable-unmask", server="edu")
row("pci-intx-wants-master", write_of(CONFIG, COMMAND, "H"),
    alter(CONFIG, COMMAND, "H", lambda command: command if command & 4 else command | 0x400), "pci-intx-without-master",
    server="edu", timeout=SLOW)
row("pci-posted-write-late", every, late_posted, "pci-intx-qemu", server="edu")
row("pci-intx-not-again", both(write_of(CONFIG, COMMAND, "H"), lambda m: not written(m, CONFIG, COMMAND, "H") & 0x400),
    before(field_write(0, 0x64, "I", ALL_ONES)), "pci-intx-enable", server="edu", timeout=SLOW)
row("pci-intx-status-missing", *reads(STATUS, "H", lambda status: status & ~8), "pci-intx-status", server="edu")
row("pci-intx-status-stuck", *reads(STATUS, "H", lambda status: status | 8), "pci-intx-status", server="edu")
row("pci-intx-with-msi", *writes(MSI_CAP + 2, "H", lambda control: control & ~1), "pci-intx-messages", server="edu")
row("pci-always-master", *writes(COMMAND, "H", lambda command: command | 4), "pci-master-messages", "pci-master-dma",
    "pci-master-commands")
row("pci-always-msi", *writes(MSI_CAP + 2, "H", lambda control: control | 1), "pci-msi-off", server="edu")
row("pci-always-msix", *writes(MSIX_CAP + 2, "H", lambda control: control | 0x8000), "pci-msix-off")
row("pci-msi-no-masks", *writes(MSI_CAP + 0x10, "I", 0), "pci-msi-mask", "pci-msi-pending", server="edu")
row("pci-msi-no-pending", *reads(MSI_CAP + 0x14, "I", 0), "pci-msi-pending", server="edu")
row("pci-msi-pending-stuck", *reads(MSI_CAP + 0x14, "I", 1), "pci-msi-pending", server="edu")
row("pci-msix-no-function-mask", *writes(MSIX_CAP + 2, "H", lambda control: control & ~0x4000), "pci-msix-function",
    "pci-msix-pending")
row("pci-msix-function-mask-loses", both(write_of(CONFIG, MSIX_CAP + 2, "H"),
                                         lambda m: not written(m, CONFIG, MSIX_CAP + 2, "H") & 0x4000),
    before(field_write(0, 0x1c, "I", 0)), "pci-msix-function", timeout=SLOW)
row("pci-msix-no-vector-mask", both(WRITES, region(TABLE_BAR)),
    accept_write, "pci-msix-vector", "pci-msix-both")
row("pci-msix-vector-mask-is-all", both(write_of(TABLE_BAR, 0x0c, "I"), lambda m: written(m, TABLE_BAR, 0x0c, "I")),
    behind(field_write(CONFIG, MSIX_CAP + 2, "H", 0xc000)), "pci-msix-others", timeout=SLOW)
row("pci-msix-masked-by-reset", requests("DEVICE_RESET"), behind(field_write(TABLE_BAR, 0x0c, "I", 1)),
    "pci-msix-unwritten", timeout=SLOW)
row("pci-msix-no-pending", read_of(TABLE_BAR, PENDING, "I"), alter(TABLE_BAR, PENDING, "I", 0), "pci-msix-pending")
row("pci-msix-pending-stuck", read_of(TABLE_BAR, PENDING, "I"), alter(TABLE_BAR, PENDING, "I", 1), "pci-msix-pending")
