#!/usr/bin/env python3
"""Tests of the commands that look at a server: lspci, info, peek, poke, dump. See command_case.py for the arguments;
$OUTBOARD_TESTDEV and $OUTBOARD_HELLO are device programs."""
import json
import os
import random
import re
import select
import socket
import struct
import subprocess
import unittest

import command_case
import scripted_server
from command_case import DEADLINE, HERE, OUTBOARD, Case
from scripted_server import CONFIG, ScriptedServer

TOOLS = ("lspci", "info", "peek", "poke", "dump")
TESTDEV = ["--spawn", os.environ["OUTBOARD_TESTDEV"]]
HELLO = ["--spawn", os.environ["OUTBOARD_HELLO"]]
EDU = ["--device", "edu"]
SERIAL = ["--device", "serial,backend=pty"]


class Tools(Case):
    def good(self, *words):
        result = self.run_words(*words)
        self.assertEqual(result.returncode, 0, (words, result.stderr))
        return result.stdout

    def bad(self, words, status, *patterns):
        result = self.run_words(*words)
        self.assertEqual(result.returncode, status, (words, result.stdout, result.stderr))
        for pattern in patterns:
            self.assertRegex(result.stderr, pattern, words)
        return result.stdout

    def scripted(self, regions, **keys):
        server = ScriptedServer(os.path.join(self.folder, "scripted"), regions, **keys)
        self.addCleanup(server.close)
        return server

    def tearDown(self):
        self.doCleanups()  # sockets go before the folder
        super().tearDown()

    def serve(self, *words):
        """`outboard serve` on a path, which is returned once clients may connect."""
        path = os.path.join(self.folder, "served")
        reader, writer = os.pipe()
        self.process = subprocess.Popen(
            [OUTBOARD, "serve", *words, f"--socket-path={path}", f"--ready-fd={writer}"],
            env=self.environment,
            stderr=subprocess.DEVNULL,
            pass_fds=[writer],
        )
        os.close(writer)
        self.assertTrue(select.select([reader], [], [], DEADLINE)[0])
        self.assertEqual(os.read(reader, 2), b"\n")
        os.close(reader)
        return path


