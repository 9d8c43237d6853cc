"""Table of the shares that owners of workspaces changed, as the code reads it."""

import sqlalchemy as sa

from proxy.storage.tables import UtcDateTime, metadata, row_id

web_shares = sa.Table(
    "web_shares",
    metadata,
    sa.Column("id", row_id(), primary_key=True),
    sa.Column("owner", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    sa.Column("owner_id", sa.String(32), nullable=False),
    sa.Column("blueprint", sa.String(64), nullable=False),
    sa.Column("app", sa.String(32), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("guests", sa.JSON, nullable=False),
    sa.Column("guest_groups", sa.JSON, nullable=False),
    sa.Column("replaces", sa.Boolean, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("changed_at", UtcDateTime, nullable=False),
    sa.Column("changed_by", sa.String(128), nullable=False),
    sa.UniqueConstraint("owner", "blueprint", "app", name="web_shares_app"),
    sa.Index("web_shares_revision", "revision", unique=True),
)
"""One row for each app whose share was ever changed. A row is emptied and not deleted, so that replicas find
every change by its revision; the rows of a removed user go with the user.
"""
