"""Make the bundle out of the running machine: its interpreter, its libraries, pinned packages.

No processor or distribution is named: what to copy is asked of the interpreter and of `ldd`. Every
step is a function of paths, and the last one runs the result in a root of its own.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("grpcio", "protobuf", "typing-extensions", "uvloop")
"""What shelld imports, and what those import; the versions and hashes are the lock file's."""

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
)

NSS_WRAPPER = "libnss_wrapper.so"
"""Lets `sftp-server`, which insists on a passwd entry, serve a uid that has none."""

UNUSED_MODULES = frozenset(
    {
        # programs and their parts
        *("idlelib", "tkinter", "turtle.py", "turtledemo", "lib2to3", "pydoc.py", "pydoc_data", "pdb.py"),
        *("ensurepip", "venv", "distutils", "site-packages", "dist-packages", "sitecustomize.py"),
        # tests
        *("test", "unittest", "doctest.py", "__phello__", "__phello__.foo.py"),
        # formats, databases and protocols that no server of programs speaks
        *("curses", "dbm", "sqlite3", "xmlrpc", "wsgiref", "mailbox.py", "imaplib.py", "nntplib.py"),
        *("multiprocessing", "tomllib", "xml", "zoneinfo"),
        *("smtplib.py", "smtpd.py", "poplib.py", "telnetlib.py", "ftplib.py", "cgi.py", "cgitb.py"),
        *("webbrowser.py", "antigravity.py", "this.py", "__pycache__"),
    }
)
UNUSED_EXTENSIONS = re.compile(
    r"_test|xx|_tkinter|_curses|_sqlite3|_dbm|_gdbm|readline|nis\.|ossaudiodev|_codecs_"
)
KEPT_ENCODINGS = re.compile(
    r"(__init__|aliases|ascii|charmap|cp437|idna|latin_1|punycode|(raw_)?unicode_escape|utf_.*)\.py"
)
UNUSED_SUFFIXES = frozenset({".pyi", ".pyx", ".pxd", ".pxi", ".proto", ".c", ".h", ".a", ".o", ".pyc"})

_LDD_FOUND = re.compile(r"^\s*(?:\S+ => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")
_LDD_MISSING = re.compile(r"^\s*(?P<name>\S+) => not found$")
_LOCKED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==")


class BundleError(Exception):
    """The bundle cannot be made here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much a bundle holds, in bytes and in files."""

    octets: int
    files: int


def make(output: Path, source: Path) -> Size:
    """Make a bundle at `output` from a checkout at `source` and the machine that this runs on.

    Raises: BundleError.
    """
    if output.exists():
        raise BundleError(f"{output} exists already")
    app = output / "app"
    copy_standard_library(output)
    copy_program(source, app)
    install_packages(source / "requirements.lock", app)
    copy_programs(output)
    strip(output)
    copy_libraries(output)
    compile_modules(output)
    open_to_everybody(output)
    try_out(output)
    return measure(output)


def copy_standard_library(output: Path) -> None:
    """Copy the interpreter's library without what shelld has no use for."""
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, output / "lib" / library.name, ignore=_unused)


def _unused(directory: str, names: list[str]) -> set[str]:
    inside = os.path.basename(directory)
    return {
        name
        for name in names
        if name in UNUSED_MODULES
        or name.startswith("config-")
        or os.path.splitext(name)[1] in UNUSED_SUFFIXES
        or (inside == "lib-dynload" and UNUSED_EXTENSIONS.match(name))
        or (inside == "encodings" and not KEPT_ENCODINGS.fullmatch(name))
    }


def copy_program(source: Path, app: Path) -> None:
    """Copy shelld and the wire; `__main__.py` makes the directory a program."""
    for package in ("shelld", "protos"):
        shutil.copytree(source / package, app / package, ignore=_unused)
    (app / "__main__.py").write_text("from shelld.__main__ import main\n\nmain()\n")


def locked(lock: str, names: Iterable[str]) -> str:
    """Return the part of a lock file that pins `names`, hashes included; pure.

    Raises: BundleError for a name that is not locked.
    """
    wanted = set(names)
    kept: list[str] = []
    keeping = False
    for line in lock.splitlines():
        if found := _LOCKED.match(line):
            keeping = found["name"] in wanted
            wanted.discard(found["name"])
        if keeping:
            kept.append(line)
    if wanted:
        raise BundleError(f"the lock file does not name {', '.join(sorted(wanted))}")
    return "\n".join(kept) + "\n"


