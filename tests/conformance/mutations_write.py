"""VU-WR: what is broken in REGION_WRITE."""

from accesses import (CONFIG, REGIONS, SIZES, WRITES, across, beyond, config, first, head, hide, posted_before, region,
                      sized, where, wraps)
from mutation import (accept, accepted, answered, any_of, both, close, drop, longer, poke, posted, refuse, replies,
                      requests, row)

REPLIES = both(replies("REGION_WRITE"), accepted)
READ = both(replies("REGION_READ"), accepted)


def data_is(test):
    """By the size of the data and count."""
    def touches(m):
        if len(m.payload) < 16:
            return False
        return test(len(m.payload) - 16, int.from_bytes(m.payload[12:16], "little"))
    return touches


# The reply.
row("write-offset-in-page", REPLIES, poke(0, "Q", lambda offset: offset & 0x3f), "write-echo")
row("write-region-zero", REPLIES, poke(8, "I", 0), "write-echo")
row("write-echoes-data", REPLIES, longer(b"\0" * 4), "write-no-data")
row("write-count-zero", REPLIES, poke(12, "I", 0), "write-count")
row("write-half", both(WRITES, region(2), where(lambda offset, index, count: count == 8)), first(4), "write-count")
row("write-mapped-refused", both(WRITES, region(10)), refuse(22), "write-mapped")
row("write-mapped-part", both(WRITES, where(lambda offset, index, count: count == 4096)), first(2048), "write-mapped")
row("write-not-to-the-end", both(WRITES, where(lambda offset, index, count: offset + count == SIZES.get(index))),
    refuse(22), "write-whole")

# Data of another size.
row("write-over-read", both(WRITES, data_is(lambda size, count: 0 < size < count < 64)),
    sized(lambda offset, count, data: (count, data + b"\xee" * (count - len(data)))), "write-data-short")
row("write-short-does-part", both(WRITES, data_is(lambda size, count: 0 < size < count < 64)),
    posted_before(lambda offset, index, data: (offset, index, data)), "write-data-short")
row("write-over-read-all", both(WRITES, data_is(lambda size, count: size == 0 < count < 64)),
    sized(lambda offset, count, data: (count, b"\xee" * count)), "write-data-none")
row("write-drops-excess", both(WRITES, data_is(lambda size, count: size > count)),
    sized(lambda offset, count, data: (count, data[:count])), "write-data-long")
row("write-long-does-count", both(WRITES, data_is(lambda size, count: size > count > 0)),
    posted_before(lambda offset, index, data: (offset, index, data[:1])), "write-data-long")

# Ranges.
TOO_LARGE = where(lambda offset, index, count: count > 1 << 20)
row("write-takes-too-much", both(WRITES, TOO_LARGE), accept(head), "write-too-large")
row("write-too-much-does-part", both(WRITES, TOO_LARGE),
    posted_before(lambda offset, index, data: (offset, index, data[:4096])), "write-too-large")
row("write-count-clipped", both(WRITES, data_is(lambda size, count: size < 64 and count > 1 << 20)),
    sized(lambda offset, count, data: (len(data), data)), "write-count-too-large")
row("write-less-than-announced", both(WRITES, where(lambda offset, index, count: count == 1 << 20)), refuse(22),
    "write-largest")
row("write-largest-part", both(WRITES, where(lambda offset, index, count: count == 1 << 20)), first((1 << 20) - 1),
    "write-largest")
row("write-takes-beyond", both(WRITES, where(beyond)), accept(head), "write-beyond")
row("write-beyond-enxio", both(replies("REGION_WRITE"), where(beyond)), refuse(6), "write-beyond")
row("write-takes-across", both(WRITES, where(across)), accept(head), "write-across-end")
row("write-across-does-part", both(WRITES, where(across)),
    posted_before(lambda offset, index, data: (offset, index, data[:SIZES[index] - offset])), "write-across-end-keeps")
row("write-takes-wrap", both(WRITES, where(wraps)), accept(head), "write-wraps")
row("write-takes-no-region", both(WRITES, where(lambda offset, index, count: index >= REGIONS)), accept(head),
    "write-no-region")
row("write-takes-empty", both(WRITES, region(3)), accept(head), "write-empty-region")
ZERO = both(WRITES, where(lambda offset, index, count: count == 0), data_is(lambda size, count: size == 0))
row("write-zero-not-permitted", ZERO, refuse(1), "write-zero")
row("write-zero-does-one", ZERO, posted_before(lambda offset, index, data: (offset, index, b"\xee")), "write-zero")
row("write-zero-refused", ZERO, refuse(22), "write-zero-succeeds")

# Posted writes.
POSTED = both(WRITES, posted)


def youngest_first(connection, m):
    """Posted writes wait for the next other command, and are then executed the wrong way round."""
    held = connection.memory.setdefault("held", [])
    if posted(m):
        held.append(m)
        return None
    connection.memory["held"] = []
    return held[::-1] + [m]


