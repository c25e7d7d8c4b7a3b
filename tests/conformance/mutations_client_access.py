"""VU-RD, VU-WR, VU-MULTI, VU-DMA: clients that access regions wrongly, or their own memory for the server."""

import struct

from client_good import good_read
from mutation import (accept, accepted, any_of, both, change, client_replies, client_row, close, drop, field, longer,
                      nth, poke, refused, replies, requests, server_requests, shorter)

# Accesses.
client_row("client-read-longer", requests("REGION_READ"), longer(b"\0" * 4), "read-layout")
client_row("client-write-shorter", requests("REGION_WRITE"), shorter(1), "write-layout")
client_row("client-multi-count", requests("REGION_WRITE_MULTI"), poke(0, "Q", lambda count: count + 1), "multi-layout")
client_row("client-multi-nine-bytes", requests("REGION_WRITE_MULTI"), poke(20, "I", 9), "multi-layout")
client_row("client-believes-reads", both(replies("REGION_READ"), accepted,
                                         field("request", 0, "Q", lambda offset: offset == 0),
                                         field("request", 8, "I", lambda region: region == 0)),
           accept(good_read), "read-count-above", "read-count-too-large", "read-count-too-small", "read-no-data")
client_row("client-believes-writes", both(replies("REGION_WRITE"), accepted),
           accept(lambda request: request.payload[:16]), "write-count-below", "write-count-above")

EMPTY = 0x7777  # the id of a read that client_driver does not know of


def read_nothing(_, m):
    if m.is_reply:
        return None if m.id == EMPTY and len(m.payload) == 16 else close(_, m) if m.id == EMPTY else m
    return [m.copy(id=EMPTY, payload=m.payload[:12] + struct.pack("<I", 0)), m]


client_row("client-wants-payload", any_of(both(requests("REGION_READ"), nth(1)), replies("REGION_READ")), read_nothing,
           "access-nothing")


def wait_for_multi(_, m):
    """Waits for the reply to what client_driver posted, and does not look at it."""
    if m.is_reply:
        return None
    m.flags = 0
    return m


client_row("client-believes-multi", any_of(requests("REGION_WRITE_MULTI"), replies("REGION_WRITE_MULTI")),
           wait_for_multi, "multi-count-below", "multi-count-above")

# DMA. The driver's maps with a descriptor lie from 0x10000000 on, below 0x30000000.
READ, WRITE = client_replies("DMA_READ"), client_replies("DMA_WRITE")
client_row("client-dma-count-narrow", both(READ, accepted),
           change(payload=lambda m: m.payload[:12] + m.payload[16:]), "dma-read")
client_row("client-dma-write-header", both(WRITE, accepted), change(payload=b""), "dma-write")
client_row("client-refuses-shared-memory", both(server_requests(),
                                                field("self", 0, "Q", lambda at: 0x10000000 <= at < 0x30000000)),
           lambda _, m: m.reply(error=1), "dma-with-descriptor", "dma-write-seen")
client_row("client-dma-other-memory", both(READ, accepted), change(payload=lambda m: m.payload[:-1] + b"?"),
           "dma-with-descriptor")
client_row("client-forgets-writes", server_requests("DMA_WRITE"), lambda _, m: m.reply(m.payload[:16]),
           "dma-write-seen", "dma-write-read")
client_row("client-serves-a-page", both(server_requests("DMA_READ"), field("self", 8, "Q", lambda count: count > 4096)),
           lambda _, m: m.reply(error=7), "dma-whole-map")
client_row("client-serves-everything", both(any_of(READ, WRITE), refused),
           accept(lambda request: request.payload[:16] + bytes(64)), "dma-unmapped", "dma-partly-mapped", "dma-wraps",
           "dma-after-unmap", "dma-unreadable", "dma-unwriteable", "dma-large-read", "dma-huge-read",
           "dma-data-missing", "dma-data-left")
client_row("client-takes-any-size", both(server_requests("DMA_WRITE"), lambda m: len(m.payload) > 1 << 20),
           lambda _, m: m.reply(m.payload[:16]), "dma-large-write")
client_row("client-drops-large-write", both(server_requests("DMA_WRITE"), lambda m: len(m.payload) > 1 << 20), drop,
           "dma-large-write")
