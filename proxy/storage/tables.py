"""Common parts of the tables of every module.

The migrations define the schema; the tables that modules declare here mirror their sum (tested).
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData()
"""Every table of the database, whichever module declares it."""


class UtcDateTime(TypeDecorator[datetime]):
    """A column of aware UTC timestamps; SQLite itself drops the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware timestamp to UTC. Raises: ValueError for a naive one."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a timestamp without a zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return an aware UTC timestamp; a naive one of SQLite is UTC already."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def row_id() -> sa.types.TypeEngine[int]:
    """Return the type of a number that the database increments; SQLite does so only for its INTEGER."""
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")
