"""The cache of a bucket in this process, for any store: entries, expiry times and watches."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Self

from proxy.events.publisher import Gap
from proxy.shared.buckets import BucketSpec, Change, Entry, Watch


class KeyWatch:
    """Changed keys that wait for one reader; a Watch."""

    def __init__(
        self,
        prefix: str,
        size: int,
        get: Callable[[str], Entry | None],
        on_close: Callable[["KeyWatch"], None],
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
        """Record that `key` changed."""
        if not key.startswith(self.prefix) or self._closed:
            return
        self._changed[key] = None
        if len(self._changed) > self._size:
            self.note_gap()
        self._wake.set()

    def note_gap(self) -> None:
        """Mark a gap: the reader must read every entry, and single changes are part of that."""
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


class BucketCache:
    """The entries of a bucket as last known, their expiry times, and its watches.

    One task reports changes, in the order in which they were made.
    """

    def __init__(self, spec: BucketSpec, on_expiry: Callable[[Entry], None] | None = None) -> None:
        self._spec = spec
        self._on_expiry = on_expiry
        self._entries: dict[str, Entry] = {}
        self._deadlines: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._snapshot: set[str] | None = None
        self._watches: list[KeyWatch] = []

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """See Bucket."""
        return self._entries.get(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See Bucket."""
        return [entry for key, entry in self._entries.items() if key.startswith(prefix)]

    def watch(self, prefix: str) -> KeyWatch:
        """Return a new watch, empty until `note_gap` or a change."""
        watch = KeyWatch(prefix, self._spec.watch_size, self.get, self._watches.remove)
        self._watches.append(watch)
        return watch

    def note_gap(self) -> None:
        """Mark a gap in every watch."""
        for watch in self._watches:
            watch.note_gap()

    def has_room_for(self, key: str) -> bool:
        """Return whether `key` exists, or there is room for one more entry."""
        return key in self._entries or len(self._entries) < self._spec.max_entries

    def set(self, entry: Entry, ttl_s: float | None) -> bool:
        """Store an entry that expires after `ttl_s` seconds; return False when there is no room for it."""
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
        self._note_change(entry.key)
        return True

    def remove(self, key: str) -> None:
        """Remove `key`, which was deleted."""
        self._deadlines.pop(key, None)
        if self._entries.pop(key, None) is not None:
            self._note_change(key)

    def begin_snapshot(self) -> None:
        """Start a snapshot; entries that are not set again before `end_snapshot` are removed."""
        self._snapshot = set()

    def end_snapshot(self) -> None:
        """Remove entries that were not in the snapshot, and mark a gap in every watch."""
        for key in self._entries.keys() - (self._snapshot or set()):
            del self._entries[key]
            self._deadlines.pop(key, None)
        self._snapshot = None
        self.note_gap()

    def close(self) -> None:
        """Close every watch."""
        if self._timer is not None:
            self._timer.cancel()
        for watch in tuple(self._watches):
            watch.close()

    def _note_change(self, key: str) -> None:
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
                continue  # written again since then
            del self._deadlines[key]
            entry = self._entries.pop(key)
            self._note_change(key)
            if self._on_expiry is not None:
                self._on_expiry(entry)
        self._timer = None
        self._arm()

    def _tidy(self) -> None:
        """Drop expiry times that a later write replaced, once they are most of the queue."""
        if len(self._queue) > 2 * len(self._deadlines) + 64:
            self._queue = [(deadline, key) for key, deadline in self._deadlines.items()]
            heapq.heapify(self._queue)


class CachedBucket:
    """The reading half of every Bucket; a subclass writes, and keeps the cache up to date."""

    def __init__(self, spec: BucketSpec, on_expiry: Callable[[Entry], None] | None = None) -> None:
        self._spec = spec
        self._cache = BucketCache(spec, on_expiry)
        self._live = asyncio.Event()

    @property
    def name(self) -> str:
        """See Bucket."""
        return self._spec.name

    @property
    def is_live(self) -> bool:
        """See Bucket."""
        return self._live.is_set()

    async def live(self) -> None:
        """See Bucket."""
        await self._live.wait()

    def get(self, key: str) -> Entry | None:
        """See Bucket."""
        return self._cache.get(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See Bucket."""
        return self._cache.entries(prefix)

    def watch(self, prefix: str = "") -> Watch:
        """See Bucket."""
        watch = self._cache.watch(prefix)
        if self.is_live:
            watch.note_gap()
        return watch

    def close(self) -> None:
        """Close every watch."""
        self._cache.close()
