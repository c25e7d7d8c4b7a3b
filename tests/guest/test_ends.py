"""Ends that nobody asked for: QEMU, `outboard run` or a device is killed while a guest runs."""

import os
import pathlib
import select
import signal

from backends import EDU, SERIAL, serial_line
from guest_test import GuestTest
from outboard_guest import EXIT_SECONDS
from test_edu import ENABLE, IDENTIFICATION

DEVICE_DIED = 124  # outboard-run(1), EXIT STATUS


def descendants(pid):
    """{process id: command line} of the processes that a process started, and that they started."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text(encoding="ascii").split()):
            found[child] = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            found |= descendants(child)
    return found


class EndsTest(GuestTest):
    def setUp(self):
        if not self.backend.runs_processes:
            self.skipTest("nothing but QEMU runs")
        self.machine = self.backend.standard(1, 1)
        self.addCleanup(self.machine.close)
        self.temporary = self.machine.path("tmp")
        os.mkdir(self.temporary)
        self.machine.wrap = ["env", f"TMPDIR={self.temporary}", *self.machine.wrap]  # which becomes what it starts
        self.machine.start()
        processes = descendants(self.machine.process.pid)
        (self.qemu,) = [pid for pid, words in processes.items() if "-qmp" in words and "run" not in words]
        (self.edu,) = [pid for pid, words in processes.items() if "edu" in words and "run" not in words]
        self.handles = {pid: os.pidfd_open(pid) for pid in processes}
        for handle in self.handles.values():
            self.addCleanup(os.close, handle)
        (self.bdf,) = self.machine.find(*EDU)
        self.assertEqual(self.machine.pci(self.bdf, *ENABLE, "read", 0, IDENTIFICATION, 4), [0x010000ed])

    def gone(self, handle):
        self.assertTrue(select.select([handle], [], [], EXIT_SECONDS)[0], "a process lives on")

    def nothing_left(self):
        """The status of `outboard run`, after which neither a process is there nor a file."""
        status = self.machine.process.wait(EXIT_SECONDS)
        for handle in self.handles.values():
            self.gone(handle)
        self.assertEqual(os.listdir(self.temporary), [])
        self.assertFalse(os.path.exists(self.machine.path("serial0")), "the serial port's socket is still there")
        return status

    def test_qemu_killed(self):
        os.kill(self.qemu, signal.SIGKILL)
        self.assertEqual(self.nothing_left(), 128 + signal.SIGKILL)

    def test_run_killed(self):
        self.machine.process.kill()
        self.assertEqual(self.nothing_left(), -signal.SIGKILL)

    def test_device_killed(self):
        """The guest reads ones from the dead device and goes on, with the other device."""
        os.kill(self.edu, signal.SIGKILL)
        self.gone(self.handles[self.edu])
        self.assertEqual(self.machine.pci(self.bdf, "read", 0, IDENTIFICATION, 4), [0xffffffff])
        (tty,) = self.machine.ttys(self.machine.find(*SERIAL)[0])
        with serial_line(self.machine, 0) as line:
            self.machine.check(f"stty -F {tty} raw -echo && echo alive >{tty}")
            received = b""
            while len(received) < 6:
                received += line.recv(100) or self.fail("the line was closed")
            self.assertEqual(received, b"alive\n")
        self.machine.qmp("quit")
        self.assertEqual(self.nothing_left(), DEVICE_DIED)
