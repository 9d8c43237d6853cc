"""The interface of stores for recordings."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from proxy.recording.manifest import Place


class StorageError(Exception):
    """The store failed now; a later attempt may succeed. The message is for the log."""


class RecordingStore(Protocol):
    """A directory or a bucket. Safe for many tasks and many proxies; it has no deadlines of its own.

    Every method may raise StorageError.
    """

    async def append(self, place: Place, number: int, offset: int, block: bytes) -> None:
        """Store block `number` (from 1), which begins at byte `offset` of the body; it is safe on return.

        A repetition with the same bytes is harmless: failed attempts are repaired so.
        """

    async def finish(self, place: Place) -> None:
        """Record that no block follows. A repetition is harmless."""

    async def put_manifest(self, place: Place, content: bytes) -> None:
        """Replace the manifest atomically."""

    async def manifest(self, day: str, recording: str) -> bytes | None:
        """Return a manifest; None when there is none."""

    def read(self, place: Place) -> AsyncIterator[bytes]:
        """Yield the body in order, in pieces of any size, as far as it is stored, which may be not at all."""

    async def days(self) -> Sequence[str]:
        """Return the days with recordings, the oldest first."""

    async def ids(self, day: str, prefix: str = "") -> Sequence[str]:
        """Return the recordings of a day that have a manifest and begin with `prefix`, in order."""

    async def delete(self, place: Place) -> None:
        """Delete body, then manifest; missing ones are no error."""

    async def close(self) -> None:
        """Close connections and threads; calls that hang are abandoned."""
