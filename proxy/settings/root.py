"""The root of the settings: all sections, and values that depend on several of them."""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from proxy.addresses import is_loopback, split_address
from proxy.errors import SettingsError
from proxy.settings.base import Section
from proxy.settings.blueprints import BlueprintSettings
from proxy.settings.checks import CheckSettings
from proxy.settings.connection import ConnectionSettings
from proxy.settings.events import EventsSettings
from proxy.settings.groups import GroupSettings
from proxy.settings.health import HealthSettings
from proxy.settings.identity import IdentitySettings
from proxy.settings.kubernetes import KubernetesSettings
from proxy.settings.log import LogSettings
from proxy.settings.login import LoginSettings
from proxy.settings.onboarding import FrontDoorSettings
from proxy.settings.protection import ProtectionSettings, ProxyProtocolSettings
from proxy.settings.recording import RecordingSettings
from proxy.settings.relay import RelaySettings
from proxy.settings.sessions import SessionSettings
from proxy.settings.shutdown import ShutdownSettings
from proxy.settings.ssh import ListenSettings
from proxy.settings.trust import TrustSettings
from proxy.settings.upstream import UpstreamSettings
from proxy.settings.web import WebSettings
from proxy.settings.workspace import WorkspaceSettings

_PROXY_ID_CHARS = 31

_FAREWELL_S = 5
"""Of a shutdown: the last sentence to those who are still connected, and the end of the process itself."""


class Settings(Section):
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
