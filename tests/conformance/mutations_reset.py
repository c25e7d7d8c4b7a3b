"""VU-RESET: what DEVICE_RESET leaves, and what it takes away."""

import os
import struct

from accesses import CONFIG, WRITES, config, field_write
from interrupts import INTX, MSIX, SLOW, disable, is_assign, keep, set_irqs, spurious
from mutation import (LOG_START, LOG_STOP, SET, accept, before, behind, both, drop, every, longer, nth, poke, posted,
                      posted_request, refuse, replies, requests, row)
from proxy import COMMANDS, Message

RESET = requests("DEVICE_RESET")
COMMAND, BARS = 0x04, 0x10
MSIX_CAP, MSI_CAP = 0x48, 0x40
TO = 0x02000000  # where checks map what the device copies to


def feature(flags, data=b""):
    return posted_request("DEVICE_FEATURE", struct.pack("<II", 8 + len(data), flags) + data)


UNMAP_ALL = posted_request("DMA_UNMAP", struct.pack("<IIQQ", 24, 2, 0, 0))

# --- The command ---------------------------------------------------------------------------------------------------

row("reset-payload-in-reply", replies("DEVICE_RESET"), longer(b"\0" * 4), "reset-no-payload")
row("reset-takes-payload", both(RESET, lambda m: m.payload), accept(), "reset-payload")
row("reset-takes-one-byte", both(RESET, lambda m: len(m.payload) == 1), accept(), "reset-payload")
row("reset-once", both(RESET, nth(1)), refuse(16), "reset-again")
row("reset-drops-posted", both(RESET, posted), drop, "reset-posted")
row("reset-without-saying-so", replies("GET_INFO"), poke(4, "I", lambda flags: flags & ~1), "reset-without-flag")

# --- What it leaves ------------------------------------------------------------------------------------------------

row("reset-does-nothing", RESET, accept(), "reset-header", "reset-command", "reset-bars", "reset-msix",
    "reset-registers", "reset-pending")
row("reset-does-nothing-to-edu", RESET, accept(), "reset-header", "reset-msi", "reset-registers",
    server="edu")
row("reset-does-nothing-to-serial", RESET, accept(), "reset-registers", "reset-intx", server="serial")
row("reset-leaves-command", RESET, behind(field_write(CONFIG, COMMAND, "H", 7)), "reset-command")
row("reset-leaves-upper-half", RESET, behind(field_write(CONFIG, BARS + 12, "I", 0xe0000000)), "reset-bars")
row("reset-leaves-cache-line-size", both(RESET, nth(1)), behind(field_write(CONFIG, 0x0c, "B", 16)), "reset-header")
row("reset-leaves-msix", RESET, behind(field_write(CONFIG, MSIX_CAP + 2, "H", 0x8000)), "reset-msix")
row("reset-leaves-msix-table", both(RESET, nth(1)), behind(field_write(5, 0, "I", 0xfee00000)), "reset-msix-table")
row("reset-leaves-msi", RESET, behind(field_write(CONFIG, MSI_CAP + 2, "H", 1)), "reset-msi", server="edu")
row("reset-leaves-level", RESET, behind(field_write(0, 0x60, "I", 1)), "reset-intx", server="edu")
row("reset-leaves-register", both(RESET, nth(1)), behind(field_write(0, 0x24, "I", 1)), "reset-registers")

# --- What it takes away --------------------------------------------------------------------------------------------

row("reset-unmaps", RESET, before(UNMAP_ALL), "reset-maps", "reset-maps-used")
row("reset-takes-eventfds", RESET, before(disable(MSIX)), "reset-eventfds", "reset-eventfds-device", timeout=SLOW)
row("reset-leaves-intx-enabled", both(set_irqs(lambda s: is_assign(s) and s.index == INTX),
                                      lambda m: m.number > 1), refuse(16), "reset-qemu", server="edu")
row("reset-takes-intx", RESET, behind(disable(INTX)), "reset-eventfds-device", server="edu", timeout=SLOW)

# --- What it does not end ------------------------------------------------------------------------------------------


def write_late(connection, m):
    """A transfer to guest memory that ends with the reset behind the one that should have ended it."""
    if requests("DMA_MAP")(m) and m.fds and struct.unpack_from("<Q", m.payload, 16)[0] == TO:
        connection.memory["memory"] = keep(connection, m.fds[0])
    if both(RESET, nth(2))(m):
        os.pwrite(connection.memory["memory"], b"late", 0)
    return m


def message_behind(connection, m):
    address = struct.pack("<QQ", TO, 16)
    return [m, Message(7, COMMANDS["DMA_WRITE"], 0, 0, address + b"late" * 4, [], False)]


row("reset-signal-behind", every, spurious(both(WRITES, config(lambda *_: True))),
    "reset-signals")
row("reset-copy-goes-on", every, write_late, "reset-copy")
row("reset-message-behind", both(replies("DEVICE_RESET"), nth(1)), message_behind, "reset-messages")

# --- Migration and logging -----------------------------------------------------------------------------------------

row("reset-leaves-stopped", RESET, accept(), "reset-runs")
row("reset-refused-while-stopped", both(RESET, nth(1)), refuse(22), "reset-runs")
row("reset-stops-logging", RESET, before(feature(SET | LOG_STOP)), "reset-logging",
    "reset-logging-writes")
row("reset-clears-log", both(RESET, nth(1)),
    before(feature(SET | LOG_STOP),
           feature(SET | LOG_START, struct.pack("<QII", 4096, 0, 0))), "reset-logging-writes")
