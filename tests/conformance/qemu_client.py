#!/usr/bin/env python3
"""A stock QEMU as a client for the judge of clients, with this program in the place of its guest.

    qemu_client.py QEMU SOCKET [TIMEOUT]

QEMU runs without a guest (-accel qtest): what a guest's driver would do with the device is done here, through QEMU's
qtest socket: configuration space, BARs, registers, mapped memory, interrupts, a remapping of memory, a reset. Ends with
status 0 if every register had what it should have, with 1 if not, and otherwise as QEMU ended, by a signal too. TIMEOUT
is QEMU's for each message, in ms, and 1000 if not given.
"""

import json
import os
import signal
import socket
import subprocess
import sys

DEVICE = 4 << 11  # 00:04.0, as port 0xcf8 takes it
BARS = {0: 0xe0000000, 2: 0xe1000000, 4: 0xe2000000}
PORTS = 0xc000
ID = 0x6d6f6465  # of the judge's device, at 0 of region 0
MSIX, MSIX_TABLE = 0x70, 0x800
SECONDS = 60  # for QEMU to answer; the judge is less patient


class Wrong(Exception):
    """The device is not as it should be."""


class Qemu:
    def __init__(self, program, path, timeout):
        here, theirs = zip(*(socket.socketpair() for _ in range(2)))
        device = {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": path}, "addr": "4",
                  "x-msg-timeout": timeout}
        # A process group of its own would outlive the judge's.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", program, "-accel", "qtest", "-machine", "q35,memory-backend=ram",
             "-m", "64", "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-nodefaults", "-no-user-config",
             "-display", "none", "-qtest-log", "none",
             "-chardev", f"socket,id=qtest,fd={theirs[0].fileno()}", "-qtest", "chardev:qtest",
             "-chardev", f"socket,id=qmp,fd={theirs[1].fileno()}", "-qmp", "chardev:qmp",
             "-device", json.dumps(device, separators=(",", ":"))],
            stdin=subprocess.DEVNULL, pass_fds=[end.fileno() for end in theirs])
        for end in theirs:
            end.close()
        for end in here:
            end.settimeout(SECONDS)
        self.qtest, self.qmp = (end.makefile("rw", encoding="utf-8") for end in here)

    def command(self, text):
        """A qtest command; its value, if it has one."""
        self.qtest.write(text + "\n")
        self.qtest.flush()
        words = self.qtest.readline().split()
        if not words or words[0] != "OK":
            raise Wrong(f"{text}: {' '.join(words)}")
        return int(words[1], 0) if len(words) > 1 else None

    def execute(self, name, event=None):
        """A QMP command; waits for an event if one is named."""
        self.qmp.write(json.dumps({"execute": name}) + "\n")
        self.qmp.flush()
        waiting = {"return", event} - {None}
        while waiting:
            line = self.qmp.readline()
            if not line:
                raise Wrong(f"{name}: QEMU is gone")
            message = json.loads(line)
            waiting -= {message.get("event")} | message.keys()

    def configuration(self, offset, width="l", value=None):
        self.command(f"outl 0xcf8 {0x80000000 | DEVICE | offset & ~3:#x}")
        port = 0xcfc + (offset & 3)
        if value is None:
            return self.command(f"in{width} {port:#x}")
        return self.command(f"out{width} {port:#x} {value:#x}")

    def quit(self):
        try:
            self.execute("quit")
        except (OSError, ValueError, Wrong):
            pass
        return self.process.wait(SECONDS)


def expect(what, got, wanted):
    if got != wanted:
        raise Wrong(f"{what} is {got:#x} and should be {wanted:#x}")


def place_bars(qemu):
    for bar, address in BARS.items():
        qemu.configuration(0x10 + 4 * bar, value=0xffffffff)
        qemu.configuration(0x10 + 4 * bar)
        qemu.configuration(0x10 + 4 * bar, value=address)
    qemu.configuration(0x24, value=0)
    qemu.configuration(0x14, value=PORTS)
    qemu.configuration(4, "w", 7)


def use_registers(qemu):
    expect("the vendor and device id", qemu.configuration(0), 0xc11e1234)
    expect("the subsystem id", qemu.configuration(0x2c), 0xc11e1234)
    place_bars(qemu)
    expect("the first register", qemu.command(f"readl {BARS[0]:#x}"), ID)
    for width, size in zip("bwlq", (1, 2, 4, 8)):
        value = 0x1122334455667788 & (1 << 8 * size) - 1
        qemu.command(f"write{width} {BARS[0] + 0x100:#x} {value:#x}")
        expect(f"a register of {size} bytes", qemu.command(f"read{width} {BARS[0] + 0x100:#x}"), value)
    qemu.command(f"outb {PORTS + 4:#x} 0x5a")
    expect("a port", qemu.command(f"inb {PORTS + 4:#x}"), 0x5a)


def use_memory(qemu):
    """Behind a message, and mapped."""
    for address in (BARS[2], BARS[2] + 0x1000, BARS[2] + 0x8000, BARS[4] + 0x3000):
        qemu.command(f"writel {address:#x} 0xfeed5678")
        expect(f"memory at {address:#x}", qemu.command(f"readl {address:#x}"), 0xfeed5678)


def use_interrupts(qemu):
    """Two vectors of MSI-X."""
    for vector in range(2):
        entry = BARS[0] + MSIX_TABLE + 16 * vector
        for offset, value in ((0, 0xfee00000), (4, 0), (8, 0x30 + vector), (12, 0)):
            qemu.command(f"writel {entry + offset:#x} {value:#x}")
    qemu.configuration(MSIX + 2, "w", 0x8000)
    qemu.command(f"writel {BARS[0] + MSIX_TABLE + 12:#x} 1")
    qemu.command(f"writel {BARS[0] + MSIX_TABLE + 12:#x} 0")
    qemu.configuration(MSIX + 2, "w", 0)


def remap_memory(qemu):
    """What firmware does: memory below 1 MiB is RAM instead of ROM, and back (PAM0 of the host bridge)."""
    for value in (0x30, 0x10, 0x00):
        qemu.command("outl 0xcf8 0x80000090")
        qemu.command(f"outb 0xcfc {value:#x}")


def use(qemu):
    if not qemu.qmp.readline():
        raise Wrong("QEMU did not start")
    qemu.execute("qmp_capabilities")
    use_registers(qemu)
    use_memory(qemu)
    use_interrupts(qemu)
    remap_memory(qemu)
    qemu.execute("system_reset", "RESET")
    use_registers(qemu)


def main():
    qemu = Qemu(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1000)
    status = 0
    try:
        use(qemu)
    except (Wrong, OSError) as error:
        print(f"qemu_client: {error}", file=sys.stderr)
        status = 1
    end = qemu.quit()
    if end < 0:
        signal.signal(-end, signal.SIG_DFL)
        os.kill(os.getpid(), -end)
    return end or status


if __name__ == "__main__":
    sys.exit(main())
