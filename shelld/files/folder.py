"""The files below one folder, by paths of any bytes. A path that leads out of the folder is not there.

A file that is stored appears under its name when it is complete, and replaces another only when asked to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAX_NAME_BYTES = 255
MAX_ENTRIES = 5_000
"""Entries of a folder that are listed; more are counted only."""


class FolderError(Exception):
    """A request that cannot be carried out: a status of HTTP, and a sentence without full stop."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder."""

    name: bytes
    is_folder: bool
    """Also for a link that leads to one."""
    size: int
    modified_s: float
    link: bytes | None
    """The target of a symbolic link, as it is written."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a folder: folders first, by name."""

    entries: list[Entry]
    left_out: int


class Folder:
    """A folder and all below it."""

    def __init__(self, root: bytes) -> None:
        """Take an absolute path. Raises: OSError."""
        self._root = os.path.realpath(root, strict=True)
        self._below = self._root.rstrip(b"/") + b"/"

    # -------------------------------------------------------------------------------- reading

    def find(self, path: bytes) -> bytes:
        """Return the real path of a file or folder, by its path in the address. Raises: FolderError, OSError.

        Links are followed as long as they stay in the folder.
        """
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in path:
            raise FolderError(400, "this path is not possible")
        real = os.path.realpath(os.path.join(self._root, *parts), strict=True)
        if real != self._root and not real.startswith(self._below):
            raise FolderError(403, "this link leads out of the folder that is shown")
        return real

    def list(self, path: bytes) -> Listing:
        """List a folder. Raises: FolderError, OSError."""
        entries: list[Entry] = []
        left_out = 0
        with os.scandir(self.find(path)) as found:
            for one in found:
                if len(entries) < MAX_ENTRIES:
                    entries.append(_entry(one))
                else:
                    left_out += 1
        entries.sort(key=lambda one: (not one.is_folder, one.name.lower(), one.name))
        return Listing(entries, left_out)

    def open(self, path: bytes) -> int:
        """Open a regular file for reading; return the descriptor. Raises: FolderError, OSError."""
        # A named pipe must not hold us up.
        file = os.open(self.find(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FolderError(403, "this is no regular file")
        return file

    def is_folder(self, path: bytes) -> bool:
        """Tell whether the path is a folder. Raises: FolderError, OSError."""
        return os.path.isdir(self.find(path))

    # ------------------------------------------------------------------------------- changing

    def store(self, path: bytes, name: bytes, content: Iterable[bytes], *, replaces: bool) -> None:
        """Store a file in a folder; nothing is left of one whose content ends in an error.

        Raises: FolderError 409 where the name is taken and `replaces` is false, without reading the content;
            FolderError, OSError; what `content` raises.
        """
        check_name(name)
        folder = self.find(path)
        target = os.path.join(folder, name)
        mode = _mode_of_replaced(target, replaces=replaces)
        part = os.path.join(folder, b".%b.upload" % secrets.token_hex(8).encode())
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            try:
                if mode is not None:
                    os.fchmod(file, mode)
                for piece in content:
                    _write_all(file, piece)
            finally:
                os.close(file)
            if replaces:
                os.replace(part, target)
            else:
                _publish(part, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    def make_folder(self, path: bytes, name: bytes) -> None:
        """Make a folder. Raises: FolderError, OSError."""
        check_name(name)
        os.mkdir(os.path.join(self.find(path), name))

    def remove(self, path: bytes) -> None:
        """Remove a file, a link (not its target) or an empty folder. Raises: FolderError, OSError."""
        parent, _, name = path.strip(b"/").rpartition(b"/")
        check_name(name)
        target = os.path.join(self.find(parent), name)
        if stat.S_ISDIR(os.lstat(target).st_mode):
            os.rmdir(target)
        else:
            os.unlink(target)


def check_name(name: bytes) -> None:
    """Refuse a text that cannot name a file. Raises: FolderError."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > MAX_NAME_BYTES:
        raise FolderError(400, f"a name has 1 to {MAX_NAME_BYTES} bytes without /, and is neither . nor ..")


def _entry(one: os.DirEntry[bytes]) -> Entry:
    size, modified_s, link, is_folder = 0, 0.0, None, False
    with contextlib.suppress(OSError):  # it is gone by now, or may not be looked at
        known = one.stat(follow_symlinks=False)
        size, modified_s = known.st_size, known.st_mtime
        if one.is_symlink():
            link = os.readlink(one.path)
        is_folder = one.is_dir()
    return Entry(one.name, is_folder, size, modified_s, link)


def _mode_of_replaced(target: bytes, *, replaces: bool) -> int | None:
    """Return the permissions of the file that is to be replaced; None for a new one. Raises: FolderError."""
    try:
        there = os.lstat(target)
    except FileNotFoundError:
        return None
    if not replaces:
        raise FolderError(409, "there is something of this name already")
    if not stat.S_ISREG(there.st_mode):
        raise FolderError(409, "what has this name is no regular file, and is not replaced")
    return stat.S_IMODE(there.st_mode)


def _publish(part: bytes, target: bytes) -> None:
    """Give a complete file its name unless it is taken. Raises: FolderError, OSError."""
    try:
        os.link(part, target, follow_symlinks=False)
    except FileExistsError:
        raise FolderError(409, "there is something of this name already") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES):
            raise
        # A file system without hard links: the name is taken first, then its content is put in its place.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(part, target)


def _write_all(file: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]
