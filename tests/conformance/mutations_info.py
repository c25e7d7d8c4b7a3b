"""VU-INFO: what is broken in GET_INFO."""

from mutation import accept, both, change, field, longer, poke, refuse, replies, requests, row

INFO = replies("GET_INFO")

row("info-short-argsz", INFO, poke(0, "I", 12), "info-layout")
row("info-payload-grows", INFO, longer(b"\0" * 4), "info-layout")
row("info-not-pci", INFO, poke(4, "I", lambda flags: flags & ~2), "info-pci")
row("info-reset-flag-lost", INFO, poke(4, "I", lambda flags: flags & ~1), "info-reset-flag")
row("info-eight-regions", INFO, poke(8, "I", 8), "info-regions")
row("info-four-irqs", INFO, poke(12, "I", 4), "info-irqs")
row("info-takes-small-argsz", both(INFO, field("request", 0, "I", lambda argsz: argsz < 16)),
    accept(b"\x10\0\0\0\x03\0\0\0\x09\0\0\0\x05\0\0\0"), "info-argsz-small")
row("info-refuses-large-argsz", both(requests("GET_INFO"), field("self", 0, "I", lambda argsz: argsz > 32)),
    refuse(22), "info-argsz-large")
row("info-refuses-large-payload", both(requests("GET_INFO"), lambda m: len(m.payload) > 16),
    refuse(22), "info-payload-large")
row("info-refuses-dirty-fields", both(requests("GET_INFO"), field("self", 4, "I", lambda flags: flags != 0)),
    refuse(22), "info-dirty-fields")
row("info-other-size", INFO, change(size=15), "survey")
