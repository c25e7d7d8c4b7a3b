"""What rows about interrupts and configuration space have in common: SET_IRQS, and accesses to regions by their place.

A fault of signalling is made without touching the server: the proxy sees the eventfds that a client sends, and gives
the server others, or signals them itself. What a server forgets is done behind its back by posted commands, which get
no reply (`posted_command`).
"""

import collections
import os
import struct

from mutation import both, requests
from proxy import COMMANDS, ERROR, NO_REPLY, Message

NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = (1 << bit for bit in range(6))
INTX, MSI, MSIX, ERR, REQ = range(5)
CONFIG = 7  # region

SLOW = 1000  # ms: the timeout of a row whose check waits for a signal that never comes


def posted_command(command, payload=b"", fds=()):
    """A command of the proxy's own, for the server."""
    return Message(0xffff, COMMANDS[command], NO_REPLY, 0, payload, list(fds), True)


# --- SET_IRQS ----------------------------------------------------------------------------------------------------

IrqSet = collections.namedtuple("IrqSet", "argsz flags index start count data nfds")


def irq_set(m):
    return IrqSet(*struct.unpack_from("<5I", m.payload), m.payload[20:], len(m.fds))


def set_irqs(test):
    """SET_IRQS of the client whose fields (an IrqSet) satisfy `test`."""
    return both(requests("SET_IRQS"), lambda m: len(m.payload) >= 20 and test(irq_set(m)))


def is_assign(s):
    return s.flags == EVENTFD | TRIGGER and s.nfds > 0


def is_take_away(s):
    return s.flags == EVENTFD | TRIGGER and s.nfds == 0 and s.count > 0


def is_disable(s):
    return s.flags == NONE | TRIGGER and s.count == 0


def is_trigger(s):
    return s.flags in (NONE | TRIGGER, BOOL | TRIGGER) and s.count > 0


def irq_payload(flags, index, start, count, data=b""):
    return struct.pack("<5I", 20 + len(data), flags, index, start, count) + data


def rewrite(**fields):
    """Other fields in a SET_IRQS; a function gives the new value from the IrqSet."""
    def transform(_, m):
        old = irq_set(m)
        new = old._replace(**{name: value(old) if callable(value) else value for name, value in fields.items()})
        m.payload = irq_payload(new.flags, new.index, new.start, new.count, new.data)
        return m
    return transform


def before(*commands):
    """Has the server execute these first; each is made from the message."""
    def transform(_, m):
        return [command(m) for command in commands] + [m]
    return transform


def behind(*commands):
    """Has the server execute these next."""
    def transform(_, m):
        return [m] + [command(m) for command in commands]
    return transform


def disable(index):
    return lambda _: posted_command("SET_IRQS", irq_payload(NONE | TRIGGER, index, 0, 0))


# --- Eventfds ----------------------------------------------------------------------------------------------------


def swallow(_, m):
    """The server gets eventfds whose signals nobody sees."""
    m.fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in m.fds]
    return m


def keep(connection, fd):
    """A duplicate that lives as long as the connection."""
    connection.kept.append(os.dup(fd))
    return connection.kept[-1]


def eventfds(connection, m):
    """All eventfds that were assigned up to this message, oldest first: {(index, vector): [fd, ...]}."""
    known = connection.memory.setdefault("eventfds", {})
    if m.from_client and m.command == COMMANDS["SET_IRQS"] and len(m.payload) >= 20 and is_assign(irq_set(m)):
        s = irq_set(m)
        for i, fd in enumerate(m.fds):
            known.setdefault((s.index, s.start + i), []).append(keep(connection, fd))
    return known


def spurious(when, which=-1):
    """For all messages. Signals, with those that `when` selects, every vector's last eventfd, or another of its."""
    def transform(connection, m):
        for fds in eventfds(connection, m).values():
            if when(m):
                os.eventfd_write(fds[which], 1)
        return m
    return transform


# --- Regions -----------------------------------------------------------------------------------------------------


def _place(m, region, at, size):
    """Where in the payload these bytes of the region are, or None."""
    head = (m.request if m.is_reply else m).payload[:16] if (m.request or not m.is_reply) else b""
    if len(head) < 16 or m.flags & ERROR:
        return None
    offset, where, count = struct.unpack("<QII", head)
    if where != region or at < offset or at + size > offset + count or len(m.payload) < 16 + count:
        return None
    return 16 + at - offset


def read_of(region, at, form):
    """Replies to REGION_READ that hold this field of the region."""
    def touches(m):
        return m.is_reply and not m.from_client and m.command == COMMANDS["REGION_READ"] \
            and _place(m, region, at, struct.calcsize("<" + form)) is not None
    return touches


def write_of(region, at, form):
    """Requests of REGION_WRITE that hold it."""
    def touches(m):
        return not m.is_reply and m.from_client and m.command == COMMANDS["REGION_WRITE"] \
            and _place(m, region, at, struct.calcsize("<" + form)) is not None
    return touches


def written(m, region, at, form):
    """The field's value in a message that one of these two selected."""
    return struct.unpack_from("<" + form, m.payload, _place(m, region, at, struct.calcsize("<" + form)))[0]


def alter(region, at, form, value):
    """Another value of the field, in a message that one of these two selected."""
    def transform(_, m):
        place = _place(m, region, at, struct.calcsize("<" + form))
        data = bytearray(m.payload)
        old = struct.unpack_from("<" + form, data, place)[0]
        new = value(old) if callable(value) else value
        struct.pack_into("<" + form, data, place, new & (1 << 8 * struct.calcsize("<" + form)) - 1)
        m.payload = bytes(data)
        return m
    return transform


def exact(region, at, size):
    """Accesses of just these bytes of the region."""
    return both(requests("REGION_READ", "REGION_WRITE"),
                lambda m: len(m.payload) >= 16 and struct.unpack_from("<QII", m.payload) == (at, region, size))


def write_command(region, at, form, value):
    """A write of the proxy's own."""
    data = struct.pack("<" + form, value)
    return lambda _: posted_command("REGION_WRITE", struct.pack("<QII", at, region, len(data)) + data)


def accept_write(_, m):
    """The write is answered and not done."""
    return None if m.flags & NO_REPLY else m.reply(m.payload[:16])
