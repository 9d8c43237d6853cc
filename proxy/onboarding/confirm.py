"""The page on which a user who signed in at a provider confirms one key.

    GET  /c/{id}           a ticket's link: on to the provider, by authorization code and PKCE
    GET  /callback         back from the provider: identify the user
    GET  /c/{id}/confirm   name, address, fingerprint and code of the client in the terminal
    POST /c/{id}/confirm   confirm or deny, once

A provider's own page cannot show these. They protect against a device code that another party began (RFC 8628
§5.4, BCP 247). Tickets live in the process where the terminal waits; another replica's page passes requests
on to it.

A visit is bound to one ticket by `state`, and to the browser that left for the provider by a cookie of its
own, which is good for this visit only. The sign-in issues a new session, for this ticket alone. Its page is
found by the session's cookie together with a value in the address to which the signed-in browser was sent. A
program that reads the cookie, as one at another port of `login.localhost` can, does not see that page.
"""

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from proxy.errors import FairleadError
from proxy.errors.login import ApprovalDenied, OnboardingError, Waitlisted
from proxy.http import pages
from proxy.http.client import Http
from proxy.http.handover import HandOver, ReplicaPages
from proxy.http.pages import Button, Fact
from proxy.http.secret import Secret
from proxy.http.sessions import Sessions, digest, is_of, new_value
from proxy.http.site import Handler, Site, read_form, read_query, redirect
from proxy.onboarding import authcode
from proxy.onboarding.authcode import WebLogin
from proxy.onboarding.providers.base import ApprovalFacts, Provider
from proxy.onboarding.tickets import Confirmation, Ticket
from proxy.settings.onboarding import ConfirmSettings

_log = structlog.get_logger("confirm")
MAX_VISITS_PER_TICKET = 10
MAX_COOKIES_OF_A_KIND = 5
"""Limit for one browser: links that are opened again and again must not fill the `Cookie` field."""
_SLOT_CHARACTERS = 8
_WORDS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True, slots=True)
class _Visit:
    """A browser that was sent to a provider for a ticket."""

    ticket: Ticket
    browser: str = field(repr=False)
    """Digest of the browser's cookie."""
    web: WebLogin = field(repr=False)

    def is_by(self, browser: str) -> bool:
        """Return whether a cookie is the one of this browser."""
        return is_of(browser, self.browser)


@dataclass(frozen=True, slots=True)
class _SignedIn:
    """A browser that returned from a provider, for one ticket."""

    ticket: Ticket
    view: str = field(repr=False)
    """Digest of the value in the address of its page."""
    confirmation: Confirmation = field(repr=False)

    def is_seen_by(self, view: str) -> bool:
        """Return whether a request has the value in the address to which the signed-in browser was sent."""
        return is_of(view, self.view)


