"""Migrations of the database schema, run by one proxy at a time."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from proxy.errors.stores import DatabaseMissing, SchemaOutdated, StoreError
from proxy.storage.installation import installation

HEAD = "0008"
"""The newest migration that this release has."""

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK_KEY = 0x0FA1_21EA  # any number that no other program in the same PostgreSQL database uses


def version(connection: Connection) -> str:
    """Return the newest migration of a database, four digits.

    Empty for a database without Fairlead's tables.
    """
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
    return max(found, default="")


def require_usable(connection: Connection) -> None:
    """Check that this release can use a database as it is, without changing it.

    A database of a newer release is usable when that release marks it so: migrations only ever add, so that
    proxies of both run side by side during an upgrade.

    Raises: DatabaseMissing; StoreError that names both schemas.
    """
    found = version(connection)
    if not found:
        raise DatabaseMissing(
            "the database is empty: `fairlead database upgrade`, or a proxy that starts, makes its tables"
        )
    if found < HEAD:
        raise SchemaOutdated(
            f"the database has schema {found} and this release needs {HEAD}: start a proxy of this release, "
            "or run `fairlead database upgrade`; proxies of the older release go on with it"
        )
    if found > HEAD and not _is_usable_by_us(connection):
        raise StoreError(
            f"the database was written by a newer Fairlead (schema {found}, this one knows {HEAD}); "
            "start that release, or give this one another database"
        )


def _is_usable_by_us(connection: Connection) -> bool:
    if not sa.inspect(connection).has_table(installation.name):
        return False
    oldest = connection.execute(sa.select(installation.c.oldest_schema)).scalars().all()
    return bool(oldest) and max(oldest) <= HEAD


def upgrade(connection: Connection, *, served: str = "") -> None:
    """Run the missing migrations in the transaction of `connection`, one proxy at a time.

    On SQLite that transaction must have begun IMMEDIATE, which is the lock; on PostgreSQL the lock is
    taken here and goes with the transaction. `served` is the installation that the database is expected
    to belong to: with it, an empty database is left empty.

    Raises: DatabaseMissing for an empty database that should not be; StoreError for a database of a newer
        release.
    """
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    found = version(connection)
    if served and not found:
        raise DatabaseMissing(
            f"the database is empty, but should be that of installation {served}: restore it, or take back "
            "identity.installation and the file `installation` in FAIRLEAD_HOME to begin a new one"
        )
    if found >= HEAD:
        require_usable(connection)
        return
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
