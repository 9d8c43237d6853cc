"""Events as values; `cloudevents` renders them. See docs/events.md for readers.

There is no field for a password, a user code, a device code, a token or a private key, and none for
free text about a failure: reasons are words of a fixed shape. What a stranger chose (the name typed, the
client's version) leaves bounded and printable. A new event is a class here and a row in `subjects`.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID


def new_id() -> str:
    """Make a UUID version 7 (RFC 9562): unique everywhere, sorting by millisecond."""
    milliseconds = int(datetime.now(UTC).timestamp() * 1_000)
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(UUID(int=value))


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a user; `id` and `time` are made when the value is."""

    id: str = field(default_factory=new_id)
    time: datetime = field(default_factory=_now)
    """Aware."""
    user: str = ""
    """The user's name; empty when nobody is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfConnection(Event):
    """What is known of the SSH connection on which it happened."""

    client_address: str = ""
    """IPv4 or IPv6, no brackets: the real client's, from the PROXY header where there is one."""
    client_port: int = 0
    client_version: str = ""
    """What the client said after `SSH-2.0-`."""
    connection_id: str = ""
    """Ours, random; the reference a person quotes, and in every log line of the connection."""


# ------------------------------------------------------------------------------------------ logins


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFailed(_OfConnection):
    """A connection ended without a login; one event a connection, however many keys were offered.

    `user` is as typed, known or not; the bare name when the user string could be parsed, the whole otherwise.
    """

    methods: tuple[str, ...] = ()
    """SSH names: `publickey`, `keyboard-interactive`, …; empty when none was tried."""
    reasons: tuple[str, ...] = ()
    """Words such as `key_unknown`, or the `code` of an error; in the order in which they arose."""
    fingerprints: tuple[str, ...] = ()
    """`SHA256:…` of the keys offered, proved or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSucceeded(_OfConnection):
    """A user is in."""

    methods: tuple[str, ...] = ()
    """The methods that were needed, in order."""
    fingerprint: str = ""
    """Of the proved key, or of the key that a certificate certifies."""
    certificate: str = ""
    """Key id of the user certificate; empty for a plain key."""


# -------------------------------------------------------------------------------------- onboarding


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfOnboarding(_OfConnection):
    provider: str = ""
    """The provider's name in the configuration."""
    fingerprint: str = ""
    """Of the key that was proved and is the candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingStarted(_OfOnboarding):
    """An unknown name was shown a code; `user` is as typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarded(_OfOnboarding):
    """The provider vouched, the key was confirmed, and the user is now ours."""

    account: str = ""
    """The account's name at the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnboardingRefused(_OfOnboarding):
    """An onboarding ended without a user."""

    account: str = ""
    """As far as the provider told before the refusal."""
    reasons: tuple[str, ...] = ()
    """`denied`, `expired`, `account_mismatch`, `key_not_listed`, `rule`, `provider_down`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waitlisted(_OfOnboarding):
    """A rule wants an operator to decide."""

    account: str = ""


# --------------------------------------------------------------------------------- administration


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfAdministration(Event):
    actor: str = ""
    """Who did it: a user, `cli:<OS user>`, `provider:<name>`, `rule:<name>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLocked(_OfAdministration):
    """A user may not be in: every proxy ends the user's connections when it hears this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUnlocked(_OfAdministration):
    """A user may log in again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressBanned(_OfAdministration):
    """An address is not let in until `until`; `user` is empty."""

    address: str = ""
    """IPv4, or the /64 of IPv6."""
    until: str = ""
    """RFC 3339, UTC."""
    offences: int = 0
    """Bans of this address that are remembered, this one included; 0 for an operator's."""
    reasons: tuple[str, ...] = ()
    """Those of the last failure before the ban."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressUnbanned(_OfAdministration):
    """An operator let an address in again; nothing is told when a ban's time is over."""

    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfKey(_OfAdministration):
    fingerprint: str = ""
    key_type: str = ""
    """`ssh-ed25519`, `sk-ssh-ed25519@openssh.com`, …"""
    origin: str = ""
    """Where the key comes from: `static` for the command line, or a provider's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdded(_OfKey):
    """A key opens the door for a user from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRemoved(_OfKey):
    """A key no longer opens the door; connections that it opened are ended."""