class ConfirmPages:
    """A Confirmer that serves its own pages; `start` before use."""

    def __init__(
        self, settings: ConfirmSettings, host: str, port: int, http: Http, peers: ReplicaPages
    ) -> None:
        self._settings = settings
        self._http = http
        self._site = Site("confirm", host, port, settings.public_url)
        self._site.app.middlewares.append(self._for_whom)
        self._others = HandOver(peers, settings.peer_timeout_s)
        self._tickets: dict[str, Ticket] = {}
        self._visits: OrderedDict[str, _Visit] = OrderedDict()
        self._sessions: Sessions[_SignedIn] = Sessions(settings.max_visits)
        self._site.app.add_routes(
            [
                web.get("/c/{id}", self._leave),
                web.get("/callback", self._return),
                web.get("/c/{id}/confirm", self._ask),
                web.post("/c/{id}/confirm", self._answer),
            ]
        )

    @property
    def redirect_uri(self) -> str:
        """Return the URL to register with providers; valid after `start`."""
        return f"{self._site.public_url}/callback"

    @property
    def url(self) -> str:
        """Return the URL that browsers use."""
        return self._site.public_url

    async def start(self) -> None:
        """Listen. Raises: SettingsError."""
        await self._site.start()

    @property
    def port(self) -> int:
        """Return the port in use; valid after `start`."""
        return self._site.port

    async def close_site(self) -> None:
        """Stop listening."""
        await self._site.close()
        await self._others.close()

    # ------------------------------------------------------------------------------- a Confirmer

    def open(self, provider: Provider, about: ApprovalFacts) -> Ticket:
        """See Confirmer."""
        ticket_id = self._others.tagged(secrets.token_urlsafe(24))
        code = "".join(secrets.choice(_WORDS) for _ in range(4))
        done: asyncio.Future[Confirmation] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_retrieve)
        uri = f"{self._site.public_url}/c/{ticket_id}"
        outcome: asyncio.Future[FairleadError | None] = asyncio.get_running_loop().create_future()
        ticket = Ticket(ticket_id, uri, code, provider, about, done, outcome)
        self._tickets[ticket_id] = ticket
        return ticket

    def close(self, ticket: Ticket) -> None:
        """See Confirmer."""
        self._tickets.pop(ticket.id, None)
        ticket.done.cancel()
        for state in [state for state, visit in self._visits.items() if visit.ticket is ticket]:
            del self._visits[state]
        self._sessions.end_where(lambda signed_in: signed_in.ticket is ticket)

    # ---------------------------------------------------------------------------------- the pages

    @web.middleware
    async def _for_whom(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        page = self._others.other_page(request)
        if page is None:
            return await handler(request)
        return await self._others.ask(page, request, self._site.own_cookies(request))

    async def _leave(self, request: web.Request) -> web.StreamResponse:
        ticket = self._ticket(request)
        login = WebLogin(self.redirect_uri, Secret(self._others.tagged(secrets.token_urlsafe(24))))
        try:
            client = await ticket.provider.code_client()
        except OnboardingError as exc:
            return self._failed(ticket, exc)
        state, browser = login.state.reveal(), new_value()
        self._remember(state, _Visit(ticket, digest(browser), login))
        response = redirect(authcode.authorize_url(client, login))
        self._site.end_oldest_cookies(request, response, "visit-", MAX_COOKIES_OF_A_KIND - 1)
        self._site.give_cookie(response, browser, _visit_slot(state))
        return response

    def _remember(self, state: str, visit: _Visit) -> None:
        """Keep a visit; repeated opening of one link replaces only that link's visits."""
        same = [known for known, other in self._visits.items() if other.ticket is visit.ticket]
        for known in same[: max(0, len(same) - MAX_VISITS_PER_TICKET + 1)]:
            del self._visits[known]
        self._visits[state] = visit
        while len(self._visits) > self._settings.max_visits:
            self._visits.popitem(last=False)

    async def _return(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request)
        state = query.get("state", "")
        visit = self._visits.get(state)
        if visit is None or not visit.is_by(self._site.cookie(request, _visit_slot(state))):
            raise web.HTTPForbidden(text="This browser did not begin here. Open the link of the terminal.")
        del self._visits[state]
        response = await self._sign_in(request, visit, query)
        self._site.end_cookie(response, _visit_slot(state))
        return response

    async def _sign_in(self, request: web.Request, visit: _Visit, query: dict[str, str]) -> web.Response:
        ticket = visit.ticket
        try:
            client = await ticket.provider.code_client()
            code = authcode.read_callback(client, query)
            tokens = await authcode.redeem(client, visit.web, code, self._http)
            profile = await ticket.provider.profile(tokens, nonce=visit.web.nonce)
        except ApprovalDenied as exc:
            return self._deny(ticket, exc)
        except OnboardingError as exc:
            return self._failed(ticket, exc)
        view, slot = new_value(), _ticket_slot(ticket)
        signed_in = _SignedIn(ticket, digest(view), Confirmation(profile, tokens))
        session = self._sessions.renew(self._site.cookie(request, slot), signed_in)
        response = redirect(f"{self._site.public_url}/c/{ticket.id}/confirm?view={view}")
        self._site.end_oldest_cookies(request, response, "session-", MAX_COOKIES_OF_A_KIND - 1)
        self._site.give_cookie(response, session, slot)
        return response

    def _signed_in(self, ticket: Ticket, session: str) -> _SignedIn | None:
        """Return the subject of a browser's session, if it is one for this ticket."""
        found = self._sessions.find(session)
        return found if found is not None and found.ticket is ticket else None

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        ticket = self._ticket(request)
        session = self._site.cookie(request, _ticket_slot(ticket))
        signed_in = self._signed_in(ticket, session)
        if signed_in is None or not signed_in.is_seen_by(read_query(request).get("view", "")):
            return redirect(f"{self._site.public_url}/c/{ticket.id}")
        known = signed_in.confirmation
        shown = _facts(ticket, known)
        csrf = [("csrf", self._site.csrf(session, ticket.id))]
        if known.profile.name != ticket.about.name:
            warning = (
                f"You are signed in as {known.profile.login}, and a login in a terminal asks to be "
                f"{ticket.about.name}. If that was not you, deny it."
            )
            deny = pages.form(request.path, csrf, "", [Button("deny", "Deny")])
            return self._site.page("That is not you", pages.paragraph(warning, "warning") + shown + deny)
        warning = (
            "Confirm only if you started this login yourself, from this address, and your terminal shows "
            "this code. The holder of this key can log in as you from then on."
        )
        buttons = [Button("confirm", "Confirm", go=True), Button("deny", "Deny")]
        body = shown + pages.paragraph(warning, "warning") + pages.form(request.path, csrf, "", buttons)
        return self._site.page("Is this your key?", body)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._site.check_origin(request)
        ticket = self._ticket(request)
        form = await read_form(request)
        session = self._site.cookie(request, _ticket_slot(ticket))
        self._site.check_csrf(session, ticket.id, form.get("csrf", ""))
        signed_in = self._signed_in(ticket, session)
        if signed_in is None or ticket.done.done():
            raise web.HTTPForbidden(text="You are not signed in here, or this was answered already.")
        if form.get("decision") != "confirm":
            said = "the request was denied in the browser"
            name = ticket.provider.name
            denied = self._deny(ticket, ApprovalDenied(f"{name}: denied on the page", user_message=said))
            self._site.end_cookie(denied, _ticket_slot(ticket))
            return denied
        if signed_in.confirmation.profile.name != ticket.about.name:
            raise web.HTTPForbidden(text="You are signed in with another account.")
        ticket.done.set_result(signed_in.confirmation)
        self._forget(ticket)
        response = await self._confirmed(ticket)
        self._site.end_cookie(response, _ticket_slot(ticket))
        return response

    async def _confirmed(self, ticket: Ticket) -> web.Response:
        """Show whether the user is admitted, once the rules have decided, or that this is not known yet."""
        try:
            async with asyncio.timeout(self._settings.outcome_wait_s):
                outcome = await asyncio.shield(ticket.outcome)
        except TimeoutError:
            said = "Go back to the terminal: it says whether you are let in. You can close this page."
            return self._site.page("Confirmed", pages.paragraph(said))
        if outcome is None:
            said = "Go back to the terminal: it goes on by itself. You can close this page."
            return self._site.page("Confirmed", pages.paragraph(said))
        title = "On the waiting list" if isinstance(outcome, Waitlisted) else "You are not let in"
        sentence = outcome.user_message[:1].upper() + outcome.user_message[1:] + "."
        return self._site.page(title, pages.paragraph(f"Your key is confirmed, but: {sentence}", "warning"))

    def _deny(self, ticket: Ticket, denial: ApprovalDenied) -> web.Response:
        if not ticket.done.done():
            ticket.done.set_exception(denial)
        self._forget(ticket)
        return self._site.page("Denied", pages.paragraph("Login refused. You can close this page."))

    def _forget(self, ticket: Ticket) -> None:
        self.close(ticket)  # cancelling an answered future does nothing

    def _ticket(self, request: web.Request) -> Ticket:
        ticket = self._tickets.get(request.match_info["id"])
        if ticket is None:
            raise web.HTTPNotFound(text="This link was used already, or it has expired. Connect again.")
        return ticket

    def _failed(self, ticket: Ticket, exc: OnboardingError) -> web.Response:
        """Show the failure on the page; the terminal still waits, because the link still works."""
        _log.info("sign-in failed", provider=ticket.provider.name, code=exc.code, reason=str(exc))
        body = pages.paragraph(exc.user_message[:1].upper() + exc.user_message[1:] + ".")
        return self._site.page("That did not work", body, status=502)


def _visit_slot(state: str) -> str:
    """Return the cookie slot of one visit: concurrent tabs do not end each other's visits."""
    return f"visit-{digest(state)[:_SLOT_CHARACTERS]}"


def _ticket_slot(ticket: Ticket) -> str:
    """Return the cookie slot of a browser's session for one ticket."""
    return f"session-{digest(ticket.id)[:_SLOT_CHARACTERS]}"


def _facts(ticket: Ticket, known: Confirmation) -> str:
    return pages.facts(
        [
            Fact("Code", ticket.code, code=True),
            Fact("User name", ticket.about.name),
            Fact("From address", ticket.about.source),
            Fact("With key", ticket.about.fingerprint),
            Fact("You are", f"{known.profile.login} at {known.profile.provider}"),
        ]
    )


def _retrieve(done: "asyncio.Future[Confirmation]") -> None:
    """Mark an error as retrieved, because the waiting client may have left."""
    if not done.cancelled():
        done.exception()
