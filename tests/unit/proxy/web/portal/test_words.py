"""Times and counts in words."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.web.portal.words import counted, moment, remaining, since, span, until

NOW = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text", "left"),
    [
        (0, "less than a minute", "less than a minute"),
        (59, "less than a minute", "less than a minute"),
        (60, "1 minute", "1 minute"),
        (3_599, "59 minutes", "59 minutes"),
        (3_600, "1 hour", "1 hour"),
        (28_799, "7 hours", "7 hours and 59 minutes"),
        (86_400, "1 day", "1 day"),
        (2 * 86_400 + 3_700, "2 days", "2 days and 1 hour"),
    ],
)
def test_durations(seconds: float, text: str, left: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
    assert remaining(timedelta(seconds=seconds)) == left


def test_moments_relative_to_now_never_turn_negative() -> None:
    assert since(NOW - timedelta(hours=2), NOW) == "2 hours ago"
    assert since(NOW + timedelta(hours=2), NOW) == "less than a minute ago"
    assert until(NOW + timedelta(days=3), NOW) == "in 3 days"
    assert since(None, NOW) == until(None, NOW) == "never"
    assert moment(NOW) == "2026-03-04 05:06 UTC"
    assert moment(None) == ""


def test_counts() -> None:
    assert [counted(number, "key") for number in (0, 1, 2)] == ["0 keys", "1 key", "2 keys"]
