"""VU-MAP, VU-UNMAP, VU-INFO, VU-REG, VU-IOFD, VU-IRQ, VU-SET: clients that ask wrongly, and believe what they get."""

import os
import stat
import struct

from client_good import GOOD_REGION, outstanding
from mutation import (accept, accepted, both, change, client_row, close, crash_client, extra_descriptor, field, holds,
                      longer, nth, poke, refused, replies, requests, server_requests, then, twice)
from mutations_client_connection import leak

MAP, UNMAP = requests("DMA_MAP"), requests("DMA_UNMAP")
INFO, REGION, IO_FDS, IRQ, SET = (requests(name) for name in ("GET_INFO", "GET_REGION_INFO", "GET_REGION_IO_FDS",
                                                             "GET_IRQ_INFO", "SET_IRQS"))
SAYS_INFO, SAYS_REGION, SAYS_IO_FDS, SAYS_IRQ = (replies(name) for name in ("GET_INFO", "GET_REGION_INFO",
                                                                          "GET_REGION_IO_FDS", "GET_IRQ_INFO"))

# Maps.
client_row("client-map-longer", MAP, longer(b"\0" * 8), "map-layout")
client_row("client-map-flag", MAP, poke(4, "I", lambda flags: flags | 8), "map-layout")
client_row("client-map-wraps", both(MAP, nth(0)), poke(16, "Q", (1 << 64) - 4096), "map-layout")
client_row("client-map-argsz", MAP, poke(0, "I", 24), "map-argsz")
client_row("client-map-offset", both(MAP, lambda m: not m.fds), poke(8, "Q", 4096), "map-descriptor")
client_row("client-map-two-descriptors", both(MAP, lambda m: m.fds), extra_descriptor, "map-descriptor")
client_row("client-map-twice", MAP, twice, "map-overlap")
client_row("client-unmap-longer", UNMAP, longer(b"\0" * 8), "unmap-layout")
client_row("client-unmap-argsz", UNMAP, poke(0, "I", 16), "unmap-argsz")
client_row("client-unmap-flags", UNMAP, poke(4, "I", 2), "unmap-flags")
client_row("client-unmap-half", UNMAP, poke(16, "Q", lambda size: size // 2), "unmap-exact")


def forget_early(connection, m):
    """Memory is gone when its DMA_UNMAP was sent."""
    return m.reply(error=14) if any(one.command == 3 for one in outstanding(connection)) else m


client_row("client-forgets-early", server_requests("DMA_READ"), forget_early, "unmap-in-use")

# Information.
client_row("client-info-dirty", INFO, poke(8, "I", 9), "info-layout")
client_row("client-info-short", INFO, change(payload=lambda m: m.payload[:12]), "info-layout")
client_row("client-asks-beyond", both(REGION, nth(3)), poke(8, "I", 64), "info-index")
client_row("client-region-flags", REGION, poke(4, "I", 1), "region-info-layout")
client_row("client-region-argsz", REGION, poke(0, "I", 16), "region-info-layout")
client_row("client-io-fds-count", IO_FDS, poke(12, "I", 1), "io-fds-layout")
client_row("client-irq-argsz", IRQ, poke(0, "I", 8), "irq-info-layout")
client_row("client-wants-short-info", both(SAYS_INFO, holds(lambda payload: len(payload) > 16)), close, "info-longer")
client_row("client-wants-known-flags", both(SAYS_INFO, field("self", 4, "I", lambda flags: flags > 3)), close,
           "info-unknown-flag")
client_row("client-wants-known-irq-flags", both(SAYS_IRQ, field("self", 4, "I", lambda flags: flags > 15)), close,
           "irq-unknown-flag")
client_row("client-assumes-numbers", SAYS_INFO, then(poke(8, "I", 10), poke(12, "I", 5)), "info-few-regions",
           "info-few-irqs", "info-nothing", "info-huge-numbers")
client_row("client-crashes-without-pci", both(SAYS_INFO, field("self", 4, "I", lambda flags: not flags & 2)),
           crash_client, "info-not-pci")

# Regions. In the reply of region 2 capabilities begin with that of sparse areas, at 32.
SPARSE = both(SAYS_REGION, accepted, field("request", 8, "I", lambda index: index == 2))
client_row("client-ignores-argsz", both(SPARSE, field("self", 0, "I", lambda argsz: argsz > 4096)), poke(0, "I", 32),
           "region-larger-argsz")
client_row("client-wants-known-capabilities", both(SPARSE, holds(struct.pack("<HH", 0x7e57, 1))), close,
           "region-unknown-capability")
client_row("client-believes-regions", SPARSE, change(payload=GOOD_REGION), "region-list-outside", "region-list-in-head",
           "region-list-at-end", "region-list-loops", "region-list-next", "region-many-areas", "region-areas-wrap",
           "area-outside", "area-wraps", "area-unaligned", "area-half-page")
client_row("client-wants-descriptor", both(SPARSE, field("self", 4, "I", lambda flags: flags & 4), lambda m: not m.fds),
           close, "region-no-descriptor")
client_row("client-dies-of-short-file", both(SPARSE, lambda m: m.fds and os.fstat(m.fds[0]).st_size == 0), crash_client,
           "region-short-file")
client_row("client-dies-of-socket", both(SPARSE, lambda m: m.fds and stat.S_ISSOCK(os.fstat(m.fds[0]).st_mode)),
           crash_client, "region-odd-descriptor")
client_row("client-leaks-needless-descriptor", both(SPARSE, field("self", 4, "I", lambda flags: not flags & 4)), leak,
           "region-needless-descriptor")

# Descriptors for parts of region 0: three entries behind 16 bytes.
ENTRIES = both(SAYS_IO_FDS, accepted, field("request", 8, "I", lambda index: index == 0))


def assume_entry_size(_, m):
    m.payload = struct.pack("<I", 16 + 3 * 40) + m.payload[4:16 + 3 * 40]
    return m


def own_descriptors(_, m):
    for i in range(3):
        poke(16 + 40 * i + 16, "I", i)(_, m)
    return m


client_row("client-assumes-entry-size", ENTRIES, assume_entry_size, "io-fds-longer-entries")
client_row("client-shares-no-descriptor", ENTRIES, own_descriptors, "io-fds-shared")
client_row("client-uses-unknown-type", ENTRIES, poke(56 + 20, "I", 0), "io-fds-unknown-type")
client_row("client-insists-on-io-fds", both(SAYS_IO_FDS, refused), close, "io-fds-refused")
client_row("client-uses-any-offset", ENTRIES, poke(56, "Q", 0x48), "io-fds-outside", "io-fds-wraps")
client_row("client-uses-any-index", ENTRIES, poke(56 + 16, "I", 1), "io-fds-index", "io-fds-index-huge")
client_row("client-believes-count", ENTRIES, poke(12, "I", 3), "io-fds-count")

# Interrupts.
client_row("client-set-argsz", SET, poke(0, "I", 16), "set-layout")
client_row("client-set-longer", SET, longer(b"\0" * 4), "set-layout")
client_row("client-set-two-actions", SET, poke(4, "I", lambda flags: flags | 0x28), "set-flags")
client_row("client-set-mask", both(SET, field("self", 8, "I", lambda index: index == 2)), poke(4, "I", 9), "set-flags")
client_row("client-set-beyond", both(SET, nth(2)), poke(12, "I", 100), "set-range")
client_row("client-set-more-descriptors", both(SET, lambda m: m.fds), extra_descriptor, "set-descriptors")
client_row("client-set-first-piece", both(SET, lambda m: m.fds, field("self", 12, "I", lambda start: start >= 2)),
           accept(), "set-in-pieces")
client_row("client-ignores-irq-flags", SAYS_IRQ, poke(4, "I", lambda flags: flags | 3), "set-not-maskable",
           "set-no-eventfd")
client_row("client-assumes-vectors", both(SAYS_IRQ, field("self", 8, "I", lambda index: index == 2)),
           then(poke(4, "I", 1), poke(12, "I", 8)), "set-no-interrupts")
