"""VU-IRQ: what is broken in GET_IRQ_INFO, and what its flags promise wrongly."""

from interrupts import INTX, MASK, MSIX, SLOW, UNMASK, disable, is_assign, set_irqs
from mutation import accept, before, both, every, field, longer, poke, refuse, replies, requests, row

INFO = replies("GET_IRQ_INFO")


def of(index):
    return both(INFO, field("request", 8, "I", lambda asked: asked == index))


def asked(test, offset=0):
    return both(requests("GET_IRQ_INFO"), field("self", offset, "I", test))


def other_count_after_set_irqs(connection, m):
    if m.from_client and m.command == 8:
        connection.memory["set"] = True
    elif INFO(m) and connection.memory.get("set"):
        return poke(12, "I", lambda count: count + 1)(connection, m)
    return m


row("irq-short-argsz", INFO, poke(0, "I", 12), "irq-layout")
row("irq-payload-grows", INFO, longer(b"\0" * 4), "irq-layout")
row("irq-always-index-0", INFO, poke(8, "I", 0), "irq-index")
row("irq-eventfd-flag-lost", of(MSIX), poke(4, "I", lambda flags: flags & ~1), "irq-eventfd")
row("irq-no-eventfds", set_irqs(is_assign), refuse(95), "irq-eventfd")
row("irq-maskable-flag-lost", of(INTX), poke(4, "I", lambda flags: flags & ~2), "irq-intx-flags", server="edu")
row("irq-all-maskable", of(MSIX), poke(4, "I", lambda flags: flags | 2), "irq-maskable")
row("irq-no-mask", set_irqs(lambda s: s.flags & MASK), refuse(22), "irq-maskable", server="edu")
row("irq-no-unmask", set_irqs(lambda s: s.flags & UNMASK), refuse(22), "irq-maskable", server="edu")
row("irq-automasked-flag-lost", of(INTX), poke(4, "I", lambda flags: flags & ~4), "irq-automasked", "irq-intx-flags",
    server="edu", timeout=SLOW)
row("irq-no-second-vector", set_irqs(lambda s: is_assign(s) and s.start == 1), refuse(16), "irq-resize")
row("irq-second-vector-ousts-first", set_irqs(lambda s: is_assign(s) and s.start == 1), before(disable(MSIX)),
    "irq-resize")
row("irq-takes-any-index", both(INFO, field("request", 8, "I", lambda index: index >= 5)),
    accept(lambda m: m.payload[:16]), "irq-beyond")
row("irq-unused-refused", of(1), refuse(22), "irq-unused")
row("irq-takes-small-argsz", both(INFO, field("request", 0, "I", lambda argsz: argsz < 16)),
    accept(lambda m: m.payload[:16]), "irq-argsz-small")
row("irq-intx-two", of(INTX), poke(12, "I", 2), "irq-intx", server="edu")
row("irq-refuses-large-argsz", asked(lambda argsz: argsz > 16), refuse(22), "irq-argsz-large")
row("irq-answers-argsz", both(INFO, field("request", 0, "I", lambda argsz: argsz > 16)), longer(b"\0" * 16),
    "irq-argsz-large")
row("irq-refuses-large-payload", both(requests("GET_IRQ_INFO"), lambda m: len(m.payload) > 16), refuse(22),
    "irq-payload-large")
row("irq-refuses-dirty-fields", asked(lambda flags: flags != 0, 4), refuse(22), "irq-dirty-fields")
row("irq-count-changes", every, other_count_after_set_irqs, "irq-stable")
