"""VU-CON: what is broken in how messages and descriptors travel, and in what ends with a connection."""

import contextlib
import os
import socket
import struct

from mutation import (GET, LOG_REPORT, accept, answers, asked_by_server, behind,
                      both, change, checks_only, client_replies, close, complete, crash, cut_off, drop,
                      extra_descriptor, field, hoard, keep_descriptors, lost, no_descriptors, nth, poke, posted,
                      posted_request, posted_write, postpone, refuse, refused, replies, requests, row, spin, when)
from proxy import COMMANDS

INFO = b"\x10\0\0\0\x03\0\0\0\x09\0\0\0\x05\0\0\0"


def numbered(ident):
    return lambda m: m.id == ident


def asked(test):
    """What is answered satisfies the test."""
    return lambda m: m.request is not None and test(m.request)


# --- Pieces, segments, order -----------------------------------------------------------------------------------------

row("connection-header-in-one-read", both(requests(), checks_only, lambda m: any(at < 16 for at in m.breaks)), close,
    "connection-split-header", "connection-split-bytes")
row("connection-payload-in-one-read", both(requests(), checks_only, lambda m: any(at >= 16 for at in m.breaks)), close,
    "connection-split-payload", "connection-split-bytes")
row("connection-one-message-a-read", requests(), when(lambda c, m: c.client.buffer, close),
    "connection-split-second", "connection-many", "connection-behind-version")
row("connection-version-in-one-read", both(requests("VERSION"), lambda m: m.breaks), close,
    "connection-split-version")
row("connection-256-kib", both(requests(), lambda m: len(m.payload) + 16 >= 262144), close, "connection-split-large")
row("connection-500-outstanding", requests(), when(lambda c, m: sum(map(len, c.asked.values())) > 500, refuse(11)),
    "connection-many", "connection-pipeline")
row("connection-unmaps-later", requests("DMA_MAP", "DMA_UNMAP"), postpone(requests("DMA_UNMAP")),
    "connection-order-maps")
row("connection-posted-later", both(requests("REGION_WRITE", "REGION_READ"), checks_only), postpone(posted),
    "connection-posted-register")
row("connection-posted-when-idle", both(requests(), checks_only), postpone(posted, behind=2),
    "connection-posted-register", "connection-posted-interrupt", "connection-posted-memory")
row("connection-info-answered-later", both(replies(), checks_only), postpone(replies("GET_REGION_INFO")),
    "connection-order-replies")
row("connection-refused-at-once", both(replies(), checks_only), postpone(both(replies("GET_INFO"), numbered(5))),
    "connection-order-replies")
row("connection-file-maps-answered-later", both(replies(), checks_only),
    postpone(both(replies("DMA_MAP"), asked(lambda request: request.fds))), "connection-order-map-replies")
row("connection-header-split", both(replies("REGION_READ"), checks_only, nth(0)), change(cuts=(8,)),
    "connection-whole-headers")


def stale(connection, m):
    """A read shows what the one before it should have."""
    m.payload, connection.memory["read"] = connection.memory.get("read", m.payload), m.payload
    return m


row("connection-reads-stale", both(replies("REGION_READ"), numbered(2)), stale,
    "connection-order-registers", "connection-posted-register")

# --- Descriptors -----------------------------------------------------------------------------------------------------


def first_descriptor(connection, m):
    """Every eventfd is the first that came."""
    kept = connection.memory.setdefault("first", [os.dup(fd) for fd in m.fds])
    m.fds = [os.dup(fd) for fd in kept]
    return m


def fewer_descriptors(count):
    return change(fds=lambda m: m.fds[:count])


WITH_FDS = both(requests(), lambda m: m.fds)

row("connection-first-eventfd-stays", both(requests("SET_IRQS"), lambda m: m.fds), first_descriptor,
    "connection-fd-each-its-own", timeout=1000)
row("connection-fds-with-first-byte-only", both(WITH_FDS, lambda m: m.late_fds), refuse(22),
    "connection-fd-in-header", "connection-fd-in-payload", "connection-fd-last-byte")
