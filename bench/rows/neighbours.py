"""What a person waits for while another client floods the server: `bench.flood`, kind by kind."""

import sys
from subprocess import DEVNULL, PIPE, Popen

from bench.client import await_text, running
from bench.flood import KINDS
from bench.pairs import Metric, in_pairs, percentile
from bench.plan import Bench
from bench.rows.latency import keystroke, terminal
from bench.targets import Target

_AT_LEAST = 20
"""Keystrokes beside each flood, some of them after it when it is a short one."""


def floods(bench: Bench) -> list[Metric]:
    """Type single bytes into a terminal, from the moment at which a flood is let loose until it is over."""
    lines = []
    for kind in KINDS:
        bench.say(f"beside a flood: {kind}")

        def once(target: Target, kind: str = kind) -> list[float]:
            with terminal(target) as ours, _flood(target, kind, bench.plan.flood_packets) as flood:
                for _ in range(_AT_LEAST):
                    keystroke(ours)
                assert flood.stdin is not None
                flood.stdin.write(b"\n")
                taken: list[float] = []
                while len(taken) < _AT_LEAST or flood.poll() is None:
                    taken.append(keystroke(ours))
                return taken

        taken = in_pairs(bench.targets, bench.plan.floods, once)
        worst = {label: [max(samples) for samples in runs] for label, runs in taken.items()}
        median = {label: [percentile(samples, 50) for samples in runs] for label, runs in taken.items()}
        lines.append(Metric("floods", f"{kind}, worst", "ms", worst, goal="≤ 250 ms"))
        lines.append(Metric("floods", f"{kind}, p50", "ms", median))
    return lines


def _flood(target: Target, kind: str, count: int) -> "_Ready":
    argv = [sys.executable, "-m", "bench.flood", "--port", str(target.port), "--login", target.login]
    return _Ready([*argv, "--key", str(target.identity), kind, str(count)])


class _Ready:
    """A flood that waits for a line on its standard input."""

    def __init__(self, argv: list[str]) -> None:
        self._running = running(argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)

    def __enter__(self) -> Popen[bytes]:
        process = self._running.__enter__()
        await_text(process.stdout, b"ready\n", 60)
        return process

    def __exit__(self, *exc: object) -> None:
        self._running.__exit__(None, None, None)
