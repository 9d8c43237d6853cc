"""The life of one program: its request, the wait for the workspace, the bytes, and the end.

Independent of SSH, as `forward` is: a client's channel gathers a `ProgramRequest`, feeds `inbound`, and gets
the program's output, its own notices included, through `outbound`.

    requested ──▶ starting ──▶ running ──▶ ended
                     │  ▲ resize, give up      signal, break, resize, close of the reader
                     └──────────▶ ended: cancelled, refused, failed
"""

import asyncio
from collections.abc import Awaitable, Callable, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from structlog.stdlib import BoundLogger

from proxy.access import notices
from proxy.access.gateway import Gateway, Running
from proxy.access.lobby import is_lobby
from proxy.access.policy import CONTROLS
from proxy.access.progress import StartCancelled, StartProgress
from proxy.access.recording_tap import RecordedOutbound, tap
from proxy.access.relay import (
    STDERR,
    ChannelTraffic,
    Inbound,
    Outbound,
    ProgramStream,
    Sink,
    relay_program,
)
from proxy.aio import TaskOwner
from proxy.errors import EXIT_LINK, EXIT_REFUSED, FairleadError, exit_status_of
from proxy.errors.programs import Refused
from proxy.errors.upstream import UpstreamError
from proxy.model import (
    ConnId,
    Exec,
    Exit,
    ExitSignal,
    ExitStatus,
    ProgramSpec,
    Pty,
    Shell,
    Subsystem,
    Visit,
    WindowSize,
)
from proxy.octets import bytes_of
from proxy.recording.recorder import Recorder
from proxy.sessions.kinds import kind_of
from proxy.sessions.live import LiveConnection, LiveProgram
from proxy.sessions.records import End, EndReason
from proxy.settings.connection import ConnectionSettings
from proxy.upstream import compat
from proxy.upstream.streams import Program
from proxy.workspaces.backend import Report

_T = TypeVar("_T")
_ENDING_SIGNALS = frozenset({"INT", "TERM", "HUP", "QUIT", "KILL"})
_CANCELLED_STATUS = 130  # the status that a shell reports for a program that Ctrl-C ended
_MAX_UNDELIVERED = 64
"""Signals and breaks of one channel that may wait for the workspace."""
_FINAL_WRITE_S = 2.0
"""Time for the last message: a client that reads nothing must not keep its program alive."""

UseSshAgent = Callable[[Visit, Report], AbstractAsyncContextManager[str]]
"""Holds the socket of an ssh-agent while inside; gives the id of its listener, or "" for none."""


@dataclass(slots=True)
class ProgramRequest:
    """The request of one client channel, which is added to until the program starts."""

    kind: Shell | Exec | Subsystem = field(default_factory=Shell)
    """The program that runs; not the one that the client asked for when its certificate forces another."""
    env: dict[str, str] = field(default_factory=dict)
    env_left_out: int = 0
    """Variables that were not taken, because there were too many."""
    pty: Pty | None = None
    use_ssh_agent: UseSshAgent | None = None
    original_command: str | None = None
    """The command of the client, in place of which `kind` runs; None when nothing is forced."""
    refusal: str = ""
    """The reason why the forced command does not run, as a sentence for the user."""
    user_rc: bool = False
    """Whether the user's ~/.ssh/rc may run."""


@dataclass(frozen=True, slots=True)
class ProgramContext:
    """All that a program needs of its connection."""

    conn_id: ConnId
    """Shown to the user as the reference of an error."""
    visit: Visit
    live: LiveConnection
    """The record of the connection."""
    gateway: Gateway
    limits: ConnectionSettings
    tasks: TaskOwner
    """Tasks of the connection; they end with it."""
    log: BoundLogger


