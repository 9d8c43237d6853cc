"""Programs and connections of this shelld, their limits, and the time of the last activity."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from shelld import aio
from shelld.errors import OpenCode, OpenError, StartCode, StartError
from shelld.programs.program import Program
from shelld.settings import Limits

KEEPALIVE_WINDOW_S = 15.0
KEEPALIVE_BYTES = 1024
"""Bytes that one connection may carry in such a time and still count as idle: the heartbeats of an unused
window. An editor's are about 100 bytes; a user's typing is more.
"""
_REMEMBERED_IDS = 64

PROGRAM = "a program over SSH was in use"
CONNECTION = "a forwarded connection carried data"

SendNotice = Callable[[str], Coroutine[Any, Any, None]]
"""Sends one sentence to the user of a program."""


class KeepaliveFilter:
    """A filter that separates payload of a connection from heartbeats that only keep it open."""

    def __init__(self, touch: Callable[[], None]) -> None:
        """Take the function to call for payload."""
        self._touch = touch
        self._since = time.monotonic()
        self._bytes = 0

    def carried(self, count: int) -> None:
        """Count bytes of either direction."""
        now = time.monotonic()
        if now - self._since >= KEEPALIVE_WINDOW_S:
            self._since, self._bytes = now, 0
        self._bytes += count
        if self._bytes > KEEPALIVE_BYTES:
            self._touch()


class Registry:
    """Counts and the clock of activity. On the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        """Create an empty registry; the clock of activity starts now."""
        self._limits = limits
        self.programs = 0
        self.connections = 0
        self.listeners = 0
        self.draining = False
        self.running: dict[Program, SendNotice] = {}
        self._announcing: dict[Program, asyncio.Task[None]] = {}
        self._announced_ids: dict[str, None] = {}
        self._resuming: asyncio.TimerHandle | None = None
        self._started_at = self._active_at = time.monotonic()
        self.why = ""
        """A sentence about the last activity; empty: none since the start."""

    def enter(self, program: Program, send_notice: SendNotice) -> None:
        """Add a running program, so that a stop finds it and an announcement reaches its user."""
        self.running[program] = send_notice

    def leave(self, program: Program) -> None:
        """Remove a program."""
        self.running.pop(program, None)

    def announce(self, text: str, once: str = "") -> int:
        """Send a text to the user of every program; return the number of programs.

        A repeated `once` sends nothing. Returns at once; a program whose last announcement is still being
        sent gets no other.
        """
        if once and once in self._announced_ids:
            return 0
        if once:
            self._announced_ids[once] = None
            if len(self._announced_ids) > _REMEMBERED_IDS:
                del self._announced_ids[next(iter(self._announced_ids))]
        reached = [program for program in self.running if program not in self._announcing]
        for program in reached:
            task = aio.spawn(self.running[program](text), name=f"announce {program.pid}")
            self._announcing[program] = task
            task.add_done_callback(partial(self._forget_announcement, program))
        return len(reached)

    def _forget_announcement(self, program: Program, _task: asyncio.Task[None]) -> None:
        self._announcing.pop(program, None)

    async def announced(self, timeout_s: float) -> None:
        """Wait until announcements are sent, at most so long."""
        if self._announcing:
            await asyncio.wait(set(self._announcing.values()), timeout=timeout_s)

    def drain(self, if_idle_s: float, for_s: float) -> bool:
        """Refuse new work for `for_s` seconds if nothing was active for `if_idle_s`.

        Return whether it does.
        """
        if self.idle_s < if_idle_s:
            return False
        self.draining = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = asyncio.get_running_loop().call_later(for_s, self._resume)
        return True

    def stop(self) -> None:
        """Refuse new work, for good."""
        self.draining = True
        if self._resuming is not None:
            self._resuming.cancel()

    def _resume(self) -> None:
        self.draining = False

    def touch(self, why: str) -> None:
        """Record activity; `why` describes it for the user."""
        self._active_at = time.monotonic()
        self.why = why

    @property
    def active_at(self) -> float:
        """Return the moment of the last activity, in seconds of the monotonic clock."""
        return self._active_at

    @property
    def idle_s(self) -> float:
        """Return the seconds since the last activity."""
        return time.monotonic() - self._active_at

    @property
    def uptime_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._started_at

    @contextlib.contextmanager
    def program(self) -> Iterator[None]:
        """Count one program while the context lasts.

        Raises: StartError RESOURCES.
        """
        if self.programs >= self._limits.programs:
            reason = f"this workspace runs {self.programs} programs, which is its limit"
            raise StartError(StartCode.RESOURCES, reason)
        self.programs += 1
        self.touch(PROGRAM)
        try:
            yield
        finally:
            self.programs -= 1
            self.touch(PROGRAM)

    @contextlib.contextmanager
    def connection(self, *, quiet: bool = False) -> Iterator[KeepaliveFilter]:
        """Count one connection while the context lasts; a quiet one and its payload are no activity.

        Raises: OpenError RESOURCES.
        """
        if self.connections >= self._limits.connections:
            reason = f"this workspace has {self.connections} connections, which is its limit"
            raise OpenError(OpenCode.RESOURCES, reason)
        touch = _do_nothing if quiet else partial(self.touch, CONNECTION)
        self.connections += 1
        touch()
        try:
            yield KeepaliveFilter(touch)
        finally:
            self.connections -= 1
            touch()

    @contextlib.contextmanager
    def listener(self) -> Iterator[None]:
        """Count one listening socket while the context lasts.

        Raises: OpenError RESOURCES.
        """
        if self.listeners >= self._limits.listeners:
            reason = f"this workspace has {self.listeners} listeners, which is its limit"
            raise OpenError(OpenCode.RESOURCES, reason)
        self.listeners += 1
        try:
            yield
        finally:
            self.listeners -= 1


def _do_nothing() -> None:
    """Do nothing: a quiet connection is no activity."""
