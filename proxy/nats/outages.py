"""One connection after another, for ever: to which server, how soon, and how often a failure is told."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import cycle
from secrets import SystemRandom
from typing import Any

import structlog

from proxy.settings.events import EventsSettings

_log = structlog.get_logger("events")
_random = SystemRandom()


async def stay_connected(settings: EventsSettings, hold: Callable[[str], Awaitable[bool]]) -> None:
    """Hold a connection to each server in turn; `hold` returns when it is lost, True if it was of use.

    Waits longer after each failure in a row.
    """
    failures = 0
    for url in cycle(_random.sample(settings.urls, len(settings.urls))):
        failures = 0 if await hold(url) else failures + 1
        rounds = min(failures // len(settings.urls), 20)
        wait_s = min(settings.reconnect_wait_max_s, settings.reconnect_wait_s * 2.0**rounds)
        await asyncio.sleep(wait_s * _random.uniform(0.5, 1.0))


class OutageLog:
    """Logs a change of state; a failure that was told since the last connection is not one."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reasons: set[str] = set()

    def connected(self, server: str, **facts: Any) -> None:
        """Tell of a success."""
        self._reasons.clear()
        _log.info(f"{self._what} connected", server=server, **facts)

    def disconnected(self, server: str, reason: str, **facts: Any) -> None:
        """Tell of a failure, if it is news."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            _log.warning(f"{self._what} disconnected", server=server, reason=reason, **facts)
