"""One session channel: its requests, the wait for the workspace, the program, the end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import TypeVar, cast

import asyncssh

from proxy.access.gateway import Running
from proxy.access.lobby import is_lobby
from proxy.access.policy import CONTROLS, SUBSYSTEMS
from proxy.access.recording_tap import RecordedOutbound, heard
from proxy.access.relay import ChannelTraffic, Inbound, Outbound, ProgramStream, Sink, relay_program
from proxy.errors import EXIT_LINK, EXIT_REFUSED, FairleadError, exit_status_of
from proxy.errors.programs import Refused
from proxy.errors.upstream import UpstreamError
from proxy.model import (
    Exec,
    Exit,
    ExitSignal,
    ExitStatus,
    ProgramSpec,
    Pty,
    Shell,
    Subsystem,
    WindowSize,
)
from proxy.recording.recorder import Recorder
from proxy.sessions.kinds import kind_of
from proxy.sessions.live import LiveProgram
from proxy.sessions.records import End, EndReason
from proxy.ssh import prompts
from proxy.ssh.asyncssh_ext.channels import SessionChannel
from proxy.ssh.forced import Forced, force
from proxy.ssh.progress import Cancelled, Waiting
from proxy.ssh.served import Served
from proxy.ssh.sshagent import SshAgent
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.streams import Program

_T = TypeVar("_T")
_ENDING_SIGNALS = frozenset({"INT", "TERM", "HUP", "QUIT", "KILL"})
_CANCELLED_STATUS = 130  # what a shell reports for a program that Ctrl-C ended
_TERM_CHARS = 256
"""Of a terminal's name; longer ones name no terminal."""
_MAX_UNTOLD = 64
"""Signals and breaks of one channel that the workspace has not taken yet."""
_LAST_WORDS_S = 2.0
"""A client that reads nothing cannot keep its program from being ended."""


