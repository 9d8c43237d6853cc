"""The index of shared apps: what it knows, and that it says nothing of what is not shared."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sharing import OWNER_ONLY, Cap, Guest, Share
from proxy.blueprints.sources import read_directory
from proxy.events.inprocess import InProcessBus
from proxy.identity.store import SqlDirectory
from proxy.model import TcpTarget, UnixTarget, User
from proxy.storage.database import Database
from proxy.userstring import parse
from proxy.web.index import SharedIndex
from proxy.web.origins import Place, label_of
from proxy.web.places import Places
from proxy.web.share_store import NOTHING_OWN, OwnShare, ShareStore
from proxy.web.shares import Shares

BLUEPRINTS = {
    "dev": (
        "apps: {lab: {listen: {port: 8888}, share: public}, own: {listen: {port: 1}},"
        " sock: {listen: {socket: /run/x}, share: public}}"
    ),
    "my_dev": "apps: {lab: {listen: {port: 8888}, share: public}}",
    "base": "abstract: true\napps: {tool: {listen: {port: 2}, share: public}}",
    "child": "template: base",
    "narrow": "template: base\napps: {tool: {share: owner}}",
    "gone": "template: base\napps: {tool: null}",
}
NOW = datetime(2026, 5, 6, tzinfo=UTC)
USERS = ["alice", "al.ice", "a--b", "x" * 60]


def catalog_of(directory: Path, blueprints: dict[str, str]) -> Catalog:
    directory.mkdir(exist_ok=True)
    for name, text in blueprints.items():
        (directory / f"{name}.yaml").write_text(text)
    return Catalog(read_directory(directory), {})


@dataclass
class Scene:
    """A directory of users, the blueprints, and the index of what is shared."""

    directory: SqlDirectory
    catalog: Catalog
    shares: Shares
    index: SharedIndex

    async def share(self, place: str, share: Share, *, replaces: bool = False) -> None:
        """Give a share as the owner would; `place` is `app owner+blueprint`."""
        app, _, workspace = place.partition(" ")
        owner = await self.directory.find(parse(workspace).user)
        assert owner is not None
        own = OwnShare(share, replaces)
        await self.shares.change(owner, parse(workspace).blueprint, app, lambda _: own, owner.name)

    async def user(self, name: str) -> User:
        found = await self.directory.find(name)
        assert found is not None
        return found


@asynccontextmanager
async def scene(
    tmp_path: Path,
    blueprints: dict[str, str] = BLUEPRINTS,
    users: Sequence[str] = USERS,
    share_max: Cap = "public",
) -> AsyncIterator[Scene]:
    url = f"sqlite+aiosqlite:///{tmp_path}/x.db"
    directory = await SqlDirectory.open(url, upgrade=True)
    database = await Database.open(url, query_timeout_s=60)
    for user in users:
        await directory.add_user(user)
    catalog = catalog_of(tmp_path / "b", blueprints)
    shares = Shares(ShareStore(database), InProcessBus(proxy_id="p"), 60)
    await shares.open()
    index = SharedIndex(catalog, directory, shares, every_s=60, share_max=share_max)
    await index.refresh()
    try:
        yield Scene(directory, catalog, shares, index)
    finally:
        await shares.close()
        await database.close()
        await directory.close()


def label(app: str, user_string: str) -> str:
    return label_of(Place(app, parse(user_string)))


async def test_public_apps_of_users_are_found_by_either_form_of_their_label(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        index = here.index
        for user in USERS:
            for blueprint, app, target in (
                ("dev", "lab", TcpTarget("localhost", 8888)),
                ("dev", "sock", UnixTarget("/run/x")),
                ("my_dev", "lab", TcpTarget("localhost", 8888)),
                ("child", "tool", TcpTarget("localhost", 2)),
            ):
                found = index.find(label(app, f"{user}+{blueprint}"))
                assert found is not None, (user, blueprint)
                assert (found.owner, found.target, found.starts) == (user, target, False)
                assert found.workspace == parse(f"{user}+{blueprint}")


@pytest.mark.parametrize(
    ("app", "user_string"),
    [
        ("own", "alice+dev"),
        ("lab", "bob+dev"),
        ("lab", "bo.b+dev"),
        ("lab", "alice+child"),
        ("tool", "alice+base"),
        ("tool", "alice+narrow"),
        ("tool", "alice+gone"),
        ("lab", "alice+absent"),
        ("lab", "alice+repo=x"),
    ],
)
async def test_what_is_not_public_is_not_found(tmp_path: Path, app: str, user_string: str) -> None:
    async with scene(tmp_path) as here:
        index = here.index
        assert index.find(label(app, user_string)) is None


async def test_a_place_that_form_1_names_is_not_answered_under_form_2(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        index = here.index
        hashed = label("lab", "al.ice+dev")
        assert index.find(hashed) is not None
        assert index.find(hashed.replace("lab--al", "lab--xl")) is None, "another slug is another label"
        assert index.find("nonsense") is None


async def test_the_index_follows_blueprints_and_users(tmp_path: Path) -> None:
    async with scene(tmp_path, {"dev": "name: dev"}, ["alice"]) as here:
        index, catalog, directory = here.index, here.catalog, here.directory
        assert index.find("lab--dev--alice") is None
        (tmp_path / "b" / "dev.yaml").write_text(BLUEPRINTS["dev"])
        assert catalog.offer(read_directory(tmp_path / "b"))
        await index.refresh()
        assert index.find("lab--dev--alice") is not None
        await directory.add_user("bob")
        await index.refresh()
        assert index.find("lab--dev--bob") is not None
        await directory.remove_user("alice")
        await index.refresh()
        assert index.find("lab--dev--alice") is None
        (tmp_path / "b" / "dev.yaml").write_text("name: dev")
        assert catalog.offer(read_directory(tmp_path / "b"))
        assert index.find("lab--dev--bob") is None, "what is public no more is not found at once"


SHARED = {
    "dev": (
        "apps: {lab: {listen: {port: 1}, share_max: groups},"
        " team: {listen: {port: 2}, share: {groups: [team]}},"
        " all: {listen: {port: 3}, share: authenticated, wake: visitors}, mine: {listen: {port: 4}},"
        " web: {listen: {port: 5}, share: public, share_max: public}}"
    ),
    "my_dev": "apps: {lab: {listen: {port: 8888}, share_max: users}}",
}


def guest(user: User) -> Share:
    return Share(guests=(Guest(user.name, user.id),))


async def test_an_app_is_found_by_the_users_its_owner_named_and_by_no_others(tmp_path: Path) -> None:
    async with scene(tmp_path, SHARED, ["alice", "bob", "carol"]) as here:
        places = Places(here.index)
        alice, bob, carol = [await here.user(name) for name in ("alice", "bob", "carol")]
        assert places.find(bob, "lab--dev--alice") is None
        await here.share("lab alice+dev", guest(bob))
        found = places.find(bob, "lab--dev--alice")
        assert found is not None
        assert (found.owner, found.target, found.owner_id) == ("alice", TcpTarget("localhost", 1), alice.id)
        assert found.wakes is False
        for label in ("mine--dev--alice", "lab--dev--carol", "team--dev--alice", "lab--gone--alice"):
            assert places.find(bob, label) is None, label
        assert places.find(carol, "lab--dev--alice") is None
        assert here.index.find("lab--dev--alice") is None, "not without a login"
        own = places.find(alice, "lab--dev--alice")
        assert own is not None
        await here.share("lab alice+dev", OWNER_ONLY)
        assert places.find(bob, "lab--dev--alice") is None


async def test_places_with_hashed_labels_are_shared_too(tmp_path: Path) -> None:
    async with scene(tmp_path, SHARED, ["al.ice", "bob"]) as here:
        bob = await here.user("bob")
        hashed = label("lab", "al.ice+my_dev")
        assert Places(here.index).find(bob, hashed) is None
        await here.share("lab al.ice+my_dev", guest(bob))
        found = Places(here.index).find(bob, hashed)
        assert found is not None
        assert found.workspace == parse("al.ice+my_dev")


async def test_what_a_blueprint_gives_needs_no_share_max_and_wakes_only_where_it_says_so(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, SHARED, ["alice", "bob"]) as here:
        places, bob = Places(here.index), await here.user("bob")
        found = places.find(bob, "all--dev--alice")
        assert found is not None
        assert (found.share, found.wakes, found.owner_id) == (Share("authenticated"), True, "")
        assert places.find(bob, "team--dev--alice") is None
        in_team = User("bob", id=bob.id, groups=("Team",))
        assert places.find(in_team, "team--dev--alice") is not None
        assert places.find(bob, "all--dev--nobody") is None


async def test_an_owner_s_share_is_cut_to_what_is_permitted_now(tmp_path: Path) -> None:
    async with scene(tmp_path, SHARED, ["alice", "bob"]) as here:
        places, bob = Places(here.index), await here.user("bob")
        await here.share(
            "lab alice+dev", Share("public", guests=(Guest("bob", bob.id),), guest_groups=("team",))
        )
        assert here.index.find("lab--dev--alice") is None
        found = places.find(bob, "lab--dev--alice")
        assert found is not None
        assert found.share == Share(guests=(Guest("bob", bob.id),), guest_groups=("team",))
        narrower = SHARED["dev"].replace("share_max: groups", "share_max: owner")
        (tmp_path / "b" / "dev.yaml").write_text(narrower)
        assert here.catalog.offer(read_directory(tmp_path / "b"))
        assert places.find(bob, "lab--dev--alice") is None


@pytest.mark.parametrize(
    ("share_max", "open_to_bob", "is_public"),
    [
        ("public", True, True),
        ("authenticated", True, False),
        ("groups", False, False),
        ("owner", False, False),
    ],
)
async def test_the_installation_limits_every_share(
    tmp_path: Path, share_max: Cap, open_to_bob: bool, is_public: bool
) -> None:
    async with scene(tmp_path, SHARED, ["alice", "bob"], share_max) as here:
        bob = await here.user("bob")
        assert (here.index.find("web--dev--alice") is not None) == is_public
        assert (Places(here.index).find(bob, "web--dev--alice") is not None) == open_to_bob


async def test_an_owner_closes_what_the_blueprint_opens_and_opens_it_again(tmp_path: Path) -> None:
    async with scene(tmp_path, SHARED, ["alice", "bob"]) as here:
        places, bob = Places(here.index), await here.user("bob")
        assert here.index.find("web--dev--alice") is not None
        await here.share("web alice+dev", OWNER_ONLY, replaces=True)
        assert here.index.find("web--dev--alice") is None
        assert here.index.find("web--dev--bob") is not None
        assert places.find(bob, "web--dev--alice") is None
        await here.share("web alice+dev", guest(bob), replaces=True)
        assert here.index.find("web--dev--alice") is None
        assert places.find(bob, "web--dev--alice") is not None
        await here.share("web alice+dev", NOTHING_OWN.share)
        assert here.index.find("web--dev--alice") is not None


async def test_what_is_shared_with_a_user_is_listed_and_what_is_for_everybody_is_not(tmp_path: Path) -> None:
    async with scene(tmp_path, SHARED, ["alice", "bob", "carol"]) as here:
        bob = User("bob", id=(await here.user("bob")).id, groups=("team",))
        await here.share("lab carol+dev", guest(bob))
        listed = [one.label for one in Places(here.index).shared_with(bob)]
        assert listed == ["team--dev--alice", "lab--dev--carol", "team--dev--carol"]
        assert Places(here.index).shared_with(await here.user("carol")) == []


async def test_an_owner_offers_an_app_while_the_owner_may_log_in_and_have_the_blueprint(
    tmp_path: Path,
) -> None:
    narrow = {"dev": f"access: {{users: [alice]}}\n{SHARED['dev']}"}
    async with scene(tmp_path, narrow, ["alice", "bob"]) as here:
        places = Places(here.index)
        alice, bob = await here.user("alice"), await here.user("bob")
        await here.share("lab alice+dev", guest(bob))
        opened = places.find(bob, "lab--dev--alice")
        assert opened is not None
        assert places.is_offered(opened, alice, NOW)
        assert not places.is_offered(opened, None, NOW)
        assert not places.is_offered(opened, replace(alice, locked=True), NOW)
        assert not places.is_offered(opened, replace(alice, expires_at=NOW), NOW)
        assert not places.is_offered(opened, replace(alice, id="9"), NOW), "a later user of the name"
        assert not places.is_offered(opened, replace(alice, name="zoe"), NOW), "the blueprint is not for zoe"


async def test_an_app_that_its_own_user_found_follows_blueprints_and_shares(tmp_path: Path) -> None:
    async with scene(tmp_path, {"dev": "apps: {lab: {listen: {port: 1}, share_max: users}}"}) as here:
        places = Places(here.index)
        alice, bob = await here.user("alice"), await here.user("al.ice")
        of_alice = label("lab", "alice+dev")
        found = places.find(alice, of_alice)
        assert found is not None
        assert (found.target, found.share) == (TcpTarget("localhost", 1), OWNER_ONLY)
        assert places.find(alice, of_alice) is found, "it is looked up once"
        assert places.find(bob, of_alice) is None
        await here.share("lab alice+dev", guest(bob))
        shared = places.find(alice, of_alice)
        assert shared is not None
        assert shared.share == guest(bob)
        (tmp_path / "b" / "dev.yaml").write_text("apps: {lab: {listen: {port: 2}}}")
        assert here.catalog.offer(read_directory(tmp_path / "b"))
        moved = places.find(alice, of_alice)
        assert moved is not None
        assert moved.target == TcpTarget("localhost", 2)
        (tmp_path / "b" / "dev.yaml").write_text("apps: {}")
        assert here.catalog.offer(read_directory(tmp_path / "b"))
        assert places.find(alice, of_alice) is None
