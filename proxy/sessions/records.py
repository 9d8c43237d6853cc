"""What is kept of a connection and of all that happened on it: plain values, as stored and as shown."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    """What a channel was for."""

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
    """Why something ended. The first group is clean, the others are not."""

    EXITED = "exited"
    """The program ended by itself; its status or signal is beside this."""
    CLOSED = "closed"
    """Both directions of a forward ended, or its listener was cancelled."""
    LEFT = "left"
    """The client said goodbye, or closed the channel."""

    CANCELLED = "cancelled"
    """The person gave up waiting for the workspace."""
    LOST = "lost"
    """The client was gone without a word, or answered no keepalive."""
    FAILED = "failed"
    """The workspace or the link to it failed, or the client broke the protocol; the detail says how."""
    REFUSED = "refused"
    """A rule forbade it."""

    KILLED = "killed"
    """An operator ended it; `ended_by` says who."""
    IDLE = "idle"
    LENGTH = "length"
    """These two are limits of `sessions.limits`."""
    REVOKED = "revoked"
    """The user was locked or removed or expired, or the key removed."""
    SHUTDOWN = "shutdown"
    """The proxy was told to end."""
    PROXY_LOST = "proxy_lost"
    """The proxy ended without a word; somebody else closed its records at their last update."""
    BUG = "bug"
    """Something here is wrong; the log has a traceback."""


@dataclass(frozen=True, slots=True)
class End:
    """How something ended."""

    reason: EndReason
    detail: str = ""
    """A sentence, or the code of an error."""
    by: str = ""
    """Who ended it: `cli:<OS user>`; empty when nobody did."""
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
    """Payload of channels; what Fairlead itself says to the person is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecord(_Record):
    """One SSH connection of a user, from login to its end; or a signed-in browser at one web app."""

    proxy: str
    """Which process carried it: its token, which no other process ever has."""
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
    """What the client said after `SSH-2.0-`."""
    client_type: str
    """What that is, in words: see `clients`."""
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
    """As typed, cut to `sessions.command_chars`; empty for a shell and where it is not kept."""
    target: str
    """Where a forward goes, or what is listened on."""
    pty: bool
    exit_status: int | None = None
    exit_signal: str = ""


@dataclass(frozen=True, slots=True)
class KillOrder:
    """An operator's word that a session has to end; kept until it has, and a while longer."""

    id: int
    session: str
    """Of a connection, or of one program on it."""
    actor: str
    reason: str
    """For the person; may be empty."""
    created_at: datetime
