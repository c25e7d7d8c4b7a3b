"""The test device (tests/integration/device/testdev.c says what it has) seen from a guest, behind a root port: message
interrupts, all kinds of BARs, the worker's ring, resets, capabilities, and answers that take their time."""

import time

from guest_test import GuestTest
from outboard_guest import crc32, random_bytes

TESTDEV = (0x1234, 0x7e57)
ID, ID_VALUE = 0x00, 0x7e57de01
SCRATCH, SCRATCH_RESET = 0x04, 0x5c5c5c5c
COUNT, TICK, LEVELS, PULSE, ERROR_CODE, ERROR = 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28
KEEP, RELEASE, KEPT, KEEP_NS, KEPT_VALUE, ASYNC, ASYNC_VALUE = 0x2c, 0x30, 0x34, 0x38, 0x600d, 0x3c, 0xa5a5a5a5
TIMER_NS, TIMER_FIRED, BAR2_SUM, BAR2_FILL = 0x40, 0x44, 0x48, 0x4c
RESETS = {"device": 0x60, "flr": 0x64, "d3": 0x68}
WIDE, RING_ADDR, RING_SIZE, RING_CTRL, DOORBELL, RING_DONE, RING_RELEASE = 0x70, 0x80, 0x88, 0x8c, 0x90, 0x94, 0x98
HOLD, NO_VECTOR, OK, CANCELED = 1, 0xffffffff, 0x80000000, 0x80000000 | 125
ENABLE = ["config-write", 4, 2, 0x7]  # COMMAND: I/O, memory and bus master
KEPT_MS = 500  # the device's deadline for a request it keeps
GIB = 1 << 30

BRIDGE = ["-device", "pcie-root-port,id=bridge,chassis=1"]


def small(backend, accel):
    """A machine with one test device."""
    return backend.machine([f"{backend.testdev},deadline={KEPT_MS},qemu.bus=bridge"], accel=accel, devices=BRIDGE)


def write(offset, value, width=4):
    return ["write", 0, offset, width, value]


def read(offset, width=4):
    return ["read", 0, offset, width]


def entry(number, source, destination, length, vector, flags=0):
    """Commands that put an entry into the ring, which starts where the page starts."""
    at = number * 32
    return ["page-write", at, 8, source, "page-write", at + 8, 8, destination, "page-write", at + 16, 4, length,
            "page-write", at + 20, 4, vector, "page-write", at + 24, 4, flags, "page-write", at + 28, 4, 0]


START_RING = [*write(RING_ADDR, "@0", 8), *write(RING_SIZE, 4), *write(RING_CTRL, 1)]


def status(number):
    return ["page-read", number * 32 + 28, 4]


def ring_wait(count):
    return ["wait", 0, RING_DONE, 4, 0xffffffff, count]


def capabilities(config):
    """(offset, ID) of the capabilities in 4096 bytes of configuration space: PCI's and PCI Express's."""
    lists = [], []
    at = config[0x34]
    while at and len(lists[0]) < 48:
        lists[0].append((at, config[at]))
        at = config[at + 1]
    at = 0x100
    while at and len(lists[1]) < 960:
        header = int.from_bytes(config[at:at + 4], "little")
        lists[1].append((at, header & 0xffff))
        at = header >> 20
    return lists


