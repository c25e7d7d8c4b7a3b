"""VU-HDR: clients with faults in their headers and replies, and clients that do not see those of the server's."""

import struct

from client_good import GOOD_VERSION, good_read, outstanding, together
from mutation import (accept, accepted, any_of, both, change, client_replies, client_row, close, crash_client, drop,
                      longer, nth, posted, refused, replies, requests, server_requests, shorter, twice)

# What they send.
client_row("client-unknown-command", requests("GET_IRQ_INFO"), change(command=77), "header-layout")
client_row("client-size-without-header", requests("GET_IRQ_INFO"), change(size=lambda m: len(m.payload)), "header-size")
client_row("client-size-zero", requests("GET_IRQ_INFO"), change(size=0), "header-size")
client_row("client-odd-type", both(requests("GET_INFO"), nth(0)), lambda _, m: [m.copy(flags=2), m], "header-type")
client_row("client-odd-flag", requests("GET_INFO"), change(flags=0x40), "header-flags")
client_row("client-error-field", requests("REGION_READ"), change(error=5), "header-error-zero")

# What they answer.
client_row("client-reply-id", client_replies(), change(id=lambda m: m.id + 1), "reply-id")
client_row("client-reply-command", client_replies("DMA_READ"), change(command=12), "reply-command")
client_row("client-refusal-without-type", both(client_replies(), refused), change(flags=0x20), "reply-type")
client_row("client-reply-twice", client_replies(), twice, "reply-once")
client_row("client-reply-twice-late", client_replies(),
           lambda c, m: [m] if c.memory.setdefault("seen", m.id) == m.id else [m, m.copy()], "reply-once")
client_row("client-answers-posted", both(server_requests("DMA_WRITE"), posted), change(flags=0), "reply-posted",
           "reply-posted-fails")
client_row("client-drops-posted", both(server_requests("DMA_WRITE"), posted), drop, "reply-posted")
client_row("client-refusal-as-success", both(client_replies(), refused), change(flags=1, error=0), "reply-error-flag")
client_row("client-success-as-refusal", both(client_replies(), accepted), change(flags=0x21), "dma-served")
client_row("client-refusal-with-payload", both(client_replies(), refused), longer(b"\0" * 16), "reply-error-alone")
client_row("client-reply-flag", client_replies(), change(flags=lambda m: m.flags | 0x40), "reply-flags")


def confuse_ids(connection, m):
    """Takes a command that has the id of one of its own for the reply to that."""
    return close(connection, m) if outstanding(connection, m.id) else m


client_row("client-confuses-ids", server_requests(), confuse_ids, "reply-same-id")

# What they make of odd replies.
client_row("client-errno-zero-is-success", both(replies("REGION_READ"), refused, lambda m: m.error == 0),
           accept(good_read), "error-zero")
client_row("client-takes-any-errno", both(replies("REGION_READ"), refused, lambda m: m.error > 4095), accept(good_read),
           "error-negative")
client_row("client-wants-type", both(replies("REGION_READ"), lambda m: m.flags == 0x20), accept(good_read),
           "error-without-type")


def answers_unasked(connection, m):
    """Takes a refusal without the reply type for a command."""
    m.flags = 0x21
    connection.forward(m.copy(from_client=True, flags=0x21, error=38))
    return m


client_row("client-answers-refusal", both(replies("REGION_READ"), lambda m: m.flags == 0x20), answers_unasked,
           "error-without-type")


def as_asked(connection, m):
    """The reply becomes one to the oldest command that waits."""
    waiting = outstanding(connection)
    if m.request is None and waiting:
        m.id, m.command = waiting[0].id, waiting[0].command
    return m


client_row("client-ignores-id", both(replies(), lambda m: m.request is None), as_asked, "answer-other-id",
           "answer-other-command")
client_row("client-dies-of-second-reply", both(replies("REGION_READ"), lambda m: m.request is None), crash_client,
           "answer-twice")


def crash_if_overtaken(connection, m):
    waiting = connection.memory.setdefault("waiting", [])
    if not m.is_reply:
        waiting.append(together(connection, m))
    elif m.request is waiting[0]:
        waiting.pop(0)
    else:
        return crash_client(connection, m)
    return m


client_row("client-dies-of-overtaking", any_of(both(requests(), lambda m: not posted(m)), replies()),
           crash_if_overtaken, "answer-out-of-order")

# Short and long ones that they do not notice.
client_row("client-short-version", both(replies("VERSION"), lambda m: len(m.payload) < 4), change(payload=GOOD_VERSION),
           "answer-short-version")
for name, command, tail in (("info", "GET_INFO", struct.pack("<I", 5)), ("region-info", "GET_REGION_INFO", b"\0" * 8),
                            ("irq-info", "GET_IRQ_INFO", struct.pack("<I", 1))):
    client_row(f"client-short-{name}", both(replies(command), lambda m, n=len(tail): len(m.payload) in (12, 24)),
               longer(tail), f"answer-short-{name}")
client_row("client-short-read", both(replies("REGION_READ"), lambda m: len(m.payload) == 8), accept(good_read),
           "answer-short-read")
client_row("client-short-write", both(replies("REGION_WRITE"), lambda m: len(m.payload) == 12),
           accept(lambda request: request.payload[:16]), "answer-short-write")
for name, command, size in (("map", "DMA_MAP", 8), ("set-irqs", "SET_IRQS", 20), ("reset", "DEVICE_RESET", 4)):
    client_row(f"client-long-{name}", both(replies(command), lambda m: len(m.payload) > 0), shorter(size),
               f"answer-long-{name}")
