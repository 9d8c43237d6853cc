"""The processes of one start of an app: its session, and those that carry its mark in their environment.

A process that took a session of its own and another environment is no member any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from shelld.launch import proc

MARK = "FAIRLEAD_APP_RUN"
"""Variable with the random name of one start."""
_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Members:
    """The processes of one start."""

    session: int
    """Pid of the start command, which leads its session."""
    mark: str
    look: Callable[[], Iterable[proc.Process]] = proc.processes

    def pids(self) -> list[int]:
        """Return the living ones."""
        marked = f"{MARK}={self.mark}".encode()
        below = proc.descendants(os.getpid(), self.look())
        return [
            one.pid
            for one in below
            if one.state not in "ZX" and (one.session == self.session or marked in _environment(one.pid))
        ]

    def hold_one_of(self, inodes: frozenset[int]) -> bool:
        """Return whether one of them has one of these sockets open; true where that cannot be seen."""
        wanted = {f"socket:[{inode}]" for inode in inodes}
        for pid in self.pids():
            try:
                if any(_target(fd) in wanted for fd in os.scandir(f"/proc/{pid}/fd")):
                    return True
            except FileNotFoundError:
                continue
            except OSError:
                return True
        return False

    async def end(self, grace_s: float) -> None:
        """End them: TERM at once, KILL after `grace_s` seconds. Returns when none is left."""
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + grace_s
        termed: set[int] = set()
        while pids := self.pids():
            if loop.time() >= kill_at:
                _send(pids, signal.SIGKILL)
            else:
                fresh = [pid for pid in pids if pid not in termed]
                _send(fresh, signal.SIGTERM)
                _send(fresh, signal.SIGCONT)
                termed.update(fresh)
            await asyncio.sleep(_LOOK_AGAIN_S)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _target(fd: os.DirEntry[str]) -> str:
    try:
        return os.readlink(fd.path)
    except FileNotFoundError:
        return ""


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
