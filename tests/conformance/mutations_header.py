"""VU-HDR: what is broken in headers, and in how they are taken."""

from mutation import (accept, asked_by_server, both, change, checks_only, client_replies, close, drop,
                      extra_descriptor, longer, lost, poke, posted, refuse, refuse_and_close, refused, replies,
                      requests, row, server_requests, twice, unknown, use_memory, when)
from proxy import COMMANDS, ERROR, NO_REPLY, REPLY

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
row("header-error-with-payload", both(replies(), refused, checks_only), longer(b"\0" * 16), "header-error-alone")
row("header-error-with-descriptor", both(replies("DMA_MAP"), refused), extra_descriptor, "header-error-alone")
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
    row(f"header-type-{kind}-executed", lambda m, kind=kind: m.flags & 15 == kind, change(flags=0), "header-other-type")
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
row("header-drops-all-at-size-zero", both(requests(), lost, lambda m: m.size < 16), close, "header-framing-answers")
row("header-huge-taken", both(requests(), lost), accept(), "header-huge")
row("header-huge-allocated", both(requests(), lost), use_memory(100), "header-huge-memory")
row("header-large-not-drained", both(requests("REGION_WRITE"), lambda m: len(m.payload) > 1 << 20),
    refuse_and_close(90), "header-drained")
row("header-large-taken", both(replies("REGION_WRITE"), refused), accept(), "header-drained")
