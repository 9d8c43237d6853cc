"""How an old database becomes a new one, one proxy at a time."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from proxy.errors.stores import StoreError

HEAD = "0006"
"""The newest migration that this release knows."""

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK_KEY = 0x0FA1_21EA  # any number that no other program in the same PostgreSQL database uses


def is_current(connection: Connection) -> bool:
    """Tell whether nothing is to be done; cheap, so that a start need not load Alembic."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]


def upgrade(connection: Connection) -> None:
    """Run the missing migrations in the transaction of `connection`, one proxy at a time.

    On SQLite that transaction must have begun IMMEDIATE, which is the lock; on PostgreSQL the lock is
    taken here and goes with the transaction.

    Raises: StoreError for a database of a newer release.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if strange := set(MigrationContext.configure(connection).get_current_heads()) - known:
        raise StoreError(
            f"the database was written by a newer Fairlead (schema {', '.join(sorted(strange))}, "
            f"this one knows {HEAD}); start that release, or give this one another database"
        )
    command.upgrade(config, "head")
