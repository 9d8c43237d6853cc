"""Clean-up of records: it closes those of proxies that ended without doing so, and deletes old ones.

The clocks of machines may differ. So a process counts as lost when its heartbeat has not changed for
`lost_after_s` while this process watched. Any number of janitors may run at once; one of them closes a
record.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StateError, StoreError
from proxy.events.publisher import Publisher
from proxy.sessions import session_events
from proxy.sessions.store import SessionStore
from proxy.settings.sessions import SessionSettings

_log = structlog.get_logger("sessions")

_LOOKS_PER_LOSS = 6
_EXPIRE_EVERY_S = 300.0
_EXPIRE_BATCH = 500
_BATCHES_A_TURN = 20
_ORDERS_LAST = timedelta(hours=1)


class Janitor:
    """The clean-up task; one for each process.

    `token` is this process's own, which is never taken for lost.
    """

    def __init__(
        self,
        store: SessionStore,
        publisher: Publisher,
        settings: SessionSettings,
        token: str,
        forget: Callable[[Collection[str]], Awaitable[None]] | None = None,
    ) -> None:
        """Create it; `forget` removes connections from the view that replicas share."""
        self._forget = forget
        self._store = store
        self._publisher = publisher
        self._settings = settings
        self._token = token
        self._seen: dict[str, tuple[datetime, float]] = {}
        self._expired_at = -_EXPIRE_EVERY_S
        self._tasks = TaskOwner("janitor")

    def start(self) -> None:
        """Start, with a check for records that an earlier run left."""
        self._tasks.spawn(self._run(), name="look")

    async def close(self) -> None:
        """Stop."""
        await self._tasks.close()

    async def _run(self) -> None:
        while True:
            try:
                await self.look(time.monotonic())
                if time.monotonic() - self._expired_at >= _EXPIRE_EVERY_S:
                    self._expired_at = time.monotonic()
                    await self.expire(datetime.now(UTC))
            except StoreError as exc:
                _log.debug("janitor cannot look", reason=str(exc))
            except Exception:  # noqa: BLE001 (a bug in one round must not end all later ones)
                _log.exception("janitor failed")
            await asyncio.sleep(self._settings.lost_after_s / _LOOKS_PER_LOSS)

    async def look(self, now_s: float) -> None:
        """Compare heartbeats with those of earlier rounds, and close lost records. Raises: StoreError."""
        signs = await self._store.signs_of_life()
        for token in self._seen.keys() - signs.keys():
            del self._seen[token]
        for token, seen_at in signs.items():
            known = self._seen.get(token)
            if token == self._token or known is None or known[0] != seen_at:
                self._seen[token] = (seen_at, now_s)
            elif now_s - known[1] >= self._settings.lost_after_s:
                await self._close(token, seen_at)

    async def _close(self, token: str, seen_at: datetime) -> None:
        closed = await self._store.close_lost(token, seen_at)
        for record in closed:
            self._publisher.publish(session_events.closed(record))
        if closed and self._forget is not None:
            with suppress(StateError):  # entries expire by themselves later
                await self._forget([record.id for record in closed])
        if closed:
            _log.warning(
                "a proxy ended without a word: its session records are closed",
                proxy=closed[0].proxy_id,
                pid=closed[0].pid,
                records=len(closed),
                last_sign=seen_at.isoformat(timespec="seconds"),
            )

    async def expire(self, now: datetime) -> int:
        """Delete a bounded number of records older than `keep_days`; return their number.

        Raises: StoreError.
        """
        await self._store.forget_kills((), now - _ORDERS_LAST)
        if not self._settings.keep_days:
            return 0
        before = now - timedelta(days=self._settings.keep_days)
        total = 0
        for _ in range(_BATCHES_A_TURN):
            count = await self._store.expire(before, _EXPIRE_BATCH)
            total += count
            if count < _EXPIRE_BATCH:
                break
        return total
