"""The session channel: its requests, the wait for the workspace, the program and its end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from contextlib import AsyncExitStack, suppress
from typing import TypeVar, cast

import asyncssh

from proxy.access.gateway import Running
from proxy.access.lobby import is_lobby
from proxy.access.policy import CONTROLS, SUBSYSTEMS
from proxy.access.recording_tap import RecordedOutbound, tap
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
from proxy.octets import bytes_of, text_of
from proxy.recording.recorder import Recorder
from proxy.sessions.kinds import kind_of
from proxy.sessions.live import LiveProgram
from proxy.sessions.records import End, EndReason
from proxy.ssh import prompts
from proxy.ssh.asyncssh_ext.channels import SessionChannel
from proxy.ssh.asyncssh_ext.variables import AcceptedNames
from proxy.ssh.forced import Forced, force
from proxy.ssh.progress import StartCancelled, StartProgress
from proxy.ssh.served import Served
from proxy.ssh.sshagent import SshAgent
from proxy.upstream import compat
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.streams import Program

_T = TypeVar("_T")
_ENDING_SIGNALS = frozenset({"INT", "TERM", "HUP", "QUIT", "KILL"})
_CANCELLED_STATUS = 130  # the status that a shell reports for a program that Ctrl-C ended
_TERM_CHARS = 256
"""Longest name of a terminal; a request with a longer name is refused."""
_MAX_UNDELIVERED = 64
"""Signals and breaks of one channel that may wait for the workspace."""
_FINAL_WRITE_S = 2.0
"""Time for the last message: a client that reads nothing must not keep its program alive."""


class ProgramSession(asyncssh.SSHServerSession[bytes]):
    """The state of one session channel."""

    def __init__(self, served: Served, ssh_agent: SshAgent) -> None:
        """Begin without a program; `ssh_agent` is that of the connection."""
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
        self._env_left_out = 0
        self._undelivered = 0
        self._has_reader = True
        self._limits = served.limits
        self._pty: Pty | None = None
        self._wants_ssh_agent = False
        self._progress: StartProgress | None = None
        self._program: Program | None = None
        self._recorder: Recorder | None = None
        self._screen: Sink = self._outbound
        """The output as the user sees it; a recorder may be between."""
        self._ran = False
        self._task: asyncio.Task[None] | None = None
        self._record: LiveProgram | None = None
        self._deadline = asyncio.timeout(None)
        self._ordered: tuple[str, End] | None = None

    # -------------------------------------------------------------------- requests of the channel

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Attach the channel to both buffers."""
        self._chan = cast(SessionChannel, chan)
        self._inbound.attach(self._chan)
        self._outbound.attach(self._chan)

    def env_requested(self, name: bytes, value: bytes) -> bool:
        """Store a variable whose name the workspace takes, as far as is known (RFC 4254 §6.4)."""
        if not self._served.accepted_names.take(name.decode(errors="replace")):
            return False
        self._env_bytes += len(name) + len(value)
        is_full = len(self._env) >= self._limits.max_env_variables
        if is_full or self._env_bytes > self._limits.max_env_bytes:
            self._env_left_out += 1
            return False
        try:
            self._env[name.decode()] = text_of(value)
        except UnicodeDecodeError:  # no program may be given a variable of such a name
            return False
        return True

    @property
    def accepted_names(self) -> AcceptedNames:
        """See ChannelRequests."""
        return self._served.accepted_names

    def ssh_agent_requested(self) -> bool:
        """Record that this channel's program gets the client's ssh-agent."""
        self._wants_ssh_agent = True
        return True

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        """Store the terminal's name, size and modes for the program."""
        if self._kind is not None:
            return False  # the program already runs without a terminal
        if len(term_type) > _TERM_CHARS:
            return False
        self._pty = Pty(term_type, WindowSize(*term_size), dict(term_modes))
        return True

    def shell_requested(self) -> bool:
        """Accept a shell."""
        return self._asked(Shell())

    def exec_requested(self, command: str) -> bool:
        """Accept a command."""
        return self._asked(Exec(command))

    def subsystem_requested(self, subsystem: str) -> bool:
        """Accept a subsystem; an unknown one is refused when it starts, with a sentence."""
        return subsystem in SUBSYSTEMS and self._asked(Subsystem(subsystem))

    def _asked(self, kind: Shell | Exec | Subsystem) -> bool:
        """Store the request of the client, or the command that its certificate forces."""
        assert self._chan is not None
        self._kind = kind
        if (command := self._chan.forced_command) is not None:
            self._forced = force(command, kind)
            self._kind = self._forced.kind
        return True

    def session_started(self) -> None:
        """Start the task of the program."""
        self._task = self._served.tasks.spawn(self._live(), name="program")

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Pass the new size on to the program, or to the progress display while the workspace starts."""
        if self._pty is None:
            return
        size = WindowSize(width, height, pixwidth, pixheight)
        self._pty = Pty(self._pty.term, size, self._pty.modes)
        if self._program is not None:
            self._resize(self._program, size)
        elif self._progress is not None:
            self._progress.resized(self._pty)

    def _resize(self, program: Program, size: WindowSize) -> None:
        if self._recorder is not None:
            self._recorder.resize(size)
        self._deliver(program.resize(size), "resize")

    def signal_received(self, signal: str) -> None:
        """Pass a signal on to the program, or cancel the start."""
        if self._program is not None:
            self._deliver_if_few(self._program.signal, signal)
        elif self._progress is not None and signal in _ENDING_SIGNALS:
            self._progress.give_up()

    def break_received(self, msec: int) -> bool:
        """Pass a break on to the program (RFC 4335)."""
        if self._program is None:
            return False
        return self._deliver_if_few(self._program.send_break, msec)

    def reader_left(self) -> None:
        """Close the program's stdout, because the client's end of it is closed.

        With a terminal nothing is done: `sshd` lets the program go on until its terminal is full.
        """
        if self._pty is not None or not self._has_reader:
            return
        self._has_reader = False
        self._outbound.abandon_stdout()
        self._close_unread()

    def _close_unread(self) -> None:
        if self._program is not None and not self._has_reader:
            self._deliver(self._program.close_stdout(), "close stdout")

    def data_received(self, data: Buffer, datatype: int | None) -> None:
        """Store input for the program."""
        if datatype is None:
            self._inbound.feed(data)

    def eof_received(self) -> bool:
        """Record the EOF of stdin, and keep the channel open for the program's output."""
        self._inbound.feed_eof()
        return True  # the program's output goes on

    def pause_writing(self) -> None:
        """Stop writing while the channel's send buffer is full."""
        self._outbound.gate.shut()

    def resume_writing(self) -> None:
        """Continue writing."""
        self._outbound.gate.open()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the program: the channel is closed."""
        del exc
        self._outbound.gate.open()
        if self._record is not None and not self._served.conn.is_over:
            self._record.ended(End(EndReason.LEFT))
        if self._task is not None:
            self._task.cancel()

    def _deliver(self, call: Awaitable[None], what: str) -> "asyncio.Task[None]":
        return self._served.tasks.spawn(_ignore_lost(call), name=what)

    def _deliver_if_few(self, call: Callable[[_T], Awaitable[None]], value: _T) -> bool:
        """Deliver a signal or a break; drop it when too many wait for the workspace already."""
        if self._undelivered >= _MAX_UNDELIVERED:
            return False
        self._undelivered += 1
        self._deliver(call(value), call.__name__).add_done_callback(self._delivered)
        return True

    def _delivered(self, _: "asyncio.Task[None]") -> None:
        self._undelivered -= 1

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
            async with self._deadline:
                exit_, end = await self._outcome()
                await self._outbound.flush()
        except TimeoutError:
            assert self._ordered is not None
            sentence, end = self._ordered
            exit_ = ExitStatus(EXIT_REFUSED)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FINAL_WRITE_S):
                    await self._say(prompts.announcement(sentence, pty=self._pty is not None))
                    await self._outbound.flush()
        self._record.ended(end)
        self._end(exit_)

    async def _outcome(self) -> tuple[Exit, End]:
        """Run the program and show errors to the user. Return the end for the client and for the record."""
        pty = self._pty is not None
        try:
            exit_ = await self._run()
        except StartCancelled:
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
        """Show the sentence on the terminal or on stderr. File transfers cannot show one."""
        if self._ran and not isinstance(self._kind, Subsystem):
            text = prompts.announcement(sentence, pty=self._pty is not None)
            self._served.tasks.spawn(self._say(text), name="warning")

    def end(self, sentence: str, end: End) -> None:
        """End the program with a sentence. Other programs of the connection go on."""
        if self._ordered is None and self._task is not None and not self._task.done():
            self._ordered = (sentence, end)
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def _run(self) -> Exit:
        """Start the workspace and the program, and relay bytes until the program ends."""
        assert self._kind is not None
        self._check_command(self._kind)
        if is_lobby(self._visit):
            return await self._answer_in_lobby(self._kind)
        if isinstance(self._kind, Subsystem) and self._kind.name in CONTROLS:
            return await self._manage(self._kind.name)
        async with AsyncExitStack() as stack:
            asked = self._pty
            self._progress = StartProgress(self._inbound, self._outbound, asked, self._kind)
            async with self._progress as progress:
                running = await self._start(stack, self._kind, progress)
            self._progress = None
            program, recorder = running.program, running.recorder
            self._program, self._recorder = program, recorder
            self._ran = True
            await self._tell_what_env_lacks(running.link.features)
            carried: ProgramStream = program
            if recorder is not None:
                carried = await self._attach_recorder(recorder, program)
            if self._pty is not None and self._pty is not asked:
                # The recorder knows the requested size; the program may have a later one.
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

    async def _tell_what_env_lacks(self, features: Set[str]) -> None:
        """List the variables that the program did not get, unless it is a file transfer."""
        if isinstance(self._kind, Subsystem):
            return
        pty = self._pty is not None
        if self._env_left_out:
            await self._say(prompts.env_left_out(self._env_left_out, self._limits, pty=pty))
        if not_utf8 := compat.variables_left_out(features, self._env):
            await self._say(prompts.env_not_utf8(not_utf8, pty=pty))

    def _check_command(self, kind: Shell | Exec | Subsystem) -> None:
        """Refuse a command that is too long, or not permitted by the certificate. Raises: Refused."""
        if self._forced is not None:
            self._check_length(self._forced.original_command)
            if self._forced.refusal:
                raise Refused(self._forced.refusal)
        elif isinstance(kind, Exec):
            self._check_length(kind.command)

    def _check_length(self, command: str) -> None:
        """Refuse a command that is too long for any program. Raises: Refused."""
        size, most = len(bytes_of(command)), self._limits.max_command_bytes
        if size > most:
            raise Refused(f"the command has {size:,} bytes, and at most {most:,} are taken")

    async def _attach_recorder(self, recorder: Recorder, program: Program) -> ProgramStream:
        """Let a recorder see all that the user sees from now on, and show the user the notice."""
        self._screen = RecordedOutbound(self._outbound, recorder)
        await self._say(prompts.recorded(pty=self._pty is not None))
        return tap(program, recorder)

    async def _answer_in_lobby(self, kind: Shell | Exec | Subsystem) -> Exit:
        """Carry out a command of the lobby, whose answer is the program's output."""
        said = await self._served.gateway.lobby.run(self._visit, kind)
        line_end = b"\r\n" if self._pty is not None else b"\n"
        await self._outbound.write(said.out.encode().replace(b"\n", line_end))
        await self._say(said.err.encode().replace(b"\n", line_end))
        return ExitStatus(said.status)

    async def _manage(self, what: str) -> Exit:
        """Run a command about the workspace that does not enter it; its answer is the stdout."""
        async with StartProgress(self._inbound, self._outbound, self._pty, Exec(what)) as progress:
            answer = await self._served.gateway.control(self._visit, what, progress.report)
        await self._outbound.write("".join(f"{line}\n" for line in answer.splitlines()).encode())
        return ExitStatus(0)

    async def _start(
        self, stack: AsyncExitStack, kind: Shell | Exec | Subsystem, progress: StartProgress
    ) -> Running:
        ssh_agent = ""
        if self._wants_ssh_agent:
            using = self._ssh_agent.use(self._visit, progress.report)
            ssh_agent = await stack.enter_async_context(using)
        assert self._record is not None
        user_rc = self._chan is not None and self._chan.permits_user_rc
        original = "" if self._forced is None else self._forced.original_command
        starting = self._served.gateway.program(
            self._visit,
            lambda: ProgramSpec(kind, self._env, self._pty, ssh_agent, original, user_rc),
            self._record.id,
            progress.report,
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
    """Await a resize or a signal, and ignore that the program has just ended."""
    try:
        await call
    except UpstreamError:
        return
