"""VU-SET: what is broken in SET_IRQS and in the signalling of eventfds."""

import os

from accesses import write_of
from interrupts import (BOOL, ERR, EVENTFD, INTX, MASK, MSIX, NONE, REQ, SLOW, TRIGGER, UNMASK, disable, eventfds,
                        irq_payload, irq_set, is_assign, is_disable, is_take_away, is_trigger, keep, rewrite, set_irqs,
                        spurious, swallow)
from mutation import (accept, any_of, before, both, close, drop, every, longer, posted, posted_request, refuse, replies,
                      requests, row)

VECTORS = 8  # of testdev


def bits(flags):
    return bin(flags).count("1")


def data(s):
    return s.flags & 7


def action(s):
    return s.flags & 0x38


# --- What has to be refused --------------------------------------------------------------------------------------

row("set-payload-in-reply", replies("SET_IRQS"), longer(b"\0" * 4), "set-no-payload")
row("set-takes-no-data", set_irqs(lambda s: s.flags < 64 and not data(s)), accept(), "set-no-data")
row("set-takes-no-action", set_irqs(lambda s: s.flags < 64 and not action(s)), accept(), "set-no-action")
row("set-takes-two-data", set_irqs(lambda s: bits(data(s)) > 1), accept(), "set-two-data")
row("set-takes-two-actions", set_irqs(lambda s: bits(action(s)) > 1), accept(), "set-two-actions")
row("set-takes-unknown-flags", set_irqs(lambda s: s.flags >= 64), accept(), "set-unknown-flags")
row("set-takes-highest-flag", set_irqs(lambda s: s.flags >> 31), accept(), "set-unknown-flags")
row("set-takes-small-argsz", set_irqs(lambda s: s.argsz < 20), accept(), "set-argsz-small")
row("set-takes-argsz-without-data", set_irqs(lambda s: s.argsz >= 20 and s.flags & BOOL and s.argsz < 20 + s.count),
    accept(), "set-argsz-bool")
row("set-takes-short-bool", set_irqs(lambda s: s.flags & BOOL and 0 < len(s.data) < s.count), accept(),
    "set-bool-short")
row("set-takes-empty-bool", set_irqs(lambda s: s.flags == BOOL | TRIGGER and not s.data and s.count), accept(),
    "set-bool-short")
row("set-takes-long-bool", set_irqs(lambda s: s.flags & BOOL and len(s.data) > s.count > 0), accept(), "set-bool-long")
row("set-takes-few-fds", set_irqs(lambda s: 0 < s.nfds < s.count), accept(), "set-fds-few")
row("set-takes-many-fds", set_irqs(lambda s: s.flags & EVENTFD and s.nfds > s.count), accept(), "set-fds-many")
row("set-takes-fds-with-none", set_irqs(lambda s: s.flags & NONE and s.nfds), accept(), "set-fds-none")
row("set-takes-fds-with-bool", set_irqs(lambda s: s.flags & BOOL and s.nfds), accept(), "set-fds-bool")
row("set-takes-disable-with-start", set_irqs(lambda s: is_disable(s) and s.start), accept(), "set-disable-start")
row("set-takes-count-0-bool", set_irqs(lambda s: s.flags & BOOL and s.count == 0), accept(), "set-count-zero-bool")
row("set-takes-count-0-eventfd", set_irqs(lambda s: s.flags & EVENTFD and s.count == 0), accept(),
    "set-count-zero-eventfd")
row("set-takes-any-index", set_irqs(lambda s: s.index > REQ), accept(), "set-index-beyond")
row("set-takes-empty-index", set_irqs(lambda s: s.index == INTX), accept(), "set-index-empty")
row("set-takes-start-beyond",
    set_irqs(lambda s: s.index == MSIX and s.start >= VECTORS and s.start + s.count < 1 << 32), accept(),
    "set-start-beyond")
row("set-takes-one-vector-more",
    set_irqs(lambda s: s.index == MSIX and s.start < VECTORS and s.start + s.count == VECTORS + 1), accept(),
    "set-count-beyond")
