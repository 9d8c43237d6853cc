"""Revocation: the end of live connections of users and keys that were locked, removed, expired or revoked.

The directory decides. It is queried every `recheck_s` seconds, once for all live connections of this process,
and at once when an event reports a change: so a change takes effect on every replica within that time, and
sooner with NATS. No connection ends because the directory does not answer, or because it lost users or keys.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from proxy import metrics
from proxy.access import policy
from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events import cloudevents, subjects
from proxy.events.lookout import Lookout
from proxy.events.publisher import Bus, Gap, Message
from proxy.identity.directory import Directory, KeyStanding
from proxy.identity.revoked_keys import Revocation, Revocations
from proxy.model import ALLOWED, Decision, Principal, User
from proxy.sessions.records import End, EndReason

_log = structlog.get_logger("watch")

_IMMEDIATE_EVENTS = frozenset({subjects.USER_LOCKED, subjects.USER_KEY_REMOVED})

_CHECKED_PER_TURN = 200
"""Connections that are compared with lists of revoked keys in one iteration of the event loop."""


class Live(Protocol):
    """A connection, before or after its login."""

    @property
    def principal(self) -> Principal | None:
        """Return the user who is logged in; None before the login."""

    def end(self, sentence: str, end: End) -> None:
        """End the connection with a sentence for the user; `end` is for the record."""

    def regrouped(self, user: User) -> None:
        """Go on with the user's new groups; end everything that only the old ones allowed."""


Connections = Callable[[], Collection[Live]]


class RevocationMonitor:
    """The monitor of all live connections; one for each process. `connections` returns those open now."""

    def __init__(
        self,
        directory: Directory,
        bus: Bus,
        connections: Connections,
        recheck_s: float,
        revocations: Revocations,
    ) -> None:
        self._directory = directory
        self._bus = bus
        self._connections = connections
        self._revocations = revocations
        outage = "live connections cannot be compared with the directory"
        self._lookout = Lookout(self.check, recheck_s, _log, outage=outage, heard=self._concerns_us)
        self._is_unavailable = False
        self._tasks = TaskOwner("watch")

    def start(self) -> None:
        """Subscribe to events, and check at once."""
        self._lookout.start(self._tasks, self._bus.subscribe(subjects.ALL_USER))

    async def close(self) -> None:
        """Stop checking; connections go on."""
        await self._tasks.close()

    async def check(self) -> None:
        """Compare every live connection with the directory now, and end those that may not stay."""
        live = [(one, one.principal) for one in self._connections() if one.principal is not None]
        if not live:
            return
        live = await self._end_revoked(live)
        try:
            standing = await self._directory.standing_of({_pair(principal) for _, principal in live})
        except StoreError as exc:
            metrics.RECHECKS.labels("failed").inc()
            self._log_outage(str(exc))
            return
        lost = sum(not found.is_certain for found in standing.values())
        self._log_outage(f"{lost} users or keys are gone, and no command removed them" if lost else "")
        metrics.RECHECKS.labels("in_doubt" if lost else "done").inc()
        now = datetime.now(UTC)
        still_open = self._connections()
        for connection, principal in live:
            found = standing[_pair(principal)]
            decision = _judge(found, principal, now)
            if connection not in still_open:
                continue
            if not decision:
                self._end(connection, principal, decision.reason)
            elif found.user is not None and found.user.groups != principal.user.groups:
                connection.regrouped(found.user)

    async def _end_revoked(self, live: Sequence[tuple[Live, Principal]]) -> list[tuple[Live, Principal]]:
        """End connections by the lists of revoked keys, and return the others.

        A list that cannot be read ends none.
        """
        lists = await self._revocations.current()
        staying = []
        for number, (connection, principal) in enumerate(live, start=1):
            if number % _CHECKED_PER_TURN == 0:
                await asyncio.sleep(0)
            if lists.of(principal.credential) is not Revocation.REVOKED:
                staying.append((connection, principal))
            elif connection in self._connections():
                self._end(connection, principal, "the key of this connection was revoked")
        return staying

    def _end(self, connection: Live, principal: Principal, reason: str) -> None:
        _log.info(
            "connection ended",
            conn=principal.client.conn_id,
            user=principal.user.name,
            reason=reason,
        )
        connection.end(reason, End(EndReason.REVOKED, reason))

    def _log_outage(self, reason: str) -> None:
        """Log an outage once, not at every check."""
        if reason and not self._is_unavailable:
            _log.warning("live connections cannot be compared with the directory", reason=reason)
        elif self._is_unavailable and not reason:
            _log.info("live connections are compared with the directory again")
        self._is_unavailable = bool(reason)

    def _concerns_us(self, message: Message | Gap) -> bool:
        if isinstance(message, Gap):
            return True
        if message.subject not in _IMMEDIATE_EVENTS:
            return False
        event = cloudevents.decode(message.data)
        user = None if event is None else event.data.get("user")
        here = (one.principal for one in self._connections())
        return any(principal is not None and principal.user.name == user for principal in here)


def _judge(found: KeyStanding, principal: Principal, now: datetime) -> Decision:
    """Decide by certain facts alone: a user whose key was lost may still be locked.

    A user of the same name with another id is another user: the user of the connection was removed.
    """
    user = found.user
    if user is not None and user.id != principal.user.id:
        return policy.may_stay(None, found.has_key, now)
    if found.is_certain:
        return policy.may_stay(user, found.has_key, now, ended_at_provider=found.ended_at_provider)
    return ALLOWED if user is None else policy.may_login(user, now)


def _pair(principal: Principal) -> tuple[str, str]:
    """Return user name and fingerprint of the needed key; a user with a certificate needs no stored key."""
    return principal.user.name, "" if principal.certificate else principal.fingerprint
