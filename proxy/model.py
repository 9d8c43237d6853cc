"""Values that travel between modules: frozen, without behaviour that needs a library.

The stages of a login are types, so that a signature says how far the user has come:
Peer → LoginAttempt → Principal → Visit → (workspace) Endpoint.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import NewType

from proxy.userstring import UserString

ConnId = NewType("ConnId", str)
"""Ours, random, in every log line of one SSH connection; what a person quotes as reference."""

WorkspaceName = NewType("WorkspaceName", str)
"""A DNS label: `<user>-<10 hex>`; the same on every replica."""


# ------------------------------------------------------------------------------------ the stages


@dataclass(frozen=True, slots=True)
class Peer:
    """One TCP connection from a client."""

    conn_id: ConnId
    host: str
    port: int
    server_host: str
    server_port: int


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A peer that said who it wants to be; nothing is proved."""

    peer: Peer
    user_string: UserString


@dataclass(frozen=True, slots=True)
class User:
    """Our record of a person."""

    name: str
    full_name: str = ""
    locked: bool = False
    expires_at: datetime | None = None
    """Aware UTC; from then on nobody logs in as this user. None for never."""
    email: str = ""
    uid: int | None = None
    """Numeric OS account in workspaces; None only for a user whom an older release just added."""
    gid: int | None = None
    """Primary group; None means the same number as `uid`."""
    groups: tuple[str, ...] = ()
    """What the provider said when it was last asked, as long as that counts; empty for users whom an operator
    added."""
    known_groups: tuple[str, ...] = ()
    """The same, however long ago that was: it gives nothing."""
    provider: str = ""
    """Our name of the provider that vouches for this user; empty for users whom an operator added."""
    id: str = ""
    """Identifies this record for good: a later user of the same name has another. Workspaces belong to it."""
    created_at: datetime | None = None
    """Aware UTC: when this record was made; None for a user who is in no directory."""

    @property
    def restricting_groups(self) -> tuple[str, ...]:
        """Groups for rules that take something away: those do not end by age."""
        return tuple(dict.fromkeys((*self.groups, *self.known_groups)))


@dataclass(frozen=True, slots=True)
class KeyProof:
    """A public key whose signature was verified, not merely offered."""

    key: bytes = field(repr=False)
    """The plain public key as the wire carries it (RFC 4253 §6.6)."""

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh-keygen prints it."""
        return _fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class CertificateProof:
    """A proved key that a trusted authority certified."""

    key: bytes = field(repr=False)
    """The plain public key that the certificate certifies (RFC 4253 §6.6)."""
    authority: bytes = field(repr=False)
    """Public key that signed the certificate."""
    serial: int = 0
    key_id: str = ""

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` of the certified key, as ssh-keygen prints it."""
        return _fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class WebSession:
    """A browser session that the user signed in to."""

    id: str
    """Ours, random, no secret: the cookie holds another value."""
    proof: KeyProof | CertificateProof | None = None
    """What signed the browser in where that was an SSH key; None for a provider."""

    @property
    def fingerprint(self) -> str:
        """Of the SSH key that signed the browser in; empty for a provider."""
        return "" if self.proof is None else self.proof.fingerprint


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credential: a visitor of a public app."""

    @property
    def fingerprint(self) -> str:
        """Empty."""
        return ""


Credential = KeyProof | CertificateProof | WebSession | Anonymous


def _fingerprint(key: bytes) -> str:
    return "SHA256:" + b64encode(sha256(key).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Principal:
    """The user who asks, and what proved who that is."""

    client: Peer
    user: User
    credential: Credential

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` of the proved key; empty where none was."""
        return self.credential.fingerprint

    @property
    def certificate(self) -> str:
        """Key id of the user certificate that certified the key; empty for a key of the directory."""
        shown = self.credential
        proof = shown.proof if isinstance(shown, WebSession) else shown
        return (proof.key_id or "unnamed") if isinstance(proof, CertificateProof) else ""


