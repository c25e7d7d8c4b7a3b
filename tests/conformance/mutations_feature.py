"""VU-FEAT: what is broken in DEVICE_FEATURE."""

import struct

from mutation import (DEVICE_STATE, GET, LOG_REPORT, LOG_START, LOG_STOP, MIGRATION, PROBE, SET, accept, answers, asks,
                      both, change, crash, echo, longer, padded, poke, refuse, refused, replies, requests, row, shorter,
                      then, variant)

METHODS = GET | SET | PROBE


def unknown_flags(method):
    return asks(lambda flags: flags >> 19 and flags & METHODS == method)


def argsz(test):
    return lambda m: len(m.payload) >= 4 and test(struct.unpack_from("<I", m.payload)[0])


forget_flags = poke(4, "I", lambda flags: flags & (METHODS | 0xffff))

# --- Methods

row("feature-both-taken", asks(GET | SET | DEVICE_STATE), accept(echo), "feature-get-and-set")
row("feature-both-errno", answers(GET | SET | DEVICE_STATE), refuse(1), "feature-get-and-set")
row("feature-none-taken", asks(lambda flags: flags & METHODS == 0), accept(echo), "feature-no-method")
row("feature-none-errno", answers(lambda flags: flags & METHODS == 0), refuse(25), "feature-no-method")
row("feature-unknown-flags-got", unknown_flags(GET), forget_flags, "feature-unknown-flags-get")
row("feature-unknown-flags-set", unknown_flags(SET), forget_flags, "feature-unknown-flags-set")
row("feature-unknown-flags-probed", unknown_flags(PROBE | GET), forget_flags, "feature-unknown-flags-probe")
row("feature-unknown-flag-31", asks(GET | MIGRATION | 1 << 31), forget_flags, "feature-unknown-flags-get")

# --- PROBE

row("feature-probe-set-lacks", answers(PROBE | SET | DEVICE_STATE), refuse(25), "feature-probe-methods")
row("feature-probe-both-lacks", answers(PROBE | GET | SET | DEVICE_STATE), refuse(22), "feature-probe-methods")
row("feature-probe-any", asks(PROBE | GET | SET | MIGRATION), accept(echo), "feature-probe-one-lacking")
row("feature-probe-feature-only", asks(PROBE | SET | MIGRATION), accept(echo), "feature-probe-one-lacking")
row("feature-probe-logging-any", asks(PROBE | SET | LOG_REPORT), accept(echo), "feature-probe-logging")
row("feature-probe-takes-all", asks(lambda flags: flags & METHODS == PROBE), accept(echo), "feature-probe-lacking")
row("feature-probe-denies", answers(PROBE | GET | MIGRATION), refuse(25), "feature-probe-agrees",
    "feature-probe-methods")
row("feature-probe-promises", answers(GET | MIGRATION), refuse(25), "feature-probe-agrees")
row("feature-probe-sets", asks(PROBE | SET | DEVICE_STATE), poke(4, "I", SET | DEVICE_STATE),
    "feature-probe-no-effect")
row("feature-probe-starts", both(asks(PROBE | SET | LOG_START), lambda m: len(m.payload) > 8),
    poke(4, "I", SET | LOG_START), "feature-probe-no-effect-logging")

# --- Replies

row("feature-set-reply-empty", answers(SET | DEVICE_STATE), change(payload=b""), "feature-set-reply")
row("feature-set-reply-head", answers(SET | DEVICE_STATE), shorter(8), "feature-set-reply")
row("feature-set-reply-data-fd", answers(SET | DEVICE_STATE), poke(12, "I", 0), "feature-set-reply")
row("feature-probe-reply-argsz", answers(lambda flags: flags & PROBE), poke(0, "I", 0), "feature-probe-reply")
row("feature-probe-reply-flags", answers(lambda flags: flags & PROBE), poke(4, "I", lambda flags: flags & ~PROBE),
    "feature-probe-reply")
row("feature-get-argsz-of-head", answers(GET | MIGRATION), poke(0, "I", 8), "feature-get-reply")
row("feature-get-flags-lost", answers(GET | MIGRATION), poke(4, "I", 0), "feature-get-reply")
row("feature-get-state-flags", answers(GET | DEVICE_STATE), poke(4, "I", DEVICE_STATE), "feature-get-reply-state")
row("feature-get-state-longer", answers(GET | DEVICE_STATE), longer(b"\0" * 8), "feature-get-reply-state")
row("feature-get-fills-room", both(answers(lambda flags: flags & GET), lambda m: argsz(lambda n: n > 16)(m.request)),
    longer(b"\0"), "feature-get-large-argsz")
