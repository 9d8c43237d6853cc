"""Whether the workspace does anything, and what it uses.

Idle means: no payload either way, and no process of the workspace using the processor. An open
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
"""Of one processor: above a shell's prompt, a multiplexer's clock; below any work."""
_SHORTEST_LOOK_S = 1.0
LOOK_EVERY_S = 15.0
"""Half a minute of work must be seen as such, however seldom anybody asks."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the workspace uses now; numbers that cannot be found out are 0."""

    load_1m: float = 0.0
    memory_bytes: int = 0
    disk_free_bytes: int = 0


class Activity:
    """Looks at the processes of the workspace: all that can be seen, where shelld is the first of them.

    That counts what was brought in from outside (`kubectl exec`) and what belongs to other accounts. Where
    shelld is not the first, the processes below it are the workspace's.
    """

    def __init__(
        self, registry: Registry, home: str, look: Callable[[], Iterable[proc.Process]] = proc.processes
    ) -> None:
        """CPU time is compared with the moment of the last look that was long enough ago."""
        self._registry = registry
        self._home = home
        self._look = look
        self._cpu_s = 0.0
        self._looked_at = time.monotonic()

    def look(self) -> Usage:
        """Measure; processor use since the last look counts as activity."""
        everything = list(self._look())
        me = os.getpid()
        if me == 1:
            below = [process for process in everything if process.pid != me]
        else:
            below = proc.descendants(me, everything)
        own = [process.resident_bytes for process in everything if process.pid == me]
        # Children that shelld has buried took their processor time along: it is in its own account.
        buried = os.times()
        self._compare(sum(process.cpu_s for process in below) + buried.children_user + buried.children_system)
        return Usage(
            load_1m=_load(),
            memory_bytes=sum(process.resident_bytes for process in below) + sum(own),
            disk_free_bytes=_disk_free(self._home),
        )

    async def keep_looking(self) -> None:
        """Look often enough that no work is averaged away; never returns."""
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
