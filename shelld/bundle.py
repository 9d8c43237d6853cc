"""The bundle that contains shelld for images without Python: its layout and its installation.

Run as a program by the bundle's interpreter, `bundle.py TARGET` copies the bundle into a directory. An init
container does so, as root or not, in an image without a shell.
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
    """A directory in the layout of `deploy.bundle`."""

    root: Path

    @property
    def loader(self) -> Path:
        """Return the dynamic loader of the bundle."""
        return self.root / "lib" / "ld.so"

    def run(self, program: Path, *, preload: Sequence[Path] = ()) -> list[str]:
        """Return the start of an argv that runs a program of the bundle with the bundle's libraries.

        The program sees its own path as argv[0]. No environment variable is needed, so its children
        inherit none.
        """
        loaded = ["--preload", ":".join(map(str, preload))] if preload else []
        return [str(self.loader), "--library-path", str(self.root / "lib"), *loaded, str(program)]

    @property
    def sftp_server(self) -> Path:
        """Return the sftp server of the bundle."""
        return self.root / "libexec" / "sftp-server"

    @property
    def nss_wrapper(self) -> Path:
        """Return nss_wrapper(1), a library that reads passwd and group from configured files."""
        return self.root / "lib" / "libnss_wrapper.so"


def find(module: Path = Path(__file__)) -> Bundle | None:
    """Return the bundle of this shelld; None when a machine's Python runs it."""
    root = module.resolve().parent.parent.parent
    bundle = Bundle(root)
    return bundle if root.joinpath("app") in module.resolve().parents and bundle.loader.is_file() else None


def own_program(module: str) -> list[str]:
    """Return the start of an argv that runs `main` of a module of shelld in an interpreter of its own.

    The interpreter and the modules are those of this process: no file of the workspace is needed.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    options = ["-I", "-S", "-c", code]
    bundle = find()
    if bundle is None:
        return [sys.executable, *options]
    return [*bundle.run(bundle.root / "bin" / "python3"), *options]


def keep_to_files() -> None:
    """Limit look-ups of this process and its forks: accounts in files, hosts in files and DNS, nothing else.

    The workspace's nsswitch.conf may name modules. The bundle's libc would load them from the workspace's
    libraries: made for another libc, they could crash this process.
    """
    configure = getattr(ctypes.CDLL(None), "__nss_configure_lookup", None)
    if configure is not None:  # glibc's; musl reads files only
        for database, services in (("passwd", "files"), ("group", "files"), ("hosts", "files dns")):
            configure(database.encode(), services.encode())


def install(source: Path, target: Path) -> None:
    """Copy a bundle into an existing directory; remains of an earlier attempt are replaced.

    Modes are set independent of the umask: the copying account may not be the one that runs it.
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
