"""Progress and cancellation in the client's terminal while the workspace of a channel starts."""

import asyncio
import time
from types import TracebackType
from typing import Self

from proxy.access import notices
from proxy.access.relay import STDERR, Inbound, Outbound
from proxy.aio import TaskOwner
from proxy.model import Exec, Progress, Pty, Shell, Subsystem

_QUIET_S = 0.5  # a warm workspace answers sooner, and then nothing is drawn
_REDRAW_S = 0.1
_NO_CURSOR = ("", "dumb")  # TERM of Emacs' shells and of scripts with `ssh -tt`
_VINTR = 1  # RFC 4254 §8
_CTRL_C = 3


class StartCancelled(Exception):
    """The user cancelled the start of the workspace; only this channel ends."""


class StartProgress:
    """The progress display of one start, as an async context manager.

    It redraws one line on a PTY, writes plain lines to stderr without a PTY, and shows nothing for a
    subsystem. Inside, the interrupt character of the PTY cancels the body, which then ends in StartCancelled.
    Other input stays in `inbound` for the program.
    """

    def __init__(
        self, inbound: Inbound, outbound: Outbound, pty: Pty | None, kind: Shell | Exec | Subsystem
    ) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._pty = pty
        self._silent = isinstance(kind, Subsystem)
        self._tasks = TaskOwner("waiting")
        self._progress: Progress | None = None
        self._changed = asyncio.Event()
        self._drawn = False
        self._body: asyncio.Task[object] | None = None
        self._given_up = False

    def report(self, progress: Progress) -> None:
        """Show `progress` from now on."""
        self._progress = progress
        self._changed.set()

    def resized(self, pty: Pty) -> None:
        """Draw for another terminal size from now on."""
        self._pty = pty

    def give_up(self) -> None:
        """Cancel the body, as Ctrl-C in the terminal does."""
        if self._body is not None and not self._given_up:
            self._given_up = True
            self._body.cancel()

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        if not self._silent:
            draws = self._pty is not None and self._pty.term not in _NO_CURSOR
            self._tasks.spawn(self._draw() if draws else self._note(), name="progress")
        if self._pty is not None:
            interrupt = self._pty.modes.get(_VINTR, _CTRL_C)
            self._tasks.spawn(self._watch(interrupt), name="interrupt")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        self._tasks.cancel()
        if self._drawn:
            await self._outbound.say(notices.ERASE_LINE)
        if self._given_up and body is not None and body.uncancel() == 0:
            raise StartCancelled from None

    async def _watch(self, interrupt: int) -> None:
        while True:
            await self._inbound.wait()
            if interrupt in self._inbound.peek():
                self._inbound.discard()
                self.give_up()
                return
            self._inbound.forget_wakeup()

    async def _draw(self) -> None:
        assert self._pty is not None
        started = time.monotonic()
        unicode = self._pty.term != "linux"
        await asyncio.sleep(_QUIET_S)
        tick = 0
        while True:
            if self._progress is not None:
                elapsed_s = time.monotonic() - started
                columns = self._pty.window.columns or 80
                self._drawn = True
                await self._outbound.say(
                    notices.progress_line(self._progress, elapsed_s, tick, columns, unicode=unicode)
                )
            tick += 1
            await asyncio.sleep(_REDRAW_S)

    async def _note(self) -> None:
        await asyncio.sleep(_QUIET_S)
        said = ""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._progress is not None and self._progress.text != said:
                said = self._progress.text
                note = notices.progress_note(self._progress, pty=self._pty is not None)
                await self._outbound.say(note, None if self._pty else STDERR)
