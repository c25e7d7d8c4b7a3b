"""Devices that come, go and are reset, and machines that start again and again."""

from backends import EDU, SERIAL, add_device, serial_line
from guest_test import GuestTest
from outboard_guest import Machine
from test_edu import COMPUTING, ENABLE, FACTORIAL, IDENTIFICATION, LIVENESS, STATUS, acknowledge, raise_irq

BOOTS = 10
# No interrupt is wanted, and INTx is on: not the other way round, since a driver would answer the old one by masking.
QUIET = ["config-write", 4, 2, 0x406, *acknowledge(0xffffffff), *ENABLE]


class MachineTest(GuestTest):
    def test_reset(self):
        """A reset asked for by the guest; alone on its bus, every device has a way to be reset."""
        machine = Machine(devices=["-device", "pcie-root-port,id=bridge,chassis=1"])
        add_device(self.backend, machine, "edu", bus="bridge")
        with machine:
            (bdf,) = machine.find(*EDU)
            machine.pci(bdf, *ENABLE, "write", 0, LIVENESS, 4, 0x5a5a5a5a)
            bars = machine.check(f"cat /sys/bus/pci/devices/{bdf}/resource")
            machine.check(f"echo 1 > /sys/bus/pci/devices/{bdf}/reset")
            self.assertEqual(machine.check(f"cat /sys/bus/pci/devices/{bdf}/resource"), bars)
            identification, liveness = machine.pci(bdf, *ENABLE, "read", 0, IDENTIFICATION, 4, "read", 0, LIVENESS, 4)
            self.assertEqual(identification, 0x010000ed)
            self.assertEqual(liveness, 0 if self.backend.resets_registers else 0xa5a5a5a5)

    def test_reset_while_interrupts_fire(self):
        machine = Machine(devices=["-device", "pcie-root-port,id=bridge,chassis=1"])
        add_device(self.backend, machine, "edu", bus="bridge")
        with machine:
            (bdf,) = machine.find(*EDU)
            at = f"/sys/bus/pci/devices/{bdf}"
            machine.bind(bdf, "uio_pci_generic")
            again = " ".join(map(str, [*QUIET, *raise_irq(1)]))
            machine.check(f"mkfifo /tmp/over; (while [ ! -e /tmp/stop ]; do guest-tool pci {bdf} {again} || break; done "
                          ">/tmp/said 2>&1; echo over >/tmp/over) & true")
            for _ in range(2):
                more = f"seen=$(cat {at}/uio/uio0/event); until [ $(cat {at}/uio/uio0/event) -gt $((seen + 2)) ]"
                machine.check(f"{more}; do usleep 10000; done", timeout=20)
                machine.check(f"echo 1 > {at}/reset")
            machine.check("touch /tmp/stop; cat /tmp/over")
            self.assertEqual(machine.check("cat /tmp/said"), "")
            self.interrupts(machine, bdf)
            machine.bind(bdf, None)

    def interrupts(self, machine, bdf):
        """An interrupt more than before reaches the device's driver."""
        event = f"cat /sys/bus/pci/devices/{bdf}/uio/uio*/event"
        machine.pci(bdf, *QUIET)
        before = int(machine.check(event))
        self.assertEqual(machine.pci(bdf, *raise_irq(1), "intx-wait", *acknowledge(1)), [before + 1])

    def test_rebind(self):
        """A driver lets go of a device whose interrupt is on, and finds it again."""
        machine = self.backend.shared()
        bdf = machine.find(*EDU)[0]
        for _ in range(2):
            machine.pci(bdf, *QUIET)
            machine.bind(bdf, "uio_pci_generic")
            self.interrupts(machine, bdf)
            machine.pci(bdf, *ENABLE, *raise_irq(1))
            machine.bind(bdf, None)

    def test_reboot_with_drivers(self):
        """Reboots find drivers at work: a serial port open, an interrupt not acknowledged, a bus master."""
        machine = self.backend.shared()
        for _ in range(2):
            bdf = machine.find(*EDU)[0]
            machine.pci(bdf, *QUIET)
            machine.bind(bdf, "uio_pci_generic")
            self.interrupts(machine, bdf)
            (tty,) = machine.ttys(machine.find(*SERIAL)[0])
            with serial_line(machine, 0) as line:
                machine.check(f"stty -F {tty} raw -echo; sleep 600 <{tty} & echo x >{tty}")
                self.assertEqual(line.recv(1), b"x")
            machine.pci(bdf, *ENABLE, *raise_irq(1))
            machine.reboot()

    def test_unplug_and_plug(self):
        with Machine(machine="pc") as machine:
            for _ in range(2):
                self.assertEqual(machine.find(*EDU), [])
                properties = self.backend.properties(machine, "edu", id="plugged")
                machine.qmp("device_add", **properties)
                # The kernel handles the event on a thread of its own and says nothing when it is done.
                machine.check("until grep -q 0x11e8 /sys/bus/pci/devices/*/device; do usleep 10000; done", timeout=20)
                (bdf,) = machine.find(*EDU)
                self.assertEqual(machine.pci(bdf, *ENABLE, "write", 0, FACTORIAL, 4, 7,
                                             "wait", 0, STATUS, 4, COMPUTING, 0, "read", 0, FACTORIAL, 4)[1], 5040)
                machine.qmp("device_del", id="plugged")
                machine.event("DEVICE_DELETED", device="plugged")
            self.assertEqual(machine.find(*EDU), [])

    def test_boots_in_a_row(self):
        for boot in range(BOOTS):
            with self.subTest(boot=boot):
                machine = self.backend.standard(1, 1).start()
                try:
                    (bdf,) = machine.find(*EDU)
                    self.assertEqual(machine.pci(bdf, *ENABLE, "read", 0, IDENTIFICATION, 4), [0x010000ed])
                    (serial,) = machine.find(*SERIAL)
                    (tty,) = machine.ttys(serial)
                    with serial_line(machine, 0) as line:
                        machine.check(f"stty -F {tty} raw -echo && echo boot {boot} >{tty}")
                        expected = f"boot {boot}\n".encode()
                        received = b""
                        while len(received) < len(expected):
                            received += line.recv(100) or self.fail("the line was closed")
                        self.assertEqual(received, expected)
                finally:
                    status = machine.close()
                self.assertEqual(status, 0)
