#!/usr/bin/env python3
"""Tests of `outboard run`: every way in which it, QEMU and devices can end. See command_case.py for its arguments."""
import json
import os
import pty
import shlex
import signal
import socket
import stat
import time
import unittest
from pathlib import Path

import command_case
from command_case import DEADLINE, MACHINE, OUTBOARD, STANDIN, Case, Qmp, qemu_command


class Ends(Case):
    """How a VM with devices ends."""

    def test_quit(self):
        self.begin(f"{STANDIN},qemu.id=one", f"{STANDIN},qemu.id=two")
        ids = [device["qdev_id"] for device in self.qmp.command("query-pci")["return"][0]["devices"]]
        self.assertIn("one", ids)
        self.assertIn("two", ids)
        self.assertEqual(os.listdir(self.temporary), [])
        self.qmp.command("quit")
        self.ends(0)
        self.assertNotIn("outboard:", self.errors())

    def test_status_of_qemu(self):
        ours, theirs = socket.socketpair()
        more = ["-device", "isa-debug-exit", "-chardev", f"socket,id=qtest,fd={theirs.fileno()}"]
        self.start(devices=[STANDIN], more=more + ["-qtest", "chardev:qtest"], inherit=[theirs.fileno()])
        theirs.close()
        self.qmp.begin()
        ours.sendall(b"outb 0x501 0x10\n")
        self.ends(33)
        ours.close()

    def test_qemu_refuses(self):
        self.start(devices=[STANDIN], more=["-no-such-option"])
        self.ends(1, "no-such-option")
        self.assertNotIn("10.1.1", self.errors())

    def test_qemu_killed(self):
        self.begin(STANDIN)
        os.kill(self.qemu(), signal.SIGKILL)
        self.ends(128 + 9, r"QEMU was killed by signal 9")

    def test_signals(self):
        # What whoever started the tests ignores, as nohup does SIGHUP, `run` ignores too.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                self.qmp.close()
                self.qmp = Qmp()
                self.begin(STANDIN)
                self.process.send_signal(number)
                self.qmp.event("SHUTDOWN")
                self.ends(0)

    def test_run_killed(self):
        self.begin(STANDIN, STANDIN)
        pids = self.marked()
        self.assertEqual(len(pids), 5)
        self.process.kill()
        self.qmp.event("SHUTDOWN")  # QEMU is asked to end, so that it can close its images
        self.all_end(pids)
        self.process.wait()
        self.leaves_nothing()

    def test_run_killed_with_everything_stopped(self):
        self.begin(STANDIN)
        pids = self.marked()
        for pid in (self.device(), self.qemu()):
            os.kill(pid, signal.SIGSTOP)
        self.process.kill()
        self.all_end(pids)
        self.process.wait()
        self.leaves_nothing()

    def test_supervisor_killed(self):
        self.begin(STANDIN)
        pids = self.marked()
        os.kill(self.supervisor(), signal.SIGKILL)
        self.all_end(pids)
        self.ends(125, "supervisor was killed by signal 9")

    def test_device_dies(self):
        self.begin(STANDIN)
        os.kill(self.device(), signal.SIGKILL)
        self.await_error(r"device standin.py was killed by signal 9 .* while QEMU runs")
        self.assertTrue(self.qmp.command("query-status")["return"]["running"])
        self.qmp.command("quit")
        self.ends(124)

    def test_device_ends_with_its_client(self):
        self.begin(f"{STANDIN},once=1")
        self.qmp.command("quit")
        self.ends(0)
        self.assertNotIn("outboard:", self.errors())

    def test_stubborn_device(self):
        self.begin(f"{STANDIN},stubborn=1")
        self.qmp.command("quit")
        self.ends(0, "did not end within 5 s of SIGTERM and is killed")

    def test_terminal_interrupt(self):
        """Ctrl-C at the terminal ends QEMU, and the device after it."""
        words = [OUTBOARD, "run", "--device", STANDIN, "--", qemu_command(), *MACHINE, *self.qmp.arguments()]
        pid, terminal = pty.fork()
        if pid == 0:
            os.set_inheritable(self.qmp.theirs.fileno(), True)
            os.execve(OUTBOARD, words, self.environment)
        self.addCleanup(os.close, terminal)
        self.qmp.begin()
        device = self.device()
        self.assertNotEqual(os.getpgid(device), os.getpgid(pid))
        self.assertEqual(os.getpgid(self.qemu()), os.tcgetpgrp(terminal))
        os.write(terminal, b"\x03")
        self.qmp.event("SHUTDOWN")
        _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        self.leaves_nothing()


