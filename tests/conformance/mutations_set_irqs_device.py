"""VU-SET: what is broken in masks, and in what a device signals."""

import os

from accesses import write_of
from interrupts import (BOOL, EVENTFD, INTX, MASK, NONE, SLOW, UNMASK, irq_payload, is_assign, is_trigger, rewrite,
                        set_irqs, spurious, swallow)
from mutation import accept, before, every, posted_request, refuse, row, variant


def masks(action):
    return set_irqs(lambda s: s.flags & action and s.index == INTX)


TO_NOBODY = posted_request("SET_IRQS", lambda m: m.payload, lambda m: [os.eventfd(0) for _ in m.fds])
UNMASK_INTX = posted_request("SET_IRQS", irq_payload(NONE | UNMASK, INTX, 0, 1))


def unmask_only_once_for_each_mask(connection, m):
    """MASK counts."""
    depth = connection.memory.get("depth", 0) + (1 if masks(MASK)(m) else -1)
    connection.memory["depth"] = max(depth, 0)
    return m.reply() if masks(UNMASK)(m) and depth > 0 else m


row("set-device-signals-twice", every, spurious(write_of(0, 0x1c, "I")), "set-device", "set-device-adds")
row("set-device-signals-at-end", every, spurious(write_of(0, 0x64, "I")), "set-device", "set-device-adds",
    server="edu")
row("set-device-swallowed", set_irqs(is_assign), swallow, "set-device", "set-device-adds", timeout=SLOW)
row("set-loses-due-messages", set_irqs(is_assign), before(TO_NOBODY), "set-late-message", timeout=SLOW)
row("set-loses-due-intx", set_irqs(is_assign), swallow, "set-late-intx", server="edu", timeout=SLOW)
row("set-mask-does-nothing", masks(MASK), accept(), "set-mask", "set-mask-bool", "set-unmask-bool-zero",
    "set-unmask-due", server="edu")
row("set-mask-ignores-bool", set_irqs(lambda s: s.flags == BOOL | MASK), accept(), "set-mask-bool", server="edu")
row("set-mask-of-any-bool", set_irqs(lambda s: s.flags == BOOL | MASK), rewrite(flags=NONE | MASK, data=b""),
    "set-mask-bool-zero", server="edu", timeout=SLOW)
row("set-unmask-of-any-bool", set_irqs(lambda s: s.flags == BOOL | UNMASK), rewrite(flags=NONE | UNMASK, data=b""),
    "set-unmask-bool-zero", server="edu")
row("set-unmask-does-nothing", masks(UNMASK), accept(), "set-unmask-due", "set-automasked", server="edu", timeout=SLOW)
row("set-mask-counts", masks(MASK | UNMASK), unmask_only_once_for_each_mask, "set-mask-twice", server="edu",
    timeout=SLOW)
row("set-not-automasked", write_of(0, 0x60, "I"), before(UNMASK_INTX), "set-automasked", server="edu")
row("set-unmask-eventfd-unread", set_irqs(lambda s: s.flags == EVENTFD | UNMASK), swallow, "set-unmask-eventfd",
    "set-qemu-kvm", server="edu", timeout=SLOW)
row("set-unmask-eventfd-kept", set_irqs(lambda s: s.flags == EVENTFD | UNMASK and not s.nfds), accept(),
    "set-unmask-taken-away", server="edu")
row("set-mask-eventfd-unread", set_irqs(lambda s: s.flags == EVENTFD | MASK), swallow, "set-mask-eventfd",
    server="edu", timeout=SLOW)

# Left to the server.
variant("set-without-mask-eventfds", set_irqs(lambda s: s.flags & EVENTFD and s.flags & (MASK | UNMASK)), refuse(22),
        "set*", server="edu")
variant("set-without-bool", set_irqs(lambda s: s.flags & BOOL), refuse(22), "irq*", "set*", server="edu")
variant("set-without-loopback", set_irqs(is_trigger), refuse(22), "irq*", "set*", server="edu")