def install_packages(lock: Path, app: Path) -> None:
    """Install the pinned packages, as wheels whose hashes the lock file has."""
    requirements = app.parent / "requirements.txt"
    requirements.write_text(locked(lock.read_text(), PACKAGES))
    quiet = ("--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-compile")
    how = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir")
    made = app.parent / "packages"
    _run(
        [sys.executable, "-m", "pip", "install", *quiet, *how, "--target", str(made), "-r", str(requirements)]
    )
    shutil.copytree(made, app, ignore=_unused, dirs_exist_ok=True)
    shutil.rmtree(made)
    requirements.unlink()


def copy_programs(output: Path) -> None:
    """Copy the interpreter and `sftp-server`, under names that hold on every machine."""
    (output / "bin").mkdir()
    (output / "libexec").mkdir()
    shutil.copy(Path(sys.executable).resolve(), output / "bin" / "python3")
    sftp_server = next((path for path in SFTP_SERVERS if os.path.isfile(path)), None)
    if sftp_server is None:
        raise BundleError("no sftp-server on this machine; Debian's package is openssh-sftp-server")
    shutil.copy(sftp_server, output / "libexec" / "sftp-server")
    wrapper = next(Path("/usr").glob(f"lib*/**/{NSS_WRAPPER}"), None)
    if wrapper is None:
        raise BundleError(f"no {NSS_WRAPPER} on this machine; Debian's package is libnss-wrapper")
    shutil.copy(wrapper.resolve(), output / "lib" / NSS_WRAPPER)


def strip(output: Path) -> None:
    """Drop symbols that only a debugger reads: most of some wheels."""
    if shutil.which("strip") is None:
        raise BundleError("no strip on this machine; Debian's package is binutils")
    for path in binaries(output):
        path.chmod(0o755)
        _run(["strip", "--strip-unneeded", str(path)])


def binaries(output: Path) -> Iterator[Path]:
    """Find every ELF file of a tree."""
    for path in sorted(output.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def copy_libraries(output: Path) -> None:
    """Copy the loader and every library that anything in the bundle needs, directly or not."""
    loader = None
    for binary in list(binaries(output)):
        for needed in needed_by(_output_of(["ldd", str(binary)]), str(binary)):
            if needed.name.startswith("ld-") or needed.name.startswith("ld64"):
                loader = needed
            elif not (target := output / "lib" / needed.name).exists():
                shutil.copy(needed.resolve(), target)
    if loader is None:
        raise BundleError("the interpreter names no loader: it is linked statically")
    shutil.copy(loader.resolve(), output / "lib" / "ld.so")


def needed_by(listing: str, binary: str) -> list[Path]:
    """Return the files that `ldd` names, the loader included; pure.

    Raises: BundleError for a library that is nowhere.
    """
    found = []
    for line in listing.splitlines():
        if missing := _LDD_MISSING.match(line):
            raise BundleError(f"{binary} needs {missing['name']}, which this machine has not")
        if match := _LDD_FOUND.match(line):
            found.append(Path(match["path"]))
    return found


def compile_modules(output: Path) -> None:
    """Compile every module, valid independently of the clocks of the copies."""
    compiled = compileall.compile_dir(
        output,
        quiet=2,
        workers=0,
        stripdir=str(output),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        raise BundleError("a module of the bundle cannot be compiled")


def open_to_everybody(output: Path) -> None:
    """Let every account read and enter everything, and only the owner write."""
    for path in (output, *output.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)


_IMPORT_ALL = """\
import sys; sys.path.insert(0, "/opt/app")
import uvloop, shelld.app, shelld.launch.launcher, shelld.__main__, shelld.files.server
"Grüße.example".encode("idna")
"""


def try_out(output: Path) -> None:
    """Start shelld in a root that holds nothing but the bundle: all that it needs must be in it."""
    with tempfile.TemporaryDirectory(dir=output.parent) as root:
        # Not at the root itself: an interpreter does not look for its library there.
        shutil.copytree(output, Path(root, "opt"), copy_function=os.link)
        python = ["/opt/lib/ld.so", "--library-path", "/opt/lib", "/opt/bin/python3", "-I", "-S"]
        _run(["chroot", root, *python, "/opt/app", "--version"])
        _run(["chroot", root, *python, "-c", _IMPORT_ALL])


def measure(output: Path) -> Size:
    """Add up what a bundle holds."""
    sizes = [path.lstat().st_size for path in output.rglob("*") if not path.is_dir()]
    return Size(sum(sizes), len(sizes))


def _run(command: list[str]) -> None:
    _output_of(command)


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or "it said nothing"
        raise BundleError(f"`{' '.join(command[:4])} …` ended with status {done.returncode}: {said}")
    return done.stdout
