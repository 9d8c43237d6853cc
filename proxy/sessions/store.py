"""Records of sessions in SQL; the only module of this package with queries.

A process writes only its own records: all changes in one transaction with its heartbeat. So the heartbeat is
never older than any of its records, and the process that finds it stale may close them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.sessions.records import ConnectionRecord, EndReason, KillOrder, ProgramRecord
from proxy.sessions.schema import connections, kills, programs, proxies
from proxy.storage.database import Database

_R = TypeVar("_R", ConnectionRecord, ProgramRecord, KillOrder)

_MAX_ORDERS = 10_000
_ROWS_PER_TURN = 100
_IDS_PER_QUERY = 5_000  # both databases take 32,767 parameters


@dataclass(frozen=True, slots=True)
class ProxyProcess:
    """A process that carries connections; no other process ever has the same `token`."""

    token: str
    proxy_id: str
    pid: int
    host: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A query for connections; empty fields are not compared."""

    user: str = ""
    workspace: str = ""
    live_only: bool = True
    since: datetime | None = None
    """Only those that lasted until then or longer."""
    until: datetime | None = None
    """Only those that began before."""
    limit: int = 1_000
    """Only the newest; at most this many."""


_NAMES: dict[type[Any], tuple[str, ...]] = {
    kind: tuple(field.name for field in fields(kind))
    for kind in (ConnectionRecord, ProgramRecord, KillOrder, ProxyProcess)
}


