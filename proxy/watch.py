"""Ends connections that may not go on: their user was locked or removed or expired, or their key removed.

The directory is the truth. It is asked every `recheck_s`, once for all live connections of this process, and
at once when an event says that something changed: on every replica within that bound, and with NATS sooner.
A directory that does not answer ends nobody.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import structlog

from proxy import policy
from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events import cloudevents, subjects
from proxy.events.publisher import Bus, Gap, Message, Subscription
from proxy.identity.directory import Directory
from proxy.model import Principal, User
from proxy.sessions.records import End, EndReason

_log = structlog.get_logger("watch")

_TELLING = frozenset({subjects.USER_LOCKED, subjects.USER_KEY_REMOVED})


class Live(Protocol):
    """A connection, logged in or not yet."""

    @property
    def principal(self) -> Principal | None: ...

    def end(self, sentence: str, end: End) -> None:
        """End it with a sentence for the person; `end` is for the record."""

    def regrouped(self, user: User) -> None:
        """Go on as a user whose groups are others now; what the old ones gave ends."""


Connections = Callable[[], Collection[Live]]


class Watch:
    """One per process; `connections` gives those that are open at the moment."""

    def __init__(self, directory: Directory, bus: Bus, connections: Connections, recheck_s: float) -> None:
        self._directory = directory
        self._bus = bus
        self._connections = connections
        self._recheck_s = recheck_s
        self._due = asyncio.Event()
        self._is_blind = False
        self._tasks = TaskOwner("watch")

    def start(self) -> None:
        """Begin, with a look at whatever is there."""
        self._tasks.spawn(self._listen(self._bus.subscribe(subjects.ALL_USER)), name="events")
        self._tasks.spawn(self._run(), name="recheck")

    async def close(self) -> None:
        """End watching; connections stay."""
        await self._tasks.close()

    async def check(self) -> None:
        """Compare every live connection with the directory now, and end those that may not stay."""
        live = [(one, one.principal) for one in self._connections() if one.principal is not None]
        if not live:
            return
        try:
            standing = await self._directory.standing_of({_pair(principal) for _, principal in live})
        except StoreError as exc:
            if not self._is_blind:  # told once an outage, not every two seconds
                _log.warning("live connections cannot be compared with the directory", reason=str(exc))
            self._is_blind = True
            return
        self._is_blind = False
        now = datetime.now(UTC)
        still_open = self._connections()
        for connection, principal in live:
            found = standing[_pair(principal)]
            decision = policy.may_stay(
                found.user, found.has_key, now, ended_at_provider=found.ended_at_provider
            )
            if connection not in still_open:
                continue
            if decision and found.user is not None and found.user.groups != principal.user.groups:
                connection.regrouped(found.user)
            elif not decision:
                _log.info(
                    "connection ended",
                    conn=principal.attempt.peer.conn_id,
                    user=principal.user.name,
                    reason=decision.reason,
                )
                connection.end(decision.reason, End(EndReason.REVOKED, decision.reason))

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._recheck_s):
                    await self._due.wait()
            self._due.clear()
            try:
                await self.check()
            except Exception:  # noqa: BLE001 (a bug in one look must not end all later ones)
                _log.exception("watch failed")

    async def _listen(self, subscription: Subscription) -> None:
        try:
            async for item in subscription:
                if isinstance(item, Gap) or self._concerns_us(item):
                    self._due.set()
        finally:
            subscription.close()

    def _concerns_us(self, message: Message) -> bool:
        if message.subject not in _TELLING:
            return False
        event = cloudevents.decode(message.data)
        user = None if event is None else event.data.get("user")
        here = (one.principal for one in self._connections())
        return any(principal is not None and principal.user.name == user for principal in here)


def _pair(principal: Principal) -> tuple[str, str]:
    """Name what has to stay for a connection to stay; whoever came by a certificate needs no stored key."""
    return principal.user.name, "" if principal.certificate else principal.fingerprint
