"""Counts that distinguish removal from loss: expected numbers of users and keys, and records of removals.

A user who is missing from the directory was either removed, which is recorded, or lost: by a dropped table, a
restore in stages, a server that came up empty. The row of `installation` holds the expected numbers of users
and keys; every removal lowers them in its own transaction. A directory that holds fewer has lost some, and
then a missing user without a record of removal proves nothing.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.identity.directory import Census
from proxy.identity.schema import keys, removals, revoked_keys, users
from proxy.storage.installation import installation

_KEEP_RECORDS = timedelta(days=30)
"""No connection that a record could end lasts longer beside a proxy that does not see the record."""

_PAIRS_PER_QUERY = 5_000

_ACTUAL = {
    table.name: sa.select(sa.func.count()).select_from(table).scalar_subquery() for table in (users, keys)
}


async def take(connection: AsyncConnection) -> Census:
    """Return the counts, taken in one statement."""
    query = sa.select(_ACTUAL["users"], _ACTUAL["keys"], installation.c["users"], installation.c["keys"])
    return Census(*(await connection.execute(query)).one())


async def hold(connection: AsyncConnection) -> Census:
    """Return the counts, and lock the expected numbers until the transaction ends.

    A transaction that removes rows waits for the lock while other transactions still see its rows, so the
    expected number is never too high for it.
    """
    # Two statements: on PostgreSQL the second sees what was committed while the first waited.
    await connection.execute(sa.select(installation.c.id).with_for_update())
    return await take(connection)


async def expect(connection: AsyncConnection, census: Census) -> None:
    """Make counts taken under `hold` the expected numbers."""
    await connection.execute(sa.update(installation).values(users=census.users, keys=census.keys))


async def added(connection: AsyncConnection) -> None:
    """Include the rows added in this transaction in the expected numbers; call it at the end."""
    census = await hold(connection)
    more = {
        "users": max(census.users, census.expected_users),
        "keys": max(census.keys, census.expected_keys),
    }
    await connection.execute(sa.update(installation).values(more))


async def removed(
    connection: AsyncConnection, name: str, fingerprints: Collection[str], *, user: bool = False
) -> None:
    """Record that keys of a user were removed in this transaction, and with `user` the user as well.

    Call it at the end of the transaction, after the rows are deleted.
    """
    now = datetime.now(UTC)
    gone = [*fingerprints, *([""] if user else [])]
    await connection.execute(sa.delete(removals).where(removals.c.removed_at < now - _KEEP_RECORDS))
    for part in _parts(gone):
        await connection.execute(_its_records(name, part))
        rows = [{"user": name, "fingerprint": one, "removed_at": now} for one in part]
        await connection.execute(sa.insert(removals), rows)
    less = {"users": installation.c["users"] - int(user), "keys": installation.c["keys"] - len(fingerprints)}
    await connection.execute(sa.update(installation).values(less))


async def restored(connection: AsyncConnection, name: str, fingerprint: str = "") -> None:
    """Delete the record of a removed key, or, without one, of the user, which was added again."""
    await connection.execute(_its_records(name, [fingerprint]))


async def recorded(connection: AsyncConnection, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the (user, fingerprint) pairs whose removal is recorded; a user's own has no fingerprint."""
    noted: set[tuple[str, str]] = set()
    for table in (removals, revoked_keys):
        for part in _parts(sorted({name for name, _ in pairs})):
            query = sa.select(table.c.user, table.c.fingerprint).where(table.c.user.in_(part))
            noted.update((row.user, row.fingerprint) for row in await connection.execute(query))
    return noted.intersection(pairs)


def _its_records(name: str, fingerprints: Collection[str]) -> sa.Delete:
    return sa.delete(removals).where(removals.c.user == name, removals.c.fingerprint.in_(fingerprints))


def _parts(items: Collection[Any]) -> list[list[Any]]:
    whole = list(items)
    return [whole[start : start + _PAIRS_PER_QUERY] for start in range(0, len(whole), _PAIRS_PER_QUERY)]
