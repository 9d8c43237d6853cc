"""Buckets in a file of this machine.

Without NATS, the proxy shares state with commands and with its next run by such a file. It uses SQLite's own
module in a thread: three statements need no layer above it. There are no migrations, because entries are
worthless after their time. A process polls for changes of others, twice a second.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StateConflict, StateRefused, StateUnavailable
from proxy.shared.bucket_cache import CachedBucket
from proxy.shared.buckets import Bucket, BucketSpec, Entry, check, shorter

_log = structlog.get_logger("events")
_T = TypeVar("_T")

POLL_S = 0.5
_TOMBSTONE_S = 600
"""A process that did not poll for so long is not running."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    bucket TEXT NOT NULL, key TEXT NOT NULL, value BLOB, revision INTEGER NOT NULL, expires REAL,
    PRIMARY KEY (bucket, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_by_revision ON entry (bucket, revision);
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (0, 0);
"""


class _Row(NamedTuple):
    key: str
    value: bytes | None
    """None for a deleted key."""
    revision: int
    expires: float | None


class _File:
    """The open file, used from one thread."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def since(self, bucket: str, revision: int) -> list[_Row]:
        """Return the rows that changed after `revision`, oldest first."""
        found = self._db.execute(
            "SELECT key, value, revision, expires FROM entry WHERE bucket = ? AND revision > ?"
            " ORDER BY revision",
            (bucket, revision),
        )
        return [_Row(*row) for row in found]

    def write(
        self, spec: BucketSpec, key: str, value: bytes | None, expires: float | None, expected: int | None
    ) -> int:
        """Write a value, or delete the key if it is None; return the revision.

        Raises: StateConflict, StateRefused.
        """
        now = datetime.now(UTC).timestamp()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            known = self._db.execute(
                "SELECT revision FROM entry WHERE bucket = ? AND key = ? AND value IS NOT NULL"
                " AND (expires IS NULL OR expires > ?)",
                (spec.name, key, now),
            ).fetchone()
            if expected is not None and expected != (known[0] if known else 0):
                raise StateConflict(f"{spec.name}: {key} was changed by another writer")
            if known is None and value is not None:
                self._make_room(spec, now)
            revision: int
            (revision,) = self._db.execute(
                "UPDATE counter SET revision = revision + 1 RETURNING revision"
            ).fetchone()
            self._db.execute(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)",
                (spec.name, key, value, revision, now + _TOMBSTONE_S if value is None else expires),
            )
        return revision

    def _make_room(self, spec: BucketSpec, now: float) -> None:
        self._db.execute("DELETE FROM entry WHERE bucket = ? AND expires <= ?", (spec.name, now))
        (count,) = self._db.execute(
            "SELECT count(*) FROM entry WHERE bucket = ? AND value IS NOT NULL", (spec.name,)
        ).fetchone()
        if count >= spec.max_entries:
            raise StateRefused(f"{spec.name}: full with {spec.max_entries} entries")


class FileBuckets:
    """Buckets that processes of this machine share; see Buckets."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._file: _File | None = None
        self._thread = ThreadPoolExecutor(1, "buckets")
        self._tasks = TaskOwner("buckets")
        self._wake = asyncio.Event()
        self._buckets: dict[str, FileBucket] = {}
        self._is_blind = False

    def open(self, spec: BucketSpec) -> Bucket:
        """See Buckets."""
        if spec.name not in self._buckets:
            self._buckets[spec.name] = FileBucket(spec, self)
            self._wake.set()
        return self._buckets[spec.name]

    def start(self) -> None:
        """See Buckets."""
        self._tasks.spawn(self._run(), name="look")

    async def close(self) -> None:
        """See Buckets."""
        await self._tasks.close()
        for bucket in self._buckets.values():
            bucket.close()
        with suppress(StateUnavailable):
            if self._file is not None:
                await self.run(_File.close)
        self._thread.shutdown(wait=False)

    async def run(self, work: Callable[[_File], _T]) -> _T:
        """Run `work` on the file in its thread. Raises: StateUnavailable, and the errors of `work`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._with_file, work)
        except (sqlite3.Error, OSError, RuntimeError) as exc:
            raise StateUnavailable(f"{self._path}: {exc}") from None

    def _with_file(self, work: Callable[[_File], _T]) -> _T:
        if self._file is None:
            self._file = _File(self._path, self._timeout_s)
        return work(self._file)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                for bucket in tuple(self._buckets.values()):
                    await bucket.look()
                self._is_blind = False
            except StateUnavailable as exc:
                if not self._is_blind:  # logged once per outage
                    _log.warning("shared state cannot be read", reason=str(exc))
                self._is_blind = True
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()


class FileBucket(CachedBucket):
    """One bucket; see Bucket. After the first poll it stays live, because no server can be lost."""

    def __init__(self, spec: BucketSpec, owner: FileBuckets) -> None:
        super().__init__(spec)
        self._owner = owner
        self._seen = 0
        self._looking = asyncio.Lock()

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        return await self._write(key, value, ttl_s, None)

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        return await self._write(key, value, ttl_s, revision)

    async def delete(self, key: str, revision: int | None = None) -> None:
        """See Bucket."""
        await self._write(key, None, None, revision)

    async def look(self) -> None:
        """Apply the changes since the last poll. Raises: StateUnavailable."""
        async with self._looking:
            rows = await self._owner.run(lambda file: file.since(self.name, self._seen))
            now = datetime.now(UTC).timestamp()
            for row in rows:
                self._seen = row.revision
                ttl_s = None if row.expires is None else row.expires - now
                if row.value is None or (ttl_s is not None and ttl_s <= 0):
                    self._cache.remove(row.key)
                else:
                    self._cache.set(Entry(row.key, row.value, row.revision), ttl_s)
            if not self._live.is_set():
                self._live.set()
                self._cache.note_gap()

    async def _write(self, key: str, value: bytes | None, ttl_s: float | None, expected: int | None) -> int:
        check(self._spec, key, value or b"")
        limit_s = shorter(ttl_s, self._spec.ttl_s)
        expires = None if limit_s is None else datetime.now(UTC).timestamp() + limit_s
        revision = await self._owner.run(lambda file: file.write(self._spec, key, value, expires, expected))
        await self.look()
        return revision
