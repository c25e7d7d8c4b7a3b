"""VU-VER: what is broken in VERSION, its JSON text and the limits that it announces."""

import re
import struct

from mutation import (accept, accepted, any_of, both, change, checks_only, close, crash, extra_descriptor, field,
                      no_descriptors, nth, poke, refuse, refused, replies, requests, row, shorter, use_memory, variant,
                      when)
from proxy import COMMANDS, NO_REPLY

ASKED, ANSWERED = requests("VERSION"), both(replies("VERSION"), accepted, checks_only)
REFUSED = both(replies("VERSION"), refused)
VERSION = bytes(4)
INFO = b"\x10\0\0\0\x03\0\0\0\x09\0\0\0\x05\0\0\0"


def says(text):
    return lambda m: text in m.payload


def asked(test):
    """What is answered satisfies the test."""
    return lambda m: m.request is not None and test(m.request)


def text(new):
    """The JSON text behind the numbers, with its NUL."""
    return change(payload=lambda m: m.payload[:4] + new)


def rewrite(old, new):
    """Replaces what a pattern matches in the payload."""
    return change(payload=lambda m: re.sub(old, new, m.payload))


# --- Numbers and the form of the reply -------------------------------------------------------------------------------

row("version-major-one", ANSWERED, poke(0, "H", 1), "version-major")
row("version-own-minor", ANSWERED, poke(2, "H", 2), "version-minor", "version-higher-minor")
row("version-refuses-minors", both(ASKED, field("self", 2, "H", lambda minor: minor > 0)), refuse(93),
    "version-higher-minor", "version-higher-minor-bare")
row("version-any-major", both(REFUSED, asked(lambda m: m.payload[:2] != b"\0\0")), accept(VERSION),
    "version-other-major")
row("version-waits-for-right-major", both(ASKED, field("self", 0, "H", lambda major: major > 0)), refuse(93),
    "version-other-major", timeout=1000)
row("version-major-einval", REFUSED, change(error=22), "version-other-major-errno")
row("version-text-without-nul", ANSWERED, shorter(1), "version-reply-text")
row("version-text-padded", ANSWERED, change(payload=lambda m: m.payload + b"\0\0\0"), "version-reply-text")
row("version-text-no-json", ANSWERED, text(b"{capabilities:{}}\0"), "version-reply-json")
row("version-text-latin1", ANSWERED, text(b"{\"\xe9\":1}\0"), "version-reply-json")
row("version-text-array", ANSWERED, text(b"[]\0"), "version-reply-json")
row("version-capabilities-array", ANSWERED, text(b"{\"capabilities\":[]}\0"), "version-reply-json")
row("version-number-quoted", ANSWERED, rewrite(rb"(\"max_msg_fds\":)(\d+)", rb'\1"\2"'), "version-reply-numbers")
row("version-number-real", ANSWERED, rewrite(rb"(\"max_data_xfer_size\":)(\d+)", rb"\1\2.0"), "version-reply-numbers")
row("version-boolean-number", ANSWERED, rewrite(rb"\"write_multiple\":\w+", rb'"write_multiple":1'),
    "version-reply-booleans")
row("version-json-only-for-json", both(ANSWERED, asked(lambda m: len(m.payload) == 4)), text(b""),
    "version-reply-has-json")
row("version-multiple-always", ANSWERED, rewrite(rb"\"write_multiple\":false", rb'"write_multiple":true'),
    "version-no-multiple")
row("version-twin-always", ANSWERED,
    rewrite(rb"\"capabilities\":{", rb'"capabilities":{"twin_socket":{"supported":true},'), "version-no-twin")
row("version-fd-always", ANSWERED, extra_descriptor, "version-no-twin", "version-no-fds-twin")

# --- Again -----------------------------------------------------------------------------------------------------------


def last_limits(connection, m):
    """A second VERSION is refused, and its max_msg_fds holds."""
    if m.command == COMMANDS["VERSION"]:
        connection.memory["none"] = b'"max_msg_fds":0' in m.payload
        return m
    return no_descriptors(connection, m) if connection.memory.get("none") else m


