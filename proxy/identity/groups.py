"""Age of groups: whether what a provider said about an account still counts. Pure.

read ──refresh_s──▶ refreshed when possible ──max_age_s──▶ ended
                                             └─ provider away ──grace_s──▶ ended
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from proxy.settings.groups import GroupSettings


@dataclass(frozen=True, slots=True)
class Reading:
    """When a provider was asked about an account, aware UTC."""

    read_at: datetime
    """Of the last answer."""
    failed_at: datetime | None = None
    """Of the last question without an answer; None when an answer came since."""
    ended_at: datetime | None = None
    """When the provider said that it does not vouch for the account any more."""


def age(reading: Reading, now: datetime) -> timedelta:
    """Return the time since the last answer."""
    return now - reading.read_at


def is_due(reading: Reading, settings: GroupSettings, now: datetime) -> bool:
    """Tell whether the provider is to be asked again."""
    return age(reading, now) >= timedelta(seconds=settings.refresh_after_s)


def is_over(reading: Reading, settings: GroupSettings, now: datetime) -> bool:
    """Tell whether groups are older than `max_age_s`, for any reason."""
    return age(reading, now) > timedelta(seconds=settings.max_age_s)


def count(reading: Reading, settings: GroupSettings, now: datetime) -> bool:
    """Tell whether groups are in effect at `now`."""
    if reading.ended_at is not None:
        return False
    if not is_over(reading, settings, now):
        return True
    limit = timedelta(seconds=settings.max_age_s + settings.grace_s)
    return reading.failed_at is not None and age(reading, now) <= limit
