"""VU-DMA: what is broken in DMA_READ and DMA_WRITE, and in what is made of their replies."""

import struct

from memory import FROM, PAGE, TO, rings, then_ask, while_dma
from mutation import COMMANDS, ERROR, NO_REPLY, REPLY, accepted, any_of, both, change, client_replies, drop, field, \
    longer, poke, refuse, refused, replies, requests, row, server_requests, shorter

READ, WRITE = server_requests("DMA_READ"), server_requests("DMA_WRITE")
READ_REPLY, WRITE_REPLY = client_replies("DMA_READ"), client_replies("DMA_WRITE")
RANG = both(replies("REGION_WRITE"), rings)
LEN = 64
EBUSY, EPROTO, EEXIST = 16, 71, 17

# --- What is asked for
row("dma-data-wrong", both(READ_REPLY, accepted), poke(16, "B", lambda byte: byte ^ 1), "dma-data", "dma-mixed",
    "dma-write-layout", "dma-piece")
row("dma-write-one-further", WRITE, poke(0, "Q", lambda address: address + 1), "dma-data", "dma-write-layout")
row("dma-read-one-further", READ, poke(0, "Q", lambda address: address + 1), "dma-data", "dma-mixed")
row("dma-read-count-4", READ, shorter(4), "dma-read-layout")
row("dma-read-elsewhere", READ, poke(0, "Q", lambda address: address + LEN), "dma-read-layout")
row("dma-read-with-data", READ, longer(bytes(LEN)), "dma-read-layout")
row("dma-read-of-nothing", READ, poke(8, "Q", 0), "dma-read-layout")
row("dma-read-posted", READ, change(flags=NO_REPLY), "dma-read-layout")
row("dma-write-short", WRITE, shorter(1), "dma-write-layout")
row("dma-write-error-field", WRITE, change(error=5), "dma-write-layout")
row("dma-unmapped", RANG, then_ask("DMA_READ", FROM, LEN), "dma-read-unmapped", "unmap-no-dma-read")
row("dma-write-unmapped", RANG, then_ask("DMA_WRITE", TO, LEN, bytes(LEN)), "dma-write-unmapped",
    "unmap-no-dma-write")
