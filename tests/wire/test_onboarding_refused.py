"""Who is not let in, by whose decision: each its own sentence, its own event, and no shell."""

import json
import subprocess
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
LOCKED = "fairlead.user.locked"
KEY_ADDED = "fairlead.user.key_added"
WAITLISTED = "fairlead.user.waitlisted"

RULES = [
    {"name": "later", "action": "waitlist", "names": ["wait-*"]},
    {"name": "never", "action": "refuse", "names": ["shut-*"]},
]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that the provider lists for the accounts `lewis`, `late` and `wait-listed`."""
    return make_key(tmp_path_factory.mktemp("keys") / "listed")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signs user certificates that are trusted."""
    return make_key(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def revoked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of the list of revoked keys."""
    return make_key(tmp_path_factory.mktemp("revoked") / "revoked")


@pytest.fixture(scope="module")
def house(
    listed: Path, authority: Path, revoked: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    accounts = [{"name": name, "keys": [public_line(listed)]} for name in ("lewis", "late", "wait-listed")]
    front_door = {
        "providers": [{"kind": "dev", "accounts": accounts}],
        "onboarding": {**WIDE_OPEN, "rules": RULES, "otherwise": "allow"},
    }
    trust = {
        "FAIRLEAD_IDENTITY__TRUSTED_USER_CA_KEYS": json.dumps([f"{authority}.pub"]),
        "FAIRLEAD_IDENTITY__REVOKED_KEYS": json.dumps([f"{revoked}.pub"]),
    }
    with open_house(tmp_path_factory.mktemp("house"), front_door, trust) as opened:
        yield opened


def refused_events(house: House, person: Newcomer, *reasons: str, account: str) -> None:
    """Check what was told of somebody who was shown a code and refused after it."""
    started, refused, failed = house.ears.wait(person.name, STARTED, REFUSED, FAILED)
    key = fingerprint(person.keys[0])
    assert started["provider"] == refused["provider"] == "dev"
    assert refused["account"] == account
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
    refused_events(house, person, "onboarding.other_account", account="somebody-else")
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
    refused_events(house, person, "onboarding.key_not_listed", account="lewis")


def test_another_key_on_the_retry_that_is_not_listed_either(
    house: House, listed: Path, tmp_path: Path
) -> None:
    """Partial success asks for a key again; what comes is judged as the first one was."""
    keys = [make_key(tmp_path / "one"), make_key(tmp_path / "two")]
    person = Newcomer(house, "late", tmp_path, keys)
    with person.log_in() as attempt:
        decide(attempt.shown())
        attempt.refused()
    refused_events(house, person, "onboarding.key_not_listed", account="late")
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
    refused_events(house, person, "onboarding.denied", account="")


def test_refused_by_a_rule(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "shut-out", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        said = attempt.refused()
    assert "this account may not log in here" in said
    assert "never" not in said
    refused_events(house, person, "onboarding.refused", account="shut-out")


def test_waitlisted(house: House, tmp_path: Path) -> None:
    """Until an operator says yes; then the key that was proved is enough."""
    person = Newcomer(house, "wait-please", tmp_path)
    with person.log_in() as attempt:
        decide(attempt.shown())
        assert "your request is on the waiting list; an operator has to approve it" in attempt.refused()
    _, waitlisted, failed = house.ears.wait(person.name, STARTED, WAITLISTED, FAILED)
    assert waitlisted["fingerprint"] == fingerprint(person.keys[0])
    assert (waitlisted["provider"], waitlisted["account"]) == ("dev", "wait-please")
    assert failed["reasons"] == ["onboarding.waitlisted"]
    (waiting,) = json.loads(house.fairlead.cli("onboarding", "list", "--json"))
    house.fairlead.cli("onboarding", "approve", str(waiting["id"]))
    assert person.silently().stdout == b"in\n"


def test_waitlisted_by_the_second_key(house: House, listed: Path, tmp_path: Path) -> None:
    """The key that is the account's own is judged by the same rules as a first one."""
    person = Newcomer(house, "wait-listed", tmp_path, [make_key(tmp_path / "first"), listed])
    with person.log_in() as attempt:
        decide(attempt.shown())
        assert "your request is on the waiting list" in attempt.refused()
    _, refused, waitlisted, failed = house.ears.wait(person.name, STARTED, REFUSED, WAITLISTED, FAILED)
    assert refused["fingerprint"] == fingerprint(person.keys[0])
    assert waitlisted["fingerprint"] == fingerprint(listed)
    assert failed["reasons"] == ["onboarding.key_not_listed", "onboarding.waitlisted"]


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
    failed = house.ears.wait("pat", STARTED, ONBOARDED, SUCCEEDED, LOCKED, FAILED)[-1]
    assert (failed["reasons"], failed["methods"]) == (["login.locked"], ["publickey"])
    with Newcomer(house, "pat", tmp_path, [make_key(tmp_path / "other")]).log_in() as attempt:
        assert "locked" not in attempt.refused()
    house.fairlead.cli("user", "unlock", "pat")
    assert person.silently().stdout == b"in\n"


def test_expired(house: House, tmp_path: Path) -> None:
    person = Newcomer(house, "hatter", tmp_path)
    house.fairlead.cli("user", "add", "hatter", "--key", f"{person.keys[0]}.pub", "--expires", "2020-01-31")
    with person.log_in() as attempt:
        assert "this user expired on 2020-01-31" in attempt.refused()
    assert house.ears.wait("hatter", KEY_ADDED, FAILED)[-1]["reasons"] == ["login.expired"]


@pytest.mark.parametrize(
    ("name", "principal", "options", "sentence", "reason"),
    [
        ("caterpillar", "caterpillar", ("-V", "20200101:20200102"), "expired 2020-01-02", "expired"),
        ("cheshire", "gryphon", (), "is for gryphon, not for cheshire", "principal"),
        (
            "dormouse",
            "dormouse",
            ("-O", "source-address=192.0.2.0/24"),
            "may not be used from 127.0.0.1",
            "source_address",
        ),
    ],
)
def test_a_certificate_that_does_not_fit(
    house: House,
    authority: Path,
    tmp_path: Path,
    name: str,
    principal: str,
    options: tuple[str, ...],
    sentence: str,
    reason: str,
) -> None:
    person = Newcomer(house, name, tmp_path)
    house.fairlead.cli("user", "add", name)
    command = ["ssh-keygen", "-q", "-s", authority, "-I", "id", "-n", principal, *options, person.keys[0]]
    subprocess.run(command, check=True)
    with person.log_in() as attempt:
        assert f"your certificate {sentence}" in attempt.refused()
    (failed,) = house.ears.wait(name, FAILED)
    assert set(failed["reasons"]) == {f"certificate_{reason}", "key_unknown"}  # the plain key is tried too
    assert failed["fingerprints"] == [fingerprint(person.keys[0])]


@pytest.mark.parametrize(("kind", "reason"), [("revoked", "key_revoked"), ("weak", "key_weak")])
def test_a_revoked_or_weak_key_begins_no_onboarding(
    house: House, revoked: Path, tmp_path: Path, kind: str, reason: str
) -> None:
    key = revoked
    if kind == "weak":
        key = tmp_path / "weak"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", key], check=True)
    person = Newcomer(house, f"new-{kind}", tmp_path, [key])
    with person.log_in(
        options=["-o", "IgnoreUnknown=RequiredRSASize", "-o", "RequiredRSASize=1024"]
    ) as attempt:
        told = attempt.refused()
        assert ("an RSA key of 1024 bits is too weak" in told) is (kind == "weak")
    (failed,) = house.ears.wait(person.name, FAILED)
    assert reason in failed["reasons"]
    assert [subject for subject, _ in house.ears.of(person.name)] == [FAILED]
