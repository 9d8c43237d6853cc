"""One program from its start to its last byte.

Order at the end: all output, then the end of the process, which `converse` sends. As with `sshd`, a program
without a PTY lasts until it has exited *and* no process has its stdout and stderr open any more; with a PTY
the kernel takes the terminal away from the remaining processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from shelld import aio
from shelld.errors import ProtocolError, StartCode, StartError
from shelld.launch.account import Account
from shelld.launch.launch import Command, Launcher, LaunchError
from shelld.launch.reaper import End
from shelld.log import Log
from shelld.programs.hangup import SessionTerminator
from shelld.programs.pty import PtySpec, WindowSize, send_break, set_window
from shelld.programs.stdio import OutputSource, Stdio

_log = Log("shelld.programs.program")
_EXIT_FOLLOWS_S = 0.02
"""A program that ends closes its output up to this many seconds before its status is available."""

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
    """The end of a program: a status of 0 to 255, or a signal."""

    status: int = 0
    signal: str = ""
    """The signal without "SIG"; a name outside RFC 4254 section 6.10 has an "@".

    Empty: the program exited.
    """
    core_dumped: bool = False


@dataclass(frozen=True, slots=True)
class Eof:
    """The end of stdin."""


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """A signal for the program's job; `name` without "SIG"."""

    name: str


@dataclass(frozen=True, slots=True)
class BreakRequest:
    """A break on the terminal line."""


@dataclass(frozen=True, slots=True)
class StdoutClose:
    """The client's close of stdout: it reads no more of it."""


Input = memoryview | Eof | WindowSize | SignalRequest | BreakRequest | StdoutClose


class Output(Protocol):
    """The receiver of a program's output; each call returns when there is room for more."""

    async def stdout(self, data: bytes) -> None:
        """Send 1 to MAX_FRAME_BYTES of stdout."""

    async def stderr(self, data: bytes) -> None:
        """Send 1 to MAX_FRAME_BYTES of stderr."""

    async def stdout_eof(self) -> None:
        """Report that no output will follow although the program is still running."""

    async def exit(self, ended: Ended) -> None:
        """Report the program's end, after everything else."""

    async def stdin_consumed(self, count: int) -> None:
        """Report that the program read `count` more bytes of stdin (at least 1)."""


