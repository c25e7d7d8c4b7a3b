#!/usr/bin/env python3
"""The judge finds every fault that the proxy makes, and each of its checks finds one.

    test_mutations.py OUTBOARD TESTDEV CLIENT_DRIVER [PATTERN...]

One test for each device, and one for the client, runs the checks through the proxy without a mutation; all pass. One
for each row of mutations_*.py runs the checks that it names through the proxy with it; all fail. One for each variant,
which is no fault, does so too; none fails. The last two compare the checks that rows name with the list of `outboard
conform`: every check has a row; and its clauses with the checks: every clause that binds a side has a check of that
side. With patterns only rows whose name matches one are tried.
"""

import concurrent.futures
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import mutation

HERE = pathlib.Path(__file__).resolve().parent
OUTBOARD = sys.argv[1]
TESTDEV = sys.argv[2]
DRIVER = sys.argv[3]
PATTERNS = sys.argv[4:]
FIRST = {"survey", "baseline"}  # the checks that come before all others, and are not listed


def judge(server, name, checks, timeout=3000):
    """{check: "ok", "not ok" or "skip"} for the first and those checks of a server, through the proxy; or of the client
    ("")."""
    proxy = [sys.executable, str(HERE / "proxy.py")]
    if name:
        proxy += ["--mutation", name]
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        if server:
            device, _, options = server.partition(",")
            proxy += ["--socket-path", "{socket}"]
            if device == "testdev":  # with memory for the largest transfer
                proxy += ["--", TESTDEV, "-o", "bar2_size=2m" + (options and "," + options)]
            else:
                proxy += ["--", OUTBOARD, "serve", server]
            command = [OUTBOARD, "conform", "--spawn", " ".join(proxy)]
        else:
            proxy += ["--connect", "{socket}", "--client", "--", DRIVER, "{proxy}"]
            command = [OUTBOARD, "conform", "--client", os.path.join(folder, "judge"), "--spawn", " ".join(proxy)]
        command += ["--strict", "--timeout", str(timeout)]
        for check in checks:
            command += ["--check", check]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    results = {}
    for line in run.stdout.splitlines():
        match = re.match(r"(ok|not ok) \d+ - (\S+) ", line)
        if match:
            results[match[2]] = "skip" if " # SKIP" in line else match[1]
    return results, run.stdout + run.stderr


def unchanged(server):
    results, text = judge(server, None, [])
    bad = [check for check, result in results.items() if result == "not ok"]
    return ([] if results and not bad else [f"without a mutation: {bad}", text])


def permitted(variant):
    results, text = judge(variant.server, variant.name, variant.caught_by)
    bad = [check for check, result in results.items() if result == "not ok"]
    return ([] if "ok" in results.values() and not bad else [f"noticed by {', '.join(bad)}", text])


def caught(row):
    checks = [check for check in row.caught_by if check not in FIRST] or ["info-layout"]  # one has to be named
    results, text = judge(row.server, row.name, checks, row.timeout)
    missed = [check for check in row.caught_by if results.get(check) != "not ok"]
    if "Traceback" in text:
        return ["the row is wrong", text]
    return ([] if not missed else [f"not noticed by {', '.join(missed)}", text])


def every_check(rows):
    listed = subprocess.run([OUTBOARD, "conform", "--list"], capture_output=True, text=True, check=True).stdout
    errors = []
    for side in ("server", "client"):
        names = {line.split()[1] for line in listed.splitlines() if line.startswith(side + " ")}
        tried = {check for row in rows for check in row.caught_by if bool(row.server) == (side == "server")}
        errors += [f"{side} {name}: there is no such check" for name in sorted(tried - names - FIRST)]
        errors += [f"{side} {name}: no row shows that it can fail" for name in sorted(names - tried)]
    return errors


def every_clause():
    command = [OUTBOARD, "conform", "--clauses"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    errors, clauses = [], re.findall(r"^\| (VU-\S+) \| (\S+) \| \S+ \| (.*) \|$", table, re.MULTILINE)
    for clause, who, checks in clauses:
        sides = {"server", "client"} & ({who} if who != "both" else {"server", "client"})
        errors += [f"{clause}: no check of a {side}" for side in sorted(sides)
                   if not re.search(rf"\b{side} ", checks)]
    return errors if clauses else ["there are no clauses"]


def main():
    rows = list(mutation.load().values())
    wanted = [row for row in rows if any(fnmatch.fnmatch(row.name, pattern) for pattern in PATTERNS or ["*"])]
    tests = [(row.name, lambda row=row: caught(row)) for row in wanted]
    tests += [(variant.name, lambda variant=variant: permitted(variant)) for variant in mutation.VARIANTS.values()
              if any(fnmatch.fnmatch(variant.name, pattern) for pattern in PATTERNS or ["*"])]
    if not PATTERNS:
        servers = sorted({row.server for row in rows})
        tests = [(f"unchanged {server or 'client'}", lambda server=server: unchanged(server))
                 for server in servers] + tests
        tests += [("every check finds a fault", lambda: every_check(rows)), ("every clause has a check", every_clause)]
    print(f"1..{len(tests)}", flush=True)
    failed = False
    # Many rows end when the judge has waited for something in vain.
    with concurrent.futures.ThreadPoolExecutor(2 * os.cpu_count()) as pool:
        for number, ((name, _), errors) in enumerate(zip(tests, pool.map(lambda test: test[1](), tests)), 1):
            print(f"{'not ok' if errors else 'ok'} {number} - {name}")
            for line in "\n".join(errors).splitlines():
                print(f"# {line}")
            sys.stdout.flush()
            failed |= bool(errors)
    return 1 if failed else 0


sys.exit(main())
