"""Repeated counts of the whole directory in each serving proxy, to detect lost users and keys.

    whole ──rows are missing──▶ in doubt ──they return, or an operator accepts the loss──▶ whole
                                 └──a minor loss that does not change for `vanished_s`──▶ whole

In doubt, no connection ends because its user or key is missing, and no user is onboarded. A minor loss counts
as a removal in the end: an older release, or SQL by hand, removes without a record. The loss of most rows
never does.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.identity.directory import Census

_log = structlog.get_logger("directory")


class Audited(Protocol):
    """A directory that can be counted; usually SqlDirectory."""

    async def audit(self, most: float) -> Census:
        """Count users and keys. Raises: StoreError."""

    async def accept(self, seen: Census | None = None) -> Census:
        """Accept the present rows as complete, unless they changed since `seen`. Raises: StoreError."""


class Auditor:
    """The audit of one process."""

    def __init__(
        self,
        directory: Audited,
        *,
        census_s: float,
        recheck_s: float,
        vanished_s: float,
        max_vanished_share: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the seconds between counts: `census_s`, or `recheck_s` while the directory is in doubt."""
        self._directory = directory
        self._census_s = census_s
        self._recheck_s = min(recheck_s, census_s)
        self._vanished_s = vanished_s
        self._most = max_vanished_share
        self._now = now
        self._seen: Census | None = None
        self._seen_at = 0.0
        self._tasks = TaskOwner("auditor")
        self.problem = ""
        """The reason for doubt, in a sentence; empty while the directory is whole."""

    def start(self) -> None:
        """Start to count."""
        self._tasks.spawn(self._run(), name="look")

    async def close(self) -> None:
        """Stop counting."""
        await self._tasks.close()

    async def look(self) -> None:
        """Count once; accept a minor loss that has lasted as a removal."""
        try:
            census = await self._directory.audit(self._most)
            if self._is_settled(census):
                _log.warning("users or keys are gone without a record of their removal", detail=str(census))
                await self._directory.accept(census)
                census = await self._directory.audit(self._most)
            self._note("" if census.is_whole else str(census))
        except StoreError as exc:
            self._seen = None
            self._note(str(exc))

    def _is_settled(self, census: Census) -> bool:
        """Return whether a loss is minor and has not changed for `vanished_s`."""
        if census.is_whole or census.lost_most(self._most):
            self._seen = None
            return False
        if census != self._seen:
            self._seen, self._seen_at = census, self._now()
        return self._now() - self._seen_at >= self._vanished_s

    def _note(self, problem: str) -> None:
        """Log a problem once when it begins and once when it ends."""
        if problem and not self.problem:
            _log.warning(
                "the directory is in doubt: missing users are neither disconnected nor registered",
                reason=problem,
            )
        elif self.problem and not problem:
            _log.info("the directory is whole again")
        self.problem = problem

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 (a bug in one count must not end all later ones)
                _log.exception("audit failed")
            await asyncio.sleep(self._recheck_s if self.problem else self._census_s)