class TestdevTest(GuestTest):
    def setUp(self):
        if not self.backend.testdev:
            self.skipTest("QEMU has no such device")
        self.machine = self.backend.shared("tcg", small)  # messages are caught in memory, which KVM does not do
        (self.bdf,) = self.machine.find(*TESTDEV)
        self.at = f"/sys/bus/pci/devices/{self.bdf}"

    def pci(self, *words):
        return self.machine.pci(self.bdf, *ENABLE, *words)

    def config(self):
        return bytes.fromhex(self.machine.check(f"xxd -p {self.at}/config | tr -d '\\n'"))

    # Configuration space

    def test_capabilities(self):
        config = self.config()
        self.assertEqual(len(config), 4096)
        plain, extended = capabilities(config)
        offsets = {number: at for at, number in plain}
        self.assertEqual(sorted(offsets), [0x01, 0x09, 0x10, 0x11])  # power, vendor, PCI Express, MSI-X
        self.assertEqual(len(offsets), len(plain))
        vendor = offsets[0x09]
        self.assertEqual(config[vendor + 2:vendor + 8], bytes([0x0c, 0x4f, 0x42, 0x01, 0x5a, 0xa5]))
        (serial,) = [at for at, number in extended if number == 0x0003]
        self.assertEqual(config[serial + 4:serial + 12], bytes.fromhex("efcdab8967452301"))
        express = offsets[0x10]
        self.assertTrue(int.from_bytes(config[express + 4:express + 8], "little") & 1 << 28, "no FLR")
        self.assertEqual(int.from_bytes(config[offsets[0x11] + 2:offsets[0x11] + 4], "little") & 0x7ff, 7)
        # Four bytes of the vendor capability can be written, those before them not.
        self.pci("config-write", vendor + 6, 2, 0xffff, "config-write", vendor + 8, 4, 0xdeadbeef)
        self.assertEqual(self.config()[vendor + 6:vendor + 12], bytes.fromhex("5aa5efbeadde"))

    def test_bars(self):
        rows = [[int(word, 16) for word in line.split()]
                for line in self.machine.check(f"cat {self.at}/resource").splitlines()]
        sizes = [end - start + 1 if end else 0 for start, end, _ in rows[:6]]
        self.assertEqual(sizes[:5], [0x1000, 32, 0x10000, 0, 0x4000])
        io, memory, prefetch, wide = 0x100, 0x200, 0x2000, 0x100000  # the kernel's IORESOURCE flags
        flags = [flags & (io | memory | prefetch | wide) for _, _, flags in rows[:5]]
        self.assertEqual(flags, [memory, io, memory | prefetch | wide, 0, memory])

    # Accesses

    def test_widths(self):
        self.assertEqual(
            self.pci(*read(ID), *write(SCRATCH, 0x11223344), *write(SCRATCH + 1, 0xaa, 1), *read(SCRATCH),
                     *read(SCRATCH + 2, 2), *write(WIDE, 0x0123456789abcdef, 8), *read(WIDE, 8), *read(WIDE + 4)),
            [ID_VALUE, 0x1122aa44, 0x1122, 0x0123456789abcdef, 0x01234567])

    def test_io_bar(self):
        """Through the resource file: the kernel does port accesses of the width asked for."""
        self.assertEqual(
            self.pci("write", 1, 0, 1, 0xab, "write", 1, 2, 2, 0xcdef, "write", 1, 4, 4, 0x12345678,
                     *(word for i in range(4) for word in ("write", 1, 0x10 + 4 * i, 4, 0x1000 + i)),
                     "read", 1, 0, 1, "read", 1, 2, 2, "read", 1, 4, 4,
                     *(word for i in range(4) for word in ("read", 1, 0x10 + 4 * i, 4))),
            [0xab, 0xcdef, 0x12345678, 0x1000, 0x1001, 0x1002, 0x1003])

    def test_mapped_bar(self):
        """What the guest stores the device sees, and the other way round, with no message in between."""
        self.assertIn("BAR 2 mmaps[0]", self.machine.qmp("human-monitor-command", command_line="info mtree"))
        words = [word for at in range(0, 64, 8) for word in ("write", 2, at, 8, 0x0102030405060708)]
        self.assertEqual(
            self.pci(*words, *read(BAR2_SUM), *write(BAR2_FILL, 0x7e), "read", 2, 0, 8, "read", 2, 63, 1,
                     "write", 2, 0xfff8, 8, 0xfedcba9876543210, "read", 2, 0xfffc, 4),
            [8 * 36, 0x7e7e7e7e7e7e7e7e, 0x7e, 0xfedcba98])

    def test_sparse_bar(self):
        """BAR4: two areas that are mapped, one whose accesses the device sees, and nothing elsewhere."""
        tree = self.machine.qmp("human-monitor-command", command_line="info mtree")
        self.assertIn("BAR 4 mmaps[0]", tree)
        self.assertIn("BAR 4 mmaps[1]", tree)
        self.assertNotIn("BAR 4 mmaps[2]", tree)
        values = self.pci("write", 4, 0x1000, 8, 0x1111, "write", 4, 0x1ff8, 8, 0x2222, "write", 4, 0x3000, 4, 0x3333,
                          "write", 4, 0x10, 2, 0x4455, "write", 4, 0x12, 1, 0x66, "write", 4, 0xf8, 8, 0x77,
                          "read", 4, 0x1000, 8, "read", 4, 0x1ff8, 8, "read", 4, 0x3000, 4,
                          "read", 4, 0x10, 4, "read", 4, 0xf8, 8)
        self.assertEqual(values, [0x1111, 0x2222, 0x3333, 0x00664455, 0x77])
        self.assertEqual(self.pci("write", 4, 0x2000, 4, 1, "read", 4, 0x2000, 4, *read(ID)), [0xffffffff, ID_VALUE])
        # A reset of the device clears what it saw and leaves memory alone.
        self.reset("flr")
        self.assertEqual(self.pci("read", 4, 0x10, 4, "read", 4, 0x1000, 8), [0, 0x1111])

    def test_errors(self):
        """An access that the device refuses reads as ones, has no effect, and does no harm."""
        before, value, after = self.pci(*read(COUNT), *write(ERROR_CODE, 5), *read(ERROR), *write(ERROR, 1),
                                        *read(COUNT))
        self.assertEqual((value, after), (0xffffffff, before))
        self.assertEqual(self.pci(*write(ERROR_CODE, 0), *read(ERROR), *write(ERROR, 1), *read(COUNT)), [0, before + 1])

    # Interrupts

    def test_msix(self):
        """Vectors come each with its own data; not while masked or disabled, but once they are not."""
        self.reset("flr")
        cap = {number: at for at, number in capabilities(self.config())[0]}[0x11]
        on = [word for vector in (0, 3, 7) for word in ("msix", vector)]
        self.assertEqual(
            self.pci(*on, *write(PULSE, 3), "message-wait", 3, *write(PULSE, 7), "message-wait", 7,
                     *write(PULSE, 0), "message-wait", 0, "message", 3), [0x5a03, 0x5a07, 0x5a00, 0])
        # That vector 0's came says that vector 3's, sent before it, would have come.
        masked = ["msix-mask", 3, 1, *write(PULSE, 3), *write(PULSE, 0), "message-wait", 0, "message", 3]
        self.assertEqual(self.pci(*on, *masked, "msix-mask", 3, 0, "message-wait", 3), [0x5a00, 0, 0x5a03])
        function_mask = ["config-write", cap + 2, 2, 0xc000, *write(PULSE, 7), *write(TICK, 0), "message", 7,
                         "config-write", cap + 2, 2, 0x8000, "message-wait", 7]
        self.assertEqual(self.pci(*on, *function_mask), [0, 0x5a07])
        disabled = ["config-write", cap + 2, 2, 0, *write(PULSE, 3), *read(ID), "message", 3]
        self.assertEqual(self.pci(*on, *disabled, *on, *write(PULSE, 7), "message-wait", 7), [ID_VALUE, 0, 0x5a07])
        # Levels: a message at each rise.
        self.assertEqual(
            self.pci(*write(LEVELS, 0), *on, *write(LEVELS, 9), "message-wait", 0, "message-wait", 3,
                     *write(LEVELS, 8), *write(LEVELS, 9), "message-wait", 0, "message", 3, *write(LEVELS, 0)),
            [0x5a00, 0x5a03, 0x5a00, 0])

    def test_bus_mastering(self):
        """A message is a write by the device: it waits while the device may not write."""
        self.reset("flr")
        self.assertEqual(
            self.pci("msix", 3, "config-write", 4, 2, 0x3, *write(PULSE, 3), *read(ID), "message", 3, *ENABLE,
                     "message-wait", 3), [ID_VALUE, 0, 0x5a03])

    def test_timer(self):
        self.reset("flr")
        self.assertEqual(
            self.pci("msix", 1, *write(TIMER_NS, 50_000_000), *read(TIMER_FIRED), "message-wait", 1,
                     *read(TIMER_FIRED), *read(LEVELS)), [0, 0x5a01, 1, 2])

    # The worker

    def test_ring(self):
        self.reset("flr")
        data = random_bytes(900, 4711)
        self.assertEqual(
            self.pci("msix", 2, "page-random", 512, 900, 4711, "page-fill", 1536, 2048, 0xee,
                     *entry(0, "@512", "@1536", 900, 2), *entry(1, "@1536", "@2500", 100, NO_VECTOR),
                     *entry(2, "@512", 1 << 45, 8, NO_VECTOR), *entry(3, "@512", "@2700", 0, 2),
                     *START_RING, *write(DOORBELL, 1), "message-wait", 2, *status(0), "page-crc", 1536, 964,
                     *write(DOORBELL, 4), "message-wait", 2, *read(RING_DONE), *status(1), "page-crc", 2500, 100,
                     *status(2), *status(3)),
            [0x5a02, OK, crc32(data + b"\xee" * 64), 0x5a02, 4, OK, crc32(data[:100]), OK | 14, OK | 22])

    def test_ring_holds_memory(self):
        """Memory that an entry holds is copied when it is let go of, as it then is."""
        self.reset("flr")
        self.assertEqual(
            self.pci("page-fill", 512, 64, 0x11, "page-fill", 1024, 64, 0, *entry(0, "@512", "@1024", 64, NO_VECTOR, HOLD),
                     *START_RING, *write(DOORBELL, 1), *read(RING_DONE), "page-fill", 512, 64, 0x22,
                     *write(RING_RELEASE, 1), *ring_wait(1), *status(0), "page-crc", 1024, 64),
            [0, 1, OK, crc32(b"\x22" * 64)])

    def test_reboot_while_the_ring_holds_memory(self):
        """QEMU takes all memory away and gives it back, with a ring running and memory held."""
        for _ in range(2):
            self.assertEqual(
                self.pci(*entry(0, "@512", "@1024", 64, NO_VECTOR, HOLD), *START_RING, *write(DOORBELL, 1),
                         *read(RING_DONE)), [0])
            self.machine.reboot()
            self.assertEqual(self.machine.find(*TESTDEV), [self.bdf])
            control, done, scratch = self.pci(*read(RING_CTRL), *read(RING_DONE), *read(SCRATCH))
            self.assertEqual((control, done, scratch), (0, 0, SCRATCH_RESET))
        self.test_ring()

    # Resets

    def reset(self, method):
        self.machine.check(f"echo {method} >{self.at}/reset_method && echo 1 >{self.at}/reset")

    def test_resets(self):
        bars = self.machine.check(f"cat {self.at}/resource")
        for method, kind in (("flr", "flr"), ("pm", "d3")):
            for _ in range(2):
                (before,) = self.pci(*write(SCRATCH, 1), *read(RESETS[kind]))
                self.reset(method)
                self.assertEqual(self.pci(*read(SCRATCH), *read(RESETS[kind])), [SCRATCH_RESET, before + 1], method)
                self.assertEqual(self.machine.check(f"cat {self.at}/resource"), bars)

    def test_power_states(self):
        """By writes to the power management capability: no memory in D3, and registers as after a reset in D0."""
        power = {number: at for at, number in capabilities(self.config())[0]}[0x01] + 4
        header = self.config()
        state, asleep, again = self.pci(*write(SCRATCH, 1), "config-write", power, 2, 3, "config-read", power, 2,
                                        *read(ID), "config-write", power, 2, 0, "config-read", power, 2)
        self.assertEqual((state & 3, again & 3), (3, 0))
        self.assertNotEqual(asleep, ID_VALUE)
        for bar in range(6):  # a function that has been in D3 has to be set up again
            at = 0x10 + 4 * bar
            self.machine.pci(self.bdf, "config-write", at, 4, int.from_bytes(header[at:at + 4], "little"))
        self.assertEqual(self.pci(*read(ID), *read(SCRATCH)), [ID_VALUE, SCRATCH_RESET])

    # Answers that take their time

    def test_late_answers(self):
        delay = 0.2
        start = time.monotonic()
        self.assertEqual(self.pci(*write(KEEP_NS, int(delay * 1e9)), *read(KEEP), *read(KEPT)), [KEPT_VALUE, 0])
        self.assertGreaterEqual(time.monotonic() - start, delay)
        self.assertEqual(self.pci(*read(ASYNC)), [ASYNC_VALUE])

    def test_answer_that_never_comes(self):
        """At its deadline the device refuses what it kept; the guest reads ones and goes on."""
        start = time.monotonic()
        self.assertEqual(self.pci(*read(KEEP), *write(RELEASE, 1), *read(ID)), [0xffffffff, ID_VALUE])
        self.assertGreaterEqual(time.monotonic() - start, KEPT_MS / 1000)


class LargeBarTest(GuestTest):
    def test_bars_above_4_gib(self):
        """Three gibibytes of BARs do not fit below 4 GiB: firmware or kernel place some above, where they work."""
        if not self.backend.testdev:
            self.skipTest("QEMU has no such device")
        devices = [f"{self.backend.testdev},bar2_size=1G,qemu.addr={slot}" for slot in ("8", "9", "10")]
        with self.backend.machine(devices) as machine:
            above = 0
            for bdf in machine.find(*TESTDEV):
                start = int(machine.check(f"sed -n 3p /sys/bus/pci/devices/{bdf}/resource").split()[0], 16)
                self.assertNotEqual(start, 0)
                above += start >= 4 * GIB
                self.assertEqual(
                    machine.pci(bdf, *ENABLE, "write", 2, 0, 8, 0x0101010101010101, "write", 2, GIB - 8, 8, start,
                                *read(BAR2_SUM), *write(BAR2_FILL, 3), "read", 2, 56, 8, "read", 2, GIB - 8, 8),
                    [8, 0x0303030303030303, start])
            self.assertGreater(above, 0)
