"""The development provider for onboarding: an OpenID provider whose page shows the key.

The page's fingerprint at the approval comes back in the signed ID token, so that one approval confirms the
key as well. That claim is believed of this provider only, because its page is Fairlead's.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from proxy.http.client import Request
from proxy.http.secret import Secret
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding.authcode import CodeClient
from proxy.onboarding.device_flow import Authorization, Tokens
from proxy.onboarding.devserver.server import KEY_CLAIM, DevServer
from proxy.onboarding.providers.base import (
    ApprovalFacts,
    Configured,
    Gate,
    KeepTokens,
    Tools,
    account_ended,
    get_json,
)
from proxy.onboarding.providers.keylists import parse_lines
from proxy.onboarding.providers.oidc import Oidc
from proxy.settings.onboarding import DevSettings, OidcSettings

ISSUER = "dev"


class Dev(Configured[DevSettings]):
    """A started DevServer, and a client registered there."""

    def __init__(self, settings: DevSettings, server: DevServer, tools: Tools) -> None:
        super().__init__(settings)
        self._server = server
        self._tools = tools
        client = OidcSettings(
            kind="oidc",
            name=settings.title,
            issuer=server.issuer,
            client_id=server.client_id,
            approval="confirm",
            mapping=settings.mapping,
            algorithms=("ES256",),
        )
        self._oidc = Oidc(client, server.secret, tools, kind="dev")

    async def start_device(self, about: ApprovalFacts, max_lifetime_s: float) -> Authorization:
        """See Provider."""
        extra = {
            "fairlead_name": about.name,
            "fairlead_source": about.source,
            "fairlead_key": about.fingerprint,
        }
        return await self._oidc.start_device(about, max_lifetime_s, extra=extra)

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        """See Provider."""
        return await self._oidc.poll_device(authorization, gate)

    async def code_client(self) -> CodeClient:
        """See Provider."""
        return await self._oidc.code_client()

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """See Provider."""
        profile = await self._oidc.profile(tokens, nonce=nonce)
        shown = profile.claims.get(KEY_CLAIM)
        # The issuer contains a port that the next start may not get again; the accounts are the same.
        return replace(
            profile, issuer=ISSUER, confirmed=frozenset([shown] if isinstance(shown, str) and shown else [])
        )

    async def renew(self, subject: str, grant: Secret | None, keep: KeepTokens) -> Profile:
        """Read an account from the provider's list: it is this very process, and keeps no tokens for long."""
        del grant, keep
        name = quote(subject.removeprefix("dev-"), safe="")
        request = Request(f"{self._server.issuer}/api/users/{name}")
        claims: Any = await get_json(self._tools, self.name, request, absent_ok=True)
        if not isinstance(claims, dict) or claims.get("sub") != subject:
            raise account_ended(self.name, f"there is no account {subject!r} any more")
        return self._oidc.mapped(claims, issuer=ISSUER)

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        """See Provider."""
        del login, access
        name = quote(subject.removeprefix("dev-"), safe="")
        request = Request(f"{self._server.issuer}/api/users/{name}/keys")
        entries: Any = await get_json(self._tools, self.name, request, absent_ok=True)
        if not isinstance(entries, list):
            return None
        lines = [str(entry.get("key", "")) for entry in entries if isinstance(entry, dict)]
        return KeyList(parse_lines(lines, self._tools.keys.max_keys))
