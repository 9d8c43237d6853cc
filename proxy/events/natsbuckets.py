"""Buckets in JetStream, laid out as NATS's own key-value stores are: `nats kv` reads and writes them too.

One connection, apart from that of events, feeds the mirrors of all buckets and carries what is written. A
bucket is read from its stream from the last value of each key on, so that a write is known here when the
stream has brought it back; until then the writer waits. When the connection is lost the mirrors stay as
they are, and the next one reads everything anew.

An entry's end is in a header of ours, by which every replica forgets it in time. The server removes the
entry too: by itself from 2.11 on, or else when a replica that forgot it says so.

Source: NATS ADR-8 (key-value store), ADR-43 (per-message TTL).
"""

import asyncio
import math
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig

from proxy.aio import TaskOwner
from proxy.errors import StateConflict, StateError, StateRefused, StateUnavailable
from proxy.events.kv import MAX_VALUE_BYTES, Bucket, BucketSpec, Entry, Mirror, Watch, check, shorter
from proxy.events.natswire import STREAM_EXISTS, LinkFailed, Wire
from proxy.events.reconnect import Told, hold_for_ever
from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")
_T = TypeVar("_T")

_EXPIRES = "Fairlead-Expires"
"""Seconds since 1970, with fractions; what the server's own header rounds."""
_OPERATION = "KV-Operation"
_MARKER = "Nats-Marker-Reason"
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE = {10071, 10164}
_MARKER_LIFE_S = 3_600
"""A replica that was away for longer reads everything anew anyhow."""
_HEARTBEATS_MISSED = 3


