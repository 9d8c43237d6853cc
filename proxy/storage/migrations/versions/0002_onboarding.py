"""Users that a provider vouches for, unique uids, revoked keys, and the waiting list."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_EMPTY_LIST = sa.text("'[]'")


def upgrade() -> None:
    """Add columns and tables that the previous release does not read; its inserts still work."""
    for column in (
        sa.Column("source", sa.String(64), nullable=False, server_default="static"),
        sa.Column("issuer", sa.String(512)),
        sa.Column("subject", sa.String(255)),
        sa.Column("login", sa.Text, nullable=False, server_default=""),
        sa.Column("groups", sa.JSON, nullable=False, server_default=_EMPTY_LIST),
        sa.Column("gid", sa.BigInteger),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("refreshed_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("users", column)
    op.create_index("users_subject", "users", ["issuer", "subject"], unique=True)
    # Nothing kept two users from having one uid before; the first by name keeps it, `store` gives others.
    users = sa.table("users", sa.column("name"), sa.column("uid"))
    first = users.alias("first")
    is_taken = sa.exists().where(first.c.uid == users.c.uid, first.c.name < users.c.name)
    op.execute(sa.update(users).where(users.c.uid.is_not(None), is_taken).values(uid=None))
    op.create_index("users_uid", "users", ["uid"], unique=True)
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("next", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO counters (name, next) VALUES ('uid', 0)")
    op.create_table(
        "revoked_keys",
        sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "onboardings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(512), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
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
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False, server_default=""),
        sa.Column("decided_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("issuer", "subject", name="onboardings_subject"),
    )
