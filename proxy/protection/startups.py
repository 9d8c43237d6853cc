"""Limits on connections before login: their number, and the rate of new ones. Pure."""

from collections import Counter, OrderedDict
from collections.abc import Callable


class Startups:
    """Counts by source and in all, with random early drop as `MaxStartups begin:percent:full` of sshd."""

    def __init__(
        self, begin: int, percent: int, full: int, per_source: int, chance: Callable[[], float]
    ) -> None:
        """Take the limits; `chance` returns numbers from 0 to 1, evenly distributed."""
        self._begin = begin
        self._percent = percent
        self._full = full
        self._per_source = per_source
        self._chance = chance
        self._sources: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def enter(self, source: str, *, is_allowed: bool, is_known: bool = False) -> str:
        """Count one more connection; return the reason against it as one word, or "".

        An allowed source has no limit of its own. A known source is admitted even while unknown ones fill
        the common limit.
        """
        if not is_allowed and self._sources[source] >= self._per_source:
            return "source_full"
        is_full = self._total >= self._full or self._chance() * 100 < self._drop_percent()
        if is_full and not is_known:
            return "full"
        self._total += 1
        self._sources[source] += 1
        return ""

    def leave(self, source: str) -> None:
        """Count one less."""
        self._total -= 1
        self._sources[source] -= 1
        if self._sources[source] <= 0:
            del self._sources[source]

    def _drop_percent(self) -> float:
        """Return the drop probability in percent: from `percent` at `begin` linearly to 100 at `full`."""
        if self._total < self._begin:
            return 0
        span = max(1, self._full - self._begin)
        return self._percent + (100 - self._percent) * (self._total - self._begin) / span


class Rate:
    """A limit per minute for each source, available at once.

    The source that was quiet longest is dropped first.
    """

    def __init__(self, per_minute: float, burst: float, max_sources: int) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._max_sources = max_sources
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, source: str, now: float) -> bool:
        """Take one, if one is left."""
        left, then = self._left.get(source, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_s)
        is_enough = left >= 1
        self._left[source] = (left - 1 if is_enough else left, now)
        self._left.move_to_end(source)
        if len(self._left) > self._max_sources:
            self._left.popitem(last=False)
        return is_enough
