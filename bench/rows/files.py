"""Bytes through `sftp`, the stock program with its stock settings."""

from pathlib import Path
from subprocess import PIPE

from bench.client import await_text, finish, running
from bench.pairs import Metric
from bench.plan import MIB, Bench
from bench.targets import Target
from bench.transfers import Transfer, accounted, measured

_TIMEOUT_S = 180
_GOAL = "ratio ≥ 0.6, aim 1.0"


def get(bench: Bench) -> list[Metric]:
    def carry(target: Target, size: int) -> Transfer:
        return _batch(target, size, f"get {target.scratch}zeros-{size} /dev/null")

    for target in bench.targets:
        for size in (bench.plan.warm_bytes, bench.plan.file_bytes):
            name = f"{target.scratch}zeros-{size}"
            target.run(f"truncate -s {size} {name}; cat {name} >/dev/null")
    return measured(bench, "sftp-get", bench.plan.file_bytes, _GOAL, carry)


def put(bench: Bench) -> list[Metric]:
    def carry(target: Target, size: int) -> Transfer:
        return _batch(target, size, f"put {_sparse(bench.folder, size)} /dev/null")

    return measured(bench, "sftp-put", bench.plan.file_bytes, _GOAL, carry)


def _sparse(folder: Path, size: int) -> Path:
    """Make a file of zeros once, and have it in the page cache, so that no sample pays for that."""
    path = folder / f"zeros-{size}"
    if not path.exists():
        with path.open("wb+") as file:
            file.truncate(size)
            while file.read(MIB):
                pass
    return path


def _batch(target: Target, size: int, command: str) -> Transfer:
    """Run one sftp command; the answer to `pwd` tells that log-in is over."""
    transfer = Transfer(size)
    argv = ["sftp", *target.options(), "-b", "-", "127.0.0.1"]
    with accounted(target, transfer), running(argv, stdin=PIPE, stdout=PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(b"pwd\n")
        await_text(client.stdout, b"working directory", 30)
        with transfer.stopwatch():
            client.stdin.write(f"{command}\n".encode())
            client.stdin.close()
            finish(client, _TIMEOUT_S)
    return transfer