row("set-takes-wrapped-range", set_irqs(lambda s: s.start + s.count >= 1 << 32), accept(), "set-range-wraps")
row("set-takes-mask-of-msix", set_irqs(lambda s: s.index == MSIX and s.flags & MASK), accept(),
    "set-mask-not-maskable")
row("set-takes-unmask-eventfd-of-msix", set_irqs(lambda s: s.index == MSIX and s.flags == EVENTFD | UNMASK), accept(),
    "set-unmask-not-maskable")

# --- A failure that changes something: part of it was done before it was refused -----------------------------------

row("set-disables-before-range-check", set_irqs(lambda s: is_take_away(s) and s.count > VECTORS), before(disable(MSIX)),
    "set-failure-range", timeout=SLOW)
row("set-disables-whatever-the-start", set_irqs(lambda s: is_disable(s) and s.start), before(disable(MSIX)),
    "set-failure-disable", timeout=SLOW)
row("set-disables-whatever-the-flags", set_irqs(lambda s: s.count == 0 and s.flags not in (NONE | TRIGGER, )),
    before(disable(MSIX)), "set-failure-flags", timeout=SLOW)

FIRST_OF = posted_request("SET_IRQS", irq_payload(EVENTFD | TRIGGER, MSIX, 0, 1), lambda m: [os.dup(m.fds[0])])

row("set-assigns-first-of-too-many", set_irqs(lambda s: s.nfds > s.count), before(FIRST_OF), "set-failure-descriptors",
    timeout=SLOW)


def assigns_up_to_bad(m):
    return set_irqs(is_assign)(m) and len(m.fds) == 2 and kind(m.fds[1]) == "socket"


def kind(fd):
    return os.readlink(f"/proc/self/fd/{fd}").split(":")[0]


row("set-assigns-up-to-bad-descriptor", assigns_up_to_bad, before(FIRST_OF), "set-failure-bad-descriptor",
    timeout=SLOW)

# --- To assign and to trigger ------------------------------------------------------------------------------------


def reverse(_, m):
    m.fds.reverse()
    return m


row("set-swallows-request", set_irqs(lambda s: is_assign(s) and s.index == REQ), swallow, "set-assign", timeout=SLOW)
row("set-reverses-vectors", set_irqs(is_assign), reverse, "set-assign-each", "set-device")
row("set-ignores-start", set_irqs(lambda s: is_assign(s) and s.count == 1), rewrite(start=0), "set-assign-start")
row("set-signals-twice", set_irqs(is_trigger), lambda _, m: [m.copy(flags=0x10), m], "set-trigger-none", "set-replace",
    "set-bool-values", "set-posted")
row("set-triggers-from-0", set_irqs(lambda s: is_trigger(s) and s.flags & NONE and s.start),
    rewrite(start=0, count=lambda s: s.count + s.start), "set-trigger-range", "set-assign-each")
row("set-triggers-all", set_irqs(lambda s: is_trigger(s) and s.flags & BOOL), rewrite(flags=NONE | TRIGGER, data=b""),
    "set-trigger-bool")
row("set-bool-counts-from-0", set_irqs(lambda s: is_trigger(s) and s.flags & BOOL), rewrite(start=0),
    "set-trigger-bool-range")
row("set-bool-wants-1", set_irqs(lambda s: is_trigger(s) and s.flags & BOOL),
    rewrite(data=lambda s: bytes(byte == 1 for byte in s.data)), "set-bool-values", timeout=SLOW)
row("set-drops-posted", both(requests("SET_IRQS"), posted), drop, "set-posted", timeout=SLOW)

# --- To take away ------------------------------------------------------------------------------------------------


def refuse_second_disable(connection, m):
    connection.memory["disabled"] = connection.memory.get("disabled", 0) + 1
    return m.reply(error=22) if connection.memory["disabled"] > 1 else m


def refuse_what_has_none(connection, m):
    """Only what was assigned can be taken away."""
    assigned = eventfds(connection, m)
    if set_irqs(is_take_away)(m) and (irq_set(m).index, irq_set(m).start) not in assigned:
        return m.reply(error=22)
    return m


