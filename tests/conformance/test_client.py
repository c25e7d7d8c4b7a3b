#!/usr/bin/env python3
"""The judge of clients with clients that do not end by themselves, that it does not start, and that are hostile.

    test_client.py OUTBOARD CLIENT_DRIVER
    test_client.py --hostile SEED SOCKET

What can be seen of a client that lives on is judged, and the rest is skipped; its faults are found, too. It speaks TAP.
With --hostile it is a client that sends messages of any kind, most of which are half right.
"""

import os
import pathlib
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
OUTBOARD, DRIVER = sys.argv[-2:]
CHECKS = ("reply-id", "split-payload", "reply-unknown-keys", "answer-other-id", "text-malformed", "read-count-above",
          "late-header", "descriptor-closed-read", "map-layout", "unmap-flags")
VISIBLE = {"baseline", "reply-id", "split-payload", "reply-unknown-keys", "late-header", "descriptor-closed-read",
           "map-layout", "unmap-flags"}


def judge(folder, spawn=None, checks=CHECKS, timeout=3000):
    command = [OUTBOARD, "conform", "--client", os.path.join(folder, "judge"), "--timeout", str(timeout)]
    command += ["--spawn", spawn] if spawn else []
    for check in checks:
        command += ["--check", check]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(process):
    """{check: "ok", "not ok" or "skip"}, the exit status, and all that was said."""
    out, err = process.communicate(timeout=200)
    found = {}
    for line in out.splitlines():
        match = re.match(r"(ok|not ok) \d+ - (\S+) ", line)
        if match:
            found[match[2]] = "skip" if " # SKIP" in line else match[1]
    return found, process.returncode, out + err


def test_lives_on():
    """Variations pass, and so do faults that it cannot hide: it ends the connection."""
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        found, status, text = results(judge(folder, f"{DRIVER} --stay {{socket}}"))
    assert status == 0, text
    assert all(found.get(check) == "ok" for check in VISIBLE), text
    assert not {check for check, result in found.items() if result == "not ok"}, text


def test_lives_on_and_hides():
    """Whether it noticed a fault cannot be seen if it goes on: skipped."""
    proxy = f"{sys.executable} {HERE / 'proxy.py'} --mutation client-believes-writes --connect {{socket}} --client"
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        found, status, text = results(judge(folder, f"{proxy} -- {DRIVER} --stay {{proxy}}", ["write-count-below"]))
    assert status == 0 and found == {"baseline": "ok", "write-count-below": "skip"}, text


def test_lives_on_and_fails():
    """It gives up where it must not."""
    proxy = f"{sys.executable} {HERE / 'proxy.py'} --mutation client-wants-whole-replies --connect {{socket}} --client"
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        found, status, text = results(judge(folder, f"{proxy} -- {DRIVER} --stay {{proxy}}", ["split-payload"]))
    assert status == 1 and found == {"baseline": "ok", "split-payload": "not ok"}, text


# Numbers at which something ends.
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 20, 24, 32, 36, 0x1000, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff)
TEXTS = (b'{"capabilities":{"max_msg_fds":16,"write_multiple":true,"twin_socket":{"supported":true}}}\0',
         b'{"capabilities":{"max_msg_fds":-1,"max_data_xfer_size":99999999999999,"twin_socket":7}}\0', b"[]\0", b"")
COMMANDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 99)


def hostile_payload(rng, command):
    words = [rng.choice(EDGES) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 10, 20)))]
    if command == 2 and rng.random() < 0.7:
        return struct.pack("<IIQQQ", 32, rng.randrange(4), 0, rng.choice((0, 4096, 1 << 32, (1 << 64) - 4096)),
                           rng.choice((0, 4096, 65536, (1 << 64) - 1)))
    if command == 16:
        words[:2] = [rng.choice((8, 16, 4096)), 1 << rng.randrange(16, 19) | rng.choice((1, 2, 6, 7, 8))]
    return struct.pack(f"<{len(words)}I", *words)