row("connection-fds-with-last-byte-only", both(WITH_FDS, lambda m: m.breaks and not m.late_fds), refuse(22),
    "connection-fd-first-byte", "connection-fd-header")
row("connection-fds-of-one-piece", both(WITH_FDS, lambda m: m.breaks), fewer_descriptors(1),
    "connection-fd-two-pieces")
for command, checks in (
        ("DMA_MAP", ("closed-map", "closed-overlap", "closed-truncated", "closed-posted", "closed-early",
                     "none-left", "end-files", "end-used-file")),
        ("SET_IRQS", ("closed-set-irqs", "end-eventfds")), ("GET_INFO", ("closed-info",)),
        ("REGION_READ", ("closed-access",)), ("DEVICE_FEATURE", ("closed-feature",)),
        ("MIG_DATA_WRITE", ("closed-feature",)), ("DEVICE_RESET", ("closed-reset",)),
        ("VERSION", ("closed-version",))):
    for check in checks:
        row(f"connection-keeps-{command.lower()}-{check}", requests(command), keep_descriptors, f"connection-{check}",
    timeout=1000)
row("connection-keeps-unknown", both(requests(), lambda m: m.command == 14), keep_descriptors,
    "connection-closed-unknown", timeout=1000)
row("connection-keeps-fds-of-replies", client_replies(), keep_descriptors, "connection-closed-reply", timeout=1000)
row("connection-keeps-fds-of-halves", cut_off, keep_descriptors, "connection-closed-half", timeout=1000)
row("connection-keeps-fds-at-framing", lost, keep_descriptors, "connection-closed-framing", timeout=1000)
row("connection-keeps-fds-beyond-limit", both(WITH_FDS, lambda m: len(m.fds) > 16), keep_descriptors,
    "connection-closed-too-many", timeout=1000)
row("connection-keeps-fds-of-nonsense", requests(), keep_descriptors, "connection-malformed-fds", timeout=1000)
row("connection-takes-some-fds", both(WITH_FDS, lambda m: len(m.fds) > 16), fewer_descriptors(1),
    "connection-too-many-fds", "connection-too-many-253", "connection-too-many-pieces")
row("connection-joins-fd-behind", both(replies("GET_INFO"), checks_only, numbered(1)), change(join=True),
    "connection-fd-begins")
row("connection-joins-behind-fd", both(replies("GET_REGION_INFO"), checks_only, numbered(2)), change(join=True),
    "connection-fd-alone")
row("connection-fd-with-info", both(replies("GET_INFO"), checks_only), extra_descriptor, "connection-no-fds")
row("connection-fd-with-map", replies("DMA_MAP"), extra_descriptor, "connection-no-fds")
row("connection-fd-with-set-irqs", replies("SET_IRQS"), extra_descriptor, "connection-no-fds-set-irqs")

# --- The end of a connection -----------------------------------------------------------------------------------------


def signal_old_eventfds(connection, m):
    """Eventfds of clients that are gone are signalled by whatever may cause an interrupt."""
    eventfds = connection.proxy.memory.setdefault("eventfds", [])
    if m.command == COMMANDS["SET_IRQS"] and m.fds:
        eventfds += [(connection.number, os.dup(fd)) for fd in m.fds]
        return m
    for number, fd in eventfds:
        if number < connection.number:
            os.write(fd, struct.pack("<Q", 1))
    return m


def keep_no_descriptors(connection, m):
    """Once a client takes none, none are sent to anybody."""
    memory = connection.proxy.memory
    if m.from_client:
        memory["none"] = memory.get("none", False) or b'"max_msg_fds":0' in m.payload
        return m
    return no_descriptors(connection, m) if memory.get("none") else m


row("connection-maps-stay",
    both(replies("DMA_UNMAP"), refused, field("request", 16, "Q", lambda size: size == 4 * 4096)), accept(bytes(24)),
    "connection-end-maps")
