"""The live view of all replicas: each process shows its live connections to the others through NATS.

An entry is written when its connection begins, when a program begins or ends on it, and at intervals, because
it expires soon after its proxy ended. The records in the database are independent of it.
"""

import asyncio
import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StateError
from proxy.sessions.live import LiveConnection
from proxy.sessions.records import ConnectionRecord
from proxy.sessions.tracker import Tracker
from proxy.settings.sessions import SessionSettings
from proxy.shared.buckets import Bucket, Buckets, BucketSpec

_log = structlog.get_logger("sessions")

_BUCKET = "sessions"
_LIVES_PER_ENTRY = 4
_AT_ONCE = 32
_FINAL_WRITE_S = 2.0


def open_view(buckets: Buckets, settings: SessionSettings) -> Bucket:
    """Return the bucket that all replicas share."""
    return buckets.open(BucketSpec(_BUCKET, ttl_s=_LIVES_PER_ENTRY * settings.lost_after_s))


class SessionView:
    """The task that shows the connections of this process."""

    def __init__(self, bucket: Bucket, tracker: Tracker, settings: SessionSettings) -> None:
        self._bucket = bucket
        self._tracker = tracker
        self._settings = settings
        self._shown: dict[str, tuple[int, float]] = {}
        self._is_unavailable = False
        self._tasks = TaskOwner("view")

    def start(self) -> None:
        """Start."""
        self._tasks.spawn(self._run(), name="show")

    async def close(self) -> None:
        """Remove all entries, and stop."""
        await self._tasks.close()
        with suppress(StateError, TimeoutError):
            async with asyncio.timeout(_FINAL_WRITE_S):
                await self.forget(tuple(self._shown))

    async def show(self) -> None:
        """Write changed entries. Raises: StateError."""
        now_s = asyncio.get_running_loop().time()
        due_s = now_s - _LIVES_PER_ENTRY * self._settings.lost_after_s / 2
        due = [
            connection
            for connection in self._tracker.live
            if (seen := self._shown.get(connection.id)) is None
            or seen[0] != connection.version
            or seen[1] < due_s
        ]
        gone = self._shown.keys() - {connection.id for connection in self._tracker.live}
        await _each(self._put(connection, now_s) for connection in due)
        await self.forget(gone)

    async def forget(self, ids: Collection[str]) -> None:
        """Remove connections of this process or of a lost one from the view. Raises: StateError."""
        await _each(self._delete(id_) for id_ in ids)

    async def _run(self) -> None:
        while True:
            try:
                await self.show()
                self._is_unavailable = False
            except StateError as exc:
                if not self._is_unavailable:  # logged once for an outage, not every second
                    _log.warning("live sessions cannot be shown to others", reason=str(exc))
                self._is_unavailable = True
            except Exception:  # noqa: BLE001 (a bug in one round must not end all later ones)
                _log.exception("view of sessions failed")
            await asyncio.sleep(self._settings.write_soon_s)

    async def _put(self, connection: LiveConnection, now_s: float) -> None:
        version = connection.version
        await self._bucket.put(connection.id, entry_of(connection))
        if connection.is_open:
            self._shown[connection.id] = (version, now_s)
        else:
            await self._delete(connection.id)

    async def _delete(self, id_: str) -> None:
        await self._bucket.delete(id_)
        self._shown.pop(id_, None)


def entry_of(connection: LiveConnection) -> bytes:
    """Return the entry of a connection as the other replicas read it."""
    record = connection.record(datetime.now(UTC))
    shown = {name: getattr(record, name) for name in ConnectionRecord.__dataclass_fields__}
    kinds = [program.kind.value for program in connection.programs.values()]
    return json.dumps(shown | {"kinds": kinds}, default=datetime.isoformat).encode()


def read_entry(value: bytes) -> tuple[ConnectionRecord, list[str]] | None:
    """Parse an entry, also of a newer release: the record and the kinds of its programs; None if invalid."""
    try:
        shown: dict[str, Any] = json.loads(value)
        times = {name: datetime.fromisoformat(shown[name]) for name in ("started_at", "updated_at")}
        known = {name: shown[name] for name in ConnectionRecord.__dataclass_fields__}
        return ConnectionRecord(**{**known, **times}), [str(kind) for kind in shown["kinds"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


async def _each(calls: Iterable[Any]) -> None:
    """Await calls, several at once. Raises: the first error of a group, after the whole group has ended."""
    pending = list(calls)
    while pending:
        turn, pending = pending[:_AT_ONCE], pending[_AT_ONCE:]
        for result in await asyncio.gather(*turn, return_exceptions=True):
            if isinstance(result, BaseException):
                for call in pending:
                    call.close()
                raise result
