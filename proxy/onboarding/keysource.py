"""The keys of a known user: those of the directory, and those that the user's provider lists now.

    offered: stored? ── listed? ─────────────────▶ ask for a signature; nothing is written
    proved:  stored, and its provider answered lately? ── listed? then stored ──▶ admitted

A provider is asked only about users that are bound to an account there, once in `ask_every_s` for each of
them, and usually answers from its cache. While it is down the keys of the directory count, without limit:
only a list that was just read removes keys, and only keys that were here before it was read.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from proxy.aio import TaskOwner
from proxy.errors.login import OnboardingError
from proxy.errors.stores import UserNotFound
from proxy.identity.directory import Account, Directory, StoredKey
from proxy.identity.profile import KeyList
from proxy.onboarding.flow import parse_key

_log = structlog.get_logger("keys")

ASK_EVERY_S = 5.0
PATIENCE_S = 2.0
"""Seconds that a user with a stored key waits for the provider to confirm that it still lists the key."""
_MAX_REMEMBERED = 10_000


class KeyListSource(Protocol):
    """The source of key lists; usually OnboardingService."""

    async def keys(self, provider: str, subject: str, login: str) -> KeyList | None:
        """Return the keys that a provider lists for an account.

        None when it lists none, or is not configured any more.
        """


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key that came from a provider, or was removed because of it."""

    user: str
    provider: str
    fingerprint: str
    is_added: bool
    key_type: str = ""


class KeySource:
    """The look-up of keys in one process."""

    def __init__(
        self,
        directory: Directory,
        lists: KeyListSource,
        issuers: Mapping[str, str],
        changed: Callable[[KeyChange], None],
        *,
        max_keys: int = 500,
        now: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Take the directory and the lists; `issuers` gives the issuer of each provider's subjects.

        A provider is not asked about subjects of another issuer. A list of `max_keys` or more may be
        incomplete, and removes nothing. `changed` is called with every change and must not raise.
        """
        self._directory = directory
        self._lists = lists
        self._issuers = issuers
        self._changed = changed
        self._max_keys = max_keys
        self._now = now
        self._patience_s = patience_s
        self._asked: OrderedDict[tuple[str, str], tuple[float, asyncio.Task[KeyList | None]]] = OrderedDict()
        self._tasks = TaskOwner("keys")

    async def close(self) -> None:
        """Cancel the requests in progress."""
        await self._tasks.close()

    async def recognises(self, name: str, blob: bytes) -> bool:
        """Return whether this key would authenticate this user; proves and writes nothing.

        Raises: StoreError.
        """
        if await self._directory.key_of(name, blob) is not None:
            return True
        account = await self._directory.account_of(name)
        return account is not None and await self._is_listed(name, account, blob)

    async def key_of(self, name: str, blob: bytes) -> StoredKey | None:
        """Return a key whose signature was verified; one that only the provider lists is stored now.

        Raises: StoreError.
        """
        stored = await self._directory.key_of(name, blob)
        if stored is not None and stored.origin not in self._issuers:
            return stored
        account = await self._directory.account_of(name)
        if account is None:
            return stored
        if stored is None:
            if not await self._is_listed(name, account, blob):
                return None
            await self._store(name, account, blob)
        else:
            # The list may have dropped it since. A slow answer is not awaited.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    await self._listed(name, account)
        return await self._directory.key_of(name, blob)

    async def _store(self, name: str, account: Account, blob: bytes) -> None:
        key = parse_key(blob)
        with suppress(UserNotFound):  # removed during the look-up
            if await self._directory.add_key(name, key, origin=account.provider):
                _log.info("key taken over", user=name, provider=account.provider, key=key.fingerprint)
                self._changed(
                    KeyChange(name, account.provider, key.fingerprint, is_added=True, key_type=key.algorithm)
                )

    async def _is_listed(self, name: str, account: Account, blob: bytes) -> bool:
        listed = await self._listed(name, account)
        return listed is not None and blob in listed.blobs

    async def _listed(self, name: str, account: Account) -> KeyList | None:
        """Return the provider's list, or None; concurrent callers share one request."""
        if self._issuers.get(account.provider) != account.issuer:
            return None  # configured again for another issuer, whose subjects are other users
        # By account and not by name: the name may belong to another account by now.
        asked = account.issuer, account.subject
        asked_at, task = self._asked.get(asked, (float("-inf"), None))
        if task is None or self._now() - asked_at >= ASK_EVERY_S:
            task = self._tasks.spawn(self._ask(name, account), name=f"keys of {name}")
            self._asked[asked] = (self._now(), task)
            self._asked.move_to_end(asked)
            while len(self._asked) > _MAX_REMEMBERED:
                self._asked.popitem(last=False)
        return await asyncio.shield(task)

    async def _ask(self, name: str, account: Account) -> KeyList | None:
        try:
            listed = await self._lists.keys(account.provider, account.subject, account.login)
        except OnboardingError as exc:
            _log.info("provider keys not to be had", user=name, provider=account.provider, reason=str(exc))
            return None
        if listed is not None and not listed.stale and listed.age_s < ASK_EVERY_S:
            await self._drop_unlisted(name, account, listed)
        return listed

    async def _drop_unlisted(self, name: str, account: Account, listed: KeyList) -> None:
        if len(listed.blobs) >= self._max_keys:
            return
        read_at = datetime.now(UTC) - timedelta(seconds=listed.age_s)
        gone = await self._directory.drop_unlisted(name, account.provider, listed.blobs, read_at)
        for shown in gone:
            _log.info("key not listed any more", user=name, provider=account.provider, key=shown)
            self._changed(KeyChange(name, account.provider, shown, is_added=False))
