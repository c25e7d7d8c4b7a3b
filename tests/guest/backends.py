"""Where the devices under test come from: QEMU's own models, or Outboard's.

Both give the same machines to the same tests. QEMU's models say what a guest sees of the real thing; where a test has to
expect something else of them, an attribute here says so.
"""

import contextlib
import json
import os
import socket
import subprocess

from outboard_guest import EXIT_SECONDS, Machine, kvm_usable

EDU = (0x1234, 0x11e8)
SERIAL = (0x1b36, 0x0002)


class Backend:
    """The parts that do not depend on where devices come from."""

    def __init__(self):
        self.machines = {}

    def shared(self, accel=None, make=None):
        """A running machine, the same one for every caller until it breaks. make(backend, accel) makes it, not started;
        without that it has two edu and two serial ports."""
        accel = accel or ("kvm" if kvm_usable() else "tcg")
        machine = self.machines.get((make, accel))
        if machine and machine.broken:
            machine.close()
            machine = None
        if not machine:
            machine = make(self, accel) if make else self.standard(2, 2, accel=accel)
            self.machines[make, accel] = machine.start()
        return machine

    def close(self):
        for machine in self.machines.values():
            machine.close()
        self.machines = {}


class Builtin(Backend):
    """QEMU's own `edu` and `pci-serial`."""

    resets_registers = False  # its edu keeps its registers over every kind of reset
    heeds_rts = False  # its serial port sends to a guest that has lowered RTS
    runs_processes = False
    testdev = None  # QEMU has no device for tests

    def standard(self, edus, serials, **options):
        """A machine with so many devices, not started. Serial port N is on the socket machine.path("serialN")."""
        machine = Machine(**options)
        for _ in range(edus):
            machine.devices += ["-device", "edu"]
        for index in range(serials):
            machine.devices += ["-chardev", f"socket,id=line{index},path={machine.path(f'serial{index}')},"
                                "server=on,wait=off", "-device", f"pci-serial,chardev=line{index}"]
        return machine

    def properties(self, machine, kind, **properties):
        """What -device or device_add takes for a device of the kind "edu", with these properties."""
        return {"driver": kind, **properties}


class Outboard(Backend):
    """Devices of `outboard run`, or of `outboard serve` where a test has to say where the device goes."""

    resets_registers = True
    heeds_rts = True
    runs_processes = True

    def __init__(self, program, testdev):
        super().__init__()
        self.program, self.testdev = program, testdev

    def machine(self, served, **options):
        """A machine with these devices, each as `outboard run --device` takes it, not started."""
        machine = Machine(**options)
        machine.wrap = [self.program, "run", *(word for device in served for word in ("--device", device)), "--"]
        return machine

    def standard(self, edus, serials, **options):
        machine = self.machine(["edu"] * edus, **options)
        for index in range(serials):
            machine.wrap[-1:] = ["--device", f"serial,backend=unix,path={machine.path(f'serial{index}')},listen=on", "--"]
        return machine

    def properties(self, machine, kind, **properties):
        path = machine.path(f"device-{len(machine.cleanup)}")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            server = subprocess.Popen([self.program, "serve", kind, f"--fd={listener.fileno()}"],
                                      stdin=subprocess.DEVNULL, pass_fds=[listener.fileno()])

        def stop():
            server.terminate()
            try:
                server.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

        machine.cleanup.append(stop)
        return {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": path}, **properties}


def add_device(backend, machine, kind, **properties):
    """Adds a device to a machine that is not started yet."""
    machine.devices += ["-device", json.dumps(backend.properties(machine, kind, **properties))]


@contextlib.contextmanager
def serial_line(machine, index):
    """The host's end of serial port `index`, as a connected socket."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(EXIT_SECONDS)
        line.connect(machine.path(f"serial{index}"))
        yield line


def make(name, program, testdev=None):
    """The backend of that name; `program` is the path of the `outboard` command, `testdev` that of the test device."""
    if name == "builtin":
        return Builtin()
    for path, option in ((program, "--outboard"), (testdev, "--testdev")):
        if path and not os.access(path, os.X_OK):
            raise FileNotFoundError(f"{path} is not a program; build it, or name it with {option}")
    return Outboard(os.path.abspath(program), testdev and os.path.abspath(testdev))
