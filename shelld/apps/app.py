"""One app: its process, from a start to the next, and its state."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from shelld import aio
from shelld.apps import readiness
from shelld.apps.log import AppLog
from shelld.apps.members import MARK, Members
from shelld.apps.reach import Address, Reach
from shelld.apps.spec import BUILT_IN, AppSpec, Restart
from shelld.apps.state import SETTLED, Phase, State
from shelld.bootstrap.bootstrap import ended as end_in_words
from shelld.errors import OpenCode, OpenError, StartCode, StartError
from shelld.forwards.reserved import Reserved
from shelld.launch.account import FALLBACK_SHELL, Account, Accounts
from shelld.launch.launch import Command, Launcher, LaunchError
from shelld.launch.reaper import End
from shelld.log import Log
from shelld.programs.command import ProgramSpec, ProgramStarter
from shelld.programs.program import Ended, how_it_ended
from shelld.temp_dirs import PrivateDirectories

_log = Log("shelld.apps.app")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Seconds from a failure to the restart: the first one, doubled with each, up to the last one."""
MOST_RESTARTS, WITHIN_S = 5, 600.0
"""Restarts in so many seconds; one more failure ends them."""
_STEADY_S = 60.0
"""Seconds for which an app has to be ready for its next failure to count as the first one."""
_LOOK_AT_MEMBERS_S = 1.0
_LAST_OUTPUT_S = 1.0
_SHOWN_LINES = 20
_LOG_DIRECTORY = ".local/state/fairlead/apps"
_OPEN_LOG_S = 5.0
_NEWS_EVERY_S = 0.2
"""Seconds between two states of one stream, so that an app that floods its log floods no proxy."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of restarts and deadlines, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Tools:
    """The parts of shelld that every app uses."""

    accounts: Accounts
    starter: ProgramStarter
    launcher: Launcher
    private: PrivateDirectories
    reach: Reach
    grace_s: float
    """Seconds from TERM to KILL."""
    clock: Clock = Clock()


@dataclass(frozen=True, slots=True)
class _Run:
    """One process of an app."""

    pid: int
    end: asyncio.Future[End]
    members: Members
    output: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The end of one start."""

    failed: bool
    reason: str
    """Words that follow "it"."""
    ready_s: float = 0.0


