"""Tables of the identity store."""

import sqlalchemy as sa

from proxy.storage.tables import UtcDateTime, metadata, row_id

MAX_ISSUER = 512
MAX_SUBJECT = 255
"""OpenID Connect Core §2: 255 ASCII characters at most."""

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
    # Nullable for the previous release; the database itself gives an id to a row without one.
    sa.Column("id", sa.String(32)),
    sa.Index("users_id", "id", unique=True),
    sa.Column("groups_at", UtcDateTime),
    sa.Column("provider_failed_at", UtcDateTime),
    sa.Column("account_ended_at", UtcDateTime),
    sa.Index("users_subject", "issuer", "subject", unique=True),
    sa.Index("users_uid", "uid", unique=True),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", row_id(), primary_key=True),
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

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("kept_at", UtcDateTime, nullable=False),
    sa.Column("lease", sa.String(32)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("in_doubt", sa.Boolean, nullable=False),
)
"""Encrypted refresh tokens; a lease lets one replica at a time use one."""

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
"""Keys that an operator removed from a user while a provider may still list them."""

removals = sa.Table(
    "removals",
    metadata,
    sa.Column("user", sa.String(128), primary_key=True),
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("removed_at", UtcDateTime, nullable=False),
    sa.Index("removals_removed_at", "removed_at"),
)
"""Users (with an empty fingerprint) and keys that were removed on purpose. There is no foreign key to the
user, whose row is deleted.
"""

onboardings = sa.Table(
    "onboardings",
    metadata,
    sa.Column("id", row_id(), primary_key=True),
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
