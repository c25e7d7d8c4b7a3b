"""The edu device seen from a guest: identification, registers, DMA, interrupts (QEMU's docs/specs/edu.rst)."""

import math

from backends import EDU, add_device
from guest_test import GuestTest
from outboard_guest import Machine, crc32, random_bytes

IDENTIFICATION, LIVENESS, FACTORIAL, STATUS = 0x00, 0x04, 0x08, 0x20
IRQ_STATUS, IRQ_RAISE, IRQ_ACK = 0x24, 0x60, 0x64
DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND = 0x80, 0x88, 0x90, 0x98
COMPUTING, IRQ_WHEN_DONE = 0x01, 0x80
DMA_START, DMA_FROM_DEVICE, DMA_IRQ = 1, 2, 4
DMA_DONE = 0x100  # in IRQ_STATUS
BUFFER = 0x40000  # the device's own memory, 4096 bytes
ENABLE = ["config-write", 4, 2, 0x6]  # COMMAND: memory and bus master


def dma(source, destination, count, command):
    return ["write", 0, DMA_SOURCE, 8, source, "write", 0, DMA_DESTINATION, 8, destination,
            "write", 0, DMA_COUNT, 8, count, "write", 0, DMA_COMMAND, 8, command]


def raise_irq(value):
    return ["write", 0, IRQ_RAISE, 4, value]


def acknowledge(value):
    return ["write", 0, IRQ_ACK, 4, value]


class EduTest(GuestTest):
    def setUp(self):
        self.machine = self.backend.shared()
        self.bdf, self.other = self.machine.find(*EDU)
        self.machine.pci(self.bdf, *ENABLE)
        self.machine.pci(self.other, *ENABLE)

    def test_sysfs(self):
        at = f"/sys/bus/pci/devices/{self.bdf}"
        self.assertEqual(self.machine.check(f"cat {at}/class"), "0x00ff00")
        self.assertEqual(self.machine.check(f"cat {at}/revision"), "0x10")
        start, end, _ = self.machine.check(f"head -n1 {at}/resource").split()
        self.assertEqual(int(end, 16) - int(start, 16) + 1, 1 << 20)
        self.assertNotEqual(self.machine.check(f"cat {at}/irq"), "0")
        first = self.machine.check(f"dd if={at}/config bs=4 count=1 2>/dev/null | xxd -p")
        self.assertEqual(first, "3412e811")

    def test_identification_and_liveness(self):
        self.assertEqual(self.machine.pci(self.bdf, "read", 0, IDENTIFICATION, 4), [0x010000ed])
        for value in (0, 1, 0x12345678, 0xffffffff):
            self.assertEqual(self.machine.pci(self.bdf, "write", 0, LIVENESS, 4, value, "read", 0, LIVENESS, 4),
                             [value ^ 0xffffffff])

    def test_factorial(self):
        for number in (0, 1, 5, 10, 12):
            done, result = self.machine.pci(self.bdf, "write", 0, FACTORIAL, 4, number,
                                            "wait", 0, STATUS, 4, COMPUTING, 0, "read", 0, FACTORIAL, 4)
            self.assertEqual((done & COMPUTING, result), (0, math.factorial(number)))

    def test_dma_there_and_back(self):
        self.dma_there_and_back(self.machine, self.bdf)

    def test_dma_without_shared_memory(self):
        """Where a device in another process cannot map the guest's memory, QEMU reads and writes it for the device."""
        machine = Machine(shared=False)
        add_device(self.backend, machine, "edu")
        with machine:
            (bdf,) = machine.find(*EDU)
            machine.pci(bdf, *ENABLE)
            self.dma_there_and_back(machine, bdf)
            self.assertEqual(machine.pci(bdf, "page-fill", 0, 4096, 0x11, *dma(BUFFER, "@0", 4096, 3),
                                         "wait", 0, DMA_COMMAND, 8, DMA_START, 0, "page-crc", 0, 1024)[1],
                             crc32(random_bytes(1024, 77)))

    def dma_there_and_back(self, machine, bdf):
        data = random_bytes(1024, 77)
        waited = ["wait", 0, DMA_COMMAND, 8, DMA_START, 0]
        _, _, moved, untouched = machine.pci(
            bdf, "page-random", 0, 1024, 77, "page-fill", 2048, 1024, 0xee,
            *dma("@0", BUFFER, 1024, DMA_START), *waited, "page-fill", 0, 1024, 0,
            *dma(BUFFER, "@2048", 1000, DMA_START | DMA_FROM_DEVICE), *waited, "page-crc", 2048, 1024, "page-crc", 0, 1024)
        self.assertEqual(moved, crc32(data[:1000] + b"\xee" * 24))
        self.assertEqual(untouched, crc32(bytes(1024)))

    def test_intx(self):
        """Each raise is one interrupt of the CPU's; the level falls when all causes are acknowledged."""
        self.machine.bind(self.bdf, "uio_pci_generic")
        try:
            first, pending, second, clear = self.machine.pci(
                self.bdf, "intx-on", *raise_irq(1), "intx-wait", "read", 0, IRQ_STATUS, 4, *acknowledge(1),
                "intx-on", *raise_irq(4), "intx-wait", *acknowledge(4), "read", 0, IRQ_STATUS, 4)
            self.assertEqual((first, pending, second, clear), (1, 1, 2, 0))
            # Not acknowledged: enabling the interrupt again lets the same level in once more.
            self.assertEqual(self.machine.pci(self.bdf, "intx-on", *raise_irq(2), "intx-wait", "intx-on", "intx-wait",
                                              *acknowledge(2)), [3, 4])
            self.assertEqual(self.machine.pci(
                self.bdf, *ENABLE, *dma("@0", BUFFER, 16, DMA_START | DMA_IRQ), "intx-wait",
                "read", 0, IRQ_STATUS, 4, *acknowledge(DMA_DONE)), [5, DMA_DONE])
            self.assertEqual(self.machine.pci(
                self.bdf, "intx-on", "write", 0, STATUS, 4, IRQ_WHEN_DONE, "write", 0, FACTORIAL, 4, 6, "intx-wait",
                "read", 0, FACTORIAL, 4, "read", 0, IRQ_STATUS, 4, *acknowledge(1), "write", 0, STATUS, 4, 0),
                [6, 720, 1])
        finally:
            self.machine.bind(self.bdf, None)

    def test_two_devices_are_apart(self):
        self.machine.pci(self.bdf, "write", 0, LIVENESS, 4, 0x11111111)
        self.machine.pci(self.other, "write", 0, LIVENESS, 4, 0x22222222, "write", 0, FACTORIAL, 4, 4)
        self.assertEqual(self.machine.pci(self.bdf, "read", 0, LIVENESS, 4), [0xeeeeeeee])
        self.assertEqual(self.machine.pci(self.other, "read", 0, LIVENESS, 4, "wait", 0, STATUS, 4, COMPUTING, 0,
                                          "read", 0, FACTORIAL, 4), [0xdddddddd, 0, 24])

    def test_reboot(self):
        self.machine.pci(self.bdf, "write", 0, LIVENESS, 4, 0x5a5a5a5a)
        self.machine.reboot()
        self.assertEqual(self.machine.find(*EDU), [self.bdf, self.other])
        identification, liveness = self.machine.pci(self.bdf, *ENABLE, "read", 0, IDENTIFICATION, 4,
                                                    "read", 0, LIVENESS, 4)
        self.assertEqual(identification, 0x010000ed)
        self.assertEqual(liveness, 0 if self.backend.resets_registers else 0xa5a5a5a5)
        self.test_dma_there_and_back()