row("version-again", REFUSED, accept(VERSION), "version-second", "version-second-other")
row("version-again-ends", both(ASKED, nth(1)), close, "version-second", "version-second-other")
row("version-again-counts", any_of(ASKED, replies("GET_REGION_INFO")), last_limits, "version-second-limits")

# --- Texts that have to be taken -------------------------------------------------------------------------------------

row("version-wants-json", both(ASKED, lambda m: len(m.payload) == 4), refuse(22), "version-without-json")
row("version-wants-capabilities", both(ASKED, lambda m: m.payload[4:] == b"{}\0"), refuse(22), "version-empty")
row("version-wants-any-capability", both(ASKED, says(b'"capabilities":{}}\0')), refuse(22),
    "version-empty-capabilities")
row("version-unknown-refused", both(ASKED, says(b'"other"')), refuse(22),
    "version-unknown-keys", "version-unknown-capabilities")
row("version-migration-refused", both(ASKED, says(b'"migration"')), refuse(22), "version-as-qemu")
row("version-spaces-refused", both(ASKED, says(b" :\n")), refuse(22), "version-spaces")
row("version-ascii-only", both(ASKED, lambda m: any(byte > 127 for byte in m.payload)), refuse(22), "version-utf8")
row("version-escapes-refused", both(ASKED, says(b"\\u")), refuse(22), "version-escapes")
row("version-escapes-not-seen", both(ASKED, says(b"\\u005f")), rewrite(rb"\\u005f", b"-"), "version-escaped-key")
row("version-wants-fds", both(ASKED, checks_only, lambda m: b"max_msg_fds" not in m.payload), refuse(22),
    "version-each-alone", "version-default-fds")

# --- Texts that have to be refused -----------------------------------------------------------------------------------


def session_after_refusal(connection, m):
    """VERSION is refused, and then everything works."""
    if m.command == COMMANDS["VERSION"]:
        connection.memory["refused"] = True
        return refuse(22)(connection, m)
    return accept(INFO)(connection, m) if connection.memory.get("refused") else m


row("version-takes-any-text", REFUSED, accept(VERSION),
    "version-without-nul", "version-nul-inside", "version-malformed", "version-blank", "version-trailing",
    "version-no-object", "version-not-utf8")
row("version-takes-any-value", REFUSED, accept(VERSION),
    "version-wrong-fds", "version-wrong-data", "version-negative-data", "version-wrong-maps",
    "version-wrong-pgsizes", "version-wrong-multiple", "version-wrong-twin", "version-wrong-capabilities")
row("version-refuses-and-serves", any_of(both(ASKED, says(b"garbage")), both(replies("GET_INFO"), refused)),
    session_after_refusal, "version-malformed")
row("version-crashes-at-half", both(ASKED, says(b'"max_msg_fds":}')), crash, "version-malformed")
row("version-crashes-at-string", both(ASKED, says(b'"max_dma_maps":"16"')), crash, "version-wrong-maps")
row("version-recursion", both(ASKED, lambda m: m.payload.count(b"[") + m.payload.count(b"{") > 10000), crash,
    "version-deep-arrays", "version-deep-objects", "version-deep-open")
row("version-deep-memory", both(ASKED, lambda m: m.payload.count(b"[") + m.payload.count(b"{") > 500), use_memory(80),
    "version-deep-arrays", "version-deep-objects", "version-deep-open")
row("version-long-memory", both(ASKED, lambda m: len(m.payload) > 500000), use_memory(80),
    "version-long-string", "version-long-array")

# --- Before VERSION --------------------------------------------------------------------------------------------------


def early(connection, m):
    return (True, COMMANDS["VERSION"], False) not in connection.seen


def executed_later(connection, m):
    """What comes before VERSION is refused, and executed behind the next VERSION."""
    kept = connection.proxy.memory.setdefault("early", [])
    if m.command == COMMANDS["VERSION"]:
        due, kept[:] = kept[:], []
        return [m] + due
    if not early(connection, m):
        return m
    kept.append(m.copy(flags=NO_REPLY))
    return None if m.flags & NO_REPLY else m.reply(error=22)


