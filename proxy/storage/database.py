"""One database and the access to it: SQLite beside the proxy, or PostgreSQL for many replicas.

Every call has a deadline, and exceptions of SQLAlchemy or a driver become StoreError here. Every transaction
checks first that the database still belongs to the installation for which it was opened.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from proxy.errors.stores import DatabaseMissing, StoreError
from proxy.storage import migrate
from proxy.storage.files import create_once
from proxy.storage.installation import read_id

_FAILOVER_PAUSE_S = 0.1
_FAILOVER_STATES = ("08", "53300", "57P")
"""Prefixes of SQLSTATEs: connection exceptions, too many connections, shutdown and start of the server.

Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""
_SORRY = "users cannot be looked up at the moment"


class Database:
    """Connections to one database; every transaction is bounded by `query_timeout_s`."""

    def __init__(
        self, url: str, *, query_timeout_s: float, failover_wait_s: float = 0, create: bool = False
    ) -> None:
        """Take the URL of a database; with `create`, a missing SQLite file is created.

        A connection that the server refuses is tried again for `failover_wait_s` seconds.

        Raises: StoreError when there cannot be such a database; DatabaseMissing for a missing file.
        """
        self._engine = _engine(url, query_timeout_s, create=create)
        # A transaction that will write takes SQLite's lock at once. SQLite refuses one that reads first and
        # then wants to write, without waiting, when another connection wrote in between.
        self._writer = self._engine.execution_options(fairlead_begin="BEGIN IMMEDIATE")
        is_sqlite = self._engine.dialect.name == "sqlite"
        self._reader = self._engine.execution_options(
            **{"fairlead_begin": "BEGIN"} if is_sqlite else {"isolation_level": "REPEATABLE READ"}
        )
        self._query_timeout_s = query_timeout_s
        self._failover_wait_s = 0.0 if is_sqlite else failover_wait_s
        self.where = place_of(self._engine.url)
        """The host and name of the database, or its file: without user and password."""
        self.installation = ""
        """The id of the installation that this database belongs to; empty until it was opened."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        query_timeout_s: float,
        failover_wait_s: float = 0,
        upgrade: bool = False,
        served: str = "",
    ) -> Self:
        """Connect to an existing database; with `upgrade`, create it or bring its schema up to date first.

        `served` is the installation that the database must belong to; empty for any.

        Raises: DatabaseMissing when there is none yet and `upgrade` does not create one; StoreError when it
            cannot be used, is of another installation, or has a schema that this release cannot use.
        """
        database = cls(url, query_timeout_s=query_timeout_s, failover_wait_s=failover_wait_s, create=upgrade)
        try:
            await database._enter(upgrade=upgrade, served=served)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def _enter(self, *, upgrade: bool, served: str) -> None:
        async with self.reading() as connection:
            is_current = await connection.run_sync(migrate.version) == migrate.HEAD
        if upgrade and not is_current:
            async with self.writing() as connection:
                await connection.run_sync(partial(migrate.upgrade, served=served))
        async with self.reading() as connection:
            await connection.run_sync(migrate.require_usable)
            found = await read_id(connection)
        if not found:
            raise StoreError("the database does not say which installation it belongs to: it is not complete")
        if served and found != served:
            raise StoreError(
                f"the database belongs to installation {found}, and this proxy serves {served}: "
                "check identity.database_url, identity.installation and the file `installation` in "
                "FAIRLEAD_HOME"
            )
        self.installation = found

    @asynccontextmanager
    async def reading(self, *, unchecked: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads; an `unchecked` one does not check the installation's id.

        A caller of an `unchecked` one reads the id itself, for `recognise`. Raises: StoreError.
        """
        async with self._door() as limit, self._connected(self._engine, limit) as connection:
            if not unchecked:
                await self._recognise(connection)
            yield connection

    async def ask(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        """Run one unchecked query that changes nothing; again when the server went away under it.

        Raises: StoreError.
        """
        try:
            return await self._ask(query)
        except StoreError as exc:
            if not self._failover_wait_s or not _is_failover(exc.__cause__):
                raise
        return await self._ask(query)

    async def _ask(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        async with self.reading(unchecked=True) as connection:
            rows: Sequence[sa.RowMapping] = (await connection.execute(query)).mappings().all()
            return rows

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that sees one moment of the database in all its statements.

        Raises: StoreError.
        """
        async with self._door() as limit, self._connected(self._reader, limit) as connection:
            await self._recognise(connection)
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes: committed as a whole, or not at all after an exception.

        Raises: StoreError.
        """
        async with (
            self._door() as limit,
            self._connected(self._writer, limit) as connection,
            connection.begin(),
        ):
            await self._recognise(connection)
            yield connection

    async def _recognise(self, connection: AsyncConnection) -> None:
        if self.installation:  # empty while it is opened
            self.recognise(await read_id(connection))

    def recognise(self, found: str) -> None:
        """Refuse a database that replaced the one that was opened. Raises: StoreError."""
        if found != self.installation:
            raise StoreError(
                f"the database belongs to installation {found or 'none'}, no longer to {self.installation}",
                user_message=_SORRY,
            )

    @asynccontextmanager
    async def _door(self) -> AsyncIterator[asyncio.Timeout]:
        """Bound the block in time, and translate exceptions of the database."""
        try:
            async with asyncio.timeout(self._query_timeout_s) as limit:
                yield limit
        except TimeoutError as exc:
            raise StoreError(
                f"the database {self.where} did not answer within {self._query_timeout_s:g} s "
                "(identity.query_timeout_s)",
                user_message=_SORRY,
            ) from exc
        except DBAPIError as exc:
            raise StoreError(f"the database {self.where} failed: {exc.orig}", user_message=_SORRY) from exc
        except (SQLAlchemyError, OSError) as exc:
            raise StoreError(f"the database {self.where} failed: {exc}", user_message=_SORRY) from exc

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine, limit: asyncio.Timeout) -> AsyncIterator[AsyncConnection]:
        """Open a connection, and wait for a server that is failing over; `limit` bounds each attempt anew.

        Raises: what the driver raises once `failover_wait_s` is over.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._failover_wait_s
        async with AsyncExitStack() as stack:
            while True:
                try:
                    connection = await stack.enter_async_context(engine.connect())
                    break
                except (DBAPIError, OSError) as exc:
                    if not _is_failover(exc) or loop.time() + _FAILOVER_PAUSE_S > until:
                        raise
                await asyncio.sleep(_FAILOVER_PAUSE_S)
                limit.reschedule(loop.time() + self._query_timeout_s)
            yield connection


def _unusable(exc: Exception) -> str:
    """Return the reason against an engine for a URL, without the URL: it may hold a password."""
    if isinstance(exc, ArgumentError):
        return "is not a URL such as postgresql://user:password@host/database"
    if isinstance(exc, InvalidRequestError):
        return "names a driver that is not asynchronous; use postgresql://… or sqlite+aiosqlite:///…"
    return str(exc)


def place_of(url: sa.URL) -> str:
    """Return the place of a database for an operator: host, port and name, or a file."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    host = url.host or url.query.get("host", "")
    where = f"{host if isinstance(host, str) else ','.join(host)}{f':{url.port}' if url.port else ''}"
    return f"{where or 'localhost'}/{url.database or ''}"


def _is_failover(exc: BaseException | None) -> bool:
    """Return whether the server refused or lost a connection, which may end by itself within seconds."""
    if isinstance(exc, DBAPIError):
        state = getattr(exc.orig, "sqlstate", None) or ""
        return exc.connection_invalidated or state.startswith(_FAILOVER_STATES)
    return isinstance(exc, OSError) and not isinstance(exc, TimeoutError)


class _SqliteConnection(sqlite3.Connection):
    """A connection that closes itself, in the thread where its last reference ends.

    aiosqlite opens a connection in a thread, and drops the result unclosed when the caller was cancelled
    meanwhile. Every query timeout may do that.
    """

    def __del__(self) -> None:
        self.close()


def _engine(url: str, query_timeout_s: float, *, create: bool) -> AsyncEngine:
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
            f"identity.database_url: its driver needs {exc.name}, which is not installed; PostgreSQL is "
            "postgresql://… and needs fairlead[postgres]"
        ) from exc
    except (SQLAlchemyError, ImportError) as exc:
        raise StoreError(f"identity.database_url: {_unusable(exc)}") from exc
    if parsed.database and parsed.database != ":memory:":
        file = Path(parsed.database)
        if create:
            _make_private(file)
        _keep_to(file, engine)
    event.listen(engine.sync_engine, "connect", _on_sqlite_connect)
    event.listen(engine.sync_engine, "begin", _on_sqlite_begin)
    return engine


