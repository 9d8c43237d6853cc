"""Removal and loss told apart, on each store there is: what SQL says of a user who is not there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from proxy.errors.stores import DatabaseMissing, StoreError
from proxy.identity.directory import KeyStanding
from proxy.identity.keys import PublicKey
from proxy.identity.profile import Profile
from proxy.identity.store import SqlDirectory
from proxy.process.assemble.database import open_to_serve
from proxy.storage.database import Database
from tests.contract.directories import DEADLINE_S, make_key, sqlite_url
from tests.contract.postgres import Cluster

MOST = 0.5
NAMES = ("alice", "bob", "carol")


@pytest.fixture
async def directory(database_url: str) -> AsyncIterator[SqlDirectory]:
    store = await SqlDirectory.open(database_url, query_timeout_s=DEADLINE_S)
    yield store
    await store.close()


@pytest.fixture
async def keys(directory: SqlDirectory) -> dict[str, PublicKey]:
    """Three users with a key each."""
    made = {name: make_key() for name in NAMES}
    for name, key in made.items():
        await directory.add_user(name)
        await directory.add_key(name, key)
    return made


async def sql(database_url: str, *statements: str) -> None:
    """Do what is done behind the back of the directory."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)
    await engine.dispose()


async def standing(directory: SqlDirectory, name: str, key: PublicKey) -> KeyStanding:
    return (await directory.standing_of([(name, key.fingerprint)]))[name, key.fingerprint]


def stranger(name: str) -> Profile:
    return Profile(provider="dev", issuer="https://idp", subject=name, login=name, name=name)


async def test_an_emptied_directory_says_nothing_of_who_is_missing(
    directory: SqlDirectory, keys: dict[str, PublicKey], database_url: str
) -> None:
    await sql(database_url, "DELETE FROM keys", "DELETE FROM users")
    assert not (await standing(directory, "alice", keys["alice"])).is_certain
    with pytest.raises(StoreError, match="holds 0 of 3 users and 0 of 3 keys, and no command removed"):
        await directory.assure()
    for register in (
        directory.register(stranger("alice"), "alice", make_key(), "dev"),
        directory.waitlist(stranger("alice"), "alice", make_key(), "192.0.2.1"),
    ):
        with pytest.raises(StoreError):
            await register
    await directory.audit(MOST)
    for question in (directory.find("alice"), directory.key_of("alice", keys["alice"].blob)):
        with pytest.raises(StoreError) as caught:
            await question
        assert caught.value.user_message == "users cannot be looked up at the moment"


async def test_a_proxy_that_starts_on_an_emptied_directory_knows_that_it_is_one(
    keys: dict[str, PublicKey], database_url: str
) -> None:
    await sql(database_url, "DELETE FROM keys", "DELETE FROM users")
    started = await SqlDirectory.open(database_url, query_timeout_s=DEADLINE_S, upgrade=True)
    try:
        assert not (await started.audit(MOST)).is_whole
        with pytest.raises(StoreError):
            await started.find("alice")
    finally:
        await started.close()


async def test_keys_that_are_gone_while_users_are_there_are_lost(
    directory: SqlDirectory, keys: dict[str, PublicKey], database_url: str
) -> None:
    await sql(database_url, "DELETE FROM keys")
    found = await standing(directory, "alice", keys["alice"])
    assert found.user is not None
    assert not found.is_certain
    await directory.audit(MOST)
    assert await directory.find("alice") is not None
    with pytest.raises(StoreError):
        await directory.key_of("alice", keys["alice"].blob)


async def test_a_removal_is_certain_down_to_the_last_user(
    directory: SqlDirectory, keys: dict[str, PublicKey]
) -> None:
    for name in NAMES:
        await directory.remove_user(name)
        assert await standing(directory, name, keys[name]) == KeyStanding(None, has_key=False)
        await directory.assure()
        assert (await directory.audit(MOST)).is_whole
        assert await directory.find(name) is None


