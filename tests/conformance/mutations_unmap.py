"""VU-UNMAP: what is broken in DMA_UNMAP."""

import os

from memory import BASE, FROM, PAGE, TO, leak, range_is, then_tell, unmap_of, while_dma
from mutation import accept, any_of, both, field, longer, poke, refuse, refused, replies, requests, row, shorter

UNMAP = requests("DMA_UNMAP")
REFUSED = both(replies("DMA_UNMAP"), refused)
EIO, EBUSY, EINVAL, ENOENT = 5, 16, 22, 2

ALL = field("self", 4, "I", lambda flags: flags == 2)
SOME = field("self", 4, "I", lambda flags: flags == 0)


def repeated(request):
    return request.payload


# --- Which maps
row("unmap-any-range", REFUSED, accept(repeated), "unmap-middle", "unmap-head", "unmap-tail", "unmap-around",
    "unmap-longer", "unmap-across", "unmap-two", "unmap-twice", "unmap-size-zero", "unmap-wrap",
    "unmap-nothing-enoent", "unmap-inexact-enoent", "unmap-unknown-flags", "unmap-argsz-small", "unmap-all-address",
    "unmap-all-size")
row("unmap-by-start", both(REFUSED, range_is(BASE, where="request", at=8)), accept(repeated), "unmap-head",
    "unmap-longer", "unmap-two", "unmap-twice")
row("unmap-what-overlaps", REFUSED, then_tell("DMA_UNMAP", unmap_of(BASE, 4 * PAGE)), "unmap-middle", "unmap-head",
    "unmap-tail", "unmap-around", "unmap-longer", "unmap-across", "unmap-inexact-enoent")
row("unmap-two-halves", REFUSED, then_tell("DMA_UNMAP", unmap_of(BASE, PAGE)), "unmap-two", "unmap-size-zero",
    "unmap-wrap", "unmap-unknown-flags", "unmap-argsz-small", "unmap-all-address", "unmap-all-size")
row("unmap-other-errno", REFUSED, refuse(EINVAL), "unmap-nothing-enoent", "unmap-inexact-enoent")
row("unmap-eio", REFUSED, refuse(EIO), "unmap-all-address", "unmap-all-size", "unmap-unknown-flags")
row("unmap-nothing", both(UNMAP, SOME), accept(repeated), "unmap-twice", "unmap-again", "unmap-again-stream",
    "unmap-not-read", "unmap-not-written", "unmap-no-dma-read", "unmap-no-dma-write", "unmap-pieces-read",
    "unmap-pieces-write", "unmap-ring", "unmap-other-file", "unmap-other-access", "unmap-descriptor")
row("unmap-refused-unmaps", REFUSED, then_tell("DMA_UNMAP", unmap_of(FROM, PAGE)), "unmap-refused-keeps")

# --- The reply
row("unmap-reply-empty", replies("DMA_UNMAP"), shorter(24), "unmap-reply", "unmap-reply-all")
row("unmap-reply-other-address", replies("DMA_UNMAP"), poke(8, "Q", 0x1000), "unmap-reply", "unmap-reply-all")
row("unmap-reply-as-large-as-argsz", both(replies("DMA_UNMAP"), field("request", 0, "I", lambda argsz: argsz > 24)),
    longer(bytes(4096 - 24)), "unmap-argsz-large")
row("unmap-needs-small-argsz", both(UNMAP, field("self", 0, "I", lambda argsz: argsz > 24)), refuse(EINVAL),
    "unmap-argsz-large")

# --- Everything
row("unmap-all-unknown", both(UNMAP, ALL), refuse(EINVAL), "unmap-all-none")
row("unmap-all-nothing", both(UNMAP, ALL), accept(repeated), "unmap-all", "unmap-all-memory")
row("unmap-all-of-none-refused", both(UNMAP, ALL, lambda m: m.number == 0), refuse(ENOENT), "unmap-all-none")

# --- Descriptors
row("unmap-descriptor-refused", both(UNMAP, lambda m: m.fds), refuse(EINVAL), "unmap-descriptor",
    "unmap-descriptor-all")
row("unmap-descriptor-leaks", UNMAP, leak, "unmap-descriptor", "unmap-descriptor-all", "unmap-descriptor-none",
    timeout=500)

row("unmap-leaks-memory", requests("DMA_MAP"), leak, "unmap-closed")

# --- Memory in use
row("unmap-not-while-running", UNMAP, while_dma(refuse(EBUSY)), "unmap-under-way-read", "unmap-under-way-write",
    "unmap-pieces-read", "unmap-pieces-write")


def writes_late(connection, m):
    """What the device was about to write it writes after the reply."""
    if m.command == 2 and range_is(TO, at=16)(m):
        os.close(connection.memory.pop("memory", os.open("/dev/null", os.O_RDONLY)))
        connection.memory["memory"] = os.dup(m.fds[0])
    elif m.command == 3 and range_is(TO, at=8)(m):
        connection.memory["unmapped"] = True
    elif "unmapped" in connection.memory:
        os.pwrite(connection.memory["memory"], b"late", 64)
    return m


row("unmap-answered-early", requests("DMA_MAP", "DMA_UNMAP", "REGION_READ"), writes_late, "unmap-race")


def keeps_first(connection, m):
    """Memory that is mapped where other memory was is not looked at: the old is still in a cache."""
    if m.command == 2:
        return m if m.number == 0 else m.reply()
    return m.reply(repeated(m))


row("unmap-cached", any_of(both(requests("DMA_MAP"), range_is(FROM, at=16)),
                           both(UNMAP, range_is(FROM, at=8))), keeps_first, "unmap-other-file")

# --- A device that does not tell whether it failed
row("unmap-nothing-silently", both(UNMAP, SOME), accept(repeated), "unmap-not-read", "unmap-not-written",
    "unmap-no-dma-read", "unmap-no-dma-write", server="edu")
