"""Times and counts in words, for pages. Pure."""

from datetime import datetime, timedelta

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def span(length: timedelta) -> str:
    """Return a duration in its largest whole unit; less than a minute is `less than a minute`."""
    seconds = length.total_seconds()
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return counted(int(seconds // unit_s), name)
    return "less than a minute"


def remaining(length: timedelta) -> str:
    """Return a duration in its two largest whole units, down to minutes: time that is left is counted."""
    minutes = int(length.total_seconds() // 60)
    parts = [
        counted(number, name)
        for number, name in (
            (minutes // 1_440, "day"),
            (minutes // 60 % 24, "hour"),
            (minutes % 60, "minute"),
        )
        if number
    ]
    return " and ".join(parts[:2]) or "less than a minute"


def counted(number: int, what: str) -> str:
    """Return `1 session` or `3 sessions`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def since(at: datetime | None, now: datetime) -> str:
    """Return the time that has passed; `never` without a moment."""
    return "never" if at is None else f"{span(max(now - at, timedelta()))} ago"


def until(at: datetime | None, now: datetime) -> str:
    """Return the time that is left."""
    return "never" if at is None else f"in {span(max(at - now, timedelta()))}"


def moment(at: datetime | None) -> str:
    """Return date and time; every moment on a page is UTC."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def clock(at: datetime | None) -> str:
    """Return the moment as the `datetime` of HTML's `time` element."""
    return "" if at is None else at.isoformat(timespec="seconds")


def day(at: datetime | None) -> str:
    """Return the date."""
    return "" if at is None else f"{at:%Y-%m-%d}"
