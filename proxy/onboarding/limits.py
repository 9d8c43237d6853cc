"""Limits on pending approvals and on the rate of new ones. Pure.

Onboarding is open to unknown clients, so everything that one of them can start is counted before it starts:
per source (an IPv6 source is its /64, which one subscriber has), per name, and in total.
"""

from collections import Counter, OrderedDict, deque

from proxy.addresses import source_of
from proxy.errors.login import TooManyForName, TooManyFromSource, TooManyPending
from proxy.settings.onboarding import OnboardingSettings

MAX_SOURCES = 10_000
_HOUR_S = 3_600.0
_MINUTE_S = 60.0


class OnboardingLimits:
    """Counts of pending flows, and times of recent starts."""

    def __init__(self, settings: OnboardingSettings) -> None:
        self._settings = settings
        self._sources: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        self._starts: deque[float] = deque()
        self._starts_by_source: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return self._names.total()

    def enter(self, source: str, name: str, now: float) -> None:
        """Count one more flow.

        Raises: TooManyFromSource, TooManyForName, TooManyPending; then nothing is counted.
        """
        network, settings = source_of(source), self._settings
        recent = self._recent(network, now)
        if self._sources[network] >= settings.max_pending_per_source:
            raise TooManyFromSource(
                f"{network} has {self._sources[network]} approvals pending",
                user_message="too many logins from your address wait for approval already",
            )
        if len(recent) >= settings.starts_per_source_per_hour:
            raise TooManyFromSource(
                f"{network} began {len(recent)} approvals within an hour",
                user_message="too many logins were begun from your address; try again later",
            )
        if self._names[name] >= settings.max_pending_per_name:
            raise TooManyForName(
                f"{self._names[name]} approvals are pending for {name}",
                user_message=f"too many logins as {name} wait for approval already",
            )
        while self._starts and now - self._starts[0] >= _MINUTE_S:
            self._starts.popleft()
        if len(self) >= settings.max_pending or len(self._starts) >= settings.starts_per_minute:
            raise TooManyPending(
                f"{len(self)} approvals pending, {len(self._starts)} begun within a minute",
                user_message="too many people wait for approval at the moment",
            )
        self._sources[network] += 1
        self._names[name] += 1
        self._starts.append(now)
        recent.append(now)

    def leave(self, source: str, name: str) -> None:
        """Count one less."""
        for counter, key in ((self._sources, source_of(source)), (self._names, name)):
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]

    def _recent(self, network: str, now: float) -> deque[float]:
        recent = self._starts_by_source.setdefault(network, deque())
        self._starts_by_source.move_to_end(network)
        while recent and now - recent[0] >= _HOUR_S:
            recent.popleft()
        while len(self._starts_by_source) > MAX_SOURCES:
            self._starts_by_source.popitem(last=False)
        return recent