VISITOR = User("")
"""The user of a principal whose credential is Anonymous."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A principal at a workspace: who asks, and whose workspace it is, are two values.

    Over SSH the owner is the user who asks. Policy, tokens and records take each from its own field.
    """

    principal: Principal
    owner: User
    """Whom the workspace belongs to."""
    address: UserString
    """Which of the owner's workspaces: the user string that was typed, or what another address means."""

    @property
    def actor(self) -> User:
        """The user who asks."""
        return self.principal.user

    @property
    def account(self) -> str:
        """The OS account that is asked for; empty for the workspace's own."""
        return self.address.account


# -------------------------------------------------------------------------------------- policy


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of a policy: allowed when `reason` is empty, else a sentence for the log and the user."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


ALLOWED = Decision()


# ------------------------------------------------------------------------------ what is asked for


@dataclass(frozen=True, slots=True)
class WindowSize:
    """A terminal's size in characters, then pixels; 0 means unknown."""

    columns: int
    rows: int
    width_px: int = 0
    height_px: int = 0


@dataclass(frozen=True, slots=True)
class Pty:
    """RFC 4254 §6.2; `modes` maps opcodes of §8 to values."""

    term: str
    window: WindowSize
    modes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shell:
    """The account's login shell."""


@dataclass(frozen=True, slots=True)
class Exec:
    """One command line for the account's shell."""

    command: str


@dataclass(frozen=True, slots=True)
class Subsystem:
    """A program known by name, such as `sftp`."""

    name: str


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """All that a session channel said before its program was asked for."""

    kind: Shell | Exec | Subsystem
    env: Mapping[str, str] = field(default_factory=dict)
    pty: Pty | None = None
    ssh_agent: str = ""
    """Id of the listener whose socket becomes SSH_AUTH_SOCK; empty for none."""
    original_command: str = ""
    """What the client asked for where its certificate forces a command; becomes SSH_ORIGINAL_COMMAND."""
    user_rc: bool = False
    """Whether the client's key or certificate (`permit-user-rc`) permits that `~/.ssh/rc` is run first."""


@dataclass(frozen=True, slots=True)
class TcpTarget:
    """A host and port as seen from the workspace."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixTarget:
    """A socket path in the workspace."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class SshAgentBind:
    """A socket for ssh-agent clients, in the runtime directory of the workspace, by file name."""

    file_name: str

    def __str__(self) -> str:
        return self.file_name


@dataclass(frozen=True, slots=True)
class Reserved:
    """What is the proxy's own on a machine that it shares with workspaces; no forward leads there."""

    ports: frozenset[int] = frozenset()
    directories: tuple[str, ...] = ()
    """Absolute paths; what is below them is meant too, but for the home of the workspace."""


Target = TcpTarget | UnixTarget
Bind = TcpTarget | UnixTarget | SshAgentBind


# --------------------------------------------------------------------------------- how it ends


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """A program ended by itself, 0 to 255."""

    status: int


@dataclass(frozen=True, slots=True)
class ExitSignal:
    """A program was ended by a signal; `name` without SIG (RFC 4254 §6.10)."""

    name: str
    core_dumped: bool = False


Exit = ExitStatus | ExitSignal


# ------------------------------------------------------------------------------------ workspaces


class Phase(Enum):
    """Where a workspace is on its way, in the words the person reads."""

    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing worth telling somebody who waits for a workspace."""

    phase: Phase
    text: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a workspace's shelld listens, and what proves that a caller may talk to it."""

    workspace: WorkspaceName
    address: str
    """A gRPC target: `unix:///path` or `ipv4:10.0.0.7:2822`."""
    generation: str
    """Changes whenever another shelld process answers there; links of an older one are dead."""
    server_name: str = ""
    """Name in the server's certificate. Empty for a Unix socket of this machine, which needs neither
    certificate nor token: only our own account can open it."""
    user: str = ""
    """Whom the workspace belongs to: the subject of tokens for it."""


@dataclass(frozen=True, slots=True, eq=False)
class TlsMaterial:
    """What a proxy makes a mutual TLS connection with, PEM; told from others by identity."""

    roots: bytes
    """Who may vouch for workspaces."""
    certificate: bytes
    """The proxy's own, and what else the workspace needs to follow it to a root."""
    key: bytes
