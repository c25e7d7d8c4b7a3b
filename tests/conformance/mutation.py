"""The rows of mutations_*.py: a name, which messages are touched, what is done to them, and the checks that notice.

    row("reply-id-plus-one", replies(), change(id=lambda m: m.id + 1), "reply-id")

A selector takes a message and says whether the row touches it. A transformation gets the connection and the message and
returns what goes on instead: a message, several, or None for nothing; it may change the message it was given.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import struct
from typing import Callable

from proxy import COMMANDS, ERROR, NO_REPLY, REPLY, Message


@dataclasses.dataclass
class Mutation:
    name: str
    touches: Callable
    transform: Callable
    caught_by: tuple  # names of checks, each of which fails because of it
    server: str  # the device behind the proxy: testdev, or one that `outboard serve` has

    def apply(self, connection, message):
        if not self.touches(message):
            return message
        return self.transform(connection, message)


ROWS = {}


def row(name, touches, transform, *caught_by, server="testdev"):
    if name in ROWS:
        raise ValueError(f"two rows are called {name}")
    if not caught_by:
        raise ValueError(f"{name}: no check is named")
    ROWS[name] = Mutation(name, touches, transform, caught_by, server)


def load():
    """Every row of every mutations_*.py."""
    for path in sorted(pathlib.Path(__file__).resolve().parent.glob("mutations_*.py")):
        importlib.import_module(path.stem)
    return ROWS


def find(name):
    return load().get(name)


# --- Which messages ----------------------------------------------------------------------------------------------


def _select(wanted, from_client, reply):
    names = {COMMANDS[name] for name in wanted}

    def touches(m):
        return m.from_client == from_client and m.is_reply == reply and (not names or m.command in names)
    return touches


def requests(*commands):
    """Of the client's; of these commands, or of all."""
    return _select(commands, True, False)


def replies(*commands):
    """Of the server's, refusals too."""
    return _select(commands, False, True)


def server_requests(*commands):
    return _select(commands, False, False)


def client_replies(*commands):
    return _select(commands, True, True)


def both(*selectors):
    """Messages that all of these touch."""
    return lambda m: all(touches(m) for touches in selectors)


def any_of(*selectors):
    return lambda m: any(touches(m) for touches in selectors)


def accepted(m):
    return m.is_reply and not m.flags & ERROR


def refused(m):
    return m.is_reply and bool(m.flags & ERROR)


def posted(m):
    return bool(m.flags & NO_REPLY)


def nth(number):
    """The one of its command and kind before which so many came on the connection."""
    return lambda m: m.number == number


def field(where, offset, form, test):
    """A field of the payload of the message ("self") or of what it answers ("request") that satisfies `test`."""
    def touches(m):
        payload = (m if where == "self" else m.request).payload if (where == "self" or m.request) else b""
        if len(payload) < offset + struct.calcsize(form):
            return False
        return bool(test(struct.unpack_from("<" + form, payload, offset)[0]))
    return touches


# --- What is done to them ----------------------------------------------------------------------------------------


def change(**fields):
    """Fields of Message; a function gives the new value from the message."""
    def transform(_, m):
        for name, value in fields.items():
            setattr(m, name, value(m) if callable(value) else value)
        return m
    return transform


def poke(offset, form, value):
    """Overwrites a field of the payload; a function gives the new value from the old. Short payloads stay."""
    def transform(_, m):
        if len(m.payload) >= offset + struct.calcsize("<" + form):
            data = bytearray(m.payload)
            old = struct.unpack_from("<" + form, data, offset)[0]
            mask = (1 << 8 * struct.calcsize("<" + form)) - 1
            struct.pack_into("<" + form, data, offset, (value(old) if callable(value) else value) & mask)
            m.payload = bytes(data)
        return m
    return transform


def drop(_, m):
    return None


def twice(_, m):
    return [m, m.copy()]


def refuse(error):
    """A success becomes a refusal; a request is answered here and not passed on."""
    def transform(_, m):
        if m.is_reply:
            m.flags, m.error, m.payload, m.fds = REPLY | ERROR, error, b"", []
            return m
        return m.reply(error=error)
    return transform


def accept(payload=b""):
    """A refusal becomes a success; a request is answered here and not passed on. A function gives the payload from
    the request."""
    def transform(_, m):
        request = m.request if m.is_reply else m
        body = payload(request) if callable(payload) else payload
        if m.is_reply:
            m.flags, m.error, m.payload = REPLY, 0, body
            return m
        return None if m.flags & NO_REPLY else m.reply(body)
    return transform


def no_descriptors(_, m):
    m.fds = []
    return m


def extra_descriptor(_, m):
    m.fds = m.fds + [os.open("/dev/null", os.O_RDWR)]
    return m


def shorter(count):
    def transform(_, m):
        m.payload = m.payload[:max(0, len(m.payload) - count)]
        return m
    return transform


def longer(data):
    def transform(_, m):
        m.payload = m.payload + data
        return m
    return transform


def close(connection, m):
    """Ends the client's connection instead."""
    from proxy import Gone
    raise Gone


def then(*transforms):
    """One after the other, each on the message that the one before returned."""
    def transform(connection, m):
        for one in transforms:
            m = one(connection, m)
        return m
    return transform


def added(transform_request, **fields):
    """Passes the message on and behind it another like it."""
    def transform(connection, m):
        other = transform_request(connection, m.copy(**fields))
        return [m, other]
    return transform


def edit_json(edit):
    """Changes the capabilities in the text of a VERSION or its reply; what has none stays."""
    def transform(_, m):
        if len(m.payload) > 4 and not m.flags & ERROR:
            text = json.loads(m.payload[4:].rstrip(b"\0"))
            edit(text.setdefault("capabilities", {}))
            m.payload = m.payload[:4] + json.dumps(text, separators=(",", ":")).encode() + b"\0"
        return m
    return transform
