"""What is alive in this shelld, how much of it may be, and when anything last moved."""

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
"""What one connection may carry in such a time without anything having happened: the heartbeats of a
window that nobody looks at. An editor's are about 100 bytes, a person's typing is more."""
_REMEMBERED_IDS = 64

Tell = Callable[[str], Coroutine[Any, Any, None]]
"""Sends one sentence to whoever has a program."""


class Trickle:
    """Tells what a connection carries from the heartbeats that only keep it open."""

    def __init__(self, touch: Callable[[], None]) -> None:
        """`touch` hears of the former."""
        self._touch = touch
        self._since = time.monotonic()
        self._bytes = 0

    def carried(self, count: int) -> None:
        """Note as many bytes of either way."""
        now = time.monotonic()
        if now - self._since >= KEEPALIVE_WINDOW_S:
            self._since, self._bytes = now, 0
        self._bytes += count
        if self._bytes > KEEPALIVE_BYTES:
            self._touch()


class Registry:
    """Counts and the clock of activity. On the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        """Nothing is alive yet; the clock of activity starts now."""
        self._limits = limits
        self.programs = 0
        self.connections = 0
        self.listeners = 0
        self.draining = False
        self.running: dict[Program, Tell] = {}
        self._telling: dict[Program, asyncio.Task[None]] = {}
        self._told: dict[str, None] = {}
        self._resuming: asyncio.TimerHandle | None = None
        self._started_at = self._active_at = time.monotonic()

    def enter(self, program: Program, tell: Tell) -> None:
        """Note a running program, so that a stop finds it and an announcement reaches its person."""
        self.running[program] = tell

    def leave(self, program: Program) -> None:
        """Forget a program."""
        self.running.pop(program, None)

    def announce(self, text: str, once: str = "") -> int:
        """Tell everybody who has a program; return how many that are. The same `once` is told once.

        Returns at once; whoever has not taken the last announcement yet is not told another.
        """
        if once and once in self._told:
            return 0
        if once:
            self._told[once] = None
            if len(self._told) > _REMEMBERED_IDS:
                del self._told[next(iter(self._told))]
        reached = [program for program in self.running if program not in self._telling]
        for program in reached:
            task = aio.spawn(self.running[program](text), name=f"announce {program.pid}")
            self._telling[program] = task
            task.add_done_callback(partial(self._forget_telling, program))
        return len(reached)

    def _forget_telling(self, program: Program, _task: asyncio.Task[None]) -> None:
        self._telling.pop(program, None)

    async def announced(self, timeout_s: float) -> None:
        """Wait until announcements are on their way, for so long at most."""
        if self._telling:
            await asyncio.wait(set(self._telling.values()), timeout=timeout_s)

    def drain(self, if_idle_s: float, for_s: float) -> bool:
        """Take no new work for `for_s`, if nothing was active for `if_idle_s`; say whether that is so."""
        if self.idle_s < if_idle_s:
            return False
        self.draining = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = asyncio.get_running_loop().call_later(for_s, self._resume)
        return True

    def stop(self) -> None:
        """Take no new work, for good."""
        self.draining = True
        if self._resuming is not None:
            self._resuming.cancel()

    def _resume(self) -> None:
        self.draining = False

    def touch(self) -> None:
        """Note a payload byte of either way."""
        self._active_at = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last activity."""
        return time.monotonic() - self._active_at

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    @contextlib.contextmanager
    def program(self) -> Iterator[None]:
        """Count one program while it lives.

        Raises: StartError RESOURCES.
        """
        if self.programs >= self._limits.programs:
            reason = f"this workspace runs {self.programs} programs, which is its limit"
            raise StartError(StartCode.RESOURCES, reason)
        self.programs += 1
        self.touch()
        try:
            yield
        finally:
            self.programs -= 1
            self.touch()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Trickle]:
        """Count one connection while it lives.

        Raises: OpenError RESOURCES.
        """
        if self.connections >= self._limits.connections:
            reason = f"this workspace has {self.connections} connections, which is its limit"
            raise OpenError(OpenCode.RESOURCES, reason)
        self.connections += 1
        self.touch()
        try:
            yield Trickle(self.touch)
        finally:
            self.connections -= 1
            self.touch()

    @contextlib.contextmanager
    def listener(self) -> Iterator[None]:
        """Count one listening socket while it lives.

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
