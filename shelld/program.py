"""One program from its start to its last byte.

Order of an ending: all output, then the end of the process, which `converse` returns. As with
`sshd`, a program without a PTY lasts until it has exited *and* nobody holds its stdout and stderr
any more; with a PTY the kernel takes the terminal away from whoever is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shelld import aio
from shelld.account import Account
from shelld.errors import ProtocolError, StartCode, StartError
from shelld.farewell import Farewell
from shelld.fds import Sink, Source, TtySource
from shelld.launch import Command, Launcher, LaunchError
from shelld.log import Log
from shelld.pty import PtySpec, WindowSize, open_pty, send_break, set_window
from shelld.reaper import End

_log = Log("shelld.program")
_EXIT_FOLLOWS_S = 0.02
"""A program that ends closes its output a moment before its status is there."""

SIGNALS = {
    name: getattr(signal, f"SIG{name}")
    for name in (
        "ABRT",
        "ALRM",
        "FPE",
        "HUP",
        "ILL",
        "INT",
        "KILL",
        "PIPE",
        "QUIT",
        "SEGV",
        "TERM",
        "USR1",
        "USR2",
    )
}
"""RFC 4254 section 6.10."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: by a status of 0 to 255, or by a signal."""

    status: int = 0
    signal: str = ""
    """Without "SIG"; a name outside RFC 4254 section 6.10 has an "@". Empty: it exited."""
    core_dumped: bool = False


@dataclass(frozen=True, slots=True)
class Eof:
    """No more stdin."""


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """A signal for the program's job; `name` without "SIG"."""

    name: str


@dataclass(frozen=True, slots=True)
class BreakRequest:
    """A break on the terminal line."""


Input = memoryview | Eof | WindowSize | SignalRequest | BreakRequest


class Output(Protocol):
    """Where a program's output goes; each call returns when there is room for more."""

    async def stdout(self, data: bytes) -> None:
        """Carry 1 to MAX_FRAME_BYTES of stdout."""

    async def stderr(self, data: bytes) -> None:
        """Carry 1 to MAX_FRAME_BYTES of stderr."""

    async def stdout_eof(self) -> None:
        """Say that no output will follow although the program lives on."""


class _Reads(Protocol):
    async def read(self) -> bytes: ...


