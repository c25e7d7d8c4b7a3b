"""The rows of mutations_*.py: a name, which messages are touched, what is done to them, and the checks that notice.

    row("reply-id-plus-one", replies(), change(id=lambda m: m.id + 1), "reply-id")

A variant() is no fault: what it changes is left to the server, and the checks it names still pass.

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

from proxy import COMMANDS, ERROR, NO_REPLY, REPLY, Gone, Message


@dataclasses.dataclass
class Mutation:
    name: str
    touches: Callable
    transform: Callable
    caught_by: tuple  # names of checks, each of which fails because of it
    # The device behind the proxy: testdev, or one that `outboard serve` has; ",KEY=VALUE..." are options. "": it is a
    # client.
    server: str
    timeout: int = 3000  # of the judge, ms: short where a check waits for what never comes
    hides_end: bool = False  # the client is not told that the server has gone
    always_succeeds: bool = False  # the client's status is 0, whatever happened

    def apply(self, connection, message):
        if not self.touches(message):
            return message
        return self.transform(connection, message)


ROWS = {}
VARIANTS = {}


def row(name, touches, transform, *caught_by, server="testdev", timeout=3000):
    if name in ROWS:
        raise ValueError(f"two rows are called {name}")
    if not caught_by:
        raise ValueError(f"{name}: no check is named")
    ROWS[name] = Mutation(name, touches, transform, caught_by, server, timeout)


def variant(name, touches, transform, *checks, server="testdev"):
    """Another way to conform: none of these checks, which are patterns here, may notice it."""
    if name in ROWS or name in VARIANTS:
        raise ValueError(f"two rows are called {name}")
    VARIANTS[name] = Mutation(name, touches, transform, checks, server)


def client_row(name, touches, transform, *caught_by, **options):
    """A row about a client: the proxy is between client_driver and the judge."""
    row(name, touches, transform, *caught_by, server="")
    ROWS[name] = dataclasses.replace(ROWS[name], **options)


def load():
    """Every row of every mutations_*.py; the variants are in VARIANTS then."""
    for path in sorted(pathlib.Path(__file__).resolve().parent.glob("mutations_*.py")):
        importlib.import_module(path.stem)
    return ROWS


def find(name):
    return load().get(name) or VARIANTS.get(name)


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


def every(_):
    return True


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


def unknown(m):
    """A command that is in no table."""
    return m.command not in COMMANDS.values()


def lost(m):
    """A header whose size makes no sense, or is beyond the proxy's; the payload is what is behind it."""
    return m.size is not None


def cut_off(m):
    """The client went in the middle of it."""
    return m.cut_off is not None


def nth(number):
    """The one of its command and kind before which so many came on the connection."""
    return lambda m: m.number == number


def checks_only(m):
    """Not the survey's five connections: when it fails, no check is made."""
    return m.connection >= 5


def field(where, offset, form, test):
    """A field of the payload of the message ("self") or of what it answers ("request") that satisfies `test`."""
    def touches(m):
        payload = (m if where == "self" else m.request).payload if (where == "self" or m.request) else b""
        if len(payload) < offset + struct.calcsize(form):
            return False
        return bool(test(struct.unpack_from("<" + form, payload, offset)[0]))
    return touches


def nothing(m):
    """No message: what the row breaks is something else."""
    return False


def holds(form):
    """Messages whose payload has these bytes, or satisfies a function."""
    return (lambda m: form(m.payload)) if callable(form) else (lambda m: form in m.payload)


GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
MIGRATION, DEVICE_STATE, LOG_START, LOG_STOP, LOG_REPORT = 1, 2, 6, 7, 8
FAILED, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P = range(8)


def _word(payload, offset):
    return struct.unpack_from("<I", payload, offset)[0] if len(payload) >= offset + 4 else None


def _feature(test):
    """A request of DEVICE_FEATURE whose flags pass, or a reply to one."""
    def touches(m):
        asked = (m.request if m.is_reply else m) or m
        flags = _word(asked.payload, 4)
        return m.command == COMMANDS["DEVICE_FEATURE"] and flags is not None and bool(test(flags))
    return touches


def asks(test):
    """Requests of DEVICE_FEATURE with these flags, or with flags that pass the test."""
    return both(requests("DEVICE_FEATURE"), _feature(test if callable(test) else lambda flags: flags == test))


def answers(test):
    """The replies to them."""
    return both(replies("DEVICE_FEATURE"), _feature(test if callable(test) else lambda flags: flags == test))


