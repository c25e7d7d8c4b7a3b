"""VU-REG: what is broken in GET_REGION_INFO, its capabilities, its descriptors and the memory behind them."""

import os
import struct

from accesses import READS, WRITES, access, head, region, where, zeroes
from mutation import (accept, accepted, both, checks_only, descriptor, extra_descriptor, field, no_descriptors,
                      poke, refuse, replies, requests, row)

INFO, ASKED = replies("GET_REGION_INFO"), requests("GET_REGION_INFO")
CAPS = 8


def index(*wanted):
    return field("request", 8, "I", lambda i: i in wanted)


def is_short(m):
    """A reply without the capabilities that there are."""
    return accepted(m) and len(m.payload) == 32 and struct.unpack_from("<I", m.payload)[0] > 32


def is_full(m):
    return accepted(m) and len(m.payload) > 32


SHORT, FULL = both(INFO, is_short), both(INFO, is_full)
SPARSE = both(FULL, field("self", 32, "H", lambda ident: ident == 1))


def structure(_, m):
    m.payload = m.payload[:32]
    return m


def no_capabilities(_, m):
    """As if there were none."""
    m.payload = struct.pack("<II", 32, struct.unpack_from("<I", m.payload, 4)[0] & ~CAPS) + m.payload[8:12] \
        + bytes(4) + m.payload[16:32]
    return m


# The reply.
row("region-reply-short", both(INFO, checks_only, index(3)), lambda _, m: setattr(m, "payload", m.payload[:24]) or m,
    "region-size")
row("region-wrong-index", both(INFO, index(5)), poke(8, "I", 6), "region-index")
row("region-argsz-padded", FULL, poke(0, "I", lambda argsz: argsz + 16), "region-argsz")
row("region-argsz-is-structure", FULL, poke(0, "I", 32), "region-argsz")
row("region-short-argsz-larger", SHORT, poke(0, "I", lambda argsz: argsz + 16), "region-short-argsz")
row("region-short-argsz-echoed", both(SHORT, checks_only), poke(0, "I", 32), "region-short-argsz")
row("region-short-part", SHORT,
    lambda _, m: setattr(m, "payload", (m.payload + b"\1\0\1\0" * 64)[:struct.unpack_from("<I", m.request.payload)[0]])
    or m, "region-short-empty")
row("region-short-without-flags", SHORT, poke(4, "I", 0), "region-short-same")
row("region-short-with-flag", SHORT, poke(4, "I", lambda flags: flags | CAPS), "region-short-flag")
row("region-short-with-offset", SHORT, poke(12, "I", 32), "region-short-cap-offset")
row("region-ignores-argsz", both(ASKED, field("self", 0, "I", lambda argsz: argsz >= 32)), poke(0, "I", 4096),
    "region-short-empty", "region-short-flag", "region-short-cap-offset")

# Indexes.
row("region-index-takes-any", both(INFO, index(14, 15, 0x7fffffff, 0x80000000, 0xffffffff)),
    accept(lambda m: m.payload[:32]), "region-index-beyond")
row("region-index-signed", both(INFO, index(0x80000000, 0xffffffff)), accept(lambda m: m.payload[:32]),
    "region-index-beyond")
row("region-index-enoent", both(INFO, index(14)), lambda _, m: setattr(m, "error", 2) or m, "region-index-beyond")
row("region-refuses-empty", both(INFO, index(8)), refuse(22), "region-every-index")
row("region-empty-with-flags", both(INFO, index(3)), poke(4, "I", 3), "region-empty")
row("region-takes-small-argsz", both(INFO, field("request", 0, "I", lambda argsz: argsz < 32)),
    accept(lambda m: m.payload[:32]), "region-argsz-small")

# READ and WRITE.
row("region-reads-refused", both(READS, region(1)), refuse(22), "region-readable")
row("region-reads-write-only", both(READS, region(12)), accept(zeroes), "region-unreadable")
row("region-writes-refused", both(WRITES, region(4)), refuse(22), "region-writable")
row("region-writes-read-only", both(WRITES, region(11)), accept(head), "region-unwritable")

