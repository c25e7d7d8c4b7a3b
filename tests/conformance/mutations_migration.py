"""VU-MIG: what is broken in states, transitions, and streams."""

import os
import struct

from mutation import (DEVICE_STATE, FAILED, GET, MIGRATION, PRE_COPY, RESUMING, RUNNING, RUNNING_P2P, SET, STOP,
                      STOP_COPY, accept, answers, any_of, asks, before, behind, both, client_replies, echo,
                      extra_descriptor, field, has_set, in_state, longer, nth, poke, posted_request, posted_set,
                      posted_write, refuse, refused, requests, row, sets, shorter, variant)
from proxy import COMMANDS, Message

GOT = answers(GET | DEVICE_STATE)
OFFERED = answers(GET | MIGRATION)
STATES = {"running": RUNNING, "stop": STOP, "stop-copy": STOP_COPY, "resuming": RESUMING, "pre-copy": PRE_COPY,
          "error": FAILED}
EMPTY = struct.pack("<II", 8, 0)  # a reply to MIG_DATA_READ
SCRATCH, LEVELS = (0, 0x04), (0, 0x1c)  # registers of testdev

no_data = accept(EMPTY)
taken = accept(echo)


def say(state):
    return poke(8, "I", state)


def as_client_knows(_, m):
    """GET names the state that a client believes in."""
    return poke(8, "I", m.state)(_, m)


def choose(*cases):
    """The first transformation whose selector touches the message. For rows: the selector, and the transformation."""
    def transform(connection, m):
        for touches, one in cases:
            if touches(m):
                return one(connection, m)
        return m
    return any_of(*(touches for touches, _ in cases)), transform


# --- What is offered, and asked for

row("migration-offers-no-stop-copy", OFFERED, poke(8, "Q", lambda flags: flags & ~1), "migration-flags")
row("migration-hides-pre-copy", OFFERED, poke(8, "Q", lambda flags: flags & ~4), "migration-flag-pre-copy",
    "migration-no-pre-copy", "migration-no-pre-copy-p2p")
row("migration-lacks-pre-copy", sets(PRE_COPY), refuse(22), "migration-flag-pre-copy")
row("migration-hides-p2p", OFFERED, poke(8, "Q", lambda flags: flags & ~2), "migration-flag-p2p", "migration-no-p2p")
row("migration-lacks-p2p", sets(RUNNING_P2P), refuse(22), "migration-flag-p2p")
row("migration-state-of-16-bytes", GOT, longer(b"\0" * 8), "migration-layout")
row("migration-state-without-data-fd", GOT, shorter(4), "migration-layout")
row("migration-state-counts-from-9", GOT, say(lambda state: state + 8), "migration-layout")
row("migration-get-is-always-running", GOT, say(RUNNING), "migration-get-follows", "migration-get-resuming")
row("migration-get-of-resuming-is-stop", both(GOT, in_state(RESUMING)), say(STOP), "migration-get-resuming")
row("migration-starts-in-stop", both(GOT, nth(0)), say(STOP), "migration-starts-running")
row("migration-starts-with-a-stream", both(requests("MIG_DATA_READ"), nth(0)), no_data,
    "migration-starts-without-stream")
row("migration-get-before-set-is-done", GOT, lambda _, m: say(m.request.state)(_, m), "migration-set-complete")
row("migration-wants-data-fd", both(asks(SET | DEVICE_STATE), field("self", 12, "I", lambda fd: fd != 0xffffffff)),
    refuse(9), "migration-data-fd")
row("migration-stop-copy-descriptor", has_set(STOP_COPY), extra_descriptor, "migration-no-descriptor")
row("migration-resuming-descriptor", has_set(RESUMING), extra_descriptor, "migration-no-descriptor-resuming")
row("migration-pre-copy-descriptor", has_set(PRE_COPY), extra_descriptor, "migration-no-descriptor-pre-copy")
row("migration-get-descriptor", both(GOT, in_state(STOP_COPY, RESUMING, PRE_COPY)), extra_descriptor,
    "migration-no-descriptor", "migration-no-descriptor-resuming", "migration-no-descriptor-pre-copy")

row("migration-without-its-flags", OFFERED, refuse(25), "migration-lacking-get", "migration-lacking-set")
row("migration-set-without-its-flags", *choose((OFFERED, refuse(25)), (GOT, refuse(25)),
                                               (asks(SET | DEVICE_STATE), taken)), "migration-lacking-set")
row("migration-data-without-its-flags", *choose((OFFERED, refuse(25)), (requests("MIG_DATA_READ"), no_data),
                                                (requests("MIG_DATA_WRITE"), accept())),
    "migration-lacking-read", "migration-lacking-write")

# --- Transitions that are missing, or not made

