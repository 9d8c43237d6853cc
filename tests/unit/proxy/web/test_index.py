"""The index of public apps: what it knows, and that it says nothing of what is not public."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.blueprints.catalog import Catalog
from proxy.blueprints.sources import read_directory
from proxy.identity.store import SqlDirectory
from proxy.model import TcpTarget, UnixTarget
from proxy.userstring import parse
from proxy.web.index import PublicIndex
from proxy.web.origins import Place, label_of

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
USERS = ["alice", "al.ice", "a--b", "x" * 60]


def catalog_of(directory: Path, blueprints: dict[str, str]) -> Catalog:
    directory.mkdir(exist_ok=True)
    for name, text in blueprints.items():
        (directory / f"{name}.yaml").write_text(text)
    return Catalog(read_directory(directory), {})


async def open_directory(tmp_path: Path, users: Sequence[str] = USERS) -> SqlDirectory:
    directory = await SqlDirectory.open(f"sqlite+aiosqlite:///{tmp_path}/x.db", upgrade=True)
    for user in users:
        await directory.add_user(user)
    return directory


def label(app: str, user_string: str) -> str:
    return label_of(Place(app, parse(user_string)))


async def test_public_apps_of_users_are_found_by_either_form_of_their_label(tmp_path: Path) -> None:
    directory = await open_directory(tmp_path)
    try:
        index = PublicIndex(catalog_of(tmp_path / "b", BLUEPRINTS), directory, 60)
        await index.refresh()
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
    finally:
        await directory.close()


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
    directory = await open_directory(tmp_path)
    try:
        index = PublicIndex(catalog_of(tmp_path / "b", BLUEPRINTS), directory, 60)
        await index.refresh()
        assert index.find(label(app, user_string)) is None
    finally:
        await directory.close()


async def test_a_place_that_form_1_names_is_not_answered_under_form_2(tmp_path: Path) -> None:
    directory = await open_directory(tmp_path)
    try:
        index = PublicIndex(catalog_of(tmp_path / "b", BLUEPRINTS), directory, 60)
        await index.refresh()
        hashed = label("lab", "al.ice+dev")
        assert index.find(hashed) is not None
        assert index.find(hashed.replace("lab--al", "lab--xl")) is None, "another slug is another label"
        assert index.find("nonsense") is None
    finally:
        await directory.close()


async def test_the_index_follows_blueprints_and_users(tmp_path: Path) -> None:
    directory = await open_directory(tmp_path, ["alice"])
    try:
        catalog = catalog_of(tmp_path / "b", {"dev": "name: dev"})
        index = PublicIndex(catalog, directory, 60)
        await index.refresh()
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
    finally:
        await directory.close()
