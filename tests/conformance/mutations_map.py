"""VU-MAP: what is broken in DMA_MAP."""

from memory import BASE, FROM, PAGE, RING, TO, crash, first_tell, leak, private, range_is, rings, then_tell, unmap_of, \
    while_dma
from mutation import accept, any_of, both, field, longer, no_descriptors, nth, poke, refuse, refused, replies, \
    requests, row, variant

MAP = requests("DMA_MAP")
REFUSED = both(replies("DMA_MAP"), refused)
EIO, EEXIST, EBUSY, EINVAL, ENOSPC = 5, 17, 16, 22, 28


def of(address=None, size=None):
    return range_is(address, size, at=16)


def answers(address=None, size=None):
    return both(REFUSED, range_is(address, size, "request", 16))


def with_descriptors(m):
    return len((m.request or m).fds) > 0


# --- Overlaps
row("map-overlap-other-errno", REFUSED, refuse(EINVAL), "map-overlap-same", "map-overlap-same-file",
    "map-overlap-errno")
row("map-overlap-by-start", both(REFUSED, field("request", 16, "Q", lambda address: address != BASE)), accept(),
    "map-overlap-part", "map-overlap-tail", "map-overlap-around", "map-overlap-start", "map-overlap-end")
row("map-overlap-by-start-and-size", both(REFUSED, field("request", 24, "Q", lambda size: size != 4 * PAGE)), accept(),
    "map-overlap-head", "map-overlap-two")
row("map-overlap-inside-only", both(REFUSED, field("request", 16, "Q", lambda address: address < BASE)), accept(),
    "map-overlap-around", "map-overlap-start")
row("map-same-file-again", both(REFUSED, with_descriptors), accept(), "map-overlap-same-file")
row("map-touching-is-overlap", both(MAP, of(BASE + PAGE)), refuse(EEXIST), "map-touching")
row("map-gap-is-lost", both(MAP, nth(3)), refuse(EEXIST), "map-overlap-two")

# --- Fields
row("map-reply-repeats", replies("DMA_MAP"), longer(b"\0" * 32), "map-no-payload")
row("map-any-argsz", both(REFUSED, field("request", 0, "I", lambda argsz: argsz < 32)), accept(), "map-argsz-small")
row("map-size-zero-taken", both(REFUSED, field("request", 24, "Q", lambda size: size == 0)), accept(), "map-size-zero")
row("map-wrap-taken", REFUSED, accept(), "map-wrap", "map-wrap-file")
row("map-any-flags", REFUSED, accept(), "map-unknown-flags", "map-no-access")
row("map-unaligned-taken", REFUSED, accept(), "map-address-aligned", "map-size-aligned", "map-offset-aligned")
row("map-unaligned-other-errno", REFUSED, refuse(EIO), "map-address-aligned", "map-size-aligned",
    "map-offset-aligned", "map-argsz-small", "map-size-zero", "map-wrap", "map-wrap-file", "map-unknown-flags",
    "map-two-descriptors")

# --- Descriptors
row("map-beyond-file-taken", both(REFUSED, with_descriptors), accept(), "map-beyond-file", "map-empty-file")
row("map-last-page-refused", both(MAP, field("self", 8, "Q", lambda offset: offset == 3 * PAGE)), refuse(EINVAL),
    "map-same-file")
row("map-any-descriptor", both(REFUSED, with_descriptors), accept(), "map-socket", "map-eventfd", "map-folder",
    "map-read-only")
row("map-read-only-refused", both(MAP, field("self", 4, "I", lambda flags: flags == 1)), refuse(EINVAL),
    "map-read-only-taken", "map-without-descriptor")
row("map-first-descriptor", both(MAP, lambda m: len(m.fds) > 1), no_descriptors, "map-two-descriptors")
row("map-wants-descriptor", both(MAP, lambda m: not m.fds), refuse(EINVAL), "map-without-descriptor", "map-large")

# --- What stays
row("map-failure-unmaps", both(MAP, nth(1)), then_tell("DMA_UNMAP", unmap_of(BASE, 2 * PAGE)), "map-failure-keeps")


