"""Admission and its events, over a real directory in SQLite."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from proxy.access.authentication import Authenticator, Standing, key_event
from proxy.errors.login import LockedOut, OnboardingRefused, UserExpired, Waitlisted
from proxy.events import schema
from proxy.identity.keys import PublicKey, parse_public_key
from proxy.identity.store import SqlDirectory
from proxy.model import CertificateProof, KeyProof, LoginAttempt
from proxy.onboarding.flow import Onboarding
from proxy.onboarding.keysource import KeyChange, KeySource
from proxy.onboarding.refresher import AccountStanding
from proxy.userstring import parse
from tests.fakes.visits import PEER


def new_key() -> PublicKey:
    line = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    return parse_public_key(line)


ALICES, ANOTHER = new_key(), new_key()
REFUSED = OnboardingRefused("rule 1 refuses", user_message="no")
REFUSED.account = "alice-at-work"


def attempt(text: str = "alice+dev") -> LoginAttempt:
    return LoginAttempt(PEER, parse(text))


@dataclass
class Scene:
    """A directory with alice and her key, and what was published."""

    directory: SqlDirectory
    events: list[schema.Event]

    def authenticator(self, onboarding: object = None) -> Authenticator:
        keys = KeySource(self.directory, cast(Any, None), {}, lambda change: None)
        publisher = SimpleNamespace(publish=self.events.append)
        return Authenticator(self.directory, keys, publisher, cast(Onboarding | None, onboarding))


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    directory = await SqlDirectory.open(f"sqlite+aiosqlite:///{tmp_path / 'users.db'}", upgrade=True)
    await directory.add_user("alice")
    await directory.add_key("alice", ALICES)
    yield Scene(directory, [])
    await directory.close()


async def test_a_key_of_the_user_admits_and_another_does_not(scene: Scene) -> None:
    logins = scene.authenticator()
    principal = await logins.admit(attempt(), ALICES.blob)
    assert principal is not None
    assert (principal.user.name, principal.credential) == ("alice", KeyProof(ALICES.blob))
    assert await logins.admit(attempt(), ANOTHER.blob) is None
    assert await logins.admit(attempt("bob"), ALICES.blob) is None, "it is the key of another user"
    assert await logins.recognises(attempt(), ALICES.blob)
    assert not await logins.recognises(attempt("bob"), ALICES.blob)


async def test_a_removed_key_admits_no_more(scene: Scene) -> None:
    await scene.directory.remove_key("alice", ALICES.fingerprint)
    assert await scene.authenticator().admit(attempt(), ALICES.blob) is None


async def test_a_locked_user_is_refused_with_the_reason_by_key_and_by_certificate(scene: Scene) -> None:
    await scene.directory.lock("alice")
    logins = scene.authenticator()
    with pytest.raises(LockedOut, match="this user is locked"):
        await logins.admit(attempt(), ALICES.blob)
    with pytest.raises(LockedOut, match="this user is locked"):
        await logins.admit_certified(attempt(), CertificateProof(ALICES.blob, ANOTHER.blob))
    assert await logins.admit(attempt(), ANOTHER.blob) is None, "only a proved key learns the reason"


async def test_an_expired_user_is_refused(scene: Scene) -> None:
    await scene.directory.add_user("carol", expires_at=datetime.now(UTC) - timedelta(days=1))
    await scene.directory.add_key("carol", ANOTHER)
    with pytest.raises(UserExpired, match="carol: this user expired on"):
        await scene.authenticator().admit(attempt("carol"), ANOTHER.blob)


async def test_a_certificate_admits_a_known_user_without_a_stored_key(scene: Scene) -> None:
    logins, proof = scene.authenticator(), CertificateProof(ANOTHER.blob, ALICES.blob, key_id="laptop")
    principal = await logins.admit_certified(attempt(), proof)
    assert principal is not None
    assert principal.credential is proof
    assert await logins.admit_certified(attempt("bob"), proof) is None


@pytest.mark.parametrize(
    ("name", "is_open", "standing"),
    [
        ("alice", True, Standing.KNOWN),
        ("bob", True, Standing.NEW),
        ("bob", False, Standing.UNKNOWN),
        ("bob", None, Standing.UNKNOWN),
    ],
)
async def test_a_name_stands_to_the_directory(
    scene: Scene, name: str, is_open: bool | None, standing: Standing
) -> None:
    onboarding = None if is_open is None else SimpleNamespace(is_open=is_open)
    assert await scene.authenticator(onboarding).standing(attempt(name)) is standing


async def test_a_user_without_a_provider_needs_no_vouching_and_gets_no_renewal(scene: Scene) -> None:
    logins = scene.authenticator()
    assert await logins.vouch(attempt(), ALICES.blob) is AccountStanding.GOOD
    with pytest.raises(OnboardingRefused, match="alice cannot be approved again"):
        await logins.begin_renewal(attempt(), ALICES.blob)


async def test_an_onboarding_that_cannot_begin_is_published(scene: Scene) -> None:
    class Refusing:
        async def begin(self, host: str, name: str, key: bytes) -> None:
            raise REFUSED

    with pytest.raises(OnboardingRefused):
        await scene.authenticator(Refusing()).begin_onboarding(attempt("bob"), ANOTHER.blob, "OpenSSH")
    (event,) = scene.events
    assert isinstance(event, schema.OnboardingRefusedEvent)
    assert (event.user, event.account, event.reasons) == ("bob", "alice-at-work", ("onboarding.refused",))
    assert event.fingerprint == ANOTHER.fingerprint


async def test_a_waitlisted_account_has_an_event_of_its_own(scene: Scene) -> None:
    exc = Waitlisted("rule 2", user_message="wait")
    scene.authenticator().onboarding_refused(attempt("bob"), ANOTHER.blob, "OpenSSH", exc, "github")
    (event,) = scene.events
    assert isinstance(event, schema.WaitlistedEvent)
    assert (event.user, event.provider, event.connection_id) == ("bob", "github", PEER.conn_id)


async def test_a_login_is_published_with_its_key(scene: Scene) -> None:
    logins = scene.authenticator()
    principal = await logins.admit(attempt(), ALICES.blob)
    assert principal is not None
    logins.succeeded(principal, "OpenSSH_9.9", ("publickey",))
    (event,) = scene.events
    assert isinstance(event, schema.AuthSucceeded)
    assert (event.user, event.methods, event.fingerprint) == ("alice", ("publickey",), ALICES.fingerprint)


def test_a_key_of_a_provider_that_came_or_went_is_an_event() -> None:
    added = key_event(KeyChange("alice", "github", "SHA256:x", is_added=True, key_type="ssh-ed25519"))
    removed = key_event(KeyChange("alice", "github", "SHA256:x", is_added=False))
    assert isinstance(added, schema.KeyAdded)
    assert isinstance(removed, schema.KeyRemoved)
    assert added.actor == "provider:github"
