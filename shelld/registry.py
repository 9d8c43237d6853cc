"""What is alive in this shelld, how much of it may be, and when anything last moved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from shelld.errors import OpenCode, OpenError, StartCode, StartError
from shelld.program import Program
from shelld.settings import Limits


class Registry:
    """Counts and the clock of activity. On the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        """Nothing is alive yet; the clock of activity starts now."""
        self._limits = limits
        self.programs = 0
        self.connections = 0
        self.listeners = 0
        self.draining = False
        self.running: set[Program] = set()
        self._started_at = self._active_at = time.monotonic()

    def enter(self, program: Program) -> None:
        """Note a running program, so that a drain finds it."""
        self.running.add(program)

    def leave(self, program: Program) -> None:
        """Forget a program."""
        self.running.discard(program)

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
    def connection(self) -> Iterator[None]:
        """Count one connection while it lives.

        Raises: OpenError RESOURCES.
        """
        if self.connections >= self._limits.connections:
            reason = f"this workspace has {self.connections} connections, which is its limit"
            raise OpenError(OpenCode.RESOURCES, reason)
        self.connections += 1
        self.touch()
        try:
            yield
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
