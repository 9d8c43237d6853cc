"""What the store of shares promises, in SQLite and PostgreSQL, and what two replicas know of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from proxy.blueprints.sharing import OWNER_ONLY, Guest, Share
from proxy.errors.programs import Refused
from proxy.events.inprocess import InProcessBus
from proxy.identity.store import SqlDirectory
from proxy.model import User
from proxy.storage.database import Database
from proxy.web import share_store
from proxy.web.share_store import AppOf, OwnShare, ShareStore
from proxy.web.shares import Shares
from tests.contract.directories import DEADLINE_S
from tests.contract.test_migrations import OldDatabase, make_database

__all__ = ["make_database"]

LAB = AppOf("alice", "dev", "lab")


@dataclass
class Here:
    directory: SqlDirectory
    database: Database
    alice: User

    def replica(self, check_s: float = 60) -> Shares:
        """Make the shares of another process, that hears no event of the others."""
        return Shares(ShareStore(self.database), InProcessBus(proxy_id="p"), check_s)


@pytest.fixture
async def here(make_database: OldDatabase) -> AsyncIterator[Here]:
    url = make_database()
    directory = await SqlDirectory.open(url, query_timeout_s=DEADLINE_S, upgrade=True)
    await directory.add_user("alice")
    database = await Database.open(url, query_timeout_s=DEADLINE_S)
    alice = await directory.find("alice")
    assert alice is not None
    yield Here(directory, database, alice)
    await database.close()
    await directory.close()


def with_guest(number: int) -> Callable[[OwnShare], OwnShare]:
    guest = Guest(f"u{number}", str(number))
    return lambda own: OwnShare(Share(guests=(*own.share.guests, guest)))


async def test_changes_at_the_same_moment_are_all_kept(here: Here) -> None:
    store = ShareStore(here.database)
    await asyncio.gather(*(store.change(here.alice, "dev", "lab", with_guest(n), "alice") for n in range(8)))
    (record,) = await store.since(0)
    assert {guest.id for guest in record.own.share.guests} == {str(n) for n in range(8)}
    assert record.revision == await store.revision() == 8


async def test_a_share_comes_back_as_it_was_given(here: Here) -> None:
    store = ShareStore(here.database)
    given = OwnShare(
        Share("public", guests=(Guest("bob", "2"),), guest_groups=("crew", "größe")), replaces=True
    )
    before, after = await store.change(here.alice, "dev", "lab", lambda _: given, "alice")
    assert (before, after.own, after.owner_id) == (OwnShare(), given, here.alice.id)
    assert await store.since(0) == [after]
    assert await store.since(after.revision) == []


async def test_a_change_that_is_refused_changes_nothing(here: Here) -> None:
    def refuse(_: OwnShare) -> OwnShare:
        raise Refused("no")

    store = ShareStore(here.database)
    with pytest.raises(Refused):
        await store.change(here.alice, "dev", "lab", refuse, "alice")
    assert (await store.since(0), await store.revision()) == ([], 0)


async def test_another_replica_reads_what_changed(here: Here) -> None:
    first, second = here.replica(), here.replica()
    await first.open()
    await second.open()
    changes = []
    second.on_change(lambda: changes.append(second.of(LAB)))
    await first.change(here.alice, "dev", "lab", with_guest(1), "alice")
    assert second.of(LAB) is None
    await second.refresh()
    record = second.of(LAB)
    assert record is not None
    assert (record, changes) == (first.of(LAB), [record])
    await second.change(here.alice, "dev", "lab", lambda _: OwnShare(), "alice")
    await first.refresh()
    known = first.of(LAB)
    assert known is not None
    assert known.own.share == OWNER_ONLY
    await first.refresh()
    assert len(changes) == 2


async def test_changes_of_others_are_not_missed_behind_an_own_one(here: Here) -> None:
    first, second = here.replica(), here.replica()
    await first.open()
    await second.open()
    await first.change(here.alice, "dev", "lab", with_guest(1), "alice")
    await second.change(here.alice, "dev", "other", with_guest(2), "alice")  # its own, with a later revision
    await second.refresh()
    assert second.of(LAB) == first.of(LAB)


async def test_more_records_than_a_page_holds_are_all_read(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_store, "PAGE", 2)
    monkeypatch.setattr("proxy.web.shares.PAGE", 2)
    late = here.replica()
    await late.open()
    early = here.replica()
    for number in range(5):
        await early.change(here.alice, "dev", f"app{number}", with_guest(number), "alice")
    await late.refresh()
    opened = here.replica()
    await opened.open()
    for one in (late, opened):
        assert {record.place.app for record in one.all} == {f"app{n}" for n in range(5)}


async def test_a_follower_sees_a_change_without_an_event(here: Here) -> None:
    first, second = here.replica(), here.replica(check_s=0.1)
    await second.open()
    seen = asyncio.Event()
    second.on_change(seen.set)
    second.start()
    try:
        await first.change(here.alice, "dev", "lab", with_guest(1), "alice")
        async with asyncio.timeout(DEADLINE_S):
            await seen.wait()
    finally:
        await second.close()
    assert second.of(LAB) is not None


async def test_an_event_makes_a_follower_look_at_once(here: Here) -> None:
    """Its turn to ask the database by itself comes long after the test."""
    bus = InProcessBus(proxy_id="p")
    first, second = (Shares(ShareStore(here.database), bus, 3_600) for _ in range(2))
    await second.open()
    seen = asyncio.Event()
    second.start()
    try:
        await asyncio.sleep(0)  # it has subscribed
        second.on_change(seen.set)
        await first.change(here.alice, "dev", "lab", with_guest(1), "alice")
        async with asyncio.timeout(DEADLINE_S):
            await seen.wait()
    finally:
        await second.close()


async def test_a_removed_owner_shares_nothing_and_neither_does_a_later_one_of_that_name(here: Here) -> None:
    shares = here.replica()
    await shares.open()
    await shares.change(here.alice, "dev", "lab", with_guest(1), "alice")
    await here.directory.remove_user("alice")
    late = here.replica()
    await late.open()
    assert late.of(LAB) is None
    await here.directory.add_user("alice")
    alice = await here.directory.find("alice")
    assert alice is not None
    stale = shares.of(LAB)
    assert stale is not None
    assert stale.owner_id != alice.id, "what is still in memory is not hers"
    await late.change(alice, "dev", "lab", with_guest(2), "alice")
    record = late.of(LAB)
    assert record is not None
    assert [guest.id for guest in record.own.share.guests] == ["2"]