class _Store(Wire):
    """A connection on which buckets are kept; `serve` first, then `write`."""

    async def serve(self, bucket: "NatsBucket") -> None:
        """Make the bucket if there is none, and begin to read it. Raises: LinkFailed."""
        await self._within(lambda: self._serve(bucket), self._settings.connect_timeout_s * 2, "no answer")

    async def _serve(self, bucket: "NatsBucket") -> None:
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        bucket.has_ttl = await self._find_or_make(bucket)
        inbox = self._client.new_inbox()
        bucket.begin(self)

        async def read(msg: Msg) -> None:
            if reason := bucket.read(msg):
                self.fail(reason)

        await self._client.subscribe(inbox, cb=read)
        made = await jetstream.add_consumer(
            bucket.stream,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                filter_subject=f"{bucket.subject}.>",
                ack_policy=AckPolicy.NONE,
                idle_heartbeat=max(0.1, self._settings.keepalive_interval_s / 2),  # the server takes no less
                inactive_threshold=self._settings.keepalive_interval_s * 3,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        if not made.num_pending:
            bucket.is_whole()

    async def _find_or_make(self, bucket: "NatsBucket") -> bool:
        """Tell whether the server ends entries by itself."""
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        for _ in range(2):
            with suppress(nats.js.errors.NotFoundError):
                return bool((await jetstream.stream_info(bucket.stream)).config.allow_msg_ttl)
            try:
                await jetstream.add_stream(bucket.config(self._settings))
                _log.info("nats bucket made", bucket=bucket.stream)
            except nats.js.errors.BadRequestError as exc:
                if exc.err_code != STREAM_EXISTS:  # another replica was faster
                    raise
        raise nats.errors.Error(f"stream {bucket.stream} comes and goes")

    async def write(self, subject: str, value: bytes, headers: dict[str, str]) -> int:
        """Store one message; gives its sequence number. Raises: StateError."""
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        done = await self._ask(jetstream.publish(subject, value, headers=headers or None), subject)
        return done.seq

    async def last(self, stream: str, subject: str) -> tuple[int, bool]:
        """Give the number of a key's last message, and whether it is an entry. Raises: StateError."""
        jetstream = self._client.jetstream(timeout=self._settings.ack_timeout_s)
        try:
            message = await self._ask(jetstream.get_last_msg(stream, subject), subject)
        except _Missing:
            return 0, False
        ttl_s = _ttl_of(message.headers or {})
        return message.seq or 0, not _is_marker(message.headers or {}) and (ttl_s is None or ttl_s > 0)

    async def _ask(self, request: Awaitable[_T], subject: str) -> _T:
        """Wait for an answer; whoever asks may leave meanwhile, which nats-py would not survive."""
        task = self._tasks.spawn(_answer(request), name="request")
        either: set[asyncio.Future[object]] = {task, self.lost}  # type: ignore[arg-type] # both are futures
        await asyncio.wait(either, timeout=self._settings.ack_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            return task.result()
        if subject.lower() in self._denied:
            raise StateRefused(f"NATS does not permit {subject}")
        if not self.lost.done():
            self.fail("no acknowledgement")
        raise StateUnavailable(f"NATS: {self.lost.result()}")


class _Missing(StateError):
    """There is no such message."""


async def _answer(request: Awaitable[_T]) -> _T:
    """Turn what a server answers into our errors."""
    try:
        return await request
    except nats.js.errors.NotFoundError as exc:
        raise _Missing(str(exc)) from None
    except nats.js.errors.APIError as exc:
        if exc.err_code in _WRONG_SEQUENCE:
            raise StateConflict("changed by somebody else") from None
        is_final = exc.code == 400
        raise (StateRefused if is_final else StateUnavailable)(f"NATS: {exc.description}") from None
    except (nats.errors.Error, OSError, AssertionError, AttributeError, ValueError) as exc:
        raise StateUnavailable(f"NATS: {exc}") from None


class NatsBuckets:
    """Buckets that every replica shares; see kv.Buckets.

    Every way in which NATS can fail is logged once when it begins and once when it ends.
    """

    def __init__(self, settings: EventsSettings, *, proxy_id: str) -> None:
        assert settings.urls, "without a URL there is nothing to connect to: MemoryBuckets"
        self._settings = settings
        self._proxy_id = proxy_id
        self._buckets: dict[str, NatsBucket] = {}
        self._tasks = TaskOwner("buckets")
        self._wake = asyncio.Event()
        self._told = Told("nats buckets")

    def open(self, spec: BucketSpec) -> Bucket:
        """See kv.Buckets."""
        if spec.name not in self._buckets:
            self._buckets[spec.name] = NatsBucket(spec, self._settings, self._tasks)
            self._wake.set()
        return self._buckets[spec.name]

    def start(self) -> None:
        """See kv.Buckets."""
        self._tasks.spawn(hold_for_ever(self._settings, self._hold), name="nats")

    async def close(self) -> None:
        """See kv.Buckets."""
        await self._tasks.close()
        for bucket in self._buckets.values():
            bucket.close()

    async def _hold(self, url: str) -> bool:
        """Hold a connection until it is lost."""
        store = _Store(self._settings, url, self._wake.set)
        try:
            await store.open()
            await self._carry(store, url)
        except LinkFailed as exc:
            self._told.disconnected(url, str(exc))
        except Exception:  # noqa: BLE001 (a bug here or in nats-py must not end it until a restart)
            _log.exception("buckets failed", server=url)
        finally:
            for bucket in self._buckets.values():
                bucket.end()
            await store.dispose()
        return store.opened

    async def _carry(self, store: _Store, url: str) -> None:
        """Serve buckets until the connection fails, which raises."""
        served: set[str] = set()
        while True:
            self._wake.clear()
            for name in self._buckets.keys() - served:
                await store.serve(self._buckets[name])
                served.add(name)
            if not store.opened:
                store.opened = True
                self._told.connected(url, buckets=sorted(served))
            await store.idle(self._wake)
            for name in served:
                if self._buckets[name].silence_s > _HEARTBEATS_MISSED * self._settings.keepalive_interval_s:
                    store.fail(f"bucket {name} is silent")


class NatsBucket:
    """One bucket; see kv.Bucket."""

    def __init__(self, spec: BucketSpec, settings: EventsSettings, tasks: TaskOwner) -> None:
        self._spec = spec
        self._timeout_s = settings.ack_timeout_s
        self._tasks = tasks
        self._mirror = Mirror(spec, self._expired)
        self._store: _Store | None = None
        self._live = asyncio.Event()
        self._heard_at = 0.0
        self._delivered = 0
        self._reached = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._is_overfull = False
        self.has_ttl = False
        """Whether the server ends entries by itself."""
        name = f"{settings.prefix.replace('.', '_')}_{spec.name}"
        self.stream = f"KV_{name}"
        self.subject = f"$KV.{name}"

    def config(self, settings: EventsSettings) -> StreamConfig:
        """Describe the stream of a bucket that is not there yet, as ADR-8 does."""
        return StreamConfig(
            name=self.stream,
            description="state that proxies of Fairlead share",
            subjects=[f"{self.subject}.>"],
            max_msgs_per_subject=1,
            max_age=self._spec.ttl_s,
            max_msg_size=MAX_VALUE_BYTES + 1_024,  # headers count
            discard=DiscardPolicy.NEW,
            num_replicas=settings.stream_replicas,
            storage=StorageType.FILE,
            allow_rollup_hdrs=True,
            deny_delete=True,
            allow_direct=True,
            allow_msg_ttl=True,
        )

    # --------------------------------------------------------------------------------- kv.Bucket

    @property
    def name(self) -> str:
        """See kv.Bucket."""
        return self._spec.name

    @property
    def is_live(self) -> bool:
        """See kv.Bucket."""
        return self._live.is_set()

    async def live(self) -> None:
        """See kv.Bucket."""
        await self._live.wait()

    def get(self, key: str) -> Entry | None:
        """See kv.Bucket."""
        return self._mirror.get(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See kv.Bucket."""
        return self._mirror.entries(prefix)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> int:
        """See kv.Bucket."""
        return await self._write(key, value, self._ending(ttl_s))

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: float | None = None) -> int:
        """See kv.Bucket."""
        known = self._mirror.get(key)
        if (known is None and revision) or (known is not None and known.revision > revision):
            raise StateConflict(f"{self.name}: {key} was changed by somebody else")
        headers = self._ending(ttl_s)
        try:
            return await self._write(key, value, headers | {_EXPECTED: str(revision)})
        except StateConflict:
            if revision:
                raise
        # The last word on a key that is not there may be that it was deleted, and has a number.
        sequence, is_entry = await self._ready().last(self.stream, f"{self.subject}.{key}")
        if is_entry:
            raise StateConflict(f"{self.name}: {key} was changed by somebody else")
        return await self._write(key, value, headers | {_EXPECTED: str(sequence)})

    async def delete(self, key: str, revision: int | None = None) -> None:
        """See kv.Bucket."""
        check(self._spec, key)
        self._ready()
        known = self._mirror.get(key)
        if revision is not None and (known is None or known.revision > revision):
            raise StateConflict(f"{self.name}: {key} was changed by somebody else")
        if known is not None:
            await self._purge(key, revision)

    def watch(self, prefix: str = "") -> Watch:
        """See kv.Bucket."""
        watch = self._mirror.watch(prefix)
        if self.is_live:
            watch.note_gap()
        return watch

    # ------------------------------------------------------------------------------------ writing

    def _ready(self) -> _Store:
        if self._store is None or not self.is_live:
            raise StateUnavailable(f"{self.name}: NATS is not there")
        return self._store

    def _ending(self, ttl_s: float | None) -> dict[str, str]:
        limit_s = shorter(ttl_s, self._spec.ttl_s)
        if limit_s is None:
            return {}
        headers = {_EXPIRES: f"{datetime.now(UTC).timestamp() + limit_s:.3f}"}
        return headers | {"Nats-TTL": str(math.ceil(limit_s) + 1)} if self.has_ttl else headers

    async def _write(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        check(self._spec, key, value)
        store = self._ready()
        if _OPERATION not in headers and not self._mirror.has_room_for(key):
            raise StateRefused(f"{self.name}: full with {self._spec.max_entries} entries")
        sequence = await store.write(f"{self.subject}.{key}", value, headers)
        await self._until(sequence)
        return sequence

    async def _purge(self, key: str, revision: int | None) -> None:
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub"}
        if self.has_ttl:
            headers["Nats-TTL"] = str(_MARKER_LIFE_S)
        if revision is not None:
            headers[_EXPECTED] = str(revision)
        await self._write(key, b"", headers)

    async def _until(self, sequence: int) -> None:
        """Return when the mirror has what was written."""
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
        """Remove from the server what it does not remove by itself; one of the replicas is the first."""
        if not self.has_ttl and self.is_live:
            self._tasks.spawn(self._remove_expired(entry), name="expired")

    async def _remove_expired(self, entry: Entry) -> None:
        with suppress(StateError):
            await self._purge(entry.key, entry.revision)

    # ------------------------------------------------------------------------------------ reading

    @property
    def silence_s(self) -> float:
        """Since the server was heard last; it sends heartbeats."""
        return asyncio.get_running_loop().time() - self._heard_at

    def begin(self, store: _Store) -> None:
        """Expect everything anew on this connection."""
        self._store = store
        self._delivered = 0
        self._heard_at = asyncio.get_running_loop().time()
        self._mirror.begin_snapshot()

    def is_whole(self) -> None:
        """Say that all there was has come."""
        if not self.is_live:
            self._mirror.end_snapshot()
            self._live.set()

    def end(self) -> None:
        """Keep what is known; nobody tells of changes any more."""
        self._store = None
        self._live.clear()
        waiting, self._waiting = self._waiting, []
        for _, reached in waiting:
            if not reached.done():
                reached.set_exception(StateUnavailable(f"{self.name}: the connection to NATS was lost"))
                reached.exception()  # whoever waited may have left

    def close(self) -> None:
        """End every watch."""
        self.end()
        self._mirror.close()

    def read(self, msg: Msg) -> str:
        """Take a message of the stream or a heartbeat; gives in words why the connection is no good."""
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
        ttl_s = _ttl_of(headers)
        entry = Entry(key, value, revision)
        if _is_marker(headers):
            self._mirror.remove(key)
        elif ttl_s is not None and ttl_s <= 0:
            self._mirror.remove(key)
            self._expired(entry)
        elif not self._mirror.set(entry, ttl_s) and not self._is_overfull:
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


def _is_marker(headers: dict[str, str]) -> bool:
    return _OPERATION in headers or _MARKER in headers


def _ttl_of(headers: dict[str, str]) -> float | None:
    """Give the seconds that an entry has left; None for one that does not end."""
    text = headers.get(_EXPIRES)
    if text is None:
        return None
    with suppress(ValueError):
        if math.isfinite(moment := float(text)):
            return moment - datetime.now(UTC).timestamp()
    return None
