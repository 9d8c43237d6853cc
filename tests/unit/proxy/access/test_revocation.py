"""Who is ended and told why, and what a directory or a bus in trouble costs."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import structlog.testing

from proxy.access.revocation import RevocationMonitor
from proxy.errors.stores import StoreError
from proxy.events import schema
from proxy.events.inprocess import InProcessBus
from proxy.identity.directory import Directory, KeyStanding
from proxy.identity.revoked_keys import Revocations
from proxy.model import CertificateProof, KeyProof, Principal, User, Visit
from tests.fakes.visits import KEY

FINGERPRINT = KeyProof(KEY).fingerprint
MakeVisit = Callable[[str], Visit]
NEVER_S = 3_600.0


class Connection:
    def __init__(self, principal: Principal | None) -> None:
        self.principal = principal
        self.ended: list[str] = []
        self.regroupings: list[User] = []
        self.told = asyncio.Event()

    def regrouped(self, user: User) -> None:
        assert self.principal is not None
        self.principal = replace(self.principal, user=user)
        self.regroupings.append(user)

    def end(self, sentence: str, end: object) -> None:
        self.ended.append(sentence)
        self.told.set()


class FakeDirectory:
    """Says what the test says; everybody not mentioned is well."""

    def __init__(self) -> None:
        self.standing: dict[str, KeyStanding] = {}
        self.asked: list[set[tuple[str, str]]] = []
        self.was_asked = asyncio.Event()
        self.failure: Exception | None = None

    async def standing_of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], KeyStanding]:
        self.asked.append(set(pairs))
        self.was_asked.set()
        if self.failure is not None:
            raise self.failure
        well = {pair: KeyStanding(User(pair[0]), has_key=True) for pair in pairs}
        return {pair: self.standing.get(pair[0], standing) for pair, standing in well.items()}


class Scene:
    def __init__(self, visit: MakeVisit) -> None:
        self.directory = FakeDirectory()
        self.bus = InProcessBus(proxy_id="test", subscription_queue_size=2)
        self.connections: set[Connection] = set()
        self.revoked_keys: list[Path] = []
        self._visit = visit
        self._watches: list[RevocationMonitor] = []

    def connect(self, name: str, **facts: Any) -> Connection:
        made = Connection(replace(self._visit(name).principal, **facts))
        self.connections.add(made)
        return made

    def watch(self, recheck_s: float = NEVER_S) -> RevocationMonitor:
        made = RevocationMonitor(
            cast(Directory, self.directory),
            self.bus,
            lambda: self.connections,
            recheck_s,
            Revocations(self.revoked_keys),
        )
        self._watches.append(made)
        return made

    async def close(self) -> None:
        for watch in self._watches:
            await watch.close()


@pytest.fixture
async def scene(visit: MakeVisit) -> AsyncIterator[Scene]:
    made = Scene(visit)
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        (KeyStanding(User("alice"), has_key=True), None),
        (KeyStanding(User("alice", expires_at=datetime(9999, 1, 1, tzinfo=UTC)), has_key=True), None),
        (KeyStanding(User("alice", locked=True), has_key=True), "this user is locked"),
        (KeyStanding(None, has_key=False), "this user was removed"),
        (KeyStanding(User("alice", id="a later one"), has_key=True), "this user was removed"),
        (KeyStanding(User("alice"), has_key=False), "the key of this connection was removed"),
        (
            KeyStanding(User("alice", expires_at=datetime(2020, 1, 2, 3, 4, tzinfo=UTC)), has_key=True),
            "this user expired on 2020-01-02 at 03:04 UTC",
        ),
    ],
)
async def test_whoever_may_not_stay_is_told_why(
    scene: Scene, standing: KeyStanding, reason: str | None
) -> None:
    alice, second, bob = scene.connect("alice"), scene.connect("alice"), scene.connect("bob")
    scene.directory.standing["alice"] = standing
    await scene.watch().check()
    assert alice.ended == second.ended == ([reason] if reason else [])
    assert bob.ended == []
    assert scene.directory.asked == [{("alice", FINGERPRINT), ("bob", FINGERPRINT)}]


async def test_a_connection_goes_on_with_the_groups_that_count_now(scene: Scene) -> None:
    alice, bob = scene.connect("alice"), scene.connect("bob")
    fresh = User("alice", groups=("staff",))
    scene.directory.standing["alice"] = KeyStanding(fresh, has_key=True)
    watch = scene.watch()
    for _ in range(2):
        await watch.check()
    assert alice.regroupings == [fresh], "once, not at every look"
    assert bob.regroupings == []
    scene.directory.standing["alice"] = KeyStanding(User("alice", locked=True), has_key=True)
    await watch.check()
    assert (alice.regroupings, alice.ended) == ([fresh], ["this user is locked"])


async def test_the_end_of_an_account_ends_connections_by_its_keys(scene: Scene) -> None:
    alice = scene.connect("alice")
    scene.directory.standing["alice"] = KeyStanding(User("alice"), has_key=True, ended_at_provider="company")
    await scene.watch().check()
    assert alice.ended == ["company does not vouch for this account any more; log in again to ask it"]


async def test_nobody_there_nothing_asked(scene: Scene) -> None:
    scene.connections.add(Connection(None))
    await scene.watch().check()
    assert scene.directory.asked == []


async def test_a_certificate_needs_no_stored_key(scene: Scene) -> None:
    scene.connect("alice", credential=CertificateProof(KEY, b"authority", key_id="alice@laptop"))
    await scene.watch().check()
    assert scene.directory.asked == [{("alice", "")}]


async def test_a_directory_that_does_not_answer_ends_nobody(scene: Scene) -> None:
    alice = scene.connect("alice")
    scene.directory.standing["alice"] = KeyStanding(None, has_key=False)
    scene.directory.failure = StoreError("down")
    watch = scene.watch()
    await watch.check()
    assert alice.ended == []
    scene.directory.failure = None
    await watch.check()
    assert alice.ended == ["this user was removed"]


async def test_a_key_that_was_revoked_ends_its_connection_alone(scene: Scene, tmp_path: Path) -> None:
    blobs = [b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes([number]) * 32 for number in range(2)]
    alice, bob = (
        scene.connect(name, credential=KeyProof(blob)) for name, blob in zip("ab", blobs, strict=True)
    )
    certified = scene.connect("c", credential=CertificateProof(blobs[1], authority=blobs[0], key_id="c"))
    scene.revoked_keys.append(tmp_path / "revoked")
    watch = scene.watch()
    await watch.check()  # a list that is not there ends nobody
    (tmp_path / "revoked").write_text(f"ssh-ed25519 {base64.b64encode(blobs[0]).decode()}\n")
    await watch.check()
    assert alice.ended == certified.ended == ["the key of this connection was revoked"]
    assert bob.ended == []


async def test_a_user_or_key_that_was_lost_ends_nothing_and_a_lock_still_does(scene: Scene) -> None:
    alice, bob, carol = scene.connect("alice"), scene.connect("bob"), scene.connect("carol")
    scene.directory.standing |= {
        "alice": KeyStanding(None, has_key=False, is_certain=False),
        "bob": KeyStanding(User("bob"), has_key=False, is_certain=False),
        "carol": KeyStanding(User("carol", locked=True), has_key=False, is_certain=False),
    }
    watch = scene.watch()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await watch.check()
    assert (alice.ended, bob.ended, carol.ended[:1]) == ([], [], ["this user is locked"])
    told = [entry["reason"] for entry in logs if "cannot be compared" in entry["event"]]
    assert told == ["3 users or keys are gone, and no command removed them"]
    scene.directory.standing["alice"] = KeyStanding(None, has_key=False)
    await watch.check()
    assert (alice.ended, bob.ended) == (["this user was removed"], [])


async def test_who_left_meanwhile_is_left_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = scene.connect("alice")
    scene.directory.standing["alice"] = KeyStanding(None, has_key=False)
    ask = scene.directory.standing_of

    async def leave(pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], KeyStanding]:
        scene.connections.clear()
        return await ask(pairs)

    monkeypatch.setattr(scene.directory, "standing_of", leave)
    await scene.watch().check()
    assert alice.ended == []


async def test_it_looks_by_itself(scene: Scene) -> None:
    alice = scene.connect("alice")
    scene.watch(recheck_s=0.01).start()
    await scene.directory.was_asked.wait()
    scene.directory.standing["alice"] = KeyStanding(User("alice", locked=True), has_key=True)
    await alice.told.wait()


@pytest.mark.parametrize(
    "event",
    [schema.UserLocked(user="alice"), schema.KeyRemoved(user="alice", fingerprint=FINGERPRINT)],
)
async def test_an_event_is_acted_on_at_once(scene: Scene, event: schema.Event) -> None:
    alice = scene.connect("alice")
    scene.watch().start()
    await scene.directory.was_asked.wait()  # the Gap that begins every subscription
    scene.directory.standing["alice"] = KeyStanding(User("alice", locked=True), has_key=True)
    scene.bus.publish(event)
    await alice.told.wait()


async def test_events_about_others_ask_nothing(scene: Scene) -> None:
    alice = scene.connect("alice")
    scene.watch().start()
    await scene.directory.was_asked.wait()
    scene.bus.publish(schema.UserLocked(user="bob"))
    scene.bus.publish(schema.UserUnlocked(user="alice"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(scene.directory.asked) == 1
    scene.directory.standing["alice"] = KeyStanding(None, has_key=False)
    for _ in range(10):  # more than the queue holds: the Gap says that something was missed
        scene.bus.publish(schema.UserUnlocked(user="somebody"))
    await alice.told.wait()


async def test_a_bug_in_one_look_does_not_end_the_watch(scene: Scene) -> None:
    alice = scene.connect("alice")
    scene.directory.failure = ZeroDivisionError()
    scene.watch(recheck_s=0.01).start()
    await scene.directory.was_asked.wait()
    scene.directory.standing["alice"] = KeyStanding(None, has_key=False)
    scene.directory.failure = None
    await alice.told.wait()
