"""Records of connections and of programs on them: plain values, as stored and as shown."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    """The purpose of a channel."""

    SHELL = "shell"
    EXEC = "exec"
    SFTP = "sftp"
    SCP = "scp"
    RSYNC = "rsync"
    GIT = "git"
    FORWARD = "forward"
    """A connection that the client asked for, from inside the workspace: `-L`, `-D`, `-W`."""
    LISTEN = "listen"
    """A listener in the workspace: `-R`."""
    FORWARDED = "forwarded"
    """A connection that came in through such a listener."""
    WEBSOCKET = "websocket"
    """A WebSocket of a browser with a web app."""
    SSH_AGENT = "ssh-agent"
    """A connection to the client's ssh-agent."""


class EndReason(StrEnum):
    """The reason of an end. The first group is clean, the others are not."""

    EXITED = "exited"
    """The program ended by itself; its status or signal is in the record."""
    CLOSED = "closed"
    """Both directions of a forward ended, or its listener was cancelled."""
    LEFT = "left"
    """The client disconnected in order, or closed the channel."""

    CANCELLED = "cancelled"
    """The user cancelled the wait for the workspace."""
    LOST = "lost"
    """The client's connection broke, or it answered no keepalive."""
    FAILED = "failed"
    """The workspace or the link to it failed, or the client broke the protocol; the detail has the reason."""
    REFUSED = "refused"
    """A rule forbade it."""

    KILLED = "killed"
    """An operator ended it; `ended_by` has the operator."""
    IDLE = "idle"
    LENGTH = "length"
    """This and `IDLE` are limits of `sessions.limits`."""
    REVOKED = "revoked"
    """The user was locked or removed or expired, or the key removed."""
    SHUTDOWN = "shutdown"
    """The proxy was shut down."""
    PROXY_LOST = "proxy_lost"
    """The proxy ended without closing its records; another one closed them as of their last update."""
    BUG = "bug"
    """A bug in Fairlead; the log has a traceback."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a connection or program."""

    reason: EndReason
    detail: str = ""
    """A sentence, or the code of an error."""
    by: str = ""
    """The user or operator who ended it: a user's name or `cli:<OS user>`; else empty."""
    exit_status: int | None = None
    exit_signal: str = ""
    """Without SIG; only for programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    id: str
    started_at: datetime
    updated_at: datetime
    """Aware UTC, as every timestamp; the counts are as of this moment."""
    ended_at: datetime | None = None
    end_reason: str = ""
    """A word of EndReason; empty while it lasts."""
    end_detail: str = ""
    ended_by: str = ""
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    """Payload of channels, without Fairlead's own text for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecord(_Record):
    """One SSH connection of a user, from login to its end; or a signed-in browser at one web app."""

    proxy: str
    """Token of the process that carried it; no other process ever has it."""
    proxy_id: str
    pid: int
    user: str
    workspace: str
    blueprint: str
    account: str
    """OS account that was asked for; empty for the blueprint's own."""
    client_address: str
    client_port: int
    client_version: str
    """The client's version text after `SSH-2.0-`."""
    client_type: str
    """Name of the client program; see `clients`."""
    fingerprint: str
    certificate: str
    """Key id of the user certificate; empty for a plain key."""
    owner: str = ""
    """Whom the workspace belongs to; empty in records of releases before 0007."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRecord(_Record):
    """One program, forward, listener or ssh-agent connection; its id begins with the connection's."""

    connection: str
    kind: str
    """A word of Kind."""
    command: str
    """As typed, cut to `sessions.command_chars`; empty for a shell, and when commands are not kept."""
    target: str
    """Target of a forward, or listening address."""
    pty: bool
    exit_status: int | None = None
    exit_signal: str = ""


@dataclass(frozen=True, slots=True)
class KillOrder:
    """An operator's order to end a session; it is kept until it is executed, and a while longer."""

    id: int
    session: str
    """Id of a connection, or of one program on it."""
    actor: str
    reason: str
    """For the user; may be empty."""
    created_at: datetime
