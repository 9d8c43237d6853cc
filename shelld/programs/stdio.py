"""A program's stdin, stdout and stderr: shelld's ends of them, and until its start the program's."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from shelld.errors import StartCode, StartError
from shelld.launch.account import Account
from shelld.launch.fds import Sink, Source, TtySource
from shelld.programs.pty import PtySpec, open_pty

STDIN_WINDOW_BYTES = 4 * 1024 * 1024
"""Limit for stdin that the program has not read; the client learns it and keeps within it."""
_REPORT_BYTES = STDIN_WINDOW_BYTES // 4


class OutputSource(Protocol):
    """The source of a program's output."""

    async def read(self) -> bytes:
        """Return 1 to MAX_FRAME_BYTES; b"" is the end."""


class Stdin:
    """Stdin that the program has not read yet, at most STDIN_WINDOW_BYTES and one frame.

    It waits here and not in the stream. The stream carries signals and window changes too, and those must
    overtake the input of a program that does not read.
    """

    def __init__(self, sink: Sink, close: Callable[[], None]) -> None:
        """Take the sink, and a function that is called once when no more will be written."""
        self._sink = sink
        self._close = close
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._consumed = 0
        self._ended = False
        self._open = True
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, data: memoryview) -> None:
        """Accept stdin; returns when there is room for more.

        Bytes that can never be read are dropped, as a broken pipe drops them.
        """
        if not self._open:
            self._took(len(data))
            return
        if not self._waiting:  # the fast path, for a keystroke and for a program that reads at once
            written = self._sink.offer(data)
            if written is None:
                self.discard()
                written = len(data)
            self._took(written)
            data = data[written:]
        if data:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._work.set()
        while self._waiting_bytes > STDIN_WINDOW_BYTES:
            self._room.clear()
            await self._room.wait()

    def put_eof(self) -> None:
        """Close stdin after the last waiting byte."""
        self._ended = True
        if not self._waiting:
            self.shut()

    async def run(self, report: Callable[[int], Awaitable[None]]) -> None:
        """Write the waiting bytes, and report how much the program read; cancelled with the program."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting or self._consumed >= _REPORT_BYTES:
                if self._waiting:
                    await self._write_one()
                if self._consumed >= _REPORT_BYTES:
                    taken, self._consumed = self._consumed, 0
                    await report(taken)
            if self._ended:
                self.shut()

    async def _write_one(self) -> None:
        data = self._waiting[0]
        if not await self._sink.write(data):
            self.discard()
            return
        self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._took(len(data))
        self._room.set()

    def _took(self, count: int) -> None:
        self._consumed += count
        if self._consumed >= _REPORT_BYTES:
            self._work.set()

    def discard(self) -> None:
        """Drop waiting and later bytes: the program reads no more."""
        self._took(self._waiting_bytes)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._room.set()
        self.shut()

    def shut(self) -> None:
        """Stop writing at once."""
        if self._open:
            self._open = False
            self._close()


class Stdio:
    """shelld's ends of the streams; `close` closes all of them."""

    stdin: Stdin
    out: OutputSource
    err: OutputSource | None = None
    tty = ""
    """Path of the slave; empty for pipes."""
    master = -1
    _pipe_out: Source | None = None
    """The source `out` without a terminal."""
    _out_fd = -1

    def __init__(self, theirs: tuple[int, int, int], ours: set[int]) -> None:
        """Take the descriptors; see `terminal` and `pipes`."""
        self.theirs = theirs
        self._ours = ours

    @classmethod
    def terminal(cls, account: Account, spec: PtySpec) -> Stdio:
        """Open a terminal. Raises: StartError NO_PTY."""
        pty = open_pty(account, spec)
        stdio = cls((pty.slave, pty.slave, pty.slave), {pty.master})
        stdio.tty, stdio.master = pty.path, pty.master
        # A terminal's input cannot end before its output, and `sshd` does not pretend that it can.
        stdio.stdin = Stdin(Sink(pty.master), lambda: None)
        stdio.out = TtySource(pty.master)
        return stdio

    @classmethod
    def pipes(cls, account: Account) -> Stdio:
        """Open three pipes. Raises: StartError RESOURCES."""
        made: list[int] = []
        try:
            for _ in range(3):
                made.extend(os.pipe())
        except OSError as error:
            for fd in made:
                os.close(fd)
            raise StartError(StartCode.RESOURCES, f"no pipe is to be had: {error.strerror}") from error
        stdin_read, stdin_write, out_read, out_write, err_read, err_write = made
        stdio = cls((stdin_read, out_write, err_write), {stdin_write, out_read, err_read})
        for fd in stdio._ours:
            os.set_blocking(fd, False)
        if account.ids is not None:
            for fd in stdio.theirs:
                os.fchown(fd, account.uid, account.gid)  # otherwise /dev/stderr could not be opened by name
        stdio.stdin = Stdin(Sink(stdin_write, pipe=True), lambda: stdio._give_back(stdin_write))
        stdio.out = stdio._pipe_out = Source(out_read, pipe=True)
        stdio._out_fd = out_read
        stdio.err = Source(err_read, pipe=True)
        return stdio

    def close_theirs(self) -> None:
        """Close the program's ends, after its start."""
        for fd in set(self.theirs) - {-1}:
            os.close(fd)
        self.theirs = (-1, -1, -1)

    def abandon_out(self) -> None:
        """End the reads of stdout: the next one returns the end. With a terminal nothing is done.

        `sshd` does not close a terminal's output either: the program would be hung up.
        """
        if self._pipe_out is not None:
            self._pipe_out.abandon()

    def close_out(self) -> None:
        """Close this end of stdout's pipe, so that a program that still writes gets SIGPIPE or EPIPE.

        Call it when `out` is not read any more. With a terminal nothing is done.
        """
        if self._out_fd in self._ours:
            self._give_back(self._out_fd)

    def close(self) -> None:
        """Close everything; for a terminal this hangs up its session."""
        self.stdin.shut()
        self.close_theirs()
        while self._ours:
            os.close(self._ours.pop())

    def _give_back(self, fd: int) -> None:
        self._ours.discard(fd)
        os.close(fd)