row("feature-get-repeats-argsz", answers(lambda flags: flags & GET),
    lambda _, m: poke(0, "I", struct.unpack_from("<I", m.request.payload)[0])(_, m), "feature-get-large-argsz")

# --- What is lacking

LACKING = (63, 0x7fff, 0xffff)
row("feature-lacking-got", asks(lambda flags: flags & 0xffff in LACKING and flags & METHODS == GET), accept(echo),
    "feature-lacking-get")
row("feature-is-fatal", requests("DEVICE_FEATURE"), crash, "feature-lacking-get", "feature-probe-lacking")
row("feature-lacking-set", asks(lambda flags: flags & 0xffff in LACKING and flags & METHODS == SET), accept(echo),
    "feature-lacking-set")
row("feature-number-8-bits", asks(lambda flags: flags & GET), poke(4, "I", lambda flags: flags & ~0xff00),
    "feature-index-16-bits")
row("feature-number-15-bits", asks(lambda flags: flags & GET), poke(4, "I", lambda flags: flags & ~0x8000),
    "feature-index-16-bits")
row("feature-lacking-einval", both(replies("DEVICE_FEATURE"), refused), refuse(22), "feature-lacking-enotty")
row("feature-migration-set", asks(SET | MIGRATION), accept(echo), "feature-set-migration")
row("feature-start-got", asks(GET | LOG_START), accept(echo), "feature-get-start")
row("feature-stop-got", asks(GET | LOG_STOP), accept(echo), "feature-get-stop")
row("feature-report-set", asks(SET | LOG_REPORT), accept(echo), "feature-set-report")

# --- Sizes

row("feature-short-taken", both(requests("DEVICE_FEATURE"), lambda m: len(m.payload) < 8), accept(b""),
    "feature-short-payload")
row("feature-short-errno", both(replies("DEVICE_FEATURE"), lambda m: len(m.request.payload) < 8), refuse(71),
    "feature-short-payload")
row("feature-argsz-get-ignored", both(asks(GET | MIGRATION), argsz(lambda n: n < 8)), poke(0, "I", 16),
    "feature-argsz-get")
row("feature-argsz-probe-ignored", both(asks(lambda flags: flags & PROBE), argsz(lambda n: n < 8)), poke(0, "I", 8),
    "feature-argsz-probe")
row("feature-argsz-set-ignored", both(asks(SET | DEVICE_STATE), argsz(lambda n: n < 8)), poke(0, "I", 16),
    "feature-argsz-set")
row("feature-set-reads-beyond", asks(SET | DEVICE_STATE), padded(b"\0" * 16), "feature-set-short")
row("feature-set-refused-and-done", both(asks(SET | DEVICE_STATE), lambda m: len(m.payload) < 16),
    lambda _, m: [change(payload=struct.pack("<4I", 16, SET | DEVICE_STATE, 1, 0), flags=0x10)(_, m.copy()), m],
    "feature-set-short")
row("feature-start-reads-beyond", asks(SET | LOG_START), padded(b"\0" * 24), "feature-start-short")
row("feature-report-reads-beyond", asks(GET | LOG_REPORT), padded(b"\0" * 32), "feature-report-short")
row("feature-room-ignored", both(asks(GET | MIGRATION), argsz(lambda n: n < 16)), poke(0, "I", 16), "feature-no-room")
row("feature-room-errno", both(answers(GET | MIGRATION), refused), refuse(28), "feature-no-room")
row("feature-room-ignored-state", both(asks(GET | DEVICE_STATE), argsz(lambda n: n < 16)), poke(0, "I", 16),
    "feature-no-room-state")

# --- Other ways to conform

variant("feature-answers-what-fits", both(answers(lambda flags: flags in (GET | MIGRATION, GET | DEVICE_STATE)),
                                          refused, lambda m: argsz(lambda n: 8 <= n < 16)(m.request)),
        then(accept(echo), poke(0, "I", 16)), "feature*")
variant("feature-refuses-with-another-errno", both(answers(lambda flags: flags & 0xffff in LACKING), refused),
        refuse(22), "feature-lacking-get", "feature-lacking-set", "feature-probe*", "feature-index*")