async def test_a_key_that_is_removed_or_not_listed_any_more_is_certain(
    directory: SqlDirectory, keys: dict[str, PublicKey]
) -> None:
    listed = make_key()
    await directory.add_key("bob", listed, origin="dev")
    await directory.remove_key("alice", keys["alice"].fingerprint)
    await directory.drop_unlisted("bob", "dev", [], datetime.now(UTC) + timedelta(hours=1))
    for name, key in (("alice", keys["alice"]), ("bob", listed)):
        found = await standing(directory, name, key)
        assert found.user is not None
        assert (found.has_key, found.is_certain) == (False, True)
    await directory.assure()


async def test_what_was_removed_and_came_back_is_lost_like_any_other(
    directory: SqlDirectory, keys: dict[str, PublicKey], database_url: str
) -> None:
    """No record of an earlier removal excuses a later loss."""
    await directory.remove_user("alice")
    old = keys["alice"]
    await directory.add_user("alice")
    await directory.add_key("alice", new := make_key())
    found = await standing(directory, "alice", old)
    assert found.user is not None
    assert (found.has_key, found.is_certain) == (False, True)
    await sql(database_url, "DELETE FROM keys", "DELETE FROM users")
    assert not (await standing(directory, "alice", new)).is_certain


async def test_one_user_who_is_gone_by_hand_is_uncertain_until_that_is_accepted(
    directory: SqlDirectory, keys: dict[str, PublicKey], database_url: str
) -> None:
    await sql(database_url, "DELETE FROM keys WHERE \"user\" = 'bob'", "DELETE FROM users WHERE name = 'bob'")
    assert not (await standing(directory, "bob", keys["bob"])).is_certain
    assert (await standing(directory, "alice", keys["alice"])).has_key
    seen = await directory.audit(MOST)
    assert await directory.find("bob") is None  # a minor loss keeps no stranger from being told so
    await directory.add_user("dave")
    assert await directory.accept(seen) != seen
    assert not (await standing(directory, "bob", keys["bob"])).is_certain  # not what was seen
    await directory.accept()
    assert await standing(directory, "bob", keys["bob"]) == KeyStanding(None, has_key=False)


async def test_what_an_older_release_adds_is_expected_from_the_next_count_on(
    directory: SqlDirectory, database_url: str
) -> None:
    await sql(
        database_url,
        "INSERT INTO users (name, full_name, email, locked, created_at) "
        "VALUES ('dave', '', '', false, '2026-01-05 03:04:05')",
    )
    assert (await directory.audit(MOST)).expected_users == 0
    assert (await directory.audit(MOST)).expected_users == 1
    await sql(database_url, "DELETE FROM users")
    with pytest.raises(StoreError):
        await directory.assure()


async def test_users_that_come_and_go_at_once_are_counted_right(
    directory: SqlDirectory, database_url: str
) -> None:
    others = [await SqlDirectory.open(database_url, query_timeout_s=DEADLINE_S) for _ in range(3)]
    try:

        async def come_and_go(store: SqlDirectory, name: str) -> None:
            await store.add_user(name)
            await store.add_key(name, make_key())
            await store.audit(MOST)
            await store.remove_user(name)
            await store.add_user(name)
            await store.add_key(name, make_key())

        await asyncio.gather(*(come_and_go(one, f"u{i}") for i, one in enumerate(others * 4)))
        found = await directory.audit(MOST)
    finally:
        for store in others:
            await store.close()
    assert (found.users, found.keys, found.expected_users, found.expected_keys) == (12, 12, 12, 12)


