"""Any OpenID provider with a discovery document: Keycloak, Dex, Entra, Google and the like.

Sources: OpenID Connect Discovery 1.0 §3-4, OpenID Connect Core §5.3 (UserInfo), RFC 8628 §4 (metadata).
Accepted deviations: Google signs with `accounts.google.com` for `https://accounts.google.com`; Auth0
ends its issuer with a slash; Dex and Keycloak leave the device endpoint out when it is switched off.
There is no key list in OpenID Connect; `mapping.keys` may take one from a claim.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.errors.login import OnboardingError
from proxy.http.client import Request
from proxy.http.secret import Secret
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding import device_flow
from proxy.onboarding.authcode import CodeClient, refresh
from proxy.onboarding.device_flow import Authorization, DeviceClient, Tokens
from proxy.onboarding.idtoken import ExpectedClaims, Jwks, LoggedOut, verify, verify_logout
from proxy.onboarding.mapping import ClaimMapping
from proxy.onboarding.providers.base import (
    ApprovalFacts,
    Configured,
    Gate,
    KeepTokens,
    Tools,
    get_json,
    grant_missing,
    make_profile,
    misconfigured,
    same_account,
)
from proxy.settings.onboarding import OidcSettings
from proxy.settings.urls import check_url

DISCOVERY_FRESH_S = 3_600.0
OFFLINE = "offline_access"
_ALIASES = {"https://accounts.google.com": ("https://accounts.google.com", "accounts.google.com")}


@dataclass(frozen=True, slots=True)
class OidcEndpoints:
    """The endpoints in a discovery document; empty where it names none."""

    authorization: str
    token: str
    jwks: str
    device: str = ""
    userinfo: str = ""
    basic: bool = False
    """The token endpoint accepts the client's secret as Basic credentials only."""
    gives_offline: bool = False
    """The scope `offline_access` gives refresh tokens (OpenID Connect Core §11)."""
    says_iss: bool = False
    """Responses of the authorization endpoint carry `iss` (RFC 9207)."""


