"""A stable id of every user, which owns workspaces; a later user of the same name has another."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQLITE_ID = "lower(hex(randomblob(16)))"
_POSTGRESQL_ID = "replace(gen_random_uuid()::text, '-', '')"


def upgrade() -> None:
    """Give an id to the present users, and to those whom the previous release still adds."""
    if op.get_bind().dialect.name == "postgresql":
        # A default that is computed fills the rows that are there, each with its own.
        op.execute(f"ALTER TABLE users ADD COLUMN id VARCHAR(32) DEFAULT {_POSTGRESQL_ID}")
    else:
        # SQLite adds no column whose default is computed.
        op.add_column("users", sa.Column("id", sa.String(32)))
        op.execute(f"UPDATE users SET id = {_SQLITE_ID}")  # noqa: S608 - a constant
        op.execute(
            "CREATE TRIGGER users_id AFTER INSERT ON users WHEN NEW.id IS NULL "  # noqa: S608 - a constant
            f"BEGIN UPDATE users SET id = {_SQLITE_ID} WHERE name = NEW.name; END"
        )
    op.create_index("users_id", "users", ["id"], unique=True)