def _make_private(file: Path) -> None:
    """Create a missing file, readable by its owner only, with its journal mode already set.

    SQLite would make it as readable as the umask allows. And of two connections that change the journal
    mode of a new file at once, SQLite fails one without waiting for `timeout` (sqlite.org/wal.html, 2.2).
    """
    try:
        if not file.exists():
            create_once(file, _empty_database())
    except (OSError, sqlite3.Error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise StoreError(f"the database {file} cannot be made: {reason}") from exc


def _empty_database() -> bytes:
    """Return the content of an SQLite database without tables, with a write-ahead log."""
    with TemporaryDirectory(prefix="fairlead-") as scratch:
        file = Path(scratch, "empty.db")
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        return file.read_bytes()


def _keep_to(file: Path, engine: AsyncEngine) -> None:
    """Refuse a file that replaced the first one, and never create a missing one.

    An open connection continues with the file that it opened, even when the file's name now belongs to
    another. A new connection would apply the log of the first file to the second
    (sqlite.org/howtocorrupt.html, 2.4).
    """
    first = _inode(file)

    def check(*_: Any) -> None:
        nonlocal first
        now = _inode(file)
        if now is None:
            raise DatabaseMissing(
                f"there is no database {file}: `fairlead database upgrade`, or a proxy that starts, makes it",
                user_message=_SORRY,
            )
        first = first or now
        if now != first:
            raise StoreError(f"the database {file} was replaced: start the proxy anew", user_message=_SORRY)

    event.listen(engine.sync_engine, "do_connect", check)
    event.listen(engine.sync_engine, "checkout", check)


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # this module begins transactions itself, not the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    # One SELECT is consistent by itself, and BEGIN would cost each login another thread switch.
    if begin := connection.get_execution_options().get("fairlead_begin"):
        connection.exec_driver_sql(begin)
