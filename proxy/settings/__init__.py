"""Every setting: unit in the name, range, default, and why. The only reader of the environment.

Precedence: command line > `FAIRLEAD_…` environment > file > default. Sections nest with `__`:
`FAIRLEAD_RELAY__BUFFER_BYTES=524288`. A component receives its own section, never the whole.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from proxy.errors import SettingsError
from proxy.settings import sentences
from proxy.settings.blueprints import BlueprintSettings
from proxy.settings.checks import CheckSettings
from proxy.settings.events import EventsSettings
from proxy.settings.groups import GroupSettings
from proxy.settings.health import HealthSettings
from proxy.settings.kubernetes import KubernetesSettings
from proxy.settings.onboarding import FrontDoorSettings, is_loopback
from proxy.settings.protection import ProtectionSettings, ProxyProtocolSettings
from proxy.settings.recording import RecordingSettings
from proxy.settings.sessions import SessionSettings
from proxy.settings.trust import TrustSettings
from proxy.settings.web import WebSettings

Seconds = Annotated[float, Field(gt=0, le=86_400 * 30)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1_024, le=64 * 1024 * 1024)]

_PREFIX = "FAIRLEAD_"

_VERSION_CHARS = 200
"""RFC 4253 §4.2 allows 255 bytes with `SSH-2.0-` and the line's end."""

_PROXY_ID_CHARS = 31

_FAREWELL_S = 5
"""Of a shutdown: the last sentence to those who are still connected, and the end of the process itself."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenSettings(_Section):
    """The SSH listener: host keys and algorithms."""

    host_key_dir: Path | None = None
    """Holds ssh_host_{ed25519,ecdsa,rsa}_key; default `<home>/host_keys`, made on the first start."""
    backlog: Count = 1_024
    ciphers: tuple[str, ...] = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes256-ctr",
        "aes192-ctr",
        "aes128-ctr",
    )
    """Offered to clients. A stock OpenSSH asks for ChaCha20 first and takes the first of its own list that
    is offered; see `prefer_aes_gcm`."""
    prefer_aes_gcm: bool = True
    """Offer the others only to clients that know no AES-GCM: with AES instructions it is twice as fast
    at both ends."""
    macs: tuple[str, ...] = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
    """Offered to clients that use no AEAD cipher. Encrypt-and-MAC (`hmac-sha2-256`, `hmac-sha2-512`) is left
    out because it authenticates the plain text; an old client may need it, and then it is added here."""
    version: str = "OpenSSH_9.9 Fairlead"
    """Shown in the version exchange after `SSH-2.0-` (RFC 4253 §4.2): a software version of printable ASCII
    without blanks and `-`, then perhaps a blank and a comment. Clients choose their behaviour by it, and what
    is behind Fairlead behaves as OpenSSH does. Servers that do not begin with `OpenSSH` get no `eow` from
    `ssh` (`ssh host yes | head -1` then never ends), the arguments of sftp's SYMLINK the other way round from
    asyncssh, libssh and npm's ssh2, and no Unix-socket forwards from ssh2."""

    @field_validator("version")
    @classmethod
    def _version_of_rfc_4253(cls, version: str) -> str:
        software, blank, comment = version.partition(" ")
        is_text = version.isascii() and version.isprintable() and len(version) <= _VERSION_CHARS
        if not is_text or not software or "-" in software or bool(blank) != bool(comment):
            raise ValueError(
                f"must be printable ASCII of at most {_VERSION_CHARS} characters: a version without `-` and "
                "perhaps a comment behind a blank, as in `OpenSSH_9.9 Fairlead`"
            )
        return version


