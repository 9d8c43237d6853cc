"""Keys that a provider lists now: who is let in by them, who is asked how often, and what an outage costs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.errors.login import ProviderMisconfigured, ProviderUnavailable
from proxy.identity.keys import PublicKey
from proxy.identity.profile import KeyList, Profile
from proxy.identity.store import SqlDirectory
from proxy.onboarding.keysource import ASK_EVERY_S, KeyChange, KeySource
from tests.fakes.provider import new_key

FIRST, SECOND = new_key(), new_key()
ALICE = Profile("forge", "https://forge.example", "42", "Alice", "alice")


class Scene:
    """A directory with `alice` of the provider `forge`, who came with FIRST, and `bob`, who is nobody's."""

    def __init__(self, directory: SqlDirectory) -> None:
        self.directory = directory
        self.asked: list[tuple[str, str, str]] = []
        self.answer: KeyList | Exception | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.now = 0.0
        self.changes: list[KeyChange] = []
        self.source = self.make("https://forge.example")

    def make(self, issuer: str, max_keys: int = 10) -> KeySource:
        self.source = KeySource(
            self.directory,
            self,
            {"forge": issuer},
            self.changes.append,
            max_keys=max_keys,
            now=lambda: self.now,
            patience_s=0.05,
        )
        return self.source

    def lists(self, *keys: PublicKey, stale: bool = False, age_s: float = 0.0) -> None:
        self.answer = KeyList(frozenset(key.blob for key in keys), stale, age_s)

    def later(self) -> None:
        self.now += ASK_EVERY_S

    async def keys(self, provider: str, subject: str, login: str) -> KeyList | None:
        self.asked.append((provider, subject, login))
        await self.is_open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def stored(self) -> set[bytes]:
        return {stored.key.blob for stored in await self.directory.keys_of("alice")}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    directory = await SqlDirectory.open(
        f"sqlite+aiosqlite:///{tmp_path}/x.db", query_timeout_s=60, upgrade=True
    )
    await directory.register(ALICE, "alice", FIRST, "forge")
    await directory.add_user("bob")
    made = Scene(directory)
    yield made
    made.is_open.set()
    await made.source.close()
    await directory.close()


async def test_a_listed_key_is_worth_a_signature_and_stored_once_proved(scene: Scene) -> None:
    scene.lists(FIRST, SECOND)
    assert await scene.source.recognises("alice", SECOND.blob)
    assert await scene.stored() == {FIRST.blob}
    assert scene.changes == []
    key = await scene.source.key_of("alice", SECOND.blob)
    assert key is not None
    assert (key.key.blob, key.origin) == (SECOND.blob, "forge")
    assert await scene.stored() == {FIRST.blob, SECOND.blob}
    assert scene.changes == [KeyChange("alice", "forge", SECOND.fingerprint, True, "ssh-ed25519")]
    assert scene.asked == [("forge", "42", "Alice")]


async def test_a_key_that_is_not_listed_is_nobodys(scene: Scene) -> None:
    scene.lists(FIRST)
    assert not await scene.source.recognises("alice", SECOND.blob)
    assert await scene.source.key_of("alice", SECOND.blob) is None
    assert await scene.source.key_of("alice", b"rubbish") is None


async def test_nobody_is_asked_about_strangers_and_static_users(scene: Scene) -> None:
    scene.lists(SECOND)
    await scene.directory.add_key("bob", FIRST)
    for name in ("bob", "stranger"):
        assert not await scene.source.recognises(name, SECOND.blob)
        assert await scene.source.key_of(name, SECOND.blob) is None
    assert await scene.source.key_of("bob", FIRST.blob) is not None
    await scene.directory.add_key("alice", new := new_key())
    assert await scene.source.key_of("alice", new.blob) is not None
    assert scene.asked == []


async def test_many_offers_are_one_question(scene: Scene) -> None:
    scene.lists(FIRST)
    offers = [scene.source.recognises("alice", new_key().blob) for _ in range(50)]
    assert await asyncio.gather(*offers) == [False] * 50
    assert len(scene.asked) == 1
    scene.later()
    await scene.source.recognises("alice", SECOND.blob)
    assert len(scene.asked) == 2