class EduMsiTest(GuestTest):
    """Messages are caught in memory (see guest-tool.c), which needs QEMU, not KVM, to deliver them."""

    def test_msi(self):
        machine = self.backend.shared("tcg")
        bdf = machine.find(*EDU)[0]
        data, again, none = machine.pci(bdf, "msi", 0, *raise_irq(1), "message-wait", 0, *acknowledge(1),
                                        *raise_irq(2), "message-wait", 0, *acknowledge(2), "message", 0)
        self.assertEqual((data, again, none), (0x5a00, 0x5a00, 0))
        # Disabled again in the message control register, nothing is written; INTx is disabled as well.
        cap = self.find_msi(machine, bdf)
        done, pending, none = machine.pci(
            bdf, "config-write", cap + 2, 2, 0x80, "config-write", 4, 2, 0x406,
            "write", 0, STATUS, 4, IRQ_WHEN_DONE, "write", 0, FACTORIAL, 4, 3, "wait", 0, IRQ_STATUS, 4, 1, 1,
            "read", 0, IRQ_STATUS, 4, "message", 0, *acknowledge(1), "write", 0, STATUS, 4, 0)
        self.assertEqual((done, pending, none), (1, 1, 0))

    @staticmethod
    def find_msi(machine, bdf):
        (at,) = machine.pci(bdf, "config-read", 0x34, 1)
        while at:
            kind, following = machine.pci(bdf, "config-read", at, 1, "config-read", at + 1, 1)
            if kind == 5:
                return at
            at = following
        raise AssertionError("edu has no MSI capability")
