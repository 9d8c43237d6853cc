"""Who is not let in, by whose decision: each its own sentence, its own event, and no shell."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.browser import Browser
from tests.wire.browser import decide, in_a_loop
from tests.wire.newcomer import (
    WIDE_OPEN,
    House,
    Newcomer,
    fingerprint,
    make_key,
    open_house,
    public_line,
    reference_in,
)

FAILED = "fairlead.auth.failed"
SUCCEEDED = "fairlead.auth.succeeded"
STARTED = "fairlead.user.onboarding_started"
ONBOARDED = "fairlead.user.onboarded"
REFUSED = "fairlead.user.onboarding_refused"
WAITLISTED = "fairlead.user.waitlisted"

RULES = [
    {"name": "later", "action": "waitlist", "names": ["wait-*"]},
    {"name": "never", "action": "refuse", "names": ["shut-*"]},
]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that the provider lists for the accounts `lewis` and `late`."""
    return make_key(tmp_path_factory.mktemp("keys") / "listed")


@pytest.fixture(scope="module")
def house(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    accounts = [{"name": name, "keys": [public_line(listed)]} for name in ("lewis", "late")]
    front_door = {
        "providers": [{"kind": "dev", "accounts": accounts}],
        "onboarding": {**WIDE_OPEN, "rules": RULES, "otherwise": "allow"},
    }
    with open_house(tmp_path_factory.mktemp("house"), front_door) as opened:
        yield opened


def refused_events(house: House, person: Newcomer, *reasons: str) -> None:
    """Check what was told of somebody who was shown a code and refused after it."""
    started, refused, failed = house.ears.wait(person.name, STARTED, REFUSED, FAILED)
    key = fingerprint(person.keys[0])
    assert started["provider"] == "dev"
    assert (started["fingerprint"], refused["fingerprint"], failed["fingerprints"][0]) == (key, key, key)
    assert refused["reasons"] == [reasons[0]]
    assert failed["reasons"] == list(reasons)
    assert failed["methods"] == ["publickey", "keyboard-interactive"]
    assert started["connection_id"] == refused["connection_id"] == failed["connection_id"]
    assert (failed["client_address"], failed["client_version"][:8]) == ("127.0.0.1", "OpenSSH_")


def test_approved_by_another_account(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "dodo", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown(), account="somebody-else")
        said = attempt.refused()
    assert "approved by another dev account than dodo" in said
    assert "somebody-else" not in said
    refused_events(house, person, "onboarding.other_account")
    assert house.ears.of("dodo")[-1][1]["connection_id"] == reference_in(said)
    assert b"Permission denied" in person.silently().stderr


def test_approved_but_the_key_is_not_that_accounts(house: House, tmp_path: Path) -> None:
    """The person approves, and the provider lists other keys: approval alone lets nobody in."""
    person = Newcomer(house, "lewis", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        said = attempt.refused()
    assert f"your key {fingerprint(person.keys[0])} is not among the keys of that dev account" in said
    assert "Permission denied (publickey)" in said
    refused_events(house, person, "onboarding.key_not_listed")


def test_another_key_on_the_retry_that_is_not_listed_either(
    house: House, listed: Path, tmp_path: Path
) -> None:
    """Partial success asks for a key again; what comes is judged as the first one was."""
    keys = [make_key(tmp_path / "one"), make_key(tmp_path / "two")]
    person = Newcomer(house, "late", tmp_path, keys)
    with person.log_in() as attempt:
        decide(attempt.shown())
        attempt.refused()
    refused_events(house, person, "onboarding.key_not_listed")
    offered = house.ears.of("late")[-1][1]["fingerprints"]
    assert offered == [fingerprint(key) for key in keys]

    house.ears.heard.clear()
    happy = Newcomer(house, "late", tmp_path, [keys[0], listed])
    with happy.log_in() as attempt:
        decide(attempt.shown())
        said = attempt.entered()
    assert "trying your other keys" in said
    _, refused, onboarded, entered = house.ears.wait("late", STARTED, REFUSED, ONBOARDED, SUCCEEDED)
    assert refused["reasons"] == ["onboarding.key_not_listed"]
    assert refused["fingerprint"] == fingerprint(keys[0])
    assert onboarded["fingerprint"] == entered["fingerprint"] == fingerprint(listed)
    assert Newcomer(house, "late", tmp_path, [listed]).silently().stdout == b"in\n"
    assert Newcomer(house, "late", tmp_path, keys).silently().returncode == 255


def test_denied(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "duchess", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown(), "deny")
        assert "the request was denied at dev" in attempt.refused()
    refused_events(house, person, "onboarding.denied")


def test_refused_by_a_rule(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "shut-out", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        said = attempt.refused()
    assert "this account may not log in here" in said
    assert "never" not in said
    refused_events(house, person, "onboarding.refused")


def test_waitlisted(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "wait-please", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        assert "your request is on the waiting list; an operator has to approve it" in attempt.refused()
    _, waitlisted, failed = house.ears.wait(person.name, STARTED, WAITLISTED, FAILED)
    assert waitlisted["fingerprint"] == fingerprint(person.keys[0])
    assert failed["reasons"] == ["onboarding.waitlisted"]


def test_a_code_is_good_once(house: House, tmp_path: Path) -> None:
    """What was approved cannot be approved again, for anybody."""
    person = Newcomer(house, "once", tmp_path)
    with person.log_in() as attempt:
        shown = attempt.shown()
        decide(shown)
        attempt.entered()

    async def again() -> int:
        async with Browser() as browser:
            return (await browser.get(shown.link)).status

    assert in_a_loop(again()) == 404


def test_locked(house: House, tmp_path: Path) -> None:
    """Told to whoever proves the key, and to nobody else."""
    person = Newcomer(house, "pat", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        attempt.entered()
    house.fairlead.cli("user", "lock", "pat")
    with person.log_in() as attempt:
        assert "this user is locked" in attempt.refused()
    failed = house.ears.wait("pat", STARTED, ONBOARDED, SUCCEEDED, FAILED)[-1]
    assert (failed["reasons"], failed["methods"]) == (["login.locked"], ["publickey"])
    with Newcomer(house, "pat", tmp_path, [make_key(tmp_path / "other")]).log_in() as attempt:
        assert "locked" not in attempt.refused()
    house.fairlead.cli("user", "unlock", "pat")
    assert person.silently().stdout == b"in\n"
