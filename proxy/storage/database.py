"""One database and the ways into it: SQLite beside the proxy, or PostgreSQL for many replicas.

Everything is bounded by a deadline, and what SQLAlchemy or a driver raises becomes StoreError here.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from proxy.errors.stores import StoreError
from proxy.storage import migrate

_SORRY = "users cannot be looked up at the moment"


class Database:
    """Connections to one database; every transaction is bounded by `query_timeout_s`."""

    def __init__(self, url: str, *, query_timeout_s: float) -> None:
        """Raises: StoreError when there cannot be such a database."""
        self._engine = _engine(url, query_timeout_s)
        # A transaction that will write takes SQLite's lock at once: one that reads first and then wants
        # to write is refused without waiting when somebody else wrote in between.
        self._writer = self._engine.execution_options(fairlead_begin="BEGIN IMMEDIATE")
        self._query_timeout_s = query_timeout_s

    @classmethod
    async def open(cls, url: str, *, query_timeout_s: float) -> Self:
        """Connect and bring the schema up to date.

        Raises: StoreError when there is no such database, or it is of a newer release.
        """
        database = cls(url, query_timeout_s=query_timeout_s)
        try:
            await database._migrate()
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Let go of every connection."""
        await self._engine.dispose()

    async def _migrate(self) -> None:
        async with self.reading() as connection:
            if await connection.run_sync(migrate.is_current):
                return
        async with self.writing() as connection:
            await connection.run_sync(migrate.upgrade)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Query, changing nothing. Raises: StoreError."""
        async with self._door(), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Query and change; all of it is kept, or, when anything is raised, none. Raises: StoreError."""
        async with self._door(), self._writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _door(self) -> AsyncIterator[None]:
        """Bound what happens inside, and turn what the database says into our words."""
        try:
            async with asyncio.timeout(self._query_timeout_s):
                yield
        except TimeoutError as exc:
            raise StoreError(
                f"the database did not answer within {self._query_timeout_s:g} s",
                user_message=_SORRY,
            ) from exc
        except DBAPIError as exc:
            raise StoreError(f"the database failed: {exc.orig}", user_message=_SORRY) from exc
        except (SQLAlchemyError, OSError) as exc:
            raise StoreError(f"the database failed: {exc}", user_message=_SORRY) from exc


class _SqliteConnection(sqlite3.Connection):
    """A connection that closes itself, in whichever thread the last reference to it ends.

    aiosqlite opens a connection in a thread and drops the result unclosed when the caller was cancelled
    meanwhile, which every query timeout may do.
    """

    def __del__(self) -> None:
        self.close()


def _engine(url: str, query_timeout_s: float) -> AsyncEngine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+asyncpg")
        if parsed.get_backend_name() != "sqlite":
            return create_async_engine(parsed, pool_pre_ping=True, hide_parameters=True)
        options = {"timeout": query_timeout_s, "factory": _SqliteConnection, "check_same_thread": False}
        engine = create_async_engine(parsed, connect_args=options, hide_parameters=True)
    except ModuleNotFoundError as exc:
        raise StoreError(
            f"the database cannot be used: {exc.name} is not installed; PostgreSQL needs fairlead[postgres]"
        ) from exc
    except (SQLAlchemyError, ImportError) as exc:
        raise StoreError(f"the database cannot be used: {exc}") from exc
    if parsed.database and parsed.database != ":memory:":
        _make_private(Path(parsed.database))
    event.listen(engine.sync_engine, "connect", _on_sqlite_connect)
    event.listen(engine.sync_engine, "begin", _on_sqlite_begin)
    return engine


def _make_private(file: Path) -> None:
    """Make the file ourselves, since SQLite would make it as readable as the umask allows."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as exc:
        raise StoreError(f"the database {file} cannot be made: {exc.strerror}") from exc


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own idea of when to begin is not ours
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    # One SELECT is consistent by itself, and BEGIN would cost each login another turn of the thread.
    if begin := connection.get_execution_options().get("fairlead_begin"):
        connection.exec_driver_sql(begin)