class Starts(Case):
    """How a VM with devices does not begin."""

    def not_started(self):
        path = os.path.join(self.folder, "started")
        script = os.path.join(self.folder, "qemu")
        Path(script).write_text(f"#!/bin/sh\ntouch {shlex.quote(path)}\n", encoding="utf-8")
        os.chmod(script, 0o755)
        return script, path

    def test_device_fails(self):
        script, path = self.not_started()
        self.start(devices=[STANDIN, f"{STANDIN},fail=3"], qemu=[script])
        self.ends(125, "standin: fails as it was told", "device standin.py#2 exited with status 3 at its start")
        self.assertFalse(os.path.exists(path))

    def test_plain_device_fails(self):
        """Of a program that does not say when it is ready, the failure shows when QEMU connects."""
        self.environment |= {"STANDIN_PLAIN": "1", "STANDIN_OPTIONS": "fail=3"}
        self.start(devices=[STANDIN])
        self.ends(125, "exited with status 3", "had ended before QEMU connected")

    def test_plain_device(self):
        self.environment |= {"STANDIN_PLAIN": "1"}
        self.begin(STANDIN)
        self.qmp.command("quit")
        self.ends(0)

    def test_signal_before_ready(self):
        script, path = self.not_started()
        pid_file = os.path.join(self.folder, "pid")
        self.start(devices=[f"{STANDIN},never-ready=1,pid={pid_file}"], qemu=[script])
        end = time.monotonic() + DEADLINE
        while not os.path.exists(pid_file):
            self.assertLess(time.monotonic(), end, self.errors())
            time.sleep(0.01)
        self.process.terminate()
        self.ends(128 + 15)
        self.assertFalse(os.path.exists(path))

    def test_no_qemu(self):
        self.start(devices=[STANDIN], qemu=["no-such-qemu"])
        self.ends(127, "cannot execute QEMU 'no-such-qemu'")

    def test_qemu_not_executable(self):
        path = os.path.join(self.folder, "qemu")
        Path(path).write_text("", encoding="utf-8")
        self.start(devices=[STANDIN], qemu=[path])
        self.ends(126, "cannot execute QEMU")

    def test_no_device_program(self):
        script, path = self.not_started()
        self.start(devices=["./no-such-device"], qemu=[script])
        self.ends(125, "cannot execute ./no-such-device: No such file")
        self.assertFalse(os.path.exists(path))

    def test_talkative_device_program(self):
        script, path = self.not_started()
        talkative = os.path.join(self.folder, "talkative")
        Path(talkative).write_text("#!/bin/sh\nwhile echo {}; do :; done\n", encoding="utf-8")
        os.chmod(talkative, 0o755)
        self.start(devices=[talkative], qemu=[script])
        self.ends(125, "device talkative: .* --print-capabilities prints too much")
        self.assertFalse(os.path.exists(path))

    def test_old_qemu(self):
        path = os.path.join(self.folder, "qemu")
        Path(path).write_text(
            '#!/bin/sh\ncase "$1" in\n--version) echo old 9.0; exit 0;;\n'
            "-device) echo 'name \"edu\"'; exit 0;;\nesac\nexit 1\n",
            encoding="utf-8",
        )
        os.chmod(path, 0o755)
        self.start(devices=[STANDIN], qemu=[path, "-m", "1G"])
        self.ends(1, r"no device vfio-user-pci: version 10\.1\.1 or later.* is: old 9\.0")

    def test_temporary_folder_missing(self):
        self.environment["TMPDIR"] = os.path.join(self.folder, "none")
        self.start(devices=[STANDIN])
        self.ends(125, "cannot make a folder in .*/none")