row("dma-read-beyond", RANG, then_ask("DMA_READ", FROM + PAGE - LEN, 2 * LEN), "dma-read-beyond")
row("dma-write-beyond", RANG, then_ask("DMA_WRITE", TO - LEN, 2 * LEN, bytes(2 * LEN)), "dma-write-beyond")
row("dma-read-wraps", RANG, then_ask("DMA_READ", (1 << 64) - LEN // 2, LEN), "dma-wrap")
row("dma-write-wraps", RANG, then_ask("DMA_WRITE", (1 << 64) - LEN // 2, LEN, bytes(LEN)), "dma-wrap")
row("dma-read-write-only", RANG, then_ask("DMA_READ", FROM, LEN), "dma-not-readable")
row("dma-write-read-only", RANG, then_ask("DMA_WRITE", TO, LEN, bytes(LEN)), "dma-not-writeable")


def large_pieces(_, m):
    """36 KiB at a time, of which the server behind sees the 32 that it asked for."""
    asked = (m.request or m).payload
    address, count = struct.unpack_from("<QQ", asked)
    if not m.is_reply:
        m.payload = struct.pack("<QQ", address, count + 4096)
    else:
        m.payload = struct.pack("<QQ", address, count - 4096) + m.payload[16:16 + count - 4096]
    return m


row("dma-pieces-of-36k", both(any_of(READ, READ_REPLY),
                              lambda m: struct.unpack_from("<Q", (m.request or m).payload, 8)[0] >= 32768),
    large_pieces, "dma-piece")

# --- Meanwhile
ANY = requests()
row("dma-busy-meanwhile", ANY, while_dma(refuse(EBUSY)), "dma-meanwhile-read", "dma-meanwhile-write",
    "dma-meanwhile-reset")


def stalled(connection, m):
    """Nothing is read before the reply has come, and it is looked for behind all else."""
    held = connection.memory.setdefault("held", [])
    if m.is_reply:
        connection.memory["held"] = []
        return [m] + held
    if connection.asked.get((False, False, *connection.memory.get("waits", ()))):
        held.append(m)
        return None
    return m


def notes_wait(connection, m):
    connection.memory["waits"] = (m.id, m.command)
    return m


row("dma-stalls", any_of(ANY, READ, READ_REPLY),
    lambda connection, m: (stalled if m.from_client else notes_wait)(connection, m),
    "dma-meanwhile-read", timeout=500)

# --- Replies


def refusal(_, m):
    m.flags, m.error, m.payload = REPLY | ERROR, EPROTO, b""
    return m


def reply_size(*sizes):
    return both(WRITE_REPLY, lambda m: len(m.payload) in sizes)


row("dma-write-reply-as-text", reply_size(16, 0), refusal, "dma-write-reply-8", "dma-write-reply-none")
row("dma-write-reply-as-library", reply_size(12, 0), refusal, "dma-write-reply-4", "dma-write-reply-none")
row("dma-write-reply-as-qemu", reply_size(12, 16), refusal, "dma-write-reply-4", "dma-write-reply-8")


def believed(_, m):
    """Whatever the reply is, it is what was asked for; data that is not there are zeros."""
    address, count = struct.unpack_from("<QQ", m.request.payload)
    m.flags, m.error = REPLY, 0
    if m.command == COMMANDS["DMA_READ"]:
        m.payload = struct.pack("<QQ", address, count) + (m.payload[16:] + bytes(count))[:count]
    else:
        m.payload = struct.pack("<QQ", address, count)
    return m


row("dma-refusal-ignored", both(any_of(READ_REPLY, WRITE_REPLY), refused), believed, "dma-refused-read",
    "dma-refused-write", "dma-refused-zero", "dma-refused-no-errno", "dma-reply-error-data")
row("dma-errno-decides", both(any_of(READ_REPLY, WRITE_REPLY), refused, lambda m: not 0 < m.error < 4096), believed,
    "dma-refused-zero", "dma-refused-no-errno")
row("dma-replies-believed", any_of(READ_REPLY, WRITE_REPLY), believed, "dma-reply-short", "dma-reply-long",
    "dma-reply-more", "dma-reply-no-data", "dma-reply-header", "dma-reply-cut", "dma-reply-count-huge",
    "dma-reply-error-data", "dma-write-reply-cut", "dma-write-reply-more", "dma-reply-part")
row("dma-count-32-bits", READ_REPLY, poke(12, "I", 0), "dma-reply-count-huge")


def closes_device(connection, m):
    """One refusal, and the device does no DMA any more."""
    if m.from_client:
        connection.memory["failed"] = True
        return m
    return None if "failed" in connection.memory else m


row("dma-refusal-is-final", any_of(both(any_of(READ_REPLY, WRITE_REPLY), refused), READ, WRITE), closes_device,
    "dma-refused-read", "dma-refused-write", timeout=500)


def asks_again(connection, m):
    return connection.memory.setdefault("asked", m.request).copy()


row("dma-nothing-asked-again", both(READ_REPLY, field("self", 8, "Q", lambda count: count == 0)), asks_again,
    "dma-reply-nothing")

# --- No reply


def for_the_last(connection, m):
    """A reply is that to the youngest command."""
    if m.is_reply:
        m.id = connection.memory["last"]
    else:
        connection.memory["last"] = m.id
    return m


row("dma-late-reply-taken", any_of(READ, READ_REPLY), for_the_last, "dma-late")
row("dma-unanswered-kept", both(READ, lambda m: m.number >= 16), drop, "dma-unanswered", timeout=500)
row("dma-goes-on-after-unmap", WRITE_REPLY, then_ask("DMA_WRITE", TO + 16, 16, bytes(16)), "unmap-pieces-write")


def maps_of_all(connection, m):
    """Maps outlive the connection."""
    maps = connection.proxy.memory.setdefault("maps", {})
    known = maps.setdefault(m.payload[16:32], connection)
    return m if known is connection else m.reply(error=EEXIST)


row("dma-maps-outlive-client", requests("DMA_MAP"), maps_of_all, "dma-gone")

# --- A device that does not tell whether it failed
row("dma-data-wrong-silently", both(READ_REPLY, accepted), poke(16, "B", lambda byte: byte ^ 1), "dma-data",
    "dma-mixed", server="edu")