class Oidc(Configured[OidcSettings]):
    """One client at one OpenID provider."""

    def __init__(
        self, settings: OidcSettings, secret: Secret | None, tools: Tools, *, kind: str = "oidc"
    ) -> None:
        super().__init__(settings)
        self._secret = secret
        self._tools = tools
        self._mapping = ClaimMapping(settings.title, kind, settings.mapping)
        self._endpoints: OidcEndpoints | None = None
        self._discovered_at = 0.0
        self._jwks: Jwks | None = None
        self._lock = asyncio.Lock()

    async def endpoints(self) -> OidcEndpoints:
        """Return the discovery document, read once an hour; an old one serves while no new one is available.

        Raises: ProviderUnavailable, ProviderMisconfigured.
        """
        async with self._lock:
            now = self._tools.clock.now()
            if self._endpoints is None or now - self._discovered_at > DISCOVERY_FRESH_S:
                try:
                    self._endpoints = await self._discover()
                    self._discovered_at = now
                except OnboardingError:
                    if self._endpoints is None:
                        raise
                    self._discovered_at += 60.0
            return self._endpoints

    async def start_device(
        self, about: ApprovalFacts, max_lifetime_s: float, *, extra: Mapping[str, str] | None = None
    ) -> Authorization:
        """See Provider."""
        del about  # the provider's page has no place for it
        client = await self._device_client(max_lifetime_s, extra or {})
        return await device_flow.obtain(client, self._tools.http, self._tools.clock)

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        """See Provider."""
        client, tools = await self._device_client(0, {}), self._tools
        return await device_flow.await_approval(client, authorization, tools.http, tools.clock, gate)

    async def code_client(self) -> CodeClient:
        """See Provider."""
        endpoints = await self.endpoints()
        return CodeClient(
            provider=self.name,
            authorize_url=endpoints.authorization,
            token_url=endpoints.token,
            client_id=self._settings.client_id,
            client_secret=self._secret,
            basic=endpoints.basic,
            scopes=self._scopes(endpoints),
            issuer=self._settings.issuer,
            requires_iss=endpoints.says_iss,
            extra=self._offline(endpoints),
        )

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """See Provider."""
        return self.mapped(await self.claims(tokens, nonce), issuer=self._settings.issuer)

    async def logged_out(self, token: Secret) -> LoggedOut:
        """Read a logout token of the provider. Raises: ProviderUnavailable, ProviderMisconfigured."""
        await self.endpoints()
        assert self._jwks is not None
        return await verify_logout(token, self._jwks, self._expected())

    def mapped(self, claims: Mapping[str, Any], *, issuer: str) -> Profile:
        """Return a profile from claims that name their subject. Raises: ProviderMisconfigured."""
        mapped = self._mapping.apply(claims)
        return make_profile(self.name, issuer, claims["sub"], mapped.name, mapped, claims)

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        """See Provider."""
        del subject, login, access
        return None

    @property
    def lists_keys(self) -> bool:
        """See Provider."""
        return False

    async def renew(self, subject: str, grant: Secret | None, keep: KeepTokens) -> Profile:
        """See Provider."""
        if grant is None:
            await self._discover()  # without an answer the grant is not known to be missing
            raise grant_missing(self.name)
        tokens = await refresh(await self.code_client(), grant, self._tools.http)
        await keep(tokens)
        return same_account(await self.profile(tokens), subject)

    @property
    def _wants_offline(self) -> bool:
        return self._tools.keeps_grants and self._settings.offline_access

    def _scopes(self, endpoints: OidcEndpoints) -> tuple[str, ...]:
        wants = self._wants_offline and endpoints.gives_offline
        return tuple(dict.fromkeys([*self._settings.scopes, *([OFFLINE] if wants else [])]))

    def _offline(self, endpoints: OidcEndpoints) -> dict[str, str]:
        """Return the parameters that a refresh token requires in the code grant."""
        if not self._wants_offline:
            return {}
        if self._settings.issuer in _ALIASES:
            return {"access_type": "offline", "prompt": "consent"}  # Google
        return {"prompt": "consent"} if OFFLINE in self._scopes(endpoints) else {}

    async def claims(self, tokens: Tokens, nonce: Secret | None) -> dict[str, Any]:
        """Return the claims of the ID token joined with those of UserInfo, about the same subject.

        The authorization code grant must come with an ID token, which alone carries the nonce.
        """
        endpoints = await self.endpoints()
        claims: dict[str, Any] = {}
        if tokens.id_token is not None:
            assert self._jwks is not None
            claims.update(await verify(tokens.id_token, self._jwks, self._expected(), nonce=nonce))
        elif nonce is not None:
            raise misconfigured(self.name, "no ID token came with the code")
        if endpoints.userinfo:
            info = await get_json(self._tools, self.name, Request(endpoints.userinfo, bearer=tokens.access))
            if not isinstance(info, dict) or info.get("sub") != claims.get("sub", info.get("sub")):
                raise misconfigured(self.name, "UserInfo is about another subject (Core §5.3.2)")
            claims |= info
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise misconfigured(self.name, "neither ID token nor UserInfo names a subject")
        return claims

    def _expected(self) -> ExpectedClaims:
        issuers = _ALIASES.get(self._settings.issuer, (self._settings.issuer,))
        return ExpectedClaims(self.name, issuers, self._settings.client_id, self._settings.algorithms)

    async def _device_client(self, max_lifetime_s: float, extra: Mapping[str, str]) -> DeviceClient:
        endpoints = await self.endpoints()
        if not endpoints.device:
            raise misconfigured(
                self.name,
                "its discovery document has no device_authorization_endpoint; "
                "enable the device flow for this client, or use approval: confirm",
            )
        return DeviceClient(
            provider=self.name,
            device_url=endpoints.device,
            token_url=endpoints.token,
            client_id=self._settings.client_id,
            client_secret=self._secret,
            basic=endpoints.basic,
            scopes=self._scopes(endpoints),
            extra=extra,
            max_lifetime_s=max_lifetime_s,
        )

    async def _discover(self) -> OidcEndpoints:
        url = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await get_json(self._tools, self.name, Request(url))
        if not isinstance(document, dict) or document.get("issuer") != self._settings.issuer:
            said = document.get("issuer") if isinstance(document, dict) else None
            raise misconfigured(
                self.name, f"{url} calls itself {str(said)[:200]!r}, not the configured issuer"
            )
        methods = document.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        endpoints = OidcEndpoints(
            authorization=self._endpoint(document, "authorization_endpoint"),
            token=self._endpoint(document, "token_endpoint"),
            jwks=self._endpoint(document, "jwks_uri"),
            device=self._endpoint(document, "device_authorization_endpoint", optional=True),
            userinfo=self._endpoint(document, "userinfo_endpoint", optional=True),
            basic="client_secret_post" not in methods,
            gives_offline=OFFLINE in (document.get("scopes_supported") or ()),
            says_iss=document.get("authorization_response_iss_parameter_supported") is True,
        )
        if self._jwks is None or self._jwks.url != endpoints.jwks:
            self._jwks = Jwks(self.name, endpoints.jwks, self._tools.http, clock=self._tools.clock)
        return endpoints

    def _endpoint(self, document: Mapping[str, Any], key: str, *, optional: bool = False) -> str:
        """Return an endpoint that is as well protected as the issuer: https leads to https only."""
        url = document.get(key)
        if url is None and optional:
            return ""
        try:
            check_url(str(url))
        except ValueError as exc:
            raise misconfigured(self.name, f"{key}: {exc}") from None
        if self._settings.issuer.startswith("https:") and not str(url).startswith("https:"):
            raise misconfigured(self.name, f"{key} is not https")
        return str(url)
