"""State that replicas share: small values by key, each replica with the whole of it in memory.

    reader ──get · keys · watch──▶ Mirror ◀──every change── the store (this process, or NATS)
    writer ──put · update · delete────────────────────────▶ the store ──▶ Mirror, here and elsewhere

Reading never waits and never fails: it gives what was known last, and `is_live` says whether that is current.
Writing has a deadline and is refused with an error when the store is away. Fit for what is small and
changes slowly beside a login: bans, live sessions. All of it belongs to one event loop.
"""

import asyncio
import heapq
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from proxy.errors import StateConflict, StateRefused
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


class Watching:
    """Changed keys waiting for one reader; a Watch."""

    def __init__(
        self,
        prefix: str,
        size: int,
        get: Callable[[str], Entry | None],
        on_close: Callable[["Watching"], None],
    ) -> None:
        self.prefix = prefix
        self._size = size
        self._get = get
        self._on_close = on_close
        self._changed: dict[str, None] = {}
        self._gap = False
        self._closed = False
        self._wake = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change | Gap:
        while not self._closed:
            if self._gap:
                self._gap = False
                return Gap(None)
            if self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                return Change(key, self._get(key))
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def note(self, key: str) -> None:
        """Remember that `key` changed."""
        if not key.startswith(self.prefix) or self._closed:
            return
        self._changed[key] = None
        if len(self._changed) > self._size:
            self.note_gap()
        self._wake.set()

    def note_gap(self) -> None:
        """Let the reader look at everything; single changes are part of that."""
        self._changed.clear()
        self._gap = True
        self._wake.set()

    def close(self) -> None:
        """See Watch."""
        if not self._closed:
            self._closed = True
            self._changed.clear()
            self._wake.set()
            self._on_close(self)


class Mirror:
    """The entries of a bucket as this process knows them, their ends, and who watches.

    Changes are told to it by one teller, in the order in which they were made.
    """

    def __init__(self, spec: BucketSpec, on_expiry: Callable[[Entry], None] | None = None) -> None:
        self._spec = spec
        self._on_expiry = on_expiry
        self._entries: dict[str, Entry] = {}
        self._deadlines: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._snapshot: set[str] | None = None
        self._watches: list[Watching] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """See Bucket."""
        return self._entries.get(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See Bucket."""
        return [entry for key, entry in self._entries.items() if key.startswith(prefix)]

    def watch(self, prefix: str) -> Watching:
        """Give a watch, which says nothing yet: see `note_gap`."""
        watch = Watching(prefix, self._spec.watch_size, self.get, self._watches.remove)
        self._watches.append(watch)
        return watch

    def note_gap(self) -> None:
        """Let every watch look at everything."""
        for watch in self._watches:
            watch.note_gap()

    def has_room_for(self, key: str) -> bool:
        """Whether `key` is there already, or may come."""
        return key in self._entries or len(self._entries) < self._spec.max_entries

    def set(self, entry: Entry, ttl_s: float | None) -> bool:
        """Take an entry that ends after `ttl_s` seconds; False when there is no room for it."""
        if not self.has_room_for(entry.key):
            return False
        if self._snapshot is not None:
            self._snapshot.add(entry.key)
        self._entries[entry.key] = entry
        self._deadlines.pop(entry.key, None)
        if ttl_s is not None:
            deadline = asyncio.get_running_loop().time() + ttl_s
            self._deadlines[entry.key] = deadline
            heapq.heappush(self._queue, (deadline, entry.key))
            self._tidy()
            self._arm()
        self._told(entry.key)
        return True

    def remove(self, key: str) -> None:
        """Forget `key`, which somebody deleted."""
        self._deadlines.pop(key, None)
        if self._entries.pop(key, None) is not None:
            self._told(key)

    def begin_snapshot(self) -> None:
        """Expect everything anew; what does not come until `end_snapshot` is no more."""
        self._snapshot = set()

    def end_snapshot(self) -> None:
        """Forget what did not come, and let every watch look."""
        for key in self._entries.keys() - (self._snapshot or set()):
            del self._entries[key]
            self._deadlines.pop(key, None)
        self._snapshot = None
        self.note_gap()

    def close(self) -> None:
        """End every watch."""
        if self._timer is not None:
            self._timer.cancel()
        for watch in tuple(self._watches):
            watch.close()

    def _told(self, key: str) -> None:
        for watch in self._watches:
            watch.note(key)

    # ----------------------------------------------------------------------------------- the end

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue:
            self._timer = asyncio.get_running_loop().call_at(self._queue[0][0], self._expire)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._queue and self._queue[0][0] <= now:
            deadline, key = heapq.heappop(self._queue)
            if self._deadlines.get(key) != deadline:
                continue  # written again since
            del self._deadlines[key]
            entry = self._entries.pop(key)
            self._told(key)
            if self._on_expiry is not None:
                self._on_expiry(entry)
        self._timer = None
        self._arm()

    def _tidy(self) -> None:
        """Drop ends that writing again has moved, once they are the most of the queue."""
        if len(self._queue) > 2 * len(self._deadlines) + 64:
            self._queue = [(deadline, key) for key, deadline in self._deadlines.items()]
            heapq.heapify(self._queue)


class MemoryBuckets:
    """Buckets that end with this process; see Buckets."""

    def __init__(self) -> None:
        self._buckets: dict[str, MemoryBucket] = {}

    def open(self, spec: BucketSpec) -> Bucket:
        """See Buckets."""
        return self._buckets.setdefault(spec.name, MemoryBucket(spec))

    def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """See Buckets."""
        for bucket in self._buckets.values():
            bucket.close()


class MemoryBucket:
    """A bucket of one process; see Bucket."""

    def __init__(self, spec: BucketSpec) -> None:
        self._spec = spec
        self._mirror = Mirror(spec)
        self._revision = 0

    @property
    def name(self) -> str:
        """See Bucket."""
        return self._spec.name

    @property
    def is_live(self) -> bool:
        """Always: there is nobody else."""
        return True

    async def live(self) -> None:
        """Return at once."""

    def get(self, key: str) -> Entry | None:
        """See Bucket."""
        return self._mirror.get(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See Bucket."""
        return self._mirror.entries(prefix)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        check(self._spec, key, value)
        self._revision += 1
        if not self._mirror.set(Entry(key, value, self._revision), shorter(ttl_s, self._spec.ttl_s)):
            raise StateRefused(f"{self.name}: full with {self._spec.max_entries} entries")
        return self._revision

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        check(self._spec, key, value)
        self._expect(key, revision)
        return await self.put(key, value, ttl_s=ttl_s)

    async def delete(self, key: str, revision: int | None = None) -> None:
        """See Bucket."""
        check(self._spec, key)
        if revision is not None:
            self._expect(key, revision)
        self._revision += 1
        self._mirror.remove(key)

    def watch(self, prefix: str = "") -> Watch:
        """See Bucket."""
        watch = self._mirror.watch(prefix)
        watch.note_gap()
        return watch

    def close(self) -> None:
        """End every watch."""
        self._mirror.close()

    def _expect(self, key: str, revision: int) -> None:
        entry = self._mirror.get(key)
        if (entry.revision if entry else 0) != revision:
            raise StateConflict(f"{self.name}: {key} was changed by somebody else")


def shorter(ttl_s: float | None, limit_s: float | None) -> float | None:
    """Give the sooner of two ends, either of which may be never."""
    known = [value for value in (ttl_s, limit_s) if value is not None]
    return min(known, default=None)
