"""The one reaper: it waits for every child, and passes each status to the owner of the child.

No other code of shelld waits for a child, so no exit status can be lost. As PID 1 or sub-reaper shelld is the
parent of every orphan of the workspace too; their statuses are discarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

from shelld.log import Log

_log = Log("shelld.launch.reaper")
_PR_SET_CHILD_SUBREAPER = 36

End = os.waitid_result


class Reaper:
    """A collector of children on SIGCHLD. One per process, on the event loop's thread."""

    def __init__(self) -> None:
        """Create a reaper that does nothing before `install`."""
        self._ends: dict[int, asyncio.Future[End]] = {}
        self._early: dict[int, End] = {}
        self._launching = 0

    def install(self) -> None:
        """Start to collect; children that ended before are collected now.

        Outside PID 1 shelld becomes a sub-reaper: orphans of its programs become its children, and not those
        of an init that knows nothing of them.
        """
        if os.getpid() != 1 and ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            _log.warning("not a sub-reaper: programs cannot be awaited")
        loop = asyncio.get_running_loop()
        # Not add_signal_handler: uvloop reserves SIGCHLD. A Python handler may run between any two
        # byte codes, so it only schedules a call on the loop.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self.collect))
        self.collect()

    def uninstall(self) -> None:
        """Stop collecting, before the event loop is closed."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    @contextlib.contextmanager
    def launching(self) -> Iterator[None]:
        """Keep the statuses of unknown children while a child is started whose pid is not known yet."""
        self._launching += 1
        try:
            yield
        finally:
            self._launching -= 1
            if not self._launching:
                self._early.clear()

    def watch(self, pid: int) -> asyncio.Future[End]:
        """Return the end of a child as a future; call inside `launching`."""
        end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        early = self._early.pop(pid, None)
        if early is not None:
            end.set_result(early)
        else:
            self._ends[pid] = end
        return end

    def collect(self) -> None:
        """Wait for every child that has ended; one SIGCHLD may stand for many."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._hand_over(ended)

    def _hand_over(self, ended: End) -> None:
        end = self._ends.pop(ended.si_pid, None)
        if end is None:
            if self._launching:
                self._early[ended.si_pid] = ended
        elif not end.done():
            end.set_result(ended)
