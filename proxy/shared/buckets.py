"""State that replicas share: small values by key, each replica with the whole of it in memory.

    reader ──get · keys · watch──▶ Mirror ◀──every change── the store (this process, or NATS)
    writer ──put · update · delete────────────────────────▶ the store ──▶ Mirror, here and elsewhere

Reading never waits and never fails: it gives what was known last, and `is_live` says whether that is current.
Writing has a deadline and is refused with an error when the store is away. Fit for what is small and
changes slowly beside a login: bans, live sessions. All of it belongs to one event loop.
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
    """What a bucket is called, and how much it may hold; the same on every replica."""

    name: str
    """Letters, digits, `-` and `_`."""
    max_entries: int = 100_000
    """More are refused: what strangers can make grow must not fill the memory of every replica."""
    ttl_s: float | None = None
    """Entries end this long after they were written, unless a `put` says sooner; None for never."""
    watch_size: int = 1_000
    """Keys whose change may wait for one reader; one more, and it is told of a gap instead."""


class Entry(NamedTuple):
    """A value; `revision` grows with every change of the bucket, whoever makes it."""

    key: str
    value: bytes
    revision: int


class Change(NamedTuple):
    """What became of a key: its entry now, or None when it was deleted or its time was over."""

    key: str
    entry: Entry | None


class Watch(Protocol):
    """Changes for one reader: `async for item in watch`.

    The first item is a Gap, and so is the first after each reconnection or overrun: look at `entries` then.
    A slow reader is told once of a key that changed many times. Ends when the watch or the bucket is closed.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Change | Gap: ...

    def close(self) -> None:
        """End it; what waits is forgotten. Twice is fine."""


class Bucket(Protocol):
    """Entries by key. Keys are letters, digits, `-/_=`, and `.` between parts; at most MAX_KEY characters.

    Raises of every writer: StateUnavailable when the store does not answer in time (the change may have been
    made all the same), StateRefused when it never will be made, ValueError for a key that is none.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_live(self) -> bool:
        """Whether changes of other replicas arrive now; else what is read may be out of date."""

    async def live(self) -> None:
        """Return when `is_live`; whoever waits brings a deadline."""

    def get(self, key: str) -> Entry | None:
        """Give what is known of `key`: at least as new as this process's own last write to it."""

    def entries(self, prefix: str = "") -> list[Entry]:
        """Give everything below `prefix`, in no order."""

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """Write, whatever is there; gives the revision. It ends by itself after `ttl_s` seconds."""

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """Write if `revision` is still the newest; 0 if there is nothing. Gives the new revision.

        Raises: StateConflict when somebody was faster.
        """

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Remove `key`, there or not; with `revision` only if it is still the newest.

        Raises: StateConflict.
        """

    def watch(self, prefix: str = "") -> Watch:
        """Hear of every change below `prefix` from now on."""


class Buckets(Protocol):
    """Where buckets come from; one per process."""

    def open(self, spec: BucketSpec) -> Bucket:
        """Give the bucket of that name, which is made when there is none; waits for nothing."""

    def start(self) -> None:
        """Begin; needs a running loop and does not wait for any server."""

    async def close(self) -> None:
        """End every bucket and its watches."""


def check(spec: BucketSpec, key: str, value: bytes = b"") -> None:
    """Raises: ValueError for a key that is none, StateRefused for a value that is too large."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key")
    if len(value) > MAX_VALUE_BYTES:
        raise StateRefused(f"{spec.name}: {len(value)} bytes under one key are too many")


def shorter(ttl_s: float | None, limit_s: float | None) -> float | None:
    """Give the sooner of two ends, either of which may be never."""
    known = [value for value in (ttl_s, limit_s) if value is not None]
    return min(known, default=None)