# ---------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfSession(_OfConnection):
    """A connection of a user, from login to its end; `connection_id` names it everywhere."""

    client_type: str = ""
    """`OpenSSH`, `PuTTY`, `VS Code`, …: what the version and the first commands look like."""
    fingerprint: str = ""
    certificate: str = ""
    workspace: str = ""
    """Empty, as the blueprint, when no such workspace can be had."""
    blueprint: str = ""
    account: str = ""
    """OS account that was asked for; empty for the blueprint's own."""
    owner: str = ""
    """Whom the workspace belongs to; `user` is who uses it."""
    started_at: str = ""
    """RFC 3339."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(_OfSession):
    """A connection may be used; one event a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfTraffic(_OfSession):
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    """Payload of all its channels since login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdated(_OfTraffic):
    """A connection carried something since the last event of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(_OfTraffic):
    """A connection is over; one event a connection, from the proxy that had it or the one that noticed."""

    ended_at: str = ""
    reasons: tuple[str, ...] = ()
    """One word, such as `left`, `lost`, `killed`, `idle` or `proxy_lost`."""
    actor: str = ""
    """Who ended it, if somebody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfProgram(Event):
    connection_id: str = ""
    program_id: str = ""
    kind: str = ""
    """`shell`, `exec`, `sftp`, `scp`, `rsync`, `git`, `forward`, `listen`, `forwarded`, `ssh-agent`."""
    target: str = ""
    """Where a forward goes, or what is listened on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramStarted(_OfProgram):
    """Something began on a connection: a program, a forward, a listener.

    The command line is not here: people type secrets into them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEnded(_OfProgram):
    """It is over."""

    bytes_from_client: int = 0
    bytes_to_client: int = 0
    exit_status: int = -1
    """-1 for whatever has none."""
    exit_signal: str = ""
    """Without SIG."""
    reasons: tuple[str, ...] = ()
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfRecording(Event):
    connection_id: str = ""
    recording_id: str = ""
    """The id of the program or forward that is recorded."""
    kind: str = ""
    """`shell`, `exec`, `sftp` or `forward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingInterrupted(_OfRecording):
    """Storage is down; what was recorded waits, and what finds no room will be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLost(_OfRecording):
    """A program was ended, because its rule wants it recorded and it could not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingClosed(_OfRecording):
    """A recording is over; what is said here must be what the recording says, or it was tampered with."""

    complete: bool = False
    """Whether all of it is stored, and nothing was left out."""
    gaps: int = 0
    blocks: int = 0
    hash: str = ""
    """Of the last block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKillOrdered(_OfAdministration):
    """Somebody ordered that a session ends; the order itself is in the database, this only says: look."""

    session_id: str = ""
    """Of a connection or a program."""


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
class WebSignedOut(_OfAdministration):
    """Sessions of a browser ended; replicas that hear it compare theirs with the database."""

    session_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLinkMade(Event):
    """A user was given a link over SSH that signs a browser in."""

    client_address: str = ""
    connection_id: str = ""
    fingerprint: str = ""


# -------------------------------------------------------------------------------------- workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfWorkspace(Event):
    """`user` is whom it belongs to."""

    workspace: str = ""
    blueprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStarted(_OfWorkspace):
    """A workspace answers that did not run before; replicas that waited together tell it with one `id`."""

    duration_ms: int = 0
    """How long whoever waited first did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStopped(_OfWorkspace):
    """A workspace was ended; its home stays."""

    actor: str = ""
    """A user, `cli:<OS user>`, `idle` or `lifetime`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceFailed(_OfWorkspace):
    """A workspace did not start."""

    reasons: tuple[str, ...] = ()
    """The code of an error, such as `workspace.start_failed`."""
