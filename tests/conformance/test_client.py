#!/usr/bin/env python3
"""The judge of clients with clients that do not end by themselves, and with clients that it does not start.

    test_client.py OUTBOARD CLIENT_DRIVER

What can be seen of a client that lives on is judged, and the rest is skipped; its faults are found, too. It speaks TAP.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
OUTBOARD, DRIVER = sys.argv[1:]
CHECKS = ("reply-id", "split-payload", "reply-unknown-keys", "answer-other-id", "text-malformed", "read-count-above",
          "late-header", "descriptor-closed-read", "map-layout", "unmap-flags")
VISIBLE = {"baseline", "reply-id", "split-payload", "reply-unknown-keys", "late-header", "descriptor-closed-read",
           "map-layout", "unmap-flags"}


def judge(folder, spawn=None, checks=CHECKS, timeout=5000):
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


def come_again_and_again(socket, stop):
    while not stop.is_set():
        subprocess.run([DRIVER, socket], stderr=subprocess.DEVNULL, check=False)


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
    assert status == 1 and found["baseline"] == "not ok" and found["map-layout"] == "skip", text


def test_program_that_ends():
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        found, status, text = results(judge(folder, "/bin/false {socket}"))
    assert status == 1 and found["baseline"] == "not ok" and "it ended with status 1" in text, text


def test_command_lines():
    for arguments in (["--client", "/tmp/x", "--server", "/tmp/y"], ["--client", "/tmp/x", "--once"]):
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


sys.exit(main())