def be_hostile(seed, path):
    """Until the judge has enough, or it has."""
    rng = random.Random(seed)
    with socket.socket(socket.AF_UNIX) as judged:
        judged.settimeout(0.02)  # it is the judge's turn now and then, whether it has something to say or not
        judged.connect(path)
        messages = [(1, b"\0\0\0\0" + rng.choice(TEXTS), 0), (10, struct.pack("<QIIH", 4, 7, 2, 6), 0)]
        for _ in range(rng.randrange(5, 80)):
            command = rng.choice(COMMANDS)
            messages.append((command, hostile_payload(rng, command), rng.choice((0, 0, 0, 0, 0x10, 1, 2, 0x21, 0xff))))
        for command, payload, flags in messages:
            size = 16 + len(payload) if rng.random() < 0.98 else rng.choice((0, 15, 17, 1 << 24, 0xffffffff))
            fds = [judged.fileno()] * (rng.choice((1, 2, 20)) if rng.random() < 0.1 else 0)
            header = struct.pack("<HHIII", rng.randrange(65536), command, size, flags, 0)
            try:
                socket.send_fds(judged, [header + payload], fds)
                if rng.random() < 0.3:
                    judged.recv(1 << 16)
            except TimeoutError:
                pass
            except OSError:
                return


def test_hostile():
    """Nothing that a client sends harms the judge; what it says of such a client does not matter."""
    for seed in range(4):
        spawn = f"{sys.executable} {__file__} --hostile {seed} {{socket}}"
        with tempfile.TemporaryDirectory(prefix="judge-") as folder:
            found, status, text = results(judge(folder, spawn, ("dma-read", "split-*", "data-padded"), 300))
        assert status in (0, 1) and " passed, " in text and found, text


def come_again_and_again(path, stop):
    while not stop.is_set():
        subprocess.run([DRIVER, path], stderr=subprocess.DEVNULL, check=False)


def test_comes_by_itself():
    """Clients that the judge does not start."""
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        process = judge(folder)
        clients = threading.Thread(target=come_again_and_again, args=(os.path.join(folder, "judge"), stop))
        clients.start()
        try:
            found, status, text = results(process)
        finally:
            stop.set()
            clients.join()
    assert status == 0, text
    assert all(found.get(check) == "ok" for check in VISIBLE), text


def test_nobody_comes():
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        found, status, text = results(judge(folder, timeout=200))
        assert not os.listdir(folder), "a socket is left"
    assert status == 125 and not found and "does not for 200 ms" in text, text


def test_program_that_ends():
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        found, status, text = results(judge(folder, "/bin/false {socket}"))
    assert status == 125 and not found and "it ended with status 1" in text, text


def test_no_server():
    for arguments, said in ((["--server", "/nonexistent/socket"], "is the server running"),
                            (["--spawn", "/bin/false"], "does not listen"), (["--spawn", " "], "no program")):
        run = subprocess.run([OUTBOARD, "conform", *arguments, "--timeout", "100"], capture_output=True, text=True,
                             check=False)
        assert run.returncode == 125 and said in run.stderr and not run.stdout, run


def test_command_lines():
    for arguments in (["--client", "/tmp/x", "--server", "/tmp/y"], ["--client", "/tmp/x", "--once"],
                      ["--server", "/tmp/x", "--check", "info-*", "--check", "dma-served"],
                      ["--client", "/tmp/x", "--check", "VU-PCI-*"]):
        run = subprocess.run([OUTBOARD, "conform", *arguments], capture_output=True, text=True, check=False)
        assert run.returncode == 2 and "--help" in run.stderr, run
    for client, spawn, said in (("x", "client", "{socket}"), (str(HERE), "client {socket}", "exists"),
                                ("x" * 200, "client {socket}", "too long")):
        command = [OUTBOARD, "conform", "--client", client, "--spawn", spawn]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 125 and said in run.stderr, run


def main():
    tests = [(name[5:], test) for name, test in globals().items() if name.startswith("test_")]
    print(f"1..{len(tests)}", flush=True)
    failed = False
    for number, (name, test) in enumerate(tests, 1):
        try:
            test()
            print(f"ok {number} - {name}", flush=True)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failed = True
            text = "\n".join(f"# {line}" for line in str(error).splitlines())
            print(f"not ok {number} - {name}\n{text}", flush=True)
    return failed


if sys.argv[1] == "--hostile":
    be_hostile(int(sys.argv[2]), sys.argv[3])
else:
    sys.exit(main())
