"""Buckets in JetStream, in the format of NATS's own key-value stores: `nats kv` reads and writes them too.

One connection, apart from that of events, feeds the caches of all buckets and carries writes. A bucket reads
its stream from the last value of each key on. So a write is known here when the stream has returned it; until
then the writer waits. When the connection is lost the caches keep their entries, and the next one reads
everything again.

A header of Fairlead's holds the expiry of an entry, so every replica drops it in time. The server removes the
entry too: by itself from 2.11 on, before that when a replica deletes the expired entry.

Source: NATS ADR-8 (key-value store), ADR-43 (per-message TTL).
"""

import asyncio
import math
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from proxy.aio import TaskOwner
from proxy.errors.stores import StateConflict, StateError, StateRefused, StateUnavailable
from proxy.nats.outages import OutageLog, stay_connected
from proxy.nats.wire import LinkFailed
from proxy.settings.events import EventsSettings
from proxy.shared.bucket_cache import CachedBucket
from proxy.shared.buckets import MAX_VALUE_BYTES, Bucket, BucketSpec, Entry, check, shorter
from proxy.shared.nats_store import EXPIRES, OPERATION, BucketConnection, is_marker, ttl_of

_log = structlog.get_logger("events")

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_MARKER_LIFE_S = 3_600
"""A replica that was disconnected for longer reads everything again anyway."""
_HEARTBEATS_MISSED = 3


class NatsBuckets:
    """Buckets that every replica shares; see Buckets.

    Every kind of NATS failure is logged once when it begins and once when it ends.
    """

    def __init__(self, settings: EventsSettings, *, proxy_id: str) -> None:
        assert settings.urls, "without a URL there is nothing to connect to: MemoryBuckets"
        self._settings = settings
        self._proxy_id = proxy_id
        self._buckets: dict[str, NatsBucket] = {}
        self._tasks = TaskOwner("buckets")
        self._wake = asyncio.Event()
        self._outages = OutageLog("nats buckets")

    def open(self, spec: BucketSpec) -> Bucket:
        """See Buckets."""
        if spec.name not in self._buckets:
            self._buckets[spec.name] = NatsBucket(spec, self._settings, self._tasks)
            self._wake.set()
        return self._buckets[spec.name]

    def start(self) -> None:
        """See Buckets."""
        self._tasks.spawn(stay_connected(self._settings, self._hold), name="nats")

    async def close(self) -> None:
        """See Buckets."""
        await self._tasks.close()
        for bucket in self._buckets.values():
            bucket.close()

    async def _hold(self, url: str) -> bool:
        """Keep one connection until it is lost."""
        store = BucketConnection(self._settings, url, self._wake.set)
        try:
            await store.open()
            await self._carry(store, url)
        except LinkFailed as exc:
            self._outages.disconnected(url, str(exc))
        except Exception:  # noqa: BLE001 (a bug here or in nats-py must not end it until a restart)
            _log.exception("buckets failed", server=url)
        finally:
            for bucket in self._buckets.values():
                bucket.end()
            await store.dispose()
        return store.opened

    async def _carry(self, store: BucketConnection, url: str) -> None:
        """Serve buckets until the connection fails, which raises."""
        served: set[str] = set()
        while True:
            self._wake.clear()
            for name in self._buckets.keys() - served:
                await store.serve(self._buckets[name])
                served.add(name)
            if not store.opened:
                store.opened = True
                self._outages.connected(url, buckets=sorted(served))
            await store.idle(self._wake)
            for name in served:
                if self._buckets[name].silence_s > _HEARTBEATS_MISSED * self._settings.keepalive_interval_s:
                    store.fail(f"bucket {name} is silent")


