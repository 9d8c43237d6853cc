"""What a person waits for: a log-in, a command, the echo of a key."""

import os
import select
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from subprocess import DEVNULL
from time import perf_counter, sleep

from bench.client import finish, master, running
from bench.pairs import Metric, in_pairs, percentile
from bench.plan import Bench
from bench.targets import BenchError, Target

_PAUSE_S = 0.008
"""Between keystrokes: longer than an echo takes, so that each finds a system at rest."""
_BATCHES = 10


def new_connection(bench: Bench) -> list[Metric]:
    return _logins(bench, "true", "ratio ≤ 0.8", {target.label: [] for target in bench.targets})


def shared_connection(bench: Bench) -> list[Metric]:
    with ExitStack() as stack:
        sharing = {
            target.label: stack.enter_context(master(target, bench.folder)) for target in bench.targets
        }
        return _logins(bench, "true-mux", "", sharing)


def _logins(bench: Bench, row: str, goal: str, options: dict[str, list[str]]) -> list[Metric]:
    """Time `ssh host true` from start to end of the client."""

    def once(target: Target) -> float:
        argv = target.ssh("true", *options[target.label])
        start = perf_counter()
        with running(argv, stderr=DEVNULL) as client:
            finish(client, 30)
            return (perf_counter() - start) * 1000

    in_pairs(bench.targets, 2, once)
    return [Metric(row, "wall time", "ms", in_pairs(bench.targets, bench.plan.login_runs, once), goal=goal)]


def echo(bench: Bench) -> list[Metric]:
    """Type single bytes into a terminal whose far end sends each one back."""
    with ExitStack() as stack:
        terminals = {target.label: stack.enter_context(terminal(target)) for target in bench.targets}
        in_pairs(bench.targets, 20, lambda target: keystroke(terminals[target.label]))
        taken = in_pairs(
            bench.targets, bench.plan.keystrokes, lambda target: keystroke(terminals[target.label])
        )
    return [
        Metric("echo", "keystroke p50", "ms", _in_batches(taken, 50), goal="within 0.5 ms", raw=taken),
        Metric("echo", "keystroke p99", "ms", {k: [percentile(v, 99)] for k, v in taken.items()}),
        Metric("echo", "keystroke worst", "ms", {k: [max(v)] for k, v in taken.items()}),
    ]


def _in_batches(taken: dict[str, list[float]], percent: int) -> dict[str, list[float]]:
    """Take the percentile of each of ten stretches of time, so that a spread can be told."""

    def of(samples: Sequence[float]) -> list[float]:
        step = max(1, len(samples) // _BATCHES)
        return [percentile(samples[n : n + step], percent) for n in range(0, step * _BATCHES, step)]

    return {label: of(samples) for label, samples in taken.items()}


@contextmanager
def terminal(target: Target) -> Iterator[int]:
    """Log in on a pseudo-terminal; yields our end of it."""
    ours, theirs = os.openpty()
    try:
        argv = target.ssh("stty raw -echo; echo ready; exec cat", "-tt")
        with running(argv, stdin=theirs, stdout=theirs, stderr=DEVNULL):
            seen = b""
            while b"ready\n" not in seen.replace(b"\r", b""):
                seen += _read(ours, 30)
            sleep(0.2)
            yield ours
    finally:
        os.close(theirs)
        os.close(ours)


def keystroke(end: int) -> float:
    """Type one byte and wait for it; milliseconds."""
    sleep(_PAUSE_S)
    start = perf_counter()
    os.write(end, b"x")
    answer = _read(end, 60)
    elapsed = perf_counter() - start
    if answer != b"x":
        raise BenchError(f"typed b'x', got {answer!r}")
    return elapsed * 1000


def _read(end: int, timeout_s: float) -> bytes:
    ready, _, _ = select.select([end], [], [], timeout_s)
    if not ready:
        raise BenchError(f"no byte from the terminal in {timeout_s:g} s")
    return os.read(end, 4096)
