"""How an old database becomes a new one, and what a database that fails costs; on each store there is."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

import proxy.sessions.schema
import proxy.web.session_schema
import proxy.web.share_schema  # noqa: F401 (the same)
from proxy.errors.stores import StoreError
from proxy.identity.store import SqlDirectory
from proxy.storage.migrate import MIGRATIONS
from proxy.storage.tables import metadata
from tests.contract.directories import DEADLINE_S, make_key, sqlite_url
from tests.contract.postgres import Cluster

FIXTURES = Path(__file__).parent.parent / "fixtures"

OldDatabase = Callable[..., str]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> OldDatabase:
    """Makes a database by a script, empty by default, and gives its URL."""

    def make_sqlite(*, is_old: bool = False) -> str:
        file = tmp_path / "fairlead.db"
        if is_old:
            with closing(sqlite3.connect(file)) as connection:
                connection.executescript((FIXTURES / "identity-0001.sqlite.sql").read_text())
        return sqlite_url(file)

    def make_postgres(*, is_old: bool = False) -> str:
        cluster: Cluster = request.getfixturevalue("cluster")
        name = cluster.create()
        if is_old:
            cluster.sql(name, (FIXTURES / "identity-0001.postgresql.sql").read_text())
        return cluster.url(name)

    return make_sqlite if request.param == "sqlite" else make_postgres


async def open_(url: str) -> SqlDirectory:
    return await SqlDirectory.open(url, query_timeout_s=DEADLINE_S, upgrade=True)


async def test_an_old_database_is_brought_up_to_date(make_database: OldDatabase) -> None:
    store = await open_(make_database(is_old=True))
    try:
        users = {record.user.name: record for record in await store.list_users()}
        assert {name: (record.uid, record.key_count) for name, record in users.items()} == {
            "alice": (1_001, 1),
            "bob": (10_000, 0),  # had alice's, which nothing kept from happening then
            "carol": (10_001, 0),
        }
        assert users["alice"].user.full_name == "Alice Ö."
        assert users["alice"].account is None
        assert [record.user.locked for record in users.values()] == [False, True, False]
        (stored,) = await store.keys_of("alice")
        assert await store.key_of("alice", stored.key.blob) == stored
        await store.add_key("alice", make_key())
    finally:
        await store.close()


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "old"])
async def test_proxies_that_start_at_once_do_not_collide(make_database: OldDatabase, is_old: bool) -> None:
    url = make_database(is_old=is_old)
    stores = await asyncio.gather(*(open_(url) for _ in range(4)))
    await stores[0].add_user("dave")
    assert [bool(await store.find("dave")) for store in stores] == [True] * 4
    for store in stores:
        await store.close()


async def test_the_migrations_give_what_the_code_reads(make_database: OldDatabase) -> None:
    url = make_database(is_old=True)
    await (await open_(url)).close()

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    engine = create_async_engine(url)
    async with engine.connect() as connection:
        assert await connection.run_sync(compare) == []
    await engine.dispose()


async def test_the_release_before_goes_on_adding_users(make_database: OldDatabase) -> None:
    """While a new proxy upgrades the database, an old one may still run on it."""
    url = make_database(is_old=True)
    await (await open_(url)).close()
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO users (name, full_name, email, locked, created_at) "
            "VALUES ('dave', '', '', false, '2026-01-05 03:04:05')"
        )
    await engine.dispose()
    store = await open_(url)
    record = await store.show_user("dave")
    assert (record.uid, record.account) == (10_002, None)
    ids = {record.user.id for record in await store.list_users()}
    assert len(ids) == 4
    assert all(len(one) == 32 for one in ids)
    await store.close()


async def test_groups_of_before_the_upgrade_count_as_read_at_the_upgrade(
    make_database: OldDatabase,
) -> None:
    """Nobody loses at once what was given before; users of an operator have no age."""
    url = make_database(is_old=True)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade_to, "0003")
        await connection.exec_driver_sql(
            "UPDATE users SET issuer = 'i', subject = 's', source = 'idp', groups = '[\"staff\"]', "
            "refreshed_at = '2020-01-02 03:04:05', created_at = '2020-01-02 03:04:05' WHERE name = 'alice'"
        )
    await engine.dispose()
    before = datetime.now(UTC)
    store = await open_(url)
    alice, bob = await store.find("alice"), await store.account_of("bob")
    account = await store.account_of("alice")
    await store.close()
    assert alice is not None
    assert account is not None
    assert account.reading is not None
    assert (alice.groups, bob) == (("staff",), None)
    assert before <= account.reading.read_at <= datetime.now(UTC)


async def test_who_an_older_release_lets_in_beside_this_one_has_groups_of_that_moment(
    make_database: OldDatabase,
) -> None:
    url = make_database()
    store = await open_(url)
    engine = create_async_engine(url)
    moment = datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO users (name, full_name, email, locked, created_at, source, issuer, subject, login, "
            f"groups, refreshed_at) VALUES ('eve', '', '', false, '{moment}', 'idp', 'i', 's', 'eve', "
            f"'[\"staff\"]', '{moment}')"
        )
    await engine.dispose()
    eve = await store.find("eve")
    await store.close()
    assert eve is not None
    assert eve.groups == ("staff",)


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, revision)


async def test_a_database_of_a_newer_release_is_refused(make_database: OldDatabase) -> None:
    url = make_database(is_old=True)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await engine.dispose()
    with pytest.raises(StoreError, match=r"written by a newer Fairlead \(schema 9999"):
        await open_(url)


async def test_a_database_that_is_not_there_is_a_store_error(cluster: Cluster, tmp_path: Path) -> None:
    for url in (
        cluster.url("missing"),
        cluster.url("missing").replace("fairlead@", "nobody_we_know@"),
        f"postgresql+asyncpg://fairlead@/x?host={tmp_path}",
        "postgresql://fairlead@127.0.0.1:1/x",
    ):
        with pytest.raises(StoreError, match="the database"):
            await SqlDirectory.open(url)


async def test_a_server_that_ends_costs_an_error_and_one_that_is_back_is_used(tmp_path: Path) -> None:
    own = Cluster()
    try:
        own.start()
        store = await open_(own.url("postgres"))
        await store.add_user("alice")
        await asyncio.to_thread(own.halt)
        with pytest.raises(StoreError) as caught:
            await store.find("alice")
        assert caught.value.user_message == "users cannot be looked up at the moment"
        await asyncio.to_thread(own.resume)
        assert await store.find("alice") is not None
        await store.close()
    finally:
        own.close()