class Program:
    """A started program; `close` must always be called."""

    def __init__(
        self, pid: int, end: asyncio.Future[End], stdio: Stdio, terminator: SessionTerminator
    ) -> None:
        """Take the parts of a program; see `start`."""
        self.pid = pid
        self.tty = stdio.tty
        self._end = end
        self._stdio = stdio
        self._terminator = terminator
        self._finished = False

    async def converse(self, receive: Callable[[], Awaitable[Input | None]], output: Output) -> None:
        """Carry bytes both ways until the program has ended, and send its end after all output.

        `receive` returns None when the client sends no more. Input after the program's end is dropped until
        then, without a time limit: gRPC does not report what the client has read, and a call that ends during
        a write of the client loses the frames that it has not read yet. gRPC's keepalive finds a client that
        vanished. stdout and stderr keep their order each, not between each other.

        Raises: ProtocolError for input after its end; the exceptions of `receive` and `output`.
        Cancelled: the caller's `close` hangs the program up.
        """
        feeding = aio.spawn(self._feed(receive), name=f"input {self.pid}")
        writing = aio.spawn(self._stdio.stdin.run(output.stdin_consumed), name=f"stdin {self.pid}")
        ending = aio.spawn(self._drain(output), name=f"output {self.pid}")
        try:
            await asyncio.wait({feeding, ending}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and not ending.done():
                feeding.result()
            ended = await ending
            self._finished = True
            await output.exit(ended)
            await aio.end([writing])
            self._stdio.stdin.discard()  # a descriptor that a child still has open would delay the client
            await asyncio.wait({feeding})
        finally:
            await aio.end([feeding, writing, ending])

    def hang_up(self) -> None:
        """Start to end the program while its last output is still carried."""
        self._terminator.hang_up(self.pid)

    def close(self) -> None:
        """Close every descriptor; hang the session up unless it ended by itself."""
        self._stdio.close()  # for a PTY this is the hang-up itself
        if not self._finished:
            self._terminator.hang_up(self.pid)

    async def _drain(self, output: Output) -> Ended:
        pumps = [aio.spawn(self._pump_stdout(output), name=f"stdout {self.pid}")]
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

    async def _pump_stdout(self, output: Output) -> None:
        """Carry stdout to its end or until it is not read any more, then close this end of its pipe."""
        await _pump(self._stdio.out, output.stdout)
        self._stdio.close_out()

    async def _feed(self, receive: Callable[[], Awaitable[Input | None]]) -> None:
        ended = False
        while (item := await receive()) is not None:
            if isinstance(item, memoryview):
                if ended:
                    raise ProtocolError("stdin after its end")
                await self._stdio.stdin.put(item)
            elif isinstance(item, Eof):
                ended = True
                self._stdio.stdin.put_eof()
            elif isinstance(item, WindowSize):
                self._resize(item)
            elif isinstance(item, SignalRequest):
                self._signal(item.name)
            elif isinstance(item, StdoutClose):
                self._stdio.abandon_out()
            else:
                self._break()
        self._stdio.stdin.put_eof()

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
    """Return the end that waitid(2) reported."""
    if end.si_code == os.CLD_EXITED:
        return Ended(status=end.si_status)
    try:
        name = signal.Signals(end.si_status).name.removeprefix("SIG")
    except ValueError:
        name = f"RT{end.si_status}"
    if name not in SIGNALS:
        name = f"{name}@fairlead"
    return Ended(signal=name, core_dumped=end.si_code == os.CLD_DUMPED)


async def _pump(source: OutputSource, deliver: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await source.read():
        await deliver(data)


async def start(
    command: Command,
    account: Account,
    pty: PtySpec | None,
    *,
    launcher: Launcher,
    terminator: SessionTerminator,
) -> Program:
    """Start a program with a terminal or with three pipes.

    Raises: StartError with a sentence.
    Cancelled: a program that was started already is hung up.
    """
    stdio = Stdio.terminal(account, pty) if pty is not None else Stdio.pipes(account)
    if stdio.tty:
        command = replace(command, env={**command.env, "SSH_TTY": stdio.tty})
    launching = aio.spawn(
        launcher.start(command, account.ids, stdio.theirs, tty=bool(stdio.tty)), name="launch"
    )
    try:
        pid, end = await asyncio.shield(launching)
    except LaunchError as error:
        stdio.close()
        raise _start_error(error, command.path) from error
    except BaseException:
        launching.add_done_callback(lambda task: _abandon(task, stdio, terminator))
        raise
    stdio.close_theirs()
    return Program(pid, end, stdio, terminator)


def _abandon(
    launching: asyncio.Task[tuple[int, asyncio.Future[End]]], stdio: Stdio, terminator: SessionTerminator
) -> None:
    stdio.close()
    if not launching.cancelled() and launching.exception() is None:
        terminator.hang_up(launching.result()[0])


def _start_error(error: OSError, path: str) -> StartError:
    reason = f"{path}: {error.strerror}"
    stage = error.stage if isinstance(error, LaunchError) else "shelld"
    if stage != "exec":
        return StartError(
            StartCode.RESOURCES, f"the program could not be started ({stage}): {error.strerror}"
        )
    if isinstance(error, FileNotFoundError) or error.errno in {2, 20}:
        return StartError(StartCode.NOT_FOUND, reason)
    if error.errno in {8, 13}:
        return StartError(StartCode.NOT_EXECUTABLE, reason)
    return StartError(StartCode.RESOURCES, reason)
