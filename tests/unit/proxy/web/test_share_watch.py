"""The watch over open exchanges: it ends those that lost their share, and none for an outage."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.blueprints.sharing import OWNER_ONLY
from proxy.errors.stores import StoreError
from proxy.events.inprocess import InProcessBus
from proxy.identity.directory import KeyStanding
from proxy.model import Principal, User, WebSession
from proxy.web.gate import Pass
from proxy.web.places import Places
from proxy.web.road import Address
from proxy.web.share_watch import ShareWatch
from tests.fakes.visits import PEER
from tests.unit.proxy.web.test_index import SHARED, Scene, guest, scene

ENDED = "this app is not shared with you any more"


@dataclass
class Exchange:
    """An exchange as the watch sees it."""

    passed: Pass
    ends: list[tuple[int, str]] = field(default_factory=list)

    def end(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))


class Outage:
    """A directory that does not answer, or that lost its rows."""

    def __init__(self, *, lost: bool) -> None:
        self._lost = lost

    async def standing_of(self, pairs: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], KeyStanding]:
        if not self._lost:
            raise StoreError("no answer")
        return {pair: KeyStanding(None, has_key=False, is_certain=False) for pair in pairs}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path, SHARED, ["alice", "bob"]) as one:
        await one.share("lab alice+dev", guest(await one.user("bob")))
        yield one


def opened(here: Scene, label: str, user: User | None) -> Exchange:
    places = Places(here.index)
    found = places.public(label) if user is None else places.find(user, label)
    assert found is not None
    principal = None if user is None else Principal(PEER, user, WebSession("s"))
    address = Address(
        found.owner,
        found.workspace,
        found.target,
        found.share,
        principal,
        owner_id=found.owner_id,
        label=label,
    )
    return Exchange(Pass(address))


def watch(here: Scene, *exchanges: Exchange, directory: Any = None) -> ShareWatch:
    bus = InProcessBus(proxy_id="p")
    return ShareWatch(
        lambda: cast(Any, exchanges),
        here.index,
        Places(here.index),
        directory or here.directory,
        bus,
        here.shares,
        60,
    )


async def test_what_is_shared_stays_open_until_its_share_ends(here: Scene) -> None:
    one = opened(here, "lab--dev--alice", await here.user("bob"))
    looking = watch(here, one)
    await looking.check()
    assert one.ends == []
    await here.share("lab alice+dev", OWNER_ONLY)
    await looking.check()
    assert one.ends == [(1008, ENDED)]


async def test_a_visit_of_a_public_app_ends_with_its_publicity_or_its_owner(here: Scene) -> None:
    one = opened(here, "web--dev--alice", None)
    await watch(here, one).check()
    assert one.ends == []
    await here.directory.lock("alice")
    await watch(here, one).check()
    await here.directory.unlock("alice")
    await here.share("web alice+dev", OWNER_ONLY, replaces=True)
    await watch(here, one).check()
    assert one.ends == [(1008, ENDED)] * 2


async def test_a_guest_who_was_removed_and_a_later_one_of_that_name_do_not_stay(here: Scene) -> None:
    one = opened(here, "lab--dev--alice", await here.user("bob"))
    await here.directory.remove_user("bob")
    await watch(here, one).check()
    await here.directory.add_user("bob")
    await watch(here, one).check()
    assert one.ends == [(1008, "this user was removed")] * 2


async def test_a_later_owner_of_that_name_shares_nothing(here: Scene) -> None:
    one = opened(here, "lab--dev--alice", await here.user("bob"))
    await here.directory.remove_user("alice")
    await here.directory.add_user("alice")
    await watch(here, one).check()
    assert one.ends == [(1008, ENDED)]


async def test_an_outage_of_the_directory_ends_nothing(here: Scene) -> None:
    exchanges = opened(here, "lab--dev--alice", await here.user("bob")), opened(here, "web--dev--alice", None)
    with pytest.raises(StoreError):
        await watch(here, *exchanges, directory=Outage(lost=False)).check()
    await watch(here, *exchanges, directory=Outage(lost=True)).check()
    assert [one.ends for one in exchanges] == [[], []]