class Program:
    """A started program; `close` must be called, whatever happens."""

    def __init__(self, pid: int, end: asyncio.Future[End], stdio: _Stdio, farewell: Farewell) -> None:
        """Made by `start`."""
        self.pid = pid
        self.tty = stdio.tty
        self._end = end
        self._stdio = stdio
        self._farewell = farewell
        self._finished = False

    async def converse(self, receive: Callable[[], Awaitable[Input | None]], output: Output) -> Ended:
        """Carry bytes both ways until the program has ended and all its output is delivered.

        `receive` returns None when the client has no more to say. stdout and stderr keep their order
        each, not between each other.

        Raises: ProtocolError for input after its end; whatever `receive` and `output` raise.
        Cancelled: the caller's `close` hangs the program up.
        """
        feeding = aio.spawn(self._feed(receive), name=f"stdin {self.pid}")
        ending = aio.spawn(self._drain(output), name=f"output {self.pid}")
        try:
            await asyncio.wait({feeding, ending}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and not ending.done():
                feeding.result()
            end = await ending
            self._finished = True
            return end
        finally:
            await aio.end([feeding, ending])

    def hang_up(self) -> None:
        """Begin to end the program while its last output is still carried."""
        self._farewell.hang_up(self.pid)

    def close(self) -> None:
        """Give back every descriptor; hang the session up unless it ended by itself."""
        self._stdio.close()  # for a PTY this is the hang-up itself
        if not self._finished:
            self._farewell.hang_up(self.pid)

    async def _drain(self, output: Output) -> Ended:
        pumps = [aio.spawn(_pump(self._stdio.out, output.stdout), name=f"stdout {self.pid}")]
        if self._stdio.err is not None:
            pumps.append(aio.spawn(_pump(self._stdio.err, output.stderr), name=f"stderr {self.pid}"))
        try:
            for pump in pumps:
                await pump
            if not self._end.done():
                await asyncio.wait({self._end}, timeout=_EXIT_FOLLOWS_S)
            if not self._end.done() and not self.tty:
                await output.stdout_eof()
            return how_it_ended(await asyncio.shield(self._end))
        finally:
            await aio.end(pumps)

    async def _feed(self, receive: Callable[[], Awaitable[Input | None]]) -> None:
        ended = False
        while (item := await receive()) is not None:
            if isinstance(item, memoryview):
                if ended:
                    raise ProtocolError("stdin after its end")
                await self._stdio.feed(item)
            elif isinstance(item, Eof):
                ended = True
                self._stdio.close_stdin()
            elif isinstance(item, WindowSize):
                self._resize(item)
            elif isinstance(item, SignalRequest):
                self._signal(item.name)
            else:
                self._break()
        self._stdio.close_stdin()

    def _resize(self, window: WindowSize) -> None:
        if self.tty:
            with contextlib.suppress(OSError):
                set_window(self._stdio.master, window)

    def _break(self) -> None:
        if self.tty:
            with contextlib.suppress(OSError, termios.error):
                send_break(self._stdio.master)

    def _signal(self, name: str) -> None:
        """Deliver a signal to the foreground job of the terminal, or to the program's group."""
        number = SIGNALS.get(name)
        if number is None:
            _log.info("unknown signal ignored", pid=self.pid, signal=name[:32])
            return
        with contextlib.suppress(OSError):
            group = os.tcgetpgrp(self._stdio.master) if self.tty else self.pid
            if group > 0 and not (group == self.pid and self._end.done()):
                os.killpg(group, number)


def how_it_ended(end: End) -> Ended:
    """Translate what waitid(2) told."""
    if end.si_code == os.CLD_EXITED:
        return Ended(status=end.si_status)
    try:
        name = signal.Signals(end.si_status).name.removeprefix("SIG")
    except ValueError:
        name = f"RT{end.si_status}"
    if name not in SIGNALS:
        name = f"{name}@fairlead"
    return Ended(signal=name, core_dumped=end.si_code == os.CLD_DUMPED)


async def _pump(source: _Reads, deliver: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await source.read():
        await deliver(data)


class _Stdio:
    """shelld's ends of a program's stdin, stdout and stderr, and for a moment the program's."""

    def __init__(self) -> None:
        self.tty = ""
        self.master = -1
        self.theirs: tuple[int, int, int] = (-1, -1, -1)
        self._ours: set[int] = set()
        self._stdin_fd = -1
        self._stdin_open = True
        self.stdin: Sink
        self.out: _Reads
        self.err: _Reads | None = None

    @classmethod
    def terminal(cls, account: Account, spec: PtySpec) -> _Stdio:
        """Raises: StartError NO_PTY."""
        pty = open_pty(account, spec)
        stdio = cls()
        stdio.tty, stdio.master = pty.path, pty.master
        stdio.theirs = (pty.slave, pty.slave, pty.slave)
        stdio._ours = {pty.master}
        stdio.stdin, stdio.out = Sink(pty.master), TtySource(pty.master)
        return stdio

    @classmethod
    def pipes(cls, account: Account) -> _Stdio:
        """Raises: StartError RESOURCES."""
        made: list[int] = []
        try:
            for _ in range(3):
                made.extend(os.pipe())
        except OSError as error:
            for fd in made:
                os.close(fd)
            raise StartError(StartCode.RESOURCES, f"no pipe is to be had: {error.strerror}") from error
        stdin_read, stdin_write, out_read, out_write, err_read, err_write = made
        stdio = cls()
        stdio.theirs = (stdin_read, out_write, err_write)
        stdio._ours = {stdin_write, out_read, err_read}
        stdio._stdin_fd = stdin_write
        for fd in stdio._ours:
            os.set_blocking(fd, False)
        if account.ids is not None:
            for fd in stdio.theirs:
                os.fchown(fd, account.uid, account.gid)  # or /dev/stderr could not be opened by name
        stdio.stdin = Sink(stdin_write, pipe=True)
        stdio.out, stdio.err = Source(out_read, pipe=True), Source(err_read, pipe=True)
        return stdio

    def close_theirs(self) -> None:
        for fd in set(self.theirs) - {-1}:
            os.close(fd)
        self.theirs = (-1, -1, -1)

    async def feed(self, data: memoryview) -> None:
        """Write stdin; what nobody will read any more is dropped, as a broken pipe drops it."""
        if self._stdin_open and not await self.stdin.write(data):
            self.close_stdin()

    def close_stdin(self) -> None:
        """Close a pipe; a terminal's input cannot end before its output, and `sshd` does not pretend."""
        if self._stdin_fd in self._ours:
            self._stdin_open = False
            self._ours.discard(self._stdin_fd)
            os.close(self._stdin_fd)

    def close(self) -> None:
        self._stdin_open = False
        self.close_theirs()
        while self._ours:
            os.close(self._ours.pop())


async def start(
    command: Command, account: Account, pty: PtySpec | None, *, launcher: Launcher, farewell: Farewell
) -> Program:
    """Start a program with a terminal or with three pipes.

    Raises: StartError with a sentence.
    Cancelled: a program that was already on its way is hung up.
    """
    stdio = _Stdio.terminal(account, pty) if pty is not None else _Stdio.pipes(account)
    if stdio.tty:
        command = Command(command.path, command.argv, {**command.env, "SSH_TTY": stdio.tty}, command.cwd)
    launching = aio.spawn(
        launcher.start(command, account.ids, stdio.theirs, tty=bool(stdio.tty)), name="launch"
    )
    try:
        pid, end = await asyncio.shield(launching)
    except LaunchError as error:
        stdio.close()
        raise _start_error(error, command.path) from error
    except BaseException:
        launching.add_done_callback(lambda task: _abandon(task, stdio, farewell))
        raise
    stdio.close_theirs()
    return Program(pid, end, stdio, farewell)


def _abandon(
    launching: asyncio.Task[tuple[int, asyncio.Future[End]]], stdio: _Stdio, farewell: Farewell
) -> None:
    stdio.close()
    if not launching.cancelled() and launching.exception() is None:
        farewell.hang_up(launching.result()[0])


def _start_error(error: LaunchError, path: str) -> StartError:
    reason = f"{path}: {error.strerror}"
    if error.stage != "exec":
        return StartError(
            StartCode.RESOURCES, f"the program could not be started ({error.stage}): {error.strerror}"
        )
    if isinstance(error, FileNotFoundError) or error.errno in {2, 20}:
        return StartError(StartCode.NOT_FOUND, reason)
    if error.errno in {8, 13}:
        return StartError(StartCode.NOT_EXECUTABLE, reason)
    return StartError(StartCode.RESOURCES, reason)