class NatsBucket(CachedBucket):
    """One bucket; see Bucket."""

    def __init__(self, spec: BucketSpec, settings: EventsSettings, tasks: TaskOwner) -> None:
        super().__init__(spec, self._expired)
        self._timeout_s = settings.ack_timeout_s
        self._tasks = tasks
        self._store: BucketConnection | None = None
        self._heard_at = 0.0
        self._delivered = 0
        self._reached = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._is_overfull = False
        self.has_ttl = False
        """Whether the server removes expired entries by itself."""
        name = f"{settings.prefix.replace('.', '_')}_{spec.name}"
        self.stream = f"KV_{name}"
        self.subject = f"$KV.{name}"

    def config(self, settings: EventsSettings) -> StreamConfig:
        """Return the configuration of a new stream for this bucket, as ADR-8 defines it."""
        return StreamConfig(
            name=self.stream,
            description="state that proxies of Fairlead share",
            subjects=[f"{self.subject}.>"],
            max_msgs_per_subject=1,
            max_age=self._spec.ttl_s,
            max_msg_size=MAX_VALUE_BYTES + 1_024,  # headers count as payload
            discard=DiscardPolicy.NEW,
            num_replicas=settings.stream_replicas,
            storage=StorageType.FILE,
            allow_rollup_hdrs=True,
            deny_delete=True,
            allow_direct=True,
            allow_msg_ttl=True,
        )

    # ------------------------------------------------------------------------------------ Bucket

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        return await self._write(key, value, self._ending(ttl_s))

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """See Bucket."""
        known = self._cache.get(key)
        if (known is None and revision) or (known is not None and known.revision > revision):
            raise StateConflict(f"{self.name}: {key} was changed by another writer")
        headers = self._ending(ttl_s)
        try:
            return await self._write(key, value, headers | {_EXPECTED: str(revision)})
        except StateConflict:
            if revision:
                raise
        # The last message of a missing key may be its deletion, whose number the server compares.
        sequence, is_entry = await self._ready().last(self.stream, f"{self.subject}.{key}")
        if is_entry:
            raise StateConflict(f"{self.name}: {key} was changed by another writer")
        return await self._write(key, value, headers | {_EXPECTED: str(sequence)})

    async def delete(self, key: str, revision: int | None = None) -> None:
        """See Bucket."""
        check(self._spec, key)
        self._ready()
        known = self._cache.get(key)
        if revision is not None and (known is None or known.revision > revision):
            raise StateConflict(f"{self.name}: {key} was changed by another writer")
        if known is not None:
            await self._purge(key, revision)

    # ------------------------------------------------------------------------------------ writing

    def _ready(self) -> BucketConnection:
        if self._store is None or not self.is_live:
            raise StateUnavailable(f"{self.name}: NATS is not there")
        return self._store

    def _ending(self, ttl_s: float | None) -> dict[str, str]:
        limit_s = shorter(ttl_s, self._spec.ttl_s)
        if limit_s is None:
            return {}
        headers = {EXPIRES: f"{datetime.now(UTC).timestamp() + limit_s:.3f}"}
        return headers | {"Nats-TTL": str(math.ceil(limit_s) + 1)} if self.has_ttl else headers

    async def _write(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        check(self._spec, key, value)
        store = self._ready()
        if OPERATION not in headers and not self._cache.has_room_for(key):
            raise StateRefused(f"{self.name}: full with {self._spec.max_entries} entries")
        sequence = await store.write(f"{self.subject}.{key}", value, headers)
        await self._until(sequence)
        return sequence

    async def _purge(self, key: str, revision: int | None) -> None:
        headers = {OPERATION: "PURGE", "Nats-Rollup": "sub"}
        if self.has_ttl:
            headers["Nats-TTL"] = str(_MARKER_LIFE_S)
        if revision is not None:
            headers[_EXPECTED] = str(revision)
        await self._write(key, b"", headers)

    async def _until(self, sequence: int) -> None:
        """Return when the cache holds the written value."""
        if self._reached >= sequence:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((sequence, reached))
        try:
            async with asyncio.timeout(self._timeout_s):
                await reached
        except TimeoutError:
            raise StateUnavailable(f"{self.name}: written, but not heard of") from None

    def _expired(self, entry: Entry) -> None:
        """Delete from the server an entry that it does not remove by itself.

        One of the replicas does so first.
        """
        if not self.has_ttl and self.is_live:
            self._tasks.spawn(self._remove_expired(entry), name="expired")

    async def _remove_expired(self, entry: Entry) -> None:
        with suppress(StateError):
            await self._purge(entry.key, entry.revision)

    # ------------------------------------------------------------------------------------ reading

    @property
    def silence_s(self) -> float:
        """Return the seconds since the server's last message; it sends heartbeats."""
        return asyncio.get_running_loop().time() - self._heard_at

    def begin(self, store: BucketConnection) -> None:
        """Start to read everything again on this connection."""
        self._store = store
        self._delivered = 0
        self._heard_at = asyncio.get_running_loop().time()
        self._cache.begin_snapshot()

    def is_whole(self) -> None:
        """Mark that every entry has arrived."""
        if not self.is_live:
            self._cache.end_snapshot()
            self._live.set()

    def end(self) -> None:
        """Keep the known entries; changes no longer arrive."""
        self._store = None
        self._live.clear()
        waiting, self._waiting = self._waiting, []
        for _, reached in waiting:
            if not reached.done():
                reached.set_exception(StateUnavailable(f"{self.name}: the connection to NATS was lost"))
                reached.exception()  # the waiting task may have been cancelled

    def close(self) -> None:
        """Close every watch."""
        self.end()
        super().close()

    def read(self, msg: Msg) -> str:
        """Handle a message of the stream or a heartbeat.

        Return the reason why the connection is unusable, or "".
        """
        self._heard_at = asyncio.get_running_loop().time()
        headers = msg.headers or {}
        if headers.get("Status") == "100":
            if int(headers.get("Nats-Last-Consumer", self._delivered)) != self._delivered:
                return f"bucket {self.name}: changes were lost"
            self.is_whole()
            return ""
        meta = msg.metadata
        if meta.sequence.consumer != self._delivered + 1:
            return f"bucket {self.name}: changes were lost"
        self._delivered += 1
        self._take(msg.subject.removeprefix(f"{self.subject}."), msg.data, meta.sequence.stream, headers)
        if not meta.num_pending:
            self.is_whole()
        self._reach(meta.sequence.stream)
        return ""

    def _take(self, key: str, value: bytes, revision: int, headers: dict[str, str]) -> None:
        ttl_s = ttl_of(headers)
        entry = Entry(key, value, revision)
        if is_marker(headers):
            self._cache.remove(key)
        elif ttl_s is not None and ttl_s <= 0:
            self._cache.remove(key)
            self._expired(entry)
        elif not self._cache.set(entry, ttl_s) and not self._is_overfull:
            self._is_overfull = True
            _log.warning("bucket is full", bucket=self.name, entries=self._spec.max_entries)

    def _reach(self, sequence: int) -> None:
        self._reached = sequence
        still = []
        for wanted, reached in self._waiting:
            if wanted > sequence:
                still.append((wanted, reached))
            elif not reached.done():
                reached.set_result(None)
        self._waiting = still
