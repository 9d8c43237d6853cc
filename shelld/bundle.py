"""The bundle that shelld runs from in images that have no Python: its layout, and how it gets there.

Run as a program by the bundle's interpreter, `bundle.py TARGET` copies the bundle into a directory.
That is what an init container does, as root or not, in an image without a shell.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory as `deploy.bundle` makes it."""

    root: Path

    @property
    def loader(self) -> Path:
        return self.root / "lib" / "ld.so"

    def run(self, program: Path, *, preload: Sequence[Path] = ()) -> list[str]:
        """Return the start of the argv that runs a program of the bundle by the bundle's libraries.

        The program sees its own path as argv[0]. No environment variable is needed, so its children
        inherit none.
        """
        loaded = ["--preload", ":".join(map(str, preload))] if preload else []
        return [str(self.loader), "--library-path", str(self.root / "lib"), *loaded, str(program)]

    @property
    def sftp_server(self) -> Path:
        return self.root / "libexec" / "sftp-server"

    @property
    def nss_wrapper(self) -> Path:
        """nss_wrapper(1): answers for passwd and group out of files of our choice."""
        return self.root / "lib" / "libnss_wrapper.so"


def find(module: Path = Path(__file__)) -> Bundle | None:
    """Return the bundle that this shelld is part of; None for one that a machine's Python runs."""
    root = module.resolve().parent.parent.parent
    bundle = Bundle(root)
    return bundle if root.joinpath("app") in module.resolve().parents and bundle.loader.is_file() else None


def keep_to_files() -> None:
    """Have this process and its forks look accounts up in files and hosts in files and DNS, nowhere else.

    The workspace's nsswitch.conf may name modules, which the bundle's libc would load from the workspace's
    libraries: made for another libc, and possibly the end of this process.
    """
    configure = getattr(ctypes.CDLL(None), "__nss_configure_lookup", None)
    if configure is not None:  # glibc's; musl reads nothing but files
        for database, services in (("passwd", "files"), ("group", "files"), ("hosts", "files dns")):
            configure(database.encode(), services.encode())


def install(source: Path, target: Path) -> None:
    """Copy a bundle into a directory that exists; what lies there from an earlier try is replaced.

    Modes are set whatever the umask says: the copying account may not be the one that runs it.
    """
    for directory, names, files in os.walk(source):
        there = target / os.path.relpath(directory, source)
        _make_directories(there / name for name in names)
        for name in files:
            _copy(os.path.join(directory, name), os.path.join(there, name))


def _make_directories(paths: Iterable[Path]) -> None:
    for path in paths:
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def _copy(source: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)


def main() -> None:
    """Copy the bundle to the directory named by the only argument."""
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: bundle.py DIRECTORY (one that exists)")
    found = find()
    if found is None:
        sys.exit("bundle.py: this shelld is not part of a bundle")
    try:
        install(found.root, Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"bundle.py: {error.filename or sys.argv[1]}: {error.strerror}")


if __name__ == "__main__":
    main()
