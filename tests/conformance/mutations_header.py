"""VU-HDR: what is broken in headers, and in how they are taken."""

from mutation import (accept, asked_by_server, both, change, checks_only, client_replies, close, drop,
                      extra_descriptor, field, longer, lost, poke, posted, refuse, refuse_and_close, refused, replies,
                      requests, row, server_requests, twice, unknown, use_memory, when)
from proxy import COMMANDS, ERROR, HEADER, NO_REPLY, REPLY, Message

INFO = both(replies("GET_INFO"), checks_only)


def request(test):
    """What is answered satisfies the test."""
    return lambda m: m.request is not None and test(m.request)


# --- Ids, numbers, sizes, types, flags -----------------------------------------------------------------------------

row("header-id-of-8-bits", replies(), change(id=lambda m: m.id & 0xff),
    "header-layout", "header-id-echoed", "header-id-echoed-error")
row("header-id-signed", both(replies(), lambda m: m.id == 0xffff), change(id=0), "header-id-echoed")
row("header-error-without-id", both(replies(), refused, checks_only), change(id=0), "header-id-echoed-error")
row("header-size-of-payload", INFO, change(size=lambda m: len(m.payload)), "header-size")
row("header-command-lost", both(replies(), refused, checks_only), change(command=0), "header-command-echoed")
row("header-irq-info-as-info", both(replies("GET_IRQ_INFO"), checks_only), change(command=COMMANDS["GET_INFO"]),
    "header-command-echoed")
row("header-error-no-reply-type", both(replies(), refused, checks_only), change(flags=ERROR), "header-type-of-error")
row("header-answers-twice", INFO, twice, "header-one-reply")
row("header-refuses-twice", both(replies(), refused, checks_only), twice, "header-one-reply")
row("header-error-without-flag", both(replies(), refused, checks_only), change(flags=REPLY), "header-error-flag")
row("header-success-with-error-flag", INFO, change(flags=REPLY | ERROR), "header-error-flag")
for commands, check in (
        (("DMA_MAP",), "map"), (("DMA_UNMAP",), "map"), (("GET_INFO",), "info"), (("GET_REGION_INFO",), "info"),
        (("GET_REGION_IO_FDS",), "info"), (("GET_IRQ_INFO",), "info"), (("SET_IRQS",), "irqs"),
        (("REGION_READ",), "read"), (("REGION_WRITE",), "write"), (("REGION_WRITE_MULTI",), "multi"),
        (("DEVICE_FEATURE",), "feature"), (("MIG_DATA_READ",), "data"), (("MIG_DATA_WRITE",), "data"),
        (("DMA_READ", "DMA_WRITE"), "unknown"), (("VERSION",), "version"), (("VERSION",), "first")):
    ERRORS = both(replies(*commands), refused, checks_only)
    NAME = f"header-error-of-{commands[0].lower()}-{check}"
    row(f"{NAME}-with-payload", ERRORS, longer(b"\0" * 16), f"header-error-alone-{check}")
    row(f"{NAME}-with-descriptor", ERRORS, extra_descriptor, f"header-error-alone-{check}")
row("header-error-of-unknown-with-payload", both(replies(), refused, unknown), longer(b"\0" * 16),
    "header-error-alone-unknown")
row("header-error-zero", both(replies(), refused, checks_only), change(error=0), "header-errno")
row("header-error-negative", both(replies(), refused, checks_only), change(error=lambda m: -m.error & 0xffffffff),
    "header-errno")
row("header-flags-echo-no-reply", both(replies("GET_IRQ_INFO"), checks_only), change(flags=REPLY | NO_REPLY),
    "header-reply-flags")
row("header-flags-more", both(replies(), refused, checks_only), change(flags=lambda m: m.flags | 0x40),
    "header-reply-flags")
row("header-error-in-success", INFO, change(error=1), "header-reserved-zero")
row("header-error-field-matters", both(requests(), lambda m: m.error != 0), refuse(22), "header-error-ignored")
row("header-sparse-reserved", both(replies("GET_REGION_INFO"), lambda m: len(m.payload) > 48), poke(44, "I", 1),
    "header-reserved-sparse")
row("header-io-fds-padding", replies("GET_REGION_IO_FDS"), poke(44, "I", 0xffffffff), "header-reserved-io-fds")
row("header-same-id-refused", requests("GET_INFO"),
    when(lambda c, m: len(c.asked[(True, False, m.id, m.command)]) > 1, refuse(16)), "header-same-ids")

# --- No reply --------------------------------------------------------------------------------------------------------

row("header-posted-answered", both(requests(), posted), change(flags=lambda m: m.flags & ~NO_REPLY),
    "header-posted", "header-posted-overlap", "header-posted-unknown", "header-posted-truncated")
row("header-posted-dropped", both(requests("DMA_MAP"), posted), drop, "header-posted")
row("header-posted-ends", both(requests(), posted), close,
    "header-posted", "header-posted-overlap", "header-posted-unknown", "header-posted-truncated")

# --- Unknown, unasked ------------------------------------------------------------------------------------------------

row("header-unknown-accepted", both(replies(), unknown, refused), accept(), "header-unknown-refused")
row("header-unknown-beyond-8-bits", both(requests(), lambda m: m.command == 0x104),
    change(command=COMMANDS["GET_INFO"]), "header-unknown-refused")
