"""Rules for new connections and for failed or successful logins of an address.

    accept ─▶ banned? ─▶ too fast? ─▶ too many? ─▶ PendingConnection ─▶ key exchange ─▶ login, or a failure

An address from which a known user logged in recently has credit: failures from it ban it as any other, but
its
connections are still accepted, because one of them may be a known user's. Credit does not help against a ban
by
an operator. See docs/protection.md.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from secrets import SystemRandom

import structlog

from proxy.addresses import is_in, source_of
from proxy.errors.login import AddressBanned, TooManySessions
from proxy.events.publisher import Publisher
from proxy.events.schema import AddressBannedEvent
from proxy.protection.bans import Ban, Bans
from proxy.protection.credit import Credit
from proxy.protection.failures import Failures, length_s, threshold
from proxy.protection.startups import Rate, Startups
from proxy.settings.protection import ProtectionSettings
from proxy.shared.buckets import Watch

_log = structlog.get_logger("protection")

RULE = "rule:failures"
_INNOCENT = frozenset(
    {
        "store",
        "revocation_unknown",
        "login.locked",
        "login.expired",
        "login.address_banned",
        "login.too_many_sessions",
        "approval_not_shown",
        "onboarding.code_expired",
        "onboarding.waitlisted",
        "onboarding.rejected",
        "account_inactive",
        "user_not_admitted",
        "onboarding.account_inactive",
        "onboarding.account_ended",
        "onboarding.name_taken",
        "onboarding.provider_unavailable",
        "onboarding.provider_misconfigured",
        "onboarding.too_many_pending",
        "onboarding.too_many_from_source",
        "onboarding.too_many_for_name",
    }
)
"""Reasons that are no attempt at another user's account: a login that has only these does not count."""


def _is_known(ban: Ban | None, *, has_credit: bool) -> bool:
    """Return whether an address counts as that of a known user; an operator's ban outweighs credit."""
    return has_credit and not (ban is not None and ban.is_order)


class PendingConnection:
    """A connection from accept until it is logged in or closed."""

    __slots__ = ("_startups", "address", "ban", "has_credit", "source")

    def __init__(self, startups: Startups, address: str, *, has_credit: bool, ban: Ban | None) -> None:
        self._startups: Startups | None = startups
        self.address = address
        self.source = source_of(address)
        self.has_credit = has_credit
        self.ban = ban
        """The ban in force, when the connection is accepted in spite of it."""

    def leave(self) -> None:
        """Stop counting this connection. Further calls do nothing."""
        if self._startups is not None:
            self._startups.leave(self.source)
            self._startups = None


class Guard:
    """The rules of one process: bans, connection rates, and limits before login."""

    def __init__(self, settings: ProtectionSettings, bans: Bans, publisher: Publisher) -> None:
        self._settings = settings
        self._allowed = settings.allowed
        self.bans = bans
        self._publisher = publisher
        self._credit = Credit(settings.credit_s)
        self._failures = Failures(settings.bans.window_s, settings.bans.max_sources, settings.bans.failures)
        per_minute = settings.bans.probes_per_minute
        self._probes = Rate(
            per_minute, max(1.0, per_minute / 6) if per_minute else 0.0, settings.bans.max_sources
        )
        self._rate = Rate(
            settings.connections_per_minute, settings.connections_per_minute, settings.bans.max_sources
        )
        self._startups = Startups(
            settings.startups_begin,
            settings.startups_percent,
            settings.startups_full,
            settings.max_unauthenticated_per_source,
            SystemRandom().random,
        )
        self.refused: dict[str, int] = {"banned": 0, "too_fast": 0, "source_full": 0, "full": 0}
        """Refused connections, by reason."""

    @property
    def unauthenticated(self) -> int:
        """Return the number of connections that are not logged in yet."""
        return len(self._startups)

    @property
    def banned(self) -> int:
        """Return the number of sources that are banned now."""
        return len(self.bans.all())

    def refuses(self, address: str) -> bool:
        """Return whether a ban keeps an address out; a ban by rule does not where it has credit."""
        if is_in(address, self._allowed):
            return False
        ban = self.bans.find(source_of(address))
        return ban is not None and not _is_known(ban, has_credit=self._credit.has(ban.source, _now()))

    def watch(self) -> Watch:
        """Return a watch of every change of a ban, on any replica."""
        return self.bans.watch()

    def accept(self, address: str) -> PendingConnection | str:
        """Accept a connection, or return the reason against it as one word."""
        now, source = _now(), source_of(address)
        is_allowed = is_in(address, self._allowed)
        has_credit = self._credit.has(source, now)
        ban = None if is_allowed else self.bans.find(source)
        is_known = _is_known(ban, has_credit=has_credit)
        if ban is not None and not is_known and not self._probes.take(source, now):
            return self._refuse("banned")
        if not is_allowed and not self._rate.take(source, now):
            return self._refuse("too_fast")
        if word := self._startups.enter(source, is_allowed=is_allowed, is_known=is_known):
            return self._refuse(word)
        return PendingConnection(self._startups, address, has_credit=has_credit, ban=ban)

    def _refuse(self, word: str) -> str:
        self.refused[word] += 1
        return word

    def check(self, visitor: PendingConnection, name: str, sessions: int) -> None:
        """Admit a user whose key was proved, and who has `sessions` connections already.

        Raises: AddressBanned, TooManySessions.
        """
        if visitor.ban is not None and visitor.ban.is_order:
            raise AddressBanned(
                f"{name}: {visitor.source} is banned by {visitor.ban.actor}",
                user_message=f"your key is right, but {ban_notice(visitor.ban)}; ask an operator",
            )
        if sessions >= self._settings.max_sessions_per_user:
            raise TooManySessions(
                f"{name} has {sessions} sessions",
                user_message=f"you have {sessions} connections open already; close one first",
            )

    def succeeded(self, visitor: PendingConnection) -> None:
        """Record the login of a known user, which gives the address credit."""
        self.succeeded_at(visitor.address)
        visitor.leave()

    def succeeded_at(self, address: str) -> None:
        """Record the login of a known user from an address, which gives it credit."""
        self._credit.earn(source_of(address), _now())

    def failed(self, visitor: PendingConnection, reasons: Sequence[str]) -> None:
        """Record a connection that ended without a login; ban its address after too many."""
        self.failed_at(visitor.address, reasons)

    def failed_at(self, address: str, reasons: Sequence[str]) -> None:
        """Record a login from an address that was refused; ban the address after too many."""
        if is_in(address, self._allowed) or (reasons and _INNOCENT.issuperset(reasons)):
            return
        source, rules = source_of(address), self._settings.bans
        count = self._failures.add(source, _now())
        offences = self.bans.offences(source)
        if count < threshold(rules.failures, offences) or self.bans.find(source) is not None:
            return
        self._failures.forget(source)
        since = datetime.now(UTC)
        until = since + timedelta(seconds=length_s(rules.lengths_s, offences))
        ban = Ban(source, since, until, tuple(reasons), RULE, offences)
        self.bans.begin(ban)
        self._publisher.publish(ban_event(ban))
        _log.warning("banned", source=source, until=until.isoformat(timespec="seconds"), failures=count)


def ban_notice(ban: Ban) -> str:
    """Return the words that show a user the ban of an address."""
    until = ban.until.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"your address {ban.source} is banned until {until}"


def ban_event(ban: Ban) -> AddressBannedEvent:
    """Return the event of a ban."""
    return AddressBannedEvent(
        address=ban.source,
        until=ban.until.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        offences=ban.offences + 1,
        reasons=ban.reasons,
        actor=ban.actor,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
