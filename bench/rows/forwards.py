"""Bytes through `-L` to a plain TCP service."""

import socket
from contextlib import suppress
from subprocess import DEVNULL

from bench import endpoint
from bench.client import running
from bench.pairs import Metric
from bench.plan import Bench, require
from bench.processes import wait_until
from bench.targets import BenchError, Target, free_port
from bench.transfers import Transfer, accounted, measured

_GOAL = "ratio ≥ 0.6, aim 1.0"


def get(bench: Bench) -> list[Metric]:
    return _row(bench, "get")


def put(bench: Bench) -> list[Metric]:
    return _row(bench, "put")


def _row(bench: Bench, verb: str) -> list[Metric]:
    with endpoint.endpoint() as port:
        return measured(
            bench, f"forward-{verb}", bench.plan.file_bytes, _GOAL, lambda t, n: _through(t, n, verb, port)
        )


def _through(target: Target, size: int, verb: str, service: int) -> Transfer:
    """Carry `size` bytes over a new connection's forward."""
    transfer, local = Transfer(size), free_port()
    argv = target.ssh(
        None, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:127.0.0.1:{service}"
    )
    with accounted(target, transfer), running(argv, stderr=DEVNULL), _connect(local) as peer:
        peer.settimeout(180)
        endpoint.ask(peer, verb, size)
        with transfer.stopwatch():
            if verb == "get":
                count = endpoint.drop(peer, size)
            else:
                endpoint.send_zeros(peer, size)
                count = endpoint.acknowledged(peer)
        require(count == size, f"{target.label}: {count} of {size} forwarded bytes arrived")
    return transfer


def _connect(port: int) -> socket.socket:
    """Connect as soon as the client listens."""
    found: list[socket.socket] = []

    def attempt() -> bool:
        with suppress(OSError):
            found.append(socket.create_connection(("127.0.0.1", port), timeout=5))
        return bool(found)

    if not wait_until(attempt, 30, every_s=0.02):
        raise BenchError("the client did not open its forward within 30 s")
    return found[0]
