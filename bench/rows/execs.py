"""Bytes through the standard input and output of a command."""

from contextlib import ExitStack
from subprocess import DEVNULL, PIPE, run

from bench.client import await_text, finish, running
from bench.pairs import Metric
from bench.plan import Bench, require
from bench.processes import await_exit, bytes_written
from bench.targets import Target
from bench.transfers import Transfer, accounted, measured, zeros

GCM = ("-c", "aes128-gcm@openssh.com")
_TIMEOUT_S = 180
_STREAMS = 4


def download(bench: Bench) -> list[Metric]:
    for target in bench.targets:
        _arrives_whole(target, bench.plan.warm_bytes)
    return measured(
        bench, "download", bench.plan.exec_bytes, "ratio ≥ 0.75, aim 1.0", lambda t, n: _down(t, n, 1)
    )


def download_gcm(bench: Bench) -> list[Metric]:
    return measured(bench, "download-gcm", bench.plan.exec_bytes, "", lambda t, n: _down(t, n, 1, *GCM))


def parallel(bench: Bench) -> list[Metric]:
    return measured(
        bench, "parallel", bench.plan.exec_bytes, "", lambda t, n: _down(t, n // _STREAMS, _STREAMS)
    )


def upload(bench: Bench) -> list[Metric]:
    return measured(bench, "upload", bench.plan.exec_bytes, "ratio ≥ 0.85, aim 1.0", _up)


def upload_gcm(bench: Bench) -> list[Metric]:
    return measured(bench, "upload-gcm", bench.plan.exec_bytes, "", lambda t, n: _up(t, n, *GCM))


def _arrives_whole(target: Target, size: int) -> None:
    """Look at the bytes of one download, which the measured ones have no time for."""
    argv = target.ssh(f"head -c {size} /dev/zero")
    got = run(argv, stdin=DEVNULL, stdout=PIPE, timeout=60, check=False).stdout
    require(got == bytes(size), f"{target.label}: {len(got)} of {size} bytes came, or others than were sent")


def _down(target: Target, size: int, streams: int, *options: str) -> Transfer:
    """Fetch `size` zeros over each of `streams` new connections; all start when the last is ready."""
    transfer = Transfer(size * streams)
    command = f"echo ready >&2; read go; exec head -c {size} /dev/zero"
    with accounted(target, transfer), ExitStack() as stack:
        clients = [
            stack.enter_context(running(target.ssh(command, *options), stdin=PIPE, stdout=DEVNULL))
            for _ in range(streams)
        ]
        for client in clients:
            await_text(client.stderr, b"ready", 30)
        with transfer.stopwatch():
            for client in clients:
                assert client.stdin is not None
                client.stdin.write(b"\n")
                client.stdin.close()
            for client in clients:
                await_exit(client, _TIMEOUT_S)
        for client in clients:
            written = bytes_written(client)
            require(written is None or written >= size, f"{target.label}: a download stopped short")
            finish(client, 1)
    return transfer


def _up(target: Target, size: int, *options: str) -> Transfer:
    """Send `size` zeros to a program that reads and counts them."""
    transfer = Transfer(size)
    command = "echo ready >&2; LC_ALL=C exec dd of=/dev/null bs=128k"
    with (
        accounted(target, transfer),
        zeros(size) as source,
        running(target.ssh(command, *options), stdin=source, stdout=DEVNULL) as client,
    ):
        await_text(client.stderr, b"ready", 30)
        with transfer.stopwatch():
            await_exit(client, _TIMEOUT_S)
        await_text(client.stderr, f"{size} bytes".encode(), 5)
        finish(client, 1)
    return transfer
