"""The login origin: sign-in with a provider, one-use codes for the origins of apps, sign-out.

    GET  /            the ways to sign in; for a signed-in browser the page of `portal`
    GET  /login       from an app: on to a provider, or back with a code when the browser is signed in
    GET  /start/{n}   to the provider of that number, by authorization code and PKCE
    GET  /callback    back from the provider: who is it?
    POST /sign-out    of this browser, or of all
    POST /continue    from the page before an app of another user
    POST /backchannel-logout/{p}   a provider says that a session ended (OpenID Connect Back-Channel Logout)
    /link/…           see `links`

A browser on its way to a provider leaves nothing here. What it left with is sealed in `state`, which is good
only with the cookie whose digest it holds; nonce and verifier are derived from both. So any replica may see
the browser again, and a stranger can make no replica keep anything.

Sources: RFC 6749 §4.1, RFC 7636, RFC 9207, OpenID Connect Core §3.1, RFC 9700 §2.1 and §4.7.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from urllib.parse import urlencode

import structlog
from aiohttp import web

from proxy.access import policy
from proxy.addresses import source_of
from proxy.errors import FairleadError
from proxy.errors.login import ApprovalDenied, CodeExpired, OnboardingError
from proxy.errors.stores import IdentityError, StoreError
from proxy.http import pages
from proxy.http.client import Http
from proxy.http.pages import Fact
from proxy.http.secret import Secret
from proxy.http.sessions import digest, is_of
from proxy.http.site import Handler, Site, read_form, read_query, redirect
from proxy.identity.directory import Directory
from proxy.identity.profile import Profile
from proxy.model import User
from proxy.onboarding import authcode
from proxy.onboarding.authcode import WebLogin
from proxy.onboarding.providers.base import Provider
from proxy.onboarding.providers.dev import ISSUER as DEV_ISSUER
from proxy.onboarding.providers.oidc import Oidc
from proxy.protection.startups import Rate
from proxy.web.heads import CLIENT_FIELD
from proxy.web.interstitial import CONTINUE, Interstitial
from proxy.web.origins import Origins
from proxy.web.places import Opened, Places
from proxy.web.returns import COMPLETED, Return, is_slot, new_slot
from proxy.web.seals import ISSUED_AT
from proxy.web.sessions import Held, SignIn, WebSessions

_log = structlog.get_logger("web")

LABEL = "login"
_VISIT_LIFE_S = 600
_STATE, _VISIT = "state", "visit"
_MAX_SOURCES = 20_000
_MAX_UNUSED = 2
"""Sessions of one origin that a browser was given and did not bring back: then it keeps no cookies."""
_UNUSED_S = 60
_BACK_CHANNEL = "/backchannel-logout/"
_LOGOUTS_FACTOR = 10
"""A provider speaks for all of its users from one address."""


class Addresses(Protocol):
    """The rules for addresses of clients, shared with SSH."""

    def refuses(self, address: str) -> bool:
        """Return whether a ban keeps an address out now."""

    def failed_at(self, address: str, reasons: Sequence[str]) -> None:
        """Record a login that was refused; too many ban the address."""

    def succeeded_at(self, address: str) -> None:
        """Record the login of a known user."""


@dataclass(frozen=True, slots=True)
class LoginRules:
    """The rules of the login pages, from the settings."""

    is_ssh_only: bool
    attempts_per_minute: int
    dev_user: str
    """User whom the account of the same name at the development provider means, without being bound to it."""
    addresses: Addresses
    ssh_line: Callable[[str], str]
    """Writes the command that signs a user in by SSH; `<you>` stands for an unknown name."""


class LoginPages:
    """The site of the login origin; an `OwnSite` of the front."""

    label = LABEL

    def __init__(
        self,
        sessions: WebSessions,
        places: Places,
        origins: Origins,
        directory: Directory,
        providers: Sequence[Provider],
        http: Http,
        rules: LoginRules,
    ) -> None:
        self.sessions = sessions
        self._places = places
        self._origins = origins
        self.directory = directory
        self._providers = [] if rules.is_ssh_only else list(providers)
        self._http = http
        self._rules = rules
        self.url = origins.origin(LABEL)
        key = sessions.seals.derive("forms", LABEL).encode()
        self.site = Site(LABEL, "", 0, self.url, key=key)
        self._interstitial = Interstitial(self.site, sessions.seals, origins)
        self._rate = Rate(rules.attempts_per_minute, rules.attempts_per_minute, _MAX_SOURCES)
        many = _LOGOUTS_FACTOR * rules.attempts_per_minute
        self._logouts = Rate(many, many, _MAX_SOURCES)
        self.home: Handler | None = None
        """The page of `/`; set before `start`."""
        self.site.app.middlewares.append(self._slowly)
        self.site.app.add_routes(
            [
                web.get("/", self._home),
                web.get("/login", self._login),
                web.get("/start/{number}", self._start),
                web.get("/callback", self._return),
                web.post("/sign-out", self._sign_out),
                web.post(CONTINUE, self._continue),
                web.post(f"{_BACK_CHANNEL}{{provider}}", self._logged_out),
            ]
        )

    @property
    def redirect_uri(self) -> str:
        """To be registered with providers."""
        return f"{self.url}/callback"

    async def start(self) -> None:
        """Be ready for connections."""
        await self.site.start_behind()

    async def close(self) -> None:
        """Serve no more."""
        await self.site.close()

    def connection(self) -> asyncio.Protocol:
        """See OwnSite."""
        return self.site.connection()

    # ---------------------------------------------------------------------------------- checks

    @web.middleware
    async def _slowly(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse banned addresses, too many requests from one, and requests without a store."""
        if self._rules.addresses.refuses(client_of(request)):
            raise web.HTTPForbidden(text="Your address is banned.")
        if not self._rate_of(request):
            return self._later("There are too many requests from your address. Wait a minute.", 429, 60)
        try:
            return await handler(request)
        except StoreError as exc:
            _log.warning("login pages cannot ask the store", reason=str(exc))
            return self._later("Sign-in is not possible at the moment. Try again soon.", 503, 5)

    def _rate_of(self, request: web.Request) -> bool:
        """Count a request; false when there are too many.

        Those of a signed-in browser count for its session: many users may come from one address.
        """
        now, source = asyncio.get_running_loop().time(), source_of(client_of(request))
        if request.path.startswith(_BACK_CHANNEL):
            return self._logouts.take(source, now)
        value = self.site.cookie(request)
        is_ours = self.sessions.is_issued(value, "")
        return self._rate.take(f"session {digest(value)}" if is_ours else source, now)

    def _later(self, text: str, status: int, after_s: int) -> web.Response:
        response = self.sorry("Not now", text, status)
        response.headers["Retry-After"] = str(after_s)
        return response

    async def held(self, request: web.Request, *, is_use: bool = True) -> Held | None:
        """Return the session of a request's browser at this origin. Raises: StoreError.

        Without `is_use` the request does not keep the session from ending idle.
        """
        return await self.sessions.find(self.site.cookie(request), "", is_use=is_use)

    def sorry(self, title: str, text: str, status: int = 403) -> web.Response:
        """Answer with a page of one sentence."""
        return self.site.page(title, pages.paragraph(text), status=status)

    # ------------------------------------------------------------------------------- the way in

    async def _home(self, request: web.Request) -> web.StreamResponse:
        return self.choose(None) if self.home is None else await self.home(request)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        back = Return.read(read_query(request))
        if back is None:
            return redirect(f"{self.url}/")
        held = await self.held(request)
        if held is not None:
            return await self._send_back(request, held, back)
        if len(self._providers) == 1:
            return await self._leave(request, 0, back)
        return self.choose(back)

    def choose(self, back: Return | None) -> web.Response:
        """Offer the ways to sign in; a provider is begun by a link, which changes nothing here."""
        query = f"?{urlencode(back.query())}" if back is not None else ""
        links = "".join(
            pages.link(f"/start/{number}{query}", f"Sign in with {provider.name}")
            for number, provider in enumerate(self._providers)
        )
        line = self._rules.ssh_line("<you>")
        body = links + pages.paragraph("With your SSH key: type this in a terminal, and open what it prints.")
        return self.site.page("Sign in", body + pages.facts([Fact("Command", line)]), status=401)

    async def _start(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info["number"]
        if not number.isascii() or not number.isdecimal() or int(number[:4]) >= len(self._providers):
            raise web.HTTPNotFound(text="There is no such provider.")
        return await self._leave(request, int(number[:4]), Return.read(read_query(request)))

    async def _leave(self, request: web.Request, number: int, back: Return | None) -> web.Response:
        """Send a browser to a provider."""
        provider = self._providers[number]
        slot, browser = self._visit(request)
        about = {"provider": provider.name, _VISIT: slot, "browser": digest(browser)}
        if back is not None:
            about |= back.query()
        state = self.sessions.seals.seal(_STATE, about)
        try:
            client = await provider.code_client()
        except OnboardingError as exc:
            return self._failed(provider.name, exc)
        response = redirect(authcode.authorize_url(client, self._web_login(state, browser)))
        self.site.give_cookie(response, browser, f"{_VISIT}-{slot}", life_s=_VISIT_LIFE_S)
        return response

    def _visit(self, request: web.Request) -> tuple[str, str]:
        """Return slot and value of the cookie of ways to a provider: the one that is there, or a new one.

        Tabs share it, as in `LoginGate`.
        """
        for slot in self.site.slots(request, f"{_VISIT}-"):
            value = self.site.cookie(request, f"{_VISIT}-{slot}")
            if is_slot(slot) and self.sessions.seals.is_issued(_VISIT, value):
                return slot, value
        return new_slot(), self.sessions.seals.issue(_VISIT)

    def _web_login(self, state: str, browser: str) -> WebLogin:
        """Return the secrets of one way, the same at every replica."""
        seals = self.sessions.seals
        nonce = Secret(seals.derive("nonce", f"{state} {browser}"))
        return WebLogin(
            self.redirect_uri, Secret(state), nonce, Secret(seals.derive("verifier", f"{state} {browser}"))
        )

    # ------------------------------------------------------------------------------ the way back

    async def _return(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request)
        state = query.get("state", "")
        about = self.sessions.seals.open(_STATE, state, _VISIT_LIFE_S)
        if about is None:
            return self.sorry("That did not work", _NOT_BEGUN)
        browser = self.site.cookie(request, _slot(about))
        if self.sessions.seals.is_issued(_VISIT, browser) and is_of(browser, about["browser"]):
            return await self._sign_in(request, about, query, self._web_login(state, browser))
        back = Return.read(about)
        if back is not None and _is_since(await self.held(request), about):
            return self._onward(back)  # another tab was faster, and took the cookie along
        return self.sorry("That did not work", _NOT_BEGUN)

    async def _sign_in(
        self, request: web.Request, about: Mapping[str, str], query: Mapping[str, str], login: WebLogin
    ) -> web.Response:
        provider = next((one for one in self._providers if one.name == about["provider"]), None)
        if provider is None:
            return self.sorry("That did not work", "This provider is not offered any more.")
        try:
            client = await provider.code_client()
            code = authcode.read_callback(client, query)
            tokens = await authcode.redeem(client, login, code, self._http)
            profile = await provider.profile(tokens, nonce=login.nonce)
        except CodeExpired:
            self.refused(request, provider.name, CodeExpired.code)
            return self.sorry("That did not work", COMPLETED)
        except ApprovalDenied:
            self.refused(request, provider.name, "denied")
            return self.sorry("Not signed in", f"{provider.name} says that the sign-in was denied.")
        except OnboardingError as exc:
            self.refused(request, provider.name, exc.code)
            return self._failed(provider.name, exc)
        return await self._admit(request, profile, about)

    async def _admit(self, request: web.Request, profile: Profile, about: Mapping[str, str]) -> web.Response:
        """Sign the user in who is bound to an account."""
        user = await self._user_of(profile)
        if isinstance(user, str):
            self.refused(request, profile.provider, user)
            return self.sorry("Not signed in", _REFUSALS[user].format(line=self._rules.ssh_line("<you>")))
        if not (decision := policy.may_login(user, datetime.now(UTC))):
            self.refused(request, profile.provider, "user_not_admitted", user.name)
            return self.sorry("Not signed in", f"{decision.reason[:1].upper()}{decision.reason[1:]}.")
        back, held = Return.read(about), await self.held(request)
        if back is not None and held is not None and _is_since(held, about) and _is_by(held, profile, user):
            return self._onward(back)  # a new session would end what the faster tab has open
        sid = profile.claims.get("sid")
        who = SignIn(
            user,
            client_of(request),
            provider=profile.provider,
            issuer=profile.issuer,
            subject=profile.subject,
            sid=sid[:255] if isinstance(sid, str) else "",
        )
        response = await self.signed_in(request, who, back)
        self.site.end_cookie(response, _slot(about))
        return response

    async def _user_of(self, profile: Profile) -> User | str:
        """Return the user of an account, as the directory has it now, or a word for why there is none."""
        if not profile.active:
            return "account_inactive"
        user = await self.directory.find_account(profile.issuer, profile.subject)
        if user is None:
            name = self._rules.dev_user
            is_dev = bool(name) and (profile.issuer, profile.subject) == (DEV_ISSUER, f"dev-{name}")
            return (await self.directory.find(name) if is_dev else None) or "account_unknown"
        try:
            await self.directory.renew(profile, user.name)
        except IdentityError:
            return "account_unknown"
        return await self.directory.find(user.name) or "account_unknown"

    async def signed_in(self, request: web.Request, who: SignIn, back: Return | None) -> web.Response:
        """Give the browser a new session, and send it back to where it came from."""
        value = await self.sessions.sign_in(who, await self.held(request))
        self._rules.addresses.succeeded_at(who.client)
        response = self._onward(back) if back is not None else redirect(f"{self.url}/")
        self.site.give_cookie(response, value, life_s=self.sessions.life_s)
        return response

    def _onward(self, back: Return) -> web.Response:
        """Go on to the app's origin by a page, not by a redirect.

        The browser may be on its way from the form of a provider. Chromium holds redirects behind a form to
        the provider's `form-action` (CSP Level 3 §6.4.2), which names this origin at most.
        """
        onward = f"{self.url}/login?{urlencode(back.query())}"
        response = self.site.page("Signed in", pages.link(onward, "Go on to the app"))
        response.headers["Refresh"] = f"0; url={onward}"
        return response

    async def _send_back(self, request: web.Request, held: Held, back: Return) -> web.Response:
        """Give a browser that is signed in a code for the origin of an app that its user may open."""
        opened = self._places.find(held.user, back.label)
        if opened is None:
            return self._not_there(held)
        if opened.owner != held.user.name:
            owner = await self._owner(opened)
            if owner is None:
                return self._not_there(held)
            if not self._interstitial.was_passed(request, held, owner, opened):
                return self._interstitial.page(request, held, owner, opened, back)
        origin = self._origins.origin(back.label)
        host = f"{back.label}.{self._origins.domain}"
        if await self._keeps_no_cookies(held, host, back):
            text = (
                f"This browser was given a session for {origin} and did not bring it back: it blocks cookies "
                "of that page. Permit them, then open the address of the app again."
            )
            return self.sorry("Your browser keeps no cookies", text)
        code = await self.sessions.offer(held, host, back.pre, client_of(request))
        return redirect(f"{origin}/.fairlead/redeem?{urlencode({**back.query(), 'code': code})}")

    def _not_there(self, held: Held) -> web.Response:
        """Answer alike for an app that is absent, and for one that this user may not open."""
        text = f"You are signed in as {held.user.name}."
        return self.sorry("There is nothing here, or it is not for you", text, 404)

    async def _owner(self, opened: Opened) -> User | None:
        """Return the owner of an app of another user; None for an owner who does not offer it any more."""
        owner = await self.directory.find(opened.owner)
        return owner if self._places.is_offered(opened, owner, datetime.now(UTC)) else None

    async def _continue(self, request: web.Request) -> web.StreamResponse:
        """Take the answer to the interstitial page."""
        self.site.check_origin(request)
        form = await read_form(request)
        back, held = Return.read(form), await self.held(request)
        if back is None or held is None:
            return redirect(f"{self.url}/")
        self._interstitial.check(request, back, form)
        opened = self._places.find(held.user, back.label)
        owner = None if opened is None else await self._owner(opened)
        if opened is None or owner is None:
            return self._not_there(held)
        if form.get("decision") != "open":
            return self.sorry("Not opened", "You can close this page.", 200)
        response = self._onward(back)
        self._interstitial.remember(request, response, held, owner, opened)
        return response

    async def _keeps_no_cookies(self, held: Held, host: str, back: Return) -> bool:
        """Tell whether sessions came to nothing that were there when the browser left the app's origin."""
        left_at = datetime.fromtimestamp(min(float(back.left_at), 253_370_764_800), UTC)
        since = datetime.now(UTC) - timedelta(seconds=_UNUSED_S)
        unused = await self.sessions.store.unused(held.record.id, host, left_at, since)
        return unused >= _MAX_UNUSED

    # ---------------------------------------------------------------------------------- the end

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        self.site.check_origin(request)
        form = await read_form(request)
        self.site.check_csrf(self.site.cookie(request), "sign-out", form.get("csrf", ""))
        held = await self.held(request)
        if held is not None:
            await self.sessions.sign_out(held.record, everywhere=form.get("decision") == "everywhere")
        response = self.sorry(
            "Signed out", "Every app that was open in this browser asks for a login now.", 200
        )
        self.site.end_cookie(response)
        return response

    async def _logged_out(self, request: web.Request) -> web.StreamResponse:
        """End sessions that a provider ended; the word is the provider's by its signature alone."""
        name = request.match_info["provider"]
        provider = next((one for one in self._providers if one.name == name), None)
        token = (await read_form(request)).get("logout_token", "")
        headers = {"Cache-Control": "no-store"}
        if not isinstance(provider, Oidc) or not token:
            return web.json_response({"error": "invalid_request"}, status=400, headers=headers)
        try:
            said = await provider.logged_out(Secret(token))
        except OnboardingError as exc:
            _log.warning("logout token refused", provider=name, reason=str(exc), client=client_of(request))
            return web.json_response({"error": "invalid_request"}, status=400, headers=headers)
        count = await self.sessions.ended_at_provider(said, name)
        _log.info("signed out at the provider", provider=name, sessions=count)
        return web.Response(status=200, headers=headers)

    # ------------------------------------------------------------------------------------ words

    def refused(self, request: web.Request, provider: str, reason: str, user: str = "") -> None:
        """Record a sign-in that came to nothing; it counts against the address as a login by SSH does."""
        self.sessions.refused(client_of(request), provider, reason, user)
        self._rules.addresses.failed_at(client_of(request), (reason,))

    def _failed(self, provider: str, exc: FairleadError) -> web.Response:
        _log.info("sign-in failed", provider=provider, code=exc.code, reason=str(exc))
        said = exc.user_message
        return self.sorry("That did not work", f"{said[:1].upper()}{said[1:]}.", 502)


_NOT_BEGUN = (
    "This browser did not begin the sign-in here, or it keeps no cookies of this page, or the sign-in took "
    "longer than 10 minutes. Permit cookies of this page, then open the address of the app again."
)
_REFUSALS = {
    "account_unknown": (
        "No user here has this account. A new user comes in by SSH first, with the command: {line}"
    ),
    "account_inactive": "This account is not active at its provider.",
}


def client_of(request: web.Request) -> str:
    """Return the address of the client, which the front says."""
    return request.headers.get(CLIENT_FIELD.decode(), "")


def _slot(about: Mapping[str, str]) -> str:
    """Return the cookie slot of a way to a provider, by the content of its state."""
    return f"{_VISIT}-{about.get(_VISIT, '')}"


def _is_since(held: Held | None, about: Mapping[str, str]) -> bool:
    """Tell whether a session began after the browser had left for a provider: in another tab, then."""
    return held is not None and held.record.created_at.timestamp() > float(about[ISSUED_AT])


def _is_by(held: Held, profile: Profile, user: User) -> bool:
    """Tell whether a session is of the same user, by the same account."""
    record = held.record
    account = record.issuer, record.subject
    return record.user_id == user.id and account == (profile.issuer, profile.subject)