ARCS = [("running", "stop"), ("stop", "running"), ("stop", "stop-copy"), ("stop-copy", "stop"), ("stop", "resuming"),
        ("resuming", "stop"), ("running", "pre-copy"), ("pre-copy", "running"), ("pre-copy", "stop-copy"),
        ("running", "stop-copy"), ("running", "resuming"), ("stop", "pre-copy"), ("stop-copy", "running"),
        ("stop-copy", "resuming"), ("resuming", "running"), ("resuming", "stop-copy"), ("resuming", "pre-copy"),
        ("pre-copy", "stop"), ("pre-copy", "resuming")]

for old, new in ARCS:
    arc = both(sets(STATES[new]), in_state(STATES[old]))
    row(f"migration-no-{old}-to-{new}", arc, refuse(22), f"migration-{old}-to-{new}")
    # Made by name only: the proxy says that it is. Of STOP only what the device does tells.
    if (old, new) != ("resuming", "stop"):
        row(f"migration-mere-{old}-to-{new}", *choose((arc, taken), (GOT, as_client_knows)),
            "migration-irq-stop" if (old, new) == ("running", "stop") else f"migration-{old}-to-{new}")

for old, new in ARCS:
    if old == "resuming":
        # The stream is lost, and the device is as after a reset.
        row(f"migration-lost-{old}-to-{new}", both(sets(STATES[new]), in_state(RESUMING)),
            before(posted_request("DEVICE_RESET")), f"migration-{old}-to-{new}")
    if old == "pre-copy" and new == "stop-copy":
        row("migration-anew-pre-copy-to-stop-copy", both(sets(STOP_COPY), in_state(PRE_COPY)),
            before(posted_set(STOP)), "migration-pre-copy-to-stop-copy", "migration-goes-on",
            "migration-other-pre-copy")

for old, new, errno in (("stop-copy", "pre-copy", 22), ("running", "error", 22), ("stop", "error", 22),
                        ("stop-copy", "error", 22), ("resuming", "error", 22), ("pre-copy", "error", 22)):
    arc = both(sets(STATES[new]), in_state(STATES[old]))
    row(f"migration-takes-{old}-to-{new}", arc, taken, f"migration-{old}-to-{new}")
    # Refused, but not without effect.
    away = {"running": (STOP,), "stop": (RUNNING,), "stop-copy": (STOP, STOP_COPY), "resuming": (STOP,),
            "pre-copy": (RUNNING,)}[old]
    row(f"migration-disturbed-by-{old}-to-{new}", arc, before(*(posted_set(state) for state in away)),
        f"migration-{old}-to-{new}")

row("migration-takes-eight", sets(8), taken, "migration-eight", "migration-eight-stop-copy")
row("migration-eight-stops", sets(8), before(posted_set(STOP)), "migration-eight", "migration-eight-stop-copy")
row("migration-state-of-8-bits", asks(SET | DEVICE_STATE), poke(8, "I", lambda state: state & 0xff),
    "migration-numbers")
row("migration-state-of-31-bits", asks(SET | DEVICE_STATE), poke(8, "I", lambda state: state & 0x7fffffff),
    "migration-numbers")

for name, state in STATES.items():
    again = both(sets(state), in_state(state))
    if name == "error":
        continue
    row(f"migration-refuses-same-{name}", again, refuse(22), f"migration-same-{name}")
    if state in (STOP_COPY, RESUMING, PRE_COPY):
        way = (STOP, state) if state != PRE_COPY else (RUNNING, state)
        anew = [posted_set(one) for one in way]
        if state == RESUMING:
            anew = [posted_request("DEVICE_RESET"), posted_set(STOP), posted_set(state)]
        row(f"migration-anew-same-{name}", again, before(*anew), f"migration-same-{name}")

# --- Streams that are not whole, and ERROR

for name in ("stop", "running", "stop-copy", "pre-copy"):
    checks = ["migration-half"] + (["migration-empty", "migration-last-byte"] if name == "stop" else [])
    row(f"migration-takes-parts-to-{name}",
        both(answers(SET | DEVICE_STATE), refused, lambda m, state=STATES[name]: m.request.state == RESUMING and
               struct.unpack_from("<I", m.request.payload, 8)[0] == state), taken,
        *([f"migration-half-to-{name}"] if name != "stop" else checks))
row("migration-parts-leave-stop", both(GOT, in_state(None)), say(STOP), "migration-empty", "migration-half",
    "migration-last-byte")
row("migration-parts-leave-running", both(GOT, in_state(None)), say(RUNNING), "migration-half",
    "migration-half-to-running")
row("migration-parts-survive-a-reset", both(requests("DEVICE_RESET"), in_state(None, FAILED)),
    behind(posted_write(*SCRATCH, b"\x55\0\0\0")), "migration-half", "migration-last-byte", "migration-half-to-running")
