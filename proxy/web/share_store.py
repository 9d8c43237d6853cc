"""Shares of owners in SQL: changed in one transaction, and read by the changes since a revision."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.blueprints.sharing import OWNER_ONLY, Guest, Share
from proxy.identity.schema import counters
from proxy.model import User
from proxy.storage.database import Database
from proxy.web.share_schema import web_shares

PAGE = 1_000
"""Records that one query reads."""
_COUNTER = counters.c.name == "web_shares"


@dataclass(frozen=True, slots=True)
class AppOf:
    """One app of the workspace that a user has by a blueprint."""

    owner: str
    blueprint: str
    app: str


@dataclass(frozen=True, slots=True)
class OwnShare:
    """The share that an owner gives."""

    share: Share = OWNER_ONLY
    """Only level, guests and guest_groups are used."""
    replaces: bool = False
    """Whether it stands in the place of the blueprint's share; else it adds to that."""


NOTHING_OWN = OwnShare()


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """The share that an owner gave to one app."""

    place: AppOf
    owner_id: str
    """A later user of the same name has another id, and did not give this share."""
    own: OwnShare = field(default_factory=OwnShare)
    revision: int = 0
    """Number of the change, counted over all records; later changes have greater ones."""


class ShareStore:
    """The store; every method raises StoreError when the database does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._reading = database.reading
        self._writing = database.writing

    async def revision(self) -> int:
        """Return the number of the last change; 0 before the first."""
        async with self._reading() as connection:
            return (
                int((await connection.execute(sa.select(counters.c.next).where(_COUNTER))).scalar_one()) - 1
            )

    async def since(self, revision: int) -> list[ShareRecord]:
        """Return up to PAGE records with a greater revision, in order of their revisions."""
        query = sa.select(web_shares).where(web_shares.c.revision > revision)
        async with self._reading() as connection:
            rows = await connection.execute(query.order_by(web_shares.c.revision).limit(PAGE))
            return [_record(row) for row in rows.mappings()]

    async def change(
        self, owner: User, blueprint: str, app: str, edit: Callable[[OwnShare], OwnShare], by: str
    ) -> tuple[OwnShare, ShareRecord]:
        """Edit the share of one app; return it before the change, and the record after it.

        `edit` gets the present share, and may raise: then nothing changes.
        """
        place = AppOf(owner.name, blueprint, app)
        async with self._writing() as connection:
            revision = await _next_revision(connection)
            before = await _find(connection, place)
            # The row of an owner who was removed since belongs to the user of that name who is there now.
            known = before.own if before is not None and before.owner_id == owner.id else NOTHING_OWN
            record = ShareRecord(place, owner.id, edit(known), revision)
            values = _values(record) | {"changed_at": datetime.now(UTC), "changed_by": by[:128]}
            if before is None:
                await connection.execute(sa.insert(web_shares).values(values))
            else:
                await connection.execute(sa.update(web_shares).where(_is(place)).values(values))
        return known, record


async def _next_revision(connection: AsyncConnection) -> int:
    """Take the next revision. Its row stays locked, so that changes are visible in order."""
    await connection.execute(sa.update(counters).where(_COUNTER).values(next=counters.c.next + 1))
    return int((await connection.execute(sa.select(counters.c.next).where(_COUNTER))).scalar_one()) - 1


async def _find(connection: AsyncConnection, place: AppOf) -> ShareRecord | None:
    row = (await connection.execute(sa.select(web_shares).where(_is(place)))).mappings().first()
    return None if row is None else _record(row)


def _is(place: AppOf) -> sa.ColumnElement[bool]:
    return sa.and_(
        web_shares.c.owner == place.owner,
        web_shares.c.blueprint == place.blueprint,
        web_shares.c.app == place.app,
    )


def _values(record: ShareRecord) -> dict[str, object]:
    share = record.own.share
    return {
        "owner": record.place.owner,
        "owner_id": record.owner_id,
        "blueprint": record.place.blueprint,
        "app": record.place.app,
        "level": share.level,
        "guests": [{"name": guest.name, "id": guest.id} for guest in share.guests],
        "guest_groups": list(share.guest_groups),
        "replaces": record.own.replaces,
        "revision": record.revision,
    }


def _record(row: sa.RowMapping) -> ShareRecord:
    share = Share(
        row["level"],
        guests=tuple(Guest(one["name"], one["id"]) for one in row["guests"]),
        guest_groups=tuple(row["guest_groups"]),
    )
    place = AppOf(row["owner"], row["blueprint"], row["app"])
    return ShareRecord(place, row["owner_id"], OwnShare(share, row["replaces"]), row["revision"])
