"""Events as values; `cloudevents` encodes them. docs/events.md describes them for consumers.

No field holds a password, a user code, a device code, a token or a private key, and none holds free text
about a failure: reasons are words of a fixed shape. Values that a client chose (the typed name, its version)
are bounded and made printable. A new event needs a class here and a row in `subjects`.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID


def new_id() -> str:
    """Return a new UUID version 7 (RFC 9562): unique everywhere, sorted by millisecond."""
    milliseconds = int(datetime.now(UTC).timestamp() * 1_000)
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(UUID(int=value))


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event about a user; `id` and `time` are set on construction."""

    id: str = field(default_factory=new_id)
    time: datetime = field(default_factory=_now)
    """Aware UTC."""
    user: str = ""
    """The user's name; empty when none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ConnectionEvent(Event):
    """Fields of the SSH connection that an event concerns."""

    client_address: str = ""
    """IPv4 or IPv6, no brackets: the client's own, from the PROXY header where there is one."""
    client_port: int = 0
    client_version: str = ""
    """The client's version after `SSH-2.0-`."""
    connection_id: str = ""
    """Random; the reference that users quote, and part of every log line of the connection."""


# ------------------------------------------------------------------------------------------ logins


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFailed(_ConnectionEvent):
    """A connection that ended without a login; one event a connection, for any number of offered keys.

    `user` is as typed, known or not: the bare name when the user string could be parsed, else the whole
    string.
    """

    methods: tuple[str, ...] = ()
    """SSH names: `publickey`, `keyboard-interactive`, …; empty when none was tried."""
    reasons: tuple[str, ...] = ()
    """Words such as `key_unknown`, or the `code` of an error; in order of time."""
    fingerprints: tuple[str, ...] = ()
    """`SHA256:…` of the keys offered, proved or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSucceeded(_ConnectionEvent):
    """A login that succeeded."""

    methods: tuple[str, ...] = ()
    """The methods that were needed, in order."""
    fingerprint: str = ""
    """Fingerprint of the proved key, or of the key that a certificate certifies."""
    certificate: str = ""
    """Key id of the user certificate; empty for a plain key."""


# -------------------------------------------------------------------------------------- onboarding


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnboardingEvent(_ConnectionEvent):
    provider: str = ""
    """The provider's name in the configuration."""
    fingerprint: str = ""
    """Fingerprint of the candidate: the key that was proved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingStarted(_OnboardingEvent):
    """A code that was shown to an unknown user; `user` is as typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarded(_OnboardingEvent):
    """A user who was added after the provider vouched and the key was confirmed."""

    account: str = ""
    """The account's name at the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingRefusedEvent(_OnboardingEvent):
    """An onboarding that ended without a user."""

    account: str = ""
    """The account's name, as far as the provider gave it before the refusal."""
    reasons: tuple[str, ...] = ()
    """`denied`, `expired`, `account_mismatch`, `key_not_listed`, `rule`, `provider_down`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitlistedEvent(_OnboardingEvent):
    """An onboarding that a rule leaves to an operator."""

    account: str = ""


# --------------------------------------------------------------------------------- administration


@dataclass(frozen=True, slots=True, kw_only=True)
class _AdministrationEvent(Event):
    actor: str = ""
    """Who acted: a user, `cli:<OS user>`, `provider:<name>`, `rule:<name>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLocked(_AdministrationEvent):
    """A locked user: every proxy ends the user's connections on this event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUnlocked(_AdministrationEvent):
    """An unlocked user, who may log in again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressBannedEvent(_AdministrationEvent):
    """An address that is banned until `until`; `user` is empty."""

    address: str = ""
    """IPv4, or the /64 of IPv6."""
    until: str = ""
    """RFC 3339, UTC."""
    offences: int = 0
    """Remembered bans of this address, this one included; 0 for an operator's ban."""
    reasons: tuple[str, ...] = ()
    """Reasons of the last failure before the ban."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressUnbanned(_AdministrationEvent):
    """An address whose ban an operator ended; a ban that expires publishes no event."""

    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyEvent(_AdministrationEvent):
    fingerprint: str = ""
    key_type: str = ""
    """`ssh-ed25519`, `sk-ssh-ed25519@openssh.com`, …"""
    origin: str = ""
    """Origin of the key: `static` for the command line, or a provider's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdded(_KeyEvent):
    """A key that authenticates a user from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRemoved(_KeyEvent):
    """A key that no longer authenticates; the connections that used it are ended."""


# ---------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class _SessionEvent(_ConnectionEvent):
    """Fields of a user's connection, from login to its end; `connection_id` is its name in every system."""

    client_type: str = ""
    """`OpenSSH`, `PuTTY`, `VS Code`, …: a guess from the version and the first commands."""
    fingerprint: str = ""
    certificate: str = ""
    workspace: str = ""
    """Empty, as is the blueprint, when there is no such workspace."""
    blueprint: str = ""
    account: str = ""
    """The OS account that was requested; empty for the blueprint's own."""
    owner: str = ""
    """The user whom the workspace belongs to; `user` is the one who uses it."""
    started_at: str = ""
    """RFC 3339."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(_SessionEvent):
    """A connection that is ready for use; one event a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _TrafficEvent(_SessionEvent):
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    """Payload bytes of all its channels since login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdated(_TrafficEvent):
    """A connection that carried payload since its last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(_TrafficEvent):
    """A connection that ended.

    One event a connection, from its own proxy or the replica that noticed the loss.
    """

    ended_at: str = ""
    reasons: tuple[str, ...] = ()
    """One word, such as `left`, `lost`, `killed`, `idle` or `proxy_lost`."""
    actor: str = ""
    """Who ended it; empty when it ended by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ProgramEvent(Event):
    connection_id: str = ""
    program_id: str = ""
    kind: str = ""
    """`shell`, `exec`, `sftp`, `scp`, `rsync`, `git`, `forward`, `listen`, `forwarded`, `ssh-agent`."""
    target: str = ""
    """The target of a forward, or the address of a listener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStarted(_ProgramEvent):
    """A program, a forward or a listener that started on a connection.

    The command line is left out, because users type secrets into it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEnded(_ProgramEvent):
    """A program, a forward or a listener that ended."""

    bytes_from_client: int = 0
    bytes_to_client: int = 0
    exit_status: int = -1
    """-1 for a kind without an exit status."""
    exit_signal: str = ""
    """The signal's name without SIG."""
    reasons: tuple[str, ...] = ()
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RecordingEvent(Event):
    connection_id: str = ""
    recording_id: str = ""
    """The id of the program or forward that is recorded."""
    kind: str = ""
    """`shell`, `exec`, `sftp` or `forward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingInterrupted(_RecordingEvent):
    """A recording whose storage is down: data waits, and data beyond the buffer will be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLostEvent(_RecordingEvent):
    """A program that was ended because its rule requires a recording and recording failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingClosed(_RecordingEvent):
    """A recording that ended. Its values must match the recording; a difference shows that it was changed."""

    complete: bool = False
    """Whether all of it is stored, and nothing was left out."""
    gaps: int = 0
    blocks: int = 0
    hash: str = ""
    """Hash of the last block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKillOrdered(_AdministrationEvent):
    """An order to end a session.

    The order itself is in the database; this event only asks replicas to read it.
    """

    session_id: str = ""
    """The id of a connection or a program."""


# ------------------------------------------------------------------------------------------- web


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSignedIn(Event):
    """A browser is signed in as a user."""

    client_address: str = ""
    session_id: str = ""
    provider: str = ""
    """What vouched for the user; empty for an SSH key."""
    fingerprint: str = ""
    """Of the SSH key; empty for a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSignInRefused(Event):
    """A sign-in of a browser came to nothing; `user` is empty where no user is known."""

    client_address: str = ""
    provider: str = ""
    reasons: tuple[str, ...] = ()
    """Words such as `account_unknown`, or the `code` of an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSignedOut(_AdministrationEvent):
    """Sessions of a browser ended; replicas that hear it compare theirs with the database."""

    session_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLinkMade(Event):
    """A user was given a link over SSH that signs a browser in."""

    client_address: str = ""
    connection_id: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebShareChanged(_AdministrationEvent):
    """An owner changed the users to whom an app is shown; `user` is the owner.

    Replicas that hear it read the change from the database.
    """

    blueprint: str = ""
    app: str = ""
    level: str = ""
    """`owner`, `authenticated` or `public`: the users who need not be named."""
    users: tuple[str, ...] = ()
    """Users whom the owner named, after the change."""
    groups: tuple[str, ...] = ()
    """Groups that the owner named, after the change."""


# -------------------------------------------------------------------------------------- workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class _WorkspaceEvent(Event):
    """Fields of a workspace that an event concerns; `user` is its owner."""

    workspace: str = ""
    blueprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStarted(_WorkspaceEvent):
    """A workspace that became ready.

    Replicas that waited for the same start publish one and the same `id`.
    """

    duration_ms: int = 0
    """Milliseconds that the first waiting client waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStopped(_WorkspaceEvent):
    """A workspace that was stopped; its home stays."""

    actor: str = ""
    """Who stopped it: a user, `cli:<OS user>`, `idle` or `lifetime`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStoppingSoon(_WorkspaceEvent):
    """A workspace that is stopped soon unless it is used; consumers ignore a repeated `id`."""

    reason: str = ""
    """`idle` or `lifetime`; use does not help against the latter."""
    stops_at: str = ""
    """RFC 3339, UTC; to the second."""
    why: str = ""
    """A sentence about the last activity, bounded and printable; empty for none since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceFailed(_WorkspaceEvent):
    """A workspace that did not start."""

    reasons: tuple[str, ...] = ()
    """The code of an error, such as `workspace.start_failed`."""
