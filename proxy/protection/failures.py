"""Counts of failed logins by source, within a sliding window. Pure."""

from collections import OrderedDict, deque


class Failures:
    """Times of the last failures of each source; the longest quiet source goes when there are too many."""

    def __init__(self, window_s: float, max_sources: int, max_failures: int) -> None:
        self._window_s = window_s
        self._max_sources = max_sources
        self._max_failures = max_failures
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def add(self, source: str, now: float) -> int:
        """Count one more failure; return their number within the window, this one included."""
        times = self._times.setdefault(source, deque(maxlen=self._max_failures))
        self._times.move_to_end(source)
        times.append(now)
        while now - times[0] > self._window_s:
            times.popleft()
        while len(self._times) > self._max_sources or self._is_over(now):
            self._times.popitem(last=False)
        return len(times)

    def forget(self, source: str) -> None:
        """Forget the failures of a source."""
        self._times.pop(source, None)

    def _is_over(self, now: float) -> bool:
        oldest = next(iter(self._times.values()))
        return now - oldest[-1] > self._window_s


def threshold(failures: int, offences: int) -> int:
    """Return the number of failures that ban a source with `offences` earlier bans."""
    return max(1, failures >> min(offences, 30))


def length_s(lengths_s: tuple[float, ...], offences: int) -> float:
    """Return the seconds of the next ban of a source with `offences` earlier bans."""
    return lengths_s[min(offences, len(lengths_s) - 1)]
