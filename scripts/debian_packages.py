"""Fetches Debian packages with the machine's own apt and unpacks them into a cache, installing nothing.

What the tests need from another Debian release than the machine's (a QEMU that speaks vfio-user, a guest kernel) comes
from the mirror that the machine already uses. apt runs on a configuration and a state of its own, so it neither needs
root nor changes the machine, and it checks signatures as always, with the keyring of the machine's Debian.

A cache entry is built in a temporary folder beside it, under a lock, and renamed into place when it is complete: a
half-done entry is never seen, and a run that finds another one building waits for it.
"""

import contextlib
import fcntl
import glob
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
RELEASE = "trixie"
BACKPORTS = "trixie-backports"


class Unavailable(Exception):
    """Something cannot be had here; the text says what is missing and what to do."""


def cache_folder():
    """The folder for everything that takes long to get; made if missing."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = pathlib.Path(os.environ.get("OUTBOARD_CACHE") or os.path.join(home, "outboard")).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot make the cache folder {folder} ({error.strerror}); set OUTBOARD_CACHE") from error
    return folder


def cached(name, build):
    """The path of cache entry `name`; if missing, `build(folder)` fills an empty folder that becomes it."""
    cache = cache_folder()
    entry = cache / name
    if entry.is_dir():
        return entry
    with open(cache / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if entry.is_dir():
            return entry
        for stale in cache.glob(f"{name}.partial-*"):  # of a run that was killed: we hold the lock
            shutil.rmtree(stale)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=cache))
        try:
            partial.chmod(0o755)
            build(partial)
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return entry


def _stanzas(text):
    """The fields of each paragraph of a deb822 file, names in lower case."""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields, name = {}, None
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def _entries():
    """(URI, suite) of every enabled binary package source of this machine."""
    etc = "/etc/apt"
    for path in sorted(glob.glob(f"{etc}/sources.list.d/*.sources")):
        for fields in _stanzas(pathlib.Path(path).read_text(encoding="utf-8")):
            if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
                continue
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield uri, suite
    for path in [f"{etc}/sources.list", *sorted(glob.glob(f"{etc}/sources.list.d/*.list"))]:
        if not os.path.exists(path):
            continue
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
            match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)", line)
            if match:
                yield match.groups()


def mirror():
    """The URI of the mirror that this machine gets its own Debian release from."""
    release = {}
    for line in pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        release[name] = value.strip('"')
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian":
        raise Unavailable(f"this machine runs {release.get('PRETTY_NAME', 'an unknown system')}; "
                          "packages can be fetched on Debian 12 or later only")
    for uri, suite in _entries():
        if codename and suite == codename:
            return uri
    raise Unavailable(f"no package source for {codename or 'this release'} in /etc/apt/sources.list or "
                      "/etc/apt/sources.list.d; add the Debian mirror you use")


def _run(command, what):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env={**os.environ, "LC_ALL": "C"}, text=True, errors="replace", check=False)
    if result.returncode != 0:
        raise Unavailable(f"{what} failed:\n{result.stdout[-2000:]}")
    return result.stdout


class Apt:
    """apt with a state of its own in a temporary folder, for the releases in `suites` (first: preferred)."""

    def __init__(self, suites):
        self.suites = suites

    def __enter__(self):
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise Unavailable(f"{tool} is not here; packages can be fetched on Debian 12 or later only")
        architecture = _run(["dpkg", "--print-architecture"], "dpkg --print-architecture").strip()
        if architecture != "amd64":
            raise Unavailable(f"this machine is {architecture}; test guests run on amd64 only")
        if not os.access(KEYRING, os.R_OK):
            raise Unavailable(f"{KEYRING} is missing; install the package debian-archive-keyring")
        uri = mirror()
        self.folder = tempfile.TemporaryDirectory(prefix="apt-", dir=cache_folder())
        folder = pathlib.Path(self.folder.name)
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        sources = [f"deb [signed-by={KEYRING}] {uri} {suite} main\n" for suite in self.suites]
        (folder / "sources.list").write_text("".join(sources), encoding="ascii")
        self.options = [
            "-q", "-o", "APT::Get::Assume-Yes=true", "-o", f"APT::Default-Release={self.suites[0]}",
            "-o", f"Dir::Etc::SourceList={folder}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
            "-o", "Dir::Etc::Preferences=/dev/null", "-o", "Dir::Etc::PreferencesParts=/dev/null",
            "-o", f"Dir::State={folder}", "-o", f"Dir::State::Lists={folder}/lists",
            "-o", f"Dir::State::Status={folder}/status", "-o", f"Dir::Cache={folder}",
            "-o", f"Dir::Cache::Archives={folder}/archives", "-o", "APT::Install-Recommends=false",
            "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3",
        ]
        with contextlib.ExitStack() as on_error:
            on_error.callback(self.folder.cleanup)
            _run(["apt-get", *self.options, "-o", "APT::Update::Error-Mode=any", "update"],
                 f"apt-get update for {', '.join(self.suites)} of the machine's Debian mirror")
            on_error.pop_all()
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def unpack(self, packages, destination, depends):
        """Unpacks `packages`, with all that they depend on if `depends`, into the folder `destination`."""
        archives = pathlib.Path(self.folder.name) / "archives"
        if depends:
            _run(["apt-get", *self.options, "--download-only", "install", *packages], f"fetching {' '.join(packages)}")
        else:
            result = subprocess.run(["apt-get", *self.options, "download", *packages], cwd=archives, text=True,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    errors="replace", check=False)
            if result.returncode != 0:
                raise Unavailable(f"fetching {' '.join(packages)} failed:\n{result.stdout[-2000:]}")
        for archive in sorted(archives.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(archive), str(destination)], f"unpacking {archive.name}")
            archive.unlink()

    def dependency(self, package, pattern):
        """The one package that the metapackage `package` depends on and whose name matches `pattern` in full."""
        shown = _run(["apt-cache", *self.options, "depends", "--important", package], f"looking up {package}")
        found = {name for name in re.findall(r"Depends: (\S+)", shown) if re.fullmatch(pattern, name)}
        if len(found) != 1:
            raise Unavailable(f"{package} depends on {len(found)} packages like {pattern}, not on one")
        return found.pop()
