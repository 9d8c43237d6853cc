"""What is particular to SQL: migrations, files, and whose exceptions come out."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import proxy.sessions.schema
import proxy.web.session_schema
import proxy.web.share_schema  # noqa: F401 (their tables join the others in `metadata`)
from proxy.errors.stores import StoreError
from proxy.identity.store import SqlDirectory
from proxy.storage import migrate
from proxy.storage.tables import metadata
from tests.strictness import unclosed


def url(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


async def make(file: Path) -> None:
    await (await SqlDirectory.open(url(file), upgrade=True)).close()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    first = await SqlDirectory.open(url(tmp_path / "x.db"), upgrade=True)
    await first.add_user("alice")
    await first.close()
    second = await SqlDirectory.open(url(tmp_path / "x.db"), upgrade=True)
    assert await second.find("alice")
    await second.close()


async def test_the_migrations_give_what_the_code_reads(tmp_path: Path) -> None:
    await make(tmp_path / "x.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(migrate.MIGRATIONS)).get_heads() == [migrate.HEAD]


async def test_many_proxies_may_start_on_a_new_database(tmp_path: Path) -> None:
    stores = await asyncio.gather(
        *(SqlDirectory.open(url(tmp_path / "x.db"), query_timeout_s=60, upgrade=True) for _ in range(6))
    )
    await stores[0].add_user("alice")
    assert [bool(await store.find("alice")) for store in stores] == [True] * 6
    for store in stores:
        await store.close()


async def test_a_database_of_a_newer_release_is_refused_unless_that_says_that_it_can_be_used(
    tmp_path: Path,
) -> None:
    await make(tmp_path / "x.db")
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await make(tmp_path / "x.db")
        await (await SqlDirectory.open(url(tmp_path / "x.db"))).close()
        connection.execute("UPDATE installation SET oldest_schema = '9998'")
    with pytest.raises(StoreError, match=rf"written by a newer Fairlead \(schema 9999, .* {migrate.HEAD}\)"):
        await make(tmp_path / "x.db")
    with pytest.raises(StoreError, match="written by a newer Fairlead"):
        await SqlDirectory.open(url(tmp_path / "x.db"))


async def test_the_database_is_private(tmp_path: Path) -> None:
    await make(tmp_path / "sub" / "x.db")
    assert (tmp_path / "sub").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "sub" / "x.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "bad", ["nonsense", "nodriver+sqlite:///x", "sqlite+aiosqlite:////proc/nowhere/x.db", "oracle://x"]
)
async def test_what_cannot_be_opened_is_a_store_error(bad: str) -> None:
    with pytest.raises(StoreError):
        await SqlDirectory.open(bad, upgrade=True)


async def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await make(tmp_path / "x.db")


async def test_a_database_that_loses_its_tables_is_a_store_error(tmp_path: Path) -> None:
    store = await SqlDirectory.open(url(tmp_path / "x.db"), upgrade=True)
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.executescript("DROP TABLE keys; DROP TABLE users;")
    try:
        with pytest.raises(StoreError) as caught:
            await store.find("alice")
        assert "no such table" in str(caught.value)
        assert caught.value.user_message == "users cannot be looked up at the moment"
    finally:
        await store.close()


async def test_a_file_that_is_no_database_is_closed_again(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is not SQLite" * 100)
    with unclosed() as found, pytest.raises(StoreError):
        await make(tmp_path / "x.db")
    assert found == []


async def test_a_connection_that_opens_after_its_deadline_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiosqlite drops what its thread opened when the caller was cancelled meanwhile."""
    await make(tmp_path / "x.db")
    connect, may_open, opener = sqlite3.connect, threading.Event(), []

    def late(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opener.append(threading.current_thread())
        may_open.wait(60)
        return connect(*args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", late)
    with unclosed() as found:
        with pytest.raises(StoreError, match="did not answer"):
            await SqlDirectory.open(url(tmp_path / "x.db"), query_timeout_s=0.05)
        may_open.set()
        await asyncio.to_thread(opener[0].join)
        await asyncio.sleep(0)  # the loop receives what the thread opened, and drops it
    assert found == []


async def test_somebody_who_holds_the_lock_costs_a_deadline_and_no_more(tmp_path: Path) -> None:
    store = await SqlDirectory.open(url(tmp_path / "x.db"), query_timeout_s=6.0, upgrade=True)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            await store.add_user("alice")
        assert await store.find("alice") is None  # readers are never stopped
        other.execute("ROLLBACK")
    await store.add_user("alice")
    await store.close()
