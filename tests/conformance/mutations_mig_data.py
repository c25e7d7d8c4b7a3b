"""VU-DATA: what is broken in MIG_DATA_READ and MIG_DATA_WRITE."""

import struct

from mutation import (PRE_COPY, RESUMING, RUNNING, SET, DEVICE_STATE, STOP, STOP_COPY, accept, accepted, answers, both,
                      change, close, field, in_state, longer, poke, posted_request, refuse, refused, replies,
                      requests, row, variant)

READ, DATA = requests("MIG_DATA_READ"), both(replies("MIG_DATA_READ"), accepted)
WRITE, WRITTEN = requests("MIG_DATA_WRITE"), replies("MIG_DATA_WRITE")
EMPTY = struct.pack("<II", 8, 0)


def size(test):
    """Of what is asked for, or written."""
    return field("self", 4, "I", test)


def asked(test):
    """A reply to a read of such a size."""
    return field("request", 4, "I", test)


def has(test):
    """A reply with so many bytes."""
    return field("self", 4, "I", test)


def garble(_, m):
    """The first byte is another."""
    return change(payload=m.payload[:8] + bytes([m.payload[8] ^ 0x55]) + m.payload[9:])(_, m)


# --- Replies to reads

row("mig-data-argsz-0", DATA, poke(0, "I", 0), "mig-data-reply")
row("mig-data-argsz-with-header", DATA, poke(0, "I", lambda argsz: argsz + 16), "mig-data-reply")
row("mig-data-more-than-asked", both(DATA, asked(lambda n: n < 20)),
    lambda _, m: change(payload=struct.pack("<II", len(m.payload) + 1, len(m.payload) - 7) + m.payload[8:] + b"x")(
        _, m), "mig-data-at-most")
row("mig-data-pads", both(DATA, has(lambda n: n < 60000)), longer(b"\0" * 100), "mig-data-no-padding")
row("mig-data-short-in-between", both(READ, size(lambda n: n == 4096)), poke(4, "I", 1000), "mig-data-short-is-end")
row("mig-data-ends-with-an-error", both(DATA, has(lambda n: n == 0)), refuse(61), "mig-data-after-end",
    "mig-data-short-is-end")
row("mig-data-begins-again", both(DATA, has(lambda n: n == 0)),
    lambda _, m: change(payload=struct.pack("<II", 9, 1) + b"O")(_, m), "mig-data-after-end")
for name, state in (("running", RUNNING), ("stop", STOP), ("resuming", RESUMING)):
    row(f"mig-data-read-in-{name}", both(READ, in_state(state)), accept(EMPTY), f"mig-data-read-{name}")

# --- Pieces

row("mig-data-small-differ", both(DATA, asked(lambda n: n < 8), has(lambda n: n > 0)), garble, "mig-data-cut-small")
row("mig-data-odd-lose-one", both(READ, size(lambda n: n == 31)),
    lambda _, m: [posted_request("MIG_DATA_READ", struct.pack("<II", 9, 1))(m), m], "mig-data-cut-small")
row("mig-data-large-differ", both(DATA, asked(lambda n: n == 65535)), garble, "mig-data-cut-large")
row("mig-data-pages-differ", both(DATA, asked(lambda n: n in (4097, 4095))), garble, "mig-data-cut-large")
row("mig-data-mixed-differ", both(DATA, asked(lambda n: n == 4092)), garble, "mig-data-cut-mixed")
row("mig-data-write-small-refused", both(WRITE, size(lambda n: n == 1)), refuse(22), "mig-data-write-cut-small")
row("mig-data-write-unaligned-lost", both(WRITE, size(lambda n: n in (7, 9, 31))), accept(),
    "mig-data-write-cut-small")
row("mig-data-write-large-refused", both(WRITE, size(lambda n: n > 60000 and n % 8)), refuse(90),
    "mig-data-write-cut-large")
row("mig-data-write-after-large-lost", both(WRITE, size(lambda n: n == 4097)), accept(), "mig-data-write-cut-large")

# --- What reads refuse


def room_missing(m):
    argsz, wanted = struct.unpack_from("<II", m.payload)
    return argsz < 8 + wanted


row("mig-data-argsz-ignored", both(READ, size(lambda n: n < 1000), room_missing),
    lambda _, m: change(payload=struct.pack("<II", 1008, max(1, struct.unpack_from("<II", m.payload)[1])))(_, m),
    "mig-data-argsz")
