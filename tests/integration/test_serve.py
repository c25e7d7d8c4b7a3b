#!/usr/bin/env python3
"""Tests of `outboard serve`, of the built-in devices under `outboard run`, and of the texts of the command. See
command_case.py for its arguments."""
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import unittest
from pathlib import Path

import command_case
from command_case import DEADLINE, HERE, OUTBOARD, Case


class Builtin(Case):
    """The devices that are built in, served and run."""

    IDENTITIES = {"edu": (0x1234, 0x11E8), "serial": (0x1B36, 0x0002)}

    def setUp(self):
        super().setUp()
        names = [line.split()[0] for line in self.run_words("devices").stdout.splitlines()]
        self.assertIn("edu", names)
        self.names = {name: self.IDENTITIES[name] for name in names}

    def arguments(self, name):
        return f"serial,backend=pty,path={self.folder}/pty" if name == "serial" else name

    def test_run(self):
        self.begin(*(f"{self.arguments(name)},qemu.id={name}" for name in self.names))
        found = {
            device["qdev_id"]: (device["id"]["vendor"], device["id"]["device"])
            for device in self.qmp.command("query-pci")["return"][0]["devices"]
        }
        for name, identity in self.names.items():
            self.assertEqual(found[name], identity)
        self.qmp.command("quit")
        self.ends(0)

    def test_unplug_and_plug(self):
        self.replug("edu")

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_unplug_and_plug_as_another_user(self):
        """The device lets in the user that QEMU becomes."""
        self.replug("edu", ["-run-with", "user=nobody"])

    def test_wrong_option(self):
        self.start(devices=["edu,dma-mask=28"], qemu=["qemu"])
        self.ends(125, r"unknown option 'dma-mask'.*dma_mask", r"device edu exited with status 1 at its start")

    def serve(self, *words, **keys):
        self.process = subprocess.Popen(
            [OUTBOARD, "serve", *words], env=self.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **keys
        )
        self.addCleanup(self.process.stderr.close)

    def serve_ready(self, *words):
        reader, writer = os.pipe()
        self.serve(*words, f"--ready-fd={writer}", pass_fds=[writer])
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], DEADLINE)
        self.assertTrue(ready)
        line = os.read(reader, 2)
        os.close(reader)
        self.assertEqual(line, b"\n", self.process.stderr.read() if line == b"" else "")

    def test_serve_path(self):
        path = os.path.join(self.folder, "socket")
        for number in (signal.SIGTERM, signal.SIGINT):
            self.serve_ready("edu", f"--socket-path={path}")
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            again = self.run_words("serve", "edu", "--socket-path", path)
            self.assertEqual(again.returncode, 1, again.stderr)
            self.process.send_signal(number)
            self.assertEqual(self.process.wait(DEADLINE), 0)
            self.assertFalse(os.path.exists(path))

    def test_serve_mode(self):
        path = os.path.join(self.folder, "socket")
        self.serve_ready("edu", f"--socket-path={path}", "--socket-mode=660", f"--socket-group={os.getegid()}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
        self.process.terminate()
        self.assertEqual(self.process.wait(DEADLINE), 0)

    def test_serve_connected(self):
        """The client of a connected descriptor goes: the device ends, well."""
        ours, theirs = socket.socketpair()
        self.serve("edu", f"--fd={theirs.fileno()}", pass_fds=[theirs.fileno()])
        theirs.close()
        ours.close()
        self.assertEqual(self.process.wait(DEADLINE), 0)

    def test_serve_replaced(self):
        """A socket file that somebody else put in the place of ours stays."""
        path = os.path.join(self.folder, "socket")
        self.serve_ready("edu", f"--socket-path={path}")
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            self.process.terminate()
            self.assertEqual(self.process.wait(DEADLINE), 0)
            self.assertTrue(os.path.exists(path))
        os.unlink(path)

    def test_serve_usage(self):
        for words, pattern in (
            ((), "the device has to come first"),
            (("nonsense", "--fd=0"), "a device program is run by itself"),
            (("edu",), "--socket-path PATH or --fd N is missing"),
            (("edu", "--fd=99"), "'99' is not the number of an open UNIX socket"),
            (("edu", "--fd=0"), "'0' is not the number of an open UNIX socket"),
            (("edu", "--socket-path=x", "--socket-mode=9"), "not an octal mode"),
            (("edu", "--socket-path=x", "--socket-owner=no-such-user"), "no user 'no-such-user'"),
            (("edu", "--socket-path=x", "--socket-group=no-such-group"), "no group 'no-such-group'"),
            (("edu", "--socket-path=x", "--lifeline=1,2"), "VAULT,BARS,JOURNAL,HOLDER"),
            (("edu", "--socket-path=x", "--lifeline=-1,-1,-1,-1,-1"), "VAULT,BARS,JOURNAL,HOLDER"),
            (("edu", "--socket-path=x", "--lifeline=-1,-1,-1,77"), "VAULT,BARS,JOURNAL,HOLDER"),
            (("edu", "--socket-path=x", "more"), "unexpected argument 'more'"),
            (("edu", "--nonsense"), "nonsense"),
        ):
            result = self.run_words("serve", *words, stdin=subprocess.DEVNULL)
            self.assertEqual((result.returncode, result.stderr.count("\n")), (2, 1), (words, result.stderr))
            self.assertIn(pattern, result.stderr)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            number = theirs.fileno()
            result = self.run_words("serve", "edu", "--socket-path=x", f"--fd={number}", pass_fds=[number])
        self.assertEqual((result.returncode, "exclude each other" in result.stderr), (2, True))

    def test_capabilities(self):
        for name, identity in self.names.items():
            result = self.run_words("serve", name, "--print-capabilities")
            described = json.loads(result.stdout)
            self.assertEqual((result.returncode, described["name"]), (0, name))
            self.assertEqual((described["pci"]["vendor"], described["pci"]["device"]), identity)

    def test_by_name(self):
        """Called by the name of a device, the command is its program."""
        link = os.path.join(self.folder, "outboard-edu")
        os.symlink(OUTBOARD, link)
        result = subprocess.run([link, "--print-capabilities"], capture_output=True, check=True, timeout=DEADLINE)
        self.assertEqual(json.loads(result.stdout)["name"], "edu")


class Texts(Case):
    """--help, --version, and the manual pages."""

    def options(self, text):
        return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))

    def manual(self, name):
        text = (HERE.parents[1] / "docs/man" / name).read_text(encoding="utf-8")
        return text.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")

    def test_help_and_manual(self):
        for words, page in (
            (["--help"], "outboard.1"),
            (["run", "--help"], "outboard-run.1"),
            (["serve", "edu", "--help"], "outboard-serve.1"),
        ):
            result = self.run_words(*words)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            section = self.manual(page).split(".SH OPTIONS")[1].split(".SH")[0]
            tags = "\n".join(re.findall(r"(?<=\.TP\n).*", section))
            self.assertEqual(self.options(result.stdout), self.options(tags), page)

    def test_commands(self):
        listed = re.findall(r"^  ([a-z]+) ", self.run_words("help").stdout, re.MULTILINE)
        self.assertGreaterEqual(set(listed), {"run", "serve", "help"})
        for name in listed:
            self.assertRegex(self.manual("outboard.1"), rf"(?m)^\.B outboard {name}\b")

    def test_version(self):
        result = self.run_words("--version")
        self.assertRegex(result.stdout, r"^outboard \d+\.\d+\.\d+\n$")

    def test_mistakes(self):
        for words in ([], ["nonsense"], ["run"], ["run", "--nonsense"], ["devices", "x"]):
            result = self.run_words(*words)
            self.assertEqual((result.returncode, result.stderr.count("\n")), (2, 1), (words, result.stderr))


if __name__ == "__main__":
    command_case.main()