def forgotten_part(connection, m):
    """The range is noted before its descriptor turns out to be unusable."""
    return refuse(EINVAL)(connection, m) if m.is_reply else no_descriptors(connection, m)


row("map-failure-leaves-range", both(any_of(MAP, replies("DMA_MAP")), nth(0)), forgotten_part,
    "map-failure-leaves-nothing")
row("map-one-per-file", both(MAP, with_descriptors, lambda m: m.number > 0), refuse(EEXIST), "map-same-file")


def before_reset_only(connection, m):
    if m.command != 2:
        connection.memory["reset"] = True
        return m
    return refuse(EBUSY)(connection, m) if "reset" in connection.memory else m


row("map-after-reset-refused", requests("DEVICE_RESET", "DMA_MAP"), before_reset_only, "map-any-time")

# --- Numbers


def announces_16(_, m):
    m.payload = m.payload.replace(b'"max_dma_maps":65535', b'"max_dma_maps":16')
    return m


row("map-no-limit", replies("VERSION"), announces_16, "map-too-many")
row("map-few-descriptors", both(MAP, with_descriptors, lambda m: m.number >= 300), refuse(ENOSPC), "map-many-files")
row("map-keeps-places", any_of(replies("VERSION"), both(MAP, lambda m: m.number >= 16)),
    lambda connection, m: (announces_16 if m.is_reply else refuse(ENOSPC))(connection, m), "map-room-again")
row("map-leaks-descriptor", any_of(replies("VERSION"), both(MAP, nth(10))),
    lambda connection, m: (announces_16 if m.is_reply else leak)(connection, m), "map-many-files", timeout=500)

# --- Memory
row("map-private", both(MAP, of(FROM)), private, "map-shared")
row("map-private-second", both(MAP, of(TO)), private, "map-same-file-memory")
row("map-ignores-offset", both(MAP, of(FROM)), poke(8, "Q", 0), "map-offset")
row("map-ignores-access", MAP, poke(4, "I", 3), "map-not-writeable", "map-not-readable", "dma-not-readable",
    "dma-not-writeable", "unmap-other-access")


def replaced(connection, m):
    """The map that fails is there all the same, instead of the first."""
    if m.is_reply:
        return refuse(EEXIST)(connection, m)
    return first_tell("DMA_UNMAP", unmap_of(FROM, 2 * PAGE))(connection, m)


row("map-failure-replaces", both(any_of(MAP, replies("DMA_MAP")), nth(2)), replaced, "map-failure-keeps-memory")
row("map-unmapped-by-file", both(requests("DMA_UNMAP"), range_is(TO, at=8)),
    then_tell("DMA_UNMAP", unmap_of(FROM, 2 * PAGE)), "map-same-file-unmapped")
row("map-not-while-running", MAP, while_dma(refuse(EBUSY)), "map-while-running", "dma-meanwhile-read",
    "dma-meanwhile-write")
row("map-beyond-file-kills-user", any_of(both(REFUSED, with_descriptors), rings),
    lambda connection, m: (accept() if m.command == 2 else crash)(connection, m), "map-beyond-file-used")
row("map-cut-short-kills", requests("DMA_UNMAP"), crash, "map-cut-short")
row("map-cut-short-kills-user", both(rings, field("self", 16, "I", lambda count: count == 2)), crash,
    "map-cut-short-used")

# --- A device that does not tell whether it failed
row("map-ignores-access-silently", MAP, poke(4, "I", 3), "map-not-writeable", "map-not-readable", "dma-not-readable",
    "dma-not-writeable", server="edu")
row("map-private-silently", both(MAP, of(FROM)), private, "map-shared", server="edu")

# --- Without mapping any memory, but the ring's, where testdev needs it. Only advice is about descriptors then.
variant("map-by-messages", both(MAP, with_descriptors, field("self", 16, "Q", lambda address: address != RING)),
        no_descriptors, "map-[!beot]*", "map-overlap-*", "map-beyond-file-used", "map-eventfd", "map-to*", "unmap-*",
        "dma-*", "log-*")
