"""VU-VER and VU-TWIN: clients that negotiate badly, or do not hold what was negotiated."""

import re

from client_good import GOOD_VERSION
from mutation import (any_of, both, change, client_replies, client_row, close, extra_descriptor, holds, nth, poke,
                      postpone, replies, requests, server_requests, shorter, twice)

VERSION = requests("VERSION")
ANSWER = replies("VERSION")


def text(before, after):
    """Replaces bytes of the text."""
    return change(payload=lambda m: m.payload.replace(before, after))


def unread(key, value):
    """The client sees this value of a capability, whatever the server's is."""
    def transform(_, m):
        number = re.compile(rb'("%s":)\d+' % key.encode())
        m.payload = number.sub(rb"\g<1>%d" % value, m.payload)
        return m
    return transform


# VERSION itself.
client_row("client-version-twice", VERSION, twice, "version-first")
client_row("client-version-second", VERSION, lambda _, m: [m.copy(command=13, payload=b"", flags=0x10), m],
           "version-first")
client_row("client-version-short", VERSION, change(payload=b"\0\0"), "version-layout")
client_row("client-version-major", VERSION, poke(0, "H", 1), "version-layout")
client_row("client-text-without-nul", VERSION, shorter(1), "version-layout")
client_row("client-text-malformed", VERSION, text(b'{"capabilities"', b'["capabilities"'), "version-layout")
client_row("client-version-posted", VERSION, change(flags=0x10), "version-posted")
client_row("client-number-as-text", VERSION, text(b'"max_msg_fds":16', b'"max_msg_fds":"16"'), "version-types")
client_row("client-boolean-as-number", VERSION, text(b'"write_multiple":true', b'"write_multiple":1'), "version-types")
client_row("client-capabilities-list", VERSION, change(payload=b'\0\0\0\0{"capabilities":[]}\0'), "version-types")

# Limits.
client_row("client-many-descriptors", both(requests("DMA_MAP"), nth(0)),
           lambda c, m: [extra_descriptor(c, m) for _ in range(17)][0], "limit-descriptors")
client_row("client-ignores-max-msg-fds", requests("DMA_MAP"), extra_descriptor, "offer-one-descriptor",
           "offer-no-descriptor")
client_row("client-reads-too-much", both(requests("REGION_READ"), nth(0)), poke(12, "I", 2 << 20), "limit-data")
client_row("client-ignores-max-data", ANSWER, unread("max_data_xfer_size", 1048576), "offer-little-data")
client_row("client-ignores-max-dma-maps", ANSWER, unread("max_dma_maps", 65535), "offer-few-maps", "limit-maps")
client_row("client-odd-map", requests("DMA_MAP"), poke(24, "Q", lambda size: size + 1), "limit-pages")
client_row("client-ignores-pgsizes", ANSWER, unread("pgsizes", 4096), "offer-large-pages")
client_row("client-wants-one-page-size", both(ANSWER, holds(b'"pgsizes":2101248')), close, "offer-several-pages")


def assume_multi(_, m):
    if b"write_multiple" not in m.payload:
        m.payload = m.payload.replace(b"}}\0", b',"write_multiple":true}}\0')
    return m


client_row("client-ignores-write-multiple", ANSWER, assume_multi, "offer-no-multi", "limit-multi")

# The reply's text.
client_row("client-wants-known-keys", both(ANSWER, holds(b'"future"')), close, "reply-unknown-keys")
client_row("client-wants-short-text", both(ANSWER, holds(lambda payload: len(payload) > 600)), close, "reply-long-text")
client_row("client-wants-text", both(ANSWER, holds(lambda payload: len(payload) == 4)), close, "reply-no-text")
client_row("client-wants-capabilities", both(ANSWER, holds(b"{}\0")), close, "reply-no-capabilities")
client_row("client-assumes-sixteen-fds", both(ANSWER, holds(b"{}")),
           text(b'{"capabilities":{}}', b'{"capabilities":{"max_msg_fds":16}}'), "reply-empty-capabilities")
client_row("client-ignores-version", ANSWER, poke(0, "I", 0), "version-other-major", "version-higher-minor")
client_row("client-takes-any-text", ANSWER, change(payload=GOOD_VERSION), "text-malformed", "text-no-nul",
           "text-no-object", "text-capabilities", "text-max-msg-fds", "text-max-data", "text-max-dma-maps",
           "text-pgsizes", "text-write-multiple")

# The twin socket.
client_row("client-twin-with-index", VERSION, text(b'"supported":true', b'"supported":true,"fd_index":0'), "twin-offer")
client_row("client-twin-as-text", VERSION, text(b'"supported":true', b'"supported":"yes"'), "twin-offer")
client_row("client-twin-replies-on-main", client_replies(), change(twin=False), "twin-replies")
client_row("client-twin-commands", both(requests("DEVICE_RESET")),
           lambda c, m: [m] + ([m.copy(twin=True, flags=0x10)] if c.twins else []), "twin-replies")
client_row("client-serves-twin-late", any_of(server_requests("DMA_WRITE"), replies()),
           postpone(server_requests("DMA_WRITE"), behind=2), "twin-before-reply")
client_row("client-insists-on-twin", both(ANSWER, holds(b'"supported":false')), close, "twin-not-supported")
client_row("client-wants-supported", both(ANSWER, holds(b'"twin_socket":{}')), close, "twin-says-nothing")
client_row("client-shrugs-at-twin", ANSWER, change(payload=GOOD_VERSION, fds=[]), "twin-no-index", "twin-index-beyond",
           "twin-index-negative", "twin-no-descriptor")