async def test_a_key_that_is_listed_no_more_is_dropped(scene: Scene) -> None:
    await scene.directory.add_key("alice", own := new_key())
    scene.lists(SECOND)
    assert await scene.source.recognises("alice", FIRST.blob)  # no proof, no question
    assert await scene.source.key_of("alice", FIRST.blob) is None
    assert await scene.stored() == {own.blob}
    assert scene.changes == [KeyChange("alice", "forge", FIRST.fingerprint, is_added=False)]


@pytest.mark.parametrize("failure", [ProviderUnavailable("down"), ProviderMisconfigured("misread")])
async def test_an_outage_locks_nobody_out(scene: Scene, failure: Exception) -> None:
    scene.answer = failure
    assert await scene.source.key_of("alice", FIRST.blob) is not None
    assert await scene.source.key_of("alice", SECOND.blob) is None
    assert await scene.stored() == {FIRST.blob}


async def test_a_provider_that_hangs_is_not_waited_for(scene: Scene) -> None:
    scene.is_open.clear()
    assert await scene.source.key_of("alice", FIRST.blob) is not None
    scene.lists(SECOND)
    scene.is_open.set()
    assert not await scene.source.recognises("alice", new_key().blob)  # the question went on meanwhile
    assert await scene.stored() == set()


@pytest.mark.parametrize("how", ["stale", "old", "none", "cut"])
async def test_only_a_whole_list_that_was_just_read_takes_keys_away(scene: Scene, how: str) -> None:
    if how == "none":
        scene.answer = None
    elif how == "cut":
        scene.make("https://forge.example", max_keys=1)
        scene.lists(SECOND)
    else:
        scene.lists(SECOND, stale=how == "stale", age_s=100.0)
    assert await scene.source.key_of("alice", FIRST.blob) is not None
    assert scene.changes == []


async def test_a_stale_list_still_lets_in(scene: Scene) -> None:
    scene.lists(SECOND, stale=True, age_s=100.0)
    assert await scene.source.key_of("alice", SECOND.blob) is not None


async def test_the_same_number_at_another_issuer_is_another_person(scene: Scene) -> None:
    """A provider's settings were pointed elsewhere: account 42 there is not alice."""
    scene.make("https://other.example")
    scene.lists(SECOND)
    assert not await scene.source.recognises("alice", SECOND.blob)
    assert await scene.source.key_of("alice", SECOND.blob) is None
    assert await scene.source.key_of("alice", FIRST.blob) is not None
    assert scene.asked == []


async def test_what_an_operator_took_is_not_taken_over(scene: Scene) -> None:
    scene.lists(FIRST)
    await scene.directory.remove_key("alice", FIRST.fingerprint)
    assert await scene.source.key_of("alice", FIRST.blob) is None
    assert scene.changes == []


async def test_a_user_who_is_removed_meanwhile_stays_removed(scene: Scene) -> None:
    scene.lists(SECOND)
    scene.is_open.clear()
    proved = asyncio.ensure_future(scene.source.key_of("alice", SECOND.blob))
    while not scene.asked:
        await asyncio.sleep(0.001)
    await scene.directory.remove_user("alice")
    scene.is_open.set()
    assert await proved is None


async def test_a_later_user_of_a_name_is_not_let_in_by_the_keys_of_the_first_one_s_account(
    scene: Scene,
) -> None:
    scene.lists(FIRST, third := new_key())
    assert await scene.source.recognises("alice", third.blob)
    await scene.directory.remove_user("alice")
    other = Profile("forge", "https://forge.example", "43", "Alice", "alice")
    await scene.directory.register(other, "alice", SECOND, "forge")
    scene.lists(SECOND)
    assert not await scene.source.recognises("alice", third.blob)
    assert await scene.source.key_of("alice", third.blob) is None
    assert scene.asked == [("forge", "42", "Alice"), ("forge", "43", "Alice")]
