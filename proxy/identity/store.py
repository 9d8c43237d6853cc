"""The directory kept in SQL: SQLite beside the proxy, or PostgreSQL for many replicas.

The only module that talks to the database. What SQLAlchemy or a driver raises becomes StoreError.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from proxy.errors import KeyNotFound, StoreError, UserExists, UserNotFound
from proxy.identity import schema
from proxy.identity.directory import StoredKey, UserRecord, check_name
from proxy.identity.keys import PublicKey, fingerprint
from proxy.identity.schema import keys, users
from proxy.model import User

_TOUCH_EVERY = timedelta(minutes=1)


class SqlDirectory:
    """A Directory in a database; every call is bounded by `query_timeout_s`."""

    def __init__(self, engine: AsyncEngine, *, query_timeout_s: float) -> None:
        self._engine = engine
        # A transaction that will write takes SQLite's lock at once: one that reads first and then wants
        # to write is refused without waiting when somebody else wrote in between.
        self._writer = engine.execution_options(fairlead_begin="BEGIN IMMEDIATE")
        self._query_timeout_s = query_timeout_s

    @classmethod
    async def open(cls, url: str, *, query_timeout_s: float = 10.0) -> Self:
        """Connect and bring the schema up to date.

        Raises: StoreError when there is no such database, or it is of a newer release.
        """
        engine = _engine(url, query_timeout_s)
        store = cls(engine, query_timeout_s=query_timeout_s)
        try:
            await store._migrate()
        except BaseException:
            await engine.dispose()
            raise
        return store

    async def close(self) -> None:
        await self._engine.dispose()

    async def find(self, name: str) -> User | None:
        query = sa.select(users.c.name, users.c.full_name, users.c.locked).where(users.c.name == name)
        async with self._reading() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else User(row.name, row.full_name, row.locked)

    async def key_of(self, name: str, blob: bytes) -> StoredKey | None:
        query = sa.select(keys).where(keys.c.user == name, keys.c.fingerprint == fingerprint(blob))
        async with self._reading() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _stored(row) if row is not None and hmac.compare_digest(row["blob"], blob) else None

    async def add_user(
        self, name: str, *, full_name: str = "", email: str = "", uid: int | None = None
    ) -> User:
        row = {
            "name": check_name(name),
            "full_name": full_name,
            "email": email,
            "locked": False,
            "uid": uid,
            "created_at": _now(),
        }
        async with self._writing() as connection:
            try:
                await connection.execute(sa.insert(users).values(row))
            except IntegrityError:
                raise UserExists(f"there is already a user {name}") from None
        return User(name, full_name)

    async def remove_user(self, name: str) -> None:
        async with self._writing() as connection:
            await connection.execute(sa.delete(keys).where(keys.c.user == name))
            _expect_user(
                (await connection.execute(sa.delete(users).where(users.c.name == name))).rowcount, name
            )

    async def show_user(self, name: str) -> UserRecord:
        async with self._reading() as connection:
            row = (await connection.execute(_records().where(users.c.name == name))).mappings().first()
        if row is None:
            raise UserNotFound(f"there is no user {name}")
        return _record(row)

    async def list_users(self) -> list[UserRecord]:
        async with self._reading() as connection:
            rows = (await connection.execute(_records().order_by(users.c.name))).mappings().all()
        return [_record(row) for row in rows]

    async def lock(self, name: str) -> None:
        await self._set_locked(name, locked=True)

    async def unlock(self, name: str) -> None:
        await self._set_locked(name, locked=False)

    async def add_key(self, name: str, key: PublicKey, *, origin: str = "static") -> bool:
        row = {
            "user": name,
            "fingerprint": key.fingerprint,
            "algorithm": key.algorithm,
            "blob": key.blob,
            "comment": key.comment,
            "origin": origin,
            "created_at": _now(),
        }
        async with self._writing() as connection:
            await _require_user(connection, name)
            try:
                await connection.execute(sa.insert(keys).values(row))
            except IntegrityError:
                return False
        return True

    async def remove_key(self, name: str, fingerprint: str) -> None:
        gone = sa.delete(keys).where(keys.c.user == name, keys.c.fingerprint == fingerprint)
        async with self._writing() as connection:
            await _require_user(connection, name)
            if not (await connection.execute(gone)).rowcount:
                raise KeyNotFound(f"user {name} has no key {fingerprint}")

    async def keys_of(self, name: str) -> list[StoredKey]:
        query = sa.select(keys).where(keys.c.user == name).order_by(keys.c.id)
        async with self._reading() as connection:
            await _require_user(connection, name)
            rows = (await connection.execute(query)).mappings().all()
        return [_stored(row) for row in rows]

    async def touch_key(self, key_id: int) -> None:
        now = _now()
        stale = sa.or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < now - _TOUCH_EVERY)
        async with self._reading() as connection:
            if (
                await connection.execute(sa.select(keys.c.id).where(keys.c.id == key_id, stale))
            ).first() is None:
                return
        async with self._writing() as connection:
            await connection.execute(sa.update(keys).where(keys.c.id == key_id).values(last_used_at=now))

    async def _set_locked(self, name: str, *, locked: bool) -> None:
        change = sa.update(users).where(users.c.name == name).values(locked=locked)
        async with self._writing() as connection:
            _expect_user((await connection.execute(change)).rowcount, name)

    async def _migrate(self) -> None:
        async with self._reading() as connection:
            if await connection.run_sync(schema.is_current):
                return
        async with self._writing() as connection:
            await connection.run_sync(schema.upgrade)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self._door(), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
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
                f"the identity database did not answer within {self._query_timeout_s:g} s",
                user_message=_SORRY,
            ) from exc
        except DBAPIError as exc:
            raise StoreError(f"the identity database failed: {exc.orig}", user_message=_SORRY) from exc
        except (SQLAlchemyError, OSError) as exc:
            raise StoreError(f"the identity database failed: {exc}", user_message=_SORRY) from exc


_SORRY = "users cannot be looked up at the moment"


def _engine(url: str, query_timeout_s: float) -> AsyncEngine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_async_engine(parsed, pool_pre_ping=True)
        engine = create_async_engine(parsed, connect_args={"timeout": query_timeout_s})
    except (SQLAlchemyError, ImportError) as exc:
        raise StoreError(f"the identity database cannot be used: {exc}") from exc
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
        raise StoreError(f"the identity database {file} cannot be made: {exc.strerror}") from exc


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


def _records() -> sa.Select[Any]:
    count = sa.select(sa.func.count()).where(keys.c.user == users.c.name).scalar_subquery()
    return sa.select(users, count.label("key_count"))


def _record(row: sa.RowMapping) -> UserRecord:
    user = User(row["name"], row["full_name"], row["locked"])
    return UserRecord(user, row["email"], row["uid"], row["created_at"], row["key_count"])


def _stored(row: sa.RowMapping) -> StoredKey:
    key = PublicKey(row["algorithm"], row["blob"], row["comment"])
    return StoredKey(row["id"], row["user"], key, row["origin"], row["created_at"], row["last_used_at"])


async def _require_user(connection: AsyncConnection, name: str) -> None:
    found = await connection.execute(sa.select(users.c.name).where(users.c.name == name))
    _expect_user(len(found.all()), name)


def _expect_user(rows: int, name: str) -> None:
    if not rows:
        raise UserNotFound(f"there is no user {name}")


def _now() -> datetime:
    return datetime.now(UTC)
