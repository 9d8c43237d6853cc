"""The drill: a client that never holds the victim's key gets nothing out of the victim's approval.

The person at the other end approves whatever is put before them; what protects them is the order of things.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest

from tests.wire.browser import Shown, decide, find_shown
from tests.wire.newcomer import House, Newcomer, fingerprint, make_key, open_house, public_line
from tests.wire.peers import until
from tests.wire.raw import RawClient, Said

FAILED = "fairlead.auth.failed"
SUCCEEDED = "fairlead.auth.succeeded"
STARTED = "fairlead.user.onboarding_started"
ONBOARDED = "fairlead.user.onboarded"
REFUSED = "fairlead.user.onboarding_refused"

KEY_ONLY: Said = ("failure", ["publickey"], False)
NEXT_APPROVAL: Said = ("failure", ["keyboard-interactive"], True)
NEXT_KEY: Said = ("failure", ["publickey"], True)


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The victim's key; a client of Mallory's knows the public half, as everybody does."""
    directory = tmp_path_factory.mktemp("victim")
    make_key(directory / "forger")
    return make_key(directory / "id")


VICTIMS = [f"victim{number}" for number in range(6)]
"""One for each test, so that what is told of one is told of that test."""


@pytest.fixture(scope="module")
def house(victims: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A provider that lists the victims' key, and lists none for anybody else."""
    accounts = [{"name": name, "keys": [public_line(victims)]} for name in VICTIMS]
    with open_house(
        tmp_path_factory.mktemp("house"), {"providers": [{"kind": "dev", "accounts": accounts}]}
    ) as opened:
        yield opened


@pytest.fixture
def mallory(house: House) -> Iterator[RawClient]:
    """A client that must not have got in when its test ends."""
    with RawClient(house.fairlead.port) as client:
        yield client
        with suppress(EOFError):  # it may have been sent away already
            client.asks_for_a_shell()
        while (said := client.hear()) != ("gone",):
            assert said[0] == "disconnect"


@pytest.fixture
def stranger(tmp_path: Path) -> paramiko.PKey:
    return load(make_key(tmp_path / "stranger"))


def load(path: Path) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def shown_by(said: Said) -> Shown:
    assert said[0] == "shown", said
    shown = find_shown(said[1])
    assert shown, said
    return shown


def lured(client: RawClient, user: str, key: paramiko.PKey) -> Shown:
    """Get as far as a code that can be sent to somebody."""
    client.prove(user, key)
    assert client.hear() == NEXT_APPROVAL
    client.keyboard(user)
    shown = shown_by(client.hear())
    client.answer()
    return shown


def test_keyboard_interactive_first(house: House, mallory: RawClient) -> None:
    """No key, no code: there is nothing that the victim could be asked to approve."""
    mallory.keyboard("victim0")
    assert mallory.hear() == KEY_ONLY
    assert "an approval alone is not enough" in mallory.banners
    mallory.answer()
    assert mallory.hear()[0] == "disconnect"
    (failed,) = house.ears.wait("victim0", FAILED)
    assert failed["reasons"] == ["onboarding.key_not_proved"]
    assert failed["methods"] == ["keyboard-interactive"]


def test_a_strangers_key_first(
    house: House, mallory: RawClient, stranger: paramiko.PKey, victims: Path
) -> None:
    """The victim approves Mallory's code; what it takes then is the victim's key, and Mallory has none."""
    decide(lured(mallory, "victim1", stranger))
    assert mallory.hear() == NEXT_KEY
    for _ in range(2):
        mallory.prove("victim1", stranger)
        assert mallory.hear() == KEY_ONLY
    mallory.prove("victim1", load(victims), signed_by=stranger)
    assert mallory.hear() == KEY_ONLY
    mallory.offer("victim1", load(victims))
    assert mallory.hear() == ("key is welcome",)
    mallory.keyboard("victim1")
    assert mallory.hear() == KEY_ONLY
    until(lambda: len(house.ears.of("victim1")) > 1, "events arrive behind the answer")
    assert [subject for subject, _ in house.ears.of("victim1")] == [STARTED, REFUSED]
    with RawClient(house.fairlead.port) as again:
        lured(again, "victim1", stranger)
        assert again.hears_nothing(2.5)  # the approval is spent, and another code was asked for


def test_the_victims_key_offered_but_not_proved(house: House, mallory: RawClient, victims: Path) -> None:
    """A public key is no secret: neither offering it nor a forged signature earns a code."""
    mallory.offer("victim2", load(victims))
    assert mallory.hear() == ("key is welcome",)
    mallory.keyboard("victim2")
    assert mallory.hear() == KEY_ONLY
    mallory.prove("victim2", load(victims), signed_by=load(victims.with_name("forger")))
    assert mallory.hear() == KEY_ONLY
    mallory.keyboard("victim2")
    assert mallory.hear() == KEY_ONLY
    assert "an approval alone is not enough" in mallory.banners
    mallory.close()
    (failed,) = house.ears.wait("victim2", FAILED)
    assert failed["reasons"] == ["onboarding.key_not_proved"]
    assert failed["fingerprints"] == [fingerprint(victims)]


def test_two_connections_race_on_one_name(house: House, tmp_path: Path, stranger: paramiko.PKey) -> None:
    """Same address, same name, different keys: two codes; approving one lets that one in and no other."""
    person = Newcomer(house, "racer", tmp_path)
    with RawClient(house.fairlead.port) as mallory, person.log_in() as attempt:
        luring, shown = lured(mallory, "racer", stranger), attempt.shown()
        assert shown.code != luring.code
        decide(shown)
        attempt.entered()
        assert mallory.hears_nothing(2.5)
    (failed,) = until(
        lambda: [data for subject, data in house.ears.of("racer") if subject == FAILED], "it is told"
    )
    assert failed["reasons"] == ["gave_up"]
    with RawClient(house.fairlead.port) as mallory:
        mallory.prove("racer", stranger)
        assert mallory.hear() == KEY_ONLY


def test_one_key_twice_shares_a_code(house: House, tmp_path: Path) -> None:
    """The same key, name and address: whoever proved the key, twice, gets in twice."""
    person = Newcomer(house, "twice", tmp_path)
    with person.log_in() as one, person.log_in() as two:
        assert one.shown().code == two.shown().code
        decide(one.shown())
        one.entered()
        two.entered()


def test_the_name_is_changed_before_the_approval(
    house: House, mallory: RawClient, stranger: paramiko.PKey
) -> None:
    """Begins as mallory, proves mallory's key, then is the victim."""
    mallory.prove("mallory", stranger)
    assert mallory.hear() == NEXT_APPROVAL
    mallory.keyboard("victim3")
    assert mallory.hear() == ("disconnect", "the user name cannot be changed; connect again")
    (failed,) = house.ears.wait("mallory", FAILED)
    assert failed["reasons"][0] == "name_changed"
    assert house.ears.of("victim3") == []


def test_the_name_is_changed_while_the_approval_is_awaited(
    house: House, mallory: RawClient, stranger: paramiko.PKey
) -> None:
    """Approved as mallory, who is the victim by then."""
    shown = lured(mallory, "mallory2", stranger)
    mallory.prove("victim4", stranger)
    assert mallory.hear() == ("disconnect", "the user name cannot be changed; connect again")
    decide(shown)
    assert [subject for subject, _ in house.ears.of("victim4")] == []


def test_the_key_is_changed_while_the_approval_is_awaited(
    house: House, tmp_path: Path, stranger: paramiko.PKey
) -> None:
    """What was approved is the key that was shown, whatever is proved or offered later."""
    mine = make_key(tmp_path / "mine")
    with RawClient(house.fairlead.port) as client:
        shown = lured(client, "switcher", load(mine))
        client.prove("switcher", stranger)
        assert client.hear() == ("failure", ["keyboard-interactive"], False)
        client.keyboard("switcher")
        assert shown_by(client.hear()) == shown
        client.answer()
        decide(shown)
        assert client.hear() == ("success",)
    *_, onboarded, entered = house.ears.wait("switcher", STARTED, STARTED, ONBOARDED, SUCCEEDED)
    assert onboarded["fingerprint"] == entered["fingerprint"] == fingerprint(mine)
    assert Newcomer(house, "switcher", tmp_path, [mine]).silently().stdout == b"in\n"
    with RawClient(house.fairlead.port) as client:
        client.prove("switcher", stranger)
        assert client.hear() == KEY_ONLY


def test_an_answer_before_the_question(house: House, mallory: RawClient, stranger: paramiko.PKey) -> None:
    """Costs its sender the connection, and is no bug of ours."""
    mallory.prove("hasty", stranger)
    assert mallory.hear() == NEXT_APPROVAL
    mallory.keyboard("hasty")
    mallory.answer()
    assert mallory.hear()[0] in ("disconnect", "shown")  # the provider may be quicker
    assert "connection ended by a bug" not in house.fairlead.log