def late(connection, m):
    """A posted write is executed behind the command that follows it."""
    held = connection.memory.pop("held", [])
    if posted(m):
        connection.memory["held"] = [m]
        return held
    return [m] + held


row("write-posted-youngest-first", requests(), youngest_first, "write-posted-last", "write-posted-overlap",
    "write-posted-regions")
row("write-posted-late", requests(), late, "write-posted-seen", "write-posted-mixed")
row("write-posted-config-dropped", both(POSTED, region(CONFIG)), drop, "write-posted-seen", "write-posted-regions")
row("write-posted-io-dropped", both(POSTED, region(1)), drop, "write-posted-last")
row("write-posted-answered", POSTED, answered, "write-posted-unanswered")
row("write-posted-config-answered", both(POSTED, region(CONFIG)), answered, "write-posted-unanswered",
    "write-posted-config")
row("write-posted-error-answered", both(POSTED, where(beyond)), answered, "write-posted-config", "write-posted-beyond")
row("write-posted-error-ends", both(POSTED, any_of(where(beyond), where(wraps))), close, "write-posted-beyond")
row("write-posted-empty-answered", both(POSTED, region(3)), answered, "write-posted-empty-region")
row("write-posted-no-region-answered", both(POSTED, where(lambda offset, index, count: index >= REGIONS)), answered,
    "write-posted-no-region")
row("write-posted-read-only-answered", both(POSTED, region(11)), answered, "write-posted-read-only")
row("write-posted-size-answered", both(POSTED, data_is(lambda size, count: size < count)), answered,
    "write-posted-size")
row("write-posted-size-ends", both(POSTED, lambda m: len(m.payload) < 16), close, "write-posted-size")

# Configuration space.
BARS = config(lambda offset, count: 0x10 <= offset < 0x28)
row("write-config-dwords-only", both(WRITES, BARS, where(lambda offset, index, count: count == 2)), accept(head),
    "write-config-pieces")
row("write-config-three-refused", both(WRITES, config(lambda offset, count: offset == 0x24 and count == 3)), refuse(22),
    "write-config-three")
row("write-config-byte-widened", both(WRITES, config(lambda offset, count: offset == 0x27 and count == 1)),
    posted_before(lambda offset, index, data: (offset & ~3, index, b"\xfe\xfe\xfe")), "write-config-byte",
    "write-config-pieces")
row("write-config-one-bar", both(WRITES, config(lambda offset, count: offset == 0x10 and count == 24)), first(4),
    "write-config-bars")
row("write-config-header-part", both(WRITES, config(lambda offset, count: offset == 0x10 and count == 48)), first(4),
    "write-config-header")
row("write-config-header-refused", both(WRITES, config(lambda offset, count: offset == 0x10 and count == 48)),
    refuse(22), "write-config-header")
row("write-config-skips-command", both(WRITES, config(lambda offset, count: offset == 2 and count > 2)), first(2),
    "write-config-command")
row("write-config-two-registers-refused", both(WRITES, config(lambda offset, count: offset == 2 and count > 2)),
    refuse(22), "write-config-command")
row("write-config-one-capability", both(WRITES, config(lambda offset, count: offset == 0x40 and count > 8)), first(8),
    "write-config-beyond-capability")
row("write-config-longer-refused", both(WRITES, config(lambda offset, count: offset >= 0x40 and count > 12)),
    refuse(22), "write-config-longer")
row("write-config-longer-dropped", both(WRITES, config(lambda offset, count: offset >= 0x40 and count > 12)),
    accept(head), "write-config-longer")
row("write-config-header-alone", both(WRITES, config(lambda offset, count: offset == 0x3c and count > 4)), first(4),
    "write-config-into-capability")
row("write-config-whole-refused", both(WRITES, config(lambda offset, count: count > 256)), refuse(22),
    "write-config-whole")
row("write-config-whole-shifted", both(WRITES, config(lambda offset, count: count > 256)),
    sized(lambda offset, count, data: (count, data[1:] + b"\0")), "write-config-whole")


def writable(offset, width):
    """Bits that should be read-only take what is written."""
    place = config(lambda at, count: at == offset and count == width)
    return both(any_of(WRITES, READ), place)


row("write-ids", writable(0, 4), hide, "write-read-only-ids")
row("write-subsystem", writable(0x2c, 4), hide, "write-read-only-ids")
row("write-ids-refused", both(WRITES, config(lambda offset, count: offset == 0)), refuse(1), "write-read-only-ids")
row("write-capability-list", writable(0x48, 2), hide, "write-read-only-capabilities")
row("write-capability-list-refused", both(WRITES, config(lambda offset, count: offset == 0x48)), refuse(1),
    "write-read-only-capabilities")
row("write-status", writable(6, 2), hide, "write-read-only-status")
row("write-extended-list", writable(0x100, 4), hide, "write-read-only-extended")
