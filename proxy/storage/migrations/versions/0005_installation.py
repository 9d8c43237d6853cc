"""The installation that a database belongs to, and records of removals from its directory."""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables that the previous release does not know."""
    op.create_table(
        "removals",
        sa.Column("user", sa.String(128), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("removals_removed_at", "removals", ["removed_at"])
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("users", sa.BigInteger, nullable=False),
        sa.Column("keys", sa.BigInteger, nullable=False),
        sa.Column("oldest_schema", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    counts = {
        name: op.get_bind().execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
        for name in ("users", "keys")
    }
    facts = {"id": str(uuid.uuid4()), "oldest_schema": revision, "created_at": datetime.now(UTC)}
    op.bulk_insert(installation, [facts | counts])
