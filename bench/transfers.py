"""What all rows that move bytes share: the sample, and the lines that come of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, process_time

from bench.client import client_cpu_s
from bench.pairs import Metric, in_pairs
from bench.plan import MIB, Bench
from bench.processes import machine_cpu_s
from bench.targets import Target

GIB = 1024 * MIB

OTHERS = "work of others"
"""Of a quiet machine it is near zero; beyond a quarter of a core, believe CPU figures before throughput."""


@dataclass
class Transfer:
    """One transfer of `size` bytes."""

    size: int
    seconds: float = 0.0
    """From the moment that both ends were ready until the client was done: log-in is a row of its own."""
    server_cpu: dict[str, float] = field(default_factory=dict)
    """Seconds by kind of process, log-in included (a few milliseconds)."""
    client_cpu: float = 0.0
    others: float = 0.0
    """Processors kept busy by neither server, client nor this program, on average: noise."""

    @contextmanager
    def stopwatch(self) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds = perf_counter() - start


@contextmanager
def accounted(target: Target, transfer: Transfer) -> Iterator[None]:
    """Book what the block costs the server and the client; every client must have ended in it."""
    before, client_before = target.settled_cpu(), client_cpu_s()
    machine_before, own_before, start = machine_cpu_s(), process_time(), perf_counter()
    yield
    transfer.client_cpu = client_cpu_s() - client_before
    after = target.settled_cpu()
    transfer.server_cpu = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    ours = transfer.client_cpu + sum(transfer.server_cpu.values()) + process_time() - own_before
    transfer.others = (machine_cpu_s() - machine_before - ours) / (perf_counter() - start)


def measured(
    bench: Bench, row: str, size: int, goal: str, carry: Callable[[Target, int], Transfer]
) -> list[Metric]:
    """Warm up, take the samples, and make throughput and CPU lines of them."""
    for target in bench.targets:
        carry(target, bench.plan.warm_bytes)
    taken = in_pairs(bench.targets, bench.plan.runs, lambda target: carry(target, size))
    speed = Metric(
        row,
        "throughput",
        "MiB/s",
        {k: [t.size / MIB / t.seconds for t in v] for k, v in taken.items()},
        "higher",
        goal,
    )
    others = Metric(row, OTHERS, "cores", {k: [t.others for t in v] for k, v in taken.items()}, paired=False)
    return [speed, _totals(row, taken), *_kinds(row, taken), _clients(row, taken), others]


def _totals(row: str, taken: dict[str, list[Transfer]]) -> Metric:
    samples = {k: [sum(t.server_cpu.values()) * GIB / t.size for t in v] for k, v in taken.items()}
    return Metric(row, "server CPU, all", "s/GiB", samples)


def _kinds(row: str, taken: dict[str, list[Transfer]]) -> list[Metric]:
    """Split the candidate's seconds; `sshd` is one kind only, which the total has said."""
    lines = []
    for label, transfers in taken.items():
        kinds = transfers[0].server_cpu
        for kind in kinds if len(kinds) > 1 else ():
            samples = [t.server_cpu[kind] * GIB / t.size for t in transfers]
            lines.append(Metric(row, f"  {kind}", "s/GiB", {label: samples}, paired=False))
    return lines


def _clients(row: str, taken: dict[str, list[Transfer]]) -> Metric:
    return Metric(
        row, "client CPU", "s/GiB", {k: [t.client_cpu * GIB / t.size for t in v] for k, v in taken.items()}
    )


@contextmanager
def zeros(size: int) -> Iterator[int]:
    """Open a file of zeros that lives nowhere: reading it costs a copy, no disk and no cache."""
    handle = os.memfd_create("zeros")
    try:
        os.ftruncate(handle, size)
        yield handle
    finally:
        os.close(handle)