class Lspci(Tools):
    def real(self, dump, *options):
        path = os.path.join(self.folder, "dump")
        with open(path, "w", encoding="ascii") as file:
            file.write(dump)
        keys = {"capture_output": True, "text": True, "timeout": DEADLINE}
        result = subprocess.run(["lspci", "-O", "hwdb.disable=1", "-F", path, *options], check=True, **keys)
        return result.stdout.splitlines()

    def assert_as_real(self, server, dump, *options):
        """What differs, because a dump does not have it: sizes of regions, and so regions at address 0."""
        ours = self.good("lspci", *options, *server).splitlines()
        unassigned = r"\t(Region \d: )?Memory at <unassigned> \(32-bit, non-prefetchable\) \[disabled\] \[size=\w+\]$"
        ours = [re.sub(r" \[size=\w+\]$", "", line) for line in ours if not re.match(unassigned, line)]
        self.assertEqual(ours, self.real(dump, *options), options)

    def test_devices(self):
        for server in (TESTDEV, HELLO, EDU, SERIAL):
            for hexadecimal in ("-x", "-xxx", "-xxxx"):
                dump = self.good("lspci", hexadecimal, *server)
                for options in ([], ["-v"], ["-vv"], ["-vvv"], ["-n"], ["-nn", "-v"], ["-n", "-vvv"]):
                    if hexadecimal == "-xxxx" or "-v" not in "".join(options):
                        self.assert_as_real(server, dump, *options)

    def test_sizes(self):
        text = self.good("lspci", "-vv", *TESTDEV)
        for line in ("Region 0: Memory", "Region 1: I/O", "Region 2: Memory", "Region 4: Memory", "Region 5: Memory"):
            self.assertIn(f"\t{line}", text)
        self.assertEqual(re.findall(r"\[size=(\w+)\]", text), ["4K", "32", "64K", "16K", "4K"])

    def config(self, numbers):
        """A configuration space with capabilities and registers by chance."""
        space = bytearray(4096)
        struct.pack_into("<HHHH", space, 0, 0x1234, 0x11E8, numbers.getrandbits(16), numbers.getrandbits(16) | 0x10)
        space[8:16] = bytes([numbers.getrandbits(8), 0, 0, 0xFF, numbers.getrandbits(8), numbers.getrandbits(8), 0, 0])
        space[15] = numbers.choice([0, 0x80, 0x85, 0xC0])
        for slot in (0, 1, 2, 4, 5):
            kind = numbers.choice([0, 1, 2, 8, 12]) if slot in (0, 2) else numbers.choice([0, 1, 2, 8])
            address = numbers.choice([0, numbers.getrandbits(32) & ~15])
            struct.pack_into("<I", space, 16 + 4 * slot, address | kind)
            if slot == 1 and space[16] & 7 == 4:  # lspci takes an upper half that is not 0 for a region of its own
                space[20:24] = bytes(4)
        space[44:48] = numbers.choice([bytes(4), numbers.randbytes(4)])
        struct.pack_into("<I", space, 48, numbers.choice([0, numbers.getrandbits(32) & 0xFFFFF801]))
        space[60], space[61], space[62:64] = numbers.getrandbits(8), numbers.randrange(5), numbers.randbytes(2)
        link, at = 0x34, 0x40
        sizes = {1: 8, 5: 24, 0x11: 12, 0x10: 60, 9: 12, 0x33: 4}
        for kind in numbers.sample(sorted(sizes), len(sizes)):
            space[at : at + sizes[kind]] = numbers.randbytes(sizes[kind])
            space[link], space[at], space[at + 1] = at, kind, 0
            if kind == 0x10:
                space[at + 2 : at + 4] = struct.pack("<H", numbers.choice([0, 1, 9]) << 4 | numbers.choice([1, 2]))
            if kind == 5:  # not of the types that are reserved
                space[at + 3] &= 1
            link, at = at + 1, at + sizes[kind]
        space[link] = numbers.choice([0, 0, 0x40, link - 1, 0xFC, 0x0C])
        space[0xFD] = numbers.choice([0, 0x40])
        struct.pack_into("<I8s", space, 0x100, 0x14010003, numbers.randbytes(8))
        struct.pack_into("<II", space, 0x140, 0x1801000B, numbers.getrandbits(32))
        link = numbers.choice([0, 0x140, 0x180, 0xFFC])
        struct.pack_into("<I", space, 0x180, 0x0077 | numbers.getrandbits(4) << 16 | link << 20)
        return space

    def test_random(self):
        """The same decoding as lspci's, of whatever is there. A dump has no sizes, so the server has no BARs."""
        for seed in range(40):
            with self.subTest(seed=seed):
                space = self.config(random.Random(seed))
                server = ScriptedServer(os.path.join(self.folder, "scripted"), {CONFIG: (4096, bytes(space))})
                try:
                    dump = self.good("lspci", "-xxxx", server.path)
                    for options in (["-vvv"], ["-v"]):
                        ours = self.good("lspci", *options, server.path).splitlines()
                        self.assertEqual(ours, self.real(dump, *options))
                finally:
                    server.close()

    def test_loops(self):
        for link, text in ((0x40, "<chain looped>"), (0xFC, "Null"), (0xF8, "<chain broken>")):
            space = bytearray(256)
            space[0:8] = bytes([0x34, 0x12, 1, 0, 0, 0, 0x10, 0])
            space[0x34], space[0x40:0x42], space[0xF8] = 0x40, bytes([0x33, link]), 0xFF
            server = ScriptedServer(os.path.join(self.folder, "scripted"), {CONFIG: (256, bytes(space))})
            try:
                self.assertEqual(self.good("lspci", "-v", server.path).count(text), 1)
            finally:
                server.close()

    def test_sizes_of_config(self):
        server = self.scripted({CONFIG: (32, bytes(32))})
        self.bad(("lspci", server.path), 1, "has 32 bytes")
        server.regions = {CONFIG: (1 << 63, bytes(4096))}
        self.assertIn("00:00.0", self.good("lspci", "-xxxx", server.path))
        server.regions = {0: (4096, b"")}
        self.bad(("lspci", server.path), 1, "region config does not exist; this device has bar0")


