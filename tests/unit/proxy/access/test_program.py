"""The life of a program without SSH: a channel of this process, and a program that does as the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from proxy.access.gateway import Gateway, Running
from proxy.access.lobby import Lobby
from proxy.access.program import ProgramContext, ProgramRequest, ProgramRun
from proxy.access.relay import STDERR, Gate, Inbound, Outbound
from proxy.aio import TaskOwner
from proxy.errors.upstream import UpstreamLost
from proxy.errors.workspaces import WorkspaceStartFailed
from proxy.events.inprocess import InProcessBus
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
from proxy.sessions.live import LiveConnection
from proxy.sessions.records import End, EndReason, ProgramRecord
from proxy.sessions.store import ProxyProcess, SessionStore
from proxy.sessions.tracker import Tracker
from proxy.settings.connection import ConnectionSettings
from proxy.settings.sessions import SessionSettings
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.frames import Notice, Output, StdoutEof
from proxy.workspaces.backend import Report
from tests.fakes.visits import visit_of

XTERM = Pty("xterm", WindowSize(80, 24))
ENDED = End(EndReason.KILLED, "by an operator")


class Screen:
    """The client's end of a channel: what was written, by data type."""

    unsent_bytes = 0

    def __init__(self) -> None:
        self.written: list[tuple[int | None, bytes]] = []

    def write(self, data: Buffer, datatype: int | None = None) -> None:
        self.written.append((datatype, bytes(data)))

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def drop_unsent(self) -> None:
        self.written.clear()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def of(self, datatype: int | None) -> bytes:
        return b"".join(data for one, data in self.written if one == datatype)


