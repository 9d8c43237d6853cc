"""Accounts of known users, read again from their providers before what is known of them is too old.

    a login ──────────────┐
    a live connection ────┴─ due? ── claim the grant ── ask the provider ──▶ renewed · ended · no answer

When is decided here; one refresh is `renewal`'s.
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


class Vouch(Enum):
    """What a provider is worth to a login at this moment."""

    GOOD = "good"
    """Nothing to be done; also for users whom an operator added."""
    ASK = "ask"
    """What it said is too old, and only its person can have it read again."""
    ENDED = "ended"
    """It does not vouch for the account any more, and the key came by it."""


class Refresher:
    """One per process."""

    def __init__(
        self,
        directory: Directory,
        grants: Grants,
        vault: Vault | None,
        settings: GroupSettings,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`vault` encrypts grants; without one none is kept."""
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
        """Whether refresh tokens are worth asking for."""
        return self._renewals.keeps_grants

    def start(
        self,
        providers: Mapping[str, Provider],
        issuers: Mapping[str, str],
        connected: Callable[[], Collection[str]],
    ) -> None:
        """Begin to keep users up to date whom `connected` names.

        `issuers` says by provider whose subjects it knows; about others it is not asked.
        """
        self._providers, self._issuers, self._connected = providers, issuers, connected
        self._tasks.spawn(self._run(), name="refresh")

    async def close(self) -> None:
        """End what is being asked; a grant in use stays in doubt."""
        await self._tasks.close()
        await self._renewals.close()

    async def keep(self, name: str, profile: Profile, tokens: Tokens) -> None:
        """Keep what an approval gave to read the account of a user again. Raises: StoreError."""
        provider = self._providers.get(profile.provider)
        if provider is not None:
            await self._renewals.keep(name, profile, provider.grant_of(tokens), tokens)

    # ---------------------------------------------------------------------------------- at a login

    async def vouch(self, name: str, origin: str) -> Vouch:
        """Say what is to be done before a key of this origin lets a user in; asks the provider when due.

        Waits `login_wait_s` at most while groups count, else for one refresh. Raises: StoreError.
        """
        account = await self._directory.account_of(name)
        if account is None or account.reading is None:
            return Vouch.GOOD
        provider = self._provider(account)
        if provider is not None and self._is_due(account.reading):
            is_over = groups.is_over(account.reading, self._settings, _utc())
            wait_s = None if is_over else self._settings.login_wait_s
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await asyncio.shield(self._attempt(name, account, provider))
            account = await self._directory.account_of(name)
        if account is None or account.reading is None:
            return Vouch.GOOD
        return self._judge(account, account.reading, provider, is_its=origin == account.provider)

    def _judge(self, account: Account, reading: Reading, provider: Provider | None, *, is_its: bool) -> Vouch:
        if reading.ended_at is not None:
            return Vouch.ENDED if is_its else Vouch.GOOD
        if provider is None or not self._settings.ask_at_login:
            return Vouch.GOOD
        if not groups.is_over(reading, self._settings, _utc()) or reading.failed_at is not None:
            return Vouch.GOOD
        needs_it = bool(account.groups) or (is_its and not provider.lists_keys)
        return Vouch.ASK if needs_it else Vouch.GOOD

    def _is_due(self, reading: Reading | None) -> bool:
        if reading is None or reading.ended_at is not None:
            return False
        return groups.is_due(reading, self._settings, _utc())

    def _provider(self, account: Account) -> Provider | None:
        """Give the provider of an account; None when it is configured no more, or anew for others."""
        if self._issuers.get(account.provider) != account.issuer:
            return None
        return self._providers.get(account.provider)

    # --------------------------------------------------------------------------- while connected

    async def _run(self) -> None:
        pause_s = min(RETRY_S, self._settings.refresh_after_s / 2)
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - replicas need not ask together
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
        """Say when to look again: soon while the provider is away, else when the groups are due."""
        after_s = self._settings.refresh_after_s
        if account is None or account.reading is None:
            return after_s
        if account.reading.failed_at is not None:
            return min(after_s, 4 * RETRY_S)
        left_s = after_s - groups.age(account.reading, _utc()).total_seconds()
        return left_s if left_s > 0 else after_s

    # ------------------------------------------------------------------------------- one attempt

    def _attempt(self, name: str, account: Account, provider: Provider) -> "asyncio.Task[None]":
        """Give the attempt under way, or the one that ended just now, or begin one."""
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