class Access(Tools):
    def test_peek(self):
        self.assertEqual(self.good("peek", *EDU, "bar0", "0"), "0x010000ed\n")
        text = self.good("peek", *EDU, "0", "0", "l", "2")
        self.assertEqual(text, "0x00000000: 0x010000ed\n0x00000004: 0x00000000\n")
        self.assertEqual(self.good("peek", *EDU, "config", "0", "2"), "0x1234\n")
        self.assertEqual(self.good("peek", *EDU, "config", "0x2", "w"), "0x11e8\n")
        self.assertEqual(self.good("peek", *EDU, "7", "3", "b"), "0x11\n")
        self.assertEqual(self.good("peek", *TESTDEV, "bar0", "0x04", "b", "2"), "0x00000004: 0x5c\n0x00000005: 0x5c\n")
        self.assertEqual(self.good("peek", *TESTDEV, "bar0", "0x70", "q"), "0x0000000000000000\n")

    def test_poke(self):
        path = self.serve("edu")
        self.assertEqual(self.good("poke", path, "bar0", "4", "0x12345678"), "")
        self.assertEqual(self.good("peek", path, "bar0", "4"), "0xedcba987\n")
        self.bad(("poke", path, "bar0", "4", "1", "--verify"), 1, "0x00000001 was written, and 0xfffffffe is read back")
        self.good("poke", path, "config", "0x3c", "0x0b", "b", "--verify")
        self.assertEqual(self.good("peek", path, "config", "0x3c", "1"), "0x0b\n")

    def test_poke_reads_nothing(self):
        server = self.scripted({0: (16, b"")}, dies_at=scripted_server.READ)
        self.good("poke", server.path, "bar0", "8", "0xbeef", "w")
        self.assertEqual(server.written, [(0, 8, b"\xef\xbe")])
        self.bad(("poke", server.path, "bar0", "8", "1", "--verify"), 1, "connection ended")

    def test_wrong(self):
        self.bad(("peek", *EDU, "bar3", "0"), 1, "region bar3 does not exist; this device has bar0, config")
        self.bad(("peek", *EDU, "77", "0"), 1, "region 77 does not exist; this device has bar0, config")
        for arguments in (("0x100000",), ("0xfffff", "w"), ("0", "8", "0x20001"), ("0xffffffffffffffff",)):
            self.bad(("peek", *EDU, "bar0", *arguments), 1, "beyond region bar0, which has 0x100000 bytes")

    def test_refused(self):
        server = self.scripted({0: (16, b"")}, answers={scripted_server.READ: lambda _: 5})
        self.bad(("peek", server.path, "bar0", "0"), 1, "bar0\\+0x0: the server refused it: Input/output error")
        self.bad(("dump", server.path, "bar0"), 1, "bar0\\+0x0: the server refused it: Input/output error")

    def test_usage(self):
        """Each mistake is status 2, and said in one line with its remedy."""
        for words, pattern in (
            (("peek",), "SOCKET is missing"),
            (("peek", "s"), "argument is missing"),
            (("peek", "s", "bar0"), "argument is missing"),
            (("peek", "s", "bar6", "0"), "'bar6' is no region: give bar0 to bar5"),
            (("peek", "s", "0x100000000", "0"), "too large"),
            (("peek", "s", "bar0", "0x"), "is no number"),
            (("peek", "s", "bar0", "0x0x1"), "is no number"),
            (("peek", "s", "bar0", ""), "is no number"),
            (("peek", "s", "bar0", " 1"), "is no number"),
            (("peek", "s", "bar0", "+1"), "is no number"),
            (("peek", "s", "bar0", "12z"), "is no number"),
            (("peek", "s", "bar0", "--", "-1"), "is no number"),
            (("peek", "s", "bar0", "-1"), "no option '-1'"),
            (("peek", "s", "bar0", "0x10000000000000000"), "too large"),
            (("peek", "s", "bar0", "0", "3"), "no width"),
            (("peek", "s", "bar0", "0", "4", "0"), "COUNT 0"),
            (("peek", "s", "bar0", "0", "4", "1", "more"), "unexpected argument 'more'"),
            (("peek", "--timeout", "0", "s", "bar0", "0"), "--timeout 0"),
            (("peek", "--timeout", "never", "s", "bar0", "0"), "is no number"),
            (("peek", "--timeout"), "needs a value"),
            (("peek", "--device=nonsense", "bar0", "0"), "--spawn starts a server program"),
            (("peek", "--device=edu", "--spawn=x", "bar0", "0"), "exclude each other"),
            (("poke", "s", "bar0", "0"), "argument is missing"),
            (("poke", "s", "bar0", "0", "256", "1"), "VALUE '256' is too large: at most 0xff"),
            (("poke", "s", "bar0", "0", "0x10000000000000000", "q"), "too large"),
            (("poke", "s", "bar0", "0", "1", "--verify=x"), "takes no value"),
            (("dump", "s", "--width=3"), "1, 2, 4 or 8"),
            (("dump", "s", "--width=0"), "1, 2, 4 or 8"),
            (("dump", "s", "--size=-1"), "is no number"),
            (("dump", "s", "--raw"), "name one"),
            (("info", "s", "more"), "unexpected argument"),
            (("info", "--nonsense", "s"), "'--nonsense' does not exist"),
            (("lspci", "-z", "s"), "no option '-z'"),
            (("lspci", "-xx", "s"), "-xx means nothing"),
        ):
            result = self.run_words(*words)
            self.assertEqual((result.returncode, result.stderr.count("\n")), (2, 1), (words, result.stderr))
            self.assertIn(pattern, result.stderr)