class Inside(Case):
    """What QEMU and the devices have."""

    def test_descriptors(self):
        self.begin(STANDIN, STANDIN)
        for pid, line in self.marked().items():
            numbers = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
            if "--fd=3" in line:
                # the pipe for readiness is closed again; one more is its client
                self.assertLessEqual(numbers, {0, 1, 2, 3, 4})
                self.assertEqual(os.readlink(f"/proc/{pid}/fd/0"), "/dev/null")
                self.assertEqual(os.readlink(f"/proc/{pid}/fd/1"), os.readlink(f"/proc/{pid}/fd/2"))
            elif pid == self.qemu():
                self.assertLessEqual({64, 65, self.qmp_number}, numbers)
                self.assertTrue(stat.S_ISSOCK(os.stat(f"/proc/{pid}/fd/64").st_mode))
                self.assertIn("(deleted)", os.readlink(f"/proc/{pid}/fd/64"))
        self.qmp.command("quit")
        self.ends(0)

    def setUp(self):
        super().setUp()
        self.qmp_number = self.qmp.theirs.fileno()

    def test_unplug_and_plug(self):
        self.replug(STANDIN)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_unplug_and_plug_as_another_user(self):
        self.replug(STANDIN, ["-run-with", "user=nobody"])


class Lines(Case):
    """The command line that is made, by --dry-run."""

    def dry(self, devices, *qemu, status=0):
        words = [word for device in devices for word in ("-d", device)]
        result = self.run_words("run", *words, "--dry-run", "--", "qemu", *qemu)
        self.assertEqual(result.returncode, status, result.stderr)
        if status != 0:
            self.assertEqual(result.stdout, "")
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            return result.stderr
        lines = result.stdout.splitlines()
        self.assertEqual(len(lines), len(devices) + 1)
        self.leaves_nothing()
        return lines[:-1], shlex.split(lines[-1])

    def memory(self, *qemu):
        return self.dry([STANDIN], *qemu)[1][1 + len(qemu) : -2]

    def test_devices(self):
        comments, words = self.dry([f"{STANDIN},a=b,,c,qemu.id=x,qemu.addr=05,d=e", STANDIN], "-name", "it's")
        self.assertEqual(
            shlex.split(comments[0].split(": ", 1)[1]), [STANDIN, "--fd=3", "--ready-fd=4", "--option=a=b,,c,d=e"]
        )
        self.assertIn("standin.py#2, /proc/self/fd/65", comments[1])
        self.assertEqual(words[:3], ["qemu", "-name", "it's"])
        self.assertEqual(words[-4], words[-2], "-device")
        first, second = json.loads(words[-3]), json.loads(words[-1])
        self.assertEqual(first["socket"], {"type": "unix", "path": "/proc/self/fd/64"})
        self.assertEqual((first["driver"], first["id"], first["addr"]), ("vfio-user-pci", "x", "05"))
        self.assertEqual(second, {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": "/proc/self/fd/65"}})

    def test_types_of_properties(self):
        _, words = self.dry([f"{STANDIN},qemu.bootindex=3,qemu.x-no-posted-writes=on,qemu.id=7,qemu.a=b,,c"])
        device = json.loads(words[-1])
        del device["driver"], device["socket"]
        self.assertEqual(device, {"bootindex": 3, "x-no-posted-writes": True, "id": "7", "a": "b,c"})

    def test_numbers_of_the_user(self):
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 64)
        result = self.run_words("run", "-n", "-d", STANDIN, "qemu", pass_fds=[64])
        os.close(64)
        os.close(null)
        self.assertIn("/proc/self/fd/65", result.stdout)

    def test_no_device(self):
        self.assertEqual(self.dry([], "-m", "1G"), ([], ["qemu", "-m", "1G"]))

    def test_timeout(self):
        for reply, timeout in (("4500", None), ("4501", 5501), ("9000", 10000)):
            self.environment["STANDIN_REPLY"] = reply
            self.assertEqual(json.loads(self.dry([STANDIN])[1][-1]).get("x-msg-timeout"), timeout)
        self.assertEqual(json.loads(self.dry([f"{STANDIN},qemu.x-msg-timeout=7"])[1][-1])["x-msg-timeout"], 7)

    def test_user_of_qemu(self):
        comments, _ = self.dry([STANDIN], "-run-with", "chroot=/,user=nobody")
        self.assertIn("--socket-owner=nobody", comments[0])
        comments, _ = self.dry([STANDIN], "-run-with", "user=7:8")
        self.assertTrue(comments[0].endswith("--socket-owner=7"))

    def test_memory_is_added(self):
        for words, size in (
            ([], "128M"),
            (["-m", "512"], "512M"),
            (["-m", "2G"], "2048M"),
            (["-m", "1.5G"], "1536M"),
            (["-m", "size=1g,slots=2,maxmem=4G"], "1024M"),
            (["--m", "slots=2", "-m", "64M"], "64M"),
            (["-m", "1048580k"], "1073750016"),  # QEMU rounds up to 8 KiB
            (["-m", "0"], "128M"),
            (["-machine", "q35,accel=tcg", "-M", "smm=off"], "128M"),
            (["-object", "memory-backend-ram,id=unused,size=1M"], "128M"),
        ):
            expected = ["-object", f"memory-backend-memfd,id=outboard-ram,size={size},share=on"]
            self.assertEqual(self.memory(*words), expected + ["-machine", "memory-backend=outboard-ram"], words)

    def test_memory_is_there(self):
        for words in (
            ["-object", "memory-backend-memfd,id=m,size=1G", "-machine", "q35,memory-backend=m"],
            ["-object", "memory-backend-file,id=m,size=1G,share=on,mem-path=/x,,y", "-M", "memory-backend=m"],
            ["-object", '{"qom-type":"memory-backend-ram","id":"m","size":1,"share":true}', "-M", "memory-backend=m"],
            ["-object", "memory-backend-shm,id=m,size=1G", "-numa", "node,memdev=m"],
            ["-machine", "memory-backend=from-a-file"],
        ):
            self.assertEqual(self.memory(*words), [], words)

    def test_memory_is_private(self):
        for words in (
            ["-object", "memory-backend-ram,id=m,size=1G", "-machine", "memory-backend=m"],
            ["-machine", "memory-backend=m", "-object", "memory-backend-memfd,share=off,id=m,size=1G"],
            ["-object", '{"qom-type":"memory-backend-file","id":"m"}', "-M", "q35,memory-backend=m"],
            ["-object", "memory-backend-ram,id=m,size=1G", "-numa", "node,memdev=m"],
        ):
            self.assertIn("add share=on", self.dry([STANDIN], *words, status=2))

    def test_refused(self):
        self.assertIn("in the background", self.dry([STANDIN], "-daemonize", status=2))
        self.assertIn("in the background", self.dry([STANDIN], "--daemonize", status=2))
        self.assertIn("-incoming", self.dry([STANDIN], "-incoming", "defer", status=2))
        self.assertIn("-loadvm", self.dry([STANDIN], "-loadvm", "x", status=2))
        self.assertIn("memory-backend-file", self.dry([STANDIN], "-mem-path", "/dev/shm", status=2))
        self.assertIn("is not a size", self.dry([STANDIN], "-m", "lots", status=2))

    def test_wrong_devices(self):
        self.assertRegex(self.dry(["nonsense"], status=2), "no device 'nonsense': the built-in ones are")
        self.assertIn("set by this command", self.dry([f"{STANDIN},qemu.socket=x"], status=2))
        self.assertIn("'qemu.id' is given twice", self.dry([f"{STANDIN},qemu.id=x,qemu.id=y"], status=2))
        self.assertIn("not qemu.KEY=VALUE", self.dry([f"{STANDIN},qemu.id"], status=2))
        result = self.run_words("run", "--device", STANDIN)
        self.assertEqual((result.returncode, result.stderr.count("\n")), (2, 1))


if __name__ == "__main__":
    command_case.main()
