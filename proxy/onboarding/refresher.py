"""Refresh of known users' accounts at their providers, before the known facts are too old.

    a login ──────────────┐
    a live connection ────┴─ due? ── claim the grant ── ask the provider ──▶ renewed · ended · no answer

This module decides when; `renewal` does one refresh.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.identity import groups
from proxy.identity.directory import Account, Directory
from proxy.identity.grants import Grants
from proxy.identity.groups import Reading
from proxy.identity.profile import Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import Provider
from proxy.onboarding.renewal import Renewals
from proxy.onboarding.vault import Vault
from proxy.settings.groups import GroupSettings

_log = structlog.get_logger("refresher")

RETRY_S = 15.0
"""An attempt that ended less than this ago is not repeated."""
_MAX_REMEMBERED = 10_000


class AccountStanding(Enum):
    """The value of a provider's voucher for a login at this moment."""

    GOOD = "good"
    """Nothing to do; also for users whom an operator added."""
    ASK = "ask"
    """Its answer is too old, and only the user can have it renewed."""
    ENDED = "ended"
    """It no longer vouches for the account, and the key came from it."""


class Refresher:
    """The refreshes of one process."""

    def __init__(
        self,
        directory: Directory,
        grants: Grants,
        vault: Vault | None,
        settings: GroupSettings,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts; `vault` encrypts grants, and without one none is kept."""
        self._directory = directory
        self._renewals = Renewals(directory, grants, vault, settings.refresh_timeout_s)
        self._settings = settings
        self._connected: Callable[[], Collection[str]] = tuple
        self._now = now
        self._providers: Mapping[str, Provider] = {}
        self._issuers: Mapping[str, str] = {}
        self._asked: OrderedDict[str, tuple[float, asyncio.Task[None]]] = OrderedDict()
        self._next: dict[str, float] = {}
        self._gate = asyncio.Semaphore(settings.parallel)
        self._tasks = TaskOwner("refresher")

    @property
    def keeps_grants(self) -> bool:
        """Return whether refresh tokens are worth requesting."""
        return self._renewals.keeps_grants

    def start(
        self,
        providers: Mapping[str, Provider],
        issuers: Mapping[str, str],
        connected: Callable[[], Collection[str]],
    ) -> None:
        """Start to keep up to date the users whom `connected` names.

        `issuers` gives the issuer of each provider's subjects; it is not asked about other subjects.
        """
        self._providers, self._issuers, self._connected = providers, issuers, connected
        self._tasks.spawn(self._run(), name="refresh")

    async def close(self) -> None:
        """Cancel the requests in progress; a grant in use stays in doubt."""
        await self._tasks.close()
        await self._renewals.close()

    async def keep(self, name: str, profile: Profile, tokens: Tokens) -> None:
        """Keep the grant of an approval, with which the account is read again. Raises: StoreError."""
        provider = self._providers.get(profile.provider)
        if provider is not None:
            await self._renewals.keep(name, profile, provider.grant_of(tokens), tokens)

    # ---------------------------------------------------------------------------------- at a login

    async def vouch(self, name: str, origin: str) -> AccountStanding:
        """Return the step needed before a key of this origin admits a user; ask the provider when due.

        Waits `login_wait_s` at most while groups count, else for one refresh. Raises: StoreError.
        """
        account = await self._directory.account_of(name)
        if account is None or account.reading is None:
            return AccountStanding.GOOD
        provider = self._provider(account)
        if provider is not None and self._is_due(account.reading):
            is_over = groups.is_over(account.reading, self._settings, _utc())
            wait_s = None if is_over else self._settings.login_wait_s
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await asyncio.shield(self._attempt(name, account, provider))
            account = await self._directory.account_of(name)
        if account is None or account.reading is None:
            return AccountStanding.GOOD
        return self._judge(account, account.reading, provider, is_its=origin == account.provider)

    def _judge(
        self, account: Account, reading: Reading, provider: Provider | None, *, is_its: bool
    ) -> AccountStanding:
        if reading.ended_at is not None:
            return AccountStanding.ENDED if is_its else AccountStanding.GOOD
        if provider is None or not self._settings.ask_at_login:
            return AccountStanding.GOOD
        if not groups.is_over(reading, self._settings, _utc()) or reading.failed_at is not None:
            return AccountStanding.GOOD
        needs_it = bool(account.groups) or (is_its and not provider.lists_keys)
        return AccountStanding.ASK if needs_it else AccountStanding.GOOD

    def _is_due(self, reading: Reading | None) -> bool:
        if reading is None or reading.ended_at is not None:
            return False
        return groups.is_due(reading, self._settings, _utc())

    def _provider(self, account: Account) -> Provider | None:
        """Return the provider of an account.

        None when it is not configured any more, or for another issuer.
        """
        if self._issuers.get(account.provider) != account.issuer:
            return None
        return self._providers.get(account.provider)

    # --------------------------------------------------------------------------- while connected

    async def _run(self) -> None:
        pause_s = min(RETRY_S, self._settings.refresh_after_s / 2)
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the requests of replicas
            try:
                await self.round()
            except Exception:  # noqa: BLE001 (a bug in one round must not end all later ones)
                _log.exception("refresh failed")

    async def round(self) -> None:
        """Refresh every connected user who is due."""
        names, now = set(self._connected()), self._now()
        self._next = {name: at for name, at in self._next.items() if name in names}
        due = [name for name in names if self._next.get(name, now) <= now]
        await asyncio.gather(*(self._tend(name) for name in due))

    async def _tend(self, name: str) -> None:
        async with self._gate:
            try:
                account = await self._directory.account_of(name)
                provider = None if account is None else self._provider(account)
                if account is not None and provider is not None and self._is_due(account.reading):
                    await asyncio.shield(self._attempt(name, account, provider))
                    account = await self._directory.account_of(name)
                self._next[name] = self._now() + self._pause_s(account)
            except StoreError as exc:
                _log.warning("account not refreshed", user=name, reason=str(exc))

    def _pause_s(self, account: Account | None) -> float:
        """Return the seconds to the next attempt: few in an outage, else until groups are due."""
        after_s = self._settings.refresh_after_s
        if account is None or account.reading is None:
            return after_s
        if account.reading.failed_at is not None:
            return min(after_s, 4 * RETRY_S)
        left_s = after_s - groups.age(account.reading, _utc()).total_seconds()
        return left_s if left_s > 0 else after_s

    # ------------------------------------------------------------------------------- one attempt

    def _attempt(self, name: str, account: Account, provider: Provider) -> "asyncio.Task[None]":
        """Return the attempt in progress, or the one that ended just now, or a new one."""
        asked_at, task = self._asked.get(name, (float("-inf"), None))
        again_after_s = min(RETRY_S, self._settings.refresh_after_s / 2)
        if task is None or (task.done() and self._now() - asked_at >= again_after_s):
            task = self._tasks.spawn(self._renewals.renew(name, account, provider), name=f"refresh of {name}")
            self._asked[name] = (self._now(), task)
            self._asked.move_to_end(name)
            while len(self._asked) > _MAX_REMEMBERED:
                self._asked.popitem(last=False)
        return task


def _utc() -> datetime:
    return datetime.now(UTC)
