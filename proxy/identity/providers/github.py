"""GitHub, and GitHub Enterprise: an OAuth app with device flow enabled; no OpenID Connect.

Sources: docs.github.com "Authorizing OAuth apps" (device flow, PKCE), REST "Users", "Git SSH keys", "Emails",
"Organizations", "Teams". Logins can be renamed and taken by somebody else; the numeric id is the subject.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from proxy.errors import ProviderMisconfigured
from proxy.identity import device_flow
from proxy.identity.authcode import CodeClient
from proxy.identity.device_flow import Authorization, DeviceClient, Tokens
from proxy.identity.http import Request
from proxy.identity.mapping import ClaimMapping
from proxy.identity.profile import KeyList, Profile
from proxy.identity.providers.base import About, Gate, Tools, get_json, make_profile, misconfigured
from proxy.identity.providers.keylists import KeyLists, Page, read_pages
from proxy.identity.secret import Secret
from proxy.settings.front_door import Approval, GitHubSettings

_HEADERS = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


def api_of(url: str) -> str:
    """Give the address of the REST API that belongs to a GitHub."""
    host = urlsplit(url).netloc
    if host in ("github.com", "www.github.com"):
        return "https://api.github.com"
    if host.endswith(".ghe.com"):  # Enterprise Cloud with data residency
        return f"https://api.{host}"
    return f"{url}/api/v3"


class GitHub:
    """One OAuth app at one GitHub."""

    def __init__(self, settings: GitHubSettings, secret: Secret | None, tools: Tools) -> None:
        self._settings = settings
        self._secret = secret
        self._tools = tools
        self._api = api_of(settings.url)
        self._mapping = ClaimMapping(settings.title, "github", settings.mapping)
        self._lists = KeyLists(settings.title, tools.keys, tools.clock)

    @property
    def name(self) -> str:
        return self._settings.title

    @property
    def approval(self) -> Approval:
        return self._settings.approval

    @property
    def can_onboard(self) -> bool:
        return self._settings.onboard

    @property
    def _scopes(self) -> tuple[str, ...]:
        scopes = ("read:user", "user:email")
        return scopes if self._settings.groups == "none" else (*scopes, "read:org")

    def _device_client(self, max_lifetime_s: float) -> DeviceClient:
        return DeviceClient(
            provider=self.name,
            device_url=f"{self._settings.url}/login/device/code",
            token_url=f"{self._settings.url}/login/oauth/access_token",
            client_id=self._settings.client_id,
            client_secret=self._secret,
            scopes=self._scopes,
            max_lifetime_s=max_lifetime_s,
        )

    async def start_device(self, about: About, max_lifetime_s: float) -> Authorization:
        del about  # its page has no place for it
        client = self._device_client(max_lifetime_s)
        return await device_flow.obtain(client, self._tools.http, self._tools.clock)

    async def poll_device(self, authorization: Authorization, gate: Gate | None = None) -> Tokens:
        client, tools = self._device_client(0), self._tools
        return await device_flow.await_approval(client, authorization, tools.http, tools.clock, gate)

    async def code_client(self) -> CodeClient:
        return CodeClient(
            provider=self.name,
            authorize_url=f"{self._settings.url}/login/oauth/authorize",
            token_url=f"{self._settings.url}/login/oauth/access_token",
            client_id=self._settings.client_id,
            client_secret=self._secret,
            scopes=self._scopes,
        )

    async def profile(self, tokens: Tokens, *, nonce: Secret | None = None) -> Profile:
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

    async def keys(self, subject: str, login: str, access: Secret | None = None) -> KeyList | None:
        async def fetch(pages: dict[str, Page]) -> list[str]:
            # A name is only as good as the account it belongs to now.
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
        except ProviderMisconfigured:  # the person may have withheld the scope
            return {"email": None, "email_verified": False}
        for entry in emails if isinstance(emails, list) else []:
            if isinstance(entry, dict) and entry.get("primary") is True and entry.get("verified") is True:
                return {"email": entry.get("email"), "email_verified": True}
        return {"email": None, "email_verified": False}

    async def _groups(self, access: Secret) -> list[str]:
        if self._settings.groups == "none":
            return []
        groups = [entry.get("login") for entry in await self._pages("/user/orgs?per_page=100", access)]
        if self._settings.groups == "teams":
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
        """Make a request as the person, or as the app, whose hourly allowance is 80 times an address's."""
        basic = (self._settings.client_id, self._secret) if access is None and self._secret else None
        return Request(f"{self._api}{path}", bearer=access, basic=basic, headers=_HEADERS)
