"""When one generation takes over from another."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.trust import generations
from proxy.trust.generations import Generations, Schedule, advance, dump, first, load

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY, YEAR = timedelta(days=1), timedelta(days=365)
SCHEDULE = Schedule(
    announce=DAY, rotate_after=YEAR, retire=2 * DAY, authority_lifetime=2 * YEAR, back_date=timedelta(hours=1)
)


def numbers(found: Generations) -> list[int]:
    return [one.number for one in found.all]


def after(found: Generations, passed: timedelta) -> Generations:
    return advance(found, NOW + passed, SCHEDULE, signs=True)


def test_a_life_from_first_to_last() -> None:
    found = first(NOW, SCHEDULE, signs=True)
    assert after(found, YEAR - DAY) is found
    announced = after(found, YEAR)
    assert numbers(announced) == [1, 2]
    assert announced.is_rotating
    assert announced.issuing(NOW + YEAR).number == 1
    assert announced.issuing(NOW + YEAR + DAY).number == 2
    assert after(announced, YEAR) is announced
    assert after(announced, YEAR + 3 * DAY - timedelta(seconds=1)) is announced
    alone = after(announced, YEAR + 3 * DAY)
    assert numbers(alone) == [2]
    assert not alone.is_rotating


def test_every_moment_of_a_rotation_is_trusted_by_who_read_one_step_less() -> None:
    """What anybody signs with is trusted by everybody who read within the time of announcement."""
    old = first(NOW, SCHEDULE, signs=True)
    new = after(old, YEAR)
    for late in (timedelta(), DAY - timedelta(seconds=1)):
        assert new.issuing(NOW + YEAR + late).number in numbers(old)


def test_nobody_is_forgotten_while_a_successor_is_only_announced() -> None:
    found = first(NOW, SCHEDULE, signs=True).with_successor(NOW, 30 * DAY, SCHEDULE, signs=True)
    assert after(found, 29 * DAY) is found


def test_a_dead_authority_gets_a_successor_that_signs_at_once() -> None:
    """Nobody ran for years; waiting a day would help nobody."""
    found = after(first(NOW, SCHEDULE, signs=True), 3 * YEAR)
    assert found.issuing(NOW + 3 * YEAR).number == 2


def test_without_certificates_only_master_keys_change() -> None:
    found = first(NOW, SCHEDULE, signs=False)
    assert found.authorities == []
    rotated = advance(found, NOW + YEAR, SCHEDULE, signs=False)
    assert numbers(rotated) == [1, 2]
    assert rotated.all[0].master != rotated.all[1].master
    own = advance(found, NOW + DAY, SCHEDULE, signs=True)
    assert own.issuing(NOW + DAY).authority is not None, "from cert-manager to an authority of our own"


def test_what_is_written_is_read() -> None:
    found = after(first(NOW, SCHEDULE, signs=True), YEAR)
    read = load(dump(found))
    assert dump(read) == dump(found)
    assert numbers(read) == [1, 2]
    none = first(NOW, SCHEDULE, signs=False)
    assert dump(load(dump(none))) == dump(none)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2, "generations": []}',
        b'{"format": 1, "generations": []}',
        b'{"format": 1, "generations": [{"number": 1}]}',
        b'{"format": 1, "generations": [{"number": 1, "issues_from": "2027-01-01", "certificate": null,'
        b' "key": null, "master": "c2VjcmV0LXNlY3JldA=="}]}',
    ],
)
def test_damage_is_told_without_the_secret(raw: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read") as caught:
        load(raw)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_numbers_only_grow() -> None:
    twice = dump(Generations(first(NOW, SCHEDULE, signs=False).all * 2))
    with pytest.raises(ValueError, match="cannot be read"):
        load(twice)
    assert generations.load(dump(first(NOW, SCHEDULE, signs=False)))