class Dump(Tools):
    def test_text(self):
        text = self.good("dump", *TESTDEV, "bar4", "config")
        self.assertRegex(text, r"^bar4: 0x4000 bytes\n00000000: ")
        self.assertIn("\n*\n", text)
        self.assertIn("config: 0x1000 bytes\n00000000: 34 12 57 7e ", text)

    def test_raw(self):
        path = os.path.join(self.folder, "raw")
        self.assertEqual(self.good("dump", "--raw", "--output", path, *EDU, "config"), "")
        with open(path, "rb") as file:
            space = file.read()
        self.assertEqual((len(space), space[:4]), (256, b"\x34\x12\xe8\x11"))
        self.bad(("dump", "--raw", "--output", "/nowhere/x", *EDU, "config"), 1, "cannot write '/nowhere/x'")
        self.bad(("dump", "--output", "/dev/full", *EDU, "config"), 1, "cannot write '/dev/full'")

    def test_sizes(self):
        server = self.scripted({0: (1 << 62, b"abcdefgh"), 2: (6, b"123456"), 3: (4, b"xyz"), CONFIG: (256, b"")})
        result = self.run_words("dump", "--size=0x10", server.path, "bar0")
        line = "00000000: 61 62 63 64 65 66 67 68 00 00 00 00 00 00 00 00"
        self.assertEqual(result.stdout.splitlines()[1:], [line, "00000010"])
        self.assertIn("cut after 0x10 of 0x4000000000000000 bytes", result.stderr)
        self.assertIn("side effects", result.stderr)
        self.bad(("dump", server.path, "bar2"), 1, "no whole access: see --width")
        self.assertIn("31 32 33 34 35 36\n", self.good("dump", "--width=2", server.path, "bar2"))
        text = self.good("dump", "--width=1", "--size=4", server.path)
        names = re.findall(r"^(\w+): 0x\w+ bytes$", text, re.MULTILINE)
        self.assertEqual(names, ["bar0", "bar2", "bar3", "config"])


class Info(Tools):
    def test_json(self):
        info = json.loads(self.good("info", "--json", *TESTDEV))
        self.assertEqual(list(info), ["protocol", "flags", "regions", "irqs", "migration", "dirty_logging"])
        self.assertEqual(info["flags"], ["reset", "pci"])
        regions = {region["name"]: region for region in info["regions"]}
        self.assertEqual(list(regions), ["bar0", "bar1", "bar2", "bar4", "bar5", "config", *map(str, range(9, 14))])
        self.assertEqual(regions["bar4"]["areas"], [{"offset": hex(at), "size": "0x1000"} for at in (0x1000, 0x3000)])
        self.assertEqual(regions["bar2"]["flags"], ["read", "write", "mmap"])
        self.assertIn({"index": 2, "count": 8, "flags": ["eventfd"], "name": "msix"}, info["irqs"])
        self.assertGreaterEqual(info["protocol"]["max_data_xfer_size"], 4096)

    def test_text(self):
        for server in (EDU, SERIAL, HELLO, TESTDEV):
            self.assertRegex(self.good("info", *server), r"(?s)^protocol +0\.\d.*\nregion config .*\ndirty logging  ")

    def test_absurd(self):
        server = self.scripted({CONFIG: (256, b"")}, indexes=100000)
        self.bad(("info", server.path), 1, "cannot connect to")
        server.indexes = 9
        server.regions = {0: (0xFFFFFFFFFFFFFFFF, b"")}
        self.assertIn("0xffffffffffffffff", self.good("info", server.path))