class ProgramSession(asyncssh.SSHServerSession[bytes]):
    """State of one session channel; the connection holds none of it."""

    def __init__(self, served: Served, ssh_agent: SshAgent) -> None:
        """`ssh_agent` is that of the connection."""
        self._served = served
        self._ssh_agent = ssh_agent
        self._visit = served.visit
        self._inbound = Inbound(served.relay.buffer_bytes)
        self._outbound = Outbound(served.conn.writable)
        self._chan: SessionChannel | None = None
        self._kind: Shell | Exec | Subsystem | None = None
        self._forced: Forced | None = None
        self._env: dict[str, str] = {}
        self._env_bytes = 0
        self._left_out = 0
        self._untold = 0
        self._has_reader = True
        self._limits = served.limits
        self._pty: Pty | None = None
        self._wants_ssh_agent = False
        self._waiting: Waiting | None = None
        self._program: Program | None = None
        self._recorder: Recorder | None = None
        self._screen: Sink = self._outbound
        """Where the person sees things; a recorder may look on."""
        self._ran = False
        self._task: asyncio.Task[None] | None = None
        self._record: LiveProgram | None = None
        self._leash = asyncio.timeout(None)
        self._ordered: tuple[str, End] | None = None

    # -------------------------------------------------------------------- requests of the channel

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = cast(SessionChannel, chan)
        self._inbound.attach(self._chan)
        self._outbound.attach(self._chan)

    def env_requested(self, name: bytes, value: bytes) -> bool:
        """Keep a variable; which ones a program sees is decided in the workspace (RFC 4254 §6.4)."""
        self._env_bytes += len(name) + len(value)
        is_full = len(self._env) >= self._limits.max_env_variables
        if is_full or self._env_bytes > self._limits.max_env_bytes:
            self._left_out += 1
            return False
        try:
            self._env[name.decode()] = value.decode()
        except UnicodeDecodeError:
            return False
        return True

    def ssh_agent_requested(self) -> bool:
        """Note that this channel's program wants the client's ssh-agent."""
        self._wants_ssh_agent = True
        return True

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        if self._kind is not None:
            return False  # the program runs already, and has none
        if len(term_type) > _TERM_CHARS:
            return False
        self._pty = Pty(term_type, WindowSize(*term_size), dict(term_modes))
        return True

    def shell_requested(self) -> bool:
        return self._asked(Shell())

    def exec_requested(self, command: str) -> bool:
        return self._asked(Exec(command))

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem in SUBSYSTEMS and self._asked(Subsystem(subsystem))

    def _asked(self, kind: Shell | Exec | Subsystem) -> bool:
        """Take note of what is to run: what the client asked for, or what its certificate forces."""
        assert self._chan is not None
        self._kind = kind
        if (command := self._chan.forced_command) is not None:
            self._forced = force(command, kind)
            self._kind = self._forced.kind
        return True

    def session_started(self) -> None:
        self._task = self._served.tasks.spawn(self._live(), name="program")

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._pty is None:
            return
        size = WindowSize(width, height, pixwidth, pixheight)
        self._pty = Pty(self._pty.term, size, self._pty.modes)
        if self._program is not None:
            self._resize(self._program, size)
        elif self._waiting is not None:
            self._waiting.resized(self._pty)

    def _resize(self, program: Program, size: WindowSize) -> None:
        if self._recorder is not None:
            self._recorder.resize(size)
        self._tell(program.resize(size), "resize")

    def signal_received(self, signal: str) -> None:
        if self._program is not None:
            self._tell_if_few(self._program.signal, signal)
        elif self._waiting is not None and signal in _ENDING_SIGNALS:
            self._waiting.give_up()

    def break_received(self, msec: int) -> bool:
        if self._program is None:
            return False
        return self._tell_if_few(self._program.send_break, msec)

    def reader_left(self) -> None:
        """Close the program's stdout: at the client nobody reads it any more.

        With a terminal nothing is done: `sshd` lets the program go on until its terminal is full.
        """
        if self._pty is not None or not self._has_reader:
            return
        self._has_reader = False
        self._outbound.abandon_stdout()
        self._close_unread()

    def _close_unread(self) -> None:
        if self._program is not None and not self._has_reader:
            self._tell(self._program.close_stdout(), "close stdout")

    def data_received(self, data: Buffer, datatype: int | None) -> None:
        if datatype is None:
            self._inbound.feed(data)

    def eof_received(self) -> bool:
        self._inbound.feed_eof()
        return True  # the program's output goes on

    def pause_writing(self) -> None:
        self._outbound.gate.shut()

    def resume_writing(self) -> None:
        self._outbound.gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._outbound.gate.open()
        if self._record is not None and not self._served.conn.is_over:
            self._record.ended(End(EndReason.LEFT))
        if self._task is not None:
            self._task.cancel()

    def _tell(self, call: Awaitable[None], what: str) -> "asyncio.Task[None]":
        return self._served.tasks.spawn(_ignore_lost(call), name=what)

    def _tell_if_few(self, call: Callable[[_T], Awaitable[None]], value: _T) -> bool:
        """Pass on a signal or a break, unless so many wait for the workspace that this one means nothing."""
        if self._untold >= _MAX_UNTOLD:
            return False
        self._untold += 1
        self._tell(call(value), call.__name__).add_done_callback(self._told)
        return True

    def _told(self, _: "asyncio.Task[None]") -> None:
        self._untold -= 1

    # --------------------------------------------------------------------------------- the life

    async def _live(self) -> None:
        """Run the program and end the channel: output, then exit-status or exit-signal, then close.

        EOF is never sent before the status (RFC 4254 §6.10): some clients close at once on EOF.
        """
        assert self._kind is not None
        kind = self._kind
        await self._served.openings.begin()
        self._record = self._served.live.begin(
            kind_of(kind),
            ChannelTraffic(self._inbound, self._outbound),
            self,
            command=kind.command if isinstance(kind, Exec) else "",
            pty=self._pty is not None,
        )
        try:
            async with self._leash:
                exit_, end = await self._outcome()
                await self._outbound.flush()
        except TimeoutError:
            assert self._ordered is not None
            sentence, end = self._ordered
            exit_ = ExitStatus(EXIT_REFUSED)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._say(prompts.announcement(sentence, pty=self._pty is not None))
                    await self._outbound.flush()
        self._record.ended(end)
        self._end(exit_)

    async def _outcome(self) -> tuple[Exit, End]:
        """Run the program, and say to the person what went wrong; gives the end for client and record."""
        pty = self._pty is not None
        try:
            exit_ = await self._run()
        except Cancelled:
            await self._say(prompts.cancelled(pty=pty))
            return ExitStatus(_CANCELLED_STATUS), End(EndReason.CANCELLED)
        except FairleadError as exc:
            self._served.log.info("program failed", code=exc.code, reason=str(exc))
            await self._say(prompts.failure(exc, self._served.conn_id, pty=pty, ran=self._ran))
            reason = EndReason.REFUSED if isinstance(exc, Refused) else EndReason.FAILED
            return ExitStatus(exit_status_of(exc)), End(reason, exc.code)
        except Exception as exc:
            self._served.log.exception("program failed by a bug")
            await self._say(prompts.failure(exc, self._served.conn_id, pty=pty, ran=self._ran))
            return ExitStatus(EXIT_LINK), End(EndReason.BUG)
        if isinstance(exit_, ExitSignal):
            return exit_, End(EndReason.EXITED, exit_signal=exit_.name)
        return exit_, End(EndReason.EXITED, exit_status=exit_.status)

    # ---------------------------------------------------------------------------- from outside

    def warn(self, sentence: str) -> None:
        """Tell the person on the terminal or on stderr; file transfers have no place for it."""
        if self._ran and not isinstance(self._kind, Subsystem):
            text = prompts.announcement(sentence, pty=self._pty is not None)
            self._served.tasks.spawn(self._say(text), name="warning")

    def end(self, sentence: str, end: End) -> None:
        """End the program with a sentence; the others of this connection go on."""
        if self._ordered is None and self._task is not None and not self._task.done():
            self._ordered = (sentence, end)
            self._leash.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> Exit:
        """Get a program running, whatever that takes, and carry its bytes."""
        assert self._kind is not None
        self._check_command(self._kind)
        if is_lobby(self._visit):
            return await self._answer_in_lobby(self._kind)
        if isinstance(self._kind, Subsystem) and self._kind.name in CONTROLS:
            return await self._manage(self._kind.name)
        async with AsyncExitStack() as stack:
            asked = self._pty
            self._waiting = Waiting(self._inbound, self._outbound, asked, self._kind)
            async with self._waiting as waiting:
                running = await self._start(stack, self._kind, waiting)
            self._waiting = None
            program, recorder = running.program, running.recorder
            self._program, self._recorder = program, recorder
            self._ran = True
            if self._left_out and not isinstance(self._kind, Subsystem):
                await self._say(prompts.env_left_out(self._left_out, self._limits, pty=self._pty is not None))
            carried: ProgramStream = program
            if recorder is not None:
                carried = await self._look_on(recorder, program)
            if self._pty is not None and self._pty is not asked:
                # The recorder knows the size that was asked for, the program perhaps a later one.
                self._resize(program, self._pty.window)
            if isinstance(self._kind, Shell) and self._pty is not None:
                await self._screen.say(prompts.splash(running.splash))
            self._close_unread()
            stack.callback(self._forget_program)
            end = await relay_program(
                carried,
                self._inbound,
                self._screen,
                asyncssh.EXTENDED_DATA_STDERR,
                running.link.max_frame_bytes,
                self.warn,
            )
            if recorder is not None:
                recorder.end = prompts.end_of(end)
            return end

    def _check_command(self, kind: Shell | Exec | Subsystem) -> None:
        """Refuse what a certificate does not permit, and what is too long. Raises: Refused."""
        if self._forced is not None:
            self._check_length(self._forced.original_command)
            if self._forced.refusal:
                raise Refused(self._forced.refusal)
        elif isinstance(kind, Exec):
            self._check_length(kind.command)

    def _check_length(self, command: str) -> None:
        """Refuse a command that no program could be given. Raises: Refused."""
        size, most = len(command.encode()), self._limits.max_command_bytes
        if size > most:
            raise Refused(f"the command has {size:,} bytes, and at most {most:,} are taken")

    async def _look_on(self, recorder: Recorder, program: Program) -> ProgramStream:
        """Let a recorder see what the person sees from here on, and tell them."""
        self._screen = RecordedOutbound(self._outbound, recorder)
        await self._say(prompts.recorded(pty=self._pty is not None))
        return heard(program, recorder)

    async def _answer_in_lobby(self, kind: Shell | Exec | Subsystem) -> Exit:
        """Carry out a command of the lobby, whose answer is the program's output."""
        said = await self._served.gateway.lobby.run(self._visit, kind)
        line_end = b"\r\n" if self._pty is not None else b"\n"
        await self._outbound.write(said.out.encode().replace(b"\n", line_end))
        await self._say(said.err.encode().replace(b"\n", line_end))
        return ExitStatus(said.status)

    async def _manage(self, what: str) -> Exit:
        """Do what is about the workspace and not in it; the answer is the program's stdout."""
        async with Waiting(self._inbound, self._outbound, self._pty, Exec(what)) as waiting:
            told = await self._served.gateway.control(self._visit, what, waiting.report)
        await self._outbound.write("".join(f"{line}\n" for line in told.splitlines()).encode())
        return ExitStatus(0)

    async def _start(
        self, stack: AsyncExitStack, kind: Shell | Exec | Subsystem, waiting: Waiting
    ) -> Running:
        ssh_agent = ""
        if self._wants_ssh_agent:
            using = self._ssh_agent.use(self._visit, waiting.report)
            ssh_agent = await stack.enter_async_context(using)
        assert self._record is not None
        user_rc = self._chan is not None and self._chan.permits_user_rc
        original = "" if self._forced is None else self._forced.original_command
        starting = self._served.gateway.program(
            self._visit,
            lambda: ProgramSpec(kind, self._env, self._pty, ssh_agent, original, user_rc),
            self._record.id,
            waiting.report,
        )
        return await stack.enter_async_context(starting)

    def _forget_program(self) -> None:
        self._program = None

    async def _say(self, text: bytes) -> None:
        datatype = None if self._pty is not None else asyncssh.EXTENDED_DATA_STDERR
        await self._screen.say(text, datatype)

    def _end(self, end: Exit) -> None:
        chan = self._chan
        if chan is None or chan.is_closing():
            return
        if isinstance(end, ExitStatus):
            chan.exit(end.status)
        else:
            chan.exit_with_signal(end.name, end.core_dumped)


async def _ignore_lost(call: Awaitable[None]) -> None:
    """A program that has just ended needs no resize or signal any more."""
    try:
        await call
    except UpstreamError:
        return
