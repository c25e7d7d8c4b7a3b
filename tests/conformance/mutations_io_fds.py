"""VU-IOFD: what is broken in GET_REGION_IO_FDS."""

import os
import struct

from accesses import READS, WRITES, region
from mutation import (accept, accepted, both, descriptor, extra_descriptor, field, no_descriptors, padded, poke, refuse,
                      replies, requests, row, variant)
from proxy import NO_REPLY

INFO, ASKED = replies("GET_REGION_IO_FDS"), requests("GET_REGION_IO_FDS")
BELLS = 13  # the region that has nothing but doorbells


def index(*wanted):
    return field("request", 8, "I", lambda i: i in wanted)


def is_full(m):
    return accepted(m) and len(m.payload) > 16


def is_short(m):
    return accepted(m) and len(m.payload) == 16 and struct.unpack_from("<I", m.payload)[0] > 16


FULL, SHORT = both(INFO, is_full), both(INFO, is_short)
EMPTY = both(INFO, accepted, field("self", 12, "I", lambda count: count == 0))


def libvfio_user(_, m):
    """Entries of 48 bytes: a shadow descriptor's index in the padding, a shadow offset behind it."""
    argsz, flags, which, count = struct.unpack_from("<IIII", m.payload)
    entries = m.payload[16:]
    out = b"".join(entries[i:i + 32] + bytes(8) + entries[i + 32:i + 40] for i in range(0, len(entries), 40))
    m.payload = struct.pack("<IIII", 16 + 48 * count, flags, which, count) + out
    return m


row("io-fds-wrong-index", both(INFO, accepted), poke(8, "I", lambda i: i + 1), "io-fds-head")
row("io-fds-reply-flags", both(INFO, accepted), poke(4, "I", 1), "io-fds-head")
row("io-fds-argsz-by-the-formula", both(FULL, index(BELLS)), poke(0, "I", lambda argsz: argsz + 16), "io-fds-size")
row("io-fds-argsz-odd", FULL, poke(0, "I", lambda argsz: argsz + 1), "io-fds-size", "io-fds-stride")
row("io-fds-argsz-of-nothing", EMPTY, poke(0, "I", 56), "io-fds-none")
row("io-fds-shadow", both(INFO, accepted), libvfio_user, "io-fds-entry-size")

# Entries.
row("io-fds-shadow-type", FULL, poke(16 + 20, "I", 2), "io-fds-type")
row("io-fds-no-descriptors", FULL, no_descriptors, "io-fds-descriptors", "io-fds-fd-index")
row("io-fds-global-index", both(FULL, index(9)), poke(16 + 16, "I", 5), "io-fds-fd-index")
row("io-fds-many-to-few", requests("VERSION"),
    lambda _, m: setattr(m, "payload", m.payload.replace(b'"max_msg_fds":1}', b'"max_msg_fds":16}')) or m,
    "io-fds-one-descriptor")
row("io-fds-outside", FULL, poke(16, "Q", lambda offset: offset + 0x10000), "io-fds-inside")
row("io-fds-across-end", both(FULL, index(9)), poke(16 + 8, "Q", 0x2001), "io-fds-inside")
row("io-fds-ioregion", FULL,
    lambda _, m: setattr(m, "payload", m.payload[:24] + bytes(12) + struct.pack("<II", 1, 0) + m.payload[44:]) or m,
    "io-fds-posted-writes")
row("io-fds-dirty-padding", FULL, poke(16 + 28, "I", 0xdead), "io-fds-padding")

# Too little room.
row("io-fds-ignores-argsz", both(ASKED, field("self", 0, "I", lambda argsz: argsz >= 16)), poke(0, "I", 4096),
    "io-fds-short-entries", "io-fds-short-descriptors")
row("io-fds-short-with-descriptor", SHORT, extra_descriptor, "io-fds-short-descriptors")
row("io-fds-short-other-argsz", both(SHORT, field("request", 0, "I", lambda argsz: argsz > 16)),
    poke(0, "I", lambda argsz: argsz + 40), "io-fds-short-argsz")

# What is refused.
row("io-fds-takes-any-index", both(INFO, index(14, 15, 0x7fffffff, 0xffffffff)),
    accept(lambda m: struct.pack("<IIII", 16, 0, 0, 0)), "io-fds-index-beyond")
row("io-fds-index-enoent", both(INFO, index(14)), lambda _, m: setattr(m, "error", 2) or m, "io-fds-index-beyond")
row("io-fds-takes-small-argsz", both(ASKED, field("self", 0, "I", lambda argsz: argsz < 16)), poke(0, "I", 16),
    "io-fds-argsz-small")
row("io-fds-takes-flags", both(ASKED, field("self", 4, "I", lambda flags: flags != 0)), poke(4, "I", 0), "io-fds-flags")
row("io-fds-takes-count", both(ASKED, field("self", 12, "I", lambda count: count != 0)), poke(12, "I", 0),
    "io-fds-count")
row("io-fds-over-read", both(ASKED, lambda m: len(m.payload) < 16), padded(struct.pack("<IIII", 16, 0, 0, 0)),
    "header-truncated-io-fds")

# What entries cover.
row("io-fds-cannot-be-read", both(READS, region(BELLS)), refuse(22), "io-fds-read")
row("io-fds-cannot-be-written", both(WRITES, region(BELLS)), refuse(22), "io-fds-write")
row("io-fds-rings-twice", both(WRITES, region(BELLS)), lambda _, m: [m.copy(flags=NO_REPLY), m], "io-fds-write")
# The check has to wait until it gives up.
row("io-fds-other-eventfd", FULL, descriptor(lambda _: os.eventfd(0, os.EFD_NONBLOCK)), "io-fds-signal")

# Left to the server.
variant("io-fds-refuses-plain-region", both(INFO, index(2)), refuse(22), "io-fds*")
variant("io-fds-not-at-all", INFO, refuse(95), "io-fds*", "info-payload-large-io-fds")