class LoginSettings(_Section):
    """Budgets of one login."""

    key_exchange_timeout_s: Seconds = 20
    """From accept to the end of the first key exchange: no human is involved."""
    timeout_s: Seconds = 120
    """From the end of key exchange to success: passphrases and hardware keys need a person."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 20
    """Keys that may be refused on one connection; an ssh-agent may hold many before the right one."""
    max_failures: Annotated[int, Field(ge=1, le=100)] = 6
    """Failures other than refused keys that end a connection, as `MaxAuthTries` of sshd: methods that are not
    offered, prompts, services and key exchanges that are asked for again. The first `none` is free."""

    @model_validator(mode="after")
    def _ordered(self) -> "LoginSettings":
        if self.key_exchange_timeout_s > self.timeout_s:
            raise ValueError("key_exchange_timeout_s must not exceed timeout_s")
        return self


class ConnectionSettings(_Section):
    """Limits of one SSH connection."""

    keepalive_interval_s: Seconds = 30
    """A request is sent after this much silence, so that address translation does not forget us."""
    keepalive_count_max: Annotated[int, Field(ge=1, le=100)] = 4
    """Unanswered requests after which the client counts as gone."""
    max_channels: Count = 512
    """Channels of one connection, from the request to the close; JetBrains opens hundreds."""
    max_dials: Count = 128
    """Connections that are being made for one client at once; more wait for their turn. A target that never
    answers holds one for as long as the workspace tries."""
    open_wait_s: Seconds = 60
    """A connection that waits longer for its turn is refused."""
    opens_per_s: Annotated[float, Field(ge=1, le=100_000)] = 200
    """Programs, forwards and listeners that one connection may begin in a second, on average; as many as
    `max_channels` at once. Each is a record and two events. More wait."""
    max_listeners: Count = 64
    """`-R` listeners of one connection."""
    max_env_bytes: Bytes = 64 * 1024
    """Names and values of the `env` requests of one channel, together. Variables beyond it are left out, and
    the user gets a notice; the same holds for `max_env_variables`."""
    max_env_variables: Annotated[int, Field(ge=1, le=10_000)] = 128
    """As many as sshd takes."""
    env_wait_s: Seconds = 5
    """An `env` request that wants an answer waits this long at most, right after the login, for the names of
    variables that the blueprint has. Without them it is answered with success."""
    max_command_bytes: Annotated[int, Field(ge=1_024, le=131_071)] = 131_071
    """Of one `exec` request. Linux takes no longer argument (MAX_ARG_STRLEN), and a command is one."""


class RelaySettings(_Section):
    """The road of the bytes."""

    buffer_bytes: Bytes = 1024 * 1024
    """Held per direction of a channel before the writer is stopped."""
    window_bytes: Bytes = 2 * 1024 * 1024
    """SSH receive window of a channel: the most a client may have in flight (RFC 4254 §5.2)."""
    packet_bytes: Annotated[int, Field(ge=32_768, le=262_144)] = 32 * 1024
    """Largest payload that a client may put into one packet; RFC 4253 §6.1 asks for 32 KiB at least."""
    join_bytes: Bytes = 256 * 1024
    """SSH packets of one turn of the event loop leave in writes of up to this size. A client that leaves as
    many bytes of replies unread is heard no more until it reads them."""
    unread_timeout_s: Seconds = 60
    """After this long the connection of a client that is heard no more, because of unread replies, ends."""


class UpstreamSettings(_Section):
    """The gRPC link to a workspace."""

    connect_timeout_s: Seconds = 15
    """From a workspace that says it is ready to its answer."""
    look_again_s: Annotated[float, Field(ge=0.1, le=60)] = 1
    """Seconds without an answer after which a workspace is looked for again while connecting goes on: its pod
    may be gone, or be made anew on another node."""
    rpc_timeout_s: Seconds = 30
    """One unary call, and the first frame of a stream."""
    program_timeout_s: Seconds = 90
    """The first frame of a program, which shelld keeps for up to 30 s while init scripts run."""
    keepalive_interval_s: Seconds = 30
    keepalive_timeout_s: Seconds = 20
    linger_s: Seconds = 60
    """An unused link is kept this long for the next login."""


class WorkspaceSettings(_Section):
    """Starting and ending workspaces."""

    backend: Literal["local", "kubernetes"] = "local"
    """Where workspaces run: processes of this machine, or pods of the cluster that `kubernetes` describes."""
    start_timeout_s: Seconds = 120
    """From the first channel to readiness; image pulls are the reason that it is long."""
    idle_stop_s: Annotated[float, Field(ge=0)] = 8 * 3600
    """Stop after this long without payload or CPU use; 0 means never. A blueprint may say otherwise."""
    stop_hold_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 900
    """A stop that a user asked for is not undone by a connection for this long, only by asking again: an
    editor that reconnects by itself must not bring back what its owner just stopped."""
    lifetime_s: Annotated[float, Field(ge=0)] = 0
    """From one start to the stop, even in use; 0 is never. A blueprint may set another value."""
    lifetime_warn_s: Annotated[float, Field(ge=0, le=86_400)] = 900
    """Users are warned this long before a workspace is stopped because of its `lifetime_s`."""
    failed_stop_s: Annotated[float, Field(ge=0, le=86_400 * 30)] = 600
    """Seconds after which a workspace that failed to start is stopped, so that it takes no room from others;
    one that has neither started nor failed gets `start_timeout_s` more. 0 is never."""
    keeper_interval_s: Seconds = 60
    """How often each proxy looks whether a workspace is to be stopped, or given new certificates."""
    keeper_parallel: Count = 16
    """Workspaces that one proxy asks at once."""
    drain_s: Seconds = 60
    """A workspace that was asked to take no new work takes some again after this long, if it was not
    stopped; requests to it wait for as long."""
    namespaces: Literal["auto", "bwrap", "unshare", "none"] = "auto"
    """How the local backend separates workspaces; `auto` takes what this machine can do."""


class IdentitySettings(_Section):
    """Identities: their database, their uids, and authorities of user certificates."""

    database_url: str = ""
    """SQLAlchemy URL of an async driver; default SQLite in `<home>`."""
    query_timeout_s: Seconds = 10
    failover_wait_s: Annotated[float, Field(ge=0, le=60)] = 5
    """A login waits this long for a PostgreSQL server that takes no connection, as one that fails over does;
    0 fails at once. A wait for SQLite is part of `query_timeout_s`."""
    first_uid: Annotated[int, Field(ge=1, lt=2**31)] = 10_000
    last_uid: Annotated[int, Field(ge=1, lt=2**31)] = 59_999
    """Users without a uid of their own get the next of these; none is ever given to a second user."""
    recheck_s: Seconds = 2
    """Live connections are compared with the directory this often, and a locked user's end: the bound that
    holds without NATS."""
    trusted_user_ca_keys: tuple[Path, ...] = ()
    """Files with public keys of authorities whose OpenSSH user certificates let a known user in, when one
    of the certificate's principals is the user's name."""
    revoked_keys: tuple[Path, ...] = ()
    """Files that `sshd` takes as RevokedKeys: KRLs of `ssh-keygen -k`, or public keys, one a line; at most
    16 MiB each. Read again when they change; while one cannot be read no key lets anybody in."""

    installation: Annotated[str, Field(pattern=r"^([0-9a-f-]{36})?$")] = ""
    """The installation that the database must belong to, as `fairlead database show` prints it. With it a
    proxy refuses an empty or another database even when its `home` does not outlive it."""
    census_s: Seconds = 10
    """Each proxy counts users and keys this often, and every `recheck_s` while some are missing."""
    vanished_s: Seconds = 60
    """Users and keys that are gone without a record of their removal count as removed once that has not
    changed for so long; restoring a table takes less than this between two rows."""
    max_vanished_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """When more than this share of users or keys is gone without a record, or all are, they never count as
    removed: it is an outage until they are back, or until `fairlead database accept`."""

    @property
    def uids(self) -> range:
        """Return the uids that are assigned to users, `first_uid` to `last_uid`."""
        return range(self.first_uid, self.last_uid + 1)

    @model_validator(mode="after")
    def _uids_in_order(self) -> "IdentitySettings":
        if self.first_uid > self.last_uid:
            raise ValueError("first_uid must not exceed last_uid")
        return self


class ShutdownSettings(_Section):
    """The shutdown of the process."""

    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 5
    """Live sessions may end by themselves for this long after SIGTERM and `health.drain_s`."""
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """From SIGTERM to the KILL of the platform, such as `terminationGracePeriodSeconds` of a pod. Live
    sessions then have what it leaves, or `grace_s` where that is given and shorter."""


class LogSettings(_Section):
    """The log of the process."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Settings(_Section):
    """The whole; see each section."""

    home: Path = Path(".fairlead")
    """State of this installation: identities, host keys, workspaces of the local backend."""
    listen: str = "127.0.0.1:2222"
    """`host:port` of the SSH listener; `*:22` for every address; port 0 for any free one."""
    proxy_id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,252}$")] = "local"
    """Names this replica in logs and socket names; the name of any pod will do. Of a name with dots or more
    than 31 characters the beginning is used, and 10 digits of its SHA-256: unix(7) has short paths."""
    ssh: ListenSettings = ListenSettings()
    login: LoginSettings = LoginSettings()
    connection: ConnectionSettings = ConnectionSettings()
    relay: RelaySettings = RelaySettings()
    upstream: UpstreamSettings = UpstreamSettings()
    workspace: WorkspaceSettings = WorkspaceSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    trust: TrustSettings = TrustSettings()
    blueprint: BlueprintSettings = BlueprintSettings()
    identity: IdentitySettings = IdentitySettings()
    front_door: FrontDoorSettings = FrontDoorSettings()
    groups: GroupSettings = GroupSettings()
    events: EventsSettings = EventsSettings()
    proxy_protocol: ProxyProtocolSettings = ProxyProtocolSettings()
    protection: ProtectionSettings = ProtectionSettings()
    health: HealthSettings = HealthSettings()
    checks: CheckSettings = CheckSettings()
    sessions: SessionSettings = SessionSettings()
    recording: RecordingSettings = RecordingSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @field_validator("listen")
    @classmethod
    def _listen_is_address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("proxy_id")
    @classmethod
    def _short_proxy_id(cls, value: str) -> str:
        if len(value) <= _PROXY_ID_CHARS and "." not in value:
            return value
        digest = hashlib.sha256(value.encode()).hexdigest()[:10]
        return f"{value.replace('.', '-')[: _PROXY_ID_CHARS - 11].rstrip('-')}-{digest}"

    @model_validator(mode="after")
    def _pages_have_addresses(self) -> "Settings":
        pages = {
            "health.listen": self.health.listen,
            "web.listen": self.web.listen,
            "front_door.confirm.listen": self.front_door.confirm.listen,
        }
        for name, text in pages.items():
            try:
                if text or name not in ("health.listen", "web.listen"):
                    split_address(text)
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from None
        return self

    @model_validator(mode="after")
    def _shutdown_fits_its_deadline(self) -> "Settings":
        if self.shutdown_grace_s < 0:
            raise ValueError(
                f"shutdown.deadline_s: health.drain_s and what closes afterwards take "
                f"{self._closing_s:g} s of it, so it must be more than that"
            )
        return self

    @property
    def shutdown_grace_s(self) -> float:
        """Return the seconds for live sessions after `health.drain_s` that keep `shutdown.deadline_s`."""
        shutdown = self.shutdown
        if shutdown.deadline_s is None:
            return shutdown.grace_s
        left_s = shutdown.deadline_s - self._closing_s
        return min(left_s, shutdown.grace_s) if "grace_s" in shutdown.model_fields_set else left_s

    @property
    def _closing_s(self) -> float:
        """Return the most seconds of a shutdown that are not left to live sessions."""
        closing_s = self.recording.close_timeout_s + self.events.close_timeout_s + _FAREWELL_S
        return self.health.drain_s + closing_s

    @property
    def state_dir(self) -> Path:
        """`home`, absolute: workspaces outlive the directory a process was started from."""
        return self.home.expanduser().absolute()

    @property
    def host_key_dir(self) -> Path:
        """Return the directory of the SSH host keys, `host_keys` in `home` by default."""
        return self.ssh.host_key_dir or self.state_dir / "host_keys"

    @property
    def shared_file(self) -> Path:
        """Return the file shared with commands and the next run; with NATS, only for orders of commands."""
        return self.state_dir / "shared.db"

    @property
    def blueprint_dir(self) -> Path:
        """Return the directory of blueprints, `blueprints` in `home` by default."""
        return self.blueprint.directory or self.state_dir / "blueprints"

    @property
    def trust_file(self) -> Path:
        """Return the file of authorities and master keys, `trust.json` in `home` by default."""
        return self.trust.file or self.state_dir / "trust.json"

    @property
    def recording_dir(self) -> Path:
        """Return the directory of recordings, `recordings` in `home` by default."""
        return self.recording.directory or self.state_dir / "recordings"

    @property
    def recording_key_file(self) -> Path:
        """Return the file of the key that signs recordings, `recording_key` in `home` by default."""
        return self.recording.signing_key_file or self.state_dir / "recording_key"

    @property
    def grant_key_file(self) -> Path | None:
        """Return the file of the key that encrypts refresh tokens; None when none are kept.

        Replicas that share a database need the same key, and only the operator can give them one.
        """
        if self.groups.key_file is not None or self.identity.database_url:
            return self.groups.key_file
        return self.state_dir / "grant_key"

    @property
    def front_door_in_effect(self) -> FrontDoorSettings:
        """Return the way in for new users, with the development provider only where it may start.

        Raises: SettingsError naming the settings, when it is configured and may not start.
        """
        self.check_dev_provider()
        is_allowed = self._is_ssh_for_this_machine or self.front_door.dev_anyone_may_be_any_user
        return self.front_door.in_effect(embedded=is_allowed and not self.proxy_protocol.trusted)

    @property
    def is_dev_provider_held_back(self) -> bool:
        """Return whether only `proxy_protocol.trusted` keeps the development provider from standing in."""
        door = self.front_door
        is_wanted = not door.providers and door.dev_on_loopback and self._is_ssh_for_this_machine
        return is_wanted and bool(self.proxy_protocol.trusted)

    def check_dev_provider(self) -> None:
        """Refuse to start the development provider where others reach it. Raises: SettingsError."""
        door, why = self.front_door, "it asks for no password, and anyone may become any user"
        is_configured = any(provider.kind == "dev" for provider in door.providers)
        if self.proxy_protocol.trusted and (is_configured or door.dev_anyone_may_be_any_user):
            name = "providers" if is_configured else "dev_anyone_may_be_any_user"
            raise SettingsError(
                f"front_door.{name}: the development provider never starts while proxy_protocol.trusted is "
                f"set, since a load balancer brings others to SSH: {why}"
            )
        if not is_configured or door.dev_anyone_may_be_any_user:
            return
        beyond = door.dev_beyond_this_machine() if self._is_ssh_for_this_machine else "listen"
        if beyond is not None:
            raise SettingsError(
                f"{beyond}: the development provider starts where others reach it only with "
                f"front_door.dev_anyone_may_be_any_user (--dev-anyone-may-be-any-user): {why}"
            )

    @property
    def _is_ssh_for_this_machine(self) -> bool:
        """Return whether SSH itself is reached from this machine only, according to `listen`."""
        return is_loopback(split_address(self.listen)[0])

    @property
    def installation_file(self) -> Path | None:
        """Return the file that notes the database it served; None for the embedded one, in `home` itself."""
        return self.state_dir / "installation" if self.identity.database_url else None

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL of the database, SQLite in `home` by default."""
        return self.identity.database_url or f"sqlite+aiosqlite:///{self.state_dir / 'fairlead.db'}"


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`; an empty host or `*` means every address.

    Raises: ValueError naming the text.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    numeric = port.isascii() and port.isdecimal()
    if not colon or not numeric or int(port) > 65_535 or (":" in bare and bare == host):
        raise ValueError(f"{text!r} is not host:port (an IPv6 address goes in brackets)")
    return ("" if bare == "*" else bare), int(port)


def load(
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Join the sources into one value; `file` is YAML, `overrides` come from the command line.

    Raises: SettingsError listing every problem with its path.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, Any] = {}
    for layer in (_from_file(file or _file_of(environ)), _from_environ(environ), dict(overrides or {})):
        _merge(merged, layer)
    try:
        return Settings.model_validate(merged)
    except ValidationError as exc:
        problems = sentences.problems(exc.errors(), merged)
        raise SettingsError("; ".join(f"{_name(loc, environ)}{said}" for loc, said in problems)) from None


def _name(loc: tuple[int | str, ...], environ: Mapping[str, str]) -> str:
    """Return the name of a setting as it was written: its variable, or its path in a file."""
    variable = _PREFIX + "__".join(str(part).upper() for part in loc)
    name = variable if variable in environ else ".".join(map(str, loc))
    return f"{name}: " if name else ""


def _file_of(environ: Mapping[str, str]) -> Path | None:
    return Path(environ["FAIRLEAD_CONFIG"]) if environ.get("FAIRLEAD_CONFIG") else None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as exc:
        raise SettingsError(f"{file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{file}: is not UTF-8 text at byte {exc.start}") from exc
    except yaml.MarkedYAMLError as exc:
        line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise SettingsError(f"{file}{line}: is not YAML: {exc.problem}") from exc
    except yaml.YAMLError as exc:
        raise SettingsError(f"{file}: is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(content, dict):
        raise SettingsError(f"{file}: must hold a mapping of settings, not {type(content).__name__}")
    return content


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(_PREFIX) or name == "FAIRLEAD_CONFIG":
            continue
        *sections, leaf = name.removeprefix(_PREFIX).lower().split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise SettingsError(f"{name}: {section} is a value, not a section")
        node[leaf] = _value_of(text)
    return tree


def _value_of(text: str) -> Any:
    """Read lists and mappings as JSON; everything else stays text, which the model converts."""
    if text.startswith(("[", "{")):
        with suppress(ValueError):
            return json.loads(text)
    return text


def _merge(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value
