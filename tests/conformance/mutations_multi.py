"""VU-MULTI: what is broken in REGION_WRITE_MULTI."""

import struct

from accesses import CONFIG, REGIONS
from mutation import (accept, accepted, answered, both, close, drop, field, longer, padded, poke, posted, refuse,
                      refused, replies, requests, row)
from proxy import NO_REPLY

ASKED, REPLIES = requests("REGION_WRITE_MULTI"), replies("REGION_WRITE_MULTI")
ONE = struct.Struct("<QII8s")


def writes(m):
    """(offset, region, count, data) of each that is whole."""
    whole = m.payload[8:8 + (len(m.payload) - 8) // ONE.size * ONE.size] if len(m.payload) >= 8 else b""
    return list(ONE.iter_unpack(whole))


def count(m):
    return struct.unpack_from("<Q", m.payload)[0] if len(m.payload) >= 8 else 0


def other(change):
    """Other writes, as `change` makes them of those that came, with a wr_cnt that agrees."""
    def transform(_, m):
        after = change(writes(m))
        m.payload = struct.pack("<Q", len(after)) + b"".join(ONE.pack(*w) for w in after)
        return m
    return transform


def well_formed(m):
    return len(m.payload) == 8 + ONE.size * count(m)


def all_of_them(_, m):
    """The reply says that all were completed, whatever was."""
    m.payload = struct.pack("<Q", m.request.wanted)
    return m


def without(bad):
    """Writes that fail are left out, and the reply counts what came."""
    def transform(connection, m):
        if m.is_reply:
            return all_of_them(connection, m)
        m.wanted = len(writes(m)) - 1
        return other(lambda ws: [w for w in ws if not bad(w)])(connection, m)
    return transform


def both_ways(m):
    """Messages whose reply is changed, too."""
    return ASKED(m) and well_formed(m) or REPLIES(m) and hasattr(m.request, "wanted")


row("multi-backwards", both(ASKED, well_formed), other(lambda ws: ws[::-1]), "multi-last", "multi-overlap",
    "multi-two-hundred")
row("multi-whole-data", both(ASKED, well_formed),
    other(lambda ws: [(o, r, 8 if r == 4 else n, d) for o, r, n, d in ws]), "multi-first-bytes")
row("multi-reply-from-zero", both(REPLIES, accepted), poke(0, "Q", lambda n: n - 1), "multi-reply")
row("multi-reply-echoes", both(REPLIES, accepted), longer(bytes(24)), "multi-reply")
row("multi-reply-in-bytes", both(REPLIES, accepted), poke(0, "Q", lambda n: n * 24), "multi-reply")
row("multi-one-region", both(ASKED, well_formed),
    other(lambda ws: [(o, ws[0][1], n, d) for o, r, n, d in ws]), "multi-regions")
row("multi-zero-not-permitted", both(ASKED, lambda m: count(m) == 0 and len(m.payload) == 8), refuse(1), "multi-zero")
row("multi-at-most-128", both(ASKED, lambda m: count(m) == 200), refuse(7), "multi-two-hundred")
row("multi-does-128", both_ways,
    lambda connection, m: all_of_them(connection, m) if m.is_reply else
    setattr(m, "wanted", count(m)) or other(lambda ws: ws[:128])(connection, m), "multi-two-hundred")

# Counts that lie.
row("multi-by-size", both(ASKED, lambda m: count(m) > len(writes(m))), other(lambda ws: ws), "multi-count-more",
    "multi-count-wraps")
for width in (64, 32):
    row(f"multi-by-product-of-{width}-bits",
        both(ASKED, lambda m, width=width: count(m) * 24 % (1 << width) == len(m.payload) - 8 != count(m) * 24),
        other(lambda ws: ws), "multi-count-wraps")
row("multi-by-count", both(ASKED, lambda m: 0 < count(m) < len(writes(m))),
    lambda connection, m: other(lambda ws, n=count(m): ws[:n])(connection, m), "multi-count-fewer")
row("multi-over-read", both(ASKED, lambda m: len(m.payload) < 8 + 24 * count(m) < 8 + 24 * len(writes(m)) + 25),
    lambda connection, m: padded(bytes(8 + 24 * count(m)))(connection, m), "multi-cut")
row("multi-drops-part", both(ASKED, lambda m: len(m.payload) > 8 and (len(m.payload) - 8) % 24 != 0),
    other(lambda ws: ws), "multi-longer")
row("multi-cut-does-whole-ones", both(ASKED, lambda m: count(m) == 2 and len(writes(m)) == 1),
    lambda _, m: [other(lambda ws: ws)(_, m.copy(flags=NO_REPLY)), m], "multi-cut")
row("multi-head-over-read", both(ASKED, lambda m: len(m.payload) < 8), padded(bytes(8)), "multi-truncated")
row("multi-clips", both(ASKED, lambda m: any(n > 8 for _, _, n, _ in writes(m))),
    other(lambda ws: [(o, r, min(n, 8), d) for o, r, n, d in ws]), "multi-too-wide")
row("multi-does-those-before", both(ASKED, lambda m: any(n > 8 for _, _, n, _ in writes(m)[1:])),
    lambda _, m: [other(lambda ws: ws[:1])(_, m.copy(flags=NO_REPLY)), m], "multi-too-wide-refused")

# Failures.
row("multi-goes-on-no-region", both_ways, without(lambda w: w[1] >= REGIONS), "multi-stops-region")
row("multi-goes-on-beyond", both_ways, without(lambda w: w[1] == CONFIG and w[0] >= 4096), "multi-stops-range")
row("multi-goes-on-read-only", both_ways, without(lambda w: w[1] == 11), "multi-stops-read-only")
row("multi-counts-the-bad-one", both(REPLIES, accepted, lambda m: count(m) < count(m.request)),
    poke(0, "Q", lambda n: n + 1), "multi-failure-counts", "multi-stops-region", "multi-stops-range",
    "multi-stops-read-only")
row("multi-first-is-one", both(REPLIES, refused, field("request", 0, "Q", lambda n: n == 2)),
    accept(struct.pack("<Q", 1)), "multi-first-fails")
row("multi-first-skipped", both_ways, without(lambda w: w[1] >= REGIONS), "multi-first-fails")
row("multi-any-failure-is-error", both(REPLIES, accepted, lambda m: count(m) < count(m.request)), refuse(22),
    "multi-error-first")
row("multi-no-failure-is-error", both(REPLIES, refused), accept(bytes(8)), "multi-error-first")

# Posted.
POSTED = both(ASKED, posted)
row("multi-posted-answered", POSTED, answered, "multi-posted", "multi-posted-fails", "multi-posted-malformed")
row("multi-posted-dropped", POSTED, drop, "multi-posted")
row("multi-posted-failure-answered", both(POSTED, lambda m: any(r >= REGIONS for _, r, _, _ in writes(m))), answered,
    "multi-posted-fails")
row("multi-posted-malformed-answered", both(POSTED, lambda m: not well_formed(m)), answered, "multi-posted-malformed")
row("multi-posted-malformed-ends", both(POSTED, lambda m: not well_formed(m)), close, "multi-posted-malformed")
