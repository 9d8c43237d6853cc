"""Reconnection to NATS: the order of servers, the pauses between attempts, and a log without repetition."""

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
    """Call `hold` with each server in turn, for ever; `hold` returns when its connection is lost.

    `hold` returns True if the connection was of use. The pause grows after each failure in a row.
    """
    failures = 0
    for url in cycle(_random.sample(settings.urls, len(settings.urls))):
        failures = 0 if await hold(url) else failures + 1
        rounds = min(failures // len(settings.urls), 20)
        wait_s = min(settings.reconnect_wait_max_s, settings.reconnect_wait_s * 2.0**rounds)
        await asyncio.sleep(wait_s * _random.uniform(0.5, 1.0))


class OutageLog:
    """A log of connections; it repeats no failure that it has logged since the last connection."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reasons: set[str] = set()

    def connected(self, server: str, **facts: Any) -> None:
        """Log a connection, with the server's facts."""
        self._reasons.clear()
        _log.info(f"{self._what} connected", server=server, **facts)

    def disconnected(self, server: str, reason: str, **facts: Any) -> None:
        """Log a failure, unless the same one was logged since the last connection."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            _log.warning(f"{self._what} disconnected", server=server, reason=reason, **facts)
