"""What the tests of the `outboard` command share. A test program's usage: PROGRAM OUTBOARD [TEST]...; it speaks TAP.
QEMU is that of $OUTBOARD_QEMU, else what scripts/get-qemu says.

Each test has a folder of its own, which is also TMPDIR, and a mark in the environment that every process started by it
inherits. At its end no process may carry the mark and the folder must be empty.
"""
import contextlib
import functools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
STANDIN = str(HERE / "standin.py")
OUTBOARD = os.path.abspath(sys.argv[1])
DEADLINE = 60  # seconds for anything; only a failure takes so long
MACHINE = ["-accel", "qtest", "-machine", "pc", "-display", "none", "-nodefaults", "-no-user-config"]


@functools.cache
def qemu_command():
    if "OUTBOARD_QEMU" in os.environ:
        return os.environ["OUTBOARD_QEMU"]
    script = HERE.parents[1] / "scripts/get-qemu"
    return subprocess.run([script], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


class Qmp:
    """A QMP session on one end of a socket pair; QEMU inherits the other."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(DEADLINE)
        self.file = self.ours.makefile("rw", encoding="utf-8")
        self.events = []

    def arguments(self):
        return ["-chardev", f"socket,id=qmp,fd={self.theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]

    def read(self):
        line = self.file.readline()
        if not line:
            raise EOFError("QMP ended")
        return json.loads(line)

    def begin(self):
        """QEMU greets once its devices exist and the VM is about to run."""
        self.theirs.close()
        assert "QMP" in self.read()
        return self.command("qmp_capabilities")

    def command(self, name, **arguments):
        json.dump({"execute": name, "arguments": arguments}, self.file)
        self.file.write("\n")
        self.file.flush()
        while True:
            answer = self.read()
            if "event" not in answer:
                return answer
            self.events.append(answer["event"])

    def event(self, name):
        """Waits for the event; those before it are forgotten."""
        while name not in self.events:
            self.events.append(self.read()["event"])
        del self.events[: self.events.index(name) + 1]

    def close(self):
        self.file.close()
        self.ours.close()
        self.theirs.close()


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="test-run-")
        self.temporary = os.path.join(self.folder, "tmp")
        os.mkdir(self.temporary)
        self.mark = f"OUTBOARD_TEST_MARK={uuid.uuid4()}"
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # the stand-in runs on the same Python
        self.environment = dict(os.environ, TMPDIR=self.temporary, PATH=path)
        key, value = self.mark.split("=")
        self.environment[key] = value
        self.error_path = os.path.join(self.folder, "stderr")
        self.process = None
        self.qmp = Qmp()

    def tearDown(self):
        self.qmp.close()
        left = self.marked()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait(DEADLINE)
        subprocess.run(["rm", "-rf", self.folder], check=True)

    # --- processes

    def marked(self):
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().decode().split("\0")
        return found

    def device(self):
        return next(pid for pid, line in self.marked().items() if "--fd=3" in line)

    def supervisor(self):
        return next(
            pid
            for pid in self.marked()
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1] == str(self.process.pid)
        )

    def qemu(self):
        for pid, line in self.marked().items():
            if "-mon" in line and "run" not in line:
                return pid
        self.fail(f"no QEMU in {self.marked()}")

    def start(self, *arguments, devices=(), qemu=None, more=(), inherit=()):
        """Starts `outboard run`; its standard error goes to a file."""
        words = [OUTBOARD, "run"]
        for device in devices:
            words += ["--device", device]
        words += [*arguments, "--", *(qemu or [qemu_command(), *MACHINE, *self.qmp.arguments()]), *more]
        with open(self.error_path, "wb") as error:
            self.process = subprocess.Popen(
                words,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=error,
                pass_fds=[self.qmp.theirs.fileno(), *inherit],
            )
        self.addCleanup(self.process.stdout.close)

    def begin(self, *devices, **keys):
        self.start(devices=devices, **keys)
        try:
            self.qmp.begin()
        except (EOFError, TimeoutError) as error:
            self.fail(f"{error!r}: {self.errors()}")

    def errors(self):
        return Path(self.error_path).read_text(encoding="utf-8")

    def await_error(self, pattern):
        """Waits for a line of standard error; a file cannot be polled for growth."""
        end = time.monotonic() + DEADLINE
        while not re.search(pattern, self.errors()):
            self.assertLess(time.monotonic(), end, f"no {pattern!r} in: {self.errors()}")
            time.sleep(0.01)

    def ends(self, status, *patterns):
        """The command ends with the status, having said what matches the patterns, and leaves nothing."""
        output, _ = self.process.communicate(timeout=DEADLINE)
        self.assertEqual(self.process.returncode, status, self.errors())
        for pattern in patterns:
            self.assertRegex(self.errors(), pattern)
        self.leaves_nothing()
        return output.decode()

    def leaves_nothing(self):
        self.assertEqual(self.marked(), {})
        self.assertEqual(os.listdir(self.temporary), [])

    def all_end(self, pids):
        """Waits until each of the processes has ended."""
        end = time.monotonic() + DEADLINE
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                ready, _, _ = select.select([descriptor], [], [], end - time.monotonic())
                os.close(descriptor)
                self.assertTrue(ready, f"process {pid} lives on")

    def replug(self, device, more=()):
        """Removes the device and adds it again, twice, on the socket that QEMU inherited."""
        self.begin(f"{device},qemu.id=one,qemu.addr=5", more=more)
        for _ in range(2):
            self.assertIn("return", self.qmp.command("device_del", id="one"))
            self.qmp.command("system_reset")  # stands for the guest that lets go of the device
            self.qmp.event("DEVICE_DELETED")
            again = {"driver": "vfio-user-pci", "id": "one", "addr": "5"}
            again["socket"] = {"type": "unix", "path": "/proc/self/fd/64"}
            self.assertEqual(self.qmp.command("device_add", **again), {"return": {}})
        self.qmp.command("quit")
        self.ends(0)

    def run_words(self, *words, **keys):
        keys |= {"env": self.environment, "text": True, "capture_output": True, "timeout": DEADLINE}
        return subprocess.run([OUTBOARD, *words], check=False, **keys)


class Tap(unittest.TestResult):
    """Prints a line for each test as the Test Anything Protocol has it."""

    def say(self, ok, test, more=""):
        print(f"{ok} {self.testsRun} - {test.id().removeprefix('__main__.')}{more}", flush=True)

    def addSuccess(self, test):
        self.say("ok", test)

    def addSkip(self, test, reason):
        self.say("ok", test, f" # SKIP {reason}")

    def failed(self, test, error):
        print("".join(f"# {line}\n" for line in self._exc_info_to_string(error, test).splitlines()), end="")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.failed(test, err)
        self.say("not ok", test)

    def addError(self, test, err):
        super().addError(test, err)
        self.failed(test, err)
        self.say("not ok", test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.failed(subtest, err)
            self.say("not ok", test)


def main():
    module = sys.modules["__main__"]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(sys.argv[2:], module) if sys.argv[2:] else loader.loadTestsFromModule(module)
    print(f"1..{suite.countTestCases()}", flush=True)
    sys.exit(0 if suite.run(Tap()).wasSuccessful() else 1)
