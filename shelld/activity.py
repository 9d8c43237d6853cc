"""Activity of the workspace, and its use of resources.

Idle means: no payload in either direction, and no process of the workspace using the processor. An open
shell, forward or window that does nothing is idle.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shelld.launch import proc
from shelld.programs.registry import Registry

BUSY_SHARE = 0.02
"""Share of one processor: above a shell's prompt and a multiplexer's clock, below any work."""
_SHORTEST_LOOK_S = 1.0
LOOK_EVERY_S = 15.0
"""Seconds between measurements: half a minute of work must be seen, even without any Status call."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The present use of resources; unavailable numbers are 0."""

    load_1m: float = 0.0
    memory_bytes: int = 0
    disk_free_bytes: int = 0


class Activity:
    """Measurements of the workspace's processes: every visible one, where shelld is the first of them.

    That includes processes from outside (`kubectl exec`) and those of other accounts. Where shelld is not the
    first process, the processes below it are the workspace's.
    """

    def __init__(
        self, registry: Registry, home: str, look: Callable[[], Iterable[proc.Process]] = proc.processes
    ) -> None:
        """Take the registry, the home and the source of processes.

        CPU time is measured from the first look on.
        """
        self._registry = registry
        self._home = home
        self._look = look
        self._cpu_s = 0.0
        self._looked_at = time.monotonic()

    def look(self) -> Usage:
        """Measure; processor use since the last measurement counts as activity."""
        everything = list(self._look())
        me = os.getpid()
        if me == 1:
            below = [process for process in everything if process.pid != me]
        else:
            below = proc.descendants(me, everything)
        own = [process.resident_bytes for process in everything if process.pid == me]
        # Children that shelld has reaped took their processor time along: it is in its own account.
        buried = os.times()
        self._compare(sum(process.cpu_s for process in below) + buried.children_user + buried.children_system)
        return Usage(
            load_1m=_load(),
            memory_bytes=sum(process.resident_bytes for process in below) + sum(own),
            disk_free_bytes=_disk_free(self._home),
        )

    async def keep_looking(self) -> None:
        """Measure often enough that no work is averaged away; never returns."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def _compare(self, cpu_s: float) -> None:
        now = time.monotonic()
        passed_s = now - self._looked_at
        if passed_s < _SHORTEST_LOOK_S:
            return
        if cpu_s - self._cpu_s > BUSY_SHARE * passed_s:
            self._registry.touch()
        self._cpu_s, self._looked_at = cpu_s, now


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return 0.0


def _disk_free(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
