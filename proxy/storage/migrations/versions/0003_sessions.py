"""Sessions: their proxies, connections, programs and forwards, and orders to end one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables that the previous release does not know."""
    op.create_table(
        "proxies",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("proxy_id", sa.String(32), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "connections",
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
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("end_reason", sa.String(16), nullable=False),
        sa.Column("end_detail", sa.Text, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.Column("bytes_from_client", sa.BigInteger, nullable=False),
        sa.Column("bytes_to_client", sa.BigInteger, nullable=False),
    )
    op.create_index("connections_ended_at", "connections", ["ended_at"])
    op.create_index("connections_proxy", "connections", ["proxy"])
    op.create_index("connections_user", "connections", ["user", "started_at"])
    op.create_index("connections_started_at", "connections", ["started_at"])
    op.create_table(
        "programs",
        sa.Column("id", sa.String(48), primary_key=True),
        sa.Column("connection", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("pty", sa.Boolean, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("end_reason", sa.String(16), nullable=False),
        sa.Column("end_detail", sa.Text, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.Column("exit_status", sa.Integer),
        sa.Column("exit_signal", sa.Text, nullable=False),
        sa.Column("bytes_from_client", sa.BigInteger, nullable=False),
        sa.Column("bytes_to_client", sa.BigInteger, nullable=False),
    )
    op.create_index("programs_connection", "programs", ["connection"])
    op.create_table(
        "session_kills",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("session", sa.String(48), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
