"""What rows about interrupts have in common: SET_IRQS, and eventfds.

A fault of signalling is made without touching the server: the proxy sees the eventfds that a client sends, and gives
the server others, or signals them itself.
"""

import collections
import os
import struct

from mutation import both, posted_request, requests
from proxy import COMMANDS

NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER = (1 << bit for bit in range(6))
INTX, MSI, MSIX, ERR, REQ = range(5)

SLOW = 1000  # ms: the timeout of a row whose check waits for a signal that never comes


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


def disable(index):
    """For before() and behind()."""
    return posted_request("SET_IRQS", irq_payload(NONE | TRIGGER, index, 0, 0))


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