# Capabilities.
row("region-caps-unannounced", FULL, poke(4, "I", lambda flags: flags & ~CAPS), "region-caps-flag")
row("region-caps-offset-zero", FULL, poke(12, "I", 0), "region-caps-offset")
row("region-caps-offset-in-structure", FULL, poke(12, "I", 16), "region-caps-offset")
row("region-caps-offset-behind", FULL, poke(12, "I", lambda at: at + 4096), "region-caps-offset", "region-caps-end")
row("region-caps-cut", both(SPARSE, checks_only), poke(40, "I", lambda n: n + 1), "region-caps-inside")
row("region-caps-loop", FULL, poke(36, "I", 32), "region-caps-end")
row("region-caps-next-relative", FULL, poke(36, "I", lambda at: at - 32 if at else 0), "region-caps-end")
row("region-caps-next-outside", FULL, poke(36, "I", 0xfffffff0), "region-caps-end")
row("region-type-missing", both(INFO, index(11)), no_capabilities, "region-type")
row("region-type-short-says-none", both(SHORT, index(9, 10, 11, 12, 13)), no_capabilities, "region-type")


def one_for_each_area(_, m):
    """A sparse capability for each area, instead of one for all."""
    count = struct.unpack_from("<I", m.payload, 40)[0]
    out, at = m.payload[:32], 32
    for i in range(count):
        after = at + 32 if i + 1 < count else 0
        out += struct.pack("<HHIII", 1, 1, after, 1, 0) + m.payload[48 + 16 * i:64 + 16 * i]
        at += 32
    m.payload = struct.pack("<I", len(out)) + out[4:]
    return m


row("region-sparse-version-two", SPARSE, poke(34, "H", 2), "region-sparse-version")
row("region-sparse-several", both(SPARSE, index(4), checks_only), one_for_each_area, "region-sparse-one")
row("region-sparse-dirty", SPARSE, poke(44, "I", 0xdead), "region-sparse-reserved")
row("region-sparse-too-long", both(SPARSE, index(4)), poke(72, "Q", 0x2000), "region-sparse-inside")
row("region-sparse-wraps", both(SPARSE, index(4)), poke(72, "Q", (1 << 64) - 0x1000), "region-sparse-inside")
row("region-sparse-nothing", SPARSE, poke(56, "Q", 0), "region-sparse-empty")
row("region-sparse-half-page", SPARSE, poke(56, "Q", 0x800), "region-sparse-aligned")
row("region-sparse-odd-place", both(SPARSE, index(4)), poke(48, "Q", 0x1080), "region-sparse-aligned")
row("region-sparse-overlap", both(SPARSE, index(4)), poke(56, "Q", 0x3000), "region-sparse-apart")
row("region-sparse-twice", both(SPARSE, index(4)), poke(64, "Q", 0x1000), "region-sparse-apart")

# Descriptors.


def memory(size, fill=b""):
    """A fresh file of that size; the server knows nothing of it."""
    def make(_):
        fd = os.memfd_create("proxy")
        os.truncate(fd, size)
        os.pwrite(fd, fill, 0)
        return fd
    return make


WITH_FD = both(INFO, lambda m: len(m.fds) > 0)

row("region-descriptor-lost", both(INFO, index(4)), no_descriptors, "region-descriptor")
row("region-descriptor-of-nothing", both(WITH_FD, index(2)), descriptor(memory(0)), "region-maps")
row("region-descriptor-not-mappable", both(WITH_FD, index(2)), descriptor(lambda _: os.open("/dev/null", os.O_RDWR)),
    "region-maps")
row("region-memory-too-short", both(WITH_FD, index(4)), descriptor(memory(0x2000)), "region-sparse-touch")
row("region-descriptor-for-each-area", both(WITH_FD, index(4)), extra_descriptor, "region-one-descriptor")
row("region-descriptor-unasked", both(INFO, index(0), accepted), extra_descriptor, "region-no-descriptor")
row("region-flag-lost", WITH_FD, poke(4, "I", lambda flags: flags & ~4), "region-no-descriptor")
row("region-areas-packed", both(SPARSE, index(4)), poke(24, "Q", lambda at: at + 0x1000), "region-sparse-maps",
    "region-memory-read", "region-memory-write")
row("region-memory-private", WITH_FD, descriptor(memory(8 << 20)), "region-memory-read", "region-memory-write",
    "region-sealed")
row("region-memory-also-other", WITH_FD, descriptor(memory(8 << 20, b"x" * (4 << 20))), "region-file-alone")
row("region-memory-read-stale", both(READS, region(2)), accept(zeroes), "region-memory-read")
row("region-memory-one-area", both(READS, where(lambda offset, i, count: i == 4 and offset in (0xffc, 0x1ffc))),
    accept(lambda m: m.payload[:16] + b"\xff" * 8), "region-memory-edge")
row("region-memory-write-dropped", both(WRITES, region(2)), accept(head), "region-memory-write")
row("region-memory-last-bytes-lost", both(WRITES, lambda m: access(m)[0:2] == (0x3ff8, 4)), accept(head),
    "region-memory-write")
