"""Values that travel between modules: frozen, without behaviour that needs a library.

The stages of a login are types, so that a signature shows how far the user has come:
Peer → LoginAttempt → Principal → Visit → (workspace) Endpoint.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Literal, NewType

from proxy.octets import shown
from proxy.userstring import UserString

ConnId = NewType("ConnId", str)
"""Random, in every log line of one SSH connection; the reference that users quote."""

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
    """A peer with the user it asks for; nothing is proved."""

    peer: Peer
    user_string: UserString


@dataclass(frozen=True, slots=True)
class User:
    """Fairlead's record of a user."""

    name: str
    full_name: str = ""
    locked: bool = False
    expires_at: datetime | None = None
    """Aware UTC; from then on logins of this user are refused. None for never."""
    email: str = ""
    uid: int | None = None
    """Numeric OS account in workspaces; None only for a user whom an older release just added."""
    gid: int | None = None
    """Primary group; None means the same number as `uid`."""
    groups: tuple[str, ...] = ()
    """The groups in effect, of the provider's last answer; empty for users whom an operator added."""
    known_groups: tuple[str, ...] = ()
    """The groups of the provider's last answer, however old; they give no rights."""
    provider: str = ""
    """The name in the settings of the provider that vouches for this user.

    Empty for users whom an operator added.
    """
    id: str = ""
    """Identifies this record for good: a later user of the same name has another. Workspaces belong to it."""
    created_at: datetime | None = None
    """Aware UTC: when this record was made; None for a user outside the directory."""

    @property
    def restricting_groups(self) -> tuple[str, ...]:
        """Return the groups for rules that restrict: age does not end those."""
        return tuple(dict.fromkeys((*self.groups, *self.known_groups)))


@dataclass(frozen=True, slots=True)
class KeyProof:
    """A public key whose signature was verified, not merely offered."""

    key: bytes = field(repr=False)
    """The plain public key as the wire carries it (RFC 4253 §6.6)."""

    @property
    def fingerprint(self) -> str:
        """Return `SHA256:…`, as ssh-keygen prints it."""
        return fingerprint(self.key)


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
        """Return `SHA256:…` of the certified key, as ssh-keygen prints it."""
        return fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class WebSession:
    """A browser session that the user signed in to."""

    id: str
    """Random, and no secret: the cookie holds another value."""
    proof: KeyProof | CertificateProof | None = None
    """The SSH key with which the user signed in; None for a sign-in at a provider."""

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the SSH key that signed in; empty for a provider."""
        return "" if self.proof is None else self.proof.fingerprint


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credential: a visitor of a public app."""

    @property
    def fingerprint(self) -> str:
        """Return "": there is no key."""
        return ""


Credential = KeyProof | CertificateProof | WebSession | Anonymous


