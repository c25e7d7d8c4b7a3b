"""VU-RD: what is broken in REGION_READ."""

import struct

from accesses import CONFIG, READS, REGIONS, SIZES, access, across, beyond, config, region, where, wraps, zeroes
from mutation import accept, accepted, both, longer, poke, refuse, replies, row

REPLIES = both(replies("REGION_READ"), accepted)


def at_most(most):
    """A short read."""
    def transform(_, m):
        if len(m.payload) > 16 + most:
            m.payload = m.payload[:12] + struct.pack("<I", most) + m.payload[16:16 + most]
        return m
    return transform


def spoil(start):
    """From there on the data reads as all ones."""
    def transform(_, m):
        m.payload = m.payload[:16 + start] + b"\xff" * (len(m.payload) - 16 - start)
        return m
    return transform


row("read-offset-in-page", REPLIES, poke(0, "Q", lambda offset: offset & 0x3f), "read-echo")
row("read-region-zero", REPLIES, poke(8, "I", 0), "read-echo")
row("read-padded", REPLIES, longer(b"\0" * 4), "read-size")
row("read-at-most-four", REPLIES, at_most(4), "read-count")
row("read-mapped-refused", both(READS, region(4)), refuse(22), "read-mapped")
row("read-mapped-other", both(REPLIES, region(10), where(lambda offset, index, count: count > 8)), spoil(8),
    "read-mapped")
row("read-not-to-the-end", both(READS, where(lambda offset, index, count: offset + count == SIZES.get(index))),
    refuse(22), "read-whole", "read-config-end")
row("read-takes-too-much", both(READS, where(lambda offset, index, count: count > 1 << 20)), accept(zeroes),
    "read-too-large")
row("read-less-than-announced", both(READS, where(lambda offset, index, count: count == 1 << 20)), refuse(22),
    "read-largest")
row("read-takes-beyond", both(READS, where(beyond)), accept(zeroes), "read-beyond")
row("read-beyond-enxio", both(replies("REGION_READ"), where(beyond)), refuse(6), "read-beyond")
row("read-takes-across", both(READS, where(across)), accept(zeroes), "read-across-end")
row("read-off-by-one", both(READS, where(lambda offset, index, count: index == CONFIG and offset + count == 4097)),
    accept(zeroes), "read-across-end")
row("read-takes-wrap", both(READS, where(wraps)), accept(zeroes), "read-wraps")
row("read-takes-no-region", both(READS, where(lambda offset, index, count: index >= REGIONS)), accept(zeroes),
    "read-no-region")
row("read-takes-empty", both(READS, region(3)), accept(zeroes), "read-empty-region")
row("read-zero-not-permitted", both(READS, where(lambda offset, index, count: count == 0)), refuse(1), "read-zero")
row("read-zero-gives-some", both(REPLIES, where(lambda offset, index, count: count == 0)), longer(b"\0" * 4),
    "read-zero")
row("read-zero-refused", both(READS, where(lambda offset, index, count: count == 0)), refuse(22),
    "read-zero-succeeds")
row("read-zero-header-alone", both(READS, where(lambda offset, index, count: count == 0)), accept(b""),
    "read-zero-succeeds")

# Configuration space.
row("read-config-half", both(REPLIES, config(lambda offset, count: count > 256)), spoil(256), "read-config-whole")
row("read-config-refuses-halves", both(READS, config(lambda offset, count: count == 2 and offset == 0x3e)), refuse(22),
    "read-config-aligned")
row("read-config-low-half", both(REPLIES, config(lambda offset, count: count == 4)), spoil(2), "read-config-aligned")
row("read-config-refuses-eight", both(READS, config(lambda offset, count: count == 8)), refuse(22), "read-config-odd")
row("read-config-refuses-odd", both(READS, config(lambda offset, count: offset % min(count, 4) != 0)), refuse(22),
    "read-config-odd")
row("read-config-rounds", both(READS, config(lambda offset, count: offset % 4 == 3 and count > 1)),
    lambda _, m: setattr(m, "payload", struct.pack("<Q", access(m)[0] & ~3) + m.payload[8:]) or m, "read-config-odd")
row("read-config-one-capability", both(REPLIES, config(lambda offset, count: 64 < count < 256)), spoil(16),
    "read-config-long")
row("read-config-last-byte", both(READS, config(lambda offset, count: offset + count == 4096 and count < 4)),
    refuse(22), "read-config-end")
