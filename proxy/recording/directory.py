"""Recordings in a directory of this machine, or of a network file system.

    <root>/2026-02-03/<id>.cast        a terminal; `.cast.part` until it has ended
                      <id>.sftp.jsonl  an sftp log, likewise
                      <id>.json        the manifest

Directories have mode 0700, files 0600.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from proxy.recording.manifest import Format, Place
from proxy.recording.store import StorageError
from proxy.recording.threads import Threads

_T = TypeVar("_T")

SUFFIXES: dict[Format, str] = {"asciicast-2": ".cast", "sftp-log-1": ".sftp.jsonl", "": ""}
_PART = ".part"
_MANIFEST = ".json"
_READ_BYTES = 256 * 1024
_THREADS = 4


class DirectoryStore:
    """A store in a directory. A disk that hangs blocks four threads and nothing else."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads("recordings", count=_THREADS, queue_size=4_096)

    async def append(self, place: Place, number: int, offset: int, block: bytes) -> None:
        """Store a block; it is on the disk before this returns."""
        await self._do(lambda: _write_at(self._body(place), offset, block, create=number == 1))

    async def finish(self, place: Place) -> None:
        """Rename the body: it has ended."""
        if place.format:
            await self._do(lambda: _rename(self._body(place), self._body(place, ended=True)))

    async def put_manifest(self, place: Place, content: bytes) -> None:
        """Replace the manifest atomically."""
        await self._do(lambda: _replace(self._file(place.day, place.id + _MANIFEST), content))

    async def manifest(self, day: str, recording: str) -> bytes | None:
        """Read a manifest."""
        return await self._do(lambda: _read_if_there(self._file(day, recording + _MANIFEST)))

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        """Yield the body in pieces."""
        if (body := await self._do(lambda: self._open(place))) is None:
            return
        with body:
            while piece := await self._do(lambda: body.read(_READ_BYTES)):
                yield piece

    async def days(self) -> Sequence[str]:
        """List the day directories."""
        return await self._do(lambda: sorted(_names(self._root)))

    async def ids(self, day: str, prefix: str = "") -> Sequence[str]:
        """List the manifests of a day."""
        names = await self._do(lambda: _names(self._root / _plain(day)))
        ids = (name.removesuffix(_MANIFEST) for name in names if name.endswith(_MANIFEST))
        return sorted(one for one in ids if one.startswith(prefix))

    async def delete(self, place: Place) -> None:
        """Delete body, then manifest, then an empty day directory."""
        await self._do(lambda: self._unlink(place))

    async def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()

    async def _do(self, call: Callable[[], _T]) -> _T:
        try:
            return await self._threads.run(call)
        except OSError as exc:
            raise StorageError(str(exc)) from exc

    def _file(self, day: str, name: str) -> Path:
        return self._root / _plain(day) / _plain(name)

    def _body(self, place: Place, *, ended: bool = False) -> Path:
        return self._file(place.day, place.id + SUFFIXES[place.format] + ("" if ended else _PART))

    def _open(self, place: Place) -> BinaryIO | None:
        if not place.format:
            return None
        for ended in (True, False, True):  # it may be renamed between two attempts
            with suppress(FileNotFoundError):
                return self._body(place, ended=ended).open("rb")
        return None

    def _unlink(self, place: Place) -> None:
        names = [self._file(place.day, place.id + _MANIFEST)]
        if place.format:
            names = [self._body(place), self._body(place, ended=True), *names]
        for name in names:
            name.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: other recordings of that day
            (self._root / _plain(place.day)).rmdir()


def _plain(name: str) -> str:
    """Return a name that stays in its directory. Raises: StorageError."""
    if "/" in name or "\0" in name or name.startswith("."):
        raise StorageError(f"{name!r} is not the name of a recording")
    return name


def _write_at(file: Path, offset: int, block: bytes, *, create: bool) -> None:
    """Write a block at its own offset, over the remains of a failed attempt."""
    if create:
        _make(file.parent)
    descriptor = os.open(file, os.O_WRONLY | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(block)
        while view:
            written = os.pwrite(descriptor, view, offset)
            offset += written
            view = view[written:]
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _make(day: Path) -> None:
    day.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    day.mkdir(mode=0o700, exist_ok=True)


def _rename(part: Path, ended: Path) -> None:
    with suppress(FileNotFoundError):  # done before, or nothing was ever written
        part.rename(ended)


def _replace(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.new")
    _write_at(draft, 0, content, create=True)
    os.truncate(draft, len(content))
    draft.replace(file)


def _read_if_there(file: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return None


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir() if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
