"""Shares of apps that owners changed."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table that the release before this one does not know of, and the counter of its changes."""
    op.create_table(
        "web_shares",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
        ),
        sa.Column("owner", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
        sa.Column("owner_id", sa.String(32), nullable=False),
        sa.Column("blueprint", sa.String(64), nullable=False),
        sa.Column("app", sa.String(32), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("guests", sa.JSON, nullable=False),
        sa.Column("guest_groups", sa.JSON, nullable=False),
        sa.Column("replaces", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(128), nullable=False),
        sa.UniqueConstraint("owner", "blueprint", "app", name="web_shares_app"),
    )
    op.create_index("web_shares_revision", "web_shares", ["revision"], unique=True)
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("next", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "web_shares", "next": 1}])
