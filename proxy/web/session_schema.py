"""Tables of browser sessions as the code reads them."""

import sqlalchemy as sa

from proxy.storage.tables import UtcDateTime, metadata


def _proof() -> list[sa.Column[object]]:
    """Return columns for a proved SSH key; null and empty for a sign-in with a provider."""
    return [
        sa.Column("key", sa.LargeBinary),
        sa.Column("authority", sa.LargeBinary),
        sa.Column("serial", sa.String(20), nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
    ]


def _user() -> list[sa.Column[object]]:
    return [
        sa.Column("user", sa.String(128), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
    ]


web_keys = sa.Table(
    "web_keys",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
"""Secrets that all replicas of an installation share."""

web_sessions = sa.Table(
    "web_sessions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("digest", sa.String(64)),
    sa.Column("parent", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    *_user(),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("issuer", sa.String(512), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("sid", sa.String(255), nullable=False),
    *_proof(),
    sa.Column("client", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("code", sa.String(64)),
    sa.Column("pre", sa.String(64), nullable=False),
    sa.Column("code_expires_at", UtcDateTime),
    sa.Index("web_sessions_digest", "digest", unique=True),
    sa.Index("web_sessions_code", "code", unique=True),
    sa.Index("web_sessions_parent", "parent"),
    sa.Index("web_sessions_user", "user"),
    sa.Index("web_sessions_expires_at", "expires_at"),
)
"""Sessions of the login origin (`host` is empty), and of app origins, whose `parent` they are."""

web_links = sa.Table(
    "web_links",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    *_user(),
    *_proof(),
    sa.Column("client", sa.String(64), nullable=False),
    sa.Column("code", sa.String(16), nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Index("web_links_user", "user"),
)
"""Links of `ssh … web` that were not used yet; a link that was is gone."""
