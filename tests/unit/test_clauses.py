#!/usr/bin/env python3
"""test_clauses: docs/protocol.md has the form that its readers rely on, scripts/clauses finds what breaks it, and no
clause is named that does not exist. Usage: test_clauses.py; it speaks TAP.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/clauses"
GOOD = """# Title

### VU-AB: an area

- **VU-AB-1** `server` `spec`: One `thing` that says "yes", as VU-AB-2 does,
  on two lines.
- **VU-AB-2** `-` `peers`: Another.

Prose.

### VU-C: the next

- **VU-C-1** `both` `outboard`: A \\ third.
"""


def clauses(*arguments):
    return subprocess.run([SCRIPT, *arguments], check=False, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def of_text(text, *arguments):
    with tempfile.TemporaryDirectory(prefix="outboard-clauses-") as folder:
        path = pathlib.Path(folder) / "protocol.md"
        path.write_text(text, encoding="utf-8")
        return clauses("--file", path, *arguments)


def test_document():
    """The document itself, and enough of it for each side."""
    r = clauses("--count")
    assert r.returncode == 0, r.stderr
    header, *rows = (line.split() for line in r.stdout.splitlines())
    assert header == ["area", "server", "client", "both", "-", "all"], header
    total = dict(zip(header[1:], map(int, rows[-1][1:])))
    assert total["server"] + total["both"] >= 180 and total["client"] + total["both"] >= 70, total
    assert [sum(int(row[i]) for row in rows[:-1]) for i in range(1, 6)] == list(total.values())


def test_table():
    """Each clause of the document becomes one line that a C compiler takes."""
    r = clauses("--c")
    assert r.returncode == 0, r.stderr
    count = int(clauses("--count").stdout.split()[-1])
    lines = r.stdout.splitlines()
    assert len(lines) == count > 0
    form = re.compile(r'CLAUSE\("VU-[A-Z]+-[1-9]\d*", (?:SERVER|CLIENT|BOTH|NONE), (?:SPEC|PEERS|OUTBOARD), '
                      r'"(?:[^`"\\]|\\")+"\)')
    for line in lines:
        assert form.fullmatch(line), line


def test_known_text():
    r = of_text(GOOD, "--c")
    assert (r.returncode, r.stderr) == (0, ""), r
    assert r.stdout.splitlines() == [
        'CLAUSE("VU-AB-1", SERVER, SPEC, "One thing that says \\"yes\\", as VU-AB-2 does, on two lines.")',
        'CLAUSE("VU-AB-2", NONE, PEERS, "Another.")',
        'CLAUSE("VU-C-1", BOTH, OUTBOARD, "A \\\\ third.")',
    ], r.stdout
    assert of_text(GOOD, "--count").stdout.splitlines()[-1].split() == ["all", "1", "0", "1", "1", "3"]


def test_what_breaks_the_form():
    """Each of these changes is found, in the line where it was made."""
    for old, new, line, complaint in [
            ("`server`", "`servers`", 5, "binds"),
            ("`spec`", "`rumour`", 5, "comes from"),
            ("`spec`: One", "`spec` One", 5, "has to be"),
            ("VU-AB-2**", "VU-AB-3**", 7, "no gaps"),
            ("VU-AB-2**", "VU-AB-1**", 7, "no gaps"),
            ("VU-AB-2**", "VU-AB-02**", 7, "no gaps"),
            ("VU-AB-2** ", "VU-AB-2**  ", 7, "has to be"),
            ("- **VU-AB-2", "  - **VU-AB-2", 7, "has to be"),
            ("  on two lines", "on two lines", 6, "not indented"),
            ("VU-AB-2 does", "VU-AB-4 does", 5, "no such clause"),
            ("Another.", "Another", 7, "full stop"),
            ("### VU-C: the", "### VU-C the", 11, "heading"),
            ("### VU-C: the", "### VU-D: the", 13, "is not below"),
            ("### VU-C: the", "### VU-AB: the", 11, "a second time"),
    ]:
        assert GOOD.count(old) == 1, old
        r = of_text(GOOD.replace(old, new), "--c")
        assert r.returncode == 1 and r.stdout == "", (new, r)
        assert any(f":{line}: " in error and complaint in error for error in r.stderr.splitlines()), (new, r.stderr)
    for text in ("", "# No clauses\n", "### VU-A: empty\n"):
        assert of_text(text).returncode == 1, text


def test_citations():
    """What code, tests and pages name exists."""
    folders = [ROOT / name for name in ("src", "include", "devices", "tools", "tests", "docs", "examples", "bench")]
    this = pathlib.Path(__file__).resolve()
    with tempfile.TemporaryDirectory(prefix="outboard-clauses-") as folder:
        here = pathlib.Path(folder) / "code.c"
        here.write_text("/* VU-MAP-3 */\n\n/* VU-MAP-99999 */\n", encoding="utf-8")
        r = clauses("--cited", folder)
        assert r.returncode == 1 and "code.c:3: VU-MAP-99999" in r.stderr and "VU-MAP-3 " not in r.stderr, r
    r = clauses("--cited", *folders)
    wrong = [line for line in r.stderr.splitlines() if not line.startswith(f"{this}:")]
    assert not wrong, "\n".join(wrong)


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    print(f"1..{len(tests)}")
    failed = False
    for number, test in enumerate(tests, 1):
        try:
            test()
            print(f"ok {number} - {test.__name__}")
        except AssertionError as error:
            failed = True
            print(f"not ok {number} - {test.__name__}")
            print("".join(f"# {line}\n" for line in str(error).splitlines()), end="")
    return 1 if failed else 0


sys.exit(main())
