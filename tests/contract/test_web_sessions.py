"""What the store of browser sessions promises, in SQLite and PostgreSQL: once is once, and ended is ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.http.sessions import digest
from proxy.identity.store import SqlDirectory
from proxy.model import KeyProof
from proxy.storage.database import Database
from proxy.web.seals import Seals
from proxy.web.session_store import Invitation, Offer, SessionRecord, SessionStore
from tests.contract.directories import DEADLINE_S
from tests.contract.test_migrations import OldDatabase, make_database

__all__ = ["make_database"]

NOW = datetime.now(UTC)
LOGIN = SessionRecord(
    "a" * 16, "", "", "alice", "1", "p", "192.0.2.1", NOW, NOW + timedelta(days=1), None, "iss", "sub", "sid"
)
APP = replace(LOGIN, id="b" * 16, parent=LOGIN.id, host="lab--dev--alice.localhost")


@pytest.fixture
async def store(make_database: OldDatabase) -> AsyncIterator[SessionStore]:
    url = make_database()
    directory = await SqlDirectory.open(url, query_timeout_s=DEADLINE_S, upgrade=True)
    await directory.add_user("alice")
    await directory.close()
    database = await Database.open(url, query_timeout_s=DEADLINE_S)
    yield SessionStore(database, idle_s=3_600, per_user=3)
    await database.close()


async def test_replicas_that_start_at_once_share_one_key(store: SessionStore) -> None:
    keys = await asyncio.gather(*(store.key() for _ in range(5)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32


async def test_a_code_that_is_redeemed_by_many_at_once_opens_one_session(store: SessionStore) -> None:
    await store.begin(LOGIN, "value")
    await store.offer(APP, Offer("code", digest("pre"), datetime.now(UTC) + timedelta(seconds=30)))
    assert await store.redeem("code", "other.localhost", "pre", "x") is None
    assert await store.redeem("code", APP.host, "another browser", "x") is None
    opened = await asyncio.gather(*(store.redeem("code", APP.host, "pre", f"v{n}") for n in range(5)))
    assert len([one for one in opened if one is not None]) <= 1
    # The code came twice: what it opened has ended.
    assert [await store.find(f"v{n}") for n in range(5)] == [None] * 5


async def test_a_code_is_good_for_its_time_only(store: SessionStore) -> None:
    await store.begin(LOGIN, "value")
    await store.offer(APP, Offer("code", digest("pre"), datetime.now(UTC) - timedelta(seconds=1)))
    assert await store.redeem("code", APP.host, "pre", "v") is None


async def test_the_end_of_a_login_ends_what_came_from_it(store: SessionStore) -> None:
    await store.begin(LOGIN, "value")
    await store.offer(APP, Offer("code", digest("pre"), datetime.now(UTC) + timedelta(seconds=30)))
    assert await store.redeem("code", APP.host, "pre", "v") is not None
    assert {one.id for one in await store.end(LOGIN.id)} == {LOGIN.id, APP.id}
    assert await store.alive([LOGIN.id, APP.id]) == set()


async def test_a_link_that_is_spent_by_many_at_once_is_spent_once(store: SessionStore) -> None:
    until = datetime.now(UTC) + timedelta(seconds=60)
    await store.invite(Invitation("alice", "1", KeyProof(b"key"), "192.0.2.1", "ABCD", until), "token")
    shown = await store.invitation("token")
    assert shown is not None
    assert shown.proof == KeyProof(b"key")
    spent = await asyncio.gather(*(store.spend("token") for _ in range(5)))
    assert len([one for one in spent if one is not None]) == 1


async def test_a_word_of_a_provider_that_comes_again_ends_nothing_newer(store: SessionStore) -> None:
    said_at = datetime.now(UTC) - timedelta(seconds=10)
    await store.begin(replace(LOGIN, created_at=said_at - timedelta(seconds=1)), "old")
    await store.begin(replace(LOGIN, id="c" * 16, created_at=datetime.now(UTC)), "new")
    assert [one.id for one in await store.end_at_provider("iss", "sub", "sid", said_at)] == [LOGIN.id]
    assert await store.end_at_provider("iss", "sub", "sid", said_at) == []
    assert await store.find("new") is not None


async def test_the_oldest_of_too_many_sessions_ends(store: SessionStore) -> None:
    for number in range(5):
        at = NOW + timedelta(milliseconds=number)
        await store.begin(replace(LOGIN, id=f"{number:016}", created_at=at), f"v{number}")
    left = [await store.find(f"v{number}") is not None for number in range(5)]
    assert left == [False, False, True, True, True]


async def test_age_and_disuse_end_a_session_and_the_sweep_deletes_it(store: SessionStore) -> None:
    await store.begin(replace(LOGIN, expires_at=datetime.now(UTC) - timedelta(seconds=1)), "over")
    idle = replace(LOGIN, id="d" * 16, created_at=NOW - timedelta(hours=2))
    await store.begin(idle, "idle")
    assert await store.find("over") is None
    assert await store.find("idle") is None
    assert await store.sweep() == 2
    assert await store.sweep() == 0


def test_a_value_that_was_not_issued_is_known_for_it_without_a_look_up() -> None:
    seals, others = Seals(b"k" * 32), Seals(b"o" * 32)
    value = seals.issue("app:a")
    assert seals.is_issued("app:a", value)
    assert len(value) <= 64
    for wrong in (
        "",
        "x",
        value[:-1],
        value + "A",
        value.swapcase(),
        others.issue("app:a"),
        seals.issue("app:b"),
    ):
        assert not seals.is_issued("app:a", wrong)
    sealed = seals.seal("state", {"to": "/x"})
    opened = seals.open("state", sealed, 60)
    assert opened is not None
    assert opened["to"] == "/x"
    for wrong in ("", "x", sealed[:-2], sealed + "A", others.seal("state", {}), seals.seal("other", {})):
        assert seals.open("state", wrong, 60) is None
    assert seals.open("state", sealed, -1) is None
