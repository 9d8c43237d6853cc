"""The development provider over HTTP: endpoints for clients, and two pages for users.

GET  /.well-known/openid-configuration   GET /jwks        POST /device_authorization   POST /token
GET  /userinfo                           GET /api/users/{name}       GET /api/users/{name}/keys
GET  /device      POST /device           the page of a device code
GET  /authorize   POST /authorize        the page of an authorization code
"""

import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

from proxy.http import pages
from proxy.http.clock import REAL, Clock
from proxy.http.pages import Button, Fact
from proxy.http.secret import Secret
from proxy.http.sessions import Sessions, digest
from proxy.http.site import Site, read_form, read_query, redirect
from proxy.onboarding.device_flow import GRANT_TYPE
from proxy.onboarding.devserver.grants import (
    TOKEN_LIFETIME_S,
    AccessSubject,
    DevGrants,
    DeviceGrant,
    IssuedTokens,
    OAuthRefusal,
    RequestFacts,
)
from proxy.settings.onboarding import DevAccount, DevSettings

_log = structlog.get_logger("devprovider")
CLIENT_ID = "fairlead"
KEY_CLAIM = "fairlead_confirmed_key"
HONESTY = (
    "This is Fairlead's development provider. It asks for no password: every visitor of this page "
    "can log in to any account."
)
_FORM = "form-"
_MAX_FORMS = 20
"""Authorizations that one browser has open."""
_SHOWN = ("fairlead_name", "fairlead_source", "fairlead_key")