row("header-unknown-einval", both(replies(), unknown, refused), change(error=22), "header-unknown-enosys")
row("header-client-reads-memory", both(replies("DMA_READ"), refused), accept(), "header-server-commands")
row("header-client-writes-memory", both(replies("DMA_WRITE"), refused), accept(), "header-server-commands")
for kind in (2, 15):
    row(f"header-type-{kind}-executed", lambda m, kind=kind: m.flags & 15 == kind, change(flags=0),
        "header-other-type", "header-other-type-answered")
row("header-unasked-reply-ends", client_replies(), close, "header-unasked-reply", "header-unasked-error")
row("header-unasked-reply-executed", client_replies(), change(flags=0), "header-unasked-reply", "header-unasked-error")

# --- The server's own commands ---------------------------------------------------------------------------------------

row("header-one-space-of-ids", requests("GET_INFO"),
    when(lambda c, m: any(asked.id == m.id for asked in asked_by_server(c)), refuse(16)), "header-ids-apart")
row("header-command-for-reply", requests("DMA_READ"), change(flags=REPLY), "header-ids-apart-command",
    timeout=1000)
row("header-dma-flags-more", server_requests("DMA_READ"), change(flags=lambda m: m.flags | 0x80), "header-dma-flags")
row("header-dma-error-field", server_requests("DMA_READ"), change(error=5), "header-dma-error-zero")

# --- Sizes -----------------------------------------------------------------------------------------------------------

for command, fixed, check in (
        ("DMA_MAP", 32, "map"), ("DMA_UNMAP", 24, "unmap"), ("GET_INFO", 16, "info"),
        ("GET_REGION_INFO", 32, "region-info"), ("GET_REGION_IO_FDS", 16, "io-fds"), ("GET_IRQ_INFO", 16, "irq-info"),
        ("SET_IRQS", 20, "set-irqs"), ("REGION_READ", 16, "read"), ("REGION_WRITE", 16, "write"),
        ("REGION_WRITE_MULTI", 8, "multi"), ("DEVICE_FEATURE", 8, "feature"), ("MIG_DATA_READ", 8, "data-read"),
        ("MIG_DATA_WRITE", 8, "data-write"), ("VERSION", 4, "version")):
    SHORT = both(replies(command), refused, request(lambda m, fixed=fixed: len(m.payload) == fixed - 1))
    row(f"header-takes-short-{check}", SHORT, accept(), f"header-truncated-{check}")
    if command != "VERSION":
        row(f"header-short-{check}-eio", SHORT, change(error=5), f"header-truncated-{check}")
row("header-takes-long-map", both(replies("DMA_MAP"), refused, request(lambda m: len(m.payload) > 32)), accept(),
    "header-longer")
row("header-takes-long-read", both(replies("REGION_READ"), refused, request(lambda m: len(m.payload) > 16)), accept(),
    "header-longer")
row("header-takes-size-zero", both(requests(), lost, lambda m: m.size < 16), drop, "header-framing-lost",
    timeout=1000)
row("header-goes-on-at-size-zero", both(requests(), lost, lambda m: m.size < 16), refuse(22), "header-framing-ends",
    timeout=1000)
row("header-drops-all-at-size-zero", both(requests(), lost, lambda m: m.size < 16), close, "header-framing-answers")
row("header-huge-taken", both(requests(), lost), accept(), "header-huge")
row("header-huge-allocated", both(requests(), lost), use_memory(100), "header-huge-memory")
row("header-large-not-drained", both(requests("REGION_WRITE"), lambda m: len(m.payload) > 1 << 20),
    refuse_and_close(90), "header-drained")
row("header-large-taken", both(replies("REGION_WRITE"), refused), accept(), "header-drained")


def not_skipped(fields):
    """What a command has behind its fields is taken for messages: the first two."""
    def transform(_, m):
        messages, rest = [m], m.payload[fields:]
        while len(rest) >= HEADER.size and len(messages) < 3:
            ident, command, size, flags, error = HEADER.unpack_from(rest)
            messages.append(Message(ident, command, flags, error, rest[HEADER.size:size], [], True))
            rest = rest[size:]
        return messages
    return transform


row("header-unknown-not-skipped", both(requests(), unknown), not_skipped(0), "header-skips-unknown")
row("header-types-not-skipped", both(lambda m: m.flags & 15 != 0, lambda m: m.from_client), not_skipped(0),
    "header-skips-types")
for command, fields, check in (
        ("GET_REGION_IO_FDS", 16, "optional"), ("REGION_WRITE_MULTI", 8, "optional"),
        ("DEVICE_FEATURE", 8, "optional"), ("MIG_DATA_READ", 8, "optional"), ("MIG_DATA_WRITE", 8, "optional"),
        ("DMA_READ", 16, "server"), ("DMA_WRITE", 16, "server"), ("DMA_MAP", 32, "longer"),
        ("DMA_UNMAP", 24, "longer"), ("GET_INFO", 16, "longer"), ("GET_REGION_INFO", 32, "longer"),
        ("GET_IRQ_INFO", 16, "longer"), ("SET_IRQS", 20, "longer"), ("REGION_READ", 16, "longer"),
        ("DEVICE_RESET", 0, "longer")):
    row(f"header-{command.lower()}-not-skipped",
        both(requests(command), checks_only, lambda m, fields=fields: len(m.payload) == fields + 64),
        not_skipped(fields), f"header-skips-{check}")
row("header-data-not-skipped", both(requests("REGION_WRITE"), field("self", 8, "I", lambda region: region == 0xffff)),
    not_skipped(16), "header-skips-no-region")
row("header-large-not-skipped", both(requests("REGION_WRITE"), lambda m: len(m.payload) > 1 << 20), not_skipped(16),
    "header-skips-large")
