"""Those who are known: by keys that their provider lists now, by an operator's no, until they expire."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.browser import decide
from tests.wire.harness import needs
from tests.wire.newcomer import WIDE_OPEN, House, Newcomer, fingerprint, make_key, open_house, public_line

pytestmark = needs("ssh", "ssh-keygen")

RULES = [{"name": "later", "action": "waitlist", "names": ["wait-*"]}]
STARTED = "fairlead.user.onboarding_started"
ONBOARDED = "fairlead.user.onboarded"
FAILED = "fairlead.auth.failed"
SUCCEEDED = "fairlead.auth.succeeded"
KEY_ADDED = "fairlead.user.key_added"
KEY_REMOVED = "fairlead.user.key_removed"


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two keys that the provider lists for the account `lewis`."""
    directory = tmp_path_factory.mktemp("keys")
    return [make_key(directory / "first"), make_key(directory / "second")]


@pytest.fixture(scope="module")
def house(listed: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    front_door = {
        "providers": [{"kind": "dev", "accounts": [{"name": "lewis", "keys": [*map(public_line, listed)]}]}],
        "onboarding": {**WIDE_OPEN, "rules": RULES, "otherwise": "allow"},
    }
    with open_house(tmp_path_factory.mktemp("house"), front_door) as opened:
        yield opened


def test_a_key_that_the_provider_lists_is_in_until_an_operator_takes_it(
    house: House, listed: list[Path], tmp_path: Path
) -> None:
    first, second = listed
    with Newcomer(house, "lewis", tmp_path, [first]).log_in() as attempt:
        decide(attempt.shown())
        attempt.entered()
    by_second = Newcomer(house, "lewis", tmp_path, [second])
    assert by_second.silently().stdout == b"in\n"
    *_, told, _ = house.ears.wait("lewis", STARTED, ONBOARDED, SUCCEEDED, KEY_ADDED, SUCCEEDED)
    assert (told["fingerprint"], told["actor"], told["origin"]) == (
        fingerprint(second),
        "provider:dev",
        "dev",
    )
    assert Newcomer(house, "lewis", tmp_path, [make_key(tmp_path / "other")]).silently().returncode == 255

    said = (STARTED, ONBOARDED, SUCCEEDED, KEY_ADDED, SUCCEEDED, FAILED)
    house.ears.wait("lewis", *said)
    house.fairlead.cli("key", "remove", "lewis", fingerprint(second))
    told = house.ears.wait("lewis", *said, KEY_REMOVED)[-1]
    assert (told["fingerprint"], told["actor"][:4], told["origin"]) == (fingerprint(second), "cli:", "dev")
    assert b"Permission denied" in by_second.silently().stderr
    house.fairlead.cli("key", "add", "lewis", f"{second}.pub")
    assert by_second.silently().stdout == b"in\n"


def test_a_rejection_is_remembered(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "wait-forever", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        assert "your request is on the waiting list" in attempt.refused()
    (waiting,) = json.loads(house.fairlead.cli("onboarding", "list", "--json"))
    house.fairlead.cli("onboarding", "reject", str(waiting["id"]))
    with person.log_in() as attempt:
        decide(attempt.shown())
        assert "an operator rejected your request to log in here" in attempt.refused()


def test_an_expired_user_is_told_so(house: House, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    house.fairlead.cli("user", "add", "temp", "--key", f"{key}.pub", "--expires", "2020-02-03T04:05")
    refused = Newcomer(house, "temp", tmp_path, [key]).silently()
    assert refused.returncode == 255
    assert b"this user expired on 2020-02-03 at 04:05 UTC" in refused.stderr
