"""Activity of the workspace, and its use of resources.

Idle means: no payload in either direction, and no process of the workspace using the processor. An open
shell, forward or window that does nothing is idle. The servers of apps answer pages that look for news: each
may use a little of the processor by itself. What an app starts in a session of its own, such as the kernels
and terminals of a notebook server, is a process as any other.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
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
        self,
        registry: Registry,
        home: str,
        look: Callable[[], Iterable[proc.Process]] = proc.processes,
        servers: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        """Take the registry, the home, the source of processes, and the sessions of apps that run.

        CPU time is measured from the first look on.
        """
        self._registry = registry
        self._home = home
        self._look = look
        self._servers = servers
        self._cpu_s = 0.0
        self._cpu_of: dict[int, float] = {}
        """Seconds by process, of the last look."""
        self._cpu_of_servers: dict[int, float] = {}
        """The same by session of an app."""
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
        self._compare(below)
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

    def _compare(self, below: Sequence[proc.Process]) -> None:
        now = time.monotonic()
        passed_s = now - self._looked_at
        if passed_s < _SHORTEST_LOOK_S:
            return
        # Children that shelld has reaped took their processor time along: it is in its own account.
        buried = os.times()
        cpu_s = sum(process.cpu_s for process in below) + buried.children_user + buried.children_system
        of_servers = dict.fromkeys(self._servers(), 0.0)
        for process in below:
            if process.session in of_servers:
                of_servers[process.session] += process.cpu_s
        allowed_s = BUSY_SHARE * passed_s
        used_s = cpu_s - self._cpu_s
        for session, total_s in of_servers.items():
            used_s -= min(max(0.0, total_s - self._cpu_of_servers.get(session, 0.0)), allowed_s)
        if used_s > allowed_s:
            self._registry.touch(self._busiest(below))
        self._cpu_s, self._cpu_of_servers, self._looked_at = cpu_s, of_servers, now
        self._cpu_of = {process.pid: process.cpu_s for process in below}

    def _busiest(self, below: Sequence[proc.Process]) -> str:
        """Describe the process that used the processor most since the last look."""
        used = {process.pid: process.cpu_s - self._cpu_of.get(process.pid, 0.0) for process in below}
        pid = max(used, key=used.__getitem__, default=0)
        if not pid or used[pid] <= 0:
            return "a program that has ended was computing"
        return f"{proc.name_of(pid)} (pid {pid}) was computing"


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
