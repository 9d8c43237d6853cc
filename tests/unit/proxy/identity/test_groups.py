"""For how long groups count, by the times at which a provider answered or did not."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.identity import groups
from proxy.identity.groups import Reading
from proxy.settings.groups import GroupSettings

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SETTINGS = GroupSettings(max_age_s=1_000, grace_s=500, refresh_s=100)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("age_s", "failed_s", "ended", "counts"),
    [
        (0, None, False, True),
        (1_000, None, False, True),
        (1_001, None, False, False),
        (1_001, 1, False, True),
        (1_500, 1, False, True),
        (1_501, 1, False, False),
        (10, 1, False, True),
        (10, None, True, False),
        (10, 1, True, False),
    ],
)
def test_groups_count_until_their_age_and_in_an_outage_for_the_grace_besides(
    age_s: float, failed_s: float | None, ended: bool, counts: bool
) -> None:
    reading = Reading(ago(age_s), None if failed_s is None else ago(failed_s), NOW if ended else None)
    assert groups.count(reading, SETTINGS, NOW) is counts


@pytest.mark.parametrize(("age_s", "is_due"), [(99, False), (100, True), (5_000, True)])
def test_a_refresh_is_due_long_before_the_end(age_s: float, is_due: bool) -> None:
    assert groups.is_due(Reading(ago(age_s)), SETTINGS, NOW) is is_due


def test_a_short_age_is_refreshed_at_its_half_whatever_the_interval() -> None:
    assert GroupSettings(max_age_s=4).refresh_after_s == 2
