"""Tables of the identity store as the code reads them, and how an old database becomes a new one.

The migrations are the truth; what stands here mirrors their sum (tested).
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeDecorator

from proxy.errors import StoreError

HEAD = "0002"
"""The newest migration that this release knows."""

MAX_ISSUER = 512
MAX_SUBJECT = 255
"""OpenID Connect Core §2: 255 ASCII characters at most."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_KEY = 0x0FA1_21EA  # any number that no other program in the same PostgreSQL database uses


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


metadata = sa.MetaData()

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("full_name", sa.Text, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("locked", sa.Boolean, nullable=False),
    sa.Column("uid", sa.BigInteger),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("issuer", sa.String(MAX_ISSUER)),
    sa.Column("subject", sa.String(MAX_SUBJECT)),
    sa.Column("login", sa.Text, nullable=False),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("gid", sa.BigInteger),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("refreshed_at", UtcDateTime),
    sa.Index("users_subject", "issuer", "subject", unique=True),
    sa.Index("users_uid", "uid", unique=True),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("algorithm", sa.String(64), nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("origin", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_used_at", UtcDateTime),
    sa.UniqueConstraint("user", "fingerprint", name="keys_user_fingerprint"),
    sa.Index("keys_fingerprint", "fingerprint"),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("next", sa.BigInteger, nullable=False),
)

revoked_keys = sa.Table(
    "revoked_keys",
    metadata,
    sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
"""Keys that an operator took from a user while a provider may still list them."""

onboardings = sa.Table(
    "onboardings",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("issuer", sa.String(MAX_ISSUER), nullable=False),
    sa.Column("subject", sa.String(MAX_SUBJECT), nullable=False),
    sa.Column("login", sa.Text, nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("full_name", sa.Text, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("groups", sa.JSON, nullable=False),
    sa.Column("uid", sa.BigInteger),
    sa.Column("algorithm", sa.String(64), nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("source_address", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", UtcDateTime),
    sa.UniqueConstraint("issuer", "subject", name="onboardings_subject"),
)


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
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if strange := set(MigrationContext.configure(connection).get_current_heads()) - known:
        raise StoreError(
            f"the identity database was written by a newer Fairlead (schema {', '.join(sorted(strange))}, "
            f"this one knows {HEAD}); start that release, or give this one another database"
        )
    command.upgrade(config, "head")