row("migration-failure-leaves-8", both(GOT, in_state(None)), say(8), "migration-failed-named")
row("migration-failure-leaves-nothing", both(GOT, in_state(None)), refuse(5), "migration-failed-named")

for name, state in STATES.items():
    row(f"migration-takes-error-to-{name}", both(sets(state), in_state(FAILED)), taken, f"migration-error-to-{name}")
row("migration-error-reads", both(requests("MIG_DATA_READ"), in_state(FAILED)), no_data, "migration-error-data")
row("migration-error-writes", both(requests("MIG_DATA_WRITE"), in_state(FAILED)), accept(), "migration-error-data")
row("migration-error-for-good", both(requests("DEVICE_RESET"), in_state(FAILED)), accept(), "migration-error-reset",
    "migration-reset-error")

# --- Clients that go, and resets


def outlives(connection, m):
    """The next client is told the state in which the last one left."""
    memory = connection.proxy.memory
    if has_set(*range(8))(m):
        memory["state"] = struct.unpack_from("<I", m.request.payload, 8)[0]
    elif GOT(m) and m.number == 0 and "state" in memory:
        return say(memory["state"])(connection, m)
    return m


row("migration-state-outlives-client", any_of(has_set(*range(8)), GOT), outlives, "migration-gone-stop-copy",
    "migration-gone-resuming", "migration-gone-pre-copy")
row("migration-stream-outlives-client", both(requests("MIG_DATA_READ"), nth(0), in_state(RUNNING)), no_data,
    "migration-session-stop-copy", "migration-session-pre-copy")
row("migration-load-outlives-client", both(requests("MIG_DATA_WRITE"), nth(0), in_state(RUNNING)), accept(),
    "migration-session-resuming")

for name in ("stop", "stop-copy", "resuming", "pre-copy"):
    row(f"migration-reset-ignored-in-{name}", both(requests("DEVICE_RESET"), in_state(STATES[name])), accept(),
        f"migration-reset-{name}")
row("migration-reset-stops", requests("DEVICE_RESET"), behind(posted_set(STOP)), "migration-reset-stop",
    "migration-reset-stop-copy", "migration-reset-resuming", "migration-reset-pre-copy", "migration-reset-error")
row("migration-stream-outlives-reset", both(requests("MIG_DATA_READ"), in_state(RUNNING)), no_data,
    "migration-reset-session-stop-copy", "migration-reset-session-pre-copy")
row("migration-load-outlives-reset", both(requests("MIG_DATA_WRITE"), in_state(RUNNING)), accept(),
    "migration-reset-session-resuming")
row("migration-reset-refused-in-pre-copy", both(requests("DEVICE_RESET"), in_state(PRE_COPY)), refuse(16),
    "migration-reset-running")
row("migration-reset-stops-pre-copy", both(requests("DEVICE_RESET"), in_state(PRE_COPY)), behind(posted_set(STOP)),
    "migration-reset-running")

# --- What a stream carries: the device runs, and something is lost


def after_load(*makers):
    """Behind the SET of RUNNING that follows a RESUMING."""
    def transform(connection, m):
        if sets(RESUMING)(m):
            connection.memory["loaded"] = True
        if sets(RUNNING)(m) and connection.memory.pop("loaded", False):
            return behind(*makers)(connection, m)
        return m
    return sets(RESUMING, RUNNING), transform


row("migration-loses-config", *after_load(posted_write(7, 0x3c, b"\0")), "migration-same-config",
    "migration-other-config")
row("migration-loses-memory", *after_load(posted_write(2, 100, b"\xff\0\xff\0")), "migration-same-memory",
    "migration-other-memory", "migration-other-pre-copy")
row("migration-loses-registers", *after_load(posted_write(*SCRATCH, b"\0\0\0\0")), "migration-same-registers",
    "migration-other-registers")
row("migration-loses-pending", *after_load(posted_write(*LEVELS, b"\0\0\0\0")), "migration-same-pending",
    "migration-other-pending")
row("migration-loses-edu-registers", *after_load(posted_write(0, 0x80, bytes(8))), "migration-same-registers",
    server="edu")
row("migration-loses-edu-pending", *after_load(posted_write(0, 0x64, b"\xff\xff\xff\xff")), "migration-same-pending",
    server="edu")
row("migration-loses-serial-registers", *after_load(posted_write(0, 7, b"\0")), "migration-same-registers",
    server="serial")
row("migration-loses-serial-pending", *after_load(posted_write(0, 1, b"\0")), "migration-same-pending",
    server="serial")

row("migration-stream-read-once", *choose((both(sets(STOP), in_state(STOP_COPY)), taken), (GOT, as_client_knows)),
    "migration-new-stream")
row("migration-pre-copy-read-once", *choose((both(sets(RUNNING), in_state(PRE_COPY)), taken),
                                            (GOT, as_client_knows)), "migration-new-pre-copy")