for command, check in (
        ("GET_INFO", "info"), ("GET_REGION_INFO", "region-info"), ("GET_REGION_IO_FDS", "io-fds"),
        ("GET_IRQ_INFO", "irq-info"), ("DMA_MAP", "map"), ("DMA_UNMAP", "unmap"), ("SET_IRQS", "set-irqs"),
        ("REGION_READ", "read"), ("REGION_WRITE", "write"), ("REGION_WRITE_MULTI", "multi"),
        ("DEVICE_RESET", "reset"), ("DEVICE_FEATURE", "feature"), ("MIG_DATA_READ", "data"),
        ("MIG_DATA_WRITE", "data")):
    row(f"version-not-needed-for-{command.lower()}", both(replies(command), refused), when(early, accept()),
        f"version-first-{check}")
row("version-not-needed-for-unknown", both(replies(), refused, lambda m: m.command in (0, 14)), when(early, accept()),
    "version-first-unknown")
row("version-refuses-early-and-executes", requests(), executed_later,
    "version-first-map", "version-first-set-irqs", "version-first-write", "version-first-posted",
    "version-first-multi", "version-first-reset")

# --- Limits ----------------------------------------------------------------------------------------------------------


def fewer_maps(connection, m):
    """It announces more maps than it takes."""
    if m.is_reply:
        m.payload = m.payload.replace(b'"max_dma_maps":65535', b'"max_dma_maps":300')
        return m
    return refuse(22)(connection, m) if m.number >= 290 else m


row("version-17-fds", ANSWERED, rewrite(rb"\"max_msg_fds\":16", rb'"max_msg_fds":17'), "version-most-fds")
row("version-fd-for-each-area", both(replies("GET_REGION_INFO"), checks_only, lambda m: m.fds), extra_descriptor,
    "version-one-fd", "version-default-fds")
row("version-fds-for-all", both(replies("GET_REGION_INFO"), checks_only), extra_descriptor,
    "version-no-fds")
row("version-io-fds-for-all", both(replies("GET_REGION_IO_FDS"), checks_only), extra_descriptor, "version-no-fds")
row("version-wants-a-descriptor", both(ASKED, says(b'fds":0')), refuse(22),
    "version-no-fds", "version-no-fds-twin", "version-no-fds-memory")
MEMORY = both(requests("REGION_READ", "REGION_WRITE"), field("self", 8, "I", lambda region: region == 2))
row("version-memory-by-map-only", both(MEMORY, checks_only), refuse(1), "version-no-fds-memory")
variant("version-memory-never-by-message", MEMORY, refuse(1), "version-no-fds-memory", "connection-*-memory")
row("version-8-fds", both(requests("SET_IRQS"), lambda m: len(m.fds) > 8), refuse(22), "version-takes-fds",
    server="testdev,vectors=16")
row("version-data-not-read", ASKED, rewrite(rb"max_data_xfer_size\":\d+", rb'max_data_xfer_size":1048576'),
    "version-dma-read-count", "version-dma-write-count", "version-dma-odd-count", "version-data-zero-dma")
row("version-divides-by-zero", both(ASKED, says(b'max_data_xfer_size":0')), crash,
    "version-data-zero", "version-data-zero-dma")
for command in ("REGION_READ", "REGION_WRITE"):
    row(f"version-{command.lower()}-below-largest",
        both(requests(command), field("self", 12, "I", lambda count: count >= 1 << 20)), refuse(22),
        f"version-largest-{command[7:].lower()}", server="testdev,vectors=16")
row("version-half-written", both(requests("REGION_WRITE"), lambda m: len(m.payload) > 1 << 19),
    change(payload=lambda m: m.payload[:1 << 19] + bytes(len(m.payload) - (1 << 19))), "version-largest-write",
    server="testdev,vectors=16")
row("version-saving-below-largest",
    both(requests("MIG_DATA_READ"), field("self", 4, "I", lambda size: size >= 1 << 20)), refuse(22),
    "version-largest-saving")
row("version-fewer-maps", any_of(replies("VERSION"), requests("DMA_MAP")), fewer_maps, "version-as-many-maps")
row("version-pages-of-512", ANSWERED, rewrite(rb"\"pgsizes\":1075843072", rb'"pgsizes":1075843584'),
    "version-page-sizes")
row("version-no-pages", ANSWERED, rewrite(rb"\"pgsizes\":\d+", rb'"pgsizes":0'), "version-page-sizes")
