"""The end of programs whose client is gone: HUP, then TERM, then KILL.

A session is every process with the program's session id, including jobs in process groups of their own. A
process that ignores HUP (`nohup`) or took a session of its own (a daemon, `tmux`) is left alone, as after the
close of a terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shelld import aio
from shelld.launch import proc
from shelld.log import Log

_log = Log("shelld.programs.hangup")
_LOOK_AGAIN_S = 0.05


@dataclass(slots=True)
class _EndingSession:
    """One session that is being ended; times are of the loop's clock, None once past."""

    hang_up: bool
    term_at: float
    kill_at: float


class SessionTerminator:
    """The ending of sessions in the background. One per shelld: one read of /proc serves all of them."""

    def __init__(self, grace_s: float, look: Callable[[], Iterable[proc.Process]] = proc.processes) -> None:
        """Take the seconds from HUP to KILL; TERM is sent after half of them."""
        self._grace_s = grace_s
        self._look = look
        self._ending: dict[int, _EndingSession] = {}
        self._task: asyncio.Task[None] | None = None

    def hang_up(self, session: int) -> None:
        """Start to end a session; returns at once."""
        now = asyncio.get_running_loop().time()
        self._ending.setdefault(session, _EndingSession(True, now + self._grace_s / 2, now + self._grace_s))
        if self._task is None or self._task.done():
            self._task = aio.spawn(self._end_sessions(), name="hang-up")

    async def end_all(self, spared: frozenset[int]) -> None:
        """End every process below shelld except `spared`, `nohup` or not: the workspace stops.

        Returns when none is left, shortly after KILL.
        """
        now = asyncio.get_running_loop().time()
        ending = _EndingSession(True, now + self._grace_s / 2, now + self._grace_s)
        while True:
            below = proc.descendants(os.getpid(), self._look())
            pids = [
                process.pid for process in below if process.state not in "ZX" and process.pid not in spared
            ]
            if not pids:
                return
            _send(pids, _due(ending, asyncio.get_running_loop().time()))
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _end_sessions(self) -> None:
        while self._ending:
            self._step(asyncio.get_running_loop().time())
            if self._ending:
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _step(self, now: float) -> None:
        members: dict[int, list[int]] = {}
        for process in self._look():
            if process.session in self._ending and process.state not in "ZX":
                members.setdefault(process.session, []).append(process.pid)
        for session, ending in list(self._ending.items()):
            pids = [pid for pid in members.get(session, ()) if not proc.ignores_hup(pid)]
            if not pids:
                del self._ending[session]
                continue
            _send(pids, _due(ending, now))


def _send(pids: Iterable[int], numbers: Iterable[signal.Signals]) -> None:
    for number in numbers:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _due(ending: _EndingSession, now: float) -> tuple[signal.Signals, ...]:
    """Return the signals to send now; CONT lets a stopped job receive the others."""
    if ending.hang_up:
        ending.hang_up = False
        return signal.SIGHUP, signal.SIGCONT
    if now >= ending.kill_at:
        return (signal.SIGKILL,)
    if now >= ending.term_at:
        ending.term_at = float("inf")
        return signal.SIGTERM, signal.SIGCONT
    return ()
