"""VU-LOG: what is broken in DMA logging."""

import struct

from memory import FROM, PAGE, TO, crash, first_tell, rings, then_tell
from mutation import COMMANDS, accept, accepted, any_of, both, client_replies, field, nth, poke, refuse, refused, \
    replies, requests, row, shorter

GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
START, STOP, REPORT = SET | 6, SET | 7, GET | 8
RING = 0x0f000000
EINVAL, E2BIG, EBUSY = 22, 7, 16


def is_feature(flags, where="self"):
    return field(where, 4, "I", lambda found: found == flags)


def asks(flags):
    return both(requests("DEVICE_FEATURE"), is_feature(flags))


def answers(flags):
    return both(replies("DEVICE_FEATURE"), is_feature(flags, "request"))


def of_report(offset, form, test):
    return both(answers(REPORT), accepted, field("request", offset, form, test))


BITMAP = 32  # where it begins in a report's reply
REPORTED = both(answers(REPORT), accepted)
REPORT_REFUSED, START_REFUSED = both(answers(REPORT), refused), both(answers(START), refused)


def bits(change):
    """Changes all words of a report, each from the old."""
    def transform(_, m):
        words = [change(word) & (1 << 64) - 1 for word in struct.unpack_from(f"<{(len(m.payload) - 32) // 8}Q",
                                                                             m.payload, BITMAP)]
        m.payload = m.payload[:BITMAP] + struct.pack(f"<{len(words)}Q", *words)
        return m
    return transform


def report_of(iova, length, page_size=PAGE):
    return struct.pack("<IIQQQ", 1 << 20, REPORT, iova, length, page_size)


STOPS = struct.pack("<II", 8, STOP)
ALL = report_of(TO, 64 << 20)


def repeated(request):
    return request.payload


def empty(request):
    """A bitmap of one word, in which nothing was written."""
    return struct.pack("<II", 40, REPORT) + request.payload[8:32] + bytes(8)


# --- What is logged
row("log-nothing-found", REPORTED, bits(lambda word: 0), "log-mapped", "log-messages", "log-edges",
    "log-edges-messages", "log-large", "log-large-messages", "log-ranges", "log-ring", "log-order", "log-counted",
    "log-beyond", "log-larger", "log-larger-tail", "log-larger-huge", "log-smaller", "log-smaller-middle",
    "log-clears", "log-clears-messages", "log-clears-part", "log-refused-keeps", "log-unmapped", "log-under-way",
    "log-race", "log-second-start", "log-second-start-other", "log-clean-again", "log-mapped-later",
    "log-messages-later", "log-remapped", "log-no-room")
row("log-reads-too", both(REPORTED, field("request", 8, "Q", lambda iova: iova == FROM)), bits(lambda word: 1),
    "log-reads", "log-reads-messages")
row("log-first-page-only", REPORTED, bits(lambda word: word & ~(word << 1)), "log-edges", "log-edges-messages",
    "log-large", "log-large-messages")
row("log-page-behind-too", REPORTED, bits(lambda word: word | word << 1), "log-mapped", "log-messages", "log-edges",
    "log-edges-messages", "log-large", "log-large-messages")
row("log-ranges-end-early", REPORTED, bits(lambda word: word & ~(1 << 15 | 1 << 47)), "log-ranges")
row("log-first-range-only", REPORTED, bits(lambda word: word >> 32 << 32), "log-ranges")
row("log-ring-unlogged", both(REPORTED, field("request", 8, "Q", lambda iova: iova == RING)), bits(lambda word: 0),
    "log-ring")
row("log-ring-once", both(REPORTED, field("request", 8, "Q", lambda iova: iova == RING), lambda m: m.number > 1),
    bits(lambda word: 0), "log-ring")
row("log-new-maps-unlogged", REPORTED, bits(lambda word: word & ~(1 << 3 | 1 << 5)), "log-mapped-later",
    "log-messages-later", "log-remapped")

# --- Which bit it is


def first_bit_first(word):
    return int(f"{word:064b}"[::-1], 2)


row("log-bits-from-the-top", REPORTED, bits(first_bit_first), "log-order", "log-counted", "log-beyond")
row("log-counted-from-0", of_report(8, "Q", lambda iova: iova == TO + 5 * PAGE),
    bits(lambda word: word << 5), "log-counted")
row("log-whole-words", of_report(16, "Q", lambda length: length == 3 * PAGE), bits(lambda word: word | 1 << 3),
    "log-beyond")


def swapped(_, m):
    if len(m.payload) == BITMAP + 16:
        m.payload = m.payload[:BITMAP] + m.payload[BITMAP + 8:] + m.payload[BITMAP:BITMAP + 8]
    return m


row("log-words-swapped", REPORTED, swapped, "log-order")

# --- Other page sizes
LARGER = of_report(24, "Q", lambda page_size: page_size > PAGE)
row("log-larger-shifted", LARGER, bits(lambda word: word << 1), "log-larger", "log-larger-tail", "log-larger-huge")
row("log-larger-unscaled", LARGER, bits(lambda word: 1 << 5 | 1 << 47), "log-larger", "log-larger-tail",
    "log-larger-huge")
row("log-larger-first-only", LARGER, bits(lambda word: word & -word), "log-larger")
row("log-larger-tail-lost", LARGER, bits(lambda word: word & 1), "log-larger", "log-larger-tail")
row("log-larger-refused", both(asks(REPORT), field("self", 24, "Q", lambda page_size: page_size > PAGE)),
    refuse(EINVAL), "log-larger", "log-larger-tail", "log-larger-huge")