# --- What does not stand still

GUEST_TO = 0x02000000  # where the judge has what the device writes


def maps(address):
    return both(requests("DMA_MAP"), field("self", 16, "Q", lambda at: at == address))


row("migration-runs-in-stop", *choose((sets(STOP), behind(posted_set(RUNNING))), (GOT, as_client_knows)),
    "migration-irq-stop")


def keeps_event(then_signals):
    """Keeps the client's eventfds, and signals them when such a reply leaves."""
    def transform(connection, m):
        if m.from_client:
            connection.memory.setdefault("events", []).extend(os.dup(fd) for fd in m.fds)
        else:
            for fd in connection.memory.get("events", []):
                os.write(fd, struct.pack("<Q", 1))
        return m
    return any_of(requests("SET_IRQS"), then_signals), transform


row("migration-interrupts-in-stop", *keeps_event(has_set(STOP)), "migration-irq-stop")
row("migration-interrupts-in-stop-copy", *keeps_event(has_set(STOP_COPY)), "migration-irq-stop-copy")
row("migration-interrupts-in-resuming", *keeps_event(has_set(RESUMING)), "migration-irq-resuming")


def asks_in(state):
    """The device reads what is mapped at 1 MiB when it has entered that state; the client's answer goes nowhere."""
    mine = both(client_replies("DMA_READ"), lambda m: m.id == 0x4242)

    def transform(connection, m):
        if mine(m):
            return None
        if m.command == COMMANDS["DMA_MAP"]:
            connection.memory["mapped"] = True
        elif connection.memory.get("mapped"):
            return [m, Message(0x4242, COMMANDS["DMA_READ"], 0, 0, struct.pack("<QQ", 0x100000, 8), [], False)]
        return m
    return any_of(maps(0x100000), has_set(state), mine), transform


row("migration-dma-in-stop", *asks_in(STOP), "migration-dma-stop")
row("migration-dma-in-stop-copy", *asks_in(STOP_COPY), "migration-dma-stop-copy")
row("migration-dma-in-resuming", *asks_in(RESUMING), "migration-dma-resuming")


def writes_memory(connection, m):
    if m.command == COMMANDS["DMA_MAP"]:
        connection.memory["guest"] = [os.dup(fd) for fd in m.fds]
    else:
        for fd in connection.memory.get("guest", []):
            os.pwrite(fd, b"\x99", 70000)
    return m


row("migration-writes-in-stop-copy", any_of(maps(GUEST_TO), requests("MIG_DATA_READ")), writes_memory,
    "migration-dma-mapped")

off = posted_request("SET_IRQS", struct.pack("<5I", 20, 0x21, 2, 0, 0))  # all eventfds of MSI-X
row("migration-stop-loses-eventfds", both(sets(RUNNING), in_state(STOP)), behind(off), "migration-irq-runs")
row("migration-stop-loses-pending", sets(STOP), before(posted_write(*LEVELS, b"\0\0\0\0")), "migration-irq-kept")
row("migration-stop-loses-unmasking", both(requests("REGION_WRITE"), in_state(STOP),
                                           field("self", 8, "I", lambda region: region == 7)),
    accept(lambda request: request.payload[:16]), "migration-irq-unmasked")
row("migration-stop-fails-copies", both(client_replies("DMA_READ"), in_state(RUNNING)), refuse(5),
    "migration-dma-goes-on")
row("migration-silent-in-pre-copy", sets(PRE_COPY), before(off), "migration-irq-pre-copy")
row("migration-no-dma-in-pre-copy", sets(PRE_COPY),
    before(posted_request("DMA_UNMAP", struct.pack("<IIQQ", 24, 0, GUEST_TO, 4096))), "migration-dma-pre-copy")
row("migration-no-config-in-stop", both(requests("REGION_READ"), in_state(STOP)), refuse(16),
    "migration-config-stop")
row("migration-no-config-in-stop-copy", both(requests("REGION_READ"), in_state(STOP_COPY)), refuse(16),
    "migration-config-stop-copy")

# --- Other ways to conform

variant("migration-not-at-all", *choose((any_of(answers(GET | MIGRATION), GOT, answers(SET | DEVICE_STATE),
                                                answers(lambda flags: flags & 1 << 18)), refuse(25)),
                                        (requests("MIG_DATA_READ", "MIG_DATA_WRITE"), refuse(22))),
        "feature*", "mig*")
variant("migration-without-pre-copy", *choose((OFFERED, poke(8, "Q", 1)), (sets(5, 6, 7), refuse(22))),
        "feature*", "mig*")
variant("migration-without-accesses-in-stop",
        both(requests("REGION_READ", "REGION_WRITE"), in_state(STOP, STOP_COPY, RESUMING)), refuse(16),
        "migration-[!c]*", "mig-data*")
