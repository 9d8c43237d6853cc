"""GitLab, gitlab.com or self-managed (device flow since 17.2).

Sources: docs.gitlab.com "OAuth 2.0 identity provider API", "Users API", "User SSH and GPG keys API",
"OpenID Connect identity". Every request uses the numeric id, which is the subject.
"""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from proxy.http.client import Request
from proxy.http.secret import Secret
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import Tools, get_json, make_profile, misconfigured
from proxy.onboarding.providers.forge import Forge, ForgeEndpoints
from proxy.onboarding.providers.keylists import Page, read_pages
from proxy.settings.onboarding import GitLabSettings

_SCOPES = ("openid", "profile", "email", "read_user")


class GitLab(Forge):
    """One OAuth application at one GitLab."""

    def __init__(self, settings: GitLabSettings, secret: Secret | None, tools: Tools) -> None:
        endpoints = ForgeEndpoints(
            device=f"{settings.url}/oauth/authorize_device",
            authorize=f"{settings.url}/oauth/authorize",
            token=f"{settings.url}/oauth/token",
        )
        super().__init__(settings, secret, tools, endpoints=endpoints, scopes=_SCOPES)

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """See Provider."""
        del nonce  # the account is read with the token itself; the ID token adds nothing
        claims = await self._get("/api/v4/user", tokens.access)
        if not isinstance(claims, dict) or not isinstance(claims.get("id"), int):
            raise misconfigured(self.name, "/api/v4/user gave no account id")
        claims["email_verified"] = bool(claims.get("confirmed_at"))
        claims["groups"] = await self._groups(tokens.access, str(claims["id"]))
        mapped = self._mapping.apply(claims)
        return make_profile(
            self.name,
            self._settings.url,
            str(claims["id"]),
            str(claims.get("username") or ""),
            mapped,
            claims,
            active=claims.get("state") == "active" and not claims.get("locked"),
        )

    async def probe(self) -> None:
        """See Forge."""
        url = f"{self._settings.url}/.well-known/openid-configuration"
        await get_json(self._tools, self.name, Request(url))

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        """See Provider."""
        del login  # GitLab is asked by id

        async def fetch(pages: dict[str, Page]) -> list[str]:
            path = f"/api/v4/users/{quote(subject, safe='')}/keys?per_page=100"
            request = Request(f"{self._settings.url}{path}", bearer=access)
            entries = await read_pages(self._tools, self.name, request, pages) or []
            now = datetime.now(UTC)
            return [str(entry.get("key", "")) for entry in entries if _is_for_login(entry, now)]

        return await self._lists.get(subject, fetch, fresh=access is not None)

    async def _groups(self, access: Secret, subject: str) -> list[str]:
        """Return full paths of groups from the OpenID endpoint: the API would need far wider scopes."""
        info = await self._get("/oauth/userinfo", access)
        if not isinstance(info, dict) or str(info.get("sub")) != subject:
            raise misconfigured(self.name, "/oauth/userinfo is about another account")
        groups = info.get("groups")
        return [group for group in groups if isinstance(group, str)] if isinstance(groups, list) else []

    async def _get(self, path: str, access: Secret) -> Any:
        return await get_json(self._tools, self.name, Request(f"{self._settings.url}{path}", bearer=access))


def _is_for_login(entry: Any, now: datetime) -> bool:
    """Return whether a listed key may authenticate.

    A key for signing only does not, nor one that has expired or has an unreadable expiry.
    """
    if not isinstance(entry, dict) or entry.get("usage_type", "auth") not in ("auth", "auth_and_signing"):
        return False
    if (expires := entry.get("expires_at")) is None:
        return True
    try:
        moment = datetime.fromisoformat(str(expires))
    except ValueError:
        return False
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > now
