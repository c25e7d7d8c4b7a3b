"""VU-TWIN: what is broken about the twin socket."""

import os
import socket
import struct

from mutation import (any_of, asked_by_server, both, client_replies, close, descriptor, drop, edit_json,
                      extra_descriptor, keep_descriptors, no_descriptors, refuse, replies, requests, row,
                      server_requests, variant, when)
from proxy import Message

VERSION = replies("VERSION")


def asked_with(text):
    """Replies to a VERSION whose text has this in it."""
    return both(VERSION, lambda m: m.request is not None and text in m.request.payload)


def asked_without(text):
    return both(VERSION, lambda m: m.request is not None and text not in m.request.payload)


def on_twin(m):
    return m.twin


def twin_ends(m):
    return m.ends and m.from_client


# --- Negotiation


def give_twin(connection, m):
    """Offers one that was not asked for, or may not be given."""
    def offer(capabilities):
        capabilities["twin_socket"] = {"supported": True, "fd_index": 0}
    m.fds = [os.open("/dev/null", os.O_RDWR)]
    return edit_json(offer)(connection, m)


def promise_twin(capabilities):
    capabilities["twin_socket"] = {"supported": True}


def lose_index(capabilities):
    capabilities.get("twin_socket", {}).pop("fd_index", None)


def count_index_from_one(capabilities):
    if "twin_socket" in capabilities:
        capabilities["twin_socket"]["fd_index"] += 1


def same_descriptor(connection, m):
    """Gives to every client what the first one got."""
    first = connection.proxy.memory
    if m.fds and "twin" not in first:
        first["twin"] = os.dup(m.fds[0])
    elif m.fds:
        m.fds[0] = os.dup(first["twin"])
    return m


row("twin-given-unasked", asked_without(b"twin_socket"), give_twin, "twin-not-offered")
row("twin-given-to-who-declines", asked_with(b'"supported":false'), give_twin, "twin-not-offered")
row("twin-given-without-room", asked_with(b'"max_msg_fds":0'), give_twin, "twin-no-descriptors")
row("twin-promised-without-room", asked_with(b'"max_msg_fds":0'), edit_json(promise_twin), "twin-no-descriptors")
row("twin-without-index", VERSION, edit_json(lose_index), "twin-fd-index")
row("twin-index-from-one", VERSION, edit_json(count_index_from_one), "twin-fd-index")
row("twin-without-descriptor", VERSION, no_descriptors, "twin-fd-index")
row("twin-second-descriptor", both(VERSION, lambda m: m.fds), extra_descriptor, "twin-one-descriptor")
row("twin-is-a-file", VERSION, descriptor(lambda _: os.open("/dev/null", os.O_RDWR)), "twin-connected")
row("twin-unconnected", VERSION, descriptor(lambda _: socket.socket(socket.AF_UNIX).detach()), "twin-connected")
row("twin-same-for-all", VERSION, same_descriptor, "twin-fresh")
row("twin-index-refused", both(requests("VERSION"), lambda m: b"fd_index" in m.payload), refuse(22),
    "twin-fd-index-ignored")
row("twin-index-declines", asked_with(b"fd_index"), edit_json(lambda capabilities: capabilities.pop("twin_socket")),
    "twin-fd-index-ignored")

# --- What goes over it


def other_socket(connection, m):
    """Over the main socket instead of the twin socket, and back."""
    if connection.twins or m.twin:
        m.twin = not m.twin
    return m


def after_reset(connection, m):
    if m.command == 13:
        connection.memory["reset"] = connection.memory.get("reset", 0) + 1
        return m
    return other_socket(connection, m) if connection.memory.get("reset", 0) > 1 else m


row("twin-reads-over-main", any_of(server_requests("DMA_READ"), client_replies("DMA_READ")), other_socket, "twin-read")
row("twin-writes-over-main", any_of(server_requests("DMA_WRITE"), client_replies("DMA_WRITE")), other_socket,
    "twin-write")