row("connection-maps-stay-in-the-way",
    both(requests("DMA_MAP"), field("self", 24, "Q", lambda size: size == 8 * 4096)), refuse(17),
    "connection-end-maps")
row("connection-eventfds-stay", requests("SET_IRQS", "REGION_WRITE"), signal_old_eventfds,
    "connection-end-trigger", "connection-end-raise")
row("connection-resets", both(requests("VERSION"), checks_only), behind(posted_request("DEVICE_RESET")),
    "connection-keeps-registers")
row("connection-clears-memory", both(requests("VERSION"), checks_only),
    behind(posted_write(2, 0, struct.pack("<Q", 0x0123456789abcdef))), "connection-keeps-memory")
row("connection-map-once", both(requests("DMA_MAP"), checks_only), when(lambda c, m: c.number > 5, refuse(17)),
    "connection-next")
for check in ("next", "next-irqs", "next-silent", "next-framing", "next-unread"):
    row(f"connection-four-clients-{check}", requests("VERSION"), when(lambda c, m: c.number > 8, refuse(11)),
        f"connection-{check}")
row("connection-version-stays", both(replies("GET_INFO"), refused, checks_only), accept(INFO),
    "connection-forgets-version")
row("connection-limits-stay", lambda m: m.command in (COMMANDS["VERSION"], COMMANDS["GET_REGION_INFO"]),
    keep_no_descriptors, "connection-forgets-limits")
row("connection-logging-stays",
    both(answers(GET | LOG_REPORT), refused),
    accept(bytes(40)), "connection-forgets-logging")
row("connection-halves-executed", cut_off, complete,
    "connection-half-write", "connection-half-posted", "connection-half-memory")

# --- Load ------------------------------------------------------------------------------------------------------------


def end_others(connection, m):
    for other in list(connection.proxy.connections):
        if other is not connection:
            with contextlib.suppress(OSError):  # it may be gone already
                other.client.socket.shutdown(socket.SHUT_RDWR)
    return m


def hang(where):
    """From such a message on nobody is served any more."""
    def transform(connection, m):
        memory = connection.proxy.memory
        memory["hangs"] = memory.get("hangs", False) or where(m)
        return None if memory["hangs"] else m
    return transform


row("connection-loses-while-it-waits", requests("GET_INFO"), when(lambda c, m: asked_by_server(c), drop),
    "connection-dma-keeps", timeout=1000)
row("connection-busy-while-it-waits", both(requests(), checks_only), when(lambda c, m: asked_by_server(c), refuse(16)),
    "connection-dma-keeps", "connection-dma-goes-on")
row("connection-spins-in-halves", requests("VERSION"), spin(lambda c: c.client.buffer), "connection-rests-half",
    timeout=1000)
row("connection-spins-idle", both(requests("VERSION"), checks_only), spin(lambda c: c.seen), "connection-rests-idle",
    timeout=1000)
row("connection-spins-early", requests("VERSION"), spin(lambda c: not c.seen), "connection-rests-early",
    timeout=1000)
row("connection-hoards", both(requests("VERSION"), checks_only), hoard, "connection-unread")
row("connection-irq-info-never", both(replies("GET_IRQ_INFO"), checks_only), drop, "connection-in-time",
    timeout=1000)
row("connection-second-ends-first", both(requests("VERSION"), checks_only), end_others, "connection-second")
row("connection-newer-ends-older", both(requests("GET_INFO"), checks_only),
    when(lambda c, m: c.number + 1 < c.proxy.accepted, close), "connection-second-many")
row("connection-second-never", requests("VERSION"), when(lambda c, m: c.number == 6, drop), "connection-second-waits",
    timeout=1000)
row("connection-crash-at-odd-size", both(requests(), checks_only, lambda m: len(m.payload) == 5), crash,
    "connection-malformed")
row("connection-hangs-at-odd-size", both(requests(), checks_only), hang(lambda m: len(m.payload) == 9),
    "connection-malformed", timeout=1000)
