"""Assembly of onboarding: HTTP client, providers, confirm page, flows. The process opens and closes it."""

from pathlib import Path
from typing import Self

from proxy.errors import SettingsError
from proxy.http.client import HttpClient
from proxy.http.clock import REAL, Clock
from proxy.http.handover import ALONE, ReplicaPages
from proxy.http.secret import Secret
from proxy.identity.profile import KeyList
from proxy.onboarding.confirm import ConfirmPages
from proxy.onboarding.devserver.server import DevServer
from proxy.onboarding.flow import KeepGrant, Onboarding, Registrar, discard_grant
from proxy.onboarding.providers.base import Provider, Tools
from proxy.onboarding.providers.dev import Dev
from proxy.onboarding.providers.github import GitHub
from proxy.onboarding.providers.gitlab import GitLab
from proxy.onboarding.providers.oidc import Oidc
from proxy.settings.onboarding import (
    DevSettings,
    FrontDoorSettings,
    GitHubSettings,
    GitLabSettings,
    OidcSettings,
    ProviderSettings,
)

MAX_SECRET_BYTES = 16 * 1024


class OnboardingService:
    """The onboarding of one process: `onboarding` for unknown users, `keys` for known ones."""

    def __init__(
        self,
        settings: FrontDoorSettings,
        *,
        clock: Clock = REAL,
        peers: ReplicaPages = ALONE,
        keeps_grants: bool = False,
    ) -> None:
        """Take `settings` as `in_effect` returned them; with `keeps_grants`, refresh tokens are requested."""
        self._settings = settings
        self._peers = peers
        self._http = HttpClient(settings.http)
        self._tools = Tools(self._http, clock, settings.keys, keeps_grants)
        self._servers: list[DevServer] = []
        self._confirm: ConfirmPages | None = None
        self.providers: dict[str, Provider] = {}
        self.onboarding: Onboarding

    @classmethod
    async def open(
        cls,
        settings: FrontDoorSettings,
        registrar: Registrar,
        *,
        clock: Clock = REAL,
        peers: ReplicaPages = ALONE,
        keep: KeepGrant | None = None,
    ) -> Self:
        """Start the pages that have to listen; no provider is called yet.

        `keep` receives grants of approvals, to read accounts again; without it none are requested.

        Raises: SettingsError listing what cannot be used.
        """
        door = cls(settings, clock=clock, peers=peers, keeps_grants=keep is not None)
        try:
            await door._build()
        except BaseException:
            await door.close()
            raise
        providers = list(door.providers.values())
        door.onboarding = Onboarding(
            providers,
            registrar,
            settings.onboarding,
            door._confirm,
            clock=clock,
            keep=keep or discard_grant,
        )
        return door

    async def close(self) -> None:
        """End every flow, then stop listening and close connections."""
        if hasattr(self, "onboarding"):
            await self.onboarding.close()
        if self._confirm is not None:
            await self._confirm.close_site()
        for server in self._servers:
            await server.close()
        await self._http.close()

    @property
    def page_urls(self) -> tuple[str, ...]:
        """Return the URLs of Fairlead's pages to which users may be sent; for the quick start."""
        urls = [server.page_url for server in self._servers]
        return (*urls, self._confirm.url) if self._confirm is not None else tuple(urls)

    @property
    def http(self) -> HttpClient:
        """Return the client by which providers are asked."""
        return self._http

    def allow_redirect(self, uri: str) -> None:
        """Let the development provider send browsers to another page of ours."""
        for server in self._servers:
            server.redirect_uris.add(uri)

    @property
    def ports(self) -> set[int]:
        """Return the ports of this machine on which Fairlead's pages are served."""
        ports = {server.port for server in self._servers}
        return ports if self._confirm is None else ports | {self._confirm.port}

    @property
    def issuers(self) -> dict[str, str]:
        """Return the issuer of each provider's subjects, as profiles name it."""
        return {settings.title: _issuer(settings) for settings in self._settings.providers}

    async def keys(self, provider: str, subject: str, login: str) -> KeyList | None:
        """Return the keys that a provider lists for a known account.

        None when it lists none or is not configured any more.

        Usually quick, since lists are cached, and bounded by `keys.lookup_timeout_s`.
        Raises: ProviderUnavailable and ProviderMisconfigured when no recent enough list is known; the caller
        continues with the keys of the directory.
        """
        known = self.providers.get(provider)
        return None if known is None else await known.keys(subject, login)

    async def _build(self) -> None:
        if self._settings.has_page:
            host, port = _split(self._settings.confirm.listen)
            confirm = ConfirmPages(self._settings.confirm, host, port, self._http, self._peers)
            await confirm.start()
            self._confirm = confirm
        for settings in self._settings.providers:
            self.providers[settings.title] = await self._provider(settings)

    async def _provider(self, settings: ProviderSettings) -> Provider:
        if isinstance(settings, DevSettings):
            server = DevServer(settings, clock=self._tools.clock)
            if self._confirm is not None:
                server.redirect_uris.add(self._confirm.redirect_uri)
            await server.start()
            self._servers.append(server)
            return Dev(settings, server, self._tools)
        secret = read_secret(settings.client_secret_file, secret_setting(settings))
        if isinstance(settings, GitHubSettings):
            return GitHub(settings, secret, self._tools)
        if isinstance(settings, GitLabSettings):
            return GitLab(settings, secret, self._tools)
        return Oidc(settings, secret, self._tools)


def _issuer(settings: ProviderSettings) -> str:
    if isinstance(settings, DevSettings):
        return "dev"
    return settings.issuer if isinstance(settings, OidcSettings) else settings.url


def secret_setting(settings: ProviderSettings) -> str:
    """Return the name of the setting of a provider's secret, for an operator."""
    return f"front_door.providers ({settings.title}): client_secret_file"


def read_secret(file: Path | None, setting: str) -> Secret | None:
    """Return the secret of a client, if it has one. Raises: SettingsError naming setting and file."""
    if file is None:
        return None
    try:
        text = file.read_bytes()[: MAX_SECRET_BYTES + 1].decode()
    except OSError as exc:
        raise SettingsError(f"{setting}: {file}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{setting}: {file}: is not UTF-8 text") from None
    if not text.strip() or len(text) > MAX_SECRET_BYTES:
        raise SettingsError(f"{setting}: {file}: is empty or larger than {MAX_SECRET_BYTES // 1024} KiB")
    return Secret(text.strip())


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"front_door.confirm.listen: {listen!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