row("mig-data-argsz-wraps", both(READ, size(lambda n: n > 0xffff0000)), accept(EMPTY), "mig-data-argsz-wrap")
row("mig-data-argsz-errno", both(replies("MIG_DATA_READ"), refused), refuse(90), "mig-data-argsz",
    "mig-data-argsz-wrap", "mig-data-above-max")
row("mig-data-cuts-to-max", both(READ, size(lambda n: n == 1048577)), poke(4, "I", 1048576), "mig-data-above-max")
row("mig-data-refused-is-lost", both(READ, size(lambda n: n == 64), room_missing),
    lambda _, m: [posted_request("MIG_DATA_READ", struct.pack("<II", 72, 64))(m), m], "mig-data-refused-keeps")
row("mig-data-short-read-taken", both(READ, lambda m: len(m.payload) < 8), accept(EMPTY), "mig-data-truncated-read")

# --- Writes

row("mig-data-write-answers-argsz", both(WRITTEN, accepted), change(payload=EMPTY), "mig-data-write-reply")
for name, state in (("running", RUNNING), ("stop", STOP), ("stop-copy", STOP_COPY), ("pre-copy", PRE_COPY)):
    row(f"mig-data-written-in-{name}", both(WRITE, in_state(state)), accept(), f"mig-data-write-{name}")


def true_size(_, m):
    return poke(4, "I", len(m.payload) - 8)(_, m)


def lies(m):
    return len(m.payload) >= 8 and struct.unpack_from("<I", m.payload, 4)[0] != len(m.payload) - 8


row("mig-data-size-ignored", both(WRITE, lies), true_size, "mig-data-size-more", "mig-data-size-less",
    "mig-data-size-wrap")
row("mig-data-size-errno", both(WRITTEN, refused), refuse(90), "mig-data-size-more", "mig-data-size-less",
    "mig-data-size-wrap")
row("mig-data-lies-are-taken", both(WRITE, lies), lambda _, m: [change(flags=0x10)(_, true_size(_, m.copy())), m],
    "mig-data-size-more", "mig-data-size-less", "mig-data-size-wrap")
row("mig-data-only-size-is-taken", both(WRITE, lies, size(lambda n: n < 64)),
    lambda _, m: change(payload=m.payload[:8 + struct.unpack_from("<I", m.payload, 4)[0]])(_, m),
    "mig-data-size-less")
row("mig-data-short-write-taken", both(WRITE, lambda m: len(m.payload) < 8), accept(), "mig-data-truncated-write")

# --- Streams that are no good

row("mig-data-hangs-up-on-bad-writes", both(WRITTEN, refused), close, "mig-data-damaged-start", "mig-data-ones",
    "mig-data-swapped", "mig-data-zeros", "mig-data-all-ones", "mig-data-random", "mig-data-one-more",
    "mig-data-page-more", "mig-data-twice")
row("mig-data-hangs-up-on-bad-streams", both(answers(SET | DEVICE_STATE), refused), close, "mig-data-damaged")
row("mig-data-bad-streams-leave-stop", answers(1 << 16 | DEVICE_STATE),
    lambda _, m: poke(8, "I", STOP)(_, m) if m.request.state is None else m, "mig-data-damaged-start",
    "mig-data-damaged")


def hoards(connection, m):
    """Takes whatever comes, and keeps it."""
    connection.proxy.memory.setdefault("hoard", []).append(m.payload)
    return accept()(connection, m)


# Not on the connection behind the survey, on which the judge tries a migration of the device to itself, whose stream has
# zeros too.
row("mig-data-hoards", both(WRITE, lambda m: m.connection > 5 and len(m.payload) == 8 + 65536 and
                            not any(m.payload[8:])), hoards, "mig-data-endless", "mig-data-endless-behind")

# --- Other ways to conform

variant("mig-data-may-pad", both(DATA, has(lambda n: n < 60000)), longer(b"\0" * 100), "migration*", "mig-data-[!n]*")
variant("mig-data-refuses-with-another-errno",
        both(WRITTEN, refused, in_state(RESUMING), lambda m: len(m.request.payload) >= 8 and not lies(m.request)),
        refuse(28), "mig*")