def refuse_later_assign(connection, m):
    connection.memory["assigned"] = connection.memory.get("assigned", 0) + 1
    return m.reply(error=28) if connection.memory["assigned"] > 20 else m


row("set-keeps-what-is-taken-away", set_irqs(is_take_away), accept(), "set-take-away", "set-take-away-one",
    "set-device-taken-away")
row("set-takes-all-away", set_irqs(lambda s: is_take_away(s) and s.count == 1),
    rewrite(flags=NONE | TRIGGER, count=0), "set-take-away-one", timeout=SLOW)
row("set-takes-away-assigned-only", every, refuse_what_has_none, "set-take-never", "set-qemu-msix")
row("set-disable-does-nothing", set_irqs(is_disable), accept(), "set-disable", "set-device-disabled")
row("set-disables-vector-0", set_irqs(is_disable), rewrite(flags=EVENTFD | TRIGGER, count=1), "set-disable")
row("set-disables-once", set_irqs(is_disable), refuse_second_disable, "set-disable-again")
row("set-disables-all-types", set_irqs(is_disable), before(disable(ERR)), "set-disable-others", timeout=SLOW)
row("set-disable-leaks", set_irqs(is_assign), refuse_later_assign, "set-again-and-again")

# --- To replace, and to add --------------------------------------------------------------------------------------


def leak(connection, m):
    for fd in m.fds:
        keep(connection, fd)
    return m


def keeps_first(connection, m):
    """Vectors that have an eventfd keep it."""
    s = irq_set(m)
    known = connection.memory.setdefault("assigned", set())
    if (s.index, s.start) in known:
        return m.reply()
    known.update((s.index, s.start + i) for i in range(s.count))
    return m


row("set-keeps-first-eventfd", set_irqs(is_assign), keeps_first, "set-replace", "set-device-replaced", timeout=SLOW)
row("set-signals-replaced", every, spurious(any_of(set_irqs(is_trigger), write_of(0, 0x1c, "I")), 0),
    "set-replace-silent", "set-device-replaced")
row("set-leaks-replaced", set_irqs(is_assign), leak, "set-replace-closed", timeout=SLOW)
row("set-wants-ascending", set_irqs(lambda s: is_assign(s) and s.count == 1 and s.start == VECTORS - 1), refuse(22),
    "set-one-by-one", "set-assign-start")
row("set-wants-all-at-once", set_irqs(lambda s: is_assign(s) and s.start and s.count > 1), refuse(22), "set-pieces")

# --- What is no eventfd, or full ---------------------------------------------------------------------------------


def gets(*kinds):
    return both(set_irqs(is_assign), lambda m: any(kind(fd) in kinds for fd in m.fds))


def is_full(fd):
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        return "eventfd-count: fffffffffffffffe" in info.read()


def block_on_full(connection, m):
    """Once an eventfd is full when it is assigned, nothing is executed from the next request on that signals it."""
    if set_irqs(is_assign)(m) and any(is_full(fd) for fd in m.fds):
        connection.memory["full"] = True
    elif connection.memory.get("full") and any_of(set_irqs(is_trigger), write_of(0, 0x1c, "I"))(m):
        connection.memory["blocked"] = True
    return None if m.from_client and connection.memory.get("blocked") else m


row("set-dies-of-files", lambda m: set_irqs(is_assign)(m) and any(kind(fd)[0] == "/" for fd in m.fds), close,
    "set-not-eventfd")
row("set-blocks-on-socket", gets("socket"), drop, "set-socket-full", timeout=SLOW)
row("set-dies-of-socket", gets("socket"), close, "set-socket-closed")
row("set-dies-of-unmask-socket", both(set_irqs(lambda s: s.flags == EVENTFD | UNMASK),
                                      lambda m: any(kind(fd) == "socket" for fd in m.fds)), close,
    "set-unmask-not-eventfd", server="edu")
row("set-blocks-on-full", every, block_on_full, "set-full", "set-full-device", timeout=SLOW)