def sets(*states):
    """Requests to set the migration state to one of these."""
    return both(asks(SET | DEVICE_STATE), lambda m: _word(m.payload, 8) in states)


def has_set(*states):
    """The replies to them that are no refusals."""
    return both(answers(SET | DEVICE_STATE), accepted, lambda m: _word(m.request.payload, 8) in states)


def in_state(*states):
    """As far as the client knows; None: after a transition that failed it does not."""
    return lambda m: m.state in states


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


def echo(request):
    """For accept(): the request's payload."""
    return request.payload


def before(*makers):
    """Has the server execute other requests first, unanswered; each is made from the message."""
    return lambda _, m: [make(m) for make in makers] + [m]


def behind(*makers):
    """And afterwards."""
    return lambda _, m: [m] + [make(m) for make in makers]


def posted_request(command, payload=b"", fds=None):
    """For before() and behind(). Functions give the payload and descriptors from the message."""
    return lambda m: Message(m.id, COMMANDS[command], NO_REPLY, 0, payload(m) if callable(payload) else payload,
                             fds(m) if fds else [], True)


def posted_set(state):
    return posted_request("DEVICE_FEATURE", struct.pack("<4I", 16, SET | DEVICE_STATE, state, 0))


def posted_write(region, offset, data):
    return posted_request("REGION_WRITE", struct.pack("<QII", offset, region, len(data)) + data)


def no_descriptors(_, m):
    m.fds = []
    return m


def extra_descriptor(_, m):
    m.fds = m.fds + [os.open("/dev/null", os.O_RDWR)]
    return m


def descriptor(make):
    """Other descriptors instead; `make` gives a new one for each that came."""
    def transform(_, m):
        m.fds = [make(fd) for fd in m.fds]
        return m
    return transform


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


def padded(data):
    """Bytes that are not there are read all the same: a payload shorter than `data` is completed from it."""
    def transform(_, m):
        m.payload = m.payload + data[len(m.payload):]
        return m
    return transform


def answered(_, m):
    """A posted command is executed as if it were not posted."""
    m.flags &= ~NO_REPLY
    return m


def close(connection, m):
    """Ends the client's connection instead."""
    raise Gone


def crash_client(connection, m):
    """The client dies of it."""
    connection.proxy.crash_client()
    close(connection, m)


def crash(connection, m):
    """The server's process ends."""
    connection.proxy.crash()


def use_memory(mebibytes):
    """The process uses so much more, for good, each time."""
    def transform(connection, m):
        connection.proxy.memory.setdefault("used", []).append(b"\1" * (mebibytes << 20))
        return m
    return transform


def refuse_and_close(error):
    def transform(connection, m):
        connection.forward(m.reply(error=error))
        return close(connection, m)
    return transform


def when(condition, transform):
    """A condition on the connection and the message."""
    return lambda connection, m: transform(connection, m) if condition(connection, m) else m


def complete(_, m):
    """What is missing of a message that was cut off is taken for zeroes."""
    if len(m.cut_off) < 16:
        return m
    m.payload = m.payload.ljust(m.size - 16, b"\0")
    m.cut_off = None
    return m


def keep_descriptors(connection, m):
    """They stay open for good."""
    connection.proxy.memory.setdefault("kept", []).extend(os.dup(fd) for fd in m.fds)
    return m


def postpone(which, behind=1):
    """Those that `which` touches go behind so many that follow; the row has to touch all that may follow."""
    def transform(connection, m):
        held = connection.memory.setdefault("postponed", [])
        for item in held:
            item[1] -= 1
        due = [one for one, left in held if left == 0]
        connection.memory["postponed"] = [item for item in held if item[1] > 0]
        if not which(m):
            return [m] + due
        connection.memory["postponed"].append([m.copy(), behind])
        return due
    return transform


def spin(where):
    """Connections of which this is true do not sleep from now on."""
    def transform(connection, m):
        connection.proxy.spins = where
        return m
    return transform


def hoard(connection, m):
    """All that the client sends is read, however much waits for the server."""
    connection.server.hoards = True
    return m


def asked_by_server(connection):
    """The server's commands that have no reply yet."""
    return [m for waiting in connection.asked.values() for m in waiting if not m.from_client]


def then(*transforms):
    """One after the other, each on the message that the one before returned."""
    def transform(connection, m):
        for one in transforms:
            m = one(connection, m)
        return m
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
