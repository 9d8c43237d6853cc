"""Tables of sessions: a column for every field of `records`."""

import sqlalchemy as sa

from proxy.storage.tables import UtcDateTime, metadata, row_id

proxies = sa.Table(
    "proxies",
    metadata,
    sa.Column("token", sa.String(32), primary_key=True),
    sa.Column("proxy_id", sa.String(32), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
)
"""Processes that may have live records; a process that ends in order deletes its row."""

connections = sa.Table(
    "connections",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("proxy", sa.String(32), nullable=False),
    sa.Column("proxy_id", sa.String(32), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("user", sa.String(128), nullable=False),
    sa.Column("workspace", sa.String(64), nullable=False),
    sa.Column("blueprint", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("client_address", sa.Text, nullable=False),
    sa.Column("client_port", sa.Integer, nullable=False),
    sa.Column("client_version", sa.Text, nullable=False),
    sa.Column("client_type", sa.String(32), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("certificate", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("end_reason", sa.String(16), nullable=False),
    sa.Column("end_detail", sa.Text, nullable=False),
    sa.Column("ended_by", sa.Text, nullable=False),
    sa.Column("bytes_from_client", sa.BigInteger, nullable=False),
    sa.Column("bytes_to_client", sa.BigInteger, nullable=False),
    sa.Index("connections_ended_at", "ended_at"),
    sa.Index("connections_proxy", "proxy"),
    sa.Index("connections_user", "user", "started_at"),
    sa.Index("connections_started_at", "started_at"),
)

programs = sa.Table(
    "programs",
    metadata,
    sa.Column("id", sa.String(48), primary_key=True),
    sa.Column("connection", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("pty", sa.Boolean, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("end_reason", sa.String(16), nullable=False),
    sa.Column("end_detail", sa.Text, nullable=False),
    sa.Column("ended_by", sa.Text, nullable=False),
    sa.Column("exit_status", sa.Integer),
    sa.Column("exit_signal", sa.Text, nullable=False),
    sa.Column("bytes_from_client", sa.BigInteger, nullable=False),
    sa.Column("bytes_to_client", sa.BigInteger, nullable=False),
    sa.Index("programs_connection", "connection"),
)

kills = sa.Table(
    "session_kills",
    metadata,
    sa.Column("id", row_id(), primary_key=True),
    sa.Column("session", sa.String(48), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
"""Orders that proxies read every `sessions.kill_poll_s` seconds, and at once when an event announces one."""