class Program:
    """A running program: gives `frames`, and notes what reaches it."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.stdin = b""
        self.notes: list[object] = []
        self.is_stuck = False

    async def read(self) -> Output | StdoutEof | Notice | Exit:
        frame = await self.frames.get()
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def room(self, limit_bytes: int) -> int:
        return limit_bytes

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        self.stdin += b"".join(pieces)

    async def write_eof(self) -> None:
        self.notes.append("eof")

    async def _note(self, what: object) -> None:
        if self.is_stuck:
            await asyncio.Event().wait()
        self.notes.append(what)

    async def resize(self, size: WindowSize) -> None:
        await self._note(size)

    async def signal(self, name: str) -> None:
        await self._note(name)

    async def send_break(self, length_ms: int) -> None:
        await self._note(length_ms)

    async def close_stdout(self) -> None:
        await self._note("stdout closed")


@dataclass
class Place:
    """A gateway to one workspace, which starts when `may_start` is set."""

    program_there: Program = field(default_factory=Program)
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    specs: list[ProgramSpec] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    lobby: Lobby = field(default_factory=Lobby)
    splash: str = ""

    @asynccontextmanager
    async def program(
        self, visit: Visit, spec: Callable[[], ProgramSpec], program_id: str, report: Report
    ) -> AsyncIterator[Running]:
        self.asked.set()
        await self.may_start.wait()
        if self.failure is not None:
            raise self.failure
        self.specs.append(spec())
        link = SimpleNamespace(features=frozenset({"bytes"}), max_frame_bytes=65_536)
        yield Running(cast(Any, self.program_there), cast(Any, link), None, self.splash)

    async def control(self, visit: Visit, what: str, report: Report) -> str:
        self.controls.append(what)
        return "it runs\nsince today"


class Records(Tracker):
    """Keeps the records of ended programs, and writes none."""

    def __init__(self) -> None:
        proxy = ProxyProcess("token", "p1", 1, "host", datetime.now(UTC))
        bus = InProcessBus(proxy_id="p1", subscription_queue_size=1)
        super().__init__(cast(SessionStore, None), bus, SessionSettings(), proxy)
        self.of_programs: list[ProgramRecord] = []

    def program_ended(self, connection: LiveConnection, record: ProgramRecord) -> None:
        self.of_programs.append(record)


class Scene:
    """One program, its client and its workspace."""

    def __init__(self, request: ProgramRequest, text: str = "alice+dev") -> None:
        self.place = Place()
        self.screen = Screen()
        self.records = Records()
        self.tasks = TaskOwner("test")
        self.inbound, self.outbound = Inbound(1_024), Outbound(Gate())
        self.inbound.attach(cast(Any, self.screen))
        self.outbound.attach(cast(Any, self.screen))
        visit = visit_of(text)
        context = ProgramContext(
            conn_id=ConnId("c1"),
            visit=visit,
            live=self.records.open(visit, "test", cast(Any, None)),
            gateway=cast(Gateway, self.place),
            limits=ConnectionSettings(max_command_bytes=1_024),
            tasks=self.tasks,
            log=structlog.get_logger("test"),
        )
        self.run = ProgramRun(context, request, self.inbound, self.outbound)
        self.running: asyncio.Task[Exit]

    @property
    def program(self) -> Program:
        return self.place.program_there

    def begin(self) -> None:
        self.running = asyncio.ensure_future(self.run.run())

    async def started(self) -> None:
        self.place.may_start.set()
        self.begin()
        await self.until(lambda: self.place.specs)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0)

    def gives(self, *frames: object) -> None:
        for frame in frames:
            self.program.frames.put_nowait(frame)

    async def end(self) -> Exit:
        async with asyncio.timeout(30):
            return await self.running

    @property
    def record(self) -> ProgramRecord:
        (record,) = self.records.of_programs
        return record


def command(text: str = "make", **more: Any) -> ProgramRequest:
    return ProgramRequest(Exec(text), **more)


async def test_bytes_go_both_ways_and_the_status_is_the_program_s() -> None:
    scene = Scene(command())
    scene.inbound.feed(b"typed ahead")
    scene.inbound.feed_eof()
    await scene.started()
    scene.gives(Output(memoryview(b"out")), Output(memoryview(b"err"), is_stderr=True), ExitStatus(7))
    await scene.until(lambda: "eof" in scene.program.notes)
    assert await scene.end() == ExitStatus(7)
    assert scene.program.stdin == b"typed ahead"
    assert (scene.screen.of(None), scene.screen.of(STDERR)) == (b"out", b"err")
    assert (scene.record.end_reason, scene.record.exit_status) == (EndReason.EXITED.value, 7)


async def test_a_signal_that_ended_the_program_is_told_apart_from_a_status() -> None:
    scene = Scene(command())
    await scene.started()
    scene.gives(ExitSignal("SEGV", core_dumped=True))
    assert await scene.end() == ExitSignal("SEGV", core_dumped=True)
    assert scene.record.exit_signal == "SEGV"


async def test_a_workspace_that_does_not_start_ends_with_a_sentence_and_255() -> None:
    scene = Scene(command())
    scene.place.failure = WorkspaceStartFailed("no", user_message="its image is missing")
    scene.place.may_start.set()
    scene.begin()
    assert await scene.end() == ExitStatus(255)
    assert b"its image is missing" in scene.screen.of(STDERR)
    assert scene.screen.of(None) == b"", "stdout is the program's alone"
    assert scene.record.end_reason == EndReason.FAILED.value


async def test_a_link_that_breaks_is_told_and_recorded() -> None:
    scene = Scene(command())
    await scene.started()
    scene.gives(Output(memoryview(b"half")), UpstreamLost("gone"))
    assert await scene.end() == ExitStatus(255)
    assert scene.screen.of(None) == b"half"
    assert (scene.record.end_reason, scene.record.end_detail) == (EndReason.FAILED.value, "upstream.lost")


async def test_a_bug_shows_a_reference_and_no_more() -> None:
    scene = Scene(command())
    scene.place.failure = ValueError("secret")
    scene.place.may_start.set()
    scene.begin()
    assert await scene.end() == ExitStatus(255)
    assert scene.screen.of(STDERR) == b"fairlead: internal error (reference c1)\n"
    assert scene.record.end_reason == EndReason.BUG.value


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (command("x" * 1_025), b"the command has 1,025 bytes"),
        (command("true", original_command="x" * 1_025), b"the command has 1,025 bytes"),
        (command("true", original_command="rm", refusal="your certificate allows sftp only"), b"sftp only"),
    ],
)
async def test_a_command_that_may_not_run_reaches_no_workspace(
    request_: ProgramRequest, sentence: bytes
) -> None:
    scene = Scene(request_)
    scene.begin()
    assert await scene.end() == ExitStatus(254)
    assert sentence in scene.screen.of(STDERR)
    assert not scene.place.asked.is_set()
    assert scene.record.end_reason == EndReason.REFUSED.value


async def test_a_forced_command_may_be_longer_than_what_a_client_may_send() -> None:
    scene = Scene(command("x" * 2_000, original_command=""))
    await scene.started()
    scene.gives(ExitStatus(0))
    assert await scene.end() == ExitStatus(0)


async def test_ctrl_c_cancels_the_start_and_nothing_else() -> None:
    scene = Scene(ProgramRequest(Shell(), pty=XTERM))
    scene.begin()
    await scene.place.asked.wait()
    scene.inbound.feed(b"ls\x03")
    assert await scene.end() == ExitStatus(130)
    assert b"cancelled; the workspace goes on starting\r\n" in scene.screen.of(None)
    assert scene.record.end_reason == EndReason.CANCELLED.value


async def test_an_ending_signal_cancels_the_start_and_another_does_not() -> None:
    scene = Scene(command())
    scene.begin()
    await scene.place.asked.wait()
    scene.run.signal("USR1")
    await asyncio.sleep(0)
    assert not scene.running.done()
    scene.run.signal("TERM")
    assert await scene.end() == ExitStatus(130)


async def test_a_resize_during_the_start_reaches_the_program() -> None:
    scene = Scene(ProgramRequest(Shell(), pty=XTERM))
    scene.place.splash = "welcome"
    scene.begin()
    await scene.place.asked.wait()
    scene.run.resize(WindowSize(100, 40))
    scene.place.may_start.set()
    await scene.until(lambda: WindowSize(100, 40) in scene.program.notes)
    assert scene.place.specs[0].pty == Pty("xterm", WindowSize(100, 40))
    scene.gives(ExitStatus(0))
    assert await scene.end() == ExitStatus(0)
    assert scene.screen.of(None) == b"welcome\r\n"


async def test_a_resize_without_a_terminal_means_nothing() -> None:
    scene = Scene(command())
    await scene.started()
    scene.run.resize(WindowSize(1, 1))
    scene.gives(ExitStatus(0))
    await scene.end()
    assert WindowSize(1, 1) not in scene.program.notes


async def test_signals_and_breaks_that_wait_are_bounded() -> None:
    scene = Scene(command())
    assert not scene.run.send_break(1), "there is no program yet"
    await scene.started()
    scene.program.is_stuck = True
    await scene.until(lambda: scene.run.send_break(500))
    taken = sum(scene.run.send_break(500) for _ in range(1_000))
    assert taken == 63
    scene.gives(ExitStatus(0))
    await scene.end()
    scene.tasks.cancel()


async def test_a_client_that_reads_no_more_closes_the_program_s_stdout() -> None:
    scene = Scene(command())
    scene.run.reader_left()
    await scene.started()
    await scene.until(lambda: "stdout closed" in scene.program.notes)
    scene.gives(Output(memoryview(b"unread")), Output(memoryview(b"read"), is_stderr=True), ExitStatus(0))
    await scene.end()
    assert (scene.screen.of(None), scene.screen.of(STDERR)) == (b"", b"read")


async def test_an_order_from_outside_ends_the_program_with_a_sentence() -> None:
    scene = Scene(command())
    await scene.started()
    scene.run.end("an operator ended this", ENDED)
    scene.run.end("a second order", End(EndReason.BUG))
    assert await scene.end() == ExitStatus(254)
    assert scene.screen.of(STDERR) == b"fairlead: an operator ended this\n"
    assert scene.record.end_reason == ENDED.reason.value
    scene.run.end("it has ended already", ENDED)


async def test_a_warning_is_shown_by_a_shell_and_not_by_a_file_transfer() -> None:
    for kind, shown in ((Exec("make"), b"fairlead: soon\n"), (Subsystem("sftp"), b"")):
        scene = Scene(ProgramRequest(kind))
        scene.run.warn("too early")
        await scene.started()
        await scene.until(lambda scene=scene: scene.run._has_started)  # type: ignore[misc]
        scene.run.warn("soon")
        await scene.until(lambda scene=scene: not len(scene.tasks))  # type: ignore[misc]
        assert scene.screen.of(STDERR) == shown
        scene.gives(ExitStatus(0))
        await scene.end()


async def test_a_client_that_leaves_is_on_record() -> None:
    scene = Scene(command())
    await scene.started()
    scene.run.client_left()
    scene.running.cancel()
    await asyncio.wait([scene.running])
    assert scene.record.end_reason == EndReason.LEFT.value


async def test_variables_that_were_left_out_are_counted_for_the_user() -> None:
    scene = Scene(command(env={"A": "1"}, env_left_out=3))
    await scene.started()
    scene.gives(ExitStatus(0))
    await scene.end()
    assert scene.screen.of(STDERR).startswith(b"fairlead: left out of the environment: 3; ")
    assert scene.place.specs[0].env == {"A": "1"}


async def test_a_control_of_the_workspace_enters_none() -> None:
    scene = Scene(ProgramRequest(Subsystem("workspace-status")))
    scene.begin()
    assert await scene.end() == ExitStatus(0)
    assert scene.screen.of(None) == b"it runs\nsince today\n"
    assert scene.place.controls == ["workspace-status"]
    assert not scene.place.asked.is_set()


async def test_the_lobby_answers_itself() -> None:
    scene = Scene(command("nonsense"), "alice+lobby")
    scene.begin()
    assert await scene.end() == ExitStatus(2)
    assert b"there is no command 'nonsense' in the lobby" in scene.screen.of(STDERR)


async def test_an_ssh_agent_is_held_as_long_as_the_program_runs() -> None:
    held: list[str] = []

    @asynccontextmanager
    async def use(visit: Visit, report: Report) -> AsyncIterator[str]:
        held.append("held")
        yield "listener-1"
        held.append("let go")

    scene = Scene(command(use_ssh_agent=use))
    await scene.started()
    assert held == ["held"]
    assert scene.place.specs[0].ssh_agent == "listener-1"
    scene.gives(ExitStatus(0))
    await scene.end()
    assert held == ["held", "let go"]