class SessionStore:
    """The store of records. Every method raises StoreError when the database does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._reading = database.reading
        self._writing = database.writing

    # ------------------------------------------------------------------------------ of a proxy

    async def write(
        self,
        proxy: ProxyProcess,
        now: datetime,
        connections_: Collection[ConnectionRecord],
        programs_: Collection[ProgramRecord],
    ) -> bool:
        """Write changed records, and the heartbeat of `proxy`, in one transaction.

        Return False when the process was not registered: it is new, or was taken for lost and its records
        closed.
        """
        async with self._writing() as connection:
            sign = sa.update(proxies).where(proxies.c.token == proxy.token).values(seen_at=now)
            is_known = (await connection.execute(sign)).rowcount == 1
            if not is_known:
                await connection.execute(sa.insert(proxies).values(**_row(proxy), seen_at=now))
            await _upsert(connection, connections, connections_)
            await _upsert(connection, programs, programs_)
        return is_known

    async def leave(self, proxy: ProxyProcess) -> None:
        """Deregister a process that ends in order and has no live records."""
        async with self._writing() as connection:
            await connection.execute(sa.delete(proxies).where(proxies.c.token == proxy.token))

    # --------------------------------------------------------------------------- of the janitor

    async def signs_of_life(self) -> dict[str, datetime]:
        """Return the last heartbeat of every process, by token."""
        async with self._reading() as connection:
            rows = (await connection.execute(sa.select(proxies.c.token, proxies.c.seen_at))).all()
        return {row.token: row.seen_at for row in rows}

    async def close_lost(self, token: str, seen_at: datetime) -> list[ConnectionRecord]:
        """Close the records of a process whose last heartbeat is `seen_at`, as of that moment.

        Return those that this call closed; none when the process has a newer heartbeat, or another replica
        was faster.
        """
        lost = {
            "ended_at": seen_at,
            "updated_at": seen_at,
            "end_reason": EndReason.PROXY_LOST.value,
            "end_detail": "",
        }
        its_own = sa.and_(connections.c.proxy == token, connections.c.ended_at.is_(None))
        theirs = programs.c.connection.in_(sa.select(connections.c.id).where(connections.c.proxy == token))
        async with self._writing() as connection:
            gone = sa.delete(proxies).where(proxies.c.token == token, proxies.c.seen_at == seen_at)
            if (await connection.execute(gone)).rowcount != 1:
                return []
            found = (await connection.execute(sa.select(connections.c.id).where(its_own))).scalars().all()
            await connection.execute(
                sa.update(programs).where(theirs, programs.c.ended_at.is_(None)).values(lost)
            )
            await connection.execute(sa.update(connections).where(its_own).values(lost))
            return await _connections(connection, found)

    async def expire(self, before: datetime, limit: int) -> int:
        """Delete at most `limit` connections that ended before `before`, with all that belongs to them."""
        chosen = sa.select(connections.c.id).where(connections.c.ended_at < before)
        async with self._writing() as connection:
            ids = (await connection.execute(chosen.limit(limit))).scalars().all()
            for part in _parts(ids):
                await connection.execute(sa.delete(programs).where(programs.c.connection.in_(part)))
                await connection.execute(sa.delete(connections).where(connections.c.id.in_(part)))
        return len(ids)

    # ------------------------------------------------------------------------------- of readers

    async def select(self, wanted: SessionQuery) -> list[ConnectionRecord]:
        """Return connections, the newest first."""
        query = sa.select(connections).order_by(connections.c.started_at.desc(), connections.c.id)
        if wanted.user:
            query = query.where(connections.c.user == wanted.user)
        if wanted.workspace:
            query = query.where(connections.c.workspace == wanted.workspace)
        if wanted.live_only:
            query = query.where(connections.c.ended_at.is_(None))
        if wanted.since is not None:
            lasted = sa.or_(connections.c.ended_at.is_(None), connections.c.ended_at >= wanted.since)
            query = query.where(lasted)
        if wanted.until is not None:
            query = query.where(connections.c.started_at < wanted.until)
        async with self._reading() as connection:
            rows = (await connection.execute(query.limit(wanted.limit))).mappings().all()
        return [_record(ConnectionRecord, row) for row in rows]

    async def find(self, ids: Collection[str]) -> list[ConnectionRecord | ProgramRecord]:
        """Return connections and programs by their ids, in no order, without those that do not exist."""
        found: list[ConnectionRecord | ProgramRecord] = []
        async with self._reading() as connection:
            for part in _parts(list(ids)):
                found += await _connections(connection, part)
                query = sa.select(programs).where(programs.c.id.in_(part))
                rows = (await connection.execute(query)).mappings().all()
                found += [_record(ProgramRecord, row) for row in rows]
        return found

    async def programs_of(self, connection_ids: Collection[str]) -> list[ProgramRecord]:
        """Return the programs of connections, in the order of their beginning."""
        found: list[ProgramRecord] = []
        async with self._reading() as connection:
            for part in _parts(list(connection_ids)):
                query = sa.select(programs).where(programs.c.connection.in_(part))
                rows = (await connection.execute(query)).mappings().all()
                found += [_record(ProgramRecord, row) for row in rows]
        return sorted(found, key=lambda record: (record.started_at, record.id))

    # --------------------------------------------------------------------------------- of kills

    async def order_kills(self, ids: Collection[str], actor: str, reason: str, now: datetime) -> None:
        """Store orders to end sessions, wherever they are."""
        rows = [{"session": id_, "actor": actor, "reason": reason, "created_at": now} for id_ in ids]
        if rows:
            async with self._writing() as connection:
                await connection.execute(sa.insert(kills), rows)

    async def kill_orders(self) -> list[KillOrder]:
        """Return the orders that are not executed yet, oldest first."""
        async with self._reading() as connection:
            query = sa.select(kills).order_by(kills.c.id).limit(_MAX_ORDERS)
            rows = (await connection.execute(query)).mappings().all()
        return [_record(KillOrder, row) for row in rows]

    async def forget_kills(self, ids: Collection[int], before: datetime | None = None) -> None:
        """Delete orders that were executed, and all that were given before `before`."""
        is_done: sa.ColumnElement[bool] = kills.c.id.in_(list(ids))
        if before is not None:
            is_done = sa.or_(is_done, kills.c.created_at < before)
        async with self._writing() as connection:
            await connection.execute(sa.delete(kills).where(is_done))


async def _upsert(
    connection: AsyncConnection, table: sa.Table, records: Collection[ConnectionRecord | ProgramRecord]
) -> None:
    """Insert or replace records: after a timeout it is unknown whether they were written."""
    if not records:
        return
    insert: Callable[[sa.Table], Any] = (
        postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    )
    statement = insert(table)
    mutable = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=mutable)
    rows = iter(records)
    # A larger statement would block this thread, and every keystroke that passes through it, for too long.
    while part := [_row(record) for record in islice(rows, _ROWS_PER_TURN)]:
        await connection.execute(statement, part)


async def _connections(connection: AsyncConnection, ids: Sequence[str]) -> list[ConnectionRecord]:
    found: list[ConnectionRecord] = []
    for part in _parts(ids):
        query = sa.select(connections).where(connections.c.id.in_(part))
        rows = (await connection.execute(query)).mappings().all()
        found += [_record(ConnectionRecord, row) for row in rows]
    return found


def _record(kind: type[_R], row: sa.RowMapping) -> _R:
    return kind(**{name: row[name] for name in _NAMES[kind]})


def _row(record: ConnectionRecord | ProgramRecord | ProxyProcess) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _NAMES[type(record)]}


def _parts(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _IDS_PER_QUERY] for start in range(0, len(ids), _IDS_PER_QUERY)]