row("twin-forgotten-by-reset",
    any_of(requests("DEVICE_RESET"), server_requests("DMA_READ", "DMA_WRITE"), client_replies("DMA_READ", "DMA_WRITE")),
    after_reset, "twin-after-reset")
row("twin-or-nothing", both(server_requests("DMA_READ", "DMA_WRITE"), lambda m: not m.twin), refuse(14),
    "twin-without")

# --- Its end


def fall_back(connection, m):
    """Keeps the end from the server, and sends what goes over the twin socket over the main one."""
    if m.ends:
        connection.memory["ended"] = True
        return None
    return other_socket(connection, m) if "ended" in connection.memory else m


def one_twin_for_good(connection, m):
    """No client gets one after somebody has closed his."""
    seen = connection.proxy.memory
    if m.ends:
        seen["ended"] = True
    elif "ended" in seen and m.fds:
        m = edit_json(lambda capabilities: capabilities.pop("twin_socket"))(connection, m)
        m.fds = []
    return m


variant("twin-end-is-the-end", twin_ends, close, "twin-closed*")
row("twin-end-unnoticed", twin_ends, drop, "twin-closed-in-flight", timeout=1000)
row("twin-end-falls-back",
    any_of(twin_ends, server_requests("DMA_READ", "DMA_WRITE"), client_replies("DMA_READ", "DMA_WRITE")), fall_back,
    "twin-closed", "twin-closed-main")
row("twin-end-for-all", any_of(twin_ends, VERSION), one_twin_for_good, "twin-closed-next")


def keep_twin(connection, m):
    """A copy of the server's end stays."""
    if connection.twins:
        keep = connection.twins[False].socket.fileno()
        connection.proxy.memory.setdefault("kept", []).append(os.dup(keep))
    return m


row("twin-outlives-connection", VERSION, keep_twin, "twin-ends", timeout=1000)

# --- What a client can do to it


def execute(connection, m):
    """A command on the twin socket goes the way of all others, and its reply back."""
    if m.from_client:
        connection.memory["executed"] = m.id
        m.twin = False
    elif connection.memory.get("executed") == m.id:
        m.twin = True
    return m


def part_waits(connection, m):
    """Whether a part of a message of the client's lies on the twin socket."""
    return any(twin and from_client and stream.buffer
               for stream, _, from_client, twin in connection.streams.values())


def commands_wait(connection, m):
    return any(one.twin for one in asked_by_server(connection))


row("twin-executes", any_of(both(requests("REGION_WRITE"), on_twin), replies("REGION_WRITE")), execute, "twin-command")
row("twin-part-is-the-end", replies(), when(part_waits, close), "twin-half-header", "twin-half-message")
row("twin-unread-refuses", replies(), when(commands_wait, refuse(110)), "twin-unread")
row("twin-unasked-is-the-end", both(client_replies(), on_twin, lambda m: m.request is None), close,
    "twin-unasked-reply")
def master_off(m):
    """The reply to a write of COMMAND that turned it off."""
    payload = m.request.payload if m.request and m.command == 10 else b""
    return len(payload) >= 18 and struct.unpack_from("<QI", payload) == (4, 7) and not payload[16] & 4


def ask_late(connection, m):
    """A DMA_READ that was made before bus mastering was turned off goes out a round trip after the reply."""
    if master_off(m):
        connection.memory["off"] = True
    elif connection.memory.pop("off", False):
        return [m, Message(77, 11, 0, 0, struct.pack("<QQ", 0x100000, 64), [], False, bool(connection.twins))]
    return m


row("twin-asks-after-master-off", replies("REGION_WRITE", "GET_INFO"), ask_late, "twin-master-off")
row("twin-keeps-descriptors", both(client_replies(), on_twin), keep_descriptors,
    "twin-descriptor", timeout=1000)
