"""How much of everything one run measures, and what the rows work with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.pairs import CANDIDATE
from bench.targets import BenchError, Target

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """Amounts. The defaults take several minutes on two cores."""

    runs: int = 7
    """Samples of each transfer and each target; one more, small, goes before and is not counted."""
    exec_bytes: int = 1024 * MIB
    login_runs: int = 20
    """Samples of each `ssh host true`."""
    keystrokes: int = 500
    rungs: tuple[int, ...] = (10, 100, 1000)
    """Numbers of idle connections at which memory is read."""
    sshd_rung_limit: int = 100
    """`sshd` is not taken further: it needs a process or two for each connection."""
    program_rung_limit: int = 100
    """Nor are connections with a running program: each costs a process of the workspace."""
    floods: int = 3
    """Samples of each kind of flood."""
    flood_packets: int = 50_000
    """Of one flood."""
    handshakes: int = 200
    """Connections of one sample of the connection rate."""

    @property
    def file_bytes(self) -> int:
        """Size of an sftp or forwarded transfer."""
        return self.exec_bytes // 2

    @property
    def warm_bytes(self) -> int:
        """Size of a transfer that is not counted."""
        return min(32 * MIB, self.exec_bytes)


QUICK = Plan(
    runs=3,
    exec_bytes=128 * MIB,
    login_runs=6,
    keystrokes=150,
    rungs=(10, 100),
    program_rung_limit=10,
    handshakes=60,
    floods=1,
    flood_packets=20_000,
)


@dataclass(frozen=True)
class Bench:
    """What a row is given."""

    plan: Plan
    targets: list[Target]
    folder: Path
    """For sockets and files of this run; short enough for a Unix socket."""
    say: Callable[[str], None]
    """Tells the person who waits what is going on."""
    again: Callable[[Target], AbstractContextManager[Target]]
    """Starts another instance of a target: memory is read in a process that has done nothing else, or
    what earlier rows left free in it would be handed out unseen."""

    def takes_part(self, target: Target, rung: int) -> bool:
        """Tell whether this target is asked to hold `rung` idle connections."""
        return target.label == CANDIDATE or rung <= self.plan.sshd_rung_limit


def require(holds: bool, sentence: str) -> None:
    """Raise BenchError with the sentence unless `holds`: a figure of a broken transfer is worth nothing."""
    if not holds:
        raise BenchError(sentence)
