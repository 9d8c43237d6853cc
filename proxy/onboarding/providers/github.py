"""GitHub, and GitHub Enterprise: an OAuth app with device flow enabled; no OpenID Connect.

Sources: docs.github.com "Authorizing OAuth apps" (device flow, PKCE), REST "Users", "Git SSH keys", "Emails",
"Organizations", "Teams". A login can be renamed and then belong to another account; the numeric id is the
subject.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from proxy.errors.login import GrantEnded, ProviderMisconfigured
from proxy.http.client import Request
from proxy.http.secret import Secret
from proxy.identity.profile import KeyList, Profile
from proxy.onboarding.device_flow import Tokens
from proxy.onboarding.providers.base import (
    KeepTokens,
    Tools,
    account_ended,
    get_json,
    make_profile,
    misconfigured,
)
from proxy.onboarding.providers.forge import Forge, ForgeEndpoints
from proxy.onboarding.providers.keylists import Page, read_pages
from proxy.settings.onboarding import GitHubSettings

_ACCESS = "access:"
"""Prefix of a grant that is an access token; no token of GitHub holds a colon."""
_HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


def api_of(url: str) -> str:
    """Return the URL of the REST API that belongs to a GitHub."""
    host = urlsplit(url).netloc
    if host in ("github.com", "www.github.com"):
        return "https://api.github.com"
    if host.endswith(".ghe.com"):  # Enterprise Cloud with data residency
        return f"https://api.{host}"
    return f"{url}/api/v3"


class GitHub(Forge):
    """One OAuth app at one GitHub."""

    def __init__(self, settings: GitHubSettings, secret: Secret | None, tools: Tools) -> None:
        scopes = ("read:user", "user:email")
        endpoints = ForgeEndpoints(
            device=f"{settings.url}/login/device/code",
            authorize=f"{settings.url}/login/oauth/authorize",
            token=f"{settings.url}/login/oauth/access_token",
        )
        wanted = scopes if settings.groups == "none" else (*scopes, "read:org")
        super().__init__(settings, secret, tools, endpoints=endpoints, scopes=wanted)
        self._group_source = settings.groups
        self._api = api_of(settings.url)

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
        """See Provider."""
        del nonce  # GitHub gives no ID token; state and PKCE bind the reply to the browser
        claims = await self._get("/user", tokens.access)
        if not isinstance(claims, dict) or not isinstance(claims.get("id"), int):
            raise misconfigured(self.name, "/user gave no account id")
        claims |= await self._verified_email(tokens.access)
        claims["groups"] = await self._groups(tokens.access)
        mapped = self._mapping.apply(claims)
        return make_profile(
            self.name,
            self._settings.url,
            str(claims["id"]),
            str(claims.get("login") or ""),
            mapped,
            claims,
            active=not claims.get("suspended_at"),
        )

    def grant_of(self, tokens: Tokens) -> Secret | None:
        """Return the refresh token of a GitHub App, or the token of an OAuth app, which does not expire."""
        return tokens.refresh or Secret(f"{_ACCESS}{tokens.access.reveal()}")

    async def _tokens_of(self, grant: Secret, keep: KeepTokens) -> Tokens:
        if grant.reveal().startswith(_ACCESS):
            return Tokens(Secret(grant.reveal().removeprefix(_ACCESS)))
        return await super()._tokens_of(grant, keep)

    async def renew(self, subject: str, grant: Secret | None, keep: KeepTokens) -> Profile:
        """See Provider."""
        try:
            return await super().renew(subject, grant, keep)
        except GrantEnded:
            # The user may have revoked it; any client may ask whether the account exists.
            if not await self._login_of(subject):
                raise account_ended(self.name, f"account {subject} is gone or suspended") from None
            raise

    async def probe(self) -> None:
        """See Forge."""
        await get_json(self._tools, self.name, self._request("/meta", None))

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        """See Provider."""

        async def fetch(pages: dict[str, Page]) -> list[str]:
            # A name is only as good as the account to which it belongs now.
            name = login if access is not None else await self._login_of(subject)
            if not name:
                return []
            request = self._request(f"/users/{quote(name, safe='')}/keys?per_page=100", access)
            entries = await read_pages(self._tools, self.name, request, pages) or []
            return [str(entry.get("key", "")) for entry in entries if isinstance(entry, dict)]

        return await self._lists.get(subject, fetch, fresh=access is not None)

    async def _login_of(self, subject: str) -> str:
        request = self._request(f"/user/{quote(subject, safe='')}", None)
        account = await get_json(self._tools, self.name, request, absent_ok=True)
        if account is None:
            return ""  # the account is gone, and its keys with it
        if not isinstance(account, dict) or str(account.get("id")) != subject:
            raise misconfigured(self.name, "/user/{id} gave another account")
        return "" if account.get("suspended_at") else str(account.get("login") or "")

    async def _verified_email(self, access: Secret) -> dict[str, Any]:
        try:
            emails = await self._get("/user/emails?per_page=100", access)
        except ProviderMisconfigured:  # the user may have refused the scope
            return {"email": None, "email_verified": False}
        for entry in emails if isinstance(emails, list) else []:
            if isinstance(entry, dict) and entry.get("primary") is True and entry.get("verified") is True:
                return {"email": entry.get("email"), "email_verified": True}
        return {"email": None, "email_verified": False}

    async def _groups(self, access: Secret) -> list[str]:
        if self._group_source == "none":
            return []
        groups = [entry.get("login") for entry in await self._pages("/user/orgs?per_page=100", access)]
        if self._group_source == "teams":
            for team in await self._pages("/user/teams?per_page=100", access):
                organization = team.get("organization")
                if isinstance(organization, dict):
                    groups.append(f"{organization.get('login')}/{team.get('slug')}")
        return [group for group in groups if isinstance(group, str)]

    async def _pages(self, path: str, access: Secret) -> list[dict[str, Any]]:
        entries = await read_pages(self._tools, self.name, self._request(path, access), {})
        return [entry for entry in entries or [] if isinstance(entry, dict)]

    async def _get(self, path: str, access: Secret) -> Any:
        return await get_json(self._tools, self.name, self._request(path, access))

    def _request(self, path: str, access: Secret | None) -> Request:
        """Return a request as the user, or as the app, whose hourly limit is 80 times an address's."""
        basic = (self._settings.client_id, self._secret) if access is None and self._secret else None
        return Request(f"{self._api}{path}", bearer=access, basic=basic, headers=_HEADERS)
