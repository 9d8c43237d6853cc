"""Processes of `fairlead` that are forked from one that has imported everything already.

A start of the interpreter with our libraries takes a second of CPU, and the wire suite starts hundreds. The
forked process runs the same entry with its own environment; only the imports are shared. Tests of start-up
itself run `python -m proxy` (test_quickstart, tests/e2e). `FAIRLEAD_TESTS_FORK=0` runs it everywhere.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PRELOADED = [
    *("proxy.cli.main", "proxy.process.serve", "proxy.cli.workspaces", "proxy.log"),
    *("alembic.command", "aiosqlite", "uvloop"),
    *("tests.wire.forked", "tests.wire.frozen"),
]
"""Imported in this order; the last one keeps the heap of the others out of every collection of garbage."""
_DEFAULT = {signal.SIGINT: signal.default_int_handler}
"""What the interpreter sets at its start, unless the signal is ignored."""
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_PRELOADED)


class Forked:
    """A running process, used like `subprocess.Popen`."""

    def __init__(self, words: tuple[str, ...], env: Mapping[str, str], out: Path, errors: Path) -> None:
        state = _Inherited(
            os.getcwd(), [one for one in _signals() if signal.getsignal(one) == signal.SIG_IGN]
        )
        self._process = _context.Process(target=_run, args=(words, dict(env), str(out), str(errors), state))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, or the negative number of the signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises: subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("fairlead", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def is_wanted() -> bool:
    """Whether processes are forked here."""
    return os.environ.get("FAIRLEAD_TESTS_FORK", "1") != "0"


def fairlead(
    *words: str, env: Mapping[str, str] | None = None, timeout_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end, in this environment or another.

    Raises: subprocess.TimeoutExpired, after the command was killed.
    """
    env = os.environ if env is None else env
    if not is_wanted():
        line = [sys.executable, "-m", "proxy", *words]
        return subprocess.run(line, env=env, capture_output=True, text=True, timeout=timeout_s)
    with tempfile.TemporaryDirectory() as directory:
        out, errors = Path(directory) / "out", Path(directory) / "errors"
        process = Forked(words, env, out, errors)
        try:
            status = process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, status, out.read_text(), errors.read_text())


def _signals() -> set[int]:
    """Return the signals that a process can ignore."""
    return signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


@dataclass(frozen=True)
class _Inherited:
    """What a process has of the one that starts it, and not of the one that it is forked from."""

    directory: str
    ignored: list[int]
    """Signals."""


def _run(words: tuple[str, ...], env: dict[str, str], out: str, errors: str, state: _Inherited) -> None:
    """Become `fairlead WORDS`, in a session of its own."""
    from proxy import tuning
    from proxy.__main__ import main

    os.setsid()
    os.chdir(state.directory)
    for number in _signals():
        signal.signal(
            number, signal.SIG_IGN if number in state.ignored else _DEFAULT.get(number, signal.SIG_DFL)
        )
    _redirect("/dev/null", os.O_RDONLY, 0)
    _redirect(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)
    _redirect(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2)
    os.environ.clear()
    os.environ.update(env)
    tuning.choose_grpc_engine()  # it speaks to gRPC by the environment, which is another one now
    sys.argv = ["fairlead", *words]
    main()


def _redirect(path: str, flags: int, descriptor: int) -> None:
    opened = os.open(path, flags, 0o644)
    os.dup2(opened, descriptor)
    os.close(opened)
