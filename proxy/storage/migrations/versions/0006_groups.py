"""Age of groups, and the encrypted grants that refresh them."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and a table that the previous release does not read; its inserts still work."""
    for name in ("groups_at", "provider_failed_at", "account_ended_at"):
        op.add_column("users", sa.Column(name, sa.DateTime(timezone=True)))
    # Groups that are there count as read now: an upgrade ends nothing that was given before.
    users = sa.table("users", sa.column("issuer"), sa.column("groups_at", sa.DateTime(timezone=True)))
    op.execute(sa.update(users).where(users.c.issuer.is_not(None)).values(groups_at=datetime.now(UTC)))
    op.create_table(
        "grants",
        sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("kept_at", sa.DateTime(timezone=True), nullable=False),
        # One replica at a time uses a grant, because a provider that rotates it takes a second use for theft.
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("in_doubt", sa.Boolean, nullable=False, server_default=sa.false()),
    )
