"""Grants in the database: encrypted tokens that refresh an account, used by one replica at a time.

    claim ── the lease is held ── replace (rotated) · release (still good) · drop (no longer good)
      └── NONE or IN_USE

A provider that rotates refresh tokens takes a second use of one for theft and ends them all (RFC 9700
§4.14.2). A lease therefore outlives the longest use. After a crash or a lost answer, `in_doubt` records that
the token may be spent: then its refusal proves nothing about the account.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.identity.registration import has_user
from proxy.identity.schema import grants
from proxy.storage.database import Database


class Unclaimed(Enum):
    """The reasons for a missing claim."""

    NONE = "none"
    IN_USE = "in use"
    """Another task or replica uses it, until its lease ends."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A grant reserved for one task of one replica until it is released, or its lease has ended."""

    user: str
    lease: str
    sealed: bytes = field(repr=False)
    expires_at: datetime | None
    in_doubt: bool
    """An earlier use has not ended with an answer."""


class Grants(Protocol):
    """Grants by user. Raises: StoreError from every method."""

    async def keep(self, user: str, sealed: bytes, expires_at: datetime | None) -> None:
        """Store a new grant in place of any other; do nothing when there is no such user."""

    async def claim(self, user: str, lease_s: float) -> Claim | Unclaimed:
        """Claim the grant of a user for `lease_s` seconds; from then on it is in doubt."""

    async def replace(self, claim: Claim, sealed: bytes, expires_at: datetime | None) -> None:
        """Store the provider's replacement of the claimed grant; the claim continues."""

    async def release(self, claim: Claim, *, in_doubt: bool) -> None:
        """Release a claim."""

    async def drop(self, claim: Claim) -> bool:
        """Delete a useless grant; return False when another has replaced it meanwhile."""


class SqlGrants:
    """Grants in the database of the directory."""

    def __init__(self, database: Database) -> None:
        self._writing = database.writing

    async def keep(self, user: str, sealed: bytes, expires_at: datetime | None) -> None:
        """See Grants."""
        row = {**_fresh(sealed, expires_at), "lease": None, "lease_until": None}
        async with self._writing() as connection:
            if await _update(connection, row, grants.c.user == user) or not await has_user(connection, user):
                return
            await connection.execute(sa.insert(grants).values(row | {"user": user}))

    async def claim(self, user: str, lease_s: float) -> Claim | Unclaimed:
        """See Grants."""
        now, lease = datetime.now(UTC), secrets.token_hex(16)
        is_free = sa.or_(grants.c.lease.is_(None), grants.c.lease_until < now)
        taken = {"lease": lease, "lease_until": now + timedelta(seconds=lease_s)}
        async with self._writing() as connection:
            is_ours = await _update(connection, taken, grants.c.user == user, is_free)
            found = await connection.execute(sa.select(grants).where(grants.c.user == user))
            row = found.mappings().first()
            if row is None:
                return Unclaimed.NONE
            if not is_ours:
                return Unclaimed.IN_USE
            await _update(connection, {"in_doubt": True}, grants.c.lease == lease)
        return Claim(user, lease, row["sealed"], row["expires_at"], row["in_doubt"])

    async def replace(self, claim: Claim, sealed: bytes, expires_at: datetime | None) -> None:
        """See Grants."""
        async with self._writing() as connection:
            await _update(connection, _fresh(sealed, expires_at), _is(claim))

    async def release(self, claim: Claim, *, in_doubt: bool) -> None:
        """See Grants."""
        free = {"lease": None, "lease_until": None, "in_doubt": in_doubt}
        async with self._writing() as connection:
            await _update(connection, free, _is(claim))

    async def drop(self, claim: Claim) -> bool:
        """See Grants."""
        async with self._writing() as connection:
            return (await connection.execute(sa.delete(grants).where(_is(claim)))).rowcount > 0


def _fresh(sealed: bytes, expires_at: datetime | None) -> dict[str, Any]:
    return {"sealed": sealed, "expires_at": expires_at, "kept_at": datetime.now(UTC), "in_doubt": False}


def _is(claim: Claim) -> sa.ColumnElement[bool]:
    """Return the condition that the grant is still under this claim and not under a newer one."""
    return sa.and_(grants.c.user == claim.user, grants.c.lease == claim.lease)


async def _update(
    connection: AsyncConnection, values: dict[str, Any], *conditions: sa.ColumnElement[bool]
) -> bool:
    changed = await connection.execute(sa.update(grants).where(*conditions).values(values))
    return changed.rowcount > 0
