"""VU-RESET, VU-FEAT, VU-MIG, VU-LOG, VU-DATA: clients that ask for features and migrate wrongly."""

import struct

from client_good import good_data
from mutation import (any_of, both, change, client_row, close, crash_client, field, longer, nth, poke, refused,
                      replies, requests, shorter, then)

GET, SET = 1 << 16, 1 << 17
MIGRATION, STATE, START, REPORT = 1, 2, 6, 8
READ, SAYS_READ = requests("MIG_DATA_READ"), replies("MIG_DATA_READ")


def feature(flags):
    return both(requests("DEVICE_FEATURE"), field("self", 4, "I", lambda value: value == flags))


def says_feature(flags):
    return both(replies("DEVICE_FEATURE"), field("request", 4, "I", lambda value: value == flags))


client_row("client-reset-payload", requests("DEVICE_RESET"), longer(b"\0" * 4), "reset-layout")
client_row("client-feature-argsz", requests("DEVICE_FEATURE"), poke(0, "I", 4), "feature-layout")
client_row("client-feature-no-method", feature(GET | MIGRATION), poke(4, "I", MIGRATION), "feature-layout")
client_row("client-set-p2p", feature(SET | STATE), poke(8, "I", 5), "migration-states")
client_row("client-set-error", both(feature(SET | STATE), field("self", 8, "I", lambda state: state == 1)),
           poke(8, "I", 0), "migration-states")
client_row("client-logging-ranges", feature(SET | START), poke(16, "I", 2), "logging-start-layout")
client_row("client-logging-reserved", feature(SET | START), poke(20, "I", 1), "logging-start-layout")
client_row("client-report-page", feature(GET | REPORT), poke(24, "Q", 3000), "logging-report-layout")
client_row("client-data-read-argsz", READ, poke(0, "I", 8), "data-read-layout")
client_row("client-data-write-size", requests("MIG_DATA_WRITE"), shorter(1), "data-write-layout")
client_row("client-leaves-early", both(READ, lambda m: m.number >= 4), lambda _, m: m.reply(struct.pack("<II", 8, 0)),
           "data-complete")

client_row("client-insists-on-features", both(replies("DEVICE_FEATURE"), refused), close, "feature-none",
           "feature-no-logging")
client_row("client-assumes-pre-copy", says_feature(GET | MIGRATION), poke(8, "Q", lambda flags: flags | 4),
           "migration-no-pre-copy")


def go_on(connection, m):
    """Sets another state after a failure, instead of asking for it."""
    if m.is_reply:
        connection.memory["failed"] = connection.memory.get("failed") or bool(m.flags & 0x20)
    elif connection.memory.get("failed"):
        m.payload = struct.pack("<IIII", 16, SET | STATE, 2, 0)
    return m


def stay_in_error(connection, m):
    """Asks for the state after a failure, and sets another from ERROR."""
    if m.is_reply:
        connection.memory["failed"] = connection.memory.get("failed") or bool(m.flags & 0x20)
    elif m.command == 13 and connection.memory.get("failed"):
        m.command, m.payload = 16, struct.pack("<IIII", 16, SET | STATE, 2, 0)
    return m


client_row("client-does-not-ask", any_of(says_feature(SET | STATE), feature(GET | STATE)), go_on, "migration-fails")
client_row("client-stays-in-error", any_of(says_feature(SET | STATE), requests("DEVICE_RESET")), stay_in_error,
           "migration-fails")

client_row("client-takes-padding", both(SAYS_READ, lambda m: len(m.payload) > 8),
           change(payload=lambda m: m.payload[:4] + struct.pack("<I", len(m.payload) - 8) + m.payload[8:]),
           "data-padded")


def as_much_as_asked(_, m):
    """The first bytes of the stream, as many as were asked for."""
    size = struct.unpack_from("<I", m.request.payload, 4)[0]
    m.payload = struct.pack("<II", 8 + size, size) + good_data(size)
    return m


client_row("client-believes-data", both(SAYS_READ, nth(0)), as_much_as_asked, "data-too-much", "data-missing")
REPORTED = says_feature(GET | REPORT)
client_row("client-believes-report", both(REPORTED, lambda m: len(m.payload) == 32),
           then(longer(b"\0" * 16), poke(0, "I", 48)), "logging-short-bitmap")
client_row("client-crashes-on-long-report", both(REPORTED, lambda m: len(m.payload) > 48), crash_client,
           "logging-long-bitmap")
client_row("client-dies-of-bits", both(REPORTED, lambda m: len(m.payload) == 48 and m.payload[47] != 0), close,
           "logging-bits-beyond")
