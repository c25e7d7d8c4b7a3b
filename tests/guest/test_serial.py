"""The serial port on PCI seen from a guest: the kernel's own 8250 driver moves data through it."""

import random

from backends import SERIAL, serial_line
from guest_test import GuestTest
from outboard_guest import crc32, random_bytes

MEBIBYTE = 1 << 20
CHUNK = 64 << 10  # guest-tool says "more" so often


class SerialTest(GuestTest):
    def setUp(self):
        self.machine = self.backend.shared()
        self.bdfs = self.machine.find(*SERIAL)
        self.assertEqual(len(self.bdfs), 2)

    def tty(self, index):
        ttys = self.machine.ttys(self.bdfs[index])
        self.assertEqual(len(ttys), 1)
        return ttys[0]

    def from_guest(self, index, count, seed, flow):
        expected = random_bytes(count, seed)
        with serial_line(self.machine, index) as line:
            self.machine.check(f"(guest-tool send {self.tty(index)} {count} {seed} {flow} >/tmp/out 2>&1; "
                               "echo $? >>/tmp/out; echo >/tmp/done) & mkfifo /tmp/done; true")
            received = bytearray()
            while len(received) < count:
                data = line.recv(65536)
                self.assertTrue(data, "the line was closed")
                received += data
            self.assertEqual(self.machine.check("cat /tmp/done; rm /tmp/done; cat /tmp/out").split(),
                             [hex(crc32(expected)), "0"])
            self.assertTrue(bytes(received) == expected, "what arrived is not what was sent")

    def to_guest(self, index, count, seed, flow, paced=True):
        """`paced`: not faster than the guest reads. Without flow control on the line it would lose bytes."""
        data = random_bytes(count, seed)
        with serial_line(self.machine, index) as line:
            # What the tool says comes through a fifo, line by line; `sleep` holds it open in between.
            self.assertEqual(self.machine.check(
                "rm -f /tmp/said; mkfifo /tmp/said; sleep 600 <>/tmp/said & echo $! >/tmp/holder; "
                f"(guest-tool receive {self.tty(index)} {count} {seed} {flow} >/tmp/said 2>&1; "
                "echo status $? >/tmp/said) & read -r line </tmp/said; echo $line"), "ready")
            for start in range(0, count, CHUNK):
                line.sendall(data[start:start + CHUNK])
                if paced and start + CHUNK <= count:
                    self.assertEqual(self.machine.check("read -r line </tmp/said; echo $line"), "more")
            said = []
            while not said or not said[-1].startswith("status"):
                said.append(self.machine.check("read -r line </tmp/said; echo $line"))
            self.machine.check("kill $(cat /tmp/holder)")
            self.assertEqual([word for word in said if word != "more"], [hex(crc32(data)), "status 0"])

    def test_driver(self):
        listing = self.machine.check("cat /proc/tty/driver/serial")
        for index in range(2):
            number = self.tty(index).removeprefix("/dev/ttyS")
            self.assertRegex(listing, rf"(?m)^{number}: uart:16550A port:[0-9A-F]+ irq:[1-9]")
            self.assertTrue(self.machine.check(
                f"readlink /sys/bus/pci/devices/{self.bdfs[index]}/driver").endswith("/serial"))

    def test_mebibyte_from_guest(self):
        self.from_guest(0, MEBIBYTE, 1234, "none")

    def test_from_guest_rtscts(self):
        self.from_guest(1, 2 * CHUNK, 2345, "rtscts")

    def test_mebibyte_to_guest(self):
        self.to_guest(0, MEBIBYTE, 3456, "none")

    def test_to_guest_rtscts(self):
        # The kernel lowers RTS when 4 KiB wait to be read; a port that heeds it needs no other pacing.
        self.to_guest(1, 2 * CHUNK, 4567, "rtscts", paced=not self.backend.heeds_rts)

    def test_rebind(self):
        """The driver lets go of the device and finds it again, and the line still works."""
        self.machine.bind(self.bdfs[0], None)
        self.assertEqual(self.machine.ttys(self.bdfs[0]), [])
        self.machine.bind(self.bdfs[0], "serial")
        self.from_guest(0, 5000, random.randrange(1, 1 << 32), "none")
        self.to_guest(0, 5000, random.randrange(1, 1 << 32), "none")
