"""VU-INFO: what is broken in GET_INFO, and in what the information commands have in common."""

import struct

from mutation import (accept, both, change, field, longer, nth, poke, refuse, replies, requests, row)

INFO = replies("GET_INFO")
REGION, IRQ, IO_FDS = requests("GET_REGION_INFO"), requests("GET_IRQ_INFO"), requests("GET_REGION_IO_FDS")


def payload_above(size):
    return lambda m: len(m.payload) > size


def argsz_above(size):
    return field("self", 0, "I", lambda argsz: argsz > size)


def fill_room(_, m):
    """A reply as long as argsz allows."""
    argsz = struct.unpack_from("<I", m.request.payload)[0]
    if len(m.payload) < argsz <= 4096:
        m.payload = struct.pack("<I", argsz) + m.payload[4:] + bytes(argsz - len(m.payload))
    return m


row("info-short-argsz", INFO, poke(0, "I", 12), "info-layout")
row("info-payload-grows", INFO, longer(b"\0" * 4), "info-layout", "info-fits", "info-sixteen")
row("info-fills-room", INFO, fill_room, "info-sixteen")
row("info-not-pci", INFO, poke(4, "I", lambda flags: flags & ~2), "info-pci")
row("info-reset-refused", replies("DEVICE_RESET"), refuse(95), "info-reset-flag")
row("info-eight-regions", INFO, poke(8, "I", 8), "info-regions")
row("info-four-irqs", INFO, poke(12, "I", 4), "info-irqs")
row("info-takes-small-argsz", both(INFO, field("request", 0, "I", lambda argsz: argsz < 16)),
    accept(b"\x10\0\0\0\x03\0\0\0\x09\0\0\0\x05\0\0\0"), "info-argsz-small")

# More room, and more payload.
row("info-refuses-large-argsz", both(requests("GET_INFO"), argsz_above(32)), refuse(22), "info-argsz-large")
row("info-region-refuses-large-argsz", both(REGION, argsz_above(65536)), refuse(22), "info-argsz-large-region")
row("info-irq-refuses-large-argsz", both(IRQ, argsz_above(65536)), refuse(22), "info-argsz-large-irq")
row("info-refuses-large-payload", both(requests("GET_INFO"), payload_above(16)), refuse(22), "info-payload-large")
row("info-refuses-four-thousand", both(requests("GET_INFO"), payload_above(4080)), refuse(22), "info-payload-large")
row("info-region-refuses-large-payload", both(REGION, payload_above(32)), refuse(22), "info-payload-large-region",
    "info-spdk-requests")
row("info-irq-refuses-large-payload", both(IRQ, payload_above(16)), refuse(22), "info-payload-large-irq")
row("info-io-fds-refuses-large-payload", both(IO_FDS, payload_above(16)), refuse(22), "info-payload-large-io-fds")
row("info-spdk-asks-for-nothing", both(REGION, payload_above(4079), field("self", 8, "I", lambda index: index == 8)),
    refuse(22), "info-spdk-requests")

# Fields that should be 0.
row("info-refuses-dirty-fields", both(requests("GET_INFO"), field("self", 4, "I", lambda flags: flags != 0)),
    refuse(22), "info-dirty-fields")
row("info-region-refuses-flags", both(REGION, field("self", 4, "I", lambda flags: flags != 0)), refuse(22),
    "info-dirty-region")
row("info-region-refuses-size", both(REGION, field("self", 16, "Q", lambda size: size != 0)), refuse(22),
    "info-dirty-region")
row("info-irq-refuses-count", both(IRQ, field("self", 12, "I", lambda count: count != 0)), refuse(22),
    "info-dirty-irq")

# Replies that do not fit, and answers that change.
row("info-region-ignores-argsz", both(REGION, field("self", 0, "I", lambda argsz: argsz >= 32)), poke(0, "I", 4096),
    "info-fits-region")
row("info-irq-grows", replies("GET_IRQ_INFO"), longer(b"\0" * 4), "info-fits-irq")
row("info-changes", both(INFO, nth(1)), poke(12, "I", 6), "info-constant")
row("info-region-changes", both(replies("GET_REGION_INFO"), lambda m: m.number > 14),
    poke(16, "Q", lambda size: size * 2), "info-constant-region")
row("info-irq-changes", both(replies("GET_IRQ_INFO"), lambda m: m.number > 5), poke(12, "I", lambda count: count ^ 1),
    "info-constant-irq")
row("info-other-size", INFO, change(size=15), "survey")
