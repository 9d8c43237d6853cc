"""Preparation of the workspace before its first program: home, runtime directory, host name, init scripts.

Scripts up to the last required one run before serving, and a failed required one prevents serving. Serving
does not wait for the others: a program waits for them up to `init_wait_s`, then starts beside them, since a
shell without the last package is better than no shell. Their failures stop nothing; each is logged, and is
shown to users and reported to the proxy. Output of a script is kept in the home, beside the mark of its
success: `~/.local/state/fairlead/init/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shelld.bootstrap.outcome import Failure, last_line
from shelld.errors import StartError
from shelld.launch.account import FALLBACK_SHELL, Account, choose_shell
from shelld.launch.launch import Command, Launcher
from shelld.launch.reaper import End
from shelld.launch.takeover import take_home
from shelld.log import Log
from shelld.programs import environ
from shelld.programs.command import read_host
from shelld.programs.hangup import SessionTerminator
from shelld.programs.program import how_it_ended
from shelld.settings import InitScript, Settings
from shelld.temp_dirs import temporary

_log = Log("shelld.bootstrap.bootstrap")
_STATE = ".local/state/fairlead/init"
_HOME_MODE = 0o700
_SKELETON = "/etc/skel"
_OF_A_NEW_VOLUME = {"lost+found"}


@dataclass(slots=True)
class Bootstrap:
    """The preparation of one workspace, once per start of shelld."""

    settings: Settings
    account: Account
    launcher: Launcher
    terminator: SessionTerminator
    announce: Callable[[str], int] = lambda _: 0
    """Sends a text to the user of every program; returns their number."""
    failures: list[Failure] = field(default_factory=list)
    """Failures of this start, in the order of the scripts."""
    _shown: int = 0
    """Number of them that a user was shown."""
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    async def prepare(self) -> None:
        """Do the quick part, before serving."""
        if self._make_home() and self.settings.create_account:
            await self._furnish_home()
        with contextlib.suppress(OSError):
            os.makedirs(self.settings.runtime_dir, exist_ok=True)
        if self.settings.hostname:
            try:
                socket.sethostname(self.settings.hostname)
            except OSError as error:
                _log.info("host name not set", reason=error.strerror)

    def _make_home(self) -> bool:
        """Create the home if it is missing, and change its owner to the account; return whether it is new."""
        home = self.account.home
        try:
            os.makedirs(home, mode=_HOME_MODE, exist_ok=True)
            if self.settings.take_home:
                take_home(self.account)
            if os.geteuid() == 0 and os.stat(home).st_uid == 0 != self.account.uid:
                # A new volume belongs to root, and every account may read or even write it. Only the
                # directory itself is changed: its content may be huge.
                os.chown(home, self.account.uid, self.account.gid)
                os.chmod(home, _HOME_MODE)
            return not set(os.listdir(home)) - _OF_A_NEW_VOLUME
        except OSError as error:
            _log.warning("home not prepared", home=home, reason=error.strerror)
            return False

    async def _furnish_home(self) -> None:
        try:
            await self.launcher.copy(_SKELETON, self.account.home, self.account.ids)
        except OSError as error:
            if error.errno != errno.ENOENT:  # an image may have no /etc/skel
                _log.info("skeleton not copied", home=self.account.home, reason=str(error))

    async def run_scripts(self) -> None:
        """Run the scripts after the last required one, in order; `ready` returns afterwards.

        Cancelled: the script that runs is hung up.
        """
        try:
            await self._run_all(self.settings.init[self._required :])
        finally:
            self._done.set()

    async def run_required(self) -> Failure | None:
        """Run the scripts up to the last required one, in order, each with its deadline.

        Returns the failure of a required one, after which no other is run.
        Cancelled: the script that runs is hung up.
        """
        return await self._run_all(self.settings.init[: self._required])

    @property
    def _required(self) -> int:
        """Return the number of scripts that run before serving."""
        return max((place for place, one in enumerate(self.settings.init, 1) if one.required), default=0)

    async def _run_all(self, scripts: Sequence[InitScript]) -> Failure | None:
        for script in scripts:
            try:
                how = await self._run_one(script)
            except (OSError, StartError) as error:
                _log.warning("init script not run", script=script.name, reason=str(error))
                how = f"could not be run ({error})"
            if not how:
                continue
            said = last_line(f"{self._mark(script)}.log", self.account.uid)
            failure = Failure(script.name, how, said, script.required)
            if script.required:
                return failure
            self.failures.append(failure)
            if self.announce(str(failure)):
                self._shown = len(self.failures)
        return None

    def _mark(self, script: InitScript) -> Path:
        """Return the file that marks the success of a script in this home."""
        return Path(self.account.home, _STATE, script.name)

    def failures_for(self, *, is_shell: bool) -> list[Failure]:
        """Return the failures to show in a new program: all for a shell, only new ones for others.

        Programs read the stderr of commands, which therefore shows a failure once a start.
        """
        since = 0 if is_shell else self._shown
        self._shown = len(self.failures)
        return self.failures[since:]

    async def ready(self) -> None:
        """Wait until the init scripts have ended, `init_wait_s` at most."""
        if self._done.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.init_wait_s):
                await self._done.wait()

    async def _run_one(self, script: InitScript) -> str:
        """Run a script unless its mark exists; return the result of a failed one, else ""."""
        mark = self._mark(script)
        if _already_done(script, mark):
            return ""
        _log.info("init script starts", script=script.name)
        with tempfile.TemporaryDirectory(prefix="shelld-init-", dir=temporary(self.account)) as directory:
            end = await self._execute(script, directory, mark)
        status = end.si_status if end and end.si_code == os.CLD_EXITED else None
        _log.info("init script ended", script=script.name, ok=status == 0, status=status)
        if end is None:
            return f"did not end within {self.settings.init_timeout_s:g} s"
        return "" if status == 0 else ended(end)

    async def _execute(self, script: InitScript, directory: str, mark: Path) -> End | None:
        """Run one script to its end and return that end; None for a missed deadline."""
        pid, end = await self._start(script, self._write(script, directory), mark)
        try:
            async with asyncio.timeout(self.settings.init_timeout_s):
                return await asyncio.shield(end)
        except BaseException as error:
            self.terminator.hang_up(pid)
            if isinstance(error, TimeoutError):
                _log.warning("init script took too long", script=script.name)
                return None
            raise

    def _write(self, script: InitScript, directory: str) -> str:
        path = os.path.join(directory, script.name)
        with open(path, "w", encoding="utf-8", opener=_executable) as file:
            file.write(script.script)
        if self.account.ids is not None:
            for owned in (path, directory):
                os.chown(owned, self.account.uid, self.account.gid)
        return path

    async def _start(self, script: InitScript, path: str, mark: Path) -> tuple[int, asyncio.Future[End]]:
        """Start the script as the account, below a shell that keeps its output and the mark of success."""
        shell = choose_shell(replace(self.account, shell=FALLBACK_SHELL))
        login = environ.Login(self.account, choose_shell(self.account))
        env = environ.build(
            login, read_host(self.settings), client={}, accept=(), blueprint=self.settings.env
        )
        line = (
            f"mkdir -p {_quoted(str(mark.parent))} && "
            f"{'' if script.script.startswith('#!') else _quoted(login.shell)} {_quoted(path)} "
            f"> {_quoted(f'{mark}.log')} 2>&1 && : > {_quoted(str(mark))}"
        )
        command = Command(shell, [os.path.basename(shell), "-c", line], env, self.account.home)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return await self.launcher.start(command, self.account.ids, (null, null, null), tty=False)
        finally:
            os.close(null)


def ended(end: End) -> str:
    """Return the end of a script in words that follow its name; its shell adds 128 to a signal. Pure."""
    how = how_it_ended(end)
    if how.signal:
        return f"was ended by signal {how.signal}"
    names = {one.value: one.name for one in signal.Signals}
    named = f" (signal {names[how.status - 128]})" if how.status - 128 in names else ""
    return f"ended with status {how.status}{named}"


def _already_done(script: InitScript, mark: Path) -> bool:
    return script.when == "once" and mark.exists()


def _executable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o700)


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