row("log-smaller-first-only", REPORTED, bits(lambda word: word & 0x0001000100010001), "log-smaller",
    "log-smaller-middle")
row("log-smaller-shifted", REPORTED, bits(lambda word: word << 16), "log-smaller")
row("log-smaller-from-middle", REPORTED, bits(lambda word: word << 1), "log-smaller-middle", "log-smaller")
row("log-smaller-refused", both(asks(REPORT), field("self", 24, "Q", lambda page_size: page_size < 16 * PAGE)),
    refuse(EINVAL), "log-smaller")

# --- From one report to the next


def never_clears(connection, m):
    seen = connection.memory.setdefault("seen", {})
    asked = m.request.payload[8:32]
    found, = struct.unpack_from("<Q", m.payload, BITMAP)
    seen[asked] = seen.get(asked, 0) | found
    return poke(BITMAP, "Q", seen[asked])(connection, m)


row("log-never-clears", REPORTED, never_clears, "log-clears", "log-clears-messages", "log-edges")
row("log-clears-all", both(REPORTED, field("request", 16, "Q", lambda length: length == 4 * PAGE)),
    then_tell("DEVICE_FEATURE", ALL), "log-clears-part")
row("log-refusal-clears", REPORT_REFUSED, first_tell("DEVICE_FEATURE", ALL), "log-refused-keeps", "log-no-room")
row("log-unmap-clears", requests("DMA_UNMAP"), first_tell("DEVICE_FEATURE", ALL), "log-unmapped")
row("log-sent-only", client_replies("DMA_WRITE"), then_tell("DEVICE_FEATURE", ALL), "log-under-way", "log-messages",
    "log-clears-messages")
row("log-race-lost", both(REPORTED, lambda m: m.number % 2 == 1), bits(lambda word: 0), "log-race")

# --- Start and stop
row("log-start-drops-ranges", answers(START), shorter(32), "log-start-reply")
row("log-start-says-no-ranges", answers(START), poke(16, "I", 0), "log-start-reply")
row("log-hint-repeated", both(answers(START), accepted),
    lambda _, m: poke(8, "Q", struct.unpack_from("<Q", m.request.payload, 8)[0])(_, m), "log-hint-odd")
row("log-hint-of-12288", both(answers(START), accepted), poke(8, "Q", 12288), "log-hints", "log-hint-large")
row("log-hint-not-above-maps", both(asks(START), field("self", 8, "Q", lambda size: size > 1 << 20)), refuse(EINVAL),
    "log-hints", "log-hint-large")
row("log-hint-is-an-order", both(asks(START), field("self", 8, "Q", lambda size: size & (size - 1) or size < PAGE)),
    refuse(EINVAL), "log-hints", "log-hint-odd")
row("log-report-bytes", REPORTED, shorter(7), "log-report-layout")
row("log-report-of-whole-maps", both(asks(REPORT), field("self", 8, "Q", lambda iova: iova != TO)), refuse(EINVAL),
    "log-part")
row("log-report-without-range", REPORTED, poke(8, "Q", 0), "log-report-layout")


def bitmap_alone(_, m):
    m.payload = m.payload[:8] + m.payload[BITMAP:]
    return m


row("log-report-bitmap-alone", REPORTED, bitmap_alone, "log-report-layout")
row("log-reports-always", REPORT_REFUSED, accept(empty), "log-not-started", "log-stopped", "log-page-size",
    "log-length-zero", "log-report-wrap")
row("log-report-other-errno", REPORT_REFUSED, refuse(E2BIG), "log-page-size", "log-length-zero", "log-report-wrap")
row("log-never-stops", asks(STOP), accept(repeated), "log-stop", "log-stopped", "log-clean-again")
row("log-stop-refused", asks(STOP), refuse(EINVAL), "log-stop", "log-stopped", "log-hints")
row("log-starts-anyhow", START_REFUSED, accept(repeated), "log-start-wrap", "log-start-length-zero",
    "log-more-ranges", "log-fewer-ranges")
row("log-start-other-errno", START_REFUSED, refuse(E2BIG), "log-start-wrap", "log-start-length-zero",
    "log-more-ranges", "log-fewer-ranges")
row("log-failed-start-logs", START_REFUSED, first_tell("DEVICE_FEATURE", struct.pack("<IIQII", 24, START, PAGE, 0, 0)),
    "log-start-wrap", "log-start-length-zero", "log-more-ranges", "log-fewer-ranges")
row("log-second-start-anew", both(asks(START), lambda m: m.number > 0), first_tell("DEVICE_FEATURE", STOPS),
    "log-second-start", "log-second-start-other")
row("log-starts-dirty", REPORTED, bits(lambda word: word | 1 << 3), "log-clean", "log-clean-again",
    "log-nothing")

# --- Too much
row("log-no-room-given", both(asks(REPORT), field("self", 0, "I", lambda argsz: argsz < 40)), poke(0, "I", 4096),
    "log-no-room")
row("log-too-large-empty", both(REPORT_REFUSED, field("request", 16, "Q", lambda length: length >> 36)),
    accept(empty), "log-too-large")
row("log-too-large-kills", both(asks(REPORT), field("self", 16, "Q", lambda length: length >> 63)), crash,
    "log-too-large")

# --- No DMA
row("log-no-dma-kills", asks(START), crash, "log-nothing", server="serial")
row("log-no-dma-dirty", REPORTED, bits(lambda word: (1 << 64) - 1), "log-nothing", server="serial")
row("log-probe-start-only", asks(PROBE | REPORT), refuse(EINVAL), "log-probe")
row("log-probe-report-only", asks(PROBE | START), refuse(EINVAL), "log-probe")