class ProgramRun:
    """One program from its request to its end; `run` is called once, and cancelled when the client is gone.

    All other methods may be called at any time, and never wait.
    """

    def __init__(
        self, context: ProgramContext, request: ProgramRequest, inbound: Inbound, outbound: Outbound
    ) -> None:
        self._context = context
        self._request = request
        self._inbound = inbound
        self._outbound = outbound
        self._screen: Sink = outbound
        """The output as the user sees it; a recorder may be between."""
        self._progress: StartProgress | None = None
        self._program: Program | None = None
        self._recorder: Recorder | None = None
        self._record: LiveProgram | None = None
        self._has_started = False
        self._has_reader = True
        self._undelivered = 0
        self._is_live = False
        self._deadline = asyncio.timeout(None)
        self._ordered: tuple[str, End] | None = None

    # ---------------------------------------------------------------------------- from the client

    def resize(self, size: WindowSize) -> None:
        """Pass a terminal's new size on to the program, or to the progress display while it starts."""
        request = self._request
        if request.pty is None:
            return
        request.pty = Pty(request.pty.term, size, request.pty.modes)
        if self._program is not None:
            self._resize(self._program, size)
        elif self._progress is not None:
            self._progress.resized(request.pty)

    def _resize(self, program: Program, size: WindowSize) -> None:
        if self._recorder is not None:
            self._recorder.resize(size)
        self._deliver(program.resize(size), "resize")

    def signal(self, name: str) -> None:
        """Pass a signal on to the program, or cancel the start; names are those of RFC 4254 §6.10."""
        if self._program is not None:
            self._deliver_if_few(self._program.signal, name)
        elif self._progress is not None and name in _ENDING_SIGNALS:
            self._progress.give_up()

    def send_break(self, length_ms: int) -> bool:
        """Pass a break on to the program (RFC 4335); return whether it was taken."""
        return self._program is not None and self._deliver_if_few(self._program.send_break, length_ms)

    def reader_left(self) -> None:
        """Close the program's stdout, because the client reads no more of it.

        With a terminal nothing is done: `sshd` lets the program go on until its terminal is full.
        """
        if self._request.pty is not None or not self._has_reader:
            return
        self._has_reader = False
        self._outbound.abandon_stdout()
        self._close_unread()

    def _close_unread(self) -> None:
        if self._program is not None and not self._has_reader:
            self._deliver(self._program.close_stdout(), "close stdout")

    def client_left(self) -> None:
        """Record that the client closed the channel before the program ended."""
        if self._record is not None:
            self._record.ended(End(EndReason.LEFT))

    def _deliver(self, call: Awaitable[None], what: str) -> "asyncio.Task[None]":
        return self._context.tasks.spawn(_ignore_lost(call), name=what)

    def _deliver_if_few(self, call: Callable[[_T], Awaitable[None]], value: _T) -> bool:
        """Deliver a signal or a break; drop it when too many wait for the workspace already."""
        if self._undelivered >= _MAX_UNDELIVERED:
            return False
        self._undelivered += 1
        self._deliver(call(value), call.__name__).add_done_callback(self._delivered)
        return True

    def _delivered(self, _: "asyncio.Task[None]") -> None:
        self._undelivered -= 1

    # ------------------------------------------------------------------- from operators and limits

    def warn(self, sentence: str) -> None:
        """Show the sentence on the terminal or on stderr. File transfers cannot show one."""
        if self._has_started and not isinstance(self._request.kind, Subsystem):
            text = notices.announcement(sentence, pty=self._is_on_pty)
            self._context.tasks.spawn(self._say(text), name="warning")

    def end(self, sentence: str, end: End) -> None:
        """End the program with a sentence. Other programs of the connection go on."""
        if self._ordered is None and self._is_live:
            self._ordered = (sentence, end)
            self._deadline.reschedule(asyncio.get_running_loop().time())

    # -------------------------------------------------------------------------------- the life

    async def run(self) -> Exit:
        """Start the workspace if needed, run the program, and return its end for the client.

        All output has gone into the client's window by then. Errors are shown to the user and become an exit
        status; the record of the program is ended.
        """
        kind = self._request.kind
        self._record = self._context.live.begin(
            kind_of(kind),
            ChannelTraffic(self._inbound, self._outbound),
            self,
            command=kind.command if isinstance(kind, Exec) else "",
            pty=self._is_on_pty,
        )
        self._is_live = True
        try:
            exit_, end = await self._until_ordered()
        finally:
            self._is_live = False
        self._record.ended(end)
        return exit_

    async def _until_ordered(self) -> tuple[Exit, End]:
        """Run until the program ends, or until `end` orders it."""
        try:
            async with self._deadline:
                outcome = await self._outcome()
                await self._outbound.flush()
                return outcome
        except TimeoutError:
            assert self._ordered is not None
            sentence, end = self._ordered
            with suppress(TimeoutError):
                async with asyncio.timeout(_FINAL_WRITE_S):
                    await self._say(notices.announcement(sentence, pty=self._is_on_pty))
                    await self._outbound.flush()
            return ExitStatus(EXIT_REFUSED), end

    async def _outcome(self) -> tuple[Exit, End]:
        """Run the program and show errors to the user. Return the end for the client and for the record."""
        context, pty = self._context, self._is_on_pty
        try:
            exit_ = await self._run()
        except StartCancelled:
            await self._say(notices.cancelled(pty=pty))
            return ExitStatus(_CANCELLED_STATUS), End(EndReason.CANCELLED)
        except FairleadError as exc:
            context.log.info("program failed", code=exc.code, reason=str(exc))
            await self._say(notices.failure(exc, context.conn_id, pty=pty, ran=self._has_started))
            reason = EndReason.REFUSED if isinstance(exc, Refused) else EndReason.FAILED
            return ExitStatus(exit_status_of(exc)), End(reason, exc.code)
        except Exception as exc:
            context.log.exception("program failed by a bug")
            await self._say(notices.failure(exc, context.conn_id, pty=pty, ran=self._has_started))
            return ExitStatus(EXIT_LINK), End(EndReason.BUG)
        if isinstance(exit_, ExitSignal):
            return exit_, End(EndReason.EXITED, exit_signal=exit_.name)
        return exit_, End(EndReason.EXITED, exit_status=exit_.status)

    async def _run(self) -> Exit:
        """Answer in place of a program, or start the workspace and the program and relay its bytes."""
        request = self._request
        kind = request.kind
        self._check_command()
        if is_lobby(self._context.visit):
            return await self._answer_in_lobby()
        if isinstance(kind, Subsystem) and kind.name in CONTROLS:
            return await self._control(kind.name)
        async with AsyncExitStack() as stack:
            asked = request.pty
            self._progress = StartProgress(self._inbound, self._outbound, asked, kind)
            async with self._progress as progress:
                running = await self._start(stack, progress)
            self._progress = None
            self._program, self._recorder = running.program, running.recorder
            stack.callback(self._forget_program)
            self._has_started = True
            carried = await self._greet(running, asked)
            end = await relay_program(
                carried, self._inbound, self._screen, running.link.max_frame_bytes, self.warn
            )
            if running.recorder is not None:
                running.recorder.end = notices.end_of(end)
            return end

    async def _start(self, stack: AsyncExitStack, progress: StartProgress) -> Running:
        context, request = self._context, self._request
        assert self._record is not None
        listener = ""
        if request.use_ssh_agent is not None:
            listener = await stack.enter_async_context(request.use_ssh_agent(context.visit, progress.report))
        original = request.original_command or ""
        starting = context.gateway.program(
            context.visit,
            lambda: ProgramSpec(request.kind, request.env, request.pty, listener, original, request.user_rc),
            self._record.id,
            progress.report,
        )
        return await stack.enter_async_context(starting)

    async def _greet(self, running: Running, asked: Pty | None) -> ProgramStream:
        """Show our notices before the program's own output, and give it the latest size of the terminal.

        `asked` is the terminal as of the request. Return the stream to relay, which a recorder may tap.
        """
        request, program = self._request, running.program
        await self._show_left_out(running.link.features)
        carried: ProgramStream = program
        if running.recorder is not None:
            carried = await self._attach_recorder(running.recorder, program)
        if request.pty is not None and request.pty is not asked:
            # The recorder knows the requested size; the program may have a later one.
            self._resize(program, request.pty.window)
        if isinstance(request.kind, Shell) and self._is_on_pty:
            await self._screen.say(notices.splash(running.splash))
        self._close_unread()
        return carried

    async def _attach_recorder(self, recorder: Recorder, program: Program) -> ProgramStream:
        """Let a recorder see all that the user sees from now on, and show the user the notice."""
        self._screen = RecordedOutbound(self._outbound, recorder)
        await self._say(notices.recorded(pty=self._is_on_pty))
        return tap(program, recorder)

    async def _show_left_out(self, features: Set[str]) -> None:
        """List the variables that the program did not get, unless it is a file transfer."""
        request, limits, pty = self._request, self._context.limits, self._is_on_pty
        if isinstance(request.kind, Subsystem):
            return
        if request.env_left_out:
            await self._say(notices.env_left_out(request.env_left_out, limits, pty=pty))
        if not_utf8 := compat.variables_left_out(features, request.env):
            await self._say(notices.env_not_utf8(not_utf8, pty=pty))

    def _check_command(self) -> None:
        """Refuse a command that is too long, or not permitted by the certificate. Raises: Refused."""
        request, most = self._request, self._context.limits.max_command_bytes
        command = request.original_command
        if command is None:
            command = request.kind.command if isinstance(request.kind, Exec) else ""
        if (size := len(bytes_of(command))) > most:
            raise Refused(f"the command has {size:,} bytes, and at most {most:,} are taken")
        if request.refusal:
            raise Refused(request.refusal)

    # --------------------------------------------------------------------- in place of a program

    async def _answer_in_lobby(self) -> Exit:
        """Carry out a command of the lobby, whose answer is the program's output."""
        said = await self._context.gateway.lobby.run(self._context.visit, self._request.kind)
        line_end = b"\r\n" if self._is_on_pty else b"\n"
        await self._outbound.write(said.out.encode().replace(b"\n", line_end))
        await self._say(said.err.encode().replace(b"\n", line_end))
        return ExitStatus(said.status)

    async def _control(self, what: str) -> Exit:
        """Run a command about the workspace that does not enter it; its answer is the stdout."""
        pty = self._request.pty
        async with StartProgress(self._inbound, self._outbound, pty, Exec(what)) as progress:
            answer = await self._context.gateway.control(self._context.visit, what, progress.report)
        await self._outbound.write("".join(f"{line}\n" for line in answer.splitlines()).encode())
        return ExitStatus(0)

    # ------------------------------------------------------------------------------------ helpers

    @property
    def _is_on_pty(self) -> bool:
        return self._request.pty is not None

    def _forget_program(self) -> None:
        self._program = None

    async def _say(self, text: bytes) -> None:
        await self._screen.say(text, None if self._is_on_pty else STDERR)


async def _ignore_lost(call: Awaitable[None]) -> None:
    """Await a resize or a signal, and ignore that the program has just ended."""
    try:
        await call
    except UpstreamError:
        return
