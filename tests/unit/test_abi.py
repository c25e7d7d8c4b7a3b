#!/usr/bin/env python3
"""test_abi: the library's interface is the one that tests/unit/abi/ records: exported symbols with their versions, the
functions and macros that the public headers declare, the values of their enumerations, the size of every structure and
the offset and size of each of its members. Whatever changes one of these can break a program that is not built again.

Usage: test_abi.py [--update] LIBRARY COMPILER...; it speaks TAP. An intended change is recorded by
`ninja -C BUILD abi-update`, which runs it with --update; docs/stability.md says which changes may be intended.
"""
import difflib
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = ROOT / "include"
RECORD = ROOT / "tests/unit/abi/outboard-0.1.txt"
EXPORTED = '__attribute__((visibility("default")))'


def run(*command):
    r = subprocess.run(command, check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE)
    assert r.returncode == 0, f"{shlex.join(map(str, command))}:\n{r.stderr}"
    return r.stdout


class Interface:
    """What a program can see of the library, as compiled on this machine."""

    def __init__(self, library, compiler):
        self.headers = sorted(header.relative_to(INCLUDE).as_posix() for header in INCLUDE.glob("outboard/*.h"))
        assert self.headers, "there are no public headers"
        self.versions = read_versions(library)
        with tempfile.TemporaryDirectory(prefix="outboard-abi-") as folder:
            source, self.object = pathlib.Path(folder) / "all.c", pathlib.Path(folder) / "all.o"
            source.write_text("".join(f"#include <{header}>\n" for header in self.headers), encoding="utf-8")
            self.compiler = [*compiler, "-std=gnu17", "-D_GNU_SOURCE", f"-I{INCLUDE}"]
            # Each header stands alone.
            for header in self.headers:
                run(*self.compiler, "-fsyntax-only", "-include", INCLUDE / header, "-xc", "/dev/null")
            self.functions = read_functions(run(*self.compiler, "-E", "-P", source))
            self.macros = read_macros(run(*self.compiler, "-E", "-dD", source))
            run(*self.compiler, "-gdwarf-4", "-O0", "-fno-eliminate-unused-debug-types", "-c", source,
                "-o", self.object)
            self.types = Types(run("readelf", "--wide", "--debug-dump=info", self.object))

    def text(self):
        """The record: one fact a line, in an order that does not depend on that of declarations."""
        lines = ["# The interface of liboutboard: see tests/unit/test_abi.py. Made by: ninja -C BUILD abi-update"]
        lines += ["", "# Functions, each with the version of its symbol"]
        lines += [f"{self.versions.get(name, 'none')}: {text}" for name, text in sorted(self.functions.items())]
        lines += ["", "# Structures: offset, size, member (bytes)"]
        for name, (kind, size, members) in sorted(self.types.structures.items()):
            lines.append(f"{kind} {name}: {size}")
            lines += [f"    {offset:5} {length:5} {member}" for offset, length, member in members]
        lines += ["", "# Enumerators"] + [f"{name} = {value}" for name, value in sorted(self.types.enumerators.items())]
        lines += ["", "# Macros"] + [f"{name} {value}".rstrip() for name, value in sorted(self.macros.items())]
        return "\n".join(lines) + "\n"


def read_versions(library):
    """The exported symbols, name: version."""
    versions = {}
    for line in run("readelf", "--wide", "--dyn-syms", library).splitlines():
        words = line.split()
        if len(words) == 8 and words[4] == "GLOBAL" and words[6] not in ("UND", "ABS"):
            name, _, version = words[7].partition("@@")
            versions[name] = version or "no version"
    return versions


def read_functions(text):
    """The declarations that are marked for export, name: text, from preprocessed headers."""
    functions = {}
    for piece in text.split(EXPORTED)[1:]:
        declaration = " ".join(piece[:piece.index(";")].split())
        declaration = re.sub(r"\s*__attribute__\s*\(\(.*", "", declaration)
        functions[re.search(r"(\w+)\s*\(", declaration)[1]] = declaration
    return functions


def read_macros(text):
    """The macros that public headers define, name and parameters: text."""
    macros, public = {}, False
    for line in text.splitlines():
        marker = re.match(r'# \d+ "([^"]*)"', line)
        if marker:
            public = pathlib.Path(marker[1]).parent == INCLUDE / "outboard"
        macro = re.match(r"#define (OB_\w+(?:\([^)]*\))?) ?(.*)", line)
        if macro and public:
            macros[macro[1]] = re.sub(r" ?## ?", "##", " ".join(macro[2].split()))
    return macros