class DevServer:
    """One development provider; `start` it, give `issuer`, `client_id` and `secret` to a client."""

    def __init__(self, settings: DevSettings, *, clock: Clock = REAL) -> None:
        self._settings = settings
        self._clock = clock
        self.client_id = CLIENT_ID
        self.secret = Secret(secrets.token_urlsafe(32))
        self.redirect_uris: set[str] = set()
        """URLs to which codes may be sent; compared exactly."""
        self._grants = DevGrants(settings, clock)
        self._key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256", "kid": uuid.uuid4().hex})
        self._site = Site("dev", settings.host, settings.port, settings.public_url, is_for_programs=True)
        self._sessions: Sessions[None] = Sessions(settings.max_pending, clock=clock)
        self._site.app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.post("/device_authorization", self._device_authorization),
                web.post("/token", self._token),
                web.get("/userinfo", self._userinfo),
                web.get("/api/users/{name}", self._user),
                web.get("/api/users/{name}/keys", self._keys),
                web.get("/device", self._device_page),
                web.post("/device", self._device_answer),
                web.get("/authorize", self._authorize_page),
                web.post("/authorize", self._authorize_answer),
            ]
        )

    @property
    def issuer(self) -> str:
        """Return the URL for clients; it is also the issuer in tokens."""
        return self._site.local_url

    @property
    def port(self) -> int:
        """Return the port in use; valid after `start`."""
        return self._site.port

    @property
    def page_url(self) -> str:
        """Return the URL of the page for users."""
        return f"{self._site.public_url}/device"

    async def start(self) -> None:
        """Listen, and log a warning about this provider. Raises: SettingsError."""
        await self._site.start()
        _log.warning(
            "development identity provider: every visitor can log in to any account",
            page=self.page_url,
            beyond_this_machine=not self._settings.is_for_this_machine,
        )

    async def close(self) -> None:
        """Stop listening."""
        await self._site.close()

    # --------------------------------------------------------------------------------- metadata

    async def _discovery(self, request: web.Request) -> web.Response:
        del request
        local, public = self._site.local_url, self._site.public_url
        return web.json_response(
            {
                "issuer": local,
                "authorization_endpoint": f"{public}/authorize",
                "device_authorization_endpoint": f"{local}/device_authorization",
                "token_endpoint": f"{local}/token",
                "userinfo_endpoint": f"{local}/userinfo",
                "jwks_uri": f"{local}/jwks",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", GRANT_TYPE],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                "scopes_supported": ["openid", "profile", "email"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _jwks(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"keys": [self._key.as_dict(private=False)]})

    # -------------------------------------------------------------------------------- for clients

    async def _device_authorization(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        if not self._is_client(form):
            return _error("invalid_client", 401)
        shown = RequestFacts(*(form.get(name, "")[:200] for name in _SHOWN))
        try:
            device_code, grant = self._grants.begin_device(form.get("scope", "")[:500], shown)
        except OAuthRefusal as exc:
            return _error(str(exc), 503)
        return _answer(
            {
                "device_code": device_code,
                "user_code": grant.user_code,
                "verification_uri": self.page_url,
                "verification_uri_complete": f"{self.page_url}?{urlencode({'user_code': grant.user_code})}",
                "expires_in": self._settings.code_lifetime_s,
                "interval": self._settings.poll_interval_s,
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        if not self._is_client(form):
            return _error("invalid_client", 401)
        try:
            granted = self._redeem(form)
        except OAuthRefusal as exc:
            return _error(str(exc))
        return _answer(
            {
                "access_token": granted.access,
                "token_type": "Bearer",
                "expires_in": int(TOKEN_LIFETIME_S),
                "scope": granted.scope,
                "id_token": self._id_token(granted),
            }
        )

    def _redeem(self, form: Mapping[str, str]) -> IssuedTokens:
        if form.get("grant_type") == GRANT_TYPE:
            return self._grants.poll_device(form.get("device_code", ""))
        if form.get("grant_type") == "authorization_code":
            code, verifier = form.get("code", ""), form.get("code_verifier", "")
            return self._grants.redeem_code(code, form.get("redirect_uri", ""), verifier)
        raise OAuthRefusal("unsupported_grant_type")

    async def _userinfo(self, request: web.Request) -> web.Response:
        access = self._bearer(request)
        if access is None:
            return web.json_response({"error": "invalid_token"}, status=401)
        return _answer(_claims(access.account))

    async def _user(self, request: web.Request) -> web.Response:
        """Return the claims of an account to any client, as its page would."""
        account = self._grants.account(request.match_info["name"])
        if account is None:
            return web.json_response({"error": "not_found"}, status=404)
        return _answer(_claims(account))

    async def _keys(self, request: web.Request) -> web.Response:
        """Return the key list of an account; null when it keeps none."""
        account = self._grants.account(request.match_info["name"])
        if account is None:
            return web.json_response({"error": "not_found"}, status=404)
        lines = account.keys
        return web.json_response(None if lines is None else [{"key": line} for line in lines])

    def _is_client(self, form: Mapping[str, str]) -> bool:
        return form.get("client_id") == self.client_id and self.secret == Secret(
            form.get("client_secret", "")
        )

    def _bearer(self, request: web.Request) -> AccessSubject | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self._grants.bearer(token.strip()) if scheme.lower() == "bearer" else None

    def _id_token(self, granted: IssuedTokens) -> str:
        now = int(datetime.now(UTC).timestamp())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + int(TOKEN_LIFETIME_S),
            **_claims(granted.account),
        }
        if granted.nonce:
            claims["nonce"] = granted.nonce
        if granted.confirmed:
            claims[KEY_CLAIM] = granted.confirmed
        return jwt.encode({"alg": "ES256", "kid": self._key.kid}, claims, self._key)

    # ------------------------------------------------------------------------- the page of a code

    async def _device_page(self, request: web.Request) -> web.StreamResponse:
        user_code = read_query(request).get("user_code", "")[:64]
        if not user_code:
            return self._ask_code()
        grant = self._find(user_code)
        if grant is None:
            return self._ask_code("That code is not known, or it was used, or it has expired.")
        session = self._known(request) or self._sessions.begin(None)
        shown = grant.shown
        body = (
            pages.facts(
                [
                    Fact("Code", grant.user_code, code=True),
                    Fact("User name", shown.name),
                    Fact("From address", shown.source),
                    Fact("With key", shown.fingerprint),
                ]
            )
            + pages.paragraph(
                "Approve only if you started this login yourself and the terminal shows the same code. "
                "Approving lets this key log in from now on."
            )
            + pages.form(
                "/device",
                [("csrf", self._site.csrf(session, grant.user_code)), ("user_code", grant.user_code)],
                self._account_input(shown.name),
                [Button("approve", "Approve", go=True), Button("deny", "Deny")],
            )
            + pages.paragraph(HONESTY, "warning")
        )
        response = self._site.page("Let this terminal in?", body)
        self._site.give_cookie(response, session)
        return response

    async def _device_answer(self, request: web.Request) -> web.StreamResponse:
        self._site.check_origin(request)
        form = await read_form(request)
        user_code = form.get("user_code", "")
        self._site.check_csrf(self._known(request), user_code, form.get("csrf", ""))
        grant = self._find(user_code)
        if grant is None:
            return self._ask_code("That code was used already, or it has expired.")
        if form.get("decision") != "approve":
            grant.state = "denied"
            return self._site.page("Denied", pages.paragraph("Login refused. You can close this page."))
        account = self._grants.account(form.get("account", ""))
        if account is None:
            raise web.HTTPBadRequest(text="There is no such account here.")
        grant.account, grant.state = account, "approved"
        body = pages.paragraph("Go back to the terminal: it goes on by itself. You can close this page.")
        return self._renewed(request, self._site.page("Approved", body))

    def _known(self, request: web.Request, slot: str = "") -> str:
        """Return the value of a browser's cookie if it was issued here, else "": no other is adopted."""
        value = self._site.cookie(request, slot)
        return value if value in self._sessions else ""

    def _renewed(self, request: web.Request, response: web.Response) -> web.Response:
        """Issue a new value to a browser whose user has chosen an account."""
        self._site.give_cookie(response, self._sessions.renew(self._site.cookie(request), None))
        return response

    def _find(self, user_code: str) -> DeviceGrant | None:
        try:
            return self._grants.find(user_code)
        except OAuthRefusal as exc:
            raise web.HTTPTooManyRequests(text=str(exc).capitalize() + ".") from None

    def _ask_code(self, problem: str = "") -> web.Response:
        code = pages.text_input("user_code", "Code", "")
        body = (
            (pages.paragraph(problem, "warning") if problem else "")
            + pages.paragraph("Type the code that the terminal shows.")
            + pages.form("/device", [], code, [Button("", "Go on", go=True)], "get")
            + pages.paragraph(HONESTY, "soft")
        )
        return self._site.page("Log a terminal in", body, status=404 if problem else 200)

    def _account_input(self, suggested: str) -> str:
        names = [account.name for account in self._settings.accounts]
        return pages.text_input("account", "Who are you?", suggested, names)

    # ------------------------------------------------------------- the page of an authorization

    async def _authorize_page(self, request: web.Request) -> web.StreamResponse:
        query = self._check_authorization(read_query(request))
        matter = urlencode(sorted(query.items()))
        session = self._known(request, _slot(matter)) or self._sessions.begin(None)
        body = (
            pages.paragraph("Fairlead wants to know who you are.")
            + pages.form(
                "/authorize",
                [("csrf", self._site.csrf(session, matter)), *query.items()],
                self._account_input(query.get("login_hint", "")),
                [Button("approve", "Go on", go=True), Button("deny", "Deny")],
            )
            + pages.paragraph(HONESTY, "warning")
        )
        parts = urlsplit(query["redirect_uri"])
        response = self._site.page("Sign in", body, form_targets=[f"{parts.scheme}://{parts.netloc}"])
        self._site.end_oldest_cookies(request, response, _FORM, _MAX_FORMS - 1)
        self._site.give_cookie(response, session, _slot(matter))
        return response

    async def _authorize_answer(self, request: web.Request) -> web.StreamResponse:
        self._site.check_origin(request)
        form = await read_form(request)
        given = {name: form.pop(name, "") for name in ("csrf", "account", "decision")}
        query = self._check_authorization(form)
        matter = urlencode(sorted(query.items()))
        session = self._known(request, _slot(matter))
        self._site.check_csrf(session, matter, given["csrf"])
        reply = {"state": query.get("state", ""), "iss": self.issuer}
        account = self._grants.account(given["account"])
        if given["decision"] != "approve":
            reply["error"] = "access_denied"
        elif account is None:
            raise web.HTTPBadRequest(text="There is no such account here.")
        else:
            reply["code"] = self._grants.begin_code(account, query)
        response = redirect(f"{query['redirect_uri']}?{urlencode(reply)}")
        self._sessions.end(session)
        self._site.end_cookie(response, _slot(matter))
        return response

    def _check_authorization(self, query: Mapping[str, str]) -> dict[str, str]:
        """Check a request; show an error here if it must not be sent on (RFC 6749 §4.1.2.1)."""
        if query.get("client_id") != self.client_id or query.get("redirect_uri") not in self.redirect_uris:
            raise web.HTTPBadRequest(text="This client or its redirect URI is not registered here.")
        if query.get("response_type") != "code" or query.get("code_challenge_method") != "S256":
            raise web.HTTPBadRequest(text="Only the authorization code grant with PKCE (S256) is offered.")
        if len(query.get("code_challenge", "")) != 43:
            raise web.HTTPBadRequest(text="The PKCE challenge is missing or malformed.")
        return dict(query)


def _slot(matter: str) -> str:
    """Return the cookie slot of one authorization: concurrent tabs do not end each other's forms."""
    return f"{_FORM}{digest(matter)[:8]}"


def _claims(account: DevAccount) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "sub": f"dev-{account.name}",
        "preferred_username": account.name,
        "groups": list(account.groups),
    }
    if account.full_name:
        claims["name"] = account.full_name
    if account.email:
        claims |= {"email": account.email, "email_verified": True}
    return claims


def _answer(document: Mapping[str, Any]) -> web.Response:
    return web.json_response(document, headers={"Cache-Control": "no-store"})


def _error(word: str, status: int = 400) -> web.Response:
    return web.json_response({"error": word}, status=status, headers={"Cache-Control": "no-store"})
