"""Boots the test guest under QEMU and runs commands in it.

    with Machine(devices=["-device", "edu,addr=4"]) as machine:
        machine.run("cat /sys/bus/pci/devices/0000:00:04.0/vendor")

A machine has three sockets to QEMU: QMP, the guest's agent (tests/guest/init, second serial port), and the guest
kernel's console, which is kept for error messages. Nothing here sleeps: every wait is for a line on one of the sockets
or for a process to end, and ends itself after a time limit with an error that shows the end of the console.
"""

import collections
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BOOT_SECONDS = 180  # a boot takes 3 s emulated on an idle machine, and nearly a minute on a crowded one
RUN_SECONDS = 60
EXIT_SECONDS = 20

Result = collections.namedtuple("Result", "status output")


class GuestError(Exception):
    """The machine did not do what was asked; the text ends with what its console last said."""


def script_lines(name):
    """What scripts/NAME prints, as lines; its own errors go to our error output."""
    result = subprocess.run([str(ROOT / "scripts" / name)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            text=True, check=False)
    if result.returncode != 0:
        raise GuestError(f"scripts/{name} failed")
    return result.stdout.splitlines()


def kvm_usable():
    """Whether any guest runs in KVM. A KVM without the processor's help, as PVM is, has a /dev/kvm, too, and runs only
    kernels that were made for it."""
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", info.read(), re.MULTILINE):
            return False
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def random_bytes(count, seed):
    """The sequence that guest-tool's next_random() makes; `seed` is 1 to 2**32 - 1."""
    result, state = bytearray(count), seed
    for i in range(count):
        state ^= state << 13 & 0xffffffff
        state ^= state >> 17
        state ^= state << 5 & 0xffffffff
        result[i] = state >> 24
    return bytes(result)


def crc32(data):
    return zlib.crc32(data)


class Machine:
    """One VM. `wrap` goes before QEMU's command line, `devices` after; `accel` is "kvm", "tcg" or None for the best.
    Where guest memory is not `shared`, devices in other processes cannot map it.

    `folder` is a private folder that lives as long as the machine, for sockets of its devices.
    """

    def __init__(self, devices=(), wrap=(), accel=None, machine="q35", memory=256, shared=True):
        self.devices, self.wrap = list(devices), list(wrap)
        self.accel = accel or ("kvm" if kvm_usable() else "tcg")
        self.machine, self.memory, self.shared = machine, memory, shared
        self.folder = tempfile.mkdtemp(prefix="outboard-guest-")
        self.process = self.agent = self.qmp_socket = self.console = self.stderr = None
        self.buffers = {}
        self.events = collections.deque()
        self.cleanup = []  # called, last first, after QEMU has ended
        self.broken = False  # something failed: what the guest will answer next is not known
        self.console_text = ""
        self.next_id = 0

    # Life

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        """Boots, and returns when the guest takes commands."""
        try:
            self._launch()
            self._await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def _launch(self):
        (qemu,) = script_lines("get-qemu")
        kernel, initramfs = script_lines("get-guest")
        listeners = {}
        backend = "memory-backend-memfd,share=on" if self.shared else "memory-backend-ram"
        arguments = [
            "-machine", f"{self.machine},accel={self.accel},memory-backend=ram",
            "-object", f"{backend},id=ram,size={self.memory}M",
            "-m", str(self.memory), "-nographic", "-nodefaults", "-no-user-config",
            "-kernel", kernel, "-initrd", initramfs,
            "-append", "console=ttyS0 quiet panic=-1 8250.nr_uarts=8",
        ]
        for name in ("console", "agent", "qmp"):
            listeners[name] = socket.socket(socket.AF_UNIX)
            listeners[name].bind(self.path(name))
            listeners[name].listen(1)
            listeners[name].settimeout(EXIT_SECONDS)
            arguments += ["-chardev", f"socket,id={name},path={self.path(name)}"]
        arguments += ["-serial", "chardev:console", "-serial", "chardev:agent", "-qmp", "chardev:qmp"]
        self.stderr = open(self.path("stderr"), "wb+")
        self.process = subprocess.Popen([*self.wrap, qemu, *arguments, *self.devices], stdin=subprocess.DEVNULL,
                                        stdout=self.stderr, stderr=self.stderr)
        # QEMU connects to us: there is no moment at which a socket is not there yet.
        self.console = self._accept(listeners["console"])
        self.agent = self._accept(listeners["agent"])
        self.qmp_socket = self._accept(listeners["qmp"])
        self.buffers = {self.agent: bytearray(), self.qmp_socket: bytearray()}
        self._qmp_message(time.monotonic() + EXIT_SECONDS)  # the greeting
        self.qmp("qmp_capabilities")

    def _accept(self, listener):
        with listener:
            deadline = time.monotonic() + EXIT_SECONDS
            listener.settimeout(0.2)  # only how soon an early end of QEMU is noticed
            while True:
                try:
                    connection, _ = listener.accept()
                    return connection
                except TimeoutError:
                    if self.process.poll() is not None:
                        raise self.error(f"QEMU ended with status {self.process.returncode}") from None
                    if time.monotonic() > deadline:
                        raise self.error("QEMU did not connect to the test's sockets") from None

    def close(self):
        """Ends QEMU (and the command around it) and removes all that the machine had. Returns the exit status."""
        status = None
        if self.process:
            try:
                if self.process.poll() is None:
                    if self.qmp_socket:
                        self.qmp_socket.settimeout(EXIT_SECONDS)
                        self.qmp_socket.sendall(b'{"execute":"quit"}')
                    else:
                        self.process.terminate()
                status = self.process.wait(EXIT_SECONDS)
            except (OSError, subprocess.TimeoutExpired):
                self.process.send_signal(signal.SIGKILL)
                status = self.process.wait()
        for file in (self.console, self.agent, self.qmp_socket, self.stderr):
            if file:
                file.close()
        self.process = self.console = self.agent = self.qmp_socket = self.stderr = None
        while self.cleanup:
            self.cleanup.pop()()
        shutil.rmtree(self.folder, ignore_errors=True)
        return status

    def error(self, message):
        """A GuestError that also shows what QEMU and the guest's kernel last said."""
        self.broken = True
        text = self.console_text
        try:
            while self.console and select.select([self.console], [], [], 0)[0]:
                data = self.console.recv(65536)
                if not data:
                    break
                text += data.decode(errors="replace")
        except OSError:
            pass
        self.console_text = text[-20000:]
        said = b""
        if self.stderr:
            said = os.pread(self.stderr.fileno(), 4000, max(0, os.fstat(self.stderr.fileno()).st_size - 4000))
        return GuestError(f"{message}\n--- QEMU said: ---\n{said.decode(errors='replace')}"
                          f"--- end of the guest's console: ---\n{self.console_text[-4000:]}")

    # Lines from QEMU

    def _line(self, source, deadline, waiting_for):
        buffer = self.buffers[source]
        while b"\n" not in buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.error(f"{waiting_for}: nothing in time; so far: {bytes(buffer[-2000:])!r}")
            ready = select.select([source, self.console], [], [], left)[0]
            if self.console in ready:
                text = self.console.recv(65536)
                self.console_text = (self.console_text + text.decode(errors="replace"))[-20000:]
                if not text and source not in ready:
                    ready = [source]  # QEMU is ending: the next recv says so
            if source in ready:
                data = source.recv(65536)
                if not data:
                    try:
                        status = self.process.wait(EXIT_SECONDS)
                    except subprocess.TimeoutExpired:
                        status = "none yet"
                    raise self.error(f"{waiting_for}: QEMU closed the connection (exit status: {status})")
                buffer += data
        line, _, rest = bytes(buffer).partition(b"\n")
        buffer[:] = rest
        return line

    def _await_ready(self):
        deadline = time.monotonic() + BOOT_SECONDS
        while self._line(self.agent, deadline, "boot").rstrip(b"\r") != b"outboard-guest ready":
            pass

    # Commands

    def run(self, command, timeout=RUN_SECONDS):
        """Runs a line of shell in the guest: Result(status, output)."""
        if "\n" in command:
            raise ValueError("a command is one line")
        self.next_id += 1
        try:
            self.agent.sendall(f"{self.next_id} {command}\n".encode())
        except OSError as error:
            raise self.error(f"{command}: QEMU does not take it: {error.strerror}") from error
        deadline = time.monotonic() + timeout
        begin, end = b"begin %d" % self.next_id, re.compile(b"end %d ([0-9]+)" % self.next_id)
        while self._line(self.agent, deadline, command) != begin:
            pass
        lines = []
        while True:
            line = self._line(self.agent, deadline, command)
            match = end.fullmatch(line)
            if match:
                # The agent put a line break before the mark.
                return Result(int(match[1]), b"\n".join(lines).decode(errors="replace"))
            lines.append(line)

    def check(self, command, timeout=RUN_SECONDS):
        """The output of a command that has to succeed, without white space around it."""
        status, output = self.run(command, timeout)
        if status != 0:
            raise GuestError(f"in the guest, {command!r} ended with status {status}:\n{output}")
        return output.strip()

    def pci(self, bdf, *words):
        """Runs `guest-tool pci`; returns the values it printed. Integers among `words` are sent as they are."""
        return [int(line, 16 if line.startswith("0x") else 10)
                for line in self.check(" ".join(["guest-tool pci", bdf, *map(str, words)])).split()]

    def bind(self, bdf, driver):
        """Binds a device to a driver, or to none if `driver` is None."""
        at = f"/sys/bus/pci/devices/{bdf}"
        self.check(f"if [ -e {at}/driver ]; then echo {bdf} > {at}/driver/unbind; fi")
        if driver:
            self.check(f"echo {driver} > {at}/driver_override && echo {bdf} > /sys/bus/pci/drivers/{driver}/bind && "
                       f"echo > {at}/driver_override && test -e {at}/driver")

    def find(self, vendor, device):
        """The addresses of all PCI devices with these IDs, sorted."""
        listing = self.check("cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/vendor $d/device); done")
        rows = [line.split() for line in listing.splitlines()]
        return sorted(row[0] for row in rows if int(row[1], 16) == vendor and int(row[2], 16) == device)

    def ttys(self, bdf):
        """The serial ports that the kernel made for a device, such as /dev/ttyS4."""
        names = self.check(f"ls /sys/bus/pci/devices/{bdf}/tty /sys/bus/pci/devices/{bdf}/*/*/tty 2>/dev/null | "
                           "grep '^ttyS' | sort -u || true")
        return [f"/dev/{name}" for name in names.split()]

    def reboot(self):
        """Has the guest restart itself, and waits until it takes commands again."""
        self.agent.sendall(b"0 reboot -f\n")
        self._await_ready()

    # QMP

    def _qmp_message(self, deadline):
        return json.loads(self._line(self.qmp_socket, deadline, "QMP"))

    def qmp(self, command, **arguments):
        """Carries out a QMP command; returns what it returns. Names may have _ for -."""
        message = {"execute": command, "arguments": {name.replace("_", "-"): value
                                                     for name, value in arguments.items()}}
        self.qmp_socket.sendall(json.dumps(message).encode())
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            answer = self._qmp_message(deadline)
            if "error" in answer:
                raise self.error(f"QMP {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def event(self, name, **data):
        """Waits for an event with these data; others are kept."""
        def wanted(event):
            return event["event"] == name and all(event["data"].get(key) == value for key, value in data.items())

        deadline = time.monotonic() + RUN_SECONDS
        for event in self.events:
            if wanted(event):
                self.events.remove(event)
                return event
        while True:
            message = self._qmp_message(deadline)
            if wanted(message):
                return message
            self.events.append(message)