class Types:
    """Structures, unions and enumerators whose names begin with ob_ or OB_, from what readelf prints of DWARF."""

    def __init__(self, dump):
        self.dies = {}  # offset: (tag, attributes, children)
        parents = []
        die = None
        for line in dump.splitlines():
            start = re.match(r" *<(\w+)><(\w+)>: Abbrev Number: \d+ \((\w+)\)", line)
            if start:
                die = (start[3], {}, [])
                self.dies[int(start[2], 16)] = die
                del parents[int(start[1], 16):]
                if parents:
                    parents[-1][2].append(die)
                parents.append(die)
                continue
            attribute = re.match(r" *<\w+> +(DW_AT_\w+) *: (.*)", line)
            if attribute and die:
                # Versions of readelf differ in what they say of a value's form before it, in parentheses.
                die[1][attribute[1]] = re.sub(r"^(?:\([^()]*\):?\s*)+", "", attribute[2]).strip()
        self.structures, self.enumerators = {}, {}
        for tag, attributes, children in self.dies.values():
            name = attributes.get("DW_AT_name", "")
            kind = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}.get(tag)
            if kind and name.startswith("ob_") and "DW_AT_declaration" not in attributes:
                self.structures[name] = (kind, int(attributes["DW_AT_byte_size"], 0), self.members(children))
            if tag == "DW_TAG_enumerator" and name.startswith("OB_"):
                self.enumerators[name] = int(attributes["DW_AT_const_value"], 0)

    def members(self, children, base=0, prefix=""):
        """(offset, size, name) of each; what is declared without a name of its own is looked into."""
        members = []
        for tag, attributes, _ in children:
            if tag != "DW_TAG_member":
                continue
            offset = base + int(attributes.get("DW_AT_data_member_location", "0").split()[0], 0)
            name = prefix + attributes.get("DW_AT_name", "")
            if "DW_AT_bit_size" in attributes:
                raise AssertionError(f"{name} is a bit-field, whose place this test does not record")
            inner = self.die(attributes)
            if inner[0] in ("DW_TAG_structure_type", "DW_TAG_union_type") and "DW_AT_name" not in inner[1]:
                members += self.members(inner[2], offset, f"{name}." if "DW_AT_name" in attributes else prefix)
            else:
                members.append((offset, self.size(inner), name))
        return members

    def die(self, attributes):
        return self.dies[int(re.match(r"<(?:0x)?([0-9a-f]+)>", attributes["DW_AT_type"])[1], 16)]

    def size(self, die):
        tag, attributes, children = die
        if tag == "DW_TAG_pointer_type":
            return 8  # not every compiler says so; main() has looked
        if tag == "DW_TAG_array_type":
            count = 1
            for _, bound, _ in children:
                length = int(bound["DW_AT_count"], 0) if "DW_AT_count" in bound else None
                count *= int(bound.get("DW_AT_upper_bound", "-1"), 0) + 1 if length is None else length
            return count * self.size(self.die(attributes))
        if "DW_AT_byte_size" in attributes:
            return int(attributes["DW_AT_byte_size"], 0)
        return self.size(self.die(attributes))


def test_record(interface):
    """The interface is the one that is recorded."""
    recorded, found = RECORD.read_text(encoding="utf-8"), interface.text()
    difference = difflib.unified_diff(recorded.splitlines(), found.splitlines(), RECORD.name, "this build", "", "", 1)
    assert recorded == found, "\n".join(difference) + (
        "\nIf docs/stability.md allows the change, record it: ninja -C BUILD abi-update")


def test_exports(interface):
    """Nothing is exported that no public header declares."""
    extra = set(interface.versions) - set(interface.functions)
    assert not extra, f"exported, and in no public header: {', '.join(sorted(extra))}"
    assert set(interface.versions.values()) == {"OUTBOARD_0.1"}


def test_reader(interface):
    """What this test reads of the headers is what a compiler says of them."""
    checks = [f"_Static_assert(sizeof({kind} {name}) == {size}, \"{name}\");"
              for name, (kind, size, _) in interface.types.structures.items()]
    for name, (kind, _, members) in interface.types.structures.items():
        for offset, size, member in members:
            checks.append(f"_Static_assert(offsetof({kind} {name}, {member}) == {offset}, \"{name}.{member}\");")
            if size:  # not a flexible array
                checks.append(f"_Static_assert(sizeof((({kind} {name} *)0)->{member}) == {size}, \"{name}.{member}\");")
    assert len(checks) > 100, "hardly any structure was read"
    checks += [f"_Static_assert({name} == {value}, \"{name}\");" for name, value in interface.types.enumerators.items()]
    includes = ["#include <stddef.h>"] + [f"#include <{header}>" for header in interface.headers]
    with tempfile.TemporaryDirectory(prefix="outboard-abi-") as folder:
        source = pathlib.Path(folder) / "checks.c"
        source.write_text("\n".join(includes + checks) + "\n", encoding="utf-8")
        run(*interface.compiler, "-fsyntax-only", source)


def main():
    arguments = sys.argv[1:]
    update = arguments[:1] == ["--update"]
    if len(arguments) < 2 + update:
        sys.exit(__doc__)
    library, *compiler = arguments[update:]
    if "#define __SIZEOF_POINTER__ 8" not in run(*compiler, "-E", "-dM", "-xc", "/dev/null"):
        print("1..0 # SKIP the record is that of machines with pointers of 8 bytes")
        return 0
    interface = Interface(library, compiler)
    if update:
        RECORD.write_text(interface.text(), encoding="utf-8")
        print(f"{RECORD.relative_to(ROOT)} is up to date")
        return 0
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    print(f"1..{len(tests)}")
    failed = False
    for number, test in enumerate(tests, 1):
        try:
            test(interface)
            print(f"ok {number} - {test.__name__}")
        except AssertionError as error:
            failed = True
            print(f"not ok {number} - {test.__name__}")
            print("".join(f"# {line}\n" for line in str(error).splitlines()), end="")
    return 1 if failed else 0


sys.exit(main())
