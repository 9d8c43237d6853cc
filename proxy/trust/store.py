"""Storage of trust: one value that many proxies share. A file here; with Kubernetes a Secret."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proxy.errors.upstream import TrustError


@dataclass(frozen=True, slots=True)
class StoredTrust:
    """A stored value and its version."""

    data: bytes
    version: str


class TrustStore(Protocol):
    """A store of one value that detects concurrent writes.

    Every method raises TrustError when the value is not available.
    """

    async def load(self) -> StoredTrust | None:
        """Return the value; None when none was written yet."""

    async def create(self, data: bytes) -> bool:
        """Write the first value; return False when there is one already."""

    async def replace(self, data: bytes, version: str) -> bool:
        """Replace the version that was read; return False when it is no longer the current one."""


class FileTrustStore:
    """A file of mode 0600, for one machine; a lock on it serialises processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> StoredTrust | None:
        """Return the value in the file; None when there is no file."""
        return await asyncio.to_thread(self._load)

    async def create(self, data: bytes) -> bool:
        """Write the file if it does not exist."""
        return await asyncio.to_thread(self._write, data, None)

    async def replace(self, data: bytes, version: str) -> bool:
        """Replace the content of the file if its version is the given one."""
        return await asyncio.to_thread(self._write, data, version)

    def _load(self) -> StoredTrust | None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise TrustError(f"{self._path}: {exc.strerror}") from exc
        return StoredTrust(data, hashlib.sha256(data).hexdigest())

    def _write(self, data: bytes, over: str | None) -> bool:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self._path.with_name(self._path.name + ".lock")):
                found = self._load()
                if (found.version if found else None) != over:
                    return False
                fresh = self._path.with_name(self._path.name + ".new")
                descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                fresh.replace(self._path)
        except OSError as exc:
            raise TrustError(f"{self._path}: {exc.strerror}") from exc
        return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
