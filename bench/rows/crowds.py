"""Many connections: the memory of idle ones, and how fast new ones are let in."""

from collections.abc import Callable
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


Ladder = dict[int, Memory]
"""Growth in bytes against no connection, by number of connections; 0 is read last, when all have gone."""


def _ladder(bench: Bench, target: Target, rungs: tuple[int, ...], *, with_program: bool) -> Ladder:
    rungs = tuple(rung for rung in rungs if target in bench.chosen(rung))
    with herd(target) as clients:
        _climb(clients, min(rungs), with_program)
        clients.do("close")
        base = _settled(target)
        found: Ladder = {}
        for rung in rungs:
            bench.say(f"{target.label}: {rung} idle connections")
            _climb(clients, rung, with_program)
            found[rung] = _settled(target).minus(base)
        clients.do("close")
        found[0] = _settled(target).minus(base)
        return found


def _climb(clients: Herd, count: int, with_program: bool) -> None:
    clients.do(f"open {count}")
    if with_program:
        clients.do("run")


def _settled(target: Target) -> Memory:
    sleep(_SETTLE_S)
    return target.memory()


def _per_connection(row: str, ladders: dict[str, Ladder], goal: str) -> list[Metric]:
    lines = []
    for rung in sorted({rung for ladder in ladders.values() for rung in ladder} - {0}):
        kinds: tuple[tuple[str, Callable[[Memory], int]], ...] = (
            ("PSS", lambda m: m.pss),
            ("RSS", lambda m: m.rss),
        )
        for kind, of in kinds:
            samples = {k: [of(v[rung]) / rung / _KIB] for k, v in ladders.items() if rung in v}
            lines.append(
                Metric(row, f"{kind} each of {rung}", "KiB", samples, goal=goal if kind == "PSS" else "")
            )
    kept = {k: [v[0].pss / _KIB] for k, v in ladders.items()}
    lines.append(Metric(row, "PSS kept after all left", "KiB", kept, paired=False))
    return lines


def _flatness(ladders: dict[str, Ladder]) -> list[Metric]:
    """Divide what one more connection costs at the top of the ladder by what one cost at its foot."""
    samples = {}
    for label, ladder in ladders.items():
        rungs = sorted(set(ladder) - {0})
        if label != YARDSTICK and len(rungs) > 1:
            low, below, top = rungs[0], rungs[-2], rungs[-1]
            marginal = (ladder[top].pss - ladder[below].pss) / (top - below)
            samples[label] = [marginal / max(1.0, ladder[low].pss / low)]
    return [Metric("idle", "growth, top to foot", "times", samples, goal="≈ 1 or less", paired=False)]


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
