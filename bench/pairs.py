"""Pairs of samples, and what may be said about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Literal, TypeVar

from bench.targets import Target

T = TypeVar("T")

YARDSTICK = "sshd"
CANDIDATE = "Fairlead"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some samples."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(samples: Sequence[float]) -> "Spread":
        return Spread(median(samples), min(samples), max(samples))


@dataclass
class Metric:
    """One line of the report."""

    row: str
    name: str
    unit: str
    samples: dict[str, list[float]]
    """By label of the target, in the order taken; the n-th of each belong to one pair."""
    better: Literal["higher", "lower"] = "lower"
    goal: str = ""
    """What the project has promised for this line, in words."""
    paired: bool = True
    raw: dict[str, list[float]] = field(default_factory=dict)
    """Single observations behind the samples, where a sample is itself a statistic."""

    def spread(self, label: str) -> Spread | None:
        samples = self.samples.get(label)
        return Spread.of(samples) if samples else None

    def ratio(self) -> Spread | None:
        """Compare candidate with yardstick, pair by pair; None when there is nothing to compare."""
        ours, theirs = self.samples.get(CANDIDATE), self.samples.get(YARDSTICK)
        if not self.paired or not ours or not theirs or len(ours) != len(theirs) or min(theirs) <= 0:
            return None
        return Spread.of([ours[n] / theirs[n] for n in range(len(ours))])


def in_pairs(targets: Sequence[Target], count: int, sample: Callable[[Target], T]) -> dict[str, list[T]]:
    """Take `count` samples of every target, interleaved, the order reversed from round to round."""
    taken: dict[str, list[T]] = {target.label: [] for target in targets}
    for number in range(count):
        for target in targets if number % 2 == 0 else reversed(targets):
            taken[target.label].append(sample(target))
    return taken


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the smallest sample that `percent` of them (1 to 100) do not exceed."""
    ordered = sorted(samples)
    return ordered[ceil(len(ordered) * percent / 100) - 1]
