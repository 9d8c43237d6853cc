"""Drives OpenSSH's own client and holds the stopwatch."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from subprocess import DEVNULL, PIPE, Popen, run
from time import monotonic
from typing import IO

from bench.processes import await_exit, end, wait_until
from bench.targets import BenchError, Target


@contextmanager
def running(
    argv: list[str], *, stdin: int = DEVNULL, stdout: int = DEVNULL, stderr: int = PIPE
) -> Iterator[Popen[bytes]]:
    """Start a client; whatever happens in the block, it is gone afterwards."""
    process = Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0)
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        end(process, grace_s=2)


def await_text(stream: IO[bytes] | None, text: bytes, timeout_s: float) -> None:
    """Read until `text` has been seen.

    Raises: BenchError with what came instead.
    """
    assert stream is not None
    seen = b""
    deadline = monotonic() + timeout_s
    while text not in seen:
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - monotonic()))
        piece = os.read(stream.fileno(), 65_536) if ready else b""
        if not piece:
            raise BenchError(f"waited for {text!r}, got {seen[-500:]!r}")
        seen += piece


def finish(process: Popen[bytes], timeout_s: float) -> None:
    """Wait for the end and insist on status 0.

    Raises: BenchError with the client's last words; TimeoutExpired.
    """
    await_exit(process, timeout_s)
    if process.wait():
        words = process.stderr.read()[-500:] if process.stderr else b""
        raise BenchError(f"{process.args!r} ended with {process.returncode}: {words!r}")


def client_cpu_s() -> float:
    """Seconds used by every client that has ended."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def master(target: Target, folder: Path) -> Iterator[list[str]]:
    """Hold one connection for others to share; yields the options that share it."""
    path = folder / f"mux-{target.port}"
    sharing = ["-o", f"ControlPath={path}"]
    check = target.ssh(None, *sharing, "-O", "check")
    with running(target.ssh(None, *sharing, "-o", "ControlMaster=yes", "-N"), stderr=DEVNULL):
        if not wait_until(
            lambda: run(check, stdin=DEVNULL, capture_output=True, check=False).returncode == 0,
            30,
            every_s=0.05,
        ):
            raise BenchError(f"{target.label}: no shared connection after 30 s")
        yield sharing
