#!/usr/bin/env python3
"""Builds examples/hello with the very line at its top, against the installed library, and uses the device.

Usage: test_hello.py BUILD-FOLDER
"""

import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "examples/hello/hello.c"
VERSION, GET_IRQ_INFO, SET_IRQS, READ, WRITE, RESET = 1, 7, 8, 9, 10, 13
CONFIG = 7  # VFIO_PCI_CONFIG_REGION_INDEX
MSIX = 2  # VFIO_PCI_MSIX_IRQ_INDEX
COUNT, STEP, TICK = 0, 4, 8


class Client:
    """Just enough of a vfio-user client."""

    def __init__(self, program, environment):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(30)
        self.process = subprocess.Popen([program, f"--fd={theirs.fileno()}"], pass_fds=[theirs.fileno()],
                                        env=environment)
        theirs.close()
        self.call(VERSION, struct.pack("<HH", 0, 0) + b'{"capabilities":{}}\0')

    def receive(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the device closed the connection"
            data += piece
        return data

    def call(self, command, payload=b"", fds=()):
        message = struct.pack("<HHIII", 7, command, 16 + len(payload), 0, 0) + payload
        socket.send_fds(self.socket, [message], list(fds))
        number, answered, size, flags, error = struct.unpack("<HHIII", self.receive(16))
        assert (number, answered, flags, error) == (7, command, 1, 0), (command, flags, error)
        return self.receive(size - 16)

    def read(self, offset, region=0, size=4):
        return int.from_bytes(self.call(READ, struct.pack("<QII", offset, region, size))[16:], "little")

    def write(self, offset, value, region=0, size=4):
        self.call(WRITE, struct.pack("<QII", offset, region, size) + value.to_bytes(size, "little"))

    def capability(self, wanted):
        at = self.read(0x34, CONFIG, 1)
        while at and self.read(at, CONFIG, 1) != wanted:
            at = self.read(at + 1, CONFIG, 1)
        return at

    def close(self):
        self.socket.close()
        assert self.process.wait(30) == 0


def build(folder, build_folder):
    """The header's line, run in a folder that has nothing but hello.c."""
    text = SOURCE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60, "hello is to stay within 60 lines"
    line = re.search(r"^ \* Build: (.*)$", text, re.MULTILINE).group(1)
    tree = folder / "installed"
    subprocess.run(["meson", "install", "-C", build_folder, "--no-rebuild", "--quiet", "--destdir", tree], check=True)
    config, = tree.rglob("outboard.pc")
    library, = tree.rglob("liboutboard.so")
    shutil.copy(SOURCE, folder)
    # The prefix is not where the files are: only paths are changed, the line is not.
    environment = {**os.environ, "PKG_CONFIG_PATH": str(config.parent), "PKG_CONFIG_SYSROOT_DIR": str(tree),
                   "LD_LIBRARY_PATH": str(library.parent)}
    print(line)
    subprocess.run(["sh", "-euc", line], cwd=folder, env=environment, check=True)
    return folder / "hello", environment


def use(program, environment):
    device = Client(program, environment)
    event = os.eventfd(0, os.EFD_NONBLOCK)
    assert device.read(0, CONFIG) == 0x0b0b1234
    msix = device.capability(0x11)
    assert msix, "no MSI-X capability"
    device.write(4, 0x6, CONFIG, 2)  # memory and bus master
    device.write(msix + 2, 0x8000, CONFIG, 2)
    device.call(SET_IRQS, struct.pack("<IIIII", 20, 0x24, MSIX, 0, 1), [event])
    assert (device.read(COUNT), device.read(STEP)) == (0, 1)
    device.write(STEP, 40)
    device.write(TICK, 1)
    device.write(TICK, 1)
    assert device.read(COUNT) == 80
    try:
        os.eventfd_read(event)
        raise AssertionError("it interrupted below a hundred")
    except BlockingIOError:
        pass
    device.write(TICK, 1)
    assert (device.read(COUNT), os.eventfd_read(event)) == (120, 1)
    device.call(RESET)
    assert (device.read(COUNT), device.read(STEP)) == (0, 1)
    device.close()


def main():
    with tempfile.TemporaryDirectory(prefix="outboard-hello-") as name:
        use(*build(pathlib.Path(name), os.path.abspath(sys.argv[1])))


if len(sys.argv) != 2:
    sys.exit(__doc__)
main()
