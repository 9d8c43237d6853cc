"""Sessions of browsers, one-use links that begin them, the key of their values, and owners of records."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables that the release before this one does not know of."""
    op.create_table(
        "web_keys",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "web_sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        # Digest of the cookie's value; none before the code of an app's session was redeemed.
        sa.Column("digest", sa.String(64)),
        sa.Column("parent", sa.String(32), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(512), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("sid", sa.String(255), nullable=False),
        *_proof(),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.String(64)),
        sa.Column("pre", sa.String(64), nullable=False),
        sa.Column("code_expires_at", sa.DateTime(timezone=True)),
    )
    for column in ("digest", "code"):
        op.create_index(f"web_sessions_{column}", "web_sessions", [column], unique=True)
    for column in ("parent", "user", "expires_at"):
        op.create_index(f"web_sessions_{column}", "web_sessions", [column])
    op.create_table(
        "web_links",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        *_proof(),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("code", sa.String(16), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("web_links_user", "web_links", ["user"])
    # The release before this one goes on writing records, without it.
    op.add_column("connections", sa.Column("owner", sa.String(128), nullable=False, server_default=""))


def _proof() -> list[sa.Column[object]]:
    """Give the columns of an SSH key that was proved; empty for a provider."""
    return [
        sa.Column("key", sa.LargeBinary),
        sa.Column("authority", sa.LargeBinary),
        sa.Column("serial", sa.String(20), nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
    ]
