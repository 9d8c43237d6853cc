"""Diagnosis of the configured providers, in words; read-only, unless `start` asks for a code.

settings ── discovery, signing keys or API ── device endpoint or page ── key list of one account
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from proxy.errors import SettingsError
from proxy.errors.login import OnboardingError
from proxy.http.client import HttpClient, Request
from proxy.http.clock import REAL, Clock
from proxy.identity.directory import Account
from proxy.onboarding.idtoken import Jwks
from proxy.onboarding.mapping import ClaimMapping
from proxy.onboarding.providers.base import ApprovalFacts, Provider, Tools, get_json, misconfigured
from proxy.onboarding.providers.github import GitHub, api_of
from proxy.onboarding.providers.gitlab import GitLab
from proxy.onboarding.providers.oidc import Oidc
from proxy.onboarding.service import read_secret
from proxy.settings.onboarding import (
    DevSettings,
    FrontDoorSettings,
    GitHubSettings,
    GitLabSettings,
    OidcSettings,
    ProviderSettings,
)

_CODE_LIFETIME_S = 900.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    provider: str
    what: str
    ok: bool | None
    """None when it was not checked."""
    says: str


Steps = AsyncIterator[Finding]


class Checkup:
    """Checks of providers, one after the other; `close` at the end."""

    def __init__(
        self,
        settings: FrontDoorSettings,
        accounts: Mapping[str, Account],
        *,
        start: bool,
        clock: Clock = REAL,
    ) -> None:
        """Take an account of each provider, for key lists; with `start`, request a code of each."""
        self._settings = settings
        self._accounts = accounts
        self._start = start
        self._http = HttpClient(settings.http)
        self._tools = Tools(self._http, clock, settings.keys)

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    async def look(self, settings: ProviderSettings) -> Steps:
        """Check one provider; a failure ends the steps that depend on it."""
        step = "settings"
        name = settings.title
        try:
            ClaimMapping(name, settings.kind, settings.mapping)
            if isinstance(settings, DevSettings):
                yield Finding(
                    name,
                    step,
                    True,
                    "the proxy itself serves this provider; visitors choose an account",
                )
                return
            secret = read_secret(settings.client_secret_file, "client_secret_file")
            with_secret = "with" if secret else "without"
            yield Finding(name, step, True, f"client {settings.client_id}, {with_secret} a secret")
            provider: Provider
            if isinstance(settings, OidcSettings):
                step = "discovery"
                provider = oidc = Oidc(settings, secret, self._tools)
                async for finding in self._look_at_oidc(settings, oidc):
                    step = finding.what
                    yield finding
                step = "approval"
            elif isinstance(settings, GitHubSettings):
                step = "API"
                provider = GitHub(settings, secret, self._tools)
                yield await self._look_at_github(settings)
            else:
                step = "discovery"
                provider = GitLab(settings, secret, self._tools)
                yield await self._look_at_gitlab(settings)
            step = "approval"
            yield await self._approval(settings, provider)
            step = "keys"
            yield await self._keys(name, provider)
        except (OnboardingError, SettingsError) as exc:
            yield Finding(name, step, False, str(exc).removeprefix(f"{name}: "))

    async def _look_at_oidc(self, settings: OidcSettings, provider: Oidc) -> Steps:
        name = settings.title
        endpoints = await provider.endpoints()
        has = ", ".join(
            word for word, url in (("device flow", endpoints.device), ("UserInfo", endpoints.userinfo)) if url
        )
        yield Finding(
            name, "discovery", True, f"{settings.issuer} is what it says{'; has ' + has if has else ''}"
        )
        jwks = Jwks(name, endpoints.jwks, self._http, clock=self._tools.clock)
        try:
            count = len((await jwks.keys()).keys)
        except OnboardingError as exc:
            yield Finding(name, "signing keys", False, str(exc).removeprefix(f"{name}: "))
        else:
            yield Finding(name, "signing keys", count > 0, f"{count} at {endpoints.jwks}")

    async def _look_at_github(self, settings: GitHubSettings) -> Finding:
        secret = read_secret(settings.client_secret_file, "client_secret_file")
        basic = (settings.client_id, secret) if secret else None
        url = f"{api_of(settings.url)}/meta"
        document = await get_json(self._tools, settings.title, Request(url, basic=basic))
        if not isinstance(document, dict):
            raise misconfigured(settings.title, f"{url} is not GitHub's")
        as_whom = "and takes client and secret" if basic else "without an account, 60 requests an hour"
        return Finding(settings.title, "API", True, f"{api_of(settings.url)} answers {as_whom}")

    async def _look_at_gitlab(self, settings: GitLabSettings) -> Finding:
        url = f"{settings.url}/.well-known/openid-configuration"
        document = await get_json(self._tools, settings.title, Request(url))
        issuer = document.get("issuer") if isinstance(document, dict) else None
        if issuer != settings.url:
            raise misconfigured(
                settings.title, f"{url} calls itself {str(issuer)[:200]!r}, not the configured url"
            )
        return Finding(settings.title, "discovery", True, f"{settings.url} is what it says")

    async def _approval(self, settings: ProviderSettings, provider: Provider) -> Finding:
        name = provider.name
        if not settings.onboard:
            return Finding(name, "approval", None, "onboard is off: no new user is registered this way")
        if provider.approval == "confirm":
            client = await provider.code_client()
            ours = self._settings.confirm.page_url
            return Finding(
                name,
                "approval",
                True,
                f"by our page, then {client.authorize_url}; {ours}/callback must be registered there",
            )
        if isinstance(provider, Oidc) and not (await provider.endpoints()).device:
            return Finding(
                name, "approval", False, "the discovery document has no device_authorization_endpoint"
            )
        if not self._start:
            return Finding(name, "approval", None, "by device code; --start asks for one")
        about = ApprovalFacts("provider-check", "localhost", "")
        authorization = await provider.start_device(about, _CODE_LIFETIME_S)
        lifetime_s = authorization.expires_at - self._tools.clock.now()
        return Finding(
            name,
            "approval",
            True,
            f"gave a code for {authorization.verification_uri}, good for {lifetime_s:.0f} s and left unused",
        )

    async def _keys(self, name: str, provider: Provider) -> Finding:
        if isinstance(provider, Oidc):
            return Finding(name, "keys", None, "lists no keys of known users; the directory's count")
        account = self._accounts.get(name)
        if account is None:
            return Finding(name, "keys", None, "no user came by it yet; --account names one to ask for")
        listed = await provider.keys(account.subject, account.login)
        if listed is None:
            return Finding(name, "keys", None, "keeps no key lists")
        who = account.login or account.subject
        return Finding(name, "keys", True, f"lists {len(listed.blobs)} usable for account {who}")
