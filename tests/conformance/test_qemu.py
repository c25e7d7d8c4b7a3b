#!/usr/bin/env python3
"""A stock QEMU before the judge of clients: it deviates exactly as the lists here say, which docs/interop.md explains.

    test_qemu.py OUTBOARD

Three runs: all checks, with qemu_client.py as QEMU's guest; those of a lost connection again, with a QEMU that would
wait for longer than the judge; and some, with a QEMU that has nothing but its firmware and lives on. A check that fails
and is not on the list fails the test, and one on the list that does not fail, too. The lists are for QEMU 11.1.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
OUTBOARD = sys.argv[1]
VERSION = "11.1."

# The check, its clause, and what QEMU does.
DEVIATIONS = """
reply-posted-fails VU-HDR-8 answers a posted DMA_WRITE that fails
answer-other-command VU-HDR-26 looks at the id of a reply only
answer-short-region-info VU-HDR-27 takes a reply for whole that is not
answer-short-irq-info VU-HDR-27 takes a reply for whole that is not
answer-short-write VU-HDR-27 takes a reply for whole that is not
answer-long-map VU-HDR-27 takes a reply that is no longer than the command
answer-long-set-irqs VU-HDR-27 takes a reply that is no longer than the command
error-without-type VU-HDR-28 takes such a refusal for a command, and answers it
split-header VU-CON-28 reads a header with one call
split-bytes VU-CON-28 reads a header with one call
command-in-call VU-CON-9 holds the lock that it needs to serve while it waits for a reply
commands-in-call VU-CON-32 holds the lock that it needs to serve while it waits for a reply
reset-slow VU-RESET-11 holds the lock that it needs to serve while it waits for a reply
late-payload VU-CON-30 leaves the payload of a late reply in the stream
end-anywhere VU-CON-26 aborts if the connection ends while it maps memory at its start
reply-long-text VU-VER-3 takes no reply to VERSION that is longer than the command
offer-no-descriptor VU-VER-18 sends descriptors to a server that takes none
limit-descriptors VU-VER-18 sends descriptors to a server that takes none
reply-no-text VU-VER-17 takes max_msg_fds for 8 if it is absent
reply-no-capabilities VU-VER-17 takes max_msg_fds for 8 if it is absent
reply-empty-capabilities VU-VER-17 takes max_msg_fds for 8 if it is absent
offer-few-maps VU-VER-26 does not count its maps
limit-maps VU-VER-26 does not count its maps
info-longer VU-INFO-12 takes no reply to GET_INFO that is longer than the command
region-list-loops VU-REG-23 follows a list of capabilities for ever
region-list-next VU-REG-23 follows a list of capabilities outside the reply, and dies
region-areas-wrap VU-REG-23 asks for memory for as many areas as it is told, and dies
region-short-file VU-CON-26 maps more than the file has, and dies when it is touched
area-outside VU-REG-24 maps an area that leaves the region
area-half-page VU-REG-24 maps an area of half a page
region-needless-descriptor VU-REG-25 keeps the descriptor
set-no-eventfd VU-SET-26 does not look whether an index takes eventfds
set-flags VU-SET-26 does not look whether an index takes eventfds
write-count-below VU-WR-14 does not look at the count of the reply
write-count-above VU-WR-14 does not look at the count of the reply
dma-data-left VU-DMA-10 drops data beyond the count of a DMA_WRITE
"""
# What depends on which thread is quicker.
SOMETIMES = """
end-in-payload VU-CON-27 dies if it is waiting for the rest of a reply
end-between VU-CON-31 aborts if it is about to map memory
dma-whole-map VU-DMA-2 drops what does not fit the socket of a large reply
"""
# Of a QEMU that would wait for a reply longer than the judge.
LOST = """
end-outstanding VU-CON-27 waits for replies that cannot come any more
end-in-header VU-CON-27 waits for replies that cannot come any more
"""


def qemu():
    def output(*command):
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

    path = output(HERE.parents[1] / "scripts/get-qemu").strip()
    return path, re.search(r"version (\S+)", output(path, "--version"))[1]


def judge(client, timeout, *checks):
    """{check: (result, clause, text)} of a client's command."""
    with tempfile.TemporaryDirectory(prefix="qemu-") as folder:
        command = [OUTBOARD, "conform", "--client", os.path.join(folder, "judge"), "--spawn", client, "--strict",
                   "--timeout", str(timeout)]
        for check in checks:
            command += ["--check", check]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    results, last = {}, None
    for line in run.stdout.splitlines():
        match = re.match(r"(ok|not ok) \d+ - (\S+) (\S+): ", line)
        if match:
            last = results[match[2]] = [match[1], match[3], ""]
        elif last and line.startswith("# ") and not last[2]:
            last[2] = line[2:]
    return results


def known(text):
    return {line.split()[0]: line.split(None, 2)[1:] for line in text.strip().splitlines()}


def compare(results, always, sometimes=()):
    """What is wrong, a line each."""
    errors = [f"{name} {clause}: is not on the list: {text}" for name, (result, clause, text) in results.items()
              if result == "not ok" and name not in always and name not in sometimes]
    for name, (clause, what) in always.items():
        if name not in results:
            errors.append(f"{name}: there is no such check")
        elif results[name][1] != clause:
            errors.append(f"{name}: its clause is {results[name][1]}")
        elif results[name][0] != "not ok":
            errors.append(f"{name} {clause}: passes, so take it off the list and out of docs/interop.md: {what}")
    return errors if results else ["the judge said nothing"]


def main():
    path, version = qemu()
    driven = f"{sys.executable} {HERE / 'qemu_client.py'} {path} {{socket}}"
    alone = (f"{path} -machine q35,memory-backend=ram -m 64 -object memory-backend-memfd,id=ram,size=64M,share=on "
             "-nodefaults -no-user-config -display none "
             '-device {"driver":"vfio-user-pci","socket":{"type":"unix","path":"{socket}"}}')
    tests = (
        ("QEMU with a driver", lambda: compare(judge(driven, 8000), known(DEVIATIONS), known(SOMETIMES))),
        ("QEMU that has lost its server", lambda: compare(judge(f"{driven} 60000", 3000, *known(LOST)), known(LOST))),
        ("QEMU alone", lambda: compare(judge(alone, 8000, "header-*", "map-*", "unmap-*", "version-*", "split-payload",
                                             "answer-other-id"), {})),
    )
    print(f"1..{len(tests)}")
    if not version.startswith(VERSION):
        print("".join(f"ok {n} - {name} # SKIP the lists are not for QEMU {version}\n"
                      for n, (name, _) in enumerate(tests, 1)), end="")
        return 0
    failed = False
    for n, (name, test) in enumerate(tests, 1):
        errors = test()
        failed |= bool(errors)
        print(f"{'not ok' if errors else 'ok'} {n} - {name}", *(f"# {error}" for error in errors), sep="\n", flush=True)
    return failed


sys.exit(main())
