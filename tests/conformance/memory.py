"""What the rows about guest memory and DMA share: where checks have their memory, and faults that only a server can
have: the proxy makes them by telling the real one something else.
"""

import dataclasses
import os
import struct

from mutation import COMMANDS, NO_REPLY

PAGE = 4096  # of maps, in Outboard
BASE = 0x10000000  # of maps that no device uses
FROM, TO = 0x01000000, 0x02000000  # what devices read, and write
RING = 0x0f000000  # where exercisers have theirs
DOORBELL, DONE = 0x90, 0x94  # registers of the test device: it copies, and how much it has


def range_is(address=None, size=None, where="self", at=0):
    """A DMA command or DMA_UNMAP (at=8), or DMA_MAP (at=16), of that range."""
    def touches(m):
        payload = (m if where == "self" else m.request).payload if (where == "self" or m.request) else b""
        if len(payload) < at + 16:
            return False
        found = struct.unpack_from("<QQ", payload, at)
        return (address is None or found[0] == address) and (size is None or found[1] == size)
    return touches


def rings(m):
    """A write that makes the test device copy, or its reply."""
    payload = (m.request or m).payload
    return m.command == COMMANDS["REGION_WRITE"] and payload[:12] == struct.pack("<QI", DOORBELL, 0)


def map_of(address, size, flags=3):
    return struct.pack("<IIQQQ", 32, flags, 0, address, size)


def unmap_of(address, size, flags=0):
    return struct.pack("<IIQQ", 24, flags, address, size)


def told(m, command, payload=b""):
    """A posted command to the server, as if from the client."""
    return dataclasses.replace(m, command=COMMANDS[command], flags=NO_REPLY, error=0, payload=payload, fds=[],
                               from_client=True, request=None, size=None)


def asked(m, command, address, count, data=b""):
    """A command to the client, as if from the server, which throws its reply away."""
    return dataclasses.replace(m, id=0x7777, command=COMMANDS[command], flags=0, error=0,
                               payload=struct.pack("<QQ", address, count) + data, fds=[], from_client=False,
                               request=None, size=None)


def first_tell(command, payload=b""):
    """The server is told something before the message goes on; a function gives the payload from the message."""
    def transform(_, m):
        return [told(m, command, payload(m) if callable(payload) else payload), m]
    return transform


def then_tell(command, payload=b""):
    def transform(_, m):
        return [m, told(m, command, payload(m) if callable(payload) else payload)]
    return transform


def then_ask(command, address, count, data=b""):
    """The client is asked for memory, behind the message."""
    def transform(_, m):
        return [m, asked(m, command, address, count, data)]
    return transform


def while_dma(transform):
    """Only while the server waits for a reply to DMA_READ or DMA_WRITE."""
    def when(connection, m):
        waiting = [one for requests in connection.asked.values() for one in requests if not one.from_client]
        return transform(connection, m) if waiting else m
    return when


def leak(connection, m):
    """The server keeps the message's descriptors open."""
    connection.proxy.memory.setdefault("leaked", []).extend(os.dup(fd) for fd in m.fds)
    return m


def crash(connection, m):
    """The server dies."""
    connection.proxy.server.kill()
    return m


def private(_, m):
    """The server sees memory as it was, and shares it with nobody."""
    copies = []
    for fd in m.fds:
        copies.append(os.memfd_create("private"))
        size = os.fstat(fd).st_size
        os.ftruncate(copies[-1], size)
        os.pwrite(copies[-1], os.pread(fd, min(size, 1 << 20), 0), 0)
    m.fds = copies
    return m
