"""Tiles of apps: icons, pictures, notes."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sharing import OWNER_ONLY, Guest, Share
from proxy.blueprints.sources import read_directory
from proxy.model import TcpTarget, User
from proxy.userstring import UserString
from proxy.web.index import Opened
from proxy.web.origins import Origins, Place, label_of
from proxy.web.portal.apps import Tiles, icon_of

ALICE = User("alice", id="a")
PICTURE = "data:image/svg+xml;base64,PHN2Zy8+"


def opened(slug: str, share: Share = OWNER_ONLY, owner: str = "alice") -> Opened:
    workspace = UserString(owner, "dev")
    return Opened(
        workspace, TcpTarget("localhost", 1), share, slug.title(), label_of(Place(slug, workspace)), slug
    )


class Some:
    """The apps that a test gives."""

    def __init__(self, own: Sequence[Opened] = (), shared: Sequence[Opened] = ()) -> None:
        self._own, self._shared = own, shared

    def of(self, actor: str) -> Sequence[Opened]:
        return self._own

    def shared_with(self, user: User) -> Sequence[Opened]:
        return self._shared


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    listen = "listen: {port: 1}"
    (tmp_path / "dev.yaml").write_text(
        f"name: dev\napps:\n  lab: {{{listen}}}\n  shown: {{{listen}, icon: '{PICTURE}'}}\n"
        f"  named: {{{listen}, icon: chart}}\n  far: {{{listen}, icon: 'https://elsewhere.example/i.png'}}\n"
    )
    return Catalog(read_directory(tmp_path), {})


def tiles(apps: Some, catalog: Catalog, missing: frozenset[str] = frozenset()) -> Tiles:
    return Tiles(apps, catalog, Origins("https", "apps.example.com", 443), missing)


def test_an_icon_is_a_symbol_of_ours_or_a_picture_in_the_blueprint_and_never_of_another_host(
    catalog: Catalog,
) -> None:
    own = [opened(slug) for slug in ("lab", "shown", "named", "far")]
    found = tiles(Some(own), catalog).by_workspace(ALICE)[UserString("alice", "dev")]
    assert [(tile.icon, tile.picture) for tile in found] == [
        ("jupyter", ""),
        ("app", PICTURE),
        ("chart", ""),
        ("app", ""),
    ]
    assert found[0].url == "https://lab--dev--alice.apps.example.com/"


@pytest.mark.parametrize(
    ("slug", "icon"),
    [
        ("jupyter2", "jupyter"),
        ("code-server", "code"),
        ("files", "files"),
        ("terminal", "terminal"),
        ("http", "app"),
    ],
)
def test_a_slug_has_an_icon(slug: str, icon: str) -> None:
    assert icon_of(slug) == icon


def test_a_tile_says_who_else_may_open_the_app_and_whether_a_part_is_missing(catalog: Catalog) -> None:
    own = [opened("lab"), opened("far", Share("public")), opened("named", Share(guests=(Guest("bob", "b"),)))]
    found = tiles(Some([*own, opened("terminal")]), catalog, frozenset({"terminal"})).by_workspace(ALICE)
    notes = [tile.note for tile in found[UserString("alice", "dev")]]
    assert notes == ["", "public", "shared", "not installed yet"]


def test_an_app_of_another_user_names_its_owner(catalog: Catalog) -> None:
    (tile,) = tiles(Some(shared=[opened("lab", owner="bob")]), catalog).shared_with(ALICE)
    assert tile.note == "bob · dev"
    assert tile.url.startswith("https://lab--dev--bob.")
