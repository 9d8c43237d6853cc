"""State that replicas share: small values by key, each replica with a full copy in memory.

    reader ──get · keys · watch──▶ BucketCache ◀──every change── the store (this process, or NATS)
    writer ──put · update · delete─────────────────────────────▶ the store ──▶ BucketCache, here and elsewhere

Reading never waits and never fails: it returns the last known value, and `is_live` shows whether that is
current. Writing has a deadline, and raises when the store is not reachable. Suitable for small values that
change slowly compared with logins: bans, live sessions. All of it belongs to one event loop.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from proxy.errors.stores import StateRefused
from proxy.events.publisher import Gap

MAX_KEY = 200
MAX_VALUE_BYTES = 64 * 1024
_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """Name and limits of a bucket; the same on every replica."""

    name: str
    """Letters, digits, `-` and `_`."""
    max_entries: int = 100_000
    """More are refused: what clients can make grow must not fill the memory of every replica."""
    ttl_s: float | None = None
    """Entries expire this long after they were written, unless a `put` gives a shorter time.

    None for never.
    """
    watch_size: int = 1_000
    """Changed keys that may wait for one reader; with more, the reader gets a Gap instead."""


class Entry(NamedTuple):
    """A value; `revision` grows with every change of the bucket, by any writer."""

    key: str
    value: bytes
    revision: int


class Change(NamedTuple):
    """A changed key with its entry now; None when it was deleted or has expired."""

    key: str
    entry: Entry | None


class Watch(Protocol):
    """Changes for one reader: `async for item in watch`.

    The first item is a Gap, and so is the first after each reconnection or overrun: read `entries` then.
    A slow reader gets one item for a key that changed many times. The iteration ends when the watch or the
    bucket is closed.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Change | Gap: ...

    def close(self) -> None:
        """End the watch; waiting items are dropped. Further calls do nothing."""


class Bucket(Protocol):
    """Entries by key. Keys are letters, digits, `-/_=`, and `.` between parts; at most MAX_KEY characters.

    Raises from every write: StateUnavailable when the store does not answer in time (the change may have been
    made all the same), StateRefused when it will never be made, ValueError for an invalid key.
    """

    @property
    def name(self) -> str:
        """Return the name of the bucket."""

    @property
    def is_live(self) -> bool:
        """Return whether changes of other replicas arrive now; if not, entries may be out of date."""

    async def live(self) -> None:
        """Return when `is_live`; the caller sets a deadline."""

    def get(self, key: str) -> Entry | None:
        """Return the known entry of `key`: at least as new as this process's own last write to it."""

    def entries(self, prefix: str = "") -> list[Entry]:
        """Return every entry whose key begins with `prefix`, in no order."""

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """Write unconditionally; return the revision.

        The entry expires after `ttl_s` seconds.
        """

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """Write if `revision` is still the newest; 0 for a key without entry. Return the new revision.

        Raises: StateConflict when another writer was first.
        """

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Delete `key`, which may be missing; with `revision` only if it is still the newest.

        Raises: StateConflict.
        """

    def watch(self, prefix: str = "") -> Watch:
        """Return a watch of every change below `prefix` from now on."""


class Buckets(Protocol):
    """The source of buckets; one per process."""

    def open(self, spec: BucketSpec) -> Bucket:
        """Return the bucket of that name; created if missing, without waiting."""

    def start(self) -> None:
        """Start; needs a running loop and does not wait for any server."""

    async def close(self) -> None:
        """Close every bucket and its watches."""


def check(spec: BucketSpec, key: str, value: bytes = b"") -> None:
    """Check a key and a value.

    Raises: ValueError for an invalid key, StateRefused for a value that is too large.
    """
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key")
    if len(value) > MAX_VALUE_BYTES:
        raise StateRefused(f"{spec.name}: {len(value)} bytes under one key are too many")


def shorter(ttl_s: float | None, limit_s: float | None) -> float | None:
    """Return the shorter of two times, either of which may be None for never."""
    known = [value for value in (ttl_s, limit_s) if value is not None]
    return min(known, default=None)
