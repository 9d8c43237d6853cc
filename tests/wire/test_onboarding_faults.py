"""A provider that fails, a person who does not come, and a client that leaves."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.wire.browser import find_shown
from tests.wire.forge import Forge, open_forge
from tests.wire.harness import free_port
from tests.wire.newcomer import WIDE_OPEN, House, Newcomer, make_key, open_house, reference_in
from tests.wire.peers import until
from tests.wire.terminal import Terminal

FAILED = "fairlead.auth.failed"
SUCCEEDED = "fairlead.auth.succeeded"
STARTED = "fairlead.user.onboarding_started"
ONBOARDED = "fairlead.user.onboarded"
REFUSED = "fairlead.user.onboarding_refused"

Open = Callable[..., House]


@pytest.fixture(scope="module")
def alices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("alice") / "id")


@pytest.fixture
def open_with(tmp_path: Path) -> Iterator[Open]:
    """Open a house in front of a provider."""
    with ExitStack() as stack:

        def open_one(provider: dict[str, Any], **onboarding: Any) -> House:
            limits = {**WIDE_OPEN, "otherwise": "allow", **onboarding}
            settings = {"providers": [provider], "onboarding": limits}
            return stack.enter_context(open_house(tmp_path / "house", settings))

        yield open_one


@pytest.fixture
def forge(alices: Path) -> Iterator[Forge]:
    with open_forge([alices]) as opened:
        yield opened


def test_a_provider_that_is_not_there(open_with: Open, tmp_path: Path) -> None:
    issuer = f"http://127.0.0.1:{free_port()}"
    mapping = {"keys": "claims.ssh_keys"}
    provider = {"kind": "oidc", "client_id": "x", "issuer": issuer, "approval": "device", "mapping": mapping}
    house = open_with(provider)
    person = Newcomer(house, "early", tmp_path)
    with person.log_in() as attempt:
        said = attempt.refused()
    assert "oidc does not answer at the moment; trying again may help" in said
    refused, failed = house.ears.wait("early", REFUSED, FAILED)
    assert refused["reasons"] == failed["reasons"] == ["onboarding.provider_unavailable"]
    assert failed["connection_id"] == reference_in(said)
    assert issuer not in said


def test_nobody_comes_in_time(open_with: Open, forge: Forge, alices: Path, tmp_path: Path) -> None:
    """Two ends of a code's life, two sentences: nobody approved, or nobody could be asked."""
    house = open_with(forge.provider, max_lifetime_s=5)
    person = Newcomer(house, "alice", tmp_path, [alices])
    with person.log_in() as attempt:
        attempt.shown()
        assert "the code expired before it was used; trying again may help" in attempt.refused()
    _, refused, failed = house.ears.wait("alice", STARTED, REFUSED, FAILED)
    assert refused["reasons"] == failed["reasons"] == ["onboarding.code_expired"]
    assert refused["provider"] == "gitlab"

    other = Newcomer(house, "bob", tmp_path)
    with other.log_in() as attempt:
        attempt.shown()
        forge.die()
        assert "gitlab does not answer at the moment; trying again may help" in attempt.refused()
    _, refused, failed = house.ears.wait("bob", STARTED, REFUSED, FAILED)
    assert refused["reasons"] == failed["reasons"] == ["onboarding.provider_unavailable"]


def test_clients_that_leave_and_come_back(
    open_with: Open, forge: Forge, alices: Path, tmp_path: Path
) -> None:
    """Leaving ends the polls within an interval; coming back shows the same code again."""
    house = open_with(forge.provider)
    person = Newcomer(house, "alice", tmp_path, [alices])
    with person.log_in() as attempt:
        first = attempt.shown()
        until(lambda: forge.polls >= 2, "the provider is polled")
        attempt.process.send_signal(signal.SIGKILL)
    (_, failed) = house.ears.wait("alice", STARTED, FAILED)
    assert failed["reasons"] == ["gave_up"]
    seen = forge.polls
    time.sleep(3 * forge.interval_s)
    assert forge.polls <= seen + 1, "polled for a client that has gone"

    with person.log_in() as attempt:
        assert attempt.shown() == first
        until(lambda: forge.polls >= seen + 2, "the provider is polled again")
        forge.approve()
        attempt.entered()
    house.ears.wait("alice", STARTED, FAILED, STARTED, ONBOARDED, SUCCEEDED)
    assert forge.starts == 1
    polls = forge.polls
    time.sleep(2.5 * forge.interval_s)
    assert forge.polls == polls, "polled after the end"


def test_ctrl_c_gives_up(open_with: Open, forge: Forge, alices: Path, tmp_path: Path) -> None:
    house = open_with(forge.provider)
    person = Newcomer(house, "alice", tmp_path, [alices])
    with Terminal(
        person.command(options=["-tt"]), columns=100, rows=50, env={"LC_ALL": "C.UTF-8"}
    ) as terminal:
        terminal.expect("nothing to type here")
        assert find_shown(terminal.text) is not None
        until(lambda: forge.polls >= 1, "the provider is polled")
        terminal.send(b"\x03")
        assert terminal.wait() == -signal.SIGINT
    house.ears.wait("alice", STARTED, FAILED)
    seen = forge.polls
    time.sleep(3 * forge.interval_s)
    assert forge.polls <= seen + 1
