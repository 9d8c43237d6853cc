"""Somewhere that recordings are kept: what every store promises."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from proxy.recording.manifest import Place


class StorageError(Exception):
    """The store did not do what was asked, now; it may later. Its text is for the log."""


class Store(Protocol):
    """A directory or a bucket. Safe to call from many tasks and many proxies; knows no deadlines of its own.

    Every method may raise StorageError.
    """

    async def append(self, place: Place, number: int, offset: int, block: bytes) -> None:
        """Keep block `number` (from 1), which begins at byte `offset` of the body; it is safe on return.

        Doing it again, with the same bytes, is harmless: that is how a failed attempt is mended.
        """

    async def finish(self, place: Place) -> None:
        """Note that no block follows. Doing it again is harmless."""

    async def put_manifest(self, place: Place, content: bytes) -> None:
        """Keep the manifest instead of the one before: whole or not at all."""

    async def manifest(self, day: str, recording: str) -> bytes | None:
        """Give a manifest; None when there is none."""

    def read(self, place: Place) -> AsyncIterator[bytes]:
        """Give the body in order, in pieces of any size, as far as it is stored, which may be not at all."""

    async def days(self) -> Sequence[str]:
        """List the days of which there are recordings, the oldest first."""

    async def ids(self, day: str, prefix: str = "") -> Sequence[str]:
        """List the recordings of a day that have a manifest and begin with `prefix`, in order."""

    async def delete(self, place: Place) -> None:
        """Take away body, then manifest; what is gone already is no error."""

    async def close(self) -> None:
        """Let go of connections and threads; what hangs is left to itself."""