def fingerprint(key: bytes) -> str:
    """Return `SHA256:` and unpadded base64 of a public key, as ssh-keygen prints it."""
    return "SHA256:" + b64encode(sha256(key).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Principal:
    """The user who asks, with the proof of identity."""

    client: Peer
    user: User
    credential: Credential

    @property
    def fingerprint(self) -> str:
        """Return `SHA256:…` of the proved key; empty without one."""
        return self.credential.fingerprint

    @property
    def certificate(self) -> str:
        """Return the key id of the user certificate that certified the key, also that of a browser session.

        Empty for a key of the directory.
        """
        shown = self.credential
        proof = shown.proof if isinstance(shown, WebSession) else shown
        return (proof.key_id or "unnamed") if isinstance(proof, CertificateProof) else ""


VISITOR = User("")
"""The user of a principal whose credential is Anonymous."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A principal at a workspace: the user who asks, and the owner of the workspace, are two values.

    Over SSH the owner is the user who asks. Policy, tokens and records take each from its own field.
    """

    principal: Principal
    owner: User
    """The user to whom the workspace belongs."""
    address: UserString
    """One of the owner's workspaces: the user string that was typed, or the equivalent of another address."""

    @property
    def actor(self) -> User:
        """Return the user who asks."""
        return self.principal.user

    @property
    def account(self) -> str:
        """Return the requested OS account; empty for the workspace's own."""
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
    """A text of `octets.text_of`: it may hold bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Subsystem:
    """A program known by name, such as `sftp`."""

    name: str


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """The parameters of a session channel, as set before its program was requested."""

    kind: Shell | Exec | Subsystem
    env: Mapping[str, str] = field(default_factory=dict)
    """Names are UTF-8; values are as `octets.text_of` makes them."""
    pty: Pty | None = None
    ssh_agent: str = ""
    """Id of the listener whose socket becomes SSH_AUTH_SOCK; empty for none."""
    original_command: str = ""
    """The client's command where its certificate forces another; becomes SSH_ORIGINAL_COMMAND."""
    user_rc: bool = False
    """Whether the client's key or certificate (`permit-user-rc`) permits to run `~/.ssh/rc` first."""


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
    """A text of `octets.text_of`: it may hold bytes that are not UTF-8."""

    def __str__(self) -> str:
        return shown(self.path)


@dataclass(frozen=True, slots=True)
class AppTarget:
    """An app that shelld starts, by its slug: the listener of its present process."""

    slug: str
    account: str = ""
    """OS account of the app; empty for the workspace's own."""

    def __str__(self) -> str:
        return f"app {self.slug}"


@dataclass(frozen=True, slots=True)
class SshAgentBind:
    """A socket for ssh-agent clients, in the runtime directory of the workspace, by file name."""

    file_name: str

    def __str__(self) -> str:
        return self.file_name


@dataclass(frozen=True, slots=True)
class Reserved:
    """The proxy's own addresses on a machine that it shares with workspaces; no forward may reach them."""

    ports: frozenset[int] = frozenset()
    directories: tuple[str, ...] = ()
    """Absolute paths, with everything below them except the home of the workspace."""


Target = TcpTarget | UnixTarget | AppTarget
Bind = TcpTarget | UnixTarget | SshAgentBind


# --------------------------------------------------------------------------------- how it ends


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """The end of a program that exited by itself, with status 0 to 255."""

    status: int


@dataclass(frozen=True, slots=True)
class ExitSignal:
    """The end of a program by a signal; `name` without SIG (RFC 4254 §6.10)."""

    name: str
    core_dumped: bool = False


Exit = ExitStatus | ExitSignal


# ------------------------------------------------------------------------------------------ apps


@dataclass(frozen=True, slots=True)
class AppSpec:
    """The description of an app for shelld, which starts it."""

    slug: str
    start: str
    """A command line for /bin/sh."""
    env: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    workdir: str = ""
    """Absolute, or `~/...`; empty: the home."""
    port: int | None = None
    """Of a loopback address; 0: a free one; None: the app listens on a socket."""
    socket: str = ""
    """Without a port: an absolute path; empty: one of shelld's choice."""
    restart: Literal["on-failure", "always", "no"] = "on-failure"
    ready_path: str = ""
    """GET of it has to be answered with a status below 500; empty: a connect suffices."""
    within_s: float = 60
    """Seconds from a start to readiness, above 0."""

    @property
    def digest(self) -> str:
        """Return a short hash of all fields: equal for equal descriptions on every replica."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class AppPhase(Enum):
    """The phases of an app, in the words that users read."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "restarting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AppState:
    """The state of an app, as its workspace reports it."""

    slug: str
    phase: AppPhase
    reason: str = ""
    """A sentence for the user; empty where the phase says everything."""
    exit: "Exit | None" = None
    """The end of the last process; None while none has ended."""
    restarts: int = 0
    since_s: float = 0
    """Seconds in this phase."""
    port: int = 0
    """0: the app listens on `socket`, or not yet."""
    socket: str = ""
    pid: int = 0
    log_lines: tuple[str, ...] = ()
    """The last lines of the log, at most 20, printable."""
    digest: str = ""
    """Of the description with which it was started."""
    stopped: bool = False
    """Whether a user stopped it; then no request starts it."""


# ------------------------------------------------------------------------------------ workspaces


class Phase(Enum):
    """The progress of a workspace, in the words that users read."""

    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a start that is shown to waiting users."""

    phase: Phase
    text: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a workspace's shelld, and the names that authentication there uses."""

    workspace: WorkspaceName
    address: str
    """A gRPC target: `unix:///path` or `ipv4:10.0.0.7:2822`."""
    generation: str
    """Changes when another shelld process answers there; links of an older one are dead."""
    server_name: str = ""
    """Name in the server's certificate. Empty for a Unix socket of this machine, which needs neither
    certificate nor token: only the proxy's own account can open it.
    """
    user: str = ""
    """The owner of the workspace: the subject of tokens for it."""


@dataclass(frozen=True, slots=True, eq=False)
class TlsMaterial:
    """PEM credentials for mutual TLS. Compared by object identity."""

    roots: bytes
    """Certificates of the authorities that may vouch for workspaces."""
    certificate: bytes
    """The proxy's certificate, with the intermediate ones that lead to a root."""
    key: bytes