class Servers(Tools):
    def test_absent(self):
        self.bad(("info", f"{self.folder}/nothing"), 1, "No such file.*is the server running")
        self.bad(("info", "--spawn", "/nonexistent/program"), 1, "cannot connect to '/nonexistent/program'")
        self.bad(("info", "--spawn", "false"), 1, "cannot connect to 'false'")
        self.bad(("info", "--device", "edu,nonsense=1"), 1, "unknown option 'nonsense'", "cannot connect")
        self.leaves_nothing()

    def test_spawned(self):
        """--spawn takes {socket}, {fd} and quotes; what was started is gone afterwards."""
        program = os.environ["OUTBOARD_TESTDEV"]
        for more in ("", " --fd {fd}", " --socket-path {socket}"):
            info = json.loads(self.good("info", "--json", "--spawn", f"{program} --option 'vectors=4'{more}"))
            self.assertIn({"index": 2, "count": 4, "flags": ["eventfd"], "name": "msix"}, info["irqs"])
            self.leaves_nothing()

    def test_busy(self):
        path = self.serve("edu")
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            version = json.dumps({"capabilities": {}}).encode() + b"\0"
            first.sendall(struct.pack("<HHIIIHH", 1, 1, 20 + len(version), 0, 0, 0, 0) + version)
            self.assertTrue(first.recv(4096))  # it is the client that is served
            self.bad(("info", "--timeout", "1", path), 1, "may be serving another client")
        self.assertIn("region bar0", self.good("info", path))

    def test_registers_stay(self):
        """Neither connecting nor leaving resets anything."""
        path = self.serve("edu")
        self.good("poke", path, "bar0", "4", "0xff00ff00")
        for words in (("info",), ("lspci", "-vvv"), ("dump",)):
            self.good(words[0], *words[1:], path)
        self.assertEqual(self.good("peek", path, "bar0", "4"), "0x00ff00ff\n")

    def test_dies(self):
        for at in (scripted_server.VERSION, scripted_server.INFO):
            server = ScriptedServer(os.path.join(self.folder, "scripted"), {CONFIG: (256, b"")}, dies_at=at)
            self.bad(("info", server.path), 1, "cannot connect")
            server.close()
        server = self.scripted({0: (4096, b""), CONFIG: (256, b"")}, dies_at=scripted_server.READ)
        for words in (("lspci", server.path), ("peek", server.path, "bar0", "0"), ("dump", server.path, "bar0")):
            self.bad(words, 1, "the connection ended")
        server.dies_at = scripted_server.FEATURE
        self.bad(("info", server.path), 1, "the connection ended")

    def test_output(self):
        with open("/dev/full", "wb") as full:
            keys = {"stdout": full, "stderr": subprocess.PIPE, "env": self.environment, "timeout": DEADLINE}
            result = subprocess.run([OUTBOARD, "info", *EDU], check=False, **keys)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"cannot write to standard output", result.stderr)


class Manuals(Tools):
    def options(self, text):
        return set(re.findall(r"(?<![\w-])(?:--[a-z][a-z-]*|-[a-z]+)(?![\w])", text))

    def test_pages(self):
        """Every command has a page, or is told of in outboard(1), with just the options that --help prints."""
        for name in re.findall(r"^  ([a-z]+) ", self.good("help"), re.MULTILINE):
            path = HERE.parents[1] / f"docs/man/outboard-{name}.1"
            if name in ("devices", "help"):
                continue
            words = [name, "edu", "--help"] if name == "serve" else [name, "--help"]
            text = path.read_text(encoding="utf-8").replace("\\-", "-")
            text = text.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
            section = text.split(".SH OPTIONS")[1].split(".SH")[0]
            tags = "\n".join(re.findall(r"(?<=\.TP\n).*", section))
            printed = re.findall(r"^  (-.*?)(?:  |$)", self.good(*words), re.MULTILINE)
            self.assertEqual(self.options("\n".join(printed)) - {"-V"}, self.options(tags), name)
            self.assertIn(".SH EXIT STATUS", text)


if __name__ == "__main__":
    command_case.main()
