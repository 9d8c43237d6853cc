"""What the tables of every module have in common.

The migrations are the truth; the tables that modules declare here mirror their sum (tested).
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData()
"""Every table of the database, whichever module declares it."""


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in and out; SQLite itself forgets the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a timestamp without a zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def row_id() -> sa.types.TypeEngine[int]:
    """Give the type of a number that the database counts up; SQLite does so only for its INTEGER."""
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")
