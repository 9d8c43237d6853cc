import pytest

from proxy.errors.login import TooManyForName, TooManyFromSource, TooManyPending
from proxy.onboarding.limits import MAX_SOURCES, OnboardingLimits
from proxy.settings.onboarding import OnboardingSettings


def intake(**limits: int) -> OnboardingLimits:
    return OnboardingLimits(OnboardingSettings(**limits))


def test_caps_have_errors_of_their_own() -> None:
    count = intake(max_pending=4, max_pending_per_source=2, max_pending_per_name=3)
    for name in ("a", "b"):
        count.enter("192.0.2.1", name, 0)
    with pytest.raises(TooManyFromSource):
        count.enter("192.0.2.1", "c", 0)
    count.enter("192.0.2.2", "a", 0)
    count.enter("192.0.2.3", "a", 0)
    with pytest.raises(TooManyForName):
        count.enter("192.0.2.4", "a", 0)
    with pytest.raises(TooManyPending) as caught:
        count.enter("192.0.2.4", "d", 0)
    assert type(caught.value) is TooManyPending
    assert len(count) == 4


def test_leaving_makes_room() -> None:
    count = intake(max_pending_per_source=1)
    for moment in range(20):
        count.enter("192.0.2.1", "a", moment)
        count.leave("192.0.2.1", "a")
    assert len(count) == 0


def test_churn_is_bounded_by_source_and_altogether() -> None:
    count = intake(starts_per_source_per_hour=3, starts_per_minute=5)
    for moment in range(3):
        count.enter("192.0.2.1", "a", moment)
        count.leave("192.0.2.1", "a")
    with pytest.raises(TooManyFromSource):
        count.enter("192.0.2.1", "a", 1_000)
    count.enter("192.0.2.1", "a", 3_600)
    for number in range(4):
        count.enter(f"192.0.2.{10 + number}", "b", 3_600 + number)
    with pytest.raises(TooManyPending):
        count.enter("192.0.2.50", "c", 3_605)
    count.enter("192.0.2.50", "c", 3_661)


def test_memory_of_sources_is_bounded() -> None:
    count = intake(max_pending=1_000_000, starts_per_minute=1_000_000)
    for number in range(MAX_SOURCES + 50):
        source = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        count.enter(source, "a" + str(number), 0)
    assert len(count._starts_by_source) == MAX_SOURCES
