"""Age of groups: the times at which a provider's answer is renewed and stops to count. Pure.

read ──refresh_s──▶ refreshed when possible ──max_age_s──▶ ended
                                             └─ provider away ──grace_s──▶ ended
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from proxy.settings.groups import GroupSettings


@dataclass(frozen=True, slots=True)
class Reading:
    """Times of requests to a provider about an account, aware UTC."""

    read_at: datetime
    """Time of the last answer."""
    failed_at: datetime | None = None
    """Time of the last request without an answer; None when an answer came since."""
    ended_at: datetime | None = None
    """When the provider stopped to vouch for the account."""


def age(reading: Reading, now: datetime) -> timedelta:
    """Return the time since the last answer."""
    return now - reading.read_at


def is_due(reading: Reading, settings: GroupSettings, now: datetime) -> bool:
    """Return whether the provider is to be asked again."""
    return age(reading, now) >= timedelta(seconds=settings.refresh_after_s)


def is_over(reading: Reading, settings: GroupSettings, now: datetime) -> bool:
    """Return whether groups are older than `max_age_s`, for any reason."""
    return age(reading, now) > timedelta(seconds=settings.max_age_s)


def count(reading: Reading, settings: GroupSettings, now: datetime) -> bool:
    """Return whether groups are in effect at `now`."""
    if reading.ended_at is not None:
        return False
    if not is_over(reading, settings, now):
        return True
    limit = timedelta(seconds=settings.max_age_s + settings.grace_s)
    return reading.failed_at is not None and age(reading, now) <= limit
