"""Addresses from which a known user logged in recently, and probably will again."""

from collections import OrderedDict

MAX_SOURCES = 50_000


class Credit:
    """Sources and when the last known key succeeded from there; the oldest go first."""

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._earned: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._earned)

    def earn(self, source: str, now: float) -> None:
        """Record a success."""
        self._earned[source] = now
        self._earned.move_to_end(source)
        if len(self._earned) > MAX_SOURCES:
            self._earned.popitem(last=False)

    def has(self, source: str, now: float) -> bool:
        """Return whether a known key succeeded from this source within the lifetime."""
        earned = self._earned.get(source)
        if earned is not None and now - earned > self._lifetime_s:
            del self._earned[source]
            return False
        return earned is not None