class App:
    """One app of this shelld, from its first request on."""

    def __init__(self, spec: AppSpec, account: Account, tools: Tools) -> None:
        self.spec = spec
        self.account = account
        self._next = spec
        self._tools = tools
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._log: AppLog | None = None
        self._phase, self._reason = Phase.STOPPED, "it was never started"
        self._since = tools.clock.now()
        self._address = Address()
        self._run: _Run | None = None
        self._ended: Ended | None = None
        self._restarts: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._restarted = 0
        self._stopped = False
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()

    # ---------------------------------------------------------------------------------- commands

    async def ensure(self, spec: AppSpec, account: Account, *, automatic: bool) -> None:
        """Start the app unless it runs.

        An automatic start respects a stop, and the limit of restarts.
        """
        async with self._turn:
            if self._task is not None and not self._task.done():
                self._next = spec
                if not automatic:
                    self._hurry.set()  # no pause before a restart
                return
            if automatic and (self._stopped or (self._phase is Phase.FAILED and not self._may_restart())):
                return
            if not automatic:
                self._restarts.clear()
            elif self._ended is not None:
                self._restarts.append(self._tools.clock.now())
            self._next, self.account = spec, account
            self._stopped, self._restarted = False, 0
            self._enter(Phase.STARTING)
            self._task = aio.spawn(self._keep_running(), name=f"app {spec.slug}")

    async def stop(self, by: str) -> None:
        """End the app's processes. It is not started again but by a command."""
        async with self._turn:
            self._stopped = True
            await self._end_task()
            who = f" by {by}" if by else ""
            self._enter(Phase.STOPPED, f"it was stopped{who}")
            await self._say(f"stopped{who}")

    async def close(self) -> None:
        """End the app's processes and its log, with the workspace."""
        async with self._turn:
            await self._end_task()
            if self._log is not None:
                await self._log.close()
                self._log = None

    async def _end_task(self) -> None:
        if self._task is not None:
            await aio.end([self._task])
            self._task = None

    async def connect(self, reserved: Reserved) -> socket.socket:
        """Connect to the app. Raises: OpenError NOT_FOUND while it does not run, REFUSED while it starts."""
        if self._phase in {Phase.STOPPED, Phase.FAILED}:
            raise OpenError(OpenCode.NOT_FOUND, f"app {self.spec.slug} does not run: {self._reason}")
        if self._phase is not Phase.READY:
            words = self._reason or "it is starting"
            raise OpenError(OpenCode.REFUSED, f"app {self.spec.slug} is not ready: {words}")
        return await self._tools.reach.connect(self._address, self.account, reserved)

    # ------------------------------------------------------------------------------------- states

    def state(self) -> State:
        """Return the present state."""
        return State(
            slug=self.spec.slug,
            phase=self._phase,
            reason=self._reason,
            ended=self._ended,
            restarts=self._restarted,
            since_s=self._tools.clock.now() - self._since,
            port=self._address.port,
            socket=self._address.socket,
            pid=0 if self._run is None or self._run.end.done() else self._run.pid,
            lines=() if self._log is None else self._log.tail(_SHOWN_LINES),
            digest=self.spec.digest,
            stopped=self._stopped,
        )

    async def states(self) -> AsyncIterator[State]:
        """Yield the state now and whenever it or the log changes, up to one that lasts."""
        while True:
            self._news.clear()
            now = self.state()
            yield now
            if now.phase in SETTLED:
                return
            await self._next_news()
            await asyncio.sleep(_NEWS_EVERY_S)

    async def _next_news(self) -> None:
        waiting: list[asyncio.Task[Any]] = [aio.spawn(self._news.wait(), name="app news")]
        if self._log is not None:
            waiting.append(aio.spawn(self._log.grown(self._log.total), name="app log news"))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await aio.end(waiting)

    def _enter(self, phase: Phase, reason: str = "") -> None:
        if phase is not self._phase:
            self._since = self._tools.clock.now()
        self._phase, self._reason = phase, reason
        self._news.set()
        _log.info("app", slug=self.spec.slug, phase=phase.value, reason=reason)

    async def log(self) -> AppLog:
        """Return the log; it is opened first where no start has done so."""
        if self._log is None:
            self._log = AppLog(await self._open_log())
        return self._log

    async def _open_log(self) -> int:
        path = os.path.join(self.account.home, _LOG_DIRECTORY, f"{self.spec.slug}.log")
        try:
            async with asyncio.timeout(_OPEN_LOG_S):
                return await self._tools.launcher.open(path, self.account.ids)
        except (OSError, TimeoutError) as error:
            _log.warning("log of an app is kept in memory only", slug=self.spec.slug, reason=str(error))
            return -1

    async def _say(self, sentence: str) -> None:
        await (await self.log()).say(sentence)

    # -------------------------------------------------------------------------------------- runs

    async def _keep_running(self) -> None:
        """Start the app again and again, as its description and the limits say."""
        failures = 0
        while True:
            outcome = await self._run_once()
            wanted = self.spec.restart
            if wanted is Restart.NO or (wanted is Restart.ON_FAILURE and not outcome.failed):
                await self._give_up(outcome.failed, f"it {outcome.reason}")
                return
            if not self._may_restart():
                times = f"{MOST_RESTARTS} restarts in {WITHIN_S / 60:g} minutes"
                await self._give_up(True, f"it {outcome.reason}; given up after {times}")
                return
            failures = 1 if outcome.ready_s >= _STEADY_S else failures + 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
            reason = f"it {outcome.reason}; started again in {pause_s:g} s"
            self._enter(Phase.BACKOFF, reason)
            await self._say(reason)
            await self._pause(pause_s)
            self._restarts.append(self._tools.clock.now())
            self._restarted += 1

    async def _give_up(self, failed: bool, reason: str) -> None:
        self._enter(Phase.FAILED if failed else Phase.STOPPED, reason)
        await self._say(reason)

    def _may_restart(self) -> bool:
        """Return whether the limit of restarts leaves room for one."""
        now = self._tools.clock.now()
        return sum(now - at < WITHIN_S for at in self._restarts) < MOST_RESTARTS

    async def _pause(self, seconds: float) -> None:
        """Wait for the next restart, or until a command wants the app now."""
        self._hurry.clear()
        waiting: list[asyncio.Task[Any]] = [
            aio.spawn(self._hurry.wait(), name="app hurry"),
            aio.spawn(self._tools.clock.sleep(seconds), name="app pause"),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await aio.end(waiting)

    async def _run_once(self) -> _Outcome:
        self.spec = self._next
        self._enter(Phase.STARTING)
        try:
            run = await self._launch()
        except StartError as error:
            return _Outcome(True, f"could not be started: {error.reason}")
        self._run = run
        await self._say(f"started as {self.account.name}, pid {run.pid}, to listen on {self._address}")
        try:
            outcome = await self._watch(run)
        finally:
            await run.members.end(self._tools.grace_s)
            if not run.output.done():
                await asyncio.wait({run.output}, timeout=_LAST_OUTPUT_S)
            await aio.end([run.output])
            self._run = None
        return outcome

    async def _watch(self, run: _Run) -> _Outcome:
        """Wait until a process is ready, and then for its end."""
        ready = aio.spawn(self._until_ready(run), name=f"ready {self.spec.slug}")
        ended = aio.spawn(self._until_ended(run), name=f"end {self.spec.slug}")
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() or (ended.done() and ready.result()):
                return _Outcome(True, f"{await ended} before it was ready")
            if problem := ready.result():
                return _Outcome(True, problem)
            since = self._tools.clock.now()
            self._enter(Phase.READY, _forked(run))
            await self._say(f"ready on {self._address}{_forked(run, '; ')}")
            how = await ended
            failed = self._ended != Ended(status=0)
            return _Outcome(failed, how, self._tools.clock.now() - since)
        finally:
            await aio.end([ready, ended])

    async def _until_ended(self, run: _Run) -> str:
        """Return the end in words: that of the start command, and of processes that a successful one left."""
        end = await asyncio.shield(run.end)
        self._ended = how_it_ended(end)
        how = end_in_words(end)
        if self._ended != Ended(status=0) or not run.members.pids():
            return how
        note = _forked(run)
        await self._say(note)
        self._enter(self._phase, note)
        while run.members.pids():  # noqa: ASYNC110 - the kernel has no event for the end of another's child
            await asyncio.sleep(_LOOK_AT_MEMBERS_S)
        return f"{how}, and the processes that it left have ended too,"

    async def _until_ready(self, run: _Run) -> str:
        """Return "" when the app answers, or words that follow "it" after its time."""
        spec, clock = self.spec, self._tools.clock
        give_up_at = clock.now() + spec.within_s
        while True:
            problem = await self._look(run)
            if not problem:
                return ""
            if clock.now() >= give_up_at:
                return f"was not ready within {spec.within_s:g} s: {problem}{_forked(run, '; ')}"
            await clock.sleep(readiness.LOOK_EVERY_S)

    async def _look(self, run: _Run) -> str:
        """Return the obstacle to readiness; "" for none."""
        try:
            connection = await self._tools.reach.connect(self._address, self.account, Reserved())
        except OpenError as error:
            if readiness.is_foreign(error) and self._reason != error.reason:
                self._enter(Phase.STARTING, error.reason)  # before its time is over
            return error.reason
        return await readiness.problem_of(connection, self.spec.ready_path) or self._taken(run)

    def _taken(self, run: _Run) -> str:
        """Return a sentence where a process of the same account that is not of the app has its port."""
        if not self._address.port:
            return ""
        try:
            inodes = self._tools.reach.inodes(self._address)
        except OpenError as error:
            return error.reason
        if run.members.hold_one_of(inodes):
            return ""
        return f"{self._address} is listened on by a process that is not of this app"

    # ------------------------------------------------------------------------------------ launch

    async def _launch(self) -> _Run:
        """Start the process. Raises: StartError."""
        await self._tools.starter.ready()
        log = await self.log()
        self._address = await self._choose_address()
        mark = secrets.token_hex(8)
        command = self._command(mark)
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.set_blocking(ours, False)
        starting = self._tools.launcher.start(command, self.account.ids, (null, theirs, theirs), tty=False)
        launching = aio.spawn(starting, name=f"launch app {self.spec.slug}")
        try:
            pid, end = await asyncio.shield(launching)
        except LaunchError as error:
            os.close(ours)
            raise StartError(StartCode.RESOURCES, f"{command.path}: {error.strerror}") from error
        except BaseException:
            os.close(ours)
            await asyncio.wait({launching})
            if launching.exception() is None:
                await Members(launching.result()[0], mark).end(self._tools.grace_s)
            raise
        finally:
            os.close(theirs)
            os.close(null)
        output = aio.spawn(_carry_output(log, ours), name=f"output of app {self.spec.slug}")
        return _Run(pid, end, Members(pid, mark), output)

    def _command(self, mark: str) -> Command:
        """Return the command with its environment and directory. Raises: StartError."""
        spec, account = self.spec, self.account
        if module := BUILT_IN.get(spec.start):
            asked = ProgramSpec(kind="own", text=module, account=spec.account)
            command = self._tools.starter.command(asked, account)
            command = replace(command, argv=[*command.argv, self._address.socket])
        else:
            asked = ProgramSpec(kind="exec", text=spec.start, account=spec.account)
            # Its meaning must not depend on the shell of the account, fish or nologin.
            command = self._tools.starter.command(asked, replace(account, shell=FALLBACK_SHELL))
        env = {**command.env, "SHELL": account.shell, **spec.env, "FAIRLEAD_APP": spec.slug, MARK: mark}
        if self._address.port:
            env["PORT"] = env["FAIRLEAD_APP_PORT"] = str(self._address.port)
        else:
            env["FAIRLEAD_APP_SOCKET"] = self._address.socket
        directory = account.home
        if spec.workdir not in {"", "~"}:
            directory = os.path.join(account.home, spec.workdir.removeprefix("~/"))
            if not os.path.isdir(directory):
                raise StartError(StartCode.NOT_FOUND, f"its workdir {directory} does not exist")
        return replace(command, env=env, cwd=directory)

    async def _choose_address(self) -> Address:
        """Return the address to listen on; the socket of a dead process is removed. Raises: StartError."""
        spec = self.spec
        if spec.port is not None:
            return Address(port=spec.port or _free_port())
        try:
            path = spec.socket or str(self._tools.private.of(self.account) / f"{spec.slug}.sock")
            await self._remove_stale(path)
        except OSError as error:
            raise StartError(StartCode.RESOURCES, f"its socket cannot be made: {error.strerror}") from error
        return Address(socket=path)

    async def _remove_stale(self, path: str) -> None:
        """Remove a socket on which nothing listens."""
        launcher, ids = self._tools.launcher, self.account.ids
        try:
            (await launcher.connect(path, ids, timeout_s=1.0)).close()
        except LaunchError as error:
            # Nothing is there, or something that is not ours to remove: the app will report that.
            if error.errno == errno.ECONNREFUSED:
                await launcher.unlink(path, ids)


def _free_port() -> int:
    """Return a port that no socket of this machine's loopback uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _forked(run: _Run, before: str = "") -> str:
    """Return a sentence where the start command has ended and left processes; else ""."""
    if not run.end.done() or not (left := len(run.members.pids())):
        return ""
    some = "1 process" if left == 1 else f"{left} processes"
    return (
        f"{before}its start command ended and left {some} in the background: "
        "it has to stay in the foreground for its end to be noticed"
    )


async def _carry_output(log: AppLog, source: int) -> None:
    try:
        with contextlib.suppress(OSError):
            await log.carry(source)
    finally:
        os.close(source)
