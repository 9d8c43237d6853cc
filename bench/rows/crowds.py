"""Many connections: the memory of idle ones, and how fast new ones are let in."""

from dataclasses import dataclass
from time import sleep

from bench.herd import Herd, herd
from bench.pairs import YARDSTICK, Metric, in_pairs
from bench.plan import Bench
from bench.processes import Memory
from bench.targets import Target

_KIB = 1024
_SETTLE_S = 1.5
_WIDTH = 8


def idle(bench: Bench) -> list[Metric]:
    """Read memory at each rung of a ladder of idle connections, bare and with an idle program."""
    plan, lines = bench.plan, []
    bare = {t.label: _ladder(bench, t, plan.rungs, with_program=False) for t in bench.targets}
    lines += _per_connection("idle", bare, "≤ 100")
    lines += _flatness(bare)
    rungs = tuple(rung for rung in plan.rungs if rung <= plan.program_rung_limit)
    busy = {t.label: _ladder(bench, t, rungs, with_program=True) for t in bench.targets}
    return lines + _per_connection("idle+program", busy, "")


@dataclass
class Ladder:
    """Growth against no connection."""

    rungs: dict[int, Memory]
    """By number of connections."""
    left: Memory
    """When all have gone: what the process keeps for the next ones, or has lost."""
    again: Memory
    """At the top of a second climb: no more than at the first, unless it was lost."""


def _ladder(bench: Bench, target: Target, rungs: tuple[int, ...], *, with_program: bool) -> Ladder:
    rungs = tuple(rung for rung in rungs if bench.takes_part(target, rung))
    with bench.again(target) as fresh:
        fresh.run("true")
        with herd(fresh) as clients:
            return _climbed(bench, fresh, clients, rungs, with_program)


def _climbed(
    bench: Bench, target: Target, clients: Herd, rungs: tuple[int, ...], with_program: bool
) -> Ladder:
    _climb(clients, min(rungs), with_program)
    clients.do("close")
    base, found = _settled(target), {}
    for rung in rungs:
        bench.say(f"{target.label}: {rung} idle connections{' with a program' if with_program else ''}")
        _climb(clients, rung, with_program)
        found[rung] = _settled(target).minus(base)
    clients.do("close")
    left = _settled(target).minus(base)
    _climb(clients, max(rungs), with_program)
    again = _settled(target).minus(base)
    clients.do("close")
    return Ladder(found, left, again)


def _climb(clients: Herd, count: int, with_program: bool) -> None:
    clients.do(f"open {count}")
    if with_program:
        clients.do("run")


def _settled(target: Target) -> Memory:
    sleep(_SETTLE_S)
    return target.memory()


def _per_connection(row: str, ladders: dict[str, Ladder], goal: str) -> list[Metric]:
    lines = []
    for rung in sorted({rung for ladder in ladders.values() for rung in ladder.rungs}):
        held = {k: v.rungs[rung] for k, v in ladders.items() if rung in v.rungs}
        own = {k: [v.own / rung / _KIB] for k, v in held.items()}
        rss = {k: [v.rss / rung / _KIB] for k, v in held.items()}
        lines.append(Metric(row, f"own memory, each of {rung}", "KiB", own, goal=goal))
        lines.append(Metric(row, f"RSS, each of {rung}", "KiB", rss))
    left = {k: [v.left.own / _KIB] for k, v in ladders.items()}
    lost = {k: [(v.again.own - v.rungs[max(v.rungs)].own) / max(v.rungs) / _KIB] for k, v in ladders.items()}
    lines.append(Metric(row, "kept when all left", "KiB", left, paired=False))
    lines.append(Metric(row, "more at second climb, each", "KiB", lost, paired=False, goal="about 0"))
    return lines


def _flatness(ladders: dict[str, Ladder]) -> list[Metric]:
    """Divide what one more connection costs at the top of the ladder by what one cost at its foot."""
    samples = {}
    for label, ladder in ladders.items():
        rungs = sorted(ladder.rungs)
        if label != YARDSTICK and len(rungs) > 1:
            low, below, top = rungs[0], rungs[-2], rungs[-1]
            marginal = (ladder.rungs[top].own - ladder.rungs[below].own) / (top - below)
            samples[label] = [marginal / max(1.0, ladder.rungs[low].own / low)]
    return [Metric("idle", "growth, top to foot", "times", samples, goal="about 1 or less", paired=False)]


def rate(bench: Bench) -> list[Metric]:
    """Log in and out as fast as one client process can, eight at a time."""
    count = bench.plan.handshakes

    def once(target: Target) -> tuple[float, float]:
        with herd(target) as clients:
            clients.do(f"rate {_WIDTH} {_WIDTH}")
            before = sum(target.settled_cpu().values())
            seconds = clients.do(f"rate {count} {_WIDTH}")
            return count / seconds, (sum(target.settled_cpu().values()) - before) * 1000 / count

    taken = in_pairs(bench.targets, max(2, bench.plan.runs // 2 + 1), once)
    return [
        Metric("rate", "connections", "1/s", {k: [a for a, _ in v] for k, v in taken.items()}, "higher"),
        Metric("rate", "server CPU", "ms each", {k: [b for _, b in v] for k, v in taken.items()}),
    ]
