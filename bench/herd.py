"""The near end of `bench.swarm`: starts one, commands it, ends it."""

import json
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import DEVNULL, PIPE, Popen

from bench.client import running
from bench.targets import BenchError, Target


class Herd:
    """A running swarm of clients of one target."""

    def __init__(self, process: Popen[bytes]) -> None:
        self._process = process

    def do(self, command: str, timeout_s: float = 180) -> float:
        """Have a command carried out; returns the seconds it took.

        Raises: BenchError with the swarm's own words.
        """
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(f"{command}\n".encode())
        ready, _, _ = select.select([source], [], [], timeout_s)
        line = source.readline() if ready else b""
        if not line:
            raise BenchError(f"the clients did not finish {command!r} within {timeout_s:g} s")
        reply = json.loads(line)
        if "error" in reply:
            raise BenchError(f"{command!r}: {reply['error']}")
        return float(reply["seconds"])


@contextmanager
def herd(target: Target) -> Iterator[Herd]:
    """Run a swarm for as long as the block lasts."""
    argv = [sys.executable, "-m", "bench.swarm", "--port", str(target.port)]
    argv += ["--login", target.login, "--key", str(target.identity)]
    with running(argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
        yield Herd(process)