# ----------------------------------------------------------------------------- whose database it is


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes a database without any table."""

    def make() -> str:
        if request.param == "sqlite":
            (file := tmp_path / "empty.db").touch()
            return sqlite_url(file)
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.url(cluster.create())

    return make


async def table_names(url: str) -> list[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    await engine.dispose()
    return names


async def test_opening_makes_no_table_unless_asked_to(empty: Callable[[], str]) -> None:
    url = empty()
    with pytest.raises(DatabaseMissing, match="fairlead database upgrade"):
        await SqlDirectory.open(url, query_timeout_s=DEADLINE_S)
    with pytest.raises(DatabaseMissing, match="should be that of installation 0-0"):
        await Database.open(url, query_timeout_s=DEADLINE_S, upgrade=True, served="0-0")
    assert await table_names(url) == []


async def test_an_older_schema_is_left_as_it_is_unless_asked_to(empty: Callable[[], str]) -> None:
    url = empty()
    await sql(
        url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('0003')",
    )
    with pytest.raises(StoreError, match=r"has schema 0003 and this release needs \d{4}: start a proxy"):
        await SqlDirectory.open(url, query_timeout_s=DEADLINE_S)
    assert await table_names(url) == ["alembic_version"]


async def test_a_proxy_remembers_whose_database_it_served(empty: Callable[[], str], tmp_path: Path) -> None:
    url, memory = empty(), tmp_path / "home" / "installation"
    options = {"query_timeout_s": DEADLINE_S, "pinned": "", "memory": memory}
    database = await open_to_serve(url, **options)
    assert memory.read_text() == f"{database.installation}\n"
    await database.close()
    await (await open_to_serve(url, **options)).close()
    await sql(url, "UPDATE installation SET id = 'another'")
    with pytest.raises(
        StoreError, match=rf"belongs to installation another, .* serves {database.installation}"
    ):
        await open_to_serve(url, **options)
    await (await open_to_serve(url, **options | {"pinned": "another"})).close()


@pytest.mark.parametrize("change", ["UPDATE installation SET id = 'another'", "DELETE FROM installation"])
async def test_a_database_of_another_installation_is_neither_read_nor_written(
    directory: SqlDirectory, keys: dict[str, PublicKey], database_url: str, change: str
) -> None:
    scene = SimpleNamespace(found=[])
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        scene.found = (await connection.exec_driver_sql("SELECT * FROM installation")).mappings().all()
    await engine.dispose()
    try:
        await sql(database_url, change)
        for question in (
            directory.find("alice"),
            directory.key_of("alice", keys["alice"].blob),
            directory.standing_of([("alice", "")]),
            directory.add_user("dave"),
            directory.list_users(),
            directory.audit(MOST),
        ):
            with pytest.raises(StoreError, match="no longer to"):
                await question
    finally:  # databases are shared by tests
        (row,) = scene.found
        await sql(
            database_url,
            "DELETE FROM installation",
            "INSERT INTO installation (id, users, keys, oldest_schema, created_at) VALUES "
            f"('{row['id']}', 0, 0, '{row['oldest_schema']}', '{row['created_at']}')",
        )
    assert await directory.find("alice") is not None


# ------------------------------------------------------------------------------- an SQLite file


async def test_a_file_that_is_replaced_is_refused_and_one_that_is_gone_is_not_made_anew(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.db"
    store = await SqlDirectory.open(sqlite_url(file), upgrade=True)
    other = await SqlDirectory.open(sqlite_url(tmp_path / "other.db"), upgrade=True)
    try:
        await store.add_user("alice")
        await other.close()
        file.rename(tmp_path / "kept.db")
        with pytest.raises(DatabaseMissing, match="there is no database"):
            await store.find("alice")
        assert not file.exists()
        (tmp_path / "other.db").rename(file)
        before = file.read_bytes()
        for question in (store.find("alice"), store.standing_of([("alice", "")]), store.add_user("bob")):
            with pytest.raises(StoreError, match="was replaced: start the proxy anew"):
                await question
        assert file.read_bytes() == before
        file.unlink()
        (tmp_path / "kept.db").rename(file)
        assert await store.find("alice") is not None
    finally:
        await store.close()


async def test_a_command_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        DatabaseMissing, match=r"there is no database .*/no/x\.db: `fairlead database upgrade`"
    ):
        await SqlDirectory.open(sqlite_url(tmp_path / "no" / "x.db"))
    assert list(tmp_path.iterdir()) == []
